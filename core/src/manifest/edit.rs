//! Edits of one object in one file, each with its proof.

use std::ops::Range;

use serde_json::Value;

use super::diff::diff_values;
use super::document::{DocId, key_of, objects};
use super::ops::{Plan, guard};
use super::parse::{Parsed, parse};
use super::pointer::{Step, get};
use super::splice::{LeafOp, Splice};
use super::text::line_of;
use super::view::View;
use crate::error::{Problem, Result};
use crate::model::{LeafChange, ObjectKey, Operation};

/// What an edit needs to know and cannot find out.
#[derive(Debug, Clone, Copy)]
pub struct EditContext<'a> {
    /// Value of the restart annotation, RFC 3339.
    pub restarted_at: &'a str,
}

/// A proved edit.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// The file after; `None` = nothing is left of it and it is to be removed.
    pub bytes: Option<Vec<u8>>,
    /// Exactly the leaves that differ.
    pub changes: Vec<LeafChange>,
    /// 1-based line of the first changed byte, before.
    pub line: usize,
    /// Ranges of the file before that were replaced, in order; every other byte is the same.
    pub spans: Vec<Range<usize>>,
}

/// Makes one operation on one object of a file and proves that nothing else changed.
///
/// # Errors
/// A coded refusal (`manifest.alias`, `.sops`, `.no_change`, …); `manifest.proof_failed` if the result could
/// not be proved, in which case nothing is returned.
pub fn edit(path: &str, bytes: &[u8], id: DocId, op: &Operation, ctx: EditContext<'_>) -> Result<Edited> {
    let at_file = |p: Problem| {
        if p.evidence.iter().any(|e| e.starts_with("file: ")) { p } else { p.with(format!("file: {path}")) }
    };
    match op {
        Operation::Delete(_) => delete(bytes, id).map_err(at_file),
        Operation::Create(_) | Operation::Adopt(_) => Err(Problem::new(
            "manifest.file_exists",
            format!("{path} exists already."),
            "Create the object in a file of its own.",
        )),
        _ => {
            let parsed = parse(bytes).map_err(at_file)?;
            let object = object(&parsed, id).map_err(at_file)?;
            encrypted(&parsed, id).map_err(at_file)?;
            let mut plan = Plan::new(object);
            plan.operation(op, ctx.restarted_at).map_err(at_file)?;
            let (after, ops) = plan.after();
            let key = key_of(object).map_or_else(|| ObjectKey::new("", "", "", ""), |(k, _)| k);
            guard(object, &diff_values(&key, object, &after)).map_err(at_file)?;
            apply(&parsed, bytes, id, &key, ops).map_err(at_file)
        }
    }
}

/// Sets or removes one field of any YAML document (kustomization files, values files), with the same proof.
///
/// # Errors
/// As [`edit`].
pub fn edit_value(bytes: &[u8], id: DocId, object: &ObjectKey, pointer: &str, value: Option<Value>) -> Result<Edited> {
    edit_values(bytes, id, object, &[(pointer.to_owned(), value)])
}

/// The same for several fields in one step.
pub(super) fn edit_values(
    bytes: &[u8],
    id: DocId,
    key: &ObjectKey,
    wanted: &[(String, Option<Value>)],
) -> Result<Edited> {
    let parsed = parse(bytes)?;
    let before = object(&parsed, id)?;
    encrypted(&parsed, id)?;
    let mut plan = Plan::new(before);
    for (pointer, value) in wanted {
        plan.want(pointer, value.clone())?;
    }
    let (_, ops) = plan.after();
    apply(&parsed, bytes, id, key, ops)
}

pub(super) fn object(parsed: &Parsed, id: DocId) -> Result<&Value> {
    parsed.values.get(id.index).and_then(|v| get(v, &id.steps())).ok_or_else(|| {
        Problem::new("manifest.not_found", "The file has no such document.", "Find the object again, then try again.")
    })
}

