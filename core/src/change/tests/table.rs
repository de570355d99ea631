//! Every state against every event: exactly the listed ones are let in.

use serde_json::json;

use super::given::*;
use crate::change::{State, fold};
use crate::model::{Body, Delivery, Digest, Effect, Ending, Level, Verdict, digest_of};

/// Every kind of event, each as it would follow on the given story.
fn candidates(s: &Story) -> Vec<(&'static str, Body)> {
    let d = &s.c.digest;
    let other = Digest("00".repeat(32));
    let done = |e: Effect| Body::Done { effect: e, result: json!({}) };
    vec![
        ("proposed", Given::prompted().proposed()),
        ("ask", intent(&ask("ann"))),
        ("ask done", done(ask("ann"))),
        ("ask failed", failed(&ask("ann"), false)),
        ("push", intent(&Effect::PushTarget)),
        ("push done", done(Effect::PushTarget)),
        ("push failed", failed(&Effect::PushTarget, false)),
        ("branch", intent(&Effect::PushBranch)),
        ("open", intent(&Effect::OpenPullRequest)),
        ("merge", intent(&Effect::Merge)),
        ("close pr", intent(&Effect::ClosePullRequest)),
        ("delete branch", intent(&Effect::DeleteBranch)),
        ("hint", intent(&Effect::Hint)),
        ("hint again", intent(&Effect::HintAgain)),
        ("settle", intent(&settle("ann", "closed"))),
        ("notify", intent(&notify("tom", "ended"))),
        ("pressed", Body::Pressed { update: 1, callback: "1".into(), person: "ann".into(), action: "approve".into() }),
        ("found", Body::CardFound { person: "ann".into(), message_id: 9 }),
        ("yes", vote(d, "ann", true)),
        ("yes of bob", vote(d, "bob", true)),
        ("no", vote(d, "ann", false)),
        ("authorized", authorized(&s.c)),
        ("authorized other", Body::Authorized { digest: other, by: names(&["ann"]), policy_version: "p1".into() }),
        (
            "authorized unvoted",
            Body::Authorized { digest: d.clone(), by: names(&["zoe"]), policy_version: "p1".into() },
        ),
        ("rebased", Body::Rebased { base: "b1".into() }),
        ("landed", landed()),
        ("observed", observed(Verdict::Healthy)),
        ("closed", closed(Ending::Cancelled)),
        ("revert", Body::RevertPrepared { change: id(), say: None }),
        ("revert asked", Body::RevertAsked { person: "ann".into() }),
        ("again asked", Body::AgainAsked { person: "ann".into() }),
        ("again", Body::AgainPrepared { change: None, say: String::new() }),
        ("reason", Body::Reasoned { person: "ann".into(), reason: Some("Not now".into()) }),
        ("resume voted", Body::ResumeVoted { person: "ann".into(), channel: "telegram".into(), stop: 1, proof: None }),
        ("stopped", Body::Stopped { reason: String::new() }),
        ("resumed", Body::Resumed { reason: String::new() }),
        ("checkpoint", Body::Checkpoint { seq: 1, hash: String::new(), signature: String::new() }),
        ("polled", Body::Polled { channel: "telegram".into(), offset: 1 }),
    ]
}

fn check(state: &str, s: &Story, legal: &str) {
    let legal: Vec<&str> = legal.split(", ").collect();
    let all = candidates(s);
    for name in &legal {
        assert!(all.iter().any(|(n, _)| n == name), "the table names {name}");
    }
    for (name, body) in all {
        match s.attempt(body) {
            Ok(c) => {
                assert!(legal.contains(&name), "{state}: {name} was let in");
                assert_eq!(c.n, s.c.n + 1);
            }
            Err(p) => {
                assert!(!legal.contains(&name), "{state}: {name} was refused: {p}");
                assert_eq!(p.code, "journal.illegal_event");
            }
        }
    }
}

