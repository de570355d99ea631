//! propose: an agent's `operate` becomes a plan, a decision and a sealed change in the journal.
//! The tool answers now; everything after runs in the change's own worker.

use std::collections::BTreeSet;

use countersign_core::change::{Change, Load, REJECTED_MS, State, Wish, no_overlap, rejected_recently, room};
use countersign_core::message::{self, CardFacts, FileFact};
use countersign_core::model::{
    Body, ChangeAnswer, ChangeId, Choice, DecisionView, Edit, Ending, Level, ObjectKey, OperateArgs, Operation,
    Outcome, Principal, Proposal, Sealed, SealedFile, digest_of, hex, short_name,
};
use countersign_core::policy::{Decision, Facts, asks};
use countersign_core::{Problem, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::plan::{MAX_EDITS, Plan, Wanted};
use super::source::{root_of, sole_owner};
use super::{Pipeline, fault};
use crate::cluster::Cluster;
use crate::journal::Entry;

/// Characters of the agent's reason that are kept.
const REASON: usize = 300;
/// Longest wait for a decision.
const MAX_EXPIRES_S: u32 = 24 * 3600;

/// Owner and objects of some edits.
pub(super) struct Scope<'a> {
    pub cluster: &'a Cluster,
    pub owner: countersign_core::model::OwnerRef,
    pub wanted: Vec<Wanted>,
    /// The edits as they are kept: owner and file of each adoption written out.
    pub edits: Vec<Edit>,
}

impl Pipeline {
    /// The tool `operate`.
    pub async fn operate(&self, who: &Principal, args: OperateArgs) -> Result<ChangeAnswer> {
        let reason = self.reason(&args.reason)?;
        if !args.plan_only
            && let Some(known) = self.known(who, args.key.as_deref(), &args.edits).await?
        {
            return self.answer_for(who, &known).await;
        }
        let most = self.config.load().bootstrap.approvals.proposals_per_minute;
        self.pace.step(&who.agent, self.clock.now_ms(), usize::try_from(most).unwrap_or(usize::MAX))?;
        let scope = match self.scope(who, &args).await? {
            Ok(scope) => scope,
            Err(answer) => return Ok(answer),
        };
        let place = self.place(scope.cluster, &scope.owner).await?;
        let at = self.clock.now_ms();
        let mut plan = self.plan(scope.cluster, place, &scope.wanted, &crate::clock::rfc3339(at)).await?;
        plan.notes.extend(stands_between(&plan));
        let draft = Draft {
            who: who.clone(),
            reason,
            key: args.key,
            content_key: content_key(who, &scope.edits)?,
            edits: scope.edits,
            reverts: None,
            wanted_by: None,
            at,
        };
        self.conclude(draft, plan, args.plan_only).await
    }

    /// Redacted and capped; control characters are shown, not passed on.
    pub(super) fn reason(&self, text: &str) -> Result<String> {
        if text.trim().is_empty() {
            return Err(Problem::new(
                "input.reason",
                "The call gives no reason.",
                "Say in one sentence why the change is needed; people read it.",
            ));
        }
        let clean = self.redactor.redact_text(text.trim());
        Ok(clean.chars().take(REASON).collect())
    }

    /// The same call again gives the same change again: explicit keys for ever, derived ones while it is open.
    async fn known(&self, who: &Principal, key: Option<&str>, edits: &[Edit]) -> Result<Option<Change>> {
        let now = self.clock.now_ms();
        let written = content_key(who, edits)?;
        // Owner and file of an adoption may be left open: whoever writes them out asks for the same.
        let open = edits.iter().any(|e| e.adopt.as_ref().is_some_and(|a| a.owner.is_none() || a.path.is_none()));
        let asks_for = |c: &Change| {
            c.proposal.content_key == written
                || open
                    && content_key(who, &super::adopt::filled(edits, &c.proposal.edits))
                        .is_ok_and(|k| k == c.proposal.content_key)
        };
        self.journal
            .read(|view| {
                for c in view.changes.values().filter(|c| c.proposal.requester.agent == who.agent) {
                    if key.is_some() && c.proposal.key.as_deref() == key {
                        if asks_for(c) {
                            return Ok(Some((**c).clone()));
                        }
                        return Err(Problem::new(
                            "input.key_reused",
                            format!("The key was used for {}, which asks for something else.", c.name()),
                            "Use a new key for a new change.",
                        ));
                    }
                    if key.is_none() && c.is_open() && asks_for(c) {
                        return Ok(Some((**c).clone()));
                    }
                }
                rejected_lately(view.changes.values().map(AsRef::as_ref), asks_for, now)?;
                Ok(None)
            })
            .await
    }

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

