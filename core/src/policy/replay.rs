//! The journal's past changes, decided anew.

use serde::Serialize;

use super::cases::stand_ins;
use super::decide::decide;
use super::facts::Facts;
use super::quota::{Past, count};
use super::rule::PolicySet;
use super::words::{delivery_word, level_word};
use crate::model::{Body, ChangeId, Decided, Event, LeafChange, Named, PersonSpec, short_name};

/// A decision in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Level.
    pub level: &'static str,
    /// Rules that count.
    pub rules: Vec<String>,
    /// Delivery.
    pub deliver: &'static str,
    /// How many people must say yes.
    pub count: u32,
    /// Groups that are asked.
    pub from: Vec<String>,
    /// Each of them must answer for another group.
    pub different_groups: bool,
    /// Seconds that an approval may take.
    pub expires_s: u32,
    /// Freezes that were on.
    pub freezes: Vec<String>,
}

impl Summary {
    fn of(d: &Decided) -> Self {
        let mut rules = d.rules.clone();
        rules.sort();
        Self {
            level: level_word(d.level),
            rules,
            deliver: delivery_word(d.delivery),
            count: d.quorum.count,
            from: d.quorum.groups.clone(),
            different_groups: d.quorum.different_groups,
            expires_s: d.expires_s,
            freezes: d.freezes.iter().map(|f| f.id.clone()).collect(),
        }
    }

    fn differences(&self, new: &Self) -> Vec<String> {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let pairs = [
            ("level", self.level.to_owned(), new.level.to_owned()),
            ("rules", list(&self.rules), list(&new.rules)),
            ("deliver", self.deliver.to_owned(), new.deliver.to_owned()),
            ("count", self.count.to_string(), new.count.to_string()),
            ("from", list(&self.from), list(&new.from)),
            ("different_groups", self.different_groups.to_string(), new.different_groups.to_string()),
            ("expires", format!("{} s", self.expires_s), format!("{} s", new.expires_s)),
            ("freezes", list(&self.freezes), list(&new.freezes)),
        ];
        pairs.into_iter().filter(|(_, a, b)| a != b).map(|(what, a, b)| format!("{what}: {a} -> {b}")).collect()
    }
}

/// One change under the other policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Change.
    pub change: ChangeId,
    /// Its short name.
    pub name: String,
    /// When it was proposed, milliseconds.
    pub at: i64,
    /// What it does (`scale of Deployment shop/checkout`).
    pub what: String,
    /// As it was decided.
    pub was: Summary,
    /// As it would be decided; `None` = the journal holds too little to say.
    pub would_be: Option<Summary>,
    /// What differs.
    pub differs: Vec<String>,
    /// Why it would be decided so.
    pub why: Vec<String>,
}

/// Decides every proposal of a journal anew, in its order. Quotas count what the new files would have
/// let through. People: those of now, or one stand-in for each that is needed where none are given.
pub fn replay(set: &PolicySet, people: Option<&[Named<PersonSpec>]>, events: &[Event]) -> Vec<Replayed> {
    struct Seen<'a> {
        at: i64,
        rules: Vec<String>,
        agent: &'a str,
        cluster: &'a str,
        fields: &'a [LeafChange],
    }
    let stand_ins = stand_ins(set);
    let people = people.unwrap_or(&stand_ins);
    let mut seen: Vec<Seen<'_>> = Vec::new();
    let mut out = Vec::new();
    for event in events {
        let (Some(change), Body::Proposed { proposal: p, decided, .. }) = (event.change, &event.body) else { continue };
        let was = Summary::of(decided);
        let operations: Vec<&str> = p.edits.iter().filter_map(|e| e.operation().ok()).map(|o| o.name()).collect();
        let object = p.fields.first().map_or_else(|| p.cluster.clone(), |l| l.object.to_string());
        let mut row = Replayed {
            change,
            name: short_name(&change),
            at: event.at,
            what: format!("{} of {object}", operations.join(", ")),
            was,
            would_be: None,
            differs: Vec::new(),
            why: Vec::new(),
        };
        let rules = match serde_json::from_value::<Facts>(p.facts.clone()) {
            Err(_) => {
                row.why.push("The journal does not hold what it was decided on (an older version wrote it).".into());
                decided.rules.clone()
            }
            Ok(facts) => {
                let past = seen.iter().map(|s| Past {
                    at: s.at,
                    rules: &s.rules,
                    agent: s.agent,
                    same_target: s.cluster == p.cluster
                        && s.fields.iter().any(|l| p.fields.iter().any(|m| m.object == l.object)),
                });
                let counts = count(set.rules(), &facts.agent, facts.now, past);
                let decision = decide(set, people, &Facts { counts, ..facts });
                let new = Summary::of(&decision.decided);
                row.differs = row.was.differences(&new);
                row.why = decision.why;
                row.would_be = Some(new);
                // What is refused is not in a journal, so it counts for no quota.
                if decision.problem.is_some() { Vec::new() } else { decision.decided.rules }
            }
        };
        seen.push(Seen { at: event.at, rules, agent: &p.requester.agent, cluster: &p.cluster, fields: &p.fields });
        out.push(row);
    }
    out
}
