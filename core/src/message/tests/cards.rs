//! What stands on a card, and what cannot be decided in a chat.

use super::*;

#[test]
fn the_card_reads_as_designed() {
    let c = card(&facts());
    assert_eq!(
        c.text.text,
        "🔴 HIGH · prod-eu · cs-7F3K · expires 03:44 UTC\n\
         Deployment shop/checkout, container app\n\
         image  reg.eu/checkout  1.9.2 → 1.9.1\n\
         Now: 0/6 ready, CrashLoopBackOff (exit 1), 11 min\n\
         Last healthy: 1.9.1, until 02:58 (4be1d2a)\n\
         Owner: Argo CD shop-prod · auto-sync on · no window\n\
         apps/checkout/deploy.yaml:31 · +1 −1 · feeds only shop-prod\n\
         Direct push to main · high because: prod, image\n\
         Asked: you · 1 needed · by sre-bot for Jon\n\
         Digest 9af3 c01e 77b2 · policy rule prod\n\
         Agent says (unverified): \"1.9.2 misses DB_URL\""
    );
    assert!(c.complete && c.document.is_none());
    assert_eq!(
        stretches(&c.text),
        [
            (EntityKind::Bold, "HIGH".to_owned()),
            (EntityKind::Bold, "Deployment shop/checkout".to_owned()),
            (EntityKind::Pre, "image  reg.eu/checkout  1.9.2 → 1.9.1".to_owned()),
            (EntityKind::Code, "apps/checkout/deploy.yaml:31".to_owned()),
            (EntityKind::Code, "9af3 c01e 77b2".to_owned()),
            (EntityKind::Blockquote, "Agent says (unverified): \"1.9.2 misses DB_URL\"".to_owned()),
        ]
    );
}

#[test]
fn everything_that_stands_in_the_way_is_on_the_card() {
    let mut f = facts();
    f.state = DeliveryState {
        automatic: false,
        prune: true,
        suspended: Some("Application shop-prod".into()),
        window: Some("closed until 06:00".into()),
        notes: vec![],
    };
    f.also_feeds = vec!["shop-eu".into(), "shop-us".into()];
    f.delivery = Delivery::MergeAfterApproval;
    f.allow_sponsor = true;
    f.needed = 2;
    f.approvers = vec!["ann".into(), "bob".into()];
    f.reverts = Some("cs-AAAA".into());
    f.notes = vec!["an HPA holds replicas".into()];
    f.fields = vec![LeafChange { pointer: String::new(), before: Some(json!({"a": 1})), after: None, ..image() }];
    let t = card(&f).text.text;
    for part in [
        "Undoes cs-AAAA",
        "auto-sync off: someone must sync",
        "window: closed until 06:00",
        "SUSPENDED: Application shop-prod",
        "prunes",
        "ALSO feeds shop-eu, shop-us",
        "Pull request to main, merged once approved",
        "Asked: you, bob · 2 needed",
        "the sponsor may approve",
        "Note: an HPA holds replicas",
        "whole object  {\"a\":1} → (removed)",
    ] {
        assert!(t.contains(part), "{part}\n{t}");
    }
}

#[test]
fn fields_of_several_objects_stand_under_their_own_names() {
    let mut f = facts();
    let mut other = leaf("/spec/replicas", json!(3), json!(0));
    other.object.name = "cart".into();
    f.fields = vec![
        image(),
        leaf("/spec/template/spec/containers/name=app/env/name=A/value", json!("x y"), json!("")),
        leaf("/spec/template/spec/containers/name=side/resources/limits/memory", Value::Null, json!("1Gi")),
        leaf("/metadata/annotations/a~1b", json!("true"), json!(true)),
        other,
    ];
    let t = card(&f).text.text;
    assert!(
        t.contains(
            "Deployment shop/checkout, container app\nimage  reg.eu/checkout  1.9.2 → 1.9.1\nenv A  \"x y\" → \"\"\n"
        ),
        "{t}"
    );
    assert!(t.contains("Deployment shop/checkout, container side\nlimits memory  (absent) → 1Gi\n"), "{t}");
    assert!(t.contains("Deployment shop/checkout\n/metadata/annotations/a~1b  \"true\" → true\n"), "{t}");
    assert!(t.contains("Deployment shop/cart\nreplicas  3 → 0\n"), "{t}");
}

