//! What people did in the chat, decided on the journal's state: whose it is, what it is, and whether it may be.
//! No I/O and no clock: the caller writes [`Batch::entries`] in one transaction and answers afterwards.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::change::{Change, State};
use countersign_core::model::{Body, ChangeId, Confirm, Ending, RiskLevel};

use super::handle::{Action, HandleKey, Why};
use crate::journal::{Entry, View};

/// Wrong numbers after which a person can no longer approve this change in the chat.
pub const WRONG_NUMBERS: u32 = 3;
/// Cards of one person about one change that are kept up to date.
const CARDS: usize = 5;
/// Reasons of one rejection that are taken.
const REASONS: u32 = 5;
/// Characters of a reason that are kept.
const REASON: usize = 300;

/// What to say to one press.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The press that is answered.
    pub callback: String,
    /// What to say.
    pub text: String,
    /// As a window that must be closed.
    pub alert: bool,
    /// Send this change's diff to this chat.
    pub diff: Option<(ChangeId, i64)>,
}

/// One press, as far as it is looked at.
#[derive(Debug, Clone)]
pub struct Press<'a> {
    /// Telegram's number of the update.
    pub update_id: i64,
    /// Telegram's id of the press, for the answer.
    pub callback_id: &'a str,
    /// Who pressed.
    pub from_id: i64,
    /// A bot, an anonymous administrator, a channel: nobody in particular.
    pub impersonal: bool,
    /// In the presser's own chat with the bot.
    pub private: bool,
    /// The message with the button.
    pub message_id: i64,
    /// The button's handle.
    pub data: &'a str,
}

/// What a person asked in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// What waits for them.
    Pending,
    /// End the stop.
    Resume,
}

/// Who decides, and how carefully.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Makes and finds the handles of buttons.
    pub handles: &'a HandleKey,
    /// People by their number at Telegram.
    pub people: &'a BTreeMap<i64, String>,
    /// From this risk on a yes needs the number on the card.
    pub number_from: RiskLevel,
    /// How many people must want a resume.
    pub resume_needed: usize,
    /// Milliseconds.
    pub now: i64,
}

/// What came in and must be written.
#[derive(Debug, Default)]
pub struct Batch {
    /// To be written, all or nothing.
    pub entries: Vec<Entry>,
    /// To be said once that is written.
    pub replies: Vec<Reply>,
    /// What people asked: person, chat, command.
    pub commands: Vec<(String, i64, Command)>,
    /// Who stopped in this batch, and why.
    pub stopped: Option<(String, String)>,
    /// Who wanted to resume in this batch, and whether that ended the stop.
    pub resuming: Vec<(String, bool)>,
    /// People's votes of this batch, so that a double press in one batch counts once.
    voted: BTreeMap<(ChangeId, String), bool>,
    /// People of this batch who were given numbers, or chose a wrong one: what they see is not yet what counts.
    numbered: BTreeSet<(ChangeId, String)>,
    /// Cards of this batch that nobody knew of.
    found: BTreeSet<(ChangeId, i64)>,
    /// Wishes of this batch, each of which a change takes once.
    wished: BTreeSet<(ChangeId, &'static str)>,
    reasons: BTreeMap<ChangeId, u32>,
}

impl Desk<'_> {
    /// Whether a yes to this change needs the number on the card.
    pub fn needs_number(&self, c: &Change) -> bool {
        c.proposal.risk.level >= self.number_from || c.decided.obligations.confirm == Some(Confirm::Number)
    }

