//! What can be said about a policy before any change exists.

use std::collections::BTreeSet;

use super::matching::glob;
use super::people::{answering, lacking, reachable, same_person};
use super::rule::{Approve, DEFAULT, Match, PolicySet, Rule};
use super::samples::{TRIES, Tried, try_out};
use super::words::{level_word, risk_word};
use crate::model::{Delivery, Level, Named, PersonSpec, seats};

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

/// Everything that can reach standard, every rule that can never decide anything, and every group
/// that cannot answer. Errors first.
/// `now`: milliseconds since the epoch, for freezes that are over.
pub fn check(set: &PolicySet, people: &[Named<PersonSpec>], now: i64) -> Vec<Finding> {
    let mut out = Vec::new();
    if set.rules().is_empty() && set.default_rule().is_none() {
        out.push(whole(Severity::Error, "policy.empty", "There is no rule: every change is refused."));
    } else if set.default_rule().is_none() {
        out.push(whole(Severity::Info, "policy.no_default", "There is no default: what no rule matches is refused."));
    }
    for rule in set.rules().iter().chain(set.default_rule()) {
        check_people(rule, people, &mut out);
        check_standard(rule, &mut out);
        check_bounds(rule, &mut out);
        check_condition(rule, &mut out);
    }
    check_freezes(set, people, now, &mut out);
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
    let rules = set.rules().iter().map(|r| (&r.matches, r.file.as_str(), r.id.clone()));
    let freezes = set.freezes().iter().map(|f| (&f.matches, f.file.as_str(), format!("freeze {}", f.id)));
    for (m, file, id) in rules.chain(freezes) {
        let about =
            |severity, code, message| Finding { severity, code, file: file.to_owned(), rule: id.clone(), message };
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
                let text = format!("No {what} is called {}: it can never match.", missing.join(" or "));
                out.push(about(Severity::Error, "policy.never_matches", text));
            } else if !missing.is_empty() {
                let text = format!("No {what} is called {}.", missing.join(" or "));
                out.push(about(Severity::Warning, "policy.unknown_name", text));
            }
        }
    }
    out
}

