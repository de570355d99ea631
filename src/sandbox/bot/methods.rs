//! The methods of the Bot API.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::args::{Args, Refusal};
use super::outgoing::{self, CAPTION_LIMIT, TEXT_LIMIT};
use super::state::{Callback, ChatKind, Message, SentDocument, State};
use super::{Shared, shape};
use crate::sandbox::clock::delta;
use crate::sandbox::host::lock;

/// Longest text of an answer to a press.
const ANSWER_LIMIT: usize = 200;
/// Longest long poll, in seconds.
const POLL_LIMIT: i64 = 50;
/// Telegram itself takes 50 MB; the sandbox keeps files in memory.
const BODY_LIMIT: usize = 50 * 1024 * 1024;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/file/{bot}/documents/{file}", get(download))
        .route("/{bot}/{method}", any(call))
        .fallback(|| async { refuse(&Refusal::new(404, "Not Found")) })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared)
}

async fn download(Extract(shared): Extract<Arc<Shared>>, Path((bot, file)): Path<(String, String)>) -> Response {
    if bot.strip_prefix("bot") != Some(shared.options.token.as_str()) {
        return refuse(&Refusal::new(401, "Unauthorized"));
    }
    match lock(&shared.state).files.get(&file) {
        Some(bytes) => bytes.clone().into_response(),
        None => refuse(&Refusal::new(404, "Not Found")),
    }
}

