//! Turns: our own changes do not race each other to a branch. Each push is a compare-and-swap on the tip, so of
//! many at once all but one would lose, pause for longer and longer, and run out of time without anybody
//! else having pushed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::change::{Change, Step, WaitFor};
use countersign_core::model::{ChangeId, Effect};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, broadcast};

use super::Pipeline;

/// Failed merges through which a turn is kept: pauses of 1, 2 and 4 s.
const KEPT: u32 = 3;

/// Repository and ref.
type Branch = (String, String);

/// One queue for each branch, in the order of asking.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<Branch, Arc<Turn<()>>>>);

/// The right to move a branch, until it is dropped.
pub(super) type Held = OwnedMutexGuard<()>;

/// Whether the step moves the branch that the change is for.
pub(super) fn wanted(step: &Step) -> bool {
    matches!(step, Step::Do(Effect::PushTarget | Effect::Merge))
}

/// Whether the turn is kept for the next try. A forge that works out anew after each merge what else can be
/// merged (Gitea: "Please try again later") would never come to an end with the others trying meanwhile. Kept for
/// few tries only: what cannot be merged for another reason is not to hold up the others.
pub(super) fn kept(change: &Change, step: &Step) -> bool {
    matches!(step, Step::Wait(WaitFor::Retry, _))
        && change.effect(&Effect::Merge).is_some_and(|s| {
            (1..=KEPT).contains(&s.failures) && s.problem.as_ref().is_some_and(|p| p.code == "forge.not_mergeable")
        })
}

impl Turns {
    fn of(&self, repository: &str, git_ref: &str) -> Arc<Turn<()>> {
        let branch = (repository.to_owned(), git_ref.to_owned());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(branch).or_default().clone()
    }
}

impl Pipeline {
    /// Waits for the change's turn. `None`: something happened meanwhile, and it is to move the branch no more.
    pub(super) async fn turn(&self, change: &Change, news: &mut broadcast::Receiver<Option<ChangeId>>) -> Option<Held> {
        let mut asked = pin!(self.turns.of(&change.sealed.repository, &change.sealed.git_ref).lock_owned());
        loop {
            tokio::select! {
                biased;
                held = &mut asked => return Some(held),
                // Time alone can end it too, and news may have been missed.
                () = self.clock.sleep_until(self.clock.now_ms() + self.limits().poll_ms) => {}
                heard = news.recv() => match heard {
                    Ok(Some(id)) if id != change.id => continue,
                    Err(broadcast::error::RecvError::Closed) => return Some(asked.await),
                    _ => {}
                },
            }
            if !self.due(change.id).await.is_some_and(|(_, step)| wanted(&step)) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_branch_has_one_queue_and_others_have_their_own() {
        let turns = Turns::default();
        let held = turns.of("shop", "refs/heads/main").lock_owned().await;
        assert!(turns.of("shop", "refs/heads/main").try_lock_owned().is_err());
        assert!(turns.of("shop", "refs/heads/other").try_lock_owned().is_ok());
        assert!(turns.of("infra", "refs/heads/main").try_lock_owned().is_ok());
        drop(held);
        assert!(turns.of("shop", "refs/heads/main").try_lock_owned().is_ok());
    }
}
