//! What an owner reads: plain files, or a tree of kustomizations across folders of the repository.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::document::{Document, documents};
use super::kustomization::{Kustomization, is_kustomization_name, kustomization};
use super::locate::{Located, mentions, namespace_fits, one};
use super::text::nearest;
use crate::error::{Problem, Result};
use crate::model::{ObjectKey, SourceKind};

/// Files of a repository snapshot by path from its root.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What an owner reads.
#[derive(Debug, Clone, Copy)]
pub struct SourceTree<'a> {
    /// Files of the repository; only those below the root and what its kustomizations name are looked at.
    pub files: &'a Files,
    /// The owner's path, without leading or trailing slash; empty for the repository's root.
    pub root: &'a str,
    /// Kind; `Plain` or `Kustomize`.
    pub kind: SourceKind,
    /// Whether a plain source reads sub-folders.
    pub recurse: bool,
    /// Namespace of objects that name none.
    pub default_namespace: Option<&'a str>,
}

impl<'a> SourceTree<'a> {
    /// Kustomize if the root has a kustomization file, else plain.
    pub fn detect(files: &Files, root: &str) -> SourceKind {
        if kustomization_file(files, root).is_ok_and(|f| f.is_some()) {
            SourceKind::Kustomize
        } else {
            SourceKind::Plain
        }
    }

    /// Manifest files of a plain source. Folders with a kustomization of their own are left out: Flux builds them,
    /// Argo CD cannot read them, and neither takes their files as they are.
    pub(super) fn plain(&self) -> Vec<(&'a str, &'a [u8])> {
        let name_of = |p: &'a str| p.rsplit_once('/').unwrap_or(("", p));
        let built: Vec<&str> = self
            .files
            .keys()
            .map(|p| name_of(p))
            .filter(|(dir, name)| is_kustomization_name(name) && *dir != self.root && below(dir, self.root).is_some())
            .map(|(dir, _)| dir)
            .collect();
        self.files
            .iter()
            .filter(|(p, _)| {
                let (_, name) = name_of(p);
                [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e))
                    && !is_kustomization_name(name)
                    && below(p, self.root).is_some_and(|rest| self.recurse || !rest.contains('/'))
                    && !built.iter().any(|d| below(p, d).is_some())
            })
            .map(|(p, b)| (p.as_str(), b.as_slice()))
            .collect()
    }
}

/// The path below `root`, if it is below it.
pub(super) fn below<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    if root.is_empty() { Some(path) } else { path.strip_prefix(root)?.strip_prefix('/') }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A path named in a kustomization, from the repository's root; `None` if it leads out of it or is absolute.
pub(super) fn normal(dir: &str, named: &str) -> Option<String> {
    if named.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|p| !p.is_empty()).collect();
    for p in named.split('/') {
        match p {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            p => parts.push(p),
        }
    }
    Some(parts.join("/"))
}

/// The way from a folder to a path below it or beside it.
pub(super) fn relative(dir: &str, path: &str) -> String {
    let from: Vec<&str> = dir.split('/').filter(|p| !p.is_empty()).collect();
    let to: Vec<&str> = path.split('/').collect();
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut out: Vec<&str> = vec![".."; from.len() - same];
    out.extend(to.iter().skip(same));
    out.join("/")
}

/// Whether a resource is fetched from elsewhere (kustomize: api/internal/git/repospec.go).
pub fn is_remote(named: &str) -> bool {
    named.contains("://")
        || named.contains("?ref=")
        || named.starts_with("git@")
        || named.starts_with("git::")
        || named.starts_with("github.com")
        || named.contains(".git//")
        || named.ends_with(".git")
}

/// The kustomization file of a folder.
fn kustomization_file(files: &Files, dir: &str) -> Result<Option<String>> {
    let found: Vec<String> = ["kustomization.yaml", "kustomization.yml", "Kustomization"]
        .iter()
        .map(|n| join(dir, n))
        .filter(|p| files.contains_key(p))
        .collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(Problem::new(
            "kustomization.several",
            "A folder has several kustomization files.",
            "Leave one of them.",
        )
        .with_all(found)),
    }
}

/// One kustomization of the tree.
pub(super) struct Layer {
    /// Folder.
    pub dir: String,
    /// Its kustomization file.
    pub file: String,
    /// What it says.
    pub k: Kustomization,
    /// Layer that names this one.
    parent: Option<usize>,
}

/// A document of the tree and the layer that names its file.
pub(super) struct Base {
    layer: usize,
    /// File.
    pub file: String,
    /// Document.
    pub doc: Document,
}

/// Every kustomization of a source and the objects that their files declare.
pub(super) struct Tree<'a> {
    /// The source.
    pub source: SourceTree<'a>,
    /// Kustomizations, outer ones first.
    pub layers: Vec<Layer>,
    bases: Vec<Base>,
    remote: Vec<String>,
    broken: Vec<(String, Problem)>,
}

