//! The sandbox against real clients, and against what the recordings show.

mod api;
mod argo;
mod control;
mod flux;
mod kubectl;
mod world;
