//! Measures Countersign against named alternatives in one run: `just bench`, or `just bench --quick`.
//!
//! Each line gives our median, the alternative's median, the ratio and the goal. Nothing here fails because it
//! was slow; it fails if something did not do its work, because a wrong answer has no speed.

mod flood;
mod index;
mod inspect;
mod operate;
mod report;
mod start;
mod tools;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use report::Report;

/// Groups of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The ownership index alone.
    Index,
    /// The tool `inspect`.
    Inspect,
    /// From the press to the pushed commit.
    Operate,
    /// Start and memory.
    Start,
    /// One agent that floods, and another one.
    Flood,
}

/// Measures Countersign against named alternatives.
#[derive(Debug, Parser)]
struct Args {
    /// Small sizes and few runs: less than a minute; its figures are for no goal.
    #[arg(long)]
    quick: bool,
    /// Only these groups.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// What `cargo bench` adds to the arguments of every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Used by this program itself: build one index in a fresh process and print what it costs.
    #[arg(long, hide = true)]
    index_child: Option<String>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    quick: bool,
    /// Applications of the `inspect` world; each has twenty objects.
    apps: usize,
    /// Applications of the index alone; each has a hundred objects.
    index_apps: usize,
    /// Files of the large repository.
    files: usize,
    /// Runs of what takes seconds.
    few: usize,
    /// Runs of what takes milliseconds.
    many: usize,
}

impl Size {
    fn of(quick: bool) -> Self {
        if quick {
            Self { quick, apps: 50, index_apps: 1_000, files: 5_000, few: 1, many: 5 }
        } else {
            Self { quick, apps: 500, index_apps: 10_000, files: 100_000, few: 5, many: 30 }
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let size = Size::of(args.quick);
    if let Some(which) = &args.index_child {
        return index::child(which, size);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_countersign"));
    let wanted = |g: Group| args.only.is_empty() || args.only.contains(&g);
    let mut report = Report::begin(size.quick);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if wanted(Group::Index) {
        index::measure(size, &mut report)?;
    }
    runtime.block_on(async {
        if wanted(Group::Start) {
            start::measure(&program, size, &mut report).await?;
        }
        if wanted(Group::Inspect) {
            inspect::measure(&program, size, &mut report).await?;
        }
        if wanted(Group::Operate) {
            operate::measure(&program, size, &mut report).await?;
        }
        if wanted(Group::Flood) {
            flood::measure(&program, size, &mut report).await?;
        }
        anyhow::Ok(())
    })?;
    // Git servers and mirrors of the sandbox may still be at work on what is thrown away.
    runtime.shutdown_background();
    report.end();
    Ok(())
}
