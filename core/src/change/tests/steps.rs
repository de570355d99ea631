//! What comes next.

use serde_json::json;

use super::given::*;
use crate::change::{Limits, Step, WaitFor, next};
use crate::error::Problem;
use crate::model::{Body, Code, Delivery, Effect, Ending, Level, Obligations, Verdict};

const L: Limits = Limits {
    observe_ms: 900_000,
    failed_grace_ms: 20_000,
    deliver_ms: 600_000,
    manual_ms: 86_400_000,
    poll_ms: 15_000,
    held_ms: 0,
};

fn step(s: &Story, now: i64) -> Step {
    next(&s.c, now, false, &L)
}

fn close_of(step: Step) -> (Ending, String) {
    match step {
        Step::Close(ending, say) => (ending, say),
        other => panic!("{other:?}"),
    }
}

fn asked(g: &Given) -> Story {
    g.approvers.iter().fold(g.story(), |s, p| s.done(ask(p), json!({"message_id": 1})))
}

#[test]
fn everybody_is_asked_and_then_waited_for() {
    let s = Given::prompted().story();
    assert_eq!(step(&s, T0), Step::Do(ask("ann")));
    let s = s.done(ask("ann"), json!({"message_id": 1}));
    assert_eq!(step(&s, T0), Step::Do(ask("bob")));
    let s = s.done(ask("bob"), json!({"message_id": 2}));
    assert_eq!(step(&s, T0), Step::Wait(WaitFor::Approval, EXPIRES));
}

#[test]
fn a_card_that_cannot_be_sent_does_not_hold_up_the_next() {
    let s = Given::prompted().story().failed(ask("ann"), false);
    assert_eq!(step(&s, T0), Step::Do(ask("bob")));
    let s = s.done(ask("bob"), json!({}));
    assert_eq!(step(&s, T0), Step::Wait(WaitFor::Approval, T0 + 1000), "ann's next try");
    assert_eq!(step(&s, T0 + 1000), Step::Do(ask("ann")));
    let s = s.at(T0 + 1000).failed(ask("ann"), true);
    assert_eq!(step(&s, T0 + 900_000), Step::Wait(WaitFor::Approval, EXPIRES), "given up");
}

#[test]
fn pauses_double_up_to_a_minute() {
    let mut s = Given::prompted().story().done(ask("bob"), json!({}));
    for pause in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        s = s.failed(ask("ann"), false);
        let again = s.at + pause * 1000;
        assert_eq!(step(&s, again - 1), Step::Wait(WaitFor::Approval, again));
        assert_eq!(step(&s, again), Step::Do(ask("ann")));
        s.at = again;
    }
}

#[test]
fn a_missing_result_is_always_asked_of_the_world_first() {
    let asking = Given::prompted().story().then(intent(&ask("ann")));
    let pushing = Given::prompted().story().yes("ann").authorized().then(intent(&Effect::PushTarget));
    for (s, e) in [(asking, ask("ann")), (pushing, Effect::PushTarget)] {
        for (now, stopped) in [(T0, false), (T0, true), (EXPIRES + 1, false), (i64::MAX / 4, true)] {
            assert_eq!(next(&s.c, now, stopped, &L), Step::Recover(e.clone()));
        }
    }
    let ended = Given::prompted().story().then(intent(&ask("ann"))).closed(Ending::Cancelled);
    assert_eq!(step(&ended, T0), Step::Recover(ask("ann")));
}

#[test]
fn the_quorum_is_what_asks_the_gate() {
    let g = Given { count: 2, ..Given::prompted() };
    let s = asked(&g).yes("ann");
    let shown = ["ann", "bob"].iter().fold(s.clone(), |s, p| s.done(settle(p, "v1"), json!({})));
    assert_eq!(step(&shown, T0), Step::Wait(WaitFor::Approval, EXPIRES));
    assert_eq!(step(&s.yes("bob"), T0), Step::Authorize, "before any card is edited");
    let none = Given { count: 0, ..Given::prompted() };
    assert_eq!(step(&asked(&none), T0), Step::Wait(WaitFor::Approval, EXPIRES), "zero never suffices");
}

#[test]
fn a_vote_on_something_else_does_not_count() {
    let s = asked(&Given::prompted());
    let other = crate::model::Digest("00".repeat(32));
    let s = s.then(vote(&other, "ann", true));
    assert_eq!(step(&s, T0), Step::Wait(WaitFor::Approval, EXPIRES));
}

