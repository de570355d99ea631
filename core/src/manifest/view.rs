//! Where the parts of one document stand in its text, and what keeps them from being edited.

use noyalib::cst;
use serde_json::{Map, Value};

use super::pointer::{Step, display, get};
use super::text::{self, first_on_line};
use crate::error::{Problem, Result};

/// A document's text, value and positions.
pub(super) struct View<'d> {
    /// Lossless document.
    pub doc: &'d cst::Document,
    /// Its value.
    pub value: &'d Value,
    /// Its text.
    pub src: &'d str,
}

/// How a part is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One scalar, in whatever style.
    Scalar,
    /// `{…}` or `[…]`, empty ones included.
    Flow,
    /// Mapping in lines.
    BlockMap,
    /// List in lines.
    BlockList,
    /// A key without a value.
    Missing,
}

/// A part of the document: its shape and its bytes, without marks before and comments after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Shape.
    pub shape: Shape,
    /// First byte of its content.
    pub start: usize,
    /// Byte after its content.
    pub end: usize,
}

pub(super) fn unusual(what: &str) -> Problem {
    Problem::new(
        "manifest.unusual_syntax",
        format!("The document is written in a way that is not edited by machine: {what}."),
        "Rewrite that part in plain block YAML, or let a person make this change.",
    )
}

impl<'d> View<'d> {
    /// A view of a document.
    pub fn new(doc: &'d cst::Document, value: &'d Value) -> Self {
        Self { doc, value, src: doc.source() }
    }

    fn path(steps: &[Step]) -> String {
        let mut out = String::new();
        for s in steps {
            match s {
                Step::Key(k) => out.push_str(&noyalib::path::quote_key(k)),
                Step::Index(i) => {
                    use std::fmt::Write as _;
                    let _ = write!(out, "[{i}]");
                }
            }
        }
        out
    }

    fn span(&self, steps: &[Step]) -> Option<(usize, usize)> {
        let (start, end) = if steps.is_empty() { return None } else { self.doc.span_at(&Self::path(steps))? };
        Some((self.past_marks(start, end), end))
    }

    /// The parser counts anchors and tags to some parts and not to others; here they never belong to the content.
    fn past_marks(&self, mut at: usize, end: usize) -> usize {
        let mut marked = false;
        while at < end {
            let rest = self.src.get(at..end).unwrap_or("");
            let step = match rest.bytes().next() {
                Some(b'&' | b'!') => {
                    marked = true;
                    rest.find([' ', '\t', '\n', '\r']).unwrap_or(rest.len())
                }
                Some(b' ' | b'\t' | b'\n' | b'\r') if marked => 1,
                Some(b'#') if marked => rest.find('\n').unwrap_or(rest.len()),
                _ => break,
            };
            at += step;
        }
        at
    }

    /// Bytes of an entry's key.
    pub fn key_span(&self, steps: &[Step]) -> Result<(usize, usize)> {
        self.doc.key_span(&Self::path(steps)).ok_or_else(|| {
            Problem::new(
                "manifest.merge_key",
                format!("{} comes from an alias or a merge key (`<<`).", display(self.value, steps)),
                "Edit the place that it comes from, or write the field out at this place.",
            )
        })
    }

    /// Byte after the colon that follows a key.
    pub fn colon_end(&self, steps: &[Step]) -> Result<usize> {
        let (_, end) = self.key_span(steps)?;
        let rest = self.src.get(end..).unwrap_or("");
        let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest.get(gap..).is_some_and(|r| r.starts_with(':')) {
            Ok(end + gap + 1)
        } else {
            Err(unusual("an explicit key (`?`)"))
        }
    }

    fn alias(&self, steps: &[Step]) -> Problem {
        Problem::new(
            "manifest.alias",
            format!("{} is an alias (`*name`) of another place in the file.", display(self.value, steps)),
            "Edit the place that the alias points to, or replace the alias by its value.",
        )
    }

    /// Byte from which a part's own text may begin: after its colon, its dash or what stands before it.
    fn floor(&self, steps: &[Step]) -> Result<usize> {
        match steps.split_last() {
            None => Ok(0),
            Some((Step::Key(_), _)) => self.colon_end(steps),
            Some((Step::Index(0), parent)) => {
                let p = self.raw_start(parent)?;
                Ok(if self.src.as_bytes().get(p) == Some(&b'[') { p + 1 } else { p })
            }
            Some((Step::Index(i), parent)) => {
                // The parser's end of the item before may include comments, never this item's text.
                let before: Vec<Step> = parent.iter().cloned().chain([Step::Index(i - 1)]).collect();
                match self.span(&before) {
                    Some((_, end)) => Ok(end),
                    None => self.raw_start(parent),
                }
            }
        }
    }

