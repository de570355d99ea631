//! One integration binary. Tests read as: given a world, act, see what each person saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod architecture;
mod both;
mod components;
mod deciding;
mod deploy;
mod docs;
mod engines;
mod errors;
mod first;
#[path = "../lab/mod.rs"]
mod lab;
mod people;
mod replay;
mod rights;
mod rules;
mod scenarios;
mod sources;
mod trouble;
mod world;
