//! Changes within 24 hours. The counts are handed in: whoever decides has looked at the journal.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::error::Problem;

/// Over what a quota counts, in milliseconds. A window that slides: nothing opens at midnight.
pub const DAY_MS: i64 = 24 * 3_600_000;

/// Whose changes a quota counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Each agent's own under the rule.
    #[default]
    Agent,
    /// All under the rule.
    Rule,
    /// Those of the same object under the rule, by whichever agent.
    Target,
}

/// Upper bound of changes within 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many.
    pub per_day: u32,
    /// Whose.
    pub by: By,
}

/// Changes of the last 24 hours under each rule that has a quota, by the rule's id.
pub type Counts = BTreeMap<String, u32>;

/// A change that was proposed before, as far as quotas look at it.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// When it was proposed, milliseconds.
    pub at: i64,
    /// Rules that decided about it.
    pub rules: &'a [String],
    /// Who asked.
    pub agent: &'a str,
    /// Whether it touches an object that the present change touches.
    pub same_target: bool,
}

/// Counts the changes of the 24 hours before `now` for each rule that has a quota.
pub fn count<'a>(rules: &[Rule], agent: &str, now: i64, past: impl Iterator<Item = Past<'a>>) -> Counts {
    let mut out: Counts = rules.iter().filter(|r| r.quota.is_some()).map(|r| (r.id.clone(), 0)).collect();
    if out.is_empty() {
        return out;
    }
    for p in past.filter(|p| p.at > now.saturating_sub(DAY_MS)) {
        for rule in rules.iter().filter(|r| p.rules.contains(&r.id)) {
            let counts = match rule.quota.map(|q| q.by) {
                Some(By::Agent) => p.agent == agent,
                Some(By::Rule) => true,
                Some(By::Target) => p.same_target,
                None => false,
            };
            if let Some(n) = out.get_mut(&rule.id).filter(|_| counts) {
                *n = n.saturating_add(1);
            }
        }
    }
    out
}

/// The quota that one more change would exceed.
pub(super) fn exceeded(rules: &[&Rule], counts: &Counts) -> Option<Problem> {
    rules.iter().find_map(|r| {
        let quota = r.quota?;
        // What nobody counted cannot be within it.
        let so_far = counts.get(&r.id).copied().unwrap_or(u32::MAX);
        (so_far >= quota.per_day).then(|| {
            let whose = match quota.by {
                By::Agent => "of this agent",
                By::Rule => "of all agents",
                By::Target => "of this object",
            };
            Problem::new(
                "policy.quota",
                format!(
                    "Rule {} allows {} changes {whose} within 24 hours, and they are used up.",
                    r.id, quota.per_day
                ),
                "Wait until the oldest of them is a day ago, or ask the people who keep the policy.",
            )
            .later()
        })
    })
}
