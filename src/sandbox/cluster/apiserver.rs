//! The Kubernetes API over HTTP: paths, verbs, bodies.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query as QueryOf, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::kinds::Kind;
use super::oracle::Entry;
use super::reply::Failure;
use super::store::Write;
use super::verbs::act;
use super::view::View;
use super::watch::{self, Query};
use super::{Shared, discovery, openapi};

/// The API server's routes; `/sandbox` is added by the control API.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/version", get(|| async { axum::Json(discovery::version()) }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .fallback(handle)
        .with_state(shared)
}

/// What a path means.
pub(super) struct Target {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
}

fn target(shared: &Shared, path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, rest) = match rest {
        ["namespaces", name] => ("", "namespaces", vec![*name]),
        ["namespaces", name, sub @ ("status" | "finalize")] => ("", "namespaces", vec![*name, *sub]),
        ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest.to_vec()),
        [plural, rest @ ..] => ("", *plural, rest.to_vec()),
        [] => return None,
    };
    let kind = shared.store.kinds.by_plural(group, version, plural)?;
    let part = |index: usize| rest.get(index).map(|part| (*part).to_owned()).unwrap_or_default();
    Some(Target { kind, namespace: namespace.to_owned(), name: part(0), subresource: part(1) })
}

pub(super) struct Request {
    pub(super) query: Query,
    pub(super) content_type: String,
    pub(super) view: View,
    pub(super) body: Bytes,
}

async fn handle(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    QueryOf(query): QueryOf<Query>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !*shared.available.borrow() {
        return Failure::unavailable().into_response();
    }
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let user = match shared.access.user(&headers) {
        Ok(user) => user,
        Err(failure) => return failure.into_response(),
    };
    if let Some(answer) = documents(&shared, uri.path(), header(ACCEPT)) {
        return answer;
    }
    if let Some(answer) = super::review::answer(&shared, &method, uri.path(), &body, &user) {
        return answer;
    }
    let Some(target) = target(&shared, uri.path()) else {
        return Failure::no_route().into_response();
    };
    let request =
        Request { query, content_type: header(CONTENT_TYPE).to_owned(), view: View::of(header(ACCEPT)), body };
    let Some(verb) = verb_of(&method, &target, &request.query) else {
        return Failure::method().into_response();
    };
    let answer =
        match shared.access.check(&user, verb, &target.kind, &target.subresource, &target.namespace, &target.name) {
            Ok(()) => act(&shared, verb, &target, &request),
            Err(failure) => Err(failure),
        };
    let answer = answer.unwrap_or_else(IntoResponse::into_response);
    if !matches!(verb, "get" | "list" | "watch") {
        shared.log.push(entry(
            &shared,
            verb,
            &uri,
            &target,
            &request,
            &user,
            header(USER_AGENT),
            answer.status().as_u16(),
        ));
    }
    answer
}

fn documents(shared: &Shared, path: &str, accept: &str) -> Option<Response> {
    let kinds = &shared.store.kinds;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let found = match parts.as_slice() {
        ["api"] => return Some(discovery::root(kinds, true, accept, &shared.address)),
        ["apis"] => return Some(discovery::root(kinds, false, accept, &shared.address)),
        ["apis", group] => discovery::group(kinds, group),
        ["api", version] => discovery::resources(kinds, "", version),
        ["apis", group, version] => discovery::resources(kinds, group, version),
        ["openapi", "v3"] => Some(openapi::index(kinds)),
        ["openapi", "v3", rest @ ..] => openapi::document(kinds, &rest.join("/")),
        [] => Some(json!({ "paths": ["/api", "/apis", "/healthz", "/openapi/v3", "/version"] })),
        _ => return None,
    };
    Some(found.map_or_else(|| Failure::no_route().into_response(), |found| axum::Json(found).into_response()))
}

fn verb_of(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    let collection = target.name.is_empty();
    match method.as_str() {
        "GET" if collection && watch::is_watch(query) => Some("watch"),
        "GET" if collection => Some("list"),
        "GET" => Some("get"),
        "POST" if collection => Some("create"),
        "PUT" if !collection => Some("update"),
        "PATCH" if !collection => Some("patch"),
        "DELETE" if collection => Some("deletecollection"),
        "DELETE" => Some("delete"),
        _ => None,
    }
}

#[expect(clippy::too_many_arguments, reason = "an entry is the whole request")]
fn entry(
    shared: &Shared,
    verb: &str,
    uri: &Uri,
    target: &Target,
    request: &Request,
    user: &str,
    agent: &str,
    code: u16,
) -> Entry {
    let body = serde_json::from_slice(&request.body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&request.body)));
    Entry {
        seq: 0,
        t: shared.store.clock.elapsed(),
        verb: verb.to_owned(),
        path: uri.to_string(),
        resource: target.kind.resource(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        subresource: target.subresource.clone(),
        user: user.to_owned(),
        user_agent: agent.to_owned(),
        content_type: request.content_type.clone(),
        dry_run: write_of(request, target).dry_run,
        body,
        code,
    }
}

pub(super) fn write_of(request: &Request, target: &Target) -> Write {
    Write {
        status: target.subresource == "status",
        dry_run: request.query.get("dryRun").is_some_and(|value| value == "All"),
    }
}
