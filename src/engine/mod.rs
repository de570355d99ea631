//! Argo CD and Flux: what their objects say about delivery, and the hints that they take.
//!
//! Pure functions over objects as the API server gives them; `now` is an argument. Reading and
//! sending is the work of `src/cluster`.

pub mod argocd;
pub mod flux;
mod text;
pub mod windows;

use chrono::{DateTime, Utc};
use countersign_core::model::{DeliveryState, Engine, ObjectKey, OwnerRef};
use serde_json::Value;

/// Everything that stands between a commit and the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Owner.
    pub owner: &'a OwnerRef,
    /// Its object.
    pub object: &'a Value,
    /// Flux: its source object.
    pub source: Option<&'a Value>,
    /// Argo CD: its AppProject.
    pub project: Option<&'a Value>,
    /// Objects above the owner, nearest first (ApplicationSet, parent owners and their sources).
    pub parents: &'a [Value],
    /// The live object that is to be changed, where it exists, with its key.
    pub live: Option<(&'a ObjectKey, &'a Value)>,
    /// JSON pointers into it that are to be changed.
    pub pointers: &'a [String],
}

/// What stands between a commit and the cluster, told before anyone is asked.
pub fn delivery_state(standing: Standing<'_>, now: DateTime<Utc>) -> DeliveryState {
    let mut state = match standing.owner.engine {
        Engine::Argocd => argocd::delivery_state(standing, now),
        Engine::Flux => flux::delivery_state(standing),
    };
    if state.suspended.is_none() {
        state.suspended = standing.parents.iter().find_map(suspension);
    }
    state
}

/// Whether an engine's object is suspended, in words with its name.
fn suspension(object: &Value) -> Option<String> {
    let name = || {
        let get = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or("");
        format!("{} {}/{}", get("/kind"), get("/metadata/namespace"), get("/metadata/name"))
    };
    if object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
        return Some(format!("{} is suspended", name()));
    }
    let skip = object.pointer("/metadata/annotations").and_then(|a| a.get("argocd.argoproj.io/skip-reconcile"));
    (skip.and_then(Value::as_str) == Some("true"))
        .then(|| format!("{} carries the annotation argocd.argoproj.io/skip-reconcile", name()))
}

/// A request to look now: one annotation on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Object to annotate.
    pub on: ObjectKey,
    /// Annotation.
    pub annotation: &'static str,
    /// Value.
    pub value: String,
}

/// The hint for an owner; `None` where there is nothing that would help. `token` makes Flux's one new.
///
/// Flux is asked at the source alone: a Kustomization that is asked too first reconciles the old
/// artifact and reports it as handled (recordings, `flux-image-ok`).
pub fn hint(owner: &OwnerRef, object: &Value, token: &str) -> Option<Hint> {
    match owner.engine {
        Engine::Argocd => Some(argocd::hint(owner, object)),
        Engine::Flux => flux::hint(owner, object, token),
    }
}

/// What a person can do about an operation that holds newer commits back; `None` where none does.
/// Countersign itself never terminates one.
pub fn repair_hint(owner: &OwnerRef, object: &Value) -> Option<String> {
    match owner.engine {
        Engine::Argocd => argocd::repair_hint(owner, object),
        Engine::Flux => flux::repair_hint(owner, object),
    }
}
