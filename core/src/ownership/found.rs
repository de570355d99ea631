//! The manifest of a new owner, after the example of one that stands beside it.

use serde_json::{Map, Value, json};

use crate::error::{Problem, Result};
use crate::model::{Engine, OwnerRef};

/// Where a new owner's manifests lie, and where it puts them.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Name of the new owner.
    pub name: &'a str,
    /// Folder of its manifests in the sibling's repository.
    pub path: &'a str,
    /// Namespace of its objects; empty for cluster-scoped ones.
    pub namespace: &'a str,
}

/// A new Application or Kustomization beside `sibling`: the same project, account, repository, branch and cluster,
/// another folder. It never prunes, because nobody has said that it should.
///
/// # Errors
/// `adopt.sibling` where the sibling has nothing to go by.
pub fn founded(owner: &OwnerRef, sibling: &Value, ground: Ground<'_>) -> Result<Value> {
    let bare = |why: &str| {
        Problem::new(
            "adopt.sibling",
            format!("{owner} cannot stand as the example of a new owner: {why}."),
            "Let a person declare the new owner.",
        )
    };
    let spec = sibling.get("spec").unwrap_or(&Value::Null);
    let take = |out: &mut Map<String, Value>, keys: &[&str]| {
        for k in keys {
            if let Some(v) = spec.get(*k) {
                out.insert((*k).to_owned(), v.clone());
            }
        }
    };
    let mut new = Map::new();
    match (owner.engine, owner.kind.as_str()) {
        (Engine::Argocd, "Application") => {
            let source =
                spec.get("source").filter(|_| spec.get("sources").is_none()).ok_or_else(|| bad_sources(&bare))?;
            take(&mut new, &["project"]);
            let part = |k: &str| source.get(k).cloned().unwrap_or_default();
            new.insert(
                "source".into(),
                json!({"repoURL": part("repoURL"), "targetRevision": part("targetRevision"), "path": ground.path}),
            );
            let mut destination = Map::new();
            for k in ["server", "name"] {
                if let Some(v) = spec.pointer(&format!("/destination/{k}")) {
                    destination.insert(k.into(), v.clone());
                }
            }
            if !ground.namespace.is_empty() {
                destination.insert("namespace".into(), ground.namespace.into());
            }
            new.insert("destination".into(), destination.into());
            if spec.pointer("/syncPolicy/automated").is_some() {
                new.insert("syncPolicy".into(), json!({"automated": {"prune": false}}));
            }
        }
        (Engine::Flux, "Kustomization") => {
            if spec.get("kubeConfig").is_some() {
                return Err(bare("it delivers to another cluster"));
            }
            take(&mut new, &["interval", "retryInterval", "timeout", "serviceAccountName", "sourceRef", "wait"]);
            new.insert("path".into(), format!("./{}", ground.path).into());
            new.insert("prune".into(), false.into());
            if !ground.namespace.is_empty() {
                new.insert("targetNamespace".into(), ground.namespace.into());
            }
        }
        _ => return Err(bare("it is of another kind")),
    }
    Ok(json!({
        "apiVersion": sibling.get("apiVersion").cloned().unwrap_or_default(),
        "kind": owner.kind,
        "metadata": {"name": ground.name, "namespace": owner.namespace},
        "spec": new,
    }))
}

fn bad_sources(bare: &impl Fn(&str) -> Problem) -> Problem {
    bare("it has several sources")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUND: Ground<'_> = Ground { name: "stray", path: "apps/stray", namespace: "solo" };

    #[test]
    fn an_application_follows_its_sibling_and_does_not_prune() {
        let owner = OwnerRef::new(Engine::Argocd, "Application", "argocd", "shop");
        let mut sibling = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": "shop", "namespace": "argocd", "finalizers": ["resources-finalizer.argocd.argoproj.io"]},
            "spec": {
                "project": "team-a",
                "source": {"repoURL": "https://git.example/shop", "targetRevision": "main", "path": "apps/shop", "kustomize": {"images": ["x:1"]}},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
                "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
            },
        });
        let new = founded(&owner, &sibling, GROUND).unwrap();
        assert_eq!(new["metadata"], json!({"name": "stray", "namespace": "argocd"}));
        assert_eq!(
            new["spec"],
            json!({
                "project": "team-a",
                "source": {"repoURL": "https://git.example/shop", "targetRevision": "main", "path": "apps/stray"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "solo"},
                "syncPolicy": {"automated": {"prune": false}},
            })
        );
        sibling["spec"]["syncPolicy"] = json!({});
        assert!(founded(&owner, &sibling, GROUND).unwrap()["spec"].get("syncPolicy").is_none());
        sibling["spec"]["sources"] = json!([{}]);
        assert_eq!(founded(&owner, &sibling, GROUND).unwrap_err().code, "adopt.sibling");
    }

    #[test]
    fn a_kustomization_keeps_the_account_of_its_sibling() {
        let owner = OwnerRef::new(Engine::Flux, "Kustomization", "flux-system", "shop");
        let mut sibling = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "spec": {"interval": "5m", "path": "./apps/shop", "prune": true, "serviceAccountName": "shop",
                     "sourceRef": {"kind": "GitRepository", "name": "shop"}, "images": [{"name": "x"}]},
        });
        assert_eq!(
            founded(&owner, &sibling, GROUND).unwrap()["spec"],
            json!({"interval": "5m", "path": "./apps/stray", "prune": false, "serviceAccountName": "shop",
                   "sourceRef": {"kind": "GitRepository", "name": "shop"}, "targetNamespace": "solo"})
        );
        sibling["spec"]["kubeConfig"] = json!({"secretRef": {"name": "far"}});
        assert_eq!(founded(&owner, &sibling, GROUND).unwrap_err().code, "adopt.sibling");
    }
}
