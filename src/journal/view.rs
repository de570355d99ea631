//! The state that the journal amounts to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::Result;
use countersign_core::change::{Change, fold};
use countersign_core::model::{Body, ChangeId, Event};

/// What a decision inside [`Journal::transact`] can see: the state right before it is written.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// Open changes, and ended ones that still have something to do.
    pub changes: BTreeMap<ChangeId, Arc<Change>>,
    /// The emergency stop is on: who and why.
    pub stopped: Option<(String, String)>,
    /// Who wants the stop to end.
    pub resuming: BTreeSet<String>,
    /// Next update to ask each channel for.
    pub offsets: BTreeMap<String, i64>,
    /// Events of the installation so far.
    pub(super) global_n: u64,
    /// Sequence number of the event that began the stop.
    stop_seq: u64,
    /// Every stop so far: from, and to where it has ended. Milliseconds.
    stops: Vec<(i64, Option<i64>)>,
}

impl View {
    /// Sequence number of the event that began the stop.
    pub fn stop_seq(&self) -> u64 {
        self.stop_seq
    }

    /// Milliseconds between the two moments during which the emergency stop was on.
    pub fn stopped_ms(&self, from: i64, to: i64) -> i64 {
        let within = |(began, ended): &(i64, Option<i64>)| ended.unwrap_or(to).min(to) - (*began).max(from);
        self.stops.iter().map(|stop| within(stop).max(0)).sum()
    }

    pub(super) fn apply(&mut self, event: &Event) -> Result<()> {
        let Some(id) = event.change else {
            self.global_n = event.n;
            match &event.body {
                Body::Stopped { reason } => {
                    self.stop_seq = event.seq;
                    self.resuming.clear();
                    if self.stopped.is_none() {
                        self.stops.push((event.at, None));
                    }
                    self.stopped = Some((event.actor.clone(), reason.clone()));
                }
                // A vote about another stop than this one ends nothing.
                Body::ResumeVoted { person, stop, .. } if self.stopped.is_some() && *stop == self.stop_seq => {
                    self.resuming.insert(person.clone());
                }
                Body::Resumed { .. } => {
                    self.stopped = None;
                    self.resuming.clear();
                    if let Some((_, ended @ None)) = self.stops.last_mut() {
                        *ended = Some(event.at);
                    }
                }
                Body::Polled { channel, offset } => {
                    self.offsets.insert(channel.clone(), *offset);
                }
                _ => {}
            }
            return Ok(());
        };
        let next = fold(self.changes.get(&id).map(|c| (**c).clone()), event)?;
        self.changes.insert(id, Arc::new(next));
        Ok(())
    }
}
