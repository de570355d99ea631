//! The YAML form of a policy file, word for word; its schema for editors is made from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::quota::By;
use crate::model::{Confirm, Delivery, Level, Operation, RiskLevel};

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(v) => vec![v],
            Self::Many(v) => v,
        }
    }
}

/// A policy file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    /// Version of the form: 1.
    pub version: u32,
    /// What counts where no rule matches; absent means deny.
    #[serde(default)]
    pub default: Option<RawDefault>,
    /// Rules. All that match count.
    #[serde(default)]
    pub rules: Vec<RawRule>,
    /// Times during which nothing leaves, or only with a freeze's own approvers.
    #[serde(default)]
    pub freeze: Vec<RawFreeze>,
    /// Tests, run by `policy check` and `policy test`.
    #[serde(default)]
    pub tests: Vec<TestCase>,
}

/// What counts where no rule matches.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDefault {
    /// Level.
    pub level: Level,
    /// Who is asked; with level prompted.
    #[serde(default)]
    pub approve: Option<RawApprove>,
    /// How a change reaches the branch.
    #[serde(default)]
    pub deliver: Option<Delivery>,
    /// Beyond these a person commits it.
    #[serde(default)]
    pub caps: RawCaps,
    /// Groups to tell.
    #[serde(default)]
    pub tell: Vec<String>,
    /// What a moved base does to an approval.
    #[serde(default)]
    pub on_base_move: Option<RawBaseMove>,
}

/// A rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    /// Name, unique over all files.
    pub id: String,
    /// What it matches; every condition that is given must hold.
    #[serde(rename = "match")]
    pub matches: RawMatch,
    /// Condition in CEL over the values before and after; where it cannot be evaluated the rule still counts.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub when: Option<Spanned<String>>,
    /// Level.
    pub level: Level,
    /// Who is asked; with level prompted.
    #[serde(default)]
    pub approve: Option<RawApprove>,
    /// How a change reaches the branch.
    #[serde(default)]
    pub deliver: Option<Delivery>,
    /// Beyond these a person commits it.
    #[serde(default)]
    pub caps: RawCaps,
    /// Changes within 24 hours; beyond it they are refused.
    #[serde(default)]
    pub quota: Option<RawQuota>,
    /// Groups to tell.
    #[serde(default)]
    pub tell: Vec<String>,
    /// What a moved base does to an approval.
    #[serde(default)]
    pub on_base_move: Option<RawBaseMove>,
}

/// What a rule or a freeze matches. `*` in names stands for any run of characters.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMatch {
    /// Labels of Cluster, Repository and object, before and after the edit.
    pub labels: BTreeMap<String, OneOrMany<String>>,
    /// Operations.
    #[schemars(schema_with = "operations")]
    pub operation: Option<OneOrMany<String>>,
    /// Clusters.
    pub cluster: Option<OneOrMany<String>>,
    /// Namespaces.
    pub namespace: Option<OneOrMany<String>>,
    /// Kinds.
    pub kind: Option<OneOrMany<String>>,
    /// Agents.
    pub agent: Option<OneOrMany<String>>,
    /// Repositories.
    pub repository: Option<OneOrMany<String>>,
    /// Risk levels, exactly these.
    pub risk: Option<OneOrMany<RiskLevel>>,
}

/// Who is asked, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApprove {
    /// Groups of Persons.
    pub from: Vec<String>,
    /// How many different people.
    #[serde(default = "one")]
    pub count: u32,
    /// How long an approval may take (`30m`; at most 24h, 1h if absent).
    #[serde(default)]
    pub expires: Option<String>,
    /// How often people are reminded.
    #[serde(default)]
    pub remind: Option<String>,
    /// Who is asked as well where nobody decided for a while; their yes counts too.
    #[serde(default)]
    pub escalate: Option<RawEscalate>,
    /// What a yes takes besides a press.
    #[serde(default)]
    pub confirm: Option<Confirm>,
    /// The agent's sponsor counts too (installations of one person).
    #[serde(default)]
    pub allow_sponsor: bool,
    /// Each of the `count` people must answer for another of the groups; a person in two answers for one of them.
    #[serde(default)]
    pub different_groups: bool,
}

/// A second group, asked later.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEscalate {
    /// How long after the proposal (`10m`).
    pub after: String,
    /// Groups of Persons.
    pub to: Vec<String>,
}

/// Upper bounds of one change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCaps {
    /// Changed files.
    pub files: Option<u32>,
    /// Added plus removed lines.
    pub lines: Option<u32>,
    /// Changed objects.
    pub objects: Option<u32>,
}

/// Upper bound of changes within 24 hours.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuota {
    /// How many.
    pub per_day: u32,
    /// Whose are counted: each agent's own, all of the rule, or those of each object.
    #[serde(default)]
    pub by: By,
}

/// What happens to an approval when the branch moved on without touching what was approved.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawBaseMove {
    /// It is proved anew and goes on.
    Continue,
    /// People are asked again.
    Reapprove,
}

