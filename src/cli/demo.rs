//! placeholder
use std::process::ExitCode;
use clap::Args;
/// demo
#[derive(Debug, Args)]
pub struct Demo { /// yes
 #[arg(long)] yes: bool }
/// run
pub async fn run(_a: Demo) -> countersign_core::Result<ExitCode> { Ok(ExitCode::SUCCESS) }
