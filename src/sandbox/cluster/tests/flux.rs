//! The Flux-like controllers against what the recordings show.

use serde_json::{Value, json};

use super::world::{Repo, deployment, recorder, sandbox, until};
use crate::sandbox::cluster::access::Denial;
use crate::sandbox::cluster::health::condition;
use crate::sandbox::cluster::json::{get, merge_patch, set, text};
use crate::sandbox::cluster::{ClusterSandbox, objects};

const KS: &str = "kustomize.toolkit.fluxcd.io";
const SOURCE: &str = "source.toolkit.fluxcd.io";

fn git(repo: &Repo, branch: &str) -> Value {
    let mut object = objects::git_repository("fl", &repo.url());
    set(&mut object, &["spec", "ref", "branch"], json!(branch));
    object
}

fn kustomization(name: &str, extra: Value) -> Value {
    let mut object = objects::kustomization(name, "fl", &format!("./{name}"), name);
    merge_patch(&mut object, &extra);
    object
}

fn request(sandbox: &ClusterSandbox, token: &str) {
    let kind = sandbox.store().kinds.by_kind(SOURCE, "GitRepository").unwrap();
    sandbox
        .store()
        .edit(&kind, "flux-system", "fl", false, |new| {
            set(new, &["metadata", "annotations", "reconcile.fluxcd.io/requestedAt"], json!(token))
        })
        .unwrap();
}

async fn ks_until(sandbox: &ClusterSandbox, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(sandbox, (KS, "Kustomization", "flux-system", name), what, holds).await
}

