use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Delivery, DeliveryState, Engine, LeafChange, ObjectKey, OwnerRef, Risk, RiskLevel};

fn leaf(pointer: &str, before: Value, after: Value) -> LeafChange {
    let some = |v: Value| if v.is_null() { None } else { Some(v) };
    LeafChange {
        object: ObjectKey::new("apps", "Deployment", "shop", "checkout"),
        pointer: pointer.into(),
        before: some(before),
        after: some(after),
    }
}

fn image() -> LeafChange {
    leaf(
        "/spec/template/spec/containers/name=app/image",
        json!("reg.eu/checkout:1.9.2"),
        json!("reg.eu/checkout:1.9.1"),
    )
}

fn facts() -> CardFacts {
    CardFacts {
        name: "cs-7F3K".into(),
        cluster: "prod-eu".into(),
        risk: Risk { level: RiskLevel::High, reasons: vec!["prod".into(), "image".into()] },
        expires_at: 1_763_696_640,
        fields: vec![image()],
        now: Some("0/6 ready, CrashLoopBackOff (exit 1), 11 min".into()),
        last_healthy: Some("1.9.1, until 02:58 (4be1d2a)".into()),
        owner: OwnerRef::new(Engine::Argocd, "Application", "argocd", "shop-prod"),
        state: DeliveryState { automatic: true, ..DeliveryState::default() },
        also_feeds: vec![],
        repository: "deploy".into(),
        branch: "main".into(),
        files: vec![FileFact { path: "apps/checkout/deploy.yaml".into(), line: 31, added: 1, removed: 1 }],
        diff: "--- a/apps/checkout/deploy.yaml\n+++ b/apps/checkout/deploy.yaml\n@@ -31 +31 @@\n-  image: reg.eu/checkout:1.9.2\n+  image: reg.eu/checkout:1.9.1\n".into(),
        delivery: Delivery::Direct,
        pull_request: None,
        approvers: vec!["ann".into()],
        later: Vec::new(),
        approved_by: vec![],
        number: None,
        viewer: Some("ann".into()),
        needed: 1,
        allow_sponsor: false,
        requester: "sre-bot".into(),
        sponsor: "Jon".into(),
        rules: vec!["prod".into()],
        digest: Some("9af3 c01e 77b2".into()),
        reverts: None,
        notes: vec![],
        reason: "1.9.2 misses DB_URL".into(),
    }
}

/// The stretches that entities cover, by Telegram's count.
fn stretches(t: &Text) -> Vec<(EntityKind, String)> {
    let units: Vec<u16> = t.text.encode_utf16().collect();
    t.entities
        .iter()
        .map(|e| {
            (
                e.kind,
                String::from_utf16(&units[e.offset_utf16..e.offset_utf16 + e.length_utf16])
                    .expect("entities cut no character"),
            )
        })
        .collect()
}

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
        assert_eq!(c.text.text.contains("⛔ Not decidable here"), !c.complete);
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
}

#[test]
fn the_sealed_text_has_neither_reader_nor_digest() {
    let sealed = CardFacts { viewer: None, digest: None, ..facts() };
    let t = card(&sealed).text.text;
    assert!(t.contains("Asked: ann · 1 needed") && t.contains("\nPolicy rule prod\n") && !t.contains("Digest"), "{t}");
}

