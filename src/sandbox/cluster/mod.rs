//! The sandbox cluster: a Kubernetes API server with the workload controllers, an Argo-like and a Flux-like
//! engine, on loopback over the real protocols. They really read Git and write the status fields that the
//! recordings of the real engines show, in the same order.

pub mod access;
pub mod admission;
pub mod apiserver;
pub mod argocd;
pub mod autoscaler;
pub mod clock;
pub mod control;
pub mod discovery;
pub mod flux;
pub mod gc;
pub mod gitread;
pub mod health;
pub mod images;
pub mod json;
pub mod kinds;
pub mod merge;
pub mod meta;
pub mod objects;
pub mod openapi;
pub mod oracle;
pub mod pods;
pub mod progress;
pub mod rbac;
pub mod record;
pub mod render;
pub mod replicas;
pub mod reply;
pub mod review;
pub mod rollout;
pub mod scale;
pub mod schema;
pub mod select;
pub mod store;
pub mod verbs;
pub mod view;
pub mod watch;
pub mod workloads;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use countersign_core::error::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch as signal};
use tokio::task::JoinHandle;

use access::{Access, Denial};
use clock::Clock;
use gitread::GitReader;
pub use images::Behaviour;
use images::Images;
use kinds::Kinds;
use oracle::{Entry, Log};
use reply::Failure;
use store::{Propagation, Store, Write};

/// What the sandbox says its version is; the recordings were made on the same.
pub const VERSION: &str = "v1.36.3";

/// One of the GitOps engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The Argo-like controller.
    Argocd,
    /// The Flux-like controllers.
    Flux,
    /// The workload controllers: Deployments and what follows from them.
    Workloads,
}

/// How the sandbox is started. Durations are those of the real engines and are divided by `speed`.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Divides every wait; 1 is as slow as the real engines.
    pub speed: f64,
    /// Whether the Argo-like controller and its kinds are there.
    pub argocd: bool,
    /// Whether the Flux-like controllers and their kinds are there.
    pub flux: bool,
    /// Where the wall clock starts; the system's time when absent. It runs on tokio's clock.
    pub start: Option<DateTime<Utc>>,
    /// Where to listen; a port of 0 picks a free one.
    pub listen: SocketAddr,
    /// Bearer tokens and the users they stand for; empty lets everyone in as `sandbox-admin`.
    pub tokens: HashMap<String, String>,
    /// Where mutating requests are also written, one JSON object a line.
    pub log_file: Option<PathBuf>,
    /// How many events are held for watches; older versions get 410.
    pub event_log: usize,
    /// How long Argo trusts a branch's commit without a refresh (3 minutes in reality).
    pub argo_revision_cache: Duration,
    /// How often Argo compares by itself (5 s in the recordings, 3 minutes by default in reality).
    pub argo_resync: Duration,
    /// How often Flux looks at the health of what it waits for.
    pub flux_health_poll: Duration,
    /// How long an ordinary image takes until its pod is ready.
    pub pod_ready: Duration,
    /// User and password for `http(s)` Git remotes.
    pub git_login: Option<(String, String)>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            speed: 4.0,
            argocd: true,
            flux: true,
            start: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tokens: HashMap::new(),
            log_file: None,
            event_log: 50_000,
            argo_revision_cache: Duration::from_secs(180),
            argo_resync: Duration::from_secs(5),
            flux_health_poll: Duration::from_secs(5),
            pod_ready: Duration::from_millis(200),
            git_login: None,
        }
    }
}

/// A pause button and a restart counter.
#[derive(Debug)]
pub struct Switch {
    paused: signal::Sender<bool>,
    restarts: signal::Sender<u64>,
}

impl Default for Switch {
    fn default() -> Self {
        Self { paused: signal::Sender::new(false), restarts: signal::Sender::new(0) }
    }
}

impl Switch {
    /// Returns at once while running, else when resumed.
    pub async fn gate(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.paused.subscribe().wait_for(|paused| !paused).await);
    }

    /// How often the engine was restarted: a controller that remembers things forgets them when this moves.
    pub fn restarts(&self) -> signal::Receiver<u64> {
        self.restarts.subscribe()
    }
}

