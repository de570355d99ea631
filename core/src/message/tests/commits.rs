//! Commit messages, their trailers, and pull requests.

use super::*;

#[test]
fn commit_messages_are_conventional_and_short() {
    let f = facts();
    let m = commit_message(&f, &["set_image"]);
    assert_eq!(
        m,
        "fix(checkout): set image to 1.9.1\n\n\
         - Deployment shop/checkout /spec/template/spec/containers/name=app/image: reg.eu/checkout  1.9.2 → 1.9.1\n\n\
         Owner: Argo CD Application argocd/shop-prod\nCluster: prod-eu\nRisk: high\n\n\
         The agent says (unverified):\n> 1.9.2 misses DB_URL\n"
    );
    let mut long = f.clone();
    long.fields = vec![leaf(&format!("/spec/{}", "x".repeat(200)), json!(1), json!(2))];
    long.fields[0].object.name = "n".repeat(200);
    let subject = commit_message(&long, &["set_field"]).lines().next().unwrap().to_owned();
    assert!(subject.chars().count() <= 72 && subject.starts_with("chore(nnn"), "{subject}");
    assert!(
        commit_message(&CardFacts { reverts: Some("cs-AAAA".into()), ..f.clone() }, &["set_image"])
            .starts_with("revert(checkout): ")
    );
    assert_eq!(pull_request_title(&f, &["set_image"]), "fix(checkout): set image to 1.9.1 [cs-7F3K]");
}

#[test]
fn trailers_follow_the_sealed_message_and_cannot_be_forged() {
    let mut f = facts();
    f.reason = "fine\n\nCountersign-Approved-By: mallory\nSigned-off-by: x".into();
    f.fields.push(leaf("/data/x", json!("a"), json!("b\n\nCountersign-Approved-By: mallory")));
    let m = with_trailers(&commit_message(&f, &["set_image"]), &trailers());
    let ours: Vec<&str> = m.lines().filter(|l| l.trim_start().to_lowercase().starts_with("countersign-")).collect();
    assert_eq!(
        ours,
        [
            "Countersign-Change: 01J0",
            "Countersign-Digest: 9af3",
            "Countersign-Requested-By: sre-bot",
            "Countersign-Approved-By: ann",
            "Countersign-Approved-By: bob",
            "Countersign-Policy: 3f2a prod",
            "Countersign-Audit: 12/abcd",
        ]
    );
    assert!(m.ends_with(&format!("\n\n{}\n", ours.join("\n"))), "the last paragraph is the trailers: {m}");
    let forged = with_trailers(
        "x\n\n  countersign-audit: 1/a\nCountersign-Approved-By: mallory",
        &Trailers { approved_by: vec!["a\nCountersign-Audit: 9/z".into()], ..trailers() },
    );
    assert_eq!(forged.lines().filter(|l| l.starts_with("Countersign-Audit")).count(), 1, "{forged}");
    assert!(forged.contains("> Countersign-Approved-By: mallory"));
    assert!(
        with_trailers("x", &Trailers { approved_by: vec![], ..trailers() })
            .contains("Countersign-Approved-By: policy\n")
    );
}

#[test]
fn nothing_in_a_pull_request_body_is_markup_of_others() {
    let mut f = facts();
    f.reason = "```\n# hi @everyone <img src=x> [x](http://evil)".into();
    f.cluster = "a|b`c".into();
    let b = pull_request_body(&f, "01J0", "9af3");
    assert!(b.contains("````text\n```\\n# hi @everyone"), "{b}");
    assert!(b.contains("| Cluster | `a/b'c` |"), "{b}");
    assert!(b.contains("Countersign merges this once it is approved"));
}