#[test]
fn goldens_of_the_final_words() {
    let f = facts();
    let about = "Deployment shop/checkout, container app\nimage  reg.eu/checkout  1.9.2 → 1.9.1\nOwner: Argo CD Application argocd/shop-prod · by sre-bot for Jon\nDigest 9af3 c01e 77b2\nAgent says (unverified): \"1.9.2 misses DB_URL\"";
    let by = || vec!["ann".to_owned()];
    let commit = || "4be1d2a7c0ffee11".to_owned();
    for (how, first) in [
        (Settled::Approved { by: by() }, "☑️ APPROVED · prod-eu · cs-7F3K\nby ann; being delivered"),
        (
            Settled::Rejected { by: "ann".into(), reason: Some("Not now".into()) },
            "✖️ REJECTED · prod-eu · cs-7F3K\nby ann: Not now",
        ),
        (
            Settled::Expired { again: None },
            "⌛ EXPIRED · prod-eu · cs-7F3K\nnobody decided until 03:44 UTC; nothing was written",
        ),
        (
            Settled::Cancelled { by: "sre-bot".into() },
            "➖ CANCELLED · prod-eu · cs-7F3K\nby sre-bot; nothing was written",
        ),
        (
            Settled::Healthy { commit: commit(), by: by() },
            "✅ HEALTHY · prod-eu · cs-7F3K\ncommit 4be1d2a7c0 · approved by ann",
        ),
        (
            Settled::Failed { commit: Some(commit()), by: by(), say: "one\u{202e}two".into() },
            "❌ FAILED · prod-eu · cs-7F3K\ncommit 4be1d2a7c0 · approved by ann\nThe engine says: one\\u{202e}two",
        ),
        (
            Settled::Superseded { commit: commit() },
            "⏭️ SUPERSEDED · prod-eu · cs-7F3K\na later commit took the place of 4be1d2a7c0",
        ),
        (
            Settled::Undelivered { why: "the branch is protected".into() },
            "❌ NOT DELIVERED · prod-eu · cs-7F3K\nthe branch is protected",
        ),
        (
            Settled::Stale { why: "the file changed".into() },
            "♻️ NO LONGER VALID · prod-eu · cs-7F3K\nthe file changed; nothing was written",
        ),
    ] {
        let t = settled(&f, &how);
        assert_eq!(t.text, format!("{first}\n{about}"));
        stretches(&t);
    }
    let n = notice(&f, &Notice::Failed { commit: commit(), say: "boom".into(), revert: Some("cs-BBBB".into()) });
    assert!(
        n.text.starts_with(
            "❌ FAILED · prod-eu · cs-7F3K\ncommit 4be1d2a7c0\nThe engine says: boom\nThe revert is prepared: cs-BBBB\n"
        ),
        "{}",
        n.text
    );
    let n = notice(&f, &Notice::Healthy { commit: commit(), seconds: 47 });
    assert!(n.text.starts_with("✅ HEALTHY · prod-eu · cs-7F3K\ncommit 4be1d2a7c0, after 47 s\n"));
    assert_eq!(
        stopped(true, "ann", "panic", 2).text,
        "⛔ STOPPED by ann: nothing is written until someone resumes\n2 changes are held\nReason: panic"
    );
}

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

