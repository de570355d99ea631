//! Configuration as resources. Files are read in `src/config.rs`; these are the plain types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a credential is read from: by the daemon once, when it starts, and by a command when it runs. The value
/// itself is never configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretRef {
    /// Environment variable of the daemon.
    Env(String),
    /// File; a trailing newline is not part of the value. Relative paths start at the configuration file.
    File(String),
}

/// How a Repository is reached. Exactly one of ssh and token, or neither for anonymous http on loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepositoryAuth {
    /// Private ssh key (OpenSSH format).
    pub ssh_key: Option<SecretRef>,
    /// known_hosts lines that pin the host key; without them ssh is refused.
    pub known_hosts: Option<SecretRef>,
    /// User of https (default `git`; GitHub App tokens: `x-access-token`).
    pub username: Option<String>,
    /// Token or password of https.
    pub token: Option<SecretRef>,
}

/// Kind of forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForgeKind {
    /// GitHub, GitHub Enterprise Server.
    Github,
    /// Gitea or Forgejo.
    Gitea,
}

/// How to merge a pull request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeMethod {
    /// Merge commit.
    #[default]
    Merge,
    /// Squash.
    Squash,
    /// Rebase.
    Rebase,
}

/// Forge of a Repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgeSpec {
    /// Kind.
    pub kind: ForgeKind,
    /// API base (`https://api.github.com`, `https://gitea.example/api/v1`).
    pub api_url: String,
    /// Owner (organisation or user).
    pub owner: String,
    /// Repository name at the forge.
    pub repo: String,
    /// API token.
    pub token: SecretRef,
    /// How pull requests are merged.
    #[serde(default)]
    pub merge_method: MergeMethod,
}

/// `kind: Repository`: the only places that Countersign writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositorySpec {
    /// Address that Countersign uses (ssh or https).
    pub url: String,
    /// Other spellings of the same repository that engines use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Branches that may be written; empty = only the ones that owners follow.
    #[serde(default)]
    pub branches: Vec<String>,
    /// Credentials.
    #[serde(default)]
    pub auth: RepositoryAuth,
    /// Forge, where pull requests are wanted.
    #[serde(default)]
    pub forge: Option<ForgeSpec>,
    /// Labels that policies match.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Further privileged path patterns (prefixes).
    #[serde(default)]
    pub privileged_paths: Vec<String>,
}

/// `kind: Cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSpec {
    /// kubeconfig file; absent = in-cluster or the default kubeconfig.
    pub kubeconfig: Option<String>,
    /// Context in it.
    pub context: Option<String>,
    /// Namespaces of Argo CD control planes; empty = `argocd`.
    pub argocd_namespaces: Vec<String>,
    /// Send refresh hints (needs patch on the owners; without it changes are seen by polling).
    pub hints: bool,
    /// Labels that policies match.
    pub labels: BTreeMap<String, String>,
}

/// `kind: Agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Person who answers for it.
    pub sponsor: String,
    /// SHA-256 (hex) of its bearer token; absent = no access over HTTP.
    #[serde(default)]
    pub token_sha256: Option<String>,
    /// Namespaces it may see, as `cluster/namespace` with `*`; empty = everything.
    #[serde(default)]
    pub sees: Vec<String>,
}

/// `kind: Person`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PersonSpec {
    /// Numeric Telegram user id.
    pub telegram: Option<i64>,
    /// Login at the forge.
    pub forge: Option<String>,
    /// Public ssh keys (`ssh-ed25519 AAAA…`) that may sign approvals.
    pub ssh_keys: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
}

/// Kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Telegram bot.
    Telegram,
    /// An address that gets every event, signed.
    Webhook,
}

/// `kind: Channel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// Kind.
    pub kind: ChannelKind,
    /// Bot token; of a webhook, the secret that signs what is sent (HMAC-SHA256).
    pub token: SecretRef,
    /// API base; absent = Telegram's own. Not for webhooks.
    #[serde(default)]
    pub api_url: Option<String>,
    /// Address of a webhook (https, or http on loopback).
    #[serde(default)]
    pub url: Option<String>,
}

/// A named resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named<T> {
    /// `metadata.name`.
    pub name: String,
    /// `spec`.
    pub spec: T,
}
