//! Random histories: `next` is total and keeps to what it may name; every change comes to an end.

use proptest::prelude::*;
use serde_json::json;

use super::given::*;
use crate::change::{Change, Limits, State, Step, fold, next};
use crate::model::{Body, Delivery, Digest, Effect, Ending, Level, Obligations, Verdict};

const L: Limits = Limits {
    observe_ms: 900_000,
    failed_grace_ms: 20_000,
    deliver_ms: 600_000,
    manual_ms: 86_400_000,
    poll_ms: 15_000,
    held_ms: 0,
};

const VERDICTS: [Verdict; 4] = [Verdict::Waiting, Verdict::Healthy, Verdict::Failed, Verdict::Superseded];

fn given() -> impl Strategy<Value = Given> {
    let level = prop_oneof![4 => Just(Level::Prompted), 1 => Just(Level::Standard), 1 => Just(Level::Manual)];
    let delivery = prop_oneof![Just(Delivery::Direct), Just(Delivery::MergeAfterApproval), Just(Delivery::PullRequest)];
    (level, delivery, 0_u32..3, any::<bool>()).prop_map(|(level, delivery, count, revert)| Given {
        count,
        reverts: revert.then(id),
        obligations: Obligations {
            remind_s: (count == 2).then_some(300),
            escalate: if count == 1 { vec![later("bob")] } else { Vec::new() },
            confirm: None,
        },
        // The policy refuses this pair; a rule that says it never loads.
        delivery: if level == Level::Standard && delivery == Delivery::PullRequest {
            Delivery::MergeAfterApproval
        } else {
            delivery
        },
        ..Given::new(level, delivery)
    })
}

fn effects() -> Vec<Effect> {
    vec![
        ask("ann"),
        ask("bob"),
        Effect::PushTarget,
        Effect::PushBranch,
        Effect::OpenPullRequest,
        Effect::Merge,
        Effect::ClosePullRequest,
        Effect::DeleteBranch,
        Effect::Hint,
        Effect::HintAgain,
        settle("ann", "decided"),
        settle("ann", "closed"),
        settle("ann", "v1"),
        settle("bob", "v0n1"),
        notify("ann", "remind1"),
        notify("ann", "held"),
        notify("tom", "proposed"),
        notify("tom", "ended"),
    ]
}

/// Every event that could be written now, legal or not; `fold` sorts them out.
fn pool(c: &Change) -> Vec<Body> {
    let mut out = Vec::new();
    for e in effects() {
        out.push(intent(&e));
        out.push(Body::Done { effect: e.clone(), result: result(&e) });
        out.push(failed(&e, false));
        out.push(failed(&e, true));
    }
    for p in ["ann", "bob", "sue"] {
        out.push(vote(&c.digest, p, true));
        out.push(vote(&c.digest, p, false));
        out.push(vote(&Digest("00".into()), p, true));
    }
    for action in ["armed", "wrong_number"] {
        out.push(Body::Pressed { update: 1, callback: "1".into(), person: "ann".into(), action: action.into() });
    }
    let (reason, proof) = (String::new(), String::new());
    out.push(Body::GlassBroken { person: "ann".into(), reason, until: T0 + 60_000, proof: proof.clone() });
    out.push(Body::Reviewed { person: "bob".into(), note: String::new(), proof });
    out.push(Body::CardFound { person: "ann".into(), message_id: i64::try_from(c.n % 3).unwrap() });
    for reason in [None, Some("Not now".to_owned())] {
        out.push(Body::Reasoned { person: "ann".into(), reason });
    }
    out.extend([Body::AgainAsked { person: "ann".into() }, Body::RevertAsked { person: "bob".into() }]);
    out.push(Body::AgainPrepared { change: None, say: "why".into() });
    out.extend(VERDICTS.map(observed));
    out.push(closed([Ending::Healthy, Ending::Failed, Ending::Cancelled, Ending::Stale][c.n as usize % 4]));
    out.extend([
        authorized(c),
        landed(),
        Body::Rebased { base: "b1".into() },
        Body::RevertPrepared { change: id(), say: None },
    ]);
    out
}

fn result(e: &Effect) -> serde_json::Value {
    match e {
        Effect::Ask { .. } => json!({"message_id": 1}),
        Effect::OpenPullRequest => json!({"number": 7, "url": "u"}),
        _ => json!({"commit": "c1"}),
    }
}

