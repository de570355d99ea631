//! Discovery in both forms: classic (`APIResourceList`) and aggregated (`APIGroupDiscoveryList`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::kinds::{Kind, Kinds};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": super::VERSION, "gitCommit": "sandbox", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.26.8", "compiler": "gc", "platform": "linux/amd64",
    })
}

/// Versions in order of preference, each with its kinds.
type Versions = Vec<(String, Vec<Arc<Kind>>)>;

/// Groups in order, each with its versions in order of preference.
fn groups(kinds: &Kinds, core: bool) -> BTreeMap<String, Versions> {
    let mut groups: BTreeMap<String, Versions> = BTreeMap::new();
    for kind in kinds.all().into_iter().filter(|kind| kind.group.is_empty() == core) {
        let versions = groups.entry(kind.group.clone()).or_default();
        match versions.iter_mut().find(|(version, _)| *version == kind.version) {
            Some((_, list)) => list.push(kind),
            None => versions.push((kind.version.clone(), vec![kind])),
        }
    }
    groups
}

fn verbs(kind: &Kind) -> Value {
    if kind.kind == "Namespace" {
        return json!(["create", "delete", "get", "list", "patch", "update", "watch"]);
    }
    json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
}

fn scalable(kind: &Kind) -> bool {
    kind.group == "apps" && matches!(kind.kind.as_str(), "Deployment" | "ReplicaSet" | "StatefulSet")
}

fn categories(kind: &Kind) -> Value {
    let all = matches!(
        kind.kind.as_str(),
        "Pod" | "Service" | "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob"
    );
    if all { json!(["all"]) } else { json!([]) }
}

fn subresources(kind: &Kind) -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    if kind.status {
        found.push(("status", json!({ "group": kind.group, "version": kind.version, "kind": kind.kind })));
    }
    if scalable(kind) {
        found.push(("scale", json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" })));
    }
    found
}

/// `/api` or `/apis`.
pub fn root(kinds: &Kinds, core: bool, accept: &str, address: &str) -> Response {
    if accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2") {
        let items: Vec<Value> =
            groups(kinds, core).into_iter().map(|(group, versions)| aggregated(&group, &versions)).collect();
        let body = json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items });
        return ([(CONTENT_TYPE, AGGREGATED)], body.to_string()).into_response();
    }
    if core {
        return axum::Json(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
        }))
        .into_response();
    }
    let list: Vec<Value> =
        groups(kinds, false).into_iter().map(|(group, versions)| api_group(&group, &versions)).collect();
    axum::Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list })).into_response()
}

fn api_group(group: &str, versions: &[(String, Vec<Arc<Kind>>)]) -> Value {
    let listed: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "versions": listed, "preferredVersion": listed.first() })
}

/// `/apis/{group}`.
pub fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let versions = groups(kinds, false).remove(name)?;
    let mut found = api_group(name, &versions);
    if let Value::Object(map) = &mut found {
        map.insert("kind".to_owned(), json!("APIGroup"));
        map.insert("apiVersion".to_owned(), json!("v1"));
    }
    Some(found)
}

fn aggregated(group: &str, versions: &[(String, Vec<Arc<Kind>>)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, kinds)| {
            let resources: Vec<Value> = kinds
                .iter()
                .map(|kind| {
                    let subresources: Vec<Value> = subresources(kind)
                        .into_iter()
                        .map(|(name, response)| json!({ "subresource": name, "responseKind": response, "verbs": ["get", "patch", "update"] }))
                        .collect();
                    json!({
                        "resource": kind.plural,
                        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
                        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                        "singularResource": kind.kind.to_lowercase(),
                        "verbs": verbs(kind), "shortNames": kind.short, "categories": categories(kind),
                        "subresources": subresources,
                    })
                })
                .collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
}

/// `/api/v1` or `/apis/{group}/{version}`.
pub fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    let served: Vec<_> =
        kinds.all().into_iter().filter(|kind| kind.group == group && kind.version == version).collect();
    for kind in &served {
        list.push(json!({
            "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": verbs(kind), "shortNames": kind.short, "categories": categories(kind),
        }));
        for (name, response) in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": response.get("kind"), "verbs": ["get", "patch", "update"],
            });
            if let (true, Value::Object(map)) = (name == "scale", &mut entry) {
                map.insert("group".to_owned(), json!("autoscaling"));
                map.insert("version".to_owned(), json!("v1"));
            }
            list.push(entry);
        }
    }
    let group_version = served.first()?.api_version();
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list }))
}