#[test]
fn one_no_beats_any_number_of_yes_and_the_clock() {
    let s = asked(&Given::prompted()).yes("ann").no("bob");
    let (ending, say) = close_of(step(&s, T0));
    assert_eq!((ending, say.as_str()), (Ending::Rejected, "Rejected by bob."));
    assert_eq!(close_of(step(&s, EXPIRES)).0, Ending::Rejected, "a no stays a no after the time");
    let late = asked(&Given::prompted()).yes("ann").authorized().no("ann");
    assert_eq!(close_of(step(&late, T0)).0, Ending::Rejected, "until it leaves, a yes can be taken back");
}

#[test]
fn an_undecided_change_expires_to_the_millisecond() {
    let s = asked(&Given::prompted());
    assert_eq!(step(&s, EXPIRES - 1), Step::Wait(WaitFor::Approval, EXPIRES));
    assert_eq!(close_of(step(&s, EXPIRES)).0, Ending::Expired);
    let in_time = s.yes("ann");
    assert_eq!(close_of(step(&in_time, EXPIRES)).0, Ending::Expired, "enough votes, but the gate came too late");
    let unasked = Given::new(Level::Standard, Delivery::Direct).story();
    assert_eq!(close_of(step(&unasked, EXPIRES)).0, Ending::Expired);
}

#[test]
fn a_direct_delivery_pushes_and_watches() {
    let s = Given::prompted().story().yes("ann").authorized();
    assert_eq!(step(&s, T0), Step::Do(Effect::PushTarget));
    assert_eq!(step(&s, EXPIRES - 3_000_001), Step::Do(Effect::PushTarget));
    let s = s.pushed();
    assert_eq!(step(&s, T0), Step::Do(Effect::Hint));
    let s = s.done(Effect::Hint, json!({}));
    assert_eq!(step(&s, T0), Step::Observe(T0 + L.observe_ms));
    assert_eq!(close_of(step(&s.seen(Verdict::Healthy), T0)).0, Ending::Healthy);
}

#[test]
fn an_engine_that_has_not_noticed_the_commit_is_asked_once_more() {
    let s = Given::prompted().story().yes("ann").authorized().pushed();
    let sent = s.clone().done(Effect::Hint, json!({"sent": true}));
    let (again, end) = (T0 + 30_000, T0 + L.observe_ms);
    for unnoticed in [sent.clone(), sent.clone().coded(Verdict::Waiting, Code::NotNoticed)] {
        assert_eq!(step(&unnoticed, again - 1), Step::Observe(again));
        assert_eq!(step(&unnoticed, again), Step::Do(Effect::HintAgain));
        let twice = unnoticed.done(Effect::HintAgain, json!({"sent": true}));
        assert_eq!(step(&twice, again), Step::Observe(end), "and then it looks in its own time");
    }
    assert_eq!(step(&sent.clone().coded(Verdict::Waiting, Code::Syncing), again), Step::Observe(end), "it is at work");
    let refused = s.clone().done(Effect::Hint, json!({"refused": "the cluster does not permit it"}));
    assert_eq!(step(&refused, again - 1), Step::Observe(again), "its authorizer may not have read its roles yet");
    assert_eq!(step(&refused, again), Step::Do(Effect::HintAgain));
    let for_good = refused.done(Effect::HintAgain, json!({"refused": "the cluster does not permit it"}));
    assert_eq!(step(&for_good, again), Step::Observe(end), "the engine polls by itself");
    let mut late = s.clone();
    late.at = again;
    let late = late.done(Effect::Hint, json!({"refused": "the cluster does not permit it"}));
    assert_eq!(step(&late, again), Step::Observe(again + 30_000), "from when it was asked, however late that was");
    let skipped = s.done(Effect::Hint, json!({"skipped": "hints are off: the engine polls by itself"}));
    assert_eq!(step(&skipped, again), Step::Observe(end));
}

#[test]
fn an_engine_that_could_not_be_asked_is_asked_for_as_long_as_the_change_is_watched() {
    let mut away = Given::prompted().story().yes("ann").authorized().pushed();
    for _ in 0..9 {
        assert_eq!(step(&away, away.at), Step::Do(Effect::Hint), "the API server may be back");
        away = away.failed_for_now(Effect::Hint);
        let again = match step(&away, away.at) {
            Step::Observe(at) => at,
            other => panic!("{other:?}"),
        };
        assert!(again > away.at && again <= away.at + 60_000, "watched meanwhile, but not until the end");
        away.at = again;
    }
    assert_eq!(close_of(step(&away, T0 + L.observe_ms)).0, Ending::TimedOut, "not for ever");
}

