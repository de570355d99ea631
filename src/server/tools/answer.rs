//! How an answer looks on the wire: structured content within 8 KB, and a text that is a summary of it.

use std::fmt::Write as _;

use countersign_core::model::{ChangeAnswer, ChangesAnswer, Choice, InspectAnswer, Next, Outcome};
use countersign_core::{Problem, Result};
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use super::trim::{clip, shrink};

/// Largest structured content in bytes.
pub const MAX_STRUCTURED: usize = 7 * 1024;
/// Largest text in bytes; together with the structured content and the envelope it stays within 8 KB.
const MAX_TEXT: usize = 800;

/// Where a page of a listing starts inside a page of the service.
///
/// The service's pages may be longer than an answer can be. The cursor given out is then the service's own plus
/// the number of lines already shown of that page: `<service cursor>~<lines>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Cursor of the service.
    of: Option<String>,
    /// Lines of that page that were shown before.
    skip: usize,
}

impl Page {
    /// Splits a cursor and leaves the service's own part. `input.cursor` if it is none of ours.
    pub fn take(cursor: &mut Option<String>) -> Result<Self> {
        let skip = match cursor.as_deref().and_then(|c| c.rsplit_once('~')) {
            None => 0,
            Some((rest, lines)) => {
                let lines = lines.parse().map_err(|_| {
                    Problem::new(
                        "input.cursor",
                        "The cursor is not one that was given out.",
                        "Start the listing again without a cursor.",
                    )
                })?;
                let rest = (!rest.is_empty()).then(|| rest.to_owned());
                *cursor = rest;
                lines
            }
        };
        Ok(Self { of: cursor.clone(), skip })
    }

    fn after(&self, shown: usize) -> String {
        format!("{}~{}", self.of.as_deref().unwrap_or_default(), self.skip + shown)
    }
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Of `inspect`, with the page asked for.
    Inspect(Box<InspectAnswer>, Page),
    /// Of `operate`, `change`, `cancel`, `rollback`.
    Change(Box<ChangeAnswer>),
    /// Of `changes`, with the page asked for.
    Changes(Box<ChangesAnswer>, Page),
}

impl Answer {
    /// An answer about one change.
    pub fn change(answer: ChangeAnswer) -> Self {
        Self::Change(Box::new(answer))
    }

    /// The choices of an ambiguous call; empty otherwise.
    pub fn choices(&self) -> &[Choice] {
        match self {
            Self::Change(a) if a.outcome == Outcome::NeedsChoice => &a.choices,
            _ => &[],
        }
    }

    /// The result of the tool call.
    pub fn render(self) -> CallToolResult {
        let text = clip(&self.text(), MAX_TEXT);
        let is_error = self.outcome() == Outcome::Refused;
        let structured = self.structured();
        let mut result = if is_error {
            CallToolResult::error(vec![ContentBlock::text(text)])
        } else {
            CallToolResult::success(vec![ContentBlock::text(text)])
        };
        result.structured_content = Some(structured);
        result
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Inspect(a, _) => a.outcome,
            Self::Change(a) => a.outcome,
            Self::Changes(a, _) => a.outcome,
        }
    }

    fn structured(mut self) -> Value {
        match &mut self {
            Self::Inspect(a, page) => {
                a.items.drain(..page.skip.min(a.items.len()));
                let shown = a.items.len();
                let value = serde_json::to_value(&*a).unwrap_or_default();
                paged(value, "items", shown, page)
            }
            Self::Changes(a, page) => {
                a.changes.drain(..page.skip.min(a.changes.len()));
                let shown = a.changes.len();
                let value = serde_json::to_value(&*a).unwrap_or_default();
                paged(value, "changes", shown, page)
            }
            Self::Change(a) => {
                let mut value = serde_json::to_value(&*a).unwrap_or_default();
                let cuts = shrink(&mut value, MAX_STRUCTURED, None);
                if let (false, Some(map)) = (cuts.is_empty(), value.as_object_mut())
                    && let Some(notes) = map.entry("notes").or_insert_with(|| json!([])).as_array_mut()
                {
                    notes.push(format!("Shortened to fit: {}.", cuts.join(", ")).into());
                }
                value
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Inspect(a, _) => text(&a.summary, None, a.problem.as_ref(), &[], a.next.as_ref()),
            Self::Changes(a, _) => text(&a.summary, None, a.problem.as_ref(), &[], a.next.as_ref()),
            Self::Change(a) => {
                text(&a.summary, a.waits_for.as_deref(), a.problem.as_ref(), &a.choices, a.next.as_ref())
            }
        }
    }
}

/// Shrinks a listing: other parts first, then lines from its end, with a cursor that goes on after the last shown.
fn paged(mut value: Value, key: &str, lines: usize, page: &Page) -> Value {
    // Room for the cursor that may come.
    shrink(&mut value, MAX_STRUCTURED - 160, Some(key));
    let kept = value.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    if kept < lines
        && let Some(map) = value.as_object_mut()
    {
        map.insert("cursor".into(), page.after(kept).into());
    }
    value
}

fn text(
    summary: &str,
    waits: Option<&str>,
    problem: Option<&Problem>,
    choices: &[Choice],
    next: Option<&Next>,
) -> String {
    let mut out = match problem {
        Some(p) => problem_text(p),
        None => clip(summary, 400),
    };
    if let Some(waits) = waits {
        let _ = write!(out, "\nWaits for: {}", clip(waits, 160));
    }
    for (n, choice) in choices.iter().enumerate().take(6) {
        let _ = write!(out, "\n{}. {}", n + 1, clip(&choice.what, 100));
    }
    if let Some(next) = next {
        let args = clip(&next.args.to_string(), 160);
        let _ = match next.after_s {
            0 => write!(out, "\nNext: {} {args}", next.tool),
            s => write!(out, "\nNext: {} {args} in {s} s", next.tool),
        };
        if !next.say.is_empty() {
            let _ = write!(out, "\nTell: {}", clip(&next.say, 160));
        }
    }
    out
}

fn problem_text(problem: &Problem) -> String {
    let mut out = clip(&format!("{}: {} {}", problem.code, problem.message, problem.next), 480);
    for line in problem.evidence.iter().take(3) {
        let _ = write!(out, "\n- {}", clip(line, 100));
    }
    out
}

/// The tool result of a problem: an answer of the same shape as the tool's others, marked as an error.
pub fn refusal(tool: &str, problem: &Problem) -> CallToolResult {
    let mut structured = json!({ "outcome": "refused", "summary": problem.message, "problem": problem });
    if tool == "changes"
        && let Some(map) = structured.as_object_mut()
    {
        map.insert("changes".into(), json!([]));
    }
    shrink(&mut structured, MAX_STRUCTURED, None);
    let mut result = CallToolResult::error(vec![ContentBlock::text(clip(&problem_text(problem), MAX_TEXT))]);
    result.structured_content = Some(structured);
    result
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
