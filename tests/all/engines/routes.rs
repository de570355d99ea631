//! What becomes of a change that goes through a pull request: merged by a person (`pull_request`),
//! or by Countersign after the approval (`merge_after_approval`). Each outcome on both ways.

use countersign::sandbox::cluster::Engine;
use countersign::sandbox::forge::{Method, Pull};
use countersign::sandbox::world::{ANNA, REPO, WorldOptions, policy};
use serde_json::{Value, json};

use super::{App, CHECKOUT, on_both_engines, quick, refusal, story};
use crate::world::{PATIENCE, Stage, set_image, target, text};

on_both_engines!(
    a_merged_pull_request_that_the_api_refuses_fails_with_the_engines_words,
    our_merge_that_the_api_refuses_fails_with_the_engines_words,
    a_merged_pull_request_that_degrades_offers_its_revert_as_a_pull_request,
    our_merge_that_degrades_offers_its_revert_on_a_card,
    a_merged_pull_request_is_timed_out,
    our_merge_is_timed_out,
    a_merged_pull_request_is_superseded_by_a_later_commit,
    our_merge_is_superseded_by_a_later_commit,
);

const OUTCOMES: [&str; 4] = ["healthy", "failed", "timed_out", "superseded"];

/// How the pull request is merged.
#[derive(Clone, Copy, PartialEq)]
enum Route {
    /// Anna merges it at the forge, which is her approval.
    Person,
    /// Anna presses Approve; Countersign opens it and merges it.
    Ours,
}

impl Route {
    fn options(self) -> WorldOptions {
        let deliver = if self == Self::Person { "pull_request" } else { "merge_after_approval" };
        quick(policy("prompted", deliver, 1))
    }

    /// Whoever the forge says has merged.
    fn merger(self) -> &'static str {
        if self == Self::Person { "anna" } else { "countersign-bot" }
    }
}

/// A change that was merged: its id, and the pull request as it was merged.
struct Merged {
    change: String,
    commit: String,
    number: u64,
}

impl Stage {
    async fn pull_when(&self, number: u64, holds: impl Fn(&Pull) -> bool) -> Pull {
        super::eventually("the pull request", || self.world.forge.pull(REPO, number).is_some_and(|p| holds(&p))).await;
        self.world.forge.pull(REPO, number).unwrap()
    }

    /// Gets a change onto main by this route.
    async fn merged_by(&mut self, route: Route, change: &str, number: u64) -> Merged {
        match route {
            Route::Person => {
                let open = self.until(change, &["awaiting_merge"]).await;
                assert!(text(&open, "pull_request").ends_with(&format!("/{number}")), "{open:#}");
                self.world.forge.merge(REPO, number, "anna", Method::Merge).unwrap();
            }
            Route::Ours => self.press(ANNA, "Approve").await,
        }
        let merged = self.pull_when(number, |p| p.merged.is_some()).await.merged.unwrap();
        assert_eq!(merged.by.as_deref(), Some(route.merger()));
        Merged { change: change.to_owned(), commit: merged.commit, number }
    }

    /// Asserts what holds of every merged change that ended, whatever the outcome.
    fn ended_as(&self, route: Route, m: &Merged, end: &Value, state: &str, code: &str) {
        assert_eq!((text(end, "outcome"), text(end, "state")), ("ended", state), "{end:#}");
        assert_eq!(text(&end["problem"], "code"), code, "{end:#}");
        assert_eq!(text(end, "commit"), m.commit, "the merge result is what was watched");
        assert!(text(end, "pull_request").ends_with(&format!("/{}", m.number)), "{end:#}");
        let channel = if route == Route::Person { "forge" } else { "telegram" };
        assert!(story(end).contains(&format!("approved by anna ({channel})")), "{}", story(end));
        let on_main = self.world.git.repos().history(REPO, "main").unwrap();
        assert!(on_main.iter().any(|c| c.id == m.commit), "the merge stands on main");
        let pull = self.world.forge.pull(REPO, m.number).unwrap();
        assert_eq!(pull.merged.map(|x| x.commit), Some(m.commit.clone()), "and so does the pull request");
    }

    /// What the change's people read of it at the end.
    async fn told_of_failure(&self, m: &Merged, head: &str, words: &str) {
        let commit = &m.commit[..10];
        let found = self
            .world
            .bot
            .wait_for(ANNA, PATIENCE, |t| {
                t.text.contains(head) && t.text.contains(commit) && t.button("Approve").is_none()
            })
            .await;
        let told = found.unwrap_or_else(|| panic!("nobody says so: {:#?}", self.world.bot.chat(ANNA)));
        assert!(told.text.contains(words), "{words:?} in {}", told.text);
    }
}

async fn refused(app: App, route: Route) {
    let mut s = Stage::new(route.options()).await;
    if app.name == CHECKOUT.name {
        // Without it Argo tries five times, for minutes.
        s.kubectl("argoproj.io", "Application", "argocd", "shop-prod", |a| {
            a["spec"]["syncPolicy"]["retry"] = json!({"limit": 1})
        });
    }
    let edit = json!({"target": target(app.name), "set_field": {"pointer": "/spec/selector/matchLabels/app", "value": "other"}});
    let change = s.propose(edit).await;
    let merged = s.merged_by(route, &change, 1).await;
    let end = s.until(&change, &OUTCOMES).await;
    s.ended_as(route, &merged, &end, "failed", "change.failed");
    assert!(refusal(&end).contains("selector"), "the API server's own words: {}", refusal(&end));
    s.told_of_failure(&merged, "FAILED", "selector").await;
    assert_eq!(s.live(app).pointer("/spec/selector/matchLabels/app"), Some(&json!(app.name)));
    s.end().await;
}