/// SOPS seals the whole document: any edit breaks its MAC (security-reliability T16, gitops-semantics C2).
fn encrypted(parsed: &Parsed, id: DocId) -> Result<()> {
    fn sealed(v: &Value) -> bool {
        match v {
            Value::String(s) => s.starts_with("ENC[AES256_GCM,"),
            Value::Array(a) => a.iter().any(sealed),
            Value::Object(o) => o.values().any(sealed),
            _ => false,
        }
    }
    let doc = parsed.values.get(id.index);
    if doc.is_some_and(|d| d.get("sops").is_some_and(Value::is_object) || sealed(d)) {
        return Err(Problem::new(
            "manifest.sops",
            "The document is encrypted with SOPS: any edit breaks its signature and the engine could not decrypt it.",
            "Let a person change it with sops.",
        )
        .never());
    }
    Ok(())
}

fn no_change() -> Problem {
    Problem::new(
        "manifest.no_change",
        "The file says that already.",
        "Nothing is to be done; look at why the live object differs.",
    )
}

fn failed(what: &str) -> Problem {
    Problem::new(
        "manifest.proof_failed",
        format!("The edit could not be proved to change only what was asked: {what}."),
        "Let a person make this change; report the shape of the file as a bug.",
    )
}

/// What is left of the file before, and what is new.
struct Pieces {
    before: Vec<Range<usize>>,
    text: String,
    spans: Vec<(Range<usize>, Option<usize>)>,
}

impl Pieces {
    fn new(text: &str) -> Self {
        Self { before: Vec::new(), text: text.to_owned(), spans: vec![(0..text.len(), Some(0))] }
    }

    /// Replaces a range of the present text.
    fn replace(&mut self, s: &Splice) -> Option<()> {
        if s.range.start > s.range.end || self.text.get(s.range.clone()).is_none() {
            return None;
        }
        let mut out: Vec<(Range<usize>, Option<usize>)> = Vec::new();
        let mut inserted = false;
        let len = s.text.len();
        let new = |out: &mut Vec<_>| out.push((s.range.start..s.range.start + len, None));
        let shift = |p: usize| p - s.range.end + s.range.start + len;
        for (r, origin) in self.spans.drain(..) {
            if r.start < s.range.start {
                out.push((r.start..r.end.min(s.range.start), origin));
            }
            if r.end >= s.range.start && !inserted {
                new(&mut out);
                inserted = true;
            }
            if r.end > s.range.end {
                let from = r.start.max(s.range.end);
                out.push((shift(from)..shift(r.end), origin.map(|o| o + (from - r.start))));
            }
        }
        if !inserted {
            new(&mut out);
        }
        self.spans = out;
        self.text.replace_range(s.range.clone(), &s.text);
        Some(())
    }

    /// Ranges of the file before that are gone or touched; checks that the rest is where it says.
    fn touched(&mut self, original: &str) -> Option<&[Range<usize>]> {
        let mut at = 0;
        for (r, origin) in &self.spans {
            let Some(o) = origin else {
                self.before.push(at..at);
                continue;
            };
            if original.get(*o..o + r.len())? != self.text.get(r.clone())? || *o < at {
                return None;
            }
            if *o > at {
                self.before.push(at..*o);
            }
            at = o + r.len();
        }
        if at < original.len() {
            self.before.push(at..original.len());
        }
        // A replacement is an insertion beside a removal: join what touches.
        let mut joined: Vec<Range<usize>> = Vec::new();
        for r in self.before.drain(..) {
            match joined.last_mut() {
                Some(l) if l.end >= r.start => l.end = l.end.max(r.end),
                _ => joined.push(r),
            }
        }
        self.before = joined;
        Some(&self.before)
    }
}

fn prefixed(base: &[Step], op: LeafOp) -> LeafOp {
    let p = |s: Vec<Step>| base.iter().cloned().chain(s).collect();
    match op {
        LeafOp::Set(s, v) => LeafOp::Set(p(s), v),
        LeafOp::Insert(s, k, v) => LeafOp::Insert(p(s), k, v),
        LeafOp::Push(s, v) => LeafOp::Push(p(s), v),
        LeafOp::Remove(s) => LeafOp::Remove(p(s)),
    }
}

