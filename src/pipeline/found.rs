//! A new owner for what no existing one can take: declared in Git by an owner that declares others already, after
//! the example of one of those. Its manifest and the object's are one change; people commit it, because engines'
//! own objects are privileged.

use countersign_core::manifest::{create, documents, text_of};
use countersign_core::model::{Create, Edit, LeafChange, ObjectKey, Operation, OwnerRef, Principal, Source};
use countersign_core::ownership::{Ground, Reach, SourceBasis, editable, founded, reach, sources};
use countersign_core::{Problem, Result};
use serde_json::Value;

use super::Pipeline;
use super::adopt::{Fits, file_of};
use super::plan::Wanted;
use super::source::Place;
use crate::cluster::Cluster;
use crate::git::same_repo;

/// Owners of owners that are tried out for one call.
const TRIES: usize = 3;

impl Wanted {
    /// The manifest of a creation.
    pub(super) fn manifest(&self) -> Option<Value> {
        let Operation::Create(c) = &self.op else { return None };
        documents(c.manifest.as_bytes()).ok()?.pop().map(|d| d.value)
    }
}

impl Pipeline {
    /// New owners that could be declared for the object, and why others could not. Several objects take a person.
    pub(super) async fn new_owners(
        &self,
        who: &Principal,
        cluster: &Cluster,
        keys: &[ObjectKey],
        edits: &[Edit],
    ) -> Result<(Vec<Fits>, Vec<String>)> {
        let ([key], [edit]) = (keys, edits) else { return Ok((Vec::new(), Vec::new())) };
        let mut parents: Vec<OwnerRef> = cluster.founders().await?.into_iter().map(|(parent, _)| parent).collect();
        parents.dedup();
        let (mut fits, mut why_not) = (Vec::new(), Vec::new());
        for parent in parents.iter().take(TRIES) {
            let mut edit = edit.clone();
            if let Some(a) = &mut edit.adopt {
                a.new_owner.get_or_insert_with(|| key.name.clone());
            }
            match self.try_out(who, cluster, parent, &[edit]).await {
                Ok(f) => fits.push(f),
                Err(p) => why_not.push(format!("a new owner declared by {parent} ({}): {}", p.code, p.message)),
            }
        }
        Ok((fits, why_not))
    }

    /// The new owner of an adoption, and what declares it.
    pub(super) async fn founding(
        &self,
        cluster: &Cluster,
        parent: &OwnerRef,
        key: &ObjectKey,
        (name, path): (&str, &str),
    ) -> Result<(OwnerRef, Wanted)> {
        let place = self.place(cluster, parent).await?;
        let (sibling, object, _) = self.sibling(cluster, &place).await?;
        let new = OwnerRef::new(sibling.engine, &sibling.kind, &sibling.namespace, name);
        if cluster.read(&new.key()).await?.is_some() {
            return Err(Problem::new(
                "adopt.owner_exists",
                format!("{new} exists already."),
                "Name it in `owner`, without `new_owner`, or choose another name.",
            ));
        }
        let Some((folder, _)) = path.rsplit_once('/') else { return Err(taken("the root of the repository")) };
        let manifest = founded(&sibling, &object, Ground { name, path: folder, namespace: &key.namespace })?;
        let below = if place.source.path.is_empty() { String::new() } else { format!("{}/", place.source.path) };
        let op = Operation::Create(Create {
            manifest: text_of(&manifest)?,
            owner: format!("{} {}/{}", parent.kind, parent.namespace, parent.name),
            path: format!("{below}{}.yaml", file_of(&new.key())),
        });
        let key = new.key();
        Ok((new, Wanted { key, live: None, op, made: None, founded: None }))
    }

    /// The folder of a new owner's manifests: beside that of its sibling.
    pub(super) async fn new_folder(&self, cluster: &Cluster, place: &Place, name: &str) -> Result<String> {
        let (.., source) = self.sibling(cluster, place).await?;
        Ok(match source.path.rsplit_once('/') {
            Some((above, _)) => format!("{above}/{name}"),
            None => name.to_owned(),
        })
    }

    /// An owner that this one declares, from the same repository and branch: the example for another one.
    async fn sibling(&self, cluster: &Cluster, place: &Place) -> Result<(OwnerRef, Value, Source)> {
        for (parent, child) in cluster.founders().await? {
            if parent != place.owner {
                continue;
            }
            let object = cluster.owner_object(&child).await?;
            let flux = cluster.source_of(&child, &object).await?;
            let Ok(all) = sources(SourceBasis { owner: &child, object: &object, source: flux.as_ref() }) else {
                continue;
            };
            if let [one] = all.as_slice()
                && editable(&child, one).is_ok()
                && same_repo(&one.url, &place.source.url)
                && one.target_revision == place.source.target_revision
            {
                return Ok((child, object, one.clone()));
            }
        }
        Err(Problem::new(
            "adopt.sibling",
            format!(
                "{} declares no owner from its own repository and branch that a new one could follow.",
                place.owner
            ),
            "Let a person declare the new owner.",
        ))
    }

    /// The file of an object that a new owner takes: in a folder that is new, which nobody reads yet.
    pub(super) async fn apart(
        &self,
        place: &Place,
        commit: &str,
        w: &Wanted,
    ) -> Result<(String, Vec<u8>, Vec<LeafChange>)> {
        let Operation::Create(c) = &*w.written() else { return Err(taken("nothing")) };
        let folder = c.path.rsplit_once('/').map_or("", |(f, _)| f);
        let repo = self.repo(&place.repository)?;
        if folder.is_empty() || repo.git.kind(commit, folder).await?.is_some() {
            return Err(taken(folder));
        }
        if reach(&place.source, &c.path) == Reach::Reads {
            return Err(taken(folder).with(format!("{} reads it", place.owner)));
        }
        let made = create(&c.path, &c.manifest, &w.key, None)?;
        Ok((c.path.clone(), made.bytes, made.changes))
    }
}

fn taken(folder: &str) -> Problem {
    Problem::new(
        "adopt.folder",
        format!("A new owner needs a folder of its own; {} is none.", countersign_core::message::escape_name(folder)),
        "Name a file in a folder that does not exist yet, outside of what the declaring owner reads.",
    )
}
