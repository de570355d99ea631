//! The operation loop: what a sync does to the cluster and writes into `status.operationState`.

use std::time::Duration;

use chrono::{DateTime, Timelike, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::clock::go_duration;
use super::super::json::{flag, get, list, number, remove, set, text};
use super::apply::Outcome;
use super::compare::put_revisions;
use super::target::Target;
use super::{App, Level};

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
                set(app, &["status", "operationState", "message"], json!("Sync operation blocked by sync window"))
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
                Outcome { results: Vec::new(), error: Some(format!("ComparisonError: {message}")), changed: false },
                pinned,
            ),
        };
        if self.object().is_some_and(|app| text(&app, &["status", "operationState", "phase"]) == "Terminating") {
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
            let reasons: Vec<&str> = refused.iter().map(|result| text(result, &["message"])).collect();
            let error = format!("one or more synchronization tasks are not valid: {}", reasons.join(", "));
            return Outcome { results: refused, error: Some(error), changed: false };
        }
        let mut outcome = Outcome { results: Vec::new(), error: None, changed: false };
        self.namespace(app, operation, target, &mut outcome).await;
        let only = list(operation, &["sync", "resources"]);
        let chosen = |object: &Value| {
            let group = text(object, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
            only.is_empty()
                || only.iter().any(|entry| {
                    text(entry, &["group"]) == group
                        && text(entry, &["kind"]) == text(object, &["kind"])
                        && text(entry, &["name"]) == text(object, &["metadata", "name"])
                })
        };
        let dry_run = flag(operation, &["sync", "dryRun"]);
        if flag(operation, &["sync", "prune"]) || only.is_empty() {
            self.prune(target, flag(operation, &["sync", "prune"]) && !dry_run, &chosen, &mut outcome);
        }
        let mut objects: Vec<&Value> = target.objects.iter().filter(|object| chosen(object)).collect();
        objects.sort_by_key(|object| {
            (wave(object), ORDER.iter().position(|kind| *kind == text(object, &["kind"])).unwrap_or(ORDER.len()))
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
            outcome.error = Some(format!("one or more objects failed to apply, reason: {}", failed.join(",")));
        }
        outcome
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
            let at = now + chrono::TimeDelta::from_std(self.shared.clock().scaled(wait)).unwrap_or_default();
            format!("{message}. Retrying attempt #{next} at {}.", kitchen(at))
        } else if retried > 0 {
            format!("{message} (retried {retried} times).")
        } else {
            format!("{message}.")
        };
        let stamp = self.shared.clock().stamp();
        self.edit(|app| {
            set(app, &["status", "operationState", "message"], json!(words));
            set(app, &["status", "operationState", "finishedAt"], json!(stamp));
            set(app, &["status", "operationState", "syncResult"], sync_result);
            if again {
                set(app, &["status", "operationState", "retryCount"], json!(next));
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

    async fn succeed(&mut self, app: &Value, operation: &Value, revisions: &[String], outcome: Outcome) {
        let clock = self.shared.clock();
        let partial = !list(operation, &["sync", "resources"]).is_empty() || flag(operation, &["sync", "dryRun"]);
        if !partial {
            self.history(app, operation, revisions);
            clock.millis(8).await;
        }
        let mut sync_result = json!({ "resources": outcome.results });
        put_revisions(&mut sync_result, app, revisions);
        let now = clock.stamp();
        self.edit(|app| {
            set(app, &["status", "operationState", "phase"], json!("Succeeded"));
            set(app, &["status", "operationState", "message"], json!("successfully synced (all tasks run)"));
            set(app, &["status", "operationState", "finishedAt"], json!(now));
            set(app, &["status", "operationState", "syncResult"], sync_result);
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
        if Self::automated(&current) && flag(&current, &["spec", "syncPolicy", "automated", "selfHeal"]) {
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
            .filter(|entry| text(entry, &["status"]) == "OutOfSync" && !flag(entry, &["requiresPruning"]))
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
        let mut operation = get(app, &["status", "operationState", "operation"]).cloned().unwrap_or_default();
        let mut sync = json!({ "autoHealAttemptsCount": 1 });
        for field in ["prune", "resources", "revision", "revisions", "source", "sources", "syncOptions"] {
            let value =
                if field == "resources" { Some(json!(differing)) } else { get(&operation, &["sync", field]).cloned() };
            if let Some(value) = value {
                set(&mut sync, &[field], value);
            }
        }
        set(&mut operation, &["sync"], sync);
        set(&mut operation, &["initiatedBy"], json!({ "automated": true }));
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
        let keep = usize::try_from(number(app, &["spec", "revisionHistoryLimit"], 10)).unwrap_or(10);
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
    text(object, &["metadata", "annotations", "argocd.argoproj.io/sync-wave"]).parse().unwrap_or(0)
}

fn pinned(operation: &Value) -> Vec<String> {
    let plural: Vec<String> =
        list(operation, &["sync", "revisions"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let single = text(operation, &["sync", "revision"]);
    if plural.is_empty() && !single.is_empty() { vec![single.to_owned()] } else { plural }
}

/// `duration * factor^attempt`, capped (argo-cd: RetryStrategy.NextRetryAt).
fn backoff(operation: &Value, attempt: i64) -> Duration {
    let of = |field: &str, default: u64| {
        go_duration(text(operation, &["retry", "backoff", field])).unwrap_or(Duration::from_secs(default))
    };
    let factor = number(operation, &["retry", "backoff", "factor"], 2).clamp(1, 1000);
    let times = u32::try_from(factor.saturating_pow(u32::try_from(attempt).unwrap_or(20).min(20))).unwrap_or(u32::MAX);
    of("duration", 5).saturating_mul(times).min(of("maxDuration", 180))
}

/// Go's `time.Kitchen`.
fn kitchen(at: DateTime<Utc>) -> String {
    let (afternoon, hour) = at.hour12();
    format!("{hour}:{:02}{}", at.minute(), if afternoon { "PM" } else { "AM" })
}
