//! Both clients against a small forge on loopback that speaks the shapes of the real ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use countersign_core::{Problem, Retry};
use serde_json::{Value, json};

use super::*;

const TOKEN: &str = "ghp_0123456789secret";
const HEAD: &str = "1111111111111111111111111111111111111111";
const MERGED: &str = "2222222222222222222222222222222222222222";

/// What to answer instead of the truth, to requests of one method.
#[derive(Clone)]
struct Fault {
    method: &'static str,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

struct Fake {
    kind: ForgeKind,
    pulls: Mutex<Vec<Value>>,
    comments: Mutex<Vec<String>>,
    fault: Mutex<Option<Fault>>,
    writes: AtomicUsize,
    seen: Mutex<Vec<Value>>,
}

fn answer(status: u16, body: &Value) -> Response {
    Response::builder()
        .status(status)
        .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
        .unwrap()
}

async fn handle(State(f): State<Arc<Fake>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str().to_owned();
    if method != "GET" {
        f.writes.fetch_add(1, Ordering::SeqCst);
    }
    if let Some(fault) = f.fault.lock().unwrap().clone().filter(|x| x.method == method) {
        let mut r = Response::builder().status(fault.status);
        for (k, v) in &fault.headers {
            r = r.header(*k, v);
        }
        return r.body(Body::from(fault.body)).unwrap();
    }
    let scheme = if f.kind == ForgeKind::Github { "Bearer" } else { "token" };
    if parts.headers.get("authorization").and_then(|v| v.to_str().ok()) != Some(&format!("{scheme} {TOKEN}")) {
        return answer(401, &json!({"message": "Bad credentials"}));
    }
    let Some(path) = parts.uri.path().strip_prefix("/api/v3/repos/shop/config/") else {
        return answer(404, &json!({"message": "Not Found"}));
    };
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let sent: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    f.seen.lock().unwrap().push(json!({"path": path, "body": sent}));
    let segments: Vec<&str> = path.split('/').collect();
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["pulls"]) => f.list(&query),
        ("POST", ["pulls"]) => f.open(&sent),
        ("GET", ["pulls", n]) => f.one(n),
        ("GET", ["issues", _]) => answer(200, &json!({"number": 1, "closed_by": {"login": "ann"}})),
        ("PATCH", ["pulls", n]) => f.change(n, |p| p["state"] = "closed".into()),
        ("POST", ["issues", _, "comments"]) => {
            f.comments.lock().unwrap().push(sent["body"].as_str().unwrap().to_owned());
            answer(201, &json!({"id": 1}))
        }
        ("PUT" | "POST", ["pulls", n, "merge"]) => f.merge(n, &sent),
        _ => answer(404, &json!({"message": "Not Found"})),
    }
}

impl Fake {
    fn list(&self, query: &HashMap<String, String>) -> Response {
        if query.get("page").is_some_and(|p| p != "1") {
            return answer(200, &json!([]));
        }
        let mut all: Vec<Value> = self.pulls.lock().unwrap().iter().rev().cloned().collect();
        for p in &mut all {
            p.as_object_mut().unwrap().remove("merged");
            p.as_object_mut().unwrap().remove("merged_by");
        }
        answer(200, &Value::Array(all))
    }

    fn open(&self, sent: &Value) -> Response {
        let mut pulls = self.pulls.lock().unwrap();
        if pulls.iter().any(|p| p["state"] == "open" && p["head"]["ref"] == sent["head"]) {
            let status = if self.kind == ForgeKind::Github { 422 } else { 409 };
            return answer(
                status,
                &json!({"message": "Validation Failed", "errors": [{"message": "A pull request already exists for shop:x."}]}),
            );
        }
        if sent["head"] == "empty" {
            return answer(
                422,
                &json!({"message": "Validation Failed", "errors": [{"message": "No commits between main and empty"}]}),
            );
        }
        let number = pulls.len() + 1;
        pulls.push(json!({
            "number": number, "html_url": format!("https://forge/{number}"), "state": "open", "merged": false, "merged_at": null,
            "merge_commit_sha": "3333333333333333333333333333333333333333", "mergeable": true, "user": {"login": "bot"},
            "head": {"ref": sent["head"], "sha": HEAD, "label": format!("shop:{}", sent["head"].as_str().unwrap()), "repo": {"full_name": "shop/config"}},
            "base": {"ref": sent["base"]},
        }));
        answer(201, pulls.last().unwrap())
    }

