//! commit: the blobs are compared again, the gate is asked again, the commit is built, signed and
//! pushed under a lease on the very base that it was proved on.

use std::time::Duration;

use countersign_core::change::Change;
use countersign_core::gate::{self, Authorization};
use countersign_core::model::{Body, ChangeId, Ending};
use countersign_core::{Problem, Result, message};
use serde_json::{Value, json};

use super::{ACTOR, Held, Pipeline, RepoHandle, fault};
use crate::git::{CommitRequest, FileChange, Identity};
use crate::journal::Entry;

/// How many commits are searched for one of ours after a lost race or a crash.
const SEARCH: usize = 500;
/// How old the tip may be that a push is prepared on: the gate's first look a moment ago need not be
/// repeated, because the push is leased on that very tip and fails where the branch has moved since.
const PREPARED_ON: Duration = Duration::from_secs(1);

/// What the branch says about a change that is to be pushed.
pub(super) enum Base {
    /// It can be built on this tip.
    Ready(String),
    /// It is on the branch already.
    Landed(String),
}

impl Pipeline {
    /// Asks the gate with what is true now.
    pub(super) async fn gate(&self, change: &Change, base: &str) -> Result<Authorization> {
        let repo = self.repo(&change.sealed.repository)?;
        let owner = self.owner_now(change).await?;
        let mut blobs = Vec::with_capacity(change.sealed.files.len());
        for f in &change.sealed.files {
            let blob = repo.git.blob(base, &f.path).await?.map(|t| t.id);
            blobs.push((f.path.clone(), blob));
        }
        let config = self.config.load();
        let decision = self.decide_again(change, &config).await?;
        let sponsor = config.principal(&change.sealed.requester).map(|p| p.sponsor);
        let stopped = self.journal.read(|v| v.stopped.is_some()).await;
        gate::authorize(
            change,
            &gate::Now {
                now: self.clock.now_ms(),
                stopped,
                decided: &decision.decided,
                denied: decision.problem.as_ref().map(|p| p.message.as_str()),
                people: &config.people,
                glass: &config.may_break_glass(),
                sponsor: sponsor.as_deref(),
                owner: &owner,
                blobs: &blobs,
            },
        )
    }

    /// `Step::Authorize`: the gate's first look; each effect asks it again.
    pub(super) async fn authorize(&self, change: &Change) -> Result<()> {
        let base = match self.fresh_base(change, Duration::ZERO).await {
            Ok(Base::Ready(tip)) => tip,
            Ok(Base::Landed(commit)) => return self.found_landed(change, commit).await,
            Err(problem) => return self.stale_or_later(change, problem).await,
        };
        if needs_new_approval(change, &base) {
            return self.close(change, Ending::Stale, MOVED.into()).await;
        }
        match self.gate(change, &base).await {
            Ok(auth) => {
                // What was proved on a moved base need not be proved there again.
                let mut bodies = if base == change.base { Vec::new() } else { vec![Body::Rebased { base }] };
                bodies.push(Body::Authorized {
                    digest: auth.digest().clone(),
                    by: auth.by().to_vec(),
                    policy_version: self.config.load().policies.version().to_owned(),
                });
                let n = change.n;
                let id = change.id;
                fault::point("before_authorized");
                self.journal
                    .transact(self.clock.now_ms(), &[], |view| {
                        if view.stopped.is_some() || view.changes.get(&id).is_none_or(|c| c.n != n) {
                            return Ok(((), Vec::new()));
                        }
                        Ok(((), bodies.into_iter().map(|body| Entry::of(id, ACTOR, body)).collect()))
                    })
                    .await?;
                self.held_back(id, None);
                fault::point("after_authorized");
                Ok(())
            }
            Err(problem) => self.stale_or_later(change, problem).await,
        }
    }

    /// A problem that will not go away ends the change; any other is tried again shortly.
    pub(super) async fn stale_or_later(&self, change: &Change, problem: Problem) -> Result<()> {
        // Without its branch a change has no place any more; it must not be made again.
        if matches!(problem.code.as_ref(), "gate.stale" | "git.branch_missing")
            || problem.retry == countersign_core::Retry::Never
        {
            return self.close(change, Ending::Stale, problem.message).await;
        }
        if self.clock.now_ms() >= change.sealed.expires_at * 1000 {
            return self.close(change, Ending::Undelivered, problem.message).await;
        }
        tracing::info!(change = %change.id, code = %problem.code, "{}", problem.message);
        self.held_back(change.id, Some(problem));
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        Ok(())
    }