    /// Policy, seal, journal; or only the answer, where nothing is to be written.
    pub(super) async fn conclude(&self, draft: Draft, mut plan: Plan, plan_only: bool) -> Result<ChangeAnswer> {
        plan.last_healthy = self.last_healthy(&plan).await;
        let config = self.config.load();
        let ruled = self.decide(&config, &draft.who, &plan).await;
        let decision = &ruled.decision;
        let id = ulid::Ulid::generate();
        if plan_only {
            return Ok(planned(&plan, decision));
        }
        if decision.decided.level == Level::Deny {
            let problem = refusal(decision);
            let mut answer = planned(&plan, decision);
            answer.outcome = Outcome::Refused;
            answer.summary.clone_from(&problem.message);
            answer.problem = Some(problem.with_all(decision.why.iter().cloned()));
            return Ok(answer);
        }
        let proposal = proposal(&draft, &plan, &ruled.facts);
        let nonce: [u8; 16] = rand::random();
        let expires_s = decision.decided.expires_s.min(MAX_EXPIRES_S);
        let expires_at = draft.at / 1000 + i64::from(expires_s);
        let sealed = seal(&draft, &plan, decision, id, expires_at, hex(&nonce));
        let canonical = String::from_utf8(sealed.canonical()?).map_err(|_| {
            Problem::new("gate.seal", "The change could not be sealed.", "Report this as a bug.").never()
        })?;
        let digest = digest_of(canonical.as_bytes());
        let blobs: Vec<(String, Vec<u8>)> =
            plan.files.iter().filter_map(|f| Some((f.after_blob()?, f.after.clone()?))).collect();
        let body = Body::Proposed {
            proposal: Box::new(proposal),
            decided: Box::new(decision.decided.clone()),
            sealed: canonical,
            digest,
        };
        fault::point("before_proposed");
        let actor = format!("agent:{}", draft.who.agent);
        let content_key = draft.content_key.clone();
        let load = self.load();
        let asks_people = decision.decided.level == Level::Prompted;
        let existing = self
            .journal
            .transact(draft.at, &blobs, |view| {
                if view.stopped.is_some() {
                    return Err(Problem::new(
                        "gate.stopped",
                        "The emergency stop is on.",
                        "Wait until a person resumes.",
                    )
                    .later());
                }
                if let Some(c) = view.changes.values().find(|c| {
                    c.is_open()
                        && c.proposal.content_key == content_key
                        && c.proposal.requester.agent == draft.who.agent
                }) {
                    return Ok((Some(c.id), Vec::new()));
                }
                let all = view.changes.values().map(AsRef::as_ref);
                no_overlap(all.clone(), &wish(&draft, &plan, decision))?;
                if asks_people && draft.wanted_by.is_none() {
                    room(all, &wish(&draft, &plan, decision), draft.at, &load)?;
                }
                // Whoever came first meanwhile has used a part of the quota.
                if let Some(now) = ruled.again(&config, view, &plan).filter(|d| d.decided.level == Level::Deny) {
                    return Err(refusal(&now));
                }
                Ok((None, vec![Entry::of(id, &actor, body)]))
            })
            .await?;
        fault::point("after_proposed");
        let id = existing.unwrap_or(id);
        let Some(change) = self.journal.change(id).await else { return Err(super::unknown_change()) };
        self.answer_for(&draft.who, &change).await
    }

