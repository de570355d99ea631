//! The workload controllers: Deployment to ReplicaSet to Pods, StatefulSets and DaemonSets in small.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::json::{flag, get, list, number, remove, set, text};
use super::kinds::Kind;
use super::rollout::{
    complete, counts, limits, next_scale, progressed, set_condition, sorted, template_hash,
};
use super::store::{Write, suffix};
use super::{Engine, Shared};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// Kind, namespace, name.
type Item = (&'static str, String, String);

struct Controller {
    shared: Shared,
    /// When each Deployment (by uid) last made progress, for its deadline.
    progress: HashMap<String, Instant>,
    later: mpsc::UnboundedSender<Item>,
}

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let (later, mut due) = mpsc::unbounded_channel();
    let mut controller = Controller {
        shared: shared.clone(),
        progress: HashMap::new(),
        later,
    };
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    loop {
        let mut dirty = BTreeSet::new();
        match shared.store.since(seen) {
            Ok(events) => {
                for event in events {
                    seen = event.version;
                    mark(&mut dirty, &event.key, &event.object);
                }
            }
            Err(_) => {
                seen = shared.store.oldest();
                for (key, object) in shared.store.everything() {
                    mark(&mut dirty, &key, &object);
                }
            }
        }
        if dirty.is_empty() {
            tokio::select! {
                woken = changed.wait_for(|version| *version > seen) => if woken.is_err() { return },
                Some(item) = due.recv() => { dirty.insert(item); }
            }
            if dirty.is_empty() {
                continue;
            }
        }
        shared.switch(Engine::Workloads).gate().await;
        // Controllers see a change a moment after it was made: this gap is the lag of observedGeneration.
        shared.clock().millis(12).await;
        for item in dirty {
            controller.sync(&item);
        }
    }
}

fn mark(
    dirty: &mut BTreeSet<Item>,
    (resource, namespace, name): &super::store::Key,
    object: &Value,
) {
    let kind = match resource.as_str() {
        "deployments.apps" => Some("Deployment"),
        "replicasets.apps" => Some("ReplicaSet"),
        "statefulsets.apps" => Some("StatefulSet"),
        "daemonsets.apps" => Some("DaemonSet"),
        _ => None,
    };
    if let Some(kind) = kind {
        dirty.insert((kind, namespace.clone(), name.clone()));
    }
    if kind == Some("ReplicaSet") || resource == "pods" {
        for owner in list(object, &["metadata", "ownerReferences"]) {
            let kind = match text(owner, &["kind"]) {
                "Deployment" => "Deployment",
                "ReplicaSet" => "ReplicaSet",
                "StatefulSet" => "StatefulSet",
                "DaemonSet" => "DaemonSet",
                _ => continue,
            };
            dirty.insert((kind, namespace.clone(), text(owner, &["name"]).to_owned()));
        }
        // The terminating pods of a rollout count in the Deployment's status.
        let deployment = text(object, &["metadata", "labels", "pod-template-hash"]);
        if let (false, Some(set)) = (
            deployment.is_empty(),
            list(object, &["metadata", "ownerReferences"]).first(),
        ) {
            let name = text(set, &["name"])
                .trim_end_matches(deployment)
                .trim_end_matches('-');
            dirty.insert(("Deployment", namespace.clone(), name.to_owned()));
        }
    }
}