fn check_people(rule: &Rule, people: &[Named<PersonSpec>], out: &mut Vec<Finding>) {
    let known: BTreeSet<&str> = people.iter().flat_map(|p| p.spec.groups.iter().map(String::as_str)).collect();
    let from = rule.approve.iter().flat_map(Approve::groups);
    for group in from.chain(&rule.tell).collect::<BTreeSet<_>>() {
        if !known.contains(group.as_str()) {
            out.push(about(rule, Severity::Error, "policy.unknown_group", format!("Nobody is in group {group}.")));
        }
    }
    let Some(a) = &rule.approve else { return };
    let mut distinct: Vec<&PersonSpec> = Vec::new();
    let later = a.escalate.as_ref().map(|(_, to)| to.as_slice()).unwrap_or_default();
    for p in people.iter().filter(|p| p.spec.groups.iter().any(|g| a.from.contains(g) || later.contains(g))) {
        let reach = reachable(&p.spec, rule.deliver.unwrap_or(Delivery::Direct));
        if reach && !distinct.iter().any(|d| same_person(d, &p.spec)) {
            distinct.push(&p.spec);
        }
    }
    if distinct.len() < a.count as usize {
        let text =
            format!("{} people must say yes, but only {} in {} can.", a.count, distinct.len(), a.from.join(", "));
        out.push(about(rule, Severity::Error, "policy.no_approvers", text));
    } else if a.different_groups {
        let groups: Vec<String> = a.groups().cloned().collect();
        let own: Vec<Vec<&str>> = distinct.iter().map(|p| answering(p, &groups)).collect();
        if seats(&own) < a.count as usize {
            let text = format!(
                "{} people must say yes, each of another group, but nobody is left to answer for {}.",
                a.count,
                lacking(&own, &groups)
            );
            out.push(about(rule, Severity::Error, "policy.no_approvers", text));
        }
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
    let text = format!("Commits without a person: {}.", in_words(rule));
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
    let everything = rule.matches == Match::default() && rule.when.is_none() && rule.id != DEFAULT;
    if everything || rule.matches.operation.is_none() {
        out.push(about(
            rule,
            Severity::Warning,
            "policy.any_operation",
            "Every operation is included, deletions too; name them.".to_owned(),
        ));
    }
}

fn check_bounds(rule: &Rule, out: &mut Vec<Finding>) {
    let caps = [rule.caps.files, rule.caps.lines, rule.caps.objects];
    if caps.contains(&Some(0)) && rule.level < Level::Manual {
        let text = "A cap of 0 makes every change manual.".to_owned();
        out.push(about(rule, Severity::Warning, "policy.never_decides", text));
    }
    // The strictest level counts, so this rule's is never loosened to one at which something is delivered.
    if rule.deliver.is_some() && rule.level >= Level::Manual {
        let text = format!("At level {} nothing is delivered: `deliver` has no place there.", level_word(rule.level));
        out.push(about(rule, Severity::Warning, "policy.deliver_unused", text));
    }
    if rule.quota.is_some_and(|q| q.per_day == 0) && rule.level < Level::Deny {
        let text = "A quota of 0 refuses every change.".to_owned();
        out.push(about(rule, Severity::Warning, "policy.never_decides", text));
    }
}

fn check_condition(rule: &Rule, out: &mut Vec<Finding>) {
    let Some(when) = &rule.when else { return };
    // No sample is made to fit a pattern, so trying would only seem to say something.
    if when.source().contains("matches(") {
        return;
    }
    let (severity, code, text) = match try_out(rule, when) {
        Tried::Holds => return,
        Tried::Always => (Severity::Warning, "policy.always_true", "`when` is true for every change.".to_owned()),
        Tried::Never if when.uses().constant() => {
            (Severity::Error, "policy.never_matches", "`when` is false for every change.".to_owned())
        }
        Tried::Never => (
            Severity::Warning,
            "policy.never_matches",
            format!("`when` was true for none of {TRIES} sample changes made of its own words and numbers."),
        ),
        Tried::NeverClear => (
            Severity::Warning,
            "policy.never_clear",
            format!(
                "`when` could be evaluated for none of {TRIES} sample changes: the rule always counts, and never alone."
            ),
        ),
    };
    out.push(about(rule, severity, code, text));
}

fn check_freezes(set: &PolicySet, people: &[Named<PersonSpec>], now: i64, out: &mut Vec<Finding>) {
    let now = chrono::DateTime::from_timestamp_millis(now).unwrap_or_default();
    for f in set.freezes() {
        let mut say = |severity, code, message: String| {
            let rule = format!("freeze {}", f.id);
            out.push(Finding { severity, code, file: f.file.clone(), rule, message });
        };
        say(Severity::Info, "policy.freeze", format!("On {}.", f.words()));
        if !f.opens_again(now) {
            say(Severity::Warning, "policy.freeze_over", "It is over and never comes again.".into());
        }
        let Some((from, count)) = &f.approve else { continue };
        for group in from {
            if !people.iter().any(|p| p.spec.groups.contains(group)) {
                say(Severity::Error, "policy.unknown_group", format!("Nobody is in group {group}."));
            }
        }
        // Whoever lets a change through must be asked by the rules as well.
        for rule in set.rules() {
            let Some(a) = rule.approve.as_ref().filter(|_| f.may_meet(&rule.matches)) else { continue };
            let asked: Vec<String> = a.groups().cloned().collect();
            let both: Vec<Vec<&str>> = people
                .iter()
                .filter(|p| p.spec.groups.iter().any(|g| from.contains(g)))
                .map(|p| answering(&p.spec, &asked))
                .filter(|own| !own.is_empty())
                .collect();
            let needed = a.count.max(*count) as usize;
            let found = if a.different_groups { seats(&both) } else { both.len() };
            if found < needed {
                let text = format!(
                    "During it {needed} of {} who are also in {} must say yes for rule {}{}, and there {}.",
                    a.from.join(", "),
                    from.join(", "),
                    rule.id,
                    if a.different_groups { ", each of another group" } else { "" },
                    if found == 1 { "is 1".to_owned() } else { format!("are {found}") },
                );
                say(Severity::Warning, "policy.no_approvers", text);
            }
        }
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
        && (other.when.is_none() || other.when == rule.when)
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

/// What a rule lets through, with everything that bounds it.
fn in_words(rule: &Rule) -> String {
    let m = &rule.matches;
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
    if let Some(risk) = &m.risk {
        parts.push(format!("risk {}", risk.iter().map(|r| risk_word(*r)).collect::<Vec<_>>().join(" or ")));
    }
    if let Some(when) = &rule.when {
        parts.push(format!("when {}", when.source()));
    }
    let caps = [("files", rule.caps.files), ("lines", rule.caps.lines), ("objects", rule.caps.objects)];
    parts.extend(caps.iter().filter_map(|(what, n)| n.map(|n| format!("at most {n} {what}"))));
    if let Some(quota) = rule.quota {
        parts.push(format!("at most {} a day", quota.per_day));
    }
    parts.join(", ")
}

fn about(rule: &Rule, severity: Severity, code: &'static str, message: String) -> Finding {
    Finding { severity, code, file: rule.file.clone(), rule: rule.id.clone(), message }
}

fn whole(severity: Severity, code: &'static str, message: &str) -> Finding {
    Finding { severity, code, file: String::new(), rule: String::new(), message: message.to_owned() }
}
