//! The lab by hand: the real components on loopback (`tests/lab/`), a shop of a few applications, and Countersign in
//! front of them.
//!
//! `lab up` builds nothing: `tests/lab/build.sh FOLDER` does, and `just lab-up` does both.

#[path = "../../tests/lab/mod.rs"]
mod lab;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use countersign_core::Result;

use lab::Lab;

#[derive(Debug, Parser)]
struct Args {
    /// Folder of the lab.
    #[arg(long, default_value = "target/lab/lab", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Starts everything, in the place of what ran there before.
    Up {
        /// Folder that `tests/lab/build.sh` filled.
        #[arg(long, default_value = "target/lab/cache", env = lab::CACHE_VARIABLE)]
        cache: PathBuf,
    },
    /// Ends everything. The folder with the logs stays.
    Down,
    /// Says what runs, and since when it is slow.
    Status,
    /// Restarts one component, as after a crash.
    Restart {
        /// Component.
        component: String,
    },
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
        What::Up { cache } => {
            let (lab, took) = Lab::start(&args.dir, cache).await?;
            for t in took {
                println!("{:<34} {:>6.1} s", t.name, t.time.as_secs_f64());
            }
            println!("KUBECONFIG={}", lab.admin_kubeconfig().display());
        }
        What::Down => attached(&args)?.down().await?,
        What::Status => status(&attached(&args)?),
        What::Restart { component } => {
            let took: Duration = attached(&args)?.restart(component).await?;
            println!("{component} serves again after {:.1} s", took.as_secs_f64());
        }
    }
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
