//! The object store: versions, generations, finalizers, and the event log that watches read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::admission;
use super::clock::Clock;
use super::json::{get, list, remove, set, text};
use super::kinds::{Kind, Kinds};
use super::merge;
use super::meta::{bump_generation, has_generation, keeps_status_on_create, settle};
pub use super::meta::{key, suffix, uid};
use super::reply::Failure;
use super::schema::{Node, schemas};

/// Where an object lives: resource (`deployments.apps`), namespace, name.
pub type Key = (String, String, String);

/// What a watch reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// New.
    Added,
    /// Written.
    Modified,
    /// Gone.
    Deleted,
}

/// One entry of the event log.
#[derive(Debug, Clone)]
pub struct Event {
    /// The resource version that this change made.
    pub version: u64,
    /// What happened.
    pub change: Change,
    /// Whose.
    pub key: Key,
    /// The object afterwards (for a deletion: its last state).
    pub object: Arc<Value>,
    /// The object before, for selectors that it has left.
    pub before: Option<Arc<Value>>,
}

/// How a write is to be done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Write {
    /// Through the status subresource.
    pub status: bool,
    /// Answer as if, store nothing.
    pub dry_run: bool,
}

/// How dependents of a deleted object are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// Dependents go afterwards.
    #[default]
    Background,
    /// Dependents go first.
    Foreground,
    /// Dependents stay.
    Orphan,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    log: VecDeque<Arc<Event>>,
    compacted: u64,
    applied: HashMap<Key, HashMap<String, Value>>,
}

