use super::*;
use crate::sandbox::git::{Author, FileChange};

const REPO: &str = "acme/platform";

struct Setup {
    forge: Forge,
    repos: Repos,
    _dir: tempfile::TempDir,
}

fn anna() -> Author {
    Author::new("Anna", "anna@example.com")
}

/// A repository with `main` and a branch `change` that is one commit ahead.
async fn setup() -> Setup {
    setup_with(0).await
}

async fn setup_with(slow_mergeable: u32) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let repos = Repos::open(dir.path().to_path_buf(), Clock::new()).unwrap();
    let files = [FileChange::write("web.yaml", b"replicas: 1\n"), FileChange::write("other.yaml", b"a: 1\n")];
    let first = repos.create(REPO, "main", &files, &anna()).unwrap();
    repos.set_branch(REPO, "change", &first).unwrap();
    repos
        .commit(
            REPO,
            "change",
            &[FileChange::write("web.yaml", b"replicas: 2\n")],
            &anna(),
            "feat: two\n\nTrailer: x\n",
        )
        .unwrap();
    let users = vec![
        ForgeUser::bot("countersign", "t-bot"),
        ForgeUser::person("anna", "t-anna"),
        ForgeUser::person("bert", "t-bert"),
    ];
    let options =
        ForgeOptions { slow_mergeable, ..ForgeOptions::new(repos.clone(), "http://git.invalid".into(), users) };
    Setup { forge: start(options).await.unwrap(), repos, _dir: dir }
}

impl Setup {
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_as("t-bot", method, path, body).await
    }

    async fn call_as(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", self.forge.url());
        let mut request = reqwest::Client::new().request(method, url).bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn open(&self) -> Value {
        let (status, pull) = self.call("POST", "/repos/acme/platform/pulls", new_pull()).await;
        assert_eq!(status, 201, "{pull}");
        pull
    }

    async fn merge(&self, body: Value) -> (u16, Value) {
        self.call("PUT", "/repos/acme/platform/pulls/1/merge", body).await
    }

    fn head(&self, branch: &str) -> String {
        self.repos.head(REPO, branch).unwrap()
    }
}

fn new_pull() -> Value {
    json!({"title": "Scale web", "head": "change", "base": "main", "body": "because"})
}

#[tokio::test]
async fn a_pull_request_is_opened_once() {
    let s = setup().await;
    let pull = s.open().await;
    assert_eq!(
        (pull["number"].as_u64(), pull["mergeable"].as_bool(), pull["merged"].as_bool()),
        (Some(1), Some(true), Some(false))
    );
    assert_eq!(pull["head"]["sha"], s.head("change"));
    assert_eq!((pull["user"]["type"].as_str(), pull["changed_files"].as_u64()), (Some("Bot"), Some(1)));
    let (status, again) = s.call("POST", "/repos/acme/platform/pulls", new_pull()).await;
    assert_eq!(status, 422);
    assert!(again["errors"][0]["message"].as_str().unwrap().starts_with("A pull request already exists"));
    let (_, found) = s.call("GET", "/repos/acme/platform/pulls?head=acme:change&state=open", Value::Null).await;
    assert_eq!(found.as_array().unwrap().len(), 1);
    let (_, none) = s.call("GET", "/repos/acme/platform/pulls?head=acme:other", Value::Null).await;
    assert_eq!(none, json!([]));
}

#[tokio::test]
async fn a_missing_branch_or_no_commits_is_a_validation_error() {
    let s = setup().await;
    let ask = |head: &str| json!({"title": "t", "head": head, "base": "main"});
    let (status, body) = s.call("POST", "/repos/acme/platform/pulls", ask("nowhere")).await;
    assert_eq!((status, body["errors"][0]["field"].as_str()), (422, Some("head")));
    s.repos.set_branch(REPO, "same", "refs/heads/main").unwrap();
    let (status, body) = s.call("POST", "/repos/acme/platform/pulls", ask("same")).await;
    assert_eq!(status, 422);
    assert_eq!(body["errors"][0]["message"], "No commits between main and same");
}

