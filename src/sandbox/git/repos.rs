//! The bare repositories behind the Git server and the forge: made, changed and looked at with libgit2.

use std::fs;
use std::path::{Path, PathBuf};

use git2::build::TreeUpdateBuilder;
use git2::{ErrorCode, FileMode, Oid, Repository, RepositoryInitOptions, Signature, Sort, Time};
use serde::{Deserialize, Serialize};

use crate::sandbox::clock::Clock;

/// Refs that only the forge may move, one full name a line; read by the `pre-receive` hook.
const PROTECTED: &str = "sandbox-protected";

/// Refuses pushes to protected refs, all or nothing, and reports what was asked.
const PRE_RECEIVE: &str = r#"#!/bin/sh
refused=0
while read -r old new ref; do
  echo "asked $old $new $ref" >> "${SANDBOX_PUSH_FILE:-/dev/null}"
  if [ -f sandbox-protected ] && grep -qxF -e "$ref" sandbox-protected; then
    echo "error: GH006: Protected branch update failed for $ref." >&2
    echo "error: Changes must be made through a pull request." >&2
    refused=1
  fi
done
[ "$refused" = 1 ] && echo "refused" >> "${SANDBOX_PUSH_FILE:-/dev/null}"
exit "$refused"
"#;

/// Reports what was really updated.
const POST_RECEIVE: &str = r#"#!/bin/sh
while read -r old new ref; do
  echo "done $old $new $ref" >> "${SANDBOX_PUSH_FILE:-/dev/null}"
done
"#;

/// Who wrote a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
}

impl Author {
    /// An author.
    #[must_use]
    pub fn new(name: &str, email: &str) -> Self {
        Self { name: name.into(), email: email.into() }
    }
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Path.
    pub path: String,
    /// New bytes; absent = deleted. For a symbolic link the target.
    pub content: Option<Vec<u8>>,
    /// Git's mode, for example `0o100644` or `0o120000`.
    pub mode: i32,
}

impl FileChange {
    /// Writes a plain file.
    #[must_use]
    pub fn write(path: &str, content: &[u8]) -> Self {
        Self { path: path.into(), content: Some(content.to_vec()), mode: 0o100_644 }
    }

    /// Deletes a file.
    #[must_use]
    pub fn delete(path: &str) -> Self {
        Self { path: path.into(), content: None, mode: 0o100_644 }
    }
}

/// A commit as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitInfo {
    /// Id.
    pub id: String,
    /// Parents.
    pub parents: Vec<String>,
    /// Tree.
    pub tree: String,
    /// Author's name and address.
    pub author: Author,
    /// Committer's name and address.
    pub committer: Author,
    /// Message.
    pub message: String,
    /// Unix seconds of the author.
    pub authored: i64,
    /// Unix seconds of the committer.
    pub committed: i64,
    /// Has a signature.
    pub signed: bool,
}

/// A directory of bare repositories, `<root>/<owner>/<name>.git`.
#[derive(Debug, Clone)]
pub struct Repos {
    root: PathBuf,
    clock: Clock,
}

fn io(e: &std::io::Error) -> git2::Error {
    git2::Error::from_str(&e.to_string())
}