fn trailers() -> Trailers {
    Trailers {
        change: "01J0".into(),
        digest: "9af3".into(),
        requested_by: "sre-bot".into(),
        approved_by: vec!["ann".into(), "bob".into()],
        glass: None,
        policy: "3f2a prod".into(),
        audit: "12/abcd".into(),
    }
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

#[test]
fn every_state_has_its_words() {
    for state in [
        "awaiting_approval",
        "awaiting_merge",
        "manual",
        "observing",
        "healthy",
        "failed",
        "timed_out",
        "superseded",
        "rejected",
        "expired",
        "cancelled",
        "stale",
        "undelivered",
        "abandoned",
    ] {
        let s = state_summary(state, "cs-7F3K", &what(&[image()]));
        assert!(
            s.starts_with(
                "cs-7F3K (image of container app of Deployment shop/checkout: reg.eu/checkout  1.9.2 → 1.9.1) "
            ) && s.ends_with('.'),
            "{s}"
        );
        assert!(!s.contains("explains") && next_say(state, "cs-7F3K").contains("cs-7F3K"), "{state}");
    }
}

// ---- goldens -----------------------------------------------------------------------------------

/// The card's text, the buttons that belong to it being drawn by the pipeline; or what it became.
fn goldens() -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut put = |name: &str, t: &Text| out.push((name.to_owned(), t.text.clone()));
    let object = |kind: &str, group: &str| ObjectKey::new(group, kind, "shop", "checkout");
    let at = |pointer: &str, before: Value, after: Value| leaf(pointer, before, after);
    let whole =
        |kind: &str, before: Value, after: Value| LeafChange { object: object(kind, ""), ..leaf("", before, after) };
    let app = "/spec/template/spec/containers/name=app";
    let fields: [(&str, Vec<LeafChange>); 10] = [
        ("set_image", vec![image()]),
        ("scale", vec![at("/spec/replicas", json!(2), json!(6))]),
        ("set_resources", vec![at(&format!("{app}/resources/limits/memory"), json!("512Mi"), json!("1Gi"))]),
        ("set_env", vec![at(&format!("{app}/env/name=DB_URL/value"), Value::Null, json!("postgres://db/shop"))]),
        ("set_field", vec![at("/spec/progressDeadlineSeconds", json!(600), json!(120))]),
        ("annotate", vec![at("/metadata/annotations/shop.example~1owner", Value::Null, json!("payments team"))]),
        ("label", vec![at("/metadata/labels/tier", json!("web"), json!("edge"))]),
        (
            "restart",
            vec![at(
                "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt",
                Value::Null,
                json!("2025-11-21T03:14:00Z"),
            )],
        ),
        ("create", vec![whole("ConfigMap", Value::Null, json!({"data": {"a": "b"}}))]),
        ("delete", vec![whole("ConfigMap", json!({"data": {"a": "b"}}), Value::Null)]),
    ];
    for (name, fields) in &fields {
        put(&format!("operation-{name}"), &card(&CardFacts { fields: fields.clone(), ..facts() }).text);
    }
    // As the pipeline says it: what is live is taken over, by a pull request.
    let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "checkout", "namespace": "shop"}, "data": {"a": "b"}});
    let adopted = CardFacts {
        fields: vec![whole("ConfigMap", Value::Null, live)],
        delivery: Delivery::PullRequest,
        files: vec![FileFact { path: "apps/checkout/configmap-checkout.yaml".into(), line: 1, added: 7, removed: 0 }],
        risk: Risk { level: RiskLevel::High, reasons: vec!["new object".into(), "whole object".into(), "prod".into()] },
        now: None,
        last_healthy: None,
        reason: "it is in no repository".into(),
        notes: vec![
            "ConfigMap shop/checkout is live and in no repository; it is taken over as it is.".into(),
            "From then on its owner prunes: whoever removes the file deletes the object.".into(),
        ],
        ..facts()
    };
    put("operation-adopt", &card(&adopted).text);
    let with = |edit: fn(&mut CardFacts)| {
        let mut f = facts();
        edit(&mut f);
        f
    };
    let risk =
        |level: RiskLevel, reasons: &[&str]| Risk { level, reasons: reasons.iter().map(|r| (*r).to_owned()).collect() };
    for (name, r) in [
        ("low", risk(RiskLevel::Low, &[])),
        ("medium", risk(RiskLevel::Medium, &["two fields"])),
        ("high", risk(RiskLevel::High, &["prod", "image"])),
        ("critical", risk(RiskLevel::Critical, &["privileges"])),
    ] {
        put(&format!("risk-{name}"), &card(&CardFacts { risk: r, ..facts() }).text);
    }
    for (name, f) in [
        ("delivery-merge-after-approval", with(|f| f.delivery = Delivery::MergeAfterApproval)),
        ("delivery-pull-request", with(|f| f.delivery = Delivery::PullRequest)),
        ("deciding-number", with(|f| f.number = Some(42))),
        ("deciding-one-of-two", with(|f| (f.needed, f.approved_by, f.number) = (2, vec!["bob".into()], Some(42)))),
        (
            "deciding-later-group",
            with(|f| {
                f.approvers = vec!["ann".into(), "bob".into(), "lead".into()];
                f.later = vec![crate::model::Escalation {
                    after_s: 900,
                    groups: vec!["leads".into()],
                    people: vec!["lead".into()],
                }];
            }),
        ),
        (
            "stands-in-the-way",
            with(|f| {
                f.state = DeliveryState {
                    window: Some("closed until 06:00".into()),
                    suspended: Some("Application shop-prod".into()),
                    ..DeliveryState::default()
                };
            }),
        ),
        ("revert", with(|f| f.reverts = Some("cs-AAAA".into()))),
        ("hostile-reason", with(|f| f.reason = "✅ HEALTHY\nApproved by ann. Press Approve \u{202e}now аdmin".into())),
        ("too-much-for-a-chat", with(|f| f.files[0].added = 400)),
        (
            "with-a-document",
            with(|f| {
                f.fields = (0..90)
                    .map(|i| leaf(&format!("/spec/x{i}"), json!("a".repeat(40)), json!(format!("b{i}"))))
                    .collect();
            }),
        ),
    ] {
        put(name, &card(&f).text);
    }
    let (by, commit, say) = (
        || vec!["ann".to_owned()],
        || "4be1d2a7c0ffee11".to_owned(),
        || "container app: CrashLoopBackOff (exit 1)".to_owned(),
    );
    for (name, how) in [
        ("approved", Settled::Approved { by: by() }),
        ("rejected", Settled::Rejected { by: "ann".into(), reason: None }),
        ("rejected-with-reason", Settled::Rejected { by: "ann".into(), reason: Some("Wrong target".into()) }),
        ("expired", Settled::Expired { again: None }),
        ("expired-asked-again", Settled::Expired { again: Some(Ok("cs-BBBB".into())) }),
        ("expired-not-again", Settled::Expired { again: Some(Err("its files changed since".into())) }),
        ("cancelled", Settled::Cancelled { by: "sre-bot".into() }),
        ("stale", Settled::Stale { why: "apps/checkout/deploy.yaml changed since it was shown".into() }),
        ("healthy", Settled::Healthy { commit: commit(), by: by() }),
        ("failed", Settled::Failed { commit: Some(commit()), by: by(), say: say() }),
        ("superseded", Settled::Superseded { commit: commit() }),
        ("undelivered", Settled::Undelivered { why: "the branch is protected".into() }),
    ] {
        put(&format!("outcome-{name}"), &settled(&facts(), &how));
    }
    for (name, what) in [
        ("standard", Notice::Standard { commit: commit() }),
        ("healthy", Notice::Healthy { commit: commit(), seconds: 47 }),
        ("failed", Notice::Failed { commit: commit(), say: say(), revert: None }),
        ("held-back", Notice::Held { commit: commit(), say: "a sync window is closed until 06:00".into() }),
        ("healthy-after-all", Notice::Late { commit: commit() }),
        ("no-revert", Notice::NoRevert { say: "apps/checkout/deploy.yaml was changed again".into() }),
        ("why-not", Notice::Why),
        ("superseded", Notice::Superseded { commit: commit() }),
        ("reminder", Notice::Reminder),
        ("pull-request", Notice::Other { say: "A pull request waits for its merge: https://git.example/1".into() }),
    ] {
        put(&format!("notice-{name}"), &notice(&facts(), &what));
    }
    put("stop", &stopped(true, "ann", "strange pushes", 2));
    put("stop-first-to-resume", &resuming("bob", 1));
    put("stop-resume-card", &resume_card("ann", "strange pushes", 2, &["bob".to_owned()], 2));
    put("stop-resumed", &stopped(false, "ann", "", 0));
    put(
        "pending",
        &pending_list(&[("cs-7F3K".into(), "image of Deployment shop/checkout in prod-eu".into(), 1_763_696_640)]),
    );
    put("pending-nothing", &pending_list(&[]));
    out
}

