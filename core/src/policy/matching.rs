//! Which rules count, for each object before and after the edit.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::condition::{Condition, Holds, Scope, disputed};
use super::facts::{Facts, Target};
use super::freeze::Freeze;
use super::rule::{DEFAULT, Match, OnBaseMove, PolicySet, Rule};
use super::words::{level_word, risk_word};
use crate::model::{Level, Operation};

/// One object at one moment, with the values that each label has at any source.
pub(super) struct View<'a> {
    target: &'a Target,
    facts: &'a Facts,
    phase: &'static str,
    /// Values by any source: enough to tighten.
    any: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The object is new, so its own labels are the agent's choice: they tighten, never loosen.
    is_new: bool,
    scope: OnceCell<Scope>,
}

/// How a rule meets a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meets {
    /// It does not, because.
    No(String),
    /// It may: sources disagree about a label, or its condition cannot be evaluated.
    Maybe(String),
    /// It does.
    Yes,
}

pub(super) fn views(facts: &Facts) -> Vec<View<'_>> {
    let mut out = Vec::new();
    for target in &facts.targets {
        let mut phases: Vec<(&'static str, Option<&BTreeMap<String, String>>)> = Vec::new();
        if target.labels_before.is_some() {
            phases.push(("before", target.labels_before.as_ref()));
        }
        if target.labels_after.is_some() {
            phases.push(("after", target.labels_after.as_ref()));
        }
        if phases.is_empty() {
            phases.push(("now", None));
        }
        for (phase, own) in phases {
            let mut any: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            let sources = [Some(&facts.cluster_labels), Some(&facts.repository_labels), own];
            for (k, v) in sources.into_iter().flatten().flatten() {
                any.entry(k).or_default().insert(v);
            }
            let is_new = target.labels_before.is_none();
            out.push(View { target, facts, phase, any, is_new, scope: OnceCell::new() });
        }
    }
    out
}

impl View<'_> {
    /// How a rule meets it, its condition included.
    pub(super) fn meets_rule(&self, rule: &Rule) -> Meets {
        let met = self.meets(&rule.matches);
        // Who takes an object over from nobody is asked about in words: a rule about every operation was
        // written about what is in Git already.
        let met = match met {
            Meets::Yes if self.target.operation == Operation::ADOPT && !rule.names(Operation::ADOPT) => {
                Meets::Maybe("it does not name the operation adopt".into())
            }
            met => met,
        };
        let (Some(when), false) = (&rule.when, matches!(met, Meets::No(_))) else { return met };
        match self.condition(when) {
            Holds::Yes => met,
            Holds::No => Meets::No(format!("`when` is false: {}", when.source())),
            Holds::Unclear(why) => Meets::Maybe(why),
        }
    }

    pub(super) fn meets(&self, m: &Match) -> Meets {
        match self.misses(m).into_iter().next() {
            Some((_, is)) => Meets::No(is),
            None => self.doubt(m).map_or(Meets::Yes, Meets::Maybe),
        }
    }

    /// Every condition of `match` that does not hold: what it asks for, and what is.
    pub(super) fn misses(&self, m: &Match) -> Vec<(String, String)> {
        let f = self.facts;
        let lists = [
            ("operation", &m.operation, self.target.operation.as_str()),
            ("cluster", &m.cluster, f.cluster.as_str()),
            ("namespace", &m.namespace, self.target.namespace.as_str()),
            ("kind", &m.kind, self.target.kind.as_str()),
            ("agent", &m.agent, f.agent.as_str()),
            ("repository", &m.repository, f.repository.as_str()),
        ];
        let mut out = Vec::new();
        for (what, wanted, is) in lists {
            if let Some(wanted) = wanted.as_ref().filter(|w| !w.iter().any(|p| glob(p, is))) {
                out.push((format!("{what} {}", wanted.join(" or ")), format!("{what} is {is}")));
            }
        }
        if let Some(wanted) = m.risk.as_ref().filter(|r| !r.contains(&f.risk)) {
            let wanted: Vec<&str> = wanted.iter().map(|r| risk_word(*r)).collect();
            out.push((format!("risk {}", wanted.join(" or ")), format!("risk is {}", risk_word(f.risk))));
        }
        for (key, wanted) in &m.labels {
            let need = || format!("label {key}={}", wanted.join("|"));
            match self.any.get(key.as_str()) {
                None => out.push((need(), format!("there is no label {key} {}", self.phase))),
                Some(values) if !values.iter().any(|v| wanted.iter().any(|w| w == v)) => {
                    out.push((need(), format!("label {key} is {} {}", join(values), self.phase)));
                }
                Some(_) => {}
            }
        }
        out
    }

    /// Why labels that match are not to be relied on.
    fn doubt(&self, m: &Match) -> Option<String> {
        let mut doubt = None;
        for (key, wanted) in &m.labels {
            let Some(values) = self.any.get(key.as_str()) else { continue };
            if values.iter().any(|v| !wanted.iter().any(|w| w == v)) {
                doubt = Some(format!("sources disagree about label {key}: {}", join(values)));
            } else if self.is_new && !self.configured(key) {
                doubt = Some(format!("label {key} stands only on the new object itself"));
            }
        }
        doubt
    }

    fn configured(&self, key: &str) -> bool {
        [&self.facts.cluster_labels, &self.facts.repository_labels].iter().any(|l| l.contains_key(key))
    }

    pub(super) fn condition(&self, when: &Condition) -> Holds {
        if when.uses().sides && self.target.values.is_none() {
            return Holds::Unclear("the values before and after are not known".into());
        }
        if let Some(key) = when.looks_at(disputed(&self.any)) {
            return Holds::Unclear(format!("sources disagree about label {key}"));
        }
        // Which labels a new object has, and which it lacks, is the agent's choice.
        if self.is_new && when.looks_at_other_than(|key| self.configured(key)) {
            return Holds::Unclear("the condition looks at labels that a new object gives itself".into());
        }
        when.holds(self.scope.get_or_init(|| self.variables()))
    }

    fn variables(&self) -> Scope {
        let f = self.facts;
        let labels: BTreeMap<&str, &str> =
            self.any.iter().filter(|(_, v)| v.len() == 1).filter_map(|(k, v)| Some((*k, *v.first()?))).collect();
        let values = self.target.values.as_ref();
        let side = |s: Option<&serde_json::Map<String, Value>>| s.map_or(Value::Null, |m| Value::Object(m.clone()));
        let mut change = serde_json::Map::new();
        for (key, value) in
            [("operation", &self.target.operation), ("namespace", &self.target.namespace), ("kind", &self.target.kind)]
        {
            change.insert(key.into(), value.clone().into());
        }
        if let Some(v) = values {
            change.insert("before".into(), side(v.before.as_ref()));
            change.insert("after".into(), side(v.after.as_ref()));
        }
        let variables = BTreeMap::from([
            ("change", Value::Object(change)),
            ("labels", json!(labels)),
            ("cluster", json!(f.cluster)),
            ("repository", json!(f.repository)),
            ("agent", json!(f.agent)),
            ("risk", json!(risk_word(f.risk))),
            ("files", json!(f.files)),
            ("lines", json!(f.lines)),
            ("objects", json!(f.objects)),
        ]);
        Scope::new(variables, f.now)
    }

    fn words(&self) -> String {
        let place = if self.target.namespace.is_empty() { "the cluster" } else { &self.target.namespace };
        format!("{} of {} in {place}", self.target.operation, self.target.kind)
    }
}

