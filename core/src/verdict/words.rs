//! Verdicts, codes, and the words that go with them.

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

/// A change of verdict or code of one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictChange {
    /// Commit.
    pub commit: String,
    /// When, in the clock that the judge is fed with (milliseconds).
    pub t: i64,
    /// Verdict.
    pub verdict: Verdict,
    /// Code.
    pub code: Code,
    /// What a person or an agent needs to know, in one or two sentences.
    pub say: String,
}

/// The longest quotation of an engine's own words, in characters.
const QUOTE: usize = 400;

/// The engine's own words: control characters out, spaces joined, capped. They inform and never decide.
pub fn quote(text: &str) -> String {
    let mut out = String::new();
    let mut space = false;
    let mut n = 0usize;
    for c in text.chars() {
        // Bidirectional overrides could make a person read something else than what is there.
        if c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        {
            space = !out.is_empty();
            continue;
        }
        if n >= QUOTE {
            out.push('…');
            break;
        }
        if space {
            out.push(' ');
            n += 1;
            space = false;
        }
        out.push(c);
        n += 1;
    }
    out
}

/// The first seven characters of a commit id, as people write them.
pub fn short(rev: &str) -> String {
    rev.chars().filter(|c| !c.is_control()).take(7).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_have_no_control_characters_and_an_end() {
        assert_eq!(quote("a\n\n b\u{1b}[31m\u{202e}c "), "a b [31m c");
        assert_eq!(quote(&"x".repeat(5000)).chars().count(), QUOTE + 1);
    }
}
