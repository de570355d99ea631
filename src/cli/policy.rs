//! `policy check` and `policy explain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use countersign_core::model::{Level, Principal};
use countersign_core::policy::{Facts, Known, PolicySet, Severity, Target, check, check_names, explain, run_tests};
use countersign_core::{Problem, Result};

use crate::config::{Config, read_policies};

/// `policy` commands.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check the policy files and run the tests in them; lists everything that can reach standard.
    Check {
        /// Folder of policy files instead of the configuration's.
        dir: Option<PathBuf>,
    },
    /// Which rules match a call, and what would be needed.
    Explain(Call),
}

/// A call to explain.
#[derive(Debug, clap::Args)]
pub struct Call {
    /// Operation (`set_image`).
    #[arg(long)]
    operation: String,
    /// Target: cluster/namespace/Kind/name.
    #[arg(long)]
    target: String,
    /// Agent.
    #[arg(long)]
    agent: String,
    /// Repository.
    #[arg(long)]
    repository: String,
    /// Labels of the object, `key=value`.
    #[arg(long = "label")]
    labels: Vec<String>,
    /// Risk: low, medium, high, critical.
    #[arg(long, default_value = "medium")]
    risk: String,
}

/// Runs a `policy` command.
pub fn run(config: &Path, args: Policy) -> Result<ExitCode> {
    match args {
        Policy::Check { dir: Some(dir) } => report(&PolicySet::parse(&read_policies(&dir)?)?, None),
        Policy::Check { dir: None } => {
            let c = Config::load(config)?;
            report(&c.policies, Some(&c))
        }
        Policy::Explain(call) => {
            let c = Config::load(config)?;
            print!("{}", explain(&c.policies, &c.people, &facts(&c, &call)?));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints findings and tests; a mistake or a failed test is exit code 1.
fn report(set: &PolicySet, config: Option<&Config>) -> Result<ExitCode> {
    let mut bad = 0;
    let mut findings = Vec::new();
    if let Some(c) = config {
        findings.extend(check(set, &c.people));
        findings.extend(check_names(
            set,
            &Known {
                clusters: c.clusters.iter().map(|n| n.name.clone()).collect(),
                repositories: c.repositories.iter().map(|n| n.name.clone()).collect(),
                agents: c.agents.iter().map(|n| n.name.clone()).collect(),
            },
        ));
    }
    for f in &findings {
        bad += usize::from(f.severity == Severity::Error);
        println!("{:?} {} {} {}: {}", f.severity, f.code, f.file, f.rule, f.message);
    }
    let outcomes = run_tests(set);
    for t in &outcomes {
        bad += usize::from(!t.failures.is_empty());
        for f in &t.failures {
            println!("failed {} {}: {f}", t.file, t.name);
        }
    }
    println!("{} rules, {} tests, {bad} mistakes.", set.rules().len(), outcomes.len());
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn facts(c: &Config, call: &Call) -> Result<Facts> {
    let target: countersign_core::model::ResourceRef = call.target.parse()?;
    let principal = c.principal(&call.agent).unwrap_or(Principal { agent: call.agent.clone(), sponsor: String::new() });
    let labels = call
        .labels
        .iter()
        .map(|l| {
            l.split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .ok_or_else(|| Problem::new("input.label", format!("\"{l}\" is no label."), "Write key=value."))
        })
        .collect::<Result<_>>()?;
    let risk = serde_json::from_value(serde_json::Value::String(call.risk.clone())).map_err(|_| {
        Problem::new("input.risk", format!("\"{}\" is no risk.", call.risk), "Use low, medium, high or critical.")
    })?;
    debug_assert!(Level::Standard < Level::Deny);
    Ok(Facts {
        targets: vec![Target {
            operation: call.operation.clone(),
            namespace: target.namespace.clone(),
            kind: target.kind.clone(),
            labels_before: Some(labels),
            labels_after: None,
            values: None,
        }],
        cluster_labels: c
            .clusters
            .iter()
            .find(|n| n.name == target.cluster)
            .map(|n| n.spec.labels.clone())
            .unwrap_or_default(),
        cluster: target.cluster,
        repository_labels: c
            .repositories
            .iter()
            .find(|n| n.name == call.repository)
            .map(|n| n.spec.labels.clone())
            .unwrap_or_default(),
        repository: call.repository.clone(),
        agent: principal.agent,
        sponsor: principal.sponsor,
        risk,
        files: 1,
        lines: 2,
        objects: 1,
        privileged: None,
        now: 0,
        counts: Default::default(),
    })
}
