//! What `explain`, `replay` and a call in short form make of a change.

use super::*;

#[test]
fn explain_names_each_rule_with_its_reason() {
    let text = explain(&set(PROD), &people(), &facts("restart", &[("env", "prod")]));
    assert!(text.contains("prod (p.yaml): no: operation is restart"), "{text}");
    assert!(text.contains("Decision: deny"), "{text}");
    let text = explain(
        &set(STAGING),
        &people(),
        &Facts { cluster_labels: labels(&[("env", "prod")]), ..facts("scale", &[("env", "staging")]) },
    );
    assert!(
        text.contains("may match, so it counts, standard: sources disagree about label env: prod and staging"),
        "{text}"
    );
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
