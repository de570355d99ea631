//! The editor's corpus: exact bytes after, or the exact code of the refusal.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::model::{
    Create, Delete, ObjectKey, Operation, Restart, Scale, SetEnv, SetField, SetImage, SetResources, SourceKind,
};

const CTX: EditContext<'static> = EditContext { restarted_at: "2026-11-21T10:00:00Z" };

fn field(pointer: &str, value: Value) -> Operation {
    Operation::SetField(SetField { pointer: pointer.into(), value: Some(value) })
}

fn unset(pointer: &str) -> Operation {
    Operation::SetField(SetField { pointer: pointer.into(), value: None })
}

fn image(container: &str, image: &str) -> Operation {
    Operation::SetImage(SetImage { container: container.into(), image: image.into() })
}

fn env(container: &str, name: &str, value: Option<&str>) -> Operation {
    Operation::SetEnv(SetEnv { container: container.into(), name: name.into(), value: value.map(str::to_owned) })
}

fn doc(body: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n{body}")
}

fn run(text: &str, op: &Operation) -> Result<String, String> {
    run_at(text, 0, op)
}

fn run_at(text: &str, index: usize, op: &Operation) -> Result<String, String> {
    edit("f.yaml", text.as_bytes(), DocId { index, item: None }, op, CTX)
        .map(|e| e.bytes.map_or_else(String::new, |b| String::from_utf8(b).unwrap()))
        .map_err(|p| p.code.into_owned())
}

/// Edits `text` and checks the one replacement by its words.
#[track_caller]
fn exact(text: &str, op: &Operation, from: &str, to: &str) {
    let want = text.replacen(from, to, 1);
    assert_ne!(want, text, "the test changes nothing");
    assert_eq!(run(text, op).as_deref(), Ok(want.as_str()));
}

#[track_caller]
fn refused(text: &str, op: &Operation, code: &str) {
    assert_eq!(run(text, op).unwrap_err(), code, "{text}");
}

const DEPLOYMENT: &str = "\
# checkout: takes the money
apiVersion: apps/v1
kind: Deployment
metadata:
  name: checkout   # the name
  namespace: shop
  labels: {app: checkout, tier: \"web\"}
spec:
  replicas: 2  # two is enough

  selector:
    matchLabels:
      app: checkout
  template:
    metadata:
      labels:
        app: checkout
    spec:
      initContainers:
      - name: migrate
        image: ghcr.io/shop/migrate:1.0.0
      containers:
      - name: app
        image: \"ghcr.io/shop/checkout:1.4.2\" # pinned
        env:
        # first
        - name: A
          value: 'x'
        - name: B
          valueFrom:
            secretKeyRef: {name: s, key: k}
        resources:
          requests:
            cpu: 100m
      # the proxy
      - image: envoy:1.2
        name: proxy
";

#[test]
fn an_image_keeps_its_quotes_and_its_comment() {
    exact(DEPLOYMENT, &image("app", "ghcr.io/shop/checkout:1.4.3"), "checkout:1.4.2", "checkout:1.4.3");
    exact(DEPLOYMENT, &image("migrate", "ghcr.io/shop/migrate:2.0.0"), "migrate:1.0.0", "migrate:2.0.0");
    exact(DEPLOYMENT, &image("proxy", "envoy:1.3"), "envoy:1.2", "envoy:1.3");
    refused(DEPLOYMENT, &image("ap", "a:1"), "manifest.container_not_found");
    for bad in ["checkout", "", "a b:1", "a:1\n", "a:", "a@sha256:12", "-a:-", "a//b:1"] {
        refused(DEPLOYMENT, &image("app", bad), "manifest.bad_image");
    }
}

#[test]
fn a_replica_count_keeps_its_comment() {
    exact(DEPLOYMENT, &Operation::Scale(Scale { replicas: 5 }), "replicas: 2 ", "replicas: 5 ");
    refused(DEPLOYMENT, &Operation::Scale(Scale { replicas: 2 }), "manifest.no_change");
    refused(&doc(""), &Operation::Scale(Scale { replicas: 2 }), "manifest.not_scalable");
}

#[test]
fn absent_parents_are_added_in_the_style_of_the_file() {
    exact(
        DEPLOYMENT,
        &Operation::Restart(Restart {}),
        "        app: checkout\n    spec:",
        "        app: checkout\n      annotations:\n        countersign.dev/restartedAt: \"2026-11-21T10:00:00Z\"\n    spec:",
    );
    exact(
        DEPLOYMENT,
        &env("proxy", "LOG", Some("debug")),
        "        name: proxy\n",
        "        name: proxy\n        env:\n        - name: LOG\n          value: debug\n",
    );
    exact(
        DEPLOYMENT,
        &Operation::SetResources(SetResources {
            container: "app".into(),
            requests: BTreeMap::new(),
            limits: BTreeMap::from([("memory".into(), "256Mi".into())]),
        }),
        "            cpu: 100m\n",
        "            cpu: 100m\n          limits:\n            memory: \"256Mi\"\n",
    );
}

#[test]
fn environment_variables_are_set_added_and_removed() {
    exact(DEPLOYMENT, &env("app", "A", Some("it's")), "'x'", "'it''s'");
    exact(DEPLOYMENT, &env("app", "C", Some("1")), "key: k}\n", "key: k}\n        - name: C\n          value: \"1\"\n");
    exact(DEPLOYMENT, &env("app", "A", None), "        - name: A\n          value: 'x'\n", "");
    refused(DEPLOYMENT, &env("app", "B", Some("x")), "manifest.value_from");
    refused(DEPLOYMENT, &env("app", "Z", None), "manifest.no_change");
}

#[test]
fn the_last_variable_goes_with_its_list() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    env:\n    - name: A\n      value: b\n    image: x:1\n";
    exact(text, &env("c", "A", None), "    env:\n    - name: A\n      value: b\n", "");
}

