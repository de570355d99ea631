//! Over HTTP, with a client that knows nothing of the server's types.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fake::{Fake, agents, mcp};
use crate::server::{Agents, HttpOptions, HttpServer, Limits, tools};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

struct World {
    fake: Arc<Fake>,
    base: String,
    client: reqwest::Client,
    _stop: DropGuard,
}

impl World {
    async fn with(fake: Fake, change: impl FnOnce(&mut HttpOptions)) -> Self {
        let fake = Arc::new(fake);
        let mut options = HttpOptions::new(agents());
        options.limits.burst = 1000;
        change(&mut options);
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), mcp(&fake), fake.clone(), options).await.unwrap();
        let base = format!("http://{}", server.local_addr());
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        Self { fake, base, client: reqwest::Client::new(), _stop: stop.drop_guard() }
    }

    async fn new() -> Self {
        Self::with(Fake::default(), |_| {}).await
    }

    fn post(&self) -> RequestBuilder {
        self.client.post(format!("{}/mcp", self.base)).header("accept", "application/json, text/event-stream")
    }

    /// A request of 2026-07-28 with these client capabilities.
    fn modern_as(&self, token: &str, method: &str, mut params: Value, capabilities: Value) -> RequestBuilder {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        let name = params.get("name").or(params.get("taskId")).and_then(Value::as_str).map(str::to_owned);
        let mut request =
            self.post().bearer_auth(token).header("mcp-protocol-version", MODERN).header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    }

    async fn modern(&self, method: &str, params: Value) -> Value {
        message(self.modern_as("token-a", method, params, json!({}))).await
    }

    async fn tool(&self, name: &str, arguments: Value) -> Value {
        self.modern("tools/call", json!({"name": name, "arguments": arguments})).await["result"].clone()
    }
}

/// The JSON-RPC response, from a JSON body or from the end of a stream.
async fn message(request: RequestBuilder) -> Value {
    let (messages, _) = messages(request).await;
    messages.into_iter().next_back().unwrap()
}

async fn messages(request: RequestBuilder) -> (Vec<Value>, Option<String>) {
    let response = request.send().await.unwrap();
    let session = response.headers().get("mcp-session-id").map(|v| v.to_str().unwrap().to_owned());
    let status = response.status();
    let text = response.text().await.unwrap();
    let lines: Vec<Value> = match text.starts_with('{') {
        true => vec![serde_json::from_str(&text).unwrap()],
        false => {
            text.lines().filter_map(|l| l.strip_prefix("data:")).filter_map(|d| serde_json::from_str(d).ok()).collect()
        }
    };
    assert!(!lines.is_empty(), "{status}: {text}");
    (lines, session)
}

#[tokio::test]
async fn the_current_revision_needs_no_handshake() {
    let world = World::new().await;
    let discovered = world.modern("server/discover", json!({})).await;
    let versions = discovered["result"]["supportedVersions"].as_array().unwrap().clone();
    assert!(versions.contains(&json!(MODERN)) && versions.contains(&json!(LEGACY)), "{discovered}");
    let info = &discovered["result"]["_meta"]["io.modelcontextprotocol/serverInfo"];
    assert_eq!(info, &json!({"name": "countersign", "version": env!("CARGO_PKG_VERSION")}), "{discovered}");

    let listed = world.modern("tools/list", json!({})).await;
    let names: Vec<_> = listed["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, tools::NAMES);
    assert_eq!(listed["result"]["cacheScope"], "private");
    let bytes = listed.to_string().len();
    assert!(bytes <= 12 * 1024, "the whole answer has {bytes} bytes");

    let called = world.tool("inspect", json!({"target": "x"})).await;
    assert_eq!(called["structuredContent"], json!({"outcome": "found", "summary": "Seen by a."}));
    assert_eq!(called["content"], json!([{"type": "text", "text": "Seen by a."}]));
    assert_eq!(called["resultType"], "complete");
}

#[tokio::test]
async fn the_previous_revision_works_in_a_session() {
    let world = World::new().await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let (answers, session) = messages(world.post().bearer_auth("token-b").json(&initialize)).await;
    let result = &answers.last().unwrap()["result"];
    assert_eq!(result["protocolVersion"], LEGACY);
    assert_eq!(result["serverInfo"], json!({"name": "countersign", "version": env!("CARGO_PKG_VERSION")}));
    let session = session.unwrap();
    let post = |token: &str, body: Value| {
        world
            .post()
            .bearer_auth(token)
            .header("mcp-session-id", &session)
            .header("mcp-protocol-version", LEGACY)
            .json(&body)
    };
    let ready = post("token-b", json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::ACCEPTED);
    let call = |tool: &str, arguments: Value| json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    let listed = message(post("token-b", json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))).await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 6);
    let called = message(post("token-b", call("inspect", json!({})))).await;
    assert_eq!(called["result"]["structuredContent"]["summary"], "Seen by b.");

    let foreign = post("token-a", call("inspect", json!({}))).send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::NOT_FOUND, "a session is its opener's alone");
    assert_eq!(foreign.json::<Value>().await.unwrap()["code"], "server.session");
}

