//! The Deployment arithmetic: surge, scaling, status and conditions, as the deployment controller does it
//! (kubernetes: pkg/controller/deployment, sync.go, rolling.go, progress.go).

use serde_json::{Value, json};

use super::json::{get, list, number, set, text};

/// `maxSurge` and `maxUnavailable` as counts.
pub fn limits(deployment: &Value) -> (i64, i64) {
    let desired = number(deployment, &["spec", "replicas"], 1);
    if text(deployment, &["spec", "strategy", "type"]) == "Recreate" {
        return (0, desired);
    }
    let of = |field: &str, up: bool| {
        let value = get(deployment, &["spec", "strategy", "rollingUpdate", field]).unwrap_or(&Value::Null);
        match value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<i64>().ok()) {
            Some(percent) if up => (desired * percent + 99) / 100,
            Some(percent) => desired * percent / 100,
            None => value.as_i64().unwrap_or(0),
        }
    };
    let (surge, unavailable) = (of("maxSurge", true), of("maxUnavailable", false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A short hash of a pod template, in the alphabet that Kubernetes uses for it.
pub fn template_hash(deployment: &Value) -> String {
    use sha2::{Digest, Sha256};
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let template = get(deployment, &["spec", "template"]).unwrap_or(&Value::Null);
    let digest = Sha256::digest(sorted(template).to_string());
    digest
        .iter()
        .take(10)
        .filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

/// The same value with the keys of its objects in order.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().map(|(key, inner)| (key.clone(), sorted(inner))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn wanted(set: &Value) -> i64 {
    number(set, &["spec", "replicas"], 0)
}

fn available(set: &Value) -> i64 {
    number(set, &["status", "availableReplicas"], 0)
}

/// The next scaling step: name of a ReplicaSet and its new count.
pub fn next_scale(deployment: &Value, new: &Value, old: &[&Value]) -> Option<(String, i64)> {
    let desired = number(deployment, &["spec", "replicas"], 1);
    let name = |set: &Value| text(set, &["metadata", "name"]).to_owned();
    let (surge, max_unavailable) = limits(deployment);
    let total: i64 = wanted(new) + old.iter().map(|set| wanted(set)).sum::<i64>();
    if text(deployment, &["spec", "strategy", "type"]) == "Recreate" {
        if let Some(set) = old.iter().find(|set| wanted(set) > 0) {
            return Some((name(set), 0));
        }
        let gone = old.iter().all(|set| number(set, &["status", "replicas"], 0) == 0);
        return (gone && wanted(new) != desired).then(|| (name(new), desired));
    }
    if wanted(new) > desired {
        return Some((name(new), desired));
    }
    let room = desired + surge - total;
    if wanted(new) < desired && room > 0 {
        return Some((name(new), wanted(new) + room.min(desired - wanted(new))));
    }
    let least = desired - max_unavailable;
    let can_go = total - least - (wanted(new) - available(new)).max(0);
    if can_go <= 0 {
        return None;
    }
    // Replicas that never got ready go first, they serve nobody.
    if let Some(set) = old.iter().find(|set| wanted(set) > available(set)) {
        let unhealthy = wanted(set) - available(set);
        return Some((name(set), wanted(set) - unhealthy.min(can_go)));
    }
    let spare = available(new) + old.iter().map(|set| available(set)).sum::<i64>() - least;
    let set = old.iter().find(|set| wanted(set) > 0)?;
    (spare > 0).then(|| (name(set), (wanted(set) - spare).max(0)))
}

/// Sets a condition as the controller does: the same status and reason change nothing, a changed one goes to the end.
pub fn set_condition(status: &mut Value, kind: &str, value: bool, reason: &str, message: &str, now: &str, kick: bool) {
    let old = list(status, &["conditions"]).iter().find(|condition| text(condition, &["type"]) == kind).cloned();
    let word = if value { "True" } else { "False" };
    let same_status = old.as_ref().is_some_and(|old| text(old, &["status"]) == word);
    if same_status && !kick && old.as_ref().is_some_and(|old| text(old, &["reason"]) == reason) {
        return;
    }
    let since = old.as_ref().filter(|_| same_status).map_or(now, |old| text(old, &["lastTransitionTime"]));
    let new = json!({ "type": kind, "status": word, "lastUpdateTime": now, "lastTransitionTime": since, "reason": reason, "message": message });
    let mut conditions: Vec<Value> =
        list(status, &["conditions"]).iter().filter(|condition| text(condition, &["type"]) != kind).cloned().collect();
    conditions.push(new);
    set(status, &["conditions"], Value::Array(conditions));
}

/// The counts of a Deployment's status; zeros are left out, as `omitempty` does.
pub fn counts(deployment: &Value, new: Option<&Value>, all: &[&Value], terminating: i64) -> Value {
    let sum = |field: &str| all.iter().map(|set| number(set, &["status", field], 0)).sum::<i64>();
    let total: i64 = all.iter().map(|set| wanted(set)).sum();
    let ready = sum("readyReplicas");
    let up = sum("availableReplicas");
    let mut status = json!({ "observedGeneration": number(deployment, &["metadata", "generation"], 1) });
    let updated = new.map_or(0, |new| number(new, &["status", "replicas"], 0));
    for (field, count) in [
        ("replicas", sum("replicas")),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", up),
        ("unavailableReplicas", (total - up).max(0)),
    ] {
        if count > 0 {
            set(&mut status, &[field], json!(count));
        }
    }
    set(&mut status, &["terminatingReplicas"], json!(terminating));
    status
}

/// Whether the rollout is over.
pub fn complete(deployment: &Value, status: &Value) -> bool {
    let desired = number(deployment, &["spec", "replicas"], 1);
    let is = |field: &str| number(status, &[field], 0) == desired;
    is("updatedReplicas")
        && is("replicas")
        && is("availableReplicas")
        && number(status, &["observedGeneration"], 0) >= number(deployment, &["metadata", "generation"], 0)
}

/// Whether the new status is progress over the old one.
pub fn progressed(old: &Value, new: &Value) -> bool {
    let of = |status: &Value, field: &str| number(status, &[field], 0);
    let old_sets = |status: &Value| of(status, "replicas") - of(status, "updatedReplicas");
    of(new, "updatedReplicas") > of(old, "updatedReplicas")
        || old_sets(new) < old_sets(old)
        || of(new, "readyReplicas") > of(old, "readyReplicas")
        || of(new, "availableReplicas") > of(old, "availableReplicas")
}