    fn load(&self) -> Load {
        let a = &self.config.load().bootstrap.approvals;
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Load {
            per_agent: count(a.pending_per_agent),
            per_person: count(a.pending_per_person),
            cooldown_ms: i64::from(a.cooldown_s) * 1000,
            ..Load::default()
        }
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

/// Everything about a proposal that is not the plan.
pub(super) struct Draft {
    pub who: Principal,
    pub reason: String,
    pub key: Option<String>,
    pub content_key: String,
    pub edits: Vec<Edit>,
    pub reverts: Option<ChangeId>,
    /// The person who asked for it, by a button: what limits agents does not limit people.
    pub wanted_by: Option<String>,
    pub at: i64,
}

/// Why a decision refuses a change.
fn refusal(decision: &Decision) -> Problem {
    decision.problem.clone().unwrap_or_else(|| {
        Problem::new("policy.denied", "The policy denies this change.", "Ask the people who write the policy.").never()
    })
}

fn proposal(draft: &Draft, plan: &Plan, facts: &Facts) -> Proposal {
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

/// SHA-256 of agent and edits.
pub(super) fn content_key(who: &Principal, edits: &[Edit]) -> Result<String> {
    let text = serde_json::to_vec(&(&who.agent, edits))
        .map_err(|e| Problem::new("input.edits", format!("The edits cannot be read: {e}."), "Send them again."))?;
    Ok(hex(&Sha256::digest(&text)))
}

fn rejected_lately<'a>(
    changes: impl Iterator<Item = &'a Change>,
    asks_for: impl Fn(&Change) -> bool,
    now: i64,
) -> Result<()> {
    for c in changes {
        let rejected = c.end.as_ref().filter(|e| e.ending == Ending::Rejected && now - e.at < REJECTED_MS);
        if let Some(end) = rejected.filter(|_| asks_for(c)) {
            return Err(rejected_recently(c, &end.say));
        }
    }
    Ok(())
}

fn wish<'a>(draft: &'a Draft, plan: &'a Plan, decision: &'a Decision) -> Wish<'a> {
    Wish {
        agent: &draft.who.agent,
        cluster: &plan.cluster,
        repository: &plan.repository,
        git_ref: &plan.git_ref,
        fields: &plan.fields,
        approvers: &decision.decided.approvers,
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

/// What people and agents are told before anybody is asked.
pub(super) fn stands_between(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(s) = &plan.state.suspended {
        out.push(format!("{s}: until a person changes that, the commit is not applied."));
    }
    if let Some(w) = &plan.state.window {
        out.push(format!("A sync window holds syncs back now: {w}."));
    }
    out.extend(plan.state.notes.iter().map(|n| format!("{}: {n}.", plan.owner)));
    out
}

fn seal(draft: &Draft, plan: &Plan, decision: &Decision, id: ChangeId, expires_at: i64, nonce: String) -> Sealed {
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

fn sealed_card(draft: &Draft, plan: &Plan, decision: &Decision, id: ChangeId, expires_at: i64) -> CardFacts {
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

/// The answer of `plan_only`, and the facts of a refusal by policy.
fn planned(plan: &Plan, decision: &Decision) -> ChangeAnswer {
    let d = &decision.decided;
    let mut answer = ChangeAnswer::new(
        Outcome::Planned,
        message::state_summary("planned", &message::what_short(&plan.fields), &plan.owner.to_string()),
    );
    answer.owner = Some(plan.owner.clone());
    answer.files =
        plan.notes_of_files.iter().map(|f| super::story::file_line(&plan.repository, &plan.git_ref, f)).collect();
    answer.fields = super::story::field_changes(&plan.fields);
    answer.diff = Some(plan.diff.clone());
    answer.risk = Some(plan.risk.clone());
    answer.decision =
        Some(DecisionView { level: d.level, delivery: d.delivery, rules: d.rules.clone(), asks: asks(d) });
    answer.notes = plan.notes.iter().chain(&decision.why).cloned().collect();
    // A plan that would be refused says so with the very code of the refusal.
    answer.problem.clone_from(&decision.problem);
    answer
}

/// Whether a change can still be withdrawn.
pub(super) fn withdrawable(c: &Change) -> bool {
    c.is_open() && !c.is_leaving() && !matches!(c.state(), State::Observing)
}
