//! The API server as tests use it: with every right, over the real protocol, on both back ends alike.

use std::sync::Arc;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::place::Backend;

/// `kind group version plural`.
const KINDS: [(&str, &str, &str, &str); 20] = [
    ("Namespace", "", "v1", "namespaces"),
    ("ConfigMap", "", "v1", "configmaps"),
    ("Pod", "", "v1", "pods"),
    ("Service", "", "v1", "services"),
    ("ServiceAccount", "", "v1", "serviceaccounts"),
    ("Deployment", "apps", "v1", "deployments"),
    ("ReplicaSet", "apps", "v1", "replicasets"),
    ("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers"),
    ("Role", "rbac.authorization.k8s.io", "v1", "roles"),
    ("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings"),
    ("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
    ("Application", "argoproj.io", "v1alpha1", "applications"),
    ("ApplicationSet", "argoproj.io", "v1alpha1", "applicationsets"),
    ("AppProject", "argoproj.io", "v1alpha1", "appprojects"),
    ("GitRepository", "source.toolkit.fluxcd.io", "v1", "gitrepositories"),
    ("HelmChart", "source.toolkit.fluxcd.io", "v1", "helmcharts"),
    ("Kustomization", "kustomize.toolkit.fluxcd.io", "v1", "kustomizations"),
    ("HelmRelease", "helm.toolkit.fluxcd.io", "v2", "helmreleases"),
    ("Event", "", "v1", "events"),
];

/// The kind's coordinates.
pub fn resource(kind: &str) -> ApiResource {
    let found = KINDS.iter().find(|k| k.0 == kind).unwrap_or_else(|| panic!("{kind} is not in the list"));
    let (kind, group, version, plural) = *found;
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// `apiVersion` of a kind.
pub fn api_version(kind: &str) -> String {
    resource(kind).api_version
}

/// A connection with every right.
#[derive(Clone)]
pub struct Kube(pub Client, Arc<dyn Backend>);

impl Kube {
    pub async fn connect(backend: &Arc<dyn Backend>) -> Self {
        let parsed = Kubeconfig::from_yaml(&backend.admin_kubeconfig()).unwrap();
        let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.unwrap();
        // What is watched after an outage is to be seen at once, not after a pause that grew meanwhile.
        config.default_retry = false;
        Self(Client::try_from(config).unwrap(), backend.clone())
    }

    /// `namespace` is empty for what has none.
    pub fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        if namespace.is_empty() {
            Api::all_with(self.0.clone(), &resource)
        } else {
            Api::namespaced_with(self.0.clone(), namespace, &resource)
        }
    }

    pub async fn create(&self, object: &Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap();
        self.1.check(kind, namespace, object["metadata"]["name"].as_str().unwrap_or_default());
        let mut object = object.clone();
        self.1.mark(&mut object);
        let typed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let done = self.api(kind, namespace).create(&PostParams::default(), &typed).await;
        done.unwrap_or_else(|e| panic!("{kind} {}: {e}", object["metadata"]["name"]));
    }

    /// An object, if it is there. Panics when the API server does not answer.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let found = self.api(kind, namespace).get_opt(name).await;
        let found = found.unwrap_or_else(|e| panic!("{kind} {namespace}/{name}: {e}"))?;
        let mut value = serde_json::to_value(found).unwrap();
        value["kind"] = json!(kind);
        Some(value)
    }

    /// Edits an object in place with a merge patch, as somebody with kubectl does.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: Value) {
        self.1.check(kind, namespace, name);
        let params = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        let done = self.api(kind, namespace).patch(name, &params, &Patch::Merge(patch)).await;
        done.unwrap_or_else(|e| panic!("{kind} {namespace}/{name}: {e}"));
    }

    /// Deletes an object; what is not there is fine.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.1.check(kind, namespace, name);
        drop(self.api(kind, namespace).delete(name, &DeleteParams::background()).await);
    }
}
