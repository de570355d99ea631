//! What agents are told of a change: `change`, `changes`, `cancel`.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::change::{Change, State, in_words};
use countersign_core::message;
use countersign_core::model::{
    Body, CancelArgs, ChangeAnswer, ChangeArgs, ChangeFilter, ChangeId, ChangeLine, ChangesAnswer, ChangesArgs,
    DecisionView, Effect, Ending, Event, FieldChange, FileNote, LeafChange, Level, Next, Outcome, Principal, StoryLine,
    Verdict,
};
use countersign_core::policy::asks;
use countersign_core::{Problem, Result};
use serde_json::json;
use tokio::sync::mpsc;

use super::propose::withdrawable;
use super::{Pipeline, unknown_change};
use crate::clock::rfc3339;
use crate::journal::Entry;

/// Longest wait of `change`.
const MAX_WAIT_S: u32 = 45;
/// How long `cancel` waits for a step that is under way.
const BUSY: Duration = Duration::from_secs(10);
/// Lines of a listing.
const PAGE: usize = 20;
/// Lines of a story.
const STORY: usize = 30;

pub(super) fn file_line(repository: &str, git_ref: &str, f: &FileNote) -> String {
    let branch = git_ref.trim_start_matches("refs/heads/");
    format!("{repository} {branch} {}:{} +{} -{}", f.path, f.line, f.added, f.removed)
}

pub(super) fn field_changes(fields: &[LeafChange]) -> Vec<FieldChange> {
    fields
        .iter()
        .map(|l| FieldChange {
            object: l.object.to_string(),
            pointer: l.pointer.clone(),
            before: l.before.clone(),
            after: l.after.clone(),
        })
        .collect()
}

impl Pipeline {
    /// A change by id or short name, if the principal may see it.
    pub(super) async fn find_change(&self, who: &Principal, text: &str) -> Result<Arc<Change>> {
        let id = self.resolve(text).await?;
        let change = self.journal.change(id).await.ok_or_else(unknown_change)?;
        if change.proposal.requester.agent != who.agent {
            return Err(unknown_change());
        }
        Ok(change)
    }

    /// Id of a change by id or short name; a short name means the open one, else the newest.
    pub(crate) async fn resolve(&self, text: &str) -> Result<ChangeId> {
        let text = text.trim();
        if let Ok(id) = text.parse::<ChangeId>() {
            return Ok(id);
        }
        let hits: Vec<(ChangeId, bool)> = self
            .journal
            .read(|v| {
                v.changes
                    .values()
                    .filter(|c| c.name().eq_ignore_ascii_case(text))
                    .map(|c| (c.id, c.is_open()))
                    .collect()
            })
            .await;
        let open: Vec<&(ChangeId, bool)> = hits.iter().filter(|(_, o)| *o).collect();
        match (open.as_slice(), hits.last()) {
            ([(one, _)], _) => Ok(*one),
            ([], Some((newest, _))) => Ok(*newest),
            ([], None) => Err(unknown_change()),
            _ => Err(Problem::new(
                "change.ambiguous",
                format!("{text} means several open changes."),
                "Use the whole id.",
            )),
        }
    }

    /// The tool `change`: the story, after at most 45 s of waiting for news.
    pub async fn change(
        &self,
        who: &Principal,
        args: ChangeArgs,
        progress: mpsc::Sender<String>,
    ) -> Result<ChangeAnswer> {
        let mut change = self.find_change(who, &args.change).await?;
        let wait = args.wait_s.unwrap_or(0).min(MAX_WAIT_S);
        let until = tokio::time::Instant::now() + Duration::from_secs(u64::from(wait));
        let mut news = self.journal.subscribe();
        let first = (change.state(), change.end.is_some());
        while wait > 0 && change.is_open() {
            let heard = tokio::time::timeout_at(until, news.recv()).await;
            if heard.is_err() {
                break;
            }
            let Some(now) = self.journal.change(change.id).await else { break };
            if now.n == change.n {
                continue;
            }
            change = now;
            // A slow or gone client is no reason to stop.
            let _ = progress.try_send(self.waits_for(&change));
            if (change.state(), change.end.is_some()) != first {
                break;
            }
        }
        self.answer_for(who, &change).await
    }