#[test]
fn a_merge_after_approval_goes_through_its_pull_request() {
    let s = Given::new(Level::Prompted, Delivery::MergeAfterApproval).story().yes("ann").authorized();
    assert_eq!(step(&s, T0), Step::Do(Effect::PushBranch));
    let s = s.done(Effect::PushBranch, json!({"commit": "c1"}));
    assert_eq!(step(&s, T0), Step::Do(Effect::OpenPullRequest));
    let s = s.done(Effect::OpenPullRequest, json!({"number": 1}));
    assert_eq!(step(&s, T0), Step::Do(Effect::Merge));
}

#[test]
fn a_pull_request_is_opened_by_us_and_merged_by_a_person() {
    let g = Given::new(Level::Prompted, Delivery::PullRequest);
    assert_eq!(step(&g.story(), T0), Step::Authorize, "no vote, but the gate");
    let s = g.story().authorized();
    assert_eq!(step(&s, T0), Step::Do(Effect::PushBranch));
    let s = s.done(Effect::PushBranch, json!({"commit": "c1"}));
    assert_eq!(step(&s, T0), Step::Do(Effect::OpenPullRequest));
    let s = s.done(Effect::OpenPullRequest, json!({"number": 1}));
    assert_eq!(step(&s, T0), Step::Do(notify("tom", "proposed")));
    let s = s.done(notify("tom", "proposed"), json!({}));
    assert_eq!(step(&s, T0), Step::PollMerge(T0 + L.poll_ms));
    assert_eq!(step(&s, EXPIRES - 1), Step::PollMerge(EXPIRES));
    assert_eq!(close_of(step(&s, EXPIRES)).0, Ending::Expired);
    let s = s.closed(Ending::Expired);
    assert_eq!(step(&s, EXPIRES), Step::Do(Effect::ClosePullRequest));
    let kept = s.clone().failed(Effect::ClosePullRequest, true);
    assert_eq!(step(&kept, EXPIRES), Step::Finished, "the branch of an open pull request stays");
    let s = s.done(Effect::ClosePullRequest, json!({}));
    assert_eq!(step(&s, EXPIRES), Step::Do(Effect::DeleteBranch));
    let s = s.done(Effect::DeleteBranch, json!({}));
    assert_eq!(step(&s, EXPIRES), Step::Finished);
}

#[test]
fn a_forge_that_asks_to_wait_is_left_alone_that_long_and_no_longer_than_a_delivery_takes() {
    let limited = |s: u64| Problem::new("forge.rate_limited", "", "").later().retry_after(s);
    let failed = |s: Story, problem: Problem| {
        s.then(intent(&Effect::OpenPullRequest)).then(Body::Failed {
            effect: Effect::OpenPullRequest,
            problem,
            last: false,
        })
    };
    let pushed = Given::new(Level::Prompted, Delivery::PullRequest).story().authorized();
    let pushed = pushed.done(Effect::PushBranch, json!({"commit": "c1"}));
    let s = failed(pushed.clone(), limited(30));
    let at = s.c.effect(&Effect::OpenPullRequest).map(|e| e.failed_at).unwrap();
    assert_eq!(step(&s, at + 29_999), Step::Wait(WaitFor::Retry, at + 30_000));
    assert_eq!(step(&s, at + 30_000), Step::Do(Effect::OpenPullRequest));
    assert_eq!(step(&failed(pushed.clone(), limited(0)), at), Step::Wait(WaitFor::Retry, at + 1000), "our own pause");
    let s = failed(pushed, limited(u64::MAX));
    let until = s.c.authorized.as_ref().map(|(_, since)| since + L.deliver_ms).unwrap();
    assert_eq!(step(&s, at), Step::Wait(WaitFor::Retry, until));
    assert_eq!(close_of(step(&s, until)).0, Ending::Undelivered);
}

#[test]
fn a_merged_pull_request_is_not_closed_again() {
    let s = Given::new(Level::Prompted, Delivery::PullRequest).story().authorized();
    let s = s
        .done(Effect::PushBranch, json!({"commit": "c1"}))
        .done(Effect::OpenPullRequest, json!({"number": 1}))
        .landed();
    assert_ne!(step(&s, T0), Step::Do(Effect::DeleteBranch), "not before the end");
    let s = s.closed(Ending::Healthy);
    assert_eq!(step(&s, T0), Step::Do(Effect::DeleteBranch));
    assert_eq!(next(&s.c, T0, true, &L), Step::Wait(WaitFor::Retry, i64::MAX), "the stop holds it back");
    assert_eq!(step(&s.done(Effect::DeleteBranch, json!({})), T0), Step::Finished);
}

