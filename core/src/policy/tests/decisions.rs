//! Which rule decides and why, and when a decision has become stricter.

use super::*;

#[test]
fn a_matching_rule_decides_and_says_why() {
    let s = set(PROD);
    let d = decide(&s, &people(), &facts("scale", &[("env", "prod")]));
    assert_eq!(d.decided.level, Level::Prompted);
    assert_eq!(d.decided.rules, ["prod"]);
    assert_eq!(d.decided.approvers, ["ann", "bob"], "the sponsor is not among them");
    assert_eq!((d.decided.expires_s, d.remind_s), (1800, Some(300)));
    assert_eq!(d.decided.policy_version, s.version());
    assert_eq!(d.why, ["Rule prod says prompted."]);
    assert_eq!(asks(&d.decided), "1 of ann, bob (sre)");
}

#[test]
fn what_no_rule_matches_takes_the_default_and_no_default_is_deny() {
    let d = decide(&set(PROD), &people(), &facts("scale", &[("env", "dev")]));
    assert_eq!((d.decided.level, d.decided.rules.as_slice()), (Level::Deny, &["default".to_owned()][..]));
    assert_eq!(d.problem.unwrap().code, "policy.denied");
    let none = PolicySet::parse::<&str, &str>(&[]).unwrap();
    assert_eq!(decide(&none, &people(), &facts("scale", &[])).decided.level, Level::Deny);
    let nothing = Facts { targets: vec![], ..facts("scale", &[]) };
    assert_eq!(
        decide(&set("version: 1\nrules: [{id: a, match: {}, level: standard}]"), &people(), &nothing).decided.level,
        Level::Deny
    );
}

#[test]
fn tightening_is_noticed() {
    let d = |text: &str| decide(&set(text), &people(), &facts("scale", &[])).decided;
    let base = d("version: 1\nrules: [{id: a, match: {}, level: prompted, approve: {from: [sre], expires: 30m}}]");
    assert_eq!(tightened(&base, &base), None);
    for text in [
        "version: 1\nrules: [{id: a, match: {}, level: manual}]",
        "version: 1\nrules: [{id: a, match: {}, level: prompted, approve: {from: [sre], count: 2, expires: 30m}}]",
        "version: 1\nrules: [{id: a, match: {}, level: prompted, approve: {from: [dev], expires: 30m}}]",
        "version: 1\nrules: [{id: a, match: {}, level: prompted, approve: {from: [sre], expires: 10m}}]",
        "version: 1\nrules: [{id: a, match: {}, level: prompted, deliver: merge_after_approval, approve: {from: [sre], expires: 30m}}]",
    ] {
        assert!(tightened(&base, &d(text)).is_some(), "{text}");
    }
    assert_eq!(tightened(&base, &d("version: 1\nrules: [{id: a, match: {}, level: standard}]")), None);
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
