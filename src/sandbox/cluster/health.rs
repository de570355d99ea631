//! Health of one object, by the rules of the engines (gitops-engine: pkg/health; cli-utils: kstatus).

use serde_json::Value;

use super::json::{flag, get, list, number, text};

/// Worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As it should be.
    Healthy,
    /// Paused by someone.
    Suspended,
    /// On its way.
    Progressing,
    /// Not there.
    Missing,
    /// Will not get there by itself.
    Degraded,
    /// Cannot be told.
    Unknown,
}

impl Health {
    /// The engines' word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Suspended => "Suspended",
            Self::Progressing => "Progressing",
            Self::Missing => "Missing",
            Self::Degraded => "Degraded",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition's status, or the empty string.
pub fn condition<'a>(object: &'a Value, kind: &str, field: &str) -> &'a str {
    let found = list(object, &["status", "conditions"]).iter().find(|condition| text(condition, &["type"]) == kind);
    found.map(|condition| text(condition, &[field])).unwrap_or_default()
}

/// Argo's health of an object; `None` for kinds without a check.
pub fn argo(object: &Value) -> Option<Health> {
    if text(object, &["metadata", "annotations", "argocd.argoproj.io/ignore-healthcheck"]) == "true" {
        return None;
    }
    if get(object, &["metadata", "deletionTimestamp"]).is_some() {
        return Some(Health::Progressing);
    }
    match text(object, &["kind"]) {
        "Deployment" => Some(deployment(object)),
        "StatefulSet" => Some(counted(object, "updatedReplicas")),
        "DaemonSet" => Some(daemon_set(object)),
        "Pod" => Some(pod(object)),
        "PersistentVolumeClaim" => Some(match text(object, &["status", "phase"]) {
            "Bound" => Health::Healthy,
            "Lost" => Health::Degraded,
            _ => Health::Progressing,
        }),
        "Job" => Some(job(object)),
        "HorizontalPodAutoscaler" => Some(autoscaler(object)),
        "Kustomization" | "HelmRelease" | "GitRepository" => Some(match condition(object, "Ready", "status") {
            "True" => Health::Healthy,
            "False" => Health::Degraded,
            _ => Health::Progressing,
        }),
        _ => None,
    }
}

/// The first condition that says something (gitops-engine: pkg/health/health_hpa.go).
fn autoscaler(object: &Value) -> Health {
    for condition in list(object, &["status", "conditions"]) {
        match (text(condition, &["type"]), text(condition, &["reason"])) {
            ("AbleToScale", "FailedGetScale" | "FailedUpdateScale")
            | ("ScalingActive", "FailedGetResourceMetric" | "InvalidSelector") => return Health::Degraded,
            ("AbleToScale", "SucceededRescale")
            | ("ScalingLimited", "DesiredWithinRange" | "TooFewReplicas" | "TooManyReplicas") => {
                return Health::Healthy;
            }
            _ => {}
        }
    }
    Health::Progressing
}

fn deployment(object: &Value) -> Health {
    if flag(object, &["spec", "paused"]) {
        return Health::Suspended;
    }
    let status = |field: &str| number(object, &["status", field], 0);
    if number(object, &["metadata", "generation"], 0) > status("observedGeneration") {
        // The controller has not seen the change yet. The recorded stale Healthy comes from comparing too early, not from here.
        return Health::Progressing;
    }
    if condition(object, "Progressing", "reason") == "ProgressDeadlineExceeded" {
        return Health::Degraded;
    }
    let desired = number(object, &["spec", "replicas"], 1);
    let behind = status("updatedReplicas") < desired
        || status("replicas") > status("updatedReplicas")
        || status("availableReplicas") < status("updatedReplicas");
    if behind { Health::Progressing } else { Health::Healthy }
}

fn counted(object: &Value, updated: &str) -> Health {
    let status = |field: &str| number(object, &["status", field], 0);
    let desired = number(object, &["spec", "replicas"], 1);
    if number(object, &["metadata", "generation"], 0) > status("observedGeneration")
        || status("readyReplicas") < desired
        || status(updated) < desired
    {
        return Health::Progressing;
    }
    Health::Healthy
}

fn daemon_set(object: &Value) -> Health {
    let status = |field: &str| number(object, &["status", field], 0);
    let desired = status("desiredNumberScheduled");
    if number(object, &["metadata", "generation"], 0) > status("observedGeneration")
        || status("updatedNumberScheduled") < desired
        || status("numberAvailable") < desired
    {
        return Health::Progressing;
    }
    Health::Healthy
}

fn pod(object: &Value) -> Health {
    for container in list(object, &["status", "containerStatuses"]) {
        let reason = text(container, &["state", "waiting", "reason"]);
        if reason.ends_with("BackOff") || reason.starts_with("Err") || reason.ends_with("Error") {
            return Health::Degraded;
        }
    }
    match text(object, &["status", "phase"]) {
        "Succeeded" => Health::Healthy,
        "Failed" => Health::Degraded,
        "Running" if condition(object, "Ready", "status") == "True" => Health::Healthy,
        _ => Health::Progressing,
    }
}

fn job(object: &Value) -> Health {
    if condition(object, "Failed", "status") == "True" {
        Health::Degraded
    } else if condition(object, "Complete", "status") == "True" {
        Health::Healthy
    } else {
        Health::Progressing
    }
}

/// kstatus, as Flux waits by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kstatus {
    /// Reconciled and ready.
    Current,
    /// Not yet.
    InProgress,
    /// Stalled.
    Failed,
    /// Not there.
    NotFound,
}

impl Kstatus {
    /// kstatus' word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "Current",
            Self::InProgress => "InProgress",
            Self::Failed => "Failed",
            Self::NotFound => "NotFound",
        }
    }
}

/// The kstatus of an object.
pub fn kstatus(object: Option<&Value>) -> Kstatus {
    let Some(object) = object else {
        return Kstatus::NotFound;
    };
    let generation = number(object, &["metadata", "generation"], 0);
    let observed = number(object, &["status", "observedGeneration"], generation);
    match text(object, &["kind"]) {
        "Deployment" | "StatefulSet" | "DaemonSet" | "Pod" | "Job" | "PersistentVolumeClaim" => match argo(object) {
            Some(Health::Degraded) => Kstatus::Failed,
            Some(Health::Healthy | Health::Suspended) if get(object, &["status"]).is_some() => Kstatus::Current,
            _ => Kstatus::InProgress,
        },
        _ if condition(object, "Stalled", "status") == "True" => Kstatus::Failed,
        _ if generation != observed || condition(object, "Reconciling", "status") == "True" => Kstatus::InProgress,
        _ => match condition(object, "Ready", "status") {
            "" | "True" => Kstatus::Current,
            _ => Kstatus::InProgress,
        },
    }
}
