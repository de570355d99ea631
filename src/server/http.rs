//! MCP over streamable HTTP: authentication, limits, sessions of one principal only, health.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use countersign_core::model::Principal;
use countersign_core::{Problem, Result};
use futures::StreamExt;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::auth::{Bearer, SharedAgents};
use super::limits::{Limits, Meter, Slot, TooMany};
use super::service::Service;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Headers of a proxy: a request that carries one did not come from this machine itself.
pub(super) const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
pub(super) const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const LOOPBACK_ORIGINS: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

/// How the HTTP face is set up.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Who may call.
    pub agents: SharedAgents,
    /// Who a caller without a token is, on a loopback address only. `None`: everybody needs a token.
    pub loopback_agent: Option<Principal>,
    /// Further values of `Host` than loopback (`countersign.example`, with or without port).
    pub hosts: Vec<String>,
    /// Further values of `Origin` than loopback (`https://console.example:443`).
    pub origins: Vec<String>,
    /// Limits.
    pub limits: Limits,
    /// Where calls are counted together with those of another face; `None`: by itself.
    pub meter: Option<Arc<Meter>>,
    /// Answer `/metrics` to callers on this machine. Set by [`HttpServer::bind`], on loopback alone.
    pub metrics: bool,
}

impl HttpOptions {
    /// Tokens only, loopback hosts and origins, default limits.
    pub fn new(agents: SharedAgents) -> Self {
        Self {
            agents,
            loopback_agent: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            limits: Limits::default(),
            meter: None,
            metrics: false,
        }
    }
}

/// A bound HTTP face.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
}

impl HttpServer {
    /// Binds. `server.no_auth` on a routable address without any agent token, `server.open_proxy` where a caller
    /// without a token could come through a proxy, `server.bind` if the address cannot be had.
    pub async fn bind<H>(
        address: SocketAddr,
        handler: H,
        service: Arc<dyn Service>,
        mut options: HttpOptions,
    ) -> Result<Self>
    where
        H: ServerHandler + Clone,
    {
        options.metrics = address.ip().is_loopback();
        if !address.ip().is_loopback() {
            options.loopback_agent = None;
        }
        if options.loopback_agent.is_none() && !options.agents.load().any_token() {
            return Err(Problem::new(
                "server.no_auth",
                format!("No agent has a token, so nobody could be authenticated at {address}."),
                "Set token_sha256 on an Agent, or listen on 127.0.0.1.",
            ));
        }
        if options.loopback_agent.is_some() && !options.hosts.is_empty() {
            return Err(Problem::new(
                "server.open_proxy",
                "Callers without a token are let in on loopback, but other hosts are allowed too, as behind a proxy.",
                "Remove the further hosts, or let every caller need a token.",
            ));
        }
        let bind = |e: std::io::Error| {
            Problem::new(
                "server.bind",
                format!("{address} cannot be listened on: {e}."),
                "Choose another address or stop what holds it.",
            )
            .later()
        };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let stop = CancellationToken::new();
        let router = router(handler, service, options, stop.clone());
        Ok(Self { listener, address, router, stop })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; open streams are ended then. `server.http` if accepting fails for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let stop = self.stop;
        let ended = async move {
            shutdown.cancelled().await;
            stop.cancel();
        };
        axum::serve(self.listener, self.router).with_graceful_shutdown(ended).await.map_err(|e| {
            Problem::new("server.http", format!("Serving HTTP ended: {e}."), "Start Countersign again.").later()
        })
    }
}

/// The routes: `/mcp`, `/healthz`, `/readyz`, and `/metrics` where the options say so.
pub fn router<H>(handler: H, service: Arc<dyn Service>, options: HttpOptions, stop: CancellationToken) -> Router
where
    H: ServerHandler + Clone,
{
    let hosts = LOOPBACK_HOSTS.iter().map(|h| (*h).to_owned()).chain(options.hosts.iter().cloned());
    let origins = LOOPBACK_ORIGINS.iter().map(|o| (*o).to_owned()).chain(options.origins.iter().cloned());
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins)
        .with_max_request_body_bytes(options.limits.body)
        .with_cancellation_token(stop);
    let manager = Arc::new(LocalSessionManager::default());
    let mcp = StreamableHttpService::new(move || Ok(handler.clone()), manager.clone(), config);
    let metrics = options.metrics;
    let guard = Arc::new(Guard {
        agents: options.agents,
        loopback_agent: options.loopback_agent,
        sessions: options.limits.sessions,
        meter: options.meter.unwrap_or_else(|| Arc::new(Meter::new(options.limits))),
        manager,
        owners: Mutex::default(),
    });
    let guarded = Router::new().nest_service("/mcp", mcp).layer(middleware::from_fn_with_state(guard, guard_request));
    let mut open = Router::new()
        .route("/healthz", routing::get(|| async { "ok\n" }))
        .route("/readyz", routing::get(ready).with_state(Arc::clone(&service)));
    if metrics {
        open = open.route("/metrics", routing::get(super::metrics::answer_here).with_state(service));
    }
    open.merge(guarded)
}

pub(super) async fn ready(State(service): State<Arc<dyn Service>>) -> Response {
    match service.ready().await {
        Ok(()) => "ready\n".into_response(),
        // Only the code: whoever asks here has not said who he is.
        Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", problem.code)).into_response(),
    }
}

