//! Where an owner's objects come from, read from its own object.

use serde_json::Value;

use super::facts::text;
use super::ids::instance_name;
use super::reads::join;
use crate::error::{Problem, Result};
use crate::model::{Engine, ObjectKey, OwnerRef, Source, SourceKind};

/// An owner's object, and for Flux the object that its `sourceRef` names.
#[derive(Debug, Clone, Copy)]
pub struct SourceBasis<'a> {
    /// Owner.
    pub owner: &'a OwnerRef,
    /// Its object.
    pub object: &'a Value,
    /// Flux: the GitRepository (or other source); see [`source_object`].
    pub source: Option<&'a Value>,
}

/// Whether a source reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Certainly not.
    Never,
    /// Perhaps: a kustomization, a chart or a value file may refer to it. Counts as shared.
    Maybe,
    /// It lies in the source's folder.
    Reads,
}

/// All sources of an owner, in its own order, so that `index` fits `sync.revisions`.
///
/// Pinned, Helm and opaque sources are answered as they are (`inspect` shows them); [`editable`] refuses them.
pub fn sources(basis: SourceBasis<'_>) -> Result<Vec<Source>> {
    match (basis.owner.engine, basis.owner.kind.as_str()) {
        (Engine::Argocd, _) => argo(basis),
        (Engine::Flux, "Kustomization") => flux(basis).map(|s| vec![s]),
        (Engine::Flux, "HelmRelease") => Err(Problem::new(
            "source.helm",
            format!("{} renders a Helm chart; its objects have no manifest of their own in Git.", basis.owner),
            format!(
                "Change the values in the HelmRelease {}/{} itself, where Git declares it: target it with set_field /spec/values/….",
                basis.owner.namespace, basis.owner.name
            ),
        )),
        (Engine::Flux, _) => Err(Problem::new(
            "source.opaque",
            format!("{} makes its objects from templates inside itself.", basis.owner),
            format!(
                "Change the {} {}/{} itself, where Git declares it: target it.",
                basis.owner.kind, basis.owner.namespace, basis.owner.name
            ),
        )),
    }
}

/// A source as far as it matters for who else reads a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The source.
    pub source: Source,
    /// Files outside its folder that it reads for certain (value files), from the repository's root.
    pub files: Vec<String>,
    /// It may read files that cannot be named (patterns, plugins, another repository's include).
    pub unclear: bool,
    /// It reads nothing but `files`: an Argo CD source that only lends files to others (`$ref/…`).
    pub lends: bool,
}

impl Feed {
    fn of(source: Source) -> Self {
        let unclear = source.kind == Some(SourceKind::Other);
        Self { source, files: Vec::new(), unclear, lends: false }
    }
}

/// Everything that an owner may read, for finding who else a file feeds: like [`sources`], but what
/// cannot be resolved (charts, hydrated and opaque sources) is kept as a source that may read anything.
pub fn feeds(basis: SourceBasis<'_>) -> Vec<Feed> {
    if let Ok(found) = sources(basis) {
        let mut feeds: Vec<Feed> = found.into_iter().map(Feed::of).collect();
        if basis.owner.engine == Engine::Argocd {
            lend(basis.object, &mut feeds);
        }
        return feeds;
    }
    let unresolved = |url: &str, revision: String, path: &str, kind| {
        Feed::of(Source {
            url: url.to_owned(),
            target_revision: revision,
            path: canonical_path(path),
            kind: Some(kind),
            index: 0,
            deployed: None,
            recurse: true,
            overrides: Vec::new(),
        })
    };
    if let Some(hydrator) = basis.object.pointer("/spec/sourceHydrator") {
        let dry = hydrator.get("drySource").unwrap_or(&Value::Null);
        let revision = text(dry, "targetRevision").to_owned();
        return vec![unresolved(text(dry, "repoURL"), revision, text(dry, "path"), SourceKind::Other)];
    }
    let chart = basis.object.pointer("/spec/chart/spec").unwrap_or(&Value::Null);
    match basis.source.and_then(|s| s.get("spec")) {
        Some(spec) if !text(spec, "url").is_empty() => {
            let mut feed = unresolved(text(spec, "url"), flux_ref(spec), text(chart, "chart"), SourceKind::Helm);
            // Relative to the source's root (source-controller: api/v1/helmchart_types.go).
            let files = chart.get("valuesFiles").and_then(Value::as_array).into_iter().flatten();
            feed.files = files.filter_map(Value::as_str).filter_map(|f| join("", f)).collect();
            vec![feed]
        }
        _ => Vec::new(),
    }
}

