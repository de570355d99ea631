//! The tests beside the rules.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::decide;
use super::facts::{Facts, Target};
use super::file::{moment, seconds};
use super::raw::{Expect, Given, OneOrMany, TestCase};
use super::rule::PolicySet;
use super::values::Values;
use super::words::{delivery_word, level_word};
use crate::model::{Named, Operation, PersonSpec, RiskLevel};

/// How one test of a policy file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// File.
    pub file: String,
    /// Name, or its number in the file.
    pub name: String,
    /// Why it failed; empty = it passed.
    pub failures: Vec<String>,
    /// Why it was decided so, one sentence each.
    pub why: Vec<String>,
}

/// Runs the tests beside the rules. Every group is taken to be staffed: whether it is, says [`super::check`].
pub fn run_tests(set: &PolicySet) -> Vec<TestOutcome> {
    let people = stand_ins(set);
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    set.tests
        .iter()
        .map(|t| {
            let n = numbers.entry(&t.file).or_default();
            *n += 1;
            let (failures, why) = run_one(set, &people, t);
            let name = t.name.clone().unwrap_or_else(|| format!("test {n}"));
            TestOutcome { file: t.file.clone(), name, failures, why }
        })
        .collect()
}

/// As many stand-ins in each group as any rule or freeze asks for; each is in every freeze's groups too.
pub fn stand_ins(set: &PolicySet) -> Vec<Named<PersonSpec>> {
    let asked: Vec<_> = set.rules().iter().chain(set.default_rule()).filter_map(|r| r.approve.as_ref()).collect();
    let frozen: Vec<_> = set.freezes().iter().filter_map(|f| f.approve.as_ref()).collect();
    // A file may ask for absurdly many people; a test then fails on the count, not on memory.
    let counts = asked.iter().map(|a| a.count).chain(frozen.iter().map(|(_, n)| *n));
    let count = counts.max().unwrap_or(1).min(100);
    let of_freezes: BTreeSet<&String> = frozen.iter().flat_map(|(from, _)| from).collect();
    let groups: BTreeSet<&String> = asked
        .iter()
        .flat_map(|a| a.from.iter().chain(a.escalate.iter().flat_map(|(_, to)| to)))
        .chain(of_freezes.iter().copied())
        .chain(set.rules().iter().chain(set.default_rule()).flat_map(|r| &r.tell))
        .collect();
    let mut out: Vec<Named<PersonSpec>> = Vec::new();
    for group in groups {
        for i in 0..count {
            let mut all: Vec<String> = of_freezes.iter().map(|g| (*g).clone()).collect();
            all.push(group.clone());
            let spec = PersonSpec {
                telegram: Some(i64::try_from(out.len()).unwrap_or(i64::MAX).saturating_add(1)),
                forge: Some(format!("{group}-{i}")),
                groups: all,
                ..PersonSpec::default()
            };
            out.push(Named { name: format!("{group}-{i}"), spec });
        }
    }
    out
}