/// The texts that people see, from which the approvers' guide is made. `COUNTERSIGN_BLESS=1` writes them anew.
#[test]
fn goldens_of_every_operation_level_and_outcome() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests-data/cards");
    let bless = std::env::var_os("COUNTERSIGN_BLESS").is_some();
    let all = goldens();
    let mut wrong = Vec::new();
    for (name, text) in &all {
        let file = dir.join(format!("{name}.txt"));
        if bless {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&file, format!("{text}\n")).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        if kept.trim_end_matches('\n') != text.as_str() {
            wrong.push(format!("--- {name}\n{kept}+++\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names: std::collections::BTreeSet<String> = all.iter().map(|(n, _)| format!("{n}.txt")).collect();
    let kept: std::collections::BTreeSet<String> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(kept, names, "a file for each text, and no other");
}

// ---- escaping ----------------------------------------------------------------------------------

/// Forms of CVE-2021-42574 and its relatives: bidi controls and isolates, zero width, tags,
/// variation selectors, fillers, look-alike letters, separators, combining marks, controls.
const TROJAN: [&str; 34] = [
    "\u{202a}a",
    "a\u{202b}b",
    "\u{202c}",
    "\u{202d}x",
    "access\u{202e}\u{2066}// admin\u{2069} \u{2066}",
    "\u{2067}b\u{2069}",
    "\u{2068}",
    "a\u{200b}b",
    "a\u{200c}b",
    "a\u{200d}b",
    "a\u{200e}b",
    "a\u{200f}b",
    "\u{feff}a",
    "a\u{ad}b",
    "a\u{2060}b",
    "a\u{180e}b",
    "\u{3164}",
    "\u{115f}",
    "\u{e0041}\u{e0042}",
    "a\u{fe0f}",
    "a\u{61c}b",
    "аdmin",
    "раураl",
    "pаypal.com",
    "reg.ехаmple/app",
    "ａｄｍｉｎ",
    "𝐚dmin",
    "a\u{2028}b",
    "a\u{2029}b",
    "a\u{85}b",
    "e\u{301}",
    "a\u{1b}[31mb",
    "a\u{a0}b",
    "1.9.2\u{2024}3",
];

fn unseen(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{1d400}'..='\u{1d7ff}' | '\u{e0000}'..='\u{10ffff}'
            | '\u{300}'..='\u{36f}' | '\u{590}'..='\u{8ff}' | '\u{ff00}'..='\u{ffef}' | '\u{a0}' | '\u{2000}'..='\u{200a}')
}

#[test]
fn no_trojan_source_form_reaches_the_text() {
    for form in TROJAN {
        assert!(escape_visible(form).contains("\\u{"), "{form:?} is shown as {}", escape_visible(form));
        let mut f = facts();
        for slot in [
            &mut f.name,
            &mut f.cluster,
            &mut f.repository,
            &mut f.branch,
            &mut f.requester,
            &mut f.sponsor,
            &mut f.reason,
            &mut f.files[0].path,
            &mut f.owner.name,
            &mut f.diff,
            &mut f.fields[0].object.name,
        ] {
            slot.push_str(form);
        }
        f.now = Some(form.into());
        f.notes = vec![form.into()];
        f.approvers = vec![form.into()];
        f.also_feeds = vec![form.into()];
        f.rules = vec![form.into()];
        f.fields.push(leaf(&format!("/data/{form}"), json!(form), json!({form: [form]})));
        let c = card(&f);
        let texts = [
            c.text.text,
            document(&f).text,
            commit_message(&f, &["set_image"]),
            pull_request_body(&f, "x", "y"),
            settled(&f, &Settled::Rejected { by: form.into(), reason: Some(form.into()) }).text,
            notice(&f, &Notice::Failed { commit: form.into(), say: form.into(), revert: Some(form.into()) }).text,
            stopped(true, form, form, 1).text,
            with_trailers(form, &Trailers { requested_by: form.into(), ..trailers() }).replacen(form, "", 1),
        ];
        for t in texts {
            // Our own marks use one selector and one emoji range; nothing else may.
            let t = t.replace(['\u{fe0f}'], "");
            assert!(!t.chars().any(unseen), "{form:?} in {t:?}");
            assert!(!t.contains('а') && !t.contains('р'), "{form:?} in {t}");
        }
    }
}

/// Characters that are not shown at all, or that reorder or separate their neighbours (Unicode 16, properties
/// `Default_Ignorable_Code_Point`, `Bidi_Control`, `White_Space` but the space, `Cc`).
const UNSEEN: [(u32, u32); 27] = [
    (0x0, 0x1f),
    (0x7f, 0xa0),
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x61c, 0x61c),
    (0x115f, 0x1160),
    (0x1680, 0x1680),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x2000, 0x200a),
    (0x200b, 0x200f),
    (0x2028, 0x2029),
    (0x202a, 0x202e),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x2060, 0x2065),
    (0x2066, 0x2069),
    (0x206a, 0x206f),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfff8),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];

