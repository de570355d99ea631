//! Reads of a cluster, and the ownership index.
//!
//! [`Cluster`] answers from watches where it can and reads the rest. It never writes, except for
//! the refresh hints of [`Cluster::annotate`], which the configuration has to allow.

mod adopt;
mod autoscale;
mod book;
mod errors;
mod feed;
mod health;
mod kinds;
mod nearest;
mod owner;
mod requests;
mod rights;
mod schema;
mod standing;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::error::{Problem, Result};
use countersign_core::model::{ClusterSpec, ObjectKey, ResourceRef};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

pub use autoscale::Autoscaler;
pub use book::{Feeder, OwnerLine};
pub use health::{containers, find_container, workload_health};
pub use kinds::Kind;
pub use nearest::nearest;
pub use owner::Located;
pub use requests::Hinted;
pub use rights::{About, Followed, Right};
pub use schema::check;
pub use standing::{OwnerCount, WatchStanding, WatchState};

/// One cluster: clones share everything. Dropping the last one ends its watches.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    name: String,
    spec: ClusterSpec,
    client: kube::Client,
    /// Addresses under which Applications may name this very cluster.
    here: Arc<[String]>,
    kinds: kinds::Kinds,
    book: Arc<book::Shared>,
    schemas: schema::Schemas,
    planes: owner::PlaneCache,
    watches: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster by its configuration; its watches begin at once and last until [`Cluster::close`].
    ///
    /// Fails only where the kubeconfig cannot be used (`cluster.config`): an API server that does
    /// not answer is `cluster.unreachable` of each call, and is tried again.
    pub async fn connect(name: &str, spec: ClusterSpec) -> Result<Self> {
        let (client, here) = client(name, &spec).await?;
        let kinds = kinds::Kinds::new(client.clone());
        let book = Arc::new(book::Shared::default());
        let watches = watch::start(name, &client, &book, &here);
        let schemas = schema::Schemas::new(client.clone());
        let planes = owner::PlaneCache::default();
        let name = name.to_owned();
        let watches = Mutex::new(watches);
        Ok(Self(Arc::new(Inner { name, spec, client, here, kinds, book, schemas, planes, watches })))
    }

    /// Ends the watches and waits until they are over: then nobody is asked any more by itself.
    pub async fn close(&self) {
        let watches = std::mem::take(&mut *self.0.watches.lock().unwrap_or_else(PoisonError::into_inner));
        watches.iter().for_each(|w| w.abort());
        for watch in watches {
            let _ = watch.await;
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its configuration.
    pub fn spec(&self) -> &ClusterSpec {
        &self.0.spec
    }

    /// Whether the API server answers.
    pub async fn ping(&self) -> Result<()> {
        requests::get(&self.0.client, "/version").await.map(|_| ())
    }

    /// The kind that a name stands for; `input.kind_unknown` with the nearest names,
    /// `input.kind_ambiguous` with the choices.
    pub async fn kind(&self, kind: &str, group: Option<&str>) -> Result<Kind> {
        self.0.kinds.resolve(kind, group).await
    }

    /// The object that a target names, as a key; the object itself need not exist.
    pub async fn key_of(&self, target: &ResourceRef) -> Result<ObjectKey> {
        let kind = self.kind(&target.kind, target.group.as_deref()).await?;
        kind.key(&target.namespace, &target.name)
    }

    /// The object that a target names; `None` where there is none.
    pub async fn get(&self, target: &ResourceRef) -> Result<Option<Value>> {
        let key = self.key_of(target).await?;
        self.read(&key).await
    }

    /// One object by key, without `managedFields` and without the values of Secrets; `None` where there is
    /// none, also where its kind is not served.
    pub async fn read(&self, key: &ObjectKey) -> Result<Option<Value>> {
        let Some(kind) = self.0.kinds.find(&key.group, &key.kind).await? else { return Ok(None) };
        let Some(url) = kind.url(&key.namespace, &key.name) else { return Ok(None) };
        let found = requests::get_optional(&self.0.client, &url).await?;
        Ok(found.map(|mut object| {
            prune(&mut object, &key.kind);
            object
        }))
    }

    /// The same with its `managedFields`, which say who wrote which field.
    pub async fn read_managed(&self, key: &ObjectKey) -> Result<Option<(Value, Vec<Value>)>> {
        let Some(kind) = self.0.kinds.find(&key.group, &key.kind).await? else { return Ok(None) };
        let Some(url) = kind.url(&key.namespace, &key.name) else { return Ok(None) };
        let found = requests::get_optional(&self.0.client, &url).await?;
        Ok(found.map(|mut object| {
            let managed = object.pointer_mut("/metadata/managedFields").map(Value::take);
            prune(&mut object, &key.kind);
            let managed = managed.and_then(|m| m.as_array().cloned()).unwrap_or_default();
            (object, managed)
        }))
    }

    /// The target's object, or `cluster.not_found` with the nearest names of its kind and namespace.
    pub async fn require(&self, target: &ResourceRef) -> Result<(ObjectKey, Value)> {
        let key = self.key_of(target).await?;
        match self.read(&key).await? {
            Some(object) => Ok((key, object)),
            None => Err(self.not_found(&key).await),
        }
    }

    /// `cluster.not_found` for a key, with the nearest names of its kind and namespace where they can be listed.
    pub async fn not_found(&self, key: &ObjectKey) -> Problem {
        let problem = Problem::new(
            "cluster.not_found",
            format!("There is no {key} in {}.", self.0.name),
            "Correct the name, or create the object with a create operation.",
        );
        let Ok(Some(kind)) = self.0.kinds.find(&key.group, &key.kind).await else { return problem };
        let names = match kind.collection(&key.namespace) {
            Some(url) => requests::names(&self.0.client, &url).await.unwrap_or_default(),
            None => Vec::new(),
        };
        problem.with_all(nearest(&key.name, names.iter().map(String::as_str), 3))
    }

    /// Objects of a kind in a namespace, without `managedFields`; empty where the kind is not served.
    /// `selector` is `labelSelector:…` or `fieldSelector:…`; more than 10,000 objects are `cluster.too_many`.
    pub async fn list(&self, group: &str, kind: &str, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let Some(served) = self.0.kinds.find(group, kind).await? else { return Ok(Vec::new()) };
        let Some(url) = served.collection(namespace) else { return Ok(Vec::new()) };
        let mut items = requests::list(&self.0.client, &url, selector).await?;
        for item in &mut items {
            prune(item, kind);
        }
        Ok(items)
    }

    /// Sets one annotation on an object: the engines' refresh hints, nothing else. Refused by the
    /// cluster (403) is an answer, not an error. Never sent unless the configuration says `hints: true`.
    pub async fn annotate(&self, key: &ObjectKey, annotation: &str, value: &str) -> Result<Hinted> {
        if !self.0.spec.hints {
            return Ok(Hinted::Off);
        }
        let Some(kind) = self.0.kinds.find(&key.group, &key.kind).await? else { return Ok(Hinted::Gone) };
        let Some(url) = kind.url(&key.namespace, &key.name) else { return Ok(Hinted::Gone) };
        requests::annotate(&self.0.client, &url, annotation, value).await
    }
}

/// Takes out what no reader needs, and the values of Secrets, which nobody may see.
fn prune(object: &mut Value, kind: &str) {
    if kind == "Secret" {
        for field in ["data", "stringData"] {
            if let Some(map) = object.get_mut(field).and_then(Value::as_object_mut) {
                map.values_mut().for_each(|v| *v = Value::from("(not read)"));
            }
        }
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            // A copy of the whole manifest, for Secrets with their values.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
}

async fn client(name: &str, spec: &ClusterSpec) -> Result<(kube::Client, Arc<[String]>)> {
    let bad = |why: String| {
        Problem::new(
            "cluster.config",
            format!("The configuration of cluster {name} cannot be used: {why}."),
            "Correct kubeconfig and context of the Cluster; kubectl --kubeconfig FILE --context NAME get ns shows whether they work.",
        )
    };
    let options = KubeConfigOptions { context: spec.context.clone(), ..Default::default() };
    let config = match (&spec.kubeconfig, &spec.context) {
        (Some(path), _) => {
            let read = Kubeconfig::read_from(path).map_err(|e| bad(errors::words(&e)))?;
            kube::Config::from_custom_kubeconfig(read, &options).await.map_err(|e| bad(errors::words(&e)))?
        }
        (None, Some(_)) => kube::Config::from_kubeconfig(&options).await.map_err(|e| bad(errors::words(&e)))?,
        (None, None) => kube::Config::infer().await.map_err(|e| bad(errors::words(&e)))?,
    };
    let mut config = config;
    config.connect_timeout = Some(requests::CONNECT_TIMEOUT);
    // An engine that is away is told at once; the watches have their own back-off.
    config.default_retry = false;
    let here: Arc<[String]> = Arc::from([config.cluster_url.to_string()]);
    let client = kube::Client::try_from(config).map_err(|e| bad(errors::words(&e)))?;
    Ok((client, here))
}
