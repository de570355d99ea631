//! What the kustomize-controller builds: files of a revision to objects, with substitutions, namespace and owner labels.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::json::{flag, get, list, set, text};
use super::super::render::{self, below, clean, is_kustomization};
use super::super::schema::schemas;
use super::Item;

/// Why nothing was built: the Ready reason and message.
pub struct Unbuilt {
    /// `ArtifactFailed` or `BuildFailed`.
    pub reason: &'static str,
    /// What users see.
    pub message: String,
}

/// The files of a source's commit that building a path needs.
pub async fn files(item: &Item, source: &Value, commit: &str, path: &str) -> Result<render::Files, Unbuilt> {
    let all = item.shared.git.files(text(source, &["spec", "url"]), commit, path).await;
    all.map_err(|why| Unbuilt { reason: "ArtifactFailed", message: format!("failed to download artifact: {why:?}") })
}

/// Whether the path is in the tree; the failure names it as Flux does.
pub fn check_path(object: &Value, all: &render::Files) -> Result<(), Unbuilt> {
    let path = clean(text(object, &["spec", "path"]));
    if !below(all, &path).is_empty() {
        return Ok(());
    }
    let scratch = rand::random::<u32>();
    let message =
        format!("kustomization path not found: stat /tmp/kustomization-{scratch}/{path}: no such file or directory");
    Err(Unbuilt { reason: "ArtifactFailed", message })
}

/// The objects of a Kustomization.
pub async fn objects(item: &Item, object: &Value, all: &render::Files) -> Result<Vec<Value>, Unbuilt> {
    let path = clean(text(object, &["spec", "path"]));
    let failed = |message: String| Unbuilt { reason: "BuildFailed", message };
    let folder = below(all, &path);
    let mut objects = if is_kustomization(&folder) {
        render::kustomize(all, &path).await.map_err(|words| failed(format!("kustomize build failed: {words}")))?
    } else {
        render::plain(&folder, true).map_err(|(file, words)| {
            let scratch = rand::random::<u32>();
            failed(format!("failed to decode Kubernetes YAML from /tmp/kustomization-{scratch}/{path}/{file}: MalformedYAMLError: yaml: {words}"))
        })?
    };
    substitute(item, object, &mut objects).map_err(|words| failed(format!("post build failed for {words}")))?;
    let target = text(object, &["spec", "targetNamespace"]);
    for built in &mut objects {
        override_images(object, built);
        let namespaced = item.shared.store.kinds.of(built).is_some_and(|kind| kind.namespaced);
        if namespaced && !target.is_empty() {
            set(built, &["metadata", "namespace"], json!(target));
        }
        set(built, &["metadata", "labels", "kustomize.toolkit.fluxcd.io/name"], json!(item.name));
        set(built, &["metadata", "labels", "kustomize.toolkit.fluxcd.io/namespace"], json!(item.namespace));
    }
    Ok(objects)
}

/// `spec.images`, by image name.
fn override_images(object: &Value, built: &mut Value) {
    let rules = list(object, &["spec", "images"]).to_vec();
    if rules.is_empty() || schemas().of_object(built).is_none() {
        return;
    }
    let Some(Value::Array(containers)) = built.pointer_mut("/spec/template/spec/containers") else {
        return;
    };
    for container in containers {
        let image = text(container, &["image"]).to_owned();
        let (name, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((&image, "latest"));
        if let Some(rule) = rules.iter().find(|rule| text(rule, &["name"]) == name) {
            let or = |field: &str, default: &str| match text(rule, &[field]) {
                "" => default.to_owned(),
                set => set.to_owned(),
            };
            let new = match text(rule, &["digest"]) {
                "" => format!("{}:{}", or("newName", name), or("newTag", tag)),
                digest => format!("{}@{digest}", or("newName", name)),
            };
            set(container, &["image"], json!(new));
        }
    }
}

/// `postBuild`: `${name}` and `${name:=default}` in every text, unless the object opts out.
fn substitute(item: &Item, object: &Value, objects: &mut [Value]) -> Result<(), String> {
    let Some(post) = get(object, &["spec", "postBuild"]) else {
        return Ok(());
    };
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for source in list(post, &["substituteFrom"]) {
        let (kind, name) = (text(source, &["kind"]), text(source, &["name"]));
        let Some(found) = item.shared.store.find("", kind, &item.namespace, name) else {
            if flag(source, &["optional"]) {
                continue;
            }
            return Err(format!(
                "'{name}', error: substitute from '{kind}/{name}' error: {} \"{name}\" not found",
                format!("{kind}s").to_lowercase()
            ));
        };
        for (key, value) in get(&found, &["data"]).and_then(Value::as_object).into_iter().flatten() {
            values.insert(key.clone(), decoded(kind, value.as_str().unwrap_or_default()));
        }
    }
    for (key, value) in get(post, &["substitute"]).and_then(Value::as_object).into_iter().flatten() {
        values.insert(key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    for built in objects {
        let opted_out =
            |place: &str| text(built, &["metadata", place, "kustomize.toolkit.fluxcd.io/substitute"]) == "disabled";
        if !opted_out("annotations") && !opted_out("labels") {
            replace(built, &values);
        }
    }
    Ok(())
}

fn decoded(kind: &str, value: &str) -> String {
    use base64::Engine;
    if kind != "Secret" {
        return value.to_owned();
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(value).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn replace(value: &mut Value, values: &BTreeMap<String, String>) {
    match value {
        Value::String(source) if source.contains("${") => {
            let new = expand(source, values);
            let whole = source.starts_with("${") && source.find('}') == Some(source.len() - 1);
            // Substitution works on the YAML text: a bare `${replicas}` becomes a number there.
            *value = if whole && let Ok(number) = new.parse::<i64>() { json!(number) } else { Value::String(new) };
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, values)),
        Value::Object(map) => map.values_mut().for_each(|item| replace(item, values)),
        _ => {}
    }
}

fn expand(source: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inside, tail)) = after.split_once('}') else {
            out.push_str(rest);
            return out;
        };
        out.push_str(before);
        let (name, default) = inside.split_once(":=").or_else(|| inside.split_once(":-")).unwrap_or((inside, ""));
        out.push_str(values.get(name).map_or(default, String::as_str));
        rest = tail;
    }
    out.push_str(rest);
    out
}
