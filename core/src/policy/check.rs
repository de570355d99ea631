//! What can be said about a policy before any change exists, and the tests beside its rules.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Facts, Target, decide, glob, level_word, same_person};
use super::file::{Expect, Given, TestCase, seconds};
use super::rule::{DEFAULT, Match, PolicySet, Rule};
use crate::model::{Delivery, Level, Named, Operation, PersonSpec, RiskLevel};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Probably not meant.
    Warning,
    /// Will refuse or never do what the rule says.
    Error,
}

/// One thing that `policy check` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Stable code.
    pub code: &'static str,
    /// File; empty for the whole set.
    pub file: String,
    /// Rule; empty for the whole set.
    pub rule: String,
    /// One sentence.
    pub message: String,
}

/// Names that exist in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Clusters.
    pub clusters: Vec<String>,
    /// Repositories.
    pub repositories: Vec<String>,
    /// Agents.
    pub agents: Vec<String>,
}

/// How one test of a policy file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// File.
    pub file: String,
    /// Name, or its number in the file.
    pub name: String,
    /// Why it failed; empty = it passed.
    pub failures: Vec<String>,
}

/// Everything that can reach standard, every rule that can never decide anything, and every group
/// that cannot answer. Errors first.
pub fn check(set: &PolicySet, people: &[Named<PersonSpec>]) -> Vec<Finding> {
    let mut out = Vec::new();
    if set.rules().is_empty() && set.default_rule().is_none() {
        out.push(whole(Severity::Error, "policy.empty", "There is no rule: every change is refused."));
    } else if set.default_rule().is_none() {
        out.push(whole(Severity::Info, "policy.no_default", "There is no default: what no rule matches is refused."));
    }
    for rule in set.rules().iter().chain(set.default_rule()) {
        check_people(rule, people, &mut out);
        check_standard(rule, &mut out);
        check_caps(rule, &mut out);
    }
    for rule in set.rules() {
        if let Some(by) = set.rules().iter().find(|o| o.id != rule.id && outdoes(o, rule)) {
            out.push(about(
                rule,
                Severity::Warning,
                "policy.never_decides",
                format!(
                    "Rule {} matches whenever this one does and says {}, so this level never counts.",
                    by.id,
                    level_word(by.level)
                ),
            ));
        }
    }
    for (i, a) in people.iter().enumerate() {
        for b in people.iter().skip(i + 1) {
            if a.name == b.name || same_person(&a.spec, &b.spec) {
                out.push(whole(
                    Severity::Error,
                    "policy.same_person",
                    &format!("{} and {} share a name, an account or a key: they count as one person.", a.name, b.name),
                ));
            }
        }
    }
    out.sort_by_key(|f| std::cmp::Reverse(f.severity));
    out
}

/// Rules that name a cluster, a repository or an agent that the configuration does not have.
pub fn check_names(set: &PolicySet, known: &Known) -> Vec<Finding> {
    let mut out = Vec::new();
    for rule in set.rules() {
        let m = &rule.matches;
        let lists = [
            ("cluster", &m.cluster, &known.clusters),
            ("repository", &m.repository, &known.repositories),
            ("agent", &m.agent, &known.agents),
        ];
        for (what, wanted, have) in lists {
            let Some(wanted) = wanted else { continue };
            let missing: Vec<&str> =
                wanted.iter().filter(|w| !have.iter().any(|h| glob(w, h))).map(String::as_str).collect();
            if missing.len() == wanted.len() {
                let text = format!("No {what} is called {}: the rule can never match.", missing.join(" or "));
                out.push(about(rule, Severity::Error, "policy.never_matches", text));
            } else if !missing.is_empty() {
                let text = format!("No {what} is called {}.", missing.join(" or "));
                out.push(about(rule, Severity::Warning, "policy.unknown_name", text));
            }
        }
    }
    out
}