fn range(&(from, to): &(u32, u32)) -> impl Iterator<Item = char> {
    (from..=to).filter_map(char::from_u32)
}

/// Alone, doubled, in words of each script that is shown, beside digits, and in what names something.
fn forms(c: char) -> [String; 8] {
    [
        format!("{c}"),
        format!("{c}{c}"),
        format!("adm{c}n"),
        format!("1{c}2"),
        format!("отк{c}ат"),
        format!("ロ{c}ルバック"),
        format!("reg.example/{c}pp"),
        format!("yes {c} no"),
    ]
}

/// The character stands there itself, not as `\u{…}`.
fn stands(c: char, form: &str) -> bool {
    escape_visible(form).contains(c) || escape_name(form).contains(c)
}

#[test]
fn nothing_invisible_or_reordering_is_shown_as_it_is() {
    for c in UNSEEN.iter().flat_map(range) {
        for form in forms(c) {
            assert!(!stands(c, &form), "U+{:04X} in {form:?}", c as u32);
        }
    }
}

/// Unicode's whole confusables.txt, as the crate `unicode-security` holds it: a character that is drawn like ASCII
/// ones is marked wherever it could be taken for them.
#[test]
fn every_look_alike_of_ascii_is_marked() {
    let prototype = |c: char| unicode_security::skeleton(c.encode_utf8(&mut [0; 4])).collect::<String>();
    let corpus: Vec<char> = ('\u{80}'..=char::MAX).filter(|c| prototype(*c).is_ascii()).collect();
    assert!(corpus.len() > 2_000, "{}", corpus.len());
    for c in &corpus {
        for form in [format!("{c}"), format!("{c}{c}"), format!("adm{c}n"), format!("1{c}2"), format!("yes {c} no")] {
            assert!(!stands(*c, &form), "{c} (like {}) in {form:?}", prototype(*c));
        }
    }
    // Words of nothing but look-alikes, with digits among them.
    for pair in corpus.windows(2) {
        let word: String = [pair[0], '7', pair[1]].iter().collect();
        assert!(!pair.iter().any(|c| stands(*c, &word)), "{word:?}");
    }
}

