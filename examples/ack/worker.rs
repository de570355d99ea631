//! One step of one change: the order of `pipeline/{run,commit,deliver}.rs`, on this world's remote and chat. What is
//! decided is decided by the product: `next`, `fold` (in the journal), the policy and the gate.

use countersign::git::blob_id;
use countersign::journal::Entry;
use countersign::pipeline::press::{WRONG_NUMBERS, keyboard};
use countersign_core::change::{Change, Limits, Step, next};
use countersign_core::gate::{self, Authorization, Now};
use countersign_core::message::{self, Trailers};
use countersign_core::model::{Body, ChangeId, Code, Effect, Ending, Verdict, digest_of};
use countersign_core::{Problem, Result, Retry};
use rand::Rng as _;
use serde_json::{Value, json};

use crate::controls::Control;
use crate::remote::MAIN;
use crate::world::{LIMITS, Message, World, replicas};

const ACTOR: &str = "countersign";

/// What the branch says about a change that is to be pushed.
enum Base {
    Ready(String),
    Landed(String),
}

fn stale(why: &str) -> Problem {
    Problem::new("gate.stale", why, "Propose the change again.").never()
}

fn interrupted() -> Problem {
    Problem::new("pipeline.interrupted", "It was interrupted; it did not happen.", "It is tried again.").later()
}

impl World {
    /// Takes the single next step of a change. False = it waits, or is over.
    pub async fn step(&mut self, id: ChangeId) -> Result<bool> {
        let Some(change) = self.book.change(id).await else { return Ok(false) };
        let now = self.clock(&change);
        let view = self.book.view().await;
        let since = change.authorized.as_ref().map_or(now, |(_, at)| *at);
        let (stopped, held_ms) = match self.without(Control::Stop) {
            true => (false, 0),
            false => (view.stopped.is_some(), view.stopped_ms(since, now)),
        };
        let step = next(&change, now, stopped, &Limits { held_ms, ..LIMITS });
        // The process works on its own copy of the change, which may be damaged or out of date.
        let copy = self.damaged(&change, &step);
        match step {
            Step::Recover(effect) => self.recover(&change, effect).await?,
            Step::Do(effect) => self.act(&copy, effect).await?,
            Step::Authorize => self.authorize(&copy).await?,
            Step::Close(ending, say) => self.close(&change, ending, say).await?,
            Step::Observe(_) => return self.observe(&change).await,
            Step::PrepareRevert | Step::WithdrawRevert => {
                let body = Body::RevertPrepared { change: id, say: Some("Not in this walk.".into()) };
                self.append(id, vec![body]).await?;
            }
            Step::AskAgain => {
                self.append(id, vec![Body::AgainPrepared { change: None, say: "Not in this walk.".into() }]).await?;
            }
            Step::Finished => {
                self.over.insert(id);
                return Ok(false);
            }
            Step::PollMerge(_) | Step::PollCommit(_) | Step::Wait(..) => return Ok(false),
        }
        Ok(true)
    }

    /// Now and then somebody writes into the process's memory: another value in what is to be done, with or
    /// without the bytes and the digest that belong to it.
    fn damaged(&mut self, c: &Change, step: &Step) -> Change {
        let mut copy = c.clone();
        let leaves =
            matches!(step, Step::Authorize | Step::Do(Effect::PushTarget | Effect::PushBranch | Effect::Merge));
        if !leaves || !self.chance(8.0) {
            return copy;
        }
        let other = blob_id(crate::walk::EVIL.as_bytes());
        for f in &mut copy.sealed.files {
            f.after = Some(other.clone());
        }
        let how = self.rng.random_range(0..3);
        if how > 0 {
            copy.canonical = copy.sealed.canonical().ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
        }
        if how > 1 {
            copy.digest = digest_of(copy.canonical.as_bytes());
        }
        self.saw("a change is damaged in memory");
        copy
    }