/// A time during which nothing leaves. Exactly one of weekly, daily, between and cron.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFreeze {
    /// Name, unique over all files.
    pub id: String,
    /// What it is about; absent = everything.
    #[serde(default, rename = "match")]
    pub matches: RawMatch,
    /// Time zone (`Europe/Berlin`, `UTC`).
    pub zone: String,
    /// Once a week, from a day and time to another.
    #[serde(default)]
    pub weekly: Option<RawWeekly>,
    /// On some days of the week, from a time to another; an earlier end is on the next day.
    #[serde(default)]
    pub daily: Option<RawDaily>,
    /// Once.
    #[serde(default)]
    pub between: Option<RawBetween>,
    /// Whenever a schedule fires, for some time.
    #[serde(default)]
    pub cron: Option<RawCron>,
    /// Who may let a change through meanwhile; absent = nobody.
    #[serde(default)]
    pub approve: Option<RawFreezeApprove>,
    /// Why, for people and agents.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Once a week.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWeekly {
    /// `fri 17:00`.
    pub from: String,
    /// `mon 08:00`.
    pub to: String,
}

/// On some days of the week.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDaily {
    /// `mon` to `sun`; absent = every day.
    #[serde(default)]
    pub days: Option<Vec<String>>,
    /// `22:00`.
    pub from: String,
    /// `06:00`; `24:00` is the day's end.
    pub to: String,
}

/// Once, from a date and time to another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBetween {
    /// `2026-12-20T00:00`.
    pub from: String,
    /// `2027-01-04T08:00`.
    pub to: String,
}

/// Whenever a schedule fires.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCron {
    /// Minute, hour, day of month, month, day of week.
    pub at: String,
    /// How long (`6h`, at most 31d).
    #[serde(rename = "for")]
    pub length: String,
}

/// Who may let a change through during a freeze.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFreezeApprove {
    /// Groups of Persons; whoever says yes must be in one of these and in what the rules ask.
    pub from: Vec<String>,
    /// How many different people.
    #[serde(default = "one")]
    pub count: u32,
}

/// One test of a policy file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestCase {
    /// Name; absent = its number.
    #[serde(default)]
    pub name: Option<String>,
    /// The change.
    pub given: Given,
    /// What is to be decided; only what is named is compared.
    pub expect: Expect,
    /// File that it is in.
    #[serde(skip)]
    pub file: String,
}

/// A change in short form; what is left out has a harmless value.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Given {
    /// Operations, each on an object of its own.
    #[schemars(schema_with = "operations")]
    pub operation: Option<OneOrMany<String>>,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// Labels after the edit, where it changes them.
    pub labels_after: Option<BTreeMap<String, String>>,
    /// `change.before` of conditions; absent = nothing is known.
    pub before: Option<Map<String, Value>>,
    /// `change.after` of conditions; absent = nothing is known.
    pub after: Option<Map<String, Value>>,
    /// Cluster.
    pub cluster: Option<String>,
    /// Labels of the Cluster.
    pub cluster_labels: BTreeMap<String, String>,
    /// Repository.
    pub repository: Option<String>,
    /// Labels of the Repository.
    pub repository_labels: BTreeMap<String, String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Kind.
    pub kind: Option<String>,
    /// Agent.
    pub agent: Option<String>,
    /// Risk.
    pub risk: Option<RiskLevel>,
    /// Changed files.
    pub files: Option<u32>,
    /// Added plus removed lines.
    pub lines: Option<u32>,
    /// Changed objects.
    pub objects: Option<u32>,
    /// Why the change is privileged.
    pub privileged: Option<String>,
    /// When (`2026-12-24T10:00:00+01:00`).
    pub now: Option<String>,
    /// Changes of the last 24 hours that the quota of a rule has counted, by rule.
    pub counted: BTreeMap<String, u32>,
}

/// What a test expects; only what is named is compared.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// Level.
    pub level: Level,
    /// All rules that count, in any order.
    #[serde(default)]
    pub rule: Option<OneOrMany<String>>,
    /// Delivery.
    #[serde(default)]
    pub deliver: Option<Delivery>,
    /// How many people.
    #[serde(default)]
    pub count: Option<u32>,
    /// Groups that are asked.
    #[serde(default)]
    pub from: Option<Vec<String>>,
    /// Whether each must answer for another group.
    #[serde(default)]
    pub different_groups: Option<bool>,
    /// How long an approval may take.
    #[serde(default)]
    pub expires: Option<String>,
    /// Freezes that are on, in any order.
    #[serde(default)]
    pub freeze: Option<OneOrMany<String>>,
    /// What a yes takes.
    #[serde(default)]
    pub confirm: Option<Confirm>,
    /// Groups that are asked later.
    #[serde(default)]
    pub escalate: Option<Vec<String>>,
    /// Code of the refusal.
    #[serde(default)]
    pub code: Option<String>,
}

fn operations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names = Operation::NAMES;
    schemars::json_schema!({
        "description": "Operations.",
        "anyOf": [{"enum": names}, {"type": "array", "items": {"enum": names}}],
    })
}

fn one() -> u32 {
    1
}