#[tokio::test]
async fn sessions_are_counted_per_agent_and_ended_by_delete() {
    let world = World::with(Fake::default(), |o| o.limits.sessions = 2).await;
    let open = |token: &str| {
        let params =
            json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        world.post().bearer_auth(token).json(&body).send()
    };
    let first = open("token-a").await.unwrap();
    assert_eq!(open("token-a").await.unwrap().status(), StatusCode::OK);
    let refused = open("token-a").await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "30");
    assert_eq!(open("token-b").await.unwrap().status(), StatusCode::OK, "another agent is not affected");
    assert_eq!(world.tool("inspect", json!({})).await["isError"], false, "the current revision has no sessions");
    let end = world.client.delete(format!("{}/mcp", world.base)).bearer_auth("token-a");
    let ended = end.header("mcp-session-id", &first.headers()["mcp-session-id"]).send().await.unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    assert_eq!(open("token-a").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_served() {
    let world = World::new().await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for (request, challenge) in [
        (world.post().json(&body), "Bearer realm=\"countersign\""),
        (world.post().bearer_auth("token-c").json(&body), "Bearer realm=\"countersign\", error=\"invalid_token\""),
        (
            world.post().basic_auth("a", Some("token-a")).json(&body),
            "Bearer realm=\"countersign\", error=\"invalid_token\"",
        ),
        (world.client.get(format!("{}/mcp", world.base)), "Bearer realm=\"countersign\""),
        (world.client.delete(format!("{}/mcp", world.base)), "Bearer realm=\"countersign\""),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["www-authenticate"], challenge);
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "auth.token");
    }
    assert!(world.fake.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_revoked_token_stops_working_at_once() {
    let shared = agents();
    let world = World::with(Fake::default(), |o| o.agents = shared.clone()).await;
    assert_eq!(world.tool("inspect", json!({})).await["isError"], false);
    shared.store(Arc::new(Agents::default()));
    let refused = world.modern_as("token-a", "tools/list", json!({}), json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn foreign_origins_and_hosts_are_forbidden() {
    let world = World::new().await;
    let list = || world.modern_as("token-a", "tools/list", json!({}), json!({}));
    for (header, value, status) in [
        ("origin", "https://evil.example", StatusCode::FORBIDDEN),
        ("origin", "null", StatusCode::FORBIDDEN),
        ("host", "evil.example", StatusCode::FORBIDDEN),
        ("origin", "http://localhost:3000", StatusCode::OK),
        ("host", "localhost", StatusCode::OK),
    ] {
        let response = list().header(header, value).send().await.unwrap();
        assert_eq!(response.status(), status, "{header}: {value}");
        if status == StatusCode::FORBIDDEN {
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "server.origin");
        }
    }
}

#[tokio::test]
async fn a_body_over_256_kib_is_too_large() {
    let world = World::new().await;
    let send = |bytes: usize| {
        let params = json!({"name": "operate", "arguments": {"edits": [], "reason": "r".repeat(bytes)}});
        world.modern_as("token-a", "tools/call", params, json!({})).send()
    };
    assert_eq!(send(255 * 1024).await.unwrap().status(), StatusCode::OK);
    let refused = send(257 * 1024).await.unwrap();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "server.body");
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let world =
        World::with(Fake::default(), |o| o.limits = Limits { per_second: 0.5, burst: 3, ..Limits::default() }).await;
    let list = |token: &str| world.modern_as(token, "tools/list", json!({}), json!({})).send();
    for _ in 0..3 {
        assert_eq!(list("token-a").await.unwrap().status(), StatusCode::OK);
    }
    let refused = list("token-a").await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "server.rate");
    assert_eq!(list("token-b").await.unwrap().status(), StatusCode::OK, "another agent is not affected");
}

