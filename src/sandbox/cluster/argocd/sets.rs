//! The ApplicationSet controller: Applications from list and Git directory generators, kept as their template
//! says (argo-cd: applicationset/controllers/applicationset_controller.go).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::json::{flag, get, list, remove, set, text};
use super::super::store::{Propagation, Write};
use super::super::{Engine, Shared};
use super::{FINALIZER, REFRESH};

/// Annotations that the controller leaves on an Application (`defaultPreservedAnnotations`).
const PRESERVED: [&str; 3] = [REFRESH, "argocd.argoproj.io/hydrate", "notified.notifications.argoproj.io"];
/// How often Git is looked at (`requeueAfterSeconds`).
const POLL: Duration = Duration::from_secs(180);

type Parameters = BTreeMap<String, String>;

/// Runs until the sandbox stops.
pub async fn run(shared: Shared) {
    let Some(kind) = shared.store.kinds.by_kind("argoproj.io", "ApplicationSet") else {
        return;
    };
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    loop {
        shared.switch(Engine::Argocd).gate().await;
        let ours = ["applicationsets.argoproj.io", "applications.argoproj.io"];
        let mut due = false;
        for event in shared.store.tail(seen) {
            seen = event.version;
            due |= ours.contains(&event.key.0.as_str());
        }
        if due {
            for object in shared.store.list(&kind, "").0 {
                reconcile(&shared, &object).await;
            }
        }
        let clock = shared.clock();
        tokio::select! {
            woken = changed.wait_for(|version| *version > seen) => if woken.is_err() { return },
            () = clock.sleep(POLL) => seen = 0,
        }
    }
}

async fn reconcile(shared: &Shared, object: &Value) {
    if get(object, &["metadata", "deletionTimestamp"]).is_some() {
        return;
    }
    shared.clock().millis(20).await;
    let (namespace, name) = (text(object, &["metadata", "namespace"]), text(object, &["metadata", "name"]));
    let made = match generate(shared, object).await {
        Ok(made) => made,
        Err(words) => return state(shared, namespace, name, Some(&words)),
    };
    for application in &made {
        put(shared, object, application);
    }
    let Some(kind) = shared.store.kinds.by_kind("argoproj.io", "Application") else { return };
    let uid = text(object, &["metadata", "uid"]);
    for live in shared.store.list(&kind, namespace).0 {
        let owned = list(&live, &["metadata", "ownerReferences"]).iter().any(|owner| text(owner, &["uid"]) == uid);
        let of = |o: &Value| text(o, &["metadata", "name"]).to_owned();
        if owned && !made.iter().any(|m| of(m) == of(&live)) {
            drop(shared.store.delete(&kind, namespace, &of(&live), Propagation::Background, false));
        }
    }
    state(shared, namespace, name, None);
}

/// The Applications that the set stands for.
async fn generate(shared: &Shared, object: &Value) -> Result<Vec<Value>, String> {
    let template = get(object, &["spec", "template"]).cloned().unwrap_or_default();
    let go = flag(object, &["spec", "goTemplate"]);
    let mut made = Vec::new();
    for generator in list(object, &["spec", "generators"]) {
        for parameters in parameters(shared, generator).await? {
            let mut application = rendered(&template, &parameters, go)?;
            set(&mut application, &["apiVersion"], json!("argoproj.io/v1alpha1"));
            set(&mut application, &["kind"], json!("Application"));
            set(&mut application, &["metadata", "namespace"], json!(text(object, &["metadata", "namespace"])));
            if !flag(object, &["spec", "syncPolicy", "preserveResourcesOnDeletion"]) {
                set(&mut application, &["metadata", "finalizers"], json!([FINALIZER]));
            }
            made.push(application);
        }
    }
    Ok(made)
}

async fn parameters(shared: &Shared, generator: &Value) -> Result<Vec<Parameters>, String> {
    if let Some(elements) = get(generator, &["list", "elements"]).and_then(Value::as_array) {
        return Ok(elements.iter().map(flat).collect());
    }
    let Some(git) = generator.get("git") else {
        return Err("the sandbox knows list and git directory generators only".to_owned());
    };
    let url = text(git, &["repoURL"]);
    let failed = |why: super::super::gitread::Unread| format!("error getting directories from repo: {why:?}");
    let commit = shared.git.resolve(url, text(git, &["revision"])).await.map_err(failed)?;
    let files = shared.git.files(url, &commit, "").await.map_err(failed)?;
    let mut folders: Vec<&str> =
        files.keys().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder).collect();
    folders.dedup();
    let hit = |folder: &str, exclude: bool| {
        list(git, &["directories"])
            .iter()
            .filter(|d| flag(d, &["exclude"]) == exclude)
            .any(|d| super::project::glob(text(d, &["path"]), folder))
    };
    let wanted = folders.into_iter().filter(|folder| hit(folder, false) && !hit(folder, true));
    Ok(wanted
        .map(|folder| {
            let base = folder.rsplit('/').next().unwrap_or(folder);
            [("path", folder), ("path.path", folder), ("path.basename", base)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        })
        .collect())
}

/// The scalars of a list element, nested ones by their path.
fn flat(element: &Value) -> Parameters {
    fn walk(prefix: &str, value: &Value, out: &mut Parameters) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&path, inner, out);
                }
            }
            Value::String(text) => drop(out.insert(prefix.to_owned(), text.clone())),
            other => drop(out.insert(prefix.to_owned(), other.to_string())),
        }
    }
    let mut out = Parameters::new();
    walk("", element, &mut out);
    out
}

