//! The SQLite file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use countersign_core::change::Change;
use countersign_core::model::{Body, ChangeId, Event};
use countersign_core::{Problem, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::{Mutex, broadcast};

use super::chain::{GENESIS, Row, VERSION, hash_row, kind_of};
use super::view::View;

/// Signs the head of the journal; gets `seq/hash`, one or two of them, answers an armoured signature.
pub type SignHead = Arc<dyn Fn(&str) -> Result<String> + Send + Sync>;

/// Checks a signature of [`SignHead`]: the signed text, then the armoured signature.
pub type CheckHead = Arc<dyn Fn(&str, &str) -> Result<()> + Send + Sync>;

/// How long after a failed write it counts as unavailable: with nobody writing, nobody finds out that it is back.
const FAILED_FOR: std::time::Duration = std::time::Duration::from_secs(60);
/// Longest wait for the journal's word on itself.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// How the head is sealed: both sides of one key.
#[derive(Clone)]
pub struct Seal {
    /// Signs.
    pub sign: SignHead,
    /// Checks what was signed before.
    pub check: CheckHead,
}

/// The last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Sequence number; 0 for an empty journal.
    pub seq: u64,
    /// Hash.
    pub hash: String,
}

/// One event to append.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Change; `None` for events of the whole installation.
    pub change: Option<ChangeId>,
    /// Who.
    pub actor: String,
    /// What.
    pub body: Body,
}

impl Entry {
    /// An event of a change.
    pub fn of(change: ChangeId, actor: &str, body: Body) -> Self {
        Self { change: Some(change), actor: actor.to_owned(), body }
    }

    /// An event of the installation.
    pub fn global(actor: &str, body: Body) -> Self {
        Self { change: None, actor: actor.to_owned(), body }
    }
}

struct Inner {
    head: Head,
    view: View,
}

/// What a commit needs; it goes on even where its caller is gone.
struct Writer {
    pool: SqlitePool,
    news: broadcast::Sender<Option<ChangeId>>,
    head_file: std::path::PathBuf,
    sign: Option<SignHead>,
    /// When a write last failed.
    failed: std::sync::Mutex<Option<Instant>>,
}

