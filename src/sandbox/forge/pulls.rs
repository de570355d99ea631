//! What happens to pull requests, whichever API asks for it.

use git2::{Oid, Repository};
use serde_json::json;

use super::Shared;
use super::merge::{Figures, Merge, Method, figures, merged_tree};
use super::state::{Comment, ForgeUser, Merged, Protection, Pull, PullState, Review, State, UserKind, Verdict};
use crate::sandbox::git::Author;
use crate::sandbox::host::lock;

/// Why the forge does not do something; each API has its own words and status for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No such thing, or not for this user.
    NotFound,
    /// No token, or a wrong one.
    Unauthorized,
    /// May not write.
    Forbidden,
    /// A field is wrong: name and what about it.
    Invalid(&'static str, String),
    /// An open one for these branches exists, with this number.
    Exists(u64),
    /// The head is not the one that was asked to be merged.
    HeadMoved,
    /// Cannot be merged, in words.
    NotMergeable(String),
    /// Git failed.
    Git(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Unauthorized => f.write_str("unauthorized"),
            Self::Forbidden => f.write_str("forbidden"),
            Self::Invalid(field, why) => write!(f, "{field}: {why}"),
            Self::Exists(number) => write!(f, "pull request {number} exists"),
            Self::HeadMoved => f.write_str("the head was modified"),
            Self::NotMergeable(why) | Self::Git(why) => f.write_str(why),
        }
    }
}

impl From<git2::Error> for Refused {
    fn from(e: git2::Error) -> Self {
        Self::Git(e.message().to_owned())
    }
}

/// A pull request to be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPull {
    /// Title.
    pub title: String,
    /// Description.
    pub body: Option<String>,
    /// Branch with the change.
    pub head: String,
    /// Branch that it goes to.
    pub base: String,
    /// Draft.
    pub draft: bool,
}

/// A merge to be performed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergeAsk {
    /// How.
    pub method: Method,
    /// Only if the head is still this.
    pub sha: Option<String>,
    /// First line of the message.
    pub title: Option<String>,
    /// Rest of the message.
    pub message: Option<String>,
    /// Delete the branch afterwards.
    pub delete_branch: bool,
}

/// What a look at one pull request shows besides its record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// `None` = not computed yet.
    pub(crate) mergeable: Option<bool>,
    pub(crate) blocked: bool,
    pub(crate) figures: Figures,
    pub(crate) comments: usize,
    pub(crate) merge_base: Option<String>,
}

impl Shared {
    pub(crate) fn user_named(&self, login: &str) -> Result<ForgeUser, Refused> {
        lock(&self.state).by_login(login).cloned().ok_or(Refused::NotFound)
    }

    pub(crate) fn repository(&self, repo: &str) -> Result<Repository, Refused> {
        self.repos.repository(repo).map_err(|_| Refused::NotFound)
    }

    pub(crate) fn pulls(&self, repo: &str) -> Vec<Pull> {
        let mut state = lock(&self.state);
        if self.refresh(&mut state, repo).is_err() {
            return Vec::new();
        }
        state.project(repo).pulls.values().cloned().collect()
    }

    pub(crate) fn comments(&self, repo: &str, number: u64) -> Vec<Comment> {
        let mut state = lock(&self.state);
        state.project(repo).comments.iter().filter(|c| c.number == number).cloned().collect()
    }

    pub(crate) fn reviews(&self, repo: &str, number: u64) -> Result<Vec<Review>, Refused> {
        self.find(repo, number)?;
        let mut state = lock(&self.state);
        Ok(state.project(repo).reviews.iter().filter(|r| r.number == number).cloned().collect())
    }

    pub(crate) fn find(&self, repo: &str, number: u64) -> Result<Pull, Refused> {
        self.repository(repo)?;
        self.pulls(repo).into_iter().find(|p| p.number == number).ok_or(Refused::NotFound)
    }

    pub(crate) fn protection(&self, repo: &str, branch: &str) -> Option<Protection> {
        lock(&self.state).project(repo).protections.get(branch).copied()
    }

