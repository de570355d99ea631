//! What an approval binds is canonical and complete; names and edits parse to what they say.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::change::tests::given::Given;

fn sealed() -> Sealed {
    Given::prompted().sealed()
}

fn digest(s: &Sealed) -> Digest {
    digest_of(&s.canonical().unwrap())
}

/// Paths of every leaf (and of every empty list) of a JSON value.
fn leaves(v: &Value, at: &str, out: &mut Vec<String>) {
    match v {
        Value::Object(m) if !m.is_empty() => m.iter().for_each(|(k, v)| leaves(v, &format!("{at}/{k}"), out)),
        Value::Array(a) if !a.is_empty() => {
            a.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{at}/{i}"), out))
        }
        _ => out.push(at.to_owned()),
    }
}

#[test]
fn the_canonical_form_is_rfc_8785() {
    let text = String::from_utf8(sealed().canonical().unwrap()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    // RFC 8785, 3.2: no white space, members sorted by UTF-16 code units, shortest escapes.
    assert!(!text.contains("\": ") && !text.contains(", \"") && !text.contains(char::is_control));
    fn sorted(v: &Value) {
        match v {
            Value::Object(m) => {
                let keys: Vec<Vec<u16>> = m.keys().map(|k| k.encode_utf16().collect()).collect();
                assert!(keys.is_sorted(), "{:?}", m.keys());
                m.values().for_each(sorted);
            }
            Value::Array(a) => a.iter().for_each(sorted),
            Value::Number(n) => assert!(n.is_i64() || n.is_u64(), "only integers are sealed"),
            Value::String(_) | Value::Null | Value::Bool(_) => {}
        }
    }
    sorted(&value);
    assert!(text.contains("2 → 3"), "nothing is escaped that need not be");
}

#[test]
fn every_field_of_the_decision_page_is_sealed() {
    let value = serde_json::to_value(sealed()).unwrap();
    let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "schema",
        "change",
        "revision",
        "repository",
        "git_ref",
        "files",
        "effect",
        "message",
        "policy_version",
        "rules",
        "delivery",
        "risk",
        "requester",
        "sponsor",
        "quorum",
        "expires_at",
        "nonce",
        "commit_message",
    ] {
        assert!(keys.contains(&key), "{key} is not sealed");
    }
    let file = value["files"][0].as_object().unwrap();
    assert!(["path", "mode", "before", "after"].iter().all(|k| file.contains_key(*k)));
}

#[test]
fn the_digest_has_a_domain_of_its_own() {
    use sha2::{Digest as _, Sha256};
    let bytes = sealed().canonical().unwrap();
    assert_ne!(digest_of(&bytes).0, hex(&Sha256::digest(&bytes)), "a plain hash of the same bytes is no digest");
    let prefixed = [b"countersign-change-v1\0".as_slice(), &bytes].concat();
    assert_eq!(digest_of(&bytes).0, hex(&Sha256::digest(prefixed)));
}

