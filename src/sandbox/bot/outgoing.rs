//! What a bot may send: texts, entities, keyboards, and how each limit is refused.

use serde::Deserialize;
use serde_json::Value;

use super::args::{Args, Refusal};
use super::state::{ShownButton, ShownEntity};

/// Longest text, in code points.
pub(crate) const TEXT_LIMIT: usize = 4096;
/// Longest caption, in code points.
pub(crate) const CAPTION_LIMIT: usize = 1024;
/// Longest `callback_data`, in bytes.
const DATA_LIMIT: usize = 64;
/// More entities than this are dropped without a word.
const ENTITY_LIMIT: usize = 100;
/// Buttons under one message.
const BUTTON_LIMIT: usize = 100;

const ENTITY_KINDS: [&str; 20] = [
    "mention",
    "hashtag",
    "cashtag",
    "bot_command",
    "url",
    "email",
    "phone_number",
    "bold",
    "italic",
    "underline",
    "strikethrough",
    "spoiler",
    "blockquote",
    "expandable_blockquote",
    "code",
    "pre",
    "text_link",
    "text_mention",
    "custom_emoji",
    "date_time",
];

#[derive(Deserialize)]
struct Keyboard {
    inline_keyboard: Option<Vec<Vec<ShownButton>>>,
    force_reply: Option<bool>,
}

/// Text with its entities, after the server's own clean-up (white space at the end goes).
pub(crate) fn text(
    args: &Args,
    name: &str,
    entities: &str,
    limit: usize,
) -> Result<(String, Vec<ShownEntity>), Refusal> {
    if args.text("parse_mode").is_some_and(|mode| !mode.is_empty()) {
        return Err(Refusal::bad("the sandbox reads entities, not parse_mode"));
    }
    let text = args.text(name).unwrap_or_default();
    if text.contains('\0') {
        return Err(Refusal::bad("strings must not contain null characters"));
    }
    let entities: Vec<ShownEntity> = args.json(entities)?.unwrap_or_default();
    for entity in &entities {
        check_entity(&text, entity)?;
    }
    let text = text.trim_end().to_owned();
    if text.chars().count() > limit {
        return Err(Refusal::bad(if limit == CAPTION_LIMIT {
            "message caption is too long"
        } else {
            "message is too long"
        }));
    }
    Ok((text.clone(), clip(&text, entities)))
}

/// Offsets are UTF-16 units and may not split a character (tdlib `MessageEntity.cpp`).
fn check_entity(text: &str, entity: &ShownEntity) -> Result<(), Refusal> {
    if !ENTITY_KINDS.contains(&entity.kind.as_str()) {
        return Err(Refusal::bad("can't parse MessageEntity: Unsupported type specified"));
    }
    let end = entity.offset.saturating_add(entity.length);
    let length = text.encode_utf16().count();
    if entity.length == 0 {
        return Err(Refusal::bad("can't parse MessageEntity: length must be positive"));
    }
    if end > length {
        return Err(Refusal::bad(format_args!(
            "entity beginning at UTF-16 offset {} ends after the end of the text at UTF-16 offset {end}",
            entity.offset
        )));
    }
    for (edge, word) in [(entity.offset, "begins"), (end, "ends")] {
        if !is_boundary(text, edge) {
            return Err(Refusal::bad(format_args!(
                "entity {word} in a middle of a UTF-16 symbol at UTF-16 offset {edge}"
            )));
        }
    }
    Ok(())
}

fn is_boundary(text: &str, unit: usize) -> bool {
    let mut at = 0;
    for c in text.chars() {
        if at >= unit {
            break;
        }
        at += c.len_utf16();
    }
    at == unit
}

fn clip(text: &str, entities: Vec<ShownEntity>) -> Vec<ShownEntity> {
    let length = text.encode_utf16().count();
    let mut kept: Vec<_> = entities
        .into_iter()
        .filter(|e| e.offset < length)
        .map(|mut e| {
            e.length = e.length.min(length - e.offset);
            e
        })
        .collect();
    kept.sort_by_key(|e| (e.offset, std::cmp::Reverse(e.length)));
    kept.truncate(ENTITY_LIMIT);
    kept
}

/// The inline keyboard; other kinds of markup are refused.
pub(crate) fn buttons(args: &Args) -> Result<Vec<Vec<ShownButton>>, Refusal> {
    let Some(keyboard) = args.json::<Keyboard>("reply_markup")? else { return Ok(Vec::new()) };
    if keyboard.force_reply == Some(true) && keyboard.inline_keyboard.is_none() {
        return Ok(Vec::new());
    }
    let Some(rows) = keyboard.inline_keyboard else {
        return Err(Refusal::bad("the sandbox knows inline keyboards only"));
    };
    for button in rows.iter().flatten() {
        if button.text.trim().is_empty() {
            return Err(Refusal::bad("can't parse inline keyboard button: Text must be non-empty"));
        }
        match (&button.callback_data, &button.url) {
            (Some(data), None) if data.is_empty() || data.len() > DATA_LIMIT => {
                return Err(Refusal::bad("BUTTON_DATA_INVALID"));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => {
                return Err(Refusal::bad(
                    "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard",
                ));
            }
        }
    }
    if rows.iter().flatten().count() > BUTTON_LIMIT {
        return Err(Refusal::bad("REPLY_MARKUP_TOO_LONG"));
    }
    Ok(rows.into_iter().filter(|row| !row.is_empty()).collect())
}

/// Options of link previews, kept as they came.
pub(crate) fn preview(args: &Args) -> Result<Option<Value>, Refusal> {
    let options: Option<Value> = args.json("link_preview_options")?;
    match options {
        Some(Value::Object(map)) => Ok(Some(Value::Object(map))),
        Some(_) => Err(Refusal::bad("object expected as link preview options")),
        None if args.flag("disable_web_page_preview") => Ok(Some(serde_json::json!({"is_disabled": true}))),
        None => Ok(None),
    }
}
