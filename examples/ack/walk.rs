//! What agents, people, other committers and the machine do, drawn from the seed. Most of it is wrong.

use std::sync::Arc;

use anyhow::{Result, bail};
use countersign::git::blob_id;
use countersign::journal::Entry;
use countersign::pipeline::handle::HandleKey;
use countersign::pipeline::press::{Batch, Desk, Press};
use countersign_core::Problem;
use countersign_core::change::{Change, Load, State, Wish, no_overlap, room};
use countersign_core::message;
use countersign_core::model::{
    Body, ChangeId, Decided, DeliveryState, Edit, EffectLine, Ending, FileNote, LeafChange, Level, Principal, Proposal,
    Risk, RiskLevel, Scale, Sealed, SealedFile, Source, digest_of, hex,
};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use serde_json::json;

use crate::controls::Control;
use crate::remote::{MAIN, Weather};
use crate::world::{ACCOUNTS, AGENTS, Message, OBJECTS, World, card_of, key, path, people, place, risk, text};

/// What somebody would like to smuggle in.
pub const EVIL: &str = "spec:\n  replicas: 99\n";
/// Steps of one change in a row.
const STEPS: usize = 20;
/// Rounds after which a world must have come to its end.
const ROUNDS: usize = 4_000;

/// Number of the object with this path.
pub fn object_of(wanted: &str) -> Option<usize> {
    (0..OBJECTS).find(|o| path(*o) == wanted)
}

impl World {
    /// Until this many changes were proposed and all of them are over.
    pub async fn walk(&mut self, budget: usize) -> Result<()> {
        for _ in 0..budget * 200 {
            if self.proposed >= budget {
                break;
            }
            self.tick().await?;
            self.work().await;
        }
        for _ in 0..ROUNDS {
            self.calm().await?;
            self.now += 120_000;
            if self.without(Control::Expiry) {
                // What never expires waits for a press.
                self.press().await;
                self.withdraw_some().await;
            }
            self.work().await;
            if self.book.view().await.changes.keys().all(|id| self.over.contains(id)) {
                let late = self.messages.len() / 4;
                for _ in 0..late {
                    self.press().await;
                }
                let open = self.book.view().await.changes.values().filter(|c| c.is_open()).count();
                self.saw_many("changes", self.proposed);
                return if open == 0 { Ok(()) } else { bail!("{open} changes are open again") };
            }
        }
        let view = self.book.view().await;
        let stuck: Vec<String> = view
            .changes
            .values()
            .filter(|c| !self.over.contains(&c.id))
            .map(|c| format!("{} {:?}", c.name(), c.state()))
            .collect();
        bail!("never over: {}", stuck.join(", "))
    }

    fn saw_many(&mut self, what: &str, n: usize) {
        *self.seen.entry(what.to_owned()).or_default() += n as u64;
    }

    /// Everybody goes home: what is broken is mended, and nobody presses any more.
    async fn calm(&mut self) -> Result<()> {
        (self.policy, self.people, self.sponsor, self.moved) = (0, people(), Some("sue"), false);
        self.remote.weather = Weather::Fine;
        if std::mem::take(&mut self.full) {
            self.book.full(false).await?;
        }
        if self.book.view().await.stopped.is_some() {
            self.resume().await;
        }
        Ok(())
    }

