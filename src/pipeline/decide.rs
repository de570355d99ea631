//! decide: the policy's word on a plan, and later on the same change again.

use std::collections::BTreeMap;

use countersign_core::Result;
use countersign_core::change::Change;
use countersign_core::model::Principal;
use countersign_core::policy::{Decision, Facts, Target, decide, privileged};

use super::Pipeline;
use super::plan::Plan;
use crate::config::Config;

pub(super) fn labels_of<'c, T>(
    list: &'c [countersign_core::model::Named<T>],
    name: &str,
    labels: impl Fn(&'c T) -> &'c BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    list.iter().find(|n| n.name == name).map(|n| labels(&n.spec).clone()).unwrap_or_default()
}

/// Facts that the policy decides about; nothing in them comes from an agent's words.
pub(super) fn facts(config: &Config, who: &Principal, plan: &Plan) -> Facts {
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
    }
}

impl Pipeline {
    pub(super) fn decide(&self, config: &Config, who: &Principal, plan: &Plan) -> Decision {
        decide(&config.policies, &config.people, &facts(config, who, plan))
    }

    /// The policy of this moment on a change that was decided before. Facts come from the sealed
    /// change, so that nothing but the policy can differ.
    pub(super) fn decide_again(&self, change: &Change, config: &Config) -> Result<Decision> {
        let p = &change.proposal;
        let targets: Vec<Target> = serde_json::from_value(p.targets.clone()).map_err(|e| {
            countersign_core::Problem::new(
                "gate.stale",
                format!("The stored facts of the change cannot be read: {e}."),
                "Propose it again.",
            )
            .never()
        })?;
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
        };
        Ok(decide(&config.policies, &config.people, &facts))
    }
}
