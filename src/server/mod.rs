//! MCP over stdio and HTTP: who calls, how much, in which shape. What a call does is the [`Service`]'s.

pub mod auth;
mod choice;
pub mod http;
pub mod limits;
pub mod mcp;
pub mod prompts;
pub mod service;
mod tasks;
pub mod tools;

pub use auth::{Agents, SharedAgents};
pub use http::{HttpOptions, HttpServer};
pub use limits::Limits;
pub use mcp::Mcp;
pub use prompts::Prompts;
pub use service::Service;

#[cfg(test)]
mod tests;