/// The letters that are shown at all: whatever Unicode adds later is marked until somebody has looked at it.
#[test]
fn what_is_shown_as_it_is_is_a_short_list_of_letters() {
    let shown: Vec<char> = ('\u{80}'..=char::MAX).filter(|c| stands(*c, &c.to_string())).collect();
    assert!(shown.iter().all(|c| c.is_alphabetic()), "letters only");
    let blocks = |c: &char| matches!(*c as u32, 0xc0..=0x17e | 0x386..=0x3ce | 0x400..=0x491 | 0x3041..=0x30fa | 0x4e00..=0x9fff | 0xac00..=0xd7a3);
    assert_eq!(shown.iter().find(|c| !blocks(c)), None);
}

#[test]
fn every_invisible_character_is_marked_in_every_place_of_a_card() {
    let few = |c: &char| (*c as u32) < 0xe0080 && *c != '\n';
    for c in UNSEEN.iter().flat_map(range).filter(few) {
        let form = format!("a{c}b");
        let mut f = facts();
        for slot in [&mut f.name, &mut f.cluster, &mut f.repository, &mut f.branch, &mut f.requester, &mut f.sponsor] {
            slot.push_str(&form);
        }
        for slot in [&mut f.reason, &mut f.files[0].path, &mut f.owner.name, &mut f.diff, &mut f.fields[0].object.name]
        {
            slot.push_str(&form);
        }
        f.now = Some(form.clone());
        f.notes = vec![form.clone()];
        f.approvers = vec![form.clone()];
        f.rules = vec![form.clone()];
        f.fields.push(leaf(&format!("/data/{form}"), json!(form), json!([form])));
        let marked = format!("\\u{{{:x}}}", c as u32);
        for t in [card(&f).text.text, document(&f).text, pull_request_body(&f, "x", "y")] {
            // Our own marks use one selector.
            let t = t.replace("\u{fe0f}", "");
            assert!(!t.contains(c), "{form:?} in {t:?}");
            assert!(t.contains(&marked) || matches!(c, '\t' | '\r'), "{form:?} in {t:?}");
        }
    }
}

#[test]
fn honest_text_in_other_languages_stays_readable() {
    for s in [
        "Größe überschritten",
        "roll back, see #42 (it's bad)",
        "откат версии",
        "ロールバック",
        "回滚版本",
        "εφαρμογή",
        "naïve café",
        "1.9.2 -> 1.9.1 & more",
    ] {
        assert_eq!(escape_visible(s), s, "{s}");
    }
    assert_eq!(escape_visible("a\tb\nc"), "a\\tb\\nc");
    assert_eq!(escape_visible("müller.example/app"), "m\\u{fc}ller.example/app");
    assert_eq!(escape_visible("1 → 2 · …"), "1 \\u{2192} 2 \\u{b7} \\u{2026}", "our own marks cannot be imitated");
}

