//! The lab itself: what it promises to the scenarios. Ignored where no lab is wanted; `just lab-test` runs them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use countersign::cli::replay::replay;
use reqwest::Method;
use serde_json::{Value, json};

use crate::both::lab::{Shared, shared};
use crate::lab::{Account, BEAT, LABEL, Lab, Wish};

async fn lab() -> Shared {
    shared().await
}

fn unique(what: &str) -> String {
    format!("{what}-{:08x}", rand::random::<u32>())
}

fn deployment(namespace: &str, name: &str, tag: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1, "progressDeadlineSeconds": 15, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": format!("reg.example/web:{tag}")}]},
            },
        },
    })
}

/// Asks until it holds; panics with the last answer.
async fn until<F: Future<Output = Value>>(
    what: &str,
    patience_s: u64,
    mut ask: impl FnMut() -> F,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let end = Instant::now() + Duration::from_secs(patience_s);
    loop {
        let now = ask().await;
        if holds(&now) {
            return now;
        }
        assert!(Instant::now() < end, "{what}: {now:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn pod(lab: &Lab, namespace: &str, app: &str) -> Value {
    use kube::api::{Api, ListParams};
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(lab.client().await.unwrap(), namespace);
    let found = pods.list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap();
    found.items.first().map(|p| serde_json::to_value(p).unwrap()).unwrap_or_default()
}

/// A deployment with this tag, in a namespace of its own; waits until its one pod's first container is so.
async fn pod_of(lab: &Lab, tag: &str, patience_s: u64, holds: impl Fn(&Value) -> bool) -> String {
    let place = unique("tag");
    lab.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}})).await.unwrap();
    lab.apply(&deployment(&place, "web", tag)).await.unwrap();
    let container = |p: &Value| p["status"]["containerStatuses"][0].clone();
    until(tag, patience_s, || async { container(&pod(lab, &place, "web").await) }, holds).await;
    place
}

async fn live(lab: &Lab, place: &str) -> Value {
    lab.get("apps/v1", "Deployment", place, "web").await.unwrap().unwrap_or_default()
}

