//! What conditions can look at, taken from the objects themselves before and after the edit, never
//! from what an agent said about them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::risk::{image_name, registry};
use crate::model::Operation;

/// Fields that `change.before` and `change.after` can have.
pub(super) const FIELDS: [&str; 16] = [
    "name",
    "replicas",
    "images",
    "labels",
    "annotations",
    "container",
    "image",
    "registry",
    "repository",
    "tag",
    "digest",
    "resources",
    "env",
    "pointer",
    "value",
    "containers",
];

/// Facts of one object before and after the edit, as conditions see them. `None` = it does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// Before the edit.
    #[serde(default)]
    pub before: Option<Map<String, Value>>,
    /// After the edit.
    #[serde(default)]
    pub after: Option<Map<String, Value>>,
}

impl Values {
    /// Facts of an object that `operation` makes of `before` `after`.
    pub fn of(operation: &Operation, before: Option<&Value>, after: Option<&Value>) -> Self {
        Self { before: before.map(|o| facts(operation, o)), after: after.map(|o| facts(operation, o)) }
    }

    /// Before and after in each other's place.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { before: self.after, after: self.before }
    }

    /// Takes out every text that `keep` refuses (a secret): what is not there is unclear, and so strict.
    pub fn retain(&mut self, keep: &impl Fn(&str) -> bool) {
        for side in [&mut self.before, &mut self.after].into_iter().flatten() {
            side.retain(|_, v| retained(v, keep));
        }
    }
}

fn retained(v: &mut Value, keep: &impl Fn(&str) -> bool) -> bool {
    match v {
        Value::String(s) => keep(s),
        Value::Object(map) => {
            map.retain(|_, v| retained(v, keep));
            true
        }
        // A list with a gap is another list.
        Value::Array(items) => items.iter_mut().all(|v| retained(v, keep)),
        _ => true,
    }
}

fn facts(operation: &Operation, object: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(key.to_owned(), value);
        }
    };
    put("name", object.pointer("/metadata/name").cloned());
    put("replicas", object.pointer("/spec/replicas").filter(|v| v.is_i64() || v.is_u64()).cloned());
    put("labels", Some(object.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}))));
    let containers = containers(object);
    if !containers.is_empty() {
        let images: Map<String, Value> =
            containers.iter().filter_map(|(name, c)| Some(((*name).to_owned(), image(c)?.into()))).collect();
        put("containers", Some(containers.iter().map(|(name, _)| Value::from(*name)).collect()));
        put("images", Some(images.into()));
    }
    let of = |name: &str| containers.iter().find(|(n, _)| *n == name).map(|(_, c)| *c);
    match operation {
        Operation::SetImage(s) => {
            put("container", Some(s.container.clone().into()));
            for (key, value) in of(&s.container).and_then(image).into_iter().flatten() {
                put(&key, Some(value));
            }
        }
        Operation::SetResources(s) => {
            put("container", Some(s.container.clone().into()));
            put("resources", of(&s.container).map(|c| c.get("resources").cloned().unwrap_or_else(|| json!({}))));
        }
        Operation::SetEnv(s) => {
            put("container", Some(s.container.clone().into()));
            put("env", of(&s.container).map(|c| variable(c, &s.name)));
        }
        Operation::SetField(s) => {
            put("pointer", Some(s.pointer.clone().into()));
            put("value", at(object, &s.pointer).cloned());
        }
        Operation::Annotate(named) => {
            let all = object.pointer("/metadata/annotations").and_then(Value::as_object);
            let some = named.keys().filter_map(|k| Some((k.clone(), all?.get(k)?.clone())));
            put("annotations", Some(some.collect::<Map<_, _>>().into()));
        }
        Operation::Scale(_)
        | Operation::Label(_)
        | Operation::Restart(_)
        | Operation::Create(_)
        | Operation::Delete(_)
        | Operation::Adopt(_) => {}
    }
    out
}

/// Containers of the pod template, init containers too, by name.
fn containers(object: &Value) -> Vec<(&str, &Value)> {
    let templates = ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/spec"];
    let Some(pod) =
        templates.iter().find_map(|t| object.pointer(t).filter(|p| p.get("containers").is_some_and(Value::is_array)))
    else {
        return Vec::new();
    };
    ["containers", "initContainers"]
        .iter()
        .filter_map(|list| pod.get(*list)?.as_array())
        .flatten()
        .filter_map(|c| Some((c.get("name")?.as_str()?, c)))
        .collect()
}

/// The parts of a container's image.
fn image(container: &Value) -> Option<Map<String, Value>> {
    let whole = container.get("image")?.as_str()?;
    let name = image_name(whole);
    let host = registry(name);
    let mut out = Map::new();
    out.insert("image".into(), whole.into());
    out.insert("registry".into(), host.into());
    let repository = name.strip_prefix(host).and_then(|r| r.strip_prefix('/')).unwrap_or(name);
    out.insert("repository".into(), repository.into());
    let digest = whole.split_once('@').map(|(_, d)| d);
    if let Some(digest) = digest {
        out.insert("digest".into(), digest.into());
    }
    let rest = whole.strip_prefix(name).unwrap_or_default();
    let tag = rest.strip_prefix(':').map(|t| t.split_once('@').map_or(t, |(t, _)| t));
    match (tag, digest) {
        (Some(tag), _) => drop(out.insert("tag".into(), tag.into())),
        // What the runtime takes where neither is written.
        (None, None) => drop(out.insert("tag".into(), "latest".into())),
        (None, Some(_)) => {}
    }
    Some(out)
}

/// The named variable with its value; without one (a reference, or not set) it is absent.
fn variable(container: &Value, name: &str) -> Value {
    let list = container.get("env").and_then(Value::as_array);
    let value = list
        .and_then(|l| l.iter().find(|e| e.get("name").and_then(Value::as_str) == Some(name)))
        .and_then(|e| e.get("value"));
    match value {
        Some(v) => json!({ name: v }),
        None => json!({}),
    }
}

/// The value at a JSON pointer whose list items may be named (`containers/name=app`).
fn at<'v>(object: &'v Value, pointer: &str) -> Option<&'v Value> {
    pointer.strip_prefix('/')?.split('/').try_fold(object, |at, step| {
        let step = step.replace("~1", "/").replace("~0", "~");
        match at {
            Value::Object(map) => map.get(&step),
            Value::Array(items) => match step.split_once('=') {
                Some((key, name)) => items.iter().find(|i| i.get(key).and_then(Value::as_str) == Some(name)),
                None => items.get(step.parse::<usize>().ok()?),
            },
            _ => None,
        }
    })
}
