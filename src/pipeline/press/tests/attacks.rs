//! Every identity in every chat, forged handles, fuzzed and doubled presses. Counts are small here; the full ones of
//! the threat model run with `just full-counts`, or set `COUNTERSIGN_CASES`.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

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
