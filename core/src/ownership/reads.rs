//! Which files of a repository an owner reads, decided on the files themselves.
//!
//! Paths alone leave every kustomization in doubt. With the tree of a commit at hand the references
//! are followed; what cannot be followed stays in doubt ([`Reach::Maybe`]) and counts as shared.

use std::collections::BTreeSet;

use serde_json::Value;

use super::facts::text;
use super::source::{Feed, Reach, canonical_path, reach};
use crate::model::{Engine, SourceKind};

/// A commit's tree, as far as it is asked for.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    /// Text of a file; `None` where there is none or it is no text.
    pub read: &'a dyn Fn(&str) -> Option<String>,
    /// Names in a folder (empty path: the root), folders with a trailing `/`; empty where there is none.
    pub list: &'a dyn Fn(&str) -> Vec<String>,
}

/// Names of a kustomization file (kustomize: api/konfig/general.go).
const KUSTOMIZATION: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Most folders that are followed for one owner.
const FOLDERS: usize = 4000;

/// Fields with files or folders.
const PATHS: [&str; 9] = [
    "resources",
    "bases",
    "components",
    "crds",
    "configurations",
    "generators",
    "transformers",
    "validators",
    "patchesStrategicMerge",
];

/// Whether an owner's source reads a file at this commit.
pub fn reaches(engine: Engine, feed: &Feed, tree: Tree<'_>, file: &str) -> Reach {
    if feed.files.iter().any(|f| f == file) {
        return Reach::Reads;
    }
    let source = &feed.source;
    let inside =
        source.path.is_empty() || file.strip_prefix(source.path.as_str()).is_some_and(|rest| rest.starts_with('/'));
    let doubt = if feed.unclear { Reach::Maybe } else { Reach::Never };
    let mut found = Found { tree, seen: BTreeSet::new(), files: BTreeSet::new(), unclear: false };
    match kind(engine, feed, tree) {
        None => doubt,
        Some(SourceKind::Plain) if engine == Engine::Argocd => reach(source, file).max(doubt),
        Some(SourceKind::Helm) => {
            if inside {
                return Reach::Reads;
            }
            for folder in chart_dependencies(tree, &source.path) {
                match folder {
                    Some(folder) if file.starts_with(&format!("{folder}/")) => return Reach::Reads,
                    Some(_) => {}
                    None => return Reach::Maybe,
                }
            }
            doubt
        }
        Some(SourceKind::Kustomize) => found.kustomization(&source.path).answer(file).max(doubt),
        // Flux makes a kustomization of everything where there is none.
        Some(SourceKind::Plain) => found.generated(&source.path).answer(file).max(doubt),
        Some(SourceKind::Other) => Reach::Maybe,
    }
}

/// The source's kind; where the engine has not said it, its files do. `None` = it only lends `files`.
fn kind(engine: Engine, feed: &Feed, tree: Tree<'_>) -> Option<SourceKind> {
    let has = |name: &str| (tree.list)(&feed.source.path).iter().any(|n| n == name);
    match (feed.source.kind, engine) {
        (Some(SourceKind::Other), _) if feed.lends => None,
        (Some(kind), _) => Some(kind),
        (None, Engine::Argocd) if has("Chart.yaml") => Some(SourceKind::Helm),
        (None, _) if KUSTOMIZATION.iter().any(|k| has(k)) => Some(SourceKind::Kustomize),
        (None, _) => Some(SourceKind::Plain),
    }
}

/// Charts in the same repository that a chart depends on; `None` for one that cannot be followed.
fn chart_dependencies(tree: Tree<'_>, path: &str) -> Vec<Option<String>> {
    let Some(chart) = (tree.read)(&join(path, "Chart.yaml").unwrap_or_default()) else { return vec![None] };
    let Some(chart) = parse(&chart) else { return vec![None] };
    let list = chart.get("dependencies").and_then(Value::as_array).cloned().unwrap_or_default();
    let local = list.iter().filter_map(|d| text(d, "repository").strip_prefix("file://"));
    local.map(|p| join(path, p)).collect()
}

struct Found<'a> {
    tree: Tree<'a>,
    seen: BTreeSet<String>,
    files: BTreeSet<String>,
    unclear: bool,
}

