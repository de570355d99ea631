//! The forge and Git server: accounts with tokens, repositories, protected branches, smart HTTP and ssh.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::Result;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::state::State;
use super::{Lab, boot, off, problem};

/// The administrator's login.
const ADMIN: &str = "lab-admin";
/// What tokens may do: what `docs/git-auth.md` asks for, and reading who one is.
const SCOPES: [&str; 3] = ["write:repository", "write:issue", "read:user"];

/// One account is made at a time, so that each has one token; and one organisation.
static MAKING: Mutex<()> = Mutex::const_new(());

/// Somebody at the forge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// Login.
    pub login: String,
    /// API token, and password over HTTP.
    pub token: String,
}

/// The forge of a lab.
#[derive(Debug, Clone)]
pub struct Gitea {
    dir: PathBuf,
    state: State,
}

/// Settings, database and administrator, before its first start.
pub(super) async fn prepare(lab: &Lab) -> Result<()> {
    let dir = lab.dir.join("gitea");
    let me = boot::tool("id", Path::new("id"), &["-un".into()], &[]).await?;
    let file = dir.join("app.ini");
    boot::put(&file, &settings(&lab.state, &dir, me.trim()))?;
    let part = lab.part("gitea")?;
    let config = file.display().to_string();
    let words = |w: &str| -> Vec<String> { w.split_whitespace().map(str::to_owned).collect() };
    boot::tool("gitea", &part.program, &words(&format!("--config {config} migrate")), &part.env).await?;
    let create = format!(
        "--config {config} admin user create --admin --username {ADMIN} --password {} --email {ADMIN}@example.test \
         --must-change-password=false",
        lab.state.forge_password
    );
    boot::tool("gitea", &part.program, &words(&create), &part.env).await.map(drop)
}

/// Queues are those of an installation that says nothing of them. `channel` is faster, and loses: an item that is
/// taken before its push is noted counts as waiting for ever, and the pull request that it stands for is never checked
/// again (gitea 1.26.0: `modules/queue/base_channel.go`, `PushItem`).
fn settings(state: &State, dir: &Path, me: &str) -> String {
    let d = |below: &str| dir.join(below).display().to_string();
    format!(
        "APP_NAME = lab\nRUN_MODE = prod\nRUN_USER = {me}\nWORK_PATH = {work}\nI_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true\n\
         [server]\nPROTOCOL = http\nHTTP_ADDR = {host}\nHTTP_PORT = {port}\nDOMAIN = {host}\nROOT_URL = {url}/\n\
         STATIC_ROOT_PATH = {share}\nAPP_DATA_PATH = {data}\nOFFLINE_MODE = true\nLFS_START_SERVER = false\n\
         START_SSH_SERVER = true\nBUILTIN_SSH_SERVER_USER = git\nSSH_DOMAIN = 127.0.0.1\nSSH_LISTEN_HOST = 127.0.0.1\n\
         SSH_PORT = {ssh}\nSSH_LISTEN_PORT = {ssh}\nSSH_SERVER_HOST_KEYS = {key}\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {db}\nSQLITE_JOURNAL_MODE = WAL\n\
         [security]\nINSTALL_LOCK = true\nSECRET_KEY = {secret}\n\
         [service]\nDISABLE_REGISTRATION = true\nDEFAULT_ALLOW_CREATE_ORGANIZATION = true\nENABLE_CAPTCHA = false\n\
         [repository]\nROOT = {repos}\nDEFAULT_BRANCH = main\nDISABLE_STARS = true\n\
         [session]\nPROVIDER = memory\n[oauth2]\nENABLED = false\n[openid]\nENABLE_OPENID_SIGNIN = false\n\
         [actions]\nENABLED = false\n[packages]\nENABLED = false\n[mailer]\nENABLED = false\n\
         [indexer]\nISSUE_INDEXER_TYPE = db\n[queue]\nTYPE = level\n[cron]\nENABLED = false\n\
         [webhook]\nALLOWED_HOST_LIST = loopback\n\
         [log]\nMODE = console\nLEVEL = Warn\nROOT_PATH = {log}\n",
        work = dir.display(),
        host = state.host(),
        port = state.port("gitea"),
        url = state.url("gitea"),
        share = state.cache.join("share/gitea").display(),
        data = d("data"),
        ssh = state.port("gitea-ssh"),
        key = d("host-key"),
        db = d("gitea.db"),
        secret = super::state::secret(),
        repos = d("repos"),
        log = d("log"),
    )
}

