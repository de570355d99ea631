//! Every recording, judged as its expectation says (the same comparisons as the recordings' checker).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::verdict::{Judge, JudgeConfig, Line, Recorded, Verdict, VerdictChange};

#[derive(Debug, Deserialize)]
struct Expected {
    trace: String,
    commit: String,
    verdict: String,
    not_before: Option<f64>,
    healthy_by: Option<f64>,
    failed_from: Option<f64>,
    failed_by: Option<f64>,
    codes: Option<Vec<String>>,
    #[serde(default)]
    may_fail: bool,
    #[serde(default)]
    says: Vec<String>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/traces")
}

fn recordings() -> BTreeMap<String, Vec<Recorded>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "expected.jsonl" {
            continue;
        }
        let content = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Recorded> = content.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(matches!(lines[0].line, Line::Head { .. }), "{name}");
        all.insert(name, lines);
    }
    all
}

fn run(lines: &[Recorded]) -> Vec<VerdictChange> {
    let mut judge = Judge::new(JudgeConfig::default());
    let mut out = Vec::new();
    for l in lines {
        out.extend(judge.feed(l.t_ms(), &l.line));
    }
    let last = lines.iter().map(Recorded::t_ms).max().unwrap_or(0);
    out.extend(judge.advance(last + 60_000));
    out
}

fn seconds(t: i64) -> f64 {
    t as f64 / 1000.0
}

fn complaint(e: &Expected, got: &[&VerdictChange]) -> Option<String> {
    let Some(last) = got.last().map(|g| g.verdict) else { return Some("no verdict".into()) };
    let healthy: Vec<f64> = got.iter().filter(|g| g.verdict == Verdict::Healthy).map(|g| seconds(g.t)).collect();
    let failed: Vec<_> = got.iter().filter(|g| g.verdict == Verdict::Failed).collect();
    let want = e.verdict.as_str();
    let never = matches!(want, "failed" | "waiting" | "never-healthy" | "waiting-or-failed");
    if let Some(&h) = healthy.first()
        && (never || e.not_before.is_some_and(|n| h < n))
    {
        return Some(format!("early: healthy at {h}"));
    }
    let unsaid: Vec<_> = e
        .says
        .iter()
        .filter(|c| !got.iter().any(|g| g.verdict == Verdict::Waiting && g.code.as_str() == c.as_str()))
        .collect();
    let wrong = match want {
        "healthy" => match healthy.first() {
            None => Some("never healthy".into()),
            Some(&h) if e.healthy_by.is_some_and(|b| h > b) => Some(format!("late: healthy at {h}")),
            _ if !failed.is_empty() && !e.may_fail => Some("failed on a commit that works".into()),
            _ => None,
        },
        "failed" => match failed.first() {
            None => Some("never failed".into()),
            Some(f) if seconds(f.t) < e.failed_from.unwrap() => Some(format!("early: failed at {}", f.t)),
            Some(f) if seconds(f.t) > e.failed_by.unwrap() => Some(format!("late: failed at {}", f.t)),
            Some(f) if e.codes.as_ref().is_some_and(|c| !c.iter().any(|c| c == f.code.as_str())) => {
                Some(format!("failed as {}", f.code))
            }
            _ => None,
        },
        "waiting" if last != Verdict::Waiting => Some(format!("ends {last:?}")),
        "healthy-or-superseded" if !matches!(last, Verdict::Healthy | Verdict::Superseded) => {
            Some(format!("ends {last:?}"))
        }
        "waiting-or-failed" if got.iter().any(|g| !matches!(g.verdict, Verdict::Waiting | Verdict::Failed)) => {
            Some(format!("ends {last:?}"))
        }
        _ => None,
    };
    wrong.or_else(|| (!unsaid.is_empty()).then(|| format!("does not say {unsaid:?}")))
}

#[test]
fn every_recorded_commit_is_judged_right() {
    let recordings = recordings();
    let expected: Vec<Expected> = std::fs::read_to_string(folder().join("expected.jsonl"))
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .filter(|e: &Expected| e.verdict != "not-judged")
        .collect();
    assert!(expected.len() > 35);
    let runs: BTreeMap<_, _> = recordings.iter().map(|(n, l)| (n.clone(), run(l))).collect();
    let mut wrong = Vec::new();
    for e in &expected {
        let got: Vec<_> = runs[&e.trace].iter().filter(|c| c.commit == e.commit).collect();
        if let Some(c) = complaint(e, &got) {
            let told: Vec<_> = got.iter().map(|g| format!("{}:{:?}/{}", g.t, g.verdict, g.code)).collect();
            wrong.push(format!("{} {}: {c}\n   {}", e.trace, &e.commit[..7], told.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_recording_cut_short_yields_the_same_lines_up_to_the_cut() {
    for (name, lines) in recordings() {
        let whole = run(&lines);
        let step = (lines.len() / 25).max(1);
        for cut in (1..lines.len()).step_by(step) {
            let end = lines[..cut].iter().map(Recorded::t_ms).max().unwrap();
            let next = lines[cut].t_ms();
            let part = run(&lines[..cut]);
            // Lines at the very time of the cut may belong to the event behind it.
            let strictly = |all: &[VerdictChange], t: i64| all.iter().filter(|c| c.t < t).cloned().collect::<Vec<_>>();
            assert_eq!(strictly(&part, next.max(end)), strictly(&whole, next.max(end)), "{name} cut at {cut}");
            let at_end: Vec<_> = part.iter().filter(|c| c.t <= end).cloned().collect();
            assert_eq!(at_end, whole[..at_end.len()], "{name} cut at {cut}");
        }
    }
}

#[test]
fn no_line_repeats_the_one_before() {
    for (name, lines) in recordings() {
        let mut last = BTreeMap::new();
        for c in run(&lines) {
            let now = (c.verdict, c.code);
            assert_ne!(last.insert(c.commit.clone(), now), Some(now), "{name} {} at {}", c.commit, c.t);
            assert!(!c.say.is_empty() && !c.say.chars().any(char::is_control), "{name}: {:?}", c.say);
        }
    }
}

#[test]
fn a_watch_that_begins_anew_changes_no_verdict() {
    for (name, lines) in recordings() {
        let whole = run(&lines);
        // After every 20th line, everything that is there is told again as ADDED.
        let mut judge = Judge::new(JudgeConfig::default());
        let mut there: BTreeMap<String, serde_json::Value> = BTreeMap::new();
        let mut out = Vec::new();
        let key =
            |o: &serde_json::Value| format!("{} {} {}", o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]);
        for (i, l) in lines.iter().enumerate() {
            match &l.line {
                Line::Added { object } | Line::Modified { object } => {
                    there.insert(key(object), object.clone());
                }
                Line::Deleted { object } => {
                    there.remove(&key(object));
                }
                _ => {}
            }
            out.extend(judge.feed(l.t_ms(), &l.line));
            if i % 20 == 19 {
                for object in there.values() {
                    out.extend(judge.feed(l.t_ms(), &Line::Added { object: object.clone() }));
                }
            }
        }
        out.extend(judge.advance(lines.iter().map(Recorded::t_ms).max().unwrap() + 60_000));
        assert_eq!(out, whole, "{name}");
    }
}
