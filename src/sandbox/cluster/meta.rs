//! What the server does with an object's metadata: identity, generation, names.

use rand::Rng;
use serde_json::{Value, json};

use super::json::{get, number, remove, set};
use super::kinds::Kind;
use super::store::Key;

/// The key of an object.
pub fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
    let namespace = if kind.namespaced { namespace } else { "" };
    (kind.resource(), namespace.to_owned(), name.to_owned())
}

/// Keeps what a write may not touch: identity, and status or all but status, whichever is not being written.
pub fn settle(kind: &Kind, stored: &Value, new: &mut Value, status: bool) {
    if kind.status && status {
        let written = new.get("status").cloned();
        let meta = get(new, &["metadata", "annotations"]).cloned();
        *new = stored.clone();
        match written {
            Some(written) => set(new, &["status"], written),
            None => drop(remove(new, &["status"])),
        }
        // Controllers of the sandbox write an annotation together with a status, as the recordings show.
        if let Some(annotations) = meta {
            set(new, &["metadata", "annotations"], annotations);
        }
    } else if kind.status {
        match stored.get("status") {
            Some(kept) => set(new, &["status"], kept.clone()),
            None => drop(remove(new, &["status"])),
        }
    }
    for field in ["uid", "creationTimestamp", "namespace", "generation", "deletionTimestamp", "resourceVersion"] {
        match get(stored, &["metadata", field]) {
            Some(kept) => set(new, &["metadata", field], kept.clone()),
            None => drop(remove(new, &["metadata", field])),
        }
    }
    remove(new, &["metadata", "managedFields"]);
}

/// Whether objects of a kind count their generations.
pub fn has_generation(kind: &Kind) -> bool {
    kind.status || (!kind.group.is_empty() && !kind.group.starts_with("rbac.") && kind.group != "coordination.k8s.io")
}

/// Kinds whose created status this sandbox keeps (a fixture may bring its own).
pub fn keeps_status_on_create(kind: &Kind) -> bool {
    kind.kind == "CustomResourceDefinition" || kind.kind == "Node"
}

/// With a status subresource the generation follows everything but metadata and status; without, everything but metadata.
pub fn bump_generation(kind: &Kind, stored: &Value, new: &mut Value) {
    if !has_generation(kind) {
        return;
    }
    let body = |object: &Value| -> Vec<(String, Value)> {
        object
            .as_object()
            .map(|map| {
                let mut fields: Vec<_> = map
                    .iter()
                    .filter(|(field, _)| *field != "metadata" && !(kind.status && *field == "status"))
                    .map(|(field, value)| (field.clone(), value.clone()))
                    .collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                fields
            })
            .unwrap_or_default()
    };
    if body(stored) != body(new) {
        let next = number(stored, &["metadata", "generation"], 0) + 1;
        set(new, &["metadata", "generation"], json!(next));
    }
}

/// A random uid in the usual form.
pub fn uid() -> String {
    let bits: u128 = rand::rng().random();
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// A random name suffix from the alphabet that Kubernetes uses.
pub fn suffix(length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..length)
        .filter_map(|_| ALPHABET.get(rng.random_range(0..ALPHABET.len())))
        .map(|byte| char::from(*byte))
        .collect()
}
