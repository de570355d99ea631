//! Votes, numbers, wishes and words: what each person may do, and what they are answered.

use super::*;

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

#[test]
fn a_yes_is_answered_with_how_far_it_takes_the_change() {
    let room = Room::new(RiskLevel::Critical);
    let approve = |c: &Change, from: i64, person: &str, batch: &mut Batch| {
        let v = view(std::slice::from_ref(c));
        room.press_into(&v, from, true, &room.key.make(c, person, Action::Approve), batch);
        batch.replies.last().unwrap().text.clone()
    };
    let said = |c: &Change, from: i64, person: &str| approve(c, from, person, &mut Batch::default());
    assert_eq!(said(&change(1, RiskLevel::Low, 1), ANN, "ann"), "Approved.");
    let mut two = change(2, RiskLevel::Low, 2);
    // Both within one batch, and one after the other.
    let mut batch = Batch::default();
    assert_eq!(approve(&two, ANN, "ann", &mut batch), "Approved: 1 of 2.");
    assert_eq!(approve(&two, BOB, "bob", &mut batch), "Approved.");
    let mut first = Batch::default();
    approve(&two, ANN, "ann", &mut first);
    two = room.after(&two, &first);
    assert_eq!(said(&two, BOB, "bob"), "Approved.");
    // Where each must be of another group, a second yes of the same one is not one more.
    let mut groups = change(3, RiskLevel::Low, 2);
    groups.decided.quorum.different_groups = true;
    groups.decided.quorum.groups = vec!["rel".into(), "sre".into()];
    groups.decided.answers = ["ann", "bob"].map(|p| (p.to_owned(), vec!["sre".to_owned()])).into();
    let mut first = Batch::default();
    assert_eq!(approve(&groups, ANN, "ann", &mut first), "Approved: 1 of 2. Still needed: somebody of rel.");
    groups = room.after(&groups, &first);
    assert_eq!(said(&groups, BOB, "bob"), "Noted, but it stays at 1 of 2: still needed is somebody of rel.");
}
