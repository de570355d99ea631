//! `/sandbox/…`: the control API over HTTP, so that another process can drive the sandbox and read its logs.

use std::collections::HashMap;

use axum::Router;
use axum::body::Body;
use axum::extract::{Json, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Denial;
use super::images::Behaviour;
use super::record::{Wish, lines};
use super::{Engine, Shared};

/// The routes.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/sandbox/log", get(log))
        .route("/sandbox/behaviour", post(behaviour))
        .route("/sandbox/deny", post(deny).get(denials).delete(allow))
        .route("/sandbox/engine", post(engine))
        .route("/sandbox/apply", post(apply))
        .route("/sandbox/act", post(act))
        .route("/sandbox/record", get(record))
        .route("/sandbox/api", post(api))
        .with_state(shared)
}

async fn log(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    let after = query.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    Json(shared.log.since(after)).into_response()
}

#[derive(Deserialize)]
struct ImageWish {
    image: String,
    behaviour: Behaviour,
}

async fn behaviour(State(shared): State<Shared>, Json(wish): Json<ImageWish>) -> StatusCode {
    shared.images.set(&wish.image, wish.behaviour);
    StatusCode::NO_CONTENT
}

async fn deny(State(shared): State<Shared>, Json(denial): Json<Denial>) -> StatusCode {
    shared.access.deny(denial);
    StatusCode::NO_CONTENT
}

async fn denials(State(shared): State<Shared>) -> Json<Vec<Denial>> {
    Json(shared.access.denials())
}

async fn allow(State(shared): State<Shared>) -> StatusCode {
    shared.access.allow_all();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EngineAction {
    Pause,
    Resume,
    Restart,
}

#[derive(Deserialize)]
struct EngineWish {
    engine: Engine,
    action: EngineAction,
}

async fn engine(State(shared): State<Shared>, Json(wish): Json<EngineWish>) -> StatusCode {
    match wish.action {
        EngineAction::Pause => shared.pause(wish.engine, true),
        EngineAction::Resume => shared.pause(wish.engine, false),
        EngineAction::Restart => shared.restart(wish.engine),
    }
    StatusCode::NO_CONTENT
}

/// One object or a list of them.
async fn apply(State(shared): State<Shared>, Json(objects): Json<Value>) -> Response {
    let objects = match objects {
        Value::Array(objects) => objects,
        one => vec![one],
    };
    let mut done = Vec::new();
    for object in &objects {
        match shared.apply(object) {
            Ok(object) => done.push((*object).clone()),
            Err(failure) => return failure.into_response(),
        }
    }
    Json(done).into_response()
}

/// A line for the recordings: something that was done from outside.
async fn act(State(shared): State<Shared>, Json(act): Json<Value>) -> StatusCode {
    // Nobody may be recording.
    drop(shared.acts.send(act));
    StatusCode::NO_CONTENT
}

async fn record(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    let stream = lines(shared, Wish::of(&query)).map(|line| Ok::<_, std::convert::Infallible>(format!("{line}\n")));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ApiWish {
    /// 503 until `up`.
    Down,
    /// Serves again.
    Up,
    /// Ends every watch.
    DropWatches,
    /// Forgets the event log: older watches get 410.
    Compact,
}

async fn api(State(shared): State<Shared>, Json(wish): Json<HashMap<String, ApiWish>>) -> Response {
    match wish.get("do") {
        Some(ApiWish::Down) => shared.set_available(false),
        Some(ApiWish::Up) => shared.set_available(true),
        Some(ApiWish::DropWatches) => shared.drop_watches(),
        Some(ApiWish::Compact) => {
            shared.store.compact();
            shared.drop_watches();
        }
        None => {
            return (
                StatusCode::BAD_REQUEST,
                Json(json!({ "error": "say what to do: down, up, drop_watches, compact" })),
            )
                .into_response();
        }
    }
    StatusCode::NO_CONTENT.into_response()
}
