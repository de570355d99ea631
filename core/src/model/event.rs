//! What is written to the journal. State is the fold of these.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ChangeId, Code, Delivery, DeliveryState, Digest, Edit, Effect, Ending, LeafChange, Level, OwnerRef, Principal,
    Quorum, Risk, Source, Verdict,
};
use crate::error::Problem;

/// One event as stored. `prev` and `hash` chain all events of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Version of the envelope.
    pub v: u32,
    /// Position in the whole journal, from 1.
    pub seq: u64,
    /// Hash of the event before, hex; 64 zeros for the first.
    pub prev: String,
    /// Hash of this event, hex.
    pub hash: String,
    /// ULID of the event.
    pub id: String,
    /// Change; `None` for events of the whole installation (stop, resume, policy).
    pub change: Option<ChangeId>,
    /// Position within the change, from 1: inserting (change, n) is the compare-and-swap.
    pub n: u64,
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Who: `agent:NAME`, `person:NAME`, `countersign`.
    pub actor: String,
    /// What.
    pub body: Body,
}

/// A live field that a change is to bring about (the `want` of the recordings).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// API group.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// JSON pointer into the live object, list items by index or `name=x`.
    #[serde(default)]
    pub path: String,
    /// Value; `None` with `exists: Some(false)` = gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// `Some(false)`: the field or object must be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// What was decided about a proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Level.
    pub level: Level,
    /// Delivery.
    pub delivery: Delivery,
    /// Who must say yes.
    pub quorum: Quorum,
    /// People who may (names), sponsor already taken out where it may not.
    pub approvers: Vec<String>,
    /// People to tell (names).
    pub tell: Vec<String>,
    /// Rules that matched.
    pub rules: Vec<String>,
    /// Version of the policy (hash of the files).
    pub policy_version: String,
    /// Seconds that an approval may take.
    pub expires_s: u32,
    /// A moved base voids the approval, however innocent the move.
    #[serde(default)]
    pub reapprove_on_move: bool,
    /// How the people are to be asked.
    #[serde(default, skip_serializing_if = "Obligations::is_empty")]
    pub obligations: Obligations,
    /// Freezes that were on, whose approvers alone are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<FreezeNote>,
    /// Where each must answer for another group: for which of them each approver can, as things were then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, Vec<String>>,
}

/// How the people of a decision are to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Obligations {
    /// Seconds between reminders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remind_s: Option<u32>,
    /// Who is asked later, soonest first. All of them are among [`Decided::approvers`]: their yes
    /// counts whenever it comes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub escalate: Vec<Escalation>,
    /// What a yes takes besides a press.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
}

impl Obligations {
    /// Nothing beyond a press by whoever is asked at once.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Seconds after which this person is asked; 0 = at once.
    pub fn asked_after_s(&self, person: &str) -> u32 {
        self.escalate.iter().find(|e| e.people.iter().any(|p| p == person)).map_or(0, |e| e.after_s)
    }
}

/// People who are asked where nobody decided for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// Seconds after the proposal.
    pub after_s: u32,
    /// Groups.
    pub groups: Vec<String>,
    /// People of these groups (names) who are not asked at once already.
    pub people: Vec<String>,
}

/// What a yes takes besides a press.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// The number that the card shows must be chosen among several.
    Number,
}

/// A freeze that was on when something was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeNote {
    /// Its id in the policy.
    pub id: String,
    /// When it ends, seconds since the epoch.
    pub until: i64,
}

/// A proposal, as first written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who asked.
    pub requester: Principal,
    /// Explicit idempotency key.
    pub key: Option<String>,
    /// SHA-256 of requester and edits: the derived idempotency key.
    pub content_key: String,
    /// The agent's words, redacted and capped.
    pub reason: String,
    /// The edits, as asked.
    pub edits: Vec<Edit>,
    /// Cluster (name in the configuration).
    pub cluster: String,
    /// Owner.
    pub owner: OwnerRef,
    /// Source at the owner.
    pub source: Source,
    /// Repository (name in the configuration).
    pub repository: String,
    /// Full ref.
    pub git_ref: String,
    /// Commit that the edit was planned on.
    pub base: String,
    /// Changed leaves.
    pub fields: Vec<LeafChange>,
    /// Live fields to wait for.
    pub want: Vec<Want>,
    /// What stands between a commit and the cluster.
    pub state: DeliveryState,
    /// Risk.
    pub risk: Risk,
    /// Unified diff, redacted.
    pub diff: String,
    /// Change that this one undoes.
    pub reverts: Option<ChangeId>,
    /// How the target was at proposal time (`0/3 ready, CrashLoopBackOff (exit 1)`).
    pub health: Option<String>,
    /// When it was healthy last (`1.9.1, until 02:58 (4be1d2a)`), where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_healthy: Option<String>,
    /// Changed files with their figures.
    pub files: Vec<FileNote>,
    /// Further things that people and agents are told.
    pub notes: Vec<String>,
    /// Objects by operation with their labels, as the policy saw them.
    pub targets: Value,
    /// Changed objects.
    pub objects: u32,
    /// Privileged path or kind, where one is touched.
    pub privileged: Option<String>,
    /// Everything that the policy decided on (`policy::Facts`), for deciding it anew later; null in
    /// the proposals of older versions.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