#[test]
fn standard_asks_nobody_and_tells_at_the_end() {
    let s = Given::new(Level::Standard, Delivery::Direct).story();
    assert_eq!(step(&s, T0), Step::Authorize);
    assert_eq!(next(&s.c, T0, true, &L), Step::Wait(WaitFor::Resume, i64::MAX));
    let s = s.authorized().pushed().done(Effect::Hint, json!({})).seen(Verdict::Healthy).closed(Ending::Healthy);
    assert_eq!(step(&s, T0), Step::Do(notify("tom", "ended")));
    assert_eq!(step(&s.done(notify("tom", "ended"), json!({})), T0), Step::Finished);
}

#[test]
fn manual_only_watches_for_a_persons_commit() {
    let s = Given::new(Level::Manual, Delivery::Direct).story().done(notify("tom", "proposed"), json!({}));
    assert_eq!(step(&s, T0), Step::PollCommit(T0 + L.poll_ms));
    assert_eq!(step(&s, T0 + L.manual_ms - 1), Step::PollCommit(T0 + L.manual_ms));
    assert_eq!(close_of(step(&s, T0 + L.manual_ms)).0, Ending::Abandoned);
    let s = s.landed();
    assert_eq!(step(&s, T0), Step::Do(Effect::Hint), "a found commit is watched like any other");
}

#[test]
fn telling_people_is_tried_eight_times_and_then_left() {
    let mut s = Given::new(Level::Manual, Delivery::Direct).story();
    for _ in 0..8 {
        assert_eq!(step(&s, s.at), Step::Do(notify("tom", "proposed")));
        s = s.failed(notify("tom", "proposed"), false);
        assert!(matches!(step(&s, s.at), Step::PollCommit(_)), "meanwhile the branch is watched");
        s.at += 60_000;
    }
    assert!(matches!(step(&s, s.at), Step::PollCommit(_)));
}

#[test]
fn a_push_given_up_or_too_late_ends_undelivered() {
    let s = Given::prompted().story().yes("ann").authorized();
    let refused = s.clone().failed(Effect::PushTarget, true);
    assert_eq!(close_of(step(&refused, T0)), (Ending::Undelivered, "Not delivered: It broke.".into()));
    let failing = s.clone().failed(Effect::PushTarget, false);
    assert_eq!(step(&failing, T0 + 999), Step::Wait(WaitFor::Retry, T0 + 1000));
    assert_eq!(step(&failing, T0 + 1000), Step::Do(Effect::PushTarget));
    assert_eq!(step(&failing, T0 + L.deliver_ms - 1), Step::Do(Effect::PushTarget));
    assert_eq!(
        close_of(step(&failing, T0 + L.deliver_ms)),
        (Ending::Undelivered, "Not delivered in time: It broke.".into())
    );
    assert_eq!(close_of(step(&s, T0 + L.deliver_ms)).0, Ending::Undelivered);
    let ended = s.closed(Ending::Undelivered);
    assert_eq!(step(&ended, T0), Step::Do(notify("ann", "ended")), "who was asked is told that nothing came of it");
}

#[test]
fn failed_must_stand_for_the_grace_time() {
    let s = Given::prompted()
        .story()
        .yes("ann")
        .authorized()
        .pushed()
        .done(Effect::Hint, json!({}))
        .at(T0 + 100)
        .seen(Verdict::Failed);
    assert_eq!(step(&s, T0 + 100), Step::Observe(T0 + 100 + L.failed_grace_ms));
    assert_eq!(step(&s, T0 + 99 + L.failed_grace_ms), Step::Observe(T0 + 100 + L.failed_grace_ms));
    assert_eq!(close_of(step(&s, T0 + 100 + L.failed_grace_ms)).0, Ending::Failed);
    let back = s.at(T0 + 5000).seen(Verdict::Waiting);
    assert_eq!(step(&back, T0 + 100 + L.failed_grace_ms), Step::Observe(T0 + L.observe_ms), "the engine took it back");
}

#[test]
fn a_failure_just_before_the_deadline_still_gets_its_grace_and_never_spins() {
    let late = T0 + L.observe_ms - 1;
    let s = Given::prompted()
        .story()
        .yes("ann")
        .authorized()
        .pushed()
        .done(Effect::Hint, json!({}))
        .at(late)
        .seen(Verdict::Failed);
    assert_eq!(step(&s, late + 1), Step::Observe(late + L.failed_grace_ms));
    assert_eq!(close_of(step(&s, late + L.failed_grace_ms)).0, Ending::Failed);
    let back = s.at(late + 2).seen(Verdict::Waiting);
    assert_eq!(close_of(step(&back, late + 2)).0, Ending::TimedOut);
}

