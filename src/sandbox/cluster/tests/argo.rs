//! The Argo-like controller against what the recordings show.

use serde_json::{Value, json};

use super::world::{Repo, app_until, application, deployment, recorder, refresh, sandbox, synced_and_healthy};
use crate::sandbox::cluster::json::{get, number, text};
use crate::sandbox::cluster::{ClusterOptions, ClusterSandbox};

/// The Application's states in a recording, as `(what, …)` words in order, without repetitions.
fn story(lines: &[Value], name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for line in lines
        .iter()
        .filter(|line| line["object"]["kind"] == "Application" && line["object"]["metadata"]["name"] == name)
    {
        let app = &line["object"];
        let state = get(app, &["status", "operationState"]);
        let word = format!(
            "op={} phase={} sync={} health={}",
            if app.get("operation").is_none() {
                "-"
            } else if number(app, &["operation", "sync", "autoHealAttemptsCount"], 0) > 0 {
                "heal"
            } else {
                "auto"
            },
            state.map_or("-", |state| text(state, &["phase"])),
            text(app, &["status", "sync", "status"]),
            text(app, &["status", "health", "status"]),
        );
        if words.last() != Some(&word) {
            words.push(word);
        }
    }
    words
}

fn position(lines: &[Value], what: &str, holds: impl Fn(&Value) -> bool) -> usize {
    lines.iter().position(|line| holds(&line["object"])).unwrap_or_else(|| panic!("{what} is not in the recording"))
}

