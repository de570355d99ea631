//! A client over standard input and output, the bridge, the socket and the server.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign_core::{Problem, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fake::{Fake, agents, mcp};
use crate::server::bridge::Bridge;
use crate::server::{Limits, Meter, bind_socket, serve_socket};

/// A daemon with a runtime of its own, so that it can die like a process: everything at once, nothing said.
struct Daemon(Option<Runtime>);

impl Daemon {
    fn start(path: PathBuf, fake: &Arc<Fake>) -> Self {
        Self::limited(path, fake, Limits::default())
    }

    fn limited(path: PathBuf, fake: &Arc<Fake>, limits: Limits) -> Self {
        let runtime = Runtime::new().unwrap();
        let mcp = mcp(fake);
        let listener = {
            let _inside = runtime.enter();
            bind_socket(&path).unwrap()
        };
        let meter = Arc::new(Meter::new(limits));
        runtime.spawn(async move {
            serve_socket(listener, &path, mcp, agents(), meter, CancellationToken::new()).await;
        });
        Self(Some(runtime))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

struct Client {
    input: Option<DuplexStream>,
    output: Lines<BufReader<DuplexStream>>,
    bridge: JoinHandle<Result<()>>,
}

impl Client {
    fn new(path: PathBuf, agent: &'static str, start: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let (input, from_client) = tokio::io::duplex(1 << 16);
        let (to_client, output) = tokio::io::duplex(1 << 16);
        let bridge = tokio::spawn(async move {
            Bridge { socket: &path, agent, start, patience: Duration::from_secs(2) }.run(from_client, to_client).await
        });
        Self { input: Some(input), output: BufReader::new(output).lines(), bridge }
    }

    async fn send(&mut self, message: Value) {
        self.input.as_mut().unwrap().write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(10), self.output.next_line()).await.expect("an answer");
        serde_json::from_str(&line.unwrap().expect("a line")).unwrap()
    }

    async fn ask(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        let answer = self.next().await;
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    async fn handshake(&mut self, capabilities: Value) {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}});
        let answer = self.ask(0, "initialize", params).await;
        assert_eq!(answer["result"]["serverInfo"]["name"], "countersign");
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("countersign.sock");
    (dir, path)
}

fn nobody() -> Result<()> {
    Ok(())
}

fn operate(reason: &str) -> Value {
    json!({"name": "operate", "arguments": {"edits": [], "reason": reason}})
}

const TASKS: &str = "io.modelcontextprotocol/tasks";

#[tokio::test]
async fn both_revisions_pass_through_the_bridge() {
    let (_dir, path) = place();
    let fake = Arc::new(Fake::default());
    let _daemon = Daemon::start(path.clone(), &fake);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut legacy = Client::new(path.clone(), "c", nobody);
    legacy.handshake(json!({})).await;
    assert_eq!(legacy.ask(1, "tools/list", json!({})).await["result"]["tools"].as_array().unwrap().len(), 6);
    let seen = legacy.ask(2, "tools/call", json!({"name": "inspect", "arguments": {}})).await;
    assert_eq!(seen["result"]["structuredContent"]["summary"], "Seen by c.", "{seen}");

    let mut modern = Client::new(path, "a", nobody);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let seen = modern.ask(1, "tools/call", json!({"name": "inspect", "arguments": {}, "_meta": meta})).await;
    assert_eq!(seen["result"]["structuredContent"]["summary"], "Seen by a.", "{seen}");
    assert_eq!(seen["result"]["resultType"], "complete");
}

