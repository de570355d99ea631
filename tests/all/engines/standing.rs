//! What stands between a commit and the cluster is told before anybody decides, and afterwards
//! nothing is called healthy before it is.

use countersign::sandbox::world::{ANNA, policy};
use serde_json::{Value, json};

use super::{CHECKOUT, PAYMENTS, notes, quick, story};
use crate::world::{Stage, set_image, text};

const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_kustomization_is_told_and_waited_for() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    s.kubectl(KUSTOMIZE, "Kustomization", "flux-system", "payments", |k| k["spec"]["suspend"] = json!(true));
    let asked = s.operate(vec![set_image("payments", PAYMENTS.new)]).await;
    assert!(notes(&asked).contains("flux-system/payments is suspended: until a person changes that"), "{asked:#}");
    let card = s.sees(ANNA, "SUSPENDED: Kustomization flux-system/payments is suspended").await;
    assert!(card.text.contains("auto-sync on"), "nobody has to sync by hand: {}", card.text);
    s.press(ANNA, "Approve").await;
    let change = text(&asked, "change").to_owned();
    loop {
        let now = s.until(&change, &["observing"]).await;
        if story(&now).contains("(suspended)") {
            break;
        }
    }
    assert_eq!(s.world.live_image("payments").as_deref(), Some(PAYMENTS.old));
    s.kubectl(KUSTOMIZE, "Kustomization", "flux-system", "payments", |k| k["spec"]["suspend"] = json!(false));
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.world.live_image("payments").as_deref(), Some(PAYMENTS.new));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_auto_sync_is_told_and_waited_for() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    s.kubectl("argoproj.io", "Application", "argocd", "shop-prod", |a| {
        a["spec"].as_object_mut().unwrap().remove("syncPolicy");
    });
    let asked = s.operate(vec![set_image("checkout", CHECKOUT.new)]).await;
    assert!(notes(&asked).contains("a person has to sync it"), "{asked:#}");
    s.sees(ANNA, "auto-sync off: someone must sync").await;
    s.press(ANNA, "Approve").await;
    let change = text(&asked, "change").to_owned();
    let waiting = loop {
        let now = s.until(&change, &["observing"]).await;
        if story(&now).contains("(manual_sync)") {
            break now;
        }
    };
    assert_eq!(s.world.live_image("checkout").as_deref(), Some(CHECKOUT.old));
    // A person syncs that revision.
    let revision = text(&waiting, "commit").to_owned();
    s.kubectl("argoproj.io", "Application", "argocd", "shop-prod", |a| {
        a["operation"] =
            json!({"initiatedBy": {"username": "anna"}, "sync": {"revision": revision, "syncStrategy": {"hook": {}}}});
    });
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.world.live_image("checkout").as_deref(), Some(CHECKOUT.new));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overview_puts_what_is_not_healthy_first() {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let (_, end) = {
        let change = s.propose(set_image("checkout", CHECKOUT.missing)).await;
        let end = s.until(&change, &["failed", "healthy", "timed_out"]).await;
        (change, end)
    };
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    let overview = s.call("inspect", json!({})).await;
    let items: Vec<&str> = overview["items"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(items[0].contains("shop-prod") && items[0].contains("Degraded"), "{overview:#}");
    let one = s.call("inspect", json!({"target": crate::world::target("checkout")})).await;
    assert!(text(&one, "health").contains("ready"), "{one:#}");
    s.end().await;
}
