//! Conditions, and the values that they see.

use super::*;
use crate::model::{Operation, Scale, SetImage, quantity};

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
