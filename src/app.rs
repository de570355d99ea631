//! Wiring: names the concrete adapters, holds the state directory's lock, starts and ends the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use countersign_core::model::{
    CancelArgs, ChangeAnswer, ChangeArgs, ChangesAnswer, ChangesArgs, ClusterSpec, InspectAnswer, InspectArgs, Named,
    OperateArgs, Principal, RepositoryAuth, RepositorySpec, RollbackArgs,
};
use countersign_core::secrets::Redactor;
use countersign_core::{Problem, Result};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channel::telegram::Telegram;
use crate::channel::webhook::Webhook;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::{Config, read_secret};
use crate::forge;
use crate::git::{Credentials, GitRepo, NAMESPACE_CHECKPOINT, SshSigner, verify};
use crate::journal::{Head, Journal, Seal};
use crate::pipeline::greet::Greeted;
use crate::pipeline::handle::HandleKey;
use crate::pipeline::{Feed, Pipeline, RepoHandle};
use crate::render::Kustomize;
use crate::server::control::{serve_control, socket_path as control_path};
use crate::server::{
    Agents, HttpOptions, HttpServer, Mcp, Meter, MetricsServer, Prompts, SOCKET, Service, SharedAgents, bind_socket,
    serve_socket,
};

/// Where the journal of a configuration lies.
pub fn journal_path(config: &Config) -> PathBuf {
    config.bootstrap.state_dir.join("journal.db")
}

/// Where the mirror of a repository lies.
pub fn mirror_dir(config: &Config, repository: &str) -> PathBuf {
    config.bootstrap.state_dir.join("mirrors").join(repository)
}

/// The daemon: one per state directory.
pub struct Daemon {
    /// Everything it does.
    pub pipeline: Arc<Pipeline>,
    http: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _lock: File,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("http", &self.http).finish_non_exhaustive()
    }
}

fn state(e: impl std::fmt::Display) -> Problem {
    Problem::new(
        "daemon.state_dir",
        format!("The state directory cannot be used: {e}."),
        "Make it writable for this user alone, or name another one in the configuration.",
    )
}

/// How long a start waits for the lock of a daemon that nobody can reach any more: it takes a moment to end.
const ENDING: Duration = Duration::from_secs(10);

/// The lock of the state directory: two daemons would poll and push twice.
async fn lock(dir: &Path) -> Result<File> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(state)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(state)?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(state)?;
    let until = Instant::now() + ENDING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(state(e)),
            Err(TryLockError::WouldBlock) => {}
        }
        // Whoever listens is at work.
        if Instant::now() >= until || UnixStream::connect(dir.join(SOCKET)).await.is_ok() {
            return Err(Problem::new(
                "daemon.running",
                "Another daemon holds this state directory.",
                "Use that one (`countersign status`), or end it first.",
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The installation's secret for handles and redaction marks: made once, readable by its owner alone.
fn installation_key(dir: &Path) -> Result<[u8; 32]> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join("installation.key");
    if let Ok(bytes) = std::fs::read(&path) {
        return <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| state("installation.key has the wrong length"));
    }
    let key: [u8; 32] = rand::random();
    let new = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new).map_err(state)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(state)?;
    std::fs::rename(&new, &path).map_err(state)?;
    Ok(key)
}

/// The credentials of a repository, read now.
pub(crate) fn credentials(base: &Path, name: &str, auth: &RepositoryAuth) -> Result<Credentials> {
    use secrecy::ExposeSecret as _;
    let what = format!("repository {name}");
    let known_hosts = match &auth.known_hosts {
        Some(r) => Some(read_secret(base, &what, r)?.expose_secret().to_owned()),
        None => None,
    };
    Ok(Credentials {
        ssh_key_pem: auth.ssh_key.as_ref().map(|r| read_secret(base, &what, r)).transpose()?,
        known_hosts,
        username: auth.username.clone(),
        token: auth.token.as_ref().map(|r| read_secret(base, &what, r)).transpose()?,
    })
}

/// The other systems that are told what happens.
fn feeds(config: &Config) -> Result<Vec<Feed>> {
    let mut feeds = Vec::new();
    for ch in config.webhooks() {
        let secret = config.secret(&format!("the webhook {}", ch.name), &ch.spec.token)?;
        let hook = Webhook::new(ch.spec.url.as_deref().unwrap_or_default(), secret)?;
        feeds.push(Feed::Webhook(ch.name.clone(), hook));
    }
    #[cfg(feature = "otel")]
    feeds.extend(crate::channel::traces::Traces::from_env()?.map(|t| Feed::Traces(Box::new(t))));
    #[cfg(not(feature = "otel"))]
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this program was built without the feature `otel`");
    }
    Ok(feeds)
}

