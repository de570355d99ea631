//! What landed commits say of the journal, and what they hold, read offline from a mirror.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use countersign_core::model::SealedFile;
use countersign_core::{Problem, Result};
use git2::{Oid, Repository, Sort};

use super::history::trailers;
use super::objects::EntryKind;
use super::{read, remote};

/// Commits that are read at the most, newest first.
const LIMIT: usize = 20_000;

/// Commit ids with their `Countersign-Audit` trailer (`seq/hash`), from every ref of the mirror in
/// `dir`. No mirror: nothing. Only commits signed with `public_key` count: a trailer is text that
/// anybody who can push can write.
///
/// Errors: `git.mirror`.
pub fn audit_trailers(dir: &Path, public_key: &str) -> Result<Vec<(String, String)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let broken = |e: git2::Error| {
        Problem::new(
            "git.mirror",
            format!("A mirror cannot be read: {}.", e.message()),
            "Delete the mirror; it is made anew.",
        )
    };
    let Some(repo) = open(dir) else { return Ok(Vec::new()) };
    let mut walk = repo.revwalk().map_err(broken)?;
    walk.set_sorting(Sort::TIME).map_err(broken)?;
    walk.push_glob("refs/*").map_err(broken)?;
    let mut out = Vec::new();
    for id in walk.take(LIMIT).flatten() {
        let Ok(commit) = repo.find_commit(id) else { continue };
        if !signed_by(&repo, id, public_key) {
            continue;
        }
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        out.extend(trailers(&message, "Countersign-Audit").into_iter().map(|text| (id.to_string(), text)));
    }
    Ok(out)
}

fn signed_by(repo: &Repository, id: git2::Oid, public_key: &str) -> bool {
    let Ok((signature, content)) = repo.extract_signature(&id, None) else { return false };
    let Ok(signature) = std::str::from_utf8(&signature) else { return false };
    super::verify(super::NAMESPACE_GIT, &content, signature, &[public_key]).is_ok()
}

/// A mirror, asked offline what landed.
pub struct LandedIn {
    repo: Repository,
    /// Commits of the branches asked about so far, as last fetched; `None` = never fetched.
    branches: BTreeMap<String, Option<HashSet<Oid>>>,
}

/// What a mirror says of one landed commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    /// The commit is on the branch and holds every file as it was sealed.
    AsSealed,
    /// It holds these otherwise.
    Otherwise(Vec<Difference>),
    /// The mirror cannot say; why.
    NotSeen(String),
}

/// One file that is not as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path from the repository's root.
    pub path: String,
    /// What should be there, in words.
    pub sealed: String,
    /// What is there, in words.
    pub found: String,
}

impl LandedIn {
    /// The mirror in `dir`; `None` = there is none.
    pub fn open(dir: &Path) -> Option<Self> {
        Some(Self { repo: open(dir)?, branches: BTreeMap::new() })
    }

    /// Compares sealed files with `commit`, which should be on `git_ref`. Other paths are not looked at: a merge may
    /// bring files of others. Objects are named by their content, so the ids of trees and blobs suffice.
    pub fn look(&mut self, git_ref: &str, commit: &str, files: &[SealedFile]) -> Landed {
        let id = match read::oid(commit) {
            Ok(id) => id,
            Err(problem) => return Landed::NotSeen(problem.message),
        };
        match self.differences(commit, files) {
            Err(problem) => Landed::NotSeen(problem.message),
            Ok(found) if !found.is_empty() => Landed::Otherwise(found),
            Ok(_) if self.is_on(git_ref, id) => Landed::AsSealed,
            Ok(_) => Landed::NotSeen(format!(
                "It is not on {} as last fetched: the branch was rewritten, or not fetched since.",
                git_ref.escape_debug()
            )),
        }
    }

    fn differences(&self, commit: &str, files: &[SealedFile]) -> Result<Vec<Difference>> {
        let root = read::root(&self.repo, commit)?;
        let mut out = Vec::new();
        for f in files {
            let found = match read::find(&self.repo, &root, &f.path) {
                Ok(found) => found.map(|found| (found.kind, found.id.to_string())),
                // A link on the way: nothing of this tree stands at that path.
                Err(problem) if matches!(problem.code.as_ref(), "git.symlink" | "git.submodule") => None,
                Err(problem) => return Err(problem),
            };
            let same = match (&f.after, &found) {
                (None, None) => true,
                (Some(blob), Some((EntryKind::File | EntryKind::Executable, id))) => blob == id,
                _ => false,
            };
            if !same {
                out.push(Difference {
                    path: f.path.clone(),
                    sealed: f.after.as_ref().map_or_else(|| "nothing".to_owned(), |blob| format!("blob {blob}")),
                    found: found.map_or_else(|| "nothing".to_owned(), |(kind, id)| format!("{} {id}", word(kind))),
                });
            }
        }
        Ok(out)
    }

    fn is_on(&mut self, git_ref: &str, id: Oid) -> bool {
        let commits = self.branches.entry(git_ref.to_owned()).or_insert_with(|| commits_of(&self.repo, git_ref));
        commits.as_ref().is_some_and(|all| all.contains(&id))
    }
}

fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File | EntryKind::Executable => "blob",
        EntryKind::Symlink => "symbolic link",
        EntryKind::Submodule => "submodule",
        EntryKind::Folder => "folder",
    }
}

/// Every commit of a branch as last fetched; what cannot be walked is not on it.
fn commits_of(repo: &Repository, git_ref: &str) -> Option<HashSet<Oid>> {
    let tip = repo.refname_to_id(&remote::tracking(git_ref)).ok()?;
    let mut walk = repo.revwalk().ok()?;
    walk.push(tip).ok()?;
    Some(walk.map_while(std::result::Result::ok).collect())
}

/// The mirror in this folder, or in the one folder below it.
fn open(dir: &Path) -> Option<Repository> {
    Repository::open_bare(dir)
        .ok()
        .or_else(|| std::fs::read_dir(dir).ok()?.flatten().find_map(|e| Repository::open_bare(e.path()).ok()))
}