    /// The tool `changes`.
    pub async fn changes(&self, who: &Principal, args: ChangesArgs) -> Result<ChangesAnswer> {
        let before: Option<ChangeId> = args.cursor.as_deref().and_then(|c| c.parse().ok());
        let mut lines: Vec<ChangeLine> = self
            .journal
            .read(|v| {
                v.changes
                    .values()
                    .rev()
                    .filter(|c| c.proposal.requester.agent == who.agent)
                    .filter(|c| before.is_none_or(|b| c.id < b))
                    .filter(|c| match args.state {
                        ChangeFilter::Open => c.is_open(),
                        ChangeFilter::Ended => !c.is_open(),
                        ChangeFilter::All => true,
                    })
                    .filter(|c| args.target.as_ref().is_none_or(|t| c.proposal.edits.iter().any(|e| e.target == *t)))
                    .take(PAGE + 1)
                    .map(|c| ChangeLine {
                        change: c.id.to_string(),
                        name: c.name(),
                        state: c.state().name().into(),
                        what: message::what_short(&c.proposal.fields),
                        since: rfc3339(c.updated_at),
                    })
                    .collect()
            })
            .await;
        let more = lines.len() > PAGE;
        lines.truncate(PAGE);
        let cursor = if more { lines.last().map(|l| l.change.clone()) } else { None };
        let summary = match lines.len() {
            0 => "No changes.".to_owned(),
            n => format!("{n} changes{}.", if more { ", and more" } else { "" }),
        };
        Ok(ChangesAnswer { outcome: Outcome::Found, summary, changes: lines, cursor, problem: None, next: None })
    }

    /// The tool `cancel`.
    pub async fn cancel(&self, who: &Principal, args: CancelArgs) -> Result<ChangeAnswer> {
        let change = self.find_change(who, &args.change).await?;
        let say = match &args.reason {
            Some(r) => format!("{}: {}", who.agent, self.reason(r)?),
            None => who.agent.clone(),
        };
        let (id, actor) = (change.id, format!("agent:{}", who.agent));
        // A step that is under way (a card that is being sent) ends first, so that its result is known.
        let until = tokio::time::Instant::now() + BUSY;
        let mut news = self.journal.subscribe();
        loop {
            match self.withdraw(id, &actor, &say).await {
                Err(busy) if busy.code == "cancel.busy" && tokio::time::Instant::now() < until => {
                    let soon = tokio::time::Instant::now() + Duration::from_millis(200);
                    drop(tokio::time::timeout_at(soon.min(until), news.recv()).await);
                }
                other => break other?,
            }
        }
        let change = self.journal.change(id).await.ok_or_else(unknown_change)?;
        self.answer_for(who, &change).await
    }

    async fn withdraw(&self, id: ChangeId, actor: &str, say: &str) -> Result<()> {
        self.journal
            .transact(self.clock.now_ms(), &[], |view| {
                let Some(c) = view.changes.get(&id) else { return Err(unknown_change()) };
                if c.end.is_some() {
                    return Ok(((), Vec::new()));
                }
                if !withdrawable(c) {
                    return Err(Problem::new(
                        "cancel.too_late",
                        format!("{} is already on its way to the branch.", c.name()),
                        "Wait for its end with change; undo it with rollback.",
                    )
                    .never());
                }
                if c.dangling().is_some() {
                    return Err(Problem::new(
                        "cancel.busy",
                        "A step of the change is under way and takes long.",
                        "Call cancel again in a few seconds.",
                    )
                    .later());
                }
                Ok(((), vec![Entry::of(id, actor, Body::Closed { ending: Ending::Cancelled, say: say.to_owned() })]))
            })
            .await
    }

