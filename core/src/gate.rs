//! The one place that makes an [`Authorization`], and everything that must hold for one.
//!
//! A push, a pull request and a merge take `&Authorization`; no other way to reach the world
//! compiles. The value is made right before the effect, from what is true right then.

use std::collections::BTreeSet;

use crate::change::Change;
use crate::error::{Problem, Result};
use crate::model::{
    Decided, Delivery, Digest, Level, Named, OwnerRef, PersonSpec, Sealed, digest_of, seats, unanswered,
};
use crate::policy::level_word;

/// How far an authorization reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The change's own branch and its pull request.
    Propose,
    /// The branch that the engine follows.
    Land,
    /// Closing what an ended change has left open.
    Withdraw,
    /// Deleting the branch of an ended change.
    Sweep,
}

/// Proof that a change may leave. Neither `Clone` nor `Deserialize`; made only by [`authorize`].
///
/// ```
/// fn shown(a: &countersign_core::gate::Authorization) -> String { format!("{:?}", a.digest()) }
/// ```
/// ```compile_fail
/// fn copied(a: &countersign_core::gate::Authorization) -> countersign_core::gate::Authorization { a.clone() }
/// ```
/// ```compile_fail
/// let a: countersign_core::gate::Authorization = serde_json::from_str("{}").unwrap();
/// ```
/// ```compile_fail
/// let a = countersign_core::gate::Authorization { by: Vec::new(), ..todo!() };
/// ```
#[derive(Debug)]
pub struct Authorization {
    scope: Scope,
    repository: String,
    git_ref: String,
    branch: String,
    digest: Digest,
    by: Vec<String>,
    pushed: Option<String>,
}

impl Authorization {
    /// Digest that was authorized.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whose votes counted.
    pub fn by(&self) -> &[String] {
        &self.by
    }

    /// Refuses whatever this authorization does not cover.
    pub fn permits_ref(&self, git_ref: &str) -> Result<()> {
        let own = format!("refs/heads/{}", self.branch);
        if (git_ref == own && matches!(self.scope, Scope::Propose | Scope::Land))
            || (self.scope == Scope::Land && git_ref == self.git_ref)
        {
            return Ok(());
        }
        Err(Problem::new(
            "gate.out_of_scope",
            format!("This change may not write {git_ref}."),
            "Report this as a bug; nothing was written.",
        )
        .never())
    }

    /// Refuses a new pull request where only closing is left to do.
    pub fn permits_proposal(&self) -> Result<()> {
        if matches!(self.scope, Scope::Propose | Scope::Land) {
            return Ok(());
        }
        Err(Problem::new("gate.out_of_scope", "An ended change opens nothing.", "Propose it again.").never())
    }

    /// Refuses to close a pull request that is not an ended change's own, and words on it.
    pub fn permits_withdrawal(&self) -> Result<()> {
        if self.scope == Scope::Withdraw {
            return Ok(());
        }
        Err(Problem::new(
            "gate.out_of_scope",
            "Only what an ended change has left open is closed.",
            "Wait for its end.",
        )
        .never())
    }

    /// Refuses to delete anything but an ended change's own branch at the commit that it pushed.
    pub fn permits_deletion(&self, git_ref: &str, commit: &str) -> Result<()> {
        let own = git_ref.strip_prefix("refs/heads/") == Some(self.branch.as_str());
        if self.scope == Scope::Sweep && own && self.pushed.as_deref() == Some(commit) {
            return Ok(());
        }
        Err(Problem::new(
            "gate.out_of_scope",
            format!("This change may not delete {git_ref}."),
            "Report this as a bug; nothing was deleted.",
        )
        .never())
    }

    /// Refuses a merge where only a proposal was let through.
    pub fn permits_merge(&self) -> Result<()> {
        if self.scope == Scope::Land {
            return Ok(());
        }
        Err(Problem::new("gate.out_of_scope", "This change is merged by a person.", "Wait for the merge.").never())
    }

    /// Repository that was authorized.
    pub fn repository(&self) -> &str {
        &self.repository
    }
}

/// What is true right before the effect.
#[derive(Debug)]
pub struct Now<'a> {
    /// Milliseconds since the epoch.
    pub now: i64,
    /// The emergency stop is on.
    pub stopped: bool,
    /// What the policy of this moment says about the same change.
    pub decided: &'a Decided,
    /// Why it refuses the change now, where it does.
    pub denied: Option<&'a str>,
    /// People of this moment.
    pub people: &'a [Named<PersonSpec>],
    /// The requester still exists, with this sponsor.
    pub sponsor: Option<&'a str>,
    /// Who may let their own yes suffice at this moment, in spite of quorum and freeze.
    pub glass: &'a [String],
    /// Who owns the target of this moment.
    pub owner: &'a OwnerRef,
    /// Blob ids of the touched files at the base that the commit will have.
    pub blobs: &'a [(String, Option<String>)],
}

