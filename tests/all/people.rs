//! What people decide, what they try to decide without being asked, and what everyone sees of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use countersign::sandbox::bot::{ChatKind, Press, Pressed, ShownMessage};
use countersign::sandbox::cluster::Engine;
use countersign::sandbox::forge::Method;
use countersign::sandbox::git::Author;
use countersign::sandbox::host::{Fault, Mishap};
use countersign::sandbox::world::{ANNA, EVE, JON, MAX, REPO, World, WorldOptions, policy};
use countersign::server::control::{Request, call, glass_text, vote_text};
use countersign_core::Problem;
use countersign_core::model::{Body, ChangeId, Event};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::world::{PATIENCE, Stage, set_image, target, text};

pub const GOOD: &str = "reg.example/checkout:1.9.1";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Small times: what these tests look at is not the engines' waits.
pub fn quick() -> WorldOptions {
    // One press is one decision here; `number` looks at what high risk needs beyond it.
    let approvals = "{cooldown_s: 0, number_from: critical}".into();
    WorldOptions { speed: 10.0, times: [40, 1, 1, 20, 1], approvals, ..WorldOptions::default() }
}

pub fn with_policy(level: &str, deliver: &str, count: u32) -> WorldOptions {
    WorldOptions { policy: policy(level, deliver, count), ..quick() }
}

