//! What came before: an expired change that is asked about again, and the version that was healthy last.

use std::collections::BTreeSet;

use countersign_core::change::Change;
use countersign_core::model::{ChangeAnswer, Ending, OperateArgs};
use countersign_core::{Problem, Result};

use super::Pipeline;
use super::plan::Plan;
use super::propose::{Draft, stands_between};

/// Commits that are looked at for when a version was replaced.
const HISTORY: usize = 200;
/// A time of day is enough for what is at most so long ago, seconds.
const DAY_S: u64 = 24 * 3600;

impl Pipeline {
    /// What an expired change asked for, if the very same would be done now.
    pub(super) async fn again(&self, old: &Change) -> Result<ChangeAnswer> {
        let who = &old.proposal.requester;
        if self.config.load().principal(&who.agent).is_none_or(|p| p.sponsor != who.sponsor) {
            let say = "The agent, or the person who answers for it, is no longer the same.";
            return Err(Problem::new("again.requester", say, "Let an agent propose it anew.").never());
        }
        if let Some(of) = old.proposal.reverts {
            let of = self.journal.change(of).await.ok_or_else(super::unknown_change)?;
            return self.revert_of(&of, who, &old.proposal.reason, false, old.again_asked.as_deref()).await;
        }
        let args = OperateArgs {
            edits: old.proposal.edits.clone(),
            reason: old.proposal.reason.clone(),
            key: None,
            plan_only: false,
        };
        let scope = match self.scope(who, &args).await? {
            Ok(scope) => scope,
            Err(answer) => return Ok(answer),
        };
        let place = self.place(scope.cluster, &scope.owner).await?;
        // What is dated bears the date that people saw.
        let mut plan = self.plan(scope.cluster, place, &scope.wanted, &crate::clock::rfc3339(old.proposed_at)).await?;
        if !same_content(old, &plan) {
            return Err(Problem::new(
                "again.changed",
                "What would be done now is not what was asked about: its files changed since.",
                "Let the agent look at the target and propose it anew.",
            )
            .never());
        }
        plan.notes.extend(stands_between(&plan));
        let draft = Draft {
            who: who.clone(),
            reason: args.reason,
            key: None,
            content_key: old.proposal.content_key.clone(),
            edits: scope.edits,
            reverts: None,
            wanted_by: old.again_asked.clone(),
            at: self.clock.now_ms(),
        };
        self.conclude(draft, plan, false).await
    }

    /// The version of the object that was healthy last, as far as the journal knows, and until when it stood in Git.
    pub(super) async fn last_healthy(&self, plan: &Plan) -> Option<String> {
        let object = &plan.fields.first()?.object;
        let (version, commit, path, seen) = self
            .journal
            .read(|v| {
                let healthy = v.changes.values().filter(|c| {
                    c.end.as_ref().is_some_and(|e| e.ending == Ending::Healthy) && c.proposal.cluster == plan.cluster
                });
                let image = |c: &Change| {
                    let l = c.proposal.fields.iter().find(|l| l.object == *object && l.pointer.ends_with("/image"))?;
                    let whole = l.after.as_ref()?.as_str()?;
                    let path = c.proposal.files.first()?.path.clone();
                    let version = whole.rsplit_once([':', '@']).map_or(whole, |(_, v)| v).to_owned();
                    Some((version, c.landed.as_ref()?.commit.clone(), path, c.end.as_ref()?.at))
                };
                healthy.filter_map(|c| image(c)).max_by_key(|(.., at)| *at)
            })
            .await?;
        let repo = self.repo(&plan.repository).ok()?;
        let later = repo.git.commits_between(&commit, &plan.base, HISTORY).await.ok()?;
        let until = later.commits.iter().filter(|c| c.changed.contains(&path)).map(|c| c.time).min();
        let now = self.clock.now_ms() / 1000;
        let when = match until {
            Some(at) => format!("until {}", moment(at, now)?),
            None => format!("seen {}", moment(seen / 1000, now)?),
        };
        Some(format!("{version}, {when} ({})", commit.get(..7).unwrap_or(&commit)))
    }
}

/// `02:58 UTC`, with its date where more than a day lies between. Seconds since the epoch.
fn moment(at: i64, now: i64) -> Option<String> {
    let words = if now.abs_diff(at) > DAY_S { "%Y-%m-%d %H:%M UTC" } else { "%H:%M UTC" };
    chrono::DateTime::from_timestamp(at, 0).map(|t| t.format(words).to_string())
}

/// Whether the plan writes what the change would have written, over what it was shown.
fn same_content(old: &Change, plan: &Plan) -> bool {
    let now: BTreeSet<(&str, Option<&str>, Option<String>)> = plan
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.before.as_ref().map(|(oid, _)| oid.as_str()), f.after_blob()))
        .collect();
    let then: BTreeSet<(&str, Option<&str>, Option<String>)> =
        old.sealed.files.iter().map(|f| (f.path.as_str(), f.before.as_deref(), f.after.clone())).collect();
    now == then && plan.fields == old.proposal.fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_a_day_ago_has_its_date() {
        let at = 1_793_501_880; // 2026-11-01 02:58 UTC
        for (later, words) in [
            (60, "02:58 UTC"),
            (24 * 3600, "02:58 UTC"),
            (24 * 3600 + 1, "2026-11-01 02:58 UTC"),
            (90 * 24 * 3600, "2026-11-01 02:58 UTC"),
            // A commit whose author's clock was ahead.
            (-60, "02:58 UTC"),
            (-2 * 24 * 3600, "2026-11-01 02:58 UTC"),
        ] {
            assert_eq!(moment(at, at + later).unwrap(), words, "{later} s later");
        }
        assert_eq!(moment(i64::MAX, at), None);
    }
}
