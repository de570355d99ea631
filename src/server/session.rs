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
    /// Set if the request calls a tool: its name.
    tool: Option<String>,
    /// Whether it writes and must not be sent twice.
    once: bool,
    /// How often it was sent again.
    resent: u8,
}

/// How often a request is sent again before it is taken for what makes the daemon go away.
const MAX_RESENT: u8 = 2;

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
                let (tool, once) = if method == "tools/call" { call(line) } else { (None, false) };
                self.count += 1;
                self.pending.insert(self.count, Pending { id, line: line.to_vec(), tool, once, resent: 0 });
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
            let again = !p.once && p.resent < MAX_RESENT;
            p.resent += 1;
            out.push(match &p.tool {
                _ if again => Resend::ToDaemon(p.line.clone()),
                Some(tool) => Resend::ToClient(refusal(&p.id, tool, &lost, legacy)),
                None => Resend::ToClient(error(&p.id, &lost)),
            });
            again
        });
        out
    }

    /// Answers for everything that is pending, when the daemon is gone for good.
    pub fn give_up(&mut self, problem: &Problem) -> Vec<u8> {
        let pending = std::mem::take(&mut self.pending);
        pending.into_values().flat_map(|p| error(&p.id, problem)).collect()
    }
}

/// The tool that is called, and whether the call must not be sent twice. With a key of the caller's own, or as a
/// plan only, it may.
fn call(line: &[u8]) -> (Option<String>, bool) {
    let Ok(call) = serde_json::from_slice::<Value>(line) else { return (None, false) };
    let tool = call.pointer("/params/name").and_then(Value::as_str);
    let arguments = call.pointer("/params/arguments");
    let plan = arguments.and_then(|a| a.get("plan_only")) == Some(&Value::Bool(true));
    let keyed = arguments.and_then(|a| a.get("key")).is_some_and(Value::is_string);
    let writes = tool.is_some_and(|t| matches!(t, "operate" | "rollback"));
    (tool.map(str::to_owned), writes && !plan && !keyed)
}

fn error(id: &Value, problem: &Problem) -> Vec<u8> {
    let message = format!("{}: {} {}", problem.code, problem.message, problem.next);
    line(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": message, "data": problem}}))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u32, method: &str, params: Value) -> Vec<u8> {
        line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    #[test]
    fn an_answered_request_is_never_sent_again() {
        let mut session = Session::default();
        session.sent(&request(1, "tools/list", json!({})));
        session.sent(&request(2, "tools/list", json!({})));
        session.received(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\n");
        session.received(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
        assert_eq!(session.resend(), [Resend::ToDaemon(request(2, "tools/list", json!({})))]);
    }

    #[test]
    fn a_request_that_kills_the_daemon_is_sent_three_times_and_no_more() {
        let mut session = Session::default();
        let poison = request(1, "tools/call", json!({"name": "inspect", "arguments": {}}));
        session.sent(&poison);
        assert_eq!(session.resend(), [Resend::ToDaemon(poison.clone())]);
        assert_eq!(session.resend(), [Resend::ToDaemon(poison)]);
        let [Resend::ToClient(answer)] = &session.resend()[..] else { panic!("sent again") };
        let answer: Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(answer["result"]["structuredContent"]["problem"]["code"], "server.restarted");
        assert!(!session.waits());
    }

    #[test]
    fn only_an_answered_handshake_is_repeated() {
        let mut session = Session::default();
        session.sent(&request(0, "initialize", json!({})));
        assert_eq!(session.handshake(), None);
        session.received(b"{\"id\":0,\"result\":{}}\n");
        assert_eq!(session.handshake(), Some((request(0, "initialize", json!({})), Vec::new())));
    }

    #[test]
    fn plans_and_keyed_calls_may_be_sent_again() {
        for (arguments, again) in [
            (json!({"reason": "r"}), false),
            (json!({"reason": "r", "plan_only": true}), true),
            (json!({"reason": "r", "plan_only": false}), false),
            (json!({"reason": "r", "key": "k"}), true),
            (json!({"reason": "r", "key": null}), false),
        ] {
            let mut session = Session::default();
            session.sent(&request(1, "tools/call", json!({"name": "operate", "arguments": arguments})));
            assert_eq!(matches!(session.resend()[..], [Resend::ToDaemon(_)]), again, "{arguments}");
        }
    }
}
