//! A manifest from a live object: what people wrote stays, what the API server and controllers own goes.

use serde_json::{Map, Value};

use super::document::documents;
use super::emit::{Style, map_lines};
use crate::error::{Problem, Result};
use crate::model::ObjectKey;

/// A live object as a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// What Git will say.
    pub manifest: Value,
    /// The same as the text of a file.
    pub text: String,
    /// Fields of the live object that the cluster gave it and Git therefore does not say, in words.
    pub left_out: Vec<String>,
}

/// What is known about a live object besides itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing<'a> {
    /// `metadata.managedFields`: tells a chosen address from an assigned one. Without it they count as assigned.
    pub managed: &'a [Value],
    /// An autoscaler sets the replicas, so that Git must not.
    pub autoscaled: bool,
}

/// Annotations (or their prefixes, with a slash at the end) that controllers write.
const WRITTEN_ANNOTATIONS: [&str; 13] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/",
    "deprecated.daemonset.template.generation",
    "control-plane.alpha.kubernetes.io/",
    "autoscaling.alpha.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "endpoints.kubernetes.io/",
    "cloud.google.com/neg-status",
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/installation-id",
];

/// Labels that engines and the API server write.
const WRITTEN_LABELS: [&str; 6] = [
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "kustomize.toolkit.fluxcd.io/checksum",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
    "kubernetes.io/metadata.name",
];

