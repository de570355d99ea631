use super::*;
use crate::sandbox::host::Mishap;
use serde_json::json;

const ANNA: i64 = 1001;
const BERT: i64 = 1002;
const GROUP: i64 = -100_200;

async fn bot() -> BotApi {
    bot_with(BotOptions { conflict_spacing: Duration::from_millis(50), ..BotOptions::default() }).await
}

async fn bot_with(options: BotOptions) -> BotApi {
    let bot = start(options).await.unwrap();
    bot.add_user(ANNA, "Anna", Some("anna"), true);
    bot.add_user(BERT, "Bert", None, false);
    bot.add_group(GROUP, ChatKind::Supergroup, "Operations", &[ANNA, BERT]);
    bot
}

/// Status and body of a call with JSON arguments.
async fn call(bot: &BotApi, method: &str, args: Value) -> (u16, Value) {
    let url = format!("{}/bot{}/{method}", bot.url(), bot.token());
    let response = reqwest::Client::new().post(url).json(&args).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn ok(bot: &BotApi, method: &str, args: Value) -> Value {
    let (status, body) = call(bot, method, args).await;
    assert_eq!(status, 200, "{body}");
    body["result"].clone()
}

async fn refused(bot: &BotApi, method: &str, args: Value) -> (u16, String) {
    let (status, body) = call(bot, method, args).await;
    assert_eq!(body["ok"], false, "{body}");
    assert_eq!(body["error_code"], status);
    (status, body["description"].as_str().unwrap().to_owned())
}

fn card(chat: i64) -> Value {
    json!({"chat_id": chat, "text": "Ship it?", "reply_markup": {"inline_keyboard": [[
        {"text": "Approve", "callback_data": "a:1"}, {"text": "Reject", "callback_data": "r:1"}]]}})
}

#[tokio::test]
async fn a_wrong_token_and_an_unknown_method_are_refused() {
    let bot = bot().await;
    let response = reqwest::get(format!("{}/bot1:wrong/getMe", bot.url())).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(refused(&bot, "sendPigeon", json!({})).await.0, 404);
    assert_eq!(ok(&bot, "getMe", json!({})).await["is_bot"], true);
}

#[tokio::test]
async fn only_people_who_started_the_bot_are_reached() {
    let bot = bot().await;
    let text = |chat| json!({"chat_id": chat, "text": "hello"});
    assert_eq!(refused(&bot, "sendMessage", text(4)).await, (400, "Bad Request: chat not found".into()));
    assert_eq!(refused(&bot, "sendMessage", text(BERT)).await.0, 403);
    bot.say(BERT, BERT, "/start").unwrap();
    ok(&bot, "sendMessage", text(BERT)).await;
    bot.set_blocked(BERT, true);
    let blocked = refused(&bot, "sendMessage", text(BERT)).await;
    assert_eq!(blocked, (403, "Forbidden: bot was blocked by the user".into()));
}

#[tokio::test]
async fn text_is_counted_in_code_points_and_entities_in_utf16_units() {
    let bot = bot().await;
    let send = |text: String, entities: Value| json!({"chat_id": ANNA, "text": text, "entities": entities});
    ok(&bot, "sendMessage", send("🦀".repeat(4096), json!([]))).await;
    let long = refused(&bot, "sendMessage", send("🦀".repeat(4097), json!([]))).await;
    assert_eq!(long.1, "Bad Request: message is too long");
    let bold = |offset: u32, length: u32| json!([{"type": "bold", "offset": offset, "length": length}]);
    ok(&bot, "sendMessage", send("🦀ab".into(), bold(2, 2))).await;
    assert!(refused(&bot, "sendMessage", send("🦀ab".into(), bold(2, 3))).await.1.contains("ends after the end"));
    assert!(
        refused(&bot, "sendMessage", send("🦀ab".into(), bold(1, 2))).await.1.contains("middle of a UTF-16 symbol")
    );
    assert!(refused(&bot, "sendMessage", send("  \n".into(), json!([]))).await.1.contains("text is empty"));
}

#[tokio::test]
async fn callback_data_has_at_most_64_bytes() {
    let bot = bot().await;
    let with = |data: &str| {
        json!({"chat_id": ANNA, "text": "x", "reply_markup":
        {"inline_keyboard": [[{"text": "b", "callback_data": data}]]}})
    };
    ok(&bot, "sendMessage", with(&"ä".repeat(32))).await;
    assert_eq!(refused(&bot, "sendMessage", with(&"ä".repeat(33))).await.1, "Bad Request: BUTTON_DATA_INVALID");
}

#[tokio::test]
async fn an_update_is_kept_until_its_offset_is_passed() {
    let bot = bot().await;
    let first = bot.say(ANNA, ANNA, "one").unwrap();
    let second = bot.say(ANNA, ANNA, "two").unwrap();
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|u| u["update_id"].as_i64().unwrap()).collect::<Vec<_>>();
    let got = ok(&bot, "getUpdates", json!({})).await;
    assert_eq!(ids(&got), [first, second]);
    assert_eq!(ids(&ok(&bot, "getUpdates", json!({"limit": 1})).await), [first]);
    assert_eq!(ids(&ok(&bot, "getUpdates", json!({"offset": first + 1})).await), [second]);
    assert_eq!(ids(&ok(&bot, "getUpdates", json!({"offset": 0})).await), [second], "the first is gone for good");
    assert_eq!(ids(&ok(&bot, "getUpdates", json!({"offset": second + 1})).await), [0_i64; 0]);
}

