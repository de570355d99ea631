//! deliver: which effect is which call, and what the world says about one whose result is missing.

use countersign_core::change::Change;
use countersign_core::gate::{self, Authorization};
use countersign_core::model::{Body, Delivery, Effect, Ending, MergeMethod};
use countersign_core::{Problem, Result, Retry, message};
use serde_json::{Value, json};

use super::commit::{commit_and_base, stopped, unlike_sealed};
use super::{ACTOR, Pipeline, fault};
use crate::cluster::Hinted;
use crate::forge::{Merge, NewPull, Pull, PullState};

/// What a failed close of a pull request has got done.
const COMMENTED: &str = "the comment on the pull request is made";

fn interrupted() -> Problem {
    Problem::new(
        "pipeline.interrupted",
        "It was interrupted; the world shows that it did not happen.",
        "It is tried again.",
    )
    .later()
}

/// Of effects that the world cannot be asked about.
fn perhaps() -> Problem {
    Problem { message: "It was interrupted, and nobody can tell whether it happened.".into(), ..interrupted() }
}

impl Pipeline {
    /// What must be known before the intent is written. `Value::Bool(true)`: the change itself moved.
    pub(super) async fn prepare(&self, change: &Change, effect: &Effect) -> Result<Value> {
        match effect {
            Effect::PushTarget | Effect::PushBranch => self.prepare_push(change).await,
            Effect::Merge => self.prepare_merge(change).await,
            _ => Ok(json!({})),
        }
    }

    /// The effect itself.
    pub(super) async fn perform(&self, change: &Change, effect: &Effect, facts: &Value) -> Result<Value> {
        match effect {
            Effect::Ask { person } => self.ask(change, person).await,
            Effect::PushTarget => self.push_target(change, facts).await,
            Effect::PushBranch => self.push_branch(change, facts).await,
            Effect::OpenPullRequest => self.open_pull(change).await,
            Effect::Merge => self.merge(change).await,
            Effect::ClosePullRequest => self.close_pull(change).await,
            Effect::DeleteBranch => self.delete_branch(change).await,
            Effect::Hint | Effect::HintAgain => self.hint(change).await,
            Effect::SettleCard { person, .. } => self.settle_card(change, person).await,
            Effect::Notify { person, about } => self.notify(change, person, about).await,
        }
    }

    /// An intent without result: the process died in between. The world is asked, never guessed;
    /// what cannot be asked (a message) is sent again.
    pub(super) async fn recover(&self, change: &Change, effect: Effect) -> Result<()> {
        let facts = change.effect(&effect).map(|s| s.facts.clone()).unwrap_or_default();
        fault::point("before_recovery");
        let outcome = match &effect {
            Effect::PushTarget => self.recover_push(change, &facts, &change.sealed.git_ref).await,
            Effect::PushBranch => self.recover_push(change, &facts, &format!("refs/heads/{}", change.branch())).await,
            Effect::OpenPullRequest => match self.find_pull(change).await {
                Ok(Some(pull)) => Ok(pull_value(&pull)),
                Ok(None) => Err(interrupted()),
                Err(problem) => Err(problem),
            },
            Effect::Merge => match self.pull(change).await {
                Ok(pull) if pull.state == PullState::Merged => merged_value(&pull),
                Ok(_) => Err(interrupted()),
                Err(problem) => Err(problem),
            },
            Effect::DeleteBranch => match self.branch_left(change).await {
                Ok(Some(_)) => Err(interrupted()),
                Ok(None) => Ok(json!({"deleted": change.branch()})),
                Err(problem) => Err(problem),
            },
            _ => Err(perhaps()),
        };
        match outcome {
            Err(problem)
                if problem.code != "pipeline.interrupted" && problem.retry == countersign_core::Retry::Later =>
            {
                // The world cannot be asked now: the intent stays open until it can.
                tracing::info!(change = %change.id, code = %problem.code, "{}", problem.message);
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                Ok(())
            }
            outcome => {
                self.settle_effect(change.id, effect, outcome).await?;
                fault::point("after_recovery");
                Ok(())
            }
        }
    }