/// Kinds that say what is, not what is wanted.
const RUNTIME: [(&str, &str); 14] = [
    ("", "Pod"),
    ("", "Event"),
    ("", "Endpoints"),
    ("", "Node"),
    ("", "Binding"),
    ("", "ComponentStatus"),
    ("batch", "Job"),
    ("apps", "ControllerRevision"),
    ("events.k8s.io", "Event"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("coordination.k8s.io", "Lease"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "CSINode"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
];

/// Labels of managers that put an object back as they want it.
const MANAGED_LABELS: [&str; 4] = [
    "addonmanager.kubernetes.io/mode",
    "kube-aggregator.kubernetes.io/automanaged",
    "olm.owner",
    "objectset.rio.cattle.io/hash",
];

/// What every cluster makes for itself: kind, namespace (empty = any) and name.
const BUILT_IN: [(&str, &str, &str); 8] = [
    ("ConfigMap", "", "kube-root-ca.crt"),
    ("ServiceAccount", "", "default"),
    ("Service", "default", "kubernetes"),
    ("Namespace", "", "default"),
    ("Namespace", "", "kube-system"),
    ("Namespace", "", "kube-public"),
    ("Namespace", "", "kube-node-lease"),
    ("ConfigMap", "kube-system", "extension-apiserver-authentication"),
];

/// Settings with which an engine would not deliver the object as it is.
const ENGINE_SETTINGS: [&str; 5] = [
    "kustomize.toolkit.fluxcd.io/reconcile",
    "kustomize.toolkit.fluxcd.io/ssa",
    "argocd.argoproj.io/hook",
    "argocd.argoproj.io/skip-reconcile",
    "argocd.argoproj.io/ignore-resource-updates",
];

/// The manifest that leaves a live object as it is.
///
/// # Errors
/// `adopt.*` where something else makes or holds the object, or where it is no wanted state;
/// `adopt.secret` for Secrets. Secret values elsewhere are the caller's to find.
pub fn adopt(key: &ObjectKey, live: &Value, standing: Standing<'_>) -> Result<Adopted> {
    free(key, live)?;
    let mut left_out = Vec::new();
    let mut manifest = live.clone();
    if let Some(root) = manifest.as_object_mut() {
        root.remove("status");
        if key.group == "argoproj.io" {
            root.remove("operation");
        }
        let meta = root.get("metadata").map(|m| metadata(m, &mut left_out));
        root.insert("metadata".into(), meta.unwrap_or_default());
    }
    no_stamps(&mut manifest);
    assigned(key, &mut manifest, standing, &mut left_out);
    let manifest = ordered(&manifest);
    let text = text_of(&manifest)?;
    Ok(Adopted { manifest, text, left_out })
}

/// Refuses what somebody else holds, by what the object says itself.
fn free(key: &ObjectKey, live: &Value) -> Result<()> {
    let map = |p: &str| live.pointer(p).and_then(Value::as_object).cloned().unwrap_or_default();
    let (annotations, labels) = (map("/metadata/annotations"), map("/metadata/labels"));
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Err(Problem::new(
            "adopt.going",
            format!("{key} is being deleted."),
            "Leave it; create it anew in Git.",
        ));
    }
    let parents = live.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if !parents.is_empty() {
        let word = |p: &Value, k: &str| p.get(k).and_then(Value::as_str).unwrap_or("?").to_owned();
        return Err(generated(key, "its ownerReferences name what makes it")
            .with_all(parents.iter().map(|p| format!("{} {}", word(p, "kind"), word(p, "name")))));
    }
    if key.kind == "Secret" && key.group.is_empty() {
        return Err(Problem::new(
            "adopt.secret",
            "A Secret is never written into Git in the clear.",
            "Use a SealedSecret, an ExternalSecret or SOPS; a person puts the value in.",
        )
        .never());
    }
    let measured = ["metrics.k8s.io", "authentication.k8s.io", "authorization.k8s.io"].contains(&key.group.as_str());
    if measured || RUNTIME.contains(&(key.group.as_str(), key.kind.as_str())) {
        return Err(Problem::new(
            "adopt.runtime_kind",
            format!("A {} says what happens at run time, not what is wanted.", key.kind),
            "Bring what makes it into Git.",
        )
        .never());
    }
    if let Some(release) = annotations.get("meta.helm.sh/release-name").and_then(Value::as_str) {
        return Err(Problem::new(
            "adopt.helm_release",
            format!("{key} belongs to a Helm release: its next upgrade would put it back."),
            "Bring the release itself into Git, as a HelmRelease or an Application with the chart.",
        )
        .with(format!("annotation meta.helm.sh/release-name={}", release.chars().take(80).collect::<String>())));
    }
    let built_in = |(kind, namespace, name): &(&str, &str, &str)| {
        *kind == key.kind && (namespace.is_empty() || *namespace == key.namespace) && *name == key.name
    };
    if BUILT_IN.iter().any(built_in) {
        return Err(generated(key, "every cluster makes it for itself"));
    }
    if let Some(label) = MANAGED_LABELS.iter().find(|l| labels.contains_key(**l)) {
        return Err(generated(key, "a manager holds it").with(format!("label {label}")));
    }
    if let Some(set) = ENGINE_SETTINGS.iter().find(|a| annotations.contains_key(**a)) {
        return Err(Problem::new(
            "adopt.engine_setting",
            format!("An annotation of {key} tells the engine not to deliver it like others."),
            "Let a person take the annotation away first, or bring it into Git by hand.",
        )
        .with(format!("annotation {set}")));
    }
    Ok(())
}

fn generated(key: &ObjectKey, why: &str) -> Problem {
    Problem::new(
        "adopt.generated",
        format!("{key} is generated: {why}."),
        "Bring what makes it into Git, not what it makes.",
    )
}

/// Name, namespace, labels and annotations; everything else is the server's or a controller's.
fn metadata(meta: &Value, left_out: &mut Vec<String>) -> Value {
    let mut out = Map::new();
    for k in ["name", "namespace"] {
        if let Some(v) = meta.get(k) {
            out.insert(k.into(), v.clone());
        }
    }
    let written = |list: &[&str], k: &str| list.iter().any(|w| *w == k || (w.ends_with('/') && k.starts_with(w)));
    for (field, list) in [("labels", &WRITTEN_LABELS[..]), ("annotations", &WRITTEN_ANNOTATIONS[..])] {
        let Some(map) = meta.get(field).and_then(Value::as_object) else { continue };
        let kept: Map<String, Value> =
            map.iter().filter(|(k, _)| !written(list, k)).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !kept.is_empty() {
            out.insert(field.into(), kept.into());
        }
    }
    if meta.get("finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty()) {
        left_out.push("metadata.finalizers".into());
    }
    out.into()
}

/// `creationTimestamp: null`, which the API server writes into templates.
fn no_stamps(v: &mut Value) {
    match v {
        Value::Object(map) => {
            map.retain(|k, v| !(k == "creationTimestamp" && v.is_null()));
            map.values_mut().for_each(no_stamps);
        }
        Value::Array(items) => items.iter_mut().for_each(no_stamps),
        _ => {}
    }
}

/// Takes out what the cluster gave the object by itself.
fn assigned(key: &ObjectKey, manifest: &mut Value, standing: Standing<'_>, left_out: &mut Vec<String>) {
    let chosen = |path: &[&str]| standing.managed.iter().any(|m| manages(m, path));
    let mut drop_field = |at: &mut Value, field: &str, words: &str| {
        if at.as_object_mut().is_some_and(|m| m.shift_remove(field).is_some()) && !words.is_empty() {
            left_out.push(words.to_owned());
        }
    };
    if standing.autoscaled
        && let Some(spec) = manifest.get_mut("spec")
    {
        drop_field(spec, "replicas", "spec.replicas (an autoscaler sets it)");
    }
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Service") => {
            let Some(spec) = manifest.get_mut("spec") else { return };
            let headless = spec.get("clusterIP").is_some_and(|ip| ip == "None");
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
                if !(chosen(&["spec", field]) || headless && field == "clusterIP") {
                    drop_field(spec, field, &format!("spec.{field}"));
                }
            }
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if !standing.managed.iter().any(|m| manages_node_port(m, port)) {
                    drop_field(port, "nodePort", "nodePort");
                }
            }
        }
        ("", "PersistentVolumeClaim") if !chosen(&["spec", "volumeName"]) => {
            if let Some(spec) = manifest.get_mut("spec") {
                drop_field(spec, "volumeName", "spec.volumeName");
            }
        }
        ("", "PersistentVolume") => {
            for field in ["uid", "resourceVersion"] {
                if let Some(claim) = manifest.pointer_mut("/spec/claimRef") {
                    drop_field(claim, field, "");
                }
            }
        }
        ("", "ServiceAccount") if !chosen(&["secrets"]) => drop_field(manifest, "secrets", "secrets"),
        ("", "Namespace") => drop_field(manifest, "spec", ""),
        ("apps", "StatefulSet") => {
            let claims = manifest.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
            claims.into_iter().flatten().for_each(|c| drop_field(c, "status", ""));
        }
        _ => {}
    }
    left_out.sort();
    left_out.dedup();
}

