//! `policy explain CHANGE|CALL`.

use std::path::Path;

use countersign_core::model::{Body, Edit, Event, Operation, Principal, ResourceRef, short_name};
use countersign_core::policy::{Facts, Target, call, explain as words, level_word};
use countersign_core::{Problem, Result};
use serde_json::{Map, Value};

use crate::clock::{Clock, rfc3339};
use crate::config::Config;
use crate::journal::read_events;

/// What to explain.
#[derive(Debug, clap::Args)]
pub struct What {
    /// A change (`cs-7F3K`, or its whole id), or a call as JSON: the keys of a policy test's `given`, or those of
    /// the tool `operate`.
    what: Option<String>,
    /// Operation (`set_image`).
    #[arg(long)]
    operation: Option<String>,
    /// Target: cluster/namespace/Kind/name.
    #[arg(long)]
    target: Option<String>,
    /// Agent.
    #[arg(long)]
    agent: Option<String>,
    /// Repository.
    #[arg(long)]
    repository: Option<String>,
    /// Labels of the object, `key=value`.
    #[arg(long = "label")]
    labels: Vec<String>,
    /// Risk: low, medium, high, critical.
    #[arg(long, default_value = "medium")]
    risk: String,
}

pub(super) async fn explain(config: &Path, what: What) -> Result<String> {
    let c = Config::load(config)?;
    match what.what.as_deref().map(str::trim) {
        Some(json) if json.starts_with('{') => of_call(&c, json, &what),
        Some(change) => of_change(&c, change).await,
        None => {
            let facts = of_flags(&c, &what)?;
            Ok(words(&c.policies, &c.people, &facts))
        }
    }
}

/// A change of the journal: what was decided, and what the files of now say about the same facts.
async fn of_change(c: &Config, name: &str) -> Result<String> {
    let events = read_events(&crate::app::journal_path(c)).await?;
    let is_it = |e: &&Event| {
        e.change.is_some_and(|id| id.to_string() == name || short_name(&id) == name)
            && matches!(e.body, Body::Proposed { .. })
    };
    let Some(Event { body: Body::Proposed { proposal, decided, .. }, at, .. }) = events.iter().rev().find(is_it) else {
        return Err(Problem::new(
            "change.unknown",
            format!("The journal has no change {}.", countersign_core::message::escape_name(name)),
            "Name one of `countersign pending` or of the story, or write a call as JSON.",
        )
        .never());
    };
    let then = format!(
        "Decided {}: {} by {} (policy {}).\n",
        rfc3339(*at),
        level_word(decided.level),
        decided.rules.join(", "),
        decided.policy_version.get(..12).unwrap_or(&decided.policy_version)
    );
    let Ok(facts) = serde_json::from_value::<Facts>(proposal.facts.clone()) else {
        return Ok(format!(
            "{then}An older version wrote it, without what it was decided on: the rest is not known.\n"
        ));
    };
    let same = c.policies.version() == decided.policy_version;
    let files = if same { "The same files on the same facts:" } else { "The files of now on the same facts:" };
    Ok(format!("{then}{files}\n{}", words(&c.policies, &c.people, &facts)))
}

fn bad_call(why: impl std::fmt::Display) -> Problem {
    Problem::new(
        "policy.call",
        format!("This is no call: {why}."),
        "Write the keys of `given` (docs/policy.md) or those of the tool operate.",
    )
}

fn of_call(c: &Config, json: &str, what: &What) -> Result<String> {
    let mut value: Value = serde_json::from_str(json).map_err(bad_call)?;
    let facts = match value.get_mut("edits").map(Value::take) {
        None => call(&c.policies, value)?,
        Some(edits) => {
            let edits: Vec<Edit> = serde_json::from_value(edits).map_err(bad_call)?;
            of_edits(c, &edits, what)?
        }
    };
    Ok(words(&c.policies, &c.people, &facts))
}