#[tokio::test]
async fn problems_and_bad_arguments_are_error_results_with_codes() {
    let world = World::new().await;
    let down = world.tool("inspect", json!({"target": "down"})).await;
    assert_eq!(down["isError"], true);
    assert_eq!(
        down["structuredContent"]["problem"],
        json!({"code": "cluster.unreachable", "message": "The cluster does not answer.", "next": "Try again.", "retry": "later", "evidence": ["timeout"]})
    );
    let deep = (0..20).fold(json!(1), |v, _| json!([v]));
    for (tool, arguments, code) in [
        ("operate", json!({"edits": [], "reason": "r", "force": true}), "input.unknown_argument"),
        ("change", json!({"change": "x", "wait": 3}), "input.unknown_argument"),
        ("cancel", json!({}), "input.arguments"),
        ("inspect", json!({"target": deep}), "input.depth"),
    ] {
        let result = world.tool(tool, arguments).await;
        assert_eq!(result["isError"], true, "{tool}");
        assert_eq!(result["structuredContent"]["problem"]["code"], code, "{tool}: {result}");
    }
    let unknown = world.modern("tools/call", json!({"name": "approve", "arguments": {}})).await;
    assert_eq!(unknown["error"]["code"], -32602);
    assert_eq!(unknown["error"]["data"]["code"], "input.tool");
}

#[tokio::test]
async fn what_is_sent_fits_the_output_schemas() {
    let world = World::new().await;
    for (tool, arguments) in [
        ("inspect", json!({})),
        ("inspect", json!({"target": "down"})),
        ("operate", json!({"edits": [], "reason": "id-1"})),
        ("operate", json!({"edits": [], "reason": "ambiguous"})),
        ("change", json!({"change": "id-1"})),
        ("change", json!({"change": "none"})),
        ("changes", json!({})),
        ("changes", json!({"bad": 1})),
        ("cancel", json!({"change": "id-1"})),
        ("rollback", json!({"change": "id-1", "reason": "r"})),
    ] {
        let result = world.tool(tool, arguments.clone()).await;
        let definition = tools::list().iter().find(|t| t.name == tool).unwrap();
        let schema = Value::Object((**definition.output_schema.as_ref().unwrap()).clone());
        let errors: Vec<_> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&result["structuredContent"])
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{tool} {arguments}: {errors:?}\n{result}");
    }
}

