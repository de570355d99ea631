//! What people did, read from updates as plain JSON.

use serde_json::Value;

/// Kind of the chat that something happened in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatKind {
    /// One person and the bot.
    Private,
    /// Basic group.
    Group,
    /// Supergroup.
    Supergroup,
    /// Channel.
    Channel,
    /// Not said, or unknown to us.
    Unknown,
}

/// One update. The sender is asserted by Telegram; all else may be forged by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A button was pressed.
    Press {
        /// Update.
        update_id: i64,
        /// With which the press is answered.
        callback_id: String,
        /// Who pressed.
        from_id: i64,
        /// The presser is a bot.
        from_is_bot: bool,
        /// Chat of the message.
        chat_id: i64,
        /// Its kind.
        chat_kind: ChatKind,
        /// Message with the button; it may be deleted or another bot's.
        message_id: i64,
        /// What the button (or a forger) sent.
        data: String,
    },
    /// A new text. Edited, forwarded and otherwise borrowed words are [`Inbound::Other`]: nobody said them here.
    Text {
        /// Update.
        update_id: i64,
        /// Who wrote.
        from_id: i64,
        /// The writer is a bot.
        from_is_bot: bool,
        /// Chat.
        chat_id: i64,
        /// Its kind.
        chat_kind: ChatKind,
        /// The words.
        text: String,
        /// Message that they answer.
        reply_to: Option<i64>,
    },
    /// Anything else; only to be acknowledged.
    Other {
        /// Update.
        update_id: i64,
    },
}

impl Inbound {
    /// Number of the update: the next offset is one more.
    #[must_use]
    pub fn update_id(&self) -> i64 {
        match self {
            Self::Press { update_id, .. } | Self::Text { update_id, .. } | Self::Other { update_id } => *update_id,
        }
    }
}

/// Accounts that stand for somebody unknown: anonymous group administrators, posts of channels, Telegram itself
/// (teloxide `types/user_id.rs`). What comes from them was done by nobody in particular.
#[must_use]
pub fn is_impersonal(user_id: i64) -> bool {
    matches!(user_id, 1_087_968_824 | 136_817_688 | 777_000) || user_id <= 0
}

/// Reads one update; one without a number cannot be acknowledged and is left out.
pub(super) fn read(update: &Value) -> Option<Inbound> {
    let update_id = update.get("update_id")?.as_i64()?;
    let press = || press(update_id, update.get("callback_query")?);
    let text = || text(update_id, update.get("message")?);
    Some(press().or_else(text).unwrap_or(Inbound::Other { update_id }))
}

fn press(update_id: i64, query: &Value) -> Option<Inbound> {
    let (from_id, from_is_bot) = sender(query)?;
    let message = query.get("message")?;
    let (chat_id, chat_kind) = chat(message)?;
    Some(Inbound::Press {
        update_id,
        callback_id: query.get("id")?.as_str()?.to_owned(),
        from_id,
        from_is_bot,
        chat_id,
        chat_kind,
        message_id: message.get("message_id")?.as_i64()?,
        data: query.get("data")?.as_str()?.to_owned(),
    })
}

fn text(update_id: i64, message: &Value) -> Option<Inbound> {
    let borrowed = ["forward_origin", "forward_date", "forward_from", "via_bot", "sender_chat", "sender_business_bot"];
    if borrowed.iter().any(|field| message.get(field).is_some()) {
        return None;
    }
    let (from_id, from_is_bot) = sender(message)?;
    let (chat_id, chat_kind) = chat(message)?;
    let text = message.get("text")?.as_str()?.to_owned();
    let reply_to = message.pointer("/reply_to_message/message_id").and_then(Value::as_i64);
    Some(Inbound::Text { update_id, from_id, from_is_bot, chat_id, chat_kind, text, reply_to })
}

/// A sender of whom it is not said whether it is a bot counts as one.
fn sender(of: &Value) -> Option<(i64, bool)> {
    let from = of.get("from")?;
    let is_bot = from.get("is_bot").and_then(Value::as_bool).unwrap_or(true);
    Some((from.get("id")?.as_i64()?, is_bot))
}

fn chat(message: &Value) -> Option<(i64, ChatKind)> {
    let chat = message.get("chat")?;
    let kind = match chat.get("type").and_then(Value::as_str) {
        Some("private") => ChatKind::Private,
        Some("group") => ChatKind::Group,
        Some("supergroup") => ChatKind::Supergroup,
        Some("channel") => ChatKind::Channel,
        _ => ChatKind::Unknown,
    };
    Some((chat.get("id")?.as_i64()?, kind))
}
