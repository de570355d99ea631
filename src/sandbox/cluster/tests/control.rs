//! Driving the sandbox from another process, and what several sources and kustomizations come to.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use super::world::{Repo, app_until, application, deployment, sandbox, synced_and_healthy, until};
use crate::sandbox::cluster::json::{number, text};
use crate::sandbox::cluster::oracle::Entry;
use crate::sandbox::cluster::{ClusterOptions, ClusterSandbox, render};

async fn post(url: &str, path: &str, body: &Value) -> reqwest::Response {
    reqwest::Client::new().post(format!("{url}{path}")).json(body).send().await.unwrap()
}

#[tokio::test]
async fn another_process_applies_breaks_records_and_reads_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("requests.jsonl");
    let sandbox =
        ClusterSandbox::start(ClusterOptions { speed: 20.0, log_file: Some(log.clone()), ..ClusterOptions::default() })
            .await
            .unwrap();
    let url = sandbox.url();
    let answer = reqwest::get(format!("{url}/sandbox/record?about=try&engine=argo&kinds=Deployment")).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut lines = String::new();
        let mut stream = answer.bytes_stream();
        while let Some(Ok(bytes)) = stream.next().await {
            lines.push_str(std::str::from_utf8(&bytes).unwrap());
            if lines.contains("nginx:slow") && lines.contains("\"did\"") {
                break;
            }
        }
        lines
    });
    let wished = json!({ "image": "nginx:slow", "behaviour": "missing" });
    assert!(post(&url, "/sandbox/behaviour", &wished).await.status().is_success());
    let object = render::yaml(&deployment("web", "nginx:slow", 1)).unwrap();
    assert!(post(&url, "/sandbox/act", &json!({ "did": "applied" })).await.status().is_success());
    assert!(post(&url, "/sandbox/apply", &object).await.status().is_success());
    let lines = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    let parsed: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(parsed[0], json!({ "t": 0, "type": "HEAD", "about": "try", "engine": "argo" }));
    assert!(parsed.iter().any(|line| line["type"] == "ACT" && line["did"] == "applied" && line["t"].is_number()));
    assert!(parsed.iter().any(|line| line["type"] == "ADDED" && line["object"]["kind"] == "Deployment"));
    let place = ("apps", "Deployment", "default", "web");
    until(&sandbox, place, "the stalled rollout", |d| number(d, &["status", "unavailableReplicas"], 0) == 1).await;
    let ready = json!({ "image": "nginx:slow", "behaviour": { "slow": 50 } });
    assert!(post(&url, "/sandbox/behaviour", &ready).await.status().is_success());
    until(&sandbox, place, "the slow image", |d| number(d, &["status", "availableReplicas"], 0) == 1).await;

    let client = reqwest::Client::builder().user_agent("someone/1").build().unwrap();
    let target = format!("{url}/apis/apps/v1/namespaces/default/deployments/web");
    let patch = |replicas: i64| {
        client
            .patch(&target)
            .header("content-type", "application/merge-patch+json")
            .body(json!({ "spec": { "replicas": replicas } }).to_string())
            .send()
    };
    assert_eq!(patch(2).await.unwrap().status(), 200);
    let denial = json!({ "verb": "patch", "resource": "deployments.apps" });
    assert!(post(&url, "/sandbox/deny", &denial).await.status().is_success());
    assert_eq!(patch(3).await.unwrap().status(), 403);
    assert!(post(&url, "/sandbox/api", &json!({ "do": "down" })).await.status().is_success());
    assert_eq!(reqwest::get(&target).await.unwrap().status(), 503);
    assert!(post(&url, "/sandbox/api", &json!({ "do": "up" })).await.status().is_success());
    let entries: Vec<Entry> = reqwest::get(format!("{url}/sandbox/log?after=0")).await.unwrap().json().await.unwrap();
    let seen: Vec<(&str, u16)> = entries.iter().map(|entry| (entry.user_agent.as_str(), entry.code)).collect();
    assert_eq!(seen, [("someone/1", 200), ("someone/1", 403)]);
    let written: Vec<Entry> =
        std::fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written, entries);
    let live = sandbox.get("apps", "Deployment", "default", "web").unwrap();
    assert_eq!(live["spec"]["replicas"], 2, "what was denied was not done");
}

