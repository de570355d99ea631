//! A whole world on loopback: a cluster with both engines, a Git server, a forge, a chat, people,
//! a shop of two applications, and a configuration with which `countersign serve` works on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_core::{Problem, Result};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::bot::{self, BotApi, BotOptions};
use super::cluster::{Behaviour, ClusterOptions, ClusterSandbox};
use super::forge::{self, Forge, ForgeOptions, ForgeUser, UserKind};
use super::git::{self, Author, FileChange, GitOptions, GitServer, GitUser};

/// Jon, who answers for the agent, at Telegram.
pub const JON: i64 = 1001;
/// Anna, who decides, at Telegram.
pub const ANNA: i64 = 1002;
/// Max, who decides too, at Telegram.
pub const MAX: i64 = 1003;
/// Eve, who is in the chat but on no list.
pub const EVE: i64 = 1666;
/// The repository.
pub const REPO: &str = "acme/shop";
/// The cluster's name in the configuration.
pub const CLUSTER: &str = "prod-eu";
/// The agent's name.
pub const AGENT: &str = "sre-bot";

/// What differs between worlds.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// Where configuration, keys and state go; absent = a temporary folder that goes with the world.
    pub dir: Option<PathBuf>,
    /// Divides the engines' waits.
    pub speed: f64,
    /// Text of the policy file.
    pub policy: String,
    /// `times` of the configuration: observe, stable window, grace after failure, deliver, poll; seconds.
    pub times: [u32; 5],
    /// Write the servers' logs (JSON lines) below `dir`.
    pub logs: bool,
    /// Further files of the repository, in its first commit.
    pub files: Vec<(String, String)>,
    /// Kind of forge API that the configuration uses: `github` or `gitea`.
    pub forge: String,
    /// How the forge merges for Countersign: `merge`, `squash` or `rebase`.
    pub merge_method: String,
    /// `approvals` of the configuration, in YAML.
    pub approvals: String,
    /// Image that checkout has at first; `reg.example/checkout:1.9.2` crashes.
    pub first_image: String,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            dir: None,
            speed: 6.0,
            policy: policy("prompted", "direct", 1),
            times: [60, 2, 2, 60, 1],
            logs: false,
            files: Vec::new(),
            forge: "github".into(),
            merge_method: "merge".into(),
            // Worlds are for looking at other things than an agent's patience.
            approvals: "{cooldown_s: 0}".into(),
            first_image: "reg.example/checkout:1.9.2".into(),
        }
    }
}

/// A policy with one rule for everything in the shop.
pub fn policy(level: &str, deliver: &str, count: u32) -> String {
    let approve = match level {
        "prompted" => format!("  approve: {{from: [sre], count: {count}, expires: 30m}}\n"),
        _ => String::new(),
    };
    format!(
        "version: 1\ndefault: {{level: deny}}\nrules:\n- id: prod\n  match: {{labels: {{env: prod}}}}\n  level: {level}\n{approve}  deliver: {deliver}\n  tell: [sre]\n"
    )
}

/// Addresses of a world, for those who drive it from outside.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Bearer token of the agent.
    pub agent_token: String,
    /// Anna's private ssh key file.
    pub anna_key: PathBuf,
}

/// The world.
pub struct World {
    /// Folder with everything.
    pub dir: PathBuf,
    /// Configuration file.
    pub config: PathBuf,
    /// Keys.
    pub keys: Keys,
    /// Git server.
    pub git: GitServer,
    /// Forge.
    pub forge: Forge,
    /// Bot API.
    pub bot: BotApi,
    /// Cluster.
    pub cluster: ClusterSandbox,
    _temporary: Option<tempfile::TempDir>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn failed(e: impl std::fmt::Display) -> Problem {
    Problem::new(
        "sandbox.start",
        format!("The sandbox did not start: {e}."),
        "Look at the reason; loopback ports and a temporary folder are needed.",
    )
}

fn put(path: &Path, text: &str, secret: bool) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)?;
    if secret {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    Ok(())
}

fn ssh_key(path: &Path) -> Result<String> {
    let key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).map_err(failed)?;
    put(path, &key.to_openssh(LineEnding::LF).map_err(failed)?, true)?;
    let public = key.public_key().to_openssh().map_err(failed)?;
    put(&path.with_extension("pub"), &format!("{public}\n"), false)?;
    Ok(public)
}

