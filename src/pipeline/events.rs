//! Every event of the journal to each webhook, in order and at least once.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::Result;
use countersign_core::model::{Body, Event};
use tokio_util::sync::CancellationToken;

use super::{ACTOR, Pipeline};
use crate::channel::webhook::Webhook;
use crate::journal::Entry;

/// Events that are read at once.
const PAGE: usize = 100;
/// Pause after a delivery that failed; doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

impl Pipeline {
    /// Feeds one webhook until the daemon ends. Up to where it came is in the journal itself, written once a batch:
    /// what was sent and not yet noted comes again, with the same id.
    pub async fn feed(self: Arc<Self>, name: String, hook: Webhook, shutdown: CancellationToken) {
        let channel = format!("webhook/{name}");
        let mut news = self.journal.subscribe();
        let mut next = self.journal.read(|v| v.offsets.get(&channel).copied().unwrap_or(1)).await;
        let mut pause = PAUSE;
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.feed_page(&channel, &hook, &mut next) => outcome,
            };
            let wait = match outcome {
                Ok(true) => {
                    pause = PAUSE;
                    continue;
                }
                Ok(false) => None,
                Err(problem) => {
                    tracing::warn!(webhook = %name, code = %problem.code, "{}", problem.message);
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST);
                    Some(wait)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.pause(wait) => {}
                _ = news.recv(), if wait.is_none() => {}
            }
        }
    }

    async fn pause(&self, wait: Option<Duration>) {
        match wait {
            Some(wait) => {
                let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                self.clock.sleep_until(self.clock.now_ms().saturating_add(ms)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Sends what is there; `false` = nothing more.
    async fn feed_page(&self, channel: &str, hook: &Webhook, next: &mut i64) -> Result<bool> {
        let from = u64::try_from(*next).unwrap_or(1);
        let events = self.journal.events_from(from, PAGE).await?;
        let more = !events.is_empty();
        let mut sent = false;
        let mut failed = None;
        for e in events {
            if !is_bookkeeping(&e) {
                let body = serde_json::to_string(&e).unwrap_or_default();
                if let Err(problem) = hook.send(&e.id, self.clock.now_ms() / 1000, body).await {
                    failed = Some(problem);
                    break;
                }
                sent = true;
            }
            *next = i64::try_from(e.seq).unwrap_or(i64::MAX).saturating_add(1);
        }
        if sent {
            let body = Body::Polled { channel: channel.to_owned(), offset: *next };
            self.journal.transact(self.clock.now_ms(), &[], |_| Ok(((), vec![Entry::global(ACTOR, body)]))).await?;
        }
        failed.map_or(Ok(more), Err)
    }
}

/// How far a channel was read or fed: an event about it would beget the next one.
fn is_bookkeeping(e: &Event) -> bool {
    matches!(e.body, Body::Polled { .. })
}
