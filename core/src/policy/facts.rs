//! What is decided about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quota::Counts;
use super::values::Values;
use crate::model::RiskLevel;

/// One object that a change touches, and by which operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Operation name (`set_image`).
    pub operation: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Kind.
    pub kind: String,
    /// Labels before the edit; `None` = the object does not exist yet.
    pub labels_before: Option<BTreeMap<String, String>>,
    /// Labels after the edit; `None` = the object goes.
    pub labels_after: Option<BTreeMap<String, String>>,
    /// Values before and after for conditions; `None` = not known, which makes them unclear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
}

/// What is decided about. Nothing in here comes from an agent's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Every object touched, once for each operation on it.
    pub targets: Vec<Target>,
    /// Cluster.
    pub cluster: String,
    /// Labels of the Cluster in the configuration.
    pub cluster_labels: BTreeMap<String, String>,
    /// Repository.
    pub repository: String,
    /// Labels of the Repository in the configuration.
    pub repository_labels: BTreeMap<String, String>,
    /// Agent.
    pub agent: String,
    /// Name of the Person who answers for it.
    pub sponsor: String,
    /// Risk, from [`super::risk::assess`].
    pub risk: RiskLevel,
    /// Changed files.
    pub files: u32,
    /// Added plus removed lines.
    pub lines: u32,
    /// Changed objects.
    pub objects: u32,
    /// A privileged path or kind that the change touches, from [`super::privileged`].
    pub privileged: Option<String>,
    /// The moment of the decision, milliseconds since the epoch.
    pub now: i64,
    /// What the quotas have counted so far, from [`super::count`].
    pub counts: Counts,
}
