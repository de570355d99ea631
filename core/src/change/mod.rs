//! The life of a change: events in, state out ([`fold`]), and the single next step ([`next`]).
//!
//! No state is stored anywhere: a change *is* the fold of its events. `fold` allows only the
//! transitions listed there; `next` names one effect or one wait and is exhaustive.

mod fold;
mod load;
mod next;
mod state;
mod tell;

pub use fold::fold;
pub use load::{Load, REJECTED_MS, Wish, no_overlap, rejected_recently, room};
pub use next::*;
pub use state::*;

#[cfg(test)]
pub(crate) mod tests;
