//! The verdict's feed: what a watcher sees, in the recordings' line format.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::error::Result;
use countersign_core::model::{Engine, ObjectKey, OwnerRef};
use countersign_core::ownership::source_object;
use futures::stream::{BoxStream, SelectAll, Stream};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject};
use kube::core::discovery::Scope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::watch::watch_problem;
use super::{Cluster, errors, prune};

impl Cluster {
    /// Follows an owner, what it depends on (source, AppProject, parents and their sources, HelmChart)
    /// and the given live objects. Each item is `{"type":"ADDED|MODIFIED|DELETED","object":{…}}` as in
    /// the recordings. The stream never ends: a lost connection is taken up again, after which every
    /// object comes as `ADDED` once more and what has gone meanwhile as `DELETED`. What may not be watched
    /// comes as `cluster.forbidden`, again with each attempt: nothing can be judged by what is not seen.
    pub async fn watch_owner(
        &self,
        owner: &OwnerRef,
        objects: Vec<ObjectKey>,
    ) -> Result<impl Stream<Item = Result<Value>> + Send + Unpin + 'static + use<>> {
        let mut keys = vec![owner.key()];
        let mut add = |key: ObjectKey| {
            if !keys.contains(&key) {
                keys.push(key);
            }
        };
        if let Some(object) = self.read(&owner.key()).await? {
            for key in around(owner, &object) {
                add(key);
            }
            for parent in self.lineage(owner).await? {
                if let Some(key) = self.key_of_object(&parent).await? {
                    add(key);
                }
            }
        }
        let owners = keys.len();
        let mut add = |key: ObjectKey| {
            if !keys.contains(&key) {
                keys.push(key);
            }
        };
        for key in objects {
            // A release that is waited for brings its chart and what that is made from.
            if (key.group.as_str(), key.kind.as_str()) == ("helm.toolkit.fluxcd.io", "HelmRelease")
                && let Some(object) = self.read(&key).await?
            {
                let release = OwnerRef::new(Engine::Flux, &key.kind, &key.namespace, &key.name);
                around(&release, &object).into_iter().for_each(&mut add);
            }
            add(key);
        }
        let mut all: SelectAll<BoxStream<'static, Result<Value>>> = SelectAll::new();
        for (n, key) in keys.iter().enumerate() {
            match self.0.kinds.find(&key.group, &key.kind).await? {
                Some(kind) => all.push(follow(self.0.client.clone(), &kind, key)),
                // An API server that has just started does not serve custom kinds yet: a feed that leaves the owner
                // out would be silent for ever.
                None if n < owners => {
                    return Err(errors::unreachable(format!("It does not serve the kind {} now.", key.kind)));
                }
                // A kind that is not served now has nothing to show.
                None => {}
            }
        }
        // Without this a feed of nothing would end at once.
        all.push(futures::stream::pending().boxed());
        Ok(all)
    }

    async fn key_of_object(&self, object: &Value) -> Result<Option<ObjectKey>> {
        let get = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or("");
        let group = get("/apiVersion").split_once('/').map_or("", |(g, _)| g);
        let kind = self.0.kinds.find(group, get("/kind")).await?;
        Ok(kind.map(|_| ObjectKey::new(group, get("/kind"), get("/metadata/namespace"), get("/metadata/name"))))
    }
}

