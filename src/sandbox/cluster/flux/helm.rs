//! The HelmRelease controller, for one tiny fixed chart: a Deployment from `image` and `replicas`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::clock::print_duration;
use super::super::json::{flag, get, list, number, set, text};
use super::super::rollout::sorted;
use super::super::store::{Propagation, Write};
use super::conditions::{drop as forget, put};
use super::source::digest;
use super::{Item, Memory, REQUESTED, Watched, commit_of, source_of};

const FULFILLING: &str = "Fulfilling prerequisites";

struct Release<'a> {
    item: &'a Item,
    object: &'a Value,
    name: String,
    namespace: String,
    chart: String,
    timeout: Duration,
}

/// One reconciliation.
pub async fn reconcile(item: &Item, object: &Value, memory: &mut Memory) {
    let clock = item.shared.clock();
    let release = Release::of(item, object);
    if get(object, &["metadata", "deletionTimestamp"]).is_some() {
        if let Some(kind) = item.shared.store.kinds.by_kind("apps", "Deployment") {
            drop(item.shared.store.delete(&kind, &release.namespace, &release.name, Propagation::Background, false));
        }
        item.release();
        return;
    }
    item.claim(object);
    let later = |wait: Duration| Some(Instant::now() + clock.scaled(wait));
    memory.due = later(Item::spec_duration(object, "interval", 60));
    if flag(object, &["spec", "suspend"]) {
        return;
    }
    let Some((_, revision)) = source_of(&item.shared, object, &["spec", "chart", "spec", "sourceRef"])
        .filter(|(_, revision)| !revision.is_empty())
    else {
        let now = item.now();
        item.status(|new| {
            put(new, &now, "Reconciling", "True", "Progressing", FULFILLING);
            let chart = format!("{}/{}-{}", item.namespace, item.namespace, item.name);
            put(
                new,
                &now,
                "Ready",
                "False",
                "SourceNotReady",
                &format!("HelmChart '{chart}' is not ready: latest generation of object has not been reconciled"),
            );
        });
        memory.due = later(Duration::from_secs(1));
        return;
    };
    let release = Release { chart: release.version_at(&revision), ..release };
    if !release.needed() {
        release.settle();
        return;
    }
    let retries = number(
        object,
        &["spec", if release.history().is_empty() { "install" } else { "upgrade" }, "remediation", "retries"],
        0,
    );
    if !release.run(memory).await {
        memory.failures += 1;
        if i64::from(memory.failures) > retries {
            release.stalled(memory.failures);
        } else {
            memory.due = later(Duration::from_secs(5));
        }
    } else {
        memory.failures = 0;
    }
}

impl<'a> Release<'a> {
    fn of(item: &'a Item, object: &'a Value) -> Self {
        let namespace = match text(object, &["spec", "targetNamespace"]) {
            "" => item.namespace.clone(),
            named => named.to_owned(),
        };
        let name = match (text(object, &["spec", "releaseName"]), text(object, &["spec", "targetNamespace"])) {
            ("", "") => item.name.clone(),
            ("", target) => format!("{target}-{}", item.name),
            (named, _) => named.to_owned(),
        };
        Self {
            item,
            object,
            name,
            namespace,
            chart: String::new(),
            timeout: Item::spec_duration(object, "timeout", 300),
        }
    }

    /// With `reconcileStrategy: Revision` every commit is a new chart version.
    fn version_at(&self, revision: &str) -> String {
        let by_revision = text(self.object, &["spec", "chart", "spec", "reconcileStrategy"]) == "Revision";
        let short: String = commit_of(revision).chars().take(12).collect();
        if by_revision { format!("0.1.0+{short}") } else { "0.1.0".to_owned() }
    }

    fn values(&self) -> Value {
        get(self.object, &["spec", "values"]).cloned().unwrap_or_else(|| json!({}))
    }

    fn config_digest(values: &Value) -> String {
        digest(&sorted(values).to_string())
    }

    fn history(&self) -> Vec<Value> {
        self.item.object().map(|object| list(&object, &["status", "history"]).to_vec()).unwrap_or_default()
    }

    fn needed(&self) -> bool {
        let history = self.history();
        let deployed = history.first().filter(|entry| text(entry, &["status"]) == "deployed");
        let same = deployed.is_some_and(|entry| {
            text(entry, &["chartVersion"]) == self.chart
                && text(entry, &["configDigest"]) == Self::config_digest(&self.values())
        });
        let tried = number(self.object, &["status", "lastAttemptedGeneration"], 0)
            == number(self.object, &["metadata", "generation"], 1)
            && text(self.object, &["status", "lastAttemptedRevision"]) == self.chart;
        let stalled = super::super::health::condition(self.object, "Stalled", "status") == "True";
        !(same || tried && stalled)
    }

