//! What the bridge remembers of a client's conversation, to go on with it after the daemon was restarted.

use std::collections::BTreeMap;

use countersign_core::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tools::answer;

/// Ids, methods and the lines that may have to be sent again.
#[derive(Debug, Default)]
pub struct Session {
    /// The client's `initialize`, if it uses the handshake, and whether its answer has passed.
    initialize: Option<(Vec<u8>, Value, bool)>,
    initialized: Option<Vec<u8>>,
    /// Requests without an answer, in the order they came.
    pending: BTreeMap<u64, Pending>,
    count: u64,
}

#[derive(Debug)]
struct Pending {
    id: Value,
    line: Vec<u8>,
    /// Set if the request writes and must not be sent twice: the tool's name.
    once: Option<String>,
}

/// What becomes of an unanswered request.
#[derive(Debug, PartialEq, Eq)]
pub enum Resend {
    /// Asked again.
    ToDaemon(Vec<u8>),
    /// Answered here.
    ToClient(Vec<u8>),
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
}

impl Session {
    /// A line of the client.
    pub fn sent(&mut self, line: &[u8]) {
        let Ok(Head { id, method: Some(method) }) = serde_json::from_slice(line) else { return };
        match (id, method.as_str()) {
            (None, "notifications/initialized") => self.initialized = Some(line.to_vec()),
            (None, _) => {}
            (Some(id), _) => {
                if method == "initialize" {
                    self.initialize = Some((line.to_vec(), id.clone(), false));
                }
                let once = (method == "tools/call").then(|| writes(line)).flatten();
                self.count += 1;
                self.pending.insert(self.count, Pending { id, line: line.to_vec(), once });
            }
        }
    }

    /// A line of the daemon.
    pub fn received(&mut self, line: &[u8]) {
        let Ok(Head { id: Some(id), method: None }) = serde_json::from_slice(line) else { return };
        self.pending.retain(|_, p| p.id != id);
        if let Some((_, initialize, answered)) = &mut self.initialize
            && *initialize == id
        {
            *answered = true;
        }
    }

    /// Whether an answer is still owed.
    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The handshake to repeat; `None` if there was none, or it was not finished and is pending itself.
    pub fn handshake(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (line, _, answered) = self.initialize.as_ref()?;
        answered.then(|| (line.clone(), self.initialized.clone().unwrap_or_default()))
    }

    /// What to do with each unanswered request; those answered here are no longer pending.
    pub fn resend(&mut self) -> Vec<Resend> {
        let lost = Problem::new(
            "server.restarted",
            "The daemon was restarted before it answered; what you asked for may or may not have been taken.",
            "Call `changes` to see, then call again if it is not there.",
        )
        .later();
        let legacy = self.initialize.is_some();
        let mut out = Vec::new();
        self.pending.retain(|_, p| {
            match &p.once {
                None => out.push(Resend::ToDaemon(p.line.clone())),
                Some(tool) => out.push(Resend::ToClient(refusal(&p.id, tool, &lost, legacy))),
            }
            p.once.is_none()
        });
        out
    }

    /// Answers for everything that is pending, when the daemon is gone for good.
    pub fn give_up(&mut self, problem: &Problem) -> Vec<u8> {
        let pending = std::mem::take(&mut self.pending);
        let message = format!("{}: {} {}", problem.code, problem.message, problem.next);
        pending
            .into_values()
            .flat_map(|p| line(&json!({"jsonrpc": "2.0", "id": p.id, "error": {"code": -32603, "message": message, "data": problem}})))
            .collect()
    }
}

/// The tool's name if the call must not be sent twice. With a key of the caller's own, or as a plan only, it may.
fn writes(line: &[u8]) -> Option<String> {
    let call: Value = serde_json::from_slice(line).ok()?;
    let tool = call.pointer("/params/name")?.as_str()?;
    let arguments = call.pointer("/params/arguments");
    let plan = arguments.and_then(|a| a.get("plan_only")) == Some(&Value::Bool(true));
    let keyed = arguments.and_then(|a| a.get("key")).is_some_and(Value::is_string);
    (matches!(tool, "operate" | "rollback") && !plan && !keyed).then(|| tool.to_owned())
}

fn refusal(id: &Value, tool: &str, problem: &Problem, legacy: bool) -> Vec<u8> {
    let mut result = answer::refusal(tool, problem);
    if legacy {
        result.result_type = None;
    }
    line(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}
