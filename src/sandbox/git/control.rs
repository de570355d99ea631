//! The control API of the Git server, JSON below `/sandbox/`.
//!
//! `POST repos {name, branch, files: {path: content}}`, `POST commit {repo, branch, path, content?, author?}`,
//! `POST rewind {repo, branch, commits}`, `POST delete_branch {repo, branch}`, `POST protect {repo, branch,
//! protected}`, `POST race {repo, branch, path, content}`, `GET history?repo=&revision=`,
//! `GET file?repo=&revision=&path=`, `GET branches?repo=`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Author, FileChange, Race, Shared};
use crate::sandbox::host::lock;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/repos", post(create))
        .route("/commit", post(commit))
        .route("/rewind", post(rewind))
        .route("/delete_branch", post(delete_branch))
        .route("/protect", post(protect))
        .route("/race", post(race))
        .route("/history", get(history))
        .route("/file", get(file))
        .route("/branches", get(branches))
        .with_state(shared)
}

type Server = State<Arc<Shared>>;

fn answer(result: Result<Value, git2::Error>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(e) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": e.message()}))).into_response(),
    }
}

fn somebody() -> Author {
    Author::new("Somebody Else", "else@example.com")
}

fn main_branch() -> String {
    "main".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRepo {
    name: String,
    #[serde(default = "main_branch")]
    branch: String,
    files: BTreeMap<String, String>,
}

async fn create(State(shared): Server, Json(new): Json<NewRepo>) -> Response {
    let files: Vec<_> = new.files.iter().map(|(path, text)| FileChange::write(path, text.as_bytes())).collect();
    answer(shared.repos.create(&new.name, &new.branch, &files, &somebody()).map(|id| json!({"commit": id})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCommit {
    repo: String,
    #[serde(default = "main_branch")]
    branch: String,
    path: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default = "somebody")]
    author: Author,
}

async fn commit(State(shared): Server, Json(new): Json<NewCommit>) -> Response {
    let made = match &new.content {
        Some(text) => shared.commit_file(&new.repo, &new.branch, &new.path, text.as_bytes(), &new.author),
        None => shared.repos.commit(
            &new.repo,
            &new.branch,
            &[FileChange::delete(&new.path)],
            &new.author,
            "chore: delete\n",
        ),
    };
    answer(made.map(|id| json!({"commit": id})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Branch {
    repo: String,
    branch: String,
    #[serde(default)]
    commits: Option<usize>,
    #[serde(default)]
    protected: Option<bool>,
}

async fn rewind(State(shared): Server, Json(b): Json<Branch>) -> Response {
    let head = shared.repos.rewind(&b.repo, &b.branch, b.commits.unwrap_or(1));
    shared.host.log("rewound", json!({"repo": b.repo, "branch": b.branch, "head": head.as_ref().ok()}));
    answer(head.map(|id| json!({"head": id})))
}

async fn delete_branch(State(shared): Server, Json(b): Json<Branch>) -> Response {
    answer(shared.repos.delete_branch(&b.repo, &b.branch).map(|()| json!({"ok": true})))
}

async fn protect(State(shared): Server, Json(b): Json<Branch>) -> Response {
    let done = shared.repos.protect(&b.repo, &b.branch, b.protected.unwrap_or(true));
    answer(done.map(|()| json!({"ok": true})))
}

async fn race(State(shared): Server, Json(race): Json<Race>) -> Json<Value> {
    lock(&shared.races).push(race);
    Json(json!({"ok": true}))
}

#[derive(Deserialize)]
struct Look {
    repo: String,
    #[serde(default = "main_branch")]
    revision: String,
    #[serde(default)]
    path: String,
}

async fn history(State(shared): Server, Query(look): Query<Look>) -> Response {
    answer(shared.repos.history(&look.repo, &look.revision).map(|h| json!(h)))
}

async fn file(State(shared): Server, Query(look): Query<Look>) -> Response {
    match shared.repos.read(&look.repo, &look.revision, &look.path) {
        Some(bytes) => bytes.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn branches(State(shared): Server, Query(look): Query<Look>) -> Response {
    let found = shared.repos.branches(&look.repo);
    answer(found.map(|b| json!(b.into_iter().collect::<BTreeMap<_, _>>())))
}