/// Polls until `found` gives something.
pub async fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(t) = found() {
            return t;
        }
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Watches for a while that something does not happen.
pub async fn never(what: &str, during: Duration, mut happened: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + during;
    while tokio::time::Instant::now() < end {
        assert!(!happened(), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn code(answer: &Value) -> &str {
    answer.pointer("/problem/code").and_then(Value::as_str).unwrap_or_default()
}

/// The newest message of the bot in a chat that has these words.
pub async fn card(s: &Stage, chat: i64, words: &str) -> ShownMessage {
    let found = s.world.bot.wait_for(chat, PATIENCE, |m| m.from_bot && m.text.contains(words)).await;
    found.unwrap_or_else(|| panic!("no \"{words}\" in chat {chat}: {:#?}", s.world.bot.chat(chat)))
}

/// The card that asks, with its buttons.
pub async fn asked(s: &Stage, chat: i64) -> ShownMessage {
    let found = s.world.bot.wait_for(chat, PATIENCE, |m| m.button("Approve").is_some()).await;
    found.unwrap_or_else(|| panic!("nobody asks in chat {chat}: {:#?}", s.world.bot.chat(chat)))
}

fn data(card: &ShownMessage, button: &str) -> String {
    card.button(button).unwrap().callback_data.clone().unwrap()
}

/// Presses, and gives what the person is told: the words and whether as an alert.
pub async fn told(s: &Stage, press: &Press) -> (String, bool) {
    let pressed: Pressed = s.world.bot.press(press).unwrap_or_else(|e| panic!("{e}"));
    wait("the press is answered", || s.world.bot.answer_to(&pressed.callback_query_id)).await
}

/// Cancels; a card that is just being sent is waited for, as the answer says.
pub async fn cancel(s: &mut Stage, change: &str, reason: &str) -> Value {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = s.call("cancel", json!({"change": change, "reason": reason})).await;
        if code(&answer) != "cancel.busy" {
            assert_eq!(text(&answer, "state"), "cancelled", "{answer:#}");
            return answer;
        }
        assert!(tokio::time::Instant::now() < end, "{answer:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn state_dir(world: &World) -> PathBuf {
    world.dir.join("state")
}

/// A request of the command line.
pub async fn ask(s: &Stage, request: Request) -> Result<Value, Problem> {
    call(&state_dir(&s.world), &request).await
}

pub async fn story(s: &Stage, change: &str) -> Vec<Event> {
    let id: ChangeId = change.parse().unwrap();
    s.daemon.as_ref().unwrap().pipeline.journal.story(id).await.unwrap()
}

async fn votes(s: &Stage, change: &str) -> Vec<(String, String, bool)> {
    let said = |e: Event| match e.body {
        Body::Voted { person, channel, approve, .. } => Some((person, channel, approve)),
        _ => None,
    };
    story(s, change).await.into_iter().filter_map(said).collect()
}

/// What the built program printed, and whether it succeeded.
pub struct Ran {
    pub ok: bool,
    pub out: String,
}

/// Runs the built program on this world's configuration.
pub async fn countersign(world: &World, args: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(args).arg("--config").arg(&world.config);
    command.env_remove("COUNTERSIGN_CONFIG").env_remove("COUNTERSIGN_SSH_KEY").env_remove("COUNTERSIGN_FAULT");
    let out = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Ran { ok: out.status.success(), out: text }
}

/// A fresh key of somebody who is on no list.
async fn stranger_key(world: &World) -> PathBuf {
    let key = world.dir.join("keys/stranger");
    let made = tokio::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()
        .await;
    assert!(made.unwrap().success());
    key
}

async fn signature(key: &Path, text: &str) -> String {
    let mut child = tokio::process::Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", countersign::server::control::NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let out = child.wait_with_output().await.unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

/// Rewrites the resources and loads them.
async fn reconfigure(s: &Stage, edit: impl Fn(&str) -> String) {
    rewrite(&s.world, edit);
    ask(s, Request::Reload).await.unwrap();
}

pub fn rewrite(world: &World, edit: impl Fn(&str) -> String) {
    let file = world.dir.join("resources/all.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let after = edit(&before);
    assert_ne!(before, after, "the edit must change something");
    std::fs::write(&file, after).unwrap();
}

async fn nothing_was_written(s: &Stage, tip: &str) {
    assert_eq!(s.world.tip(), tip, "main did not move");
    assert_eq!(s.world.git.pushes(), Vec::<Value>::new(), "nothing was pushed anywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_change_expires_and_everyone_sees_it() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    let (anna, max) = (asked(&s, ANNA).await, asked(&s, MAX).await);
    s.clock.advance(Duration::from_secs(31 * 60));
    let end = s.until(&change, &["expired"]).await;
    assert_eq!((text(&end, "outcome"), code(&end)), ("ended", "change.expired"), "{end:#}");
    for (chat, asked) in [(ANNA, anna.message_id), (MAX, max.message_id)] {
        let now = card(&s, chat, "EXPIRED").await;
        assert_eq!(now.message_id, asked, "the very card is settled");
        let left: Vec<&str> = now.buttons.iter().flatten().map(|b| b.text.as_str()).collect();
        assert_eq!(left, ["Ask again"]);
        assert!(now.text.contains("nothing was written") && now.text.contains("1.9.1"), "{}", now.text);
    }
    let late = Press::forged(ANNA, anna.message_id, &data(&anna, "Approve"));
    let (words, alert) = told(&s, &late).await;
    assert!(alert && words.contains("has ended"), "{words}");
    nothing_was_written(&s, &tip).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_ends_it_and_the_same_content_is_refused_for_a_day() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, MAX).await;
    s.press(ANNA, "Reject…").await;
    let end = s.until(&change, &["rejected"]).await;
    assert_eq!(code(&end), "change.rejected");
    assert!(end["problem"]["message"].as_str().unwrap().contains("anna"), "{end:#}");
    for chat in [ANNA, MAX] {
        let now = card(&s, chat, "REJECTED").await;
        assert!(now.button("Approve").is_none() && now.text.contains("by anna"), "{}", now.text);
    }
    let again = s.operate(vec![set_image("checkout", GOOD)]).await;
    assert_eq!((text(&again, "outcome"), code(&again)), ("refused", "change.rejected_recently"), "{again:#}");
    // An own key is no way around it.
    let keyed =
        s.call("operate", json!({"edits": [set_image("checkout", GOOD)], "reason": "again", "key": "k1"})).await;
    assert_eq!(code(&keyed), "change.rejected_recently", "{keyed:#}");
    let other = s.propose(set_image("checkout", "reg.example/checkout:1.8.0")).await;
    cancel(&mut s, &other, "only a test").await;
    s.clock.advance(DAY - Duration::from_secs(120));
    assert_eq!(
        code(&s.operate(vec![set_image("checkout", GOOD)]).await),
        "change.rejected_recently",
        "still within the day"
    );
    s.clock.advance(Duration::from_secs(180));
    let fresh = s.propose(set_image("checkout", GOOD)).await;
    assert_ne!(fresh, change);
    asked(&s, ANNA).await;
    nothing_was_written(&s, &tip).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_presses_of_one_button_are_one_decision() {
    let mut s = Stage::new(with_policy("prompted", "direct", 2)).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    let anna = asked(&s, ANNA).await;
    let press = Press::button(ANNA, "Approve");
    let pressed: Vec<Pressed> = (0..50).map(|_| s.world.bot.press(&press).unwrap()).collect();
    let mut said = Vec::new();
    for p in &pressed {
        said.push(wait("an answer", || s.world.bot.answer_to(&p.callback_query_id)).await.0);
    }
    assert_eq!(said.iter().filter(|w| *w == "Approved: 1 of 2.").count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|w| w.contains("decided already")).count(), 49);
    assert_eq!(votes(&s, &change).await, [("anna".to_owned(), "telegram".to_owned(), true)]);
    let now = s.call("change", json!({"change": change})).await;
    assert!(text(&now, "waits_for").starts_with("1 of 2 approvals"), "{now:#}");
    assert_eq!(s.our_commits().len(), 0, "one person is not two");
    s.press(MAX, "Approve").await;
    s.until(&change, &["observing", "healthy"]).await;
    let (words, _) = told(&s, &Press::forged(ANNA, anna.message_id, &data(&anna, "Approve"))).await;
    assert!(words.contains("on its way") || words.contains("ended"), "{words}");
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.our_commits().len(), 1);
    assert_eq!(votes(&s, &change).await.len(), 2);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_one_who_was_asked_can_press_and_only_in_their_own_chat() {
    const GROUP: i64 = -1_001_234;
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    s.world.bot.add_group(GROUP, ChatKind::Supergroup, "The shop", &[ANNA, MAX, EVE]);
    let change = s.propose(set_image("checkout", GOOD)).await;
    let (anna, max) = (asked(&s, ANNA).await, asked(&s, MAX).await);
    let handle = data(&anna, "Approve");
    assert_ne!(handle, data(&max, "Approve"), "a handle is one person's");
    let copied = |to: i64, by: i64| Press {
        claimed_chat_id: Some(to),
        message_id: Some(anna.message_id),
        ..Press::button(ANNA, "Approve").by(by)
    };
    let stranger = "not on the list";
    let foreign = "sent to somebody else";
    s.world.bot.say(JON, JON, "hello").unwrap();
    s.world.bot.say(EVE, EVE, "hello").unwrap();
    for (who, press, words) in [
        ("Max with Anna's handle", Press::forged(MAX, max.message_id, &handle), foreign),
        ("Max on a copy of Anna's card", copied(MAX, MAX), foreign),
        ("Max in Anna's chat", Press::button(ANNA, "Approve").by(MAX), foreign),
        ("Anna in a group", copied(GROUP, ANNA), foreign),
        ("Anna in Max's chat", copied(MAX, ANNA), foreign),
        ("Eve in the group", copied(GROUP, EVE), stranger),
        ("Eve with Anna's handle", Press { data: Some(handle.clone()), chat_id: EVE, ..Press::default() }, stranger),
        (
            "the sponsor with Anna's handle",
            Press { data: Some(handle.clone()), chat_id: JON, ..Press::default() },
            foreign,
        ),
        ("a bot with Anna's number", Press { from_bot: true, ..Press::button(ANNA, "Approve") }, stranger),
        ("an anonymous administrator", copied(GROUP, 1_087_968_824), stranger),
        ("Telegram itself", copied(GROUP, 777_000), stranger),
    ] {
        let (said, alert) = told(&s, &press).await;
        assert!(alert && said.contains(words), "{who}: {said}");
    }
    assert_eq!(votes(&s, &change).await, []);
    let now = s.call("change", json!({"change": change})).await;
    assert_eq!(text(&now, "state"), "awaiting_approval");
    let kept: Vec<Event> = story(&s, &change)
        .await
        .into_iter()
        .filter(|e| matches!(&e.body, Body::Pressed { action, .. } if action == "foreign"))
        .collect();
    assert_eq!(kept.len(), 6, "foreign presses by people of the list are kept; strangers write nothing: {kept:#?}");
    nothing_was_written(&s, &tip).await;
    // A message that the bot is not shown any more: the handle alone says what it is.
    let (said, _) = told(&s, &Press { inaccessible: true, ..Press::button(ANNA, "Approve") }).await;
    assert_eq!(said, "Approved.");
    s.until(&change, &["observing", "healthy"]).await;
    assert_eq!(votes(&s, &change).await, [("anna".to_owned(), "telegram".to_owned(), true)]);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_forged_handles_decide_nothing() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    let (anna, _) = (asked(&s, ANNA).await, asked(&s, MAX).await);
    let before = wait_for_story(&s, &change, 5).await;
    let own: Vec<String> = ["Approve", "Reject…", "Full diff", "Stop all"].iter().map(|b| data(&anna, b)).collect();
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    let mut pressed = Vec::new();
    for i in 0..1000usize {
        let forged = if i % 2 == 0 {
            let random: String = (0..22).map(|_| alphabet[usize::from(rand::random::<u8>()) % 64]).collect();
            format!("c:{random}")
        } else {
            let mut bytes = own[i % 4].clone().into_bytes();
            let at = usize::from(rand::random::<u8>()) % bytes.len();
            bytes[at] ^= 1 << (rand::random::<u8>() % 7);
            String::from_utf8(bytes).unwrap()
        };
        assert!(!own.contains(&forged));
        pressed.push(s.world.bot.press(&Press::forged(ANNA, anna.message_id, &forged)).unwrap());
    }
    for p in &pressed {
        let (words, alert) = wait("an answer", || s.world.bot.answer_to(&p.callback_query_id)).await;
        assert!(alert && words.contains("not one of mine"), "{words}");
    }
    assert_eq!(story(&s, &change).await, before, "the journal holds nothing of them");
    let stopped = s.daemon.as_ref().unwrap().pipeline.journal.read(|v| v.stopped.clone()).await;
    assert_eq!(stopped, None);
    let now = s.call("change", json!({"change": change})).await;
    assert_eq!(text(&now, "state"), "awaiting_approval");
    nothing_was_written(&s, &tip).await;
    s.end().await;
}

/// The story once it has so many events (a proposal and two cards make five).
async fn wait_for_story(s: &Stage, change: &str, events: usize) -> Vec<Event> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = story(s, change).await;
        if now.len() >= events {
            return now;
        }
        assert!(tokio::time::Instant::now() < end, "{now:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_needed_are_two_people_whichever_way_they_say_it() {
    let mut s = Stage::new(with_policy("prompted", "direct", 2)).await;
    let key = s.world.keys.anna_key.to_string_lossy().into_owned();
    // Anna presses, and signs: one voice.
    let one = s.propose(set_image("checkout", GOOD)).await;
    assert!(asked(&s, ANNA).await.text.contains("2 needed"));
    s.press(ANNA, "Approve").await;
    wait_for_votes(&s, &one, 1).await;
    let twice = countersign(&s.world, &["approve", &one, "--key", &key, "--yes"]).await;
    assert!(!twice.ok && twice.out.contains("decided already"), "{}", twice.out);
    // Anna signs, and presses: one voice too.
    let two = s.propose(set_image("payments", "reg.example/payments:2.1.0")).await;
    let asked_again = s
        .world
        .bot
        .wait_for(ANNA, PATIENCE, |m| m.text.contains("payments") && m.button("Approve").is_some())
        .await
        .unwrap();
    let signed = countersign(&s.world, &["approve", &two, "--key", &key, "--yes"]).await;
    assert!(signed.ok && signed.out.contains("approved by anna"), "{}", signed.out);
    let (words, _) = told(&s, &Press::forged(ANNA, asked_again.message_id, &data(&asked_again, "Approve"))).await;
    assert!(words.contains("decided already"), "{words}");
    for change in [&one, &two] {
        let now = s.call("change", json!({"change": change})).await;
        assert_eq!(text(&now, "state"), "awaiting_approval");
        assert!(text(&now, "waits_for").starts_with("1 of 2"), "{now:#}");
    }
    assert_eq!(s.our_commits().len(), 0);
    for m in s.world.bot.chat(MAX).iter().filter(|m| m.button("Approve").is_some()) {
        told(&s, &Press { message_id: Some(m.message_id), ..Press::button(MAX, "Approve") }).await;
    }
    s.until(&one, &["healthy"]).await;
    s.until(&two, &["healthy"]).await;
    let commits = s.our_commits();
    assert_eq!(commits.len(), 2);
    for c in commits {
        assert!(c.message.contains("Countersign-Approved-By: anna\nCountersign-Approved-By: max\n"), "{}", c.message);
    }
    assert!(card(&s, MAX, "HEALTHY").await.text.contains("approved by anna, max"));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_one_group_are_one_where_each_must_be_of_another_and_it_says_for_whom_it_waits() {
    let both =
        policy("prompted", "direct", 2).replace("from: [sre]", "from: [release-managers, sre], different_groups: true");
    // Nobody could be asked for the release managers: refused at once, in words.
    let mut s = Stage::new(WorldOptions { policy: both, ..quick() }).await;
    let refused = s.operate(vec![set_image("checkout", GOOD)]).await;
    assert_eq!(code(&refused), "policy.no_approvers", "{refused:#}");
    assert!(refused["problem"]["message"].as_str().unwrap().contains("answer for release-managers"), "{refused:#}");
    let zoe = json!({"apiVersion": "countersign.dev/v1", "kind": "Person", "metadata": {"name": "zoe"}, "spec": {"telegram": EVE, "groups": ["release-managers", "sre"]}});
    reconfigure(&s, |t| format!("{t}---\n{zoe}\n")).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    assert!(asked(&s, EVE).await.text.contains("2 needed, each of another group: release-managers, sre"));
    asked(&s, MAX).await;
    let mut told_to = Vec::new();
    for chat in [ANNA, MAX] {
        asked(&s, chat).await;
        told_to.push(told(&s, &Press::button(chat, "Approve")).await.0);
    }
    assert_eq!(told_to[0], "Approved: 1 of 2. Still needed: somebody of release-managers.");
    assert_eq!(told_to[1], "Noted, but it stays at 1 of 2: still needed is somebody of release-managers.");
    wait_for_votes(&s, &change, 2).await;
    let shown = card(&s, EVE, "anna, max (1 of 2) · still needed: somebody of release-managers").await;
    assert!(shown.button("Approve").is_some(), "{}", shown.text);
    // A daemon that was killed in between waits on just the same.
    s.restart().await;
    never("a push that one group approved", Duration::from_millis(1500), || !s.world.git.pushes().is_empty()).await;
    let now = s.call("change", json!({"change": change})).await;
    assert_eq!(text(&now, "state"), "awaiting_approval");
    let waits = text(&now, "waits_for");
    assert!(waits.starts_with("1 of 2") && waits.contains("still needed: somebody of release-managers"), "{now:#}");
    nothing_was_written(&s, &tip).await;
    s.press(EVE, "Approve").await;
    s.until(&change, &["healthy"]).await;
    let commits = s.our_commits();
    assert_eq!(commits.len(), 1);
    assert!(commits[0].message.contains("Countersign-Approved-By: zoe"), "{}", commits[0].message);
    s.end().await;
}

async fn wait_for_votes(s: &Stage, change: &str, n: usize) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while votes(s, change).await.len() < n {
        assert!(tokio::time::Instant::now() < end, "{:#?}", story(s, change).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_a_listed_person_over_this_very_change_approves_and_no_other() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    let name = text(&s.call("change", json!({"change": change})).await, "name").to_owned();
    let pending = countersign(&s.world, &["pending"]).await;
    assert!(pending.ok && pending.out.contains(&name) && pending.out.contains("awaiting_approval"), "{}", pending.out);
    let anna = s.world.keys.anna_key.to_string_lossy().into_owned();
    let stranger = stranger_key(&s.world).await;
    let nobody = countersign(&s.world, &["approve", &name, "--key", &stranger.to_string_lossy(), "--yes"]).await;
    assert!(!nobody.ok && nobody.out.contains("approve.unknown_key"), "{}", nobody.out);
    let silent = countersign(&s.world, &["approve", &name, "--key", &anna]).await;
    assert!(!silent.ok && silent.out.contains("input.no_terminal"), "{}", silent.out);
    // Anna's signatures, but over another digest, and over a no.
    let digest = text(&ask(&s, Request::Show { change: change.clone() }).await.unwrap(), "digest").to_owned();
    let other: String = digest.chars().rev().collect();
    for said in [vote_text(true, &other), vote_text(false, &digest), format!("approve {digest}")] {
        let signature = signature(&s.world.keys.anna_key, &said).await;
        let refused = ask(&s, Request::Vote { change: change.clone(), approve: true, reason: None, signature })
            .await
            .unwrap_err();
        assert_eq!(refused.code, "approve.unknown_key");
    }
    assert_eq!(votes(&s, &change).await, []);
    nothing_was_written(&s, &tip).await;
    let yes = countersign(&s.world, &["approve", &name, "--key", &anna, "--yes"]).await;
    assert!(yes.ok && yes.out.contains("approved by anna"), "{}", yes.out);
    assert!(
        yes.out.contains("1.9.2 → 1.9.1") && yes.out.contains("Digest"),
        "the card is shown before it is signed: {}",
        yes.out
    );
    s.until(&change, &["healthy"]).await;
    assert_eq!(votes(&s, &change).await, [("anna".to_owned(), "ssh".to_owned(), true)]);
    assert!(card(&s, MAX, "HEALTHY").await.text.contains("approved by anna"));
    // And a no with its reason, which everyone reads.
    let next = s.propose(set_image("checkout", "reg.example/checkout:1.8.0")).await;
    asked(&s, MAX).await;
    let no = countersign(&s.world, &["reject", &next, "--key", &anna, "--reason", "too old", "--yes"]).await;
    assert!(no.ok && no.out.contains("rejected by anna"), "{}", no.out);
    let end = s.until(&next, &["rejected"]).await;
    assert!(end["problem"]["message"].as_str().unwrap().contains("too old"), "{end:#}");
    assert!(card(&s, MAX, "REJECTED").await.text.contains("by anna: too old"));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_may_let_their_own_yes_suffice_with_a_reason_that_all_read_and_another_reviews() {
    let approvals = "{cooldown_s: 0, break_glass: [oncall]}".into();
    let mut s = Stage::new(WorldOptions { approvals, policy: policy("prompted", "direct", 2), ..quick() }).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, MAX).await;
    let name = text(&s.call("change", json!({"change": change})).await, "name").to_owned();
    let anna = s.world.keys.anna_key.to_string_lossy().into_owned();
    let reason = "checkout is down, Max does not answer";
    let alone = ["approve", &name, "--key", &anna, "--yes", "--break-glass", "--reason", reason];

    let refused = countersign(&s.world, &alone).await;
    assert!(!refused.ok && refused.out.contains("glass.not_allowed"), "{}", refused.out);
    reconfigure(&s, |r| {
        let (before, anna) = r.split_once("\"name\": \"anna\"").unwrap();
        let anna = anna.replacen("\"sre\"", "\"sre\", \"oncall\"", 1);
        format!("{before}\"name\": \"anna\"{anna}")
    })
    .await;
    let silent = countersign(&s.world, &alone[..6]).await;
    assert!(!silent.ok && silent.out.contains("--reason"), "{}", silent.out);
    let digest = text(&ask(&s, Request::Show { change: change.clone() }).await.unwrap(), "digest").to_owned();
    for (said, reason, code) in [
        (vote_text(true, &digest), reason, "approve.unknown_key"),
        (glass_text(&digest, "something else"), reason, "approve.unknown_key"),
        (glass_text(&digest, "two\nlines"), "two\nlines", "glass.words"),
    ] {
        let signature = signature(&s.world.keys.anna_key, &said).await;
        let request = Request::BreakGlass { change: change.clone(), reason: reason.into(), signature };
        assert_eq!(ask(&s, request).await.unwrap_err().code, code);
    }
    nothing_was_written(&s, &tip).await;

    let said = countersign(&s.world, &alone).await;
    assert!(said.ok && said.out.contains("your yes suffices for 30 minutes"), "{}", said.out);
    let told = card(&s, MAX, "GLASS BROKEN").await;
    assert!(
        told.text.contains(&format!("anna alone said yes, in spite of quorum and freeze: {reason}")),
        "{}",
        told.text
    );
    let end = s.until(&change, &["healthy"]).await;
    assert!(end["story"].to_string().contains("anna broke the glass"), "{end:#}");
    let message = s.our_commits()[0].message.clone();
    assert!(message.contains("Countersign-Approved-By: anna\nCountersign-Break-Glass: anna\n"), "{message}");
    card(&s, MAX, "approved by anna (glass broken)").await;

    let open = countersign(&s.world, &["status"]).await;
    assert!(open.out.contains(&format!("TO REVIEW {name}: anna alone let")), "{}", open.out);
    let own = countersign(&s.world, &["review", &name, "--key", &anna, "--note", "all fine"]).await;
    assert!(!own.ok && own.out.contains("glass.no_review"), "{}", own.out);
    let key = stranger_key(&s.world).await;
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let keys = format!("\"ssh_keys\": [\"{}\"], \"telegram\": {MAX}", public.trim());
    reconfigure(&s, |r| r.replace(&format!("\"telegram\": {MAX}"), &keys)).await;
    let max = key.to_string_lossy().into_owned();
    let other = countersign(&s.world, &["review", &name, "--key", &max, "--note", "right call"]).await;
    assert!(other.ok && other.out.contains("reviewed by max"), "{}", other.out);
    let done = countersign(&s.world, &["status"]).await;
    assert!(!done.out.contains("TO REVIEW"), "{}", done.out);
    let verified = countersign(&s.world, &["audit", "verify"]).await;
    assert!(verified.ok, "{}", verified.out);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_for_the_agent_does_not_decide_unless_the_policy_says_so() {
    let mut s = Stage::new(with_policy("prompted", "direct", 1)).await;
    // Jon gets a key and joins those who decide.
    let jons = stranger_key(&s.world).await;
    let public = std::fs::read_to_string(jons.with_extension("pub")).unwrap().trim().to_owned();
    reconfigure(&s, |t| {
        t.replace("\"forge\": \"jon\"", &format!("\"ssh_keys\": [{}],\n\"forge\": \"jon\"", json!(public)))
            .replace("\"dev\"", "\"sre\"")
    })
    .await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    wait_for_story(&s, &change, 5).await;
    assert_eq!(s.world.bot.chat(JON), [], "the sponsor is not asked");
    let key = jons.to_string_lossy().into_owned();
    let own = countersign(&s.world, &["approve", &change, "--key", &key, "--yes"]).await;
    assert!(!own.ok && own.out.contains("approve.not_asked"), "{}", own.out);
    assert_eq!(votes(&s, &change).await, []);
    cancel(&mut s, &change, "only a test").await;
    assert!(card(&s, ANNA, "CANCELLED").await.buttons.is_empty());
    // One person alone: allowed, and shown.
    s.world.set_policy(&policy("prompted", "direct", 1).replace("count: 1", "count: 1, allow_sponsor: true")).unwrap();
    ask(&s, Request::Reload).await.unwrap();
    let change = s.propose(set_image("checkout", "reg.example/checkout:1.8.0")).await;
    assert!(asked(&s, JON).await.text.contains("the sponsor may approve"));
    s.press(JON, "Approve").await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(votes(&s, &change).await, [("jon".to_owned(), "telegram".to_owned(), true)]);
    s.end().await;
}

pub async fn resume(s: &Stage) {
    let key = s.world.keys.anna_key.to_string_lossy().into_owned();
    let resumed = countersign(&s.world, &["resume", "--key", &key, "it is over"]).await;
    assert!(resumed.ok && resumed.out.contains("anna wants to resume; 2 people must"), "{}", resumed.out);
    assert!(is_stopped(s).await.is_some(), "one is not enough");
    let (words, _) = resume_in_chat(s, MAX).await;
    assert_eq!(words, "Resumed.");
    assert_eq!(is_stopped(s).await, None);
}

/// `/resume`, and the button of the answer; gives what the person is told.
pub async fn resume_in_chat(s: &Stage, who: i64) -> (String, bool) {
    let newest = s.world.bot.chat(who).last().map_or(0, |m| m.message_id);
    s.world.bot.say(who, who, "/resume").unwrap();
    let card = s.world.bot.wait_for(who, PATIENCE, |m| m.message_id > newest && m.button("Resume").is_some()).await;
    let card = card.expect("a card with the button");
    told(s, &Press { message_id: Some(card.message_id), ..Press::button(who, "Resume") }).await
}

async fn is_stopped(s: &Stage) -> Option<(String, String)> {
    s.daemon.as_ref().unwrap().pipeline.journal.read(|v| v.stopped.clone()).await
}

async fn until_stopped(s: &Stage) -> (String, String) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(stop) = is_stopped(s).await {
            return stop;
        }
        assert!(tokio::time::Instant::now() < end, "not stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_in_private_is_told_who_they_are_and_a_stranger_nothing_else() {
    let s = Stage::new(quick()).await;
    for (who, command) in [(JON, "/start"), (EVE, "/help"), (EVE, "/start")] {
        s.world.bot.say(who, who, command).unwrap();
    }
    let listed = s.world.bot.wait_for(JON, PATIENCE, |m| m.from_bot).await.expect("an answer").text;
    assert!(["jon", &JON.to_string(), "/stop", "/help"].iter().all(|w| listed.contains(w)), "{listed}");
    let stranger = s.world.bot.wait_for(EVE, PATIENCE, |m| m.from_bot).await.expect("an answer").text;
    assert_eq!(stranger, format!("Your numeric Telegram id is {EVE}."));
    s.world.bot.say(JON, JON, "/stop").unwrap();
    until_stopped(&s).await;
    let told = s.world.bot.chat(EVE).into_iter().filter(|m| m.from_bot).count();
    assert_eq!(told, 1, "asking twice at once is answered once");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_of_the_list_can_stop_and_two_of_them_resume() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    // Eve is on no list.
    s.world.bot.say(EVE, EVE, "/stop").unwrap();
    // In the chat; Jon may as well: it is the safe direction.
    s.world.bot.say(JON, JON, "/stop").unwrap();
    assert_eq!(until_stopped(&s).await.0, "person:jon");
    for chat in [JON, ANNA, MAX] {
        assert!(card(&s, chat, "STOPPED").await.text.contains("jon"), "everyone is told");
    }
    assert!(!s.world.bot.chat(EVE).iter().any(|m| m.from_bot), "Eve is told nothing");
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "held");
    let refused = s.operate(vec![set_image("payments", "reg.example/payments:2.1.0")]).await;
    assert_eq!(code(&refused), "gate.stopped", "{refused:#}");
    let status = countersign(&s.world, &["status"]).await;
    assert!(status.ok && status.out.contains("STOPPED by person:jon"), "{}", status.out);
    // Whoever has no listed key does not resume.
    let stranger = stranger_key(&s.world).await;
    let nobody = countersign(&s.world, &["resume", "--key", &stranger.to_string_lossy()]).await;
    assert!(!nobody.ok && nobody.out.contains("approve.unknown_key"), "{}", nobody.out);
    assert!(is_stopped(&s).await.is_some());
    let said = text(&ask(&s, Request::ResumeText).await.unwrap(), "text").to_owned();
    let old = signature(&s.world.keys.anna_key, &said).await;
    // The same person twice is one person, whichever way they say it.
    let key = s.world.keys.anna_key.to_string_lossy().into_owned();
    for _ in 0..2 {
        let one = countersign(&s.world, &["resume", "--key", &key]).await;
        assert!(one.ok && one.out.contains("2 people must"), "{}", one.out);
    }
    assert!(card(&s, MAX, "STILL STOPPED").await.text.contains("anna wants to resume"));
    let (words, alert) = resume_in_chat(&s, ANNA).await;
    assert!(alert && words.contains("already"), "{words}");
    assert!(is_stopped(&s).await.is_some());
    // Eve is told nothing, and a button of Anna's is nobody else's.
    let theirs = data(&card(&s, ANNA, "To resume 2 must agree; so far: anna").await, "Resume");
    s.world.bot.say(EVE, EVE, "/resume").unwrap();
    let (words, _) = told(&s, &Press { data: Some(theirs.clone()), chat_id: MAX, ..Press::default() }).await;
    assert!(words.contains("not one of mine"), "{words}");
    assert!(is_stopped(&s).await.is_some());
    let (words, _) = resume_in_chat(&s, MAX).await;
    assert_eq!(words, "Resumed.");
    assert_eq!(is_stopped(&s).await, None);
    assert!(!s.world.bot.chat(EVE).iter().any(|m| m.from_bot), "Eve is told nothing");
    card(&s, MAX, "RESUMED").await;
    // On the command line; the signature that ended the last stop does not end this one.
    let stop = countersign(&s.world, &["stop", "a strange thing"]).await;
    assert!(stop.ok && stop.out.contains("Stopped"), "{}", stop.out);
    assert_eq!(until_stopped(&s).await.1, "a strange thing");
    let replayed = ask(&s, Request::Resume { reason: "again".into(), signature: old }).await.unwrap_err();
    assert_eq!(replayed.code, "approve.unknown_key");
    resume(&s).await;
    // Nor does the button of that stop.
    ask(&s, Request::Stop { reason: "a third one".into() }).await.unwrap();
    let (words, _) = told(&s, &Press { data: Some(theirs), chat_id: ANNA, ..Press::default() }).await;
    assert!(words.contains("not one of mine"), "{words}");
    resume(&s).await;
    // By the card's button.
    let (words, alert) = told(&s, &Press::button(MAX, "Stop all")).await;
    assert!(alert && words.contains("Stopped"), "{words}");
    assert_eq!(until_stopped(&s).await.0, "person:max");
    // A yes counts while it is held, and nothing leaves before the resume.
    s.press(ANNA, "Approve").await;
    wait_for_votes(&s, &change, 1).await;
    never("a push while stopped", Duration::from_millis(700), || !s.world.git.pushes().is_empty()).await;
    nothing_was_written(&s, &tip).await;
    resume(&s).await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}

pub fn slow(matching: &str, ms: u64) -> Fault {
    Fault { matching: Some(matching.into()), times: Some(1), mishap: Mishap::Delay { ms } }
}

/// The server has begun to serve a call that a fault delays.
pub async fn struck(log: impl Fn() -> Vec<Value>) {
    wait("the delayed call came in", || log().iter().any(|l| l["what"] == "fault").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_between_the_press_and_the_push_keeps_the_push_back() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    // The look at the branch before the push takes long.
    s.world.git.fault(slow("git-upload-pack", 1500));
    s.press(ANNA, "Approve").await;
    struck(|| s.world.git.log()).await;
    ask(&s, Request::Stop { reason: "now".into() }).await.unwrap();
    never("a push after the stop", Duration::from_millis(2500), || !s.world.git.pushes().is_empty()).await;
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "held");
    nothing_was_written(&s, &tip).await;
    resume(&s).await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_the_push_and_while_observing_starts_nothing_more() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.cluster.pause_engine(Engine::Argocd, true);
    s.world.git.fault(slow("POST /acme/shop.git/git-receive-pack", 1000));
    s.press(ANNA, "Approve").await;
    struck(|| s.world.git.log()).await;
    ask(&s, Request::Stop { reason: "now".into() }).await.unwrap();
    // What had begun ends; nothing begins after it: no hint, no word on the card.
    s.until(&change, &["observing"]).await;
    let effects = |events: Vec<Event>| events.iter().filter(|e| matches!(e.body, Body::Intent { .. })).count();
    let begun = effects(story(&s, &change).await);
    let hints = s.world.cluster.log().len();
    s.world.cluster.pause_engine(Engine::Argocd, false);
    s.until(&change, &["healthy"]).await;
    never("words after the stop", Duration::from_millis(700), || {
        s.world.bot.chat(ANNA).iter().any(|m| m.text.contains("HEALTHY") || m.text.contains("APPROVED"))
    })
    .await;
    assert_eq!(effects(story(&s, &change).await), begun, "no effect began after the stop");
    assert_eq!(s.world.cluster.log().len(), hints, "no write to the cluster");
    resume(&s).await;
    assert!(card(&s, ANNA, "HEALTHY").await.buttons.is_empty());
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_between_pull_request_and_merge_keeps_the_merge_back() {
    let mut s = Stage::new(with_policy("prompted", "merge_after_approval", 1)).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.forge.fault(slow("POST /repos/acme/shop/pulls", 1000));
    s.press(ANNA, "Approve").await;
    struck(|| s.world.forge.log()).await;
    ask(&s, Request::Stop { reason: "now".into() }).await.unwrap();
    wait("the pull request", || (s.world.forge.pulls(REPO).len() == 1).then_some(())).await;
    never("a merge after the stop", Duration::from_millis(1500), || s.world.forge.pulls(REPO)[0].merged.is_some())
        .await;
    assert_eq!(s.our_commits().len(), 0);
    resume(&s).await;
    s.until(&change, &["healthy"]).await;
    let pulls = s.world.forge.pulls(REPO);
    assert_eq!(pulls.len(), 1);
    assert!(pulls[0].merged.is_some());
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_became_stricter_voids_what_waits_and_a_looser_one_decides_nothing() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    for (stricter, image) in [
        (policy("deny", "direct", 1), "reg.example/checkout:1.8.0"),
        (policy("manual", "direct", 1), "reg.example/checkout:1.8.1"),
        (policy("prompted", "direct", 2), "reg.example/checkout:1.8.2"),
        (policy("prompted", "pull_request", 1), "reg.example/checkout:1.8.3"),
    ] {
        let change = s.propose(set_image("checkout", image)).await;
        let anna = asked(&s, ANNA).await;
        s.world.set_policy(&stricter).unwrap();
        ask(&s, Request::Reload).await.unwrap();
        s.press(ANNA, "Approve").await;
        let end = s.until(&change, &["stale"]).await;
        assert_eq!(code(&end), "change.stale", "{end:#}");
        let now = wait("the card says so", || {
            s.world
                .bot
                .chat(ANNA)
                .into_iter()
                .find(|m| m.message_id == anna.message_id && m.text.contains("NO LONGER VALID"))
        })
        .await;
        assert!(now.buttons.is_empty() && now.text.contains("nothing was written"), "{}", now.text);
        nothing_was_written(&s, &tip).await;
        s.world.set_policy(&policy("prompted", "direct", 1)).unwrap();
        ask(&s, Request::Reload).await.unwrap();
    }
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.set_policy(&policy("standard", "direct", 1)).unwrap();
    ask(&s, Request::Reload).await.unwrap();
    never("a push that nobody approved", Duration::from_millis(1200), || !s.world.git.pushes().is_empty()).await;
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "awaiting_approval");
    s.press(ANNA, "Approve").await;
    s.until(&change, &["observing", "healthy"]).await;
    s.end().await;
}

/// The resources without a person.
fn without(resources: &str, person: &str) -> String {
    let other = |d: &&str| !d.contains(&format!("\"name\": \"{person}\""));
    resources.split("---\n").filter(other).collect::<Vec<_>>().join("---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vote_of_a_person_who_left_counts_no_more() {
    let mut s = Stage::new(with_policy("prompted", "direct", 2)).await;
    let tip = s.world.tip();
    // A third one, so that two can still be found when one leaves.
    let key = std::fs::read_to_string(stranger_key(&s.world).await.with_extension("pub")).unwrap();
    let zoe = json!({"apiVersion": "countersign.dev/v1", "kind": "Person", "metadata": {"name": "zoe"}, "spec": {"groups": ["sre"], "ssh_keys": [key.trim()]}});
    reconfigure(&s, |t| format!("{t}---\n{zoe}\n")).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    let anna = asked(&s, ANNA).await;
    asked(&s, MAX).await;
    s.press(ANNA, "Approve").await;
    wait_for_votes(&s, &change, 1).await;
    reconfigure(&s, |t| without(t, "anna")).await;
    let (words, _) = told(&s, &Press::forged(ANNA, anna.message_id, &data(&anna, "Reject…"))).await;
    assert!(words.contains("not on the list"), "{words}");
    s.press(MAX, "Approve").await;
    let end = s.until(&change, &["stale"]).await;
    assert!(end["problem"]["message"].as_str().unwrap().contains("1 of 2 needed approvals"), "{end:#}");
    assert!(card(&s, MAX, "NO LONGER VALID").await.text.contains("1 of 2 needed approvals"));
    nothing_was_written(&s, &tip).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_without_telegram_delay_the_card_and_lose_nothing() {
    let mut s = Stage::new(quick()).await;
    s.world.bot.down().await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    for minute in 0..5 {
        let failed =
            || async { story(&s, &change).await.iter().filter(|e| matches!(e.body, Body::Failed { .. })).count() };
        let before = failed().await;
        s.clock.advance(Duration::from_secs(60));
        let end = tokio::time::Instant::now() + PATIENCE;
        while failed().await == before {
            assert!(tokio::time::Instant::now() < end, "minute {minute}: no further try");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let now = s.call("change", json!({"change": change})).await;
    assert_eq!(text(&now, "state"), "awaiting_approval");
    assert!(now["story"].to_string().contains("is tried again"), "the agent sees why nobody answers: {now:#}");
    s.world.bot.up().await;
    s.clock.advance(Duration::from_secs(61));
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    for chat in [ANNA, MAX] {
        card(&s, chat, "HEALTHY").await;
        assert_eq!(s.world.bot.chat(chat).iter().filter(|m| m.from_bot).count(), 1, "one card each");
    }
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_while_the_daemon_is_down_is_taken_or_can_be_made_again() {
    let mut s = Stage::new(with_policy("prompted", "direct", 2)).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    wait_for_story(&s, &change, 5).await;
    s.stop_daemon().await;
    let old = s.world.bot.press(&Press::button(ANNA, "Approve")).unwrap();
    // Telegram keeps a press for 150 seconds only.
    s.world.bot.clock().advance(Duration::from_secs(151));
    let young = s.world.bot.press(&Press::button(MAX, "Approve")).unwrap();
    s.start_daemon().await;
    let answered = wait("Max is answered", || s.world.bot.answer_to(&young.callback_query_id)).await;
    assert_eq!(answered.0, "Approved: 1 of 2.");
    assert_eq!(votes(&s, &change).await, [("max".to_owned(), "telegram".to_owned(), true)]);
    assert_eq!(s.world.bot.answer_to(&old.callback_query_id), None, "Anna's is lost");
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "awaiting_approval");
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}

/// A stdio client: the built program, spoken to on its standard input and output.
struct Client {
    child: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    next: u64,
}

impl Client {
    async fn start(world: &World) -> Self {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["serve", "--config"])
            .arg(&world.config)
            .env_remove("COUNTERSIGN_FAULT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut me = Self { child, lines, next: 0 };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        me.request("initialize", hello).await;
        me.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        me
    }

    async fn send(&mut self, message: &Value) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line())
                .await
                .expect("an answer in time")
                .unwrap()
                .expect("the client is open");
            let v: Value = serde_json::from_str(&line).unwrap();
            if v["id"] == json!(id) {
                assert!(v.get("error").is_none(), "{v:#}");
                return v["result"].clone();
            }
        }
    }

    async fn operate(&mut self, edit: Value) -> Value {
        let args = json!({"name": "operate", "arguments": {"edits": [edit], "reason": "a test wants it"}});
        self.request("tools/call", args).await["structuredContent"].clone()
    }

    /// Closes standard input, as a client that goes away does.
    async fn close(mut self) {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(ended.expect("the client ends").unwrap().success());
    }
}

/// Ends the daemon that a bridge started, also where the test fails.
struct Bridged(PathBuf);

impl Drop for Bridged {
    fn drop(&mut self) {
        use std::io::{Read as _, Write as _};
        if let Ok(mut socket) =
            std::os::unix::net::UnixStream::connect(countersign::server::control::socket_path(&self.0))
        {
            let _ = socket.write_all(b"{\"do\":\"shutdown\"}\n");
            let _ = socket.read_to_string(&mut String::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_stdio_clients_ask_and_close_and_what_they_asked_for_lands() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _turn = crate::world::turn().await;
    let world = World::start(quick()).await.unwrap_or_else(|p| panic!("{p}"));
    let _daemon = Bridged(state_dir(&world));
    let (mut a, mut b, mut c) = tokio::join!(Client::start(&world), Client::start(&world), Client::start(&world));
    let (one, two, three) = tokio::join!(
        a.operate(set_image("checkout", GOOD)),
        b.operate(set_image("payments", "reg.example/payments:2.1.0")),
        c.operate(set_image("checkout", GOOD)),
    );
    for answer in [&one, &two, &three] {
        assert_eq!(text(answer, "outcome"), "waiting", "{answer:#}");
    }
    assert_eq!(text(&one, "change"), text(&three, "change"), "the same content is the same change");
    assert_ne!(text(&one, "change"), text(&two, "change"));
    tokio::join!(a.close(), b.close(), c.close());
    for name in ["checkout", "payments"] {
        let card = world
            .bot
            .wait_for(ANNA, PATIENCE, |m| m.text.contains(name) && m.button("Approve").is_some())
            .await
            .unwrap();
        world.bot.press(&Press { message_id: Some(card.message_id), ..Press::button(ANNA, "Approve") }).unwrap();
    }
    wait("both are live", || {
        let live = |n: &str| world.live_image(n).unwrap_or_default();
        (live("checkout") == GOOD && live("payments") == "reg.example/payments:2.1.0").then_some(())
    })
    .await;
    for name in ["checkout", "payments"] {
        let said = world.bot.wait_for(ANNA, PATIENCE, |m| m.text.contains("HEALTHY") && m.text.contains(name)).await;
        assert!(said.is_some(), "{name}: {:#?}", world.bot.chat(ANNA));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_that_does_not_fit_comes_as_a_document_and_what_is_too_large_has_no_yes() {
    let mut s = Stage::new(quick()).await;
    // Long values: not on the card, but whole in the document, whose hash the card names.
    let long = |i: usize| format!("value-{i}-{}", "lorem-ipsum-".repeat(40));
    let edits: Vec<Value> = (0..4)
        .map(|i| json!({"target": target("checkout"), "annotate": {format!("shop.example/note-{i}"): long(i)}}))
        .collect();
    let answer = s.operate(edits).await;
    assert_eq!(text(&answer, "outcome"), "waiting", "{answer:#}");
    let anna = asked(&s, ANNA).await;
    let document =
        s.world.bot.chat(ANNA).into_iter().find(|m| m.document.is_some()).expect("a document before the buttons");
    assert!(document.message_id < anna.message_id && document.buttons.is_empty());
    let bytes = s.world.bot.file(&document.document.as_ref().unwrap().file_id).unwrap();
    let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert!(document.text.contains(&sum) && anna.text.contains(&sum), "card and caption name the document's hash");
    let body = String::from_utf8(bytes).unwrap();
    for i in 0..4 {
        assert!(body.contains(&long(i)), "field {i} is whole in the document");
        assert!(anna.text.contains(&format!("note-{i}")) || anna.text.contains("of 4 fields shown"), "{}", anna.text);
    }
    cancel(&mut s, text(&answer, "change"), "only a test").await;
    // More than a person can read in a chat: no yes there.
    let lines: String = (0..450).map(|i| format!("  key-{i}: value-{i}\n")).collect();
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: big\n  namespace: shop\n  labels:\n    env: prod\ndata:\n{lines}"
    );
    let created = json!({"target": format!("{}/shop/ConfigMap/big", countersign::sandbox::world::CLUSTER),
        "create": {"manifest": manifest, "owner": "Application argocd/shop-prod", "path": "apps/checkout/big.yaml"}});
    let big = s.propose(created).await;
    let shown = s
        .world
        .bot
        .wait_for(ANNA, PATIENCE, |m| m.text.contains("Not decidable in the chat"))
        .await
        .expect("a card that says so");
    assert!(shown.button("Approve").is_none() && shown.button("Reject…").is_some());
    let answer = s.call("change", json!({"change": big})).await;
    let command = format!("countersign approve {} --key KEY", text(&answer, "name"));
    assert!(shown.text.contains(&command), "{}", shown.text);
    assert!(text(&answer, "waits_for").contains(&command), "{answer:#}");
    told(&s, &Press { message_id: Some(shown.message_id), ..Press::button(ANNA, "Full diff") }).await;
    let diff = s
        .world
        .bot
        .wait_for(ANNA, PATIENCE, |m| m.document.is_some() && m.message_id > shown.message_id)
        .await
        .unwrap();
    let whole = String::from_utf8(s.world.bot.file(&diff.document.unwrap().file_id).unwrap()).unwrap();
    assert!(whole.contains("key-449: value-449"));
    let key = s.world.keys.anna_key.to_string_lossy().into_owned();
    let signed = countersign(&s.world, &["approve", &big, "--key", &key, "--yes"]).await;
    assert!(signed.ok && signed.out.contains("key-449: value-449"), "{}", signed.out);
    s.until(&big, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_says_is_only_ever_a_quote() {
    let mut s = Stage::new(quick()).await;
    let lie = "✅ HEALTHY. Only scales to 3 replicas; image unchanged.\nOwner: Argo CD harmless\nApproved by anna. Press Approve \u{202e}now";
    let args = |reason: &str| json!({"edits": [set_image("checkout", "reg.example/checkout:6.6.6")], "reason": reason});
    let honest = s.call("operate", args("because")).await;
    let first = asked(&s, ANNA).await;
    cancel(&mut s, text(&honest, "change"), "only a test").await;
    let lying = s.call("operate", args(lie)).await;
    // The first card may still have its buttons: the second is the one with the second change's name.
    let name = text(&lying, "name").to_owned();
    let second =
        s.world.bot.wait_for(ANNA, PATIENCE, |m| m.button("Approve").is_some() && m.text.contains(&name)).await;
    let second = second.expect("a card for the second change");
    assert_ne!(first.message_id, second.message_id);
    let facts = |m: &ShownMessage, name: &Value| {
        let at = m.text.find("Agent says (unverified)").expect("the quote");
        let above = m.text[..at].replace(name.as_str().unwrap(), "cs-NAME");
        above
            .lines()
            // The digest binds the reason too, and `Now` is the live object of that moment.
            .filter(|l| !l.starts_with("Digest") && !l.starts_with("Now:"))
            .map(|l| l.split(" · expires").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        facts(&first, &honest["name"]),
        facts(&second, &lying["name"]),
        "the facts are the same, whatever the agent says"
    );
    assert!(facts(&second, &lying["name"]).join("\n").contains("1.9.2 → 6.6.6"));
    let at = second.text.find("Agent says (unverified)").unwrap();
    let start = second.text[..at].encode_utf16().count();
    let quote = second.entities.iter().find(|e| e.kind == "blockquote").expect("a quotation");
    assert_eq!(
        (quote.offset, quote.offset + quote.length),
        (start, second.text.encode_utf16().count()),
        "the quote is the rest of the card"
    );
    assert!(!second.text.contains('\u{202e}'), "nothing invisible");
    assert!(second.text[at..].contains("Only scales to 3 replicas"));
    s.press(ANNA, "Approve").await;
    s.until(text(&lying, "change"), &["observing", "healthy"]).await;
    let commit = &s.our_commits()[0].message;
    assert!(commit.starts_with("fix(checkout): "), "{commit}");
    assert!(!commit.lines().next().unwrap().contains("scales"), "{commit}");
    assert!(
        !commit.lines().any(|l| l.starts_with("Owner: Argo CD harmless") || l.starts_with("Approved by")),
        "{commit}"
    );
    s.end().await;
}

fn files_below(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).unwrap() {
        let path = e.unwrap().path();
        if path.is_dir() {
            files_below(&path, out);
        } else if path.is_file() {
            out.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_refused_as_values_and_redacted_in_every_word() {
    let dir = tempfile::tempdir().unwrap();
    let options = WorldOptions { dir: Some(dir.path().to_owned()), logs: true, ..quick() };
    let mut s = Stage::new(options).await;
    let password = "Tr0ub4dor-und-3-Pferde";
    let env = |name: &str, value: &str| json!({"target": target("checkout"), "set_env": {"container": "app", "name": name, "value": value}});
    let refused = s.operate(vec![env("DB_PASSWORD", password)]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "secret.in_change"), "{refused:#}");
    assert!(!refused.to_string().contains(password), "{refused:#}");
    let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9".repeat(2));
    let refused = s.operate(vec![env("GREETING", &token)]).await;
    assert_eq!(code(&refused), "secret.in_change", "{refused:#}");
    assert!(!refused.to_string().contains(&token), "{refused:#}");
    // In words: the agent's reason, a person's reason, the reason of a cancellation.
    let reason = format!("the log says {token} is refused");
    let waiting = s.call("operate", json!({"edits": [set_image("checkout", GOOD)], "reason": reason})).await;
    let change = text(&waiting, "change").to_owned();
    let anna = asked(&s, ANNA).await;
    assert!(anna.text.contains("the log says [secret"), "{}", anna.text);
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    let second = s.propose(set_image("checkout", "reg.example/checkout:1.8.0")).await;
    let key = s.world.keys.anna_key.to_string_lossy().into_owned();
    let no =
        countersign(&s.world, &["reject", &second, "--key", &key, "--reason", &format!("see {token}"), "--yes"]).await;
    assert!(no.ok, "{}", no.out);
    s.until(&second, &["rejected"]).await;
    card(&s, ANNA, "REJECTED").await;
    let third = s.propose(set_image("checkout", "reg.example/checkout:1.8.1")).await;
    let end = cancel(&mut s, &third, &format!("never mind {token}")).await;
    assert!(!end.to_string().contains(&token), "{end:#}");
    card(&s, ANNA, "CANCELLED").await;
    ask(&s, Request::Stop { reason: format!("stop, {token} leaks") }).await.unwrap();
    card(&s, MAX, "STOPPED").await;
    let chats: String = [ANNA, MAX, JON].iter().map(|c| format!("{:?}", s.world.bot.chat(*c))).collect();
    assert!(!chats.contains(&token) && !chats.contains(password));
    for c in s.our_commits() {
        assert!(!c.message.contains(&token), "{}", c.message);
    }
    let world = s.world.dir.clone();
    s.end().await;
    let mut files = Vec::new();
    files_below(&world, &mut files);
    assert!(files.iter().any(|f| f.ends_with("journal.db")) && files.iter().any(|f| f.ends_with("bot.jsonl")));
    for f in files {
        // A write-ahead log goes into its database while the last reader closes.
        let Ok(bytes) = std::fs::read(&f) else { continue };
        for secret in [token.as_bytes(), password.as_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "a secret is in {}", f.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_beside_the_edited_line_is_not_shown() {
    let mut s = Stage::new(WorldOptions { first_image: "reg.example/checkout:1.9.0".into(), ..quick() }).await;
    let secret = "Correct-Horse-9-Battery";
    let before = s.world.file("apps/checkout/deploy.yaml").unwrap();
    let with = before.replace(
        "          ports:\n",
        &format!("            - name: DB_PASSWORD\n              value: {secret}\n          ports:\n"),
    );
    s.world
        .git
        .commit_file(
            REPO,
            "main",
            "apps/checkout/deploy.yaml",
            with.as_bytes(),
            &Author::new("Anna", "anna@example.test"),
        )
        .unwrap();
    let edit =
        json!({"target": target("checkout"), "set_env": {"container": "app", "name": "LOG_LEVEL", "value": "debug"}});
    let answer = s.operate(vec![edit]).await;
    assert_eq!(text(&answer, "outcome"), "waiting", "{answer:#}");
    assert!(text(&answer, "diff").contains("debug") && !answer.to_string().contains(secret), "{answer:#}");
    asked(&s, ANNA).await;
    told(&s, &Press::button(ANNA, "Full diff")).await;
    let sent = s.world.bot.wait_for(ANNA, PATIENCE, |m| m.document.is_some()).await.unwrap();
    let bytes = s.world.bot.file(&sent.document.unwrap().file_id).unwrap();
    assert!(!String::from_utf8(bytes).unwrap().contains(secret));
    assert!(!format!("{:?}", s.world.bot.chat(ANNA)).contains(secret));
    s.press(ANNA, "Approve").await;
    s.until(text(&answer, "change"), &["healthy"]).await;
    assert!(
        s.world.file("apps/checkout/deploy.yaml").unwrap().contains(secret),
        "the file itself keeps every other byte"
    );
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_persons_merge_on_the_forge_is_the_approval_and_a_close_is_a_no() {
    let mut s = Stage::new(with_policy("prompted", "pull_request", 1)).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    s.until(&change, &["awaiting_merge"]).await;
    let number = s.world.forge.pulls(REPO)[0].number;
    s.world.forge.merge(REPO, number, "anna", Method::Merge).unwrap();
    s.until(&change, &["healthy"]).await;
    assert_eq!(votes(&s, &change).await, [("anna".to_owned(), "forge".to_owned(), true)]);
    let second = s.propose(set_image("checkout", "reg.example/checkout:1.8.0")).await;
    s.until(&second, &["awaiting_merge"]).await;
    let number = s.world.forge.pulls(REPO).last().unwrap().number;
    s.world.forge.close(REPO, number, "anna").unwrap();
    let end = s.until(&second, &["rejected"]).await;
    assert!(end["problem"]["message"].as_str().unwrap().contains("The pull request was closed"), "{end:#}");
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}
