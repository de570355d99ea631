//! YAML text in, YAML text out: byte-range edits and their proofs.
//!
//! Reading and byte positions come from one parser (`noyalib`, lossless), the check comes from another
//! (`serde-saphyr`). An edit is a list of byte ranges that are replaced; every other byte stays, and the
//! result is handed out only if both parsers agree that exactly the requested leaves changed.

mod adopt;
mod create;
mod diff;
mod document;
mod edit;
mod emit;
mod kustomization;
mod locate;
mod ops;
mod parse;
mod path_check;
mod plan;
mod pointer;
mod splice;
mod text;
mod tree;
mod view;

#[cfg(test)]
mod props;
#[cfg(test)]
mod tests;

pub use adopt::{Adopted, Standing, adopt, text_of};
pub use create::{Created, create};
pub use diff::{diff_objects, diff_values, unified_diff};
pub use document::{DocId, Document, documents};
pub use edit::{EditContext, Edited, edit, edit_value};
pub use kustomization::{
    ImageEntry, Kustomization, PatchEntry, ReplicaEntry, add_resource, edit_kustomization_image,
    edit_kustomization_replicas, is_kustomization_name, kustomization, remove_resource,
};
pub use locate::{Located, locate};
pub use ops::{RESTART_ANNOTATION, reserved_key};
pub use parse::{MAX_FILE_BYTES, MAX_RENDERED_BYTES, rendered};
pub use path_check::{PathClass, path_check};
pub use plan::{PlannedEdit, candidates, plan_source_edit};
pub use tree::{Files, KustomizationFile, Snapshot, SourceTree, is_remote, kustomizations, load, named_path};
