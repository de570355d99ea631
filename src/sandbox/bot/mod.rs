//! A Telegram Bot API server on loopback: the shapes, limits and refusals that a bot sees, and people to talk to.
//!
//! Behaviour follows tdlib/telegram-bot-api (`Client.cpp`: a press waits 150 s in the queue, a message a day;
//! a second poller ends the first with 409, answers of that kind are 3 s apart) and tdlib (`MessageEntity.cpp`,
//! `MessageContent.cpp`: lengths in code points, entity offsets in UTF-16 units). What it does not know
//! (`parse_mode`, media other than documents) it refuses instead of pretending.

mod args;
mod control;
mod limits;
mod methods;
mod outgoing;
mod people;
mod queue;
mod shape;
mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::clock::Clock;
use super::host::{Fault, Guard, Host, HostOptions, lock};

pub use limits::Limits;
pub use people::{Press, Pressed};
use state::State;
pub use state::{ChatKind, SentDocument, ShownButton, ShownEntity, ShownMessage};

/// How the server is started.
#[derive(Debug, Clone)]
pub struct BotOptions {
    /// The one accepted token, `<bot id>:<secret>`.
    pub token: String,
    /// User name of the bot.
    pub username: String,
    /// Port; 0 = any.
    pub port: u16,
    /// JSON-lines log.
    pub log: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
    /// Flood limits; absent = none, so that tests are fast.
    pub limits: Option<Limits>,
    /// How long a press waits for a poll.
    pub press_lifetime: Duration,
    /// How long a press can be answered.
    pub answer_lifetime: Duration,
    /// How long any other update waits for a poll.
    pub update_lifetime: Duration,
    /// Least time between two 409 answers.
    pub conflict_spacing: Duration,
}

impl Default for BotOptions {
    fn default() -> Self {
        Self {
            token: "7000000001:sandbox-token".into(),
            username: "countersign_sandbox_bot".into(),
            port: 0,
            log: None,
            clock: Clock::new(),
            limits: None,
            press_lifetime: Duration::from_secs(150),
            answer_lifetime: Duration::from_secs(150),
            update_lifetime: Duration::from_secs(86_400),
            conflict_spacing: Duration::from_secs(3),
        }
    }
}

pub(crate) struct Shared {
    host: Arc<Host>,
    options: BotOptions,
    state: Mutex<State>,
    /// Wakes polls: a new update, or a newer poller.
    news: Notify,
    /// Wakes whoever waits for a chat to change.
    chats: Notify,
}

/// A running Bot API server. Clones share it; the last one dropped stops it.
#[derive(Clone)]
pub struct BotApi {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl std::fmt::Debug for BotApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BotApi").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// Starts the server.
///
/// # Errors
/// The port is taken, the log cannot be opened, or the token has no numeric id before its colon.
pub async fn start(options: BotOptions) -> std::io::Result<BotApi> {
    let id = options.token.split_once(':').and_then(|(id, _)| id.parse::<i64>().ok());
    let Some(id) = id else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "a bot token is `<number>:<secret>`"));
    };
    let host_options = HostOptions { port: options.port, log: options.log.clone(), clock: options.clock.clone() };
    let (host, sockets) = Host::bind("bot", host_options).await?;
    let state = State::new(id, &options.username, options.limits);
    let shared = Arc::new(Shared {
        host: host.clone(),
        options,
        state: Mutex::new(state),
        news: Notify::new(),
        chats: Notify::new(),
    });
    host.serve(sockets, methods::router(shared.clone()), control::router(shared.clone()));
    Ok(BotApi { shared, _guard: Arc::new(Guard(host)) })
}