/// What an owner's own object names: its source, its project, its chart.
fn around(owner: &OwnerRef, object: &Value) -> Vec<ObjectKey> {
    let get = |p: &str| object.pointer(p).and_then(Value::as_str).filter(|s| !s.is_empty());
    let mut keys: Vec<ObjectKey> = source_object(owner, object).into_iter().collect();
    if owner.kind == "Application" {
        let control_plane = get("/status/controllerNamespace").unwrap_or(&owner.namespace);
        keys.push(ObjectKey::new(
            "argoproj.io",
            "AppProject",
            control_plane,
            get("/spec/project").unwrap_or("default"),
        ));
    }
    if let Some((namespace, name)) = get("/status/helmChart").and_then(|c| c.split_once('/')) {
        keys.push(ObjectKey::new("source.toolkit.fluxcd.io", "HelmChart", namespace, name));
    }
    let depends = object.pointer("/spec/dependsOn").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for other in depends {
        let text = |k: &str| other.get(k).and_then(Value::as_str).filter(|s| !s.is_empty());
        if let Some(name) = text("name") {
            keys.push(ObjectKey::new(owner.group(), &owner.kind, text("namespace").unwrap_or(&owner.namespace), name));
        }
    }
    keys
}

/// One object by its name, for ever.
fn follow(client: kube::Client, kind: &Kind, key: &ObjectKey) -> BoxStream<'static, Result<Value>> {
    let path = kind.collection(&key.namespace).unwrap_or_default();
    let scope = if kind.namespaced { Scope::Namespaced } else { Scope::Cluster };
    let api: Api<DynamicObject> = match scope {
        Scope::Namespaced => Api::namespaced_with(client, &key.namespace, &kind.resource),
        Scope::Cluster => Api::all_with(client, &kind.resource),
    };
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let events = watcher(api, config).default_backoff().into_stream();
    let name = Arc::new(key.clone());
    let started =
        Progress { types: (kind.resource.api_version.clone(), kind.resource.kind.clone()), ..Progress::default() };
    events
        .scan(started, move |progress, event| {
            let lines = match event {
                Ok(event) => progress.take(&name, event).into_iter().map(Ok).collect(),
                Err(error) => {
                    tracing::debug!(object = %name, error = errors::words(&error), "a watch is interrupted");
                    let problem = watch_problem(&error, &path);
                    Vec::from_iter(errors::denied(&problem).then_some(Err(problem)))
                }
            };
            futures::future::ready(Some(futures::stream::iter(lines)))
        })
        .flatten()
        .boxed()
}

/// What was shown of one object, so that what vanished while nobody watched is told too.
#[derive(Default)]
struct Progress {
    types: (String, String),
    shown: BTreeMap<String, Value>,
    listed: BTreeMap<String, Value>,
}

impl Progress {
    fn take(&mut self, name: &ObjectKey, event: Event<DynamicObject>) -> Vec<Value> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => self
                .shape(name, object)
                .into_iter()
                .map(|(uid, value)| {
                    self.listed.insert(uid, value.clone());
                    line("ADDED", value)
                })
                .collect(),
            Event::InitDone => {
                let gone = std::mem::replace(&mut self.shown, std::mem::take(&mut self.listed));
                let gone = gone.into_iter().filter(|(uid, _)| !self.shown.contains_key(uid));
                gone.map(|(_, value)| line("DELETED", value)).collect()
            }
            Event::Apply(object) => self
                .shape(name, object)
                .into_iter()
                .map(|(uid, value)| {
                    let kind = if self.shown.insert(uid, value.clone()).is_some() { "MODIFIED" } else { "ADDED" };
                    line(kind, value)
                })
                .collect(),
            Event::Delete(object) => self
                .shape(name, object)
                .into_iter()
                .map(|(uid, value)| {
                    self.shown.remove(&uid);
                    line("DELETED", value)
                })
                .collect(),
        }
    }

    /// The object as the recordings show it. Servers that do not know the field selector send others too.
    fn shape(&self, name: &ObjectKey, object: DynamicObject) -> Option<(String, Value)> {
        if object.metadata.name.as_deref() != Some(&name.name) {
            return None;
        }
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let mut value = serde_json::to_value(&object).ok()?;
        // Items of lists carry no kind of their own.
        let map = value.as_object_mut()?;
        map.insert("apiVersion".to_owned(), json!(self.types.0));
        map.insert("kind".to_owned(), json!(self.types.1));
        prune(&mut value, &self.types.1);
        Some((uid, value))
    }
}

fn line(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}