#[test]
fn annotations_and_labels_change_metadata_only() {
    let set = |k: &str, v: Option<&str>| BTreeMap::from([(k.to_owned(), v.map(str::to_owned))]);
    exact(DEPLOYMENT, &Operation::Label(set("tier", Some("api"))), "\"web\"", "\"api\"");
    exact(DEPLOYMENT, &Operation::Label(set("on", Some("yes"))), "tier: \"web\"}", "tier: \"web\", \"on\": \"yes\"}");
    exact(DEPLOYMENT, &Operation::Label(set("tier", None)), ", tier: \"web\"", "");
    exact(DEPLOYMENT, &Operation::Label(set("app", None)), "app: checkout, ", "");
    exact(
        DEPLOYMENT,
        &Operation::Annotate(set("a.b/c", Some("d"))),
        "tier: \"web\"}\n",
        "tier: \"web\"}\n  annotations:\n    a.b/c: d\n",
    );
    for k in [
        "argocd.argoproj.io/tracking-id",
        "kustomize.toolkit.fluxcd.io/name",
        "meta.helm.sh/release-name",
        "app.kubernetes.io/instance",
    ] {
        refused(DEPLOYMENT, &Operation::Annotate(set(k, Some("x"))), "manifest.reserved_key");
        refused(
            DEPLOYMENT,
            &field(&format!("/metadata/labels/{}", k.replace('/', "~1")), json!("x")),
            "manifest.reserved_key",
        );
    }
}

#[test]
fn what_an_object_is_cannot_be_edited() {
    refused(DEPLOYMENT, &field("/kind", json!("Job")), "manifest.identity_field");
    refused(DEPLOYMENT, &field("/metadata/name", json!("x")), "manifest.identity_field");
    refused(DEPLOYMENT, &field("/metadata/namespace", json!("x")), "manifest.identity_field");
    refused(DEPLOYMENT, &field("/metadata", json!({"name": "x"})), "manifest.identity_field");
    refused(DEPLOYMENT, &field("/status/replicas", json!(1)), "manifest.status_field");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  a: b\n";
    refused(secret, &field("/stringData/a", json!("c")), "manifest.secret_value");
    exact(secret, &field("/metadata/labels/a", json!("c")), "name: s\n", "name: s\n  labels:\n    a: c\n");
}

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

const TWO: &str = "# file\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: 1\n---\n# b is next\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  namespace: other\ndata:\n  k: 1\n";

#[test]
fn documents_are_told_apart() {
    let docs = documents(TWO.as_bytes()).unwrap();
    let seen: Vec<_> = docs.iter().map(|d| (d.id.index, d.key.to_string(), d.line)).collect();
    assert_eq!(seen, [(0, "ConfigMap a".to_owned(), 3), (2, "ConfigMap other/b".to_owned(), 12)]);
    let after = run_at(TWO, 2, &field("/data/k", json!(2))).unwrap();
    assert_eq!(after, format!("{}2\n", TWO.strip_suffix("1\n").unwrap()));
}

