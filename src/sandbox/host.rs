//! What all sandbox servers share: a loopback listener that can be taken down, faults, an append-only log.
//!
//! The log is the oracle of the kill tests: it is written by the sandbox's process, before the answer
//! leaves, so it also knows effects whose answer the product never saw.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::gate::{Gate, Line};

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Port on 127.0.0.1; 0 = any free one.
    pub port: u16,
    /// JSON-lines file that every call is appended to.
    pub log: Option<PathBuf>,
    /// Time of this server.
    pub clock: Clock,
}

/// What happens to a call instead of, or after, being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Mishap {
    /// Answers this status without serving the call.
    Error {
        /// Status, for example 500 or 403.
        status: u16,
        /// Body as it is sent; JSON is sent as `application/json`.
        #[serde(default)]
        body: Value,
        /// Further headers (`retry-after`).
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Never answers; the connection stays open.
    Hang,
    /// Closes the connection without serving the call.
    Cut,
    /// Serves the call, effect and all, and closes the connection before the answer.
    LoseAnswer,
    /// Serves the call late.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
}

/// A mishap and the calls that it strikes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Strikes calls whose `METHOD path?query` contains this in any case; absent = all calls.
    #[serde(default)]
    pub matching: Option<String>,
    /// How many calls it strikes; absent = until healed.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens.
    #[serde(flatten)]
    pub mishap: Mishap,
}

#[derive(Default)]
struct Log {
    file: Option<File>,
    lines: Vec<Value>,
}

/// One running server: its address, its faults, its log.
pub struct Host {
    name: &'static str,
    clock: Clock,
    log: Mutex<Log>,
    faults: Mutex<Vec<Fault>>,
    listening: watch::Sender<bool>,
    lines: Mutex<CancellationToken>,
    stopping: CancellationToken,
    address: SocketAddr,
    control: SocketAddr,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Locks without caring for a panic elsewhere: sandbox state is only ever replaced whole.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sockets that are bound but not served yet: the router needs the host, the host the address.
pub(crate) struct Sockets {
    public: TcpListener,
    control: TcpListener,
}

impl Host {
    /// Binds the public address and the control address (which stays up during an outage).
    pub(crate) async fn bind(name: &'static str, options: HostOptions) -> std::io::Result<(Arc<Self>, Sockets)> {
        let public = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let file = match &options.log {
            Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            None => None,
        };
        let host = Self {
            name,
            clock: options.clock,
            log: Mutex::new(Log { file, lines: Vec::new() }),
            faults: Mutex::new(Vec::new()),
            listening: watch::Sender::new(true),
            lines: Mutex::new(CancellationToken::new()),
            stopping: CancellationToken::new(),
            address: public.local_addr()?,
            control: control.local_addr()?,
            tasks: Mutex::new(Vec::new()),
        };
        Ok((Arc::new(host), Sockets { public, control }))
    }

    /// Serves `app` and, on both addresses, `control` below `/sandbox`.
    pub(crate) fn serve(self: &Arc<Self>, sockets: Sockets, app: Router, control: Router) {
        let control = Router::new().nest("/sandbox", control.merge(host_control(self.clone())));
        let faulty = app.layer(axum::middleware::from_fn_with_state(self.clone(), strike));
        let public = control.clone().fallback_service(faulty);
        let gate = Gate::new(self.clone(), sockets.public);
        let stopping = self.stopping.clone();
        let public = axum::serve(gate, public.into_make_service_with_connect_info::<Line>())
            .with_graceful_shutdown(async move { stopping.cancelled().await });
        let stopping = self.stopping.clone();
        let control =
            axum::serve(sockets.control, control).with_graceful_shutdown(async move { stopping.cancelled().await });
        let mut tasks = lock(&self.tasks);
        tasks.push(tokio::spawn(async move { drop(public.await) }));
        tasks.push(tokio::spawn(async move { drop(control.await) }));
    }

    /// `http://127.0.0.1:port` of the protocol's own server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `http://127.0.0.1:port` of the control API alone; it answers also while the server is down.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Refuses connections and cuts the open ones, until [`Host::up`]. Returns when it is so.
    pub async fn down(&self) {
        self.listening.send_replace(false);
        self.cut_lines();
        self.until_connecting(false).await;
    }

    /// Ends an outage: listens again, forgets all faults, cuts connections that hang. Returns when it is so.
    pub async fn up(&self) {
        let faults = std::mem::take(&mut *lock(&self.faults));
        let was_up = self.listening.send_replace(true);
        if was_up && faults.iter().any(|f| f.mishap == Mishap::Hang) {
            self.cut_lines();
        }
        self.until_connecting(true).await;
    }

