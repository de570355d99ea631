//! Reading what forges answer.

use countersign_core::{Problem, Result};
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::wire::Raw;
use super::{Pull, PullState};

const MAX_WORDS: usize = 300;

/// What an answer is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
}

/// A pull request in the shape that GitHub, Gitea and Forgejo share.
#[derive(Debug, Deserialize)]
pub(super) struct PullAnswer {
    pub number: u64,
    #[serde(default)]
    html_url: Option<String>,
    state: String,
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    merged_at: Option<String>,
    #[serde(default)]
    merge_commit_sha: Option<String>,
    /// Gitea before 1.20.
    #[serde(default)]
    merged_commit_id: Option<String>,
    #[serde(default)]
    merged_by: Option<User>,
    #[serde(default)]
    mergeable: Option<bool>,
    head: Side,
    base: Side,
}

#[derive(Debug, Deserialize)]
pub(super) struct User {
    login: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    name: String,
    #[serde(default)]
    sha: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    repo: Option<RepoName>,
}

#[derive(Debug, Deserialize)]
struct RepoName {
    #[serde(default)]
    full_name: Option<String>,
}

/// An issue, for who closed it.
#[derive(Debug, Deserialize)]
pub(super) struct IssueAnswer {
    #[serde(default)]
    closed_by: Option<User>,
}

impl IssueAnswer {
    pub fn closed_by(self) -> Option<String> {
        self.closed_by.and_then(|u| u.login)
    }
}

impl PullAnswer {
    /// Whether it goes from this branch of this very repository (not of a fork) to that base.
    pub fn is_from(&self, owner: &str, repo: &str, head_branch: &str, base: &str) -> bool {
        let full = format!("{owner}/{repo}");
        let ours =
            self.head.repo.as_ref().and_then(|r| r.full_name.as_ref()).is_none_or(|n| n.eq_ignore_ascii_case(&full));
        let label =
            self.head.label.as_deref().map(|l| l.rsplit_once(':').map_or((None, l), |(who, name)| (Some(who), name)));
        let foreign = label.and_then(|(who, _)| who).is_some_and(|who| !who.eq_ignore_ascii_case(owner));
        // Gitea shows `refs/pull/N/head` once the branch is gone; the label keeps its name.
        let kept = self.head.name.starts_with("refs/pull/") && label.is_some_and(|(_, name)| name == head_branch);
        ours && !foreign && (self.head.name == head_branch || kept) && self.base.name == base
    }

    pub fn is_open(&self) -> bool {
        self.state == "open"
    }

    /// `None` = a state or commit that is not understood.
    pub fn into_pull(self) -> Option<Pull> {
        let merged = self.merged.unwrap_or(false) || self.merged_at.as_deref().is_some_and(|t| !t.is_empty());
        let state = match (merged, self.state.as_str()) {
            (true, _) => PullState::Merged,
            (false, "open") => PullState::Open,
            (false, "closed") => PullState::Closed,
            _ => return None,
        };
        // While open, GitHub's merge_commit_sha is a trial merge that nobody follows.
        let merge_commit = self.merge_commit_sha.or(self.merged_commit_id).filter(|_| merged).filter(|s| is_sha(s));
        Some(Pull {
            number: self.number,
            url: self.html_url.unwrap_or_default(),
            state,
            head_branch: self.head.name,
            head_sha: self.head.sha.filter(|s| is_sha(s))?,
            base: self.base.name,
            merge_commit,
            merged_by: self.merged_by.filter(|_| merged).and_then(|u| u.login),
            closed_by: None,
            mergeable: self.mergeable,
        })
    }
}

pub(super) fn is_sha(s: &str) -> bool {
    matches!(s.len(), 40 | 64) && s.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The open one, else the newest.
pub(super) fn choose(mut all: Vec<PullAnswer>) -> Option<PullAnswer> {
    all.sort_by_key(|p| (p.is_open(), p.number));
    all.pop()
}

/// Reads a good answer, or says what is wrong with a bad one.
pub(super) fn parse<T: DeserializeOwned>(raw: &Raw, call: Call, token: &SecretString) -> Result<T> {
    good(raw, call, token)?;
    serde_json::from_slice(&raw.body).map_err(|_| match call {
        Call::Write => unknown(),
        Call::Read => unexpected("the answer is not what this API documents"),
    })
}

/// A pull request that is understood whole.
pub(super) fn pull(raw: &Raw, call: Call, token: &SecretString) -> Result<Pull> {
    parse::<PullAnswer>(raw, call, token)?.into_pull().ok_or_else(|| match call {
        Call::Write => unknown(),
        Call::Read => unexpected("the pull request's state or commit is not understood"),
    })
}

/// `Ok` for 2xx; else the problem behind the status.
pub(super) fn good(raw: &Raw, call: Call, token: &SecretString) -> Result<()> {
    let status = raw.status;
    if status.is_success() {
        return Ok(());
    }
    let said = words(raw, token);
    let fact = format!("HTTP {}: {said}", status.as_u16());
    if limited(raw) {
        return Err(rate_limited(pause_s(raw)).with(fact));
    }
    let problem = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Problem::new(
            "forge.auth",
            "The forge does not accept the token for this.",
            "Check the token of `forge`: not expired, and allowed to write pull requests and contents.",
        ),
        StatusCode::NOT_FOUND | StatusCode::GONE => Problem::new(
            "forge.not_found",
            "The forge does not have this, or the token may not see it.",
            "Check `owner`, `repo` and the token of `forge`.",
        ),
        s if s.is_redirection() => Problem::new(
            "forge.redirected",
            "The forge answers from another address, and redirects are not followed.",
            "If the repository or the API has moved, correct `forge` in the Repository.",
        ),
        s if s.is_server_error() || s == StatusCode::REQUEST_TIMEOUT => match call {
            Call::Write => unknown(),
            Call::Read => unreachable_(),
        },
        _ if call == Call::Write => Problem::new(
            "forge.rejected",
            "The forge refuses this.",
            "Read the forge's words and put right what they name.",
        ),
        _ => return Err(unexpected(&fact)),
    };
    Err(problem.with(fact))
}

