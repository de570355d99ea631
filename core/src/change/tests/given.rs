//! A change and its histories, for the tests of the state machine and of the gate.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::change::{Change, fold};
use crate::error::{Problem, Result};
use crate::model::{
    Body, ChangeId, Code, Decided, Delivery, DeliveryState, Digest, Effect, EffectLine, Ending, Engine, Escalation,
    Event, Level, Obligations, OwnerRef, Principal, Proposal, Quorum, Risk, RiskLevel, Sealed, SealedFile, Source,
    Verdict, digest_of,
};

pub const T0: i64 = 1_900_000_000_000;
pub const EXPIRES: i64 = T0 + 3_600_000;
pub const BEFORE: &str = "1111111111111111111111111111111111111111";
pub const AFTER: &str = "2222222222222222222222222222222222222222";
pub const PATH: &str = "apps/checkout/deploy.yaml";

pub fn id() -> ChangeId {
    ChangeId::from_parts(1_900_000_000_000, 0x7f3a)
}

pub fn owner() -> OwnerRef {
    OwnerRef::new(Engine::Argocd, "Application", "argocd", "shop")
}

/// What of a change a test varies.
#[derive(Debug, Clone)]
pub struct Given {
    pub level: Level,
    pub delivery: Delivery,
    pub count: u32,
    pub allow_sponsor: bool,
    /// Who answers for which groups; none = groups do not matter.
    pub answers: BTreeMap<String, Vec<String>>,
    pub approvers: Vec<String>,
    pub tell: Vec<String>,
    pub reverts: Option<ChangeId>,
    pub obligations: Obligations,
}

pub fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

impl Given {
    pub fn new(level: Level, delivery: Delivery) -> Self {
        Self {
            level,
            delivery,
            count: 1,
            allow_sponsor: false,
            answers: BTreeMap::new(),
            approvers: names(&["ann", "bob"]),
            tell: names(&["tom"]),
            reverts: None,
            obligations: Obligations::default(),
        }
    }

    pub fn prompted() -> Self {
        Self::new(Level::Prompted, Delivery::Direct)
    }

    pub fn quorum(&self) -> Quorum {
        Quorum {
            count: self.count,
            groups: if self.answers.is_empty() { names(&["sre"]) } else { names(&["rel", "sre"]) },
            allow_sponsor: self.allow_sponsor,
            different_groups: !self.answers.is_empty(),
        }
    }

    pub fn decided(&self) -> Decided {
        Decided {
            level: self.level,
            delivery: self.delivery,
            quorum: self.quorum(),
            approvers: self.approvers.clone(),
            tell: self.tell.clone(),
            rules: names(&["prod"]),
            policy_version: "p1".into(),
            expires_s: 3600,
            reapprove_on_move: false,
            obligations: self.obligations.clone(),
            freezes: Vec::new(),
            answers: self.answers.clone(),
        }
    }

    pub fn sealed(&self) -> Sealed {
        Sealed {
            schema: 1,
            change: id(),
            revision: 1,
            repository: "shop".into(),
            git_ref: "refs/heads/main".into(),
            files: vec![SealedFile {
                path: PATH.into(),
                mode: "100644".into(),
                before: Some(BEFORE.into()),
                after: Some(AFTER.into()),
            }],
            effect: vec![EffectLine {
                object: "Deployment shop/checkout".into(),
                pointer: "/spec/replicas".into(),
                before: Some("2".into()),
                after: Some("3".into()),
            }],
            message: "checkout: 2 → 3".into(),
            policy_version: "p1".into(),
            rules: names(&["prod"]),
            delivery: self.delivery,
            risk: risk(),
            requester: "claude".into(),
            sponsor: "sue".into(),
            quorum: self.quorum(),
            expires_at: EXPIRES / 1000,
            nonce: "00112233445566778899aabbccddeeff".into(),
            commit_message: "checkout: scale to 3".into(),
        }
    }

    pub fn proposal(&self) -> Proposal {
        Proposal {
            requester: Principal { agent: "claude".into(), sponsor: "sue".into() },
            key: None,
            content_key: "k".into(),
            reason: "load".into(),
            edits: Vec::new(),
            cluster: "prod".into(),
            owner: owner(),
            source: Source {
                url: "https://git.example/shop.git".into(),
                target_revision: "main".into(),
                path: "apps/checkout".into(),
                kind: None,
                index: 0,
                deployed: None,
                recurse: false,
                overrides: Vec::new(),
            },
            repository: "shop".into(),
            git_ref: "refs/heads/main".into(),
            base: "b0".into(),
            fields: Vec::new(),
            want: Vec::new(),
            state: DeliveryState::default(),
            risk: risk(),
            diff: String::new(),
            reverts: self.reverts,
            health: None,
            last_healthy: None,
            files: Vec::new(),
            notes: Vec::new(),
            targets: json!([]),
            objects: 1,
            privileged: None,
            facts: serde_json::Value::Null,
        }
    }