/// A call of `operate`, as far as it can be known without the cluster: labels and the values before are not.
fn of_edits(c: &Config, edits: &[Edit], what: &What) -> Result<Facts> {
    let Some(first) = edits.first() else { return Err(bad_call("it has no edits")) };
    let mut facts = base(c, &first.target()?, what)?;
    facts.targets = edits
        .iter()
        .map(|e| {
            let (op, target) = (e.operation()?, e.target()?);
            let mut given = Map::new();
            given.insert("operation".into(), op.name().into());
            given.insert("after".into(), asked(&op).into());
            let one = call(&c.policies, Value::Object(given))?.targets.into_iter().next().unwrap_or_default();
            let labels = Some(labels(what)?);
            Ok(Target {
                namespace: target.namespace,
                kind: target.kind,
                labels_before: labels.clone(),
                labels_after: labels,
                ..one
            })
        })
        .collect::<Result<_>>()?;
    facts.objects = u32::try_from(facts.targets.len()).unwrap_or(u32::MAX);
    Ok(facts)
}

/// Values that the call itself names.
fn asked(op: &Operation) -> Map<String, Value> {
    let mut out = Map::new();
    match op {
        Operation::Scale(s) => drop(out.insert("replicas".into(), s.replicas.into())),
        Operation::SetImage(s) => {
            out.insert("container".into(), s.container.clone().into());
            out.insert("image".into(), s.image.clone().into());
        }
        Operation::SetField(s) => {
            out.insert("pointer".into(), s.pointer.clone().into());
            out.extend(s.value.clone().map(|v| ("value".to_owned(), v)));
        }
        _ => {}
    }
    out
}

fn of_flags(c: &Config, what: &What) -> Result<Facts> {
    let need = |v: &Option<String>, name: &str| {
        v.clone().ok_or_else(|| {
            Problem::new(
                "policy.call",
                format!("Nothing says what to explain: --{name} is missing."),
                "Name a change, write a call as JSON, or give --operation, --target, --agent and --repository.",
            )
        })
    };
    let operation = need(&what.operation, "operation")?;
    let target: ResourceRef = need(&what.target, "target")?.parse()?;
    need(&what.agent, "agent")?;
    need(&what.repository, "repository")?;
    let mut facts = base(c, &target, what)?;
    facts.targets = vec![Target {
        operation,
        namespace: target.namespace,
        kind: target.kind,
        labels_before: Some(labels(what)?),
        labels_after: None,
        values: None,
    }];
    Ok(facts)
}

fn labels(what: &What) -> Result<std::collections::BTreeMap<String, String>> {
    what.labels
        .iter()
        .map(|l| {
            l.split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .ok_or_else(|| Problem::new("input.label", format!("\"{l}\" is no label."), "Write key=value."))
        })
        .collect()
}

/// Everything but the objects, from the configuration.
fn base(c: &Config, target: &ResourceRef, what: &What) -> Result<Facts> {
    let agent = what.agent.clone().unwrap_or_else(|| c.agents.first().map(|a| a.name.clone()).unwrap_or_default());
    let principal = c.principal(&agent).unwrap_or(Principal { agent, sponsor: String::new() });
    let repository =
        what.repository.clone().unwrap_or_else(|| c.repositories.first().map(|r| r.name.clone()).unwrap_or_default());
    let risk = serde_json::from_value(Value::String(what.risk.clone())).map_err(|_| {
        Problem::new("input.risk", format!("\"{}\" is no risk.", what.risk), "Use low, medium, high or critical.")
    })?;
    // Nothing was counted by any quota.
    let counts = call(&c.policies, Value::Object(Map::new()))?.counts;
    Ok(Facts {
        targets: Vec::new(),
        cluster_labels: c
            .clusters
            .iter()
            .find(|n| n.name == target.cluster)
            .map(|n| n.spec.labels.clone())
            .unwrap_or_default(),
        cluster: target.cluster.clone(),
        repository_labels: c
            .repositories
            .iter()
            .find(|n| n.name == repository)
            .map(|n| n.spec.labels.clone())
            .unwrap_or_default(),
        repository,
        agent: principal.agent,
        sponsor: principal.sponsor,
        risk,
        files: 1,
        lines: 2,
        objects: 1,
        privileged: None,
        now: Clock::real().now_ms(),
        counts,
    })
}
