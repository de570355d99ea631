//! Who delivers a live object.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectKey;

/// A GitOps engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Argo CD.
    Argocd,
    /// Flux.
    Flux,
}

/// The object of an engine that delivers others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct OwnerRef {
    /// Engine.
    pub engine: Engine,
    /// `Application`, `Kustomization`, `HelmRelease`, `ResourceSet`, `FluxInstance`.
    pub kind: String,
    /// Namespace of the owner object.
    pub namespace: String,
    /// Name of the owner object.
    pub name: String,
}

impl OwnerRef {
    /// An owner from its parts.
    pub fn new(engine: Engine, kind: &str, namespace: &str, name: &str) -> Self {
        Self { engine, kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// API group of the owner object.
    pub fn group(&self) -> &'static str {
        match (self.engine, self.kind.as_str()) {
            (Engine::Argocd, _) => "argoproj.io",
            (Engine::Flux, "HelmRelease") => "helm.toolkit.fluxcd.io",
            (Engine::Flux, "ResourceSet" | "FluxInstance") => "fluxcd.controlplane.io",
            (Engine::Flux, _) => "kustomize.toolkit.fluxcd.io",
        }
    }

    /// The owner as an object of its cluster.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.group(), &self.kind, &self.namespace, &self.name)
    }
}

impl fmt::Display for OwnerRef {
    /// `Argo CD Application argocd/shop-prod`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match self.engine {
            Engine::Argocd => "Argo CD",
            Engine::Flux => "Flux",
        };
        write!(f, "{engine} {} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One step of the way from the object asked about to its owner, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hop {
    /// The object looked at (`Pod shop/checkout-7d9f`).
    pub from: String,
    /// What it led to (`ReplicaSet shop/checkout-7d9f`, `Argo CD Application argocd/shop`).
    pub to: String,
    /// The evidence (`ownerReferences`, `annotation argocd.argoproj.io/tracking-id=…`, `status.resources`).
    pub evidence: String,
}

/// One owner's claim to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Who claims.
    pub owner: OwnerRef,
    /// What shows it.
    pub evidence: Vec<String>,
}

/// The answer to "who owns this object": never a guess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Ownership {
    /// Exactly one owner.
    Owned {
        /// The owner.
        owner: OwnerRef,
        /// The object that the owner itself delivers (the Deployment, where a Pod was asked about).
        root: ObjectKey,
        /// Each hop from the object asked about to the owner.
        via: Vec<Hop>,
    },
    /// Two or more owners claim it: nothing may be written.
    Conflict {
        /// The object that is claimed.
        root: ObjectKey,
        /// Every claim.
        claims: Vec<Claim>,
        /// Hops walked before the conflict.
        via: Vec<Hop>,
    },
    /// An Application lists it, but it never applied it.
    DeclaredNotApplied {
        /// The object.
        root: ObjectKey,
        /// Who lists it.
        by: Vec<OwnerRef>,
    },
    /// It carries the mark of an owner that no longer exists, or that another control plane holds.
    Orphaned {
        /// The object.
        root: ObjectKey,
        /// The mark, in words.
        mark: String,
    },
    /// Nothing claims it.
    Unmanaged {
        /// The topmost object that was reached.
        root: ObjectKey,
        /// Hints that fell short of a claim (labels without inventory, Helm release without owner).
        hints: Vec<String>,
    },
}
