//! Properties of any card: no lie changes a fact, every leaf is shown, every text can be sent.

use proptest::prelude::*;

use super::*;

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
            settled(&f, &Settled::TimedOut { commit: Some(words.clone()), by: vec![words.clone()], say: words.clone() }),
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