    async fn append(&mut self, id: ChangeId, bodies: Vec<Body>) -> Result<()> {
        let entries: Vec<Entry> = bodies.into_iter().map(|b| Entry::of(id, ACTOR, b)).collect();
        self.book.write(self.now, &[], |_| Ok(((), entries))).await
    }

    async fn close(&mut self, c: &Change, ending: Ending, say: String) -> Result<()> {
        let (id, n) = (c.id, c.n);
        let closed = self
            .book
            .write(self.now, &[], |view| {
                if view.changes.get(&id).is_none_or(|c| c.n != n) {
                    return Ok((false, Vec::new()));
                }
                Ok((true, vec![Entry::of(id, ACTOR, Body::Closed { ending, say })]))
            })
            .await?;
        if closed {
            self.saw(format!("ended: {ending:?}"));
            let value = c.proposal.fields.first().and_then(|l| l.after.as_ref()?.as_u64());
            let object = c.proposal.files.first().and_then(|f| crate::walk::object_of(&f.path));
            if let (Some(value), Some(object), Ending::Rejected | Ending::Expired) = (value, object, ending) {
                self.refused.push((object, u32::try_from(value).unwrap_or(1)));
            }
        }
        Ok(())
    }

    /// Asks the gate with what is true now.
    async fn gate(&mut self, c: &Change) -> Result<Authorization> {
        let field = c.proposal.fields.first();
        let side = |v: Option<&Value>| v.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let (before, after) = (side(field.and_then(|l| l.before.as_ref())), side(field.and_then(|l| l.after.as_ref())));
        let object = c.proposal.files.first().and_then(|f| crate::walk::object_of(&f.path)).unwrap_or(0);
        let (_, decision) = self.decide(object, &c.proposal.requester.agent, before, after);
        let mut blobs: Vec<(String, Option<String>)> =
            c.sealed.files.iter().map(|f| (f.path.clone(), self.remote.blob(&f.path))).collect();
        let stopped = self.book.view().await.stopped.is_some() && !self.without(Control::Stop);
        let shown = if self.without(Control::Binding) {
            blobs = c.sealed.files.iter().map(|f| (f.path.clone(), f.before.clone())).collect();
            self.book.change(c.id).await
        } else {
            None
        };
        let owner = self.owner();
        let out = gate::authorize(
            shown.as_deref().unwrap_or(c),
            &Now {
                now: self.clock(c),
                stopped,
                decided: &decision.decided,
                denied: decision.problem.as_ref().map(|p| p.message.as_str()),
                people: &self.people,
                glass: &[],
                sponsor: self.sponsor,
                owner: &owner,
                blobs: &blobs,
            },
        );
        if let Err(problem) = &out {
            self.refused_by("gate", problem);
        }
        out
    }

    fn fresh_base(&self, c: &Change) -> Result<Base> {
        let wanted: Vec<_> = c.sealed.files.iter().map(|f| (f.path.clone(), f.after.clone())).collect();
        if !self.without(Control::SingleUse)
            && let Some(commit) = self.remote.landed(&c.id.to_string(), &wanted)
        {
            return Ok(Base::Landed(commit));
        }
        let touched = c.sealed.files.iter().any(|f| self.remote.blob(&f.path) != f.before);
        if self.remote.tip != c.base && touched && !self.without(Control::Binding) {
            return Err(stale("A later commit touches the same files."));
        }
        Ok(Base::Ready(self.remote.tip.clone()))
    }

