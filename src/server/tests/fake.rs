//! A service whose answers are known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::model::{
    AgentSpec, CancelArgs, ChangeAnswer, ChangeArgs, ChangeLine, ChangesAnswer, ChangesArgs, Choice, InspectAnswer,
    InspectArgs, Named, Next, OperateArgs, Outcome, Principal, RollbackArgs, StoryLine,
};
use countersign_core::{Problem, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::server::{Agents, Mcp, Prompts, Service, SharedAgents};

/// Changes by id, with who asked for them and their state.
#[derive(Default)]
pub struct Fake {
    pub changes: Mutex<BTreeMap<String, (String, &'static str)>>,
    pub calls: Mutex<Vec<String>>,
    /// How long `operate` takes.
    pub operate_takes: Duration,
}

impl Fake {
    fn log(&self, who: &Principal, what: &str) {
        self.calls.lock().unwrap().push(format!("{} {what}", who.agent));
    }

    fn answer(&self, who: &Principal, id: &str) -> Result<ChangeAnswer> {
        let changes = self.changes.lock().unwrap();
        let state = match changes.get(id) {
            Some((agent, state)) if *agent == who.agent => *state,
            _ => {
                return Err(
                    Problem::new("change.unknown", "There is no such change of yours.", "Call changes.").never()
                );
            }
        };
        let outcome = match state {
            "awaiting_approval" => Outcome::Waiting,
            "healthy" => Outcome::Healthy,
            _ => Outcome::Ended,
        };
        let mut answer = ChangeAnswer::new(outcome, format!("{id} is {state}."));
        answer.change = Some(id.to_owned());
        answer.state = Some(state.to_owned());
        answer.story = vec![StoryLine { at: "2026-01-02T03:04:05Z".into(), what: "Asked.".into() }];
        if outcome == Outcome::Waiting {
            answer.waits_for = Some("alice".into());
            answer.next = Some(Next {
                tool: "change".into(),
                args: json!({"change": id, "wait_s": 45}),
                after_s: 7,
                say: "Asked alice.".into(),
            });
        }
        Ok(answer)
    }

    pub fn set(&self, id: &str, state: &'static str) {
        self.changes.lock().unwrap().get_mut(id).unwrap().1 = state;
    }
}

#[async_trait]
impl Service for Fake {
    async fn inspect(&self, who: &Principal, args: InspectArgs) -> Result<InspectAnswer> {
        self.log(who, &format!("inspect {}", args.target.as_deref().unwrap_or("-")));
        match args.target.as_deref() {
            Some("down") => Err(Problem::new("cluster.unreachable", "The cluster does not answer.", "Try again.")
                .later()
                .with("timeout")),
            _ => Ok(InspectAnswer::new(Outcome::Found, format!("Seen by {}.", who.agent))),
        }
    }

    async fn operate(&self, who: &Principal, args: OperateArgs) -> Result<ChangeAnswer> {
        if args.reason == "ambiguous" {
            self.log(who, "operate ambiguous");
            let mut answer = ChangeAnswer::new(Outcome::NeedsChoice, "An autoscaler sets the replicas: which field?");
            answer.choices = ["first", "second"]
                .map(|reason| Choice {
                    what: format!("The {reason} way"),
                    tool: "operate".into(),
                    args: json!({"edits": [], "reason": reason}),
                })
                .into();
            return Ok(answer);
        }
        tokio::time::sleep(self.operate_takes).await;
        self.log(who, &format!("operate {}", args.reason));
        self.changes.lock().unwrap().insert(args.reason.clone(), (who.agent.clone(), "awaiting_approval"));
        self.answer(who, &args.reason)
    }

    async fn change(&self, who: &Principal, args: ChangeArgs, progress: mpsc::Sender<String>) -> Result<ChangeAnswer> {
        for n in 0..args.wait_s.unwrap_or(0) {
            let _ = progress.send(format!("news {n}")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.answer(who, &args.change)
    }

    async fn changes(&self, _who: &Principal, _args: ChangesArgs) -> Result<ChangesAnswer> {
        let line = |id: &String| ChangeLine {
            change: id.clone(),
            name: id.clone(),
            state: "healthy".into(),
            what: "w".into(),
            since: "t".into(),
        };
        let changes = self.changes.lock().unwrap().keys().map(line).collect();
        Ok(ChangesAnswer {
            outcome: Outcome::Found,
            summary: "All.".into(),
            changes,
            cursor: None,
            problem: None,
            next: None,
        })
    }

    async fn cancel(&self, who: &Principal, args: CancelArgs) -> Result<ChangeAnswer> {
        self.answer(who, &args.change)?;
        self.set(&args.change, "cancelled");
        self.answer(who, &args.change)
    }

    async fn rollback(&self, who: &Principal, args: RollbackArgs) -> Result<ChangeAnswer> {
        self.log(who, &format!("rollback {}", args.change));
        Ok(ChangeAnswer::new(Outcome::Planned, "Would revert."))
    }
}

/// Agents `a`, `b` and `c` with the tokens `token-a` and `token-b`; `c` has none.
pub fn agents() -> SharedAgents {
    let agent = |name: &str, token: bool| {
        let digest = || Sha256::digest(format!("token-{name}")).iter().map(|b| format!("{b:02x}")).collect();
        Named {
            name: name.into(),
            spec: AgentSpec { sponsor: "alice".into(), token_sha256: token.then(digest), sees: vec![] },
        }
    };
    Agents::new(&[agent("a", true), agent("b", true), agent("c", false)]).unwrap().shared()
}

pub fn mcp(fake: &Arc<Fake>) -> Mcp {
    Mcp::new(fake.clone(), Prompts::built_in().unwrap()).unwrap()
}
