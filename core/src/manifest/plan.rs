//! Which file and field an edit belongs in, for plain folders and for kustomize trees.
//!
//! What a kustomization does to an object is not computed here: candidates come outermost first, and whoever
//! has the real kustomize proves one of them by rendering before and after.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::create::create;
use super::diff::diff_values;
use super::document::{DocId, documents, key_of};
use super::edit::{EditContext, Edited, edit, edit_value};
use super::kustomization::{add_resource, edit_kustomization_image, edit_kustomization_replicas, remove_resource};
use super::locate::{Located, locate, mentions};
use super::ops::{Plan, container, guard, split_image};
use super::path_check::{PathClass, path_check};
use super::pointer::{Step, get, resolve};
use super::splice::LeafOp;
use super::tree::{Base, Layer, SourceTree, Tree, below, normal, relative};
use crate::error::{Problem, Result};
use crate::model::{LeafChange, ObjectKey, Operation, SourceKind};

/// A proved edit of the source, and where it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedEdit {
    /// Files after; `None` = the file goes. Only files that differ.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
    /// The intended effect on the object; what the rendered difference must equal. `before` is what the edited
    /// file said.
    pub changes: Vec<LeafChange>,
    /// The file that decides.
    pub file: String,
    /// Its leaf, as a pointer inside that file's document.
    pub field: String,
    /// 1-based line of the first changed byte, before.
    pub line: usize,
    /// Effects must be proved by rendering.
    pub uses_kustomize: bool,
    /// Folder to build.
    pub build_root: String,
}

/// The first of [`candidates`].
///
/// # Errors
/// As [`candidates`].
pub fn plan_source_edit(
    tree: SourceTree<'_>,
    key: &ObjectKey,
    op: &Operation,
    ctx: EditContext<'_>,
) -> Result<PlannedEdit> {
    let mut all = candidates(tree, key, op, ctx)?;
    if all.is_empty() {
        Err(Problem::new("manifest.not_found", format!("{key} was not found."), "Check the name."))
    } else {
        Ok(all.swap_remove(0))
    }
}

/// Every place where the edit may belong, the one that most likely decides first. Without a kustomization there is
/// exactly one. With one, the caller renders each and takes the first whose effect is the intended one; an empty
/// effect means that an outer layer shadows that place.
///
/// # Errors
/// Problems of finding the object and of editing it, if no place can be edited.
pub fn candidates(
    tree: SourceTree<'_>,
    key: &ObjectKey,
    op: &Operation,
    ctx: EditContext<'_>,
) -> Result<Vec<PlannedEdit>> {
    let found = match tree.kind {
        SourceKind::Plain => vec![plain(tree, key, op, ctx)?],
        SourceKind::Kustomize => kustomized(tree, key, op, ctx)?,
        SourceKind::Helm | SourceKind::Other => {
            return Err(Problem::new(
                "manifest.source_kind",
                "The owner's source is neither plain manifests nor a kustomization.",
                "Let a person change the chart's values or the plugin's input.",
            ));
        }
    };
    for f in found.iter().flat_map(|p| p.files.keys()) {
        match path_check(f, 0o100_644, &[]) {
            PathClass::Refused(p) => return Err(p),
            PathClass::Plain | PathClass::Privileged(_) => {}
        }
    }
    Ok(found)
}

fn planned(tree: SourceTree<'_>, file: &str, e: Edited, changes: Vec<LeafChange>) -> PlannedEdit {
    PlannedEdit {
        field: e.changes.first().map(|c| c.pointer.clone()).unwrap_or_default(),
        files: BTreeMap::from([(file.to_owned(), e.bytes)]),
        changes,
        file: file.to_owned(),
        line: e.line,
        uses_kustomize: tree.kind == SourceKind::Kustomize,
        build_root: tree.root.to_owned(),
    }
}

fn as_rendered(changes: &[LeafChange], key: &ObjectKey) -> Vec<LeafChange> {
    changes.iter().map(|c| LeafChange { object: key.clone(), ..c.clone() }).collect()
}