/// One changed file, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNote {
    /// Path from the repository's root.
    pub path: String,
    /// First changed line, from 1; 0 = unknown.
    pub line: u32,
    /// Added lines.
    pub added: u32,
    /// Removed lines.
    pub removed: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Body {
    /// A change was proposed, decided and sealed.
    Proposed {
        /// Proposal.
        proposal: Box<Proposal>,
        /// Decision.
        decided: Box<Decided>,
        /// Canonical JSON of the sealed change, as hashed.
        sealed: String,
        /// Its digest.
        digest: Digest,
    },
    /// About to do something outside.
    Intent {
        /// What.
        effect: Effect,
        /// Facts needed to find it again (commit id, branch, handle hashes).
        facts: Value,
    },
    /// It was done (or found done).
    Done {
        /// What.
        effect: Effect,
        /// Result (commit, number of the pull request, message id).
        result: Value,
    },
    /// It was not done.
    Failed {
        /// What.
        effect: Effect,
        /// Why.
        problem: Problem,
        /// No further try.
        last: bool,
    },
    /// A button was pressed; stored before the update is acknowledged.
    Pressed {
        /// Telegram's update id.
        update: i64,
        /// Callback id.
        callback: String,
        /// Who, by the configuration.
        person: String,
        /// `approve`, `reject`, `stop`; `armed` where a number must follow, `wrong_number`, `foreign`.
        action: String,
    },
    /// A card was pressed that nobody knew of: its sending was cut off before the answer was written. It is kept up to
    /// date from now on like the one that was sent instead.
    CardFound {
        /// Whose card it is.
        person: String,
        /// Message.
        message_id: i64,
    },
    /// Why a person said no, told after the no, which does not wait for it.
    Reasoned {
        /// Who.
        person: String,
        /// Their words, redacted; `None` = they were asked to write.
        reason: Option<String>,
    },
    /// A person wants an expired change to be asked about again.
    AgainAsked {
        /// Who.
        person: String,
    },
    /// What became of that wish.
    AgainPrepared {
        /// The change that asks again; `None` = none could be made.
        change: Option<ChangeId>,
        /// Why not.
        say: String,
    },
    /// A person wants the revert of a failed change prepared.
    RevertAsked {
        /// Who.
        person: String,
    },
    /// A person voted, on any channel.
    Voted {
        /// Who.
        person: String,
        /// `telegram`, `ssh`, `forge`.
        channel: String,
        /// Yes or no.
        approve: bool,
        /// Reason for no.
        reason: Option<String>,
        /// What was voted on.
        digest: Digest,
        /// Detached signature (ssh), armoured.
        proof: Option<String>,
    },
    /// A person of those who may let one yes, their own, suffice, in spite of quorum and freeze. Their vote follows.
    GlassBroken {
        /// Who.
        person: String,
        /// Why, in their words, redacted.
        reason: String,
        /// Until when, milliseconds since the epoch.
        until: i64,
        /// Detached signature, armoured.
        proof: String,
    },
    /// Another person looked at what was let through like that.
    Reviewed {
        /// Who.
        person: String,
        /// What they found, redacted.
        note: String,
        /// Detached signature, armoured.
        proof: String,
    },
    /// The gate let it through.
    Authorized {
        /// Digest.
        digest: Digest,
        /// People whose votes counted.
        by: Vec<String>,
        /// Policy version at that moment.
        policy_version: String,
    },
    /// The base moved innocently, and the edit was proved anew on it.
    Rebased {
        /// New base.
        base: String,
    },
    /// The watched commit is on the followed branch.
    Landed {
        /// Commit.
        commit: String,
        /// `push`, `merge`, `found`; in words where it was not the delivery that was approved.
        via: String,
    },
    /// The verdict changed.
    Observed {
        /// What is known.
        verdict: Verdict,
        /// Why.
        code: Code,
        /// Words.
        say: String,
    },
    /// The change ended.
    Closed {
        /// How.
        ending: Ending,
        /// One sentence.
        say: String,
    },
    /// After a failure: the change that would undo it.
    RevertPrepared {
        /// Its id; the change itself = there is none.
        change: ChangeId,
        /// Why there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        say: Option<String>,
    },
    /// Emergency stop.
    Stopped {
        /// Why.
        reason: String,
    },
    /// One person wants the emergency stop to end.
    ResumeVoted {
        /// Who.
        person: String,
        /// `telegram` or `ssh`.
        channel: String,
        /// Sequence number of the stop that is meant.
        stop: u64,
        /// Detached signature (ssh), armoured.
        proof: Option<String>,
    },
    /// End of the emergency stop.
    Resumed {
        /// Why.
        reason: String,
    },
    /// Journal head, signed.
    Checkpoint {
        /// Sequence number that is signed.
        seq: u64,
        /// Its hash.
        hash: String,
        /// Armoured ssh signature.
        signature: String,
    },
    /// Up to where the channel's updates were handled.
    Polled {
        /// Channel.
        channel: String,
        /// Next update id to ask for.
        offset: i64,
    },
    /// An account sent the pairing code of a person. It gives no right: the configuration does.
    PairingClaimed {
        /// Person whose code it was.
        person: String,
        /// Channel.
        channel: String,
        /// Numeric account there.
        account: i64,
    },
}
