//! Values as YAML text: quoted wherever some YAML reader would not read a string.

use serde_json::{Map, Value};

use super::text;

/// How new text is laid out, taken from its surroundings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Spaces for each level.
    pub unit: usize,
    /// Lists are indented below their key.
    pub indented_lists: bool,
    /// Line break.
    pub newline: &'static str,
    /// Write JSON (the file is JSON, or the surrounding mapping quotes its keys in braces).
    pub json: bool,
    /// Write text of several lines as a block (`|`).
    pub blocks: bool,
}

/// How a scalar was quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quote {
    /// Not at all.
    Plain,
    /// `'…'`.
    Single,
    /// `"…"`.
    Double,
}

impl Style {
    /// The style of a document.
    pub fn of(src: &str, unit: usize, blocks: bool) -> Self {
        let json = src.trim_start_matches('\u{feff}').trim_start().starts_with('{');
        Self { unit: unit.clamp(1, 8), indented_lists: indented_lists(src), newline: text::newline(src), json, blocks }
    }
}

/// Whether lists are indented below their key; decided by the first list of the text.
fn indented_lists(src: &str) -> bool {
    let mut key: Option<usize> = None;
    for line in src.lines() {
        let body = line.trim_start_matches(' ');
        let indent = line.len() - body.len();
        if body.trim().is_empty() || body.starts_with('#') {
            continue;
        }
        if let (Some(k), true) = (key, body.starts_with("- ")) {
            return indent > k;
        }
        let body_key = body.strip_prefix("- ").map_or((indent, body), |b| (indent + 2, b));
        key = body_key.1.trim_end().ends_with(':').then_some(body_key.0);
    }
    true
}

/// Whether every YAML 1.1 and 1.2 reader reads the plain text as this string, in block and flow.
pub(super) fn safe_plain(s: &str) -> bool {
    let Some(first) = s.chars().next() else { return false };
    if s.len() > 512 || !(first.is_ascii_alphabetic() || first == '/') {
        return digest_like(s);
    }
    if !s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-' | '@' | ':' | '+')) {
        return false;
    }
    // `a:` opens a mapping; `:` is otherwise followed by text here.
    if s.ends_with(':') {
        return false;
    }
    let lower = s.to_ascii_lowercase();
    !matches!(
        lower.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "nan" | "inf" | "infinity"
    )
}

/// `1.2.3` and `v1`-like version numbers that no reader takes for a number.
fn digest_like(s: &str) -> bool {
    let first = s.chars().next().is_some_and(|c| c.is_ascii_digit());
    let parts: Vec<&str> = s.split('.').collect();
    first
        && parts.len() >= 3
        && parts.iter().take(3).all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

/// A quoted string.
fn double(s: &str) -> String {
    // JSON's escapes are a subset of YAML's double-quoted ones; other line breaks and marks are escaped too.
    let mut out = Value::String(s.to_owned()).to_string();
    for (c, esc) in [
        ('\u{7f}', "\\u007f"),
        ('\u{85}', "\\u0085"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
        ('\u{feff}', "\\ufeff"),
    ] {
        if out.contains(c) {
            out = out.replace(c, esc);
        }
    }
    out
}

/// A string in the wanted quotes, or in double quotes where those cannot hold it.
pub(super) fn string(s: &str, quote: Quote) -> String {
    match quote {
        Quote::Plain if safe_plain(s) => s.to_owned(),
        Quote::Single
            if s.chars().all(|c| !c.is_control() && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')) =>
        {
            format!("'{}'", s.replace('\'', "''"))
        }
        _ => double(s),
    }
}

/// A scalar on one line; `None` for lists and mappings that are not empty.
pub(super) fn scalar(v: &Value, quote: Quote) -> Option<String> {
    match v {
        Value::Null => Some("null".to_owned()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(string(s, quote)),
        Value::Array(a) if a.is_empty() => Some("[]".to_owned()),
        Value::Object(o) if o.is_empty() => Some("{}".to_owned()),
        _ => None,
    }
}

/// A mapping key.
pub(super) fn key(k: &str, json: bool) -> String {
    string(k, if json { Quote::Double } else { Quote::Plain })
}

/// Everything on one line.
pub(super) fn flow(v: &Value, json: bool) -> String {
    if json {
        return v.to_string();
    }
    match v {
        Value::Array(a) if !a.is_empty() => {
            format!("[{}]", a.iter().map(|v| flow(v, json)).collect::<Vec<_>>().join(", "))
        }
        Value::Object(o) if !o.is_empty() => {
            let items: Vec<_> = o.iter().map(|(k, v)| format!("{}: {}", key(k, json), flow(v, json))).collect();
            format!("{{{}}}", items.join(", "))
        }
        v => scalar(v, Quote::Plain).unwrap_or_default(),
    }
}

/// What follows `key:` in block style, with its leading space or line break, without a final line
/// break. `indent` is the key's column.
pub(super) fn after_colon(v: &Value, indent: usize, style: Style) -> String {
    match v {
        Value::Object(o) if !o.is_empty() => {
            let lines = map_lines(o, indent + style.unit, style);
            format!("{}{}", style.newline, lines.join(style.newline))
        }
        Value::Array(a) if !a.is_empty() => {
            let at = if style.indented_lists { indent + style.unit } else { indent };
            format!("{}{}", style.newline, list_lines(a, at, 1, style).join(style.newline))
        }
        Value::String(s) => match literal(s, indent + style.unit, style) {
            Some(text) => format!(" {text}"),
            None => format!(" {}", string(s, Quote::Plain)),
        },
        v => format!(" {}", scalar(v, Quote::Plain).unwrap_or_default()),
    }
}

/// A literal block, for text of several lines that it can hold exactly.
fn literal(s: &str, indent: usize, style: Style) -> Option<String> {
    let (body, chomp) = match s.strip_suffix('\n') {
        Some(b) => (b, "|"),
        None => (s, "|-"),
    };
    let odd = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    if !style.blocks
        || !body.contains('\n')
        || body.ends_with('\n')
        || body.starts_with([' ', '\n'])
        || body.chars().any(odd)
    {
        return None;
    }
    let mut out = chomp.to_owned();
    for line in body.split('\n') {
        out.push_str(style.newline);
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
    Some(out)
}

/// The lines of a block mapping whose keys stand at `indent`.
pub(super) fn map_lines(o: &Map<String, Value>, indent: usize, style: Style) -> Vec<String> {
    let pad = " ".repeat(indent);
    o.iter().map(|(k, v)| format!("{pad}{}:{}", key(k, false), after_colon(v, indent, style))).collect()
}

/// The lines of a block list whose dashes stand at `indent`, each followed by `gap` spaces.
pub(super) fn list_lines(a: &[Value], indent: usize, gap: usize, style: Style) -> Vec<String> {
    let pad = " ".repeat(indent);
    a.iter().map(|v| format!("{pad}{}", item(v, indent, gap, style))).collect()
}

/// One list item from its dash on; the dash stands at `indent`.
pub(super) fn item(v: &Value, indent: usize, gap: usize, style: Style) -> String {
    let inner = indent + 1 + gap;
    let dash = format!("-{}", " ".repeat(gap));
    let text = match v {
        Value::Object(o) if !o.is_empty() => map_lines(o, inner, style).join(style.newline),
        Value::Array(a) if !a.is_empty() => list_lines(a, inner, 1, style).join(style.newline),
        Value::String(s) => literal(s, inner, style).unwrap_or_else(|| string(s, Quote::Plain)),
        v => scalar(v, Quote::Plain).unwrap_or_default(),
    };
    format!("{dash}{}", text.trim_start_matches(' '))
}