#[test]
fn the_digest_of_known_bytes_never_changes() {
    // printf 'countersign-change-v1\0{}' | sha256sum
    assert_eq!(digest_of(b"{}").0, "6fbbfaa5abe08040192502a448d509fbfdccc718282dfdd3e49698c3e21cba73");
    assert_eq!(Digest("0123456789abcdef".into()).short(), "0123 4567 89ab");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever leaf of the sealed change is altered, the digest is another one.
    #[test]
    fn any_mutation_of_any_sealed_field_changes_the_digest(pick in any::<prop::sample::Index>(), other in "[ -~]{1,12}", n in any::<u32>()) {
        let plain = serde_json::to_value(sealed()).unwrap();
        let mut paths = Vec::new();
        leaves(&plain, "", &mut paths);
        let path = &paths[pick.index(paths.len())];
        let mut changed = plain.clone();
        let leaf = changed.pointer_mut(path).unwrap();
        let words = |s: &str, options: &[&str]| json!(options.iter().find(|o| **o != s).unwrap());
        *leaf = match (path.as_str(), &*leaf) {
            ("/delivery", Value::String(s)) => words(s, &["direct", "pull_request"]),
            ("/risk/level", Value::String(s)) => words(s, &["low", "critical"]),
            ("/change", Value::String(_)) => json!(ChangeId::from_parts(u64::from(n), 5).to_string()),
            (_, Value::String(s)) => json!(format!("{s}{other}")),
            (_, Value::Number(i)) => json!(i.as_i64().unwrap() ^ (i64::from(n % 1000) + 1)),
            (_, Value::Bool(b)) => json!(!b),
            (at, v) => panic!("{at}: {v} is no leaf"),
        };
        let changed: Sealed = serde_json::from_value(changed).unwrap();
        prop_assert_ne!(&changed, &sealed(), "{} was not changed", path);
        prop_assert_ne!(digest(&changed), digest(&sealed()), "{} is not bound", path);
    }

    /// The same content has the same bytes, through any number of readings and in any order of members.
    #[test]
    fn the_same_content_has_the_same_bytes(message in any::<String>(), path in "[a-zA-Z0-9/._äöü€𝄞-]{1,40}", expires in any::<i32>()) {
        let mut s = sealed();
        s.message = message;
        s.files[0].path = path;
        s.expires_at = i64::from(expires);
        let bytes = s.canonical().unwrap();
        let back: Sealed = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(&back, &s);
        prop_assert_eq!(&back.canonical().unwrap(), &bytes);
        let Value::Object(members) = serde_json::from_slice::<Value>(&bytes).unwrap() else { unreachable!() };
        let turned: serde_json::Map<String, Value> = members.into_iter().rev().collect();
        let turned: Sealed = serde_json::from_value(Value::Object(turned)).unwrap();
        prop_assert_eq!(turned.canonical().unwrap(), bytes);
    }

    /// Files, effects and rules are lists: neither their order nor their borders can be shifted.
    #[test]
    fn borders_between_values_are_bound(a in "[a-z]{1,6}", b in "[a-z]{1,6}") {
        let with = |rules: &[&str]| { let mut s = sealed(); s.rules = rules.iter().map(|r| (*r).to_owned()).collect(); digest(&s) };
        let joined = format!("{a}{b}");
        prop_assert_ne!(with(&[&a, &b]), with(&[&joined]));
        prop_assert_ne!(with(&[&a, &b]), with(&[&a, "", &b]));
        if a != b { prop_assert_ne!(with(&[&a, &b]), with(&[&b, &a])); }
        let mut moved = sealed();
        moved.requester = format!("{}{a}", moved.requester);
        let mut other = sealed();
        other.sponsor = format!("{}{a}", other.sponsor);
        prop_assert_ne!(digest(&moved), digest(&other));
    }

    #[test]
    fn a_target_reads_back_as_it_was_written(
        cluster in "[a-z][a-z0-9-]{0,8}", ns in "-|[a-z][a-z0-9-]{0,8}", kind in "[A-Z][a-zA-Z]{0,10}", group in prop::option::of("[a-z]{1,6}\\.[a-z]{1,4}"), name in "[a-z][a-z0-9.-]{0,12}",
    ) {
        let kind = group.as_ref().map_or(kind.clone(), |g| format!("{kind}.{g}"));
        let text = format!("{cluster}/{ns}/{kind}/{name}");
        let r: ResourceRef = text.parse().unwrap();
        prop_assert_eq!(r.to_string(), text);
        prop_assert_eq!(r.group, group);
        prop_assert_eq!(r.namespace.is_empty(), ns == "-");
    }

    #[test]
    fn no_text_makes_the_target_parser_panic(text in any::<String>()) {
        if let Ok(r) = text.parse::<ResourceRef>() {
            prop_assert_eq!(r.to_string().parse::<ResourceRef>().unwrap(), r);
        }
    }
}

#[test]
fn what_is_no_target_is_refused() {
    for bad in [
        "",
        "a/b/C",
        "a/b/C/d/e",
        "/b/C/d",
        "a//C/d",
        "a/b//d",
        "a/b/C/",
        "a/b/C/d e",
        "a/../C/d/",
        "a/b/.g/d",
        "a/b/C/d\n",
    ] {
        assert_eq!(bad.parse::<ResourceRef>().unwrap_err().code, "input.target", "{bad:?}");
    }
}

#[test]
fn an_edit_has_exactly_one_operation() {
    let of = |v: Value| serde_json::from_value::<Edit>(v).map(|e| e.operation().map(|o| o.name()).map_err(|p| p.code));
    let target = "c/n/Deployment/x";
    assert_eq!(of(json!({"target": target, "scale": {"replicas": 3}})).unwrap(), Ok("scale"));
    assert_eq!(of(json!({"target": target})).unwrap(), Err("input.operation".into()));
    assert_eq!(
        of(json!({"target": target, "scale": {"replicas": 3}, "restart": {}})).unwrap(),
        Err("input.operation".into())
    );
    assert!(of(json!({"target": target, "exec": {}})).is_err(), "unknown operations are refused");
    assert!(of(json!({"target": target, "scale": {"replicas": -1}})).is_err());
}

#[test]
fn levels_and_deliveries_are_ordered_by_strictness() {
    assert!(Level::Standard < Level::Prompted && Level::Prompted < Level::Manual && Level::Manual < Level::Deny);
    assert!(Delivery::Direct < Delivery::MergeAfterApproval && Delivery::MergeAfterApproval < Delivery::PullRequest);
    assert!(
        RiskLevel::Low < RiskLevel::Medium
            && RiskLevel::Medium < RiskLevel::High
            && RiskLevel::High < RiskLevel::Critical
    );
}

#[test]
fn every_event_reads_back_as_it_was_written() {
    let bodies = [
        Given::prompted().proposed(),
        Body::Intent { effect: Effect::Ask { person: "ann".into() }, facts: json!({"a": [1, null]}) },
        Body::Done { effect: Effect::Merge, result: json!({"commit": "c"}) },
        Body::Pressed { update: -1, callback: "c".into(), person: "p".into(), action: "stop".into() },
        Body::Closed { ending: Ending::TimedOut, say: "ü\u{0}".into() },
        Body::Polled { channel: "telegram".into(), offset: i64::MAX },
    ];
    for body in bodies {
        let text = serde_json::to_string(&body).unwrap();
        let back: Body = serde_json::from_str(&text).unwrap();
        assert_eq!(back, body);
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
    assert!(serde_json::from_str::<Body>(r#"{"type":"approved_by_magic","data":{}}"#).is_err());
}