#[tokio::test]
async fn waiting_for_a_change_sends_progress() {
    let world = World::new().await;
    world.tool("operate", json!({"edits": [], "reason": "id-1"})).await;
    let mut request = json!({"name": "change", "arguments": {"change": "id-1", "wait_s": 3}});
    request["_meta"] = json!({});
    let mut builder = world.modern_as("token-a", "tools/call", request, json!({})).build().unwrap();
    let mut body: Value = serde_json::from_slice(builder.body().unwrap().as_bytes().unwrap()).unwrap();
    body["params"]["_meta"]["progressToken"] = json!("p");
    *builder.body_mut() = Some(body.to_string().into());
    builder.headers_mut().remove("content-length");
    let (messages, _) = messages(RequestBuilder::from_parts(world.client.clone(), builder)).await;
    let told: Vec<_> = messages
        .iter()
        .filter(|m| m["method"] == "notifications/progress")
        .map(|m| m["params"]["message"].clone())
        .collect();
    assert_eq!(told, ["news 0", "news 1", "news 2"]);
    assert_eq!(messages.last().unwrap()["result"]["structuredContent"]["outcome"], "waiting");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let world = World::with(Fake { operate_takes: Duration::from_millis(300), ..Fake::default() }, |_| {}).await;
    let params = json!({"name": "operate", "arguments": {"edits": [], "reason": "id-1"}});
    let request = world.modern_as("token-a", "tools/call", params, json!({}));
    assert!(request.timeout(Duration::from_millis(50)).send().await.is_err(), "the client must be gone first");
    assert!(world.fake.calls.lock().unwrap().is_empty());
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(*world.fake.calls.lock().unwrap(), ["a operate id-1"]);
}

#[tokio::test]
async fn a_pending_change_is_a_task_for_clients_that_take_tasks() {
    let world = World::new().await;
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let call =
        |token: &str, method: &str, params: Value| message(world.modern_as(token, method, params, tasks.clone()));
    let created =
        call("token-a", "tools/call", json!({"name": "operate", "arguments": {"edits": [], "reason": "id-1"}})).await;
    let created = &created["result"];
    assert_eq!(
        (&created["resultType"], &created["taskId"], &created["status"]),
        (&json!("task"), &json!("id-1"), &json!("working")),
        "{created}"
    );
    assert_eq!(created["createdAt"], "2026-01-02T03:04:05Z");
    assert_eq!(created["pollIntervalMs"], 7000);

    let foreign = call("token-b", "tasks/get", json!({"taskId": "id-1"})).await;
    assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
    let ack = call("token-a", "tasks/update", json!({"taskId": "id-1", "inputResponses": {}})).await;
    assert_eq!(ack["result"]["resultType"], "complete", "{ack}");
    assert_eq!(call("token-a", "tasks/get", json!({"taskId": "id-1"})).await["result"]["status"], "working");
    world.fake.set("id-1", "healthy");
    let done = call("token-a", "tasks/get", json!({"taskId": "id-1"})).await;
    assert_eq!(done["result"]["status"], "completed");
    assert_eq!(done["result"]["result"]["structuredContent"]["outcome"], "healthy", "{done}");

    call("token-a", "tools/call", json!({"name": "operate", "arguments": {"edits": [], "reason": "id-2"}})).await;
    call("token-a", "tasks/cancel", json!({"taskId": "id-2"})).await;
    assert_eq!(call("token-a", "tasks/get", json!({"taskId": "id-2"})).await["result"]["status"], "cancelled");
    let plain = world.modern("tasks/get", json!({"taskId": "id-2"})).await;
    assert_eq!(plain["error"]["code"], -32021, "a client that declared no tasks: {plain}");
}

