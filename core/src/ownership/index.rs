//! Who lists what: (group, kind, namespace, name) to owners, small enough for a million objects.
//!
//! A key is kept as 128 bits of its SHA-256, so that neither memory nor a crafted name matters; an
//! owner is a number. One object costs about 60 bytes: 16 in its owner's sorted list, 20 in the map
//! and the map's slack. The index is a cache of claims, not truth: before a write the owner is read again.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use sha2::{Digest as _, Sha256};

use super::facts::Listing;
use crate::model::{ObjectKey, OwnerRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Mark([u8; 16]);

impl Mark {
    fn of(key: &ObjectKey) -> Self {
        let mut h = Sha256::new();
        // NUL cannot occur in a Kubernetes name, so no two keys give the same bytes.
        for part in [&key.group, &key.kind, &key.namespace, &key.name] {
            h.update(part.as_bytes());
            h.update([0]);
        }
        let mut mark = [0; 16];
        for (to, from) in mark.iter_mut().zip(h.finalize()) {
            *to = from;
        }
        Self(mark)
    }
}

/// The marks are hashes already.
#[derive(Debug, Default, Clone)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.0 = u64::from_le_bytes(first);
    }
    fn write_usize(&mut self, _: usize) {}
}

type Marks<V> = HashMap<Mark, V, BuildHasherDefault<Identity>>;

#[derive(Debug)]
struct Entry {
    owner: OwnerRef,
    marks: Box<[Mark]>,
    inventory: bool,
    remote: Option<String>,
    plane: Option<String>,
}

/// What the index knows about one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    /// Whether it keeps an inventory at all.
    pub inventory: bool,
    /// Where its objects are, when not in this cluster.
    pub remote: Option<&'a str>,
    /// Argo CD: the control plane that reconciles it, where known.
    pub plane: Option<&'a str>,
}

/// The inverted index of all owners of one cluster.
#[derive(Debug, Default)]
pub struct Index {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_owner: HashMap<OwnerRef, u32>,
    /// Nearly every object has one owner.
    one: Marks<u32>,
    /// The others, in addition to the one in `one`.
    more: Marks<Vec<u32>>,
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what an owner says now in place of what it said before; only the difference is touched.
    /// Says whether there was one.
    pub fn apply(&mut self, listing: Listing) -> bool {
        let id = self.id_of(&listing.owner);
        let mut marks: Vec<Mark> = match &listing.remote {
            // What lies in another cluster is no claim to an object of the same name in this one.
            Some(_) => Vec::new(),
            None => listing.objects.iter().flatten().map(Mark::of).collect(),
        };
        marks.sort_unstable();
        marks.dedup();
        let entry = Entry {
            owner: listing.owner,
            marks: marks.into_boxed_slice(),
            inventory: listing.objects.is_some(),
            remote: listing.remote,
            plane: listing.plane,
        };
        let new = entry.marks.clone();
        let before = self.slot(id).and_then(|slot| slot.replace(entry));
        let changed = match (&before, self.entry(id)) {
            (Some(old), Some(now)) => {
                (&old.marks, old.inventory, &old.remote, &old.plane)
                    != (&now.marks, now.inventory, &now.remote, &now.plane)
            }
            _ => true,
        };
        let old = before.map(|e| e.marks).unwrap_or_default();
        for mark in old.iter().filter(|m| new.binary_search(m).is_err()) {
            self.unlink(*mark, id);
        }
        for mark in new.iter().filter(|m| old.binary_search(m).is_err()) {
            self.link(*mark, id);
        }
        changed
    }

    /// Forgets an owner that is gone.
    pub fn remove(&mut self, owner: &OwnerRef) {
        let Some(id) = self.by_owner.remove(owner) else { return };
        let old = self.slot(id).and_then(Option::take).map(|e| e.marks).unwrap_or_default();
        for mark in old.iter() {
            self.unlink(*mark, id);
        }
        self.free.push(id);
    }

    /// Forgets the owners of one kind that are not in `keep` (after a watch was started anew).
    pub fn retain(&mut self, kind: &str, keep: &BTreeSet<OwnerRef>) {
        let gone: Vec<OwnerRef> =
            self.by_owner.keys().filter(|o| o.kind == kind && !keep.contains(o)).cloned().collect();
        for owner in &gone {
            self.remove(owner);
        }
    }

    /// Owners in this cluster's control planes that list the object, in a stable order.
    pub fn listing(&self, key: &ObjectKey) -> Vec<&OwnerRef> {
        let mark = Mark::of(key);
        let more = self.more.get(&mark).map(Vec::as_slice).unwrap_or_default();
        let ids = self.one.get(&mark).into_iter().chain(more);
        let mut owners: Vec<&OwnerRef> = ids.filter_map(|id| self.entry(*id)).map(|e| &e.owner).collect();
        owners.sort_unstable();
        owners
    }

    /// What is known about an owner; `None` where no such owner exists.
    pub fn known(&self, owner: &OwnerRef) -> Option<Known<'_>> {
        let entry = self.entry(*self.by_owner.get(owner)?)?;
        Some(Known { inventory: entry.inventory, remote: entry.remote.as_deref(), plane: entry.plane.as_deref() })
    }

    /// Every owner, in a stable order.
    pub fn owners(&self) -> Vec<&OwnerRef> {
        let mut owners: Vec<&OwnerRef> = self.by_owner.keys().collect();
        owners.sort_unstable();
        owners
    }

    /// Number of listed objects; one that two owners list counts once.
    pub fn len(&self) -> usize {
        self.one.len()
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.one.is_empty()
    }

    /// Bytes held for listed objects: the maps by capacity and the owners' lists. Owners' own names are left out.
    pub fn heap_bytes(&self) -> usize {
        // A bucket of the standard map is the pair and one control byte; a map is at most 7/8 full.
        let map = |capacity: usize, pair: usize| (capacity * 8 / 7) * (pair + 1);
        let lists: usize = self.entries.iter().flatten().map(|e| e.marks.len() * size_of::<Mark>()).sum();
        let more: usize = self.more.values().map(|v| v.capacity() * size_of::<u32>()).sum();
        lists
            + more
            + map(self.one.capacity(), size_of::<(Mark, u32)>())
            + map(self.more.capacity(), size_of::<(Mark, Vec<u32>)>())
    }

    fn id_of(&mut self, owner: &OwnerRef) -> u32 {
        if let Some(id) = self.by_owner.get(owner) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        self.by_owner.insert(owner.clone(), id);
        id
    }

    fn slot(&mut self, id: u32) -> Option<&mut Option<Entry>> {
        self.entries.get_mut(id as usize)
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn link(&mut self, mark: Mark, id: u32) {
        match self.one.get(&mark) {
            None => {
                self.one.insert(mark, id);
            }
            Some(first) if *first == id => {}
            Some(_) => {
                let more = self.more.entry(mark).or_default();
                if !more.contains(&id) {
                    more.push(id);
                }
            }
        }
    }

    fn unlink(&mut self, mark: Mark, id: u32) {
        if let Some(more) = self.more.get_mut(&mark) {
            let was_first = self.one.get(&mark) == Some(&id);
            if was_first {
                if let Some(next) = more.pop() {
                    self.one.insert(mark, next);
                }
            } else {
                more.retain(|o| *o != id);
            }
            if more.is_empty() {
                self.more.remove(&mark);
            }
        } else if self.one.get(&mark) == Some(&id) {
            self.one.remove(&mark);
        }
    }
}
