//! Adds one entry to JSON with comments and trailing commas, as editors keep it; every other byte stays.

use countersign_core::{Problem, Result};
use serde_json::Value;

/// Deepest nesting that is read.
const DEEP: usize = 64;

pub(super) fn unreadable(why: impl std::fmt::Display) -> Problem {
    Problem::new(
        "connect.unreadable",
        format!("The client's file is not changed, because it is not understood: {why}."),
        "Add the text below by hand.",
    )
}

pub(super) fn exists(name: &str) -> Problem {
    Problem::new(
        "connect.exists",
        format!("The client's file has another entry called {name} already."),
        "Remove that one, choose another --name, or merge the text below by hand.",
    )
}

/// One value of the text.
struct Node {
    start: usize,
    /// One past its last byte.
    end: usize,
    inner: Inner,
}

enum Inner {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Scalar,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// The text with comments and trailing commas as spaces: plain JSON with the same places.
    plain: Vec<u8>,
}

impl<'t> Reader<'t> {
    fn read(text: &'t str) -> Result<(Node, Value)> {
        let mut r = Reader { text, at: 0, plain: text.as_bytes().to_vec() };
        if text.starts_with('\u{feff}') {
            r.blank(0, 3);
            r.at = 3;
        }
        let root = r.value(0)?;
        r.skip()?;
        if r.at < text.len() {
            return Err(r.wrong("something follows the value"));
        }
        let value = serde_json::from_slice(&r.plain).map_err(unreadable)?;
        Ok((root, value))
    }

    fn wrong(&self, what: &str) -> Problem {
        let line = self.text.as_bytes().iter().take(self.at).filter(|b| **b == b'\n').count() + 1;
        unreadable(format!("line {line}: {what}"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self, from: usize, to: usize) {
        for b in self.plain.iter_mut().take(to).skip(from).filter(|b| **b != b'\n') {
            *b = b' ';
        }
    }

    /// Passes over white space and comments.
    fn skip(&mut self) -> Result<()> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.at += rest.len() - trimmed.len();
            let length = if trimmed.starts_with("//") {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else if trimmed.starts_with("/*") {
                trimmed.find("*/").ok_or_else(|| self.wrong("a comment does not end"))? + 2
            } else {
                return Ok(());
            };
            self.blank(self.at, self.at + length);
            self.at += length;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node> {
        if depth > DEEP {
            return Err(self.wrong("it is nested too deep"));
        }
        self.skip()?;
        let start = self.at;
        let inner = match self.peek() {
            Some(b'{') => Inner::Object(self.object(depth)?),
            Some(b'[') => Inner::Array(self.array(depth)?),
            Some(b'"') => {
                self.string()?;
                Inner::Scalar
            }
            Some(_) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
                let length = rest.find(|c| !plain(c)).unwrap_or(rest.len());
                if length == 0 {
                    return Err(self.wrong("a value is expected"));
                }
                self.at += length;
                Inner::Scalar
            }
            None => return Err(self.wrong("a value is missing")),
        };
        Ok(Node { start, end: self.at, inner })
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        let mut escaped = false;
        for (i, b) in self.text.bytes().enumerate().skip(start + 1) {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at = i + 1;
                    let literal = self.text.get(start..self.at).unwrap_or_default();
                    return serde_json::from_str(literal).map_err(|_| self.wrong("a string is not valid"));
                }
                b'\n' => break,
                _ => {}
            }
        }
        Err(self.wrong("a string does not end"))
    }

    /// After a member: on to the next one, or the end. A comma before the end is taken out.
    fn more(&mut self, close: u8) -> Result<bool> {
        self.skip()?;
        let comma = self.at;
        if self.peek() == Some(b',') {
            self.at += 1;
            self.skip()?;
            if self.peek() != Some(close) {
                return Ok(true);
            }
            self.blank(comma, comma + 1);
        }
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        Err(self.wrong("a comma or the end is expected"))
    }

