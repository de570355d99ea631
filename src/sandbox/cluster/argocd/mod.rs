//! The Argo-like controller: one task for each Application, woken by its own changes, by those of its live
//! objects, and by time. Order and wording of what it writes follow the recordings of Argo CD 3.5.

mod apply;
mod auto;
mod compare;
mod operation;
mod project;
mod sets;
mod target;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::json::{flag, get, list, remove, set, text};
use super::kinds::Kind;
use super::store::Propagation;
use super::{Engine, Shared};

/// The control plane's namespace.
pub const NAMESPACE: &str = "argocd";
const TRACKING: &str = "argocd.argoproj.io/tracking-id";
const REFRESH: &str = "argocd.argoproj.io/refresh";
const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

/// Makes what an installed Argo CD has: its namespace, its settings, the default project.
pub fn prepare(shared: &Shared) {
    let settings = |name: &str, data: Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app.kubernetes.io/part-of": "argocd" } }, "data": data,
        })
    };
    let objects = [
        settings("argocd-cm", json!({ "application.resourceTrackingMethod": "annotation" })),
        settings("argocd-cmd-params-cm", json!({})),
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": { "name": "default", "namespace": NAMESPACE },
            "spec": {
                "sourceRepos": ["*"], "destinations": [{ "server": "*", "namespace": "*" }],
                "clusterResourceWhitelist": [{ "group": "*", "kind": "*" }],
            },
        }),
    ];
    for object in &objects {
        if let Err(failure) = shared.apply(object) {
            tracing::warn!(message = failure.message, "the sandbox could not prepare Argo CD");
        }
    }
}

/// What wakes an Application's task.
#[derive(Default)]
struct Bell {
    notify: Notify,
    live: Mutex<bool>,
}

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let Some(kind) = shared.store.kinds.by_kind("argoproj.io", "Application") else {
        return;
    };
    let mut bells: HashMap<String, Arc<Bell>> = HashMap::new();
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    let tasks = &mut tokio::task::JoinSet::new();
    tasks.spawn(sets::run(shared.clone()));
    loop {
        for event in shared.store.tail(seen) {
            seen = event.version;
            let (resource, namespace, name) = &event.key;
            if resource == "applications.argoproj.io" {
                let bell = bells.entry(format!("{namespace}/{name}")).or_insert_with(|| {
                    let bell = Arc::new(Bell::default());
                    tasks.spawn(serve(shared.clone(), kind.clone(), namespace.clone(), name.clone(), bell.clone()));
                    bell
                });
                bell.notify.notify_one();
                // An Application may itself be a live object of another one (app of apps): its parent hears of it too.
            }
            for object in [Some(&event.object), event.before.as_ref()].into_iter().flatten() {
                if let Some(owner) = owner_of(object)
                    && let Some(bell) = bells.get(&owner)
                {
                    *bell.live.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    bell.notify.notify_one();
                }
            }
        }
        if changed.wait_for(|version| *version > seen).await.is_err() {
            return;
        }
    }
}

/// `namespace/name` of the Application that an object's tracking id names (`<app>` or `<namespace>_<app>` before the first `:`).
fn owner_of(object: &Value) -> Option<String> {
    let id = get(object, &["metadata", "annotations", TRACKING])?.as_str()?;
    if !list(object, &["metadata", "ownerReferences"]).is_empty() {
        return None;
    }
    let instance = id.split(':').next()?;
    Some(match instance.split_once('_') {
        Some((namespace, name)) => format!("{namespace}/{name}"),
        None => format!("{NAMESPACE}/{instance}"),
    })
}

/// One Application and what its controller remembers of it.
struct App {
    shared: Shared,
    kind: Arc<Kind>,
    namespace: String,
    name: String,
    /// Commit of (repository, ref), and until when it is believed.
    revisions: HashMap<(String, String), (String, Instant)>,
    /// Rendered manifests by (repository, commit, path).
    manifests: HashMap<(String, String, String), target::Rendered>,
    /// How often rendering failed, likewise.
    failures: HashMap<(String, String, String), u32>,
    resync: Instant,
    retry: Option<Instant>,
    heal: Option<Instant>,
}

/// Why a comparison is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// A live object changed: the known revision is compared.
    Live,
    /// It is time again.
    Resync,
    /// The refresh annotation asks.
    Normal,
    /// It asks for fresh manifests too.
    Hard,
}

