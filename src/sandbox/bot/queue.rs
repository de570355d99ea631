//! The queue of updates: kept until confirmed or expired, one poller at a time.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Kinds that are only delivered when asked for by name (Bot API, `allowed_updates`).
const ON_REQUEST: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];

#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) id: i64,
    pub(crate) kind: String,
    body: Value,
    expires: DateTime<Utc>,
}

impl Queued {
    pub(crate) fn value(&self) -> Value {
        json!({"update_id": self.id, self.kind.clone(): self.body})
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    updates: Vec<Queued>,
    last_id: i64,
    allowed: Vec<String>,
    /// Number of the newest poll; an older one has to give way.
    poll: u64,
    next_conflict: Option<DateTime<Utc>>,
}

impl Queue {
    /// Queues an update; `None` when the bot has not allowed this kind.
    pub(crate) fn push(&mut self, kind: &str, body: Value, expires: DateTime<Utc>) -> Option<i64> {
        let wanted =
            if self.allowed.is_empty() { !ON_REQUEST.contains(&kind) } else { self.allowed.iter().any(|k| k == kind) };
        if !wanted {
            return None;
        }
        // Real ids start anywhere; a large start catches clients that count from zero.
        self.last_id = self.last_id.max(712_000_000) + 1;
        self.updates.push(Queued { id: self.last_id, kind: kind.to_owned(), body, expires });
        Some(self.last_id)
    }

    pub(crate) fn len(&self) -> usize {
        self.updates.len()
    }

    pub(crate) fn allow(&mut self, kinds: Vec<String>) {
        self.allowed = kinds;
    }

    /// Forgets what nobody fetched in time; returns it for the log.
    pub(crate) fn expire(&mut self, now: DateTime<Utc>) -> Vec<Queued> {
        let (gone, kept) = std::mem::take(&mut self.updates).into_iter().partition(|u| u.expires <= now);
        self.updates = kept;
        gone
    }

    /// Forgets everything before `offset`; a negative one keeps only the last `-offset`.
    pub(crate) fn confirm(&mut self, offset: i64) -> Vec<i64> {
        let from = if offset < 0 {
            let keep = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            let first = self.updates.len().saturating_sub(keep);
            self.updates.get(first).map_or(i64::MAX, |u| u.id)
        } else {
            offset
        };
        let gone = self.updates.iter().filter(|u| u.id < from).map(|u| u.id).collect();
        self.updates.retain(|u| u.id >= from);
        gone
    }

    pub(crate) fn clear(&mut self) {
        self.updates.clear();
    }

    pub(crate) fn first(&self, limit: usize) -> Vec<Value> {
        self.updates.iter().take(limit).map(Queued::value).collect()
    }

    /// A new poll begins; whoever polls already has to give way.
    pub(crate) fn begin_poll(&mut self) -> u64 {
        self.poll += 1;
        self.poll
    }

    pub(crate) fn is_current(&self, poll: u64) -> bool {
        self.poll == poll
    }

    /// Whether the next 409 comes at once, or late because one was sent a moment ago.
    pub(crate) fn conflict_is_late(&mut self, now: DateTime<Utc>, spacing: chrono::TimeDelta) -> bool {
        if self.next_conflict.is_some_and(|at| now < at) {
            return true;
        }
        self.next_conflict = Some(now + spacing);
        false
    }
}