#[test]
fn an_object_is_located_by_its_key() {
    let files: Vec<(&str, &[u8])> = vec![("x/f.yaml", TWO.as_bytes()), ("x/g.yaml", DEPLOYMENT.as_bytes())];
    let find = |ns: &str, name: &str, default: Option<&str>| {
        locate(&files, &ObjectKey::new("", "ConfigMap", ns, name), default)
    };
    assert_eq!(find("shop", "a", Some("shop")).unwrap().line, 3);
    assert_eq!(find("other", "b", Some("shop")).unwrap().id.index, 2);
    assert_eq!(find("shop", "b", Some("shop")).unwrap_err().code, "manifest.not_found");
    assert_eq!(find("shop", "a", None).unwrap_err().code, "manifest.not_found");
    assert_eq!(find("default", "a", None).unwrap().path, "x/f.yaml");
    let near = locate(&files, &ObjectKey::new("apps", "Deployment", "shop", "chekout"), None).unwrap_err();
    assert!(near.evidence.iter().any(|e| e == "checkout"), "{near}");
    let twice = [("a.yaml", TWO.as_bytes()), ("b.yaml", TWO.as_bytes())];
    let p = locate(&twice, &ObjectKey::new("", "ConfigMap", "other", "b"), None).unwrap_err();
    assert_eq!(p.code, "manifest.ambiguous");
    assert_eq!(p.evidence, ["a.yaml line 12", "b.yaml line 12"]);
    let broken: [(&str, &[u8]); 2] = [("a.yaml", TWO.as_bytes()), ("b.yaml", b"name: b\n{{ x }}\n")];
    assert_eq!(
        locate(&broken, &ObjectKey::new("", "ConfigMap", "other", "b"), None).unwrap_err().code,
        "manifest.template"
    );
}

#[test]
fn items_of_a_list_are_edited_in_place() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    name: a\n  data: {k: 1}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    name: b\n  data: {k: 1}\n";
    let docs = documents(text.as_bytes()).unwrap();
    assert_eq!(docs.len(), 2);
    let e = edit("f", text.as_bytes(), docs[1].id, &field("/data/k", json!(2)), CTX).unwrap();
    let want = format!("{}2}}\n", text.strip_suffix("1}\n").unwrap());
    assert_eq!(String::from_utf8(e.bytes.unwrap()).unwrap(), want);
    assert_eq!(e.changes[0].pointer, "/data/k");
    let e = edit("f", text.as_bytes(), docs[0].id, &Operation::Delete(Delete {}), CTX).unwrap();
    assert!(!String::from_utf8(e.bytes.unwrap()).unwrap().contains("name: a"));
}

#[test]
fn a_deleted_document_takes_nothing_else_along() {
    let delete = Operation::Delete(Delete {});
    assert_eq!(
        run_at(TWO, 0, &delete).unwrap(),
        "# file\n---\n# b is next\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  namespace: other\ndata:\n  k: 1\n"
    );
    assert_eq!(
        run_at(TWO, 2, &delete).unwrap(),
        TWO.split("---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b").next().unwrap()
    );
    let only = edit("f", DEPLOYMENT.as_bytes(), DocId { index: 0, item: None }, &delete, CTX).unwrap();
    assert_eq!(only.bytes, None);
    assert_eq!(only.changes.len(), 1);
    assert!(only.changes[0].after.is_none());
}

#[test]
fn leaves_are_named_like_people_name_them() {
    let docs = documents(DEPLOYMENT.as_bytes()).unwrap();
    let e = edit("f", DEPLOYMENT.as_bytes(), docs[0].id, &image("app", "x:2"), CTX).unwrap();
    assert_eq!(e.changes.len(), 1);
    assert_eq!(e.changes[0].pointer, "/spec/template/spec/containers/name=app/image");
    assert_eq!(e.changes[0].before, Some(json!("ghcr.io/shop/checkout:1.4.2")));
    assert_eq!(e.changes[0].after, Some(json!("x:2")));
    assert_eq!(e.changes[0].object.to_string(), "Deployment shop/checkout");
    assert_eq!(e.line, 24);
    assert_eq!(e.spans.len(), 1);
    let e = edit("f", DEPLOYMENT.as_bytes(), docs[0].id, &env("app", "C", Some("1")), CTX).unwrap();
    assert_eq!(e.changes.len(), 1);
    assert_eq!(e.changes[0].pointer, "/spec/template/spec/containers/name=app/env/name=C/value");
}