#[test]
fn what_does_not_fit_goes_into_a_document_whose_hash_is_on_the_card() {
    let mut f = facts();
    f.fields = (0..90).map(|i| leaf(&format!("/spec/x{i}"), json!("a".repeat(40)), json!(format!("b{i}")))).collect();
    let c = card(&f);
    let d = c.document.expect("a document");
    assert!(
        c.complete
            && c.text.text.contains(&d.sha256)
            && c.text.text.contains(" of 90 fields shown; all in cs-7F3K.txt")
    );
    assert_eq!(d.sha256, crate::model::hex(&<sha2::Sha256 as sha2::Digest>::digest(d.text.as_bytes())));
    assert!((0..90).all(|i| d.text.contains(&format!("/spec/x{i}: "))));
    assert!(d.text.contains("+  image: reg.eu/checkout:1.9.1"));
    // One long value is enough.
    f.fields = vec![leaf("/spec/x", json!("a".repeat(500)), json!("b"))];
    let c = card(&f);
    assert!(c.text.text.contains("(500 characters)") && c.document.unwrap().text.contains(&"a".repeat(500)));
    // So is a change whose only trace is in the diff.
    f.fields = vec![];
    assert!(card(&f).complete && card(&f).document.is_some());
}

#[test]
fn what_cannot_be_reviewed_in_a_chat_is_not_decidable_there() {
    let not = |change: fn(&mut CardFacts)| {
        let mut f = facts();
        change(&mut f);
        let c = card(&f);
        assert_eq!(c.complete, c.incomplete.is_none());
        assert_eq!(c.text.text.contains("⛔ Not decidable in the chat"), !c.complete);
        let large = too_large(&f).is_some();
        assert_eq!(c.text.text.contains("sign it: countersign approve cs-7F3K --key KEY"), large, "{}", c.text.text);
        !c.complete
    };
    assert!(!not(|_| ()));
    assert!(not(|f| f.files[0].added = 400));
    assert!(not(|f| f.files = vec![f.files[0].clone(); 21]));
    assert!(not(|f| f.files = vec![]));
    assert!(not(|f| (f.fields, f.diff) = (vec![], " \n".into())));
    assert!(not(|f| f.fields = (0..51)
        .map(|i| LeafChange { object: ObjectKey::new("", "ConfigMap", "x", &i.to_string()), ..image() })
        .collect()));
    // Nobody can sign what a merge decides.
    let mut f = CardFacts { delivery: Delivery::PullRequest, ..facts() };
    f.files[0].added = 400;
    let t = card(&f).text.text;
    assert!(t.contains("more than 400; review its pull request") && !t.contains("countersign approve"), "{t}");
}

#[test]
fn the_sealed_text_has_neither_reader_nor_digest() {
    let sealed = CardFacts { viewer: None, digest: None, ..facts() };
    let t = card(&sealed).text.text;
    assert!(t.contains("Asked: ann · 1 needed") && t.contains("\nPolicy rule prod\n") && !t.contains("Digest"), "{t}");
}

#[test]
fn no_note_is_left_out_without_a_word() {
    let mut f = facts();
    f.notes = (1..=5).map(|n| format!("thing {n} stands in the way")).collect();
    let told = card(&f).text.text;
    assert!((1..=5).all(|n| told.contains(&format!("Note: thing {n} stands"))), "{told}");
    f.notes.extend(["a sixth".to_owned(), "a seventh".to_owned()]);
    let told = card(&f).text.text;
    assert!(told.contains("Note: and 2 more") && !told.contains("a sixth"), "{told}");
}
