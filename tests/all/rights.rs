//! A right that is missing is an answer of its own, with the verb and the resource: never an empty one.

use std::time::Duration;

use countersign::sandbox::cluster::Engine;
use countersign::sandbox::world::ANNA;
use countersign_core::model::Body;
use serde_json::{Value, json};

use crate::people::{GOOD, asked, code, quick, story};
use crate::world::{PATIENCE, Stage, set_image, target, text};

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
            Body::Observed { code, say, .. } if code == "not_readable" => Some(say),
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
    s.world.cluster.pause_engine(Engine::Argocd, false);
    s.until(&change, &["healthy"]).await;
    s.end().await;
}
