//! What people must still be told of a change, and what is tidied up after its end.

use super::Change;
use super::next::{Limits, Step, WaitFor, do_or_wait, late};
use crate::model::{Effect, Ending, Level, Verdict};

/// Tries of words to people after the end; decisions are asked for until they expire.
pub(super) const NOTICE_TRIES: u32 = 8;

/// What a pending card must show beyond its first form: who decided, and the numbers of whoever must pick one.
/// `None` = it is as it was sent.
pub(super) fn look(c: &Change, person: &str) -> Option<String> {
    if c.cards_of(person).is_empty() {
        return None;
    }
    let numbers = c.armed.get(person).filter(|_| !c.has_voted(person));
    let look = match (c.approvals().count(), numbers) {
        (0, None) => return None,
        (votes, None) => format!("v{votes}"),
        (votes, Some(wrong)) => format!("v{votes}n{wrong}"),
    };
    Some(on_all(c, person, look))
}

/// What a card shows, told apart by how many strays must show it as well: one that is found later is edited later.
fn on_all(c: &Change, person: &str, look: String) -> String {
    match c.strays(person).count() {
        0 => look,
        strays => format!("{look}s{strays}"),
    }
}

/// Most reminders of one person about one change.
const REMINDERS: i64 = 12;

/// The reminder that is due for a person, and when the next one is. Missed ones are not made up for.
pub(super) fn reminder(c: &Change, person: &str, now: i64) -> (Option<Effect>, Option<i64>) {
    let Some(every) = c.decided.obligations.remind_s.filter(|s| *s > 0).map(|s| i64::from(s) * 1000) else {
        return (None, None);
    };
    if c.card_of(person).is_none() || c.has_voted(person) {
        return (None, None);
    }
    let from = c.asked_from(person);
    let count = ((now - from) / every).clamp(0, REMINDERS);
    let due = (count > 0).then(|| Effect::Notify { person: person.to_owned(), about: format!("remind{count}") });
    (due, (count < REMINDERS).then(|| from + (count + 1) * every))
}

/// Tells the people of `tell` once that something waits, and goes on even where that fails.
pub(super) fn tell_then(c: &Change, now: i64, stopped: bool, then: Step) -> Step {
    tell_of(c, "proposed", c.decided.tell.iter(), now, stopped).unwrap_or(then)
}

/// Tells everybody concerned but the one who did it that one yes sufficed, before anything leaves.
pub(super) fn tell_of_glass(c: &Change, now: i64, stopped: bool) -> Option<Step> {
    let by = &c.glass.as_ref()?.person;
    let others = c.decided.approvers.iter().chain(&c.decided.tell).filter(|p| *p != by);
    tell_of(c, "glass", others, now, stopped)
}

/// The next of these people who is still to be told; one who cannot be is not waited for.
fn tell_of<'a>(
    c: &Change,
    about: &str,
    people: impl Iterator<Item = &'a String>,
    now: i64,
    stopped: bool,
) -> Option<Step> {
    for person in people {
        let e = Effect::Notify { person: person.clone(), about: about.to_owned() };
        if c.effect(&e).is_some_and(|s| s.failures >= NOTICE_TRIES) {
            continue;
        }
        if let Some(step @ Step::Do(_)) = do_or_wait(c, e, now, stopped) {
            return Some(step);
        }
    }
    None
}

/// The card of a person who was asked gets its final words; `None` where there is no card, or it is done.
pub(super) fn settle(c: &Change, person: &str, phase: &str, now: i64, stopped: bool) -> Option<Step> {
    if c.cards_of(person).is_empty() {
        return None;
    }
    let e = Effect::SettleCard { person: person.to_owned(), phase: on_all(c, person, phase.to_owned()) };
    if c.effect(&e).is_some_and(|s| s.failures >= NOTICE_TRIES) {
        return None;
    }
    match do_or_wait(c, e, now, stopped) {
        Some(step @ Step::Do(_)) => Some(step),
        _ => None,
    }
}

