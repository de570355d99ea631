//! Whether a live object has what a commit wanted.

use serde_json::Value;

use super::world::{World, at};
use crate::model::{Want, quantity};

/// How the live object compares with one wanted field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Live {
    /// As wanted.
    Yes,
    /// Otherwise, in words.
    No(String),
    /// The object was never seen.
    Unseen(String),
}

/// Compares one wanted field with the live object. `listed`: whether the owner still lists the object
/// (then one that was never seen is not taken for gone).
pub(super) fn live(world: &World, want: &Want, listed: bool) -> Live {
    let name = named(want);
    let object = world.find(want);
    if want.exists == Some(false) {
        return match object {
            None if listed => Live::Unseen(format!("{name} is still listed by its owner")),
            None => Live::Yes,
            Some(_) if want.path.is_empty() => Live::No(format!("{name} is still there")),
            Some(o) if at(o, &want.path).is_none() => Live::Yes,
            Some(_) => Live::No(format!("{name} still has {}", want.path)),
        };
    }
    let Some(object) = object else { return Live::Unseen(format!("{name} has not been seen")) };
    if at(object, "/metadata/deletionTimestamp").is_some() {
        return Live::No(format!("{name} is being deleted"));
    }
    let found = at(object, &want.path);
    match (&want.value, found) {
        (None, Some(_)) => Live::Yes,
        (None, None) if want.path.is_empty() => Live::Yes,
        (None, None) => Live::No(format!("{name} has no {}", want.path)),
        (Some(w), None) if is_default(w) => Live::Yes,
        (Some(w), Some(f)) if same(w, f, quantities(&want.path)) => Live::Yes,
        // What is in a Secret is nobody's business.
        (Some(_), _) if want.kind == "Secret" => Live::No(format!("{} of {name} is not as wanted", want.path)),
        (Some(w), None) => Live::No(format!("{name} has no {}, {} was wanted", want.path, brief(w))),
        (Some(w), Some(f)) => Live::No(format!("{} of {name} is {}, {} was wanted", want.path, brief(f), brief(w))),
    }
}

/// `Deployment shop/web`.
pub(super) fn named(want: &Want) -> String {
    if want.namespace.is_empty() {
        format!("{} {}", want.kind, want.name)
    } else {
        format!("{} {}/{}", want.kind, want.namespace, want.name)
    }
}

/// Whether two wanted lists cannot both be live: the same field with another value, or the object of one gone.
pub(super) fn conflict(a: &[Want], b: &[Want]) -> bool {
    a.iter().any(|x| {
        b.iter().any(|y| {
            let same_object = x.kind == y.kind && x.namespace == y.namespace && x.name == y.name;
            let gone = |w: &Want| w.exists == Some(false);
            let under = |deep: &Want, top: &Want| {
                top.path.is_empty() || deep.path == top.path || deep.path.starts_with(&format!("{}/", top.path))
            };
            same_object
                && match (gone(x), gone(y)) {
                    (true, true) => false,
                    (true, false) => under(y, x),
                    (false, true) => under(x, y),
                    (false, false) => x.path == y.path && x.value.is_some() && y.value.is_some() && x.value != y.value,
                }
        })
    })
}

/// API servers drop empty values, so an absent field is the same as an empty one.
fn is_default(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Only where Kubernetes itself reads quantities may `1000m` equal `1`; an image tag `1.0` is not `1`.
fn quantities(path: &str) -> bool {
    path.split('/').any(|s| {
        matches!(
            s,
            "resources"
                | "limits"
                | "requests"
                | "capacity"
                | "hard"
                | "sizeLimit"
                | "averageValue"
                | "storage"
                | "overhead"
        )
    })
}

/// Equal, where the live value may have more keys (the API server fills in defaults).
fn same(want: &Value, live: &Value, quantity: bool) -> bool {
    match (want, live) {
        (Value::Object(w), Value::Object(l)) => w.iter().all(|(k, v)| {
            let quantity = quantity || quantities(k);
            l.get(k).map_or_else(|| is_default(v), |f| same(v, f, quantity))
        }),
        (Value::Array(w), Value::Array(l)) => w.len() == l.len() && w.iter().zip(l).all(|(a, b)| same(a, b, quantity)),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ if want == live => true,
        _ => {
            quantity
                && matches!((number(want), number(live)), (Some(a), Some(b)) if (a - b).abs() <= 1e-9 * a.abs().max(b.abs()))
        }
    }
}

/// An amount, written as a number or as a Kubernetes quantity.
fn number(v: &Value) -> Option<f64> {
    match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => quantity(s),
        _ => None,
    }
}

/// A value in few characters.
fn brief(v: &Value) -> String {
    super::words::quote(&v.to_string()).chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_equal_by_amount_and_only_where_they_are_quantities() {
        assert!(same(
            &json!("1000m"),
            &json!("1"),
            quantities("/spec/template/spec/containers/0/resources/limits/cpu")
        ));
        assert!(same(&json!("1Gi"), &json!("1024Mi"), true));
        assert!(same(
            &json!({"limits": {"memory": "1Gi"}}),
            &json!({"limits": {"memory": "1024Mi"}, "requests": {}}),
            quantities("/x/resources")
        ));
        assert!(!same(&json!("1.0"), &json!("1"), quantities("/data/version")));
        assert!(!same(&json!("1k"), &json!("1Ki"), true));
    }

    #[test]
    fn defaults_that_the_server_fills_in_do_not_count() {
        assert!(same(
            &json!({"name": "web", "image": "a"}),
            &json!({"name": "web", "image": "a", "imagePullPolicy": "Always"}),
            false
        ));
        assert!(!same(&json!([1, 2]), &json!([1]), false));
        assert!(is_default(&json!("")) && !is_default(&json!(1)));
    }

    #[test]
    fn only_the_same_field_with_another_value_is_a_conflict() {
        let w = |path: &str, value: Option<Value>, exists: Option<bool>| Want {
            group: String::new(),
            kind: "Deployment".into(),
            namespace: "a".into(),
            name: "a".into(),
            path: path.into(),
            value,
            exists,
        };
        assert!(conflict(&[w("/spec/replicas", Some(json!(1)), None)], &[w("/spec/replicas", Some(json!(2)), None)]));
        assert!(!conflict(&[w("/spec/replicas", Some(json!(1)), None)], &[w("/spec/paused", Some(json!(true)), None)]));
        assert!(conflict(&[w("/spec/replicas", Some(json!(1)), None)], &[w("", None, Some(false))]));
        assert!(!conflict(&[w("", None, Some(false))], &[w("", None, Some(false))]));
    }
}
