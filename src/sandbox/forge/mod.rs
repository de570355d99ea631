//! A forge on loopback: pull requests over the real repositories of the sandbox's Git server, through the parts
//! of GitHub's REST API (`/` and `/api/v3`) and of Gitea's (`/api/v1`) that a delivery needs.
//!
//! Merges are performed with libgit2 on the bare repository (merge commit, squash, rebase, fast forward), so
//! the Git server shows them at once. Shapes are complete enough for octocrab and `@octokit/rest`, and are
//! checked against GitHub's OpenAPI description. A pull request whose commits reach its base by a push becomes
//! merged, one whose branch is deleted becomes closed, as at GitHub.

mod control;
mod gitea;
mod gitea_shape;
mod github;
mod github_shape;
mod merge;
mod pages;
mod pulls;
mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::clock::Clock;
use super::git::Repos;
use super::host::{Fault, Guard, Host, HostOptions, lock};

pub use merge::Method;
pub use pulls::{MergeAsk, NewPull, Refused};
use state::State;
pub use state::{Comment, ForgeUser, Protection, Pull, PullState, Review, UserKind, Verdict};

/// How the forge is started.
#[derive(Debug)]
pub struct ForgeOptions {
    /// The repositories, shared with the Git server.
    pub repos: Repos,
    /// Base address of the Git server, for clone addresses.
    pub git_url: String,
    /// Users.
    pub users: Vec<ForgeUser>,
    /// Port; 0 = any.
    pub port: u16,
    /// JSON-lines log.
    pub log: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
    /// How many looks at a pull request answer `mergeable: null` after its head or base moved; GitHub computes
    /// it in the background.
    pub slow_mergeable: u32,
    /// How long after a merge nothing else is merged to the same branch: Gitea works out anew then what can be,
    /// and says "Please try again later" meanwhile. Real time.
    pub recheck: std::time::Duration,
}

impl ForgeOptions {
    /// A forge over these repositories.
    #[must_use]
    pub fn new(repos: Repos, git_url: String, users: Vec<ForgeUser>) -> Self {
        Self {
            repos,
            git_url,
            users,
            port: 0,
            log: None,
            clock: Clock::new(),
            slow_mergeable: 0,
            recheck: std::time::Duration::ZERO,
        }
    }
}

pub(crate) struct Shared {
    host: Arc<Host>,
    repos: Repos,
    git_url: String,
    slow_mergeable: u32,
    recheck: std::time::Duration,
    /// When each branch was last merged to.
    merged_to: std::sync::Mutex<std::collections::HashMap<(String, String), std::time::Instant>>,
    state: Mutex<State>,
}

/// A running forge. Clones share it; the last one dropped stops it.
#[derive(Clone)]
pub struct Forge {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl std::fmt::Debug for Forge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forge").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// Starts the forge.
///
/// # Errors
/// The port is taken or the log cannot be opened.
pub async fn start(options: ForgeOptions) -> std::io::Result<Forge> {
    let host_options = HostOptions { port: options.port, log: options.log, clock: options.clock };
    let (host, sockets) = Host::bind("forge", host_options).await?;
    let shared = Arc::new(Shared {
        host: host.clone(),
        repos: options.repos,
        git_url: options.git_url,
        slow_mergeable: options.slow_mergeable,
        recheck: options.recheck,
        merged_to: std::sync::Mutex::default(),
        state: Mutex::new(State::new(options.users)),
    });
    let api = axum::Router::new()
        .nest("/api/v1", gitea::router(shared.clone()))
        .nest("/api/v3", github::router(shared.clone()))
        .merge(github::router(shared.clone()))
        .merge(pages::router(shared.clone()));
    host.serve(sockets, api, control::router(shared.clone()));
    Ok(Forge { shared, _guard: Arc::new(Guard(host)) })
}

impl Forge {
    /// Base address of GitHub's API.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.host.url()
    }

    /// Base address of Gitea's API.
    #[must_use]
    pub fn gitea_url(&self) -> String {
        format!("{}/api/v1", self.url())
    }