// ---- properties --------------------------------------------------------------------------------

fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z0-9./:-]{1,20}",
        1 => prop::collection::vec(any::<char>(), 0..16).prop_map(|c| c.into_iter().collect()),
        1 => prop::sample::select(TROJAN.to_vec()).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["\"\nDigest 0000 0000 0000 · policy rule none\n", "🟢 LOW · staging", "Asked: you", "</pre><b>", "@admin /stop http://evil.example"]).prop_map(str::to_owned),
        1 => (prop::sample::select(vec!["aб🔴→\u{202e}", "xy", "\u{202e}"]), 20usize..120).prop_map(|(s, n)| s.repeat(n)),
    ]
}

fn any_value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        4 => nasty().prop_map(|s| Some(json!(s))),
        1 => any::<i32>().prop_map(|n| Some(json!(n))),
        1 => nasty().prop_map(|s| Some(json!({"k": [s, true, null]}))),
    ]
}

fn any_leaf() -> impl Strategy<Value = LeafChange> {
    let pointer = prop_oneof![
        Just("/spec/replicas".to_owned()),
        Just("/spec/template/spec/containers/name=app/image".to_owned()),
        Just(String::new()),
        "/spec/template/spec/containers/name=[a-c]/env/name=[A-C]/value",
        nasty().prop_map(|s| format!("/spec/{}", s.replace('~', "~0").replace('/', "~1"))),
    ];
    (prop::sample::select(vec![("apps", "Deployment"), ("", "ConfigMap")]), nasty(), pointer, any_value(), any_value())
        .prop_map(|((g, k), name, pointer, before, after)| LeafChange {
            object: ObjectKey::new(g, k, "shop", &name),
            pointer,
            before,
            after,
        })
}

fn any_card() -> impl Strategy<Value = CardFacts> {
    let lists = (
        prop::collection::vec(nasty(), 0..6),
        prop::collection::vec(nasty(), 0..6),
        prop::collection::vec(nasty(), 0..4),
        prop::collection::vec(nasty(), 0..4),
    );
    let files = prop::collection::vec((nasty(), 0u32..9999, 0u32..60, 0u32..60), 0..9);
    (prop::collection::vec(any_leaf(), 0..9), lists, files, nasty(), nasty(), nasty(), prop::option::of(nasty()))
        .prop_map(|(fields, (approvers, rules, feeds, notes), files, a, b, diff, now)| {
            let mut f = facts();
            f.fields = fields;
            f.approvers = approvers;
            f.rules = rules.clone();
            f.risk.reasons = rules;
            f.also_feeds = feeds;
            f.notes = notes;
            f.files =
                files.into_iter().map(|(path, line, added, removed)| FileFact { path, line, added, removed }).collect();
            f.name = a.chars().take(30).collect();
            f.cluster = b.clone();
            f.branch = b.clone();
            f.requester = b.clone();
            f.sponsor = b.clone();
            f.owner.name = b.clone();
            f.state.window = now.clone();
            f.state.suspended = now.clone();
            f.last_healthy = now.clone();
            f.now = now;
            f.diff = diff;
            f
        })
}

/// The text up to the agent's quote.
fn before_quote(t: &Text) -> (&str, &[Entity]) {
    match t.entities.last() {
        Some(e) if e.kind == EntityKind::Blockquote => {
            let at = t.text.rfind("Agent says (unverified): \"").expect("the quote");
            assert_eq!(t.text[..at].encode_utf16().count(), e.offset_utf16);
            (&t.text[..at], &t.entities[..t.entities.len() - 1])
        }
        _ => (&t.text, &t.entities),
    }
}

