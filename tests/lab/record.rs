//! Recordings of what the API server shows, in the format of `tests/data/traces`: a HEAD line, watch events cut down
//! to what matters, and what was done from outside.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use countersign_core::Result;
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::{Lab, off};

/// What is watched: `apiVersion`, kind, plural.
const KINDS: [(&str, &str, &str); 11] = [
    ("argoproj.io/v1alpha1", "Application", "applications"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "kustomizations"),
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease", "helmreleases"),
    ("source.toolkit.fluxcd.io/v1", "GitRepository", "gitrepositories"),
    ("source.toolkit.fluxcd.io/v1", "HelmChart", "helmcharts"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("v1", "Pod", "pods"),
    ("v1", "ConfigMap", "configmaps"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("v1", "Event", "events"),
];

/// What a recording is about.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// In words.
    pub about: String,
    /// `argo` or `flux`.
    pub engine: String,
    /// Objects of these namespaces, whatever their names. Empty: of all.
    pub namespaces: Vec<String>,
    /// And objects with these names, in any namespace (owners and sources).
    pub names: Vec<String>,
}

impl Wish {
    fn shows(&self, object: &Value) -> bool {
        let is = |path: &str, all: &[String]| {
            object.pointer(path).and_then(Value::as_str).is_some_and(|v| all.iter().any(|a| a == v))
        };
        // Every namespace has this one, and it says nothing.
        let noise = object["metadata"]["name"] == "kube-root-ca.crt";
        let all = self.namespaces.is_empty() && self.names.is_empty();
        !noise && (all || is("/metadata/namespace", &self.namespaces) || is("/metadata/name", &self.names))
    }
}

#[derive(Debug)]
struct Tape {
    from: Instant,
    out: std::fs::File,
}

/// A recording that goes on until it is dropped.
#[derive(Debug)]
pub struct Recording {
    tape: Arc<Mutex<Tape>>,
    _watches: Vec<AbortOnDropHandle<()>>,
}

fn line(tape: &Mutex<Tape>, mut line: Value) {
    let mut tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
    let t = (tape.from.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    let mut timed = json!({ "t": t });
    if let (Some(to), Some(from)) = (timed.as_object_mut(), line.as_object_mut()) {
        to.append(from);
    }
    // A full disk shows when the recording is read.
    drop(writeln!(tape.out, "{timed}"));
}

impl Recording {
    pub(super) async fn start(lab: &Lab, file: &Path, wish: Wish) -> Result<Self> {
        let out = std::fs::File::create(file).map_err(|e| off(&format!("{}", file.display()))(&e))?;
        let tape = Arc::new(Mutex::new(Tape { from: Instant::now(), out }));
        line(&tape, json!({"type": "HEAD", "about": wish.about, "engine": wish.engine}));
        let client = lab.client().await?;
        let wish = Arc::new(wish);
        let mut watches = Vec::new();
        for (api, kind, plural) in KINDS {
            let (group, version) = api.rsplit_once('/').unwrap_or(("", api));
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let here =
                all.list(&ListParams::default()).await.map_err(|e| off(&format!("{plural} cannot be listed"))(&e))?;
            let since = here.metadata.resource_version.clone().unwrap_or_default();
            let mut seen = HashSet::new();
            for object in here.items {
                note(&tape, &wish, "ADDED", kind, &object, &mut seen);
            }
            let (tape, wish) = (Arc::clone(&tape), Arc::clone(&wish));
            watches.push(AbortOnDropHandle::new(tokio::spawn(follow(all, kind, since, tape, wish, seen))));
        }
        Ok(Self { tape, _watches: watches })
    }

    /// Writes down something that was done from outside; `act` has `did` and, for a push, `commit`, `parent`,
    /// `owner` and `want` (see the format).
    pub fn act(&self, mut act: Value) {
        act["type"] = json!("ACT");
        line(&self.tape, act);
    }
}

fn note(tape: &Mutex<Tape>, wish: &Wish, what: &str, kind: &str, object: &DynamicObject, seen: &mut HashSet<String>) {
    let mut object = serde_json::to_value(object).unwrap_or_default();
    object["kind"] = json!(kind);
    if !wish.shows(&object) {
        return;
    }
    // After a lost watch the rest is seen anew.
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let what = if what == "ADDED" && !seen.insert(uid) { "MODIFIED" } else { what };
    line(tape, json!({"type": what, "object": cut(&object)}));
}

/// Watches one kind for ever; a watch that ends is begun again where it stood.
async fn follow(
    all: Api<DynamicObject>,
    kind: &'static str,
    mut since: String,
    tape: Arc<Mutex<Tape>>,
    wish: Arc<Wish>,
    mut seen: HashSet<String>,
) {
    loop {
        if let Ok(events) = all.watch(&WatchParams::default().timeout(290), &since).await {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let (what, object) = match event {
                    Ok(WatchEvent::Added(o)) => ("ADDED", o),
                    Ok(WatchEvent::Modified(o)) => ("MODIFIED", o),
                    Ok(WatchEvent::Deleted(o)) => ("DELETED", o),
                    Ok(WatchEvent::Bookmark(b)) => {
                        since = b.metadata.resource_version;
                        continue;
                    }
                    Ok(WatchEvent::Error(e)) if e.code == 410 => {
                        // Too old: what happened in between is lost, and said.
                        line(&tape, json!({"type": "ACT", "did": format!("the watch on {kind} was lost")}));
                        since = "0".into();
                        break;
                    }
                    _ => break,
                };
                since = object.metadata.resource_version.clone().unwrap_or(since);
                note(&tape, &wish, what, kind, &object, &mut seen);
            }
        }
        // The API server may be down: that is part of some scenarios.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Cuts an object down as all recordings do.
fn cut(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default();
    let mut metadata = json!({});
    for field in
        ["name", "namespace", "generation", "annotations", "ownerReferences", "finalizers", "deletionTimestamp"]
    {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if kind == "Application" && metadata.get("annotations").is_none() {
        metadata["annotations"] = json!({});
    }
    let mut cut = json!({"kind": kind, "metadata": metadata});
    let fields: &[&str] = match kind {
        "Pod" => &["status"],
        "ConfigMap" => &["data"],
        "Event" => &["type", "reason", "message", "count", "involvedObject"],
        _ => &["status", "spec", "operation"],
    };
    for field in fields {
        if let Some(value) = object.get(*field) {
            cut[*field] = value.clone();
        }
    }
    cut
}