#[test]
fn differences_of_object_sets_are_leaves() {
    let o =
        |name: &str, v: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": v});
    let d = diff_objects(
        &[o("a", json!({"x": 1})), o("b", json!({}))],
        &[o("c", json!({})), o("a", json!({"x": 2, "y": [{"name": "n", "v": 1}]}))],
    );
    let seen: Vec<_> =
        d.iter().map(|c| (c.object.name.as_str(), c.pointer.as_str(), c.before.is_some(), c.after.is_some())).collect();
    assert_eq!(
        seen,
        [
            ("a", "/data/x", true, true),
            ("a", "/data/y/name=n/v", false, true),
            ("b", "", true, false),
            ("c", "", false, true)
        ]
    );
    assert!(diff_objects(&[o("a", json!({"x": 1}))], &[o("a", json!({"x": 1}))]).is_empty());
    let reordered = diff_objects(
        &[o("a", json!([{"name": "x"}, {"name": "y"}]))],
        &[o("a", json!([{"name": "y"}, {"name": "x"}]))],
    );
    assert_eq!(reordered.len(), 1);
}

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(p, b)| ((*p).to_owned(), b.as_bytes().to_vec())).collect()
}

fn tree<'a>(files: &'a Files, root: &'a str) -> SourceTree<'a> {
    SourceTree { files, root, kind: SourceTree::detect(files, root), recurse: true, default_namespace: Some("shop") }
}

fn shop(name: &str) -> ObjectKey {
    ObjectKey::new("apps", "Deployment", "shop", name)
}

#[test]
fn a_plain_folder_is_edited_where_the_object_stands() {
    let f = files(&[("apps/shop/d.yaml", DEPLOYMENT), ("apps/other/d.yaml", DEPLOYMENT), ("README.md", "x")]);
    let p = plan_source_edit(tree(&f, "apps/shop"), &shop("checkout"), &image("app", "x:2"), CTX).unwrap();
    assert_eq!((p.file.as_str(), p.line, p.uses_kustomize), ("apps/shop/d.yaml", 24, false));
    assert_eq!(p.files.len(), 1);
    let p = plan_source_edit(tree(&f, "apps"), &shop("checkout"), &image("app", "x:2"), CTX).unwrap_err();
    assert_eq!(p.code, "manifest.ambiguous");
    let flat = SourceTree { recurse: false, ..tree(&f, "apps") };
    assert_eq!(
        plan_source_edit(flat, &shop("checkout"), &image("app", "x:2"), CTX).unwrap_err().code,
        "manifest.not_found"
    );
}

const OVERLAY: &str = "resources:\n- ../../base\nnamePrefix: prod-\nimages:\n- name: ghcr.io/shop/checkout\n  newTag: 1.4.2 # set by release\nreplicas:\n- name: checkout\n  count: 3\npatches:\n- path: patch.yaml\n";
const PATCH: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: checkout\n  namespace: shop\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        env:\n        - name: A\n          value: prod\n";

fn overlay() -> Files {
    files(&[
        ("base/kustomization.yaml", "resources: [d.yaml]\n"),
        ("base/d.yaml", DEPLOYMENT),
        ("overlays/prod/kustomization.yaml", OVERLAY),
        ("overlays/prod/patch.yaml", PATCH),
    ])
}

