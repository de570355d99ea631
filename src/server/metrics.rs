//! `/metrics`: on the HTTP face for callers on this machine, or at an address of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use countersign_core::{Problem, Result};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::{FORWARDED, LOOPBACK_HOSTS, ready};
use super::service::Service;

/// What OpenMetrics calls itself.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn answer(State(service): State<Arc<dyn Service>>) -> Response {
    ([(CONTENT_TYPE, TYPE)], service.metrics().await).into_response()
}

/// Without a token, so only for who is on this machine: not through a proxy, not by another name (a page in a
/// browser can make one that means loopback).
pub(super) async fn answer_here(State(service): State<Arc<dyn Service>>, headers: HeaderMap) -> Response {
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(h, _)| h);
    let local = LOOPBACK_HOSTS.contains(&name.trim_start_matches('[').trim_end_matches(']'));
    if !local || FORWARDED.iter().any(|h| headers.contains_key(*h)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    answer(State(service)).await
}

/// A bound listener for metrics and health alone.
pub struct MetricsServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl MetricsServer {
    /// Binds. `config.metrics` where it is no address, `server.bind` where it cannot be had.
    pub async fn bind(address: &str, service: Arc<dyn Service>) -> Result<Self> {
        let asked: SocketAddr = address.parse().map_err(|_| {
            Problem::new(
                "config.metrics",
                format!("\"{address}\" is not an address."),
                "Write `metrics: ADDRESS:PORT`, for example 127.0.0.1:9090.",
            )
        })?;
        let failed = |e: std::io::Error| {
            Problem::new(
                "server.bind",
                format!("{asked} cannot be listened on: {e}."),
                "Choose another address or stop what holds it.",
            )
            .later()
        };
        let listener = TcpListener::bind(asked).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = Router::new()
            .route("/metrics", routing::get(answer))
            .route("/healthz", routing::get(|| async { "ok\n" }))
            .route("/readyz", routing::get(ready))
            .with_state(service);
        Ok(Self { listener, address, router })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let ended = async move { stop.cancelled().await };
        if let Err(error) = axum::serve(self.listener, self.router).with_graceful_shutdown(ended).await {
            tracing::error!(%error, "serving metrics ended");
        }
    }
}
