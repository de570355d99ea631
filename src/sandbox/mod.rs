//! Small servers that speak the real protocols on loopback.

pub mod bot;
pub mod clock;
pub mod cluster;
pub mod forge;
mod gate;
pub mod git;
pub mod host;
