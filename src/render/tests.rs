use std::path::Path;

use countersign_core::manifest::{EditContext, SourceTree, candidates, diff_objects};
use countersign_core::model::{ObjectKey, Operation, Scale, SetImage};

use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(p, b)| ((*p).to_owned(), b.as_bytes().to_vec())).collect()
}

/// The real program, from `COUNTERSIGN_KUSTOMIZE` or the search path; says so where there is none.
fn real() -> Option<Kustomize> {
    let set = std::env::var_os("COUNTERSIGN_KUSTOMIZE");
    let found = Kustomize::find(set.as_deref().map(Path::new));
    if found.is_none() {
        println!("skipped: there is no kustomize (set COUNTERSIGN_KUSTOMIZE or install kustomize or kubectl)");
    }
    found
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: checkout\n  namespace: shop\nspec:\n  replicas: 2\n  selector:\n    matchLabels: {app: checkout}\n  template:\n    metadata:\n      labels: {app: checkout}\n    spec:\n      containers:\n      - name: app\n        image: ghcr.io/shop/checkout:1.4.2\n      - name: proxy\n        image: envoy:1.2\n";

fn shop() -> Files {
    files(&[
        ("base/kustomization.yaml", "resources: [d.yaml]\nimages:\n- name: envoy\n  newTag: \"1.3\"\n"),
        ("base/d.yaml", DEPLOYMENT),
        (
            "overlays/prod/kustomization.yaml",
            "resources:\n- ../../base\nnamePrefix: prod-\nimages:\n- name: ghcr.io/shop/checkout\n  newTag: 1.4.2\nreplicas:\n- name: checkout\n  count: 3\n",
        ),
        ("overlays/dev/kustomization.yaml", "resources:\n- ../../base\n"),
    ])
}

fn with(files: &Files, changed: &std::collections::BTreeMap<String, Option<Vec<u8>>>) -> Files {
    let mut out = files.clone();
    for (p, b) in changed {
        match b {
            Some(b) => out.insert(p.clone(), b.clone()),
            None => out.remove(p),
        };
    }
    out
}

#[tokio::test]
async fn the_candidate_that_renders_the_asked_effect_is_found() {
    let Some(k) = real() else { return };
    let f = shop();
    let key = ObjectKey::new("apps", "Deployment", "shop", "prod-checkout");
    let tree = SourceTree {
        files: &f,
        root: "overlays/prod",
        kind: SourceTree::detect(&f, "overlays/prod"),
        recurse: true,
        default_namespace: None,
    };
    let ctx = EditContext { restarted_at: "2026-11-21T10:00:00Z" };
    let before = k.render(&f, "overlays/prod").await.unwrap();
    let image = Operation::SetImage(SetImage { container: "app".into(), image: "ghcr.io/shop/checkout:1.5.0".into() });
    for (op, wanted) in [
        (image, "/spec/template/spec/containers/name=app/image"),
        (Operation::Scale(Scale { replicas: 9 }), "/spec/replicas"),
    ] {
        let all = candidates(tree, &key, &op, ctx).unwrap();
        assert_eq!(all.len(), 2, "the overlay's entry and the base");
        let after = k.render(&with(&f, &all[0].files), "overlays/prod").await.unwrap();
        let effect = diff_objects(&before, &after);
        assert_eq!(effect.len(), 1);
        assert_eq!(effect[0].pointer, wanted);
        assert_eq!(effect, all[0].changes);
        // The base is shadowed in production and wide open in development.
        let shadowed = with(&f, &all[1].files);
        assert!(diff_objects(&before, &k.render(&shadowed, "overlays/prod").await.unwrap()).is_empty());
        let dev = (k.render(&f, "overlays/dev").await.unwrap(), k.render(&shadowed, "overlays/dev").await.unwrap());
        assert_eq!(diff_objects(&dev.0, &dev.1).len(), 1);
    }
}

#[tokio::test]
async fn files_beside_the_folder_are_read_but_none_outside_of_the_snapshot() {
    let Some(k) = real() else { return };
    let beside = files(&[("a/kustomization.yaml", "resources: [../d.yaml]\n"), ("d.yaml", DEPLOYMENT)]);
    assert_eq!(k.render(&beside, "a").await.unwrap().len(), 1);
    for named in ["../../d.yaml", "/etc/hostname", "../../../etc"] {
        let out = files(&[("a/kustomization.yaml", &format!("resources: [{named}]\n")), ("d.yaml", DEPLOYMENT)]);
        let code = k.render(&out, "a").await.unwrap_err().code;
        assert!(code.starts_with("kustomization."), "{named}: {code}");
    }
    let secret = files(&[("kustomization.yaml", "configMapGenerator:\n- name: x\n  files: [k=/etc/hostname]\n")]);
    assert_eq!(k.render(&secret, "").await.unwrap_err().code, "kustomization.escapes");
}

#[tokio::test]
async fn the_programs_own_words_are_told() {
    let Some(k) = real() else { return };
    let f = files(&[
        ("kustomization.yaml", "resources: [d.yaml]\nreplicas:\n- name: nobody\n  count: 1\n"),
        ("d.yaml", DEPLOYMENT),
    ]);
    let p = k.render(&f, "").await.unwrap_err();
    assert_eq!(p.code, "render.failed");
    assert!(p.evidence.iter().any(|e| e.contains("nobody")), "{p}");
    assert!(!p.to_string().contains("countersign-render-"), "{p}");
}

#[tokio::test]
async fn what_runs_or_fetches_is_refused_before_the_start() {
    // A program that would prove the refusal wrong by being started.
    let k = Kustomize { program: "/nonexistent".into(), verb: "build", timeout: TIMEOUT };
    let cases = [
        ("resources: [https://example.org/x.yaml]\n", "kustomization.remote"),
        ("resources: [github.com/a/b?ref=v1]\n", "kustomization.remote"),
        ("resources: ['git@example.org:a/b.git']\n", "kustomization.remote"),
        ("patches:\n- path: http://localhost/x.yaml\n", "kustomization.remote"),
        ("helmCharts: [{name: x}]\n", "render.plugin"),
        ("generators: [g.yaml]\n", "render.plugin"),
        ("transformers: [g.yaml]\n", "render.plugin"),
        ("Resources: [/etc/passwd]\n", "render.unknown_field"),
        ("configMapGenerator: [{name: x, Files: [/etc/passwd]}]\n", "render.unknown_field"),
        ("resources: [missing]\n", "kustomization.missing"),
        ("- a\n", "kustomization.shape"),
        ("resources: [x]\nresources: [y]\n", "manifest.duplicate_key"),
        ("resources: [d.yaml]\n", "render.start"),
    ];
    for (text, code) in cases {
        let f = files(&[("kustomization.yaml", text), ("d.yaml", DEPLOYMENT)]);
        assert_eq!(k.render(&f, "").await.unwrap_err().code, code, "{text}");
    }
    let circle =
        files(&[("a/kustomization.yaml", "resources: [../b]\n"), ("b/kustomization.yaml", "resources: [../a]\n")]);
    assert_eq!(k.render(&circle, "a").await.unwrap_err().code, "kustomization.too_deep");
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_that_hangs_or_floods_is_stopped() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, body: &str| {
        let p = dir.path().join(name);
        std::fs::write(&p, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&p, std::fs::Permissions::from_mode(0o755)).unwrap();
        Kustomize::find(Some(&p)).unwrap()
    };
    let f = files(&[("kustomization.yaml", "resources: [d.yaml]\n"), ("d.yaml", DEPLOYMENT)]);
    let hang = script("hang", "while :; do :; done").with_timeout(Duration::from_millis(300));
    assert_eq!(hang.render(&f, "").await.unwrap_err().code, "render.timeout");
    let flood = script(
        "flood",
        "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done",
    );
    assert_eq!(flood.render(&f, "").await.unwrap_err().code, "render.too_large");
    // What it sees: no environment of ours, nothing on its search path.
    let env = script("env", "echo \"path: $PATH\"; echo \"secret: [$COUNTERSIGN_TEST]\"; echo \"home: $HOME\"");
    let seen = env.render(&f, "").await.unwrap();
    assert!(seen[0]["path"].as_str().unwrap().ends_with("/home/bin"));
    assert_eq!(seen[0]["secret"], serde_json::json!([]));
}

#[test]
fn a_missing_kustomize_says_what_to_install() {
    let p = Kustomize::require(Some(Path::new("/nonexistent/kustomize"))).unwrap_err();
    assert_eq!(p.code, "render.kustomize_missing");
    assert!(p.next.contains("Install kustomize"));
    assert_eq!(on_path("kustomize", "relative:".into()), None);
}
