//! Plain types that every layer shares.

mod answer;
mod config;
mod edit;
mod effect;
mod event;
mod owner;
mod quantity;
mod resource;
mod sealed;
mod seats;
mod source;
mod verdict;

pub use answer::*;
pub use config::*;
pub use edit::*;
pub use effect::{Effect, Ending};
pub use event::*;
pub use owner::*;
pub use quantity::quantity;
pub use resource::*;
pub use sealed::*;
pub use seats::{seats, unanswered};
pub use source::*;
pub use verdict::{Code, Verdict};

#[cfg(test)]
mod tests;
