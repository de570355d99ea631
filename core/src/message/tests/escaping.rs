//! What is invisible, reorders or looks like something else is marked; honest text stays readable.

use super::*;

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
