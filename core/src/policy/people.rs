//! Who must say yes: the one quorum that satisfies every rule and every freeze, and the people who
//! can give it.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::freeze::Freeze;
use super::rule::Approve;
use crate::error::Problem;
use crate::model::{Delivery, Escalation, Named, PersonSpec, Quorum, seats, unanswered};

/// Everything that asks for people.
pub(super) struct Asks<'a> {
    /// Rules by id.
    pub rules: Vec<(&'a str, &'a Approve)>,
    /// Freezes that have approvers.
    pub freezes: Vec<&'a Freeze>,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub quorum: Quorum,
    /// Names, those of a later escalation included.
    pub approvers: Vec<String>,
    /// For which groups each of them can answer; empty unless each must answer for another one.
    pub answers: BTreeMap<String, Vec<String>>,
    pub escalate: Vec<Escalation>,
}

/// A group whose yes every rule takes, and after how long it is asked.
struct Group<'a> {
    name: &'a str,
    after_s: u32,
}

impl Asks<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.freezes.is_empty()
    }

    /// The quorum and its people; why there is none.
    pub(super) fn settle(
        &self,
        delivery: Delivery,
        people: &[Named<PersonSpec>],
        facts: &Facts,
    ) -> Result<Asked, Problem> {
        let groups = self.groups()?;
        let quorum = Quorum {
            count: self.count(),
            groups: groups.iter().map(|g| g.name.to_owned()).collect(),
            // A freeze never lets an agent's own sponsor in where the rules do not.
            allow_sponsor: !self.rules.is_empty() && self.rules.iter().all(|(_, a)| a.allow_sponsor),
            different_groups: self.rules.iter().any(|(_, a)| a.different_groups),
        };
        if delivery == Delivery::PullRequest && quorum.count > 1 {
            return Err(Problem::new(
                "policy.pull_request_quorum",
                "With pull_request one merge is the approval, but more than one person must say yes.",
                "Use `deliver: merge_after_approval` in the rule that asks for several people.",
            ));
        }
        let found = self.eligible(&quorum, delivery, people, facts);
        if found.len() < quorum.count as usize {
            return Err(self.too_few(&quorum, found.len(), delivery));
        }
        let mut answers = BTreeMap::new();
        if quorum.different_groups {
            let own: Vec<Vec<&str>> = found.iter().map(|p| answering(&p.spec, &quorum.groups)).collect();
            if seats(&own) < quorum.count as usize {
                return Err(too_alike(&quorum, &own, delivery));
            }
            let owned = |groups: Vec<&str>| groups.into_iter().map(str::to_owned).collect();
            answers = found.iter().map(|p| p.name.clone()).zip(own.into_iter().map(owned)).collect();
        }
        let mut approvers: Vec<String> = found.iter().map(|p| p.name.clone()).collect();
        approvers.sort();
        Ok(Asked { escalate: escalations(&groups, &found), quorum, approvers, answers })
    }

    fn count(&self) -> u32 {
        let rules = self.rules.iter().map(|(_, a)| a.count);
        let freezes = self.freezes.iter().filter_map(|f| Some(f.approve.as_ref()?.1));
        rules.chain(freezes).max().unwrap_or(1).max(1)
    }

    /// Groups that all rules take: whoever is in one of them satisfies each rule. Where no rule asks
    /// anybody, those of the first freeze; the others narrow it person by person.
    fn groups(&self) -> Result<Vec<Group<'_>>, Problem> {
        if self.rules.is_empty() {
            let first = self.freezes.first().and_then(|f| f.approve.as_ref());
            let mut names: Vec<&str> = first.iter().flat_map(|(from, _)| from.iter().map(String::as_str)).collect();
            names.sort_unstable();
            names.dedup();
            return Ok(names.into_iter().map(|name| Group { name, after_s: 0 }).collect());
        }
        let after = |a: &Approve, g: &str| {
            if a.from.iter().any(|x| x == g) {
                return Some(0);
            }
            a.escalate.as_ref().filter(|(_, to)| to.iter().any(|x| x == g)).map(|(after, _)| *after)
        };
        let mut names: Vec<&str> = self
            .rules
            .iter()
            .flat_map(|(_, a)| a.from.iter().chain(a.escalate.iter().flat_map(|(_, to)| to)))
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut groups: Vec<Group<'_>> = names
            .into_iter()
            .filter_map(|name| {
                let times: Option<Vec<u32>> = self.rules.iter().map(|(_, a)| after(a, name)).collect();
                Some(Group { name, after_s: times?.into_iter().max().unwrap_or(0) })
            })
            .collect();
        if groups.is_empty() {
            let ids = self.rules.iter().map(|(id, a)| format!("{id} asks {}", a.from.join(", ")));
            return Err(Problem::new(
                "policy.conflicting_approvers",
                "The rules that match ask groups that have none in common.",
                "Name a common group in these rules, or narrow one of them.",
            )
            .with_all(ids));
        }
        // Somebody is asked at once, even where the rules name each other's second groups.
        let soonest = groups.iter().map(|g| g.after_s).min().unwrap_or(0);
        groups.iter_mut().filter(|g| g.after_s == soonest).for_each(|g| g.after_s = 0);
        Ok(groups)
    }

    /// Distinct people whose yes counts, the sponsor only where every rule says so.
    fn eligible<'p>(
        &self,
        quorum: &Quorum,
        delivery: Delivery,
        people: &'p [Named<PersonSpec>],
        facts: &Facts,
    ) -> Vec<&'p Named<PersonSpec>> {
        let sponsor = people.iter().find(|p| p.name == facts.sponsor);
        let in_freezes = |p: &PersonSpec| {
            let mut asked = self.freezes.iter().filter_map(|f| f.approve.as_ref());
            asked.all(|(from, _)| p.groups.iter().any(|g| from.contains(g)))
        };
        let mut found: Vec<&Named<PersonSpec>> = Vec::new();
        for p in people.iter().filter(|p| p.spec.groups.iter().any(|g| quorum.groups.contains(g))) {
            let is_sponsor = p.name == facts.sponsor || sponsor.is_some_and(|s| same_person(&s.spec, &p.spec));
            let counted = found.iter().any(|f| f.name == p.name || same_person(&f.spec, &p.spec));
            if (!is_sponsor || quorum.allow_sponsor) && reachable(&p.spec, delivery) && in_freezes(&p.spec) && !counted
            {
                found.push(p);
            }
        }
        found
    }

    fn too_few(&self, quorum: &Quorum, found: usize, delivery: Delivery) -> Problem {
        let how = means(delivery);
        let frozen: Vec<String> = self
            .freezes
            .iter()
            .filter_map(|f| Some(format!("{} during freeze {}", f.approve.as_ref()?.0.join(", "), f.id)))
            .collect();
        let also = if frozen.is_empty() { String::new() } else { format!(", and also of {}", frozen.join(" and of ")) };
        Problem::new(
            "policy.no_approvers",
            format!(
                "{} of {}{also} must say yes, but besides the sponsor there {} {how}.",
                quorum.count,
                quorum.groups.join(", "),
                match found {
                    0 => "is nobody".to_owned(),
                    1 => "is only one person".to_owned(),
                    n => format!("are only {n} people"),
                },
            ),
            "Add people to these groups, or set `allow_sponsor: true` in an installation of one person.",
        )
    }
}

