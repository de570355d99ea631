//! Conversations with the remote: who it is, what it has, and fetching one branch.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use countersign_core::{Problem, Result};
use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, Direction, FetchOptions, Oid, Remote, RemoteCallbacks,
    RemoteHead, RemoteRedirect, Repository,
};
use secrecy::ExposeSecret as _;

use super::access::Credentials;
use super::lane::timed_out;
use super::url::{RemoteUrl, Transport, is_loopback};
use super::{failure, known_hosts};

const MAX_CREDENTIAL_ATTEMPTS: u32 = 2;
/// How often the size of the growing pack is looked at, in progress calls.
const SIZE_CHECK_EVERY: u32 = 256;

/// Caps of one fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchCaps {
    pub objects: usize,
    pub bytes: u64,
}

/// One conversation: address, credential, deadline, and why we broke it off.
pub(crate) struct Session<'a> {
    pub url: &'a RemoteUrl,
    pub credentials: &'a Credentials,
    pub dir: &'a Path,
    pub deadline: Instant,
    reason: Rc<RefCell<Option<Problem>>>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(url: &'a RemoteUrl, credentials: &'a Credentials, dir: &'a Path, deadline: Instant) -> Self {
        Self { url, credentials, dir, deadline, reason: Rc::new(RefCell::new(None)) }
    }

    /// Remembers why a callback refuses, and gives libgit2 an error to stop with.
    pub(crate) fn refuse(&self, problem: Problem) -> git2::Error {
        let text = problem.message.clone();
        self.reason.borrow_mut().get_or_insert(problem);
        git2::Error::from_str(&text)
    }

    /// The problem behind an error: our own reason, or a reading of libgit2's.
    pub(crate) fn problem(&self, error: &git2::Error) -> Problem {
        match self.reason.borrow_mut().take() {
            Some(reason) => reason,
            None if Instant::now() >= self.deadline => timed_out(),
            None => failure::remote(self.url, self.credentials, self.dir, error),
        }
    }

    pub(crate) fn late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Callbacks for every conversation: credential, host key, deadline.
    pub(crate) fn callbacks<'s>(&'s self) -> RemoteCallbacks<'s> {
        let mut cb = RemoteCallbacks::new();
        let attempts = Cell::new(0u32);
        cb.credentials(move |asked, user, allowed| self.credential(asked, user, allowed, &attempts));
        cb.certificate_check(move |cert, host| self.certificate(cert, host));
        cb.sideband_progress(move |_| !self.late());
        cb
    }

    fn credential(
        &self,
        asked: &str,
        user: Option<&str>,
        allowed: CredentialType,
        attempts: &Cell<u32>,
    ) -> Result<Cred, git2::Error> {
        let shown = self.url.shown();
        if !self.same_host(asked) {
            return Err(self.refuse(Problem::new(
                "git.redirected",
                format!("Another host than that of {shown} asks for the credential."),
                "Correct the Repository's `url`.",
            )));
        }
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(self.user(user));
        }
        if attempts.get() >= MAX_CREDENTIAL_ATTEMPTS {
            return Err(self.refuse(failure::auth(&shown)));
        }
        attempts.set(attempts.get() + 1);
        if allowed.contains(CredentialType::SSH_KEY)
            && let Some(key) = &self.credentials.ssh_key_pem
        {
            let pem = format!("{}\n", key.expose_secret().trim());
            return Cred::ssh_key_from_memory(self.user(user), None, &pem, None);
        }
        if allowed.contains(CredentialType::USER_PASS_PLAINTEXT)
            && self.url.transport != Transport::Ssh
            && let Some(token) = &self.credentials.token
        {
            return Cred::userpass_plaintext(
                self.credentials.username.as_deref().unwrap_or("git"),
                token.expose_secret(),
            );
        }
        Err(self.refuse(failure::auth(&shown).with("no fitting credential is configured")))
    }

    fn user<'u>(&'u self, from_url: Option<&'u str>) -> &'u str {
        from_url.or(self.url.user.as_deref()).or(self.credentials.username.as_deref()).unwrap_or("git")
    }

    /// libgit2 names the address that asks; a credential goes to the configured host alone.
    fn same_host(&self, asked: &str) -> bool {
        RemoteUrl::parse(asked)
            .is_ok_and(|a| a.host == self.url.host && a.port == self.url.port && a.transport == self.url.transport)
    }

    fn certificate(&self, cert: &git2::cert::Cert<'_>, host: &str) -> Result<CertificateCheckStatus, git2::Error> {
        if self.url.transport != Transport::Ssh {
            return Ok(CertificateCheckStatus::CertificatePassthrough);
        }
        let pinned = self.credentials.known_hosts.as_deref().unwrap_or_default();
        let offered = cert.as_hostkey().and_then(|k| k.hostkey()).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match known_hosts::check(pinned, host, self.url.port.unwrap_or(22), offered) {
            Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
            Err(problem) => Err(self.refuse(problem)),
        }
    }

    /// A remote for this address; refused before any byte is sent if it could leak a secret.
    pub(crate) fn remote<'r>(&self, repo: &'r Repository) -> Result<Remote<'r>> {
        if self.url.transport == Transport::Http && !is_loopback(&self.url.host) {
            return Err(
                Problem::new("git.url", "Plain http is accepted for loopback hosts only.", "Use https.").never()
            );
        }
        if self.url.transport == Transport::Ssh
            && self.credentials.known_hosts.as_deref().unwrap_or_default().trim().is_empty()
        {
            return Err(Problem::new(
                "git.host_key",
                format!("No host key is pinned for {}.", self.url.host),
                "Put the host's lines (from its operator, or `ssh-keyscan` compared with them) into `auth.known_hosts`.",
            ));
        }
        repo.remote_anonymous(self.url.address()).map_err(|e| self.problem(&e))
    }
}

