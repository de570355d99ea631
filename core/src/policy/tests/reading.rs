//! What of a policy is refused, and what its version covers.

use super::*;

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
fn the_version_covers_every_byte_and_not_the_order() {
    let v = |files: &[(&str, &str)]| PolicySet::parse(files).unwrap().version().to_owned();
    let (a, b) = (("a", "version: 1\n"), ("b", "version: 1\n#\n"));
    assert_eq!(v(&[a, b]), v(&[b, a]));
    assert_ne!(v(&[a]), v(&[("a", "version: 1\n\n")]));
    assert_ne!(v(&[a]), v(&[("c", "version: 1\n")]));
    assert_eq!(v(&[a]).len(), 64);
}
