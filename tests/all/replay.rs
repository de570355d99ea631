//! `countersign replay` over the recordings, as a user runs it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use countersign::cli::replay::replay;
use serde_json::Value;

fn traces() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/traces");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    files
}

fn run(files: &[PathBuf]) -> Vec<Value> {
    let mut out = Vec::new();
    replay(files, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn every_expected_commit_gets_lines_that_a_checker_can_read() {
    let files = traces();
    let lines = run(&files);
    let told: BTreeSet<(String, String)> = lines
        .iter()
        .map(|l| (l["trace"].as_str().unwrap().to_owned(), l["commit"].as_str().unwrap().to_owned()))
        .collect();
    let expected = files.iter().find(|f| f.ends_with("expected.jsonl")).unwrap();
    for line in std::fs::read_to_string(expected).unwrap().lines() {
        let e: Value = serde_json::from_str(line).unwrap();
        let key = (e["trace"].as_str().unwrap().to_owned(), e["commit"].as_str().unwrap().to_owned());
        assert!(told.contains(&key), "{key:?}");
    }
    for l in &lines {
        assert!(matches!(l["verdict"].as_str().unwrap(), "waiting" | "healthy" | "failed" | "superseded"), "{l}");
        assert!(l["t"].is_f64() && l["code"].is_string() && !l["say"].as_str().unwrap().is_empty(), "{l}");
    }
    assert!(lines.iter().any(|l| l["trace"] == "argo-image-ok.jsonl" && l["verdict"] == "healthy" && l["t"] == 11.996));
}

#[test]
fn files_do_not_influence_each_other() {
    let files = traces();
    let one_by_one: Vec<Value> = files.iter().flat_map(|f| run(std::slice::from_ref(f))).collect();
    assert_eq!(run(&files), one_by_one);
}
