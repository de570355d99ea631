//! Whoever changes the file is found.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::given::*;
use crate::git::NAMESPACE_CHECKPOINT;
use crate::journal::{Anchor, Entry, GENESIS, Journal, Row, hash_row};
use countersign_core::Retry;
use countersign_core::model::{Body, Code, Verdict};

const COLUMNS: [&str; 11] = ["seq", "v", "prev", "hash", "id", "change", "n", "at", "actor", "type", "data"];

async fn connect(home: &Home) -> SqliteConnection {
    SqliteConnection::connect_with(&sqlx::sqlite::SqliteConnectOptions::new().filename(home.path())).await.unwrap()
}

pub async fn rows(home: &Home) -> Vec<Row> {
    let pool = sqlx::SqlitePool::connect_with(crate::journal::store::options(&home.path())).await.unwrap();
    let rows = crate::journal::store::read_rows(&pool).await.unwrap();
    pool.close().await;
    rows
}

/// Rewrites every `prev` and `hash`, as somebody would who knows how they are made.
pub async fn rechain(home: &Home) {
    let rows = rows(home).await;
    let mut db = connect(home).await;
    let mut tx = db.begin().await.unwrap();
    let mut prev = GENESIS.to_owned();
    for (seq, mut row) in (1_u64..).zip(rows) {
        let was = row.seq;
        row.seq = seq;
        row.prev = prev;
        row.hash = hash_row(&row);
        sqlx::query("UPDATE events SET seq = $1, prev = $2, hash = $3 WHERE seq = $4")
            .bind(i64::try_from(seq).unwrap())
            .bind(&row.prev)
            .bind(&row.hash)
            .bind(i64::try_from(was).unwrap())
            .execute(&mut *tx)
            .await
            .unwrap();
        prev = row.hash;
    }
    tx.commit().await.unwrap();
    db.close().await.unwrap();
}

/// One change of the file; `None` where SQLite itself would not have it.
async fn mutate(db: &mut SqliteConnection, rng: &mut StdRng, last: i64) -> Option<String> {
    let seq = rng.random_range(1..=last);
    let run = |sql: String| AssertSqlSafe(sql);
    match rng.random_range(0..8) {
        0..=2 => {
            let column = COLUMNS.choose(rng).unwrap();
            if matches!(*column, "seq" | "v" | "n" | "at") {
                let bit = 1_i64 << rng.random_range(0..40);
                let sql =
                    format!("UPDATE events SET {column} = ({column} | {bit}) - ({column} & {bit}) WHERE seq = {seq}");
                return sqlx::query(run(sql)).execute(db).await.ok().map(|_| format!("bit of {column} of {seq}"));
            }
            let bytes: Vec<u8> =
                sqlx::query_scalar(run(format!("SELECT CAST({column} AS BLOB) FROM events WHERE seq = {seq}")))
                    .fetch_one(&mut *db)
                    .await
                    .unwrap();
            if bytes.is_empty() {
                return None;
            }
            let mut changed = bytes.clone();
            let at = rng.random_range(0..changed.len());
            changed[at] ^= 1 << rng.random_range(0..8);
            let sql = format!("UPDATE events SET {column} = CAST($1 AS TEXT) WHERE seq = {seq}");
            sqlx::query(run(sql))
                .bind(changed)
                .execute(db)
                .await
                .ok()
                .map(|_| format!("byte {at} of {column} of {seq}"))
        }
        3 => {
            sqlx::query(run(format!("DELETE FROM events WHERE seq = {seq}"))).execute(&mut *db).await.unwrap();
            Some(format!("deleted {seq}"))
        }
        4 => {
            // A copy of an event, put in between with everything after it moved up.
            let columns = "v, prev, hash, id || 'X', change, n + 1000, at, actor, type, data";
            let other = rng.random_range(1..=last);
            sqlx::raw_sql(run(format!(
                "UPDATE events SET seq = -seq - 1 WHERE seq > {seq}; UPDATE events SET seq = -seq WHERE seq < 0;
                 INSERT INTO events SELECT {}, {columns} FROM events WHERE seq = {}",
                seq + 1,
                if other > seq { other + 1 } else { other }
            )))
            .execute(&mut *db)
            .await
            .unwrap();
            Some(format!("inserted after {seq}"))
        }
        5 => {
            let other = rng.random_range(1..=last);
            if other == seq {
                return None;
            }
            sqlx::raw_sql(run(format!(
                "UPDATE events SET seq = 0 WHERE seq = {seq}; UPDATE events SET seq = {seq} WHERE seq = {other}; UPDATE events SET seq = {other} WHERE seq = 0"
            )))
            .execute(&mut *db)
            .await
            .unwrap();
            Some(format!("swapped {seq} and {other}"))
        }
        6 => {
            sqlx::query(run(format!("DELETE FROM events WHERE seq >= {seq}"))).execute(&mut *db).await.unwrap();
            Some(format!("cut from {seq}"))
        }
        _ => {
            let bit = 1 << rng.random_range(0..8);
            let mut bytes = CONTENT.to_vec();
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= bit;
            let gone = rng.random_bool(0.3);
            let sql = if gone { "DELETE FROM blobs WHERE $1 IS NOT NULL" } else { "UPDATE blobs SET bytes = $1" };
            sqlx::query(sql).bind(bytes).execute(db).await.unwrap();
            Some(if gone { "content deleted".into() } else { format!("content, byte {at}") })
        }
    }
}

