//! Journal, chats and remote as a trace of AgentAck's format (schema 2). What was asked for comes from the proposal,
//! what a person saw from the text of their card, what people said from their presses, what happened from the remote.
//!
//! A file is one session. An emergency stop is terminal there, so a session ends where people resume, and what is
//! still open then goes on in the next one with the evidence of before.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use countersign::journal::{read_events, verify_file};
use countersign_core::model::{Body, ChangeId, Effect, Event, Level, Sealed};
use serde_json::{Value, json};

use crate::remote::{Execution, trailer};
use crate::world::{LIMITS, Message, World, key, replicas};

/// The journal's events, if its chain and every fold of it hold.
pub async fn verified(path: &Path) -> Result<Vec<Event>> {
    let report = verify_file(path, |_, _| Ok(()), Vec::new()).await?;
    let finding = report.findings.iter().find(|f| f.what != NO_HEAD).map(|f| f.what.clone());
    ensure!(finding.is_none(), "the journal does not verify: {}", finding.unwrap_or_default());
    Ok(read_events(path).await?)
}

/// These journals have no signed head.
const NO_HEAD: &str = "the signed head is missing";

/// What happened at one moment: position in the journal, and after it.
type At = (u64, u8);

/// What a change says to one session.
#[derive(Debug)]
struct Life {
    id: ChangeId,
    proposed: (At, i64),
    intent: String,
    action: Value,
    /// People must say yes.
    needs: bool,
    asked: Option<(At, i64, Value)>,
    decision: Option<(At, i64, bool, i64)>,
    ended: Option<(At, i64, String)>,
    executed: Vec<At>,
    landed: bool,
}

