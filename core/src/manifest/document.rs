//! Objects in a file.

use std::ops::Range;

use serde_json::Value;

use super::parse::{Parsed, parse};
use super::pointer::Step;
use super::text::line_of;
use crate::error::Result;
use crate::model::ObjectKey;

/// Which object of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId {
    /// Index of the YAML document in the file, empty documents counted.
    pub index: usize,
    /// Index below `items`, where the document is a `List`.
    pub item: Option<usize>,
}

/// One object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which one.
    pub id: DocId,
    /// Its key, namespace as written (empty if it has none).
    pub key: ObjectKey,
    /// `apiVersion` as written.
    pub api_version: String,
    /// 1-based line of its first key; of the `List` for its items.
    pub line: usize,
    /// Bytes of the YAML document in the file.
    pub span: Range<usize>,
    /// Its value.
    pub value: Value,
}

/// The objects of a file; documents that are no Kubernetes objects are left out.
///
/// # Errors
/// `manifest.too_large`, `.not_utf8`, `.limits`, `.duplicate_key`, `.template`, `.syntax`, `.parsers_disagree`.
pub fn documents(bytes: &[u8]) -> Result<Vec<Document>> {
    Ok(objects(&parse(bytes)?))
}

/// Key and `apiVersion` of an object; `None` if it is none.
pub(super) fn key_of(v: &Value) -> Option<(ObjectKey, String)> {
    let text = |p: &str| v.pointer(p).and_then(Value::as_str).filter(|s| !s.is_empty());
    let api = text("/apiVersion")?;
    let kind = text("/kind")?;
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"))?;
    let group = api.split_once('/').map_or("", |(g, _)| g);
    Some((ObjectKey::new(group, kind, text("/metadata/namespace").unwrap_or(""), name), api.to_owned()))
}

pub(super) fn objects(parsed: &Parsed) -> Vec<Document> {
    let mut out = Vec::new();
    for (index, value) in parsed.values.iter().enumerate() {
        let (Some(doc), Some(offset)) = (parsed.docs.get(index), parsed.offsets.get(index)) else { continue };
        let span = *offset..offset + doc.source().len();
        let first = value
            .as_object()
            .and_then(|o| o.keys().filter_map(|k| doc.key_span(&noyalib::path::quote_key(k))).map(|s| s.0).min());
        let before: usize = parsed.docs.iter().take(index).map(|d| line_of(d.source(), d.source().len()) - 1).sum();
        let line = before + line_of(doc.source(), first.unwrap_or(0));
        let mut add = |item: Option<usize>, v: &Value| {
            if let Some((key, api_version)) = key_of(v) {
                out.push(Document {
                    id: DocId { index, item },
                    key,
                    api_version,
                    line,
                    span: span.clone(),
                    value: v.clone(),
                });
            }
        };
        match value.get("items").and_then(Value::as_array) {
            Some(items) if is_list(value) => items.iter().enumerate().for_each(|(i, v)| add(Some(i), v)),
            _ => add(None, value),
        }
    }
    out
}

/// `kind: List`, `kind: ConfigMapList`….
pub(super) fn is_list(v: &Value) -> bool {
    v.get("kind").and_then(Value::as_str).is_some_and(|k| k.ends_with("List")) && v.get("apiVersion").is_some()
}

impl DocId {
    /// Steps from the YAML document to the object.
    pub(super) fn steps(self) -> Vec<Step> {
        match self.item {
            Some(i) => vec![Step::from("items"), Step::Index(i)],
            None => Vec::new(),
        }
    }
}
