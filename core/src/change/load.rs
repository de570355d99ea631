//! How much may be asked of people. Pure: who waits for whom is read from the changes.

use std::collections::BTreeSet;

use super::{Change, State};
use crate::error::{Problem, Result};
use crate::model::{Ending, LeafChange};

/// How long a rejection counts, milliseconds.
pub const REJECTED_MS: i64 = 24 * 3_600_000;

/// Most that is asked of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Pending changes of one agent.
    pub per_agent: usize,
    /// Pending changes that one person is asked about.
    pub per_person: usize,
    /// Pause of an agent after a rejection, milliseconds; doubles with each further one in a row.
    pub cooldown_ms: i64,
    /// Longest such pause, milliseconds.
    pub cooldown_max_ms: i64,
}

impl Default for Load {
    fn default() -> Self {
        Self { per_agent: 3, per_person: 20, cooldown_ms: 30_000, cooldown_max_ms: 3_600_000 }
    }
}

/// What is about to be asked.
#[derive(Debug)]
pub struct Wish<'a> {
    /// Agent.
    pub agent: &'a str,
    /// Cluster.
    pub cluster: &'a str,
    /// Repository.
    pub repository: &'a str,
    /// Full ref.
    pub git_ref: &'a str,
    /// Changed fields.
    pub fields: &'a [LeafChange],
    /// Who would be asked.
    pub approvers: &'a [String],
}

fn pending(c: &Change) -> bool {
    matches!(c.state(), State::AwaitingApproval | State::AwaitingMerge)
}

/// Refuses what would be too much for people, or what they have refused already.
///
/// # Errors
/// `load.cooling_down`, `load.agent_pending`, `load.person_pending`, `change.rejected_recently`, `change.overlap`.
pub fn room<'a>(
    changes: impl Iterator<Item = &'a Change> + Clone,
    wish: &Wish<'_>,
    now: i64,
    load: &Load,
) -> Result<()> {
    refused_content(changes.clone(), wish, now)?;
    one_card(changes.clone(), wish)?;
    let mine = changes.clone().filter(|c| c.proposal.requester.agent == wish.agent);
    cooling(mine.clone(), now, load)?;
    let open: Vec<String> = mine.filter(|c| pending(c)).map(Change::name).collect();
    if open.len() >= load.per_agent {
        return Err(Problem::new(
            "load.agent_pending",
            format!("{} changes of this agent wait for people already.", open.len()),
            "Wait until one of them is decided, or cancel one.",
        )
        .later()
        .with(open.join(", ")));
    }
    for person in wish.approvers {
        let asked = changes.clone().filter(|c| pending(c) && c.decided.approvers.contains(person)).count();
        if asked >= load.per_person {
            return Err(Problem::new(
                "load.person_pending",
                format!("{person} is asked about {asked} changes already."),
                "Wait until people have decided about some of them.",
            )
            .later());
        }
    }
    Ok(())
}

/// Refuses a field that another open change has not brought to the branch yet, whoever asks: two changes of one field
/// would each be decided without the other.
///
/// # Errors
/// `change.overlap`.
pub fn no_overlap<'a>(changes: impl Iterator<Item = &'a Change>, wish: &Wish<'_>) -> Result<()> {
    for c in changes.filter(|c| {
        c.is_open()
            && c.landed.is_none()
            && c.proposal.repository == wish.repository
            && c.proposal.git_ref == wish.git_ref
    }) {
        let same = wish
            .fields
            .iter()
            .find(|l| c.proposal.fields.iter().any(|m| m.object == l.object && m.pointer == l.pointer));
        if let Some(l) = same {
            return Err(Problem::new(
                "change.overlap",
                format!("{} already asks for {} of {}.", c.name(), l.pointer, l.object),
                format!("Wait for {}, or cancel it, and then propose yours.", c.name()),
            )
            .later());
        }
    }
    Ok(())
}

/// Content that a person refused is refused for a day, whichever agent asks and in whatever words.
fn refused_content<'a>(changes: impl Iterator<Item = &'a Change>, wish: &Wish<'_>, now: i64) -> Result<()> {
    let wanted = effect(wish.fields);
    for c in changes {
        let Some(end) = c.end.as_ref().filter(|e| e.ending == Ending::Rejected && now - e.at < REJECTED_MS) else {
            continue;
        };
        let p = &c.proposal;
        let same_place = p.cluster == wish.cluster && p.repository == wish.repository && p.git_ref == wish.git_ref;
        if same_place && !wanted.is_empty() && effect(&p.fields) == wanted {
            return Err(rejected_recently(c, &end.say));
        }
    }
    Ok(())
}

