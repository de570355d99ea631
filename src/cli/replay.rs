//! `countersign replay FILE...`: the product's judge over recordings, with the recording's clock.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use countersign_core::Problem;
use countersign_core::verdict::{Judge, JudgeConfig, Recorded, VerdictChange};
use serde::Serialize;
use serde_json::Value;

/// How long a recording's clock runs on after its last event.
const AFTERWARDS_MS: i64 = 60_000;

/// A change of verdict as printed.
#[derive(Serialize)]
struct Printed<'a> {
    trace: &'a str,
    commit: &'a str,
    t: f64,
    verdict: countersign_core::verdict::Verdict,
    code: countersign_core::verdict::Code,
    say: &'a str,
}

/// Prints a JSON line for each change of verdict or code of each commit in each recording.
/// A file without a HEAD line is no recording and is skipped.
///
/// # Errors
/// `replay.unreadable`, `replay.malformed` (with file and line), `replay.output`.
pub fn replay(files: &[PathBuf], out: &mut impl Write) -> Result<(), Problem> {
    for file in files {
        let name = name(file);
        let Some(lines) = recording(file, &name)? else { continue };
        let mut judge = Judge::new(JudgeConfig::default());
        let mut last = 0;
        for (n, line) in &lines {
            let recorded: Recorded =
                serde_json::from_value(line.clone()).map_err(|e| malformed(&name, *n, &e.to_string()))?;
            last = last.max(recorded.t_ms());
            print(&name, &judge.feed(recorded.t_ms(), &recorded.line), out)?;
        }
        print(&name, &judge.advance(last.saturating_add(AFTERWARDS_MS)), out)?;
    }
    out.flush().map_err(|e| output(&e))
}

/// The lines of a recording with their numbers; `None` if it has no HEAD line.
fn recording(file: &Path, name: &str) -> Result<Option<Vec<(usize, Value)>>, Problem> {
    let unreadable = |e: &std::io::Error| {
        Problem::new(
            "replay.unreadable",
            format!("{name} cannot be read: {e}."),
            "Name a recording that exists (JSON lines, HEAD first).",
        )
    };
    let reader = BufReader::new(File::open(file).map_err(|e| unreadable(&e))?);
    let mut lines = Vec::new();
    let mut head = false;
    let mut bad = None;
    for (i, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(|e| unreadable(&e))?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(v) => {
                head |= v.get("type").and_then(Value::as_str) == Some("HEAD");
                lines.push((i + 1, v));
            }
            Err(e) => {
                bad.get_or_insert((i + 1, e.to_string()));
            }
        }
    }
    match (head, bad) {
        (false, _) => Ok(None),
        (true, Some((n, e))) => Err(malformed(name, n, &e)),
        (true, None) => Ok(Some(lines)),
    }
}

fn print(trace: &str, changes: &[VerdictChange], out: &mut impl Write) -> Result<(), Problem> {
    for c in changes {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a recording are far below 2^52")]
        let t = c.t as f64 / 1000.0;
        let line = Printed { trace, commit: &c.commit, t, verdict: c.verdict, code: c.code, say: &c.say };
        serde_json::to_writer(&mut *out, &line).map_err(|e| output(&e.into()))?;
        out.write_all(b"\n").map_err(|e| output(&e))?;
    }
    Ok(())
}

fn name(file: &Path) -> String {
    file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn malformed(file: &str, line: usize, why: &str) -> Problem {
    Problem::new(
        "replay.malformed",
        format!("{file}:{line} is not a line of a recording: {}.", countersign_core::verdict::quote(why)),
        "Correct that line, or record again.",
    )
}

fn output(e: &std::io::Error) -> Problem {
    Problem::new("replay.output", format!("The result cannot be written: {e}."), "Look at where the output goes.")
        .later()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(content: &str) -> Result<String, Problem> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.jsonl");
        std::fs::write(&file, content).unwrap();
        let mut out = Vec::new();
        replay(&[file], &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_file_without_head_is_skipped() {
        assert_eq!(run("{\"trace\":\"a\",\"commit\":\"b\"}\n").unwrap(), "");
        assert_eq!(run("no json at all\n").unwrap(), "");
    }

    #[test]
    fn a_malformed_line_is_named() {
        let head = "{\"t\":0,\"type\":\"HEAD\",\"about\":\"x\",\"engine\":\"argo\"}\n";
        for bad in ["{broken", "{\"type\":\"ADDED\",\"object\":{}}", "{\"t\":1,\"type\":\"ADDED\"}", "[]"] {
            let p = run(&format!("{head}\n{bad}\n")).unwrap_err();
            assert_eq!(p.code, "replay.malformed", "{bad}");
            assert!(p.message.contains("x.jsonl:3"), "{}", p.message);
        }
    }

    #[test]
    fn an_unknown_type_is_passed_over() {
        let head = "{\"t\":0,\"type\":\"HEAD\"}\n";
        assert_eq!(run(&format!("{head}{{\"t\":1,\"type\":\"BOOKMARK\",\"object\":{{}}}}\n")).unwrap(), "");
    }

    #[test]
    fn a_missing_file_is_a_problem_without_its_folder() {
        let p = replay(&[PathBuf::from("/nowhere/at/all.jsonl")], &mut Vec::new()).unwrap_err();
        assert!(p.message.starts_with("all.jsonl"), "{}", p.message);
    }
}
