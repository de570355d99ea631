//! How dangerous a change is, from the change alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::model::{LeafChange, ObjectKey, Risk, RiskLevel};

/// One object before and after; both present = edited.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectChange {
    /// Which.
    pub key: ObjectKey,
    /// Before; `None` = it is created.
    pub before: Option<Value>,
    /// After; `None` = it is deleted.
    pub after: Option<Value>,
}

/// Label keys that say which environment an object belongs to.
const ENV_KEYS: [&str; 6] =
    ["env", "environment", "stage", "tier", "app.kubernetes.io/environment", "countersign.dev/env"];

/// API groups whose objects are understood well enough to call an edit of them harmless.
const PLAIN_KINDS: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "ConfigMap",
            "Service",
            "Pod",
            "ReplicationController",
            "LimitRange",
            "ResourceQuota",
            "Endpoints",
            "PersistentVolumeClaim",
            "Namespace",
            "Secret",
            "ServiceAccount",
            "PersistentVolume",
        ],
    ),
    ("apps", &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"]),
    ("batch", &["Job", "CronJob"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("policy", &["PodDisruptionBudget"]),
    ("networking.k8s.io", &["Ingress", "NetworkPolicy"]),
];

/// Groups of engines and sources: an edit there redirects everything below it.
const ENGINE_GROUPS: [&str; 6] = [
    "argoproj.io",
    "kustomize.toolkit.fluxcd.io",
    "source.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
    "image.toolkit.fluxcd.io",
    "fluxcd.controlplane.io",
];

/// Pod fields that reach beyond the pod.
const PRIVILEGE_FIELDS: [&str; 14] = [
    "privileged",
    "allowPrivilegeEscalation",
    "hostPath",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostUsers",
    "capabilities",
    "runAsUser",
    "runAsNonRoot",
    "procMount",
    "seccompProfile",
    "appArmorProfile",
    "hostPort",
];

/// Fields that decide as whom a workload acts.
const IDENTITY_FIELDS: [&str; 5] =
    ["serviceAccountName", "serviceAccount", "automountServiceAccountToken", "imagePullSecrets", "runtimeClassName"];

/// Collects the level and its reasons.
#[derive(Default)]
struct Grade {
    level: Option<RiskLevel>,
    reasons: BTreeSet<String>,
}

impl Grade {
    fn add(&mut self, level: RiskLevel, reason: impl Into<String>) {
        self.level = self.level.max(Some(level));
        self.reasons.insert(reason.into());
    }
}

/// Assesses a change. `labels` are the label sets of cluster, repository and objects, before and
/// after. What is not understood raises the level instead of passing.
pub fn assess(
    leaves: &[LeafChange],
    files: &[String],
    objects: &[ObjectChange],
    labels: &[&BTreeMap<String, String>],
) -> Risk {
    let mut g = Grade::default();
    for leaf in leaves {
        grade_leaf(leaf, &mut g);
    }
    for object in objects {
        grade_object(object, &mut g);
    }
    let touched: BTreeSet<&ObjectKey> =
        leaves.iter().map(|l| &l.object).chain(objects.iter().map(|o| &o.key)).collect();
    for key in &touched {
        grade_kind(key, &mut g);
    }
    if touched.len() > 1 {
        g.add(RiskLevel::High, format!("{} objects", touched.len()));
    }
    if touched.is_empty() {
        g.add(RiskLevel::High, "no visible effect");
    }
    if files.len() > 1 {
        g.add(RiskLevel::Medium, format!("{} files", files.len()));
    }
    if leaves.len() > 1 {
        g.add(RiskLevel::Medium, format!("{} fields", leaves.len()));
    }
    if labels.iter().any(|l| is_production(l)) {
        g.add(RiskLevel::High, "prod");
    }
    let mut reasons: Vec<String> = g.reasons.into_iter().collect();
    reasons.sort_by(|a, b| a.chars().count().cmp(&b.chars().count()).then_with(|| a.cmp(b)));
    Risk { level: g.level.unwrap_or(RiskLevel::Low), reasons }
}

/// Whether labels call something production.
pub fn is_production(labels: &BTreeMap<String, String>) -> bool {
    labels.iter().any(|(k, v)| {
        let v = v.to_ascii_lowercase();
        let production = v == "production"
            || v == "live"
            || v == "prd"
            || v.split(['-', '_', '.']).any(|p| p == "prod" || p == "production");
        ENV_KEYS.contains(&k.to_ascii_lowercase().as_str()) && production
    })
}

fn grade_kind(key: &ObjectKey, g: &mut Grade) {
    if key.group == "rbac.authorization.k8s.io" {
        g.add(RiskLevel::Critical, "RBAC");
    } else if ENGINE_GROUPS.contains(&key.group.as_str()) {
        if !matches!(
            key.kind.as_str(),
            "Rollout"
                | "AnalysisTemplate"
                | "ClusterAnalysisTemplate"
                | "Workflow"
                | "WorkflowTemplate"
                | "CronWorkflow"
        ) {
            g.add(RiskLevel::Critical, format!("engine ({})", key.kind));
        }
    } else if matches!(
        key.group.as_str(),
        "admissionregistration.k8s.io" | "apiregistration.k8s.io" | "certificates.k8s.io"
    ) {
        g.add(RiskLevel::Critical, "admission");
    } else if key.kind == "CustomResourceDefinition" {
        g.add(RiskLevel::Critical, "CRD");
    } else if key.kind == "ServiceAccount" {
        g.add(RiskLevel::Critical, "service account");
    } else if key.kind == "Secret" {
        g.add(RiskLevel::Critical, "Secret");
    } else if key.kind == "Namespace" {
        g.add(RiskLevel::High, "Namespace");
    } else if key.kind == "NetworkPolicy" {
        g.add(RiskLevel::High, "NetworkPolicy");
    } else if !PLAIN_KINDS.iter().any(|(group, kinds)| *group == key.group && kinds.contains(&key.kind.as_str())) {
        g.add(RiskLevel::High, format!("unknown kind {}", key.kind));
    }
}

fn grade_object(o: &ObjectChange, g: &mut Grade) {
    match (&o.before, &o.after) {
        (Some(_), None) => match o.key.kind.as_str() {
            "Namespace" | "CustomResourceDefinition" | "PersistentVolumeClaim" | "PersistentVolume" | "StatefulSet" => {
                g.add(RiskLevel::Critical, format!("deletes a {}", o.key.kind));
            }
            _ => g.add(RiskLevel::High, "deletion"),
        },
        (None, Some(after)) => {
            g.add(RiskLevel::Medium, "new object");
            let mut found = Vec::new();
            walk(after, "", &mut |pointer, v| found.push((pointer.to_owned(), v.clone())));
            for (pointer, v) in found {
                grade_field(&pointer, None, Some(&v), g);
            }
        }
        (Some(before), Some(after)) => {
            let finalizers = |v: &Value| v.pointer("/metadata/finalizers").cloned();
            if finalizers(before) != finalizers(after) {
                g.add(RiskLevel::Critical, "finalizers");
            }
        }
        (None, None) => {}
    }
}

fn walk(v: &Value, at: &str, found: &mut dyn FnMut(&str, &Value)) {
    match v {
        Value::Object(m) => {
            m.iter().for_each(|(k, v)| walk(v, &format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), found))
        }
        Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| walk(v, &format!("{at}/{i}"), found)),
        _ => found(at, v),
    }
}

