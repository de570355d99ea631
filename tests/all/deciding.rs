//! How people decide: the number of high risk, reasons, reminders, what others see, asking again, commands, what is
//! too much to ask, and what they and a webhook are told afterwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use countersign::channel::telegram::Telegram;
use countersign::channel::webhook::{EVENT, SIGNATURE, signature};
use countersign::sandbox::bot::{Press, ShownMessage};
use countersign::sandbox::git::Author;
use countersign::sandbox::host::{Fault, Mishap};
use countersign::sandbox::world::{ANNA, CLUSTER, MAX, REPO, WorldOptions, policy};
use countersign_core::model::Body;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::people::{GOOD, asked, card, code, never, quick, rewrite, story, told, wait, with_policy};
use crate::world::{PATIENCE, Stage, set_image, target, text};

fn labels(m: &ShownMessage) -> Vec<&str> {
    m.buttons.iter().flatten().map(|b| b.text.as_str()).collect()
}

/// The message as it is now.
fn now(s: &Stage, chat: i64, id: i64) -> ShownMessage {
    s.world.bot.chat(chat).into_iter().find(|m| m.message_id == id).expect("the message")
}

async fn until_card(s: &Stage, chat: i64, id: i64, what: &str, good: impl Fn(&ShownMessage) -> bool) -> ShownMessage {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let shown = now(s, chat, id);
        if good(&shown) {
            return shown;
        }
        assert!(tokio::time::Instant::now() < end, "never: {what}: {:#?}", s.world.bot.chat(chat));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn numbers(m: &ShownMessage) -> (Vec<String>, String) {
    let all = labels(m).into_iter().filter(|l| l.parse::<u32>().is_ok()).map(str::to_owned).collect();
    let right = m.text.split("then the number ").nth(1).map_or("", |r| r.lines().next().unwrap_or_default());
    (all, right.to_owned())
}

fn on(id: i64, label: &str) -> Press {
    Press { message_id: Some(id), ..Press::button(ANNA, label) }
}

/// A kill between Telegram's taking a card and the journal's hearing of it leaves two cards of one question.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_cards_of_one_question_either_takes_the_yes_and_neither_keeps_a_dead_button() {
    let approvals = "{cooldown_s: 0, number_from: low}".into();
    let mut s = Stage::new(WorldOptions { approvals, ..quick() }).await;
    let lost = Fault { matching: Some("sendMessage".into()), times: Some(1), mishap: Mishap::LoseAnswer };
    s.world.bot.fault(lost);
    let change = s.propose(set_image("checkout", GOOD)).await;
    let cards = |chat: i64| -> Vec<i64> {
        let asks = |m: &ShownMessage| m.button("Approve").is_some();
        s.world.bot.chat(chat).iter().filter(|m| asks(m)).map(|m| m.message_id).collect()
    };
    let chat = wait("a second card", || [ANNA, MAX].into_iter().find(|chat| cards(*chat).len() == 2)).await;
    let ids = cards(chat);
    let first = *ids.iter().min().unwrap();
    s.world.bot.approve(chat, Some(first)).await.unwrap();
    s.until(&change, &["healthy"]).await;
    for id in ids {
        until_card(&s, chat, id, "the end on every card", |m| m.buttons.is_empty() && m.text.contains("HEALTHY")).await;
    }
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_risk_is_approved_by_the_number_on_the_card_and_a_wrong_one_counts() {
    let approvals = "{cooldown_s: 0, number_from: high}".into();
    let mut s = Stage::new(WorldOptions { approvals, ..quick() }).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    let anna = asked(&s, ANNA).await;
    assert!(anna.text.contains("HIGH") && anna.text.contains("then the number "), "{}", anna.text);
    let id = anna.message_id;
    let (words, alert) = told(&s, &on(id, "Approve")).await;
    assert!(alert && words.contains("press the number"), "{words}");
    let first = until_card(&s, ANNA, id, "three numbers", |m| numbers(m).0.len() == 3).await;
    let (all, right) = numbers(&first);
    assert!(all.contains(&right) && first.button("Approve").is_none(), "{first:#?}");
    let wrong = all.iter().find(|n| **n != right).unwrap();
    let (words, alert) = told(&s, &on(id, wrong)).await;
    assert!(alert && words.contains("not the number"), "{words}");
    let second = until_card(&s, ANNA, id, "new numbers", |m| m.text != first.text && numbers(m).0 != all).await;
    // The old right one is no button any more.
    let old = first.button(&right).and_then(|b| b.callback_data.clone()).unwrap();
    let (words, _) = told(&s, &Press::forged(ANNA, id, &old)).await;
    assert!(words.contains("not one of mine"), "{words}");
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "awaiting_approval");
    let (words, _) = told(&s, &on(id, &numbers(&second).1)).await;
    assert_eq!(words, "Approved.");
    let end = s.until(&change, &["healthy"]).await;
    assert!(end["story"].to_string().contains("anna pressed a wrong number"), "{end:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_card_says_which_version_was_healthy_last_and_until_when() {
    let mut s = Stage::new(quick()).await;
    let first = s.propose(set_image("checkout", GOOD)).await;
    assert!(!asked(&s, ANNA).await.text.contains("Last healthy"), "nothing is known yet");
    s.press(ANNA, "Approve").await;
    s.until(&first, &["healthy"]).await;
    let commit = s.our_commits()[0].id.clone();
    let path = "apps/checkout/deploy.yaml";
    let broken = s.world.file(path).unwrap().replace(GOOD, "reg.example/checkout:1.9.3");
    s.world.git.commit_file(REPO, "main", path, broken.as_bytes(), &Author::new("Max", "max@example.test")).unwrap();
    s.propose(set_image("checkout", GOOD)).await;
    let shown = asked(&s, ANNA).await.text;
    let line = shown.lines().find(|l| l.starts_with("Last healthy: ")).unwrap_or_else(|| panic!("{shown}"));
    let (version, rest) = line.trim_start_matches("Last healthy: ").split_once(", until ").unwrap();
    assert_eq!(version, "1.9.1");
    assert!(rest.ends_with(&format!(" UTC ({})", &commit[..7])), "{line}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_counts_at_once_and_its_reason_reaches_the_agent_and_the_others() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    let (anna, max) = (asked(&s, ANNA).await, asked(&s, MAX).await);
    s.press(ANNA, "Reject…").await;
    s.until(&change, &["rejected"]).await;
    let asks = until_card(&s, ANNA, anna.message_id, "the reasons", |m| m.button("Wrong fix").is_some()).await;
    assert_eq!(labels(&asks), ["Wrong fix", "Wrong target", "Not now", "Other"]);
    let others = until_card(&s, MAX, max.message_id, "Max's card", |m| m.text.contains("REJECTED")).await;
    assert!(others.buttons.is_empty(), "the reason is for who said no");
    let (words, _) = told(&s, &on(anna.message_id, "Other")).await;
    assert!(words.contains("Reply"), "{words}");
    let question = card(&s, ANNA, "WHY NOT").await;
    s.world.bot.reply(ANNA, ANNA, question.message_id, "1.9.1 loses\norders \u{202e}too").unwrap();
    let all = until_card(&s, MAX, max.message_id, "the reason", |m| m.text.contains("1.9.1 loses")).await;
    assert!(all.text.contains("by anna: 1.9.1 loses\\norders \\u{202e}too"), "{}", all.text);
    let answer = s.call("change", json!({"change": change})).await;
    let evidence = answer["problem"]["evidence"].to_string();
    assert!(evidence.contains("anna's reason (their words): 1.9.1 loses"), "{answer:#}");
    let again = s.operate(vec![set_image("checkout", GOOD)]).await;
    assert_eq!(code(&again), "change.rejected_recently");
    assert!(again["problem"]["evidence"].to_string().contains("1.9.1 loses"), "{again:#}");
    // By a button, in one press.
    let second = s.propose(set_image("payments", "reg.example/payments:2.1.0")).await;
    let payments =
        s.world.bot.wait_for(ANNA, PATIENCE, |m| m.text.contains("payments") && m.button("Reject…").is_some());
    let id = payments.await.expect("a card").message_id;
    told(&s, &on(id, "Reject…")).await;
    s.until(&second, &["rejected"]).await;
    until_card(&s, ANNA, id, "the reasons", |m| m.button("Wrong target").is_some()).await;
    told(&s, &on(id, "Wrong target")).await;
    let done = until_card(&s, ANNA, id, "the reason", |m| m.text.contains("by anna: Wrong target")).await;
    assert!(done.buttons.is_empty());
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_not_decided_is_reminded_with_a_sound() {
    let with = policy("prompted", "direct", 2).replace("expires: 30m", "expires: 30m, remind: 5m");
    let mut s = Stage::new(WorldOptions { policy: with, ..quick() }).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    let (anna, max) = (asked(&s, ANNA).await, asked(&s, MAX).await);
    s.press(ANNA, "Approve").await;
    until_card(&s, MAX, max.message_id, "Anna's yes", |m| m.text.contains("Approved so far: anna (1 of 2)")).await;
    s.clock.advance(Duration::from_secs(5 * 60 + 1));
    let reminder = card(&s, MAX, "WAITING FOR YOU").await;
    assert_eq!((reminder.reply_to, reminder.silent), (Some(max.message_id), false));
    s.clock.advance(Duration::from_secs(5 * 60));
    wait("a second one", || {
        (s.world.bot.chat(MAX).iter().filter(|m| m.text.contains("WAITING FOR YOU")).count() == 2).then_some(())
    })
    .await;
    assert!(!s.world.bot.chat(ANNA).iter().any(|m| m.text.contains("WAITING FOR YOU")), "Anna has decided");
    assert!(now(&s, ANNA, anna.message_id).button("Approve").is_none(), "and her card says so");
    assert!(now(&s, MAX, max.message_id).button("Approve").is_some());
    s.press(MAX, "Approve").await;
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_asked_about_again_as_long_as_it_is_still_the_same() {
    let mut s = Stage::new(quick()).await;
    let first = s.propose(set_image("checkout", GOOD)).await;
    let anna = asked(&s, ANNA).await;
    s.clock.advance(Duration::from_secs(31 * 60));
    s.until(&first, &["expired"]).await;
    until_card(&s, ANNA, anna.message_id, "Ask again", |m| labels(m) == ["Ask again"]).await;
    told(&s, &on(anna.message_id, "Ask again")).await;
    let settled =
        until_card(&s, ANNA, anna.message_id, "the new name", |m| m.text.contains("Asked again as cs-")).await;
    assert!(settled.buttons.is_empty(), "once");
    let fresh = asked(&s, MAX).await;
    let line = s.call("changes", json!({})).await;
    let open: Vec<&Value> =
        line["changes"].as_array().unwrap().iter().filter(|c| c["state"] == "awaiting_approval").collect();
    assert_eq!(open.len(), 1, "{line:#}");
    let second = text(open[0], "change").to_owned();
    assert_ne!(second, first);
    assert!(fresh.text.contains("1.9.2 → 1.9.1"));
    // It expires too, and meanwhile somebody changes the file.
    s.clock.advance(Duration::from_secs(31 * 60));
    s.until(&second, &["expired"]).await;
    let path = "apps/checkout/deploy.yaml";
    let other = s.world.file(path).unwrap().replace("replicas: 2", "replicas: 3");
    s.world.git.commit_file(REPO, "main", path, other.as_bytes(), &Author::new("Max", "max@example.test")).unwrap();
    let id = fresh.message_id;
    until_card(&s, MAX, id, "Ask again", |m| labels(m) == ["Ask again"]).await;
    told(&s, &Press { message_id: Some(id), ..Press::button(MAX, "Ask again") }).await;
    let refused = until_card(&s, MAX, id, "why not", |m| m.text.contains("Not asked again")).await;
    assert!(refused.text.contains("its files changed since"), "{}", refused.text);
    assert_eq!(s.our_commits().len(), 0);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_lists_what_waits_for_the_one_who_asks() {
    let mut s = Stage::new(with_policy("prompted", "direct", 2)).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    let name = text(&s.call("change", json!({"change": change})).await, "name").to_owned();
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    s.world.bot.say(ANNA, ANNA, "/pending").unwrap();
    let list = card(&s, ANNA, "image of container app").await;
    assert!(list.text.contains(&name) && list.buttons.is_empty(), "{}", list.text);
    s.press(ANNA, "Approve").await;
    wait("the vote", || s.world.bot.chat(MAX).iter().any(|m| m.text.contains("1 of 2")).then_some(())).await;
    s.world.bot.say(ANNA, ANNA, "/pending").unwrap();
    card(&s, ANNA, "Nothing waits for you.").await;
    s.end().await;
}

fn config_map(name: &str) -> Value {
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: shop\n  labels:\n    env: prod\ndata:\n  a: b\n"
    );
    json!({"target": format!("{CLUSTER}/shop/ConfigMap/{name}"),
        "create": {"manifest": manifest, "owner": "Application argocd/shop-prod", "path": format!("apps/checkout/{name}.yaml")}})
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_not_asked_too_much() {
    let approvals = "{cooldown_s: 600, number_from: critical}".into();
    let mut s = Stage::new(WorldOptions { approvals, ..quick() }).await;
    let first = s.propose(set_image("checkout", GOOD)).await;
    // One card for one object.
    let other = json!({"target": target("checkout"), "scale": {"replicas": 3}});
    let refused = s.operate(vec![other.clone()]).await;
    assert_eq!(code(&refused), "change.overlap", "{refused:#}");
    s.propose(set_image("payments", "reg.example/payments:2.1.0")).await;
    s.propose(config_map("one")).await;
    let fourth = s.operate(vec![config_map("two")]).await;
    assert_eq!(code(&fourth), "load.agent_pending", "{fourth:#}");
    assert_eq!(s.operate(vec![set_image("checkout", GOOD)]).await["change"], json!(first), "the same is the same");
    wait("three cards", || {
        let cards = s.world.bot.chat(ANNA).iter().filter(|m| m.button("Approve").is_some()).count();
        assert!(cards <= 3);
        (cards == 3).then_some(())
    })
    .await;
    // After a no the agent pauses, after the next one twice as long.
    for (change, pause) in [("payments", 600), ("checkout", 1200)] {
        let card = s
            .world
            .bot
            .wait_for(ANNA, PATIENCE, |m| m.text.contains(&format!("shop/{change}")) && m.button("Reject…").is_some());
        told(&s, &on(card.await.expect("its card").message_id, "Reject…")).await;
        card_gone(&s, change).await;
        let cooling = s.operate(vec![config_map("two")]).await;
        assert_eq!(code(&cooling), "load.cooling_down", "{cooling:#}");
        s.clock.advance(Duration::from_secs(pause - 120));
        assert_eq!(code(&s.operate(vec![config_map("two")]).await), "load.cooling_down");
        s.clock.advance(Duration::from_secs(121));
    }
    s.propose(config_map("two")).await;
    s.end().await;
}

async fn card_gone(s: &Stage, name: &str) {
    let settled = |m: &ShownMessage| m.text.contains("REJECTED") && m.text.contains(&format!("shop/{name}"));
    assert!(s.world.bot.wait_for(MAX, PATIENCE, settled).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_change_that_fails_is_told_with_a_sound_and_its_revert_is_a_button_away() {
    let mut s = Stage::new(with_policy("standard", "direct", 1)).await;
    let good = s.operate(vec![set_image("payments", "reg.example/payments:2.1.0")]).await;
    s.until(text(&good, "change"), &["healthy"]).await;
    let quiet = card(&s, MAX, "HEALTHY").await;
    assert!(quiet.silent && quiet.buttons.is_empty(), "{quiet:#?}");
    let bad = s.operate(vec![set_image("checkout", "reg.example/checkout:missing")]).await;
    let change = text(&bad, "change").to_owned();
    let end = s.until(&change, &["failed"]).await;
    assert_eq!(text(&end["next"], "tool"), "rollback", "the agent can ask too: {end:#}");
    let loud = card(&s, MAX, "FAILED").await;
    assert!(!loud.silent && loud.text.contains("Seen: ") && labels(&loud) == ["Prepare revert"], "{loud:#?}");
    card(&s, ANNA, "FAILED").await;
    let press = Press { message_id: Some(loud.message_id), ..Press::button(MAX, "Prepare revert") };
    assert_eq!(told(&s, &press).await.0, "It is being prepared.");
    let twice = told(&s, &press).await;
    assert!(twice.1 && twice.0.contains("already"), "{twice:?}");
    wait("the revert", || (s.our_commits().len() == 3).then_some(())).await;
    let asked = |e: &countersign_core::model::Event| matches!(&e.body, Body::RevertAsked { person } if person == "max");
    assert!(story(&s, &change).await.iter().any(asked));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_that_cannot_be_made_says_so_to_whoever_wanted_it() {
    let mut s = Stage::new(with_policy("standard", "direct", 1)).await;
    let bad = s.operate(vec![set_image("checkout", "reg.example/checkout:missing")]).await;
    s.until(text(&bad, "change"), &["failed"]).await;
    let loud = card(&s, ANNA, "FAILED").await;
    let path = "apps/checkout/deploy.yaml";
    let other = s.world.file(path).unwrap().replace("replicas: 2", "replicas: 3");
    s.world.git.commit_file(REPO, "main", path, other.as_bytes(), &Author::new("Max", "max@example.test")).unwrap();
    told(&s, &on(loud.message_id, "Prepare revert")).await;
    let said = card(&s, ANNA, "NO REVERT").await;
    assert!(said.text.contains("was changed again") && !said.silent, "{}", said.text);
    never("words to Max about it", Duration::from_millis(300), || {
        s.world.bot.chat(MAX).iter().any(|m| m.text.contains("NO REVERT"))
    })
    .await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_poller_with_the_token_stops_everything_within_seconds() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    let thief = Telegram::new(&SecretString::from(s.world.bot.token()), Some(&s.world.bot.url())).unwrap();
    let stealing = tokio::spawn(async move {
        loop {
            let _ = thief.poll(0, Duration::from_secs(20)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let begun = tokio::time::Instant::now();
    let stopped = async || s.daemon.as_ref().unwrap().pipeline.journal.read(|v| v.stopped.clone()).await;
    let (by, why) = loop {
        if let Some(stop) = stopped().await {
            break stop;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no stop");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(by, "countersign");
    assert!(why.contains("token"), "{why}");
    // A signed yes is taken, and nothing leaves.
    let key = s.world.keys.anna_key.to_string_lossy().into_owned();
    let yes = crate::people::countersign(&s.world, &["approve", &change, "--key", &key, "--yes"]).await;
    assert!(yes.ok, "{}", yes.out);
    never("a push while stopped", Duration::from_millis(500), || !s.world.git.pushes().is_empty()).await;
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "held");
    stealing.abort();
    s.end().await;
}

const SECRET: &str = "a-secret-of-the-receiver";

/// What a receiver got: id, sequence number, type.
#[derive(Default)]
struct Got {
    events: Vec<(String, u64, String)>,
    refuse: usize,
    wrong: usize,
}

async fn receive(State(got): State<Arc<Mutex<Got>>>, headers: HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut got = got.lock().unwrap();
    let at = header(SIGNATURE).strip_prefix("t=").and_then(|r| r.split(',').next()?.parse().ok()).unwrap_or(0);
    if signature(&SecretString::from(SECRET), at, body.as_bytes()) != header(SIGNATURE) {
        got.wrong += 1;
        return StatusCode::UNAUTHORIZED;
    }
    if got.refuse > 0 {
        got.refuse -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["id"], json!(header(EVENT)));
    let entry = (header(EVENT), event["seq"].as_u64().unwrap(), event["body"]["type"].as_str().unwrap().to_owned());
    got.events.push(entry);
    StatusCode::NO_CONTENT
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_every_event_signed_in_order_and_again_after_a_refusal_or_a_restart() {
    let got = Arc::new(Mutex::new(Got { refuse: 2, ..Got::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/events", axum::routing::post(receive)).with_state(Arc::clone(&got));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut s = Stage::new(with_policy("prompted", "direct", 1)).await;
    s.stop_daemon().await;
    std::fs::write(s.world.dir.join("keys/hook"), SECRET).unwrap();
    let hook = json!({"apiVersion": "countersign.dev/v1", "kind": "Channel", "metadata": {"name": "siem"},
        "spec": {"kind": "webhook", "token": {"file": "keys/hook"}, "url": url}});
    rewrite(&s.world, |t| format!("{t}---\n{hook}\n"));
    s.start_daemon().await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    let seen = |kind: &str| got.lock().unwrap().events.iter().any(|(_, _, k)| k == kind);
    wait("the end", || {
        s.clock.advance(Duration::from_secs(1));
        seen("closed").then_some(())
    })
    .await;
    for kind in ["proposed", "pressed", "voted", "authorized", "landed", "observed"] {
        assert!(seen(kind), "{kind}");
    }
    s.restart().await;
    let second = s.propose(set_image("payments", "reg.example/payments:2.1.0")).await;
    let journal = || async {
        let daemon = s.daemon.as_ref().unwrap();
        daemon.pipeline.journal.events_from(1, 10_000).await.unwrap()
    };
    assert!(journal().await.iter().any(|e| e.change.is_some_and(|c| c.to_string() == second)));
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        s.clock.advance(Duration::from_secs(1));
        let events = journal().await;
        let wanted: BTreeSet<u64> =
            events.iter().filter(|e| !matches!(e.body, Body::Polled { .. })).map(|e| e.seq).collect();
        let have: BTreeSet<u64> = got.lock().unwrap().events.iter().map(|(_, seq, _)| *seq).collect();
        assert!(have.iter().all(|seq| wanted.contains(seq)), "bookkeeping is nobody's event");
        if have == wanted {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "missing: {:?}", wanted.difference(&have));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let got = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!((got.wrong, got.refuse), (0, 0));
    let mut first: Vec<u64> = Vec::new();
    for (_, seq, _) in &got.events {
        if !first.contains(seq) {
            first.push(*seq);
        }
    }
    assert!(first.is_sorted(), "in order: {first:?}");
    server.abort();
    s.end().await;
}
