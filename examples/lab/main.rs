//! The lab by hand: the real components on loopback (`tests/lab/`), a shop of a few applications, and Countersign in
//! front of them.
//!
//! `lab up` builds nothing: `tests/lab/build.sh FOLDER` does, and `just lab-up` does both.

#![allow(clippy::indexing_slicing, reason = "JSON values: what is not there reads as null")]

#[path = "../../tests/lab/mod.rs"]
mod lab;
mod scenes;
mod shop;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use countersign::cli::demo::agent::Agent;
use countersign_core::{Problem, Result};

use lab::Lab;

#[derive(Debug, Parser)]
struct Args {
    /// Folder of the lab.
    #[arg(long, default_value = "target/lab/run", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Starts everything, in the place of what ran there before, and opens the shop.
    Up {
        /// The components alone: no shop, no Countersign.
        #[arg(long)]
        bare: bool,
        /// Folder that `tests/lab/build.sh` filled.
        #[arg(long, default_value = "target/lab/cache", env = lab::CACHE_VARIABLE)]
        cache: PathBuf,
    },
    /// Ends everything. The folder with the logs stays.
    Down,
    /// Says what runs, and what memory it has.
    Status,
    /// Restarts one component, as after a crash.
    Restart {
        /// Component.
        component: String,
    },
    /// Calls a tool as the agent does, and prints the answer.
    Call {
        /// `operate`, `inspect`, `change`, …
        tool: String,
        /// Its arguments, as JSON.
        #[arg(default_value = "{}")]
        arguments: String,
    },
    /// What somebody's chat shows.
    Chat {
        /// Whose, by number at Telegram; Anna's otherwise.
        #[arg(default_value_t = countersign::sandbox::world::ANNA)]
        person: i64,
    },
    /// Presses a button.
    Press {
        /// What stands on it.
        button: String,
        /// Who presses, by number at Telegram; Anna otherwise.
        #[arg(default_value_t = countersign::sandbox::world::ANNA)]
        person: i64,
    },
    /// Logins and tokens at the forge.
    Accounts,
    /// Plays a scene and records what the API server shows. Without a name: the names.
    Record {
        /// Scene.
        scene: Option<String>,
        /// File; `SCENE.jsonl` otherwise.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// The Bot API, until it is killed; `up` starts it.
    #[command(hide = true)]
    Bot,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match done {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn attached(args: &Args) -> Result<Lab> {
    Lab::attach(&args.dir.join("lab.json"))
}

async fn run(args: Args) -> Result<()> {
    match &args.what {
        What::Up { cache, bare } => {
            let (lab, took) = Lab::start(&args.dir, cache).await?;
            for t in took {
                println!("{:<34} {:>6.1} s", t.name, t.time.as_secs_f64());
            }
            if *bare {
                println!("KUBECONFIG={}", lab.admin_kubeconfig().display());
                return Ok(());
            }
            let from = Instant::now();
            shop::open(&lab).await?;
            println!("{:<34} {:>6.1} s\n", "shop", from.elapsed().as_secs_f64());
            shop::tell(&lab).await?;
        }
        What::Down => attached(&args)?.down().await?,
        What::Status => status(&attached(&args)?),
        What::Restart { component } => {
            let took: Duration = attached(&args)?.restart(component).await?;
            println!("{component} serves again after {:.1} s", took.as_secs_f64());
        }
        What::Call { tool, arguments } => call(&attached(&args)?, tool, arguments).await?,
        What::Chat { person } => shop::chat(&attached(&args)?, *person).await?,
        What::Press { button, person } => shop::press(&attached(&args)?, *person, button).await?,
        What::Accounts => {
            for login in ["countersign-bot", "jon", "anna"] {
                println!("{login} {}", attached(&args)?.gitea().account(login).await?.token);
            }
        }
        What::Record { scene: None, .. } => scenes::names().iter().for_each(|n| println!("{n}")),
        What::Record { scene: Some(scene), out } => {
            let out = out.clone().unwrap_or_else(|| format!("{scene}.jsonl").into());
            scenes::record(&attached(&args)?, scene, &out).await?;
        }
        What::Bot => shop::bot(&attached(&args)?).await?,
    }
    Ok(())
}

async fn call(lab: &Lab, tool: &str, arguments: &str) -> Result<()> {
    let arguments = serde_json::from_str(arguments).map_err(|e| {
        Problem::new("lab.arguments", format!("The arguments are no JSON: {e}."), "Quote them for the shell.")
    })?;
    let mut agent = Agent::connect(&shop::url(lab), &shop::token(lab)?).await?;
    println!("{:#}", agent.call(tool, arguments).await?);
    Ok(())
}

fn status(lab: &Lab) {
    let all = lab.status();
    for s in &all {
        let state = s.pid.map_or_else(|| "not running".to_owned(), |p| format!("process {p}"));
        println!("{:<34} {state:<16} {:>6} MiB  {}", s.name, s.rss_kib / 1024, s.log.display());
    }
    let sum: u64 = all.iter().map(|s| s.rss_kib).sum();
    println!("{} of {} run, {} MiB resident", all.iter().filter(|s| s.running).count(), all.len(), sum / 1024);
}
