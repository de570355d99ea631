//! Conditions, freezes, quotas and obligations.

use super::*;
use crate::model::quantity;
use crate::model::{Confirm, Operation, Scale, SetImage};

fn with_values(operation: &str, own: &[(&str, &str)], before: Value, after: Value) -> Facts {
    let mut f = facts(operation, own);
    let side = |v: Value| v.as_object().cloned();
    f.targets[0].values = Some(Values { before: side(before), after: side(after) });
    f
}

fn at(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

const SMALL: &str = "
version: 1
default: {level: deny}
rules:
- id: small
  match: {labels: {env: staging}, operation: [scale, set_image]}
  when: change.after.replicas <= 10
  level: standard
";

fn level_of(text: &str, f: &Facts) -> (Level, Vec<String>) {
    let d = decide(&set(text), &people(), f).decided;
    (d.level, d.rules)
}

#[test]
fn a_condition_decides_whether_its_rule_counts() {
    let scale = |n: u32| with_values("scale", &[("env", "staging")], json!({"replicas": 3}), json!({"replicas": n}));
    assert_eq!(level_of(SMALL, &scale(10)), (Level::Standard, vec!["small".into()]));
    assert_eq!(level_of(SMALL, &scale(11)), (Level::Deny, vec!["default".into()]));
}

#[test]
fn what_cannot_be_evaluated_counts_and_so_does_the_default() {
    let both = (Level::Deny, vec!["small".to_owned(), "default".to_owned()]);
    let own = [("env", "staging")];
    for f in [
        facts("scale", &own),
        with_values("scale", &own, json!({}), json!({})),
        with_values("scale", &own, json!({}), Value::Null),
        with_values("scale", &own, json!({}), json!({"replicas": "10"})),
        with_values("scale", &own, json!({}), json!({"replicas": null})),
        with_values("scale", &own, json!({}), json!({"replicas": [1]})),
    ] {
        assert_eq!(level_of(SMALL, &f), both, "{f:?}");
    }
    // A rule that denies counts all the more.
    let deny = "
version: 1
default: {level: standard}
rules:
- {id: many, match: {}, when: change.after.replicas > 10, level: deny}
";
    assert_eq!(level_of(deny, &facts("scale", &[])).0, Level::Deny);
    let f = with_values("scale", &[], json!({}), json!({"replicas": 3}));
    assert_eq!(level_of(deny, &f), (Level::Standard, vec!["default".into()]));
}

#[test]
fn conditions_see_the_change_and_its_surroundings() {
    let mut f = with_values(
        "set_image",
        &[("env", "staging"), ("team", "shop")],
        json!({"image": "reg.eu/a:1.0", "tag": "1.0", "registry": "reg.eu", "images": {"app": {"tag": "1.0"}, "b": {"tag": "2"}}}),
        json!({"image": "reg.eu/a:1.1", "tag": "1.1", "registry": "reg.eu", "images": {"app": {"tag": "1.1"}, "b": {"tag": "2"}},
            "resources": {"limits": {"memory": "512Mi", "cpu": "1500m"}}}),
    );
    f.now = at("2026-07-01T21:30:00Z");
    let holds = |when: &str| {
        let text = format!("version: 1\nrules:\n- id: a\n  match: {{}}\n  when: |-\n    {when}\n  level: standard\n");
        let d = decide(&set(&text), &people(), &f);
        (d.decided.level == Level::Standard, d.why)
    };
    for yes in [
        "change.before.registry == change.after.registry",
        "change.after.tag.startsWith('1.')",
        "change.after.image.matches('^reg\\\\.eu/[a-z]+:[0-9.]+$')",
        "change.operation == 'set_image' && labels.team == 'shop' && labels['env'] == 'staging'",
        "change.after.images.all(c, change.after.images[c].tag != 'latest')",
        "change.after.images.exists(c, c == 'app')",
        "has(change.after.tag) && !has(change.after.replicas)",
        "change.after[?'replicas'].orValue(1) <= 3",
        "change.after.?replicas.orValue(1) <= 3",
        "quantity(change.after.resources.limits.memory) <= quantity('1Gi')",
        "quantity(change.after.resources.limits.cpu) == 1.5",
        "now.getHours('Europe/Berlin') == 23 && now.getHours() == 21",
        "now < timestamp('2026-07-02T00:00:00Z')",
        "risk in ['low', 'medium'] && files == 1 && lines <= 2 && objects == 1",
        "change.namespace == 'shop' && change.kind == 'Deployment' && cluster == 'prod-eu' && repository == 'deploy' && agent == 'sre-bot'",
        "change.before.tag != change.after.tag ? lines < 10 : false",
    ] {
        let (is, why) = holds(yes);
        assert!(is, "{yes}: {why:?}");
    }
    for no in [
        "change.after.tag == '1.0'",
        "change.after.replicas <= 10",
        "change.after.replicas <= 10 && true",
        "labels.absent == 'x'",
        "'text'",
        "1 / (files - 1) == 1",
        "quantity('a lot') < 1.0",
        "change.before == null",
    ] {
        let (is, why) = holds(no);
        assert!(!is, "{no}: {why:?}");
    }
}

#[test]
fn a_condition_that_names_what_does_not_exist_is_refused() {
    let refused = |when: &str| {
        let text = format!("version: 1\nrules:\n- id: a\n  match: {{}}\n  level: standard\n  when: |-\n    {when}\n");
        PolicySet::parse(&[("p.yaml", text)]).unwrap_err()
    };
    let chain = "true".to_owned() + &" && labels.exists(k, k.matches('a.*b')) ".repeat(4);
    for (when, says) in [
        ("change.aftr.replicas > 1", "change.aftr"),
        ("change.after.replica > 1", "change.after.replica"),
        ("change.after['replica'] > 1", "change.after.replica"),
        ("change == change", "alone"),
        ("namespace == 'x'", "reserved identifier: namespace"),
        ("object.spec.replicas > 1", "\"object\""),
        ("lables.env == 'x'", "\"lables\""),
        ("lowerAscii(risk) == 'x'", "no function lowerAscii"),
        ("agent.matches(cluster)", "written out"),
        ("agent.matches('(')", "regular expression"),
        ("agent.matches('(a{500}){500}')", "regular expression"),
        ("[1, 2].map(x, x + 1) == [2, 3]", "map"),
        ("[1, 2].filter(x, x > 1) == [2]", "map and filter"),
        ("labels.all(a, labels.all(b, labels.all(c, a == c)))", "nested"),
        ("labels.all(a, labels.all(b, labels[a] == labels[b] && a.matches('x')))", "too much work"),
        (chain.as_str(), "too much work"),
        ("labels.optMap(x, x)", "no function"),
        ("a.b.c{x: 1}", ""),
        ("1 +", ""),
        ("", ""),
    ] {
        let p = refused(when);
        assert_eq!(p.code, "policy.condition", "{when}: {p}");
        assert!(p.message.contains(says), "{when}: {}", p.message);
    }
    assert_eq!(refused(&format!("files == {}1", "1 + ".repeat(600))).code, "policy.condition");
    for deep in [
        format!("{}files == 1{}", "(".repeat(900), ")".repeat(900)),
        format!("{}files == 1{}", "[".repeat(900), "]".repeat(900)),
        format!("{}true", "!".repeat(2000)),
        format!("files == {}1", "- ".repeat(900)),
        format!("{}true", "true ? true : ".repeat(140)),
        format!("files == 1{}", "+1".repeat(1000)),
        format!("labels{}", ".a".repeat(1000)),
        format!("labels{}", "['a']".repeat(400)),
        format!("files in {}", "[1] + ".repeat(300) + "[1]"),
        format!("files{}", " in files".repeat(200)),
    ] {
        assert_eq!(refused(&deep).code, "policy.condition");
    }
    // The deepest that is let through to the parser leaves a part of a thread's 2 MB.
    let chain = "labels.a.b.c + labels.a.b.c + labels.a.b.c + labels.a.b.c + ";
    for deepest in [
        format!("{}1{}", format!("({chain}").repeat(6), ")".repeat(6)),
        format!("{}true", "true ? true : ".repeat(6)),
        format!("{}true{}", "labels.all(a, ".repeat(6), ")".repeat(6)),
    ] {
        let parsed = std::thread::Builder::new().stack_size(3 << 19).spawn(move || {
            PolicySet::parse(&[(
                "p",
                format!("version: 1\nrules: [{{id: a, match: {{}}, level: deny, when: \"{deepest}\"}}]"),
            )])
            .is_ok()
        });
        parsed.unwrap().join().unwrap();
    }
    // Wide is not deep.
    let wide = (0..60).map(|i| format!("files != {i}")).collect::<Vec<_>>().join(" && ");
    set(&format!("version: 1\nrules:\n- {{id: a, match: {{}}, when: '{wide}', level: standard}}\n"));
}

#[test]
fn labels_in_a_condition_are_as_careful_as_in_a_match() {
    let text = "
version: 1
rules:
- {id: a, match: {}, when: labels.env == 'staging', level: standard}
";
    let plain = facts("scale", &[("env", "staging")]);
    assert_eq!(level_of(text, &plain).0, Level::Standard);
    // Sources disagree.
    let mixed = Facts { cluster_labels: labels(&[("env", "prod")]), ..plain.clone() };
    assert_eq!(level_of(text, &mixed).0, Level::Deny);
    // About something that the condition does not look at.
    let other =
        Facts { cluster_labels: labels(&[("team", "x")]), ..facts("scale", &[("env", "staging"), ("team", "y")]) };
    assert_eq!(level_of(text, &other).0, Level::Standard);
    // Relabelled.
    let mut relabelled = plain.clone();
    relabelled.targets[0].labels_before = Some(labels(&[("env", "prod")]));
    assert_eq!(level_of(text, &relabelled).0, Level::Deny);
    // A new object says what it likes, also by leaving a label out.
    let mut new = plain.clone();
    new.targets[0].labels_before = None;
    assert_eq!(level_of(text, &new).0, Level::Deny);
    let unless = "
version: 1
default: {level: standard}
rules:
- {id: a, match: {}, when: '!has(labels.team) || labels.team != \"infra\"', level: deny}
";
    let mut sly = facts("create", &[("team", "infra")]);
    sly.targets[0].labels_before = None;
    assert_eq!(level_of(unless, &sly).0, Level::Deny);
}

#[test]
fn values_come_from_the_objects() {
    let object = |replicas: u32, image: &str| {
        json!({"kind": "Deployment", "metadata": {"name": "checkout", "labels": {"env": "prod"}, "annotations": {"a": "1", "b": "2"}},
            "spec": {"replicas": replicas, "template": {"spec": {
                "containers": [{"name": "app", "image": image, "env": [{"name": "X", "value": "1"}, {"name": "P", "value": "hush"}]}],
                "initContainers": [{"name": "init", "image": "busybox"}]}}}})
    };
    let (before, after) = (object(3, "reg.eu:5000/team/app:1"), object(5, "reg.eu:5000/team/app:2@sha256:ab"));
    let scale = Values::of(&Operation::Scale(Scale { replicas: 5 }), Some(&before), Some(&after));
    let after_scale = scale.after.unwrap();
    assert_eq!((&scale.before.unwrap()["replicas"], &after_scale["replicas"]), (&json!(3), &json!(5)));
    assert_eq!(after_scale["labels"], json!({"env": "prod"}));
    assert_eq!(after_scale["containers"], json!(["app", "init"]));
    assert_eq!(
        after_scale["images"]["init"],
        json!({"image": "busybox", "registry": "docker.io", "repository": "busybox", "tag": "latest"})
    );
    let op = Operation::SetImage(SetImage { container: "app".into(), image: "a lie".into() });
    let image = Values::of(&op, Some(&before), Some(&after)).after.unwrap();
    assert_eq!(
        (&image["registry"], &image["repository"], &image["tag"], &image["digest"]),
        (&json!("reg.eu:5000"), &json!("team/app"), &json!("2"), &json!("sha256:ab"))
    );
    assert_eq!(image["image"], "reg.eu:5000/team/app:2@sha256:ab", "the object, not the call");
    let env: Operation =
        serde_json::from_value(json!({"set_env": {"container": "app", "name": "P", "value": "x"}})).unwrap();
    let mut v = Values::of(&env, Some(&before), None);
    assert_eq!(v.before.as_ref().unwrap()["env"], json!({"P": "hush"}));
    assert_eq!(v.after, None);
    v.retain(&|s| s != "hush");
    assert_eq!(v.before.unwrap()["env"], json!({}), "a secret is not there");
    let field: Operation = serde_json::from_value(
        json!({"set_field": {"pointer": "/spec/template/spec/containers/name=app/image", "value": "x"}}),
    )
    .unwrap();
    assert_eq!(Values::of(&field, Some(&before), None).before.unwrap()["value"], "reg.eu:5000/team/app:1");
    let annotate: Operation = serde_json::from_value(json!({"annotate": {"a": "3", "new": "4"}})).unwrap();
    assert_eq!(Values::of(&annotate, Some(&before), None).before.unwrap()["annotations"], json!({"a": "1"}));
}

#[test]
fn every_field_that_is_made_can_be_named() {
    let object = json!({"metadata": {"name": "x"}, "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "app", "image": "a@sha256:b"}, {"name": "b", "image": "c:d"}]}}}});
    let mut seen = std::collections::BTreeSet::new();
    for op in [
        json!({"set_image": {"container": "app", "image": "x"}}),
        json!({"set_image": {"container": "b", "image": "x"}}),
        json!({"set_resources": {"container": "app"}}),
        json!({"set_env": {"container": "app", "name": "X"}}),
        json!({"set_field": {"pointer": "/spec/replicas"}}),
        json!({"annotate": {}}),
        json!({"scale": {"replicas": 1}}),
    ] {
        let op: Operation = serde_json::from_value(op).unwrap();
        seen.extend(Values::of(&op, Some(&object), None).before.unwrap().keys().cloned());
    }
    let known: std::collections::BTreeSet<String> =
        crate::policy::values::FIELDS.iter().map(|f| (*f).to_owned()).collect();
    assert_eq!(seen, known);
}

#[test]
fn quantities_are_those_of_kubernetes() {
    for (text, is) in [
        ("1", 1.0),
        ("500m", 0.5),
        ("1Ki", 1024.0),
        ("1.5Gi", 1_610_612_736.0),
        ("2e3", 2000.0),
        ("1E", 1e18),
        ("3k", 3000.0),
    ] {
        assert_eq!(quantity(text), Some(is), "{text}");
    }
    for text in ["", "Mi", "1 Gi", "x", "1Kib", "1e", "--1", "1e999"] {
        assert_eq!(quantity(text), None, "{text}");
    }
}

// ---- freezes ------------------------------------------------------------------------------------

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

const FROZEN: &str = "
version: 1
rules:
- {id: open, match: {labels: {env: staging}}, level: standard}
- {id: asked, match: {labels: {env: prod}}, level: prompted, approve: {from: [sre], count: 1}}
freeze:
- {id: weekend, match: {labels: {env: [prod, staging]}}, zone: UTC, weekly: {from: sat 00:00, to: mon 00:00}, approve: {from: [dev]}, reason: nobody is there}
- {id: year-end, zone: UTC, between: {from: 2026-12-20, to: 2027-01-04}}
";

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

// ---- quotas and obligations -----------------------------------------------------------------------

const QUOTA: &str = "
version: 1
rules:
- {id: own, match: {operation: scale}, level: standard, quota: {per_day: 2}}
- {id: all, match: {operation: restart}, level: standard, quota: {per_day: 2, by: rule}}
- {id: each, match: {operation: annotate}, level: standard, quota: {per_day: 1, by: target}}
";

#[test]
fn a_quota_counts_the_changes_of_a_day() {
    let s = set(QUOTA);
    let rules = |id: &str| vec![id.to_owned()];
    let (own, all, each) = (rules("own"), rules("all"), rules("each"));
    let now = 100 * DAY_MS;
    let past = |rules, agent, at, same_target| Past { at, rules, agent, same_target };
    let history = [
        past(&own, "sre-bot", now - 1, false),
        past(&own, "sre-bot", now - DAY_MS, false),
        past(&own, "other", now - 1, false),
        past(&all, "other", now - 1, false),
        past(&all, "sre-bot", now - DAY_MS + 1, false),
        past(&each, "other", now - 1, false),
    ];
    let counts = count(s.rules(), "sre-bot", now, history.into_iter());
    assert_eq!(counts, Counts::from([("own".into(), 1), ("all".into(), 2), ("each".into(), 0)]));
    let level = |operation: &str| {
        let d = decide(&s, &people(), &Facts { counts: counts.clone(), ..facts(operation, &[]) });
        (d.decided.level, d.problem.map(|p| p.code.to_string()))
    };
    assert_eq!(level("scale"), (Level::Standard, None));
    assert_eq!(level("restart"), (Level::Deny, Some("policy.quota".into())));
    assert_eq!(level("annotate"), (Level::Standard, None));
    // What nobody counted is not within its quota.
    assert_eq!(decide(&s, &people(), &facts("scale", &[])).decided.level, Level::Deny);
}

#[test]
fn obligations_are_the_strictest_of_all() {
    let s = set("
version: 1
rules:
- {id: a, match: {}, level: prompted, approve: {from: [sre], remind: 10m, escalate: {after: 20m, to: [dev, boss]}}}
- {id: b, match: {operation: scale}, level: prompted, approve: {from: [sre, dev], remind: 5m, confirm: number, escalate: {after: 15m, to: [boss]}}}
- {id: c, match: {kind: Secret}, level: prompted, approve: {from: [sre]}}
");
    let mut all = people();
    all.extend([person("dee", 7, &["dev"]), person("eve", 8, &["boss"])]);
    let d = decide(&s, &all, &facts("scale", &[])).decided;
    assert_eq!(d.approvers, ["ann", "bob", "dee", "eve"]);
    assert_eq!((d.obligations.remind_s, d.obligations.confirm), (Some(300), Some(Confirm::Number)));
    let later: Vec<_> =
        d.obligations.escalate.iter().map(|e| (e.after_s, e.groups.join(","), e.people.join(","))).collect();
    assert_eq!(later, [(1200, "boss,dev".to_owned(), "dee,eve".to_owned())], "asked when the slower rule says");
    assert_eq!((d.obligations.asked_after_s("ann"), d.obligations.asked_after_s("dee")), (0, 1200));
    // A rule that asks nobody later takes nobody's later yes.
    let mut f = facts("scale", &[]);
    f.targets[0].kind = "Secret".into();
    let d = decide(&s, &all, &f).decided;
    assert_eq!((d.quorum.groups.as_slice(), d.obligations.escalate.len()), (&["sre".to_owned()][..], 0));
    let restart = decide(&s, &all, &facts("restart", &[])).decided;
    assert_eq!(restart.obligations.confirm, None);
    assert!(tightened(&restart, &decide(&s, &all, &facts("scale", &[])).decided).is_some());
    for bad in ["escalate: {after: 2h, to: [dev]}", "escalate: {after: 1m, to: [sre]}", "escalate: {after: 1m, to: []}"]
    {
        let p = refused(&format!(
            "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, approve: {{from: [sre], {bad}}}}}]"
        ));
        assert_eq!(p.code, "policy.invalid", "{bad}");
    }
}

#[test]
fn an_absent_expiry_is_an_hour_beside_a_longer_one() {
    let s = set("
version: 1
rules:
- {id: a, match: {}, level: prompted, approve: {from: [sre]}}
- {id: b, match: {}, level: prompted, approve: {from: [sre], expires: 4h}}
");
    assert_eq!(decide(&s, &people(), &facts("scale", &[])).decided.expires_s, 3600);
}

#[test]
fn decisions_of_older_journals_still_parse() {
    let old = json!({"level": "prompted", "delivery": "direct", "quorum": {"count": 1, "groups": ["sre"]}, "approvers": ["ann"],
        "tell": [], "rules": ["prod"], "policy_version": "x", "expires_s": 60});
    let d: crate::model::Decided = serde_json::from_value(old.clone()).unwrap();
    assert!(d.obligations.is_empty() && d.freezes.is_empty());
    let target: Target = serde_json::from_value(
        json!({"operation": "scale", "namespace": "a", "kind": "b", "labels_before": null, "labels_after": null}),
    )
    .unwrap();
    assert_eq!(target.values, None);
    assert_eq!(
        serde_json::to_value(&d).unwrap().get("obligations"),
        None,
        "nothing new is written where nothing new is asked"
    );
}

// ---- check, explain, replay -----------------------------------------------------------------------

#[test]
fn check_finds_what_never_matches_and_windows_that_are_over() {
    let s = set("
version: 1
default: {level: deny}
rules:
- {id: never, match: {}, when: 1 > 2, level: deny}
- {id: always, match: {}, when: 2 > 1, level: deny}
- {id: apart, match: {operation: scale}, when: change.after.replicas < 5 && change.after.replicas > 9, level: deny}
- {id: other-operation, match: {operation: scale}, when: change.operation == 'restart', level: deny}
- {id: typed, match: {}, when: \"change.after.replicas <= '3'\", level: deny}
- {id: exact, match: {operation: set_image}, when: \"change.before.replicas == 17 && change.after.tag == 'v1'\", level: deny}
- {id: hours, match: {}, when: now.getHours('Europe/Berlin') == 13 && now.getDayOfWeek() == 2, level: deny}
- {id: memory, match: {}, when: quantity(change.after.resources.limits.memory) > quantity('2Gi'), level: deny}
- {id: open, match: {operation: scale, risk: low}, when: change.after.replicas <= 3, level: standard, tell: [sre], caps: {lines: 4}, quota: {per_day: 7}}
- {id: none, match: {}, level: standard, quota: {per_day: 0}}
freeze:
- {id: past, zone: UTC, between: {from: 2020-01-01, to: 2020-01-02}}
- {id: lone, zone: UTC, daily: {from: '00:00', to: '12:00'}, approve: {from: [ghosts]}}
- {id: typo, match: {cluster: nowhere}, zone: UTC, daily: {from: '00:00', to: '12:00'}}
");
    let found = check(&s, &people(), at("2026-01-01T00:00:00Z"));
    let has = |code: &str, rule: &str| found.iter().any(|f| f.code == code && f.rule == rule);
    for (code, rule) in [
        ("policy.never_matches", "never"),
        ("policy.always_true", "always"),
        ("policy.never_matches", "apart"),
        ("policy.never_matches", "other-operation"),
        ("policy.never_clear", "typed"),
        ("policy.reaches_standard", "open"),
        ("policy.never_decides", "none"),
        ("policy.freeze_over", "freeze past"),
        ("policy.unknown_group", "freeze lone"),
    ] {
        assert!(has(code, rule), "{code} {rule}: {found:#?}");
    }
    for rule in ["exact", "hours", "memory", "open"] {
        assert!(!has("policy.never_matches", rule) && !has("policy.never_clear", rule), "{rule}: {found:#?}");
    }
    let open = found.iter().find(|f| f.code == "policy.reaches_standard" && f.rule == "open").unwrap();
    assert_eq!(
        open.message,
        "Commits without a person: scale, risk low, when change.after.replicas <= 3, at most 4 lines, at most 7 a day."
    );
    let names = check_names(&s, &Known { clusters: vec!["prod".into()], ..Known::default() });
    assert!(names.iter().any(|f| f.rule == "freeze typo" && f.code == "policy.never_matches"), "{names:#?}");
}

#[test]
fn explain_says_what_would_have_been_needed() {
    let f = with_values("scale", &[("env", "staging")], json!({"replicas": 3}), json!({"replicas": 50}));
    let text = explain(&set(SMALL), &people(), &f);
    for says in [
        "small (p.yaml): no: `when` is false: change.after.replicas <= 10",
        "Needed: for rule small (standard): when change.after.replicas <= 10",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let text = explain(&set(SMALL), &people(), &facts("restart", &[("env", "prod")]));
    let says = "Needed: for rule small (standard): operation scale or set_image, label env=staging";
    assert!(text.contains(says), "{text}");
    let frozen = explain(
        &set(FROZEN),
        &people(),
        &Facts { now: at("2026-07-04T12:00:00Z"), ..facts("scale", &[("env", "staging")]) },
    );
    for says in [
        "freeze weekend (p.yaml): on until 2026-07-06 00:00 UTC",
        "freeze year-end (p.yaml): off (from 2026-12-20 00:00 to 2027-01-04 00:00, UTC)",
        "Asks: 1 of bob (dev)",
    ] {
        assert!(frozen.contains(says), "{says}: {frozen}");
    }
    let over = explain(&set(PROD), &people(), &Facts { lines: 11, ..facts("scale", &[("env", "prod")]) });
    assert!(over.contains("Needed: at most 10 lines (there are 11)"), "{over}");
}

#[test]
fn replay_decides_the_past_anew() {
    use crate::change::tests::given::{Given, event};
    use crate::model::Body;
    let proposed = |n: u64, facts: Option<&Facts>| {
        let mut body = Given::prompted().proposed();
        if let Body::Proposed { proposal, .. } = &mut body {
            proposal.facts = facts.map_or(Value::Null, |f| serde_json::to_value(f).unwrap());
            proposal.requester.agent = "sre-bot".into();
        }
        event(n, i64::try_from(n).unwrap() * 1000, body)
    };
    let f = |n: u32| with_values("scale", &[("env", "staging")], json!({}), json!({"replicas": n}));
    let events = [
        proposed(1, Some(&f(3))),
        proposed(2, Some(&f(30))),
        proposed(3, None),
        proposed(4, Some(&f(4))),
        proposed(5, Some(&f(5))),
    ];
    let s = set("
version: 1
rules:
- {id: prod, match: {}, when: change.after.replicas <= 10, level: prompted, approve: {from: [sre]}, quota: {per_day: 3}}
");
    let rows = replay(&s, None, &events);
    let would: Vec<_> = rows.iter().map(|r| r.would_be.as_ref().map(|w| w.level)).collect();
    // The second is refused and counts for no quota; the third counts as it was decided then.
    assert_eq!(would, [Some("prompted"), Some("deny"), None, Some("prompted"), Some("deny")]);
    assert_eq!(rows[0].differs, Vec::<String>::new());
    assert!(rows[1].differs.contains(&"level: prompted -> deny".to_owned()), "{:?}", rows[1]);
    assert!(rows[2].why[0].contains("older version"), "{:?}", rows[2]);
    assert!(rows[4].why.iter().any(|w| w.contains("3 changes of this agent")), "{:?}", rows[4]);
}

#[test]
fn a_call_in_short_form_becomes_facts() {
    let s = set(SMALL);
    let f = call(&s, json!({"operation": "scale", "labels": {"env": "staging"}, "after": {"replicas": 5}})).unwrap();
    assert_eq!(decide(&s, &people(), &f).decided.level, Level::Standard);
    for bad in [
        json!({"operation": "scael"}),
        json!({"after": {"replica": 5}}),
        json!({"colour": 1}),
        json!([]),
        json!({"now": "today"}),
    ] {
        assert_eq!(call(&s, bad.clone()).unwrap_err().code, "policy.call", "{bad}");
    }
}