fn plain(tree: SourceTree<'_>, key: &ObjectKey, op: &Operation, ctx: EditContext<'_>) -> Result<PlannedEdit> {
    let files = tree.plain();
    if let Operation::Create(c) = op {
        return new_file(tree, key, &c.path, &c.manifest, locate(&files, key, tree.default_namespace));
    }
    let at = locate(&files, key, tree.default_namespace)?;
    let bytes = tree.files.get(&at.path).map_or(&[][..], Vec::as_slice);
    let e = edit(&at.path, bytes, at.id, op, ctx)?;
    let changes = as_rendered(&e.changes, key);
    Ok(planned(tree, &at.path, e, changes))
}

fn new_file(
    tree: SourceTree<'_>,
    key: &ObjectKey,
    path: &str,
    manifest: &str,
    present: Result<Located>,
) -> Result<PlannedEdit> {
    match present {
        Ok(at) => {
            return Err(Problem::new(
                "manifest.already_defined",
                format!("{key} is declared already."),
                "Edit it where it stands.",
            )
            .with(format!("{} line {}", at.path, at.line)));
        }
        Err(p) if p.code == "manifest.not_found" => {}
        Err(p) => return Err(p),
    }
    let under =
        below(path, tree.root).filter(|rest| tree.recurse || tree.kind == SourceKind::Kustomize || !rest.contains('/'));
    if under.is_none() {
        return Err(Problem::new(
            "manifest.bad_create",
            format!("{path} is not where the owner reads files."),
            format!("Choose a path below {}.", if tree.root.is_empty() { "/" } else { tree.root }),
        ));
    }
    let clash = tree
        .files
        .keys()
        .find(|p| p.eq_ignore_ascii_case(path) || p.strip_prefix(path).is_some_and(|r| r.starts_with('/')));
    if let Some(p) = clash {
        return Err(Problem::new(
            "manifest.file_exists",
            format!("{p} exists already."),
            "Create the object in a file of its own.",
        ));
    }
    let made = create(path, manifest, key, tree.default_namespace)?;
    Ok(PlannedEdit {
        files: BTreeMap::from([(path.to_owned(), Some(made.bytes))]),
        changes: as_rendered(&made.changes, key),
        file: path.to_owned(),
        field: String::new(),
        line: 1,
        uses_kustomize: tree.kind == SourceKind::Kustomize,
        build_root: tree.root.to_owned(),
    })
}

fn kustomized(
    source: SourceTree<'_>,
    key: &ObjectKey,
    op: &Operation,
    ctx: EditContext<'_>,
) -> Result<Vec<PlannedEdit>> {
    let tree = Tree::read(source)?;
    match op {
        Operation::Create(c) => Ok(vec![kustomized_create(&tree, key, &c.path, &c.manifest)?]),
        Operation::Delete(_) => Ok(vec![kustomized_delete(&tree, key, op, ctx)?]),
        _ => Search { tree: &tree, key, op, ctx, base: tree.find(key)? }.all(),
    }
}

fn kustomized_create(tree: &Tree<'_>, key: &ObjectKey, path: &str, manifest: &str) -> Result<PlannedEdit> {
    let present = match tree.find(key) {
        Ok(b) => Ok(Located { path: b.file.clone(), id: b.doc.id, line: b.doc.line }),
        Err(p) if p.code == "manifest.remote_base" => Err(Problem::new("manifest.not_found", "", "")),
        Err(p) => Err(p),
    };
    let mut plan = new_file(tree.source, key, path, manifest, present)?;
    // The layer whose folder holds the file, the nearest one.
    let layer = tree.layers.iter().filter(|l| below(path, &l.dir).is_some()).max_by_key(|l| l.dir.len());
    let Some(layer) = layer else {
        return Err(Problem::new(
            "manifest.bad_create",
            format!("No kustomization reads {path}."),
            "Choose a path below the owner's path.",
        ));
    };
    let bytes = tree.source.files.get(&layer.file).map_or(&[][..], Vec::as_slice);
    let e = add_resource(bytes, &relative(&layer.dir, path))?;
    plan.files.insert(layer.file.clone(), e.bytes);
    Ok(plan)
}

