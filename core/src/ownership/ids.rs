//! The names that engines write on and about objects.

use crate::model::ObjectKey;

/// A parsed `argocd.argoproj.io/tracking-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackingId {
    /// Application name, or `<namespace>_<name>` for Applications outside the control plane's namespace.
    pub instance: String,
    /// The object that the id was written for. The namespace of a cluster-scoped object is the
    /// Application's destination namespace.
    pub object: ObjectKey,
}

impl TrackingId {
    /// Whether the id was written for this very object, not copied from another one.
    ///
    /// The namespace counts only where the object has one (argo-cd: controller/state.go, isSelfReferencedObj).
    pub fn names(&self, key: &ObjectKey) -> bool {
        self.object.group == key.group
            && self.object.kind == key.kind
            && self.object.name == key.name
            && (key.namespace.is_empty() || self.object.namespace == key.namespace)
    }
}

/// Parses `<instance>:<group>/<Kind>:<namespace>/<name>`; only the first two `:` separate, because
/// RBAC names hold colons (argo-cd: util/argo/resource_tracking.go).
pub fn tracking_id(text: &str) -> Option<TrackingId> {
    let mut parts = text.splitn(3, ':');
    let (instance, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (group, kind) = two(kind)?;
    let (namespace, name) = two(name)?;
    if instance.is_empty() || kind.is_empty() || name.is_empty() {
        return None;
    }
    Some(TrackingId { instance: instance.to_owned(), object: ObjectKey::new(group, kind, namespace, name) })
}

fn two(text: &str) -> Option<(&str, &str)> {
    let (a, b) = text.split_once('/')?;
    (!b.contains('/')).then_some((a, b))
}

/// Namespace and name of the Application behind an instance name (argo-cd: util/argo/argo.go, ParseInstanceName).
/// Kubernetes names hold no `_`, so the first one separates.
pub fn parse_instance(instance: &str, control_plane: &str) -> (String, String) {
    match instance.split_once('_') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (control_plane.to_owned(), instance.to_owned()),
    }
}

/// The instance name of an Application, as tracking ids and `.argocd-source-<name>.yaml` use it.
pub fn instance_name(namespace: &str, name: &str, control_plane: &str) -> String {
    if namespace == control_plane { name.to_owned() } else { format!("{namespace}_{name}") }
}

/// Parses a Flux inventory id `<namespace>_<name>_<group>_<Kind>`: the first `_` ends the namespace,
/// the last two delimit the group, `__` in a name stands for `:` (cli-utils: pkg/object/objmetadata.go).
pub fn inventory_id(id: &str) -> Option<ObjectKey> {
    let (namespace, rest) = id.split_once('_')?;
    let (rest, kind) = rest.rsplit_once('_')?;
    let (name, group) = rest.rsplit_once('_')?;
    if name.is_empty() || kind.is_empty() {
        return None;
    }
    Some(ObjectKey::new(group, kind, namespace, &name.replace("__", ":")))
}