#[test]
fn an_overlay_decides_before_its_base() {
    let f = overlay();
    let t = tree(&f, "overlays/prod");
    assert_eq!(t.kind, SourceKind::Kustomize);
    let places = |op: &Operation| -> Vec<(String, String)> {
        candidates(t, &shop("prod-checkout"), op, CTX).unwrap().into_iter().map(|p| (p.file, p.field)).collect()
    };
    assert_eq!(
        places(&image("app", "ghcr.io/shop/checkout:1.4.3")),
        [
            ("overlays/prod/kustomization.yaml".to_owned(), "/images/name=ghcr.io~1shop~1checkout/newTag".to_owned()),
            ("base/d.yaml".to_owned(), "/spec/template/spec/containers/name=app/image".to_owned())
        ]
    );
    assert_eq!(places(&Operation::Scale(Scale { replicas: 7 }))[0].1, "/replicas/name=checkout/count");
    assert_eq!(places(&env("app", "A", Some("x")))[0].0, "overlays/prod/patch.yaml");
    assert_eq!(places(&env("app", "N", Some("x")))[0].0, "base/d.yaml");
    assert_eq!(candidates(t, &shop("checkout"), &env("app", "N", None), CTX).unwrap_err().code, "manifest.not_found");
    let p = plan_source_edit(t, &shop("prod-checkout"), &image("app", "ghcr.io/shop/checkout:1.4.3"), CTX).unwrap();
    let after = String::from_utf8(p.files["overlays/prod/kustomization.yaml"].clone().unwrap()).unwrap();
    assert_eq!(after, OVERLAY.replace("newTag: 1.4.2 #", "newTag: 1.4.3 #"));
    assert_eq!(p.changes[0].pointer, "/spec/template/spec/containers/name=app/image");
    assert_eq!(p.changes[0].object.name, "prod-checkout");
}

#[test]
fn deleting_and_creating_keep_the_resources_list_right() {
    let mut f = overlay();
    f.insert("base/kustomization.yaml".into(), b"resources:\n- d.yaml\n- e.yaml # more\n".to_vec());
    f.insert("base/e.yaml".into(), doc("").into_bytes());
    let t = tree(&f, "overlays/prod");
    let p = plan_source_edit(t, &shop("prod-checkout"), &Operation::Delete(Delete {}), CTX).unwrap();
    assert_eq!(p.files["base/d.yaml"], None);
    assert_eq!(p.files["base/kustomization.yaml"].as_deref(), Some(&b"resources:\n- e.yaml # more\n"[..]));
    let new = Operation::Create(Create {
        manifest: doc("data:\r\n  a: b").replace("name: a\n", "name: new\n"),
        owner: "Application argocd/shop".into(),
        path: "overlays/prod/new.yaml".into(),
    });
    let key = ObjectKey::new("", "ConfigMap", "shop", "new");
    let p = plan_source_edit(t, &key, &new, CTX).unwrap();
    assert!(p.files["overlays/prod/new.yaml"].as_ref().unwrap().ends_with(b"  a: b\n"));
    let k = String::from_utf8(p.files["overlays/prod/kustomization.yaml"].clone().unwrap()).unwrap();
    assert!(k.starts_with("resources:\n- ../../base\n- new.yaml\nnamePrefix"), "{k}");
    let t = tree(&f, "base");
    let p = plan_source_edit(t, &ObjectKey::new("", "ConfigMap", "shop", "a"), &new, CTX).unwrap_err();
    assert_eq!(p.code, "manifest.already_defined");
    let t = tree(&f, "overlays/prod");
    let p = plan_source_edit(t, &ObjectKey::new("", "ConfigMap", "shop", "other"), &new, CTX).unwrap_err();
    assert_eq!(p.code, "manifest.bad_create");
}

#[test]
fn image_entries_follow_tags_digests_and_names() {
    let k = "images:\n- name: a\n  newTag: v1\n- name: b\n  newName: c\n  digest: sha256:00000000000000000000000000000000\n";
    let set = |n: &str, i: &str| {
        edit_kustomization_image(k.as_bytes(), n, i).map(|e| String::from_utf8(e.bytes.unwrap()).unwrap())
    };
    assert_eq!(set("a", "a:1.20").unwrap(), k.replace("newTag: v1", "newTag: \"1.20\""));
    assert_eq!(set("b", "c:v2").unwrap(), "images:\n- name: a\n  newTag: v1\n- name: b\n  newName: c\n  newTag: v2\n");
    assert_eq!(set("a", "x/a:v1").unwrap(), k.replace("newTag: v1\n", "newTag: v1\n  newName: x/a\n"));
    assert_eq!(set("z", "z:1").unwrap_err().code, "kustomization.no_entry");
    assert_eq!(set("a", "a:v1").unwrap_err().code, "manifest.no_change");
}

