//! One clock for the whole sandbox: it runs on tokio's time, so a paused runtime stands still,
//! and a speed factor shortens every wait.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::time::Instant;

/// Wall time that follows tokio's clock, and waits that are divided by a speed.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: DateTime<Utc>,
    start: Instant,
    speed: f64,
}

impl Clock {
    /// A clock that starts at `wall`; `speed` 1 waits as long as the real engines do.
    pub fn new(wall: DateTime<Utc>, speed: f64) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
        Self { wall, start: Instant::now(), speed }
    }

    /// Now, as the sandbox sees it.
    pub fn now(&self) -> DateTime<Utc> {
        self.wall + TimeDelta::from_std(self.start.elapsed()).unwrap_or_default()
    }

    /// Now with the one-second grain that Kubernetes writes.
    pub fn stamp(&self) -> String {
        self.now().to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// Seconds since the start, for recordings.
    pub fn elapsed(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
    }

    /// How long `real` lasts at this speed.
    pub fn scaled(&self, real: Duration) -> Duration {
        real.div_f64(self.speed)
    }

    /// Waits for `real` divided by the speed.
    pub async fn sleep(&self, real: Duration) {
        tokio::time::sleep(self.scaled(real)).await;
    }

    /// Waits for some milliseconds divided by the speed.
    pub async fn millis(&self, real: u64) {
        self.sleep(Duration::from_millis(real)).await;
    }
}

/// A Go duration (`1h5m`, `25s`, `250ms`) as Kubernetes objects carry it.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            "ns" => 0.000_000_001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = tail;
    }
    Some(total)
}

/// A duration the way Go prints it (`5.025993904s`, `19.915302ms`).
pub fn print_duration(duration: Duration) -> String {
    let trim = |number: String| {
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.').to_owned() } else { number }
    };
    let seconds = duration.as_secs_f64();
    if seconds >= 60.0 {
        let minutes = (seconds / 60.0).floor();
        return format!("{minutes}m{}s", trim(format!("{:.9}", seconds - minutes * 60.0)));
    }
    if seconds >= 1.0 {
        return format!("{}s", trim(format!("{seconds:.9}")));
    }
    format!("{}ms", trim(format!("{:.6}", seconds * 1000.0)))
}
