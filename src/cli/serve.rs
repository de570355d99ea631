//! `serve`: the bridge over stdio, or the daemon itself.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use clap::Args;
use countersign_core::{Problem, Result};

use crate::app::Daemon;
use crate::clock::Clock;
use crate::config::Config;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Be the daemon and listen here (`127.0.0.1:8080`); a routable address needs agents with tokens.
    #[arg(long)]
    http: Option<String>,
    /// Be the daemon without HTTP (the bridge starts it so).
    #[arg(long, conflicts_with = "http")]
    daemon: bool,
    /// Agent that this stdio client is; default: `stdio_agent` of the configuration.
    #[arg(long, conflicts_with_all = ["http", "daemon"])]
    agent: Option<String>,
}

/// Runs `serve`.
pub async fn run(config: &Path, args: Serve) -> Result<ExitCode> {
    let loaded = Config::load(config)?;
    if args.http.is_some() || args.daemon {
        super::log_to_stderr("info,rmcp=warn");
        let daemon = Daemon::start(loaded, Some(config.to_owned()), args.http, Clock::real()).await?;
        if let Some(addr) = daemon.http_addr() {
            eprintln!("countersign: MCP at http://{addr}/mcp");
        }
        daemon.run_until_signal().await;
        return Ok(ExitCode::SUCCESS);
    }
    super::log_to_stderr("warn");
    let agent = loaded.stdio_agent(args.agent.as_deref())?;
    let state = loaded.bootstrap.state_dir.clone();
    let start = || start_daemon(config, &state);
    let ended = crate::server::bridge(&state.join(crate::server::SOCKET), &agent, start).await;
    if let Err(problem) = ended {
        eprintln!("{problem}");
        std::process::exit(2);
    }
    // Reading standard input may hold a thread: the process ends here.
    std::process::exit(0)
}

/// Starts the daemon in a process group of its own, so that closing this client ends nothing.
fn start_daemon(config: &Path, state: &Path) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let failed = |e: std::io::Error| {
        Problem::new(
            "daemon.start",
            format!("The daemon could not be started: {e}."),
            "Start it by hand: countersign serve --daemon --config FILE.",
        )
    };
    std::fs::create_dir_all(state).map_err(failed)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(state.join("daemon.log")).map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    std::process::Command::new(program)
        .args(["serve", "--daemon", "--config"])
        .arg(std::path::absolute(config).map_err(failed)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    Ok(())
}