/// Puts parameters for `{{name}}`, or for `{{.name}}` with Go templates; anything else in braces is an error.
fn rendered(template: &Value, parameters: &Parameters, go: bool) -> Result<Value, String> {
    match template {
        Value::String(text) => {
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("{{") {
                let (inside, after) = after.split_once("}}").ok_or_else(|| format!("unclosed braces in {text:?}"))?;
                let named = inside.trim();
                let key = if go { named.strip_prefix('.').unwrap_or(named) } else { named };
                out.push_str(before);
                match parameters.get(key) {
                    Some(value) => out.push_str(value),
                    // Without Go templates an unknown parameter stays as it is.
                    None if !go => out.push_str(&format!("{{{{{inside}}}}}")),
                    None => return Err(format!("map has no entry for key {key:?}")),
                }
                rest = after;
            }
            out.push_str(rest);
            Ok(Value::String(out))
        }
        Value::Array(items) => items.iter().map(|item| rendered(item, parameters, go)).collect(),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| Ok((key.clone(), rendered(value, parameters, go)?)));
            pairs.collect::<Result<serde_json::Map<_, _>, String>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

/// Creates the Application, or puts spec, labels and annotations back to what the template says.
fn put(shared: &Shared, set_object: &Value, wanted: &Value) {
    let Some(kind) = shared.store.kinds.by_kind("argoproj.io", "Application") else { return };
    let (namespace, name) = (text(wanted, &["metadata", "namespace"]), text(wanted, &["metadata", "name"]));
    let owner = json!([{
        "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": text(set_object, &["metadata", "name"]),
        "uid": text(set_object, &["metadata", "uid"]), "controller": true, "blockOwnerDeletion": true,
    }]);
    if shared.store.get(&kind, namespace, name).is_none() {
        let mut new = wanted.clone();
        set(&mut new, &["metadata", "ownerReferences"], owner);
        if let Err(failure) = shared.store.create(&kind, namespace, new, Write::default()) {
            tracing::debug!(message = failure.message, "an ApplicationSet could not make {name}");
        }
        return;
    }
    let policy = text(set_object, &["spec", "syncPolicy", "applicationsSync"]);
    if matches!(policy, "create-only" | "create-delete") {
        return;
    }
    shared.store.edit(&kind, namespace, name, false, |live| {
        for path in [&["spec"][..], &["metadata", "labels"], &["metadata", "finalizers"]] {
            match get(wanted, path) {
                Some(value) => set(live, path, value.clone()),
                None => drop(remove(live, path)),
            }
        }
        let mut annotations = get(wanted, &["metadata", "annotations"]).cloned().unwrap_or_else(|| json!({}));
        let kept = list(set_object, &["spec", "preservedFields", "annotations"]);
        let kept: Vec<&str> = kept.iter().filter_map(Value::as_str).chain(PRESERVED).collect();
        if let Some(Value::Object(before)) = get(live, &["metadata", "annotations"]) {
            for (key, value) in before.iter().filter(|(key, _)| kept.iter().any(|k| key.starts_with(k))) {
                set(&mut annotations, &[key], value.clone());
            }
        }
        if annotations.as_object().is_some_and(|map| !map.is_empty()) {
            set(live, &["metadata", "annotations"], annotations);
        } else {
            remove(live, &["metadata", "annotations"]);
        }
        set(live, &["metadata", "ownerReferences"], owner);
    });
}

fn state(shared: &Shared, namespace: &str, name: &str, error: Option<&str>) {
    let Some(kind) = shared.store.kinds.by_kind("argoproj.io", "ApplicationSet") else { return };
    let now = shared.clock().stamp();
    let of = |what: &str, holds: bool, reason: &str, message: &str| json!({ "type": what, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message, "lastTransitionTime": now });
    let conditions = match error {
        None => [
            of("ErrorOccurred", false, "ApplicationSetUpToDate", "All applications have been generated successfully"),
            of(
                "ParametersGenerated",
                true,
                "ParametersGenerated",
                "Successfully generated parameters for all Applications",
            ),
            of(
                "ResourcesUpToDate",
                true,
                "ApplicationSetUpToDate",
                "All applications have been generated successfully",
            ),
        ],
        Some(words) => [
            of("ErrorOccurred", true, "ApplicationGenerationFromParamsError", words),
            of("ParametersGenerated", false, "ErrorOccurred", words),
            of("ResourcesUpToDate", false, "ApplicationGenerationFromParamsError", words),
        ],
    };
    shared.store.edit(&kind, namespace, name, true, |new| {
        let same = list(new, &["status", "conditions"])
            .iter()
            .zip(&conditions)
            .all(|(old, new)| ["status", "message"].iter().all(|field| text(old, &[field]) == text(new, &[field])));
        if !same || list(new, &["status", "conditions"]).is_empty() {
            set(new, &["status", "conditions"], json!(conditions));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(element: &Value, template: Value, go: bool) -> Result<Value, String> {
        rendered(&template, &flat(element), go)
    }

    #[test]
    fn parameters_take_the_place_of_their_names() {
        let element = json!({ "name": "web", "values": { "size": 3 } });
        let made = of(&element, json!({ "a": ["x-{{name}}-{{ values.size }}"], "n": 1 }), false);
        assert_eq!(made, Ok(json!({ "a": ["x-web-3"], "n": 1 })));
        assert_eq!(of(&element, json!("{{.name}}/{{ .values.size }}"), true), Ok(json!("web/3")));
    }

    #[test]
    fn an_unknown_parameter_stays_or_is_an_error_with_go_templates() {
        assert_eq!(of(&json!({}), json!("{{nome}}"), false), Ok(json!("{{nome}}")));
        assert!(of(&json!({}), json!("{{.nome}}"), true).is_err_and(|e| e.contains("nome")));
    }
}