fn random_hex() -> String {
    let bytes: [u8; 24] = rand::random();
    countersign_core::model::hex(&bytes)
}

/// A Deployment of the shop.
pub fn deployment(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "# {name}: the shop's {name} service\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: shop\n  labels:\n    app: {name}\n    env: prod\nspec:\n  replicas: {replicas}  # see the capacity plan\n  progressDeadlineSeconds: 15\n  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    spec:\n      containers:\n        - name: app\n          image: {image}\n          env:\n            - name: LOG_LEVEL\n              value: info\n          ports:\n            - containerPort: 8080\n"
    )
}

/// An Application of the shop that syncs by itself.
pub fn application(name: &str, url: &str, path: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": name, "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "targetRevision": "main", "path": path},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            "syncPolicy": {"automated": {"prune": true, "selfHeal": true}}
        }
    })
}

/// The shop's GitRepository, and a Kustomization that follows it.
pub fn flux(name: &str, url: &str, path: &str) -> [Value; 2] {
    [
        json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": {"name": "shop", "namespace": "flux-system"},
            "spec": {"url": url, "interval": "1m", "ref": {"branch": "main"}}
        }),
        json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": name, "namespace": "flux-system"},
            "spec": {"path": format!("./{path}"), "interval": "10m", "timeout": "25s", "retryInterval": "10s", "prune": true, "wait": true,
                     "sourceRef": {"kind": "GitRepository", "name": "shop"}}
        }),
    ]
}

impl World {
    /// Starts everything, and waits until both applications were applied once.
    pub async fn start(options: WorldOptions) -> Result<Self> {
        let temporary = if options.dir.is_none() { Some(tempfile::tempdir().map_err(failed)?) } else { None };
        let dir = match (&options.dir, &temporary) {
            (Some(d), _) => std::path::absolute(d).map_err(failed)?,
            (None, Some(t)) => t.path().to_owned(),
            (None, None) => return Err(failed("no folder")),
        };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let log = |name: &str| options.logs.then(|| dir.join(format!("{name}.jsonl")));
        let git_token = random_hex();
        let git = git::start(GitOptions {
            root: Some(dir.join("repos")),
            users: vec![GitUser { login: "countersign".into(), token: git_token.clone(), can_write: true }],
            anonymous_read: true,
            log: log("git"),
            ..GitOptions::default()
        })
        .await
        .map_err(failed)?;
        let files = Self::first_files(&options);
        git.repos().create(REPO, "main", &files, &Author::new("Anna", "anna@example.test")).map_err(failed)?;
        let forge_token = random_hex();
        let user = |login: &str, kind, can_write| ForgeUser {
            login: login.into(),
            id: 0,
            token: random_hex(),
            kind,
            can_write,
        };
        let mut bot_user = user("countersign-bot", UserKind::Bot, true);
        bot_user.token.clone_from(&forge_token);
        let people = vec![
            bot_user,
            user("jon", UserKind::User, true),
            user("anna", UserKind::User, true),
            user("eve", UserKind::User, true),
        ];
        let forge = forge::start(ForgeOptions {
            log: log("forge"),
            ..ForgeOptions::new(git.repos().clone(), git.url(), people)
        })
        .await
        .map_err(failed)?;
        let bot = bot::start(BotOptions { log: log("bot"), ..BotOptions::default() }).await.map_err(failed)?;
        for (id, name) in [(JON, "Jon"), (ANNA, "Anna"), (MAX, "Max"), (EVE, "Eve")] {
            bot.add_user(id, name, None, true);
        }
        let cluster = ClusterSandbox::start(ClusterOptions {
            speed: options.speed,
            log_file: log("cluster"),
            ..ClusterOptions::default()
        })
        .await?;
        cluster.set_image_behaviour("reg.example/checkout:1.9.2", Behaviour::Crash(1));
        cluster.set_image_behaviour("reg.example/checkout:missing", Behaviour::Missing);
        cluster.set_image_behaviour("reg.example/payments:missing", Behaviour::Missing);
        let url = git.repo_url(REPO);
        let [source, kustomization] = flux("payments", &url, "apps/payments");
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        for object in [shop, application("shop-prod", &url, "apps/checkout"), source, kustomization] {
            cluster.apply(&object).map_err(|e| failed(format!("{e:?}")))?;
        }
        let keys = Keys { agent_token: random_hex(), anna_key: dir.join("keys/anna") };
        let mut world =
            Self { config: dir.join("countersign.yaml"), dir, keys, git, forge, bot, cluster, _temporary: temporary };
        world.write_config(&options, &git_token, &forge_token)?;
        world.settle().await?;
        Ok(world)
    }

