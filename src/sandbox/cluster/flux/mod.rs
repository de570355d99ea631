//! The Flux-like controllers: one task for each GitRepository, Kustomization and HelmRelease.
//! Order and wording of what they write follow the recordings of Flux 2.9.

mod build;
mod conditions;
mod helm;
mod inventory;
mod kustomization;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock::go_duration;
use super::health::{Kstatus, kstatus};
use super::json::{get, list, set, text};
use super::kinds::Kind;
use super::{Engine, Shared};

const FINALIZER: &str = "finalizers.fluxcd.io";
const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";

/// Makes what an installed Flux has: its namespace.
pub fn prepare(shared: &Shared) {
    if let Err(failure) = shared.ensure_namespace("flux-system") {
        tracing::warn!(message = failure.message, "the sandbox could not prepare Flux");
    }
}

/// One object and how to reach it.
#[derive(Clone)]
struct Item {
    shared: Shared,
    kind: Arc<Kind>,
    namespace: String,
    name: String,
}

/// What a controller remembers of an object between its reconciliations.
#[derive(Default)]
struct Memory {
    /// When it is due again by itself.
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// The generation, the request and the source revision that were taken up last.
    taken: Option<(i64, String, String)>,
    /// Helm: the values of the releases, newest last.
    releases: Vec<(i64, Value)>,
}

impl Item {
    fn object(&self) -> Option<Arc<Value>> {
        self.shared.store.get(&self.kind, &self.namespace, &self.name)
    }

    fn status(&self, change: impl FnOnce(&mut Value)) {
        self.shared.store.edit(&self.kind, &self.namespace, &self.name, true, change);
    }

    fn now(&self) -> String {
        self.shared.clock().stamp()
    }

    /// Adds Flux's finalizer, as the controllers do first of all.
    fn claim(&self, object: &Value) {
        if !list(object, &["metadata", "finalizers"]).iter().any(|known| known == FINALIZER) {
            self.shared.store.edit(&self.kind, &self.namespace, &self.name, false, |new| {
                set(new, &["metadata", "finalizers"], json!([FINALIZER]))
            });
        }
    }

    fn release(&self) {
        self.shared.store.edit(&self.kind, &self.namespace, &self.name, false, |new| {
            set(new, &["metadata", "finalizers"], json!([]))
        });
    }

    fn spec_duration(object: &Value, field: &str, default: u64) -> Duration {
        go_duration(text(object, &["spec", field])).unwrap_or(Duration::from_secs(default))
    }

    /// Waits until all objects are current: at once when they are, else at each poll, ending early when one is stalled.
    async fn healthy(&self, ids: &[Watched], timeout: Duration) -> Result<Duration, (Duration, String)> {
        let clock = self.shared.clock();
        let start = Instant::now();
        // Durations are told as the real ones would be.
        let told = |start: Instant| start.elapsed().mul_f64(self.shared.options.speed);
        clock.millis(15).await;
        loop {
            let found: Vec<(String, Kstatus)> =
                ids.iter().map(|watched| (watched.id(), kstatus(watched.object(&self.shared).as_deref()))).collect();
            let named = |word: &dyn Fn(Kstatus) -> bool| {
                let all: Vec<String> = found
                    .iter()
                    .filter(|(_, status)| word(*status))
                    .map(|(id, status)| format!("{id} status: '{}'", status.word()))
                    .collect();
                all.join(", ")
            };
            if found.iter().all(|(_, status)| *status == Kstatus::Current) {
                return Ok(told(start));
            }
            let stalled = named(&|status| status == Kstatus::Failed);
            if !stalled.is_empty() {
                return Err((told(start), format!("failed early due to stalled resources: [{stalled}]")));
            }
            if start.elapsed() >= clock.scaled(timeout) {
                return Err((
                    told(start),
                    format!("timeout waiting for: [{}]", named(&|status| status != Kstatus::Current)),
                ));
            }
            let left = clock.scaled(timeout).saturating_sub(start.elapsed());
            tokio::time::sleep(
                clock.scaled(self.shared.options.flux_health_poll).min(left.max(Duration::from_millis(1))),
            )
            .await;
        }
    }
}

/// An object that a health check waits for.
#[derive(Debug, Clone)]
struct Watched {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Watched {
    fn of(object: &Value) -> Self {
        let group = text(object, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group).to_owned();
        let field = |path: &[&str]| text(object, path).to_owned();
        Self {
            group,
            kind: field(&["kind"]),
            namespace: field(&["metadata", "namespace"]),
            name: field(&["metadata", "name"]),
        }
    }

