//! Ambiguous calls as questions (SEP-2322): the client's user picks one of the calls that the agent could make
//! anyway. Never an approval.
//!
//! The choices travel in the request state. It comes back from the client and is therefore sealed, bound to the
//! principal and the original call, short-lived, and good for one answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use countersign_core::model::{ChangeAnswer, Choice, Outcome, Principal};
use countersign_core::{Problem, Result};
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitationSchema, EnumSchema, ErrorData, InputRequest, InputRequests,
    InputRequiredResult, InputResponses, JsonObject, RequestStateCodec, SealOptions,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long a question may stay open.
const TTL: Duration = Duration::from_secs(600);
/// Name of the question among the input requests.
const KEY: &str = "choice";

/// Seals and opens questions. The key lives as long as the process: a restart voids open questions.
#[derive(Debug)]
pub struct Choices {
    codec: RequestStateCodec,
    used: Mutex<HashMap<String, Instant>>,
}

/// What the client's user said.
#[derive(Debug)]
pub enum Picked {
    /// This call.
    Call(Choice),
    /// None of them.
    Nothing(Vec<Choice>),
    /// The answer is missing or is none: the question again.
    AskAgain(InputRequiredResult),
}

#[derive(Serialize, Deserialize)]
struct State {
    nonce: String,
    call: String,
    question: String,
    choices: Vec<Choice>,
}

impl Choices {
    /// With a fresh key. `server.random` if the system gives no random bytes.
    pub fn new() -> Result<Self> {
        let codec = RequestStateCodec::try_new(random::<32>()?.to_vec()).map_err(|_| no_random())?;
        Ok(Self { codec, used: Mutex::default() })
    }

    /// The question of an ambiguous answer.
    pub fn ask(
        &self,
        who: &Principal,
        tool: &str,
        arguments: &JsonObject,
        answer: &ChangeAnswer,
    ) -> Result<InputRequiredResult> {
        let state = State {
            nonce: base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(random::<16>()?),
            call: digest(tool, arguments),
            question: answer.summary.clone(),
            choices: answer.choices.clone(),
        };
        self.question(who, &state)
    }

    /// Reads the answer to a question.
    pub fn resume(
        &self,
        who: &Principal,
        tool: &str,
        arguments: &JsonObject,
        sealed: &str,
        responses: Option<&InputResponses>,
    ) -> Result<Picked, ErrorData> {
        let context = associated(who);
        let state: State = self.codec.open_json_with(sealed, context.as_bytes()).map_err(|_| not_ours(tool))?;
        if state.call != digest(tool, arguments) {
            return Err(not_ours(tool));
        }
        let response = responses.and_then(|r| r.get(KEY));
        let action = response.and_then(|r| r.get("action")).and_then(|a| a.as_str());
        let number = response.and_then(|r| r.pointer("/content/choice")).and_then(|c| c.as_str());
        let chosen = number.and_then(|n| n.parse::<usize>().ok()).and_then(|n| state.choices.get(n.checked_sub(1)?));
        match (action, chosen) {
            (Some("accept"), Some(choice)) => {
                self.spend(&state.nonce, tool)?;
                Ok(Picked::Call(choice.clone()))
            }
            (Some("decline" | "cancel"), _) => Ok(Picked::Nothing(state.choices)),
            _ => self.question(who, &state).map(Picked::AskAgain).map_err(|p| super::tasks::error(&p)),
        }
    }

    fn question(&self, who: &Principal, state: &State) -> Result<InputRequiredResult> {
        let broken =
            |_| Problem::new("server.question", "The question could not be put.", "Send one of the choices yourself.");
        let values = (1..=state.choices.len()).map(|n| n.to_string()).collect();
        let titles = state.choices.iter().map(|c| c.what.clone()).collect();
        let choice = EnumSchema::builder(values).enum_titles(titles).map_err(broken)?.build();
        let schema =
            ElicitationSchema::builder().required_enum_schema(KEY, choice).build().map_err(|e| broken(e.to_owned()))?;
        let request = ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
            meta: None,
            message: state.question.clone(),
            requested_schema: schema,
        });
        let context = associated(who);
        let options = SealOptions::new().associated_data(context.as_bytes()).ttl(TTL);
        let sealed = self.codec.seal_json_with(state, &options).map_err(|e| broken(e.to_string()))?;
        let requests = InputRequests::from([(KEY.to_owned(), InputRequest::Elicitation(request))]);
        Ok(InputRequiredResult::new(Some(requests), Some(sealed)))
    }

    /// Marks a question as answered; `input.request_state` if it was answered before.
    fn spend(&self, nonce: &str, tool: &str) -> Result<(), ErrorData> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // What is older than the seal's own lifetime cannot be opened any more.
        used.retain(|_, at| at.elapsed() <= TTL);
        match used.insert(nonce.to_owned(), Instant::now()) {
            None => Ok(()),
            Some(_) => Err(not_ours(tool)),
        }
    }
}

/// The answer where the client's user picked nothing.
pub fn nothing_picked(choices: Vec<Choice>) -> ChangeAnswer {
    let mut answer = ChangeAnswer::new(Outcome::NeedsChoice, "Nothing was chosen, so nothing was done.");
    answer.choices = choices;
    answer
}

fn associated(who: &Principal) -> String {
    format!("countersign-choice/1\0{}", who.agent)
}

fn digest(tool: &str, arguments: &JsonObject) -> String {
    let mut hash = Sha256::new();
    hash.update(tool.as_bytes());
    hash.update([0]);
    hash.update(serde_json::to_vec(arguments).unwrap_or_default());
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(hash.finalize())
}

fn not_ours(tool: &str) -> ErrorData {
    super::tasks::error(&Problem::new(
        "input.request_state",
        "The request state was not given out for this call of yours, was used before, or is too old.",
        format!("Call {tool} again without requestState."),
    ))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| no_random())?;
    Ok(bytes)
}

fn no_random() -> Problem {
    Problem::new("server.random", "The system gives no random bytes.", "Look at why getrandom fails on this machine.")
        .later()
}
