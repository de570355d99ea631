//! GitHub's REST API, the part that a delivery needs.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, put};
use axum::{Json, Router};
use base64::Engine;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Shared;
use super::github_shape::wanted;
use super::merge::Method;
use super::pulls::{MergeAsk, NewPull, Refused};
use super::state::{ForgeUser, PullState, Verdict};
use crate::sandbox::host::lock;

const DOCS: &str = "https://docs.github.com/rest";

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/user", get(me))
        .route("/users/{login}", get(user))
        .route("/rate_limit", get(rate_limit))
        .route("/repos/{owner}/{name}", get(repo))
        .route("/repos/{owner}/{name}/branches", get(branches))
        .route("/repos/{owner}/{name}/branches/{*branch}", get(branch))
        .route("/repos/{owner}/{name}/git/ref/{*reference}", get(reference))
        .route("/repos/{owner}/{name}/git/refs/{*reference}", delete(delete_reference))
        .route("/repos/{owner}/{name}/git/matching-refs/{*reference}", get(matching))
        .route("/repos/{owner}/{name}/commits/{*revision}", get(commit))
        .route("/repos/{owner}/{name}/pulls", get(list).post(open))
        .route("/repos/{owner}/{name}/pulls/{number}", get(pull).patch(edit))
        .route("/repos/{owner}/{name}/pulls/{number}/merge", put(merge).get(is_merged))
        .route("/repos/{owner}/{name}/pulls/{number}/reviews", get(reviews).post(review))
        .route("/repos/{owner}/{name}/pulls/{number}/commits", get(commits))
        .route("/repos/{owner}/{name}/issues/{number}", get(issue))
        .route("/repos/{owner}/{name}/issues/{number}/comments", get(comments).post(comment))
        .fallback(any(|| async { Gh(Refused::NotFound) }))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), logged))
        .with_state(shared)
}

type Server = State<Arc<Shared>>;
type Answer = Result<Response, Gh>;

/// A refusal in GitHub's words.
pub(crate) struct Gh(Refused);

impl From<Refused> for Gh {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

impl IntoResponse for Gh {
    fn into_response(self) -> Response {
        let invalid = |error: Value| (422, json!({"message": "Validation Failed", "errors": [error]}));
        let (status, mut body) = match self.0 {
            Refused::NotFound => (404, json!({"message": "Not Found"})),
            Refused::Unauthorized => (401, json!({"message": "Bad credentials"})),
            Refused::Forbidden => (403, json!({"message": "Resource not accessible by personal access token"})),
            Refused::Invalid("", words) if words == "Reference does not exist" => (422, json!({"message": words})),
            Refused::Invalid("", words) => {
                invalid(json!({"resource": "PullRequest", "code": "custom", "message": words}))
            }
            Refused::Invalid(field, code) if code.contains(' ') => {
                invalid(json!({"resource": "PullRequest", "field": field, "code": "custom", "message": code}))
            }
            Refused::Invalid(field, code) => invalid(json!({"resource": "PullRequest", "field": field, "code": code})),
            Refused::Exists(number) => {
                let words = format!("A pull request already exists for this branch (#{number}).");
                invalid(json!({"resource": "PullRequest", "code": "custom", "message": words}))
            }
            Refused::HeadMoved => {
                (409, json!({"message": "Head branch was modified. Review and try the merge again."}))
            }
            Refused::NotMergeable(words) => (405, json!({"message": words})),
            Refused::Git(words) => (500, json!({"message": words})),
        };
        if let Some(map) = body.as_object_mut() {
            map.insert("documentation_url".into(), json!(DOCS));
            map.insert("status".into(), json!(status.to_string()));
        }
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(body)).into_response()
    }
}

/// The user whose token came with the call.
pub(crate) fn caller(shared: &Shared, headers: &HeaderMap) -> Result<ForgeUser, Refused> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or(Refused::Unauthorized)?;
    let (scheme, rest) = given.split_once(' ').ok_or(Refused::Unauthorized)?;
    let token = if scheme.eq_ignore_ascii_case("basic") {
        let decoded =
            base64::engine::general_purpose::STANDARD.decode(rest.trim()).map_err(|_| Refused::Unauthorized)?;
        let decoded = String::from_utf8(decoded).map_err(|_| Refused::Unauthorized)?;
        decoded.split_once(':').map(|(_, p)| p.to_owned()).ok_or(Refused::Unauthorized)?
    } else {
        rest.trim().to_owned()
    };
    lock(&shared.state).by_token(&token).cloned().ok_or(Refused::Unauthorized)
}

/// The caller as an argument of a handler.
struct Caller(ForgeUser);

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Gh;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Gh> {
        Ok(Self(caller(shared, &parts.headers)?))
    }
}

