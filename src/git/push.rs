//! Pushes under a lease.
//!
//! libgit2's push is not a lease by itself: it re-creates a deleted branch, and brings back commits
//! that somebody took off a branch. So `push_negotiation` compares the remote's ref with the expected
//! one, and the server's own compare-and-swap covers the time after that.

use std::cell::{Cell, RefCell};

use countersign_core::{Problem, Result};
use git2::{Oid, PushOptions, RemoteRedirect, Repository};

use super::failure::words;
use super::history::must_have;
use super::path::check_ref;
use super::read::oid;
use super::remote::{Session, list};

/// How the ref came to stand at the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// This push moved it.
    Landed,
    /// It stood there already (an earlier push whose answer was lost).
    AlreadyDone,
}

/// A push that reached its goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Ref.
    pub git_ref: String,
    /// Commit that was asked for; `None` = the branch was to be deleted.
    pub commit: Option<String>,
    /// How.
    pub outcome: PushOutcome,
    /// What the ref held when read back: differs from `commit` only if somebody pushed right after.
    pub remote_now: Option<String>,
}

enum Seen {
    Agreed,
    Already,
    Other(Oid),
}

/// Moves `git_ref` from `expected` (`None` = absent) to `target` (`None` = delete), unless `held` says
/// at the last moment why not.
pub(crate) fn push(
    repo: &Repository,
    session: &Session<'_>,
    target: Option<&str>,
    git_ref: &str,
    expected: Option<&str>,
    held: &dyn Fn() -> Option<Problem>,
) -> Result<Pushed> {
    check_ref(git_ref)?;
    let wanted = target.map(|t| must_have(repo, t)).transpose()?.unwrap_or(Oid::ZERO_SHA1);
    let expected = expected.map(oid).transpose()?.unwrap_or(Oid::ZERO_SHA1);
    if wanted == expected {
        return Err(Problem::new(
            "git.empty",
            "The push would change nothing.",
            "Push a commit that differs from the base.",
        )
        .never());
    }
    let seen: RefCell<Option<Seen>> = RefCell::new(None);
    let rejected: RefCell<Option<String>> = RefCell::new(None);
    let reported = Cell::new(false);
    let result = talk(
        repo,
        session,
        git_ref,
        wanted,
        |current| {
            let found = match current {
                c if c == expected => Seen::Agreed,
                c if c == wanted => Seen::Already,
                c => Seen::Other(c),
            };
            let go = matches!(found, Seen::Agreed);
            if go && let Some(problem) = held() {
                return Err(session.refuse(problem));
            }
            seen.replace(Some(found));
            if go { Ok(()) } else { Err(git2::Error::from_str("the lease is lost")) }
        },
        |status| {
            reported.set(true);
            if let Some(status) = status {
                rejected.replace(Some(words(status, session.credentials, session.dir)));
            }
        },
    );
    let done = |outcome, now: Oid| Pushed {
        git_ref: git_ref.to_owned(),
        commit: target.map(str::to_owned),
        outcome,
        remote_now: (!now.is_zero()).then(|| now.to_string()),
    };
    match seen.into_inner() {
        Some(Seen::Already) => return Ok(done(PushOutcome::AlreadyDone, wanted)),
        Some(Seen::Other(current)) => return Err(lease_lost(git_ref, expected, current)),
        // Broken off before anything was sent: nothing has happened.
        None => return Err(result.err().map_or_else(|| unknown(git_ref), |e| no_entry(session.problem(&e)))),
        Some(Seen::Agreed) => {}
    }
    if let Err(error) = &result
        && (error.code() == git2::ErrorCode::NotFastForward)
    {
        return Err(session.problem(error));
    }
    let now = read_back(repo, session, git_ref)?;
    let rejected = rejected.into_inner();
    if now == wanted {
        return Ok(done(PushOutcome::Landed, now));
    }
    match (rejected, result) {
        (Some(_), _) if now != expected => Err(lease_lost(git_ref, expected, now)),
        (Some(said), _) => Err(push_rejected(session, git_ref, vec![said])),
        (None, Ok(())) if reported.get() => Ok(done(PushOutcome::Landed, now)),
        (None, Ok(())) => Err(unknown(git_ref)),
        (None, Err(error)) if now == expected => Err(refused_or_cut(session, git_ref, &error)),
        (None, Err(error)) => Err(lease_lost(git_ref, expected, now).with(session.problem(&error).message)),
    }
}

