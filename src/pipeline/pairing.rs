//! Pairing: which Telegram account is a listed person's.
//!
//! A pairing gives no right. It finds out a number, by a code that whoever runs `people pair` hands to the person;
//! what makes the number count is the configuration, as before. So nothing here is kept beyond a restart, and
//! nothing here is read when somebody decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::message;
use countersign_core::model::{Body, hex};
use countersign_core::{Problem, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Pipeline;
use super::card::outgoing;
use crate::journal::Entry;

/// How long a code is good for.
const VALID_MS: i64 = 10 * 60_000;
/// How long the answer to it is kept.
const KEPT_MS: i64 = 60 * 60_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// SHA-256 of the code: what is in memory opens nothing.
    Asked([u8; 32]),
    /// Who sent it.
    Claimed(i64),
}

#[derive(Debug, Clone)]
struct Pairing {
    stage: Stage,
    began: i64,
}

/// The pairings under way, one per person.
#[derive(Debug, Default)]
pub struct Pairings(Mutex<BTreeMap<String, Pairing>>);

fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

impl Pairings {
    fn all(&self, now: i64) -> std::sync::MutexGuard<'_, BTreeMap<String, Pairing>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, p| {
            let kept = if matches!(p.stage, Stage::Asked(_)) { VALID_MS } else { KEPT_MS };
            now - p.began < kept
        });
        all
    }

    /// A fresh code for a person, of 128 bits; an earlier one of the same person is void.
    fn begin(&self, person: &str, now: i64) -> String {
        let code = hex(&rand::random::<[u8; 16]>());
        self.all(now).insert(person.to_owned(), Pairing { stage: Stage::Asked(hash(&code)), began: now });
        code
    }

    /// Whether somebody waits for this code.
    pub(super) fn awaits(&self, code: &str, now: i64) -> bool {
        let stage = Stage::Asked(hash(code));
        self.all(now).values().any(|p| p.stage == stage)
    }

    /// Whose code this is; then it is used up.
    fn claim(&self, code: &str, account: i64, now: i64) -> Option<String> {
        let given = hash(code);
        let mut all = self.all(now);
        let (person, pairing) = all.iter_mut().find(|(_, p)| p.stage == Stage::Asked(given))?;
        pairing.stage = Stage::Claimed(account);
        Some(person.clone())
    }

    fn forget(&self, person: &str, now: i64) {
        self.all(now).remove(person);
    }

    fn state(&self, person: &str, now: i64) -> Value {
        match self.all(now).get(person) {
            None => json!({"state": "none"}),
            Some(Pairing { stage: Stage::Asked(_), began }) => {
                json!({"state": "waiting", "left_s": (began + VALID_MS - now).max(0) / 1000})
            }
            Some(Pairing { stage: Stage::Claimed(account), .. }) => json!({"state": "claimed", "telegram": account}),
        }
    }
}

/// The code of `/start CODE`, where it has the form of one.
pub(super) fn code_of(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace();
    let command = words.next()?.split('@').next()?;
    let code = words.next()?;
    let formed = code.len() == 32 && code.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (command == "/start" && formed && words.next().is_none()).then_some(code)
}

impl Pipeline {
    /// `Request::PairBegin`. `people.unknown`, `pairing.no_channel`, or Telegram does not answer.
    pub(super) async fn pair_begin(&self, person: &str) -> Result<Value> {
        if !self.config.load().people.iter().any(|p| p.name == person) {
            return Err(unknown(person));
        }
        let Some(telegram) = &self.telegram else {
            return Err(Problem::new(
                "pairing.no_channel",
                "There is no Telegram channel to pair with.",
                "Add a Channel with the bot's token to the configuration, and restart the daemon.",
            ));
        };
        let bot = telegram.check().await?;
        let code = self.pairings.begin(person, self.clock.now_ms());
        let link = format!("https://t.me/{}?start={code}", bot.username);
        Ok(json!({"code": code, "bot": bot.username, "link": link, "valid_s": VALID_MS / 1000}))
    }

    /// `Request::PairState`.
    pub(super) fn pair_state(&self, person: &str) -> Value {
        self.pairings.state(person, self.clock.now_ms())
    }

