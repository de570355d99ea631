//! What is privileged, and how much a change risks.

use super::*;
use crate::model::{LeafChange, ObjectKey};
use crate::policy::risk::{ObjectChange, assess};

#[test]
fn side_doors_are_privileged() {
    for path in [
        ".github/workflows/ci.yaml",
        ".GitHub/workflows/x",
        "a/.gitlab-ci.yml",
        "Jenkinsfile",
        "x/Makefile",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".sops.yaml",
        ".gitmodules",
        "sub/.gitattributes",
        "x/.git/config",
        "GIT~1/config",
        "countersign/policy.yaml",
        ".github./workflows/x",
        "apps/.gi\u{200c}t/x",
        "infra/secret/x",
        "Infra/secret-two",
    ] {
        assert!(privileged([path], [], &["infra/secret".into()]).is_some(), "{path}");
    }
    for path in [
        "apps/checkout/deploy.yaml",
        "clusters/prod/kustomization.yaml",
        "github/x.yaml",
        "apps/infra/secret/x",
        "README.md",
    ] {
        assert_eq!(privileged([path], [], &["infra/secret".into()]), None, "{path}");
    }
    let key = |group: &str, kind: &str| ObjectKey::new(group, kind, "x", "x");
    for (group, kind) in [
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("argoproj.io", "Application"),
        ("argoproj.io", "AppProject"),
        ("source.toolkit.fluxcd.io", "GitRepository"),
        ("kustomize.toolkit.fluxcd.io", "Kustomization"),
        ("", "ServiceAccount"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ] {
        assert!(privileged([], [&key(group, kind)], &[]).is_some(), "{kind}");
    }
    for (group, kind) in [("apps", "Deployment"), ("argoproj.io", "Rollout"), ("", "ConfigMap")] {
        assert_eq!(privileged([], [&key(group, kind)], &[]), None, "{kind}");
    }
}

fn leaf(group: &str, kind: &str, pointer: &str, before: Value, after: Value) -> LeafChange {
    let some = |v: Value| if v.is_null() { None } else { Some(v) };
    LeafChange {
        object: ObjectKey::new(group, kind, "shop", "x"),
        pointer: pointer.into(),
        before: some(before),
        after: some(after),
    }
}

const C: &str = "/spec/template/spec/containers/name=app";

#[test]
fn risk_of_single_fields() {
    use RiskLevel::{Critical, High, Low, Medium};
    let d = |p: &str, b: Value, a: Value| leaf("apps", "Deployment", p, b, a);
    let cases = [
        (d("/spec/replicas", json!(3), json!(5)), Low, ""),
        (d("/spec/replicas", json!(3), json!(0)), High, "scale to 0"),
        (d("/spec/replicas", json!(3), Value::Null), High, "scale to 0"),
        (
            d("/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt", Value::Null, json!("now")),
            Low,
            "",
        ),
        (d("/metadata/annotations/team", Value::Null, json!("a")), Low, ""),
        (d("/metadata/annotations/team", json!("a"), Value::Null), Medium, "removes a field"),
        (d(&format!("{C}/image"), json!("reg/a:1"), json!("reg/a:2")), High, "image"),
        (d(&format!("{C}/image"), json!("reg.eu/a:1"), json!("reg.eu/b:1")), High, "other image"),
        (d(&format!("{C}/image"), json!("reg.eu/a:1"), json!("evil.example/a:1")), Critical, "other registry"),
        (d(&format!("{C}/image"), json!("nginx:1"), json!("docker.io/nginx:1")), High, "other image"),
        (d(&format!("{C}/image"), json!("reg.eu:5000/a"), json!("reg.eu:5001/a")), Critical, "other registry"),
        (d(&format!("{C}/securityContext/privileged"), Value::Null, json!(true)), Critical, "privilege"),
        (d(&format!("{C}/securityContext"), Value::Null, json!({"privileged": true})), Critical, "privilege"),
        (
            d("/spec/template/spec/volumes/name=x", Value::Null, json!({"name": "x", "hostPath": {"path": "/"}})),
            Critical,
            "privilege",
        ),
        (d("/spec/template/spec/hostNetwork", Value::Null, json!(true)), Critical, "privilege"),
        (d("/spec/template/spec/serviceAccountName", json!("a"), json!("b")), Critical, "identity"),
        (d(&format!("{C}/command"), Value::Null, json!(["sh"])), High, "command"),
        (d("/metadata/finalizers", json!(["x"]), Value::Null), Critical, "finalizers"),
        (d("/metadata/labels/env", json!("prod"), json!("dev")), High, "environment label"),
        (d("/metadata/annotations/argocd.argoproj.io~1tracking-id", json!("a"), json!("b")), Critical, "engine mark"),
        (
            leaf("argoproj.io", "Application", "/spec/source/repoURL", json!("a"), json!("b")),
            Critical,
            "engine (Application)",
        ),
        (
            leaf("kustomize.toolkit.fluxcd.io", "Kustomization", "/spec/path", json!("a"), json!("b")),
            Critical,
            "engine (Kustomization)",
        ),
        (
            leaf("rbac.authorization.k8s.io", "RoleBinding", "/subjects/0/name", json!("a"), json!("b")),
            Critical,
            "RBAC",
        ),
        (
            leaf("apiextensions.k8s.io", "CustomResourceDefinition", "/spec/scope", json!("a"), json!("b")),
            Critical,
            "CRD",
        ),
        (leaf("example.org", "Widget", "/spec/size", json!(1), json!(2)), High, "unknown kind Widget"),
        (leaf("", "Service", "/spec/type", json!("ClusterIP"), json!("LoadBalancer")), High, "exposure"),
        (leaf("", "Secret", "/data/a", json!("x"), json!("y")), Critical, "Secret"),
        (
            leaf("networking.k8s.io", "NetworkPolicy", "/spec/policyTypes/0", json!("x"), json!("y")),
            High,
            "NetworkPolicy",
        ),
    ];
    for (l, level, reason) in cases {
        let r = assess(std::slice::from_ref(&l), &["f".into()], &[], &[]);
        assert_eq!(r.level, level, "{l:?} {r:?}");
        assert!(reason.is_empty() && r.reasons.is_empty() || r.reasons.iter().any(|x| x == reason), "{l:?} {r:?}");
    }
}

#[test]
fn risk_of_whole_objects_files_and_environments() {
    let key = |group: &str, kind: &str| ObjectKey::new(group, kind, "shop", "x");
    let gone = |group: &str, kind: &str| ObjectChange { key: key(group, kind), before: Some(json!({})), after: None };
    let level = |o: ObjectChange| assess(&[], &["f".into()], &[o], &[]).level;
    assert_eq!(level(gone("apps", "Deployment")), RiskLevel::High);
    for (g, k) in [
        ("", "Namespace"),
        ("", "PersistentVolumeClaim"),
        ("apps", "StatefulSet"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ] {
        assert_eq!(level(gone(g, k)), RiskLevel::Critical, "{k}");
    }
    let new = |v: Value| ObjectChange { key: key("apps", "Deployment"), before: None, after: Some(v) };
    assert_eq!(level(new(json!({"spec": {"replicas": 2}}))), RiskLevel::Medium);
    assert_eq!(
        level(new(
            json!({"spec": {"template": {"spec": {"containers": [{"securityContext": {"privileged": true}}]}}}})
        )),
        RiskLevel::Critical
    );
    let scale = leaf("apps", "Deployment", "/spec/replicas", json!(3), json!(5));
    for (labels, prod) in [
        (("env", "prod"), true),
        (("environment", "Production"), true),
        (("stage", "prod-eu"), true),
        (("env", "nonprod"), false),
        (("env", "staging"), false),
        (("team", "prod"), false),
    ] {
        let l = BTreeMap::from([(labels.0.to_owned(), labels.1.to_owned())]);
        let r = assess(std::slice::from_ref(&scale), &["f".into()], &[], &[&l]);
        assert_eq!(r.level == RiskLevel::High, prod, "{labels:?} {r:?}");
    }
    assert_eq!(assess(&[], &[], &[], &[]).level, RiskLevel::High, "what shows no effect is not harmless");
    let two = [scale.clone(), LeafChange { object: key("apps", "StatefulSet"), ..scale }];
    let r = assess(&two, &["a".into(), "b".into()], &[], &[]);
    assert_eq!(
        (r.level, r.reasons),
        (RiskLevel::High, vec!["2 files".to_owned(), "2 fields".to_owned(), "2 objects".to_owned()])
    );
}