    /// Control API that stays up during outages.
    #[must_use]
    pub fn control_url(&self) -> String {
        self.shared.host.control_url()
    }

    /// Adds a user.
    pub fn add_user(&self, user: ForgeUser) {
        lock(&self.shared.state).add_user(user);
    }

    /// All pull requests of a repository, oldest first.
    #[must_use]
    pub fn pulls(&self, repo: &str) -> Vec<Pull> {
        self.shared.pulls(repo)
    }

    /// One pull request.
    #[must_use]
    pub fn pull(&self, repo: &str, number: u64) -> Option<Pull> {
        self.pulls(repo).into_iter().find(|p| p.number == number)
    }

    /// Comments on a pull request.
    #[must_use]
    pub fn comments(&self, repo: &str, number: u64) -> Vec<Comment> {
        self.shared.comments(repo, number)
    }

    /// Merges as a user, in the forge's own pages; returns the commit on the base branch.
    ///
    /// # Errors
    /// As the API refuses it.
    pub fn merge(&self, repo: &str, number: u64, login: &str, method: Method) -> Result<String, Refused> {
        let user = self.shared.user_named(login)?;
        self.shared.merge_pull(repo, number, &user, &MergeAsk { method, ..MergeAsk::default() })
    }

    /// Closes without merging, as a user.
    ///
    /// # Errors
    /// No such user or pull request.
    pub fn close(&self, repo: &str, number: u64, login: &str) -> Result<(), Refused> {
        let user = self.shared.user_named(login)?;
        self.shared.set_state(repo, number, &user, PullState::Closed).map(drop)
    }

    /// Opens a closed one again, as a user.
    ///
    /// # Errors
    /// It is merged or its branch is gone.
    pub fn reopen(&self, repo: &str, number: u64, login: &str) -> Result<(), Refused> {
        let user = self.shared.user_named(login)?;
        self.shared.set_state(repo, number, &user, PullState::Open).map(drop)
    }

    /// Reviews as a user.
    ///
    /// # Errors
    /// One's own pull request cannot be approved.
    pub fn review(&self, repo: &str, number: u64, login: &str, verdict: Verdict, body: &str) -> Result<(), Refused> {
        let user = self.shared.user_named(login)?;
        self.shared.review(repo, number, &user, verdict, body).map(drop)
    }

    /// Comments as a user.
    ///
    /// # Errors
    /// No such user or pull request.
    pub fn comment(&self, repo: &str, number: u64, login: &str, body: &str) -> Result<(), Refused> {
        let user = self.shared.user_named(login)?;
        self.shared.comment(repo, number, &user, body).map(drop)
    }

    /// Protects a branch: no direct pushes, and so many approvals before a merge. `None` lifts it.
    ///
    /// # Errors
    /// No such repository.
    pub fn protect(&self, repo: &str, branch: &str, protection: Option<Protection>) -> Result<(), Refused> {
        self.shared.protect(repo, branch, protection)
    }

    /// Lets the next `times` calls fail as GitHub's secondary rate limit does.
    pub fn rate_limit(&self, times: u32, retry_after_s: u64) {
        let body = json!({
            "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits",
        });
        let headers = [("retry-after".to_owned(), retry_after_s.to_string())].into();
        let mishap = super::host::Mishap::Error { status: 403, body, headers };
        self.fault(Fault { matching: None, times: Some(times), mishap });
    }

    /// Refuses connections until [`Forge::up`].
    pub async fn down(&self) {
        self.shared.host.down().await;
    }

    /// Ends outages and faults.
    pub async fn up(&self) {
        self.shared.host.up().await;
    }

    /// Adds a fault (`matching: "PUT "` strikes merges only).
    pub fn fault(&self, fault: Fault) {
        self.shared.host.fault(fault);
    }

    /// Every call and effect so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.shared.host.log_lines()
    }

    /// Stops the forge.
    pub async fn stop(self) {
        self.shared.host.stop().await;
    }
}

#[cfg(test)]
mod tests;
