//! Users, pull requests, comments and reviews.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Kind of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserKind {
    /// A person.
    #[default]
    User,
    /// A bot.
    Bot,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgeUser {
    /// Login.
    pub login: String,
    /// Numeric id; 0 = the next free one.
    #[serde(default)]
    pub id: u64,
    /// API token.
    pub token: String,
    /// Person or bot.
    #[serde(default)]
    pub kind: UserKind,
    /// May push and merge.
    #[serde(default)]
    pub can_write: bool,
}

impl ForgeUser {
    /// A person who may merge.
    #[must_use]
    pub fn person(login: &str, token: &str) -> Self {
        Self { login: login.into(), id: 0, token: token.into(), kind: UserKind::User, can_write: true }
    }

    /// A bot that may push and merge.
    #[must_use]
    pub fn bot(login: &str, token: &str) -> Self {
        Self { kind: UserKind::Bot, ..Self::person(login, token) }
    }
}

/// Open or closed; merged ones are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Open.
    Open,
    /// Closed or merged.
    Closed,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Number.
    pub number: u64,
    /// Login of who opened it.
    pub author: String,
    /// Title.
    pub title: String,
    /// Description.
    pub body: Option<String>,
    /// Branch with the change.
    pub head: String,
    /// Its commit, as last seen while open.
    pub head_sha: String,
    /// Branch that it goes to.
    pub base: String,
    /// Its commit, as last seen while open.
    pub base_sha: String,
    /// Open or closed.
    pub state: PullState,
    /// Draft.
    pub draft: bool,
    /// Login of who merged it, the commit, and when.
    pub merged: Option<Merged>,
    /// Opened at.
    pub created_at: DateTime<Utc>,
    /// Changed at.
    pub updated_at: DateTime<Utc>,
    /// Closed at.
    pub closed_at: Option<DateTime<Utc>>,
    /// Looks since head or base moved.
    #[serde(skip)]
    pub(crate) looks: u32,
    /// Somebody pushed to its base, and nobody has tried to merge it since.
    #[serde(skip)]
    pub(crate) unchecked: bool,
}

/// A merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// Login; absent when the commits arrived by a push.
    pub by: Option<String>,
    /// Commit on the base branch.
    pub commit: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Id.
    pub id: u64,
    /// Pull request.
    pub number: u64,
    /// Login.
    pub author: String,
    /// Text.
    pub body: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Verdict of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// Approves.
    Approved,
    /// Wants changes.
    ChangesRequested,
    /// Only says something.
    Commented,
    /// Was an approval, before a later push.
    Dismissed,
}

/// A review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Id.
    pub id: u64,
    /// Pull request.
    pub number: u64,
    /// Login.
    pub author: String,
    /// Verdict.
    pub verdict: Verdict,
    /// Text.
    pub body: String,
    /// Commit that was looked at.
    pub commit: String,
    /// When.
    pub submitted_at: DateTime<Utc>,
}

/// Protection of a branch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protection {
    /// Approvals needed before a merge.
    pub required_approvals: usize,
    /// A push to the pull request takes approvals back.
    pub dismiss_stale: bool,
}

/// Everything that one repository has.
#[derive(Debug, Default)]
pub(crate) struct Project {
    pub(crate) pulls: BTreeMap<u64, Pull>,
    pub(crate) comments: Vec<Comment>,
    pub(crate) reviews: Vec<Review>,
    pub(crate) protections: BTreeMap<String, Protection>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    users: BTreeMap<String, ForgeUser>,
    pub(crate) projects: BTreeMap<String, Project>,
    last_id: u64,
}

impl State {
    pub(crate) fn new(users: Vec<ForgeUser>) -> Self {
        let mut state = Self { last_id: 100, ..Self::default() };
        for user in users {
            state.add_user(user);
        }
        state
    }

    pub(crate) fn add_user(&mut self, mut user: ForgeUser) {
        if user.id == 0 {
            user.id = self.next_id();
        }
        self.users.insert(user.login.clone(), user);
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn by_token(&self, token: &str) -> Option<&ForgeUser> {
        self.users.values().find(|u| u.token == token)
    }

    pub(crate) fn by_login(&self, login: &str) -> Option<&ForgeUser> {
        self.users.get(login)
    }

    pub(crate) fn project(&mut self, repo: &str) -> &mut Project {
        self.projects.entry(repo.to_owned()).or_default()
    }
}
