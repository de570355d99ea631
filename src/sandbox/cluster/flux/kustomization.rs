//! The Kustomization controller.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::admission::{self, Strictness};
use super::super::clock::print_duration;
use super::super::health::condition;
use super::super::json::{flag, get, list, number, set, text};
use super::super::kinds::Kind;
use super::super::rbac;
use super::super::reply::Failure;
use super::super::store::Write;
use super::build::{self, Unbuilt};
use super::conditions::{drop as forget, put};
use super::inventory::{id_of, prune, skipped};
use super::source::digest;
use super::{Item, Memory, REQUESTED, Watched, commit_of, source_of};

/// One attempt at one revision.
struct Attempt<'a> {
    item: &'a Item,
    object: &'a Value,
    revision: String,
    timeout: String,
    started: Instant,
    digest: String,
}

/// One reconciliation. While it waits for health it looks at nothing newer.
pub async fn reconcile(item: &Item, object: &Value, memory: &mut Memory) {
    let clock = item.shared.clock();
    if get(object, &["metadata", "deletionTimestamp"]).is_some() {
        if flag(object, &["spec", "prune"]) && !flag(object, &["spec", "suspend"]) {
            prune(item, object, &[]);
        }
        item.release();
        return;
    }
    item.claim(object);
    let interval = Item::spec_duration(object, "interval", 60);
    let later = |wait: Duration| Some(Instant::now() + clock.scaled(wait));
    if flag(object, &["spec", "suspend"]) {
        acknowledge(item, object);
        memory.due = later(Duration::from_secs(3600));
        return;
    }
    let Some((source, revision)) =
        source_of(&item.shared, object, &["spec", "sourceRef"]).filter(|(_, revision)| !revision.is_empty())
    else {
        not_ready(item, "ArtifactFailed", "Source artifact not found, retrying in 30s");
        memory.due = later(Duration::from_secs(30));
        return;
    };
    if let Some(message) = waits_for(item, object, &revision) {
        not_ready(item, "DependencyNotReady", &message);
        memory.due = later(Duration::from_secs(5));
        return;
    }
    let timeout = Item::spec_duration(object, "timeout", interval.as_secs()).max(Duration::from_secs(30));
    let mut attempt = Attempt {
        item,
        object,
        revision,
        timeout: print_duration(timeout),
        started: Instant::now(),
        digest: String::new(),
    };
    let done = attempt.run(&source, timeout).await;
    memory.failures = if done { 0 } else { memory.failures + 1 };
    let retry = if get(object, &["spec", "retryInterval"]).is_some() {
        Item::spec_duration(object, "retryInterval", 60)
    } else {
        interval
    };
    memory.due = later(if done { interval } else { retry });
}

/// A suspended object still says that it has seen its generation and the request.
fn acknowledge(item: &Item, object: &Value) {
    let handled = text(object, &["metadata", "annotations", REQUESTED]).to_owned();
    let generation = number(object, &["metadata", "generation"], 1);
    item.status(|new| {
        set(new, &["status", "observedGeneration"], json!(generation));
        if !handled.is_empty() {
            set(new, &["status", "lastHandledReconcileAt"], json!(handled));
        }
    });
}

fn not_ready(item: &Item, reason: &str, message: &str) {
    let now = item.now();
    item.status(|new| {
        forget(new, "Reconciling");
        put(new, &now, "Ready", "False", reason, message);
    });
}

fn waits_for(item: &Item, object: &Value, revision: &str) -> Option<String> {
    for dependency in list(object, &["spec", "dependsOn"]) {
        let namespace = match text(dependency, &["namespace"]) {
            "" => item.namespace.as_str(),
            named => named,
        };
        let name = text(dependency, &["name"]);
        let Some(other) = item.shared.store.get(&item.kind, namespace, name) else {
            return Some(format!("dependency '{namespace}/{name}' not found"));
        };
        let current =
            number(&other, &["metadata", "generation"], 0) == number(&other, &["status", "observedGeneration"], -1);
        if !current || condition(&other, "Ready", "status") != "True" {
            return Some(format!("dependency '{namespace}/{name}' is not ready"));
        }
        let same_source = get(&other, &["spec", "sourceRef"]) == get(object, &["spec", "sourceRef"]);
        if same_source && text(&other, &["status", "lastAppliedRevision"]) != revision {
            return Some(format!("dependency '{namespace}/{name}' revision is not up to date"));
        }
    }
    None
}

