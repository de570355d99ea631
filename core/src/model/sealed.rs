//! What an approval binds.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Problem, Result};

/// Change id: a ULID, 26 characters.
pub type ChangeId = ulid::Ulid;

/// How far a change may go without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Commits by itself; people are told.
    Standard,
    /// A person approves, Countersign commits.
    Prompted,
    /// Nothing is written; the patch is returned for a person to commit.
    Manual,
    /// Refused.
    Deny,
}

/// How an approved change reaches the branch that the engine follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Push to the branch.
    Direct,
    /// Push a branch, open a pull request, merge it once approved.
    MergeAfterApproval,
    /// Push a branch, open a pull request; the merge by a listed person is the approval.
    PullRequest,
}

/// How dangerous the change itself is; never taken from what the agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskLevel {
    /// One reversible field.
    Low,
    /// More than that.
    Medium,
    /// Production, images, deletions, several objects.
    High,
    /// Privileges, identities, sources, engines.
    Critical,
}

/// Risk with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Risk {
    /// Level.
    pub level: RiskLevel,
    /// Why, shortest first (`image`, `prod`).
    pub reasons: Vec<String>,
}

/// Who must say yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quorum {
    /// How many different people.
    pub count: u32,
    /// Groups that they come from; one vote per person over all of them.
    pub groups: Vec<String>,
    /// The requester's sponsor may be one of them (one-person installations; shown on the card).
    #[serde(default)]
    pub allow_sponsor: bool,
    /// Each of them must answer for another of the groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub different_groups: bool,
}

/// One file of the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Path from the repository's root.
    pub path: String,
    /// Git file mode (`100644`, `100755`).
    pub mode: String,
    /// Blob id before; `None` = the file is new.
    pub before: Option<String>,
    /// Blob id after; `None` = the file goes.
    pub after: Option<String>,
}

/// One line of the rendered effect; values are JSON text, so that only strings are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectLine {
    /// `Deployment shop/checkout`.
    pub object: String,
    /// JSON pointer.
    pub pointer: String,
    /// JSON text before.
    pub before: Option<String>,
    /// JSON text after.
    pub after: Option<String>,
}

/// Everything that an approval binds: strings and integers only, hashed as RFC 8785 JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Version of this structure.
    pub schema: u32,
    /// Change.
    pub change: ChangeId,
    /// Revision of the change, from 1.
    pub revision: u32,
    /// Name of the Repository in the configuration.
    pub repository: String,
    /// Full ref that the engine follows (`refs/heads/main`).
    pub git_ref: String,
    /// Files, sorted by path.
    pub files: Vec<SealedFile>,
    /// Rendered effect.
    pub effect: Vec<EffectLine>,
    /// The card's text, as people see it.
    pub message: String,
    /// Policy version (hash of the files).
    pub policy_version: String,
    /// Rules that decided.
    pub rules: Vec<String>,
    /// Delivery.
    pub delivery: Delivery,
    /// Risk.
    pub risk: Risk,
    /// Who asked: name of the Agent.
    pub requester: String,
    /// The agent's sponsor: name of the Person.
    pub sponsor: String,
    /// Who must say yes.
    pub quorum: Quorum,
    /// Seconds since the epoch after which no approval counts.
    pub expires_at: i64,
    /// 128 random bits, hex.
    pub nonce: String,
    /// Commit message without the trailers that follow approval.
    pub commit_message: String,
}

/// SHA-256 over the sealed change, hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// First twelve hex digits in groups of four, for people.
    pub fn short(&self) -> String {
        let mut s = String::with_capacity(14);
        for (i, c) in self.0.chars().take(12).enumerate() {
            if i > 0 && i % 4 == 0 {
                s.push(' ');
            }
            s.push(c);
        }
        s
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Domain prefix of the digest; a new meaning needs a new prefix.
const DOMAIN: &[u8] = b"countersign-change-v1\0";

impl Sealed {
    /// Canonical bytes (RFC 8785). These bytes are stored and hashed; they are never re-serialised.
    pub fn canonical(&self) -> Result<Vec<u8>> {
        serde_json_canonicalizer::to_vec(self).map_err(|e| {
            Problem::new("gate.seal", format!("The change could not be sealed: {e}."), "Report this as a bug.").never()
        })
    }
}

/// Digest of canonical bytes.
pub fn digest_of(canonical: &[u8]) -> Digest {
    let mut h = Sha256::new();
    h.update(DOMAIN);
    h.update(canonical);
    Digest(hex(&h.finalize()))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Git's blob id of these bytes (SHA-1 repositories are what the engines follow; the id only names
/// content here, the digest is SHA-256). Computed by the Git edge, passed in as text.
pub type BlobId = String;

/// Short name of a change, unique among open changes: `cs-` and the last characters of the ULID.
pub fn short_name(id: &ChangeId) -> String {
    let s = id.to_string();
    format!("cs-{}", s.get(s.len().saturating_sub(4)..).unwrap_or(&s))
}
