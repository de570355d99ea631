//! Gitea and Forgejo: a thin client of their common API.

use async_trait::async_trait;
use countersign_core::Result;
use countersign_core::model::MergeMethod;
use http::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::answer::{self, Call, IssueAnswer, PullAnswer};
use super::wire::{self, Place, Raw};
use super::{BranchStanding, Merge, NewPull, Operations, Pull, PullState, Standing, standing};

/// Pages of 50 that are searched for a pull request, newest first.
const MAX_PAGES: u32 = 10;
const PAGE: usize = 50;

pub(super) struct Gitea {
    place: Place,
    client: reqwest::Client,
}

impl Gitea {
    pub fn new(place: Place) -> Result<Self> {
        let client = wire::client(&place)?;
        Ok(Self { place, client })
    }

    async fn call(&self, method: Method, parts: &[&str], query: &[(&str, &str)], body: Option<&Value>) -> Result<Raw> {
        self.place.may_ask()?;
        let address = format!("{}{}", self.place.origin(), self.place.path(parts, query)?);
        let mut request = self
            .client
            .request(method, address)
            .header("authorization", format!("token {}", self.place.token.expose_secret()))
            .header("accept", "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        let request = request.build().map_err(|_| answer::unexpected("the request cannot be made"))?;
        let raw = wire::send(&self.client, request).await?;
        self.place.heed(&raw);
        Ok(raw)
    }

    async fn closed_by(&self, number: u64) -> Option<String> {
        // Not every version tells it; nothing hangs on it.
        let raw = self.call(Method::GET, &["issues", &number.to_string()], &[], None).await.ok()?;
        answer::parse::<IssueAnswer>(&raw, Call::Read, &self.place.token).ok()?.closed_by()
    }
}

#[async_trait]
impl Operations for Gitea {
    async fn find(&self, head_branch: &str, base: &str) -> Result<Option<Pull>> {
        let mut ours = Vec::new();
        for page in 1..=MAX_PAGES {
            let (page, limit) = (page.to_string(), PAGE.to_string());
            let query = [("state", "all"), ("limit", limit.as_str()), ("page", page.as_str())];
            let raw = self.call(Method::GET, &["pulls"], &query, None).await?;
            let all: Vec<PullAnswer> = answer::parse(&raw, Call::Read, &self.place.token)?;
            let last = all.is_empty();
            ours.extend(all.into_iter().filter(|p| p.is_from(&self.place.owner, &self.place.repo, head_branch, base)));
            // Newest first: what comes later is older than what was found, and only one can be open.
            if last || !ours.is_empty() {
                break;
            }
        }
        match answer::choose(ours) {
            Some(found) => self.read(found.number).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read(&self, number: u64) -> Result<Pull> {
        let raw = self.call(Method::GET, &["pulls", &number.to_string()], &[], None).await?;
        let mut pull = answer::pull(&raw, Call::Read, &self.place.token)?;
        if pull.state == PullState::Closed {
            pull.closed_by = self.closed_by(number).await;
        }
        Ok(pull)
    }

    async fn look(&self) -> Result<Standing> {
        let raw = self.call(Method::GET, &[], &[], None).await?;
        standing::repository(&raw, &self.place.token)
    }

    async fn look_at(&self, branch: &str) -> Result<BranchStanding> {
        let raw = self.call(Method::GET, &["branches", branch], &[], None).await?;
        standing::branch(&raw, &self.place.token)
    }

    async fn open(&self, new: &NewPull) -> Result<Pull> {
        let body = json!({"title": new.title, "body": new.body, "head": new.head, "base": new.base});
        let raw = self.call(Method::POST, &["pulls"], &[], Some(&body)).await?;
        if matches!(raw.status, StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY)
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
        let body = json!({
            "Do": method,
            "MergeTitleField": merge.title,
            "MergeMessageField": merge.message,
            "head_commit_id": merge.expected_head,
            "delete_branch_after_merge": false,
        });
        let raw = self.call(Method::POST, &["pulls", &merge.number.to_string(), "merge"], &[], Some(&body)).await?;
        if matches!(
            raw.status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
        ) {
            let said = answer::words(&raw, &self.place.token);
            return answer::refused_merge(&self.read(merge.number).await?, &merge.expected_head, &said);
        }
        answer::good(&raw, Call::Write, &self.place.token)?;
        // The answer is empty; the commit is read. A read that fails leaves the outcome open.
        let now = self.read(merge.number).await.map_err(|e| answer::unknown().with(e.message))?;
        match now.merge_commit {
            Some(commit) if now.state == PullState::Merged => Ok(commit),
            _ => Err(answer::unknown()),
        }
    }

    async fn shut(&self, number: u64) -> Result<()> {
        let raw =
            self.call(Method::PATCH, &["pulls", &number.to_string()], &[], Some(&json!({"state": "closed"}))).await?;
        answer::good(&raw, Call::Write, &self.place.token)
    }
}