#[tokio::test]
async fn an_agent_has_one_limit_over_all_its_connections() {
    let (_dir, path) = place();
    let fake = Arc::new(Fake::default());
    let limits = Limits { burst: 4, per_second: 0.001, ..Limits::default() };
    let _daemon = Daemon::limited(path.clone(), &fake, limits);
    let inspect = json!({"name": "inspect", "arguments": {}});
    let (mut one, mut two) = (Client::new(path.clone(), "a", nobody), Client::new(path.clone(), "a", nobody));
    one.handshake(json!({})).await;
    two.handshake(json!({})).await;
    for id in [1, 2] {
        for client in [&mut one, &mut two] {
            let seen = client.ask(id, "tools/call", inspect.clone()).await;
            assert_eq!(seen["result"]["structuredContent"]["summary"], "Seen by a.", "{seen}");
        }
    }
    for client in [&mut one, &mut two] {
        let refused = client.ask(3, "tools/call", inspect.clone()).await;
        assert!(refused["result"]["isError"] == true && refused.to_string().contains("server.rate"), "{refused}");
        let refused = client.ask(4, "tools/list", json!({})).await;
        assert!(refused["error"].to_string().contains("server.rate"), "{refused}");
    }
    assert_eq!(fake.calls.lock().unwrap().len(), 4, "what is refused reaches nothing");
    let mut other = Client::new(path, "c", nobody);
    other.handshake(json!({})).await;
    assert!(other.ask(1, "tools/call", inspect).await["result"]["isError"] != true, "each agent has its own");
}

#[tokio::test]
async fn a_task_answers_after_the_daemon_was_restarted() {
    let (_dir, path) = place();
    let fake = Arc::new(Fake::default());
    let daemon = Daemon::start(path.clone(), &fake);
    let mut client = Client::new(path.clone(), "a", nobody);
    client.handshake(json!({"extensions": {TASKS: {}}})).await;
    let created = client.ask(1, "tools/call", operate("id-1")).await;
    assert_eq!(created["result"]["taskId"], "id-1", "{created}");

    drop(daemon);
    // Asked while nobody is there.
    client.send(json!({"jsonrpc": "2.0", "id": 2, "method": "tasks/get", "params": {"taskId": "id-1"}})).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _daemon = Daemon::start(path, &fake);
    let answer = client.next().await;
    assert_eq!((&answer["id"], &answer["result"]["status"]), (&json!(2), &json!("working")), "{answer}");
    fake.set("id-1", "healthy");
    let done = client.ask(3, "tasks/get", json!({"taskId": "id-1"})).await;
    assert_eq!(done["result"]["status"], "completed");
}

#[tokio::test]
async fn a_write_that_was_under_way_is_not_sent_twice_and_a_keyed_one_is() {
    let (_dir, path) = place();
    let slow = Arc::new(Fake { operate_takes: Duration::from_millis(300), ..Fake::default() });
    let daemon = Daemon::start(path.clone(), &slow);
    let mut client = Client::new(path.clone(), "a", nobody);
    client.handshake(json!({})).await;
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": operate("id-1")})).await;
    let mut keyed = operate("id-2");
    keyed["arguments"]["key"] = json!("k");
    client.send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": keyed})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(daemon);
    assert!(slow.calls.lock().unwrap().is_empty());
    let fake = Arc::new(Fake::default());
    let _daemon = Daemon::start(path, &fake);
    let (first, second) = (client.next().await, client.next().await);
    assert_eq!(first["id"], 1);
    assert_eq!(first["result"]["structuredContent"]["problem"]["code"], "server.restarted", "{first}");
    assert!(first["result"].get("resultType").is_none(), "not a field of the client's revision: {first}");
    assert_eq!(
        (&second["id"], &second["result"]["structuredContent"]["change"]),
        (&json!(2), &json!("id-2")),
        "{second}"
    );
    assert_eq!(*fake.calls.lock().unwrap(), ["a operate id-2"]);
}

