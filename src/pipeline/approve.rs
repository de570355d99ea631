//! approve: cards out, presses and signatures in. A press is in the journal before its update is
//! acknowledged; whoever may not press changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::change::{Change, State};
use countersign_core::message::{self, CardFacts, Document, Notice, Settled};
use countersign_core::model::{Body, ChangeId, Effect, Ending, short_name};
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use super::handle::Action;
use super::press::{Batch, Command, Desk, Press, WRONG_NUMBERS, keyboard, may_vote, vote};
use super::{Pipeline, fault};
use crate::channel::telegram::{
    Button, Card, ChatKind, Document as Attachment, Entity, EntityKind, Inbound, Urgency, is_impersonal,
};
use crate::config::Config;
use crate::journal::{Entry, View};

/// Within this time a second sign of another poller counts, milliseconds.
const CONFLICT_MS: i64 = 60_000;
/// Commands of one batch of updates that are answered.
const COMMANDS: usize = 5;
/// How long one poll waits for updates.
const POLL: Duration = Duration::from_secs(25);

impl Pipeline {
    /// The facts of a change's card.
    pub(super) fn card_facts(&self, c: &Change) -> CardFacts {
        let p = &c.proposal;
        CardFacts {
            name: c.name(),
            cluster: p.cluster.clone(),
            risk: p.risk.clone(),
            expires_at: c.sealed.expires_at,
            fields: p.fields.clone(),
            now: p.health.clone(),
            last_healthy: p.last_healthy.clone(),
            owner: p.owner.clone(),
            state: p.state.clone(),
            also_feeds: Vec::new(),
            repository: p.repository.clone(),
            branch: p.git_ref.trim_start_matches("refs/heads/").to_owned(),
            files: p
                .files
                .iter()
                .map(|f| message::FileFact { path: f.path.clone(), line: f.line, added: f.added, removed: f.removed })
                .collect(),
            diff: p.diff.clone(),
            delivery: c.decided.delivery,
            pull_request: c.pull_url().map(str::to_owned),
            approvers: c.decided.approvers.clone(),
            later: c.decided.obligations.escalate.clone(),
            approved_by: Vec::new(),
            number: None,
            viewer: None,
            needed: c.decided.quorum.count,
            allow_sponsor: c.decided.quorum.allow_sponsor,
            requester: p.requester.agent.clone(),
            sponsor: p.requester.sponsor.clone(),
            rules: c.decided.rules.clone(),
            digest: Some(c.digest.short()),
            reverts: p.reverts.as_ref().map(short_name),
            notes: p.notes.clone(),
            reason: p.reason.clone(),
        }
    }

    /// The chat of a person: their private chat with the bot, whose id is the person's own.
    fn chat_of(&self, person: &str) -> Option<i64> {
        self.config.load().people.iter().find(|p| p.name == person).and_then(|p| p.spec.telegram)
    }

    /// The card of a person as it is now: text, buttons, and what must be delivered before them.
    fn pending_card(&self, c: &Change, person: &str) -> (message::Text, Vec<Vec<Button>>, Option<Document>) {
        let mut facts = self.card_facts(c);
        let complete = message::card(&facts).complete;
        let people = BTreeMap::new();
        let config = self.config.load();
        let desk = self.desk(&config, &people, 0);
        facts.viewer = Some(person.to_owned());
        facts.approved_by = c.approvals().map(|v| v.person.clone()).collect();
        let wrong = c.armed.get(person).copied().unwrap_or(0);
        if complete && desk.needs_number(c) && !c.has_voted(person) && wrong < WRONG_NUMBERS {
            facts.number = self.handles.numbers(c, person, wrong).map(|n| n.right);
        }
        let shown = message::card(&facts);
        (shown.text, self.buttons(c, person, keyboard(&desk, c, person, complete)), shown.document)
    }

    fn buttons(&self, c: &Change, person: &str, rows: Vec<Vec<(String, Action)>>) -> Vec<Vec<Button>> {
        let one = |(label, action)| Button { label, data: self.handles.make(c, person, action) };
        rows.into_iter().map(|row| row.into_iter().map(one).collect()).collect()
    }