    /// One press.
    pub fn press(&self, view: &View, p: &Press<'_>, batch: &mut Batch) {
        let Some(person) = self.people.get(&p.from_id).filter(|_| !p.impersonal) else {
            return batch.say(p, "You are not on the list of people who decide here.", true);
        };
        if p.data.starts_with("r:") {
            return self.resume(view, p, person, batch);
        }
        let change = HandleKey::change_of(p.data).and_then(|id| view.changes.get(&id));
        let Some((change, whose, action)) =
            change.and_then(|c| self.handles.find(c, p.data).map(|(whose, action)| (c, whose, action)))
        else {
            return batch.say(p, "This button is not one of mine, or no longer.", true);
        };
        if whose != person || !p.private {
            batch.entries.push(Entry::of(change.id, &actor(person), pressed(p, person, "foreign")));
            return batch.say(p, "This card was sent to somebody else.", true);
        }
        if action != Action::Revert {
            batch.find(change, p, person);
        }
        match action {
            Action::Diff => batch.replies.push(Reply {
                callback: p.callback_id.to_owned(),
                text: "Sent.".into(),
                alert: false,
                diff: Some((change.id, p.from_id)),
            }),
            Action::Stop => {
                batch.stop(view, person, "Stop all on a card");
                batch.say(p, "Stopped: nothing leaves until people resume (/resume).", true);
            }
            Action::Approve | Action::Number(_) | Action::Reject => self.vote(change, p, person, action, batch),
            Action::Reason(why) => reason(change, p, person, why, batch),
            Action::AskAgain => {
                let expired = change.end.as_ref().is_some_and(|e| e.ending == Ending::Expired);
                let free = expired && change.again_asked.is_none();
                batch.wish(change, p, person, "again", free, Body::AgainAsked { person: person.clone() });
            }
            Action::Revert => {
                let free = change.may_ask_revert();
                batch.wish(change, p, person, "revert", free, Body::RevertAsked { person: person.clone() });
            }
        }
    }

    /// Approve, its number, or Reject.
    fn vote(&self, c: &Change, p: &Press<'_>, person: &str, action: Action, batch: &mut Batch) {
        let approve = action != Action::Reject;
        let key = (c.id, person.to_owned());
        if let Err(why) = may_vote(c, person, approve, self.now, batch.voted.get(&key).copied()) {
            return batch.say(p, &why, true);
        }
        if !c.decided.approvers.iter().any(|a| a == person) {
            return batch.say(p, "You are told of this change; others decide about it.", true);
        }
        if approve && self.needs_number(c) && !self.number(c, p, person, action, batch) {
            return;
        }
        let said = if approve { agreed(c, person, batch) } else { "Rejected.".to_owned() };
        batch.voted.insert(key, approve);
        batch.entries.push(Entry::of(c.id, &actor(person), pressed(p, person, &action.name())));
        batch.entries.push(Entry::of(c.id, &actor(person), vote(c, person, "telegram", approve, None, None)));
        batch.say(p, &said, false);
    }

    /// Whether this press is the right number; otherwise it says what is to be done.
    fn number(&self, c: &Change, p: &Press<'_>, person: &str, action: Action, batch: &mut Batch) -> bool {
        let wrong = c.armed.get(person).copied();
        if wrong.unwrap_or(0) >= WRONG_NUMBERS {
            batch.say(p, "Too many wrong numbers: this change can only be approved by a signature now.", true);
            return false;
        }
        let key = (c.id, person.to_owned());
        match action {
            Action::Number(n) if !batch.numbered.contains(&key) => {
                let right = wrong.and_then(|w| self.handles.numbers(c, person, w)).is_some_and(|own| own.right == n);
                if !right {
                    batch.numbered.insert(key);
                    batch.entries.push(Entry::of(c.id, &actor(person), pressed(p, person, "wrong_number")));
                    batch.say(p, "That is not the number on the card. Read it again: it has a new number now.", true);
                }
                right
            }
            Action::Number(_) => {
                batch.say(p, "These numbers are no longer good. Read the card again.", true);
                false
            }
            _ => {
                if wrong.is_none() && batch.numbered.insert(key) {
                    batch.entries.push(Entry::of(c.id, &actor(person), pressed(p, person, "armed")));
                }
                batch.say(p, "High risk: now press the number that stands on the card.", true);
                false
            }
        }
    }

    /// The vote of one person to end the stop.
    fn resume(&self, view: &View, p: &Press<'_>, person: &str, batch: &mut Batch) {
        let stop = view.stop_seq();
        if view.stopped.is_none() || !p.private || !self.handles.is_resume(stop, person, p.data) {
            return batch.say(p, "This button is not one of mine, or no longer.", true);
        }
        let mut agreed: BTreeSet<String> = view.resuming.clone();
        agreed.extend(batch.resuming.iter().map(|(who, _)| who.clone()));
        if batch.resuming.iter().any(|(_, over)| *over) || !agreed.insert(person.to_owned()) {
            return batch.say(p, "You have said so already.", true);
        }
        let over = agreed.len() >= self.resume_needed;
        batch.entries.extend(resume_entries(person, "telegram", stop, None, over, ""));
        batch.resuming.push((person.to_owned(), over));
        batch.say(p, if over { "Resumed." } else { "Noted: somebody else must say so as well." }, false);
    }

