//! A journal with some history.

use std::path::PathBuf;
use std::sync::Arc;

use countersign_core::model::{Body, ChangeId, Code, Digest, Effect, Ending, Proposal, Sealed, Verdict, digest_of};
use countersign_core::{Problem, Result};
use serde_json::json;

use crate::git::{NAMESPACE_CHECKPOINT, SshSigner, blob_id, verify};
use crate::journal::{Anchor, Entry, Journal, Report, Seal, verify_file};

pub const T0: i64 = 1_900_000_000_000;
pub const CONTENT: &[u8] = b"replicas: 3\n";

/// A state directory with the key that signs its journal's head.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub signer: SshSigner,
}

pub fn signer(seed: u8) -> SshSigner {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    let pem = ssh_key::PrivateKey::from(pair).to_openssh(ssh_key::LineEnding::LF).unwrap().to_string();
    SshSigner::from_openssh(&pem.into(), None).unwrap()
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), signer: signer(9) }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    pub fn seal(&self) -> Seal {
        let signer = self.signer.clone();
        let sign = Arc::new(move |head: &str| signer.sign(NAMESPACE_CHECKPOINT, head.as_bytes()));
        Seal { sign, check: Arc::new(self.checker()) }
    }

    pub async fn open(&self) -> Journal {
        Journal::open(&self.path(), Some(self.seal())).await.unwrap()
    }

    pub async fn refused(&self) -> Problem {
        Journal::open(&self.path(), Some(self.seal())).await.expect_err("must not open")
    }

    pub fn checker(&self) -> impl Fn(&str, &str) -> Result<()> + Send + Sync + use<> {
        let public = self.signer.public_key();
        move |head, signature| verify(NAMESPACE_CHECKPOINT, head.as_bytes(), signature, &[&public]).map(|_| ())
    }

    pub async fn verify(&self, anchors: Vec<Anchor>) -> Result<Report> {
        verify_file(&self.path(), self.checker(), anchors).await
    }

    /// What is wrong, in one string; empty = verified.
    pub async fn findings(&self) -> String {
        let report = self.verify(Vec::new()).await.unwrap();
        report.findings.into_iter().map(|f| f.what).collect::<Vec<_>>().join("; ")
    }

    /// Changes the file behind the journal's back.
    pub async fn sql(&self, sql: &str) {
        use sqlx::Connection as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    }
}

pub fn change(i: u64) -> ChangeId {
    ChangeId::from_parts(1_900_000_000_000 + i, u128::from(i) + 77)
}

pub fn proposed(id: ChangeId) -> Body {
    let quorum = json!({"count": 1, "groups": ["sre"], "allow_sponsor": false});
    let risk = json!({"level": "low", "reasons": ["scale"]});
    let sealed: Sealed = serde_json::from_value(json!({
        "schema": 1, "change": id, "revision": 1, "repository": "shop", "git_ref": "refs/heads/main",
        "files": [{"path": "a.yaml", "mode": "100644", "before": null, "after": blob_id(CONTENT)}],
        "effect": [], "message": "checkout: 2 → 3", "policy_version": "p1", "rules": ["prod"], "delivery": "direct",
        "risk": risk, "requester": "agent", "sponsor": "sue", "quorum": quorum, "expires_at": T0 / 1000 + 3600,
        "nonce": "00112233445566778899aabbccddeeff", "commit_message": "checkout: scale to 3",
    }))
    .unwrap();
    let proposal: Proposal = serde_json::from_value(json!({
        "requester": {"agent": "agent", "sponsor": "sue"}, "key": null, "content_key": "k", "reason": "load", "edits": [],
        "cluster": "prod", "owner": {"engine": "flux", "kind": "Kustomization", "namespace": "flux-system", "name": "shop"},
        "source": {"url": "u", "target_revision": "main", "path": "", "kind": null, "index": 0, "deployed": null, "recurse": true},
        "repository": "shop", "git_ref": "refs/heads/main", "base": "b0", "fields": [], "want": [],
        "state": {"automatic": true, "prune": false, "suspended": null, "window": null}, "risk": risk, "diff": "",
        "reverts": null, "health": null, "files": [], "notes": [], "targets": [], "objects": 1, "privileged": null,
    }))
    .unwrap();
    let decided = serde_json::from_value(json!({
        "level": "prompted", "delivery": "direct", "quorum": quorum, "approvers": ["ann"], "tell": [], "rules": ["prod"],
        "policy_version": "p1", "expires_s": 3600,
    }))
    .unwrap();
    let sealed = String::from_utf8(sealed.canonical().unwrap()).unwrap();
    let digest = digest_of(sealed.as_bytes());
    Body::Proposed { proposal: Box::new(proposal), decided: Box::new(decided), sealed, digest }
}