fn stale(why: impl Into<String>) -> Problem {
    Problem::new("gate.stale", why, "Propose the change again; it will be planned on what is true now.").never()
}

/// Lets a change through, or says why not. Checked in order, each failing closed.
pub fn authorize(change: &Change, now: &Now<'_>) -> Result<Authorization> {
    if digest_of(change.canonical.as_bytes()) != change.digest {
        return Err(stale("The stored change is not the one that was shown."));
    }
    if serde_json::from_str::<Sealed>(&change.canonical).ok().as_ref() != Some(&change.sealed) {
        return Err(stale("The change that would be done is not the one that was stored."));
    }
    if now.stopped {
        return Err(Problem::new("gate.stopped", "The emergency stop is on.", "Wait until a person resumes.").later());
    }
    not_frozen(change, now)?;
    if change.end.is_some() {
        return Err(stale("The change has ended."));
    }
    if now.now >= change.sealed.expires_at * 1000 && change.authorized.is_none() {
        return Err(stale("The time to decide has passed."));
    }
    if change.rejection().is_some() {
        return Err(stale("A person rejected the change."));
    }
    policy_still_allows(change, now.decided, now.denied)?;
    if now.sponsor != Some(change.sealed.sponsor.as_str()) {
        return Err(stale("The agent, or the person who answers for it, is no longer the same."));
    }
    if *now.owner != change.proposal.owner {
        return Err(stale(format!("The target is now delivered by {}, not by {}.", now.owner, change.proposal.owner)));
    }
    same_blobs(change, now.blobs)?;
    let by_forge = change.sealed.delivery == Delivery::PullRequest;
    let by = if change.decided.level == Level::Prompted && !by_forge { quorum(change, now)? } else { Vec::new() };
    let scope = if by_forge { Scope::Propose } else { Scope::Land };
    Ok(Authorization {
        scope,
        repository: change.sealed.repository.clone(),
        git_ref: change.sealed.git_ref.clone(),
        branch: change.branch(),
        digest: change.digest.clone(),
        by,
        pushed: None,
    })
}

/// Lets an ended change that never landed close its own pull request, and nothing else.
pub fn withdraw(change: &Change) -> Result<Authorization> {
    if change.end.is_none() || change.landed.is_some() {
        return Err(Problem::new(
            "gate.out_of_scope",
            "Only an ended change that never landed is withdrawn.",
            "Wait for its end.",
        )
        .never());
    }
    Ok(Authorization {
        scope: Scope::Withdraw,
        repository: change.sealed.repository.clone(),
        git_ref: change.sealed.git_ref.clone(),
        branch: change.branch(),
        digest: change.digest.clone(),
        by: Vec::new(),
        pushed: None,
    })
}

/// Lets an ended change take away its own branch, at the commit that it pushed, and nothing else.
pub fn sweep(change: &Change) -> Result<Authorization> {
    let pushed = change.pushed_branch().filter(|_| change.end.is_some()).ok_or_else(|| {
        Problem::new("gate.out_of_scope", "Only an ended change's own branch is deleted.", "Wait for its end.").never()
    })?;
    Ok(Authorization {
        scope: Scope::Sweep,
        repository: change.sealed.repository.clone(),
        git_ref: change.sealed.git_ref.clone(),
        branch: change.branch(),
        digest: change.digest.clone(),
        by: Vec::new(),
        pushed: Some(pushed.to_owned()),
    })
}

/// A freeze that began after people were asked holds the change back; what they said stays good for as
/// long as it was good for. Asked during it, its approvers were among those asked.
fn not_frozen(change: &Change, now: &Now<'_>) -> Result<()> {
    if glass(change, now).is_some() {
        return Ok(());
    }
    let began = now.decided.freezes.iter().find(|f| !change.decided.freezes.iter().any(|asked| asked.id == f.id));
    let Some(freeze) = began else { return Ok(()) };
    let until = chrono::DateTime::from_timestamp(freeze.until, 0)
        .map_or_else(String::new, |t| format!(" until {}", t.format("%Y-%m-%d %H:%M UTC")));
    Err(Problem::new(
        "gate.frozen",
        format!("Freeze {} is on{until}: nothing leaves.", freeze.id),
        "Wait for its end; an approval that expires before that must be given again.",
    )
    .later())
}

