//! Reads the configuration: a small bootstrap file and a folder of resources.
//!
//! A bad configuration never half-loads: the first mistake is a [`Problem`] that names file,
//! resource and field, and the caller keeps what it had.

use std::path::{Path, PathBuf};

use countersign_core::model::{
    AgentSpec, ChannelKind, ChannelSpec, ClusterSpec, Named, PersonSpec, Principal, RepositorySpec, RiskLevel,
    SecretRef,
};
use countersign_core::policy::{PolicySet, shared_identity};
use countersign_core::{Problem, Result};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::channel::telegram::is_impersonal;

/// API version of every resource.
pub const API_VERSION: &str = "countersign.dev/v1";

/// The bootstrap file. Relative paths start at its folder.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Journal, Git mirrors, socket and lock live here.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Files or folders of resources.
    #[serde(default = "default_resources")]
    pub resources: Vec<PathBuf>,
    /// Folder of policy files.
    #[serde(default = "default_policies")]
    pub policies: PathBuf,
    /// Folder of prompt files that replace the built-in ones.
    #[serde(default)]
    pub prompts: Option<PathBuf>,
    /// SSH private key that signs commits and the journal's head.
    pub signing_key: SecretRef,
    /// Author and committer of commits.
    #[serde(default)]
    pub committer: Committer,
    /// Agent that a stdio client is, where it names none.
    #[serde(default)]
    pub stdio_agent: Option<String>,
    /// HTTP face.
    #[serde(default)]
    pub http: Http,
    /// Where metrics and health are served, beside the HTTP face; absent = nowhere.
    #[serde(default)]
    pub metrics: Option<String>,
    /// Times.
    #[serde(default)]
    pub times: Times,
    /// How much is asked of people, and how carefully.
    #[serde(default)]
    pub approvals: Approvals,
    /// `kustomize` program; absent = looked up on PATH.
    #[serde(default)]
    pub kustomize: Option<PathBuf>,
}

/// Author and committer.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Committer {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
}

impl Default for Committer {
    fn default() -> Self {
        Self { name: "Countersign".into(), email: "countersign@localhost".into() }
    }
}

/// HTTP face.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Further Host names that are answered (loopback always is).
    pub allowed_hosts: Vec<String>,
    /// Further Origins that are answered (loopback always is).
    pub allowed_origins: Vec<String>,
}

/// Times, in seconds.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// How long the engine may take before a change counts as timed out.
    pub observe_s: u32,
    /// How long healthy must last before it is said.
    pub stable_s: u32,
    /// How long failed must stand before the change is closed.
    pub failed_grace_s: u32,
    /// How long an authorized change may take to reach the branch.
    pub deliver_s: u32,
    /// How often forge and branch are polled.
    pub poll_s: u32,
}

impl Default for Times {
    fn default() -> Self {
        Self { observe_s: 900, stable_s: 10, failed_grace_s: 20, deliver_s: 600, poll_s: 15 }
    }
}

/// How much is asked of people, and how carefully.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// From this risk on a yes in the chat needs the number that stands on the card.
    pub number_from: RiskLevel,
    /// Proposals of one agent that are looked at within a minute.
    pub proposals_per_minute: u32,
    /// Changes of one agent that may wait for people at once.
    pub pending_per_agent: u32,
    /// Changes that one person may be asked about at once.
    pub pending_per_person: u32,
    /// Pause of an agent after a rejection, seconds; doubles with each further one in a row, up to an hour.
    pub cooldown_s: u32,
    /// How many people must agree to end the emergency stop; never more than there are who could.
    pub resume: u32,
    /// Groups of the people whose own signed yes may suffice, with a reason, in spite of quorum and freeze.
    pub break_glass: Vec<String>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            number_from: RiskLevel::High,
            proposals_per_minute: 60,
            pending_per_agent: 3,
            pending_per_person: 20,
            cooldown_s: 30,
            resume: 2,
            break_glass: Vec::new(),
        }
    }
}