/// Image-automation markers: the line belongs to another writer (image-automation: setters).
fn foreign_marker(view: &View<'_>, op: &LeafOp) -> Result<()> {
    let (LeafOp::Set(steps, _) | LeafOp::Remove(steps)) = op else { return Ok(()) };
    if view.lines(steps)?.contains("\"$imagepolicy\"") {
        return Err(Problem::new(
            "manifest.image_automation",
            "The line carries an image-policy marker: image automation writes it and would undo the edit.",
            "Change or suspend the ImagePolicy that the marker names.",
        ));
    }
    Ok(())
}

fn apply(parsed: &Parsed, bytes: &[u8], id: DocId, key: &ObjectKey, ops: Vec<LeafOp>) -> Result<Edited> {
    if ops.is_empty() {
        return Err(no_change());
    }
    let original = super::parse::text(bytes)?;
    let base = id.steps();
    let ops: Vec<LeafOp> = ops.into_iter().map(|o| prefixed(&base, o)).collect();
    match attempt(parsed, original, id, key, &ops, true) {
        // A comment below can become part of a block of text: quoted text cannot take anything in.
        Err(p) if p.code == "manifest.proof_failed" && ops.iter().any(LeafOp::several_lines) => {
            attempt(parsed, original, id, key, &ops, false)
        }
        other => other,
    }
}

fn attempt(
    parsed: &Parsed,
    original: &str,
    id: DocId,
    key: &ObjectKey,
    ops: &[LeafOp],
    blocks: bool,
) -> Result<Edited> {
    let mut pieces = Pieces::new(original);
    for (n, op) in ops.iter().enumerate() {
        let reparsed;
        let now = if n == 0 {
            parsed
        } else {
            reparsed = parse(pieces.text.as_bytes()).map_err(|_| failed("it does not parse"))?;
            &reparsed
        };
        let (Some(doc), Some(value), Some(offset)) =
            (now.docs.get(id.index), now.values.get(id.index), now.offsets.get(id.index))
        else {
            return Err(failed("the document is gone"));
        };
        let view = View::new(doc, value);
        foreign_marker(&view, op)?;
        let mut s = op.splice(&view, blocks)?;
        s.range = s.range.start + offset..s.range.end + offset;
        pieces.replace(&s).ok_or_else(|| failed("a range does not fit the text"))?;
    }
    prove(parsed, original, &mut pieces, id, key, ops)
}

/// The proof: both parsers, every document, every byte outside the ranges, the end of the file.
fn prove(
    before: &Parsed,
    original: &str,
    pieces: &mut Pieces,
    id: DocId,
    key: &ObjectKey,
    ops: &[LeafOp],
) -> Result<Edited> {
    let after = parse(pieces.text.as_bytes()).map_err(|p| failed("it does not parse").with(p.message))?;
    let (mut first, mut second) = (before.values.clone(), before.second.clone());
    for op in ops {
        for side in [&mut first, &mut second] {
            side.get_mut(id.index).and_then(|v| op.apply(v)).ok_or_else(|| failed("the field cannot be followed"))?;
        }
    }
    if first != after.values {
        return Err(failed("the first parser reads something else"));
    }
    if second != after.second {
        return Err(failed("the second parser reads something else"));
    }
    if original.ends_with('\n') != pieces.text.ends_with('\n') {
        return Err(failed("the last line break changed"));
    }
    let spans = pieces.touched(original).ok_or_else(|| failed("bytes outside the edit moved"))?.to_vec();
    let (Some(offset), Some(doc)) = (before.offsets.get(id.index), before.docs.get(id.index)) else {
        return Err(failed("the document is gone"));
    };
    let own = *offset..offset + doc.source().len();
    if spans.iter().any(|s| s.start < own.start || s.end > own.end) {
        return Err(failed("another document was touched"));
    }
    let changes = diff_values(key, object(before, id)?, object(&after, id)?);
    if changes.is_empty() {
        return Err(no_change());
    }
    let line = line_of(original, spans.first().map_or(0, |s| s.start));
    Ok(Edited { bytes: Some(std::mem::take(&mut pieces.text).into_bytes()), changes, line, spans })
}