/// The store; cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<watch::Sender<u64>>,
    /// The served kinds.
    pub kinds: Kinds,
    /// The sandbox's clock.
    pub clock: Clock,
    log_limit: usize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store.
    pub fn new(kinds: Kinds, clock: Clock, log_limit: usize) -> Self {
        Self {
            inner: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            kinds,
            clock,
            log_limit: log_limit.max(16),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Wakes at each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// One object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().objects.get(&key(kind, namespace, name)).cloned()
    }

    /// One object by group and kind; `None` also when the kind is not served.
    pub fn find(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.get(self.kinds.by_kind(group, kind)?.as_ref(), namespace, name)
    }

    /// All objects of a kind, of one namespace or of all, in order of namespace and name, and the version they are of.
    pub fn list(&self, kind: &Kind, namespace: &str) -> (Vec<Arc<Value>>, u64) {
        let inner = self.lock();
        let from = (kind.resource(), namespace.to_owned(), String::new());
        let found = inner
            .objects
            .range(from..)
            .take_while(|((resource, ns, _), _)| {
                *resource == kind.resource() && (namespace.is_empty() || ns == namespace)
            })
            .map(|(_, object)| object.clone())
            .collect();
        (found, inner.version)
    }

    /// Every object there is.
    pub fn everything(&self) -> Vec<(Key, Arc<Value>)> {
        self.lock().objects.iter().map(|(key, object)| (key.clone(), object.clone())).collect()
    }

    /// The events after `version`, or 410 when they are no longer held.
    pub fn since(&self, version: u64) -> Result<Vec<Arc<Event>>, Failure> {
        let inner = self.lock();
        if version < inner.compacted {
            return Err(Failure::gone(version, inner.compacted));
        }
        let at = inner.log.partition_point(|event| event.version <= version);
        Ok(inner.log.iter().skip(at).cloned().collect())
    }

    /// The events after `version` for the sandbox's own controllers, which no compaction disturbs.
    pub fn tail(&self, version: u64) -> Vec<Arc<Event>> {
        let inner = self.lock();
        let at = inner.log.partition_point(|event| event.version <= version);
        inner.log.iter().skip(at).cloned().collect()
    }

    /// The oldest version that a watch or a continued list may start from.
    pub fn oldest(&self) -> u64 {
        self.lock().compacted
    }

    /// Makes every older version too old for watches: they get 410.
    pub fn compact(&self) {
        let mut inner = self.lock();
        inner.compacted = inner.version;
    }

    fn record(
        &self,
        inner: &mut Inner,
        change: Change,
        key: Key,
        mut object: Value,
        before: Option<Arc<Value>>,
    ) -> Arc<Value> {
        inner.version += 1;
        set(&mut object, &["metadata", "resourceVersion"], json!(inner.version.to_string()));
        let object = Arc::new(object);
        match change {
            Change::Deleted => {
                inner.objects.remove(&key);
                inner.applied.remove(&key);
            }
            _ => {
                inner.objects.insert(key.clone(), object.clone());
            }
        }
        inner.log.push_back(Arc::new(Event { version: inner.version, change, key, object: object.clone(), before }));
        while inner.log.len() > self.log_limit {
            if let Some(old) = inner.log.pop_front() {
                inner.compacted = old.version;
            }
        }
        self.changed.send_replace(inner.version);
        object
    }

    /// Creates an object, with defaults and checks.
    pub fn create(&self, kind: &Kind, namespace: &str, mut object: Value, write: Write) -> Result<Arc<Value>, Failure> {
        if text(&object, &["metadata", "name"]).is_empty() {
            let prefix = text(&object, &["metadata", "generateName"]);
            if !prefix.is_empty() {
                let name = format!("{prefix}{}", suffix(5));
                set(&mut object, &["metadata", "name"], json!(name));
            }
        }
        let name = text(&object, &["metadata", "name"]).to_owned();
        if kind.namespaced {
            let inside = text(&object, &["metadata", "namespace"]);
            if !inside.is_empty() && inside != namespace {
                return Err(Failure::bad(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            set(&mut object, &["metadata", "namespace"], json!(namespace));
        }
        admission::defaults(kind, &mut object);
        admission::validate(kind, &object, None)?;
        let mut inner = self.lock();
        let key = key(kind, namespace, &name);
        if inner.objects.contains_key(&key) {
            return Err(Failure::exists(kind, &name));
        }
        self.check_namespace(&inner, kind, namespace)?;
        for field in ["deletionTimestamp", "managedFields", "selfLink"] {
            remove(&mut object, &["metadata", field]);
        }
        set(&mut object, &["metadata", "uid"], json!(uid()));
        set(&mut object, &["metadata", "creationTimestamp"], json!(self.clock.stamp()));
        if has_generation(kind) {
            set(&mut object, &["metadata", "generation"], json!(1));
        }
        if kind.status && !keeps_status_on_create(kind) {
            remove(&mut object, &["status"]);
            admission::defaults(kind, &mut object);
        }
        if write.dry_run {
            return Ok(Arc::new(object));
        }
        let stored = self.record(&mut inner, Change::Added, key, object, None);
        drop(inner);
        if kind.kind == "CustomResourceDefinition" {
            self.kinds.add_crd(&stored);
        }
        Ok(stored)
    }

    fn check_namespace(&self, inner: &Inner, kind: &Kind, namespace: &str) -> Result<(), Failure> {
        if !kind.namespaced {
            return Ok(());
        }
        let Some(namespaces) = self.kinds.by_kind("", "Namespace") else {
            return Ok(());
        };
        if inner.objects.contains_key(&key(&namespaces, "", namespace)) {
            Ok(())
        } else {
            Err(Failure::not_found(&namespaces, namespace))
        }
    }

    /// Changes an object: `change` gets the stored one and returns the new one. A write that alters nothing makes no event.
    pub fn update(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        write: Write,
        change: impl FnOnce(&Value) -> Result<Value, Failure>,
    ) -> Result<Arc<Value>, Failure> {
        let mut inner = self.lock();
        let key = key(kind, namespace, name);
        let stored = inner.objects.get(&key).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        let mut new = change(&stored)?;
        if text(&new, &["metadata", "name"]) != name {
            return Err(Failure::bad("the name of the object does not match the name on the URL"));
        }
        let asked = text(&new, &["metadata", "resourceVersion"]);
        if !asked.is_empty() && asked != text(&stored, &["metadata", "resourceVersion"]) {
            return Err(Failure::conflict(kind, name));
        }
        settle(kind, &stored, &mut new, write.status);
        admission::defaults(kind, &mut new);
        admission::validate(kind, &new, Some(&stored))?;
        if same_but_version(&stored, &new) {
            return Ok(stored);
        }
        bump_generation(kind, &stored, &mut new);
        if write.dry_run {
            return Ok(Arc::new(new));
        }
        let deleting = get(&new, &["metadata", "deletionTimestamp"]).is_some();
        if deleting && list(&new, &["metadata", "finalizers"]).is_empty() {
            return Ok(self.record(&mut inner, Change::Deleted, key, new, Some(stored)));
        }
        Ok(self.record(&mut inner, Change::Modified, key, new, Some(stored)))
    }

    /// Server-side apply, approximated: a three-way merge with what this manager applied last.
    pub fn apply(
        &self,
        kind: &Kind,
        namespace: &str,
        manager: &str,
        config: &Value,
        write: Write,
    ) -> Result<Arc<Value>, Failure> {
        let name = text(config, &["metadata", "name"]).to_owned();
        let key = key(kind, namespace, &name);
        let node = schemas().of_object(config).unwrap_or(Node::Any);
        let last =
            self.lock().applied.get(&key).and_then(|managers| managers.get(manager)).cloned().unwrap_or(Value::Null);
        let done = if self.get(kind, namespace, &name).is_some() {
            self.update(kind, namespace, &name, write, |live| {
                let mut new = live.clone();
                merge::three_way(schemas(), &node, &last, &mut new, config);
                Ok(new)
            })?
        } else {
            self.create(kind, namespace, config.clone(), write)?
        };
        if !write.dry_run && !write.status {
            self.lock().applied.entry(key).or_default().insert(manager.to_owned(), config.clone());
        }
        Ok(done)
    }

    /// What a manager applied last, or null.
    pub fn last_applied(&self, kind: &Kind, namespace: &str, name: &str, manager: &str) -> Value {
        let key = key(kind, namespace, name);
        self.lock().applied.get(&key).and_then(|managers| managers.get(manager)).cloned().unwrap_or(Value::Null)
    }

    /// Deletes, or marks for deletion while finalizers stand. The answer is the object's last state.
    pub fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        how: Propagation,
        dry_run: bool,
    ) -> Result<Arc<Value>, Failure> {
        let mut inner = self.lock();
        let key = key(kind, namespace, name);
        let stored = inner.objects.get(&key).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        if dry_run {
            return Ok(stored);
        }
        let mut object = (*stored).clone();
        let mut finalizers: Vec<Value> = list(&object, &["metadata", "finalizers"]).to_vec();
        match how {
            Propagation::Foreground => finalizers.push(json!("foregroundDeletion")),
            Propagation::Orphan => finalizers.push(json!("orphan")),
            Propagation::Background => {}
        }
        if kind.kind == "Namespace" {
            finalizers.push(json!("kubernetes"));
            set(&mut object, &["status", "phase"], json!("Terminating"));
        }
        finalizers.dedup();
        if finalizers.is_empty() {
            return Ok(self.record(&mut inner, Change::Deleted, key, object, Some(stored)));
        }
        if get(&object, &["metadata", "deletionTimestamp"]).is_some() {
            return Ok(stored);
        }
        set(&mut object, &["metadata", "finalizers"], Value::Array(finalizers));
        set(&mut object, &["metadata", "deletionTimestamp"], json!(self.clock.stamp()));
        set(&mut object, &["metadata", "deletionGracePeriodSeconds"], json!(0));
        Ok(self.record(&mut inner, Change::Modified, key, object, Some(stored)))
    }

    /// For the sandbox's own controllers: changes an object in place; a vanished object is no error.
    pub fn edit(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        status: bool,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        self.update(kind, namespace, name, Write { status, dry_run: false }, |stored| {
            let mut new = stored.clone();
            change(&mut new);
            Ok(new)
        })
        .ok()
    }
}

fn same_but_version(stored: &Value, new: &Value) -> bool {
    stored == new
}
