//! One case: a change is asked for, people do their part, the product is killed twice, and what came
//! of it is compared with what people decided.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use countersign::sandbox::world::{ANNA, REPO};
use serde_json::{Value, json};

use crate::lock;
use crate::oracle::{self, Expect, Marks};
use crate::product::{Caller, Product};
use crate::world::{APPS, Controls, World, full};

/// How long a change may take after the last start until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where it is in a waiting state: the engine needs its time.
const ENGINE: Duration = Duration::from_secs(90);
/// How long the product may take after a start to reach the point of the second kill.
const SECOND: Duration = Duration::from_millis(1500);
/// How long a point may take after the change has ended.
const TAIL: Duration = Duration::from_secs(10);

/// One kill at one point.
#[derive(Debug, Clone)]
pub struct Case {
    pub point: String,
    pub nth: u32,
}

/// What a case came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub hit: bool,
    pub kills: u32,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub stuck: Vec<String>,
    pub words: String,
}

/// What people do with the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Approve,
    Reject,
    /// Nobody is asked.
    Nothing,
    /// Merge the pull request on the forge.
    Merge,
    /// The agent withdraws it while its pull request is open.
    Cancel,
    /// Approve an image that does not exist, and then the revert.
    Fail,
}

impl Case {
    /// Way of delivery and people's part that lead past the point.
    fn plan(&self) -> (&'static str, Act) {
        let p = self.point.as_str();
        let effect = p.split('.').next().unwrap_or_default();
        match effect {
            "push_branch" | "open_pull_request" | "merge" => ("merge", Act::Approve),
            "close_pull_request" => ("pull", Act::Cancel),
            "delete_branch" if self.nth.is_multiple_of(3) => ("merge", Act::Approve),
            "delete_branch" if self.nth % 3 == 1 => ("pull", Act::Merge),
            "delete_branch" => ("pull", Act::Cancel),
            "notify" if self.nth.is_multiple_of(2) => ("standard", Act::Nothing),
            "notify" => ("pull", Act::Merge),
            "before_revert_noted" => ("direct", Act::Fail),
            "ask" | "settle_card" | "before_vote" | "after_vote" | "before_closed" | "after_closed"
                if self.nth % 3 == 1 =>
            {
                ("direct", Act::Reject)
            }
            _ => ("direct", Act::Approve),
        }
    }

    /// Reproducible chance.
    fn dice(&self, salt: u32, sides: u64) -> u64 {
        let mut h = DefaultHasher::new();
        (&self.point, self.nth, salt).hash(&mut h);
        h.finish() % sides
    }

    /// Where the first kill strikes. A recovery needs an interrupted effect.
    fn first(&self) -> &str {
        match self.point.as_str() {
            "before_recovery" | "after_recovery" => match self.dice(1, 4) {
                0 => "push_target.after_intent",
                1 => "push_target.after_effect",
                2 => "ask.after_effect",
                _ => "hint.after_intent",
            },
            other => other,
        }
    }

    /// Where the second one strikes; `None` = after a while of its own.
    fn second(&self) -> Option<&str> {
        let p = self.point.as_str();
        let interrupted = p.ends_with("after_intent") || p.ends_with("after_effect");
        match self.dice(2, 2) {
            _ if p.ends_with("_recovery") => Some(p),
            0 => None,
            _ if interrupted && self.dice(3, 2) == 0 => Some("before_recovery"),
            _ if interrupted => Some("after_recovery"),
            _ => Some(p),
        }
    }
}

/// What both sides of a case know.
struct Shared {
    /// When the product was started last; `None` while a kill is still to come.
    settled: Option<Instant>,
    /// When the change was seen ended first.
    ended: Option<Instant>,
    kills: u32,
    hit: bool,
    /// Ends that were no SIGKILL.
    deaths: Vec<String>,
}