#[tokio::test]
async fn a_press_is_lost_after_150_seconds_and_a_message_is_not() {
    let bot = bot().await;
    ok(&bot, "sendMessage", card(ANNA)).await;
    let pressed = bot.press(&Press::button(ANNA, "Approve")).unwrap();
    bot.say(ANNA, ANNA, "still here").unwrap();
    bot.clock().advance(Duration::from_secs(149));
    assert_eq!(ok(&bot, "getUpdates", json!({})).await.as_array().unwrap().len(), 2);
    bot.clock().advance(Duration::from_secs(2));
    let left = ok(&bot, "getUpdates", json!({})).await;
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(left[0]["message"]["text"], "still here");
    let late = refused(&bot, "answerCallbackQuery", json!({"callback_query_id": pressed.callback_query_id})).await;
    assert!(late.1.contains("query is too old"), "{}", late.1);
    assert!(bot.log().iter().any(|l| l["what"] == "expired" && l["update_id"] == json!(pressed.update_id)));
    bot.clock().advance(Duration::from_secs(86_400));
    assert_eq!(ok(&bot, "getUpdates", json!({})).await, json!([]));
}

#[tokio::test]
async fn a_second_poller_ends_the_first() {
    let bot = bot().await;
    let (one, two) = (bot.clone(), bot.clone());
    let first = tokio::spawn(async move { call(&one, "getUpdates", json!({"timeout": 30})).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = tokio::spawn(async move { call(&two, "getUpdates", json!({"timeout": 30})).await });
    let (status, body) = first.await.unwrap();
    assert_eq!(status, 409);
    assert!(body["description"].as_str().unwrap().starts_with("Conflict: terminated by other getUpdates request"));
    bot.say(ANNA, ANNA, "for the second").unwrap();
    assert_eq!(second.await.unwrap().1["result"][0]["message"]["text"], "for the second");
}

#[tokio::test]
async fn an_unchanged_edit_and_a_missing_message_are_refused_differently() {
    let bot = bot().await;
    let sent = ok(&bot, "sendMessage", card(ANNA)).await;
    let mut edit = card(ANNA);
    edit["message_id"] = sent["message_id"].clone();
    assert!(refused(&bot, "editMessageText", edit.clone()).await.1.starts_with("Bad Request: message is not modified"));
    edit["text"] = json!("Approved by Anna");
    edit.as_object_mut().unwrap().remove("reply_markup");
    let edited = ok(&bot, "editMessageText", edit.clone()).await;
    assert!(edited.get("reply_markup").is_none() && edited["edit_date"].is_i64());
    let shown = bot.chat(ANNA);
    assert_eq!((shown[0].text.as_str(), shown[0].earlier[0].as_str()), ("Approved by Anna", "Ship it?"));
    edit["message_id"] = json!(999);
    assert_eq!(refused(&bot, "editMessageText", edit).await.1, "Bad Request: message to edit not found");
}

#[tokio::test]
async fn presses_may_be_forged_foreign_or_from_a_copy() {
    let bot = bot().await;
    let sent = ok(&bot, "sendMessage", card(ANNA)).await["message_id"].as_i64().unwrap();
    assert!(bot.press(&Press::button(ANNA, "Delete")).is_err());
    bot.press(&Press::button(ANNA, "Approve").by(BERT)).unwrap();
    bot.press(&Press::forged(ANNA, sent, "a:2")).unwrap();
    bot.press(&Press { claimed_chat_id: Some(GROUP), ..Press::button(ANNA, "Approve") }).unwrap();
    bot.press(&Press { inaccessible: true, ..Press::button(ANNA, "Approve") }).unwrap();
    let updates = ok(&bot, "getUpdates", json!({})).await;
    let query = |i: usize| updates[i]["callback_query"].clone();
    assert_eq!((query(0)["from"]["id"].clone(), query(0)["data"].clone()), (json!(BERT), json!("a:1")));
    assert_eq!(query(1)["data"], "a:2");
    assert_eq!(query(2)["message"]["chat"]["id"], GROUP);
    assert!(query(2)["message"].get("reply_markup").is_none());
    assert_eq!(query(3)["message"]["date"], 0);
}

#[tokio::test]
async fn a_flood_is_told_when_to_come_back() {
    let bot = bot_with(BotOptions { limits: Some(Limits::default()), ..BotOptions::default() }).await;
    let text = json!({"chat_id": ANNA, "text": "hello"});
    for _ in 0..3 {
        ok(&bot, "sendMessage", text.clone()).await;
    }
    let (status, body) = call(&bot, "sendMessage", text.clone()).await;
    assert_eq!(status, 429);
    let wait = body["parameters"]["retry_after"].as_u64().unwrap();
    assert!((1..=3).contains(&wait), "{body}");
    bot.clock().advance(Duration::from_secs(wait));
    ok(&bot, "sendMessage", text).await;
    let group = json!({"chat_id": GROUP, "text": "hello"});
    for _ in 0..20 {
        bot.clock().advance(Duration::from_millis(1100));
        ok(&bot, "sendMessage", group.clone()).await;
    }
    bot.clock().advance(Duration::from_millis(1100));
    assert_eq!(call(&bot, "sendMessage", group).await.0, 429, "20 a minute in a group");
}

#[tokio::test]
async fn a_document_keeps_its_bytes() {
    let bot = bot().await;
    let part = reqwest::multipart::Part::bytes(b"--- a\n+++ b\n".to_vec()).file_name("change.diff");
    let form = reqwest::multipart::Form::new()
        .text("chat_id", ANNA.to_string())
        .text("caption", "all of it")
        .part("document", part);
    let url = format!("{}/bot{}/sendDocument", bot.url(), bot.token());
    let sent: Value = reqwest::Client::new().post(url).multipart(form).send().await.unwrap().json().await.unwrap();
    let document = &bot.chat(ANNA)[0].document.clone().unwrap();
    assert_eq!(document.file_name, "change.diff");
    assert_eq!(sent["result"]["caption"], "all of it");
    assert_eq!(bot.file(&document.file_id).unwrap(), b"--- a\n+++ b\n");
}

#[tokio::test]
async fn down_refuses_connections_and_keeps_what_is_queued() {
    let bot = bot().await;
    bot.say(ANNA, ANNA, "before").unwrap();
    bot.down().await;
    let url = format!("{}/bot{}/getMe", bot.url(), bot.token());
    let client = reqwest::Client::new();
    let error = client.get(&url).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    let control = format!("{}/sandbox/up", bot.control_url());
    assert_eq!(client.post(control).send().await.unwrap().status(), 200);
    assert_eq!(ok(&bot, "getUpdates", json!({})).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_still_had_its_effect() {
    let bot = bot().await;
    bot.fault(Fault { matching: Some("sendMessage".into()), times: Some(1), mishap: Mishap::LoseAnswer });
    let url = format!("{}/bot{}/sendMessage", bot.url(), bot.token());
    let lost = reqwest::Client::new().post(&url).json(&card(ANNA)).send().await;
    assert!(lost.is_err());
    assert_eq!(bot.chat(ANNA).len(), 1);
    ok(&bot, "sendMessage", card(ANNA)).await;
    bot.fault(Fault {
        matching: None,
        times: Some(1),
        mishap: Mishap::Error { status: 502, body: json!("Bad Gateway"), headers: Default::default() },
    });
    assert_eq!(reqwest::Client::new().post(&url).json(&card(ANNA)).send().await.unwrap().status(), 502);
}

#[tokio::test]
async fn only_allowed_kinds_are_queued() {
    let bot = bot().await;
    ok(&bot, "getUpdates", json!({"allowed_updates": ["callback_query"]})).await;
    assert!(bot.say(ANNA, ANNA, "unheard").is_err());
    assert_eq!(bot.enqueue("message", json!({})), 0);
    assert_eq!(ok(&bot, "getUpdates", json!({})).await, json!([]));
}

#[tokio::test]
async fn a_script_can_be_a_person_over_http() {
    let bot = bot().await;
    let client = reqwest::Client::new();
    let post = |path: &str, body: Value| client.post(format!("{}/sandbox/{path}", bot.url())).json(&body).send();
    let user = json!({"id": 5, "first_name": "Eve", "started": true});
    assert_eq!(post("users", user).await.unwrap().status(), 200);
    ok(&bot, "sendMessage", card(5)).await;
    let url = format!("{}/sandbox/chats/5?contains=Ship&timeout_s=5", bot.url());
    let chat: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(chat["messages"][0]["buttons"][0][0]["text"], "Approve");
    let pressed: Value = post("press", json!({"chat_id": 5, "button": "Approve"})).await.unwrap().json().await.unwrap();
    let id = pressed["callback_query_id"].as_str().unwrap().to_owned();
    ok(&bot, "answerCallbackQuery", json!({"callback_query_id": id, "text": "Done"})).await;
    let url = format!("{}/sandbox/answers/{id}", bot.url());
    let answer: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["text"], "Done");
    assert_eq!(post("press", json!({"chat_id": 5, "button": "None"})).await.unwrap().status(), 422);
}

#[tokio::test]
async fn an_outage_cuts_a_waiting_poll_and_stopping_ends_everything() {
    let bot = bot().await;
    let url = format!("{}/bot{}/getUpdates?timeout=40", bot.url(), bot.token());
    let waiting = tokio::spawn(reqwest::get(url.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    bot.down().await;
    let cut = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert!(cut.is_err());
    bot.up().await;
    let waiting = tokio::spawn(reqwest::get(url.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::time::timeout(Duration::from_secs(5), bot.stop()).await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    assert!(reqwest::get(url).await.is_err());
}

#[tokio::test]
async fn a_hanging_server_answers_nobody_until_it_is_healed() {
    let bot = bot().await;
    bot.fault(Fault { matching: None, times: None, mishap: Mishap::Hang });
    let url = format!("{}/bot{}/getMe", bot.url(), bot.token());
    let client = reqwest::Client::builder().timeout(Duration::from_millis(200)).build().unwrap();
    assert!(client.get(&url).send().await.unwrap_err().is_timeout());
    bot.up().await;
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_log_file_holds_every_call_and_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bot.jsonl");
    let bot = bot_with(BotOptions { log: Some(path.clone()), ..BotOptions::default() }).await;
    bot.fault(Fault { matching: Some("sendMessage".into()), times: Some(1), mishap: Mishap::LoseAnswer });
    let url = format!("{}/bot{}/sendMessage", bot.url(), bot.token());
    assert!(reqwest::Client::new().post(&url).json(&card(ANNA)).send().await.is_err());
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines, bot.log());
    let call = lines.iter().find(|l| l["what"] == "call").unwrap();
    assert_eq!((call["method"].as_str(), call["status"].as_u64()), (Some("sendMessage"), Some(200)));
    assert_eq!(call["result"]["text"], "Ship it?", "the effect is known although its answer was lost");
    assert!(!text.contains(bot.token()));
}
