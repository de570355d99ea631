//! Bytes to documents, with limits, by two parsers that must agree on the structure.

use noyalib::cst;
use noyalib::{DuplicateKeyPolicy, ParserConfig};
use serde_json::{Map, Number, Value};

use crate::error::{Problem, Result};

/// Largest file that is read or edited.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 200_000;
const MAX_SCALAR_BYTES: usize = 4 * MAX_FILE_BYTES;
const MAX_DOCUMENTS: usize = 4_000;
const MAX_ALIASES: usize = 1_000;

/// One parsed file.
pub(super) struct Parsed {
    /// Lossless documents of the stream, in order; their sources concatenate to the file.
    pub docs: Vec<cst::Document>,
    /// Byte offset of each document in the file.
    pub offsets: Vec<usize>,
    /// Values as the first parser reads them.
    pub values: Vec<Value>,
    /// Values as the second parser reads them, one for each document (null where it is empty).
    pub second: Vec<Value>,
}

fn config() -> ParserConfig {
    ParserConfig::new()
        .max_depth(MAX_DEPTH)
        .max_document_length(MAX_FILE_BYTES)
        .max_stream_bytes(MAX_FILE_BYTES)
        .max_nodes(MAX_NODES)
        .max_events(4 * MAX_NODES)
        .max_total_scalar_bytes(MAX_SCALAR_BYTES)
        .max_documents(MAX_DOCUMENTS)
        .max_alias_expansions(MAX_ALIASES)
        .max_merge_keys(MAX_ALIASES)
        .alias_anchor_ratio(None)
        .duplicate_key_policy(DuplicateKeyPolicy::Error)
        .legacy_booleans(true)
        .legacy_octal_numbers(true)
}

fn options() -> serde_saphyr::Options {
    let mut o = serde_saphyr::Options::default();
    o.with_snippet = false;
    if let Some(b) = o.budget.as_mut() {
        b.max_depth = MAX_DEPTH;
        b.max_nodes = MAX_NODES;
        b.max_events = 4 * MAX_NODES;
        b.max_aliases = MAX_ALIASES;
        b.max_documents = MAX_DOCUMENTS;
        b.max_total_scalar_bytes = MAX_SCALAR_BYTES;
        b.enforce_alias_anchor_ratio = false;
    }
    o
}

/// The text of a file, or why it is not read.
pub(super) fn text(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Problem::new(
            "manifest.too_large",
            format!("The file has {} bytes; files over {MAX_FILE_BYTES} bytes are not read.", bytes.len()),
            "Split the file.",
        ));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        Problem::new(
            "manifest.not_utf8",
            format!("The file is not UTF-8 (byte {}).", e.valid_up_to()),
            "Save the file as UTF-8.",
        )
    })
}

/// Parses a file with both parsers.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed> {
    let text = text(bytes)?;
    alias_bomb(text)?;
    let docs = cst::parse_stream_with_config(text, &config()).map_err(|e| {
        let line = e.location().map(|l| l.line());
        let why = match e.kind() {
            noyalib::ErrorKind::DuplicateKey | noyalib::ErrorKind::KeyCollision => Why::Duplicate,
            noyalib::ErrorKind::Budget => Why::Limit,
            _ => Why::Syntax,
        };
        refused(text, why, line)
    })?;
    let mut offsets = Vec::with_capacity(docs.len());
    let mut at = 0;
    for d in &docs {
        offsets.push(at);
        at += d.source().len();
    }
    if at != text.len() {
        return Err(disagree("the documents do not add up to the file"));
    }
    let values = docs.iter().map(|d| to_json(&d.as_value(), 0)).collect::<Result<Vec<_>>>()?;
    let second = second(text, &values)?;
    Ok(Parsed { docs, offsets, values, second })
}

/// Every document as the second parser reads it, aligned with `values`.
fn second(text: &str, values: &[Value]) -> Result<Vec<Value>> {
    let found: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options()).map_err(|e| {
        let said = e.to_string();
        let why = if said.contains("duplicate mapping key") {
            Why::Duplicate
        } else if said.contains("budget") || said.contains("limit") {
            Why::Limit
        } else {
            Why::Syntax
        };
        let line = e.location().map(|l| usize::try_from(l.line()).unwrap_or(usize::MAX));
        refused(text, why, line)
    })?;
    let mut found = found.into_iter();
    let mut out = Vec::with_capacity(values.len());
    for v in values {
        out.push(if v.is_null() {
            Value::Null
        } else {
            found.next().ok_or_else(|| disagree("the number of documents"))?
        });
    }
    if found.next().is_some() {
        return Err(disagree("the number of documents"));
    }
    for (a, b) in values.iter().zip(&out) {
        if !same_shape(a, b) {
            return Err(disagree("the structure of a document"));
        }
    }
    Ok(out)
}

