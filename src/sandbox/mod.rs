//! Small servers that speak the real protocols on loopback.
pub mod cluster;
