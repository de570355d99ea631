//! The workload controllers: Deployment to ReplicaSet to Pods, StatefulSets and DaemonSets in small.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::json::{flag, get, list, number, remove, set, text};
use super::kinds::Kind;
use super::replicas::owner;
use super::rollout::{limits, next_scale, set_condition, template_hash};
use super::store::Write;
use super::{Engine, Shared};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// Kind, namespace, name.
pub(super) type Item = (&'static str, String, String);

pub(super) struct Controller {
    pub(super) shared: Shared,
    /// When each Deployment (by uid) last made progress, for its deadline.
    pub(super) progress: HashMap<String, Instant>,
    pub(super) later: mpsc::UnboundedSender<Item>,
}

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let (later, mut due) = mpsc::unbounded_channel();
    let mut controller = Controller { shared: shared.clone(), progress: HashMap::new(), later };
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    loop {
        let mut dirty = BTreeSet::new();
        for event in shared.store.tail(seen) {
            seen = event.version;
            mark(&mut dirty, &event.key, &event.object);
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

fn mark(dirty: &mut BTreeSet<Item>, (resource, namespace, name): &super::store::Key, object: &Value) {
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
        if let (false, Some(set)) = (deployment.is_empty(), list(object, &["metadata", "ownerReferences"]).first()) {
            let name = text(set, &["name"]).trim_end_matches(deployment).trim_end_matches('-');
            dirty.insert(("Deployment", namespace.clone(), name.to_owned()));
        }
    }
}

impl Controller {
    pub(super) fn kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.shared.store.kinds.by_kind(group, kind)
    }

    pub(super) fn owned(&self, group: &str, kind: &str, namespace: &str, owner: &str) -> Vec<Arc<Value>> {
        let Some(kind) = self.kind(group, kind) else {
            return Vec::new();
        };
        let mine = |object: &Arc<Value>| {
            list(object, &["metadata", "ownerReferences"]).iter().any(|reference| text(reference, &["uid"]) == owner)
        };
        self.shared.store.list(&kind, namespace).0.into_iter().filter(mine).collect()
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
        let sets = self.owned("apps", "ReplicaSet", namespace, text(deployment, &["metadata", "uid"]));
        let hash = template_hash(deployment);
        let is_new = |set: &&Arc<Value>| text(set, &["metadata", "labels", "pod-template-hash"]) == hash;
        let Some(new) = sets.iter().find(is_new).cloned() else {
            if flag(deployment, &["spec", "paused"]) {
                return self.deployment_status(deployment, None, &sets);
            }
            return self.new_set(deployment, &hash, &sets);
        };
        let old: Vec<&Value> = sets.iter().filter(|set| !is_new(set)).map(AsRef::as_ref).collect();
        let newest = old.iter().filter_map(|set| revision(set)).max().unwrap_or(0);
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
            self.shared.store.edit(&sets_kind, namespace, &name, false, |set_object| {
                set(set_object, &["spec", "replicas"], json!(count))
            });
            let word = if count >= number(&new, &["spec", "replicas"], 0) && name == text(&new, &["metadata", "name"]) {
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
        let (namespace, name) = (text(deployment, &["metadata", "namespace"]), text(deployment, &["metadata", "name"]));
        let desired = number(deployment, &["spec", "replicas"], 1);
        let total: i64 = sets.iter().map(|set| number(set, &["spec", "replicas"], 0)).sum();
        let (surge, _) = limits(deployment);
        let recreate = text(deployment, &["spec", "strategy", "type"]) == "Recreate";
        let first = if recreate && total > 0 { 0 } else { desired.min((desired + surge - total).max(0)) };
        let next = sets.iter().filter_map(|set| revision(set)).max().unwrap_or(0) + 1;
        let mut template = get(deployment, &["spec", "template"])?.clone();
        set(&mut template, &["metadata", "labels", "pod-template-hash"], json!(hash));
        let mut annotations = inherited(deployment);
        set(&mut annotations, &[REVISION], json!(next.to_string()));
        set(&mut annotations, &["deployment.kubernetes.io/desired-replicas"], json!(desired.to_string()));
        set(&mut annotations, &["deployment.kubernetes.io/max-replicas"], json!((desired + surge).to_string()));
        let mut selector = get(deployment, &["spec", "selector"])?.clone();
        set(&mut selector, &["matchLabels", "pod-template-hash"], json!(hash));
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
        if let Err(failure) = self.shared.store.create(&kind, namespace, object, Write::default()) {
            tracing::warn!(message = failure.message, "the sandbox could not make a ReplicaSet");
            return None;
        }
        self.progress.insert(text(deployment, &["metadata", "uid"]).to_owned(), Instant::now());
        let now = self.shared.clock().stamp();
        let deployments = self.kind("apps", "Deployment")?;
        self.shared.store.edit(&deployments, namespace, name, true, |new| {
            set(new, &["metadata", "annotations", REVISION], json!(next.to_string()));
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
        self.shared.store.edit(&kind, namespace, text(new, &["metadata", "name"]), false, |set_object| {
            set(set_object, &["metadata", "annotations", REVISION], json!(next.to_string()));
        });
        let kind = self.kind("apps", "Deployment")?;
        self.shared.store.edit(&kind, namespace, text(deployment, &["metadata", "name"]), false, |object| {
            set(object, &["metadata", "annotations", REVISION], json!(next.to_string()));
        });
        Some(())
    }
}

fn revision(set: &Value) -> Option<i64> {
    text(set, &["metadata", "annotations", REVISION]).parse().ok()
}

/// A Deployment's annotations go to its ReplicaSets, but for kubectl's own and the controller's.
fn inherited(deployment: &Value) -> Value {
    let mut annotations = get(deployment, &["metadata", "annotations"]).cloned().unwrap_or_else(|| json!({}));
    for own in ["kubectl.kubernetes.io/last-applied-configuration", REVISION] {
        remove(&mut annotations, &[own]);
    }
    annotations
}
