//! The face of this folder: one repository with its mirror.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use countersign_core::gate::Authorization;
use countersign_core::{Problem, Result};
use git2::Repository;

use super::access::Credentials;
use super::commit::{self, CommitRequest};
use super::history::{self, CommitInfo, CommitRange};
use super::lane::Lane;
use super::mirror::{mirror_problem, prepare_mirror};
use super::objects::{DirEntry, EntryKind, ReadLimits, TreeFile};
use super::path::{branch_ref, check_ref};
use super::push::{self, Pushed};
use super::read;
use super::remote::{self, FetchCaps, Session};
use super::sign::SshSigner;
use super::url::RemoteUrl;

/// Bounds of one repository.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GitLimits {
    /// Longest fetch.
    pub fetch: Duration,
    /// Longest push, reading back included; longest look at the remote's refs.
    pub push: Duration,
    /// Longest local call.
    pub local: Duration,
    /// Objects in one fetch.
    pub max_objects: usize,
    /// Bytes in one fetch.
    pub max_bytes: u64,
    /// Limits of reading.
    pub read: ReadLimits,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self {
            fetch: Duration::from_secs(180),
            push: Duration::from_secs(60),
            local: Duration::from_secs(30),
            max_objects: 5_000_000,
            max_bytes: 2 << 30,
            read: ReadLimits::default(),
        }
    }
}

/// A repository with its bare mirror. Cheap to clone; all clones share the mirror.
#[derive(Clone)]
pub struct GitRepo {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    url: RemoteUrl,
    dir: PathBuf,
    credentials: ArcSwap<Credentials>,
    limits: GitLimits,
    /// Conversations with the remote and writing.
    work: Lane,
    /// Reading; does not wait for a running fetch.
    reads: Lane,
    /// What the remote said lately about a branch, or `HEAD`, and when it was asked.
    tips: Mutex<BTreeMap<String, Arc<Tip>>>,
}

/// Held while the remote is asked: who comes meanwhile takes the same answer.
type Tip = tokio::sync::Mutex<Option<(Instant, String)>>;

impl std::fmt::Debug for GitRepo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GitRepo({} {})", self.inner.name, self.inner.url.shown())
    }
}

impl GitRepo {
    /// Whether the remote lets this credential in to push: the conversation of a push, ended before anything is
    /// asked. Hooks, branch rules and quotas are not part of it; they answer only to a commit.
    ///
    /// Errors: as of a push that did not get that far.
    pub async fn try_push_access(&self) -> Result<()> {
        self.talk(self.inner.limits.push, remote::knock).await
    }

    /// Opens (or makes) the mirror of `url` in `mirror_dir`; contacts nobody.
    ///
    /// Errors: `git.url`, `git.mirror`.
    pub async fn open(name: &str, url: &str, credentials: Credentials, mirror_dir: &Path) -> Result<Self> {
        Self::open_with(name, url, credentials, mirror_dir, GitLimits::default()).await
    }

