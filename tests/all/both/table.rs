//! The table of what was said and what was true. Printed when the last scenario of the suite is through, past
//! the test harness's capture; written as Markdown after each row where `COUNTERSIGN_TRUTH` names a file.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::others::TOOLS;

/// What the file begins with.
const HEAD: &str = "\
# Truth of the wait

Written by the scenarios themselves: `COUNTERSIGN_TRUTH=docs/truth-of-the-wait.md just lab-test`. Each row is one change \
that was delivered for real. *Said at* is when Countersign said so, *true at* since when it was so without a break, by \
the API server's own history as a watch of the test saw it: generation, observed generation, replicas and image of the \
Deployment, never the engine's word; for failures, when the Deployment or the engine first said that this very revision \
failed. *Delay* is from the last status change that was needed to know it, the waiting windows apart: healthy must \
stand for 3 s here (10 s by default), a failure for 1 s. For a HelmRelease the engine's part of it is the release: \
Ready and deployed at its generation, with the commit's values. Less than nothing: the test's own watch heard of it \
later. A healthy that was said too early fails the scenario, and there was none.

Beside it, what people's scripts do after a push, started when the commit was on the branch, at most 120 s: \
`argocd app wait --sync --health` against Argo CD's API server, and `kubectl wait`, for Applications with \
`--for=jsonpath={.status.health.status}=Healthy`, for Kustomizations with `--for=condition=Ready`. The seconds are those \
from the commit until the tool said healthy; **false**: the commit was not live then, nor 250 ms later. Empty: it had \
not said so when Countersign gave its verdict (in rows that failed that is right), or the engine is not its own.

";

/// What became of one change. Times in milliseconds from the landed commit.
#[derive(Debug, Clone)]
pub struct Row {
    pub scenario: String,
    pub engine: &'static str,
    pub verdict: String,
    pub code: String,
    pub said_ms: i64,
    /// When it was really so.
    pub true_ms: Option<i64>,
    /// From the last status change that was needed to know it to its being said, waiting windows apart.
    pub delay_ms: Option<i64>,
    pub note: &'static str,
    /// What people's tools said, by their place in [`TOOLS`]; none: not healthy before our word.
    pub others: [Option<Other>; TOOLS.len()],
}

/// A tool's word that a commit is live and healthy.
#[derive(Debug, Clone, Copy)]
pub struct Other {
    pub after_ms: i64,
    /// Whether it was so when it was said.
    pub so: bool,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());
/// Places that are over, also those of scenarios that failed.
static OVER: AtomicUsize = AtomicUsize::new(0);
/// Scenarios that were not played.
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Adds a row; writes and prints as the module says.
pub fn add(backend: &str, row: Row) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    rows.push(row);
    let text = table(backend, &rows);
    if let Ok(path) = std::env::var("COUNTERSIGN_TRUTH") {
        std::fs::write(&path, format!("{HEAD}{text}")).unwrap_or_else(|e| panic!("{path}: {e}"));
    }
}

/// Prints how long a new user took.
pub fn first_hour(backend: &str, engine: &str, card: std::time::Duration, healthy: std::time::Duration) {
    let line = format!(
        "the first hour on the {backend}, {engine}: first card after {:.1} s, first healthy commit after {:.1} s, no YAML edited",
        card.as_secs_f64(),
        healthy.as_secs_f64()
    );
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Counts and prints a scenario that is not played on a cluster that is not ours; whether this is one.
pub fn not_for_guests(scenario: &str, engine: &'static str, why: &'static str) -> bool {
    if !crate::lab::wanted_as_guest() {
        return false;
    }
    let backend = "foreign cluster";
    drop(writeln!(std::io::stderr(), "skipped on the {backend}: {scenario} ({engine}): {why}"));
    SKIPPED.fetch_add(1, Ordering::SeqCst);
    let row = Row {
        scenario: scenario.into(),
        engine,
        verdict: "skipped".into(),
        code: String::new(),
        said_ms: 0,
        true_ms: None,
        delay_ms: None,
        note: why,
        others: Default::default(),
    };
    add(backend, row);
    over(backend);
    true
}

/// Counts a place that is over; the last one prints.
pub fn over(backend: &str) {
    if OVER.fetch_add(1, Ordering::SeqCst) + 1 == super::COUNT {
        let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
        drop(writeln!(std::io::stderr(), "\n{}", table(backend, &rows)));
    }
}

/// `healthy after 0.3 s`, and whether that was so.
fn word(other: Option<Other>) -> String {
    other.map(|o| format!("{} {}", seconds(o.after_ms), if o.so { "true" } else { "**false**" })).unwrap_or_default()
}

fn seconds(ms: i64) -> String {
    format!("{}.{:02}", ms / 1000, ms.rem_euclid(1000) / 10)
}

/// The value below which so many hundredths of a sorted list are.
fn pick(sorted: &[i64], hundredths: usize) -> i64 {
    sorted.get(sorted.len() * hundredths / 100).or(sorted.last()).copied().unwrap_or(0)
}

fn table(backend: &str, rows: &[Row]) -> String {
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| (a.engine, &a.scenario).cmp(&(b.engine, &b.scenario)));
    let others = backend == "lab";
    let mut out = format!("On the {backend}; seconds from the landed commit, delays in milliseconds.\n\n");
    out.push_str("| engine | scenario | said | code | said at | true at | delay |");
    if others {
        let _ = write!(out, " {} |", TOOLS.join(" | "));
    }
    out.push_str(" |\n|---|---|---|---|---:|---:|---:|");
    if others {
        out.push_str(&"---|".repeat(TOOLS.len()));
    }
    out.push_str("---|\n");
    for r in &sorted {
        let said = if r.true_ms.is_some() { seconds(r.said_ms) } else { String::new() };
        let of = |v: Option<String>| v.unwrap_or_default();
        let _ = write!(
            out,
            "| {} | {} | {} | {} | {said} | {} | {} |",
            r.engine,
            r.scenario.replace('_', " "),
            r.verdict,
            r.code,
            of(r.true_ms.map(seconds)),
            of(r.delay_ms.map(|d| d.to_string())),
        );
        if others {
            let words: Vec<String> = r.others.iter().map(|o| word(*o)).collect();
            let _ = write!(out, " {} |", words.join(" | "));
        }
        let _ = writeln!(out, " {} |", r.note);
    }
    let mut delays: Vec<i64> = rows.iter().filter_map(|r| r.delay_ms).collect();
    delays.sort_unstable();
    let _ = writeln!(
        out,
        "\n{} measured: no early healthy; delay median {} ms, 90 % {} ms, longest {} ms.",
        delays.len(),
        pick(&delays, 50),
        pick(&delays, 90),
        delays.last().copied().unwrap_or(0)
    );
    let skipped = SKIPPED.load(Ordering::SeqCst);
    if skipped > 0 {
        let _ = writeln!(out, "{skipped} of {} scenarios skipped.", super::COUNT);
    }
    for (tool, name) in TOOLS.iter().enumerate().filter(|_| others) {
        let words: Vec<Other> = rows.iter().filter_map(|r| r.others.get(tool).copied().flatten()).collect();
        let mut after: Vec<i64> = words.iter().map(|o| o.after_ms).collect();
        after.sort_unstable();
        let _ = writeln!(
            out,
            "{name} said healthy {} times, {} of them falsely; median after {} s.",
            words.len(),
            words.iter().filter(|o| !o.so).count(),
            seconds(pick(&after, 50))
        );
    }
    out
}
