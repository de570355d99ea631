//! Properties of any rules and any change: what is added or unknown never loosens, and nothing panics.

use proptest::prelude::*;

use super::*;

/// Conditions, some of which cannot be evaluated on some changes.
const WHENS: [&str; 6] = [
    "change.after.replicas <= 3",
    "change.before.replicas != change.after.replicas",
    "labels.env == 'prod'",
    "has(change.after.tag)",
    "lines < 3 || change.after.tag == 'x'",
    "now.getHours() < 12",
];

fn any_rule(i: usize) -> impl Strategy<Value = String> {
    let label = prop::option::of(prop::sample::select(vec!["prod", "staging"]));
    let op = prop::option::of(prop::sample::select(vec!["scale", "set_image", "adopt"]));
    let level = prop::sample::select(vec!["standard", "prompted", "manual", "deny"]);
    let groups = prop::sample::select(vec!["[sre]", "[dev]", "[sre, dev]"]);
    let deliver = prop::option::of(prop::sample::select(vec!["direct", "merge_after_approval"]));
    let when = prop::option::of(prop::sample::select(WHENS.to_vec()));
    let more = (when, prop::option::of(0u32..4), prop::option::of(1u32..50), any::<bool>(), any::<bool>());
    (label, op, level, groups, 1u32..3, 1u32..60, deliver, prop::option::of(1u32..5), any::<bool>(), more).prop_map(
        move |(
            label,
            op,
            level,
            groups,
            count,
            minutes,
            deliver,
            cap,
            sponsor,
            (when, quota, escalate, confirm, different),
        )| {
            let labels = label.map_or(String::new(), |l| format!("labels: {{env: {l}}}"));
            let op = op.map_or(String::new(), |o| format!("operation: {o}"));
            let matches = [labels, op].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ");
            let mut r = format!("- {{id: r{i}, match: {{{matches}}}, level: {level}");
            if level == "prompted" {
                r.push_str(&format!(
                    ", approve: {{from: {groups}, count: {count}, allow_sponsor: {sponsor}{}{}{}{}}}",
                    // Only where the file would be read: two people, and two groups.
                    if different && count == 2 && (groups.contains(',') || escalate.is_some()) {
                        ", different_groups: true"
                    } else {
                        ""
                    },
                    if minutes % 5 == 0 { String::new() } else { format!(", expires: {minutes}m") },
                    match escalate {
                        Some(s) => format!(", escalate: {{after: {s}s, to: [boss]}}"),
                        None => String::new(),
                    },
                    if confirm { ", confirm: number" } else { "" },
                ));
            }
            if let Some(when) = when {
                r.push_str(&format!(", when: \"{when}\""));
            }
            if let Some(quota) = quota {
                r.push_str(&format!(", quota: {{per_day: {quota}}}"));
            }
            if let Some(d) = deliver {
                r.push_str(&format!(", deliver: {d}"));
            }
            if let Some(c) = cap {
                r.push_str(&format!(", caps: {{lines: {c}}}"));
            }
            r.push_str("}\n");
            r
        },
    )
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let env = || prop::option::of(prop::sample::select(vec!["prod", "staging", "qa"]));
    let values = prop::option::of((prop::option::of(0u32..6), prop::option::of(0u32..6), any::<bool>()));
    let more = (values, prop::collection::btree_map("r[0-9]{1,2}", 0u32..4, 0..4), 0i64..48);
    (prop::sample::select(vec!["scale", "set_image", "adopt"]), env(), env(), env(), 1u32..6, more).prop_map(
        |(op, before, after, cluster, lines, (values, counts, hour))| {
            let l = |e: Option<&str>| e.map_or_else(BTreeMap::new, |e| labels(&[("env", e)]));
            let mut f = facts(op, &[]);
            f.targets[0].labels_before = Some(l(before));
            f.targets[0].labels_after = Some(l(after));
            f.cluster_labels = l(cluster);
            f.lines = lines;
            f.now = hour * 3_600_000;
            f.counts = Counts::from([("r0".into(), 1), ("r1".into(), 2), ("r2".into(), 0), ("r99".into(), 1)]);
            f.counts.extend(counts);
            f.targets[0].values = values.map(|(b, a, tag)| {
                let side = |n: Option<u32>| {
                    let mut m = serde_json::Map::new();
                    m.extend(n.map(|n| ("replicas".to_owned(), json!(n))));
                    if tag {
                        m.insert("tag".into(), json!("x"));
                    }
                    Some(m)
                };
                Values { before: side(b), after: side(a) }
            });
            f
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where rules already decided, one more can only tighten. (Where none did, a rule replaces the
    /// default: that is what rules are for.)
    #[test]
    fn adding_a_rule_never_loosens(rules in prop::collection::vec(any_rule(0), 1..4), extra in any_rule(99), f in any_facts(), at in 0usize..4) {
        let numbered: Vec<String> = rules.iter().enumerate().map(|(i, r)| r.replace("id: r0", &format!("id: r{i}"))).collect();
        let mut more = numbered.clone();
        more.insert(at.min(more.len()), extra);
        let file = |r: &[String]| format!("version: 1\nrules:\n{}", r.concat());
        let old = decide(&set(&file(&numbered)), &people(), &f);
        let new = decide(&set(&file(&more)), &people(), &f);
        let decided_by_rules = !old.decided.rules.iter().any(|r| r == "default");
        if decided_by_rules {
            prop_assert!(new.decided.level >= old.decided.level, "{:?} {:?}", old, new);
            if new.decided.level == Level::Prompted && old.decided.level == Level::Prompted {
                prop_assert!(new.decided.quorum.count >= old.decided.quorum.count);
                prop_assert!(new.decided.quorum.groups.iter().all(|g| old.decided.quorum.groups.contains(g)));
                prop_assert!(new.decided.approvers.iter().all(|g| old.decided.approvers.contains(g)));
                prop_assert!(new.decided.expires_s <= old.decided.expires_s);
                prop_assert!(old.decided.quorum.allow_sponsor || !new.decided.quorum.allow_sponsor);
                prop_assert!(new.decided.quorum.different_groups || !old.decided.quorum.different_groups);
                prop_assert!(new.decided.obligations.confirm >= old.decided.obligations.confirm);
            }
            prop_assert!(new.decided.delivery >= old.decided.delivery);
        }
    }

    /// A freeze more only tightens, at any hour.
    #[test]
    fn adding_a_freeze_never_loosens(rules in prop::collection::vec(any_rule(0), 1..4), f in any_facts(), from in 0u32..24, hours in 1u32..24, env in prop::option::of(prop::sample::select(vec!["prod", "staging"])), group in prop::option::of(prop::sample::select(vec!["sre", "dev"]))) {
        let numbered: Vec<String> = rules.iter().enumerate().map(|(i, r)| r.replace("id: r0", &format!("id: r{i}"))).collect();
        let file = format!("version: 1\nrules:\n{}", numbered.concat());
        let matches = env.map_or(String::new(), |e| format!("match: {{labels: {{env: {e}}}}}, "));
        let approve = group.map_or(String::new(), |g| format!(", approve: {{from: [{g}]}}"));
        let to = (from + hours) % 24;
        let freeze = format!("freeze:\n- {{id: f, {matches}zone: Europe/Berlin, daily: {{from: '{from:02}:00', to: '{to:02}:00'}}{approve}}}\n");
        let old = decide(&set(&file), &people(), &f);
        let new = decide(&set(&format!("{file}{freeze}")), &people(), &f);
        prop_assert!(new.decided.level >= old.decided.level, "{:?} {:?}", old, new);
        if old.decided.level == Level::Prompted {
            prop_assert!(new.decided.approvers.iter().all(|p| old.decided.approvers.contains(p)));
            prop_assert!(new.decided.level == Level::Deny || new.decided.quorum.count >= old.decided.quorum.count);
        }
    }

    /// What is not known about a change is stricter than what is: a condition that cannot be evaluated
    /// lets in nothing that it does not let in on any value.
    #[test]
    fn an_unknown_value_is_never_looser(rules in prop::collection::vec(any_rule(0), 1..4), f in any_facts()) {
        let numbered: Vec<String> = rules.iter().enumerate().map(|(i, r)| r.replace("id: r0", &format!("id: r{i}"))).collect();
        let s = set(&format!("version: 1\nrules:\n{}", numbered.concat()));
        let known = decide(&s, &people(), &f);
        let mut g = f.clone();
        g.targets[0].values = None;
        let unknown = decide(&s, &people(), &g);
        // Where only the default decided, a rule that may match adds to it.
        prop_assert!(unknown.decided.level >= known.decided.level, "{:?} {:?}", known, unknown);
        for id in &known.decided.rules {
            prop_assert!(unknown.decided.rules.contains(id), "{} went away", id);
        }
    }

    /// Whatever stands in a condition, reading and evaluating it ends and panics nowhere.
    #[test]
    fn no_condition_makes_the_reader_panic(when in "[a-z0-9 .()'<>=!&|?:+,\\[\\]{}-]{0,60}", known in prop::sample::select(WHENS.to_vec()), f in any_facts()) {
        for text in [when.clone(), format!("{known} && {when}"), format!("{when} || {known}")] {
            if let Ok(c) = Condition::compile(&text) {
                for v in crate::policy::matching::views(&f) {
                    let _ = v.condition(&c);
                }
            }
        }
    }

    /// A label that a further source gives another value never loosens.
    #[test]
    fn a_contradicting_label_never_loosens(rules in prop::collection::vec(any_rule(0), 1..4), f in any_facts(), env in "[a-z]{2,5}") {
        let numbered: Vec<String> = rules.iter().enumerate().map(|(i, r)| r.replace("id: r0", &format!("id: r{i}"))).collect();
        let s = set(&format!("version: 1\nrules:\n{}", numbered.concat()));
        // A label that is missing everywhere is unclear to a condition; one more source makes it known.
        let mut f = f;
        f.cluster_labels.entry("env".into()).or_insert_with(|| "staging".into());
        let old = decide(&s, &people(), &f);
        let mut g = f.clone();
        g.repository_labels.insert("env".into(), env);
        let new = decide(&s, &people(), &g);
        prop_assert!(new.decided.level >= old.decided.level || old.decided.rules.contains(&"default".to_owned()), "{:?} {:?}", old, new);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[a-z:\\[\\]{}\\-, \n]{0,200}") {
        let _ = PolicySet::parse(&[("x", bytes)]);
        let _ = PolicySet::parse(&[("x", format!("version: 1\n{text}"))]);
    }
}
