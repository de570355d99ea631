//! Every word that people and agents read.
//!
//! Cards, notices, commit messages and pull requests are made from computed facts. An agent's own
//! words appear in one place of each, last, quoted and marked unverified. Whatever comes from
//! outside passes [`escape_visible`] or [`escape_name`] first, so that nothing invisible,
//! bidirectional or look-alike reaches a person as itself.

mod card;
mod commit;
mod escape;
mod field;
mod greet;
mod rich;
mod say;
mod settle;
#[cfg(test)]
mod tests;

pub use card::{Card, CardFacts, Document, FileFact, Seats, card, document, signing, too_large};
pub use commit::{Trailers, commit_message, pull_request_body, pull_request_title, with_trailers};
pub use escape::{escape_name, escape_visible};
pub use field::{what, what_short};
pub use greet::{account_changed, greeting, pairing};
pub use rich::{Entity, EntityKind, Text};
pub use say::{next_say, state_summary};
pub use settle::{Notice, Settled, notice, pending_list, resume_card, resuming, settled, stopped};
