//! Reads Git repositories: a bare mirror of each, the commit of a ref, the files of a commit.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use git2::{Cred, FetchOptions, ObjectType, Oid, RemoteCallbacks, Repository, TreeWalkMode, TreeWalkResult};

use super::render::{Files, KUSTOMIZATION_FILES, clean};

/// Mirrors by URL; cheap to clone.
#[derive(Clone)]
pub struct GitReader {
    root: Arc<tempfile::TempDir>,
    login: Option<(String, String)>,
    locks: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
}

impl std::fmt::Debug for GitReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitReader").finish_non_exhaustive()
    }
}

/// Why a repository could not be read, in Git's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// The ref is not there.
    NoRef,
    /// The repository or the server is not.
    Failed(String),
}

impl GitReader {
    /// A reader with a scratch directory of its own.
    pub fn new(login: Option<(String, String)>) -> std::io::Result<Self> {
        Ok(Self { root: Arc::new(tempfile::tempdir()?), login, locks: Arc::default() })
    }

    fn lock_of(&self, url: &str) -> Arc<Mutex<()>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(url.to_owned()).or_default().clone()
    }

    /// Fetches, and gives the commit that a branch, tag, `HEAD` or commit id stands for.
    pub async fn resolve(&self, url: &str, reference: &str) -> Result<String, Unread> {
        let (reader, url, reference) = (self.clone(), url.to_owned(), reference.to_owned());
        blocking(move || reader.resolve_now(&url, &reference)).await
    }

    /// Files that building a folder of a commit needs, by their paths in the repository: the folder's own,
    /// and everything where the folder is a kustomization, which may name files anywhere.
    pub async fn files(&self, url: &str, commit: &str, folder: &str) -> Result<Files, Unread> {
        let (reader, url, commit, folder) = (self.clone(), url.to_owned(), commit.to_owned(), clean(folder));
        blocking(move || reader.files_now(&url, &commit, &folder)).await
    }

    fn mirror(&self, url: &str) -> Result<Repository, git2::Error> {
        use sha2::{Digest, Sha256};
        let name: String = Sha256::digest(url).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let path = self.root.path().join(name);
        if path.exists() { Repository::open_bare(path) } else { Repository::init_bare(path) }
    }

    fn resolve_now(&self, url: &str, reference: &str) -> Result<String, Unread> {
        let lock = self.lock_of(url);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: git2::Error| Unread::Failed(error.message().to_owned());
        let repository = self.mirror(url).map_err(failed)?;
        let mut remote = repository.remote_anonymous(url).map_err(failed)?;
        let mut options = FetchOptions::new();
        options.remote_callbacks(self.callbacks());
        options.prune(git2::FetchPrune::On);
        options.download_tags(git2::AutotagOption::None);
        remote
            .fetch(&["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], Some(&mut options), None)
            .map_err(failed)?;
        let head = remote.default_branch().ok().and_then(|name| name.as_str().ok().map(str::to_owned));
        let wanted = match reference {
            "" | "HEAD" => head.ok_or(Unread::NoRef)?,
            other => other.to_owned(),
        };
        let candidates = [wanted.clone(), format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")];
        let found = candidates
            .iter()
            .skip(usize::from(!wanted.starts_with("refs/")))
            .find_map(|name| repository.find_reference(name).ok());
        if let Some(found) = found {
            return found.peel_to_commit().map(|commit| commit.id().to_string()).map_err(failed);
        }
        let id = Oid::from_str(&wanted).map_err(|_| Unread::NoRef)?;
        repository.find_commit(id).map(|commit| commit.id().to_string()).map_err(|_| Unread::NoRef)
    }

    fn callbacks(&self) -> RemoteCallbacks<'static> {
        let mut callbacks = RemoteCallbacks::new();
        if let Some((user, password)) = self.login.clone() {
            let mut asked = 0;
            callbacks.credentials(move |_, _, _| {
                // Asked twice means refused once.
                asked += 1;
                if asked > 1 {
                    return Err(git2::Error::from_str("authentication required"));
                }
                Cred::userpass_plaintext(&user, &password)
            });
        }
        callbacks
    }

    fn files_now(&self, url: &str, commit: &str, folder: &str) -> Result<Files, Unread> {
        let failed = |error: git2::Error| Unread::Failed(error.message().to_owned());
        let repository = self.mirror(url).map_err(failed)?;
        let id = Oid::from_str(commit).map_err(|_| Unread::NoRef)?;
        let tree = repository.find_commit(id).and_then(|commit| commit.tree()).map_err(|_| Unread::NoRef)?;
        if folder.is_empty() {
            return blobs(&repository, &tree, "").map_err(failed);
        }
        let below = tree.get_path(Path::new(folder)).and_then(|entry| repository.find_tree(entry.id()));
        let Ok(below) = below else {
            return Ok(Files::new());
        };
        if KUSTOMIZATION_FILES.iter().any(|name| below.get_name(name).is_some()) {
            return blobs(&repository, &tree, "").map_err(failed);
        }
        blobs(&repository, &below, &format!("{folder}/")).map_err(failed)
    }
}

/// The files of a tree, their paths after a prefix.
fn blobs(repository: &Repository, tree: &git2::Tree<'_>, prefix: &str) -> Result<Files, git2::Error> {
    let mut files = Files::new();
    tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
        let name = entry.name().unwrap_or_default();
        if entry.kind() == Some(ObjectType::Blob)
            && let Ok(blob) = repository.find_blob(entry.id())
        {
            files.insert(format!("{prefix}{folder}{name}"), blob.content().to_vec());
        }
        TreeWalkResult::Ok
    })?;
    Ok(files)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Unread> + Send + 'static) -> Result<T, Unread> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Unread::Failed(error.to_string())))
}
