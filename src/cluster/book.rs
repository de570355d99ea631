//! What the watches know: the ownership index, and a short card for each owner and source.
//!
//! Cards are kept as JSON text of the few fields that matter: a tenth of what parsed values take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use countersign_core::error::Problem;
use countersign_core::model::{Engine, ObjectKey, OwnerRef, Source, SourceKind};
use countersign_core::ownership::{
    Feed, Follow, Index, Listing, Reach, SourceBasis, destination_namespace, feeds, follow, reach, repo_key,
    source_object,
};
use serde_json::Value;
use tokio::sync::watch;

use super::rights::Followed;

/// Another owner that reads a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feeder {
    /// The owner.
    pub owner: OwnerRef,
    /// Its source that may reach the file; `countersign_core::ownership::reaches` decides it on the tree.
    pub feed: Feed,
    /// How sure that is by the paths alone.
    pub reach: Reach,
}

/// One line of the listing of owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerLine {
    /// Owner.
    pub owner: OwnerRef,
    /// Its own word on sync (`Synced`, `OutOfSync`, `True`, `False`); empty where it has said nothing.
    pub sync: String,
    /// Its own word on health; empty where it says nothing.
    pub health: String,
    /// Its own words on what is wrong: untrusted, capped.
    pub message: String,
    /// It is suspended, so that the rest may be old.
    pub suspended: bool,
}

impl OwnerLine {
    /// Whether the owner itself says that all is well.
    pub fn well(&self) -> bool {
        !self.suspended
            && match self.owner.engine {
                Engine::Argocd => self.sync == "Synced" && self.health == "Healthy",
                Engine::Flux => self.sync == "True",
            }
    }
}

/// How far the watch of one kind is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not read yet, with what hinders it.
    Starting(Option<Problem>),
    /// The kind is not installed.
    Absent,
    /// Read once and followed since; with a problem while the connection is lost.
    Ready(Option<Problem>),
}

impl Progress {
    /// The state without its words.
    fn stage(&self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Starting(_) => 1,
            Self::Ready(None) => 2,
            Self::Ready(Some(_)) => 3,
        }
    }
}

#[derive(Debug)]
struct Card {
    json: Box<str>,
    owner: Option<OwnerRef>,
    repos: Vec<String>,
    source: Option<ObjectKey>,
    plane: Option<String>,
}

/// Everything that the watches of one cluster know.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) index: Index,
    cards: BTreeMap<ObjectKey, Card>,
    by_repo: BTreeMap<String, BTreeSet<ObjectKey>>,
    by_source: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// How many Applications name each control plane (the empty name: none yet).
    control_planes: BTreeMap<String, usize>,
}

impl Book {
    /// Takes in an owner or a source as it is now. `card` is the object cut down, `listing` what it owns.
    pub(super) fn put(&mut self, key: ObjectKey, card: &Value, listing: Option<Listing>) {
        self.unlink(&key);
        let owner = listing.as_ref().map(|l| l.owner.clone());
        let argo = listing.as_ref().filter(|l| l.owner.engine == Engine::Argocd);
        let plane = argo.map(|l| l.plane.clone().unwrap_or_default());
        if let Some(plane) = &plane {
            *self.control_planes.entry(plane.clone()).or_default() += 1;
        }
        if let Some(listing) = listing {
            self.index.apply(listing);
        }
        let mut repos = Vec::new();
        let mut source = None;
        match &owner {
            Some(owner) => {
                source = source_object(owner, card);
                let own = feeds(SourceBasis { owner, object: card, source: None });
                repos.extend(own.iter().map(|f| repo_key(&f.source.url)));
            }
            None => repos.extend(card.pointer("/spec/url").and_then(Value::as_str).map(repo_key)),
        }
        repos.sort_unstable();
        repos.dedup();
        for repo in &repos {
            self.by_repo.entry(repo.clone()).or_default().insert(key.clone());
        }
        if let Some(source) = &source {
            self.by_source.entry(source.clone()).or_default().insert(key.clone());
        }
        self.cards.insert(key, Card { json: card.to_string().into_boxed_str(), owner, repos, source, plane });
    }

    /// Forgets an object that is gone.
    pub(super) fn drop_key(&mut self, key: &ObjectKey) {
        self.unlink(key);
        if let Some(Card { owner: Some(owner), .. }) = self.cards.remove(key) {
            self.index.remove(&owner);
        }
    }

    /// Forgets the objects of a kind that a fresh list no longer has.
    pub(super) fn retain(&mut self, group: &str, kind: &str, keep: &BTreeSet<ObjectKey>) {
        let gone: Vec<ObjectKey> =
            self.cards.keys().filter(|k| k.group == group && k.kind == kind && !keep.contains(k)).cloned().collect();
        for key in &gone {
            self.drop_key(key);
        }
    }

