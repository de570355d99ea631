//! Where an owner's objects come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the files at the source's path become objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Plain manifests.
    Plain,
    /// A kustomization file.
    Kustomize,
    /// A Helm chart.
    Helm,
    /// A plugin, a hydrator, OCI or anything else that is not read here.
    Other,
}

/// One Git source of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Repository address as the engine has it.
    pub url: String,
    /// What the engine follows: a branch name, `HEAD`, a tag, a SHA or a range, as written.
    pub target_revision: String,
    /// Folder inside the repository, without leading or trailing slash; empty for the root.
    pub path: String,
    /// Kind, where the engine says it; `None` = decide by looking at the files.
    pub kind: Option<SourceKind>,
    /// Index among several sources.
    pub index: usize,
    /// Commit that is deployed now, full hex, where known.
    pub deployed: Option<String>,
    /// Whether sub-folders are read (Argo CD `directory.recurse`; always true for Flux).
    pub recurse: bool,
    /// Settings at the owner that beat or change what the files say, in words
    /// (`spec.source.kustomize.images`); non-empty makes an edit of what they cover a no-op.
    #[serde(default)]
    pub overrides: Vec<String>,
}

/// What stands between a commit and the cluster, told before anyone is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryState {
    /// The engine applies new commits by itself.
    pub automatic: bool,
    /// Objects that are removed from Git are removed from the cluster.
    pub prune: bool,
    /// The owner, its source or a parent is suspended (with its name).
    pub suspended: Option<String>,
    /// A sync window keeps automatic syncs away now (with its words).
    pub window: Option<String>,
    /// Anything else worth saying (retry limits, `ignoreDifferences` on the field).
    #[serde(default)]
    pub notes: Vec<String>,
}
