//! The objects that a scenario starts from.

use serde_json::{Value, json};

/// An Argo CD Application in the control plane's namespace, synced automatically, that delivers one folder of `main`.
pub fn application(name: &str, repo_url: &str, path: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": { "name": name, "namespace": super::argocd::NAMESPACE },
        "spec": {
            "project": "default",
            "source": { "repoURL": repo_url, "path": path, "targetRevision": "main" },
            "destination": { "server": "https://kubernetes.default.svc", "namespace": namespace },
            "syncPolicy": {
                "automated": { "prune": true, "selfHeal": true },
                "syncOptions": ["CreateNamespace=true"],
            },
        },
    })
}

/// A Flux GitRepository in `flux-system` that follows `main`.
pub fn git_repository(name: &str, repo_url: &str) -> Value {
    json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": { "name": name, "namespace": "flux-system" },
        "spec": { "interval": "1m", "ref": { "branch": "main" }, "url": repo_url },
    })
}

/// A Flux Kustomization in `flux-system` that applies one folder of a source and waits for health.
pub fn kustomization(name: &str, source: &str, path: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": { "name": name, "namespace": "flux-system" },
        "spec": {
            "interval": "1m", "retryInterval": "10s", "timeout": "25s", "path": path, "prune": true, "wait": true,
            "targetNamespace": namespace, "sourceRef": { "kind": "GitRepository", "name": source },
        },
    })
}
