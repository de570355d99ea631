//! Over smart HTTP on loopback: the real `git http-backend` behind a small gateway, so that leases,
//! hooks, credentials and hosts that misbehave are those of a real server.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use tokio::io::AsyncWriteExt as _;

use super::*;

const TOKEN: &str = "tok-7f3a9c-secret";

#[derive(Default)]
struct Gateway {
    root: PathBuf,
    /// Asks for the token.
    auth: AtomicBool,
    /// Takes the push and answers nothing readable.
    cut_push_answer: AtomicBool,
    /// Sends everybody elsewhere.
    redirect: AtomicBool,
    refused: AtomicUsize,
}

async fn serve(gateway: Arc<Gateway>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(handle).with_state(gateway);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/remote.git")
}

async fn handle(State(g): State<Arc<Gateway>>, request: Request) -> Response {
    if g.redirect.load(Ordering::SeqCst) {
        return Response::builder()
            .status(301)
            .header("location", format!("http://localhost:1{}", request.uri()))
            .body(Body::empty())
            .unwrap();
    }
    let (parts, body) = request.into_parts();
    let wanted = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("git:{TOKEN}")));
    if g.auth.load(Ordering::SeqCst)
        && parts.headers.get("authorization").and_then(|v| v.to_str().ok()) != Some(&wanted)
    {
        g.refused.fetch_add(1, Ordering::SeqCst);
        return Response::builder()
            .status(401)
            .header("www-authenticate", "Basic realm=\"git\"")
            .body(Body::empty())
            .unwrap();
    }
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let header = |n: &str| parts.headers.get(n).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .envs([
            ("GIT_PROJECT_ROOT", g.root.to_str().unwrap()),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("REMOTE_USER", "tester"),
            ("PATH_INFO", parts.uri.path()),
            ("QUERY_STRING", parts.uri.query().unwrap_or_default()),
            ("REQUEST_METHOD", parts.method.as_str()),
            ("CONTENT_TYPE", &header("content-type")),
            ("HTTP_CONTENT_ENCODING", &header("content-encoding")),
            ("CONTENT_LENGTH", &body.len().to_string()),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let out = child.wait_with_output().await.unwrap().stdout;
    feed.await.unwrap();
    if parts.uri.path().ends_with("git-receive-pack") && g.cut_push_answer.load(Ordering::SeqCst) {
        return Response::builder().status(502).body(Body::empty()).unwrap();
    }
    cgi(&out)
}

fn cgi(out: &[u8]) -> Response {
    let split = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(out.len());
    let mut response = Response::new(Body::from(out.get(split + 4..).unwrap_or_default().to_vec()));
    for line in String::from_utf8_lossy(&out[..split]).lines() {
        let Some((k, v)) = line.split_once(": ") else { continue };
        if k == "Status" {
            *response.status_mut() = StatusCode::from_bytes(&v.as_bytes()[..3]).unwrap();
        } else {
            response.headers_mut().insert(k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap());
        }
    }
    response
}

async fn world() -> (World, Arc<Gateway>, String) {
    let w = World::new();
    git(&w.remote(), &["config", "http.receivepack", "true"]);
    let g = Arc::new(Gateway { root: w.tmp.path().to_path_buf(), ..Gateway::default() });
    let url = serve(Arc::clone(&g)).await;
    (w, g, url)
}

async fn open(w: &World, url: &str, token: Option<&str>) -> GitRepo {
    let credentials = Credentials { token: token.map(Into::into), ..Credentials::default() };
    GitRepo::open("a", url, credentials, &w.mirror()).await.unwrap()
}

fn hook(w: &World, name: &str, script: &str) {
    let file = w.remote().join("hooks").join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_round_over_http_with_a_token() {
    let (w, g, url) = world().await;
    g.auth.store(true, Ordering::SeqCst);
    let repo = open(&w, &url, Some(TOKEN)).await;
    let tip = repo.fetch("main").await.unwrap();
    assert_eq!(repo.resolve_head_branch().await.unwrap(), MAIN);
    let made = repo
        .build_commit(request(&tip, "apps/shop/deploy.yaml", Some("replicas: 3\n")), Some(&signer()))
        .await
        .unwrap();
    assert_eq!(repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap().outcome, PushOutcome::Landed);
    assert_eq!(w.tip("main"), Some(made.clone()));
    assert_eq!(repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap().outcome, PushOutcome::AlreadyDone);
    let branch = "refs/heads/countersign/x-r1";
    let other = repo.build_commit(request(&made, "b.yaml", Some("b: 1\n")), None).await.unwrap();
    repo.push_unchecked(Some(&other), branch, None).await.unwrap();
    repo.push_unchecked(None, branch, Some(&other)).await.unwrap();
    assert_eq!(w.tip("countersign/x-r1"), None);
    git(&w.remote(), &["fsck", "--strict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_tried_at_most_twice_and_never_shown() {
    let (w, g, url) = world().await;
    g.auth.store(true, Ordering::SeqCst);
    let repo = open(&w, &url, Some("wrong-token-123")).await;
    let e = repo.fetch("main").await.unwrap_err();
    assert_eq!(e.code, "git.auth", "{e}");
    assert!(!e.to_string().contains("wrong-token-123") && !format!("{repo:?}").contains("wrong-token-123"));
    assert!(g.refused.load(Ordering::SeqCst) <= 3, "{}", g.refused.load(Ordering::SeqCst));
    let none = open(&w, &url, None).await;
    assert_eq!(none.fetch("main").await.unwrap_err().code, "git.auth");
    none.set_credentials(Credentials { token: Some(TOKEN.into()), ..Credentials::default() });
    assert_eq!(Some(none.fetch("main").await.unwrap()), w.tip("main"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_says_no_is_a_rejection_with_its_words() {
    let (w, _g, url) = world().await;
    let repo = open(&w, &url, None).await;
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    hook(&w, "update", "#!/bin/sh\necho protected branch >&2\nexit 1\n");
    let e = repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap_err();
    assert_eq!(e.code, "git.push_rejected", "{e}");
    assert!(e.to_string().contains("hook declined"), "{e}");
    assert_eq!(w.tip("main"), Some(tip));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_inside_the_server_loses_the_lease() {
    let (w, _g, url) = world().await;
    let repo = open(&w, &url, None).await;
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    // Between negotiation and update somebody else moves the branch.
    w.write("theirs.yaml", "t: 1\n");
    git(&w.work(), &["add", "-A"]);
    git(&w.work(), &["commit", "-qm", "theirs"]);
    git(&w.work(), &["push", "-q", "origin", "HEAD:refs/heads/side"]);
    let theirs = w.tip("side").unwrap();
    hook(
        &w,
        "pre-receive",
        &format!("#!/bin/sh\nenv -u GIT_QUARANTINE_PATH -u GIT_OBJECT_DIRECTORY git update-ref {MAIN} {theirs}\n"),
    );
    let e = repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap_err();
    assert_eq!(e.code, "git.lease_lost", "{e}");
    assert_eq!(w.tip("main"), Some(theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_was_lost_is_found_to_have_landed() {
    let (w, g, url) = world().await;
    let repo = open(&w, &url, None).await;
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    g.cut_push_answer.store(true, Ordering::SeqCst);
    let pushed = repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap();
    assert_eq!(pushed.remote_now, Some(made.clone()));
    assert_eq!(w.tip("main"), Some(made));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pushers_lose_no_update() {
    let (w, _g, url) = world().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4 {
        let repo =
            GitRepo::open("r", &url, Credentials::default(), &w.tmp.path().join(format!("state/r{n}"))).await.unwrap();
        tasks.spawn(async move {
            let mut landed = Vec::new();
            for round in 0..4 {
                for _ in 0..60 {
                    let base = repo.fetch("main").await.unwrap();
                    let made = repo
                        .build_commit(request(&base, &format!("f{n}-{round}.yaml"), Some("x: 1\n")), None)
                        .await
                        .unwrap();
                    match repo.push_unchecked(Some(&made), MAIN, Some(&base)).await {
                        Ok(_) => {
                            landed.push((made, base));
                            break;
                        }
                        Err(e) => assert_eq!(e.code, "git.lease_lost", "{e}"),
                    }
                }
            }
            landed
        });
    }
    let mut all = 0;
    while let Some(landed) = tasks.join_next().await {
        for (made, base) in landed.unwrap() {
            assert_eq!(git(&w.remote(), &["rev-parse", &format!("{made}^")]), base);
            assert!(run(&w.remote(), &["merge-base", "--is-ancestor", &made, "main"]).0);
            all += 1;
        }
    }
    assert_eq!(all, 16);
    assert_eq!(git(&w.remote(), &["rev-list", "--count", "main"]), "17");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let (w, g, url) = world().await;
    let repo = open(&w, &url, Some(TOKEN)).await;
    g.redirect.store(true, Ordering::SeqCst);
    assert_eq!(repo.fetch("main").await.unwrap_err().code, "git.redirected");
    assert_eq!(repo.remote_ref(MAIN).await.unwrap_err().code, "git.redirected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_or_silent_is_told_in_bounded_time() {
    let w = World::new();
    let closed = open(&w, "http://127.0.0.1:1/remote.git", None).await;
    let e = closed.fetch("main").await.unwrap_err();
    assert_eq!((e.code.as_ref(), e.retry), ("git.unreachable", countersign_core::Retry::Later));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/remote.git", listener.local_addr().unwrap());
    let limits =
        GitLimits { fetch: Duration::from_millis(300), push: Duration::from_millis(300), ..GitLimits::default() };
    let silent =
        GitRepo::open_with("s", &url, Credentials::default(), &w.tmp.path().join("state/s"), limits).await.unwrap();
    for _ in 0..4 {
        assert_eq!(silent.fetch("main").await.unwrap_err().code, "git.timeout");
    }
    assert_eq!(silent.fetch("main").await.unwrap_err().code, "git.stuck");
    drop(listener);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(silent.fetch("main").await.unwrap_err().code, "git.unreachable", "calls left behind have ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_beyond_its_caps_is_broken_off() {
    let (w, _g, url) = world().await;
    let limits = GitLimits { max_objects: 3, ..GitLimits::default() };
    let repo = GitRepo::open_with("a", &url, Credentials::default(), &w.mirror(), limits).await.unwrap();
    assert_eq!(repo.fetch("main").await.unwrap_err().code, "git.too_large");
    // Bytes that hardly compress.
    let noise: String = (0..5_000).map(|n| blob_id(format!("{n}").as_bytes())).collect();
    w.other_commit("noise.txt", &noise);
    let limits = GitLimits { max_bytes: 20_000, ..GitLimits::default() };
    let repo =
        GitRepo::open_with("b", &url, Credentials::default(), &w.tmp.path().join("state/b"), limits).await.unwrap();
    assert_eq!(repo.fetch("main").await.unwrap_err().code, "git.too_large");
}

/// From the press to the pushed commit, against the warm work tree of the git program.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: makes 100,000 files"]
async fn a_change_in_100_000_files_takes_half_the_time_of_a_warm_work_tree() {
    use std::io::Write as _;
    let tmp = tempfile::tempdir().unwrap();
    let w = World { tmp };
    git(w.tmp.path(), &["init", "-q", "--bare", "-b", "main", "remote.git"]);
    git(&w.remote(), &["config", "http.receivepack", "true"]);
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(w.remote())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    {
        let mut to = std::io::BufWriter::new(import.stdin.take().unwrap());
        writeln!(to, "commit refs/heads/main\ncommitter T <t@t> 1790000000 +0000\ndata 1\nx").unwrap();
        for n in 0..100_000 {
            let text = format!("app: {n}\nreplicas: 1\n");
            writeln!(to, "M 100644 inline apps/{:03}/{n}/deploy.yaml\ndata {}\n{text}", n / 200, text.len()).unwrap();
        }
    }
    assert!(import.wait().unwrap().success());
    let url = serve(Arc::new(Gateway { root: w.tmp.path().to_path_buf(), ..Gateway::default() })).await;
    let repo = open(&w, &url, None).await;
    repo.fetch("main").await.unwrap();
    let (tree, u) = (w.tmp.path().join("warm"), url.clone());
    let dir = w.tmp.path().to_path_buf();
    tokio::task::spawn_blocking(move || git(&dir, &["clone", "-q", &u, "warm"])).await.unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let start = std::time::Instant::now();
        let tip = repo.fetch("main").await.unwrap();
        let path = format!("apps/007/{}/deploy.yaml", 1400 + round);
        let file = repo.blob(&tip, &path).await.unwrap().unwrap();
        let text = String::from_utf8(file.bytes().unwrap().to_vec()).unwrap().replace("replicas: 1", "replicas: 2");
        let made = repo.build_commit(request(&tip, &path, Some(&text)), Some(&signer())).await.unwrap();
        repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap();
        ours.push(start.elapsed());
        let tree = tree.clone();
        let took = tokio::task::spawn_blocking(move || {
            let start = std::time::Instant::now();
            git(&tree, &["pull", "-q", "--ff-only"]);
            let file = format!("apps/008/{}/deploy.yaml", 1600 + round);
            std::fs::write(tree.join(&file), "app: 1\nreplicas: 2\n").unwrap();
            git(&tree, &["commit", "-qm", "x", "--", &file]);
            git(&tree, &["push", "-q", "origin", "main"]);
            start.elapsed()
        });
        theirs.push(took.await.unwrap());
    }
    ours.sort();
    theirs.sort();
    eprintln!("ours {ours:?}\ntheirs {theirs:?}");
    assert!(theirs[2] >= 2 * ours[2]);
}
