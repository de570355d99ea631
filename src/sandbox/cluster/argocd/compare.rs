//! The refresh loop: compare, decide on an automated sync, write `status.sync`, `status.health` and their company.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::health::{self, Health};
use super::super::json::{get, list, remove, set, text};
use super::super::merge;
use super::super::schema::{Node, schemas};
use super::target::{Target, sources};
use super::{App, Level, NAMESPACE, REFRESH, owner_of};

/// What a comparison found.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Commits, one for each source; on failure the refs as the spec has them.
    pub(super) revisions: Vec<String>,
    pub(super) source_type: Option<&'static str>,
    pub(super) resources: Vec<Value>,
    pub(super) sync: &'static str,
    pub(super) health: Option<Health>,
    pub(super) images: Vec<String>,
    pub(super) conditions: Vec<(&'static str, String)>,
}

impl Comparison {
    pub(super) fn out_of_sync(&self) -> impl Iterator<Item = &Value> {
        self.resources.iter().filter(|resource| text(resource, &["status"]) != "Synced")
    }
}

impl App {
    /// One refresh, with everything that follows from it.
    pub(super) async fn refresh(&mut self, level: Level) {
        let Some(app) = self.object() else { return };
        if let Some(message) = self.spec_error(&app) {
            self.refuse_spec(&message);
            return;
        }
        self.shared.clock().millis(if level == Level::Live { 20 } else { 120 }).await;
        let comparison = match self.target(&app, level, &[]).await {
            Ok(target) => self.compare(&app, &target),
            Err(message) => self.broken(&app, message),
        };
        // The Application may have been changed while Git was read.
        let Some(app) = self.object() else { return };
        let mut comparison = comparison;
        if let Some(operation) = self.automatic(&app, &mut comparison) {
            self.post(&operation);
            self.shared.clock().millis(8).await;
        }
        self.write(level, &comparison);
    }

    fn refuse_spec(&self, message: &str) {
        let now = self.shared.clock().stamp();
        self.edit(|app| {
            remove(app, &["metadata", "annotations", REFRESH]);
            set(app, &["status", "sync", "status"], json!("Unknown"));
            set_health(app, Health::Unknown, &now);
            set_conditions(app, &[("InvalidSpecError", message.to_owned())], &now);
        });
    }

    /// The comparison that could not be made: what is live is kept, with an unknown status.
    fn broken(&self, app: &Value, message: String) -> Comparison {
        let resources = self
            .managed()
            .iter()
            .map(|(_, live)| {
                let mut entry = self.entry(live, "Unknown");
                set(&mut entry, &["requiresPruning"], json!(true));
                ordered(&entry)
            })
            .collect();
        let revisions = sources(app).iter().map(|source| text(source, &["targetRevision"]).to_owned()).collect();
        Comparison {
            revisions,
            source_type: None,
            resources,
            sync: "Unknown",
            health: None,
            images: Vec::new(),
            conditions: vec![("ComparisonError", message)],
        }
    }

