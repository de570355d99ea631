//! People at the forge, over Gitea's API, which both back ends speak.

use serde_json::{Value, json};

use super::place::{Login, Place};

impl Place {
    async fn forge(&self, method: reqwest::Method, path: &str, who: &Login, body: Option<Value>) -> Value {
        let (status, words) = self.forge_says(method, path, who, body).await;
        assert!(status.is_success(), "{path}: {status} {words}");
        serde_json::from_str(&words).unwrap_or_default()
    }

    async fn forge_says(
        &self,
        method: reqwest::Method,
        path: &str,
        who: &Login,
        body: Option<Value>,
    ) -> (reqwest::StatusCode, String) {
        let r = &self.repository;
        let url = format!("{}/repos/{}/{}/{path}", r.api_url, r.owner, r.name);
        let mut request =
            reqwest::Client::new().request(method, &url).header("authorization", format!("token {}", who.token));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// All pull requests, newest first.
    pub async fn pulls(&self) -> Vec<Value> {
        let found = self.forge(reqwest::Method::GET, "pulls?state=all", &self.repository.anna, None).await;
        found.as_array().cloned().unwrap_or_default()
    }

    pub async fn pull(&self, number: u64) -> Value {
        self.forge(reqwest::Method::GET, &format!("pulls/{number}"), &self.repository.anna, None).await
    }

    /// Merges as a person (`merge`, `squash`, `rebase`) once the forge does it; gives the commit.
    pub async fn merge(&self, number: u64, who: &Login, style: &str) -> String {
        // Gitea works out in the background whether a pull request can be merged, anew after each push to its base;
        // until then `mergeable` is what it was before, and a merge is answered with 405, "Please try again later".
        self.eventually("a pull request that can be merged", || async move {
            let body = json!({"Do": style});
            let (status, words) =
                self.forge_says(reqwest::Method::POST, &format!("pulls/{number}/merge"), who, Some(body)).await;
            let later = status == reqwest::StatusCode::METHOD_NOT_ALLOWED && words.contains("try again");
            assert!(status.is_success() || later, "{status} {words}");
            status.is_success()
        })
        .await;
        self.pull(number).await["merge_commit_sha"].as_str().unwrap_or_default().to_owned()
    }

    /// Closes without merging, as a person.
    pub async fn close(&self, number: u64, who: &Login) {
        self.forge(reqwest::Method::PATCH, &format!("pulls/{number}"), who, Some(json!({"state": "closed"}))).await;
    }
}