fn grade_leaf(l: &LeafChange, g: &mut Grade) {
    if l.pointer.is_empty() {
        let what = if l.after.is_none() { "deletion" } else { "whole object" };
        g.add(RiskLevel::High, what);
    }
    // A leaf may stand for a whole subtree that comes or goes: its inner fields count like others.
    let inner = |v: &Value| matches!(v, Value::Object(_) | Value::Array(_));
    if l.before.as_ref().is_some_and(inner) || l.after.as_ref().is_some_and(inner) {
        for (v, is_after) in [(&l.before, false), (&l.after, true)] {
            let mut found = Vec::new();
            if let Some(v) = v {
                walk(v, &l.pointer, &mut |p, v| found.push((p.to_owned(), v.clone())));
            }
            for (p, v) in found {
                let (before, after) = if is_after { (None, Some(&v)) } else { (Some(&v), None) };
                grade_field(&p, before, after, g);
            }
        }
    }
    grade_field(&l.pointer, l.before.as_ref(), l.after.as_ref(), g);
    if l.before.is_some() && l.after.is_none() {
        g.add(RiskLevel::Medium, "removes a field");
    }
}

fn grade_field(pointer: &str, before: Option<&Value>, after: Option<&Value>, g: &mut Grade) {
    let parts: Vec<&str> = pointer.split('/').skip(1).collect();
    let Some(last) = parts.last().copied() else { return };
    let has = |name: &str| parts.contains(&name);
    if parts.iter().any(|p| PRIVILEGE_FIELDS.contains(p)) {
        g.add(RiskLevel::Critical, "privilege");
    }
    if parts.iter().any(|p| IDENTITY_FIELDS.contains(p)) {
        g.add(RiskLevel::Critical, "identity");
    }
    if has("finalizers") || has("ownerReferences") {
        g.add(RiskLevel::Critical, "finalizers");
    }
    if last == "image" {
        grade_image(before.and_then(Value::as_str), after.and_then(Value::as_str), g);
    }
    if matches!(last, "command" | "args") || has("command") || has("args") || has("initContainers") && last != "image" {
        g.add(RiskLevel::High, "command");
    }
    if last == "replicas" && after.and_then(Value::as_i64).is_none_or(|n| n == 0) {
        g.add(RiskLevel::High, "scale to 0");
    }
    if matches!(last, "minReplicas" | "maxReplicas") {
        g.add(RiskLevel::Medium, "autoscaling");
    }
    if has("selector") {
        g.add(RiskLevel::High, "selector");
    }
    if has("volumes") || has("volumeMounts") || has("volumeClaimTemplates") {
        g.add(RiskLevel::High, "volumes");
    }
    if matches!(parts.as_slice(), ["metadata", "labels" | "annotations", ..]) {
        grade_metadata(&parts, g);
    }
    if matches!(parts.as_slice(), ["spec", "type"] | ["spec", "externalIPs" | "loadBalancerSourceRanges", ..]) {
        g.add(RiskLevel::High, "exposure");
    }
}