#[test]
fn exactly_the_listed_transitions_are_let_in() {
    let fresh = Given::prompted().story();
    let told = "ask, settle, notify, close pr, hint";
    check("awaiting", &fresh, &format!("{told}, pressed, found, yes, yes of bob, no, rebased, landed, closed"));
    let asking = fresh.clone().then(intent(&ask("ann")));
    check("asking", &asking, "ask done, ask failed, pressed, found, yes, yes of bob, no, rebased, landed, closed");
    let asked = fresh.clone().done(ask("ann"), json!({}));
    check(
        "asked",
        &asked,
        "settle, notify, close pr, hint, pressed, found, yes, yes of bob, no, rebased, landed, closed",
    );
    let unasked = fresh.clone().failed(ask("ann"), true);
    check(
        "ask given up",
        &unasked,
        "settle, notify, close pr, hint, pressed, found, yes, yes of bob, no, rebased, landed, closed",
    );
    let yes = fresh.clone().yes("ann");
    check("voted", &yes, &format!("{told}, pressed, found, yes of bob, no, authorized, rebased, landed, closed"));
    let no = fresh.clone().no("ann");
    check("rejected", &no, &format!("{told}, pressed, found, yes, yes of bob, no, reason, rebased, landed, closed"));
    let cleared = yes.clone().authorized();
    check(
        "authorized",
        &cleared,
        &format!("{told}, push, pressed, found, yes of bob, no, authorized, rebased, landed, closed"),
    );
    let taken_back = cleared.clone().no("ann");
    check(
        "authorized, then rejected",
        &taken_back,
        &format!("{told}, pressed, found, yes of bob, no, reason, rebased, landed, closed"),
    );
    let pushing = cleared.clone().then(intent(&Effect::PushTarget));
    check("pushing", &pushing, "push done, push failed, pressed, found, authorized, rebased, landed");
    let pushed = cleared.clone().done(Effect::PushTarget, json!({}));
    check("pushed", &pushed, &format!("{told}, pressed, found, authorized, rebased, landed"));
    let out = pushed.landed();
    check("observing", &out, &format!("{told}, pressed, found, authorized, observed, closed, revert asked"));
    let ended = out.closed(Ending::Failed);
    check("ended", &ended, "settle, notify, close pr, pressed, found, observed, revert, revert asked");
    let wanted = ended.clone().then(Body::RevertAsked { person: "ann".into() });
    check("revert wanted", &wanted, "settle, notify, close pr, pressed, found, observed, revert");
    let reverted = ended.then(Body::RevertPrepared { change: id(), say: None });
    check("revert prepared", &reverted, "settle, notify, close pr, pressed, found, observed");
    let said_no = fresh.clone().no("ann").closed(Ending::Rejected);
    check("ended by a no", &said_no, "settle, notify, close pr, pressed, found, revert, reason");
    let expired = fresh.clone().closed(Ending::Expired);
    check("expired", &expired, "settle, notify, close pr, pressed, found, revert, again asked");
    let again = expired.then(Body::AgainAsked { person: "ann".into() });
    check("asked again", &again, "settle, notify, close pr, pressed, found, revert, again");
    let done = again.then(Body::AgainPrepared { change: None, say: String::new() });
    check("done again", &done, "settle, notify, close pr, pressed, found, revert");
    let cancelled = fresh.closed(Ending::Cancelled);
    check("cancelled", &cancelled, "settle, notify, close pr, pressed, found, revert");
}