    fn settle(&self) {
        let handled = text(self.object, &["metadata", "annotations", REQUESTED]).to_owned();
        let generation = number(self.object, &["metadata", "generation"], 1);
        self.item.status(|new| {
            set(new, &["status", "observedGeneration"], json!(generation));
            if !handled.is_empty() {
                set(new, &["status", "lastHandledReconcileAt"], json!(handled));
            }
        });
    }

    async fn run(&self, memory: &mut Memory) -> bool {
        let (item, clock) = (self.item, self.item.shared.clock());
        let history = self.history();
        let action = if history.is_empty() { "install" } else { "upgrade" };
        let now = item.now();
        item.status(|new| {
            forget(new, "Stalled");
            put(new, &now, "Reconciling", "True", "Progressing", FULFILLING);
        });
        clock.millis(15).await;
        let doing = format!("Running '{action}' action with timeout of {}", print_duration(self.timeout));
        item.status(|new| {
            put(new, &now, "Reconciling", "True", "Progressing", &doing);
            put(new, &now, "Ready", "Unknown", "Progressing", &doing);
        });
        clock.millis(5).await;
        let values = self.values();
        let config = Self::config_digest(&values);
        let generation = number(self.object, &["metadata", "generation"], 1);
        item.status(|new| {
            for (field, value) in [
                ("lastAttemptedConfigDigest", json!(config)),
                ("lastAttemptedGeneration", json!(generation)),
                ("lastAttemptedReleaseAction", json!(action)),
                ("lastAttemptedRevision", json!(self.chart)),
                ("helmChart", json!(format!("{}/{}-{}", item.namespace, item.namespace, item.name))),
                ("storageNamespace", json!(item.namespace)),
            ] {
                set(new, &["status", field], value);
            }
        });
        let started = Instant::now();
        clock.millis(120).await;
        let version = history.first().map_or(0, |entry| number(entry, &["version"], 0)) + 1;
        let done = self.deploy(&values).await;
        let took = print_duration(started.elapsed().mul_f64(item.shared.options.speed));
        match done {
            Ok(()) => {
                memory.releases.push((version, values));
                self.succeeded(action, version, &config, &took).await;
                true
            }
            Err(words) => {
                self.failed(action, version, &config, &took, &words).await;
                self.roll_back(memory, version, &words).await;
                false
            }
        }
    }

    /// Applies what the chart renders and waits for it.
    async fn deploy(&self, values: &Value) -> Result<(), String> {
        let shared = &self.item.shared;
        if flag(self.object, &["spec", "install", "createNamespace"]) {
            drop(shared.ensure_namespace(&self.namespace));
        }
        let object = self.render(values);
        let kind = shared.store.kinds.of(&object).ok_or("no Deployment kind")?;
        let applied = shared.store.apply(&kind, &self.namespace, "helm-controller", &object, Write::default());
        applied.map_err(|failure| failure.message)?;
        let inventory =
            json!({ "entries": [{ "id": format!("{}_{}_apps_Deployment", self.namespace, self.name), "v": "v1" }] });
        self.item.status(|new| set(new, &["status", "inventory"], inventory));
        self.item.healthy(&[Watched::of(&object)], self.timeout).await.map(|_| ()).map_err(|(_, words)| words)
    }

