//! A decision told rule by rule: what matched, what was missing, what would have been needed.

use std::fmt::Write as _;

use chrono::DateTime;

use super::decide::{Decision, decide};
use super::facts::Facts;
use super::matching::{Meets, View, views};
use super::rule::{DEFAULT, PolicySet, Rule};
use super::words::{asks, level_word};
use crate::model::{Confirm, Level, Named, PersonSpec};

/// Every rule with what it matched or what was missing, then the decision and what it would take for
/// another one. Plain text, one line each.
pub fn explain(set: &PolicySet, people: &[Named<PersonSpec>], facts: &Facts) -> String {
    let d = decide(set, people, facts);
    let mut out = String::new();
    let views = views(facts);
    for rule in set.rules() {
        let _ = writeln!(out, "{} ({}): {}", rule.id, rule.file, meeting(rule, &views));
    }
    let now = DateTime::from_timestamp_millis(facts.now);
    for f in set.freezes() {
        let on = d.decided.freezes.iter().any(|n| n.id == f.id);
        let line = match now.and_then(|n| f.until(n)) {
            Some(until) if on => format!("on until {}", f.local(until)),
            Some(_) => "on, but not about this".to_owned(),
            None => format!("off ({})", f.words()),
        };
        let _ = writeln!(out, "freeze {} ({}): {line}", f.id, f.file);
    }
    for w in &d.why {
        let _ = writeln!(out, "- {w}");
    }
    let _ = writeln!(out, "Decision: {}", level_word(d.decided.level));
    let _ = writeln!(out, "Asks: {}", asks(&d.decided));
    obligations(&d, &mut out);
    if d.decided.level != Level::Deny {
        let _ = writeln!(out, "Delivery: {}", in_words(d.decided.delivery));
    }
    if let Some(p) = &d.problem {
        let _ = writeln!(out, "{}: {}", p.code, p.next);
    }
    for need in needs(set, facts, &d, &views) {
        let _ = writeln!(out, "Needed: {need}");
    }
    let _ = writeln!(out, "Policy: {}", set.version());
    out
}

fn meeting(rule: &Rule, views: &[View<'_>]) -> String {
    let met: Vec<Meets> = views.iter().map(|v| v.meets_rule(rule)).collect();
    if met.contains(&Meets::Yes) {
        let open = met.iter().any(|m| *m != Meets::Yes);
        return format!("matches, {}{}", level_word(rule.level), if open { ", but not everything" } else { "" });
    }
    if let Some(Meets::Maybe(m)) = met.iter().find(|m| matches!(m, Meets::Maybe(_))) {
        return format!("may match, so it counts, {}: {m}", level_word(rule.level));
    }
    let why = met.into_iter().find_map(|m| if let Meets::No(w) = m { Some(w) } else { None });
    format!("no: {}", why.unwrap_or_else(|| "the change touches nothing".to_owned()))
}

/// What it would take for a rule to match; `None` where it does, or may.
fn missing(rule: &Rule, views: &[View<'_>]) -> Option<Vec<String>> {
    let met = |v: &View<'_>| !matches!(v.meets_rule(rule), Meets::No(_));
    if views.iter().any(met) {
        return None;
    }
    views
        .iter()
        .map(|v| {
            let mut needs: Vec<String> = v.misses(&rule.matches).into_iter().map(|(need, _)| need).collect();
            if let Some(when) = rule.when.as_ref().filter(|_| needs.is_empty()) {
                needs.push(format!("when {}", when.source()));
            }
            needs
        })
        .min_by_key(Vec::len)
}

/// What would have to be different for a looser decision.
fn needs(set: &PolicySet, facts: &Facts, d: &Decision, views: &[View<'_>]) -> Vec<String> {
    let mut out = Vec::new();
    let level = d.decided.level;
    if level == Level::Standard {
        return out;
    }
    let counting: Vec<&Rule> = set.rules().iter().filter(|r| d.decided.rules.contains(&r.id)).collect();
    let strict: Vec<&str> = counting.iter().filter(|r| r.level == level).map(|r| r.id.as_str()).collect();
    if !strict.is_empty() {
        out.push(format!("for less than {}, {} would not have to match", level_word(level), strict.join(" and ")));
    }
    if d.decided.rules.iter().any(|r| r == DEFAULT) {
        for rule in set.rules().iter().filter(|r| r.level < level) {
            if let Some(needs) = missing(rule, views).filter(|n| !n.is_empty()) {
                out.push(format!("for rule {} ({}): {}", rule.id, level_word(rule.level), needs.join(", ")));
            }
        }
    }
    if level == Level::Manual {
        let caps = |of: fn(&Rule) -> Option<u32>| counting.iter().filter_map(|r| of(r)).min();
        let all: [(&str, u32, Option<u32>); 3] = [
            ("files", facts.files, caps(|r| r.caps.files)),
            ("lines", facts.lines, caps(|r| r.caps.lines)),
            ("objects", facts.objects, caps(|r| r.caps.objects)),
        ];
        for (what, is, most) in all {
            if let Some(most) = most.filter(|m| is > *m) {
                out.push(format!("at most {most} {what} (there are {is})"));
            }
        }
        if let Some(why) = &facts.privileged {
            out.push(format!("nothing privileged ({why})"));
        }
    }
    out
}

fn obligations(d: &Decision, out: &mut String) {
    let o = &d.decided.obligations;
    for e in &o.escalate {
        let _ = writeln!(out, "After {} min: {} ({})", e.after_s / 60, e.people.join(", "), e.groups.join(", "));
    }
    if o.confirm == Some(Confirm::Number) {
        let _ = writeln!(out, "A yes takes the number on the card.");
    }
}

fn in_words(d: crate::model::Delivery) -> &'static str {
    use crate::model::Delivery as D;
    match d {
        D::Direct => "direct push",
        D::MergeAfterApproval => "pull request, merged once approved",
        D::PullRequest => "pull request, whose merge is the approval",
    }
}