fn policy_still_allows(change: &Change, now: &Decided, denied: Option<&str>) -> Result<()> {
    if now.level > change.decided.level {
        let why = match denied {
            Some(why) => format!("The policy no longer allows the change: {why}"),
            None => format!(
                "The policy became stricter while the change was pending ({} instead of {}).",
                level_word(now.level),
                level_word(change.decided.level)
            ),
        };
        return Err(stale(why));
    }
    if change.decided.level == Level::Manual || change.decided.level == Level::Deny {
        return Err(stale("The policy lets nobody but a person commit this change."));
    }
    if now.delivery > change.decided.delivery {
        return Err(stale("The policy now asks for a stricter way of delivery."));
    }
    if now.level == Level::Prompted && now.obligations.confirm > change.decided.obligations.confirm {
        return Err(stale("A yes now takes the number on the card."));
    }
    Ok(())
}

fn same_blobs(change: &Change, blobs: &[(String, Option<String>)]) -> Result<()> {
    for f in &change.sealed.files {
        match blobs.iter().find(|(p, _)| *p == f.path) {
            Some((_, blob)) if *blob == f.before => {}
            _ => return Err(stale(format!("{} changed since it was shown.", f.path))),
        }
    }
    Ok(())
}

/// Whose own yes suffices right now: somebody who broke the glass in time, and still may.
fn glass<'a>(change: &'a Change, now: &Now<'_>) -> Option<&'a str> {
    let allow_sponsor = change.sealed.quorum.allow_sponsor;
    let glass = change.broken_glass(now.now)?;
    let may = now.glass.contains(&glass.person) && now.people.iter().any(|p| p.name == glass.person);
    (may && (allow_sponsor || glass.person != change.sealed.sponsor)).then_some(glass.person.as_str())
}

/// Distinct people of this moment whose yes is on this very digest; zero never suffices.
fn quorum(change: &Change, now: &Now<'_>) -> Result<Vec<String>> {
    let strict = now.decided.quorum.count.max(change.sealed.quorum.count);
    if strict == 0 {
        return Err(stale("No rule says who approves."));
    }
    let asked_now = now.decided.level == Level::Prompted;
    let allow_sponsor = change.sealed.quorum.allow_sponsor && (now.decided.quorum.allow_sponsor || !asked_now);
    if let Some(person) = glass(change, now) {
        return Ok(vec![person.to_owned()]);
    }
    let by: BTreeSet<String> = change
        .approvals()
        .filter(|v| now.people.iter().any(|p| p.name == v.person))
        // A looser level names nobody any more; the votes of those who were asked stay good.
        .filter(|v| !asked_now || now.decided.approvers.contains(&v.person))
        .filter(|v| allow_sponsor || v.person != change.sealed.sponsor)
        .map(|v| v.person.clone())
        .collect();
    if by.len() < strict as usize {
        return Err(stale(format!(
            "{} of {strict} needed approvals count now (people or rules changed since).",
            by.len()
        )));
    }
    different_groups(change, now, &by)?;
    Ok(by.into_iter().collect())
}

/// Where the card or the policy of this moment wants each yes of another group, it must be so by the groups that
/// people have now; for the card, by those too that they had when they were asked.
fn different_groups(change: &Change, now: &Now<'_>, by: &BTreeSet<String>) -> Result<()> {
    let own = |person: &str| now.people.iter().find(|p| p.name == person).map_or(&[][..], |p| &p.spec.groups);
    let shown = |person: &str| change.decided.answers.get(person).map_or(&[][..], Vec::as_slice);
    let asked_now = now.decided.level == Level::Prompted;
    for (quorum, counts) in [(&change.sealed.quorum, true), (&now.decided.quorum, asked_now)] {
        if !quorum.different_groups || !counts {
            continue;
        }
        let still =
            |person: &str, group: &String| !change.sealed.quorum.different_groups || shown(person).contains(group);
        let people: Vec<Vec<&str>> = by
            .iter()
            .map(|person| {
                let both = quorum.groups.iter().filter(|g| own(person).contains(g) && still(person, g));
                both.map(String::as_str).collect()
            })
            .collect();
        let have = seats(&people);
        if have < quorum.count as usize {
            return Err(stale(format!(
                "{have} of {} needed approvals count now, each of another group: nobody said yes for {} (people or rules changed since).",
                quorum.count,
                unanswered(&people, &quorum.groups).join(" or "),
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
