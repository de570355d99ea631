//! An ended change is one trace at an OpenTelemetry collector. Built with the feature `otel`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector's OTLP/HTTP port.
async fn collector() -> (String, Taken) {
    let taken = Taken::default();
    let keep = Arc::clone(&taken);
    let take = move |headers: HeaderMap, body: Bytes| async move {
        let kind = headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
        keep.lock().unwrap().push((kind, body.to_vec()));
        StatusCode::OK
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, taken)
}

fn has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|w| w == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_change_is_one_trace_at_the_collector_that_the_environment_names() {
    let (address, taken) = collector().await;
    let out = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["demo", "--yes", "--once"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &address)
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=lab")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    let id = said.split("Countersign-Change: ").nth(1).unwrap().lines().next().unwrap().trim();
    let id = countersign_core::model::ChangeId::from_string(id).unwrap();
    let taken = taken.lock().unwrap();
    assert_eq!(taken.len(), 1, "once, when it ends");
    for (kind, body) in taken.iter() {
        assert_eq!(kind, "application/x-protobuf");
        assert!(has(body, &id.to_bytes()), "the trace's id is the change's");
        for word in
            ["countersign", "deployment.environment", "decide", "observe", "push_branch", "merge", "verdict", "healthy"]
        {
            assert!(has(body, word.as_bytes()), "{word}");
        }
        assert!(!has(body, b"DB_URL"), "nobody's prose");
    }
}