fn grade_metadata(parts: &[&str], g: &mut Grade) {
    let key = parts.get(2).copied().unwrap_or_default().replace("~1", "/").replace("~0", "~");
    if parts.get(1) == Some(&"labels") && ENV_KEYS.contains(&key.to_ascii_lowercase().as_str()) {
        g.add(RiskLevel::High, "environment label");
    }
    let engine = [
        "argocd.argoproj.io/",
        "kustomize.toolkit.fluxcd.io/",
        "helm.toolkit.fluxcd.io/",
        "fluxcd.controlplane.io/",
        "reconcile.fluxcd.io/",
    ];
    if engine.iter().any(|p| key.starts_with(p)) || key == "app.kubernetes.io/instance" {
        g.add(RiskLevel::Critical, "engine mark");
    }
}

fn grade_image(before: Option<&str>, after: Option<&str>, g: &mut Grade) {
    let (Some(before), Some(after)) = (before, after) else {
        g.add(RiskLevel::High, "image");
        return;
    };
    let (b, a) = (image_name(before), image_name(after));
    if registry(b) != registry(a) {
        g.add(RiskLevel::Critical, "other registry");
    } else if b != a {
        g.add(RiskLevel::High, "other image");
    }
    g.add(RiskLevel::High, "image");
}

/// `reg.example:5000/team/app:1.2@sha256:…` without tag and digest.
pub(crate) fn image_name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(n, _)| n);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// Registry host; `docker.io` where none is written.
pub(crate) fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}
