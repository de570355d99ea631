//! Fixtures that ask back: in the call (2026-07-28) and over the session (2025-11-25).
#![expect(deprecated, reason = "sampling and roots are deprecated, and the suite still tests them")]

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateMessageRequest,
    CreateMessageRequestParams, ElicitRequest, ElicitRequestParams, ErrorData, InputRequest, InputRequests,
    InputRequiredResult, InputResponses, ListRootsRequest, RequestStateCodec, SamplingMessage,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

pub fn text(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

pub fn form(message: &str, schema: Value) -> Result<ElicitRequestParams, ErrorData> {
    let requested_schema =
        serde_json::from_value(schema).map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
    Ok(ElicitRequestParams::FormElicitationParams { meta: None, message: message.into(), requested_schema })
}

/// A form with one required property.
pub fn ask(message: &str, property: &str, kind: &str) -> Result<InputRequest, ErrorData> {
    let schema = json!({"type": "object", "properties": {property: {"type": kind}}, "required": [property]});
    Ok(InputRequest::Elicitation(ElicitRequest::new(form(message, schema)?)))
}

fn sample(prompt: &str) -> InputRequest {
    let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
    InputRequest::CreateMessage(CreateMessageRequest::new(params))
}

fn roots() -> InputRequest {
    InputRequest::ListRoots(ListRootsRequest::default())
}

pub fn require<const N: usize>(requests: [(&str, InputRequest); N], state: Option<String>) -> InputRequiredResult {
    let requests: InputRequests = requests.into_iter().map(|(key, r)| (key.to_owned(), r)).collect();
    InputRequiredResult::new(Some(requests), state)
}

/// The response to `key`, if it is one: anything but an object counts as missing, and is asked for again.
pub fn given<'a>(responses: Option<&'a InputResponses>, key: &str) -> Option<&'a Value> {
    responses?.get(key).filter(|v| v.is_object())
}

pub fn str_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("nothing")
}

/// The tools whose names start with `test_input_required_result_`.
pub fn call(
    codec: &RequestStateCodec,
    request: &CallToolRequestParams,
    ctx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let given = |key| given(request.input_responses.as_ref(), key);
    let kind = request.name.trim_start_matches("test_input_required_result_");
    let state = state(codec, request)?;
    let response: CallToolResponse = match kind {
        "elicitation" => match given("user_name") {
            Some(r) => text(format!("Hello, {}!", str_at(r, "/content/name"))).into(),
            None => require([("user_name", ask("What is your name?", "name", "string")?)], None).into(),
        },
        "sampling" => match given("capital_question") {
            Some(r) => text(str_at(r, "/content/text")).into(),
            None => require([("capital_question", sample("What is the capital of France?"))], None).into(),
        },
        "list_roots" => match given("client_roots") {
            Some(r) => text(r.to_string()).into(),
            None => require([("client_roots", roots())], None).into(),
        },
        "request_state" | "tampered_state" => match state {
            Some(_) => text("state-ok").into(),
            None => {
                require([("confirm", ask("Please confirm", "ok", "boolean")?)], Some(seal(codec, &json!("confirm"))?))
                    .into()
            }
        },
        "multiple_inputs"
            if state.is_some() && ["user_name", "greeting", "client_roots"].iter().all(|k| given(k).is_some()) =>
        {
            text("Everything is there.").into()
        }
        "multiple_inputs" => {
            let name = ask("What is your name?", "name", "string")?;
            let requests = [("user_name", name), ("greeting", sample("Say hello")), ("client_roots", roots())];
            require(requests, Some(seal(codec, &json!("gather"))?)).into()
        }
        "multi_round" => match state.as_ref().and_then(Value::as_u64) {
            None => {
                require([("step1", ask("What is your name?", "name", "string")?)], Some(seal(codec, &json!(1))?)).into()
            }
            Some(1) => {
                require([("step2", ask("Which colour?", "color", "string")?)], Some(seal(codec, &json!(2))?)).into()
            }
            Some(_) => text("Both rounds are done.").into(),
        },
        "capabilities" => capabilities(request, ctx)?,
        other => return Err(ErrorData::invalid_params(format!("no fixture {other}"), None)),
    };
    Ok(response)
}

