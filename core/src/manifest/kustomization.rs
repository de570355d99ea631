//! Kustomization files: what they say, and edits of their entries.

use serde_json::Value;

use super::document::DocId;
use super::edit::{Edited, edit_values};
use super::ops::{check_image, split_image};
use super::parse::parse;
use super::pointer::escape;
use crate::error::{Problem, Result};
use crate::model::ObjectKey;

/// One entry of `images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// Name that is matched (kustomize reads it as a regular expression).
    pub name: String,
    /// Name that takes its place.
    pub new_name: Option<String>,
    /// Tag that takes its place.
    pub new_tag: Option<String>,
    /// Digest that takes its place.
    pub digest: Option<String>,
}

/// One entry of `replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaEntry {
    /// Name of the object, any kind that has replicas.
    pub name: String,
    /// Count.
    pub count: Option<i64>,
}

/// One patch.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchEntry {
    /// File, where it is one.
    pub path: Option<String>,
    /// Text, where it stands inline.
    pub inline: Option<String>,
    /// Which objects it is for, where it says so.
    pub target: Option<Value>,
}

/// What a kustomization file says, as far as edits need it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kustomization {
    /// `kind: Component`.
    pub component: bool,
    /// `resources` and `bases`.
    pub resources: Vec<String>,
    /// `components`.
    pub components: Vec<String>,
    /// `patches`, `patchesStrategicMerge`, `patchesJson6902`.
    pub patches: Vec<PatchEntry>,
    /// `images` (and `imageTags`).
    pub images: Vec<ImageEntry>,
    /// `replicas`.
    pub replicas: Vec<ReplicaEntry>,
    /// Names of `configMapGenerator` and `secretGenerator`.
    pub generated: Vec<String>,
    /// `namespace`.
    pub namespace: Option<String>,
    /// `namePrefix`.
    pub name_prefix: String,
    /// `nameSuffix`.
    pub name_suffix: String,
    /// Fields that make the build run programs, fetch things or read files that it does not name itself
    /// (`helmCharts`, `generators`, `transformers`, …).
    pub runs: Vec<String>,
    /// Every path that the build reads, as written, `resources` included.
    pub paths: Vec<String>,
    /// Keys that are not kustomize's own spelling. Its reader ignores case, so `Resources` would be obeyed.
    pub unknown: Vec<String>,
}

/// Fields of a kustomization file (kustomize: api/types/kustomization.go).
const FIELDS: [&str; 37] = [
    "apiVersion",
    "kind",
    "metadata",
    "openapi",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "commonLabels",
    "labels",
    "commonAnnotations",
    "patchesStrategicMerge",
    "patchesJson6902",
    "patches",
    "images",
    "imageTags",
    "replacements",
    "replicas",
    "vars",
    "sortOptions",
    "resources",
    "components",
    "crds",
    "bases",
    "configMapGenerator",
    "secretGenerator",
    "helmGlobals",
    "helmCharts",
    "helmChartInflationGenerator",
    "generatorOptions",
    "configurations",
    "generators",
    "transformers",
    "validators",
    "buildMetadata",
    "inventory",
    "fieldSpecs",
    "includeTemplates",
];
/// Fields of the entries that name files.
const ENTRY_FIELDS: [&str; 22] = [
    "name",
    "namespace",
    "behavior",
    "files",
    "literals",
    "envs",
    "env",
    "options",
    "type",
    "path",
    "patch",
    "target",
    "source",
    "targets",
    "kvSources",
    "disableNameSuffixHash",
    "labels",
    "annotations",
    "immutable",
    "group",
    "version",
    "kind",
];

/// Whether a file name is one that kustomize reads.
pub fn is_kustomization_name(name: &str) -> bool {
    // kustomize: api/konfig/general.go
    matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization")
}

const FIRST: DocId = DocId { index: 0, item: None };

fn value(bytes: &[u8]) -> Result<(Value, DocId)> {
    let parsed = parse(bytes)?;
    let mut docs = parsed.values.into_iter().enumerate().filter(|(_, v)| !v.is_null());
    match (docs.next(), docs.next()) {
        (Some((index, v)), None) if v.is_object() => Ok((v, DocId { index, item: None })),
        _ => Err(Problem::new(
            "kustomization.shape",
            "A kustomization file is exactly one mapping.",
            "Correct the kustomization file, then try again.",
        )),
    }
}