impl Found<'_> {
    fn answer(&self, file: &str) -> Reach {
        if self.files.contains(file) {
            Reach::Reads
        } else if self.unclear {
            Reach::Maybe
        } else {
            Reach::Never
        }
    }

    /// Whether a folder is new and may still be looked at.
    fn enter(&mut self, folder: &str) -> bool {
        if self.seen.len() >= FOLDERS {
            self.unclear = true;
            return false;
        }
        self.seen.insert(folder.to_owned())
    }

    /// Every manifest below a folder; a folder with a kustomization of its own is a unit
    /// (fluxcd/pkg: kustomize/kustomize_generator.go).
    fn generated(&mut self, folder: &str) -> &Self {
        let names = (self.tree.list)(folder);
        if names.iter().any(|n| KUSTOMIZATION.contains(&n.as_str())) {
            return self.kustomization(folder);
        }
        if self.enter(folder) {
            for name in names {
                match name.strip_suffix('/') {
                    Some(inner) => {
                        let inner = join(folder, inner).unwrap_or_default();
                        self.generated(&inner);
                    }
                    None if name.ends_with(".yaml") || name.ends_with(".yml") => {
                        self.files.extend(join(folder, &name));
                    }
                    None => {}
                }
            }
        }
        self
    }

    /// A kustomization and everything that it names.
    fn kustomization(&mut self, folder: &str) -> &Self {
        let names = (self.tree.list)(folder);
        let file = names.iter().find(|n| KUSTOMIZATION.contains(&n.as_str())).and_then(|n| join(folder, n));
        let Some(file) = file else {
            self.unclear = true;
            return self;
        };
        if !self.enter(folder) {
            return self;
        }
        match (self.tree.read)(&file).as_deref().and_then(parse) {
            Some(content) => self.references(folder, &content),
            None => self.unclear = true,
        }
        self.files.insert(file);
        self
    }

    fn references(&mut self, folder: &str, content: &Value) {
        let strings = |key: &str| {
            content
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
        };
        let listed: Vec<String> = PATHS.iter().flat_map(|key| strings(key)).collect();
        for path in listed.iter().filter(|p| !p.contains('\n')) {
            self.reference(folder, path);
        }
        for key in ["patches", "patchesJson6902", "replacements"] {
            for entry in content.get(key).and_then(Value::as_array).into_iter().flatten() {
                if let Some(path) = entry.get("path").and_then(Value::as_str).filter(|p| !p.is_empty()) {
                    self.reference(folder, path);
                }
            }
        }
        if let Some(path) = content.pointer("/openapi/path").and_then(Value::as_str) {
            self.reference(folder, path);
        }
        for key in ["configMapGenerator", "secretGenerator"] {
            for entry in content.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.generator(folder, entry);
            }
        }
        if ["helmCharts", "helmChartInflationGenerator"].iter().any(|k| content.get(k).is_some()) {
            self.unclear = true;
        }
    }

    fn generator(&mut self, folder: &str, entry: &Value) {
        for key in ["files", "envs"] {
            for path in entry.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
                // `key=path` or a path alone.
                self.reference(folder, path.split_once('=').map_or(path, |(_, p)| p));
            }
        }
        if let Some(path) = entry.get("env").and_then(Value::as_str) {
            self.reference(folder, path);
        }
    }

    fn reference(&mut self, folder: &str, path: &str) {
        if path.contains("://") || path.contains("?ref=") || path.starts_with("git@") {
            // Another repository; or this one by its address, in which case a fixed ref or another clone is read.
            return;
        }
        let Some(target) = join(folder, path) else {
            self.unclear = true;
            return;
        };
        if !(self.tree.list)(&target).is_empty() {
            self.kustomization(&target);
        } else if (self.tree.read)(&target).is_some() {
            self.files.insert(target);
        } else if !path
            .split('/')
            .next()
            .is_some_and(|host| host.contains('.') && !host.starts_with('.') && path.contains('/'))
        {
            // Not there, and no `github.com/…` either: the build would fail, or it is no text.
            self.unclear = true;
        }
    }
}

/// A path relative to a folder; `None` where it leaves the repository.
pub(super) fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(canonical_path(&parts.join("/")))
}

fn parse(yaml: &str) -> Option<Value> {
    serde_saphyr::from_str(yaml).ok()
}

#[cfg(test)]
mod tests {
    use super::super::source::Feed;
    use super::*;
    use crate::model::Source;

    fn feed(path: &str, kind: Option<SourceKind>) -> Feed {
        let source = Source {
            url: String::new(),
            target_revision: String::new(),
            path: path.into(),
            kind,
            index: 0,
            deployed: None,
            recurse: true,
            overrides: vec![],
        };
        Feed { source, files: vec![], unclear: false, lends: false }
    }

