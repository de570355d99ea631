//! Which events are legal, what comes next, and that no history leads anywhere else.

pub(crate) mod given;
mod histories;
mod steps;
mod table;
