//! What a source follows, and whether a commit there would deploy anything.

use crate::error::{Problem, Result};
use crate::model::{OwnerRef, Source, SourceKind};

/// What the engine follows, as far as its own words say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// The repository's default branch.
    Default,
    /// This branch.
    Branch(String),
    /// A branch, or a tag of that name: the repository decides. A tag is a pin.
    BranchOrTag(String),
}

/// What the source follows, or why a commit to a branch would deploy nothing.
pub fn follow(source: &Source) -> Result<Follow> {
    let revision = source.target_revision.as_str();
    let pinned = |what: &str| {
        Err(Problem::new(
            "source.pinned",
            format!("The owner follows {what} {revision}, so a commit to a branch deploys nothing."),
            "Change the owner's own targetRevision or ref in Git, to a branch or to a newer tag, and then try again.",
        ))
    };
    if let Some(branch) = revision.strip_prefix("refs/heads/") {
        return Ok(Follow::Branch(branch.to_owned()));
    }
    match revision {
        "" | "HEAD" => Ok(Follow::Default),
        _ if revision.starts_with("refs/tags/") => pinned("the tag"),
        _ if revision.starts_with("refs/") => pinned("the ref"),
        _ if is_hash(revision) => pinned("the commit"),
        _ if is_range(revision) => pinned("the version range"),
        _ => Ok(Follow::BranchOrTag(revision.to_owned())),
    }
}

/// A full id, or an abbreviation long enough that no branch is meant.
fn is_hash(revision: &str) -> bool {
    (7..=40).contains(&revision.len())
        && revision.bytes().all(|b| b.is_ascii_hexdigit())
        && revision.bytes().any(|b| b.is_ascii_digit())
}

/// Characters of version constraints that no branch name can hold or that make no sense in one.
fn is_range(revision: &str) -> bool {
    let wild = |part: &str| matches!(part, "x" | "X");
    let bare = revision.trim_start_matches('v');
    revision.contains(['*', '^', '~', '>', '<', '=', '|', ' ', ','])
        || (bare.starts_with(|c: char| c.is_ascii_digit()) && bare.split('.').any(wild))
}

/// Whether a manifest at this source can be edited at all, and on what.
pub fn editable(owner: &OwnerRef, source: &Source) -> Result<Follow> {
    match source.kind {
        Some(SourceKind::Helm) => Err(Problem::new(
            "source.helm",
            format!("{owner} renders a Helm chart; its objects have no manifest of their own in Git."),
            "Change the values at the owner (set_field on the owner's own object) or the values file by hand.",
        )
        .with_all(source.overrides.iter().cloned())),
        Some(SourceKind::Other) => Err(Problem::new(
            "source.opaque",
            format!(
                "{owner} is not delivered from manifests in Git (plugin, OCI artifact, bucket or a values-only source)."
            ),
            "Change what produces it by hand.",
        )
        .with(source.url.clone())),
        Some(SourceKind::Plain | SourceKind::Kustomize) | None => follow(source),
    }
}