fn kustomized_delete(tree: &Tree<'_>, key: &ObjectKey, op: &Operation, ctx: EditContext<'_>) -> Result<PlannedEdit> {
    let base = tree.find(key)?;
    let bytes = tree.source.files.get(&base.file).map_or(&[][..], Vec::as_slice);
    let e = edit(&base.file, bytes, base.doc.id, op, ctx)?;
    let gone = e.bytes.is_none();
    let changes = as_rendered(&e.changes, key);
    let mut plan = planned(tree.source, &base.file, e, changes);
    if gone {
        // Every kustomization of the tree that names the file loses its entry.
        for l in &tree.layers {
            let named = l.k.resources.iter().find(|r| normal(&l.dir, r).as_deref() == Some(base.file.as_str()));
            if let Some(named) = named {
                let bytes = tree.source.files.get(&l.file).map_or(&[][..], Vec::as_slice);
                let e = remove_resource(bytes, named).map_err(|p| p.with(format!("file: {}", l.file)))?;
                plan.files.insert(l.file.clone(), e.bytes);
            }
        }
    }
    Ok(plan)
}

/// The search for the places of one edit in a tree.
struct Search<'s, 'a> {
    tree: &'s Tree<'a>,
    key: &'s ObjectKey,
    op: &'s Operation,
    ctx: EditContext<'s>,
    base: &'s Base,
}

impl Search<'_, '_> {
    fn all(&self) -> Result<Vec<PlannedEdit>> {
        // What the operation means for the object itself; its guards hold for every place.
        let mut plan = Plan::new(&self.base.doc.value);
        plan.operation(self.op, self.ctx.restarted_at)?;
        let (after, _) = plan.after();
        let intended = diff_values(self.key, &self.base.doc.value, &after);
        guard(&self.base.doc.value, &intended)?;
        let mut out: Vec<PlannedEdit> = Vec::new();
        let mut refused: Vec<Problem> = Vec::new();
        for layer in &self.tree.layers {
            for found in self.of_layer(layer, &intended) {
                match found {
                    Ok(p) if out.iter().any(|o| o.files == p.files) => {}
                    Ok(p) => out.push(p),
                    // The outermost place that decides says so already.
                    Err(p) if p.code == "manifest.no_change" && out.is_empty() && refused.is_empty() => return Err(p),
                    Err(p) => refused.push(p),
                }
            }
        }
        match edit(&self.base.file, self.bytes(&self.base.file), self.base.doc.id, self.op, self.ctx) {
            Ok(e) => {
                let changes = as_rendered(&e.changes, self.key);
                out.push(planned(self.tree.source, &self.base.file, e, changes));
            }
            Err(p) => refused.push(p),
        }
        if out.is_empty() {
            Err(refused
                .into_iter()
                .next()
                .unwrap_or_else(|| Problem::new("manifest.not_found", "No place was found.", "Check the name.")))
        } else {
            Ok(out)
        }
    }

    fn bytes(&self, file: &str) -> &[u8] {
        self.tree.source.files.get(file).map_or(&[][..], Vec::as_slice)
    }

    fn of_layer(&self, layer: &Layer, intended: &[LeafChange]) -> Vec<Result<PlannedEdit>> {
        let mut out = Vec::new();
        match self.op {
            Operation::SetImage(a) => out.extend(self.images(layer, &a.container, &a.image)),
            Operation::Scale(a) => {
                let names = [self.key.name.as_str(), self.base.doc.key.name.as_str()];
                for r in layer.k.replicas.iter().filter(|r| names.contains(&r.name.as_str())) {
                    let before = r.count.map(Value::from);
                    let e = edit_kustomization_replicas(self.bytes(&layer.file), &r.name, a.replicas);
                    out.push(e.map(|e| self.entry(layer, e, "/spec/replicas", before, Value::from(a.replicas))));
                }
            }
            _ => {}
        }
        for p in &layer.k.patches {
            out.extend(self.patch(layer, p, intended));
        }
        out
    }