#[test]
fn each_delivery_has_its_own_effects() {
    let told =
        "ask, settle, notify, close pr, hint, pressed, found, yes of bob, no, authorized, rebased, landed, closed";
    let cleared = |delivery| Given::new(Level::Prompted, delivery).story().yes("ann").authorized();
    check("direct", &cleared(Delivery::Direct), &format!("{told}, push"));
    let ours = cleared(Delivery::MergeAfterApproval);
    check("merge", &ours, &format!("{told}, branch"));
    let pushed = ours.done(Effect::PushBranch, json!({}));
    check("merge, pushed", &pushed, &format!("{told}, open"));
    check("merge, open", &pushed.done(Effect::OpenPullRequest, json!({})), &format!("{told}, merge"));
    let theirs = cleared(Delivery::PullRequest);
    check("pull request", &theirs, &format!("{told}, branch, authorized unvoted"));
    let open = theirs.done(Effect::PushBranch, json!({})).done(Effect::OpenPullRequest, json!({}));
    check("pull request, open", &open, &format!("{told}, authorized unvoted"));
    let over = "settle, notify, close pr, pressed, found, revert, again asked";
    check("pull request, ended unpushed", &cleared(Delivery::PullRequest).closed(Ending::Expired), over);
    check("pull request, ended", &open.closed(Ending::Expired), &format!("{over}, delete branch"));
    let standard = Given::new(Level::Standard, Delivery::Direct).story();
    let free = "ask, settle, notify, close pr, hint, pressed, found, yes, yes of bob, no, authorized, authorized unvoted, rebased, landed, closed";
    check("standard", &standard, free);
    let manual = Given::new(Level::Manual, Delivery::Direct).story();
    check(
        "manual",
        &manual,
        "ask, settle, notify, close pr, hint, pressed, found, yes, yes of bob, no, rebased, landed, closed",
    );
}

#[test]
fn a_history_begins_with_its_proposal_and_goes_on_without_gaps() {
    for (name, body) in candidates(&Given::prompted().story()) {
        let begun = fold(None, &event(1, T0, body));
        assert_eq!(begun.is_ok(), name == "proposed", "{name}");
    }
    let s = Given::prompted().story();
    for n in [0, 1, 3, u64::MAX] {
        assert!(fold(Some(s.c.clone()), &event(n, T0, vote(&s.c.digest, "ann", true))).is_err(), "number {n}");
    }
    for n in [0, 2, 7] {
        assert!(fold(None, &event(n, T0, Given::prompted().proposed())).is_err(), "first event with number {n}");
    }
}

#[test]
fn a_proposal_whose_parts_disagree_is_refused() {
    let Body::Proposed { proposal, decided, sealed, digest } = Given::prompted().proposed() else { unreachable!() };
    let begin = |decided: &crate::model::Decided, sealed: &str, digest: &Digest| {
        let body = Body::Proposed {
            proposal: proposal.clone(),
            decided: Box::new(decided.clone()),
            sealed: sealed.to_owned(),
            digest: digest.clone(),
        };
        fold(None, &event(1, T0, body)).map_err(|p| p.code)
    };
    assert!(begin(&decided, &sealed, &digest).is_ok());
    assert!(begin(&decided, &sealed, &Digest("00".into())).is_err(), "another digest");
    let changed = sealed.replace("scale to 3", "scale to 4");
    assert!(begin(&decided, &changed, &digest).is_err(), "other bytes");
    assert!(begin(&decided, "{}", &digest_of(b"{}")).is_err(), "no sealed change");
    let resealed = |f: &dyn Fn(&mut crate::model::Sealed)| {
        let mut s = Given::prompted().sealed();
        f(&mut s);
        let text = String::from_utf8(s.canonical().unwrap()).unwrap();
        let digest = digest_of(text.as_bytes());
        begin(&decided, &text, &digest)
    };
    assert!(resealed(&|_| {}).is_ok());
    assert!(resealed(&|s| s.change = crate::model::ChangeId::from_parts(1, 1)).is_err(), "of another change");
    assert!(resealed(&|s| s.delivery = Delivery::PullRequest).is_err(), "another delivery");
    assert!(resealed(&|s| s.quorum.count = 0).is_err(), "another quorum");
}