    async fn recover_push(&self, change: &Change, facts: &Value, git_ref: &str) -> Result<Value> {
        let Ok((commit, _)) = commit_and_base(facts) else { return Err(interrupted()) };
        let repo = self.repo(&change.sealed.repository)?;
        let Some(tip) = repo.git.remote_ref(git_ref).await? else { return Err(interrupted()) };
        if tip == commit {
            return Ok(json!({"commit": commit, "branch": change.branch()}));
        }
        repo.git.fetch(git_ref).await?;
        if repo.git.has_commit(commit).await? && repo.git.is_ancestor(commit, &tip).await? {
            return Ok(json!({"commit": commit, "branch": change.branch()}));
        }
        Err(interrupted())
    }

    fn forge(&self, change: &Change) -> Result<(&dyn crate::forge::Forge, MergeMethod)> {
        let repo = self.repo(&change.sealed.repository)?;
        repo.forge.as_ref().map(|(f, m)| (f.as_ref(), *m)).ok_or_else(|| {
            Problem::new(
                "forge.not_configured",
                format!(
                    "Repository {} has no forge, but the policy asks for a pull request.",
                    change.sealed.repository
                ),
                "Add `forge` to the Repository, or let the policy deliver directly.",
            )
            .never()
        })
    }

    /// Authorization on the base as last proved.
    async fn authorization(&self, change: &Change) -> Result<Authorization> {
        self.gate(change, &change.base).await
    }

    async fn find_pull(&self, change: &Change) -> Result<Option<Pull>> {
        let (forge, _) = self.forge(change)?;
        forge.find_pull(&change.branch(), base_branch(change)).await
    }

    async fn pull(&self, change: &Change) -> Result<Pull> {
        let (forge, _) = self.forge(change)?;
        let number = change.pull_number().ok_or_else(|| {
            Problem::new("pipeline.facts", "The change has no pull request.", "Report this as a bug.").never()
        })?;
        forge.pull(number).await
    }

    async fn open_pull(&self, change: &Change) -> Result<Value> {
        let auth = self.authorization(change).await?;
        let (forge, _) = self.forge(change)?;
        let facts = self.card_facts(change);
        let operations: Vec<&str> =
            change.proposal.edits.iter().filter_map(|e| e.operation().ok()).map(|o| o.name()).collect();
        let (title, body) = (
            message::pull_request_title(&facts, &operations),
            message::pull_request_body(&facts, &change.id.to_string(), &change.digest.0),
        );
        let new = NewPull { title, body, head: change.branch(), base: base_branch(change).to_owned() };
        let pull = forge.open_pull(&auth, &new).await?;
        Ok(pull_value(&pull))
    }

    /// Before a merge: the pull request must still be open, and its head the commit that was pushed.
    async fn prepare_merge(&self, change: &Change) -> Result<Value> {
        let pull = self.pull(change).await?;
        match pull.state {
            PullState::Merged => {
                self.merged_elsewhere(change, &pull).await?;
                Ok(Value::Bool(true))
            }
            PullState::Closed => {
                self.close(change, Ending::Rejected, closed_words(&pull)).await?;
                Ok(Value::Bool(true))
            }
            PullState::Open => {
                if change.pushed_branch() != Some(pull.head_sha.as_str()) {
                    let say = "Somebody else pushed to the change's branch, so what was approved is not what would be merged.";
                    self.close(change, Ending::Stale, say.into()).await?;
                    return Ok(Value::Bool(true));
                }
                Ok(json!({"head": pull.head_sha}))
            }
        }
    }

    async fn merge(&self, change: &Change) -> Result<Value> {
        let repo = self.repo(&change.sealed.repository)?;
        let tip = repo.git.fetch(&change.sealed.git_ref).await?;
        let auth = self.gate(change, &tip).await?;
        let (forge, method) = self.forge(change)?;
        let number = change.pull_number().unwrap_or_default();
        let head = change.pushed_branch().unwrap_or_default();
        // A squash or a merge commit is the forge's own, so the trailers go into its message as well.
        let whole = self.full_message(change, &auth).await;
        let (subject, body) = whole.split_once('\n').unwrap_or((&whole, ""));
        let request = Merge {
            number,
            expected_head: head.to_owned(),
            method,
            title: format!("{subject} (#{number})"),
            message: body.trim_start().to_owned(),
        };
        let merged = forge.merge(&auth, &request).await?;
        Ok(json!({"commit": merged}))
    }

