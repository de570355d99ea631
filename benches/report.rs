//! Lines of figures: ours, the alternative's, the ratio, the goal.

use std::time::Duration;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Mebibytes.
    MiB,
    /// Bytes.
    Bytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ms if value < 0.01 => format!("{:.2} µs", value * 1000.0),
            Self::Ms if value < 10.0 => format!("{value:.2} ms"),
            Self::Ms => format!("{value:.0} ms"),
            Self::MiB => format!("{value:.1} MiB"),
            Self::Bytes => format!("{value:.0} B"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Ours is at most this.
    AtMost(f64),
    /// The alternative takes at least so many times as much.
    Times(f64),
    /// Told for comparison only.
    None,
}

/// One measured line.
#[derive(Debug)]
pub struct Line {
    /// What was measured.
    pub name: String,
    /// Of both figures.
    pub unit: Unit,
    /// Our median.
    pub ours: f64,
    /// The alternative and its median, or why there is none.
    pub other: Result<(String, f64), String>,
    /// Goal.
    pub goal: Goal,
}

/// Prints lines as they come and counts.
#[derive(Debug)]
pub struct Report {
    quick: bool,
    lines: usize,
    missed: Vec<String>,
}

impl Report {
    /// Prints under which conditions the figures arise.
    pub fn begin(quick: bool) -> Self {
        let build = if cfg!(debug_assertions) { "DEBUG build: goals are for release builds" } else { "release build" };
        let size = if quick { "quick sizes: goals are for the full sizes" } else { "full sizes" };
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or("?");
        println!("countersign bench: {build}, {size}, {cores} cores, load {load} at the start; medians");
        Self { quick, lines: 0, missed: Vec::new() }
    }

    /// A word on what goes on now; on standard error, so that the lines stay lines.
    pub fn note(&self, text: &str) {
        eprintln!("  .. {text}");
    }

    /// Prints a line.
    pub fn line(&mut self, line: Line) {
        let ratio = line.other.as_ref().ok().map(|(_, other)| other / line.ours.max(f64::MIN_POSITIVE));
        let (asked, met) = match line.goal {
            Goal::AtMost(most) => (format!("≤ {}", line.unit.show(most)), Some(line.ours <= most)),
            Goal::Times(times) => (format!("≥ {times:.0}x"), ratio.map(|r| r >= times)),
            Goal::None => ("none".to_owned(), None),
        };
        let verdict = match (line.goal, met) {
            (Goal::None, _) => "for comparison",
            (_, None) => "not measured",
            (_, Some(true)) => "met",
            (_, Some(false)) => "NOT MET",
        };
        let against = match (&line.other, ratio) {
            (Ok((name, value)), Some(ratio)) => format!("{name} {} | {}", line.unit.show(*value), times(ratio)),
            (Err(why), _) => format!("skipped: {why} | -"),
            (Ok((name, _)), None) => format!("{name} | -"),
        };
        println!("{} | ours {} | {against} | goal {asked} | {verdict}", line.name, line.unit.show(line.ours));
        self.lines += 1;
        if met == Some(false) {
            self.missed.push(line.name);
        }
    }

    /// The last line.
    pub fn end(self) {
        let note = if self.quick { " (quick: a smoke test, not a verdict)" } else { "" };
        println!("lines={} missed={}{note}", self.lines, self.missed.len());
    }
}

fn times(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{ratio:.0}x") } else { format!("{ratio:.2}x") }
}

/// Middle value; of an even number the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.get(half.wrapping_sub(1))) {
        (Some(high), Some(low)) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (Some(middle), _) => *middle,
        (None, _) => f64::NAN,
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
