//! Git without a work tree: one cached bare mirror per repository, private trees per change, signed
//! commits, pushes under a lease. Nothing is ever checked out, so no hook, filter or smudge runs.
//!
//! Mirrors are disposable: a broken one is made anew. Calls of libgit2 block, so they run on the
//! blocking pool, one at a time per mirror and lane (`lane`).

mod access;
mod audit;
mod commit;
mod failure;
mod history;
mod known_hosts;
mod lane;
mod mirror;
mod objects;
mod path;
mod push;
mod read;
mod remote;
mod repo;
mod sign;
#[cfg(test)]
mod tests;
mod url;

pub use access::Credentials;
pub use audit::{Difference, Landed, LandedIn, audit_trailers};
pub use commit::{CommitRequest, FileChange, Identity};
pub use history::{CommitInfo, CommitRange};
pub use objects::{DirEntry, EntryKind, FileContent, ReadLimits, TreeFile, blob_id, is_lfs_pointer};
pub use path::check_path;
pub use push::{PushOutcome, Pushed};
pub use repo::{GitLimits, GitRepo};
pub use sign::{NAMESPACE_APPROVAL, NAMESPACE_CHECKPOINT, NAMESPACE_GIT, SshSigner, fingerprint, verify};
pub use url::{RemoteUrl, Transport, same_repo};
