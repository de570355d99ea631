use super::*;
use crate::sandbox::bot::{self, BotApi, BotOptions, Press};
use crate::sandbox::host::{Fault, Mishap};
use countersign_core::error::Retry;
use serde_json::json;

const ANNA: i64 = 1001;
const BERT: i64 = 1002;

async fn world() -> (BotApi, Telegram) {
    let api =
        bot::start(BotOptions { conflict_spacing: Duration::from_millis(50), ..BotOptions::default() }).await.unwrap();
    api.add_user(ANNA, "Anna", Some("anna"), true);
    api.add_user(BERT, "Bert", None, false);
    let telegram = telegram(&api);
    (api, telegram)
}

fn telegram(api: &BotApi) -> Telegram {
    Telegram::new(&SecretString::from(api.token()), Some(&api.url())).unwrap()
}

fn card() -> Card {
    Card {
        text: "Ship 🦀 web?\nreplicas: 2 → 4".into(),
        entities: vec![
            Entity { kind: EntityKind::Bold, offset: 0, length: 4 },
            Entity { kind: EntityKind::Pre(Some("diff".into())), offset: 13, length: 15 },
        ],
        buttons: vec![vec![
            Button { label: "Approve".into(), data: "a:handle".into() },
            Button { label: "Reject".into(), data: "r:handle".into() },
        ]],
        ..Card::default()
    }
}

async fn now(telegram: &Telegram, offset: i64) -> Vec<Inbound> {
    telegram.poll(offset, Duration::ZERO).await.unwrap()
}

#[tokio::test]
async fn the_check_names_the_bot_and_refuses_a_webhook() {
    let (api, telegram) = world().await;
    assert_eq!(telegram.check().await.unwrap().username, "countersign_sandbox_bot");
    api.set_webhook("https://evil.example/hook");
    assert_eq!(telegram.check().await.unwrap_err().code, "telegram.webhook_set");
    assert_eq!(telegram.poll(0, Duration::ZERO).await.unwrap_err().code, "telegram.webhook_set");
}

#[tokio::test]
async fn a_card_arrives_with_its_formatting_and_buttons_and_without_a_preview() {
    let (api, telegram) = world().await;
    let sent = telegram.send(ANNA, &Card { silent: true, ..card() }).await.unwrap();
    let shown = &api.chat(ANNA)[0];
    assert_eq!((shown.message_id, shown.text.as_str()), (sent.message_id, card().text.as_str()));
    assert_eq!((shown.entities[1].kind.as_str(), shown.entities[1].language.as_deref()), ("pre", Some("diff")));
    assert_eq!(shown.button("Reject").unwrap().callback_data.as_deref(), Some("r:handle"));
    assert!(shown.preview_off && shown.silent);
}

#[tokio::test]
async fn a_document_goes_before_the_text_that_answers_it() {
    let (api, telegram) = world().await;
    let document =
        Document { filename: "cs-7F3K.diff".into(), bytes: b"--- a\n".to_vec(), caption: "SHA-256 …".into() };
    let sent = telegram.send(ANNA, &Card { document: Some(document), ..card() }).await.unwrap();
    let shown = api.chat(ANNA);
    assert_eq!(shown.len(), 2);
    let file = shown[0].document.as_ref().unwrap();
    assert_eq!((file.file_name.as_str(), api.file(&file.file_id).unwrap()), ("cs-7F3K.diff", b"--- a\n".to_vec()));
    assert!(shown[0].buttons.is_empty());
    assert_eq!((sent.document_id, shown[1].reply_to), (Some(shown[0].message_id), sent.document_id));
}

#[tokio::test]
async fn no_document_means_no_buttons() {
    let (api, telegram) = world().await;
    let body = json!({"ok": false, "error_code": 400, "description": "Bad Request: file is too big"});
    let mishap = Mishap::Error { status: 400, body, headers: Default::default() };
    api.fault(Fault { matching: Some("SendDocument".into()), times: None, mishap });
    let document = Document { filename: "x.diff".into(), bytes: vec![1], caption: String::new() };
    let problem = telegram.send(ANNA, &Card { document: Some(document), ..card() }).await.unwrap_err();
    assert_eq!(problem.code, "telegram.refused");
    assert!(problem.evidence[0].contains("file is too big"));
    assert!(api.chat(ANNA).is_empty());
}

#[tokio::test]
async fn what_telegram_would_cut_or_drop_is_refused_before_it_leaves() {
    let (api, telegram) = world().await;
    let code = async |card: Card| telegram.send(ANNA, &card).await.unwrap_err().code;
    assert_eq!(code(Card::text("x".repeat(4097))).await, "telegram.too_long");
    assert_eq!(code(Card::text("  ")).await, "telegram.too_long");
    let entity = |offset, length| vec![Entity { kind: EntityKind::Bold, offset, length }];
    assert_eq!(code(Card { entities: entity(0, 3), ..Card::text("ab") }).await, "telegram.bad_entity");
    assert_eq!(code(Card { entities: entity(1, 1), ..Card::text("🦀") }).await, "telegram.bad_entity");
    assert_eq!(code(Card { entities: entity(0, usize::MAX), ..Card::text("ab") }).await, "telegram.bad_entity");
    let many = std::iter::repeat_n(entity(0, 1), 101).flatten().collect();
    assert_eq!(code(Card { entities: many, ..Card::text("ab") }).await, "telegram.bad_entity");
    let button = |data: String| vec![vec![Button { label: "b".into(), data }]];
    assert_eq!(code(Card { buttons: button("x".repeat(65)), ..Card::text("ab") }).await, "telegram.bad_button");
    assert!(api.log().iter().all(|l| l["what"] != "call"), "nothing was sent");
    telegram.send(ANNA, &Card { entities: entity(0, 2), ..Card::text("🦀".repeat(4096)) }).await.unwrap();
}

