//! The operation loop: what a sync does to the cluster and writes into `status.operationState`.

use std::time::Duration;

use chrono::{DateTime, Timelike, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::admission::{self, Strictness};
use super::super::clock::go_duration;
use super::super::json::{flag, get, list, number, remove, set, text};
use super::super::reply::Failure;
use super::super::store::{Propagation, Write};
use super::compare::put_revisions;
use super::target::Target;
use super::{App, Level};

const USER: &str = "system:serviceaccount:argocd:argocd-application-controller";

/// The order in which kinds are applied (gitops-engine: pkg/sync/sync_tasks.go), first ones first.
const ORDER: [&str; 14] = [
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "DaemonSet",
];

struct Outcome {
    results: Vec<Value>,
    error: Option<String>,
    changed: bool,
}

impl App {
    /// Runs the operation that `operation` asks for, or its next attempt.
    pub(super) async fn operate(&mut self, app: &Value) {
        let operation = app.get("operation").cloned().unwrap_or_default();
        let clock = self.shared.clock();
        let retrying = number(app, &["status", "operationState", "retryCount"], 0);
        let again = text(app, &["status", "operationState", "phase"]) == "Running"
            && get(app, &["status", "operationState", "finishedAt"]).is_some();
        clock.millis(8).await;
        if again {
            self.begin_retry(retrying).await;
        } else {
            self.begin(&operation);
        }
        if !flag(&operation, &["initiatedBy", "automated"]) && !self.window_open(app, true) {
            self.edit(|app| {
                set(
                    app,
                    &["status", "operationState", "message"],
                    json!("Sync operation blocked by sync window"),
                )
            });
            self.retry = Some(Instant::now() + clock.scaled(Duration::from_secs(2)));
            return;
        }
        clock.millis(130).await;
        let pinned = pinned(&operation);
        let target = self.target(app, Level::Live, &pinned).await;
        let (outcome, revisions) = match target {
            Ok(target) => (self.sync(app, &operation, &target).await, target.revisions),
            Err(message) => (
                Outcome {
                    results: Vec::new(),
                    error: Some(format!("ComparisonError: {message}")),
                    changed: false,
                },
                pinned,
            ),
        };
        if self
            .object()
            .is_some_and(|app| text(&app, &["status", "operationState", "phase"]) == "Terminating")
        {
            return;
        }
        match outcome.error.clone() {
            Some(message) => self.fail(app, &operation, &revisions, &outcome, &message, retrying),
            None => self.succeed(app, &operation, &revisions, outcome).await,
        }
    }

    fn begin(&self, operation: &Value) {
        let now = self.shared.clock().stamp();
        let mut stated = operation.clone();
        if stated.get("retry").is_none() {
            set(&mut stated, &["retry"], json!({}));
        }
        self.edit(|app| {
            let running = text(app, &["status", "operationState", "phase"]) == "Running"
                && get(app, &["status", "operationState", "operation"]) == Some(&stated);
            if !running {
                set(
                    app,
                    &["status", "operationState"],
                    json!({ "operation": stated, "phase": "Running", "startedAt": now }),
                );
            }
        });
    }

    async fn begin_retry(&self, attempt: i64) {
        let clock = self.shared.clock();
        let now = clock.stamp();
        self.edit(|app| set(app, &["status", "reconciledAt"], json!(now)));
        clock.millis(9).await;
        self.edit(|app| {
            remove(app, &["status", "operationState", "finishedAt"]);
            remove(app, &["status", "operationState", "syncResult"]);
            set(
                app,
                &["status", "operationState", "message"],
                json!(format!("Retrying operation. Attempt #{attempt}")),
            );
        });
    }

    async fn sync(&self, app: &Value, operation: &Value, target: &Target) -> Outcome {
        let refused = self.refusals(app, target);
        if !refused.is_empty() {
            let reasons: Vec<&str> = refused
                .iter()
                .map(|result| text(result, &["message"]))
                .collect();
            let error = format!(
                "one or more synchronization tasks are not valid: {}",
                reasons.join(", ")
            );
            return Outcome {
                results: refused,
                error: Some(error),
                changed: false,
            };
        }
        let mut outcome = Outcome {
            results: Vec::new(),
            error: None,
            changed: false,
        };
        self.namespace(app, operation, target, &mut outcome).await;
        let only = list(operation, &["sync", "resources"]);
        let chosen = |object: &Value| {
            let group = text(object, &["apiVersion"])
                .split_once('/')
                .map_or("", |(group, _)| group);
            only.is_empty()
                || only.iter().any(|entry| {
                    text(entry, &["group"]) == group
                        && text(entry, &["kind"]) == text(object, &["kind"])
                        && text(entry, &["name"]) == text(object, &["metadata", "name"])
                })
        };
        let dry_run = flag(operation, &["sync", "dryRun"]);
        if flag(operation, &["sync", "prune"]) || only.is_empty() {
            self.prune(
                target,
                flag(operation, &["sync", "prune"]) && !dry_run,
                &chosen,
                &mut outcome,
            );
        }
        let mut objects: Vec<&Value> = target
            .objects
            .iter()
            .filter(|object| chosen(object))
            .collect();
        objects.sort_by_key(|object| {
            (
                wave(object),
                ORDER
                    .iter()
                    .position(|kind| *kind == text(object, &["kind"]))
                    .unwrap_or(ORDER.len()),
            )
        });
        for object in objects {
            self.apply(object, dry_run, &mut outcome);
        }
        let failed: Vec<&str> = outcome
            .results
            .iter()
            .filter(|result| text(result, &["status"]) == "SyncFailed")
            .map(|result| text(result, &["message"]))
            .collect();
        if !failed.is_empty() {
            outcome.error = Some(format!(
                "one or more objects failed to apply, reason: {}",
                failed.join(",")
            ));
        }
        outcome
    }

    /// Kinds that the project forbids or that the cluster does not serve stop a sync before it starts.
    fn refusals(&self, app: &Value, target: &Target) -> Vec<Value> {
        let mut refused = Vec::new();
        for object in &target.objects {
            let api_version = text(object, &["apiVersion"]);
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let kind = text(object, &["kind"]);
            let known = self.shared.store.kinds.of(object);
            let message = match self.kind_error(app, group, kind, known.as_deref()) {
                Some(message) => message,
                None if known.is_none() => {
                    let name = text(object, &["metadata", "name"]);
                    let namespace = text(object, &["metadata", "namespace"]);
                    format!(
                        "The Kubernetes API could not find {group}/{kind} for requested resource {namespace}/{name}. Make sure the {kind:?} CRD is installed on the destination cluster."
                    )
                }
                None => continue,
            };
            refused.push(json!({
                "group": group, "kind": kind, "message": message, "name": text(object, &["metadata", "name"]),
                "namespace": text(app, &["spec", "destination", "namespace"]), "status": "SyncFailed", "syncPhase": "Sync", "version": version,
            }));
        }
        refused
    }

    async fn namespace(
        &self,
        app: &Value,
        operation: &Value,
        target: &Target,
        outcome: &mut Outcome,
    ) {
        let name = text(app, &["spec", "destination", "namespace"]);
        let asked = |from: &Value, path: &[&str]| {
            list(from, path)
                .iter()
                .any(|option| option.as_str() == Some("CreateNamespace=true"))
        };
        let wanted = asked(operation, &["sync", "syncOptions"])
            || asked(app, &["spec", "syncPolicy", "syncOptions"]);
        if !wanted || name.is_empty() || self.shared.store.find("", "Namespace", "", name).is_some()
        {
            return;
        }
        if self.shared.ensure_namespace(name).is_err() {
            return;
        }
        let result = json!({
            "group": "", "hookPhase": "Running", "kind": "Namespace", "message": format!("namespace/{name} created"), "name": name,
            "namespace": "", "status": "Synced", "syncPhase": "PreSync", "version": "v1",
        });
        outcome.results.push(result);
        let mut sync_result = json!({ "resources": outcome.results });
        put_revisions(&mut sync_result, app, &target.revisions);
        self.edit(|app| {
            set(
                app,
                &["status", "operationState", "message"],
                json!(format!("waiting for healthy state of /Namespace/{name}")),
            );
            set(
                app,
                &["status", "operationState", "syncResult"],
                sync_result,
            );
        });
        self.shared.clock().millis(30).await;
    }

    fn prune(
        &self,
        target: &Target,
        really: bool,
        chosen: &impl Fn(&Value) -> bool,
        outcome: &mut Outcome,
    ) {
        let wanted = |live: &Value| {
            target.objects.iter().any(|object| {
                ["kind", "apiVersion"]
                    .iter()
                    .all(|field| text(object, &[field]) == text(live, &[field]))
                    && text(object, &["metadata", "name"]) == text(live, &["metadata", "name"])
                    && (text(object, &["metadata", "namespace"])
                        == text(live, &["metadata", "namespace"])
                        || text(live, &["metadata", "namespace"]).is_empty())
            })
        };
        for (_, live) in self
            .managed()
            .into_iter()
            .filter(|(_, live)| !wanted(live) && chosen(live))
        {
            let Some(kind) = self.shared.store.kinds.of(&live) else {
                continue;
            };
            let (namespace, name) = (
                text(&live, &["metadata", "namespace"]),
                text(&live, &["metadata", "name"]),
            );
            let kept = text(
                &live,
                &["metadata", "annotations", "argocd.argoproj.io/sync-options"],
            )
            .contains("Prune=false");
            let (status, phase, message) = match (really, kept) {
                (false, _) => ("PruneSkipped", "Succeeded", "ignored (requires pruning)"),
                (true, true) => ("PruneSkipped", "Succeeded", "ignored (no prune)"),
                (true, false) => {
                    drop(self.shared.store.delete(
                        &kind,
                        namespace,
                        name,
                        Propagation::Foreground,
                        false,
                    ));
                    outcome.changed = true;
                    ("Pruned", "Succeeded", "pruned")
                }
            };
            outcome.results.push(json!({
                "group": kind.group, "hookPhase": phase, "kind": kind.kind, "message": message, "name": name, "namespace": namespace,
                "status": status, "syncPhase": "Sync", "version": kind.version,
            }));
        }
    }

    fn apply(&self, object: &Value, dry_run: bool, outcome: &mut Outcome) {
        let Some(kind) = self.shared.store.kinds.of(object) else {
            return;
        };
        let (namespace, name) = (
            text(object, &["metadata", "namespace"]),
            text(object, &["metadata", "name"]),
        );
        let before = self.shared.store.get(&kind, namespace, name);
        let verb = if before.is_some() { "patch" } else { "create" };
        let done = self
            .shared
            .access
            .check(USER, verb, &kind, "", namespace, name)
            .and_then(|()| admission::decode(&kind, object, Strictness::Strict))
            .and_then(|_| {
                self.shared.store.apply(
                    &kind,
                    namespace,
                    &self.manager(),
                    object,
                    Write {
                        status: false,
                        dry_run,
                    },
                )
            });
        let mut result = json!({ "group": kind.group, "hookPhase": "Running" });
        let images: Vec<&str> = list(object, &["spec", "template", "spec", "containers"])
            .iter()
            .map(|container| text(container, &["image"]))
            .collect();
        if !images.is_empty() {
            set(&mut result, &["images"], json!(images));
        }
        let (status, message) = match done {
            Ok(after) => {
                let word = match &before {
                    None => "created",
                    Some(before) if before == &after => "unchanged",
                    Some(_) => {
                        outcome.changed = true;
                        "configured"
                    }
                };
                ("Synced", format!("{}/{name} {word}", kind.lower()))
            }
            Err(failure) => {
                set(&mut result, &["hookPhase"], json!("Failed"));
                ("SyncFailed", wording(verb, &failure))
            }
        };
        for (field, value) in [
            ("kind", json!(kind.kind)),
            ("message", json!(message)),
            ("name", json!(name)),
            (
                "namespace",
                json!(if kind.namespaced { namespace } else { "" }),
            ),
            ("status", json!(status)),
            ("syncPhase", json!("Sync")),
            ("version", json!(kind.version)),
        ] {
            set(&mut result, &[field], value);
        }
        outcome.results.push(result);
    }

    fn fail(
        &mut self,
        app: &Value,
        operation: &Value,
        revisions: &[String],
        outcome: &Outcome,
        message: &str,
        retried: i64,
    ) {
        let limit = number(operation, &["retry", "limit"], 0);
        let again = limit < 0 || retried < limit;
        let now = self.shared.clock().now();
        let next = retried + 1;
        let mut sync_result = json!({ "resources": outcome.results });
        put_revisions(&mut sync_result, app, revisions);
        let words = if again {
            let wait = backoff(operation, next);
            self.retry = Some(Instant::now() + self.shared.clock().scaled(wait));
            let at = now
                + chrono::TimeDelta::from_std(self.shared.clock().scaled(wait)).unwrap_or_default();
            format!("{message}. Retrying attempt #{next} at {}.", kitchen(at))
        } else if retried > 0 {
            format!("{message} (retried {retried} times).")
        } else {
            format!("{message}.")
        };
        let stamp = self.shared.clock().stamp();
        self.edit(|app| {
            set(app, &["status", "operationState", "message"], json!(words));
            set(
                app,
                &["status", "operationState", "finishedAt"],
                json!(stamp),
            );
            set(
                app,
                &["status", "operationState", "syncResult"],
                sync_result,
            );
            if again {
                set(
                    app,
                    &["status", "operationState", "retryCount"],
                    json!(next),
                );
            } else {
                set(app, &["status", "operationState", "phase"], json!("Failed"));
                remove(app, &["operation"]);
            }
        });
        if !again {
            // The comparison after it writes the SyncError, and starts on what was held back.
            self.resync = Instant::now() + self.shared.clock().scaled(Duration::from_millis(10));
        }
    }

    async fn succeed(
        &mut self,
        app: &Value,
        operation: &Value,
        revisions: &[String],
        outcome: Outcome,
    ) {
        let clock = self.shared.clock();
        let partial = !list(operation, &["sync", "resources"]).is_empty()
            || flag(operation, &["sync", "dryRun"]);
        if !partial {
            self.history(app, operation, revisions);
            clock.millis(8).await;
        }
        let mut sync_result = json!({ "resources": outcome.results });
        put_revisions(&mut sync_result, app, revisions);
        let now = clock.stamp();
        self.edit(|app| {
            set(
                app,
                &["status", "operationState", "phase"],
                json!("Succeeded"),
            );
            set(
                app,
                &["status", "operationState", "message"],
                json!("successfully synced (all tasks run)"),
            );
            set(app, &["status", "operationState", "finishedAt"], json!(now));
            set(
                app,
                &["status", "operationState", "syncResult"],
                sync_result,
            );
            remove(app, &["operation"]);
        });
        if partial || !outcome.changed {
            return;
        }
        clock.millis(26).await;
        let Some(current) = self.object() else { return };
        if current.get("operation").is_some_and(Value::is_object) {
            return;
        }
        if Self::automated(&current)
            && flag(&current, &["spec", "syncPolicy", "automated", "selfHeal"])
        {
            self.second(&current).await;
        } else {
            let now = clock.stamp();
            self.edit(|app| set(app, &["status", "reconciledAt"], json!(now)));
            clock.millis(60).await;
        }
    }

    /// Self-heal compares with a cache that has not seen the sync yet, and syncs the same revision again.
    async fn second(&mut self, app: &Value) {
        let differing: Vec<Value> = list(app, &["status", "resources"])
            .iter()
            .filter(|entry| {
                text(entry, &["status"]) == "OutOfSync" && !flag(entry, &["requiresPruning"])
            })
            .map(|entry| {
                let mut named = json!({});
                for field in ["group", "kind", "name"] {
                    if let Some(value) = entry.get(field) {
                        set(&mut named, &[field], value.clone());
                    }
                }
                named
            })
            .collect();
        if differing.is_empty() {
            return;
        }
        let mut operation = get(app, &["status", "operationState", "operation"])
            .cloned()
            .unwrap_or_default();
        let mut sync = json!({ "autoHealAttemptsCount": 1 });
        for field in [
            "prune",
            "resources",
            "revision",
            "revisions",
            "source",
            "sources",
            "syncOptions",
        ] {
            let value = if field == "resources" {
                Some(json!(differing))
            } else {
                get(&operation, &["sync", field]).cloned()
            };
            if let Some(value) = value {
                set(&mut sync, &[field], value);
            }
        }
        set(&mut operation, &["sync"], sync);
        set(
            &mut operation,
            &["initiatedBy"],
            json!({ "automated": true }),
        );
        self.post(&operation);
        self.shared.clock().millis(30).await;
        self.begin(&operation);
        self.refresh(Level::Live).await;
        self.shared.clock().millis(80).await;
    }

    fn history(&self, app: &Value, operation: &Value, revisions: &[String]) {
        let now = self.shared.clock().stamp();
        let started = self
            .object()
            .map(|app| text(&app, &["status", "operationState", "startedAt"]).to_owned())
            .unwrap_or_else(|| now.clone());
        let keep =
            usize::try_from(number(app, &["spec", "revisionHistoryLimit"], 10)).unwrap_or(10);
        self.edit(|app| {
            let mut history = list(app, &["status", "history"]).to_vec();
            let id = history.last().map_or(0, |entry| number(entry, &["id"], 0) + 1);
            let mut entry = json!({ "deployStartedAt": started, "deployedAt": now, "id": id, "initiatedBy": operation.get("initiatedBy") });
            let app_now = app.clone();
            put_revisions(&mut entry, &app_now, revisions);
            history.push(entry);
            let surplus = history.len().saturating_sub(keep);
            set(app, &["status", "history"], Value::Array(history.split_off(surplus)));
        });
    }
}

fn wave(object: &Value) -> i64 {
    text(
        object,
        &["metadata", "annotations", "argocd.argoproj.io/sync-wave"],
    )
    .parse()
    .unwrap_or(0)
}

fn wording(verb: &str, failure: &Failure) -> String {
    match (verb, failure.code) {
        ("patch", 422 | 400) => format!(
            "error when patching \"/dev/shm/{}\": {}",
            rand::random::<u32>(),
            failure.message
        ),
        ("create", 404) => failure.message.clone(),
        ("create", _) => format!(
            "error when creating \"/dev/shm/{}\": {}",
            rand::random::<u32>(),
            failure.message
        ),
        _ => failure.message.clone(),
    }
}

fn pinned(operation: &Value) -> Vec<String> {
    let plural: Vec<String> = list(operation, &["sync", "revisions"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let single = text(operation, &["sync", "revision"]);
    if plural.is_empty() && !single.is_empty() {
        vec![single.to_owned()]
    } else {
        plural
    }
}

/// `duration * factor^attempt`, capped (argo-cd: RetryStrategy.NextRetryAt).
fn backoff(operation: &Value, attempt: i64) -> Duration {
    let of = |field: &str, default: u64| {
        go_duration(text(operation, &["retry", "backoff", field]))
            .unwrap_or(Duration::from_secs(default))
    };
    let factor = number(operation, &["retry", "backoff", "factor"], 2).clamp(1, 1000);
    let times = u32::try_from(factor.saturating_pow(u32::try_from(attempt).unwrap_or(20).min(20)))
        .unwrap_or(u32::MAX);
    of("duration", 5)
        .saturating_mul(times)
        .min(of("maxDuration", 180))
}

/// Go's `time.Kitchen`.
fn kitchen(at: DateTime<Utc>) -> String {
    let (afternoon, hour) = at.hour12();
    format!(
        "{hour}:{:02}{}",
        at.minute(),
        if afternoon { "PM" } else { "AM" }
    )
}
