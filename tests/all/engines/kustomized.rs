//! Kustomizations: `images:` and `replicas:` entries of an overlay, proved by the real kustomize.

use countersign::sandbox::world::{ANNA, REPO, WorldOptions, application, flux, policy};
use serde_json::{Value, json};

use super::{eventually, quick, refusal};
use crate::world::{Stage, set_image, target, text};

const BASE: &str = "apps/web/base/deploy.yaml";
const PROD: &str = "apps/web/overlays/prod/kustomization.yaml";
const STAGING: &str = "apps/web/overlays/staging/kustomization.yaml";

/// Whether the real program is there; tests that need it say so and end.
fn kustomize() -> bool {
    let found = countersign::render::Kustomize::find(None).is_some();
    if !found {
        println!("skipped: neither kustomize nor kubectl is on the search path");
    }
    found
}

fn base() -> String {
    countersign::sandbox::world::deployment("web", "reg.example/web:1.0.0", 2).replace("  namespace: shop\n", "")
}

fn overlay(namespace: &str, entries: &str) -> String {
    format!("# overlay of {namespace}\nresources:\n- ../../base\nnamespace: {namespace}\n{entries}")
}

const ENTRIES: &str =
    "images:\n- name: reg.example/web\n  newTag: 1.1.0  # by the release team\nreplicas:\n- name: web\n  count: 3\n";

/// A base with two overlays, each delivered by an Application of its own (or the first by Flux).
async fn world(entries: &str, by_flux: bool) -> Stage {
    let files = vec![
        ("apps/web/base/kustomization.yaml".into(), "resources:\n- deploy.yaml\n".into()),
        (BASE.into(), base()),
        (PROD.into(), overlay("shop", entries)),
        (STAGING.into(), overlay("shop-staging", "")),
    ];
    let s = Stage::new(WorldOptions { files, ..quick(policy("prompted", "direct", 1)) }).await;
    let url = s.world.git.repo_url(REPO);
    if by_flux {
        let [_, k] = flux("web-prod", &url, "apps/web/overlays/prod");
        s.world.cluster.apply(&k).unwrap();
    } else {
        s.world.cluster.apply(&application("web-prod", &url, "apps/web/overlays/prod")).unwrap();
    }
    let mut staging = application("web-staging", &url, "apps/web/overlays/staging");
    staging["spec"]["destination"]["namespace"] = json!("shop-staging");
    staging["spec"]["syncPolicy"]["syncOptions"] = json!(["CreateNamespace=true"]);
    s.world.cluster.apply(&staging).unwrap();
    let ready = |namespace: &str| {
        s.world
            .cluster
            .get("apps", "Deployment", namespace, "web")
            .is_some_and(|d| d["status"]["readyReplicas"] == d["spec"]["replicas"])
    };
    eventually("both overlays", || ready("shop") && ready("shop-staging")).await;
    s
}

async fn healthy(s: &mut Stage, edit: Value) {
    let change = s.propose(edit).await;
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
}

async fn entries_are_edited(by_flux: bool) {
    if !kustomize() {
        return;
    }
    let mut s = world(ENTRIES, by_flux).await;
    assert_eq!(s.world.live_image("web").as_deref(), Some("reg.example/web:1.1.0"));
    healthy(&mut s, set_image("web", "reg.example/web:1.2.0")).await;
    let first = overlay("shop", ENTRIES).replace("newTag: 1.1.0  # by", "newTag: 1.2.0  # by");
    assert_eq!(s.world.file(PROD).unwrap(), first, "the one value, and the comment stays");
    assert_eq!(s.world.live_image("web").as_deref(), Some("reg.example/web:1.2.0"));
    healthy(&mut s, json!({"target": target("web"), "scale": {"replicas": 5}})).await;
    assert_eq!(s.world.file(PROD).unwrap(), first.replace("count: 3", "count: 5"));
    let live = s.world.cluster.get("apps", "Deployment", "shop", "web").unwrap();
    assert_eq!(live["spec"]["replicas"], json!(5));
    assert_eq!(s.world.file(BASE).unwrap(), base(), "the base is nobody's to change here");
    let staging = s.world.cluster.get("apps", "Deployment", "shop-staging", "web").unwrap();
    assert_eq!(staging["spec"]["template"]["spec"]["containers"][0]["image"], json!("reg.example/web:1.0.0"));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn argocd_entries_of_an_overlay_are_edited_and_become_healthy() {
    entries_are_edited(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_entries_of_an_overlay_are_edited_and_become_healthy() {
    entries_are_edited(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_two_overlays_share_is_refused_naming_the_other() {
    if !kustomize() {
        return;
    }
    let mut s = world("", false).await;
    let tip = s.world.tip();
    let edit = json!({"target": target("web"), "set_env": {"container": "app", "name": "LOG_LEVEL", "value": "debug"}});
    let answer = s.operate(vec![edit]).await;
    assert_eq!(
        (text(&answer, "outcome"), text(&answer["problem"], "code")),
        ("refused", "source.shared"),
        "{answer:#}"
    );
    let said = refusal(&answer);
    assert!(said.contains(BASE) && said.contains("Argo CD Application argocd/web-staging"), "{said}");
    assert_eq!(s.world.tip(), tip);
    assert!(s.world.bot.chat(ANNA).is_empty());
    s.end().await;
}