    /// The listener belongs to a task of its own, which follows a moment later.
    async fn until_connecting(&self, wanted: bool) {
        for _ in 0..400 {
            if TcpStream::connect(self.address).await.is_ok() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Adds a fault; the earliest matching one strikes.
    pub fn fault(&self, fault: Fault) {
        lock(&self.faults).push(fault);
    }

    /// Everything logged so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<Value> {
        lock(&self.log).lines.clone()
    }

    /// Appends one line; `seq`, `at` and `server` are added.
    pub(crate) fn log(&self, what: &str, mut line: Value) {
        let mut log = lock(&self.log);
        if let Some(map) = line.as_object_mut() {
            map.insert("seq".into(), json!(log.lines.len() + 1));
            map.insert("at".into(), json!(self.clock.now().to_rfc3339_opts(SecondsFormat::Millis, true)));
            map.insert("server".into(), json!(self.name));
            map.insert("what".into(), json!(what));
        }
        if let Some(file) = &mut log.file {
            // A full disk must not stop the world that is being tested; the lines in memory remain.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
        log.lines.push(line);
    }

    /// Stops the server; open connections are cut.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.cut_lines();
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks {
            let _ = tokio::time::timeout(Duration::from_secs(2), task).await;
        }
    }

    pub(crate) fn listening(&self) -> watch::Receiver<bool> {
        self.listening.subscribe()
    }

    /// A token for one new connection.
    pub(crate) fn new_line(&self) -> CancellationToken {
        lock(&self.lines).child_token()
    }

    fn cut_lines(&self) {
        let old = std::mem::take(&mut *lock(&self.lines));
        old.cancel();
    }

    fn next_fault(&self, call: &str) -> Option<Mishap> {
        let call = call.to_lowercase(); // as the Bot API reads its methods
        let mut faults = lock(&self.faults);
        let at = faults.iter().position(|f| f.matching.as_deref().is_none_or(|m| call.contains(&m.to_lowercase())))?;
        let fault = faults.get_mut(at)?;
        let mishap = fault.mishap.clone();
        if let Some(times) = &mut fault.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                faults.remove(at);
            }
        }
        Some(mishap)
    }
}

/// Stops a server when the last handle to it is gone.
#[derive(Debug)]
pub(crate) struct Guard(pub(crate) Arc<Host>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stopping.cancel();
        self.0.cut_lines();
    }
}

/// A bot's token is part of its paths; the log must not spread it.
fn hide_token(path: &str) -> String {
    match path.strip_prefix("/bot").and_then(|rest| rest.split_once('/')) {
        Some((_, method)) => format!("/bot…/{method}"),
        None => path.to_owned(),
    }
}

async fn strike(
    State(host): State<Arc<Host>>,
    ConnectInfo(line): ConnectInfo<Line>,
    req: Request,
    next: Next,
) -> Response {
    let call = format!("{} {}", req.method(), req.uri());
    let Some(mishap) = host.next_fault(&call) else {
        return next.run(req).await;
    };
    host.log("fault", json!({"method": req.method().as_str(), "fault": &mishap, "path": hide_token(req.uri().path())}));
    match mishap {
        Mishap::Error { status, body, headers } => error_response(status, &body, &headers),
        Mishap::Hang => std::future::pending().await,
        Mishap::Cut => {
            line.cut();
            std::future::pending().await
        }
        Mishap::LoseAnswer => {
            drop(next.run(req).await);
            line.cut();
            std::future::pending().await
        }
        Mishap::Delay { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            next.run(req).await
        }
    }
}

fn error_response(status: u16, body: &Value, headers: &BTreeMap<String, String>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match body {
        Value::Null => status.into_response(),
        Value::String(text) => (status, text.clone()).into_response(),
        body => (status, Json(body.clone())).into_response(),
    };
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().entry(header::SERVER).or_insert(HeaderValue::from_static("sandbox"));
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u64,
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

/// `POST down`, `POST up`, `POST faults`, `POST clock`, `GET log?since=SEQ`.
fn host_control(host: Arc<Host>) -> Router {
    Router::new()
        .route(
            "/down",
            post(|State(host): State<Arc<Host>>| async move {
                host.down().await;
                Json(json!({"down": true}))
            }),
        )
        .route(
            "/up",
            post(|State(host): State<Arc<Host>>| async move {
                host.up().await;
                Json(json!({"down": false}))
            }),
        )
        .route(
            "/faults",
            post(|State(host): State<Arc<Host>>, Json(fault): Json<Fault>| async move {
                host.fault(fault);
                Json(json!({"ok": true}))
            }),
        )
        .route(
            "/clock",
            post(|State(host): State<Arc<Host>>, Json(a): Json<Advance>| async move {
                host.clock.advance(Duration::from_secs(a.advance_s));
                Json(json!({"now": host.clock.now()}))
            }),
        )
        .route(
            "/log",
            get(|State(host): State<Arc<Host>>, Query(q): Query<Since>| async move {
                let lines = host.log_lines();
                let from = usize::try_from(q.since).unwrap_or(usize::MAX).min(lines.len());
                Json(lines.into_iter().skip(from).collect::<Vec<_>>())
            }),
        )
        .with_state(host)
}
