//! Which Application, Kustomization or HelmRelease owns a live object, and where it comes from.
//!
//! [`Walk`] is the decision: a state machine over facts that asks for the objects it needs and
//! never guesses. [`Index`] holds what the owners say about themselves. [`sources`] reads an
//! owner's Git sources. All of it is pure; `src/cluster` supplies the facts.

mod facts;
mod follow;
mod found;
mod ids;
mod index;
mod reads;
mod source;
mod walk;

#[cfg(test)]
mod tests;

pub use facts::{ArgoPlane, Listing, ObjectFacts, ParentRef, Planes, Tracking};
pub use follow::{Follow, editable, follow};
pub use found::{Ground, founded};
pub use ids::{TrackingId, instance_name, inventory_id, parse_instance, tracking_id};
pub use index::{Index, Known};
pub use reads::{Tree, reaches};
pub use source::{
    Feed, Reach, SourceBasis, argocd_override_files, canonical_path, destination_namespace, feeds, full_hash, reach,
    repo_key, source_object, sources,
};
pub use walk::{Loaded, MAX_DEPTH, Step, Walk};
