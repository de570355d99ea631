//! card: what people are shown of a change, and the messages that carry it.

use std::collections::BTreeMap;

use countersign_core::Result;
use countersign_core::change::{Change, State};
use countersign_core::message::{self, CardFacts, Document, Notice, Settled};
use countersign_core::model::{Effect, Ending, short_name};
use serde_json::{Value, json};

use super::Pipeline;
use super::handle::Action;
use super::press::{WRONG_NUMBERS, keyboard};
use crate::channel::telegram::{Button, Card, Document as Attachment, Entity, EntityKind, Urgency};

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
            seats: message::Seats::of(&c.decided, &[]),
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
    pub(super) fn chat_of(&self, person: &str) -> Option<i64> {
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
        facts.seats = message::Seats::of(&c.decided, &facts.approved_by);
        let wrong = c.armed.get(person).copied().unwrap_or(0);
        if complete && desk.needs_number(c) && !c.has_voted(person) && wrong < WRONG_NUMBERS {
            facts.number = self.handles.numbers(c, person, wrong).map(|n| n.right);
        }
        let shown = message::card(&facts);
        (shown.text, self.buttons(c, person, keyboard(&desk, c, person, complete)), shown.document)
    }

    pub(super) fn buttons(&self, c: &Change, person: &str, rows: Vec<Vec<(String, Action)>>) -> Vec<Vec<Button>> {
        let one = |(label, action)| Button { label, data: self.handles.make(c, person, action) };
        rows.into_iter().map(|row| row.into_iter().map(one).collect()).collect()
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
        let bad = matches!(notice, Notice::Failed { .. } | Notice::TimedOut { .. } | Notice::Held { .. });
        let offers = bad && change.may_ask_revert();
        let rows = if offers { vec![vec![("Prepare revert".to_owned(), Action::Revert)]] } else { Vec::new() };
        let card = Card {
            force_reply: notice == Notice::Why,
            urgency: if about.starts_with("remind") { Urgency::Decision } else { Urgency::Notice },
            ..outgoing(&text, self.buttons(change, person, rows), silent, reply_to)
        };
        let sent = telegram.send(chat, &card).await?;
        Ok(json!({"message_id": sent.message_id}))
    }
}

pub(super) fn attach(d: &Document) -> Attachment {
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
fn settled_as(c: &Change) -> Settled {
    let alone = |person: &String| c.glass.as_ref().is_some_and(|g| g.person == *person);
    let named = |p: &String| if alone(p) { format!("{p} (glass broken)") } else { p.clone() };
    let by: Vec<String> = c.approvals().map(|v| named(&v.person)).collect();
    let commit = c.landed.as_ref().map(|l| l.commit.clone());
    let Some(end) = &c.end else { return Settled::Approved { by } };
    match end.ending {
        Ending::Healthy => Settled::Healthy { commit: commit.unwrap_or_default(), by },
        Ending::Failed => Settled::Failed { commit, by, say: end.say.clone() },
        Ending::TimedOut => Settled::TimedOut { commit, by, say: last_seen(c) },
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

fn last_seen(c: &Change) -> String {
    c.seen.as_ref().map_or_else(|| "the engine never noticed the commit".to_owned(), |s| s.say.clone())
}

fn notice_of(c: &Change, about: &str) -> Notice {
    let commit = c.landed.as_ref().map(|l| l.commit.clone()).unwrap_or_default();
    let said = || c.seen.as_ref().map(|s| s.say.clone()).unwrap_or_default();
    match about {
        _ if about.starts_with("remind") => return Notice::Reminder,
        "why" => return Notice::Why,
        "glass" => {
            let glass = c.glass.as_ref();
            let of =
                |part: fn(&countersign_core::change::Glass) -> &String| glass.map(part).cloned().unwrap_or_default();
            return Notice::Glass { by: of(|g| &g.person), reason: of(|g| &g.reason) };
        }
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
    let revert = c.revert.filter(|r| *r != c.id).as_ref().map(short_name);
    match &c.end {
        Some(end) if end.ending == Ending::Failed => Notice::Failed { commit, say: end.say.clone(), revert },
        Some(end) if end.ending == Ending::TimedOut => Notice::TimedOut { commit, say: last_seen(c), revert },
        Some(end) if end.ending == Ending::Healthy => {
            let from = c.authorized.as_ref().map_or(c.proposed_at, |(_, at)| *at);
            Notice::Healthy { commit, seconds: u64::try_from((end.at - from) / 1000).unwrap_or(0) }
        }
        Some(end) if end.ending == Ending::Superseded => Notice::Superseded { commit },
        Some(end) => Notice::Other { say: end.say.clone() },
        None => Notice::Standard { commit },
    }
}
