//! The verbs: what each does with its body and how it answers.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::admission::{self, Strictness};
use super::apiserver::{Request, Target, write_of};
use super::json::{get as at, json_patch, merge_patch, set, text};
use super::kinds::Kind;
use super::reply::Failure;
use super::schema::{Node, schemas};
use super::select::Selector;
use super::store::Propagation;
use super::view::View;
use super::{Shared, merge, watch};

/// Does what a request asks for.
pub(super) fn act(shared: &Shared, verb: &str, target: &Target, request: &Request) -> Result<Response, Failure> {
    let kind = &target.kind;
    if !matches!(target.subresource.as_str(), "" | "status" | "finalize") {
        return super::scale::act(
            shared,
            verb,
            kind,
            &target.namespace,
            &target.name,
            &target.subresource,
            &request.content_type,
            &request.body,
        );
    }
    match verb {
        "list" => watch::list(shared, kind, &target.namespace, &request.query, request.view),
        "watch" => watch::watch(shared, kind, &target.namespace, &request.query, request.view),
        "get" => {
            let found = shared
                .store
                .get(kind, &target.namespace, &target.name)
                .ok_or_else(|| Failure::not_found(kind, &target.name))?;
            Ok(shown(shared, kind, request.view, &found, StatusCode::OK, &[]))
        }
        "create" => create(shared, target, request),
        "update" => update(shared, target, request),
        "patch" => patch(shared, target, request),
        "delete" => delete(shared, target, request),
        _ => delete_collection(shared, target, request),
    }
}

fn shown(shared: &Shared, kind: &Kind, view: View, object: &Value, code: StatusCode, unknown: &[String]) -> Response {
    let mut answer = (code, axum::Json(view.one(kind, object, shared.store.clock.now()))).into_response();
    for path in unknown {
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"unknown field \\\"{path}\\\"\"")) {
            answer.headers_mut().append("warning", value);
        }
    }
    answer
}

fn strictness(request: &Request) -> Strictness {
    match request.query.get("fieldValidation").map(String::as_str) {
        Some("Strict") => Strictness::Strict,
        Some("Ignore") => Strictness::Ignore,
        _ => Strictness::Warn,
    }
}

fn parse(request: &Request) -> Result<Value, Failure> {
    if request.content_type.contains("protobuf") || request.content_type.contains("cbor") {
        return Err(Failure::media_type(&request.content_type));
    }
    let source = std::str::from_utf8(&request.body).map_err(|_| Failure::bad("the body is not UTF-8"))?;
    serde_json::from_str(source).or_else(|_| super::render::yaml(source)).map_err(|error| {
        Failure::bad(format!("the object provided is unrecognized (must be of type {}): {error}", "Object"))
    })
}

/// Reads a whole object: right kind, known fields, right types.
fn incoming(target: &Target, request: &Request) -> Result<(Value, Vec<String>), Failure> {
    let mut object = parse(request)?;
    if at(&object, &["kind"]).is_none() {
        set(&mut object, &["kind"], json!(target.kind.kind));
        set(&mut object, &["apiVersion"], json!(target.kind.api_version()));
    }
    check_kind(target, &object)?;
    let unknown = checked(target, &mut object, strictness(request))?;
    Ok((object, unknown))
}

fn check_kind(target: &Target, object: &Value) -> Result<(), Failure> {
    let (kind, version) = (text(object, &["kind"]), text(object, &["apiVersion"]));
    if kind == target.kind.kind && version == target.kind.api_version() {
        return Ok(());
    }
    let want = target.kind.api_version();
    Err(Failure::bad(format!(
        "the API version in the data ({version}, Kind={kind}) does not match the expected API version ({want}, Kind={})",
        target.kind.kind
    )))
}

fn checked(target: &Target, object: &mut Value, strictness: Strictness) -> Result<Vec<String>, Failure> {
    let unknown = admission::decode(&target.kind, object, strictness)?;
    admission::prune(object, &unknown);
    Ok(if strictness == Strictness::Warn { unknown } else { Vec::new() })
}

fn create(shared: &Shared, target: &Target, request: &Request) -> Result<Response, Failure> {
    let (object, unknown) = incoming(target, request)?;
    let namespace = if target.namespace.is_empty() && target.kind.namespaced {
        text(&object, &["metadata", "namespace"]).to_owned()
    } else {
        target.namespace.clone()
    };
    let made = shared.store.create(&target.kind, &namespace, object, write_of(request, target))?;
    Ok(shown(shared, &target.kind, request.view, &made, StatusCode::CREATED, &unknown))
}

fn update(shared: &Shared, target: &Target, request: &Request) -> Result<Response, Failure> {
    let (object, unknown) = incoming(target, request)?;
    let written =
        shared
            .store
            .update(&target.kind, &target.namespace, &target.name, write_of(request, target), |_| Ok(object))?;
    Ok(shown(shared, &target.kind, request.view, &written, StatusCode::OK, &unknown))
}