    /// What a change waits for, in words.
    pub(super) fn waits_for(&self, c: &Change) -> String {
        match c.state() {
            State::AwaitingApproval => {
                let open = c.still_asked();
                let still = match open.as_slice() {
                    [] => String::new(),
                    open => format!(", still needed: somebody of {}", open.join(" or ")),
                };
                // Otherwise whoever is told would look for a button that no card has. Early in the line: a change
                // like this has a long diff, and a long answer has its texts shortened.
                let signed = message::too_large(&self.card_facts(c))
                    .map_or_else(String::new, |_| format!(", signed with {},", message::signing(&c.name())));
                format!(
                    "{} of {} approvals{signed} by {}{still}, until {}",
                    c.counted(),
                    c.decided.quorum.count,
                    c.decided.approvers.join(" or "),
                    rfc3339(c.sealed.expires_at * 1000)
                )
            }
            State::Approved => {
                let by: Vec<&str> = c.approvals().map(|v| v.person.as_str()).collect();
                format!("approved by {}; {}", by.join(", "), self.held_words(c))
            }
            State::AwaitingMerge => format!("the merge of {}", c.pull_url().unwrap_or("the pull request")),
            State::AwaitingCommit => "a person's commit of the patch".into(),
            State::Delivering if c.authorized.is_none() => self.held_words(c),
            State::Delivering => delivery_words(c),
            State::Observing => {
                c.seen.as_ref().map_or_else(|| format!("{} to notice the commit", c.proposal.owner), |s| s.say.clone())
            }
            State::Ended(_) => String::new(),
        }
    }

    /// What the look right before the delivery waits for, and since when.
    fn held_words(&self, c: &Change) -> String {
        let held = self.held.lock().ok().and_then(|h| h.get(&c.id).cloned());
        held.map_or_else(
            || "the look at Git and the cluster right before the delivery".to_owned(),
            |h| format!("since {} it waits, and tries again: {}", rfc3339(h.since), in_words(&h.problem)),
        )
    }

    /// The answer about a change as it stands.
    pub(super) async fn answer_for(&self, _who: &Principal, c: &Change) -> Result<ChangeAnswer> {
        let state = c.state();
        let name = c.name();
        let stopped = self.journal.read(|v| v.stopped.is_some()).await;
        let shown = if stopped && c.is_open() && !matches!(state, State::Observing) { "held" } else { state.name() };
        let outcome = match state {
            State::Ended(Ending::Healthy) => Outcome::Healthy,
            State::Ended(_) => Outcome::Ended,
            State::AwaitingCommit => Outcome::Manual,
            _ => Outcome::Waiting,
        };
        let mut answer =
            ChangeAnswer::new(outcome, message::state_summary(shown, &name, &message::what_short(&c.proposal.fields)));
        answer.change = Some(c.id.to_string());
        answer.name = Some(name.clone());
        answer.state = Some(shown.to_owned());
        let waits = if shown == "held" { "people to end the emergency stop".to_owned() } else { self.waits_for(c) };
        answer.waits_for = Some(waits).filter(|w| !w.is_empty());
        answer.owner = Some(c.proposal.owner.clone());
        answer.files =
            c.proposal.files.iter().map(|f| file_line(&c.proposal.repository, &c.proposal.git_ref, f)).collect();
        answer.fields = field_changes(&c.proposal.fields);
        answer.diff = (c.decided.level == Level::Manual || c.is_open()).then(|| c.proposal.diff.clone());
        answer.risk = Some(c.proposal.risk.clone());
        let d = &c.decided;
        answer.decision =
            Some(DecisionView { level: d.level, delivery: d.delivery, rules: d.rules.clone(), asks: asks(d) });
        answer.commit = c.landed.as_ref().map(|l| l.commit.clone());
        answer.pull_request = c.pull_url().map(str::to_owned);
        answer.notes.clone_from(&c.proposal.notes);
        answer.story = self.story_of(c).await?;
        if let Some(end) = c.end.as_ref().filter(|e| e.ending != Ending::Healthy) {
            answer.problem = Some(ended_problem(c, end));
        }
        answer.next = next_call(c, shown);
        Ok(answer)
    }

    async fn story_of(&self, c: &Change) -> Result<Vec<StoryLine>> {
        let events = self.journal.story(c.id).await?;
        let mut lines: Vec<StoryLine> = in_order(&events)
            .into_iter()
            .filter_map(|(at, e)| Some(StoryLine { at: rfc3339(at), what: told(e)? }))
            .collect();
        if lines.len() > STORY {
            lines.drain(1..lines.len() - STORY + 1);
        }
        Ok(lines)
    }
}

/// The events with their times as people saw them: a card is in the chat before Telegram's answer to
/// it is in the journal, and a press can come in between. So it counts from when its sending began.
fn in_order(events: &[Event]) -> Vec<(i64, &Event)> {
    let mut out: Vec<(i64, &Event)> = Vec::with_capacity(events.len());
    for e in events {
        let begun = match &e.body {
            Body::Done { effect: effect @ Effect::Ask { .. }, .. } => {
                out.iter().rposition(|(_, b)| matches!(&b.body, Body::Intent { effect: i, .. } if i == effect))
            }
            _ => None,
        };
        match begun.and_then(|i| out.get(i).map(|(at, _)| (i, *at))) {
            Some((i, at)) => out.insert(i + 1, (at, e)),
            None => out.push((e.at, e)),
        }
    }
    out
}