/// One conversation: negotiation, pack, status of the ref.
fn talk(
    repo: &Repository,
    session: &Session<'_>,
    git_ref: &str,
    wanted: Oid,
    agree: impl Fn(Oid) -> Result<(), git2::Error>,
    status: impl Fn(Option<&str>),
) -> Result<(), git2::Error> {
    let mut remote = session.remote(repo).map_err(|p| session.refuse(p))?;
    let mut callbacks = session.callbacks();
    callbacks.push_negotiation(|updates| {
        let [update] = updates else { return Err(git2::Error::from_str("more than one ref")) };
        if update.dst_refname()? != git_ref || update.dst() != wanted {
            return Err(git2::Error::from_str("another ref"));
        }
        if session.late() {
            return Err(session.refuse(super::lane::timed_out()));
        }
        agree(update.src())
    });
    callbacks.push_update_reference(|name, said| {
        if name == git_ref {
            status(said);
        }
        Ok(())
    });
    let mut options = PushOptions::new();
    options.remote_callbacks(callbacks).follow_redirects(RemoteRedirect::None).packbuilder_parallelism(1);
    let source = if wanted.is_zero() { String::new() } else { wanted.to_string() };
    remote.push(&[format!("{source}:{git_ref}")], Some(&mut options))
}

fn read_back(repo: &Repository, session: &Session<'_>, git_ref: &str) -> Result<Oid> {
    match remote_ref(repo, session, git_ref) {
        Ok(now) => Ok(now.unwrap_or(Oid::ZERO_SHA1)),
        Err(problem) => Err(unknown(git_ref).with(problem.message)),
    }
}

/// What a ref holds at the remote; `None` = it is not there.
pub(crate) fn remote_ref(repo: &Repository, session: &Session<'_>, git_ref: &str) -> Result<Option<Oid>> {
    Ok(list(repo, session)?.into_iter().find(|h| h.name == git_ref).map(|h| h.id))
}

fn named(id: Oid) -> String {
    if id.is_zero() { "absent".to_owned() } else { id.to_string() }
}

fn lease_lost(git_ref: &str, expected: Oid, current: Oid) -> Problem {
    Problem::new(
        "git.lease_lost",
        format!("`{git_ref}` is not where the change was prepared for."),
        "Fetch, prove the change on the new base, and push again.",
    )
    .with(format!("expected: {}", named(expected)))
    .with(format!("current: {}", named(current)))
}

/// The push may have happened; only the remote knows.
pub(crate) fn unknown(git_ref: &str) -> Problem {
    Problem::new(
        "git.push_unknown",
        format!("Whether `{git_ref}` was moved is not known."),
        "Read the ref at the remote before anything else; pushing the same commit again is safe.",
    )
    .later()
}

fn push_rejected(session: &Session<'_>, git_ref: &str, said: Vec<String>) -> Problem {
    let problem = Problem::new(
        "git.push_rejected",
        format!("{} refuses the push to `{git_ref}`.", session.url.shown()),
        "Read the server's words: a protected branch needs a pull request (delivery), a hook names its own reason.",
    );
    let definite = said.iter().any(|s| is_definite(s));
    let problem = if definite { problem.never() } else { problem };
    problem.with_all(said)
}

/// Whether a server's words are a decision, which the same push meets again, and not a mishap of its own
/// (a lock, a full disk). Words of git (builtin/receive-pack.c), GitHub, GitLab and Gitea.
fn is_definite(said: &str) -> bool {
    const DECISIONS: [&str; 10] = [
        "hook declined",
        "protected",
        "gh006",
        "gh013",
        "rule violations",
        "permission",
        "denied",
        "not allowed",
        "not permitted",
        "prohibited",
    ];
    let said = said.to_lowercase();
    DECISIONS.iter().any(|d| said.contains(d))
}

/// A credential that may read but not push is refused the next time as well.
fn no_entry(problem: Problem) -> Problem {
    if problem.code == "git.auth" { problem.never() } else { problem }
}

/// The ref stands where it stood: the server said no for the whole push, or the line was cut.
fn refused_or_cut(session: &Session<'_>, git_ref: &str, error: &git2::Error) -> Problem {
    let problem = session.problem(error);
    match problem.code.as_ref() {
        "git.failed" => push_rejected(session, git_ref, problem.evidence),
        "git.auth" => no_entry(problem),
        "git.timeout" | "git.unreachable" => unknown(git_ref).with_all(problem.evidence),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::is_definite;

    #[test]
    fn a_servers_decision_is_told_from_a_mishap() {
        for said in [
            "pre-receive hook declined",
            "protected branch hook declined",
            "GH006: Protected branch update failed for refs/heads/main.",
            "push declined due to repository rule violations",
            "You are not allowed to push code to protected branches on this project.",
            "deletion prohibited",
        ] {
            assert!(is_definite(said), "{said}");
        }
        for said in ["failed to update ref", "cannot lock ref 'refs/heads/main'", "unpacker error", "failed to write"] {
            assert!(!is_definite(said), "{said}");
        }
    }
}
