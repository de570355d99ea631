//! Every identity in every chat, forged handles, fuzzed and doubled presses. Counts are small here; the full ones of
//! the threat model run with `cargo test --release --lib press:: -- --ignored`, or set `COUNTERSIGN_CASES`.

use std::sync::Arc;

use countersign_core::change::fold;
use countersign_core::model::{
    Decided, Delivery, DeliveryState, Effect, Engine, Event, Level, OwnerRef, Principal, Proposal, Quorum, Risk,
    Sealed, SealedFile, Source, digest_of,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
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

/// How many cases: the default, or what the environment says.
fn cases(default: usize) -> usize {
    std::env::var("COUNTERSIGN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// T3 and T5: every identity in every kind of chat, with everybody's handle.
#[test]
fn only_the_one_who_was_asked_decides_and_only_in_their_own_chat() {
    let room = Room::new(RiskLevel::Critical);
    let c = change(1, RiskLevel::High, 1);
    let v = view(std::slice::from_ref(&c));
    let impersonal = [1_087_968_824, 136_817_688, 777_000, 0, -5];
    let identities = [ANN, BOB, SUE, TOM, STRANGER].into_iter().chain(impersonal);
    let mut decided = 0;
    for from in identities {
        // Private, another's private chat, group, supergroup, channel, unknown: only the first is `private`.
        for (kind, private) in [
            ("own", true),
            ("foreign", false),
            ("group", false),
            ("supergroup", false),
            ("channel", false),
            ("unknown", false),
        ] {
            for whose in ["ann", "bob", "sue", "tom", "eve"] {
                for action in [Action::Approve, Action::Reject] {
                    let batch = room.press(&v, from, private, &room.key.make(&c, whose, action));
                    let name = room.people.get(&from).map(String::as_str);
                    let good = private && name == Some(whose) && matches!(whose, "ann" | "bob");
                    assert_eq!(moved(&batch), good, "{from} in {kind} with {whose}'s {action:?}");
                    assert_eq!(votes(&batch).len(), usize::from(good));
                    decided += usize::from(good);
                    assert_eq!(batch.replies.len(), 1, "everybody is answered");
                }
            }
        }
    }
    assert_eq!(decided, 4, "Ann and Bob, yes and no");
}

/// T3: a vote of somebody who was only told.
#[test]
fn whoever_is_only_told_does_not_vote() {
    let room = Room::new(RiskLevel::Critical);
    let c = change(1, RiskLevel::High, 1);
    let batch = room.press(&view(std::slice::from_ref(&c)), TOM, true, &room.key.make(&c, "tom", Action::Approve));
    assert!(votes(&batch).is_empty(), "{:?}", batch.entries);
}

fn letters(rng: &mut StdRng, n: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..n).map(|_| char::from(alphabet[rng.random_range(0..64)])).collect()
}

fn forged(rng: &mut StdRng, own: &[String], others: &[String]) -> String {
    match rng.random_range(0..6) {
        0 => format!("c:{}", letters(rng, 44)),
        // The right change, a random tag.
        1 => format!("{}{}", &own[0][..24], letters(rng, 22)),
        2 => {
            let mut bytes = own[rng.random_range(0..own.len())].clone().into_bytes();
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..7);
            String::from_utf8(bytes).unwrap()
        }
        // The tag of one change under the id of another.
        3 => format!("{}{}", &own[0][..24], &others[rng.random_range(0..others.len())][24..]),
        4 => own[rng.random_range(0..own.len())].chars().rev().collect(),
        _ => {
            let (len, head) = (rng.random_range(0..64), ["c:", "r:", ""][rng.random_range(0..3)]);
            format!("{head}{}", letters(rng, len))
        }
    }
}

fn forge_handles(n: usize) {
    let room = Room::new(RiskLevel::High);
    let c = then(&change(1, RiskLevel::High, 1), armed("ann"));
    let other = change(2, RiskLevel::High, 1);
    let v = stopped(view(&[c.clone(), other.clone()]));
    let all = |c: &Change| -> Vec<String> {
        let numbers = room.key.numbers(c, "ann", 0).unwrap().all.map(Action::Number);
        let actions: Vec<Action> = Action::FIXED.into_iter().chain(numbers).collect();
        ["ann", "bob", "sue"]
            .iter()
            .flat_map(|p| actions.iter().map(|a| room.key.make(c, p, *a)).collect::<Vec<_>>())
            .collect()
    };
    let (own, others) = (all(&c), all(&other));
    let mut rng = StdRng::seed_from_u64(41);
    for i in 0..n {
        let data = forged(&mut rng, &own, &others);
        if own.contains(&data) || others.contains(&data) {
            continue;
        }
        let batch = room.press(&v, [ANN, BOB, SUE][i % 3], true, &data);
        assert!(batch.entries.is_empty() && !moved(&batch), "{data}: {:?}", batch.entries);
    }
}

fn armed(person: &str) -> Body {
    Body::Pressed { update: 1, callback: "1".into(), person: person.into(), action: "armed".into() }
}

/// T4.
#[test]
fn forged_handles_move_nothing() {
    forge_handles(cases(3_000));
}

#[test]
#[ignore = "the full count of the threat model: 1,000,000; minutes, in release"]
fn a_million_forged_handles_move_nothing() {
    forge_handles(1_000_000);
}

fn fuzz_presses(n: usize) {
    let room = Room::new(RiskLevel::High);
    let mut rng = StdRng::seed_from_u64(42);
    let c = change(1, RiskLevel::Low, 1);
    let ended = then(&change(2, RiskLevel::Low, 1), Body::Closed { ending: Ending::Cancelled, say: "x".into() });
    let v = view(&[c.clone(), ended.clone()]);
    let ids = [ANN, BOB, SUE, TOM, STRANGER, 777_000, 1_087_968_824, 0, -1, i64::MAX, i64::MIN];
    for _ in 0..n {
        let from = ids[rng.random_range(0..ids.len())];
        let private = rng.random_bool(0.5);
        let whose = ["ann", "bob", "sue", "tom", "", "ann\0"][rng.random_range(0..6)];
        let action = [
            Action::Approve,
            Action::Reject,
            Action::Number(42),
            Action::AskAgain,
            Action::Revert,
            Action::Reason(Why::NotNow),
        ][rng.random_range(0..6)];
        let about = if rng.random_bool(0.5) { &c } else { &ended };
        let data = match rng.random_range(0..3) {
            0 => room.key.make(about, whose, action),
            1 => HandleKey::new([8; 32]).make(about, whose, action),
            _ => (0..rng.random_range(0..80)).map(|_| rng.random::<char>()).collect(),
        };
        let honest = private
            && about.id == c.id
            && matches!((from, whose), (ANN, "ann") | (BOB, "bob"))
            && matches!(action, Action::Approve | Action::Reject)
            && data == room.key.make(&c, whose, action);
        let batch = room.press(&v, from, private, &data);
        assert_eq!(moved(&batch), honest, "{from} {private} {whose} {action:?} {data:?}: {:?}", batch.entries);
        let after = [&c, &ended].map(|c| room.after(c, &batch));
        assert!(honest || (after[0].votes.is_empty() && after[1].end == ended.end), "a transition");
    }
}

/// T3.
#[test]
fn fuzzed_presses_make_no_transition() {
    fuzz_presses(cases(3_000));
}

#[test]
#[ignore = "the full count of the threat model: 100,000; a minute, in release"]
fn a_hundred_thousand_fuzzed_presses_make_no_transition() {
    fuzz_presses(100_000);
}

fn duplicates(changes: u128) {
    let room = Room::new(RiskLevel::Critical);
    for n in 0..changes {
        let mut c = change(n, RiskLevel::High, 2);
        let data = room.key.make(&c, "ann", Action::Approve);
        let mut count = 0;
        // Ten batches of ten: doubles in one batch and over several.
        for _ in 0..10 {
            let mut batch = Batch::default();
            let v = view(std::slice::from_ref(&c));
            (0..10).for_each(|_| room.press_into(&v, ANN, true, &data, &mut batch));
            count += votes(&batch).len();
            c = room.after(&c, &batch);
        }
        assert_eq!((count, c.votes.len()), (1, 1));
        let late = Desk { now: c.sealed.expires_at * 1000, ..room.desk(T0) };
        let mut batch = Batch::default();
        let data = room.key.make(&c, "bob", Action::Approve);
        let p = Press {
            update_id: 1,
            callback_id: "1",
            from_id: BOB,
            impersonal: false,
            private: true,
            message_id: CARD,
            data: &data,
        };
        late.press(&view(std::slice::from_ref(&c)), &p, &mut batch);
        assert!(votes(&batch).is_empty(), "a press after the time");
    }
}

/// T11.
#[test]
fn a_hundred_doubles_are_one_decision() {
    duplicates(cases(10) as u128);
}

#[test]
#[ignore = "the full count of the threat model: 100 doubles of 1,000 changes"]
fn a_hundred_doubles_of_a_thousand_changes_are_one_decision_each() {
    duplicates(1_000);
}

#[test]
fn high_risk_needs_the_number_on_the_card_and_three_wrong_ones_end_it() {
    let room = Room::new(RiskLevel::High);
    let mut c = change(1, RiskLevel::High, 1);
    let approve = room.key.make(&c, "ann", Action::Approve);
    let number = |c: &Change, n: u32| room.key.make(c, "ann", Action::Number(n));
    // A number before Approve is nothing.
    let first = room.key.numbers(&c, "ann", 0).unwrap();
    let early = room.press(&view(std::slice::from_ref(&c)), ANN, true, &number(&c, first.right));
    assert!(!moved(&early));
    let batch = room.press(&view(std::slice::from_ref(&c)), ANN, true, &approve);
    assert!(votes(&batch).is_empty() && batch.replies[0].text.contains("number"), "{:?}", batch.replies);
    c = room.after(&c, &batch);
    // All three in one batch: the first wrong one voids the rest.
    let v = view(std::slice::from_ref(&c));
    let mut all = Batch::default();
    let wrong_first = first.all.iter().filter(|n| **n != first.right).chain([&first.right]);
    wrong_first.for_each(|n| room.press_into(&v, ANN, true, &number(&c, *n), &mut all));
    assert!(votes(&all).is_empty(), "guessing by pressing all is no yes");
    c = room.after(&c, &all);
    assert_eq!(c.armed.get("ann"), Some(&1), "one wrong number, whatever followed it");
    let second = room.key.numbers(&c, "ann", 1).unwrap();
    assert_ne!(first, second, "new numbers");
    // The right one of now counts, in a copy of this history.
    let good = room.press(&view(std::slice::from_ref(&c)), ANN, true, &number(&c, second.right));
    assert_eq!(votes(&good), [("ann".to_owned(), true)]);
    // Two more wrong ones, and the chat approves no more; a no is always possible.
    for wrong in 1..WRONG_NUMBERS {
        let now = room.key.numbers(&c, "ann", wrong).unwrap();
        let bad = now.all.into_iter().find(|n| *n != now.right).unwrap();
        let batch = room.press(&view(std::slice::from_ref(&c)), ANN, true, &number(&c, bad));
        assert!(batch.replies[0].alert && votes(&batch).is_empty());
        c = room.after(&c, &batch);
    }
    let v = view(std::slice::from_ref(&c));
    let last = room.key.numbers(&c, "ann", WRONG_NUMBERS).unwrap();
    for data in [approve, number(&c, last.right)] {
        let batch = room.press(&v, ANN, true, &data);
        assert!(!moved(&batch) && batch.replies[0].text.contains("signature"), "{:?}", batch.replies);
    }
    let rows = keyboard(&room.desk(T0), &c, "ann", true);
    assert!(rows[0].iter().all(|(_, a)| matches!(a, Action::Reject)), "{rows:?}");
    assert_eq!(
        votes(&room.press(&v, ANN, true, &room.key.make(&c, "ann", Action::Reject))),
        [("ann".to_owned(), false)]
    );
    assert_eq!(votes(&room.press(&v, BOB, true, &room.key.make(&c, "bob", Action::Approve))), [], "Bob has his own");
}

#[test]
fn numbers_are_three_different_ones_that_nobody_mistakes_for_each_other() {
    let room = Room::new(RiskLevel::High);
    let mut places = [0u32; 3];
    for n in 0..600 {
        let numbers = room.key.numbers(&change(n, RiskLevel::High, 1), "ann", 0).unwrap();
        let [a, b, c] = numbers.all;
        assert!(numbers.all.iter().all(|n| (10..100).contains(n)) && numbers.all.contains(&numbers.right));
        assert!(a.abs_diff(b) > 1 && b.abs_diff(c) > 1 && a.abs_diff(c) > 1, "{numbers:?}");
        places[numbers.all.iter().position(|n| *n == numbers.right).unwrap()] += 1;
    }
    assert!(places.iter().all(|p| (140..260).contains(p)), "the right one stands anywhere: {places:?}");
}

#[test]
fn buttons_are_what_may_be_done_now_and_by_whom() {
    let room = Room::new(RiskLevel::High);
    let labels = |c: &Change, complete: bool| -> Vec<String> {
        keyboard(&room.desk(T0), c, "ann", complete).into_iter().flatten().map(|(l, _)| l).collect()
    };
    let c = change(1, RiskLevel::Low, 2);
    assert_eq!(labels(&c, true), ["Approve", "Reject…", "Full diff", "Stop all"]);
    assert_eq!(labels(&c, false), ["Reject…", "Full diff", "Stop all"], "not all is shown");
    let yes = then(&c, vote(&c, "ann", "telegram", true, None, None));
    assert_eq!(labels(&yes, true), ["Reject…", "Full diff", "Stop all"], "a yes can be taken back");
    let high = then(&change(2, RiskLevel::High, 1), armed("ann"));
    let numbers = room.key.numbers(&high, "ann", 0).unwrap().all.map(|n| n.to_string());
    assert_eq!(labels(&high, true)[..3], numbers);
    assert!(labels(&high, false).iter().all(|l| !numbers.contains(l)));
    let end = |c: &Change, ending| then(c, Body::Closed { ending, say: "x".into() });
    assert_eq!(labels(&end(&c, Ending::Expired), true), ["Ask again"]);
    let again = then(&end(&c, Ending::Expired), Body::AgainAsked { person: "bob".into() });
    assert!(labels(&again, true).is_empty());
    for ending in [Ending::Cancelled, Ending::Stale, Ending::Undelivered, Ending::Abandoned] {
        assert!(labels(&end(&c, ending), true).is_empty(), "{ending:?}");
    }
    let no = |channel: &str| end(&then(&c, vote(&c, "ann", channel, false, None, None)), Ending::Rejected);
    assert_eq!(labels(&no("telegram"), true), ["Wrong fix", "Wrong target", "Not now", "Other"]);
    assert!(labels(&no("ssh"), true).is_empty(), "who signed said it on the command line");
    let said = then(&no("telegram"), Body::Reasoned { person: "ann".into(), reason: Some("Not now".into()) });
    assert!(labels(&said, true).is_empty());
    let theirs = end(&then(&c, vote(&c, "bob", "telegram", false, None, None)), Ending::Rejected);
    assert!(labels(&theirs, true).is_empty(), "the reason is for who said no");
}

#[test]
fn wishes_are_taken_once_even_within_one_batch() {
    let room = Room::new(RiskLevel::Critical);
    let c = then(&change(1, RiskLevel::High, 1), Body::Closed { ending: Ending::Expired, say: "x".into() });
    let v = view(std::slice::from_ref(&c));
    let mut batch = Batch::default();
    for (who, name) in [(ANN, "ann"), (BOB, "bob"), (ANN, "ann")] {
        room.press_into(&v, who, true, &room.key.make(&c, name, Action::AskAgain), &mut batch);
    }
    // Were it written twice, the journal would refuse the whole batch, for ever.
    let after = room.after(&c, &batch);
    assert_eq!(after.again_asked.as_deref(), Some("ann"));
    assert_eq!(batch.replies.iter().filter(|r| r.text.contains("being prepared")).count(), 1);
    let open = change(3, RiskLevel::High, 1);
    let batch = room.press(&view(std::slice::from_ref(&open)), ANN, true, &room.key.make(&open, "ann", Action::Revert));
    assert!(!moved(&batch), "nothing has landed");
}

#[test]
fn a_reply_to_the_card_or_to_the_question_is_the_reason_of_whoever_said_no() {
    let room = Room::new(RiskLevel::Critical);
    let ask = Effect::Ask { person: "ann".into() };
    let mut c = then(&change(1, RiskLevel::High, 1), Body::Intent { effect: ask.clone(), facts: json!({}) });
    c = then(&c, Body::Done { effect: ask, result: json!({"message_id": 5}) });
    let say = |c: &Change, from: i64, text: &str, to: Option<i64>| {
        let mut batch = Batch::default();
        let clean = |t: &str| t.replace("secret", "[secret]");
        room.desk(T0).text(&view(std::slice::from_ref(c)), (from, from), text, to, &clean, &mut batch);
        batch
    };
    assert!(say(&c, ANN, "too late", Some(5)).entries.is_empty(), "nobody said no yet");
    c = then(&c, vote(&c, "ann", "telegram", false, None, None));
    assert!(say(&c, ANN, "too late", None).entries.is_empty(), "words that answer nothing");
    assert!(say(&c, BOB, "too late", Some(5)).entries.is_empty(), "Bob did not say no");
    assert!(say(&c, STRANGER, "too late", Some(5)).entries.is_empty());
    let batch = say(&c, ANN, &format!("the secret is out {}", "x".repeat(400)), Some(5));
    c = room.after(&c, &batch);
    let reason = c.rejection().and_then(|v| v.reason.clone()).unwrap();
    assert!(reason.starts_with("the [secret] is out xxx") && reason.chars().count() == 300, "{reason}");
    for _ in 0..10 {
        c = room.after(&c, &say(&c, ANN, "again", Some(5)));
    }
    assert_eq!(c.reasons, REASONS, "nobody fills the journal with reasons");
}

#[test]
fn commands_are_understood_with_words_behind_them_and_with_the_bots_name() {
    let room = Room::new(RiskLevel::Critical);
    let say = |from: i64, text: &str| {
        let mut batch = Batch::default();
        room.desk(T0).text(&View::default(), (from, from), text, None, &str::to_owned, &mut batch);
        batch
    };
    for text in ["/stop", " /stop\n", "/stop it burns", "/stop@countersign_bot", "/stop@countersign_bot now"] {
        assert!(say(TOM, text).stopped.is_some(), "{text}");
        assert!(say(STRANGER, text).stopped.is_none(), "{text}");
    }
    for text in ["", "stop", "/stopped", "please /stop", "/status"] {
        let batch = say(TOM, text);
        assert!(batch.stopped.is_none() && batch.commands.is_empty(), "{text}");
    }
    assert_eq!(say(TOM, "/pending").commands, [("tom".to_owned(), TOM, Command::Pending)]);
    assert_eq!(say(TOM, "/resume@bot now").commands, [("tom".to_owned(), TOM, Command::Resume)]);
}

#[test]
fn two_different_people_resume_and_nobody_twice() {
    let room = Room::new(RiskLevel::Critical);
    let v = stopped(View::default());
    let button = |name: &str| room.key.resume(v.stop_seq(), name);
    let mut batch = Batch::default();
    for _ in 0..3 {
        room.press_into(&v, ANN, true, &button("ann"), &mut batch);
    }
    assert_eq!(batch.resuming, [("ann".to_owned(), false)]);
    assert!(!batch.entries.iter().any(|e| matches!(e.body, Body::Resumed { .. })));
    room.press_into(&v, BOB, false, &button("bob"), &mut batch);
    room.press_into(&v, BOB, true, &button("ann"), &mut batch);
    room.press_into(&v, BOB, true, &room.key.resume(v.stop_seq() + 1, "bob"), &mut batch);
    room.press_into(&v, STRANGER, true, &button("bob"), &mut batch);
    assert_eq!(batch.resuming.len(), 1, "neither a group, nor another's button, nor another stop's, nor a stranger");
    room.press_into(&v, BOB, true, &button("bob"), &mut batch);
    assert_eq!(batch.resuming.last(), Some(&("bob".to_owned(), true)));
    assert!(matches!(batch.entries.last().unwrap().body, Body::Resumed { .. }));
    room.press_into(&v, SUE, true, &button("sue"), &mut batch);
    assert_eq!(batch.resuming.len(), 2, "it is over");
    let not_stopped = room.press(&View::default(), ANN, true, &button("ann"));
    assert!(!moved(&not_stopped));
}
