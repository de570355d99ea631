//! People, chats, messages and presses of the sandbox's Telegram.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{Flood, Limits};
use super::queue::Queue;

/// A user as Telegram shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) is_bot: bool,
    pub(crate) first_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
}

/// Kind of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// One person and the bot.
    Private,
    /// Basic group.
    Group,
    /// Supergroup.
    Supergroup,
    /// Channel.
    Channel,
}

#[derive(Debug, Clone)]
pub(crate) struct Chat {
    pub(crate) id: i64,
    pub(crate) kind: ChatKind,
    pub(crate) title: String,
    pub(crate) members: BTreeSet<i64>,
    pub(crate) messages: BTreeMap<i64, Message>,
    pub(crate) started: bool,
    pub(crate) blocked: bool,
}

/// A formatted part of a text, in UTF-16 units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownEntity {
    /// Kind, for example `bold` or `pre`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Start.
    pub offset: usize,
    /// Length.
    pub length: usize,
    /// Language of a `pre`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Target of a `text_link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A button under a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownButton {
    /// What it says.
    pub text: String,
    /// What a press sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_data: Option<String>,
    /// Address that it opens instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A document in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDocument {
    /// Name.
    pub file_name: String,
    /// Type.
    pub mime_type: String,
    /// Handle with which its bytes can be read.
    pub file_id: String,
    /// Bytes.
    pub file_size: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) from: User,
    pub(crate) date: DateTime<Utc>,
    pub(crate) edited: Option<DateTime<Utc>>,
    /// Text, or the document's caption.
    pub(crate) text: String,
    pub(crate) entities: Vec<ShownEntity>,
    pub(crate) buttons: Vec<Vec<ShownButton>>,
    pub(crate) document: Option<SentDocument>,
    pub(crate) reply_to: Option<i64>,
    pub(crate) silent: bool,
    pub(crate) preview: Option<Value>,
    pub(crate) earlier: Vec<String>,
}

/// A message as a person sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownMessage {
    /// Id in its chat.
    pub message_id: i64,
    /// Sender.
    pub from_id: i64,
    /// Written by the bot.
    pub from_bot: bool,
    /// Unix seconds.
    pub date: i64,
    /// Unix seconds of the last edit.
    pub edited: Option<i64>,
    /// Text or caption.
    pub text: String,
    /// Formatting.
    pub entities: Vec<ShownEntity>,
    /// Buttons by row.
    pub buttons: Vec<Vec<ShownButton>>,
    /// Document.
    pub document: Option<SentDocument>,
    /// Message that it answers.
    pub reply_to: Option<i64>,
    /// Sent without sound.
    pub silent: bool,
    /// Link previews are off.
    pub preview_off: bool,
    /// Texts before each edit of the text.
    pub earlier: Vec<String>,
}

impl ShownMessage {
    /// The button with this label.
    #[must_use]
    pub fn button(&self, label: &str) -> Option<&ShownButton> {
        self.buttons.iter().flatten().find(|b| b.text == label)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Callback {
    pub(crate) at: DateTime<Utc>,
    pub(crate) answer: Option<(String, bool)>,
}

/// Everything that the server knows.
pub(crate) struct State {
    pub(crate) me: User,
    pub(crate) users: BTreeMap<i64, User>,
    pub(crate) chats: BTreeMap<i64, Chat>,
    pub(crate) queue: Queue,
    pub(crate) callbacks: BTreeMap<String, Callback>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) limits: Flood,
    pub(crate) webhook: String,
    last_message: i64,
    last_callback: u64,
}

impl State {
    pub(crate) fn new(id: i64, username: &str, limits: Option<Limits>) -> Self {
        let me = User { id, is_bot: true, first_name: "Countersign sandbox".into(), username: Some(username.into()) };
        Self {
            me,
            users: BTreeMap::new(),
            chats: BTreeMap::new(),
            queue: Queue::default(),
            callbacks: BTreeMap::new(),
            files: BTreeMap::new(),
            limits: Flood::new(limits),
            webhook: String::new(),
            last_message: 0,
            last_callback: 0,
        }
    }

    pub(crate) fn add_user(&mut self, id: i64, first_name: &str, username: Option<&str>, started: bool) {
        let user = User { id, is_bot: false, first_name: first_name.into(), username: username.map(Into::into) };
        self.users.insert(id, user);
        let chat = self.chats.entry(id).or_insert_with(|| Chat::new(id, ChatKind::Private, first_name));
        chat.members.insert(id);
        chat.started = started;
    }

    pub(crate) fn add_group(&mut self, id: i64, kind: ChatKind, title: &str, members: &[i64]) {
        let chat = self.chats.entry(id).or_insert_with(|| Chat::new(id, kind, title));
        chat.members.extend(members);
        chat.started = true;
    }

    pub(crate) fn set_blocked(&mut self, id: i64, blocked: bool) {
        if let Some(chat) = self.chats.get_mut(&id) {
            chat.blocked = blocked;
        }
    }

    pub(crate) fn next_message_id(&mut self) -> i64 {
        self.last_message += 1;
        self.last_message
    }

    /// A new press id; real ones are long numbers too.
    pub(crate) fn next_callback_id(&mut self) -> String {
        self.last_callback += 1;
        format!("{}", 4_400_000_000_000_000_000_u64 + self.last_callback)
    }

    pub(crate) fn answer_to(&self, id: &str) -> Option<(String, bool)> {
        self.callbacks.get(id)?.answer.clone()
    }

    pub(crate) fn shown(&self, chat: i64) -> Vec<ShownMessage> {
        let Some(chat) = self.chats.get(&chat) else { return Vec::new() };
        chat.messages.values().map(Message::shown).collect()
    }
}

impl Chat {
    fn new(id: i64, kind: ChatKind, title: &str) -> Self {
        Self {
            id,
            kind,
            title: title.into(),
            members: BTreeSet::new(),
            messages: BTreeMap::new(),
            started: false,
            blocked: false,
        }
    }
}

impl Message {
    pub(crate) fn shown(&self) -> ShownMessage {
        let preview_off = self.preview.as_ref().and_then(|p| p.get("is_disabled")).and_then(Value::as_bool);
        ShownMessage {
            message_id: self.id,
            from_id: self.from.id,
            from_bot: self.from.is_bot,
            date: self.date.timestamp(),
            edited: self.edited.map(|t| t.timestamp()),
            text: self.text.clone(),
            entities: self.entities.clone(),
            buttons: self.buttons.clone(),
            document: self.document.clone(),
            reply_to: self.reply_to,
            silent: self.silent,
            preview_off: preview_off.unwrap_or(false),
            earlier: self.earlier.clone(),
        }
    }
}