#[tokio::test]
async fn a_paused_engine_does_nothing_until_it_is_resumed() {
    let repo = Repo::new();
    let first = repo.commit("initial", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.27", 1)))]);
    let sandbox = sandbox(20.0).await;
    let url = sandbox.url();
    let engine = |action: &str| json!({ "engine": "argocd", "action": action });
    assert!(post(&url, "/sandbox/engine", &engine("pause")).await.status().is_success());
    sandbox.apply(&application("a1", &repo, json!({}))).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = sandbox.get("argoproj.io", "Application", "argocd", "a1").unwrap();
    assert!(idle.get("status").is_none());
    assert!(post(&url, "/sandbox/engine", &engine("resume")).await.status().is_success());
    app_until(&sandbox, "a1", "the sync", |app| synced_and_healthy(app, &first)).await;
    let second = repo.commit("more", &[("a1/deploy.yaml", Some(&deployment("a1", "nginx:1.28", 1)))]);
    assert!(post(&url, "/sandbox/engine", &engine("restart")).await.status().is_success());
    app_until(&sandbox, "a1", "a restart to read Git anew", |app| synced_and_healthy(app, &second)).await;
}

#[tokio::test]
async fn several_sources_have_a_revision_each() {
    let (one, two) = (Repo::new(), Repo::new());
    let first = one.commit("initial", &[("a/deploy.yaml", Some(&deployment("a1", "nginx:1.27", 1)))]);
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n";
    let second = two.commit("initial", &[("b/c.yaml", Some(config))]);
    let sandbox = sandbox(20.0).await;
    let sources = json!([
        { "repoURL": one.url(), "path": "a", "targetRevision": "main" },
        { "repoURL": two.url(), "path": "b", "targetRevision": "HEAD" },
        { "repoURL": two.url(), "ref": "values", "targetRevision": "main" },
    ]);
    sandbox.apply(&application("m", &one, json!({ "spec": { "source": null, "sources": sources } }))).unwrap();
    let app = app_until(&sandbox, "m", "the sync", |app| {
        text(app, &["status", "sync", "status"]) == "Synced" && text(app, &["status", "health", "status"]) == "Healthy"
    })
    .await;
    assert_eq!(app["status"]["sync"]["revisions"], json!([first, second, second]));
    assert_eq!(app["status"]["operationState"]["syncResult"]["revisions"], json!([first, second, second]));
    assert!(app["status"]["sync"].get("revision").is_none());
    assert!(sandbox.get("", "ConfigMap", "m", "c").is_some());
}

#[tokio::test]
async fn a_kustomization_is_built_by_the_real_program() {
    if tokio::process::Command::new("kubectl").arg("version").arg("--client").output().await.is_err() {
        return;
    }
    let repo = Repo::new();
    let kustomization = "resources: [../base]\nimages:\n  - name: nginx\n    newTag: \"1.29\"\nreplicas:\n  - name: web\n    count: 3\n";
    repo.commit(
        "initial",
        &[
            ("base/kustomization.yaml", Some("resources: [web.yaml]\n")),
            ("base/web.yaml", Some(&deployment("web", "nginx:1.27", 1))),
            ("prod/kustomization.yaml", Some(kustomization)),
        ],
    );
    let sandbox = sandbox(20.0).await;
    sandbox.apply(&application("prod", &repo, json!({}))).unwrap();
    let app =
        app_until(&sandbox, "prod", "the sync", |app| text(app, &["status", "health", "status"]) == "Healthy").await;
    assert_eq!(text(&app, &["status", "sourceType"]), "Kustomize");
    let live = sandbox.get("apps", "Deployment", "prod", "web").unwrap();
    assert_eq!(live["spec"]["replicas"], 3);
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["image"], "nginx:1.29");
}

#[tokio::test]
async fn a_stopped_sandbox_answers_nobody_and_frees_its_port() {
    let sandbox = sandbox(20.0).await;
    let url = sandbox.url();
    let client = reqwest::Client::new();
    assert!(client.get(format!("{url}/version")).send().await.unwrap().status().is_success());
    let listen = url.strip_prefix("http://").unwrap().parse().unwrap();
    drop(sandbox);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(client.get(format!("{url}/version")).send().await.is_err());
    let again = ClusterSandbox::start(ClusterOptions { listen, ..ClusterOptions::default() }).await.unwrap();
    assert_eq!(again.url(), url);
    assert!(client.get(format!("{url}/version")).send().await.unwrap().status().is_success());
}
