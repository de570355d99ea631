//! What a scenario needs from a world, and the place that it gets in one: a namespace, a repository, a chat and
//! a daemon of its own. Kubernetes, Git and the forge are used over their own protocols on both back ends, so
//! that little is left for a back end to do: [`Backend`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign::app::Daemon;
use countersign::cli::demo::agent::Agent;
use countersign::clock::Clock;
use countersign::config::{API_VERSION, Config};
use countersign::sandbox::bot::{self, BotApi, BotOptions};
use countersign::sandbox::git::GitServer;
use countersign::sandbox::world::{ANNA, EVE, JON, MAX, policy};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::kube::{Kube, api_version};
use super::others::Others;
use super::people::Desk;
use super::rights::Rights;
use super::ssh::Ssh;
use super::truth::History;

/// The cluster's name in the daemon's configuration.
pub const CLUSTER: &str = "prod-eu";

/// Somebody at the forge and at its Git server.
#[derive(Debug, Clone)]
pub struct Login {
    pub login: String,
    /// API token, and password over https.
    pub token: String,
}

/// A repository that a place has for itself, with a first commit on `main`.
#[derive(Debug, Clone)]
pub struct Repository {
    pub owner: String,
    pub name: String,
    /// Where it is cloned from, without credentials.
    pub url: String,
    /// Base of the forge's Gitea API; empty: there is no forge.
    pub api_url: String,
    /// Countersign's own account; it may write.
    pub bot: Login,
    pub jon: Login,
    pub anna: Login,
}

/// Seconds that fit the world's speed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub observe_s: u32,
    pub stable_s: u32,
    pub grace_s: u32,
    pub deliver_s: u32,
    /// Longest wait of a test for anything.
    pub patience_s: u64,
}

/// What can be stopped and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Argocd,
    Flux,
    ApiServer,
}

/// What the sandbox and the lab do each in its own way.
#[async_trait]
pub trait Backend: Send + Sync {
    /// `sandbox`, `lab` or `foreign cluster`.
    fn name(&self) -> &'static str;
    /// What names of places begin with.
    fn prefix(&self) -> String {
        "p".into()
    }
    /// Namespace of Argo CD.
    fn argocd(&self) -> String {
        "argocd".into()
    }
    /// Address of this machine at which engines find what a test serves.
    fn host(&self) -> String {
        "127.0.0.1".into()
    }
    /// Scheduler that Deployments name, where theirs is not the cluster's own.
    fn scheduler(&self) -> Option<String> {
        None
    }
    /// Labels an object as this suite's.
    fn mark(&self, _object: &mut Value) {}
    /// Panics if an object is somebody else's, and must not be written to.
    fn check(&self, _kind: &str, _namespace: &str, _name: &str) {}
    fn pace(&self) -> Pace;
    /// With every right, for the tests.
    fn admin_kubeconfig(&self) -> String;
    /// With the rights that the product asks for.
    fn daemon_kubeconfig(&self) -> String;
    /// A ServiceAccount of the place's own, with the rights of `deploy/` and no others.
    async fn account(&self, place: &str) -> String;
    /// Gives that account these rights and no others; returns when the API server holds to them.
    async fn allow(&self, place: &str, rights: &Rights);
    /// A new repository that all accounts may write and the engines may read without credentials.
    async fn repository(&self, name: &str) -> Repository;
    /// The same over ssh, for Countersign's account; nothing where no server speaks it.
    async fn ssh(&self, _repository: &Repository) -> Option<Ssh> {
        None
    }
    /// No direct pushes to a branch any more.
    async fn protect(&self, repository: &Repository, branch: &str);
    /// Stops a part as a crash does: at once, and nothing else. Returns when it is so.
    async fn stop(&self, part: Part);
    /// Starts it again; returns when it serves. What it had in memory is gone.
    async fn start(&self, part: Part);
}

/// What differs between places.
#[derive(Debug, Clone)]
pub struct Wish {
    pub policy: String,
    /// How Countersign merges.
    pub merge_method: &'static str,
    /// A plain Git server with real hooks in the place of the forge's (see `plain`).
    pub plain: bool,
    /// Put a proxy in front of Git, which can let others be faster (see `gate`).
    pub gate: bool,
    /// Countersign itself uses ssh.
    pub ssh: bool,
    /// The scenario stops parts of the world: it needs the world for itself.
    pub alone: bool,
    pub deliver_s: Option<u32>,
    pub observe_s: Option<u32>,
    pub poll_s: u32,
    /// A ServiceAccount of its own, for [`Backend::allow`].
    pub account: bool,
    /// Further agents, each with a token and a sponsor (Jon); see [`Place::crowd`].
    pub agents: usize,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            policy: policy("prompted", "direct", 1),
            merge_method: "merge",
            plain: false,
            gate: false,
            ssh: false,
            alone: false,
            deliver_s: None,
            observe_s: None,
            poll_s: 1,
            account: false,
            agents: 0,
        }
    }
}

