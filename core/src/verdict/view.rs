//! What an engine says about one commit, in one shape for all engines.

use super::line::Deliverer;
use super::rev::Ancestry;
use super::world::World;
use crate::model::Code;

/// A failure must stand this long: events of several objects arrive in no fixed order.
pub(super) const SETTLE_MS: i64 = 1_000;
/// A push may be told of a moment after the engine saw it (a webhook is faster than an answer).
pub(super) const TOLD_LATE_MS: i64 = 2_000;
/// A source that cannot be fetched for this long is a failure; shorter ones are hiccups of the network.
pub(super) const FETCH_SETTLE_MS: i64 = 8_000;
/// An engine that leaves a request unanswered for this long is taken for down.
pub(super) const SILENT_MS: i64 = 30_000;

/// Everything that the view of one commit depends on.
pub(super) struct Ask<'a> {
    pub world: &'a World,
    pub ancestry: &'a Ancestry,
    pub commit: &'a str,
    /// When the commit became known.
    pub since: i64,
    pub owner: &'a Deliverer,
    /// Later commits that somebody made for the same owner and answers for: (commit, known since).
    pub later: &'a [(String, i64)],
    /// An earlier commit of the same owner is judged too.
    pub follows: bool,
    pub now: i64,
}

impl Ask<'_> {
    /// Whether any of these revisions contains the commit.
    pub(super) fn within<'r>(&self, revs: impl IntoIterator<Item = &'r str>) -> bool {
        revs.into_iter().any(|r| self.ancestry.contains(self.commit, r))
    }

    /// Whether what happens at one of these revisions is about this commit: it contains the commit and no later
    /// one of the same owner that is judged by itself.
    pub(super) fn about<'r>(&self, revs: impl IntoIterator<Item = &'r str>) -> bool {
        revs.into_iter().any(|r| {
            self.ancestry.contains(self.commit, r) && !self.later.iter().any(|(l, _)| self.ancestry.contains(l, r))
        })
    }

    /// Whether these revisions are known and none of them contains the commit.
    pub(super) fn without<'r>(&self, revs: impl IntoIterator<Item = &'r str> + Clone) -> bool {
        !self.within(revs.clone()) && revs.into_iter().any(|r| self.ancestry.knows(r))
    }
}

/// A failure as the engine tells it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub code: Code,
    pub say: String,
    /// How long it must stand.
    pub settle_ms: i64,
    /// It counts even where the live objects are as wanted (a failed operation, a rolled back release).
    pub hard: bool,
}

/// What an engine says about one commit.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// A revision that contains the commit is in force.
    pub applied: bool,
    /// A known revision that does not contain the commit is in force.
    pub applied_without: bool,
    /// The engine is at work on a newer spec than the one in force: what was in force before was not yet the commit's.
    pub reopened: bool,
    /// Revisions that the engine works on or has in force.
    pub taken: Vec<String>,
    /// The engine has begun on this commit, so what the workload says is about it.
    pub begun: bool,
    /// The engine is at work on this very commit.
    pub busy: bool,
    pub failure: Option<Failure>,
    /// What is waited for, if it is neither healthy nor failed.
    pub code: Code,
    pub say: String,
    /// When `code` may change with no event.
    pub deadline: Option<i64>,
}

impl View {
    pub(super) fn waiting(code: Code, say: impl Into<String>) -> Self {
        Self {
            applied: false,
            applied_without: false,
            reopened: false,
            taken: Vec::new(),
            begun: false,
            busy: false,
            failure: None,
            code,
            say: say.into(),
            deadline: None,
        }
    }

    pub(super) fn wait(&mut self, code: Code, say: impl Into<String>) {
        self.code = code;
        self.say = say.into();
    }

    /// Becomes `later` once `since + after` has passed, if `since` is known.
    pub(super) fn wait_longer(&mut self, since: Option<i64>, after: i64, now: i64, later: (Code, String)) {
        let Some(since) = since else { return };
        let due = since.saturating_add(after);
        if now >= due {
            self.code = later.0;
            self.say = later.1;
        } else {
            self.deadline = Some(self.deadline.map_or(due, |d| d.min(due)));
        }
    }
}
