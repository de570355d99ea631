//! `audit verify`: offline, against the journal, its signed head and the landed commits.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use countersign_core::Result;

use crate::config::Config;
use crate::git::SshSigner;
use crate::journal::{Anchor, Report, verify_file};

/// `audit` commands.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verify the chain, the signed head, every change's history, and the trailers of landed commits.
    Verify,
    /// Accept the journal as it is and sign its head anew: after a change of the signing key, or where you know
    /// why journal and head differ. Verify first; the daemon must not be running.
    Reseal,
}

/// Runs an `audit` command.
pub async fn run(config: &Path, args: Audit) -> Result<ExitCode> {
    if let Audit::Reseal = args {
        let head = crate::app::reseal(&Config::load(config)?).await?;
        println!("sealed at event {} ({}).", head.seq, head.hash);
        return Ok(ExitCode::SUCCESS);
    }
    let report = verify_config(&Config::load(config)?).await?;
    print!("{}", words(&report));
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Verifies the journal of a configuration; reads mirrors and files only.
pub async fn verify_config(config: &Config) -> Result<Report> {
    let key = config.secret("the signing key", &config.bootstrap.signing_key)?;
    let signer = SshSigner::from_openssh(&key, None)?;
    let public = signer.public_key();
    let mut anchors: Vec<Anchor> = Vec::new();
    for repo in &config.repositories {
        let dir = crate::app::mirror_dir(config, &repo.name);
        for (commit, text) in crate::git::audit_trailers(&dir, &public)? {
            let short: String = commit.chars().take(10).collect();
            anchors.extend(Anchor::parse(&format!("commit {short} in {}", repo.name), &text));
        }
    }
    let check = crate::app::seal(&signer).check;
    verify_file(&crate::app::journal_path(config), |head, signature| check(head, signature), anchors).await
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
