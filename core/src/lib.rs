//! The pure part of Countersign: plain data and the decisions over it.
//!
//! Nothing here reads a clock, a file, the environment or the network. `now`, ids and random
//! numbers are arguments. See `docs/architecture.md` for the layers.

pub mod change;
pub mod error;
pub mod gate;
pub mod manifest;
pub mod message;
pub mod model;
pub mod ownership;
pub mod policy;
pub mod secrets;
pub mod trace;
pub mod verdict;

pub use error::{Problem, Result, Retry};
