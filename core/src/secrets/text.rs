//! Secrets in free text: logs, diffs, embedded files, an agent's words.

use std::sync::LazyLock;

use regex::Regex;

use super::names::{Hint, hint, names_hash, plausible};
use super::{decode, shapes};

/// One secret in a text, as a byte range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
    /// Why it is one.
    pub why: &'static str,
}

/// `key: value`, `key=value`, `"key": "value"`, `--key=value`, `export KEY=value`; indentation and
/// list marks before it.
static PAIR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"^(?P<lead>[\s\-]*(?:export\s+)?)["']?(?P<key>[A-Za-z_][A-Za-z0-9_.\-/]*)["']?\s*(?:[:=]\s*)(?P<value>.*?)\s*$"#).ok()
});

/// Pairs inside a line: flags, JSON members, sentences (`password is x` is not one: it says nothing).
static INLINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // After `=` a value runs to the next space; after `:` it may stand in a flow mapping.
    let quoted = r#""(?:[^"\\]|\\.)*"|'[^']*'|\$\{[^}]*\}|\{\{[^}]*\}\}|\$\([^)]*\)|\[secret:[0-9a-f]{8}\]"#;
    let key = r#"["']?(?P<key>[A-Za-z_][A-Za-z0-9_.\-/]*)["']?\s*"#;
    Regex::new(&format!(r#"{key}(?:=(?P<value>{quoted}|[^\s"']+)|:\s*(?P<flow>{quoted}|[^\s,;"'}}\]\[{{]+))"#)).ok()
});

/// `--password hunter2`, `-token abc`.
static FLAG: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(?:^|\s)--?(?P<key>[A-Za-z][A-Za-z0-9_\-]*)\s+(?P<value>"[^"]*"|'[^']*'|[^\s\-"'][^\s"']*)"#).ok()
});

static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[A-Za-z0-9+/=_\-]{20,}").ok());

/// A Secret in one line of JSON, escaped or not: the members of its data.
static JSON_SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"\\*"kind\\*"\s*:\s*\\*"Secret\\*""#).ok());
static JSON_DATA: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"\\*"(?:data|stringData)\\*"\s*:\s*\{(?P<members>[^{}]*)\}"#).ok());
static JSON_VALUE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#":\s*\\*"(?P<value>[^"]*?)\\*"\s*(?:,|$)"#).ok());

fn json_secret(s: &str, out: &mut Vec<Span>) {
    if !JSON_SECRET.as_ref().is_some_and(|r| r.is_match(s)) {
        return;
    }
    for members in JSON_DATA.iter().flat_map(|r| r.captures_iter(s)).filter_map(|c| c.name("members")) {
        for v in JSON_VALUE.iter().flat_map(|r| r.captures_iter(members.as_str())).filter_map(|c| c.name("value")) {
            if plausible(v.as_str()) {
                let start = members.start() + v.start();
                out.push(Span { start, end: start + v.len(), why: "data of a Secret" });
            }
        }
    }
}

/// Length of a mark.
const MARK: usize = "[secret:00000000]".len();

