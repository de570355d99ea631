//! A small MCP client over streamable HTTP, as an agent's would be.

use countersign_core::{Problem, Result};
use serde_json::{Value, json};

/// The revision that the demo's agent speaks.
const PROTOCOL: &str = "2025-11-25";

/// A connected agent.
pub struct Agent {
    http: reqwest::Client,
    url: String,
    token: String,
    session: Option<String>,
    next_id: u64,
}

fn broken(e: impl std::fmt::Display) -> Problem {
    Problem::new("demo.agent", format!("The agent's call failed: {e}."), "Look whether the daemon is up.").later()
}

impl Agent {
    /// Connects and shakes hands.
    pub async fn connect(url: &str, token: &str) -> Result<Self> {
        let http = crate::https::client().build().map_err(broken)?;
        let mut me = Self { http, url: url.into(), token: token.into(), session: None, next_id: 0 };
        me.request(
            "initialize",
            json!({"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "demo-agent", "version": "1"}}),
        )
        .await?;
        me.post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(me)
    }

    /// Calls a tool and gives its structured answer.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments})).await?;
        Ok(result.get("structuredContent").cloned().unwrap_or(result))
    }

    /// One request.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next_id += 1;
        let body = json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params});
        let answer = self.post(body).await?.ok_or_else(|| broken("no answer"))?;
        if let Some(error) = answer.get("error") {
            return Err(broken(error));
        }
        Ok(answer.get("result").cloned().unwrap_or_default())
    }

    async fn post(&mut self, body: Value) -> Result<Option<Value>> {
        let mut request = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", PROTOCOL)
            .json(&body);
        if let Some(s) = &self.session {
            request = request.header("mcp-session-id", s);
        }
        let response = request.send().await.map_err(broken)?.error_for_status().map_err(broken)?;
        if let Some(s) = response.headers().get("mcp-session-id").and_then(|v| v.to_str().ok()) {
            self.session = Some(s.to_owned());
        }
        let text = response.text().await.map_err(broken)?;
        if let Ok(v) = serde_json::from_str(&text) {
            return Ok(Some(v));
        }
        // Server-sent events: the answer is the event with our id.
        let id = body.get("id").cloned().unwrap_or_default();
        Ok(text
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l.strip_prefix("data:")?.trim()).ok())
            .find(|v| v.get("id") == Some(&id) && (v.get("result").is_some() || v.get("error").is_some())))
    }
}
