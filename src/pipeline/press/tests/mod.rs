//! A room of people, a change, and what a press makes of it.

mod attacks;
mod deciding;

use std::sync::Arc;

use countersign_core::change::fold;
use countersign_core::model::{
    Decided, Delivery, DeliveryState, Effect, Engine, Event, Level, OwnerRef, Principal, Proposal, Quorum, Risk,
    Sealed, SealedFile, Source, digest_of,
};
use serde_json::json;

use super::*;
use crate::channel::telegram::is_impersonal;

const T0: i64 = 1_900_000_000_000;
const ANN: i64 = 11;
const BOB: i64 = 12;
/// The agent's sponsor.
const SUE: i64 = 13;
/// On the list, and asked nothing.
const TOM: i64 = 14;
const STRANGER: i64 = 666;

fn people() -> BTreeMap<i64, String> {
    [(ANN, "ann"), (BOB, "bob"), (SUE, "sue"), (TOM, "tom")].map(|(id, n)| (id, n.to_owned())).into()
}

fn change(n: u128, risk: RiskLevel, count: u32) -> Change {
    let id = ChangeId::from_parts(1_900_000_000_000, n);
    let names = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let quorum = Quorum { count, groups: names(&["sre"]), allow_sponsor: false, different_groups: false };
    let risk = Risk { level: risk, reasons: names(&["prod"]) };
    let owner = OwnerRef::new(Engine::Argocd, "Application", "argocd", "shop");
    let sealed = Sealed {
        schema: 1,
        change: id,
        revision: 1,
        repository: "shop".into(),
        git_ref: "refs/heads/main".into(),
        files: vec![SealedFile { path: "a.yaml".into(), mode: "100644".into(), before: None, after: Some("2".into()) }],
        effect: Vec::new(),
        message: String::new(),
        policy_version: "p1".into(),
        rules: Vec::new(),
        delivery: Delivery::Direct,
        risk: risk.clone(),
        requester: "bot".into(),
        sponsor: "sue".into(),
        quorum: quorum.clone(),
        expires_at: T0 / 1000 + 3600,
        nonce: format!("{n:032x}"),
        commit_message: String::new(),
    };
    let sealed = String::from_utf8(sealed.canonical().unwrap()).unwrap();
    let source = Source {
        url: "https://git.example/shop.git".into(),
        target_revision: "main".into(),
        path: "apps".into(),
        kind: None,
        index: 0,
        deployed: None,
        recurse: false,
        overrides: Vec::new(),
    };
    let proposal = Proposal {
        facts: serde_json::Value::Null,
        requester: Principal { agent: "bot".into(), sponsor: "sue".into() },
        key: None,
        content_key: n.to_string(),
        reason: "because".into(),
        edits: Vec::new(),
        cluster: "prod".into(),
        owner,
        source,
        repository: "shop".into(),
        git_ref: "refs/heads/main".into(),
        base: "b0".into(),
        fields: Vec::new(),
        want: Vec::new(),
        state: DeliveryState::default(),
        risk,
        diff: String::new(),
        reverts: None,
        health: None,
        last_healthy: None,
        files: Vec::new(),
        notes: Vec::new(),
        targets: json!([]),
        objects: 1,
        privileged: None,
    };
    let decided = Decided {
        level: Level::Prompted,
        delivery: Delivery::Direct,
        quorum,
        // The sponsor is among them here, as after a mistake elsewhere: the press must still refuse.
        approvers: names(&["ann", "bob", "sue"]),
        tell: names(&["tom"]),
        rules: Vec::new(),
        policy_version: "p1".into(),
        expires_s: 3600,
        reapprove_on_move: false,
        obligations: countersign_core::model::Obligations::default(),
        freezes: Vec::new(),
        answers: BTreeMap::new(),
    };
    let digest = digest_of(sealed.as_bytes());
    let body = Body::Proposed { proposal: Box::new(proposal), decided: Box::new(decided), sealed, digest };
    fold(None, &event(id, 1, body)).unwrap()
}

fn event(id: ChangeId, n: u64, body: Body) -> Event {
    let (prev, hash) = (String::new(), String::new());
    Event { v: 1, seq: n, prev, hash, id: String::new(), change: Some(id), n, at: T0, actor: String::new(), body }
}

fn then(c: &Change, body: Body) -> Change {
    fold(Some(c.clone()), &event(c.id, c.n + 1, body)).unwrap()
}

fn view(changes: &[Change]) -> View {
    let mut v = View::default();
    v.changes.extend(changes.iter().map(|c| (c.id, Arc::new(c.clone()))));
    v
}

fn stopped(mut v: View) -> View {
    v.stopped = Some(("person:ann".into(), "x".into()));
    v
}

/// The message of the card that every test presses, known or not.
const CARD: i64 = 41;

struct Room {
    key: HandleKey,
    people: BTreeMap<i64, String>,
    number_from: RiskLevel,
}

impl Room {
    fn new(number_from: RiskLevel) -> Self {
        Self { key: HandleKey::new([7; 32]), people: people(), number_from }
    }

    fn desk(&self, now: i64) -> Desk<'_> {
        let (handles, people) = (&self.key, &self.people);
        Desk { handles, people, number_from: self.number_from, resume_needed: 2, now }
    }

    fn press(&self, v: &View, from: i64, private: bool, data: &str) -> Batch {
        let mut batch = Batch::default();
        self.press_into(v, from, private, data, &mut batch);
        batch
    }

    fn press_into(&self, v: &View, from: i64, private: bool, data: &str, batch: &mut Batch) {
        let impersonal = is_impersonal(from);
        let p = Press { update_id: 1, callback_id: "1", from_id: from, impersonal, private, message_id: CARD, data };
        self.desk(T0).press(v, &p, batch);
    }

    /// The change as the journal has it after what a batch wrote.
    fn after(&self, c: &Change, batch: &Batch) -> Change {
        let own = batch.entries.iter().filter(|e| e.change == Some(c.id));
        own.fold(c.clone(), |c, e| then(&c, e.body.clone()))
    }
}

fn votes(batch: &Batch) -> Vec<(String, bool)> {
    let vote = |e: &Entry| match &e.body {
        Body::Voted { person, approve, .. } => Some((person.clone(), *approve)),
        _ => None,
    };
    batch.entries.iter().filter_map(vote).collect()
}

/// Whether anything was decided, wished or stopped; a foreign press is only noted.
fn moved(batch: &Batch) -> bool {
    batch.stopped.is_some()
        || !batch.resuming.is_empty()
        || batch.entries.iter().any(|e| {
            !matches!(&e.body, Body::Pressed { action, .. } if action == "foreign")
                && !matches!(&e.body, Body::CardFound { .. })
        })
}

fn armed(person: &str) -> Body {
    Body::Pressed { update: 1, callback: "1".into(), person: person.into(), action: "armed".into() }
}