    const FILES: &[(&str, &str)] = &[
        ("base/kustomization.yaml", "resources: [deploy.yaml, ../shared]\n"),
        ("base/deploy.yaml", "kind: Deployment\n"),
        ("base/forgotten.yaml", "kind: Service\n"),
        ("shared/Kustomization", "configMapGenerator:\n- name: c\n  files: [app.conf, other=x/o.conf]\n"),
        ("shared/app.conf", "a"),
        ("shared/x/o.conf", "b"),
        (
            "prod/kustomization.yml",
            "resources:\n- ../base\n- https://example.com/x.yaml\n- github.com/acme/remote\npatches:\n- path: patch.yaml\n- patch: |-\n    - op: add\n",
        ),
        ("prod/patch.yaml", "kind: Deployment\n"),
        ("broken/kustomization.yaml", "resources: [gone.yaml]\n"),
        ("outside/kustomization.yaml", "resources: [../../elsewhere]\n"),
        ("ring/kustomization.yaml", "resources: [../ring]\n"),
        ("plain/a.yaml", "kind: A\n"),
        ("plain/deep/b.yml", "kind: B\n"),
        ("plain/notes.txt", "x"),
        ("plain/unit/kustomization.yaml", "resources: [../../base]\n"),
        ("plain/unit/unlisted.yaml", "kind: C\n"),
        ("chart/Chart.yaml", "dependencies:\n- {name: lib, repository: 'file://../lib'}\n"),
        ("chart/templates/x.yaml", "{{ nothing }}"),
        ("lib/templates/y.yaml", ""),
    ];

    fn ask(engine: Engine, feed: &Feed, file: &str) -> Reach {
        let read = |path: &str| FILES.iter().find(|(p, _)| *p == path).map(|(_, t)| (*t).to_owned());
        let list = |folder: &str| {
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let below = FILES.iter().filter_map(|(p, _)| p.strip_prefix(prefix.as_str()));
            let names: BTreeSet<String> = below
                .map(|rest| rest.split_once('/').map_or_else(|| rest.to_owned(), |(d, _)| format!("{d}/")))
                .collect();
            names.into_iter().collect()
        };
        reaches(engine, feed, Tree { read: &read, list: &list }, file)
    }

    #[test]
    fn references_of_a_kustomization_are_followed() {
        for kind in [None, Some(SourceKind::Kustomize)] {
            let prod = feed("prod", kind);
            for file in
                ["prod/patch.yaml", "prod/kustomization.yml", "base/deploy.yaml", "shared/app.conf", "shared/x/o.conf"]
            {
                assert_eq!(ask(Engine::Argocd, &prod, file), Reach::Reads, "{file}");
                assert_eq!(ask(Engine::Flux, &prod, file), Reach::Reads, "{file}");
            }
            assert_eq!(ask(Engine::Argocd, &prod, "base/forgotten.yaml"), Reach::Never);
            assert_eq!(ask(Engine::Argocd, &prod, "plain/a.yaml"), Reach::Never);
        }
    }

    #[test]
    fn what_cannot_be_followed_stays_in_doubt() {
        assert_eq!(ask(Engine::Argocd, &feed("broken", None), "plain/a.yaml"), Reach::Maybe);
        assert_eq!(ask(Engine::Argocd, &feed("outside", None), "plain/a.yaml"), Reach::Maybe);
        assert_eq!(ask(Engine::Argocd, &feed("x", Some(SourceKind::Other)), "plain/a.yaml"), Reach::Maybe);
        assert_eq!(ask(Engine::Flux, &feed("ring", None), "plain/a.yaml"), Reach::Never, "a ring ends");
    }

    #[test]
    fn flux_reads_everything_below_a_folder_without_a_kustomization() {
        let plain = feed("plain", None);
        for file in ["plain/a.yaml", "plain/deep/b.yml", "base/deploy.yaml"] {
            assert_eq!(ask(Engine::Flux, &plain, file), Reach::Reads, "{file}");
        }
        for file in ["plain/notes.txt", "plain/unit/unlisted.yaml", "prod/patch.yaml"] {
            assert_eq!(ask(Engine::Flux, &plain, file), Reach::Never, "{file}");
        }
    }

    #[test]
    fn a_chart_reads_itself_its_local_dependencies_and_its_value_files() {
        let mut chart = feed("chart", None);
        chart.files = vec!["values/prod.yaml".into()];
        for file in ["chart/templates/x.yaml", "lib/templates/y.yaml", "values/prod.yaml"] {
            assert_eq!(ask(Engine::Argocd, &chart, file), Reach::Reads, "{file}");
        }
        assert_eq!(ask(Engine::Argocd, &chart, "plain/a.yaml"), Reach::Never);
        chart.unclear = true;
        assert_eq!(ask(Engine::Argocd, &chart, "plain/a.yaml"), Reach::Maybe);
    }

    #[test]
    fn paths_that_leave_the_repository_are_refused() {
        assert_eq!(join("a/b", "../c").as_deref(), Some("a/c"));
        assert_eq!(join("a", "../.."), None);
    }
}