pub fn digest_in(body: &Body) -> Digest {
    match body {
        Body::Proposed { digest, .. } => digest.clone(),
        other => panic!("{other:?}"),
    }
}

pub fn closed() -> Body {
    Body::Closed { ending: Ending::Cancelled, say: "so".into() }
}

pub fn intent(person: &str) -> Body {
    Body::Intent { effect: Effect::Ask { person: person.into() }, facts: json!({}) }
}

/// A whole life: proposed, asked, approved, pushed, healthy.
pub fn life(id: ChangeId) -> Vec<Body> {
    let first = proposed(id);
    let digest = digest_in(&first);
    let push = Effect::PushTarget;
    vec![
        first,
        intent("ann"),
        Body::Done { effect: Effect::Ask { person: "ann".into() }, result: json!({"message_id": 1}) },
        Body::Voted {
            person: "ann".into(),
            channel: "telegram".into(),
            approve: true,
            reason: None,
            digest: digest.clone(),
            proof: None,
        },
        Body::Authorized { digest, by: vec!["ann".into()], policy_version: "p1".into() },
        Body::Intent { effect: push.clone(), facts: json!({"commit": "c1"}) },
        Body::Done { effect: push, result: json!({"commit": "c1"}) },
        Body::Landed { commit: "c1".into(), via: "push".into() },
        Body::Observed { verdict: Verdict::Healthy, code: Code::Healthy, say: "3/3 ready ✓".into() },
        Body::Closed { ending: Ending::Healthy, say: "Healthy.".into() },
    ]
}

/// Three lives side by side, with a stop in between; answers the anchors that commits would carry.
pub async fn history(journal: &Journal) -> Vec<Anchor> {
    let mut anchors = Vec::new();
    let lives: Vec<_> = (0..3).map(|i| (change(i), life(change(i)))).collect();
    let blobs = [(blob_id(CONTENT), CONTENT.to_vec())];
    for step in 0..10 {
        for (id, bodies) in &lives {
            let body = bodies[step].clone();
            if matches!(&body, Body::Intent { effect: Effect::PushTarget, .. }) {
                let head = journal.head().await;
                anchors.push(Anchor { place: format!("commit of {id}"), seq: head.seq, hash: head.hash });
            }
            let entry = Entry::of(*id, "countersign", body);
            journal.transact(T0 + step as i64, &blobs, |_| Ok(((), vec![entry]))).await.unwrap();
        }
        let global = match step {
            2 => Body::Stopped { reason: "look".into() },
            3 => Body::Resumed { reason: "ok".into() },
            _ => Body::Polled { channel: "telegram".into(), offset: step as i64 },
        };
        journal.transact(T0, &[], |_| Ok(((), vec![Entry::global("person:ann", global)]))).await.unwrap();
    }
    anchors
}

/// One proposal with its content.
pub async fn propose(journal: &Journal, id: ChangeId) {
    let blobs = [(blob_id(CONTENT), CONTENT.to_vec())];
    journal.transact(T0, &blobs, |_| Ok(((), vec![Entry::of(id, "a", proposed(id))]))).await.unwrap();
}