struct Guard {
    agents: SharedAgents,
    loopback_agent: Option<Principal>,
    sessions: usize,
    meter: Arc<Meter>,
    manager: Arc<LocalSessionManager>,
    /// Who opened which legacy session: nobody else may use it.
    owners: Mutex<HashMap<String, String>>,
}

async fn guard_request(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let who = match guard.authenticate(request.headers()) {
        Ok(who) => who,
        Err(response) => return *response,
    };
    let slot = match guard.meter.enter(&who.agent, Instant::now()).await {
        Ok(slot) => slot,
        Err(refused) => return too_many(&refused),
    };
    if let Some(response) = guard.check_session(request.headers(), &who).await {
        return response;
    }
    let (agent, method) = (who.agent.clone(), request.method().clone());
    request.extensions_mut().insert(who);
    let mut response = next.run(request).await;
    if method == Method::DELETE && response.status() == StatusCode::ACCEPTED {
        // The session is closed by now, and some clients take 202 for a failure.
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    guard.remember_session(response.headers(), &agent).await;
    if let Some(problem) = explain(response.status()) {
        return refuse(response.status(), &problem);
    }
    // The standing stream of a legacy session lasts as long as the session and does no work.
    if method == Method::GET { response } else { hold(response, slot) }
}

impl Guard {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Box<Response>> {
        match Bearer::of(headers) {
            Bearer::Token(token) => {
                self.agents.load().by_token(token).cloned().ok_or_else(|| Box::new(unauthorized(true)))
            }
            Bearer::Malformed => Err(Box::new(unauthorized(true))),
            Bearer::Absent => {
                let proxied = FORWARDED.iter().any(|h| headers.contains_key(*h));
                let local = self.loopback_agent.clone().filter(|_| !proxied);
                local.ok_or_else(|| Box::new(unauthorized(false)))
            }
        }
    }

    /// A response that refuses: another's or an unknown session, or one session too many.
    async fn check_session(&self, headers: &HeaderMap, who: &Principal) -> Option<Response> {
        if let Some(id) = headers.get(SESSION) {
            let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = id.to_str().is_ok_and(|id| owners.get(id) == Some(&who.agent));
            return (!mine).then(|| {
                let problem = Problem::new(
                    "server.session",
                    "There is no such session.",
                    "Send `initialize` again, without a session id.",
                );
                refuse(StatusCode::NOT_FOUND, &problem)
            });
        }
        let legacy = headers.get(REVISION).and_then(|v| v.to_str().ok()).is_none_or(|v| v < "2026-07-28");
        if legacy && self.open_sessions(&who.agent).await >= self.sessions {
            let problem = Problem::new(
                "server.sessions",
                "Too many sessions are open.",
                "End unused ones with DELETE, or wait until they expire.",
            );
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, &problem.later());
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
            return Some(response);
        }
        None
    }

    async fn open_sessions(&self, agent: &str) -> usize {
        let open = self.manager.sessions.read().await;
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.iter().filter(|(id, owner)| *owner == agent && open.contains_key(id.as_str())).count()
    }

    async fn remember_session(&self, headers: &HeaderMap, agent: &str) {
        let Some(id) = headers.get(SESSION).and_then(|v| v.to_str().ok()) else { return };
        let open = self.manager.sessions.read().await;
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        // Only now and then: the map may lag behind by as many as are open.
        if owners.len() > 2 * open.len() + 16 {
            owners.retain(|id, _| open.contains_key(id.as_str()));
        }
        owners.entry(id.to_owned()).or_insert_with(|| agent.to_owned());
    }
}

/// Keeps the slot until the last byte of the response was taken or its taker has gone.
fn hold(response: Response, slot: Slot) -> Response {
    let (parts, body) = response.into_parts();
    let body = body.into_data_stream().map(move |chunk| {
        let _ = &slot;
        chunk
    });
    Response::from_parts(parts, Body::from_stream(body))
}

/// What the transport refuses with a status and a few words, as a problem with a code.
fn explain(status: StatusCode) -> Option<Problem> {
    match status {
        StatusCode::FORBIDDEN => Some(Problem::new(
            "server.origin",
            "The Host or Origin of the request is not allowed.",
            "Call by a configured host name; add it to the allowed hosts or origins of the daemon if it is yours.",
        )),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Some(Problem::new("server.body", "The request is too large.", "Send fewer edits or a smaller manifest."))
        }
        _ => None,
    }
}

fn unauthorized(given: bool) -> Response {
    let problem = if given {
        Problem::new("auth.token", "The bearer token belongs to no agent.", "Send the token of a configured Agent.")
    } else {
        Problem::new(
            "auth.token",
            "A bearer token is needed.",
            "Send `Authorization: Bearer` with the token of a configured Agent.",
        )
    };
    let mut response = refuse(StatusCode::UNAUTHORIZED, &problem);
    let challenge =
        if given { "Bearer realm=\"countersign\", error=\"invalid_token\"" } else { "Bearer realm=\"countersign\"" };
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

fn too_many(refused: &TooMany) -> Response {
    let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, &refused.problem());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(refused.seconds()));
    response
}

fn refuse(status: StatusCode, problem: &Problem) -> Response {
    (status, Json(problem)).into_response()
}