#[test]
fn no_verdict_in_time_is_a_timeout_and_supersession_an_end() {
    let s = Given::prompted().story().yes("ann").authorized().pushed().done(Effect::Hint, json!({}));
    assert_eq!(step(&s, T0 + L.observe_ms - 1), Step::Observe(T0 + L.observe_ms));
    let (ending, say) = close_of(step(&s, T0 + L.observe_ms));
    assert_eq!(ending, Ending::TimedOut);
    assert!(say.contains("never noticed"), "{say}");
    assert!(close_of(step(&s.clone().seen(Verdict::Waiting), T0 + L.observe_ms)).1.ends_with("last seen: so"));
    assert_eq!(close_of(step(&s.seen(Verdict::Superseded), T0)).0, Ending::Superseded);
}

fn wants_revert(s: Story) -> Story {
    s.then(Body::RevertAsked { person: "ann".into() })
}

#[test]
fn a_revert_is_prepared_when_a_person_wants_it_once_and_never_of_a_revert() {
    let ended = |g: &Given, ending| {
        let s = g.story().yes("ann").authorized().pushed().closed(ending);
        g.approvers.iter().chain(&g.tell).fold(s, |s, p| s.done(notify(p, "ended"), json!({})))
    };
    let g = Given::prompted();
    for ending in [Ending::Failed, Ending::TimedOut] {
        let s = ended(&g, ending);
        assert_eq!(step(&s, T0), Step::Observe(T0 + L.observe_ms), "it may succeed after all");
        assert_eq!(step(&s, T0 + L.observe_ms), Step::Finished);
        let wanted = wants_revert(s);
        assert_eq!(step(&wanted, T0), Step::PrepareRevert);
        assert!(wanted.attempt(Body::RevertAsked { person: "bob".into() }).is_err(), "once");
        assert_ne!(next(&wanted.c, T0, true, &L), Step::PrepareRevert, "not during a stop");
        let none = wanted.then(Body::RevertPrepared { change: id(), say: Some("a later commit".into()) });
        assert_eq!(step(&none, T0), Step::Do(notify("ann", "no_revert")));
        assert_eq!(step(&none.done(notify("ann", "no_revert"), json!({})), T0), Step::Finished);
    }
    for ending in [Ending::Healthy, Ending::Superseded] {
        let s = ended(&g, ending);
        assert_eq!(step(&s, T0), Step::Finished);
        assert!(s.attempt(Body::RevertAsked { person: "ann".into() }).is_err());
    }
    let revert = Given { reverts: Some(id()), ..Given::prompted() };
    let s = ended(&revert, Ending::Failed);
    assert_eq!(step(&s, T0), Step::Finished);
    assert!(s.attempt(Body::RevertAsked { person: "ann".into() }).is_err());
}

#[test]
fn what_an_engine_holds_back_is_told_once_and_can_be_reverted_meanwhile() {
    let s = Given::prompted().story().yes("ann").authorized().pushed().done(Effect::Hint, json!({}));
    let held = s.then(Body::Observed { verdict: Verdict::Waiting, code: Code::SyncWindow, say: "closed".into() });
    let from = T0 + L.failed_grace_ms;
    assert_eq!(step(&held, T0), Step::Observe(from), "perhaps only for a moment");
    assert_eq!(step(&held, from), Step::Do(notify("ann", "held")));
    let told = ["ann", "bob", "tom"].iter().fold(held, |s, p| s.done(notify(p, "held"), json!({})));
    assert_eq!(step(&told, from), Step::Observe(T0 + L.observe_ms));
    let wanted = wants_revert(told);
    assert_eq!(step(&wanted, from), Step::PrepareRevert);
    let offer = crate::model::ChangeId::from_parts(7, 7);
    let open = wanted.then(Body::RevertPrepared { change: offer, say: None });
    assert_eq!(step(&open, from), Step::Observe(T0 + L.observe_ms));
    let through = open.seen(Verdict::Healthy).closed(Ending::Healthy);
    assert_eq!(step(&through, from), Step::WithdrawRevert, "the engine got on with it");
}