#[tokio::test]
async fn a_press_and_a_text_come_with_numbers_only() {
    let (api, telegram) = world().await;
    let sent = telegram.send(ANNA, &card()).await.unwrap();
    let pressed = api.press(&Press::button(ANNA, "Approve").by(BERT)).unwrap();
    api.say(ANNA, ANNA, "/stop").unwrap();
    let got = now(&telegram, 0).await;
    let expected = Inbound::Press {
        update_id: pressed.update_id.unwrap(),
        callback_id: pressed.callback_query_id,
        from_id: BERT,
        from_is_bot: false,
        chat_id: ANNA,
        chat_kind: ChatKind::Private,
        message_id: sent.message_id,
        data: "a:handle".into(),
    };
    assert_eq!(got[0], expected);
    assert!(matches!(&got[1], Inbound::Text { from_id: ANNA, text, .. } if text == "/stop"));
}

#[tokio::test]
async fn polling_acknowledges_only_what_the_offset_says() {
    let (api, telegram) = world().await;
    api.say(ANNA, ANNA, "one").unwrap();
    let first = now(&telegram, 0).await;
    assert_eq!(now(&telegram, 0).await, first, "still there");
    assert_eq!(now(&telegram, first[0].update_id()).await, first, "its own number does not acknowledge it");
    assert!(now(&telegram, first[0].update_id() + 1).await.is_empty());
    assert!(now(&telegram, 0).await.is_empty(), "gone for good");
}

#[tokio::test]
async fn odd_updates_never_stop_the_loop() {
    let (api, telegram) = world().await;
    let from = json!({"id": ANNA, "is_bot": false, "first_name": "A"});
    let chat = json!({"id": ANNA, "type": "private"});
    let odd = [
        ("message", json!({"completely": "different"})),
        ("message", json!("not even an object")),
        ("callback_query", json!({"id": "1", "from": from, "inline_message_id": "x", "data": "a"})),
        ("callback_query", json!({"id": "2", "from": from, "chat_instance": "1", "game_short_name": "g"})),
        (
            "message",
            json!({"message_id": 1, "date": 1, "chat": chat, "from": from, "text": "/stop", "forward_origin": {}}),
        ),
        ("message", json!({"message_id": 1, "date": 1, "chat": chat, "from": from, "sticker": {}})),
    ];
    let ids: Vec<_> = odd.into_iter().map(|(kind, body)| api.enqueue(kind, body)).collect();
    let last = api.say(ANNA, ANNA, "after").unwrap();
    let got = now(&telegram, 0).await;
    assert_eq!(got[..6], ids.iter().map(|id| Inbound::Other { update_id: *id }).collect::<Vec<_>>());
    assert_eq!(got[6].update_id(), last);
}

#[tokio::test]
async fn a_press_on_a_vanished_message_or_from_a_copy_is_told_as_it_is() {
    let (api, telegram) = world().await;
    api.add_group(-500, bot::ChatKind::Supergroup, "Ops", &[ANNA]);
    telegram.send(ANNA, &card()).await.unwrap();
    api.press(&Press { inaccessible: true, ..Press::button(ANNA, "Approve") }).unwrap();
    api.press(&Press { claimed_chat_id: Some(-500), ..Press::button(ANNA, "Approve") }).unwrap();
    api.press(&Press { from_bot: true, ..Press::forged(ANNA, 77, "zz") }).unwrap();
    let got = now(&telegram, 0).await;
    assert!(matches!(got[0], Inbound::Press { chat_id: ANNA, message_id: 1, .. }));
    assert!(matches!(got[1], Inbound::Press { chat_id: -500, chat_kind: ChatKind::Supergroup, .. }));
    assert!(matches!(got[2], Inbound::Press { from_is_bot: true, message_id: 77, .. }));
}

#[tokio::test]
async fn editing_twice_is_success_and_a_deleted_message_is_named() {
    let (api, telegram) = world().await;
    let sent = telegram.send(ANNA, &card()).await.unwrap();
    let settled = Card::text("Approved by Anna");
    telegram.edit(ANNA, sent.message_id, &settled).await.unwrap();
    telegram.edit(ANNA, sent.message_id, &settled).await.unwrap();
    let shown = &api.chat(ANNA)[0];
    assert!(shown.buttons.is_empty() && shown.text == "Approved by Anna");
    let gone = telegram.edit(ANNA, 999, &settled).await.unwrap_err();
    assert_eq!((gone.code.as_ref(), gone.retry), ("telegram.message_gone", Retry::Never));
}

