//! The Argo-like controller against what the recordings show.

use serde_json::{Value, json};

use super::world::{Repo, app_until, application, deployment, recorder, refresh, sandbox, synced_and_healthy};
use crate::sandbox::cluster::json::{get, number, text};

/// The Application's states in a recording, as `(what, …)` words in order, without repetitions.
fn story(lines: &[Value], name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for line in lines.iter().filter(|line| line["object"]["kind"] == "Application" && line["object"]["metadata"]["name"] == name) {
        let app = &line["object"];
        let state = get(app, &["status", "operationState"]);
        let word = format!(
            "op={} phase={} sync={} health={}",
            if app.get("operation").is_none() { "-" } else if number(app, &["operation", "sync", "autoHealAttemptsCount"], 0) > 0 { "heal" } else { "auto" },
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
    let sandbox = sandbox(1.0).await;
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
    app_until(&sandbox, "a1", "the second commit", |app| synced_and_healthy(app, &commit) && text(app, &["status", "operationState", "syncResult", "resources", "0", "message"]).ends_with("unchanged")).await;
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
    let observed = position(&lines, "the observed generation", |object| text(object, &["kind"]) == "Deployment" && number(object, &["status", "observedGeneration"], 0) == 2);
    let live = position(&lines, "the finished rollout", |object| {
        text(object, &["kind"]) == "Deployment" && number(object, &["status", "updatedReplicas"], 0) == 2 && number(object, &["status", "replicas"], 0) == 2 && number(object, &["metadata", "generation"], 0) == 2
    });
    assert!(stale < observed && observed < live, "{stale} {observed} {live}");
    let app = sandbox.get("argoproj.io", "Application", "argocd", "a1").unwrap();
    let history: Vec<&str> = app["status"]["history"].as_array().unwrap().iter().map(|entry| entry["revision"].as_str().unwrap()).collect();
    assert_eq!(history.len(), 2, "a self-heal leaves no entry");
    assert_eq!(history[1], commit);
    let live = sandbox.get("apps", "Deployment", "a1", "a1").unwrap();
    assert_eq!(text(&live, &["metadata", "annotations", "argocd.argoproj.io/tracking-id"]), "a1:apps/Deployment:a1/a1");
}
