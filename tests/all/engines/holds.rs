//! What keeps a change from the branch for a while, or for good: an outage after the press, a stop that
//! lasts, a remote that says no, too few people. Each time the agent is told what it waits for.

use std::time::Duration;

use countersign::sandbox::forge::{Method, Protection, PullState};
use countersign::sandbox::git::GitUser;
use countersign::sandbox::host::{Fault, Mishap};
use countersign::sandbox::world::{ANNA, MAX, REPO, WorldOptions, policy};
use countersign::server::control::Request;
use serde_json::{Value, json};

use super::{CHECKOUT, PAYMENTS, notes, quick, refusal, story};
use crate::people::{ask, asked, code, countersign, never, resume, rewrite, slow, struck, wait};
use crate::world::{PATIENCE, Stage, set_image, text};

impl Stage {
    /// Polls `change` until what it waits for has these words.
    async fn waits_for(&mut self, change: &str, words: &str) -> Value {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = self.call("change", json!({"change": change})).await;
            if text(&now, "waits_for").contains(words) {
                return now;
            }
            assert!(tokio::time::Instant::now() < end, "it never waits for {words:?}: {now:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_change_says_that_it_waits_for_git_and_since_when() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    asked(&s, ANNA).await;
    s.world.git.down().await;
    s.press(ANNA, "Approve").await;
    let now = s.waits_for(&change, "cannot be reached").await;
    assert_eq!((text(&now, "outcome"), text(&now, "state")), ("waiting", "approved"), "{now:#}");
    let waits = text(&now, "waits_for").to_owned();
    assert!(waits.starts_with("approved by anna; since 20"), "{waits}");
    assert!(text(&now, "summary").contains("is approved"), "{now:#}");
    // Since when stays as it goes on.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let later = s.waits_for(&change, "cannot be reached").await;
    let since = |w: &str| w.split_whitespace().nth(4).unwrap().to_owned();
    assert_eq!(since(text(&later, "waits_for")), since(&waits));
    s.world.git.up().await;
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_change_says_that_it_waits_for_the_cluster() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let change = s.propose(set_image("payments", PAYMENTS.new)).await;
    asked(&s, ANNA).await;
    s.world.cluster.state().set_available(false);
    s.press(ANNA, "Approve").await;
    let now = s.waits_for(&change, "approved by anna; since").await;
    assert_eq!(text(&now, "state"), "approved", "{now:#}");
    assert!(text(&now, "waits_for").contains("API server does not answer"), "it names the cluster: {now:#}");
    s.world.cluster.state().set_available(true);
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_branch_ends_the_change_at_once_and_says_what_to_do() {
    let mut s = Stage::new(WorldOptions { times: [40, 1, 1, 3600, 1], ..quick(policy("prompted", "direct", 1)) }).await;
    let tip = s.world.tip();
    s.world.forge.protect(REPO, "main", Some(Protection::default())).unwrap();
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["undelivered"]).await;
    assert_eq!(code(&end), "change.undelivered", "{end:#}");
    let said = refusal(&end);
    assert!(said.contains("git.push_rejected") && said.contains("hook declined"), "{said}");
    assert!(text(&end["problem"], "next").contains("pull request"), "what to do: {said}");
    assert_eq!(story(&end).matches("push_target failed").count(), 1, "one try: {}", story(&end));
    assert_eq!(s.world.git.pushes().len(), 1);
    assert_eq!(s.world.tip(), tip);
    s.sees(ANNA, "NOT DELIVERED").await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_may_not_push_ends_the_change_at_once() {
    let mut s = Stage::new(WorldOptions { times: [40, 1, 1, 3600, 1], ..quick(policy("prompted", "direct", 1)) }).await;
    let token = std::fs::read_to_string(s.world.dir.join("keys/git-token")).unwrap();
    s.world.git.add_user(GitUser { login: "countersign".into(), token, can_write: false });
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["undelivered"]).await;
    let said = refusal(&end);
    assert!(said.contains("git.auth") && text(&end["problem"], "next").contains("auth"), "{said}");
    assert_eq!(story(&end).matches("push_target failed").count(), 1, "{}", story(&end));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_under_a_stop_is_not_the_changes() {
    let mut s = Stage::new(WorldOptions { times: [40, 1, 1, 20, 1], ..quick(policy("prompted", "direct", 1)) }).await;
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    asked(&s, ANNA).await;
    // Authorized, and the push itself does not get through.
    s.world.git.fault(Fault {
        matching: Some("git-receive-pack".into()),
        times: None,
        mishap: Mishap::Error { status: 503, body: Value::Null, headers: Default::default() },
    });
    s.press(ANNA, "Approve").await;
    s.waits_for(&change, "the push, which failed at").await;
    ask(&s, Request::Stop { reason: "now".into() }).await.unwrap();
    s.clock.advance(Duration::from_secs(10 * 60));
    s.restart().await;
    never("an end under the stop", Duration::from_millis(1500), || false).await;
    let held = s.call("change", json!({"change": change})).await;
    assert_eq!(text(&held, "state"), "held", "{held:#}");
    s.world.git.up().await;
    resume(&s).await;
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expires_under_a_stop_is_good_for_nothing() {
    let mut s = Stage::new(quick(policy("prompted", "merge_after_approval", 1))).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    asked(&s, ANNA).await;
    s.world.forge.fault(slow("POST /repos/acme/shop/pulls", 800));
    s.press(ANNA, "Approve").await;
    struck(|| s.world.forge.log()).await;
    ask(&s, Request::Stop { reason: "now".into() }).await.unwrap();
    wait("the pull request", || (s.world.forge.pulls(REPO).len() == 1).then_some(())).await;
    s.clock.advance(Duration::from_secs(31 * 60));
    let end = s.until(&change, &["expired"]).await;
    assert!(text(&end["problem"], "message").contains("emergency stop lasted longer"), "{end:#}");
    let open = s.world.forge.pull(REPO, 1).unwrap();
    assert_eq!(open.state, PullState::Open, "nothing goes out under the stop");
    resume(&s).await;
    super::eventually("the close", || s.world.forge.pull(REPO, 1).is_some_and(|p| p.state == PullState::Closed)).await;
    assert_eq!(s.world.tip(), tip);
    s.sees(ANNA, "EXPIRED").await;
    s.end().await;
}

/// How the stop is given.
#[derive(Clone, Copy)]
enum By {
    Chat,
    CommandLine,
}

impl Stage {
    async fn stops(&self, by: By) {
        match by {
            By::Chat => self.world.bot.say(MAX, MAX, "/stop").map(drop).unwrap(),
            By::CommandLine => assert!(countersign(&self.world, &["stop", "a strange thing"]).await.ok),
        }
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.daemon.as_ref().unwrap().pipeline.journal.read(|v| v.stopped.is_none()).await {
            assert!(tokio::time::Instant::now() < end, "not stopped");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The remote is asked where it stands, and takes long to say so: what comes after it must not go out.
async fn stopped_before_the_branch_is_sent(deliver: &str, by: By) {
    let mut s = Stage::new(quick(policy("prompted", deliver, 1))).await;
    s.world.git.fault(slow("service=git-receive-pack", 3000));
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    if deliver == "merge_after_approval" {
        s.press(ANNA, "Approve").await;
    }
    struck(|| s.world.git.log()).await;
    s.stops(by).await;
    let gone = || !s.world.git.pushes().is_empty() || !s.world.forge.pulls(REPO).is_empty();
    never("a push or a pull request after the stop", Duration::from_millis(4500), gone).await;
    let held = s.call("change", json!({"change": change})).await;
    assert_eq!((text(&held, "outcome"), text(&held, "state")), ("waiting", "held"), "{held:#}");
    assert_eq!(s.world.git.repos().branches(REPO).unwrap().len(), 1, "no branch");
    resume(&s).await;
    if deliver == "pull_request" {
        s.until(&change, &["awaiting_merge"]).await;
        s.world.forge.merge(REPO, 1, "anna", Method::Merge).unwrap();
    }
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.world.forge.pulls(REPO).len(), 1);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_chat_during_the_push_of_a_branch_sends_nothing_more() {
    stopped_before_the_branch_is_sent("pull_request", By::Chat).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_the_command_line_during_the_push_of_an_approved_branch_sends_nothing_more() {
    stopped_before_the_branch_is_sent("merge_after_approval", By::CommandLine).await;
}

/// The branch is on its way when the stop comes: it arrives, and no pull request follows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_sent_before_the_stop_gets_no_pull_request_until_the_resume() {
    let mut s = Stage::new(quick(policy("prompted", "pull_request", 1))).await;
    s.world.git.fault(slow("POST /acme/shop.git/git-receive-pack", 1500));
    let change = s.propose(set_image("payments", PAYMENTS.new)).await;
    struck(|| s.world.git.log()).await;
    s.stops(By::Chat).await;
    wait("the branch", || (s.world.git.repos().branches(REPO).unwrap().len() == 2).then_some(())).await;
    never("a pull request after the stop", Duration::from_millis(2000), || !s.world.forge.pulls(REPO).is_empty()).await;
    // Whoever asked may give up meanwhile; then nothing is opened later either.
    let end = s.call("cancel", json!({"change": change, "reason": "never mind"})).await;
    assert_eq!(text(&end, "state"), "cancelled", "{end:#}");
    resume(&s).await;
    never("a pull request of an ended change", Duration::from_millis(1500), || !s.world.forge.pulls(REPO).is_empty())
        .await;
    assert_eq!(s.our_commits().len(), 0);
    s.end().await;
}

async fn stopped_during_the_close(by: By, slow_call: &str, comments: usize) {
    let mut s = Stage::new(quick(policy("prompted", "pull_request", 1))).await;
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    s.until(&change, &["awaiting_merge"]).await;
    s.world.forge.fault(slow(slow_call, 3000));
    let end = s.call("cancel", json!({"change": change, "reason": "never mind"})).await;
    assert_eq!(text(&end, "state"), "cancelled", "{end:#}");
    struck(|| s.world.forge.log()).await;
    s.stops(by).await;
    never("a close after the stop", Duration::from_millis(4500), || {
        s.world.forge.pull(REPO, 1).is_none_or(|p| p.state != PullState::Open)
    })
    .await;
    assert_eq!(s.world.forge.comments(REPO, 1).len(), comments, "what was under way when the stop came, at the most");
    resume(&s).await;
    super::eventually("the close", || s.world.forge.pull(REPO, 1).is_some_and(|p| p.state == PullState::Closed)).await;
    assert_eq!(s.world.forge.comments(REPO, 1).len(), 1, "and its word is said once");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_word_on_a_closed_pull_request_sends_nothing_more() {
    stopped_during_the_close(By::CommandLine, "GET /repos/acme/shop/pulls/1", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_between_the_word_and_the_close_sends_nothing_more() {
    stopped_during_the_close(By::Chat, "POST /repos/acme/shop/issues/1/comments", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_right_after_the_call_waits_for_the_card_and_settles_it() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    s.world.bot.fault(slow("SendMessage", 1500));
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    struck(|| s.world.bot.log()).await;
    let end = s.call("cancel", json!({"change": change, "reason": "never mind"})).await;
    assert_eq!((text(&end, "outcome"), text(&end, "state")), ("ended", "cancelled"), "{end:#}");
    let card = s.sees(ANNA, "CANCELLED").await;
    assert!(card.buttons.is_empty(), "{card:#?}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_nobody_can_reach_is_refused_when_it_is_proposed() {
    // The sponsor is one of the two, so that one person is left where two are needed.
    let mut s = Stage::new(quick(policy("prompted", "direct", 2))).await;
    rewrite(&s.world, |t| t.replacen("\"sponsor\": \"jon\"", "\"sponsor\": \"max\"", 1));
    ask(&s, Request::Reload).await.unwrap();
    let refused = s.operate(vec![set_image("checkout", CHECKOUT.new)]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "policy.no_approvers"), "{refused:#}");
    assert!(refusal(&refused).contains("besides the sponsor there is only one person"), "{}", refusal(&refused));
    let plan = s.plan(vec![set_image("checkout", CHECKOUT.new)]).await;
    assert!(notes(&plan).contains("only one person"), "{plan:#}");
    assert_eq!(code(&plan), "policy.no_approvers", "a plan says at once that it cannot be proposed: {plan:#}");
    assert!(s.world.bot.chat(ANNA).is_empty(), "nobody is asked in vain");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_became_unreachable_is_named_and_not_the_levels() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 2))).await;
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    s.press(ANNA, "Approve").await;
    s.waits_for(&change, "1 of 2 approvals").await;
    s.world.set_policy(&policy("prompted", "direct", 3)).unwrap();
    ask(&s, Request::Reload).await.unwrap();
    s.press(MAX, "Approve").await;
    let end = s.until(&change, &["stale"]).await;
    let said = text(&end["problem"], "message");
    assert!(said.contains("there are only 2 people") && !said.contains("Deny"), "{said}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_card_of_a_rollback_says_once_what_it_undoes_and_how_the_object_is_now() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let (change, end) = s.approved_image(CHECKOUT, CHECKOUT.new, &["healthy"]).await;
    let back = s.call("rollback", json!({"change": change, "reason": "customers complain"})).await;
    assert_eq!(text(&back, "outcome"), "waiting", "{back:#}");
    let name = text(&end, "name");
    let card = s
        .world
        .bot
        .wait_for(ANNA, PATIENCE, |m| m.text.contains("Undoes") && m.button("Approve").is_some())
        .await
        .unwrap();
    assert_eq!(card.text.matches("Undoes").count(), 1, "{}", card.text);
    assert!(card.text.contains(&format!("Undoes {name}")), "{}", card.text);
    assert!(card.text.lines().any(|l| l.starts_with("Now: ") && l.contains("2/2")), "{}", card.text);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_an_error_names_is_one_of_the_programs() {
    let page = include_str!("../../../docs/errors.md");
    let named: std::collections::BTreeSet<&str> = page
        .split("`countersign ")
        .skip(1)
        .filter_map(|rest| rest.split('`').next())
        .filter_map(|command| command.split_whitespace().next())
        .collect();
    assert!(named.contains("pending"), "{named:?}");
    for command in named {
        let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign")).args([command, "--help"]).output();
        let out = ran.await.unwrap();
        assert!(out.status.success(), "countersign {command}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
