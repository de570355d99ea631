//! Countersign: lets AI agents change running systems only by way of Git, and only as far as people allow.
//!
//! Layers (each imports only lower ones; `tests/all/architecture.rs` checks it): `countersign-core`
//! (data and decisions), the edges (`git`, `render`, `cluster`, `engine`, `forge`, `channel`, `journal`),
//! `pipeline` (the only place that orders effects), `server` (faces), `config`/`app`/`cli` (wiring).
//! `sandbox` stands beside: small servers that speak the real protocols on loopback.

pub mod app;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod forge;
pub mod git;
pub mod https;
pub mod journal;
pub mod pipeline;
pub mod render;
pub mod sandbox;
pub mod server;
