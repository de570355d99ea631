//! The journal: one append-only, hash-chained table of events in SQLite.
//!
//! Inserting (change, n) is the compare-and-swap; everything else is a fold. An effect may only
//! begin after its intent is committed here (`synchronous=FULL`): if the journal cannot be
//! written, nothing happens.

mod chain;
mod store;
mod verify;
mod view;

pub use chain::{GENESIS, Row, hash_row};
pub use store::{CheckHead, Entry, Head, Journal, Seal, SignHead};
pub use verify::{Anchor, Finding, Landing, Report, read_events, verify_chain, verify_file};
pub use view::View;

#[cfg(test)]
mod tests;