/// The deployment's rollout fails by its deadline.
async fn fails(lab: &Lab, place: &str) {
    let condition = |d: &Value, kind: &str| {
        d["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind)
            .cloned()
            .unwrap_or_default()
    };
    let over = |d: &Value| condition(d, "Progressing")["reason"] == "ProgressDeadlineExceeded";
    until("the deadline", 40, || live(lab, place), over).await;
    lab.delete("v1", "Namespace", "", place).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn an_image_that_is_missing_fails_its_rollout() {
    let lab = lab().await;
    fails(&lab, &pod_of(&lab, "missing", 20, |c| c["state"]["waiting"]["reason"] == "ImagePullBackOff").await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn an_image_that_crashes_is_started_again_and_again() {
    let again = |c: &Value| {
        c["restartCount"] == 1
            && c["lastState"]["terminated"]["exitCode"] == 3
            && c["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let lab = lab().await;
    fails(&lab, &pod_of(&lab, "2.0-crash-3", 30, again).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn an_image_that_wants_too_much_memory_is_killed() {
    let killed = |c: &Value| {
        let last = &c["lastState"]["terminated"];
        last["reason"] == "OOMKilled" && last["exitCode"] == 137
    };
    let lab = lab().await;
    fails(&lab, &pod_of(&lab, "oom", 20, killed).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn an_image_that_never_gets_ready_runs_all_the_same() {
    let runs = |c: &Value| c["ready"] == false && c["state"]["running"].is_object();
    let lab = lab().await;
    fails(&lab, &pod_of(&lab, "notready", 20, runs).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn a_slow_image_gets_ready_in_the_end_and_a_flapping_one_does_not_stay_so() {
    let lab = lab().await;
    let from = Instant::now();
    let slow = pod_of(&lab, "slow", 40, |c| c["ready"] == true).await;
    assert!(from.elapsed() >= Duration::from_secs(8), "{:?}", from.elapsed());
    let flap = pod_of(&lab, "flap", 20, |c| c["ready"] == true).await;
    until("flap", 20, || pod(&lab, &flap, "web"), |p| p["status"]["containerStatuses"][0]["ready"] == false).await;
    // A node whose lease is not kept takes all its pods with it after 50 s.
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(live(&lab, &slow).await["status"]["availableReplicas"], 1);
    for place in [slow, flap] {
        lab.delete("v1", "Namespace", "", &place).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn a_component_that_was_killed_is_seen_and_serves_again() {
    let lab = lab().await;
    let name = "kube-scheduler";
    let seen = || lab.status().into_iter().find(|s| s.name == name).unwrap();
    let before = seen();
    assert!(before.running && before.rss_kib > 0, "{before:?}");
    lab.stop(name).await.unwrap();
    assert!(!seen().running);
    lab.start_again(name).await.unwrap();
    assert!(seen().running && seen().pid != before.pid);
    let refused = lab.start_again(name).await.unwrap_err();
    assert!(refused.message.contains("already runs"), "{refused}");
    let unknown = lab.stop("kubelet").await.unwrap_err();
    assert_eq!(unknown.code, "lab.failed");
    assert!(unknown.next.contains("kube-scheduler"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn an_account_may_do_what_its_rules_say_and_nothing_else() {
    let lab = lab().await;
    let name = unique("reader");
    let rules = [json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]})];
    let config = lab.service_account_kubeconfig("default", &name, &rules).await.unwrap();
    let parsed = kube::config::Kubeconfig::from_yaml(&config).unwrap();
    let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(client.clone(), "default");
    assert!(!maps.list(&Default::default()).await.unwrap().items.is_empty());
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client, "default");
    let refused = pods.list(&Default::default()).await.unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
}

fn git(dir: &Path, args: &[&str], ssh: &str) -> (bool, String) {
    let out = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=Anna", "-c", "user.email=anna@example.test"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", ssh)
        .output()
        .unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
}

async fn repository(lab: &Lab) -> (String, Account) {
    let name = unique("repo");
    let gitea = lab.gitea();
    gitea.create_repo("acme", &name, true).await.unwrap();
    let anna = gitea.account("anna").await.unwrap();
    gitea.let_in("acme", &name, &anna, "write").await.unwrap();
    (name, anna)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn a_protected_branch_is_closed_to_pushes_and_others_are_not() {
    let lab = lab().await;
    let (name, anna) = repository(&lab).await;
    let dir = tempfile::tempdir().unwrap();
    let url = lab.gitea().clone_url("acme", &name).replace("http://", &format!("http://anna:{}@", anna.token));
    assert!(git(dir.path(), &["clone", "-q", &url, "w"], "false").0);
    let work = dir.path().join("w");
    git(&work, &["commit", "-q", "--allow-empty", "-m", "one"], "false");
    let (done, words) = git(&work, &["push", "-q", "origin", "main"], "false");
    assert!(done, "{words}");
    lab.gitea().protect_branch("acme", &name, "main", &json!({})).await.unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", "two"], "false");
    let (done, words) = git(&work, &["push", "-q", "origin", "main"], "false");
    assert!(!done && words.contains("protected branch"), "{words}");
    let (done, words) = git(&work, &["push", "-q", "origin", "HEAD:other"], "false");
    assert!(done, "{words}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn ssh_works_with_the_pinned_host_key_and_not_with_another() {
    let lab = lab().await;
    let (name, anna) = repository(&lab).await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    lab.gitea().add_ssh_key(&anna, &public).await.unwrap();
    let known = dir.path().join("known_hosts");
    let ssh = format!(
        "ssh -i {} -F /dev/null -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={}",
        key.display(),
        known.display()
    );
    let url = lab.gitea().ssh_url("acme", &name);
    let pinned = lab.gitea().known_hosts().unwrap();
    std::fs::write(&known, &pinned).unwrap();
    let (done, words) = git(dir.path(), &["clone", "-q", &url, "w"], &ssh);
    assert!(done, "{words}");
    let other = public.split_whitespace().nth(1).unwrap();
    let host = pinned.split_whitespace().next().unwrap();
    std::fs::write(&known, format!("{host} ssh-ed25519 {other}\n")).unwrap();
    let (done, words) = git(dir.path(), &["clone", "-q", &url, "x"], &ssh);
    assert!(!done && words.contains("Host key verification failed"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn a_token_may_not_do_what_its_scopes_leave_out() {
    let lab = lab().await;
    let account = lab.gitea().account("anna").await.unwrap();
    let url = |path: &str| format!("{}/{path}", lab.gitea().api_url());
    let ask = |method: Method, path: &str| {
        let request = reqwest::Client::new().request(method, url(path));
        let token = account.token.clone();
        async move { request.header("authorization", format!("token {token}")).send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(Method::GET, "user").await, 200);
    assert_eq!(ask(Method::GET, "admin/users").await, 403);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn a_recording_is_read_by_replay() {
    let lab = lab().await;
    let place = unique("tape");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tape.jsonl");
    let wish = Wish { about: "a test".into(), engine: "argo".into(), namespaces: vec![place.clone()], names: vec![] };
    let tape = lab.record(&file, wish).await.unwrap();
    lab.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}})).await.unwrap();
    lab.apply(&deployment(&place, "web", "1.0")).await.unwrap();
    let want = json!([{"kind": "Deployment", "namespace": place, "name": "web", "path": "/spec/replicas", "value": 1}]);
    let owner = json!({"kind": "Application", "namespace": "argocd", "name": "nobody"});
    tape.act(
        json!({"did": "a push", "commit": "1".repeat(40), "parent": "2".repeat(40), "owner": owner, "want": want}),
    );
    until("available", 30, || live(&lab, &place), |d| d["status"]["availableReplicas"] == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(tape);
    let lines = std::fs::read_to_string(&file).unwrap();
    let kinds: Vec<String> = lines
        .lines()
        .filter_map(|l| Some(serde_json::from_str::<Value>(l).unwrap()["object"]["kind"].as_str()?.to_owned()))
        .collect();
    for kind in ["Deployment", "ReplicaSet", "Pod", "Event"] {
        assert!(kinds.iter().any(|k| k == kind), "no {kind}: {kinds:?}");
    }
    let mut said = Vec::new();
    replay(&[file], &mut said).unwrap_or_else(|p| panic!("{p}"));
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("\"verdict\":\"waiting\""), "{said}");
    lab.delete("v1", "Namespace", "", &place).await.unwrap();
}

/// Somebody kills the suite and its watch: the next run on that cluster finds what was left by its label.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn what_a_crashed_run_left_is_swept_and_a_live_one_is_left_alone() {
    let lab = lab().await;
    let long_ago = chrono::Utc::now().timestamp() - 3_600;
    let now = chrono::Utc::now().timestamp();
    let api = "argoproj.io/v1alpha1";
    let (dead, live) = (unique("dead"), unique("live"));
    for (run, beat) in [(&dead, long_ago), (&live, now)] {
        let meta = |name: &str| json!({"name": name, "labels": {LABEL: run}});
        let mut space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta(run)});
        space["metadata"]["annotations"] = json!({BEAT: beat.to_string()});
        let mut project = json!({"apiVersion": api, "kind": "AppProject", "metadata": meta(run), "spec": {}});
        project["metadata"]["namespace"] = json!("argocd");
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta(run), "rules": []});
        for object in [space, project, role] {
            lab.apply(&object).await.unwrap();
        }
    }
    assert_eq!(lab.sweep().await.unwrap(), 3);
    for (run, there) in [(&dead, false), (&live, true)] {
        assert_eq!(lab.get("v1", "Namespace", "", run).await.unwrap().is_some(), there, "{run}");
        assert_eq!(lab.get(api, "AppProject", "argocd", run).await.unwrap().is_some(), there, "{run}");
        let role = lab.get("rbac.authorization.k8s.io/v1", "ClusterRole", "", run).await.unwrap();
        assert_eq!(role.is_some(), there, "{run}");
    }
    lab.delete("v1", "Namespace", "", &live).await.unwrap();
    until(
        "gone",
        90,
        || async { lab.get("v1", "Namespace", "", &live).await.unwrap().unwrap_or_default() },
        Value::is_null,
    )
    .await;
    assert_eq!(lab.sweep().await.unwrap(), 2, "its namespace was its sign of life");
}

/// `tests/lab/deploy.sh`, with the real helm and kubectl of the lab.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn the_chart_and_its_rights_hold_on_a_real_api_server() {
    let lab = lab().await;
    let path = std::env::var("PATH").unwrap_or_default();
    let home = tempfile::tempdir().unwrap();
    let out = tokio::process::Command::new("tests/lab/deploy.sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("KUBECONFIG", lab.admin_kubeconfig())
        .env("PATH", format!("{}:{path}", lab.programs().display()))
        .env("HOME", home.path())
        .env("COUNTERSIGN_LAB_NAMESPACE", unique("deploy"))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let checks = said.lines().filter(|l| l.starts_with("ok    ")).count();
    // All of them, those of Argo CD and of Flux included.
    assert!(out.status.success() && checks >= 75, "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(said.lines().last(), Some(format!("checks={checks} failed=0").as_str()), "{said}");
}
