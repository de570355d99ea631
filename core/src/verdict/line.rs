//! The recording format: what a watcher saw, and what was done from outside, one JSON object a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{OwnerRef, Want};

/// One line of a recording; the live product feeds the same lines from its watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Line {
    /// The first line of a recording.
    #[serde(rename = "HEAD")]
    Head {
        /// What the recording is about.
        #[serde(default)]
        about: String,
        /// `argo` or `flux`; the owner of a commit decides, so this is for people only.
        #[serde(default)]
        engine: String,
    },
    /// A watch event: the object is there (first list, creation, or a watch that began anew).
    #[serde(rename = "ADDED")]
    Added {
        /// The object, whole or cut down.
        object: Value,
    },
    /// A watch event: the object changed.
    #[serde(rename = "MODIFIED")]
    Modified {
        /// The object, whole or cut down.
        object: Value,
    },
    /// A watch event: the object is gone.
    #[serde(rename = "DELETED")]
    Deleted {
        /// The object as last seen.
        object: Value,
    },
    /// Something done from outside; with `commit`, a push to the tracked branch.
    #[serde(rename = "ACT")]
    Act(Act),
    /// A type that this version does not know (bookmarks, later additions): ignored.
    #[serde(other)]
    Other,
}

/// A push to the tracked branch, or another act (which the judge ignores).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// In words.
    #[serde(default)]
    pub did: String,
    /// Commit that is now the head of the branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Nearest earlier known commit that is its ancestor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Further parents (merges).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// Object that delivers it. Without one the commit is known (for ancestry) and not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Deliverer>,
    /// Live fields that it is to bring about. Empty: it cannot work, and is never healthy.
    /// Absent: nobody knows (a commit by someone else).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want: Option<Vec<Want>>,
}

/// The engine's object that delivers a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deliverer {
    /// `Application`, `Kustomization` or `HelmRelease`.
    pub kind: String,
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl From<&OwnerRef> for Deliverer {
    fn from(o: &OwnerRef) -> Self {
        Self { kind: o.kind.clone(), namespace: o.namespace.clone(), name: o.name.clone() }
    }
}

impl std::fmt::Display for Deliverer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A line with its time, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Recorded {
    /// Seconds from the start of the recording.
    pub t: f64,
    /// What.
    #[serde(flatten)]
    pub line: Line,
}

impl Recorded {
    /// The time in whole milliseconds; nonsense (negative, infinite) counts as the start.
    pub fn t_ms(&self) -> i64 {
        let ms = (self.t * 1000.0).round();
        if ms.is_finite() && (0.0..=9.0e15).contains(&ms) {
            #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
            {
                ms as i64
            }
        } else {
            0
        }
    }
}