async fn serve(shared: Shared, kind: Arc<Kind>, namespace: String, name: String, bell: Arc<Bell>) {
    let mut restarts = shared.switch(Engine::Argocd).restarts();
    let mut app = App {
        resync: Instant::now(),
        shared,
        kind,
        namespace,
        name,
        revisions: HashMap::new(),
        manifests: HashMap::new(),
        failures: HashMap::new(),
        retry: None,
        heal: None,
    };
    // A new Application is picked up in a moment.
    app.shared.clock().millis(60).await;
    loop {
        app.shared.switch(Engine::Argocd).gate().await;
        if restarts.has_changed().unwrap_or(false) {
            restarts.mark_unchanged();
            app.revisions.clear();
            app.manifests.clear();
            app.failures.clear();
            app.resync = Instant::now();
        }
        let Some(object) = app.object() else {
            // Gone; a namesake rings the same bell.
            bell.notify.notified().await;
            app.resync = Instant::now();
            continue;
        };
        if app.step(&object, &bell).await {
            continue;
        }
        let next = [Some(app.resync), app.retry, app.heal].into_iter().flatten().min().unwrap_or(app.resync);
        tokio::select! {
            () = bell.notify.notified() => {}
            () = tokio::time::sleep_until(next) => {}
            _ = restarts.changed() => app.resync = Instant::now(),
        }
    }
}

impl App {
    fn object(&self) -> Option<Arc<Value>> {
        self.shared.store.get(&self.kind, &self.namespace, &self.name)
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) -> Option<Arc<Value>> {
        self.shared.store.edit(&self.kind, &self.namespace, &self.name, false, change)
    }

    /// The name in tracking ids.
    fn instance(&self) -> String {
        if self.namespace == NAMESPACE { self.name.clone() } else { format!("{}_{}", self.namespace, self.name) }
    }

    /// Does what is most due; `false` when nothing is.
    async fn step(&mut self, object: &Value, bell: &Bell) -> bool {
        if get(object, &["metadata", "deletionTimestamp"]).is_some() {
            self.cascade(object);
            return false;
        }
        if text(object, &["metadata", "annotations", "argocd.argoproj.io/skip-reconcile"]) == "true" {
            self.resync = Instant::now() + Duration::from_secs(3600);
            return false;
        }
        let phase = text(object, &["status", "operationState", "phase"]);
        if phase == "Terminating" {
            self.terminated();
            return true;
        }
        if object.get("operation").is_some_and(Value::is_object) && self.retry.is_none_or(|at| at <= Instant::now()) {
            self.retry = None;
            self.operate(object).await;
            return true;
        }
        let live = std::mem::take(&mut *bell.live.lock().unwrap_or_else(PoisonError::into_inner));
        let now = Instant::now();
        let level = match text(object, &["metadata", "annotations", REFRESH]) {
            "hard" => Level::Hard,
            "normal" => Level::Normal,
            _ if self.resync <= now => Level::Resync,
            _ if live || self.heal.is_some_and(|at| at <= now) => Level::Live,
            _ => return false,
        };
        if level != Level::Live {
            self.resync = now + self.shared.clock().scaled(self.shared.options.argo_resync);
        }
        self.heal = None;
        self.refresh(level).await;
        true
    }

    /// With the resources finalizer, deleting an Application deletes what it manages.
    fn cascade(&self, object: &Value) {
        let finalizers = list(object, &["metadata", "finalizers"]);
        if !finalizers.iter().any(|known| known.as_str().is_some_and(|known| known.starts_with(FINALIZER))) {
            return;
        }
        for (_, live) in self.managed() {
            if let Some(kind) = self.shared.store.kinds.of(&live) {
                let (namespace, name) = (text(&live, &["metadata", "namespace"]), text(&live, &["metadata", "name"]));
                drop(self.shared.store.delete(&kind, namespace, name, Propagation::Foreground, false));
            }
        }
        self.edit(|app| {
            let left: Vec<Value> = list(app, &["metadata", "finalizers"])
                .iter()
                .filter(|known| !known.as_str().is_some_and(|k| k.starts_with(FINALIZER)))
                .cloned()
                .collect();
            set(app, &["metadata", "finalizers"], Value::Array(left));
        });
    }

    /// The live objects that carry this Application's tracking id.
    fn managed(&self) -> Vec<(super::store::Key, Arc<Value>)> {
        let me = format!("{}/{}", self.namespace, self.name);
        self.shared
            .store
            .everything()
            .into_iter()
            .filter(|(_, object)| owner_of(object).as_deref() == Some(&me))
            .collect()
    }

    fn terminated(&mut self) {
        self.retry = None;
        let now = self.shared.clock().stamp();
        self.edit(|app| {
            remove(app, &["operation"]);
            set(app, &["status", "operationState", "phase"], json!("Failed"));
            set(app, &["status", "operationState", "message"], json!("Operation terminated"));
            set(app, &["status", "operationState", "finishedAt"], json!(now));
        });
    }

    fn automated(app: &Value) -> bool {
        let automated = get(app, &["spec", "syncPolicy", "automated"]);
        automated.is_some_and(|automated| {
            automated.is_object() && (automated.get("enabled").is_none() || flag(automated, &["enabled"]))
        })
    }
}
