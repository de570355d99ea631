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
use super::{Pipeline, fault};
use crate::channel::telegram::{
    Button, Card, ChatKind, Document as Attachment, Entity, EntityKind, Inbound, is_impersonal,
};
use crate::journal::{Entry, View};

/// How long one poll waits for updates.
const POLL: Duration = Duration::from_secs(25);

/// What to say to one press.
struct Reply {
    callback: String,
    text: String,
    alert: bool,
    /// Send this change's diff to this chat.
    diff: Option<(ChangeId, i64)>,
}

/// One press, as far as it is looked at.
struct Press<'a> {
    update_id: i64,
    callback_id: &'a str,
    from_id: i64,
    /// A bot, an anonymous administrator, a channel: nobody in particular.
    impersonal: bool,
    /// In the presser's own chat with the bot.
    private: bool,
    data: &'a str,
}

/// What came in and must be written.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    replies: Vec<Reply>,
    /// People's votes of this batch, so that a double press in one batch counts once.
    voted: BTreeMap<(ChangeId, String), bool>,
    /// Who stopped in this batch, and why.
    stopped: Option<(String, String)>,
}

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
            last_healthy: None,
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

    /// `Effect::Ask`: the document first where the card cannot show everything, then the buttons.
    pub(super) async fn ask(&self, change: &Change, person: &str) -> Result<Value> {
        let (Some(chat), Some(telegram)) = (self.chat_of(person), self.telegram.as_ref()) else {
            return Ok(json!({"skipped": "no Telegram; this person can sign on the command line"}));
        };
        let mut facts = self.card_facts(change);
        let card = message::card(&facts);
        facts.viewer = Some(person.to_owned());
        let shown = message::card(&facts);
        let button =
            |label: &str, action| Button { label: label.into(), data: self.handles.make(change, person, action) };
        let mut rows = Vec::new();
        if card.complete {
            rows.push(vec![button("Approve", Action::Approve), button("Reject", Action::Reject)]);
        } else {
            rows.push(vec![button("Reject", Action::Reject)]);
        }
        rows.push(vec![button("Full diff", Action::Diff), button("Stop all", Action::Stop)]);
        let sent = telegram
            .send(
                chat,
                &Card { document: shown.document.as_ref().map(attach), ..outgoing(&shown.text, rows, false, None) },
            )
            .await?;
        Ok(json!({"chat": chat, "message_id": sent.message_id}))
    }

    /// `Effect::SettleCard`: the card says how it ended and loses its buttons.
    pub(super) async fn settle_card(&self, change: &Change, person: &str) -> Result<Value> {
        let asked = change.done(&Effect::Ask { person: person.to_owned() }).cloned().unwrap_or_default();
        let part = |k: &str| asked.get(k).and_then(Value::as_i64);
        let (Some(chat), Some(id), Some(telegram)) = (part("chat"), part("message_id"), self.telegram.as_ref()) else {
            return Ok(json!({"skipped": "no card"}));
        };
        let text = message::settled(&self.card_facts(change), &settled_as(change));
        telegram.edit(chat, id, &outgoing(&text, Vec::new(), true, None)).await?;
        Ok(json!({"message_id": id}))
    }

    /// `Effect::Notify`: something new, as a message of its own.
    pub(super) async fn notify(&self, change: &Change, person: &str, about: &str) -> Result<Value> {
        let (Some(chat), Some(telegram)) = (self.chat_of(person), self.telegram.as_ref()) else {
            return Ok(json!({"skipped": "no Telegram"}));
        };
        let notice = notice_of(change, about);
        let silent = !matches!(notice, Notice::Failed { .. });
        let text = message::notice(&self.card_facts(change), &notice);
        let reply_to = change
            .done(&Effect::Ask { person: person.to_owned() })
            .or_else(|| change.done(&Effect::Notify { person: person.to_owned(), about: "proposed".into() }))
            .and_then(|r| r.get("message_id"))
            .and_then(Value::as_i64);
        let sent = telegram.send(chat, &outgoing(&text, Vec::new(), silent, reply_to)).await?;
        Ok(json!({"message_id": sent.message_id}))
    }

    /// Polls the channel until the daemon ends. The offset that is asked for is the one in the
    /// journal: what was not written comes again.
    pub async fn poll_channel(self: Arc<Self>, shutdown: tokio_util::sync::CancellationToken) {
        let Some(telegram) = &self.telegram else { return };
        let mut pause = Duration::from_millis(500);
        let mut checked = false;
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
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = self.clock.sleep_until(self.clock.now_ms() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)) => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
    }

    /// Decides on a batch and writes it with its offset in one transaction; answers only then.
    async fn take_updates(self: &Arc<Self>, updates: &[Inbound]) -> Result<()> {
        let Some(next) = updates.iter().map(Inbound::update_id).max().map(|id| id + 1) else { return Ok(()) };
        let people: BTreeMap<i64, String> =
            self.config.load().people.iter().filter_map(|p| Some((p.spec.telegram?, p.name.clone()))).collect();
        let now = self.clock.now_ms();
        fault::point("before_vote");
        let batch = self
            .journal
            .transact(now, &[], |view| {
                let mut batch = Batch::default();
                for u in updates {
                    match u {
                        Inbound::Press {
                            update_id,
                            callback_id,
                            from_id,
                            from_is_bot,
                            chat_id,
                            chat_kind,
                            data,
                            ..
                        } => {
                            let p = Press {
                                update_id: *update_id,
                                callback_id,
                                from_id: *from_id,
                                impersonal: *from_is_bot || is_impersonal(*from_id),
                                private: *chat_kind == ChatKind::Private && chat_id == from_id,
                                data,
                            };
                            self.press(view, &p, &people, now, &mut batch);
                        }
                        Inbound::Text { from_id, from_is_bot, chat_kind: ChatKind::Private, text, .. } => {
                            if asks_to_stop(text) && !from_is_bot && people.contains_key(from_id) {
                                batch.stop(view, people.get(from_id).map_or("", String::as_str), "/stop in the chat");
                            }
                        }
                        Inbound::Text { .. } | Inbound::Other { .. } => {}
                    }
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
        self.answer(batch);
        self.greet(updates, &people);
        Ok(())
    }

    /// Tells everyone of the list that the emergency stop is on, or over. In the background: the stop
    /// is in the journal and holds, whether or not anybody can be told.
    pub(super) fn tell_stop(self: &Arc<Self>, on: bool, by: &str, reason: &str) {
        let (me, by, reason) = (Arc::clone(self), by.to_owned(), reason.to_owned());
        tokio::spawn(async move {
            let Some(telegram) = &me.telegram else { return };
            let held = me.journal.read(|v| v.changes.values().filter(|c| c.is_open()).count()).await;
            let text = message::stopped(on, &by, &reason, held);
            let chats: Vec<i64> = me.config.load().people.iter().filter_map(|p| p.spec.telegram).collect();
            for chat in chats {
                if let Err(problem) = telegram.send(chat, &outgoing(&text, Vec::new(), false, None)).await {
                    tracing::info!(code = %problem.code, "a person could not be told of the stop");
                }
            }
        });
    }

    /// One press: whose it is, what it is, and whether it may be.
    fn press(&self, view: &View, p: &Press<'_>, people: &BTreeMap<i64, String>, now: i64, batch: &mut Batch) {
        let mut say = |text: &str, alert: bool| {
            batch.replies.push(Reply { callback: p.callback_id.to_owned(), text: text.to_owned(), alert, diff: None });
        };
        let Some(person) = people.get(&p.from_id).filter(|_| !p.impersonal) else {
            return say("You are not on the list of people who decide here.", true);
        };
        let found = view.changes.values().find_map(|c| self.handles.find(c, p.data).map(|(whose, a)| (c, whose, a)));
        let Some((change, whose, action)) = found else {
            return say("This button is not one of mine, or no longer.", true);
        };
        if whose != person || !p.private {
            batch.entries.push(Entry::of(change.id, &format!("person:{person}"), pressed(p, person, "foreign")));
            return say("This card was sent to somebody else.", true);
        }
        let actor = format!("person:{person}");
        match action {
            Action::Diff => batch.replies.push(Reply {
                callback: p.callback_id.to_owned(),
                text: "Sent.".into(),
                alert: false,
                diff: Some((change.id, p.from_id)),
            }),
            Action::Stop => {
                batch.stop(view, person, "Stop all on a card");
                batch.replies.push(Reply {
                    callback: p.callback_id.to_owned(),
                    text: "Stopped: nothing leaves until someone resumes on the command line.".into(),
                    alert: true,
                    diff: None,
                });
            }
            Action::Approve | Action::Reject => {
                let approve = action == Action::Approve;
                match may_vote(change, person, approve, now, batch.voted.get(&(change.id, person.clone())).copied()) {
                    Err(why) => say(&why, true),
                    Ok(()) => {
                        batch.voted.insert((change.id, person.clone()), approve);
                        batch.entries.push(Entry::of(change.id, &actor, pressed(p, person, action.name())));
                        batch.entries.push(Entry::of(
                            change.id,
                            &actor,
                            vote(change, person, "telegram", approve, None, None),
                        ));
                        let text = if approve { "Approved." } else { "Rejected." };
                        batch.replies.push(Reply {
                            callback: p.callback_id.to_owned(),
                            text: text.into(),
                            alert: false,
                            diff: None,
                        });
                    }
                }
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

impl Batch {
    fn stop(&mut self, view: &View, person: &str, reason: &str) {
        if view.stopped.is_none() && self.stopped.is_none() {
            self.stopped = Some((person.to_owned(), reason.to_owned()));
            self.entries.push(Entry::global(&format!("person:{person}"), Body::Stopped { reason: reason.to_owned() }));
        }
    }
}

fn pressed(p: &Press<'_>, person: &str, action: &str) -> Body {
    Body::Pressed {
        update: p.update_id,
        callback: p.callback_id.to_owned(),
        person: person.to_owned(),
        action: action.to_owned(),
    }
}

fn vote(c: &Change, person: &str, channel: &str, approve: bool, reason: Option<String>, proof: Option<String>) -> Body {
    Body::Voted {
        person: person.to_owned(),
        channel: channel.to_owned(),
        approve,
        reason,
        digest: c.digest.clone(),
        proof,
    }
}

/// Whether a vote of this person still counts; the reason is for the person.
fn may_vote(c: &Change, person: &str, approve: bool, now: i64, in_batch: Option<bool>) -> Result<(), String> {
    if let Some(end) = &c.end {
        return Err(format!("{} has ended: {}", c.name(), end.say));
    }
    if c.is_leaving() || !matches!(c.state(), State::AwaitingApproval | State::Approved) && approve {
        return Err(format!("{} is decided and on its way.", c.name()));
    }
    if now >= c.sealed.expires_at * 1000 {
        return Err(format!("The time to decide about {} has passed.", c.name()));
    }
    if !c.decided.quorum.allow_sponsor && person == c.sealed.sponsor {
        return Err("You answer for the agent that asks, so somebody else must decide.".into());
    }
    let before = in_batch.or_else(|| c.votes.iter().rev().find(|v| v.person == person).map(|v| v.approve));
    match before {
        Some(b) if b == approve => Err("You have decided already.".into()),
        Some(false) => Err("You have rejected it already.".into()),
        _ => Ok(()),
    }
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
    Card { text: text.text.clone(), entities, buttons, document: None, silent, reply_to }
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
        Ending::Expired | Ending::Abandoned => Settled::Expired,
        Ending::Cancelled => Settled::Cancelled { by: end.say.clone() },
        Ending::Stale => Settled::Stale { why: end.say.clone() },
        Ending::Undelivered => Settled::Undelivered { why: end.say.clone() },
    }
}

/// `/stop`, also with a reason behind it or addressed as `/stop@bot`: stopping is the safe direction.
fn asks_to_stop(text: &str) -> bool {
    let command = text.split_whitespace().next().unwrap_or_default();
    command.split('@').next() == Some("/stop")
}

fn notice_of(c: &Change, about: &str) -> Notice {
    let commit = c.landed.as_ref().map(|l| l.commit.clone()).unwrap_or_default();
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
            Notice::Failed { commit, say: end.say.clone(), revert: c.revert.as_ref().map(short_name) }
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

#[cfg(test)]
mod tests {
    use super::asks_to_stop;

    #[test]
    fn stop_is_understood_with_a_reason_and_with_the_bots_name() {
        for text in ["/stop", " /stop\n", "/stop it burns", "/stop@countersign_bot", "/stop@countersign_bot now"] {
            assert!(asks_to_stop(text), "{text}");
        }
        for text in ["", "stop", "/stopped", "please /stop", "/status"] {
            assert!(!asks_to_stop(text), "{text}");
        }
    }
}
