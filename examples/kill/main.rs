//! SIGKILL at every fault point, and again during the recovery. The sandbox is a process of its own,
//! the product is another; the oracle reads the sandbox's logs and the Git history, never our journal.
//!
//! `cargo run --example kill -- [--kills N] [--points a,b] [--jobs N]`; the last line is
//! `points=N kills=N lost=0 doubled=0 stuck=0`.

mod oracle;
mod product;
mod scenario;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use clap::Parser;
use countersign::pipeline::fault;

use scenario::{Case, Outcome};
use world::World;

/// Arguments.
#[derive(Debug, Parser)]
struct Args {
    /// SIGKILLs at each point; each is followed by another one during the recovery.
    #[arg(long, default_value_t = 25)]
    kills: u32,
    /// Only these points, separated by commas; a trailing `*` stands for anything.
    #[arg(long, value_delimiter = ',')]
    points: Vec<String>,
    /// Worlds at the same time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Say what each case does.
    #[arg(long)]
    verbose: bool,
    /// Keep the worlds' folders here, also where everything went well.
    #[arg(long)]
    keep: Option<std::path::PathBuf>,
}

/// What was counted.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    hits: u32,
    kills: u32,
    missed: u32,
    lost: u32,
    doubled: u32,
    stuck: u32,
}

/// What all jobs share.
struct Run {
    verbose: bool,
    queue: Mutex<VecDeque<Case>>,
    tally: Mutex<BTreeMap<String, Tally>>,
    expected: u32,
    broken: Mutex<Vec<String>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wanted(filters: &[String], point: &str) -> bool {
    filters.is_empty() || filters.iter().any(|f| f.strip_suffix('*').map_or(f == point, |pre| point.starts_with(pre)))
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<ExitCode> {
    let started = std::time::Instant::now();
    let points: Vec<String> = fault::points().into_iter().filter(|p| wanted(&args.points, p)).collect();
    let cases = (0..args.kills).flat_map(|k| points.iter().map(move |p| Case { point: p.clone(), nth: k }));
    let run = Arc::new(Run {
        verbose: args.verbose,
        queue: Mutex::new(cases.collect()),
        tally: Mutex::new(points.iter().map(|p| (p.clone(), Tally::default())).collect()),
        expected: args.kills,
        broken: Mutex::new(Vec::new()),
    });
    let base = match &args.keep {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::temp_dir().join(format!("countersign-kill-{}", std::process::id())),
    };
    let mut jobs = tokio::task::JoinSet::new();
    for n in 0..args.jobs.clamp(1, points.len().max(1)) {
        let (run, dir) = (Arc::clone(&run), base.join(format!("world-{n}")));
        jobs.spawn(async move {
            if let Err(e) = job(&run, &dir).await {
                lock(&run.broken).push(format!("world {n}: {e:#}"));
            }
        });
    }
    while jobs.join_next().await.is_some() {}
    let good = report(&run);
    eprintln!("{:.0} s; worlds in {}", started.elapsed().as_secs_f32(), base.display());
    if good && args.keep.is_none() {
        let _ = std::fs::remove_dir_all(&base);
    }
    last_line(&run);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One world after another case, until none is left; then the audit.
async fn job(run: &Run, dir: &std::path::Path) -> Result<()> {
    let mut world = World::start(dir).await.context("the world did not start")?;
    loop {
        let Some(case) = lock(&run.queue).pop_front() else { break };
        let began = std::time::Instant::now();
        let out = scenario::play(&mut world, &case).await.with_context(|| format!("{case:?}"))?;
        note(run, &case, &out);
        if run.verbose {
            eprintln!("{:<34} #{:<3} {:>5.1} s  {}", case.point, case.nth, began.elapsed().as_secs_f32(), out.words);
        }
    }
    let findings = world.end().await?;
    lock(&run.broken).extend(findings.into_iter().map(|f| format!("{}: {f}", dir.display())));
    Ok(())
}

fn note(run: &Run, case: &Case, out: &Outcome) {
    let mut tally = lock(&run.tally);
    let t = tally.entry(case.point.clone()).or_default();
    t.hits += u32::from(out.hit);
    t.missed += u32::from(!out.hit);
    t.kills += out.kills;
    let lists = [
        ("lost", &out.lost, &mut t.lost),
        ("doubled", &out.doubled, &mut t.doubled),
        ("stuck", &out.stuck, &mut t.stuck),
    ];
    for (what, found, count) in lists {
        *count += u32::try_from(found.len()).unwrap_or(u32::MAX);
        for f in found {
            println!("{what}: {} #{}: {f}", case.point, case.nth);
        }
    }
    if !out.hit {
        println!("never hit: {} #{}: {}", case.point, case.nth, out.words);
    }
}

/// One line per point; whether everything is as it must be.
fn report(run: &Run) -> bool {
    let tally = lock(&run.tally);
    let mut good = true;
    for (point, t) in tally.iter() {
        let ok =
            t.hits >= run.expected && t.missed == 0 && t.kills >= 2 * run.expected && t.lost + t.doubled + t.stuck == 0;
        good &= ok;
        println!(
            "{point:<34} hits={:<4} kills={:<4} lost={} doubled={} stuck={}{}",
            t.hits,
            t.kills,
            t.lost,
            t.doubled,
            t.stuck,
            if ok { "" } else { "  <-- not as it must be" }
        );
    }
    for b in lock(&run.broken).iter() {
        good = false;
        println!("broken: {b}");
    }
    good
}

fn last_line(run: &Run) {
    let tally = lock(&run.tally);
    let sum = |f: fn(&Tally) -> u32| tally.values().map(f).sum::<u32>();
    let hit = tally.values().filter(|t| t.hits > 0).count();
    println!(
        "points={hit} kills={} lost={} doubled={} stuck={}",
        sum(|t| t.kills),
        sum(|t| t.lost),
        sum(|t| t.doubled),
        sum(|t| t.stuck)
    );
}