    fn entry(&self, object: &Value, status: &str) -> Value {
        let api_version = text(object, &["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let namespaced = self.shared.store.kinds.of(object).is_none_or(|kind| kind.namespaced);
        let mut entry = json!({ "kind": text(object, &["kind"]), "name": text(object, &["metadata", "name"]), "status": status, "version": version });
        if !group.is_empty() {
            set(&mut entry, &["group"], json!(group));
        }
        if namespaced {
            set(&mut entry, &["namespace"], json!(text(object, &["metadata", "namespace"])));
        }
        ordered(&entry)
    }

    fn compare(&self, app: &Value, target: &Target) -> Comparison {
        let mut resources = Vec::new();
        let mut conditions = Vec::new();
        let mut healths = Vec::new();
        let mut missing = 0;
        let mut wanted = BTreeSet::new();
        let mut images = BTreeSet::new();
        for object in &target.objects {
            let group = text(object, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
            let known = self.shared.store.kinds.of(object);
            let place = (
                group.to_owned(),
                text(object, &["kind"]).to_owned(),
                text(object, &["metadata", "namespace"]).to_owned(),
                text(object, &["metadata", "name"]).to_owned(),
            );
            if !wanted.insert(place) {
                conditions.push((
                    "RepeatedResourceWarning",
                    format!(
                        "Resource {group}/{}/{}/{} appeared 2 times among application resources.",
                        text(object, &["kind"]),
                        text(object, &["metadata", "namespace"]),
                        text(object, &["metadata", "name"])
                    ),
                ));
                continue;
            }
            if self.kind_error(app, group, text(object, &["kind"]), known.as_deref()).is_some() {
                resources.push(self.entry(object, "Unknown"));
                continue;
            }
            let live = known.as_ref().and_then(|kind| {
                self.shared.store.get(
                    kind,
                    text(object, &["metadata", "namespace"]),
                    text(object, &["metadata", "name"]),
                )
            });
            let Some(live) = live else {
                missing += 1;
                resources.push(self.entry(object, "OutOfSync"));
                continue;
            };
            conditions.extend(self.shared_warning(&live));
            let synced = !self.differs(app, &live, object);
            resources.push(self.entry(object, if synced { "Synced" } else { "OutOfSync" }));
            healths.extend(health::argo(&live));
            images.extend(self.images_of(&live));
        }
        for (_, live) in self.managed() {
            let group = text(&live, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group).to_owned();
            let place = (
                group,
                text(&live, &["kind"]).to_owned(),
                text(&live, &["metadata", "namespace"]).to_owned(),
                text(&live, &["metadata", "name"]).to_owned(),
            );
            if !wanted.contains(&place) {
                let mut entry = self.entry(&live, "OutOfSync");
                set(&mut entry, &["requiresPruning"], json!(true));
                resources.push(ordered(&entry));
                healths.extend(health::argo(&live));
            }
        }
        resources
            .sort_by_key(|entry| ["group", "kind", "namespace", "name"].map(|field| text(entry, &[field]).to_owned()));
        let all_missing = missing > 0 && missing == target.objects.len();
        let health = if all_missing { Health::Missing } else { healths.into_iter().max().unwrap_or(Health::Healthy) };
        let sync =
            if resources.iter().all(|entry| text(entry, &["status"]) == "Synced") { "Synced" } else { "OutOfSync" };
        let images = images.into_iter().collect();
        Comparison {
            revisions: target.revisions.clone(),
            source_type: Some(target.source_type),
            resources,
            sync,
            health: Some(health),
            images,
            conditions,
        }
    }

    /// Two Applications that want the same object fight over its tracking id.
    fn shared_warning(&self, live: &Value) -> Option<(&'static str, String)> {
        let other = owner_of(live)?;
        let me = format!("{}/{}", self.namespace, self.name);
        (other != me).then(|| {
            let other = other.strip_prefix(&format!("{NAMESPACE}/")).unwrap_or(&other).to_owned();
            let message = format!(
                "{}/{} is part of applications {me} and {other}",
                text(live, &["kind"]),
                text(live, &["metadata", "name"])
            );
            ("SharedResourceWarning", message)
        })
    }

    /// Whether applying would change the live object, but for what `ignoreDifferences` covers.
    fn differs(&self, app: &Value, live: &Value, object: &Value) -> bool {
        let node = schemas().of_object(object).unwrap_or(Node::Any);
        let last = self.last_applied(object);
        let mut after = live.clone();
        merge::three_way(schemas(), &node, &last, &mut after, object);
        let mut before = live.clone();
        for rule in list(app, &["spec", "ignoreDifferences"]).iter().filter(|rule| covers_object(rule, object)) {
            for pointer in list(rule, &["jsonPointers"]).iter().filter_map(Value::as_str) {
                let path: Vec<String> =
                    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                remove(&mut before, &path);
                remove(&mut after, &path);
            }
        }
        before != after
            && !(merge::covers(schemas(), &node, &before, &after) && merge::covers(schemas(), &node, &after, &before))
    }

    fn last_applied(&self, object: &Value) -> Value {
        self.shared.store.kinds.of(object).map_or(Value::Null, |kind| {
            self.shared.store.last_applied(
                &kind,
                text(object, &["metadata", "namespace"]),
                text(object, &["metadata", "name"]),
                &self.manager(),
            )
        })
    }

    /// The field manager under which this Application applies.
    pub(super) fn manager(&self) -> String {
        "argocd-controller".to_owned()
    }

    /// Images of the pods that a workload selects; the old ones stay listed while they run.
    fn images_of(&self, live: &Value) -> Vec<String> {
        let Some(labels) = get(live, &["spec", "selector", "matchLabels"]).and_then(Value::as_object) else {
            return Vec::new();
        };
        let Some(pods) = self.shared.store.kinds.by_kind("", "Pod") else {
            return Vec::new();
        };
        let (all, _) = self.shared.store.list(&pods, text(live, &["metadata", "namespace"]));
        let mine = all
            .iter()
            .filter(|pod| labels.iter().all(|(key, value)| get(pod, &["metadata", "labels", key]) == Some(value)));
        mine.flat_map(|pod| {
            list(pod, &["spec", "containers"]).iter().map(|container| text(container, &["image"]).to_owned())
        })
        .collect()
    }

    fn write(&self, level: Level, comparison: &Comparison) {
        let now = self.shared.clock().stamp();
        self.edit(|app| {
            // Only the request that was there at the start is taken off: one that came meanwhile is still to be met
            // (argo-cd: controller/appcontroller.go, persistAppStatus patches from the original annotations).
            if matches!(level, Level::Normal | Level::Hard) {
                remove(app, &["metadata", "annotations", REFRESH]);
            }
            let unchanged_error = comparison.source_type.is_none()
                && has_condition(app, &comparison.conditions)
                && level == Level::Resync;
            set(app, &["status", "controllerNamespace"], json!(NAMESPACE));
            if let Some(health) = comparison.health {
                set_health(app, health, &now);
            } else if get(app, &["status", "health", "status"]).is_none() {
                set_health(app, Health::Unknown, &now);
            }
            if level != Level::Live && !unchanged_error || get(app, &["status", "reconciledAt"]).is_none() {
                set(app, &["status", "reconciledAt"], json!(now));
            }
            set(app, &["status", "resourceHealthSource"], json!("appTree"));
            set(app, &["status", "resources"], json!(comparison.resources));
            set(app, &["status", "sourceHydrator"], json!({}));
            match comparison.source_type {
                Some(kind) => set(app, &["status", "sourceType"], json!(kind)),
                None => drop(remove(app, &["status", "sourceType"])),
            }
            if comparison.source_type.is_some() {
                set(
                    app,
                    &["status", "summary"],
                    if comparison.images.is_empty() { json!({}) } else { json!({ "images": comparison.images }) },
                );
            }
            let mut sync = json!({ "comparedTo": compared_to(app) });
            let (field, value) = revisions_field(app, &comparison.revisions);
            set(&mut sync, &[field], value);
            set(&mut sync, &["status"], json!(comparison.sync));
            set(app, &["status", "sync"], sync);
            set_conditions(app, &comparison.conditions, &now);
        });
    }
}

fn covers_object(rule: &Value, object: &Value) -> bool {
    let group = text(object, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
    let is =
        |field: &str, value: &str| text(rule, &[field]).is_empty() || super::project::glob(text(rule, &[field]), value);
    is("group", group)
        && is("kind", text(object, &["kind"]))
        && is("name", text(object, &["metadata", "name"]))
        && is("namespace", text(object, &["metadata", "namespace"]))
}

fn ordered(entry: &Value) -> Value {
    let mut new = json!({});
    for field in ["group", "kind", "name", "namespace", "requiresPruning", "status", "version"] {
        if let Some(value) = entry.get(field) {
            set(&mut new, &[field], value.clone());
        }
    }
    new
}

fn many(app: &Value) -> bool {
    !list(app, &["spec", "sources"]).is_empty()
}

/// `revision` of a single source, `revisions` of several.
pub fn revisions_field(app: &Value, revisions: &[String]) -> (&'static str, Value) {
    if many(app) {
        ("revisions", json!(revisions))
    } else {
        ("revision", json!(revisions.first().map(String::as_str).unwrap_or_default()))
    }
}

/// Writes revision and source (or their plurals) the way operations, results and history have them.
pub fn put_revisions(into: &mut Value, app: &Value, revisions: &[String]) {
    let (field, value) = revisions_field(app, revisions);
    set(into, &[field], value);
    let source = if many(app) { "sources" } else { "source" };
    if let Some(found) = get(app, &["spec", source]) {
        set(into, &[source], found.clone());
    }
}

fn compared_to(app: &Value) -> Value {
    let mut compared = json!({});
    for field in ["destination", "source", "sources", "ignoreDifferences"] {
        if let Some(value) = get(app, &["spec", field]) {
            set(&mut compared, &[field], value.clone());
        }
    }
    compared
}

fn set_health(app: &mut Value, health: Health, now: &str) {
    if text(app, &["status", "health", "status"]) != health.word() {
        set(app, &["status", "health"], json!({ "lastTransitionTime": now, "status": health.word() }));
    }
}

fn has_condition(app: &Value, conditions: &[(&'static str, String)]) -> bool {
    let found = list(app, &["status", "conditions"]);
    conditions.iter().all(|(kind, message)| {
        found.iter().any(|known| text(known, &["type"]) == *kind && text(known, &["message"]) == message)
    })
}

/// Presence is activity; an unchanged condition keeps its time.
fn set_conditions(app: &mut Value, conditions: &[(&'static str, String)], now: &str) {
    let before = list(app, &["status", "conditions"]).to_vec();
    let new: Vec<Value> = conditions
        .iter()
        .map(|(kind, message)| {
            let same =
                before.iter().find(|known| text(known, &["type"]) == *kind && text(known, &["message"]) == message);
            same.cloned().unwrap_or_else(|| json!({ "lastTransitionTime": now, "message": message, "type": kind }))
        })
        .collect();
    if new.is_empty() {
        remove(app, &["status", "conditions"]);
    } else {
        set(app, &["status", "conditions"], Value::Array(new));
    }
}