/// Logs a call with what was asked; the effects themselves are logged where they happen.
pub(crate) async fn logged(State(shared): Server, req: Request, next: Next) -> Response {
    let (parts, body) = req.into_parts();
    let Ok(bytes) = to_bytes(body, 4 * 1024 * 1024).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let asked: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let (method, path) = (parts.method.clone(), parts.uri.clone());
    let user = caller(&shared, &parts.headers).ok().map(|u| u.login);
    let mut response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    response.headers_mut().insert("x-github-media-type", HeaderValue::from_static("github.v3; format=json"));
    shared.host.log(
        "call",
        json!({"method": method.as_str(), "path": path.to_string(), "user": user, "body": asked, "status": response.status().as_u16()}),
    );
    response
}

pub(crate) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| Refused::Invalid("", format!("Problems parsing JSON: {e}")))
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
    ok(shared.gh_profile(&user.login))
}

async fn user(State(shared): Server, _: Caller, Path(login): Path<String>) -> Answer {
    shared.user_named(&login)?;
    ok(shared.gh_profile(&login))
}

async fn rate_limit(State(shared): Server) -> Answer {
    let reset = shared.host.clock().now().timestamp() + 3600;
    let one = json!({"limit": 5000, "remaining": 5000, "reset": reset, "used": 0});
    ok(json!({"resources": {"core": one, "search": one}, "rate": one}))
}

async fn repo(State(shared): Server, _: Caller, Path((owner, name)): RepoPath) -> Answer {
    let repo = format!("{owner}/{name}");
    shared.repository(&repo)?;
    ok(shared.gh_full_repo(&repo))
}

async fn branches(State(shared): Server, _: Caller, Path((owner, name)): RepoPath) -> Answer {
    let repo = format!("{owner}/{name}");
    let found = shared.repos.branches(&repo).map_err(|_| Refused::NotFound)?;
    let short = |(branch, sha): &(String, String)| {
        let url = format!("{}/repos/{repo}/commits/{sha}", shared.host.url());
        json!({"name": branch, "commit": {"sha": sha, "url": url}, "protected": shared.repos.is_protected(&repo, branch)})
    };
    ok(found.iter().map(short).collect())
}

async fn branch(State(shared): Server, _: Caller, Path((owner, name, branch)): NamePath) -> Answer {
    let repo = format!("{owner}/{name}");
    let revision = format!("refs/heads/{branch}");
    let commit = shared.repos.commit_info(&repo, &revision).map_err(|_| Refused::NotFound)?;
    ok(shared.gh_branch(&repo, &branch, &commit))
}

async fn reference(State(shared): Server, _: Caller, Path((owner, name, reference)): NamePath) -> Answer {
    let repo = format!("{owner}/{name}");
    let commit = shared.repos.commit_info(&repo, &format!("refs/{reference}")).map_err(|_| Refused::NotFound)?;
    ok(shared.gh_ref(&repo, &reference, &commit.id))
}

async fn matching(State(shared): Server, _: Caller, Path((owner, name, reference)): NamePath) -> Answer {
    let repo = format!("{owner}/{name}");
    let found = shared.repos.branches(&repo).map_err(|_| Refused::NotFound)?;
    let refs = found.iter().map(|(branch, sha)| (format!("heads/{branch}"), sha));
    ok(refs
        .filter(|(full, _)| full.starts_with(&reference))
        .map(|(full, sha)| shared.gh_ref(&repo, &full, sha))
        .collect())
}