    /// Lets workers work.
    async fn work(&mut self) {
        let ids: Vec<ChangeId> = self.book.view().await.changes.keys().copied().collect();
        for id in ids {
            if self.over.contains(&id) || self.chance(30.0) {
                continue;
            }
            for _ in 0..STEPS {
                match self.step(id).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(problem) => {
                        self.refused_by("worker", &problem);
                        break;
                    }
                }
            }
        }
    }

    async fn tick(&mut self) -> Result<()> {
        self.now += if self.chance(2.0) {
            self.rng.random_range(300_000..2_400_000)
        } else {
            self.rng.random_range(500..20_000)
        };
        match self.rng.random_range(0..1000) {
            0..200 => self.propose().await,
            200..720 => {
                self.press().await;
                self.press().await;
            }
            720..740 => self.withdraw_some().await,
            740..800 => self.others(),
            800..815 => self.policy = self.rng.random_range(1..3),
            815..825 => drop(self.people.remove(self.rng.random_range(0..2))),
            825..831 => self.sponsor = (self.rng.random_range(0..2) > 0).then_some("tom"),
            831..836 => self.moved = true,
            836..876 => {
                self.remote.weather = if self.rng.random_range(0..3) < 2 { Weather::Mute } else { Weather::Away }
            }
            876..887 => {
                self.full = true;
                self.book.full(true).await?;
                self.saw("the disk is full");
            }
            887..892 => {
                self.book.restart().await?;
                self.saw("restarts");
            }
            892..897 => self.stop_in_words().await,
            _ => {}
        }
        self.mend().await?;
        if self.people.len() < 4 {
            self.people = people();
        }
        Ok(())
    }

    /// What was tightened, broken or stopped does not stay so for ever.
    async fn mend(&mut self) -> Result<()> {
        if self.chance(10.0) {
            self.policy = 0;
        }
        if self.chance(10.0) {
            self.people = people();
        }
        if self.chance(20.0) {
            (self.sponsor, self.moved) = (Some("sue"), false);
        }
        if self.remote.weather == Weather::Away && self.chance(25.0) {
            self.remote.weather = Weather::Fine;
        }
        if self.full && self.chance(15.0) {
            self.full = false;
            self.book.full(false).await?;
        }
        if self.book.view().await.stopped.is_some() && self.chance(6.0) {
            self.resume().await;
        }
        Ok(())
    }

    /// An agent asks, every third time for what was refused or has expired before, or what another one asks for now.
    async fn propose(&mut self) {
        let (object, after) = match self.rng.random_range(0..100) {
            0..15 => self.refused.choose(&mut self.rng).copied(),
            15..40 => self.asked_now().await,
            _ => None,
        }
        .unwrap_or((self.rng.random_range(0..OBJECTS), self.rng.random_range(1..=12)));
        let agent = AGENTS.choose(&mut self.rng).copied().unwrap_or("claude");
        match self.proposal(object, after, agent).await {
            Ok(true) => self.proposed += 1,
            Ok(false) => {}
            Err(problem) => self.refused_by("proposal", &problem),
        }
    }

    /// Object and value of a change that people are asked about.
    async fn asked_now(&mut self) -> Option<(usize, u32)> {
        let view = self.book.view().await;
        let open: Vec<(usize, u32)> = view
            .changes
            .values()
            .filter(|c| c.state() == State::AwaitingApproval)
            .filter_map(|c| {
                let value = c.proposal.fields.first()?.after.as_ref()?.as_u64()?;
                Some((object_of(&c.proposal.files.first()?.path)?, u32::try_from(value).ok()?))
            })
            .collect();
        open.choose(&mut self.rng).copied()
    }

    async fn proposal(&mut self, object: usize, after: u32, agent: &str) -> countersign_core::Result<bool> {
        let (file, replicas) = (path(object), self.standing(&path(object)));
        if replicas == after {
            return Ok(false);
        }
        let (facts, decision) = self.decide(object, agent, replicas, after);
        let decided = decision.decided;
        if decided.level >= Level::Manual {
            let deny = Problem::new("policy.denied", "The policy denies this change.", "Ask people.").never();
            return Err(decision.problem.unwrap_or(deny));
        }
        let id = ChangeId::from_parts(u64::try_from(self.now).unwrap_or(0), self.rng.random());
        let (before_blob, after_text) = (self.remote.blob(&file), text(after));
        let (cluster, namespace, name) = place(object);
        let target = format!("{cluster}/{namespace}/Deployment/{name}");
        let proposal = Proposal {
            requester: Principal { agent: agent.into(), sponsor: "sue".into() },
            key: None,
            content_key: format!("{agent} {target} {after}"),
            reason: "It is needed.".into(),
            edits: vec![Edit { target, scale: Some(Scale { replicas: after }), ..Edit::default() }],
            cluster: cluster.into(),
            owner: self.owner(),
            source: source(),
            repository: "deploy".into(),
            git_ref: MAIN.into(),
            base: self.remote.tip.clone(),
            fields: vec![LeafChange {
                object: key(object),
                pointer: "/spec/replicas".into(),
                before: Some(json!(replicas)),
                after: Some(json!(after)),
            }],
            want: Vec::new(),
            state: DeliveryState { automatic: true, ..DeliveryState::default() },
            risk: Risk { level: risk(object), reasons: vec![cluster.into()] },
            diff: format!("--- a/{file}\n+++ b/{file}\n@@ -2 +2 @@\n-  replicas: {replicas}\n+  replicas: {after}\n"),
            reverts: None,
            health: None,
            last_healthy: None,
            files: vec![FileNote { path: file.clone(), line: 2, added: 1, removed: 1 }],
            notes: Vec::new(),
            targets: serde_json::to_value(&facts.targets).unwrap_or_default(),
            objects: 1,
            privileged: None,
            facts: serde_json::to_value(&facts).unwrap_or_default(),
        };
        let files = vec![SealedFile {
            path: file,
            mode: "100644".into(),
            before: before_blob,
            after: Some(blob_id(after_text.as_bytes())),
        }];
        let sealed = self.seal(id, &proposal, &decided, files);
        let blobs = [after_text, EVIL.to_owned()].map(|t| (blob_id(t.as_bytes()), t.into_bytes()));
        self.enter(id, proposal, decided, &sealed, &blobs).await
    }

    fn seal(&mut self, id: ChangeId, p: &Proposal, decided: &Decided, files: Vec<SealedFile>) -> Sealed {
        let expires_at = self.now / 1000 + i64::from(decided.expires_s);
        let card = card_of(&id, p, decided, expires_at);
        let nonce: [u8; 16] = self.rng.random();
        Sealed {
            schema: 1,
            change: id,
            revision: 1,
            repository: p.repository.clone(),
            git_ref: p.git_ref.clone(),
            files,
            effect: p
                .fields
                .iter()
                .map(|l| EffectLine {
                    object: l.object.to_string(),
                    pointer: l.pointer.clone(),
                    before: l.before.as_ref().map(ToString::to_string),
                    after: l.after.as_ref().map(ToString::to_string),
                })
                .collect(),
            message: message::card(&card).text.text,
            policy_version: decided.policy_version.clone(),
            rules: decided.rules.clone(),
            delivery: decided.delivery,
            risk: p.risk.clone(),
            requester: p.requester.agent.clone(),
            sponsor: p.requester.sponsor.clone(),
            quorum: decided.quorum.clone(),
            expires_at,
            nonce: hex(&nonce),
            commit_message: message::commit_message(&card, &["scale"]),
        }
    }

    async fn enter(
        &mut self,
        id: ChangeId,
        proposal: Proposal,
        decided: Decided,
        sealed: &Sealed,
        blobs: &[(String, Vec<u8>)],
    ) -> countersign_core::Result<bool> {
        let canonical = String::from_utf8(sealed.canonical()?).unwrap_or_default();
        let digest = digest_of(canonical.as_bytes());
        let (agent, content_key) = (proposal.requester.agent.clone(), proposal.content_key.clone());
        let (cluster, fields) = (proposal.cluster.clone(), proposal.fields.clone());
        let approvers = decided.approvers.clone();
        let (asks_people, alone) = (decided.level == Level::Prompted, self.without(Control::OneChange));
        let body =
            Body::Proposed { proposal: Box::new(proposal), decided: Box::new(decided), sealed: canonical, digest };
        let now = self.now;
        self.book
            .write(now, blobs, |view| {
                if view.stopped.is_some() {
                    return Err(Problem::new("gate.stopped", "The emergency stop is on.", "Wait.").later());
                }
                let same = |c: &&Arc<Change>| c.is_open() && c.proposal.content_key == content_key;
                if view.changes.values().any(|c| same(&c)) {
                    return Ok((false, Vec::new()));
                }
                let wish = Wish {
                    agent: &agent,
                    cluster: &cluster,
                    repository: "deploy",
                    git_ref: MAIN,
                    fields: &fields,
                    approvers: &approvers,
                };
                let all = view.changes.values().map(AsRef::as_ref);
                if !alone {
                    no_overlap(all.clone(), &wish)?;
                }
                if !alone && asks_people {
                    room(all, &wish, now, &Load::default())?;
                }
                Ok((true, vec![Entry::of(id, &format!("agent:{agent}"), body)]))
            })
            .await
    }

    async fn withdraw_some(&mut self) {
        let ids: Vec<ChangeId> = self.book.view().await.changes.keys().copied().collect();
        if let Some(id) = ids.choose(&mut self.rng).copied() {
            self.cancel(id).await;
        }
    }

    /// The agent takes its change back.
    async fn cancel(&mut self, id: ChangeId) {
        let out = self
            .book
            .write(self.now, &[], |view| {
                let Some(c) = view.changes.get(&id).filter(|c| c.is_open()) else { return Ok((false, Vec::new())) };
                if c.is_leaving() || c.state() == State::Observing || c.dangling().is_some() {
                    return Err(Problem::new("cancel.too_late", "It is on its way.", "Wait for its end.").never());
                }
                let body = Body::Closed { ending: Ending::Cancelled, say: c.proposal.requester.agent.clone() };
                Ok((true, vec![Entry::of(id, &format!("agent:{}", c.proposal.requester.agent), body)]))
            })
            .await;
        match out {
            Ok(true) => self.saw("ended: Cancelled"),
            Ok(false) => {}
            Err(problem) => self.refused_by("cancel", &problem),
        }
    }

    /// Between what a worker read and what it writes, somebody else is sometimes quicker.
    pub async fn meanwhile(&mut self, id: ChangeId) {
        if !self.chance(15.0) {
            return;
        }
        if self.chance(50.0) {
            return self.cancel(id).await;
        }
        let mine: Vec<(i64, String)> = self
            .messages
            .values()
            .filter(|m| m.change == id)
            .flat_map(|m| m.buttons.iter().filter(|(l, _)| l.starts_with("Reject")).map(|(_, d)| (m.chat, d.clone())))
            .collect();
        if let Some((chat, data)) = mine.choose(&mut self.rng).cloned() {
            self.press_of(chat, true, 0, &data).await;
        }
    }

    /// Somebody else commits: something else, or the undoing of what was just done.
    fn others(&mut self) {
        if self.chance(40.0) {
            return self.undo();
        }
        let (object, n) = (self.rng.random_range(0..OBJECTS), self.rng.random_range(1..=9));
        self.remote.others(&path(object), Some(text(n)));
    }

    /// Somebody else takes back what was done last.
    pub fn undo(&mut self) {
        if let Some((path, before)) = self.remote.executions.last().map(|e| (e.path.clone(), e.before.clone())) {
            self.remote.others(&path, before);
            self.saw("undone by somebody else");
        }
    }

    /// Who has just decided about a card rejects another one that asks for the same.
    async fn reject_double(&mut self, chat: i64, message: i64) {
        let facts = |m: &Message| m.first.lines().skip(1).take(2).map(str::to_owned).collect::<Vec<_>>();
        let Some(m) = self.messages.get(&message) else { return };
        let double = self.messages.values().rev().find_map(|o| {
            let same = o.chat == chat && o.change != m.change && facts(o) == facts(m);
            same.then(|| o.buttons.iter().find(|(l, _)| l.starts_with("Reject")))?.map(|(_, d)| (o.id, d.clone()))
        });
        if let Some((id, data)) = double {
            self.press_of(chat, true, id, &data).await;
        }
    }

    async fn stop_in_words(&mut self) {
        let people = self.accounts();
        let (handles, now, from) = (self.handles.clone(), self.now, self.someone());
        let out = self
            .book
            .write(now, &[], |view| {
                let desk = desk(&handles, &people, now);
                let mut batch = Batch::default();
                desk.text(view, (from, from), "/stop", None, &str::to_owned, &mut batch);
                Ok((batch.stopped.is_some(), std::mem::take(&mut batch.entries)))
            })
            .await;
        if out.is_ok_and(|stopped| stopped) {
            self.saw("stops");
        }
    }

    fn someone(&mut self) -> i64 {
        ACCOUNTS.choose(&mut self.rng).copied().unwrap_or(0)
    }

    /// Two people want the stop to end; others try as well.
    async fn resume(&mut self) {
        let stop = self.book.view().await.stop_seq();
        for _ in 0..6 {
            let from = self.someone();
            let name = self.accounts().get(&from).cloned().unwrap_or_else(|| "ann".into());
            let stop = if self.chance(10.0) { stop + 1 } else { stop };
            let data = self.handles.resume(stop, &name);
            self.press_of(from, true, 0, &data).await;
        }
    }

    /// A press: mostly by the right person on a card that is open, often not.
    async fn press(&mut self) {
        let all: Vec<i64> = self.messages.keys().copied().collect();
        let recent = all.get(all.len().saturating_sub(12)..).unwrap_or_default();
        let pool = if self.chance(75.0) { recent } else { all.as_slice() };
        let Some(m) = pool.choose(&mut self.rng).and_then(|id| self.messages.get(id)).cloned() else { return };
        if self.chance(6.0)
            && let Some((chat, message, data)) = self.pressed.choose(&mut self.rng).cloned()
        {
            self.press_of(chat, true, message, &data).await;
            return;
        }
        let Some(mut data) = self.button(&m.text, &m.buttons, &m.old) else { return };
        if self.chance(4.0) {
            let mut bytes = data.into_bytes();
            let at = self.rng.random_range(0..bytes.len().max(1));
            if let Some(b) = bytes.get_mut(at) {
                *b ^= 1;
            }
            data = String::from_utf8(bytes).unwrap_or_default();
        }
        let from = if self.chance(85.0) { m.chat } else { self.someone() };
        let private = self.chance(95.0);
        if self.press_of(from, private, m.id, &data).await && self.chance(80.0) {
            self.reject_double(from, m.id).await;
        }
    }

    fn button(&mut self, text: &str, buttons: &[(String, String)], old: &[String]) -> Option<String> {
        if self.chance(5.0) {
            return old.choose(&mut self.rng).cloned();
        }
        let labelled = |want: &dyn Fn(&str) -> bool| -> Vec<String> {
            buttons.iter().filter(|(l, _)| want(l)).map(|(_, d)| d.clone()).collect()
        };
        let right = |l: &str| l.parse::<u32>().is_ok() && text.contains(&format!("the number {l}"));
        let pool = match self.rng.random_range(0..1000) {
            0..720 => {
                let good = labelled(&|l| l == "Approve" || right(l));
                if good.is_empty() { labelled(&|l| l.parse::<u32>().is_ok()) } else { good }
            }
            720..760 => labelled(&|l| l.parse::<u32>().is_ok()),
            760..880 => labelled(&|l| l.starts_with("Reject")),
            880..883 => labelled(&|l| l == "Stop all"),
            _ => labelled(&|l| l != "Stop all" && !l.starts_with("Reject")),
        };
        pool.choose(&mut self.rng).cloned()
    }

    /// What the chat brings in: the desk decides, the journal keeps it. True = it was a yes that counts.
    async fn press_of(&mut self, from: i64, private: bool, message: i64, data: &str) -> bool {
        self.updates += 1;
        let (update_id, callback) = (self.updates, self.updates.to_string());
        let about = match HandleKey::change_of(data) {
            Some(id) => self.book.change(id).await,
            None => None,
        };
        let now = about.as_ref().map_or(self.now, |c| self.clock(c));
        let (people, handles) = (self.accounts(), self.handles.clone());
        let deaf = self.without(Control::Rejection);
        let impersonal = self.chance(1.0);
        let out = self
            .book
            .write(self.now, &[], |view| {
                let p = Press {
                    update_id,
                    callback_id: &callback,
                    from_id: from,
                    impersonal,
                    private,
                    message_id: message,
                    data,
                };
                let mut batch = Batch::default();
                desk(&handles, &people, now).press(view, &p, &mut batch);
                let mut entries = std::mem::take(&mut batch.entries);
                if deaf {
                    entries.retain(|e| !matches!(e.body, Body::Voted { approve: false, .. }));
                }
                // A card that was not known is not what this walk is about.
                entries.retain(|e| !matches!(e.body, Body::CardFound { .. }));
                Ok((batch, entries))
            })
            .await;
        match out {
            Ok(batch) => {
                if batch.stopped.is_some() {
                    self.saw("stops");
                }
                for reply in &batch.replies {
                    let word = |w: &'_ str| if w.starts_with("cs-") { "cs-…".to_owned() } else { w.to_owned() };
                    let words: Vec<String> = reply.text.split(' ').take(6).map(word).collect();
                    self.saw(format!("press: {}", words.join(" ")));
                }
                self.pressed.push((from, message, data.to_owned()));
                batch.replies.iter().any(|r| r.text == "Approved.")
            }
            Err(problem) => {
                self.refused_by("press", &problem);
                false
            }
        }
    }
}

fn desk<'a>(handles: &'a HandleKey, people: &'a std::collections::BTreeMap<i64, String>, now: i64) -> Desk<'a> {
    Desk { handles, people, number_from: RiskLevel::High, resume_needed: 2, now }
}

fn source() -> Source {
    Source {
        url: "https://git.example/deploy.git".into(),
        target_revision: "main".into(),
        path: String::new(),
        kind: None,
        index: 0,
        deployed: None,
        recurse: true,
        overrides: Vec::new(),
    }
}
