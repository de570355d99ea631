//! What people do: press buttons (their own, others', forged ones), write to the bot, watch a chat.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{Callback, Chat, ChatKind, Message, ShownMessage, State, User};
use super::{Shared, shape};
use crate::sandbox::clock::delta;
use crate::sandbox::host::lock;

/// A press. With only `chat_id` and `button` it is what an honest client sends; the rest is for dishonest ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Press {
    /// Chat that the message is in.
    pub chat_id: i64,
    /// Who presses; absent = the person of the private chat.
    pub user_id: Option<i64>,
    /// Message; absent = the newest one with such a button.
    pub message_id: Option<i64>,
    /// Label of the button.
    pub button: Option<String>,
    /// Raw data instead of a button's: clients can send any bytes.
    pub data: Option<String>,
    /// The press claims to come from this chat (a copy or a forward of the message there).
    pub claimed_chat_id: Option<i64>,
    /// The presser is a bot.
    pub from_bot: bool,
    /// The bot is not shown the message (deleted or too old).
    pub inaccessible: bool,
}

impl Press {
    /// The honest press of a button.
    #[must_use]
    pub fn button(chat_id: i64, label: &str) -> Self {
        Self { chat_id, button: Some(label.into()), ..Self::default() }
    }

    /// Any data on any message.
    #[must_use]
    pub fn forged(chat_id: i64, message_id: i64, data: &str) -> Self {
        Self { chat_id, message_id: Some(message_id), data: Some(data.into()), ..Self::default() }
    }

    /// The same press by somebody else.
    #[must_use]
    pub fn by(mut self, user_id: i64) -> Self {
        self.user_id = Some(user_id);
        self
    }
}

/// A press on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressed {
    /// Id of the query.
    pub callback_query_id: String,
    /// Id of the update, unless the bot does not want presses.
    pub update_id: Option<i64>,
    /// Data that was sent.
    pub data: String,
}

impl Shared {
    pub(super) fn press(&self, press: &Press) -> Result<Pressed, String> {
        let mut state = lock(&self.state);
        let presser = presser(&state, press)?;
        let (message_id, data) = pressed_button(&state, press)?;
        let chat_id = press.claimed_chat_id.unwrap_or(press.chat_id);
        let shown = shown_message(&state, press, chat_id, message_id)?;
        let id = state.next_callback_id();
        let now = self.host.clock().now();
        state.callbacks.insert(id.clone(), Callback { at: now, answer: None });
        let query = json!({
            "id": id,
            "from": shape::user(&presser),
            "message": shown,
            "chat_instance": format!("-{}", 1_000_000_000 + chat_id.unsigned_abs()),
            "data": data,
        });
        let update_id = state.queue.push("callback_query", query, now + delta(self.options.press_lifetime));
        drop(state);
        self.host.log(
            "press",
            json!({"press": press, "by": presser.id, "message_id": message_id, "data": data,
            "callback_query_id": id, "update_id": update_id}),
        );
        self.news.notify_waiters();
        Ok(Pressed { callback_query_id: id, update_id, data })
    }

    pub(super) fn say(&self, user: i64, chat_id: i64, text: &str, reply_to: Option<i64>) -> Result<i64, String> {
        let mut state = lock(&self.state);
        let from = state.users.get(&user).cloned().ok_or_else(|| format!("no user {user}"))?;
        let id = state.next_message_id();
        let now = self.host.clock().now();
        let chat = state.chats.get_mut(&chat_id).ok_or_else(|| format!("no chat {chat_id}"))?;
        if chat.kind != ChatKind::Private && !chat.members.contains(&user) {
            return Err(format!("user {user} is not in chat {chat_id}"));
        }
        if chat.kind == ChatKind::Private {
            chat.started = true;
            chat.blocked = false;
        }
        let message = Message {
            id,
            from,
            date: now,
            edited: None,
            text: text.to_owned(),
            entities: command_entity(text),
            buttons: Vec::new(),
            document: None,
            reply_to,
            silent: false,
            preview: None,
            earlier: Vec::new(),
        };
        chat.messages.insert(id, message.clone());
        let body = state.chats.get(&chat_id).map(|chat| shape::message(&state, chat, &message)).unwrap_or_default();
        let expires = now + delta(self.options.update_lifetime);
        let update_id = state.queue.push("message", body, expires);
        drop(state);
        self.host.log("said", json!({"by": user, "chat_id": chat_id, "text": text, "update_id": update_id}));
        self.news.notify_waiters();
        self.chats.notify_waiters();
        update_id.ok_or_else(|| "the bot does not want messages (allowed_updates)".into())
    }

