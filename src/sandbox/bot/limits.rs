//! Flood limits: so many messages per second overall, per chat, and per minute in a group.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::sandbox::clock::delta;

/// Figures of the flood control (Telegram's own are these, and unspecified in detail).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Messages per second over all chats.
    pub per_second: usize,
    /// Messages to one chat within [`Limits::per_chat_seconds`].
    pub per_chat: usize,
    /// Window of the limit per chat.
    pub per_chat_seconds: u64,
    /// Messages per minute in one group.
    pub per_group_minute: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_second: 30, per_chat: 3, per_chat_seconds: 3, per_group_minute: 20 }
    }
}

/// What was sent lately.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    limits: Option<Limits>,
    all: VecDeque<DateTime<Utc>>,
    chats: BTreeMap<i64, VecDeque<DateTime<Utc>>>,
}

impl Flood {
    pub(crate) fn new(limits: Option<Limits>) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn set(&mut self, limits: Option<Limits>) {
        *self = Self::new(limits);
    }

    /// Counts one message, or says in how many seconds it may be tried again.
    pub(crate) fn count(&mut self, chat: i64, now: DateTime<Utc>) -> Result<(), u64> {
        let Some(limits) = self.limits else { return Ok(()) };
        let minute = Duration::from_secs(60);
        let sent = self.chats.entry(chat).or_default();
        for times in [&mut self.all, &mut *sent] {
            times.retain(|t| *t > now - delta(minute));
        }
        let mut wait = wait_for(&self.all, limits.per_second, Duration::from_secs(1), now);
        wait = wait.max(wait_for(sent, limits.per_chat, Duration::from_secs(limits.per_chat_seconds), now));
        if chat < 0 {
            wait = wait.max(wait_for(sent, limits.per_group_minute, minute, now));
        }
        if wait > 0 {
            return Err(wait);
        }
        self.all.push_back(now);
        sent.push_back(now);
        Ok(())
    }
}

/// Seconds until fewer than `most` of `times` lie within `window`; 0 = now.
fn wait_for(times: &VecDeque<DateTime<Utc>>, most: usize, window: Duration, now: DateTime<Utc>) -> u64 {
    let window = delta(window);
    let inside = times.iter().filter(|t| **t > now - window).count();
    if inside < most {
        return 0;
    }
    // The oldest of the last `most` messages has to leave the window first.
    let Some(blocking) = times.len().checked_sub(most).and_then(|i| times.get(i)) else { return 1 };
    let left = (*blocking + window - now).num_milliseconds();
    u64::try_from(left.max(1)).unwrap_or(1).div_ceil(1000)
}