impl Wish {
    pub fn policy(level: &str, deliver: &str) -> Self {
        Self { policy: policy(level, deliver, 1), ..Self::default() }
    }

    pub fn alone() -> Self {
        Self { alone: true, ..Self::default() }
    }
}

/// A place in a world.
pub struct Place {
    /// Name of the scenario, for the table.
    pub scenario: String,
    /// The place's own name: of its namespace, its repository, and what it makes in the engines' namespaces.
    pub name: String,
    /// Namespace of Argo CD.
    pub argocd: String,
    pub backend: Arc<dyn Backend>,
    pub pace: Pace,
    pub kube: Kube,
    pub repository: Repository,
    /// The repository's address as engines and the daemon know it: the gate's, where there is one.
    pub url: String,
    pub gate: Option<super::gate::Gate>,
    pub ssh: Option<Ssh>,
    /// The plain Git server, where there is one.
    pub git: Option<GitServer>,
    pub people: Arc<Desk>,
    pub bot: BotApi,
    pub history: History,
    pub others: Others,
    pub dir: tempfile::TempDir,
    pub clock: Clock,
    daemon: Option<Daemon>,
    agent: Option<Agent>,
    agent_token: String,
    /// What is to be deleted at the end, newest last: kind, namespace, name.
    made: Vec<(String, String, String)>,
}

