//! Differences between values, leaf by leaf, and between texts.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::document::key_of;
use super::pointer::{escape, unique_names};
use crate::model::{LeafChange, ObjectKey};

/// Every leaf that differs between two values of one object. Items of lists are matched by `name`
/// where all have one and their order is the same, else by index.
pub fn diff_values(object: &ObjectKey, before: &Value, after: &Value) -> Vec<LeafChange> {
    let mut out = Vec::new();
    let mut walk = Walk { object, out: &mut out };
    walk.both(&mut String::new(), before, after);
    out
}

/// Every leaf that differs between two sets of objects, matched by key. An object that is new or gone is
/// one change with an empty pointer; values without a kind and a name are compared by position.
pub fn diff_objects(before: &[Value], after: &[Value]) -> Vec<LeafChange> {
    let (b, a) = (by_key(before), by_key(after));
    let mut keys: Vec<&(ObjectKey, usize)> = b.keys().chain(a.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut out = Vec::new();
    for k in keys {
        match (b.get(k), a.get(k)) {
            (Some(x), Some(y)) => out.extend(diff_values(&k.0, x, y)),
            (x, y) => out.push(LeafChange {
                object: k.0.clone(),
                pointer: String::new(),
                before: x.map(|v| (*v).clone()),
                after: y.map(|v| (*v).clone()),
            }),
        }
    }
    out
}

/// Objects by key; the number tells apart those that share one (which no engine accepts).
fn by_key(values: &[Value]) -> BTreeMap<(ObjectKey, usize), &Value> {
    let mut out = BTreeMap::new();
    let mut seen: HashMap<ObjectKey, usize> = HashMap::new();
    for v in values.iter().filter(|v| !v.is_null()) {
        let key = key_of(v).map_or_else(|| ObjectKey::new("", "", "", ""), |(k, _)| k);
        let n: &mut usize = seen.entry(key.clone()).or_default();
        out.insert((key, *n), v);
        *n += 1;
    }
    out
}

fn positions<'n>(names: &[&'n str]) -> HashMap<&'n str, usize> {
    names.iter().enumerate().map(|(i, n)| (*n, i)).collect()
}

struct Walk<'w> {
    object: &'w ObjectKey,
    out: &'w mut Vec<LeafChange>,
}

impl Walk<'_> {
    fn leaf(&mut self, at: &str, before: Option<&Value>, after: Option<&Value>) {
        self.out.push(LeafChange {
            object: self.object.clone(),
            pointer: at.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        });
    }

    fn below(&mut self, at: &mut String, segment: &str, f: impl FnOnce(&mut Self, &mut String)) {
        let len = at.len();
        at.push('/');
        at.push_str(segment);
        f(self, at);
        at.truncate(len);
    }

    fn both(&mut self, at: &mut String, before: &Value, after: &Value) {
        match (before, after) {
            (a, b) if a == b => {}
            (Value::Object(x), Value::Object(y)) => {
                for (k, v) in x {
                    self.below(at, &escape(k), |s, at| match y.get(k) {
                        Some(w) => s.both(at, v, w),
                        None => s.one(at, v, false),
                    });
                }
                for (k, w) in y.iter().filter(|(k, _)| !x.contains_key(*k)) {
                    self.below(at, &escape(k), |s, at| s.one(at, w, true));
                }
            }
            (Value::Array(x), Value::Array(y)) => self.lists(at, x, y),
            _ => self.leaf(at, Some(before), Some(after)),
        }
    }

    fn lists(&mut self, at: &mut String, x: &[Value], y: &[Value]) {
        if let (Some(nx), Some(ny)) = (unique_names(x), unique_names(y)) {
            let (ix, iy) = (positions(&nx), positions(&ny));
            let common = nx.iter().filter(|n| iy.contains_key(*n));
            if !common.eq(ny.iter().filter(|n| ix.contains_key(*n))) {
                self.leaf(at, Some(&Value::Array(x.to_vec())), Some(&Value::Array(y.to_vec())));
                return;
            }
            for n in nx.iter().chain(ny.iter().filter(|n| !ix.contains_key(*n))) {
                let (v, w) = (ix.get(n).and_then(|i| x.get(*i)), iy.get(n).and_then(|i| y.get(*i)));
                if v != w {
                    self.below(at, &format!("name={}", escape(n)), |s, at| s.maybe(at, v, w));
                }
            }
            return;
        }
        for i in 0..x.len().max(y.len()) {
            self.below(at, &i.to_string(), |s, at| s.maybe(at, x.get(i), y.get(i)));
        }
    }

    fn maybe(&mut self, at: &mut String, v: Option<&Value>, w: Option<&Value>) {
        match (v, w) {
            (Some(v), Some(w)) => self.both(at, v, w),
            (Some(v), None) => self.one(at, v, false),
            (None, Some(w)) => self.one(at, w, true),
            (None, None) => {}
        }
    }

    /// A part that is only on one side, leaf by leaf; an item's name is told by its pointer.
    fn one(&mut self, at: &mut String, v: &Value, added: bool) {
        match v {
            Value::Object(o) if !o.is_empty() => {
                let named = at.rsplit('/').next().is_some_and(|s| s.starts_with("name=")) && o.len() > 1;
                for (k, v) in o.iter().filter(|(k, _)| !(named && *k == "name")) {
                    self.below(at, &escape(k), |s, at| s.one(at, v, added));
                }
            }
            Value::Array(a) if !a.is_empty() => {
                let names = unique_names(a);
                for (i, v) in a.iter().enumerate() {
                    let seg = names
                        .as_ref()
                        .and_then(|n| n.get(i))
                        .map_or_else(|| i.to_string(), |n| format!("name={}", escape(n)));
                    self.below(at, &seg, |s, at| s.one(at, v, added));
                }
            }
            v if added => self.leaf(at, None, Some(v)),
            v => self.leaf(at, Some(v), None),
        }
    }
}

/// A unified diff of one file, as Git prints it; `None` = the file is absent on that side.
pub fn unified_diff(path: &str, before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    let read = |b: Option<&[u8]>| b.map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default();
    let (old, new) = (read(before), read(after));
    if before == after {
        return String::new();
    }
    let a = if before.is_some() { format!("a/{path}") } else { "/dev/null".to_owned() };
    let b = if after.is_some() { format!("b/{path}") } else { "/dev/null".to_owned() };
    similar::TextDiff::from_lines(&old, &new).unified_diff().context_radius(3).header(&a, &b).to_string()
}