    pub(crate) fn protect(&self, repo: &str, branch: &str, protection: Option<Protection>) -> Result<(), Refused> {
        self.repos.protect(repo, branch, protection.is_some())?;
        let mut state = lock(&self.state);
        let protections = &mut state.project(repo).protections;
        match protection {
            Some(protection) => protections.insert(branch.to_owned(), protection),
            None => protections.remove(branch),
        };
        Ok(())
    }

    /// Takes over what happened in Git: moved heads, deleted branches, commits that arrived by a push.
    fn refresh(&self, state: &mut State, repo: &str) -> Result<(), Refused> {
        let git = self.repository(repo)?;
        let now = self.host.clock().now();
        let project = state.project(repo);
        for pull in project.pulls.values_mut().filter(|p| p.state == PullState::Open) {
            let Ok(base) = tip(&git, &pull.base) else { continue };
            let head = tip(&git, &pull.head);
            let moved =
                head.as_ref().map_or(true, |h| h.to_string() != pull.head_sha) || base.to_string() != pull.base_sha;
            if !moved {
                continue;
            }
            pull.updated_at = now;
            pull.looks = 0;
            pull.unchecked |= base.to_string() != pull.base_sha;
            pull.base_sha = base.to_string();
            let last = Oid::from_str(&pull.head_sha)?;
            let tip = head.as_ref().copied().unwrap_or(last);
            if base == tip || git.graph_descendant_of(base, tip).unwrap_or(false) {
                pull.merged = Some(Merged { by: None, commit: tip.to_string(), at: now });
            }
            if pull.merged.is_some() || head.is_err() {
                pull.state = PullState::Closed;
                pull.closed_at = Some(now);
                self.host.log(
                    "pull_closed",
                    json!({"repo": repo, "number": pull.number, "merged": pull.merged.is_some(), "by": null}),
                );
            }
            if tip.to_string() == pull.head_sha {
                continue;
            }
            pull.head_sha = tip.to_string();
            if project.protections.get(&pull.base).is_some_and(|p| p.dismiss_stale) {
                dismiss(&mut project.reviews, pull.number);
            }
        }
        Ok(())
    }

    pub(crate) fn open_pull(&self, repo: &str, user: &ForgeUser, new: NewPull) -> Result<Pull, Refused> {
        let git = self.repository(repo)?;
        let owner = repo.split('/').next().unwrap_or_default();
        let head_name = new.head.strip_prefix(&format!("{owner}:")).unwrap_or(&new.head).to_owned();
        if new.title.trim().is_empty() {
            return Err(Refused::Invalid("title", "missing".into()));
        }
        let base = tip(&git, &new.base).map_err(|_| Refused::Invalid("base", "invalid".into()))?;
        let head = tip(&git, &head_name).map_err(|_| Refused::Invalid("head", "invalid".into()))?;
        let mut state = lock(&self.state);
        self.refresh(&mut state, repo)?;
        let open = |p: &&Pull| p.state == PullState::Open && p.head == head_name && p.base == new.base;
        if let Some(existing) = state.project(repo).pulls.values().find(open) {
            return Err(Refused::Exists(existing.number));
        }
        if git.graph_ahead_behind(head, base)?.0 == 0 {
            return Err(Refused::Invalid("", format!("No commits between {} and {head_name}", new.base)));
        }
        let now = self.host.clock().now();
        let project = state.project(repo);
        let number = project.pulls.keys().next_back().map_or(1, |n| n + 1);
        let pull = Pull {
            number,
            author: user.login.clone(),
            title: new.title,
            body: new.body,
            head: head_name,
            head_sha: head.to_string(),
            base: new.base,
            base_sha: base.to_string(),
            state: PullState::Open,
            draft: new.draft,
            merged: None,
            created_at: now,
            updated_at: now,
            closed_at: None,
            looks: 0,
            unchecked: false,
        };
        project.pulls.insert(number, pull.clone());
        self.host.log(
            "pull_opened",
            json!({"repo": repo, "number": number, "by": user.login, "head": pull.head,
            "head_sha": pull.head_sha, "base": pull.base}),
        );
        Ok(pull)
    }

