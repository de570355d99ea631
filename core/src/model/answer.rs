//! What tools answer. Every answer has an outcome, what it waits for, and what to call next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DeliveryState, Edit, Hop, Level, OwnerRef, Risk, Source};
use crate::error::Problem;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Facts, as asked.
    Found,
    /// Planned only: nobody was asked, nothing was written.
    Planned,
    /// Waits for a person, for a merge or for the engine.
    Waiting,
    /// A person commits it: the patch is in the answer.
    Manual,
    /// Done: delivered, synced and healthy.
    Healthy,
    /// Ended without success (rejected, expired, failed, superseded, cancelled).
    Ended,
    /// The call is ambiguous: send one of `choices`.
    NeedsChoice,
    /// Refused: see `problem`.
    Refused,
}

/// The next call to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Next {
    /// Tool.
    pub tool: String,
    /// Its arguments, ready to send.
    pub args: Value,
    /// Seconds to wait before.
    pub after_s: u32,
    /// What to tell the person you work for.
    pub say: String,
}

/// One of several ways to go on, ready to send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// What this choice does.
    pub what: String,
    /// Tool.
    pub tool: String,
    /// Its arguments, ready to send.
    pub args: Value,
}

/// Arguments of `inspect`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InspectArgs {
    /// Live object: cluster/namespace/Kind/name. Without it: clusters, owners and what is not healthy.
    #[serde(default)]
    pub target: Option<String>,
    /// Where a listing goes on.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// Arguments of `operate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperateArgs {
    /// Edits; all in one repository and branch.
    pub edits: Vec<Edit>,
    /// Why, in your words; shown to people as unverified, at most 300 characters.
    pub reason: String,
    /// Idempotency key: the same key gives the same change again.
    #[serde(default)]
    pub key: Option<String>,
    /// Only show owner, diff, risk and decision; asks nobody.
    #[serde(default)]
    pub plan_only: bool,
}

/// Arguments of `change`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeArgs {
    /// Change id or short name.
    pub change: String,
    /// Seconds to wait for news, at most 45.
    #[serde(default)]
    pub wait_s: Option<u32>,
}

/// Arguments of `changes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangesArgs {
    /// Only open ones, only ended ones, or all.
    #[serde(default)]
    pub state: ChangeFilter,
    /// Only those that touch this target.
    #[serde(default)]
    pub target: Option<String>,
    /// Where a listing goes on.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// Filter of `changes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeFilter {
    /// Open ones.
    #[default]
    Open,
    /// Ended ones.
    Ended,
    /// All.
    All,
}

/// Arguments of `cancel`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelArgs {
    /// Change id or short name.
    pub change: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Arguments of `rollback`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackArgs {
    /// Landed change to undo, by id or short name.
    pub change: String,
    /// Why.
    pub reason: String,
    /// Only show what it would do.
    #[serde(default)]
    pub plan_only: bool,
}

/// One changed leaf, for agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// `Deployment shop/checkout`.
    pub object: String,
    /// JSON pointer.
    pub pointer: String,
    /// Before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// One thing that happened to a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoryLine {
    /// RFC 3339.
    pub at: String,
    /// One sentence.
    pub what: String,
}

/// What a policy said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionView {
    /// Level.
    pub level: Level,
    /// How it is delivered.
    pub delivery: super::Delivery,
    /// Rules that said so.
    pub rules: Vec<String>,
    /// Who is asked, in words.
    pub asks: String,
}

/// Answer of `operate`, `change`, `cancel` and `rollback`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeAnswer {
    /// How the call ended.
    pub outcome: Outcome,
    /// One sentence.
    pub summary: String,
    /// Change id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// State of the change (`awaiting_approval`, `observing`, `healthy`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What it waits for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerRef>,
    /// Repository, branch and files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Changed leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Unified diff, capped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// Decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionView>,
    /// Commit that is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Pull request address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// What happened, oldest first, capped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub story: Vec<StoryLine>,
    /// Things to know before or after (suspended owner, sync window).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Ways to go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What to call next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
}

impl ChangeAnswer {
    /// An answer with nothing but outcome and summary.
    pub fn new(outcome: Outcome, summary: impl Into<String>) -> Self {
        Self {
            outcome,
            summary: summary.into(),
            change: None,
            name: None,
            state: None,
            waits_for: None,
            owner: None,
            files: Vec::new(),
            fields: Vec::new(),
            diff: None,
            risk: None,
            decision: None,
            commit: None,
            pull_request: None,
            story: Vec::new(),
            notes: Vec::new(),
            choices: Vec::new(),
            problem: None,
            next: None,
        }
    }

    /// A refusal.
    pub fn refused(problem: Problem) -> Self {
        let mut a = Self::new(Outcome::Refused, problem.message.clone());
        a.problem = Some(problem);
        a
    }
}

/// Answer of `inspect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InspectAnswer {
    /// How the call ended.
    pub outcome: Outcome,
    /// One sentence.
    pub summary: String,
    /// `owned`, `conflict`, `declared_not_applied`, `orphaned`, `unmanaged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<String>,
    /// Owner, where there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerRef>,
    /// Every hop with its evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Hop>,
    /// Claims, where they conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<super::Claim>,
    /// Git source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// File and line (`apps/checkout/deploy.yaml:31`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What stands between a commit and the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryState>,
    /// Health in words (`0/3 ready, CrashLoopBackOff (exit 1)`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// The fields that operations act on, redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Value>,
    /// Recent events, untrusted words of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Open changes of this object, or lines of a listing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// Where the listing goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What to call next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
}

impl InspectAnswer {
    /// An answer with nothing but outcome and summary.
    pub fn new(outcome: Outcome, summary: impl Into<String>) -> Self {
        Self {
            outcome,
            summary: summary.into(),
            ownership: None,
            owner: None,
            via: Vec::new(),
            claims: Vec::new(),
            source: None,
            file: None,
            delivery: None,
            health: None,
            object: None,
            events: Vec::new(),
            items: Vec::new(),
            cursor: None,
            problem: None,
            next: None,
        }
    }
}

/// One line of `changes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeLine {
    /// Change id.
    pub change: String,
    /// Short name.
    pub name: String,
    /// State.
    pub state: String,
    /// One sentence.
    pub what: String,
    /// RFC 3339.
    pub since: String,
}

/// Answer of `changes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangesAnswer {
    /// How the call ended.
    pub outcome: Outcome,
    /// One sentence.
    pub summary: String,
    /// Changes, newest first.
    pub changes: Vec<ChangeLine>,
    /// Where the listing goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What to call next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
}

/// Who calls: an Agent of the configuration, already authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Name of the Agent.
    pub agent: String,
    /// Name of the Person who answers for it.
    pub sponsor: String,
}
