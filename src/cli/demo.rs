//! `demo`: the whole story on a sandbox, with real Git repositories and the real protocols: a broken
//! deployment, an agent's call over MCP, the card, your yes, the commit, the pull request, sync,
//! health, the audit.

pub mod agent;

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use crate::app::Daemon;
use crate::clock::Clock;
use crate::config::Config;
use crate::sandbox::bot::Press;
use crate::sandbox::forge::PullState;
use crate::sandbox::world::{ANNA, CLUSTER, World, WorldOptions, policy};
use agent::Agent;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Press Approve by itself (for scripts); exits at the end.
    #[arg(long)]
    yes: bool,
    /// Keep the world's files in this folder.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// End after the story instead of staying up.
    #[arg(long)]
    once: bool,
}

struct Teller {
    colour: bool,
    started: std::time::Instant,
}

impl Teller {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn say(&self, who: &str, what: &str) {
        let at = format!("{:5.1}s", self.started.elapsed().as_secs_f32());
        let mut lines = what.lines();
        println!(
            "{} {} {}",
            self.paint("2", &at),
            self.paint("1", &format!("{who:<12}")),
            lines.next().unwrap_or_default()
        );
        for l in lines {
            println!("{:>20}{l}", "");
        }
        let _ = std::io::stdout().flush();
    }

    fn diff(&self, text: &str) {
        for l in text.lines() {
            let code = match l.chars().next() {
                Some('+') => "32",
                Some('-') => "31",
                Some('@') => "36",
                _ => "2",
            };
            println!("{:>20}{}", "", self.paint(code, l));
        }
    }
}

fn off(what: impl Into<String>) -> Problem {
    Problem::new("demo.failed", what, "Run it again with COUNTERSIGN_LOG=info; report it if it stays.")
}

