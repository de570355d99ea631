//! The controllers that make pods: ReplicaSets, and StatefulSets and DaemonSets in small.

use serde_json::{Value, json};

use super::json::{get, number, set, text};
use super::rollout::{sorted, template_hash};
use super::store::{Write, suffix};
use super::workloads::Controller;

impl Controller {
    pub(super) fn replica_set(&self, object: &Value) -> Option<()> {
        let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
        let pods = self.owned("", "Pod", namespace, text(object, &["metadata", "uid"]));
        let mut active: Vec<_> =
            pods.iter().filter(|pod| get(pod, &["metadata", "deletionTimestamp"]).is_none()).collect();
        let desired = usize::try_from(number(object, &["spec", "replicas"], 1)).unwrap_or(0);
        let pod_kind = self.kind("", "Pod")?;
        for _ in active.len()..desired {
            let pod = pod_of(object, &format!("{name}-{}", suffix(5)));
            // A namespace that is going away refuses.
            drop(self.shared.store.create(&pod_kind, namespace, pod, Write::default()));
        }
        let is_ready = |pod: &Value| super::health::condition(pod, "Ready", "status") == "True";
        active.sort_by_key(|pod| is_ready(pod));
        for pod in active.iter().take(active.len().saturating_sub(desired)) {
            super::pods::terminate(&self.shared, pod);
        }
        let kept: Vec<_> = active.iter().skip(active.len().saturating_sub(desired)).collect();
        let ready = kept.iter().filter(|pod| is_ready(pod)).count();
        let mut status =
            json!({ "observedGeneration": number(object, &["metadata", "generation"], 1), "replicas": desired });
        for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
            let count = if field == "fullyLabeledReplicas" { kept.len() } else { ready };
            if count > 0 {
                set(&mut status, &[field], json!(count));
            }
        }
        let kind = self.kind("apps", "ReplicaSet")?;
        self.shared.store.edit(&kind, namespace, name, true, |object| set(object, &["status"], status));
        Some(())
    }

    /// StatefulSets and DaemonSets: pods by ordinal, replaced one at a time from the highest when the template changes.
    pub(super) fn ordered(&self, object: &Value, desired: i64) -> Option<()> {
        let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
        let daemon = text(object, &["kind"]) == "DaemonSet";
        let hash = template_hash(object);
        let pods = self.owned("", "Pod", namespace, text(object, &["metadata", "uid"]));
        let pod_kind = self.kind("", "Pod")?;
        let is_ready = |pod: &Value| super::health::condition(pod, "Ready", "status") == "True";
        let current = |pod: &Value| text(pod, &["metadata", "labels", "controller-revision-hash"]) == hash;
        let names: Vec<String> = (0..desired)
            .map(|ordinal| if daemon { format!("{name}-node1") } else { format!("{name}-{ordinal}") })
            .collect();
        for extra in pods.iter().filter(|pod| !names.iter().any(|name| name == text(pod, &["metadata", "name"]))) {
            super::pods::terminate(&self.shared, extra);
        }
        let mut busy = false;
        for pod_name in &names {
            let found = pods.iter().find(|pod| text(pod, &["metadata", "name"]) == pod_name);
            match found {
                None if !busy => {
                    let mut pod = pod_of(object, pod_name);
                    set(&mut pod, &["metadata", "labels", "controller-revision-hash"], json!(hash));
                    drop(self.shared.store.create(&pod_kind, namespace, pod, Write::default()));
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
        self.shared.store.edit(&kind, namespace, name, true, |object| set(object, &["status"], status));
        Some(())
    }
}

pub(super) fn owner(object: &Value) -> Value {
    json!({
        "apiVersion": text(object, &["apiVersion"]), "kind": text(object, &["kind"]), "name": text(object, &["metadata", "name"]),
        "uid": text(object, &["metadata", "uid"]), "controller": true, "blockOwnerDeletion": true,
    })
}

pub(super) fn pod_of(parent: &Value, name: &str) -> Value {
    let template = get(parent, &["spec", "template"]).cloned().unwrap_or(Value::Null);
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
