//! `doctor`: tries every right and every reach that the configuration needs, and says what to do about each.
//!
//! It changes nothing: it reads, asks for reviews, opens a push and ends it before anything is sent. What that
//! cannot prove is said. Nothing secret is printed: problems never carry credentials.

mod cluster;
mod machine;
mod people;
mod repository;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use countersign_core::{Problem, Result};
use serde::Serialize;

use crate::clock::Clock;
use crate::config::Config;

/// A difference between two clocks that is worth a word, and one that breaks things; milliseconds. Servers say
/// whole seconds only.
const SKEW_MS: (i64, i64) = (5_000, 60_000);

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// How one look came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In order.
    Ok,
    /// It works, and could be better or safer.
    Warning,
    /// Something will not work.
    Problem,
}

/// One look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at (`cluster prod`).
    pub area: String,
    /// What came out.
    pub outcome: Outcome,
    /// Stable code of what is not in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One sentence.
    pub say: String,
    /// What to do next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
    /// Further facts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The looks at one area.
pub struct Looks {
    area: String,
    checks: Vec<Check>,
}

impl Looks {
    /// None yet.
    pub fn at(area: impl Into<String>) -> Self {
        Self { area: area.into(), checks: Vec::new() }
    }

    /// Something is in order.
    pub fn ok(&mut self, say: impl Into<String>) {
        self.put(Outcome::Ok, None, say.into(), "", Vec::new());
    }

    /// Something does not work.
    pub fn bad(&mut self, problem: Problem) {
        let code = Some(problem.code.to_string());
        self.put(Outcome::Problem, code, problem.message, &problem.next, problem.evidence);
    }

    /// Something does not work, and does not have to.
    pub fn soft(&mut self, problem: Problem) {
        let code = Some(problem.code.to_string());
        self.put(Outcome::Warning, code, problem.message, &problem.next, problem.evidence);
    }

    /// The outcome of one try.
    pub fn tried<T>(&mut self, say: impl Into<String>, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.ok(say);
                Some(value)
            }
            Err(problem) => {
                self.bad(problem);
                None
            }
        }
    }

    fn put(&mut self, outcome: Outcome, code: Option<String>, say: String, next: &str, evidence: Vec<String>) {
        self.checks.push(Check { area: self.area.clone(), outcome, code, say, next: next.to_owned(), evidence });
    }

    /// Compares a server's clock with ours, `asked` and `answered` around its answer.
    pub fn clock(&mut self, asked: i64, answered: i64, theirs: Option<i64>) {
        let Some(theirs) = theirs else { return };
        // Whole seconds are cut, so theirs is up to one second more than it says.
        let ahead = theirs - answered;
        let behind = asked - (theirs + 1_000);
        let off = ahead.max(behind);
        if off <= SKEW_MS.0 {
            return self.ok("its clock agrees with this machine's");
        }
        let (which, seconds) = (if ahead > behind { "ahead of" } else { "behind" }, off / 1000);
        let say = format!("Its clock is at least {seconds} s {which} this machine's.");
        let next = "Let both follow a time server (chronyd, systemd-timesyncd): expiries, tokens and events are compared by time.";
        if off > SKEW_MS.1 {
            self.bad(Problem::new("clock.skew", say, next));
        } else {
            self.soft(Problem::new("clock.skew", say, next));
        }
    }
}

/// Runs `doctor`. Exit code 1 where something does not work.
pub async fn run(config: &Path, args: Doctor) -> Result<ExitCode> {
    let checks = examine(config).await;
    let bad = checks.iter().any(|c| c.outcome == Outcome::Problem);
    if args.json {
        let answer = serde_json::json!({"ok": !bad, "checks": checks});
        println!("{}", serde_json::to_string_pretty(&answer).unwrap_or_default());
    } else {
        print!("{}", report(&checks));
    }
    Ok(if bad { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Everything that was found out.
pub async fn examine(file: &Path) -> Vec<Check> {
    let clock = Clock::real();
    let mut first = Looks::at("configuration");
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(problem) => {
            first.bad(problem);
            return first.checks;
        }
    };
    machine::configuration(&config, &clock, &mut first);
    let mut checks = first.checks;
    checks.extend(machine::examine(&config).await);
    let clusters = config.clusters.iter().map(|c| cluster::examine(&config, c, &clock));
    checks.extend(futures::future::join_all(clusters).await.into_iter().flatten());
    let repositories = config.repositories.iter().map(|r| repository::examine(&config, r, &clock));
    checks.extend(futures::future::join_all(repositories).await.into_iter().flatten());
    checks.extend(people::examine(&config).await);
    checks
}

/// The findings for people: what is in order in one line each, the rest with what to do.
fn report(checks: &[Check]) -> String {
    let mut out = String::new();
    let mut area = "";
    for c in checks {
        if c.area != area {
            area = &c.area;
            out.push_str(&format!("{area}\n"));
        }
        let (mark, code) = match c.outcome {
            Outcome::Ok => ("ok     ", String::new()),
            Outcome::Warning => ("warning", c.code.as_ref().map(|c| format!("{c}: ")).unwrap_or_default()),
            Outcome::Problem => ("PROBLEM", c.code.as_ref().map(|c| format!("{c}: ")).unwrap_or_default()),
        };
        out.push_str(&format!("  {mark}  {code}{}\n", c.say));
        if c.outcome != Outcome::Ok {
            for e in c.evidence.iter().take(5) {
                out.push_str(&format!("           {e}\n"));
            }
            out.push_str(&format!("           -> {}\n", c.next));
        }
    }
    let count = |o: Outcome| checks.iter().filter(|c| c.outcome == o).count();
    out.push_str(&format!(
        "{} in order, {} warnings, {} problems.\n",
        count(Outcome::Ok),
        count(Outcome::Warning),
        count(Outcome::Problem)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skew(asked: i64, answered: i64, theirs: i64) -> Option<Outcome> {
        let mut looks = Looks::at("x");
        looks.clock(asked, answered, Some(theirs));
        looks.checks.first().map(|c| c.outcome)
    }

    #[test]
    fn a_clock_is_compared_with_the_whole_time_of_the_question() {
        let now = 1_000_000_000;
        assert_eq!(skew(now, now + 10, now - now % 1000), Some(Outcome::Ok));
        assert_eq!(skew(now, now + 30_000, now + 15_000), Some(Outcome::Ok), "a slow answer is no skew");
        assert_eq!(skew(now, now + 10, now + 20_000), Some(Outcome::Warning));
        assert_eq!(skew(now, now + 10, now - 20_000), Some(Outcome::Warning));
        assert_eq!(skew(now, now + 10, now + 90_000), Some(Outcome::Problem));
        assert_eq!(skew(now, now + 10, now - 90_000), Some(Outcome::Problem));
        let mut silent = Looks::at("x");
        silent.clock(now, now, None);
        assert!(silent.checks.is_empty());
    }

    #[test]
    fn a_report_names_code_evidence_and_what_to_do() {
        let mut looks = Looks::at("cluster prod");
        looks.ok("reachable");
        looks.soft(Problem::new("rights.more", "It may read Secrets.", "Take the right away."));
        looks.bad(Problem::new("cluster.forbidden", "Countersign may not list pods.", "Give it.").with("role x"));
        assert_eq!(
            report(&looks.checks),
            "cluster prod\n  ok       reachable\n  warning  rights.more: It may read Secrets.\n           -> Take the right away.\n  PROBLEM  cluster.forbidden: Countersign may not list pods.\n           role x\n           -> Give it.\n1 in order, 1 warnings, 1 problems.\n"
        );
    }
}