/// The files of a journal at rest.
async fn at_rest(home: &Home) -> (Vec<u8>, Vec<u8>) {
    home.sql("PRAGMA wal_checkpoint(TRUNCATE)").await;
    (std::fs::read(home.path()).unwrap(), std::fs::read(home.dir.path().join("journal.head")).unwrap())
}

fn restore(home: &Home, files: &(Vec<u8>, Vec<u8>)) {
    for tail in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(home.dir.path().join(format!("journal.{tail}")));
    }
    std::fs::write(home.path(), &files.0).unwrap();
    std::fs::write(home.dir.path().join("journal.head"), &files.1).unwrap();
}

#[tokio::test]
async fn each_of_a_thousand_mutations_is_found() {
    let home = Home::new();
    let journal = home.open().await;
    history(&journal).await;
    let last = i64::try_from(journal.head().await.seq).unwrap();
    drop(journal);
    assert_eq!(home.findings().await, "", "the plain journal verifies");
    // Each in a transaction that is taken back: what is verified is the file as changed.
    let options = crate::journal::store::options(&home.path());
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let head_file = home.dir.path().join("journal.head");
    let mut rng = StdRng::seed_from_u64(0x000c_0417);
    let mut done = 0;
    while done < 1000 {
        sqlx::raw_sql("BEGIN").execute(&pool).await.unwrap();
        let what = mutate(&mut pool.acquire().await.unwrap(), &mut rng, last).await;
        if let Some(what) = what {
            done += 1;
            match crate::journal::verify::verify_pool(&pool, &head_file, home.checker(), Vec::new()).await {
                Ok(report) => assert!(!report.findings.is_empty(), "number {done}: {what} was not found"),
                // Text that is no text any more, a number that is none: it cannot even be read.
                Err(problem) => assert_eq!(problem.code, "journal.unavailable", "{what}"),
            }
        }
        sqlx::raw_sql("ROLLBACK").execute(&pool).await.unwrap();
    }
    pool.close().await;
    assert_eq!(home.findings().await, "", "and so it does afterwards");
}

#[tokio::test]
async fn a_consistently_rewritten_chain_is_found_by_the_head_and_by_the_commits() {
    let home = Home::new();
    let journal = home.open().await;
    let anchors = history(&journal).await;
    let end = journal.head().await.seq;
    drop(journal);
    let files = at_rest(&home).await;
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..40 {
        restore(&home, &files);
        let seq = rng.random_range(1..=end);
        home.sql(&format!("UPDATE events SET at = at + 1 WHERE seq = {seq}")).await;
        rechain(&home).await;
        let found = home.findings().await;
        assert!(found.contains("the signed head names another event") && found.contains("rewritten"), "{seq}: {found}");
        // With a head that they forged as well, the commits still tell.
        std::fs::write(home.dir.path().join("journal.head"), forged(&home, &home.signer).await).unwrap();
        let report = home.verify(anchors.clone()).await.unwrap();
        let told: Vec<&Anchor> = anchors.iter().filter(|a| a.seq >= seq).collect();
        assert_eq!(
            report.findings.iter().filter(|f| f.what.contains("commit of")).count(),
            told.len(),
            "{seq}: {:?}",
            report.findings
        );
        assert_eq!(report.anchors, anchors.len() + 1);
        if told.is_empty() {
            assert!(report.findings.is_empty(), "nothing outside names what was changed, and they hold the key");
        }
    }
}

/// A head for what the journal now holds.
pub async fn forged(home: &Home, key: &crate::git::SshSigner) -> String {
    let row = rows(home).await.pop().unwrap();
    let line = format!("{}/{}", row.seq, row.hash);
    let signature = key.sign(NAMESPACE_CHECKPOINT, line.as_bytes()).unwrap();
    serde_json::json!({"head": line, "signature": signature}).to_string()
}

#[tokio::test]
async fn a_cut_tail_is_found_by_the_head_and_by_the_commits() {
    let home = Home::new();
    let journal = home.open().await;
    let anchors = history(&journal).await;
    let end = journal.head().await.seq;
    drop(journal);
    let files = at_rest(&home).await;
    for cut in [1, 2, 9, end - 1, end] {
        restore(&home, &files);
        home.sql(&format!("DELETE FROM events WHERE seq > {}", end - cut)).await;
        assert!(home.findings().await.contains("tail was cut"), "{cut} events");
        let problem = home.refused().await;
        assert_eq!((problem.code.as_ref(), problem.retry), ("journal.head_mismatch", Retry::Never), "{cut} events");
        std::fs::remove_file(home.dir.path().join("journal.head")).unwrap();
        let report = home.verify(anchors.clone()).await.unwrap();
        let lost = anchors.iter().filter(|a| a.seq > end - cut).count();
        assert_eq!(
            report
                .findings
                .iter()
                .filter(|f| f.what.starts_with("commit of") && f.what.contains("tail was cut"))
                .count(),
            lost
        );
        if cut < end {
            assert!(report.findings.iter().any(|f| f.what.contains("head is missing")));
            assert!(home.refused().await.message.contains("head is missing"));
        }
    }
}

