//! Plain folders and overlays: which file an edit goes to, and what of a repository is read for it.

use super::*;
use crate::model::{Create, SourceKind};

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
