//! Questions about commits.

use countersign_core::{Problem, Result};
use git2::{Commit, Oid, Repository, Sort};

use super::failure;
use super::read::{changed_paths, oid};

/// One commit. Message and author are untrusted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Id.
    pub id: String,
    /// Parents' ids.
    pub parents: Vec<String>,
    /// Whole message; bytes that are not UTF-8 are replaced.
    pub message: String,
    /// `Name <mail>` of the author.
    pub author: String,
    /// Committer time, seconds since the epoch.
    pub time: i64,
    /// Paths that differ from the first parent, sorted.
    pub changed: Vec<String>,
}

impl CommitInfo {
    /// Values of a trailer in the last paragraph of the message.
    pub fn trailers(&self, key: &str) -> Vec<String> {
        trailers(&self.message, key)
    }
}

/// Commits of a range, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRange {
    /// The commits.
    pub commits: Vec<CommitInfo>,
    /// More commits were there than asked for; the oldest are missing.
    pub truncated: bool,
}

const MAX_CHANGED: usize = 20_000;

fn info(repo: &Repository, commit: &Commit<'_>) -> Result<CommitInfo> {
    let fail = |e| failure::local("Reading a commit", &e);
    let parent_tree = match commit.parent_count() {
        0 => None,
        _ => Some(commit.parent(0).and_then(|p| p.tree()).map_err(fail)?.id()),
    };
    let author = commit.author();
    Ok(CommitInfo {
        id: commit.id().to_string(),
        parents: commit.parent_ids().map(|p| p.to_string()).collect(),
        message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
        author: format!(
            "{} <{}>",
            String::from_utf8_lossy(author.name_bytes()),
            String::from_utf8_lossy(author.email_bytes())
        ),
        time: commit.time().seconds(),
        changed: changed_paths(repo, parent_tree, Some(commit.tree_id()), MAX_CHANGED)?,
    })
}

pub(crate) fn commit_info(repo: &Repository, id: &str) -> Result<CommitInfo> {
    let commit = repo.find_commit(oid(id)?).map_err(|e| failure::local(&format!("Reading commit {id}"), &e))?;
    info(repo, &commit)
}

/// Whether `a` is `b` or an ancestor of it.
pub(crate) fn is_ancestor(repo: &Repository, a: &str, b: &str) -> Result<bool> {
    let (a, b) = (oid(a)?, oid(b)?);
    for id in [a, b] {
        repo.find_commit(id).map_err(|e| failure::local(&format!("Reading commit {id}"), &e))?;
    }
    Ok(a == b || repo.graph_descendant_of(b, a).map_err(|e| failure::local("Comparing commits", &e))?)
}

/// Commits reachable from `to` and not from `from`.
pub(crate) fn between(repo: &Repository, from: &str, to: &str, limit: usize) -> Result<CommitRange> {
    let fail = |e| failure::local("Walking commits", &e);
    let mut walk = repo.revwalk().map_err(fail)?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME).map_err(fail)?;
    walk.push(oid(to)?).map_err(fail)?;
    walk.hide(oid(from)?).map_err(fail)?;
    let mut commits = Vec::new();
    let mut truncated = false;
    for id in walk {
        if commits.len() >= limit {
            truncated = true;
            break;
        }
        let commit = id.and_then(|id| repo.find_commit(id)).map_err(fail)?;
        commits.push(info(repo, &commit)?);
    }
    commits.reverse();
    Ok(CommitRange { commits, truncated })
}

/// Newest commit from `tip` back, within `limit` commits, that carries this trailer.
pub(crate) fn by_trailer(
    repo: &Repository,
    tip: &str,
    key: &str,
    value: &str,
    limit: usize,
) -> Result<Option<CommitInfo>> {
    let fail = |e| failure::local("Walking commits", &e);
    let mut walk = repo.revwalk().map_err(fail)?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME).map_err(fail)?;
    walk.push(oid(tip)?).map_err(fail)?;
    for id in walk.take(limit) {
        let commit = id.and_then(|id| repo.find_commit(id)).map_err(fail)?;
        let message = String::from_utf8_lossy(commit.message_bytes());
        if trailers(&message, key).iter().any(|v| v == value) {
            return info(repo, &commit).map(Some);
        }
    }
    Ok(None)
}

pub(super) fn trailers(message: &str, key: &str) -> Vec<String> {
    let Ok(found) = git2::message_trailers_strs(message) else { return Vec::new() };
    found.iter().filter(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.trim().to_owned()).collect()
}

/// A commit that the mirror has.
pub(crate) fn must_have(repo: &Repository, id: &str) -> Result<Oid> {
    let id = oid(id)?;
    repo.find_commit(id).map(|c| c.id()).map_err(|_| {
        Problem::new(
            "git.object_missing",
            format!("Commit {id} is not in the mirror."),
            "Fetch the branch, then try again.",
        )
        .later()
    })
}