fn default_state_dir() -> PathBuf {
    "state".into()
}
fn default_resources() -> Vec<PathBuf> {
    vec!["resources".into()]
}
fn default_policies() -> PathBuf {
    "policies".into()
}

/// Everything that is configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The bootstrap file, its paths made absolute.
    pub bootstrap: Bootstrap,
    /// Folder that relative secret files start at.
    pub base: PathBuf,
    /// Repositories.
    pub repositories: Vec<Named<RepositorySpec>>,
    /// Clusters.
    pub clusters: Vec<Named<ClusterSpec>>,
    /// Agents.
    pub agents: Vec<Named<AgentSpec>>,
    /// People.
    pub people: Vec<Named<PersonSpec>>,
    /// Channels.
    pub channels: Vec<Named<ChannelSpec>>,
    /// Policies.
    pub policies: PolicySet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

fn bad(file: &Path, what: impl std::fmt::Display) -> Problem {
    let name = file.file_name().map_or_else(|| file.display().to_string(), |n| n.to_string_lossy().into_owned());
    Problem::new(
        "config.invalid",
        format!("{name}: {what}."),
        "Put it right (docs/configuration.md has every key) and start again; a running daemon keeps the last good configuration.",
    )
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| {
        Problem::new(
            "config.unreadable",
            format!("{} cannot be read: {e}.", file.display()),
            "Name the configuration with --config, or make one with `countersign demo --keep DIR`.",
        )
    })
}

/// Documents of a YAML file.
fn documents(file: &Path) -> Result<Vec<serde_json::Value>> {
    let text = read(file)?;
    serde_saphyr::from_multiple::<serde_json::Value>(&text).map_err(|e| bad(file, format!("not valid YAML: {e}")))
}

/// YAML files of a folder in name order, or the file itself.
pub fn yaml_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| {
        Problem::new(
            "config.unreadable",
            format!("{} cannot be read: {e}.", path.display()),
            "Make the folder, or name another one in the configuration.",
        )
    })?;
    let mut out: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "yaml" || x == "yml"))
        .collect();
    out.sort();
    Ok(out)
}

/// Policy files of a folder, as text.
pub fn read_policies(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    yaml_files(path)?
        .into_iter()
        .map(|f| {
            let name = f.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            Ok((name, read(&f)?.into_bytes()))
        })
        .collect()
}

impl Config {
    /// Loads the file and everything it names.
    pub fn load(file: &Path) -> Result<Self> {
        let file = std::path::absolute(file).map_err(|e| bad(file, e))?;
        let base = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        let mut docs = documents(&file)?.into_iter();
        let first = docs.next().ok_or_else(|| bad(&file, "the file is empty"))?;
        let mut bootstrap: Bootstrap = serde_json::from_value(first).map_err(|e| bad(&file, e))?;
        bootstrap.state_dir = base.join(&bootstrap.state_dir);
        bootstrap.policies = base.join(&bootstrap.policies);
        bootstrap.prompts = bootstrap.prompts.map(|p| base.join(p));
        bootstrap.kustomize = bootstrap.kustomize.map(|p| base.join(p));
        bootstrap.resources = bootstrap.resources.iter().map(|p| base.join(p)).collect();
        let policies = PolicySet::parse(&read_policies(&bootstrap.policies)?)?;
        let mut config = Self {
            base,
            repositories: Vec::new(),
            clusters: Vec::new(),
            agents: Vec::new(),
            people: Vec::new(),
            channels: Vec::new(),
            policies,
            bootstrap,
        };
        for doc in docs {
            config.add(&file, doc)?;
        }
        for place in config.bootstrap.resources.clone() {
            for f in yaml_files(&place)? {
                for doc in documents(&f)? {
                    config.add(&f, doc)?;
                }
            }
        }
        config.check(&file)?;
        Ok(config)
    }

