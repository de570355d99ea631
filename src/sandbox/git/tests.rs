use super::*;
use std::path::Path;
use std::process::Output;

const REPO: &str = "acme/platform";

async fn server() -> GitServer {
    let user = |login: &str, token: &str, can_write| GitUser { login: login.into(), token: token.into(), can_write };
    let users = vec![user("countersign", "t-bot", true), user("reader", "t-reader", false)];
    let git = start(GitOptions { users, ..GitOptions::default() }).await.unwrap();
    let files = [FileChange::write("apps/web.yaml", b"replicas: 1\n"), FileChange::write("README.md", b"hello\n")];
    git.repos().create(REPO, "main", &files, &anna()).unwrap();
    git
}

fn anna() -> Author {
    Author::new("Anna", "anna@example.com")
}

/// The real git, away from the machine's own configuration.
async fn git(dir: &Path, args: &[&str]) -> Output {
    tokio::process::Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "credential.helper="])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .await
        .unwrap()
}

async fn done(dir: &Path, args: &[&str]) -> String {
    let out = git(dir, args).await;
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn with_token(server: &GitServer, token: &str) -> String {
    server.repo_url(REPO).replace("http://", &format!("http://git:{token}@"))
}

/// A clone with one commit that is not pushed yet.
async fn clone_with_commit(server: &GitServer, dir: &Path) {
    done(dir, &["clone", "-q", &with_token(server, "t-bot"), "work"]).await;
    let work = dir.join("work");
    std::fs::write(work.join("apps/web.yaml"), "replicas: 2\n").unwrap();
    done(&work, &["commit", "-qam", "feat: two"]).await;
}

#[tokio::test]
async fn a_clone_and_a_push_over_http_are_logged_with_their_user() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let old = server.repos().head(REPO, "main").unwrap();
    clone_with_commit(&server, dir.path()).await;
    let work = dir.path().join("work");
    done(&work, &["push", "-q", "origin", "main"]).await;
    let new = done(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(server.repos().head(REPO, "main").unwrap(), new);
    assert_eq!(server.repos().read(REPO, "main", "apps/web.yaml").unwrap(), b"replicas: 2\n");
    let push = &server.pushes()[0];
    assert_eq!((push["old"].as_str(), push["new"].as_str()), (Some(old.as_str()), Some(new.as_str())));
    assert_eq!((push["user"].as_str(), push["outcome"].as_str()), (Some("countersign"), Some("accepted")));
}

#[tokio::test]
async fn tokens_decide_who_reads_and_who_writes() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    assert!(!git(dir.path(), &["clone", "-q", &server.repo_url(REPO), "x"]).await.status.success());
    assert!(!git(dir.path(), &["clone", "-q", &with_token(&server, "wrong"), "x"]).await.status.success());
    done(dir.path(), &["clone", "-q", &with_token(&server, "t-reader"), "work"]).await;
    let work = dir.path().join("work");
    done(&work, &["commit", "-q", "--allow-empty", "-m", "x"]).await;
    let out = git(&work, &["push", "origin", "main"]).await;
    assert!(String::from_utf8_lossy(&out.stderr).contains("403"), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(server.pushes().is_empty());
}

#[tokio::test]
async fn a_protected_branch_refuses_pushes_and_another_takes_them() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    server.repos().protect(REPO, "main", true).unwrap();
    clone_with_commit(&server, dir.path()).await;
    let work = dir.path().join("work");
    let out = git(&work, &["push", "origin", "main"]).await;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(words.contains("GH006") && words.contains("pre-receive hook declined"), "{words}");
    assert_eq!(server.pushes()[0]["outcome"], "protected");
    done(&work, &["push", "-q", "origin", "HEAD:refs/heads/countersign/x-r1"]).await;
    assert!(server.repos().head(REPO, "countersign/x-r1").is_some());
}

#[tokio::test]
async fn a_race_is_lost_to_a_foreign_commit() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    clone_with_commit(&server, dir.path()).await;
    server.race(Race { repo: REPO.into(), branch: "main".into(), path: "other.yaml".into(), content: "a: 1\n".into() });
    let out = git(&dir.path().join("work"), &["push", "origin", "main"]).await;
    assert!(!out.status.success());
    assert_eq!(server.pushes()[0]["outcome"], "rejected");
    let history = server.repos().history(REPO, "main").unwrap();
    assert_eq!((history.len(), history[0].author.name.as_str()), (2, "Somebody Else"));
}

