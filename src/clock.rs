//! The clock. `now` is an argument everywhere else; here it is read, and tests can drive it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The time of day, plus whatever a test has moved it by.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
    moved: Arc<Notify>,
}

impl Clock {
    /// The real time.
    pub fn real() -> Self {
        Self::default()
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        chrono::Utc::now().timestamp_millis() + self.offset_ms.load(Ordering::SeqCst)
    }

    /// Moves the clock and wakes everybody who waits for a time.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms.fetch_add(ms, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    /// Waits until this time, milliseconds since the epoch.
    pub async fn sleep_until(&self, at: i64) {
        loop {
            let moved = self.moved.notified();
            let left = at.saturating_sub(self.now_ms());
            if left <= 0 {
                return;
            }
            // Capped: a laptop that slept, or a clock that was set, is noticed within a minute.
            let pause = Duration::from_millis(u64::try_from(left).unwrap_or(0).min(60_000));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = moved => {}
            }
        }
    }
}

/// RFC 3339 with seconds.
pub fn rfc3339(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(String::new, |t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
