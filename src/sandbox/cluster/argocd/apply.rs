//! What a sync does to the cluster: checks, the namespace, pruning, applying.

use serde_json::{Value, json};

use super::super::admission::{self, Strictness};
use super::super::json::{list, set, text};
use super::super::reply::Failure;
use super::super::store::{Propagation, Write};
use super::App;
use super::compare::put_revisions;
use super::target::Target;

const USER: &str = "system:serviceaccount:argocd:argocd-application-controller";

/// What came of a sync.
pub(super) struct Outcome {
    /// `syncResult.resources`.
    pub(super) results: Vec<Value>,
    /// Why it failed.
    pub(super) error: Option<String>,
    /// Whether anything live was altered.
    pub(super) changed: bool,
}

impl App {
    /// Kinds that the project forbids or that the cluster does not serve stop a sync before it starts.
    pub(super) fn refusals(&self, app: &Value, target: &Target) -> Vec<Value> {
        let mut refused = Vec::new();
        for object in &target.objects {
            let api_version = text(object, &["apiVersion"]);
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let kind = text(object, &["kind"]);
            let known = self.shared.store.kinds.of(object);
            let message = match self.kind_error(app, group, kind, known.as_deref()) {
                Some(message) => message,
                None if known.is_none() => {
                    let name = text(object, &["metadata", "name"]);
                    let namespace = text(object, &["metadata", "namespace"]);
                    format!(
                        "The Kubernetes API could not find {group}/{kind} for requested resource {namespace}/{name}. Make sure the {kind:?} CRD is installed on the destination cluster."
                    )
                }
                None => continue,
            };
            refused.push(json!({
                "group": group, "kind": kind, "message": message, "name": text(object, &["metadata", "name"]),
                "namespace": text(app, &["spec", "destination", "namespace"]), "status": "SyncFailed", "syncPhase": "Sync", "version": version,
            }));
        }
        refused
    }

    pub(super) async fn namespace(&self, app: &Value, operation: &Value, target: &Target, outcome: &mut Outcome) {
        let name = text(app, &["spec", "destination", "namespace"]);
        let asked = |from: &Value, path: &[&str]| {
            list(from, path).iter().any(|option| option.as_str() == Some("CreateNamespace=true"))
        };
        let wanted = asked(operation, &["sync", "syncOptions"]) || asked(app, &["spec", "syncPolicy", "syncOptions"]);
        if !wanted || name.is_empty() || self.shared.store.find("", "Namespace", "", name).is_some() {
            return;
        }
        if self.shared.ensure_namespace(name).is_err() {
            return;
        }
        let result = json!({
            "group": "", "hookPhase": "Running", "kind": "Namespace", "message": format!("namespace/{name} created"), "name": name,
            "namespace": "", "status": "Synced", "syncPhase": "PreSync", "version": "v1",
        });
        outcome.results.push(result);
        let mut sync_result = json!({ "resources": outcome.results });
        put_revisions(&mut sync_result, app, &target.revisions);
        self.edit(|app| {
            set(
                app,
                &["status", "operationState", "message"],
                json!(format!("waiting for healthy state of /Namespace/{name}")),
            );
            set(app, &["status", "operationState", "syncResult"], sync_result);
        });
        self.shared.clock().millis(30).await;
    }

    pub(super) fn prune(&self, target: &Target, really: bool, chosen: &impl Fn(&Value) -> bool, outcome: &mut Outcome) {
        let wanted = |live: &Value| {
            target.objects.iter().any(|object| {
                ["kind", "apiVersion"].iter().all(|field| text(object, &[field]) == text(live, &[field]))
                    && text(object, &["metadata", "name"]) == text(live, &["metadata", "name"])
                    && (text(object, &["metadata", "namespace"]) == text(live, &["metadata", "namespace"])
                        || text(live, &["metadata", "namespace"]).is_empty())
            })
        };
        for (_, live) in self.managed().into_iter().filter(|(_, live)| !wanted(live) && chosen(live)) {
            let Some(kind) = self.shared.store.kinds.of(&live) else {
                continue;
            };
            let (namespace, name) = (text(&live, &["metadata", "namespace"]), text(&live, &["metadata", "name"]));
            let kept =
                text(&live, &["metadata", "annotations", "argocd.argoproj.io/sync-options"]).contains("Prune=false");
            let (status, phase, message) = match (really, kept) {
                (false, _) => ("PruneSkipped", "Succeeded", "ignored (requires pruning)"),
                (true, true) => ("PruneSkipped", "Succeeded", "ignored (no prune)"),
                (true, false) => {
                    drop(self.shared.store.delete(&kind, namespace, name, Propagation::Foreground, false));
                    outcome.changed = true;
                    ("Pruned", "Succeeded", "pruned")
                }
            };
            outcome.results.push(json!({
                "group": kind.group, "hookPhase": phase, "kind": kind.kind, "message": message, "name": name, "namespace": namespace,
                "status": status, "syncPhase": "Sync", "version": kind.version,
            }));
        }
    }

    pub(super) fn apply(&self, object: &Value, dry_run: bool, outcome: &mut Outcome) {
        let Some(kind) = self.shared.store.kinds.of(object) else {
            return;
        };
        let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
        let before = self.shared.store.get(&kind, namespace, name);
        let verb = if before.is_some() { "patch" } else { "create" };
        let done = self
            .shared
            .access
            .check(USER, verb, &kind, "", namespace, name)
            .and_then(|()| admission::decode(&kind, object, Strictness::Strict))
            .and_then(|_| {
                self.shared.store.apply(&kind, namespace, &self.manager(), object, Write { status: false, dry_run })
            });
        let mut result = json!({ "group": kind.group, "hookPhase": "Running" });
        let images: Vec<&str> = list(object, &["spec", "template", "spec", "containers"])
            .iter()
            .map(|container| text(container, &["image"]))
            .collect();
        if !images.is_empty() {
            set(&mut result, &["images"], json!(images));
        }
        let (status, message) = match done {
            Ok(after) => {
                let word = match &before {
                    None => "created",
                    Some(before) if before == &after => "unchanged",
                    Some(_) => {
                        outcome.changed = true;
                        "configured"
                    }
                };
                ("Synced", format!("{}/{name} {word}", kind.lower()))
            }
            Err(failure) => {
                set(&mut result, &["hookPhase"], json!("Failed"));
                ("SyncFailed", wording(verb, &failure))
            }
        };
        for (field, value) in [
            ("kind", json!(kind.kind)),
            ("message", json!(message)),
            ("name", json!(name)),
            ("namespace", json!(if kind.namespaced { namespace } else { "" })),
            ("status", json!(status)),
            ("syncPhase", json!("Sync")),
            ("version", json!(kind.version)),
        ] {
            set(&mut result, &[field], value);
        }
        outcome.results.push(result);
    }
}

fn wording(verb: &str, failure: &Failure) -> String {
    match (verb, failure.code) {
        ("patch", 422 | 400) => {
            format!("error when patching \"/dev/shm/{}\": {}", rand::random::<u32>(), failure.message)
        }
        ("create", 404) => failure.message.clone(),
        ("create", _) => format!("error when creating \"/dev/shm/{}\": {}", rand::random::<u32>(), failure.message),
        _ => failure.message.clone(),
    }
}