#[tokio::test]
async fn a_new_image_goes_through_stale_healthy_and_a_second_operation() {
    let repo = Repo::new();
    repo.commit("initial", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.27", 2)))]);
    // Slow pods keep the order of the story safe on a busy machine.
    let options =
        ClusterOptions { speed: 1.0, pod_ready: std::time::Duration::from_millis(900), ..ClusterOptions::default() };
    let sandbox = ClusterSandbox::start(options).await.unwrap();
    let all = recorder(&sandbox);
    sandbox.apply(&application("a1", &repo, json!({}))).unwrap();
    app_until(&sandbox, "a1", "the first sync", |app| text(app, &["status", "health", "status"]) == "Healthy").await;
    let first = all.lock().unwrap().clone();
    assert_eq!(
        story(&first, "a1"),
        [
            "op=- phase=- sync= health=",
            "op=auto phase=- sync= health=",
            "op=auto phase=- sync=OutOfSync health=Missing",
            "op=auto phase=Running sync=OutOfSync health=Missing",
            "op=- phase=Succeeded sync=OutOfSync health=Missing",
            "op=- phase=Succeeded sync=Synced health=Progressing",
            "op=- phase=Succeeded sync=Synced health=Healthy",
        ],
        "argo-first-sync.jsonl"
    );
    let commit = repo.commit("image", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.28", 2)))]);
    refresh(&sandbox, "a1", "normal");
    app_until(&sandbox, "a1", "the second commit", |app| {
        synced_and_healthy(app, &commit)
            && text(app, &["status", "operationState", "syncResult", "resources", "0", "message"])
                .ends_with("unchanged")
    })
    .await;
    let lines = all.lock().unwrap().split_off(first.len());
    assert_eq!(
        story(&lines, "a1"),
        [
            "op=- phase=Succeeded sync=Synced health=Healthy",
            "op=auto phase=- sync=Synced health=Healthy",
            "op=auto phase=- sync=OutOfSync health=Healthy",
            "op=auto phase=Running sync=OutOfSync health=Healthy",
            "op=- phase=Succeeded sync=OutOfSync health=Healthy",
            "op=heal phase=- sync=OutOfSync health=Healthy",
            "op=heal phase=Running sync=OutOfSync health=Healthy",
            "op=heal phase=Running sync=Synced health=Progressing",
            "op=- phase=Succeeded sync=Synced health=Progressing",
            "op=- phase=Succeeded sync=Synced health=Healthy",
        ],
        "argo-image-ok.jsonl"
    );
    let stale = position(&lines, "a stale Healthy", |object| {
        text(object, &["kind"]) == "Application"
            && text(object, &["status", "operationState", "phase"]) == "Succeeded"
            && text(object, &["status", "operationState", "syncResult", "revision"]) == commit
            && text(object, &["status", "health", "status"]) == "Healthy"
    });
    let observed = position(&lines, "the observed generation", |object| {
        text(object, &["kind"]) == "Deployment" && number(object, &["status", "observedGeneration"], 0) == 2
    });
    let live = position(&lines, "the finished rollout", |object| {
        text(object, &["kind"]) == "Deployment"
            && number(object, &["status", "updatedReplicas"], 0) == 2
            && number(object, &["status", "replicas"], 0) == 2
            && number(object, &["status", "observedGeneration"], 0) == 2
    });
    assert!(stale < observed && observed < live, "{stale} {observed} {live}");
    let app = sandbox.get("argoproj.io", "Application", "argocd", "a1").unwrap();
    let history: Vec<&str> =
        app["status"]["history"].as_array().unwrap().iter().map(|entry| entry["revision"].as_str().unwrap()).collect();
    assert_eq!(history.len(), 2, "a self-heal leaves no entry");
    assert_eq!(history[1], commit);
    let live = sandbox.get("apps", "Deployment", "a1", "a1").unwrap();
    assert_eq!(text(&live, &["metadata", "annotations", "argocd.argoproj.io/tracking-id"]), "a1:apps/Deployment:a1/a1");
}

fn message(app: &Value) -> &str {
    text(app, &["status", "operationState", "message"])
}

fn short_retry() -> Value {
    json!({ "spec": { "syncPolicy": { "retry": { "limit": 2, "backoff": { "duration": "2s", "factor": 2, "maxDuration": "10s" } } } } })
}

#[tokio::test]
async fn a_missing_image_is_degraded_and_its_revert_heals() {
    let repo = Repo::new();
    repo.commit("initial", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.27", 2)))]);
    let sandbox = sandbox(20.0).await;
    sandbox.apply(&application("a1", &repo, json!({}))).unwrap();
    app_until(&sandbox, "a1", "the first sync", |app| text(app, &["status", "health", "status"]) == "Healthy").await;
    let bad = repo.commit("missing", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:missing", 2)))]);
    refresh(&sandbox, "a1", "normal");
    let degraded =
        app_until(&sandbox, "a1", "Degraded", |app| text(app, &["status", "health", "status"]) == "Degraded").await;
    assert_eq!(text(&degraded, &["status", "sync", "revision"]), bad);
    assert_eq!(text(&degraded, &["status", "sync", "status"]), "Synced");
    assert_eq!(text(&degraded, &["status", "operationState", "phase"]), "Succeeded", "applied is not healthy");
    let revert = repo.commit("revert", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.27", 2)))]);
    refresh(&sandbox, "a1", "normal");
    app_until(&sandbox, "a1", "the revert", |app| synced_and_healthy(app, &revert)).await;
}

#[tokio::test]
async fn a_failing_revision_is_retried_and_holds_the_next_one_back() {
    let repo = Repo::new();
    repo.commit("initial", &[("c1/deploy.yaml", Some(&deployment("c1", "nginx:1.27", 2)))]);
    let sandbox = sandbox(10.0).await;
    sandbox.apply(&application("c1", &repo, short_retry())).unwrap();
    app_until(&sandbox, "c1", "the first sync", |app| text(app, &["status", "health", "status"]) == "Healthy").await;
    let bad = repo.commit("bad", &[("c1/deploy.yaml", Some(&deployment("c1", "nginx:1.27", -1)))]);
    refresh(&sandbox, "c1", "normal");
    let first = app_until(&sandbox, "c1", "the first failure", |app| {
        number(app, &["status", "operationState", "retryCount"], 0) == 1
    })
    .await;
    assert_eq!(text(&first, &["status", "operationState", "phase"]), "Running");
    assert!(
        get(&first, &["status", "operationState", "finishedAt"]).is_some(),
        "waiting to retry is Running with finishedAt"
    );
    assert!(
        message(&first).starts_with("one or more objects failed to apply, reason: error when patching \"/dev/shm/"),
        "{}",
        message(&first)
    );
    assert!(message(&first).contains("Deployment.apps \"c1\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0. Retrying attempt #1 at "), "{}", message(&first));
    let entry = &first["status"]["operationState"]["syncResult"]["resources"][0];
    assert_eq!((&entry["status"], &entry["hookPhase"]), (&json!("SyncFailed"), &json!("Failed")));
    let good = repo.commit("good", &[("c1/deploy.yaml", Some(&deployment("c1", "nginx:1.27", 3)))]);
    refresh(&sandbox, "c1", "normal");
    let held =
        app_until(&sandbox, "c1", "the fix to be compared", |app| text(app, &["status", "sync", "revision"]) == good)
            .await;
    assert_eq!(text(&held, &["operation", "sync", "revision"]), bad, "the engine is still busy with the bad commit");
    let failed = app_until(&sandbox, "c1", "the end of the retries", |app| {
        text(app, &["status", "operationState", "phase"]) == "Failed"
    })
    .await;
    assert!(message(&failed).ends_with("(retried 2 times)."), "{}", message(&failed));
    app_until(&sandbox, "c1", "the fix", |app| synced_and_healthy(app, &good)).await;
    assert_eq!(sandbox.get("apps", "Deployment", "c1", "c1").unwrap()["spec"]["replicas"], 3);
}

#[tokio::test]
async fn the_last_failure_leaves_a_sync_error_and_is_not_tried_again() {
    let repo = Repo::new();
    repo.commit(
        "bad",
        &[("c1/deploy.yaml", Some(&deployment("c1", "nginx:1.27", 2).replace("replicas:", "replica:")))],
    );
    let sandbox = sandbox(20.0).await;
    sandbox.apply(&application("c1", &repo, json!({ "spec": { "syncPolicy": { "retry": { "limit": 0 } } } }))).unwrap();
    let failed = app_until(&sandbox, "c1", "the SyncError", |app| {
        text(app, &["status", "conditions", "0", "type"]) == "SyncError"
    })
    .await;
    assert!(text(&failed, &["status", "conditions", "0", "message"]).starts_with("Failed last sync attempt to ["));
    assert!(message(&failed).contains("strict decoding error: unknown field \"spec.replica\""), "{}", message(&failed));
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let later = sandbox.get("argoproj.io", "Application", "argocd", "c1").unwrap();
    assert_eq!(later["status"]["operationState"]["startedAt"], failed["status"]["operationState"]["startedAt"]);
}

#[tokio::test]
async fn a_forbidden_kind_stops_the_sync_before_it_starts() {
    let repo = Repo::new();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c1\ndata:\n  a: b\n";
    repo.commit("initial", &[("d1/c.yaml", Some(config))]);
    let sandbox = sandbox(20.0).await;
    sandbox.apply(&json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": { "name": "strict2", "namespace": "argocd" },
        "spec": { "sourceRepos": ["*"], "destinations": [{ "server": "*", "namespace": "d1" }] },
    })).unwrap();
    sandbox.apply(&application("d1", &repo, json!({ "spec": { "project": "strict2", "syncPolicy": { "retry": { "limit": 1, "backoff": { "duration": "2s" } } } } }))).unwrap();
    app_until(&sandbox, "d1", "the first sync", |app| text(app, &["status", "sync", "status"]) == "Synced").await;
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: d1-x\nrules: []\n";
    repo.commit("role", &[("d1/role.yaml", Some(role))]);
    refresh(&sandbox, "d1", "normal");
    let failed =
        app_until(&sandbox, "d1", "the failure", |app| text(app, &["status", "operationState", "phase"]) == "Failed")
            .await;
    assert_eq!(
        message(&failed),
        "one or more synchronization tasks are not valid: resource rbac.authorization.k8s.io:ClusterRole is not permitted in project strict2 (retried 1 times)."
    );
    let removed = repo.commit("removed", &[("d1/role.yaml", None)]);
    refresh(&sandbox, "d1", "normal");
    let app = app_until(&sandbox, "d1", "the removal", |app| synced_and_healthy(app, &removed)).await;
    assert_eq!(text(&app, &["status", "operationState", "phase"]), "Failed", "no difference, no operation");
    assert!(get(&app, &["status", "conditions"]).is_none());
    sandbox.apply(&application("e1", &repo, json!({ "spec": { "project": "strict2" } }))).unwrap();
    let outside = app_until(&sandbox, "e1", "the refusal", |app| {
        text(app, &["status", "conditions", "0", "type"]) == "InvalidSpecError"
    })
    .await;
    assert!(
        text(&outside, &["status", "conditions", "0", "message"])
            .contains("do not match any of the allowed destinations in project 'strict2'")
    );
}

#[tokio::test]
async fn a_deleted_file_is_pruned_and_a_broken_one_is_a_comparison_error() {
    let repo = Repo::new();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: extra\n";
    repo.commit(
        "initial",
        &[("c1/deploy.yaml", Some(&deployment("c1", "nginx:1.27", 1))), ("c1/extra.yaml", Some(config))],
    );
    let sandbox = sandbox(20.0).await;
    sandbox.apply(&application("c1", &repo, json!({}))).unwrap();
    app_until(&sandbox, "c1", "the first sync", |app| text(app, &["status", "health", "status"]) == "Healthy").await;
    assert!(sandbox.get("", "ConfigMap", "c1", "extra").is_some());
    let pruned = repo.commit("delete", &[("c1/extra.yaml", None)]);
    refresh(&sandbox, "c1", "normal");
    let app = app_until(&sandbox, "c1", "the prune", |app| synced_and_healthy(app, &pruned)).await;
    assert_eq!(app["status"]["operationState"]["syncResult"]["resources"][0]["message"], "pruned");
    assert!(sandbox.get("", "ConfigMap", "c1", "extra").is_none());
    let ignored = repo.commit("notes", &[("c1/notes.yaml", Some("kind: [\n  - x: {"))]);
    refresh(&sandbox, "c1", "normal");
    // Nothing is rendered anew, so no operation comes either.
    let passed =
        app_until(&sandbox, "c1", "the next revision", |app| text(app, &["status", "sync", "revision"]) == ignored);
    let passed = passed.await;
    assert_eq!(text(&passed, &["status", "sync", "status"]), "Synced", "no word about what is no object");
    assert_eq!(text(&passed, &["status", "operationState", "syncResult", "revision"]), pruned);
    repo.commit("broken", &[("c1/deploy.yaml", Some("apiVersion: apps/v1\nmetadata:\n  name: x\nkind: [\n  - x: {"))]);
    refresh(&sandbox, "c1", "normal");
    let broken = app_until(&sandbox, "c1", "the error", |app| {
        text(app, &["status", "conditions", "0", "type"]) == "ComparisonError"
    })
    .await;
    assert!(text(&broken, &["status", "conditions", "0", "message"]).starts_with("Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = FailedPrecondition desc = Failed to unmarshal \"deploy.yaml\""));
    assert_eq!(text(&broken, &["status", "sync", "revision"]), "main", "the unresolved ref");
    assert_eq!(text(&broken, &["status", "sync", "status"]), "Unknown");
    assert_eq!(text(&broken, &["status", "health", "status"]), "Healthy");
    assert!(broken["status"].get("sourceType").is_none());
    let mut hits = 0;
    let cached = loop {
        refresh(&sandbox, "c1", "normal");
        let app = app_until(&sandbox, "c1", "the refresh", |app| {
            get(app, &["metadata", "annotations", "argocd.argoproj.io/refresh"]).is_none()
        })
        .await;
        hits += 1;
        if text(&app, &["status", "conditions", "0", "message"]).contains("Manifest generation error (cached)")
            || hits > 8
        {
            break app;
        }
    };
    assert!(text(&cached, &["status", "conditions", "0", "message"]).contains("Manifest generation error (cached)"));
    refresh(&sandbox, "c1", "hard");
    app_until(&sandbox, "c1", "a fresh error", |app| {
        !text(app, &["status", "conditions", "0", "message"]).contains("(cached)")
    })
    .await;
    let fixed = repo.commit("fixed", &[("c1/deploy.yaml", Some(&deployment("c1", "nginx:1.27", 1)))]);
    refresh(&sandbox, "c1", "normal");
    let app = app_until(&sandbox, "c1", "the fix", |app| synced_and_healthy(app, &fixed)).await;
    assert_eq!(
        text(&app, &["status", "operationState", "syncResult", "revision"]),
        pruned,
        "same manifests: no operation"
    );
    repo.commit("path gone", &[("c1/deploy.yaml", None), ("c1/notes.yaml", None)]);
    refresh(&sandbox, "c1", "normal");
    let gone = app_until(&sandbox, "c1", "the missing path", |app| {
        text(app, &["status", "conditions", "0", "type"]) == "ComparisonError"
    })
    .await;
    assert!(text(&gone, &["status", "conditions", "0", "message"]).ends_with("c1: app path does not exist"));
}

#[tokio::test]
async fn without_a_refresh_a_push_waits_for_the_cache_and_without_automation_for_a_person() {
    let repo = Repo::new();
    repo.commit("initial", &[("m1/deploy.yaml", Some(&deployment("m1", "nginx:1.27", 1)))]);
    let sandbox = sandbox(20.0).await;
    let mut app = application("m1", &repo, json!({}));
    app["spec"]["syncPolicy"].as_object_mut().unwrap().remove("automated");
    sandbox.apply(&app).unwrap();
    let waiting =
        app_until(&sandbox, "m1", "the comparison", |app| text(app, &["status", "sync", "status"]) == "OutOfSync")
            .await;
    assert_eq!(text(&waiting, &["status", "health", "status"]), "Missing");
    let old = text(&waiting, &["status", "sync", "revision"]).to_owned();
    let commit = repo.commit("image", &[("m1/deploy.yaml", Some(&deployment("m1", "nginx:1.28", 1)))]);
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    assert_eq!(
        sandbox.get("argoproj.io", "Application", "argocd", "m1").unwrap()["status"]["sync"]["revision"],
        json!(old),
        "resyncs trust the cached branch"
    );
    refresh(&sandbox, "m1", "normal");
    app_until(&sandbox, "m1", "the push", |app| text(app, &["status", "sync", "revision"]) == commit).await;
    let kind = sandbox.store().kinds.by_kind("argoproj.io", "Application").unwrap();
    let operation = json!({ "initiatedBy": { "username": "someone" }, "sync": { "prune": true, "revision": commit } });
    sandbox
        .store()
        .edit(&kind, "argocd", "m1", false, |app| crate::sandbox::cluster::json::set(app, &["operation"], operation))
        .unwrap();
    let done = app_until(&sandbox, "m1", "the manual sync", |app| synced_and_healthy(app, &commit)).await;
    assert_eq!(done["status"]["history"][0]["initiatedBy"]["username"], "someone");
}

#[tokio::test]
async fn drift_is_healed_windows_hold_and_two_owners_warn() {
    let repo = Repo::new();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: shared\n";
    repo.commit(
        "initial",
        &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.27", 2))), ("f1/c.yaml", Some(config))],
    );
    let sandbox = sandbox(20.0).await;
    sandbox.apply(&application("a1", &repo, json!({}))).unwrap();
    app_until(&sandbox, "a1", "the first sync", |app| text(app, &["status", "health", "status"]) == "Healthy").await;
    let kind = sandbox.store().kinds.by_kind("apps", "Deployment").unwrap();
    sandbox
        .store()
        .edit(&kind, "a1", "a1", false, |d| crate::sandbox::cluster::json::set(d, &["spec", "replicas"], json!(1)))
        .unwrap();
    app_until(&sandbox, "a1", "self-heal", |app| {
        number(app, &["status", "operationState", "operation", "sync", "autoHealAttemptsCount"], 0) > 0
    })
    .await;
    super::world::until(&sandbox, ("apps", "Deployment", "a1", "a1"), "the replicas put back", |d| {
        d["spec"]["replicas"] == 2
    })
    .await;
    let place = json!({ "spec": { "source": { "path": "f1" }, "destination": { "namespace": "f1" } } });
    sandbox.apply(&application("f1a", &repo, place.clone())).unwrap();
    app_until(&sandbox, "f1a", "the first owner", |app| text(app, &["status", "sync", "status"]) == "Synced").await;
    sandbox.apply(&application("f1b", &repo, place)).unwrap();
    let warned = app_until(&sandbox, "f1b", "the warning", |app| {
        text(app, &["status", "conditions", "0", "type"]) == "SharedResourceWarning"
    })
    .await;
    assert_eq!(
        warned["status"]["conditions"][0]["message"],
        "ConfigMap/shared is part of applications argocd/f1b and f1a"
    );
    sandbox.apply(&json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": { "name": "closed", "namespace": "argocd" },
        "spec": {
            "sourceRepos": ["*"], "destinations": [{ "server": "*", "namespace": "*" }],
            "syncWindows": [{ "kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["*"], "manualSync": false }],
        },
    })).unwrap();
    sandbox
        .apply(&application("w1", &repo, json!({ "spec": { "project": "closed", "source": { "path": "a1" } } })))
        .unwrap();
    let closed =
        app_until(&sandbox, "w1", "the comparison", |app| text(app, &["status", "sync", "status"]) == "OutOfSync")
            .await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let still = sandbox.get("argoproj.io", "Application", "argocd", "w1").unwrap();
    assert!(
        still.get("operation").is_none() && closed.get("operation").is_none(),
        "nothing in status says that a window holds it"
    );
    let apps = sandbox.store().kinds.by_kind("argoproj.io", "Application").unwrap();
    let manual = json!({ "initiatedBy": { "username": "someone" }, "sync": {} });
    sandbox
        .store()
        .edit(&apps, "argocd", "w1", false, |app| crate::sandbox::cluster::json::set(app, &["operation"], manual))
        .unwrap();
    app_until(&sandbox, "w1", "the blocked sync", |app| {
        message(app) == "Sync operation blocked by sync window"
            && text(app, &["status", "operationState", "phase"]) == "Running"
    })
    .await;
}
