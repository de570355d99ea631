use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::risk::{ObjectChange, assess};
use super::*;
use crate::model::{Delivery, LeafChange, Level, Named, ObjectKey, PersonSpec, RiskLevel};

mod depth;

fn set(text: &str) -> PolicySet {
    PolicySet::parse(&[("p.yaml", text)]).unwrap()
}

fn refused(text: &str) -> crate::Problem {
    PolicySet::parse(&[("p.yaml", text)]).unwrap_err()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn person(name: &str, telegram: i64, groups: &[&str]) -> Named<PersonSpec> {
    Named {
        name: name.into(),
        spec: PersonSpec {
            telegram: Some(telegram),
            groups: groups.iter().map(|g| (*g).into()).collect(),
            ..PersonSpec::default()
        },
    }
}

fn people() -> Vec<Named<PersonSpec>> {
    vec![person("ann", 1, &["sre"]), person("bob", 2, &["sre", "dev"]), person("jon", 3, &["sre"])]
}

fn facts(operation: &str, own: &[(&str, &str)]) -> Facts {
    Facts {
        targets: vec![Target {
            operation: operation.into(),
            namespace: "shop".into(),
            kind: "Deployment".into(),
            labels_before: Some(labels(own)),
            labels_after: Some(labels(own)),
            values: None,
        }],
        cluster: "prod-eu".into(),
        cluster_labels: BTreeMap::new(),
        repository: "deploy".into(),
        repository_labels: BTreeMap::new(),
        agent: "sre-bot".into(),
        sponsor: "jon".into(),
        risk: RiskLevel::Low,
        files: 1,
        lines: 2,
        objects: 1,
        privileged: None,
        now: 0,
        counts: Counts::new(),
    }
}

const PROD: &str = "
version: 1
default: {level: deny}
rules:
- id: prod
  match: {labels: {env: prod}, operation: [set_image, scale]}
  level: prompted
  approve: {from: [sre], count: 1, expires: 30m, remind: 5m}
  deliver: direct
  caps: {files: 1, lines: 10, objects: 1}
";

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
fn malformed_policies_are_refused_with_file_and_line() {
    let cases = [
        ("version: 1\nrules:\n- id: a\n  match: {}\n  level: sometimes\n", "policy.syntax", "p.yaml:5"),
        ("version: 1\nrules:\n- id: a\n  match: {colour: red}\n  level: deny\n", "policy.syntax", "p.yaml:4"),
        ("version: 1\nrule: []\n", "policy.syntax", "p.yaml:2"),
        ("version: 1\nversion: 1\n", "policy.syntax", "p.yaml:2"),
        ("rules: []\n", "policy.syntax", "p.yaml"),
        ("version: 2\n", "policy.version", "version 2"),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: standard, when: 'change.after.replicas <='}\n",
            "policy.condition",
            "p.yaml:3, rule \"a\"",
        ),
        ("version: 1\nrules:\n- {id: a, match: {operation: scael}, level: deny}\n", "policy.invalid", "set_image"),
        ("version: 1\nrules:\n- {id: a, match: {operation: []}, level: deny}\n", "policy.invalid", "empty"),
        ("version: 1\nrules:\n- {id: a, match: {}, level: prompted}\n", "policy.invalid", "approve"),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: prompted, approve: {from: [], count: 1}}\n",
            "policy.invalid",
            "from",
        ),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: prompted, approve: {from: [x], count: 0}}\n",
            "policy.invalid",
            "count",
        ),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: prompted, approve: {from: [x], expires: 3 hours}}\n",
            "policy.invalid",
            "duration",
        ),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: prompted, approve: {from: [x], expires: 25h}}\n",
            "policy.invalid",
            "24h",
        ),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: standard, deliver: pull_request}\n",
            "policy.invalid",
            "approval",
        ),
        ("version: 1\nrules:\n- {id: default, match: {}, level: deny}\n", "policy.invalid", "id"),
        (
            "version: 1\nrules:\n- {id: a, match: {}, level: deny}\n- {id: a, match: {}, level: deny}\n",
            "policy.duplicate_rule",
            "a",
        ),
        ("\t", "policy.syntax", "p.yaml"),
        ("version: 1\nrules:\n- id: a\n   match: {}\n", "policy.syntax", "p.yaml"),
    ];
    for (text, code, says) in cases {
        let p = refused(text);
        assert_eq!(p.code, code, "{text}: {p}");
        assert!(p.message.contains(says), "{text}: {}", p.message);
    }
    assert_eq!(PolicySet::parse(&[("x", &[0xffu8, 0xfe][..])]).unwrap_err().code, "policy.encoding");
    let two =
        PolicySet::parse(&[("a", "version: 1\ndefault: {level: deny}"), ("b", "version: 1\ndefault: {level: manual}")]);
    assert_eq!(two.unwrap_err().code, "policy.two_defaults");
}

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