#[tokio::test]
async fn a_large_push_comes_compressed_and_in_chunks() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    clone_with_commit(&server, dir.path()).await;
    let work = dir.path().join("work");
    let noise: Vec<u8> = (0..3_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(work.join("big.bin"), &noise).unwrap();
    done(&work, &["add", "."]).await;
    done(&work, &["commit", "-qm", "feat: big"]).await;
    done(&work, &["-c", "http.postBuffer=65536", "push", "-q", "origin", "main"]).await;
    assert_eq!(server.repos().read(REPO, "main", "big.bin").unwrap().len(), noise.len());
    // Many wants and haves make git compress its request body.
    for i in 0..60 {
        server.commit_file(REPO, "main", "n", format!("{i}").as_bytes(), &anna()).unwrap();
    }
    done(&work, &["-c", "protocol.version=2", "pull", "-q"]).await;
    done(&work, &["-c", "protocol.version=0", "fetch", "-q"]).await;
}

#[tokio::test]
async fn rewinding_takes_commits_away() {
    let server = server().await;
    let first = server.repos().head(REPO, "main").unwrap();
    server.commit_file(REPO, "main", "x", b"1", &anna()).unwrap();
    assert_eq!(server.repos().rewind(REPO, "main", 1).unwrap(), first);
    assert!(server.repos().rewind(REPO, "main", 1).is_err());
}

#[tokio::test]
async fn an_outage_fails_a_fetch_and_ends() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    clone_with_commit(&server, dir.path()).await;
    let work = dir.path().join("work");
    server.down().await;
    assert!(!git(&work, &["fetch"]).await.status.success());
    server.up().await;
    done(&work, &["fetch"]).await;
}

#[tokio::test]
async fn a_push_whose_answer_is_lost_has_landed() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    clone_with_commit(&server, dir.path()).await;
    let mishap = crate::sandbox::host::Mishap::LoseAnswer;
    server.fault(Fault { matching: Some("POST /acme/platform.git/git-receive-pack".into()), times: Some(1), mishap });
    let work = dir.path().join("work");
    assert!(!git(&work, &["push", "origin", "main"]).await.status.success());
    let head = done(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(server.repos().head(REPO, "main").unwrap(), head);
    assert_eq!(server.pushes()[0]["outcome"], "accepted");
}

/// libgit2 as a client, the way that the product pushes: the lease is the old id of the negotiation.
#[tokio::test(flavor = "multi_thread")]
async fn libgit2_clones_pushes_and_sees_a_refusal() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let (url, path) = (server.repo_url(REPO), dir.path().join("mirror.git"));
    let pushed = |reference: &'static str| {
        let (url, path) = (url.clone(), path.clone());
        tokio::task::spawn_blocking(move || libgit2_push(&url, &path, reference))
    };
    let (new, refusal) = pushed("refs/heads/countersign/a-r1").await.unwrap();
    assert_eq!(refusal, None);
    assert_eq!(server.repos().head(REPO, "countersign/a-r1").unwrap(), new);
    server.repos().protect(REPO, "main", true).unwrap();
    let (_, refusal) = pushed("refs/heads/main").await.unwrap();
    assert_eq!(refusal.as_deref(), Some("pre-receive hook declined"));
}

/// Commits on top of main and pushes it to `reference`; gives the commit and the server's refusal.
fn libgit2_push(url: &str, path: &Path, reference: &str) -> (String, Option<String>) {
    let callbacks = || {
        let mut callbacks = git2::RemoteCallbacks::new();
        callbacks.credentials(|_, _, _| git2::Cred::userpass_plaintext("git", "t-bot"));
        callbacks
    };
    let repo = git2::Repository::init_bare(path).unwrap();
    let mut remote = repo.remote_anonymous(url).unwrap();
    let mut fetch = git2::FetchOptions::new();
    fetch.remote_callbacks(callbacks());
    remote.fetch(&["+refs/heads/main:refs/remotes/origin/main"], Some(&mut fetch), None).unwrap();
    let base = repo.find_reference("refs/remotes/origin/main").unwrap().peel_to_commit().unwrap();
    let who = git2::Signature::now("T", "t@example.com").unwrap();
    let new = repo.commit(None, &who, &who, "feat: x", &base.tree().unwrap(), &[&base]).unwrap();
    let refusal = std::cell::RefCell::new(None);
    let mut answers = callbacks();
    answers.push_update_reference(|_, status| {
        *refusal.borrow_mut() = status.map(ToOwned::to_owned);
        Ok(())
    });
    let mut push = git2::PushOptions::new();
    push.remote_callbacks(answers);
    repo.reference("refs/heads/tmp", new, true, "").unwrap();
    remote.push(&[format!("refs/heads/tmp:{reference}")], Some(&mut push)).unwrap();
    drop(push);
    (new.to_string(), refusal.into_inner())
}
