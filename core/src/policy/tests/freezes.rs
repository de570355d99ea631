//! Freezes: when they are on, and what they add to the rules.

use super::*;

fn freeze_until(window: &str, zone: &str, now: &str) -> Option<String> {
    let text = format!("version: 1\nfreeze:\n- {{id: f, zone: {zone}, {window}}}\n");
    let s = set(&text);
    let now = chrono::DateTime::from_timestamp_millis(at(now)).unwrap();
    s.freezes()[0].until(now).map(|t| t.format("%Y-%m-%dT%H:%MZ").to_string())
}

#[test]
fn freezes_are_on_by_the_clock_of_their_zone() {
    let weekend = "weekly: {from: fri 17:00, to: mon 08:00}";
    for (now, until) in [
        ("2026-07-03T14:59:59Z", None),
        ("2026-07-03T15:00:00Z", Some("2026-07-06T06:00Z")),
        ("2026-07-05T12:34:56Z", Some("2026-07-06T06:00Z")),
        ("2026-07-06T05:59:59Z", Some("2026-07-06T06:00Z")),
        ("2026-07-06T06:00:00Z", None),
        // In winter the same wall clock is an hour later in UTC.
        ("2026-01-02T15:30:00Z", None),
        ("2026-01-02T16:00:00Z", Some("2026-01-05T07:00Z")),
    ] {
        assert_eq!(freeze_until(weekend, "Europe/Berlin", now).as_deref(), until, "{now}");
    }
    let nights = "daily: {days: [mon, fri], from: '22:00', to: '06:00'}";
    for (now, until) in [
        ("2026-07-06T21:59:00Z", None),
        ("2026-07-06T22:00:00Z", Some("2026-07-07T06:00Z")),
        ("2026-07-07T05:59:00Z", Some("2026-07-07T06:00Z")),
        ("2026-07-07T22:30:00Z", None),
        ("2026-07-11T03:00:00Z", Some("2026-07-11T06:00Z")),
    ] {
        assert_eq!(freeze_until(nights, "UTC", now).as_deref(), until, "{now}");
    }
    assert_eq!(
        freeze_until("daily: {from: '00:00', to: '24:00'}", "UTC", "2026-07-07T23:59:59Z").as_deref(),
        Some("2026-07-08T00:00Z")
    );
    let year_end = "between: {from: 2026-12-20T00:00, to: 2027-01-04T08:00}";
    for (now, until) in [
        ("2026-12-19T22:59:59Z", None),
        ("2026-12-19T23:00:00Z", Some("2027-01-04T07:00Z")),
        ("2027-01-04T07:00:00Z", None),
    ] {
        assert_eq!(freeze_until(year_end, "Europe/Berlin", now).as_deref(), until, "{now}");
    }
    let patch_day = "cron: {at: '0 8 * * 2#2', for: 6h}";
    for (now, until) in [
        ("2026-07-14T07:59:00Z", None),
        ("2026-07-14T08:00:00Z", Some("2026-07-14T14:00Z")),
        ("2026-07-14T13:59:00Z", Some("2026-07-14T14:00Z")),
        ("2026-07-14T14:00:00Z", None),
        ("2026-07-07T09:00:00Z", None),
    ] {
        assert_eq!(freeze_until(patch_day, "UTC", now).as_deref(), until, "{now}");
    }
    // An hour that the clock shows twice, and one that it never shows.
    let autumn = "between: {from: 2026-10-25T01:00, to: 2026-10-25T02:30}";
    assert_eq!(freeze_until(autumn, "Europe/Berlin", "2026-10-25T01:29:00Z").as_deref(), Some("2026-10-25T01:30Z"));
    let spring = "between: {from: 2026-03-29T02:30, to: 2026-03-29T05:00}";
    assert_eq!(freeze_until(spring, "Europe/Berlin", "2026-03-29T00:30:00Z").as_deref(), Some("2026-03-29T03:00Z"));
}

