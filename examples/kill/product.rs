//! The product as a process that is killed, and the agent that talks to it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use countersign::cli::demo::agent::Agent;
use serde_json::Value;
use tokio::process::{Child, Command};

/// SIGKILL.
const KILL: i32 = 9;

/// The program beside this example (`target/debug/countersign`).
pub fn program() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let dir = me.parent().and_then(Path::parent).context("this example lies in no target folder")?;
    let program = dir.join("countersign");
    if !program.is_file() {
        bail!("{} is not there: run `cargo build` first", program.display());
    }
    Ok(program)
}

/// The daemon, started again after each kill.
pub struct Product {
    config: PathBuf,
    port: u16,
    armed: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// When it was started last.
    pub since: Instant,
}

impl Product {
    /// For the configuration of a world; not started.
    pub fn new(config: PathBuf, dir: &Path) -> Result<Self> {
        // The port stays the same over all starts, as it does for a real daemon.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            config,
            port,
            armed: dir.join("fault"),
            log: dir.join("product.log"),
            child: None,
            since: Instant::now(),
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// The next one to reach this point dies there.
    pub fn arm(&self, point: &str) -> Result<()> {
        self.disarm();
        let new = self.armed.with_extension("new");
        std::fs::write(&new, point)?;
        Ok(std::fs::rename(new, &self.armed)?)
    }

    /// Whether the armed point was reached; nothing is armed afterwards.
    pub fn disarm(&self) -> bool {
        let _ = std::fs::remove_file(&self.armed);
        std::fs::remove_file(self.armed.with_extension("hit")).is_ok()
    }

    pub fn start(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(program()?)
            .arg("--config")
            .arg(&self.config)
            .args(["serve", "--http", &format!("127.0.0.1:{}", self.port)])
            .env("COUNTERSIGN_FAULT", format!("@{}", self.armed.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        self.since = Instant::now();
        Ok(())
    }

    /// Waits until it is gone; `Some(true)` = by SIGKILL, `Some(false)` = otherwise, `None` = it is still up.
    pub async fn gone(&mut self, patience: Duration) -> Result<Option<bool>> {
        let Some(child) = self.child.as_mut() else { return Ok(Some(false)) };
        let Ok(status) = tokio::time::timeout(patience, child.wait()).await else { return Ok(None) };
        self.child = None;
        Ok(Some(status?.signal() == Some(KILL)))
    }

    /// SIGKILL from outside.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }
}

/// An agent that outlives the daemon: it connects again whenever the connection is gone.
pub struct Caller {
    url: String,
    token: String,
    agent: Option<Agent>,
}

impl Caller {
    pub fn new(url: String, token: String) -> Self {
        Self { url, token, agent: None }
    }

    /// One call; an error means only that this try came to nothing.
    pub async fn call(&mut self, tool: &str, args: Value) -> Result<Value> {
        let tried = tokio::time::timeout(Duration::from_secs(20), self.attempt(tool, args)).await;
        let answer = tried.map_err(anyhow::Error::from).and_then(|a| a);
        if answer.is_err() {
            self.agent = None;
        }
        answer
    }

    async fn attempt(&mut self, tool: &str, args: Value) -> Result<Value> {
        let agent = match self.agent.take() {
            Some(agent) => agent,
            None => Agent::connect(&self.url, &self.token).await?,
        };
        Ok(self.agent.insert(agent).call(tool, args).await?)
    }
}
