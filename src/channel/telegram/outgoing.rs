//! Cards, and the Bot API's limits on them, checked before anything leaves.

use countersign_core::error::{Problem, Result};
use teloxide_core::payloads::{EditMessageText, SendDocument, SendMessage};
use teloxide_core::types::{
    ForceReply, InlineKeyboardButton, InlineKeyboardMarkup, InputFile, LinkPreviewOptions, MessageEntity,
    MessageEntityKind, MessageId, ReplyMarkup, ReplyParameters,
};

use super::{Urgency, chat};

/// Longest text, in Unicode code points (tdlib `MessageContent.cpp`).
pub const TEXT_LIMIT: usize = 4096;
/// Longest caption of a document, in code points.
pub const CAPTION_LIMIT: usize = 1024;
/// Longest data of a button, in bytes.
pub const CALLBACK_DATA_LIMIT: usize = 64;
/// Telegram drops further entities without a word, so more are refused here.
pub const ENTITY_LIMIT: usize = 100;
/// Most buttons under one message.
const BUTTON_LIMIT: usize = 100;

/// Kind of formatting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityKind {
    /// Bold.
    Bold,
    /// Italic.
    Italic,
    /// Fixed width, inline.
    Code,
    /// Fixed width block, with a language for colours.
    Pre(Option<String>),
    /// Quotation.
    Blockquote,
    /// Quotation that is folded at first.
    ExpandableBlockquote,
}

/// A formatted part of a text, in UTF-16 units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Kind.
    pub kind: EntityKind,
    /// Start.
    pub offset: usize,
    /// Length.
    pub length: usize,
}

/// A button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    /// What it says.
    pub label: String,
    /// What a press sends, at most [`CALLBACK_DATA_LIMIT`] bytes.
    pub data: String,
}

/// A file that is sent before the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name.
    pub filename: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Words below it.
    pub caption: String,
}

/// A finished message: what it says was computed elsewhere, nothing in it is markup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// Text, at most [`TEXT_LIMIT`] characters.
    pub text: String,
    /// Its formatting.
    pub entities: Vec<Entity>,
    /// Buttons by row.
    pub buttons: Vec<Vec<Button>>,
    /// Document that goes before it.
    pub document: Option<Document>,
    /// Without a sound.
    pub silent: bool,
    /// Message of the same chat that it answers; if that is gone it is sent all the same.
    pub reply_to: Option<i64>,
    /// The person's client opens a reply to it. Not together with buttons.
    pub force_reply: bool,
    /// How much it matters when not all can go at once.
    pub urgency: Urgency,
}