fn time(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(String::new, |t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

fn action(cluster: &str, object: &str, before: &str, after: &str) -> Value {
    json!({"tool": cluster, "operation": "scale", "resource": object, "parameters": {"before": before, "after": after}})
}

/// What the agent asked for.
fn asked_for(p: &countersign_core::model::Proposal) -> Value {
    let field = p.fields.first();
    let object = field.map_or_else(String::new, |l| l.object.to_string());
    let before = field.and_then(|l| l.before.as_ref()).map_or_else(String::new, Value::to_string);
    let after = p.edits.first().and_then(|e| e.scale.as_ref()).map_or_else(String::new, |s| s.replicas.to_string());
    action(&p.cluster, &object, &before, &after)
}

/// What a card says: `🔴 HIGH · prod · …`, `Deployment shop/app1`, `replicas  2 → 3`.
fn shown(m: &Message) -> Result<Value> {
    let mut lines = m.first.lines();
    let cluster = lines.next().and_then(|l| l.split(" · ").nth(1)).context("no cluster on the card")?;
    let object = lines.next().context("no object on the card")?;
    let (before, after) = lines.find_map(|l| l.split_once(" → ")).context("no change on the card")?;
    let before = before.rsplit(' ').next().unwrap_or_default();
    Ok(action(cluster, object, before, after.split(' ').next().unwrap_or_default()))
}

/// What the remote was given.
fn done(e: &Execution) -> Value {
    let side = |t: &Option<String>| t.as_deref().and_then(replicas).map_or_else(String::new, |n| n.to_string());
    let object = crate::walk::object_of(&e.path).map_or_else(|| e.path.clone(), |o| key(o).to_string());
    let cluster = e.path.split('/').next().unwrap_or_default();
    action(cluster, &object, &side(&e.before), &side(&e.after))
}

fn lives(events: &[Event], world: &World) -> Result<BTreeMap<ChangeId, Life>> {
    let mut out: BTreeMap<ChangeId, Life> = BTreeMap::new();
    let mut stories: BTreeMap<ChangeId, Vec<&Event>> = BTreeMap::new();
    for e in events {
        if let Some(id) = e.change {
            stories.entry(id).or_default().push(e);
        }
    }
    for (id, story) in stories {
        if let Some(life) = life(id, &story, world)? {
            out.insert(id, life);
        }
    }
    for e in &world.remote.executions {
        let id = trailer(&e.message, "Change").and_then(|c| c.parse::<ChangeId>().ok());
        if let Some(life) = id.and_then(|id| out.get_mut(&id)) {
            life.executed.push((e.seq, 1));
        }
    }
    Ok(out)
}

fn life(id: ChangeId, story: &[&Event], world: &World) -> Result<Option<Life>> {
    let Some(first) = story.first() else { return Ok(None) };
    let Body::Proposed { proposal, decided, sealed, .. } = &first.body else { return Ok(None) };
    let sealed: Sealed = serde_json::from_str(sealed)?;
    let action = asked_for(proposal);
    let wanted = |pointer: &str| action.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let intent = format!("{} {} to {}", wanted("/tool"), wanted("/resource"), wanted("/parameters/after"));
    let mut life = Life {
        id,
        proposed: ((first.seq, 0), first.at),
        intent,
        action,
        needs: decided.level != Level::Standard,
        asked: None,
        decision: None,
        ended: None,
        executed: Vec::new(),
        landed: false,
    };
    let (mut yes, mut allowed, mut denied, mut let_through) = (Vec::new(), None, None, None);
    for e in story {
        let at = (e.seq, 0);
        match &e.body {
            Body::Done { effect: Effect::Ask { .. }, result } if life.asked.is_none() => {
                // Somebody who is no longer on the list is sent nothing.
                let Some(id) = result.get("message_id").and_then(Value::as_i64) else { continue };
                let message = world.messages.get(&id).context("a card that nobody got")?;
                life.asked = Some((at, e.at, shown(message)?));
            }
            Body::Pressed { person, action, .. } if action == "approve" || action.starts_with("number ") => {
                if *person != sealed.sponsor && !yes.contains(person) {
                    yes.push(person.clone());
                }
                if allowed.is_none()
                    && decided.votes(yes.iter().map(String::as_str)) >= sealed.quorum.count.max(1) as usize
                {
                    allowed = Some((at, e.at));
                }
            }
            Body::Pressed { action, .. } if action == "reject" && denied.is_none() => denied = Some((at, e.at)),
            Body::Authorized { .. } if let_through.is_none() => let_through = Some(e.at),
            Body::Landed { .. } => life.landed = true,
            Body::Closed { ending, .. } if life.ended.is_none() && !life.landed => {
                life.ended = Some((at, e.at, format!("{ending:?}")));
            }
            _ => {}
        }
    }
    // The last word that people had: a no after a yes is a no; without either, the end is one.
    let expires = sealed.expires_at * 1000;
    let good_until = match let_through {
        Some(at) if at < expires => expires.max(at + LIMITS.deliver_ms),
        _ => expires,
    };
    let said = denied.map(|(at, t)| (at, t, false)).or(allowed.map(|(at, t)| (at, t, true)));
    let unsaid = life.ended.as_ref().map(|(at, t, _)| (*at, *t, false));
    life.decision = life.asked.is_some().then(|| said.or(unsaid)).flatten().map(|(at, t, y)| (at, t, y, good_until));
    Ok(Some(life))
}

/// The events of one session, with their place.
struct Session {
    name: String,
    lines: Vec<(At, u8, Value)>,
}

impl Session {
    fn push(&mut self, at: At, order: u8, kind: &str, ms: i64, mut fields: Value) {
        if let Some(map) = fields.as_object_mut() {
            map.insert("schema_version".into(), json!(2));
            map.insert("type".into(), json!(kind));
            map.insert("timestamp".into(), json!(time(ms)));
            map.insert("session_id".into(), json!(self.name));
        }
        self.lines.push((at, order, fields));
    }

    /// What of a life belongs between the two moments.
    fn tell(&mut self, l: &Life, from: u64, to: u64, end: i64) {
        let (id, approval) = (l.id.to_string(), format!("approval-{}", l.id));
        let within = |at: &At| at.0 <= to;
        let place = |at: At| at.max((from, 0));
        let about = |more: Value| {
            let mut v = json!({"action_id": id, "intent_id": l.intent});
            if let (Some(v), Value::Object(more)) = (v.as_object_mut(), more) {
                v.extend(more);
            }
            v
        };
        self.push(place(l.proposed.0), 0, "action_proposed", l.proposed.1, about(json!({"action": l.action})));
        let asked = l.asked.as_ref().filter(|(at, ..)| within(at));
        if let Some((at, ms, action)) = asked {
            let fields = about(json!({"approval_id": approval, "action": action}));
            self.push(place(*at), 1, "approval_requested", *ms, fields);
        }
        let decision = l.decision.filter(|(at, ..)| within(at));
        if let Some((at, ms, allow, until)) = decision {
            let word = if allow { "allow" } else { "deny" };
            let fields = about(json!({"approval_id": approval, "decision": word, "expires_at": time(until)}));
            self.push(place(at), 2, "approval_decision", ms, fields);
        }
        let ended = l.ended.as_ref().filter(|(at, ..)| within(at));
        let executed = l.executed.iter().any(|at| at.0 >= from && at.0 <= to);
        let (at, ms, why) = match ended {
            Some((at, ms, why)) => (*at, *ms, why.clone()),
            None if executed => return,
            None => ((to, 2), end, "open: it goes on in the next session".to_owned()),
        };
        if asked.is_some() && decision.is_none() {
            let fields = about(json!({"approval_id": approval, "decision": "deny"}));
            self.push(place(at), 2, "approval_decision", ms, fields);
        }
        let mut fields = about(json!({"reason": why}));
        if let (Some(v), true) = (fields.as_object_mut(), asked.is_some()) {
            v.insert("approval_id".into(), json!(approval));
        }
        self.push(place(at), 3, "action_blocked", ms, fields);
    }

    fn execute(&mut self, e: &Execution) {
        let id = trailer(&e.message, "Change").unwrap_or("unknown").to_owned();
        let mut fields = json!({"action_id": id, "action": done(e)});
        // The commit's own word: people by name, or the policy alone.
        let people = trailer(&e.message, "Approved-By").filter(|by| *by != "policy");
        if let (Some(v), Some(_)) = (fields.as_object_mut(), people) {
            v.insert("approval_id".into(), json!(format!("approval-{id}")));
        }
        self.push((e.seq, 1), 4, "action_executed", e.at, fields);
    }

    fn write(mut self, out: &Path, end: i64, to: u64) -> Result<()> {
        self.push((to, 3), 9, "session_end", end, json!({}));
        self.lines.sort_by_key(|(at, order, _)| (*at, *order));
        let text: String = self.lines.iter().map(|(_, _, v)| format!("{v}\n")).collect();
        std::fs::write(out.join(format!("{}.jsonl", self.name)), text)?;
        Ok(())
    }
}

/// Writes the sessions of one world.
pub fn write(out: &Path, name: &str, events: &[Event], world: &World, seen: &mut BTreeMap<String, u64>) -> Result<()> {
    let lives = lives(events, world)?;
    if world.off.is_none() {
        for l in lives.values() {
            ensure!(l.executed.len() == usize::from(l.landed), "{}: journal and remote disagree", l.id);
        }
    }
    let last = events.last().map_or(0, |e| e.seq);
    let mut ends: Vec<(u64, i64)> =
        events.iter().filter(|e| matches!(e.body, Body::Resumed { .. })).map(|e| (e.seq, e.at)).collect();
    ends.push((last + 1, world.now));
    let mut from = 0;
    for (n, (to, end)) in ends.into_iter().enumerate() {
        let mut session = Session { name: format!("{name}-{n}"), lines: Vec::new() };
        for l in lives.values() {
            let begun = l.proposed.0.0 <= to;
            let over = l.ended.as_ref().is_some_and(|(at, ..)| at.0 < from);
            let here = l.executed.iter().any(|at| at.0 >= from && at.0 <= to);
            let gone = l.executed.iter().any(|at| at.0 < from);
            // Nobody was asked and nothing was done: there is nothing that an approval could be about.
            let silent = l.needs && l.asked.as_ref().is_none_or(|(at, ..)| at.0 > to) && !here;
            if begun && !silent && (here || !(over || gone)) {
                session.tell(l, from, to, end);
            }
        }
        for e in world.remote.executions.iter().filter(|e| e.seq >= from && e.seq <= to) {
            session.execute(e);
            *seen.entry("executions".into()).or_default() += 1;
        }
        for e in events.iter().filter(|e| e.seq >= from && e.seq <= to) {
            if let Body::Stopped { reason } = &e.body {
                session.push((e.seq, 0), 0, "interrupt", e.at, json!({"reason": reason}));
            }
        }
        *seen.entry("sessions".into()).or_default() += 1;
        session.write(out, end, to)?;
        from = to + 1;
    }
    Ok(())
}
