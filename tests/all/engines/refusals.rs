//! What is not done, and what the agent is told instead. Each refusal leaves Git and chats alone.

use countersign::sandbox::world::{ANNA, CLUSTER, REPO, WorldOptions, application, deployment, flux, policy};
use serde_json::{Value, json};

use super::{App, CHECKOUT, eventually, on_both_engines, quick, refusal};
use crate::world::{Stage, set_image, target, text};

on_both_engines!(
    plan_only_writes_nothing_and_asks_nobody,
    a_pod_is_answered_with_its_deployment,
    a_value_of_the_wrong_type_is_refused_before_anybody_is_asked,
    policy_denies_by_default,
);

/// Nothing was written, nobody was asked, nothing is open.
async fn untouched(s: &mut Stage, tip: &str) {
    assert_eq!(s.world.tip(), tip);
    assert!(s.world.bot.chat(ANNA).is_empty(), "{:?}", s.world.bot.chat(ANNA));
    let open = s.call("changes", json!({"state": "all"})).await;
    assert_eq!(open["changes"], json!([]), "{open:#}");
}

async fn refused(s: &mut Stage, edit: Value, code: &str) -> String {
    let tip = s.world.tip();
    let answer = s.operate(vec![edit]).await;
    assert_eq!((text(&answer, "outcome"), text(&answer["problem"], "code")), ("refused", code), "{answer:#}");
    untouched(s, &tip).await;
    refusal(&answer)
}

async fn plan_only_writes_nothing_and_asks_nobody(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let tip = s.world.tip();
    let plan = s.plan(vec![set_image(app.name, app.new)]).await;
    assert_eq!(text(&plan, "outcome"), "planned", "{plan:#}");
    assert!(plan.get("change").is_none());
    assert_eq!(text(&plan["owner"], "name"), if app.name == CHECKOUT.name { "shop-prod" } else { "payments" });
    let diff = text(&plan, "diff");
    assert!(
        diff.contains(&format!("-          image: {}", app.old))
            && diff.contains(&format!("+          image: {}", app.new)),
        "{diff}"
    );
    assert_eq!(text(&plan["decision"], "level"), "prompted");
    assert!(plan["risk"]["level"].is_string(), "{plan:#}");
    untouched(&mut s, &tip).await;
    assert!(s.world.git.pushes().is_empty());
    s.end().await;
}

async fn a_pod_is_answered_with_its_deployment(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let pod = |s: &Stage| {
        let all = s.world.cluster.store().everything();
        all.iter()
            .find(|(_, o)| o["kind"] == "Pod" && o["metadata"]["labels"]["app"] == app.name)
            .map(|(_, o)| text(&o["metadata"], "name").to_owned())
    };
    eventually("a pod", || pod(&s).is_some()).await;
    let name = pod(&s).unwrap();
    let edit =
        json!({"target": format!("{CLUSTER}/shop/Pod/{name}"), "set_image": {"container": "app", "image": app.new}});
    let said = refused(&mut s, edit, "target.derived").await;
    assert!(said.contains(&format!("target: {}", target(app.name))), "ready to send: {said}");
    let seen = s.call("inspect", json!({"target": format!("{CLUSTER}/shop/Pod/{name}")})).await;
    assert_eq!(
        text(&seen["owner"], "name"),
        if app.name == CHECKOUT.name { "shop-prod" } else { "payments" },
        "{seen:#}"
    );
    assert!(seen["via"].as_array().is_some_and(|v| v.len() >= 2), "{seen:#}");
    s.end().await;
}

async fn a_value_of_the_wrong_type_is_refused_before_anybody_is_asked(app: App) {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let tip = s.world.tip();
    for (pointer, value) in [("/spec/replicas", json!("many")), ("/spec/replica", json!(3))] {
        let answer = s
            .operate(vec![json!({"target": target(app.name), "set_field": {"pointer": pointer, "value": value}})])
            .await;
        assert_eq!(text(&answer, "outcome"), "refused", "{answer:#}");
        assert!(text(&answer["problem"], "code").starts_with("schema."), "{answer:#}");
    }
    untouched(&mut s, &tip).await;
    s.end().await;
}

