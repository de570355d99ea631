//! Commits built on the bare mirror: only the touched folders are read and written.

use std::collections::BTreeSet;

use countersign_core::{Problem, Result};
use git2::build::TreeUpdateBuilder;
use git2::{FileMode, Oid, Repository, Signature, Time, Tree};

use super::objects::EntryKind;
use super::path::check_path;
use super::read::{changed_paths, find, oid};
use super::sign::{NAMESPACE_GIT, SshSigner};
use super::{blob_id, failure};

/// A file after the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Path from the root.
    pub path: String,
    /// `100644` or `100755`; ignored where the file goes.
    pub mode: String,
    /// Content; `None` = the file goes.
    pub bytes: Option<Vec<u8>>,
}

/// Name and address in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: String,
}

/// Everything that a commit is made of. The same request gives the same id.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Parent.
    pub base: String,
    /// Files; at least one must differ from the base.
    pub files: Vec<FileChange>,
    /// Author.
    pub author: Identity,
    /// Committer.
    pub committer: Identity,
    /// Seconds since the epoch, for both; shown as UTC.
    pub timestamp: i64,
    /// Whole message with trailers.
    pub message: String,
}

/// Builds, proves and writes the commit; gives its id.
pub(crate) fn build(repo: &Repository, request: &CommitRequest, signer: Option<&SshSigner>) -> Result<String> {
    let fail = |e| failure::local("Building the commit", &e);
    let parent = repo
        .find_commit(oid(&request.base)?)
        .map_err(|e| failure::local(&format!("Reading the base {}", request.base), &e))?;
    let base = parent.tree().map_err(fail)?;
    let tree_id = build_tree(repo, &base, &request.files)?;
    prove(repo, &base, tree_id, &request.files)?;
    let tree = repo.find_tree(tree_id).map_err(fail)?;
    let (author, committer) =
        (signature(&request.author, request.timestamp)?, signature(&request.committer, request.timestamp)?);
    let message = message(&request.message)?;
    let Some(signer) = signer else {
        return repo
            .commit(None, &author, &committer, &message, &tree, &[&parent])
            .map(|id| id.to_string())
            .map_err(fail);
    };
    let buffer = repo.commit_create_buffer(&author, &committer, &message, &tree, &[&parent]).map_err(fail)?;
    let text = std::str::from_utf8(&buffer).map_err(|_| {
        Problem::new("git.message", "The commit is not UTF-8.", "Use UTF-8 names and messages.").never()
    })?;
    let armored = signer.sign(NAMESPACE_GIT, text.as_bytes())?;
    repo.commit_signed(text, armored.trim_end(), Some("gpgsig")).map(|id| id.to_string()).map_err(fail)
}

fn build_tree(repo: &Repository, base: &Tree<'_>, files: &[FileChange]) -> Result<Oid> {
    let fail = |e| failure::local("Building the tree", &e);
    let mut seen = BTreeSet::new();
    let mut update = TreeUpdateBuilder::new();
    for file in files {
        check_path(&file.path)?;
        if !seen.insert(file.path.as_str()) {
            return Err(conflict(&file.path, "is named twice"));
        }
        check_place(repo, base, file)?;
        match &file.bytes {
            None => {
                update.remove(file.path.as_str());
            }
            Some(bytes) => {
                let id = repo.blob(bytes).map_err(fail)?;
                update.upsert(file.path.as_str(), id, mode(file)?);
            }
        }
    }
    update.create_updated(repo, base).map_err(fail)
}

fn mode(file: &FileChange) -> Result<FileMode> {
    match file.mode.as_str() {
        "100644" => Ok(FileMode::Blob),
        "100755" => Ok(FileMode::BlobExecutable),
        other => Err(Problem::new(
            "git.mode",
            format!("Mode `{}` is not that of an ordinary file.", other.escape_debug()),
            "Use 100644 or 100755.",
        )
        .never()),
    }
}

fn conflict(path: &str, why: &str) -> Problem {
    Problem::new("git.path", format!("`{path}` {why}."), "Name each file once, by its real path.").never()
}