    fn entry(&self, layer: &Layer, e: Edited, pointer: &str, before: Option<Value>, after: Value) -> PlannedEdit {
        let change = LeafChange { object: self.key.clone(), pointer: pointer.to_owned(), before, after: Some(after) };
        planned(self.tree.source, &layer.file, e, vec![change])
    }

    fn images(&self, layer: &Layer, name: &str, image: &str) -> Vec<Result<PlannedEdit>> {
        let at = match container(&self.base.doc.value, name) {
            Ok(at) => at,
            Err(p) => return vec![Err(p)],
        };
        let now = resolve(&self.base.doc.value, &format!("{at}/image"))
            .ok()
            .and_then(|r| get(&self.base.doc.value, &r.found)?.as_str().map(str::to_owned))
            .unwrap_or_default();
        // Names that the image may have by the time this layer sees it.
        let mut names = vec![split_image(&now).0.to_owned()];
        for l in self.tree.layers.iter().rev() {
            let new: Vec<String> =
                l.k.images
                    .iter()
                    .filter(|e| names.iter().any(|n| matches_name(&e.name, n)))
                    .filter_map(|e| e.new_name.clone())
                    .collect();
            names.extend(new);
        }
        let hit = |e: &&super::ImageEntry| names.iter().any(|n| matches_name(&e.name, n));
        layer
            .k
            .images
            .iter()
            .filter(hit)
            .map(|e| {
                let before = format!(
                    "{}{}{}",
                    e.new_name.as_deref().unwrap_or(split_image(&now).0),
                    e.new_tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default(),
                    e.digest.as_ref().map(|d| format!("@{d}")).unwrap_or_default()
                );
                edit_kustomization_image(self.bytes(&layer.file), &e.name, image).map(|x| {
                    self.entry(layer, x, &format!("{at}/image"), Some(Value::from(before)), Value::from(image))
                })
            })
            .collect()
    }

    /// A patch counts as the place if it sets the very field already.
    fn patch(&self, layer: &Layer, p: &super::PatchEntry, intended: &[LeafChange]) -> Vec<Result<PlannedEdit>> {
        let Some(file) = p.path.as_deref().and_then(|f| normal(&layer.dir, f)) else {
            return self.inline(layer, p).into_iter().collect();
        };
        let bytes = self.bytes(&file);
        if let Some(found) = self.json_patch(&file, bytes, p.target.as_ref(), intended) {
            return vec![found];
        }
        let docs = match documents(bytes) {
            Ok(d) => d,
            Err(problem) if mentions(bytes, &self.base.doc.key.name) || p.target.is_some() => {
                return vec![Err(problem.with(format!("file: {file}")))];
            }
            Err(_) => return Vec::new(),
        };
        docs.into_iter()
            .filter(|d| self.patches_it(&d.key, p.target.as_ref()))
            .filter_map(|d| {
                sets_already(&d.value, self.op, self.ctx).then(|| {
                    edit(&file, bytes, d.id, self.op, self.ctx).map(|e| {
                        let changes = as_rendered(&e.changes, self.key);
                        planned(self.tree.source, &file, e, changes)
                    })
                })
            })
            .collect()
    }

    fn patches_it(&self, patch: &ObjectKey, target: Option<&Value>) -> bool {
        let names = [self.key.name.as_str(), self.base.doc.key.name.as_str()];
        match target {
            None => patch.kind == self.key.kind && names.contains(&patch.name.as_str()),
            Some(t) => {
                let text = |k: &str| t.get(k).and_then(Value::as_str);
                text("kind").is_none_or(|k| matches_name(k, &self.key.kind))
                    && text("name").is_none_or(|n| names.iter().any(|m| matches_name(n, m)))
            }
        }
    }

