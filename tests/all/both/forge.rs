//! People at the forge, over Gitea's API, which both back ends speak.

use serde_json::{Value, json};

use super::place::{Login, Place};

impl Place {
    async fn forge(&self, method: reqwest::Method, path: &str, who: &Login, body: Option<Value>) -> Value {
        let r = &self.repository;
        let url = format!("{}/repos/{}/{}/{path}", r.api_url, r.owner, r.name);
        let mut request =
            reqwest::Client::new().request(method, &url).header("authorization", format!("token {}", who.token));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let words = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {words}");
        serde_json::from_str(&words).unwrap_or_default()
    }

    /// All pull requests, newest first.
    pub async fn pulls(&self) -> Vec<Value> {
        let found = self.forge(reqwest::Method::GET, "pulls?state=all", &self.repository.anna, None).await;
        found.as_array().cloned().unwrap_or_default()
    }

    pub async fn pull(&self, number: u64) -> Value {
        self.forge(reqwest::Method::GET, &format!("pulls/{number}"), &self.repository.anna, None).await
    }

    /// Merges as a person (`merge`, `squash`, `rebase`) once the forge says that it can be; gives the commit.
    pub async fn merge(&self, number: u64, who: &Login, style: &str) -> String {
        // Gitea works out in the background whether a pull request can be merged.
        self.eventually(
            "a pull request that can be merged",
            || async move { self.pull(number).await["mergeable"] == true },
        )
        .await;
        let path = format!("pulls/{number}/merge");
        self.forge(reqwest::Method::POST, &path, who, Some(json!({"Do": style}))).await;
        self.pull(number).await["merge_commit_sha"].as_str().unwrap_or_default().to_owned()
    }

    /// Closes without merging, as a person.
    pub async fn close(&self, number: u64, who: &Login) {
        self.forge(reqwest::Method::PATCH, &format!("pulls/{number}"), who, Some(json!({"state": "closed"}))).await;
    }
}