/// What a rejection of the same within the last day is answered with.
pub fn rejected_recently(c: &Change, say: &str) -> Problem {
    let p = Problem::new(
        "change.rejected_recently",
        format!("A person rejected the same change ({}) within the last day.", c.name()),
        "Do not propose it again; look for another way, or talk to the person you work for.",
    )
    .never()
    .with(say.to_owned());
    match c.rejection().and_then(|v| Some((&v.person, v.reason.as_ref()?))) {
        Some((person, reason)) => p.with(format!("{person}'s reason (their words): {reason}")),
        None => p,
    }
}

fn effect(fields: &[LeafChange]) -> BTreeSet<(String, &str, Option<String>)> {
    fields
        .iter()
        .map(|l| (l.object.to_string(), l.pointer.as_str(), l.after.as_ref().map(ToString::to_string)))
        .collect()
}

/// While one card asks about an object, no other one does.
fn one_card<'a>(changes: impl Iterator<Item = &'a Change>, wish: &Wish<'_>) -> Result<()> {
    for c in changes.filter(|c| pending(c) && c.proposal.cluster == wish.cluster) {
        let same = wish.fields.iter().find(|l| c.proposal.fields.iter().any(|m| m.object == l.object));
        if let Some(l) = same {
            return Err(Problem::new(
                "change.overlap",
                format!("{} already asks people about {}.", c.name(), l.object),
                format!("Wait for {}, or cancel it and propose both edits in one change.", c.name()),
            )
            .later());
        }
    }
    Ok(())
}

