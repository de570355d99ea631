//! The kinds that the sandbox serves: names, scope, and whether they have a status subresource.

use std::sync::{Arc, RwLock};

use serde_json::Value;

use super::json::{flag, get, list, text};

/// One served kind in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// API group, empty for the core.
    pub group: String,
    /// API version, like `v1`.
    pub version: String,
    /// Kind, like `Deployment`.
    pub kind: String,
    /// Plural, like `deployments`.
    pub plural: String,
    /// Short names, like `deploy`.
    pub short: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether status is written through `/status` only, and `generation` follows the rest.
    pub status: bool,
}

impl Kind {
    /// `group/version`, or the version alone for the core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, the way messages name it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Deployment.apps`, the way validation messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// `deployment.apps`, the way kubectl names an object.
    pub fn lower(&self) -> String {
        self.qualified().to_lowercase()
    }
}

/// `group version Kind plural short(,short) N|C S|-`: one line a kind.
const BUILT_IN: &str = "
- v1 Namespace namespaces ns C S
- v1 Node nodes no C S
- v1 PersistentVolume persistentvolumes pv C S
- v1 Pod pods po N S
- v1 ConfigMap configmaps cm N -
- v1 Secret secrets - N -
- v1 Service services svc N S
- v1 ServiceAccount serviceaccounts sa N -
- v1 Endpoints endpoints ep N -
- v1 PersistentVolumeClaim persistentvolumeclaims pvc N S
- v1 Event events ev N -
- v1 ResourceQuota resourcequotas quota N S
- v1 LimitRange limitranges limits N -
apps v1 Deployment deployments deploy N S
apps v1 ReplicaSet replicasets rs N S
apps v1 StatefulSet statefulsets sts N S
apps v1 DaemonSet daemonsets ds N S
apps v1 ControllerRevision controllerrevisions - N -
batch v1 Job jobs - N S
batch v1 CronJob cronjobs cj N S
autoscaling v2 HorizontalPodAutoscaler horizontalpodautoscalers hpa N S
autoscaling v1 HorizontalPodAutoscaler horizontalpodautoscalers hpa N S
policy v1 PodDisruptionBudget poddisruptionbudgets pdb N S
networking.k8s.io v1 Ingress ingresses ing N S
networking.k8s.io v1 NetworkPolicy networkpolicies netpol N -
discovery.k8s.io v1 EndpointSlice endpointslices - N -
coordination.k8s.io v1 Lease leases - N -
rbac.authorization.k8s.io v1 Role roles - N -
rbac.authorization.k8s.io v1 RoleBinding rolebindings - N -
rbac.authorization.k8s.io v1 ClusterRole clusterroles - C -
rbac.authorization.k8s.io v1 ClusterRoleBinding clusterrolebindings - C -
apiextensions.k8s.io v1 CustomResourceDefinition customresourcedefinitions crd,crds C S
argoproj.io v1alpha1 Application applications app,apps N -
argoproj.io v1alpha1 AppProject appprojects appproj,appprojs N -
argoproj.io v1alpha1 ApplicationSet applicationsets appset,appsets N S
source.toolkit.fluxcd.io v1 GitRepository gitrepositories gitrepo N S
source.toolkit.fluxcd.io v1 OCIRepository ocirepositories ocirepo N S
source.toolkit.fluxcd.io v1 HelmRepository helmrepositories helmrepo N S
source.toolkit.fluxcd.io v1 HelmChart helmcharts hc N S
kustomize.toolkit.fluxcd.io v1 Kustomization kustomizations ks N S
helm.toolkit.fluxcd.io v2 HelmRelease helmreleases hr N S
keda.sh v1alpha1 ScaledObject scaledobjects so N S
";

/// All kinds, the built-in ones first; a CustomResourceDefinition adds more.
#[derive(Debug, Clone, Default)]
pub struct Kinds(Arc<RwLock<Vec<Arc<Kind>>>>);

impl Kinds {
    /// The built-in kinds; those of an engine that is not there are left out.
    pub fn built_in(argocd: bool, flux: bool) -> Self {
        let kinds = BUILT_IN
            .lines()
            .filter_map(parse)
            .filter(|kind| argocd || kind.group != "argoproj.io")
            .filter(|kind| flux || !kind.group.ends_with("toolkit.fluxcd.io"))
            .map(Arc::new)
            .collect();
        Self(Arc::new(RwLock::new(kinds)))
    }

    /// Every served kind.
    pub fn all(&self) -> Vec<Arc<Kind>> {
        self.0.read().map(|kinds| kinds.clone()).unwrap_or_default()
    }

    fn find(&self, matches: impl Fn(&Kind) -> bool) -> Option<Arc<Kind>> {
        self.0.read().ok()?.iter().find(|kind| matches(kind)).cloned()
    }

    /// By group, version and plural: what a request path says.
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// By group and kind, in the preferred version.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.find(|known| known.group == group && known.kind == kind)
    }

    /// The kind of an object, by its `apiVersion` and `kind`.
    pub fn of(&self, object: &Value) -> Option<Arc<Kind>> {
        let api_version = text(object, &["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = text(object, &["kind"]);
        self.find(|known| known.group == group && known.version == version && known.kind == kind)
    }

    /// Adds the kinds that a CustomResourceDefinition names; known ones stay as they are.
    pub fn add_crd(&self, crd: &Value) {
        let group = text(crd, &["spec", "group"]);
        for version in list(crd, &["spec", "versions"]).iter().filter(|version| flag(version, &["served"])) {
            let kind = Kind {
                group: group.to_owned(),
                version: text(version, &["name"]).to_owned(),
                kind: text(crd, &["spec", "names", "kind"]).to_owned(),
                plural: text(crd, &["spec", "names", "plural"]).to_owned(),
                short: list(crd, &["spec", "names", "shortNames"])
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                namespaced: text(crd, &["spec", "scope"]) != "Cluster",
                status: get(version, &["subresources", "status"]).is_some(),
            };
            if self.by_plural(&kind.group, &kind.version, &kind.plural).is_none()
                && let Ok(mut kinds) = self.0.write()
            {
                kinds.push(Arc::new(kind));
            }
        }
    }
}

fn parse(line: &str) -> Option<Kind> {
    let mut words = line.split_whitespace();
    let group = words.next()?;
    Some(Kind {
        group: if group == "-" { String::new() } else { group.to_owned() },
        version: words.next()?.to_owned(),
        kind: words.next()?.to_owned(),
        plural: words.next()?.to_owned(),
        short: words.next()?.split(',').filter(|name| *name != "-").map(str::to_owned).collect(),
        namespaced: words.next()? == "N",
        status: words.next()? == "S",
    })
}

/// Whether the table above has this kind.
pub fn is_built_in(group: &str, version: &str, kind: &str) -> bool {
    BUILT_IN
        .lines()
        .filter_map(parse)
        .any(|known| known.group == group && known.version == version && known.kind == kind)
}
