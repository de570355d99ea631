//! From the YAML form of a policy to [`Rule`]s. Unknown keys are refused, never ignored.

use std::collections::BTreeMap;

use super::condition::Condition;
use super::freeze::{self, Freeze};
use super::quota::Quota;
use super::raw::{
    Given, OneOrMany, RawApprove, RawBaseMove, RawDefault, RawFile, RawFreeze, RawMatch, RawRule, TestCase,
};
use super::rule::{Approve, Caps, Match, OnBaseMove, Rule};
use crate::error::{Problem, Result};
use crate::model::{Delivery, Level, Operation};

const MAX_BYTES: usize = 1 << 20;
const MAX_EXPIRY_S: u32 = 24 * 3600;

pub(super) struct Parsed {
    pub rules: Vec<Rule>,
    pub default: Option<Rule>,
    pub freezes: Vec<Freeze>,
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
        test(t).map_err(|m| invalid(name, &format!("test {}", i + 1), &m))?;
    }
    Ok(Parsed {
        rules: raw.rules.into_iter().map(|r| rule(name, r)).collect::<Result<_>>()?,
        default: raw.default.map(|d| default(name, d)).transpose()?,
        freezes: raw.freeze.into_iter().map(|f| freeze(name, f)).collect::<Result<_>>()?,
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

/// What a test gives and expects must be readable, or it could never fail.
fn test(t: &TestCase) -> Result<(), String> {
    if let Some(expires) = &t.expect.expires {
        seconds(expires)?;
    }
    known_given(&t.given)
}

/// Operations, values and the moment of a change in short form.
pub(super) fn known_given(given: &Given) -> Result<(), String> {
    for op in given.operation.clone().map(OneOrMany::into_vec).unwrap_or_default() {
        known_operation(&op)?;
    }
    for side in [&given.before, &given.after].into_iter().flatten() {
        if let Some(unknown) = side.keys().find(|k| !super::values::FIELDS.contains(&k.as_str())) {
            let there = super::values::FIELDS.join(", ");
            return Err(format!("there is no value \"{}\"; there are {there}", unknown.escape_debug()));
        }
    }
    given.now.as_deref().map_or(Ok(0), moment).map(drop)
}

/// `2026-12-24T10:00:00+01:00` as milliseconds since the epoch.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|t| t.timestamp_millis())
        .map_err(|_| format!("\"{}\" is no moment; write 2026-12-24T10:00:00+01:00", text.escape_debug()))
}

fn freeze(file: &str, raw: RawFreeze) -> Result<Freeze> {
    let place = format!("freeze \"{}\"", raw.id.escape_debug());
    let fail = |m: String| invalid(file, &place, &m);
    let mut raw = raw;
    id(&raw.id).map_err(fail)?;
    let matches = matcher(std::mem::take(&mut raw.matches)).map_err(fail)?;
    freeze::read(file, raw, matches).map_err(fail)
}

fn id(id: &str) -> Result<(), String> {
    let ok =
        (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if ok && id != super::rule::DEFAULT {
        return Ok(());
    }
    Err("an id has 1 to 64 letters, digits, '-', '_' or '.', and is not \"default\"".into())
}

/// A condition that cannot be read stops the whole file: ignoring it would widen its rule.
fn condition(file: &str, rule: &str, when: &serde_saphyr::Spanned<String>) -> Result<Condition> {
    Condition::compile(&when.value).map_err(|why| {
        let line = when.defined.line();
        let at = if line > 0 { format!(":{line}") } else { String::new() };
        Problem::new(
            "policy.condition",
            format!("{file}{at}, rule \"{rule}\": the condition in `when` is refused: {why}."),
            "Correct it; docs/policy.md lists what conditions can name. A rule is never applied without its condition.",
        )
    })
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
            quota: None,
            tell: d.tell,
            on_base_move: d.on_base_move,
        },
    )
}

fn rule(file: &str, r: RawRule) -> Result<Rule> {
    id(&r.id).map_err(|m| invalid(file, "a rule", &m))?;
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
    let when = r.when.as_ref().map(|w| condition(file, &r.id, w)).transpose()?;
    Ok(Rule {
        id: r.id,
        file: file.to_owned(),
        matches,
        when,
        level: r.level,
        approve,
        deliver: r.deliver,
        caps: Caps { files: r.caps.files, lines: r.caps.lines, objects: r.caps.objects },
        quota: r.quota.map(|q| Quota { per_day: q.per_day, by: q.by }),
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
    let escalate = match a.escalate {
        None => None,
        Some(e) if e.to.is_empty() => return Err("`approve.escalate.to` names no group".into()),
        Some(e) => {
            names(&e.to)?;
            let (after, mut to) = (seconds(&e.after)?, e.to);
            if after >= expires_s.unwrap_or(super::decide::EXPIRES_S) {
                return Err("`approve.escalate.after` is not before the approval expires".into());
            }
            to.retain(|g| !from.contains(g));
            to.sort();
            to.dedup();
            if to.is_empty() {
                return Err("`approve.escalate.to` names only groups that are asked at once".into());
            }
            Some((after, to))
        }
    };
    let approve = Approve {
        from,
        count: a.count,
        expires_s,
        remind_s,
        escalate,
        confirm: a.confirm,
        allow_sponsor: a.allow_sponsor,
        different_groups: a.different_groups,
    };
    different_groups(&approve).map(|()| approve)
}

/// What could never be met, or asks for nothing, is not meant.
fn different_groups(a: &Approve) -> Result<(), String> {
    let groups = a.groups().count();
    if a.different_groups && a.count < 2 {
        return Err("`approve.different_groups` needs a `count` of at least 2: one person is of one group".into());
    }
    if a.different_groups && a.count as usize > groups {
        return Err(format!(
            "`approve.different_groups` asks {} people each of another group, but `from` and `escalate.to` name only {groups}",
            a.count
        ));
    }
    Ok(())
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
