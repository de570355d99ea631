//! Whether a condition can ever hold, tried on changes made of the words and numbers that stand in
//! it. What is found to hold, can; what is not, is worth a look by whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::condition::{Condition, Holds};
use super::facts::{Facts, Target};
use super::matching::views;
use super::rule::Rule;
use super::values::Values;
use crate::model::{Operation, RiskLevel};

/// Sample changes that are tried.
pub(super) const TRIES: u32 = 20_000;

/// What trying showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// It holds for some.
    Holds,
    /// It holds for all, because it looks at nothing.
    Always,
    /// It holds for none.
    Never,
    /// It could be evaluated for none.
    NeverClear,
}

pub(super) fn try_out(rule: &Rule, when: &Condition) -> Tried {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let pool = Pool::of(rule, when);
    let tries = if when.uses().constant() { 1 } else { TRIES };
    let mut clear = false;
    for _ in 0..tries {
        let facts = pool.facts(&mut dice);
        match views(&facts).first().map(|v| v.condition(when)) {
            Some(Holds::Yes) if tries == 1 => return Tried::Always,
            Some(Holds::Yes) => return Tried::Holds,
            Some(Holds::No) => clear = true,
            Some(Holds::Unclear(_)) | None => {}
        }
    }
    if clear { Tried::Never } else { Tried::NeverClear }
}

/// A small generator: the same samples each time.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0).checked_rem(n).unwrap_or(0)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.up_to(of.len()))
    }
}

/// What samples are made of.
struct Pool<'a> {
    rule: &'a Rule,
    when: &'a Condition,
    texts: Vec<String>,
    numbers: Vec<i64>,
    moments: Vec<i64>,
}

impl<'a> Pool<'a> {
    fn of(rule: &'a Rule, when: &'a Condition) -> Self {
        let uses = when.uses();
        let mut texts: BTreeSet<String> = uses.texts.clone();
        texts.insert("sample".into());
        let mut numbers: BTreeSet<i64> = [0, 1, 3].into();
        for n in &uses.numbers {
            numbers.extend([n.saturating_sub(1), *n, n.saturating_add(1)]);
        }
        let hour = 3_600_000;
        let mut moments: Vec<i64> = (0..168).map(|h| 1_767_571_200_000 + h * hour).collect();
        for t in uses.texts.iter().filter_map(|t| super::file::moment(t).ok()) {
            moments.extend([t - hour, t, t + hour]);
        }
        Self { rule, when, texts: texts.into_iter().collect(), numbers: numbers.into_iter().collect(), moments }
    }

    fn text(&self, dice: &mut Dice) -> Value {
        dice.one(&self.texts).cloned().unwrap_or_default().into()
    }

    fn number(&self, dice: &mut Dice) -> i64 {
        dice.one(&self.numbers).copied().unwrap_or(0)
    }

    fn count(&self, dice: &mut Dice) -> u32 {
        u32::try_from(self.number(dice)).unwrap_or(1)
    }

    /// A name that the rule takes, as written; another where it takes any.
    fn name(&self, list: &Option<Vec<String>>, dice: &mut Dice) -> String {
        let plain: Vec<&String> = list.iter().flatten().filter(|n| !n.contains('*')).collect();
        match dice.one(&plain) {
            Some(name) if list.is_some() => (*name).clone(),
            _ => dice.one(&self.texts).cloned().unwrap_or_default(),
        }
    }

    fn labels(&self, dice: &mut Dice) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let keys: Vec<&String> = match &self.when.uses().labels {
            super::bounds::LabelUse::Keys(keys) => keys.iter().collect(),
            super::bounds::LabelUse::All => self.texts.iter().collect(),
        };
        for key in keys {
            if let Some(value) = dice.one(&self.texts) {
                out.insert(key.clone(), value.clone());
            }
        }
        for (key, values) in &self.rule.matches.labels {
            if let Some(value) = dice.one(values) {
                out.insert(key.clone(), value.clone());
            }
        }
        out
    }

    fn image(&self, dice: &mut Dice) -> Map<String, Value> {
        ["image", "registry", "repository", "tag", "digest"]
            .iter()
            .map(|k| ((*k).to_owned(), self.text(dice)))
            .collect()
    }

    fn side(&self, dice: &mut Dice) -> Map<String, Value> {
        let mut out = self.image(dice);
        let text = self.text(dice);
        let key = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let mut put = |k: &str, v: Value| out.insert(k.to_owned(), v);
        put("name", text.clone());
        put("replicas", self.number(dice).into());
        put("containers", json!([text.clone()]));
        put("container", text.clone());
        put("images", json!({ key(&text): self.image(dice) }));
        put("labels", json!(self.labels(dice)));
        for map in ["annotations", "env"] {
            let all: Map<String, Value> = self.texts.iter().map(|k| (k.clone(), self.text(dice))).collect();
            put(map, all.into());
        }
        // Those that are written in it, one that is less than any of them and one that is more.
        let written = self.texts.iter().filter(|t| crate::model::quantity(t).is_some()).map(String::as_str);
        let amounts: Vec<&str> = written.chain(["1n", "1Ei"]).collect();
        let amount = |dice: &mut Dice| dice.one(&amounts).copied().unwrap_or("1");
        let mut pair = || json!({"cpu": amount(dice), "memory": amount(dice)});
        put("resources", json!({"requests": pair(), "limits": pair()}));
        put("pointer", self.text(dice));
        let value = match dice.up_to(3) {
            0 => self.text(dice),
            1 => self.number(dice).into(),
            _ => (dice.up_to(2) == 0).into(),
        };
        put("value", value);
        out
    }

    fn facts(&self, dice: &mut Dice) -> Facts {
        let m = &self.rule.matches;
        let operations: Vec<String> =
            m.operation.clone().unwrap_or_else(|| Operation::NAMES.iter().map(|n| (*n).to_owned()).collect());
        let operation = dice.one(&operations).cloned().unwrap_or_default();
        let before = self.side(dice);
        let after = if dice.up_to(4) == 0 { before.clone() } else { self.side(dice) };
        let own = self.labels(dice);
        let all = [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Critical];
        let risks = m.risk.as_deref().unwrap_or(&all);
        Facts {
            targets: vec![Target {
                values: Some(Values {
                    before: (operation != "create").then_some(before),
                    after: (operation != "delete").then_some(after),
                }),
                operation,
                namespace: self.name(&m.namespace, dice),
                kind: self.name(&m.kind, dice),
                labels_before: Some(own.clone()),
                labels_after: Some(own),
            }],
            cluster: self.name(&m.cluster, dice),
            cluster_labels: BTreeMap::new(),
            repository: self.name(&m.repository, dice),
            repository_labels: BTreeMap::new(),
            agent: self.name(&m.agent, dice),
            sponsor: String::new(),
            risk: dice.one(risks).copied().unwrap_or(RiskLevel::Low),
            files: self.count(dice),
            lines: self.count(dice),
            objects: self.count(dice),
            privileged: None,
            now: dice.one(&self.moments).copied().unwrap_or(0),
            counts: BTreeMap::new(),
        }
    }
}