    /// Changes title, body or base.
    pub(crate) fn edit_pull(&self, repo: &str, number: u64, edit: impl FnOnce(&mut Pull)) -> Result<Pull, Refused> {
        self.find(repo, number)?;
        let mut state = lock(&self.state);
        let pull = state.project(repo).pulls.get_mut(&number).ok_or(Refused::NotFound)?;
        edit(pull);
        pull.updated_at = self.host.clock().now();
        Ok(pull.clone())
    }

    pub(crate) fn set_state(
        &self,
        repo: &str,
        number: u64,
        user: &ForgeUser,
        wanted: PullState,
    ) -> Result<Pull, Refused> {
        let pull = self.find(repo, number)?;
        if pull.state == wanted {
            return Ok(pull);
        }
        if !user.can_write && user.login != pull.author {
            return Err(Refused::Forbidden);
        }
        if wanted == PullState::Open {
            let head = self.repos.head(repo, &pull.head);
            if pull.merged.is_some() || head.is_none() {
                return Err(Refused::Invalid("state", "state cannot be changed.".into()));
            }
        }
        let now = self.host.clock().now();
        let what = if wanted == PullState::Open { "pull_reopened" } else { "pull_closed" };
        self.host.log(what, json!({"repo": repo, "number": number, "merged": false, "by": user.login}));
        self.edit_pull(repo, number, |pull| {
            pull.state = wanted;
            pull.closed_at = (wanted == PullState::Closed).then_some(now);
        })
    }

    pub(crate) fn comment(&self, repo: &str, number: u64, user: &ForgeUser, body: &str) -> Result<Comment, Refused> {
        self.find(repo, number)?;
        if body.trim().is_empty() {
            return Err(Refused::Invalid("body", "missing".into()));
        }
        let mut state = lock(&self.state);
        let id = state.next_id();
        let created_at = self.host.clock().now();
        let comment = Comment { id, number, author: user.login.clone(), body: body.to_owned(), created_at };
        state.project(repo).comments.push(comment.clone());
        self.host.log("commented", json!({"repo": repo, "number": number, "by": user.login, "body": body}));
        Ok(comment)
    }

    pub(crate) fn review(
        &self,
        repo: &str,
        number: u64,
        user: &ForgeUser,
        verdict: Verdict,
        body: &str,
    ) -> Result<Review, Refused> {
        let pull = self.find(repo, number)?;
        if verdict != Verdict::Commented && pull.author == user.login {
            return Err(Refused::Invalid("", "Can not approve your own pull request".into()));
        }
        let mut state = lock(&self.state);
        let review = Review {
            id: state.next_id(),
            number,
            author: user.login.clone(),
            verdict,
            body: body.to_owned(),
            commit: pull.head_sha,
            submitted_at: self.host.clock().now(),
        };
        state.project(repo).reviews.push(review.clone());
        self.host.log("reviewed", json!({"repo": repo, "number": number, "by": user.login, "verdict": verdict}));
        Ok(review)
    }

    /// Whether approvals are missing, in the forge's words.
    fn missing_approvals(&self, repo: &str, pull: &Pull) -> Option<String> {
        let mut state = lock(&self.state);
        let project = state.project(repo);
        let needed = project.protections.get(&pull.base)?.required_approvals;
        let mut latest = std::collections::BTreeMap::new();
        for review in project.reviews.iter().filter(|r| r.number == pull.number && r.verdict != Verdict::Commented) {
            latest.insert(review.author.clone(), review.verdict);
        }
        let logins: Vec<_> = latest.into_iter().filter(|(_, v)| *v == Verdict::Approved).map(|(l, _)| l).collect();
        let counted = logins.iter().filter(|l| state.by_login(l).is_some_and(|u| u.can_write)).count();
        (counted < needed)
            .then(|| format!("At least {needed} approving review is required by reviewers with write access."))
    }