async fn policy_denies_by_default(app: App) {
    let mut s = Stage::new(quick("version: 1\ndefault: {level: deny}\nrules: []\n".into())).await;
    refused(&mut s, set_image(app.name, app.new), "policy.denied").await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_feeds_a_second_application_is_refused_naming_it() {
    let web = deployment("web", "reg.example/web:1", 1).replace("  namespace: shop\n", "");
    let files = vec![("apps/web/deploy.yaml".into(), web)];
    let mut s = Stage::new(WorldOptions { files, ..quick(policy("standard", "direct", 1)) }).await;
    let url = s.world.git.repo_url(REPO);
    s.world.cluster.apply(&application("web", &url, "apps/web")).unwrap();
    eventually("web", || s.world.live_image("web").is_some()).await;
    let tip = s.world.tip();
    let alone = s.plan(vec![set_image("web", "reg.example/web:2")]).await;
    assert_eq!(text(&alone, "outcome"), "planned", "{alone:#}");
    let mut copy = application("web-copy", &url, "apps/web");
    copy["spec"]["destination"]["namespace"] = json!("shop-copy");
    s.world.cluster.apply(&copy).unwrap();
    // The daemon hears of it by its watch.
    let end = tokio::time::Instant::now() + crate::world::PATIENCE;
    let said = loop {
        let plan = s.plan(vec![set_image("web", "reg.example/web:2")]).await;
        if text(&plan, "outcome") == "refused" {
            break plan;
        }
        assert!(tokio::time::Instant::now() < end, "{plan:#}");
    };
    assert_eq!(text(&said["problem"], "code"), "source.shared", "{said:#}");
    assert!(refusal(&said).contains("Argo CD Application argocd/web-copy"), "{said:#}");
    let real = s.operate(vec![set_image("web", "reg.example/web:2")]).await;
    assert_eq!(text(&real["problem"], "code"), "source.shared", "{real:#}");
    assert_eq!(s.world.tip(), tip);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_owners_are_a_conflict_that_names_both() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let [_, second] = flux("checkout-too", &s.world.git.repo_url(REPO), "apps/checkout");
    s.world.cluster.apply(&second).unwrap();
    eventually("Flux's claim", || {
        let k = s.world.cluster.get("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", "checkout-too");
        k.is_some_and(|k| k["status"]["inventory"]["entries"].as_array().is_some_and(|e| !e.is_empty()))
    })
    .await;
    let said = refused(&mut s, set_image("checkout", CHECKOUT.new), "owner.conflict").await;
    assert!(said.contains("Argo CD Application argocd/shop-prod"), "{said}");
    assert!(said.contains("Flux Kustomization flux-system/checkout-too"), "{said}");
    let seen = s.call("inspect", json!({"target": target("checkout")})).await;
    assert_eq!((text(&seen, "ownership"), seen["claims"].as_array().map(Vec::len)), ("conflict", Some(2)), "{seen:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_delivers_is_refused_with_the_way_to_adopt_it() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let stray: Value = serde_saphyr::from_str(&deployment("stray", "reg.example/stray:1", 1)).unwrap();
    s.world.cluster.apply(&stray).unwrap();
    let said = refused(&mut s, set_image("stray", "reg.example/stray:2"), "owner.unmanaged").await;
    assert!(said.contains("adopt") && said.contains("create"), "{said}");
    assert!(said.contains("does not name the operation adopt"), "why it is not offered: {said}");
    assert_eq!(s.world.live_image("stray").as_deref(), Some("reg.example/stray:1"), "nothing is applied directly");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let said = refused(&mut s, set_image("chekout", CHECKOUT.new), "cluster.not_found").await;
    assert!(said.contains("checkout"), "the nearest name is offered: {said}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_not_configured_is_never_written() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let files = [countersign::sandbox::git::FileChange::write(
        "apps/other/deploy.yaml",
        deployment("other", "reg.example/other:1", 1).as_bytes(),
    )];
    s.world.git.repos().create("acme/other", "main", &files, &super::person()).unwrap();
    s.world.cluster.apply(&application("other", &s.world.git.repo_url("acme/other"), "apps/other")).unwrap();
    eventually("the other app", || {
        let app = s.world.cluster.get("argoproj.io", "Application", "argocd", "other");
        app.is_some_and(|a| a["status"]["sync"]["status"] == "Synced")
    })
    .await;
    refused(&mut s, set_image("other", "reg.example/other:2"), "repository.not_configured").await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_does_not_go_into_git_in_the_clear() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let edit = json!({"target": target("checkout"), "set_env": {"container": "app", "name": "DB_PASSWORD", "value": "hunter2-and-more"}});
    let said = refused(&mut s, edit, "secret.in_change").await;
    assert!(!said.contains("hunter2"), "{said}");
    s.end().await;
}