/// The groups that a person answers for.
pub(super) fn answering<'g>(p: &PersonSpec, groups: &'g [String]) -> Vec<&'g str> {
    groups.iter().filter(|g| p.groups.contains(g)).map(String::as_str).collect()
}

/// There are enough people, but not of enough groups.
fn too_alike(quorum: &Quorum, found: &[Vec<&str>], delivery: Delivery) -> Problem {
    Problem::new(
        "policy.no_approvers",
        format!(
            "{} people must say yes, each of another of the groups {}, but besides the sponsor nobody {} is left to answer for {}.",
            quorum.count,
            quorum.groups.join(", "),
            means(delivery),
            lacking(found, &quorum.groups),
        ),
        "Add a person to such a group; one who is in several answers for one of them only.",
    )
}

/// The groups that one more person would have to be of; where no group is left, words for that.
pub(super) fn lacking(found: &[Vec<&str>], groups: &[String]) -> String {
    let open = unanswered(found, groups);
    if open.is_empty() { "one more group than these".to_owned() } else { open.join(" or ") }
}

fn means(delivery: Delivery) -> &'static str {
    if delivery == Delivery::PullRequest { "with a forge login" } else { "with Telegram or an ssh key" }
}

/// People who are asked later, those of each time together.
fn escalations(groups: &[Group<'_>], found: &[&Named<PersonSpec>]) -> Vec<Escalation> {
    let asked_after = |p: &PersonSpec| {
        groups.iter().filter(|g| p.groups.iter().any(|x| x == g.name)).map(|g| g.after_s).min().unwrap_or(0)
    };
    let mut times: Vec<u32> = groups.iter().map(|g| g.after_s).filter(|t| *t > 0).collect();
    times.sort_unstable();
    times.dedup();
    times
        .into_iter()
        .map(|after_s| {
            let mut people: Vec<String> =
                found.iter().filter(|p| asked_after(&p.spec) == after_s).map(|p| p.name.clone()).collect();
            people.sort();
            let groups = groups.iter().filter(|g| g.after_s == after_s).map(|g| g.name.to_owned()).collect();
            Escalation { after_s, groups, people }
        })
        .filter(|e| !e.people.is_empty())
        .collect()
}

pub(super) fn members<'a>(
    people: &'a [Named<PersonSpec>],
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a Named<PersonSpec>> {
    people.iter().filter(move |p| p.spec.groups.iter().any(|g| wanted(g)))
}

/// Two entries with one identity are one person, who has one vote.
pub(super) fn same_person(a: &PersonSpec, b: &PersonSpec) -> bool {
    shared_identity(a, b).is_some()
}

/// What two entries have in common that only one person can have, in words; `None` = they are two people.
/// Logins are compared without case, keys without their comments.
pub fn shared_identity(a: &PersonSpec, b: &PersonSpec) -> Option<&'static str> {
    if a.telegram.is_some() && a.telegram == b.telegram {
        return Some("Telegram id");
    }
    if let (Some(one), Some(other)) = (&a.forge, &b.forge)
        && one.eq_ignore_ascii_case(other)
    {
        return Some("forge login");
    }
    let theirs: Vec<_> = b.ssh_keys.iter().filter_map(|k| key_of(k)).collect();
    a.ssh_keys.iter().filter_map(|k| key_of(k)).any(|k| theirs.contains(&k)).then_some("ssh key")
}

/// Type and data of a public key; `None` = the line holds none.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?))
}

pub(super) fn reachable(p: &PersonSpec, delivery: Delivery) -> bool {
    match delivery {
        Delivery::PullRequest => p.forge.is_some(),
        Delivery::Direct | Delivery::MergeAfterApproval => p.telegram.is_some() || !p.ssh_keys.is_empty(),
    }
}