impl Gitea {
    pub(super) fn new(lab: &Lab) -> Self {
        Self { dir: lab.dir.join("gitea"), state: lab.state.clone() }
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        self.state.url("gitea")
    }

    /// Base of its API.
    pub fn api_url(&self) -> String {
        format!("{}/api/v1", self.url())
    }

    /// Where a repository is cloned from over HTTP, without credentials.
    pub fn clone_url(&self, owner: &str, repo: &str) -> String {
        format!("{}/{owner}/{repo}.git", self.url())
    }

    /// The same over ssh.
    pub fn ssh_url(&self, owner: &str, repo: &str) -> String {
        format!("ssh://git@127.0.0.1:{}/{owner}/{repo}.git", self.state.port("gitea-ssh"))
    }

    /// The known_hosts line that pins its ssh server.
    pub fn known_hosts(&self) -> Result<String> {
        let key =
            std::fs::read_to_string(self.dir.join("host-key.pub")).map_err(|e| off("the forge's host key")(&e))?;
        let words: Vec<&str> = key.split_whitespace().take(2).collect();
        Ok(format!("[127.0.0.1]:{} {}\n", self.state.port("gitea-ssh"), words.join(" ")))
    }

    /// The administrator, who may do anything; over basic authentication only.
    fn admin(&self) -> (String, String) {
        (ADMIN.into(), self.state.forge_password.clone())
    }

    fn password(&self, login: &str) -> String {
        let digest = Sha256::digest(format!("{} {login}", self.state.forge_password));
        countersign_core::model::hex(&digest)
    }

    async fn send(&self, method: Method, path: &str, who: (String, String), body: &Value) -> Result<(u16, Value)> {
        let client = reqwest::Client::builder().no_proxy().build().map_err(|e| off("the forge")(&e))?;
        let request = client.request(method, format!("{}/{path}", self.api_url())).basic_auth(who.0, Some(who.1));
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.send().await.map_err(|e| off("the forge does not answer")(&e))?;
        let status = answer.status().as_u16();
        let words = answer.text().await.map_err(|e| off("the forge's answer")(&e))?;
        Ok((status, serde_json::from_str(&words).unwrap_or(Value::String(words))))
    }

