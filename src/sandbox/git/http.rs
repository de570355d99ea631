//! Smart HTTP: requests are handed to `git http-backend` (CGI), answers are streamed back.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::TryStreamExt;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Author, GitUser, Shared};
use crate::render::on_path;
use crate::sandbox::host::lock;

/// Pushes larger than this are refused.
const PUSH_LIMIT: usize = 512 * 1024 * 1024;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).layer(axum::extract::DefaultBodyLimit::max(PUSH_LIMIT)).with_state(shared)
}

/// What a request asks of which repository.
struct Asked {
    repo: String,
    rest: String,
    push: bool,
}

fn asked(parts: &Parts, shared: &Shared) -> Option<Asked> {
    let path = parts.uri.path().trim_start_matches('/');
    let (owner, rest) = path.split_once('/')?;
    let (name, rest) = rest.split_once('/')?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let plain = |s: &str| {
        !s.is_empty() && !s.starts_with('.') && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !plain(owner) || !plain(name) {
        return None;
    }
    let repo = format!("{owner}/{name}");
    if !shared.repos.path(&repo).is_dir() {
        return None;
    }
    let push = rest == "git-receive-pack" || parts.uri.query().is_some_and(|q| q.contains("service=git-receive-pack"));
    Some(Asked { repo, rest: rest.to_owned(), push })
}

async fn serve(State(shared): State<Arc<Shared>>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    let user = user_of(&shared, &parts.headers);
    let asked = asked(&parts, &shared);
    let answer = match refusal(&shared, asked.as_ref(), user.as_ref(), &parts.headers) {
        Some(refusal) => refusal,
        None => match asked.as_ref() {
            Some(asked) if asked.rest == "git-receive-pack" => {
                receive(&shared, asked, user.as_ref(), &parts, body).await
            }
            Some(asked) => backend(&shared, asked, user.as_ref(), &parts, body).await,
            None => StatusCode::NOT_FOUND.into_response(),
        },
    };
    shared.host.log(
        "call",
        json!({
            "method": parts.method.as_str(),
            "path": parts.uri.path(),
            "query": parts.uri.query(),
            "user": user.map(|u| u.login),
            "status": answer.status().as_u16(),
        }),
    );
    answer
}

fn user_of(shared: &Shared, headers: &HeaderMap) -> Option<GitUser> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = match given.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (name, password) = decoded.split_once(':')?;
            // A token may also stand in the place of the user name, as GitHub allows.
            if password.is_empty() { name.to_owned() } else { password.to_owned() }
        }
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim().to_owned(),
        _ => return None,
    };
    lock(&shared.users).get(&token).cloned()
}

/// Why a request is not served, if it is not.
fn refusal(shared: &Shared, asked: Option<&Asked>, user: Option<&GitUser>, headers: &HeaderMap) -> Option<Response> {
    let wrong = headers.contains_key(header::AUTHORIZATION) && user.is_none();
    let reads = asked.is_none_or(|a| !a.push);
    match user {
        None if wrong || !(reads && shared.anonymous_read) => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"sandbox\"")];
            Some((StatusCode::UNAUTHORIZED, challenge, "Authentication required.\n").into_response())
        }
        _ if asked.is_none() => Some((StatusCode::NOT_FOUND, "Repository not found.\n").into_response()),
        Some(user) if !reads && !user.can_write => {
            Some((StatusCode::FORBIDDEN, "Write access to repository not granted.\n").into_response())
        }
        _ => None,
    }
}

/// By its path: a bare name with an environment of its own makes the standard library fork, which copies the tables of
/// all of this process's memory and stops its threads meanwhile; half of the scenarios' time was that.
static GIT: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::var_os("PATH").and_then(|p| on_path("git", p)).unwrap_or_else(|| "git".into()));

fn command(shared: &Shared, asked: &Asked, user: Option<&GitUser>, parts: &Parts) -> Command {
    let mut command = Command::new(&*GIT);
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", shared.repos.root())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", shared.repos.root())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{}.git/{}", asked.repo, asked.rest))
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(user) = user {
        command.env("REMOTE_USER", &user.login);
    }
    if parts.headers.contains_key("git-protocol") {
        command.env("GIT_PROTOCOL", header("git-protocol"));
    }
    if parts.headers.contains_key(header::CONTENT_LENGTH) {
        command.env("CONTENT_LENGTH", header("content-length"));
    }
    command
}

