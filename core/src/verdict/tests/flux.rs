//! Flux scenarios that the recordings at hand do not show.

use serde_json::{Value, json};

use super::bench::{Bench, deployment, rev, stuck, want_image};
use crate::verdict::{Code, Verdict};

pub fn source(c: char) -> Value {
    json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"namespace": "flux-system", "name": "s", "generation": 1, "annotations": {}},
        "spec": {"ref": {"branch": "main"}}, "status": {"observedGeneration": 1, "artifact": {"revision": rev(c)}, "conditions": []}})
}

/// A Kustomization: revision applied, revision attempted, Ready (status, reason, message), Reconciling's message.
pub fn ks(applied: char, attempted: char, ready: (&str, &str, &str), reconciling: Option<&str>) -> Value {
    let mut conditions = vec![json!({"type": "Ready", "status": ready.0, "reason": ready.1, "message": ready.2})];
    if let Some(m) = reconciling {
        let reason = if ready.0 == "False" { "ProgressingWithRetry" } else { "Progressing" };
        conditions.push(json!({"type": "Reconciling", "status": "True", "reason": reason, "message": m}));
    }
    json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": {"namespace": "flux-system", "name": "a", "generation": 1},
        "spec": {"interval": "10m", "retryInterval": "2m", "sourceRef": {"kind": "GitRepository", "name": "s"}},
        "status": {"observedGeneration": 1, "lastAppliedRevision": rev(applied), "lastAttemptedRevision": rev(attempted), "conditions": conditions}})
}

fn ready(c: char) -> Value {
    ks(c, c, ("True", "ReconciliationSucceeded", &format!("Applied revision: {}", rev(c))), None)
}

fn step(applied: char, c: char, what: &str) -> Value {
    ks(
        applied,
        applied,
        ("Unknown", "Progressing", "Reconciliation in progress"),
        Some(&format!("{what} for revision {} with a timeout of 30s", rev(c))),
    )
}

fn begun() -> Bench {
    let mut b = Bench::new("Kustomization");
    b.see(0.0, source('a'));
    b.see(0.0, ready('a'));
    b.see(0.0, deployment("old", 1, 1, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    b
}

fn failed(applied: char, attempted: char, at: char, reason: &str, message: &str) -> Value {
    ks(
        applied,
        attempted,
        ("False", reason, message),
        Some(&format!("Fetching manifests for revision {} with a timeout of 30s", rev(at))),
    )
}

#[test]
fn a_missing_path_is_told_although_the_attempted_revision_stays_old() {
    let mut b = begun();
    b.see(2.0, source('b'));
    b.see(
        2.1,
        failed('a', 'a', 'b', "ArtifactFailed", "kustomization path not found: stat /tmp/x: no such file or directory"),
    );
    b.wait(3.1);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::PathMissing));
    assert!(b.say('b').contains("every 2m"), "{}", b.say('b'));
}

#[test]
fn a_failure_stands_while_the_same_revision_is_tried_again_and_goes_with_the_next() {
    let mut b = begun();
    b.see(2.0, source('b'));
    b.see(2.1, failed('a', 'b', 'b', "BuildFailed", "kustomize build failed"));
    b.wait(4.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::BuildFailed));
    b.see(20.0, step('a', 'b', "Building manifests"));
    b.see(20.1, failed('a', 'b', 'b', "BuildFailed", "kustomize build failed"));
    assert_eq!(b.codes('b').iter().filter(|c| **c == Code::BuildFailed).count(), 1);
    b.push(30.0, 'c', 'b', want_image("newer"));
    b.see(31.0, source('c'));
    assert_eq!(b.now('c').1, Code::HeldBack);
    b.see(31.1, step('a', 'c', "Building manifests"));
    assert_eq!(b.now('b').0, Verdict::Superseded);
    assert_eq!(b.first('c', Verdict::Failed), None);
}

#[test]
fn the_failure_of_an_older_revision_is_not_the_commits() {
    let mut b = begun();
    b.see(
        1.5,
        failed('0', 'a', 'a', "HealthCheckFailed", "timeout waiting for: [Deployment/x/web status: 'InProgress']"),
    );
    b.see(2.0, source('b'));
    b.wait(10.0);
    assert_eq!(b.now('b').1, Code::HeldBack);
    assert_eq!(b.first('b', Verdict::Failed), None);
}

