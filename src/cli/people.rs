//! What people do on the command line. A vote is a signature, never mere access.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use clap::Args;
use countersign_core::model::digest_of;
use countersign_core::{Problem, Result};
use serde_json::Value;

use crate::config::Config;
use crate::pipeline::{ControlRequest as Request, glass_text, review_text, vote_text};
use crate::server::control::{NAMESPACE, call};

/// `approve` and `reject`.
#[derive(Debug, Args)]
pub struct Vote {
    /// Change id or short name.
    change: String,
    /// SSH key: a private key file (its passphrase is asked here), or a public key whose private half your agent holds.
    #[arg(long, short = 'k', env = "COUNTERSIGN_SSH_KEY")]
    key: PathBuf,
    /// Why (reject, and break-glass).
    #[arg(long)]
    reason: Option<String>,
    /// Do not ask again after showing the card.
    #[arg(long)]
    yes: bool,
}

/// `approve`.
#[derive(Debug, Args)]
pub struct Approve {
    #[command(flatten)]
    vote: Vote,
    /// Your yes alone suffices, in spite of quorum and freeze, for 30 minutes: everybody is told, and somebody else
    /// reviews it. For people of `approvals.break_glass`; needs --reason.
    #[arg(long, requires = "reason")]
    break_glass: bool,
}

/// `review`.
#[derive(Debug, Args)]
pub struct Review {
    /// Change id or short name.
    change: String,
    /// SSH key, as for approve.
    #[arg(long, short = 'k', env = "COUNTERSIGN_SSH_KEY")]
    key: PathBuf,
    /// What you found, in one sentence.
    #[arg(long)]
    note: String,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct Why {
    /// Why.
    #[arg(default_value = "no reason given")]
    reason: String,
}

/// `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// SSH key, as for approve.
    #[arg(long, short = 'k', env = "COUNTERSIGN_SSH_KEY")]
    key: PathBuf,
    /// Why.
    #[arg(default_value = "no reason given")]
    reason: String,
}

fn state_dir(config: &Path) -> Result<PathBuf> {
    Ok(Config::load(config)?.bootstrap.state_dir)
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `pending`.
pub async fn pending(config: &Path) -> Result<ExitCode> {
    let answer = call(&state_dir(config)?, &Request::Pending).await?;
    let list = answer.get("pending").and_then(Value::as_array).cloned().unwrap_or_default();
    if list.is_empty() {
        println!("Nothing waits for a person.");
    }
    for p in list {
        println!("{}  {}  {}", text(&p, "name"), text(&p, "state"), text(&p, "what"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `approve`.
pub async fn approve(config: &Path, args: Approve) -> Result<ExitCode> {
    let say = if args.break_glass { Say::BreakGlass } else { Say::Yes };
    vote(config, args.vote, say).await
}

/// `reject`.
pub async fn reject(config: &Path, args: Vote) -> Result<ExitCode> {
    vote(config, args, Say::No).await
}

/// What a person signs about a change.
#[derive(Clone, Copy)]
enum Say {
    Yes,
    No,
    BreakGlass,
}

/// Shows the card, computes the digest itself, signs it.
async fn vote(config: &Path, args: Vote, say: Say) -> Result<ExitCode> {
    let state = state_dir(config)?;
    let shown = call(&state, &Request::Show { change: args.change.clone() }).await?;
    let sealed = text(&shown, "sealed");
    let digest = digest_of(sealed.as_bytes());
    // The card is part of what is hashed: what is read here is what is signed.
    let message =
        serde_json::from_str::<Value>(sealed).ok().map(|v| text(&v, "message").to_owned()).unwrap_or_default();
    println!("{message}\n");
    println!("{}", text(&shown, "diff"));
    println!("Digest {}", digest.short());
    let question = match say {
        Say::Yes => "Approve this",
        Say::No => "Reject this",
        Say::BreakGlass => "Break the glass for this",
    };
    if !args.yes && !confirmed(question)? {
        println!("Nothing was signed.");
        return Ok(ExitCode::from(1));
    }
    let Vote { change, key, reason, .. } = args;
    let request = if let Say::BreakGlass = say {
        let reason = reason.unwrap_or_default();
        let signature = sign(&key, &glass_text(&digest.0, &reason))?;
        Request::BreakGlass { change, reason, signature }
    } else {
        let approve = matches!(say, Say::Yes);
        let signature = sign(&key, &vote_text(approve, &digest.0))?;
        Request::Vote { change, approve, reason, signature }
    };
    let answer = call(&state, &request).await?;
    println!("{}", text(&answer, "say"));
    Ok(ExitCode::SUCCESS)
}

/// `review`: what another person found about a change that one yes let through.
pub async fn review(config: &Path, args: Review) -> Result<ExitCode> {
    let state = state_dir(config)?;
    let shown = call(&state, &Request::Show { change: args.change.clone() }).await?;
    let digest = digest_of(text(&shown, "sealed").as_bytes());
    println!("{}", text(&shown, "diff"));
    let signature = sign(&args.key, &review_text(&digest.0, &args.note))?;
    let answer = call(&state, &Request::Review { change: args.change, note: args.note, signature }).await?;
    println!("{}", text(&answer, "say"));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn confirmed(what: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Problem::new(
            "input.no_terminal",
            "Nobody can be asked: this is no terminal.",
            "Run it in a terminal, or give --yes after reading the card.",
        ));
    }
    print!("{what}? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| Problem::new("input.unreadable", format!("The answer could not be read: {e}."), "Try again."))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes" | "ja"))
}

/// Signs with `ssh-keygen -Y sign`: it asks for the passphrase on the terminal, and speaks to the
/// agent and to hardware keys.
pub(crate) fn sign(key: &Path, text: &str) -> Result<String> {
    let failed = |why: String| {
        Problem::new(
            "signature.failed",
            format!("The signature was not made: {}.", why.trim_end_matches('.')),
            "Name your private key, or a public key that your agent holds, with --key; ssh-keygen (OpenSSH 8.1 or later) must be installed.",
        )
    };
    let mut child = std::process::Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(stdin) = child.stdin.as_mut() {
        stdin.write_all(text.as_bytes()).map_err(|e| failed(e.to_string()))?;
    }
    let out = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !out.status.success() {
        return Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
    }
    String::from_utf8(out.stdout).map_err(|e| failed(e.to_string()))
}

/// `stop`.
pub async fn stop(config: &Path, args: Why) -> Result<ExitCode> {
    let answer = call(&state_dir(config)?, &Request::Stop { reason: args.reason }).await?;
    println!("{}", text(&answer, "say"));
    Ok(ExitCode::SUCCESS)
}

/// `resume`.
pub async fn resume(config: &Path, args: Resume) -> Result<ExitCode> {
    let state = state_dir(config)?;
    let ask = call(&state, &Request::ResumeText).await?;
    let signature = sign(&args.key, text(&ask, "text"))?;
    let answer = call(&state, &Request::Resume { reason: args.reason, signature }).await?;
    println!("{}", text(&answer, "say"));
    Ok(ExitCode::SUCCESS)
}

/// `reload`.
pub async fn reload(config: &Path) -> Result<ExitCode> {
    let answer = call(&state_dir(config)?, &Request::Reload).await?;
    println!("{}", text(&answer, "say"));
    Ok(ExitCode::SUCCESS)
}