#[test]
fn malformed_freezes_are_refused() {
    for (window, says) in [
        ("zone: Europe/Berlin", "exactly one"),
        ("zone: Mars/Olympus, weekly: {from: fri 17:00, to: mon 08:00}", "time zone"),
        ("zone: UTC, weekly: {from: fri 17:00, to: fri 17:00}", "same time"),
        ("zone: UTC, weekly: {from: friday 17:00, to: mon 08:00}", "no day"),
        ("zone: UTC, weekly: {from: fri 25:00, to: mon 08:00}", "time of day"),
        ("zone: UTC, daily: {days: [], from: '22:00', to: '06:00'}", "never be on"),
        ("zone: UTC, daily: {from: '22:00', to: '22:00'}", "same time"),
        ("zone: UTC, between: {from: 2026-12-20T00:00, to: 2026-12-19T00:00}", "before it begins"),
        ("zone: UTC, between: {from: christmas, to: 2026-12-19T00:00}", "date and time"),
        ("zone: UTC, cron: {at: '0 0 30 2 *', for: 1h}", "never fires"),
        ("zone: UTC, cron: {at: 'every day', for: 1h}", "schedule"),
        ("zone: UTC, cron: {at: '0 0 * * *', for: 40d}", "31d"),
        ("zone: UTC, weekly: {from: fri 17:00, to: mon 08:00}, daily: {from: '22:00', to: '06:00'}", "exactly one"),
        ("zone: UTC, weekly: {from: fri 17:00, to: mon 08:00}, approve: {from: []}", "no group"),
    ] {
        let p = refused(&format!("version: 1\nfreeze:\n- {{id: f, {window}}}\n"));
        assert!(p.code == "policy.invalid" && p.message.contains(says), "{window}: {p}");
    }
    let twice = "version: 1\nfreeze:\n- {id: f, zone: UTC, daily: {from: '22:00', to: '06:00'}}\n- {id: f, zone: UTC, daily: {from: '22:00', to: '06:00'}}\n";
    assert_eq!(refused(twice).code, "policy.duplicate_freeze");
}

#[test]
fn a_freeze_adds_to_the_rules_and_no_level_overrides_it() {
    let s = set(FROZEN);
    let on = |env: &str, now: &str| decide(&s, &people(), &Facts { now: at(now), ..facts("scale", &[("env", env)]) });
    let (calm, weekend, year_end) = ("2026-07-01T12:00:00Z", "2026-07-04T12:00:00Z", "2026-12-24T12:00:00Z");
    assert_eq!(on("staging", calm).decided.level, Level::Standard);
    let d = on("staging", weekend);
    assert_eq!((d.decided.level, d.decided.approvers.as_slice()), (Level::Prompted, &["bob".to_owned()][..]));
    assert_eq!(d.decided.freezes.iter().map(|f| f.id.as_str()).collect::<Vec<_>>(), ["weekend"]);
    assert!(d.why.iter().any(|w| w.contains("until 2026-07-06 00:00 UTC (nobody is there)")), "{:?}", d.why);
    // The rule asks sre, the freeze dev: whoever is both.
    let d = on("prod", weekend).decided;
    assert_eq!(
        (d.approvers.as_slice(), d.quorum.groups.as_slice()),
        (&["bob".to_owned()][..], &["sre".to_owned()][..])
    );
    let d = on("staging", year_end);
    let p = d.problem.unwrap();
    assert_eq!((d.decided.level, p.code.as_ref(), p.retry), (Level::Deny, "policy.frozen", crate::error::Retry::Later));
    assert_eq!(p.retry_after_s(), Some(10 * 86_400 + 12 * 3600));
    // Whoever denies anyway says so for good.
    assert_eq!(on("qa", year_end).problem.unwrap().code, "policy.denied");
}

#[test]
fn an_unclear_label_is_frozen_too() {
    let s = set("
version: 1
rules: [{id: open, match: {}, level: standard}]
freeze: [{id: f, match: {labels: {env: prod}}, zone: UTC, daily: {from: '00:00', to: '24:00'}}]
");
    let mixed = Facts { cluster_labels: labels(&[("env", "prod")]), ..facts("scale", &[("env", "staging")]) };
    assert_eq!(decide(&s, &people(), &mixed).decided.level, Level::Deny);
    assert_eq!(decide(&s, &people(), &facts("scale", &[("env", "staging")])).decided.level, Level::Standard);
}
