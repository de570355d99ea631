//! What an operation means for one object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::pointer::{Resolved, Step, escape, get, item_name, resolve};
use super::splice::LeafOp;
use super::text::nearest;
use crate::error::{Problem, Result};
use crate::model::{LeafChange, Operation, SetEnv, SetField, SetImage, SetResources};

/// Annotation on the pod template whose change restarts the pods.
pub const RESTART_ANNOTATION: &str = "countersign.dev/restartedAt";

/// Where the pod template of a kind stands.
fn pod_template(object: &Value) -> Result<&'static str> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
    match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" | "Rollout" => {
            Ok("/spec/template")
        }
        "CronJob" => Ok("/spec/jobTemplate/spec/template"),
        "Pod" => Ok(""),
        _ => Err(Problem::new(
            "manifest.no_pod_template",
            format!("A {kind} has no pod template that is known here."),
            "Use set_field with the pointer of the field.",
        )),
    }
}

/// The pointer of a container, found by name among containers and init containers.
pub(super) fn container(object: &Value, name: &str) -> Result<String> {
    let spec = format!("{}/spec", pod_template(object)?);
    let mut names: Vec<&str> = Vec::new();
    for list in ["containers", "initContainers"] {
        let items = object.pointer(&format!("{spec}/{list}")).and_then(Value::as_array);
        for n in items.into_iter().flatten().filter_map(item_name) {
            if n == name {
                return Ok(format!("{spec}/{list}/name={}", escape(n)));
            }
            names.push(n);
        }
    }
    let near = nearest(name, names.iter().copied());
    Err(Problem::new(
        "manifest.container_not_found",
        format!("There is no container {name}."),
        "Name one of the containers listed.",
    )
    .with_all(if near.is_empty() { names.into_iter().map(str::to_owned).collect() } else { near }))
}

/// Leaf operations, each against the value as the ones before leave it.
pub(super) struct Plan {
    value: Value,
    pub ops: Vec<LeafOp>,
}

impl Plan {
    /// Starts from an object or any other value.
    pub fn new(value: &Value) -> Self {
        Self { value: value.clone(), ops: Vec::new() }
    }

    /// The value after all operations.
    pub fn after(self) -> (Value, Vec<LeafOp>) {
        (self.value, self.ops)
    }

    fn add(&mut self, op: LeafOp) -> Result<()> {
        op.apply(&mut self.value).ok_or_else(|| {
            Problem::new("manifest.path_not_found", "The field cannot be set at that place.", "Correct the pointer.")
        })?;
        self.ops.push(op);
        Ok(())
    }

    /// Sets or removes what a pointer names.
    pub fn want(&mut self, pointer: &str, new: Option<Value>) -> Result<()> {
        let Resolved { found, missing } = resolve(&self.value, pointer)?;
        match (new, missing.split_first()) {
            (Some(new), None) => {
                if get(&self.value, &found) != Some(&new) {
                    self.add(LeafOp::Set(found, new))?;
                }
                Ok(())
            }
            (Some(new), Some((first, rest))) => self.create(pointer, found, first, rest, new),
            (None, None) => self.remove(found),
            (None, Some(_)) => Ok(()),
        }
    }

    fn create(&mut self, pointer: &str, found: Vec<Step>, first: &str, rest: &[String], new: Value) -> Result<()> {
        let listy = |s: &String| s == "-" || s.contains('=') || s.parse::<usize>().is_ok();
        if rest.iter().any(listy) {
            return Err(Problem::new(
                "manifest.path_not_found",
                format!("{pointer} leads into a list that does not exist yet."),
                "Set the list as a whole.",
            ));
        }
        let at = get(&self.value, &found);
        if matches!(at, Some(Value::Array(_))) {
            return if first == "-" && rest.is_empty() {
                self.add(LeafOp::Push(found, new))
            } else {
                Err(Problem::new(
                    "manifest.path_not_found",
                    format!("{pointer} does not exist."),
                    "Append to a list with /-.",
                ))
            };
        }
        let nested = rest.iter().rev().fold(new, |v, k| Value::Object(Map::from_iter([(k.clone(), v)])));
        self.add(LeafOp::Insert(found, first.to_owned(), nested))
    }

