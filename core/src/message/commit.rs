//! Commit messages and pull requests.

use super::card::CardFacts;
use super::escape::{escape_name, escape_visible, shorten};
use super::field::{label, sides, what_short};
use crate::model::LeafChange;

/// Characters of a subject line.
const SUBJECT: usize = 72;
/// Changed fields listed in a commit message; the diff itself is the rest.
const FIELDS: usize = 40;
/// Trailers that only [`with_trailers`] writes.
const RESERVED: &str = "countersign-";

/// What follows approval. The part of the message before it is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    /// Change id.
    pub change: String,
    /// Digest, whole.
    pub digest: String,
    /// Agent.
    pub requested_by: String,
    /// People; empty = policy let it through.
    pub approved_by: Vec<String>,
    /// Whose yes sufficed alone, where somebody broke the glass.
    pub glass: Option<String>,
    /// Policy version and rules (`3f2a… prod`).
    pub policy: String,
    /// Journal head (`seq/hash`).
    pub audit: String,
}

/// The message that is sealed: conventional subject, changed fields, who asked, the agent's words
/// last. `operations` are the names of the edits' operations.
pub fn commit_message(f: &CardFacts, operations: &[&str]) -> String {
    let mut m = subject(f, operations);
    m.push_str("\n\n");
    for l in f.fields.iter().take(FIELDS) {
        m.push_str(&field_line(l));
        m.push('\n');
    }
    if f.fields.len() > FIELDS {
        m.push_str(&format!("- and {} more fields\n", f.fields.len() - FIELDS));
    }
    m.push_str(&format!("\nOwner: {}\n", escape_name(&f.owner.to_string())));
    m.push_str(&format!("Cluster: {}\n", escape_name(&f.cluster)));
    m.push_str(&format!("Risk: {}\n", super::card::risk_mark(f.risk.level).1.to_lowercase()));
    if let Some(r) = &f.reverts {
        m.push_str(&format!("Undoes: {}\n", escape_name(r)));
    }
    let reason = super::card::quote(&f.reason);
    if !reason.is_empty() {
        m.push_str(&format!("\nThe agent says (unverified):\n> {reason}\n"));
    }
    m
}

/// The sealed message with its trailers. Lines in it that would read as one of ours are quoted,
/// so that only what stands here counts.
pub fn with_trailers(sealed: &str, t: &Trailers) -> String {
    let mut m = String::with_capacity(sealed.len() + 512);
    for line in sealed.trim_end().lines() {
        if line.trim_start().to_ascii_lowercase().starts_with(RESERVED) {
            m.push_str("> ");
        }
        m.push_str(line);
        m.push('\n');
    }
    m.push('\n');
    let mut trailer = |key: &str, value: &str| {
        m.push_str(&format!("Countersign-{key}: {}\n", escape_name(value.trim())));
    };
    trailer("Change", &t.change);
    trailer("Digest", &t.digest);
    trailer("Requested-By", &t.requested_by);
    for by in &t.approved_by {
        trailer("Approved-By", by);
    }
    if t.approved_by.is_empty() {
        trailer("Approved-By", "policy");
    }
    if let Some(by) = &t.glass {
        trailer("Break-Glass", by);
    }
    trailer("Policy", &t.policy);
    trailer("Audit", &t.audit);
    m
}

fn subject(f: &CardFacts, operations: &[&str]) -> String {
    let kind = if f.reverts.is_some() {
        "revert"
    } else if operations.iter().any(|o| matches!(*o, "create" | "adopt")) {
        "feat"
    } else if operations.contains(&"set_image") {
        "fix"
    } else {
        "chore"
    };
    let scope: String = f.fields.first().map_or_else(|| escape_name(&f.owner.name), |l| escape_name(&l.object.name));
    let scope = shorten_ascii(&scope.replace(['(', ')'], ""), 30);
    let adopts = f.reverts.is_none() && !operations.is_empty() && operations.iter().all(|o| *o == "adopt");
    let what = match f.fields.as_slice() {
        _ if adopts => "take over what is live".to_owned(),
        [one] => {
            let at = label(one);
            let (sides, whole) = sides(one, 40);
            let after = sides.rsplit_once(" → ").map(|(_, a)| a.to_owned());
            match after {
                Some(a) if whole && one.after.is_some() => format!("set {} to {a}", at.label),
                _ if one.after.is_none() => format!("remove {}", at.label),
                _ => format!("set {}", at.label),
            }
        }
        many => format!("change {}", what_short(many)),
    };
    shorten_ascii(&format!("{kind}({scope}): {what}"), SUBJECT)
}