    fn one(&self, n: &str) -> Response {
        self.pulls
            .lock()
            .unwrap()
            .iter()
            .find(|p| p["number"].as_u64() == n.parse().ok())
            .map_or_else(|| answer(404, &json!({"message": "Not Found"})), |p| answer(200, p))
    }

    fn change(&self, n: &str, with: impl Fn(&mut Value)) -> Response {
        for p in self.pulls.lock().unwrap().iter_mut().filter(|p| p["number"].as_u64() == n.parse().ok()) {
            with(p);
        }
        self.one(n)
    }

    fn merge(&self, n: &str, sent: &Value) -> Response {
        let expected = if self.kind == ForgeKind::Github { &sent["sha"] } else { &sent["head_commit_id"] };
        let now = self.pulls.lock().unwrap().iter().find(|p| p["number"].as_u64() == n.parse().ok()).cloned().unwrap();
        if now["state"] != "open" || now["mergeable"] == false {
            return answer(405, &json!({"message": "Pull Request is not mergeable"}));
        }
        if now["head"]["sha"] != *expected {
            return answer(409, &json!({"message": "Head branch was modified. Review and try the merge again."}));
        }
        self.change(n, |p| {
            p["state"] = "closed".into();
            p["merged"] = true.into();
            p["merged_at"] = "2026-11-21T00:00:00Z".into();
            p["merge_commit_sha"] = MERGED.into();
            p["merged_by"] = json!({"login": "bot"});
        });
        if self.kind == ForgeKind::Github {
            answer(200, &json!({"sha": MERGED, "merged": true}))
        } else {
            answer(200, &Value::Null)
        }
    }

    fn set(&self, n: u64, with: impl Fn(&mut Value)) {
        let _ = self.change(&n.to_string(), with);
    }

    fn fault(&self, method: &'static str, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        *self.fault.lock().unwrap() = Some(Fault { method, status, headers, body: body.into() });
    }
}

fn spec(kind: ForgeKind, api_url: &str) -> ForgeSpec {
    let token = countersign_core::model::SecretRef::Env("X".into());
    ForgeSpec {
        kind,
        api_url: api_url.into(),
        owner: "shop".into(),
        repo: "config".into(),
        token,
        merge_method: MergeMethod::Merge,
    }
}

fn client(kind: ForgeKind, api_url: &str, token: &str) -> Result<Box<dyn Operations>> {
    let place = wire::Place::new(&spec(kind, api_url), token.to_owned().into())?;
    Ok(match kind {
        ForgeKind::Github => Box::new(github::GitHub::new(place)?),
        ForgeKind::Gitea => Box::new(gitea::Gitea::new(place)?),
    })
}

