//! Checks of a manifest against the cluster's own OpenAPI documents, built-in kinds and CRDs alike.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::error::{Problem, Result};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{Cluster, nearest, requests};

/// Kinds whose schemas are kept.
const KEPT: usize = 8;
/// Most findings that are told at once.
const FINDINGS: usize = 10;

/// A kind's schema with everything that it refers to, and the document (by its hash) that it came from.
struct Kept {
    version: String,
    kind: String,
    document: String,
    schema: Arc<Schema>,
}

/// Schemas of recently checked kinds.
pub(super) struct Schemas {
    client: kube::Client,
    kept: Mutex<Vec<Kept>>,
}

impl Schemas {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, kept: Mutex::new(Vec::new()) }
    }

    /// The schema of a kind; `None` where the cluster publishes none.
    async fn of(&self, version: &str, kind: &str) -> Result<Option<Arc<Schema>>> {
        // The root names each document with a hash of its content, so an unchanged one is not read again.
        let root = requests::get(&self.client, "/openapi/v3").await?;
        let path = if version.contains('/') { format!("apis/{version}") } else { format!("api/{version}") };
        let entry = root.get("paths").and_then(|p| p.get(&path));
        let Some(document) = entry.and_then(|e| e.get("serverRelativeURL")).and_then(Value::as_str) else {
            return Ok(None);
        };
        let mut kept = self.kept.lock().await;
        if let Some(at) = kept.iter().position(|k| k.version == version && k.kind == kind && k.document == document) {
            let hit = kept.remove(at);
            let schema = Arc::clone(&hit.schema);
            kept.push(hit);
            return Ok(Some(schema));
        }
        let mut read = requests::get(&self.client, document).await?;
        let Some(schema) = Schema::of(&mut read, version, kind) else { return Ok(None) };
        let schema = Arc::new(schema);
        kept.retain(|k| !(k.version == version && k.kind == kind));
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(Kept {
            version: version.to_owned(),
            kind: kind.to_owned(),
            document: document.to_owned(),
            schema: Arc::clone(&schema),
        });
        Ok(Some(schema))
    }
}

impl Cluster {
    /// What the cluster's schema says against an object: unknown fields with the nearest names, wrong
    /// types, missing and disallowed values. Empty means nothing. A kind without a schema, or a version
    /// that is not served, is itself a finding.
    pub async fn validate(&self, object: &Value) -> Result<Vec<Problem>> {
        let text = |k: &str| object.get(k).and_then(Value::as_str).unwrap_or("");
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version.is_empty() || kind.is_empty() {
            return Ok(vec![Problem::new(
                "schema.kind",
                "The object names no apiVersion and kind.",
                "Give both, as in a manifest.",
            )]);
        }
        match self.0.schemas.of(version, kind).await? {
            Some(schema) => Ok(schema.check(object)),
            None => {
                let group = version.split_once('/').map_or("", |(g, _)| g);
                let served = self.kind(kind, Some(group)).await;
                Ok(vec![match served {
                    Ok(kind) => Problem::new(
                        "schema.version",
                        format!("The cluster publishes no schema for {version}."),
                        "Use the version that it serves.",
                    )
                    .with(kind.resource.api_version),
                    Err(problem) => problem,
                }])
            }
        }
    }
}

/// A schema with its definitions.
struct Schema {
    root: Value,
    definitions: Map<String, Value>,
}

/// Checks an object against an OpenAPI document, as [`Cluster::validate`] does; `None` where the
/// document has no such kind. For tests and tools that have the document at hand.
pub fn check(document: &Value, object: &Value) -> Option<Vec<Problem>> {
    let text = |k: &str| object.get(k).and_then(Value::as_str).unwrap_or("");
    let schema = Schema::of(&mut document.clone(), text("apiVersion"), text("kind"))?;
    Some(schema.check(object))
}

impl Schema {
    /// Takes the schema of a kind out of a document, with what it refers to and nothing else.
    fn of(document: &mut Value, version: &str, kind: &str) -> Option<Self> {
        let all = document.pointer_mut("/components/schemas")?.as_object_mut()?;
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        let is = |s: &Value| {
            let list = s.get("x-kubernetes-group-version-kind").and_then(Value::as_array).map(Vec::as_slice);
            list.unwrap_or_default().iter().any(|gvk| {
                let get = |k: &str| gvk.get(k).and_then(Value::as_str).unwrap_or("");
                get("group") == group && get("version") == short && get("kind") == kind
            })
        };
        let root = all.values().find(|s| is(s))?.clone();
        let mut definitions = Map::new();
        let mut wanted: Vec<String> = Vec::new();
        refs(&root, &mut wanted);
        while let Some(name) = wanted.pop() {
            if !definitions.contains_key(&name)
                && let Some(schema) = all.remove(&name)
            {
                refs(&schema, &mut wanted);
                definitions.insert(name, schema);
            }
        }
        Some(Self { root, definitions })
    }