#[tokio::test]
async fn a_token_is_needed_and_names_the_user() {
    let s = setup().await;
    let (status, _) = s.call_as("wrong", "GET", "/user", Value::Null).await;
    assert_eq!(status, 401);
    assert_eq!(s.call_as("t-anna", "GET", "/user", Value::Null).await.1["login"], "anna");
    assert_eq!(s.call("GET", "/repos/acme/nothing", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_merge_keeps_both_histories_and_names_the_forge_as_committer() {
    let s = setup().await;
    let pull = s.open().await;
    let head = pull["head"]["sha"].clone();
    let base = s.head("main");
    assert_eq!(s.merge(json!({"sha": base})).await.0, 409, "not the head");
    let (status, merged) = s.merge(json!({"sha": head, "merge_method": "merge"})).await;
    assert_eq!(status, 200, "{merged}");
    let commit = s.repos.commit_info(REPO, "main").unwrap();
    assert_eq!(json!(commit.id), merged["sha"]);
    assert_eq!(commit.parents, [base, head.as_str().unwrap().to_owned()]);
    assert_eq!((commit.author.name.as_str(), commit.committer.name.as_str()), ("countersign", "Sandbox Forge"));
    let (_, after) = s.call("GET", "/repos/acme/platform/pulls/1", Value::Null).await;
    assert_eq!((after["merged"].as_bool(), after["merge_commit_sha"].clone()), (Some(true), merged["sha"].clone()));
    assert_eq!(after["merged_by"]["login"], "countersign");
    assert_eq!(s.merge(json!({})).await.0, 405, "only once");
}

#[tokio::test]
async fn squash_and_rebase_make_one_parent_on_a_moved_base() {
    for method in ["squash", "rebase"] {
        let s = setup().await;
        s.open().await;
        s.repos.commit(REPO, "main", &[FileChange::write("other.yaml", b"a: 2\n")], &anna(), "chore: move\n").unwrap();
        let base = s.head("main");
        let (status, merged) = s.merge(json!({"merge_method": method})).await;
        assert_eq!(status, 200, "{merged}");
        let commit = s.repos.commit_info(REPO, "main").unwrap();
        assert_eq!(commit.parents, [base]);
        assert!(commit.message.contains("Trailer: x"), "{}", commit.message);
        assert_eq!(s.repos.read(REPO, "main", "web.yaml").unwrap(), b"replicas: 2\n");
        assert_eq!(s.repos.read(REPO, "main", "other.yaml").unwrap(), b"a: 2\n");
    }
}

#[tokio::test]
async fn a_conflict_is_not_mergeable() {
    let s = setup().await;
    s.open().await;
    s.repos.commit(REPO, "main", &[FileChange::write("web.yaml", b"replicas: 9\n")], &anna(), "chore: nine\n").unwrap();
    let (_, pull) = s.call("GET", "/repos/acme/platform/pulls/1", Value::Null).await;
    assert_eq!((pull["mergeable"].as_bool(), pull["mergeable_state"].as_str()), (Some(false), Some("dirty")));
    let before = s.head("main");
    for method in ["merge", "squash", "rebase"] {
        assert_eq!(s.merge(json!({"merge_method": method})).await.0, 405, "{method}");
    }
    assert_eq!(s.head("main"), before);
}

#[tokio::test]
async fn approvals_are_counted_by_the_branch_protection() {
    let s = setup().await;
    s.forge.protect(REPO, "main", Some(Protection { required_approvals: 1, dismiss_stale: true })).unwrap();
    s.open().await;
    let (status, words) = s.merge(json!({})).await;
    assert_eq!(status, 405);
    assert!(words["message"].as_str().unwrap().contains("approving review"));
    assert!(s.forge.review(REPO, 1, "countersign", Verdict::Approved, "").is_err(), "its own");
    s.forge.review(REPO, 1, "anna", Verdict::Approved, "fine").unwrap();
    s.repos
        .commit(REPO, "change", &[FileChange::write("web.yaml", b"replicas: 66\n")], &anna(), "feat: more\n")
        .unwrap();
    assert_eq!(s.merge(json!({})).await.0, 405, "a push takes the approval back");
    let (_, reviews) = s.call("GET", "/repos/acme/platform/pulls/1/reviews", Value::Null).await;
    assert_eq!(reviews[0]["state"], "DISMISSED");
    s.forge.review(REPO, 1, "anna", Verdict::Approved, "fine").unwrap();
    assert_eq!(s.merge(json!({})).await.0, 200);
}

#[tokio::test]
async fn people_merge_and_close_in_the_forges_pages() {
    let s = setup().await;
    s.open().await;
    s.forge.close(REPO, 1, "anna").unwrap();
    assert_eq!(s.forge.pull(REPO, 1).unwrap().state, PullState::Closed);
    s.forge.reopen(REPO, 1, "anna").unwrap();
    let commit = s.forge.merge(REPO, 1, "anna", Method::Merge).unwrap();
    assert_eq!(s.head("main"), commit);
    let merged = s.forge.pull(REPO, 1).unwrap().merged.unwrap();
    assert_eq!(merged.by.as_deref(), Some("anna"));
    assert!(s.forge.log().iter().any(|l| l["what"] == "pull_merged" && l["by"] == "anna"));
}

#[tokio::test]
async fn a_push_to_the_base_merges_and_a_deleted_branch_closes() {
    let s = setup().await;
    s.open().await;
    s.repos.set_branch(REPO, "main", "refs/heads/change").unwrap();
    let pull = s.forge.pull(REPO, 1).unwrap();
    assert_eq!(pull.merged.unwrap().commit, s.head("change"));
    let other = setup().await;
    other.open().await;
    let (status, _) = other.call("DELETE", "/repos/acme/platform/git/refs/heads/change", Value::Null).await;
    assert_eq!(status, 204);
    let pull = other.forge.pull(REPO, 1).unwrap();
    assert_eq!((pull.state, pull.merged), (PullState::Closed, None));
    assert_eq!(other.call("DELETE", "/repos/acme/platform/git/refs/heads/change", Value::Null).await.0, 422);
}

#[tokio::test]
async fn mergeability_may_come_late() {
    let s = setup_with(2).await;
    assert_eq!(s.open().await["mergeable"], Value::Null);
    let look = || s.call("GET", "/repos/acme/platform/pulls/1", Value::Null);
    assert_eq!(look().await.1["mergeable"], Value::Null);
    assert_eq!(look().await.1["mergeable"], true);
}

#[tokio::test]
async fn a_secondary_rate_limit_is_403_with_retry_after() {
    let s = setup().await;
    s.forge.rate_limit(1, 60);
    let response =
        reqwest::Client::new().get(format!("{}/user", s.forge.url())).bearer_auth("t-bot").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (403, "60"));
    assert_eq!(s.call("GET", "/user", Value::Null).await.0, 200);
}

#[tokio::test]
async fn comments_and_edits_are_kept() {
    let s = setup().await;
    s.open().await;
    let (status, _) = s.call("POST", "/repos/acme/platform/issues/1/comments", json!({"body": "hello"})).await;
    assert_eq!(status, 201);
    assert_eq!(s.forge.comments(REPO, 1)[0].body, "hello");
    let (_, pull) = s.call("PATCH", "/repos/acme/platform/pulls/1", json!({"state": "closed", "title": "New"})).await;
    assert_eq!(
        (pull["state"].as_str(), pull["title"].as_str(), pull["body"].as_str()),
        (Some("closed"), Some("New"), Some("because"))
    );
}

#[tokio::test]
async fn gitea_speaks_its_own_dialect() {
    let s = setup().await;
    let (status, pull) = s.call("POST", "/api/v1/repos/acme/platform/pulls", new_pull()).await;
    assert_eq!(status, 201, "{pull}");
    assert!(pull["user"].get("node_id").is_none());
    assert_eq!(s.call("POST", "/api/v1/repos/acme/platform/pulls", new_pull()).await.0, 409);
    let (_, found) = s.call("GET", "/api/v1/repos/acme/platform/pulls/main/change", Value::Null).await;
    assert_eq!(found["number"], 1);
    let path = "/api/v1/repos/acme/platform/pulls/1/merge";
    assert_eq!(s.call("GET", path, Value::Null).await.0, 404);
    let wrong = json!({"Do": "squash", "head_commit_id": s.head("main")});
    assert_eq!(s.call("POST", path, wrong).await.0, 409);
    let right = json!({"Do": "squash", "head_commit_id": s.head("change"), "delete_branch_after_merge": true});
    assert_eq!(s.call("POST", path, right).await.0, 200);
    assert_eq!(s.call("GET", path, Value::Null).await.0, 204);
    let (_, merged) = s.call("GET", "/api/v1/repos/acme/platform/pulls/1", Value::Null).await;
    assert_eq!(
        (merged["merged"].as_bool(), merged["merge_commit_sha"].as_str()),
        (Some(true), Some(s.head("main").as_str()))
    );
    assert!(s.repos.head(REPO, "change").is_none());
}

#[tokio::test]
async fn a_pull_request_has_a_page_with_its_diff() {
    let s = setup().await;
    let page = reqwest::get(s.open().await["html_url"].as_str().unwrap()).await.unwrap().text().await.unwrap();
    assert!(page.contains("Scale web  #1  (open)") && page.contains("+replicas: 2"), "{page}");
    let commit = format!("{}/acme/platform/commit/{}", s.forge.url(), s.head("change"));
    assert!(reqwest::get(commit).await.unwrap().text().await.unwrap().contains("feat: two"));
}

#[tokio::test]
async fn octocrab_reads_what_it_opened() {
    // The client library needs a process-wide TLS provider even for plain http.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let s = setup().await;
    let client = octocrab::Octocrab::builder()
        .base_uri(format!("{}/api/v3/", s.forge.url()))
        .unwrap()
        .personal_token("t-bot")
        .build()
        .unwrap();
    let opened =
        client.pulls("acme", "platform").create("Scale web", "change", "main").body("because").send().await.unwrap();
    assert_eq!(opened.number, 1);
    let page = client.pulls("acme", "platform").list().head("acme:change").send().await.unwrap();
    assert_eq!(page.items.len(), 1);
    let merged = client.pulls("acme", "platform").merge(1).sha(&opened.head.sha).send().await.unwrap();
    assert_eq!(merged.sha.unwrap(), s.head("main"));
    let after = client.pulls("acme", "platform").get(1).await.unwrap();
    assert_eq!(after.merge_commit_sha.unwrap(), s.head("main"));
}

/// Not a test: stays up for `tests/clients/*` while one works on them, and says where.
#[tokio::test]
#[ignore = "serves until it is killed"]
async fn serve_for_clients() {
    let s = setup().await;
    let bot = crate::sandbox::bot::start(crate::sandbox::bot::BotOptions::default()).await.unwrap();
    println!("forge {} bot {} token {} control {}", s.forge.url(), bot.url(), bot.token(), bot.control_url());
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
}