    /// Words in a private chat of somebody on the list.
    pub fn text(
        &self,
        view: &View,
        (from_id, chat): (i64, i64),
        text: &str,
        reply_to: Option<i64>,
        clean: &dyn Fn(&str) -> String,
        batch: &mut Batch,
    ) {
        let Some(person) = self.people.get(&from_id) else { return };
        match command(text) {
            Some("/stop") => return batch.stop(view, person, "/stop in the chat"),
            Some("/pending") => return batch.commands.push((person.clone(), chat, Command::Pending)),
            Some("/resume") => return batch.commands.push((person.clone(), chat, Command::Resume)),
            _ => {}
        }
        let Some(message) = reply_to else { return };
        let no = |c: &&std::sync::Arc<Change>| c.votes.iter().any(|v| v.person == *person && !v.approve);
        let all = || view.changes.values().rev().filter(no);
        let exact = all().find(|c| c.cards_of(person).contains(&message) || asked_why(c, person) == Some(message));
        // The question may be in the chat before Telegram's answer to it is in the journal.
        let under_way = |c: &&std::sync::Arc<Change>| c.asked_why.contains(person) && asked_why(c, person).is_none();
        let Some(c) = exact.or_else(|| all().find(under_way)) else { return };
        let taken = batch.reasons.entry(c.id).or_insert(c.reasons);
        if *taken >= REASONS || text.trim().is_empty() {
            return;
        }
        *taken += 1;
        let reason: String = clean(text.trim()).chars().take(REASON).collect();
        let body = Body::Reasoned { person: person.clone(), reason: Some(reason) };
        batch.entries.push(Entry::of(c.id, &actor(person), body));
    }
}

/// The message that asked this person for a reason in their words.
fn asked_why(c: &Change, person: &str) -> Option<i64> {
    let e = countersign_core::model::Effect::Notify { person: person.to_owned(), about: "why".into() };
    c.done(&e)?.get("message_id")?.as_i64()
}

fn reason(c: &Change, p: &Press<'_>, person: &str, why: Why, batch: &mut Batch) {
    let no = c.votes.iter().rfind(|v| v.person == person && !v.approve);
    let open = no.is_some_and(|v| v.reason.is_none()) && !(why == Why::Other && c.asked_why.contains(person));
    if !open || !batch.wished.insert((c.id, "reason")) {
        return batch.say(p, "The reason is written down already.", true);
    }
    let reason = (why != Why::Other).then(|| why.words().to_owned());
    let say = if reason.is_some() { "Thank you." } else { "Reply with your words to the message that comes now." };
    batch.entries.push(Entry::of(c.id, &actor(person), Body::Reasoned { person: person.to_owned(), reason }));
    batch.say(p, say, false);
}

/// What a resume writes: the vote, and the end of the stop where it was the last one needed.
pub(super) fn resume_entries(
    person: &str,
    channel: &str,
    stop: u64,
    proof: Option<String>,
    over: bool,
    reason: &str,
) -> Vec<Entry> {
    let by = actor(person);
    let vote = Body::ResumeVoted { person: person.to_owned(), channel: channel.to_owned(), stop, proof };
    let mut out = vec![Entry::global(&by, vote)];
    if over {
        out.push(Entry::global(&by, Body::Resumed { reason: reason.to_owned() }));
    }
    out
}

impl Batch {
    fn say(&mut self, p: &Press<'_>, text: &str, alert: bool) {
        let (callback, text) = (p.callback_id.to_owned(), text.to_owned());
        self.replies.push(Reply { callback, text, alert, diff: None });
    }

    /// The pressed card, where it is not one that is known to have been sent: a kill between the sending and the
    /// answer leaves such a card, and its person must not be left with buttons that do nothing.
    fn find(&mut self, c: &Change, p: &Press<'_>, person: &str) {
        let known = c.cards_of(person);
        if known.len() < CARDS && !known.contains(&p.message_id) && self.found.insert((c.id, p.message_id)) {
            let found = Body::CardFound { person: person.to_owned(), message_id: p.message_id };
            self.entries.push(Entry::of(c.id, "countersign", found));
        }
    }

    fn stop(&mut self, view: &View, person: &str, reason: &str) {
        if view.stopped.is_none() && self.stopped.is_none() {
            self.stopped = Some((person.to_owned(), reason.to_owned()));
            self.entries.push(Entry::global(&actor(person), Body::Stopped { reason: reason.to_owned() }));
        }
    }