impl Repos {
    /// Uses (and creates) the directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(root: PathBuf, clock: Clock) -> std::io::Result<Self> {
        let hooks = root.join(".hooks");
        fs::create_dir_all(&hooks)?;
        for (name, script) in [("pre-receive", PRE_RECEIVE), ("post-receive", POST_RECEIVE)] {
            let path = hooks.join(name);
            fs::write(&path, script)?;
            executable(&path)?;
        }
        Ok(Self { root: root.canonicalize()?, clock })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one repository; names are `owner/name` of plain characters.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.git"))
    }

    /// All repositories, as `owner/name`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for owner in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let owner_name = owner.file_name().to_string_lossy().into_owned();
            for repo in fs::read_dir(owner.path()).into_iter().flatten().flatten() {
                let file = repo.file_name().to_string_lossy().into_owned();
                if let Some(name) = file.strip_suffix(".git").filter(|_| !owner_name.starts_with('.')) {
                    names.push(format!("{owner_name}/{name}"));
                }
            }
        }
        names.sort();
        names
    }

    /// Creates a repository with a first commit on `branch` and returns the commit.
    ///
    /// # Errors
    /// It exists, or a path is not acceptable to Git.
    pub fn create(
        &self,
        name: &str,
        branch: &str,
        files: &[FileChange],
        author: &Author,
    ) -> Result<String, git2::Error> {
        let mut options = RepositoryInitOptions::new();
        options.bare(true).no_reinit(true).mkpath(true).external_template(false).initial_head(branch);
        let repo = Repository::init_opts(self.path(name), &options)?;
        let hooks = self.root.join(".hooks");
        repo.config()?.set_str("core.hooksPath", &hooks.to_string_lossy())?;
        repo.config()?.set_bool("http.receivepack", true)?;
        repo.config()?.set_bool("uploadpack.allowFilter", true)?;
        repo.config()?.set_bool("uploadpack.allowAnySHA1InWant", true)?;
        self.commit(name, branch, files, author, "chore: first commit\n")
    }

    /// The repository itself.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn repository(&self, name: &str) -> Result<Repository, git2::Error> {
        Repository::open_bare(self.path(name))
    }

    /// Commits on a branch (which is created when it does not exist and the repository is empty).
    ///
    /// # Errors
    /// No such repository, or a path is not acceptable to Git.
    pub fn commit(
        &self,
        name: &str,
        branch: &str,
        changes: &[FileChange],
        author: &Author,
        message: &str,
    ) -> Result<String, git2::Error> {
        let repo = self.repository(name)?;
        let reference = format!("refs/heads/{branch}");
        let parent = match repo.refname_to_id(&reference) {
            Ok(id) => Some(repo.find_commit(id)?),
            Err(e) if e.code() == ErrorCode::NotFound => None,
            Err(e) => return Err(e),
        };
        let base = match &parent {
            Some(commit) => commit.tree()?,
            None => repo.find_tree(repo.treebuilder(None)?.write()?)?,
        };
        let mut update = TreeUpdateBuilder::new();
        for change in changes {
            match &change.content {
                Some(bytes) => update.upsert(change.path.as_str(), repo.blob(bytes)?, mode(change.mode)),
                None => update.remove(change.path.as_str()),
            };
        }
        let tree = repo.find_tree(update.create_updated(&repo, &base)?)?;
        let who = self.signature(author)?;
        let parents: Vec<_> = parent.iter().collect();
        let id = repo.commit(Some(&reference), &who, &who, message, &tree, &parents)?;
        Ok(id.to_string())
    }

    /// A signature at the sandbox's time.
    ///
    /// # Errors
    /// The name is empty or has forbidden characters.
    pub fn signature(&self, author: &Author) -> Result<Signature<'static>, git2::Error> {
        Signature::new(&author.name, &author.email, &Time::new(self.clock.now().timestamp(), 0))
    }

    /// Commit that a branch points to.
    #[must_use]
    pub fn head(&self, name: &str, branch: &str) -> Option<String> {
        let repo = self.repository(name).ok()?;
        repo.refname_to_id(&format!("refs/heads/{branch}")).ok().map(|id| id.to_string())
    }

    /// All branches with their commits.
    ///
    /// # Errors
    /// No such repository.
    pub fn branches(&self, name: &str) -> Result<Vec<(String, String)>, git2::Error> {
        let repo = self.repository(name)?;
        let mut found = Vec::new();
        for reference in repo.references_glob("refs/heads/*")? {
            let reference = reference?;
            if let (Ok(full), Some(id)) = (reference.name(), reference.target()) {
                found.push((full.trim_start_matches("refs/heads/").to_owned(), id.to_string()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Points a branch to any commit, also backwards, as an administrator's forced push does.
    ///
    /// # Errors
    /// No such repository or commit.
    pub fn set_branch(&self, name: &str, branch: &str, commit: &str) -> Result<(), git2::Error> {
        let repo = self.repository(name)?;
        let id = repo.revparse_single(commit)?.peel_to_commit()?.id();
        repo.reference(&format!("refs/heads/{branch}"), id, true, "sandbox")?;
        Ok(())
    }

    /// Takes the newest `commits` commits off a branch and returns its new head.
    ///
    /// # Errors
    /// The branch has not so many.
    pub fn rewind(&self, name: &str, branch: &str, commits: usize) -> Result<String, git2::Error> {
        self.set_branch(name, branch, &format!("refs/heads/{branch}~{commits}"))?;
        self.head(name, branch).ok_or_else(|| git2::Error::from_str("the branch is gone"))
    }

    /// Deletes a branch.
    ///
    /// # Errors
    /// There is none.
    pub fn delete_branch(&self, name: &str, branch: &str) -> Result<(), git2::Error> {
        self.repository(name)?.find_reference(&format!("refs/heads/{branch}"))?.delete()
    }

    /// Bytes of a file at a revision.
    #[must_use]
    pub fn read(&self, name: &str, revision: &str, path: &str) -> Option<Vec<u8>> {
        let repo = self.repository(name).ok()?;
        let tree = repo.revparse_single(revision).ok()?.peel_to_tree().ok()?;
        let entry = tree.get_path(Path::new(path)).ok()?;
        repo.find_blob(entry.id()).ok().map(|b| b.content().to_vec())
    }

    /// Commits reachable from a revision, newest first.
    ///
    /// # Errors
    /// No such revision.
    pub fn history(&self, name: &str, revision: &str) -> Result<Vec<CommitInfo>, git2::Error> {
        let repo = self.repository(name)?;
        let mut walk = repo.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL)?;
        walk.push(repo.revparse_single(revision)?.peel_to_commit()?.id())?;
        walk.map(|id| info(&repo, id?)).collect()
    }

    /// One commit.
    ///
    /// # Errors
    /// No such commit.
    pub fn commit_info(&self, name: &str, revision: &str) -> Result<CommitInfo, git2::Error> {
        let repo = self.repository(name)?;
        let id = repo.revparse_single(revision)?.peel_to_commit()?.id();
        info(&repo, id)
    }

    /// Protects a branch from direct pushes, or no longer.
    ///
    /// # Errors
    /// No such repository.
    pub fn protect(&self, name: &str, branch: &str, protected: bool) -> Result<(), git2::Error> {
        let file = self.repository(name)?.path().join(PROTECTED);
        let wanted = format!("refs/heads/{branch}");
        let mut lines = self.protected(name);
        lines.retain(|line| *line != wanted);
        if protected {
            lines.push(wanted);
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(file, text).map_err(|e| io(&e))
    }

    /// Whether direct pushes to a branch are refused.
    #[must_use]
    pub fn is_protected(&self, name: &str, branch: &str) -> bool {
        self.protected(name).contains(&format!("refs/heads/{branch}"))
    }

    fn protected(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name).join(PROTECTED)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

fn mode(mode: i32) -> FileMode {
    match mode {
        0o100_755 => FileMode::BlobExecutable,
        0o120_000 => FileMode::Link,
        _ => FileMode::Blob,
    }
}

fn info(repo: &Repository, id: Oid) -> Result<CommitInfo, git2::Error> {
    let commit = repo.find_commit(id)?;
    let person = |who: &Signature<'_>| Author {
        name: String::from_utf8_lossy(who.name_bytes()).into_owned(),
        email: String::from_utf8_lossy(who.email_bytes()).into_owned(),
    };
    Ok(CommitInfo {
        id: id.to_string(),
        parents: commit.parent_ids().map(|p| p.to_string()).collect(),
        tree: commit.tree_id().to_string(),
        author: person(&commit.author()),
        committer: person(&commit.committer()),
        message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
        authored: commit.author().when().seconds(),
        committed: commit.committer().when().seconds(),
        signed: repo.extract_signature(&id, None).is_ok(),
    })
}

#[cfg(unix)]
fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}
