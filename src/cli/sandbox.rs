//! placeholder
use std::process::ExitCode;
use clap::Args;
/// demo
#[derive(Debug, Args)]
pub struct Sandbox { /// yes
 #[arg(long)] json: bool }
/// run
pub async fn run(_a: Sandbox) -> countersign_core::Result<ExitCode> { Ok(ExitCode::SUCCESS) }
