//! What the MCP conformance suite (`tests/conformance`) talks to: its fixtures, served through the product's own
//! router, middleware and server. Prints its address and serves until it is ended.

mod fixtures;
mod jobs;
mod questions;
mod service;

use std::sync::Arc;

use countersign::server::{Agents, HttpOptions, HttpServer, Limits, Mcp, Prompts};
use countersign_core::Result;
use countersign_core::model::{AgentSpec, Named};
use tokio_util::sync::CancellationToken;

/// The suite sends no token, so it is let in as this agent, on loopback only.
const AGENT: &str = "conformance";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args().nth(1).as_deref().unwrap_or("0").parse()?;
    let server = bind(port).await?;
    println!("http://{}/mcp", server.local_addr());
    server.run(CancellationToken::new()).await?;
    Ok(())
}

async fn bind(port: u16) -> Result<HttpServer> {
    let spec = AgentSpec { sponsor: "nobody".into(), token_sha256: None, sees: Vec::new() };
    let agents = Agents::new(&[Named { name: AGENT.into(), spec }])?;
    let loopback_agent = agents.by_name(AGENT).cloned();
    // The suite is faster than any agent; everything else is as in the product.
    let limits = Limits { per_second: 2000.0, burst: 2000, in_flight: 64, ..Limits::default() };
    let options = HttpOptions { loopback_agent, limits, ..HttpOptions::new(agents.shared()) };
    let service = Arc::new(service::Nothing);
    let mcp = Mcp::new(service.clone(), Prompts::built_in()?)?;
    HttpServer::bind(([127, 0, 0, 1], port).into(), fixtures::Fixture::new(mcp), service, options).await
}
