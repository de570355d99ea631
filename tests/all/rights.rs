//! A right that is missing is an answer of its own, with the verb and the resource: never an empty one.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign::sandbox::cluster::Engine;
use countersign::sandbox::cluster::access::Denial;
use countersign::sandbox::world::ANNA;
use countersign_core::model::{Body, Code};
use serde_json::{Value, json};

use crate::people::{GOOD, asked, code, quick, story};
use crate::world::{PATIENCE, Stage, set_image, target, text};

/// Who Countersign is to the sandbox's API server.
const ACCOUNT: &str = "sandbox-admin";

/// Takes one right away, calls, and gives it back.
async fn without(s: &mut Stage, verb: &str, resource: &str, tool: &str, args: &Value) -> Value {
    s.world.cluster.deny(verb, resource);
    let answer = s.call(tool, args.clone()).await;
    s.world.cluster.state().access.allow_all();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_right_has_a_coded_answer() {
    let mut s = Stage::new(quick()).await;
    let inspect = json!({"target": target("checkout")});
    let plan = |edit: Value| json!({"edits": [edit], "reason": "a test wants it", "plan_only": true});
    let image = plan(set_image("checkout", GOOD));
    let scale = plan(json!({"target": target("checkout"), "scale": {"replicas": 3}}));
    let cases = [
        // First: the settings of a control plane are kept for a minute once they were read.
        ("get", "configmaps", "inspect", &inspect, "configmaps in the namespace argocd"),
        ("get", "deployments.apps", "inspect", &inspect, "deployments.apps in the namespace shop"),
        ("get", "applications.argoproj.io", "inspect", &inspect, "applications.argoproj.io in the namespace argocd"),
        ("get", "applications.argoproj.io", "operate", &image, "applications.argoproj.io in the namespace argocd"),
        ("get", "appprojects.argoproj.io", "inspect", &inspect, "appprojects.argoproj.io in the namespace argocd"),
        ("get", "appprojects.argoproj.io", "operate", &image, "appprojects.argoproj.io in the namespace argocd"),
        (
            "list",
            "horizontalpodautoscalers.autoscaling",
            "operate",
            &scale,
            "horizontalpodautoscalers.autoscaling in the namespace shop",
        ),
    ];
    for (verb, resource, tool, args, named) in cases {
        let answer = without(&mut s, verb, resource, tool, args).await;
        assert_eq!(code(&answer), "cluster.forbidden", "{verb} {resource}: {answer:#}");
        let message = answer.pointer("/problem/message").and_then(Value::as_str).unwrap();
        assert_eq!(message, format!("Countersign may not {verb} {named}."));
    }
    let answer = without(&mut s, "list", "pods", "inspect", &inspect).await;
    let health = text(&answer, "health");
    assert!(health.ends_with("why is not known: Countersign may not list pods in the namespace shop."), "{answer:#}");
    let answer = without(&mut s, "list", "events", "inspect", &inspect).await;
    let told = "not known (cluster.forbidden): Countersign may not list events in the namespace shop.";
    assert_eq!(answer["events"], json!([told]), "{answer:#}");
    // With every right back, nothing of that stays.
    let answer = s.call("inspect", inspect).await;
    assert_eq!((text(&answer, "outcome"), text(&answer, "ownership")), ("found", "owned"), "{answer:#}");
    assert_eq!(answer["problem"], Value::Null, "{answer:#}");
    let answer = s.call("operate", scale).await;
    assert_ne!(code(&answer), "cluster.forbidden", "{answer:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_may_not_be_watched_says_so_and_goes_on_with_the_right() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.cluster.pause_engine(Engine::Argocd, true);
    s.world.cluster.deny("watch", "deployments.apps");
    s.press(ANNA, "Approve").await;
    s.until(&change, &["observing"]).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    let said = loop {
        let seen = story(&s, &change).await.into_iter().rev().find_map(|e| match e.body {
            Body::Observed { code: Code::NotReadable, say, .. } => Some(say),
            _ => None,
        });
        if let Some(said) = seen {
            break said;
        }
        assert!(tokio::time::Instant::now() < end, "{:#?}", story(&s, &change).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(said.ends_with("Countersign may not watch deployments.apps in the namespace shop."), "{said}");
    s.world.cluster.state().access.allow_all();
    // The watch is back, and with it the judge's own word, although nothing has happened that it could hear of.
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let last = story(&s, &change).await.into_iter().rev().find_map(|e| match e.body {
            Body::Observed { code, .. } => Some(code),
            _ => None,
        });
        if last != Some(Code::NotReadable) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{:#?}", story(&s, &change).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    s.world.cluster.pause_engine(Engine::Argocd, false);
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

/// `resource verb` of every rule of the chart's files, as RBAC names them.
fn given(files: &[&str]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for name in files {
        let path = format!("{}/deploy/chart/countersign/files/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let rules: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for rule in rules.as_array().unwrap() {
            let words = |key: &str| -> Vec<String> {
                rule[key].as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    let full = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                    out.extend(words("verbs").into_iter().map(|verb| format!("{full} {verb}")));
                }
            }
        }
    }
    assert!(out.len() > 2);
    out
}

/// Denies Countersign everything that no rule gives; the engines have accounts of their own.
fn only(s: &Stage, files: &[&str]) {
    let given = given(files);
    let mut taken = 0;
    for kind in s.world.cluster.state().store.kinds.all() {
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
            if !given.contains(&format!("{} {verb}", kind.resource())) {
                s.world.cluster.state().access.deny(Denial {
                    verb: verb.to_owned(),
                    resource: kind.resource(),
                    namespace: None,
                    user: Some(ACCOUNT.to_owned()),
                });
                taken += 1;
            }
        }
    }
    assert!(taken > 50);
}

async fn healthy(s: &mut Stage, name: &str, image: &str) {
    let looked = s.call("inspect", json!({"target": target(name)})).await;
    assert_eq!((text(&looked, "ownership"), &looked["problem"]), ("owned", &Value::Null), "{looked:#}");
    assert!(!looked.to_string().contains("not known"), "{looked:#}");
    let change = s.propose(set_image(name, image)).await;
    asked(s, ANNA).await;
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
}

/// Argo CD and Flux, with what the roles give and nothing else: the account of `deploy/` is enough.
#[tokio::test(flavor = "multi_thread")]
async fn the_roles_are_enough_for_a_whole_change_by_either_engine() {
    let mut s = Stage::new(quick()).await;
    only(&s, &["owners", "workloads", "hints"]);
    s.restart().await;
    healthy(&mut s, "checkout", GOOD).await;
    healthy(&mut s, "payments", "reg.example/payments:2.1.0").await;
    let log: Vec<_> = s.world.cluster.log().into_iter().filter(|e| e.user == ACCOUNT).collect();
    assert!(log.iter().all(|e| e.verb == "patch" && e.code == 200), "{log:#?}");
    let hinted: BTreeSet<&str> = log.iter().map(|e| e.resource.as_str()).collect();
    assert_eq!(hinted, ["applications.argoproj.io", "gitrepositories.source.toolkit.fluxcd.io"].into());
    s.end().await;
}

/// The same without the right to hint, which the configuration still asks for: the engine polls.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_hint_the_engine_polls_and_nothing_fails() {
    let mut s = Stage::new(quick()).await;
    only(&s, &["owners", "workloads"]);
    s.restart().await;
    healthy(&mut s, "checkout", GOOD).await;
    let log: Vec<_> = s.world.cluster.log().into_iter().filter(|e| e.user == ACCOUNT).collect();
    assert!(log.iter().all(|e| e.verb == "patch" && e.code == 403), "{log:#?}");
    assert!(!log.is_empty(), "the hint was tried");
    s.end().await;
}
