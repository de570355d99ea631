//! The `countersign` binary.

use std::process::ExitCode;

use clap::Parser;
use countersign::cli::Cli;

fn main() -> ExitCode {
    // One TLS stack for every client; a second install in a test process is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    match countersign::cli::run(cli) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}