    /// Removes a part; a mapping or list that would be left empty goes with it.
    fn remove(&mut self, mut at: Vec<Step>) -> Result<()> {
        while let Some((_, parent)) = at.split_last() {
            let alone = match get(&self.value, parent) {
                Some(Value::Object(o)) => o.len() == 1,
                Some(Value::Array(a)) => a.len() == 1,
                _ => false,
            };
            if !alone {
                break;
            }
            let kept = |k: &Step| matches!(k, Step::Key(k) if k == "spec" || k == "metadata");
            if parent.is_empty() || (parent.len() == 1 && parent.iter().all(kept)) {
                return Err(Problem::new(
                    "manifest.last_field",
                    "Nothing would be left of that part of the object.",
                    "Delete the object instead, or set the field to another value.",
                ));
            }
            at = parent.to_vec();
        }
        self.add(LeafOp::Remove(at))
    }

    /// Everything that an operation asks for.
    pub fn operation(&mut self, op: &Operation, restarted_at: &str) -> Result<()> {
        match op {
            Operation::SetImage(a) => self.image(a),
            Operation::Scale(a) => {
                self.scalable()?;
                self.want("/spec/replicas", Some(Value::from(a.replicas)))
            }
            Operation::SetResources(a) => self.resources(a),
            Operation::SetEnv(a) => self.env(a),
            Operation::SetField(SetField { pointer, value }) => self.want(pointer, value.clone()),
            Operation::Annotate(m) => self.metadata("annotations", m),
            Operation::Label(m) => self.metadata("labels", m),
            Operation::Restart(_) => {
                let template = pod_template(&self.value)?;
                if template.is_empty() {
                    return Err(Problem::new(
                        "manifest.no_pod_template",
                        "A Pod cannot be restarted by Git.",
                        "Delete and create it.",
                    ));
                }
                let at = format!("{template}/metadata/annotations/{}", escape(RESTART_ANNOTATION));
                self.want(&at, Some(Value::from(restarted_at)))
            }
            Operation::Create(_) | Operation::Delete(_) | Operation::Adopt(_) => Err(Problem::new(
                "manifest.not_an_edit",
                "Create, delete and adopt are not edits of a field.",
                "Report this as a bug.",
            )
            .never()),
        }
    }

    fn image(&mut self, a: &SetImage) -> Result<()> {
        check_image(&a.image)?;
        let at = container(&self.value, &a.container)?;
        self.want(&format!("{at}/image"), Some(Value::from(a.image.as_str())))
    }

    fn scalable(&self) -> Result<()> {
        match self.value.get("kind").and_then(Value::as_str).unwrap_or("") {
            "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Rollout" => Ok(()),
            kind => Err(Problem::new(
                "manifest.not_scalable",
                format!("A {kind} has no replica count that is known here."),
                "Use set_field with the pointer of the field.",
            )),
        }
    }

    fn resources(&mut self, a: &SetResources) -> Result<()> {
        let at = container(&self.value, &a.container)?;
        for (part, wanted) in [("requests", &a.requests), ("limits", &a.limits)] {
            for (name, quantity) in wanted {
                self.want(&format!("{at}/resources/{part}/{}", escape(name)), Some(Value::from(quantity.as_str())))?;
            }
        }
        Ok(())
    }

    fn env(&mut self, a: &SetEnv) -> Result<()> {
        let at = container(&self.value, &a.container)?;
        let list = resolve(&self.value, &format!("{at}/env"))?;
        let items =
            if list.missing.is_empty() { get(&self.value, &list.found).and_then(Value::as_array) } else { None };
        let item = items.into_iter().flatten().find(|v| item_name(v) == Some(a.name.as_str()));
        let here = format!("{at}/env/name={}", escape(&a.name));
        match (item, &a.value) {
            (Some(i), Some(_)) if i.get("valueFrom").is_some() => Err(Problem::new(
                "manifest.value_from",
                format!("{} takes its value from another object (valueFrom).", a.name),
                "Change that object, or remove the variable first and set it again.",
            )),
            (Some(_), Some(v)) => self.want(&format!("{here}/value"), Some(Value::from(v.as_str()))),
            (Some(_), None) => self.want(&here, None),
            (None, None) => Ok(()),
            (None, Some(v)) => {
                let new = Value::Object(Map::from_iter([
                    ("name".to_owned(), Value::from(a.name.as_str())),
                    ("value".to_owned(), Value::from(v.as_str())),
                ]));
                if items.is_some() {
                    self.want(&format!("{at}/env/-"), Some(new))
                } else {
                    self.want(&format!("{at}/env"), Some(Value::Array(vec![new])))
                }
            }
        }
    }