fn applied(object: &Value, commit: &str) -> bool {
    text(object, &["status", "lastAppliedRevision"]) == format!("main@sha1:{commit}")
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// Each state of a Kustomization in one word.
fn story(lines: &[Value], name: &str, commit: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for line in lines
        .iter()
        .filter(|line| line["object"]["kind"] == "Kustomization" && line["object"]["metadata"]["name"] == name)
    {
        let object = &line["object"];
        let about = condition(object, "Reconciling", "message").split(" for revision").next().unwrap().to_owned();
        let word = format!(
            "{} Ready={} Healthy={} attempted={} applied={}",
            if about.is_empty() { "-" } else { &about },
            condition(object, "Ready", "status"),
            condition(object, "Healthy", "status"),
            text(object, &["status", "lastAttemptedRevision"]).ends_with(commit),
            text(object, &["status", "lastAppliedRevision"]).ends_with(commit),
        );
        if words.last() != Some(&word) {
            words.push(word);
        }
    }
    words
}

#[tokio::test]
async fn a_commit_is_applied_waited_for_and_ready_before_it_is_last_applied() {
    let repo = Repo::new();
    let first = repo.commit("initial", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.27", 2)))]);
    let sandbox = sandbox(10.0).await;
    for object in [namespace("k1"), git(&repo, "main"), kustomization("k1", json!({}))] {
        sandbox.apply(&object).unwrap();
    }
    ks_until(&sandbox, "k1", "the first revision", |ks| applied(ks, &first)).await;
    let live = sandbox.get("apps", "Deployment", "k1", "k1").unwrap();
    assert_eq!(
        live["metadata"]["labels"],
        json!({ "kustomize.toolkit.fluxcd.io/name": "k1", "kustomize.toolkit.fluxcd.io/namespace": "flux-system" })
    );
    let all = recorder(&sandbox);
    tokio::task::yield_now().await;
    let commit = repo.commit("image", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.28", 2)))]);
    request(&sandbox, "one");
    let done = ks_until(&sandbox, "k1", "the image", |ks| applied(ks, &commit)).await;
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let lines = all.lock().unwrap().clone();
    assert_eq!(
        story(&lines, "k1", &commit),
        [
            "- Ready=True Healthy=True attempted=false applied=false",
            "Fetching manifests Ready=Unknown Healthy=True attempted=false applied=false",
            "Building manifests Ready=Unknown Healthy=True attempted=false applied=false",
            "Building manifests Ready=Unknown Healthy=True attempted=true applied=false",
            "Detecting drift Ready=Unknown Healthy=True attempted=true applied=false",
            "Running health checks Ready=Unknown Healthy=True attempted=true applied=false",
            "Running health checks Ready=Unknown Healthy=Unknown attempted=true applied=false",
            "Running health checks Ready=Unknown Healthy=True attempted=true applied=false",
            "- Ready=True Healthy=True attempted=true applied=false",
            "- Ready=True Healthy=True attempted=true applied=true",
        ],
        "flux-image-ok.jsonl"
    );
    assert_eq!(done["status"]["inventory"]["entries"], json!([{ "id": "k1_k1_apps_Deployment", "v": "v1" }]));
    assert_eq!(condition(&done, "Ready", "message"), format!("Applied revision: main@sha1:{commit}"));
    let source = sandbox.get(SOURCE, "GitRepository", "flux-system", "fl").unwrap();
    assert_eq!(text(&source, &["status", "lastHandledReconcileAt"]), "one");
    let states: Vec<&str> = lines
        .iter()
        .filter(|line| line["object"]["kind"] == "GitRepository")
        .map(|line| condition(&line["object"], "Reconciling", "message"))
        .collect();
    let building = format!("building artifact: new upstream revision 'main@sha1:{commit}'");
    assert_eq!(states, ["", "", "reconciliation in progress", &building, "", ""]);
    let artifact: Vec<bool> = lines
        .iter()
        .filter(|line| line["object"]["kind"] == "GitRepository")
        .map(|line| text(&line["object"], &["status", "artifact", "revision"]).ends_with(&commit))
        .collect();
    assert_eq!(
        artifact,
        [false, false, false, false, false, true],
        "Ready speaks of the revision before the artifact is there"
    );
}

#[tokio::test]
async fn a_stalled_rollout_fails_early_and_holds_a_newer_revision_until_then() {
    let repo = Repo::new();
    let first = repo.commit("initial", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.27", 2)))]);
    let sandbox = sandbox(10.0).await;
    for object in [namespace("k1"), git(&repo, "main"), kustomization("k1", json!({}))] {
        sandbox.apply(&object).unwrap();
    }
    ks_until(&sandbox, "k1", "the first revision", |ks| applied(ks, &first)).await;
    let bad = repo.commit("missing", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:missing", 2)))]);
    request(&sandbox, "two");
    ks_until(&sandbox, "k1", "the health check", |ks| {
        text(ks, &["status", "lastAttemptedRevision"]).ends_with(&bad)
            && condition(ks, "Healthy", "status") == "Unknown"
    })
    .await;
    let revert = repo.commit("revert", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.27", 2)))]);
    request(&sandbox, "three");
    until(&sandbox, (SOURCE, "GitRepository", "flux-system", "fl"), "the new artifact", |source| {
        text(source, &["status", "artifact", "revision"]).ends_with(&revert)
    })
    .await;
    let busy = sandbox.get(KS, "Kustomization", "flux-system", "k1").unwrap();
    assert!(
        text(&busy, &["status", "lastAttemptedRevision"]).ends_with(&bad),
        "waiting for health, it does not start on the newer one"
    );
    let failed =
        ks_until(&sandbox, "k1", "the failure", |ks| condition(ks, "Ready", "reason") == "HealthCheckFailed").await;
    assert!(condition(&failed, "Ready", "message").starts_with("health check failed after "));
    assert!(
        condition(&failed, "Ready", "message")
            .ends_with("failed early due to stalled resources: [Deployment/k1/k1 status: 'Failed']")
    );
    assert_eq!(condition(&failed, "Reconciling", "reason"), "ProgressingWithRetry");
    ks_until(&sandbox, "k1", "the revert", |ks| applied(ks, &revert) && condition(ks, "Ready", "status") == "True")
        .await;
}

#[tokio::test]
async fn failures_of_source_path_build_and_apply_speak_as_flux_does() {
    let repo = Repo::new();
    let first = repo.commit("initial", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.27", 1)))]);
    let sandbox = sandbox(20.0).await;
    for object in [namespace("k1"), git(&repo, "nope"), kustomization("k1", json!({ "spec": { "wait": false } }))] {
        sandbox.apply(&object).unwrap();
    }
    let gone = until(&sandbox, (SOURCE, "GitRepository", "flux-system", "fl"), "the failed fetch", |source| {
        condition(source, "FetchFailed", "status") == "True"
    })
    .await;
    assert!(condition(&gone, "Ready", "message").ends_with("couldn't find remote ref \"refs/heads/nope\""));
    assert_eq!(gone["status"]["observedGeneration"], -1);
    let waiting = sandbox.get(KS, "Kustomization", "flux-system", "k1").unwrap();
    assert_eq!(condition(&waiting, "Ready", "message"), "Source artifact not found, retrying in 30s");
    sandbox.apply(&git(&repo, "main")).unwrap();
    ks_until(&sandbox, "k1", "the first revision", |ks| applied(ks, &first)).await;
    let broken = repo.commit("broken", &[("k1/deploy.yaml", Some("kind: [\n  - x: {"))]);
    request(&sandbox, "a");
    let failed =
        ks_until(&sandbox, "k1", "the build failure", |ks| condition(ks, "Ready", "reason") == "BuildFailed").await;
    assert!(
        condition(&failed, "Ready", "message").starts_with("failed to decode Kubernetes YAML from /tmp/kustomization-")
    );
    assert!(text(&failed, &["status", "lastAttemptedRevision"]).ends_with(&broken));
    repo.commit("gone", &[("k1/deploy.yaml", None), ("other/x.txt", Some("x"))]);
    request(&sandbox, "b");
    let lost =
        ks_until(&sandbox, "k1", "the missing path", |ks| condition(ks, "Ready", "reason") == "ArtifactFailed").await;
    assert!(condition(&lost, "Ready", "message").contains("kustomization path not found"));
    assert!(
        text(&lost, &["status", "lastAttemptedRevision"]).ends_with(&broken),
        "a missing path leaves the attempted revision old"
    );
    repo.commit("refused", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.27", -1)))]);
    request(&sandbox, "c");
    let refused =
        ks_until(&sandbox, "k1", "the refusal", |ks| condition(ks, "Ready", "reason") == "ReconciliationFailed").await;
    assert_eq!(
        condition(&refused, "Ready", "message"),
        "Deployment/k1/k1 dry-run failed (Invalid): Deployment.apps \"k1\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0\n"
    );
    sandbox.state().access.deny(Denial {
        verb: "patch".to_owned(),
        resource: "deployments.apps".to_owned(),
        ..Denial::default()
    });
    let fine = repo.commit("fine", &[("k1/deploy.yaml", Some(&deployment("k1", "nginx:1.28", 1)))]);
    request(&sandbox, "d");
    let denied = ks_until(&sandbox, "k1", "the denial", |ks| {
        condition(ks, "Ready", "message").contains("dry-run failed (Forbidden)")
    })
    .await;
    assert!(condition(&denied, "Ready", "message").contains(
        "User \"system:serviceaccount:flux-system:kustomize-controller\" cannot patch resource \"deployments\""
    ));
    sandbox.state().access.allow_all();
    ks_until(&sandbox, "k1", "the retry", |ks| applied(ks, &fine)).await;
}

#[tokio::test]
async fn dependencies_suspension_and_pruning() {
    let repo = Repo::new();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: extra\ndata:\n  a: ${greeting:=hello}\n";
    let first = repo.commit(
        "initial",
        &[
            ("k2/deploy.yaml", Some(&deployment("k2", "nginx:missing", 1))),
            ("k3/c.yaml", Some(config)),
            ("k3/d.yaml", Some(&config.replace("extra", "kept"))),
        ],
    );
    let sandbox = sandbox(20.0).await;
    let k3 =
        json!({ "spec": { "dependsOn": [{ "name": "k2" }], "postBuild": { "substitute": { "greeting": "hi" } } } });
    for object in
        [namespace("k2"), namespace("k3"), git(&repo, "main"), kustomization("k2", json!({})), kustomization("k3", k3)]
    {
        sandbox.apply(&object).unwrap();
    }
    let waiting =
        ks_until(&sandbox, "k3", "the dependency", |ks| condition(ks, "Ready", "reason") == "DependencyNotReady").await;
    assert_eq!(condition(&waiting, "Ready", "message"), "dependency 'flux-system/k2' is not ready");
    let fixed = repo.commit("fixed", &[("k2/deploy.yaml", Some(&deployment("k2", "nginx:1.27", 1)))]);
    request(&sandbox, "a");
    ks_until(&sandbox, "k3", "its turn", |ks| applied(ks, &fixed)).await;
    assert_ne!(first, fixed);
    assert_eq!(sandbox.get("", "ConfigMap", "k3", "extra").unwrap()["data"]["a"], "hi");
    let pruned = repo.commit("delete", &[("k3/c.yaml", None)]);
    request(&sandbox, "b");
    ks_until(&sandbox, "k3", "the prune", |ks| applied(ks, &pruned)).await;
    assert!(sandbox.get("", "ConfigMap", "k3", "extra").is_none());
    assert!(sandbox.get("", "ConfigMap", "k3", "kept").is_some());
    let kind = sandbox.store().kinds.by_kind(KS, "Kustomization").unwrap();
    sandbox.store().edit(&kind, "flux-system", "k2", false, |ks| set(ks, &["spec", "suspend"], json!(true))).unwrap();
    ks_until(&sandbox, "k2", "the suspension to be seen", |ks| {
        get(ks, &["status", "observedGeneration"]) == get(ks, &["metadata", "generation"])
    })
    .await;
    let unseen = repo.commit("unseen", &[("k2/deploy.yaml", Some(&deployment("k2", "nginx:1.29", 1)))]);
    request(&sandbox, "c");
    ks_until(&sandbox, "k3", "the other one", |ks| {
        text(ks, &["status", "lastAttemptedRevision"]).ends_with(&unseen)
            || condition(ks, "Ready", "reason") == "DependencyNotReady"
    })
    .await;
    let frozen = sandbox.get(KS, "Kustomization", "flux-system", "k2").unwrap();
    assert_eq!(condition(&frozen, "Ready", "status"), "True", "a suspended one keeps saying Ready");
    assert!(applied(&frozen, &pruned));
    sandbox.store().edit(&kind, "flux-system", "k2", false, |ks| set(ks, &["spec", "suspend"], json!(false))).unwrap();
    ks_until(&sandbox, "k2", "the resumption", |ks| applied(ks, &unseen)).await;
}

#[tokio::test]
async fn a_helm_release_follows_its_values_and_rolls_back() {
    let repo = Repo::new();
    let release = |values: &str| {
        format!(
            "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: h1\n  namespace: flux-system\nspec:\n  interval: 1m\n  timeout: 25s\n  targetNamespace: h1\n  install:\n    createNamespace: true\n  upgrade:\n    remediation:\n      retries: 1\n      remediateLastFailure: true\n  chart:\n    spec:\n      chart: ./chart\n      reconcileStrategy: Revision\n      sourceRef:\n        kind: GitRepository\n        name: fl\n  values: {values}\n"
        )
    };
    let first = repo.commit("initial", &[("hr/release.yaml", Some(&release("{replicas: 2}")))]);
    let sandbox = sandbox(20.0).await;
    for object in [git(&repo, "main"), kustomization("hr", json!({ "spec": { "targetNamespace": null } }))] {
        sandbox.apply(&object).unwrap();
    }
    let place = ("helm.toolkit.fluxcd.io", "HelmRelease", "flux-system", "h1");
    let installed = until(&sandbox, place, "the install", |hr| hr["status"]["observedGeneration"] == 1).await;
    assert_eq!(
        condition(&installed, "Released", "message"),
        format!("Helm install succeeded for release h1/h1-h1.v1 with chart shop@0.1.0+{}", &first[..12])
    );
    let second = repo.commit("values", &[("hr/release.yaml", Some(&release("{replicas: 3}")))]);
    request(&sandbox, "a");
    let upgraded = until(&sandbox, place, "the upgrade", |hr| {
        hr["status"]["observedGeneration"] == 2
            && text(hr, &["status", "history", "0", "status"]) == "deployed"
            && condition(hr, "Ready", "status") == "True"
    })
    .await;
    assert_eq!(text(&upgraded, &["status", "lastAttemptedRevision"]), format!("0.1.0+{}", &second[..12]));
    assert_eq!(upgraded["status"]["history"][0]["configDigest"], upgraded["status"]["lastAttemptedConfigDigest"]);
    assert_eq!(sandbox.get("apps", "Deployment", "h1", "h1-h1").unwrap()["spec"]["replicas"], 3);
    repo.commit("bad", &[("hr/release.yaml", Some(&release("{replicas: 3, image: {tag: missing}}")))]);
    request(&sandbox, "b");
    let failed =
        until(&sandbox, place, "the failed upgrade", |hr| condition(hr, "Released", "reason") == "UpgradeFailed").await;
    assert!(
        condition(&failed, "Released", "message")
            .contains("failed early due to stalled resources: [Deployment/h1/h1-h1 status: 'Failed']")
    );
    let remedied = until(&sandbox, place, "the rollback", |hr| condition(hr, "Remediated", "status") == "True").await;
    assert_eq!(condition(&remedied, "Ready", "reason"), "RollbackSucceeded");
    assert_eq!(condition(&remedied, "Ready", "status"), "False");
}
