//! plan: which bytes of which files, proved as text and, where a kustomization is involved, as
//! rendered by the real kustomize before and after. Nothing is written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use countersign_core::manifest::{
    Adopted, EditContext, Files, Kustomization, PathClass, SourceTree, candidates, documents, is_kustomization_name,
    kustomization, path_check, unified_diff,
};
use countersign_core::model::{
    Create, DeliveryState, Edit, FileNote, LeafChange, ObjectKey, Operation, OwnerRef, Risk, Source, SourceKind, Want,
};
use countersign_core::ownership::Reach;
use countersign_core::policy::{Target, risk};
use countersign_core::secrets::{scan_leaves, secret_values};
use countersign_core::{Problem, Result};
use serde_json::Value;

use super::effect::{object_changes, targets, wants};
use super::prove::refuse_overrides;
use super::source::Place;
use super::{Pipeline, RepoHandle, adopt, decide};
use crate::cluster::Cluster;
use crate::git::{FileContent, ReadLimits, blob_id};

/// Most edits of one change.
pub(super) const MAX_EDITS: usize = 20;

/// One file of a plan.
#[derive(Debug, Clone)]
pub(super) struct PlannedFile {
    pub path: String,
    pub mode: String,
    pub before: Option<(String, Vec<u8>)>,
    pub after: Option<Vec<u8>>,
}

impl PlannedFile {
    pub(super) fn after_blob(&self) -> Option<String> {
        self.after.as_deref().map(blob_id)
    }
}

/// Everything that is known about a change before anybody is asked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub cluster: String,
    pub owner: OwnerRef,
    pub source: Source,
    pub repository: String,
    pub git_ref: String,
    pub base: String,
    pub files: Vec<PlannedFile>,
    pub notes_of_files: Vec<FileNote>,
    pub fields: Vec<LeafChange>,
    pub want: Vec<Want>,
    pub state: DeliveryState,
    pub risk: Risk,
    pub diff: String,
    pub health: Option<String>,
    pub last_healthy: Option<String>,
    pub notes: Vec<String>,
    pub targets: Vec<Target>,
    pub objects: usize,
}

/// One edit with its object.
pub(super) struct Wanted {
    pub key: ObjectKey,
    pub live: Option<Value>,
    pub op: Operation,
    /// Of an adoption: what is written, made from the live object.
    pub made: Option<Adopted>,
    /// Of an adoption by a new owner: that owner and its manifest. What it delivers lies in a folder of its own.
    pub founded: Option<(OwnerRef, Value)>,
}

impl Wanted {
    /// What is done to the files: to adopt is to create what is live already.
    pub(super) fn written(&self) -> Cow<'_, Operation> {
        match (&self.op, &self.made) {
            (Operation::Adopt(a), Some(made)) => Cow::Owned(Operation::Create(Create {
                manifest: made.text.clone(),
                owner: a.owner.clone().unwrap_or_default(),
                path: a.path.clone().unwrap_or_default(),
            })),
            (op, _) => Cow::Borrowed(op),
        }
    }
}

/// What became of the files: before, after, and the proved effect.
pub(super) struct Edits {
    pub before: Files,
    pub after: BTreeMap<String, Option<Vec<u8>>>,
    pub fields: Vec<LeafChange>,
    pub lines: BTreeMap<String, usize>,
    /// Objects of the touched files (or of the build), before and after.
    pub objects: Vec<risk::ObjectChange>,
}

