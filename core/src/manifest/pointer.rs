//! Paths into a value: JSON pointers with list items by name (`containers/name=app/image`).

use serde_json::Value;

use super::text::nearest;
use crate::error::{Problem, Result};

/// One step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list.
    Index(usize),
}

impl From<&str> for Step {
    fn from(k: &str) -> Self {
        Self::Key(k.to_owned())
    }
}

/// The part of `v` at `steps`.
pub(super) fn get<'v>(v: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(v, |v, s| match s {
        Step::Key(k) => v.as_object()?.get(k),
        Step::Index(i) => v.as_array()?.get(*i),
    })
}

/// The same, to change it.
pub(super) fn get_mut<'v>(v: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    steps.iter().try_fold(v, |v, s| match s {
        Step::Key(k) => v.as_object_mut()?.get_mut(k),
        Step::Index(i) => v.as_array_mut()?.get_mut(*i),
    })
}

/// One pointer segment, escaped.
pub(super) fn escape(s: &str) -> String {
    s.replace('~', "~0").replace('/', "~1")
}

fn unescape(s: &str) -> String {
    s.replace("~1", "/").replace("~0", "~")
}

/// The name of a list item, where it has one.
pub(super) fn item_name(item: &Value) -> Option<&str> {
    item.as_object()?.get("name")?.as_str()
}

/// Names of a list's items, if each has one and no two are the same.
pub(super) fn unique_names(list: &[Value]) -> Option<Vec<&str>> {
    let names = list.iter().map(item_name).collect::<Option<Vec<_>>>()?;
    let mut seen = std::collections::HashSet::with_capacity(names.len());
    names.iter().all(|n| seen.insert(*n)).then_some(names)
}

/// The pointer that leads along `steps` through `v`, with items by name where they have one.
pub(super) fn display(v: &Value, steps: &[Step]) -> String {
    let mut out = String::new();
    let mut at = Some(v);
    for s in steps {
        out.push('/');
        match s {
            Step::Key(k) => {
                out.push_str(&escape(k));
                at = at.and_then(|v| v.get(k));
            }
            Step::Index(i) => {
                let list = at.and_then(Value::as_array);
                match list.and_then(|l| unique_names(l)).and_then(|n| n.get(*i).copied().map(str::to_owned)) {
                    Some(n) => {
                        out.push_str("name=");
                        out.push_str(&escape(&n));
                    }
                    None => out.push_str(&i.to_string()),
                }
                at = list.and_then(|l| l.get(*i));
            }
        }
    }
    out
}

/// Where a pointer leads: the part that exists, and the segments that do not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Steps to the deepest part that exists.
    pub found: Vec<Step>,
    /// Segments below it, unescaped; empty if the whole pointer exists.
    pub missing: Vec<String>,
}

fn not_found(pointer: &str, why: &str) -> Problem {
    Problem::new("manifest.path_not_found", format!("{pointer} does not exist: {why}."), "Correct the pointer.")
}

/// Resolves a pointer against a value.
pub(super) fn resolve(v: &Value, pointer: &str) -> Result<Resolved> {
    if !pointer.starts_with('/') || pointer.len() > 2048 {
        return Err(Problem::new(
            "manifest.bad_pointer",
            "A pointer starts with / and has at most 2048 bytes.",
            "Write it like /spec/template/spec/containers/name=app/image.",
        ));
    }
    let mut found = Vec::new();
    let mut at = v;
    let mut segments = pointer.split('/').skip(1).map(unescape);
    while let Some(seg) = segments.next() {
        let step = match at {
            Value::Object(m) => m.get(&seg).map(|next| (Step::Key(seg.clone()), next)),
            Value::Array(list) => item(list, &seg, pointer)?,
            Value::Null => None,
            Value::String(s) if s.contains('\n') => {
                return Err(Problem::new(
                    "manifest.inner_document",
                    format!("{pointer} leads into text that is a document of its own."),
                    "Let a person edit the inner document, or move it into a file that a generator reads.",
                ));
            }
            _ => return Err(not_found(pointer, "it leads through a single value")),
        };
        match step {
            Some((step, next)) => {
                found.push(step);
                at = next;
            }
            None => {
                let missing = std::iter::once(seg).chain(segments).collect();
                return Ok(Resolved { found, missing });
            }
        }
    }
    Ok(Resolved { found, missing: Vec::new() })
}

fn item<'v>(list: &'v [Value], seg: &str, pointer: &str) -> Result<Option<(Step, &'v Value)>> {
    if seg == "-" {
        return Ok(None);
    }
    let index = if let Some((field, wanted)) = seg.split_once('=') {
        let is = |v: &&Value| match v.get(field) {
            Some(Value::String(s)) => s == wanted,
            Some(Value::Number(n)) => n.to_string() == wanted,
            _ => false,
        };
        let hits: Vec<usize> = list.iter().enumerate().filter(|(_, v)| is(v)).map(|(i, _)| i).collect();
        match hits.as_slice() {
            [one] => *one,
            [] => {
                let names = nearest(wanted, list.iter().filter_map(|v| v.get(field)?.as_str()));
                return Err(not_found(pointer, &format!("no item has {field} {wanted}")).with_all(names));
            }
            _ => {
                return Err(Problem::new(
                    "manifest.ambiguous_item",
                    format!("{} items have {field} {wanted}.", hits.len()),
                    "Name the item by its index.",
                ));
            }
        }
    } else {
        seg.parse().map_err(|_| {
            Problem::new(
                "manifest.bad_pointer",
                format!("{pointer}: an item of a list is named by its index or by name=…, not by \"{seg}\"."),
                "Write it like /spec/template/spec/containers/name=app/image.",
            )
        })?
    };
    let v = list.get(index).ok_or_else(|| not_found(pointer, &format!("the list has {} items", list.len())))?;
    Ok(Some((Step::Index(index), v)))
}