impl Attempt<'_> {
    /// `true` when the revision was applied and, where asked for, became healthy.
    async fn run(&mut self, source: &Value, timeout: Duration) -> bool {
        let clock = self.item.shared.clock();
        self.progress("Fetching manifests");
        clock.millis(10).await;
        let built = match self.build(source).await {
            Ok(built) => built,
            Err(Unbuilt { reason, message }) => return self.fail(reason, &message).await,
        };
        self.digest = digest(&Value::Array(built.clone()).to_string());
        clock.millis(60).await;
        self.progress("Detecting drift");
        clock.millis(13).await;
        if let Err(message) = self.apply(&built) {
            return self.fail("ReconciliationFailed", &message).await;
        }
        if flag(self.object, &["spec", "prune"]) {
            prune(self.item, self.object, &built);
        }
        let checked = self.checked(&built);
        if checked.is_empty() && !flag(self.object, &["spec", "wait"]) {
            self.inventory(&built);
            return self.succeed(None).await;
        }
        let health = self.progress("Running health checks");
        let now = self.item.now();
        self.item.status(|new| put(new, &now, "Healthy", "Unknown", "Progressing", &health));
        clock.millis(5).await;
        self.inventory(&built);
        match self
            .item
            .healthy(
                &checked,
                timeout.min(Item::spec_duration(self.object, "timeout", timeout.as_secs()).max(Duration::from_secs(1))),
            )
            .await
        {
            Ok(took) => {
                let message = format!("Health check passed in {}", print_duration(took));
                let now = self.item.now();
                self.item.status(|new| put(new, &now, "Healthy", "True", "Succeeded", &message));
                clock.millis(9).await;
                self.succeed(Some(message)).await
            }
            Err((took, words)) => {
                let now = self.item.now();
                self.item.status(|new| put(new, &now, "Healthy", "False", "HealthCheckFailed", &words));
                self.fail("HealthCheckFailed", &format!("health check failed after {}: {words}", print_duration(took)))
                    .await
            }
        }
    }

    async fn build(&self, source: &Value) -> Result<Vec<Value>, Unbuilt> {
        let all =
            build::files(self.item, source, commit_of(&self.revision), text(self.object, &["spec", "path"])).await?;
        build::check_path(self.object, &all)?;
        self.progress("Building manifests");
        self.item.shared.clock().millis(4).await;
        let revision = self.revision.clone();
        self.item.status(|new| set(new, &["status", "lastAttemptedRevision"], json!(revision)));
        build::objects(self.item, self.object, &all).await
    }

    /// Says what is being done: in Reconciling, and Ready turns Unknown.
    fn progress(&self, what: &str) -> String {
        let message = format!("{what} for revision {} with a timeout of {}", self.revision, self.timeout);
        let now = self.item.now();
        self.item.status(|new| {
            put(new, &now, "Reconciling", "True", "Progressing", &message);
            put(new, &now, "Ready", "Unknown", "Progressing", "Reconciliation in progress");
        });
        message
    }

    fn user(&self) -> String {
        let account = match text(self.object, &["spec", "serviceAccountName"]) {
            "" => "kustomize-controller",
            named => named,
        };
        format!("system:serviceaccount:{}:{account}", self.item.namespace)
    }

    /// With `serviceAccountName` everything is done with that account's rights, and no others.
    fn impersonated(&self, kind: &Kind, watched: &Watched) -> Result<(), Failure> {
        let account = text(self.object, &["spec", "serviceAccountName"]);
        let who = (self.item.namespace.as_str(), account);
        if account.is_empty() || rbac::allows(&self.item.shared, who, "patch", kind, &watched.namespace, &watched.name)
        {
            return Ok(());
        }
        Err(Failure::forbidden(&self.user(), "patch", kind, "", &watched.namespace, &watched.name))
    }

    /// Everything is tried dry first: one object that is refused keeps all others from being applied.
    fn apply(&self, built: &[Value]) -> Result<(), String> {
        for dry_run in [true, false] {
            for object in built {
                self.apply_one(object, dry_run, built)?;
            }
        }
        Ok(())
    }

    fn apply_one(&self, object: &Value, dry_run: bool, built: &[Value]) -> Result<(), String> {
        let shared = &self.item.shared;
        let watched = Watched::of(object);
        let Some(kind) = shared.store.kinds.of(object) else {
            let version = text(object, &["apiVersion"]);
            return Err(format!(
                "{} dry-run failed: no matches for kind {:?} in version {version:?}\n",
                watched.id(),
                watched.kind
            ));
        };
        if kind.namespaced && watched.namespace.is_empty() {
            return Err(format!(
                "{} namespace not specified: the server could not find the requested resource\n",
                watched.id()
            ));
        }
        if skipped(object)
            || shared.store.get(&kind, &watched.namespace, &watched.name).is_some_and(|live| skipped(&live))
        {
            return Ok(());
        }
        let with_namespace = built.iter().any(|other| {
            text(other, &["kind"]) == "Namespace" && text(other, &["metadata", "name"]) == watched.namespace
        });
        if dry_run && with_namespace {
            return Ok(());
        }
        let done = self
            .impersonated(&kind, &watched)
            .and_then(|()| shared.access.check(&self.user(), "patch", &kind, "", &watched.namespace, &watched.name))
            .and_then(|()| admission::decode(&kind, object, Strictness::Strict))
            .and_then(|_| {
                shared.store.apply(
                    &kind,
                    &watched.namespace,
                    "kustomize-controller",
                    object,
                    Write { status: false, dry_run },
                )
            });
        done.map(|_| ()).map_err(|failure| refused(&watched, &failure))
    }

    fn checked(&self, built: &[Value]) -> Vec<Watched> {
        if flag(self.object, &["spec", "wait"]) {
            return built.iter().filter(|object| !skipped(object)).map(Watched::of).collect();
        }
        list(self.object, &["spec", "healthChecks"])
            .iter()
            .map(|check| Watched {
                group: text(check, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group).to_owned(),
                kind: text(check, &["kind"]).to_owned(),
                namespace: text(check, &["namespace"]).to_owned(),
                name: text(check, &["name"]).to_owned(),
            })
            .collect()
    }

    fn inventory(&self, built: &[Value]) {
        let mut entries: Vec<Value> = built
            .iter()
            .map(|object| {
                let api_version = text(object, &["apiVersion"]);
                let (_, version) = api_version.split_once('/').unwrap_or(("", api_version));
                json!({ "id": id_of(object), "v": version })
            })
            .collect();
        entries.sort_by_key(|entry| text(entry, &["id"]).to_owned());
        self.item.status(|new| set(new, &["status", "inventory"], json!({ "entries": entries })));
    }

    /// Ready first, the applied revision some milliseconds later: two patches.
    async fn succeed(&self, health: Option<String>) -> bool {
        let now = self.item.now();
        let message = format!("Applied revision: {}", self.revision);
        self.item.status(|new| {
            forget(new, "Reconciling");
            if health.is_none() {
                forget(new, "Healthy");
            }
            put(new, &now, "Ready", "True", "ReconciliationSucceeded", &message);
        });
        self.item.shared.clock().millis(5).await;
        let generation = number(self.object, &["metadata", "generation"], 1);
        self.item.status(|new| {
            set(new, &["status", "lastAppliedRevision"], json!(self.revision));
            set(new, &["status", "observedGeneration"], json!(generation));
            self.close(new, "ReconciliationSucceeded");
        });
        true
    }

    async fn fail(&self, reason: &str, message: &str) -> bool {
        let now = self.item.now();
        self.item.status(|new| {
            let doing = list(new, &["status", "conditions"])
                .iter()
                .find(|known| text(known, &["type"]) == "Reconciling")
                .map(|known| text(known, &["message"]).to_owned());
            put(new, &now, "Reconciling", "True", "ProgressingWithRetry", &doing.unwrap_or_default());
            put(new, &now, "Ready", "False", reason, message);
        });
        self.item.shared.clock().millis(4).await;
        self.item.status(|new| self.close(new, reason));
        false
    }

    /// History and the handled request, in the last patch of a reconciliation.
    fn close(&self, new: &mut Value, reason: &str) {
        let handled = text(self.object, &["metadata", "annotations", REQUESTED]);
        if !handled.is_empty() {
            set(new, &["status", "lastHandledReconcileAt"], json!(handled));
        }
        if self.digest.is_empty() {
            return;
        }
        let now = self.item.now();
        let mut history = list(new, &["status", "history"]).to_vec();
        let before =
            history.iter().position(|entry| text(entry, &["digest"]) == self.digest).map(|index| history.remove(index));
        let first = before.as_ref().map_or(now.as_str(), |entry| text(entry, &["firstReconciled"])).to_owned();
        let count = before.as_ref().map_or(0, |entry| number(entry, &["totalReconciliations"], 0)) + 1;
        let took = self.started.elapsed().mul_f64(self.item.shared.options.speed);
        history.insert(0, json!({
            "digest": self.digest, "firstReconciled": first, "lastReconciled": now, "lastReconciledDuration": print_duration(took),
            "lastReconciledStatus": reason, "metadata": { "revision": self.revision }, "totalReconciliations": count,
        }));
        history.truncate(5);
        set(new, &["status", "history"], Value::Array(history));
    }
}

fn refused(watched: &Watched, failure: &Failure) -> String {
    format!("{} dry-run failed ({}): {}\n", watched.id(), failure.reason, failure.message)
}
