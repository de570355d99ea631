//! Every problem that the product can answer, every finding of `policy check` and every code of a verdict has an
//! entry in docs/errors.md, and no entry is without one.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, root, sources};

fn is_code(text: &str) -> bool {
    let plain = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split_once('.').is_some_and(|(area, name)| plain(area) && plain(name))
}

/// Every string literal with its position, escapes left as written.
fn literals(code: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let bytes = code.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\'' if bytes.get(i + 2) == Some(&b'\'') => i += 2,
            b'\'' if bytes.get(i + 1) == Some(&b'\\') && bytes.get(i + 3) == Some(&b'\'') => i += 3,
            b'"' => {
                let start = i + 1;
                i = start;
                while i < bytes.len() && bytes[i] != b'"' {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
                out.push((start, code.get(start..i.min(bytes.len())).unwrap_or("")));
            }
            _ => {}
        }
        i += 1;
    }
    out
}

/// Codes of one source. Where a problem is made with a code from a variable, every literal of the
/// file that reads like a code of a known area is one.
fn codes_of(s: &Source) -> (BTreeSet<String>, bool) {
    let mut found = BTreeSet::new();
    let mut variable = false;
    for (at, word) in s.code.match_indices("Problem::new(") {
        let rest = s.code[at + word.len()..].trim_start();
        match rest.strip_prefix('"') {
            Some(literal) => {
                let code = literal.split('"').next().unwrap().to_owned();
                assert!(is_code(&code), "{}:{}: \"{code}\" is no code", s.path, s.line(at));
                found.insert(code);
            }
            None => variable = true,
        }
    }
    (found, variable)
}

fn in_the_sources() -> BTreeMap<String, String> {
    let all: Vec<Source> = sources(&["src", "core/src"])
        .into_iter()
        .filter(|s| !s.path.starts_with("src/sandbox/") && s.path != "core/src/error.rs")
        .collect();
    let mut out = BTreeMap::new();
    let mut with_variable = Vec::new();
    for s in &all {
        let (codes, variable) = codes_of(s);
        out.extend(codes.into_iter().map(|c| (c, s.path.clone())));
        if variable {
            with_variable.push(s);
        }
    }
    let areas: BTreeSet<String> = out.keys().map(|c| c.split('.').next().unwrap().to_owned()).collect();
    for s in with_variable {
        for (_, text) in literals(&s.code) {
            if is_code(text) && areas.contains(text.split('.').next().unwrap()) {
                out.insert(text.to_owned(), s.path.clone());
            }
        }
    }
    out
}

/// The tables at the end of the page that are not about problems: three cells, no retry.
const FINDINGS: &str = "## Findings of `policy check`\n";
const VERDICTS: &str = "## Verdicts on a delivered commit\n";

/// Rows of the tables of problems: code, meaning, what to do, retry.
fn in_the_page() -> Vec<[String; 4]> {
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    rows(page.split_once(FINDINGS).expect("the findings stand after the problems").0)
}

/// Rows of the table under a heading: code, meaning, what helps.
fn under(heading: &str) -> Vec<[String; 3]> {
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let rest = page.split_once(heading).unwrap_or_else(|| panic!("{heading} is not there")).1;
    rows(rest.split("\n## ").next().unwrap())
}

fn rows<const N: usize>(text: &str) -> Vec<[String; N]> {
    text.lines()
        .filter(|l| l.starts_with("| `"))
        .map(|l| {
            let cells: Vec<String> = l
                .trim_matches('|')
                .replace("\\|", "\u{1}")
                .split('|')
                .map(|c| c.trim().replace('\u{1}', "|"))
                .collect();
            let mut row: [String; N] = cells.try_into().unwrap_or_else(|c| panic!("{N} cells: {c:?}"));
            row[0] = row[0].trim_matches('`').to_owned();
            row
        })
        .collect()
}

fn source(path: &str) -> Source {
    sources(&["core/src"]).into_iter().find(|s| s.path == path).unwrap_or_else(|| panic!("{path} is not there"))
}