    async fn authorize(&mut self, c: &Change) -> Result<()> {
        let base = match self.fresh_base(c) {
            Ok(Base::Ready(base)) => base,
            Ok(Base::Landed(commit)) => {
                return self.append(c.id, vec![Body::Landed { commit, via: "found".into() }]).await;
            }
            Err(problem) => return self.stale_or_later(c, problem).await,
        };
        let auth = match self.gate(c).await {
            Ok(auth) => auth,
            Err(problem) => return self.stale_or_later(c, problem).await,
        };
        let mut bodies = if base == c.base { Vec::new() } else { vec![Body::Rebased { base }] };
        let policy_version = self.rules().version().to_owned();
        bodies.push(Body::Authorized { digest: auth.digest().clone(), by: auth.by().to_vec(), policy_version });
        let (id, n, unstoppable) = (c.id, c.n, self.without(Control::Stop));
        self.meanwhile(id).await;
        self.book
            .write(self.now, &[], |view| {
                let stopped = view.stopped.is_some() && !unstoppable;
                if stopped || view.changes.get(&id).is_none_or(|c| c.n != n) {
                    return Ok(((), Vec::new()));
                }
                Ok(((), bodies.into_iter().map(|body| Entry::of(id, ACTOR, body)).collect()))
            })
            .await
    }

    async fn stale_or_later(&mut self, c: &Change, problem: Problem) -> Result<()> {
        if problem.code == "gate.stale" || problem.retry == Retry::Never {
            return self.close(c, Ending::Stale, problem.message).await;
        }
        if self.clock(c) >= c.sealed.expires_at * 1000 {
            return self.close(c, Ending::Undelivered, problem.message).await;
        }
        Err(problem)
    }