#[tokio::test]
async fn an_ambiguous_call_becomes_a_question_for_clients_that_can_ask() {
    let world = World::new().await;
    let ask = |token: &str, extra: Value| {
        let mut params = json!({"name": "operate", "arguments": {"edits": [], "reason": "ambiguous"}});
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        message(world.modern_as(token, "tools/call", params, json!({"elicitation": {}})))
    };
    let asked = ask("token-a", json!({})).await["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let schema = &asked["inputRequests"]["choice"]["params"]["requestedSchema"]["properties"]["choice"];
    assert_eq!(
        schema["oneOf"],
        json!([{"const": "1", "title": "The first way"}, {"const": "2", "title": "The second way"}]),
        "{asked}"
    );
    let state = asked["requestState"].as_str().unwrap();
    let pick = |action: &str, n: Value| json!({"requestState": state, "inputResponses": {"choice": {"action": action, "content": {"choice": n}}}});

    let stolen = ask("token-b", pick("accept", json!("2"))).await;
    assert_eq!(stolen["error"]["data"]["code"], "input.request_state", "another agent's state: {stolen}");
    let mut tampered = pick("accept", json!("2"));
    tampered["requestState"] = json!(format!("{}A", state));
    assert_eq!(ask("token-a", tampered).await["error"]["code"], -32602);
    assert_eq!(
        ask("token-a", pick("accept", json!("9"))).await["result"]["resultType"],
        "input_required",
        "no such choice: asked again"
    );
    let declined = ask("token-a", pick("decline", Value::Null)).await;
    assert_eq!(declined["result"]["structuredContent"]["outcome"], "needs_choice", "{declined}");

    let chosen = ask("token-a", pick("accept", json!("2"))).await;
    assert_eq!(chosen["result"]["structuredContent"]["change"], "second", "{chosen}");
    let again = ask("token-a", pick("accept", json!("1"))).await;
    assert_eq!(again["error"]["data"]["code"], "input.request_state", "a question is answered once: {again}");
    assert_eq!(*world.fake.calls.lock().unwrap(), ["a operate ambiguous", "a operate second"]);

    let plain = world.tool("operate", json!({"edits": [], "reason": "ambiguous"})).await;
    assert_eq!(plain["structuredContent"]["outcome"], "needs_choice");
    assert_eq!(plain["structuredContent"]["choices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_routable_address_needs_a_token() {
    let fake = Arc::new(Fake::default());
    let bind = |address: &str, options: HttpOptions| {
        HttpServer::bind(address.parse().unwrap(), mcp(&fake), fake.clone(), options)
    };
    let someone = agents().load().by_name("c").cloned();
    let mut nobody = HttpOptions::new(Agents::default().shared());
    nobody.loopback_agent = someone.clone();
    assert_eq!(bind("0.0.0.0:0", nobody.clone()).await.err().unwrap().code, "server.no_auth");
    assert_eq!(bind("[::]:0", nobody.clone()).await.err().unwrap().code, "server.no_auth");
    assert!(bind("127.0.0.1:0", nobody.clone()).await.is_ok());
    nobody.hosts = vec!["countersign.example".into()];
    assert_eq!(bind("127.0.0.1:0", nobody).await.err().unwrap().code, "server.open_proxy");
}

#[tokio::test]
async fn a_proxied_caller_is_not_the_loopback_agent() {
    let world = World::with(Fake::default(), |o| o.loopback_agent = agents().load().by_name("c").cloned()).await;
    let list = || world.modern_as("x", "tools/list", json!({}), json!({})).build().unwrap();
    let mut local = list();
    local.headers_mut().remove("authorization");
    let mut proxied = local.try_clone().unwrap();
    proxied.headers_mut().insert("x-forwarded-for", "10.0.0.9".parse().unwrap());
    assert_eq!(world.client.execute(local).await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.client.execute(proxied).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        world.client.execute(list()).await.unwrap().status(),
        StatusCode::UNAUTHORIZED,
        "a wrong token is never ignored"
    );
}

#[tokio::test]
async fn health_needs_no_token() {
    let world = World::new().await;
    for path in ["healthz", "readyz"] {
        assert_eq!(world.client.get(format!("{}/{path}", world.base)).send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn prompts_are_listed_and_completed() {
    let world = World::new().await;
    let listed = world.modern("prompts/list", json!({})).await;
    assert_eq!(listed["result"]["prompts"].as_array().unwrap().len(), 3, "{listed}");
    world.tool("operate", json!({"edits": [], "reason": "id-1"})).await;
    let params =
        json!({"ref": {"type": "ref/prompt", "name": "rollback"}, "argument": {"name": "change", "value": "id"}});
    let completed = world.modern("completion/complete", params).await;
    assert_eq!(completed["result"]["completion"]["values"], json!(["id-1"]), "{completed}");
}
