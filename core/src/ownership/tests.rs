//! Which owner a live object has, by its marks and by what the owners list, and where that owner comes from.

use serde_json::{Value, json};

use super::*;
use crate::model::{Engine, ObjectKey, OwnerRef, Ownership};

mod argo;
mod conflicts;
mod flux;
mod ids;
mod index;
mod sources;
mod walks;

fn app(namespace: &str, name: &str, resources: &[(&str, &str, &str, &str)]) -> Value {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(g, k, ns, n)| json!({"group": g, "kind": k, "namespace": ns, "name": n, "version": "v1", "status": "Synced"}))
        .collect();
    json!({"kind": "Application", "metadata": {"namespace": namespace, "name": name},
        "spec": {"destination": {"namespace": "shop", "server": "https://kubernetes.default.svc"}},
        "status": {"resources": resources}})
}

fn flux(kind: &str, name: &str, ids: Option<&[&str]>) -> Value {
    let mut cr =
        json!({"kind": kind, "metadata": {"namespace": "flux-system", "name": name}, "spec": {}, "status": {}});
    if let Some(ids) = ids {
        let entries: Vec<Value> = ids.iter().map(|id| json!({"id": id, "v": "v1"})).collect();
        cr["status"]["inventory"] = json!({"entries": entries});
    }
    cr
}

fn index(crs: &[Value]) -> Index {
    let mut index = Index::new();
    for cr in crs {
        index.apply(Listing::of(cr, &[]).unwrap());
    }
    index
}

fn argo() -> Planes {
    Planes { argo: vec![ArgoPlane::new("argocd")] }
}

fn application(namespace: &str, name: &str) -> OwnerRef {
    OwnerRef::new(Engine::Argocd, "Application", namespace, name)
}

fn kustomization(name: &str) -> OwnerRef {
    OwnerRef::new(Engine::Flux, "Kustomization", "flux-system", name)
}

fn deployment() -> ObjectKey {
    ObjectKey::new("apps", "Deployment", "shop", "checkout")
}

fn object(key: ObjectKey, metadata: Value) -> ObjectFacts {
    ObjectFacts::of(key, &json!({"metadata": metadata}))
}

fn tracked(key: ObjectKey, id: &str) -> ObjectFacts {
    object(key, json!({"annotations": {"argocd.argoproj.io/tracking-id": id}}))
}

/// Walks to the end over a small world of objects.
fn answer(start: &ObjectFacts, world: &[ObjectFacts], index: &Index, planes: &Planes) -> Ownership {
    let (mut walk, mut step) = Walk::begin(start, index, planes);
    loop {
        match step {
            Step::Answer(ownership) => return ownership,
            Step::Need(key) => {
                let found = world.iter().find(|o| {
                    o.key == key
                        || (o.key.namespace.is_empty()
                            && o.key == ObjectKey { namespace: String::new(), ..key.clone() })
                });
                let loaded = found.map_or(Loaded::Missing, |o| Loaded::Found(Box::new(o.clone())));
                step = walk.feed(loaded, index, planes);
            }
        }
    }
}

#[track_caller]
fn owner_of(ownership: &Ownership) -> &OwnerRef {
    match ownership {
        Ownership::Owned { owner, .. } => owner,
        other => panic!("not owned: {other:?}"),
    }
}

const DEPLOYMENT: (&str, &str, &str, &str) = ("apps", "Deployment", "shop", "checkout");

fn ks_labels(name: &str) -> Value {
    json!({"labels": {"kustomize.toolkit.fluxcd.io/name": name, "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}})
}