const MAX_LAYERS: usize = 256;

impl<'a> Tree<'a> {
    /// Reads the tree from its root, outer layers first.
    pub fn read(source: SourceTree<'a>) -> Result<Self> {
        let mut tree = Self { source, layers: Vec::new(), bases: Vec::new(), remote: Vec::new(), broken: Vec::new() };
        let mut todo: VecDeque<(String, Option<usize>)> = [(source.root.to_owned(), None)].into();
        while let Some((dir, parent)) = todo.pop_front() {
            if tree.layers.len() >= MAX_LAYERS || tree.circle(&dir, parent) {
                return Err(Problem::new(
                    "kustomization.too_deep",
                    "The kustomizations name each other in a circle or are too many.",
                    "Correct the resources of the kustomizations.",
                ));
            }
            let Some(file) = kustomization_file(source.files, &dir)? else {
                return Err(Problem::new(
                    "kustomization.missing",
                    format!("The folder {} has no kustomization file.", if dir.is_empty() { "/" } else { &dir }),
                    "Correct the path that names it.",
                ));
            };
            let bytes = source.files.get(&file).map_or(&[][..], Vec::as_slice);
            let k = kustomization(bytes).map_err(|p| p.with(format!("file: {file}")))?;
            let layer = tree.layers.len();
            for named in k.components.iter().chain(&k.resources) {
                tree.follow(&dir, named, layer, &mut todo);
            }
            tree.layers.push(Layer { dir, file, k, parent });
        }
        Ok(tree)
    }

    fn circle(&self, dir: &str, mut parent: Option<usize>) -> bool {
        while let Some(l) = parent.and_then(|p| self.layers.get(p)) {
            if l.dir == dir {
                return true;
            }
            parent = l.parent;
        }
        false
    }

    fn follow(&mut self, dir: &str, named: &str, layer: usize, todo: &mut VecDeque<(String, Option<usize>)>) {
        let Some(path) = normal(dir, named).filter(|_| !is_remote(named)) else {
            self.remote.push(named.to_owned());
            return;
        };
        let Some(bytes) = self.source.files.get(&path) else {
            todo.push_back((path, Some(layer)));
            return;
        };
        match documents(bytes) {
            Ok(docs) => self.bases.extend(docs.into_iter().map(|doc| Base { layer, file: path.clone(), doc })),
            Err(p) => self.broken.push((path, p)),
        }
    }

    /// The key that an object of a layer has once all layers above are done with it.
    fn final_key(&self, base: &Base) -> ObjectKey {
        let mut key = base.doc.key.clone();
        let mut at = Some(base.layer);
        while let Some(l) = at.and_then(|i| self.layers.get(i)) {
            key.name = format!("{}{}{}", l.k.name_prefix, key.name, l.k.name_suffix);
            if let Some(n) = &l.k.namespace {
                key.namespace.clone_from(n);
            }
            at = l.parent;
        }
        key
    }

    /// The one document that becomes the object.
    pub fn find(&self, key: &ObjectKey) -> Result<&Base> {
        let ns = self.source.default_namespace;
        let fits = |b: &&Base| {
            let f = self.final_key(b);
            // A namespace field of a kustomization leaves cluster-scoped objects alone.
            let cluster = key.namespace.is_empty() && b.doc.key.namespace.is_empty();
            f.group == key.group && f.kind == key.kind && f.name == key.name && (cluster || namespace_fits(&f, key, ns))
        };
        let hits: Vec<&Base> = self.bases.iter().filter(fits).collect();
        if let [one] = hits.as_slice() {
            return Ok(one);
        }
        let at = |b: &&Base| Located { path: b.file.clone(), id: b.doc.id, line: b.doc.line };
        if hits.is_empty() {
            self.absent(key)?;
        }
        let names: Vec<String> =
            self.bases.iter().filter(|b| b.doc.key.kind == key.kind).map(|b| self.final_key(b).name).collect();
        let problem = one(hits.iter().map(at).collect(), key, || nearest(&key.name, names.iter().map(String::as_str)));
        Err(match problem {
            Err(p) => p,
            Ok(_) => Problem::new("manifest.not_found", format!("{key} was not found."), "Check the name."),
        })
    }