    fn object(&mut self, depth: usize) -> Result<Vec<(String, Node)>> {
        let mut members: Vec<(String, Node)> = Vec::new();
        self.at += 1;
        self.skip()?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(members);
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a name in quotes is expected"));
            }
            let name = self.string()?;
            if members.iter().any(|(n, _)| *n == name) {
                return Err(self.wrong("a name is there twice"));
            }
            self.skip()?;
            if self.peek() != Some(b':') {
                return Err(self.wrong("a colon is expected"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            members.push((name, value));
            if !self.more(b'}')? {
                return Ok(members);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Node>> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip()?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(items);
        }
        loop {
            items.push(self.value(depth + 1)?);
            if !self.more(b']')? {
                return Ok(items);
            }
        }
    }
}

/// The text with `section.name`; `None` where the same is there already. `connect.exists`, `connect.unreadable`.
pub fn add_entry(text: &str, section: &str, name: &str, entry: &Value) -> Result<Option<String>> {
    let text = if text.trim_start_matches('\u{feff}').trim().is_empty() { "{}\n" } else { text };
    let (root, before) = Reader::read(text)?;
    let Inner::Object(members) = &root.inner else { return Err(unreadable("it is no object")) };
    let after = match members.iter().find(|(n, _)| n == section) {
        None => {
            let whole = Value::Object([(name.to_owned(), entry.clone())].into_iter().collect());
            insert(text, &root, Some(section), &whole)?
        }
        Some((_, node)) => {
            let Inner::Object(entries) = &node.inner else {
                return Err(unreadable(format!("{section} is no object")));
            };
            if entries.iter().any(|(n, _)| n == name) {
                let same = before.get(section).and_then(|s| s.get(name)) == Some(entry);
                return if same { Ok(None) } else { Err(exists(name)) };
            }
            insert(text, node, Some(name), entry)?
        }
    };
    let mut wanted = before;
    if let Some(map) = wanted.as_object_mut() {
        let place = map.entry(section).or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(entries) = place.as_object_mut() {
            entries.insert(name.to_owned(), entry.clone());
        }
    }
    proved(after, &wanted)
}

/// The text with one more item in the list `section`; `None` where one with that `id` is there already.
pub fn add_item(text: &str, section: &str, id: &str, item: &Value) -> Result<Option<String>> {
    let text = if text.trim_start_matches('\u{feff}').trim().is_empty() { "{}\n" } else { text };
    let (root, before) = Reader::read(text)?;
    let Inner::Object(members) = &root.inner else { return Err(unreadable("it is no object")) };
    let items = before.get(section).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.iter().any(|i| i.get(id).is_some() && i.get(id) == item.get(id)) {
        return Ok(None);
    }
    let after = match members.iter().find(|(n, _)| n == section) {
        None => insert(text, &root, Some(section), &Value::Array(vec![item.clone()]))?,
        Some((_, node)) if matches!(node.inner, Inner::Array(_)) => insert(text, node, None, item)?,
        Some(_) => return Err(unreadable(format!("{section} is no list"))),
    };
    let mut wanted = before;
    if let Some(map) = wanted.as_object_mut()
        && let Some(list) = map.entry(section).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()
    {
        list.push(item.clone());
    }
    proved(after, &wanted)
}

/// What was made is what was wanted, read anew.
fn proved(after: String, wanted: &Value) -> Result<Option<String>> {
    let (_, read) = Reader::read(&after)?;
    if read == *wanted { Ok(Some(after)) } else { Err(unreadable("the new entry cannot be told from the others")) }
}

/// Puts a member (or an item) at the end of an object (or a list).
fn insert(text: &str, into: &Node, name: Option<&str>, value: &Value) -> Result<String> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let unit = unit(text);
    let outer = indentation(text, into.start);
    let last = match &into.inner {
        Inner::Object(members) => members.last().map(|(_, n)| n.end),
        Inner::Array(items) => items.last().map(|n| n.end),
        Inner::Scalar => return Err(unreadable("there is no place for it")),
    };
    let first_line_break = text.get(into.start..into.end).is_some_and(|t| t.contains('\n'));
    let inner = format!("{outer}{unit}");
    let key = name.map(|n| format!("{}: ", Value::String(n.to_owned()))).unwrap_or_default();
    let member = format!("{key}{}", pretty(value, &inner, unit, newline));
    let close = into.end - 1;
    let mut out = String::with_capacity(text.len() + member.len() + 64);
    let mut push = |part: Option<&str>| out.push_str(part.unwrap_or_default());
    let Some(last) = last else {
        // Comments in it stay, behind the new member.
        push(text.get(..=into.start));
        push(Some(&format!("{newline}{inner}{member}")));
        let rest = text.get(into.start + 1..close).unwrap_or_default();
        if !rest.trim().is_empty() {
            push(Some(rest.trim_end()));
        }
        push(Some(&format!("{newline}{outer}")));
        push(text.get(close..));
        return Ok(out);
    };
    // A comment at the end of the last member's line belongs to that member, and its comma comes before it.
    let rest = text.get(last..close).unwrap_or_default();
    let comma = after_comments(rest).is_some_and(|i| rest.as_bytes().get(i) == Some(&b','));
    if !first_line_break && !comma {
        push(text.get(..last));
        push(Some(&format!(", {key}{value}")));
        push(text.get(last..));
        return Ok(out);
    }
    let line_end = rest.find('\n').map_or(rest.trim_end().len(), |i| rest.get(..i).unwrap_or(rest).trim_end().len());
    // A comma further down than this line (or a comment that goes on) keeps the place simple: right before the end.
    let head = rest.get(..line_end).unwrap_or_default();
    let here = !head.contains("/*") && (!comma || after_comments(rest).is_some_and(|i| i < line_end));
    let place = last + if here { line_end } else { rest.trim_end().len() };
    push(text.get(..last));
    push(Some(if comma { "" } else { "," }));
    push(text.get(last..place));
    push(Some(&format!("{newline}{inner}{member}")));
    push(Some(if comma { "," } else { "" }));
    let tail = text.get(place..).unwrap_or_default();
    if !tail.starts_with(['\n', '\r', ' ', '\t']) {
        push(Some(&format!("{newline}{outer}")));
    }
    push(Some(tail));
    Ok(out)
}

/// Where the first thing that is neither white space nor comment stands.
fn after_comments(text: &str) -> Option<usize> {
    let mut reader = Reader { text, at: 0, plain: text.as_bytes().to_vec() };
    reader.skip().ok()?;
    (reader.at < text.len()).then_some(reader.at)
}

/// White space at the beginning of the line that a place is on.
fn indentation(text: &str, at: usize) -> String {
    let line = text.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
    line.chars().take_while(|c| matches!(c, ' ' | '\t')).collect()
}

/// One step of indentation, as the file has it.
fn unit(text: &str) -> &'static str {
    let first = text.lines().find(|l| l.starts_with([' ', '\t']) && !l.trim().is_empty());
    match first {
        Some(l) if l.starts_with('\t') => "\t",
        Some(l) if l.len() - l.trim_start_matches(' ').len() >= 4 => "    ",
        _ => "  ",
    }
}