const STAGING: &str = "
version: 1
default: {level: deny}
rules:
- {id: staging, match: {labels: {env: staging}}, level: standard}
- {id: prod, match: {labels: {env: prod}}, level: manual}
";

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

#[test]
fn the_version_covers_every_byte_and_not_the_order() {
    let v = |files: &[(&str, &str)]| PolicySet::parse(files).unwrap().version().to_owned();
    let (a, b) = (("a", "version: 1\n"), ("b", "version: 1\n#\n"));
    assert_eq!(v(&[a, b]), v(&[b, a]));
    assert_ne!(v(&[a]), v(&[("a", "version: 1\n\n")]));
    assert_ne!(v(&[a]), v(&[("c", "version: 1\n")]));
    assert_eq!(v(&[a]).len(), 64);
}

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
    ] {
        assert!(has(code, rule), "{code} {rule}: {f:#?}");
    }
    assert!(!has("policy.never_decides", "closed"));
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
        ("read-only.yaml", include_str!("../../../policies/read-only.yaml")),
        ("cautious.yaml", include_str!("../../../policies/cautious.yaml")),
        ("trusted-staging.yaml", include_str!("../../../policies/trusted-staging.yaml")),
        ("production-quorum.yaml", include_str!("../../../policies/production-quorum.yaml")),
        ("infrastructure.yaml", include_str!("../../../policies/infrastructure.yaml")),
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
        let never = ["policy.never_decides", "policy.never_matches", "policy.never_clear", "policy.no_approvers"];
        let found: Vec<_> = check(&s, &stand_ins(&s), 0).into_iter().filter(|f| never.contains(&f.code)).collect();
        assert_eq!(found, [], "{name}");
    }
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