/// Reads a kustomization file.
///
/// # Errors
/// Those of [`super::documents`]; `kustomization.shape`.
pub fn kustomization(bytes: &[u8]) -> Result<Kustomization> {
    let (v, _) = value(bytes)?;
    let texts = |k: &str| -> Vec<String> {
        v.get(k).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let list = |k: &str| v.get(k).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |v: &Value, k: &str| v.get(k).and_then(Value::as_str).map(str::to_owned);
    let mut resources = texts("resources");
    resources.extend(texts("bases"));
    let images = ["images", "imageTags"].iter().flat_map(|k| list(k)).filter_map(|e| {
        Some(ImageEntry {
            name: text(&e, "name")?,
            new_name: text(&e, "newName"),
            new_tag: text(&e, "newTag"),
            digest: text(&e, "digest"),
        })
    });
    let generated =
        ["configMapGenerator", "secretGenerator"].iter().flat_map(|k| list(k)).filter_map(|g| text(&g, "name"));
    let runs = ["helmCharts", "helmChartInflationGenerator", "generators", "transformers", "validators"];
    Ok(Kustomization {
        component: v.get("kind").and_then(Value::as_str) == Some("Component"),
        resources,
        components: texts("components"),
        patches: patches(&v),
        images: images.collect(),
        replicas: list("replicas")
            .iter()
            .filter_map(|e| {
                Some(ReplicaEntry { name: text(e, "name")?, count: e.get("count").and_then(Value::as_i64) })
            })
            .collect(),
        generated: generated.collect(),
        namespace: text(&v, "namespace"),
        name_prefix: text(&v, "namePrefix").unwrap_or_default(),
        name_suffix: text(&v, "nameSuffix").unwrap_or_default(),
        runs: runs.iter().filter(|k| v.get(**k).is_some()).map(|k| (*k).to_owned()).collect(),
        paths: paths(&v),
        unknown: unknown(&v),
    })
}

fn entries<'v>(v: &'v Value, k: &str) -> impl Iterator<Item = &'v Value> {
    v.get(k).and_then(Value::as_array).into_iter().flatten()
}

fn paths(v: &Value) -> Vec<String> {
    let mut out: Vec<&str> = Vec::new();
    for k in ["resources", "bases", "components", "crds", "configurations", "generators", "transformers", "validators"]
    {
        out.extend(entries(v, k).filter_map(Value::as_str));
    }
    out.extend(entries(v, "patchesStrategicMerge").filter_map(Value::as_str).filter(|p| !p.contains('\n')));
    for k in ["patches", "patchesJson6902", "replacements"] {
        out.extend(entries(v, k).filter_map(|e| e.get("path")?.as_str()));
    }
    out.extend(v.pointer("/openapi/path").and_then(Value::as_str));
    for g in ["configMapGenerator", "secretGenerator"].iter().flat_map(|k| entries(v, k)) {
        for f in ["files", "envs"].iter().flat_map(|k| entries(g, k)).filter_map(Value::as_str) {
            out.push(f.split_once('=').map_or(f, |(_, p)| p));
        }
        out.extend(g.get("env").and_then(Value::as_str));
    }
    out.into_iter().map(str::to_owned).collect()
}

fn unknown(v: &Value) -> Vec<String> {
    let keys = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut out: Vec<String> = keys(v).into_iter().filter(|k| !FIELDS.contains(&k.as_str())).collect();
    for k in ["patches", "patchesJson6902", "replacements", "configMapGenerator", "secretGenerator"] {
        let of = entries(v, k).flat_map(keys).filter(|f| !ENTRY_FIELDS.contains(&f.as_str()));
        out.extend(of.map(|f| format!("{k}.{f}")));
    }
    out.extend(
        v.get("openapi")
            .map(keys)
            .unwrap_or_default()
            .into_iter()
            .filter(|f| f != "path")
            .map(|f| format!("openapi.{f}")),
    );
    out
}

fn patches(v: &Value) -> Vec<PatchEntry> {
    let mut out = Vec::new();
    for k in ["patches", "patchesJson6902"] {
        for e in v.get(k).and_then(Value::as_array).into_iter().flatten() {
            let text = |f: &str| e.get(f).and_then(Value::as_str).map(str::to_owned);
            out.push(PatchEntry { path: text("path"), inline: text("patch"), target: e.get("target").cloned() });
        }
    }
    for e in v.get("patchesStrategicMerge").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let inline = e.contains('\n');
        out.push(PatchEntry {
            path: (!inline).then(|| e.to_owned()),
            inline: inline.then(|| e.to_owned()),
            target: None,
        });
    }
    out
}

