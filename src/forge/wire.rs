//! HTTP to a forge: one host, bounded time and size, no redirects, no second try of a write.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_core::model::ForgeSpec;
use countersign_core::{Problem, Result};
use http::{HeaderMap, Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::answer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// Which repository at which forge.
pub(super) struct Place {
    pub base: Url,
    pub owner: String,
    pub repo: String,
    pub token: SecretString,
    quiet_until: Mutex<Option<Instant>>,
}

impl Place {
    pub fn new(spec: &ForgeSpec, token: SecretString) -> Result<Self> {
        let bad = |what: &str| {
            Problem::new(
                "forge.config",
                format!("The forge's {what} cannot be used."),
                "Correct `forge` in the Repository; `api_url` is https, or http on loopback.",
            )
        };
        let base = Url::parse(spec.api_url.trim_end_matches('/')).map_err(|_| bad("`api_url`"))?;
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let scheme = base.scheme() == "https" || (base.scheme() == "http" && loopback);
        if !scheme
            || host.is_empty()
            || base.query().is_some()
            || base.fragment().is_some()
            || !base.username().is_empty()
            || base.password().is_some()
        {
            return Err(bad("`api_url`"));
        }
        let name = |s: &str| {
            !s.is_empty()
                && s.len() <= 100
                && s != "."
                && s != ".."
                && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        if !name(&spec.owner) || !name(&spec.repo) {
            return Err(bad("`owner` or `repo`"));
        }
        if token.expose_secret().trim().is_empty() {
            return Err(bad("`token`"));
        }
        let token = token.expose_secret().trim().to_owned().into();
        Ok(Self { base, owner: spec.owner.clone(), repo: spec.repo.clone(), token, quiet_until: Mutex::new(None) })
    }

    /// Refuses, without a request, while the forge has asked to be left alone: one change's limit
    /// holds for all of them, and asking meanwhile makes GitHub's longer.
    pub fn may_ask(&self) -> Result<()> {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.map(|u| u.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(answer::rate_limited(left.as_secs().saturating_add(1))),
            _ => Ok(()),
        }
    }

    /// Takes note of an answer that asks to wait.
    pub fn heed(&self, raw: &Raw) {
        if answer::limited(raw) {
            let until = Instant::now().checked_add(Duration::from_secs(answer::pause_s(raw)));
            *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }

    /// Path (with query) below the API's base for this repository; `parts` are escaped.
    pub fn path(&self, parts: &[&str], query: &[(&str, &str)]) -> Result<String> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Problem::new("forge.config", "The forge's `api_url` has no path.", "Correct `api_url`."))?
            .pop_if_empty()
            .extend(["repos", &self.owner, &self.repo])
            .extend(parts);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(match url.query() {
            Some(q) => format!("{}?{q}", url.path()),
            None => url.path().to_owned(),
        })
    }

    /// Scheme, host and port alone.
    pub fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

/// An answer, read whole.
pub(super) struct Raw {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A client with the bounds above.
pub(super) fn client(place: &Place) -> Result<reqwest::Client> {
    let builder = crate::https::client();
    // A proxy of the environment must not see what is sent in the clear on this machine.
    let builder = if place.base.scheme() == "http" { builder.no_proxy() } else { builder };
    builder
        .user_agent("countersign")
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|_| {
            Problem::new("forge.config", "The HTTP client cannot be made.", "Check the system's certificate store.")
        })
}

/// Sends one request, once. A failure after the request may have arrived is an unknown outcome for a write.
pub(super) async fn send(client: &reqwest::Client, request: reqwest::Request) -> Result<Raw> {
    let write = request.method() != Method::GET;
    let lost = |e: &reqwest::Error| {
        if write && !e.is_connect() && !e.is_builder() { answer::unknown() } else { answer::unreachable_() }
    };
    let mut response = client.execute(request).await.map_err(|e| lost(&e))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| lost(&e))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(if write { answer::unknown() } else { answer::unexpected("the answer is too large") });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Raw { status, headers, body })
}
