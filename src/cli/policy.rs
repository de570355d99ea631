//! `policy check`, `policy test`, `policy explain`, `policy schema`, `policy replay`.

mod explain;
mod replay;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use countersign_core::policy::{Known, PolicySet, Severity, TestOutcome, check, check_names, run_tests, schema};
use countersign_core::{Problem, Result};

use crate::clock::Clock;
use crate::config::{Config, read_policies};

/// `policy` commands.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check the policy files and run the tests in them; lists everything that can reach standard.
    Check {
        /// Folder of policy files instead of the configuration's.
        dir: Option<PathBuf>,
    },
    /// Run the tests in policy files; each file (or folder) is one policy.
    Test {
        /// Files or folders; without any, the configuration's policy.
        files: Vec<PathBuf>,
    },
    /// Which rules match a change or a call, what was missing, and what would be needed.
    Explain(explain::What),
    /// Print the JSON schema of policy files, for editors.
    Schema,
    /// Decide the journal's past changes anew under other files, and show what would differ.
    Replay(replay::Args),
}

/// Runs a `policy` command.
pub async fn run(config: &Path, args: Policy) -> Result<ExitCode> {
    match args {
        Policy::Check { dir: Some(dir) } => Ok(report(&PolicySet::parse(&read_policies(&dir)?)?, None)),
        Policy::Check { dir: None } => {
            let c = Config::load(config)?;
            Ok(report(&c.policies, Some(&c)))
        }
        Policy::Test { files } if files.is_empty() => Ok(tested(&run_tests(&Config::load(config)?.policies))),
        Policy::Test { files } => {
            let mut outcomes = Vec::new();
            for file in files {
                outcomes.extend(run_tests(&PolicySet::parse(&read_policies(&file)?)?));
            }
            Ok(tested(&outcomes))
        }
        Policy::Explain(what) => {
            print!("{}", explain::explain(config, what).await?);
            Ok(ExitCode::SUCCESS)
        }
        Policy::Schema => {
            println!("{}", pretty(&schema())?);
            Ok(ExitCode::SUCCESS)
        }
        Policy::Replay(args) => {
            print!("{}", replay::run(config, args).await?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Indented JSON.
pub(super) fn pretty(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| {
        Problem::new("policy.output", format!("The result cannot be written: {e}."), "Report this as a bug.")
    })
}

/// Prints findings and tests; a mistake or a failed test is exit code 1.
fn report(set: &PolicySet, config: Option<&Config>) -> ExitCode {
    let people = config.map(|c| c.people.clone()).unwrap_or_else(|| countersign_core::policy::stand_ins(set));
    let mut findings = check(set, &people, Clock::real().now_ms());
    if let Some(c) = config {
        findings.extend(check_names(
            set,
            &Known {
                clusters: c.clusters.iter().map(|n| n.name.clone()).collect(),
                repositories: c.repositories.iter().map(|n| n.name.clone()).collect(),
                agents: c.agents.iter().map(|n| n.name.clone()).collect(),
            },
        ));
    }
    let mut bad = 0;
    for f in &findings {
        bad += usize::from(f.severity == Severity::Error);
        println!("{:?} {} {} {}: {}", f.severity, f.code, f.file, f.rule, f.message);
    }
    let outcomes = run_tests(set);
    bad += failed(&outcomes);
    println!("{} rules, {} tests, {bad} mistakes.", set.rules().len(), outcomes.len());
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Prints each failed test with what was decided and why; how many there are.
fn failed(outcomes: &[TestOutcome]) -> usize {
    let failed: Vec<&TestOutcome> = outcomes.iter().filter(|t| !t.failures.is_empty()).collect();
    for t in &failed {
        println!("failed {}: {}", t.file, t.name);
        t.failures.iter().for_each(|f| println!("  {f}"));
        t.why.iter().for_each(|w| println!("  - {w}"));
    }
    failed.len()
}

fn tested(outcomes: &[TestOutcome]) -> ExitCode {
    let bad = failed(outcomes);
    println!("{} tests, {bad} failed.", outcomes.len());
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