/// Gives each source the value files that its own or other sources' Helm settings name
/// (argo-cd: docs/user-guide/multiple_sources.md).
fn lend(object: &Value, feeds: &mut [Feed]) {
    let many = object.pointer("/spec/sources").and_then(Value::as_array).filter(|s| !s.is_empty());
    let list: Vec<&Value> = match many {
        Some(list) => list.iter().collect(),
        None => object.pointer("/spec/source").into_iter().collect(),
    };
    for (i, source) in list.iter().enumerate() {
        let only_lends =
            !text(source, "ref").is_empty() && text(source, "path").is_empty() && text(source, "chart").is_empty();
        if let Some(feed) = feeds.get_mut(i).filter(|_| only_lends) {
            (feed.lends, feed.unclear) = (true, false);
        }
    }
    for (i, source) in list.iter().enumerate() {
        let values = source
            .pointer("/helm/valueFiles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let parameters = source.pointer("/helm/fileParameters").and_then(Value::as_array).into_iter().flatten();
        let files = values.chain(parameters.filter_map(|p| p.get("path")?.as_str()));
        let files: Vec<&str> = files.filter(|f| !f.contains("://")).collect();
        for file in files {
            let (to, path) = match file.strip_prefix('$').and_then(|f| f.split_once('/')) {
                Some((name, path)) => (list.iter().position(|s| text(s, "ref") == name), join("", path)),
                None if file.starts_with('/') => (Some(i), join("", file)),
                None => (Some(i), join(text(source, "path"), file)),
            };
            let Some(feed) = to.and_then(|to| feeds.get_mut(to)) else { continue };
            match path.filter(|p| !p.contains(['*', '?', '['])) {
                Some(path) => feed.files.push(path),
                None => feed.unclear = true,
            }
        }
        // Components may lie anywhere.
        if source.pointer("/kustomize/components").and_then(Value::as_array).is_some_and(|c| !c.is_empty())
            && let Some(feed) = feeds.get_mut(i)
        {
            feed.unclear = true;
        }
    }
}

/// Flux: the source object that has to be read together with a Kustomization.
/// The namespace defaults to the Kustomization's.
pub fn source_object(owner: &OwnerRef, object: &Value) -> Option<ObjectKey> {
    if owner.engine != Engine::Flux {
        return None;
    }
    let reference = object.pointer("/spec/sourceRef").or_else(|| object.pointer("/spec/chart/spec/sourceRef"))?;
    let kind = text(reference, "kind");
    let group = if kind == "ExternalArtifact" { "source.extensions.fluxcd.io" } else { "source.toolkit.fluxcd.io" };
    let namespace = match text(reference, "namespace") {
        "" => owner.namespace.as_str(),
        other => other,
    };
    Some(ObjectKey::new(group, kind, namespace, text(reference, "name")))
}

fn argo(basis: SourceBasis<'_>) -> Result<Vec<Source>> {
    let spec = basis.object.get("spec").unwrap_or(&Value::Null);
    let status = basis.object.get("status").unwrap_or(&Value::Null);
    if spec.get("sourceHydrator").is_some_and(|h| h.as_object().is_some_and(|m| !m.is_empty())) {
        return Err(Problem::new(
            "source.hydrated",
            format!("{} is hydrated: a machine writes the branch that it follows.", basis.owner),
            "Change the dry source by hand; hydrated Applications are not edited yet.",
        ));
    }
    // With `sources`, `source` is ignored (argo-cd: docs/user-guide/multiple_sources.md).
    let many = spec.get("sources").and_then(Value::as_array).filter(|s| !s.is_empty());
    let list: Vec<&Value> = match many {
        Some(list) => list.iter().collect(),
        None => spec.get("source").filter(|s| !s.is_null()).into_iter().collect(),
    };
    if list.is_empty() {
        return Err(Problem::new(
            "source.missing",
            format!("{} names no source.", basis.owner),
            "Give the Application a spec.source in Git first.",
        ));
    }
    Ok(list.into_iter().enumerate().map(|(index, source)| argo_source(source, index, many.is_some(), status)).collect())
}

fn argo_source(source: &Value, index: usize, many: bool, status: &Value) -> Source {
    let (types, revision) = if many {
        (status.pointer(&format!("/sourceTypes/{index}")), status.pointer(&format!("/sync/revisions/{index}")))
    } else {
        (status.get("sourceType"), status.pointer("/sync/revision"))
    };
    let directory = source.get("directory").unwrap_or(&Value::Null);
    let prefix = if many { format!("spec.sources[{index}]") } else { "spec.source".to_owned() };
    Source {
        url: text(source, "repoURL").to_owned(),
        target_revision: text(source, "targetRevision").to_owned(),
        path: canonical_path(text(source, "path")),
        kind: argo_kind(source, types.and_then(Value::as_str).unwrap_or("")),
        index,
        deployed: revision.and_then(Value::as_str).and_then(full_hash),
        recurse: directory.get("recurse").and_then(Value::as_bool).unwrap_or(false),
        overrides: argo_overrides(source, &prefix),
    }
}

/// An explicit type beats detection (argo-cd: util/app/discovery/discovery.go); an empty one is none.
fn argo_kind(source: &Value, detected: &str) -> Option<SourceKind> {
    let set = |key: &str| source.get(key).and_then(Value::as_object).is_some_and(|m| !m.is_empty());
    let no_path = text(source, "path").is_empty();
    if !text(source, "chart").is_empty() || set("helm") {
        Some(SourceKind::Helm)
    } else if set("plugin") || text(source, "repoURL").starts_with("oci://") {
        Some(SourceKind::Other)
    } else if !text(source, "ref").is_empty() && no_path {
        // Only lends its files to other sources (`$ref/values.yaml`).
        Some(SourceKind::Other)
    } else if set("kustomize") {
        Some(SourceKind::Kustomize)
    } else if set("directory") {
        Some(SourceKind::Plain)
    } else {
        match detected {
            "Directory" => Some(SourceKind::Plain),
            "Kustomize" => Some(SourceKind::Kustomize),
            "Helm" => Some(SourceKind::Helm),
            "Plugin" => Some(SourceKind::Other),
            _ => None,
        }
    }
}

/// Settings of `kustomize` that only say which program builds.
const BUILD_ONLY: [&str; 4] = ["version", "kubeVersion", "apiVersions", "ignoreMissingComponents"];

fn argo_overrides(source: &Value, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in ["kustomize", "helm", "directory"] {
        let Some(map) = source.get(block).and_then(Value::as_object) else { continue };
        for (key, value) in map {
            if BUILD_ONLY.contains(&key.as_str()) || (block == "directory" && key == "recurse") || empty(value) {
                continue;
            }
            found.push(setting(&format!("{prefix}.{block}.{key}"), value));
        }
    }
    found
}

fn flux(basis: SourceBasis<'_>) -> Result<Source> {
    let spec = basis.object.get("spec").unwrap_or(&Value::Null);
    let status = basis.object.get("status").unwrap_or(&Value::Null);
    let Some(source) = basis.source else {
        let wanted = source_object(basis.owner, basis.object);
        return Err(Problem::new(
            "source.missing",
            format!("The source of {} does not exist.", basis.owner),
            "Create the source that spec.sourceRef names, or correct the reference.",
        )
        .with_all(wanted.map(|k| k.to_string())));
    };
    let kind = spec.pointer("/sourceRef/kind").and_then(Value::as_str).unwrap_or("");
    let source_spec = source.get("spec").unwrap_or(&Value::Null);
    let git = kind == "GitRepository";
    Ok(Source {
        url: text(source_spec, "url").to_owned(),
        target_revision: if git { flux_ref(source_spec) } else { String::new() },
        path: canonical_path(text(spec, "path")),
        kind: if git { None } else { Some(SourceKind::Other) },
        index: 0,
        deployed: status.get("lastAppliedRevision").and_then(Value::as_str).and_then(full_hash),
        recurse: true,
        overrides: flux_overrides(spec, source_spec),
    })
}

/// Precedence commit, name, semver, tag, branch (source-controller: api/v1/gitrepository_types.go);
/// nothing at all is the branch `master`.
fn flux_ref(spec: &Value) -> String {
    let reference = spec.get("ref").unwrap_or(&Value::Null);
    let get = |key: &str| Some(text(reference, key)).filter(|v| !v.is_empty());
    if let Some(commit) = get("commit") {
        commit.to_owned()
    } else if let Some(name) = get("name") {
        name.to_owned()
    } else if let Some(range) = get("semver") {
        // The space keeps an exact version apart from a branch of that name.
        format!("semver {range}")
    } else if let Some(tag) = get("tag") {
        format!("refs/tags/{tag}")
    } else {
        get("branch").unwrap_or("master").to_owned()
    }
}

/// Fields of a Kustomization that change what its files say (fluxcd/pkg: kustomize/kustomize_generator.go).
const FLUX_OVERRIDES: [&str; 11] = [
    "targetNamespace",
    "namePrefix",
    "nameSuffix",
    "images",
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "components",
    "postBuild",
    "commonMetadata",
    "ignore",
];

fn flux_overrides(spec: &Value, source: &Value) -> Vec<String> {
    let of_owner = FLUX_OVERRIDES.iter().filter_map(|key| {
        let value = spec.get(*key).filter(|v| !empty(v))?;
        Some(setting(&format!("spec.{key}"), value))
    });
    // These remove files from what is delivered, or mount other repositories into it.
    let of_source = ["ignore", "include", "sparseCheckout"].into_iter().filter_map(|key| {
        let value = source.get(key).filter(|v| !empty(v))?;
        Some(setting(&format!("GitRepository spec.{key}"), value))
    });
    of_owner.chain(of_source).collect()
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// `spec.source.kustomize.images=["nginx:1.27"]`, capped; values that may hold secrets are left out.
fn setting(name: &str, value: &Value) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    if !matches!(
        last,
        "images"
            | "replicas"
            | "namespace"
            | "targetNamespace"
            | "namePrefix"
            | "nameSuffix"
            | "include"
            | "exclude"
            | "valueFiles"
            | "components"
    ) {
        return name.to_owned();
    }
    let text: String = value.to_string().chars().take(160).collect();
    format!("{name}={text}")
}

/// A full SHA-1 out of a revision: `main@sha1:H`, `sha1:H`, the old `main/H`, or `H` itself
/// (fluxcd/pkg: git/utils.go). Chart versions, digests and unresolved refs are none.
pub fn full_hash(revision: &str) -> Option<String> {
    let last = revision.rsplit('@').next().unwrap_or(revision);
    let hash = match last.strip_prefix("sha1:") {
        Some(hash) => hash,
        None if last.contains(':') => return None,
        None => last.rsplit('/').next().unwrap_or(last),
    };
    (hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hash.to_ascii_lowercase())
}

/// `./apps//shop/` and `apps/shop` are one folder; the root is empty. `..` is kept: it is an error elsewhere.
pub fn canonical_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    parts.join("/")
}

