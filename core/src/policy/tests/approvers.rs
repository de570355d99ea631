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
