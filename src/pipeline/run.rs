//! One worker per change: fold, ask `next` for the single step, do it, again.

use std::sync::Arc;

use countersign_core::change::{Change, Limits, Step, WaitFor, next};
use countersign_core::model::{Body, ChangeId, Effect, Ending};
use countersign_core::{Problem, Result};
use serde_json::Value;
use tokio::sync::broadcast;
use tracing::Instrument as _;

use super::observe::Watching;
use super::{ACTOR, Pipeline, fault, turns};
use crate::journal::Entry;

impl Pipeline {
    /// Starts a worker for every open change, and from then on for every new one.
    pub async fn start(self: &Arc<Self>) {
        let mut news = self.journal.subscribe();
        let known: Vec<ChangeId> = self.journal.read(|v| v.changes.keys().copied().collect()).await;
        for id in known {
            self.spawn_worker(id);
        }
        let me = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let heard = tokio::select! {
                    () = me.halt.cancelled() => return,
                    heard = news.recv() => heard,
                };
                match heard {
                    Ok(Some(id)) => me.spawn_worker(id),
                    Ok(None) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let all: Vec<ChangeId> = me.journal.read(|v| v.changes.keys().copied().collect()).await;
                        all.into_iter().for_each(|id| me.spawn_worker(id));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }

    /// Ends every worker. What was under way has its intent in the journal.
    pub fn halt(&self) {
        self.halt.cancel();
    }

    /// Waits until every worker is over, and then closes the clusters: whoever goes away next is not asked.
    pub async fn ended(&self) {
        while self.workers.lock().is_ok_and(|w| !w.is_empty()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.journal.settled().await;
        for cluster in self.clusters.values() {
            cluster.close().await;
        }
    }

    fn spawn_worker(self: &Arc<Self>, id: ChangeId) {
        let fresh = self.workers.lock().is_ok_and(|mut w| w.insert(id));
        if !fresh || self.halt.is_cancelled() {
            return;
        }
        let me = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = me.halt.cancelled() => {}
                // Whatever is logged below carries the change, also by edges that know of none.
                () = me.drive(id).instrument(tracing::info_span!("drive", change = %id)) => {}
            }
            if let Ok(mut w) = me.workers.lock() {
                w.remove(&id);
            }
            me.held_back(id, None);
        });
    }

    /// Drives one change until nothing is left to do.
    async fn drive(self: &Arc<Self>, id: ChangeId) {
        let mut news = self.journal.subscribe();
        let mut watching = None;
        let mut turn = None;
        loop {
            let Some((change, step)) = self.due(id).await else { return };
            if step == Step::Finished {
                return;
            }
            if !turns::wanted(&step) && !turns::kept(&change, &step) {
                turn = None;
            } else if turns::wanted(&step) && turn.is_none() {
                // What is due is asked again: much may have happened before the turn came.
                turn = self.turn(&change, &mut news).await;
                continue;
            }
            if let Err(problem) = self.take(&change, step, &mut watching, &mut news).await {
                // The journal could not be written, or a race was lost: the state is read anew.
                tracing::warn!(change = %id, code = %problem.code, "{}", problem.message);
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        }
    }

    /// The change as it is, and its single next step.
    pub(super) async fn due(&self, id: ChangeId) -> Option<(Arc<Change>, Step)> {
        let change = self.journal.change(id).await?;
        let now = self.clock.now_ms();
        let since = change.authorized.as_ref().map_or(now, |(_, at)| *at);
        let (stopped, held_ms) = self.journal.read(|v| (v.stopped.is_some(), v.stopped_ms(since, now))).await;
        let step = next(&change, now, stopped, &Limits { held_ms, ..self.limits() });
        Some((change, step))
    }

    async fn take(
        self: &Arc<Self>,
        change: &Arc<Change>,
        step: Step,
        watching: &mut Option<Watching>,
        news: &mut broadcast::Receiver<Option<ChangeId>>,
    ) -> Result<()> {
        match step {
            Step::Recover(effect) => self.recover(change, effect).await,
            Step::Do(effect) => self.act(change, effect).await,
            Step::Authorize => self.authorize(change).await,
            Step::Close(ending, say) => self.close(change, ending, say).await,
            Step::PollMerge(until) => {
                self.poll_merge(change).await?;
                self.wait(change, until, news).await;
                Ok(())
            }
            Step::PollCommit(until) => {
                self.poll_commit(change).await?;
                self.wait(change, until, news).await;
                Ok(())
            }
            Step::Observe(until) => self.observe(change, until, watching, news).await,
            Step::PrepareRevert => self.prepare_revert(change).await,
            Step::AskAgain => self.ask_again(change).await,
            Step::WithdrawRevert => self.withdraw_revert(change).await,
            Step::Wait(WaitFor::Resume, until) => {
                self.wait_any(until, news).await;
                Ok(())
            }
            Step::Wait(_, until) => {
                self.wait(change, until, news).await;
                Ok(())
            }
            Step::Finished => Ok(()),
        }
    }

    /// Waits until the change moves, or the time has come. News only wake: the state is read anew.
    pub(super) async fn wait(&self, change: &Change, until: i64, news: &mut broadcast::Receiver<Option<ChangeId>>) {
        loop {
            let moved = self.journal.change(change.id).await.is_none_or(|c| c.n != change.n);
            if moved {
                return;
            }
            tokio::select! {
                () = self.clock.sleep_until(until) => return,
                heard = news.recv() => match heard {
                    Ok(Some(id)) if id == change.id => return,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => {
                        self.clock.sleep_until(until).await;
                        return;
                    }
                },
            }
        }
    }

    async fn wait_any(&self, until: i64, news: &mut broadcast::Receiver<Option<ChangeId>>) {
        tokio::select! {
            () = self.clock.sleep_until(until) => {}
            _ = news.recv() => {}
        }
    }

    /// Intent, act, result. The stop is looked at under the journal's lock, together with the
    /// intent: nothing begins after it.
    async fn act(&self, change: &Change, effect: Effect) -> Result<()> {
        let name = effect.name();
        fault::point(&format!("{name}.before_intent"));
        let prepared = self.prepare(change, &effect).await;
        let facts = match &prepared {
            Ok(facts) => facts.clone(),
            Err(_) => Value::Null,
        };
        if let Ok(Value::Bool(true)) = prepared {
            // The preparation itself moved the change (closed it as stale, gave it a new base).
            return Ok(());
        }
        self.journal
            .transact(self.clock.now_ms(), &[], |view| {
                if view.stopped.is_some() {
                    return Err(Problem::new(
                        "gate.stopped",
                        "The emergency stop is on.",
                        "Wait until a person resumes.",
                    )
                    .later());
                }
                if view.changes.get(&change.id).is_none_or(|c| c.n != change.n) {
                    return Err(Problem::new("journal.moved", "The change moved meanwhile.", "Read it again.").later());
                }
                Ok((
                    (),
                    vec![Entry::of(change.id, ACTOR, Body::Intent { effect: effect.clone(), facts: facts.clone() })],
                ))
            })
            .await?;
        fault::point(&format!("{name}.after_intent"));
        let begun = std::time::Instant::now();
        let outcome = match prepared {
            Ok(_) => self.perform(change, &effect, &facts).await,
            Err(problem) => Err(problem),
        };
        self.meters.effect(&effect, begun.elapsed(), outcome.as_ref().map(|_| ()));
        fault::point(&format!("{name}.after_effect"));
        self.settle_effect(change.id, effect, outcome).await?;
        fault::point(&format!("{name}.after_result"));
        Ok(())
    }

    /// Writes the result of an effect, with the facts that follow from it.
    pub(super) async fn settle_effect(&self, id: ChangeId, effect: Effect, outcome: Result<Value>) -> Result<()> {
        let bodies = match outcome {
            Ok(result) => {
                let mut bodies = vec![Body::Done { effect: effect.clone(), result: result.clone() }];
                if matches!(effect, Effect::PushTarget | Effect::Merge)
                    && let Some(commit) = result.get("commit").and_then(Value::as_str)
                {
                    let via = if effect == Effect::Merge { "merge" } else { "push" };
                    bodies.push(Body::Landed { commit: commit.to_owned(), via: via.to_owned() });
                }
                bodies
            }
            Err(problem) => {
                tracing::info!(change = %id, effect = effect.name(), code = %problem.code, "{}", problem.message);
                let last = problem.retry == countersign_core::Retry::Never;
                vec![Body::Failed { effect, problem, last }]
            }
        };
        self.journal.append(self.clock.now_ms(), id, ACTOR, bodies).await
    }

    /// Ends the change.
    pub(super) async fn close(&self, change: &Change, ending: Ending, say: String) -> Result<()> {
        fault::point("before_closed");
        let id = change.id;
        let n = change.n;
        let now = self.clock.now_ms();
        let closed = self
            .journal
            .transact(now, &[], |view| {
                if view.changes.get(&id).is_none_or(|c| c.n != n) {
                    return Ok((false, Vec::new()));
                }
                Ok((true, vec![Entry::of(id, ACTOR, Body::Closed { ending, say })]))
            })
            .await?;
        if closed {
            self.meters.closed(change, ending, now);
        }
        fault::point("after_closed");
        Ok(())
    }
}