fn random_hex(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

/// A field that is text, or nothing.
pub fn text<'v>(v: &'v Value, key: &str) -> &'v str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Place {
    pub async fn new(scenario: &str, wish: Wish) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let backend = start_backend(wish.alone).await;
        let mut pace = backend.pace();
        pace.deliver_s = wish.deliver_s.unwrap_or(pace.deliver_s);
        pace.observe_s = wish.observe_s.unwrap_or(pace.observe_s);
        let (name, argocd) = (format!("{}-{}", backend.prefix(), random_hex(4)), backend.argocd());
        let kube = Kube::connect(&backend).await;
        kube.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
        let (repository, git) = if wish.plain {
            let (repository, server) = super::plain::serve(&name).await;
            (repository, Some(server))
        } else {
            (backend.repository(&name).await, None)
        };
        let gate =
            if wish.gate { Some(super::gate::Gate::start(&repository.url, &backend.host()).await) } else { None };
        let ssh = if wish.ssh { backend.ssh(&repository).await } else { None };
        let url = gate.as_ref().map_or_else(|| repository.url.clone(), |g| g.url.clone());
        let bot = bot::start(BotOptions::default()).await.unwrap();
        for (id, person) in [(JON, "Jon"), (ANNA, "Anna"), (MAX, "Max"), (EVE, "Eve")] {
            bot.add_user(id, person, None, true);
        }
        let dir = tempfile::tempdir().unwrap();
        let mut place = Self {
            scenario: scenario.into(),
            people: Arc::new(Desk::new(dir.path().join("people"), repository.clone())),
            history: History::watch(&kube, &name, &argocd).await,
            others: Others::default(),
            name,
            argocd,
            backend,
            pace,
            kube,
            repository,
            url,
            gate,
            ssh,
            git,
            bot,
            dir,
            clock: Clock::real(),
            daemon: None,
            agent: None,
            agent_token: random_hex(24),
            made: Vec::new(),
        };
        let kubeconfig =
            if wish.account { place.backend.account(&place.name).await } else { place.backend.daemon_kubeconfig() };
        place.put("kubeconfig.yaml", &kubeconfig);
        place.configure(&wish);
        place.start_daemon().await;
        place
    }

    pub fn put(&self, path: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn configure(&self, wish: &Wish) {
        let key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).unwrap();
        self.put("keys/signing", &key.to_openssh(LineEnding::LF).unwrap());
        self.put("keys/git-token", &self.repository.bot.token);
        self.put("keys/bot-token", self.bot.token());
        self.put("policies/policy.yaml", &wish.policy);
        let p = self.pace;
        self.put(
            "countersign.yaml",
            &format!(
                "state_dir: state\nresources: [resources]\npolicies: policies\nsigning_key: {{file: keys/signing}}\nstdio_agent: sre-bot\ntimes: {{observe_s: {}, stable_s: {}, failed_grace_s: {}, deliver_s: {}, poll_s: {}}}\napprovals: {{cooldown_s: 0, number_from: critical, pending_per_agent: 1000, pending_per_person: 1000}}\n",
                p.observe_s, p.stable_s, p.grace_s, p.deliver_s, wish.poll_s
            ),
        );
        let hash = countersign_core::model::hex(&Sha256::digest(self.agent_token.as_bytes()));
        let r = &self.repository;
        let mut repository = json!({
            "url": self.url,
            "auth": {"username": r.bot.login, "token": {"file": "keys/git-token"}},
        });
        if let Some(ssh) = &self.ssh {
            ssh.configure(self, &mut repository);
        }
        if !r.api_url.is_empty() {
            repository["forge"] = json!({"kind": "gitea", "api_url": r.api_url, "owner": r.owner, "repo": r.name, "token": {"file": "keys/git-token"}, "merge_method": wish.merge_method});
        }
        let resources = [
            json!({"kind": "Repository", "metadata": {"name": "shop"}, "spec": repository}),
            json!({"kind": "Cluster", "metadata": {"name": CLUSTER}, "spec": {"kubeconfig": "kubeconfig.yaml", "argocd_namespaces": [self.argocd], "hints": true, "labels": {"env": "prod"}}}),
            json!({"kind": "Agent", "metadata": {"name": "sre-bot"}, "spec": {"sponsor": "jon", "token_sha256": hash}}),
            json!({"kind": "Person", "metadata": {"name": "jon"}, "spec": {"telegram": JON, "forge": r.jon.login, "groups": ["dev"]}}),
            json!({"kind": "Person", "metadata": {"name": "anna"}, "spec": {"telegram": ANNA, "forge": r.anna.login, "groups": ["sre"]}}),
            json!({"kind": "Person", "metadata": {"name": "max"}, "spec": {"telegram": MAX, "groups": ["sre"]}}),
            json!({"kind": "Channel", "metadata": {"name": "telegram"}, "spec": {"kind": "telegram", "token": {"file": "keys/bot-token"}, "api_url": self.bot.url()}}),
        ];
        let more = (1..=wish.agents).map(|n| {
            let hash = countersign_core::model::hex(&Sha256::digest(self.token_of(n).as_bytes()));
            json!({"kind": "Agent", "metadata": {"name": format!("agent-{n}")}, "spec": {"sponsor": "jon", "token_sha256": hash}})
        });
        let mut all = String::new();
        for mut resource in resources.into_iter().chain(more) {
            resource["apiVersion"] = json!(API_VERSION);
            // JSON is YAML.
            all.push_str(&format!("---\n{resource:#}\n"));
        }
        self.put("resources/all.yaml", &all);
    }

    fn token_of(&self, agent: usize) -> String {
        format!("{}-{agent}", self.agent_token)
    }

    /// Connects the further agents of the place, in order.
    pub async fn crowd(&self, agents: usize) -> Vec<Agent> {
        let url = format!("http://{}/mcp", self.daemon.as_ref().unwrap().http_addr().unwrap());
        let mut all = Vec::new();
        for n in 1..=agents {
            all.push(Agent::connect(&url, &self.token_of(n)).await.unwrap_or_else(|p| panic!("{p}")));
        }
        all
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("state/journal.db")
    }

    pub async fn start_daemon(&mut self) {
        let path = self.dir.path().join("countersign.yaml");
        let config = Config::load(&path).unwrap_or_else(|p| panic!("{p}"));
        let http = Some("127.0.0.1:0".into());
        let started = Daemon::start(config, Some(path), http, self.clock.clone()).await;
        let daemon = started.unwrap_or_else(|p| panic!("{p}"));
        let url = format!("http://{}/mcp", daemon.http_addr().unwrap());
        self.agent = Some(Agent::connect(&url, &self.agent_token).await.unwrap_or_else(|p| panic!("{p}")));
        self.daemon = Some(daemon);
    }

    /// Ends the daemon: another one takes its place.
    pub async fn stop_daemon(&mut self) {
        self.agent = None;
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await;
        }
    }

    /// Ends the daemon and starts it again: what it watches is asked for anew.
    pub async fn restart_daemon(&mut self) {
        self.stop_daemon().await;
        self.start_daemon().await;
    }

    /// Makes an object that goes with the place.
    pub async fn make(&mut self, object: &Value) {
        let mut object = object.clone();
        let kind = text(&object, "kind").to_owned();
        object["apiVersion"] = json!(api_version(&kind));
        self.kube.create(&object).await;
        let of = |key: &str| text(&object["metadata"], key).to_owned();
        self.made.push((kind, of("namespace"), of("name")));
    }

    /// An object of the place's namespace.
    pub async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.kube.get(kind, &self.name, name).await
    }

    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.pace.patience_s)
    }

    /// `cluster/namespace/Kind/name`.
    pub fn target(&self, kind: &str, name: &str) -> String {
        format!("{CLUSTER}/{}/{kind}/{name}", self.name)
    }

    pub async fn call(&mut self, tool: &str, args: Value) -> Value {
        let agent = self.agent.as_mut().expect("the daemon runs");
        agent.call(tool, args).await.unwrap_or_else(|p| panic!("{tool}: {p}"))
    }

    pub async fn operate(&mut self, edits: Vec<Value>) -> Value {
        self.call("operate", json!({"edits": edits, "reason": "a scenario wants it"})).await
    }

    /// Asks for one edit; panics unless it waits.
    pub async fn propose(&mut self, edit: Value) -> String {
        let answer = self.operate(vec![edit]).await;
        assert_eq!(text(&answer, "outcome"), "waiting", "{answer:#}");
        text(&answer, "change").to_owned()
    }

    pub fn set_image(&self, name: &str, image: &str) -> Value {
        json!({"target": self.target("Deployment", name), "set_image": {"container": "app", "image": image}})
    }

    /// Polls `change` until the state is one of these.
    pub async fn until(&mut self, change: &str, states: &[&str]) -> Value {
        self.until_that(change, &format!("{states:?}"), |now| states.contains(&text(now, "state"))).await
    }

    /// Polls `change` until this holds; panics when it ended otherwise, or when patience is over.
    pub async fn until_that(&mut self, change: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + self.patience();
        loop {
            let now = self.call("change", json!({"change": change, "wait_s": 1})).await;
            if holds(&now) {
                return now;
            }
            let over = matches!(text(&now, "outcome"), "ended" | "healthy" | "refused");
            assert!(!over, "ended otherwise than {what}: {now:#}");
            assert!(tokio::time::Instant::now() < end, "not {what} yet: {now:#}\n{}", self.history.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Polls until the waiting has had this code.
    pub async fn until_told(&mut self, change: &str, code: &str) -> Value {
        let words = format!("({code})");
        self.until_that(change, code, |now| story(now).contains(&words)).await
    }

    /// Polls until it holds; panics with these words when patience is over.
    pub async fn eventually<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let end = tokio::time::Instant::now() + self.patience();
        while !holds().await {
            assert!(tokio::time::Instant::now() < end, "{what} did not come\n{}", self.history.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes the place's Applications, also those that Git or a set brought, and waits for a while until they are
    /// gone: those of a set cannot go once their project is.
    async fn without_applications(&self) {
        let all = self.kube.api("Application", &self.argocd);
        for _ in 0..300 {
            let found = all.list(&Default::default()).await.map(|l| l.items).unwrap_or_default();
            let names = found.into_iter().filter_map(|a| a.metadata.name).filter(|n| n.starts_with(&self.name));
            let names: Vec<String> = names.collect();
            for name in &names {
                self.kube.delete("Application", &self.argocd, name).await;
            }
            if names.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the daemon and the place; what it made goes.
    pub async fn end(mut self) {
        self.agent = None;
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await;
        }
        self.history.stop();
        if self.backend.name() != "sandbox" {
            for (kind, namespace, name) in self.made.iter().rev() {
                if kind == "AppProject" {
                    self.without_applications().await;
                }
                self.kube.delete(kind, namespace, name).await;
            }
            self.kube.delete("Namespace", "", &self.name).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        super::table::over(self.backend.name());
    }
}

/// Sentences of the change's story.
pub fn story(answer: &Value) -> String {
    let lines = answer["story"].as_array().cloned().unwrap_or_default();
    lines.iter().map(|l| text(l, "what").to_owned()).collect::<Vec<_>>().join("\n")
}

/// Everything that a refusal says.
pub fn refusal(answer: &Value) -> String {
    let p = &answer["problem"];
    let evidence = p["evidence"].as_array().cloned().unwrap_or_default();
    let evidence: Vec<&str> = evidence.iter().filter_map(Value::as_str).collect();
    format!("{}: {} {} [{}]", text(p, "code"), text(p, "message"), text(p, "next"), evidence.join("; "))
}

pub fn notes(answer: &Value) -> String {
    answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

async fn start_backend(alone: bool) -> Arc<dyn Backend> {
    if crate::lab::wanted() {
        Arc::new(super::lab::Real::start(alone).await)
    } else {
        Arc::new(super::sandbox::Sandbox::start().await)
    }
}
