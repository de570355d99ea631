//! The HorizontalPodAutoscaler controller of a cluster without a metrics server: it keeps replicas within their
//! bounds, and says that it cannot measure (kubernetes: pkg/controller/podautoscaler/horizontal.go).

use std::time::Duration;

use serde_json::{Value, json};

use super::json::{list, number, set, text};
use super::kinds::Kind;
use super::{Engine, Shared};

/// `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: Duration = Duration::from_secs(15);
const NO_METRICS: &str = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let Some(kind) = shared.store.kinds.by_kind("autoscaling", "HorizontalPodAutoscaler") else {
        return;
    };
    loop {
        shared.clock().sleep(PERIOD).await;
        shared.switch(Engine::Workloads).gate().await;
        for autoscaler in shared.store.list(&kind, "").0 {
            reconcile(&shared, &kind, &autoscaler);
        }
    }
}

fn reconcile(shared: &Shared, kind: &Kind, autoscaler: &Value) {
    let target = |field: &str| text(autoscaler, &["spec", "scaleTargetRef", field]);
    let group = target("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let (namespace, name) = (text(autoscaler, &["metadata", "namespace"]), text(autoscaler, &["metadata", "name"]));
    let Some(scaled) = shared.store.kinds.by_kind(group, target("kind")) else {
        return;
    };
    let Some(workload) = shared.store.get(&scaled, namespace, target("name")) else {
        return condition(
            shared,
            kind,
            autoscaler,
            &[(
                "AbleToScale",
                "False",
                "FailedGetScale",
                "the HPA controller was unable to get the target's current scale: not found",
            )],
            0,
            0,
        );
    };
    let current = number(&workload, &["spec", "replicas"], 1);
    let least = number(autoscaler, &["spec", "minReplicas"], 1);
    let most = number(autoscaler, &["spec", "maxReplicas"], 1);
    let got =
        ("AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale");
    if current == 0 {
        let off = "scaling is disabled since the replica count of the target is zero";
        return condition(shared, kind, autoscaler, &[got, ("ScalingActive", "False", "ScalingDisabled", off)], 0, 0);
    }
    let desired = current.clamp(least, most.max(least));
    if desired == current {
        let failed = ("ScalingActive", "False", "FailedGetResourceMetric", NO_METRICS);
        return condition(shared, kind, autoscaler, &[got, failed], current, desired);
    }
    shared.store.edit(&scaled, namespace, target("name"), false, |workload| {
        set(workload, &["spec", "replicas"], json!(desired))
    });
    let words = format!("the HPA controller was able to update the target scale to {desired}");
    condition(shared, kind, autoscaler, &[("AbleToScale", "True", "SucceededRescale", &words)], current, desired);
    let now = shared.clock().stamp();
    shared.store.edit(kind, namespace, name, true, |new| set(new, &["status", "lastScaleTime"], json!(now)));
}

/// Writes conditions (those not named stay) and counts; an unchanged condition keeps its time.
fn condition(
    shared: &Shared,
    kind: &Kind,
    autoscaler: &Value,
    conditions: &[(&str, &str, &str, &str)],
    current: i64,
    desired: i64,
) {
    let now = shared.clock().stamp();
    let (namespace, name) = (text(autoscaler, &["metadata", "namespace"]), text(autoscaler, &["metadata", "name"]));
    shared.store.edit(kind, namespace, name, true, |new| {
        let mut all = list(new, &["status", "conditions"]).to_vec();
        for (what, status, reason, message) in conditions {
            let before = all.iter().find(|c| text(c, &["type"]) == *what);
            let since = match before {
                Some(c) if text(c, &["status"]) == *status => text(c, &["lastTransitionTime"]).to_owned(),
                _ => now.clone(),
            };
            let made = json!({ "type": what, "status": status, "reason": reason, "message": message, "lastTransitionTime": since });
            match all.iter_mut().find(|c| text(c, &["type"]) == *what) {
                Some(slot) => *slot = made,
                None => all.push(made),
            }
        }
        set(new, &["status", "conditions"], Value::Array(all));
        set(new, &["status", "currentReplicas"], json!(current));
        set(new, &["status", "desiredReplicas"], json!(desired));
    });
}
