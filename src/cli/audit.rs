//! `audit verify`: offline, against the journal, its signed head and the landed commits.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use countersign_core::Result;
use secrecy::ExposeSecret as _;

use crate::config::Config;
use crate::git::{NAMESPACE_CHECKPOINT, SshSigner, verify};
use crate::journal::{Anchor, Report, verify_file};

/// `audit` commands.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verify the chain, the signed head, every change's history, and the trailers of landed commits.
    Verify,
}

/// Runs an `audit` command.
pub async fn run(config: &Path, args: Audit) -> Result<ExitCode> {
    let Audit::Verify = args;
    let report = verify_config(&Config::load(config)?).await?;
    print!("{}", words(&report));
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Verifies the journal of a configuration; reads mirrors and files only.
pub async fn verify_config(config: &Config) -> Result<Report> {
    let key = config.secret("the signing key", &config.bootstrap.signing_key)?;
    let public = SshSigner::from_openssh(&key, None).map(|s| s.public_key())?;
    debug_assert!(!key.expose_secret().is_empty());
    let mut anchors: Vec<Anchor> = Vec::new();
    for repo in &config.repositories {
        let dir = crate::app::mirror_dir(config, &repo.name);
        for (commit, text) in crate::git::audit_trailers(&dir, &public)? {
            let short: String = commit.chars().take(10).collect();
            anchors.extend(Anchor::parse(&format!("commit {short} in {}", repo.name), &text));
        }
    }
    let check =
        |head: &str, signature: &str| verify(NAMESPACE_CHECKPOINT, head.as_bytes(), signature, &[&public]).map(|_| ());
    verify_file(&crate::app::journal_path(config), check, anchors).await
}

/// The report, for people.
pub fn words(report: &Report) -> String {
    let mut out = format!(
        "events: {}, changes: {}, anchors outside the journal compared: {}.\n",
        report.events, report.changes, report.anchors
    );
    if report.findings.is_empty() {
        out.push_str("verified: the chain, the signed head and every landed commit agree.\n");
    }
    for f in &report.findings {
        out.push_str(&format!("event {}: {}\n", f.seq, f.what));
    }
    out
}