fn leaves(e: &Effect) -> bool {
    matches!(e, Effect::PushTarget | Effect::PushBranch | Effect::OpenPullRequest | Effect::Merge)
}

/// What must hold of the step, whatever the history.
fn sound(c: &Change, now: i64, stopped: bool, step: &Step) {
    if let Some((e, _)) = c.dangling() {
        assert_eq!(*step, Step::Recover(e.clone()));
        return;
    }
    match step {
        Step::Recover(e) => panic!("nothing is dangling, but {e:?} is recovered"),
        Step::Do(e) => {
            assert!(!stopped, "{e:?} during a stop");
            assert!(!leaves(e) || c.authorized.is_some(), "{e:?} past the gate");
            assert!(!leaves(e) || c.rejection().is_none(), "{e:?} against a no");
            assert!(c.done(e).is_none(), "{e:?} twice");
            assert!(c.effect(e).is_none_or(|s| !s.given_up), "{e:?} after it was given up");
            if c.end.is_some() {
                assert!(
                    matches!(
                        e,
                        Effect::SettleCard { .. }
                            | Effect::Notify { .. }
                            | Effect::ClosePullRequest
                            | Effect::DeleteBranch
                    ),
                    "{e:?} after the end"
                );
            }
            assert!(!leaves(e) || c.decided.level != Level::Manual, "{e:?} of a manual change");
            match e {
                Effect::PushTarget => assert_eq!(c.decided.delivery, Delivery::Direct),
                Effect::Merge => assert_eq!(c.decided.delivery, Delivery::MergeAfterApproval),
                Effect::ClosePullRequest => assert!(c.end.is_some() && c.landed.is_none()),
                Effect::DeleteBranch => {
                    assert!(c.end.is_some() && c.done(&Effect::PushBranch).is_some());
                    let open = c.done(&Effect::OpenPullRequest).is_some() && c.landed.is_none();
                    assert!(!open || c.done(&Effect::ClosePullRequest).is_some(), "under an open pull request");
                }
                _ => {}
            }
            // What `next` names, the journal takes.
            assert!(fold(Some(c.clone()), &event(c.n + 1, now, intent(e))).is_ok(), "{e:?} is named but illegal");
        }
        Step::Authorize => assert!(
            c.is_open() && c.authorized.is_none() && c.rejection().is_none() && c.decided.level != Level::Manual
        ),
        Step::Close(..) => {
            assert!(c.is_open());
            assert!(c.landed.is_some() || !c.is_leaving(), "closed while a commit is on its way");
        }
        Step::PollMerge(at) | Step::PollCommit(at) | Step::Observe(at) => {
            assert!(c.is_open() || c.is_revertible(), "an ended change is watched only for a late success");
            assert!(*at > now, "a wait until {at} at {now} would spin");
        }
        Step::Wait(_, at) => assert!(*at > now, "a wait until {at} at {now} would spin"),
        Step::WithdrawRevert => {
            assert!(c.end.is_some() && c.seen.as_ref().is_some_and(|s| s.verdict == Verdict::Healthy));
        }
        Step::PrepareRevert => {
            assert!(!stopped && c.landed.is_some() && c.revert_asked.is_some());
            assert!(c.revert.is_none() && c.proposal.reverts.is_none());
        }
        Step::AskAgain => {
            assert!(!stopped && c.again_asked.is_some() && c.again.is_none());
            assert_eq!(c.state(), State::Ended(Ending::Expired));
        }
        Step::Finished => assert!(c.end.is_some()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn next_is_total_and_keeps_to_what_it_may_name(
        g in given(),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0_i64..600_000), 1..60),
    ) {
        let mut s = g.story();
        for (pick, pause) in picks {
            s.at += pause;
            let pool = pool(&s.c);
            let from = pick.index(pool.len());
            let Some(c) = pool.iter().cycle().skip(from).take(pool.len()).find_map(|b| s.attempt(b.clone()).ok()) else {
                prop_assert!(s.c.end.is_some(), "an open change that takes no event is stuck");
                break;
            };
            s.c = c;
            for now in [s.at, s.at + 1, EXPIRES - 1, EXPIRES, s.at + 10_000_000, T0 - 5] {
                for stopped in [false, true] {
                    sound(&s.c, now, stopped, &next(&s.c, now, stopped, &L));
                }
            }
        }
    }

    /// A worker that does what `next` says in a world that answers at random always comes to an end,
    /// with at most one commit on the branch.
    #[test]
    fn every_change_comes_to_an_end(g in given(), luck in prop::collection::vec(0_u8..100, 80), stop_until in 0_usize..40) {
        let mut s = g.story();
        let mut landings = 0;
        let mut finished = false;
        for (i, luck) in luck.iter().chain(std::iter::repeat_n(&0, 800)).enumerate() {
            let stopped = i < stop_until;
            let step = next(&s.c, s.at, stopped, &L);
            sound(&s.c, s.at, stopped, &step);
            let bodies = match step {
                Step::Finished => { finished = true; break }
                // A kill between intent and result, a transient failure, a final one, or success.
                Step::Do(e) if *luck >= 85 => vec![intent(&e)],
                Step::Do(e) if *luck >= 60 => vec![intent(&e), failed(&e, *luck >= 80)],
                Step::Do(e) => [vec![intent(&e)], success(&e)].concat(),
                Step::Recover(e) if *luck >= 50 => vec![failed(&e, false)],
                Step::Recover(e) => success(&e),
                Step::Authorize if *luck >= 90 => vec![closed(Ending::Stale)],
                Step::Authorize => vec![authorized(&s.c)],
                Step::Close(ending, say) => vec![Body::Closed { ending, say }],
                Step::AskAgain => vec![Body::AgainPrepared { change: None, say: "no".into() }],
                Step::PrepareRevert | Step::WithdrawRevert => vec![Body::RevertPrepared { change: id(), say: None }],
                Step::PollMerge(_) | Step::PollCommit(_) if *luck >= 50 => vec![landed()],
                Step::Observe(_) if *luck >= 20 => vec![observed(VERDICTS[usize::from(*luck) % VERDICTS.len()])],
                Step::Wait(crate::change::WaitFor::Approval, _) if *luck >= 30 => {
                    let who = if luck % 2 == 0 { "ann" } else { "bob" };
                    let body = vote(&s.c.digest, who, *luck < 90);
                    if s.attempt(body.clone()).is_ok() { vec![body] } else { Vec::new() }
                }
                Step::PollMerge(at) | Step::PollCommit(at) | Step::Observe(at) | Step::Wait(_, at) => {
                    s.at = if at == i64::MAX { s.at + 1000 } else { at };
                    Vec::new()
                }
            };
            for body in bodies {
                landings += usize::from(matches!(body, Body::Landed { .. }));
                s = s.then(body);
            }
            s.at += 1;
        }
        prop_assert!(finished, "still {:?}, next {:?}", s.c.state(), next(&s.c, s.at, false, &L));
        prop_assert!(matches!(s.c.state(), State::Ended(_)));
        prop_assert!(landings <= 1);
        prop_assert_eq!(landings == 1, s.c.landed.is_some());
    }
}