    /// Where the parser says that a part starts: before its dash or its first key, at worst too early.
    fn raw_start(&self, steps: &[Step]) -> Result<usize> {
        if steps.is_empty() {
            Ok(0)
        } else {
            self.span(steps).map(|s| s.0).ok_or_else(|| unusual("an empty list item"))
        }
    }

    /// Finds a part. Aliases are refused; anchors and tags are the caller's to judge.
    pub fn node(&self, steps: &[Step]) -> Result<Node> {
        let value = get(self.value, steps).ok_or_else(|| unusual("a part that cannot be found again"))?;
        match value {
            Value::Object(o) if !o.is_empty() => {
                if let Some(n) = self.flow(steps)? {
                    return Ok(n);
                }
                self.block_map(steps, o)
            }
            Value::Array(a) if !a.is_empty() => {
                if let Some(n) = self.flow(steps)? {
                    return Ok(n);
                }
                self.block_list(steps, a.len())
            }
            Value::Object(_) | Value::Array(_) => self.flow(steps)?.ok_or_else(|| unusual("an empty part")),
            _ => self.scalar(steps),
        }
    }

    fn flow(&self, steps: &[Step]) -> Result<Option<Node>> {
        let Some((start, end)) = self.span(steps).or_else(|| self.root_span(steps)) else {
            return Ok(None);
        };
        if !matches!(self.src.as_bytes().get(start), Some(b'{' | b'[')) {
            return Ok(None);
        }
        if start < self.floor(steps)? {
            return Err(self.alias(steps));
        }
        Ok(Some(Node { shape: Shape::Flow, start, end }))
    }

    fn root_span(&self, steps: &[Step]) -> Option<(usize, usize)> {
        if steps.is_empty() { self.doc.span_at("") } else { None }
    }

    /// Bytes of an entry's key; `None` for what a merge key brings in.
    fn own_key(&self, parent: &[Step], key: &str) -> Option<(usize, Vec<Step>)> {
        let child: Vec<Step> = parent.iter().cloned().chain([Step::from(key)]).collect();
        let span = self.doc.key_span(&Self::path(&child))?;
        Some((span.0, child))
    }

    fn block_map(&self, steps: &[Step], o: &Map<String, Value>) -> Result<Node> {
        // Keys come in the order of the text, those of merge keys aside.
        let first = o.keys().find_map(|k| self.own_key(steps, k));
        let last = o.keys().rev().find_map(|k| self.own_key(steps, k));
        let (Some((start, _)), Some((_, last))) = (first, last) else { return Err(self.alias(steps)) };
        if start < self.floor(steps)? {
            return Err(self.alias(steps));
        }
        Ok(Node { shape: Shape::BlockMap, start, end: self.end_of(&last)? })
    }

    /// The last part of a list or mapping that stands in its text: where it begins and ends.
    pub fn last_part(&self, steps: &[Step]) -> Result<(usize, usize)> {
        let (start, last) = match get(self.value, steps) {
            Some(Value::Object(o)) => o.keys().rev().find_map(|k| self.own_key(steps, k)),
            Some(Value::Array(a)) if !a.is_empty() => {
                let last: Vec<Step> = steps.iter().cloned().chain([Step::Index(a.len() - 1)]).collect();
                Some((self.node(&last)?.start, last))
            }
            _ => None,
        }
        .ok_or_else(|| unusual("an empty part"))?;
        Ok((start, self.end_of(&last)?))
    }

    /// Around a part: where the next one begins and where the one before ends.
    pub fn neighbours(&self, steps: &[Step]) -> Result<(Option<usize>, Option<usize>)> {
        let Some((own, parent)) = steps.split_last() else { return Ok((None, None)) };
        match (get(self.value, parent), own) {
            (Some(Value::Object(o)), Step::Key(k)) => {
                let next =
                    o.keys().skip_while(|n| *n != k).skip(1).find_map(|n| self.own_key(parent, n)).map(|(s, _)| s);
                let before = o.keys().rev().skip_while(|n| *n != k).skip(1).find_map(|n| self.own_key(parent, n));
                Ok((next, before.map(|(_, p)| self.end_of(&p)).transpose()?))
            }
            (Some(Value::Array(a)), Step::Index(i)) => {
                let at = |i: usize| -> Vec<Step> { parent.iter().cloned().chain([Step::Index(i)]).collect() };
                let next = if i + 1 < a.len() { Some(self.node(&at(i + 1))?.start) } else { None };
                let before = i.checked_sub(1).map(|b| self.end_of(&at(b))).transpose()?;
                Ok((next, before))
            }
            _ => Ok((None, None)),
        }
    }

