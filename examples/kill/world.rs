//! The sandbox as a process of its own, prepared with one target for each way of delivery.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use countersign::sandbox::world::{CLUSTER, REPO, deployment};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::product::{Caller, Product, program};

/// Ways of delivery, by the label `mode` of the targets.
pub const MODES: [&str; 4] = ["direct", "merge", "pull", "standard"];
/// The two applications: the first is delivered by Argo CD, the second by Flux.
pub const APPS: [&str; 2] = ["checkout", "payments"];

const POLICY: &str = "version: 1
default: {level: deny}
rules:
- {id: direct, match: {labels: {mode: direct}}, level: prompted, approve: {from: [sre], count: 1, expires: 30m}, deliver: direct}
- {id: merge, match: {labels: {mode: merge}}, level: prompted, approve: {from: [sre], count: 1, expires: 30m}, deliver: merge_after_approval}
- {id: pull, match: {labels: {mode: pull}}, level: prompted, approve: {from: [sre], count: 1, expires: 30m}, deliver: pull_request, tell: [sre]}
- {id: standard, match: {labels: {mode: standard}}, level: standard, deliver: direct, tell: [sre]}
";

/// A running sandbox with the product in front.
pub struct World {
    pub dir: PathBuf,
    pub product: Product,
    pub agent: Caller,
    pub controls: Controls,
    images: u32,
    sandbox: Child,
}

/// The control APIs: what people do, and what happens to the world.
pub struct Controls {
    http: reqwest::Client,
    addresses: Value,
}

impl World {
    pub async fn start(dir: &Path) -> Result<Self> {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir)?;
        let policy = dir.join("first-policy.yaml");
        std::fs::write(&policy, POLICY)?;
        let log = std::fs::File::create(dir.join("sandbox.log"))?;
        let mut sandbox = Command::new(program()?)
            .args(["sandbox", "--json", "--speed", "12", "--dir"])
            .arg(dir)
            .arg("--policy")
            .arg(&policy)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let out = sandbox.stdout.take().context("the sandbox has no output")?;
        let line = tokio::time::timeout(Duration::from_secs(60), BufReader::new(out).lines().next_line()).await??;
        let addresses: Value = serde_json::from_str(&line.context("the sandbox ended")?)?;
        let config = PathBuf::from(addresses.get("config").and_then(Value::as_str).context("no configuration")?);
        quicken(&config)?;
        let token = std::fs::read_to_string(dir.join("keys/agent-token"))?;
        let product = Product::new(config, dir)?;
        let agent = Caller::new(product.url(), token);
        let controls = Controls { http: reqwest::Client::new(), addresses };
        let mut me = Self { dir: dir.to_owned(), product, agent, controls, images: 0, sandbox };
        me.prepare().await?;
        Ok(me)
    }

    /// Targets for every mode, no flood control, and the product up with all targets owned.
    async fn prepare(&mut self) -> Result<()> {
        self.controls.call("bot", "limits", Some(Value::Null)).await?;
        for app in APPS {
            for mode in MODES {
                let name = target(app, mode);
                let text = deployment(&name, &format!("reg.example/{app}:0"), 1)
                    .replace("env: prod", &format!("env: prod\n    mode: {mode}"));
                let body =
                    json!({"repo": REPO, "branch": "main", "path": format!("apps/{app}/{mode}.yaml"), "content": text});
                self.controls.call("git", "commit", Some(body)).await?;
            }
            let text = deployment(app, &format!("reg.example/{app}:0"), 1);
            let body =
                json!({"repo": REPO, "branch": "main", "path": format!("apps/{app}/deploy.yaml"), "content": text});
            self.controls.call("git", "commit", Some(body)).await?;
        }
        self.product.start()?;
        for app in APPS {
            for mode in MODES {
                self.await_target(&full(app, mode)).await?;
            }
        }
        Ok(())
    }

    /// Until a change of this target can be planned.
    async fn await_target(&mut self, name: &str) -> Result<()> {
        let end = tokio::time::Instant::now() + Duration::from_secs(120);
        loop {
            let ask = json!({"edits": [{"target": name, "set_image": {"container": "app", "image": "reg.example/probe:1"}}],
                "reason": "is it there?", "plan_only": true});
            let seen = self.agent.call("operate", ask).await;
            if seen.as_ref().is_ok_and(|s| s.get("outcome").and_then(Value::as_str) == Some("planned")) {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                bail!("{name} never became a target: {seen:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// An image that no change had before.
    pub async fn next_image(&mut self, app: &str, works: bool) -> Result<String> {
        self.images += 1;
        let image = format!("reg.example/{app}:{}-k", self.images);
        if !works {
            self.controls.call("cluster", "behaviour", Some(json!({"image": image, "behaviour": "missing"}))).await?;
        }
        Ok(image)
    }

    /// The bare repository, for `git` itself.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repos").join(format!("{REPO}.git"))
    }

    /// Ends both, and verifies the journal offline. What is wrong, in words.
    pub async fn end(mut self) -> Result<Vec<String>> {
        self.product.kill().await?;
        let out = Command::new(program()?)
            .arg("--config")
            .arg(self.dir.join("countersign.yaml"))
            .args(["audit", "verify"])
            .output()
            .await?;
        let words = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut findings = crate::oracle::history(&self.dir, &self.repository()).await?;
        if !out.status.success() || !words.contains("verified") {
            findings.push(format!("audit verify: {words}{}", String::from_utf8_lossy(&out.stderr)));
        }
        self.sandbox.kill().await?;
        Ok(findings)
    }
}

impl Controls {
    /// One call of a control API: GET, or POST where there is a body.
    pub async fn call(&self, server: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let base =
            self.addresses.pointer(&format!("/control/{server}")).and_then(Value::as_str).context("no such server")?;
        let url = format!("{base}/{path}");
        let request = match body {
            Some(body) => self.http.post(url).json(&body),
            None => self.http.get(url),
        };
        let response = request.timeout(Duration::from_secs(30)).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if !status.is_success() {
            bail!("{server} {path}: {status} {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// The name of a target.
pub fn target(app: &str, mode: &str) -> String {
    format!("{app}-{mode}")
}

/// The name of a target, as an agent gives it.
pub fn full(app: &str, mode: &str) -> String {
    format!("{CLUSTER}/shop/Deployment/{}", target(app, mode))
}

/// Short times, so that many cases fit into a minute.
fn quicken(config: &Path) -> Result<()> {
    let text = std::fs::read_to_string(config)?;
    let lines = text.lines().map(|l| match l.split_once(':').map_or("", |(key, _)| key) {
        "times" => "times: {observe_s: 60, stable_s: 1, failed_grace_s: 1, deliver_s: 60, poll_s: 1}",
        // One press is one decision: what a kill does to it is looked at, not how careful people are.
        "approvals" => "approvals: {cooldown_s: 0, number_from: critical}",
        _ => l,
    });
    Ok(std::fs::write(config, lines.collect::<Vec<_>>().join("\n") + "\n")?)
}