    fn render(&self, values: &Value) -> Value {
        let or = |path: &[&str], default: &str| match text(values, path) {
            "" => default.to_owned(),
            found => found.to_owned(),
        };
        let image = match get(values, &["image"]) {
            Some(Value::String(image)) => image.clone(),
            _ => format!("{}:{}", or(&["image", "repository"], "nginx"), or(&["image", "tag"], "1.27")),
        };
        let labels = json!({ "app": self.name });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": self.name, "namespace": self.namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": "Helm",
                    "helm.toolkit.fluxcd.io/name": self.item.name, "helm.toolkit.fluxcd.io/namespace": self.item.namespace,
                },
                "annotations": { "meta.helm.sh/release-name": self.name, "meta.helm.sh/release-namespace": self.namespace },
            },
            "spec": {
                "replicas": number(values, &["replicas"], number(values, &["replicaCount"], 2)),
                "progressDeadlineSeconds": number(values, &["progressDeadlineSeconds"], 15),
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "web", "image": image }] } },
            },
        })
    }

    fn label(&self, version: i64) -> String {
        format!("release {}/{}.v{version} with chart shop@{}", self.namespace, self.name, self.chart)
    }

    fn entry(&self, action: &str, version: i64, config: &str, status: &str) -> Value {
        let now = self.item.now();
        json!({
            "action": action, "apiVersion": "v2", "chartName": "shop", "chartVersion": self.chart, "configDigest": config,
            "digest": digest(&format!("{}{config}{version}", self.chart)), "firstDeployed": now, "lastDeployed": now,
            "name": self.name, "namespace": self.namespace, "status": status, "version": version,
        })
    }

    fn record(&self, new: &mut Value, entry: Value) {
        let mut history = list(new, &["status", "history"]).to_vec();
        if text(&entry, &["status"]) == "deployed" {
            for old in history.iter_mut().filter(|old| text(old, &["status"]) == "deployed") {
                set(old, &["status"], json!("superseded"));
            }
        }
        history.insert(0, entry);
        history.truncate(5);
        set(new, &["status", "history"], Value::Array(history));
    }

    async fn succeeded(&self, action: &str, version: i64, config: &str, took: &str) {
        let (item, clock) = (self.item, self.item.shared.clock());
        let reason = if action == "install" { "InstallSucceeded" } else { "UpgradeSucceeded" };
        let message = format!("Helm {action} succeeded for {}", self.label(version));
        let now = item.now();
        item.status(|new| {
            forget(new, "Remediated");
            put(new, &now, "Ready", "True", reason, &message);
            put(new, &now, "Released", "True", reason, &message);
        });
        clock.millis(6).await;
        item.status(|new| {
            self.record(new, self.entry(action, version, config, "deployed"));
            set(new, &["status", "lastAttemptedReleaseActionDuration"], json!(took));
        });
        clock.millis(6).await;
        item.status(|new| forget(new, "Reconciling"));
        clock.millis(5).await;
        self.settle();
    }

    async fn failed(&self, action: &str, version: i64, config: &str, took: &str, words: &str) {
        let item = self.item;
        let reason = if action == "install" { "InstallFailed" } else { "UpgradeFailed" };
        let message = format!(
            "Helm {action} failed for release {}/{} with chart shop@{}: {words}",
            self.namespace, self.name, self.chart
        );
        let now = item.now();
        item.status(|new| {
            put(new, &now, "Ready", "False", reason, &message);
            put(new, &now, "Released", "False", reason, &message);
        });
        item.shared.clock().millis(5).await;
        item.status(|new| {
            self.record(new, self.entry(action, version, config, "failed"));
            set(new, &["status", "lastAttemptedReleaseActionDuration"], json!(took));
        });
    }

    /// Remediation: the last release that worked, deployed again.
    async fn roll_back(&self, memory: &mut Memory, version: i64, _why: &str) {
        let (item, clock) = (self.item, self.item.shared.clock());
        let wanted = number(self.object, &["spec", "upgrade", "remediation", "retries"], 0) != 0
            || flag(self.object, &["spec", "upgrade", "remediation", "remediateLastFailure"]);
        let Some((last, values)) = memory.releases.last().cloned().filter(|_| wanted) else {
            return;
        };
        let doing = format!("Running 'rollback' action with timeout of {}", print_duration(self.timeout));
        let now = item.now();
        item.status(|new| put(new, &now, "Reconciling", "True", "Progressing", &doing));
        clock.millis(100).await;
        if self.deploy(&values).await.is_err() {
            return;
        }
        let message = format!("Helm rollback to previous {} succeeded", self.label(last));
        let now = item.now();
        item.status(|new| {
            put(new, &now, "Reconciling", "True", "ProgressingWithRetry", &message);
            put(new, &now, "Ready", "False", "RollbackSucceeded", &message);
            put(new, &now, "Remediated", "True", "RollbackSucceeded", &message);
            self.record(new, self.entry("rollback", version + 1, &Self::config_digest(&values), "deployed"));
        });
    }

    fn stalled(&self, attempts: u32) {
        let now = self.item.now();
        let message = format!("Failed to upgrade after {attempts} attempt(s)");
        self.item.status(|new| {
            forget(new, "Reconciling");
            put(new, &now, "Stalled", "True", "RetriesExceeded", &message);
        });
        self.settle();
    }
}
