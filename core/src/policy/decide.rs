//! One decision: which rules match, and what they ask for together.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::facts::Facts;
use super::freeze::Freeze;
use super::matching::{frozen, matching, views};
use super::people::{Asked, Asks, members};
use super::quota;
use super::rule::{DEFAULT, OnBaseMove, PolicySet, Rule};
use super::words::level_word;
use crate::error::Problem;
use crate::model::{Decided, Delivery, FreezeNote, Level, Named, Obligations, Operation, PersonSpec, Quorum};

/// Seconds that an approval may take where no rule says otherwise.
pub(super) const EXPIRES_S: u32 = 3600;

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What was decided, as the journal keeps it.
    pub decided: Decided,
    /// Why, one sentence each, the deciding ones included.
    pub why: Vec<String>,
    /// Why it is refused; `None` unless the level is deny.
    pub problem: Option<Problem>,
    /// Seconds between reminders.
    pub remind_s: Option<u32>,
    /// Whether a moved base needs a new approval.
    pub on_base_move: OnBaseMove,
}

/// Decides. Pure: the same arguments give the same decision.
pub fn decide(set: &PolicySet, people: &[Named<PersonSpec>], facts: &Facts) -> Decision {
    let views = views(facts);
    let (rules, mut why) = matching(set, &views);
    let freezes = frozen(set, facts, &views);
    let mut level = rules.iter().map(|r| r.level).max().unwrap_or(Level::Deny);
    let mut problem = None;
    if level < Level::Manual {
        for reason in raises(&rules, facts) {
            why.push(format!("Raised to manual: {reason}."));
            level = Level::Manual;
        }
    }
    if level < Level::Deny {
        (level, problem) = frozen_level(level, &freezes, facts, &mut why);
    }
    if level < Level::Deny
        && let Some(p) = quota::exceeded(&rules, &facts.counts)
    {
        why.push(p.message.clone());
        (level, problem) = (Level::Deny, Some(p));
    }
    let asks = Asks {
        rules: rules.iter().filter_map(|r| Some((r.id.as_str(), r.approve.as_ref()?))).collect(),
        freezes: freezes.iter().map(|(f, _)| *f).filter(|f| f.approve.is_some()).collect(),
    };
    let delivery = delivery(level, &rules, facts, &mut why);
    let mut asked = Asked {
        quorum: Quorum { count: 0, groups: Vec::new(), allow_sponsor: false, different_groups: false },
        approvers: Vec::new(),
        answers: BTreeMap::new(),
        escalate: Vec::new(),
    };
    if level < Level::Deny && !asks.is_empty() {
        // Asked for at level manual too: a rule that cannot be satisfied must not be loosened by
        // another one that asks nobody.
        match asks.settle(delivery, people, facts) {
            Ok(a) if level == Level::Prompted => asked = a,
            Ok(_) => {}
            Err(p) => {
                why.push(p.message.clone());
                (level, problem) = (Level::Deny, Some(p));
            }
        }
    }
    if level == Level::Deny && problem.is_none() {
        problem = Some(denied(&rules, &why));
    }
    let remind_s = asks.rules.iter().filter_map(|(_, a)| a.remind_s).min();
    let decided = Decided {
        level,
        delivery,
        quorum: asked.quorum,
        approvers: asked.approvers,
        tell: told(&rules, people),
        rules: rules.iter().map(|r| r.id.clone()).collect(),
        policy_version: set.version().to_owned(),
        expires_s: asks.rules.iter().map(|(_, a)| a.expires_s.unwrap_or(EXPIRES_S)).min().unwrap_or(EXPIRES_S),
        reapprove_on_move: rules.iter().any(|r| r.on_base_move == OnBaseMove::Reapprove),
        obligations: match level {
            Level::Prompted => Obligations {
                remind_s,
                escalate: asked.escalate,
                confirm: asks.rules.iter().filter_map(|(_, a)| a.confirm).max(),
            },
            _ => Obligations::default(),
        },
        freezes: freezes.iter().map(|(f, until)| FreezeNote { id: f.id.clone(), until: until.timestamp() }).collect(),
        answers: asked.answers,
    };
    let on_base_move = rules.iter().map(|r| r.on_base_move).max().unwrap_or_default();
    Decision { decided, why, problem, remind_s, on_base_move }
}

/// The strictest delivery. An adoption is reviewed as a pull request unless every rule that names the
/// operation says another way in words, and no default has to help out.
fn delivery(level: Level, rules: &[&Rule], facts: &Facts, why: &mut Vec<String>) -> Delivery {
    let said = rules.iter().filter_map(|r| r.deliver).max().unwrap_or(Delivery::Direct);
    if !facts.targets.iter().any(|t| t.operation == Operation::ADOPT) {
        return said;
    }
    let mut naming = rules.iter().filter(|r| r.names(Operation::ADOPT)).peekable();
    let covered = naming.peek().is_some() && !rules.iter().any(|r| r.id == DEFAULT);
    if covered && naming.all(|r| r.deliver.is_some()) {
        return said;
    }
    // Where nobody is asked there is nobody to merge it: Countersign does.
    let least = if level == Level::Standard { Delivery::MergeAfterApproval } else { Delivery::PullRequest };
    if said < least {
        why.push("An adoption is a pull request where not every rule that names it says `deliver`.".into());
    }
    said.max(least)
}

