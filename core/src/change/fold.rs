//! Events to state.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::state::{Change, EffectState, End, Glass, Landed, Seen, Vote, effect_key};
use crate::error::{Problem, Result};
use crate::model::{Body, Delivery, Effect, Ending, Event, Level, Sealed};

fn illegal(event: &Event, why: &str) -> Problem {
    Problem::new(
        "journal.illegal_event",
        format!("Event {} cannot follow what the journal holds: {why}.", event.seq),
        "Stop the daemon and run `countersign audit verify`; the journal was changed from outside, or this is a bug.",
    )
    .never()
}

fn begin(event: &Event) -> Result<Change> {
    let (Some(id), Body::Proposed { proposal, decided, sealed, digest }) = (event.change, &event.body) else {
        return Err(illegal(event, "a change begins with its proposal"));
    };
    let parsed: Sealed = serde_json::from_str(sealed)
        .map_err(|e| illegal(event, &format!("its sealed content does not parse ({e})")))?;
    if crate::model::digest_of(sealed.as_bytes()) != *digest {
        return Err(illegal(event, "its sealed content does not have its digest"));
    }
    if event.n != 1 {
        return Err(illegal(event, "a proposal is the first event of its change"));
    }
    if parsed.change != id || parsed.delivery != decided.delivery || parsed.quorum != decided.quorum {
        return Err(illegal(event, "its sealed content does not fit its decision"));
    }
    Ok(Change {
        id,
        n: event.n,
        proposed_at: event.at,
        proposal: (**proposal).clone(),
        decided: (**decided).clone(),
        sealed: parsed,
        canonical: sealed.clone(),
        digest: digest.clone(),
        base: proposal.base.clone(),
        votes: Vec::new(),
        authorized: None,
        effects: BTreeMap::new(),
        landed: None,
        seen: None,
        end: None,
        revert: None,
        revert_asked: None,
        no_revert: None,
        armed: BTreeMap::new(),
        glass: None,
        found: BTreeMap::new(),
        reasons: 0,
        asked_why: BTreeSet::new(),
        again_asked: None,
        again: None,
        updated_at: event.at,
    })
}

