//! How changed leaves are named, and how a diff reads.

use super::*;

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

#[test]
fn a_unified_diff_reads_like_git() {
    let d = unified_diff("a/b.yaml", Some(b"x: 1\ny: 2\n"), Some(b"x: 1\ny: 3\n"));
    assert_eq!(d, "--- a/a/b.yaml\n+++ b/a/b.yaml\n@@ -1,2 +1,2 @@\n x: 1\n-y: 2\n+y: 3\n");
    assert!(unified_diff("n", None, Some(b"x\n")).starts_with("--- /dev/null\n+++ b/n\n"));
    assert_eq!(unified_diff("n", Some(b"x"), Some(b"x")), "");
}
