//! The `scale` subresource, and pod logs (always empty here).

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use super::json::{get, json_patch, merge_patch, number, set, text};
use super::kinds::Kind;
use super::reply::Failure;
use super::store::Write;

/// Reads or writes a subresource other than status.
#[expect(clippy::too_many_arguments, reason = "a request's parts")]
pub fn act(
    shared: &Shared,
    verb: &str,
    kind: &Kind,
    namespace: &str,
    name: &str,
    subresource: &str,
    media: &str,
    body: &Bytes,
) -> Result<Response, Failure> {
    let stored = shared.store.get(kind, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    if kind.kind == "Pod" && subresource == "log" && verb == "get" {
        return Ok(String::new().into_response());
    }
    if subresource != "scale" || get(&stored, &["spec", "replicas"]).is_none() {
        return Err(Failure::no_route());
    }
    match verb {
        "get" => Ok(axum::Json(scale_of(&stored)).into_response()),
        "update" | "patch" => {
            let body: Value = serde_json::from_slice(body).map_err(|error| Failure::bad(error.to_string()))?;
            let written = shared.store.update(kind, namespace, name, Write::default(), |stored| {
                let mut scale = scale_of(stored);
                match media.split(';').next().unwrap_or_default() {
                    "application/json-patch+json" => json_patch(&mut scale, &body).map_err(Failure::bad)?,
                    _ if verb == "patch" => merge_patch(&mut scale, &body),
                    _ => scale = body,
                }
                let mut new = stored.clone();
                set(&mut new, &["spec", "replicas"], json!(number(&scale, &["spec", "replicas"], 0)));
                Ok(new)
            })?;
            Ok(axum::Json(scale_of(&written)).into_response())
        }
        _ => Err(Failure::method()),
    }
}

fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        set(&mut metadata, &[field], json!(text(object, &["metadata", field])));
    }
    let labels = get(object, &["spec", "selector", "matchLabels"]).and_then(Value::as_object);
    let selector = labels.map(|labels| {
        let pairs: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        pairs.join(",")
    });
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": number(object, &["spec", "replicas"], 0) },
        "status": { "replicas": number(object, &["status", "replicas"], 0), "selector": selector },
    })
}