/// What stands at the path now must be an ordinary file or nothing, reached through real folders,
/// and a new name must not differ from an existing one by case alone.
fn check_place(repo: &Repository, base: &Tree<'_>, file: &FileChange) -> Result<()> {
    let path = &file.path;
    match find(repo, base, path)? {
        Some(f) => match f.kind {
            EntryKind::File | EntryKind::Executable => Ok(()),
            EntryKind::Folder => Err(conflict(path, "is a folder")),
            EntryKind::Symlink => Err(Problem::new(
                "git.symlink",
                format!("`{path}` is a symbolic link, which is not edited."),
                "Name the real file.",
            )
            .never()),
            EntryKind::Submodule => Err(Problem::new(
                "git.submodule",
                format!("`{path}` is a submodule, which is not edited."),
                "Change the other repository.",
            )
            .never()),
        },
        None if file.bytes.is_none() => Err(conflict(path, "is to be removed, but does not exist")),
        None => check_new(repo, base, path),
    }
}

fn check_new(repo: &Repository, base: &Tree<'_>, path: &str) -> Result<()> {
    let mut folder = String::new();
    for part in path.split('/') {
        let Some(here) = find(repo, base, &folder)? else { return Ok(()) };
        if here.kind != EntryKind::Folder {
            return Err(conflict(&folder, "is a file, so nothing can stand below it"));
        }
        let tree = repo.find_tree(here.id).map_err(|e| failure::local("Reading a folder", &e))?;
        if tree.get_name(part).is_none() {
            let lower = part.to_lowercase();
            if let Some(twin) =
                tree.iter().filter_map(|e| e.name().ok().map(str::to_owned)).find(|n| n.to_lowercase() == lower)
            {
                return Err(conflict(
                    path,
                    &format!("differs from the existing `{}` by case alone", twin.escape_debug()),
                ));
            }
        }
        if !folder.is_empty() {
            folder.push('/');
        }
        folder.push_str(part);
    }
    Ok(())
}

/// The new tree differs from the base in exactly the files asked for, and holds exactly their bytes.
fn prove(repo: &Repository, base: &Tree<'_>, tree: Oid, files: &[FileChange]) -> Result<()> {
    let changed = changed_paths(repo, Some(base.id()), Some(tree), files.len() + 1)?;
    if changed.is_empty() {
        return Err(Problem::new(
            "git.empty",
            "The commit would change nothing.",
            "Ask for a change that the base does not have yet.",
        ));
    }
    let asked: BTreeSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
    let broken = || {
        Problem::new("git.proof", "The tree that was built is not the one that was asked for.", "Report this as a bug.")
            .never()
    };
    if changed.iter().any(|p| !asked.contains(p.as_str())) {
        return Err(broken().with_all(changed));
    }
    let tree = repo.find_tree(tree).map_err(|e| failure::local("Reading the tree", &e))?;
    for file in files {
        let stands = find(repo, &tree, &file.path)?.map(|f| (f.kind.mode(), f.id.to_string()));
        let wanted = file.bytes.as_ref().map(|b| (file.mode.as_str(), blob_id(b)));
        if stands != wanted {
            return Err(broken().with(file.path.clone()));
        }
    }
    Ok(())
}

fn signature(who: &Identity, timestamp: i64) -> Result<Signature<'static>> {
    let odd = who.name.chars().chain(who.email.chars()).any(|c| c.is_control() || matches!(c, '<' | '>'));
    let made = if odd { None } else { Signature::new(&who.name, &who.email, &Time::new(timestamp, 0)).ok() };
    made.ok_or_else(|| {
        Problem::new(
            "git.identity",
            "The author's or committer's name or address cannot stand in a commit.",
            "Use a plain name and address.",
        )
        .never()
    })
}

fn message(text: &str) -> Result<String> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err(
            Problem::new("git.message", "The commit message is empty or holds a NUL.", "Give a message.").never()
        );
    }
    Ok(format!("{}\n", text.trim_end()))
}