fn delete(bytes: &[u8], id: DocId) -> Result<Edited> {
    let parsed = parse(bytes)?;
    encrypted(&parsed, id)?;
    let value = object(&parsed, id)?.clone();
    let (key, _) = key_of(&value).ok_or_else(|| failed("the document is no object"))?;
    let original = super::parse::text(bytes)?;
    let gone = |bytes, line, spans| Edited {
        bytes,
        changes: vec![LeafChange {
            object: key.clone(),
            pointer: String::new(),
            before: Some(value.clone()),
            after: None,
        }],
        line,
        spans,
    };
    if objects(&parsed).len() == 1 && parsed.values.iter().filter(|v| !v.is_null()).count() == 1 {
        let whole = 0..original.len();
        return Ok(gone(None, 1, vec![whole]));
    }
    if let Some(i) = id.item {
        return delete_item(&parsed, bytes, id, i, &key, value);
    }
    let (Some(doc), Some(offset)) = (parsed.docs.get(id.index), parsed.offsets.get(id.index)) else {
        return Err(failed("the document is gone"));
    };
    let range = offset + own_start(doc)..offset + doc.source().len();
    let mut pieces = Pieces::new(original);
    pieces
        .replace(&Splice { range: range.clone(), text: String::new() })
        .ok_or_else(|| failed("a range does not fit the text"))?;
    let after = parse(pieces.text.as_bytes()).map_err(|p| failed("it does not parse").with(p.message))?;
    let rest = |all: &[Value]| -> Vec<Value> {
        all.iter().enumerate().filter(|(i, v)| *i != id.index && !v.is_null()).map(|(_, v)| v.clone()).collect()
    };
    let now = |all: &[Value]| -> Vec<Value> { all.iter().filter(|v| !v.is_null()).cloned().collect() };
    if rest(&parsed.values) != now(&after.values) || rest(&parsed.second) != now(&after.second) {
        return Err(failed("another document changed"));
    }
    let line = line_of(original, range.start);
    Ok(gone(Some(pieces.text.into_bytes()), line, vec![range]))
}

/// First byte of a document that goes with it: what stands before its `---` stays.
fn own_start(doc: &noyalib::cst::Document) -> usize {
    use noyalib::cst::{GreenChild, SyntaxKind};
    let mut at = 0;
    let mut bom = 0;
    for child in doc.syntax().children() {
        if let GreenChild::Token { kind, len } = child {
            match kind {
                SyntaxKind::DocStart => return at,
                SyntaxKind::Bom => bom = usize::try_from(*len).unwrap_or(0),
                _ => {}
            }
        } else {
            break;
        }
        at += child.text_len();
    }
    bom
}

fn delete_item(parsed: &Parsed, bytes: &[u8], id: DocId, i: usize, key: &ObjectKey, value: Value) -> Result<Edited> {
    let whole = DocId { index: id.index, item: None };
    let list = parsed.values.get(id.index).and_then(|v| v.get("items")).and_then(Value::as_array).map_or(0, Vec::len);
    if list < 2 {
        return Err(Problem::new(
            "manifest.last_field",
            "Nothing would be left of the List.",
            "Let a person remove the List together with its file.",
        ));
    }
    let mut edited = apply(parsed, bytes, whole, key, vec![LeafOp::Remove(vec![Step::from("items"), Step::Index(i)])])?;
    edited.changes = vec![LeafChange { object: key.clone(), pointer: String::new(), before: Some(value), after: None }];
    Ok(edited)
}
