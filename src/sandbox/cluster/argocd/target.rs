//! From an Application's sources to the objects it wants.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::gitread::Unread;
use super::super::json::{flag, get, list, set, text};
use super::super::render::{self, below, clean, is_kustomization};
use super::{App, Level, TRACKING};

/// Rendered objects and how they came to be.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// `Directory` or `Kustomize`.
    pub source_type: &'static str,
    /// The objects, as the source has them.
    pub objects: Vec<Value>,
}

/// What an Application wants, at which commits.
#[derive(Debug, Clone)]
pub struct Target {
    /// One for each source.
    pub revisions: Vec<String>,
    /// The type of the first source that has objects.
    pub source_type: &'static str,
    /// With namespaces and tracking ids.
    pub objects: Vec<Value>,
}

/// `spec.sources`, or `spec.source` as the only one.
pub fn sources(app: &Value) -> Vec<Value> {
    let many = list(app, &["spec", "sources"]);
    if many.is_empty() { get(app, &["spec", "source"]).cloned().into_iter().collect() } else { many.to_vec() }
}

impl App {
    /// The commit of a source; a refresh asks Git, otherwise the branch is believed for a while.
    async fn revision(&mut self, source: &Value, level: Level) -> Result<String, String> {
        let (url, reference) = (text(source, &["repoURL"]).to_owned(), text(source, &["targetRevision"]).to_owned());
        let slot = (url.clone(), reference.clone());
        if let Some((commit, until)) = self.revisions.get(&slot)
            && (level == Level::Live || (level == Level::Resync && *until > Instant::now()))
        {
            return Ok(commit.clone());
        }
        match self.shared.git.resolve(&url, &reference).await {
            Ok(commit) => {
                let until = Instant::now() + self.shared.clock().scaled(self.shared.options.argo_revision_cache);
                self.revisions.insert(slot, (commit.clone(), until));
                Ok(commit)
            }
            Err(Unread::NoRef) => {
                Err(format!("rpc error: code = Unknown desc = unable to resolve '{reference}' to a commit SHA"))
            }
            Err(Unread::Failed(words)) => Err(format!("rpc error: code = Unknown desc = failed to list refs: {words}")),
        }
    }

    /// The target of a comparison: the branch's commits, or those that an operation names.
    pub(super) async fn target(&mut self, app: &Value, level: Level, pinned: &[String]) -> Result<Target, String> {
        let sources = sources(app);
        let mut target = Target { revisions: Vec::new(), source_type: "Directory", objects: Vec::new() };
        for (index, source) in sources.iter().enumerate() {
            let failed = |why: String| {
                format!(
                    "Failed to load target state: failed to generate manifest for source {} of {}: {why}",
                    index + 1,
                    sources.len()
                )
            };
            let wanted = pinned.get(index).filter(|revision| revision.len() == 40);
            let commit = match wanted {
                Some(commit) => commit.clone(),
                None => self.revision(source, level).await.map_err(failed)?,
            };
            target.revisions.push(commit.clone());
            let only_ref = !text(source, &["ref"]).is_empty() && text(source, &["path"]).is_empty();
            if only_ref {
                continue;
            }
            let rendered = self.rendered(source, &commit, level).await.map_err(failed)?;
            target.source_type = rendered.source_type;
            target.objects.extend(rendered.objects);
        }
        let place = text(app, &["spec", "destination", "namespace"]).to_owned();
        for object in &mut target.objects {
            self.adopt(object, &place);
        }
        Ok(target)
    }

    async fn rendered(&mut self, source: &Value, commit: &str, level: Level) -> Result<Rendered, String> {
        let path = clean(text(source, &["path"]));
        let slot = (text(source, &["repoURL"]).to_owned(), commit.to_owned(), path.clone());
        if level != Level::Hard
            && let Some(known) = self.manifests.get(&slot)
        {
            return Ok(known.clone());
        }
        let failures = self.failures.get(&slot).copied().unwrap_or(0);
        match self.render(source, commit, &path).await {
            Ok(made) => {
                self.failures.remove(&slot);
                self.manifests.insert(slot, made.clone());
                Ok(made)
            }
            // After three failures the repo-server answers from its cache until a hard refresh
            // (argo-cd: reposerver, pauseGenerationAfterFailedAttempts).
            Err(words) if failures >= 3 && level != Level::Hard => {
                let words = words.split_once(" desc = ").map_or(words.as_str(), |(_, words)| words);
                Err(format!("rpc error: code = Unknown desc = Manifest generation error (cached): {words}"))
            }
            Err(words) => {
                self.failures.insert(slot, if level == Level::Hard { 1 } else { failures + 1 });
                Err(words)
            }
        }
    }

    async fn render(&self, source: &Value, commit: &str, path: &str) -> Result<Rendered, String> {
        let all = self.shared.git.files(text(source, &["repoURL"]), commit, path).await;
        let all = all.map_err(|why| {
            format!("rpc error: code = Internal desc = Failed to checkout revision {commit}: {why:?}")
        })?;
        let files = below(&all, path);
        if files.is_empty() {
            return Err(format!("rpc error: code = Unknown desc = {path}: app path does not exist"));
        }
        if is_kustomization(&files) {
            let objects = render::kustomize(&all, path).await;
            let objects = objects.map_err(|words| format!("rpc error: code = Unknown desc = `kustomize build <path to cached source>/{path}` failed exit status 1: {words}"))?;
            return Ok(Rendered { source_type: "Kustomize", objects });
        }
        if files.contains_key("Chart.yaml") {
            return Err("rpc error: code = Unknown desc = the sandbox does not render Helm charts".to_owned());
        }
        let recurse = flag(source, &["directory", "recurse"]);
        let mut files = files;
        files.retain(|path, bytes| !render::passed_over(path, bytes));
        let objects = render::plain(&files, recurse).map_err(|(file, words)| {
            format!("rpc error: code = FailedPrecondition desc = Failed to unmarshal {file:?}: failed to unmarshal manifest: error converting YAML to JSON: yaml: {words}")
        })?;
        Ok(Rendered { source_type: "Directory", objects })
    }

    /// Puts an object where the Application puts it: namespace and tracking id (never on CRDs).
    fn adopt(&self, object: &mut Value, place: &str) {
        let kind = self.shared.store.kinds.of(object);
        let namespaced = kind.is_none_or(|kind| kind.namespaced);
        if namespaced && text(object, &["metadata", "namespace"]).is_empty() {
            set(object, &["metadata", "namespace"], json!(place));
        }
        if text(object, &["kind"]) == "CustomResourceDefinition" {
            return;
        }
        let group = text(object, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
        let namespace = if namespaced { text(object, &["metadata", "namespace"]) } else { place };
        let id = format!(
            "{}:{group}/{}:{namespace}/{}",
            self.instance(),
            text(object, &["kind"]),
            text(object, &["metadata", "name"])
        );
        set(object, &["metadata", "annotations", TRACKING], json!(id));
    }
}
