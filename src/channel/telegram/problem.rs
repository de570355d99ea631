//! Telegram's refusals as problems. The token is part of every address, so no address is ever passed on.

use std::error::Error;

use countersign_core::error::Problem;
use serde_json::Value;
use teloxide_core::{ApiError, RequestError};

/// A webhook takes the updates away.
pub(super) fn webhook_set() -> Problem {
    Problem::new(
        "telegram.webhook_set",
        "The bot has a webhook, so polling gets no updates.",
        "Find out who set it (the token may be known to others), then call `deleteWebhook`.",
    )
}

/// The message that was to be edited does not exist.
pub(super) fn message_gone() -> Problem {
    Problem::new("telegram.message_gone", "The message does not exist any more.", "Send a new one.").never()
}

/// Words of the server, in its own spelling.
fn words(e: &ApiError) -> String {
    match e {
        ApiError::Unknown(words) => words.clone(),
        known => known.to_string(),
    }
}

/// The message is as asked already.
pub(super) fn is_not_modified(e: &RequestError) -> bool {
    matches!(e, RequestError::Api(api) if words(api).contains("message is not modified"))
}

/// The press can no longer be answered.
pub(super) fn is_too_old(e: &RequestError) -> bool {
    matches!(e, RequestError::Api(api) if words(api).to_lowercase().contains("query is too old"))
}

/// `message_id` of an answer that says "ok" but has a shape that the client library does not know.
pub(super) fn id_in_unread_answer(e: &RequestError) -> Option<i64> {
    let RequestError::InvalidJson { raw, .. } = e else { return None };
    let answer: Value = serde_json::from_str(raw).ok()?;
    answer.get("ok")?.as_bool().filter(|ok| *ok)?;
    answer.get("result")?.get("message_id")?.as_i64()
}

/// The problem behind a failed call.
pub(super) fn from_request(e: &RequestError, token: &str) -> Problem {
    match e {
        RequestError::Api(api) => from_words(&clean(&words(api), token)),
        RequestError::RetryAfter(wait) => {
            let message = format!("Telegram's flood control asks to wait {} s.", wait.seconds());
            Problem::new("telegram.flood", message, "Wait, then try again.").later()
        }
        RequestError::MigrateToChatId(id) => Problem::new(
            "telegram.chat_moved",
            "The group became a supergroup and has another number now.",
            "Put the new number into the configuration.",
        )
        .with(format!("new chat id {}", id.0)),
        RequestError::Network(e) => network(e, token),
        RequestError::InvalidJson { raw, .. } => {
            let start: String = clean(raw, token).chars().filter(|c| !c.is_control()).take(120).collect();
            Problem::new(
                "telegram.no_answer",
                "What answered is not the Bot API, or it failed; the call may or may not have taken effect.",
                "Check the channel's `api_url` and any proxy; it is tried again.",
            )
            .later()
            .with(start)
        }
        RequestError::Io(_) => {
            Problem::new("telegram.no_answer", "A document could not be read while it was sent.", "It is tried again.")
                .later()
        }
    }
}

fn network(e: &reqwest::Error, token: &str) -> Problem {
    // The error itself names the address; only its innermost cause is passed on.
    let mut cause: &dyn Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let said = if std::ptr::eq(cause, e as &dyn Error) { String::new() } else { clean(&cause.to_string(), token) };
    let problem = if e.is_connect() {
        Problem::new(
            "telegram.unreachable",
            "Telegram cannot be reached.",
            "Check the network and the channel's `api_url`; it is tried again.",
        )
    } else {
        let message = "Telegram did not answer; the call may or may not have taken effect.";
        Problem::new("telegram.no_answer", message, "Nothing: it is tried again.")
    };
    let problem = problem.later();
    if said.is_empty() { problem } else { problem.with(said) }
}

fn from_words(said: &str) -> Problem {
    let lower = said.to_lowercase();
    let has = |part: &str| lower.contains(part);
    let problem = if has("terminated by other getupdates") {
        Problem::new(
            "telegram.second_poller",
            "Another process polls with this bot's token.",
            "Stop it; if it is not yours, revoke the token at @BotFather.",
        )
    } else if has("webhook is active") || has("terminated by setwebhook") {
        webhook_set()
    } else if has("invalid bot token") || lower == "unauthorized" || lower == "not found" {
        Problem::new(
            "telegram.unauthorized",
            "Telegram does not accept the bot token.",
            "Put a valid token into the channel's secret.",
        )
    } else if has("message to edit not found") || has("message can't be edited") || has("message_id_invalid") {
        message_gone()
    } else if has("chat not found") || has("user not found") || has("peer_id_invalid") {
        Problem::new(
            "telegram.chat_not_found",
            "Telegram does not know the person or chat.",
            "Check the number; the person has to write /start to the bot once.",
        )
    } else if has("forbidden:")
        || has("bot was blocked")
        || has("can't initiate conversation")
        || has("bot was kicked")
        || has("user is deactivated")
    {
        Problem::new(
            "telegram.cannot_write",
            "The bot may not write to this person or chat.",
            "The person has to write /start to the bot, or unblock it.",
        )
    } else {
        Problem::new(
            "telegram.refused",
            "Telegram refused the call.",
            "See its words; report it if they concern the message itself.",
        )
    };
    problem.with(format!("Telegram: {said}"))
}

/// Removes the token, wherever it may have come from.
fn clean(text: &str, token: &str) -> String {
    text.replace(token, "[token]")
}
