//! Which file declares an object.

use super::document::{DocId, Document, documents};
use super::text::nearest;
use crate::error::{Problem, Result};
use crate::model::ObjectKey;

/// Where an object is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Path of the file.
    pub path: String,
    /// Which object of the file.
    pub id: DocId,
    /// 1-based line.
    pub line: usize,
}

/// Whether a document declares the object, seen that documents without a namespace go to `default_namespace`.
pub(super) fn declares(doc: &ObjectKey, wanted: &ObjectKey, default_namespace: Option<&str>) -> bool {
    doc.group == wanted.group
        && doc.kind == wanted.kind
        && doc.name == wanted.name
        && namespace_fits(doc, wanted, default_namespace)
}

pub(super) fn namespace_fits(doc: &ObjectKey, wanted: &ObjectKey, default_namespace: Option<&str>) -> bool {
    doc.namespace == wanted.namespace
        || (doc.namespace.is_empty()
            && wanted.namespace == default_namespace.filter(|n| !n.is_empty()).unwrap_or("default"))
}

/// Finds the one place that declares an object.
///
/// # Errors
/// `manifest.not_found` with near names, `manifest.ambiguous` with every place; a file that cannot be read and
/// names the object gives its own problem.
pub fn locate(files: &[(&str, &[u8])], key: &ObjectKey, default_namespace: Option<&str>) -> Result<Located> {
    let mut hits: Vec<Located> = Vec::new();
    let mut seen: Vec<Document> = Vec::new();
    for (path, bytes) in files {
        match documents(bytes) {
            Ok(docs) => {
                for d in docs {
                    if declares(&d.key, key, default_namespace) {
                        hits.push(Located { path: (*path).to_owned(), id: d.id, line: d.line });
                    }
                    seen.push(d);
                }
            }
            // A file that may declare it as well must not be passed over.
            Err(p) if mentions(bytes, &key.name) => return Err(p.with(format!("file: {path}"))),
            Err(_) => {}
        }
    }
    one(hits, key, || {
        let same_kind = seen.iter().filter(|d| d.key.kind == key.kind).map(|d| d.key.name.as_str());
        let mut near = nearest(&key.name, same_kind);
        let elsewhere =
            seen.iter().filter(|d| d.key.name == key.name && d.key.kind == key.kind).map(|d| d.key.to_string());
        near.extend(elsewhere.filter(|s| *s != key.to_string()));
        near
    })
}

pub(super) fn mentions(bytes: &[u8], name: &str) -> bool {
    !name.is_empty() && bytes.windows(name.len()).any(|w| w == name.as_bytes())
}

pub(super) fn one(hits: Vec<Located>, key: &ObjectKey, near: impl FnOnce() -> Vec<String>) -> Result<Located> {
    let mut hits = hits;
    match (hits.pop(), hits.is_empty()) {
        (Some(hit), true) => Ok(hit),
        (Some(hit), false) => {
            hits.push(hit);
            Err(Problem::new(
                "manifest.ambiguous",
                format!("{key} is declared {} times.", hits.len()),
                "Leave one declaration and remove the others, then try again.",
            )
            .with_all(hits.iter().map(|h| format!("{} line {}", h.path, h.line))))
        }
        (None, _) => Err(Problem::new(
            "manifest.not_found",
            format!("No file below the owner's path declares {key}."),
            "Check the name; an object that a generator or a chart makes is changed there.",
        )
        .with_all(near())),
    }
}