/// What all parts of one sandbox share.
pub struct State {
    /// The objects.
    pub store: Store,
    /// Who may do what.
    pub access: Access,
    /// Mutating requests.
    pub log: Log,
    /// How container images behave.
    pub images: Images,
    /// Reads Git repositories.
    pub git: GitReader,
    /// `127.0.0.1:port`.
    pub address: String,
    /// The options it was started with.
    pub options: ClusterOptions,
    pub(crate) watch_epoch: signal::Sender<u64>,
    pub(crate) available: signal::Sender<bool>,
    pub(crate) acts: broadcast::Sender<Value>,
    switches: [Switch; 3],
}

/// Shared state; cheap to clone.
pub type Shared = Arc<State>;

impl State {
    /// The sandbox's clock.
    pub fn clock(&self) -> Clock {
        self.store.clock
    }

    /// An engine's pause button.
    pub fn switch(&self, engine: Engine) -> &Switch {
        let [argocd, flux, workloads] = &self.switches;
        match engine {
            Engine::Argocd => argocd,
            Engine::Flux => flux,
            Engine::Workloads => workloads,
        }
    }

    /// Pauses or resumes an engine.
    pub fn pause(&self, engine: Engine, paused: bool) {
        self.switch(engine).paused.send_replace(paused);
    }

    /// Makes an engine forget what it has in memory, and resumes it.
    pub fn restart(&self, engine: Engine) {
        self.switch(engine).restarts.send_modify(|count| *count += 1);
        self.pause(engine, false);
    }

    /// With `false`, requests get 503 and watches end.
    pub fn set_available(&self, available: bool) {
        self.available.send_replace(available);
        if !available {
            self.drop_watches();
        }
    }

    /// Ends every watch; clients come back.
    pub fn drop_watches(&self) {
        self.watch_epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Applies an object (three-way with what the sandbox applied before), making its namespace when needed.
    pub fn apply(&self, object: &Value) -> Result<Arc<Value>, Failure> {
        let kind = self.store.kinds.of(object).ok_or_else(Failure::no_route)?;
        let namespace = json::text(object, &["metadata", "namespace"]);
        let namespace = if kind.namespaced && namespace.is_empty() { "default" } else { namespace };
        if kind.namespaced {
            self.ensure_namespace(namespace)?;
        }
        let done = self.store.apply(&kind, namespace, "sandbox", object, Write::default())?;
        if kind.status
            && let Some(status) = object.get("status")
        {
            let status = status.clone();
            let name = json::text(object, &["metadata", "name"]);
            return self
                .store
                .edit(&kind, namespace, name, true, |new| json::set(new, &["status"], status))
                .ok_or_else(|| Failure::not_found(&kind, name));
        }
        Ok(done)
    }

    /// Makes a namespace unless it is there.
    pub fn ensure_namespace(&self, name: &str) -> Result<(), Failure> {
        let kind = self.store.kinds.by_kind("", "Namespace").ok_or_else(Failure::no_route)?;
        if self.store.get(&kind, "", name).is_none() {
            let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } } });
            self.store
                .create(&kind, "", object, Write::default())
                .or_else(|failure| if failure.code == 409 { Ok(Arc::new(Value::Null)) } else { Err(failure) })?;
        }
        Ok(())
    }
}

/// A running sandbox. Dropping it stops it.
pub struct ClusterSandbox {
    state: Shared,
    tasks: Vec<JoinHandle<()>>,
    stopped: signal::Sender<bool>,
}

impl std::fmt::Debug for ClusterSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSandbox").field("url", &self.url()).finish_non_exhaustive()
    }
}

fn not_started(error: &std::io::Error) -> Problem {
    Problem::new(
        "sandbox.cluster",
        format!("The sandbox cluster could not be started: {error}."),
        "Free the port or the disk that it needs, then start it again.",
    )
}