    /// What a look at one shows; counts the look, because mergeability comes late.
    pub(crate) fn look(&self, repo: &str, pull: &Pull) -> Result<Look, Refused> {
        let git = self.repository(repo)?;
        let (base, head) = (Oid::from_str(&pull.base_sha)?, Oid::from_str(&pull.head_sha)?);
        let comments = self.comments(repo, pull.number).len();
        let merge_base = git.merge_base(base, head).ok().map(|id| id.to_string());
        let figures = figures(&git, base, head).unwrap_or_default();
        let mut look = Look { mergeable: None, blocked: false, figures, comments, merge_base };
        if pull.state == PullState::Open {
            let looks = {
                let mut state = lock(&self.state);
                let stored = state.project(repo).pulls.get_mut(&pull.number).ok_or(Refused::NotFound)?;
                stored.looks = stored.looks.saturating_add(1);
                stored.looks
            };
            if looks > self.slow_mergeable {
                let tree = merged_tree(&git, &git.find_commit(base)?, &git.find_commit(head)?)?;
                look.mergeable = Some(tree.is_some());
                look.blocked = self.missing_approvals(repo, pull).is_some();
            }
        }
        Ok(look)
    }

    /// Whether a forge that checks for conflicts in the background has not done so since the last push to the base;
    /// it has when it is asked the next time.
    pub(crate) fn still_checks(&self, repo: &str, number: u64) -> Result<bool, Refused> {
        self.find(repo, number)?;
        let mut state = lock(&self.state);
        let pull = state.project(repo).pulls.get_mut(&number).ok_or(Refused::NotFound)?;
        Ok(std::mem::take(&mut pull.unchecked))
    }

    pub(crate) fn merge_pull(
        &self,
        repo: &str,
        number: u64,
        user: &ForgeUser,
        ask: &MergeAsk,
    ) -> Result<String, Refused> {
        let pull = self.find(repo, number)?;
        if !user.can_write {
            return Err(Refused::Forbidden);
        }
        if pull.state == PullState::Closed || pull.draft {
            return Err(Refused::NotMergeable("Pull Request is not mergeable".into()));
        }
        if ask.sha.as_ref().is_some_and(|sha| *sha != pull.head_sha) {
            return Err(Refused::HeadMoved);
        }
        if let Some(words) = self.missing_approvals(repo, &pull) {
            return Err(Refused::NotMergeable(words));
        }
        let branch = (repo.to_owned(), pull.base.clone());
        if lock(&self.merged_to).get(&branch).is_some_and(|at| at.elapsed() < self.recheck) {
            return Err(Refused::NotMergeable("Please try again later".into()));
        }
        // Named before the branch goes, and before anybody looks: a deleted head must not look like a
        // rejection, nor a moved base like somebody's push.
        let mut state = lock(&self.state);
        let commit = self.land(repo, &pull, user, ask)?;
        let now = self.host.clock().now();
        let merged = Merged { by: Some(user.login.clone()), commit: commit.clone(), at: now };
        edit_merged(&mut state, repo, number, merged);
        drop(state);
        lock(&self.merged_to).insert(branch, std::time::Instant::now());
        self.host.log(
            "pull_merged",
            json!({"repo": repo, "number": number, "by": user.login, "commit": commit,
            "method": ask.method, "head_sha": pull.head_sha}),
        );
        if ask.delete_branch {
            self.repos.delete_branch(repo, &pull.head)?;
        }
        Ok(commit)
    }

