//! New files from a given manifest.

use super::document::{Document, documents};
use super::locate::namespace_fits;
use super::path_check::{PathClass, path_check};
use crate::error::{Problem, Result};
use crate::model::{LeafChange, ObjectKey};

/// A new file.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// Its bytes: line breaks as `\n`, one at the end, no byte-order mark.
    pub bytes: Vec<u8>,
    /// The object in it.
    pub document: Document,
    /// The object appears.
    pub changes: Vec<LeafChange>,
}

fn bad(what: impl Into<String>, next: &str) -> Problem {
    Problem::new("manifest.bad_create", what, next)
}

/// Checks a manifest and makes the bytes of its file.
///
/// # Errors
/// `manifest.bad_create` if it is not exactly the one object that was named or must not be written by an agent,
/// `manifest.path_refused` and `.path_privileged` for its path.
pub fn create(path: &str, manifest: &str, key: &ObjectKey, default_namespace: Option<&str>) -> Result<Created> {
    match path_check(path, 0o100_644, &[]) {
        PathClass::Plain => {}
        PathClass::Privileged(why) => {
            return Err(Problem::new(
                "manifest.path_privileged",
                format!("{path} is a privileged path: {why}."),
                "Let a person create it.",
            ));
        }
        PathClass::Refused(p) => return Err(p),
    }
    if ![".yaml", ".yml", ".json"].iter().any(|e| path.ends_with(e)) {
        return Err(bad(format!("{path} is no manifest file."), "Use a path that ends in .yaml, .yml or .json."));
    }
    let mut text = manifest.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let kept = text.trim_end().len();
    text.truncate(kept);
    text.push('\n');
    let mut docs = documents(text.as_bytes())?;
    let doc = match (docs.pop(), docs.is_empty()) {
        (Some(d), true) if d.id.item.is_none() => d,
        _ => {
            return Err(bad(
                "The manifest is not exactly one object.",
                "Give one object with apiVersion, kind and metadata.name; several objects are several edits.",
            ));
        }
    };
    let same = doc.key.group == key.group
        && doc.key.kind == key.kind
        && doc.key.name == key.name
        && namespace_fits(&doc.key, key, default_namespace);
    if !same {
        return Err(bad(format!("The manifest is {}, the target is {key}.", doc.key), "Make the two the same."));
    }
    if doc.key.kind == "Secret"
        && ["data", "stringData"]
            .iter()
            .any(|k| doc.value.get(*k).and_then(|v| v.as_object()).is_some_and(|o| !o.is_empty()))
    {
        return Err(Problem::new(
            "manifest.secret_value",
            "Values of a Secret are never written through an agent.",
            "Use a SealedSecret, an ExternalSecret or SOPS; a person puts the value in.",
        )
        .never());
    }
    if doc.value.get("status").is_some()
        || doc.value.pointer("/metadata/uid").is_some()
        || doc.value.pointer("/metadata/resourceVersion").is_some()
    {
        return Err(bad(
            "The manifest was copied from a live object.",
            "Leave out status, uid, resourceVersion and managedFields.",
        ));
    }
    let changes = vec![LeafChange {
        object: doc.key.clone(),
        pointer: String::new(),
        before: None,
        after: Some(doc.value.clone()),
    }];
    Ok(Created { bytes: text.into_bytes(), document: doc, changes })
}
