//! The log of mutating requests: append-only, what tests ask about what really reached the cluster.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One request that wants to change something, with the answer it got.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counts from 1.
    pub seq: u64,
    /// Seconds since the start.
    pub t: f64,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query.
    pub path: String,
    /// `deployments.apps`.
    pub resource: String,
    /// Empty for cluster scope.
    pub namespace: String,
    /// Empty for a create or a collection.
    pub name: String,
    /// `status`, `scale` or empty.
    pub subresource: String,
    /// Who, after authentication and impersonation.
    pub user: String,
    /// The client's own name for itself.
    pub user_agent: String,
    /// Kind of patch.
    pub content_type: String,
    /// Whether nothing was to be stored.
    pub dry_run: bool,
    /// The body: JSON where it is JSON, else text.
    pub body: Value,
    /// HTTP status answered.
    pub code: u16,
}

/// The log; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Log {
    entries: Arc<Mutex<Vec<Entry>>>,
    file: Option<Arc<Mutex<std::fs::File>>>,
}

impl Log {
    /// A log that also goes to a file, one JSON object a line.
    pub fn with_file(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(|path| std::fs::OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { entries: Arc::default(), file: file.map(|file| Arc::new(Mutex::new(file))) })
    }

    /// Adds one; its number is given here.
    pub fn push(&self, mut entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entry.seq = entries.len() as u64 + 1;
        if let (Some(file), Ok(line)) = (&self.file, serde_json::to_string(&entry)) {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            // The memory stays right even when the disk is full; a test that reads the file sees the gap in `seq`.
            drop(writeln!(file, "{line}"));
        }
        entries.push(entry);
    }

    /// Everything after number `after`.
    pub fn since(&self, after: u64) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|entry| entry.seq > after).cloned().collect()
    }
}