/// Codes of the sources against the table under a heading: the same ones, each row whole, sorted and single.
fn have_rows(code: &BTreeSet<String>, heading: &str) {
    let rows = under(heading);
    let page: BTreeSet<String> = rows.iter().map(|[c, ..]| c.clone()).collect();
    let missing: Vec<&String> = code.difference(&page).collect();
    assert!(missing.is_empty(), "without a row in docs/errors.md, {heading}: {missing:?}");
    let dead: Vec<&String> = page.difference(code).collect();
    assert!(dead.is_empty(), "rows of docs/errors.md, {heading}, that nothing says any more: {dead:?}");
    for [code, meaning, helps] in &rows {
        assert!(meaning.ends_with('.') && meaning.len() > 10, "{code}: {meaning}");
        assert!(helps.ends_with('.') && helps.len() > 4, "{code}: {helps}");
    }
    assert!(rows.windows(2).all(|w| w[0][0] < w[1][0]), "{heading}: sorted, each once");
}

#[test]
fn every_finding_of_a_policy_has_a_row() {
    let check = source("core/src/policy/check.rs");
    let said: BTreeSet<String> =
        literals(&check.code).into_iter().map(|(_, t)| t.to_owned()).filter(|t| is_code(t)).collect();
    assert!(said.len() >= 20, "the scan finds too little: {said:?}");
    have_rows(&said, FINDINGS);
}

#[test]
fn every_code_of_a_verdict_has_a_row() {
    let words = source("core/src/model/verdict.rs");
    let list = words.code.split_once("codes! {\n").expect("the list of codes").1.split_once("\n}").unwrap().0;
    let said: BTreeSet<String> = literals(list).into_iter().map(|(_, t)| t.to_owned()).collect();
    assert!(said.len() >= 20, "the scan finds too little: {said:?}");
    have_rows(&said, VERDICTS);
}

#[test]
fn every_code_has_an_entry_and_every_entry_a_code() {
    let code = in_the_sources();
    let page: BTreeSet<String> = in_the_page().into_iter().map(|[c, ..]| c).collect();
    let missing: Vec<String> =
        code.iter().filter(|(c, _)| !page.contains(*c)).map(|(c, at)| format!("{c} ({at})")).collect();
    assert!(missing.is_empty(), "without entry in docs/errors.md:\n  {}", missing.join("\n  "));
    let dead: Vec<&String> = page.iter().filter(|c| !code.contains_key(*c)).collect();
    assert!(dead.is_empty(), "entries of docs/errors.md that nothing answers any more: {dead:?}");
    assert!(code.len() > 200, "the scan finds too little: {}", code.len());
}

#[test]
fn entries_are_whole_sorted_and_single() {
    let rows = in_the_page();
    for [code, meaning, next, retry] in &rows {
        assert!(is_code(code), "{code}");
        assert!(meaning.ends_with('.') && meaning.len() > 10, "{code}: {meaning}");
        assert!(next.len() > 5, "{code}: {next}");
        assert!(!meaning.contains('{') && !meaning.contains('…'), "{code}: {meaning}");
        for r in retry.split(", ") {
            assert!(matches!(r, "never" | "after fix" | "later"), "{code}: retry {r}");
        }
    }
    let codes: Vec<&String> = rows.iter().map(|[c, ..]| c).collect();
    assert!(codes.windows(2).all(|w| w[0] < w[1]), "sorted, each once");
}

/// No tool that an agent can call approves, or changes policy, people or the stop.
#[test]
fn agents_have_no_tool_that_approves() {
    let mcp = sources(&["src"]).into_iter().find(|s| s.path == "src/server/tools/mod.rs").unwrap();
    let names = mcp
        .code
        .split_once("NAMES")
        .unwrap()
        .1
        .split_once('[')
        .unwrap()
        .1
        .split_once('=')
        .unwrap()
        .1
        .split_once(']')
        .unwrap()
        .0
        .to_owned();
    let names: BTreeSet<&str> = literals(&names).into_iter().map(|(_, n)| n).collect();
    assert_eq!(names, BTreeSet::from(["cancel", "change", "changes", "inspect", "operate", "rollback"]));
}

#[test]
fn the_literal_reader_is_not_fooled() {
    let found: Vec<&str> =
        literals(r#"let q = '"'; let e = '\''; f("a\"b", "c.d"); // x"#).into_iter().map(|(_, t)| t).collect();
    assert_eq!(found, [r#"a\"b"#, "c.d"]);
}
