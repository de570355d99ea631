//! scope: whose the targets of a call are, and what exactly is asked of them; or what has to be chosen first.

use std::collections::BTreeSet;

use countersign_core::message;
use countersign_core::model::{ChangeAnswer, Choice, Edit, ObjectKey, OperateArgs, Operation, Outcome, Principal};
use countersign_core::{Problem, Result};
use serde_json::json;

use super::Pipeline;
use super::plan::{MAX_EDITS, Wanted};
use super::source::{root_of, sole_owner};
use crate::cluster::Cluster;

/// Owner and objects of some edits.
pub(super) struct Scope<'a> {
    pub cluster: &'a Cluster,
    pub owner: countersign_core::model::OwnerRef,
    pub wanted: Vec<Wanted>,
    /// The edits as they are kept: owner and file of each adoption written out.
    pub edits: Vec<Edit>,
}

impl Pipeline {
    /// Cluster, owner and objects; or the answer that asks for a choice.
    pub(super) async fn scope(&self, who: &Principal, args: &OperateArgs) -> Result<Result<Scope<'_>, ChangeAnswer>> {
        if args.edits.is_empty() || args.edits.len() > MAX_EDITS {
            return Err(Problem::new(
                "input.edits",
                format!("A change has 1 to {MAX_EDITS} edits."),
                "Send the edits that belong together; split the rest.",
            ));
        }
        let mut name: Option<String> = None;
        for e in &args.edits {
            let target = e.target()?;
            self.may_see(who, &target)?;
            if name.get_or_insert_with(|| target.cluster.clone()) != &target.cluster {
                return Err(split("clusters"));
            }
        }
        let cluster = self.cluster(name.as_deref().unwrap_or_default())?;
        let edits = match self.placed(who, cluster, args).await? {
            Ok(edits) => edits,
            Err(answer) => return Ok(Err(answer)),
        };
        let mut owners = Vec::new();
        let mut wanted = Vec::new();
        for e in &edits {
            let (owner, w) = match self.one(cluster, e).await {
                Ok(one) => one,
                Err(problem) if problem.code == "owner.unmanaged" => {
                    let key = cluster.key_of(&e.target()?).await?;
                    return Ok(Err(self.offered(who, cluster, &key, (&e.target, problem, args)).await));
                }
                Err(problem) => return Err(problem),
            };
            for w in w.iter().filter(|w| matches!(w.op, Operation::Scale(_))) {
                if let Some(answer) = self.autoscaled(cluster, w, args).await? {
                    return Ok(Err(answer));
                }
            }
            owners.push(owner);
            wanted.extend(w);
        }
        let distinct: BTreeSet<_> = owners.iter().collect();
        if distinct.len() > 1 {
            return Ok(Err(several_owners(args, &owners)));
        }
        let Some(owner) = owners.into_iter().next() else { return Err(split("owners")) };
        Ok(Ok(Scope { cluster, owner, wanted, edits }))
    }

    /// One edit's owner and object, read fresh.
    async fn one(&self, cluster: &Cluster, e: &Edit) -> Result<(countersign_core::model::OwnerRef, Vec<Wanted>)> {
        let op = e.operation()?;
        let key = cluster.key_of(&e.target()?).await?;
        if let Operation::Create(c) = &op {
            if cluster.read(&key).await?.is_some()
                && cluster.locate_key(&key).await.is_ok_and(|l| sole_owner(&l.ownership).is_ok())
            {
                return Err(Problem::new(
                    "create.exists",
                    format!("{key} exists and has an owner."),
                    "Change it with the other operations.",
                ));
            }
            let owner = self.named_owner(cluster, &c.owner).await?;
            return Ok((owner, vec![Wanted { key, live: None, op, made: None, founded: None }]));
        }
        if let Operation::Adopt(a) = &op {
            let owner = self.named_owner(cluster, a.owner.as_deref().unwrap_or_default()).await?;
            let wanted = self.wanted_adoption(cluster, &owner, key, op).await?;
            return Ok((owner, wanted));
        }
        let located = cluster.owner_of_fresh(&key).await?;
        let owner = sole_owner(&located.ownership)?;
        let root = root_of(&located.ownership);
        if *root != key {
            // Never another object than the one asked for.
            return Err(derived(&key, root, cluster));
        }
        Ok((owner, vec![Wanted { key, live: located.object, op, made: None, founded: None }]))
    }

    /// `Application argocd/shop` of a create.
    pub(super) async fn named_owner(&self, cluster: &Cluster, text: &str) -> Result<countersign_core::model::OwnerRef> {
        let known = cluster.owners().await?;
        let hit =
            known.iter().find(|l| format!("{} {}/{}", l.owner.kind, l.owner.namespace, l.owner.name) == text.trim());
        hit.map(|l| l.owner.clone()).ok_or_else(|| {
            let names = known.iter().map(|l| format!("{} {}/{}", l.owner.kind, l.owner.namespace, l.owner.name));
            Problem::new(
                "create.owner",
                format!("There is no owner \"{}\".", message::escape_name(text)),
                "Name one of the owners in the evidence, as `Application namespace/name` or `Kustomization namespace/name`.",
            )
            .with_all(names.take(20))
        })
    }

    /// An autoscaler owns the replica count: an edit of `replicas` would be a no-op or a fight.
    async fn autoscaled(&self, cluster: &Cluster, w: &Wanted, args: &OperateArgs) -> Result<Option<ChangeAnswer>> {
        let (Operation::Scale(s), Some(by)) = (&w.op, cluster.hpa_for(&w.key).await?) else { return Ok(None) };
        let ns = &w.key.namespace;
        let target = format!("{}/{ns}/{}/{}", cluster.name(), by.key.kind, by.key.name);
        let [min_pointer, max_pointer] = by.pointers;
        let shown = |n: Option<i64>| n.map_or_else(|| "its default".to_owned(), |n| n.to_string());
        let call = |pointer: &str, value: u32| json!({"edits": [{"target": target, "set_field": {"pointer": pointer, "value": value}}], "reason": args.reason});
        let mut answer = ChangeAnswer::new(
            Outcome::NeedsChoice,
            format!(
                "{} sets the replicas of {} (now {} to {}); choose which bound to change.",
                by.key,
                w.key,
                shown(by.min),
                shown(by.max)
            ),
        );
        answer.choices = vec![
            Choice {
                what: format!("At least {} replicas", s.replicas),
                tool: "operate".into(),
                args: call(min_pointer, s.replicas),
            },
            Choice {
                what: format!("At most {} replicas", s.replicas),
                tool: "operate".into(),
                args: call(max_pointer, s.replicas),
            },
        ];
        Ok(Some(answer))
    }

    /// Tools see only what the principal may see.
    pub(super) fn may_see(&self, who: &Principal, target: &countersign_core::model::ResourceRef) -> Result<()> {
        let config = self.config.load();
        let sees = config.agents.iter().find(|a| a.name == who.agent).map(|a| a.spec.sees.clone()).unwrap_or_default();
        let fits = |pattern: &str| {
            let (c, n) = pattern.split_once('/').unwrap_or((pattern, "*"));
            let one =
                |p: &str, v: &str| p == "*" || p == v || p.strip_suffix('*').is_some_and(|pre| v.starts_with(pre));
            one(c, &target.cluster) && one(n, &target.namespace)
        };
        if sees.is_empty() || sees.iter().any(|p| fits(p)) {
            return Ok(());
        }
        Err(Problem::new(
            "agent.not_visible",
            "This agent may not see that namespace.",
            "Ask the platform team to add it to `sees` of the Agent.",
        )
        .never())
    }
}

