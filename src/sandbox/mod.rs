//! Small servers that speak the real protocols on loopback, and a world made of them.

pub mod bot;
pub mod clock;
pub mod cluster;
pub mod forge;
mod gate;
pub mod git;
pub mod host;
pub mod world;
