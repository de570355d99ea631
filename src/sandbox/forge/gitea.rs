//! Gitea's API v1, the part that a delivery needs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::github::{caller, logged, parse};
use super::github_shape::wanted;
use super::merge::Method;
use super::pulls::{MergeAsk, NewPull, Refused};
use super::state::{ForgeUser, PullState};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/version", get(|| async { Json(json!({"version": "1.24.0+sandbox"})) }))
        .route("/user", get(me))
        .route("/repos/{owner}/{name}", get(repo))
        .route("/repos/{owner}/{name}/branches/{*branch}", get(branch).delete(delete_branch))
        .route("/repos/{owner}/{name}/pulls", get(list).post(open))
        .route("/repos/{owner}/{name}/pulls/{number}", get(pull).patch(edit))
        .route("/repos/{owner}/{name}/pulls/{base}/{*head}", get(by_branches))
        .route("/repos/{owner}/{name}/pulls/{number}/merge", get(is_merged).post(merge))
        .route("/repos/{owner}/{name}/pulls/{number}/reviews", get(reviews))
        .route("/repos/{owner}/{name}/issues/{number}/comments", get(comments).post(comment))
        .fallback(any(|| async { Tea(Refused::NotFound) }))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), logged))
        .with_state(shared)
}

type Server = State<Arc<Shared>>;
type Answer = Result<Response, Tea>;

/// A refusal in Gitea's words.
struct Tea(Refused);

impl From<Refused> for Tea {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

impl IntoResponse for Tea {
    fn into_response(self) -> Response {
        let (status, message) = match self.0 {
            Refused::NotFound => (404, "The target couldn't be found.".to_owned()),
            Refused::Unauthorized => (401, "user does not exist [uid: 0, name: ]".into()),
            Refused::Forbidden => (403, "user should have permission to write".into()),
            Refused::Invalid("head" | "base", _) => (404, "The target couldn't be found.".into()),
            Refused::Invalid("", words) if words == "Reference does not exist" => (404, "Branch not found".into()),
            Refused::Invalid(field, words) => (422, format!("[{field}]: {words}")),
            Refused::Exists(number) => (409, format!("pull request already exists for these targets [id: {number}]")),
            Refused::HeadMoved => (409, "head out of date".into()),
            Refused::NotMergeable(words) => (405, words),
            Refused::Git(words) => (500, words),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({"message": message, "url": "/api/swagger"}))).into_response()
    }
}

struct Caller(ForgeUser);

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Tea;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Tea> {
        Ok(Self(caller(shared, &parts.headers)?))
    }
}

fn ok(value: Value) -> Answer {
    Ok(Json(value).into_response())
}

fn created(value: Value) -> Answer {
    Ok((StatusCode::CREATED, Json(value)).into_response())
}

type RepoPath = Path<(String, String)>;
type PullPath = Path<(String, String, u64)>;
type NamePath = Path<(String, String, String)>;

async fn me(State(shared): Server, Caller(user): Caller) -> Answer {
    ok(shared.tea_user(&user.login))
}

async fn repo(State(shared): Server, _: Caller, Path((owner, name)): RepoPath) -> Answer {
    let repo = format!("{owner}/{name}");
    shared.repository(&repo)?;
    ok(shared.tea_repo(&repo))
}

async fn branch(State(shared): Server, _: Caller, Path((owner, name, branch)): NamePath) -> Answer {
    let repo = format!("{owner}/{name}");
    let commit = shared.repos.commit_info(&repo, &format!("refs/heads/{branch}")).map_err(|_| Refused::NotFound)?;
    ok(shared.tea_branch(&repo, &branch, &commit))
}