    fn add(&mut self, file: &Path, doc: serde_json::Value) -> Result<()> {
        if doc.is_null() {
            return Ok(());
        }
        let e: Envelope = serde_json::from_value(doc).map_err(|e| bad(file, e))?;
        if e.api_version != API_VERSION {
            return Err(bad(file, format!("apiVersion \"{}\" is not {API_VERSION}", e.api_version)));
        }
        fn put<T: serde::de::DeserializeOwned>(
            list: &mut Vec<Named<T>>,
            file: &Path,
            kind: &str,
            name: String,
            spec: serde_json::Value,
        ) -> Result<()> {
            let ok =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !ok {
                return Err(bad(file, format!("{kind} name \"{name}\" may hold letters, digits, - _ and . only")));
            }
            if list.iter().any(|n| n.name == name) {
                return Err(bad(file, format!("{kind} {name} is there twice")));
            }
            let spec = serde_json::from_value(spec).map_err(|e| bad(file, format!("{kind} {name}: {e}")))?;
            list.push(Named { name, spec });
            Ok(())
        }
        let name = e.metadata.name;
        match e.kind.as_str() {
            "Repository" => put(&mut self.repositories, file, "Repository", name, e.spec),
            "Cluster" => put(&mut self.clusters, file, "Cluster", name, e.spec),
            "Agent" => put(&mut self.agents, file, "Agent", name, e.spec),
            "Person" => put(&mut self.people, file, "Person", name, e.spec),
            "Channel" => put(&mut self.channels, file, "Channel", name, e.spec),
            other => {
                Err(bad(file, format!("kind \"{other}\" is not one of Repository, Cluster, Agent, Person, Channel")))
            }
        }
    }

    fn check(&self, file: &Path) -> Result<()> {
        for a in &self.agents {
            if !self.people.iter().any(|p| p.name == a.spec.sponsor) {
                return Err(bad(
                    file,
                    format!("Agent {} names the sponsor {}, who is no Person", a.name, a.spec.sponsor),
                ));
            }
        }
        if let Some(name) = &self.bootstrap.stdio_agent
            && !self.agents.iter().any(|a| a.name == *name)
        {
            return Err(bad(file, format!("stdio_agent {name} is no Agent")));
        }
        self.check_channels(file)?;
        self.check_people(file)
    }

    /// One person has one entry: who had two would have two votes. And nothing in it that nobody can be.
    fn check_people(&self, file: &Path) -> Result<()> {
        for (i, p) in self.people.iter().enumerate() {
            if let Some(why) = nobodys(&p.spec) {
                return Err(bad(file, format!("Person {}: {why}", p.name)));
            }
            for other in self.people.iter().take(i) {
                if let Some(field) = shared_identity(&p.spec, &other.spec) {
                    return Err(bad(file, format!("{} and {} have the same {field}", p.name, other.name)));
                }
            }
        }
        Ok(())
    }

    /// Files that resources are read from, in the order of reading.
    pub fn files(&self, file: &Path) -> Result<Vec<PathBuf>> {
        let mut all = vec![std::path::absolute(file).map_err(|e| bad(file, e))?];
        for place in &self.bootstrap.resources {
            all.extend(yaml_files(place)?);
        }
        Ok(all)
    }

    fn check_channels(&self, file: &Path) -> Result<()> {
        if self.channels.iter().filter(|c| c.spec.kind == ChannelKind::Telegram).count() > 1 {
            return Err(bad(file, "there is more than one Channel of kind telegram, and only one is used"));
        }
        for c in &self.channels {
            let fits = match c.spec.kind {
                ChannelKind::Telegram => c.spec.url.is_none(),
                ChannelKind::Webhook => c.spec.url.is_some() && c.spec.api_url.is_none(),
            };
            if !fits {
                return Err(bad(
                    file,
                    format!("Channel {}: `url` is for webhooks, which need it, and `api_url` for Telegram", c.name),
                ));
            }
        }
        Ok(())
    }

    /// The channel that asks people.
    pub fn telegram(&self) -> Option<&Named<ChannelSpec>> {
        self.channels.iter().find(|c| c.spec.kind == ChannelKind::Telegram)
    }

