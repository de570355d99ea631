//! Whatever the shape of a file, every byte stays that was not asked for.

use super::*;

/// (body, pointer, value, body after): the thirty-five shapes and more.
#[test]
fn every_untouched_byte_stays() {
    let cases: &[(&str, &str, Value, &str)] = &[
        ("data:\n  a: 1   # note\n  b: 2\n", "/data/a", json!(3), "data:\n  a: 3   # note\n  b: 2\n"),
        ("data:\n  a: 1\t# tab\n", "/data/a", json!(3), "data:\n  a: 3\t# tab\n"),
        ("data:\n  a: x\n", "/data/a", json!("z"), "data:\n  a: z\n"),
        ("data:\n  a: x\n", "/data/a", json!("y"), "data:\n  a: \"y\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("yes"), "data:\n  a: \"yes\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("1e3"), "data:\n  a: \"1e3\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("0755"), "data:\n  a: \"0755\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("1.20"), "data:\n  a: \"1.20\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("1.2.3"), "data:\n  a: 1.2.3\n"),
        ("data:\n  a: x\n", "/data/a", json!("12345678"), "data:\n  a: \"12345678\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("null"), "data:\n  a: \"null\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("~"), "data:\n  a: \"~\"\n"),
        ("data:\n  a: x\n", "/data/a", json!(""), "data:\n  a: \"\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("2026-11-21"), "data:\n  a: \"2026-11-21\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("v # x"), "data:\n  a: \"v # x\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("a: b"), "data:\n  a: \"a: b\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("- a"), "data:\n  a: \"- a\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("tab\tbell\u{7}"), "data:\n  a: \"tab\\tbell\\u0007\"\n"),
        ("data:\n  a: x\n", "/data/a", json!("ümlaut"), "data:\n  a: \"ümlaut\"\n"),
        ("data:\n  a: 'x'\n", "/data/a", json!("y"), "data:\n  a: 'y'\n"),
        ("data:\n  a: \"x\"\n", "/data/a", json!("q\"q"), "data:\n  a: \"q\\\"q\"\n"),
        ("data:\n  a: \"x\"\n", "/data/a", json!(true), "data:\n  a: true\n"),
        ("data:\n  a.b/c: x\n  'q''k': y\n", "/data/a.b~1c", json!("z"), "data:\n  a.b/c: z\n  'q''k': y\n"),
        ("data:\n  'q''k': y\n", "/data/q'k", json!("z"), "data:\n  'q''k': z\n"),
        ("data: {a: x, b: y}\n", "/data/b", json!("z"), "data: {a: x, b: z}\n"),
        ("data: {a: x, b: y}\n", "/data/c", json!("z"), "data: {a: x, b: y, c: z}\n"),
        ("data: {a: x,}\n", "/data/c", json!("z"), "data: {a: x, c: z}\n"),
        ("data: {}\n", "/data/c", json!("z"), "data:\n  c: z\n"),
        ("data: {} # none\n", "/data/c", json!("z"), "data: {c: z} # none\n"),
        ("data:\n", "/data/c", json!("z"), "data:\n  c: z\n"),
        ("data: # none\nx: 1\n", "/data/c", json!("z"), "data: # none\n  c: z\nx: 1\n"),
        ("data: ~\n", "/data/c", json!("z"), "data: {c: z}\n"),
        (
            "data:\n  a: |\n    t\n    u\n\n# end\n",
            "/data/b",
            json!("z"),
            "data:\n  a: |\n    t\n    u\n  b: z\n\n# end\n",
        ),
        (
            "data:\n  a: x\n  # last\n\nbinaryData: {}\n",
            "/data/b",
            json!("z"),
            "data:\n  a: x\n  b: z\n  # last\n\nbinaryData: {}\n",
        ),
        ("l:\n- a\n- b # two\n", "/l/1", json!("c"), "l:\n- a\n- c # two\n"),
        ("l:\n- a\n- b # two\n", "/l/-", json!("c"), "l:\n- a\n- b # two\n- c\n"),
        (
            "l:\n  -   a\n  -   b\n",
            "/l/-",
            json!({"x": 1, "v": [1]}),
            "l:\n  -   a\n  -   b\n  -   x: 1\n      v:\n        - 1\n",
        ),
        ("l: [a, b]\n", "/l/-", json!("c"), "l: [a, b, c]\n"),
        ("l: []\n", "/l/-", json!("c"), "l:\n  - c\n"),
        ("l:\n  - a:\n      b: 1\n    c: 2\n", "/l/0/a/d", json!(3), "l:\n  - a:\n      b: 1\n      d: 3\n    c: 2\n"),
        (
            "a: 1\nb:\n    c:\n        d: 1\n",
            "/b/e/f",
            json!(2),
            "a: 1\nb:\n    c:\n        d: 1\n    e:\n        f: 2\n",
        ),
        (
            "data:\n  a: >-\n    folded\n    text\n  b: 1\n",
            "/data/b",
            json!(2),
            "data:\n  a: >-\n    folded\n    text\n  b: 2\n",
        ),
        (
            "data:\n  a: |\n    one\n    two\n  b: 1\n",
            "/data/a",
            json!("one\nthree\n"),
            "data:\n  a: |\n    one\n    three\n  b: 1\n",
        ),
        ("data:\n  a: x\n", "/data/a", json!("one\n two"), "data:\n  a: |-\n    one\n     two\n"),
        (
            "data:\n  a: x\n",
            "/data/a",
            json!({"k": {"l": [1, "2"]}}),
            "data:\n  a:\n    k:\n      l:\n        - 1\n        - \"2\"\n",
        ),
        ("data:\n  a:\n    k: 1\n  b: 2\n", "/data/a", json!("x"), "data:\n  a: x\n  b: 2\n"),
        ("data:\n  a: x", "/data/a", json!("z"), "data:\n  a: z"),
        ("data:\n  a: x", "/data/b", json!("z"), "data:\n  a: x\n  b: z"),
        ("a: &n 1\nb: 2\n", "/a", json!(3), "a: &n 3\nb: 2\n"),
        ("a: &n {x: 1}\nb:\n  <<: *n\n  w: 2\n", "/b/w", json!(3), "a: &n {x: 1}\nb:\n  <<: *n\n  w: 3\n"),
        ("a: &n {x: 1}\nb:\n  w: 2\n  <<: *n\n", "/b/z", json!(3), "a: &n {x: 1}\nb:\n  w: 2\n  z: 3\n  <<: *n\n"),
        ("a: &n {x: 1}\nb: 2\n", "/a/x", json!(3), "a: &n {x: 3}\nb: 2\n"),
        ("a: &n\n  x: 1\nb: 2\n", "/a/w", json!(3), "a: &n\n  x: 1\n  w: 3\nb: 2\n"),
        ("l:\n- &n x\n- z\n", "/l/0", json!("w"), "l:\n- &n w\n- z\n"),
        ("l:\n- &n\n  x: 1\n", "/l/0/x", json!(2), "l:\n- &n\n  x: 2\n"),
        ("a: 1\n...\n", "/a", json!(3), "a: 3\n...\n"),
        ("data:\n  a: first\n    second\n  b: 1\n", "/data/a", json!("x"), "data:\n  a: x\n  b: 1\n"),
        ("data:\n  a:\n    plain below\n", "/data/a", json!("x"), "data:\n  a:\n    x\n"),
        ("f: 1.0\n", "/f", json!(2.5), "f: 2.5\n"),
        ("f: 0x1F\n", "/f", json!(30), "f: 30\n"),
    ];
    for (body, pointer, value, want) in cases {
        let text = doc(body);
        assert_eq!(run(&text, &field(pointer, value.clone())), Ok(doc(want)), "{body:?} {pointer}");
        if text.ends_with('\n') {
            let crlf = text.replace('\n', "\r\n");
            let multi_line = matches!(value, Value::String(s) if s.contains('\n'));
            if !multi_line {
                assert_eq!(
                    run(&crlf, &field(pointer, value.clone())),
                    Ok(doc(want).replace('\n', "\r\n")),
                    "CRLF {body:?} {pointer}"
                );
            }
            let bom = format!("\u{feff}{text}");
            assert_eq!(
                run(&bom, &field(pointer, value.clone())),
                Ok(format!("\u{feff}{}", doc(want))),
                "BOM {body:?} {pointer}"
            );
        }
    }
}

#[test]
fn fields_are_removed_with_their_line_alone() {
    let cases: &[(&str, &str, &str)] = &[
        ("data:\n  # about a\n  a: 1 # x\n  b: 2\n", "/data/a", "data:\n  # about a\n  b: 2\n"),
        ("data:\n  a: 1\n  b: 2", "/data/b", "data:\n  a: 1"),
        ("data:\n  a: |\n    x\n    y\n  b: 2\n", "/data/a", "data:\n  b: 2\n"),
        ("data:\n  a: 1\nb: 2\n", "/data/a", "b: 2\n"),
        ("l:\n- a: 1\n  b: 2\n- c\n", "/l/0/a", "l:\n- b: 2\n- c\n"),
        ("l:\n- a: 1\n  b: 2\n- c\n", "/l/1", "l:\n- a: 1\n  b: 2\n"),
        ("l:\n- a: 1\n  b: 2\n- c\n", "/l/0", "l:\n- c\n"),
        ("l: [a, b, c]\n", "/l/1", "l: [a, c]\n"),
        ("l: [a, b, c]\n", "/l/2", "l: [a, b]\n"),
    ];
    for (body, pointer, want) in cases {
        assert_eq!(run(&doc(body), &unset(pointer)), Ok(doc(want)), "{body:?}");
    }
    refused(&doc("spec:\n  a: 1\n"), &unset("/spec/a"), "manifest.last_field");
}

#[test]
fn json_stays_json() {
    let text = "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"ConfigMap\",\n  \"metadata\": {\n    \"name\": \"a\"\n  },\n  \"data\": {\"x\": \"1\"}\n}\n";
    exact(text, &field("/data/x", json!("2")), "\"1\"", "\"2\"");
    exact(text, &field("/data/y", json!("2")), "\"1\"}", "\"1\", \"y\": \"2\"}");
    exact(text, &field("/metadata/labels", json!({"k": "v"})), "\"a\"\n", "\"a\",\n    \"labels\": {\"k\":\"v\"}\n");
    let out = run(text, &field("/metadata/labels", json!({"k": "v"}))).unwrap();
    assert!(serde_json::from_str::<Value>(&out).is_ok());
}
