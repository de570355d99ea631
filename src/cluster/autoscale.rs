//! What scales a workload besides Git.

use countersign_core::error::Result;
use countersign_core::model::ObjectKey;
use serde_json::Value;

use super::Cluster;

/// An object that sets the replicas, or the resources, of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoscaler {
    /// The autoscaler: a HorizontalPodAutoscaler, a KEDA ScaledObject or a VerticalPodAutoscaler.
    pub key: ObjectKey,
    /// Fewest replicas, where it says so.
    pub min: Option<i64>,
    /// Most replicas, where it says so.
    pub max: Option<i64>,
    /// Pointers of the two limits in its own spec, for the edit that fits.
    pub pointers: [&'static str; 2],
}

/// Group, kind, pointers of the target reference, of the fewest and of the most replicas.
type Scaler = (&'static str, &'static str, &'static str, [&'static str; 2]);

const HORIZONTAL: [Scaler; 2] = [
    // KEDA first: it makes a HorizontalPodAutoscaler of its own and reverts edits of that.
    ("keda.sh", "ScaledObject", "/spec/scaleTargetRef", ["/spec/minReplicaCount", "/spec/maxReplicaCount"]),
    ("autoscaling", "HorizontalPodAutoscaler", "/spec/scaleTargetRef", ["/spec/minReplicas", "/spec/maxReplicas"]),
];
const VERTICAL: Scaler = ("autoscaling.k8s.io", "VerticalPodAutoscaler", "/spec/targetRef", ["", ""]);

impl Cluster {
    /// What sets the replicas of a workload: a replicas edit in Git would be fought over with it.
    pub async fn hpa_for(&self, key: &ObjectKey) -> Result<Option<Autoscaler>> {
        for scaler in HORIZONTAL {
            if let Some(found) = self.scaler(key, scaler, |_| true).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What sets the resources of a workload's containers by itself.
    pub async fn vpa_for(&self, key: &ObjectKey) -> Result<Option<Autoscaler>> {
        // `Off` only recommends; absent means `Auto`.
        let acts = |v: &Value| v.pointer("/spec/updatePolicy/updateMode").and_then(Value::as_str) != Some("Off");
        self.scaler(key, VERTICAL, acts).await
    }

    async fn scaler(
        &self,
        key: &ObjectKey,
        scaler: Scaler,
        acts: impl Fn(&Value) -> bool,
    ) -> Result<Option<Autoscaler>> {
        let (group, kind, target, pointers) = scaler;
        let items = self.list(group, kind, &key.namespace, "").await?;
        let found = items.iter().find(|item| item.pointer(target).is_some_and(|t| aims_at(t, key)) && acts(item));
        Ok(found.map(|item| {
            let number = |p: &str| item.pointer(p).filter(|v| !p.is_empty() && v.is_i64()).and_then(Value::as_i64);
            let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
            let [min, max] = pointers;
            Autoscaler {
                key: ObjectKey::new(group, kind, &key.namespace, name),
                min: number(min),
                max: number(max),
                pointers,
            }
        }))
    }
}

/// KEDA's reference may leave out kind and version: it means a Deployment.
fn aims_at(target: &Value, key: &ObjectKey) -> bool {
    let get = |k: &str| target.get(k).and_then(Value::as_str).filter(|s| !s.is_empty());
    let group = get("apiVersion").map_or("apps", |v| v.split_once('/').map_or("", |(g, _)| g));
    get("name") == Some(&key.name) && get("kind").unwrap_or("Deployment") == key.kind && group == key.group
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_is_matched_with_its_group_and_the_defaults_of_keda() {
        let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
        assert!(aims_at(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}), &key));
        assert!(aims_at(&json!({"name": "checkout"}), &key));
        assert!(!aims_at(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "checkout"}), &key));
        assert!(!aims_at(
            &json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Deployment", "name": "checkout"}),
            &key
        ));
    }
}