#[test]
fn sixty_paths_are_judged() {
    let long = "a/".repeat(600);
    let refused = [
        "",
        "/etc/passwd",
        "C:/x",
        "../x.yaml",
        "a/../b.yaml",
        "a/./b.yaml",
        "./a.yaml",
        "a//b.yaml",
        "a/",
        "a\0b",
        "a\\b",
        "..\\x",
        ".git/config",
        ".GIT/config",
        ".Git/hooks/x",
        "a/.git/config",
        "git~1/config",
        "GIT~1/x",
        "git~2/x",
        ".git./x",
        ".git /x",
        ".g\u{200c}it/config",
        ".gi\u{feff}t/x",
        ".git::$INDEX_ALLOCATION/x",
        ".gitmodules",
        "a/.gitmodules",
        ".GITMODULES",
        ".gitmodules.",
        "gitmod~1",
        ".gitattributes",
        "a/.gitattributes",
        ".gitignore",
        "a. ",
        "a./b",
        "a /b",
        " a/b",
        "a\nb",
        "a\u{7f}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "con.yaml",
        "a/NUL",
        "com1.yaml",
        "a:b",
        "a*b",
        "a?b",
        long.as_str(),
    ];
    let privileged = [
        ".github/workflows/ci.yml",
        ".github/CODEOWNERS",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".gitlab-ci.yml",
        "ci/x.gitlab-ci.yml",
        ".gitea/workflows/a.yaml",
        ".forgejo/workflows/a.yaml",
        "Jenkinsfile",
        "ci/Jenkinsfile.prod",
        "Makefile",
        "sub/makefile",
        ".sops.yaml",
        "clusters/prod/flux-system/gotk-sync.yaml",
        "clusters/prod/flux-system/kustomization.yaml",
        "apps/.argocd-source.yaml",
        "apps/.argocd-source-shop.yaml",
        "policies/prod.yaml",
        ".circleci/config.yml",
        "run.sh",
    ];
    let plain = [
        "a.yaml",
        "apps/shop/deployment.yaml",
        "kustomization.yaml",
        "overlays/prod/kustomization.yaml",
        "clusters/prod/flux-system/apps.yaml",
        "console.yaml",
        "a.b/c-d_e+f@1.yaml",
        "übung/a.yaml",
        "git/a.yaml",
        "a..b/c.yaml",
        "policies2/a.yaml",
        ".config/a.yaml",
    ];
    let own = ["policies/".to_owned()];
    for p in refused {
        assert!(matches!(path_check(p, 0o100_644, &own), PathClass::Refused(_)), "{p:?}");
    }
    for p in privileged {
        assert!(matches!(path_check(p, 0o100_644, &own), PathClass::Privileged(_)), "{p:?}");
    }
    for p in plain {
        assert_eq!(path_check(p, 0o100_644, &own), PathClass::Plain, "{p:?}");
    }
    for mode in [0o120_000, 0o160_000, 0o040_000, 0] {
        assert!(matches!(path_check("a.yaml", mode, &own), PathClass::Refused(_)));
    }
    assert_eq!(path_check("a.yaml", 0o100_755, &own), PathClass::Plain);
}

#[test]
fn a_unified_diff_reads_like_git() {
    let d = unified_diff("a/b.yaml", Some(b"x: 1\ny: 2\n"), Some(b"x: 1\ny: 3\n"));
    assert_eq!(d, "--- a/a/b.yaml\n+++ b/a/b.yaml\n@@ -1,2 +1,2 @@\n x: 1\n-y: 2\n+y: 3\n");
    assert!(unified_diff("n", None, Some(b"x\n")).starts_with("--- /dev/null\n+++ b/n\n"));
    assert_eq!(unified_diff("n", Some(b"x"), Some(b"x")), "");
}

#[test]
fn large_files_are_edited_like_small_ones() {
    let map: String = (0..2_000).map(|i| format!("  key{i}: value number {i}\n")).collect();
    let map = doc(&format!("data:\n{map}"));
    let list: String = (0..1_000).map(|i| format!("- name: n{i}\n  value: v{i}\n")).collect();
    let list = doc(&format!("l:\n{list}"));
    let many: String = (0..900)
        .map(|i| format!("---\n{}data:\n  k{i}: v\n  # c\n", doc("").replace("name: a", &format!("name: a{i}"))))
        .collect();
    for (name, text, index, op) in [
        ("set in a map", &map, 0, field("/data/key1500", json!("x"))),
        ("add to a map", &map, 0, field("/data/new", json!("x"))),
        ("remove from a map", &map, 0, unset("/data/key1500")),
        ("set in a list", &list, 0, field("/l/name=n900/value", json!("x"))),
        ("add to a list", &list, 0, field("/l/-", json!("x"))),
        ("remove from a list", &list, 0, unset("/l/name=n900")),
        ("set in many documents", &many, 900, field("/data/k899", json!("x"))),
    ] {
        assert!(run_at(text, index, &op).is_ok() || index == 900, "{name}");
    }
    let docs = documents(many.as_bytes()).unwrap();
    assert_eq!(docs.len(), 900);
}

