//! What a rule matches: labels from every source, operations, names.

use super::*;

#[test]
fn labels_count_before_and_after_and_from_every_source() {
    let s = set(STAGING);
    let level = |f: &Facts| decide(&s, &people(), f).decided.level;
    let plain = facts("label", &[("env", "staging")]);
    assert_eq!(level(&plain), Level::Standard);
    // An agent cannot label its way into a rule, nor out of one.
    let mut into = plain.clone();
    into.targets[0].labels_before = Some(BTreeMap::new());
    assert_eq!(level(&into), Level::Deny);
    let mut out_of = plain.clone();
    out_of.targets[0].labels_before = Some(labels(&[("env", "prod")]));
    assert_eq!(level(&out_of), Level::Manual);
    // The configuration and the object disagree.
    let mixed = Facts { cluster_labels: labels(&[("env", "prod")]), ..plain.clone() };
    assert_eq!(level(&mixed), Level::Deny);
    let unknown = Facts { repository_labels: labels(&[("env", "qa")]), ..plain.clone() };
    assert_eq!(level(&unknown), Level::Deny);
    // A new object's labels are the agent's own words.
    let mut new = facts("create", &[("env", "staging")]);
    new.targets[0].labels_before = None;
    assert_eq!(level(&new), Level::Deny);
    new.cluster_labels = labels(&[("env", "staging")]);
    assert_eq!(level(&new), Level::Standard);
    // A second object without the label.
    let mut two = plain.clone();
    two.targets.push(facts("label", &[]).targets[0].clone());
    assert_eq!(level(&two), Level::Deny);
}

#[test]
fn adoption_has_to_be_named_and_is_a_pull_request_unless_a_rule_says_otherwise() {
    let with = |rules: &str| {
        let s = set(&format!("version: 1\ndefault: {{level: deny}}\nrules:\n{rules}"));
        decide(&s, &forge_people(), &facts("adopt", &[("env", "prod")]))
    };
    let all = "- {id: all, match: {}, level: standard, deliver: direct}\n";
    let d = with(all);
    assert_eq!((d.decided.level, d.decided.rules.len()), (Level::Deny, 2), "the default counts as well: {d:?}");
    assert!(d.why.iter().any(|w| w.contains("does not name the operation adopt")), "{:?}", d.why);
    let lists = "- {id: lists, match: {operation: [create, delete]}, level: standard}\n";
    assert_eq!(with(lists).decided.level, Level::Deny);

    let named = "- {id: named, match: {operation: [adopt]}, level: prompted, approve: {from: [sre]}}\n";
    let d = with(&format!("{all}{named}"));
    assert_eq!((d.decided.level, d.decided.delivery), (Level::Prompted, Delivery::PullRequest));
    assert_eq!(d.decided.approvers, ["ann", "bob"], "whose merge is the approval");
    let alone = "- {id: alone, match: {operation: [adopt]}, level: standard}\n";
    let d = with(&format!("{all}{alone}"));
    assert_eq!((d.decided.level, d.decided.delivery), (Level::Standard, Delivery::MergeAfterApproval));
    let direct = "- {id: direct, match: {operation: adopt}, level: standard, deliver: direct}\n";
    assert_eq!(with(direct).decided.delivery, Delivery::Direct);
    assert_eq!(with(&format!("{direct}{named}")).decided.delivery, Delivery::PullRequest, "one says nothing");
    let merge = "- {id: merge, match: {}, level: standard, deliver: merge_after_approval}\n";
    assert_eq!(with(&format!("{direct}{merge}")).decided.delivery, Delivery::MergeAfterApproval);
    // Something else in the same change is no word about it either.
    let mut both = facts("adopt", &[]);
    both.targets.push(facts("scale", &[]).targets[0].clone());
    let s = set(&format!("version: 1\nrules:\n{direct}"));
    let d = decide(&s, &people(), &both);
    assert_eq!((d.decided.level, d.decided.delivery), (Level::Deny, Delivery::PullRequest));
}

fn forge_people() -> Vec<Named<PersonSpec>> {
    let mut all = people();
    all.iter_mut().for_each(|p| p.spec.forge = Some(p.name.clone()));
    all
}

#[test]
fn every_condition_must_hold() {
    let s = set("
version: 1
rules:
- id: a
  match: {cluster: prod-*, namespace: [shop], kind: Deployment, agent: '*-bot', repository: deploy, risk: [low], operation: scale}
  level: standard
");
    let ok = facts("scale", &[]);
    let level = |f: &Facts| decide(&s, &[], f).decided.level;
    assert_eq!(level(&ok), Level::Standard);
    let with = |change: fn(&mut Facts)| {
        let mut f = ok.clone();
        change(&mut f);
        level(&f)
    };
    assert_eq!(with(|f| f.cluster = "staging".into()), Level::Deny);
    assert_eq!(with(|f| f.targets[0].namespace = "shop2".into()), Level::Deny);
    assert_eq!(with(|f| f.targets[0].kind = "StatefulSet".into()), Level::Deny);
    assert_eq!(with(|f| f.targets[0].operation = "delete".into()), Level::Deny);
    assert_eq!(with(|f| f.agent = "human".into()), Level::Deny);
    assert_eq!(with(|f| f.repository = "deploy2".into()), Level::Deny);
    assert_eq!(with(|f| f.risk = RiskLevel::Medium), Level::Deny);
    assert_eq!(with(|f| f.privileged = Some("x".into())), Level::Manual);
}

#[test]
fn globs_match_whole_names() {
    for (p, t, is) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("*", "x/y", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*c", "abc", true),
        ("a*c", "ac", true),
        ("a*c", "acb", false),
        ("a*a", "a", false),
        ("*b*", "abc", true),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "acb", false),
    ] {
        assert_eq!(super::matching::glob(p, t), is, "{p} {t}");
    }
}