// ---- properties -------------------------------------------------------------------------------

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
    let more = (when, prop::option::of(0u32..4), prop::option::of(1u32..50), any::<bool>());
    (label, op, level, groups, 1u32..3, 1u32..60, deliver, prop::option::of(1u32..5), any::<bool>(), more).prop_map(
        move |(label, op, level, groups, count, minutes, deliver, cap, sponsor, (when, quota, escalate, confirm))| {
            let labels = label.map_or(String::new(), |l| format!("labels: {{env: {l}}}"));
            let op = op.map_or(String::new(), |o| format!("operation: {o}"));
            let matches = [labels, op].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ");
            let mut r = format!("- {{id: r{i}, match: {{{matches}}}, level: {level}");
            if level == "prompted" {
                r.push_str(&format!(
                    ", approve: {{from: {groups}, count: {count}, allow_sponsor: {sponsor}{}{}{}}}",
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

// ---- privileged paths and kinds ----------------------------------------------------------------

#[test]
fn side_doors_are_privileged() {
    for path in [
        ".github/workflows/ci.yaml",
        ".GitHub/workflows/x",
        "a/.gitlab-ci.yml",
        "Jenkinsfile",
        "x/Makefile",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".sops.yaml",
        ".gitmodules",
        "sub/.gitattributes",
        "x/.git/config",
        "GIT~1/config",
        "countersign/policy.yaml",
        ".github./workflows/x",
        "apps/.gi\u{200c}t/x",
        "infra/secret/x",
        "Infra/secret-two",
    ] {
        assert!(privileged([path], [], &["infra/secret".into()]).is_some(), "{path}");
    }
    for path in [
        "apps/checkout/deploy.yaml",
        "clusters/prod/kustomization.yaml",
        "github/x.yaml",
        "apps/infra/secret/x",
        "README.md",
    ] {
        assert_eq!(privileged([path], [], &["infra/secret".into()]), None, "{path}");
    }
    let key = |group: &str, kind: &str| ObjectKey::new(group, kind, "x", "x");
    for (group, kind) in [
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("argoproj.io", "Application"),
        ("argoproj.io", "AppProject"),
        ("source.toolkit.fluxcd.io", "GitRepository"),
        ("kustomize.toolkit.fluxcd.io", "Kustomization"),
        ("", "ServiceAccount"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ] {
        assert!(privileged([], [&key(group, kind)], &[]).is_some(), "{kind}");
    }
    for (group, kind) in [("apps", "Deployment"), ("argoproj.io", "Rollout"), ("", "ConfigMap")] {
        assert_eq!(privileged([], [&key(group, kind)], &[]), None, "{kind}");
    }
}

// ---- risk --------------------------------------------------------------------------------------

fn leaf(group: &str, kind: &str, pointer: &str, before: Value, after: Value) -> LeafChange {
    let some = |v: Value| if v.is_null() { None } else { Some(v) };
    LeafChange {
        object: ObjectKey::new(group, kind, "shop", "x"),
        pointer: pointer.into(),
        before: some(before),
        after: some(after),
    }
}

const C: &str = "/spec/template/spec/containers/name=app";

#[test]
fn risk_of_single_fields() {
    use RiskLevel::{Critical, High, Low, Medium};
    let d = |p: &str, b: Value, a: Value| leaf("apps", "Deployment", p, b, a);
    let cases = [
        (d("/spec/replicas", json!(3), json!(5)), Low, ""),
        (d("/spec/replicas", json!(3), json!(0)), High, "scale to 0"),
        (d("/spec/replicas", json!(3), Value::Null), High, "scale to 0"),
        (
            d("/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt", Value::Null, json!("now")),
            Low,
            "",
        ),
        (d("/metadata/annotations/team", Value::Null, json!("a")), Low, ""),
        (d("/metadata/annotations/team", json!("a"), Value::Null), Medium, "removes a field"),
        (d(&format!("{C}/image"), json!("reg/a:1"), json!("reg/a:2")), High, "image"),
        (d(&format!("{C}/image"), json!("reg.eu/a:1"), json!("reg.eu/b:1")), High, "other image"),
        (d(&format!("{C}/image"), json!("reg.eu/a:1"), json!("evil.example/a:1")), Critical, "other registry"),
        (d(&format!("{C}/image"), json!("nginx:1"), json!("docker.io/nginx:1")), High, "other image"),
        (d(&format!("{C}/image"), json!("reg.eu:5000/a"), json!("reg.eu:5001/a")), Critical, "other registry"),
        (d(&format!("{C}/securityContext/privileged"), Value::Null, json!(true)), Critical, "privilege"),
        (d(&format!("{C}/securityContext"), Value::Null, json!({"privileged": true})), Critical, "privilege"),
        (
            d("/spec/template/spec/volumes/name=x", Value::Null, json!({"name": "x", "hostPath": {"path": "/"}})),
            Critical,
            "privilege",
        ),
        (d("/spec/template/spec/hostNetwork", Value::Null, json!(true)), Critical, "privilege"),
        (d("/spec/template/spec/serviceAccountName", json!("a"), json!("b")), Critical, "identity"),
        (d(&format!("{C}/command"), Value::Null, json!(["sh"])), High, "command"),
        (d("/metadata/finalizers", json!(["x"]), Value::Null), Critical, "finalizers"),
        (d("/metadata/labels/env", json!("prod"), json!("dev")), High, "environment label"),
        (d("/metadata/annotations/argocd.argoproj.io~1tracking-id", json!("a"), json!("b")), Critical, "engine mark"),
        (
            leaf("argoproj.io", "Application", "/spec/source/repoURL", json!("a"), json!("b")),
            Critical,
            "engine (Application)",
        ),
        (
            leaf("kustomize.toolkit.fluxcd.io", "Kustomization", "/spec/path", json!("a"), json!("b")),
            Critical,
            "engine (Kustomization)",
        ),
        (
            leaf("rbac.authorization.k8s.io", "RoleBinding", "/subjects/0/name", json!("a"), json!("b")),
            Critical,
            "RBAC",
        ),
        (
            leaf("apiextensions.k8s.io", "CustomResourceDefinition", "/spec/scope", json!("a"), json!("b")),
            Critical,
            "CRD",
        ),
        (leaf("example.org", "Widget", "/spec/size", json!(1), json!(2)), High, "unknown kind Widget"),
        (leaf("", "Service", "/spec/type", json!("ClusterIP"), json!("LoadBalancer")), High, "exposure"),
        (leaf("", "Secret", "/data/a", json!("x"), json!("y")), Critical, "Secret"),
        (
            leaf("networking.k8s.io", "NetworkPolicy", "/spec/policyTypes/0", json!("x"), json!("y")),
            High,
            "NetworkPolicy",
        ),
    ];
    for (l, level, reason) in cases {
        let r = assess(std::slice::from_ref(&l), &["f".into()], &[], &[]);
        assert_eq!(r.level, level, "{l:?} {r:?}");
        assert!(reason.is_empty() && r.reasons.is_empty() || r.reasons.iter().any(|x| x == reason), "{l:?} {r:?}");
    }
}

#[test]
fn risk_of_whole_objects_files_and_environments() {
    let key = |group: &str, kind: &str| ObjectKey::new(group, kind, "shop", "x");
    let gone = |group: &str, kind: &str| ObjectChange { key: key(group, kind), before: Some(json!({})), after: None };
    let level = |o: ObjectChange| assess(&[], &["f".into()], &[o], &[]).level;
    assert_eq!(level(gone("apps", "Deployment")), RiskLevel::High);
    for (g, k) in [
        ("", "Namespace"),
        ("", "PersistentVolumeClaim"),
        ("apps", "StatefulSet"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ] {
        assert_eq!(level(gone(g, k)), RiskLevel::Critical, "{k}");
    }
    let new = |v: Value| ObjectChange { key: key("apps", "Deployment"), before: None, after: Some(v) };
    assert_eq!(level(new(json!({"spec": {"replicas": 2}}))), RiskLevel::Medium);
    assert_eq!(
        level(new(
            json!({"spec": {"template": {"spec": {"containers": [{"securityContext": {"privileged": true}}]}}}})
        )),
        RiskLevel::Critical
    );
    let scale = leaf("apps", "Deployment", "/spec/replicas", json!(3), json!(5));
    for (labels, prod) in [
        (("env", "prod"), true),
        (("environment", "Production"), true),
        (("stage", "prod-eu"), true),
        (("env", "nonprod"), false),
        (("env", "staging"), false),
        (("team", "prod"), false),
    ] {
        let l = BTreeMap::from([(labels.0.to_owned(), labels.1.to_owned())]);
        let r = assess(std::slice::from_ref(&scale), &["f".into()], &[], &[&l]);
        assert_eq!(r.level == RiskLevel::High, prod, "{labels:?} {r:?}");
    }
    assert_eq!(assess(&[], &[], &[], &[]).level, RiskLevel::High, "what shows no effect is not harmless");
    let two = [scale.clone(), LeafChange { object: key("apps", "StatefulSet"), ..scale }];
    let r = assess(&two, &["a".into(), "b".into()], &[], &[]);
    assert_eq!(
        (r.level, r.reasons),
        (RiskLevel::High, vec!["2 files".to_owned(), "2 fields".to_owned(), "2 objects".to_owned()])
    );
}
