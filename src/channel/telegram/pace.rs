//! Telegram's limits, kept before they bite: about 30 messages a second in all and one a second in a chat, with
//! short bursts (core.telegram.org/bots/faq). When several calls wait, the one that people need most goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How much a call matters when not all can go at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// What a person decides on, and the answer to their press.
    Decision,
    /// A card that gets its new words.
    Edit,
    /// News.
    #[default]
    Notice,
}

/// A budget that fills up again by itself.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When it would be full.
    full_at: Instant,
}

/// Budget: so many at once, and one more each `step`.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    step: Duration,
}

impl Bucket {
    /// From when on there is room for one.
    fn free_at(&self, rate: Rate) -> Option<Instant> {
        self.full_at.checked_sub(rate.step * rate.burst.saturating_sub(1))
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.step;
    }
}

/// All chats together, with something in reserve for answers to presses.
const ALL: Rate = Rate { burst: 25, step: Duration::from_millis(40) };
/// One chat.
const CHAT: Rate = Rate { burst: 8, step: Duration::from_secs(1) };
/// Chats that are remembered.
const CHATS: usize = 1000;

#[derive(Debug)]
struct State {
    /// Rate of all, and of one chat.
    rates: (Rate, Rate),
    all: Option<Bucket>,
    chats: BTreeMap<i64, Bucket>,
    /// Until when nothing is sent to a chat because Telegram said so.
    held: BTreeMap<i64, Instant>,
    waiting: BTreeSet<(Urgency, u64, i64)>,
    next: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rates: (ALL, CHAT),
            all: None,
            chats: BTreeMap::new(),
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next: 0,
        }
    }
}

impl State {
    /// When this chat could be written to.
    fn chat_free(&self, chat: i64, now: Instant) -> Instant {
        let bucket = self.chats.get(&chat).and_then(|b| b.free_at(self.rates.1)).unwrap_or(now);
        bucket.max(self.held.get(&chat).copied().unwrap_or(now))
    }

    fn all_free(&self, now: Instant) -> Instant {
        self.all.and_then(|b| b.free_at(self.rates.0)).unwrap_or(now)
    }

    /// Lets this one go now, or says until when to wait at the latest.
    fn admit(&mut self, me: (Urgency, u64, i64), now: Instant) -> Option<Instant> {
        let (all, rates) = (self.all_free(now), self.rates);
        // The first in line whose own chat is free goes; a busy chat holds up nobody else.
        let first = self.waiting.iter().find(|w| self.chat_free(w.2, now) <= now).copied();
        if all <= now && first == Some(me) {
            self.waiting.remove(&me);
            self.all.get_or_insert(Bucket { full_at: now }).take(rates.0, now);
            self.chats.entry(me.2).or_insert(Bucket { full_at: now }).take(rates.1, now);
            self.forget(now);
            return None;
        }
        let chat = self.chat_free(me.2, now);
        // Whoever goes before wakes the others.
        Some(all.max(chat).max(now + Duration::from_millis(5)))
    }

    fn forget(&mut self, now: Instant) {
        if self.chats.len() > CHATS {
            self.chats.retain(|_, b| b.full_at > now);
        }
        self.held.retain(|_, until| *until > now);
    }
}

/// Keeps the limits for one bot.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
    news: Notify,
}

/// Leaves the line when its caller goes away.
struct Place<'a> {
    pace: &'a Pace,
    me: (Urgency, u64, i64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pace.lock().waiting.remove(&self.me);
        self.pace.news.notify_waiters();
    }
}

impl Pace {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn to write to this chat.
    pub(super) async fn turn(&self, chat: i64, urgency: Urgency) {
        let me = {
            let mut state = self.lock();
            state.next += 1;
            let me = (urgency, state.next, chat);
            state.waiting.insert(me);
            me
        };
        let _place = Place { pace: self, me };
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let Some(at) = self.lock().admit(me, Instant::now()) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = &mut news => {}
            }
        }
    }

    /// Telegram asks to leave this chat alone for a while.
    pub(super) fn hold(&self, chat: i64, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        let held = state.held.entry(chat).or_insert(until);
        *held = (*held).max(until);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;

    fn order(
        pace: &Arc<Pace>,
        calls: &[(i64, Urgency, &'static str)],
    ) -> tokio::sync::mpsc::UnboundedReceiver<&'static str> {
        let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
        for (chat, urgency, name) in calls {
            let (pace, tx, chat, urgency, name) = (Arc::clone(pace), tx.clone(), *chat, *urgency, *name);
            tokio::spawn(async move {
                pace.turn(chat, urgency).await;
                let _ = tx.send(name);
            });
        }
        rx
    }

    async fn all(mut rx: tokio::sync::mpsc::UnboundedReceiver<&'static str>) -> Vec<&'static str> {
        let mut out = Vec::new();
        while let Some(name) = rx.recv().await {
            out.push(name);
        }
        out
    }

    async fn spend(pace: &Pace, chat: i64, n: u32) {
        for _ in 0..n {
            pace.turn(chat, Urgency::Notice).await;
        }
    }

    /// The same shape, ten times as fast.
    fn fast() -> Arc<Pace> {
        let pace = Pace::default();
        let tenth = |r: Rate| Rate { step: r.step / 10, ..r };
        pace.lock().rates = (tenth(ALL), tenth(CHAT));
        Arc::new(pace)
    }

    #[tokio::test]
    async fn a_burst_goes_at_once_and_then_one_after_the_other_to_a_chat() {
        let pace = fast();
        let begun = Instant::now();
        for _ in 0..CHAT.burst {
            assert!(pace.turn(1, Urgency::Notice).now_or_never().is_some(), "no wait");
        }
        spend(&pace, 1, 5).await;
        assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn all_chats_together_stay_below_the_limit() {
        let pace = fast();
        let begun = Instant::now();
        let calls: Vec<(i64, Urgency, &'static str)> = (0..125).map(|i| (i, Urgency::Notice, "x")).collect();
        assert_eq!(all(order(&pace, &calls)).await.len(), 125);
        assert!(begun.elapsed() >= Duration::from_millis(390), "100 beyond the burst, 4 ms each");
    }

    #[tokio::test]
    async fn decisions_go_before_edits_and_edits_before_news() {
        let pace = fast();
        spend(&pace, 1, CHAT.burst).await;
        let rx =
            order(&pace, &[(1, Urgency::Notice, "news"), (1, Urgency::Edit, "edit"), (1, Urgency::Decision, "card")]);
        assert_eq!(all(rx).await, ["card", "edit", "news"]);
    }

    #[tokio::test]
    async fn a_busy_chat_holds_up_no_other() {
        let pace = fast();
        pace.hold(1, Duration::from_millis(300));
        let begun = Instant::now();
        let rx = order(&pace, &[(1, Urgency::Decision, "held"), (2, Urgency::Notice, "other")]);
        assert_eq!(all(rx).await, ["other", "held"]);
        assert!(begun.elapsed() >= Duration::from_millis(300));
        // Whoever gives up leaves the line.
        pace.hold(1, Duration::from_secs(60));
        let gone = tokio::time::timeout(Duration::from_millis(50), pace.turn(1, Urgency::Decision)).await;
        assert!(gone.is_err() && pace.lock().waiting.is_empty());
    }
}