async fn repository(config: &Config, name: &str, spec: &RepositorySpec) -> Result<RepoHandle> {
    let git =
        GitRepo::open(name, &spec.url, credentials(&config.base, name, &spec.auth)?, &mirror_dir(config, name)).await?;
    let forge = match &spec.forge {
        None => None,
        Some(f) => {
            let token = config.secret(&format!("the forge of {name}"), &f.token)?;
            Some((forge::connect(f, token)?, f.merge_method))
        }
    };
    Ok(RepoHandle { git, forge })
}

/// Connects a cluster of the configuration.
pub(crate) async fn connect_cluster(config: &Config, named: &Named<ClusterSpec>) -> Result<Cluster> {
    let mut spec = named.spec.clone();
    spec.kubeconfig = spec.kubeconfig.map(|k| config.base.join(k).to_string_lossy().into_owned());
    Cluster::connect(&named.name, spec).await
}

/// Seals the journal's head with the signing key.
pub(crate) fn seal(signer: &SshSigner) -> Seal {
    let (public, signer) = (signer.public_key(), signer.clone());
    Seal {
        sign: Arc::new(move |head| signer.sign(NAMESPACE_CHECKPOINT, head.as_bytes())),
        check: Arc::new(move |head, signature| {
            verify(NAMESPACE_CHECKPOINT, head.as_bytes(), signature, &[&public]).map(|_| ())
        }),
    }
}

/// `audit reseal`: the journal as it is counts from now on. Not while a daemon runs.
pub(crate) async fn reseal(config: &Config) -> Result<Head> {
    let _lock = lock(&config.bootstrap.state_dir).await?;
    let signer = SshSigner::from_openssh(&config.secret("the signing key", &config.bootstrap.signing_key)?, None)?;
    Journal::reseal(&journal_path(config), seal(&signer)).await
}

impl Daemon {
    /// Starts everything. A bad configuration never starts: the reason says what to put right.
    pub async fn start(
        config: Config,
        config_path: Option<PathBuf>,
        http: Option<String>,
        clock: Clock,
    ) -> Result<Self> {
        let dir = config.bootstrap.state_dir.clone();
        let lock = lock(&dir).await?;
        let key = installation_key(&dir)?;
        let signer = SshSigner::from_openssh(&config.secret("the signing key", &config.bootstrap.signing_key)?, None)?;
        let journal = Journal::open(&journal_path(&config), Some(seal(&signer))).await?;
        let mut repos = BTreeMap::new();
        for r in &config.repositories {
            repos.insert(r.name.clone(), repository(&config, &r.name, &r.spec).await?);
        }
        let mut clusters = BTreeMap::new();
        for c in &config.clusters {
            clusters.insert(c.name.clone(), connect_cluster(&config, c).await?);
        }
        let telegram = match config.telegram() {
            None => None,
            Some(ch) => Some(Telegram::new(&config.secret("Telegram", &ch.spec.token)?, ch.spec.api_url.as_deref())?),
        };
        let feeds = feeds(&config)?;
        let prompts = match &config.bootstrap.prompts {
            Some(dir) => Prompts::from_dir(dir)?,
            None => Prompts::built_in()?,
        };
        let agents = Agents::new(&config.agents)?.shared();
        let http_options = HttpOptions {
            hosts: config.bootstrap.http.allowed_hosts.clone(),
            origins: config.bootstrap.http.allowed_origins.clone(),
            // Where no agent has a token, whoever is on this machine is the agent of stdio; never beyond loopback.
            loopback_agent: if config.agents.iter().all(|a| a.spec.token_sha256.is_none()) {
                config.bootstrap.stdio_agent.as_deref().and_then(|a| config.principal(a))
            } else {
                None
            },
            ..HttpOptions::new(Arc::clone(&agents))
        };
        let kustomize = Kustomize::find(config.bootstrap.kustomize.as_deref());
        let for_reload = Arc::clone(&agents);
        let pipeline = Arc::new(Pipeline {
            on_reload: Box::new(move |fresh: &Config| {
                for_reload.store(Arc::new(Agents::new(&fresh.agents)?));
                Ok(())
            }),
            journal,
            clock,
            clusters,
            repos,
            telegram,
            signer,
            handles: HandleKey::new(key),
            redactor: Redactor::new(key),
            kustomize,
            config_path,
            workers: Mutex::new(BTreeSet::new()),
            greeted: Greeted::default(),
            pairings: Default::default(),
            held: Mutex::default(),
            meters: Default::default(),
            pace: Default::default(),
            turns: Default::default(),
            halt: CancellationToken::new(),
            config: ArcSwap::from_pointee(config),
        });
        let mut daemon = Self {
            pipeline,
            http: None,
            metrics: None,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _lock: lock,
        };
        daemon.serve(&dir, http, prompts, agents, http_options).await?;
        for feed in feeds {
            daemon.tasks.spawn(Arc::clone(&daemon.pipeline).feed(feed, daemon.shutdown.clone()));
        }
        Ok(daemon)
    }