/// After a rejection the agent pauses, after each further one in a row twice as long.
fn cooling<'a>(mine: impl Iterator<Item = &'a Change>, now: i64, load: &Load) -> Result<()> {
    let mut ends: Vec<(i64, bool)> = mine
        .filter_map(|c| {
            let end = c.end.as_ref()?;
            match end.ending {
                Ending::Rejected => Some((end.at, true)),
                // Somebody said yes to it: the row of rejections is broken.
                _ if c.authorized.as_ref().is_some_and(|(by, _)| !by.is_empty()) => Some((end.at, false)),
                _ => None,
            }
        })
        .collect();
    ends.sort_unstable();
    let row = ends.iter().rev().take_while(|(at, no)| *no && now - at < REJECTED_MS).count();
    let Some((last, _)) = ends.last().filter(|_| row > 0) else { return Ok(()) };
    let doublings = u32::try_from(row - 1).unwrap_or(u32::MAX).min(20);
    let pause = load.cooldown_ms.saturating_mul(1_i64 << doublings).min(load.cooldown_max_ms);
    let left = last + pause - now;
    if left <= 0 {
        return Ok(());
    }
    let seconds = u64::try_from(left).unwrap_or(0).div_ceil(1000);
    Err(Problem::new(
        "load.cooling_down",
        format!("People rejected {row} of this agent's changes in a row; it may ask again in {seconds} s."),
        "Read the reasons of the rejections before proposing anything else.",
    )
    .later()
    .retry_after(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::change::tests::given::{Given, Story, T0};
    use crate::model::{ObjectKey, RiskLevel};

    fn leaf(name: &str, value: i64) -> LeafChange {
        LeafChange {
            object: ObjectKey::new("apps", "Deployment", "shop", name),
            pointer: "/spec/replicas".into(),
            before: Some(json!(2)),
            after: Some(json!(value)),
        }
    }

    fn asking(fields: &[LeafChange]) -> Story {
        let mut s = Given::prompted().story();
        s.c.proposal.fields = fields.to_vec();
        s
    }

    fn wish<'a>(agent: &'a str, fields: &'a [LeafChange], approvers: &'a [String]) -> Wish<'a> {
        Wish { agent, cluster: "prod", repository: "shop", git_ref: "refs/heads/main", fields, approvers }
    }

    fn code(changes: &[Change], w: &Wish<'_>, now: i64) -> String {
        room(changes.iter(), w, now, &Load::default()).err().map_or_else(String::new, |p| p.code.to_string())
    }

    #[test]
    fn an_agent_has_three_pending_and_another_agent_is_not_held_up_by_them() {
        let pending: Vec<Change> = (0..3).map(|i| asking(&[leaf(&format!("a{i}"), 3)]).c).collect();
        let (fields, ann) = ([leaf("b", 3)], ["ann".to_owned()]);
        assert_eq!(code(&pending, &wish("claude", &fields, &ann), T0), "load.agent_pending");
        assert_eq!(code(&pending[..2], &wish("claude", &fields, &ann), T0), "");
        assert_eq!(code(&pending, &wish("other", &fields, &ann), T0), "");
        assert_eq!(pending[0].proposal.risk.level, RiskLevel::High);
    }

    #[test]
    fn a_person_is_asked_about_twenty_at_once() {
        let mut pending: Vec<Change> = (0..20).map(|i| asking(&[leaf(&format!("a{i}"), 3)]).c).collect();
        for (i, c) in pending.iter_mut().enumerate() {
            c.proposal.requester.agent = format!("agent-{i}");
        }
        let (fields, ann, zoe) = ([leaf("b", 3)], ["ann".to_owned()], ["zoe".to_owned()]);
        assert_eq!(code(&pending, &wish("new", &fields, &ann), T0), "load.person_pending");
        assert_eq!(code(&pending, &wish("new", &fields, &zoe), T0), "", "Zoe is asked about nothing");
        assert_eq!(code(&pending[..19], &wish("new", &fields, &ann), T0), "");
    }

    #[test]
    fn one_object_has_one_card() {
        let pending = [asking(&[leaf("a", 3)]).c];
        let mut other = [leaf("a", 5)];
        other[0].pointer = "/metadata/annotations/x".into();
        let ann = ["ann".to_owned()];
        assert_eq!(code(&pending, &wish("other", &other, &ann), T0), "change.overlap");
        let elsewhere = Wish { cluster: "test", ..wish("other", &other, &ann) };
        assert_eq!(code(&pending, &elsewhere, T0), "");
        let decided = [asking(&[leaf("a", 3)]).closed(Ending::Expired).c];
        assert_eq!(code(&decided, &wish("other", &other, &ann), T0), "");
    }

    #[test]
    fn refused_content_is_refused_for_a_day_to_every_agent() {
        let refused = [asking(&[leaf("a", 3), leaf("b", 3)]).no("ann").closed(Ending::Rejected).c];
        let ann = ["ann".to_owned()];
        let (same, less) = ([leaf("b", 3), leaf("a", 3)], [leaf("a", 3)]);
        assert_eq!(code(&refused, &wish("other", &same, &ann), T0 + REJECTED_MS - 1), "change.rejected_recently");
        assert_eq!(code(&refused, &wish("other", &same, &ann), T0 + REJECTED_MS), "");
        assert_eq!(code(&refused, &wish("other", &less, &ann), T0), "", "it is not the same");
        let expired = [asking(&[leaf("a", 3)]).closed(Ending::Expired).c];
        assert_eq!(code(&expired, &wish("other", &less, &ann), T0), "", "nobody refused it");
    }

    #[test]
    fn each_rejection_in_a_row_doubles_the_pause_up_to_an_hour() {
        let load = Load::default();
        let fields = [leaf("z", 3)];
        let ann = ["ann".to_owned()];
        for (row, pause) in
            [(1usize, 30_000i64), (2, 60_000), (3, 120_000), (7, 1_920_000), (8, 3_600_000), (40, 3_600_000)]
        {
            let refused: Vec<Change> =
                (0..row).map(|i| asking(&[leaf(&format!("a{i}"), 3)]).no("ann").closed(Ending::Rejected).c).collect();
            let last = T0 + pause - 1;
            assert_eq!(code(&refused, &wish("claude", &fields, &ann), last), "load.cooling_down", "{row}");
            assert_eq!(code(&refused, &wish("claude", &fields, &ann), last + 1), "", "{row}");
            assert_eq!(code(&refused, &wish("other", &fields, &ann), last), "", "another agent goes on");
            let p = room(refused.iter(), &wish("claude", &fields, &ann), T0, &load).unwrap_err();
            assert_eq!(p.retry_after_s(), Some(u64::try_from(pause / 1000).unwrap()));
        }
        let mut mixed: Vec<Change> =
            (0..3).map(|i| asking(&[leaf(&format!("a{i}"), 3)]).no("ann").closed(Ending::Rejected).c).collect();
        mixed.push(asking(&[leaf("b", 3)]).at(T0 + 10).yes("ann").authorized().closed(Ending::Cancelled).c);
        mixed.push(asking(&[leaf("c", 3)]).at(T0 + 20).no("ann").closed(Ending::Rejected).c);
        assert_eq!(code(&mixed, &wish("claude", &fields, &ann), T0 + 20 + 29_999), "load.cooling_down");
        assert_eq!(code(&mixed, &wish("claude", &fields, &ann), T0 + 20 + 30_000), "", "a yes ends the row");
    }
}