#[tokio::test]
async fn an_absent_daemon_is_started_once() {
    let (_dir, path) = place();
    let started = Arc::new(AtomicUsize::new(0));
    let (count, at, fake) = (started.clone(), path.clone(), Arc::new(Fake::default()));
    let mut client = Client::new(path, "a", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let (at, fake) = (at.clone(), fake.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::mem::forget(Daemon::start(at, &fake));
        });
        Ok(())
    });
    client.handshake(json!({})).await;
    assert_eq!(started.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_daemon_that_cannot_be_started_is_said_at_once() {
    let (_dir, path) = place();
    let client = Client::new(path, "a", || Err(Problem::new("config.missing", "No configuration.", "Write one.")));
    assert_eq!(client.bridge.await.unwrap().unwrap_err().code, "config.missing");
}

#[tokio::test]
async fn a_daemon_that_stays_away_leaves_nothing_unanswered() {
    let (_dir, path) = place();
    let fake = Arc::new(Fake::default());
    let daemon = Daemon::start(path.clone(), &fake);
    let mut client = Client::new(path, "a", nobody);
    client.handshake(json!({})).await;
    drop(daemon);
    client.send(json!({"jsonrpc": "2.0", "id": "x", "method": "tools/list"})).await;
    let answer = client.next().await;
    assert_eq!(
        (&answer["id"], &answer["error"]["data"]["code"]),
        (&json!("x"), &json!("server.daemon_lost")),
        "{answer}"
    );
    assert_eq!(client.bridge.await.unwrap().unwrap_err().code, "server.daemon_lost");
}

#[tokio::test]
async fn a_daemon_that_dies_of_every_connection_is_given_up() {
    let (_dir, path) = place();
    let listener = bind_socket(&path).unwrap();
    let broken = tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            stream.read_line(&mut String::new()).await.unwrap();
            stream.write_all(b"countersign-bridge/1 ok\n").await.unwrap();
        }
    });
    let mut client = Client::new(path, "a", nobody);
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await;
    assert_eq!(client.next().await["error"]["data"]["retry"], "later");
    assert_eq!(client.bridge.await.unwrap().unwrap_err().code, "server.daemon_lost");
    broken.abort();
}

#[tokio::test]
async fn an_unknown_agent_is_refused_in_words() {
    let (_dir, path) = place();
    let _daemon = Daemon::start(path.clone(), &Arc::new(Fake::default()));
    let problem = Client::new(path, "nobody", nobody).bridge.await.unwrap().unwrap_err();
    assert_eq!((problem.code.as_ref(), problem.message.as_str()), ("auth.agent", "There is no agent nobody."));
}

#[tokio::test]
async fn a_client_that_asks_and_closes_is_answered() {
    let (_dir, path) = place();
    let fake = Arc::new(Fake { operate_takes: Duration::from_millis(200), ..Fake::default() });
    let _daemon = Daemon::start(path.clone(), &fake);
    let mut client = Client::new(path, "a", nobody);
    client.handshake(json!({})).await;
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": operate("id-1")})).await;
    client.input = None;
    assert_eq!(client.next().await["result"]["structuredContent"]["change"], "id-1");
    assert_eq!(client.bridge.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn closing_the_client_cancels_nothing() {
    let (_dir, path) = place();
    let fake = Arc::new(Fake { operate_takes: Duration::from_millis(300), ..Fake::default() });
    let _daemon = Daemon::start(path.clone(), &fake);
    let mut client = Client::new(path, "a", nobody);
    client.handshake(json!({})).await;
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": operate("id-1")})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.bridge.abort();
    drop(client);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(*fake.calls.lock().unwrap(), ["a operate id-1"]);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let (_dir, path) = place();
    drop(bind_socket(&path).unwrap());
    drop(bind_socket(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bind_socket(&path).unwrap_err().code, "server.socket");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let long = PathBuf::from(format!("/tmp/{}/countersign.sock", "x".repeat(120)));
    assert_eq!(bind_socket(&long).unwrap_err().code, "server.socket_path");
}

#[tokio::test]
async fn the_bridge_adds_little() {
    let (_dir, path) = place();
    let _daemon = Daemon::start(path.clone(), &Arc::new(Fake::default()));
    let mut client = Client::new(path, "a", nobody);
    client.handshake(json!({})).await;
    let begun = Instant::now();
    for n in 1..=200 {
        client.ask(n, "ping", json!({})).await;
    }
    let each = begun.elapsed() / 200;
    assert!(each < Duration::from_millis(20), "{each:?} a call");
}