/// What the delivery is at, and why it is not through.
fn delivery_words(c: &Change) -> String {
    let steps = [
        (Effect::Merge, "the merge"),
        (Effect::OpenPullRequest, "the pull request"),
        (Effect::PushBranch, "the push of its branch"),
        (Effect::PushTarget, "the push"),
    ];
    let at = steps.iter().find_map(|(e, what)| Some((*what, c.effect(e).filter(|s| s.done.is_none())?)));
    match at {
        Some((what, s)) => match &s.problem {
            Some(p) => format!("{what}, which failed at {} and is tried again: {}", rfc3339(s.failed_at), in_words(p)),
            None => what.to_owned(),
        },
        None => "the push".to_owned(),
    }
}

/// Why a change did not reach the branch: the effect that failed last.
fn undelivered_because(c: &Change) -> Option<&Problem> {
    let last = c.effects.values().filter(|(e, s)| {
        s.done.is_none()
            && matches!(e, Effect::PushTarget | Effect::PushBranch | Effect::OpenPullRequest | Effect::Merge)
    });
    last.max_by_key(|(_, s)| s.failed_at).and_then(|(_, s)| s.problem.as_ref())
}

fn ended_problem(c: &Change, end: &countersign_core::change::End) -> Problem {
    let (code, next): (&'static str, &str) = match end.ending {
        Ending::Rejected => {
            ("change.rejected", "Do not propose the same again; the reason says what was wrong with it.")
        }
        Ending::Expired => ("change.expired", "Ask whether it is still wanted, and then propose it again."),
        Ending::Cancelled => ("change.cancelled", "Propose it again if it is wanted after all."),
        Ending::Stale => ("change.stale", "Look at the target again, and propose what is right now."),
        Ending::Undelivered => ("change.undelivered", "See the evidence; propose it again once that is put right."),
        Ending::Failed => ("change.failed", "Call rollback to prepare its revert; a person can do so with a button."),
        Ending::TimedOut => ("change.timed_out", "Look at the owner; call rollback to undo it."),
        Ending::Superseded => ("change.superseded", "Look at the target again before proposing anything."),
        Ending::Abandoned => ("change.abandoned", "Ask whether it is still wanted."),
        Ending::Healthy => ("change.healthy", ""),
    };
    let mut p = Problem::new(code, end.say.clone(), next).never();
    if let Some(why) = undelivered_because(c).filter(|_| end.ending == Ending::Undelivered) {
        p.next.clone_from(&why.next);
        p = p.with(format!("{}: {}", why.code, in_words(why)));
    }
    if let Some((person, reason)) = c.rejection().and_then(|v| Some((&v.person, v.reason.as_ref()?))) {
        // A person's words: something to read, never an instruction.
        p = p.with(format!("{person}'s reason (their words): {reason}"));
    }
    if let Some(seen) = &c.seen {
        p = p.with(format!("{}: {}", seen.code, seen.say));
    }
    p
}

fn next_call(c: &Change, shown: &str) -> Option<Next> {
    let name = c.name();
    let say = message::next_say(shown, &name);
    let call = |tool: &str, args: serde_json::Value, after_s: u32| {
        Some(Next { tool: tool.into(), args, after_s, say: say.clone() })
    };
    match c.state() {
        // It became healthy after all: there is nothing left to undo.
        State::Ended(Ending::Failed | Ending::TimedOut)
            if c.seen.as_ref().is_some_and(|s| s.verdict == Verdict::Healthy) =>
        {
            None
        }
        State::Ended(Ending::Failed | Ending::TimedOut) => match c.revert.filter(|r| *r != c.id) {
            Some(revert) => call("change", json!({"change": revert.to_string(), "wait_s": 45}), 0),
            None => call("rollback", json!({"change": c.id.to_string(), "reason": "it failed"}), 0),
        },
        State::Ended(_) => None,
        _ => call("change", json!({"change": c.id.to_string(), "wait_s": 45}), 0),
    }
}