    pub fn proposed(&self) -> Body {
        let sealed = String::from_utf8(self.sealed().canonical().unwrap()).unwrap();
        let digest = digest_of(sealed.as_bytes());
        Body::Proposed { proposal: Box::new(self.proposal()), decided: Box::new(self.decided()), sealed, digest }
    }

    pub fn story(&self) -> Story {
        let change = fold(None, &event(1, T0, self.proposed())).unwrap();
        Story { c: change, at: T0 }
    }
}

fn risk() -> Risk {
    Risk { level: RiskLevel::High, reasons: names(&["prod"]) }
}

pub fn event(n: u64, at: i64, body: Body) -> Event {
    Event {
        v: 1,
        seq: n,
        prev: String::new(),
        hash: String::new(),
        id: String::new(),
        change: Some(id()),
        n,
        at,
        actor: "countersign".into(),
        body,
    }
}

/// A change that goes on, one event after the other.
#[derive(Debug, Clone)]
pub struct Story {
    pub c: Change,
    pub at: i64,
}

impl Story {
    /// One event more, where it is legal.
    pub fn attempt(&self, body: Body) -> Result<Change> {
        fold(Some(self.c.clone()), &event(self.c.n + 1, self.at, body))
    }

    #[must_use]
    pub fn then(mut self, body: Body) -> Self {
        self.c = self.attempt(body).unwrap();
        self
    }

    #[must_use]
    pub fn at(mut self, at: i64) -> Self {
        self.at = at;
        self
    }

    #[must_use]
    pub fn yes(self, person: &str) -> Self {
        let vote = vote(&self.c.digest, person, true);
        self.then(vote)
    }

    #[must_use]
    pub fn no(self, person: &str) -> Self {
        let vote = vote(&self.c.digest, person, false);
        self.then(vote)
    }

    #[must_use]
    pub fn authorized(self) -> Self {
        let body = authorized(&self.c);
        self.then(body)
    }

    #[must_use]
    pub fn done(self, e: Effect, result: Value) -> Self {
        self.then(intent(&e)).then(Body::Done { effect: e, result })
    }

    #[must_use]
    pub fn failed(self, e: Effect, last: bool) -> Self {
        self.then(intent(&e)).then(failed(&e, last))
    }

    /// With a problem that passes by itself.
    #[must_use]
    pub fn failed_for_now(self, e: Effect) -> Self {
        let problem = Problem::new("test.away", "It is away.", "Wait.").later();
        self.then(intent(&e)).then(Body::Failed { effect: e, problem, last: false })
    }

    #[must_use]
    pub fn landed(self) -> Self {
        self.then(landed())
    }

    #[must_use]
    pub fn seen(self, verdict: Verdict) -> Self {
        self.then(observed(verdict))
    }

    #[must_use]
    pub fn coded(self, verdict: Verdict, code: Code) -> Self {
        self.then(Body::Observed { verdict, code, say: "so".into() })
    }

    #[must_use]
    pub fn closed(self, ending: Ending) -> Self {
        self.then(closed(ending))
    }

    /// Pushed straight to the branch, and landed.
    #[must_use]
    pub fn pushed(self) -> Self {
        self.done(Effect::PushTarget, json!({"commit": "c1"})).landed()
    }
}

pub fn ask(person: &str) -> Effect {
    Effect::Ask { person: person.into() }
}

pub fn notify(person: &str, about: &str) -> Effect {
    Effect::Notify { person: person.into(), about: about.into() }
}

pub fn settle(person: &str, phase: &str) -> Effect {
    Effect::SettleCard { person: person.into(), phase: phase.into() }
}

pub fn intent(e: &Effect) -> Body {
    Body::Intent { effect: e.clone(), facts: json!({}) }
}

pub fn failed(e: &Effect, last: bool) -> Body {
    Body::Failed { effect: e.clone(), problem: Problem::new("test.failed", "It broke.", "Wait."), last }
}

pub fn vote(digest: &Digest, person: &str, approve: bool) -> Body {
    Body::Voted {
        person: person.into(),
        channel: "telegram".into(),
        approve,
        reason: None,
        digest: digest.clone(),
        proof: None,
    }
}

/// An authorization by everyone who said yes.
pub fn authorized(c: &Change) -> Body {
    let by = c.approvals().map(|v| v.person.clone()).collect();
    Body::Authorized { digest: c.digest.clone(), by, policy_version: "p1".into() }
}

pub fn landed() -> Body {
    Body::Landed { commit: "c1".into(), via: "push".into() }
}

pub fn observed(verdict: Verdict) -> Body {
    Body::Observed { verdict, code: Code::Progressing, say: "so".into() }
}

pub fn closed(ending: Ending) -> Body {
    Body::Closed { ending, say: "so".into() }
}

/// A person who is asked ten minutes after the others.
pub fn later(person: &str) -> Escalation {
    Escalation { after_s: 600, groups: names(&["lead"]), people: names(&[person]) }
}
