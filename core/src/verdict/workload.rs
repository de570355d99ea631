//! The rollout of a workload by its own counts, never by an engine's word
//! (same order as argo-cd: gitops-engine/pkg/health/health_deployment.go and its neighbours, and stricter).

use serde_json::Value;

use super::words::quote;
use super::world::{at, condition, int, text};

/// State of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rollout {
    /// Finished, or the kind has no rollout.
    Complete,
    /// Under way, in words.
    Progressing(String),
    /// Held by a person or another controller, in words.
    Paused(String),
    /// The workload says that it failed, in its words.
    Degraded(String),
}

/// The rollout of one object. Kinds without one are complete as soon as they are there.
pub(super) fn rollout(object: &Value) -> Rollout {
    match text(object, "/kind") {
        "Deployment" => deployment(object),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => daemon_set(object),
        "ReplicaSet" => replica_set(object),
        "Job" => job(object),
        "Rollout" => argo_rollout(object),
        _ => Rollout::Complete,
    }
}

fn unobserved(o: &Value) -> Option<Rollout> {
    let generation = int(o, "/metadata/generation").unwrap_or(0);
    let observed = int(o, "/status/observedGeneration").unwrap_or(0);
    (observed < generation || at(o, "/status/observedGeneration").is_none())
        .then(|| Rollout::Progressing("its controller has not seen the new spec".into()))
}

fn status(o: &Value, field: &str) -> i64 {
    at(o, "/status").and_then(|s| s.get(field)).and_then(Value::as_i64).unwrap_or(0)
}

fn deployment(o: &Value) -> Rollout {
    if let Some(r) = unobserved(o) {
        return r;
    }
    if let Some(c) = condition(o, "Progressing").filter(|c| text(c, "/reason") == "ProgressDeadlineExceeded") {
        return Rollout::Degraded(quote(text(c, "/message")));
    }
    if at(o, "/spec/paused").and_then(Value::as_bool) == Some(true) {
        return Rollout::Paused("the Deployment is paused (spec.paused)".into());
    }
    let desired = int(o, "/spec/replicas").unwrap_or(1);
    let (replicas, updated, available) =
        (status(o, "replicas"), status(o, "updatedReplicas"), status(o, "availableReplicas"));
    if updated < desired {
        return Rollout::Progressing(format!("{updated} of {desired} replicas are new"));
    }
    if updated > desired {
        return Rollout::Progressing(format!("{} replicas are too many", updated - desired));
    }
    if replicas > updated {
        return Rollout::Progressing(format!("{} old replicas are still there", replicas - updated));
    }
    if available < updated {
        return Rollout::Progressing(format!("{available} of {updated} new replicas are available"));
    }
    Rollout::Complete
}

fn stateful_set(o: &Value) -> Rollout {
    if let Some(r) = unobserved(o) {
        return r;
    }
    let desired = int(o, "/spec/replicas").unwrap_or(1);
    let on_delete = text(o, "/spec/updateStrategy/type") == "OnDelete";
    let partition =
        if on_delete { 0 } else { int(o, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0).max(0) };
    let (current, update) = (text(o, "/status/currentRevision"), text(o, "/status/updateRevision"));
    let updated = status(o, "updatedReplicas");
    let need = (desired - partition).max(0);
    // A set at rest has one revision, and need not count updated replicas.
    if updated < need && !(current == update && !update.is_empty() && at(o, "/status/updatedReplicas").is_none()) {
        let how = if on_delete { "; with OnDelete a pod is new only after somebody deletes the old one" } else { "" };
        return Rollout::Progressing(format!("{updated} of {need} replicas are new{how}"));
    }
    if partition == 0 && current != update {
        return Rollout::Progressing("the update revision is not the current one yet".into());
    }
    let ready = status(o, "readyReplicas");
    if ready < desired {
        return Rollout::Progressing(format!("{ready} of {desired} replicas are ready"));
    }
    let available = at(o, "/status/availableReplicas").and_then(Value::as_i64).unwrap_or(ready);
    if available < desired {
        return Rollout::Progressing(format!("{available} of {desired} replicas are available"));
    }
    if status(o, "replicas") > desired {
        return Rollout::Progressing(format!("{} replicas are too many", status(o, "replicas") - desired));
    }
    Rollout::Complete
}

fn daemon_set(o: &Value) -> Rollout {
    if let Some(r) = unobserved(o) {
        return r;
    }
    let desired = status(o, "desiredNumberScheduled");
    let updated = status(o, "updatedNumberScheduled");
    if updated < desired {
        let how = if text(o, "/spec/updateStrategy/type") == "OnDelete" {
            "; with OnDelete a pod is new only after somebody deletes the old one"
        } else {
            ""
        };
        return Rollout::Progressing(format!("{updated} of {desired} pods are new{how}"));
    }
    let available = status(o, "numberAvailable");
    if available < desired {
        return Rollout::Progressing(format!("{available} of {desired} pods are available"));
    }
    Rollout::Complete
}

fn replica_set(o: &Value) -> Rollout {
    if let Some(r) = unobserved(o) {
        return r;
    }
    let desired = int(o, "/spec/replicas").unwrap_or(1);
    let available = status(o, "availableReplicas");
    if status(o, "replicas") != desired || available < desired {
        return Rollout::Progressing(format!("{available} of {desired} replicas are available"));
    }
    Rollout::Complete
}

fn job(o: &Value) -> Rollout {
    let is = |kind: &str| condition(o, kind).filter(|c| text(c, "/status") == "True");
    if let Some(c) = is("Failed") {
        return Rollout::Degraded(quote(text(c, "/message")));
    }
    if is("Complete").is_some() {
        return Rollout::Complete;
    }
    if at(o, "/spec/suspend").and_then(Value::as_bool) == Some(true) {
        return Rollout::Paused("the Job is suspended".into());
    }
    Rollout::Progressing("the Job has not finished".into())
}

/// argo-rollouts writes `observedGeneration` as a string.
fn argo_rollout(o: &Value) -> Rollout {
    let observed =
        at(o, "/status/observedGeneration").and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok())).unwrap_or(0);
    if observed < int(o, "/metadata/generation").unwrap_or(0) {
        return Rollout::Progressing("its controller has not seen the new spec".into());
    }
    match text(o, "/status/phase") {
        "Healthy" => Rollout::Complete,
        "Degraded" => Rollout::Degraded(quote(text(o, "/status/message"))),
        "Paused" => Rollout::Paused(format!("the Rollout is paused: {}", quote(text(o, "/status/message")))),
        _ => Rollout::Progressing("the Rollout is under way".into()),
    }
}
