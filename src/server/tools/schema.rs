//! Schemas small enough for an agent's context: the derived ones, without what no agent needs.

use rmcp::handler::server::tool::{schema_for_output, schema_for_type};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde_json::{Map, Value};

/// Input schema of `T`: descriptions stay, `null` as a spelling of "absent" goes.
pub fn input<T: JsonSchema + 'static>() -> JsonObject {
    let mut schema = compact(&schema_for_type::<T>(), true);
    // Nested types are described where they are used; that they take no further properties is said once, at the root.
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        for definition in definitions.values_mut().filter_map(Value::as_object_mut) {
            definition.remove("description");
            if definition.get("additionalProperties") == Some(&Value::Bool(false)) {
                definition.remove("additionalProperties");
            }
        }
    }
    schema
}

/// Output schema of `T`: shape only. Of the nested types those in `keep` keep theirs; others are named by their
/// JSON type alone.
pub fn output<T: JsonSchema + 'static>(keep: &[&str]) -> JsonObject {
    let mut schema = compact(&schema_for_output::<T>(), false);
    let Some(Value::Object(mut definitions)) = schema.remove("$defs") else { return schema };
    let types: Map<String, Value> = definitions
        .iter()
        .map(|(name, d)| (name.clone(), d.get("type").cloned().unwrap_or_else(|| "object".into())))
        .collect();
    definitions.retain(|name, _| keep.contains(&name.as_str()));
    schema.values_mut().chain(definitions.values_mut()).for_each(|v| flatten(v, keep, &types));
    if !definitions.is_empty() {
        schema.insert("$defs".into(), Value::Object(definitions));
    }
    schema
}

/// Replaces references by the bare type, except to `keep`.
fn flatten(schema: &mut Value, keep: &[&str], types: &Map<String, Value>) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|v| flatten(v, keep, types)),
        Value::Object(map) => {
            let name =
                map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")).map(str::to_owned);
            if let Some(name) = name.filter(|n| !keep.contains(&n.as_str())) {
                map.remove("$ref");
                map.insert("type".into(), types.get(&name).cloned().unwrap_or_else(|| "object".into()));
            }
            map.values_mut().for_each(|v| flatten(v, keep, types));
        }
        _ => {}
    }
}

fn compact(schema: &JsonObject, describe: bool) -> JsonObject {
    let mut root = tidy(schema, describe);
    root.remove("$schema");
    root.remove("description");
    root
}

/// Drops `title`, `format`, `default` and bounds that only repeat the integer width; turns `const` alternatives
/// with descriptions into a plain `enum`.
fn tidy(schema: &JsonObject, describe: bool) -> JsonObject {
    let mut out = Map::new();
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("title" | "format" | "default", _) => {}
            ("description", _) if !describe => {}
            ("minimum", Value::Number(n)) if n.as_f64() == Some(0.0) && !describe => {}
            ("maximum", _) => {}
            ("additionalProperties", Value::Bool(_)) if !describe => {}
            ("properties" | "$defs", Value::Object(map)) => {
                let required = required_names(schema);
                let tidied = map.iter().map(|(name, v)| {
                    let optional = key == "properties" && !required.contains(&name.as_str());
                    (name.clone(), tidy_value(v, describe, optional))
                });
                out.insert(key.clone(), Value::Object(tidied.collect()));
            }
            ("oneOf", Value::Array(alternatives)) if constants(alternatives).is_some() => {
                out.insert("type".into(), "string".into());
                out.insert("enum".into(), Value::Array(constants(alternatives).unwrap_or_default()));
            }
            _ => {
                out.insert(key.clone(), tidy_value(value, describe, false));
            }
        }
    }
    out
}

fn required_names(schema: &JsonObject) -> Vec<&str> {
    let names = schema.get("required").and_then(Value::as_array);
    names.map(|a| a.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn constants(alternatives: &[Value]) -> Option<Vec<Value>> {
    alternatives.iter().map(|a| a.get("const").filter(|c| c.is_string()).cloned()).collect()
}

fn tidy_value(value: &Value, describe: bool, optional: bool) -> Value {
    match value {
        Value::Object(map) => {
            let mut map = tidy(map, describe);
            if optional {
                drop_null(&mut map);
            }
            Value::Object(map)
        }
        Value::Array(items) => Value::Array(items.iter().map(|v| tidy_value(v, describe, false)).collect()),
        other => other.clone(),
    }
}

/// An optional property may be left out; that it may also be spelled `null` is of no use to a caller.
fn drop_null(map: &mut JsonObject) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(alternatives)) = map.get_mut("anyOf") {
        alternatives.retain(|a| a.get("type").is_none_or(|t| t != "null"));
        if let [Value::Object(only)] = alternatives.as_slice() {
            let only = only.clone();
            map.remove("anyOf");
            map.extend(only);
        }
    }
}
