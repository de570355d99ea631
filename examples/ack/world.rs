//! What stands around the product: people and their chats, agents, policies, the remote, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use countersign::pipeline::handle::HandleKey;
use countersign::pipeline::press::Desk;
use countersign_core::change::{Change, Limits};
use countersign_core::message::{CardFacts, FileFact, Seats};
use countersign_core::model::{
    ChangeId, Decided, Engine, Level, Named, ObjectKey, OwnerRef, PersonSpec, RiskLevel, short_name,
};
use countersign_core::policy::{Decision, Facts, PolicySet, Target, Values, decide};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::book::Book;
use crate::controls::Control;
use crate::remote::Remote;

/// When every world begins, milliseconds.
pub const T0: i64 = 1_900_000_000_000;

/// The policy of calm days, of stricter ones, and of those on which production is closed.
const POLICIES: [&str; 3] = [
    r"
version: 1
default: {level: deny}
rules:
- id: prod
  match: {labels: {env: prod}, operation: scale}
  level: prompted
  approve: {from: [sre], count: 1, expires: 30m, remind: 10m}
- id: pay
  match: {labels: {env: prod}, namespace: pay, operation: scale}
  level: prompted
  approve: {from: [sre], count: 2}
- id: web
  match: {labels: {env: prod}, namespace: web, operation: scale}
  level: prompted
  approve: {from: [sre], count: 1}
  deliver: merge_after_approval
- id: staging
  match: {labels: {env: staging}, operation: scale}
  when: change.after.replicas <= 10
  level: standard
",
    r"
version: 1
default: {level: deny}
rules:
- id: prod
  match: {labels: {env: prod}, operation: scale}
  level: prompted
  approve: {from: [sre], count: 2, expires: 10m, confirm: number}
",
    r"
version: 1
default: {level: deny}
rules:
- id: staging
  match: {labels: {env: staging}, operation: scale}
  when: change.after.replicas <= 10
  level: standard
",
];

/// Who presses: name, number at Telegram, groups. Sue answers for every agent; Tom decides nothing.
const PEOPLE: [(&str, i64, &[&str]); 5] =
    [("ann", 11, &["sre"]), ("bob", 12, &["sre"]), ("cyd", 13, &["sre"]), ("sue", 14, &["sre"]), ("tom", 15, &[])];
/// Not on the list.
pub const STRANGER: i64 = 666;
/// Every account that presses.
pub const ACCOUNTS: [i64; 6] = [11, 12, 13, 14, 15, STRANGER];
pub const AGENTS: [&str; 3] = ["claude", "codex", "gemini"];

/// The limits that `next` works with here.
pub const LIMITS: Limits = Limits {
    observe_ms: 15 * 60_000,
    failed_grace_ms: 20_000,
    deliver_ms: 10 * 60_000,
    manual_ms: 7 * 24 * 3_600_000,
    poll_ms: 15_000,
    held_ms: 0,
};

/// A message in a chat.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: i64,
    pub chat: i64,
    pub change: ChangeId,
    /// As it was sent.
    pub first: String,
    /// As it is now.
    pub text: String,
    /// Label and handle.
    pub buttons: Vec<(String, String)>,
    /// Handles that it had before.
    pub old: Vec<String>,
}

/// One world.
pub struct World {
    pub rng: StdRng,
    pub now: i64,
    pub off: Option<Control>,
    pub book: Book,
    pub remote: Remote,
    pub handles: HandleKey,
    calm: PolicySet,
    strict: PolicySet,
    closed: PolicySet,
    /// Which of them holds.
    pub policy: usize,
    pub people: Vec<Named<PersonSpec>>,
    /// Who answers for the agents; `None` = they are no longer in the configuration.
    pub sponsor: Option<&'static str>,
    /// Another Application took the objects over.
    pub moved: bool,
    pub full: bool,
    pub messages: BTreeMap<i64, Message>,
    /// What a person's last press was, to press again.
    pub pressed: Vec<(i64, i64, String)>,
    /// Changes that have nothing left to do.
    pub over: BTreeSet<ChangeId>,
    pub proposed: usize,
    /// What people said no to, or let expire: object and value.
    pub refused: Vec<(usize, u32)>,
    pub updates: i64,
    /// What happened, counted.
    pub seen: BTreeMap<String, u64>,
}

