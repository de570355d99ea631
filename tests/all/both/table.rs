//! The table of what was said and what was true. Printed when the last scenario of the suite is through, past
//! the test harness's capture; written as Markdown after each row where `COUNTERSIGN_TRUTH` names a file.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());
/// Places that are over, also those of scenarios that failed.
static OVER: AtomicUsize = AtomicUsize::new(0);

/// Adds a row; writes and prints as the module says.
pub fn add(backend: &str, row: Row) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    rows.push(row);
    let text = table(backend, &rows);
    if let Ok(path) = std::env::var("COUNTERSIGN_TRUTH") {
        std::fs::write(&path, &text).unwrap_or_else(|e| panic!("{path}: {e}"));
    }
}

/// Counts a place that is over; the last one prints.
pub fn over(backend: &str) {
    if OVER.fetch_add(1, Ordering::SeqCst) + 1 == super::COUNT {
        let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
        drop(writeln!(std::io::stderr(), "\n{}", table(backend, &rows)));
    }
}

fn table(backend: &str, rows: &[Row]) -> String {
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| (a.engine, &a.scenario).cmp(&(b.engine, &b.scenario)));
    let seconds = |ms: i64| format!("{}.{:02}", ms / 1000, ms.rem_euclid(1000) / 10);
    let mut out =
        format!("Truth of the wait on the {backend}; seconds from the landed commit, delays in milliseconds.\n\n");
    out.push_str(
        "| engine | scenario | said | code | said at | true at | delay | |\n|---|---|---|---|---:|---:|---:|---|\n",
    );
    for r in &sorted {
        let said = if r.true_ms.is_some() { seconds(r.said_ms) } else { String::new() };
        let of = |v: Option<String>| v.unwrap_or_default();
        let line = format!(
            "| {} | {} | {} | {} | {said} | {} | {} | {} |",
            r.engine,
            r.scenario.replace('_', " "),
            r.verdict,
            r.code,
            of(r.true_ms.map(seconds)),
            of(r.delay_ms.map(|d| d.to_string())),
            r.note
        );
        let _ = writeln!(out, "{line}");
    }
    let mut delays: Vec<i64> = rows.iter().filter_map(|r| r.delay_ms).collect();
    delays.sort_unstable();
    let pick = |of: usize| delays.get(delays.len() * of / 100).or(delays.last()).copied().unwrap_or(0);
    let _ = writeln!(
        out,
        "\n{} measured: no early healthy; delay median {} ms, 90 % {} ms, longest {} ms.",
        delays.len(),
        pick(50),
        pick(90),
        delays.last().copied().unwrap_or(0)
    );
    out
}
