//! approve: presses and signatures in. A press is in the journal before its update is acknowledged;
//! whoever may not press changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::change::{Change, State};
use countersign_core::message;
use countersign_core::model::{Body, ChangeId};
use countersign_core::{Problem, Result};

use super::card::{attach, outgoing};
use super::press::{Batch, Command, Desk, Press, may_vote, vote};
use super::{Pipeline, fault};
use crate::channel::telegram::{Button, Card, ChatKind, Inbound, Urgency, is_impersonal};
use crate::config::Config;
use crate::journal::{Entry, View};

/// Within this time a second sign of another poller counts, milliseconds.
const CONFLICT_MS: i64 = 60_000;
/// Commands of one batch of updates that are answered.
const COMMANDS: usize = 5;
/// How long one poll waits for updates.
const POLL: Duration = Duration::from_secs(25);

impl Pipeline {
    pub(super) fn desk<'a>(&'a self, config: &Config, people: &'a BTreeMap<i64, String>, now: i64) -> Desk<'a> {
        Desk {
            handles: &self.handles,
            people,
            number_from: config.bootstrap.approvals.number_from,
            resume_needed: config.resume_needed(),
            now,
        }
    }

    /// Polls the channel until the daemon ends. The offset that is asked for is the one in the
    /// journal: what was not written comes again.
    pub async fn poll_channel(self: Arc<Self>, shutdown: tokio_util::sync::CancellationToken) {
        let Some(telegram) = &self.telegram else { return };
        let mut pause = Duration::from_millis(500);
        let mut checked = false;
        let mut conflict = None;
        loop {
            if !checked {
                // A webhook would take the presses elsewhere; a wrong token takes them nowhere.
                match telegram.check().await {
                    Ok(bot) => {
                        tracing::info!(bot = ?bot, "Telegram is connected");
                        self.meters.polled(Ok(()));
                        checked = true;
                    }
                    Err(problem) => {
                        self.meters.polled(Err(&problem));
                        tracing::warn!(code = %problem.code, "{}", problem.message);
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            () = tokio::time::sleep(pause) => {}
                        }
                        pause = (pause * 2).min(Duration::from_secs(30));
                        continue;
                    }
                }
            }
            let offset = self.journal.read(|v| v.offsets.get("telegram").copied().unwrap_or(0)).await;
            let polled = tokio::select! {
                () = shutdown.cancelled() => return,
                polled = telegram.poll(offset, POLL) => polled,
            };
            let outcome = match polled {
                Ok(updates) if updates.is_empty() => Ok(()),
                Ok(updates) => self.take_updates(&updates).await,
                Err(problem) => Err(problem),
            };
            self.meters.polled(outcome.as_ref().copied());
            match outcome {
                Ok(()) => pause = Duration::from_millis(500),
                Err(problem) => {
                    tracing::warn!(code = %problem.code, "{}", problem.message);
                    self.guard_token(&problem, &mut conflict).await;
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = self.clock.sleep_until(self.clock.now_ms() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)) => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
    }

    /// Whoever else polls with the token takes presses away and can change cards: the second sign of that within a
    /// minute stops everything. One alone may be an own process that is just ending.
    async fn guard_token(self: &Arc<Self>, problem: &Problem, last: &mut Option<i64>) {
        if problem.code != "telegram.second_poller" {
            return;
        }
        let now = self.clock.now_ms();
        if last.replace(now).is_none_or(|at| now - at > CONFLICT_MS) {
            return;
        }
        let why = "Another process polls with the bot's token: unless it is your own, revoke the token at BotFather.";
        if let Err(problem) = self.stop(super::ACTOR, why).await {
            tracing::error!(code = %problem.code, "{}", problem.message);
        }
    }

    /// Decides on a batch and writes it with its offset in one transaction; answers only then.
    async fn take_updates(self: &Arc<Self>, updates: &[Inbound]) -> Result<()> {
        let Some(next) = updates.iter().map(Inbound::update_id).max().map(|id| id + 1) else { return Ok(()) };
        let people: BTreeMap<i64, String> =
            self.config.load().people.iter().filter_map(|p| Some((p.spec.telegram?, p.name.clone()))).collect();
        let now = self.clock.now_ms();
        let config = self.config.load();
        let desk = self.desk(&config, &people, now);
        fault::point("before_vote");
        let batch = self
            .journal
            .transact(now, &[], |view| {
                let mut batch = Batch::default();
                for u in updates {
                    self.take_update(&desk, view, u, &mut batch);
                }
                let mut entries = std::mem::take(&mut batch.entries);
                entries.push(Entry::global("countersign", Body::Polled { channel: "telegram".into(), offset: next }));
                Ok((batch, entries))
            })
            .await?;
        fault::point("after_vote");
        if let Some((by, reason)) = &batch.stopped {
            self.tell_stop(true, by, reason);
        }
        for (by, over) in &batch.resuming {
            self.tell_resume(by, *over, "").await;
        }
        self.answer(batch);
        self.greet(updates, &people);
        Ok(())
    }

    fn take_update(&self, desk: &Desk<'_>, view: &View, u: &Inbound, batch: &mut Batch) {
        match u {
            Inbound::Press { update_id, callback_id, from_id, from_is_bot, chat_id, chat_kind, message_id, data } => {
                let p = Press {
                    update_id: *update_id,
                    callback_id,
                    from_id: *from_id,
                    impersonal: *from_is_bot || is_impersonal(*from_id),
                    private: *chat_kind == ChatKind::Private && chat_id == from_id,
                    message_id: *message_id,
                    data,
                };
                desk.press(view, &p, batch);
            }
            Inbound::Text {
                from_id,
                from_is_bot: false,
                chat_id,
                chat_kind: ChatKind::Private,
                text,
                reply_to,
                ..
            } if chat_id == from_id => {
                let clean = |t: &str| self.redactor.redact_text(t);
                desk.text(view, (*from_id, *chat_id), text, *reply_to, &clean, batch);
            }
            Inbound::Text { .. } | Inbound::Other { .. } => {}
        }
    }

    /// Tells everyone of the list that the emergency stop is on, or over. In the background: the stop
    /// is in the journal and holds, whether or not anybody can be told.
    pub(super) fn tell_stop(self: &Arc<Self>, on: bool, by: &str, reason: &str) {
        let (me, by, reason) = (Arc::clone(self), by.to_owned(), reason.to_owned());
        tokio::spawn(async move {
            let held = me.journal.read(|v| v.changes.values().filter(|c| c.is_open()).count()).await;
            me.tell_everyone(&message::stopped(on, &by, &reason, held)).await;
        });
    }

    /// One person wants the stop to end, or it has ended by that: everyone of the list is told.
    pub(super) async fn tell_resume(self: &Arc<Self>, by: &str, over: bool, reason: &str) {
        if over {
            return self.tell_stop(false, by, reason);
        }
        let agreed = self.journal.read(|v| v.resuming.len()).await;
        let more = self.config.load().resume_needed().saturating_sub(agreed).max(1);
        let text = message::resuming(by, more);
        let me = Arc::clone(self);
        tokio::spawn(async move { me.tell_everyone(&text).await });
    }

    async fn tell_everyone(&self, text: &message::Text) {
        let Some(telegram) = &self.telegram else { return };
        let chats: Vec<i64> = self.config.load().people.iter().filter_map(|p| p.spec.telegram).collect();
        for chat in chats {
            let card = Card { urgency: Urgency::Decision, ..outgoing(text, Vec::new(), false, None) };
            if let Err(problem) = telegram.send(chat, &card).await {
                tracing::info!(code = %problem.code, "a person could not be told of the stop");
            }
        }
    }

    /// The answer to `/pending` and `/resume`.
    async fn command(&self, person: &str, command: Command) -> Card {
        let card = |text: &message::Text, rows| Card { urgency: Urgency::Decision, ..outgoing(text, rows, true, None) };
        match command {
            Command::Pending => {
                let lines = self.journal.read(|v| pending_for(v, person)).await;
                card(&message::pending_list(&lines), Vec::new())
            }
            Command::Resume => {
                let needed = self.config.load().resume_needed();
                let seen = self
                    .journal
                    .read(|v| {
                        let held = v.changes.values().filter(|c| c.is_open()).count();
                        let agreed: Vec<String> = v.resuming.iter().cloned().collect();
                        v.stopped.clone().map(|(by, why)| (by, why, held, agreed, v.stop_seq()))
                    })
                    .await;
                let Some((by, why, held, agreed, stop)) = seen else {
                    return Card { silent: true, ..Card::text("The emergency stop is not on.") };
                };
                let text = message::resume_card(by.trim_start_matches("person:"), &why, held, &agreed, needed);
                let button = Button { label: "Resume".into(), data: self.handles.resume(stop, person) };
                card(&text, vec![vec![button]])
            }
        }
    }

    /// Answers presses in the background: what they did is written already.
    fn answer(self: &Arc<Self>, batch: Batch) {
        let me = Arc::clone(self);
        tokio::spawn(async move {
            let Some(telegram) = &me.telegram else { return };
            for r in batch.replies {
                if let Err(problem) = telegram.answer(&r.callback, &r.text, r.alert).await {
                    tracing::info!(code = %problem.code, "a press could not be answered");
                }
                let Some((id, chat)) = r.diff else { continue };
                let Some(change) = me.journal.change(id).await else { continue };
                let document = message::document(&me.card_facts(&change));
                let words = format!("The whole change {}.", change.name());
                let card = Card { document: Some(attach(&document)), silent: true, ..Card::text(words) };
                if let Err(problem) = telegram.send(chat, &card).await {
                    tracing::info!(code = %problem.code, "a diff could not be sent");
                }
            }
            for (person, chat, command) in batch.commands.into_iter().take(COMMANDS) {
                let card = me.command(&person, command).await;
                if let Err(problem) = telegram.send(chat, &card).await {
                    tracing::info!(code = %problem.code, "a command could not be answered");
                }
            }
        });
    }

    /// A vote signed on the command line. `signed_by` was found by the signature, not by a name.
    pub async fn vote_signed(
        &self,
        id: ChangeId,
        signed_by: &str,
        approve: bool,
        reason: Option<String>,
        proof: String,
    ) -> Result<()> {
        let now = self.clock.now_ms();
        fault::point("before_vote");
        self.journal
            .transact(now, &[], |view| {
                let Some(change) = view.changes.get(&id) else { return Err(super::unknown_change()) };
                if !change.decided.approvers.iter().any(|a| a == signed_by) {
                    return Err(Problem::new(
                        "approve.not_asked",
                        format!("{signed_by} is not among the people who decide about {}.", change.name()),
                        format!("One of these may: {}.", change.decided.approvers.join(", ")),
                    ));
                }
                may_vote(change, signed_by, approve, now, None).map_err(|why| {
                    Problem::new(
                        "approve.too_late",
                        why,
                        "Nothing is left to decide here; `countersign pending` lists what still waits.",
                    )
                    .never()
                })?;
                let body = vote(change, signed_by, "ssh", approve, reason, Some(proof));
                Ok(((), vec![Entry::of(id, &format!("person:{signed_by}"), body)]))
            })
            .await?;
        fault::point("after_vote");
        Ok(())
    }
}

/// What waits for this person: name, what, when it expires.
fn pending_for(v: &View, person: &str) -> Vec<(String, String, i64)> {
    let waits = |c: &Change| {
        let asked = c.decided.approvers.iter().any(|p| p == person) && !c.has_voted(person);
        asked && matches!(c.state(), State::AwaitingApproval | State::AwaitingMerge)
    };
    let line = |c: &Change| {
        let what = format!("{} in {}", message::what_short(&c.proposal.fields), c.proposal.cluster);
        (c.name(), what, c.sealed.expires_at)
    };
    v.changes.values().filter(|c| waits(c)).map(|c| line(c)).collect()
}
