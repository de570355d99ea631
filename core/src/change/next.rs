//! State to the single next step.

use super::tell::{NOTICE_TRIES, after_end, look, reminder, settle, tell_of_glass, tell_then};
use super::{Change, EffectState, State};
use crate::error::Problem;
use crate::model::{Code, Delivery, Effect, Ending, Verdict};

/// Times and limits that `next` works with; all from the configuration. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long the engine may take before a change counts as timed out.
    pub observe_ms: i64,
    /// How long `failed` must stand before the change is closed (the engine may retry).
    pub failed_grace_ms: i64,
    /// How long an authorized change may take to reach the branch.
    pub deliver_ms: i64,
    /// How long a manual patch is waited for.
    pub manual_ms: i64,
    /// How often forge and branch are polled.
    pub poll_ms: i64,
    /// How long the emergency stop was on since the change was authorized: that time is not the change's.
    pub held_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            observe_ms: 15 * 60_000,
            failed_grace_ms: 20_000,
            deliver_ms: 10 * 60_000,
            manual_ms: 7 * 24 * 3_600_000,
            poll_ms: 15_000,
            held_ms: 0,
        }
    }
}

/// What a change waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// A person's press or signature.
    Approval,
    /// The merge of the pull request.
    Merge,
    /// A person's commit of the patch.
    Commit,
    /// The engine.
    Engine,
    /// The end of the emergency stop.
    Resume,
    /// The next try of what failed.
    Retry,
}

/// The single next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Ask the world whether this effect happened, then write its result.
    Recover(Effect),
    /// Do this effect: intent, act, result.
    Do(Effect),
    /// Votes suffice (or none are needed): ask the gate.
    Authorize,
    /// Close with these words.
    Close(Ending, String),
    /// Look whether the pull request was merged or closed, at the latest at this time.
    PollMerge(i64),
    /// Look whether a person committed the patch, at the latest at this time.
    PollCommit(i64),
    /// Watch the engine until the verdict changes, at the latest until this time.
    Observe(i64),
    /// Prepare the change that undoes this one: a person wants it.
    PrepareRevert,
    /// Ask again about what expired: a person wants it.
    AskAgain,
    /// It became healthy after all: take the offered revert back, if nobody decided about it yet.
    WithdrawRevert,
    /// Wait for something from outside, at the latest until this time.
    Wait(WaitFor, i64),
    /// Nothing more.
    Finished,
}

/// Pause after the n-th failure: 1 s doubling to 60 s.
fn backoff_ms(failures: u32) -> i64 {
    1000_i64.saturating_mul(1_i64 << failures.saturating_sub(1).min(6)).min(60_000)
}

/// Milliseconds after which an engine that was asked and has not noticed the commit is asked once more.
const HINT_AGAIN_MS: i64 = 30_000;

/// The longest time that another side's wish to be left alone is heeded.
const MAX_HEEDED_S: u64 = 24 * 3600;

/// When what failed is tried again: after our pause, and not before the other side's own.
fn again_at(s: &EffectState) -> i64 {
    let asked = s.problem.as_ref().and_then(Problem::retry_after_s).unwrap_or(0).min(MAX_HEEDED_S);
    s.failed_at + backoff_ms(s.failures).max(i64::try_from(asked).unwrap_or(0) * 1000)
}

pub(super) fn do_or_wait(c: &Change, e: Effect, now: i64, stopped: bool) -> Option<Step> {
    if c.done(&e).is_some() {
        return None;
    }
    if let Some(s) = c.effect(&e) {
        if s.given_up {
            return None;
        }
        let again = again_at(s);
        if s.failures > 0 && now < again {
            return Some(Step::Wait(WaitFor::Retry, again));
        }
    }
    if stopped {
        return Some(Step::Wait(WaitFor::Resume, i64::MAX));
    }
    Some(Step::Do(e))
}

/// The next step of `c`. `stopped`: the emergency stop is on; then no outside effect is named.
pub fn next(c: &Change, now: i64, stopped: bool, limits: &Limits) -> Step {
    if let Some((effect, _)) = c.dangling() {
        return Step::Recover(effect.clone());
    }
    match c.state() {
        State::Ended(ending) => after_end(c, ending, now, stopped, limits),
        State::Observing => observe(c, now, stopped, limits),
        State::AwaitingCommit => {
            let until = c.proposed_at + limits.manual_ms;
            if now >= until {
                return Step::Close(Ending::Abandoned, "Nobody committed the patch in time.".into());
            }
            tell_then(c, now, stopped, Step::PollCommit((now + limits.poll_ms).min(until)))
        }
        State::AwaitingApproval | State::Approved => awaiting(c, now, stopped),
        State::AwaitingMerge => {
            if let Some(step) = expired(c, now) {
                return step;
            }
            tell_then(c, now, stopped, Step::PollMerge((now + limits.poll_ms).min(c.sealed.expires_at * 1000)))
        }
        State::Delivering => deliver(c, now, stopped, limits),
    }
}