    fn metadata(&mut self, part: &str, wanted: &BTreeMap<String, Option<String>>) -> Result<()> {
        for (k, v) in wanted {
            self.want(&format!("/metadata/{part}/{}", escape(k)), v.clone().map(Value::String))?;
        }
        Ok(())
    }
}

/// Whether a label or annotation is how an engine or a package manager marks what it owns.
pub fn reserved_key(key: &str) -> bool {
    // argo-cd: common/common.go; flux: kustomize-controller and helm-controller owner labels.
    matches!(
        key,
        "argocd.argoproj.io/tracking-id"
            | "argocd.argoproj.io/installation-id"
            | "argocd.argoproj.io/application-set-name"
            | "app.kubernetes.io/instance"
            | "app.kubernetes.io/managed-by"
            | "kubectl.kubernetes.io/last-applied-configuration"
            | "kustomize.toolkit.fluxcd.io/name"
            | "kustomize.toolkit.fluxcd.io/namespace"
            | "kustomize.toolkit.fluxcd.io/checksum"
            | "helm.toolkit.fluxcd.io/name"
            | "helm.toolkit.fluxcd.io/namespace"
    ) || key.starts_with("meta.helm.sh/")
}

/// Refuses what no operation may change, judged by what would really change.
pub(super) fn guard(object: &Value, changes: &[LeafChange]) -> Result<()> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
    for c in changes {
        let p = c.pointer.as_str();
        let below = |root: &str| p == root || p.strip_prefix(root).is_some_and(|r| r.starts_with('/'));
        if ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/generateName"]
            .iter()
            .any(|r| below(r))
        {
            return Err(Problem::new(
                "manifest.identity_field",
                format!("{p} says which object this is; changing it makes another object."),
                "Create the new object and delete the old one.",
            ));
        }
        if below("/status") {
            return Err(Problem::new(
                "manifest.status_field",
                "Status is written by controllers, not by Git.",
                "Change the spec instead.",
            )
            .never());
        }
        let mark = ["/metadata/labels/", "/metadata/annotations/"].iter().find_map(|r| p.strip_prefix(r));
        if let Some(k) = mark.map(|k| k.replace("~1", "/").replace("~0", "~")).filter(|k| reserved_key(k)) {
            return Err(Problem::new(
                "manifest.reserved_key",
                format!("{k} marks who owns the object and is set by the engine."),
                "Choose another key.",
            )
            .never());
        }
        if kind == "Secret" && (below("/data") || below("/stringData")) {
            return Err(Problem::new(
                "manifest.secret_value",
                "Values of a Secret are never written through an agent.",
                "Use a SealedSecret, an ExternalSecret or SOPS; a person puts the value in.",
            )
            .never());
        }
        if kind == "SealedSecret" && below("/spec/encryptedData") {
            return Err(Problem::new(
                "manifest.sealed",
                "Sealed values cannot be edited.",
                "Let a person seal the new value.",
            )
            .never());
        }
    }
    Ok(())
}

/// An image reference with a tag or a digest.
pub(super) fn check_image(image: &str) -> Result<()> {
    let (name, tag, digest) = split_image(image);
    let tag_ok = |t: &str| {
        t.len() <= 128
            && t.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let digest_ok = |d: &str| {
        d.split_once(':')
            .is_some_and(|(a, h)| !a.is_empty() && h.len() >= 32 && h.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let name_ok = !name.is_empty()
        && name.len() <= 255
        && name.split('/').all(|p| !p.is_empty())
        && name.bytes().all(|b| {
            b.is_ascii_lowercase()
                || b.is_ascii_digit()
                || b"._-/:".contains(&b)
                || (b.is_ascii_uppercase() && name.contains('.'))
        });
    if name_ok && (tag.is_some() || digest.is_some()) && tag.is_none_or(tag_ok) && digest.is_none_or(digest_ok) {
        return Ok(());
    }
    Err(Problem::new(
        "manifest.bad_image",
        format!(
            "\"{}\" is not an image reference with a tag or a digest.",
            image.chars().take(200).collect::<String>()
        ),
        "Write name:tag or name@sha256:digest.",
    ))
}

/// Name, tag and digest of an image reference.
pub(super) fn split_image(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match image.split_once('@') {
        Some((r, d)) => (r, Some(d)),
        None => (image, None),
    };
    match rest.rsplit_once(':') {
        Some((n, t)) if !t.contains('/') => (n, Some(t), digest),
        _ => (rest, None, digest),
    }
}
