//! Argo CD scenarios that the recordings at hand do not show.

use serde_json::{Value, json};

use super::bench::{Bench, deployment, id, stuck, want_image};
use crate::verdict::{Code, Verdict};

fn app(revision: &str, sync: &str, more: Value) -> Value {
    let mut a = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"namespace": "argocd", "name": "a", "annotations": {}},
        "spec": {"project": "p", "source": {"repoURL": "r", "path": "a", "targetRevision": "main"}, "syncPolicy": {"automated": {"prune": true}}},
        "status": {"sync": {"status": sync, "revision": revision}, "health": {"status": "Healthy"}},
    });
    merge(&mut a, more);
    a
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, v) in b {
                merge(a.entry(k).or_insert(Value::Null), v);
            }
        }
        (a, b) => *a = b,
    }
}

fn operation(phase: &str, rev: &str, retries: i64, message: &str) -> Value {
    json!({"status": {"operationState": {
        "phase": phase, "retryCount": retries, "message": message, "startedAt": rev,
        "operation": {"sync": {"revision": rev}, "retry": {"limit": 5}},
        "finishedAt": if phase == "Running" && retries == 0 { Value::Null } else { json!("2026-01-01T00:00:00Z") },
        "syncResult": {"revision": rev, "resources": []},
    }}})
}

/// An Application at `a`, a Deployment with image `old`, and commit `b` that wants `new`.
fn begun() -> Bench {
    let mut b = Bench::new("Application");
    b.see(0.0, app(&id('a'), "Synced", json!({})));
    b.see(0.0, deployment("old", 1, 1, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    b
}

#[test]
fn the_engines_healthy_before_the_rollout_is_not_believed() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", operation("Succeeded", &id('b'), 0, "")));
    b.wait(30.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::NotLive), "the field is not live");
    b.see(31.0, deployment("new", 2, 1, 2));
    b.wait(60.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::Progressing), "the controller has not seen the spec");
    b.see(61.0, deployment("new", 2, 2, 1));
    b.wait(90.0);
    assert_eq!(b.now('b').0, Verdict::Waiting, "old replicas are there");
    b.see(91.0, deployment("new", 2, 2, 2));
    b.wait(100.999);
    assert_eq!(b.now('b').0, Verdict::Waiting, "the window runs");
    assert_eq!(b.judge.next_deadline(), Some(101_000));
    b.wait(101.0);
    assert_eq!(b.now('b'), (Verdict::Healthy, Code::Healthy));
    assert_eq!(b.judge.next_deadline(), None);
}

#[test]
fn the_window_starts_again_when_a_pod_falls_over() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", json!({})));
    b.see(2.0, deployment("new", 2, 2, 2));
    let mut broken = deployment("new", 2, 2, 2);
    broken["status"]["availableReplicas"] = json!(1);
    b.see(8.0, broken.clone());
    b.see(9.0, deployment("new", 2, 2, 2));
    b.wait(18.9);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.wait(19.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
    // Once healthy, pods that come and go take nothing back; a field that is gone does.
    b.see(30.0, broken);
    assert_eq!(b.now('b').0, Verdict::Healthy);
    b.see(31.0, deployment("old", 3, 3, 2));
    assert_eq!(b.now('b').0, Verdict::Waiting);
}

#[test]
fn a_manual_operation_in_a_closed_window_is_a_sync_window() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "OutOfSync", operation("Running", &id('b'), 0, "Sync operation blocked by sync window")));
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::SyncWindow));
    b.see(30.0, app(&id('b'), "OutOfSync", operation("Running", &id('b'), 0, "")));
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::Syncing));
}

#[test]
fn an_automated_sync_that_does_not_start_is_a_sync_window_unless_the_project_has_none() {
    let project = |windows: Value| json!({"kind": "AppProject", "metadata": {"namespace": "argocd", "name": "p"}, "spec": {"syncWindows": windows}});
    let run = |p: Option<Value>| {
        let mut b = begun();
        if let Some(p) = p {
            b.see(1.5, p);
        }
        b.see(2.0, app(&id('b'), "OutOfSync", json!({})));
        assert_eq!(b.now('b').1, Code::Syncing);
        b.wait(15.0);
        b
    };
    let b = run(Some(project(json!([{"kind": "deny", "schedule": "* * * * *", "duration": "1h"}]))));
    assert_eq!(b.now('b').1, Code::SyncWindow);
    assert!(b.say('b').contains("deny \"* * * * *\" for 1h"), "{}", b.say('b'));
    assert_eq!(run(Some(project(json!([])))).now('b').1, Code::Syncing);
    assert_eq!(run(None).now('b').1, Code::SyncWindow);
}

