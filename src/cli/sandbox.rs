//! `sandbox`: the world alone.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use countersign_core::Result;

use crate::sandbox::world::{World, WorldOptions};

/// Arguments of `sandbox`.
#[derive(Debug, Args)]
pub struct Sandbox {
    /// Print one line of JSON with every address instead of words.
    #[arg(long)]
    json: bool,
    /// Keep everything in this folder, with the servers' logs.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Divides the engines' waits.
    #[arg(long, default_value_t = 4.0)]
    speed: f64,
    /// Policy file to start with.
    #[arg(long)]
    policy: Option<PathBuf>,
}

/// Starts the world and stays up until a signal.
pub async fn run(args: Sandbox) -> Result<ExitCode> {
    super::log_to_stderr("warn");
    let mut options =
        WorldOptions { logs: args.dir.is_some(), dir: args.dir, speed: args.speed, ..WorldOptions::default() };
    if let Some(file) = args.policy {
        options.policy = std::fs::read_to_string(&file).map_err(|e| {
            countersign_core::Problem::new(
                "config.unreadable",
                format!("{} cannot be read: {e}.", file.display()),
                "Name a policy file.",
            )
        })?;
    }
    let world = World::start(options).await?;
    if args.json {
        println!("{}", world.describe());
    } else {
        println!("{}", serde_json::to_string_pretty(&world.describe()).unwrap_or_default());
        println!(
            "\nThe sandbox is up. In another terminal:\n  countersign serve --http 127.0.0.1:8080 --config {}",
            world.config.display()
        );
    }
    super::until_signal().await;
    Ok(ExitCode::SUCCESS)
}