async fn delete_branch(State(shared): Server, Caller(user): Caller, Path((owner, name, branch)): NamePath) -> Answer {
    shared.delete_ref(&format!("{owner}/{name}"), &user, &branch)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
struct Filter {
    state: Option<String>,
    limit: Option<usize>,
    page: Option<usize>,
}

async fn list(State(shared): Server, _: Caller, Path((owner, name)): RepoPath, Query(filter): Query<Filter>) -> Answer {
    let repo = format!("{owner}/{name}");
    shared.repository(&repo)?;
    let mut found = shared.pulls(&repo);
    found.reverse();
    found.retain(|p| wanted(filter.state.as_deref(), p));
    let limit = filter.limit.unwrap_or(30).clamp(1, 50);
    let page = filter.page.unwrap_or(1).max(1);
    let mut shown = Vec::new();
    for pull in found.iter().skip((page - 1).saturating_mul(limit)).take(limit) {
        shown.push(shared.tea_pull(&repo, pull, &shared.look(&repo, pull)?));
    }
    ok(Value::Array(shown))
}

#[derive(Deserialize)]
struct Open {
    #[serde(default)]
    title: String,
    head: String,
    base: String,
    body: Option<String>,
}

async fn open(State(shared): Server, Caller(user): Caller, Path((owner, name)): RepoPath, body: Bytes) -> Answer {
    let repo = format!("{owner}/{name}");
    let ask: Open = parse(&body)?;
    // Gitea has drafts by title only.
    let draft = ask.title.starts_with("WIP:") || ask.title.starts_with("[WIP]");
    let new = NewPull { title: ask.title, body: ask.body, head: ask.head, base: ask.base, draft };
    let pull = shared.open_pull(&repo, &user, new)?;
    created(shared.tea_pull(&repo, &pull, &shared.look(&repo, &pull)?))
}

async fn pull(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    let pull = shared.find(&repo, number)?;
    ok(shared.tea_pull(&repo, &pull, &shared.look(&repo, &pull)?))
}

async fn by_branches(
    State(shared): Server,
    _: Caller,
    Path((owner, name, base, head)): Path<(String, String, String, String)>,
) -> Answer {
    let repo = format!("{owner}/{name}");
    let found = shared.pulls(&repo).into_iter().rev().find(|p| p.base == base && p.head == head);
    let pull = found.ok_or(Refused::NotFound)?;
    ok(shared.tea_pull(&repo, &pull, &shared.look(&repo, &pull)?))
}

#[derive(Deserialize)]
struct Edit {
    title: Option<String>,
    body: Option<String>,
    state: Option<PullState>,
}

async fn edit(
    State(shared): Server,
    Caller(user): Caller,
    Path((owner, name, number)): PullPath,
    body: Bytes,
) -> Answer {
    let repo = format!("{owner}/{name}");
    let ask: Edit = parse(&body)?;
    if let Some(state) = ask.state {
        shared.set_state(&repo, number, &user, state)?;
    }
    let pull = shared.edit_pull(&repo, number, |pull| {
        pull.title = ask.title.unwrap_or_else(|| pull.title.clone());
        pull.body = ask.body.or_else(|| pull.body.clone());
    })?;
    created(shared.tea_pull(&repo, &pull, &shared.look(&repo, &pull)?))
}

#[derive(Deserialize)]
struct MergeBody {
    #[serde(rename = "Do", alias = "do")]
    style: String,
    #[serde(rename = "MergeTitleField")]
    title: Option<String>,
    #[serde(rename = "MergeMessageField")]
    message: Option<String>,
    head_commit_id: Option<String>,
    #[serde(default)]
    delete_branch_after_merge: bool,
}

async fn merge(
    State(shared): Server,
    Caller(user): Caller,
    Path((owner, name, number)): PullPath,
    body: Bytes,
) -> Answer {
    let ask: MergeBody = parse(&body)?;
    let method = match ask.style.as_str() {
        "merge" => Method::Merge,
        "squash" => Method::Squash,
        "rebase" => Method::Rebase,
        "fast-forward-only" => Method::FastForward,
        other => return Err(Refused::Invalid("Do", format!("the sandbox does not know the style `{other}`")).into()),
    };
    let ask = MergeAsk {
        method,
        sha: ask.head_commit_id.filter(|sha| !sha.is_empty()),
        title: ask.title.filter(|t| !t.is_empty()),
        message: ask.message.filter(|m| !m.is_empty()),
        delete_branch: ask.delete_branch_after_merge,
    };
    let repo = format!("{owner}/{name}");
    // gitea: services/pull/check.go, ErrNotMergeableState.
    if shared.still_checks(&repo, number)? {
        return Err(Refused::NotMergeable("Please try again later".into()).into());
    }
    shared.merge_pull(&repo, number, &user, &ask)?;
    Ok(StatusCode::OK.into_response())
}

async fn is_merged(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let pull = shared.find(&format!("{owner}/{name}"), number)?;
    pull.merged.ok_or(Refused::NotFound)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn reviews(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    ok(shared.reviews(&repo, number)?.iter().map(|r| shared.tea_review(&repo, r)).collect())
}

async fn comments(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    shared.find(&repo, number)?;
    ok(shared.comments(&repo, number).iter().map(|c| shared.tea_comment(&repo, c)).collect())
}

#[derive(Deserialize)]
struct CommentBody {
    #[serde(default)]
    body: String,
}

async fn comment(
    State(shared): Server,
    Caller(user): Caller,
    Path((owner, name, number)): PullPath,
    body: Bytes,
) -> Answer {
    let repo = format!("{owner}/{name}");
    let ask: CommentBody = parse(&body)?;
    created(shared.tea_comment(&repo, &shared.comment(&repo, number, &user, &ask.body)?))
}