#[tokio::test]
async fn a_press_is_answered_once_and_a_late_answer_is_success() {
    let (api, telegram) = world().await;
    telegram.send(ANNA, &card()).await.unwrap();
    let pressed = api.press(&Press::button(ANNA, "Approve")).unwrap();
    telegram.answer(&pressed.callback_query_id, &"y".repeat(300), true).await.unwrap();
    let (text, alert) = api.answer_to(&pressed.callback_query_id).unwrap();
    assert_eq!((text.len(), alert), (200, true));
    api.clock().advance(Duration::from_secs(600));
    telegram.answer(&pressed.callback_query_id, "late", false).await.unwrap();
}

#[tokio::test]
async fn a_second_poller_is_named() {
    let (api, first) = world().await;
    let second = telegram(&api);
    let waiting = tokio::spawn(async move { first.poll(0, Duration::from_secs(20)).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    second.poll(0, Duration::ZERO).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().code, "telegram.second_poller");
}

#[tokio::test]
async fn a_flood_is_waited_out() {
    let (api, telegram) = world().await;
    api.set_limits(Some(bot::Limits { per_chat: 1, per_chat_seconds: 1, ..bot::Limits::default() }));
    let before = std::time::Instant::now();
    telegram.send(ANNA, &card()).await.unwrap();
    telegram.send(ANNA, &card()).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(api.chat(ANNA).len(), 2);
    api.set_limits(Some(bot::Limits { per_chat: 1, per_chat_seconds: 3600, ..bot::Limits::default() }));
    telegram.send(ANNA, &card()).await.unwrap();
    let problem = telegram.send(ANNA, &card()).await.unwrap_err();
    assert_eq!((problem.code.as_ref(), problem.retry), ("telegram.flood", Retry::Later));
}

#[tokio::test]
async fn people_who_cannot_be_reached_are_told_apart() {
    let (api, telegram) = world().await;
    let code = async |chat| telegram.send(chat, &card()).await.unwrap_err().code;
    assert_eq!(code(4).await, "telegram.chat_not_found");
    assert_eq!(code(BERT).await, "telegram.cannot_write");
    api.set_blocked(ANNA, true);
    assert_eq!(code(ANNA).await, "telegram.cannot_write");
}

#[tokio::test]
async fn outages_are_problems_without_the_token() {
    let (api, telegram) = world().await;
    api.fault(Fault { matching: Some("SendMessage".into()), times: Some(1), mishap: Mishap::LoseAnswer });
    let lost = telegram.send(ANNA, &card()).await.unwrap_err();
    assert_eq!((lost.code.as_ref(), api.chat(ANNA).len()), ("telegram.no_answer", 1));
    let body = json!(format!("no route /bot{}/x", api.token()));
    let mishap = Mishap::Error { status: 404, body, headers: Default::default() };
    api.fault(Fault { matching: Some("GetUpdates".into()), times: Some(1), mishap });
    let odd = telegram.poll(0, Duration::ZERO).await.unwrap_err();
    assert_eq!(odd.code, "telegram.no_answer");
    api.down().await;
    let down = telegram.poll(0, Duration::ZERO).await.unwrap_err();
    assert_eq!((down.code.as_ref(), down.retry), ("telegram.unreachable", Retry::Later));
    let wrong = Telegram::new(&SecretString::from("1:wrong"), Some(&api.url())).unwrap();
    api.up().await;
    let refused = wrong.check().await.unwrap_err();
    assert_eq!(refused.code, "telegram.unauthorized");
    let secret = api.token().split_once(':').unwrap().1;
    for problem in [lost, odd, down, refused] {
        let printed = format!("{problem} {problem:?}");
        assert!(!printed.contains(secret) && !printed.contains(&api.url()), "{printed}");
    }
    assert!(!format!("{telegram:?}").contains(secret));
}

#[tokio::test]
async fn a_message_that_was_sent_counts_even_if_the_answer_reads_strangely() {
    let (api, telegram) = world().await;
    let body = json!({"ok": true, "result": {"message_id": 42, "chat": "of a future kind"}});
    let mishap = Mishap::Error { status: 200, body, headers: Default::default() };
    api.fault(Fault { matching: Some("SendMessage".into()), times: Some(1), mishap });
    assert_eq!(telegram.send(ANNA, &card()).await.unwrap().message_id, 42);
}

#[test]
fn bad_tokens_and_addresses_are_refused_at_once() {
    let code = |token: &str, url: Option<&str>| Telegram::new(&SecretString::from(token), url).unwrap_err().code;
    assert_eq!(code("no-colon", None), "telegram.bad_token");
    assert_eq!(code("1:with/slash", None), "telegram.bad_token");
    assert_eq!(code("1:fine", Some("file:///etc")), "telegram.bad_url");
}

#[test]
fn impersonal_accounts_are_nobody() {
    for id in [1_087_968_824, 136_817_688, 777_000, 0, -5] {
        assert!(is_impersonal(id));
    }
    assert!(!is_impersonal(ANNA));
}