    fn block_list(&self, steps: &[Step], len: usize) -> Result<Node> {
        let first: Vec<Step> = steps.iter().cloned().chain([Step::Index(0)]).collect();
        let last: Vec<Step> = steps.iter().cloned().chain([Step::Index(len - 1)]).collect();
        let start = self.raw_dash(&first)?;
        if start < self.floor(steps)? {
            return Err(self.alias(steps));
        }
        Ok(Node { shape: Shape::BlockList, start, end: self.end_of(&last)? })
    }

    fn scalar(&self, steps: &[Step]) -> Result<Node> {
        let Some((start, end)) = self.span(steps) else {
            return match steps.last() {
                Some(Step::Key(_)) => {
                    let at = self.colon_end(steps)?;
                    Ok(Node { shape: Shape::Missing, start: at, end: at })
                }
                _ => Err(unusual("an empty list item")),
            };
        };
        if start < self.floor(steps)? {
            return Err(self.alias(steps));
        }
        // Blocks that keep their last line breaks (`|+`) end where their text ends, like all others.
        let text = self.src.get(start..end).unwrap_or("");
        Ok(Node { shape: Shape::Scalar, start, end: start + text.trim_end_matches(['\n', '\r', ' ']).len() })
    }

    /// Byte after a part, aliases included.
    fn end_of(&self, steps: &[Step]) -> Result<usize> {
        match self.node(steps) {
            Ok(n) => Ok(n.end),
            Err(p) if p.code == "manifest.alias" => {
                let floor = match steps.last() {
                    Some(Step::Key(_)) => self.colon_end(steps)?,
                    _ => self.floor(steps)?,
                };
                let mark = self.doc.aliases().into_iter().find(|a| a.mark_span.0 >= floor);
                mark.map(|m| m.mark_span.1).ok_or(p)
            }
            Err(p) => Err(p),
        }
    }

    /// The dash of a block list's item, which must begin its line.
    pub fn dash(&self, item: &[Step]) -> Result<usize> {
        let at = self.raw_dash(item)?;
        if first_on_line(self.src, at) {
            Ok(at)
        } else {
            Err(unusual("a list item whose dash does not begin its line"))
        }
    }

    fn raw_dash(&self, item: &[Step]) -> Result<usize> {
        let mut head = self.src.get(..self.node(item)?.start).unwrap_or("");
        loop {
            head = head.trim_end_matches([' ', '\t', '\n', '\r']);
            if head.ends_with('-') {
                return Ok(head.len() - 1);
            }
            // Marks (`&a`, `!t`) or comments stand between the dash and the content.
            let line = head.rfind('\n').map_or(0, |i| i + 1);
            let lead = head.get(line..).unwrap_or("");
            if lead.trim_start().starts_with('#') && line > 0 {
                head = head.get(..line).unwrap_or("");
                continue;
            }
            return lead.rfind("- ").map(|i| line + i).ok_or_else(|| unusual("a list item without a dash on its line"));
        }
    }

    /// Refuses a part that an anchor, a tag or an alias makes more than itself.
    pub fn refuse_marks(&self, steps: &[Step]) -> Result<()> {
        let anchors = self.doc.anchors();
        let aliases = self.doc.aliases();
        for n in 0..=steps.len() {
            let prefix = steps.get(..n).unwrap_or(steps);
            let node = self.node(prefix)?;
            let floor = self.floor(prefix)?.min(node.start);
            let used = anchors
                .iter()
                .find(|a| (floor..node.start).contains(&a.mark_span.0) && aliases.iter().any(|x| x.name == a.name));
            if let Some(a) = used {
                return Err(Problem::new(
                    "manifest.anchored",
                    format!(
                        "{} has the anchor &{} and is used again by an alias: an edit would change every place that uses it.",
                        display(self.value, prefix),
                        a.name
                    ),
                    "Write the value out at the place that is to differ, then try again.",
                ));
            }
            let gap = self.src.get(floor..node.start).unwrap_or("");
            if n == steps.len() && n > 0 && gap.lines().any(|l| !l.trim_start().starts_with('#') && l.contains('!')) {
                return Err(Problem::new(
                    "manifest.tagged",
                    format!("{} has a tag (`!…`).", display(self.value, steps)),
                    "Remove the tag, or let a person make this change.",
                ));
            }
        }
        Ok(())
    }

    /// Lines that hold the part's key and value, for markers in comments.
    pub fn lines(&self, steps: &[Step]) -> Result<&'d str> {
        let node = self.node(steps)?;
        let from = match steps.last() {
            Some(Step::Key(_)) => self.key_span(steps)?.0,
            _ => node.start,
        };
        let from = text::line_start(self.src, from);
        Ok(self.src.get(from..text::line_end(self.src, node.end)).unwrap_or(""))
    }
}
