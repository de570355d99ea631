//! Telegram, as an edge: sends finished cards, edits them, answers presses, fetches what people did.
//!
//! It decides nothing. [`Telegram::poll`] acknowledges only what its `offset` argument says, so that the caller
//! can store a press in the journal first; people are numbers, never user names; what it cannot read it hands on
//! as [`Inbound::Other`], so that one odd update never stops the loop. There is no Dispatcher: teloxide's
//! acknowledges a batch before it is processed.

mod inbound;
mod outgoing;
mod pace;
mod problem;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::error::{Problem, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use teloxide_core::payloads::{AnswerCallbackQuery, EditMessageText, GetMe, GetWebhookInfo, SendDocument, SendMessage};
use teloxide_core::requests::{JsonRequest, MultipartRequest, Payload, Request};
use teloxide_core::types::{CallbackQueryId, ChatId, MessageId};
use teloxide_core::{Bot, RequestError};
use tokio::time::Instant;

pub use inbound::{ChatKind, Inbound, is_impersonal};
pub use outgoing::{
    Button, CALLBACK_DATA_LIMIT, CAPTION_LIMIT, Card, Document, ENTITY_LIMIT, Entity, EntityKind, TEXT_LIMIT,
};
pub use pace::Urgency;

/// Longest text of an answer to a press, in characters.
pub const ANSWER_LIMIT: usize = 200;
/// Longest long poll that the Bot API grants.
pub const POLL_LIMIT: Duration = Duration::from_secs(50);
/// How long one call waits in all when Telegram says "retry after"; beyond that the caller is told.
const FLOOD_WAIT_LIMIT: Duration = Duration::from_secs(60);
/// How long a call other than a poll may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// What a poll may take on top of the wait that it asks for.
const POLL_MARGIN: Duration = Duration::from_secs(15);

/// The bot's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotIdentity {
    /// Numeric id.
    pub id: u64,
    /// User name, without `@`.
    pub username: String,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The message with the text and the buttons: presses on it carry this id.
    pub message_id: i64,
    /// The message with the document, where there was one.
    pub document_id: Option<i64>,
}

/// One bot at one Bot API server. Cheap to clone.
#[derive(Clone)]
pub struct Telegram {
    calls: Bot,
    /// Polls are slow by design and have an HTTP client of their own.
    polls: Bot,
    /// One line for all that is sent.
    pace: Arc<pace::Pace>,
}

impl fmt::Debug for Telegram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bot's own Debug prints the token.
        f.debug_struct("Telegram").finish_non_exhaustive()
    }
}

/// `getUpdates` with results as plain JSON: a field that a newer server adds or drops must not cost an update.
#[derive(Clone, Serialize)]
struct Poll {
    offset: i64,
    limit: u8,
    timeout: u64,
    allowed_updates: [&'static str; 2],
}

impl Payload for Poll {
    type Output = Vec<Value>;
    const NAME: &'static str = "GetUpdates";
}

/// `sendChatAction`: the least that tells whether the bot may write to a chat.
#[derive(Clone, Serialize)]
struct Typing {
    chat_id: i64,
    action: &'static str,
}

impl Payload for Typing {
    type Output = Value;
    const NAME: &'static str = "SendChatAction";
}

impl Telegram {
    /// A bot by its token; `api_url` is another server than Telegram's own.
    ///
    /// # Errors
    /// `telegram.bad_url`, `telegram.bad_token` or `telegram.client` (the TLS roots cannot be loaded).
    pub fn new(token: &SecretString, api_url: Option<&str>) -> Result<Self> {
        let secret = token.expose_secret();
        let well_formed = secret.split_once(':').is_some_and(|(id, rest)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            id.parse::<u64>().is_ok() && !rest.is_empty() && rest.chars().all(plain)
        });
        if !well_formed {
            return Err(Problem::new(
                "telegram.bad_token",
                "The bot token is not of the form `<number>:<letters>`.",
                "Put the token that @BotFather gave into the secret that the channel names.",
            ));
        }
        let make = |timeout| -> Result<Bot> {
            let client = client(timeout)?;
            let bot = Bot::with_client(secret, client);
            Ok(match api_url {
                Some(url) => bot.set_api_url(parse_url(url)?),
                None => bot,
            })
        };
        Ok(Self { calls: make(CALL_TIMEOUT)?, polls: make(POLL_LIMIT + POLL_MARGIN)?, pace: Arc::default() })
    }

