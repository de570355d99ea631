//! Single requests, with time limits. Objects are JSON here: what is read once needs no types.

use std::time::Duration;

use countersign_core::error::{Problem, Result};
use http::Request;
use serde_json::{Value, json};

use super::errors;

/// Longest wait for a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Objects in one page of a list.
const LIMIT: u32 = 500;
/// Most pages of a list.
const PAGES: u32 = 20;

/// What came of a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hinted {
    /// The annotation is set.
    Sent,
    /// Not configured: the engine's own polling has to do.
    Off,
    /// The cluster does not permit it: for good, or because its authorizer has not read its roles yet.
    NotPermitted,
    /// The object is gone, or its kind is not served yet.
    Gone,
}

async fn text(client: &kube::Client, request: Request<Vec<u8>>) -> Result<String, kube::Error> {
    match tokio::time::timeout(TIMEOUT, client.request_text(request)).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service("no answer within 20 s".into())),
    }
}

fn request(url: &str, accept: Option<&str>) -> Result<Request<Vec<u8>>, kube::Error> {
    let mut builder = Request::get(url);
    if let Some(accept) = accept {
        builder = builder.header(http::header::ACCEPT, accept);
    }
    builder.body(Vec::new()).map_err(kube::Error::HttpError)
}

async fn json(client: &kube::Client, url: &str, accept: Option<&str>) -> Result<Value, kube::Error> {
    let answer = text(client, request(url, accept)?).await?;
    serde_json::from_str(&answer).map_err(kube::Error::SerdeError)
}

/// The question that a URL asks, for words.
fn asked<'a>(verb: &'static str, url: &'a str) -> errors::Asked<'a> {
    errors::Asked { verb, path: url.split('?').next().unwrap_or(url) }
}

pub(super) async fn get(client: &kube::Client, url: &str) -> Result<Value> {
    json(client, url, None).await.map_err(|e| errors::problem(&e, asked("get", url)))
}

/// The same, for a question that is a list.
pub(super) async fn get_as(client: &kube::Client, url: &str, verb: &'static str) -> Result<Value> {
    json(client, url, None).await.map_err(|e| errors::problem(&e, asked(verb, url)))
}

/// Asks something with a body that changes nothing (an access review).
pub(super) async fn post(client: &kube::Client, url: &str, body: &Value) -> Result<Value> {
    let failed = |e: kube::Error| errors::problem(&e, asked("create", url));
    let request = Request::post(url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|e| failed(kube::Error::HttpError(e)))?;
    let answer = text(client, request).await.map_err(failed)?;
    serde_json::from_str(&answer).map_err(|e| failed(kube::Error::SerdeError(e)))
}

pub(super) async fn get_optional(client: &kube::Client, url: &str) -> Result<Option<Value>> {
    optional(client, url, "get").await
}

async fn optional(client: &kube::Client, url: &str, verb: &'static str) -> Result<Option<Value>> {
    match json(client, url, None).await {
        Ok(value) => Ok(Some(value)),
        Err(e) if errors::status(&e) == Some(404) => Ok(None),
        Err(e) => Err(errors::problem(&e, asked(verb, url))),
    }
}

fn page_url(collection: &str, selector: &str, token: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &LIMIT.to_string());
    if let Some((key, value)) = selector.split_once(':') {
        query.append_pair(key, value);
    }
    if !token.is_empty() {
        query.append_pair("continue", token);
    }
    format!("{collection}?{}", query.finish())
}

/// Items of a collection, page by page; a collection that is not served has none. An incomplete list
/// would be a wrong answer, so too many are a problem.
pub(super) async fn list(client: &kube::Client, collection: &str, selector: &str) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES {
        let Some(mut page) = optional(client, &page_url(collection, selector, &token), "list").await? else { break };
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or("").to_owned();
        if token.is_empty() {
            return Ok(items);
        }
    }
    if token.is_empty() {
        return Ok(items);
    }
    Err(Problem::new(
        "cluster.too_many",
        format!("{collection} holds more than {} objects.", PAGES * LIMIT),
        "Name a namespace with fewer of them.",
    ))
}

/// Names in a collection, metadata only.
pub(super) async fn names(client: &kube::Client, collection: &str) -> Result<Vec<String>> {
    let url = format!("{collection}?limit={LIMIT}");
    // The plain form last: servers that cannot cut down send everything.
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    let answer = json(client, &url, Some(accept)).await.map_err(|e| errors::problem(&e, asked("list", &url)))?;
    let items = answer.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().filter_map(|i| i.pointer("/metadata/name")?.as_str().map(str::to_owned)).collect())
}

pub(super) async fn annotate(client: &kube::Client, url: &str, annotation: &str, value: &str) -> Result<Hinted> {
    let patch = json!({"metadata": {"annotations": {annotation: value}}}).to_string();
    let request = Request::patch(format!("{url}?fieldManager=countersign"))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.into_bytes())
        .map_err(|e| errors::problem(&kube::Error::HttpError(e), asked("patch", url)))?;
    match text(client, request).await {
        Ok(_) => Ok(Hinted::Sent),
        Err(e) => match errors::status(&e) {
            // 422: an admission policy said no.
            Some(401 | 403 | 422) => Ok(Hinted::NotPermitted),
            Some(404) => Ok(Hinted::Gone),
            _ => Err(errors::problem(&e, asked("patch", url))),
        },
    }
}