/// Place of an object: cluster, namespace, name.
pub fn place(object: usize) -> (&'static str, &'static str, String) {
    match object {
        0..=4 => ("prod", "shop", format!("app{object}")),
        5..=7 => ("prod", "pay", format!("app{object}")),
        8..=10 => ("prod", "web", format!("app{object}")),
        _ => ("staging", "shop", format!("app{object}")),
    }
}

/// How many objects there are.
pub const OBJECTS: usize = 15;

pub fn path(object: usize) -> String {
    let (cluster, namespace, name) = place(object);
    format!("{cluster}/{namespace}/{name}.yaml")
}

pub fn text(replicas: u32) -> String {
    format!("spec:\n  replicas: {replicas}\n")
}

/// The replicas in a file.
pub fn replicas(text: &str) -> Option<u32> {
    text.trim_end().rsplit_once("replicas: ")?.1.parse().ok()
}

pub fn key(object: usize) -> ObjectKey {
    let (_, namespace, name) = place(object);
    ObjectKey::new("apps", "Deployment", namespace, &name)
}

pub fn people() -> Vec<Named<PersonSpec>> {
    let person = |(name, telegram, groups): (&str, i64, &[&str])| Named {
        name: name.to_owned(),
        spec: PersonSpec {
            telegram: Some(telegram),
            forge: None,
            ssh_keys: Vec::new(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        },
    };
    PEOPLE.into_iter().map(person).collect()
}

impl World {
    pub async fn new(path_of_journal: &Path, seed: u64, off: Option<Control>) -> anyhow::Result<Self> {
        let [calm, strict, closed] = POLICIES.map(|text| PolicySet::parse(&[("policy.yaml", text)]));
        let (calm, strict, closed) = (calm?, strict?, closed?);
        let mut rng = StdRng::seed_from_u64(seed);
        let files = (0..OBJECTS).map(|o| (path(o), text(rng.random_range(1..=9)))).collect();
        Ok(Self {
            now: T0,
            off,
            book: Book::open(path_of_journal, off == Some(Control::Journal)).await?,
            remote: Remote::new(files),
            handles: HandleKey::new(rng.random()),
            calm,
            strict,
            closed,
            policy: 0,
            people: people(),
            sponsor: Some("sue"),
            moved: false,
            full: false,
            messages: BTreeMap::new(),
            pressed: Vec::new(),
            over: BTreeSet::new(),
            proposed: 0,
            refused: Vec::new(),
            updates: 0,
            seen: BTreeMap::new(),
            rng,
        })
    }

    /// Whether this control is gone around.
    pub fn without(&self, control: Control) -> bool {
        self.off == Some(control)
    }

    pub fn saw(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    /// Counts a refusal of the product by its code, and for the gate by its first words.
    pub fn refused_by(&mut self, at: &str, problem: &countersign_core::Problem) {
        let words: Vec<&str> = problem.message.split(' ').take(5).collect();
        let words =
            if problem.code.starts_with("gate.") { format!(" ({}…)", words.join(" ")) } else { String::new() };
        self.saw(format!("{at}: {}{words}", problem.code));
    }

    pub fn chance(&mut self, percent: f64) -> bool {
        self.rng.random_bool(percent / 100.0)
    }

    /// The time that the product is told about this change.
    pub fn clock(&self, c: &Change) -> i64 {
        let undecided = c.landed.is_none() && c.end.is_none();
        if self.without(Control::Expiry) && undecided { self.now.min(c.sealed.expires_at * 1000 - 1) } else { self.now }
    }

    pub fn accounts(&self) -> BTreeMap<i64, String> {
        self.people.iter().filter_map(|p| Some((p.spec.telegram?, p.name.clone()))).collect()
    }

    pub fn desk<'a>(&'a self, people: &'a BTreeMap<i64, String>, now: i64) -> Desk<'a> {
        Desk { handles: &self.handles, people, number_from: RiskLevel::High, resume_needed: 2, now }
    }

    pub fn owner(&self) -> OwnerRef {
        OwnerRef::new(Engine::Argocd, "Application", "argocd", if self.moved { "other" } else { "shop" })
    }

    /// The policy of this moment.
    pub fn rules(&self) -> &PolicySet {
        match self.policy {
            1 => &self.strict,
            2 => &self.closed,
            _ => &self.calm,
        }
    }

    /// The policy of this moment on a scaling of an object.
    pub fn decide(&self, object: usize, agent: &str, before: u32, after: u32) -> (Facts, Decision) {
        let (cluster, namespace, _) = place(object);
        let labels: BTreeMap<String, String> = [("env".to_owned(), cluster.to_owned())].into();
        let side = |n: u32| -> Map<String, Value> { [("replicas".to_owned(), json!(n))].into_iter().collect() };
        let facts = Facts {
            targets: vec![Target {
                operation: "scale".into(),
                namespace: namespace.into(),
                kind: "Deployment".into(),
                labels_before: Some(labels.clone()),
                labels_after: Some(labels.clone()),
                values: Some(Values { before: Some(side(before)), after: Some(side(after)) }),
            }],
            cluster: cluster.into(),
            cluster_labels: labels,
            repository: "deploy".into(),
            repository_labels: BTreeMap::new(),
            agent: agent.into(),
            sponsor: "sue".into(),
            risk: risk(object),
            files: 1,
            lines: 2,
            objects: 1,
            privileged: None,
            now: self.now,
            counts: BTreeMap::new(),
        };
        let decision = decide(self.rules(), &self.people, &facts);
        (facts, self.perhaps_standard(decision))
    }

    /// [`Control::Policy`] off: whatever the policy says, nobody is asked.
    fn perhaps_standard(&self, mut decision: Decision) -> Decision {
        if self.without(Control::Policy) {
            decision.decided.level = Level::Standard;
            decision.problem = None;
        }
        decision
    }

    /// The facts of a change's card, as the pipeline gathers them.
    pub fn card_facts(&self, c: &Change, viewer: &str) -> CardFacts {
        let p = &c.proposal;
        let mut facts = card_of(&c.id, p, &c.decided, c.sealed.expires_at);
        facts.digest = Some(c.digest.short());
        facts.viewer = Some(viewer.to_owned());
        facts.approved_by = c.approvals().map(|v| v.person.clone()).collect();
        facts.seats = Seats::of(&c.decided, &facts.approved_by);
        facts
    }
}

/// How dangerous scaling an object counts: every other one takes the number on the card.
pub fn risk(object: usize) -> RiskLevel {
    if object.is_multiple_of(2) { RiskLevel::High } else { RiskLevel::Medium }
}

pub fn card_of(id: &ChangeId, p: &countersign_core::model::Proposal, decided: &Decided, expires_at: i64) -> CardFacts {
    let file = |f: &countersign_core::model::FileNote| FileFact {
        path: f.path.clone(),
        line: f.line,
        added: f.added,
        removed: f.removed,
    };
    CardFacts {
        name: short_name(id),
        cluster: p.cluster.clone(),
        risk: p.risk.clone(),
        expires_at,
        fields: p.fields.clone(),
        now: None,
        last_healthy: None,
        owner: p.owner.clone(),
        state: p.state.clone(),
        also_feeds: Vec::new(),
        repository: p.repository.clone(),
        branch: "main".into(),
        files: p.files.iter().map(file).collect(),
        diff: p.diff.clone(),
        delivery: decided.delivery,
        pull_request: None,
        approvers: decided.approvers.clone(),
        later: decided.obligations.escalate.clone(),
        approved_by: Vec::new(),
        number: None,
        viewer: None,
        needed: decided.quorum.count,
        seats: Seats::of(decided, &[]),
        allow_sponsor: decided.quorum.allow_sponsor,
        requester: p.requester.agent.clone(),
        sponsor: p.requester.sponsor.clone(),
        rules: decided.rules.clone(),
        digest: None,
        reverts: None,
        notes: Vec::new(),
        reason: p.reason.clone(),
    }
}