async fn worlds() -> Vec<(Arc<Fake>, Box<dyn Operations>, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut out = Vec::new();
    for kind in [ForgeKind::Github, ForgeKind::Gitea] {
        let fake = Arc::new(Fake {
            kind,
            pulls: Mutex::default(),
            comments: Mutex::default(),
            fault: Mutex::default(),
            writes: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v3/", listener.local_addr().unwrap());
        let app = Router::new().fallback(handle).with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let ops = client(kind, &url, TOKEN).unwrap();
        out.push((fake, ops, url));
    }
    out
}

fn new(head: &str) -> NewPull {
    NewPull { title: "Scale".into(), body: "facts".into(), head: head.into(), base: "main".into() }
}

fn merge(expected: &str) -> Merge {
    Merge {
        number: 1,
        expected_head: expected.into(),
        method: MergeMethod::Merge,
        title: "t".into(),
        message: "m\n\nCountersign-Change: 01".into(),
    }
}

const BRANCH: &str = "countersign/01ABC-r1";

#[tokio::test]
async fn a_pull_request_is_opened_found_told_and_merged() {
    for (fake, forge, _) in worlds().await {
        assert_eq!(forge.find(BRANCH, "main").await.unwrap(), None);
        let opened = forge.open(&new(BRANCH)).await.unwrap();
        assert_eq!(
            (opened.number, opened.state, opened.head_sha.as_str(), opened.base.as_str()),
            (1, PullState::Open, HEAD, "main")
        );
        assert_eq!(opened.merge_commit, None, "a trial merge is not a merge");
        assert_eq!(forge.find(BRANCH, "main").await.unwrap().unwrap().number, 1);
        assert_eq!(forge.find(BRANCH, "other").await.unwrap(), None);
        forge.say(1, "hello").await.unwrap();
        assert_eq!(*fake.comments.lock().unwrap(), ["hello"]);
        assert_eq!(forge.land(&merge(HEAD)).await.unwrap(), MERGED);
        let done = forge.read(1).await.unwrap();
        assert_eq!(
            (done.state, done.merge_commit.as_deref(), done.merged_by.as_deref()),
            (PullState::Merged, Some(MERGED), Some("bot"))
        );
        assert_eq!(forge.land(&merge(HEAD)).await.unwrap(), MERGED, "merged already with that head");
        let sent = fake.seen.lock().unwrap().iter().find(|s| s["path"] == "pulls/1/merge").unwrap()["body"].to_string();
        assert!(sent.contains(HEAD) && sent.contains("Countersign-Change: 01"), "{sent}");
    }
}

#[tokio::test]
async fn an_open_pull_request_is_adopted_and_a_refusal_is_told() {
    for (fake, forge, _) in worlds().await {
        let one = forge.open(&new(BRANCH)).await.unwrap();
        assert_eq!(forge.open(&new(BRANCH)).await.unwrap(), one);
        assert_eq!(fake.pulls.lock().unwrap().len(), 1);
        let e = forge.open(&new("empty")).await.unwrap_err();
        assert_eq!(e.code, "forge.rejected");
        assert!(e.to_string().contains("No commits between"), "{e}");
    }
}

#[tokio::test]
async fn a_moved_head_a_conflict_and_a_closed_one_are_not_merged() {
    for (fake, forge, _) in worlds().await {
        forge.open(&new(BRANCH)).await.unwrap();
        let e = forge.land(&merge(MERGED)).await.unwrap_err();
        assert_eq!(e.code, "forge.head_moved");
        assert!(e.evidence.contains(&format!("current: {HEAD}")));
        fake.set(1, |p| p["mergeable"] = false.into());
        let e = forge.land(&merge(HEAD)).await.unwrap_err();
        assert_eq!((e.code.as_ref(), e.retry), ("forge.not_mergeable", Retry::AfterFix));
        forge.shut(1).await.unwrap();
        let closed = forge.read(1).await.unwrap();
        assert_eq!(
            (closed.state, closed.closed_by.as_deref(), closed.merge_commit),
            (PullState::Closed, Some("ann"), None)
        );
        assert_eq!(forge.land(&merge(HEAD)).await.unwrap_err().code, "forge.closed");
        // Merged by somebody with another head: not what was approved.
        fake.set(1, |p| {
            p["merged"] = true.into();
            p["merge_commit_sha"] = MERGED.into();
        });
        assert_eq!(forge.land(&merge(MERGED)).await.unwrap_err().code, "forge.head_moved");
    }
}

#[tokio::test]
async fn the_newest_counts_and_forks_do_not() {
    for (fake, forge, _) in worlds().await {
        forge.open(&new(BRANCH)).await.unwrap();
        fake.set(1, |p| p["state"] = "closed".into());
        forge.open(&new(BRANCH)).await.unwrap();
        assert_eq!(forge.find(BRANCH, "main").await.unwrap().unwrap().number, 2);
        fake.set(2, |p| {
            p["head"]["repo"] = json!({"full_name": "mallory/config"});
            p["head"]["label"] = format!("mallory:{BRANCH}").into();
        });
        assert_eq!(forge.find(BRANCH, "main").await.unwrap().unwrap().number, 1);
        fake.set(2, |p| p["head"]["repo"] = Value::Null);
        assert_eq!(forge.find(BRANCH, "main").await.unwrap().unwrap().number, 1, "a fork that is gone is still a fork");
    }
}

async fn read_code(forge: &dyn Operations) -> Problem {
    forge.read(1).await.unwrap_err()
}

#[tokio::test]
async fn every_bad_answer_has_its_code_and_none_holds_the_token() {
    for (fake, forge, url) in worlds().await {
        assert_eq!(read_code(&*forge).await.code, "forge.not_found");
        let wrong = client(fake.kind, &url, "wrong").unwrap();
        assert_eq!(read_code(&*wrong).await.code, "forge.auth");
        type Case = (u16, &'static [(&'static str, &'static str)], &'static str, &'static str, Retry);
        let cases: [Case; 9] = [
            (429, &[("retry-after", "7")], "{}", "forge.rate_limited", Retry::Later),
            (403, &[("retry-after", "7")], "{\"message\":\"secondary\"}", "forge.rate_limited", Retry::Later),
            (
                403,
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1790000000")],
                "{}",
                "forge.rate_limited",
                Retry::Later,
            ),
            (403, &[], "{\"message\":\"Resource not accessible\"}", "forge.auth", Retry::AfterFix),
            (301, &[("location", "http://evil.example/")], "", "forge.redirected", Retry::AfterFix),
            (502, &[], "<html>", "forge.unreachable", Retry::Later),
            (200, &[], "<html>", "forge.unexpected", Retry::AfterFix),
            (
                200,
                &[],
                "{\"number\":1,\"state\":\"odd\",\"head\":{\"ref\":\"x\",\"sha\":\"y\"},\"base\":{\"ref\":\"m\"}}",
                "forge.unexpected",
                Retry::AfterFix,
            ),
            (418, &[], "tea", "forge.unexpected", Retry::AfterFix),
        ];
        for (status, headers, body, code, retry) in cases {
            fake.fault("GET", status, headers, body);
            // A client of its own for each: one that was told to wait asks nobody meanwhile.
            let e = read_code(&*client(fake.kind, &url, TOKEN).unwrap()).await;
            assert_eq!((e.code.as_ref(), e.retry), (code, retry), "{status} {e}");
        }
        fake.fault("GET", 401, &[], &format!("{{\"message\":\"bad token {TOKEN}\\u001b[31m\"}}"));
        let e = read_code(&*forge).await.to_string();
        assert!(!e.contains(TOKEN) && !e.contains('\u{1b}') && e.contains("[redacted]"), "{e}");
    }
}

#[tokio::test]
async fn a_forge_that_asks_to_wait_is_not_asked_again_before_its_time() {
    type Header = (&'static str, &'static str);
    const EARLY: Header = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
    const LATE: Header = ("x-ratelimit-reset", "1792567710");
    for (fake, _, url) in worlds().await {
        let cases: [(u16, &'static [Header], u64); 6] = [
            (429, &[("retry-after", "7")], 7),
            (429, &[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"), EARLY], 31),
            (403, &[("x-ratelimit-remaining", "0"), LATE, EARLY], 31),
            (403, &[("x-ratelimit-remaining", "0"), ("retry-after", "9"), LATE, EARLY], 9),
            // A secondary limit that names no time: the reset is the primary limit's.
            (429, &[("x-ratelimit-remaining", "17"), LATE, EARLY], 60),
            (429, &[("retry-after", "999999999")], 86_400),
        ];
        for (status, headers, seconds) in cases {
            let forge = client(fake.kind, &url, TOKEN).unwrap();
            fake.fault("GET", status, headers, "{}");
            assert_eq!(read_code(&*forge).await.retry_after_s(), Some(seconds), "{headers:?}");
            *fake.fault.lock().unwrap() = None;
            fake.writes.store(0, Ordering::SeqCst);
            let e = forge.open(&new(BRANCH)).await.unwrap_err();
            assert_eq!((e.code.as_ref(), e.retry), ("forge.rate_limited", Retry::Later));
            assert!(e.retry_after_s().is_some_and(|left| left <= seconds && left + 2 >= seconds), "{e}");
            assert_eq!(fake.writes.load(Ordering::SeqCst), 0, "nothing was sent");
        }
        let forge = client(fake.kind, &url, TOKEN).unwrap();
        fake.fault("GET", 429, &[("retry-after", "1")], "{}");
        assert_eq!(read_code(&*forge).await.code, "forge.rate_limited");
        *fake.fault.lock().unwrap() = None;
        tokio::time::sleep(std::time::Duration::from_millis(1050)).await;
        assert_eq!(read_code(&*forge).await.code, "forge.not_found", "it is asked again");
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_unknown_and_never_sent_twice() {
    for (fake, forge, _) in worlds().await {
        for (status, body) in [(500, ""), (502, "<html>"), (504, "")] {
            fake.fault("POST", status, &[], body);
            fake.writes.store(0, Ordering::SeqCst);
            let e = forge.open(&new(BRANCH)).await.unwrap_err();
            assert_eq!((e.code.as_ref(), e.retry), ("forge.unknown_outcome", Retry::Later));
            assert_eq!(fake.writes.load(Ordering::SeqCst), 1, "{status}");
        }
        for body in ["", "<html>", "{\"number\":5}"] {
            fake.fault("POST", 201, &[], body);
            assert_eq!(forge.open(&new(BRANCH)).await.unwrap_err().code, "forge.unknown_outcome", "{body}");
        }
        fake.fault("POST", 301, &[("location", "/elsewhere")], "");
        assert_eq!(forge.open(&new(BRANCH)).await.unwrap_err().code, "forge.redirected");
    }
}

#[tokio::test]
async fn a_forge_that_is_away_is_told_apart_from_one_that_hangs_up() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for kind in [ForgeKind::Github, ForgeKind::Gitea] {
        let away = client(kind, "http://127.0.0.1:1/api/v3", TOKEN).unwrap();
        assert_eq!(away.read(1).await.unwrap_err().code, "forge.unreachable");
        assert_eq!(away.open(&new(BRANCH)).await.unwrap_err().code, "forge.unreachable", "nothing was sent");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v3", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut buffer = [0u8; 4096];
                let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut buffer).await;
            }
        });
        let cut = client(kind, &url, TOKEN).unwrap();
        assert_eq!(cut.read(1).await.unwrap_err().code, "forge.unreachable");
        assert_eq!(cut.open(&new(BRANCH)).await.unwrap_err().code, "forge.unknown_outcome");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for api in ["http://example.com/api", "ftp://h/", "https://u:p@h/", "https://h/?x=1", "nonsense", ""] {
        assert_eq!(client(ForgeKind::Gitea, api, TOKEN).err().unwrap().code, "forge.config", "{api}");
    }
    let mut bad = spec(ForgeKind::Github, "https://api.github.com");
    bad.repo = "../x".into();
    assert_eq!(connect(&bad, TOKEN.to_owned().into()).err().unwrap().code, "forge.config");
    assert_eq!(client(ForgeKind::Github, "https://api.github.com", " ").err().unwrap().code, "forge.config");
}
