//! Facts that the decision works on, read leniently from JSON: a missing field is an absent fact.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ids::inventory_id;
use crate::model::{Engine, ObjectKey, OwnerRef};

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    /// The object referred to. Its namespace is the child's; whoever loads it drops that where
    /// the kind is cluster-scoped.
    pub key: ObjectKey,
    /// Its uid: another uid under the same name is another object.
    pub uid: String,
    /// Whether it is the managing controller.
    pub controller: bool,
}

/// What the decision needs to know of one live object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Its name.
    pub key: ObjectKey,
    /// Its uid; empty where unknown.
    pub uid: String,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `ownerReferences`.
    pub parents: Vec<ParentRef>,
}

impl ObjectFacts {
    /// Facts with nothing but the name.
    pub fn bare(key: ObjectKey) -> Self {
        Self { key, uid: String::new(), annotations: BTreeMap::new(), labels: BTreeMap::new(), parents: Vec::new() }
    }

    /// Facts of an object as the API server gives it. `key` is the caller's, because recordings
    /// and lists leave out `apiVersion`.
    pub fn of(key: ObjectKey, object: &Value) -> Self {
        let meta = object.get("metadata").unwrap_or(&Value::Null);
        let parents = meta.get("ownerReferences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let parents = parents
            .iter()
            .map(|r| {
                let group = text(r, "apiVersion").split_once('/').map_or("", |(g, _)| g);
                ParentRef {
                    key: ObjectKey::new(group, text(r, "kind"), &key.namespace, text(r, "name")),
                    uid: text(r, "uid").to_owned(),
                    controller: r.get("controller").and_then(Value::as_bool).unwrap_or(false),
                }
            })
            .collect();
        Self {
            uid: text(meta, "uid").to_owned(),
            annotations: strings(meta.get("annotations")),
            labels: strings(meta.get("labels")),
            parents,
            key,
        }
    }

    /// CRDs never get Argo CD's tracking metadata (argo-cd: reposerver/repository/repository.go).
    pub fn is_crd(&self) -> bool {
        self.key.group == "apiextensions.k8s.io" && self.key.kind == "CustomResourceDefinition"
    }
}

/// How an Argo CD control plane marks its objects (`application.resourceTrackingMethod`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tracking {
    /// `annotation` (default since 3.0) and `annotation+label`: the annotation decides.
    #[default]
    Annotation,
    /// `label` (default before 3.0).
    Label,
}

/// One Argo CD control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgoPlane {
    /// Namespace of its controller.
    pub namespace: String,
    /// How it marks objects.
    pub tracking: Tracking,
    /// Label key under label tracking.
    pub label_key: String,
    /// `installationID` of `argocd-cm`.
    pub installation_id: Option<String>,
}

impl ArgoPlane {
    /// A control plane with the defaults of Argo CD 3.
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            tracking: Tracking::Annotation,
            label_key: "app.kubernetes.io/instance".to_owned(),
            installation_id: None,
        }
    }

    /// A control plane as its ConfigMap `argocd-cm` says (argo-cd: util/settings/settings.go).
    /// `before_3` is whether the server is older than 3.0, where an absent key means label tracking.
    pub fn from_config(namespace: &str, config: Option<&Value>, before_3: bool) -> Self {
        let mut plane = Self::new(namespace);
        let data = config.and_then(|c| c.get("data")).unwrap_or(&Value::Null);
        plane.tracking = match text(data, "application.resourceTrackingMethod") {
            "label" => Tracking::Label,
            "" if before_3 => Tracking::Label,
            _ => Tracking::Annotation,
        };
        let key = text(data, "application.instanceLabelKey");
        if !key.is_empty() {
            plane.label_key = key.to_owned();
        }
        let id = text(data, "installationID");
        plane.installation_id = (!id.is_empty()).then(|| id.to_owned());
        plane
    }
}

/// The control planes whose owners can target the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planes {
    /// Argo CD installations.
    pub argo: Vec<ArgoPlane>,
}

/// What one owner says that it delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The owner.
    pub owner: OwnerRef,
    /// Objects that it lists; `None` where it keeps no inventory (helm-controller before 1.5).
    pub objects: Option<Vec<ObjectKey>>,
    /// Where the objects are, when that is another cluster: they say nothing about this one.
    pub remote: Option<String>,
    /// Argo CD: namespace of the control plane that reconciles it, where its status says so.
    pub plane: Option<String>,
}

impl Listing {
    /// What an owner's own object says; `None` for kinds that own nothing. `here` are further addresses
    /// under which this cluster is known, besides the one that every pod knows.
    pub fn of(object: &Value, here: &[String]) -> Option<Self> {
        let meta = object.get("metadata")?;
        let status = object.get("status").unwrap_or(&Value::Null);
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let (namespace, name) = (text(meta, "namespace"), text(meta, "name"));
        let kind = text(object, "kind");
        if kind == "Application" {
            let plane = text(status, "controllerNamespace");
            return Some(Self {
                owner: OwnerRef::new(Engine::Argocd, kind, namespace, name),
                objects: Some(argo_resources(status)),
                remote: remote_destination(spec, here),
                plane: (!plane.is_empty()).then(|| plane.to_owned()),
            });
        }
        if !matches!(kind, "Kustomization" | "HelmRelease" | "ResourceSet" | "FluxInstance") {
            return None;
        }
        let remote = spec.get("kubeConfig").filter(|k| !k.is_null()).map(|k| {
            let secret = k.pointer("/secretRef/name").or_else(|| k.pointer("/configMapRef/name"));
            format!("the cluster of spec.kubeConfig {}", secret.and_then(Value::as_str).unwrap_or(""))
        });
        Some(Self {
            owner: OwnerRef::new(Engine::Flux, kind, namespace, name),
            objects: status.get("inventory").filter(|i| !i.is_null()).map(|i| {
                let entries = i.get("entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                entries.iter().filter_map(|e| inventory_id(text(e, "id"))).collect()
            }),
            remote,
            plane: None,
        })
    }
}

fn argo_resources(status: &Value) -> Vec<ObjectKey> {
    let list = status.get("resources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter(|r| !r.get("hook").and_then(Value::as_bool).unwrap_or(false))
        .map(|r| ObjectKey::new(text(r, "group"), text(r, "kind"), text(r, "namespace"), text(r, "name")))
        .collect()
}

/// The destination of an Application, when it is not the cluster that Argo CD runs in
/// (argo-cd: common/common.go, KubernetesInternalAPIServerAddr; the built-in name is `in-cluster`).
fn remote_destination(spec: &Value, here: &[String]) -> Option<String> {
    let destination = spec.get("destination")?;
    let (server, name) = (text(destination, "server"), text(destination, "name"));
    let bare = server.trim_end_matches('/');
    let local = bare == "https://kubernetes.default.svc"
        || (!bare.is_empty() && here.iter().any(|h| h.trim_end_matches('/').eq_ignore_ascii_case(bare)))
        || (server.is_empty() && matches!(name, "" | "in-cluster"));
    (!local).then(|| if server.is_empty() { format!("cluster {name}") } else { server.to_owned() })
}

/// A string field, or nothing.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}
