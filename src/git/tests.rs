//! Against bare repositories on disk, with the real `git` as the other side and as the judge.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::*;

mod http;
mod ssh;

/// A bare remote, a mirror, and the means to look at both.
struct World {
    tmp: tempfile::TempDir,
}

fn run(dir: &Path, args: &[&str]) -> (bool, String) {
    let out = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([
            ("GIT_AUTHOR_NAME", "T"),
            ("GIT_AUTHOR_EMAIL", "t@t"),
            ("GIT_COMMITTER_NAME", "T"),
            ("GIT_COMMITTER_EMAIL", "t@t"),
        ])
        .output()
        .unwrap();
    (
        out.status.success(),
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)).trim().to_owned(),
    )
}

fn git(dir: &Path, args: &[&str]) -> String {
    let (ok, out) = run(dir, args);
    assert!(ok, "git {args:?}: {out}");
    out
}

impl World {
    fn new() -> Self {
        let w = Self { tmp: tempfile::tempdir().unwrap() };
        git(w.tmp.path(), &["init", "-q", "--bare", "-b", "main", "remote.git"]);
        git(w.tmp.path(), &["init", "-q", "-b", "main", "work"]);
        w.write("apps/shop/deploy.yaml", "replicas: 1\n");
        w.write("apps/shop/run.sh", "#!/bin/sh\n");
        w.write("README.md", "hello\n");
        std::fs::set_permissions(
            w.work().join("apps/shop/run.sh"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        git(&w.work(), &["add", "-A"]);
        git(&w.work(), &["commit", "-qm", "first"]);
        git(&w.work(), &["remote", "add", "origin", w.remote().to_str().unwrap()]);
        git(&w.work(), &["push", "-q", "origin", "main"]);
        w
    }

    fn remote(&self) -> PathBuf {
        self.tmp.path().join("remote.git")
    }

    fn work(&self) -> PathBuf {
        self.tmp.path().join("work")
    }

    fn mirror(&self) -> PathBuf {
        self.tmp.path().join("state/mirrors/a")
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.work().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Somebody else commits and pushes.
    fn other_commit(&self, path: &str, text: &str) -> String {
        self.write(path, text);
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-qm", &format!("change {path}")]);
        git(&self.work(), &["push", "-q", "origin", "HEAD:main"]);
        git(&self.work(), &["rev-parse", "HEAD"])
    }

    fn tip(&self, branch: &str) -> Option<String> {
        let (ok, out) = run(&self.remote(), &["rev-parse", "--verify", "-q", &format!("refs/heads/{branch}")]);
        ok.then_some(out)
    }

    async fn repo(&self) -> GitRepo {
        GitRepo::open("a", self.remote().to_str().unwrap(), Credentials::default(), &self.mirror()).await.unwrap()
    }
}

fn request(base: &str, path: &str, text: Option<&str>) -> CommitRequest {
    let me = Identity { name: "Countersign".into(), email: "countersign@example.com".into() };
    CommitRequest {
        base: base.into(),
        files: vec![FileChange {
            path: path.into(),
            mode: "100644".into(),
            bytes: text.map(|t| t.as_bytes().to_vec()),
        }],
        author: me.clone(),
        committer: me,
        timestamp: 1_790_000_000,
        message: "fix(shop): scale\n\nCountersign-Change: 01ABC\nCountersign-Digest: dd".into(),
    }
}

/// A private key made from a seed, so that no key stands in the sources.
pub(crate) fn key_pem(seed: u8) -> secrecy::SecretString {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    ssh_key::PrivateKey::from(pair).to_openssh(ssh_key::LineEnding::LF).unwrap().to_string().into()
}

fn signer() -> SshSigner {
    SshSigner::from_openssh(&key_pem(7), None).unwrap()
}

const MAIN: &str = "refs/heads/main";

#[tokio::test]
async fn a_fetch_reads_the_tip_and_the_files() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    assert_eq!(Some(tip.clone()), w.tip("main"));
    assert_eq!(repo.fetch(MAIN).await.unwrap(), tip);
    assert_eq!(repo.resolve_head_branch().await.unwrap(), MAIN);
    assert_eq!(repo.fetched("main").await.unwrap(), Some(tip.clone()));
    let files = repo.tree_files(&tip, "apps/shop", ReadLimits::default()).await.unwrap();
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["apps/shop/deploy.yaml", "apps/shop/run.sh"]);
    assert_eq!(files["apps/shop/run.sh"].kind.mode(), "100755");
    let file = repo.blob(&tip, "apps/shop/deploy.yaml").await.unwrap().unwrap();
    assert_eq!(file.editable("x").unwrap(), b"replicas: 1\n");
    assert_eq!(file.id, blob_id(b"replicas: 1\n"));
    assert_eq!(repo.kind(&tip, "apps").await.unwrap(), Some(EntryKind::Folder));
    assert!(!repo.exists(&tip, "apps/none").await.unwrap());
    assert_eq!(
        repo.list_dir(&tip, "").await.unwrap().unwrap().iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
        ["README.md", "apps"]
    );
    assert!(repo.list_dir(&tip, "README.md").await.unwrap().is_none());
    let next = w.other_commit("x.yaml", "a: 1\n");
    assert_eq!(repo.fetch("main").await.unwrap(), next);
}

#[tokio::test]
async fn a_question_takes_what_the_remote_said_lately_until_a_push_of_our_own() {
    let w = World::new();
    let repo = w.repo().await;
    let (long, tip) = (Duration::from_secs(600), repo.fetch("main").await.unwrap());
    assert_eq!(repo.fetch_within("main", long).await.unwrap(), tip);
    let next = w.other_commit("x.yaml", "a: 1\n");
    assert_eq!(repo.fetch_within(MAIN, long).await.unwrap(), tip, "asked lately, by either name");
    assert_eq!(repo.fetch_within("main", Duration::ZERO).await.unwrap(), next);
    assert_eq!(repo.fetch_within("main", long).await.unwrap(), next);
    assert_eq!(repo.head_branch_within(long).await.unwrap(), MAIN);
    let made = repo.build_commit(request(&next, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    repo.push_unchecked(Some(&made), MAIN, Some(&next)).await.unwrap();
    assert_eq!(repo.fetch_within("main", long).await.unwrap(), made);
}

#[tokio::test]
async fn a_missing_branch_repository_or_commit_is_a_coded_problem() {
    let w = World::new();
    let repo = w.repo().await;
    assert_eq!(repo.fetch("nope").await.unwrap_err().code, "git.branch_missing");
    assert_eq!(repo.blob(&"1".repeat(40), "x").await.unwrap_err().code, "git.object_missing");
    assert_eq!(repo.blob("main", "x").await.unwrap_err().code, "git.oid");
    let gone = w.tmp.path().join("gone.git");
    let repo = GitRepo::open("b", gone.to_str().unwrap(), Credentials::default(), &w.tmp.path().join("state/b"))
        .await
        .unwrap();
    let e = repo.fetch("main").await.unwrap_err();
    assert_eq!(e.code, "git.not_found");
    assert!(!e.to_string().contains(w.tmp.path().to_str().unwrap()), "{e}");
}

#[tokio::test]
async fn limits_and_special_entries_are_flagged() {
    let w = World::new();
    w.write("d/big.yaml", &"x".repeat(5000));
    w.write("d/lfs.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n");
    std::os::unix::fs::symlink("../apps", w.work().join("d/link")).unwrap();
    git(&w.work(), &["update-index", "--add", "--cacheinfo", "160000,1234567890123456789012345678901234567890,d/sub"]);
    let tip = {
        git(&w.work(), &["add", "d/big.yaml", "d/lfs.bin", "d/link"]);
        git(&w.work(), &["commit", "-qm", "odd"]);
        git(&w.work(), &["push", "-q", "origin", "main"]);
        w.tip("main").unwrap()
    };
    let repo = w.repo().await;
    repo.fetch("main").await.unwrap();
    let small = ReadLimits { max_file_bytes: 1000, ..ReadLimits::default() };
    let files = repo.tree_files(&tip, "d", small).await.unwrap();
    let code = |name: &str| files[name].editable(name).unwrap_err().code;
    assert_eq!(code("d/big.yaml"), "git.too_big");
    assert_eq!(code("d/lfs.bin"), "git.lfs");
    assert_eq!(code("d/link"), "git.symlink");
    assert_eq!(code("d/sub"), "git.submodule");
    assert_eq!(repo.blob(&tip, "d/link/shop/deploy.yaml").await.unwrap_err().code, "git.symlink");
    assert_eq!(repo.blob(&tip, "d/sub/x").await.unwrap_err().code, "git.submodule");
    let few = ReadLimits { max_files: 2, ..ReadLimits::default() };
    assert_eq!(repo.tree_files(&tip, "d", few).await.unwrap_err().code, "git.too_many_files");
    let little = ReadLimits { max_total_bytes: 100, ..ReadLimits::default() };
    assert_eq!(repo.tree_files(&tip, "d", little).await.unwrap_err().code, "git.too_many_files");
    for path in ["d/link", "d/sub", "d/link/x", "d"] {
        assert!(repo.build_commit(request(&tip, path, Some("x")), None).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn the_same_request_gives_the_same_signed_commit_and_git_says_good() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    let key = signer();
    let one =
        repo.build_commit(request(&tip, "apps/shop/deploy.yaml", Some("replicas: 3\n")), Some(&key)).await.unwrap();
    let other_mirror =
        GitRepo::open("c", w.remote().to_str().unwrap(), Credentials::default(), &w.tmp.path().join("state/c"))
            .await
            .unwrap();
    other_mirror.fetch("main").await.unwrap();
    let two = other_mirror
        .build_commit(request(&tip, "apps/shop/deploy.yaml", Some("replicas: 3\n")), Some(&key))
        .await
        .unwrap();
    assert_eq!(one, two);
    let unsigned =
        repo.build_commit(request(&tip, "apps/shop/deploy.yaml", Some("replicas: 3\n")), None).await.unwrap();
    assert_ne!(one, unsigned);
    repo.push_unchecked(Some(&one), MAIN, Some(&tip)).await.unwrap();
    let allowed = w.tmp.path().join("allowed");
    std::fs::write(&allowed, format!("countersign@example.com {}\n", key.public_key())).unwrap();
    let config = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
    let said = git(&w.remote(), &["-c", &config, "-c", "gpg.format=ssh", "verify-commit", "-v", &one]);
    assert!(said.contains("Good \"git\" signature for countersign@example.com"), "{said}");
    assert!(!run(&w.remote(), &["-c", &config, "verify-commit", &tip]).0);
    git(&w.remote(), &["fsck", "--strict"]);
    assert_eq!(git(&w.remote(), &["show", &format!("{one}:apps/shop/deploy.yaml")]), "replicas: 3");
    assert_eq!(git(&w.remote(), &["diff", "--stat", "--name-only", &tip, &one]), "apps/shop/deploy.yaml");
    assert_eq!(
        git(&w.remote(), &["show", "-s", "--format=%an %ae %at %B", &one]).lines().next().unwrap(),
        "Countersign countersign@example.com 1790000000 fix(shop): scale"
    );
}

#[tokio::test]
async fn files_are_made_and_removed_and_empty_folders_go() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    let mut r = request(&tip, "new/deep/folder/a.yaml", Some("a: 1\n"));
    r.files.push(FileChange { path: "apps/shop/deploy.yaml".into(), mode: String::new(), bytes: None });
    r.files.push(FileChange { path: "apps/shop/run.sh".into(), mode: String::new(), bytes: None });
    let made = repo.build_commit(r, None).await.unwrap();
    repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap();
    assert_eq!(git(&w.remote(), &["ls-tree", "-r", "--name-only", &made]), "README.md\nnew/deep/folder/a.yaml");
    assert_eq!(git(&w.remote(), &["ls-tree", "--name-only", &made]), "README.md\nnew");
    git(&w.remote(), &["fsck", "--strict"]);
    assert_eq!(
        repo.changed_paths(&tip, &made, 10).await.unwrap(),
        ["apps/shop/deploy.yaml", "apps/shop/run.sh", "new/deep/folder/a.yaml"]
    );
}

#[tokio::test]
async fn a_commit_that_is_not_exactly_the_request_is_refused() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    let code = |r: CommitRequest| {
        let repo = repo.clone();
        async move { repo.build_commit(r, None).await.unwrap_err().code }
    };
    assert_eq!(code(request(&tip, "apps/shop/deploy.yaml", Some("replicas: 1\n"))).await, "git.empty");
    assert_eq!(code(CommitRequest { files: vec![], ..request(&tip, "x", None) }).await, "git.empty");
    for path in [
        ".git/config",
        "a/.GIT/x",
        ".gitmodules",
        "../x",
        "/x",
        "a\\b",
        "git~1",
        "README.md/x",
        "readme.md",
        "Apps/shop/x.yaml",
        "apps",
        "apps/../x",
    ] {
        assert_eq!(code(request(&tip, path, Some("x"))).await, "git.path", "{path}");
    }
    assert_eq!(code(request(&tip, "none.yaml", None)).await, "git.path");
    for mode in ["120000", "160000", "040000", "100666", ""] {
        let mut r = request(&tip, "x", Some("y"));
        r.files[0].mode = mode.into();
        assert_eq!(code(r).await, "git.mode");
    }
    let mut twice = request(&tip, "x", Some("y"));
    twice.files.push(twice.files[0].clone());
    assert_eq!(code(twice).await, "git.path");
    assert_eq!(code(CommitRequest { message: " \n".into(), ..request(&tip, "x", Some("y")) }).await, "git.message");
    let forged = Identity { name: "a\nparent x".into(), email: "e".into() };
    assert_eq!(code(CommitRequest { author: forged, ..request(&tip, "x", Some("y")) }).await, "git.identity");
    assert_eq!(code(request(&"2".repeat(40), "x", Some("y"))).await, "git.object_missing");
}

#[tokio::test]
async fn a_push_lands_once_and_again_is_already_done() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    let pushed = repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap();
    assert_eq!((pushed.outcome, pushed.remote_now.as_deref()), (PushOutcome::Landed, Some(made.as_str())));
    assert_eq!(w.tip("main"), Some(made.clone()));
    assert_eq!(repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap().outcome, PushOutcome::AlreadyDone);
    assert_eq!(repo.remote_ref(MAIN).await.unwrap(), Some(made.clone()));
    assert_eq!(repo.fetch("main").await.unwrap(), made);
}

#[tokio::test]
async fn a_moved_remote_loses_the_lease() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    let theirs = w.other_commit("b.yaml", "b: 1\n");
    let e = repo.push_unchecked(Some(&made), MAIN, Some(&tip)).await.unwrap_err();
    assert_eq!(e.code, "git.lease_lost");
    assert!(e.evidence.contains(&format!("current: {theirs}")), "{e}");
    assert_eq!(w.tip("main"), Some(theirs.clone()));
    let again = repo.fetch("main").await.unwrap();
    assert_eq!(again, theirs);
    assert!(repo.touched_blobs_equal(&tip, &again, &["a.yaml".into(), "apps/shop/deploy.yaml".into()]).await.unwrap());
    assert_eq!(repo.differing_paths(&tip, &again, &["b.yaml".into()]).await.unwrap(), ["b.yaml"]);
}

#[tokio::test]
async fn a_rewound_remote_is_refused_and_a_deleted_branch_is_not_made_again() {
    let w = World::new();
    let first = w.tip("main").unwrap();
    let bad = w.other_commit("b.yaml", "b: 1\n");
    let repo = w.repo().await;
    repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&bad, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    git(&w.remote(), &["update-ref", MAIN, &first]);
    assert_eq!(repo.push_unchecked(Some(&made), MAIN, Some(&bad)).await.unwrap_err().code, "git.lease_lost");
    assert_eq!(w.tip("main"), Some(first.clone()));
    assert_eq!(repo.fetch("main").await.unwrap(), first, "a rewound branch is fetched as it is");
    git(&w.remote(), &["update-ref", "-d", MAIN]);
    let e = repo.push_unchecked(Some(&made), MAIN, Some(&bad)).await.unwrap_err();
    assert_eq!(e.code, "git.lease_lost");
    assert!(e.evidence.contains(&"current: absent".to_owned()));
    assert_eq!(w.tip("main"), None);
}

#[tokio::test]
async fn a_new_branch_must_not_exist_and_goes_again_under_its_lease() {
    let w = World::new();
    let repo = w.repo().await;
    let tip = repo.fetch("main").await.unwrap();
    let made = repo.build_commit(request(&tip, "a.yaml", Some("a: 1\n")), None).await.unwrap();
    let branch = "refs/heads/countersign/01ABC-r1";
    repo.push_unchecked(Some(&made), branch, None).await.unwrap();
    assert_eq!(w.tip("countersign/01ABC-r1"), Some(made.clone()));
    let other = repo.build_commit(request(&tip, "a.yaml", Some("a: 2\n")), None).await.unwrap();
    assert_eq!(repo.push_unchecked(Some(&other), branch, None).await.unwrap_err().code, "git.lease_lost");
    assert_eq!(repo.push_unchecked(None, branch, Some(&tip)).await.unwrap_err().code, "git.lease_lost");
    assert_eq!(repo.push_unchecked(None, branch, Some(&made)).await.unwrap().outcome, PushOutcome::Landed);
    assert_eq!(w.tip("countersign/01ABC-r1"), None);
    assert_eq!(repo.push_unchecked(None, branch, Some(&made)).await.unwrap().outcome, PushOutcome::AlreadyDone);
    assert_eq!(repo.push_unchecked(Some(&made), "refs/tags/x", None).await.unwrap_err().code, "git.ref");
}

#[tokio::test]
async fn histories_are_read() {
    let w = World::new();
    let first = w.tip("main").unwrap();
    let second = w.other_commit("b.yaml", "b: 1\n");
    let repo = w.repo().await;
    repo.fetch("main").await.unwrap();
    let made = repo
        .build_commit(request(&second, "apps/shop/deploy.yaml", Some("replicas: 9\n")), Some(&signer()))
        .await
        .unwrap();
    repo.push_unchecked(Some(&made), MAIN, Some(&second)).await.unwrap();
    repo.fetch("main").await.unwrap();
    assert!(repo.is_ancestor(&first, &made).await.unwrap());
    assert!(repo.is_ancestor(&made, &made).await.unwrap());
    assert!(!repo.is_ancestor(&made, &first).await.unwrap());
    let range = repo.commits_between(&first, &made, 10).await.unwrap();
    assert!(!range.truncated);
    assert_eq!(
        range.commits.iter().map(|c| (c.id.clone(), c.changed.clone())).collect::<Vec<_>>(),
        [(second.clone(), vec!["b.yaml".to_owned()]), (made.clone(), vec!["apps/shop/deploy.yaml".to_owned()]),]
    );
    assert_eq!(range.commits[1].parents, std::slice::from_ref(&second));
    let short = repo.commits_between(&first, &made, 1).await.unwrap();
    assert!(short.truncated && short.commits.len() == 1 && short.commits[0].id == made);
    let found = repo.find_commit_by_trailer("main", "countersign-change", "01ABC", 50).await.unwrap().unwrap();
    assert_eq!(found.id, made);
    assert_eq!(found.trailers("Countersign-Digest"), ["dd"]);
    assert!(repo.find_commit_by_trailer("main", "Countersign-Change", "01ABD", 50).await.unwrap().is_none());
}

#[tokio::test]
async fn a_broken_or_foreign_mirror_is_made_anew() {
    let w = World::new();
    w.repo().await.fetch("main").await.unwrap();
    std::fs::remove_file(w.mirror().join("HEAD")).unwrap();
    assert_eq!(w.repo().await.fetch("main").await.unwrap(), w.tip("main").unwrap());
    let gone = w.tmp.path().join("gone.git");
    let other = GitRepo::open("a", gone.to_str().unwrap(), Credentials::default(), &w.mirror()).await.unwrap();
    assert_eq!(other.fetched("main").await.unwrap(), None, "objects of another address are not kept");
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_the_mirror_usable() {
    let w = World::new();
    let repo = w.repo().await;
    for micros in [0, 50, 500, 2_000, 5_000] {
        let _ = tokio::time::timeout(std::time::Duration::from_micros(micros), repo.fetch("main")).await;
    }
    let tip = repo.fetch("main").await.unwrap();
    let many: Vec<_> = (0..20).map(|_| repo.tree_files(&tip, "", ReadLimits::default())).collect();
    assert!(futures::future::join_all(many).await.into_iter().all(|r| r.unwrap().len() == 3));
}

#[tokio::test]
async fn settings_of_the_user_do_not_reach_a_mirror() {
    let w = World::new();
    let repo = super::mirror::open_mirror(&{
        w.repo().await;
        w.mirror()
    })
    .unwrap();
    let config = repo.config().unwrap();
    assert_eq!(config.get_string("http.followRedirects").unwrap(), "false");
    let mut entries = config.entries(None).unwrap();
    while let Some(entry) = entries.next() {
        assert_eq!(entry.unwrap().level(), git2::ConfigLevel::Local);
    }
}

fn sealed(path: &str, after: Option<&str>) -> countersign_core::model::SealedFile {
    let after = after.map(|text| blob_id(text.as_bytes()));
    countersign_core::model::SealedFile { path: path.into(), mode: "100644".into(), before: None, after }
}

#[tokio::test]
async fn what_landed_is_compared_with_what_was_sealed_file_by_file() {
    let w = World::new();
    assert!(LandedIn::open(&w.mirror()).is_none(), "no mirror, no answer");
    let repo = w.repo().await;
    let first = repo.fetch("main").await.unwrap();
    std::os::unix::fs::symlink("apps/shop/deploy.yaml", w.work().join("link.yaml")).unwrap();
    let others = w.other_commit("others.yaml", "a: 1\n");
    repo.fetch("main").await.unwrap();
    let mut mirror = LandedIn::open(&w.mirror()).unwrap();
    let (deploy, one) = ("apps/shop/deploy.yaml", Some("replicas: 1\n"));
    let good = [sealed(deploy, one), sealed("gone.yaml", None), sealed("apps/shop/run.sh", Some("#!/bin/sh\n"))];
    // Also where the commit brought files of others.
    for commit in [&first, &others] {
        assert_eq!(mirror.look(MAIN, commit, &good), Landed::AsSealed);
    }
    let two = blob_id(b"replicas: 2\n");
    let bad = [
        sealed(deploy, Some("replicas: 2\n")),
        sealed(deploy, None),
        sealed("gone.yaml", one),
        sealed("apps", one),
        sealed("link.yaml", Some("apps/shop/deploy.yaml")),
        sealed("link.yaml/x", one),
        good[0].clone(),
    ];
    let (one, link) = (blob_id(b"replicas: 1\n"), blob_id(b"apps/shop/deploy.yaml"));
    let apps = git(&w.work(), &["rev-parse", "HEAD:apps"]);
    let Landed::Otherwise(found) = mirror.look(MAIN, &others, &bad) else { panic!("all is well") };
    let found: Vec<_> = found.iter().map(|d| (d.path.as_str(), d.sealed.clone(), d.found.clone())).collect();
    let expected = [
        (deploy, format!("blob {two}"), format!("blob {one}")),
        (deploy, "nothing".into(), format!("blob {one}")),
        ("gone.yaml", format!("blob {one}"), "nothing".into()),
        ("apps", format!("blob {one}"), format!("folder {apps}")),
        ("link.yaml", format!("blob {link}"), format!("symbolic link {link}")),
        ("link.yaml/x", format!("blob {one}"), "nothing".into()),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_landed_commit_that_the_mirror_does_not_have_on_the_branch_was_not_seen() {
    let w = World::new();
    let repo = w.repo().await;
    let first = repo.fetch("main").await.unwrap();
    let next = w.other_commit("x.yaml", "a: 1\n");
    let files = [sealed("README.md", Some("hello\n"))];
    let not_seen = |git_ref: &str, commit: &str, words: &str| {
        let looked = LandedIn::open(&w.mirror()).unwrap().look(git_ref, commit, &files);
        assert!(matches!(&looked, Landed::NotSeen(why) if why.contains(words)), "{words}: {looked:?}");
    };
    not_seen(MAIN, &next, "not in the mirror");
    not_seen(MAIN, "c1", "not a full commit id");
    not_seen("refs/heads/other", &first, "not on refs/heads/other");
    repo.fetch("main").await.unwrap();
    assert_eq!(LandedIn::open(&w.mirror()).unwrap().look(MAIN, &next, &files), Landed::AsSealed);
    // Rewritten: the objects may still be there, but the commit is on no branch.
    git(&w.work(), &["push", "-qf", "origin", &format!("{first}:main")]);
    repo.fetch("main").await.unwrap();
    not_seen(MAIN, &next, "rewritten");
}