    fn first_files(options: &WorldOptions) -> Vec<FileChange> {
        let mut files = vec![
            FileChange::write("apps/checkout/deploy.yaml", deployment("checkout", &options.first_image, 2).as_bytes()),
            FileChange::write(
                "apps/payments/deploy.yaml",
                deployment("payments", "reg.example/payments:2.0.0", 2).as_bytes(),
            ),
            FileChange::write("README.md", b"# The shop\n"),
        ];
        files.extend(options.files.iter().map(|(p, t)| FileChange::write(p, t.as_bytes())));
        files
    }

    fn write_config(&mut self, o: &WorldOptions, git_token: &str, forge_token: &str) -> Result<()> {
        let d = self.dir.clone();
        ssh_key(&d.join("keys/signing"))?;
        let anna = ssh_key(&self.keys.anna_key)?;
        put(&d.join("keys/git-token"), git_token, true)?;
        put(&d.join("keys/forge-token"), forge_token, true)?;
        put(&d.join("keys/bot-token"), self.bot.token(), true)?;
        put(&d.join("keys/agent-token"), &self.keys.agent_token, true)?;
        put(&d.join("kubeconfig.yaml"), &self.cluster.kubeconfig_yaml(), true)?;
        let [observe, stable, grace, deliver, poll] = o.times;
        put(
            &self.config,
            &format!(
                "state_dir: state\nresources: [resources]\npolicies: policies\nsigning_key: {{file: keys/signing}}\nstdio_agent: {AGENT}\ntimes: {{observe_s: {observe}, stable_s: {stable}, failed_grace_s: {grace}, deliver_s: {deliver}, poll_s: {poll}}}\napprovals: {}\n",
                o.approvals
            ),
            false,
        )?;
        let token_hash = countersign_core::model::hex(&Sha256::digest(self.keys.agent_token.as_bytes()));
        let api = if o.forge == "gitea" { self.forge.gitea_url() } else { self.forge.url() };
        let resources = [
            json!({"kind": "Repository", "metadata": {"name": "shop"}, "spec": {
                "url": self.git.repo_url(REPO),
                "auth": {"username": "countersign", "token": {"file": "keys/git-token"}},
                "forge": {"kind": o.forge, "api_url": api, "owner": "acme", "repo": "shop", "token": {"file": "keys/forge-token"}, "merge_method": o.merge_method},
            }}),
            json!({"kind": "Cluster", "metadata": {"name": CLUSTER}, "spec": {"kubeconfig": "kubeconfig.yaml", "hints": true, "labels": {"env": "prod"}}}),
            json!({"kind": "Agent", "metadata": {"name": AGENT}, "spec": {"sponsor": "jon", "token_sha256": token_hash}}),
            json!({"kind": "Person", "metadata": {"name": "jon"}, "spec": {"telegram": JON, "forge": "jon", "groups": ["dev"]}}),
            json!({"kind": "Person", "metadata": {"name": "anna"}, "spec": {"telegram": ANNA, "forge": "anna", "ssh_keys": [anna], "groups": ["sre"]}}),
            json!({"kind": "Person", "metadata": {"name": "max"}, "spec": {"telegram": MAX, "groups": ["sre"]}}),
            json!({"kind": "Channel", "metadata": {"name": "telegram"}, "spec": {"kind": "telegram", "token": {"file": "keys/bot-token"}, "api_url": self.bot.url()}}),
        ];
        let mut text = String::new();
        for mut r in resources {
            if let Some(map) = r.as_object_mut() {
                map.insert("apiVersion".into(), json!(crate::config::API_VERSION));
            }
            // JSON is YAML.
            text.push_str(&format!("---\n{}\n", serde_json::to_string_pretty(&r).map_err(failed)?));
        }
        put(&d.join("resources/all.yaml"), &text, false)?;
        self.set_policy(&o.policy)
    }

    /// Replaces the policy file; a running daemon takes it on reload.
    pub fn set_policy(&self, text: &str) -> Result<()> {
        put(&self.dir.join("policies/policy.yaml"), text, false)
    }

