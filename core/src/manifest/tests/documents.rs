//! Files of several documents, items of lists, and large files.

use super::*;

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
