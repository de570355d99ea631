//! record: after a failure, the change that would undo it is prepared and goes through the same
//! gate as any other.

use std::sync::Arc;

use countersign_core::change::Change;
use countersign_core::model::{Body, Ending, Outcome};
use countersign_core::{Problem, Result, Retry};

use super::propose::withdrawable;
use super::{ACTOR, Pipeline, fault};
use crate::journal::Entry;

/// How long the planning of a revert is tried again while something is down.
const TRY_MS: i64 = 10 * 60_000;

impl Pipeline {
    /// `Step::PrepareRevert`.
    pub(super) async fn prepare_revert(self: &Arc<Self>, change: &Change) -> Result<()> {
        let why = change.end.as_ref().map_or_else(String::new, |e| e.say.clone());
        let ended = change.end.as_ref().map_or(0, |e| e.at);
        let reason = format!("{} failed: {why}", change.name());
        let made = self.revert_of(change, &change.proposal.requester, &reason, false).await;
        let id = match made {
            Ok(answer) if answer.outcome != Outcome::Refused => answer.change.and_then(|c| c.parse().ok()),
            Ok(answer) => {
                let said = answer.problem.map_or(answer.summary, |p| p.message);
                tracing::info!(change = %change.id, "no revert was prepared: {said}");
                None
            }
            Err(problem) if problem.retry == Retry::Later && self.clock.now_ms() < ended + TRY_MS => {
                // Something is down, perhaps what made the change fail: planning is tried again.
                tracing::info!(change = %change.id, code = %problem.code, "the revert waits: {}", problem.message);
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                return Ok(());
            }
            Err(problem) => {
                tracing::info!(change = %change.id, code = %problem.code, "no revert was prepared: {}", problem.message);
                None
            }
        };
        // Written either way, so that it is tried once: a person can still call rollback.
        let change_id = id.unwrap_or(change.id);
        fault::point("before_revert_noted");
        self.journal
            .append(self.clock.now_ms(), change.id, ACTOR, vec![Body::RevertPrepared { change: change_id }])
            .await
    }
}

impl Pipeline {
    /// `Step::WithdrawRevert`: a late healthy takes the offered revert back. One that somebody decided
    /// about already goes its way.
    pub(super) async fn withdraw_revert(&self, change: &Change) -> Result<()> {
        let id = change.id;
        let say = format!("{} became healthy after all", change.name());
        let busy = self
            .journal
            .transact(self.clock.now_ms(), &[], |view| {
                let mut entries = Vec::new();
                let revert = change
                    .revert
                    .filter(|r| *r != id)
                    .and_then(|r| view.changes.get(&r))
                    .filter(|r| r.votes.is_empty() && withdrawable(r));
                if revert.is_some_and(|r| r.dangling().is_some()) {
                    // A card is just being sent: it must be known before it can be settled.
                    return Ok((true, entries));
                }
                if let Some(r) = revert {
                    entries.push(Entry::of(r.id, ACTOR, Body::Closed { ending: Ending::Cancelled, say: say.clone() }));
                }
                // Pointing at itself: there is no revert on offer any more.
                entries.push(Entry::of(id, ACTOR, Body::RevertPrepared { change: id }));
                Ok((false, entries))
            })
            .await?;
        if busy {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        Ok(())
    }
}

/// Why a change cannot be undone.
pub(super) fn not_landed(name: &str) -> Problem {
    Problem::new(
        "rollback.not_landed",
        format!("{name} was never committed, so there is nothing to undo."),
        "Use cancel for a change that still waits.",
    )
    .never()
}
