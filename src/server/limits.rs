//! How much one principal may ask for at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_core::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits of one principal over all faces; body and sessions are those of the HTTP face.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests per second in the long run.
    pub per_second: f64,
    /// Requests at once after a rest.
    pub burst: u32,
    /// Requests being worked on.
    pub in_flight: usize,
    /// Further requests that may wait for one of those to end, …
    pub queue: usize,
    /// … for at most this long.
    pub queue_for: Duration,
    /// Largest request body in bytes.
    pub body: usize,
    /// Open legacy sessions.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_second: 10.0,
            burst: 20,
            in_flight: 16,
            queue: 32,
            queue_for: Duration::from_secs(2),
            body: 256 * 1024,
            sessions: 64,
        }
    }
}

/// Refused: come back after so long.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany {
    /// When a call may succeed again.
    pub retry_after: Duration,
}

impl TooMany {
    /// Whole seconds to wait, at least one.
    pub fn seconds(&self) -> u64 {
        self.retry_after.as_secs().max(1)
    }

    /// As an answer.
    pub fn problem(&self) -> Problem {
        Problem::new(
            "server.rate",
            "Too many requests at a time.",
            format!("Wait {} s; use `change` with wait_s instead of polling.", self.seconds()),
        )
        .later()
    }
}

/// Counts per principal. Principals are those of the configuration, so the map stays small.
#[derive(Debug)]
pub struct Meter {
    limits: Limits,
    by_agent: Mutex<HashMap<String, Arc<Agent>>>,
}

#[derive(Debug)]
struct Agent {
    bucket: Mutex<Bucket>,
    admitted: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Held while a request is worked on.
#[derive(Debug)]
pub struct Slot {
    _admitted: OwnedSemaphorePermit,
    _working: OwnedSemaphorePermit,
}

impl Meter {
    /// A meter with nothing counted yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, by_agent: Mutex::default() }
    }

    /// Counts one request and waits for a slot.
    pub async fn enter(&self, agent: &str, now: Instant) -> Result<Slot, TooMany> {
        let state = self.agent(agent, now);
        self.spend(&state, now)?;
        let busy = TooMany { retry_after: Duration::from_secs(1) };
        let Ok(admitted) = state.admitted.clone().try_acquire_owned() else { return Err(busy) };
        match tokio::time::timeout(self.limits.queue_for, state.working.clone().acquire_owned()).await {
            Ok(Ok(working)) => Ok(Slot { _admitted: admitted, _working: working }),
            _ => Err(busy),
        }
    }

    fn agent(&self, name: &str, now: Instant) -> Arc<Agent> {
        let mut all = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = all.get(name) {
            return agent.clone();
        }
        let agent = Arc::new(Agent {
            bucket: Mutex::new(Bucket { tokens: f64::from(self.limits.burst), at: now }),
            admitted: Arc::new(Semaphore::new(self.limits.in_flight + self.limits.queue)),
            working: Arc::new(Semaphore::new(self.limits.in_flight)),
        });
        all.insert(name.to_owned(), agent.clone());
        agent
    }

    fn spend(&self, agent: &Agent, now: Instant) -> Result<(), TooMany> {
        let mut bucket = agent.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.limits.per_second;
        bucket.tokens = (bucket.tokens + gained).min(f64::from(self.limits.burst));
        bucket.at = bucket.at.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - bucket.tokens) / self.limits.per_second;
        Err(TooMany { retry_after: Duration::try_from_secs_f64(wait).unwrap_or(Duration::from_secs(60)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_the_burst_ten_a_second_pass() {
        let meter = Meter::new(Limits::default());
        let start = Instant::now();
        for _ in 0..20 {
            meter.enter("a", start).await.unwrap();
        }
        let refused = meter.enter("a", start).await.unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        assert!(meter.enter("b", start).await.is_ok(), "another principal is not affected");
        let mut passed = 0;
        for ms in 0..1000 {
            passed += usize::from(meter.enter("a", start + Duration::from_millis(ms)).await.is_ok());
        }
        assert!((9..=10).contains(&passed), "{passed}");
    }

    #[tokio::test]
    async fn the_fifth_waits_and_the_twenty_first_is_refused_at_once() {
        let meter = Arc::new(Meter::new(Limits { burst: 100, in_flight: 4, queue: 16, ..Limits::default() }));
        let now = Instant::now();
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(meter.enter("a", now).await.unwrap());
        }
        let waiting: Vec<_> = (0..16)
            .map(|_| {
                let meter = meter.clone();
                tokio::spawn(async move { meter.enter("a", now).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        let answer =
            futures::FutureExt::now_or_never(meter.enter("a", now)).expect("who finds the queue full does not wait");
        assert!(answer.is_err());
        drop(held);
        for task in waiting {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn waiting_for_a_slot_ends() {
        let meter = Meter::new(Limits { in_flight: 1, queue_for: Duration::from_millis(30), ..Limits::default() });
        let now = Instant::now();
        let _held = meter.enter("a", now).await.unwrap();
        let asked = Instant::now();
        assert!(meter.enter("a", now).await.is_err());
        assert!(asked.elapsed() >= Duration::from_millis(30), "{:?}", asked.elapsed());
    }
}
