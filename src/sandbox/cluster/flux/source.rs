//! The GitRepository controller.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::gitread::Unread;
use super::super::json::{flag, get, number, set, text};
use super::conditions::{drop as forget, put};
use super::{Item, Memory, REQUESTED};

/// One reconciliation.
pub async fn reconcile(item: &Item, object: &Value, memory: &mut Memory) {
    let clock = item.shared.clock();
    if get(object, &["metadata", "deletionTimestamp"]).is_some() {
        item.release();
        return;
    }
    item.claim(object);
    if flag(object, &["spec", "suspend"]) {
        memory.due = None;
        memory.due.get_or_insert(Instant::now() + Duration::from_secs(3600));
        return;
    }
    let (generation, observed) =
        (number(object, &["metadata", "generation"], 1), number(object, &["status", "observedGeneration"], -1));
    let stored = text(object, &["status", "artifact", "revision"]).to_owned();
    let now = item.now();
    if observed == generation {
        item.status(|new| put(new, &now, "Reconciling", "True", "Progressing", "reconciliation in progress"));
    } else {
        let message = format!("processing object: new generation {observed} -> {generation}");
        item.status(|new| {
            put(new, &now, "Reconciling", "True", "Progressing", &message);
            if memory.failures == 0 {
                put(new, &now, "Ready", "Unknown", "Progressing", &message);
            }
        });
    }
    if stored.is_empty() {
        clock.millis(6).await;
        item.status(|new| {
            put(new, &now, "Reconciling", "True", "Progressing", "building artifact");
            put(new, &now, "Ready", "Unknown", "Progressing", "building artifact");
        });
    }
    clock.millis(60).await;
    let (url, reference) = (text(object, &["spec", "url"]), reference_of(object));
    match item.shared.git.resolve(url, &reference).await {
        Err(why) => fail(item, object, memory, &failure(url, &reference, &why)).await,
        Ok(commit) => {
            let shown = text(object, &["spec", "ref", "branch"]);
            let shown = if shown.is_empty() { reference.clone() } else { shown.to_owned() };
            let revision = if text(object, &["spec", "ref", "commit"]).is_empty() {
                format!("{shown}@sha1:{commit}")
            } else {
                format!("sha1:{commit}")
            };
            store(item, object, memory, &stored, &revision, &commit).await;
        }
    }
}

/// The ref that Flux checks out (commit wins over name, tag and branch).
fn reference_of(object: &Value) -> String {
    let of = |field: &str| text(object, &["spec", "ref", field]).to_owned();
    [of("commit"), of("name"), of("tag"), of("branch")]
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_else(|| "master".to_owned())
}

fn failure(url: &str, reference: &str, why: &Unread) -> String {
    let words = match why {
        Unread::NoRef if reference.starts_with("refs/") => {
            format!("couldn't find remote ref {reference:?}")
        }
        Unread::NoRef => format!("couldn't find remote ref \"refs/heads/{reference}\""),
        Unread::Failed(words) => words.clone(),
    };
    format!("failed to checkout and determine revision: unable to clone '{url}': {words}")
}

async fn fail(item: &Item, object: &Value, memory: &mut Memory, message: &str) {
    let now = item.now();
    let handled = text(object, &["metadata", "annotations", REQUESTED]).to_owned();
    item.status(|new| {
        put(new, &now, "Reconciling", "True", "ProgressingWithRetry", "building artifact");
        put(new, &now, "Ready", "False", "GitOperationFailed", message);
        put(new, &now, "FetchFailed", "True", "GitOperationFailed", message);
        if !handled.is_empty() {
            set(new, &["status", "lastHandledReconcileAt"], json!(handled));
        }
    });
    memory.failures += 1;
    let wait = Duration::from_millis(750).saturating_mul(2_u32.saturating_pow(memory.failures.min(10)));
    memory.due =
        Some(Instant::now() + item.shared.clock().scaled(wait.min(Item::spec_duration(object, "interval", 60))));
}

async fn store(item: &Item, object: &Value, memory: &mut Memory, stored: &str, revision: &str, commit: &str) {
    let clock = item.shared.clock();
    if stored != revision {
        let now = item.now();
        let building = format!("building artifact: new upstream revision '{revision}'");
        item.status(|new| {
            forget(new, "FetchFailed");
            put(new, &now, "Reconciling", "True", "Progressing", &building);
            put(new, &now, "Ready", "Unknown", "Progressing", &building);
            if !stored.is_empty() {
                put(
                    new,
                    &now,
                    "ArtifactOutdated",
                    "True",
                    "NewRevision",
                    &format!("new upstream revision '{revision}'"),
                );
            }
        });
        clock.millis(12).await;
    }
    let now = item.now();
    let message = format!("stored artifact for revision '{revision}'");
    item.status(|new| {
        for gone in ["Reconciling", "FetchFailed", "ArtifactOutdated"] {
            forget(new, gone);
        }
        put(new, &now, "Ready", "True", "Succeeded", &message);
        put(new, &now, "ArtifactInStorage", "True", "Succeeded", &message);
    });
    clock.millis(5).await;
    let path = format!("gitrepository/{}/{}/{commit}.tar.gz", item.namespace, item.name);
    let url = format!("http://source-controller.{}.svc.cluster.local./{path}", item.namespace);
    let handled = text(object, &["metadata", "annotations", REQUESTED]).to_owned();
    item.status(|new| {
        if stored != revision {
            set(new, &["status", "artifact"], json!({
                "digest": digest(&path), "lastUpdateTime": now, "path": path, "revision": revision, "size": 306, "url": url,
            }));
        }
        let generation = number(object, &["metadata", "generation"], 1);
        set(new, &["status", "observedGeneration"], json!(generation));
        if !handled.is_empty() {
            set(new, &["status", "lastHandledReconcileAt"], json!(handled));
        }
    });
    memory.failures = 0;
    memory.due = Some(Instant::now() + clock.scaled(Item::spec_duration(object, "interval", 60)));
}

/// `sha256:…` of a text.
pub fn digest(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
