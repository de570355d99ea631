//! seal: a plan and its decision become the change that people see and the digest binds.

use countersign_core::message::{self, CardFacts, FileFact};
use countersign_core::model::{ChangeId, Proposal, Sealed, SealedFile, short_name};
use countersign_core::policy::{Decision, Facts};

use super::plan::Plan;
use super::propose::Draft;

pub(super) fn proposal(draft: &Draft, plan: &Plan, facts: &Facts) -> Proposal {
    Proposal {
        requester: draft.who.clone(),
        key: draft.key.clone(),
        content_key: draft.content_key.clone(),
        reason: draft.reason.clone(),
        edits: draft.edits.clone(),
        cluster: plan.cluster.clone(),
        owner: plan.owner.clone(),
        source: plan.source.clone(),
        repository: plan.repository.clone(),
        git_ref: plan.git_ref.clone(),
        base: plan.base.clone(),
        fields: plan.fields.clone(),
        want: plan.want.clone(),
        state: plan.state.clone(),
        risk: plan.risk.clone(),
        diff: plan.diff.clone(),
        reverts: draft.reverts,
        health: plan.health.clone(),
        last_healthy: plan.last_healthy.clone(),
        files: plan.notes_of_files.clone(),
        notes: plan.notes.clone(),
        targets: serde_json::to_value(&plan.targets).unwrap_or_default(),
        objects: facts.objects,
        privileged: facts.privileged.clone(),
        facts: serde_json::to_value(facts).unwrap_or_default(),
    }
}

pub(super) fn seal(
    draft: &Draft,
    plan: &Plan,
    decision: &Decision,
    id: ChangeId,
    expires_at: i64,
    nonce: String,
) -> Sealed {
    let facts = sealed_card(draft, plan, decision, id, expires_at);
    let operations: Vec<&str> = draft.edits.iter().filter_map(|e| e.operation().ok()).map(|o| o.name()).collect();
    let mut files: Vec<SealedFile> = plan
        .files
        .iter()
        .map(|f| SealedFile {
            path: f.path.clone(),
            mode: f.mode.clone(),
            before: f.before.as_ref().map(|(oid, _)| oid.clone()),
            after: f.after_blob(),
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Sealed {
        schema: 1,
        change: id,
        revision: 1,
        repository: plan.repository.clone(),
        git_ref: plan.git_ref.clone(),
        files,
        effect: plan
            .fields
            .iter()
            .map(|l| countersign_core::model::EffectLine {
                object: l.object.to_string(),
                pointer: l.pointer.clone(),
                before: l.before.as_ref().map(ToString::to_string),
                after: l.after.as_ref().map(ToString::to_string),
            })
            .collect(),
        message: message::card(&facts).text.text,
        policy_version: decision.decided.policy_version.clone(),
        rules: decision.decided.rules.clone(),
        delivery: decision.decided.delivery,
        risk: plan.risk.clone(),
        requester: draft.who.agent.clone(),
        sponsor: draft.who.sponsor.clone(),
        quorum: decision.decided.quorum.clone(),
        expires_at,
        nonce,
        commit_message: message::commit_message(&facts, &operations),
    }
}

pub(super) fn sealed_card(draft: &Draft, plan: &Plan, decision: &Decision, id: ChangeId, expires_at: i64) -> CardFacts {
    CardFacts {
        name: short_name(&id),
        cluster: plan.cluster.clone(),
        risk: plan.risk.clone(),
        expires_at,
        fields: plan.fields.clone(),
        now: plan.health.clone(),
        last_healthy: plan.last_healthy.clone(),
        owner: plan.owner.clone(),
        state: plan.state.clone(),
        also_feeds: Vec::new(),
        repository: plan.repository.clone(),
        branch: plan.git_ref.trim_start_matches("refs/heads/").to_owned(),
        files: plan
            .notes_of_files
            .iter()
            .map(|f| FileFact { path: f.path.clone(), line: f.line, added: f.added, removed: f.removed })
            .collect(),
        diff: plan.diff.clone(),
        delivery: decision.decided.delivery,
        pull_request: None,
        approvers: decision.decided.approvers.clone(),
        later: decision.decided.obligations.escalate.clone(),
        approved_by: Vec::new(),
        number: None,
        viewer: None,
        needed: decision.decided.quorum.count,
        seats: message::Seats::of(&decision.decided, &[]),
        allow_sponsor: decision.decided.quorum.allow_sponsor,
        requester: draft.who.agent.clone(),
        sponsor: draft.who.sponsor.clone(),
        rules: decision.decided.rules.clone(),
        digest: None,
        reverts: draft.reverts.as_ref().map(short_name),
        notes: plan.notes.clone(),
        reason: draft.reason.clone(),
    }
}
