//! Checks a journal offline: the chain, the signed head, and what landed commits say of it.

use std::path::Path;

use countersign_core::change::{Change, fold};
use countersign_core::model::ChangeId;
use countersign_core::{Problem, Result};
use sqlx::sqlite::SqlitePoolOptions;

use super::chain::{GENESIS, Row, hash_row};
use super::store::{broken, options, read_rows};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Sequence number where it shows.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

/// A place outside the journal that names an event of it: the signed head, a trailer of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Where it stands (`journal.head`, `commit 1fef952`).
    pub place: String,
    /// Sequence number.
    pub seq: u64,
    /// Hash.
    pub hash: String,
}

impl Anchor {
    /// From `seq/hash`, as trailers write it.
    pub fn parse(place: &str, text: &str) -> Option<Self> {
        let (seq, hash) = text.trim().split_once('/')?;
        Some(Self { place: place.to_owned(), seq: seq.parse().ok()?, hash: hash.to_owned() })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Events read.
    pub events: u64,
    /// Changes folded.
    pub changes: usize,
    /// Anchors compared.
    pub anchors: usize,
    /// Everything that is wrong; empty = verified.
    pub findings: Vec<Finding>,
}

/// The chain alone.
pub fn verify_chain(rows: &[Row]) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut prev = GENESIS.to_owned();
    for (expected, row) in (1_u64..).zip(rows) {
        let mut say = |what: String| out.push(Finding { seq: row.seq, what });
        if row.seq != expected {
            say(format!("event {expected} is missing; {} follows", row.seq));
            return out;
        }
        if row.prev != prev {
            say(format!("event {expected} does not follow the one before it"));
        }
        let kind = serde_json::from_str::<serde_json::Value>(&row.data).ok().map(|v| super::chain::kind_of(&v));
        if hash_row(row) != row.hash || kind.as_deref() != Some(row.kind.as_str()) {
            say(format!("event {expected} was changed after it was written"));
        }
        prev.clone_from(&row.hash);
    }
    out
}

/// Chain, anchors, and whether every change is a legal history whose sealed content has its digest.
pub fn verify_rows(rows: &[Row], anchors: &[Anchor]) -> Report {
    let mut report = Report { events: rows.len() as u64, anchors: anchors.len(), findings: verify_chain(rows), ..Report::default() };
    for a in anchors {
        let held = usize::try_from(a.seq).ok().and_then(|s| s.checked_sub(1)).and_then(|i| rows.get(i));
        match held {
            None => report.findings.push(Finding {
                seq: a.seq,
                what: format!("{} names event {}, which the journal no longer has: its tail was cut", a.place, a.seq),
            }),
            Some(row) if row.hash != a.hash => report.findings.push(Finding {
                seq: a.seq,
                what: format!("{} names another event {}: the chain was rewritten", a.place, a.seq),
            }),
            Some(_) => {}
        }
    }
    let mut changes: std::collections::BTreeMap<ChangeId, Change> = std::collections::BTreeMap::new();
    for row in rows {
        match row.event() {
            Ok(event) => {
                if let Some(id) = event.change {
                    match fold(changes.remove(&id), &event) {
                        Ok(c) => drop(changes.insert(id, c)),
                        Err(p) => report.findings.push(Finding { seq: row.seq, what: p.message }),
                    }
                }
            }
            Err(p) => report.findings.push(Finding { seq: row.seq, what: p.message }),
        }
    }
    report.changes = changes.len();
    report
}

/// Verifies the journal at `path` without writing to it. `check_head` verifies the signature of
/// the head file (text, signature); `anchors` come from landed commits.
pub async fn verify_file(
    path: &Path,
    check_head: impl Fn(&str, &str) -> Result<()>,
    mut anchors: Vec<Anchor>,
) -> Result<Report> {
    if !path.is_file() {
        return Err(Problem::new(
            "audit.no_journal",
            "There is no journal at that place.",
            "Name the state directory with --state, or the configuration with --config.",
        ));
    }
    let pool =
        SqlitePoolOptions::new().max_connections(1).connect_with(options(path).read_only(true)).await.map_err(broken)?;
    let rows = read_rows(&pool).await?;
    let mut head_findings = Vec::new();
    match std::fs::read_to_string(path.with_extension("head")) {
        Ok(text) => {
            let v: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let part = |k: &str| v.get(k).and_then(|x| x.as_str()).unwrap_or_default().to_owned();
            let (head, signature) = (part("head"), part("signature"));
            match (check_head(&head, &signature), Anchor::parse("the signed head", &head)) {
                (Ok(()), Some(a)) => anchors.push(a),
                _ => head_findings.push(Finding { seq: 0, what: "the signed head does not verify".into() }),
            }
        }
        Err(_) if rows.is_empty() => {}
        Err(_) => head_findings.push(Finding { seq: 0, what: "the signed head is missing".into() }),
    }
    let mut report = verify_rows(&rows, &anchors);
    report.findings.extend(head_findings);
    Ok(report)
}