    /// `Deployment/ns/name`, as messages have it.
    fn id(&self) -> String {
        if self.namespace.is_empty() {
            format!("{}/{}", self.kind, self.name)
        } else {
            format!("{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }

    fn object(&self, shared: &Shared) -> Option<Arc<Value>> {
        shared.store.find(&self.group, &self.kind, &self.namespace, &self.name)
    }
}

/// The object that a `sourceRef` names, and its artifact's revision.
fn source_of(shared: &Shared, owner: &Value, reference: &[&str]) -> Option<(Arc<Value>, String)> {
    let field = |name: &str| {
        let mut path = reference.to_vec();
        path.push(name);
        text(owner, &path).to_owned()
    };
    let namespace = match field("namespace") {
        empty if empty.is_empty() => text(owner, &["metadata", "namespace"]).to_owned(),
        named => named,
    };
    let source = shared.store.find("source.toolkit.fluxcd.io", &field("kind"), &namespace, &field("name"))?;
    let revision = text(&source, &["status", "artifact", "revision"]).to_owned();
    Some((source, revision))
}

/// The commit in `main@sha1:…`.
fn commit_of(revision: &str) -> &str {
    revision.rsplit_once(':').map_or(revision, |(_, commit)| commit)
}

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let mut bells: HashMap<super::store::Key, Arc<Notify>> = HashMap::new();
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    let tasks = &mut tokio::task::JoinSet::new();
    loop {
        for event in shared.store.tail(seen) {
            seen = event.version;
            let (resource, namespace, name) = &event.key;
            if !matches!(
                resource.as_str(),
                "gitrepositories.source.toolkit.fluxcd.io"
                    | "kustomizations.kustomize.toolkit.fluxcd.io"
                    | "helmreleases.helm.toolkit.fluxcd.io"
            ) {
                continue;
            }
            if !bells.contains_key(&event.key)
                && let Some(kind) = shared.store.kinds.of(&event.object)
            {
                let bell = Arc::new(Notify::new());
                bells.insert(event.key.clone(), bell.clone());
                tasks.spawn(serve(
                    Item { shared: shared.clone(), kind, namespace: namespace.clone(), name: name.clone() },
                    bell,
                ));
            }
            // Sources wake what is built from them, and the ready wake those that depend on them.
            for (key, bell) in &bells {
                if *key == event.key
                    || (key.0 != "gitrepositories.source.toolkit.fluxcd.io"
                        && resource != "helmreleases.helm.toolkit.fluxcd.io")
                {
                    bell.notify_one();
                }
            }
        }
        if changed.wait_for(|version| *version > seen).await.is_err() {
            return;
        }
    }
}

async fn serve(item: Item, bell: Arc<Notify>) {
    let mut memory = Memory::default();
    let mut restarts = item.shared.switch(Engine::Flux).restarts();
    item.shared.clock().millis(40).await;
    loop {
        item.shared.switch(Engine::Flux).gate().await;
        if restarts.has_changed().unwrap_or(false) {
            restarts.mark_unchanged();
            memory = Memory::default();
        }
        if let Some(object) = item.object() {
            if due(&item, &object, &mut memory) {
                match item.kind.kind.as_str() {
                    "GitRepository" => source::reconcile(&item, &object, &mut memory).await,
                    "Kustomization" => kustomization::reconcile(&item, &object, &mut memory).await,
                    _ => helm::reconcile(&item, &object, &mut memory).await,
                }
                continue;
            }
        } else {
            memory = Memory::default();
        }
        let next = memory.due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = bell.notified() => {}
            () = tokio::time::sleep_until(next) => {}
            _ = restarts.changed() => {}
        }
    }
}

/// Whether there is a reason to reconcile: deletion, a new generation, request or source revision, or time.
fn due(item: &Item, object: &Value, memory: &mut Memory) -> bool {
    let deleting = get(object, &["metadata", "deletionTimestamp"]).is_some();
    let generation = super::json::number(object, &["metadata", "generation"], 0);
    let request = text(object, &["metadata", "annotations", REQUESTED]).to_owned();
    let revision = match item.kind.kind.as_str() {
        "Kustomization" => source_of(&item.shared, object, &["spec", "sourceRef"]).map(|(_, revision)| revision),
        "HelmRelease" => {
            source_of(&item.shared, object, &["spec", "chart", "spec", "sourceRef"]).map(|(_, revision)| revision)
        }
        _ => None,
    };
    let reason = Some((generation, request, revision.unwrap_or_default()));
    let new = memory.taken != reason;
    if deleting {
        return !list(object, &["metadata", "finalizers"]).is_empty();
    }
    if new {
        memory.failures = 0;
    }
    if new || memory.due.is_none_or(|due| due <= Instant::now()) {
        memory.taken = reason;
        return true;
    }
    false
}