/// One event more. Refuses whatever is not listed here.
pub fn fold(change: Option<Change>, event: &Event) -> Result<Change> {
    let Some(mut c) = change else { return begin(event) };
    if event.n != c.n + 1 {
        return Err(illegal(event, &format!("it is number {} of its change, {} was expected", event.n, c.n + 1)));
    }
    match &event.body {
        Body::Intent { effect, facts } => intent(&mut c, event, effect, facts)?,
        Body::Done { effect, result } => {
            let s = open_effect(&mut c, event, effect)?;
            s.dangling = false;
            s.done = Some(result.clone());
            s.done_at = event.at;
        }
        Body::Failed { effect, problem, last } => {
            let s = open_effect(&mut c, event, effect)?;
            s.dangling = false;
            s.failures += 1;
            s.failed_at = event.at;
            s.problem = Some(problem.clone());
            s.given_up = *last;
        }
        Body::Pressed { person, action, .. } => pressed(&mut c, person, action),
        Body::CardFound { person, message_id } => {
            c.found.entry(person.clone()).or_default().insert(*message_id);
        }
        Body::Reasoned { person, reason } => reasoned(&mut c, event, person, reason.as_deref())?,
        Body::AgainAsked { person } => {
            let expired = c.end.as_ref().is_some_and(|e| e.ending == Ending::Expired);
            if !expired || c.again_asked.is_some() {
                return Err(illegal(event, "only an expired change is asked about again, and once"));
            }
            c.again_asked = Some(person.clone());
        }
        Body::AgainPrepared { change, say } => {
            if c.again_asked.is_none() || c.again.is_some() {
                return Err(illegal(event, "nobody wanted it asked about again, or that is done"));
            }
            c.again = Some((*change, say.clone()));
        }
        Body::RevertAsked { person } => {
            if !c.may_ask_revert() {
                return Err(illegal(event, "only a failed change is undone, and once"));
            }
            c.revert_asked = Some(person.clone());
        }
        Body::Voted { person, channel, approve, reason, digest, .. } => {
            if c.end.is_some() || c.is_leaving() {
                return Err(illegal(event, "the change no longer takes votes"));
            }
            if c.votes.iter().any(|v| v.person == *person && v.approve) && *approve {
                return Err(illegal(event, "this person has voted"));
            }
            c.votes.push(Vote {
                person: person.clone(),
                channel: channel.clone(),
                approve: *approve,
                reason: reason.clone(),
                digest: digest.clone(),
                at: event.at,
            });
        }
        Body::GlassBroken { person, reason, until, .. } => {
            let asked = c.decided.level == Level::Prompted && c.sealed.delivery != Delivery::PullRequest;
            if c.end.is_some() || c.is_leaving() || c.broken_glass(event.at).is_some() || !asked {
                return Err(illegal(event, "nobody's yes is waited for, or one suffices already"));
            }
            let (person, reason) = (person.clone(), reason.clone());
            c.glass = Some(Glass { person, reason, until: *until, reviewed: None });
        }
        Body::Reviewed { person, note, .. } => match &mut c.glass {
            Some(glass) if glass.reviewed.is_none() && glass.person != *person => {
                glass.reviewed = Some((person.clone(), note.clone()));
            }
            _ => return Err(illegal(event, "there is nothing that this person could review")),
        },
        Body::Authorized { digest, by, .. } => {
            if c.end.is_some() || *digest != c.digest {
                return Err(illegal(event, "an authorization of something else"));
            }
            if !votes_carry(&c, by, event.at) {
                return Err(illegal(event, "an authorization without its votes"));
            }
            c.authorized = Some((by.clone(), event.at));
        }
        Body::Rebased { base } => {
            if c.end.is_some() || c.landed.is_some() {
                return Err(illegal(event, "a landed change has no new base"));
            }
            c.base.clone_from(base);
        }
        Body::Landed { commit, via } => {
            if c.end.is_some() {
                return Err(illegal(event, "an ended change does not land"));
            }
            if c.landed.is_some() {
                return Err(illegal(event, "it has landed already"));
            }
            c.landed = Some(Landed { commit: commit.clone(), via: via.clone(), at: event.at });
        }
        Body::Observed { verdict, code, say } => {
            if c.landed.is_none() {
                return Err(illegal(event, "nothing has landed that could be observed"));
            }
            let since = c.seen.as_ref().filter(|s| s.verdict == *verdict).map_or(event.at, |s| s.since);
            c.seen = Some(Seen { verdict: *verdict, code: *code, say: say.clone(), since });
        }
        Body::Closed { ending, say } => {
            if c.end.is_some() {
                return Err(illegal(event, "it has ended already"));
            }
            if c.landed.is_none() && c.is_leaving() {
                return Err(illegal(event, "its commit may be on the branch"));
            }
            c.end = Some(End { ending: *ending, say: say.clone(), at: event.at });
        }
        Body::RevertPrepared { change, say } => {
            // Once an offer; after it only "no offer any more", which points at the change itself.
            let fits = match c.revert {
                None => true,
                Some(offered) => offered != c.id && *change == c.id,
            };
            if (c.end.is_none() && c.revert_asked.is_none()) || !fits {
                return Err(illegal(event, "only an ended change is undone, and once"));
            }
            c.revert = Some(*change);
            c.no_revert.clone_from(say);
        }
        Body::Proposed { .. } => return Err(illegal(event, "it was proposed already")),
        Body::Stopped { .. }
        | Body::ResumeVoted { .. }
        | Body::Resumed { .. }
        | Body::Checkpoint { .. }
        | Body::Polled { .. }
        | Body::PairingClaimed { .. } => {
            return Err(illegal(event, "this event belongs to no change"));
        }
    }
    c.n = event.n;
    c.updated_at = event.at;
    Ok(c)
}

/// What a press says beyond the vote that follows it.
fn pressed(c: &mut Change, person: &str, action: &str) {
    match action {
        "armed" => drop(c.armed.entry(person.to_owned()).or_default()),
        "wrong_number" => *c.armed.entry(person.to_owned()).or_default() += 1,
        _ => {}
    }
}

