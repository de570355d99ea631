//! Every text that people see, against its file in `tests-data/cards`.

use super::*;

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
            "deciding-one-of-two-groups",
            with(|f| {
                f.approvers = vec!["ann".into(), "bob".into(), "rae".into()];
                (f.viewer, f.needed, f.approved_by) = (Some("rae".into()), 2, vec!["ann".into(), "bob".into()]);
                f.seats = Some(Seats {
                    groups: vec!["release-managers".into(), "sre".into()],
                    counted: 1,
                    open: vec!["release-managers".into()],
                });
            }),
        ),
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
    let (by, commit, say, waits) = (
        || vec!["ann".to_owned()],
        || "4be1d2a7c0ffee11".to_owned(),
        || "container app: CrashLoopBackOff (exit 1)".to_owned(),
        || "4be1d2a is rolling out: 1 of 2 updated".to_owned(),
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
        ("timed-out", Settled::TimedOut { commit: Some(commit()), by: by(), say: waits() }),
        ("superseded", Settled::Superseded { commit: commit() }),
        ("undelivered", Settled::Undelivered { why: "the branch is protected".into() }),
    ] {
        put(&format!("outcome-{name}"), &settled(&facts(), &how));
    }
    for (name, what) in [
        ("standard", Notice::Standard { commit: commit() }),
        ("healthy", Notice::Healthy { commit: commit(), seconds: 47 }),
        ("failed", Notice::Failed { commit: commit(), say: say(), revert: None }),
        ("timed-out", Notice::TimedOut { commit: commit(), say: waits(), revert: None }),
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