/// Whether a text is one of our own marks.
pub(super) fn is_mark(s: &str) -> bool {
    s.strip_prefix("[secret:")
        .and_then(|r| r.strip_suffix(']'))
        .is_some_and(|h| h.len() == 8 && h.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Every secret in a text, sorted, not overlapping.
pub fn scan_text(s: &str) -> Vec<Span> {
    let mut out: Vec<Span> = shapes::known(s).into_iter().map(|(start, end, why)| Span { start, end, why }).collect();
    Lines::new(s).scan(&mut out);
    json_secret(s, &mut out);
    for word in WORD.iter().flat_map(|w| w.find_iter(s)) {
        if shapes::random(word.as_str()) && !after_hash_name(s, word.start()) {
            out.push(Span { start: word.start(), end: word.end(), why: "random string" });
        } else if decode::base64_text(word.as_str()).is_some_and(|t| t.len() >= 12 && leaks(&t)) {
            out.push(Span { start: word.start(), end: word.end(), why: "encoded secret" });
        }
    }
    merge(s, out)
}

/// Whether decoded text holds a secret by shape or by name.
fn leaks(t: &str) -> bool {
    if !shapes::known(t).is_empty() {
        return true;
    }
    let mut out = Vec::new();
    Lines::new(t).scan(&mut out);
    !out.is_empty()
}

/// Whether the text right before says that a hash follows (`checksum: `, `sha256:`).
fn after_hash_name(s: &str, at: usize) -> bool {
    let before = s.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let name = line
        .trim_end_matches([' ', ':', '=', '"', '\'', '@', '+', '-'])
        .rsplit([' ', '"', '\'', ',', '{'])
        .next()
        .unwrap_or_default();
    names_hash(name)
}

fn merge(s: &str, mut spans: Vec<Span>) -> Vec<Span> {
    // A mark reads like `secret: value` itself.
    let marks: Vec<(usize, usize)> = s
        .match_indices("[secret:")
        .filter(|(i, _)| s.get(*i..i + MARK).is_some_and(is_mark))
        .map(|(i, _)| (i, i + MARK))
        .collect();
    spans.retain(|x| !marks.iter().any(|(a, b)| *a <= x.start && x.end <= *b));
    spans.retain(|x| x.start < x.end && s.get(x.start..x.end).is_some_and(|t| !t.trim().is_empty() && !is_mark(t)));
    spans.sort_by_key(|x| (x.start, std::cmp::Reverse(x.end)));
    let mut out: Vec<Span> = Vec::new();
    for x in spans {
        match out.last_mut() {
            Some(last) if x.start < last.end => last.end = last.end.max(x.end),
            _ => out.push(x),
        }
    }
    out
}

/// Walks lines with what the lines before say about them.
struct Lines<'a> {
    text: &'a str,
    diff: bool,
    /// Name of the list item whose `value:` may follow, and how deep it stands.
    item: Option<(String, usize)>,
    /// A block scalar under a secret's name: deeper lines belong to it.
    block: Option<usize>,
    /// The document is a Secret; `Some` inside its data, with the depth of that key.
    data: Option<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let diff = text.lines().any(|l| l.starts_with("@@ ") || l.starts_with("diff --git "));
        Self { text, diff, item: None, block: None, data: None }
    }

    fn scan(&mut self, out: &mut Vec<Span>) {
        let secret_docs = self.secret_documents();
        let mut doc = 0usize;
        let mut at = 0usize;
        for line in self.text.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let line = line.trim_end_matches(['\n', '\r']);
            if self.boundary(line) {
                doc += 1;
                (self.item, self.block, self.data) = (None, None, None);
                continue;
            }
            let marked = self.diff && line.starts_with(['+', '-', ' ']);
            let (body, start) = if marked { (line.get(1..).unwrap_or_default(), start + 1) } else { (line, start) };
            self.line(body, start, secret_docs.get(doc).copied().unwrap_or(false), out);
        }
    }

    fn boundary(&self, line: &str) -> bool {
        let body = if self.diff { line.strip_prefix(['+', '-', ' ']).unwrap_or(line) } else { line };
        body.trim_end() == "---" || (self.diff && (line.starts_with("diff --git ") || line.starts_with("--- ")))
    }

    /// Which documents of the text say `kind: Secret`.
    fn secret_documents(&self) -> Vec<bool> {
        let mut out = vec![false];
        for line in self.text.lines() {
            if self.boundary(line) {
                out.push(false);
                continue;
            }
            let body = if self.diff { line.strip_prefix(['+', '-', ' ']).unwrap_or(line) } else { line };
            let body = body.trim().trim_start_matches("- ").replace(['"', '\'', ','], "");
            if body == "kind: Secret"
                && let Some(last) = out.last_mut()
            {
                *last = true;
            }
        }
        out
    }

    fn line(&mut self, body: &str, start: usize, secret: bool, out: &mut Vec<Span>) {
        let depth = body.len() - body.trim_start_matches([' ', '-', '\t']).len();
        let indent = body.len() - body.trim_start_matches([' ', '\t']).len();
        if body.trim().is_empty() {
            return;
        }
        if let Some(d) = self.block {
            if indent > d {
                out.push(Span { start: start + indent, end: start + body.len(), why: "block under a secret's name" });
                return;
            }
            self.block = None;
        }
        if self.data.is_some_and(|d| depth <= d) {
            self.data = None;
        }
        if let Some(c) = PAIR.as_ref().and_then(|p| p.captures(body)) {
            let (Some(key), Some(value)) = (c.name("key"), c.name("value")) else { return };
            let value = unquoted(value.as_str(), value.start());
            self.pair(key.as_str(), value, body, start, (depth, secret), out);
        }
        inline(body, start, out);
    }

    fn pair(
        &mut self,
        key: &str,
        value: (&str, usize),
        body: &str,
        start: usize,
        at: (usize, bool),
        out: &mut Vec<Span>,
    ) {
        let ((v, offset), (depth, secret)) = (value, at);
        let span = |why| Span { start: start + offset, end: start + offset + v.len(), why };
        let is_block = v.starts_with('|') || v.starts_with('>');
        if let Some(d) = self.data
            && depth > d
        {
            if is_block {
                self.block = Some(body.len() - body.trim_start_matches([' ', '\t']).len());
            } else if plausible(v) {
                out.push(span("data of a Secret"));
            }
            return;
        }
        if secret && matches!(key, "data" | "stringData") && v.is_empty() {
            self.data = Some(depth);
            return;
        }
        match key {
            "name" | "key" => self.item = Some((v.to_owned(), depth)),
            "value" | "literal" => {
                let named = self.item.as_ref().filter(|(_, d)| *d == depth);
                if named.is_some_and(|(n, _)| hint(n) == Hint::Strong && plausible(v)) {
                    out.push(span("value of a secret's name"));
                }
            }
            _ if is_block && hint(key) == Hint::Strong => {
                self.block = Some(depth.min(body.len() - body.trim_start().len()))
            }
            _ if by_name(key, v) => out.push(span("a secret's name")),
            _ => {}
        }
    }
}