    async fn close_pull(&self, change: &Change) -> Result<Value> {
        let pull = self.pull(change).await?;
        let (forge, _) = self.forge(change)?;
        if pull.state == PullState::Open {
            let say = change.end.as_ref().map_or_else(String::new, |e| e.say.clone());
            let auth = gate::withdraw(change)?;
            let before = change.effect(&Effect::ClosePullRequest).and_then(|s| s.problem.as_ref());
            if !before.is_some_and(|p| p.evidence.iter().any(|e| e == COMMENTED)) {
                self.not_stopped().await?;
                forge.comment(&auth, pull.number, &message::escape_visible(&say)).await?;
            }
            // From here on a failure remembers the comment, so that the next try makes no second one.
            self.not_stopped().await.map_err(|p| p.with(COMMENTED))?;
            forge.close(&auth, pull.number).await.map_err(|p| p.with(COMMENTED))?;
        }
        Ok(json!({"number": pull.number}))
    }

    /// Where the change's own branch stands at the remote; `None` = it is gone.
    async fn branch_left(&self, change: &Change) -> Result<Option<String>> {
        let repo = self.repo(&change.sealed.repository)?;
        repo.git.remote_ref(&format!("refs/heads/{}", change.branch())).await
    }

    /// Deletes the change's own branch if it still stands at what we pushed and nothing is open on it.
    async fn delete_branch(&self, change: &Change) -> Result<Value> {
        let auth = gate::sweep(change)?;
        let pushed = change.pushed_branch().unwrap_or_default();
        match self.branch_left(change).await? {
            None => return Ok(json!({"gone": change.branch()})),
            Some(tip) if tip != pushed => return Ok(json!({"kept": "somebody else pushed to it", "head": tip})),
            Some(_) => {}
        }
        // Also one that the journal never heard of: its answer may have been lost for good.
        if let Some(pull) = self.find_pull(change).await?.filter(|p| p.state == PullState::Open) {
            return Ok(json!({"kept": "a pull request is open on it", "number": pull.number}));
        }
        let own = format!("refs/heads/{}", change.branch());
        let repo = self.repo(&change.sealed.repository)?;
        match repo.git.delete_branch(&auth, &own, pushed).await {
            Ok(_) => Ok(json!({"deleted": change.branch()})),
            Err(problem) if problem.code == "git.lease_lost" => Ok(json!({"kept": "somebody else pushed to it"})),
            Err(problem) => Err(problem),
        }
    }

    /// Between the requests of one effect: none goes out after the emergency stop.
    async fn not_stopped(&self) -> Result<()> {
        if self.journal.read(|v| v.stopped.is_some()).await {
            return Err(stopped());
        }
        Ok(())
    }

    async fn hint(&self, change: &Change) -> Result<Value> {
        match self.hinted(change).await {
            // Not the last word: an API server that has just started refuses what it permits a moment later.
            Err(p) if p.retry != Retry::Later => Ok(json!({"refused": p.message})),
            other => other,
        }
    }

    async fn hinted(&self, change: &Change) -> Result<Value> {
        let cluster = self.cluster(&change.proposal.cluster)?;
        let owner = &change.proposal.owner;
        let object = cluster.owner_object(owner).await?;
        let Some(hint) = crate::engine::hint(owner, &object, &change.id.to_string()) else {
            return Ok(json!({"skipped": "nothing to hint at"}));
        };
        Ok(match cluster.annotate(&hint.on, hint.annotation, &hint.value).await? {
            Hinted::Sent => json!({"sent": true}),
            Hinted::Off => json!({"skipped": "hints are off: the engine polls by itself"}),
            Hinted::NotPermitted => json!({"refused": "the cluster does not permit it"}),
            Hinted::Gone => json!({"refused": "it is gone, or not served yet"}),
        })
    }