    /// Keeps what an approved change waits for, for whoever asks; `None` = nothing any more.
    pub(super) fn held_back(&self, id: ChangeId, problem: Option<Problem>) {
        let Ok(mut held) = self.held.lock() else { return };
        match problem {
            Some(problem) => {
                let since = held.get(&id).map_or_else(|| self.clock.now_ms(), |h| h.since);
                held.insert(id, Held { since, problem });
            }
            None => drop(held.remove(&id)),
        }
    }

    /// The tip to build on. A tip that moved is good only if it descends from the base, our files
    /// are untouched, and proving the edit anew on it gives the same effect. What the remote said may
    /// be `age` old.
    pub(super) async fn fresh_base(&self, change: &Change, age: Duration) -> Result<Base> {
        let repo = self.repo(&change.sealed.repository)?;
        let branch = &change.sealed.git_ref;
        let tip = repo.git.fetch_within(branch, age).await?;
        let id = change.id.to_string();
        if let Some(ours) = repo.git.find_commit_by_trailer(branch, "Countersign-Change", &id, SEARCH).await?
            && unlike_sealed(change, repo, &ours.id).await?.is_none()
        {
            return Ok(Base::Landed(ours.id));
        }
        if tip == change.base {
            return Ok(Base::Ready(tip));
        }
        let stale = |why: &str| {
            Problem::new("gate.stale", why, "Propose the change again; it will be planned on what is true now.").never()
        };
        if !repo.git.has_commit(&change.base).await? || !repo.git.is_ancestor(&change.base, &tip).await? {
            return Err(stale("The branch was rewound or rewritten since the change was shown."));
        }
        let paths: Vec<String> = change.sealed.files.iter().map(|f| f.path.clone()).collect();
        if !repo.git.touched_blobs_equal(&change.base, &tip, &paths).await? {
            return Err(stale("A later commit touches the same files."));
        }
        self.prove_again(change, &tip).await?;
        Ok(Base::Ready(tip))
    }

    async fn found_landed(&self, change: &Change, commit: String) -> Result<()> {
        let body = Body::Landed { commit, via: "found".into() };
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await
    }

    /// The sealed message with the trailers that follow approval.
    pub(super) async fn full_message(&self, change: &Change, auth: &Authorization) -> String {
        let head = self.journal.head().await;
        message::with_trailers(
            &change.sealed.commit_message,
            &message::Trailers {
                change: change.id.to_string(),
                digest: change.digest.0.clone(),
                requested_by: change.sealed.requester.clone(),
                approved_by: auth.by().to_vec(),
                glass: change.glass.as_ref().map(|g| g.person.clone()).filter(|p| auth.by() == [p.as_str()]),
                policy: format!("{}@{}", change.sealed.rules.join(","), change.sealed.policy_version),
                audit: format!("{}/{}", head.seq, head.hash),
            },
        )
    }

    /// Builds the signed commit on `base`. Nothing outside the mirror is touched.
    pub(super) async fn build(&self, change: &Change, auth: &Authorization, base: &str) -> Result<String> {
        let repo = self.repo(&change.sealed.repository)?;
        let mut files = Vec::with_capacity(change.sealed.files.len());
        for f in &change.sealed.files {
            let bytes = match &f.after {
                None => None,
                Some(oid) => {
                    let bytes = self.journal.blob(oid).await?;
                    let Some(bytes) = bytes.filter(|b| crate::git::blob_id(b) == *oid) else {
                        return Err(Problem::new(
                            "gate.stale",
                            format!("The stored content of {} is not what was approved.", f.path),
                            "Propose the change again.",
                        )
                        .never());
                    };
                    Some(bytes)
                }
            };
            files.push(FileChange { path: f.path.clone(), mode: f.mode.clone(), bytes });
        }
        let message = self.full_message(change, auth).await;
        let who = &self.config.load().bootstrap.committer;
        let identity = Identity { name: who.name.clone(), email: who.email.clone() };
        let at = change.authorized.as_ref().map_or(change.proposed_at, |(_, at)| *at) / 1000;
        let request = CommitRequest {
            base: base.to_owned(),
            files,
            author: identity.clone(),
            committer: identity,
            timestamp: at,
            message,
        };
        repo.git.build_commit(request, Some(&self.signer)).await
    }