    /// Text inside a kustomization file is a document of its own, which is not edited here.
    fn inline(&self, layer: &Layer, p: &super::PatchEntry) -> Option<Result<PlannedEdit>> {
        let docs = documents(p.inline.as_deref()?.as_bytes()).ok()?;
        let sets = docs
            .iter()
            .any(|d| self.patches_it(&d.key, p.target.as_ref()) && sets_already(&d.value, self.op, self.ctx));
        sets.then(|| {
            Err(Problem::new(
                "manifest.inner_document",
                format!("An inline patch in {} sets the field.", layer.file),
                "Move the patch into a file of its own, or let a person edit it.",
            ))
        })
    }

    /// A JSON patch that replaces or adds exactly the one leaf.
    fn json_patch(
        &self,
        file: &str,
        bytes: &[u8],
        target: Option<&Value>,
        intended: &[LeafChange],
    ) -> Option<Result<PlannedEdit>> {
        let [change] = intended else { return None };
        target.filter(|_| self.patches_it(self.key, target))?;
        let text = std::str::from_utf8(bytes).ok()?;
        let parsed = super::parse::parse(text.as_bytes()).ok()?;
        let (index, list) = parsed.values.iter().enumerate().find(|(_, v)| !v.is_null())?;
        let wanted = indexed(&self.base.doc.value, &change.pointer)?;
        let i = list.as_array()?.iter().rposition(|o| {
            let is = |k: &str| o.get(k).and_then(Value::as_str).unwrap_or("");
            matches!(is("op"), "replace" | "add") && is("path") == wanted
        })?;
        let before = list.get(i)?.get("value").cloned();
        let e = edit_value(bytes, DocId { index, item: None }, self.key, &format!("/{i}/value"), change.after.clone());
        Some(e.map(|e| {
            let change = LeafChange { before, ..change.clone() };
            planned(self.tree.source, file, e, vec![change])
        }))
    }
}

/// A pointer with list items by index, as JSON patches write it.
fn indexed(v: &Value, pointer: &str) -> Option<String> {
    let r = resolve(v, pointer).ok()?;
    let found = r.found.iter().map(|s| match s {
        Step::Key(k) => super::pointer::escape(k),
        Step::Index(i) => i.to_string(),
    });
    Some(found.chain(r.missing.iter().map(|m| super::pointer::escape(m))).map(|s| format!("/{s}")).collect())
}

/// Whether the operation would only replace what the document says already.
fn sets_already(v: &Value, op: &Operation, ctx: EditContext<'_>) -> bool {
    if key_of(v).is_none() {
        return false;
    }
    let mut plan = Plan::new(v);
    plan.operation(op, ctx.restarted_at).is_ok() && {
        let (_, ops) = plan.after();
        ops.iter().all(|o| matches!(o, LeafOp::Set(..) | LeafOp::Remove(_))) && (!ops.is_empty() || touches(v, op))
    }
}

/// No change because it says so already, not because there is nothing to remove.
fn touches(v: &Value, op: &Operation) -> bool {
    match op {
        Operation::Scale(_) => v.pointer("/spec/replicas").is_some(),
        Operation::SetImage(a) => container(v, &a.container)
            .and_then(|c| resolve(v, &format!("{c}/image")))
            .is_ok_and(|r| r.missing.is_empty()),
        Operation::SetField(f) => f.value.is_some() && resolve(v, &f.pointer).is_ok_and(|r| r.missing.is_empty()),
        _ => false,
    }
}

/// kustomize reads names in selectors and `images` as anchored regular expressions.
fn matches_name(pattern: &str, name: &str) -> bool {
    pattern == name
        || (pattern.len() < 256
            && pattern.contains(['*', '[', '(', '|', '+', '?', '^', '$', '\\'])
            && Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|r| r.is_match(name)))
}
