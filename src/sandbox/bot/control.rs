//! The control API: what a script does to be a person. JSON below `/sandbox/`.
//!
//! `POST users {id, first_name, username?, started?}`, `POST groups {id, kind, title, members}`,
//! `POST block {user_id, blocked}`, `GET chats/ID?contains=TEXT&after=MESSAGE&timeout_s=N` (waits for a match),
//! `POST press {chat_id, button}` (see [`super::Press`] for forged ones), `POST approve {chat_id}` (Approve and, where
//! one is asked for, the number on the card), `GET answers/CALLBACK_QUERY_ID`,
//! `POST say {user_id, chat_id?, text, reply_to?}`, `POST updates {kind, body}`, `POST limits`, `POST webhook {url}`,
//! `GET files/ID`; and what every sandbox server has (`down`, `up`, `faults`, `clock`, `log`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ChatKind, Limits, Press, Shared};
use crate::sandbox::host::lock;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/users", post(add_user))
        .route("/groups", post(add_group))
        .route("/block", post(block))
        .route("/chats/{id}", get(chat))
        .route("/press", post(press))
        .route("/approve", post(approve))
        .route("/answers/{id}", get(answer))
        .route("/say", post(say))
        .route("/updates", post(update))
        .route("/limits", post(limits))
        .route("/webhook", post(webhook))
        .route("/files/{id}", get(file))
        .with_state(shared)
}

type Server = State<Arc<Shared>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    id: i64,
    first_name: String,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    started: bool,
}

async fn add_user(State(shared): Server, Json(user): Json<NewUser>) -> Json<Value> {
    lock(&shared.state).add_user(user.id, &user.first_name, user.username.as_deref(), user.started);
    shared.host.log("user", json!({"id": user.id, "started": user.started}));
    Json(json!({"ok": true}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    id: i64,
    kind: ChatKind,
    title: String,
    #[serde(default)]
    members: Vec<i64>,
}

async fn add_group(State(shared): Server, Json(group): Json<NewGroup>) -> Json<Value> {
    lock(&shared.state).add_group(group.id, group.kind, &group.title, &group.members);
    shared.host.log("group", json!({"id": group.id, "members": group.members}));
    Json(json!({"ok": true}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    user_id: i64,
    blocked: bool,
}

async fn block(State(shared): Server, Json(b): Json<Block>) -> Json<Value> {
    lock(&shared.state).set_blocked(b.user_id, b.blocked);
    Json(json!({"ok": true}))
}

#[derive(Deserialize)]
struct Look {
    #[serde(default)]
    contains: Option<String>,
    #[serde(default)]
    after: i64,
    #[serde(default)]
    timeout_s: u64,
}

async fn chat(State(shared): Server, Path(id): Path<i64>, Query(look): Query<Look>) -> Json<Value> {
    if look.timeout_s > 0 {
        let contains = look.contains.clone().unwrap_or_default();
        let wanted = |m: &super::ShownMessage| m.from_bot && m.message_id > look.after && m.text.contains(&contains);
        shared.wait_for(id, Duration::from_secs(look.timeout_s.min(600)), wanted).await;
    }
    let messages: Vec<_> = lock(&shared.state).shown(id).into_iter().filter(|m| m.message_id > look.after).collect();
    Json(json!({"chat_id": id, "messages": messages}))
}

async fn press(State(shared): Server, Json(press): Json<Press>) -> Response {
    answer_in_words(shared.press(&press).map(|p| json!(p)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Yes {
    chat_id: i64,
    #[serde(default)]
    message_id: Option<i64>,
}

async fn approve(State(shared): Server, Json(yes): Json<Yes>) -> Response {
    answer_in_words(shared.approve(yes.chat_id, yes.message_id).await.map(|p| json!(p)))
}

async fn answer(State(shared): Server, Path(id): Path<String>) -> Json<Value> {
    let answer = lock(&shared.state).answer_to(&id);
    Json(match answer {
        Some((text, alert)) => json!({"answered": true, "text": text, "alert": alert}),
        None => json!({"answered": false}),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Say {
    user_id: i64,
    #[serde(default)]
    chat_id: Option<i64>,
    text: String,
    #[serde(default)]
    reply_to: Option<i64>,
}

async fn say(State(shared): Server, Json(say): Json<Say>) -> Response {
    let said = shared.say(say.user_id, say.chat_id.unwrap_or(say.user_id), &say.text, say.reply_to);
    answer_in_words(said.map(|id| json!({"update_id": id})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUpdate {
    kind: String,
    body: Value,
}

async fn update(State(shared): Server, Json(raw): Json<RawUpdate>) -> Json<Value> {
    Json(json!({"update_id": shared.enqueue(&raw.kind, raw.body)}))
}

async fn limits(State(shared): Server, Json(limits): Json<Option<Limits>>) -> Json<Value> {
    lock(&shared.state).limits.set(limits);
    Json(json!({"ok": true}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    url: String,
}

async fn webhook(State(shared): Server, Json(webhook): Json<Webhook>) -> Json<Value> {
    lock(&shared.state).webhook = webhook.url;
    shared.news.notify_waiters();
    Json(json!({"ok": true}))
}

async fn file(State(shared): Server, Path(id): Path<String>) -> Response {
    match lock(&shared.state).files.get(&id) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer_in_words(result: Result<Value, String>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(words) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": words}))).into_response(),
    }
}