/// A ref at the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub name: String,
    pub id: Oid,
    pub symref: Option<String>,
}

fn head(h: &RemoteHead<'_>) -> Head {
    Head { name: h.name().to_owned(), id: h.oid(), symref: h.symref_target().map(str::to_owned) }
}

/// All refs at the remote (ls-remote).
pub(crate) fn list(repo: &Repository, session: &Session<'_>) -> Result<Vec<Head>> {
    let mut remote = session.remote(repo)?;
    let fail = |e: git2::Error| session.problem(&e);
    let connection = remote.connect_auth(Direction::Fetch, Some(session.callbacks()), None).map_err(fail)?;
    Ok(connection.list().map_err(fail)?.iter().map(head).collect())
}

/// Opens the receiving side of a push and closes it again; nothing is sent.
pub(crate) fn knock(repo: &Repository, session: &Session<'_>) -> Result<()> {
    let mut remote = session.remote(repo)?;
    let fail = |e: git2::Error| session.problem(&e);
    let connection = remote.connect_auth(Direction::Push, Some(session.callbacks()), None).map_err(fail)?;
    connection.list().map(|_| ()).map_err(fail)
}

/// Where the mirror keeps a branch of the remote.
pub(crate) fn tracking(branch_ref: &str) -> String {
    format!("refs/countersign/heads/{}", branch_ref.trim_start_matches("refs/heads/"))
}

/// Fetches one branch with its history; gives its tip at the remote.
pub(crate) fn fetch(repo: &Repository, session: &Session<'_>, branch_ref: &str, caps: FetchCaps) -> Result<Oid> {
    let mut remote = session.remote(repo)?;
    let mut connection =
        remote.connect_auth(Direction::Fetch, Some(session.callbacks()), None).map_err(|e| session.problem(&e))?;
    fetch_connected(repo, session, connection.remote(), branch_ref, caps)
}

fn fetch_connected(
    repo: &Repository,
    session: &Session<'_>,
    remote: &mut Remote<'_>,
    branch_ref: &str,
    caps: FetchCaps,
) -> Result<Oid> {
    let listed = remote.list().map_err(|e| session.problem(&e))?.iter().map(head).find(|h| h.name == branch_ref);
    let Some(head) = listed else {
        return Err(branch_missing(session, branch_ref));
    };
    let local = tracking(branch_ref);
    if repo.refname_to_id(&local).is_ok_and(|id| id == head.id) && repo.find_commit(head.id).is_ok() {
        return Ok(head.id);
    }
    let mut callbacks = session.callbacks();
    let ticks = Cell::new(0u32);
    callbacks.transfer_progress(move |p| within(session, &ticks, caps, &p));
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(callbacks)
        .download_tags(AutotagOption::None)
        .follow_redirects(RemoteRedirect::None)
        .update_fetchhead(false);
    remote.fetch(&[format!("+{branch_ref}:{local}")], Some(&mut options), None).map_err(|e| session.problem(&e))?;
    let got = repo.refname_to_id(&local).map_err(|e| failure::local("Reading the fetched branch", &e))?;
    repo.find_commit(got).map(|c| c.id()).map_err(|e| failure::local("Reading the fetched commit", &e))
}

/// The branch is not there.
pub(crate) fn branch_missing(session: &Session<'_>, branch_ref: &str) -> Problem {
    Problem::new(
        "git.branch_missing",
        format!(
            "{} has no branch `{}`.",
            session.url.shown(),
            branch_ref.trim_start_matches("refs/heads/").escape_debug()
        ),
        "Check the branch that the owner follows; it is not created here.",
    )
}

fn within(session: &Session<'_>, ticks: &Cell<u32>, caps: FetchCaps, progress: &git2::Progress<'_>) -> bool {
    let tick = ticks.get();
    ticks.set(tick.wrapping_add(1));
    // The counter of received bytes stays at zero on some transports, so the growing pack is measured too.
    let mut bytes = progress.received_bytes() as u64;
    if tick.is_multiple_of(SIZE_CHECK_EVERY) {
        bytes = bytes.max(incoming_bytes(session.dir));
    }
    if progress.total_objects() > caps.objects || bytes > caps.bytes {
        let _ = session.refuse(
            Problem::new(
                "git.too_large",
                format!("{} is larger than the limit for one fetch.", session.url.shown()),
                "Raise the limit for fetches, or use a smaller repository.",
            )
            .with(format!("objects: {}, bytes: {bytes}", progress.total_objects())),
        );
        return false;
    }
    !session.late()
}

/// Bytes of packs that are being received (`objects/pack/pack_*` without an extension).
fn incoming_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir.join("objects/pack")) else { return 0 };
    entries
        .flatten()
        .filter(|e| Path::new(&e.file_name()).extension().is_none())
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}