    fn unlink(&mut self, key: &ObjectKey) {
        let Some(card) = self.cards.get(key) else { return };
        if let Some(plane) = &card.plane
            && let Some(count) = self.control_planes.get_mut(plane)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.control_planes.remove(plane);
            }
        }
        for repo in &card.repos {
            if let Some(set) = self.by_repo.get_mut(repo) {
                set.remove(key);
                if set.is_empty() {
                    self.by_repo.remove(repo);
                }
            }
        }
        if let Some(source) = &card.source
            && let Some(set) = self.by_source.get_mut(source)
        {
            set.remove(key);
            if set.is_empty() {
                self.by_source.remove(source);
            }
        }
    }

    /// A card, parsed.
    pub(super) fn card(&self, key: &ObjectKey) -> Option<Value> {
        serde_json::from_str(&self.cards.get(key)?.json).ok()
    }

    /// Control-plane namespaces that Applications name themselves; `None` without any Application.
    pub(super) fn control_planes(&self) -> Option<BTreeSet<String>> {
        let named = self.control_planes.keys().filter(|n| !n.is_empty()).cloned().collect();
        (!self.control_planes.is_empty()).then_some(named)
    }

    /// Owners that read a repository, with each of their sources there.
    pub(super) fn readers(&self, url: &str) -> Vec<(OwnerRef, Feed)> {
        let wanted = repo_key(url);
        let mut found = Vec::new();
        let mut flux_sources: BTreeSet<ObjectKey> = BTreeSet::new();
        for key in self.by_repo.get(&wanted).into_iter().flatten() {
            match self.cards.get(key).and_then(|c| c.owner.as_ref()) {
                Some(owner) => self.add_reader(owner, key, None, &wanted, &mut found),
                None => {
                    flux_sources.insert(key.clone());
                }
            }
        }
        for source in self.with_includes(flux_sources) {
            for key in self.by_source.get(&source).into_iter().flatten() {
                if let Some(owner) = self.cards.get(key).and_then(|c| c.owner.as_ref()) {
                    self.add_reader(owner, key, Some(&source), &wanted, &mut found);
                }
            }
        }
        found.sort_by(|a, b| (&a.0, a.1.source.index).cmp(&(&b.0, b.1.source.index)));
        found.dedup();
        found
    }

    /// GitRepositories that mount another one into their artifact read it too.
    fn with_includes(&self, own: BTreeSet<ObjectKey>) -> BTreeSet<ObjectKey> {
        if own.is_empty() {
            return own;
        }
        let mut all = own.clone();
        for (key, card) in self.cards.iter().filter(|(k, _)| k.kind == "GitRepository") {
            if !card.json.contains("\"include\"") {
                continue;
            }
            let spec: Value = serde_json::from_str(&card.json).unwrap_or(Value::Null);
            let includes =
                spec.pointer("/spec/include").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let mounts = includes.iter().filter_map(|i| i.pointer("/repository/name")?.as_str());
            if mounts.map(|name| ObjectKey { name: name.to_owned(), ..key.clone() }).any(|k| own.contains(&k)) {
                all.insert(key.clone());
            }
        }
        all
    }

    fn add_reader(
        &self,
        owner: &OwnerRef,
        key: &ObjectKey,
        source: Option<&ObjectKey>,
        wanted: &str,
        found: &mut Vec<(OwnerRef, Feed)>,
    ) {
        let Some(object) = self.card(key) else { return };
        let through = source.and_then(|s| self.card(s));
        for mut feed in feeds(SourceBasis { owner, object: &object, source: through.as_ref() }) {
            if repo_key(&feed.source.url) != wanted {
                if source.is_none() {
                    continue;
                }
                // Mounted from here into another repository's artifact: what it reads of it is unknown.
                feed.source.kind = Some(SourceKind::Other);
                feed.source.target_revision = String::new();
                (feed.unclear, feed.lends) = (true, false);
            }
            found.push((owner.clone(), feed));
        }
    }

    /// Owners that read a file of a branch, as far as paths and their own words tell.
    /// One that follows the default branch always counts, because the name of that is not known here.
    pub(super) fn feeders(&self, url: &str, branch: &str, file: &str) -> Vec<Feeder> {
        let readers = self.readers(url).into_iter();
        let fed = readers.filter(|(_, feed)| match follow(&feed.source) {
            Ok(Follow::Default) => true,
            Ok(Follow::Branch(name) | Follow::BranchOrTag(name)) => name == branch,
            // A tag or a commit: no commit to a branch reaches it.
            Err(_) => false,
        });
        let by_path = |feed: &Feed| match reach(&feed.source, file) {
            _ if feed.files.iter().any(|f| f == file) => Reach::Reads,
            _ if feed.lends && !feed.unclear => Reach::Never,
            Reach::Never if feed.unclear => Reach::Maybe,
            reach => reach,
        };
        fed.map(|(owner, feed)| Feeder { reach: by_path(&feed), owner, feed })
            .filter(|f| f.reach != Reach::Never)
            .collect()
    }

    /// Every repository that an owner or a Git source names, in a stable order.
    pub(super) fn followed(&self) -> Vec<Followed> {
        let mut out = Vec::new();
        let mut read: BTreeSet<&ObjectKey> = BTreeSet::new();
        for (key, card) in &self.cards {
            let (Some(owner), Some(object)) = (&card.owner, self.card(key)) else { continue };
            read.extend(&card.source);
            let through = card.source.as_ref().and_then(|s| self.card(s));
            for feed in feeds(SourceBasis { owner, object: &object, source: through.as_ref() }) {
                let Source { url, target_revision, kind, .. } = feed.source;
                // A chart's repository, or one that only a plugin can read: nothing there is edited.
                if !url.is_empty() && kind != Some(SourceKind::Other) {
                    out.push(Followed { owner: Some(owner.clone()), url, revision: target_revision });
                }
            }
        }
        for (key, _) in self.cards.iter().filter(|(k, c)| c.owner.is_none() && !read.contains(k)) {
            let Some(object) = self.card(key) else { continue };
            let get = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
            out.push(Followed { owner: None, url: get("/spec/url"), revision: get("/spec/ref/branch") });
        }
        out
    }

    /// Owners that deliver manifests of Git to this cluster, each with the namespace that it gives them (empty
    /// where it gives none), in a stable order.
    pub(super) fn destinations(&self) -> Vec<(OwnerRef, String)> {
        let here = |o: &OwnerRef| self.index.known(o).is_some_and(|k| k.remote.is_none());
        let owners = self.cards.iter().filter_map(|(key, card)| Some((key, card.owner.as_ref()?)));
        owners
            .filter(|(_, o)| matches!(o.kind.as_str(), "Application" | "Kustomization") && here(o))
            .map(|(key, o)| (o.clone(), destination_namespace(o, &self.card(key).unwrap_or_default())))
            .collect()
    }

    /// Owners that declare other owners, each with one that it declares, in a stable order.
    pub(super) fn founders(&self) -> Vec<(OwnerRef, OwnerRef)> {
        let delivers = |o: &OwnerRef| {
            matches!(o.kind.as_str(), "Application" | "Kustomization")
                && self.index.known(o).is_some_and(|k| k.remote.is_none())
        };
        let owners = self.cards.iter().filter_map(|(key, card)| Some((key, card.owner.as_ref()?)));
        let children = owners.filter(|(_, o)| delivers(o));
        let pairs = children.flat_map(|(key, child)| {
            let parents = self.index.listing(key).into_iter().filter(|p| *p != child && delivers(p));
            parents.map(|p| (p.clone(), child.clone())).collect::<Vec<_>>()
        });
        let mut pairs: Vec<(OwnerRef, OwnerRef)> = pairs.collect();
        pairs.sort();
        pairs
    }

    /// Every owner with its own word on its state, in a stable order.
    pub(super) fn lines(&self) -> Vec<OwnerLine> {
        let owners = self.cards.iter().filter_map(|(key, card)| Some((key, card.owner.clone()?)));
        owners
            .map(|(key, owner)| {
                let card = self.card(key).unwrap_or(Value::Null);
                let get = |p: &str| card.pointer(p).and_then(Value::as_str).unwrap_or("").to_owned();
                let ready = ready(&card);
                let suspended = card.pointer("/spec/suspend").and_then(Value::as_bool).unwrap_or(false)
                    || get("/metadata/skip") == "true";
                let word = |v: Option<&Value>, k: &str| {
                    v.and_then(|r| r.get(k)).and_then(Value::as_str).unwrap_or("").to_owned()
                };
                if owner.kind == "Application" {
                    let message = card.pointer("/status/conditions/0/message").and_then(Value::as_str);
                    let message = message.map_or_else(|| get("/status/operationState/message"), str::to_owned);
                    OwnerLine {
                        sync: get("/status/sync/status"),
                        health: get("/status/health/status"),
                        message,
                        suspended,
                        owner,
                    }
                } else {
                    OwnerLine {
                        sync: word(ready, "status"),
                        health: String::new(),
                        message: word(ready, "message"),
                        suspended,
                        owner,
                    }
                }
            })
            .collect()
    }
}

