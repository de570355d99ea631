//! Git over smart HTTP on loopback: real bare repositories, served by the real `git http-backend`.
//!
//! Protected branches are refused by a real `pre-receive` hook, and what was pushed is reported by the hooks
//! too, so the log holds what Git did, not what a client claims. Tokens are passwords of basic auth, as at the
//! forges. Foreign commits, rewound branches and lost push races can be set off.

mod control;
mod http;
mod repos;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::clock::Clock;
use super::host::{Fault, Guard, Host, HostOptions, lock};

pub use repos::{Author, CommitInfo, FileChange, Repos};

/// Somebody with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitUser {
    /// Login.
    pub login: String,
    /// Password of basic auth, whatever the user name given there.
    pub token: String,
    /// May push.
    pub can_write: bool,
}

/// How the server is started.
#[derive(Debug, Clone, Default)]
pub struct GitOptions {
    /// Directory of the repositories; absent = a temporary one that goes with the server.
    pub root: Option<PathBuf>,
    /// Users.
    pub users: Vec<GitUser>,
    /// Reading needs no token.
    pub anonymous_read: bool,
    /// Port; 0 = any.
    pub port: u16,
    /// JSON-lines log.
    pub log: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
}

/// A foreign commit that lands between a client's look and its push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Race {
    /// `owner/name`.
    pub repo: String,
    /// Branch.
    pub branch: String,
    /// File that the foreign commit writes.
    pub path: String,
    /// Its content.
    pub content: String,
}

pub(crate) struct Shared {
    host: Arc<Host>,
    repos: Repos,
    users: Mutex<BTreeMap<String, GitUser>>,
    anonymous_read: bool,
    races: Mutex<Vec<Race>>,
    _temporary: Option<tempfile::TempDir>,
}

/// A running Git server. Clones share it; the last one dropped stops it.
#[derive(Clone)]
pub struct GitServer {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl std::fmt::Debug for GitServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitServer").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// Starts the server.
///
/// # Errors
/// The port is taken, or the directory or the log cannot be written.
pub async fn start(options: GitOptions) -> std::io::Result<GitServer> {
    let temporary = if options.root.is_none() { Some(tempfile::tempdir()?) } else { None };
    let root = match (&options.root, &temporary) {
        (Some(root), _) => root.clone(),
        (None, Some(dir)) => dir.path().to_path_buf(),
        (None, None) => return Err(std::io::ErrorKind::NotFound.into()),
    };
    let repos = Repos::open(root, options.clock.clone())?;
    let host_options = HostOptions { port: options.port, log: options.log, clock: options.clock };
    let (host, sockets) = Host::bind("git", host_options).await?;
    let users = options.users.into_iter().map(|u| (u.token.clone(), u)).collect();
    let shared = Arc::new(Shared {
        host: host.clone(),
        repos,
        users: Mutex::new(users),
        anonymous_read: options.anonymous_read,
        races: Mutex::new(Vec::new()),
        _temporary: temporary,
    });
    host.serve(sockets, http::router(shared.clone()), control::router(shared.clone()));
    Ok(GitServer { shared, _guard: Arc::new(Guard(host)) })
}

impl GitServer {
    /// Base address.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.host.url()
    }

    /// Control API that stays up during outages.
    #[must_use]
    pub fn control_url(&self) -> String {
        self.shared.host.control_url()
    }

    /// Address of a repository (`owner/name`), without credentials.
    #[must_use]
    pub fn repo_url(&self, name: &str) -> String {
        format!("{}/{name}.git", self.url())
    }

    /// The repositories themselves, past protocol and hooks.
    #[must_use]
    pub fn repos(&self) -> &Repos {
        &self.shared.repos
    }

    /// Adds a user.
    pub fn add_user(&self, user: GitUser) {
        lock(&self.shared.users).insert(user.token.clone(), user);
    }

    /// Commits one file as another person, at once.
    ///
    /// # Errors
    /// No such repository or branch.
    pub fn commit_file(
        &self,
        repo: &str,
        branch: &str,
        path: &str,
        content: &[u8],
        author: &Author,
    ) -> Result<String, git2::Error> {
        self.shared.commit_file(repo, branch, path, content, author)
    }

    /// Lets a foreign commit land right before the next push to the repository is applied.
    pub fn race(&self, race: Race) {
        lock(&self.shared.races).push(race);
    }

    /// Refuses connections until [`GitServer::up`].
    pub async fn down(&self) {
        self.shared.host.down().await;
    }

    /// Ends outages and faults.
    pub async fn up(&self) {
        self.shared.host.up().await;
    }

    /// Adds a fault (`matching: "git-receive-pack"` strikes pushes only).
    pub fn fault(&self, fault: Fault) {
        self.shared.host.fault(fault);
    }

    /// Every call and push so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.shared.host.log_lines()
    }

    /// Accepted and refused ref updates so far: `{repo, ref, old, new, user, outcome}`.
    #[must_use]
    pub fn pushes(&self) -> Vec<Value> {
        self.log().into_iter().filter(|l| l.get("what") == Some(&json!("push"))).collect()
    }

    /// Stops the server.
    pub async fn stop(self) {
        self.shared.host.stop().await;
    }
}

impl Shared {
    pub(crate) fn commit_file(
        &self,
        repo: &str,
        branch: &str,
        path: &str,
        content: &[u8],
        author: &Author,
    ) -> Result<String, git2::Error> {
        let message = format!("chore: update {path}\n");
        let id = self.repos.commit(repo, branch, &[FileChange::write(path, content)], author, &message)?;
        self.host.log(
            "foreign_commit",
            json!({"repo": repo, "branch": branch, "path": path, "commit": id, "author": author.name}),
        );
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
