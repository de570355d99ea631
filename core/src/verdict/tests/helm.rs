//! HelmRelease scenarios that the recordings at hand do not show.

use serde_json::{Value, json};

use super::bench::{Bench, deployment, rev, stuck, want_image};
use super::flux::{ks, source};
use crate::verdict::{Code, Verdict};

fn brings(applied: char) -> Value {
    let mut k =
        ks(applied, applied, ("True", "ReconciliationSucceeded", &format!("Applied revision: {}", rev(applied))), None);
    k["status"]["inventory"] =
        json!({"entries": [{"id": "flux-system_a_helm.toolkit.fluxcd.io_HelmRelease", "v": "v2"}]});
    k
}

fn hr(generation: i64, attempted: i64, observed: i64, ready: (&str, &str, &str), reconciling: Option<&str>) -> Value {
    let mut conditions = vec![json!({"type": "Ready", "status": ready.0, "reason": ready.1, "message": ready.2})];
    if let Some(m) = reconciling {
        conditions.push(json!({"type": "Reconciling", "status": "True", "reason": "Progressing", "message": m}));
    }
    json!({"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": {"namespace": "flux-system", "name": "a", "generation": generation},
        "spec": {}, "status": {"observedGeneration": observed, "lastAttemptedGeneration": attempted, "lastAttemptedRevision": "1.0.0", "conditions": conditions}})
}

const OK: (&str, &str, &str) = ("True", "UpgradeSucceeded", "Helm upgrade succeeded");

