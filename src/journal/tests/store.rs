use std::sync::Arc;

use countersign_core::Retry;
use countersign_core::change::State;
use countersign_core::model::{Body, Code, Ending, Verdict};

use super::given::*;
use crate::git::blob_id;
use crate::journal::{Entry, GENESIS, Head, Journal, Seal, hash_row, verify_chain};

#[tokio::test]
async fn an_empty_journal_begins_at_genesis_and_verifies() {
    let home = Home::new();
    let journal = home.open().await;
    assert_eq!(journal.head().await, Head { seq: 0, hash: GENESIS.into() });
    assert_eq!(home.findings().await, "");
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_says_so_until_it_was_written_again() {
    let home = Home::new();
    let journal = home.open().await;
    journal.ready().await.unwrap();
    // In the way of the signed head.
    let in_the_way = home.path().with_extension("head.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let stop = || Entry::global("person:anna", Body::Stopped { reason: "x".into() });
    let refused = journal.transact(T0, &[], |_| Ok(((), vec![stop()]))).await.unwrap_err();
    assert_eq!(refused.code, "journal.unavailable");
    assert_eq!(journal.ready().await.unwrap_err().code, "journal.unavailable");
    std::fs::remove_dir(&in_the_way).unwrap();
    journal.transact(T0, &[], |_| Ok(((), vec![stop()]))).await.unwrap();
    journal.ready().await.unwrap();
}

#[tokio::test]
async fn reopening_gives_the_same_fold() {
    let home = Home::new();
    let journal = home.open().await;
    history(&journal).await;
    let (head, before) = (journal.head().await, journal.read(Clone::clone).await);
    drop(journal);
    let again = home.open().await;
    assert_eq!(again.head().await, head);
    let after = again.read(Clone::clone).await;
    assert_eq!(after.changes, before.changes);
    assert_eq!(
        (after.stopped.clone(), after.offsets.clone(), after.stop_seq()),
        (before.stopped.clone(), before.offsets.clone(), before.stop_seq())
    );
    assert_eq!(after.changes.len(), 3);
    assert!(after.changes.values().all(|c| c.state() == State::Ended(Ending::Healthy)));
    assert_eq!(after.offsets["telegram"], 9);
    again
        .append(
            T0,
            change(0),
            "countersign",
            vec![Body::Observed { verdict: Verdict::Healthy, code: Code::Healthy, say: "y".into() }],
        )
        .await
        .unwrap();
    assert_eq!(again.head().await.seq, head.seq + 1);
    assert_eq!(home.findings().await, "");
}

/// A daemon that ends drops its workers in the middle of what they do; the next one must find journal and head agreed.
#[tokio::test]
async fn a_write_whose_caller_is_gone_is_over_once_the_journal_has_settled() {
    use futures::FutureExt as _;
    let home = Home::new();
    let journal = home.open().await;
    history(&journal).await;
    let seen = || vec![Body::Observed { verdict: Verdict::Healthy, code: Code::Healthy, say: "y".into() }];
    for _ in 0..5 {
        let before = journal.head().await.seq;
        // Begun, and left alone.
        assert!(journal.append(T0, change(0), "countersign", seen()).now_or_never().is_none());
        journal.settled().await;
        assert_eq!(home.findings().await, "");
        assert_eq!(journal.story(change(0)).await.unwrap().last().unwrap().seq, before + 1);
    }
    drop(journal);
    home.open().await;
}

#[tokio::test]
async fn a_story_is_told_in_order_and_only_of_its_change() {
    let home = Home::new();
    let journal = home.open().await;
    history(&journal).await;
    let story = journal.story(change(1)).await.unwrap();
    assert_eq!(story.iter().map(|e| e.n).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert!(story.iter().all(|e| e.change == Some(change(1))));
    assert!(story.windows(2).all(|w| w[0].seq < w[1].seq));
    assert_eq!(story.iter().map(|e| e.body.clone()).collect::<Vec<_>>(), life(change(1)));
    assert!(journal.story(change(9)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_stop_is_part_of_the_state_and_survives() {
    let home = Home::new();
    let journal = home.open().await;
    journal
        .transact(T0, &[], |_| Ok(((), vec![Entry::global("person:ann", Body::Stopped { reason: "odd".into() })])))
        .await
        .unwrap();
    drop(journal);
    let journal = home.open().await;
    assert_eq!(journal.read(|v| v.stopped.clone()).await, Some(("person:ann".into(), "odd".into())));
    assert_eq!(journal.read(|v| v.stop_seq()).await, 1);
    journal
        .transact(T0, &[], |_| Ok(((), vec![Entry::global("person:bob", Body::Resumed { reason: "ok".into() })])))
        .await
        .unwrap();
    drop(journal);
    assert_eq!(home.open().await.read(|v| v.stopped.clone()).await, None);
}

#[tokio::test]
async fn a_refused_decision_writes_nothing_not_even_its_content() {
    let home = Home::new();
    let journal = home.open().await;
    let blobs = [(blob_id(CONTENT), CONTENT.to_vec())];
    let refused = journal
        .transact::<()>(T0, &blobs, |_| Err(countersign_core::Problem::new("test.no", "No.", "Stop.")))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "test.no");
    // The second event is illegal: the first one must not stay either.
    let id = change(0);
    let half = journal
        .transact(T0, &blobs, |_| Ok(((), vec![Entry::of(id, "a", proposed(id)), Entry::of(id, "a", proposed(id))])))
        .await;
    assert_eq!(half.unwrap_err().code, "journal.illegal_event");
    assert_eq!(journal.head().await.seq, 0);
    assert!(journal.change(id).await.is_none());
    assert_eq!(journal.blob(&blobs[0].0).await.unwrap(), None);
    journal.transact(T0, &blobs, |_| Ok(((), Vec::new()))).await.unwrap();
    assert_eq!(journal.blob(&blobs[0].0).await.unwrap(), None, "no event, no content");
    journal.transact(T0, &blobs, |_| Ok(((), vec![Entry::of(id, "a", proposed(id))]))).await.unwrap();
    assert_eq!(journal.blob(&blobs[0].0).await.unwrap().as_deref(), Some(CONTENT));
    assert_eq!(journal.head().await.seq, 1);
}

#[tokio::test]
async fn an_event_that_does_not_follow_is_refused() {
    let home = Home::new();
    let journal = home.open().await;
    let id = change(0);
    assert_eq!(journal.append(T0, id, "a", vec![closed()]).await.unwrap_err().code, "journal.illegal_event");
    journal.append(T0, id, "a", vec![proposed(id), closed()]).await.unwrap();
    assert_eq!(journal.append(T0, id, "a", vec![closed()]).await.unwrap_err().code, "journal.illegal_event");
    assert_eq!(journal.change(id).await.unwrap().n, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_decisions_are_made_one_after_the_other() {
    let home = Home::new();
    let journal = Arc::new(home.open().await);
    let id = change(0);
    propose(&journal, id).await;
    // Everybody decides on what he sees; only the one who sees nobody before him closes.
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                journal
                    .transact(T0, &[], |view| {
                        if view.changes[&id].end.is_some() {
                            return Ok((
                                false,
                                vec![Entry::global("x", Body::Polled { channel: "c".into(), offset: i })],
                            ));
                        }
                        Ok((true, vec![Entry::of(id, "x", closed())]))
                    })
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        winners += usize::from(task.await.unwrap());
    }
    assert_eq!(winners, 1);
    assert_eq!(journal.head().await.seq, 41);
    assert_eq!(home.findings().await, "");
}

#[tokio::test]
async fn two_writers_cannot_both_take_the_next_place() {
    let home = Home::new();
    let (one, two) = (home.open().await, home.open().await);
    let id = change(0);
    one.append(T0, id, "one", vec![proposed(id)]).await.unwrap();
    let lost = two.append(T0, id, "two", vec![proposed(id)]).await.unwrap_err();
    assert_eq!(lost.code, "journal.unavailable");
    assert_eq!(one.story(id).await.unwrap().len(), 1);
    assert!(two.change(id).await.is_none(), "what was not written is not believed");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_events_and_state_together() {
    let home = Home::new();
    let journal = Arc::new(home.open().await);
    for i in 0..60_u32 {
        let entry = Entry::global("x", Body::Polled { channel: "c".into(), offset: i64::from(i) });
        let call = journal.transact(T0, &[], |_| Ok(((), vec![entry])));
        tokio::pin!(call);
        // Dropped after some polls, in the middle of whatever it was doing.
        for _ in 0..(i % 6) {
            if futures::poll!(&mut call).is_ready() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_micros(u64::from(i) * 20)).await;
        }
    }
    let id = change(0);
    journal.append(T0, id, "a", vec![proposed(id)]).await.expect("goes on");
    let (head, offsets) = (journal.head().await, journal.read(|v| v.offsets.clone()).await);
    assert!(head.seq > 1, "some of them got through");
    drop(journal);
    let again = home.open().await;
    assert_eq!((again.head().await, again.read(|v| v.offsets.clone()).await), (head, offsets));
}

#[tokio::test]
async fn news_name_the_change_after_it_is_written() {
    let home = Home::new();
    let journal = home.open().await;
    let mut news = journal.subscribe();
    let id = change(0);
    journal.append(T0, id, "a", vec![proposed(id), closed()]).await.unwrap();
    assert_eq!(news.recv().await.unwrap(), Some(id));
    journal
        .transact(T0, &[], |_| Ok(((), vec![Entry::global("x", Body::Resumed { reason: String::new() })])))
        .await
        .unwrap();
    assert_eq!(news.recv().await.unwrap(), None);
    assert!(news.try_recv().is_err(), "one word per commit and change");
}

#[tokio::test]
async fn an_event_of_a_later_version_refuses_to_open() {
    for (column, value, code) in
        [("data", r#"{"type":"teleported","data":{}}"#, "journal.unknown_event"), ("v", "2", "journal.unknown_event")]
    {
        let home = Home::new();
        let journal = home.open().await;
        journal.append(T0, change(0), "a", vec![proposed(change(0))]).await.unwrap();
        drop(journal);
        // Written by a later version, with a good chain.
        home.sql(&format!("UPDATE events SET {column} = '{value}'")).await;
        if column == "data" {
            home.sql("UPDATE events SET type = 'teleported'").await;
        }
        super::mutations::rechain(&home).await;
        let head = super::mutations::forged(&home, &home.signer).await;
        std::fs::write(home.dir.path().join("journal.head"), head).unwrap();
        let problem = home.refused().await;
        assert_eq!((problem.code.as_ref(), problem.retry), (code, Retry::Never), "{column}");
    }
}

#[tokio::test]
async fn a_broken_chain_refuses_to_open() {
    let home = Home::new();
    history(&home.open().await).await;
    home.sql("UPDATE events SET actor = 'person:eve' WHERE seq = 12").await;
    let problem = home.refused().await;
    assert_eq!(problem.code, "journal.tampered");
    assert!(problem.message.contains("event 12 was changed"), "{problem}");
}

#[tokio::test]
async fn every_field_of_a_row_is_hashed() {
    let home = Home::new();
    history(&home.open().await).await;
    let rows = super::mutations::rows(&home).await;
    let plain = rows[4].clone();
    let hash = hash_row(&plain);
    assert_eq!(hash, plain.hash);
    let mut others = Vec::new();
    let mut alter = |f: &dyn Fn(&mut crate::journal::Row)| {
        let mut row = plain.clone();
        f(&mut row);
        others.push(hash_row(&row));
    };
    alter(&|r| r.v += 1);
    alter(&|r| r.seq += 1);
    alter(&|r| r.prev.push('0'));
    alter(&|r| r.id.push('0'));
    alter(&|r| r.change.push('0'));
    alter(&|r| r.n += 1);
    alter(&|r| r.at += 1);
    alter(&|r| r.actor.push('0'));
    alter(&|r| r.kind.push('0'));
    alter(&|r| r.data.push(' '));
    // The border between two fields cannot be moved.
    alter(&|r| {
        let c = r.kind.remove(0);
        r.actor.push(c)
    });
    assert!(!others.contains(&hash));
    let distinct: std::collections::BTreeSet<_> = others.iter().collect();
    assert_eq!(distinct.len(), others.len());
    assert!(verify_chain(&rows).is_empty());
}

#[tokio::test]
async fn a_journal_that_cannot_be_opened_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.db");
    std::fs::write(&garbage, vec![b'x'; 8192]).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("no/such/dir/journal.db"), garbage] {
        let problem = Journal::open(&path, None).await.unwrap_err();
        assert_eq!((problem.code.as_ref(), problem.retry), ("journal.unavailable", Retry::Later), "{}", path.display());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_nothing_is_believed_and_it_goes_on_afterwards() {
    let home = Home::new();
    let journal = home.open().await;
    let id = change(0);
    propose(&journal, id).await;
    // The same error path as ENOSPC: the statement fails inside the transaction.
    home.sql("CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.type = 'closed' BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END").await;
    let before = journal.head().await;
    let blobs = [("aa".to_owned(), b"x".to_vec())];
    let both = vec![Entry::of(id, "a", intent("ann")), Entry::of(id, "a", closed())];
    let problem = journal.transact(T0, &blobs, |_| Ok(((), both))).await.unwrap_err();
    assert_eq!((problem.code.as_ref(), problem.retry), ("journal.unavailable", Retry::Later));
    assert_eq!(journal.head().await, before);
    let change = journal.change(id).await.unwrap();
    assert!(change.is_open() && change.dangling().is_none(), "neither the failed event nor the one before it");
    assert_eq!(journal.blob("aa").await.unwrap(), None);
    assert_eq!(home.findings().await, "", "the head that was signed for it does no harm");
    home.sql("DROP TRIGGER full").await;
    journal.append(T0, id, "a", vec![closed()]).await.unwrap();
    drop(journal);
    assert!(home.open().await.change(id).await.unwrap().end.is_some());
    assert_eq!(home.findings().await, "");
}

#[tokio::test]
async fn a_head_that_cannot_be_signed_or_written_stops_the_commit() {
    let home = Home::new();
    let unsigned = Journal::open(
        &home.path(),
        Some(Seal {
            sign: Arc::new(|_: &str| Err(countersign_core::Problem::new("signature.key", "No.", "No."))),
            ..home.seal()
        }),
    )
    .await
    .unwrap();
    let id = change(0);
    assert_eq!(unsigned.append(T0, id, "a", vec![proposed(id)]).await.unwrap_err().code, "signature.key");
    drop(unsigned);
    let journal = home.open().await;
    assert_eq!(journal.head().await.seq, 0);
    let in_the_way = home.dir.path().join("journal.head.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert_eq!(journal.append(T0, id, "a", vec![proposed(id)]).await.unwrap_err().code, "journal.unavailable");
    assert!(journal.change(id).await.is_none());
    std::fs::remove_dir(&in_the_way).unwrap();
    journal.append(T0, id, "a", vec![proposed(id)]).await.unwrap();
}

#[tokio::test]
async fn the_head_file_names_the_last_event_and_is_signed() {
    let home = Home::new();
    let journal = home.open().await;
    history(&journal).await;
    let text = std::fs::read_to_string(home.dir.path().join("journal.head")).unwrap();
    let v: serde_json::Value = serde_json::from_str(&text).unwrap();
    let head = journal.head().await;
    assert_eq!(v["head"], format!("{}/{}", head.seq, head.hash));
    home.checker()(v["head"].as_str().unwrap(), v["signature"].as_str().unwrap()).unwrap();
    assert!(!home.dir.path().join("journal.head.new").exists());
}
