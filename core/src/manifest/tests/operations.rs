//! Each operation changes its field alone, in the style of the file.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Restart, SetResources};

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