/// Namespace that the owner gives to objects that name none; empty where it gives none.
pub fn destination_namespace(owner: &OwnerRef, object: &Value) -> String {
    let pointer = match owner.engine {
        Engine::Argocd => "/spec/destination/namespace",
        Engine::Flux => "/spec/targetNamespace",
    };
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned()
}

/// One name per repository, whichever way it is spelt: host without user and port, path, lower case,
/// without `.git`. For finding neighbours only; what is written to comes from the configuration.
pub fn repo_key(url: &str) -> String {
    let url = url.trim();
    let (host, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or((rest, "")),
        // scp form: user@host:path
        None => url.split_once(':').unwrap_or((url, "")),
    };
    let host = host.rsplit('@').next().unwrap_or(host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let path = path.trim_matches('/').to_ascii_lowercase();
    let path = path.strip_suffix(".git").unwrap_or(&path);
    format!("{}/{}", host.to_ascii_lowercase(), path.trim_end_matches('/'))
}

/// Files in an Argo CD source folder that beat what the Application and the files say, strongest first
/// (argo-cd: reposerver/repository/repository.go, mergeSourceParameters).
pub fn argocd_override_files(owner: &OwnerRef, control_plane: &str) -> [String; 2] {
    let instance = instance_name(&owner.namespace, &owner.name, control_plane);
    [format!(".argocd-source-{instance}.yaml"), ".argocd-source.yaml".to_owned()]
}

/// Whether a source reads a file of its repository, as far as the path alone tells.
/// Kustomizations and charts may refer to files outside their folder, so only plain folders say no.
pub fn reach(source: &Source, file: &str) -> Reach {
    let inside =
        source.path.is_empty() || file.strip_prefix(source.path.as_str()).is_some_and(|rest| rest.starts_with('/'));
    let below = file.strip_prefix(source.path.as_str()).unwrap_or(file).trim_start_matches('/');
    match (source.kind, inside) {
        (Some(SourceKind::Plain), true) if !source.recurse && below.contains('/') => Reach::Never,
        (Some(SourceKind::Plain), false) => Reach::Never,
        (Some(SourceKind::Other), _) => Reach::Maybe,
        (_, true) => Reach::Reads,
        (_, false) => Reach::Maybe,
    }
}