    fn desk<'a>(&'a self, config: &Config, people: &'a BTreeMap<i64, String>, now: i64) -> Desk<'a> {
        Desk {
            handles: &self.handles,
            people,
            number_from: config.bootstrap.approvals.number_from,
            resume_needed: config.resume_needed(),
            now,
        }
    }

    /// `Effect::Ask`: the document first where the card cannot show everything, then the buttons.
    pub(super) async fn ask(&self, change: &Change, person: &str) -> Result<Value> {
        let (Some(chat), Some(telegram)) = (self.chat_of(person), self.telegram.as_ref()) else {
            return Ok(json!({"skipped": "no Telegram; this person can sign on the command line"}));
        };
        let (text, rows, document) = self.pending_card(change, person);
        let card = Card {
            document: document.as_ref().map(attach),
            urgency: Urgency::Decision,
            ..outgoing(&text, rows, false, None)
        };
        let sent = telegram.send(chat, &card).await?;
        Ok(json!({"chat": chat, "message_id": sent.message_id}))
    }

    /// `Effect::SettleCard`: the card says how things stand. Once it has ended it has no button but those that
    /// are about the end.
    pub(super) async fn settle_card(&self, change: &Change, person: &str) -> Result<Value> {
        let asked = change.done(&Effect::Ask { person: person.to_owned() });
        let chat = asked.and_then(|r| r.get("chat")?.as_i64()).or_else(|| self.chat_of(person));
        let cards = change.cards_of(person);
        let (Some(chat), Some(id), Some(telegram)) = (chat, cards.first(), self.telegram.as_ref()) else {
            return Ok(json!({"skipped": "no card"}));
        };
        let (text, rows) = if change.end.is_none() && change.landed.is_none() {
            let (text, rows, _) = self.pending_card(change, person);
            (text, rows)
        } else {
            let (people, config) = (BTreeMap::new(), self.config.load());
            let rows = keyboard(&self.desk(&config, &people, 0), change, person, false);
            (message::settled(&self.card_facts(change), &settled_as(change)), self.buttons(change, person, rows))
        };
        let decision = change.armed.contains_key(person) && change.end.is_none();
        let urgency = if decision { Urgency::Decision } else { Urgency::Edit };
        let card = Card { urgency, ..outgoing(&text, rows, true, None) };
        // One that its person deleted does not keep the others from saying what is so.
        let mut failed = None;
        for card_id in &cards {
            failed = telegram.edit(chat, *card_id, &card).await.err().or(failed);
        }
        if let Some(problem) = failed {
            return Err(problem);
        }
        Ok(json!({"message_id": id}))
    }