fn patch(shared: &Shared, target: &Target, request: &Request) -> Result<Response, Failure> {
    let kind = &target.kind;
    let body = parse(request)?;
    let media = request.content_type.split(';').next().unwrap_or_default().trim();
    let node =
        schemas().of(&kind.group, &kind.version, &kind.kind).map_or(Node::Any, |(name, _)| Node::Ref(name.to_owned()));
    let custom = kind.group.contains('.') && !kind.group.ends_with(".k8s.io");
    if media == "application/apply-patch+yaml" || media == "application/apply-patch+cbor" {
        return apply(shared, target, request, body);
    }
    let mut unknown = Vec::new();
    let written = shared.store.update(kind, &target.namespace, &target.name, write_of(request, target), |stored| {
        let mut new = stored.clone();
        match media {
            "application/merge-patch+json" => merge_patch(&mut new, &body),
            "application/json-patch+json" => {
                json_patch(&mut new, &body).map_err(|message| Failure::invalid_patch(kind, &target.name, message))?
            }
            "application/strategic-merge-patch+json" if !custom => merge::strategic(schemas(), &node, &mut new, &body),
            other => return Err(Failure::media_type(other)),
        }
        if at(&new, &["metadata", "name"]).is_none() {
            set(&mut new, &["metadata", "name"], json!(target.name));
        }
        unknown = checked(target, &mut new, strictness(request))?;
        Ok(new)
    })?;
    Ok(shown(shared, kind, request.view, &written, StatusCode::OK, &unknown))
}

fn apply(shared: &Shared, target: &Target, request: &Request, mut config: Value) -> Result<Response, Failure> {
    let manager = request.query.get("fieldManager").filter(|manager| !manager.is_empty());
    let manager = manager.ok_or_else(|| {
        Failure::bad(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        )
    })?;
    check_kind(target, &config)?;
    if text(&config, &["metadata", "name"]).is_empty() {
        set(&mut config, &["metadata", "name"], json!(target.name));
    }
    let unknown = checked(target, &mut config, strictness(request))?;
    let existed = shared.store.get(&target.kind, &target.namespace, &target.name).is_some();
    let done = shared.store.apply(&target.kind, &target.namespace, manager, &config, write_of(request, target))?;
    let code = if existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok(shown(shared, &target.kind, request.view, &done, code, &unknown))
}

fn propagation(request: &Request, options: &Value) -> Propagation {
    let asked =
        request.query.get("propagationPolicy").map_or_else(|| text(options, &["propagationPolicy"]), String::as_str);
    match asked {
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        _ => Propagation::Background,
    }
}

fn delete(shared: &Shared, target: &Target, request: &Request) -> Result<Response, Failure> {
    let options: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let dry_run = write_of(request, target).dry_run || at(&options, &["dryRun", "0"]).is_some();
    let stored = shared
        .store
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Failure::not_found(&target.kind, &target.name))?;
    for field in ["uid", "resourceVersion"] {
        let wanted = text(&options, &["preconditions", field]);
        if !wanted.is_empty() && wanted != text(&stored, &["metadata", field]) {
            let found = text(&stored, &["metadata", field]);
            let message =
                format!("the {field} in the precondition ({wanted}) does not match the {field} in record ({found})");
            return Err(Failure::precondition(&target.kind, &target.name, &message));
        }
    }
    let last =
        shared.store.delete(&target.kind, &target.namespace, &target.name, propagation(request, &options), dry_run)?;
    if !dry_run && shared.store.get(&target.kind, &target.namespace, &target.name).is_some() {
        return Ok(shown(shared, &target.kind, request.view, &last, StatusCode::OK, &[]));
    }
    let details = json!({ "name": target.name, "group": target.kind.group, "kind": target.kind.plural, "uid": text(&last, &["metadata", "uid"]) });
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Ok(axum::Json(status).into_response())
}

fn delete_collection(shared: &Shared, target: &Target, request: &Request) -> Result<Response, Failure> {
    let query = |name: &str| request.query.get(name).map(String::as_str).unwrap_or_default();
    let selector = Selector::parse(query("labelSelector"), query("fieldSelector"))?;
    let options: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let (objects, version) = shared.store.list(&target.kind, &target.namespace);
    let meant: Vec<_> = objects.iter().filter(|object| selector.matches(object)).collect();
    for object in &meant {
        let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
        shared.store.delete(
            &target.kind,
            namespace,
            name,
            propagation(request, &options),
            write_of(request, target).dry_run,
        )?;
    }
    let objects: Vec<&Value> = meant.iter().map(|object| object.as_ref()).collect();
    let metadata = json!({ "resourceVersion": version.to_string() });
    Ok(axum::Json(View::Whole.many(&target.kind, &objects, metadata, shared.store.clock.now())).into_response())
}
