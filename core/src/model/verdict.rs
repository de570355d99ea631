//! What is known about a delivered commit, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is known about a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not decided yet.
    Waiting,
    /// The engine delivered it and the live objects are what was wanted, for the whole stable window.
    Healthy,
    /// It does not work (an engine that tries again may prove otherwise later).
    Failed,
    /// A later commit took its place.
    Superseded,
}

impl Verdict {
    /// The verdict as written in the journal and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Healthy => "healthy",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why the verdict is what it is. Codes keep their meaning; more may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// The code as written in answers and recordings.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The engine has not seen the commit.
    NotNoticed = "not_noticed",
    /// The engine knows the commit and is at work, or about to be.
    Syncing = "syncing",
    /// Applied; the rollout or the stable window is under way.
    Progressing = "progressing",
    /// The engine failed on this commit and tries it again.
    Retrying = "retrying",
    /// The engine is busy with an older, failing revision.
    HeldBack = "held_back",
    /// A person has to start the sync.
    ManualSync = "manual_sync",
    /// A sync window keeps the engine from syncing now.
    SyncWindow = "sync_window",
    /// Owner or source is suspended, or the workload is paused.
    Suspended = "suspended",
    /// Another owner has to be ready first.
    Dependency = "dependency",
    /// The commit holds other content than was approved.
    LandedOtherwise = "landed_otherwise",
    /// Countersign cannot read the landed commit from Git now.
    CommitUnread = "commit_unread",
    /// The engine does not answer.
    EngineDown = "engine_down",
    /// Countersign itself may not watch what decides: the account lacks a right.
    NotReadable = "not_readable",
    /// The engine says it is applied, and the live object says otherwise.
    NotLive = "not_live",
    /// The engine's sync failed for good.
    SyncFailed = "sync_failed",
    /// Not permitted: project rules or RBAC.
    Forbidden = "forbidden",
    /// The engine cannot read or render the source.
    ComparisonError = "comparison_error",
    /// The owner's path is not in the commit.
    PathMissing = "path_missing",
    /// The build of the manifests failed.
    BuildFailed = "build_failed",
    /// The API server refused what was built.
    ApplyFailed = "apply_failed",
    /// The engine's health check failed.
    HealthCheckFailed = "health_check_failed",
    /// The workload itself says that it failed.
    Degraded = "degraded",
    /// The Helm release failed.
    ReleaseFailed = "release_failed",
    /// The source cannot be fetched.
    SourceFailed = "source_failed",
    /// Everything is as wanted.
    Healthy = "healthy",
    /// A later commit took its place.
    Superseded = "superseded",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