#[test]
fn whoever_did_not_decide_is_reminded_and_whoever_did_is_not() {
    let g = Given {
        obligations: Obligations { remind_s: Some(300), ..Obligations::default() },
        count: 2,
        ..Given::prompted()
    };
    let s = asked(&g);
    let minute = 60_000;
    assert_eq!(step(&s, T0), Step::Wait(WaitFor::Approval, T0 + 5 * minute));
    assert_eq!(step(&s, T0 + 5 * minute), Step::Do(notify("ann", "remind1")));
    let s = s.done(notify("ann", "remind1"), json!({})).yes("bob").done(settle("ann", "v1"), json!({}));
    let s = s.done(settle("bob", "v1"), json!({}));
    assert_eq!(step(&s, T0 + 5 * minute), Step::Wait(WaitFor::Approval, T0 + 10 * minute), "Bob has decided");
    assert_eq!(step(&s, T0 + 27 * minute), Step::Do(notify("ann", "remind5")), "missed ones are not made up for");
    let unreachable = g.story().done(ask("ann"), json!({"skipped": "no Telegram"})).done(ask("bob"), json!({}));
    assert_eq!(step(&unreachable, T0 + 20 * minute), Step::Wait(WaitFor::Approval, EXPIRES));
}

#[test]
fn the_next_group_is_asked_once_the_first_did_not_decide_in_time() {
    let obligations = Obligations { remind_s: Some(1200), escalate: vec![later("bob")], confirm: None };
    let g = Given { obligations, ..Given::prompted() };
    let s = g.story().done(ask("ann"), json!({"message_id": 1}));
    assert_eq!(step(&s, T0), Step::Wait(WaitFor::Approval, T0 + 600_000));
    assert_eq!(step(&s, T0 + 599_999), Step::Wait(WaitFor::Approval, T0 + 600_000));
    assert_eq!(step(&s, T0 + 600_000), Step::Do(ask("bob")));
    let s = s.at(T0 + 600_000).done(ask("bob"), json!({"message_id": 2}));
    assert_eq!(step(&s, T0 + 1_200_000), Step::Do(notify("ann", "remind1")));
    let s = s.done(notify("ann", "remind1"), json!({}));
    assert_eq!(step(&s, T0 + 1_200_000), Step::Wait(WaitFor::Approval, T0 + 1_800_000), "Bob's time began later");
    assert_eq!(step(&s.clone().yes("bob"), T0 + 1_200_000), Step::Authorize);
    let early = g.story().done(ask("ann"), json!({"message_id": 1})).yes("ann");
    assert_eq!(step(&early, T0), Step::Authorize, "nobody else is asked");
}

#[test]
fn a_card_shows_the_votes_of_others_and_the_numbers_of_whoever_must_pick_one() {
    let g = Given { count: 2, ..Given::prompted() };
    let press =
        |action: &str| Body::Pressed { update: 1, callback: "1".into(), person: "ann".into(), action: action.into() };
    let s = asked(&g).then(press("armed"));
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "v0n0")));
    let s = s.done(settle("ann", "v0n0"), json!({})).then(press("armed"));
    assert_eq!(step(&s, T0), Step::Wait(WaitFor::Approval, EXPIRES), "pressing twice draws no new numbers");
    let s = s.then(press("wrong_number"));
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "v0n1")));
    let s = s.done(settle("ann", "v0n1"), json!({})).yes("ann");
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "v1")));
    let s = s.done(settle("ann", "v1"), json!({}));
    assert_eq!(step(&s, T0), Step::Do(settle("bob", "v1")));
    let mut gone = s;
    for _ in 0..8 {
        gone = gone.failed(settle("bob", "v1"), false);
        gone.at += 60_000;
    }
    assert_eq!(step(&gone, gone.at), Step::Wait(WaitFor::Approval, EXPIRES), "a card that cannot be edited is left");
}

#[test]
fn a_card_that_is_found_late_is_kept_up_to_date_like_the_other() {
    let found = |message_id| Body::CardFound { person: "ann".into(), message_id };
    let s = Given::prompted().story().done(ask("ann"), json!({"message_id": 2})).done(ask("bob"), json!({}));
    let armed = Body::Pressed { update: 1, callback: "1".into(), person: "ann".into(), action: "armed".into() };
    let known = s.clone().then(found(2));
    assert_eq!(step(&known, T0), Step::Wait(WaitFor::Approval, EXPIRES), "it is the one that was sent");
    let s = s.then(found(1)).then(armed);
    assert_eq!(s.c.cards_of("ann"), [2, 1]);
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "v0n0s1")));
    let s = s.done(settle("ann", "v0n0s1"), json!({})).no("ann").closed(Ending::Rejected);
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "closeds1")));
    let s = s.done(settle("ann", "closeds1"), json!({})).then(found(7));
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "closeds2")), "also after the end");
}

