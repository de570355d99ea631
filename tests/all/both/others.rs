//! What people use today on the same commits: `argocd app wait --sync --health` and `kubectl wait`, started as a
//! script does that has just pushed. Only on the lab, and only where a table is asked for: each costs a process.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use super::apps::App;
use super::place::Place;
use super::truth::landed_in;
use crate::lab::Lab;

/// The tools of the table, in the order of its columns.
pub const TOOLS: [&str; 2] = ["`argocd app wait`", "`kubectl wait`"];
/// Longest wait of a tool, as it is told.
const PATIENCE_S: u64 = 120;

/// Argo CD's API server, once for all: its command line needs one.
static SERVER: OnceCell<(Lab, String)> = OnceCell::const_new();

/// What a tool said of a commit.
#[derive(Debug, Clone)]
pub struct Said {
    pub commit: String,
    /// Place in [`TOOLS`].
    pub tool: usize,
    /// Milliseconds since the epoch; `None`: it gave up.
    pub healthy: Option<i64>,
}

/// What all tools said so far.
pub type Words = Arc<Mutex<Vec<Said>>>;

/// Argo CD's API server beside the lab, for its own command line, without logins: loopback alone. Its address.
async fn server() -> Result<(Lab, String), String> {
    let words = |p: countersign_core::Problem| p.to_string();
    let lab = Lab::attach_or_start().await.map_err(words)?;
    let program = lab.dir().join("path/argocd-server");
    if !program.exists() {
        // One program has all servers; its name says which.
        std::os::unix::fs::symlink(lab.programs().join("argocd"), &program).map_err(|e| e.to_string())?;
    }
    let address = format!("127.0.0.1:{}", lab.port("spare-1"));
    let args = format!(
        "--kubeconfig {} --insecure --disable-auth --address 127.0.0.1 --port {} --metrics-port {} \
         --redis 127.0.0.1:{} --repo-server 127.0.0.1:{} --repo-server-plaintext --namespace argocd --loglevel warn",
        lab.admin_kubeconfig().display(),
        lab.port("spare-1"),
        lab.port("spare-2"),
        lab.port("redis"),
        lab.port("argocd-repo-server"),
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let url = format!("http://{address}/healthz");
    lab.start_beside("argocd-server", &program, &args, &url).await.map_err(words)?;
    Ok((lab, address))
}

/// The command of a tool for an application, if it knows the engine.
fn command(lab: &Lab, server: &str, tool: usize, app: &App) -> Option<Command> {
    let (kind, namespace, name) = &app.owner;
    let application = kind == "Application";
    let mut command = if tool == 0 {
        if !application {
            return None;
        }
        let mut c = Command::new(lab.programs().join("argocd"));
        c.args(["app", "wait", name, "--sync", "--health", "--timeout", &PATIENCE_S.to_string()]);
        c.args(["--server", server, "--plaintext", "--auth-token", "none"]);
        c
    } else {
        let mut c = Command::new(lab.programs().join("kubectl"));
        let healthy =
            if application { "--for=jsonpath={.status.health.status}=Healthy" } else { "--for=condition=Ready" };
        c.args(["wait", &format!("{kind}/{name}"), "-n", namespace, healthy, &format!("--timeout={PATIENCE_S}s")]);
        c.arg("--kubeconfig").arg(lab.admin_kubeconfig());
        c
    };
    command.env("HOME", lab.dir().join("home")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true);
    Some(command)
}

/// Runs the tools on every commit that lands in the journal, until it is dropped with its runtime.
async fn beside(journal: PathBuf, app: App, words: Words) {
    let Ok((lab, server)) = SERVER.get_or_try_init(server).await else { return };
    let mut known: Vec<String> = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    loop {
        for commit in landed_in(&journal).await {
            if known.contains(&commit) {
                continue;
            }
            known.push(commit.clone());
            for tool in 0..TOOLS.len() {
                let Some(mut command) = command(lab, server, tool, &app) else { continue };
                let (commit, words) = (commit.clone(), words.clone());
                running.spawn(async move {
                    let good = command.status().await.is_ok_and(|s| s.success());
                    let healthy = good.then(|| chrono::Utc::now().timestamp_millis());
                    words.lock().unwrap_or_else(PoisonError::into_inner).push(Said { commit, tool, healthy });
                });
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Place {
    /// Starts the tools for this application, where they are asked for.
    pub fn with_others(&self, app: &App) {
        let wanted = self.backend.name() == "lab" && std::env::var_os("COUNTERSIGN_TRUTH").is_some();
        if wanted {
            let mut task = self.others.task.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = tokio::spawn(beside(self.journal(), app.clone(), self.others.words.clone()));
            if let Some(before) = task.replace(begun.abort_handle()) {
                before.abort();
            }
        }
    }

    /// What the tools have said of a commit by now.
    pub fn others_on(&self, commit: &str) -> Vec<Said> {
        let words = self.others.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().filter(|s| s.commit == commit).cloned().collect()
    }
}

/// The tools of a place.
#[derive(Default)]
pub struct Others {
    words: Words,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Drop for Others {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}