    /// Who the bot is; refuses a bot that has a webhook, because then polling gets nothing.
    ///
    /// # Errors
    /// `telegram.unauthorized`, `telegram.webhook_set`, or the server cannot be reached.
    pub async fn check(&self) -> Result<BotIdentity> {
        let me = self.patient(None, || JsonRequest::new(self.calls.clone(), GetMe::new()).send()).await;
        let me = me.map_err(|e| self.problem(e))?;
        let hook = self.patient(None, || JsonRequest::new(self.calls.clone(), GetWebhookInfo::new()).send()).await;
        let hook = hook.map_err(|e| self.problem(e))?;
        if hook.url.is_some_and(|url| !url.as_str().is_empty()) {
            return Err(problem::webhook_set());
        }
        Ok(BotIdentity { id: me.user.id.0, username: me.user.username.clone().unwrap_or_default() })
    }

    /// Whether the bot may write to a chat. The person sees "typing…" for some seconds and nothing else.
    ///
    /// # Errors
    /// `telegram.chat_not_found`, `telegram.cannot_write`, or the server cannot be reached.
    pub async fn try_chat(&self, chat_id: i64) -> Result<()> {
        let typing = Typing { chat_id, action: "typing" };
        let sent = self.patient(None, || JsonRequest::new(self.calls.clone(), typing.clone()).send()).await;
        sent.map(|_| ()).map_err(|e| self.problem(e))
    }

    /// Sends a card. A document goes first, and the text with the buttons answers it: buttons exist only where
    /// the document was delivered. Nothing is retried after an unknown outcome; the caller may send again.
    ///
    /// # Errors
    /// Beyond the limits (`telegram.too_long`, `telegram.bad_entity`, `telegram.bad_button`), the chat does not
    /// take it (`telegram.chat_not_found`, `telegram.cannot_write`), `telegram.flood`, or no answer
    /// (`telegram.unreachable`: surely not sent; `telegram.no_answer`: perhaps sent).
    pub async fn send(&self, chat_id: i64, card: &Card) -> Result<Sent> {
        outgoing::check(card)?;
        let mut reply_to = card.reply_to;
        let mut document_id = None;
        if let Some(document) = &card.document {
            let payload = outgoing::document(chat_id, card, document, reply_to)?;
            let id = self.send_document(chat_id, card.urgency, payload).await?;
            document_id = Some(id);
            reply_to = Some(id);
        }
        let payload = outgoing::message(chat_id, card, reply_to)?;
        let message_id = self.send_message(chat_id, card.urgency, payload).await?;
        Ok(Sent { message_id, document_id })
    }

    async fn send_message(&self, chat: i64, urgency: Urgency, payload: SendMessage) -> Result<i64> {
        let call = || JsonRequest::new(self.calls.clone(), payload.clone()).send();
        let sent = self.patient(Some((chat, urgency)), call).await;
        self.sent_id(sent.map(|m| m.id))
    }

    async fn send_document(&self, chat: i64, urgency: Urgency, payload: SendDocument) -> Result<i64> {
        let call = || MultipartRequest::new(self.calls.clone(), payload.clone()).send();
        let sent = self.patient(Some((chat, urgency)), call).await;
        self.sent_id(sent.map(|m| m.id))
    }

    /// The id, also when the rest of the answer could not be read: then it was sent all the same.
    fn sent_id(&self, sent: Result<MessageId, RequestError>) -> Result<i64> {
        match sent {
            Ok(id) => Ok(i64::from(id.0)),
            Err(e) => problem::id_in_unread_answer(&e).ok_or_else(|| self.problem(e)),
        }
    }

    /// Replaces text and buttons of a message (its document, and a card's, stay as they are). A message that
    /// already is so is success.
    ///
    /// # Errors
    /// `telegram.message_gone` when it was deleted; otherwise as [`Telegram::send`].
    pub async fn edit(&self, chat_id: i64, message_id: i64, card: &Card) -> Result<()> {
        outgoing::check(card)?;
        let payload: EditMessageText = outgoing::edit(chat_id, message_id, card)?;
        let turn = Some((chat_id, card.urgency));
        let edited = self.patient(turn, || JsonRequest::new(self.calls.clone(), payload.clone()).send()).await;
        match edited {
            Ok(_) => Ok(()),
            Err(e) if problem::is_not_modified(&e) || problem::id_in_unread_answer(&e).is_some() => Ok(()),
            Err(e) => Err(self.problem(e)),
        }
    }