fn feed(child: &mut Child, body: Body) {
    let Some(mut stdin) = child.stdin.take() else { return };
    tokio::spawn(async move {
        let stream = body.into_data_stream().map_err(std::io::Error::other);
        let mut reader = StreamReader::new(stream);
        // A client that hangs up, or a backend that has read enough, ends the copy: both are its right.
        let _ = tokio::io::copy(&mut reader, &mut stdin).await;
        let _ = stdin.shutdown().await;
    });
}

/// Reads: the answer may be large, so it is streamed, and the backend dies with the connection.
async fn backend(shared: &Shared, asked: &Asked, user: Option<&GitUser>, parts: &Parts, body: Body) -> Response {
    let spawned = command(shared, asked, user, parts).kill_on_drop(true).spawn();
    let Ok(mut child) = spawned else { return no_git() };
    feed(&mut child, body);
    let Some(stdout) = child.stdout.take() else { return no_git() };
    let mut reader = BufReader::new(stdout);
    let Ok((status, headers)) = cgi_head(&mut reader).await else { return no_git() };
    let stream = futures::stream::unfold((ReaderStream::new(reader), child), |(mut stream, child)| async move {
        stream.try_next().await.transpose().map(|chunk| (chunk, (stream, child)))
    });
    (status, headers, Body::from_stream(stream)).into_response()
}

/// Pushes: finished and logged even if the client is gone, since the refs may have moved.
async fn receive(shared: &Arc<Shared>, asked: &Asked, user: Option<&GitUser>, parts: &Parts, body: Body) -> Response {
    let Ok(report) = tempfile::NamedTempFile::new() else { return no_git() };
    let race = {
        let mut races = lock(&shared.races);
        races.iter().position(|r| r.repo == asked.repo).map(|at| races.remove(at))
    };
    let mut command = command(shared, asked, user, parts);
    command.env("SANDBOX_PUSH_FILE", report.path());
    let shared = shared.clone();
    let repo = asked.repo.clone();
    let login = user.map(|u| u.login.clone());
    let task = tokio::spawn(async move {
        if let Some(race) = race {
            let author = Author::new("Somebody Else", "else@example.com");
            let _ = shared.commit_file(&race.repo, &race.branch, &race.path, race.content.as_bytes(), &author);
        }
        let answer = run_to_end(&mut command, body).await;
        log_push(&shared, &repo, login.as_deref(), report.path());
        answer
    });
    match task.await {
        Ok(Ok((status, headers, bytes))) => (status, headers, bytes).into_response(),
        _ => no_git(),
    }
}

async fn run_to_end(command: &mut Command, body: Body) -> std::io::Result<(StatusCode, HeaderMap, Vec<u8>)> {
    let mut child = command.spawn()?;
    feed(&mut child, body);
    let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let mut reader = BufReader::new(stdout);
    let (status, headers) = cgi_head(&mut reader).await?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await?;
    child.wait().await?;
    Ok((status, headers, bytes))
}

/// The CGI header block: `Status:` and the rest.
async fn cgi_head(reader: &mut BufReader<ChildStdout>) -> std::io::Result<(StatusCode, HeaderMap)> {
    let mut status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((status, headers));
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            status = code.parse().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

fn log_push(shared: &Shared, repo: &str, user: Option<&str>, report: &Path) {
    let text = std::fs::read_to_string(report).unwrap_or_default();
    let refused = text.lines().any(|l| l == "refused");
    for line in text.lines().filter_map(|l| l.strip_prefix("asked ")) {
        let mut words = line.split(' ');
        let (old, new, reference) = (words.next(), words.next(), words.next());
        let outcome = if refused {
            "protected"
        } else if text.lines().any(|l| l.strip_prefix("done ") == Some(line)) {
            "accepted"
        } else {
            "rejected"
        };
        shared.host.log(
            "push",
            json!({"repo": repo, "ref": reference, "old": old, "new": new, "user": user, "outcome": outcome}),
        );
    }
}

fn no_git() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "git http-backend did not answer: is git installed?\n").into_response()
}