fn pretty(value: &Value, indent: &str, unit: &str, newline: &str) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut out = String::new();
    for (i, line) in text.lines().enumerate() {
        if i > 0 {
            let depth = (line.len() - line.trim_start().len()) / 2;
            out.push_str(newline);
            out.push_str(indent);
            out.push_str(&unit.repeat(depth));
        }
        out.push_str(line.trim_start());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> Value {
        json!({"command": "c", "args": ["serve"]})
    }

    fn add(text: &str) -> String {
        add_entry(text, "mcpServers", "countersign", &entry()).unwrap().unwrap()
    }

    #[test]
    fn comments_and_trailing_commas_stay_where_they_are() {
        let before = "// mine\n{\n    \"theme\": \"dark\", // at night\n    \"mcpServers\": {\n        \"other\": {\"command\": \"o\"}, // keep\n        /* the end */\n    },\n}\n";
        insta::assert_snapshot!(add(before));
    }

    #[test]
    fn a_comment_behind_the_last_member_stays_with_it() {
        let before = "{\n  \"mcpServers\": {\n    \"other\": {} // mine\n  }\n}\n";
        let after = add(before);
        assert!(after.contains("\"other\": {}, // mine\n    \"countersign\": {\n"), "{after}");
    }

    #[test]
    fn every_style_of_file_keeps_its_other_values() {
        for before in [
            "",
            " \n",
            "{}",
            "{ }\n",
            "{\n}\n",
            "{\"mcpServers\":{}}",
            "{\"mcpServers\":{\"a\":{\"command\":\"x\"}},\"z\":1}",
            "{\"mcpServers\":{\"a\":1,}}",
            "{\r\n\t\"a\": [1, 2,],\r\n\t\"mcpServers\": {\r\n\t}\r\n}\r\n",
            "\u{feff}{\"a\": \"// no comment \\\" {\"}",
            "{\n  \"mcpServers\": {\n    // nothing yet\n  }\n}",
            "{\n  \"a\": 1 /* one\n  two */\n}",
            "{\n  \"a\": 1\n  , // odd\n}",
            "{\"a\": 1 // c\n}",
        ] {
            let after = add(before);
            let (_, value) = Reader::read(&after).unwrap();
            assert_eq!(value["mcpServers"]["countersign"], entry(), "{before:?}\n{after}");
            if !before.trim().is_empty() {
                let (_, old) = Reader::read(before).unwrap();
                let mut rest = value.clone();
                rest["mcpServers"].as_object_mut().unwrap().remove("countersign");
                if old.get("mcpServers").is_none() {
                    rest.as_object_mut().unwrap().remove("mcpServers");
                }
                assert_eq!(rest, old, "{before:?}\n{after}");
            }
            let visible = |t: &str| t.matches("//").count() + t.matches("/*").count();
            assert_eq!(visible(&after), visible(before), "{before:?}: comments stay");
            assert_eq!(add_entry(&after, "mcpServers", "countersign", &entry()).unwrap(), None, "{before:?}");
        }
    }

    #[test]
    fn another_entry_of_that_name_is_not_overwritten() {
        let p = add_entry("{\"mcpServers\": {\"countersign\": {}}}", "mcpServers", "countersign", &entry());
        assert_eq!(p.unwrap_err().code, "connect.exists");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "[]",
            "{",
            "{\"a\" 1}",
            "{a: 1}",
            "{} x",
            "{\"a\": 1, \"a\": 2}",
            "{\"a\": 'x'}",
            "{\"mcpServers\": []}",
            "{\"mcpServers\": null}",
            "/* open",
            "{\"a\": \"open}",
            "{\"a\": 01}",
            "{,}",
            "{\"a\": ,}",
        ] {
            let p = add_entry(bad, "mcpServers", "countersign", &entry()).unwrap_err();
            assert_eq!(p.code, "connect.unreadable", "{bad}");
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(add_entry(&deep, "m", "n", &entry()).unwrap_err().code, "connect.unreadable");
    }

    #[test]
    fn an_item_is_added_once() {
        let item = json!({"id": "t", "type": "promptString"});
        for before in ["", "{\"inputs\": []}", "{\n  \"inputs\": [\n    {\"id\": \"a\"}\n  ]\n}"] {
            let after = add_item(before, "inputs", "id", &item).unwrap().unwrap();
            let (_, value) = Reader::read(&after).unwrap();
            assert_eq!(value["inputs"].as_array().unwrap().last(), Some(&item), "{after}");
            assert_eq!(add_item(&after, "inputs", "id", &item).unwrap(), None);
        }
    }
}
