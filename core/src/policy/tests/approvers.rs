//! Who may approve, and when there are too few of them.

use super::*;

#[test]
fn groups_without_a_common_member_group_are_a_conflict() {
    let s = set("
version: 1
rules:
- {id: a, match: {}, level: prompted, approve: {from: [sre]}}
- {id: b, match: {}, level: prompted, approve: {from: [dev]}}
");
    let d = decide(&s, &people(), &facts("scale", &[]));
    assert_eq!((d.decided.level, d.problem.unwrap().code.as_ref()), (Level::Deny, "policy.conflicting_approvers"));
}

#[test]
fn too_few_people_is_deny_with_the_reason() {
    let s = |count: u32| {
        set(&format!(
            "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, approve: {{from: [sre], count: {count}}}}}]"
        ))
    };
    assert_eq!(decide(&s(2), &people(), &facts("scale", &[])).decided.level, Level::Prompted);
    let d = decide(&s(3), &people(), &facts("scale", &[]));
    assert_eq!((d.decided.level, d.problem.unwrap().code.as_ref()), (Level::Deny, "policy.no_approvers"));
    assert_eq!(decide(&s(1), &[], &facts("scale", &[])).decided.level, Level::Deny);
    let mut twins = vec![person("ann", 1, &["sre"]), person("ann2", 1, &["sre"])];
    assert_eq!(
        decide(&s(2), &twins, &facts("scale", &[])).decided.level,
        Level::Deny,
        "one Telegram account is one person"
    );
    twins.push(person("jon-again", 3, &["sre"]));
    twins.push(person("jon", 3, &["sre"]));
    assert_eq!(
        decide(&s(2), &twins, &facts("scale", &[])).decided.level,
        Level::Deny,
        "the sponsor's second entry is the sponsor"
    );
    let unreachable = vec![Named {
        name: "x".into(),
        spec: PersonSpec { groups: vec!["sre".into()], forge: Some("x".into()), ..PersonSpec::default() },
    }];
    assert_eq!(decide(&s(1), &unreachable, &facts("scale", &[])).decided.level, Level::Deny);
}

#[test]
fn the_sponsor_counts_only_where_a_rule_says_so() {
    let s = |allow: bool| {
        set(&format!(
            "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, approve: {{from: [sre], allow_sponsor: {allow}}}}}]"
        ))
    };
    let jon = [person("jon", 3, &["sre"])];
    assert_eq!(decide(&s(false), &jon, &facts("scale", &[])).decided.level, Level::Deny);
    let d = decide(&s(true), &jon, &facts("scale", &[])).decided;
    assert_eq!((d.level, d.approvers, d.quorum.allow_sponsor), (Level::Prompted, vec!["jon".to_owned()], true));
}

#[test]
fn a_pull_request_wants_one_approver_with_a_forge_login() {
    let s = |count: u32| {
        set(&format!(
            "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, deliver: pull_request, approve: {{from: [sre], count: {count}}}}}]"
        ))
    };
    let mut p = people();
    assert_eq!(decide(&s(1), &p, &facts("scale", &[])).problem.unwrap().code, "policy.no_approvers");
    p[0].spec.forge = Some("ann".into());
    assert_eq!(decide(&s(1), &p, &facts("scale", &[])).decided.approvers, ["ann"]);
    assert_eq!(decide(&s(2), &p, &facts("scale", &[])).problem.unwrap().code, "policy.pull_request_quorum");
}

fn of_both(more: &str) -> PolicySet {
    set(&format!(
        "version: 1\nrules: [{{id: a, match: {{}}, level: prompted, approve: {{from: [sre, rel], count: 2, different_groups: true}}}}{more}]"
    ))
}

#[test]
fn different_groups_take_a_person_for_each_of_them() {
    let decided = |people: &[Named<PersonSpec>]| decide(&of_both(""), people, &facts("scale", &[]));
    let d =
        decided(&[person("ann", 1, &["sre"]), person("amy", 2, &["sre", "dev"]), person("rae", 4, &["rel", "sre"])])
            .decided;
    assert_eq!((d.level, d.quorum.count, d.quorum.different_groups), (Level::Prompted, 2, true));
    let answers: Vec<(&str, Vec<&str>)> =
        d.answers.iter().map(|(p, g)| (p.as_str(), g.iter().map(String::as_str).collect())).collect();
    assert_eq!(answers, [("amy", vec!["sre"]), ("ann", vec!["sre"]), ("rae", vec!["rel", "sre"])]);
    assert_eq!(
        (d.votes(["ann", "amy"]), d.votes(["ann", "rae"]), d.votes(["rae"]), d.votes(["zoe", "ann"])),
        (1, 2, 1, 1)
    );
    assert_eq!(d.still_asked(["ann", "amy"]), ["rel"]);
    assert_eq!(d.still_asked(["rae"]), ["rel", "sre"], "one more of either");
    assert!(d.still_asked(["ann", "rae"]).is_empty());
    let plain = set("version: 1\nrules: [{id: a, match: {}, level: prompted, approve: {from: [sre, rel], count: 2}}]");
    let d = decide(&plain, &people(), &facts("scale", &[])).decided;
    assert!(!d.quorum.different_groups && d.answers.is_empty() && d.still_asked(["ann"]).is_empty());
    assert!(!serde_json::to_string(&d).unwrap().contains("different"), "what others are written as does not change");
}

#[test]
fn people_who_cannot_be_of_different_groups_are_too_few_and_it_says_which_group_lacks_somebody() {
    let refused = |people: &[Named<PersonSpec>]| {
        let d = decide(&of_both(""), people, &facts("scale", &[]));
        assert_eq!(d.decided.level, Level::Deny);
        let p = d.problem.unwrap();
        assert_eq!(p.code, "policy.no_approvers");
        p.message
    };
    let sres = [person("ann", 1, &["sre"]), person("amy", 2, &["sre"])];
    assert!(refused(&sres).contains("nobody with Telegram or an ssh key is left to answer for rel."));
    // The sponsor would be the one.
    let with_sponsor = [person("ann", 1, &["sre"]), person("amy", 2, &["sre"]), person("jon", 3, &["rel"])];
    assert!(refused(&with_sponsor).contains("left to answer for rel."));
    let twins = [person("ann", 1, &["sre"]), person("ann2", 1, &["rel"]), person("amy", 2, &["sre"])];
    assert!(refused(&twins).contains("left to answer for rel."), "one account is one person, of one group");
    assert!(refused(&[person("ann", 1, &["sre", "rel"])]).contains("2 of rel, sre must say yes"));
}

#[test]
fn different_groups_hold_where_any_of_the_rules_asks_for_them() {
    let all = [person("ann", 1, &["sre"]), person("amy", 2, &["sre"]), person("rae", 4, &["rel"])];
    let with = |more: &str| decide(&of_both(more), &all, &facts("scale", &[])).decided;
    let d = with(", {id: b, match: {}, level: prompted, approve: {from: [rel, sre, dev], count: 1}}");
    assert_eq!((d.quorum.count, d.quorum.different_groups), (2, true));
    let narrow = with(", {id: b, match: {}, level: prompted, approve: {from: [sre], count: 2}}");
    assert_eq!(narrow.level, Level::Deny, "two of one group that all rules take are not of two groups");
    let plain = set("version: 1\nrules: [{id: a, match: {}, level: prompted, approve: {from: [sre, rel], count: 2}}]");
    let old = decide(&plain, &all, &facts("scale", &[])).decided;
    assert!(tightened(&old, &d).unwrap().contains("another group"));
    assert_eq!(tightened(&d, &old), None);
}

#[test]
fn one_account_one_login_or_one_key_is_one_person() {
    let spec = |telegram, forge: &str, keys: &[&str]| PersonSpec {
        telegram: Some(telegram),
        forge: (!forge.is_empty()).then(|| forge.to_owned()),
        ssh_keys: keys.iter().map(|k| (*k).to_owned()).collect(),
        ..PersonSpec::default()
    };
    let ann = spec(1, "Ann", &["ssh-ed25519 AAAA1 ann@home", "ssh-ed25519 AAAA2"]);
    for (other, shared) in [
        (spec(1, "bob", &[]), Some("Telegram id")),
        (spec(2, "ANN", &[]), Some("forge login")),
        (spec(2, "", &["ssh-ed25519 AAAA3", "  ssh-ed25519  AAAA2 bob@work"]), Some("ssh key")),
        (spec(2, "bob", &["ssh-ed25519 AAAA3 ann@home"]), None),
        (spec(2, "", &["", "ssh-ed25519"]), None),
        (PersonSpec::default(), None),
    ] {
        assert_eq!(shared_identity(&ann, &other), shared, "{other:?}");
        assert_eq!(shared_identity(&other, &ann), shared, "{other:?}");
    }
    let none = PersonSpec { ssh_keys: vec![String::new()], ..PersonSpec::default() };
    assert_eq!(shared_identity(&none, &none), None, "nothing in common is not one person");
}