async fn delete_reference(
    State(shared): Server,
    Caller(user): Caller,
    Path((owner, name, reference)): NamePath,
) -> Answer {
    let branch = reference.strip_prefix("heads/").ok_or(Refused::NotFound)?;
    shared.delete_ref(&format!("{owner}/{name}"), &user, branch)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn commit(State(shared): Server, _: Caller, Path((owner, name, revision)): NamePath) -> Answer {
    let repo = format!("{owner}/{name}");
    let words = format!("No commit found for SHA: {revision}");
    let commit = shared.repos.commit_info(&repo, &revision).map_err(|_| Refused::Invalid("sha", words))?;
    ok(shared.gh_commit(&repo, &commit))
}

#[derive(Deserialize)]
struct Filter {
    state: Option<String>,
    head: Option<String>,
    base: Option<String>,
    per_page: Option<usize>,
    page: Option<usize>,
}

async fn list(State(shared): Server, _: Caller, Path((owner, name)): RepoPath, Query(filter): Query<Filter>) -> Answer {
    let repo = format!("{owner}/{name}");
    shared.repository(&repo)?;
    let mut found = shared.pulls(&repo);
    found.reverse();
    // A head without an owner is not a filter to GitHub, it is ignored.
    let head = filter.head.as_deref().and_then(|h| h.split_once(':'));
    found.retain(|p| wanted(filter.state.as_deref(), p));
    found.retain(|p| head.is_none_or(|(from, branch)| from == owner && branch == p.head));
    found.retain(|p| filter.base.as_ref().is_none_or(|b| *b == p.base));
    let per_page = filter.per_page.unwrap_or(30).clamp(1, 100);
    let page = filter.page.unwrap_or(1).max(1);
    let more = found.len() > page.saturating_mul(per_page);
    let shown: Vec<_> = found.iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    let mut response = Json(shown.iter().map(|p| shared.gh_simple_pull(&repo, p)).collect::<Vec<_>>()).into_response();
    if more {
        let state = filter.state.as_deref().unwrap_or("open");
        let next = format!(
            "<{}/repos/{repo}/pulls?state={state}&per_page={per_page}&page={}>; rel=\"next\"",
            shared.host.url(),
            page + 1
        );
        if let Ok(value) = HeaderValue::try_from(next) {
            response.headers_mut().insert(header::LINK, value);
        }
    }
    Ok(response)
}

#[derive(Deserialize)]
struct Open {
    #[serde(default)]
    title: String,
    head: String,
    base: String,
    body: Option<String>,
    #[serde(default)]
    draft: bool,
}

async fn open(State(shared): Server, Caller(user): Caller, Path((owner, name)): RepoPath, body: Bytes) -> Answer {
    let repo = format!("{owner}/{name}");
    let ask: Open = parse(&body)?;
    let new = NewPull { title: ask.title, body: ask.body, head: ask.head, base: ask.base, draft: ask.draft };
    let pull = shared.open_pull(&repo, &user, new)?;
    created(shared.gh_pull(&repo, &pull, &shared.look(&repo, &pull)?))
}

async fn pull(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    let pull = shared.find(&repo, number)?;
    ok(shared.gh_pull(&repo, &pull, &shared.look(&repo, &pull)?))
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
    ok(shared.gh_pull(&repo, &pull, &shared.look(&repo, &pull)?))
}

#[derive(Deserialize)]
struct MergeBody {
    sha: Option<String>,
    #[serde(default)]
    merge_method: Method,
    commit_title: Option<String>,
    commit_message: Option<String>,
}

async fn merge(
    State(shared): Server,
    Caller(user): Caller,
    Path((owner, name, number)): PullPath,
    body: Bytes,
) -> Answer {
    let ask: MergeBody = parse(&body)?;
    let ask = MergeAsk {
        method: ask.merge_method,
        sha: ask.sha,
        title: ask.commit_title,
        message: ask.commit_message,
        delete_branch: false,
    };
    let sha = shared.merge_pull(&format!("{owner}/{name}"), number, &user, &ask)?;
    ok(json!({"sha": sha, "merged": true, "message": "Pull Request successfully merged"}))
}

async fn is_merged(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let pull = shared.find(&format!("{owner}/{name}"), number)?;
    pull.merged.ok_or(Refused::NotFound)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn reviews(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    ok(shared.reviews(&repo, number)?.iter().map(|r| shared.gh_review(&repo, r)).collect())
}

#[derive(Deserialize)]
struct ReviewBody {
    #[serde(default)]
    event: String,
    #[serde(default)]
    body: String,
}

async fn review(
    State(shared): Server,
    Caller(user): Caller,
    Path((owner, name, number)): PullPath,
    body: Bytes,
) -> Answer {
    let repo = format!("{owner}/{name}");
    let ask: ReviewBody = parse(&body)?;
    let verdict = match ask.event.as_str() {
        "APPROVE" => Verdict::Approved,
        "REQUEST_CHANGES" => Verdict::ChangesRequested,
        "COMMENT" => Verdict::Commented,
        other => return Err(Refused::Invalid("event", format!("the sandbox does not know the event `{other}`")).into()),
    };
    let review = shared.review(&repo, number, &user, verdict, &ask.body)?;
    ok(shared.gh_review(&repo, &review))
}

async fn commits(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    let pull = shared.find(&repo, number)?;
    let git = shared.repository(&repo)?;
    let mut walk = git.revwalk().map_err(Refused::from)?;
    let range = format!("{}..{}", pull.base_sha, pull.head_sha);
    walk.push_range(&range).map_err(Refused::from)?;
    let mut found = Vec::new();
    for id in walk {
        let info = shared.repos.commit_info(&repo, &id.map_err(Refused::from)?.to_string()).map_err(Refused::from)?;
        found.push(shared.gh_commit(&repo, &info));
    }
    found.reverse();
    ok(Value::Array(found))
}

async fn issue(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    let pull = shared.find(&repo, number)?;
    ok(shared.gh_issue(&repo, &pull, shared.comments(&repo, number).len()))
}

async fn comments(State(shared): Server, _: Caller, Path((owner, name, number)): PullPath) -> Answer {
    let repo = format!("{owner}/{name}");
    shared.find(&repo, number)?;
    ok(shared.comments(&repo, number).iter().map(|c| shared.gh_comment(&repo, c)).collect())
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
    created(shared.gh_comment(&repo, &shared.comment(&repo, number, &user, &ask.body)?))
}