    /// A wish that a change takes once.
    fn wish(&mut self, c: &Change, p: &Press<'_>, person: &str, what: &'static str, free: bool, body: Body) {
        if !free || !self.wished.insert((c.id, what)) {
            return self.say(p, "That is done already, or there is nothing left to do.", true);
        }
        self.entries.push(Entry::of(c.id, &actor(person), pressed(p, person, what)));
        self.entries.push(Entry::of(c.id, &actor(person), body));
        self.say(p, "It is being prepared.", false);
    }
}

/// What a person's yes is answered: how far it takes the change, and who is still asked. A yes that counts for nothing
/// must not look like one that lets something through.
fn agreed(c: &Change, person: &str, batch: &Batch) -> String {
    let now = batch.voted.iter().filter(|((id, _), yes)| *id == c.id && **yes).map(|((_, p), _)| p.as_str());
    let mut yes: BTreeSet<&str> = c.approvals().map(|v| v.person.as_str()).chain(now).collect();
    let before = c.decided.votes(yes.iter().copied());
    yes.insert(person);
    let (after, needed) = (c.decided.votes(yes.iter().copied()), c.decided.quorum.count as usize);
    let open = c.decided.still_asked(yes.iter().copied()).join(" or ");
    match (after > before, open.is_empty()) {
        _ if after >= needed => "Approved.".into(),
        (true, true) => format!("Approved: {after} of {needed}."),
        (true, false) => format!("Approved: {after} of {needed}. Still needed: somebody of {open}."),
        (false, _) => format!("Noted, but it stays at {after} of {needed}: still needed is somebody of {open}."),
    }
}

fn actor(person: &str) -> String {
    format!("person:{person}")
}

fn pressed(p: &Press<'_>, person: &str, action: &str) -> Body {
    Body::Pressed {
        update: p.update_id,
        callback: p.callback_id.to_owned(),
        person: person.to_owned(),
        action: action.to_owned(),
    }
}

pub(super) fn vote(
    c: &Change,
    person: &str,
    channel: &str,
    approve: bool,
    reason: Option<String>,
    proof: Option<String>,
) -> Body {
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
pub(super) fn may_vote(
    c: &Change,
    person: &str,
    approve: bool,
    now: i64,
    in_batch: Option<bool>,
) -> Result<(), String> {
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

/// The command of a text, also with words behind it or addressed as `/stop@bot`.
fn command(text: &str) -> Option<&str> {
    let first = text.split_whitespace().next().unwrap_or_default();
    first.split('@').next().filter(|c| c.starts_with('/'))
}

/// The buttons that a person's card has now, by row.
pub fn keyboard(desk: &Desk<'_>, c: &Change, person: &str, complete: bool) -> Vec<Vec<(String, Action)>> {
    let one = |label: &str, action| (label.to_owned(), action);
    if let Some(end) = &c.end {
        let no = c.votes.iter().rfind(|v| v.person == person && !v.approve);
        let open = no.is_some_and(|v| v.reason.is_none() && v.channel == "telegram") && !c.asked_why.contains(person);
        return match end.ending {
            Ending::Rejected if open => {
                let row = |w: &[Why]| w.iter().map(|w| one(w.words(), Action::Reason(*w))).collect();
                Why::ALL.chunks(2).map(row).collect()
            }
            Ending::Expired if c.again_asked.is_none() => vec![vec![one("Ask again", Action::AskAgain)]],
            _ => Vec::new(),
        };
    }
    if c.landed.is_some() {
        return Vec::new();
    }
    let mut first = Vec::new();
    let wrong = c.armed.get(person).copied();
    let locked = desk.needs_number(c) && wrong.unwrap_or(0) >= WRONG_NUMBERS;
    if complete && !c.has_voted(person) && !locked {
        match wrong.filter(|_| desk.needs_number(c)).and_then(|w| desk.handles.numbers(c, person, w)) {
            Some(numbers) => first.extend(numbers.all.map(|n| (n.to_string(), Action::Number(n)))),
            None => first.push(one("Approve", Action::Approve)),
        }
    }
    first.push(one("Reject…", Action::Reject));
    vec![first, vec![one("Full diff", Action::Diff), one("Stop all", Action::Stop)]]
}

#[cfg(test)]
mod tests;
