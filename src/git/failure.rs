//! libgit2's errors as coded problems: no secret, no machine path, no control characters.

use std::path::Path;

use countersign_core::Problem;
use git2::{ErrorClass, ErrorCode};

use super::access::Credentials;
use super::url::{RemoteUrl, Transport};

const MAX_WORDS: usize = 400;

/// Words of another program, made fit to be shown: one line, printable, without secrets and paths.
pub(crate) fn words(text: &str, credentials: &Credentials, dir: &Path) -> String {
    let text = credentials.redact(text).replace(&*dir.to_string_lossy(), "[mirror]");
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line
        .split_whitespace()
        .map(|w| if w.trim_start_matches(['\'', '"', '(']).starts_with('/') { "[path]" } else { w })
        .collect::<Vec<_>>()
        .join(" ");
    let mut short: String = line.chars().take(MAX_WORDS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

/// An error of the local object store.
pub(crate) fn local(what: &str, error: &git2::Error) -> Problem {
    let shown = words(error.message(), &Credentials::default(), Path::new("\0"));
    match error.code() {
        ErrorCode::NotFound => Problem::new(
            "git.object_missing",
            format!("{what}: it is not in the mirror."),
            "Fetch the branch, then try again.",
        )
        .later()
        .with(shown),
        _ => Problem::new(
            "git.failed",
            format!("{what} failed."),
            "Look at the evidence; a broken mirror is made anew on restart.",
        )
        .later()
        .with(shown),
    }
}

/// An error of a conversation with the remote.
pub(crate) fn remote(url: &RemoteUrl, credentials: &Credentials, dir: &Path, error: &git2::Error) -> Problem {
    let said = words(error.message(), credentials, dir);
    let lower = said.to_lowercase();
    let shown = url.shown();
    let status =
        |code: &str| lower.contains(&format!("status code: {code}")) || lower.contains(&format!("status {code}"));
    let problem = if error.code() == ErrorCode::Certificate {
        certificate(url, &shown)
    } else if error.code() == ErrorCode::Auth || status("401") || status("403") || lower.contains("authenticat") {
        auth(&shown)
    } else if lower.contains("redirect") {
        Problem::new(
            "git.redirected",
            format!("{shown} answers from another address, and redirects are not followed."),
            "If the repository has moved, put its new address into the Repository's `url`.",
        )
    } else if status("404") || is_absent(url, error, &lower) {
        Problem::new(
            "git.not_found",
            format!("There is no repository {shown}, or the credential may not see it."),
            "Check the Repository's `url` and `auth`.",
        )
    } else if error.code() == ErrorCode::NotFastForward {
        Problem::new(
            "git.not_fast_forward",
            format!("{shown} has commits that this one does not build on."),
            "Fetch and prepare the change again.",
        )
    } else if is_network(error, &lower) || status("5") || status("429") {
        unreachable_(&shown)
    } else {
        Problem::new("git.failed", format!("Git failed on {shown}."), "Look at the evidence and try again.").later()
    };
    problem.with(said)
}

/// The credential was refused, or there is none.
pub(crate) fn auth(shown: &str) -> Problem {
    Problem::new(
        "git.auth",
        format!("{shown} does not accept the credential."),
        "Check the Repository's `auth`: the key or token, and that it may read and push.",
    )
}

/// The host does not answer.
pub(crate) fn unreachable_(shown: &str) -> Problem {
    Problem::new(
        "git.unreachable",
        format!("{shown} cannot be reached."),
        "Check the network and the host; it is tried again.",
    )
    .later()
}

fn certificate(url: &RemoteUrl, shown: &str) -> Problem {
    if url.transport == Transport::Ssh {
        return Problem::new(
            "git.host_key",
            format!("The host key of {shown} is not the pinned one."),
            "Compare the host's key with its operator, then correct `auth.known_hosts`.",
        );
    }
    Problem::new(
        "git.tls",
        format!("The certificate of {shown} is not trusted."),
        "Install the issuing authority in the system's trust store, or correct the address.",
    )
}

fn is_absent(url: &RemoteUrl, error: &git2::Error, lower: &str) -> bool {
    // A path that is not there falls through libgit2's choice of transports.
    (url.transport == Transport::Local
        && (error.code() == ErrorCode::NotFound
            || error.class() == ErrorClass::Os
            || lower.contains("unsupported url protocol")))
        || lower.contains("repository not found")
        || lower.contains("does not appear to be a git repository")
        || lower.contains("could not find repository")
}

fn is_network(error: &git2::Error, lower: &str) -> bool {
    matches!(error.class(), ErrorClass::Net | ErrorClass::Os | ErrorClass::Ssl | ErrorClass::Ssh | ErrorClass::Http)
        || error.code() == ErrorCode::Timeout
        || error.code() == ErrorCode::Eof
        || lower.contains("timed out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_no_secret_no_path_and_no_control_character() {
        let creds = Credentials { token: Some("tok-12345".into()), ..Credentials::default() };
        let dir = Path::new("/var/lib/countersign/mirrors/a");
        let said =
            words("bad\x1b[31m tok-12345 in '/var/lib/countersign/mirrors/a/objects' and /home/x/y\nz", &creds, dir);
        assert!(
            !said.contains("tok-12345") && !said.contains("/var") && !said.contains("/home") && !said.contains('\x1b'),
            "{said}"
        );
        assert!(words(&"x".repeat(10_000), &creds, dir).chars().count() <= MAX_WORDS + 1);
    }
}
