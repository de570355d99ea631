//! One change to one part of a document, as byte ranges to replace.

use std::ops::Range;

use serde_json::Value;

use super::emit::{self, Quote, Style};
use super::pointer::{Step, get, get_mut};
use super::text::{blank_or_comment, column, first_on_line, line_end, line_start, rest_of_line};
use super::view::{Node, Shape, View, unusual};
use crate::error::{Problem, Result};

/// A change to a value, by steps that exist.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LeafOp {
    /// Replaces an existing part.
    Set(Vec<Step>, Value),
    /// Adds a key to an existing mapping (or to a key without a value).
    Insert(Vec<Step>, String, Value),
    /// Appends to an existing list.
    Push(Vec<Step>, Value),
    /// Removes a mapping's entry or a list's item; never the only one.
    Remove(Vec<Step>),
}

/// Bytes to put in place of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splice {
    /// Range in the text before.
    pub range: Range<usize>,
    /// New text.
    pub text: String,
}

fn splice(range: Range<usize>, text: impl Into<String>) -> Splice {
    Splice { range, text: text.into() }
}

impl LeafOp {
    /// Does to a value what the splice does to the text.
    pub fn apply(&self, v: &mut Value) -> Option<()> {
        match self {
            Self::Set(steps, new) => *get_mut(v, steps)? = new.clone(),
            Self::Insert(steps, key, new) => {
                let at = get_mut(v, steps)?;
                if at.is_null() {
                    *at = Value::Object(serde_json::Map::new());
                }
                if at.as_object_mut()?.insert(key.clone(), new.clone()).is_some() {
                    return None;
                }
            }
            Self::Push(steps, new) => {
                let at = get_mut(v, steps)?;
                if at.is_null() {
                    *at = Value::Array(Vec::new());
                }
                at.as_array_mut()?.push(new.clone());
            }
            Self::Remove(steps) => {
                let (last, parent) = steps.split_last()?;
                match (get_mut(v, parent)?, last) {
                    (Value::Object(o), Step::Key(k)) => {
                        o.shift_remove(k)?;
                    }
                    (Value::Array(a), Step::Index(i)) if *i < a.len() => {
                        a.remove(*i);
                    }
                    _ => return None,
                }
            }
        }
        Some(())
    }

    /// Whether the change brings text of several lines.
    pub fn several_lines(&self) -> bool {
        fn has(v: &Value) -> bool {
            match v {
                Value::String(s) => s.contains('\n'),
                Value::Array(a) => a.iter().any(has),
                Value::Object(o) => o.values().any(has),
                _ => false,
            }
        }
        matches!(self, Self::Set(_, v) | Self::Insert(_, _, v) | Self::Push(_, v) if has(v))
    }

    /// The splice that makes this change; `blocks` allows text in block style.
    pub fn splice(&self, view: &View<'_>, blocks: bool) -> Result<Splice> {
        let style = Style::of(view.src, view.doc.indent_unit(), blocks);
        match self {
            Self::Set(steps, new) => set(view, steps, new, style),
            Self::Insert(steps, key, new) => insert(view, steps, key, new, style),
            Self::Push(steps, new) => push(view, steps, new, style),
            Self::Remove(steps) => remove(view, steps),
        }
    }
}

fn slice<'s>(view: &View<'s>, r: Range<usize>) -> &'s str {
    view.src.get(r).unwrap_or("")
}

fn quote_at(view: &View<'_>, at: usize) -> Quote {
    match view.src.as_bytes().get(at) {
        Some(b'\'') => Quote::Single,
        Some(b'"') => Quote::Double,
        _ => Quote::Plain,
    }
}