/// The object asked for has no manifest: another one makes it.
pub(super) fn derived(key: &ObjectKey, root: &ObjectKey, cluster: &Cluster) -> Problem {
    Problem::new(
        "target.derived",
        format!("{key} is made by {root}; it has no manifest of its own."),
        format!("Ask for {root} instead."),
    )
    .with(format!(
        "target: {}/{}/{}/{}",
        cluster.name(),
        if root.namespace.is_empty() { "-" } else { &root.namespace },
        root.kind,
        root.name
    ))
}

pub(super) fn split(what: &str) -> Problem {
    Problem::new(
        "change.several_repositories",
        format!("The edits are in several {what}."),
        "Send one change for each.",
    )
}

/// One change = one owner: the split is ready to send.
fn several_owners(args: &OperateArgs, owners: &[countersign_core::model::OwnerRef]) -> ChangeAnswer {
    let mut answer = ChangeAnswer::new(
        Outcome::NeedsChoice,
        "The edits belong to several owners; a change has one. Send them one after the other.",
    );
    let distinct: BTreeSet<_> = owners.iter().collect();
    for owner in distinct {
        let edits: Vec<&Edit> = args.edits.iter().zip(owners).filter(|(_, o)| *o == owner).map(|(e, _)| e).collect();
        answer.choices.push(Choice {
            what: format!("The edits of {owner}"),
            tool: "operate".into(),
            args: json!({"edits": edits, "reason": args.reason}),
        });
    }
    answer
}
