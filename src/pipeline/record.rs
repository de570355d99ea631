//! record: after a failure, the change that would undo it is prepared where a person wants it, and what expired is
//! asked about again. Both go through the same gate as any other change.

use std::sync::Arc;

use countersign_core::change::{Change, in_words};
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
        let seen = change.seen.as_ref().map(|s| s.say.clone());
        let why = change.end.as_ref().map(|e| e.say.clone()).or(seen).unwrap_or_default();
        // The wish is the last thing that happened.
        let asked = change.updated_at;
        let reason = format!("{} failed: {why}", change.name());
        let by = change.revert_asked.as_deref();
        let made = self.revert_of(change, &change.proposal.requester, &reason, false, by).await;
        let (id, say) = match made {
            Ok(answer) if answer.outcome != Outcome::Refused => (answer.change.and_then(|c| c.parse().ok()), None),
            Ok(answer) => {
                let said = answer.problem.map_or(answer.summary, |p| p.message);
                tracing::info!(change = %change.id, "no revert was prepared: {said}");
                (None, Some(said))
            }
            Err(problem) if problem.retry == Retry::Later && self.clock.now_ms() < asked + TRY_MS => {
                // Something is down, perhaps what made the change fail: planning is tried again.
                tracing::info!(change = %change.id, code = %problem.code, "the revert waits: {}", problem.message);
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                return Ok(());
            }
            Err(problem) => {
                tracing::info!(change = %change.id, code = %problem.code, "no revert was prepared: {}", problem.message);
                (None, Some(in_words(&problem)))
            }
        };
        // Written either way, so that it is tried once: an agent can still call rollback.
        let say = if id.is_none() { Some(say.unwrap_or_else(|| "No revert could be prepared.".into())) } else { None };
        let body = Body::RevertPrepared { change: id.unwrap_or(change.id), say };
        fault::point("before_revert_noted");
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await
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
                // Whoever asked for it, a person or the agent.
                let undoes = |r: &&std::sync::Arc<Change>| r.proposal.reverts == Some(id) && withdrawable(r);
                let reverts: Vec<_> = view.changes.values().filter(undoes).filter(|r| r.votes.is_empty()).collect();
                if reverts.iter().any(|r| r.dangling().is_some()) {
                    // A card is just being sent: it must be known before it can be settled.
                    return Ok((true, entries));
                }
                for r in reverts {
                    entries.push(Entry::of(r.id, ACTOR, Body::Closed { ending: Ending::Cancelled, say: say.clone() }));
                }
                // Pointing at itself: there is no revert on offer any more.
                entries.push(Entry::of(id, ACTOR, Body::RevertPrepared { change: id, say: None }));
                Ok((false, entries))
            })
            .await?;
        if busy {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        Ok(())
    }
}

impl Pipeline {
    /// `Step::AskAgain`: the same content again, planned on what is true now and decided by the policy of now.
    pub(super) async fn ask_again(&self, change: &Change) -> Result<()> {
        let (new, say) = match self.again(change).await {
            Ok(answer) => match answer.change.as_deref().and_then(|c| c.parse().ok()) {
                Some(id) if answer.outcome != Outcome::Refused => (Some(id), String::new()),
                _ => (None, answer.problem.map_or(answer.summary, |p| p.message)),
            },
            Err(problem) if problem.retry == Retry::Later && self.clock.now_ms() < change.updated_at + TRY_MS => {
                tracing::info!(change = %change.id, code = %problem.code, "asking again waits: {}", problem.message);
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                return Ok(());
            }
            Err(problem) => (None, in_words(&problem)),
        };
        let body = Body::AgainPrepared { change: new, say };
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await
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
