//! What `check` finds in a policy, and the tests that a policy brings along.

use super::*;

#[test]
fn check_lists_what_reaches_standard_and_what_never_decides() {
    let s = set("
version: 1
default: {level: standard}
rules:
- {id: open, match: {labels: {env: dev}, operation: scale}, level: standard}
- {id: closed, match: {labels: {env: dev}}, level: manual}
- {id: nobody, match: {}, level: prompted, approve: {from: [ghosts], count: 2}}
- {id: sponsor, match: {}, level: prompted, approve: {from: [sre], expires: 5m, remind: 10m, allow_sponsor: true}}
- {id: by-hand, match: {kind: Node}, level: manual, deliver: pull_request}
- {id: refused, match: {kind: Lease}, level: deny, deliver: direct}
- {id: merged, match: {kind: Service}, level: prompted, approve: {from: [sre]}, deliver: merge_after_approval}
");
    let f = check(&s, &[person("ann", 1, &["sre"]), person("amy", 1, &["sre"])], 0);
    let has = |code: &str, rule: &str| f.iter().any(|x| x.code == code && x.rule == rule);
    for (code, rule) in [
        ("policy.reaches_standard", "open"),
        ("policy.never_decides", "open"),
        ("policy.unknown_group", "nobody"),
        ("policy.no_approvers", "nobody"),
        ("policy.sponsor_allowed", "sponsor"),
        ("policy.reminds_too_late", "sponsor"),
        ("policy.default_standard", "default"),
        ("policy.same_person", ""),
        ("policy.deliver_unused", "by-hand"),
        ("policy.deliver_unused", "refused"),
    ] {
        assert!(has(code, rule), "{code} {rule}: {f:#?}");
    }
    assert!(!has("policy.never_decides", "closed") && !has("policy.deliver_unused", "closed"));
    assert!(!has("policy.deliver_unused", "merged"));
    assert!(f.windows(2).all(|w| w[0].severity >= w[1].severity));
    assert_eq!(check(&PolicySet::parse::<&str, &str>(&[]).unwrap(), &[], 0)[0].code, "policy.empty");
}

#[test]
fn names_that_do_not_exist_are_found() {
    let s = set(
        "version: 1\nrules:\n- {id: a, match: {cluster: prod}, level: deny}\n- {id: b, match: {cluster: [eu-*, us], agent: x}, level: deny}\n",
    );
    let known = Known { clusters: vec!["eu-1".into()], repositories: vec![], agents: vec!["x".into()] };
    let f = check_names(&s, &known);
    assert_eq!(
        f.iter().map(|f| (f.rule.as_str(), f.code)).collect::<Vec<_>>(),
        [("a", "policy.never_matches"), ("b", "policy.unknown_name")]
    );
}

#[test]
fn a_failing_test_says_what_differs() {
    let s = set(&format!(
        "{PROD}tests:\n- {{given: {{operation: scale, labels: {{env: prod}}}}, expect: {{level: standard, rule: x}}}}\n"
    ));
    let r = run_tests(&s);
    assert_eq!(r[0].failures, ["level is prompted, expected standard", "rule is prod, expected x"]);
}

#[test]
fn the_examples_pass_their_own_tests() {
    let files = [
        ("read-only.yaml", include_str!("../../../../policies/read-only.yaml")),
        ("cautious.yaml", include_str!("../../../../policies/cautious.yaml")),
        ("trusted-staging.yaml", include_str!("../../../../policies/trusted-staging.yaml")),
        ("production-quorum.yaml", include_str!("../../../../policies/production-quorum.yaml")),
        ("infrastructure.yaml", include_str!("../../../../policies/infrastructure.yaml")),
    ];
    for (name, text) in files {
        let s = PolicySet::parse(&[(name, text)]).unwrap();
        assert!(s.test_count() >= 2, "{name}");
        for t in run_tests(&s) {
            assert!(t.failures.is_empty(), "{name}: {}: {:?}", t.name, t.failures);
        }
        // Each rule of an example is shown at work by one of its tests.
        for rule in s.rules() {
            assert!(text.split("tests:").nth(1).unwrap().contains(&rule.id), "{name}: no test names {}", rule.id);
        }
        for freeze in s.freezes() {
            assert!(text.split("tests:").nth(1).unwrap().contains(&freeze.id), "{name}: no test names {}", freeze.id);
        }
        let never = [
            "policy.never_decides",
            "policy.never_matches",
            "policy.never_clear",
            "policy.no_approvers",
            "policy.deliver_unused",
        ];
        let found: Vec<_> = check(&s, &stand_ins(&s), 0).into_iter().filter(|f| never.contains(&f.code)).collect();
        assert_eq!(found, [], "{name}");
    }
}

/// Codes of what is found about the one rule of a policy.
fn codes_of(rule: &str) -> Vec<&'static str> {
    let s = set(&format!("version: 1\ndefault: {{level: deny}}\nrules:\n- {{id: rule, level: deny, {rule}}}\n"));
    let found = check(&s, &people(), at("2026-01-01T00:00:00Z"));
    found.iter().filter(|f| f.rule == "rule").map(|f| f.code).collect()
}

