//! Every operation on plain manifests, through to healthy.

use countersign::sandbox::world::{ANNA, CLUSTER, WorldOptions, policy};
use serde_json::{Value, json};

use super::{App, CHECKOUT, PAYMENTS, eventually, notes, on_both_engines, quick};
use crate::world::{Stage, target, text};

on_both_engines!(
    scale_resources_and_environment_reach_the_pods,
    fields_labels_and_annotations_reach_the_object,
    a_restart_gives_new_pods,
    what_is_deleted_in_git_is_pruned,
    a_stray_object_is_adopted,
    several_edits_are_one_commit,
);

/// Adds the target to an operation, lets it through, and gives the answer at its end.
async fn done(s: &mut Stage, edits: Vec<Value>) -> Value {
    let asked = s.operate(edits).await;
    assert_eq!(text(&asked, "outcome"), "waiting", "{asked:#}");
    let end = s
        .until(text(&asked, "change"), &["healthy", "failed", "timed_out", "stale", "undelivered", "superseded"])
        .await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(text(&end, "commit"), s.world.tip());
    end
}

fn of(app: App, operation: Value) -> Value {
    let mut edit = operation;
    edit["target"] = json!(target(app.name));
    edit
}

fn container(live: &Value) -> &Value {
    &live["spec"]["template"]["spec"]["containers"][0]
}