    fn check(&self, object: &Value) -> Vec<Problem> {
        let mut found = Vec::new();
        self.walk(&self.root, object, "", &mut found);
        found.truncate(FINDINGS);
        found
    }

    /// Follows a reference, also one wrapped in `allOf` for the sake of a default.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let mut at = schema;
        for _ in 0..16 {
            let single = at.get("allOf").and_then(Value::as_array).filter(|l| l.len() == 1).and_then(|l| l.first());
            let target = at.get("$ref").or_else(|| single.and_then(|s| s.get("$ref")));
            let Some(name) = target.and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) else { break };
            let Some(next) = self.definitions.get(name) else { break };
            at = next;
        }
        at
    }

    fn walk(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<Problem>) {
        if found.len() >= FINDINGS || value.is_null() {
            // The API server drops nulls as if they were absent.
            return;
        }
        let schema = self.resolve(schema);
        if let Some(problem) = wrong_type(schema, value, path).or_else(|| wrong_value(schema, value, path)) {
            found.push(problem);
            return;
        }
        match value {
            Value::Object(map) => self.walk_object(schema, map, path, found),
            Value::Array(list) => {
                if let Some(items) = schema.get("items") {
                    for (i, item) in list.iter().enumerate() {
                        self.walk(items, item, &format!("{path}/{i}"), found);
                    }
                }
            }
            _ => {}
        }
    }

    fn walk_object(&self, schema: &Value, map: &Map<String, Value>, path: &str, found: &mut Vec<Problem>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        let keeps = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let open = keeps("x-kubernetes-preserve-unknown-fields")
            || additional.is_some_and(|a| a.as_bool() == Some(true))
            // An object without any properties is a free-form one (RawExtension, Fields).
            || (properties.is_none() && additional.is_none());
        for (key, inner) in map {
            let at = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            if let Some(known) = properties.and_then(|p| p.get(key)) {
                self.walk(known, inner, &at, found);
            } else if let Some(values) = additional.filter(|a| a.is_object()) {
                self.walk(values, inner, &at, found);
            } else if keeps("x-kubernetes-embedded-resource")
                && matches!(key.as_str(), "apiVersion" | "kind" | "metadata")
            {
                // Known to every object, listed in no embedded schema.
            } else if !open {
                found.push(unknown_field(key, &at, properties));
            }
        }
        let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str) {
            if map.get(name).is_none_or(Value::is_null)
                && properties.and_then(|p| p.get(name)?.get("default")).is_none()
            {
                found.push(Problem::new(
                    "schema.required",
                    format!("{path}/{name} is missing."),
                    "Give the field a value.",
                ));
            }
        }
    }
}

fn refs(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(r) if key == "$ref" => found.extend(r.rsplit('/').next().map(str::to_owned)),
                    _ => refs(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| refs(v, found)),
        _ => {}
    }
}

fn unknown_field(key: &str, path: &str, properties: Option<&Map<String, Value>>) -> Problem {
    let names = || properties.into_iter().flat_map(|p| p.keys().map(String::as_str));
    let mut near = nearest(key, names(), 3);
    if near.is_empty() {
        near = names().take(12).map(str::to_owned).collect();
    }
    let path: String = path.chars().take(200).collect();
    Problem::new(
        "schema.unknown_field",
        format!("The cluster knows no field {path}."),
        "Use one of the names in the evidence.",
    )
    .with_all(near)
}

/// Types that a schema allows; empty means any.
fn types(schema: &Value) -> BTreeSet<&str> {
    let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
    if schema.get("x-kubernetes-int-or-string").and_then(Value::as_bool).unwrap_or(false) || format == "int-or-string" {
        return BTreeSet::from(["integer", "string"]);
    }
    if let Some(one) = schema.get("type").and_then(Value::as_str) {
        return BTreeSet::from([one]);
    }
    let lists = ["oneOf", "anyOf"].into_iter().filter_map(|k| schema.get(k)?.as_array());
    let mut all = BTreeSet::new();
    for option in lists.flatten() {
        match option.get("type").and_then(Value::as_str) {
            Some(one) => {
                all.insert(one);
            }
            // An option without a type says nothing about it.
            None => return BTreeSet::new(),
        }
    }
    all
}