fn own_key() -> ObjectKey {
    ObjectKey::new("kustomize.config.k8s.io", "Kustomization", "", "kustomization")
}

fn no_entry(what: &str, name: &str) -> Problem {
    Problem::new(
        "kustomization.no_entry",
        format!("The kustomization has no {what} entry named {name}."),
        "Choose another place for the edit.",
    )
}

/// Sets an existing `images` entry so that it gives `image` (name:tag, name@digest or both).
///
/// # Errors
/// `kustomization.no_entry`, `manifest.bad_image`, `manifest.no_change`, and those of [`super::edit`].
pub fn edit_kustomization_image(bytes: &[u8], name: &str, image: &str) -> Result<Edited> {
    check_image(image)?;
    let (_, id) = value(bytes)?;
    let k = kustomization(bytes)?;
    let entry = k.images.iter().find(|e| e.name == name).ok_or_else(|| no_entry("images", name))?;
    let (new_name, tag, digest) = split_image(image);
    let at = format!("/images/name={}", escape(name));
    let mut wanted: Vec<(String, Option<Value>)> = Vec::new();
    if entry.new_name.as_deref().unwrap_or(&entry.name) != new_name {
        wanted.push((format!("{at}/newName"), Some(Value::from(new_name))));
    }
    // What is set comes first, so that the entry is never left empty in between.
    for (field, new) in [("newTag", tag), ("digest", digest)] {
        if let Some(new) = new {
            wanted.push((format!("{at}/{field}"), Some(Value::from(new))));
        }
    }
    for (field, new) in [("newTag", tag), ("digest", digest)] {
        if new.is_none() {
            wanted.push((format!("{at}/{field}"), None));
        }
    }
    edit_values(bytes, id, &own_key(), &wanted)
}

/// Sets the count of an existing `replicas` entry.
///
/// # Errors
/// `kustomization.no_entry`, `manifest.no_change`, and those of [`super::edit`].
pub fn edit_kustomization_replicas(bytes: &[u8], name: &str, count: u32) -> Result<Edited> {
    let (_, id) = value(bytes)?;
    if !kustomization(bytes)?.replicas.iter().any(|r| r.name == name) {
        return Err(no_entry("replicas", name));
    }
    edit_values(bytes, id, &own_key(), &[(format!("/replicas/name={}/count", escape(name)), Some(Value::from(count)))])
}

/// Removes a path from `resources` (or `bases`).
///
/// # Errors
/// `kustomization.no_entry`, and those of [`super::edit`].
pub fn remove_resource(bytes: &[u8], path: &str) -> Result<Edited> {
    let (v, id) = value(bytes)?;
    let plain = |p: &str| p.trim_start_matches("./").trim_end_matches('/').to_owned();
    for list in ["resources", "bases"] {
        let at = v
            .get(list)
            .and_then(Value::as_array)
            .and_then(|a| a.iter().position(|e| e.as_str().is_some_and(|e| plain(e) == plain(path))));
        if let Some(i) = at {
            return edit_values(bytes, id, &own_key(), &[(format!("/{list}/{i}"), None)]);
        }
    }
    Err(no_entry("resources", path))
}

/// Appends a path to `resources`.
///
/// # Errors
/// Those of [`super::edit`]; `manifest.no_change` if it is there already.
pub fn add_resource(bytes: &[u8], path: &str) -> Result<Edited> {
    let (v, id) = value(bytes).or_else(|p| {
        if p.code == "kustomization.shape" && bytes.is_empty() { Ok((Value::Null, FIRST)) } else { Err(p) }
    })?;
    let list = v.get("resources").and_then(Value::as_array);
    if list.is_some_and(|l| l.iter().any(|e| e.as_str() == Some(path))) {
        return Err(Problem::new(
            "manifest.no_change",
            format!("{path} is among the resources already."),
            "Nothing is to be done.",
        ));
    }
    let wanted = match list {
        Some(_) => ("/resources/-".to_owned(), Some(Value::from(path))),
        None => ("/resources".to_owned(), Some(Value::Array(vec![Value::from(path)]))),
    };
    edit_values(bytes, id, &own_key(), &[wanted])
}