impl BotApi {
    /// Base address; a bot's calls go to `<url>/bot<token>/METHOD`.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.host.url()
    }

    /// Control API that stays up during outages.
    #[must_use]
    pub fn control_url(&self) -> String {
        self.shared.host.control_url()
    }

    /// The accepted token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.shared.options.token
    }

    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.shared.host.clock()
    }

    /// Adds a person. Who has not `started` the bot cannot be written to (403).
    pub fn add_user(&self, id: i64, first_name: &str, username: Option<&str>, started: bool) {
        lock(&self.shared.state).add_user(id, first_name, username, started);
        self.shared.host.log("user", json!({"id": id, "started": started}));
    }

    /// Adds a group with the bot in it; `id` is negative as at Telegram.
    pub fn add_group(&self, id: i64, kind: ChatKind, title: &str, members: &[i64]) {
        lock(&self.shared.state).add_group(id, kind, title, members);
        self.shared.host.log("group", json!({"id": id, "members": members}));
    }

    /// The person blocks the bot, or takes it back.
    pub fn set_blocked(&self, user: i64, blocked: bool) {
        lock(&self.shared.state).set_blocked(user, blocked);
    }

    /// What a chat shows, oldest first.
    #[must_use]
    pub fn chat(&self, chat: i64) -> Vec<ShownMessage> {
        lock(&self.shared.state).shown(chat)
    }

    /// Waits until a message of the chat satisfies `wanted`, and returns it.
    pub async fn wait_for(
        &self,
        chat: i64,
        timeout: Duration,
        wanted: impl Fn(&ShownMessage) -> bool,
    ) -> Option<ShownMessage> {
        self.shared.wait_for(chat, timeout, wanted).await
    }

    /// Presses a button as a person.
    ///
    /// # Errors
    /// In words, when there is no such person, chat, message or button.
    pub fn press(&self, press: &Press) -> Result<Pressed, String> {
        self.shared.press(press)
    }

    /// Writes to the bot as a person; `/start` starts it. Returns the update id.
    ///
    /// # Errors
    /// In words, when there is no such person or chat.
    pub fn say(&self, user: i64, chat: i64, text: &str) -> Result<i64, String> {
        self.shared.say(user, chat, text, None)
    }

    /// The same as an answer to a message of that chat.
    ///
    /// # Errors
    /// In words, when there is no such person or chat.
    pub fn reply(&self, user: i64, chat: i64, to: i64, text: &str) -> Result<i64, String> {
        self.shared.say(user, chat, text, Some(to))
    }

    /// Approves as an attentive person does: presses Approve, and where the card then shows numbers, the one that
    /// stands in its text.
    ///
    /// # Errors
    /// In words, when there is no such button, or the numbers never come.
    pub async fn approve(&self, chat: i64, message_id: Option<i64>) -> Result<Pressed, String> {
        self.shared.approve(chat, message_id).await
    }

    /// Queues any update (`kind` is the field's name), also one that no client understands.
    pub fn enqueue(&self, kind: &str, body: Value) -> i64 {
        self.shared.enqueue(kind, body)
    }

    /// What the bot answered to a press: text and whether as an alert.
    #[must_use]
    pub fn answer_to(&self, callback_query_id: &str) -> Option<(String, bool)> {
        lock(&self.shared.state).answer_to(callback_query_id)
    }

    /// The bytes of a document that was sent.
    #[must_use]
    pub fn file(&self, file_id: &str) -> Option<Vec<u8>> {
        lock(&self.shared.state).files.get(file_id).cloned()
    }

    /// Changes the flood limits.
    pub fn set_limits(&self, limits: Option<Limits>) {
        lock(&self.shared.state).limits.set(limits);
    }

    /// Pretends that a webhook is set: polling then fails with 409.
    pub fn set_webhook(&self, url: &str) {
        lock(&self.shared.state).webhook = url.to_owned();
        self.shared.news.notify_waiters();
    }

    /// Refuses connections until [`BotApi::up`].
    pub async fn down(&self) {
        self.shared.host.down().await;
    }

    /// Ends outages and faults.
    pub async fn up(&self) {
        self.shared.host.up().await;
    }

    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.host.fault(fault);
    }

    /// Every call and event so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.shared.host.log_lines()
    }

    /// Stops the server.
    pub async fn stop(self) {
        self.shared.host.stop().await;
    }
}

#[cfg(test)]
mod tests;
