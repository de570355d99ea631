//! The hash chain. Stored bytes are hashed, never re-serialised values.

use countersign_core::model::{Body, ChangeId, Event, hex};
use countersign_core::{Problem, Result};
use sha2::{Digest, Sha256};

/// `prev` of the first event.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Version of the envelope.
pub(super) const VERSION: u32 = 1;

/// One row, exactly as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Version of the envelope.
    pub v: u32,
    /// Position in the journal, from 1.
    pub seq: u64,
    /// Hash of the row before.
    pub prev: String,
    /// Hash of this row.
    pub hash: String,
    /// ULID.
    pub id: String,
    /// Change, or empty.
    pub change: String,
    /// Position in the change.
    pub n: u64,
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// Type of the body.
    pub kind: String,
    /// The body, JSON text.
    pub data: String,
}

/// Hash of a row: every field with its length, after a domain prefix.
pub fn hash_row(row: &Row) -> String {
    let mut h = Sha256::new();
    h.update(b"countersign-event-v1\0");
    let mut field = |bytes: &[u8]| {
        h.update((bytes.len() as u64).to_be_bytes());
        h.update(bytes);
    };
    field(row.prev.as_bytes());
    field(&row.v.to_be_bytes());
    field(&row.seq.to_be_bytes());
    field(row.id.as_bytes());
    field(row.change.as_bytes());
    field(&row.n.to_be_bytes());
    field(&row.at.to_be_bytes());
    field(row.actor.as_bytes());
    field(row.kind.as_bytes());
    field(row.data.as_bytes());
    hex(&h.finalize())
}

impl Row {
    /// The event. An unknown type is an error: an older program must not skip what it cannot read.
    pub fn event(&self) -> Result<Event> {
        let unknown = |why: String| {
            Problem::new(
                "journal.unknown_event",
                format!("Event {} of type \"{}\" cannot be read: {why}.", self.seq, self.kind),
                "Start the version of Countersign that wrote it, or run `countersign audit verify`.",
            )
            .never()
        };
        if self.v != VERSION {
            return Err(unknown(format!("its envelope has version {}", self.v)));
        }
        let body: Body = serde_json::from_str(&self.data).map_err(|e| unknown(e.to_string()))?;
        let change: Option<ChangeId> =
            if self.change.is_empty() { None } else { Some(self.change.parse().map_err(|e| unknown(format!("{e}")))?) };
        Ok(Event {
            v: self.v,
            seq: self.seq,
            prev: self.prev.clone(),
            hash: self.hash.clone(),
            id: self.id.clone(),
            change,
            n: self.n,
            at: self.at,
            actor: self.actor.clone(),
            body,
        })
    }
}

/// The `type` column of a body.
pub(super) fn kind_of(data: &serde_json::Value) -> String {
    data.get("type").and_then(|t| t.as_str()).unwrap_or_default().to_owned()
}