#[test]
fn everybody_else_is_told_of_a_broken_glass_before_anything_leaves() {
    let g = Given { count: 2, ..Given::prompted() };
    let broken = Body::GlassBroken { person: "ann".into(), reason: "x".into(), until: T0 + 9, proof: String::new() };
    let s = asked(&g).then(broken.clone());
    assert!(matches!(step(&s, T0), Step::Wait(WaitFor::Approval, _)), "their yes is still missing");
    let s = s.yes("ann");
    assert_eq!(step(&s, T0), Step::Do(notify("bob", "glass")));
    let s = s.failed_for_now(notify("bob", "glass"));
    assert_eq!(step(&s, T0), Step::Do(notify("tom", "glass")), "one who cannot be told holds nothing up");
    let s = s.done(notify("tom", "glass"), json!({}));
    assert_eq!(step(&s, T0), Step::Authorize);
    assert!(s.attempt(broken.clone()).is_err(), "it is broken");
    let review = |who: &str| Body::Reviewed { person: who.into(), note: "right".into(), proof: String::new() };
    assert!(s.attempt(review("ann")).is_err(), "not by the one who broke it");
    let reviewed = s.clone().then(review("bob"));
    assert!(reviewed.attempt(review("tom")).is_err(), "once");
    assert!(g.story().attempt(review("bob")).is_err(), "nothing was broken");
    for other in [Given::new(Level::Standard, Delivery::Direct), Given::new(Level::Prompted, Delivery::PullRequest)] {
        assert!(other.story().attempt(broken.clone()).is_err(), "no yes is waited for");
    }
    let authorized = |by: &[&str], at: i64| {
        let body = Body::Authorized { digest: s.c.digest.clone(), by: names(by), policy_version: "p1".into() };
        s.clone().at(at).attempt(body)
    };
    assert!(authorized(&["ann"], T0 + 8).is_ok());
    assert!(authorized(&["ann"], T0 + 9).is_err(), "it has lapsed");
    assert!(authorized(&["bob"], T0 + 8).is_err(), "hers alone");
}

#[test]
fn a_no_ends_it_at_once_and_its_reason_comes_after() {
    let s = asked(&Given::prompted()).no("ann");
    assert_eq!(close_of(step(&s, T0)).0, Ending::Rejected, "no reason is waited for");
    let s =
        s.closed(Ending::Rejected).done(settle("ann", "closed"), json!({})).done(settle("bob", "closed"), json!({}));
    assert_eq!(step(&s, T0), Step::Finished);
    assert!(s.attempt(Body::Reasoned { person: "bob".into(), reason: Some("x".into()) }).is_err(), "Bob said nothing");
    let asked_why = s.then(Body::Reasoned { person: "ann".into(), reason: None });
    assert_eq!(step(&asked_why, T0), Step::Do(notify("ann", "why")));
    let s = asked_why.done(notify("ann", "why"), json!({"message_id": 9}));
    let s = s.then(Body::Reasoned { person: "ann".into(), reason: Some("too late".into()) });
    assert_eq!(s.c.rejection().and_then(|v| v.reason.clone()).as_deref(), Some("too late"));
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "reason1")));
    let s = s.done(settle("ann", "reason1"), json!({})).done(settle("bob", "reason1"), json!({}));
    assert_eq!(step(&s, T0), Step::Finished);
}

#[test]
fn an_expired_change_is_asked_about_again_when_a_person_wants_it_and_once() {
    let s = asked(&Given::prompted()).closed(Ending::Expired);
    let s = ["ann", "bob"].iter().fold(s, |s, p| s.done(settle(p, "closed"), json!({})));
    assert_eq!(step(&s, EXPIRES), Step::Finished);
    let s = s.then(Body::AgainAsked { person: "bob".into() });
    assert_eq!(step(&s, EXPIRES), Step::AskAgain);
    assert_eq!(next(&s.c, EXPIRES, true, &L), Step::Finished, "not during a stop");
    let s = s.then(Body::AgainPrepared { change: Some(crate::model::ChangeId::from_parts(7, 7)), say: String::new() });
    assert_eq!(step(&s, EXPIRES), Step::Do(settle("ann", "again")));
    let s = ["ann", "bob"].iter().fold(s, |s, p| s.done(settle(p, "again"), json!({})));
    assert_eq!(step(&s, EXPIRES), Step::Finished);
}

