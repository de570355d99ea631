//! The control API of the forge, JSON below `/sandbox/`: what people do in its pages.
//!
//! `POST users` (a [`ForgeUser`]), `POST merge {repo, number, as, method?}`, `POST close|reopen {repo, number, as}`,
//! `POST review {repo, number, as, verdict, body?}`, `POST comment {repo, number, as, body}`,
//! `POST protect {repo, branch, protection: {…} | null}`, `POST commit {repo, branch, path, content}` (a foreign
//! push), `GET pulls?repo=owner/name`, `GET comments?repo=&number=`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::merge::Method;
use super::pulls::{MergeAsk, Refused};
use super::state::{ForgeUser, Protection, PullState, Verdict};
use crate::sandbox::git::{Author, FileChange};
use crate::sandbox::host::lock;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/users", post(add_user))
        .route("/merge", post(merge))
        .route("/close", post(close))
        .route("/reopen", post(reopen))
        .route("/review", post(review))
        .route("/comment", post(comment))
        .route("/protect", post(protect))
        .route("/commit", post(commit))
        .route("/pulls", get(pulls))
        .route("/comments", get(comments))
        .with_state(shared)
}

type Server = State<Arc<Shared>>;

fn answer(result: Result<Value, Refused>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(e) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": e.to_string()}))).into_response(),
    }
}

async fn add_user(State(shared): Server, Json(user): Json<ForgeUser>) -> Json<Value> {
    lock(&shared.state).add_user(user);
    Json(json!({"ok": true}))
}

/// Something done to a pull request by a user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    repo: String,
    number: u64,
    #[serde(rename = "as")]
    login: String,
    #[serde(default)]
    method: Method,
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default)]
    body: String,
}

async fn merge(State(shared): Server, Json(deed): Json<Deed>) -> Response {
    let ask = MergeAsk { method: deed.method, ..MergeAsk::default() };
    let user = shared.user_named(&deed.login);
    let merged = user.and_then(|user| shared.merge_pull(&deed.repo, deed.number, &user, &ask));
    answer(merged.map(|commit| json!({"commit": commit})))
}

async fn close(State(shared): Server, Json(deed): Json<Deed>) -> Response {
    let user = shared.user_named(&deed.login);
    let done = user.and_then(|user| shared.set_state(&deed.repo, deed.number, &user, PullState::Closed));
    answer(done.map(|pull| json!(pull)))
}

async fn reopen(State(shared): Server, Json(deed): Json<Deed>) -> Response {
    let user = shared.user_named(&deed.login);
    let done = user.and_then(|user| shared.set_state(&deed.repo, deed.number, &user, PullState::Open));
    answer(done.map(|pull| json!(pull)))
}

async fn review(State(shared): Server, Json(deed): Json<Deed>) -> Response {
    let verdict = deed.verdict.unwrap_or(Verdict::Approved);
    let user = shared.user_named(&deed.login);
    let done = user.and_then(|user| shared.review(&deed.repo, deed.number, &user, verdict, &deed.body));
    answer(done.map(|review| json!(review)))
}

async fn comment(State(shared): Server, Json(deed): Json<Deed>) -> Response {
    let user = shared.user_named(&deed.login);
    let done = user.and_then(|user| shared.comment(&deed.repo, deed.number, &user, &deed.body));
    answer(done.map(|comment| json!(comment)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Protect {
    repo: String,
    branch: String,
    protection: Option<Protection>,
}

async fn protect(State(shared): Server, Json(ask): Json<Protect>) -> Response {
    answer(shared.protect(&ask.repo, &ask.branch, ask.protection).map(|()| json!({"ok": true})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    repo: String,
    branch: String,
    path: String,
    content: String,
}

async fn commit(State(shared): Server, Json(ask): Json<Foreign>) -> Response {
    let change = FileChange::write(&ask.path, ask.content.as_bytes());
    let author = Author::new("Somebody Else", "else@example.com");
    let made = shared.repos.commit(&ask.repo, &ask.branch, &[change], &author, "chore: foreign commit\n");
    answer(made.map(|id| json!({"commit": id})).map_err(Refused::from))
}

#[derive(Deserialize)]
struct Which {
    repo: String,
    #[serde(default)]
    number: u64,
}

async fn pulls(State(shared): Server, Query(which): Query<Which>) -> Json<Value> {
    Json(json!(shared.pulls(&which.repo)))
}

async fn comments(State(shared): Server, Query(which): Query<Which>) -> Json<Value> {
    Json(json!(shared.comments(&which.repo, which.number)))
}
