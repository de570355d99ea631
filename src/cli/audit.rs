//! `audit verify`: offline, against the journal, its signed head, the landed commits and what they hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use countersign_core::Result;
use countersign_core::model::short_name;

use crate::config::Config;
use crate::git::{Landed, LandedIn, SshSigner};
use crate::journal::{Anchor, Finding, Landing, Report, verify_file};

/// `audit` commands.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verify the chain, the signed head, every change's history, the trailers of landed commits, and that these hold
    /// what was sealed, as far as the mirrors have them.
    Verify {
        /// Fail also where a landed commit could not be looked at.
        #[arg(long)]
        strict: bool,
    },
    /// Accept the journal as it is and sign its head anew: after a change of the signing key, or where you know
    /// why journal and head differ. Verify first; the daemon must not be running.
    Reseal,
}

/// Runs an `audit` command.
pub async fn run(config: &Path, args: Audit) -> Result<ExitCode> {
    let config = Config::load(config)?;
    let strict = match args {
        Audit::Verify { strict } => strict,
        Audit::Reseal => {
            let head = crate::app::reseal(&config).await?;
            println!("sealed at event {} ({}).", head.seq, head.hash);
            return Ok(ExitCode::SUCCESS);
        }
    };
    let report = verify_config(&config).await?;
    print!("{}", words(&report));
    let good = report.findings.is_empty() && (report.not_seen.is_empty() || !strict);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
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
            anchors.extend(Anchor::parse(&format!("commit {} in {}", short(&commit), repo.name), &text));
        }
    }
    let check = crate::app::seal(&signer).check;
    let path = crate::app::journal_path(config);
    let mut report = verify_file(&path, |head, signature| check(head, signature), anchors).await?;
    compare(config, &mut report);
    Ok(report)
}

/// Compares what landed with what was sealed, in the mirrors as they are.
fn compare(config: &Config, report: &mut Report) {
    let mut mirrors: BTreeMap<&str, Option<LandedIn>> = BTreeMap::new();
    for l in &report.landings {
        let looked = match config.repositories.iter().find(|r| r.name == l.repository) {
            None => Landed::NotSeen("The configuration has no such Repository.".to_owned()),
            Some(r) => {
                let open = || LandedIn::open(&crate::app::mirror_dir(config, &r.name));
                mirrors.entry(&r.name).or_insert_with(open).as_mut().map_or_else(
                    || Landed::NotSeen("There is no mirror of it.".to_owned()),
                    |mirror| mirror.look(&l.git_ref, &l.commit, &l.files),
                )
            }
        };
        let what = |rest: String| Finding { seq: l.seq, what: format!("{}{rest}", place(l)) };
        match looked {
            Landed::AsSealed => report.as_sealed += 1,
            Landed::NotSeen(why) => report.not_seen.push(what(format!(". {why}"))),
            Landed::Otherwise(files) => report.findings.extend(
                files
                    .iter()
                    .map(|d| what(format!(": {} is {}, and {} was sealed", d.path.escape_debug(), d.found, d.sealed))),
            ),
        }
    }
}

fn place(l: &Landing) -> String {
    let (commit, repository) = (short(&l.commit), l.repository.escape_debug());
    format!("{} ({}) landed as commit {commit} in {repository}", short_name(&l.change), l.change)
}

fn short(commit: &str) -> String {
    commit.chars().take(10).filter(|c| c.is_ascii_alphanumeric()).collect()
}

/// The report, for people. The last sentence claims what was looked at, and no more.
pub fn words(report: &Report) -> String {
    let mut out = format!(
        "events: {}, changes: {}, anchors outside the journal compared: {}.\nlanded commits: {}, not looked at: {}.\n",
        report.events,
        report.changes,
        report.anchors,
        report.landings.len(),
        report.not_seen.len(),
    );
    for f in &report.not_seen {
        let _ = writeln!(out, "not looked at: event {}: {}", f.seq, f.what);
    }
    for f in &report.findings {
        let _ = writeln!(out, "event {}: {}", f.seq, f.what);
    }
    if report.findings.is_empty() {
        let head = if report.head { ", the signed head" } else { "" };
        let _ = write!(
            out,
            "verified: the chain of {} events{head}, signature and trailers of {} by our key, and the content of {}.",
            report.events,
            counted(report.anchors.saturating_sub(usize::from(report.head)), "commit"),
            counted(report.as_sealed, "landed commit"),
        );
        out.push_str(match report.not_seen.len() {
            0 => "\n",
            _ => " Not verified: what was not looked at.\n",
        });
    }
    out
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
