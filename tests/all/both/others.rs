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

/// A login at Argo CD's API server, once for all, as people have one.
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

/// Logs `argocd` in. The address of the server.
async fn login() -> Result<(Lab, String), String> {
    let words = |p: countersign_core::Problem| p.to_string();
    let lab = Lab::attach_or_start().await.map_err(words)?;
    let (server, password) = lab.argocd_login().await.map_err(words)?;
    let mut command = Command::new(lab.programs().join("argocd"));
    command.args(["login", &server, "--plaintext", "--username", "admin", "--password", &password]);
    command.env("HOME", lab.dir().join("home")).stdin(Stdio::null());
    let out = command.output().await.map_err(|e| e.to_string())?;
    if out.status.success() { Ok((lab, server)) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
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
        c.args(["--server", server, "--plaintext"]);
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
    let (lab, server) = match SERVER.get_or_try_init(login).await {
        Ok(login) => login,
        // An empty column would read as if the tool had said nothing.
        Err(words) => return eprintln!("argocd login: {words}"),
    };
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