impl Pipeline {
    /// Files that the owner's source reads at a commit: its folder, and for kustomizations
    /// whatever they name inside the repository.
    pub(super) async fn snapshot(&self, repo: &RepoHandle, commit: &str, root: &str) -> Result<Files> {
        let mut files = Files::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![root.to_owned()];
        while let Some(at) = todo.pop() {
            if !seen.insert(at.clone()) {
                continue;
            }
            let found = repo.git.tree_files(commit, &at, ReadLimits::default()).await?;
            for (path, file) in found {
                let name = path.rsplit('/').next().unwrap_or_default();
                let manifest =
                    [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e)) || is_kustomization_name(name);
                match file.content {
                    FileContent::Bytes(bytes) => {
                        if is_kustomization_name(name)
                            && let Ok(k) = kustomization(&bytes)
                        {
                            let dir = path.rsplit_once('/').map_or("", |(d, _)| d);
                            todo.extend(
                                named_paths(&k).filter_map(|n| inside(dir, n)).filter(|p| !under_any(p, &seen)),
                            );
                        }
                        files.insert(path, bytes);
                    }
                    // A link or a submodule in a folder that is read: what the engine sees there is not in this tree.
                    _ if manifest => {
                        return Err(Problem::new(
                            "source.not_plain_file",
                            format!(
                                "{path} is a link, a submodule or too large, so what the engine reads there is not certain."
                            ),
                            "Let a person change it.",
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(files)
    }

    /// Makes the edits on a snapshot, each proved as text and by rendering.
    pub(super) async fn edit_files(
        &self,
        place: &Place,
        commit: &str,
        wanted: &[Wanted],
        restarted_at: &str,
    ) -> Result<Edits> {
        let repo = self.repo(&place.repository)?;
        let root = place.source.path.as_str();
        let before = self.snapshot(repo, commit, root).await?;
        let kind = match place.source.kind {
            Some(kind) => kind,
            None => SourceTree::detect(&before, root),
        };
        let mut now = before.clone();
        let mut fields = Vec::new();
        let mut lines = BTreeMap::new();
        for w in wanted {
            if w.founded.is_some() {
                let (path, bytes, changes) = self.apart(place, commit, w).await?;
                lines.insert(path.clone(), 1);
                now.insert(path, bytes);
                fields.extend(changes);
                continue;
            }
            let tree = SourceTree {
                files: &now,
                root,
                kind,
                recurse: place.source.recurse,
                default_namespace: Some(place.namespace.as_str()).filter(|n| !n.is_empty()),
            };
            let options = candidates(tree, &w.key, &w.written(), EditContext { restarted_at })?;
            let (chosen, effect) = self.prove(&now, kind, root, w, options, restarted_at).await?;
            lines.entry(chosen.file.clone()).or_insert(chosen.line);
            for (path, bytes) in chosen.files {
                match bytes {
                    Some(b) => drop(now.insert(path, b)),
                    None => drop(now.remove(&path)),
                }
            }
            fields.extend(effect);
        }
        let mut after = BTreeMap::new();
        for path in before.keys().chain(now.keys()) {
            if before.get(path) != now.get(path) {
                after.insert(path.clone(), now.get(path).cloned());
            }
        }
        let objects = object_changes(&before, &after);
        Ok(Edits { before, after, fields, lines, objects })
    }

    /// Every other owner that one of these files feeds. What cannot be resolved counts as fed.
    pub(super) async fn refuse_shared(&self, cluster: &Cluster, place: &Place, paths: &[&str]) -> Result<()> {
        let branch = place.git_ref.trim_start_matches("refs/heads/");
        let repo = self.repo(&place.repository)?;
        let mut shared = BTreeSet::new();
        let mut closures: BTreeMap<(String, bool), Files> = BTreeMap::new();
        for path in paths {
            for f in cluster.feeders(&place.source.url, branch, path).await? {
                if f.owner == place.owner {
                    continue;
                }
                let fed = match (f.reach, f.feed.source.kind) {
                    (Reach::Never, _) => false,
                    (Reach::Reads, _) => true,
                    (Reach::Maybe, Some(SourceKind::Plain | SourceKind::Kustomize) | None) => {
                        let id = (f.feed.source.path.clone(), true);
                        if !closures.contains_key(&id) {
                            // A tree that cannot be read counts as shared.
                            let read = self.snapshot(repo, &place.base, &f.feed.source.path).await;
                            closures.insert(
                                id.clone(),
                                read.unwrap_or_else(|_| Files::from([((*path).to_owned(), Vec::new())])),
                            );
                        }
                        closures.get(&id).is_some_and(|files| files.contains_key(*path))
                    }
                    (Reach::Maybe, _) if f.feed.unclear => true,
                    (Reach::Maybe, Some(SourceKind::Helm)) => {
                        f.feed.source.overrides.iter().any(|o| o.contains("..") || o.contains('$') || o.contains(*path))
                    }
                    (Reach::Maybe, Some(SourceKind::Other)) => true,
                };
                if fed {
                    shared.insert(format!("{path} also feeds {}", f.owner));
                }
            }
        }
        if shared.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            "source.shared",
            "The file feeds more than the owner that was asked for, so the change would reach further than the target.",
            "Move the setting into a file (or overlay) of its own, or let a person change the shared file.",
        )
        .with_all(shared))
    }

    /// Paths and modes that may not be written at all, and secrets that may not be written anywhere.
    pub(super) fn refuse_dangerous(&self, place: &Place, edits: &Edits) -> Result<()> {
        let config = self.config.load();
        let extra = config
            .repositories
            .iter()
            .find(|r| r.name == place.repository)
            .map(|r| r.spec.privileged_paths.clone())
            .unwrap_or_default();
        for path in edits.after.keys() {
            if let PathClass::Refused(problem) = path_check(path, 0o100_644, &extra) {
                return Err(problem);
            }
        }
        let leaks = scan_leaves(&edits.fields);
        if let Some(first) = leaks.first() {
            return Err(Problem::new(
                "secret.in_change",
                format!("The value of {} looks like a secret ({}).", first.pointer, first.why),
                "Secrets never go through an agent or into Git in the clear: refer to one with secretKeyRef, or use a SealedSecret, an ExternalSecret or SOPS; a person puts the value in.",
            )
            .never());
        }
        Ok(())
    }

    /// The whole plan for some edits of one owner's objects.
    pub(super) async fn plan(
        &self,
        cluster: &Cluster,
        place: Place,
        wanted: &[Wanted],
        restarted_at: &str,
    ) -> Result<Plan> {
        refuse_overrides(&place.source, wanted)?;
        let base = place.base.clone();
        let edits = self.edit_files(&place, &base, wanted, restarted_at).await?;
        self.refuse_dangerous(&place, &edits)?;
        let paths: Vec<&str> = edits.after.keys().map(String::as_str).collect();
        self.refuse_shared(cluster, &place, &paths).await?;
        self.validate(cluster, wanted, &edits).await?;
        let marks = self.marks(cluster, &place, wanted).await?;
        let mut plan = self.assemble(cluster, place, edits).await?;
        plan.targets = targets(wanted, &plan.fields);
        for values in plan.targets.iter_mut().filter_map(|t| t.values.as_mut()) {
            // They are kept in the journal.
            values.retain(&|text| self.redactor.redact_text(text) == text);
        }
        plan.want = wants(wanted, &plan.fields);
        plan.want.extend(marks);
        plan.notes.extend(wanted.iter().flat_map(|w| adopt::notes(w, plan.state.prune)));
        if let Some(first) = wanted.first() {
            plan.health = match &first.live {
                Some(live) => {
                    let unknown = |p: Problem| Some(format!("not known ({}): {}", p.code, p.message));
                    cluster.health(&first.key, live).await.unwrap_or_else(unknown)
                }
                None => None,
            };
        }
        plan.risk = self.assess(&plan, &plan.targets.clone());
        Ok(plan)
    }

    /// Files, figures, diff and delivery state of proved edits.
    pub(super) async fn assemble(&self, cluster: &Cluster, place: Place, edits: Edits) -> Result<Plan> {
        let repo = self.repo(&place.repository)?;
        let mut files = Vec::new();
        let mut notes_of_files = Vec::new();
        let mut diff = String::new();
        for (path, after) in &edits.after {
            let before = edits.before.get(path);
            let mode = match repo.git.kind(&place.base, path).await? {
                Some(kind) => kind.mode().to_owned(),
                None => "100644".to_owned(),
            };
            let text = unified_diff(path, before.map(Vec::as_slice), after.as_deref());
            let (added, removed) = figures(&text);
            let line = edits.lines.get(path).and_then(|l| u32::try_from(*l).ok()).unwrap_or(0);
            notes_of_files.push(FileNote { path: path.clone(), line, added, removed });
            diff.push_str(&text);
            files.push(PlannedFile {
                path: path.clone(),
                mode,
                before: before.map(|b| (blob_id(b), b.clone())),
                after: after.clone(),
            });
        }
        let pointers: Vec<String> = edits.fields.iter().map(|l| l.pointer.clone()).collect();
        let live = match edits.fields.first() {
            Some(first) => cluster.read(&first.object).await?.map(|o| (first.object.clone(), o)),
            None => None,
        };
        let state = self
            .delivery_state(cluster, &place.owner, &place.object, live.as_ref().map(|(k, v)| (k, v)), &pointers)
            .await?;
        let objects: BTreeSet<&ObjectKey> = edits.fields.iter().map(|l| &l.object).collect();
        Ok(Plan {
            cluster: cluster.name().to_owned(),
            owner: place.owner,
            source: place.source,
            repository: place.repository,
            git_ref: place.git_ref,
            base: place.base,
            files,
            notes_of_files,
            objects: objects.len(),
            want: Vec::new(),
            state,
            risk: risk::assess(&edits.fields, &edits.after.keys().cloned().collect::<Vec<_>>(), &edits.objects, &[]),
            diff: self.redactor.redact_knowing(&diff, &known_secrets(&edits)),
            health: None,
            last_healthy: None,
            notes: Vec::new(),
            targets: Vec::new(),
            fields: edits.fields,
        })
    }

    /// Adds what labels say to the risk of the change itself: the higher counts.
    pub(super) fn assess(&self, plan: &Plan, targets: &[Target]) -> Risk {
        let config = self.config.load();
        let cluster = decide::labels_of(&config.clusters, &plan.cluster, |c| &c.labels);
        let repository = decide::labels_of(&config.repositories, &plan.repository, |r| &r.labels);
        let mut labels = vec![&cluster, &repository];
        labels.extend(targets.iter().flat_map(|t| [t.labels_before.as_ref(), t.labels_after.as_ref()]).flatten());
        let by_labels =
            risk::assess(&plan.fields, &plan.files.iter().map(|f| f.path.clone()).collect::<Vec<_>>(), &[], &labels);
        let mut reasons = plan.risk.reasons.clone();
        reasons.extend(by_labels.reasons.into_iter().filter(|r| !plan.risk.reasons.contains(r)));
        Risk { level: plan.risk.level.max(by_labels.level), reasons }
    }

    /// The objects of some edits, resolved against the cluster.
    pub(super) async fn wanted(&self, cluster: &Cluster, edits: &[Edit]) -> Result<Vec<Wanted>> {
        let mut out = Vec::with_capacity(edits.len());
        for e in edits {
            let op = e.operation()?;
            let key = cluster.key_of(&e.target()?).await?;
            if let Operation::Adopt(a) = &op {
                let owner = self.named_owner(cluster, a.owner.as_deref().unwrap_or_default()).await?;
                out.extend(self.wanted_adoption(cluster, &owner, key, op).await?);
                continue;
            }
            let live = cluster.read(&key).await?;
            out.push(Wanted { key, live, op, made: None, founded: None });
        }
        Ok(out)
    }
}

pub(super) fn not_found(key: &ObjectKey) -> Problem {
    Problem::new(
        "manifest.not_found",
        format!("{key} is in no file of its owner's source."),
        "It may be generated; let a person look.",
    )
}

/// A path that a kustomization names, from the repository's root; remote and outside ones are none.
fn inside(dir: &str, named: &str) -> Option<String> {
    if named.contains("://") || named.starts_with('/') || named.contains('@') || named.contains('?') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|p| !p.is_empty()).collect();
    for p in named.split('/') {
        match p {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            p => parts.push(p),
        }
    }
    Some(parts.join("/"))
}

/// Files and folders that a kustomization names.
fn named_paths(k: &Kustomization) -> impl Iterator<Item = &str> {
    k.resources
        .iter()
        .chain(&k.components)
        .map(String::as_str)
        .chain(k.patches.iter().filter_map(|p| p.path.as_deref()))
}

fn under_any(path: &str, seen: &BTreeSet<String>) -> bool {
    seen.iter().any(|s| s.is_empty() || path == s || path.strip_prefix(s.as_str()).is_some_and(|r| r.starts_with('/')))
}

/// Secret values of every object in the touched files: a hunk without its `kind: Secret` line gives
/// them away to nobody.
fn known_secrets(edits: &Edits) -> Vec<String> {
    let after = edits.after.values().filter_map(|b| b.as_ref());
    let before = edits.after.keys().filter_map(|p| edits.before.get(p));
    after.chain(before).flat_map(|b| documents(b).unwrap_or_default()).flat_map(|d| secret_values(&d.value)).collect()
}

fn figures(diff: &str) -> (u32, u32) {
    let count = |mark: char, skip: &str| {
        u32::try_from(diff.lines().filter(|l| l.starts_with(mark) && !l.starts_with(skip)).count()).unwrap_or(u32::MAX)
    };
    (count('+', "+++"), count('-', "---"))
}
