//! Every word that people and agents read: as designed, of ours alone, and never too much to be sent.

use serde_json::{Value, json};

use super::*;
use crate::model::{Delivery, DeliveryState, Engine, LeafChange, ObjectKey, OwnerRef, Risk, RiskLevel};

mod cards;
mod commits;
mod escaping;
mod goldens;
mod outcomes;
mod properties;

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
        seats: None,
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