/// Asks only for what the client says it can give.
fn capabilities(
    request: &CallToolRequestParams,
    ctx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let can: ClientCapabilities = ctx.meta.client_capabilities().unwrap_or_default();
    let mut requests = InputRequests::new();
    if can.elicitation.is_some() {
        requests.insert("user_name".into(), ask("What is your name?", "name", "string")?);
    }
    if can.sampling.is_some() {
        requests.insert("greeting".into(), sample("Say hello"));
    }
    if can.roots.is_some() {
        requests.insert("client_roots".into(), roots());
    }
    if request.input_responses.is_some() || requests.is_empty() {
        return Ok(text("Nothing more is needed.").into());
    }
    Ok(InputRequiredResult::from_input_requests(requests).into())
}

fn seal(codec: &RequestStateCodec, state: &Value) -> Result<String, ErrorData> {
    codec.seal_json(state).map_err(|e| ErrorData::internal_error(e.to_string(), None))
}

fn state(codec: &RequestStateCodec, request: &CallToolRequestParams) -> Result<Option<Value>, ErrorData> {
    let open = |sealed: &String| codec.open_json(sealed);
    let refused = |_| ErrorData::invalid_params("the request state was not sealed here", None);
    request.request_state.as_ref().map(open).transpose().map_err(refused)
}

/// The tools that ask over a legacy session.
pub async fn call_legacy(
    name: &str,
    arguments: &Value,
    ctx: &RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    if name == "test_sampling" {
        let prompt = arguments.get("prompt").and_then(Value::as_str).unwrap_or("Hello");
        let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
        return Ok(match ctx.peer.create_message(params).await {
            Ok(said) => text(format!("LLM response: {}", serde_json::to_value(&said).unwrap_or_default())),
            Err(e) => CallToolResult::error(vec![ContentBlock::text(e.to_string())]),
        });
    }
    let (message, schema) = legacy_form(name, arguments);
    Ok(match ctx.peer.create_elicitation(form(message, schema)?).await {
        Ok(said) => text(format!("User response: {}", serde_json::to_value(&said).unwrap_or_default())),
        Err(e) => CallToolResult::error(vec![ContentBlock::text(e.to_string())]),
    })
}

fn legacy_form<'a>(name: &str, arguments: &'a Value) -> (&'a str, Value) {
    let titled = |n: usize| json!({"const": format!("value{n}"), "title": format!("Option {n}")});
    let plain = json!(["option1", "option2", "option3"]);
    match name {
        "test_elicitation_sep1034_defaults" => (
            "All of these have defaults",
            json!({"type": "object", "properties": {
                "name": {"type": "string", "default": "John Doe"},
                "age": {"type": "integer", "default": 30},
                "score": {"type": "number", "default": 95.5},
                "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
                "verified": {"type": "boolean", "default": true},
            }}),
        ),
        "test_elicitation_sep1330_enums" => (
            "Choose",
            json!({"type": "object", "properties": {
                "untitledSingle": {"type": "string", "enum": plain},
                "titledSingle": {"type": "string", "oneOf": [titled(1), titled(2), titled(3)]},
                "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option 1", "Option 2", "Option 3"]},
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
                "titledMulti": {"type": "array", "items": {"anyOf": [titled(1), titled(2), titled(3)]}},
            }}),
        ),
        _ => (
            arguments.get("message").and_then(Value::as_str).unwrap_or("Please answer"),
            json!({"type": "object", "properties": {"username": {"type": "string"}, "email": {"type": "string"}}, "required": ["username", "email"]}),
        ),
    }
}