    async fn serve(
        &mut self,
        dir: &Path,
        http: Option<String>,
        prompts: Prompts,
        agents: SharedAgents,
        options: HttpOptions,
    ) -> Result<()> {
        let service: Arc<dyn Service> = Arc::new(Product(Arc::clone(&self.pipeline)));
        let mcp = Mcp::new(Arc::clone(&service), prompts)?;
        let metrics = self.pipeline.config.load().bootstrap.metrics.clone();
        if let Some(address) = metrics {
            let server = MetricsServer::bind(&address, Arc::clone(&service)).await?;
            self.metrics = Some(server.local_addr());
            self.tasks.spawn(server.run(self.shutdown.clone()));
        }
        // One for both faces: an agent has its limits, not each of its connections.
        let meter = Arc::new(Meter::new(options.limits.clone()));
        if let Some(addr) = http {
            let addr: SocketAddr = addr.parse().map_err(|_| {
                Problem::new(
                    "config.http",
                    format!("\"{addr}\" is not an address."),
                    "Write ADDRESS:PORT, for example 127.0.0.1:8080.",
                )
            })?;
            let options = HttpOptions { meter: Some(Arc::clone(&meter)), ..options };
            let server = HttpServer::bind(addr, mcp.clone(), service, options).await?;
            self.http = Some(server.local_addr());
            let stop = self.shutdown.clone();
            self.tasks.spawn(async move {
                if let Err(problem) = server.run(stop).await {
                    tracing::error!(code = %problem.code, "{}", problem.message);
                }
            });
        }
        let socket = dir.join(SOCKET);
        let listener = bind_socket(&socket)?;
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move { serve_socket(listener, &socket, mcp, agents, meter, stop).await });
        let control = bind_socket(&control_path(dir))?;
        self.tasks.spawn(serve_control(control, Arc::clone(&self.pipeline), self.shutdown.clone()));
        self.tasks.spawn(Arc::clone(&self.pipeline).poll_channel(self.shutdown.clone()));
        self.pipeline.start().await;
        Ok(())
    }

    /// Where MCP over HTTP listens.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where metrics are served, apart from the HTTP face.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Runs until SIGINT, SIGTERM or a request to stop; SIGHUP reloads the configuration.
    pub async fn run_until_signal(self) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate()).ok();
        let mut hup = signal(SignalKind::hangup()).ok();
        async fn next(s: Option<&mut tokio::signal::unix::Signal>) {
            match s {
                Some(s) => drop(s.recv().await),
                None => std::future::pending().await,
            }
        }
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                _ = tokio::signal::ctrl_c() => break,
                () = next(term.as_mut()) => break,
                () = next(hup.as_mut()) => match self.pipeline.reload() {
                    Ok(_) => tracing::info!("configuration reloaded"),
                    Err(problem) => tracing::error!(code = %problem.code, "{}", problem.message),
                },
            }
        }
        self.stop().await;
    }

    /// Ends it. Whatever was under way is in the journal and goes on at the next start.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.pipeline.halt();
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), async {
            self.tasks.wait().await;
            self.pipeline.ended().await;
        })
        .await;
    }
}

/// The product, as the faces see it.
struct Product(Arc<Pipeline>);

#[async_trait]
impl Service for Product {
    async fn inspect(&self, who: &Principal, args: InspectArgs) -> Result<InspectAnswer> {
        self.0.inspect(who, args).await
    }
    async fn operate(&self, who: &Principal, args: OperateArgs) -> Result<ChangeAnswer> {
        self.0.operate(who, args).await
    }
    async fn change(&self, who: &Principal, args: ChangeArgs, progress: mpsc::Sender<String>) -> Result<ChangeAnswer> {
        self.0.change(who, args, progress).await
    }
    async fn changes(&self, who: &Principal, args: ChangesArgs) -> Result<ChangesAnswer> {
        self.0.changes(who, args).await
    }
    async fn cancel(&self, who: &Principal, args: CancelArgs) -> Result<ChangeAnswer> {
        self.0.cancel(who, args).await
    }
    async fn rollback(&self, who: &Principal, args: RollbackArgs) -> Result<ChangeAnswer> {
        self.0.rollback(who, args).await
    }
    async fn ready(&self) -> Result<()> {
        self.0.ready().await
    }
    async fn metrics(&self) -> String {
        self.0.metrics().await
    }
}
