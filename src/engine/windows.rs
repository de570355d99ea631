//! Argo CD's sync windows (argo-cd: pkg/apis/application/v1alpha1/types.go). A window that blocks an
//! automatic sync shows nowhere in an Application's status, so it is computed.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde_json::Value;

use super::text::{at, flag, list, quote};

struct Window<'a> {
    rule: &'a Value,
    deny: bool,
    active: bool,
}

/// Why an Application may not be synced now, in words; `None` where it may. `manual` is whether a
/// person starts the sync.
pub fn blocked(project: &Value, app: &Value, manual: bool, now: DateTime<Utc>) -> Option<String> {
    let mut windows = Vec::new();
    for rule in list(project, "/spec/syncWindows").iter().filter(|w| applies(w, app)) {
        match active(rule, now) {
            Ok(active) => windows.push(Window { rule, deny: at(rule, "/kind") == "deny", active }),
            // Argo CD refuses every sync while a window cannot be read.
            Err(why) => return Some(format!("a sync window of project {} cannot be read: {why}", name(project))),
        }
    }
    let by_hand = |w: &&Window<'_>| manual && flag(w.rule, "/manualSync");
    let denying: Vec<&Window<'_>> = windows.iter().filter(|w| w.deny && w.active).collect();
    if let Some(first) = denying.iter().find(|w| !by_hand(w)) {
        return Some(format!("project {} denies syncs now ({})", name(project), words(first.rule)));
    }
    if !denying.is_empty() || windows.iter().any(|w| !w.deny && w.active) {
        return None;
    }
    let allowing: Vec<&Window<'_>> = windows.iter().filter(|w| !w.deny).collect();
    if allowing.is_empty() || allowing.iter().all(by_hand) {
        return None;
    }
    let next = allowing.iter().filter_map(|w| next_start(w.rule, now)).min();
    let next = next.map_or_else(String::new, |t| format!("; the next one opens at {}", t.format("%Y-%m-%d %H:%M UTC")));
    let first = allowing.first().map(|w| words(w.rule)).unwrap_or_default();
    Some(format!("project {} allows syncs only in a window ({first}){next}", name(project)))
}

fn name(project: &Value) -> &str {
    at(project, "/metadata/name")
}

fn words(rule: &Value) -> String {
    let zone = Some(at(rule, "/timeZone")).filter(|z| !z.is_empty()).unwrap_or("UTC");
    quote(&format!("{} \"{}\" for {}, {zone}", at(rule, "/kind"), at(rule, "/schedule"), at(rule, "/duration")))
}

/// Whether a window is about this Application: one of its patterns matches, or with `andOperator` every
/// kind of pattern that is given.
fn applies(rule: &Value, app: &Value) -> bool {
    let server = at(app, "/spec/destination/server");
    let cluster = at(app, "/spec/destination/name");
    let subjects: [(&str, &[&str]); 3] = [
        ("/applications", &[at(app, "/metadata/name")]),
        ("/namespaces", &[at(app, "/spec/destination/namespace")]),
        ("/clusters", &[server, cluster]),
    ];
    let mut given = 0;
    let mut matching = 0;
    for (list_at, values) in subjects {
        let patterns: Vec<&str> = list(rule, list_at).iter().filter_map(Value::as_str).collect();
        if patterns.is_empty() {
            continue;
        }
        given += 1;
        let hit = patterns.iter().any(|p| values.iter().any(|v| !v.is_empty() && glob(p, v)));
        matching += usize::from(hit);
    }
    if flag(rule, "/andOperator") { given > 0 && given == matching } else { matching > 0 }
}

/// `*` and `?`; a pattern with anything cleverer counts as matching, because unclear means stricter.
fn glob(pattern: &str, text: &str) -> bool {
    if pattern.contains(['[', '{', '\\']) {
        return true;
    }
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Positions in the pattern that the text so far can have led to.
    let mut at = vec![false; p.len() + 1];
    let skip_stars = |at: &mut Vec<bool>| {
        for i in 0..p.len() {
            if at.get(i) == Some(&true)
                && p.get(i) == Some(&'*')
                && let Some(next) = at.get_mut(i + 1)
            {
                *next = true;
            }
        }
    };
    if let Some(first) = at.first_mut() {
        *first = true;
    }
    skip_stars(&mut at);
    for c in t {
        let mut next = vec![false; p.len() + 1];
        for (i, wanted) in p.iter().enumerate().filter(|(i, _)| at.get(*i) == Some(&true)) {
            let to = match wanted {
                '*' => Some(i),
                '?' => Some(i + 1),
                w if *w == c => Some(i + 1),
                _ => None,
            };
            if let Some(slot) = to.and_then(|to| next.get_mut(to)) {
                *slot = true;
            }
        }
        at = next;
        skip_stars(&mut at);
    }
    at.last().copied().unwrap_or(false)
}

/// A window is active when its schedule fired within its duration before now.
fn active(rule: &Value, now: DateTime<Utc>) -> Result<bool, String> {
    let (cron, length, zone) = read(rule)?;
    let from = (now - length).with_timezone(&zone);
    match cron.find_next_occurrence(&from, false) {
        Ok(start) => Ok(start < now.with_timezone(&zone)),
        // A schedule that never fires again is not active.
        Err(_) => Ok(false),
    }
}

fn next_start(rule: &Value, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (cron, _, zone) = read(rule).ok()?;
    cron.find_next_occurrence(&now.with_timezone(&zone), false).ok().map(|t| t.with_timezone(&Utc))
}

