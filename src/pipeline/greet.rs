//! Answers to `/start` and `/help`: few, so that nobody can use up what cards need of the Bot API.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::message;

use super::Pipeline;
use super::card::outgoing;
use super::pairing::code_of;
use crate::channel::telegram::{ChatKind, Inbound, is_impersonal};

/// Answers a minute to all writers together.
const PER_MINUTE: usize = 20;
const MINUTE_MS: i64 = 60_000;
/// Pause between two answers to one writer.
const PAUSE_MS: i64 = 5_000;

/// Who was greeted in the last minute, oldest first.
#[derive(Debug, Default)]
pub struct Greeted(Mutex<VecDeque<(i64, i64)>>);

impl Greeted {
    /// Whether this writer is answered now; then it counts.
    fn admits(&self, writer: i64, now: i64) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while all.front().is_some_and(|(_, at)| now - at >= MINUTE_MS) {
            all.pop_front();
        }
        let again = all.iter().any(|(who, at)| *who == writer && now - at < PAUSE_MS);
        if again || all.len() >= PER_MINUTE {
            return false;
        }
        all.push_back((writer, now));
        true
    }
}

/// `/start` (also with a payload) and `/help`, also addressed as `/help@bot`.
fn asks_who(text: &str) -> bool {
    let command = text.split_whitespace().next().unwrap_or_default();
    matches!(command.split('@').next(), Some("/start" | "/help"))
}

impl Pipeline {
    /// Tells whoever asked in private who they are here. In the background: nothing hangs on it.
    pub(super) fn greet(self: &Arc<Self>, updates: &[Inbound], people: &BTreeMap<i64, String>) {
        for u in updates {
            let Inbound::Text { from_id, from_is_bot: false, chat_id, chat_kind: ChatKind::Private, text, .. } = u
            else {
                continue;
            };
            let personal = chat_id == from_id && !is_impersonal(*from_id);
            let now = self.clock.now_ms();
            // A code that somebody waits for is not lost to a `/start` of a moment ago.
            let awaited = code_of(text).is_some_and(|code| self.pairings.awaits(code, now));
            if !personal || !asks_who(text) || !(self.greeted.admits(*from_id, now) || awaited) {
                continue;
            }
            let greeting = message::greeting(*from_id, people.get(from_id).map(String::as_str));
            let (me, chat, from) = (Arc::clone(self), *chat_id, *from_id);
            let code = code_of(text).map(str::to_owned);
            tokio::spawn(async move {
                let Some(telegram) = &me.telegram else { return };
                let paired = match code {
                    Some(code) => me.pair_claim(&code, from).await,
                    None => None,
                };
                let words = paired.unwrap_or(greeting);
                if let Err(problem) = telegram.send(chat, &outgoing(&words, Vec::new(), true, None)).await {
                    tracing::info!(code = %problem.code, "a greeting could not be sent");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_and_help_are_told_from_other_words() {
        for yes in ["/start", "/start abc", "/help", "/help@our_bot", " /help please"] {
            assert!(asks_who(yes), "{yes}");
        }
        for no in ["", "help", "/helpless", "/stop", "say /help"] {
            assert!(!asks_who(no), "{no}");
        }
    }

    #[test]
    fn one_writer_is_answered_every_few_seconds_and_all_together_twenty_times_a_minute() {
        let greeted = Greeted::default();
        assert!(greeted.admits(1, 0));
        assert!(!greeted.admits(1, PAUSE_MS - 1));
        assert!(greeted.admits(1, PAUSE_MS));
        let others = (2..100).filter(|who| greeted.admits(*who, PAUSE_MS)).count();
        assert_eq!(others, PER_MINUTE - 2);
        assert!(!greeted.admits(1, MINUTE_MS - 1));
        assert!(greeted.admits(1, MINUTE_MS), "the first one is a minute ago");
    }
}
