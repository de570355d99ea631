//! Errors as small documents: a stable code, one sentence, what to do next, whether a retry helps.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Result with a [`Problem`].
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// Whether calling again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same call will never succeed.
    Never,
    /// The same call succeeds once what `next` names has been put right.
    AfterFix,
    /// Something is down or busy: the same call may succeed later.
    Later,
}

/// What went wrong, for whoever has to act on it. Never holds a secret, a token or a machine path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// Stable, dotted code (`git.lease_lost`); every code has an entry in `docs/errors.md`.
    pub code: Cow<'static, str>,
    /// One sentence: what is wrong.
    pub message: String,
    /// What to do next, in the imperative.
    pub next: String,
    /// Whether a retry helps.
    pub retry: Retry,
    /// Facts that show it (owners found, nearest names, the engine's own words).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

const RETRY_AFTER: &str = "retry_after_s: ";

impl Problem {
    /// A problem that goes away once `next` is done.
    pub fn new(code: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code),
            message: message.into(),
            next: next.into(),
            retry: Retry::AfterFix,
            evidence: Vec::new(),
        }
    }

    /// The same, but no retry will ever help.
    #[must_use]
    pub fn never(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }

    /// The same, but trying later may help.
    #[must_use]
    pub fn later(mut self) -> Self {
        self.retry = Retry::Later;
        self
    }

    /// Adds one fact.
    #[must_use]
    pub fn with(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// Adds how many seconds the other side asks to be left alone.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(format!("{RETRY_AFTER}{seconds}"))
    }

    /// Seconds that the other side asked to be left alone, as [`Problem::retry_after`] put them.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.evidence.iter().find_map(|e| e.strip_prefix(RETRY_AFTER)?.parse().ok())
    }

    /// Adds several facts.
    #[must_use]
    pub fn with_all<I: IntoIterator<Item = S>, S: Into<String>>(mut self, evidence: I) -> Self {
        self.evidence.extend(evidence.into_iter().map(Into::into));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.code, self.message, self.next)?;
        for e in &self.evidence {
            write!(f, "\n  - {e}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
