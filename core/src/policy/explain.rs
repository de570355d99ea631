//! A decision told rule by rule.

use std::fmt::Write as _;

use super::decide::decide;
use super::facts::Facts;
use super::matching::{Meets, views};
use super::rule::PolicySet;
use super::words::{asks, level_word};
use crate::model::{Level, Named, PersonSpec};

/// Every rule with what it matched or what was missing, then the decision. Plain text, one line each.
pub fn explain(set: &PolicySet, people: &[Named<PersonSpec>], facts: &Facts) -> String {
    let d = decide(set, people, facts);
    let mut out = String::new();
    let views = views(facts);
    for rule in set.rules() {
        let met: Vec<Meets> = views.iter().map(|v| v.meets_rule(rule)).collect();
        let line = if met.contains(&Meets::Yes) {
            format!("matches, {}", level_word(rule.level))
        } else if let Some(Meets::Maybe(m)) = met.iter().find(|m| matches!(m, Meets::Maybe(_))) {
            format!("may match, so it counts, {}: {m}", level_word(rule.level))
        } else {
            let why = met.into_iter().find_map(|m| if let Meets::No(w) = m { Some(w) } else { None });
            format!("no: {}", why.unwrap_or_else(|| "the change touches nothing".to_owned()))
        };
        let _ = writeln!(out, "{} ({}): {line}", rule.id, rule.file);
    }
    for w in &d.why {
        let _ = writeln!(out, "- {w}");
    }
    let _ = writeln!(out, "Decision: {}", level_word(d.decided.level));
    let _ = writeln!(out, "Asks: {}", asks(&d.decided));
    if d.decided.level != Level::Deny {
        let _ = writeln!(out, "Delivery: {}", delivery_word(d.decided.delivery));
    }
    if let Some(p) = &d.problem {
        let _ = writeln!(out, "{}: {}", p.code, p.next);
    }
    let _ = writeln!(out, "Policy: {}", set.version());
    out
}

fn delivery_word(d: crate::model::Delivery) -> &'static str {
    use crate::model::Delivery as D;
    match d {
        D::Direct => "direct push",
        D::MergeAfterApproval => "pull request, merged once approved",
        D::PullRequest => "pull request, whose merge is the approval",
    }
}