    /// `Effect::Notify`: something new, as a message of its own.
    pub(super) async fn notify(&self, change: &Change, person: &str, about: &str) -> Result<Value> {
        let (Some(chat), Some(telegram)) = (self.chat_of(person), self.telegram.as_ref()) else {
            return Ok(json!({"skipped": "no Telegram"}));
        };
        if about.starts_with("remind") && (!change.is_open() || change.has_voted(person)) {
            return Ok(json!({"skipped": "it is decided"}));
        }
        let notice = notice_of(change, about);
        let silent = matches!(
            notice,
            Notice::Healthy { .. } | Notice::Standard { .. } | Notice::Superseded { .. } | Notice::Late { .. }
        );
        let text = message::notice(&self.card_facts(change), &notice);
        let reply_to = change
            .done(&Effect::Ask { person: person.to_owned() })
            .or_else(|| change.done(&Effect::Notify { person: person.to_owned(), about: "proposed".into() }))
            .and_then(|r| r.get("message_id"))
            .and_then(Value::as_i64);
        let offers = matches!(notice, Notice::Failed { .. } | Notice::Held { .. }) && change.may_ask_revert();
        let rows = if offers { vec![vec![("Prepare revert".to_owned(), Action::Revert)]] } else { Vec::new() };
        let card = Card {
            force_reply: notice == Notice::Why,
            urgency: if about.starts_with("remind") { Urgency::Decision } else { Urgency::Notice },
            ..outgoing(&text, self.buttons(change, person, rows), silent, reply_to)
        };
        let sent = telegram.send(chat, &card).await?;
        Ok(json!({"message_id": sent.message_id}))
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

fn attach(d: &Document) -> Attachment {
    Attachment { filename: d.name.clone(), bytes: d.text.clone().into_bytes(), caption: format!("sha256 {}", d.sha256) }
}

pub(super) fn outgoing(text: &message::Text, buttons: Vec<Vec<Button>>, silent: bool, reply_to: Option<i64>) -> Card {
    let entities = text
        .entities
        .iter()
        .map(|e| Entity {
            kind: match e.kind {
                message::EntityKind::Bold => EntityKind::Bold,
                message::EntityKind::Code => EntityKind::Code,
                message::EntityKind::Pre => EntityKind::Pre(None),
                message::EntityKind::Blockquote => EntityKind::Blockquote,
            },
            offset: e.offset_utf16,
            length: e.length_utf16,
        })
        .collect();
    Card { text: text.text.clone(), entities, buttons, silent, reply_to, ..Card::default() }
}

/// How the card of a change reads now.
pub(super) fn settled_as(c: &Change) -> Settled {
    let by: Vec<String> = c.approvals().map(|v| v.person.clone()).collect();
    let commit = c.landed.as_ref().map(|l| l.commit.clone());
    let Some(end) = &c.end else { return Settled::Approved { by } };
    match end.ending {
        Ending::Healthy => Settled::Healthy { commit: commit.unwrap_or_default(), by },
        Ending::Failed | Ending::TimedOut => Settled::Failed { commit, by, say: end.say.clone() },
        Ending::Superseded => Settled::Superseded { commit: commit.unwrap_or_default() },
        Ending::Rejected => {
            let no = c.rejection();
            Settled::Rejected {
                by: no.map_or_else(String::new, |v| v.person.clone()),
                reason: no.and_then(|v| v.reason.clone()),
            }
        }
        Ending::Expired | Ending::Abandoned => {
            let again = c.again.as_ref().map(|(new, why)| new.as_ref().map(short_name).ok_or_else(|| why.clone()));
            Settled::Expired { again }
        }
        Ending::Cancelled => Settled::Cancelled { by: end.say.clone() },
        Ending::Stale => Settled::Stale { why: end.say.clone() },
        Ending::Undelivered => Settled::Undelivered { why: end.say.clone() },
    }
}

fn notice_of(c: &Change, about: &str) -> Notice {
    let commit = c.landed.as_ref().map(|l| l.commit.clone()).unwrap_or_default();
    let said = || c.seen.as_ref().map(|s| s.say.clone()).unwrap_or_default();
    match about {
        _ if about.starts_with("remind") => return Notice::Reminder,
        "why" => return Notice::Why,
        "held" => return Notice::Held { commit, say: said() },
        "late" => return Notice::Late { commit },
        "no_revert" => return Notice::NoRevert { say: c.no_revert.clone().unwrap_or_default() },
        _ => {}
    }
    if about == "proposed" {
        let say = match c.state() {
            State::AwaitingCommit => "A patch waits for a person to commit it.".to_owned(),
            _ => c.pull_url().map_or_else(
                || "A pull request is open.".to_owned(),
                |u| format!("A pull request waits for its merge: {u}"),
            ),
        };
        return Notice::Other { say };
    }
    match &c.end {
        Some(end) if matches!(end.ending, Ending::Failed | Ending::TimedOut) => {
            let revert = c.revert.filter(|r| *r != c.id);
            Notice::Failed { commit, say: end.say.clone(), revert: revert.as_ref().map(short_name) }
        }
        Some(end) if end.ending == Ending::Healthy => {
            let from = c.authorized.as_ref().map_or(c.proposed_at, |(_, at)| *at);
            Notice::Healthy { commit, seconds: u64::try_from((end.at - from) / 1000).unwrap_or(0) }
        }
        Some(end) if end.ending == Ending::Superseded => Notice::Superseded { commit },
        Some(end) => Notice::Other { say: end.say.clone() },
        None => Notice::Standard { commit },
    }
}
