//! The YAML form of a policy, and its way to [`Rule`]s. Unknown keys are refused, never ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::rule::{Approve, Caps, Match, OnBaseMove, Rule};
use crate::error::{Problem, Result};
use crate::model::{Delivery, Level, Operation, RiskLevel};

const MAX_BYTES: usize = 1 << 20;
const MAX_EXPIRY_S: u32 = 24 * 3600;

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(v) => vec![v],
            Self::Many(v) => v,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: u32,
    #[serde(default)]
    default: Option<RawDefault>,
    #[serde(default)]
    rules: Vec<RawRule>,
    #[serde(default)]
    tests: Vec<TestCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefault {
    level: Level,
    #[serde(default)]
    approve: Option<RawApprove>,
    #[serde(default)]
    deliver: Option<Delivery>,
    #[serde(default)]
    caps: RawCaps,
    #[serde(default)]
    tell: Vec<String>,
    #[serde(default)]
    on_base_move: Option<RawBaseMove>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: String,
    #[serde(rename = "match")]
    matches: RawMatch,
    #[serde(default)]
    when: Option<String>,
    level: Level,
    #[serde(default)]
    approve: Option<RawApprove>,
    #[serde(default)]
    deliver: Option<Delivery>,
    #[serde(default)]
    caps: RawCaps,
    #[serde(default)]
    tell: Vec<String>,
    #[serde(default)]
    on_base_move: Option<RawBaseMove>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMatch {
    labels: BTreeMap<String, OneOrMany<String>>,
    operation: Option<OneOrMany<String>>,
    cluster: Option<OneOrMany<String>>,
    namespace: Option<OneOrMany<String>>,
    kind: Option<OneOrMany<String>>,
    agent: Option<OneOrMany<String>>,
    repository: Option<OneOrMany<String>>,
    risk: Option<OneOrMany<RiskLevel>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApprove {
    from: Vec<String>,
    #[serde(default = "one")]
    count: u32,
    #[serde(default)]
    expires: Option<String>,
    #[serde(default)]
    remind: Option<String>,
    #[serde(default)]
    allow_sponsor: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawCaps {
    files: Option<u32>,
    lines: Option<u32>,
    objects: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawBaseMove {
    Continue,
    Reapprove,
}

/// One test of a policy file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestCase {
    /// Name; absent = its number.
    #[serde(default)]
    pub name: Option<String>,
    pub given: Given,
    pub expect: Expect,
    /// File that it is in.
    #[serde(skip)]
    pub file: String,
}

/// A change in short form; what is left out has a harmless value.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Given {
    pub operation: Option<OneOrMany<String>>,
    pub labels: BTreeMap<String, String>,
    /// Labels after the edit, where it changes them.
    pub labels_after: Option<BTreeMap<String, String>>,
    pub cluster: Option<String>,
    pub cluster_labels: BTreeMap<String, String>,
    pub repository: Option<String>,
    pub repository_labels: BTreeMap<String, String>,
    pub namespace: Option<String>,
    pub kind: Option<String>,
    pub agent: Option<String>,
    pub risk: Option<RiskLevel>,
    pub files: Option<u32>,
    pub lines: Option<u32>,
    pub objects: Option<u32>,
    pub privileged: Option<String>,
}

/// What a test expects; only what is named is compared.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub level: Level,
    #[serde(default)]
    pub rule: Option<OneOrMany<String>>,
    #[serde(default)]
    pub deliver: Option<Delivery>,
    #[serde(default)]
    pub count: Option<u32>,
    #[serde(default)]
    pub from: Option<Vec<String>>,
    #[serde(default)]
    pub expires: Option<String>,
}

fn one() -> u32 {
    1
}

pub(super) struct Parsed {
    pub rules: Vec<Rule>,
    pub default: Option<Rule>,
    pub tests: Vec<TestCase>,
}

pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Parsed> {
    if bytes.len() > MAX_BYTES {
        return Err(Problem::new(
            "policy.too_large",
            format!("{name} is larger than 1 MiB."),
            "Split it into several files.",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Problem::new(
            "policy.encoding",
            format!("{name} is not UTF-8 from byte {} on.", e.valid_up_to()),
            "Save it as UTF-8.",
        )
    })?;
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|e| syntax(name, &e))?;
    if raw.version != 1 {
        return Err(Problem::new(
            "policy.version",
            format!("{name} says version {}; this program reads version 1.", raw.version),
            "Write `version: 1`, or use a newer Countersign.",
        ));
    }
    let mut tests = raw.tests;
    for (i, t) in tests.iter_mut().enumerate() {
        name.clone_into(&mut t.file);
        if let Some(expires) = &t.expect.expires {
            seconds(expires).map_err(|m| invalid(name, &format!("test {}", i + 1), &m))?;
        }
        for op in t.given.operation.clone().map(OneOrMany::into_vec).unwrap_or_default() {
            known_operation(&op).map_err(|m| invalid(name, &format!("test {}", i + 1), &m))?;
        }
    }
    Ok(Parsed {
        rules: raw.rules.into_iter().map(|r| rule(name, r)).collect::<Result<_>>()?,
        default: raw.default.map(|d| default(name, d)).transpose()?,
        tests,
    })
}

fn syntax(name: &str, e: &serde_saphyr::Error) -> Problem {
    let e = e.without_snippet();
    let at = e.location().filter(|l| l.line() > 0).map_or_else(String::new, |l| format!(":{}", l.line()));
    // The reader's message repeats its own position in several forms; the first line says what is wrong.
    let what: String = e.to_string().lines().next().unwrap_or_default().chars().take(200).collect();
    Problem::new(
        "policy.syntax",
        format!("{name}{at} is not a policy: {what}."),
        "Correct it; docs/policy.md has every key. The last good policy stays in force.",
    )
}

fn invalid(file: &str, place: &str, what: &str) -> Problem {
    Problem::new("policy.invalid", format!("{file}, {place}: {what}."), "Correct it; docs/policy.md has every key.")
}

fn default(file: &str, d: RawDefault) -> Result<Rule> {
    build(
        file,
        RawRule {
            id: super::rule::DEFAULT.to_owned(),
            matches: RawMatch::default(),
            when: None,
            level: d.level,
            approve: d.approve,
            deliver: d.deliver,
            caps: d.caps,
            tell: d.tell,
            on_base_move: d.on_base_move,
        },
    )
}

fn rule(file: &str, r: RawRule) -> Result<Rule> {
    let id_ok = (1..=64).contains(&r.id.len())
        && r.id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !id_ok || r.id == super::rule::DEFAULT {
        return Err(invalid(
            file,
            "a rule",
            "an id has 1 to 64 letters, digits, '-', '_' or '.', and is not \"default\"",
        ));
    }
    if r.when.is_some() {
        // Ignoring a condition would widen the rule: it must stop the whole file.
        return Err(Problem::new(
            "policy.when_unsupported",
            format!("{file}, rule \"{}\": conditions in `when` are not evaluated by this version.", r.id),
            "Remove the rule or express it with `match` and `caps`; a rule is never applied without its condition.",
        ));
    }
    build(file, r)
}

fn build(file: &str, r: RawRule) -> Result<Rule> {
    let place = if r.id == super::rule::DEFAULT { "default".to_owned() } else { format!("rule \"{}\"", r.id) };
    let fail = |m: String| invalid(file, &place, &m);
    let matches = matcher(r.matches).map_err(fail)?;
    let approve = r.approve.map(approve).transpose().map_err(fail)?;
    match (r.level, &approve) {
        (Level::Prompted, None) => return Err(fail("level prompted needs `approve`".into())),
        (Level::Standard | Level::Manual | Level::Deny, Some(_)) => {
            return Err(fail("`approve` only goes with level prompted".into()));
        }
        _ => {}
    }
    if r.deliver == Some(Delivery::PullRequest) && r.level == Level::Standard {
        return Err(fail(
            "with pull_request the merge is the approval, so it needs level prompted and `approve`".into(),
        ));
    }
    names(&r.tell).map_err(fail)?;
    Ok(Rule {
        id: r.id,
        file: file.to_owned(),
        matches,
        level: r.level,
        approve,
        deliver: r.deliver,
        caps: Caps { files: r.caps.files, lines: r.caps.lines, objects: r.caps.objects },
        tell: r.tell,
        on_base_move: match r.on_base_move {
            Some(RawBaseMove::Reapprove) => OnBaseMove::Reapprove,
            Some(RawBaseMove::Continue) | None => OnBaseMove::Continue,
        },
    })
}

fn matcher(m: RawMatch) -> Result<Match, String> {
    let list = |what: &str, v: Option<OneOrMany<String>>| -> Result<Option<Vec<String>>, String> {
        let Some(v) = v.map(OneOrMany::into_vec) else { return Ok(None) };
        if v.is_empty() || v.iter().any(String::is_empty) {
            return Err(format!("`{what}` is empty, so the rule would never match"));
        }
        Ok(Some(v))
    };
    let operation = list("operation", m.operation)?;
    for op in operation.iter().flatten() {
        known_operation(op)?;
    }
    let mut labels = BTreeMap::new();
    for (k, v) in m.labels {
        let v = list(&format!("labels.{k}"), Some(v))?.unwrap_or_default();
        labels.insert(k, v);
    }
    let risk = m.risk.map(OneOrMany::into_vec);
    if risk.as_ref().is_some_and(Vec::is_empty) {
        return Err("`risk` is empty, so the rule would never match".into());
    }
    Ok(Match {
        labels,
        operation,
        cluster: list("cluster", m.cluster)?,
        namespace: list("namespace", m.namespace)?,
        kind: list("kind", m.kind)?,
        agent: list("agent", m.agent)?,
        repository: list("repository", m.repository)?,
        risk,
    })
}

fn known_operation(op: &str) -> Result<(), String> {
    if Operation::NAMES.contains(&op) {
        return Ok(());
    }
    Err(format!("\"{}\" is no operation; there are {}", op.escape_debug(), Operation::NAMES.join(", ")))
}

fn names(groups: &[String]) -> Result<(), String> {
    match groups.iter().find(|g| g.trim().is_empty()) {
        Some(_) => Err("a group has no name".into()),
        None => Ok(()),
    }
}

fn approve(a: RawApprove) -> Result<Approve, String> {
    if a.from.is_empty() {
        return Err("`approve.from` names no group".into());
    }
    names(&a.from)?;
    if a.count == 0 {
        return Err("`approve.count` must be at least 1; use level standard where nobody is asked".into());
    }
    let expires_s = a.expires.as_deref().map(seconds).transpose()?;
    if expires_s.is_some_and(|s| s > MAX_EXPIRY_S) {
        return Err("`approve.expires` is at most 24h".into());
    }
    let remind_s = a.remind.as_deref().map(seconds).transpose()?;
    let mut from = a.from;
    from.sort();
    from.dedup();
    Ok(Approve { from, count: a.count, expires_s, remind_s, allow_sponsor: a.allow_sponsor })
}

/// `90s`, `30m`, `2h`, `1d` as seconds.
pub(super) fn seconds(s: &str) -> Result<u32, String> {
    let bad = || format!("\"{}\" is no duration; write 90s, 30m, 2h or 1d", s.escape_debug());
    let unit = s.chars().last().ok_or_else(bad)?;
    let number = s.strip_suffix(unit).unwrap_or_default();
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let n: u32 = number.parse().map_err(|_| bad())?;
    n.checked_mul(factor).filter(|v| *v > 0).ok_or_else(bad)
}
