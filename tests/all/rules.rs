//! Conditions, freezes and quotas in the whole loop, and what the journal says of them afterwards.

use std::time::Duration;

use countersign::sandbox::world::ANNA;
use serde_json::{Value, json};

use crate::engines::{CHECKOUT, PAYMENTS, quick};
use crate::people::countersign;
use crate::world::{Stage, set_image, target, text};

fn scale(name: &str, replicas: u32) -> Value {
    json!({"target": target(name), "scale": {"replicas": replicas}})
}

fn code(answer: &Value) -> &str {
    answer["problem"]["code"].as_str().unwrap_or_default()
}

const WHEN: &str = "
version: 1
default: {level: deny}
rules:
- id: small
  match: {labels: {env: prod}, operation: scale}
  when: change.after.replicas <= 4 && change.before.replicas >= 1
  level: standard
  tell: [sre]
- id: same-registry
  match: {labels: {env: prod}, operation: set_image}
  when: change.after.registry == change.before.registry && change.after.tag != 'latest'
  level: prompted
  approve: {from: [sre]}
- id: verbose
  match: {labels: {env: prod}, operation: set_env}
  when: change.after.replicas <= 100 && change.after.env['LOG_LEVEL'] == 'info'
  level: standard
";

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_looks_at_the_values_before_and_after() {
    let mut s = Stage::new(quick(WHEN.into())).await;
    let tip = s.world.tip();
    for (edit, says) in [
        (scale("checkout", 5), "for rule small (standard): when change.after.replicas <= 4"),
        (set_image("checkout", "evil.example/checkout:1"), "same-registry"),
        (set_image("checkout", "reg.example/checkout:latest"), "same-registry"),
        (
            json!({"target": target("checkout"), "set_env": {"container": "app", "name": "LOG_LEVEL", "value": "debug"}}),
            "verbose",
        ),
    ] {
        let refused = s.operate(vec![edit.clone()]).await;
        assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "policy.denied"), "{refused:#}");
        let call = json!({"edits": [edit]}).to_string();
        let explained = countersign(&s.world, &["policy", "explain", &call, "--label", "env=prod"]).await;
        assert!(explained.ok && explained.out.contains(says), "{}", explained.out);
    }
    assert_eq!((s.world.tip(), s.world.git.pushes().len()), (tip, 0));
    let scaled = s.operate(vec![scale("checkout", 4)]).await;
    assert_eq!(scaled["decision"]["rules"], json!(["small"]), "{scaled:#}");
    let change = text(&scaled, "change").to_owned();
    s.until(&change, &["healthy"]).await;
    assert!(s.world.file(CHECKOUT.file).unwrap().contains("replicas: 4"));
    let image = s.propose(set_image("payments", PAYMENTS.new)).await;
    s.press(ANNA, "Approve").await;
    s.until(&image, &["healthy"]).await;

    // The journal holds what both were decided on.
    let explained = countersign(&s.world, &["policy", "explain", &change]).await;
    assert!(explained.ok, "{}", explained.out);
    for says in ["standard by small", "The same files on the same facts", "small (policy.yaml): matches, standard"] {
        assert!(explained.out.contains(says), "{says}: {}", explained.out);
    }
    let other = s.world.dir.join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("p.yaml"), WHEN.replace("replicas <= 4", "replicas <= 3")).unwrap();
    let (other, state) = (other.display().to_string(), s.world.dir.join("state").display().to_string());
    let replayed = countersign(&s.world, &["policy", "replay", "--policy", &other]).await;
    assert!(replayed.ok, "{}", replayed.out);
    for says in ["level: standard -> deny", "rules: small -> default", "2 changes: 1 would be decided differently"] {
        assert!(replayed.out.contains(says), "{says}: {}", replayed.out);
    }
    let same = s.world.dir.join("policies").display().to_string();
    let replayed = countersign(&s.world, &["policy", "replay", "--policy", &same, "--state", &state, "--json"]).await;
    let rows: Value = serde_json::from_str(&replayed.out).unwrap_or_else(|e| panic!("{e}: {}", replayed.out));
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for row in rows.as_array().unwrap() {
        assert_eq!((&row["differs"], &row["was"]["level"]), (&json!([]), &row["would_be"]["level"]), "{row:#}");
    }
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_what_was_approved_and_refuses_what_is_new() {
    let at = |hours: i64| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).format("%Y-%m-%dT%H:%M").to_string();
    let policy = format!(
        "version: 1\nrules:\n- {{id: prod, match: {{labels: {{env: prod}}}}, level: prompted, approve: {{from: [sre], expires: 12h}}}}\nfreeze:\n- {{id: launch, zone: UTC, between: {{from: '{}', to: '{}'}}, match: {{labels: {{env: prod}}}}, reason: the launch}}\n",
        at(1),
        at(3)
    );
    let mut s = Stage::new(quick(policy)).await;
    let tip = s.world.tip();
    let change = s.propose(set_image("checkout", CHECKOUT.new)).await;
    s.clock.advance(Duration::from_secs(2 * 3600));
    s.press(ANNA, "Approve").await;
    let held = loop {
        let now = s.until(&change, &["approved"]).await;
        if text(&now, "waits_for").contains("launch") {
            break now;
        }
    };
    assert!(text(&held, "waits_for").contains("nothing leaves"), "{held:#}");
    let refused = s.operate(vec![set_image("payments", PAYMENTS.new)]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "policy.frozen"), "{refused:#}");
    let problem = refused["problem"].to_string();
    assert!(problem.contains("the launch") && problem.contains("retry_after_s"), "{problem}");
    assert_eq!((s.world.tip(), s.world.git.pushes().len()), (tip, 0), "nothing left during the freeze");
    s.clock.advance(Duration::from_secs(2 * 3600));
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.world.live_image("checkout").as_deref(), Some(CHECKOUT.new));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_used_up_and_comes_back_after_a_day() {
    let policy = "version: 1\nrules:\n- {id: prod, match: {labels: {env: prod}}, level: prompted, approve: {from: [sre]}, quota: {per_day: 2}}\n";
    let mut s = Stage::new(quick(policy.into())).await;
    let first = s.propose(set_image("checkout", CHECKOUT.new)).await;
    // The same call again is the same change, and counts once.
    assert_eq!(s.propose(set_image("checkout", CHECKOUT.new)).await, first);
    let second = s.propose(set_image("payments", PAYMENTS.new)).await;
    let refused = s.operate(vec![scale("checkout", 3)]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "policy.quota"), "{refused:#}");
    assert_eq!(refused["problem"]["retry"], "later");
    // What was proposed within the quota stays good although it is used up.
    s.press(ANNA, "Approve").await;
    s.until(&second, &["healthy"]).await;
    s.clock.advance(Duration::from_secs(24 * 3600 + 60));
    s.propose(scale("checkout", 3)).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tests_a_policy_and_prints_its_schema() {
    let s = Stage::new(quick(format!("{WHEN}tests:\n- {{given: {{operation: scale, labels: {{env: prod}}, after: {{replicas: 9}}}}, expect: {{level: standard}}}}\n"))).await;
    let tested = countersign(&s.world, &["policy", "test"]).await;
    assert!(!tested.ok, "a failed test is a failure");
    for says in [
        "failed policy.yaml: test 1",
        "level is deny, expected standard",
        "- No rule clearly matches for scale of Deployment",
        "1 tests, 1 failed",
    ] {
        assert!(tested.out.contains(says), "{says}: {}", tested.out);
    }
    let examples = crate::docs::root().join("policies").display().to_string();
    let files: Vec<String> = std::fs::read_dir(&examples)
        .unwrap()
        .map(|e| e.unwrap().path().display().to_string())
        .filter(|p| p.ends_with(".yaml"))
        .collect();
    let mut args = vec!["policy", "test"];
    args.extend(files.iter().map(String::as_str));
    let tested = countersign(&s.world, &args).await;
    assert!(tested.ok && tested.out.ends_with(" 0 failed.\n"), "{}", tested.out);
    let schema = countersign(&s.world, &["policy", "schema"]).await;
    let printed: Value = serde_json::from_str(&schema.out).unwrap();
    let shipped: Value = serde_json::from_str(&crate::docs::text("policies/policy.schema.json")).unwrap();
    assert_eq!(printed, shipped, "run `countersign policy schema > policies/policy.schema.json`");
    // The schema takes every example, and refuses what the program refuses.
    let validator = jsonschema::validator_for(&shipped).unwrap();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let first = text.lines().next().unwrap();
        assert_eq!(first, "# yaml-language-server: $schema=policy.schema.json", "{file}");
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{file}");
    }
    for bad in [
        json!({"version": 1, "rule": []}),
        json!({"version": 1, "rules": [{"id": "a", "match": {"operation": "scael"}, "level": "deny"}]}),
    ] {
        assert!(!validator.is_valid(&bad), "{bad}");
    }
    let checked = countersign(&s.world, &["policy", "check"]).await;
    assert!(checked.out.contains("policy.reaches_standard policy.yaml small: Commits without a person: scale, env=prod, when change.after.replicas <= 4"), "{}", checked.out);
    s.end().await;
}
