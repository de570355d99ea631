//! What the API server does to a write before it is stored: defaults, and the checks that it refuses on.

use serde_json::{Value, json};

use super::json::{get, list, number, set, text};
use super::kinds::Kind;
use super::reply::{Cause, Failure};
use super::schema::schemas;

/// How unknown fields are treated (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Dropped (built-in kinds) without a word.
    #[default]
    Ignore,
    /// Dropped, with a `Warning` header.
    Warn,
    /// Refused.
    Strict,
}

/// Compares an object with its schema; the answer lists the unknown fields that the caller warns of.
pub fn decode(kind: &Kind, object: &Value, strictness: Strictness) -> Result<Vec<String>, Failure> {
    let Some(node) = schemas().of_object(object) else {
        return Ok(Vec::new());
    };
    let findings = schemas().check(object, &node);
    let name = text(object, &["metadata", "name"]);
    if let Some((path, found, want)) = findings.mistyped.first() {
        return Err(if is_custom(kind) {
            let message = format!("Invalid value: {found:?}: {path} in body must be of type {want}: {found:?}");
            Failure::invalid(kind, name, &[Cause { reason: "FieldValueTypeInvalid", message, field: path.clone() }])
        } else {
            let version = kind.version.as_str();
            let place = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            Failure::bad(format!(
                "{} in version {version:?} cannot be handled as a {}: json: cannot unmarshal {found} into Go struct field {}.{path} of type {want}",
                kind.kind,
                kind.kind,
                if place.is_empty() { kind.kind.clone() } else { format!("{}Spec", kind.kind) },
            ))
        });
    }
    if strictness == Strictness::Strict && !findings.unknown.is_empty() {
        let unknown: Vec<String> = findings.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        return Err(Failure::bad(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            unknown.join(", ")
        )));
    }
    Ok(findings.unknown)
}

/// Drops the fields that the type does not have, as the real server does with built-in kinds and pruned CRDs.
pub fn prune(object: &mut Value, unknown: &[String]) {
    for path in unknown {
        let pointer = format!(
            "/{}",
            path.replace('[', ".").replace(']', "").replace('~', "~0").replace('/', "~1").replace('.', "/")
        );
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(map)) = object.pointer_mut(parent)
        {
            map.shift_remove(&key.replace("~1", "/").replace("~0", "~"));
        }
    }
}

fn is_custom(kind: &Kind) -> bool {
    kind.group.contains('.') && !kind.group.ends_with("k8s.io")
}

/// Fills in what the API server fills in. Only the defaults that the recordings show.
pub fn defaults(kind: &Kind, object: &mut Value) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("apps", "Deployment") => {
            fill(object, &["spec", "replicas"], json!(1));
            pod_defaults(object, &["spec", "template"]);
            fill(object, &["spec", "strategy"], json!({ "type": "RollingUpdate" }));
            if text(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
                fill(object, &["spec", "strategy", "rollingUpdate"], json!({}));
                fill(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], json!("25%"));
                fill(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], json!("25%"));
            }
            fill(object, &["spec", "revisionHistoryLimit"], json!(10));
            fill(object, &["spec", "progressDeadlineSeconds"], json!(600));
        }
        ("apps", "StatefulSet" | "DaemonSet" | "ReplicaSet") => {
            if kind.kind != "DaemonSet" {
                fill(object, &["spec", "replicas"], json!(1));
            }
            pod_defaults(object, &["spec", "template"]);
        }
        ("", "Pod") => {
            fill(object, &["spec"], json!({}));
            if let Some(spec) = object.get_mut("spec") {
                spec_defaults(spec);
            }
            fill(object, &["status"], json!({ "phase": "Pending", "qosClass": "BestEffort" }));
        }
        ("", "Namespace") => {
            fill(object, &["spec", "finalizers"], json!(["kubernetes"]));
            fill(object, &["status", "phase"], json!("Active"));
        }
        ("", "Secret") => {
            fill(object, &["type"], json!("Opaque"));
            string_data(object);
        }
        ("", "Service") => fill(object, &["spec", "type"], json!("ClusterIP")),
        ("kustomize.toolkit.fluxcd.io", "Kustomization") => {
            fill(object, &["spec", "force"], json!(false));
            fill(object, &["status", "observedGeneration"], json!(-1));
        }
        ("source.toolkit.fluxcd.io", "GitRepository") => {
            fill(object, &["spec", "timeout"], json!("60s"));
            fill(object, &["status", "observedGeneration"], json!(-1));
        }
        ("helm.toolkit.fluxcd.io", "HelmRelease") => fill(object, &["status", "observedGeneration"], json!(-1)),
        _ => {}
    }
}

fn fill(object: &mut Value, path: &[&str], value: Value) {
    if get(object, path).is_none_or(Value::is_null) {
        set(object, path, value);
    }
}