fn begun() -> Bench {
    let mut b = Bench::new("HelmRelease");
    b.see(0.0, source('a'));
    b.see(0.0, brings('a'));
    b.see(0.0, hr(1, 1, 1, OK, None));
    b.see(0.0, deployment("old", 1, 1, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    b.see(2.0, source('b'));
    b
}

#[test]
fn a_release_that_is_ready_for_the_old_generation_is_not_the_commits() {
    let mut b = begun();
    b.see(3.0, hr(2, 1, 1, OK, None));
    b.see(3.0, brings('b'));
    b.see(3.0, deployment("new", 2, 2, 2));
    b.wait(30.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.see(31.0, hr(2, 2, 2, OK, None));
    b.wait(41.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn the_release_of_before_is_not_taken_for_the_commits_because_its_change_is_seen_late() {
    let spec = |mut hr: Value, image: &str| {
        hr["spec"] = json!({"values": {"image": image}});
        hr
    };
    for seen in [(2, 1, 1), (2, 2, 1)] {
        let mut b = Bench::new("HelmRelease");
        b.see(0.0, source('a'));
        b.see(0.0, brings('a'));
        b.see(0.0, spec(hr(1, 1, 1, OK, None), "old"));
        let want = json!([{"kind": "HelmRelease", "namespace": "flux-system", "name": "a", "path": "/spec/values/image", "value": "new"}]);
        b.push(1.0, 'b', 'a', want);
        b.see(2.0, source('b'));
        b.see(3.0, brings('b'));
        let running = ("Unknown", "Progressing", "Running 'upgrade' action with timeout of 5m0s");
        b.see(3.1, spec(hr(seen.0, seen.1, seen.2, running, Some(running.2)), "new"));
        b.wait(60.0);
        assert_eq!(b.now('b').0, Verdict::Waiting, "{seen:?}");
        b.see(61.0, spec(hr(2, 2, 2, OK, None), "new"));
        b.wait(75.0);
        assert_eq!(b.now('b').0, Verdict::Healthy);
        // What a later commit does to the release takes no verdict back.
        b.foreign(76.0, 'c', 'b');
        b.see(77.0, brings('c'));
        b.see(78.0, spec(hr(3, 2, 2, OK, None), "new"));
        b.wait(90.0);
        assert_eq!(b.now('b').0, Verdict::Healthy);
    }
}

#[test]
fn a_stuck_rollout_is_the_actions_to_judge_while_it_runs_and_the_deployments_after() {
    let mut b = begun();
    b.see(
        3.0,
        hr(
            2,
            2,
            1,
            ("Unknown", "Progressing", "Running 'upgrade' action"),
            Some("Running 'upgrade' action with timeout of 5m0s"),
        ),
    );
    b.see(3.0, brings('b'));
    b.see(3.0, stuck("new", 2));
    b.wait(20.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    // With disableWait the action ends well, and the Deployment's word is what is left.
    b.see(21.0, hr(2, 2, 2, OK, None));
    b.wait(22.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::Degraded));
}

#[test]
fn a_rolled_back_release_is_failed_although_its_pods_are_fine() {
    let mut b = begun();
    b.see(3.0, brings('b'));
    b.see(3.0, hr(2, 2, 1, ("False", "UpgradeFailed", "Helm upgrade failed: template: no"), None));
    let mut back = hr(2, 2, 2, ("False", "RollbackSucceeded", "Helm rollback succeeded"), None);
    back["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "Remediated", "status": "True", "reason": "RollbackSucceeded", "message": "ok"}));
    b.see(3.5, back);
    b.wait(60.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::ReleaseFailed));
    assert!(b.say('b').contains("template: no"), "{}", b.say('b'));
}

#[test]
fn the_failure_of_the_release_before_is_not_the_commits() {
    let mut b = begun();
    b.see(2.5, hr(1, 1, 1, ("False", "UpgradeFailed", "old trouble"), None));
    b.see(3.0, hr(2, 1, 1, ("False", "UpgradeFailed", "old trouble"), None));
    b.see(3.0, brings('b'));
    b.wait(30.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::HeldBack));
    assert_eq!(b.first('b', Verdict::Failed), None);
}

#[test]
fn the_kustomizations_health_check_is_not_the_releases() {
    let mut b = begun();
    b.see(
        3.0,
        hr(
            2,
            2,
            1,
            ("Unknown", "Progressing", "Running 'upgrade' action"),
            Some("Running 'upgrade' action with timeout of 5m0s"),
        ),
    );
    let mut k = ks(
        'a',
        'b',
        ("False", "HealthCheckFailed", "timeout waiting for: [HelmRelease/flux-system/a status: 'InProgress']"),
        Some(&format!("Running health checks for revision {}", rev('b'))),
    );
    k["status"]["inventory"] = brings('a')["status"]["inventory"].clone();
    b.see(40.0, k.clone());
    b.wait(60.0);
    assert_eq!(b.first('b', Verdict::Failed), None);
    // A build that fails is: the release never gets the commit.
    let mut b = begun();
    k["status"]["conditions"] = json!([
        {"type": "Ready", "status": "False", "reason": "BuildFailed", "message": "no"},
        {"type": "Reconciling", "status": "True", "reason": "ProgressingWithRetry", "message": format!("Building manifests for revision {}", rev('b'))}]);
    b.see(3.0, k);
    b.wait(10.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::BuildFailed));
}

#[test]
fn a_chart_in_git_must_be_built_from_the_commit() {
    let chart = |c: char, version: &str, ready: &str| {
        json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmChart", "metadata": {"namespace": "flux-system", "name": "flux-system-a"},
            "status": {"observedSourceArtifactRevision": rev(c), "artifact": {"revision": version},
                "conditions": [{"type": "Ready", "status": ready, "reason": "ChartPackageSucceeded", "message": format!("packaged 'x' chart with version '{version}'")}]}})
    };
    let release = |version: &str| {
        let mut h = hr(1, 1, 1, OK, None);
        h["status"]["helmChart"] = json!("flux-system/flux-system-a");
        h["status"]["lastAttemptedRevision"] = json!(version);
        h
    };
    let mut b = begun();
    b.see(2.5, chart('a', "1.0.0", "True"));
    b.see(2.6, release("1.0.0"));
    b.see(3.0, brings('b'));
    // The revision is written before the version.
    b.see(3.1, chart('b', "1.0.0", "Unknown"));
    b.see(3.2, deployment("new", 2, 2, 2));
    b.wait(3.3);
    b.see(3.3, chart('b', "1.0.1", "True"));
    b.wait(30.0);
    assert_eq!(b.now('b').0, Verdict::Waiting, "the new chart is not released");
    b.see(31.0, release("1.0.1"));
    b.wait(41.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn a_chart_that_cannot_be_built_is_told() {
    let mut b = begun();
    let mut h = hr(1, 1, 1, ("False", "SourceNotReady", "HelmChart is not ready"), None);
    h["status"]["helmChart"] = json!("flux-system/c");
    b.see(3.0, h);
    b.see(3.0, json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmChart", "metadata": {"namespace": "flux-system", "name": "c"},
        "status": {"observedSourceArtifactRevision": rev('b'), "conditions": [{"type": "BuildFailed", "status": "True", "reason": "ChartPackageError", "message": "bad Chart.yaml"}]}}));
    b.wait(5.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::BuildFailed));
}

#[test]
fn suspended_and_dependent_releases_are_said() {
    let mut b = begun();
    b.see(3.0, brings('b'));
    let mut h = hr(2, 1, 1, OK, None);
    h["spec"]["suspend"] = json!(true);
    b.see(3.0, h);
    assert_eq!(b.now('b').1, Code::Suspended);
    b.see(4.0, hr(2, 1, 1, ("False", "DependencyNotReady", "dependency 'x/y' is not ready"), None));
    assert_eq!(b.now('b').1, Code::Dependency);
}
