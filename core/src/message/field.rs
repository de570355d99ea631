//! One changed field in words.

use serde_json::Value;

use super::escape::{escape_name, escape_visible, shorten};
use crate::model::LeafChange;

/// Where in the object, and what is it called there. Only shapes with exactly one reading are
/// shortened; everything else keeps its whole pointer.
pub(crate) struct Label {
    /// `container app`.
    pub context: Option<String>,
    /// `image`, `env DB_URL`, or the pointer.
    pub label: String,
}

const WORKLOADS: [&str; 4] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"];

pub(crate) fn label(l: &LeafChange) -> Label {
    let whole = || Label {
        context: None,
        label: if l.pointer.is_empty() { "whole object".to_owned() } else { escape_name(&l.pointer) },
    };
    if l.object.group != "apps" || !WORKLOADS.contains(&l.object.kind.as_str()) {
        return whole();
    }
    if l.pointer == "/spec/replicas" {
        return Label { context: None, label: "replicas".to_owned() };
    }
    let Some(rest) = l.pointer.strip_prefix("/spec/template/spec/") else { return whole() };
    let parts: Vec<&str> = rest.split('/').collect();
    let [list, item, field @ ..] = parts.as_slice() else { return whole() };
    let (Some(name), Some(what)) = (item.strip_prefix("name="), container_word(list)) else { return whole() };
    let label = match field {
        ["image"] => "image".to_owned(),
        ["env", var, "value"] => match var.strip_prefix("name=") {
            Some(var) => format!("env {}", escape_name(var)),
            None => return whole(),
        },
        ["resources", which @ ("requests" | "limits"), resource] => format!("{which} {}", escape_name(resource)),
        _ => return whole(),
    };
    Label { context: Some(format!("{what} {}", escape_name(name))), label }
}

fn container_word(list: &str) -> Option<&'static str> {
    match list {
        "containers" => Some("container"),
        "initContainers" => Some("init container"),
        _ => None,
    }
}

/// A value on one line. Strings stand bare where that cannot be mistaken for anything else.
pub(crate) fn value(v: &Value) -> String {
    match v {
        Value::String(s) if plain(s) => s.clone(),
        v => escape_visible(&v.to_string()),
    }
}

fn plain(s: &str) -> bool {
    let word =
        s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b':' | b'@' | b'+' | b'-'));
    let other = matches!(
        s.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "absent" | "removed" | "yes" | "no" | "on" | "off"
    );
    word && !other && s.bytes().any(|b| b.is_ascii_alphanumeric()) && s.parse::<f64>().is_err()
}

/// Both sides as `before → after`, each cut to `max` characters; the flag says whether both are whole.
pub(crate) fn sides(l: &LeafChange, max: usize) -> (String, bool) {
    let before = l.before.as_ref().map_or_else(|| "(absent)".to_owned(), value);
    let after = l.after.as_ref().map_or_else(|| "(removed)".to_owned(), value);
    if let (Some(Value::String(b)), Some(Value::String(a))) = (&l.before, &l.after)
        && l.pointer.ends_with("/image")
        && plain(b)
        && plain(a)
    {
        let (bn, an) = (crate::policy::risk::image_name(b), crate::policy::risk::image_name(a));
        let rest = |whole: &str, name: &str| whole.strip_prefix(name).map(|r| r.trim_start_matches(':').to_owned());
        if let (true, Some(rb), Some(ra)) = (bn == an, rest(b, bn), rest(a, an))
            && !rb.is_empty()
            && !ra.is_empty()
        {
            return join(&format!("{bn}  "), &rb, &ra, max);
        }
    }
    join("", &before, &after, max)
}

fn join(head: &str, before: &str, after: &str, max: usize) -> (String, bool) {
    let cut = |s: &str| {
        let n = s.chars().count();
        if n <= max { (s.to_owned(), true) } else { (format!("{} ({n} characters)", shorten(s, max)), false) }
    };
    let ((h, h_whole), (b, b_whole), (a, a_whole)) = (cut(head), cut(before), cut(after));
    (format!("{h}{b} → {a}"), h_whole && b_whole && a_whole)
}

/// The change in one sentence part: `image of Deployment shop/checkout: reg/app  1.9.2 → 1.9.1`.
pub fn what(leaves: &[LeafChange]) -> String {
    sentence(leaves, 120)
}

/// The same without values, for subjects: `image of Deployment shop/checkout`.
pub fn what_short(leaves: &[LeafChange]) -> String {
    match leaves {
        [] => "no visible field".to_owned(),
        [one] => name_of(one),
        [first, ..] if leaves.iter().all(|l| l.object == first.object) => {
            format!("{} fields of {}", leaves.len(), escape_name(&first.object.to_string()))
        }
        _ => format!("{} fields of {} objects", leaves.len(), objects(leaves)),
    }
}

fn sentence(leaves: &[LeafChange], max: usize) -> String {
    match leaves {
        [one] => format!("{}: {}", name_of(one), sides(one, max).0),
        _ => what_short(leaves),
    }
}

fn name_of(l: &LeafChange) -> String {
    let at = label(l);
    let context = at.context.map_or_else(String::new, |c| format!("{c} of "));
    format!("{} of {context}{}", at.label, escape_name(&l.object.to_string()))
}

pub(crate) fn objects(leaves: &[LeafChange]) -> usize {
    leaves.iter().map(|l| &l.object).collect::<std::collections::BTreeSet<_>>().len()
}
