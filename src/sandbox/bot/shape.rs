//! The JSON shapes of the Bot API.

use serde_json::{Map, Value, json};

use super::state::{Chat, ChatKind, Message, State, User};

/// `Chat`.
pub(crate) fn chat(state: &State, chat: &Chat) -> Value {
    let mut map = Map::new();
    map.insert("id".into(), json!(chat.id));
    map.insert("type".into(), json!(chat.kind));
    if chat.kind == ChatKind::Private {
        let user = state.users.get(&chat.id);
        map.insert("first_name".into(), json!(user.map_or(chat.title.as_str(), |u| u.first_name.as_str())));
        if let Some(name) = user.and_then(|u| u.username.as_deref()) {
            map.insert("username".into(), json!(name));
        }
    } else {
        map.insert("title".into(), json!(chat.title));
        if chat.kind == ChatKind::Group {
            map.insert("all_members_are_administrators".into(), json!(false));
        }
    }
    Value::Object(map)
}

/// `User`; people have a language, the bot has none.
pub(crate) fn user(user: &User) -> Value {
    let mut value = json!(user);
    if let Some(map) = value.as_object_mut().filter(|_| !user.is_bot) {
        map.insert("language_code".into(), json!("en"));
    }
    value
}

/// `Message`, with the message that it answers one level deep.
pub(crate) fn message(state: &State, of: &Chat, message: &Message) -> Value {
    let mut map = bare_message(state, of, message);
    let answered = message.reply_to.and_then(|id| of.messages.get(&id));
    if let Some(answered) = answered {
        map.insert("reply_to_message".into(), Value::Object(bare_message(state, of, answered)));
    }
    Value::Object(map)
}

fn bare_message(state: &State, of: &Chat, message: &Message) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("message_id".into(), json!(message.id));
    map.insert("from".into(), user(&message.from));
    map.insert("chat".into(), chat(state, of));
    map.insert("date".into(), json!(message.date.timestamp()));
    if let Some(edited) = message.edited {
        map.insert("edit_date".into(), json!(edited.timestamp()));
    }
    let (text, entities) = match &message.document {
        Some(document) => {
            map.insert("document".into(), document_value(document));
            ("caption", "caption_entities")
        }
        None => ("text", "entities"),
    };
    if !message.text.is_empty() {
        map.insert(text.into(), json!(message.text));
    }
    if !message.entities.is_empty() {
        map.insert(entities.into(), json!(message.entities));
    }
    if let Some(preview) = &message.preview {
        map.insert("link_preview_options".into(), preview.clone());
    }
    if !message.buttons.is_empty() {
        map.insert("reply_markup".into(), json!({"inline_keyboard": message.buttons}));
    }
    map
}

fn document_value(document: &super::SentDocument) -> Value {
    let mut value = json!(document);
    if let Some(map) = value.as_object_mut() {
        map.insert("file_unique_id".into(), json!(format!("u{}", document.file_id)));
    }
    value
}

/// What the bot gets to see of a message that is gone or too old: no content, date 0.
pub(crate) fn inaccessible(state: &State, of: &Chat, message_id: i64) -> Value {
    json!({"chat": chat(state, of), "message_id": message_id, "date": 0})
}

/// `getMe`.
pub(crate) fn me(me: &User) -> Value {
    let mut value = json!(me);
    let extra = json!({
        "can_join_groups": true,
        "can_read_all_group_messages": false,
        "supports_inline_queries": false,
        "can_connect_to_business": false,
        "has_main_web_app": false,
    });
    if let (Some(map), Value::Object(extra)) = (value.as_object_mut(), extra) {
        map.extend(extra);
    }
    value
}

/// `WebhookInfo`.
pub(crate) fn webhook(state: &State) -> Value {
    json!({
        "url": state.webhook,
        "has_custom_certificate": false,
        "pending_update_count": state.queue.len(),
    })
}
