//! Lists and watches.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::StreamExt;
use serde_json::{Value, json};

use super::Shared;
use super::json::{set, text};
use super::kinds::Kind;
use super::reply::Failure;
use super::select::Selector;
use super::store::{Change, Event};
use super::view::View;

/// Query parameters of a request.
pub type Query = HashMap<String, String>;

fn param<'a>(query: &'a Query, name: &str) -> &'a str {
    query.get(name).map(String::as_str).unwrap_or_default()
}

fn truthy(query: &Query, name: &str) -> bool {
    matches!(param(query, name), "true" | "1")
}

/// Whether a GET of a collection is a watch.
pub fn is_watch(query: &Query) -> bool {
    truthy(query, "watch")
}

/// `list`, with selectors, `limit` and `continue`.
pub fn list(shared: &Shared, kind: &Kind, namespace: &str, query: &Query, view: View) -> Result<Response, Failure> {
    let selector = Selector::parse(param(query, "labelSelector"), param(query, "fieldSelector"))?;
    let (objects, version) = shared.store.list(kind, namespace);
    let mut found: Vec<Arc<Value>> = objects.into_iter().filter(|object| selector.matches(object)).collect();
    let mut at = version;
    if let Some(token) = query.get("continue").filter(|token| !token.is_empty()) {
        let (from, start) = read_token(token).ok_or_else(|| Failure::bad("continue key is not valid"))?;
        if from < shared.store.oldest() {
            let mut gone = Failure::gone(from, shared.store.oldest());
            "The provided continue parameter is too old to display a consistent list result."
                .clone_into(&mut gone.message);
            return Err(gone);
        }
        at = from;
        found.retain(|object| place(object) > start);
    }
    let mut metadata = json!({ "resourceVersion": at.to_string() });
    let limit = param(query, "limit").parse::<usize>().unwrap_or(0);
    if limit > 0 && found.len() > limit {
        let rest = found.len() - limit;
        found.truncate(limit);
        if let Some(last) = found.last() {
            set(&mut metadata, &["continue"], json!(write_token(at, &place(last))));
            set(&mut metadata, &["remainingItemCount"], json!(rest));
        }
    }
    let objects: Vec<&Value> = found.iter().map(AsRef::as_ref).collect();
    Ok(axum::Json(view.many(kind, &objects, metadata, shared.store.clock.now())).into_response())
}

fn place(object: &Value) -> String {
    format!("{}\u{0}{}", text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]))
}

fn write_token(version: u64, place: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{version}:{place}"))
}

fn read_token(token: &str) -> Option<(u64, String)> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
    let (version, place) =
        std::str::from_utf8(&bytes).ok()?.split_once(':').map(|(v, p)| (v.to_owned(), p.to_owned()))?;
    Some((version.parse().ok()?, place))
}

struct Watch {
    shared: Shared,
    kind: Arc<Kind>,
    resource: String,
    namespace: String,
    selector: Selector,
    view: View,
    bookmarks: bool,
    seen: u64,
    ready: Vec<Bytes>,
    over: bool,
}

/// `watch`: events as JSON lines until the client, the timeout or the sandbox ends it.
pub fn watch(
    shared: &Shared,
    kind: &Arc<Kind>,
    namespace: &str,
    query: &Query,
    view: View,
) -> Result<Response, Failure> {
    let selector = Selector::parse(param(query, "labelSelector"), param(query, "fieldSelector"))?;
    let bookmarks = truthy(query, "allowWatchBookmarks");
    let initial = truthy(query, "sendInitialEvents");
    if initial && param(query, "resourceVersionMatch") != "NotOlderThan" {
        return Err(Failure::bad("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
    }
    let asked: u64 = match param(query, "resourceVersion") {
        "" => 0,
        version => version
            .parse()
            .map_err(|_| Failure::bad(format!("Invalid value: {version:?}: resource version is not a number")))?,
    };
    let mut state = Watch {
        shared: shared.clone(),
        kind: kind.clone(),
        resource: kind.resource(),
        namespace: namespace.to_owned(),
        selector,
        view,
        bookmarks,
        seen: asked,
        ready: Vec::new(),
        over: false,
    };
    if initial || asked == 0 {
        let (objects, version) = shared.store.list(kind, namespace);
        for object in objects.iter().filter(|object| state.selector.matches(object)) {
            state.ready.push(state.line("ADDED", object));
        }
        state.seen = version;
        if initial && bookmarks {
            state.ready.push(state.bookmark(true));
        }
    }
    let seconds = param(query, "timeoutSeconds").parse::<u64>().ok().filter(|seconds| *seconds > 0).unwrap_or(1800);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let changed = shared.store.subscribe();
    let epoch = shared.watch_epoch.subscribe();
    let stream =
        futures::stream::unfold((state, changed, epoch), move |(mut state, mut changed, mut epoch)| async move {
            loop {
                if !state.ready.is_empty() {
                    let lines = state.ready.drain(..).fold(Vec::new(), |mut all, line| {
                        all.extend_from_slice(&line);
                        all
                    });
                    return Some((Ok::<_, Infallible>(Bytes::from(lines)), (state, changed, epoch)));
                }
                if state.over {
                    return None;
                }
                state.pull();
                if !state.ready.is_empty() {
                    continue;
                }
                tokio::select! {
                    _ = changed.wait_for({ let seen = state.seen; move |version| *version > seen }) => {}
                    _ = epoch.changed() => return None,
                    () = tokio::time::sleep_until(deadline) => state.over = true,
                    () = tokio::time::sleep(Duration::from_secs(30)), if state.bookmarks => {
                        let line = state.bookmark(false);
                        state.ready.push(line);
                    }
                }
            }
        });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(stream.boxed())).into_response())
}

impl Watch {
    fn line(&self, change: &str, object: &Value) -> Bytes {
        let object = self.view.one(&self.kind, object, self.shared.store.clock.now());
        Bytes::from(format!("{}\n", json!({ "type": change, "object": object })))
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": self.seen.to_string(), "creationTimestamp": null });
        if initial_end {
            set(&mut metadata, &["annotations", "k8s.io/initial-events-end"], json!("true"));
        }
        let (kind, api_version) = match self.view {
            View::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ => (self.kind.kind.clone(), self.kind.api_version()),
        };
        let object = json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata });
        Bytes::from(format!("{}\n", json!({ "type": "BOOKMARK", "object": object })))
    }

    fn pull(&mut self) {
        let events = match self.shared.store.since(self.seen) {
            Ok(events) => events,
            Err(gone) => {
                self.ready.push(Bytes::from(format!("{}\n", json!({ "type": "ERROR", "object": gone.status() }))));
                self.over = true;
                return;
            }
        };
        for event in events {
            self.seen = event.version;
            if let Some(line) = self.show(&event) {
                self.ready.push(line);
            }
        }
    }

    /// An object that enters the selection is new to this watch, one that leaves it is gone.
    fn show(&self, event: &Event) -> Option<Bytes> {
        let (resource, namespace, _) = &event.key;
        if *resource != self.resource || !(self.namespace.is_empty() || *namespace == self.namespace) {
            return None;
        }
        let was = event.before.as_ref().is_some_and(|before| self.selector.matches(before));
        let is = event.change != Change::Deleted && self.selector.matches(&event.object);
        let change = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(self.line(change, &event.object))
    }
}