    fn land(&self, repo: &str, pull: &Pull, user: &ForgeUser, ask: &MergeAsk) -> Result<String, Refused> {
        let git = self.repository(repo)?;
        let (base, head) = (Oid::from_str(&pull.base_sha)?, Oid::from_str(&pull.head_sha)?);
        let author = self.repos.signature(&author_of(user))?;
        let committer = self.repos.signature(&Author::new("Sandbox Forge", "noreply@forge.sandbox"))?;
        let message = message(&git, repo, pull, ask)?;
        let merge = Merge { repo: &git, base, head, author: &author, committer: &committer, message: &message };
        let merged = merge.perform(ask.method).map_err(|e| match e.message() {
            "merge conflict" | "not a fast forward" => Refused::NotMergeable("Pull Request is not mergeable".into()),
            other => Refused::Git(other.to_owned()),
        })?;
        let reference = format!("refs/heads/{}", pull.base);
        git.reference_matching(&reference, merged, true, base, "forge: merge")
            .map_err(|_| Refused::NotMergeable("Base branch was modified. Review and try the merge again.".into()))?;
        Ok(merged.to_string())
    }

    pub(crate) fn delete_ref(&self, repo: &str, user: &ForgeUser, branch: &str) -> Result<(), Refused> {
        self.repository(repo)?;
        if !user.can_write {
            return Err(Refused::Forbidden);
        }
        if self.repos.is_protected(repo, branch) {
            return Err(Refused::Invalid("", "Cannot delete protected branch".into()));
        }
        self.repos.delete_branch(repo, branch).map_err(|_| Refused::Invalid("", "Reference does not exist".into()))?;
        self.host.log("branch_deleted", json!({"repo": repo, "branch": branch, "by": user.login}));
        Ok(())
    }
}

fn edit_merged(state: &mut State, repo: &str, number: u64, merged: Merged) {
    if let Some(pull) = state.project(repo).pulls.get_mut(&number) {
        pull.state = PullState::Closed;
        pull.closed_at = Some(merged.at);
        pull.updated_at = merged.at;
        pull.merged = Some(merged);
    }
}

fn author_of(user: &ForgeUser) -> Author {
    let bot = if user.kind == UserKind::Bot { "[bot]" } else { "" };
    Author::new(&user.login, &format!("{}+{}{bot}@users.noreply.forge.sandbox", user.id, user.login))
}

/// The messages that GitHub makes when none is given.
fn message(git: &Repository, repo: &str, pull: &Pull, ask: &MergeAsk) -> Result<String, git2::Error> {
    let owner = repo.split('/').next().unwrap_or_default();
    let number = pull.number;
    let (title, body) = match ask.method {
        Method::Squash => squash_message(git, pull)?,
        _ => (format!("Merge pull request #{number} from {owner}/{}", pull.head), pull.title.clone()),
    };
    let title = ask.title.clone().unwrap_or(title);
    let body = ask.message.clone().unwrap_or(body);
    Ok(if body.is_empty() { title } else { format!("{title}\n\n{body}") })
}

/// One commit gives its own message; of several the title and a list.
fn squash_message(git: &Repository, pull: &Pull) -> Result<(String, String), git2::Error> {
    let mut walk = git.revwalk()?;
    walk.push(Oid::from_str(&pull.head_sha)?)?;
    walk.hide(Oid::from_str(&pull.base_sha)?)?;
    let mut messages = Vec::new();
    for id in walk {
        messages.push(String::from_utf8_lossy(git.find_commit(id?)?.message_bytes()).into_owned());
    }
    let number = pull.number;
    if let [only] = messages.as_slice() {
        let (title, body) = only.split_once('\n').unwrap_or((only, ""));
        return Ok((format!("{title} (#{number})"), body.trim().to_owned()));
    }
    let list: Vec<_> = messages.iter().rev().map(|m| format!("* {}", m.trim())).collect();
    Ok((format!("{} (#{number})", pull.title), list.join("\n\n")))
}

fn tip(git: &Repository, branch: &str) -> Result<Oid, git2::Error> {
    git.refname_to_id(&format!("refs/heads/{branch}"))
}

fn dismiss(reviews: &mut [Review], number: u64) {
    for review in reviews.iter_mut().filter(|r| r.number == number && r.verdict == Verdict::Approved) {
        review.verdict = Verdict::Dismissed;
    }
}