    /// A call of the API as the administrator (`sudo=LOGIN` in the path: as somebody else). `path` is what follows
    /// `/api/v1/`. An answer other than 2xx is an error.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.send(method.clone(), path, self.admin(), body).await?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let words = answer["message"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
        Err(problem(format!("The forge answers {method} {path} with {status}."), "Look at its words.").with(words))
    }

    /// Makes something that may be there already.
    async fn ensure(&self, path: &str, body: &Value) -> Result<()> {
        let (status, answer) = self.send(Method::POST, path, self.admin(), body).await?;
        match status {
            200..300 | 409 | 422 => Ok(()),
            _ => Err(problem(format!("The forge answers POST {path} with {status}."), "Look at its words.")
                .with(answer.to_string())),
        }
    }

    /// Somebody's account, with a token; made when it is missing.
    pub async fn account(&self, login: &str) -> Result<Account> {
        let _turn = MAKING.lock().await;
        let file = self.dir.join("accounts").join(format!("{login}.json"));
        if let Ok(text) = std::fs::read_to_string(&file) {
            return serde_json::from_str(&text).map_err(|e| off("the account's file")(&e));
        }
        let password = self.password(login);
        let user = json!({"username": login, "password": password, "email": format!("{login}@example.test"), "must_change_password": false});
        self.ensure("admin/users", &user).await?;
        let wish = json!({"name": format!("lab-{}", super::state::secret()), "scopes": SCOPES});
        let who = (login.to_owned(), password);
        let (status, made) = self.send(Method::POST, &format!("users/{login}/tokens"), who, &wish).await?;
        let token = made["sha1"].as_str().ok_or_else(|| {
            problem(format!("The forge makes no token for {login} ({status})."), "Look.").with(made.to_string())
        })?;
        let account = Account { login: login.into(), token: token.into() };
        boot::put(&file, &json!(account).to_string())?;
        Ok(account)
    }

    /// A new repository of an organisation (made when it is missing), with a first commit on `main`.
    pub async fn create_repo(&self, owner: &str, name: &str, private: bool) -> Result<()> {
        {
            // Two at a time, and the forge answers one of them with 500: it looks first, and inserts then.
            let _turn = MAKING.lock().await;
            self.ensure("orgs", &json!({"username": owner})).await?;
        }
        let wish = json!({"name": name, "private": private, "auto_init": true, "default_branch": "main"});
        self.call(Method::POST, &format!("orgs/{owner}/repos"), &wish).await.map(drop)
    }

    /// Writes (or, without content, deletes) files in one commit on a branch, as the administrator. Gives the commit.
    pub async fn commit(
        &self,
        owner: &str,
        repo: &str,
        branch: &str,
        message: &str,
        files: &[(String, Option<String>)],
    ) -> Result<String> {
        let mut changes = Vec::new();
        for (path, content) in files {
            let at = format!("repos/{owner}/{repo}/contents/{path}?ref={branch}");
            let (_, old) = self.send(Method::GET, &at, self.admin(), &Value::Null).await?;
            let mut change = json!({"path": path});
            change["operation"] = match (old["sha"].as_str(), content) {
                (Some(_), Some(_)) => json!("update"),
                (Some(_), None) => json!("delete"),
                (None, _) => json!("create"),
            };
            if let Some(sha) = old.get("sha") {
                change["sha"] = sha.clone();
            }
            if let Some(content) = content {
                change["content"] = json!(STANDARD.encode(content));
            }
            changes.push(change);
        }
        let wish = json!({"branch": branch, "message": message, "files": changes});
        let made = self.call(Method::POST, &format!("repos/{owner}/{repo}/contents"), &wish).await?;
        let sha = made.pointer("/commit/sha").and_then(Value::as_str);
        sha.map(str::to_owned).ok_or_else(|| problem("The forge names no commit.", "Look.").with(made.to_string()))
    }

    /// The commit at the tip of a branch.
    pub async fn tip(&self, owner: &str, repo: &str, branch: &str) -> Result<String> {
        let found = self.call(Method::GET, &format!("repos/{owner}/{repo}/branches/{branch}"), &Value::Null).await?;
        Ok(found.pointer("/commit/id").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Lets an account write (`read`, `write`, `admin`).
    pub async fn let_in(&self, owner: &str, repo: &str, account: &Account, permission: &str) -> Result<()> {
        let path = format!("repos/{owner}/{repo}/collaborators/{}", account.login);
        self.call(Method::PUT, &path, &json!({"permission": permission})).await.map(drop)
    }

    /// No direct pushes to a branch any more. `more` is laid over the rule (`required_approvals`,
    /// `enable_push_whitelist`, `require_signed_commits`, …).
    pub async fn protect_branch(&self, owner: &str, repo: &str, branch: &str, more: &Value) -> Result<()> {
        let mut rule = json!({"rule_name": branch, "enable_push": false});
        for (key, value) in more.as_object().into_iter().flatten() {
            rule[key] = value.clone();
        }
        self.call(Method::POST, &format!("repos/{owner}/{repo}/branch_protections"), &rule).await.map(drop)
    }

    /// Registers a public key (`ssh-ed25519 AAAA…`) of an account.
    pub async fn add_ssh_key(&self, account: &Account, public: &str) -> Result<()> {
        let key = json!({"title": super::state::secret(), "key": public.trim(), "read_only": false});
        self.call(Method::POST, &format!("admin/users/{}/keys", account.login), &key).await.map(drop)
    }
}