    /// [`GitRepo::open`] with other limits.
    pub async fn open_with(
        name: &str,
        url: &str,
        credentials: Credentials,
        mirror_dir: &Path,
        limits: GitLimits,
    ) -> Result<Self> {
        let url = RemoteUrl::parse(url)?;
        let dir = mirror_dir.to_path_buf();
        let (prepared, address) = (dir.clone(), url.address().to_owned());
        tokio::task::spawn_blocking(move || prepare_mirror(&prepared, &address))
            .await
            .map_err(|_| mirror_problem("the task broke off"))??;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                url,
                credentials: ArcSwap::from_pointee(credentials),
                limits,
                work: Lane::new(dir.clone()),
                reads: Lane::new(dir.clone()),
                tips: Mutex::default(),
                dir,
            }),
        })
    }

    /// Name of the Repository in the configuration.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its address.
    pub fn url(&self) -> &RemoteUrl {
        &self.inner.url
    }

    /// Takes new credentials for the conversations to come (rotation).
    pub fn set_credentials(&self, credentials: Credentials) {
        self.inner.credentials.store(Arc::new(credentials));
    }

    /// Tip of a branch (`main` or `refs/heads/main`) at the remote now, fetched with its history.
    ///
    /// Errors: `git.branch_missing`, `git.not_found`, `git.auth`, `git.host_key`, `git.tls`,
    /// `git.redirected`, `git.unreachable`, `git.timeout`, `git.too_large`.
    pub async fn fetch(&self, branch: &str) -> Result<String> {
        let branch = branch_ref(branch)?;
        let limits = self.inner.limits;
        let caps = FetchCaps { objects: limits.max_objects, bytes: limits.max_bytes };
        self.talk(limits.fetch, move |repo, session| {
            remote::fetch(repo, session, &branch, caps).map(|id| id.to_string())
        })
        .await
    }

    /// Full ref of the remote's default branch.
    ///
    /// Errors: as [`GitRepo::fetch`]; `git.branch_missing` where the remote names none.
    pub async fn resolve_head_branch(&self) -> Result<String> {
        self.talk(self.inner.limits.push, |repo, session| {
            let heads = remote::list(repo, session)?;
            let named = heads.iter().find(|h| h.name == "HEAD").and_then(|h| h.symref.clone());
            named.filter(|n| heads.iter().any(|h| h.name == *n)).ok_or_else(|| remote::branch_missing(session, "HEAD"))
        })
        .await
    }

    /// [`GitRepo::fetch`], unless the remote was asked for this branch within `age`: then what it said.
    ///
    /// For questions, and for building what is then pushed under a lease on that very tip.
    pub async fn fetch_within(&self, branch: &str, age: Duration) -> Result<String> {
        self.remembered(&branch_ref(branch)?, age, self.fetch(branch)).await
    }

    /// [`GitRepo::resolve_head_branch`] with what the remote said within `age`; for questions only.
    pub async fn head_branch_within(&self, age: Duration) -> Result<String> {
        self.remembered("HEAD", age, self.resolve_head_branch()).await
    }

    async fn remembered(&self, what: &str, age: Duration, ask: impl Future<Output = Result<String>>) -> Result<String> {
        let tip = Arc::clone(
            self.inner.tips.lock().unwrap_or_else(PoisonError::into_inner).entry(what.to_owned()).or_default(),
        );
        let mut last = tokio::time::timeout(self.inner.limits.fetch, tip.lock()).await.map_err(|_| {
            Problem::new("git.busy", "Another call to this repository takes long.", "Try again in a moment.").later()
        })?;
        if let Some((at, said)) = last.as_ref()
            && at.elapsed() < age
        {
            return Ok(said.clone());
        }
        // The time before asking: an answer is never taken for newer than it is.
        let at = Instant::now();
        let said = ask.await?;
        *last = Some((at, said.clone()));
        Ok(said)
    }

    /// After a push of our own, what the remote said before is old.
    fn forget(&self) {
        self.inner.tips.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What a branch's full ref holds at the remote now; `None` = it is not there.
    ///
    /// Errors: as [`GitRepo::fetch`].
    pub async fn remote_ref(&self, git_ref: &str) -> Result<Option<String>> {
        check_ref(git_ref)?;
        let git_ref = git_ref.to_owned();
        self.talk(self.inner.limits.push, move |repo, session| {
            Ok(push::remote_ref(repo, session, &git_ref)?.map(|id| id.to_string()))
        })
        .await
    }

    /// Tip of a branch as last fetched; `None` = never fetched. Contacts nobody.
    pub async fn fetched(&self, branch: &str) -> Result<Option<String>> {
        let local = remote::tracking(&branch_ref(branch)?);
        self.read(move |repo| Ok(repo.refname_to_id(&local).ok().map(|id| id.to_string()))).await
    }

    /// All files under a folder (or the one file), by full path; a missing folder is empty.
    ///
    /// Errors: `git.object_missing`, `git.too_many_files`, `git.path_encoding`, `git.symlink`, `git.submodule`.
    pub async fn tree_files(
        &self,
        commit: &str,
        prefix: &str,
        limits: ReadLimits,
    ) -> Result<BTreeMap<String, TreeFile>> {
        let (commit, prefix) = (commit.to_owned(), prefix.to_owned());
        self.read(move |repo| read::tree_files(repo, &commit, &prefix, &limits)).await
    }

    /// One file; `None` = nothing there, or a folder. See [`TreeFile::editable`].
    ///
    /// Errors: `git.object_missing`; `git.symlink`, `git.submodule` where one lies on the way.
    pub async fn blob(&self, commit: &str, path: &str) -> Result<Option<TreeFile>> {
        let (commit, path, limits) = (commit.to_owned(), path.to_owned(), self.inner.limits.read);
        self.read(move |repo| read::blob(repo, &commit, &path, &limits)).await
    }

    /// Kind (with its mode) of what stands at a path.
    ///
    /// Errors: as [`GitRepo::blob`].
    pub async fn kind(&self, commit: &str, path: &str) -> Result<Option<EntryKind>> {
        let (commit, path) = (commit.to_owned(), path.to_owned());
        self.read(move |repo| read::kind(repo, &commit, &path)).await
    }

    /// Whether anything stands at a path.
    ///
    /// Errors: as [`GitRepo::blob`].
    pub async fn exists(&self, commit: &str, path: &str) -> Result<bool> {
        Ok(self.kind(commit, path).await?.is_some())
    }

    /// Entries of one folder; `None` = no such folder.
    ///
    /// Errors: as [`GitRepo::blob`].
    pub async fn list_dir(&self, commit: &str, path: &str) -> Result<Option<Vec<DirEntry>>> {
        let (commit, path) = (commit.to_owned(), path.to_owned());
        self.read(move |repo| read::list_dir(repo, &commit, &path)).await
    }

    /// Whether the mirror has this commit.
    pub async fn has_commit(&self, commit: &str) -> Result<bool> {
        let id = read::oid(commit)?;
        self.read(move |repo| Ok(repo.find_commit(id).is_ok())).await
    }

    /// Whether `a` is `b` or an ancestor of it.
    ///
    /// Errors: `git.object_missing`.
    pub async fn is_ancestor(&self, a: &str, b: &str) -> Result<bool> {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.read(move |repo| history::is_ancestor(repo, &a, &b)).await
    }

    /// One commit.
    ///
    /// Errors: `git.object_missing`.
    pub async fn commit_info(&self, id: &str) -> Result<CommitInfo> {
        let id = id.to_owned();
        self.read(move |repo| history::commit_info(repo, &id)).await
    }

    /// Commits reachable from `to` and not from `from`, oldest first; at most `limit`, the newest.
    ///
    /// Errors: `git.object_missing`.
    pub async fn commits_between(&self, from: &str, to: &str, limit: usize) -> Result<CommitRange> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.read(move |repo| history::between(repo, &from, &to, limit)).await
    }

    /// Newest commit among the last `limit` of a branch, as last fetched, that carries the trailer.
    ///
    /// Trailers are untrusted: who decides by one compares the content too.
    pub async fn find_commit_by_trailer(
        &self,
        branch: &str,
        key: &str,
        value: &str,
        limit: usize,
    ) -> Result<Option<CommitInfo>> {
        let Some(tip) = self.fetched(branch).await? else { return Ok(None) };
        let (key, value) = (key.to_owned(), value.to_owned());
        self.read(move |repo| history::by_trailer(repo, &tip, &key, &value, limit)).await
    }

    /// Those of `paths` whose entry (kind and blob) differs between two commits.
    ///
    /// Errors: `git.object_missing`, `git.symlink`, `git.submodule`.
    pub async fn differing_paths(&self, a: &str, b: &str, paths: &[String]) -> Result<Vec<String>> {
        let (a, b, paths) = (a.to_owned(), b.to_owned(), paths.to_vec());
        self.read(move |repo| read::differing(repo, &a, &b, &paths)).await
    }

    /// Whether the touched files are the same at both bases (an innocent move).
    ///
    /// Errors: as [`GitRepo::differing_paths`].
    pub async fn touched_blobs_equal(&self, base1: &str, base2: &str, paths: &[String]) -> Result<bool> {
        Ok(self.differing_paths(base1, base2, paths).await?.is_empty())
    }

    /// All paths that differ between two commits, sorted.
    ///
    /// Errors: `git.object_missing`, `git.too_many_files` (more than `limit`).
    pub async fn changed_paths(&self, a: &str, b: &str, limit: usize) -> Result<Vec<String>> {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.read(move |repo| {
            let (a, b) = (read::root(repo, &a)?.id(), read::root(repo, &b)?.id());
            read::changed_paths(repo, Some(a), Some(b), limit)
        })
        .await
    }

    /// Builds a commit in the mirror and gives its id; the same request and key give the same id.
    /// Nothing outside is touched.
    ///
    /// Errors: `git.path`, `git.mode`, `git.symlink`, `git.submodule`, `git.empty`, `git.identity`,
    /// `git.message`, `git.object_missing`, `signature.key`.
    pub async fn build_commit(&self, request: CommitRequest, signer: Option<&SshSigner>) -> Result<String> {
        let signer = signer.cloned();
        self.inner
            .work
            .run(self.inner.limits.local, move |repo, _| commit::build(repo, &request, signer.as_ref()))
            .await
    }

    /// An authorization is for one repository.
    fn permitted(&self, authorization: &Authorization) -> Result<()> {
        if authorization.repository() != self.name() {
            return Err(Problem::new(
                "gate.out_of_scope",
                "The authorization is for another repository.",
                "Report this as a bug; nothing was written.",
            )
            .never());
        }
        Ok(())
    }

    /// Moves `git_ref` at the remote from `expected_old` (`None` = it must not exist) to `commit`.
    ///
    /// Errors: `git.lease_lost` (evidence: where the ref stands), `git.push_rejected` (the server's
    /// words), `git.not_fast_forward`, `git.push_unknown` (read the ref, then decide), and those of
    /// [`GitRepo::fetch`], which mean that nothing happened.
    pub async fn push(
        &self,
        authorization: &Authorization,
        commit: &str,
        git_ref: &str,
        expected_old: Option<&str>,
    ) -> Result<Pushed> {
        self.push_unless(authorization, commit, git_ref, expected_old, || None).await
    }

    /// As [`GitRepo::push`], and asks `held` once more right before anything is sent, after the remote
    /// has said where it stands: what it gives ends the push with nothing sent. It runs on a thread that
    /// may block.
    pub async fn push_unless(
        &self,
        authorization: &Authorization,
        commit: &str,
        git_ref: &str,
        expected_old: Option<&str>,
        held: impl Fn() -> Option<Problem> + Send + 'static,
    ) -> Result<Pushed> {
        self.permitted(authorization)?;
        authorization.permits_ref(git_ref)?;
        self.send(Some(commit), git_ref, expected_old, held).await
    }

    /// Deletes a branch that stands at `expected`. One that is gone already is a success.
    ///
    /// Errors: as [`GitRepo::push`].
    pub async fn delete_branch(&self, authorization: &Authorization, git_ref: &str, expected: &str) -> Result<Pushed> {
        self.permitted(authorization)?;
        authorization.permits_deletion(git_ref, expected)?;
        self.push_unchecked(None, git_ref, Some(expected)).await
    }

    /// The push itself; only the methods above and tests call it.
    pub(super) async fn push_unchecked(
        &self,
        target: Option<&str>,
        git_ref: &str,
        expected: Option<&str>,
    ) -> Result<Pushed> {
        self.send(target, git_ref, expected, || None).await
    }

    async fn send(
        &self,
        target: Option<&str>,
        git_ref: &str,
        expected: Option<&str>,
        held: impl Fn() -> Option<Problem> + Send + 'static,
    ) -> Result<Pushed> {
        let (target, expected) = (target.map(str::to_owned), expected.map(str::to_owned));
        let name = git_ref.to_owned();
        let out = self
            .talk(self.inner.limits.push, move |repo, session| {
                push::push(repo, session, target.as_deref(), &name, expected.as_deref(), &held)
            })
            .await;
        self.forget();
        // An abandoned push may still arrive.
        out.map_err(|p| {
            if matches!(p.code.as_ref(), "git.timeout" | "git.failed") {
                push::unknown(git_ref).with(p.message).with_all(p.evidence)
            } else {
                p
            }
        })
    }

    async fn read<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Repository) -> Result<T> + Send + 'static,
    {
        self.inner.reads.run(self.inner.limits.local, move |repo, _| call(repo)).await
    }

    async fn talk<T, F>(&self, limit: Duration, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Repository, &Session<'_>) -> Result<T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        self.inner
            .work
            .run(limit, move |repo, deadline: Instant| {
                let credentials = inner.credentials.load_full();
                call(repo, &Session::new(&inner.url, &credentials, &inner.dir, deadline))
            })
            .await
    }
}
