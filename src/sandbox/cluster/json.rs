//! Reading and writing paths of JSON values, and the two patch formats that need no schema
//! (RFC 7386 merge patch, RFC 6902 JSON patch).

use serde_json::{Map, Value};

/// The value at `path`; a number selects a list item.
pub fn get<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |at, key| match at {
        Value::Object(map) => map.get(*key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The text at `path`, or the empty string.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    get(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The number at `path`, or `default`.
pub fn number(value: &Value, path: &[&str], default: i64) -> i64 {
    get(value, path).and_then(Value::as_i64).unwrap_or(default)
}

/// Whether `path` holds `true`.
pub fn flag(value: &Value, path: &[&str]) -> bool {
    get(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at `path`, or the empty one.
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    get(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Writes `path`, making the objects on the way; a non-object on the way is replaced.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    let mut at = value;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry((*key).to_owned()).or_insert(Value::Null);
    }
    *at = new;
}

/// Takes away what is at `path`; objects left empty stay.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut at = value;
    for key in parents {
        at = at.get_mut(*key)?;
    }
    at.as_object_mut()?.shift_remove(*last)
}

/// RFC 7386.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, new) in patch {
        if new.is_null() {
            map.shift_remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), new);
        }
    }
}

/// RFC 6902. The error says which operation could not be done.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(steps) = patch else {
        return Err("a JSON patch is a list of operations".to_owned());
    };
    for step in steps {
        json_patch_step(target, step)?;
    }
    Ok(())
}

fn json_patch_step(target: &mut Value, step: &Value) -> Result<(), String> {
    let path = text(step, &["path"]).to_owned();
    let missing = || format!("the server rejected our request: path {path:?} does not exist");
    match text(step, &["op"]) {
        "test" => {
            let want = step.get("value").unwrap_or(&Value::Null);
            let found = target.pointer(&path).unwrap_or(&Value::Null);
            (found == want).then_some(()).ok_or_else(|| format!("testing path {path} value failed: test failed"))
        }
        "add" => pointer_add(target, &path, step.get("value").cloned().unwrap_or(Value::Null)).ok_or_else(missing),
        "replace" => {
            let slot = target.pointer_mut(&path).ok_or_else(missing)?;
            *slot = step.get("value").cloned().unwrap_or(Value::Null);
            Ok(())
        }
        "remove" => pointer_remove(target, &path).map(|_| ()).ok_or_else(missing),
        "move" => {
            let moved = pointer_remove(target, text(step, &["from"])).ok_or_else(missing)?;
            pointer_add(target, &path, moved).ok_or_else(missing)
        }
        "copy" => {
            let copied = target.pointer(text(step, &["from"])).cloned().ok_or_else(missing)?;
            pointer_add(target, &path, copied).ok_or_else(missing)
        }
        other => Err(format!("unknown operation {other:?}")),
    }
}

fn split_pointer(path: &str) -> Option<(&str, String)> {
    let at = path.rfind('/')?;
    let (parent, key) = path.split_at(at);
    Some((parent, key.trim_start_matches('/').replace("~1", "/").replace("~0", "~")))
}

fn pointer_add(target: &mut Value, path: &str, new: Value) -> Option<()> {
    let Some((parent, key)) = split_pointer(path) else {
        *target = new;
        return Some(());
    };
    match target.pointer_mut(parent)? {
        Value::Object(map) => {
            map.insert(key, new);
            Some(())
        }
        Value::Array(items) if key == "-" => {
            items.push(new);
            Some(())
        }
        Value::Array(items) => {
            let index = key.parse::<usize>().ok().filter(|index| *index <= items.len())?;
            items.insert(index, new);
            Some(())
        }
        _ => None,
    }
}

fn pointer_remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = split_pointer(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(map) => map.shift_remove(&key),
        Value::Array(items) => {
            let index = key.parse::<usize>().ok().filter(|index| *index < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}
