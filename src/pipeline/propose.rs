//! propose: an agent's `operate` becomes a plan, a decision and a sealed change in the journal.
//! The tool answers now; everything after runs in the change's own worker.

use countersign_core::change::{Change, Load, REJECTED_MS, State, Wish, no_overlap, rejected_recently, room};
use countersign_core::message;
use countersign_core::model::{
    Body, ChangeAnswer, ChangeId, DecisionView, Edit, Ending, Level, OperateArgs, Outcome, Principal, digest_of, hex,
};
use countersign_core::policy::{Decision, asks};
use countersign_core::{Problem, Result};
use sha2::{Digest as _, Sha256};

use super::plan::Plan;
use super::seal::{proposal, seal};
use super::{Pipeline, fault};
use crate::journal::Entry;

/// Characters of the agent's reason that are kept.
const REASON: usize = 300;
/// Longest wait for a decision.
const MAX_EXPIRES_S: u32 = 24 * 3600;

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