    /// Somebody sent a code in private. The words for the answer; `None` where the code is nobody's.
    pub(super) async fn pair_claim(&self, code: &str, account: i64) -> Option<message::Text> {
        let now = self.clock.now_ms();
        let person = self.pairings.claim(code, account, now)?;
        let claimed = Body::PairingClaimed { person: person.clone(), channel: "telegram".into(), account };
        let entry = Entry::global(&format!("telegram:{account}"), claimed);
        if let Err(problem) = self.journal.transact(now, &[], |_| Ok(((), vec![entry]))).await {
            // What is not in the journal did not happen.
            tracing::warn!(code = %problem.code, "a pairing could not be noted");
            self.pairings.forget(&person, now);
            return None;
        }
        tracing::info!(person, account, "a pairing code was sent");
        Some(message::pairing(account, &person))
    }

    /// After a reload: whoever decides here is told whose account is another one now. Nobody becomes somebody else
    /// without the others seeing it.
    pub(super) fn tell_accounts(self: &Arc<Self>, before: BTreeMap<String, Option<i64>>) {
        let config = self.config.load_full();
        let moved: Vec<(String, Option<i64>)> = config
            .people
            .iter()
            .filter(|p| before.get(&p.name).copied().flatten() != p.spec.telegram)
            .map(|p| (p.name.clone(), p.spec.telegram))
            .collect();
        if moved.is_empty() {
            return;
        }
        let mut chats: Vec<i64> = config.people.iter().filter_map(|p| p.spec.telegram).collect();
        chats.extend(before.values().flatten());
        chats.sort_unstable();
        chats.dedup();
        for (person, now) in &moved {
            tracing::warn!(person, account = ?now, "a person's Telegram account is another one now");
        }
        let me = Arc::clone(self);
        tokio::spawn(async move {
            let Some(telegram) = &me.telegram else { return };
            for (person, now) in moved {
                let words = message::account_changed(&person, before.get(&person).copied().flatten(), now);
                for chat in &chats {
                    if let Err(problem) = telegram.send(*chat, &outgoing(&words, Vec::new(), false, None)).await {
                        tracing::info!(code = %problem.code, "a person could not be told of a changed account");
                    }
                }
            }
        });
    }
}

/// Nobody of that name.
pub fn unknown(person: &str) -> Problem {
    Problem::new(
        "people.unknown",
        format!("{} is no Person of the configuration.", message::escape_name(person)),
        "Add a Person with that name, or write it as the configuration does.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once_for_one_person_and_ten_minutes() {
        let p = Pairings::default();
        let first = p.begin("anna", 0);
        let second = p.begin("anna", 1);
        assert_eq!(second.len(), 32);
        assert_eq!(p.claim(&first, 7, 2), None, "a newer code voids the older one");
        assert_eq!(p.state("anna", 1_001)["left_s"], 599);
        assert_eq!(p.claim(&second, 7, 2).as_deref(), Some("anna"));
        assert_eq!(p.claim(&second, 8, 3), None, "once");
        assert_eq!(p.state("anna", 3), json!({"state": "claimed", "telegram": 7}));
        let late = p.begin("max", 10);
        assert_eq!(p.claim(&late, 9, 10 + VALID_MS), None);
        assert_eq!(p.state("max", 10 + VALID_MS), json!({"state": "none"}));
    }

    #[test]
    fn codes_differ_and_are_not_kept() {
        let p = Pairings::default();
        let (a, b) = (p.begin("anna", 0), p.begin("max", 0));
        assert_ne!(a, b);
        assert!(!format!("{p:?}").contains(&a));
    }

    #[test]
    fn only_a_start_with_a_well_formed_code_is_one() {
        let code = "0123456789abcdef0123456789abcdef";
        for yes in [format!("/start {code}"), format!("/start@our_bot {code}"), format!(" /start  {code} ")] {
            assert_eq!(code_of(&yes), Some(code), "{yes}");
        }
        for no in
            ["/start".to_owned(), format!("/help {code}"), format!("/start {code} x"), "/start abc".into(), code.into()]
        {
            assert_eq!(code_of(&no), None, "{no}");
        }
        assert_eq!(code_of(&format!("/start {}", code.to_uppercase())), None);
    }
}