fn header<'r>(raw: &'r Raw, name: &str) -> Option<&'r str> {
    raw.headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
}

/// GitHub says 403 or 429, with `retry-after`, or with nothing remaining until `x-ratelimit-reset`.
pub(super) fn limited(raw: &Raw) -> bool {
    let lower = || String::from_utf8_lossy(&raw.body).to_lowercase();
    raw.status == StatusCode::TOO_MANY_REQUESTS
        || (raw.status == StatusCode::FORBIDDEN
            && (header(raw, "retry-after").is_some()
                || header(raw, "x-ratelimit-remaining") == Some("0")
                || ["rate limit", "abuse"].iter().any(|w| lower().contains(w))))
}

/// Seconds that the forge asks to be left alone, at least one and at most a day. GitHub's rules for
/// integrators: `retry-after`; with nothing remaining, until `x-ratelimit-reset`; else a minute.
pub(super) fn pause_s(raw: &Raw) -> u64 {
    let date = |text: &str| chrono::DateTime::parse_from_rfc2822(text).ok().map(|d| d.timestamp());
    // The forge's own clock where it tells it: ours may differ.
    let now = || header(raw, "date").and_then(date).unwrap_or_else(|| chrono::Utc::now().timestamp());
    let until = |at: i64| u64::try_from(at - now()).unwrap_or(0).saturating_add(1);
    let after = header(raw, "retry-after").and_then(|v| v.parse().ok().or_else(|| date(v).map(until)));
    let reset = || header(raw, "x-ratelimit-reset").and_then(|v| v.parse().ok()).map(until);
    let spent = header(raw, "x-ratelimit-remaining") == Some("0");
    after.or_else(|| if spent { reset() } else { None }).unwrap_or(60).clamp(1, 86_400)
}

pub(super) fn rate_limited(seconds: u64) -> Problem {
    Problem::new(
        "forge.rate_limited",
        "The forge asks to wait.",
        "Nothing; it is tried again after the time that the forge names.",
    )
    .later()
    .retry_after(seconds)
}

/// The forge's own words: one line, capped, without the token.
pub(super) fn words(raw: &Raw, token: &SecretString) -> String {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        errors: Option<serde_json::Value>,
    }
    let text = match serde_json::from_slice::<Said>(&raw.body) {
        Ok(Said { message: Some(m), errors: None | Some(serde_json::Value::Null) }) => m,
        Ok(Said { message, errors: Some(e) }) => format!("{} {e}", message.unwrap_or_default()),
        _ => String::from_utf8_lossy(&raw.body).into_owned(),
    };
    let text = text.replace(token.expose_secret(), "[redacted]");
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    line.trim().to_owned()
}

pub(super) fn unknown() -> Problem {
    Problem::new(
        "forge.unknown_outcome",
        "Whether the forge has done this is not known.",
        "Read the pull request at the forge before anything else.",
    )
    .later()
}

pub(super) fn unreachable_() -> Problem {
    Problem::new(
        "forge.unreachable",
        "The forge cannot be reached.",
        "Check `api_url` and the network; it is tried again.",
    )
    .later()
}

pub(super) fn unexpected(why: &str) -> Problem {
    Problem::new(
        "forge.unexpected",
        "The forge's answer is not understood.",
        "Check that `kind` and `api_url` of `forge` fit together.",
    )
    .with(why)
}

/// After a merge that was refused: done already, head moved, or not mergeable.
pub(super) fn refused_merge(now: &Pull, expected_head: &str, said: &str) -> Result<String> {
    let same_head = now.head_sha.eq_ignore_ascii_case(expected_head);
    match (now.state, &now.merge_commit) {
        (PullState::Merged, Some(commit)) if same_head => Ok(commit.clone()),
        (PullState::Merged, None) if same_head => Err(unknown()),
        _ if !same_head => Err(Problem::new(
            "forge.head_moved",
            "The pull request's branch is not at the commit that was approved.",
            "The approval is void; prepare the change again.",
        )
        .with(format!("expected: {expected_head}"))
        .with(format!("current: {}", now.head_sha))),
        (PullState::Closed, _) => Err(Problem::new(
            "forge.closed",
            "The pull request was closed without a merge.",
            "A closed pull request is a rejection.",
        )
        .with(said)),
        _ => {
            let problem = Problem::new(
                "forge.not_mergeable",
                "The forge does not merge this pull request now.",
                "Read the forge's words: required checks or reviews, a conflict, or a base that has moved.",
            )
            .with(said);
            let lower = said.to_lowercase();
            let pending =
                now.mergeable.is_none() || lower.contains("try again") || lower.contains("try the merge again");
            Err(if pending { problem.later() } else { problem })
        }
    }
}