async fn a_merged_pull_request_that_the_api_refuses_fails_with_the_engines_words(app: App) {
    refused(app, Route::Person).await;
}

async fn our_merge_that_the_api_refuses_fails_with_the_engines_words(app: App) {
    refused(app, Route::Ours).await;
}

async fn degraded(app: App, route: Route) {
    let mut s = Stage::new(route.options()).await;
    let before = s.manifest(app);
    let change = s.propose(set_image(app.name, app.missing)).await;
    let merged = s.merged_by(route, &change, 1).await;
    let end = s.until(&change, &OUTCOMES).await;
    s.ended_as(route, &merged, &end, "failed", "change.failed");
    s.told_of_failure(&merged, "FAILED", app.name).await;
    let revert = s.offered_revert(&change).await;
    let waiting = if route == Route::Person { "awaiting_merge" } else { "awaiting_approval" };
    let offered = s.until(&revert, &[waiting]).await;
    assert!(text(&offered, "diff").contains(&format!("+          image: {}", app.old)), "{offered:#}");
    assert_eq!(s.manifest(app), before.replace(app.old, app.missing), "nothing is undone without a yes");
    let pulls = s.world.forge.pulls(REPO);
    assert_eq!(pulls.len(), if route == Route::Person { 2 } else { 1 }, "{pulls:#?}");
    let name = text(&end, "name").to_owned();
    let words = if route == Route::Person { "A pull request waits for its merge" } else { "Undoes" };
    let told = s.world.bot.wait_for(ANNA, PATIENCE, |m| {
        m.text.contains(words) && m.text.contains(&name) && (m.button("Approve").is_some() == (route == Route::Ours))
    });
    assert!(told.await.is_some(), "{words:?} of {name}: {:#?}", s.world.bot.chat(ANNA));
    // And by the same route it gets back.
    let back = s.merged_by(route, &revert, 2).await;
    let end = s.until(&revert, &OUTCOMES).await;
    assert_eq!((text(&end, "state"), text(&end, "commit")), ("healthy", back.commit.as_str()), "{end:#}");
    assert_eq!(s.manifest(app), before, "byte for byte");
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    s.sees(ANNA, "HEALTHY").await;
    s.end().await;
}

async fn a_merged_pull_request_that_degrades_offers_its_revert_as_a_pull_request(app: App) {
    degraded(app, Route::Person).await;
}

async fn our_merge_that_degrades_offers_its_revert_on_a_card(app: App) {
    degraded(app, Route::Ours).await;
}

fn engine(app: App) -> Engine {
    if app.name == CHECKOUT.name { Engine::Argocd } else { Engine::Flux }
}

async fn timed_out(app: App, route: Route) {
    let mut s = Stage::new(WorldOptions { times: [3, 1, 1, 40, 1], ..route.options() }).await;
    s.world.cluster.pause_engine(engine(app), true);
    let change = s.propose(set_image(app.name, app.new)).await;
    let merged = s.merged_by(route, &change, 1).await;
    let end = s.until(&change, &OUTCOMES).await;
    s.ended_as(route, &merged, &end, "timed_out", "change.timed_out");
    assert_eq!(s.world.tip(), merged.commit, "it is committed all the same");
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    s.told_of_failure(&merged, "NOT HEALTHY IN TIME", "Last seen: ").await;
    let offered = s.offered_revert(&change).await;
    s.until(&offered, &["awaiting_approval", "awaiting_merge"]).await;
    s.world.cluster.pause_engine(engine(app), false);
    s.end().await;
}

async fn a_merged_pull_request_is_timed_out(app: App) {
    timed_out(app, Route::Person).await;
}

async fn our_merge_is_timed_out(app: App) {
    timed_out(app, Route::Ours).await;
}

async fn superseded(app: App, route: Route) {
    let mut s = Stage::new(route.options()).await;
    s.world.cluster.pause_engine(engine(app), true);
    let change = s.propose(set_image(app.name, app.new)).await;
    let merged = s.merged_by(route, &change, 1).await;
    let now = s.until(&change, &["observing"]).await;
    assert_eq!((text(&now, "outcome"), text(&now, "commit")), ("waiting", merged.commit.as_str()), "{now:#}");
    let theirs = format!("{}-hotfix", app.new);
    let tip = s.person_commits(app.file, &s.manifest(app).replace(app.new, &theirs));
    s.world.cluster.pause_engine(engine(app), false);
    let end = s.until(&merged.change, &OUTCOMES).await;
    s.ended_as(route, &merged, &end, "superseded", "change.superseded");
    let told = s.sees(ANNA, "SUPERSEDED").await;
    assert!(told.buttons.is_empty() && told.text.contains(&merged.commit[..10]), "{}", told.text);
    super::eventually("their image", || s.world.live_image(app.name).as_deref() == Some(&theirs)).await;
    assert_eq!(s.world.tip(), tip, "no revert of somebody else's work");
    assert_eq!(s.world.forge.pulls(REPO).len(), 1, "and no pull request for one");
    s.end().await;
}

async fn a_merged_pull_request_is_superseded_by_a_later_commit(app: App) {
    superseded(app, Route::Person).await;
}

async fn our_merge_is_superseded_by_a_later_commit(app: App) {
    superseded(app, Route::Ours).await;
}