#[test]
fn states_have_their_names() {
    let name = |s: &Story| s.c.state().name();
    let fresh = Given::prompted().story();
    assert_eq!(name(&fresh), "awaiting_approval");
    let cleared = fresh.clone().yes("ann").authorized();
    assert_eq!(name(&cleared), "delivering");
    assert_eq!(name(&cleared.pushed()), "observing");
    assert_eq!(name(&Given::new(Level::Manual, Delivery::Direct).story()), "awaiting_commit");
    assert_eq!(name(&Given::new(Level::Standard, Delivery::Direct).story()), "delivering");
    let pr = Given::new(Level::Prompted, Delivery::PullRequest).story();
    assert_eq!(name(&pr), "delivering");
    let open = pr
        .authorized()
        .done(Effect::PushBranch, json!({}))
        .done(Effect::OpenPullRequest, json!({"number": 7, "url": "u"}));
    assert_eq!(name(&open), "awaiting_merge");
    assert_eq!((open.c.pull_number(), open.c.pull_url()), (Some(7), Some("u")));
    let mut ended: Vec<&str> = [
        Ending::Healthy,
        Ending::Failed,
        Ending::TimedOut,
        Ending::Superseded,
        Ending::Rejected,
        Ending::Expired,
        Ending::Cancelled,
        Ending::Stale,
        Ending::Undelivered,
        Ending::Abandoned,
    ]
    .into_iter()
    .map(|e| State::Ended(e).name())
    .collect();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), 10);
    assert_eq!(name(&fresh.closed(Ending::TimedOut)), "timed_out");
}

#[test]
fn short_names_and_branches_come_from_the_id() {
    let c = Given::prompted().story().c;
    let text = c.id.to_string();
    assert_eq!(c.name(), format!("cs-{}", &text[22..]));
    assert_eq!(c.name().len(), 7);
    assert_eq!(c.branch(), format!("countersign/{text}-r1"));
}

#[test]
fn nobody_withdraws_what_is_on_its_way() {
    let cleared = Given::prompted().story().yes("ann").authorized();
    assert!(!cleared.c.is_leaving());
    let pushing = cleared.clone().then(intent(&Effect::PushTarget));
    assert!(pushing.c.is_leaving());
    assert!(!pushing.then(failed(&Effect::PushTarget, false)).c.is_leaving(), "it did not leave after all");
    assert!(cleared.done(Effect::PushTarget, json!({})).c.is_leaving());
    let merge = Given::new(Level::Prompted, Delivery::MergeAfterApproval).story().yes("ann").authorized();
    let open = merge.done(Effect::PushBranch, json!({})).done(Effect::OpenPullRequest, json!({}));
    assert!(!open.c.is_leaving(), "a pull request can be closed");
    assert!(open.then(intent(&Effect::Merge)).c.is_leaving());
}

#[test]
fn failures_are_counted_and_a_new_try_keeps_the_count() {
    let e = ask("ann");
    let s = Given::prompted().story().failed(e.clone(), false).at(T0 + 5).failed(e.clone(), false);
    let state = s.c.effect(&e).unwrap();
    assert_eq!((state.failures, state.failed_at, state.dangling, state.given_up), (2, T0 + 5, false, false));
    assert_eq!(state.problem.as_ref().unwrap().code, "test.failed");
    let again = s.then(intent(&e));
    let state = again.c.effect(&e).unwrap();
    assert_eq!((state.failures, state.dangling), (2, true));
}

#[test]
fn a_verdict_keeps_its_beginning_while_only_its_words_change() {
    let s = Given::prompted().story().yes("ann").authorized().pushed();
    let s = s.at(T0 + 1).seen(Verdict::Failed).at(T0 + 9).seen(Verdict::Failed);
    assert_eq!(s.c.seen.as_ref().unwrap().since, T0 + 1);
    let s = s.at(T0 + 10).seen(Verdict::Waiting).at(T0 + 11).seen(Verdict::Failed);
    assert_eq!(s.c.seen.unwrap().since, T0 + 11);
}