fn success(e: &Effect) -> Vec<Body> {
    let mut out = vec![Body::Done { effect: e.clone(), result: result(e) }];
    if matches!(e, Effect::PushTarget | Effect::Merge) {
        out.push(landed());
    }
    out
}

#[test]
fn two_of_one_group_wait_and_no_written_in_authorization_lets_them_through() {
    let answers = [("ann", "sre"), ("bob", "sre"), ("zoe", "rel")].map(|(p, g)| (p.to_owned(), names(&[g])));
    let approvers = names(&["ann", "bob", "zoe"]);
    let alike =
        Given { count: 2, approvers, answers: answers.into(), ..Given::prompted() }.story().yes("ann").yes("bob");
    assert_eq!((alike.c.state(), alike.c.counted()), (State::AwaitingApproval, 1));
    assert_eq!(alike.c.still_asked(), ["rel"]);
    assert!(alike.attempt(authorized(&alike.c)).is_err(), "the journal alone shows that it is not enough");
    let stranger = alike.clone().yes("eve");
    assert_eq!((stranger.c.state(), stranger.c.counted()), (State::AwaitingApproval, 1));
    let good = alike.yes("zoe");
    assert_eq!((good.c.state(), good.c.counted()), (State::Approved, 2));
    assert!(good.c.still_asked().is_empty());
    assert!(good.attempt(authorized(&good.c)).is_ok());
}