fn run_one(set: &PolicySet, people: &[Named<PersonSpec>], t: &TestCase) -> (Vec<String>, Vec<String>) {
    let mut failures = Vec::new();
    let known = |id: &&String| !set.rules().iter().any(|r| r.id == **id && r.quota.is_some());
    if let Some(unknown) = t.given.counted.keys().find(known) {
        failures.push(format!("no rule {unknown} with a quota counts anything"));
    }
    // Without a moment no freeze is on: what is left out is harmless.
    let calm;
    let set = if t.given.now.is_some() {
        set
    } else {
        calm = set.without_freezes();
        &calm
    };
    let decision = decide(set, people, &facts_of(set, &t.given));
    let d = &decision.decided;
    let mut differs = |what: &str, want: String, is: String| {
        if want != is {
            failures.push(format!("{what} is {is}, expected {want}"));
        }
    };
    let Expect { level, rule, deliver, count, from, different_groups, expires, freeze, confirm, escalate, code } =
        &t.expect;
    let list = |mut names: Vec<String>| {
        names.sort();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    differs("level", level_word(*level).into(), level_word(d.level).into());
    if let Some(rule) = rule {
        differs("rule", list(rule.clone().into_vec()), list(d.rules.clone()));
    }
    if let Some(deliver) = deliver {
        differs("deliver", delivery_word(*deliver).into(), delivery_word(d.delivery).into());
    }
    if let Some(count) = count {
        differs("count", count.to_string(), d.quorum.count.to_string());
    }
    if let Some(from) = from {
        differs("from", list(from.clone()), list(d.quorum.groups.clone()));
    }
    if let Some(different) = different_groups {
        differs("different_groups", different.to_string(), d.quorum.different_groups.to_string());
    }
    if let Some(Ok(s)) = expires.as_deref().map(seconds) {
        differs("expires", format!("{s} s"), format!("{} s", d.expires_s));
    }
    if let Some(freeze) = freeze {
        let is = d.freezes.iter().map(|f| f.id.clone()).collect();
        differs("freeze", list(freeze.clone().into_vec()), list(is));
    }
    if let Some(confirm) = confirm {
        let is = d.obligations.confirm.map_or_else(|| "none".to_owned(), |c| format!("{c:?}"));
        differs("confirm", format!("{confirm:?}"), is);
    }
    if let Some(escalate) = escalate {
        let is = d.obligations.escalate.iter().flat_map(|e| e.groups.clone()).collect();
        differs("escalate", list(escalate.clone()), list(is));
    }
    if let Some(code) = code {
        differs("code", code.clone(), decision.problem.as_ref().map_or_else(|| "none".into(), |p| p.code.to_string()));
    }
    (failures, decision.why)
}

/// Midday on a Wednesday, where a test names no moment.
const CALM_MS: i64 = 1_767_787_200_000;

pub(super) fn facts_of(set: &PolicySet, g: &Given) -> Facts {
    let operations = g.operation.clone().map_or_else(|| vec![Operation::NAMES[0].to_owned()], OneOrMany::into_vec);
    let after = g.labels_after.clone().unwrap_or_else(|| g.labels.clone());
    let values = |operation: &str| {
        (g.before.is_some() || g.after.is_some()).then(|| Values {
            before: (operation != "create").then(|| g.before.clone().unwrap_or_default()),
            after: (operation != "delete").then(|| g.after.clone().unwrap_or_default()),
        })
    };
    let targets = operations
        .into_iter()
        .map(|operation| Target {
            values: values(&operation),
            operation,
            namespace: g.namespace.clone().unwrap_or_else(|| "default".into()),
            kind: g.kind.clone().unwrap_or_else(|| "Deployment".into()),
            labels_before: Some(g.labels.clone()),
            labels_after: Some(after.clone()),
        })
        .collect();
    let mut counts: super::Counts =
        set.rules().iter().filter(|r| r.quota.is_some()).map(|r| (r.id.clone(), 0)).collect();
    counts.extend(g.counted.clone());
    Facts {
        targets,
        cluster: g.cluster.clone().unwrap_or_else(|| "cluster".into()),
        cluster_labels: g.cluster_labels.clone(),
        repository: g.repository.clone().unwrap_or_else(|| "repository".into()),
        repository_labels: g.repository_labels.clone(),
        agent: g.agent.clone().unwrap_or_else(|| "agent".into()),
        sponsor: "the sponsor".into(),
        risk: g.risk.unwrap_or(RiskLevel::Low),
        files: g.files.unwrap_or(1),
        lines: g.lines.unwrap_or(2),
        objects: g.objects.unwrap_or(1),
        privileged: g.privileged.clone(),
        now: g.now.as_deref().and_then(|t| moment(t).ok()).unwrap_or(CALM_MS),
        counts,
    }
}
