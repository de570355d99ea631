//! Conditions as Flux keeps them (fluxcd/pkg: runtime/conditions): sorted, with a new time whenever anything in them changes.

use serde_json::{Value, json};

use super::super::json::{list, number, set, text};

/// Sets a condition of `object`.
pub fn put(object: &mut Value, now: &str, kind: &str, status: &str, reason: &str, message: &str) {
    let generation = number(object, &["metadata", "generation"], 1);
    let mut all = list(object, &["status", "conditions"]).to_vec();
    let old = all.iter().find(|condition| text(condition, &["type"]) == kind);
    let same = old.is_some_and(|old| {
        text(old, &["status"]) == status && text(old, &["reason"]) == reason && text(old, &["message"]) == message
    });
    let since = old.filter(|_| same).map_or(now, |old| text(old, &["lastTransitionTime"])).to_owned();
    let new = json!({ "lastTransitionTime": since, "message": message, "observedGeneration": generation, "reason": reason, "status": status, "type": kind });
    all.retain(|condition| text(condition, &["type"]) != kind);
    all.push(new);
    all.sort_by_key(|condition| rank(text(condition, &["type"])));
    set(object, &["status", "conditions"], Value::Array(all));
}

/// Takes a condition away.
pub fn drop(object: &mut Value, kind: &str) {
    let left: Vec<Value> = list(object, &["status", "conditions"])
        .iter()
        .filter(|condition| text(condition, &["type"]) != kind)
        .cloned()
        .collect();
    set(object, &["status", "conditions"], Value::Array(left));
}

fn rank(kind: &str) -> usize {
    const ORDER: [&str; 9] = [
        "Stalled",
        "Reconciling",
        "Ready",
        "FetchFailed",
        "ArtifactInStorage",
        "ArtifactOutdated",
        "Healthy",
        "Released",
        "Remediated",
    ];
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}
