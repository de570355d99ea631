//! Merging that knows the schema: strategic merge patches and the three-way merge behind apply.

use serde_json::{Map, Value};

use super::schema::{Node, Schemas};

/// Strategic merge patch: lists with merge keys are merged item by item, `$patch: delete|replace`,
/// `$retainKeys` and `$deleteFromPrimitiveList/x` are honoured, order hints are dropped.
pub fn strategic(schemas: &Schemas, node: &Node, target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = Value::Object(
            patch.iter().filter(|(key, _)| *key != "$patch").map(|(key, value)| (key.clone(), value.clone())).collect(),
        );
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        map.retain(|key, _| kept.iter().any(|name| name.as_str() == Some(key)));
    }
    for (key, new) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (map.get_mut(field), new) {
                items.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // Order hints and directives handled above.
        } else if new.is_null() {
            map.shift_remove(key);
        } else {
            let inner = schemas.child(node, key);
            let slot = map.entry(key.clone()).or_insert(Value::Null);
            match (inner, new) {
                (Node::List { item, keys, .. }, Value::Array(items)) if !keys.is_empty() => {
                    strategic_list(schemas, item, keys, slot, items)
                }
                (Node::List { set: true, .. }, Value::Array(items)) => union(slot, items),
                _ => strategic(schemas, inner, slot, new),
            }
        }
    }
}

fn strategic_list(schemas: &Schemas, item: &Node, keys: &[String], slot: &mut Value, patch: &[Value]) {
    if patch.iter().any(|new| new.get("$patch").and_then(Value::as_str) == Some("replace")) {
        *slot = Value::Array(patch.iter().filter(|new| new.get("$patch").is_none()).cloned().collect());
        return;
    }
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(live) = slot else { return };
    for new in patch {
        let place = live.iter().position(|old| same_item(old, new, keys));
        if new.get("$patch").and_then(Value::as_str) == Some("delete") {
            if let Some(index) = place {
                live.remove(index);
            }
        } else if let Some(old) = place.and_then(|index| live.get_mut(index)) {
            strategic(schemas, item, old, new);
        } else {
            live.push(new.clone());
        }
    }
}

/// Strategic merges compare the first key only; the others tell items apart when both have them.
fn same_item(old: &Value, new: &Value, keys: &[String]) -> bool {
    keys.iter().enumerate().all(|(index, key)| match (old.get(key), new.get(key)) {
        (Some(old), Some(new)) => old == new,
        (None, None) => index > 0,
        _ => index > 0,
    })
}

fn union(slot: &mut Value, items: &[Value]) {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    if let Value::Array(live) = slot {
        for item in items {
            if !live.contains(item) {
                live.push(item.clone());
            }
        }
    }
}

/// Apply: what `last` had and `new` lacks is taken away, what `new` has is written, the rest of `live` stays.
pub fn three_way(schemas: &Schemas, node: &Node, last: &Value, live: &mut Value, new: &Value) {
    let Value::Object(wanted) = new else {
        *live = new.clone();
        return;
    };
    if !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let Value::Object(map) = live else { return };
    if let Value::Object(before) = last {
        for key in before.keys().filter(|key| !wanted.contains_key(*key)) {
            map.shift_remove(key);
        }
    }
    for (key, value) in wanted {
        if value.is_null() {
            continue;
        }
        let inner = schemas.child(node, key);
        let before = last.get(key).unwrap_or(&Value::Null);
        let slot = map.entry(key.clone()).or_insert(Value::Null);
        match (inner, value) {
            (Node::List { item, keys, .. }, Value::Array(items)) if !keys.is_empty() => {
                three_way_list(schemas, item, keys, before, slot, items);
            }
            (Node::List { set: true, .. }, Value::Array(items)) => union(slot, items),
            _ => three_way(schemas, inner, before, slot, value),
        }
    }
}

fn three_way_list(schemas: &Schemas, item: &Node, keys: &[String], last: &Value, slot: &mut Value, wanted: &[Value]) {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(live) = slot else { return };
    let before = last.as_array().map(Vec::as_slice).unwrap_or_default();
    live.retain(|old| {
        let ours = before.iter().any(|known| same_item(known, old, keys));
        !ours || wanted.iter().any(|new| same_item(old, new, keys))
    });
    for new in wanted {
        let known = before.iter().find(|known| same_item(known, new, keys)).unwrap_or(&Value::Null);
        if let Some(old) = live.iter_mut().find(|old| same_item(old, new, keys)) {
            three_way(schemas, item, known, old, new);
        } else {
            live.push(new.clone());
        }
    }
}

/// Whether everything in `wanted` is in `live` with the same value; lists with keys are compared item by item.
pub fn covers(schemas: &Schemas, node: &Node, live: &Value, wanted: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().filter(|(_, value)| !value.is_null()).all(|(key, value)| {
                let inner = schemas.child(node, key);
                match (live.get(key), inner, value) {
                    (None, _, value) => is_empty(value),
                    (Some(Value::Array(found)), Node::List { item, keys, .. }, Value::Array(items))
                        if !keys.is_empty() =>
                    {
                        items.iter().all(|new| {
                            found.iter().any(|old| same_item(old, new, keys) && covers(schemas, item, old, new))
                        })
                    }
                    (Some(found), _, value) => covers(schemas, inner, found, value),
                }
            })
        }
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len()
                && wanted.iter().zip(live).all(|(new, old)| covers(schemas, &Node::Any, old, new))
        }
        (Value::Number(_) | Value::String(_), Value::Number(_) | Value::String(_))
            if matches!(node, Node::Quantity | Node::IntOrText) =>
        {
            plain(wanted) == plain(live)
        }
        (wanted, live) => wanted == live,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