/// Freezes add to whatever the rules say: without approvers nothing leaves, with them at least these are asked.
fn frozen_level(
    level: Level,
    freezes: &[(&Freeze, DateTime<Utc>)],
    facts: &Facts,
    why: &mut Vec<String>,
) -> (Level, Option<Problem>) {
    let mut level = level;
    let mut problem: Option<Problem> = None;
    for (f, until) in freezes {
        let reason = f.reason.as_ref().map_or_else(String::new, |r| format!(" ({r})"));
        let until_words = f.local(*until);
        match &f.approve {
            Some((from, _)) => {
                why.push(format!(
                    "Freeze {} is on until {until_words}{reason}; only {} can let it through.",
                    f.id,
                    from.join(", ")
                ));
                level = level.max(Level::Prompted);
            }
            None => {
                let message = format!("Freeze {} is on until {until_words}{reason}: nothing leaves.", f.id);
                why.push(message.clone());
                level = Level::Deny;
                let wait = until.timestamp().saturating_sub(facts.now.div_euclid(1000)).max(1);
                problem.get_or_insert_with(|| {
                    Problem::new("policy.frozen", message, "Propose it again when the freeze is over.")
                        .later()
                        .retry_after(wait.unsigned_abs())
                });
            }
        }
    }
    (level, problem)
}

/// What stands in the way of treating an approval given under `old` as good under `new`: the
/// policy was tightened while the change was pending. `None` = still good (a removed approver is
/// a matter of the votes).
pub fn tightened(old: &Decided, new: &Decided) -> Option<String> {
    if new.level > old.level {
        return Some(format!("the level is now {}", level_word(new.level)));
    }
    if new.delivery > old.delivery {
        return Some("a stricter delivery is asked for now".to_owned());
    }
    if new.quorum.count > old.quorum.count {
        return Some(format!("{} people must say yes now", new.quorum.count));
    }
    if new.level == Level::Prompted && new.quorum.groups != old.quorum.groups {
        return Some(format!("other groups are asked now: {}", new.quorum.groups.join(", ")));
    }
    if new.quorum.different_groups && !old.quorum.different_groups {
        return Some("each yes must be of another group now".to_owned());
    }
    if old.quorum.allow_sponsor && !new.quorum.allow_sponsor {
        return Some("the sponsor's vote no longer counts".to_owned());
    }
    if new.obligations.confirm > old.obligations.confirm {
        return Some("a yes takes the number on the card now".to_owned());
    }
    if new.freezes.iter().any(|f| !old.freezes.iter().any(|o| o.id == f.id)) {
        return Some("a freeze has begun".to_owned());
    }
    (new.expires_s < old.expires_s).then(|| "approvals expire sooner now".to_owned())
}

/// Reasons that a person must commit this one.
fn raises(rules: &[&Rule], facts: &Facts) -> Vec<String> {
    let mut out: Vec<String> = facts.privileged.iter().cloned().collect();
    let mut cap = |what: &str, is: u32, of: fn(&Rule) -> Option<u32>| {
        let strictest = rules.iter().filter_map(|r| Some((of(r)?, r.id.as_str()))).min();
        if let Some((most, rule)) = strictest.filter(|(most, _)| is > *most) {
            out.push(format!("{is} {what} are more than the {most} that rule {rule} allows"));
        }
    };
    cap("files", facts.files, |r| r.caps.files);
    cap("lines", facts.lines, |r| r.caps.lines);
    cap("objects", facts.objects, |r| r.caps.objects);
    out
}

/// People of every group that any rule tells.
fn told(rules: &[&Rule], people: &[Named<PersonSpec>]) -> Vec<String> {
    let groups: BTreeSet<&str> = rules.iter().flat_map(|r| r.tell.iter().map(String::as_str)).collect();
    let names: BTreeSet<String> = members(people, |g| groups.contains(g)).map(|p| p.name.clone()).collect();
    names.into_iter().collect()
}

fn denied(rules: &[&Rule], why: &[String]) -> Problem {
    let ids: Vec<&str> = rules.iter().filter(|r| r.level == Level::Deny).map(|r| r.id.as_str()).collect();
    Problem::new(
        "policy.denied",
        format!("Policy refuses this change ({}).", if ids.is_empty() { DEFAULT.to_owned() } else { ids.join(", ") }),
        "Ask the people who keep the policy; the same call will be refused until a rule allows it.",
    )
    .never()
    .with_all(why.iter().cloned())
}
