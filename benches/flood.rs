//! One hostile agent proposes as fast as it can: what do people see of it, and what does another agent feel?

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use countersign::cli::demo::agent::Agent;
use countersign::sandbox::world::{ANNA, CLUSTER, MAX, World, WorldOptions, deployment};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::Size;
use crate::report::{Goal, Line, Report, Unit, median, ms};
use crate::tools::Served;

/// Connections of the hostile agent.
const CONNECTIONS: usize = 16;
/// Objects that it proposes changes of, more than may wait for people at a time.
const TARGETS: usize = 8;
/// Cards of one agent that may wait for a person.
const CARDS: usize = 3;
/// Between two questions of the other agent: below its own limit of ten a second.
const PAUSE: Duration = Duration::from_millis(150);
/// Token of the other agent.
const TOKEN: &str = "the-other-agents-token-0123456789";

/// What became of the hostile agent's calls.
#[derive(Default)]
struct Tally {
    sent: AtomicUsize,
    /// Turned away before anything was looked at.
    turned_away: AtomicUsize,
}

/// The group's lines.
pub async fn measure(program: &Path, size: Size, report: &mut Report) -> Result<()> {
    let (proposals, time) = if size.quick { (500, Duration::from_secs(3)) } else { (10_000, Duration::from_secs(60)) };
    report.note(&format!("flood: {proposals} proposals of one agent in {} s", time.as_secs()));
    let world = World::start(options()).await?;
    second_agent(&world)?;
    let daemon = Served::start(program, &world.config)?;
    let mut other = Agent::connect(&daemon.url, TOKEN).await?;
    ask(&mut other, Duration::from_secs(2)).await?;
    let before = ask(&mut other, time / 2).await?;

    // Connected beforehand, at a pace that is let in: the flood itself would keep the rest of it out.
    let mut hostile = Vec::new();
    for _ in 0..CONNECTIONS {
        hostile.push(daemon.agent(&world).await?);
        tokio::time::sleep(2 * PAUSE).await;
    }
    let tally = Arc::new(Tally::default());
    let mut flood = tokio::task::JoinSet::new();
    for (n, agent) in hostile.into_iter().enumerate() {
        flood.spawn(propose(agent, Arc::clone(&tally), n, proposals, time));
    }
    let during = ask(&mut other, time).await?;
    while flood.join_next().await.is_some() {}
    let after = ask(&mut other, time / 2).await?;

    let sent = tally.sent.load(Ordering::Relaxed);
    ensure!(sent >= proposals, "only {sent} of {proposals} proposals were sent");
    for person in [ANNA, MAX] {
        let seen = world.bot.chat(person).len();
        ensure!((1..=CARDS).contains(&seen), "{seen} cards reached a person");
    }
    let turned_away = tally.turned_away.load(Ordering::Relaxed);
    report.note(&format!(
        "flood: {sent} sent, {turned_away} turned away at the door, at most {CARDS} cards for each person"
    ));
    let calm: Vec<f64> = before.iter().chain(&after).copied().collect();
    for (name, of) in [("median", median as fn(&[f64]) -> f64), ("99th percentile", last_percent)] {
        report.line(Line {
            name: format!("another agent's inspect during a flood of {proposals} proposals, {name}"),
            unit: Unit::Ms,
            ours: of(&during),
            other: Ok(("the same without the flood".to_owned(), of(&calm))),
            goal: Goal::AtMost(of(&calm) * 1.1),
        });
    }
    Ok(())
}

fn options() -> WorldOptions {
    let files = (0..TARGETS).map(|n| {
        let name = format!("extra-{n}");
        (format!("apps/checkout/{name}.yaml"), deployment(&name, "reg.example/extra:1.0.0", 1))
    });
    // The product's own limits: worlds of tests have none.
    WorldOptions { files: files.collect(), approvals: "{}".into(), ..WorldOptions::default() }
}

fn second_agent(world: &World) -> Result<()> {
    let hash = countersign_core::model::hex(&Sha256::digest(TOKEN.as_bytes()));
    let agent = json!({"apiVersion": "countersign.dev/v1", "kind": "Agent", "metadata": {"name": "quiet-bot"},
        "spec": {"sponsor": "jon", "token_sha256": hash}});
    std::fs::write(world.dir.join("resources/quiet.yaml"), agent.to_string())?;
    Ok(())
}

/// Asks one question after the other for so long; milliseconds of each.
async fn ask(agent: &mut Agent, time: Duration) -> Result<Vec<f64>> {
    let target = json!({"target": format!("{CLUSTER}/shop/Deployment/payments")});
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let answer = agent.call("inspect", target.clone()).await?;
        took.push(ms(began.elapsed()));
        ensure!(answer.get("owner").is_some(), "not an answer: {answer}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(took)
}

/// Proposes at the pace of the whole flood, each time something new.
async fn propose(mut agent: Agent, tally: Arc<Tally>, n: usize, proposals: usize, time: Duration) {
    let began = tokio::time::Instant::now();
    loop {
        let i = tally.sent.fetch_add(1, Ordering::Relaxed);
        if i >= proposals {
            return;
        }
        tokio::time::sleep_until(began + time.mul_f64(i as f64 / proposals as f64)).await;
        let target = format!("{CLUSTER}/shop/Deployment/extra-{}", i % TARGETS);
        let image = format!("reg.example/extra:2.{n}.{i}");
        let edit = json!({"target": target, "set_image": {"container": "app", "image": image}});
        if agent.call("operate", json!({"edits": [edit], "reason": "now"})).await.is_err() {
            tally.turned_away.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn last_percent(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
