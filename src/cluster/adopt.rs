//! Which owners could take an object that has none, and how it would show.

use countersign_core::error::Result;
use countersign_core::model::{Engine, ObjectKey, OwnerRef};
use countersign_core::ownership::{Tracking, instance_name, inventory_id};
use serde_json::Value;

use super::Cluster;

/// Owners that are read to find out where they deliver to.
const READS: usize = 40;

impl Cluster {
    /// Owners that deliver to the object's place: by the namespace that they give, or, where they give none (and
    /// for cluster-scoped objects), because they deliver to it already.
    pub async fn deliverers(&self, key: &ObjectKey) -> Result<Vec<OwnerRef>> {
        self.ready().await?;
        let all = self.0.book.read().destinations();
        let mut found = Vec::new();
        let mut reads = 0;
        for (owner, namespace) in all {
            let by_name = !key.namespace.is_empty() && namespace == key.namespace;
            let undecided = key.namespace.is_empty() || namespace.is_empty();
            if by_name {
                found.push(owner);
            } else if undecided && reads < READS {
                reads += 1;
                let object = self.read(&owner.key()).await?;
                if object.is_some_and(|o| delivered(&owner, &o).iter().any(|d| alike(d, key))) {
                    found.push(owner);
                }
            }
        }
        Ok(found)
    }

    /// Owners that declare other owners, each with one that it declares: where a new one could be declared as well.
    pub async fn founders(&self) -> Result<Vec<(OwnerRef, OwnerRef)>> {
        self.ready().await?;
        Ok(self.0.book.read().founders())
    }

    /// Fields that the object has once the owner delivers it, with their values
    /// (argo-cd: util/argo/resource_tracking.go; kustomize-controller: internal/controller/kustomization_controller.go).
    pub async fn marks_of(&self, owner: &OwnerRef, object: &Value, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        if owner.engine == Engine::Flux {
            let mark = |k: &str, v: &str| (format!("/metadata/labels/kustomize.toolkit.fluxcd.io~1{k}"), v.to_owned());
            return Ok(vec![mark("name", &owner.name), mark("namespace", &owner.namespace)]);
        }
        let crd = key.kind == "CustomResourceDefinition";
        let said = object.pointer("/status/controllerNamespace").and_then(Value::as_str).unwrap_or("");
        let control_plane = if said.is_empty() { owner.namespace.as_str() } else { said };
        let planes = self.planes().await?;
        let Some(plane) = planes.argo.iter().find(|p| p.namespace == control_plane).filter(|_| !crd) else {
            return Ok(Vec::new());
        };
        let instance = instance_name(&owner.namespace, &owner.name, &plane.namespace);
        Ok(match plane.tracking {
            Tracking::Label => vec![(format!("/metadata/labels/{}", plane.label_key.replace('/', "~1")), instance)],
            // Of a cluster-scoped object it names the Application's own destination.
            Tracking::Annotation => {
                let place = object.pointer("/spec/destination/namespace").and_then(Value::as_str).unwrap_or("");
                let namespace = if key.namespace.is_empty() { place } else { &key.namespace };
                let id = format!("{instance}:{}/{}:{namespace}/{}", key.group, key.kind, key.name);
                vec![("/metadata/annotations/argocd.argoproj.io~1tracking-id".to_owned(), id)]
            }
        })
    }
}

/// What an owner says that it delivers.
fn delivered(owner: &OwnerRef, object: &Value) -> Vec<ObjectKey> {
    let list = |p: &str| object.pointer(p).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |v: &Value, k: &str| v.get(k).and_then(Value::as_str).unwrap_or("").to_owned();
    match owner.engine {
        Engine::Argocd => list("/status/resources")
            .iter()
            .map(|r| ObjectKey::new(&text(r, "group"), &text(r, "kind"), &text(r, "namespace"), &text(r, "name")))
            .collect(),
        Engine::Flux => list("/status/inventory/entries").iter().filter_map(|e| inventory_id(&text(e, "id"))).collect(),
    }
}

/// Whether one who delivers `d` delivers to the place of `key`.
fn alike(d: &ObjectKey, key: &ObjectKey) -> bool {
    d.namespace == key.namespace && (!key.namespace.is_empty() || (&d.group, &d.kind) == (&key.group, &key.kind))
}