async fn call(
    Extract(shared): Extract<Arc<Shared>>,
    Path((bot, method)): Path<(String, String)>,
    req: Request,
) -> Response {
    let Some(token) = bot.strip_prefix("bot") else { return refuse(&Refusal::new(404, "Not Found")) };
    if token != shared.options.token {
        shared.host.log("call", json!({"method": method, "status": 401}));
        return refuse(&Refusal::new(401, "Unauthorized"));
    }
    let args = match Args::read(req).await {
        Ok(args) => args,
        Err(refusal) => return refuse(&refusal),
    };
    let result = if method.eq_ignore_ascii_case("getUpdates") {
        shared.get_updates(&args).await
    } else {
        shared.act(&method.to_ascii_lowercase(), &args)
    };
    let mut line = json!({"method": method, "args": args.for_log()});
    let (status, key, value) = match &result {
        Ok(value) => (200, "result", value.clone()),
        Err(refusal) => (refusal.status, "error", json!(refusal.description)),
    };
    if let Some(map) = line.as_object_mut() {
        map.insert("status".into(), json!(status));
        map.insert(key.into(), value);
    }
    shared.host.log("call", line);
    match result {
        Ok(value) => Json(json!({"ok": true, "result": value})).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = json!({"ok": false, "error_code": refusal.status, "description": refusal.description});
    if let (Some(seconds), Some(map)) = (refusal.retry_after, body.as_object_mut()) {
        map.insert("parameters".into(), json!({"retry_after": seconds}));
    }
    let mut response = (status, Json(body)).into_response();
    if let Some(value) = refusal.retry_after.and_then(|s| HeaderValue::try_from(s.to_string()).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

impl Shared {
    fn act(&self, method: &str, args: &Args) -> Result<Value, Refusal> {
        let mut state = lock(&self.state);
        match method {
            "getme" => Ok(shape::me(&state.me)),
            "getwebhookinfo" => Ok(shape::webhook(&state)),
            "deletewebhook" => Ok(delete_webhook(&mut state, args)),
            "setwebhook" => {
                state.webhook = args.text("url").unwrap_or_default();
                self.news.notify_waiters();
                Ok(Value::Bool(true))
            }
            "getchat" => get_chat(&state, args),
            "getfile" => get_file(&state, args),
            "sendmessage" | "senddocument" => self.send(&mut state, args, method == "senddocument"),
            "editmessagetext" => self.edit(&mut state, args, Edit::Text),
            "editmessagecaption" => self.edit(&mut state, args, Edit::Caption),
            "editmessagereplymarkup" => self.edit(&mut state, args, Edit::Buttons),
            "deletemessage" => self.delete(&mut state, args),
            "answercallbackquery" => self.answer(&mut state, args),
            "sendchataction" => open_chat(&state, args).map(|_| Value::Bool(true)),
            "setmycommands" | "deletemycommands" | "logout" | "close" => Ok(Value::Bool(true)),
            _ => Err(Refusal::new(404, "Not Found: method not found")),
        }
    }

    async fn get_updates(&self, args: &Args) -> Result<Value, Refusal> {
        let limit = usize::try_from(args.int("limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
        let wait = args.int("timeout").unwrap_or(0).clamp(0, POLL_LIMIT);
        let until = tokio::time::Instant::now() + Duration::from_secs(wait.unsigned_abs());
        let poll = {
            let mut state = lock(&self.state);
            if let Some(kinds) = args.json::<Vec<String>>("allowed_updates")? {
                state.queue.allow(kinds);
            }
            let confirmed = state.queue.confirm(args.int("offset").unwrap_or(0));
            if !confirmed.is_empty() {
                self.host.log("confirmed", json!({"update_ids": confirmed}));
            }
            state.queue.begin_poll()
        };
        self.news.notify_waiters();
        self.wait_for_updates(poll, limit, until).await
    }

    async fn wait_for_updates(&self, poll: u64, limit: usize, until: tokio::time::Instant) -> Result<Value, Refusal> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(done) = self.look(poll, limit) {
                return match done {
                    Ok(value) => Ok(value),
                    Err(late) => Err(self.conflict(late).await),
                };
            }
            tokio::select! {
                () = &mut news => {}
                // The clock may be driven, so expiry has to be looked at now and then.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = tokio::time::sleep_until(until) => {
                    return match self.look(poll, limit) {
                        Some(Ok(value)) => Ok(value),
                        Some(Err(late)) => Err(self.conflict(late).await),
                        None => Ok(json!([])),
                    };
                }
            }
        }
    }

    /// Updates for this poll, or the 409 that ends it; `None` = keep waiting.
    fn look(&self, poll: u64, limit: usize) -> Option<Result<Value, Conflict>> {
        let mut state = lock(&self.state);
        if !state.webhook.is_empty() {
            return Some(Err(Conflict::Webhook));
        }
        if !state.queue.is_current(poll) {
            let late = state.queue.conflict_is_late(self.host.clock().now(), delta(self.options.conflict_spacing));
            return Some(Err(Conflict::Poller { late }));
        }
        for gone in state.queue.expire(self.host.clock().now()) {
            self.host.log("expired", json!({"update_id": gone.id, "kind": gone.kind}));
        }
        let updates = state.queue.first(limit);
        (!updates.is_empty()).then(|| Ok(Value::Array(updates)))
    }

    async fn conflict(&self, conflict: Conflict) -> Refusal {
        match conflict {
            Conflict::Webhook => Refusal::new(
                409,
                "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first",
            ),
            Conflict::Poller { late } => {
                if late {
                    tokio::time::sleep(self.options.conflict_spacing).await;
                }
                Refusal::new(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
            }
        }
    }

    fn send(&self, state: &mut State, args: &Args, with_document: bool) -> Result<Value, Refusal> {
        let chat_id = open_chat(state, args)?;
        let (text, entities) = if with_document {
            outgoing::text(args, "caption", "caption_entities", CAPTION_LIMIT)?
        } else {
            outgoing::text(args, "text", "entities", TEXT_LIMIT)?
        };
        if text.is_empty() && !with_document {
            return Err(Refusal::bad("message text is empty"));
        }
        let buttons = outgoing::buttons(args)?;
        let preview = outgoing::preview(args)?;
        let reply_to = reply_to(state, args, chat_id)?;
        let now = self.host.clock().now();
        flood(state, chat_id, now)?;
        let document = if with_document { Some(keep_document(state, args)?) } else { None };
        let id = state.next_message_id();
        let message = Message {
            id,
            from: state.me.clone(),
            date: now,
            edited: None,
            text,
            entities,
            buttons,
            document,
            reply_to,
            silent: args.flag("disable_notification"),
            preview,
            earlier: Vec::new(),
        };
        if let Some(chat) = state.chats.get_mut(&chat_id) {
            chat.messages.insert(id, message);
        }
        self.chats.notify_waiters();
        shown(state, chat_id, id)
    }

    fn edit(&self, state: &mut State, args: &Args, what: Edit) -> Result<Value, Refusal> {
        let chat_id = open_chat(state, args)?;
        let id = message_id(args)?;
        let buttons = outgoing::buttons(args)?;
        let preview = outgoing::preview(args)?;
        let content = match what {
            Edit::Text => Some(outgoing::text(args, "text", "entities", TEXT_LIMIT)?),
            Edit::Caption => Some(outgoing::text(args, "caption", "caption_entities", CAPTION_LIMIT)?),
            Edit::Buttons => None,
        };
        let now = self.host.clock().now();
        let me = state.me.id;
        let message = state.chats.get_mut(&chat_id).and_then(|c| c.messages.get_mut(&id));
        let Some(message) = message else { return Err(Refusal::bad("message to edit not found")) };
        if message.from.id != me {
            return Err(Refusal::bad("message can't be edited"));
        }
        match (what, message.document.is_some()) {
            (Edit::Text, true) => return Err(Refusal::bad("there is no text in the message to edit")),
            (Edit::Caption, false) => return Err(Refusal::bad("there is no caption in the message to edit")),
            _ => {}
        }
        if what == Edit::Text && content.as_ref().is_some_and(|(text, _)| text.is_empty()) {
            return Err(Refusal::bad("message text is empty"));
        }
        let (text, entities) = content.unwrap_or_else(|| (message.text.clone(), message.entities.clone()));
        // An edit without a keyboard takes the keyboard away.
        if text == message.text && entities == message.entities && buttons == message.buttons {
            return Err(Refusal::bad(
                "message is not modified: specified new message content and reply markup are exactly the same as a current \
                 content and reply markup of the message",
            ));
        }
        if text != message.text {
            message.earlier.push(std::mem::replace(&mut message.text, text));
        }
        message.entities = entities;
        message.buttons = buttons;
        if what == Edit::Text {
            message.preview = preview;
        }
        message.edited = Some(now);
        self.chats.notify_waiters();
        shown(state, chat_id, id)
    }

    fn delete(&self, state: &mut State, args: &Args) -> Result<Value, Refusal> {
        let chat_id = open_chat(state, args)?;
        let id = message_id(args)?;
        let oldest = self.host.clock().now() - delta(Duration::from_secs(48 * 3600));
        let Some(chat) = state.chats.get_mut(&chat_id) else { return Err(Refusal::bad("chat not found")) };
        match chat.messages.get(&id) {
            None => Err(Refusal::bad("message to delete not found")),
            Some(message) if message.date < oldest => Err(Refusal::bad("message can't be deleted for everyone")),
            Some(_) => {
                chat.messages.remove(&id);
                self.chats.notify_waiters();
                Ok(Value::Bool(true))
            }
        }
    }

    fn answer(&self, state: &mut State, args: &Args) -> Result<Value, Refusal> {
        let id = args.text("callback_query_id").unwrap_or_default();
        let text = args.text("text").unwrap_or_default();
        if text.chars().count() > ANSWER_LIMIT {
            return Err(Refusal::bad("MESSAGE_TOO_LONG"));
        }
        let oldest = self.host.clock().now() - delta(self.options.answer_lifetime);
        match state.callbacks.get_mut(&id) {
            Some(Callback { at, answer }) if *at > oldest => {
                *answer = Some((text, args.flag("show_alert")));
                self.chats.notify_waiters();
                Ok(Value::Bool(true))
            }
            _ => Err(Refusal::bad("query is too old and response timeout expired or query ID is invalid")),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Text,
    Caption,
    Buttons,
}

enum Conflict {
    Webhook,
    Poller { late: bool },
}

fn delete_webhook(state: &mut State, args: &Args) -> Value {
    state.webhook.clear();
    if args.flag("drop_pending_updates") {
        state.queue.clear();
    }
    Value::Bool(true)
}

fn get_chat(state: &State, args: &Args) -> Result<Value, Refusal> {
    let chat = args.int("chat_id").and_then(|id| state.chats.get(&id)).filter(|c| c.started);
    let Some(chat) = chat else { return Err(Refusal::bad("chat not found")) };
    let mut value = shape::chat(state, chat);
    if let Some(map) = value.as_object_mut() {
        map.insert("accent_color_id".into(), json!(0));
        map.insert("max_reaction_count".into(), json!(11));
        let gifts = json!({
            "unlimited_gifts": false, "limited_gifts": false, "unique_gifts": false, "premium_subscription": false,
            "gifts_from_channels": false,
        });
        map.insert("accepted_gift_types".into(), gifts);
    }
    Ok(value)
}

fn get_file(state: &State, args: &Args) -> Result<Value, Refusal> {
    let id = args.text("file_id").unwrap_or_default();
    let Some(bytes) = state.files.get(&id) else { return Err(Refusal::bad("invalid file_id")) };
    Ok(json!({
        "file_id": id, "file_unique_id": format!("u{id}"), "file_size": bytes.len(), "file_path": format!("documents/{id}"),
    }))
}

/// The chat that a call names, if the bot may write there.
fn open_chat(state: &State, args: &Args) -> Result<i64, Refusal> {
    if !args.has("chat_id") {
        return Err(Refusal::bad("chat_id is empty"));
    }
    let chat = args.int("chat_id").and_then(|id| state.chats.get(&id));
    let Some(chat) = chat else { return Err(Refusal::bad("chat not found")) };
    if chat.blocked {
        return Err(Refusal::new(
            403,
            match chat.kind {
                ChatKind::Private => "Forbidden: bot was blocked by the user",
                ChatKind::Group => "Forbidden: bot was kicked from the group chat",
                ChatKind::Supergroup => "Forbidden: bot was kicked from the supergroup chat",
                ChatKind::Channel => "Forbidden: bot was kicked from the channel chat",
            },
        ));
    }
    if !chat.started {
        return Err(Refusal::new(403, "Forbidden: bot can't initiate conversation with a user"));
    }
    Ok(chat.id)
}

fn message_id(args: &Args) -> Result<i64, Refusal> {
    args.int("message_id").ok_or_else(|| Refusal::bad("message identifier is not specified"))
}

fn reply_to(state: &State, args: &Args, chat: i64) -> Result<Option<i64>, Refusal> {
    let parameters: Option<Value> = args.json("reply_parameters")?;
    let field = |name: &str| parameters.as_ref().and_then(|p| p.get(name));
    let Some(id) = field("message_id").and_then(Value::as_i64) else { return Ok(None) };
    if state.chats.get(&chat).is_some_and(|c| c.messages.contains_key(&id)) {
        return Ok(Some(id));
    }
    if field("allow_sending_without_reply").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    Err(Refusal::bad("message to be replied not found"))
}

fn flood(state: &mut State, chat: i64, now: chrono::DateTime<chrono::Utc>) -> Result<(), Refusal> {
    state.limits.count(chat, now).map_err(|seconds| Refusal {
        status: 429,
        description: format!("Too Many Requests: retry after {seconds}"),
        retry_after: Some(seconds),
    })
}

fn keep_document(state: &mut State, args: &Args) -> Result<SentDocument, Refusal> {
    let Some(upload) = args.upload("document") else {
        return Err(Refusal::bad("there is no document in the request"));
    };
    if upload.bytes.is_empty() {
        return Err(Refusal::bad("file must be non-empty"));
    }
    let hash: String = Sha256::digest(&upload.bytes).iter().take(12).map(|b| format!("{b:02x}")).collect();
    let document = SentDocument {
        file_name: upload.name.clone(),
        mime_type: upload.mime.clone(),
        file_id: format!("BQAC{hash}"),
        file_size: upload.bytes.len(),
    };
    state.files.insert(document.file_id.clone(), upload.bytes.to_vec());
    Ok(document)
}

fn shown(state: &State, chat: i64, message: i64) -> Result<Value, Refusal> {
    let chat = state.chats.get(&chat);
    let message = chat.and_then(|c| c.messages.get(&message).map(|m| (c, m)));
    message
        .map(|(chat, message)| shape::message(state, chat, message))
        .ok_or_else(|| Refusal::new(500, "Internal Server Error: message lost"))
}