#[test]
fn a_person_has_to_sync_where_automation_is_absent_or_off() {
    for automated in [Value::Null, json!({"enabled": false})] {
        let mut b = begun();
        b.see(2.0, app(&id('b'), "OutOfSync", json!({"spec": {"syncPolicy": {"automated": automated}}})));
        assert_eq!(b.now('b'), (Verdict::Waiting, Code::ManualSync));
    }
}

#[test]
fn a_prune_that_is_switched_off_waits_for_a_person() {
    let mut b = begun();
    let mut more = operation("Succeeded", &id('b'), 0, "");
    merge(
        &mut more,
        json!({"status": {"resources": [{"kind": "ConfigMap", "name": "c", "status": "OutOfSync", "requiresPruning": true}, {"kind": "Service", "name": "s", "status": "Synced"}]}}),
    );
    b.see(2.0, app(&id('b'), "OutOfSync", more));
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::ManualSync));
    assert!(b.say('b').contains("prune"));
}

#[test]
fn skip_reconcile_is_suspended() {
    let mut b = begun();
    b.see(
        2.0,
        app(&id('a'), "Synced", json!({"metadata": {"annotations": {"argocd.argoproj.io/skip-reconcile": "true"}}})),
    );
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::Suspended));
}

#[test]
fn a_refresh_that_nobody_answers_is_an_engine_that_is_down() {
    let mut b = begun();
    b.see(2.0, app(&id('a'), "Synced", json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}})));
    b.wait(31.9);
    assert_eq!(b.now('b').1, Code::NotNoticed);
    b.wait(32.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::EngineDown));
    b.see(40.0, app(&id('b'), "OutOfSync", operation("Running", &id('b'), 0, "")));
    assert_eq!(b.now('b').1, Code::Syncing);
}

#[test]
fn a_fix_that_renders_what_is_live_does_not_wait_for_the_retries_of_the_failing_one() {
    let mut b = begun();
    b.see(
        2.0,
        app(&id('b'), "OutOfSync", operation("Running", &id('b'), 1, "refused. Retrying attempt #1 at 8:00AM.")),
    );
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::Retrying));
    b.push(5.0, 'c', 'b', want_image("old"));
    b.see(6.0, app(&id('c'), "Synced", operation("Running", &id('b'), 2, "refused. Retrying attempt #2 at 8:01AM.")));
    b.wait(16.0);
    assert_eq!(b.now('c').0, Verdict::Healthy);
    assert_eq!(b.now('b').0, Verdict::Superseded);
}

#[test]
fn a_fix_that_changes_something_is_held_back_and_then_goes_through() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "OutOfSync", operation("Running", &id('b'), 1, "refused")));
    b.push(5.0, 'c', 'b', want_image("newer"));
    b.see(6.0, app(&id('c'), "OutOfSync", operation("Running", &id('b'), 2, "refused")));
    assert_eq!(b.now('c'), (Verdict::Waiting, Code::HeldBack));
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::Retrying), "the engine is still at it");
    b.see(60.0, app(&id('c'), "OutOfSync", operation("Failed", &id('b'), 5, "refused (retried 5 times).")));
    b.wait(61.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::SyncFailed));
    assert_eq!(b.now('c').0, Verdict::Waiting, "the failure is not the fix's");
    b.see(62.0, app(&id('c'), "OutOfSync", operation("Running", &id('c'), 0, "")));
    assert_eq!(b.now('b').0, Verdict::Superseded);
    b.see(63.0, app(&id('c'), "Synced", operation("Succeeded", &id('c'), 0, "")));
    b.see(63.0, deployment("newer", 2, 2, 2));
    b.wait(73.0);
    assert_eq!(b.now('c').0, Verdict::Healthy);
    assert_eq!(b.first('c', Verdict::Failed), None);
}

