//! Makes what cannot be seen, or looks like something else, visible.

/// Letters of Cyrillic and Greek that look like Latin ones or digits, and Chinese and Japanese ones that
/// look like letters or punctuation (after Unicode's confusables.txt, the entries whose prototype is
/// nothing but ASCII; a test compares the two). Words of nothing but these are escaped whole.
const LOOK_ALIKE: &str =
    "абгеорсухшіјѕґһԁԛԝӏѵАВЕЗКМНОРСТУХЫЬЮЅІЈԌҮαγικνορσυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳ一丅丨丫丶丿ノニエロ口工二卜トーへヘ";

/// Text for one line: letters of scripts that cannot be mistaken stay, everything that is
/// invisible, reorders its neighbours, or looks like another character becomes `\u{…}`.
///
/// It is an allow-list: printable ASCII, accented Latin, Cyrillic and Greek words that are not
/// look-alikes, Chinese, Japanese and Korean. Line breaks become `\n`, tabs `\t`.
pub fn escape_visible(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for token in split_keep(s, |c| c == ' ') {
        if names_something(token) {
            out.push_str(&escape_name(token));
        } else {
            for word in split_keep(token, |c| !c.is_alphanumeric()) {
                escape_word(word, &mut out);
            }
        }
    }
    out
}

/// Names, paths, images and hosts: everything outside printable ASCII becomes `\u{…}`.
pub fn escape_name(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    s.chars().for_each(|c| push(c, c.is_ascii() && !c.is_ascii_control(), &mut out));
    out
}

/// The same for text of several lines: line breaks stay.
pub(crate) fn escape_lines(s: &str) -> String {
    s.split('\n').map(escape_visible).collect::<Vec<_>>().join("\n")
}

/// At most `max` characters of `s`, with an ellipsis where something is missing.
pub(crate) fn shorten(s: &str, max: usize) -> String {
    if s.chars().count() <= max {
        return s.to_owned();
    }
    let mut t: String = s.chars().take(max.saturating_sub(1)).collect();
    t.push('…');
    t
}

fn push(c: char, keep: bool, out: &mut String) {
    use std::fmt::Write as _;
    match c {
        _ if keep => out.push(c),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        }
    }
}

fn escape_word(word: &str, out: &mut String) {
    let latin = word.chars().any(|c| c.is_ascii_alphabetic() || accented_latin(c));
    let foreign: Vec<char> = word.chars().filter(|c| !c.is_ascii() && !accented_latin(*c)).collect();
    // What is never shown as it is makes no other letter of its word honest.
    let honest = |c: &char| (is_cyrillic(*c) || is_greek(*c) || is_cjk(*c)) && !LOOK_ALIKE.contains(*c);
    let alike = !foreign.iter().any(honest);
    let cyrillic = foreign.iter().any(|c| is_cyrillic(*c));
    let mixed = (latin && !foreign.is_empty()) || (cyrillic && foreign.iter().any(|c| is_greek(*c)));
    for c in word.chars() {
        let keep = match c {
            ' '..='~' => true,
            c if accented_latin(c) => true,
            c if is_cyrillic(c) || is_greek(c) => !mixed && !alike,
            c => is_cjk(c) && !mixed && !alike,
        };
        push(c, keep, out);
    }
}

fn accented_latin(c: char) -> bool {
    // Without the letters of these blocks that pass for plain ASCII ones or hold a middle dot.
    matches!(c, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ÿ' | 'Ā'..='ž')
        && !matches!(c, 'ı' | 'ĸ' | 'Ŀ' | 'ŀ' | 'ŉ' | 'ſ' | 'Æ' | 'æ' | 'þ' | 'Ĳ' | 'ĳ' | 'Œ' | 'œ')
}

fn is_cyrillic(c: char) -> bool {
    matches!(c, '\u{400}'..='\u{45f}' | '\u{490}' | '\u{491}')
}

fn is_greek(c: char) -> bool {
    matches!(c, '\u{386}' | '\u{388}'..='\u{38a}' | '\u{38c}' | '\u{38e}'..='\u{3a1}' | '\u{3a3}'..='\u{3ce}')
}

fn is_cjk(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

/// Whether a token looks like a host, a path, an image or an address: one of `. / : @` between
/// letters or digits.
fn names_something(token: &str) -> bool {
    let chars: Vec<char> = token.chars().collect();
    chars.windows(3).any(|w| match w {
        [a, b, c] => a.is_alphanumeric() && matches!(b, '.' | '/' | ':' | '@') && c.is_alphanumeric(),
        _ => false,
    })
}

/// Pieces of `s`, separators as pieces of their own.
fn split_keep(s: &str, separator: impl Fn(char) -> bool) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    for (i, c) in s.char_indices() {
        if separator(c) {
            let end = i + c.len_utf8();
            out.extend(s.get(start..i).filter(|p| !p.is_empty()));
            out.extend(s.get(i..end));
            start = end;
        }
    }
    out.extend(s.get(start..).filter(|p| !p.is_empty()));
    out
}