/// Rules that count, the default among them where it does, and why.
///
/// Rules that match only one of several objects, or only before or after the edit, count as well;
/// the default counts in addition wherever an object is not clearly covered by any rule.
pub(super) fn matching<'a>(set: &'a PolicySet, views: &[View<'_>]) -> (Vec<&'a Rule>, Vec<String>) {
    let mut covered = vec![false; views.len()];
    let mut rules = Vec::new();
    let mut why = Vec::new();
    for rule in set.rules() {
        let mut best: Option<Option<String>> = None;
        for (view, covered) in views.iter().zip(&mut covered) {
            match view.meets_rule(rule) {
                Meets::No(_) => {}
                Meets::Maybe(doubt) => best = best.or(Some(Some(doubt))),
                Meets::Yes => {
                    *covered = true;
                    best = Some(None);
                }
            }
        }
        if let Some(doubt) = best {
            let doubt = doubt.map_or_else(String::new, |d| format!(" ({d})"));
            why.push(format!("Rule {} says {}{doubt}.", rule.id, level_word(rule.level)));
            rules.push(rule);
        }
    }
    let open = views.iter().zip(&covered).find(|(_, c)| !**c).map(|(v, _)| v);
    if views.is_empty() || open.is_some() {
        let about = open.map_or_else(String::new, |v| format!(" for {}", v.words()));
        let level = set.default_rule().map_or(Level::Deny, |d| d.level);
        why.push(format!("No rule clearly matches{about}; the default says {}.", level_word(level)));
        match set.default_rule() {
            Some(d) => rules.push(d),
            None => rules.push(deny_all()),
        }
    }
    (rules, why)
}

/// Freezes that are on, with their ends.
pub(super) fn frozen<'a>(set: &'a PolicySet, facts: &Facts, views: &[View<'_>]) -> Vec<(&'a Freeze, DateTime<Utc>)> {
    let about = |f: &Freeze| views.is_empty() || views.iter().any(|v| !matches!(v.meets(&f.matches), Meets::No(_)));
    set.freezes()
        .iter()
        .filter(|f| about(f))
        .filter_map(|f| match DateTime::from_timestamp_millis(facts.now) {
            Some(now) => Some((f, f.until(now)?)),
            // A moment outside of any calendar: every freeze is on.
            None => Some((f, DateTime::<Utc>::MAX_UTC)),
        })
        .collect()
}

/// The default of a policy that has none.
fn deny_all() -> &'static Rule {
    static DENY: std::sync::LazyLock<Rule> = std::sync::LazyLock::new(|| Rule {
        id: DEFAULT.to_owned(),
        file: String::new(),
        matches: Match::default(),
        when: None,
        level: Level::Deny,
        approve: None,
        deliver: None,
        caps: super::rule::Caps::default(),
        quota: None,
        tell: Vec::new(),
        on_base_move: OnBaseMove::Continue,
    });
    &DENY
}

/// `*` stands for any run of characters; everything else for itself.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut tail: Vec<&str> = parts.collect();
    let Some(last) = tail.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in tail {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn join(values: &BTreeSet<&str>) -> String {
    values.iter().copied().collect::<Vec<_>>().join(" and ")
}
