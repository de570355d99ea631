//! The journal keeps what it was given, gives nothing twice, and shows whoever changes it.

mod given;
mod mutations;
mod store;