#[test]
fn a_failed_hook_fails_a_commit_that_is_live() {
    let mut b = begun();
    b.see(2.0, deployment("new", 2, 2, 2));
    b.see(
        2.0,
        app(&id('b'), "Synced", operation("Running", &id('b'), 0, "waiting for completion of hook batch/Job/smoke")),
    );
    b.wait(40.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.see(41.0, app(&id('b'), "Synced", operation("Failed", &id('b'), 0, "hook failed")));
    b.wait(60.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::SyncFailed));
    assert_eq!(b.first('b', Verdict::Healthy), None);
}

#[test]
fn an_error_of_comparison_from_before_the_push_is_not_about_the_commit() {
    let broken = |refresh: bool| {
        let mut a = app(
            "main",
            "Unknown",
            json!({"status": {"conditions": [{"type": "ComparisonError", "message": "app path does not exist"}]}}),
        );
        if refresh {
            a["metadata"]["annotations"] = json!({"argocd.argoproj.io/refresh": "normal"});
        }
        a
    };
    let mut b = Bench::new("Application");
    b.see(0.0, app(&id('0'), "Synced", json!({})));
    b.push(1.0, 'a', '0', json!([]));
    b.see(2.0, broken(false));
    b.wait(10.0);
    assert_eq!(b.now('a'), (Verdict::Failed, Code::ComparisonError));
    assert_eq!(b.first('a', Verdict::Failed), Some(3.0));
    b.push(11.0, 'b', 'a', want_image("old"));
    // A resync out of the cache repeats the old error, in the words of the cache.
    let mut cached = broken(false);
    cached["status"]["reconciledAt"] = json!("later");
    cached["status"]["conditions"][0]["message"] = json!("Manifest generation error (cached): app path does not exist");
    b.see(14.0, cached);
    b.wait(40.0);
    assert_eq!(b.now('b'), (Verdict::Waiting, Code::NotNoticed));
    // A refresh that was asked for after the push and leaves the error standing is about it.
    b.see(41.0, broken(true));
    b.see(41.2, broken(false));
    b.wait(43.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::ComparisonError));
    assert_eq!(b.now('a').0, Verdict::Failed);
}

#[test]
fn an_error_that_outlives_the_cache_is_about_the_newest_commit() {
    let mut b = Bench::new("Application");
    b.push(0.0, 'b', 'a', want_image("new"));
    b.see(
        1.0,
        app("main", "Unknown", json!({"status": {"conditions": [{"type": "ComparisonError", "message": "no"}]}})),
    );
    b.wait(190.0);
    assert_eq!(b.now('b').0, Verdict::Waiting, "it was there at first sight");
    b.wait(210.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::ComparisonError));
}

#[test]
fn the_projects_no_is_forbidden() {
    let mut b = begun();
    b.see(2.0, app(&id('a'), "Unknown", json!({"status": {"conditions": [{"type": "InvalidSpecError", "message": "application repo r is not permitted in project 'p'"}]}})));
    b.wait(4.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::Forbidden));
}

#[test]
fn a_later_commit_by_somebody_else_that_leaves_the_field_alone_changes_nothing() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", json!({})));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.foreign(5.0, 'c', 'b');
    b.see(6.0, app(&id('c'), "OutOfSync", operation("Running", &id('c'), 0, "")));
    b.see(7.0, app(&id('c'), "Synced", operation("Succeeded", &id('c'), 0, "")));
    b.wait(12.0);
    assert_eq!(b.first('b', Verdict::Healthy), Some(12.0));
}

#[test]
fn an_unknown_revision_in_force_is_not_taken_for_one_without_the_commit() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", json!({})));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.see(5.0, app(&id('z'), "Synced", json!({})));
    b.wait(12.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
    // A known one is: the branch was rewound.
    b.see(20.0, app(&id('a'), "Synced", json!({})));
    assert_eq!(b.now('b').0, Verdict::Waiting);
}

#[test]
fn a_later_commit_that_skips_this_one_supersedes_it_and_keeps_it_healthy_if_the_field_is_the_same() {
    let mut b = begun();
    b.push(1.5, 'c', 'b', want_image("newer"));
    b.see(2.0, app(&id('c'), "OutOfSync", operation("Running", &id('c'), 0, "")));
    assert_eq!(b.now('b').0, Verdict::Superseded);
    let mut b = begun();
    b.push(1.5, 'c', 'b', json!([{"kind": "ConfigMap", "namespace": "x", "name": "c", "exists": true}]));
    b.see(2.0, app(&id('c'), "Synced", operation("Succeeded", &id('c'), 0, "")));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.wait(12.0);
    assert_eq!(b.now('b').0, Verdict::Healthy, "a revision that contains it is in force and the field is live");
    assert_eq!(b.now('c').0, Verdict::Waiting, "its own object is not there");
}

