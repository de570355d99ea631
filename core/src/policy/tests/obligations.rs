//! Quotas, and obligations, of which the strictest counts.

use super::*;
use crate::model::Confirm;

#[test]
fn the_strictest_of_each_obligation_counts() {
    let s = set("
version: 1
rules:
- {id: a, match: {}, level: prompted, approve: {from: [sre, dev], count: 1, expires: 2h, allow_sponsor: true}, deliver: direct, caps: {lines: 50}, tell: [dev]}
- {id: b, match: {operation: scale}, level: prompted, approve: {from: [sre], count: 2, expires: 20m, remind: 1m}, deliver: merge_after_approval, caps: {lines: 5}, on_base_move: reapprove}
- {id: c, match: {}, level: standard, tell: [sre]}
");
    let d = decide(&s, &people(), &facts("scale", &[]));
    let x = &d.decided;
    assert_eq!((x.level, x.delivery, x.expires_s), (Level::Prompted, Delivery::MergeAfterApproval, 1200));
    assert_eq!((x.quorum.count, x.quorum.groups.clone(), x.quorum.allow_sponsor), (2, vec!["sre".to_owned()], false));
    assert_eq!(x.tell, ["ann", "bob", "jon"]);
    assert_eq!(d.on_base_move, OnBaseMove::Reapprove);
    let over = decide(&s, &people(), &Facts { lines: 6, ..facts("scale", &[]) });
    assert_eq!(over.decided.level, Level::Manual);
    assert!(over.why.last().unwrap().contains("6 lines are more than the 5 that rule b allows"), "{:?}", over.why);
}

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