/// Runs a property so often, or as often as `COUNTERSIGN_CASES` says.
fn holds<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let cases = std::env::var("COUNTERSIGN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(strategy, |v| {
            test(v);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// T1: whatever the agent says, the facts are the same, to the byte.
fn a_lie_changes_no_fact(cases: u32) {
    holds(cases, &(any_card(), nasty()), |(f, lie)| {
        let silent = card(&CardFacts { reason: String::new(), ..f.clone() });
        let lying = card(&CardFacts { reason: lie.clone(), ..f.clone() });
        let (facts, entities) = before_quote(&lying.text);
        assert_eq!(facts.trim_end(), silent.text.text.as_str());
        assert_eq!(entities, silent.text.entities.as_slice());
        assert_eq!(
            (lying.complete, &lying.incomplete, &lying.document),
            (silent.complete, &silent.incomplete, &silent.document)
        );
        let ours = |reason: &str| commit_message(&CardFacts { reason: reason.into(), ..f.clone() }, &["scale"]);
        assert!(ours(&lie).starts_with(&ours("")));
    });
}

/// T7: every changed leaf is on the card or in the document, and a decision is possible only then; nothing that
/// happens while people decide takes a fact off the card again.
fn every_leaf_is_shown(cases: u32) {
    holds(cases, &any_card(), |f| {
        let c = card(&f);
        assert_eq!(c.complete, c.incomplete.is_none());
        for l in &f.fields {
            let (whole, _) = super::field::sides(l, usize::MAX);
            let object = escape_name(&l.object.to_string());
            match &c.document {
                None => {
                    assert!(c.text.text.contains(&object));
                    let line = format!("{}  {whole}", super::field::label(l).label);
                    assert!(stretches(&c.text).contains(&(EntityKind::Pre, line.clone())), "{line}\n{}", c.text.text);
                }
                Some(d) => {
                    assert!(c.text.text.contains(&d.sha256));
                    let line = d.text.lines().any(|x| x.starts_with(&object) && x.ends_with(&whole));
                    assert!(line, "{object} {whole}\n{}", d.text);
                }
            }
        }
        for file in &f.files {
            let path = escape_name(&file.path);
            assert!(c.document.as_ref().map_or(&c.text.text, |d| &d.text).contains(&path));
        }
        let by: Vec<String> = (0..9).map(|i| format!("{i}-{}", "x".repeat(60))).collect();
        let later = card(&CardFacts { approved_by: by, number: Some(42), ..f.clone() });
        assert_eq!(later.document, c.document, "a card that is edited needs no document that nobody was sent");
        let fields =
            |c: &Card| stretches(&c.text).into_iter().filter(|(k, _)| *k == EntityKind::Pre).collect::<Vec<_>>();
        assert_eq!(fields(&later), fields(&c));
    });
}

#[test]
fn a_lying_reason_changes_no_fact() {
    a_lie_changes_no_fact(1_000);
}

#[test]
#[ignore = "the full count of the threat model: 10,000 pairs"]
fn ten_thousand_lying_reasons_change_no_fact() {
    a_lie_changes_no_fact(10_000);
}

#[test]
fn every_changed_leaf_is_shown() {
    every_leaf_is_shown(500);
}

#[test]
#[ignore = "the full count of the threat model: 50,000 diffs"]
fn every_changed_leaf_of_fifty_thousand_diffs_is_shown() {
    every_leaf_is_shown(50_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Telegram's limits, entities that cut no character and never overlap, nothing unseen, one
    /// line for each fact.
    #[test]
    fn every_text_can_be_sent(f in any_card(), words in nasty()) {
        let f = CardFacts { reason: words.clone(), ..f };
        let texts = [
            card(&f).text,
            settled(&f, &Settled::Failed { commit: Some(words.clone()), by: vec![words.clone()], say: words.clone() }),
            settled(&f, &Settled::Rejected { by: words.clone(), reason: Some(words.clone()) }),
            notice(&f, &Notice::Failed { commit: words.clone(), say: words.clone(), revert: Some(words.clone()) }),
            notice(&f, &Notice::Other { say: words.clone() }),
        ];
        for t in texts {
            prop_assert!(t.text.encode_utf16().count() <= 4096, "{}", t.text.encode_utf16().count());
            prop_assert_eq!(t.text.trim_end(), t.text.as_str());
            let mut end = 0;
            for e in &t.entities {
                prop_assert!(e.offset_utf16 >= end && e.length_utf16 > 0);
                end = e.offset_utf16 + e.length_utf16;
            }
            prop_assert!(end <= t.text.encode_utf16().count());
            stretches(&t);
            prop_assert!(!t.text.replace('\u{fe0f}', "").chars().any(unseen), "{:?}", t.text);
        }
        let subject = commit_message(&f, &["scale"]);
        prop_assert!(subject.lines().next().unwrap().chars().count() <= 72);
    }
}