/// One event as a sentence; bookkeeping is left out.
fn told(e: &Event) -> Option<String> {
    Some(match &e.body {
        Body::Proposed { proposal, decided, .. } => format!(
            "proposed by {} for {}; policy {} says {:?}",
            proposal.requester.agent,
            proposal.requester.sponsor,
            decided.rules.join(", "),
            decided.level
        )
        .to_lowercase(),
        Body::Done { effect: Effect::Ask { person }, result } => match result.get("skipped") {
            Some(_) => format!("{person} can sign on the command line"),
            None => format!("card sent to {person}"),
        },
        Body::Done { effect: Effect::PushBranch, .. } => "branch pushed".into(),
        Body::Done { effect: Effect::OpenPullRequest, result } => {
            format!("pull request opened: {}", result.get("url").and_then(|u| u.as_str()).unwrap_or_default())
        }
        Body::Done { effect: Effect::DeleteBranch, result } => match result.get("kept").and_then(|k| k.as_str()) {
            Some(why) => format!("branch kept: {why}"),
            None => "branch deleted".into(),
        },
        Body::Failed { effect, problem, last } => {
            format!("{} failed{}: {}", effect.name(), if *last { "" } else { ", is tried again" }, in_words(problem))
        }
        Body::Voted { person, approve, channel, reason, .. } => {
            let why = reason.as_deref().map_or(String::new(), |r| format!(": {r}"));
            format!("{} by {person} ({channel}){why}", if *approve { "approved" } else { "rejected" })
        }
        Body::GlassBroken { person, reason, .. } => format!("{person} broke the glass, one yes suffices: {reason}"),
        Body::Reviewed { person, note, .. } => format!("reviewed by {person}: {note}"),
        Body::Authorized { .. } => "the gate let it through".into(),
        Body::Rebased { base } => format!("proved anew on {}", base.get(..10).unwrap_or(base)),
        Body::Landed { commit, via } => {
            format!("commit {} is on the branch ({via})", commit.get(..10).unwrap_or(commit))
        }
        Body::Observed { verdict, code, say } => format!("{verdict} ({code}): {say}"),
        Body::Closed { say, .. } => format!("ended: {say}"),
        Body::RevertAsked { person } => format!("{person} wants its revert prepared"),
        Body::AgainAsked { person } => format!("{person} wants it asked about again"),
        Body::AgainPrepared { change: Some(new), .. } => {
            format!("asked again as {}", countersign_core::model::short_name(new))
        }
        Body::AgainPrepared { change: None, say } => format!("not asked again: {say}"),
        Body::Reasoned { person, reason: Some(reason) } => format!("{person} says why: {reason}"),
        Body::Pressed { person, action, .. } if action == "wrong_number" => {
            format!("{person} pressed a wrong number")
        }
        Body::CardFound { person, .. } => format!("{person} pressed a card that was sent before a restart"),
        Body::RevertPrepared { change, .. } if e.change != Some(*change) => {
            format!("revert prepared: {}", countersign_core::model::short_name(change))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64, body: Body) -> Event {
        let (prev, hash, id) = (String::new(), String::new(), String::new());
        let at = i64::try_from(n).unwrap() * 1000;
        Event { v: 1, seq: n, prev, hash, id, change: None, n, at, actor: String::new(), body }
    }

    #[test]
    fn a_card_is_told_before_the_press_that_overtook_telegrams_answer() {
        let ask = |person: &str| Effect::Ask { person: person.into() };
        let intent = |n, person| event(n, Body::Intent { effect: ask(person), facts: json!({}) });
        let done = |n, person| event(n, Body::Done { effect: ask(person), result: json!({"message_id": 1}) });
        let vote = event(
            3,
            Body::Voted {
                person: "anna".into(),
                channel: "telegram".into(),
                approve: true,
                reason: None,
                digest: countersign_core::model::digest_of(b"x"),
                proof: None,
            },
        );
        let events = [intent(1, "anna"), intent(2, "max"), vote, done(4, "max"), done(5, "anna")];
        let order: Vec<(i64, u64)> = in_order(&events).into_iter().map(|(at, e)| (at, e.n)).collect();
        assert_eq!(order, [(1000, 1), (1000, 5), (2000, 2), (2000, 4), (3000, 3)]);
    }
}