/// The journal. One process at a time (the daemon holds the state directory's lock).
pub struct Journal {
    writer: Arc<Writer>,
    readers: SqlitePool,
    inner: Arc<Mutex<Inner>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

pub(super) fn broken(e: impl std::fmt::Display) -> Problem {
    Problem::new(
        "journal.unavailable",
        format!("The journal cannot be read or written: {e}."),
        "Look at disk space and permissions of the state directory; nothing is done until the journal can be written.",
    )
    .later()
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY,
  v INTEGER NOT NULL,
  prev TEXT NOT NULL,
  hash TEXT NOT NULL,
  id TEXT NOT NULL UNIQUE,
  change TEXT NOT NULL,
  n INTEGER NOT NULL,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  type TEXT NOT NULL,
  data TEXT NOT NULL,
  UNIQUE (change, n)
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_type ON events (type, change);
CREATE TABLE IF NOT EXISTS blobs (oid TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
";

fn row_of(r: &sqlx::sqlite::SqliteRow) -> Result<Row, sqlx::Error> {
    let int = |name: &str| -> Result<u64, sqlx::Error> {
        u64::try_from(r.try_get::<i64, _>(name)?).map_err(|e| sqlx::Error::Decode(e.into()))
    };
    Ok(Row {
        v: u32::try_from(int("v")?).map_err(|e| sqlx::Error::Decode(e.into()))?,
        seq: int("seq")?,
        prev: r.try_get("prev")?,
        hash: r.try_get("hash")?,
        id: r.try_get("id")?,
        change: r.try_get("change")?,
        n: int("n")?,
        at: r.try_get("at")?,
        actor: r.try_get("actor")?,
        kind: r.try_get("type")?,
        data: r.try_get("data")?,
    })
}

pub(super) async fn read_rows(pool: &SqlitePool) -> Result<Vec<Row>> {
    let rows = sqlx::query("SELECT * FROM events ORDER BY seq").fetch_all(pool).await.map_err(broken)?;
    rows.iter().map(row_of).collect::<Result<_, _>>().map_err(broken)
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(std::time::Duration::from_secs(5))
}

impl Journal {
    /// Opens (or makes) the journal at `path`, verifies the chain and the signed head, and folds every
    /// change. `journal.tampered`, `journal.head_mismatch`.
    ///
    /// One lag is legitimate: the head is signed before a commit, over the last event without and with
    /// it, so a process that died in between leaves a journal that lacks exactly that one commit (all
    /// of its events: SQLite commits them together). Anything else is a cut tail or another chain.
    pub async fn open(path: &Path, seal: Option<Seal>) -> Result<Self> {
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options(path).create_if_missing(true))
            .await
            .map_err(broken)?;
        sqlx::raw_sql(SCHEMA).execute(&writer).await.map_err(broken)?;
        let readers = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options(path).read_only(true));
        let rows = read_rows(&writer).await?;
        if let Some(bad) = super::verify_chain(&rows).into_iter().next() {
            writer.close().await;
            return Err(Problem::new(
                "journal.tampered",
                format!("The journal's chain is broken: {}.", bad.what),
                "Run `countersign audit verify`, then restore the journal from a copy; the daemon does not start on a changed journal.",
            )
            .never());
        }
        let head_file = path.with_extension("head");
        if let Some(seal) = &seal {
            let text = std::fs::read_to_string(&head_file).ok();
            if let Some(bad) = super::verify::head_findings(&rows, text.as_deref(), |h, s| (seal.check)(h, s)).first() {
                writer.close().await;
                return Err(Problem::new(
                    "journal.head_mismatch",
                    format!("The journal does not agree with its signed head: {}.", bad.what),
                    "Restore journal.db (with its -wal) and journal.head from one copy. Only if you know why they differ (the signing key was changed), accept the journal as it is with `countersign audit reseal`.",
                )
                .never());
            }
        }
        let mut view = View::default();
        for row in &rows {
            view.apply(&row.event()?)?;
        }
        let head = rows
            .last()
            .map_or_else(|| Head { seq: 0, hash: GENESIS.to_owned() }, |r| Head { seq: r.seq, hash: r.hash.clone() });
        let (news, _) = broadcast::channel(1024);
        let writer =
            Arc::new(Writer { pool: writer, news, head_file, sign: seal.map(|s| s.sign), failed: Default::default() });
        Ok(Self { writer, readers, inner: Arc::new(Mutex::new(Inner { head, view })) })
    }

    /// Signs the head of the journal as it is, whatever was signed before; its chain is verified. A
    /// person says so (`audit reseal`), never the daemon.
    pub async fn reseal(path: &Path, seal: Seal) -> Result<Head> {
        let journal = Self::open(path, None).await?;
        let head = journal.head().await;
        let Writer { pool, news, head_file, .. } = &*journal.writer;
        let writer = Writer {
            pool: pool.clone(),
            news: news.clone(),
            head_file: head_file.clone(),
            sign: Some(seal.sign),
            failed: Default::default(),
        };
        writer.write_head(&[&head])?;
        pool.close().await;
        Ok(head)
    }

    /// Told after every commit which change moved (`None`: something of the installation).
    pub fn subscribe(&self) -> broadcast::Receiver<Option<ChangeId>> {
        self.writer.news.subscribe()
    }

    /// The last event.
    pub async fn head(&self) -> Head {
        self.inner.lock().await.head.clone()
    }

    /// Reads the state.
    pub async fn read<T>(&self, f: impl FnOnce(&View) -> T) -> T {
        f(&self.inner.lock().await.view)
    }

    /// Whether the emergency stop is on, for a thread that may block (never an async task's).
    pub fn stop_switch(&self) -> impl Fn() -> bool + Send + 'static {
        let inner = Arc::clone(&self.inner);
        move || inner.blocking_lock().view.stopped.is_some()
    }