fn check_people(rule: &Rule, people: &[Named<PersonSpec>], out: &mut Vec<Finding>) {
    let known: BTreeSet<&str> = people.iter().flat_map(|p| p.spec.groups.iter().map(String::as_str)).collect();
    let from = rule.approve.iter().flat_map(|a| a.from.iter());
    for group in from.chain(&rule.tell).collect::<BTreeSet<_>>() {
        if !known.contains(group.as_str()) {
            out.push(about(rule, Severity::Error, "policy.unknown_group", format!("Nobody is in group {group}.")));
        }
    }
    let Some(a) = &rule.approve else { return };
    let mut distinct: Vec<&PersonSpec> = Vec::new();
    for p in people.iter().filter(|p| p.spec.groups.iter().any(|g| a.from.contains(g))) {
        let reach = match rule.deliver {
            Some(Delivery::PullRequest) => p.spec.forge.is_some(),
            _ => p.spec.telegram.is_some() || !p.spec.ssh_keys.is_empty(),
        };
        if reach && !distinct.iter().any(|d| same_person(d, &p.spec)) {
            distinct.push(&p.spec);
        }
    }
    if distinct.len() < a.count as usize {
        let text =
            format!("{} people must say yes, but only {} in {} can.", a.count, distinct.len(), a.from.join(", "));
        out.push(about(rule, Severity::Error, "policy.no_approvers", text));
    }
    if rule.deliver == Some(Delivery::PullRequest) && a.count > 1 {
        let text = "With pull_request one merge is the approval; several people need merge_after_approval.".to_owned();
        out.push(about(rule, Severity::Error, "policy.pull_request_quorum", text));
    }
    if a.allow_sponsor {
        let text = "The agent's own sponsor may approve: only for installations of one person.".to_owned();
        out.push(about(rule, Severity::Warning, "policy.sponsor_allowed", text));
    }
    if a.remind_s.is_some_and(|r| r >= a.expires_s.unwrap_or(3600)) {
        out.push(about(
            rule,
            Severity::Warning,
            "policy.reminds_too_late",
            "The approval expires before the first reminder.".to_owned(),
        ));
    }
}

fn check_standard(rule: &Rule, out: &mut Vec<Finding>) {
    if rule.level != Level::Standard {
        return;
    }
    let text = format!("Commits without a person: {}.", in_words(&rule.matches));
    out.push(about(rule, Severity::Info, "policy.reaches_standard", text));
    if rule.id == DEFAULT {
        let text = "The default lets through whatever no rule thought of.".to_owned();
        out.push(about(rule, Severity::Error, "policy.default_standard", text));
    }
    if rule.tell.is_empty() {
        out.push(about(
            rule,
            Severity::Warning,
            "policy.nobody_told",
            "Nobody is told about these changes; add `tell`.".to_owned(),
        ));
    }
    let everything = rule.matches == Match::default() && rule.id != DEFAULT;
    if everything || rule.matches.operation.is_none() {
        out.push(about(
            rule,
            Severity::Warning,
            "policy.any_operation",
            "Every operation is included, deletions too; name them.".to_owned(),
        ));
    }
}

fn check_caps(rule: &Rule, out: &mut Vec<Finding>) {
    let caps = [rule.caps.files, rule.caps.lines, rule.caps.objects];
    if caps.contains(&Some(0)) && rule.level < Level::Manual {
        let text = "A cap of 0 makes every change manual.".to_owned();
        out.push(about(rule, Severity::Warning, "policy.never_decides", text));
    }
}

/// Whether `other` is stricter than `rule` and matches at least whatever `rule` matches.
fn outdoes(other: &Rule, rule: &Rule) -> bool {
    let wider = |o: &Option<Vec<String>>, r: &Option<Vec<String>>| match (o, r) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(o), Some(r)) => r.iter().all(|v| o.iter().any(|p| p == v || (!v.contains('*') && glob(p, v)))),
    };
    let (o, r) = (&other.matches, &rule.matches);
    other.level > rule.level
        && o.labels.iter().all(|(k, ov)| r.labels.get(k).is_some_and(|rv| rv.iter().all(|v| ov.contains(v))))
        && wider(&o.operation, &r.operation)
        && wider(&o.cluster, &r.cluster)
        && wider(&o.namespace, &r.namespace)
        && wider(&o.kind, &r.kind)
        && wider(&o.agent, &r.agent)
        && wider(&o.repository, &r.repository)
        && match (&o.risk, &r.risk) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(o), Some(r)) => r.iter().all(|v| o.contains(v)),
        }
}

