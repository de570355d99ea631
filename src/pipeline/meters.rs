//! What is measured: counted where it happens, or read from the journal and the watches at each scrape.
//!
//! Labels have few values, all of them known beforehand: states, effects, endings, kinds that are watched, and
//! the names of clusters and repositories in the configuration. Never a change, an object, an agent or a person.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_core::Problem;
use countersign_core::change::{Change, State};
use countersign_core::model::{Effect, Ending};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Pipeline;
use super::status::engine_name;

/// Buckets of effects, in seconds: a push takes tenths, a busy forge tens.
const EFFECT_S: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Buckets from the landed commit to the end, in seconds: engines poll every few minutes.
const VERDICT_S: [f64; 9] = [5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0];

type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];
type Named = [(&'static str, String); 1];
type NamedTwo = [(&'static str, String); 2];

/// How the channel does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelState {
    /// Nothing was heard of it yet.
    Starting,
    /// The last poll succeeded.
    Polling,
    /// The last poll failed.
    Failing(Problem),
}

/// Everything measured of one daemon.
pub struct Meters {
    started: Instant,
    channel: Mutex<ChannelState>,
    registry: Mutex<Registry>,
    effects: Family<Two, Histogram, fn() -> Histogram>,
    verdicts: Family<One, Histogram, fn() -> Histogram>,
    failures: Family<One, Counter>,
    open: Family<One, Gauge>,
    ended: Family<One, Gauge>,
    oldest: Gauge<f64, std::sync::atomic::AtomicU64>,
    reviews: Gauge,
    workers: Gauge,
    held: Gauge,
    watches: Family<NamedTwo, Gauge>,
    owners: Family<NamedTwo, Gauge>,
    unwell: Family<NamedTwo, Gauge>,
    channel_up: Family<Named, Gauge>,
    journal_up: Gauge,
    journal_events: Gauge,
    stopped: Gauge,
    ready: Gauge,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").field("started", &self.started).finish_non_exhaustive()
    }
}

fn effect_buckets() -> Histogram {
    Histogram::new(EFFECT_S)
}

fn verdict_buckets() -> Histogram {
    Histogram::new(VERDICT_S)
}

impl Default for Meters {
    fn default() -> Self {
        let meters = Self {
            started: Instant::now(),
            channel: Mutex::new(ChannelState::Starting),
            registry: Mutex::new(Registry::with_prefix("countersign")),
            effects: Family::new_with_constructor(effect_buckets),
            verdicts: Family::new_with_constructor(verdict_buckets),
            failures: Family::default(),
            open: Family::default(),
            ended: Family::default(),
            oldest: Gauge::default(),
            reviews: Gauge::default(),
            workers: Gauge::default(),
            held: Gauge::default(),
            watches: Family::default(),
            owners: Family::default(),
            unwell: Family::default(),
            channel_up: Family::default(),
            journal_up: Gauge::default(),
            journal_events: Gauge::default(),
            stopped: Gauge::default(),
            ready: Gauge::default(),
        };
        meters.register();
        // Every series is there from the start, at zero: an alert on a rate must not miss the first failure.
        for name in Effect::NAMES {
            drop(meters.failures.get_or_create(&[("effect", name)]));
        }
        meters
    }
}

impl Meters {
    fn register(&self) {
        let mut r = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let version: Family<One, Gauge> = Family::default();
        version.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        r.register("build_info", "Version of the daemon", version);
        r.register_with_unit(
            "effect_duration",
            "How long an effect on the world took",
            Unit::Seconds,
            self.effects.clone(),
        );
        r.register("effect_failures", "Effects that failed for good", self.failures.clone());
        r.register_with_unit(
            "verdict_delay",
            "From the landed commit to the end of its change",
            Unit::Seconds,
            self.verdicts.clone(),
        );
        r.register("changes_open", "Open changes by state", self.open.clone());
        r.register("reviews_open", "Changes of a broken glass that nobody reviewed yet", self.reviews.clone());
        r.register("changes_ended", "Ended changes in the journal by ending", self.ended.clone());
        r.register_with_unit(
            "approval_oldest",
            "Age of the oldest change that waits for a person",
            Unit::Seconds,
            self.oldest.clone(),
        );
        r.register("workers", "Changes that are being driven", self.workers.clone());
        r.register("held_back", "Approved changes that wait for Git or a cluster", self.held.clone());
        r.register("watch_up", "Whether the watch on a kind of a cluster follows", self.watches.clone());
        r.register("owners", "Owners that were read, by engine", self.owners.clone());
        r.register("owners_unwell", "Owners that are not synced and healthy", self.unwell.clone());
        r.register("channel_up", "Whether the channel's last poll succeeded", self.channel_up.clone());
        r.register(
            "journal_up",
            "Whether the journal can be read, and the last write to it succeeded",
            self.journal_up.clone(),
        );
        r.register("journal_events", "Events in the journal", self.journal_events.clone());
        r.register("stopped", "Whether the emergency stop is on", self.stopped.clone());
        r.register("ready", "What /readyz says", self.ready.clone());
    }

    /// An effect came to its end.
    pub(super) fn effect(&self, effect: &Effect, took: Duration, outcome: Result<(), &Problem>) {
        let word = match outcome {
            Ok(()) => "done",
            Err(p) if p.retry == countersign_core::Retry::Never => "refused",
            Err(_) => "failed",
        };
        self.effects.get_or_create(&[("effect", effect.name()), ("outcome", word)]).observe(took.as_secs_f64());
        if word == "refused" {
            self.failures.get_or_create(&[("effect", effect.name())]).inc();
        }
    }

    /// A change ended.
    pub(super) fn closed(&self, change: &Change, ending: Ending, now: i64) {
        let Some(landed) = &change.landed else { return };
        self.verdicts.get_or_create(&[("ending", State::Ended(ending).name())]).observe(seconds(now - landed.at));
    }

    /// The channel was polled.
    pub(super) fn polled(&self, outcome: Result<(), &Problem>) {
        let state = match outcome {
            Ok(()) => ChannelState::Polling,
            Err(p) => ChannelState::Failing(p.clone()),
        };
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// How the channel does.
    pub fn channel(&self) -> ChannelState {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long the daemon has been up.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds between two events are far below 2^52")]
fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1000.0
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// States that a person can end.
pub(super) fn waits_for_a_person(c: &Change) -> bool {
    matches!(c.state(), State::AwaitingApproval | State::AwaitingMerge | State::AwaitingCommit)
}

const OPEN: [State; 6] = [
    State::AwaitingApproval,
    State::Approved,
    State::AwaitingMerge,
    State::AwaitingCommit,
    State::Delivering,
    State::Observing,
];

const ENDINGS: [Ending; 10] = [
    Ending::Healthy,
    Ending::Failed,
    Ending::TimedOut,
    Ending::Superseded,
    Ending::Rejected,
    Ending::Expired,
    Ending::Cancelled,
    Ending::Stale,
    Ending::Undelivered,
    Ending::Abandoned,
];

impl Pipeline {
    /// The metrics as they are now, in the OpenMetrics text format.
    pub async fn metrics(&self) -> String {
        let m = &self.meters;
        let now = self.clock.now_ms();
        let (open, ended, oldest, stopped, reviews) = self
            .journal
            .read(|v| {
                let (open, ended): (Vec<_>, Vec<_>) = v.changes.values().partition(|c| c.is_open());
                let states: Vec<State> = open.iter().map(|c| c.state()).collect();
                let endings: Vec<Ending> = ended.iter().filter_map(|c| c.end.as_ref().map(|e| e.ending)).collect();
                let oldest = open.iter().filter(|c| waits_for_a_person(c)).map(|c| c.proposed_at).min();
                let review = v.changes.values().filter(|c| c.glass.as_ref().is_some_and(|g| g.reviewed.is_none()));
                (states, endings, oldest, v.stopped.is_some(), review.count())
            })
            .await;
        for state in OPEN {
            m.open.get_or_create(&[("state", state.name())]).set(int(open.iter().filter(|s| **s == state).count()));
        }
        for ending in ENDINGS {
            let label = [("ending", State::Ended(ending).name())];
            m.ended.get_or_create(&label).set(int(ended.iter().filter(|e| **e == ending).count()));
        }
        m.oldest.set(oldest.map_or(0.0, |at| seconds(now - at)));
        m.reviews.set(int(reviews));
        m.workers.set(int(self.workers.lock().map(|w| w.len()).unwrap_or_default()));
        m.held.set(int(self.held.lock().map(|h| h.len()).unwrap_or_default()));
        m.stopped.set(i64::from(stopped));
        m.journal_up.set(i64::from(self.journal.ready().await.is_ok()));
        m.journal_events.set(i64::try_from(self.journal.head().await.seq).unwrap_or(i64::MAX));
        m.ready.set(i64::from(self.ready().await.is_ok()));
        let mut text = String::new();
        // One scrape at a time: between clearing and setting nobody may look.
        let registry = m.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.measure_edges();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn measure_edges(&self) {
        let m = &self.meters;
        // A kind whose engine went away, or an engine without owners, has no line any more.
        m.watches.clear();
        m.owners.clear();
        m.unwell.clear();
        for (name, cluster) in &self.clusters {
            for watch in cluster.standing() {
                if watch.state != crate::cluster::WatchState::Absent {
                    let up = watch.state == crate::cluster::WatchState::Following;
                    let labels = [("cluster", name.clone()), ("kind", watch.kind.to_owned())];
                    m.watches.get_or_create(&labels).set(i64::from(up));
                }
            }
            for (engine, count) in cluster.owner_counts() {
                let labels = [("cluster", name.clone()), ("engine", engine_name(engine).to_owned())];
                m.owners.get_or_create(&labels).set(int(count.all));
                m.unwell.get_or_create(&labels).set(int(count.all - count.well));
            }
        }
        if self.telegram.is_some() {
            let up = m.channel() == ChannelState::Polling;
            m.channel_up.get_or_create(&[("channel", "telegram".to_owned())]).set(i64::from(up));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(m: &Meters) -> String {
        let mut out = String::new();
        encode(&mut out, &m.registry.lock().unwrap()).unwrap();
        out
    }

    #[test]
    fn an_effect_is_measured_by_name_and_outcome_and_counts_as_failed_only_for_good() {
        let m = Meters::default();
        let later = Problem::new("git.unreachable", "x.", "y.").later();
        let never = Problem::new("git.push_rejected", "x.", "y.").never();
        m.effect(&Effect::PushTarget, Duration::from_millis(300), Ok(()));
        m.effect(&Effect::PushTarget, Duration::from_millis(300), Err(&later));
        assert!(text(&m).contains("countersign_effect_failures_total{effect=\"push_target\"} 0\n"), "{}", text(&m));
        m.effect(&Effect::PushTarget, Duration::from_millis(300), Err(&never));
        let text = text(&m);
        for line in [
            "countersign_effect_failures_total{effect=\"push_target\"} 1\n",
            "countersign_effect_duration_seconds_count{effect=\"push_target\",outcome=\"done\"} 1\n",
            "countersign_effect_duration_seconds_count{effect=\"push_target\",outcome=\"failed\"} 1\n",
            "countersign_effect_duration_seconds_count{effect=\"push_target\",outcome=\"refused\"} 1\n",
            "countersign_effect_duration_seconds_bucket{le=\"0.25\",effect=\"push_target\",outcome=\"done\"} 0\n",
            "countersign_effect_duration_seconds_bucket{le=\"0.5\",effect=\"push_target\",outcome=\"done\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_label_of_an_effect_never_carries_its_person() {
        let m = Meters::default();
        m.effect(&Effect::Ask { person: "anna".into() }, Duration::ZERO, Ok(()));
        assert!(!text(&m).contains("anna"));
    }
}