impl ClusterSandbox {
    /// Starts the API server and the controllers; it serves when this returns.
    pub async fn start(options: ClusterOptions) -> Result<Self, Problem> {
        let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(|error| not_started(&error))?;
        let address = listener.local_addr().map_err(|error| not_started(&error))?.to_string();
        let clock = Clock::new(options.start.unwrap_or_else(Utc::now), options.speed);
        let kinds = Kinds::built_in(options.argocd, options.flux);
        let state = Arc::new(State {
            store: Store::new(kinds, clock, options.event_log),
            access: Access::new(options.tokens.clone()),
            log: Log::with_file(options.log_file.as_deref()).map_err(|error| not_started(&error))?,
            images: Images::default(),
            git: GitReader::new(options.git_login.clone()).map_err(|error| not_started(&error))?,
            address,
            watch_epoch: signal::Sender::new(0),
            available: signal::Sender::new(true),
            acts: broadcast::Sender::new(1024),
            switches: [Switch::default(), Switch::default(), Switch::default()],
            options,
        });
        for namespace in ["default", "kube-system"] {
            state.ensure_namespace(namespace).map_err(|failure| {
                Problem::new(
                    "sandbox.cluster",
                    failure.message,
                    "Report this: a fresh sandbox refused its own namespace.",
                )
            })?;
        }
        let mut tasks = vec![
            tokio::spawn(gc::run(state.clone())),
            tokio::spawn(workloads::run(state.clone())),
            tokio::spawn(pods::run(state.clone())),
            tokio::spawn(autoscaler::run(state.clone())),
        ];
        if state.options.argocd {
            argocd::prepare(&state);
            tasks.push(tokio::spawn(argocd::run(state.clone())));
        }
        if state.options.flux {
            flux::prepare(&state);
            tasks.push(tokio::spawn(flux::run(state.clone())));
        }
        let router = apiserver::router(state.clone()).merge(control::router(state.clone()));
        let stopped = signal::Sender::new(false);
        let mut stopping = stopped.subscribe();
        // Not aborted but told: open connections close too, so nobody talks to a sandbox that is over.
        tokio::spawn(async move {
            let over = async move { drop(stopping.wait_for(|stopped| *stopped).await) };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(over).await {
                tracing::error!(%error, "the sandbox API server ended");
            }
        });
        Ok(Self { state, tasks, stopped })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.state.address)
    }

    /// A kubeconfig for kubectl and kube clients; carries the first configured token, if any.
    pub fn kubeconfig_yaml(&self) -> String {
        let user = match self.state.options.tokens.keys().min() {
            Some(token) => json!({ "token": token }),
            None => json!({}),
        };
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
            "clusters": [{ "name": "sandbox", "cluster": { "server": self.url() } }],
            "users": [{ "name": "sandbox", "user": user }],
            "contexts": [{ "name": "sandbox", "context": { "cluster": "sandbox", "user": "sandbox", "namespace": "default" } }],
        })
        .to_string()
    }

    /// Everything inside: store, log, images, switches.
    pub fn state(&self) -> &Shared {
        &self.state
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.state.store
    }

    /// Applies an object; see [`State::apply`].
    pub fn apply(&self, object: &Value) -> Result<Arc<Value>, Failure> {
        self.state.apply(object)
    }

    /// One object by group and kind.
    pub fn get(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.state.store.find(group, kind, namespace, name)
    }

    /// Deletes an object; `false` when it was not there.
    pub fn delete(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let Some(kind) = self.state.store.kinds.by_kind(group, kind) else {
            return false;
        };
        self.state.store.delete(&kind, namespace, name, Propagation::Background, false).is_ok()
    }

    /// How an image behaves from now on, also in pods that already wait for it.
    pub fn set_image_behaviour(&self, image: &str, behaviour: Behaviour) {
        self.state.images.set(image, behaviour);
    }

    /// Refuses requests as RBAC would.
    pub fn deny(&self, verb: &str, resource: &str) {
        self.state.access.deny(Denial {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: None,
            user: None,
        });
    }

    /// Pauses or resumes an engine.
    pub fn pause_engine(&self, engine: Engine, paused: bool) {
        self.state.pause(engine, paused);
    }

    /// Restarts an engine: its caches are gone.
    pub fn restart_engine(&self, engine: Engine) {
        self.state.restart(engine);
    }

    /// The mutating requests that came over HTTP.
    pub fn log(&self) -> Vec<Entry> {
        self.state.log.since(0)
    }

    /// Stops everything; open watches end.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
        self.state.drop_watches();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for ClusterSandbox {
    fn drop(&mut self) {
        self.stop();
    }
}
