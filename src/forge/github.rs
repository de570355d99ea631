//! GitHub and GitHub Enterprise Server, through octocrab's generic requests (its own models refuse
//! answers that lack fields we do not need, and its default client repeats writes and follows
//! redirects, so it runs on ours).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use countersign_core::model::MergeMethod;
use countersign_core::{Problem, Result};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::Service;

use super::answer::{self, Call, IssueAnswer, PullAnswer};
use super::wire::{self, Place, Raw};
use super::{BranchStanding, Merge, NewPull, Operations, Pull, PullState, Standing, standing};

pub(super) struct GitHub {
    place: Place,
    crab: Octocrab,
}

impl GitHub {
    pub fn new(place: Place) -> Result<Self> {
        let bad = || Problem::new("forge.config", "The forge's `api_url` cannot be used.", "Correct `api_url`.");
        let origin = place.origin().parse::<http::Uri>().map_err(|_| bad())?;
        let headers = [("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")];
        let headers = headers.map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).to_vec();
        let Ok(crab) = OctocrabBuilder::new_empty()
            .with_service(Transport { client: wire::client(&place)? })
            .with_layer(&BaseUriLayer::new(origin))
            .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
            .with_auth(AuthState::AccessToken { token: place.token.clone() })
            .build();
        Ok(Self { place, crab })
    }

    async fn call(&self, method: Method, parts: &[&str], query: &[(&str, &str)], body: Option<&Value>) -> Result<Raw> {
        self.place.may_ask()?;
        let write = method != Method::GET;
        let path = self.place.path(parts, query)?;
        let lost = |e: &octocrab::Error| {
            inner(e).cloned().unwrap_or_else(|| if write { answer::unknown() } else { answer::unreachable_() })
        };
        let request = self
            .crab
            .build_request(http::request::Builder::new().method(method).uri(path), body)
            .map_err(|e| lost(&e))?;
        let response = self.crab.execute(request).await.map_err(|e| lost(&e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.crab.body_to_string(response).await.map_err(|e| lost(&e))?.into_bytes();
        let raw = Raw { status, headers, body };
        self.place.heed(&raw);
        Ok(raw)
    }

    async fn closed_by(&self, number: u64) -> Result<Option<String>> {
        let raw = self.call(Method::GET, &["issues", &number.to_string()], &[], None).await?;
        match answer::parse::<IssueAnswer>(&raw, Call::Read, &self.place.token) {
            Ok(issue) => Ok(issue.closed_by()),
            Err(e) if matches!(e.code.as_ref(), "forge.not_found" | "forge.auth") => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Our own problem inside octocrab's error.
fn inner(error: &octocrab::Error) -> Option<&Problem> {
    let mut here: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = here {
        if let Some(problem) = e.downcast_ref::<Problem>() {
            return Some(problem);
        }
        here = e.source();
    }
    None
}

#[derive(Deserialize)]
struct Merged {
    sha: String,
}

#[async_trait]
impl Operations for GitHub {
    async fn find(&self, head_branch: &str, base: &str) -> Result<Option<Pull>> {
        let head = format!("{}:{head_branch}", self.place.owner);
        let query = [("head", head.as_str()), ("base", base), ("state", "all"), ("per_page", "100")];
        let raw = self.call(Method::GET, &["pulls"], &query, None).await?;
        let all: Vec<PullAnswer> = answer::parse(&raw, Call::Read, &self.place.token)?;
        let ours =
            all.into_iter().filter(|p| p.is_from(&self.place.owner, &self.place.repo, head_branch, base)).collect();
        match answer::choose(ours) {
            // The list lacks who merged and whether it can be merged.
            Some(found) => self.read(found.number).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read(&self, number: u64) -> Result<Pull> {
        let raw = self.call(Method::GET, &["pulls", &number.to_string()], &[], None).await?;
        let mut pull = answer::pull(&raw, Call::Read, &self.place.token)?;
        if pull.state == PullState::Closed {
            pull.closed_by = self.closed_by(number).await?;
        }
        Ok(pull)
    }

    async fn look(&self) -> Result<Standing> {
        let raw = self.call(Method::GET, &[], &[], None).await?;
        standing::repository(&raw, &self.place.token)
    }

    async fn look_at(&self, branch: &str) -> Result<BranchStanding> {
        let raw = self.call(Method::GET, &["branches", branch], &[], None).await?;
        let mut found = standing::branch(&raw, &self.place.token)?;
        // Rule sets can be read without rights of administration; GitHub Enterprise Server has them from 3.11 on.
        let raw = self.call(Method::GET, &["rules", "branches", branch], &[], None).await?;
        found.rules = standing::rules(&raw, &self.place.token);
        found.protected |= !found.rules.is_empty();
        Ok(found)
    }

    async fn open(&self, new: &NewPull) -> Result<Pull> {
        let body = json!({"title": new.title, "body": new.body, "head": new.head, "base": new.base, "maintainer_can_modify": false});
        let raw = self.call(Method::POST, &["pulls"], &[], Some(&body)).await?;
        if raw.status == StatusCode::UNPROCESSABLE_ENTITY
            && let Some(found) = self.find(&new.head, &new.base).await?.filter(|p| p.state == PullState::Open)
        {
            return Ok(found);
        }
        answer::pull(&raw, Call::Write, &self.place.token)
    }

    async fn say(&self, number: u64, text: &str) -> Result<()> {
        let raw = self
            .call(Method::POST, &["issues", &number.to_string(), "comments"], &[], Some(&json!({"body": text})))
            .await?;
        answer::good(&raw, Call::Write, &self.place.token)
    }

    async fn land(&self, merge: &Merge) -> Result<String> {
        let method = match merge.method {
            MergeMethod::Merge => "merge",
            MergeMethod::Squash => "squash",
            MergeMethod::Rebase => "rebase",
        };
        let mut body = json!({"sha": merge.expected_head, "merge_method": method});
        if merge.method != MergeMethod::Rebase
            && let Some(fields) = body.as_object_mut()
        {
            fields.insert("commit_title".into(), merge.title.clone().into());
            fields.insert("commit_message".into(), merge.message.clone().into());
        }
        let raw = self.call(Method::PUT, &["pulls", &merge.number.to_string(), "merge"], &[], Some(&body)).await?;
        if matches!(raw.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT) {
            let said = answer::words(&raw, &self.place.token);
            return answer::refused_merge(&self.read(merge.number).await?, &merge.expected_head, &said);
        }
        let merged: Merged = answer::parse(&raw, Call::Write, &self.place.token)?;
        if answer::is_sha(&merged.sha) { Ok(merged.sha) } else { Err(answer::unknown()) }
    }

    async fn shut(&self, number: u64) -> Result<()> {
        let raw =
            self.call(Method::PATCH, &["pulls", &number.to_string()], &[], Some(&json!({"state": "closed"}))).await?;
        answer::good(&raw, Call::Write, &self.place.token)
    }
}

/// octocrab's requests over our client.
#[derive(Clone)]
struct Transport {
    client: reqwest::Client,
}

impl Service<Request<OctoBody>> for Transport {
    type Response = Response<reqwest::Body>;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move {
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))
                .map_err(|_| answer::unexpected("the request cannot be made"))?;
            let raw = wire::send(&client, request).await?;
            let mut response = Response::new(reqwest::Body::from(raw.body));
            *response.status_mut() = raw.status;
            *response.headers_mut() = raw.headers;
            Ok(response)
        })
    }
}
