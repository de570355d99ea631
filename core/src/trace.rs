//! A change as one trace: what its events say about where the time went.
//!
//! The trace's id is the change's own id, and a span's id follows from the event that began it. So the same change
//! is the same trace whoever works it out, after a restart too, and a collector that gets it twice holds it once.

use sha2::{Digest as _, Sha256};

use crate::model::{Body, ChangeId, Ending, Event, short_name};

/// A stretch of a change's life. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its id within the trace; never 0.
    pub id: u64,
    /// The span around it; `None` = it is the whole change.
    pub parent: Option<u64>,
    /// `change`, `decide`, `observe`, or the name of an effect.
    pub name: &'static str,
    /// From.
    pub start: i64,
    /// To.
    pub end: i64,
    /// Facts, by the names that `docs/metrics.md` lists. Nothing in them is an agent's or a person's prose.
    pub attributes: Vec<(&'static str, String)>,
    /// Moments within it, with their facts.
    pub moments: Vec<Moment>,
    /// What went wrong: a stable code.
    pub error: Option<String>,
}

/// A moment within a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: i64,
    /// `vote`, `verdict`.
    pub name: &'static str,
    /// Facts.
    pub attributes: Vec<(&'static str, String)>,
}

/// The trace's id: the change's, bit by bit.
pub fn trace_id(change: ChangeId) -> [u8; 16] {
    change.to_bytes()
}

/// The spans of an ended change, the whole first; empty for one that has not ended. `events`: its story from the
/// first on.
pub fn spans(events: &[Event]) -> Vec<Span> {
    let Some((first, id)) = events.first().and_then(|e| Some((e, e.change?))) else { return Vec::new() };
    let Some((last, ending)) = events.iter().find_map(|e| match &e.body {
        Body::Closed { ending, .. } => Some((e, *ending)),
        _ => None,
    }) else {
        return Vec::new();
    };
    let mut whole = span(id, 0, "change", first.at, last.at);
    whole.parent = None;
    whole.attributes = facts(id, first);
    whole.attributes.push(("countersign.ending", name_of(ending)));
    whole.error = is_bad(ending).then(|| format!("change.{}", name_of(ending)));
    let root = whole.id;
    let mut out = vec![whole];
    out.extend(deciding(id, root, first, last, events));
    out.extend(observing(id, root, last, events));
    out.extend(effects(id, root, last, events));
    out
}

fn span(id: ChangeId, n: u64, name: &'static str, start: i64, end: i64) -> Span {
    let mut hash = Sha256::new();
    hash.update(id.to_bytes());
    hash.update(n.to_be_bytes());
    hash.update(name.as_bytes());
    let bytes = hash.finalize().iter().take(8).fold(0u64, |id, byte| (id << 8) | u64::from(*byte));
    let (attributes, moments) = (Vec::new(), Vec::new());
    // Two clocks of two starts may disagree; a span never ends before it began.
    Span { id: bytes.max(1), parent: None, name, start, end: end.max(start), attributes, moments, error: None }
}

/// What the proposal says about the change.
fn facts(id: ChangeId, first: &Event) -> Vec<(&'static str, String)> {
    let mut out = vec![("countersign.change", short_name(&id)), ("countersign.id", id.to_string())];
    let Body::Proposed { proposal: p, decided, digest, .. } = &first.body else { return out };
    out.extend([
        ("countersign.agent", p.requester.agent.clone()),
        ("countersign.sponsor", p.requester.sponsor.clone()),
        ("countersign.cluster", p.cluster.clone()),
        ("countersign.repository", p.repository.clone()),
        ("countersign.owner", p.owner.to_string()),
        ("countersign.level", name_of(decided.level)),
        ("countersign.delivery", name_of(decided.delivery)),
        ("countersign.rules", decided.rules.join(",")),
        ("countersign.risk", name_of(p.risk.level)),
        ("countersign.digest", digest.0.clone()),
    ]);
    let mut objects: Vec<String> = p.fields.iter().map(|l| l.object.to_string()).collect();
    objects.dedup();
    out.push(("countersign.objects", objects.join(",")));
    out
}

