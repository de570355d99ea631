//! decide: the policy's word on a plan, and later on the same change again.

use std::collections::BTreeMap;

use countersign_core::Result;
use countersign_core::change::Change;
use countersign_core::model::{LeafChange, Principal};
use countersign_core::policy::{Counts, Decision, Facts, Past, Target, count, decide, privileged};

use super::Pipeline;
use super::plan::Plan;
use crate::config::Config;
use crate::journal::View;

pub(super) fn labels_of<'c, T>(
    list: &'c [countersign_core::model::Named<T>],
    name: &str,
    labels: impl Fn(&'c T) -> &'c BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    list.iter().find(|n| n.name == name).map(|n| labels(&n.spec).clone()).unwrap_or_default()
}

/// Facts that the policy decides about; nothing in them comes from an agent's words.
fn facts(config: &Config, who: &Principal, plan: &Plan, now: i64, counts: Counts) -> Facts {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let extra = config
        .repositories
        .iter()
        .find(|r| r.name == plan.repository)
        .map(|r| r.spec.privileged_paths.clone())
        .unwrap_or_default();
    Facts {
        targets: plan.targets.clone(),
        cluster: plan.cluster.clone(),
        cluster_labels: labels_of(&config.clusters, &plan.cluster, |c| &c.labels),
        repository: plan.repository.clone(),
        repository_labels: labels_of(&config.repositories, &plan.repository, |r| &r.labels),
        agent: who.agent.clone(),
        sponsor: who.sponsor.clone(),
        risk: plan.risk.level,
        files: count(plan.files.len()),
        lines: plan.notes_of_files.iter().map(|f| f.added + f.removed).sum(),
        objects: count(plan.objects),
        privileged: privileged(
            plan.files.iter().map(|f| f.path.as_str()),
            plan.fields.iter().map(|l| &l.object),
            &extra,
        ),
        now,
        counts,
    }
}

/// What the quotas have counted of the journal's changes, as far as `before` lets them count.
pub(super) fn counted(
    config: &Config,
    view: &View,
    (agent, cluster, fields): (&str, &str, &[LeafChange]),
    now: i64,
    before: impl Fn(&Change) -> bool,
) -> Counts {
    let past = view.changes.values().filter(|c| before(c)).map(|c| Past {
        at: c.proposed_at,
        rules: &c.decided.rules,
        agent: &c.proposal.requester.agent,
        same_target: c.proposal.cluster == cluster
            && c.proposal.fields.iter().any(|l| fields.iter().any(|m| m.object == l.object)),
    });
    count(config.policies.rules(), agent, now, past)
}

/// A plan's decision with everything that it was made on.
pub(super) struct Ruled {
    pub facts: Facts,
    pub decision: Decision,
}

impl Ruled {
    /// The same with what the journal holds right now; `None` = nothing was counted meanwhile.
    pub(super) fn again(&self, config: &Config, view: &View, plan: &Plan) -> Option<Decision> {
        let f = &self.facts;
        let counts = counted(config, view, (&f.agent, &plan.cluster, &plan.fields), f.now, |_| true);
        (counts != f.counts).then(|| decide(&config.policies, &config.people, &Facts { counts, ..f.clone() }))
    }
}

impl Pipeline {
    pub(super) async fn decide(&self, config: &Config, who: &Principal, plan: &Plan) -> Ruled {
        let now = self.clock.now_ms();
        let about = (who.agent.as_str(), plan.cluster.as_str(), plan.fields.as_slice());
        let counts = self.journal.read(|view| counted(config, view, about, now, |_| true)).await;
        let facts = facts(config, who, plan, now, counts);
        Ruled { decision: decide(&config.policies, &config.people, &facts), facts }
    }

    /// The policy of this moment on a change that was decided before. Facts come from the sealed
    /// change, so that nothing but the policy, the time and the configuration can differ.
    pub(super) async fn decide_again(&self, change: &Change, config: &Config) -> Result<Decision> {
        let p = &change.proposal;
        let targets: Vec<Target> = serde_json::from_value(p.targets.clone()).map_err(|e| {
            countersign_core::Problem::new(
                "gate.stale",
                format!("The stored facts of the change cannot be read: {e}."),
                "Propose it again.",
            )
            .never()
        })?;
        let now = self.clock.now_ms();
        let about = (p.requester.agent.as_str(), p.cluster.as_str(), p.fields.as_slice());
        // Neither itself nor what came after it: a later proposal takes nothing from an earlier one.
        let earlier = |c: &Change| (c.proposed_at, c.id) < (change.proposed_at, change.id);
        let counts = self.journal.read(|view| counted(config, view, about, now, earlier)).await;
        let facts = Facts {
            targets,
            cluster: p.cluster.clone(),
            cluster_labels: labels_of(&config.clusters, &p.cluster, |c| &c.labels),
            repository: p.repository.clone(),
            repository_labels: labels_of(&config.repositories, &p.repository, |r| &r.labels),
            agent: p.requester.agent.clone(),
            sponsor: p.requester.sponsor.clone(),
            risk: p.risk.level,
            files: u32::try_from(p.files.len()).unwrap_or(u32::MAX),
            lines: p.files.iter().map(|f| f.added + f.removed).sum(),
            objects: p.objects,
            privileged: p.privileged.clone(),
            now,
            counts,
        };
        // A freeze that a person broke the glass of holds nothing back; every rule does.
        let broken = change.broken_glass(now).filter(|g| config.may_break_glass().contains(&g.person));
        Ok(match broken {
            Some(_) => decide(&config.policies.without_freezes(), &config.people, &facts),
            None => decide(&config.policies, &config.people, &facts),
        })
    }
}
