//! `/openapi/v3`: the index and one document for each group and version.

use serde_json::{Map, Value, json};

use super::kinds::{Kind, Kinds};
use super::schema::{Node, Type, schemas};

/// The index: a path for each group and version.
pub fn index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for kind in kinds.all() {
        let key = prefix(&kind);
        let url = format!("/openapi/v3/{key}?hash={}", hash(&key));
        paths.insert(key, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

/// The document of `apis/apps/v1` or `api/v1`.
pub fn document(kinds: &Kinds, path: &str) -> Option<Value> {
    let served: Vec<_> = kinds.all().into_iter().filter(|kind| prefix(kind) == path).collect();
    let first = served.first()?;
    let mut components = Map::new();
    for (name, known) in schemas().reachable(&first.group, &first.version) {
        components.insert(name.to_owned(), type_schema(known));
    }
    let mut paths = Map::new();
    for kind in &served {
        let base = if kind.namespaced {
            format!("/{path}/namespaces/{{namespace}}/{}", kind.plural)
        } else {
            format!("/{path}/{}", kind.plural)
        };
        paths.insert(base.clone(), operations(kind, &["get", "post"]));
        paths.insert(format!("{base}/{{name}}"), operations(kind, &["get", "put", "patch", "delete"]));
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": super::VERSION },
        "paths": paths,
        "components": { "schemas": components },
    }))
}

fn prefix(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{text}{}", super::VERSION));
    digest.iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

fn operations(kind: &Kind, verbs: &[&str]) -> Value {
    let gvk = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    let mut all = Map::new();
    for verb in verbs {
        let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
            .iter()
            .filter(|_| *verb != "get" && *verb != "delete")
            .map(|name| json!({ "name": name, "in": "query", "schema": { "type": if *name == "force" { "boolean" } else { "string" }, "uniqueItems": true } }))
            .collect();
        let action = if *verb == "get" { "list" } else { *verb };
        all.insert(
            (*verb).to_owned(),
            json!({
                "operationId": format!("{verb}{}{}{}", kind.group, kind.version, kind.kind),
                "parameters": parameters,
                "responses": { "200": { "description": "OK" } },
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": gvk,
            }),
        );
    }
    Value::Object(all)
}

fn type_schema(known: &Type) -> Value {
    let properties: Map<String, Value> =
        known.fields.iter().map(|(key, field)| (key.clone(), node_schema(&field.node))).collect();
    let required: Vec<&str> =
        known.fields.iter().filter(|(_, field)| field.required).map(|(key, _)| key.as_str()).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if let Value::Object(map) = &mut schema {
        if !required.is_empty() {
            map.insert("required".to_owned(), json!(required));
        }
        if let Some((group, version, kind)) = &known.kind {
            map.insert(
                "x-kubernetes-group-version-kind".to_owned(),
                json!([{ "group": group, "version": version, "kind": kind }]),
            );
        }
    }
    schema
}

fn node_schema(node: &Node) -> Value {
    match node {
        Node::Text(None) => json!({ "type": "string" }),
        Node::Text(Some(format)) => json!({ "type": "string", "format": format }),
        Node::Whole(format) => json!({ "type": "integer", "format": format }),
        Node::Number => json!({ "type": "number", "format": "double" }),
        Node::Bool => json!({ "type": "boolean" }),
        Node::Quantity => json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
        Node::IntOrText => {
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
        }
        Node::Any => json!({ "x-kubernetes-preserve-unknown-fields": true }),
        Node::Map(item) => json!({ "type": "object", "additionalProperties": node_schema(item) }),
        Node::Ref(name) => {
            json!({ "allOf": [{ "$ref": format!("#/components/schemas/{name}") }], "default": {} })
        }
        Node::List { item, keys, set } => {
            let mut schema = json!({ "type": "array", "items": node_schema(item) });
            if let Value::Object(map) = &mut schema {
                if let Some(first) = keys.first() {
                    map.insert("x-kubernetes-list-type".to_owned(), json!("map"));
                    map.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
                    map.insert("x-kubernetes-patch-strategy".to_owned(), json!("merge"));
                    map.insert("x-kubernetes-patch-merge-key".to_owned(), json!(first));
                } else {
                    map.insert("x-kubernetes-list-type".to_owned(), json!(if *set { "set" } else { "atomic" }));
                }
            }
            schema
        }
    }
}