#[test]
fn the_window_of_a_commit_ends_when_the_next_one_takes_its_place() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", operation("Succeeded", &id('b'), 0, "")));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.push(4.0, 'c', 'b', want_image("newer"));
    b.see(5.0, app(&id('c'), "OutOfSync", operation("Running", &id('c'), 0, "")));
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.see(5.1, deployment("newer", 3, 2, 2));
    assert_eq!(b.first('b', Verdict::Healthy), Some(5.1));
    assert_eq!(b.now('b').0, Verdict::Superseded);
    b.see(6.0, app(&id('c'), "Synced", operation("Succeeded", &id('c'), 0, "")));
    b.see(6.0, stuck("newer", 3));
    b.wait(8.0);
    assert_eq!(b.now('c'), (Verdict::Failed, Code::Degraded));
    assert_eq!(b.now('b').0, Verdict::Superseded);
}

#[test]
fn a_broken_window_without_a_successor_is_no_healthy() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", json!({})));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.see(5.0, deployment("old", 3, 3, 2));
    b.wait(100.0);
    assert_eq!(b.first('b', Verdict::Healthy), None);
}

#[test]
fn one_of_several_sources_is_enough() {
    let mut b = Bench::new("Application");
    b.see(0.0, deployment("new", 2, 2, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    let mut a = app("", "Synced", json!({"status": {"sync": {"revision": null, "revisions": ["1.2.3", id('b')]}}}));
    a["spec"]["sources"] = json!([{"repoURL": "c", "chart": "x", "targetRevision": "1.2.3"}, {"repoURL": "r", "targetRevision": "main", "ref": "v"}]);
    b.see(2.0, a.clone());
    b.wait(12.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
    // A comparison made with another spec proves nothing.
    let mut b = Bench::new("Application");
    b.see(0.0, deployment("new", 2, 2, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    a["status"]["sync"]["comparedTo"] = json!({"sources": [{"repoURL": "c", "chart": "x", "targetRevision": "1.2.2"}, {"repoURL": "r", "targetRevision": "main"}]});
    b.see(2.0, a);
    b.wait(30.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
}

#[test]
fn a_deletion_counts_once_the_object_is_gone_or_no_longer_listed() {
    let want = json!([{"kind": "ConfigMap", "namespace": "x", "name": "c", "path": "", "exists": false}]);
    let listed =
        json!({"status": {"resources": [{"kind": "ConfigMap", "namespace": "x", "name": "c", "status": "Synced"}]}});
    let mut b = Bench::new("Application");
    b.push(1.0, 'b', 'a', want);
    b.see(2.0, app(&id('b'), "Synced", listed));
    b.wait(30.0);
    assert_eq!(b.now('b').0, Verdict::Waiting, "never seen, and still listed");
    b.see(31.0, app(&id('b'), "Synced", json!({})));
    b.wait(41.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn a_stateful_set_and_a_daemon_set_are_judged_by_their_own_counts() {
    let sts = |updated: i64, current: &str| {
        json!({"kind": "StatefulSet", "metadata": {"namespace": "x", "name": "db", "generation": 2},
            "spec": {"replicas": 2, "podManagementPolicy": "OrderedReady"},
            "status": {"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": updated, "currentRevision": current, "updateRevision": "new"}})
    };
    let ds = |updated: i64| {
        json!({"kind": "DaemonSet", "metadata": {"namespace": "x", "name": "agent", "generation": 2}, "spec": {"paused": null},
            "status": {"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberAvailable": 3}})
    };
    let mut b = Bench::new("Application");
    b.push(1.0, 'b', 'a', json!([{"kind": "StatefulSet", "namespace": "x", "name": "db", "exists": true}, {"kind": "DaemonSet", "namespace": "x", "name": "agent", "exists": true}]));
    b.see(2.0, app(&id('b'), "Synced", json!({})));
    b.see(2.0, sts(1, "old"));
    b.see(2.0, ds(3));
    b.wait(20.0);
    assert_eq!(b.now('b').1, Code::Progressing);
    b.see(21.0, sts(2, "old"));
    b.wait(40.0);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.see(41.0, sts(2, "new"));
    b.see(42.0, ds(2));
    b.see(45.0, ds(3));
    b.wait(54.9);
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.wait(55.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn a_commit_without_a_want_fails_by_the_workload_that_it_changed_and_is_never_healthy() {
    let resources = json!({"status": {"resources": [{"group": "apps", "kind": "Deployment", "namespace": "x", "name": "web", "status": "Synced"}]}});
    let mut b = Bench::new("Application");
    b.see(0.0, app(&id('a'), "Synced", resources.clone()));
    b.see(0.0, stuck("old", 1));
    b.push(1.0, 'b', 'a', json!([]));
    b.see(2.0, app(&id('b'), "Synced", resources));
    b.wait(20.0);
    assert_eq!(b.now('b').0, Verdict::Waiting, "it was sick before");
    b.see(21.0, stuck("new", 2));
    b.wait(25.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::Degraded));
    b.see(30.0, deployment("new", 3, 3, 2));
    b.wait(90.0);
    assert_eq!(b.first('b', Verdict::Healthy), None);
}

#[test]
fn a_closed_commit_is_silent_and_still_supersedes() {
    let mut b = begun();
    b.push(1.5, 'c', 'b', want_image("newer"));
    b.judge.close(&id('c'));
    let before = b.codes('c').len();
    b.see(2.0, app(&id('c'), "Synced", operation("Succeeded", &id('c'), 0, "")));
    assert_eq!(b.codes('c').len(), before);
    assert_eq!(b.now('b').0, Verdict::Superseded);
}

#[test]
fn an_application_set_is_judged_by_the_application_that_has_the_object() {
    let mut b = Bench::new("ApplicationSet");
    let mut a = app(
        &id('b'),
        "Synced",
        json!({"status": {"resources": [{"group": "apps", "kind": "Deployment", "namespace": "x", "name": "web"}]}}),
    );
    a["metadata"]["namespace"] = json!("flux-system");
    a["metadata"]["name"] = json!("generated");
    b.see(0.0, deployment("new", 2, 2, 2));
    b.push(1.0, 'b', 'a', want_image("new"));
    assert_eq!(b.now('b').0, Verdict::Waiting);
    b.see(2.0, a);
    b.wait(12.0);
    assert_eq!(b.now('b').0, Verdict::Healthy);
}

#[test]
fn a_push_that_is_told_of_late_owns_the_error_unless_an_earlier_one_may() {
    let broken =
        || app("main", "Unknown", json!({"status": {"conditions": [{"type": "ComparisonError", "message": "no"}]}}));
    let mut b = Bench::new("Application");
    b.see(0.0, app(&id('a'), "Synced", json!({})));
    b.see(1.0, broken());
    b.push(1.5, 'b', 'a', want_image("new"));
    b.push(2.0, 'c', 'b', want_image("newer"));
    b.wait(10.0);
    assert_eq!(b.now('b'), (Verdict::Failed, Code::ComparisonError));
    assert_eq!(b.now('c').0, Verdict::Waiting);
}

#[test]
fn the_field_may_be_seen_to_change_before_the_owner_moves_on() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", operation("Succeeded", &id('b'), 0, "")));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.push(4.0, 'c', 'b', want_image("newer"));
    b.see(5.0, deployment("newer", 3, 2, 2));
    assert_eq!(b.first('b', Verdict::Healthy), None);
    b.see(5.4, app(&id('c'), "OutOfSync", operation("Running", &id('c'), 0, "")));
    assert_eq!(b.first('b', Verdict::Healthy), Some(5.4));
    assert_eq!(b.now('b').0, Verdict::Superseded);
}

#[test]
fn pods_that_fall_over_just_before_the_next_commit_are_no_healthy() {
    let mut b = begun();
    b.see(2.0, app(&id('b'), "Synced", operation("Succeeded", &id('b'), 0, "")));
    b.see(2.0, deployment("new", 2, 2, 2));
    b.push(4.0, 'c', 'b', want_image("newer"));
    let mut crashing = deployment("new", 2, 2, 2);
    crashing["status"]["availableReplicas"] = json!(0);
    b.see(5.0, crashing);
    b.see(5.4, app(&id('c'), "OutOfSync", operation("Running", &id('c'), 0, "")));
    b.see(5.5, deployment("newer", 3, 2, 2));
    assert_eq!(b.first('b', Verdict::Healthy), None);
    assert_eq!(b.now('b').0, Verdict::Superseded);
}