/// A vote that nobody cast, written into the file with a good chain.
#[tokio::test]
async fn an_event_added_at_the_end_is_found() {
    let home = Home::new();
    let id = change(0);
    let journal = home.open().await;
    let digest = digest_in(&proposed(id));
    propose(&journal, id).await;
    drop(journal);
    assert_eq!(home.findings().await, "");
    let head = std::fs::read(home.dir.path().join("journal.head")).unwrap();
    let stranger = crate::journal::Journal::open(&home.path(), None).await.unwrap();
    let vote = Body::Voted {
        person: "ann".into(),
        channel: "telegram".into(),
        approve: true,
        reason: None,
        digest,
        proof: None,
    };
    stranger.append(T0, id, "person:ann", vec![vote]).await.unwrap();
    drop(stranger);
    assert_eq!(std::fs::read(home.dir.path().join("journal.head")).unwrap(), head);
    assert!(home.findings().await.contains("does not cover"));
    assert!(home.refused().await.message.contains("does not cover"));
    let sealed = Journal::reseal(&home.path(), home.seal()).await.unwrap();
    assert_eq!(home.open().await.head().await, sealed, "a person took it as it is");
    assert_eq!(home.findings().await, "");
    let home = Home { signer: signer(8), ..home };
    assert!(home.refused().await.message.contains("does not verify"), "another key signs nothing for this one");
    std::fs::write(home.dir.path().join("journal.head"), forged(&home, &signer(1)).await).unwrap();
    assert!(home.findings().await.contains("does not verify"), "a head signed with another key");
}

#[tokio::test]
async fn a_process_killed_around_the_commit_leaves_a_journal_that_verifies() {
    let home = Home::new();
    let journal = home.open().await;
    history(&journal).await;
    let before = at_rest(&home).await;
    let from = journal.head().await;
    journal.append(T0, change(0), "x", vec![observed()]).await.unwrap();
    let to = journal.head().await;
    drop(journal);
    let after = at_rest(&home).await;
    let line = format!("{}/{} {}/{}", from.seq, from.hash, to.seq, to.hash);
    let signature = home.signer.sign(NAMESPACE_CHECKPOINT, line.as_bytes()).unwrap();
    let during = serde_json::json!({"head": line, "signature": signature}).to_string().into_bytes();
    for (db, what) in [(&before.0, "killed before the commit"), (&after.0, "killed after the commit")] {
        // A place of its own: the connections of a journal that was open close a moment later.
        let home = Home { signer: home.signer.clone(), ..Home::new() };
        restore(&home, &(db.clone(), during.clone()));
        assert_eq!(home.findings().await, "", "{what}");
        let again = home.open().await;
        again.append(T0, change(0), "x", vec![observed()]).await.unwrap();
        drop(again);
        assert_eq!(home.findings().await, "", "{what}, and gone on");
    }
    restore(&home, &(before.0, during));
    home.sql(&format!("DELETE FROM events WHERE seq >= {}", from.seq)).await;
    assert!(home.findings().await.contains("tail was cut"), "one event more is gone");
    assert_eq!(home.refused().await.code, "journal.head_mismatch");
}

fn observed() -> Body {
    Body::Observed { verdict: Verdict::Healthy, code: Code::Healthy, say: "y".into() }
}

#[tokio::test]
async fn verifying_reads_while_the_daemon_writes() {
    let home = Home::new();
    let journal = std::sync::Arc::new(home.open().await);
    history(&journal).await;
    let writer = {
        let journal = std::sync::Arc::clone(&journal);
        tokio::spawn(async move {
            for offset in 0..200 {
                let entry = Entry::global("x", Body::Polled { channel: "c".into(), offset });
                journal.transact(T0, &[], |_| Ok(((), vec![entry]))).await.unwrap();
            }
        })
    };
    let mut looks = 0;
    while !writer.is_finished() {
        assert_eq!(home.findings().await, "");
        looks += 1;
    }
    writer.await.unwrap();
    assert!(looks > 0);
}

#[tokio::test]
async fn no_journal_is_no_verified_journal() {
    let home = Home::new();
    assert_eq!(home.verify(Vec::new()).await.unwrap_err().code, "audit.no_journal");
}

#[test]
fn anchors_are_read_as_trailers_write_them() {
    let a = Anchor::parse("commit 1", " 12/abc ").unwrap();
    assert_eq!((a.place.as_str(), a.seq, a.hash.as_str()), ("commit 1", 12, "abc"));
    for bad in ["", "12", "x/abc", "-1/abc"] {
        assert!(Anchor::parse("p", bad).is_none(), "{bad}");
    }
}
