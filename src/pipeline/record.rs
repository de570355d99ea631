//! record: after a failure, the change that would undo it is prepared and goes through the same
//! gate as any other.

use std::sync::Arc;

use countersign_core::change::Change;
use countersign_core::model::{Body, Outcome};
use countersign_core::{Problem, Result};

use super::{ACTOR, Pipeline};

impl Pipeline {
    /// `Step::PrepareRevert`.
    pub(super) async fn prepare_revert(self: &Arc<Self>, change: &Change) -> Result<()> {
        let why = change.end.as_ref().map_or_else(String::new, |e| e.say.clone());
        let reason = format!("{} failed: {why}", change.name());
        let made = self.revert_of(change, &change.proposal.requester, &reason, false).await;
        let id = match made {
            Ok(answer) if answer.outcome != Outcome::Refused => answer.change.and_then(|c| c.parse().ok()),
            Ok(answer) => {
                let said = answer.problem.map_or(answer.summary, |p| p.message);
                tracing::info!(change = %change.id, "no revert was prepared: {said}");
                None
            }
            Err(problem) => {
                tracing::info!(change = %change.id, code = %problem.code, "no revert was prepared: {}", problem.message);
                None
            }
        };
        // Written either way, so that it is tried once: a person can still call rollback.
        let change_id = id.unwrap_or(change.id);
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![Body::RevertPrepared { change: change_id }]).await
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