    /// What must be known before the intent is written; `None`: the change itself moved.
    async fn prepare(&mut self, c: &Change, effect: &Effect) -> Result<Option<Value>> {
        match effect {
            Effect::PushTarget | Effect::PushBranch => {}
            Effect::Merge => return Ok(Some(json!({"head": c.pushed_branch()}))),
            _ => return Ok(Some(json!({}))),
        }
        let prepared = match self.fresh_base(c) {
            Ok(Base::Landed(commit)) => {
                self.append(c.id, vec![Body::Landed { commit, via: "found".into() }]).await?;
                return Ok(None);
            }
            Ok(Base::Ready(base)) if base != c.base => {
                self.append(c.id, vec![Body::Rebased { base }]).await?;
                return Ok(None);
            }
            Ok(Base::Ready(base)) => self.gate(c).await.map(|auth| (base, auth)),
            Err(problem) => Err(problem),
        };
        match prepared {
            Ok((base, auth)) => {
                let commit = self.build(c, &auth).await?;
                Ok(Some(json!({"commit": commit, "base": base})))
            }
            Err(problem) if problem.code == "gate.stale" => {
                self.close(c, Ending::Stale, problem.message).await?;
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }

    /// The commit: exactly the stored bytes of what the change names, under the trailers of who approved.
    async fn build(&mut self, c: &Change, auth: &Authorization) -> Result<String> {
        let mut files = Vec::new();
        for f in &c.sealed.files {
            let Some(oid) = &f.after else {
                files.push((f.path.clone(), None));
                continue;
            };
            let bytes = self.book.blob(oid).await?.filter(|b| blob_id(b) == *oid);
            let text = bytes.and_then(|b| String::from_utf8(b).ok());
            files.push((
                f.path.clone(),
                Some(text.ok_or_else(|| stale("The stored content is not what was approved."))?),
            ));
        }
        let trailers = Trailers {
            change: c.id.to_string(),
            digest: c.digest.0.clone(),
            requested_by: c.sealed.requester.clone(),
            approved_by: auth.by().to_vec(),
            glass: None,
            policy: format!("{}@{}", c.sealed.rules.join(","), c.sealed.policy_version),
            audit: self.book.head().await,
        };
        let message = message::with_trailers(&c.sealed.commit_message, &trailers);
        Ok(self.remote.build(files, message))
    }

    /// Intent, act, result.
    async fn act(&mut self, c: &Change, effect: Effect) -> Result<()> {
        let prepared = match self.prepare(c, &effect).await {
            Ok(None) => return Ok(()),
            Ok(Some(facts)) => Ok(facts),
            Err(problem) => Err(problem),
        };
        let facts = prepared.as_ref().map_or(Value::Null, Clone::clone);
        if matches!(effect, Effect::PushTarget | Effect::Merge) {
            self.meanwhile(c.id).await;
        }
        let (id, n, unstoppable) = (c.id, c.n, self.without(Control::Stop));
        let body = Body::Intent { effect: effect.clone(), facts: facts.clone() };
        let written = self
            .book
            .write(self.now, &[], |view| {
                if view.stopped.is_some() && !unstoppable {
                    return Err(Problem::new("gate.stopped", "The emergency stop is on.", "Wait.").later());
                }
                if view.changes.get(&id).is_none_or(|c| c.n != n) {
                    return Err(Problem::new("journal.moved", "The change moved meanwhile.", "Read it again.").later());
                }
                Ok(((), vec![Entry::of(id, ACTOR, body)]))
            })
            .await;
        if let Err(problem) = written {
            self.refused_by("journal", &problem);
            let ordered = matches!(problem.code.as_ref(), "journal.moved" | "journal.illegal_event");
            if !(ordered && self.without(Control::Order)) {
                return Ok(());
            }
        }
        let outcome = match prepared {
            Ok(_) => self.perform(c, &effect, &facts).await,
            Err(problem) => Err(problem),
        };
        if outcome.as_ref().is_err_and(|p| p.code == "walk.killed") {
            self.saw("killed between an effect and its result");
            if self.chance(60.0) {
                self.undo();
            }
            return self.book.restart().await;
        }
        self.settle(c.id, effect, outcome).await
    }

    async fn settle(&mut self, id: ChangeId, effect: Effect, outcome: Result<Value>) -> Result<()> {
        let bodies = match outcome {
            Ok(result) => {
                let commit = result.get("commit").and_then(Value::as_str).map(str::to_owned);
                let via = if effect == Effect::Merge { "merge" } else { "push" };
                let lands = matches!(effect, Effect::PushTarget | Effect::Merge);
                let mut bodies = vec![Body::Done { effect, result }];
                bodies.extend(commit.filter(|_| lands).map(|commit| Body::Landed { commit, via: via.into() }));
                bodies
            }
            Err(problem) => {
                self.refused_by("effect", &problem);
                let last = problem.retry == Retry::Never;
                vec![Body::Failed { effect, problem, last }]
            }
        };
        self.append(id, bodies).await
    }

    async fn perform(&mut self, c: &Change, effect: &Effect, facts: &Value) -> Result<Value> {
        let part = |k: &str| facts.get(k).and_then(Value::as_str);
        let when = (self.book.seq().await, self.now);
        match effect {
            Effect::Ask { person } => self.ask(c, person),
            Effect::SettleCard { person, .. } => self.edit(c, person),
            Effect::PushTarget | Effect::PushBranch => {
                let (Some(commit), Some(base)) = (part("commit"), part("base")) else { return Err(interrupted()) };
                let auth = self.gate(c).await?;
                let own = format!("refs/heads/{}", c.branch());
                let (git_ref, lease) =
                    if *effect == Effect::PushTarget { (MAIN, Some(base)) } else { (own.as_str(), None) };
                self.remote.push(&auth, commit, git_ref, lease, when)?;
                Ok(json!({"commit": commit, "branch": c.branch()}))
            }
            Effect::OpenPullRequest => {
                self.gate(c).await?;
                Ok(json!({"number": 1, "url": "https://git.example/deploy/pulls/1"}))
            }
            Effect::Merge => {
                let auth = self.gate(c).await?;
                let head = c.pushed_branch().unwrap_or_default().to_owned();
                self.remote.merge(&auth, &head, when)?;
                Ok(json!({"commit": head}))
            }
            Effect::ClosePullRequest => gate::withdraw(c).map(|_| json!({})),
            Effect::DeleteBranch => gate::sweep(c).map(|_| json!({})),
            Effect::Hint | Effect::HintAgain | Effect::Notify { .. } => Ok(json!({})),
        }
    }

    /// The world is asked, never guessed.
    async fn recover(&mut self, c: &Change, effect: Effect) -> Result<()> {
        let facts = c.effect(&effect).map(|s| s.facts.clone()).unwrap_or_default();
        let part = |k: &str| facts.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
        let own = format!("refs/heads/{}", c.branch());
        let (git_ref, commit) = match effect {
            Effect::PushTarget => (MAIN, part("commit")),
            Effect::Merge => (MAIN, part("head")),
            _ => (own.as_str(), part("commit")),
        };
        let there = self.remote.has(git_ref, &commit) && !self.without(Control::SingleUse);
        let asked = matches!(effect, Effect::PushTarget | Effect::PushBranch | Effect::Merge);
        self.saw(format!("recovered: {} {}", effect.name(), if there { "had happened" } else { "had not" }));
        let outcome =
            if asked && there { Ok(json!({"commit": commit, "branch": c.branch()})) } else { Err(interrupted()) };
        self.settle(c.id, effect, outcome).await
    }

    fn pending_card(&self, c: &Change, person: &str) -> (String, Vec<(String, String)>) {
        let mut facts = self.card_facts(c, person);
        let complete = message::card(&facts).complete;
        let nobody = std::collections::BTreeMap::new();
        let desk = self.desk(&nobody, 0);
        let wrong = c.armed.get(person).copied().unwrap_or(0);
        if complete && desk.needs_number(c) && !c.has_voted(person) && wrong < WRONG_NUMBERS {
            facts.number = self.handles.numbers(c, person, wrong).map(|n| n.right);
        }
        let rows = keyboard(&desk, c, person, complete);
        let button = |(label, action)| (label, self.handles.make(c, person, action));
        (message::card(&facts).text.text, rows.into_iter().flatten().map(button).collect())
    }

    fn ask(&mut self, c: &Change, person: &str) -> Result<Value> {
        let chat = self.people.iter().find(|p| p.name == person).and_then(|p| p.spec.telegram);
        let Some(chat) = chat else { return Ok(json!({"skipped": "no Telegram"})) };
        let (text, buttons) = self.pending_card(c, person);
        let id = i64::try_from(self.messages.len()).unwrap_or(i64::MAX) + 1;
        let (first, old) = (text.clone(), Vec::new());
        self.messages.insert(id, Message { id, chat, change: c.id, first, text, buttons, old });
        self.saw("cards");
        Ok(json!({"chat": chat, "message_id": id}))
    }

    fn edit(&mut self, c: &Change, person: &str) -> Result<Value> {
        let open = c.end.is_none() && c.landed.is_none();
        let (text, buttons) = if open {
            self.pending_card(c, person)
        } else {
            let nobody = std::collections::BTreeMap::new();
            let rows = keyboard(&self.desk(&nobody, 0), c, person, false);
            let button = |(label, action)| (label, self.handles.make(c, person, action));
            ("It is over.".to_owned(), rows.into_iter().flatten().map(button).collect())
        };
        for id in c.cards_of(person) {
            if let Some(m) = self.messages.get_mut(&id) {
                m.old.extend(std::mem::replace(&mut m.buttons, buttons.clone()).into_iter().map(|(_, data)| data));
                m.text.clone_from(&text);
            }
        }
        Ok(json!({}))
    }

    async fn observe(&mut self, c: &Change) -> Result<bool> {
        let waits = c.seen.as_ref().is_none_or(|s| s.verdict == Verdict::Waiting);
        if !waits || !self.chance(40.0) {
            return Ok(false);
        }
        let (verdict, code) =
            if self.chance(90.0) { (Verdict::Healthy, Code::Healthy) } else { (Verdict::Failed, Code::Degraded) };
        let say = "As it happened.".to_owned();
        self.append(c.id, vec![Body::Observed { verdict, code, say }]).await?;
        Ok(true)
    }

    /// The replicas that a file has at the remote.
    pub fn standing(&self, path: &str) -> u32 {
        self.remote.file(path).and_then(|t| replicas(t)).unwrap_or(0)
    }
}