pub(super) fn after_end(c: &Change, ending: Ending, now: i64, stopped: bool, limits: &Limits) -> Step {
    let mut wake: Option<i64> = None;
    let mut consider = |e: Effect, tries: u32| -> Option<Step> {
        if c.effect(&e).is_some_and(|s| s.failures >= tries) {
            return None;
        }
        match do_or_wait(c, e, now, stopped) {
            Some(step @ Step::Do(_)) => Some(step),
            Some(Step::Wait(_, at)) => {
                wake = Some(wake.map_or(at, |w| w.min(at)));
                None
            }
            _ => None,
        }
    };
    if c.landed.is_none()
        && c.done(&Effect::OpenPullRequest).is_some()
        && let Some(step) = consider(Effect::ClosePullRequest, NOTICE_TRIES)
    {
        return step;
    }
    for person in &c.decided.approvers {
        if c.cards_of(person).is_empty() {
            continue;
        }
        for phase in last_looks(c).into_iter().map(|look| on_all(c, person, look)) {
            if let Some(step) = consider(Effect::SettleCard { person: person.clone(), phase }, NOTICE_TRIES) {
                return step;
            }
        }
    }
    let bad = matches!(ending, Ending::Failed | Ending::TimedOut | Ending::Undelivered | Ending::Stale);
    let mut told: Vec<&String> =
        if bad || c.decided.level == Level::Standard { c.decided.tell.iter().collect() } else { Vec::new() };
    // Whoever was asked by a try whose result nobody knows may hold a card that cannot be edited.
    let approvers = c.decided.approvers.iter().filter(|p| bad || maybe_asked(c, p));
    told.splice(0..0, approvers);
    // Whoever was told that it waits is told how that ended.
    let proposed = |p: &&String| {
        let e = Effect::Notify { person: (*p).clone(), about: "proposed".into() };
        c.done(&e).is_some_and(|r| r.get("message_id").is_some())
    };
    told.extend(c.decided.tell.iter().filter(proposed));
    for person in told {
        if let Some(step) = consider(Effect::Notify { person: person.clone(), about: "ended".into() }, NOTICE_TRIES) {
            return step;
        }
    }
    for (person, about) in asides(c) {
        if let Some(step) = consider(Effect::Notify { person, about: about.into() }, NOTICE_TRIES) {
            return step;
        }
    }
    if c.revert_asked.is_some() && c.revert.is_none() && !stopped {
        return Step::PrepareRevert;
    }
    if c.again_asked.is_some() && c.again.is_none() && !stopped {
        return Step::AskAgain;
    }
    if branch_is_spent(c)
        && let Some(step) = consider(Effect::DeleteBranch, NOTICE_TRIES)
    {
        return step;
    }
    if let Some(at) = wake {
        return Step::Wait(WaitFor::Retry, at);
    }
    late(c, now, limits)
}

/// Our branch was pushed, and no pull request of ours is left open on it.
fn branch_is_spent(c: &Change) -> bool {
    let opened = c.done(&Effect::OpenPullRequest).is_some();
    c.pushed_branch().is_some() && (!opened || c.landed.is_some() || c.done(&Effect::ClosePullRequest).is_some())
}

/// A card was being sent to this person, and it is not known whether it went out.
fn maybe_asked(c: &Change, person: &str) -> bool {
    c.effect(&Effect::Ask { person: person.to_owned() }).is_some_and(|s| s.done.is_none() && !s.given_up)
}

/// What an ended change's card goes through: its end, the reason that somebody told after their no, and what became
/// of asking again.
fn last_looks(c: &Change) -> Vec<String> {
    let mut out = vec!["closed".to_owned()];
    if c.reasons > 0 {
        out.push(format!("reason{}", c.reasons));
    }
    if c.again.is_some() {
        out.push("again".to_owned());
    }
    out
}

/// Words to single people about what they did.
fn asides(c: &Change) -> Vec<(String, &'static str)> {
    let mut out: Vec<(String, &'static str)> = c.asked_why.iter().map(|p| (p.clone(), "why")).collect();
    if let (Some(person), Some(_)) = (&c.revert_asked, &c.no_revert) {
        out.push((person.clone(), "no_revert"));
    }
    let late = c.seen.as_ref().is_some_and(|s| s.verdict == Verdict::Healthy) && c.is_revertible();
    if late && c.revert == Some(c.id) && c.no_revert.is_none() {
        let told = |p: &&String| {
            let e = Effect::Notify { person: (*p).clone(), about: "ended".into() };
            c.done(&e).is_some_and(|r| r.get("message_id").is_some())
        };
        out.extend(c.decided.approvers.iter().chain(&c.decided.tell).filter(told).map(|p| (p.clone(), "late")));
    }
    out
}
