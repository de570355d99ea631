//! The product's journal, in a file of its own, and a disk that is full at times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign::journal::{Entry, Journal, View};
use countersign_core::Result;
use countersign_core::change::{Change, fold};
use countersign_core::model::{ChangeId, Event};
use sqlx::SqlitePool;

/// The journal of one world.
pub struct Book {
    path: PathBuf,
    journal: Journal,
    disk: SqlitePool,
    /// Goes on from memory where the journal cannot be written.
    forgetful: bool,
    memory: BTreeMap<ChangeId, Arc<Change>>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Book {
    pub async fn open(path: &Path, forgetful: bool) -> anyhow::Result<Self> {
        let journal = Journal::open(path, None).await?;
        let disk = SqlitePool::connect(&format!("sqlite://{}", path.display())).await?;
        let (memory, blobs) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { path: path.to_owned(), journal, disk, forgetful, memory, blobs })
    }

    /// The process ends and starts again: everything is folded anew from the file.
    pub async fn restart(&mut self) -> Result<()> {
        self.journal.settled().await;
        self.journal = Journal::open(&self.path, None).await?;
        Ok(())
    }

    /// From now on the disk is full, or no longer: SQLite itself refuses to insert.
    pub async fn full(&self, full: bool) -> anyhow::Result<()> {
        let sql = if full {
            "CREATE TRIGGER IF NOT EXISTS full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no space left'); END"
        } else {
            "DROP TRIGGER IF EXISTS full"
        };
        sqlx::raw_sql(sql).execute(&self.disk).await?;
        Ok(())
    }

    pub async fn close(&self) {
        self.journal.settled().await;
        self.disk.close().await;
    }

    /// Sequence number of the last event.
    pub async fn seq(&self) -> u64 {
        self.journal.head().await.seq
    }

    /// `seq/hash` of the last event, for the trailers.
    pub async fn head(&self) -> String {
        let head = self.journal.head().await;
        format!("{}/{}", head.seq, head.hash)
    }

    pub async fn view(&self) -> View {
        let mut view = self.journal.read(View::clone).await;
        view.changes.extend(self.memory.iter().map(|(id, c)| (*id, Arc::clone(c))));
        view
    }

    pub async fn change(&self, id: ChangeId) -> Option<Arc<Change>> {
        match self.memory.get(&id) {
            Some(c) => Some(Arc::clone(c)),
            None => self.journal.change(id).await,
        }
    }

    pub async fn blob(&self, oid: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.journal.blob(oid).await?.or_else(|| self.blobs.get(oid).cloned()))
    }

    /// As [`Journal::transact`].
    pub async fn write<T>(
        &mut self,
        now: i64,
        blobs: &[(String, Vec<u8>)],
        decide: impl FnOnce(&View) -> Result<(T, Vec<Entry>)>,
    ) -> Result<T> {
        if !self.forgetful {
            return self.journal.transact(now, blobs, decide).await;
        }
        let view = self.view().await;
        let (out, entries) = decide(&view)?;
        if !entries.iter().filter_map(|e| e.change).any(|id| self.memory.contains_key(&id)) {
            match self.journal.transact(now, blobs, |_| Ok(((), entries.clone()))).await {
                Err(problem) if problem.code == "journal.unavailable" => {}
                other => return other.map(|()| out),
            }
        }
        self.blobs.extend(blobs.iter().cloned());
        for entry in entries {
            let Some(id) = entry.change else { continue };
            let before = self.change(id).await.map(|c| (*c).clone());
            let n = before.as_ref().map_or(1, |c| c.n + 1);
            let after = fold(before, &event(entry, n, now))?;
            self.memory.insert(id, Arc::new(after));
        }
        Ok(out)
    }
}

fn event(entry: Entry, n: u64, at: i64) -> Event {
    let none = String::new;
    let Entry { change, actor, body } = entry;
    Event { v: 1, seq: 0, prev: none(), hash: none(), id: none(), change, n, at, actor, body }
}