// One test for each: every sample is tried before a condition is called hopeless.
#[test]
fn bounds_that_exclude_each_other_never_match() {
    let rule = "match: {operation: scale}, when: change.after.replicas < 5 && change.after.replicas > 9";
    assert_eq!(codes_of(rule), ["policy.never_matches"]);
}

#[test]
fn an_operation_that_match_leaves_out_never_matches() {
    assert_eq!(codes_of("match: {operation: scale}, when: change.operation == 'restart'"), ["policy.never_matches"]);
}

#[test]
fn a_number_compared_with_a_text_is_never_clear() {
    assert_eq!(codes_of("match: {}, when: \"change.after.replicas <= '3'\""), ["policy.never_clear"]);
}

#[test]
fn check_finds_what_never_matches_and_windows_that_are_over() {
    let s = set("
version: 1
default: {level: deny}
rules:
- {id: never, match: {}, when: 1 > 2, level: deny}
- {id: always, match: {}, when: 2 > 1, level: deny}
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
fn different_groups_that_could_never_be_met_are_refused_and_those_that_nobody_can_meet_are_found() {
    let rule = |approve: &str| {
        format!(
            "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, approve: {{{approve}, different_groups: true}}}}]"
        )
    };
    for (approve, words) in [
        ("from: [sre, rel]", "a `count` of at least 2"),
        ("from: [sre, rel], count: 1", "a `count` of at least 2"),
        ("from: [sre, rel], count: 3", "name only 2"),
        ("from: [sre, sre], count: 2", "name only 1"),
        ("from: [sre], count: 3, escalate: {after: 10m, to: [rel]}", "name only 2"),
    ] {
        let p = refused(&rule(approve));
        assert!(
            p.code == "policy.invalid" && p.message.contains("different_groups") && p.message.contains(words),
            "{p}"
        );
    }
    let s = set(&rule("from: [sre], count: 2, escalate: {after: 10m, to: [rel]}"));
    let found = |people: &[Named<PersonSpec>]| {
        let f = check(&s, people, 0).into_iter().find(|f| f.code == "policy.no_approvers");
        f.map(|f| f.message)
    };
    let (ann, amy, rae) = (person("ann", 1, &["sre"]), person("amy", 2, &["sre"]), person("rae", 4, &["rel"]));
    assert_eq!(found(&[ann.clone(), rae]), None);
    assert_eq!(
        found(&[ann, amy]).as_deref(),
        Some("2 people must say yes, each of another group, but nobody is left to answer for rel.")
    );
}

#[test]
fn a_freeze_whose_approvers_are_of_one_group_is_found() {
    let s = set("
version: 1
rules: [{id: a, match: {}, level: prompted, approve: {from: [sre, rel], count: 2, different_groups: true}}]
freeze: [{id: night, zone: UTC, daily: {from: '22:00', to: '06:00'}, approve: {from: [night]}}]
");
    let people =
        |groups: &[&str]| [person("ann", 1, &["sre", "night"]), person("amy", 2, groups), person("rae", 4, &["rel"])];
    let found = |groups: &[&str]| check(&s, &people(groups), 0).into_iter().find(|f| f.code == "policy.no_approvers");
    assert!(found(&["sre", "night"]).unwrap().message.contains("for rule a, each of another group, and there is 1."));
    assert_eq!(found(&["rel", "night"]), None);
}

#[test]
fn a_test_can_expect_different_groups_and_explain_says_them() {
    let file = |expect: bool| {
        format!(
            "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, approve: {{from: [sre, rel], count: 2, different_groups: true}}}}]\ntests: [{{given: {{operation: scale}}, expect: {{level: prompted, count: 2, different_groups: {expect}}}}}]"
        )
    };
    assert!(run_tests(&set(&file(true)))[0].failures.is_empty());
    assert_eq!(run_tests(&set(&file(false)))[0].failures, ["different_groups is true, expected false"]);
    let all = [person("ann", 1, &["sre"]), person("rae", 4, &["rel"])];
    let said = explain(&set(&file(true)), &all, &facts("scale", &[]));
    assert!(said.contains("Asks: 2 of ann, rae (of different groups: rel, sre)\n"), "{said}");
}