/// Whether name and value together make a secret.
pub(super) fn by_name(key: &str, value: &str) -> bool {
    let v = value.trim();
    match hint(key) {
        Hint::Strong => plausible(v) && !structure(v) && !(names_hash(key) && shapes::hash_like(v)),
        Hint::Weak => plausible(v) && v.len() >= 16 && (shapes::random(v) || mixed(v)),
        Hint::None => false,
    }
}

/// A flow mapping or list, or the start of one: its members are judged one by one.
fn structure(v: &str) -> bool {
    v == "{"
        || v == "["
        || (v.starts_with('{') && (v.contains(": ") || v.ends_with(['}', ','])))
        || (v.starts_with('[') && v.ends_with([']', ',']))
}

/// 16 or more letters and digits without a structure that names have.
fn mixed(v: &str) -> bool {
    let digits = v.bytes().filter(u8::is_ascii_digit).count();
    let letters = v.bytes().filter(u8::is_ascii_alphabetic).count();
    v.bytes().all(|b| b.is_ascii_alphanumeric()) && digits >= 3 && letters >= 3
}

fn unquoted(value: &str, offset: usize) -> (&str, usize) {
    let v = value.trim_end_matches(',');
    for q in ['"', '\''] {
        if let Some(inner) = v.strip_prefix(q) {
            return (inner.strip_suffix(q).unwrap_or(inner), offset + 1);
        }
    }
    // A comment behind a plain scalar is not part of it.
    let v = v.split_once(" #").map_or(v, |(v, _)| v.trim_end());
    (v, offset)
}

fn inline(body: &str, start: usize, out: &mut Vec<Span>) {
    for c in INLINE.iter().flat_map(|r| r.captures_iter(body)).chain(FLAG.iter().flat_map(|r| r.captures_iter(body))) {
        let (Some(key), Some(value)) = (c.name("key"), c.name("value").or_else(|| c.name("flow"))) else { continue };
        let (v, offset) = unquoted(value.as_str(), value.start());
        if by_name(key.as_str().trim_start_matches('-'), v) {
            out.push(Span { start: start + offset, end: start + offset + v.len(), why: "a secret's name" });
        }
    }
}

/// How many of the expressions compiled; a test compares it with their number.
#[cfg(test)]
pub(super) fn expressions() -> usize {
    [&PAIR, &INLINE, &FLAG, &WORD, &JSON_SECRET, &JSON_DATA, &JSON_VALUE].into_iter().filter(|r| r.is_some()).count()
}