fn shorten_ascii(s: &str, max: usize) -> String {
    let n = s.chars().count();
    if n <= max {
        return s.to_owned();
    }
    format!("{}...", s.chars().take(max.saturating_sub(3)).collect::<String>().trim_end())
}

fn field_line(l: &LeafChange) -> String {
    let pointer = if l.pointer.is_empty() { "whole object".to_owned() } else { escape_name(&l.pointer) };
    format!("- {} {pointer}: {}", escape_name(&l.object.to_string()), sides(l, 120).0)
}

/// Title of the pull request: the commit's subject and the change's name.
pub fn pull_request_title(f: &CardFacts, operations: &[&str]) -> String {
    format!("{} [{}]", subject(f, operations), escape_name(&f.name))
}

/// Body of the pull request, in Markdown. All that is not ours stands in fenced blocks, where
/// nothing is a link, a mention or a command.
pub fn pull_request_body(f: &CardFacts, change: &str, digest: &str) -> String {
    let fields: Vec<String> = f.fields.iter().take(200).map(field_line).collect();
    let mut b = format!("Proposed through Countersign as `{}` (`{}`).\n\n", code(&f.name), code(change));
    b.push_str(&fence("", &fields.join("\n")));
    if f.fields.len() > fields.len() {
        b.push_str(&format!("\nand {} more fields\n", f.fields.len() - fields.len()));
    }
    b.push_str(&format!("\n| | |\n|---|---|\n| Owner | `{}` |\n", cell(&f.owner.to_string())));
    b.push_str(&format!("| Cluster | `{}` |\n", cell(&f.cluster)));
    let (_, risk) = super::card::risk_mark(f.risk.level);
    b.push_str(&format!(
        "| Risk | `{}` |\n",
        cell(&format!("{} ({})", risk.to_lowercase(), f.risk.reasons.join(", ")))
    ));
    b.push_str(&format!("| Requested by | `{}` for `{}` |\n", cell(&f.requester), cell(&f.sponsor)));
    b.push_str(&format!("| Policy | `{}` |\n| Digest | `{}` |\n", cell(&f.rules.join(", ")), cell(digest)));
    let notes: Vec<String> = f.notes.iter().map(|n| shorten(&escape_visible(n), 300)).collect();
    if !notes.is_empty() {
        b.push_str("\nTo know:\n\n");
        b.push_str(&fence("text", &notes.join("\n")));
    }
    b.push_str(match f.delivery {
        crate::model::Delivery::PullRequest => "\nMerging this pull request is the approval. Closing it is a rejection.\n",
        _ => "\nCountersign merges this once it is approved. Further pushes void the approval; closing it is a rejection.\n",
    });
    let reason = super::card::quote(&f.reason);
    if !reason.is_empty() {
        b.push_str("\nThe agent says (unverified):\n\n");
        b.push_str(&fence("text", &reason));
    }
    b
}

fn code(s: &str) -> String {
    escape_name(s).replace('`', "'")
}

fn cell(s: &str) -> String {
    shorten(&escape_visible(s), 300).replace('`', "'").replace('|', "/")
}

/// A fence longer than any run of backticks inside. What goes in is escaped already.
fn fence(language: &str, body: &str) -> String {
    let (mut longest, mut run) = (0usize, 0usize);
    for c in body.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let ticks = "`".repeat(longest.max(2) + 1);
    format!("{ticks}{language}\n{body}\n{ticks}\n")
}