    /// Prepares a push to `git_ref`: a fresh base, the gate, the commit. `Value::Bool(true)` =
    /// the preparation itself moved the change.
    pub(super) async fn prepare_push(&self, change: &Change) -> Result<Value> {
        let base = match self.fresh_base(change, PREPARED_ON).await {
            Ok(Base::Ready(tip)) => tip,
            Ok(Base::Landed(commit)) => {
                self.found_landed(change, commit).await?;
                return Ok(Value::Bool(true));
            }
            Err(problem) if problem.code == "gate.stale" => {
                self.close(change, Ending::Stale, problem.message).await?;
                return Ok(Value::Bool(true));
            }
            Err(problem) => return Err(problem),
        };
        if needs_new_approval(change, &base) {
            self.close(change, Ending::Stale, MOVED.into()).await?;
            return Ok(Value::Bool(true));
        }
        if base != change.base {
            let body = Body::Rebased { base };
            self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await?;
            return Ok(Value::Bool(true));
        }
        let auth = match self.gate(change, &base).await {
            Ok(auth) => auth,
            Err(problem) if problem.code == "gate.stale" => {
                self.close(change, Ending::Stale, problem.message).await?;
                return Ok(Value::Bool(true));
            }
            Err(problem) => return Err(problem),
        };
        let commit = self.build(change, &auth, &base).await?;
        Ok(json!({"commit": commit, "base": base}))
    }

    /// Pushes the prepared commit to the followed branch.
    pub(super) async fn push_target(&self, change: &Change, facts: &Value) -> Result<Value> {
        let (commit, base) = commit_and_base(facts)?;
        let repo = self.repo(&change.sealed.repository)?;
        let auth = self.gate(change, base).await?;
        repo.git.push_unless(&auth, commit, &change.sealed.git_ref, Some(base), self.held_by_stop()).await?;
        Ok(json!({"commit": commit}))
    }

    /// Pushes the prepared commit to the change's own branch.
    pub(super) async fn push_branch(&self, change: &Change, facts: &Value) -> Result<Value> {
        let (commit, base) = commit_and_base(facts)?;
        let repo = self.repo(&change.sealed.repository)?;
        let auth = self.gate(change, base).await?;
        let own = format!("refs/heads/{}", change.branch());
        repo.git.push_unless(&auth, commit, &own, None, self.held_by_stop()).await?;
        Ok(json!({"commit": commit, "branch": change.branch()}))
    }

    /// The emergency stop between a push's two requests: what stops the second one.
    fn held_by_stop(&self) -> impl Fn() -> Option<Problem> + Send + 'static {
        let on = self.journal.stop_switch();
        move || on().then(stopped)
    }
}

/// The problem of whatever the emergency stop holds back.
pub(super) fn stopped() -> Problem {
    Problem::new("gate.stopped", "The emergency stop is on.", "Wait until a person resumes.").later()
}

/// Path of the first file that a commit does not hold as it was sealed; none: it holds the change.
pub(super) async fn unlike_sealed<'c>(change: &'c Change, repo: &RepoHandle, commit: &str) -> Result<Option<&'c str>> {
    for f in &change.sealed.files {
        if repo.git.blob(commit, &f.path).await?.map(|t| t.id) != f.after {
            return Ok(Some(&f.path));
        }
    }
    Ok(None)
}

const MOVED: &str = "The branch moved, and the policy asks for a new approval then.";

/// Whether the policy lets an approval hold on this base.
fn needs_new_approval(change: &Change, base: &str) -> bool {
    base != change.base && change.decided.reapprove_on_move && change.approvals().next().is_some()
}

/// Commit and base of a push's facts.
pub(super) fn commit_and_base(facts: &Value) -> Result<(&str, &str)> {
    let part = |k: &str| facts.get(k).and_then(Value::as_str);
    match (part("commit"), part("base")) {
        (Some(commit), Some(base)) => Ok((commit, base)),
        _ => {
            Err(Problem::new("pipeline.facts", "The intent of the push holds no commit.", "Report this as a bug.")
                .never())
        }
    }
}