impl Card {
    /// A card of words alone.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// Refuses what the Bot API would refuse, cut or drop.
pub(super) fn check(card: &Card) -> Result<()> {
    let length = card.text.chars().count();
    if card.text.trim().is_empty() {
        return Err(too_long("The card has no text."));
    }
    if length > TEXT_LIMIT {
        return Err(too_long(format!("The card has {length} characters; Telegram takes {TEXT_LIMIT}.")));
    }
    if card.document.as_ref().is_some_and(|d| d.caption.chars().count() > CAPTION_LIMIT) {
        return Err(too_long(format!("The document's caption has more than {CAPTION_LIMIT} characters.")));
    }
    if card.document.as_ref().is_some_and(|d| d.bytes.is_empty() || d.filename.is_empty()) {
        return Err(too_long("The document is empty or has no name."));
    }
    check_entities(card)?;
    check_buttons(card)
}

fn too_long(message: impl Into<String>) -> Problem {
    Problem::new("telegram.too_long", message, "Split the message, or send the rest as a document.").never()
}

fn check_entities(card: &Card) -> Result<()> {
    let bad = |why: String| {
        Problem::new("telegram.bad_entity", why, "Report it: formatting is computed by Countersign itself.").never()
    };
    if card.entities.len() > ENTITY_LIMIT {
        return Err(bad(format!(
            "The card has {} formatted parts; Telegram keeps {ENTITY_LIMIT}.",
            card.entities.len()
        )));
    }
    let mut starts: Vec<usize> = Vec::with_capacity(card.text.len() + 1);
    let mut at = 0;
    for c in card.text.chars() {
        starts.push(at);
        at += c.len_utf16();
    }
    starts.push(at);
    for entity in &card.entities {
        let end = entity.offset.checked_add(entity.length);
        let whole = |edge: usize| starts.binary_search(&edge).is_ok();
        if entity.length == 0 || !whole(entity.offset) || !end.is_some_and(whole) {
            return Err(bad(format!("A formatted part ({}+{}) is not within the text.", entity.offset, entity.length)));
        }
    }
    Ok(())
}

fn check_buttons(card: &Card) -> Result<()> {
    let fits = |b: &Button| !b.label.trim().is_empty() && !b.data.is_empty() && b.data.len() <= CALLBACK_DATA_LIMIT;
    if card.buttons.iter().flatten().all(fits) && card.buttons.iter().flatten().count() <= BUTTON_LIMIT {
        return Ok(());
    }
    let message = format!(
        "A button has no label, or no data or more than {CALLBACK_DATA_LIMIT} bytes of it, or there are too many."
    );
    Err(Problem::new("telegram.bad_button", message, "Report it: buttons are made by Countersign itself.").never())
}

pub(super) fn message(chat_id: i64, card: &Card, reply_to: Option<i64>) -> Result<SendMessage> {
    let mut payload = SendMessage::new(chat(chat_id), card.text.clone());
    payload.entities = entities(card);
    payload.link_preview_options = Some(no_preview());
    payload.disable_notification = Some(card.silent);
    payload.reply_parameters = reply(reply_to)?;
    payload.reply_markup = keyboard(card).map(ReplyMarkup::InlineKeyboard);
    if card.force_reply && payload.reply_markup.is_none() {
        payload.reply_markup = Some(ReplyMarkup::ForceReply(ForceReply::new()));
    }
    Ok(payload)
}

pub(super) fn document(chat_id: i64, card: &Card, document: &Document, reply_to: Option<i64>) -> Result<SendDocument> {
    let file = InputFile::memory(document.bytes.clone()).file_name(document.filename.clone());
    let mut payload = SendDocument::new(chat(chat_id), file);
    payload.caption = Some(document.caption.clone()).filter(|c| !c.is_empty());
    payload.disable_content_type_detection = Some(true);
    payload.disable_notification = Some(card.silent);
    payload.reply_parameters = reply(reply_to)?;
    Ok(payload)
}

pub(super) fn edit(chat_id: i64, message_id: i64, card: &Card) -> Result<EditMessageText> {
    let mut payload = EditMessageText::new(chat(chat_id), id(message_id)?, card.text.clone());
    payload.entities = entities(card);
    payload.link_preview_options = Some(no_preview());
    payload.reply_markup = keyboard(card);
    Ok(payload)
}

fn id(message_id: i64) -> Result<MessageId> {
    let id = i32::try_from(message_id).map(MessageId);
    id.map_err(|_| super::problem::message_gone().with(format!("{message_id} is not a message's number")))
}

fn reply(reply_to: Option<i64>) -> Result<Option<ReplyParameters>> {
    reply_to.map(|to| Ok(ReplyParameters::new(id(to)?).allow_sending_without_reply())).transpose()
}

/// A preview would fetch addresses that untrusted text names.
fn no_preview() -> LinkPreviewOptions {
    LinkPreviewOptions {
        is_disabled: true,
        url: None,
        prefer_small_media: false,
        prefer_large_media: false,
        show_above_text: false,
    }
}

fn entities(card: &Card) -> Option<Vec<MessageEntity>> {
    let kind = |kind: &EntityKind| match kind {
        EntityKind::Bold => MessageEntityKind::Bold,
        EntityKind::Italic => MessageEntityKind::Italic,
        EntityKind::Code => MessageEntityKind::Code,
        EntityKind::Pre(language) => MessageEntityKind::Pre { language: language.clone() },
        EntityKind::Blockquote => MessageEntityKind::Blockquote,
        EntityKind::ExpandableBlockquote => MessageEntityKind::ExpandableBlockquote,
    };
    let entity = |e: &Entity| MessageEntity { kind: kind(&e.kind), offset: e.offset, length: e.length };
    // An empty list is sent too: it says that the text is plain, whatever it looks like.
    Some(card.entities.iter().map(entity).collect())
}

fn keyboard(card: &Card) -> Option<InlineKeyboardMarkup> {
    let row = |row: &Vec<Button>| -> Vec<InlineKeyboardButton> {
        row.iter().map(|b| InlineKeyboardButton::callback(b.label.clone(), b.data.clone())).collect()
    };
    let rows: Vec<_> = card.buttons.iter().filter(|r| !r.is_empty()).map(row).collect();
    (!rows.is_empty()).then(|| InlineKeyboardMarkup::new(rows))
}
