//! MCP over stdio and HTTP: who calls, how much, in which shape. What a call does is the [`Service`]'s.

pub mod auth;
pub mod bridge;
mod choice;
pub mod control;
pub mod http;
pub mod limits;
pub mod mcp;
pub mod metrics;
pub mod prompts;
pub mod service;
mod session;
pub mod socket;
mod tasks;
pub mod tools;

pub use auth::{Agents, SharedAgents};
pub use bridge::bridge;
pub use http::{HttpOptions, HttpServer};
pub use limits::{Limits, Meter};
pub use mcp::Mcp;
pub use metrics::MetricsServer;
pub use prompts::Prompts;
pub use service::Service;
pub use socket::{SOCKET, bind_socket, serve_socket};

#[cfg(test)]
mod tests;
