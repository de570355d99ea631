//! How a forge merges: on the bare repository, without a work tree.

use git2::{Commit, ErrorCode, Oid, RebaseOptions, Repository, Signature};
use serde::{Deserialize, Serialize};

/// How a pull request is merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A commit with two parents.
    #[default]
    Merge,
    /// One new commit.
    Squash,
    /// The commits again, on top of the base.
    Rebase,
    /// The base moves to the head, if that is possible.
    FastForward,
}

/// Both ends of a merge and who performs it.
pub(crate) struct Merge<'a> {
    pub(crate) repo: &'a Repository,
    pub(crate) base: Oid,
    pub(crate) head: Oid,
    pub(crate) author: &'a Signature<'a>,
    pub(crate) committer: &'a Signature<'a>,
    pub(crate) message: &'a str,
}

fn conflict() -> git2::Error {
    git2::Error::from_str("merge conflict")
}

impl Merge<'_> {
    /// Makes the merged commit; moving the branch is left to the caller.
    pub(crate) fn perform(&self, method: Method) -> Result<Oid, git2::Error> {
        match method {
            Method::Merge => self.commit(true),
            Method::Squash => self.commit(false),
            Method::Rebase => self.rebase(),
            Method::FastForward if self.repo.graph_descendant_of(self.head, self.base)? => Ok(self.head),
            Method::FastForward => Err(git2::Error::from_str("not a fast forward")),
        }
    }

    fn commit(&self, keep_history: bool) -> Result<Oid, git2::Error> {
        let base = self.repo.find_commit(self.base)?;
        let head = self.repo.find_commit(self.head)?;
        let tree = merged_tree(self.repo, &base, &head)?.ok_or_else(conflict)?;
        let tree = self.repo.find_tree(tree)?;
        let parents: &[&Commit<'_>] = if keep_history { &[&base, &head] } else { &[&base] };
        self.repo.commit(None, self.author, self.committer, self.message, &tree, parents)
    }

    fn rebase(&self) -> Result<Oid, git2::Error> {
        let head = self.repo.find_annotated_commit(self.head)?;
        let base = self.repo.find_annotated_commit(self.base)?;
        let mut options = RebaseOptions::new();
        options.inmemory(true);
        let mut rebase = self.repo.rebase(Some(&head), Some(&base), None, Some(&mut options))?;
        let mut last = self.base;
        while let Some(step) = rebase.next() {
            step?;
            if rebase.inmemory_index()?.has_conflicts() {
                return Err(conflict());
            }
            match rebase.commit(None, self.committer, None) {
                Ok(id) => last = id,
                // The change is in the base already.
                Err(e) if e.code() == ErrorCode::Applied => {}
                Err(e) => return Err(e),
            }
        }
        Ok(last)
    }
}

/// Tree of the merge, or nothing when it has conflicts.
pub(crate) fn merged_tree(repo: &Repository, base: &Commit<'_>, head: &Commit<'_>) -> Result<Option<Oid>, git2::Error> {
    let mut index = repo.merge_commits(base, head, None)?;
    if index.has_conflicts() {
        return Ok(None);
    }
    index.write_tree_to(repo).map(Some)
}

/// Figures of a pull request's change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) commits: usize,
    pub(crate) additions: usize,
    pub(crate) deletions: usize,
    pub(crate) files: usize,
}

/// Counts what `head` adds to `base`.
pub(crate) fn figures(repo: &Repository, base: Oid, head: Oid) -> Result<Figures, git2::Error> {
    let (commits, _) = repo.graph_ahead_behind(head, base)?;
    let from = repo.merge_base(base, head)?;
    let (from, to) = (repo.find_commit(from)?.tree()?, repo.find_commit(head)?.tree()?);
    let stats = repo.diff_tree_to_tree(Some(&from), Some(&to), None)?.stats()?;
    Ok(Figures { commits, additions: stats.insertions(), deletions: stats.deletions(), files: stats.files_changed() })
}