/// Whether the part stands inside `{…}` or `[…]`.
fn in_flow(view: &View<'_>, steps: &[Step]) -> Result<bool> {
    for n in 0..steps.len() {
        if let Some(prefix) = steps.get(..n)
            && view.node(prefix)?.shape == Shape::Flow
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn set(view: &View<'_>, steps: &[Step], new: &Value, style: Style) -> Result<Splice> {
    view.refuse_marks(steps)?;
    let node = view.node(steps)?;
    let simple = emit::scalar(new, Quote::Plain).is_some();
    let multi_line = matches!(new, Value::String(s) if s.contains('\n'));
    let flow = style.json || in_flow(view, steps)?;
    if matches!(node.shape, Shape::BlockMap | Shape::BlockList) {
        refuse_inner(view, node)?;
    }
    let one_line = |quote| {
        if style.json { new.to_string() } else { emit::scalar(new, quote).unwrap_or_else(|| emit::flow(new, false)) }
    };
    if flow {
        let text = one_line(quote_at(view, node.start));
        let lead = if node.shape == Shape::Missing { " " } else { "" };
        return Ok(splice(node.start..node.end, format!("{lead}{text}")));
    }
    let was_block = matches!(node.shape, Shape::BlockMap | Shape::BlockList);
    // A comment that follows would become part of a block of text.
    let followed = !rest_of_line(view.src, node.end).trim().is_empty();
    if !was_block && (followed || (simple && !(multi_line && style.blocks))) {
        let text = one_line(quote_at(view, node.start));
        let lead = if node.shape == Shape::Missing { " " } else { "" };
        return Ok(splice(node.start..node.end, format!("{lead}{text}")));
    }
    match steps.last() {
        Some(Step::Key(_)) => {
            let colon = view.colon_end(steps)?;
            if slice(view, colon..node.start).contains(['&', '!', '#']) {
                return Err(comments_inside());
            }
            let indent = column(view.src, view.key_span(steps)?.0);
            Ok(splice(colon..node.end, emit::after_colon(new, indent, style)))
        }
        Some(Step::Index(_)) => {
            let dash = view.dash(steps)?;
            let text = emit::item(new, column(view.src, dash), 1, style);
            Ok(splice(dash..node.end, text))
        }
        None => Err(unusual("a document replaced as a whole")),
    }
}

fn comments_inside() -> Problem {
    Problem::new(
        "manifest.comments_inside",
        "The part to replace holds comments or marks of its own.",
        "Set its single fields instead, so that the comments stay.",
    )
}

/// A block that is replaced as a whole must hold nothing that its value does not show.
fn refuse_inner(view: &View<'_>, node: Node) -> Result<()> {
    let inside = |at: usize| (node.start..node.end).contains(&at);
    let marks = view.doc.anchors().iter().any(|a| inside(a.mark_span.0))
        || view.doc.aliases().iter().any(|a| inside(a.mark_span.0));
    let text = slice(view, node.start..node.end);
    if marks || text.contains(" #") || text.contains("\n#") {
        return Err(comments_inside());
    }
    Ok(())
}

/// Where a line can be added after a part that ends at `end`; refuses a line that goes on.
fn after_line(view: &View<'_>, end: usize) -> Result<usize> {
    // The parser's span of a block scalar stops before its last line break, so the rest is empty there.
    if blank_or_comment(rest_of_line(view.src, end)) {
        Ok(line_end(view.src, end))
    } else {
        Err(unusual("something else follows on the same line"))
    }
}

/// Adds whole lines at `at`, keeping the state of the file's last line break.
fn add_lines(view: &View<'_>, at: usize, lines: &str, style: Style) -> Splice {
    if at > 0 && !slice(view, 0..at).ends_with('\n') {
        splice(at..at, format!("{}{lines}", style.newline))
    } else {
        splice(at..at, format!("{lines}{}", style.newline))
    }
}

fn insert(view: &View<'_>, steps: &[Step], key: &str, new: &Value, style: Style) -> Result<Splice> {
    view.refuse_marks(steps)?;
    let node = view.node(steps)?;
    let one = serde_json::Map::from_iter([(key.to_owned(), new.clone())]);
    match node.shape {
        Shape::BlockMap => {
            let indent = column(view.src, node.start);
            let style = Style { unit: local_unit(view, steps, indent).unwrap_or(style.unit), ..style };
            let lines = emit::map_lines(&one, indent, style).join(style.newline);
            Ok(add_lines(view, after_line(view, node.end)?, &lines, style))
        }
        Shape::Flow => {
            let quoted = style.json || flow_keys_quoted(view, steps, node);
            let text = format!("{}: {}", emit::key(key, quoted), emit::flow(new, quoted));
            if get(view.value, steps).and_then(Value::as_object).is_some_and(|o| o.is_empty()) {
                return empty(view, steps, node, &Value::Object(one), &format!("{{{text}}}"), style);
            }
            flow_append(view, steps, node, &text)
        }
        Shape::Missing | Shape::Scalar => fill(view, steps, node, &Value::Object(one), style),
        Shape::BlockList => Err(unusual("a list where a mapping was expected")),
    }
}

/// How far a mapping is indented below its own key, where it has one.
fn local_unit(view: &View<'_>, steps: &[Step], indent: usize) -> Option<usize> {
    let Some(Step::Key(_)) = steps.last() else { return None };
    let own = column(view.src, view.key_span(steps).ok()?.0);
    indent.checked_sub(own).filter(|u| (1..=8).contains(u))
}

fn push(view: &View<'_>, steps: &[Step], new: &Value, style: Style) -> Result<Splice> {
    view.refuse_marks(steps)?;
    let node = view.node(steps)?;
    let one = Value::Array(vec![new.clone()]);
    match node.shape {
        Shape::BlockList => {
            let indent = column(view.src, node.start);
            let after = slice(view, node.start + 1..node.end);
            let gap = after.len() - after.trim_start_matches(' ').len();
            let gap = if (1..=8).contains(&gap) { gap } else { 1 };
            let text = format!("{}{}", " ".repeat(indent), emit::item(new, indent, gap, style));
            Ok(add_lines(view, after_line(view, node.end)?, &text, style))
        }
        Shape::Flow => {
            let quoted = style.json;
            let text = emit::flow(new, quoted);
            if get(view.value, steps).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                return empty(view, steps, node, &one, &format!("[{text}]"), style);
            }
            flow_append(view, steps, node, &text)
        }
        Shape::Missing | Shape::Scalar => fill(view, steps, node, &one, style),
        Shape::BlockMap => Err(unusual("a mapping where a list was expected")),
    }
}

fn flow_keys_quoted(view: &View<'_>, steps: &[Step], node: Node) -> bool {
    let Some(Value::Object(o)) = get(view.value, steps) else { return false };
    !o.is_empty()
        && o.keys().all(|k| {
            let child: Vec<Step> = steps.iter().cloned().chain([Step::Key(k.clone())]).collect();
            view.key_span(&child)
                .is_ok_and(|(s, _)| (node.start..node.end).contains(&s) && quote_at(view, s) == Quote::Double)
        })
}

/// Fills `{}` or `[]`: in lines where the line ends there, else in place.
fn empty(view: &View<'_>, steps: &[Step], node: Node, new: &Value, flow: &str, style: Style) -> Result<Splice> {
    let bare = rest_of_line(view.src, node.end).trim().is_empty();
    if let (Some(Step::Key(_)), true, false) = (steps.last(), bare, style.json || in_flow(view, steps)?) {
        let colon = view.colon_end(steps)?;
        if slice(view, colon..node.start).trim().is_empty() {
            let indent = column(view.src, view.key_span(steps)?.0);
            return Ok(splice(colon..node.end, emit::after_colon(new, indent, style)));
        }
    }
    Ok(splice(node.start..node.end, flow))
}

/// Gives a key without a value (or with null) its first content.
fn fill(view: &View<'_>, steps: &[Step], node: Node, new: &Value, style: Style) -> Result<Splice> {
    if !get(view.value, steps).is_some_and(Value::is_null) {
        return Err(unusual("a single value where a mapping or a list was expected"));
    }
    if node.shape == Shape::Scalar || in_flow(view, steps)? {
        let lead = if node.shape == Shape::Missing { " " } else { "" };
        return Ok(splice(node.start..node.end, format!("{lead}{}", emit::flow(new, style.json))));
    }
    let rest = rest_of_line(view.src, node.end);
    if !blank_or_comment(rest) {
        return Err(unusual("a mark without a value"));
    }
    let indent = column(view.src, view.key_span(steps)?.0);
    let text = emit::after_colon(new, indent, style);
    let at = node.end + rest.len();
    Ok(splice(at..at, text))
}

fn flow_append(view: &View<'_>, steps: &[Step], node: Node, text: &str) -> Result<Splice> {
    let (from, end) = view.last_part(steps)?;
    if from < node.start || end >= node.end {
        return Err(unusual("an alias inside braces"));
    }
    let tail = slice(view, end..node.end);
    let own_line =
        first_on_line(view.src, from) || (from > 0 && slice(view, line_start(view.src, from)..from).trim().is_empty());
    let lead = if own_line && tail.contains('\n') {
        let start = line_start(view.src, from);
        let newline = super::text::newline(view.src);
        format!("{newline}{}", slice(view, start..from))
    } else {
        " ".to_owned()
    };
    let spaces = tail.len() - tail.trim_start().len();
    if tail.trim_start().starts_with(',') {
        let at = end + spaces + 1;
        return Ok(splice(at..at, format!("{lead}{text}")));
    }
    Ok(splice(end..end, format!(",{lead}{text}")))
}

fn remove(view: &View<'_>, steps: &[Step]) -> Result<Splice> {
    let Some((last, parent)) = steps.split_last() else {
        return Err(unusual("a document removed as a part"));
    };
    view.refuse_marks(steps)?;
    let node = view.node(steps)?;
    let inside = |at: usize| (node.start..node.end).contains(&at);
    if view.doc.anchors().iter().any(|a| inside(a.mark_span.0) && view.doc.aliases().iter().any(|x| x.name == a.name)) {
        return Err(Problem::new(
            "manifest.anchored",
            "The part to remove holds an anchor that other places use.",
            "Move the anchor first, then try again.",
        ));
    }
    let flow = view.node(parent)?.shape == Shape::Flow;
    let start = match (last, flow) {
        (Step::Key(_), _) => view.key_span(steps)?.0,
        (Step::Index(_), true) => node.start,
        (Step::Index(_), false) => view.dash(steps)?,
    };
    if flow {
        let (next, before) = view.neighbours(steps)?;
        return match (next, before) {
            (Some(next), _) => Ok(splice(start..next, "")),
            (None, Some(before)) => Ok(splice(before..node.end, "")),
            (None, None) => Err(unusual("the only part of a list or mapping")),
        };
    }
    if first_on_line(view.src, start) {
        let from = line_start(view.src, start);
        let to = after_line(view, node.end)?;
        // At the end of a file without a final line break, the break before goes instead.
        if !slice(view, 0..to).ends_with('\n') && from > 0 {
            let head = slice(view, 0..from);
            let cut = head.trim_end_matches(['\n', '\r']).len();
            return Ok(splice(cut..to, ""));
        }
        return Ok(splice(from..to, ""));
    }
    // The first key after a dash: what follows moves up to it.
    let (next, _) = view.neighbours(steps)?;
    let next = next.ok_or_else(|| unusual("the only part of a list item"))?;
    let between = slice(view, node.end..next);
    if between.lines().skip(1).any(|l| !l.trim().is_empty() && !first_on_line(view.src, next))
        || between.lines().skip(1).any(|l| l.contains('#'))
    {
        return Err(comments_inside());
    }
    Ok(splice(start..next, ""))
}