#[test]
fn folders_with_a_kustomization_of_their_own_are_not_plain() {
    let f = files(&[
        ("apps/a/kustomization.yaml", "resources: [d.yaml]\n"),
        ("apps/a/d.yaml", DEPLOYMENT),
        ("apps/b/c.yaml", &doc("")),
    ]);
    let p = plan_source_edit(tree(&f, "apps"), &shop("checkout"), &image("app", "x:2"), CTX).unwrap_err();
    assert_eq!(p.code, "manifest.not_found");
}

#[test]
fn patches_decide_where_they_set_the_field() {
    let json = "- op: replace\n  path: /spec/replicas\n  value: 4 # four\n- op: add\n  path: /spec/template/spec/containers/0/image\n  value: x:1\n";
    let list = "resources:\n- ../base\npatches:\n- path: p.yaml\n  target: {kind: Deployment, name: check.*}\n";
    let mut f = files(&[
        ("base/kustomization.yaml", "resources: [d.yaml]\n"),
        ("base/d.yaml", DEPLOYMENT),
        ("o/kustomization.yaml", list),
        ("o/p.yaml", json),
    ]);
    let scale = Operation::Scale(Scale { replicas: 9 });
    let all = candidates(tree(&f, "o"), &shop("checkout"), &scale, CTX).unwrap();
    assert_eq!(all.iter().map(|p| p.file.as_str()).collect::<Vec<_>>(), ["o/p.yaml", "base/d.yaml"]);
    let after = String::from_utf8(all[0].files["o/p.yaml"].clone().unwrap()).unwrap();
    assert_eq!(after, json.replace("4 # four", "9 # four"));
    assert_eq!((all[0].changes[0].pointer.as_str(), &all[0].changes[0].before), ("/spec/replicas", &Some(json!(4))));
    let all = candidates(tree(&f, "o"), &shop("checkout"), &image("app", "x:2"), CTX).unwrap();
    assert_eq!(all[0].file, "o/p.yaml");
    let inline = "resources:\n- ../base\npatches:\n- patch: |-\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata:\n      name: checkout\n    spec:\n      replicas: 4\n";
    f.insert("o/kustomization.yaml".into(), inline.into());
    let all = candidates(tree(&f, "o"), &shop("checkout"), &scale, CTX).unwrap();
    assert_eq!(all.len(), 1, "the inline patch is left to people; the base is tried and found shadowed by rendering");
}

#[test]
fn a_repository_is_read_only_as_far_as_needed() {
    struct Memory(Files, Vec<String>);
    impl Snapshot for Memory {
        fn file(&mut self, path: &str) -> crate::Result<Option<Vec<u8>>> {
            self.1.push(path.to_owned());
            Ok(self.0.get(path).cloned())
        }
        fn below(&mut self, dir: &str) -> crate::Result<Vec<String>> {
            let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
            Ok(self.0.keys().filter(|p| p.starts_with(&prefix)).cloned().collect())
        }
    }
    let mut f = overlay();
    f.insert("other/huge.yaml".into(), vec![b'a'; 10]);
    f.insert("shared/c.env".into(), b"A=b\n".to_vec());
    f.insert(
        "base/kustomization.yaml".into(),
        b"resources: [d.yaml]\nconfigMapGenerator: [{name: c, files: [x=../shared/c.env]}]\n".to_vec(),
    );
    let mut m = Memory(f, Vec::new());
    let got = load("overlays/prod", &mut m).unwrap();
    let paths: Vec<_> = got.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "base/d.yaml",
            "base/kustomization.yaml",
            "overlays/prod/kustomization.yaml",
            "overlays/prod/patch.yaml",
            "shared/c.env"
        ]
    );
    assert!(!m.1.iter().any(|p| p.starts_with("other")));
    assert_eq!(load("", &mut m).unwrap().len(), 6);
}