fn wrong_type(schema: &Value, value: &Value, path: &str) -> Option<Problem> {
    let allowed = types(schema);
    let is = match value {
        Value::Null => return None,
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if allowed.is_empty() || allowed.contains(is) || (is == "integer" && allowed.contains("number")) {
        return None;
    }
    let wanted: Vec<&str> = allowed.into_iter().collect();
    Some(Problem::new(
        "schema.type",
        format!("{} is {is}, and the cluster wants {}.", if path.is_empty() { "/" } else { path }, wanted.join(" or ")),
        "Give a value of that type; numbers that are to be text need quotes.",
    ))
}

fn wrong_value(schema: &Value, value: &Value, path: &str) -> Option<Problem> {
    if let Some(list) = schema.get("enum").and_then(Value::as_array).filter(|l| !l.contains(value)) {
        // Some generators leave the empty string out, which the API server takes as absent.
        if value.as_str() != Some("") {
            let names: Vec<String> =
                list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            return Some(
                Problem::new(
                    "schema.value",
                    format!("{path} has a value that the cluster does not allow."),
                    "Use one of the values in the evidence.",
                )
                .with_all(names.into_iter().take(20)),
            );
        }
    }
    let number = value.as_f64()?;
    let limit = |k: &str| schema.get(k).and_then(Value::as_f64);
    let low = limit("minimum").filter(|m| number < *m);
    let high = limit("maximum").filter(|m| number > *m);
    let bound = low.map(|m| format!("at least {m}")).or_else(|| high.map(|m| format!("at most {m}")))?;
    Some(Problem::new(
        "schema.value",
        format!("{path} is {number}, and the cluster wants {bound}."),
        "Give a value within the limits.",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({"components": {"schemas": {
            "io.k8s.api.apps.v1.Deployment": {
                "type": "object",
                "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
                "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                    "metadata": {"default": {}, "allOf": [{"$ref": "#/components/schemas/Meta"}]},
                    "spec": {"$ref": "#/components/schemas/Spec"}
                }
            },
            "Meta": {"type": "object", "properties": {"name": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}}}},
            "Spec": {"type": "object", "required": ["template"], "properties": {
                "replicas": {"type": "integer", "format": "int32", "minimum": 0},
                "strategy": {"type": "string", "enum": ["RollingUpdate", "Recreate"]},
                "port": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
                "cpu": {"oneOf": [{"type": "string"}, {"type": "number"}]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "raw": {"type": "object"},
                "template": {"type": "object", "properties": {"containers": {"type": "array", "items": {"type": "object",
                    "required": ["name"], "properties": {"name": {"type": "string"}, "image": {"type": "string"}}}}}}
            }}
        }}})
    }

    fn findings(spec: Value) -> Vec<(String, String, Vec<String>)> {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"a/b": "c"}}, "spec": spec});
        let found = check(&document(), &object).unwrap();
        found.into_iter().map(|p| (p.code.into_owned(), p.message, p.evidence)).collect()
    }

    #[test]
    fn a_good_object_has_no_findings() {
        let good = json!({"replicas": 2, "strategy": "Recreate", "port": "http", "cpu": 1.5, "free": {"any": {"thing": 1}},
            "raw": {"x": 1}, "template": {"containers": [{"name": "web", "image": "nginx"}]}});
        assert_eq!(findings(good), []);
        assert_eq!(findings(json!({"replicas": null, "port": 80, "cpu": "100m", "template": {}})), []);
    }

    #[test]
    fn an_unknown_field_comes_with_the_nearest_names() {
        let got = findings(json!({"replcas": 2, "template": {"containers": [{"name": "web", "imge": "x"}]}}));
        assert_eq!(got[0].0, "schema.unknown_field");
        assert!(got[0].1.contains("/spec/replcas"));
        assert_eq!(got[0].2, ["replicas"]);
        assert!(got[1].1.contains("/spec/template/containers/0/imge"));
        assert_eq!(got[1].2, ["image"]);
    }

    #[test]
    fn wrong_types_values_and_missing_fields_are_told() {
        let codes = |spec| findings(spec).into_iter().map(|f| f.0).collect::<Vec<_>>();
        assert_eq!(codes(json!({"replicas": "2", "template": {}})), ["schema.type"]);
        assert_eq!(codes(json!({"replicas": 1.5, "template": {}})), ["schema.type"]);
        assert_eq!(codes(json!({"replicas": -1, "template": {}})), ["schema.value"]);
        assert_eq!(codes(json!({"strategy": "Yolo", "template": {}})), ["schema.value"]);
        assert_eq!(codes(json!({"port": true, "template": {}})), ["schema.type"]);
        assert_eq!(codes(json!({})), ["schema.required"]);
        assert_eq!(codes(json!({"template": {"containers": [{}]}})), ["schema.required"]);
    }

    #[test]
    fn a_kind_that_the_document_lacks_is_no_silent_pass() {
        assert!(check(&document(), &json!({"apiVersion": "apps/v2", "kind": "Deployment"})).is_none());
    }
}