    pub(super) async fn approve(&self, chat: i64, message_id: Option<i64>) -> Result<Pressed, String> {
        let first = self.press(&Press { message_id, ..Press::button(chat, "Approve") })?;
        let has = |m: &ShownMessage| m.buttons.iter().flatten().any(|b| b.callback_data.as_ref() == Some(&first.data));
        let message = message_id.or_else(|| {
            let shown = lock(&self.state).shown(chat);
            shown.into_iter().find(has).map(|m| m.message_id)
        });
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let answer = lock(&self.state).answer_to(&first.callback_query_id);
            if answer.is_some_and(|(words, _)| !words.contains("number")) {
                return Ok(first);
            }
            let card = lock(&self.state).shown(chat).into_iter().find(|m| Some(m.message_id) == message);
            if let Some(n) = card.as_ref().and_then(|m| number_on(m).filter(|n| m.button(n).is_some())) {
                return self.press(&Press { message_id: message, ..Press::button(chat, &n) });
            }
            if tokio::time::Instant::now() > until {
                return Err(format!("neither approved nor asked for a number: {card:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn enqueue(&self, kind: &str, body: Value) -> i64 {
        let expires = self.host.clock().now() + delta(self.options.update_lifetime);
        let id = lock(&self.state).queue.push(kind, body, expires).unwrap_or_default();
        self.host.log("enqueued", json!({"kind": kind, "update_id": id}));
        self.news.notify_waiters();
        id
    }

    pub(super) async fn wait_for(
        &self,
        chat: i64,
        timeout: Duration,
        wanted: impl Fn(&ShownMessage) -> bool,
    ) -> Option<ShownMessage> {
        let until = tokio::time::Instant::now() + timeout;
        loop {
            let change = self.chats.notified();
            tokio::pin!(change);
            change.as_mut().enable();
            let found = lock(&self.state).shown(chat).into_iter().rev().find(|m| wanted(m));
            if found.is_some() {
                return found;
            }
            if tokio::time::timeout_at(until, change).await.is_err() {
                return None;
            }
        }
    }
}

/// The number that a card asks for.
pub(super) fn number_on(m: &ShownMessage) -> Option<String> {
    let rest = m.text.split("then the number ").nth(1)?;
    Some(rest.chars().take_while(char::is_ascii_digit).collect()).filter(|n: &String| !n.is_empty())
}

fn presser(state: &State, press: &Press) -> Result<User, String> {
    let id = press.user_id.unwrap_or(press.chat_id);
    if let Some(user) = state.users.get(&id) {
        return Ok(User { is_bot: press.from_bot, ..user.clone() });
    }
    if id <= 0 {
        return Err("a press in a group needs `user_id`".into());
    }
    // Anybody may press in a group: strangers need no introduction.
    Ok(User { id, is_bot: press.from_bot, first_name: "Stranger".into(), username: None })
}

fn pressed_button(state: &State, press: &Press) -> Result<(i64, String), String> {
    if let Some(data) = &press.data {
        let newest = || state.chats.get(&press.chat_id)?.messages.keys().next_back().copied();
        let message = press.message_id.or_else(newest).ok_or("no message in this chat")?;
        return Ok((message, data.clone()));
    }
    let label = press.button.as_deref().ok_or("give `button` or `data`")?;
    let chat = state.chats.get(&press.chat_id).ok_or_else(|| format!("no chat {}", press.chat_id))?;
    let candidates = chat.messages.values().rev().filter(|m| press.message_id.is_none_or(|id| id == m.id));
    for message in candidates {
        let button = message.buttons.iter().flatten().find(|b| b.text == label);
        if let Some(data) = button.and_then(|b| b.callback_data.clone()) {
            return Ok((message.id, data));
        }
    }
    Err(format!("no message in chat {} has a button `{label}`", press.chat_id))
}

/// The message as the bot is shown it; a claimed copy carries the text but, like a forward, no buttons.
fn shown_message(state: &State, press: &Press, chat_id: i64, message_id: i64) -> Result<Value, String> {
    let chat = state.chats.get(&chat_id).ok_or_else(|| format!("no chat {chat_id}"))?;
    let original = state.chats.get(&press.chat_id).and_then(|c| c.messages.get(&message_id));
    let Some(original) = original.filter(|_| !press.inaccessible) else {
        return Ok(shape::inaccessible(state, chat, message_id));
    };
    if press.claimed_chat_id.is_none() {
        return Ok(shape::message(state, chat, original));
    }
    Ok(copy(state, chat, original))
}

fn copy(state: &State, chat: &Chat, original: &Message) -> Value {
    let copied = Message { buttons: Vec::new(), reply_to: None, ..original.clone() };
    shape::message(state, chat, &copied)
}

fn command_entity(text: &str) -> Vec<super::ShownEntity> {
    let command: String = text.chars().take_while(|c| !c.is_whitespace()).collect();
    if !command.starts_with('/') || command.len() < 2 {
        return Vec::new();
    }
    let length = command.encode_utf16().count();
    vec![super::ShownEntity { kind: "bot_command".into(), offset: 0, length, language: None, url: None }]
}