fn expired(c: &Change, now: i64) -> Option<Step> {
    (now >= c.sealed.expires_at * 1000)
        .then(|| Step::Close(Ending::Expired, "Nobody decided in time; nothing was written.".into()))
}

fn rejected(c: &Change) -> Option<Step> {
    c.rejection().map(|v| {
        let why = v.reason.as_deref().map_or(String::new(), |r| format!(": {r}"));
        Step::Close(Ending::Rejected, format!("Rejected by {}{why}.", v.person))
    })
}

/// Sends every card that is still to be sent; a failure of one does not hold up the others.
fn awaiting(c: &Change, now: i64, stopped: bool) -> Step {
    if let Some(step) = rejected(c).or_else(|| expired(c, now)) {
        return step;
    }
    let expires = c.sealed.expires_at * 1000;
    if c.state() == State::Approved {
        if stopped {
            return Step::Wait(WaitFor::Resume, expires);
        }
        return tell_of_glass(c, now, stopped).unwrap_or(Step::Authorize);
    }
    let mut wake = expires;
    for person in &c.decided.approvers {
        let from = c.asked_from(person);
        if now < from {
            wake = wake.min(from);
            continue;
        }
        match do_or_wait(c, Effect::Ask { person: person.clone() }, now, stopped) {
            Some(step @ Step::Do(_)) => return step,
            Some(Step::Wait(_, at)) => wake = wake.min(at),
            _ => {}
        }
    }
    for person in &c.decided.approvers {
        let (due, later) = reminder(c, person, now);
        wake = later.map_or(wake, |at| wake.min(at));
        let shown = look(c, person).map(|phase| Effect::SettleCard { person: person.clone(), phase });
        for e in shown.into_iter().chain(due) {
            if c.effect(&e).is_some_and(|s| s.failures >= NOTICE_TRIES) {
                continue;
            }
            match do_or_wait(c, e, now, stopped) {
                Some(step @ Step::Do(_)) => return step,
                Some(Step::Wait(_, at)) => wake = wake.min(at),
                _ => {}
            }
        }
    }
    Step::Wait(WaitFor::Approval, wake.min(expires))
}

/// What was wrong, with the other side's own words: a server that refuses says there what it wants.
pub fn in_words(p: &Problem) -> String {
    if p.evidence.is_empty() { p.message.clone() } else { format!("{} ({})", p.message, p.evidence.join("; ")) }
}

fn deliver(c: &Change, now: i64, stopped: bool, limits: &Limits) -> Step {
    if let Some(step) = rejected(c) {
        return step;
    }
    let Some((_, since)) = &c.authorized else {
        // Standard level and pull requests need no vote, but the gate all the same.
        return expired(c, now).unwrap_or(if stopped {
            Step::Wait(WaitFor::Resume, i64::MAX)
        } else {
            Step::Authorize
        });
    };
    let expires = c.sealed.expires_at * 1000;
    if limits.held_ms > 0 && now >= expires && !c.is_leaving() {
        let say = "The emergency stop lasted longer than the approval is good for; nothing reached the branch.";
        return Step::Close(Ending::Expired, say.into());
    }
    let effects: &[Effect] = match c.decided.delivery {
        Delivery::Direct => &[Effect::PushTarget],
        Delivery::MergeAfterApproval => &[Effect::PushBranch, Effect::OpenPullRequest, Effect::Merge],
        Delivery::PullRequest => &[Effect::PushBranch, Effect::OpenPullRequest],
    };
    for e in effects {
        if c.done(e).is_some() {
            continue;
        }
        if let Some(s) = c.effect(e).filter(|s| s.given_up) {
            let why = s.problem.as_ref().map_or_else(|| "no reason given".to_owned(), in_words);
            return Step::Close(Ending::Undelivered, format!("Not delivered: {why}"));
        }
        let deadline = since + limits.held_ms + limits.deliver_ms;
        if now >= deadline && !c.is_leaving() {
            let why =
                c.effect(e).and_then(|s| s.problem.as_ref()).map_or_else(|| "it took too long.".to_owned(), in_words);
            return Step::Close(Ending::Undelivered, format!("Not delivered in time: {why}"));
        }
        return match do_or_wait(c, e.clone(), now, stopped) {
            // The approval goes on to expire under a stop.
            Some(Step::Wait(WaitFor::Resume, _)) if now < expires => Step::Wait(WaitFor::Resume, expires),
            // Nobody waits longer for a forge than a delivery may take.
            Some(Step::Wait(WaitFor::Retry, at)) if !c.is_leaving() => Step::Wait(WaitFor::Retry, at.min(deadline)),
            Some(step) => step,
            None => continue,
        };
    }
    Step::Wait(WaitFor::Retry, now + 1000)
}