    /// One change.
    pub async fn change(&self, id: ChangeId) -> Option<Arc<Change>> {
        self.read(|v| v.changes.get(&id).cloned()).await
    }

    /// Decides on the current state and appends what was decided, all or nothing. `decide` runs
    /// under the writer's lock: what it saw is what its events follow. A caller that goes away
    /// meanwhile loses the answer only: events and state stay together.
    pub async fn transact<T>(
        &self,
        now: i64,
        blobs: &[(String, Vec<u8>)],
        decide: impl FnOnce(&View) -> Result<(T, Vec<Entry>)>,
    ) -> Result<T> {
        let mut inner = Arc::clone(&self.inner).lock_owned().await;
        let (out, entries) = decide(&inner.view)?;
        if entries.is_empty() {
            return Ok(out);
        }
        let mut view = inner.view.clone();
        let mut head = inner.head.clone();
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let row = seal_row(entry, &head, &view, now)?;
            view.apply(&row.event()?)?;
            head = Head { seq: row.seq, hash: row.hash.clone() };
            rows.push(row);
        }
        let (writer, blobs) = (Arc::clone(&self.writer), blobs.to_vec());
        let commit = tokio::spawn(async move {
            let committed = writer.commit(&inner.head, &head, &rows, &blobs).await;
            *writer.failed.lock().unwrap_or_else(PoisonError::into_inner) = committed.is_err().then(Instant::now);
            committed?;
            *inner = Inner { head, view };
            drop(inner);
            writer.tell(&rows);
            Ok(())
        });
        commit.await.map_err(broken)??;
        Ok(out)
    }

    /// Waits until what is being written is written. A write goes on when its caller is gone; before the state
    /// directory is given to somebody else, nothing of it may be under way: they would read the journal of before
    /// it, and the signed head of after it.
    pub async fn settled(&self) {
        drop(self.inner.lock().await);
    }

    /// Whether it can be read, and no write failed just now. `journal.unavailable`.
    pub async fn ready(&self) -> Result<()> {
        let failed = *self.writer.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some_and(|at| at.elapsed() < FAILED_FOR) {
            return Err(broken("the last write to it failed"));
        }
        let asked = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM (SELECT 1 FROM events LIMIT 1)")
            .fetch_one(&self.readers);
        match tokio::time::timeout(READY_WITHIN, asked).await {
            Ok(answer) => answer.map(|_| ()).map_err(broken),
            Err(_) => Err(broken("it does not answer")),
        }
    }

    /// Appends to one change, unconditionally.
    pub async fn append(&self, now: i64, id: ChangeId, actor: &str, bodies: Vec<Body>) -> Result<()> {
        self.transact(now, &[], |_| Ok(((), bodies.into_iter().map(|b| Entry::of(id, actor, b)).collect()))).await
    }

    /// Events of one change, oldest first.
    pub async fn story(&self, id: ChangeId) -> Result<Vec<Event>> {
        let rows = sqlx::query("SELECT * FROM events WHERE change = $1 ORDER BY n")
            .bind(id.to_string())
            .fetch_all(&self.readers)
            .await
            .map_err(broken)?;
        rows.iter().map(|r| row_of(r).map_err(broken)?.event()).collect()
    }

    /// Events of the whole journal from a sequence number on, oldest first.
    pub async fn events_from(&self, seq: u64, limit: usize) -> Result<Vec<Event>> {
        let rows = sqlx::query("SELECT * FROM events WHERE seq >= $1 ORDER BY seq LIMIT $2")
            .bind(i64::try_from(seq).map_err(broken)?)
            .bind(i64::try_from(limit).map_err(broken)?)
            .fetch_all(&self.readers)
            .await
            .map_err(broken)?;
        rows.iter().map(|r| row_of(r).map_err(broken)?.event()).collect()
    }

    /// Stored content.
    pub async fn blob(&self, oid: &str) -> Result<Option<Vec<u8>>> {
        sqlx::query_scalar("SELECT bytes FROM blobs WHERE oid = $1")
            .bind(oid)
            .fetch_optional(&self.readers)
            .await
            .map_err(broken)
    }
}