    /// Addresses that get every event.
    pub fn webhooks(&self) -> impl Iterator<Item = &Named<ChannelSpec>> {
        self.channels.iter().filter(|c| c.spec.kind == ChannelKind::Webhook)
    }

    /// How many people must agree to end the emergency stop.
    pub fn resume_needed(&self) -> usize {
        let able = self.people.iter().filter(|p| p.spec.telegram.is_some() || !p.spec.ssh_keys.is_empty()).count();
        usize::try_from(self.bootstrap.approvals.resume).unwrap_or(usize::MAX).min(able).max(1)
    }

    /// Whose own yes may suffice, with a reason.
    pub fn may_break_glass(&self) -> Vec<String> {
        let groups = &self.bootstrap.approvals.break_glass;
        let able = self.people.iter().filter(|p| p.spec.groups.iter().any(|g| groups.contains(g)));
        able.map(|p| p.name.clone()).collect()
    }

    /// The principal of an agent.
    pub fn principal(&self, agent: &str) -> Option<Principal> {
        self.agents
            .iter()
            .find(|a| a.name == agent)
            .map(|a| Principal { agent: a.name.clone(), sponsor: a.spec.sponsor.clone() })
    }

    /// Who a stdio client is: the agent that was named, else `stdio_agent`.
    ///
    /// # Errors
    /// `config.unknown_agent`, `config.no_stdio_agent`.
    pub fn stdio_agent(&self, named: Option<&str>) -> Result<String> {
        match named.or(self.bootstrap.stdio_agent.as_deref()) {
            Some(agent) if self.principal(agent).is_some() => Ok(agent.to_owned()),
            Some(agent) => Err(Problem::new(
                "config.unknown_agent",
                format!("{agent} is no Agent of the configuration."),
                "Add an Agent resource with that name and a sponsor, or name another with --agent.",
            )),
            None => Err(Problem::new(
                "config.no_stdio_agent",
                "The configuration does not say which Agent a stdio client is.",
                "Set stdio_agent in the configuration, or give --agent NAME.",
            )),
        }
    }

    /// Reads a credential. The error names the place, never the value.
    pub fn secret(&self, what: &str, r: &SecretRef) -> Result<SecretString> {
        read_secret(&self.base, what, r)
    }
}

/// Reads a credential; relative files start at `base`.
pub fn read_secret(base: &Path, what: &str, r: &SecretRef) -> Result<SecretString> {
    let missing = |place: String| {
        Problem::new(
            "config.secret_missing",
            format!("The credential for {what} is not there ({place})."),
            "Set the variable or the file that the configuration names.",
        )
    };
    match r {
        SecretRef::Env(name) => {
            std::env::var(name).map(SecretString::from).map_err(|_| missing(format!("environment variable {name}")))
        }
        SecretRef::File(path) => std::fs::read_to_string(base.join(path))
            .map(|s| SecretString::from(s.trim_end_matches(['\n', '\r']).to_owned()))
            .map_err(|e| missing(format!("file {path}: {}", e.kind()))),
    }
}

/// What an entry says of a person that is true of nobody, and that would be found out when an answer is missing.
fn nobodys(p: &PersonSpec) -> Option<String> {
    if let Some(id) = p.telegram.filter(|id| is_impersonal(*id)) {
        return Some(format!(
            "`telegram: {id}` is no person's account; `/start` to the bot tells a person their number"
        ));
    }
    if let Some(login) = p.forge.as_deref().filter(|l| l.is_empty() || l.contains(char::is_whitespace)) {
        return Some(format!("`forge: {login:?}` is no login; leave it out where there is none"));
    }
    let bad = p.ssh_keys.iter().position(|k| ssh_key::PublicKey::from_openssh(k.trim()).is_err())?;
    Some(format!("line {} of `ssh_keys` is no public key (`ssh-ed25519 AAAA…`, as in a `.pub` file)", bad + 1))
}