/// Same keys and lengths; scalars may be read as different types (`yes`, `1_000`).
fn same_shape(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same_shape(v, w)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(v, w)| same_shape(v, w)),
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        _ => true,
    }
}

fn disagree(about: &str) -> Problem {
    Problem::new(
        "manifest.parsers_disagree",
        format!("Two YAML parsers read this file differently ({about})."),
        "Rewrite the unusual part of the file in plain block YAML; a person edits it until then.",
    )
}

/// Largest output of a renderer that is read.
pub const MAX_RENDERED_BYTES: usize = 8 * MAX_FILE_BYTES;

/// The objects in what a renderer printed.
///
/// # Errors
/// `manifest.too_large`, `.not_utf8`, `.syntax`.
pub fn rendered(bytes: &[u8]) -> Result<Vec<Value>> {
    if bytes.len() > MAX_RENDERED_BYTES {
        return Err(Problem::new(
            "manifest.too_large",
            format!("The rendered objects have over {MAX_RENDERED_BYTES} bytes."),
            "Give the owner a smaller path.",
        ));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Problem::new("manifest.not_utf8", "The rendered objects are not UTF-8.", "Correct the files."))?;
    let mut o = options();
    if let Some(b) = o.budget.as_mut() {
        b.max_nodes = 8 * MAX_NODES;
        b.max_events = 32 * MAX_NODES;
        b.max_documents = 5 * MAX_DOCUMENTS;
        b.max_total_scalar_bytes = MAX_RENDERED_BYTES;
    }
    serde_saphyr::from_multiple_with_options(text, o)
        .map_err(|e| refused("", Why::Syntax, e.location().map(|l| usize::try_from(l.line()).unwrap_or(usize::MAX))))
}

/// A cheap look before any parser expands an alias.
fn alias_bomb(text: &str) -> Result<()> {
    let marks = |c: char| {
        text.match_indices(c)
            .filter(|(i, _)| {
                let before = text.as_bytes().get(i.wrapping_sub(1)).copied().unwrap_or(b'\n');
                let after = text.as_bytes().get(i + 1).copied().unwrap_or(b' ');
                matches!(before, b' ' | b'\t' | b'\n' | b'[' | b',' | b'{') && after.is_ascii_alphanumeric()
            })
            .count()
    };
    if marks('*') > MAX_ALIASES && marks('&') > 0 {
        return Err(limit(None));
    }
    Ok(())
}

fn limit(line: Option<usize>) -> Problem {
    Problem::new(
        "manifest.limits",
        format!(
            "The file goes over the limits for YAML{} (depth, nodes, aliases or size after aliases).",
            at_line(line)
        ),
        "Simplify or split the file.",
    )
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |l| format!(" at line {l}"))
}

enum Why {
    Duplicate,
    Limit,
    Syntax,
}

/// The parsers' own words are left out: they may quote a secret.
fn refused(text: &str, why: Why, line: Option<usize>) -> Problem {
    match why {
        Why::Limit => return limit(line),
        Why::Duplicate => {
            return Problem::new(
                "manifest.duplicate_key",
                format!("A key is given twice in one mapping{}.", at_line(line)),
                "Remove one of the two: parsers disagree about which one counts.",
            );
        }
        Why::Syntax => {}
    }
    if text.contains("{{") {
        return Problem::new(
            "manifest.template",
            format!("The file is a template (`{{{{`), not YAML{}.", at_line(line)),
            "Change the chart's values instead of its templates.",
        );
    }
    Problem::new(
        "manifest.syntax",
        format!("The file is not valid YAML{}.", at_line(line)),
        "Correct the file, then try again.",
    )
}

/// The first parser's value as JSON; tagged values lose their tag.
fn to_json(v: &noyalib::Value, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(limit(None));
    }
    Ok(match v {
        noyalib::Value::Null => Value::Null,
        noyalib::Value::Bool(b) => Value::Bool(*b),
        noyalib::Value::Number(n) => number(n),
        noyalib::Value::String(s) => Value::String(s.clone()),
        noyalib::Value::Sequence(s) => Value::Array(s.iter().map(|v| to_json(v, depth + 1)).collect::<Result<_>>()?),
        noyalib::Value::Mapping(m) => {
            let mut out = Map::with_capacity(m.len());
            for (k, v) in m.iter() {
                let key: &str = k.as_ref();
                out.insert(key.to_owned(), to_json(v, depth + 1)?);
            }
            Value::Object(out)
        }
        noyalib::Value::Tagged(t) => to_json(t.value(), depth + 1)?,
    })
}

fn number(n: &noyalib::Number) -> Value {
    match n {
        noyalib::Number::Integer(i) => Value::from(*i),
        other => Number::from_f64(other.as_f64()).map_or(Value::Null, Value::Number),
    }
}