fn string_data(object: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(plain)) = super::json::remove(object, &["stringData"]) else {
        return;
    };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        set(object, &["data", &key], json!(encoded));
    }
}

fn pod_defaults(object: &mut Value, template: &[&str]) {
    let mut path = template.to_vec();
    path.push("spec");
    if get(object, &path).is_none() {
        return;
    }
    let spec = template.iter().chain(&["spec"]).try_fold(object, |at, key| at.get_mut(*key));
    if let Some(spec) = spec {
        spec_defaults(spec);
    }
}

fn spec_defaults(spec: &mut Value) {
    for group in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(group) else {
            continue;
        };
        for container in containers {
            fill(container, &["resources"], json!({}));
            fill(container, &["terminationMessagePath"], json!("/dev/termination-log"));
            fill(container, &["terminationMessagePolicy"], json!("File"));
            let image = text(container, &["image"]);
            let floating =
                image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
            fill(container, &["imagePullPolicy"], json!(if floating { "Always" } else { "IfNotPresent" }));
            if let Some(Value::Array(ports)) = container.get_mut("ports") {
                for port in ports {
                    fill(port, &["protocol"], json!("TCP"));
                }
            }
        }
    }
    fill(spec, &["restartPolicy"], json!("Always"));
    fill(spec, &["terminationGracePeriodSeconds"], json!(30));
    fill(spec, &["dnsPolicy"], json!("ClusterFirst"));
    fill(spec, &["securityContext"], json!({}));
    fill(spec, &["schedulerName"], json!("default-scheduler"));
}

/// The checks behind a 422; `before` is the stored object of an update.
pub fn validate(kind: &Kind, object: &Value, before: Option<&Value>) -> Result<(), Failure> {
    let name = text(object, &["metadata", "name"]);
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(required("metadata.name", "name or generateName is required"));
    } else if !valid_name(name) {
        let message = format!(
            "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        );
        causes.push(Cause { reason: "FieldValueInvalid", message, field: "metadata.name".to_owned() });
    }
    if let Some(node) = schemas().of_object(object) {
        causes.extend(schemas().check(object, &node).missing.iter().map(|path| required(path, "")));
    }
    if kind.group == "apps" {
        workload_causes(object, before, &mut causes);
    }
    if kind.kind == "HorizontalPodAutoscaler" && number(object, &["spec", "maxReplicas"], 1) < 1 {
        causes.push(below("spec.maxReplicas", number(object, &["spec", "maxReplicas"], 0), "must be greater than 0"));
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, name, &causes)) }
}

fn required(path: &str, detail: &str) -> Cause {
    let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
    Cause { reason: "FieldValueRequired", message, field: path.to_owned() }
}

fn below(path: &str, found: i64, rule: &str) -> Cause {
    Cause { reason: "FieldValueInvalid", message: format!("Invalid value: {found}: {rule}"), field: path.to_owned() }
}

fn valid_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || matches!(c, '-' | '.' | ':' | '_'))
}

fn workload_causes(object: &Value, before: Option<&Value>, causes: &mut Vec<Cause>) {
    let rule = "must be greater than or equal to 0";
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        let found = number(object, &["spec", field], 0);
        if found < 0 {
            causes.push(below(&format!("spec.{field}"), found, rule));
        }
    }
    let labels = get(object, &["spec", "template", "metadata", "labels"]).unwrap_or(&Value::Null);
    if let Some(Value::Object(wanted)) = get(object, &["spec", "selector", "matchLabels"])
        && wanted.iter().any(|(key, value)| labels.get(key) != Some(value))
    {
        let message = format!("Invalid value: {labels}: `selector` does not match template `labels`");
        causes.push(Cause { reason: "FieldValueInvalid", message, field: "spec.template.metadata.labels".to_owned() });
    }
    if let Some(before) = before
        && get(before, &["spec", "selector"]) != get(object, &["spec", "selector"])
    {
        let found = get(object, &["spec", "selector"]).unwrap_or(&Value::Null);
        let message = format!("Invalid value: {found}: field is immutable");
        causes.push(Cause { reason: "FieldValueInvalid", message, field: "spec.selector".to_owned() });
    }
    let containers = list(object, &["spec", "template", "spec", "containers"]);
    for (index, container) in containers.iter().enumerate() {
        if text(container, &["image"]).is_empty() {
            causes.push(required(&format!("spec.template.spec.containers[{index}].image"), ""));
        }
        let twice = containers.iter().take(index).any(|other| text(other, &["name"]) == text(container, &["name"]));
        if twice {
            let message = format!("Duplicate value: {:?}", text(container, &["name"]));
            causes.push(Cause {
                reason: "FieldValueDuplicate",
                message,
                field: format!("spec.template.spec.containers[{index}].name"),
            });
        }
    }
}
