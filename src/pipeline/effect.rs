//! What an edit means for the objects: what must differ and nothing else, what the policy matches,
//! and the live fields to wait for. Functions over values.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::manifest::{
    EditContext, Files, PlannedEdit, diff_values, documents, edit, is_kustomization_name,
};
use countersign_core::model::{LeafChange, ObjectKey, Operation, Want};
use countersign_core::policy::{Target, Values, risk};
use serde_json::Value;

use super::plan::Wanted;

/// Most live fields that are waited for.
const MAX_WANTS: usize = 60;

/// Whether a rendered difference is exactly what the operation asks of the object.
pub(super) fn fits(
    before: &[Value],
    w: &Wanted,
    effect: &[LeafChange],
    option: &PlannedEdit,
    restarted_at: &str,
) -> Result<(), String> {
    if effect.is_empty() {
        return Err("has no effect; an outer layer decides".into());
    }
    let others: BTreeSet<String> = effect.iter().filter(|l| l.object != w.key).map(|l| l.object.to_string()).collect();
    if !others.is_empty() {
        return Err(format!("also changes {}", others.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let expected: Vec<(String, Option<Value>)> = match &w.op {
        Operation::Adopt(_) => return exactly(w, effect),
        Operation::Create(_) | Operation::Delete(_) => return Ok(()),
        op => {
            let object =
                before.iter().find(|o| key_of(o).as_ref() == Some(&w.key)).ok_or("the object is not in the build")?;
            let text = serde_json::to_vec_pretty(object).map_err(|e| e.to_string())?;
            let docs = documents(&text).map_err(|p| p.message)?;
            let doc = docs.first().ok_or("the object is not in the build")?;
            match edit("rendered.json", &text, doc.id, op, EditContext { restarted_at }) {
                Ok(e) => e.changes.into_iter().map(|l| (l.pointer, l.after)).collect(),
                Err(_) => option.changes.iter().map(|l| (l.pointer.clone(), l.after.clone())).collect(),
            }
        }
    };
    let mut is: Vec<(String, Option<Value>)> = effect.iter().map(|l| (l.pointer.clone(), l.after.clone())).collect();
    let mut should = expected;
    is.sort_by(|a, b| a.0.cmp(&b.0));
    should.sort_by(|a, b| a.0.cmp(&b.0));
    if is == should {
        return Ok(());
    }
    let words = |v: &[(String, Option<Value>)]| {
        v.iter()
            .map(|(p, a)| format!("{p}={}", a.as_ref().map_or_else(|| "removed".to_owned(), Value::to_string)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Err(format!("sets {} where {} was asked", words(&is), words(&should)))
}

/// Whether what comes out of the build is the live object and nothing else: an adoption changes nothing.
fn exactly(w: &Wanted, effect: &[LeafChange]) -> Result<(), String> {
    let made = w.made.as_ref().map(|m| &m.manifest).ok_or("the live object was not read")?;
    let [LeafChange { before: None, after: Some(built), pointer, .. }] = effect else {
        return Err("is declared already".into());
    };
    if !pointer.is_empty() {
        return Err("is declared already".into());
    }
    let differs = diff_values(&w.key, made, built);
    if differs.is_empty() {
        return Ok(());
    }
    let pointers: Vec<&str> = differs.iter().take(10).map(|l| l.pointer.as_str()).collect();
    Err(format!("would change what is live: {}", pointers.join(", ")))
}

/// Key of a manifest.
pub(super) fn key_of(object: &Value) -> Option<ObjectKey> {
    let part = |p: &str| object.pointer(p).and_then(Value::as_str);
    let api = part("/apiVersion")?;
    let group = api.split_once('/').map_or("", |(g, _)| g);
    Some(ObjectKey::new(group, part("/kind")?, part("/metadata/namespace").unwrap_or(""), part("/metadata/name")?))
}

pub(super) fn object_changes(before: &Files, after: &BTreeMap<String, Option<Vec<u8>>>) -> Vec<risk::ObjectChange> {
    let mut out: BTreeMap<ObjectKey, risk::ObjectChange> = BTreeMap::new();
    for (path, bytes) in after {
        let name = path.rsplit('/').next().unwrap_or_default();
        if is_kustomization_name(name) {
            continue;
        }
        for (side, content) in [(0, before.get(path)), (1, bytes.as_ref())] {
            for d in content.and_then(|b| documents(b).ok()).unwrap_or_default() {
                let entry = out.entry(d.key.clone()).or_insert_with(|| risk::ObjectChange {
                    key: d.key.clone(),
                    before: None,
                    after: None,
                });
                if side == 0 { entry.before = Some(d.value) } else { entry.after = Some(d.value) }
            }
        }
    }
    out.into_values().filter(|o| o.before != o.after).collect()
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    object
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

/// What the policy matches, once for each operation.
pub(super) fn targets(wanted: &[Wanted], fields: &[LeafChange]) -> Vec<Target> {
    wanted
        .iter()
        .map(|w| {
            let before = w.live.as_ref();
            let after = match &w.op {
                Operation::Delete(_) => None,
                Operation::Adopt(_) => w.made.as_ref().map(|m| m.manifest.clone()),
                Operation::Create(c) => {
                    documents(c.manifest.as_bytes()).ok().and_then(|mut d| d.pop()).map(|d| d.value)
                }
                _ => before.map(|live| with_leaves(live, fields, &w.key)),
            };
            Target {
                operation: w.op.name().to_owned(),
                namespace: w.key.namespace.clone(),
                kind: w.key.kind.clone(),
                // Nobody reviewed the labels of what is in no repository: like a new object's, they never loosen.
                labels_before: before.filter(|_| w.made.is_none()).map(labels),
                labels_after: after.as_ref().map(labels),
                values: Some(Values::of(&w.op, before, after.as_ref())),
            }
        })
        .collect()
}

/// Live fields to wait for.
pub(super) fn wants(wanted: &[Wanted], fields: &[LeafChange]) -> Vec<Want> {
    let base = |key: &ObjectKey| Want {
        group: key.group.clone(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        path: String::new(),
        value: None,
        exists: None,
    };
    let mut out = Vec::new();
    for w in wanted {
        match w.written().as_ref() {
            Operation::Delete(_) => out.push(Want { exists: Some(false), ..base(&w.key) }),
            Operation::Create(c) => {
                out.push(base(&w.key));
                let doc = documents(c.manifest.as_bytes()).ok().and_then(|mut d| d.pop());
                let mut leaves = Vec::new();
                if let Some(spec) = doc.as_ref().and_then(|d| d.value.get("spec")) {
                    scalars("/spec", spec, &mut leaves);
                }
                out.extend(leaves.into_iter().take(MAX_WANTS).map(|(path, value)| Want {
                    path,
                    value: Some(value),
                    ..base(&w.key)
                }));
            }
            _ => out.extend(fields.iter().filter(|l| l.object == w.key).take(MAX_WANTS).map(|l| match &l.after {
                Some(v) => Want { path: l.pointer.clone(), value: Some(v.clone()), ..base(&w.key) },
                None => Want { path: l.pointer.clone(), exists: Some(false), ..base(&w.key) },
            })),
        }
    }
    let mut unique: Vec<Want> = Vec::with_capacity(out.len());
    for w in out {
        if !unique.contains(&w) {
            unique.push(w);
        }
    }
    unique
}

fn scalars(at: &str, v: &Value, out: &mut Vec<(String, Value)>) {
    match v {
        Value::Object(map) => {
            for (k, v) in map {
                scalars(&format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), v, out);
            }
        }
        Value::Array(items) => {
            for (i, v) in items.iter().enumerate() {
                let step = v.get("name").and_then(Value::as_str).map_or_else(|| i.to_string(), |n| format!("name={n}"));
                scalars(&format!("{at}/{step}"), v, out);
            }
        }
        Value::Null => {}
        scalar => out.push((at.to_owned(), scalar.clone())),
    }
}

/// A live object as it will be: its changed leaves set.
pub(super) fn with_leaves(live: &Value, fields: &[LeafChange], key: &ObjectKey) -> Value {
    let mut out = live.clone();
    for l in fields.iter().filter(|l| l.object == *key) {
        set_leaf(&mut out, &l.pointer, l.after.clone());
    }
    out
}

fn set_leaf(object: &mut Value, pointer: &str, value: Option<Value>) {
    let steps: Vec<String> = pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    let Some((last, path)) = steps.split_last() else { return };
    let mut at = object;
    for step in path {
        at = match descend(at, step) {
            Some(next) => next,
            None => return,
        };
    }
    match at {
        Value::Object(map) => match value {
            Some(v) => drop(map.insert(last.clone(), v)),
            None => drop(map.remove(last)),
        },
        Value::Array(items) => {
            let place = position(items, last);
            match (place, value) {
                (Some(i), Some(v)) => {
                    if let Some(slot) = items.get_mut(i) {
                        *slot = v;
                    }
                }
                (Some(i), None) => drop(items.remove(i)),
                (None, Some(v)) => items.push(v),
                (None, None) => {}
            }
        }
        _ => {}
    }
}

fn position(items: &[Value], step: &str) -> Option<usize> {
    match step.split_once('=') {
        Some((k, name)) => items.iter().position(|v| v.get(k).and_then(Value::as_str) == Some(name)),
        None => step.parse().ok().filter(|i: &usize| *i < items.len()),
    }
}

fn descend<'v>(at: &'v mut Value, step: &str) -> Option<&'v mut Value> {
    match at {
        Value::Object(map) => Some(map.entry(step.to_owned()).or_insert_with(|| Value::Object(serde_json::Map::new()))),
        Value::Array(items) => match position(items, step) {
            Some(i) => items.get_mut(i),
            None => {
                let (k, name) = step.split_once('=')?;
                items.push(serde_json::json!({ k: name }));
                items.last_mut()
            }
        },
        _ => None,
    }
}