    /// Why an object is in no file, where that can be told.
    fn absent(&self, key: &ObjectKey) -> Result<()> {
        for (file, p) in &self.broken {
            if self.source.files.get(file).is_some_and(|b| mentions(b, &key.name)) {
                return Err(p.clone().with(format!("file: {file}")));
            }
        }
        let generated = |l: &Layer| {
            l.k.generated
                .iter()
                .any(|g| key.name.contains(g.as_str()) && matches!(key.kind.as_str(), "ConfigMap" | "Secret"))
        };
        if let Some(l) = self.layers.iter().find(|l| generated(l)) {
            return Err(Problem::new(
                "manifest.generated",
                format!("{key} is generated by {}.", l.file),
                "Let a person change what the generator reads.",
            ));
        }
        let runs: Vec<String> =
            self.layers.iter().flat_map(|l| l.k.runs.iter().map(|r| format!("{}: {r}", l.file))).collect();
        if !self.remote.is_empty() || !runs.is_empty() {
            return Err(Problem::new(
                "manifest.remote_base",
                format!("{key} is in no file of the repository; it may come from a remote base, a chart or a plugin."),
                "Let a person change the place that it comes from.",
            )
            .with_all(self.remote.iter().cloned())
            .with_all(runs));
        }
        Ok(())
    }
}

/// One kustomization that a build reads.
#[derive(Debug, Clone, PartialEq)]
pub struct KustomizationFile {
    /// Its folder.
    pub dir: String,
    /// Its path.
    pub path: String,
    /// What it says.
    pub content: Kustomization,
}

/// Every kustomization that a build of `root` reads, outer ones first.
///
/// # Errors
/// `kustomization.*` where one is missing, doubled, malformed or part of a circle, or a part is fetched from elsewhere
/// (`kustomization.remote`) or leads out of the repository (`kustomization.escapes`).
pub fn kustomizations(files: &Files, root: &str) -> Result<Vec<KustomizationFile>> {
    let source = SourceTree { files, root, kind: SourceKind::Kustomize, recurse: true, default_namespace: None };
    let tree = Tree::read(source)?;
    for l in &tree.layers {
        for p in &l.k.paths {
            if is_remote(p) {
                return Err(Problem::new(
                    "kustomization.remote",
                    format!("{} names {p}, which is fetched from elsewhere.", l.file),
                    "Copy what it names into the repository, or let a person make this change.",
                ));
            }
            if normal(&l.dir, p).is_none() {
                return Err(Problem::new(
                    "kustomization.escapes",
                    format!("{} names {p}, which is outside of the repository.", l.file),
                    "Correct the path.",
                )
                .never());
            }
        }
    }
    Ok(tree.layers.into_iter().map(|l| KustomizationFile { dir: l.dir, path: l.file, content: l.k }).collect())
}

/// Where a path named in a kustomization of `dir` leads, from the repository's root; `None` if out of it.
pub fn named_path(dir: &str, named: &str) -> Option<String> {
    normal(dir, named)
}

/// A repository at one commit, read file by file.
pub trait Snapshot {
    /// Content of a regular file; `None` for anything else (links, submodules, folders, nothing).
    ///
    /// # Errors
    /// Whatever reading gives.
    fn file(&mut self, path: &str) -> Result<Option<Vec<u8>>>;

    /// Paths of all regular files below a folder, sub-folders included.
    ///
    /// # Errors
    /// Whatever reading gives.
    fn below(&mut self, dir: &str) -> Result<Vec<String>>;
}

const MAX_FILES: usize = 20_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The files that edits below `root` can need: all of them below it and, where it is a kustomization, what that names
/// elsewhere in the repository. A large repository is read only as far as that.
///
/// # Errors
/// `manifest.too_large` beyond 20,000 files or 64 MiB; problems of the snapshot.
pub fn load(root: &str, snapshot: &mut dyn Snapshot) -> Result<Files> {
    let mut files = Files::new();
    let mut bytes = 0;
    let mut todo = vec![root.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(at) = todo.pop() {
        if !seen.insert(at.clone()) {
            continue;
        }
        let one = if at.is_empty() { None } else { snapshot.file(&at)? };
        let found = match one {
            Some(b) => vec![(at, b)],
            None => {
                let mut all = Vec::new();
                for p in snapshot.below(&at)? {
                    if files.contains_key(&p) {
                        continue;
                    }
                    if files.len() + all.len() > MAX_FILES {
                        return Err(too_much(root));
                    }
                    if let Some(b) = snapshot.file(&p)? {
                        all.push((p, b));
                    }
                }
                all
            }
        };
        for (path, b) in found {
            bytes += b.len();
            if bytes > MAX_BYTES || files.len() > MAX_FILES {
                return Err(too_much(root));
            }
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if is_kustomization_name(name)
                && let Ok(k) = kustomization(&b)
            {
                todo.extend(k.paths.iter().filter(|p| !is_remote(p)).filter_map(|p| normal(dir, p)));
            }
            files.insert(path, b);
        }
    }
    Ok(files)
}

fn too_much(root: &str) -> Problem {
    Problem::new(
        "manifest.too_large",
        format!(
            "The source at {} is over {MAX_FILES} files or {MAX_BYTES} bytes.",
            if root.is_empty() { "/" } else { root }
        ),
        "Give the owner a smaller path.",
    )
}
