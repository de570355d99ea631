//! Random histories of changes through the product's own state machine, policy, press desk, gate and journal,
//! written as traces for an approval checker that nobody here wrote (AgentAck).
//!
//! `cargo run --example ack -- --out DIR [--histories N] [--seed N] [--off CONTROL]`; see `tests/ack/run.sh`.
//! A history is the life of one change; fifty live in one world, side by side, with people who press what they
//! should not, agents that ask again, disks that fill up, commits by others and processes that die.

mod book;
mod controls;
mod export;
mod remote;
mod walk;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use clap::Parser;

use controls::Control;
use world::World;

/// Changes of one world.
const EACH: usize = 50;

/// Arguments.
#[derive(Debug, Parser)]
struct Args {
    /// Folder for the traces.
    #[arg(long)]
    out: PathBuf,
    /// Lives of changes.
    #[arg(long, default_value_t = 10_000)]
    histories: usize,
    /// First seed; each world has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The walk goes around this control.
    #[arg(long)]
    off: Option<Control>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out)?;
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(run(args, threads))
}

async fn run(args: Args, threads: usize) -> Result<()> {
    // Journals flush each commit; in memory that costs nothing.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let worlds = args.histories.div_ceil(EACH);
    let next = Arc::new(Mutex::new(0_usize));
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..threads {
        let (next, out, dir) = (Arc::clone(&next), args.out.clone(), scratch.path().to_owned());
        let (seed, histories, off) = (args.seed, args.histories, args.off);
        jobs.spawn(async move {
            let mut seen = BTreeMap::new();
            loop {
                let n = {
                    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                    let n = *next;
                    *next += 1;
                    n
                };
                if n >= worlds {
                    return Ok(seen);
                }
                let budget = EACH.min(histories - n * EACH);
                one(&dir, &out, n, seed + n as u64, budget, off, &mut seen)
                    .await
                    .with_context(|| format!("world {n}"))?;
            }
        });
    }
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(part) = jobs.join_next().await {
        let part: Result<BTreeMap<String, u64>> = part?;
        for (what, n) in part? {
            *seen.entry(what).or_default() += n;
        }
    }
    let text = serde_json::to_string_pretty(&serde_json::json!({
        "rule": args.off.map(Control::rule),
        "off": args.off.map(|c| format!("{c:?}")),
        "seen": seen,
    }))?;
    std::fs::write(args.out.join("walk.json"), text)?;
    Ok(())
}

async fn one(
    dir: &Path,
    out: &Path,
    n: usize,
    seed: u64,
    budget: usize,
    off: Option<Control>,
    seen: &mut BTreeMap<String, u64>,
) -> Result<()> {
    let path = dir.join(format!("{n}.db"));
    let mut world = World::new(&path, seed, off).await?;
    world.walk(budget).await?;
    world.book.close().await;
    let events = export::verified(&path).await?;
    export::write(out, &format!("world-{n:04}"), &events, &world, seen)?;
    for (what, count) in &world.seen {
        *seen.entry(what.clone()).or_default() += count;
    }
    for end in ["db", "db-wal", "db-shm"] {
        let _ = std::fs::remove_file(path.with_extension(end));
    }
    Ok(())
}