/// Whether somebody wrote the field, as `managedFields` keep it (KEP-555, `fieldsV1`).
fn manages(entry: &Value, path: &[&str]) -> bool {
    entry.get("subresource").is_none()
        && path
            .iter()
            .try_fold(entry.get("fieldsV1"), |at, step| Some(at?.get(format!("f:{step}"))))
            .flatten()
            .is_some()
}

fn manages_node_port(entry: &Value, port: &Value) -> bool {
    let ports = entry.pointer("/fieldsV1/f:spec/f:ports").and_then(Value::as_object);
    let protocol = |v: &Value| v.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
    ports.into_iter().flatten().any(|(k, fields)| {
        let named: Option<Value> = k.strip_prefix("k:").and_then(|k| serde_json::from_str(k).ok());
        named.is_some_and(|n| n.get("port") == port.get("port") && protocol(&n) == protocol(port))
            && fields.get("f:nodePort").is_some()
    })
}

/// Keys in one order, whatever order the API server sent them in: the same object is the same text.
fn ordered(v: &Value) -> Value {
    const FIRST: [&str; 6] = ["apiVersion", "kind", "metadata", "name", "namespace", "image"];
    match v {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            let rank = |k: &str| FIRST.iter().position(|f| *f == k).unwrap_or(FIRST.len());
            keys.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
            Value::Object(keys.into_iter().filter_map(|k| Some((k.clone(), ordered(map.get(k)?)))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(ordered).collect()),
        other => other.clone(),
    }
}

/// The text of a file, which reads back as the very same object.
///
/// # Errors
/// `adopt.not_exact` where there is no such text.
pub fn text_of(manifest: &Value) -> Result<String> {
    let style = Style { unit: 2, indented_lists: false, newline: "\n", json: false, blocks: true };
    let mut text = manifest.as_object().map(|o| map_lines(o, 0, style).join("\n")).unwrap_or_default();
    text.push('\n');
    match documents(text.as_bytes())?.as_slice() {
        [one] if one.value == *manifest => Ok(text),
        _ => Err(Problem::new(
            "adopt.not_exact",
            "The live object cannot be written as YAML that reads back as the same.",
            "Let a person bring it into Git.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn adopted(live: &Value, standing: Standing<'_>) -> Result<Adopted> {
        let (key, _) = super::super::document::key_of(live).unwrap();
        adopt(&key, live, standing)
    }

    fn refused(live: &Value) -> String {
        adopted(live, Standing::default()).unwrap_err().code.to_string()
    }

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": "stray", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2025-11-21T03:14:00Z", "selfLink": "/x", "generateName": "stray-",
                "managedFields": [{"manager": "kubectl"}], "finalizers": ["example.test/hold"],
                "labels": {"env": "prod", "kustomize.toolkit.fluxcd.io/name": "gone"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "deployment.kubernetes.io/revision": "4",
                    "example.test/owner": "team-a",
                },
            },
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "stray"}},
                "template": {
                    "metadata": {"creationTimestamp": null, "labels": {"app": "stray"}},
                    "spec": {"containers": [{"image": "reg.example/stray:1", "name": "app", "args": ["a: b", "true", "12"], "env": [{"name": "TEXT", "value": "one\ntwo\n"}]}]},
                },
            },
            "status": {"readyReplicas": 2},
        })
    }

    #[test]
    fn what_the_server_and_controllers_own_goes_and_everything_else_stays() {
        let a = adopted(&deployment(), Standing::default()).unwrap();
        let mut expected = deployment();
        expected.as_object_mut().unwrap().remove("status");
        expected["metadata"] = json!({"name": "stray", "namespace": "shop", "labels": {"env": "prod"}, "annotations": {"example.test/owner": "team-a"}});
        expected["spec"]["template"]["metadata"] = json!({"labels": {"app": "stray"}});
        assert_eq!(a.manifest, expected);
        assert_eq!(a.left_out, ["metadata.finalizers"]);
        assert!(
            a.text.starts_with("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: stray\n  namespace: shop\n"),
            "{}",
            a.text
        );
        assert!(a.text.contains("      - name: app\n        image: reg.example/stray:1\n"), "{}", a.text);
    }

    #[test]
    fn the_text_does_not_depend_on_the_order_of_the_api_server() {
        fn turned(v: &Value) -> Value {
            match v {
                Value::Object(m) => m.iter().rev().map(|(k, v)| (k.clone(), turned(v))).collect::<Map<_, _>>().into(),
                Value::Array(a) => a.iter().map(turned).collect(),
                v => v.clone(),
            }
        }
        let (one, two) = (deployment(), turned(&deployment()));
        assert_ne!(one.to_string(), two.to_string());
        assert_eq!(adopted(&one, Standing::default()).unwrap().text, adopted(&two, Standing::default()).unwrap().text);
    }

    #[test]
    fn replicas_stay_out_where_an_autoscaler_sets_them() {
        let a = adopted(&deployment(), Standing { autoscaled: true, ..Standing::default() }).unwrap();
        assert!(a.manifest.pointer("/spec/replicas").is_none());
        assert!(a.left_out.iter().any(|l| l.contains("autoscaler")), "{:?}", a.left_out);
    }

    fn service(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    }

    #[test]
    fn assigned_addresses_and_ports_go_and_chosen_ones_stay() {
        let live = service(json!({
            "type": "NodePort", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": {"app": "web"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 81, "nodePort": 30081, "protocol": "TCP"}],
        }));
        let bare = adopted(&live, Standing::default()).unwrap();
        assert_eq!(
            bare.manifest["spec"],
            json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]})
        );
        let managed = [json!({"manager": "kubectl", "fieldsV1": {"f:spec": {
            "f:clusterIP": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:nodePort": {}}},
        }}})];
        let chosen = adopted(&live, Standing { managed: &managed, ..Standing::default() }).unwrap();
        assert_eq!(chosen.manifest["spec"]["clusterIP"], json!("10.0.0.7"));
        assert_eq!(chosen.manifest["spec"]["ports"][0]["nodePort"], json!(30080));
        assert!(chosen.manifest["spec"]["ports"][1].get("nodePort").is_none());
        let by_status = [json!({"subresource": "status", "fieldsV1": {"f:spec": {"f:clusterIP": {}}}})];
        let assigned = adopted(&live, Standing { managed: &by_status, ..Standing::default() }).unwrap();
        assert!(assigned.manifest["spec"].get("clusterIP").is_none(), "a controller's word is no choice");
    }

    #[test]
    fn a_headless_service_stays_headless() {
        let a = adopted(&service(json!({"clusterIP": "None", "clusterIPs": ["None"]})), Standing::default()).unwrap();
        assert_eq!(a.manifest["spec"], json!({"clusterIP": "None"}));
    }

    #[test]
    fn what_somebody_else_holds_is_refused() {
        let with = |pointer: &str, value: Value| {
            let mut live = deployment();
            live["metadata"][pointer] = value;
            live
        };
        let made = with(
            "ownerReferences",
            json!([{"apiVersion": "example.test/v1", "kind": "Shop", "name": "shop", "uid": "1"}]),
        );
        let problem = adopted(&made, Standing::default()).unwrap_err();
        assert_eq!(
            (problem.code.as_ref(), problem.evidence.as_slice()),
            ("adopt.generated", &["Shop shop".to_owned()][..])
        );
        assert_eq!(refused(&with("annotations", json!({"meta.helm.sh/release-name": "shop"}))), "adopt.helm_release");
        assert_eq!(refused(&with("labels", json!({"olm.owner": "x"}))), "adopt.generated");
        assert_eq!(refused(&with("deletionTimestamp", json!("2025-11-21T03:14:00Z"))), "adopt.going");
        let off = json!({"kustomize.toolkit.fluxcd.io/reconcile": "disabled"});
        assert_eq!(refused(&with("annotations", off)), "adopt.engine_setting");
        let of = |api: &str, kind: &str, name: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "shop"}});
        assert_eq!(refused(&of("v1", "Secret", "db")), "adopt.secret");
        assert_eq!(refused(&of("v1", "Pod", "one")), "adopt.runtime_kind");
        assert_eq!(refused(&of("batch/v1", "Job", "one")), "adopt.runtime_kind");
        assert_eq!(refused(&of("metrics.k8s.io/v1", "PodMetrics", "one")), "adopt.runtime_kind");
        assert_eq!(refused(&of("v1", "ConfigMap", "kube-root-ca.crt")), "adopt.generated");
        assert!(adopted(&of("v1", "ConfigMap", "colours"), Standing::default()).is_ok());
    }
}
