//! How the watches stand, for `status`, readiness and metrics: what was seen, never what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_core::error::Problem;
use countersign_core::model::Engine;

use super::Cluster;
use super::book::Progress;

/// A connection that is lost is taken up again by itself: only after this long is the watch called down.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far the watch of one kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchState {
    /// The kind is not installed, so nothing is missed.
    Absent,
    /// Not read yet.
    Starting,
    /// Read, and followed since.
    Following,
    /// Read once; the connection is lost now.
    Interrupted,
}

impl WatchState {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Following => "following",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The watch of one kind.
#[derive(Debug, Clone)]
pub struct WatchStanding {
    /// Kind.
    pub kind: &'static str,
    /// How far it is.
    pub state: WatchState,
    /// What hinders it.
    pub problem: Option<Problem>,
    /// How long it has been in this state.
    pub since: Duration,
}

impl WatchStanding {
    /// Why nothing can be answered by it; `None` while it follows, or its loss is young.
    pub fn down(&self) -> Option<Problem> {
        let starting = || {
            Problem::new(
                "cluster.starting",
                format!("The watch on {} has not read its first list yet.", self.kind),
                "Wait a moment; `countersign status` shows how far it is.",
            )
            .later()
        };
        match self.state {
            WatchState::Absent | WatchState::Following => None,
            WatchState::Starting => Some(self.problem.clone().unwrap_or_else(starting)),
            WatchState::Interrupted => self.problem.clone().filter(|_| self.since >= PATIENCE),
        }
    }
}

/// How many owners of one engine there are, and how many of them say themselves that all is well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnerCount {
    /// All.
    pub all: usize,
    /// Synced and healthy by their own word, and not suspended.
    pub well: usize,
}

impl Cluster {
    /// Every watch, in the order of kinds.
    pub fn standing(&self) -> Vec<WatchStanding> {
        let since = self.0.book.since();
        let progress = self.0.book.progress();
        let all = progress.borrow();
        all.iter()
            .map(|(kind, progress)| {
                let (state, problem) = match progress {
                    Progress::Absent => (WatchState::Absent, None),
                    Progress::Starting(p) => (WatchState::Starting, p.clone()),
                    Progress::Ready(None) => (WatchState::Following, None),
                    Progress::Ready(p) => (WatchState::Interrupted, p.clone()),
                };
                let since = since.get(kind).map(|at| at.elapsed()).unwrap_or_default();
                WatchStanding { kind, state, problem, since }
            })
            .collect()
    }

    /// Why ownership cannot be answered from here now.
    pub fn down(&self) -> Option<Problem> {
        self.standing().iter().find_map(WatchStanding::down)
    }

    /// Owners by engine, as far as they were read.
    pub fn owner_counts(&self) -> BTreeMap<Engine, OwnerCount> {
        let mut out: BTreeMap<Engine, OwnerCount> = BTreeMap::new();
        for line in self.0.book.read().lines() {
            let count = out.entry(line.owner.engine).or_default();
            count.all += 1;
            count.well += usize::from(line.well());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(state: WatchState, problem: Option<&'static str>, since: Duration) -> WatchStanding {
        WatchStanding { kind: "Application", state, problem: problem.map(|c| Problem::new(c, "x.", "y.")), since }
    }

    #[test]
    fn a_lost_connection_is_down_only_after_a_while() {
        let lost = |s| watch(WatchState::Interrupted, Some("cluster.unreachable"), Duration::from_secs(s)).down();
        assert!(lost(29).is_none());
        assert_eq!(lost(30).unwrap().code, "cluster.unreachable");
    }

    #[test]
    fn a_watch_that_was_never_read_is_down_at_once_and_one_without_its_engine_never() {
        let young = Duration::ZERO;
        assert_eq!(watch(WatchState::Starting, None, young).down().unwrap().code, "cluster.starting");
        let denied = watch(WatchState::Starting, Some("cluster.forbidden"), young);
        assert_eq!(denied.down().unwrap().code, "cluster.forbidden");
        let old = Duration::from_secs(3600);
        assert!(watch(WatchState::Absent, None, old).down().is_none());
        assert!(watch(WatchState::Following, None, old).down().is_none());
    }
}
