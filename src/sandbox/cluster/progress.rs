//! The status of a Deployment: counts, conditions, and the deadline of its progress.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::json::{get, list, number, set, text};
use super::rollout::{complete, counts, limits, progressed, set_condition};
use super::workloads::{Controller, Item};

impl Controller {
    pub(super) fn deployment_status(
        &mut self,
        deployment: &Value,
        new: Option<&Arc<Value>>,
        sets: &[Arc<Value>],
    ) -> Option<()> {
        let (namespace, name) = (text(deployment, &["metadata", "namespace"]), text(deployment, &["metadata", "name"]));
        let uid = text(deployment, &["metadata", "uid"]).to_owned();
        let all: Vec<&Value> = sets.iter().map(AsRef::as_ref).collect();
        let terminating = sets
            .iter()
            .flat_map(|set| self.owned("", "Pod", namespace, text(set, &["metadata", "uid"])))
            .filter(|pod| get(pod, &["metadata", "deletionTimestamp"]).is_some())
            .count();
        let mut status = counts(deployment, new.map(AsRef::as_ref), &all, i64::try_from(terminating).unwrap_or(0));
        let before = deployment.get("status").cloned().unwrap_or_else(|| json!({}));
        if let Some(conditions) = before.get("conditions") {
            set(&mut status, &["conditions"], conditions.clone());
        }
        self.conditions(deployment, new.map(AsRef::as_ref), &before, &mut status, &uid);
        let kind = self.kind("apps", "Deployment")?;
        self.shared.store.edit(&kind, namespace, name, true, |object| {
            // Written in the order the real controller's encoder has, conditions last.
            set(object, &["status"], status);
        });
        Some(())
    }

    pub(super) fn conditions(
        &mut self,
        deployment: &Value,
        new: Option<&Value>,
        before: &Value,
        status: &mut Value,
        uid: &str,
    ) {
        let now = self.shared.clock().stamp();
        let desired = number(deployment, &["spec", "replicas"], 1);
        let (_, max_unavailable) = limits(deployment);
        let enough = number(status, &["availableReplicas"], 0) >= desired - max_unavailable;
        let (reason, message) = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        set_condition(status, "Available", enough, reason, message, &now, false);
        let Some(set_name) = new.map(|new| text(new, &["metadata", "name"])) else {
            return;
        };
        let progressing = super::health::condition(deployment, "Progressing", "reason").to_owned();
        if complete(deployment, status) {
            let message = format!("ReplicaSet {set_name:?} has successfully progressed.");
            set_condition(status, "Progressing", true, "NewReplicaSetAvailable", &message, &now, false);
            self.progress.remove(uid);
        } else if progressing == "NewReplicaSetAvailable"
            && number(status, &["updatedReplicas"], 0) == number(status, &["replicas"], 0)
        {
            // Scaling alone is no rollout: the condition stays.
        } else if progressed(before, status) {
            let message = format!("ReplicaSet {set_name:?} is progressing.");
            set_condition(status, "Progressing", true, "ReplicaSetUpdated", &message, &now, true);
            self.progress.insert(uid.to_owned(), Instant::now());
        }
        self.deadline(deployment, set_name, status, uid, &now);
    }

    pub(super) fn deadline(&mut self, deployment: &Value, set_name: &str, status: &mut Value, uid: &str, now: &str) {
        let reason = list(status, &["conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Progressing")
            .map(|c| text(c, &["reason"]).to_owned());
        if matches!(reason.as_deref(), None | Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")) {
            return;
        }
        let seconds = u64::try_from(number(deployment, &["spec", "progressDeadlineSeconds"], 600)).unwrap_or(600);
        let limit = self.shared.clock().scaled(Duration::from_secs(seconds));
        let since = *self.progress.entry(uid.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() >= limit {
            let message = format!("ReplicaSet {set_name:?} has timed out progressing.");
            set_condition(status, "Progressing", false, "ProgressDeadlineExceeded", &message, now, false);
            return;
        }
        let item: Item = (
            "Deployment",
            text(deployment, &["metadata", "namespace"]).to_owned(),
            text(deployment, &["metadata", "name"]).to_owned(),
        );
        let later = self.later.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(since + limit + Duration::from_millis(1)).await;
            // The controller may be gone by then.
            drop(later.send(item));
        });
    }
}
