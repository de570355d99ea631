//! Garbage collection and namespaces: dependents of what was deleted, finalizers of the server's own, what a new namespace holds.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Shared;
use super::json::{get, list, remove, set, text};
use super::store::{Change, Event, Propagation, Write};

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    loop {
        for event in shared.store.tail(seen) {
            seen = event.version;
            collect(&shared, &event);
        }
        if changed.wait_for(|version| *version > seen).await.is_err() {
            return;
        }
    }
}

fn collect(shared: &Shared, event: &Event) {
    let (resource, _, name) = &event.key;
    if resource == "namespaces" && event.change == Change::Added {
        furnish(shared, name);
    }
    let uid = text(&event.object, &["metadata", "uid"]);
    if event.change == Change::Deleted {
        for (_, object) in dependents(shared, uid) {
            delete(shared, &object);
        }
        finish_owners(shared, &event.object);
    } else if get(&event.object, &["metadata", "deletionTimestamp"]).is_some() {
        finalize(shared, &event.object);
    }
}

fn furnish(shared: &Shared, namespace: &str) {
    let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-root-ca.crt", "annotations": { "kubernetes.io/description": about } }, "data": { "ca.crt": "" } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } }),
    ];
    for object in objects {
        if let Some(kind) = shared.store.kinds.of(&object) {
            // Refused only when the namespace is already gone again.
            drop(shared.store.create(&kind, namespace, object, Write::default()));
        }
    }
}

fn dependents(shared: &Shared, uid: &str) -> Vec<(super::store::Key, Arc<Value>)> {
    let owned = |object: &Value| {
        list(object, &["metadata", "ownerReferences"]).iter().any(|owner| text(owner, &["uid"]) == uid)
    };
    shared.store.everything().into_iter().filter(|(_, object)| owned(object)).collect()
}

fn delete(shared: &Shared, object: &Value) {
    let Some(kind) = shared.store.kinds.of(object) else {
        return;
    };
    let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
    // Someone else may have been quicker.
    drop(shared.store.delete(&kind, namespace, name, Propagation::Background, false));
}

/// Does the work behind the server's own finalizers, and takes each away when it is done.
fn finalize(shared: &Shared, object: &Value) {
    let uid = text(object, &["metadata", "uid"]);
    for finalizer in list(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str) {
        match finalizer {
            "foregroundDeletion" => {
                let all = dependents(shared, uid);
                for (_, dependent) in &all {
                    delete(shared, dependent);
                }
                if all.is_empty() {
                    release(shared, object, finalizer);
                }
            }
            "orphan" => {
                for (_, dependent) in dependents(shared, uid) {
                    disown(shared, &dependent, uid);
                }
                release(shared, object, finalizer);
            }
            "kubernetes" if text(object, &["kind"]) == "Namespace" => {
                let name = text(object, &["metadata", "name"]);
                let inside: Vec<_> =
                    shared.store.everything().into_iter().filter(|((_, namespace, _), _)| namespace == name).collect();
                for (_, object) in &inside {
                    delete(shared, object);
                }
                if shared.store.everything().iter().all(|((_, namespace, _), _)| namespace != name) {
                    release(shared, object, finalizer);
                }
            }
            _ => {}
        }
    }
}

/// A deletion may have been the last thing that an owner or a namespace waited for.
fn finish_owners(shared: &Shared, gone: &Value) {
    for owner in list(gone, &["metadata", "ownerReferences"]) {
        let uid = text(owner, &["uid"]);
        let waiting = shared.store.everything().into_iter().find(|(_, object)| {
            text(object, &["metadata", "uid"]) == uid && get(object, &["metadata", "deletionTimestamp"]).is_some()
        });
        if let Some((_, object)) = waiting {
            finalize(shared, &object);
        }
    }
    let namespace = text(gone, &["metadata", "namespace"]);
    if !namespace.is_empty()
        && let Some(object) = shared.store.find("", "Namespace", "", namespace)
        && get(&object, &["metadata", "deletionTimestamp"]).is_some()
    {
        finalize(shared, &object);
    }
}

fn release(shared: &Shared, object: &Value, finalizer: &str) {
    let Some(kind) = shared.store.kinds.of(object) else {
        return;
    };
    let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
    shared.store.edit(&kind, namespace, name, false, |new| {
        let left: Vec<Value> = list(new, &["metadata", "finalizers"])
            .iter()
            .filter(|known| known.as_str() != Some(finalizer))
            .cloned()
            .collect();
        if left.is_empty() {
            remove(new, &["metadata", "finalizers"]);
        } else {
            set(new, &["metadata", "finalizers"], Value::Array(left));
        }
        if finalizer == "kubernetes" {
            set(new, &["spec", "finalizers"], json!([]));
        }
    });
}

fn disown(shared: &Shared, object: &Value, uid: &str) {
    let Some(kind) = shared.store.kinds.of(object) else {
        return;
    };
    let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
    shared.store.edit(&kind, namespace, name, false, |new| {
        let left: Vec<Value> = list(new, &["metadata", "ownerReferences"])
            .iter()
            .filter(|owner| text(owner, &["uid"]) != uid)
            .cloned()
            .collect();
        set(new, &["metadata", "ownerReferences"], Value::Array(left));
    });
}
