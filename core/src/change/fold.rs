//! Events to state.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::{Problem, Result};
use crate::model::{
    Body, ChangeId, Decided, Delivery, Digest, Effect, Ending, Event, Level, Proposal, Sealed, short_name,
};

/// How far one effect has come.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectState {
    /// Facts of the last intent.
    pub facts: Value,
    /// An intent is written and neither a result nor a failure: after a crash the world must be asked.
    pub dangling: bool,
    /// Result, once done.
    pub done: Option<Value>,
    /// Failures so far.
    pub failures: u32,
    /// When it failed last, milliseconds.
    pub failed_at: i64,
    /// Why it failed last.
    pub problem: Option<Problem>,
    /// No further try.
    pub given_up: bool,
}

/// One person's vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Person.
    pub person: String,
    /// Channel.
    pub channel: String,
    /// Yes or no.
    pub approve: bool,
    /// Reason for no.
    pub reason: Option<String>,
    /// What was voted on.
    pub digest: Digest,
    /// When, milliseconds.
    pub at: i64,
}

/// The commit that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// Commit.
    pub commit: String,
    /// `push`, `merge`, `found`.
    pub via: String,
    /// When, milliseconds.
    pub at: i64,
}

/// Last verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `waiting`, `healthy`, `failed`, `superseded`.
    pub verdict: String,
    /// Code.
    pub code: String,
    /// Words.
    pub say: String,
    /// Since when this verdict (not its words) holds, milliseconds.
    pub since: i64,
}

/// The end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How.
    pub ending: Ending,
    /// One sentence.
    pub say: String,
    /// When, milliseconds.
    pub at: i64,
}

/// A change: the fold of its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Id.
    pub id: ChangeId,
    /// Events so far; the next one is `n + 1`.
    pub n: u64,
    /// When proposed, milliseconds.
    pub proposed_at: i64,
    /// Proposal.
    pub proposal: Proposal,
    /// Decision at proposal time.
    pub decided: Decided,
    /// Sealed change.
    pub sealed: Sealed,
    /// Its canonical bytes, as stored and hashed.
    pub canonical: String,
    /// Its digest.
    pub digest: Digest,
    /// Base that the edit was last proved on.
    pub base: String,
    /// Votes, one per person.
    pub votes: Vec<Vote>,
    /// The gate let it through: whose votes counted, and when.
    pub authorized: Option<(Vec<String>, i64)>,
    /// Effects by kind and argument.
    pub effects: BTreeMap<String, (Effect, EffectState)>,
    /// Commit that is watched.
    pub landed: Option<Landed>,
    /// Last verdict.
    pub seen: Option<Seen>,
    /// The end.
    pub end: Option<End>,
    /// The change that would undo this one; this one itself = there is none, or no more.
    pub revert: Option<ChangeId>,
    /// Who wants that change prepared.
    pub revert_asked: Option<String>,
    /// Why it could not be prepared.
    pub no_revert: Option<String>,
    /// People who pressed Approve where a number must follow, with the wrong numbers that they chose.
    pub armed: BTreeMap<String, u32>,
    /// Cards that were found by a press on them, by person; the one that was sent last may be among them.
    pub found: BTreeMap<String, BTreeSet<i64>>,
    /// Reasons told after a no, so far.
    pub reasons: u32,
    /// People who are asked to write their reason.
    pub asked_why: BTreeSet<String>,
    /// Who wants the expired change asked about again.
    pub again_asked: Option<String>,
    /// What became of that: the new change, or why there is none.
    pub again: Option<(Option<ChangeId>, String)>,
    /// When the last event happened, milliseconds.
    pub updated_at: i64,
}

/// Where a change stands, for people and agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A person must press.
    AwaitingApproval,
    /// Enough people said yes; the gate has not let it through yet.
    Approved,
    /// A person must merge the pull request.
    AwaitingMerge,
    /// A person must commit the patch.
    AwaitingCommit,
    /// On its way to the branch.
    Delivering,
    /// On the branch; the engine is watched.
    Observing,
    /// Ended.
    Ended(Ending),
}

impl State {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Approved => "approved",
            Self::AwaitingMerge => "awaiting_merge",
            Self::AwaitingCommit => "awaiting_commit",
            Self::Delivering => "delivering",
            Self::Observing => "observing",
            Self::Ended(e) => match e {
                Ending::Healthy => "healthy",
                Ending::Failed => "failed",
                Ending::TimedOut => "timed_out",
                Ending::Superseded => "superseded",
                Ending::Rejected => "rejected",
                Ending::Expired => "expired",
                Ending::Cancelled => "cancelled",
                Ending::Stale => "stale",
                Ending::Undelivered => "undelivered",
                Ending::Abandoned => "abandoned",
            },
        }
    }
}

/// Key of an effect inside a change.
pub fn effect_key(e: &Effect) -> String {
    match e {
        Effect::Ask { person } => format!("ask/{person}"),
        Effect::SettleCard { person, phase } => format!("settle_card/{person}/{phase}"),
        Effect::Notify { person, about } => format!("notify/{person}/{about}"),
        other => other.name().to_owned(),
    }
}

impl Change {
    /// Short name (`cs-7F3K`).
    pub fn name(&self) -> String {
        short_name(&self.id)
    }

    /// Branch of this revision.
    pub fn branch(&self) -> String {
        format!("countersign/{}-r{}", self.id, self.sealed.revision)
    }

    /// Not ended.
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// State of one effect.
    pub fn effect(&self, e: &Effect) -> Option<&EffectState> {
        self.effects.get(&effect_key(e)).map(|(_, s)| s)
    }