    /// `Step::PollMerge`: merged by a person, closed, or still open.
    pub(super) async fn poll_merge(&self, change: &Change) -> Result<()> {
        if change.decided.delivery != Delivery::PullRequest {
            return Ok(());
        }
        match self.pull(change).await {
            Ok(pull) => match pull.state {
                PullState::Merged => self.merged_elsewhere(change, &pull).await,
                PullState::Closed => self.close(change, Ending::Rejected, closed_words(&pull)).await,
                PullState::Open => Ok(()),
            },
            Err(problem) => {
                tracing::info!(change = %change.id, code = %problem.code, "{}", problem.message);
                Ok(())
            }
        }
    }

    /// The pull request was merged at the forge: whose merge it was is recorded, and the merge
    /// result is what is watched. Content that is not what was shown is nobody's approval; the watch calls it failed.
    async fn merged_elsewhere(&self, change: &Change, pull: &Pull) -> Result<()> {
        let Some(commit) = pull.merge_commit.clone() else { return Ok(()) };
        let repo = self.repo(&change.sealed.repository)?;
        repo.git.fetch(&change.sealed.git_ref).await?;
        if lost_merge(change) {
            let body = Body::Landed { commit, via: "merge".into() };
            return self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await;
        }
        let as_sealed = unlike_sealed(change, repo, &commit).await?.is_none();
        let login = pull.merged_by.clone().unwrap_or_default();
        let config = self.config.load();
        let by = |forge: &str| !login.is_empty() && forge == login;
        let person = config.people.iter().find(|p| p.spec.forge.as_deref().is_some_and(by)).map(|p| p.name.clone());
        let listed = person.filter(|p| change.decided.approvers.contains(p));
        let via = match &listed {
            _ if !as_sealed => format!("merge of other content by {}", message::escape_name(&login)),
            Some(_) => "merge".to_owned(),
            None => format!("merge by {}, who is not on the list", message::escape_name(&login)),
        };
        let mut bodies = Vec::new();
        if let Some(person) = listed.filter(|_| as_sealed) {
            bodies.push(Body::Voted {
                person,
                channel: "forge".into(),
                approve: true,
                reason: None,
                digest: change.digest.clone(),
                proof: None,
            });
        }
        bodies.push(Body::Landed { commit, via });
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, bodies).await
    }

    /// `Step::PollCommit`: a person may have committed the patch.
    pub(super) async fn poll_commit(&self, change: &Change) -> Result<()> {
        let repo = self.repo(&change.sealed.repository)?;
        let tip = match repo.git.fetch(&change.sealed.git_ref).await {
            Ok(tip) => tip,
            Err(problem) => {
                tracing::info!(change = %change.id, code = %problem.code, "{}", problem.message);
                return Ok(());
            }
        };
        if tip == change.proposal.base {
            return Ok(());
        }
        if unlike_sealed(change, repo, &tip).await?.is_some() {
            return Ok(());
        }
        let body = Body::Landed { commit: tip, via: "found".into() };
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await
    }
}

/// Whether our own merge was sent and its answer lost: then the merge that is found is ours.
fn lost_merge(change: &Change) -> bool {
    let failed = change.effect(&Effect::Merge).and_then(|s| s.problem.as_ref());
    failed.is_some_and(|p| p.code == "forge.unknown_outcome")
}

fn base_branch(change: &Change) -> &str {
    change.sealed.git_ref.strip_prefix("refs/heads/").unwrap_or(&change.sealed.git_ref)
}

fn pull_value(pull: &Pull) -> Value {
    json!({"number": pull.number, "url": pull.url, "head": pull.head_sha})
}

fn merged_value(pull: &Pull) -> Result<Value> {
    pull.merge_commit.as_ref().map(|c| json!({"commit": c})).ok_or_else(interrupted)
}

fn closed_words(pull: &Pull) -> String {
    match &pull.closed_by {
        Some(login) => format!("The pull request was closed by {}.", message::escape_name(login)),
        None => "The pull request was closed.".into(),
    }
}