fn observe(c: &Change, now: i64, stopped: bool, limits: &Limits) -> Step {
    let Some(landed) = &c.landed else { return Step::Finished };
    for person in &c.decided.approvers {
        if let Some(step) = settle(c, person, "decided", now, stopped) {
            return step;
        }
    }
    let deadline = landed.at + limits.observe_ms;
    let mut until = deadline;
    match hint(c, now, stopped) {
        Some(step @ Step::Do(_)) if now < deadline => return step,
        Some(Step::Wait(WaitFor::Retry, at)) => until = until.min(at),
        _ => {}
    }
    if c.revert_asked.is_some() && c.revert.is_none() && !stopped {
        return Step::PrepareRevert;
    }
    match held(c, landed.at + limits.failed_grace_ms, now, stopped) {
        Some(step @ Step::Do(_)) => return step,
        Some(Step::Wait(_, at)) => until = until.min(at),
        _ => {}
    }
    if let Some(seen) = &c.seen {
        match seen.verdict {
            Verdict::Healthy => return Step::Close(Ending::Healthy, seen.say.clone()),
            Verdict::Superseded => return Step::Close(Ending::Superseded, seen.say.clone()),
            Verdict::Failed if now >= seen.since + limits.failed_grace_ms => {
                return Step::Close(Ending::Failed, seen.say.clone());
            }
            // Past the deadline too: a failure is told as one, not as a timeout.
            Verdict::Failed => return Step::Observe(seen.since + limits.failed_grace_ms),
            Verdict::Waiting => {}
        }
    }
    if now >= deadline {
        let last = c.seen.as_ref().map_or_else(|| "the engine never noticed the commit.".to_owned(), |s| s.say.clone());
        return Step::Close(Ending::TimedOut, format!("Not healthy in time; last seen: {last}"));
    }
    Step::Observe(until)
}

/// What an engine does not get past by itself, or not soon: people are told once, while it is still watched.
const HELD: [Code; 4] = [Code::HeldBack, Code::ManualSync, Code::SyncWindow, Code::Suspended];

/// The engine holds the revision back for longer than `from`: everybody concerned is told, once.
fn held(c: &Change, from: i64, now: i64, stopped: bool) -> Option<Step> {
    c.seen.as_ref().filter(|s| s.verdict == Verdict::Waiting && HELD.contains(&s.code))?;
    if now < from {
        return Some(Step::Wait(WaitFor::Engine, from));
    }
    let mut wake = None;
    for person in c.decided.approvers.iter().chain(&c.decided.tell) {
        let e = Effect::Notify { person: person.clone(), about: "held".into() };
        if c.effect(&e).is_some_and(|s| s.failures >= NOTICE_TRIES) {
            continue;
        }
        match do_or_wait(c, e, now, stopped) {
            Some(step @ Step::Do(_)) => return Some(step),
            // Only a retry has a time: the end of a stop wakes whoever watches.
            Some(Step::Wait(WaitFor::Retry, at)) => wake = Some(wake.map_or(at, |w: i64| w.min(at))),
            _ => {}
        }
    }
    wake.map(|at| Step::Wait(WaitFor::Retry, at))
}

/// The engine is asked to look at Git now, for as long as the change is watched: an API server may be away for longer
/// than a few tries, and by itself Argo CD sees a push after minutes. A refusal is a result, not a failure.
fn hint(c: &Change, now: i64, stopped: bool) -> Option<Step> {
    let effect = match c.done(&Effect::Hint) {
        None => Effect::Hint,
        Some(done) => {
            // An API server that has just started refuses what it permits a moment later, and what came of a hint can
            // be lost with one that ends.
            let unnoticed = c.seen.as_ref().is_none_or(|s| s.code == Code::NotNoticed);
            let from = c.effect(&Effect::Hint)?.done_at + HINT_AGAIN_MS;
            if !unnoticed || ["sent", "refused"].iter().all(|k| done.get(k).is_none()) {
                return None;
            }
            if now < from {
                return Some(Step::Wait(WaitFor::Retry, from));
            }
            Effect::HintAgain
        }
    };
    do_or_wait(c, effect, now, stopped)
}

/// While a revert is on offer, prepared or not, the engine is still watched: it may succeed after all.
pub(super) fn late(c: &Change, now: i64, limits: &Limits) -> Step {
    let Some(end) = c.end.as_ref().filter(|_| c.revert != Some(c.id)) else { return Step::Finished };
    if c.revert.is_none() && !c.is_revertible() {
        return Step::Finished;
    }
    if c.seen.as_ref().is_some_and(|s| s.verdict == Verdict::Healthy) {
        return Step::WithdrawRevert;
    }
    let until = end.at + limits.observe_ms;
    if c.is_revertible() && now < until { Step::Observe(until) } else { Step::Finished }
}