#[test]
fn ready_for_the_old_revision_with_our_token_proves_nothing() {
    let mut b = begun();
    b.see(2.0, source('b'));
    let mut k = ready('a');
    k["metadata"]["annotations"] = json!({"reconcile.fluxcd.io/requestedAt": "t"});
    k["status"]["lastHandledReconcileAt"] = json!("t");
    b.see(2.1, deployment("new", 2, 2, 2));
    b.see(2.2, k);
    b.wait(31.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    // Nor does Ready=True with the new revision in its words: it is written before the revision is.
    b.see(31.0, ks('a', 'b', ("True", "ReconciliationSucceeded", &format!("Applied revision: {}", rev('b'))), None));
    b.wait(60.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.see(61.0, ready('b'));
    b.wait(71.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn suspended_is_said_for_the_source_and_for_the_kustomization() {
    let mut b = begun();
    let mut s = source('a');
    s["spec"]["suspend"] = json!(true);
    b.see(2.0, s);
    assert_eq!(b.now('b').1, Code::Suspended);
    let mut b = begun();
    let mut k = ready('a');
    k["spec"]["suspend"] = json!(true);
    b.see(2.0, k);
    b.see(2.1, source('b'));
    b.wait(60.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::Suspended));
}

#[test]
fn a_source_that_cannot_be_fetched_is_a_failure_only_after_a_while() {
    let mut b = begun();
    let mut s = source('a');
    s["status"]["conditions"] = json!([{"type": "FetchFailed", "status": "True", "reason": "GitOperationFailed", "message": "authentication required"}]);
    b.see(2.0, s.clone());
    b.wait(9.0);
    b.see(9.0, source('a'));
    b.wait(30.0);
    assert_eq!(b.first('b', Verdict::Failed), None, "a hiccup");
    b.see(31.0, s);
    b.wait(39.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::SourceFailed));
    b.see(45.0, source('b'));
    assert_eq!(b.now('b').0, Verdict::Waiting);
}

#[test]
fn a_request_that_the_source_leaves_unanswered_is_an_engine_that_is_down() {
    let mut b = begun();
    let mut s = source('a');
    s["metadata"]["annotations"] = json!({"reconcile.fluxcd.io/requestedAt": "t"});
    b.see(2.0, s);
    b.wait(40.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::EngineDown));
    // The source answers, and the other controller does not begin.
    b.see(41.0, source('b'));
    assert_eq!(b.now('b').1, Code::Syncing);
    b.wait(80.0);
    assert_eq!(b.now('b').1, Code::EngineDown);
}

#[test]
fn without_wait_only_the_deployment_decides() {
    let mut b = begun();
    b.see(2.0, source('b'));
    b.see(2.1, deployment("new", 2, 1, 2));
    b.see(2.2, ready('b'));
    b.wait(20.0);
    assert_eq!(b.now('b').1, Code::Progressing);
    b.see(21.0, stuck("new", 2));
    b.wait(22.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::Degraded));
    b.see(30.0, deployment("new", 2, 2, 2));
    b.wait(40.0);
    assert_eq!(b.now('b').0, Verdict::Healthy, "a slow start is no end");
}

#[test]
fn a_health_check_that_gave_up_is_taken_back_when_the_next_attempt_passes() {
    let mut b = begun();
    b.see(2.0, source('b'));
    b.see(2.1, deployment("new", 2, 2, 1));
    b.see(
        10.0,
        ks(
            'a',
            'b',
            ("False", "HealthCheckFailed", "timeout waiting for: [Deployment/x/web status: 'InProgress']"),
            Some(&format!("Running health checks for revision {}", rev('b'))),
        ),
    );
    b.wait(12.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::HealthCheckFailed));
    b.see(20.0, deployment("new", 2, 2, 2));
    b.wait(40.0);
    assert_eq!(b.now('b').0, Verdict::Failed, "the engine does not have it in force");
    b.see(41.0, ready('b'));
    b.wait(51.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn a_failure_of_a_foreign_revision_on_top_counts_and_one_of_a_judged_commit_does_not() {
    let mut b = begun();
    b.foreign(1.5, 'c', 'b');
    b.see(2.0, source('c'));
    b.see(2.1, failed('a', 'c', 'c', "BuildFailed", "no"));
    b.wait(4.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::BuildFailed));
    let mut b = begun();
    b.push(1.5, 'c', 'b', json!([]));
    b.see(2.0, source('c'));
    b.see(2.1, failed('a', 'c', 'c', "BuildFailed", "no"));
    b.wait(4.0);
    assert_eq!(b.now('c'), (Verdict::Failed, Code::BuildFailed));
    assert_eq!(b.now('b').0, Verdict::Waiting);
}

#[test]
fn pruning_that_is_off_leaves_the_object_and_is_said() {
    let map = json!({"kind": "ConfigMap", "metadata": {"namespace": "x", "name": "c"}});
    let mut b = Bench::new("Kustomization");
    b.see(0.0, source('a'));
    b.see(0.0, map.clone());
    b.push(1.0, 'b', 'a', json!([{"kind": "ConfigMap", "namespace": "x", "name": "c", "exists": false}]));
    b.see(2.0, source('b'));
    b.see(2.1, ready('b'));
    b.wait(30.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::NotLive));
    b.gone(31.0, map);
    b.wait(41.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn an_oci_source_is_followed_by_the_revision_that_it_was_made_from() {
    let mut b = Bench::new("Kustomization");
    let mut k = ready('a');
    k["spec"]["sourceRef"] = json!({"kind": "OCIRepository", "name": "s"});
    k["status"]["lastAppliedRevision"] = json!("latest@sha256:0000");
    k["status"]["lastAttemptedRevision"] = json!("latest@sha256:0000");
    k["status"]["lastAppliedOriginRevision"] = json!(rev('b'));
    b.see(0.0, deployment("new", 2, 2, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    b.see(2.0, k);
    b.wait(12.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn objects_without_a_status_decide_nothing() {
    let mut b = Bench::new("Kustomization");
    b.push(1.0, 'b', 'a', want_image("new"));
    b.see(2.0, json!({"kind": "Kustomization", "metadata": {"namespace": "flux-system", "name": "a"}}));
    b.see(2.0, json!({"kind": "Deployment", "metadata": {"namespace": "x", "name": "web"}, "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "new"}]}}}}));
    b.wait(60.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
}
