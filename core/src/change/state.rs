//! The state of a change: what the fold of its events amounts to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::Problem;
use crate::model::{
    ChangeId, Code, Decided, Delivery, Digest, Effect, Ending, Level, Proposal, Sealed, Verdict, short_name,
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
    /// When it was done, milliseconds.
    pub done_at: i64,
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

/// One person's yes that suffices, in spite of quorum and freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glass {
    /// Whose.
    pub person: String,
    /// Why, in their words.
    pub reason: String,
    /// Until when, milliseconds.
    pub until: i64,
    /// Who looked at it afterwards, and what they found.
    pub reviewed: Option<(String, String)>,
}

/// The commit that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// Commit.
    pub commit: String,
    /// As in [`Body::Landed`](crate::model::Body::Landed).
    pub via: String,
    /// When, milliseconds.
    pub at: i64,
}

/// Last verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What is known.
    pub verdict: Verdict,
    /// Why.
    pub code: Code,
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
    /// Who let their own yes suffice, where somebody did.
    pub glass: Option<Glass>,
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
        Effect::HintAgain => "hint_again".to_owned(),
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
        // How long it is good for is the gate's to judge.
        let glass = self.broken_glass(i64::MIN).is_some();
        let enough = glass || self.counted() >= self.decided.quorum.count.max(1) as usize;
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

    /// How many of the needed votes were given, by the groups that people had when they were asked.
    pub fn counted(&self) -> usize {
        self.decided.votes(self.approvals().map(|v| v.person.as_str()))
    }

    /// Groups of which somebody must still say yes, where each must answer for another one.
    pub fn still_asked(&self) -> Vec<String> {
        self.decided.still_asked(self.approvals().map(|v| v.person.as_str()))
    }

    /// Landed and failed, and not a revert itself.
    pub fn is_revertible(&self) -> bool {
        let failed = self.end.as_ref().is_some_and(|e| matches!(e.ending, Ending::Failed | Ending::TimedOut));
        failed && self.landed.is_some() && self.proposal.reverts.is_none()
    }

    /// Whether the button Prepare revert may still do something: for what failed, and for what waits at the engine.
    pub fn may_ask_revert(&self) -> bool {
        let waits = self.end.is_none() && self.landed.is_some() && self.proposal.reverts.is_none();
        let healthy = self.seen.as_ref().is_some_and(|s| s.verdict == Verdict::Healthy);
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

    /// Whoever let their own yes suffice, while it does.
    pub fn broken_glass(&self, now: i64) -> Option<&Glass> {
        self.glass.as_ref().filter(|g| now < g.until && self.approvals().any(|v| v.person == g.person))
    }

    /// The no vote, if there is one.
    pub fn rejection(&self) -> Option<&Vote> {
        self.votes.iter().find(|v| !v.approve)
    }
}
