//! A clock that tests drive: real time plus an offset that only ever grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// Time of a sandbox server. Clones share the offset, so that one world has one time.
///
/// Expiry and rate limits follow this clock; the seconds that a client asks to wait for an answer
/// (a long poll) are real ones, because the client counts them with its own clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that starts at the real time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The sandbox's time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::milliseconds(self.ahead_ms.load(Ordering::SeqCst))
    }

    /// Lets time pass at once.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.ahead_ms.fetch_add(by, Ordering::SeqCst);
    }
}

/// `by` as a signed difference; a duration too long for chrono means "never".
pub(crate) fn delta(by: Duration) -> TimeDelta {
    TimeDelta::from_std(by).unwrap_or(TimeDelta::days(36_500))
}
