//! One blocking call at a time per mirror, bounded in time.
//!
//! libgit2 can only be interrupted in its callbacks, and its socket time-outs are process-wide
//! settings behind an unsafe call. So a call that overstays is abandoned: its callbacks see the
//! deadline and end it at the next chance, the lane gets a fresh handle, and the number of calls
//! left behind is bounded.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use countersign_core::{Problem, Result};
use git2::Repository;
use tokio::sync::Mutex;

const MAX_ABANDONED: usize = 4;

type Slot = Mutex<Option<Repository>>;

pub(crate) struct Lane {
    dir: PathBuf,
    slot: ArcSwap<Slot>,
    abandoned: Arc<AtomicUsize>,
}

impl Lane {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, slot: ArcSwap::from_pointee(Mutex::new(None)), abandoned: Arc::new(AtomicUsize::new(0)) }
    }

    /// Runs `call` on the blocking pool with the mirror's handle and the deadline. Dropping the
    /// returned future does not stop the call; the lane stays taken until it ends.
    pub(crate) async fn run<T, F>(&self, limit: Duration, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Repository, Instant) -> Result<T> + Send + 'static,
    {
        if self.abandoned.load(Ordering::SeqCst) >= MAX_ABANDONED {
            return Err(Problem::new(
                "git.stuck",
                "Several calls to this repository hang.",
                "Check its host; it is tried again once they end.",
            )
            .later());
        }
        let slot = self.slot.load_full();
        let guard = tokio::time::timeout(limit, Arc::clone(&slot).lock_owned()).await.map_err(|_| {
            Problem::new("git.busy", "Another call to this repository takes long.", "Try again in a moment.").later()
        })?;
        let (dir, deadline) = (self.dir.clone(), Instant::now() + limit);
        let mut task = tokio::task::spawn_blocking(move || {
            let mut guard = guard;
            let repo = match guard.take() {
                Some(repo) => repo,
                None => super::mirror::open_mirror(&dir)?,
            };
            let out = call(&repo, deadline);
            *guard = Some(repo);
            out
        });
        match tokio::time::timeout(limit + Duration::from_secs(1), &mut task).await {
            Ok(Ok(out)) => out,
            Ok(Err(_)) => {
                Err(Problem::new("git.failed", "A call of Git broke off.", "Try again; report it if it happens again.")
                    .later())
            }
            Err(_) => {
                self.abandon(&slot, task);
                Err(timed_out())
            }
        }
    }

    fn abandon<T: Send + 'static>(&self, slot: &Arc<Slot>, task: tokio::task::JoinHandle<T>) {
        self.slot.compare_and_swap(slot, Arc::new(Mutex::new(None)));
        self.abandoned.fetch_add(1, Ordering::SeqCst);
        let abandoned = Arc::clone(&self.abandoned);
        tokio::spawn(async move {
            let _ = task.await;
            abandoned.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// The call took longer than allowed.
pub(crate) fn timed_out() -> Problem {
    Problem::new(
        "git.timeout",
        "The repository's host did not finish in time.",
        "Check the host and the network; it is tried again.",
    )
    .later()
}