/// A model's word for a value, as the journal writes it.
fn name_of(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Whether an ending is one that somebody should look into. A no, a cancel or an expiry is not.
fn is_bad(ending: Ending) -> bool {
    matches!(ending, Ending::Failed | Ending::TimedOut | Ending::Undelivered | Ending::Stale)
}

/// From the proposal until the gate let it through, or until it ended undecided.
fn deciding(id: ChangeId, root: u64, first: &Event, last: &Event, events: &[Event]) -> Option<Span> {
    // The last time: what was let through and then proved anew was decided anew.
    let through = events.iter().rfind(|e| matches!(e.body, Body::Authorized { .. }) && e.seq < last.seq);
    let until = through.unwrap_or(last);
    let mut out = span(id, first.n, "decide", first.at, until.at);
    out.parent = Some(root);
    for e in events.iter().take_while(|e| e.seq <= until.seq) {
        if let Body::Voted { person, channel, approve, .. } = &e.body {
            let word = if *approve { "approve" } else { "reject" };
            let attributes = vec![
                ("countersign.person", person.clone()),
                ("countersign.channel", channel.clone()),
                ("countersign.vote", word.into()),
            ];
            out.moments.push(Moment { at: e.at, name: "vote", attributes });
        }
    }
    Some(out)
}

/// From the commit's being on the branch until the verdict.
fn observing(id: ChangeId, root: u64, last: &Event, events: &[Event]) -> Option<Span> {
    let (landed, commit) = events.iter().find_map(|e| match &e.body {
        Body::Landed { commit, .. } => Some((e, commit)),
        _ => None,
    })?;
    let mut out = span(id, landed.n, "observe", landed.at, last.at);
    out.parent = Some(root);
    out.attributes.push(("countersign.commit", commit.clone()));
    for e in events.iter().filter(|e| e.seq > landed.seq && e.seq <= last.seq) {
        if let Body::Observed { verdict, code, .. } = &e.body {
            let attributes = vec![("countersign.verdict", verdict.to_string()), ("countersign.code", code.to_string())];
            out.moments.push(Moment { at: e.at, name: "verdict", attributes });
        }
    }
    Some(out)
}

/// One span for each try of each effect until the end; telling people how it ended is after it.
fn effects(id: ChangeId, root: u64, last: &Event, events: &[Event]) -> Vec<Span> {
    let mut out = Vec::new();
    for (i, begun) in events.iter().enumerate().take_while(|(_, e)| e.seq < last.seq) {
        let Body::Intent { effect, .. } = &begun.body else { continue };
        let result = events.iter().skip(i + 1).find_map(|e| match &e.body {
            Body::Done { effect: done, .. } if done == effect => Some((e.at, None)),
            Body::Failed { effect: failed, problem, .. } if failed == effect => {
                Some((e.at, Some(problem.code.to_string())))
            }
            _ => None,
        });
        let Some((end, error)) = result else { continue };
        let mut one = span(id, begun.n, effect.name(), begun.at, end);
        one.parent = Some(root);
        one.error = error;
        out.push(one);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::change::tests::given::*;
    use crate::model::{Effect, Verdict};

    /// A story as the journal has it, each event a second after the one before.
    fn story(bodies: Vec<Body>) -> Vec<Event> {
        let at = |i: usize| T0 + 1000 * i as i64;
        bodies.into_iter().enumerate().map(|(i, body)| event(i as u64 + 1, at(i), body)).collect()
    }

    fn healthy() -> Vec<Event> {
        let g = Given::prompted();
        let c = g.story().c;
        let problem = crate::Problem::new("telegram.unreachable", "It is away.", "Wait.").later();
        let ask = ask("ann");
        story(vec![
            g.proposed(),
            intent(&ask),
            Body::Failed { effect: ask.clone(), problem, last: false },
            intent(&ask),
            Body::Done { effect: ask, result: json!({}) },
            vote(&c.digest, "ann", true),
            authorized(&c),
            intent(&Effect::PushTarget),
            Body::Done { effect: Effect::PushTarget, result: json!({"commit": "c1"}) },
            landed(),
            observed(Verdict::Waiting),
            observed(Verdict::Healthy),
            closed(Ending::Healthy),
            intent(&settle("ann", "closed")),
            Body::Done { effect: settle("ann", "closed"), result: json!({}) },
        ])
    }

    #[test]
    fn an_ended_change_is_one_tree_with_the_time_of_each_step() {
        let got = spans(&healthy());
        let lines: Vec<String> = got
            .iter()
            .map(|s| {
                let (from, to) = ((s.start - T0) / 1000, (s.end - T0) / 1000);
                format!("{} {from}..{to} {}", s.name, s.error.as_deref().unwrap_or("ok"))
            })
            .collect();
        let expected = [
            "change 0..12 ok",
            "decide 0..6 ok",
            "observe 9..12 ok",
            "ask 1..2 telegram.unreachable",
            "ask 3..4 ok",
            "push_target 7..8 ok",
        ];
        assert_eq!(lines, expected);
        let (root, rest) = got.split_first().unwrap();
        assert!(root.parent.is_none() && rest.iter().all(|s| s.parent == Some(root.id)));
        assert!(rest.iter().all(|s| root.start <= s.start && s.end <= root.end));
        let ids: std::collections::BTreeSet<u64> = got.iter().map(|s| s.id).collect();
        assert_eq!(ids.len(), got.len());
    }

    #[test]
    fn the_same_story_is_the_same_trace_also_once_more_has_been_told() {
        let all = healthy();
        let upto_end: Vec<Event> = all.iter().take(13).cloned().collect();
        assert_eq!(spans(&all), spans(&upto_end));
        assert_eq!(trace_id(id()), id().to_bytes());
        assert_eq!(spans(&upto_end[..12]), [], "it has not ended");
        assert_eq!(spans(&[]), []);
    }

    #[test]
    fn facts_are_in_it_and_nobodys_prose() {
        let got = spans(&healthy());
        let shown = format!("{got:?}");
        for fact in ["claude", "sue", "prompted", "direct", "ann", "healthy"] {
            assert!(shown.contains(fact), "{fact}: {shown}");
        }
        assert!(!shown.contains("load"), "the agent's reason stays where it was: {shown}");
    }

    #[test]
    fn only_what_somebody_should_look_into_is_an_error() {
        let g = Given::prompted();
        for (ending, bad) in [
            (Ending::Failed, true),
            (Ending::TimedOut, true),
            (Ending::Undelivered, true),
            (Ending::Stale, true),
            (Ending::Rejected, false),
            (Ending::Expired, false),
            (Ending::Cancelled, false),
            (Ending::Superseded, false),
        ] {
            let got = spans(&story(vec![g.proposed(), closed(ending)]));
            assert_eq!(got[0].error.is_some(), bad, "{ending:?}");
            assert_eq!(got.len(), 2, "a change that nobody let through was decided about all the same");
        }
    }
}