fn ready(card: &Value) -> Option<&Value> {
    card.pointer("/status/conditions")?.as_array()?.iter().find(|c| c.get("type").is_some_and(|t| t == "Ready"))
}

/// The book behind its lock, with the progress of each watch.
#[derive(Debug)]
pub(super) struct Shared {
    book: RwLock<Book>,
    progress: watch::Sender<BTreeMap<&'static str, Progress>>,
    /// Since when each watch is in its state; other words about the same state do not count.
    since: Mutex<BTreeMap<&'static str, Instant>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { book: RwLock::default(), progress: watch::Sender::new(BTreeMap::new()), since: Mutex::default() }
    }
}

impl Shared {
    /// A panic while the lock was held leaves at worst one stale claim, and claims are checked before writes.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, kind: &'static str, progress: Progress) {
        self.progress.send_if_modified(|all| match all.get(kind) {
            Some(old) if *old == progress => false,
            old => {
                if old.is_none_or(|old| old.stage() != progress.stage()) {
                    self.since.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, Instant::now());
                }
                all.insert(kind, progress);
                true
            }
        });
    }

    pub(super) fn since(&self) -> BTreeMap<&'static str, Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn progress(&self) -> watch::Receiver<BTreeMap<&'static str, Progress>> {
        self.progress.subscribe()
    }
}