    /// Waits until both engines have applied the first commit.
    async fn settle(&self) -> Result<()> {
        for _ in 0..400 {
            let there = |name: &str| self.cluster.get("apps", "Deployment", "shop", name).is_some();
            let synced = self
                .cluster
                .get("argoproj.io", "Application", "argocd", "shop-prod")
                .is_some_and(|a| a.pointer("/status/sync/status").and_then(Value::as_str) == Some("Synced"));
            if there("checkout") && there("payments") && synced {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = |group: &str, kind: &str, ns: &str, name: &str| {
            self.cluster.get(group, kind, ns, name).and_then(|o| o.get("status").cloned()).unwrap_or_default()
        };
        Err(failed(format!(
            "the engines did not apply the first commit within 20 s: {} {}",
            status("argoproj.io", "Application", "argocd", "shop-prod"),
            status("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", "payments"),
        )))
    }

    /// Image of a live Deployment.
    pub fn live_image(&self, name: &str) -> Option<String> {
        let d = self.cluster.get("apps", "Deployment", "shop", name)?;
        Some(d.pointer("/spec/template/spec/containers/0/image")?.as_str()?.to_owned())
    }

    /// A file at the tip of main.
    pub fn file(&self, path: &str) -> Option<String> {
        String::from_utf8(self.git.repos().read(REPO, "main", path)?).ok()
    }

    /// Tip of main.
    pub fn tip(&self) -> String {
        self.git.repos().head(REPO, "main").unwrap_or_default()
    }

    /// The agent's token.
    pub fn token(&self) -> SecretString {
        SecretString::from(self.keys.agent_token.clone())
    }

    /// One line of JSON for those who drive the world from outside.
    pub fn describe(&self) -> Value {
        json!({
            "config": self.config,
            "kubeconfig": self.dir.join("kubeconfig.yaml"),
            "git_urls": {REPO: self.git.repo_url(REPO)},
            "forge_url": self.forge.url(),
            "gitea_url": self.forge.gitea_url(),
            "bot_api_url": self.bot.url(),
            "bot_token_file": self.dir.join("keys/bot-token"),
            "agent_token_file": self.dir.join("keys/agent-token"),
            "people": {"jon": JON, "anna": ANNA, "max": MAX, "eve (on no list)": EVE},
            "ssh_key_of_anna": self.keys.anna_key,
            "control": {
                "bot": format!("{}/sandbox", self.bot.control_url()),
                "forge": format!("{}/sandbox", self.forge.control_url()),
                "git": format!("{}/sandbox", self.git.control_url()),
                "cluster": format!("{}/sandbox", self.cluster.url()),
            },
            "people_do": {
                "read a chat": format!("GET {{control.bot}}/chats/{ANNA}?contains=TEXT&timeout_s=10"),
                "approve as an attentive person": format!("POST {{control.bot}}/approve {}", json!({"chat_id": ANNA})),
                "press a button": format!("POST {{control.bot}}/press {}", json!({"chat_id": ANNA, "button": "Approve"})),
                "write to the bot": format!("POST {{control.bot}}/say {}", json!({"user_id": ANNA, "text": "/stop"})),
                "merge a pull request": format!("POST {{control.forge}}/merge {}", json!({"repo": REPO, "number": 1, "as": "anna"})),
            },
            "targets": [format!("{CLUSTER}/shop/Deployment/checkout"), format!("{CLUSTER}/shop/Deployment/payments")],
            "scenarios": {
                "healthy": "set_image checkout reg.example/checkout:1.9.1",
                "degraded": "set_image checkout reg.example/checkout:missing (never gets ready)",
                "crash": "checkout runs reg.example/checkout:1.9.2 from the start, which exits with code 1",
                "lost race": "POST {control.git}/race {\"repo\":\"acme/shop\",\"branch\":\"main\",\"path\":\"other.txt\",\"content\":\"x\"}",
                "protected branch": "POST {control.git}/protect {\"repo\":\"acme/shop\",\"branch\":\"main\",\"protected\":true}",
                "engine paused": "POST {control.cluster}/engine {\"engine\":\"argocd\",\"action\":\"pause\"} (or flux, resume, restart)",
                "outage": "POST {control.bot}/down, later /up; also of control.forge and control.git",
            },
        })
    }
}