/// Plays one case.
pub async fn play(world: &mut World, case: &Case) -> Result<Outcome> {
    let (mode, act) = case.plan();
    let app = APPS.get(case.nth as usize % 2).copied().unwrap_or("checkout");
    let image = world.next_image(app, act != Act::Fail).await?;
    let repository = world.repository();
    let marks = Marks::now(&world.dir, &repository).await?;
    world.product.arm(case.first())?;
    let shared = Mutex::new(Shared { settled: None, ended: None, kills: 0, hit: false, deaths: Vec::new() });
    let target = full(app, mode);
    let (struck, driven) = {
        let mut drive = Drive { controls: &world.controls, agent: &mut world.agent, case, shared: &shared };
        tokio::join!(strike(&mut world.product, case, &shared), drive.run(&target, &image, act))
    };
    struck?;
    let driven = driven?;
    let shared = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut out = Outcome { hit: shared.hit, kills: shared.kills, stuck: shared.deaths, ..Outcome::default() };
    out.stuck.extend(driven.stuck);
    out.words = format!("{mode} {act:?} {app}: {}, {} kills", driven.states.join(" > "), shared.kills);
    let expect = Expect {
        change: driven.change,
        name: driven.name,
        image,
        lands: !matches!(act, Act::Reject | Act::Cancel),
        by_hand: act == Act::Merge,
        last_words: match act {
            Act::Approve => Some("HEALTHY"),
            Act::Reject => Some("REJECTED"),
            Act::Fail => Some("FAILED"),
            Act::Nothing | Act::Merge | Act::Cancel => None,
        },
        reverted: (act == Act::Fail).then_some(driven.revert),
        kills: shared.kills,
    };
    // Cards and pull requests are closed after the end.
    while out.stuck.is_empty()
        && let Some(what) = oracle::unsettled(&marks, &expect).await?
    {
        if world.product.since.elapsed() > PATIENCE {
            out.stuck.push(what);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    oracle::judge(&marks, &expect, &mut out).await?;
    Ok(out)
}

/// Both kills. At the end the product is up and nothing is armed.
async fn strike(product: &mut Product, case: &Case, shared: &Mutex<Shared>) -> Result<()> {
    let of_recovery = case.point.ends_with("_recovery");
    loop {
        match product.gone(Duration::from_millis(50)).await? {
            Some(killed) => {
                let hit = product.disarm();
                let mut s = lock(shared);
                s.kills += u32::from(killed);
                s.hit = hit && killed && !of_recovery;
                if !killed || !hit {
                    s.deaths.push("the product ended by itself".into());
                }
                break;
            }
            None if lock(shared).ended.is_some_and(|at| at.elapsed() > TAIL) => {
                // Never reached: the second kill comes all the same.
                product.disarm();
                product.kill().await?;
                lock(shared).kills += 1;
                break;
            }
            None => {}
        }
    }
    let second = case.second();
    if let Some(point) = second {
        product.arm(point)?;
    }
    product.start()?;
    let patience = match second {
        Some(_) if of_recovery => PATIENCE,
        Some(_) => SECOND,
        None => Duration::from_millis(case.dice(4, 300)),
    };
    let gone = product.gone(patience).await?;
    if gone.is_none() {
        product.kill().await?;
    }
    let hit = product.disarm();
    {
        let mut s = lock(shared);
        s.kills += u32::from(gone != Some(false));
        s.hit |= of_recovery && hit && gone == Some(true);
        if gone == Some(false) {
            s.deaths.push("the product ended by itself after a kill".into());
        }
    }
    product.start()?;
    lock(shared).settled = Some(product.since);
    Ok(())
}

/// The agent's and the people's side.
struct Drive<'a> {
    controls: &'a Controls,
    agent: &'a mut Caller,
    case: &'a Case,
    shared: &'a Mutex<Shared>,
}

/// What they saw.
#[derive(Default)]
struct Driven {
    change: String,
    name: String,
    revert: String,
    states: Vec<String>,
    stuck: Vec<String>,
}

fn text<'v>(v: &'v Value, key: &str) -> &'v str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Drive<'_> {
    async fn run(&mut self, target: &str, image: &str, act: Act) -> Result<Driven> {
        let mut d = Driven::default();
        let Some((change, name)) = self.propose(target, image, &mut d).await? else {
            self.ended();
            return Ok(d);
        };
        (d.change, d.name) = (change, name);
        let (first, end) = match act {
            Act::Approve | Act::Fail => (Some("Approve"), if act == Act::Fail { "failed" } else { "healthy" }),
            Act::Reject => (Some("Reject…"), "rejected"),
            Act::Nothing | Act::Merge => (None, "healthy"),
            Act::Cancel => (None, "cancelled"),
        };
        if let Some(button) = first
            && !self.press(&d.name.clone(), button, &mut d).await?
        {
            self.ended();
            return Ok(d);
        }
        let change = d.change.clone();
        let last = self.until(&change, end, act, &mut d).await?;
        if act == Act::Fail && text(&last, "state") == "failed" {
            self.revert(&change, &mut d).await?;
        }
        self.ended();
        // Still so after the last start.
        while lock(self.shared).settled.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if d.stuck.is_empty() {
            self.until(&change, end, act, &mut d).await?;
        }
        Ok(d)
    }

    fn ended(&self) {
        lock(self.shared).ended.get_or_insert_with(Instant::now);
    }

    /// Whether the time is up, counted from the last start.
    fn over(&self, patience: Duration) -> bool {
        lock(self.shared).settled.is_some_and(|at| at.elapsed() > patience)
    }

    /// Asks until there is a change, as an agent does whose connection broke.
    async fn propose(&mut self, target: &str, image: &str, d: &mut Driven) -> Result<Option<(String, String)>> {
        let began = Instant::now();
        loop {
            let ask = json!({"edits": [{"target": target, "set_image": {"container": "app", "image": image}}], "reason": "a new version"});
            let answer = self.agent.call("operate", ask).await;
            if let Ok(a) = &answer
                && !text(a, "change").is_empty()
            {
                return Ok(Some((text(a, "change").to_owned(), text(a, "name").to_owned())));
            }
            if self.over(PATIENCE) || began.elapsed() > 2 * ENGINE {
                d.stuck.push(format!("operate is not answered with a change: {answer:?}"));
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses once, on any copy of the card: a person whose press the chat has taken does not press again.
    async fn press(&mut self, name: &str, button: &str, d: &mut Driven) -> Result<bool> {
        loop {
            let seen = self.controls.call("bot", &format!("chats/{ANNA}?contains={name}&timeout_s=1"), None).await?;
            let cards: Vec<&Value> = seen
                .get("messages")
                .and_then(Value::as_array)
                .map(|m| {
                    m.iter()
                        .filter(|m| text(m, "text").contains(name) && m.to_string().contains(&format!("\"{button}\"")))
                        .collect()
                })
                .unwrap_or_default();
            let card = if self.case.nth.is_multiple_of(2) { cards.last() } else { cards.first() };
            if let Some(id) = card.and_then(|c| c.get("message_id")) {
                self.controls
                    .call("bot", "press", Some(json!({"chat_id": ANNA, "message_id": id, "button": button})))
                    .await?;
                return Ok(true);
            }
            if self.over(PATIENCE) {
                d.stuck.push(format!("no card of {name} came"));
                return Ok(false);
            }
        }
    }

    /// Follows the change to its end, and does on the way what is to be done.
    async fn until(&mut self, change: &str, end: &str, act: Act, d: &mut Driven) -> Result<Value> {
        loop {
            let seen = self.agent.call("change", json!({"change": change, "wait_s": 1})).await;
            let state = seen.as_ref().map(|s| text(s, "state").to_owned()).unwrap_or_default();
            if !state.is_empty() && d.states.last() != Some(&state) {
                d.states.push(state.clone());
            }
            match state.as_str() {
                s if s == end => return seen,
                "awaiting_merge" if act == Act::Cancel => {
                    // An error is a kill in between: the next round asks again.
                    let _ = self.agent.call("cancel", json!({"change": change})).await;
                }
                "awaiting_merge" => self.merge(change).await?,
                "healthy" | "failed" | "timed_out" | "superseded" | "rejected" | "expired" | "cancelled" | "stale"
                | "undelivered" | "abandoned" => {
                    let seen = seen?;
                    d.stuck.push(format!(
                        "{change} ended {state} instead of {end}: {}",
                        seen.get("story").cloned().unwrap_or_default()
                    ));
                    return Ok(seen);
                }
                _ => {}
            }
            let waits = matches!(state.as_str(), "observing" | "awaiting_approval" | "awaiting_merge");
            if self.over(if waits { ENGINE } else { PATIENCE }) {
                d.stuck.push(format!(
                    "{change} is still {state}: {}",
                    seen.map_or_else(|e| e.to_string(), |s| s.get("story").cloned().unwrap_or_default().to_string())
                ));
                return Ok(Value::Null);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn merge(&self, change: &str) -> Result<()> {
        let pulls = self.controls.call("forge", &format!("pulls?repo={REPO}"), None).await?;
        let ours = pulls
            .as_array()
            .and_then(|p| p.iter().find(|p| text(p, "head").contains(change) && text(p, "state") == "open"));
        if let Some(number) = ours.and_then(|p| p.get("number")) {
            self.controls.call("forge", "merge", Some(json!({"repo": REPO, "number": number, "as": "anna"}))).await?;
        }
        Ok(())
    }

    /// The revert is asked for with the button, and approved as any other change.
    async fn revert(&mut self, change: &str, d: &mut Driven) -> Result<()> {
        if !self.press(&d.name.clone(), "Prepare revert", d).await? {
            return Ok(());
        }
        loop {
            if let Ok(seen) = self.agent.call("change", json!({"change": change})).await
                && seen.pointer("/next/tool").and_then(Value::as_str) == Some("change")
            {
                d.revert = seen.pointer("/next/args/change").and_then(Value::as_str).unwrap_or_default().to_owned();
                break;
            }
            if self.over(PATIENCE) {
                d.stuck.push(format!("no revert of {change} was prepared"));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let id = d.revert.clone();
        let mut name = String::new();
        while name.is_empty() {
            name = self
                .agent
                .call("change", json!({"change": id}))
                .await
                .map(|s| text(&s, "name").to_owned())
                .unwrap_or_default();
        }
        if self.press(&name, "Approve", d).await? {
            self.until(&id, "healthy", Act::Approve, d).await?;
        }
        Ok(())
    }
}
