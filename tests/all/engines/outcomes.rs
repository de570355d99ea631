//! What becomes of a commit: healthy is in `delivery`; here is everything else.

use countersign::sandbox::cluster::{Behaviour, Engine};
use countersign::sandbox::world::{ANNA, MAX, WorldOptions, policy};
use serde_json::{Value, json};

use super::{App, CHECKOUT, on_both_engines, quick, refusal};
use crate::world::{Stage, set_image, target, text};

on_both_engines!(
    a_sync_that_the_api_refuses_fails_with_the_engines_words,
    a_degraded_rollout_fails_and_its_revert_is_a_change_of_its_own,
    an_engine_that_stands_still_is_timed_out,
    a_late_success_takes_the_offered_revert_back,
    a_later_commit_of_a_person_supersedes,
    a_later_commit_elsewhere_does_not_disturb,
    a_rollback_puts_every_byte_back,
    a_rollback_after_a_later_commit_is_refused,
);

fn engine(app: App) -> Engine {
    if app.name == CHECKOUT.name { Engine::Argocd } else { Engine::Flux }
}

impl Stage {
    /// The revert of a failed change, as a person asks for it; the answer about the change leads to it.
    pub(super) async fn offered_revert(&mut self, change: &str) -> String {
        self.press(ANNA, "Prepare revert").await;
        let end = tokio::time::Instant::now() + crate::world::PATIENCE;
        loop {
            let now = self.call("change", json!({"change": change})).await;
            if text(&now["next"], "tool") == "change" {
                return text(&now["next"]["args"], "change").to_owned();
            }
            assert!(tokio::time::Instant::now() < end, "no revert is offered: {now:#}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

async fn a_sync_that_the_api_refuses_fails_with_the_engines_words(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    if app.name == CHECKOUT.name {
        // Without it Argo tries five times, for minutes.
        s.kubectl("argoproj.io", "Application", "argocd", "shop-prod", |a| {
            a["spec"]["syncPolicy"]["retry"] = json!({"limit": 1})
        });
    }
    let change = s
        .propose(json!({"target": target(app.name), "set_field": {"pointer": "/spec/selector/matchLabels/app", "value": "other"}}))
        .await;
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["failed", "healthy", "timed_out"]).await;
    assert_eq!((text(&end, "outcome"), text(&end, "state")), ("ended", "failed"), "{end:#}");
    assert!(refusal(&end).contains("selector"), "the API server's own words: {}", refusal(&end));
    let told = s.sees(ANNA, "Seen: ").await;
    assert!(told.text.contains("FAILED") && told.text.contains("selector"), "{}", told.text);
    let live = s.live(app);
    assert_eq!(live.pointer("/spec/selector/matchLabels/app"), Some(&json!(app.name)), "the cluster is as it was");
    s.end().await;
}

async fn a_degraded_rollout_fails_and_its_revert_is_a_change_of_its_own(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let before = s.manifest(app);
    let (change, end) = s.approved_image(app, app.missing, &["failed", "healthy", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    assert_eq!(text(&end["problem"], "code"), "change.failed");
    s.sees(ANNA, "FAILED").await;
    // The agent is led to the revert.
    let revert = s.offered_revert(&change).await;
    assert_ne!(revert, change);
    let offered = s.until(&revert, &["awaiting_approval"]).await;
    assert!(text(&offered, "diff").contains(&format!("+          image: {}", app.old)), "{offered:#}");
    assert_eq!(s.manifest(app), before.replace(app.old, app.missing), "nothing is undone without a yes");
    let name = text(&end, "name").to_owned();
    let card = s.world.bot.wait_for(ANNA, crate::world::PATIENCE, |m| m.button("Approve").is_some()).await.unwrap();
    assert!(card.text.contains(&format!("Undoes {name}")), "{}", card.text);
    s.press(ANNA, "Approve").await;
    let end = s.until(&revert, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.manifest(app), before, "byte for byte");
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    let subject = s.world.git.repos().commit_info(countersign::sandbox::world::REPO, "main").unwrap().message;
    assert!(subject.starts_with("revert("), "{subject}");
    s.end().await;
}

async fn an_engine_that_stands_still_is_timed_out(app: App) {
    let mut s = Stage::new(WorldOptions { times: [3, 1, 1, 40, 1], ..quick(policy("prompted", "direct", 1)) }).await;
    s.world.cluster.pause_engine(engine(app), true);
    let (change, end) = s.approved_image(app, app.new, &["timed_out", "healthy", "failed"]).await;
    assert_eq!(text(&end, "state"), "timed_out", "{end:#}");
    assert_eq!(text(&end["problem"], "code"), "change.timed_out");
    assert_eq!(text(&end, "commit"), s.world.tip(), "it is committed all the same");
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    for person in [ANNA, MAX] {
        let told = s.sees(person, "NOT HEALTHY IN TIME").await;
        assert!(!told.text.contains("FAILED") && told.text.contains("Last seen: "), "{}", told.text);
    }
    let offered = s.offered_revert(&change).await;
    s.until(&offered, &["awaiting_approval"]).await;
    s.world.cluster.pause_engine(engine(app), false);
    s.end().await;
}

async fn a_late_success_takes_the_offered_revert_back(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let (change, end) = s.approved_image(app, app.missing, &["failed", "healthy", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    let offered = s.offered_revert(&change).await;
    let card = s
        .world
        .bot
        .wait_for(ANNA, crate::world::PATIENCE, |m| m.text.contains("Undoes") && m.button("Approve").is_some())
        .await;
    assert!(card.is_some());
    // Somebody pushes the image that was missing.
    s.world.cluster.set_image_behaviour(app.missing, Behaviour::Ready);
    let withdrawn = s.until(&offered, &["cancelled", "stale", "expired", "healthy"]).await;
    assert_eq!(text(&withdrawn, "state"), "cancelled", "{withdrawn:#}");
    let settled = s.sees(ANNA, "CANCELLED").await;
    assert!(settled.buttons.is_empty() && settled.text.contains("healthy after all"), "{}", settled.text);
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.missing));
    let now = s.call("change", json!({"change": change})).await;
    assert!(now.get("next").is_none(), "nothing is left to undo: {now:#}");
    s.end().await;
}

async fn a_later_commit_of_a_person_supersedes(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    s.world.cluster.pause_engine(engine(app), true);
    let (change, now) = s.approved_image(app, app.new, &["observing"]).await;
    assert_eq!(text(&now, "outcome"), "waiting");
    let theirs = format!("{}-hotfix", app.new);
    s.person_commits(app.file, &s.manifest(app).replace(app.new, &theirs));
    s.world.cluster.pause_engine(engine(app), false);
    let end = s.until(&change, &["superseded", "healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "outcome"), text(&end, "state")), ("ended", "superseded"), "{end:#}");
    s.sees(ANNA, "SUPERSEDED").await;
    super::eventually("their image", || s.world.live_image(app.name).as_deref() == Some(&theirs)).await;
    assert_eq!(s.our_commits().len(), 1, "no revert of somebody else's work");
    s.end().await;
}

async fn a_later_commit_elsewhere_does_not_disturb(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    s.world.cluster.pause_engine(engine(app), true);
    let (change, now) = s.approved_image(app, app.new, &["observing"]).await;
    let ours = text(&now, "commit").to_owned();
    let replicas = s.manifest(app).replace("replicas: 2", "replicas: 3");
    s.person_commits(app.file, &replicas);
    s.world.cluster.pause_engine(engine(app), false);
    let end = s.until(&change, &["superseded", "healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "a later commit holds ours: {end:#}");
    assert_eq!(text(&end, "commit"), ours);
    assert_eq!(s.live(app).pointer("/spec/replicas").and_then(Value::as_i64), Some(3));
    s.end().await;
}

async fn a_rollback_puts_every_byte_back(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let before = s.manifest(app);
    let (change, end) = s.approved_image(app, app.new, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    let tip = s.world.tip();
    let plan = s.call("rollback", json!({"change": change, "reason": "look first", "plan_only": true})).await;
    assert_eq!(text(&plan, "outcome"), "planned", "{plan:#}");
    let back = s.call("rollback", json!({"change": change, "reason": "customers complain"})).await;
    assert_eq!(text(&back, "outcome"), "waiting", "{back:#}");
    assert_eq!(s.world.tip(), tip, "a rollback needs a yes as well");
    let revert = text(&back, "change").to_owned();
    s.press(ANNA, "Approve").await;
    let end = s.until(&revert, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(s.manifest(app), before);
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    s.end().await;
}

async fn a_rollback_after_a_later_commit_is_refused(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let waiting = s.propose(set_image(app.name, app.new)).await;
    let early = s.call("rollback", json!({"change": waiting, "reason": "never mind"})).await;
    assert_eq!(text(&early["problem"], "code"), "rollback.not_landed", "{early:#}");
    s.press(ANNA, "Approve").await;
    let end = s.until(&waiting, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    let theirs = s.manifest(app).replace("value: info", "value: debug");
    let tip = s.person_commits(app.file, &theirs);
    let back = s.call("rollback", json!({"change": waiting, "reason": "customers complain"})).await;
    assert_eq!(
        (text(&back, "outcome"), text(&back["problem"], "code")),
        ("refused", "rollback.later_commit"),
        "{back:#}"
    );
    assert!(refusal(&back).contains(app.old), "the old value is told: {}", refusal(&back));
    assert_eq!((s.world.tip(), s.manifest(app)), (tip, theirs), "their work stands");
    s.end().await;
}
