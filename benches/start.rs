//! Start of a stdio client with the daemon up, and the memory of an idle daemon.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use countersign::sandbox::world::{World, WorldOptions};
use serde_json::{Value, json};

use crate::Size;
use crate::report::{Goal, Line, Report, Unit, median, ms};
use crate::tools::{Served, has, rss_of};

/// Runs that are thrown away.
const WARM_UP: usize = 3;

/// The group's lines.
pub async fn measure(program: &Path, size: Size, report: &mut Report) -> Result<()> {
    report.note("start: the shop's world with its daemon");
    let world = World::start(WorldOptions::default()).await?;
    let daemon = Served::start(program, &world.config)?;
    // One call, so that it has read what it needs, then rest.
    let target = json!({"target": format!("{}/shop/Deployment/checkout", countersign::sandbox::world::CLUSTER)});
    daemon.agent(&world).await?.call("inspect", target).await?;
    tokio::time::sleep(Duration::from_secs(if size.quick { 2 } else { 10 })).await;
    let kubectl = has("kubectl");
    let other = if kubectl { watching_kubectl(&world, size).await } else { Err("kubectl not found".to_owned()) };
    report.line(Line {
        name: "idle daemon, memory".into(),
        unit: Unit::MiB,
        ours: daemon.rss()?,
        other,
        goal: Goal::AtMost(25.0),
    });

    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for i in 0..size.many + WARM_UP {
        let took = initialize(program, &world.config)?;
        let other = kubectl.then(client_version).transpose()?;
        if i >= WARM_UP {
            ours.push(took);
            others.extend(other);
        }
    }
    let other = if others.is_empty() {
        Err("kubectl not found".to_owned())
    } else {
        Ok(("`kubectl version --client`".to_owned(), median(&others)))
    };
    report.line(Line {
        name: "start to `initialize` answered".into(),
        unit: Unit::Ms,
        ours: median(&ours),
        other,
        goal: Goal::AtMost(20.0),
    });
    Ok(())
}

/// From the start of `countersign serve` to the answer on its standard output.
fn initialize(program: &Path, config: &Path) -> Result<f64> {
    let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}});
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(["serve", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    let mut output = BufReader::new(child.stdout.take().context("no standard output")?);
    writeln!(input, "{ask}")?;
    let mut line = String::new();
    output.read_line(&mut line)?;
    let took = ms(started.elapsed());
    drop(input);
    child.wait()?;
    let answer: Value = serde_json::from_str(&line)?;
    ensure!(answer.pointer("/result/serverInfo/name").is_some(), "not an answer to initialize: {line}");
    Ok(took)
}

fn client_version() -> Result<f64> {
    let started = Instant::now();
    let done = Command::new("kubectl")
        .args(["version", "--client=true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(done.success(), "kubectl version failed");
    Ok(ms(started.elapsed()))
}

/// Memory of a kubectl that watches one kind, where the daemon watches six.
async fn watching_kubectl(world: &World, size: Size) -> Result<(String, f64), String> {
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(world.dir.join("kubeconfig.yaml"))
        .args(["get", "deployments", "-A", "--watch"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    tokio::time::sleep(Duration::from_secs(if size.quick { 1 } else { 5 })).await;
    let rss = rss_of(child.id());
    let _ = child.kill();
    let _ = child.wait();
    Ok(("`kubectl get --watch` of one kind".to_owned(), rss.map_err(|e| e.to_string())?))
}