async fn scale_resources_and_environment_reach_the_pods(app: App) {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let before = s.manifest(app);
    done(&mut s, vec![of(app, json!({"scale": {"replicas": 4}}))]).await;
    assert_eq!(s.live(app)["spec"]["replicas"], json!(4));
    let scaled = before.replace("replicas: 2  # see the capacity plan", "replicas: 4  # see the capacity plan");
    assert_eq!(s.manifest(app), scaled, "the comment stays");

    done(&mut s, vec![of(app, json!({"set_env": {"container": "app", "name": "LOG_LEVEL", "value": "debug"}}))]).await;
    assert_eq!(container(&s.live(app))["env"], json!([{"name": "LOG_LEVEL", "value": "debug"}]));
    assert_eq!(s.manifest(app), scaled.replace("value: info", "value: debug"));

    let edit =
        json!({"set_resources": {"container": "app", "requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}});
    done(&mut s, vec![of(app, edit)]).await;
    assert_eq!(
        container(&s.live(app))["resources"],
        json!({"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}})
    );
    s.end().await;
}

async fn fields_labels_and_annotations_reach_the_object(app: App) {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let grace = json!({"set_field": {"pointer": "/spec/template/spec/terminationGracePeriodSeconds", "value": 45}});
    done(&mut s, vec![of(app, grace)]).await;
    assert_eq!(s.live(app)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], json!(45));

    done(&mut s, vec![of(app, json!({"annotate": {"example.test/owner": "team-a"}}))]).await;
    assert_eq!(s.live(app)["metadata"]["annotations"]["example.test/owner"], json!("team-a"));
    done(&mut s, vec![of(app, json!({"annotate": {"example.test/owner": null}}))]).await;
    assert!(s.live(app)["metadata"]["annotations"].get("example.test/owner").is_none());

    done(&mut s, vec![of(app, json!({"label": {"team": "shop"}}))]).await;
    let live = s.live(app);
    assert_eq!(live["metadata"]["labels"]["team"], json!("shop"));
    assert_eq!(live["spec"]["selector"]["matchLabels"], json!({"app": app.name}), "selectors are never touched");
    s.end().await;
}

/// Names of an app's pods.
fn pods(s: &Stage, app: App) -> Vec<String> {
    let all = s.world.cluster.store().everything();
    let of = |o: &Value| {
        o["kind"] == "Pod"
            && o["metadata"]["labels"]["app"] == app.name
            && o["metadata"].get("deletionTimestamp").is_none()
    };
    all.iter().filter(|(_, o)| of(o)).map(|(_, o)| text(&o["metadata"], "name").to_owned()).collect()
}

async fn a_restart_gives_new_pods(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    eventually("the first pods", || pods(&s, app).len() == 2).await;
    let first = pods(&s, app);
    let change = s.propose(of(app, json!({"restart": {}}))).await;
    assert_eq!(pods(&s, app), first, "nothing restarts before a yes");
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    eventually("two new pods", || {
        let now = pods(&s, app);
        now.len() == 2 && now.iter().all(|p| !first.contains(p))
    })
    .await;
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    s.end().await;
}

fn settings(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: shop\n  labels: {{env: prod}}\ndata:\n  colour: blue\n"
    )
}

async fn what_is_deleted_in_git_is_pruned(app: App) {
    let path = format!("apps/{}/settings.yaml", app.name);
    let two = format!("{}---\n# stays\n{}", settings("goes"), settings("stays"));
    let mut s =
        Stage::new(WorldOptions { files: vec![(path.clone(), two)], ..quick(policy("prompted", "direct", 1)) }).await;
    let there = |s: &Stage, name: &str| s.world.cluster.get("", "ConfigMap", "shop", name).is_some();
    eventually("both", || there(&s, "goes") && there(&s, "stays")).await;
    let change = s.propose(json!({"target": format!("{CLUSTER}/shop/ConfigMap/goes"), "delete": {}})).await;
    let card = s.sees(ANNA, "goes").await;
    assert!(card.text.contains("HIGH"), "a deletion is no small thing: {}", card.text);
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert!(!there(&s, "goes"), "pruned");
    assert!(there(&s, "stays") && s.world.live_image(app.name).is_some());
    let file = s.world.file(&path).unwrap();
    assert!(file.contains("# stays") && !file.contains("goes"), "{file}");
    s.end().await;
}

async fn a_stray_object_is_adopted(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let stray = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stray", "namespace": "shop", "labels": {"env": "prod"}}, "data": {"colour": "red"}});
    s.world.cluster.apply(&stray).unwrap();
    let name = format!("{CLUSTER}/shop/ConfigMap/stray");
    let refused =
        s.operate(vec![json!({"target": name, "set_field": {"pointer": "/data/colour", "value": "blue"}})]).await;
    assert_eq!(text(&refused["problem"], "code"), "owner.unmanaged", "{refused:#}");
    assert!(text(&refused["problem"], "next").contains("create"), "{refused:#}");
    let owner =
        if app.name == CHECKOUT.name { "Application argocd/shop-prod" } else { "Kustomization flux-system/payments" };
    let path = format!("apps/{}/stray.yaml", app.name);
    let create = json!({"target": name, "create": {"manifest": settings("stray"), "owner": owner, "path": path}});
    let change = s.propose(create).await;
    assert!(s.world.file(&path).is_none(), "nothing before a yes");
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.world.file(&path).unwrap(), settings("stray"));
    let live = s.world.cluster.get("", "ConfigMap", "shop", "stray").unwrap();
    assert_eq!(live["data"], json!({"colour": "blue"}));
    let found = s.call("inspect", json!({"target": name})).await;
    assert_eq!(text(&found, "ownership"), "owned", "{found:#}");
    s.end().await;
}

async fn several_edits_are_one_commit(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let before = s.manifest(app);
    let edits = vec![
        of(app, json!({"set_image": {"container": "app", "image": app.new}})),
        of(app, json!({"scale": {"replicas": 3}})),
        of(app, json!({"set_env": {"container": "app", "name": "LOG_LEVEL", "value": "warn"}})),
    ];
    let asked = s.operate(edits).await;
    assert_eq!(asked["fields"].as_array().map(Vec::len), Some(3), "{asked:#}");
    let card = s.sees(ANNA, &app.arrow(app.new)).await;
    assert!(card.text.contains("info → warn") && card.text.contains("2 → 3"), "one card with all of it: {}", card.text);
    s.press(ANNA, "Approve").await;
    let end = s.until(text(&asked, "change"), &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.our_commits().len(), 1);
    let wanted =
        before.replace(app.old, app.new).replace("replicas: 2", "replicas: 3").replace("value: info", "value: warn");
    assert_eq!(s.manifest(app), wanted);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_two_owners_are_split_into_ready_calls() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let edits = vec![of(CHECKOUT, json!({"scale": {"replicas": 3}})), of(PAYMENTS, json!({"scale": {"replicas": 3}}))];
    let answer = s.operate(edits).await;
    assert_eq!(text(&answer, "outcome"), "needs_choice", "{answer:#}");
    assert!(s.our_commits().is_empty());
    for choice in answer["choices"].as_array().unwrap().clone() {
        let next = s.call(text(&choice, "tool"), choice["args"].clone()).await;
        let end = s.until(text(&next, "change"), &["healthy", "failed", "timed_out"]).await;
        assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    }
    assert_eq!(s.live(CHECKOUT)["spec"]["replicas"], json!(3));
    assert_eq!(s.live(PAYMENTS)["spec"]["replicas"], json!(3));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaled_workload_gives_choices_that_work() {
    let hpa = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: checkout\n  namespace: shop\n  labels: {env: prod}\nspec:\n  minReplicas: 2\n  maxReplicas: 5\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: checkout}\n";
    let path = "apps/checkout/hpa.yaml";
    let mut s =
        Stage::new(WorldOptions { files: vec![(path.into(), hpa.into())], ..quick(policy("prompted", "direct", 1)) })
            .await;
    let there = |s: &Stage| s.world.cluster.get("autoscaling", "HorizontalPodAutoscaler", "shop", "checkout");
    eventually("the autoscaler", || there(&s).is_some()).await;
    let answer = s.operate(vec![of(CHECKOUT, json!({"scale": {"replicas": 4}}))]).await;
    assert_eq!(text(&answer, "outcome"), "needs_choice", "{answer:#}");
    assert!(text(&answer, "summary").contains("2 to 5"), "{answer:#}");
    let choice = answer["choices"][0].clone();
    let next = s.call(text(&choice, "tool"), choice["args"].clone()).await;
    assert_eq!(text(&next, "outcome"), "waiting", "{next:#}");
    s.press(ANNA, "Approve").await;
    let end = s.until(text(&next, "change"), &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.world.file(path).unwrap(), hpa.replace("minReplicas: 2", "minReplicas: 4"));
    assert_eq!(there(&s).unwrap()["spec"]["minReplicas"], json!(4));
    assert!(notes(&end).is_empty() || !notes(&end).contains("suspended"));
    s.end().await;
}
