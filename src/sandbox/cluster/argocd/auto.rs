//! Auto-sync and self-heal: when the controller posts an operation by itself
//! (argo-cd: controller/appcontroller.go, autoSync).

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::json::{flag, get, list, number, remove, set, text};
use super::App;
use super::compare::{Comparison, put_revisions};

impl App {
    /// The operation that auto-sync posts, if it does (argo-cd: controller/appcontroller.go, autoSync).
    pub(super) fn automatic(&mut self, app: &Value, comparison: &mut Comparison) -> Option<Value> {
        if !Self::automated(app) || comparison.sync != "OutOfSync" || app.get("operation").is_some_and(Value::is_object)
        {
            return None;
        }
        let automated = ["spec", "syncPolicy", "automated"];
        let prune = get(app, &automated).is_some_and(|automated| flag(automated, &["prune"]));
        if !prune && comparison.out_of_sync().all(|entry| flag(entry, &["requiresPruning"])) {
            return None;
        }
        let state = get(app, &["status", "operationState"]).unwrap_or(&Value::Null);
        if text(state, &["phase"]) == "Running" || !self.window_open(app, false) {
            return None;
        }
        if prune
            && !flag(app, &["spec", "syncPolicy", "automated", "allowEmpty"])
            && comparison.resources.iter().all(|entry| flag(entry, &["requiresPruning"]))
        {
            let revision = comparison.revisions.first().cloned().unwrap_or_default();
            comparison.conditions.push((
                "SyncError",
                format!("Skipping sync attempt to {revision}: auto-sync will wipe out all resources"),
            ));
            return None;
        }
        if synced_revisions(state) != comparison.revisions || !same_sources(app, state) {
            return Some(self.operation(app, comparison, None));
        }
        if matches!(text(state, &["phase"]), "Failed" | "Error") {
            let revision = comparison.revisions.join(" ");
            comparison.conditions.push((
                "SyncError",
                format!("Failed last sync attempt to [{revision}]: {}", text(state, &["message"])),
            ));
            return None;
        }
        self.heal(app, state, comparison)
    }

    /// Self-heal: the same revision again, for the objects that differ, ever more slowly.
    pub(super) fn heal(&mut self, app: &Value, state: &Value, comparison: &Comparison) -> Option<Value> {
        if !flag(app, &["spec", "syncPolicy", "automated", "selfHeal"]) {
            return None;
        }
        let attempts = number(state, &["operation", "sync", "autoHealAttemptsCount"], 0);
        let wait =
            if attempts == 0 { 0 } else { 2 * 3_i64.saturating_pow(u32::try_from(attempts - 1).unwrap_or(6).min(5)) };
        let finished = DateTime::parse_from_rfc3339(text(state, &["finishedAt"])).ok()?.with_timezone(&Utc);
        let passed = (self.shared.clock().now() - finished).to_std().unwrap_or_default();
        let wait = self.shared.clock().scaled(Duration::from_secs(u64::try_from(wait.min(300)).unwrap_or(0)));
        if passed < wait {
            self.heal = Some(Instant::now() + (wait - passed));
            return None;
        }
        Some(self.operation(app, comparison, Some(attempts + 1)))
    }

    /// An automated operation; with a count it is a self-heal of what differs.
    pub(super) fn operation(&self, app: &Value, comparison: &Comparison, heal: Option<i64>) -> Value {
        let mut sync = json!({});
        if let Some(attempts) = heal {
            set(&mut sync, &["autoHealAttemptsCount"], json!(attempts));
        }
        if flag(app, &["spec", "syncPolicy", "automated", "prune"]) {
            set(&mut sync, &["prune"], json!(true));
        }
        if heal.is_some() {
            let resources: Vec<Value> = comparison
                .out_of_sync()
                .map(|entry| {
                    let mut named = json!({});
                    for field in ["group", "kind", "name"] {
                        if let Some(value) = entry.get(field) {
                            set(&mut named, &[field], value.clone());
                        }
                    }
                    named
                })
                .collect();
            set(&mut sync, &["resources"], json!(resources));
        }
        put_revisions(&mut sync, app, &comparison.revisions);
        if let Some(options) = get(app, &["spec", "syncPolicy", "syncOptions"]) {
            set(&mut sync, &["syncOptions"], options.clone());
        }
        let retry = get(app, &["spec", "syncPolicy", "retry"]).cloned().unwrap_or_else(|| json!({ "limit": 5 }));
        json!({ "initiatedBy": { "automated": true }, "retry": retry, "sync": sync })
    }

    /// Requests an operation; the state of the one before goes with it.
    pub(super) fn post(&self, operation: &Value) {
        self.edit(|app| {
            if app.get("status").is_none() {
                set(
                    app,
                    &["status"],
                    json!({
                        "health": {}, "sourceHydrator": {}, "summary": {},
                        "sync": { "comparedTo": { "destination": {}, "source": { "repoURL": "" } }, "status": "" },
                    }),
                );
            }
            set(app, &["operation"], operation.clone());
            remove(app, &["status", "operationState"]);
        });
    }
}

fn synced_revisions(state: &Value) -> Vec<String> {
    let of = |path: &[&str]| list(state, path).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let plural = of(&["syncResult", "revisions"]);
    if !plural.is_empty() {
        return plural;
    }
    let single = text(state, &["syncResult", "revision"]);
    if single.is_empty() { Vec::new() } else { vec![single.to_owned()] }
}

fn same_sources(app: &Value, state: &Value) -> bool {
    ["source", "sources"].iter().all(|field| get(app, &["spec", field]) == get(state, &["syncResult", field]))
}