impl Writer {
    async fn commit(&self, from: &Head, to: &Head, rows: &[Row], blobs: &[(String, Vec<u8>)]) -> Result<()> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(broken)?;
        for (oid, bytes) in blobs {
            sqlx::query("INSERT OR IGNORE INTO blobs (oid, bytes) VALUES ($1, $2)")
                .bind(oid)
                .bind(bytes)
                .execute(&mut *tx)
                .await
                .map_err(broken)?;
        }
        for row in rows {
            insert(&mut tx, row).await?;
        }
        self.write_head(&[from, to])?;
        tx.commit().await.map_err(broken)?;
        if let Err(problem) = self.write_head(&[to]) {
            // The one before covers this commit too; only a cut of just this commit would not show.
            tracing::warn!(code = %problem.code, "the journal's head could not be signed");
        }
        Ok(())
    }

    fn tell(&self, rows: &[Row]) {
        let moved: BTreeSet<Option<ChangeId>> =
            rows.iter().map(|r| if r.change.is_empty() { None } else { r.change.parse().ok() }).collect();
        for id in moved {
            // Nobody listening is fine: the state is in the journal, news only wake.
            let _ = self.news.send(id);
        }
    }

    /// The signed head lies beside the journal: a cut tail, an added one or a rewritten chain no
    /// longer agrees with it. Around a commit it names the last event without and with it, so
    /// that it fits whenever the process dies; after it, the last event alone.
    fn write_head(&self, heads: &[&Head]) -> Result<()> {
        use std::io::Write as _;
        let Some(sign) = &self.sign else { return Ok(()) };
        let line = heads.iter().map(|h| format!("{}/{}", h.seq, h.hash)).collect::<Vec<_>>().join(" ");
        let signature = sign(&line)?;
        let text = serde_json::json!({"head": line, "signature": signature}).to_string();
        let tmp = self.head_file.with_extension("head.new");
        let mut file = std::fs::File::create(&tmp).map_err(broken)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(broken)?;
        std::fs::rename(&tmp, &self.head_file).map_err(broken)?;
        // The new name must be on disk before the commit is: a head that came back older after a
        // loss of power would look like an added tail.
        match (heads, self.head_file.parent()) {
            ([_, _], Some(dir)) => std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(broken),
            _ => Ok(()),
        }
    }
}

fn seal_row(entry: Entry, head: &Head, view: &View, now: i64) -> Result<Row> {
    let n = match entry.change {
        Some(id) => view.changes.get(&id).map_or(1, |c| c.n + 1),
        None => view.global_n + 1,
    };
    let value = serde_json::to_value(&entry.body).map_err(broken)?;
    let mut row = Row {
        v: VERSION,
        seq: head.seq + 1,
        prev: head.hash.clone(),
        hash: String::new(),
        id: ulid::Ulid::generate().to_string(),
        change: entry.change.map(|c| c.to_string()).unwrap_or_default(),
        n,
        at: now,
        actor: entry.actor,
        kind: kind_of(&value),
        data: value.to_string(),
    };
    row.hash = hash_row(&row);
    Ok(row)
}

async fn insert(tx: &mut SqliteConnection, row: &Row) -> Result<()> {
    let int = |u: u64| i64::try_from(u).map_err(broken);
    sqlx::query(
        "INSERT INTO events (seq, v, prev, hash, id, change, n, at, actor, type, data)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(int(row.seq)?)
    .bind(i64::from(row.v))
    .bind(&row.prev)
    .bind(&row.hash)
    .bind(&row.id)
    .bind(&row.change)
    .bind(int(row.n)?)
    .bind(row.at)
    .bind(&row.actor)
    .bind(&row.kind)
    .bind(&row.data)
    .execute(tx)
    .await
    .map_err(broken)?;
    Ok(())
}
