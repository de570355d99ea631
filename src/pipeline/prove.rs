//! prove: an edit does exactly what was asked for, and nothing else. By parsing before and after, by the real
//! kustomize where one is involved, and by the cluster's own schemas.

use countersign_core::manifest::{Files, PlannedEdit, diff_objects, documents};
use countersign_core::model::{LeafChange, Operation, Source, SourceKind};
use countersign_core::{Problem, Result};

use super::Pipeline;
use super::effect::{fits, with_leaves};
use super::plan::{Edits, Wanted, not_found};
use crate::cluster::Cluster;
use crate::git::blob_id;
use crate::render::Kustomize;

impl Pipeline {
    /// Takes the first candidate whose rendered effect is exactly what was asked for.
    pub(super) async fn prove(
        &self,
        files: &Files,
        kind: SourceKind,
        root: &str,
        w: &Wanted,
        options: Vec<PlannedEdit>,
        restarted_at: &str,
    ) -> Result<(PlannedEdit, Vec<LeafChange>)> {
        if kind != SourceKind::Kustomize {
            let Some(only) = options.into_iter().next() else { return Err(not_found(&w.key)) };
            let fields = only.changes.iter().cloned().map(|l| LeafChange { object: w.key.clone(), ..l }).collect();
            return Ok((only, fields));
        }
        let kustomize = match &self.kustomize {
            Some(k) => k.clone(),
            None => Kustomize::require(self.config.load().bootstrap.kustomize.as_deref())?,
        };
        let rendered = kustomize.render(files, root).await?;
        let mut why = Vec::new();
        for option in options {
            let mut after = files.clone();
            for (path, bytes) in &option.files {
                match bytes {
                    Some(b) => drop(after.insert(path.clone(), b.clone())),
                    None => drop(after.remove(path)),
                }
            }
            let effect = diff_objects(&rendered, &kustomize.render(&after, root).await?);
            match fits(&rendered, w, &effect, &option, restarted_at) {
                Ok(()) => return Ok((option, effect)),
                Err(said) => why.push(format!("{}: {said}", option.file)),
            }
        }
        Err(Problem::new(
            "plan.effect_not_proved",
            format!("No edit of the kustomization has exactly the asked effect on {}.", w.key),
            "Look at the evidence; let a person change the files, or ask for a field that one file decides.",
        )
        .with_all(why))
    }

    /// The objects after the edit against the cluster's own schemas.
    pub(super) async fn validate(&self, cluster: &Cluster, wanted: &[Wanted], edits: &Edits) -> Result<()> {
        for w in wanted {
            let after = match (&w.op, &w.live) {
                (Operation::Delete(_), _) => continue,
                (Operation::Adopt(_), _) => match &w.made {
                    Some(made) => made.manifest.clone(),
                    None => continue,
                },
                (Operation::Create(c), _) => match documents(c.manifest.as_bytes())?.pop() {
                    Some(d) => d.value,
                    None => continue,
                },
                (_, Some(live)) => with_leaves(live, &edits.fields, &w.key),
                (_, None) => continue,
            };
            let problems = cluster.validate(&after).await?;
            if let Some(first) = problems.into_iter().next() {
                return Err(first);
            }
        }
        Ok(())
    }

    /// Proves a change anew on another base: the same files must come out, with the same effect.
    pub(super) async fn prove_again(&self, change: &countersign_core::change::Change, tip: &str) -> Result<()> {
        let p = &change.proposal;
        if p.reverts.is_some() {
            // A revert restores whole files, whose blobs were compared already.
            return Ok(());
        }
        let cluster = self.cluster(&p.cluster)?;
        let mut place = self.place(cluster, &p.owner).await?;
        place.base = tip.to_owned();
        let moved = |why: &str| {
            Problem::new("gate.stale", why, "Propose the change again; it will be planned on what is true now.").never()
        };
        if place.git_ref != p.git_ref || place.source.path != p.source.path {
            return Err(moved("The owner follows another branch or folder now."));
        }
        let wanted = self.wanted(cluster, &p.edits).await?;
        let stamp = crate::clock::rfc3339(change.proposed_at);
        let edits = self.edit_files(&place, tip, &wanted, &stamp).await?;
        let same_files = edits.after.len() == change.sealed.files.len()
            && change
                .sealed
                .files
                .iter()
                .all(|f| edits.after.get(&f.path).is_some_and(|a| a.as_deref().map(blob_id) == f.after));
        if !same_files || edits.fields != p.fields {
            return Err(moved("On the new base the same edit no longer has the same effect."));
        }
        let paths: Vec<&str> = edits.after.keys().map(String::as_str).collect();
        self.refuse_shared(cluster, &place, &paths).await.map_err(|p| moved(&p.message))
    }
}

/// Settings at the owner beat the files: an edit that they cover would be green and do nothing.
pub(super) fn refuse_overrides(source: &Source, wanted: &[Wanted]) -> Result<()> {
    let covers = |o: &str, op: &Operation| {
        let o = o.to_ascii_lowercase();
        match op {
            Operation::SetImage(_) => o.contains("images") || o.contains("patches") || o.contains("substitute"),
            Operation::Scale(_) => o.contains("replicas") || o.contains("patches") || o.contains("substitute"),
            Operation::Create(_) | Operation::Delete(_) => o.contains("include") || o.contains("exclude"),
            _ => ["patches", "substitute", "images", "replicas", "components", "labels", "annotations"]
                .iter()
                .any(|w| o.contains(w)),
        }
    };
    for w in wanted {
        // An adopted object must come out as it is, so nothing may be done to it on the way.
        let places = format!("amespace=\"{}\"", w.key.namespace);
        let covers = |o: &&String| match w.op {
            Operation::Adopt(_) => !o.ends_with(&places),
            _ => covers(o, &w.op),
        };
        let hit: Vec<&String> = source.overrides.iter().filter(covers).collect();
        if !hit.is_empty() && w.founded.is_none() {
            return Err(Problem::new(
                "source.overridden",
                format!("Settings at the owner beat what the files say about {}, so an edit of the files might do nothing.", w.key),
                "Change the owner's own setting in Git (target the Application or Kustomization itself), or let a person do it.",
            )
            .with_all(hit.into_iter().cloned()));
        }
    }
    Ok(())
}
