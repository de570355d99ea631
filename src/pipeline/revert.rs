//! rollback: a revert is a change of its own, through the same gate. It restores the files to what
//! they were before the change, and is refused where a later commit touched them.

use std::collections::BTreeMap;

use countersign_core::change::Change;
use countersign_core::manifest::Files;
use countersign_core::model::{ChangeAnswer, LeafChange, Level, Operation, Principal, RollbackArgs, Want};
use countersign_core::policy::{Target, Values};
use countersign_core::{Problem, Result};

use super::Pipeline;
use super::plan::{Edits, Plan};
use super::propose::Draft;

impl Pipeline {
    /// The tool `rollback`.
    pub async fn rollback(&self, who: &Principal, args: RollbackArgs) -> Result<ChangeAnswer> {
        let change = self.find_change(who, &args.change).await?;
        let reason = self.reason(&args.reason)?;
        self.revert_of(&change, who, &reason, args.plan_only, None).await
    }

    pub(super) async fn revert_of(
        &self,
        change: &Change,
        who: &Principal,
        reason: &str,
        plan_only: bool,
        wanted_by: Option<&str>,
    ) -> Result<ChangeAnswer> {
        if change.landed.is_none() {
            return Err(super::record::not_landed(&change.name()));
        }
        if change.proposal.edits.iter().any(|e| e.adopt.is_some()) {
            return Err(Problem::new(
                "rollback.adoption",
                format!("Taking back {} would not give the object to nobody again: its owner would delete it.", change.name()),
                "Let a person protect the object from pruning (argocd.argoproj.io/sync-options: Prune=false, kustomize.toolkit.fluxcd.io/prune: disabled), and then take its file out of Git; or use delete, if it is to go.",
            )
            .never());
        }
        let open = self
            .journal
            .read(|v| v.changes.values().find(|c| c.is_open() && c.proposal.reverts == Some(change.id)).map(|c| c.id))
            .await;
        if let Some(known) = open {
            let Some(known) = self.journal.change(known).await else { return Err(super::unknown_change()) };
            return self.answer_for(who, &known).await;
        }
        let cluster = self.cluster(&change.proposal.cluster)?;
        let place = self.place(cluster, &change.proposal.owner).await?;
        let edits = self.restored(change, &place.base).await?;
        self.refuse_dangerous(&place, &edits)?;
        let paths: Vec<&str> = edits.after.keys().map(String::as_str).collect();
        self.refuse_shared(cluster, &place, &paths).await?;
        let mut plan = self.assemble(cluster, place, edits).await?;
        plan.targets = inverse_targets(change)?;
        plan.want = inverse_wants(change, &plan);
        plan.risk = self.assess(&plan, &plan.targets.clone());
        if plan_only {
            // Otherwise the card has a line of its own for it.
            plan.notes.push(format!("Undoes {}.", change.name()));
        }
        if let Some(first) = plan.fields.first()
            && let Some(live) = cluster.read(&first.object).await?
        {
            plan.health = cluster.health(&first.object, &live).await.unwrap_or(None);
        }
        let draft = Draft {
            who: who.clone(),
            reason: self.reason(reason)?,
            key: None,
            content_key: format!("revert:{}", change.id),
            edits: change.proposal.edits.clone(),
            reverts: Some(change.id),
            wanted_by: wanted_by.map(str::to_owned),
            at: self.clock.now_ms(),
        };
        debug_assert!(change.decided.level != Level::Deny);
        self.conclude(draft, plan, plan_only).await
    }

    /// The files of the change as they were before it, provided that nobody touched them since.
    async fn restored(&self, change: &Change, tip: &str) -> Result<Edits> {
        let repo = self.repo(&change.sealed.repository)?;
        let mut before = Files::new();
        let mut after = BTreeMap::new();
        for f in &change.sealed.files {
            let now = repo.git.blob(tip, &f.path).await?;
            if now.as_ref().map(|t| t.id.clone()) != f.after {
                return Err(Problem::new(
                    "rollback.later_commit",
                    format!(
                        "{} was changed again after {}, so restoring it would undo that too.",
                        f.path,
                        change.name()
                    ),
                    "Use operate with set_field to put back the one value that should change.",
                )
                .with_all(change.proposal.fields.iter().map(|l| {
                    format!(
                        "{} {} was {}",
                        l.object,
                        l.pointer,
                        l.before.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string)
                    )
                })));
            }
            if let Some(file) = now {
                before.insert(f.path.clone(), file.editable(&f.path)?.to_vec());
            }
            let old = match (&f.before, repo.git.blob(&change.base, &f.path).await?) {
                (None, _) => None,
                (Some(oid), Some(file)) if file.id == *oid => Some(file.editable(&f.path)?.to_vec()),
                _ => {
                    return Err(Problem::new(
                        "rollback.history_gone",
                        format!("The earlier content of {} is no longer in the repository's history.", f.path),
                        "Let a person restore it.",
                    ));
                }
            };
            after.insert(f.path.clone(), old);
        }
        let fields = change
            .proposal
            .fields
            .iter()
            .map(|l| LeafChange {
                object: l.object.clone(),
                pointer: l.pointer.clone(),
                before: l.after.clone(),
                after: l.before.clone(),
            })
            .collect();
        let lines = change.proposal.files.iter().map(|f| (f.path.clone(), f.line as usize)).collect();
        Ok(Edits { before, after, fields, lines, objects: Vec::new() })
    }
}

/// The same objects and operations, with before and after changed places.
fn inverse_targets(change: &Change) -> Result<Vec<Target>> {
    let targets: Vec<Target> = serde_json::from_value(change.proposal.targets.clone()).map_err(|e| {
        Problem::new(
            "rollback.facts",
            format!("The stored facts of the change cannot be read: {e}."),
            "Use operate instead.",
        )
        .never()
    })?;
    Ok(targets
        .into_iter()
        .map(|t| {
            let operation = match t.operation.as_str() {
                "create" => "delete".to_owned(),
                "delete" => "create".to_owned(),
                _ => t.operation,
            };
            Target {
                operation,
                labels_before: t.labels_after,
                labels_after: t.labels_before,
                values: t.values.map(Values::inverse),
                ..t
            }
        })
        .collect())
}

fn inverse_wants(change: &Change, plan: &Plan) -> Vec<Want> {
    let created = change.proposal.edits.iter().any(|e| matches!(e.operation(), Ok(Operation::Create(_))));
    let deleted = change.proposal.edits.iter().any(|e| matches!(e.operation(), Ok(Operation::Delete(_))));
    let mut out: Vec<Want> = Vec::new();
    for w in &change.proposal.want {
        if created && w.path.is_empty() {
            out.push(Want { exists: Some(false), value: None, ..w.clone() });
        }
        if deleted && w.exists == Some(false) && w.path.is_empty() {
            out.push(Want { exists: None, value: None, ..w.clone() });
        }
    }
    if created || deleted {
        return out;
    }
    for l in &plan.fields {
        let base = Want {
            group: l.object.group.clone(),
            kind: l.object.kind.clone(),
            namespace: l.object.namespace.clone(),
            name: l.object.name.clone(),
            path: l.pointer.clone(),
            value: None,
            exists: None,
        };
        out.push(match &l.after {
            Some(v) => Want { value: Some(v.clone()), ..base },
            None => Want { exists: Some(false), ..base },
        });
    }
    out
}
