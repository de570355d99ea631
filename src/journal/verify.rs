//! Checks a journal offline: the chain, the signed head, and what landed commits say of it.

use std::collections::BTreeMap;
use std::path::Path;

use countersign_core::change::{Change, fold};
use countersign_core::model::{Body, ChangeId, Event, Sealed, SealedFile, hex};
use countersign_core::{Problem, Result};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

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

    /// What is wrong where the journal does not hold this event.
    fn finding(&self, rows: &[Row]) -> Option<Finding> {
        let held = usize::try_from(self.seq).ok().and_then(|s| s.checked_sub(1)).and_then(|i| rows.get(i));
        let what = match held {
            Some(row) if row.hash == self.hash => return None,
            Some(_) => format!("{} names another event {}: the chain was rewritten", self.place, self.seq),
            None => {
                format!("{} names event {}, which the journal no longer has: its tail was cut", self.place, self.seq)
            }
        };
        Some(Finding { seq: self.seq, what })
    }
}

/// A commit that the journal says landed, with the files that were sealed: to be compared in Git, which the journal
/// does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// Sequence number of the event.
    pub seq: u64,
    /// Change.
    pub change: ChangeId,
    /// Name of the Repository.
    pub repository: String,
    /// Full ref that it should be on.
    pub git_ref: String,
    /// Commit.
    pub commit: String,
    /// Files.
    pub files: Vec<SealedFile>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Events read.
    pub events: u64,
    /// Changes folded.
    pub changes: usize,
    /// Anchors compared, the signed head included.
    pub anchors: usize,
    /// Whether there was a signed head among them.
    pub head: bool,
    /// Every commit that the journal says landed.
    pub landings: Vec<Landing>,
    /// Of these, whose content is what was sealed. The rest is in `findings` or in `not_seen`.
    pub as_sealed: usize,
    /// Landed commits that could not be looked at, and why: neither verified nor wrong.
    pub not_seen: Vec<Finding>,
    /// Everything that is wrong; empty = verified, but for what was not seen.
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
    let mut report =
        Report { events: rows.len() as u64, anchors: anchors.len(), findings: verify_chain(rows), ..Report::default() };
    report.findings.extend(anchors.iter().filter_map(|a| a.finding(rows)));
    let mut changes: BTreeMap<ChangeId, Change> = BTreeMap::new();
    for row in rows {
        match row.event() {
            Ok(event) => {
                if let Some(id) = event.change {
                    match fold(changes.remove(&id), &event) {
                        Ok(c) => {
                            report.landings.extend(landing(row.seq, &event, &c));
                            changes.insert(id, c);
                        }
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

fn landing(seq: u64, event: &Event, change: &Change) -> Option<Landing> {
    let Body::Landed { commit, .. } = &event.body else { return None };
    Some(Landing {
        seq,
        change: change.id,
        repository: change.sealed.repository.clone(),
        git_ref: change.sealed.git_ref.clone(),
        commit: commit.clone(),
        files: change.sealed.files.clone(),
    })
}

/// The journal at `path`, to read in.
async fn open_to_read(path: &Path) -> Result<SqlitePool> {
    if !path.is_file() {
        return Err(Problem::new(
            "audit.no_journal",
            "There is no journal at that place.",
            "Name the configuration with --config; the journal lies in its state_dir once the daemon has run.",
        ));
    }
    SqlitePoolOptions::new().max_connections(1).connect_with(options(path).read_only(true)).await.map_err(broken)
}

/// Every event of the journal at `path`, oldest first, without writing to it. The daemon may be running.
///
/// # Errors
/// `audit.no_journal`, `journal.unavailable`.
pub async fn read_events(path: &Path) -> Result<Vec<Event>> {
    let pool = open_to_read(path).await?;
    let rows = read_rows(&pool).await;
    pool.close().await;
    rows?.iter().map(Row::event).collect()
}

/// Verifies the journal at `path` without writing to it. `check_head` verifies the signature of
/// the head file (text, signature); `anchors` come from landed commits.
pub async fn verify_file(
    path: &Path,
    check_head: impl Fn(&str, &str) -> Result<()>,
    anchors: Vec<Anchor>,
) -> Result<Report> {
    let pool = open_to_read(path).await?;
    let report = verify_pool(&pool, &path.with_extension("head"), check_head, anchors).await;
    pool.close().await;
    report
}

pub(super) async fn verify_pool(
    pool: &SqlitePool,
    head_file: &Path,
    check_head: impl Fn(&str, &str) -> Result<()>,
    anchors: Vec<Anchor>,
) -> Result<Report> {
    let (rows, head) = read_together(pool, head_file).await?;
    let mut report = verify_rows(&rows, &anchors);
    report.head = head.is_some();
    report.anchors += usize::from(report.head);
    report.findings.extend(head_findings(&rows, head.as_deref(), check_head));
    report.findings.extend(check_blobs(pool, &rows).await?);
    Ok(report)
}

/// What the signed head (the head file's text) says against the journal. The one lag that it allows:
/// a process that died between head and commit leaves the journal as it was without that commit.
pub(super) fn head_findings(
    rows: &[Row],
    head: Option<&str>,
    check_head: impl Fn(&str, &str) -> Result<()>,
) -> Vec<Finding> {
    let end = rows.last().map_or(0, |r| r.seq);
    let say = |what: &str| vec![Finding { seq: end, what: what.to_owned() }];
    match head.map(|text| signed_head(text, check_head)) {
        Some(Some((_, with))) if end > with.seq => {
            say("events follow that the signed head does not cover: somebody else wrote them")
        }
        Some(Some((without, with))) => {
            let due = if end == without.seq { without } else { with };
            if due.seq == 0 { Vec::new() } else { due.finding(rows).into_iter().collect() }
        }
        Some(None) => say("the signed head does not verify"),
        None if rows.is_empty() => Vec::new(),
        None => say("the signed head is missing"),
    }
}

/// Rows and head of one moment, also while the daemon writes: the head stood still meanwhile.
async fn read_together(pool: &SqlitePool, head_file: &Path) -> Result<(Vec<Row>, Option<String>)> {
    let mut before = std::fs::read_to_string(head_file).ok();
    loop {
        let rows = read_rows(pool).await?;
        let after = std::fs::read_to_string(head_file).ok();
        if before == after {
            return Ok((rows, after));
        }
        before = after;
    }
}

/// The last event without and with a commit that is just being made (the same event where none
/// is), where the signature is good.
fn signed_head(text: &str, check: impl Fn(&str, &str) -> Result<()>) -> Option<(Anchor, Anchor)> {
    let v: serde_json::Value = serde_json::from_str(text).ok()?;
    let head = v.get("head")?.as_str()?;
    check(head, v.get("signature")?.as_str()?).ok()?;
    let (without, with) = head.split_once(' ').unwrap_or((head, head));
    Some((Anchor::parse("the signed head", without)?, Anchor::parse("the signed head", with)?))
}

/// The stored content: every blob has its id, and every file that was ever sealed is there.
async fn check_blobs(pool: &SqlitePool, rows: &[Row]) -> Result<Vec<Finding>> {
    use futures::TryStreamExt as _;
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.kind == "proposed") {
        if let Ok(Body::Proposed { sealed, .. }) = row.event().map(|e| e.body)
            && let Ok(sealed) = serde_json::from_str::<Sealed>(&sealed)
        {
            wanted.extend(sealed.files.into_iter().filter_map(|f| f.after).map(|oid| (oid, row.seq)));
        }
    }
    let mut out = Vec::new();
    let mut stored = sqlx::query_as::<_, (String, Vec<u8>)>("SELECT oid, bytes FROM blobs").fetch(pool);
    while let Some((oid, bytes)) = stored.try_next().await.map_err(broken)? {
        let seq = wanted.remove(&oid).unwrap_or(0);
        if blob_id(&bytes) != oid {
            out.push(Finding { seq, what: format!("the stored content {oid} was changed after it was written") });
        }
    }
    out.extend(
        wanted.into_iter().map(|(oid, seq)| Finding { seq, what: format!("the stored content {oid} is missing") }),
    );
    Ok(out)
}

/// Git's name of these bytes (git: Documentation/gitformat-loose.txt).
fn blob_id(bytes: &[u8]) -> String {
    use sha1::Digest as _;
    let mut h = sha1::Sha1::new();
    h.update(format!("blob {}\0", bytes.len()));
    h.update(bytes);
    hex(&h.finalize())
}
