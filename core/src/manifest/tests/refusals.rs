//! What is not edited: aliases, templates, bombs and what two parsers read differently.

use super::*;

#[test]
fn what_is_more_than_itself_is_refused() {
    let cases: &[(&str, &str, &str)] = &[
        ("a: &n 1\nb: *n\n", "/b", "manifest.alias"),
        ("a: &n 1\nb: *n\n", "/a", "manifest.anchored"),
        ("a: &n {x: 1}\nb: *n\n", "/b/x", "manifest.merge_key"),
        ("a: &n {x: 1}\nb: *n\n", "/a/x", "manifest.anchored"),
        ("a: &n\n  x: 1\nb: *n\n", "/a/x", "manifest.anchored"),
        ("a: &n {x: 1}\nb:\n  <<: *n\n  w: 2\n", "/b/x", "manifest.merge_key"),
        ("l:\n- &n x\n- *n\n", "/l/1", "manifest.alias"),
        ("l: [&n x, *n]\n", "/l/1", "manifest.alias"),
        ("a: !!str 1\n", "/a", "manifest.tagged"),
        ("a: x # {\"$imagepolicy\": \"flux-system:podinfo\"}\n", "/a", "manifest.image_automation"),
        ("data:\n  a: |\n    x: 1\n    y: 2\n", "/data/a/x", "manifest.inner_document"),
        ("sops:\n  mac: x\na: 1\n", "/a", "manifest.sops"),
        ("b: ENC[AES256_GCM,data:x]\na: 1\n", "/a", "manifest.sops"),
        ("data:\n  a:\n    # why\n    k: 1\n", "/data/a", "manifest.comments_inside"),
        ("a: 1\n", "a", "manifest.bad_pointer"),
        ("a: 1\n", "/a/b", "manifest.path_not_found"),
        ("a: 1\n", "/x/0/b", "manifest.path_not_found"),
        ("l: [1]\n", "/l/7", "manifest.path_not_found"),
        ("l: [1]\n", "/l/x", "manifest.bad_pointer"),
        ("l: [{name: a}]\n", "/l/name=b", "manifest.path_not_found"),
        ("l: [{name: a}, {name: a}]\n", "/l/name=a", "manifest.ambiguous_item"),
        ("a: 1\n", "/a", "manifest.no_change"),
    ];
    for (body, pointer, code) in cases {
        let new = if *code == "manifest.no_change" { json!(1) } else { json!("new") };
        assert_eq!(run(&doc(body), &field(pointer, new)).unwrap_err(), *code, "{body:?} {pointer}");
    }
}

#[test]
fn files_that_are_not_plain_yaml_are_refused() {
    let code = |b: &[u8]| documents(b).unwrap_err().code.into_owned();
    assert_eq!(code(b"a: 1\na: 2\n"), "manifest.duplicate_key");
    assert_eq!(code(b"a: {{ .Values.x }}\n"), "manifest.template");
    assert_eq!(code(b"{{- if .Values.x }}\na: 1\n{{- end }}\n"), "manifest.template");
    assert_eq!(code(b"a: [1\n"), "manifest.syntax");
    assert_eq!(code(b"a: \xff\n"), "manifest.not_utf8");
    assert_eq!(code(&vec![b'a'; MAX_FILE_BYTES + 1]), "manifest.too_large");
    // Kubernetes reads this key as `true`, YAML 1.2 does not.
    assert_eq!(code(b"on: 1\n"), "manifest.parsers_disagree");
    let p = documents(b"password: hunter2\n  x: [\n").unwrap_err();
    assert!(!p.to_string().contains("hunter2"), "{p}");
}

#[test]
fn templates_inside_text_are_fine() {
    let text = doc("data:\n  a: \"{{ $labels.x }}\"\n  b: |\n    {{ if x }}\n  c: 1\n");
    exact(&text, &field("/data/c", json!(2)), "c: 1", "c: 2");
}

#[test]
fn bombs_are_refused_before_they_are_read_out() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 900].join(", "));
    let wide = format!("a: &a x\nb: [{}]\n", vec!["*a"; 20_000].join(", "));
    let deep = "[".repeat(5_000);
    let nested = (0..2_000).map(|i| format!("{}- \n", " ".repeat(i % 300))).collect::<String>();
    for bomb in [laughs, long, wide, deep, nested] {
        // Read out, the first of them is four thousand million words: whoever tried would not end.
        assert!(documents(bomb.as_bytes()).is_err());
    }
}