fn read(rule: &Value) -> Result<(Cron, TimeDelta, Tz), String> {
    let schedule = at(rule, "/schedule");
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(schedule).map_err(|_| format!("schedule \"{}\"", quote(schedule)))?;
    let duration = at(rule, "/duration");
    let length = go_duration(duration)
        .and_then(|d| TimeDelta::from_std(d).ok())
        .ok_or_else(|| format!("duration \"{}\"", quote(duration)))?;
    let zone = match at(rule, "/timeZone") {
        "" => Tz::UTC,
        name => name.parse().map_err(|_| format!("time zone \"{}\"", quote(name)))?,
    };
    Ok((cron, length, zone))
}

/// Go's duration form (`1h30m`, `90s`), for the units that make sense here.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at_time(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    fn app() -> Value {
        json!({"metadata": {"name": "shop-prod"}, "spec": {"destination": {"namespace": "shop", "server": "https://kubernetes.default.svc"}}})
    }

    fn project(windows: Value) -> Value {
        json!({"metadata": {"name": "default"}, "spec": {"syncWindows": windows}})
    }

    fn check(windows: Value, manual: bool, now: &str) -> Option<String> {
        blocked(&project(windows), &app(), manual, at_time(now))
    }

    #[test]
    fn a_deny_window_blocks_while_it_is_active_only() {
        let deny = json!([{"kind": "deny", "schedule": "0 22 * * *", "duration": "2h", "applications": ["*-prod"]}]);
        assert!(check(deny.clone(), false, "2026-11-21T22:30:00Z").unwrap().contains("denies syncs now"));
        assert_eq!(check(deny.clone(), false, "2026-11-21T21:59:00Z"), None);
        assert_eq!(check(deny.clone(), false, "2026-11-22T00:00:01Z"), None, "over after two hours");
        assert!(check(deny, false, "2026-11-21T23:59:59Z").is_some());
    }

    #[test]
    fn outside_every_allow_window_nothing_is_synced_and_the_next_one_is_named() {
        let allow = json!([{"kind": "allow", "schedule": "0 10 * * 1-5", "duration": "1h", "namespaces": ["shop"]}]);
        // 2026-11-21 is a Saturday.
        let words = check(allow.clone(), false, "2026-11-21T10:30:00Z").unwrap();
        assert!(words.ends_with("the next one opens at 2026-11-23 10:00 UTC"), "{words}");
        assert_eq!(check(allow, false, "2026-11-23T10:30:00Z"), None);
    }

    #[test]
    fn a_person_may_sync_where_every_window_says_so() {
        let one = |manual: bool| json!({"kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["*"], "manualSync": manual});
        let now = "2026-11-21T22:30:30Z";
        assert_eq!(check(json!([one(true)]), true, now), None);
        assert!(check(json!([one(true)]), false, now).is_some());
        assert!(check(json!([one(true), one(false)]), true, now).is_some());
        let allow = json!([{"kind": "allow", "schedule": "0 3 * * *", "duration": "1h", "applications": ["*"], "manualSync": true}]);
        assert_eq!(check(allow.clone(), true, now), None);
        assert!(check(allow, false, now).is_some());
    }

    #[test]
    fn deny_beats_allow() {
        let both = json!([
            {"kind": "allow", "schedule": "* * * * *", "duration": "1h", "applications": ["*"]},
            {"kind": "deny", "schedule": "* * * * *", "duration": "1h", "clusters": ["https://kubernetes*"]}]);
        assert!(check(both, false, "2026-11-21T22:30:30Z").unwrap().contains("denies"));
    }

    #[test]
    fn windows_of_other_applications_and_no_windows_at_all_do_not_count() {
        let other = json!([{"kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["other"]}]);
        assert_eq!(check(other, false, "2026-11-21T22:30:30Z"), None);
        assert_eq!(check(json!([]), false, "2026-11-21T22:30:30Z"), None);
        let both = json!([{"kind": "deny", "schedule": "* * * * *", "duration": "1h", "andOperator": true,
            "applications": ["shop-*"], "namespaces": ["elsewhere"]}]);
        assert_eq!(check(both, false, "2026-11-21T22:30:30Z"), None);
    }

    #[test]
    fn a_window_counts_in_its_own_time_zone() {
        let berlin = json!([{"kind": "deny", "schedule": "0 9 * * *", "duration": "1h", "timeZone": "Europe/Berlin", "applications": ["*"]}]);
        assert!(check(berlin.clone(), false, "2026-11-21T08:30:00Z").is_some());
        assert!(check(berlin.clone(), false, "2026-07-21T07:30:00Z").is_some(), "summer time");
        assert_eq!(check(berlin, false, "2026-11-21T09:30:00Z"), None);
    }

    #[test]
    fn a_window_that_cannot_be_read_blocks() {
        for (schedule, duration, zone) in
            [("nonsense", "1h", ""), ("* * * * *", "1 hour", ""), ("* * * * *", "1h", "Mars/Olympus")]
        {
            let bad = json!([{"kind": "allow", "schedule": schedule, "duration": duration, "timeZone": zone, "applications": ["*"]}]);
            assert!(check(bad, false, "2026-11-21T22:30:00Z").unwrap().contains("cannot be read"));
        }
    }

    #[test]
    fn patterns_and_durations() {
        for (pattern, text, want) in [
            ("*", "x", true),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("a?c", "abc", true),
            ("", "a", false),
            ("**", "", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
        assert_eq!(go_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(go_duration(""), None);
        assert_eq!(go_duration("5"), None);
    }
}