fn in_words(m: &Match) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.push(m.operation.as_ref().map_or_else(|| "every operation".to_owned(), |o| o.join(" or ")));
    let lists = [
        ("cluster", &m.cluster),
        ("namespace", &m.namespace),
        ("kind", &m.kind),
        ("agent", &m.agent),
        ("repository", &m.repository),
    ];
    for (what, list) in lists {
        parts.extend(list.iter().map(|l| format!("{what} {}", l.join(" or "))));
    }
    parts.extend(m.labels.iter().map(|(k, v)| format!("{k}={}", v.join("|"))));
    parts.join(", ")
}

fn about(rule: &Rule, severity: Severity, code: &'static str, message: String) -> Finding {
    Finding { severity, code, file: rule.file.clone(), rule: rule.id.clone(), message }
}

fn whole(severity: Severity, code: &'static str, message: &str) -> Finding {
    Finding { severity, code, file: String::new(), rule: String::new(), message: message.to_owned() }
}

/// Runs the tests beside the rules. Every group is taken to be staffed: whether it is, says [`check`].
pub fn run_tests(set: &PolicySet) -> Vec<TestOutcome> {
    let people = stand_ins(set);
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    set.tests
        .iter()
        .map(|t| {
            let n = numbers.entry(&t.file).or_default();
            *n += 1;
            TestOutcome {
                file: t.file.clone(),
                name: t.name.clone().unwrap_or_else(|| format!("test {n}")),
                failures: run_one(set, &people, t),
            }
        })
        .collect()
}

/// As many stand-ins in each group as any rule asks for.
fn stand_ins(set: &PolicySet) -> Vec<Named<PersonSpec>> {
    let asked: Vec<_> = set.rules().iter().chain(set.default_rule()).filter_map(|r| r.approve.as_ref()).collect();
    // A file may ask for absurdly many people; a test then fails on the count, not on memory.
    let count = asked.iter().map(|a| a.count).max().unwrap_or(1).min(100);
    let groups: BTreeSet<&String> = asked.iter().flat_map(|a| &a.from).collect();
    let mut out: Vec<Named<PersonSpec>> = Vec::new();
    for group in groups {
        for i in 0..count {
            let spec = PersonSpec {
                telegram: Some(i64::try_from(out.len()).unwrap_or(i64::MAX).saturating_add(1)),
                forge: Some(format!("{group}-{i}")),
                groups: vec![group.clone()],
                ..PersonSpec::default()
            };
            out.push(Named { name: format!("{group}-{i}"), spec });
        }
    }
    out
}

fn run_one(set: &PolicySet, people: &[Named<PersonSpec>], t: &TestCase) -> Vec<String> {
    let d = decide(set, people, &facts_of(&t.given)).decided;
    let mut out = Vec::new();
    let mut differs = |what: &str, want: String, is: String| {
        if want != is {
            out.push(format!("{what} is {is}, expected {want}"));
        }
    };
    let Expect { level, rule, deliver, count, from, expires } = &t.expect;
    differs("level", level_word(*level).into(), level_word(d.level).into());
    if let Some(rule) = rule {
        let mut want = rule.clone().into_vec();
        let mut is = d.rules.clone();
        want.sort();
        is.sort();
        differs("rule", want.join(", "), is.join(", "));
    }
    if let Some(deliver) = deliver {
        differs("deliver", format!("{deliver:?}"), format!("{:?}", d.delivery));
    }
    if let Some(count) = count {
        differs("count", count.to_string(), d.quorum.count.to_string());
    }
    if let Some(from) = from {
        let mut want = from.clone();
        want.sort();
        differs("from", want.join(", "), d.quorum.groups.join(", "));
    }
    if let Some(Ok(s)) = expires.as_deref().map(seconds) {
        differs("expires", format!("{s} s"), format!("{} s", d.expires_s));
    }
    out
}

fn facts_of(g: &Given) -> Facts {
    let operations =
        g.operation.clone().map_or_else(|| vec![Operation::NAMES[0].to_owned()], super::file::OneOrMany::into_vec);
    let after = g.labels_after.clone().unwrap_or_else(|| g.labels.clone());
    let targets = operations
        .into_iter()
        .map(|operation| Target {
            operation,
            namespace: g.namespace.clone().unwrap_or_else(|| "default".into()),
            kind: g.kind.clone().unwrap_or_else(|| "Deployment".into()),
            labels_before: Some(g.labels.clone()),
            labels_after: Some(after.clone()),
        })
        .collect();
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
    }
}