    /// Answers a press, so that the button stops spinning; `alert` shows a window instead of a line. A press
    /// that is too old to be answered is success: nobody waits for it.
    ///
    /// # Errors
    /// The server cannot be reached or is flooded. A text that is too long is cut, not refused.
    pub async fn answer(&self, callback_id: &str, text: &str, alert: bool) -> Result<()> {
        let mut payload = AnswerCallbackQuery::new(CallbackQueryId(callback_id.to_owned()));
        payload.text = Some(text.chars().take(ANSWER_LIMIT).collect());
        payload.show_alert = Some(alert);
        match self.patient(None, || JsonRequest::new(self.calls.clone(), payload.clone()).send()).await {
            Ok(_) => Ok(()),
            Err(e) if problem::is_too_old(&e) => Ok(()),
            Err(e) => Err(self.problem(e)),
        }
    }

    /// Waits up to `timeout` (at most [`POLL_LIMIT`]) for what people did. Everything below `offset` is
    /// acknowledged and gone for good; nothing else is. The next offset is the last `update_id` plus 1, once all
    /// up to it is stored.
    ///
    /// # Errors
    /// `telegram.second_poller` when another process polls with the same token, `telegram.webhook_set`,
    /// `telegram.unauthorized`, `telegram.flood`, or the server cannot be reached. Calling again is harmless.
    pub async fn poll(&self, offset: i64, timeout: Duration) -> Result<Vec<Inbound>> {
        let timeout = timeout.min(POLL_LIMIT).as_secs();
        let poll = Poll { offset, limit: 100, timeout, allowed_updates: ["message", "callback_query"] };
        let updates = JsonRequest::new(self.polls.clone(), poll).send().await.map_err(|e| self.problem(e))?;
        Ok(updates.iter().filter_map(inbound::read).collect())
    }

    /// Calls until the flood control lets it through, within [`FLOOD_WAIT_LIMIT`]; what is written to a chat waits
    /// for its turn first. Answers to presses are of no chat and do not wait.
    async fn patient<T, F>(&self, turn: Option<(i64, Urgency)>, call: impl Fn() -> F) -> Result<T, RequestError>
    where
        F: Future<Output = Result<T, RequestError>>,
    {
        let mut until = Instant::now() + FLOOD_WAIT_LIMIT;
        loop {
            if let Some((chat, urgency)) = turn {
                let begun = Instant::now();
                self.pace.turn(chat, urgency).await;
                // The place in our own line is not Telegram's flood control.
                until += begun.elapsed();
            }
            match call().await {
                Err(RequestError::RetryAfter(wait)) if Instant::now() + wait.duration() <= until => {
                    let wait = wait.duration().max(Duration::from_millis(100));
                    if let Some((chat, _)) = turn {
                        self.pace.hold(chat, wait);
                    }
                    tokio::time::sleep(wait).await;
                }
                result => return result,
            }
        }
    }

    fn problem(&self, e: RequestError) -> Problem {
        problem::from_request(&e, self.calls.token())
    }
}

fn client(timeout: Duration) -> Result<reqwest::Client> {
    // A redirect would carry the token, which is part of the path, to another host.
    let built = crate::https::client()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .tcp_keepalive(Duration::from_secs(15))
        .timeout(timeout)
        .build();
    built.map_err(|e| {
        Problem::new(
            "telegram.client",
            "The HTTP client for Telegram cannot be made.",
            "Check the system's root certificates.",
        )
        .with(e.without_url().to_string())
    })
}

fn parse_url(url: &str) -> Result<reqwest::Url> {
    let parsed = reqwest::Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    parsed.ok_or_else(|| {
        Problem::new(
            "telegram.bad_url",
            "The channel's `api_url` is not an http(s) address.",
            "Leave it out for Telegram itself, or give the base address of a Bot API server.",
        )
    })
}

/// Chat ids of groups are negative: any number is one.
fn chat(chat_id: i64) -> ChatId {
    ChatId(chat_id)
}

#[cfg(test)]
mod tests;