#[test]
fn a_late_healthy_takes_the_offered_revert_back_once() {
    let offer = crate::model::ChangeId::from_parts(7, 7);
    let g = Given::prompted();
    let failed = g.story().yes("ann").authorized().pushed().closed(Ending::Failed);
    let told = g.approvers.iter().chain(&g.tell).fold(failed, |s, p| s.done(notify(p, "ended"), json!({})));
    let offered = told.then(crate::model::Body::RevertPrepared { change: offer, say: None });
    assert!(
        offered.attempt(crate::model::Body::RevertPrepared { change: offer, say: None }).is_err(),
        "there is one offer"
    );
    let healthy = offered.then(crate::model::Body::Observed {
        verdict: Verdict::Healthy,
        code: Code::Healthy,
        say: String::new(),
    });
    assert_eq!(step(&healthy, T0), Step::WithdrawRevert);
    let back = healthy.then(crate::model::Body::RevertPrepared { change: id(), say: None });
    assert_eq!(step(&back, T0), Step::Finished, "nobody had a message that offers it");
    let unpressed = {
        let failed = g.story().yes("ann").authorized().pushed().closed(Ending::Failed);
        let told =
            ["ann", "bob", "tom"].iter().fold(failed, |s, p| s.done(notify(p, "ended"), json!({"message_id": 4})));
        told.then(observed(Verdict::Healthy))
    };
    assert_eq!(step(&unpressed, T0), Step::WithdrawRevert, "the button is an offer too");
    let over = unpressed.then(crate::model::Body::RevertPrepared { change: id(), say: None });
    assert_eq!(step(&over, T0), Step::Do(notify("ann", "late")));
    assert!(over.attempt(Body::RevertAsked { person: "ann".into() }).is_err(), "nothing is left to undo");
    assert!(
        back.attempt(crate::model::Body::RevertPrepared { change: offer, say: None }).is_err(),
        "and never another"
    );
}

#[test]
fn cards_get_their_last_words_only_where_there_is_a_card() {
    let s = Given::prompted()
        .story()
        .done(ask("ann"), json!({"message_id": 5}))
        .failed(ask("bob"), true)
        .closed(Ending::Cancelled);
    assert_eq!(step(&s, T0), Step::Do(settle("ann", "closed")));
    let s = s.done(settle("ann", "closed"), json!({}));
    assert_eq!(step(&s, T0), Step::Finished);
}

#[test]
fn whoever_may_hold_a_card_that_cannot_be_edited_is_told_the_end_in_a_new_message() {
    let s = Given::prompted()
        .story()
        .done(ask("ann"), json!({"message_id": 5}))
        .failed(ask("bob"), false)
        .closed(Ending::Cancelled);
    let s = s.done(settle("ann", "closed"), json!({}));
    assert_eq!(step(&s, T0), Step::Do(notify("bob", "ended")));
    assert_eq!(step(&s.done(notify("bob", "ended"), json!({})), T0), Step::Finished);
}

#[test]
fn the_stop_holds_back_everything_that_leaves() {
    let prompted = Given::prompted().story();
    assert_eq!(next(&prompted.c, T0, true, &L), Step::Wait(WaitFor::Approval, EXPIRES));
    let yes = prompted.yes("ann");
    assert_eq!(next(&yes.c, T0, true, &L), Step::Wait(WaitFor::Resume, EXPIRES), "the gate would refuse");
    let cleared = yes.authorized();
    assert_eq!(next(&cleared.c, T0, true, &L), Step::Wait(WaitFor::Resume, EXPIRES));
    let out = cleared.pushed();
    assert_eq!(next(&out.c, T0, true, &L), Step::Observe(T0 + L.observe_ms), "looking is allowed");
}

#[test]
fn the_time_under_a_stop_does_not_count_but_the_approval_expires_all_the_same() {
    let s = Given::prompted().story().yes("ann").authorized().failed(Effect::PushTarget, false);
    let held = Limits { held_ms: 1_000_000, ..L };
    let late = T0 + L.deliver_ms + 1;
    assert_eq!(close_of(step(&s, late)).0, Ending::Undelivered, "without a stop");
    assert_eq!(next(&s.c, late, false, &held), Step::Do(Effect::PushTarget));
    assert_eq!(next(&s.c, late, true, &held), Step::Wait(WaitFor::Resume, EXPIRES));
    for stopped in [true, false] {
        let (ending, say) = close_of(next(&s.c, EXPIRES, stopped, &held));
        assert!(ending == Ending::Expired && say.contains("emergency stop"), "{say}");
    }
}