fn reasoned(c: &mut Change, event: &Event, person: &str, reason: Option<&str>) -> Result<()> {
    let Some(no) = c.votes.iter_mut().rfind(|v| v.person == person && !v.approve) else {
        return Err(illegal(event, "this person did not say no"));
    };
    match reason {
        Some(reason) => {
            no.reason = Some(reason.to_owned());
            c.reasons += 1;
        }
        None => drop(c.asked_why.insert(person.to_owned())),
    }
    Ok(())
}

/// Whether the recorded votes carry an authorization by these people. The gate has looked at far
/// more; this is what the journal alone can show, so that a written-in authorization is found.
fn votes_carry(c: &Change, by: &[String], at: i64) -> bool {
    match c.decided.level {
        Level::Manual | Level::Deny => false,
        Level::Standard => true,
        Level::Prompted if c.sealed.delivery == Delivery::PullRequest => true,
        Level::Prompted => {
            let by: BTreeSet<&String> = by.iter().collect();
            let alone = c.broken_glass(at).is_some_and(|g| by.contains(&g.person));
            c.rejection().is_none()
                && (alone || c.decided.votes(by.iter().map(|p| p.as_str())) >= c.sealed.quorum.count.max(1) as usize)
                && by.iter().all(|p| c.approvals().any(|v| v.person == **p))
        }
    }
}

/// Which of the effects that leave belong to which delivery.
fn delivers(delivery: Delivery, effect: &Effect) -> bool {
    match effect {
        Effect::PushTarget => delivery == Delivery::Direct,
        Effect::PushBranch | Effect::OpenPullRequest | Effect::DeleteBranch => delivery != Delivery::Direct,
        Effect::Merge => delivery == Delivery::MergeAfterApproval,
        _ => true,
    }
}

fn intent(c: &mut Change, event: &Event, effect: &Effect, facts: &Value) -> Result<()> {
    if c.dangling().is_some() {
        return Err(illegal(event, "an effect is still under way"));
    }
    let after_end = matches!(
        effect,
        Effect::SettleCard { .. } | Effect::Notify { .. } | Effect::ClosePullRequest | Effect::DeleteBranch
    );
    if c.end.is_some() && !after_end {
        return Err(illegal(event, "an ended change does nothing more"));
    }
    if c.end.is_none() && *effect == Effect::DeleteBranch {
        return Err(illegal(event, "its branch is still needed"));
    }
    let may_land = c.authorized.is_some() && c.rejection().is_none();
    if matches!(effect, Effect::PushTarget | Effect::Merge | Effect::PushBranch | Effect::OpenPullRequest) && !may_land
    {
        return Err(illegal(event, "the gate has not let it through"));
    }
    if !delivers(c.sealed.delivery, effect)
        || (c.landed.is_some() && matches!(effect, Effect::PushTarget | Effect::Merge))
    {
        return Err(illegal(event, "the change is not delivered this way"));
    }
    let before = match effect {
        Effect::OpenPullRequest | Effect::DeleteBranch => Some(Effect::PushBranch),
        Effect::Merge => Some(Effect::OpenPullRequest),
        Effect::HintAgain => Some(Effect::Hint),
        _ => None,
    };
    if before.is_some_and(|b| c.done(&b).is_none()) {
        return Err(illegal(event, "what comes before it was not done"));
    }
    let key = effect_key(effect);
    let (failures, failed_at, problem) =
        c.effects.get(&key).map_or((0, 0, None), |(_, s)| (s.failures, s.failed_at, s.problem.clone()));
    if c.effects.get(&key).is_some_and(|(_, s)| s.done.is_some() || s.given_up) {
        return Err(illegal(event, "it was done or given up already"));
    }
    let state = EffectState {
        facts: facts.clone(),
        dangling: true,
        done: None,
        done_at: 0,
        failures,
        failed_at,
        problem,
        given_up: false,
    };
    c.effects.insert(key, (effect.clone(), state));
    Ok(())
}

fn open_effect<'a>(c: &'a mut Change, event: &Event, effect: &Effect) -> Result<&'a mut EffectState> {
    match c.effects.get_mut(&effect_key(effect)) {
        Some((_, s)) if s.dangling => Ok(s),
        _ => Err(illegal(event, "a result without an intent")),
    }
}
