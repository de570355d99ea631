//! The watches on owners and sources. They never end: errors are told to the book and waited out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::error::{Problem, Result};
use countersign_core::model::{Engine, ObjectKey, OwnerRef};
use countersign_core::ownership::{Listing, inventory_id};
use futures::StreamExt;
use kube::api::{Api, ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::book::{Progress, Shared};
use super::errors;

/// Owners and sources: name of the watch, group, kind.
const WATCHED: [(&str, &str, &str); 6] = [
    ("Application", "argoproj.io", "Application"),
    ("Kustomization", "kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("HelmRelease", "helm.toolkit.fluxcd.io", "HelmRelease"),
    ("ResourceSet", "fluxcd.controlplane.io", "ResourceSet"),
    ("FluxInstance", "fluxcd.controlplane.io", "FluxInstance"),
    ("GitRepository", "source.toolkit.fluxcd.io", "GitRepository"),
];

/// How often an engine that is not installed is looked for.
const RECHECK: Duration = Duration::from_secs(30);
/// Shortest and longest wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A watch that may not be had is refused within this time after the list.
const GRANTED: Duration = Duration::from_secs(2);
/// Small pages: one page of large Applications is what a list costs in memory at its peak.
const PAGE: u32 = 100;
/// Seconds after which the server ends a watch and it is resumed: also how long a connection that died
/// without a word goes unnoticed.
const TURN: u32 = 60;
/// Longer values in a card are replaced by `true`: that something is set matters, not what.
const LONG: usize = 512;

/// The part of owners and sources that is read. Every field may be absent or null: an object that
/// looks different must never end the watch.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct Slim {
    #[serde(default, skip_serializing)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<SlimStatus>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    #[serde(skip_serializing)]
    resources: Option<Vec<Entry>>,
    #[serde(skip_serializing)]
    inventory: Option<Inventory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller_namespace: Option<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    source_type: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    source_types: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync: Option<Sync>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_state: Option<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_applied_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    hook: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Inventory {
    entries: Option<Vec<InventoryEntry>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct InventoryEntry {
    id: String,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Sync {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revisions: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Health {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Operation {
    phase: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Condition {
    r#type: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

impl kube::Resource for Slim {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.kind.as_str().into()
    }
    fn group(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.group.as_str().into()
    }
    fn version(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.version.as_str().into()
    }
    fn api_version(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.api_version.as_str().into()
    }
    fn plural(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Begins all watches of a cluster; dropping the handles ends them.
pub(super) fn start(
    cluster: &str,
    client: &kube::Client,
    book: &Arc<Shared>,
    here: &Arc<[String]>,
) -> Vec<AbortOnDropHandle<()>> {
    let tasks = WATCHED.iter().map(|(name, group, kind)| {
        book.set(name, Progress::Starting(None));
        let follow = Follow {
            cluster: cluster.to_owned(),
            client: client.clone(),
            book: Arc::clone(book),
            here: Arc::clone(here),
            name,
            group,
            kind,
        };
        AbortOnDropHandle::new(tokio::spawn(follow.for_ever()))
    });
    tasks.collect()
}

/// The watch of one kind.
struct Follow {
    cluster: String,
    client: kube::Client,
    book: Arc<Shared>,
    here: Arc<[String]>,
    name: &'static str,
    group: &'static str,
    kind: &'static str,
}

impl Follow {
    async fn for_ever(self) {
        let mut wait = RETRY.0;
        let mut denied = None;
        loop {
            match served(&self.client, self.group, self.kind).await {
                Ok(None) => {
                    denied = None;
                    self.book.write().retain(self.group, self.kind, &BTreeSet::new());
                    self.book.set(self.name, Progress::Absent);
                    wait = RETRY.0;
                    tokio::time::sleep(RECHECK).await;
                    continue;
                }
                Ok(Some(resource)) => {
                    let complete;
                    (complete, denied) = self.run(&resource, denied.take()).await;
                    if complete && denied.is_none() {
                        wait = RETRY.0;
                    }
                }
                Err(problem) => {
                    tracing::debug!(self.cluster, self.kind, error = %problem.message, "discovery failed");
                    self.hindered(problem);
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    /// A lost connection leaves what was read; a denial takes it away: what may not be seen now may have
    /// changed unseen for as long as it lasts.
    fn hindered(&self, problem: Problem) {
        let was = matches!(self.book.progress().borrow().get(self.name), Some(Progress::Ready(_)));
        let ready = was && !errors::denied(&problem);
        let progress = if ready { Progress::Ready(Some(problem)) } else { Progress::Starting(Some(problem)) };
        self.book.set(self.name, progress);
    }

    /// Follows the kind until the first error, after which it is listed anew: a watch that resumes by
    /// itself never says that it is back. Says whether a list was complete, and what was denied.
    ///
    /// A right to list without one to watch gives a list and then a denial, again and again: after a
    /// denial (`before`) a list alone proves nothing until the watch has stood for a moment.
    async fn run(&self, resource: &ApiResource, mut before: Option<Problem>) -> (bool, Option<Problem>) {
        let api: Api<Slim> = Api::all_with(self.client.clone(), resource);
        let config = watcher::Config::default().page_size(PAGE).timeout(TURN);
        let mut events = watcher(api, config).boxed();
        let mut listed: BTreeSet<ObjectKey> = BTreeSet::new();
        let mut complete = false;
        let mut denied = None;
        loop {
            let event = if complete && before.is_some() {
                match tokio::time::timeout(GRANTED, events.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        before = None;
                        self.book.set(self.name, Progress::Ready(None));
                        continue;
                    }
                }
            } else {
                events.next().await
            };
            let Some(event) = event else { break };
            if complete && before.is_some() && matches!(event, Ok(Event::Apply(_) | Event::Delete(_))) {
                // What the watch itself tells proves it as well: on a busy kind it is never silent for a moment.
                before = None;
                self.book.set(self.name, Progress::Ready(None));
            }
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.extend(put(&self.book, &self.here, resource, object)),
                Ok(Event::InitDone) => {
                    self.book.write().retain(&resource.group, &resource.kind, &listed);
                    listed.clear();
                    complete = true;
                    if before.is_none() {
                        self.book.set(self.name, Progress::Ready(None));
                    }
                }
                Ok(Event::Apply(object)) => {
                    put(&self.book, &self.here, resource, object);
                }
                Ok(Event::Delete(object)) => {
                    if let Some(key) = key(resource, &object.metadata) {
                        self.book.write().drop_key(&key);
                    }
                }
                Err(error) => {
                    tracing::debug!(self.cluster, self.kind, error = errors::words(&error), "a watch is interrupted");
                    if !gone(&error) {
                        let path = format!("/apis/{}/{}", resource.api_version, resource.plural);
                        let problem = watch_problem(&error, &path);
                        denied = errors::denied(&problem).then(|| problem.clone());
                        self.hindered(problem);
                    }
                    break;
                }
            }
        }
        (complete, denied)
    }
}

/// The kind in its preferred version; `None` where the engine is not installed.
async fn served(client: &kube::Client, group: &str, kind: &str) -> Result<Option<ApiResource>> {
    let failed = |e: kube::Error, path: &str| errors::problem(&e, errors::Asked { verb: "get", path });
    let groups = client.list_api_groups().await.map_err(|e| failed(e, "/apis"))?;
    let Some(found) = groups.groups.into_iter().find(|g| g.name == group) else { return Ok(None) };
    let preferred = found.preferred_version.map(|v| v.group_version);
    let others = found.versions.into_iter().map(|v| v.group_version).filter(|v| Some(v) != preferred.as_ref());
    for version in preferred.iter().cloned().chain(others.collect::<Vec<_>>()) {
        let list = client.list_api_group_resources(&version).await;
        let list = list.map_err(|e| failed(e, &format!("/apis/{version}")))?;
        if let Some(r) = list.resources.into_iter().find(|r| r.kind == kind && !r.name.contains('/')) {
            return Ok(Some(ApiResource {
                group: group.to_owned(),
                version: version.rsplit('/').next().unwrap_or(&version).to_owned(),
                api_version: version.clone(),
                kind: kind.to_owned(),
                plural: r.name,
            }));
        }
    }
    Ok(None)
}

/// The kind was removed, or its preferred version changed: look again.
fn gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) if errors::status(e) == Some(404))
}

/// What an interrupted watch means; `path` is that of the collection.
pub(super) fn watch_problem(error: &watcher::Error, path: &str) -> Problem {
    match error {
        watcher::Error::InitialListFailed(e) => errors::problem(e, errors::Asked { verb: "list", path }),
        watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
            errors::problem(e, errors::Asked { verb: "watch", path })
        }
        other => errors::unreachable(errors::words(other)),
    }
}

fn key(resource: &ApiResource, meta: &ObjectMeta) -> Option<ObjectKey> {
    let name = meta.name.as_deref()?;
    Some(ObjectKey::new(&resource.group, &resource.kind, meta.namespace.as_deref().unwrap_or(""), name))
}

fn put(book: &Shared, here: &[String], resource: &ApiResource, mut object: Slim) -> Option<ObjectKey> {
    let key = key(resource, &object.metadata)?;
    let listing = listing(&key, &object, here);
    shorten(&mut object.spec, 0);
    if let Some(conditions) = object.status.as_mut().and_then(|s| s.conditions.as_mut()) {
        // Argo CD's conditions are there only while they hold; of Flux's, Ready says it.
        conditions.retain(|c| key.kind == "Application" || c.r#type.as_deref() == Some("Ready"));
        for condition in conditions {
            condition.message = condition.message.take().map(capped);
        }
    }
    if let Some(operation) = object.status.as_mut().and_then(|s| s.operation_state.as_mut()) {
        operation.message = operation.message.take().map(capped);
    }
    let mut card = serde_json::to_value(&object).unwrap_or_else(|_| json!({}));
    let skip = object.metadata.annotations.as_ref().and_then(|a| a.get("argocd.argoproj.io/skip-reconcile"));
    if let Some(map) = card.as_object_mut() {
        map.insert("kind".to_owned(), json!(key.kind));
        map.insert("metadata".to_owned(), json!({"namespace": key.namespace, "name": key.name, "skip": skip}));
    }
    book.write().put(key.clone(), &card, listing);
    Some(key)
}

/// The engines' own words in a card: one line, of a length that people read.
fn capped(words: String) -> String {
    words.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn listing(key: &ObjectKey, object: &Slim, here: &[String]) -> Option<Listing> {
    if key.kind == "GitRepository" {
        return None;
    }
    let status = object.status.as_ref();
    // Destination and kubeConfig are read by the pure part, from a view without the long lists.
    let view = json!({
        "kind": key.kind,
        "metadata": {"namespace": key.namespace, "name": key.name},
        "spec": {"destination": object.spec.get("destination"), "kubeConfig": object.spec.get("kubeConfig")},
        "status": {"controllerNamespace": status.and_then(|s| s.controller_namespace.as_deref())},
    });
    let mut listing = Listing::of(&view, here)?;
    listing.objects = if key.kind == "Application" {
        let entries = status.and_then(|s| s.resources.as_deref()).unwrap_or_default();
        Some(entries.iter().filter(|e| e.hook != Some(true)).map(entry_key).collect())
    } else {
        let inventory = status.and_then(|s| s.inventory.as_ref());
        inventory.map(|i| i.entries.iter().flatten().filter_map(|e| inventory_id(&e.id)).collect())
    };
    let engine = if key.kind == "Application" { Engine::Argocd } else { Engine::Flux };
    listing.owner = OwnerRef::new(engine, &key.kind, &key.namespace, &key.name);
    Some(listing)
}

fn entry_key(entry: &Entry) -> ObjectKey {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    ObjectKey {
        group: text(&entry.group),
        kind: text(&entry.kind),
        namespace: text(&entry.namespace),
        name: text(&entry.name),
    }
}

fn shorten(value: &mut Value, depth: usize) {
    match value {
        Value::String(s) if s.len() > LONG => *value = Value::Bool(true),
        Value::Object(map) => {
            map.retain(|k, _| k != "values" || depth != 0);
            for (key, inner) in map.iter_mut() {
                // Values of charts and patches may be long and may hold secrets.
                if matches!(key.as_str(), "values" | "valuesObject" | "parameters" | "patches" | "substitute") {
                    *inner = Value::Bool(true);
                } else {
                    shorten(inner, depth + 1);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| shorten(v, depth + 1)),
        _ => {}
    }
}