fn text<'v>(v: &'v Value, key: &str) -> &'v str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Runs the demo.
pub async fn run(args: Demo) -> Result<ExitCode> {
    super::log_to_stderr("error");
    let t = Teller { colour: std::io::stdout().is_terminal(), started: std::time::Instant::now() };
    t.say("demo", "starting a cluster, Argo CD and Flux, a Git server, a forge and a chat on loopback …");
    let world = World::start(WorldOptions {
        dir: args.keep.clone(),
        speed: 3.0,
        policy: policy("prompted", "merge_after_approval", 1),
        times: [120, 3, 5, 120, 1],
        ..WorldOptions::default()
    })
    .await?;
    let daemon = Daemon::start(
        Config::load(&world.config)?,
        Some(world.config.clone()),
        Some("127.0.0.1:0".into()),
        Clock::real(),
    )
    .await?;
    let Some(addr) = daemon.http_addr() else { return Err(off("the daemon does not listen")) };
    let url = format!("http://{addr}/mcp");
    t.say("countersign", &format!("is up: MCP at {url}"));
    let outcome = story(&t, &world, &url, args.yes).await;
    if let Err(problem) = outcome {
        daemon.stop().await;
        return Err(problem);
    }
    let report = super::audit::verify_config(&Config::load(&world.config)?).await?;
    t.say("audit verify", super::audit::words(&report).trim_end());
    if !report.findings.is_empty() {
        return Err(off("the journal does not verify"));
    }
    if !args.yes && !args.once {
        stay(&t, &world, &url).await;
    }
    daemon.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn story(t: &Teller, world: &World, url: &str, yes: bool) -> Result<()> {
    let target = format!("{CLUSTER}/shop/Deployment/checkout");
    let mut agent = Agent::connect(url, &world.keys.agent_token).await?;
    wait_broken(world).await;
    let seen = agent.call("inspect", json!({"target": target})).await?;
    t.say("agent", &format!("inspect {target}"));
    t.say("countersign", text(&seen, "summary"));
    for hop in seen.get("via").and_then(Value::as_array).into_iter().flatten() {
        t.say("", &format!("{} -> {}   [{}]", text(hop, "from"), text(hop, "to"), text(hop, "evidence")));
    }
    let edit = json!({"target": target, "set_image": {"container": "app", "image": "reg.example/checkout:1.9.1"}});
    t.say("agent", "operate: set_image app reg.example/checkout:1.9.1, because \"1.9.2 exits with code 1; 1.9.1 was the last healthy one\"");
    let asked = agent
        .call("operate", json!({"edits": [edit], "reason": "1.9.2 exits with code 1; 1.9.1 was the last healthy one"}))
        .await?;
    if text(&asked, "outcome") != "waiting" {
        return Err(off(format!("operate answered {asked}")));
    }
    t.say("countersign", text(&asked, "summary"));
    t.diff(text(&asked, "diff"));
    t.say("", &format!("waits for {}", text(&asked, "waits_for")));
    let card = world
        .bot
        .wait_for(ANNA, Duration::from_secs(10), |m| m.button("Approve").is_some())
        .await
        .ok_or_else(|| off("no card reached Anna's chat"))?;
    t.say("Telegram", "Anna's phone shows:");
    for l in card.text.lines() {
        println!("{:>20}{} {l}", "", t.paint("34", "│"));
    }
    let labels: Vec<String> = card.buttons.iter().flatten().map(|b| format!("[{}]", b.text)).collect();
    println!("{:>20}{} {}", "", t.paint("34", "│"), labels.join(" "));
    if !yes && !ask("You are Anna. Approve? [y/N] ")? {
        let _ = world.bot.press(&Press::button(ANNA, "Reject…"));
        t.say("Anna", "presses Reject. Nothing is written. Run it again to see the other ending.");
        return Err(off("rejected, as you wished"));
    }
    world.bot.approve(ANNA, Some(card.message_id)).await.map_err(off)?;
    t.say("Anna", "presses Approve, and the number that stands on the card");
    follow(t, &mut agent, text(&asked, "change")).await?;
    let image = world.live_image("checkout").unwrap_or_default();
    t.say("cluster", &format!("deployment shop/checkout runs {image}"));
    show_commit(t, world);
    Ok(())
}

/// Until the broken image shows in the pods, so that the story begins where it should.
async fn wait_broken(world: &World) {
    for _ in 0..60 {
        if world.cluster.store().everything().iter().any(|(_, o)| o.to_string().contains("CrashLoopBackOff")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tells each line of the change's story as it happens, until it ends.
async fn follow(t: &Teller, agent: &mut Agent, change: &str) -> Result<()> {
    let mut told = 0;
    loop {
        let now = agent.call("change", json!({"change": change, "wait_s": 1})).await?;
        let story: Vec<Value> = now.get("story").and_then(Value::as_array).cloned().unwrap_or_default();
        for line in story.iter().skip(told) {
            t.say("countersign", text(line, "what"));
        }
        told = told.max(story.len());
        match text(&now, "outcome") {
            "waiting" => {}
            "healthy" => {
                t.say("countersign", text(&now, "summary"));
                return Ok(());
            }
            _ => return Err(off(format!("the change ended otherwise: {}", text(&now, "summary")))),
        }
    }
}

fn show_commit(t: &Teller, world: &World) {
    let history = world.git.repos().history(crate::sandbox::world::REPO, "main").unwrap_or_default();
    if let Some(ours) = history.iter().find(|c| c.message.contains("Countersign-Change")) {
        t.say("Git", &format!("commit {}", ours.id.get(..12).unwrap_or(&ours.id)));
        for l in ours.message.lines() {
            println!("{:>20}{}", "", t.paint("2", l));
        }
    }
    for p in world.forge.pulls(crate::sandbox::world::REPO) {
        let state = match (&p.merged, p.state) {
            (Some(_), _) => "merged",
            (None, PullState::Open) => "open",
            (None, PullState::Closed) => "closed",
        };
        t.say("forge", &format!("pull request #{}: {} ({state})", p.number, p.title));
    }
}

fn ask(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(off("nobody can be asked: this is no terminal; give --yes"));
    }
    print!("\n{question}");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| off(e.to_string()))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Stays up, so that one's own MCP client can be used.
async fn stay(t: &Teller, world: &World, url: &str) {
    t.say("demo", "stays up. Connect your own MCP client:");
    println!("  HTTP   {url}   with the bearer token in {}", world.dir.join("keys/agent-token").display());
    let press = json!({"chat_id": ANNA});
    println!(
        "  chat   {}/sandbox/chats/{ANNA} is what Anna sees; she says yes by POST {}/sandbox/approve {press}",
        world.bot.control_url(),
        world.bot.control_url()
    );
    println!("  kubectl --kubeconfig {} get deployments -A", world.dir.join("kubeconfig.yaml").display());
    println!("  countersign --config {} pending", world.config.display());
    println!(
        "  countersign --config {} approve CHANGE --key {}",
        world.config.display(),
        world.keys.anna_key.display()
    );
    println!("Ctrl-C ends it.");
    super::until_signal().await;
}
