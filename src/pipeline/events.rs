//! The journal's events to other systems, in order and at least once: each to a webhook, ended changes to a collector
//! of traces.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::Result;
use countersign_core::model::{Body, Event};
use tokio_util::sync::CancellationToken;

use super::{ACTOR, Pipeline};
#[cfg(feature = "otel")]
use crate::channel::traces::Traces;
use crate::channel::webhook::Webhook;
use crate::journal::Entry;

/// Events that are read at once.
const PAGE: usize = 100;
/// Pause after a delivery that failed; doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Who is fed.
pub enum Feed {
    /// A webhook, with its name.
    Webhook(String, Webhook),
    /// A collector of traces.
    #[cfg(feature = "otel")]
    Traces(Box<Traces>),
}

impl Feed {
    /// Under which it is remembered how far it was fed.
    fn channel(&self) -> String {
        match self {
            Self::Webhook(name, _) => format!("webhook/{name}"),
            #[cfg(feature = "otel")]
            Self::Traces(_) => "traces".to_owned(),
        }
    }

    /// Whether what happened before it was first fed is news to it.
    fn wants_history(&self) -> bool {
        matches!(self, Self::Webhook(..))
    }
}

impl Pipeline {
    /// Feeds one of them until the daemon ends. Up to where it came is in the journal itself, written once a batch:
    /// what was sent and not yet noted comes again, with the same id.
    pub async fn feed(self: Arc<Self>, to: Feed, shutdown: CancellationToken) {
        let channel = to.channel();
        let mut news = self.journal.subscribe();
        let first = if to.wants_history() { 1 } else { after(self.journal.head().await.seq) };
        let mut next = self.journal.read(|v| v.offsets.get(&channel).copied().unwrap_or(first)).await;
        let mut pause = PAUSE;
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.feed_page(&channel, &to, &mut next) => outcome,
            };
            let wait = match outcome {
                Ok(true) => {
                    pause = PAUSE;
                    continue;
                }
                Ok(false) => None,
                Err(problem) => {
                    tracing::warn!(%channel, code = %problem.code, "{}", problem.message);
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
    async fn feed_page(&self, channel: &str, to: &Feed, next: &mut i64) -> Result<bool> {
        let from = u64::try_from(*next).unwrap_or(1);
        let events = self.journal.events_from(from, PAGE).await?;
        let more = !events.is_empty();
        let mut sent = false;
        let mut failed = None;
        for e in events {
            match self.tell(to, &e).await {
                Ok(told) => sent |= told,
                Err(problem) => {
                    failed = Some(problem);
                    break;
                }
            }
            *next = after(e.seq);
        }
        if sent {
            let body = Body::Polled { channel: channel.to_owned(), offset: *next };
            self.journal.transact(self.clock.now_ms(), &[], |_| Ok(((), vec![Entry::global(ACTOR, body)]))).await?;
        }
        failed.map_or(Ok(more), Err)
    }

    /// Tells of one event; `false` = there is nothing to tell.
    async fn tell(&self, to: &Feed, e: &Event) -> Result<bool> {
        match to {
            Feed::Webhook(..) if is_bookkeeping(e) => Ok(false),
            Feed::Webhook(_, hook) => {
                let body = serde_json::to_string(e).unwrap_or_default();
                hook.send(&e.id, self.clock.now_ms() / 1000, body).await.map(|()| true)
            }
            #[cfg(feature = "otel")]
            Feed::Traces(traces) => match (e.change, &e.body) {
                (Some(id), Body::Closed { .. }) => traces.send(&self.journal.story(id).await?).await.map(|()| true),
                _ => Ok(false),
            },
        }
    }
}

/// The event after this one, as an offset.
fn after(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX).saturating_add(1)
}

/// How far a channel was read or fed: an event about it would beget the next one.
fn is_bookkeeping(e: &Event) -> bool {
    matches!(e.body, Body::Polled { .. })
}
