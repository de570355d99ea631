//! Text with entities. No parse mode anywhere: characters can never become markup.

use serde::{Deserialize, Serialize};

/// Kind of an entity, as the Bot API names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// Bold.
    Bold,
    /// Monospace in a line.
    Code,
    /// Monospace block.
    Pre,
    /// Quotation.
    Blockquote,
}

/// One stretch of a text, in UTF-16 code units, as Telegram counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Kind.
    pub kind: EntityKind,
    /// Start.
    pub offset_utf16: usize,
    /// Length.
    pub length_utf16: usize,
}

/// A message: text and its entities, at most 4096 UTF-16 code units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Text.
    pub text: String,
    /// Entities, in order, never overlapping.
    pub entities: Vec<Entity>,
}

/// Telegram's limit on a message. It counts code points; UTF-16 units are never fewer.
pub(crate) const LIMIT: usize = 4096;

impl Text {
    pub(crate) fn len(&self) -> usize {
        utf16(&self.text)
    }

    pub(crate) fn push(&mut self, s: &str) -> &mut Self {
        self.text.push_str(s);
        self
    }

    pub(crate) fn styled(&mut self, kind: EntityKind, s: &str) -> &mut Self {
        if !s.is_empty() {
            self.entities.push(Entity { kind, offset_utf16: self.len(), length_utf16: utf16(s) });
            self.text.push_str(s);
        }
        self
    }

    pub(crate) fn line(&mut self, s: &str) -> &mut Self {
        self.push(s).push("\n")
    }

    /// Appends another text with its entities.
    pub(crate) fn append(&mut self, other: &Text) -> &mut Self {
        let at = self.len();
        self.entities.extend(other.entities.iter().map(|e| Entity { offset_utf16: e.offset_utf16 + at, ..*e }));
        self.text.push_str(&other.text);
        self
    }

    /// Without white space at the end, which Telegram would cut (and entities with it).
    pub(crate) fn trimmed(mut self) -> Self {
        self.text.truncate(self.text.trim_end().len());
        let end = self.len();
        self.entities.retain_mut(|e| {
            e.length_utf16 = e.length_utf16.min(end.saturating_sub(e.offset_utf16));
            e.length_utf16 > 0
        });
        self
    }
}

pub(crate) fn utf16(s: &str) -> usize {
    // One unit for each first byte of a character, a second one where it needs a surrogate pair.
    s.as_bytes().iter().map(|b| usize::from(b & 0xc0 != 0x80) + usize::from(*b >= 0xf0)).sum()
}
