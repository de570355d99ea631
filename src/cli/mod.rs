//! Command line.

mod audit;
mod connect;
pub mod demo;
pub mod doctor;
mod init;
mod pair;
mod people;
mod policy;
pub mod replay;
mod sandbox;
mod serve;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use countersign_core::{Problem, Result};

/// Lets AI agents change running systems only by way of Git, and only as far as people allow.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, global = true, env = "COUNTERSIGN_CONFIG", default_value = "countersign.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Speak MCP: over stdio (a thin bridge to the one daemon, started if absent), or over HTTP.
    Serve(serve::Serve),
    /// The whole story on a sandbox: a broken deployment, an agent's call, your yes, the commit, health.
    Demo(demo::Demo),
    /// Start the sandbox world alone and stay up.
    Sandbox(sandbox::Sandbox),
    /// What waits for a person.
    Pending,
    /// Show a change and approve it with your SSH key.
    Approve(people::Approve),
    /// Show a change and reject it with your SSH key.
    Reject(people::Vote),
    /// Say what you found about a change that somebody else let through by breaking the glass.
    Review(people::Review),
    /// Emergency stop: nothing leaves any more.
    Stop(people::Why),
    /// End the emergency stop, signed with your SSH key.
    Resume(people::Resume),
    /// The daemon on one screen.
    Status(status::Status),
    /// Find clusters, engines and repositories, and write a first configuration.
    Init(Box<init::Init>),
    /// People: list them, pair their Telegram accounts.
    #[command(subcommand)]
    People(pair::People),
    /// Try every right and every reach that the configuration needs.
    Doctor(doctor::Doctor),
    /// Print the MCP configuration for a client, or add it to the client's file.
    Connect(connect::Connect),
    /// Load the configuration anew; a bad one is refused and the last good one stays.
    Reload,
    /// Policies: check, test, explain, schema, replay.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// The journal: verify.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Judge recordings of engines and print each change of verdict as a JSON line.
    Replay {
        /// Recordings (JSON lines).
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs one command.
pub fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Replay { files } = &cli.command {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        replay::replay(files, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().map_err(|e| {
        Problem::new(
            "process.runtime",
            format!("The runtime did not start: {e}."),
            "Look at the limits of this process.",
        )
    })?;
    runtime.block_on(async move {
        let config = cli.config;
        match cli.command {
            Command::Serve(args) => serve::run(&config, args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Sandbox(args) => sandbox::run(args).await,
            Command::Pending => people::pending(&config).await,
            Command::Approve(args) => people::approve(&config, args).await,
            Command::Reject(args) => people::reject(&config, args).await,
            Command::Review(args) => people::review(&config, args).await,
            Command::Stop(args) => people::stop(&config, args).await,
            Command::Resume(args) => people::resume(&config, args).await,
            Command::Status(args) => status::run(&config, args).await,
            Command::Init(args) => init::run(*args).await,
            Command::People(args) => pair::run(&config, args).await,
            Command::Doctor(args) => doctor::run(&config, args).await,
            Command::Connect(args) => connect::run(&config, args),
            Command::Reload => people::reload(&config).await,
            Command::Policy(args) => policy::run(&config, args).await,
            Command::Audit(args) => audit::run(&config, args).await,
            Command::Replay { .. } => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Logs to stderr (stdout belongs to MCP and to output). `COUNTERSIGN_LOG` is the filter, `COUNTERSIGN_LOG_FORMAT` the form.
pub(crate) fn log_to_stderr(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COUNTERSIGN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    let _ = match std::env::var("COUNTERSIGN_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().with_ansi(false).try_init(),
        _ => log.try_init(),
    };
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn until_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