    /// Result of one effect, where it is done.
    pub fn done(&self, e: &Effect) -> Option<&Value> {
        self.effect(e).and_then(|s| s.done.as_ref())
    }

    /// The intent without result, if there is one.
    pub fn dangling(&self) -> Option<(&Effect, &Value)> {
        self.effects.values().find(|(_, s)| s.dangling).map(|(e, s)| (e, &s.facts))
    }

    /// Whether a commit of ours may already be on its way: from then on nobody can withdraw.
    pub fn is_leaving(&self) -> bool {
        let begun = |e: &Effect| self.effect(e).is_some_and(|s| s.dangling || s.done.is_some());
        self.landed.is_some() || begun(&Effect::PushTarget) || begun(&Effect::Merge)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        if let Some(end) = &self.end {
            return State::Ended(end.ending);
        }
        if self.landed.is_some() {
            return State::Observing;
        }
        if self.decided.level == Level::Manual {
            return State::AwaitingCommit;
        }
        if self.decided.delivery == Delivery::PullRequest {
            return if self.done(&Effect::OpenPullRequest).is_some() {
                State::AwaitingMerge
            } else {
                State::Delivering
            };
        }
        if self.authorized.is_some() || self.decided.level == Level::Standard {
            return State::Delivering;
        }
        let enough = self.approvals().count() >= self.decided.quorum.count.max(1) as usize;
        if enough && self.rejection().is_none() { State::Approved } else { State::AwaitingApproval }
    }

    /// Number of the pull request, once open.
    pub fn pull_number(&self) -> Option<u64> {
        self.done(&Effect::OpenPullRequest)?.get("number")?.as_u64()
    }

    /// Commit that was pushed to the change's own branch.
    pub fn pushed_branch(&self) -> Option<&str> {
        self.done(&Effect::PushBranch)?.get("commit")?.as_str()
    }

    /// Address of the pull request, once open.
    pub fn pull_url(&self) -> Option<&str> {
        self.done(&Effect::OpenPullRequest)?.get("url")?.as_str()
    }

    /// Yes votes on this digest.
    pub fn approvals(&self) -> impl Iterator<Item = &Vote> {
        self.votes.iter().filter(|v| v.approve && v.digest == self.digest)
    }

    /// Landed and failed, and not a revert itself.
    pub fn is_revertible(&self) -> bool {
        let failed = self.end.as_ref().is_some_and(|e| matches!(e.ending, Ending::Failed | Ending::TimedOut));
        failed && self.landed.is_some() && self.proposal.reverts.is_none()
    }

    /// Whether the button Prepare revert may still do something: for what failed, and for what waits at the engine.
    pub fn may_ask_revert(&self) -> bool {
        let waits = self.end.is_none() && self.landed.is_some() && self.proposal.reverts.is_none();
        let healthy = self.seen.as_ref().is_some_and(|s| s.verdict == "healthy");
        (self.is_revertible() || waits) && !healthy && self.revert.is_none() && self.revert_asked.is_none()
    }

    /// When this person is asked, milliseconds: at once, or once the others did not decide in time.
    pub fn asked_from(&self, person: &str) -> i64 {
        self.proposed_at + i64::from(self.decided.obligations.asked_after_s(person)) * 1000
    }

    /// Whether this person voted, on any channel.
    pub fn has_voted(&self, person: &str) -> bool {
        self.votes.iter().any(|v| v.person == person)
    }

    /// The message that a card of this person is, once it was sent.
    pub fn card_of(&self, person: &str) -> Option<i64> {
        self.done(&Effect::Ask { person: person.to_owned() })?.get("message_id")?.as_i64()
    }

    /// Every message that is known to be a card of this person: the one that was sent, then those that a crash left
    /// behind.
    pub fn cards_of(&self, person: &str) -> Vec<i64> {
        let sent = self.card_of(person);
        sent.into_iter().chain(self.strays(person)).collect()
    }

    /// Cards beside the one that is known to have been sent.
    pub(super) fn strays(&self, person: &str) -> impl Iterator<Item = i64> {
        let sent = self.card_of(person);
        self.found.get(person).into_iter().flatten().copied().filter(move |id| Some(*id) != sent)
    }

    /// The no vote, if there is one.
    pub fn rejection(&self) -> Option<&Vote> {
        self.votes.iter().find(|v| !v.approve)
    }
}

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
        Body::Authorized { digest, by, .. } => {
            if c.end.is_some() || *digest != c.digest {
                return Err(illegal(event, "an authorization of something else"));
            }
            if !votes_carry(&c, by) {
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
            c.seen = Some(Seen { verdict: verdict.clone(), code: code.clone(), say: say.clone(), since });
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
fn votes_carry(c: &Change, by: &[String]) -> bool {
    match c.decided.level {
        Level::Manual | Level::Deny => false,
        Level::Standard => true,
        Level::Prompted if c.sealed.delivery == Delivery::PullRequest => true,
        Level::Prompted => {
            let by: BTreeSet<&String> = by.iter().collect();
            c.rejection().is_none()
                && by.len() >= c.sealed.quorum.count.max(1) as usize
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
    let state =
        EffectState { facts: facts.clone(), dangling: true, done: None, failures, failed_at, problem, given_up: false };
    c.effects.insert(key, (effect.clone(), state));
    Ok(())
}

fn open_effect<'a>(c: &'a mut Change, event: &Event, effect: &Effect) -> Result<&'a mut EffectState> {
    match c.effects.get_mut(&effect_key(effect)) {
        Some((_, s)) if s.dangling => Ok(s),
        _ => Err(illegal(event, "a result without an intent")),
    }
}