impl Controller {
    fn kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.shared.store.kinds.by_kind(group, kind)
    }

    fn owned(&self, group: &str, kind: &str, namespace: &str, owner: &str) -> Vec<Arc<Value>> {
        let Some(kind) = self.kind(group, kind) else {
            return Vec::new();
        };
        let mine = |object: &Arc<Value>| {
            list(object, &["metadata", "ownerReferences"])
                .iter()
                .any(|reference| text(reference, &["uid"]) == owner)
        };
        self.shared
            .store
            .list(&kind, namespace)
            .0
            .into_iter()
            .filter(mine)
            .collect()
    }

    fn sync(&mut self, (kind, namespace, name): &Item) -> Option<()> {
        let object = self.shared.store.find("apps", kind, namespace, name)?;
        if get(&object, &["metadata", "deletionTimestamp"]).is_some() {
            return None;
        }
        match *kind {
            "Deployment" => self.deployment(&object),
            "ReplicaSet" => self.replica_set(&object),
            "StatefulSet" => self.ordered(&object, number(&object, &["spec", "replicas"], 1)),
            _ => self.ordered(&object, 1),
        }
    }

    fn deployment(&mut self, deployment: &Value) -> Option<()> {
        let namespace = text(deployment, &["metadata", "namespace"]);
        let sets = self.owned(
            "apps",
            "ReplicaSet",
            namespace,
            text(deployment, &["metadata", "uid"]),
        );
        let hash = template_hash(deployment);
        let is_new =
            |set: &&Arc<Value>| text(set, &["metadata", "labels", "pod-template-hash"]) == hash;
        let Some(new) = sets.iter().find(is_new).cloned() else {
            if flag(deployment, &["spec", "paused"]) {
                return self.deployment_status(deployment, None, &sets);
            }
            return self.new_set(deployment, &hash, &sets);
        };
        let old: Vec<&Value> = sets
            .iter()
            .filter(|set| !is_new(set))
            .map(AsRef::as_ref)
            .collect();
        let newest = old
            .iter()
            .filter_map(|set| revision(set))
            .max()
            .unwrap_or(0);
        if revision(&new).unwrap_or(0) <= newest {
            self.renumber(deployment, &new, newest + 1);
        } else if text(deployment, &["metadata", "annotations", REVISION])
            != text(&new, &["metadata", "annotations", REVISION])
        {
            self.renumber(deployment, &new, revision(&new).unwrap_or(1));
        }
        if !flag(deployment, &["spec", "paused"])
            && let Some((name, count)) = next_scale(deployment, &new, &old)
        {
            let sets_kind = self.kind("apps", "ReplicaSet")?;
            self.shared
                .store
                .edit(&sets_kind, namespace, &name, false, |set_object| {
                    set(set_object, &["spec", "replicas"], json!(count))
                });
            let word = if count >= number(&new, &["spec", "replicas"], 0)
                && name == text(&new, &["metadata", "name"])
            {
                "up"
            } else {
                "down"
            };
            super::pods::event(
                &self.shared,
                deployment,
                "Normal",
                "ScalingReplicaSet",
                &format!("Scaled {word} replica set {name} to {count}"),
            );
        }
        self.deployment_status(deployment, Some(&new), &sets)
    }

    fn new_set(&mut self, deployment: &Value, hash: &str, sets: &[Arc<Value>]) -> Option<()> {
        let (namespace, name) = (
            text(deployment, &["metadata", "namespace"]),
            text(deployment, &["metadata", "name"]),
        );
        let desired = number(deployment, &["spec", "replicas"], 1);
        let total: i64 = sets
            .iter()
            .map(|set| number(set, &["spec", "replicas"], 0))
            .sum();
        let (surge, _) = limits(deployment);
        let recreate = text(deployment, &["spec", "strategy", "type"]) == "Recreate";
        let first = if recreate && total > 0 {
            0
        } else {
            desired.min((desired + surge - total).max(0))
        };
        let next = sets
            .iter()
            .filter_map(|set| revision(set))
            .max()
            .unwrap_or(0)
            + 1;
        let mut template = get(deployment, &["spec", "template"])?.clone();
        set(
            &mut template,
            &["metadata", "labels", "pod-template-hash"],
            json!(hash),
        );
        let mut annotations = inherited(deployment);
        set(&mut annotations, &[REVISION], json!(next.to_string()));
        set(
            &mut annotations,
            &["deployment.kubernetes.io/desired-replicas"],
            json!(desired.to_string()),
        );
        set(
            &mut annotations,
            &["deployment.kubernetes.io/max-replicas"],
            json!((desired + surge).to_string()),
        );
        let mut selector = get(deployment, &["spec", "selector"])?.clone();
        set(
            &mut selector,
            &["matchLabels", "pod-template-hash"],
            json!(hash),
        );
        let set_name = format!("{name}-{hash}");
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": set_name, "namespace": namespace, "labels": get(&template, &["metadata", "labels"]),
                "annotations": annotations, "ownerReferences": [owner(deployment)],
            },
            "spec": { "replicas": first, "selector": selector, "template": template },
        });
        let kind = self.kind("apps", "ReplicaSet")?;
        if let Err(failure) = self
            .shared
            .store
            .create(&kind, namespace, object, Write::default())
        {
            tracing::warn!(
                message = failure.message,
                "the sandbox could not make a ReplicaSet"
            );
            return None;
        }
        self.progress.insert(
            text(deployment, &["metadata", "uid"]).to_owned(),
            Instant::now(),
        );
        let now = self.shared.clock().stamp();
        let deployments = self.kind("apps", "Deployment")?;
        self.shared
            .store
            .edit(&deployments, namespace, name, true, |new| {
                set(
                    new,
                    &["metadata", "annotations", REVISION],
                    json!(next.to_string()),
                );
                let mut status = new.get("status").cloned().unwrap_or_else(|| json!({}));
                set_condition(
                    &mut status,
                    "Progressing",
                    true,
                    "NewReplicaSetCreated",
                    &format!("Created new replica set {set_name:?}"),
                    &now,
                    false,
                );
                set(new, &["status"], status);
            });
        super::pods::event(
            &self.shared,
            deployment,
            "Normal",
            "ScalingReplicaSet",
            &format!("Scaled up replica set {set_name} to {first}"),
        );
        Some(())
    }

    fn renumber(&self, deployment: &Value, new: &Value, next: i64) -> Option<()> {
        let namespace = text(deployment, &["metadata", "namespace"]);
        let kind = self.kind("apps", "ReplicaSet")?;
        self.shared.store.edit(
            &kind,
            namespace,
            text(new, &["metadata", "name"]),
            false,
            |set_object| {
                set(
                    set_object,
                    &["metadata", "annotations", REVISION],
                    json!(next.to_string()),
                );
            },
        );
        let kind = self.kind("apps", "Deployment")?;
        self.shared.store.edit(
            &kind,
            namespace,
            text(deployment, &["metadata", "name"]),
            false,
            |object| {
                set(
                    object,
                    &["metadata", "annotations", REVISION],
                    json!(next.to_string()),
                );
            },
        );
        Some(())
    }

    fn deployment_status(
        &mut self,
        deployment: &Value,
        new: Option<&Arc<Value>>,
        sets: &[Arc<Value>],
    ) -> Option<()> {
        let (namespace, name) = (
            text(deployment, &["metadata", "namespace"]),
            text(deployment, &["metadata", "name"]),
        );
        let uid = text(deployment, &["metadata", "uid"]).to_owned();
        let all: Vec<&Value> = sets.iter().map(AsRef::as_ref).collect();
        let terminating = sets
            .iter()
            .flat_map(|set| self.owned("", "Pod", namespace, text(set, &["metadata", "uid"])))
            .filter(|pod| get(pod, &["metadata", "deletionTimestamp"]).is_some())
            .count();
        let mut status = counts(
            deployment,
            new.map(AsRef::as_ref),
            &all,
            i64::try_from(terminating).unwrap_or(0),
        );
        let before = deployment
            .get("status")
            .cloned()
            .unwrap_or_else(|| json!({}));
        if let Some(conditions) = before.get("conditions") {
            set(&mut status, &["conditions"], conditions.clone());
        }
        self.conditions(
            deployment,
            new.map(AsRef::as_ref),
            &before,
            &mut status,
            &uid,
        );
        let kind = self.kind("apps", "Deployment")?;
        self.shared
            .store
            .edit(&kind, namespace, name, true, |object| {
                // Written in the order the real controller's encoder has, conditions last.
                set(object, &["status"], status);
            });
        Some(())
    }

    fn conditions(
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
            (
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        } else {
            (
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        set_condition(status, "Available", enough, reason, message, &now, false);
        let Some(set_name) = new.map(|new| text(new, &["metadata", "name"])) else {
            return;
        };
        let progressing = super::health::condition(deployment, "Progressing", "reason").to_owned();
        if complete(deployment, status) {
            let message = format!("ReplicaSet {set_name:?} has successfully progressed.");
            set_condition(
                status,
                "Progressing",
                true,
                "NewReplicaSetAvailable",
                &message,
                &now,
                false,
            );
            self.progress.remove(uid);
        } else if progressing == "NewReplicaSetAvailable"
            && number(status, &["updatedReplicas"], 0) == number(status, &["replicas"], 0)
        {
            // Scaling alone is no rollout: the condition stays.
        } else if progressed(before, status) {
            let message = format!("ReplicaSet {set_name:?} is progressing.");
            set_condition(
                status,
                "Progressing",
                true,
                "ReplicaSetUpdated",
                &message,
                &now,
                true,
            );
            self.progress.insert(uid.to_owned(), Instant::now());
        }
        self.deadline(deployment, set_name, status, uid, &now);
    }

    fn deadline(
        &mut self,
        deployment: &Value,
        set_name: &str,
        status: &mut Value,
        uid: &str,
        now: &str,
    ) {
        let reason = list(status, &["conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Progressing")
            .map(|c| text(c, &["reason"]).to_owned());
        if matches!(
            reason.as_deref(),
            None | Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")
        ) {
            return;
        }
        let seconds = u64::try_from(number(
            deployment,
            &["spec", "progressDeadlineSeconds"],
            600,
        ))
        .unwrap_or(600);
        let limit = self.shared.clock().scaled(Duration::from_secs(seconds));
        let since = *self
            .progress
            .entry(uid.to_owned())
            .or_insert_with(Instant::now);
        if since.elapsed() >= limit {
            let message = format!("ReplicaSet {set_name:?} has timed out progressing.");
            set_condition(
                status,
                "Progressing",
                false,
                "ProgressDeadlineExceeded",
                &message,
                now,
                false,
            );
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

    fn replica_set(&self, object: &Value) -> Option<()> {
        let (namespace, name) = (
            text(object, &["metadata", "namespace"]),
            text(object, &["metadata", "name"]),
        );
        let pods = self.owned("", "Pod", namespace, text(object, &["metadata", "uid"]));
        let mut active: Vec<_> = pods
            .iter()
            .filter(|pod| get(pod, &["metadata", "deletionTimestamp"]).is_none())
            .collect();
        let desired = usize::try_from(number(object, &["spec", "replicas"], 1)).unwrap_or(0);
        let pod_kind = self.kind("", "Pod")?;
        for _ in active.len()..desired {
            let pod = pod_of(object, &format!("{name}-{}", suffix(5)));
            // A namespace that is going away refuses.
            drop(
                self.shared
                    .store
                    .create(&pod_kind, namespace, pod, Write::default()),
            );
        }
        let is_ready = |pod: &Value| super::health::condition(pod, "Ready", "status") == "True";
        active.sort_by_key(|pod| is_ready(pod));
        for pod in active.iter().take(active.len().saturating_sub(desired)) {
            super::pods::terminate(&self.shared, pod);
        }
        let kept: Vec<_> = active
            .iter()
            .skip(active.len().saturating_sub(desired))
            .collect();
        let ready = kept.iter().filter(|pod| is_ready(pod)).count();
        let mut status = json!({ "observedGeneration": number(object, &["metadata", "generation"], 1), "replicas": desired });
        for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
            let count = if field == "fullyLabeledReplicas" {
                kept.len()
            } else {
                ready
            };
            if count > 0 {
                set(&mut status, &[field], json!(count));
            }
        }
        let kind = self.kind("apps", "ReplicaSet")?;
        self.shared
            .store
            .edit(&kind, namespace, name, true, |object| {
                set(object, &["status"], status)
            });
        Some(())
    }

    /// StatefulSets and DaemonSets: pods by ordinal, replaced one at a time from the highest when the template changes.
    fn ordered(&self, object: &Value, desired: i64) -> Option<()> {
        let (namespace, name) = (
            text(object, &["metadata", "namespace"]),
            text(object, &["metadata", "name"]),
        );
        let daemon = text(object, &["kind"]) == "DaemonSet";
        let hash = template_hash(object);
        let pods = self.owned("", "Pod", namespace, text(object, &["metadata", "uid"]));
        let pod_kind = self.kind("", "Pod")?;
        let is_ready = |pod: &Value| super::health::condition(pod, "Ready", "status") == "True";
        let current =
            |pod: &Value| text(pod, &["metadata", "labels", "controller-revision-hash"]) == hash;
        let names: Vec<String> = (0..desired)
            .map(|ordinal| {
                if daemon {
                    format!("{name}-node1")
                } else {
                    format!("{name}-{ordinal}")
                }
            })
            .collect();
        for extra in pods.iter().filter(|pod| {
            !names
                .iter()
                .any(|name| name == text(pod, &["metadata", "name"]))
        }) {
            super::pods::terminate(&self.shared, extra);
        }
        let mut busy = false;
        for pod_name in &names {
            let found = pods
                .iter()
                .find(|pod| text(pod, &["metadata", "name"]) == pod_name);
            match found {
                None if !busy => {
                    let mut pod = pod_of(object, pod_name);
                    set(
                        &mut pod,
                        &["metadata", "labels", "controller-revision-hash"],
                        json!(hash),
                    );
                    drop(
                        self.shared
                            .store
                            .create(&pod_kind, namespace, pod, Write::default()),
                    );
                    busy = true;
                }
                Some(pod) if current(pod) && !is_ready(pod) => busy = true,
                _ => {}
            }
        }
        if !busy && let Some(stale) = pods.iter().rev().find(|pod| !current(pod)) {
            super::pods::terminate(&self.shared, stale);
        }
        let count = |test: &dyn Fn(&Value) -> bool| pods.iter().filter(|pod| test(pod)).count();
        let (ready, updated) = (count(&is_ready), count(&|pod| current(pod)));
        let generation = number(object, &["metadata", "generation"], 1);
        let status = if daemon {
            json!({
                "observedGeneration": generation, "desiredNumberScheduled": desired, "currentNumberScheduled": pods.len(),
                "updatedNumberScheduled": updated, "numberReady": ready, "numberAvailable": ready, "numberMisscheduled": 0,
            })
        } else {
            json!({
                "observedGeneration": generation, "replicas": pods.len(), "readyReplicas": ready, "availableReplicas": ready,
                "currentReplicas": pods.len() - updated, "updatedReplicas": updated, "updateRevision": format!("{name}-{hash}"), "collisionCount": 0,
            })
        };
        let kind = self.kind("apps", text(object, &["kind"]))?;
        self.shared
            .store
            .edit(&kind, namespace, name, true, |object| {
                set(object, &["status"], status)
            });
        Some(())
    }
}

fn revision(set: &Value) -> Option<i64> {
    text(set, &["metadata", "annotations", REVISION])
        .parse()
        .ok()
}

fn owner(object: &Value) -> Value {
    json!({
        "apiVersion": text(object, &["apiVersion"]), "kind": text(object, &["kind"]), "name": text(object, &["metadata", "name"]),
        "uid": text(object, &["metadata", "uid"]), "controller": true, "blockOwnerDeletion": true,
    })
}

/// A Deployment's annotations go to its ReplicaSets, but for kubectl's own and the controller's.
fn inherited(deployment: &Value) -> Value {
    let mut annotations = get(deployment, &["metadata", "annotations"])
        .cloned()
        .unwrap_or_else(|| json!({}));
    for own in ["kubectl.kubernetes.io/last-applied-configuration", REVISION] {
        remove(&mut annotations, &[own]);
    }
    annotations
}

fn pod_of(parent: &Value, name: &str) -> Value {
    let template = get(parent, &["spec", "template"])
        .cloned()
        .unwrap_or(Value::Null);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": text(parent, &["metadata", "namespace"]), "labels": get(&template, &["metadata", "labels"]), "ownerReferences": [owner(parent)] },
        "spec": sorted(template.get("spec").unwrap_or(&Value::Null)),
    });
    if let Some(annotations) = get(&template, &["metadata", "annotations"]) {
        set(&mut pod, &["metadata", "annotations"], annotations.clone());
    }
    pod
}
