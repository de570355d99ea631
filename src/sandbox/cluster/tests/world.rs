//! What the tests share: a bare repository, a sandbox, waiting, and a recorder.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use crate::sandbox::cluster::json::text;
use crate::sandbox::cluster::objects;
use crate::sandbox::cluster::record::{Wish, lines};
use crate::sandbox::cluster::store::key;
use crate::sandbox::cluster::{ClusterOptions, ClusterSandbox};

pub struct Repo {
    dir: tempfile::TempDir,
}

impl Repo {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        git2::Repository::init_opts(dir.path(), &options).unwrap();
        Self { dir }
    }

    pub fn url(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    /// Commits files on top of main; `None` deletes one.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> String {
        let repository = git2::Repository::open_bare(self.dir.path()).unwrap();
        let parent =
            repository.find_reference("refs/heads/main").ok().map(|reference| reference.peel_to_commit().unwrap());
        let mut index = git2::Index::new().unwrap();
        if let Some(parent) = &parent {
            index.read_tree(&parent.tree().unwrap()).unwrap();
        }
        for (path, content) in files {
            match content {
                None => index.remove_path(std::path::Path::new(path)).unwrap(),
                Some(content) => {
                    let id = repository.blob(content.as_bytes()).unwrap();
                    let entry = git2::IndexEntry {
                        ctime: git2::IndexTime::new(0, 0),
                        mtime: git2::IndexTime::new(0, 0),
                        dev: 0,
                        ino: 0,
                        mode: 0o100_644,
                        uid: 0,
                        gid: 0,
                        file_size: 0,
                        id,
                        flags: 0,
                        flags_extended: 0,
                        path: path.as_bytes().to_vec(),
                    };
                    index.add(&entry).unwrap();
                }
            }
        }
        let tree = repository.find_tree(index.write_tree_to(&repository).unwrap()).unwrap();
        let who = git2::Signature::now("t", "t@example.com").unwrap();
        let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
        repository.commit(Some("refs/heads/main"), &who, &who, message, &tree, &parents).unwrap().to_string()
    }
}

pub fn deployment(name: &str, image: &str, replicas: i64) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  replicas: {replicas}\n  progressDeadlineSeconds: 15\n  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    spec:\n      containers:\n        - name: web\n          image: {image}\n"
    )
}

pub async fn sandbox(speed: f64) -> ClusterSandbox {
    ClusterSandbox::start(ClusterOptions { speed, ..ClusterOptions::default() }).await.unwrap()
}

pub fn application(name: &str, repo: &Repo, extra: Value) -> Value {
    let mut app = objects::application(name, &repo.url(), name, name);
    crate::sandbox::cluster::json::merge_patch(&mut app, &extra);
    app
}

/// Waits until a condition holds of an object; every state counts, however short it was.
pub async fn until(
    sandbox: &ClusterSandbox,
    (group, kind, namespace, name): (&str, &str, &str, &str),
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let store = sandbox.store();
    let place = key(&store.kinds.by_kind(group, kind).unwrap(), namespace, name);
    let mut changed = store.subscribe();
    let mut seen = store.version();
    let mut last = sandbox.get(group, kind, namespace, name);
    loop {
        if let Some(object) = last.as_ref().filter(|object| holds(object)) {
            return (**object).clone();
        }
        for event in store.tail(seen) {
            seen = event.version;
            if event.key == place {
                last = Some(event.object.clone());
                if holds(&event.object) {
                    return (*event.object).clone();
                }
            }
        }
        let woken = tokio::time::timeout(Duration::from_secs(20), changed.wait_for(|version| *version > seen)).await;
        assert!(
            woken.is_ok(),
            "{what} did not come; last seen: {}",
            last.map(|object| object.to_string()).unwrap_or_default()
        );
    }
}

pub async fn app_until(sandbox: &ClusterSandbox, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(sandbox, ("argoproj.io", "Application", "argocd", name), what, holds).await
}

/// Sets the refresh annotation, as a client does.
pub fn refresh(sandbox: &ClusterSandbox, name: &str, how: &str) {
    let kind = sandbox.store().kinds.by_kind("argoproj.io", "Application").unwrap();
    sandbox
        .store()
        .edit(&kind, "argocd", name, false, |app| {
            crate::sandbox::cluster::json::set(
                app,
                &["metadata", "annotations", "argocd.argoproj.io/refresh"],
                json!(how),
            )
        })
        .unwrap();
}

pub fn synced_and_healthy(app: &Value, commit: &str) -> bool {
    text(app, &["status", "sync", "revision"]) == commit
        && text(app, &["status", "sync", "status"]) == "Synced"
        && text(app, &["status", "health", "status"]) == "Healthy"
        && app.get("operation").is_none()
}

/// Collects the lines of a recording in the background.
pub fn recorder(sandbox: &ClusterSandbox) -> Arc<Mutex<Vec<Value>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (into, state) = (seen.clone(), sandbox.state().clone());
    tokio::spawn(async move {
        let mut stream = Box::pin(lines(state, Wish::default()));
        while let Some(line) = stream.next().await {
            into.lock().unwrap().push(line);
        }
    });
    seen
}
