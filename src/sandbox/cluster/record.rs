//! Recordings of the sandbox in the format of the real engines' recordings: a HEAD line, watch events cut down to
//! what matters, and what was done from outside.

use std::collections::HashMap;

use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::Shared;
use super::json::{get, set, text};
use super::store::Change;

/// The kinds that a recording shows unless told otherwise.
const KINDS: [&str; 10] = [
    "Application",
    "GitRepository",
    "Kustomization",
    "HelmRelease",
    "HelmChart",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Pod",
    "ConfigMap",
];

/// Cuts an object down as the recordings do.
pub fn cut(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "generation", "annotations", "finalizers", "deletionTimestamp"] {
        if let Some(value) = get(object, &["metadata", field]) {
            set(&mut metadata, &[field], value.clone());
        }
    }
    if text(object, &["kind"]) == "Application" && get(&metadata, &["annotations"]).is_none() {
        set(&mut metadata, &["annotations"], json!({}));
    }
    let mut cut = json!({ "kind": text(object, &["kind"]), "metadata": metadata, "status": object.get("status").cloned().unwrap_or_else(|| json!({})) });
    for field in ["spec", "operation", "data"] {
        let shown = match field {
            "spec" => text(object, &["kind"]) != "Pod",
            "data" => text(object, &["kind"]) == "ConfigMap",
            _ => true,
        };
        if let (true, Some(value)) = (shown, object.get(field)) {
            set(&mut cut, &[field], value.clone());
        }
    }
    cut
}

/// What a recording is asked to show.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Kinds; empty for the usual ones.
    pub kinds: Vec<String>,
    /// Namespaces; empty for all.
    pub namespaces: Vec<String>,
    /// The HEAD line's `about`.
    pub about: String,
    /// The HEAD line's `engine`.
    pub engine: String,
}

impl Wish {
    /// Reads query parameters (`kinds` and `namespaces` separated by commas).
    pub fn of(query: &HashMap<String, String>) -> Self {
        let words =
            |name: &str| query.get(name).map(|value| value.split(',').map(str::to_owned).collect()).unwrap_or_default();
        let text = |name: &str| query.get(name).cloned().unwrap_or_default();
        Self { kinds: words("kinds"), namespaces: words("namespaces"), about: text("about"), engine: text("engine") }
    }

    fn shows(&self, object: &Value) -> bool {
        let kind = text(object, &["kind"]);
        let namespace = text(object, &["metadata", "namespace"]);
        let known =
            if self.kinds.is_empty() { KINDS.contains(&kind) } else { self.kinds.iter().any(|wanted| wanted == kind) };
        known && (self.namespaces.is_empty() || self.namespaces.iter().any(|wanted| wanted == namespace))
    }
}

/// The lines of a recording, from now on, starting with what is there.
pub fn lines(shared: Shared, wish: Wish) -> impl Stream<Item = Value> + Send + 'static {
    let clock = shared.clock();
    let start = clock.elapsed();
    let at = move || ((clock.elapsed() - start) * 1000.0).round() / 1000.0;
    let acts = shared.acts.subscribe();
    let changed = shared.store.subscribe();
    let mut ready = vec![json!({ "t": 0, "type": "HEAD", "about": wish.about, "engine": wish.engine })];
    let seen = shared.store.version();
    for (_, object) in shared.store.everything() {
        if wish.shows(&object) {
            ready.push(json!({ "t": at(), "type": "ADDED", "object": cut(&object) }));
        }
    }
    ready.reverse();
    futures::stream::unfold((ready, seen, acts, changed), move |(mut ready, mut seen, mut acts, mut changed)| {
        let (shared, wish) = (shared.clone(), wish.clone());
        async move {
            loop {
                if let Some(line) = ready.pop() {
                    return Some((line, (ready, seen, acts, changed)));
                }
                for event in shared.store.tail(seen) {
                    seen = event.version;
                    if wish.shows(&event.object) {
                        let change = match event.change {
                            Change::Added => "ADDED",
                            Change::Modified => "MODIFIED",
                            Change::Deleted => "DELETED",
                        };
                        ready.insert(0, json!({ "t": at(), "type": change, "object": cut(&event.object) }));
                    }
                }
                if !ready.is_empty() {
                    continue;
                }
                tokio::select! {
                    _ = changed.wait_for({ let seen = seen; move |version| *version > seen }) => {}
                    act = acts.recv() => match act {
                        Ok(mut act) => {
                            set(&mut act, &["t"], json!(at()));
                            set(&mut act, &["type"], json!("ACT"));
                            ready.insert(0, act);
                        }
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return None,
                    },
                }
            }
        }
    })
}
