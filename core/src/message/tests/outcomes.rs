//! What a card becomes, and the words for each state.

use super::*;

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
            "❌ FAILED · prod-eu · cs-7F3K\ncommit 4be1d2a7c0 · approved by ann\nSeen: one\\u{202e}two",
        ),
        (
            Settled::TimedOut { commit: Some(commit()), by: by(), say: "it waits".into() },
            "⏱️ NOT HEALTHY IN TIME · prod-eu · cs-7F3K\ncommit 4be1d2a7c0 · approved by ann\nLast seen: it waits",
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
            "❌ FAILED · prod-eu · cs-7F3K\ncommit 4be1d2a7c0\nSeen: boom\nThe revert is prepared: cs-BBBB\n"
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
