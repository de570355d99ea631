//! The configuration itself, and what is on this machine: state directory, signing key, programs.

use std::process::Stdio;

use countersign_core::policy::{Known, Severity, check, check_names, run_tests};
use countersign_core::{Problem, Result};

use super::{Check, Looks};
use crate::clock::Clock;
use crate::config::Config;
use crate::git::{NAMESPACE_CHECKPOINT, SshSigner, verify};
use crate::pipeline::ControlRequest;
use crate::render::Kustomize;
use crate::server::control::call;

/// What loading alone does not find.
pub fn configuration(config: &Config, clock: &Clock, looks: &mut Looks) {
    looks.ok(format!(
        "loads: {} clusters, {} repositories, {} agents, {} people",
        config.clusters.len(),
        config.repositories.len(),
        config.agents.len(),
        config.people.len()
    ));
    for (count, kind, what) in [
        (config.clusters.len(), "Cluster", "nothing can be inspected"),
        (config.repositories.len(), "Repository", "nothing can be written"),
        (config.agents.len(), "Agent", "nobody can ask for anything"),
    ] {
        if count == 0 {
            let say = format!("There is no {kind}, so {what}.");
            looks.soft(Problem::new("config.nothing", say, "Add one; `countersign init` writes a start."));
        }
    }
    let names = Known {
        clusters: config.clusters.iter().map(|n| n.name.clone()).collect(),
        repositories: config.repositories.iter().map(|n| n.name.clone()).collect(),
        agents: config.agents.iter().map(|n| n.name.clone()).collect(),
    };
    let mut findings = check(&config.policies, &config.people, clock.now_ms());
    findings.extend(check_names(&config.policies, &names));
    let next = "Look at the rule; `countersign policy check` says the same.";
    let words = |file: &str, rule: &str, say: &str| match (file, rule) {
        ("", "") => say.to_owned(),
        (file, "") => format!("{file}: {say}"),
        (file, rule) => format!("{file}, rule {rule}: {say}"),
    };
    for f in findings.iter().filter(|f| f.severity != Severity::Info) {
        let say = words(&f.file, &f.rule, &f.message);
        match f.severity {
            Severity::Error => looks.bad(Problem::new(f.code, say, next)),
            _ => looks.soft(Problem::new(f.code, say, next)),
        }
    }
    let outcomes = run_tests(&config.policies);
    let failed = outcomes.iter().filter(|t| !t.failures.is_empty());
    let mut failures = 0;
    for t in failed {
        failures += 1;
        let say = format!("The policy test \"{}\" in {} fails.", t.name, t.file);
        let next = "Correct the rule or the test; `countersign policy check` says the same.";
        looks.bad(Problem::new("policy.test_failed", say, next).with_all(t.failures.iter().cloned()));
    }
    if failures == 0 {
        looks.ok(format!("policy: {} rules, {} tests pass", config.policies.rules().len(), outcomes.len()));
    }
}

/// State directory, signing key, programs.
pub async fn examine(config: &Config) -> Vec<Check> {
    let mut looks = Looks::at("this machine");
    state(config, &mut looks).await;
    looks.tried("the signing key loads, signs and verifies", signing(config));
    programs(config, &mut looks).await;
    looks.checks
}

async fn state(config: &Config, looks: &mut Looks) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = &config.bootstrap.state_dir;
    match std::fs::metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            looks.ok("the state directory is made at the first start")
        }
        Err(e) => looks.bad(Problem::new(
            "daemon.state_dir",
            format!("The state directory cannot be used: {e}."),
            "Make it writable for this user alone, or name another one in the configuration.",
        )),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => looks.soft(Problem::new(
            "daemon.state_open",
            "Other users of this machine can enter the state directory.",
            "Set its mode to 0700; the daemon does so when it starts.",
        )),
        Ok(_) => looks.ok("the state directory is this user's alone"),
    }
    match call(dir, &ControlRequest::Status).await {
        Ok(answer) => {
            let ready = answer.get("ready").and_then(serde_json::Value::as_bool) == Some(true);
            looks.ok(if ready {
                "the daemon runs and is ready"
            } else {
                "the daemon runs; `status` says why it is not ready"
            });
        }
        Err(_) => looks.ok("no daemon runs now: the first stdio client starts it, or `countersign serve`"),
    }
}

fn signing(config: &Config) -> Result<()> {
    let signer = SshSigner::from_openssh(&config.secret("the signing key", &config.bootstrap.signing_key)?, None)?;
    let text = b"countersign doctor";
    let signature = signer.sign(NAMESPACE_CHECKPOINT, text)?;
    verify(NAMESPACE_CHECKPOINT, text, &signature, &[signer.public_key()]).map(|_| ())
}

async fn programs(config: &Config, looks: &mut Looks) {
    match Kustomize::require(config.bootstrap.kustomize.as_deref()) {
        Ok(found) => {
            let version = version(found.program(), found.version_args()).await;
            looks.ok(format!("kustomize: {}", version.as_deref().unwrap_or("found, version not known")));
        }
        // Plain manifests need none.
        Err(problem) => looks.soft(problem),
    }
    match version("helm".as_ref(), &["version", "--short"]).await {
        Some(v) => looks.ok(format!("helm: {v} (this version edits no chart values, so it is not used yet)")),
        None => looks.ok("helm: not found, and not needed by this version"),
    }
    if !runs("ssh-keygen").await {
        looks.soft(Problem::new(
            "signature.no_program",
            "ssh-keygen is not on the search path: nobody can approve or resume on the command line here.",
            "Install OpenSSH 8.1 or later where people decide.",
        ));
    }
}

async fn runs(program: &str) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.arg("-?").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok()
}

/// First line of what a program says about itself.
async fn version(program: &std::path::Path, args: &[&str]) -> Option<String> {
    let run = tokio::process::Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let out = tokio::time::timeout(std::time::Duration::from_secs(10), run).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let line: String = text.lines().next()?.trim().chars().filter(|c| !c.is_control()).take(80).collect();
    (out.status.success() && !line.is_empty()).then_some(line)
}
