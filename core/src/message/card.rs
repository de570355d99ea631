//! The card on which a person decides.

use sha2::{Digest as _, Sha256};

use super::escape::{escape_lines, escape_name, escape_visible, shorten};
use super::field::{self, label, sides};
use super::rich::{EntityKind, LIMIT, Text, utf16};
use crate::model::{Decided, Delivery, DeliveryState, Escalation, LeafChange, OwnerRef, Risk, RiskLevel, hex};

/// What a card should stay below, so that an edit that adds an outcome still fits.
const AIM: usize = 3500;
/// Characters of one value on the card; longer ones are in the document.
const VALUE: usize = 160;
/// Beyond these a change is not decided in a chat but on the forge.
const MAX_LINES: u32 = 400;
const MAX_FILES: usize = 20;
const MAX_OBJECTS: usize = 50;
/// Notes of what stands between the commit and its effect.
const NOTES: usize = 5;
/// Characters of the agent's reason.
const REASON: usize = 300;
/// Characters of it once escaped.
const QUOTE: usize = 420;
/// Units of the lines that come and go while people decide.
const DECIDING: usize = 300;
/// Units of the groups that must still answer, where these matter.
const OPEN: usize = 200;

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// Path from the repository's root.
    pub path: String,
    /// First changed line, from 1; 0 = unknown.
    pub line: u32,
    /// Added lines.
    pub added: u32,
    /// Removed lines.
    pub removed: u32,
}

/// How far people who must each answer for another group have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats {
    /// The groups.
    pub groups: Vec<String>,
    /// How many of the needed votes were given.
    pub counted: usize,
    /// Groups of which somebody must still say yes.
    pub open: Vec<String>,
}

impl Seats {
    /// How far they are once these people said yes; `None` where groups do not matter.
    pub fn of(decided: &Decided, yes: &[String]) -> Option<Self> {
        let yes = || yes.iter().map(String::as_str);
        decided.quorum.different_groups.then(|| Self {
            groups: decided.quorum.groups.clone(),
            counted: decided.votes(yes()),
            open: decided.still_asked(yes()),
        })
    }
}

/// What a card is made from: computed facts, already redacted, and the agent's reason.
#[derive(Debug, Clone, PartialEq)]
pub struct CardFacts {
    /// Short name of the change.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// Risk.
    pub risk: Risk,
    /// Seconds since the epoch.
    pub expires_at: i64,
    /// Every changed field.
    pub fields: Vec<LeafChange>,
    /// How the object is now (`0/6 ready, CrashLoopBackOff (exit 1), 11 min`).
    pub now: Option<String>,
    /// When it was healthy last (`1.9.1, until 02:58 (4be1d2a)`).
    pub last_healthy: Option<String>,
    /// Owner.
    pub owner: OwnerRef,
    /// What stands between a commit and the cluster.
    pub state: DeliveryState,
    /// Other owners that the files feed; empty = only `owner`.
    pub also_feeds: Vec<String>,
    /// Repository (name in the configuration).
    pub repository: String,
    /// Branch.
    pub branch: String,
    /// Changed files.
    pub files: Vec<FileFact>,
    /// Unified diff, whole and redacted.
    pub diff: String,
    /// Delivery.
    pub delivery: Delivery,
    /// Address of the pull request, once there is one.
    pub pull_request: Option<String>,
    /// Who is asked (names).
    pub approvers: Vec<String>,
    /// Who of them is asked only later.
    pub later: Vec<Escalation>,
    /// Who said yes so far.
    pub approved_by: Vec<String>,
    /// The number that the viewer must pick to approve; `None` = one press approves.
    pub number: Option<u32>,
    /// Who of them reads this card; `None` in the sealed text.
    pub viewer: Option<String>,
    /// How many must say yes.
    pub needed: u32,
    /// Each must answer for another group.
    pub seats: Option<Seats>,
    /// The sponsor may be one of them.
    pub allow_sponsor: bool,
    /// Agent.
    pub requester: String,
    /// Person who answers for the agent.
    pub sponsor: String,
    /// Rules that decided.
    pub rules: Vec<String>,
    /// Short digest (`9af3 c01e 77b2`); `None` in the sealed text, which the digest covers.
    pub digest: Option<String>,
    /// Short name of the change that this one undoes.
    pub reverts: Option<String>,
    /// Further things to know.
    pub notes: Vec<String>,
    /// The agent's words.
    pub reason: String,
}

/// A file that goes with the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// File name.
    pub name: String,
    /// Content.
    pub text: String,
    /// SHA-256 of the content, hex; also on the card.
    pub sha256: String,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Text and entities.
    pub text: Text,
    /// Everything that changes is on the card or in the document: only then may it have an
    /// Approve button, and only once the document was delivered.
    pub complete: bool,
    /// Why it is not complete.
    pub incomplete: Option<String>,
    /// Must be delivered before the buttons.
    pub document: Option<Document>,
}

/// The card for these facts. Deterministic; the reason changes nothing but the quote at the end.
pub fn card(f: &CardFacts) -> Card {
    let head = head(f);
    let tail = tail(f);
    let incomplete = too_much(f);
    // Room for the widest "shown" line and the longest quote, whether they are needed or not: what
    // an agent writes must not decide how many facts are shown.
    // What is added while people decide counts from the beginning: a card that is edited shows no field less.
    let first = self::tail(&CardFacts { approved_by: Vec::new(), number: None, ..f.clone() });
    let reserve = head.len() + first.len() + DECIDING + f.seats.as_ref().map_or(0, |_| OPEN) + 320 + QUOTE + 40;
    let (fields, shown) = fields(f, AIM.saturating_sub(reserve).max(100));
    let all_shown = shown == f.fields.len()
        && !f.fields.is_empty()
        && f.files.len() <= FILES_SHOWN
        && f.files.iter().all(|x| file_line(x).chars().count() <= PATH);
    let document = (!all_shown).then(|| document(f));
    let mut text = head;
    text.append(&fields);
    if let Some(d) = &document {
        text.push(&format!("{shown} of {} fields shown; all in {}, sha256 ", f.fields.len(), d.name));
        text.styled(EntityKind::Code, &d.sha256).push("\n");
    }
    if let Some(why) = &incomplete {
        text.line(&format!("⛔ Not decidable in the chat: {why}"));
    }
    text.append(&tail);
    let reason = quote(&f.reason);
    if !reason.is_empty() {
        text.styled(EntityKind::Blockquote, &format!("Agent says (unverified): \"{reason}\""));
    }
    debug_assert!(text.len() <= LIMIT, "card of {} units", text.len());
    Card { text: text.trimmed(), complete: incomplete.is_none(), incomplete, document }
}

/// Every changed field and the whole diff as one file.
pub fn document(f: &CardFacts) -> Document {
    let mut t = format!("{} {}\n", escape_name(&f.name), escape_name(&f.cluster));
    t.push_str(&format!("{} branch {}\n", escape_name(&f.repository), escape_name(&f.branch)));
    for file in &f.files {
        t.push_str(&file_line(file));
        t.push('\n');
    }
    t.push_str(&format!("\nChanged fields: {}\n", f.fields.len()));
    for l in &f.fields {
        let (sides, _) = sides(l, usize::MAX);
        t.push_str(&format!("{} {}: {sides}\n", escape_name(&l.object.to_string()), pointer(l)));
    }
    t.push_str("\nDiff:\n");
    t.push_str(&escape_lines(&f.diff));
    if !t.ends_with('\n') {
        t.push('\n');
    }
    let sha256 = hex(&Sha256::digest(t.as_bytes()));
    Document { name: format!("{}.txt", escape_name(&f.name)), text: t, sha256 }
}

fn pointer(l: &LeafChange) -> String {
    if l.pointer.is_empty() { "(whole object)".to_owned() } else { escape_name(&l.pointer) }
}

fn too_much(f: &CardFacts) -> Option<String> {
    if f.files.is_empty() {
        Some("it names no file".to_owned())
    } else if f.fields.is_empty() && f.diff.trim().is_empty() {
        Some("neither fields nor diff are known".to_owned())
    } else {
        too_large(f).map(|why| match f.delivery {
            Delivery::PullRequest => format!("{why}; review its pull request"),
            _ => format!("{why}; sign it: {}", signing(&f.name)),
        })
    }
}

/// Why a change is too large for the chat, if it is: then a yes is a signature.
pub fn too_large(f: &CardFacts) -> Option<String> {
    let lines = f.files.iter().fold(0u32, |n, x| n.saturating_add(x.added).saturating_add(x.removed));
    let objects = field::objects(&f.fields);
    if lines > MAX_LINES {
        Some(format!("{lines} changed lines are more than {MAX_LINES}"))
    } else if f.files.len() > MAX_FILES {
        Some(format!("{} files are more than {MAX_FILES}", f.files.len()))
    } else if objects > MAX_OBJECTS {
        Some(format!("{objects} objects are more than {MAX_OBJECTS}"))
    } else {
        None
    }
}

/// The command by which a person signs a yes to the change of this name.
pub fn signing(change: &str) -> String {
    format!("countersign approve {} --key KEY", name(change))
}

pub(crate) fn risk_mark(r: RiskLevel) -> (&'static str, &'static str) {
    match r {
        RiskLevel::Low => ("🟢", "LOW"),
        RiskLevel::Medium => ("🟡", "MEDIUM"),
        RiskLevel::High => ("🔴", "HIGH"),
        RiskLevel::Critical => ("🛑", "CRITICAL"),
    }
}

/// `03:44 UTC`.
pub(crate) fn clock(at: i64) -> String {
    chrono::DateTime::from_timestamp(at, 0).map_or_else(|| "?".to_owned(), |t| t.format("%H:%M UTC").to_string())
}

fn name(s: &str) -> String {
    shorten(&escape_name(s), 80)
}

fn words(s: &str) -> String {
    shorten(&escape_visible(s), 140)
}

fn head(f: &CardFacts) -> Text {
    let (mark, word) = risk_mark(f.risk.level);
    let mut t = Text::default();
    t.push(mark).push(" ").styled(EntityKind::Bold, word);
    t.line(&format!(" · {} · {} · expires {}", name(&f.cluster), name(&f.name), clock(f.expires_at)));
    if let Some(r) = &f.reverts {
        t.line(&format!("Undoes {}", name(r)));
    }
    t
}

/// As many fields as fit, and how many of them stand there whole.
fn fields(f: &CardFacts, budget: usize) -> (Text, usize) {
    let mut t = Text::default();
    let mut shown = 0;
    let mut under: Option<(String, Option<String>)> = None;
    for l in &f.fields {
        let at = label(l);
        let place = (escape_name(&l.object.to_string()), at.context.clone());
        let mut block = Text::default();
        if under.as_ref() != Some(&place) {
            let context = at.context.map_or_else(String::new, |c| format!(", {c}"));
            block.styled(EntityKind::Bold, &place.0).line(&context);
        }
        let (sides, whole) = sides(l, VALUE);
        block.styled(EntityKind::Pre, &format!("{}  {sides}", at.label)).push("\n");
        if t.len() + block.len() > budget {
            break;
        }
        t.append(&block);
        under = Some(place);
        shown += usize::from(whole);
    }
    (t, shown)
}

const FILES_SHOWN: usize = 4;
/// Characters of one path on the card; longer ones are in the document.
const PATH: usize = 100;

fn file_line(f: &FileFact) -> String {
    let line = if f.line > 0 { format!(":{}", f.line) } else { String::new() };
    format!("{}{line} · +{} −{}", escape_name(&f.path), f.added, f.removed)
}

fn tail(f: &CardFacts) -> Text {
    let mut t = Text::default();
    if let Some(now) = &f.now {
        t.line(&format!("Now: {}", words(now)));
    }
    if let Some(last) = &f.last_healthy {
        t.line(&format!("Last healthy: {}", words(last)));
    }
    t.line(&owner_line(f));
    files(f, &mut t);
    t.line(&delivery_line(f));
    for note in f.notes.iter().take(NOTES) {
        t.line(&format!("Note: {}", words(note)));
    }
    if let Some(more) = f.notes.len().checked_sub(NOTES).filter(|n| *n > 0) {
        t.line(&format!("Note: and {more} more, which the tool change lists."));
    }
    t.line(&asked_line(f));
    if !f.approved_by.is_empty() {
        let counted = f.seats.as_ref().map_or(f.approved_by.len(), |s| s.counted);
        let open = f.seats.as_ref().filter(|s| !s.open.is_empty());
        let still = open.map_or_else(String::new, |s| format!(" · still needed: {}", either(&s.open)));
        t.line(&format!("Approved so far: {} ({counted} of {}){still}", listed(&f.approved_by, 4), f.needed));
    }
    if let Some(number) = f.number {
        t.push("To approve, press Approve and then the number ")
            .styled(EntityKind::Bold, &number.to_string())
            .push("\n");
    }
    let rules = format!("policy rule {}", listed(&f.rules, 4));
    match &f.digest {
        Some(d) => t.push("Digest ").styled(EntityKind::Code, &name(d)).line(&format!(" · {rules}")),
        None => t.line(&format!("P{}", rules.trim_start_matches('p'))),
    };
    t
}

/// The agent's words: one line, at most 300 characters of theirs, nothing of them invisible.
pub(crate) fn quote(reason: &str) -> String {
    let reason: String = shorten(reason.trim(), REASON);
    // Escapes make text longer; a reason of nothing but those must not push facts off the card.
    let (body, cut) = match reason.strip_suffix('…') {
        Some(b) => (b, "…"),
        None => (reason.as_str(), ""),
    };
    let shown = shorten(&escape_visible(body), QUOTE);
    // A quotation mark inside would seem to end the quote.
    format!("{}{cut}", shown.replace('"', "'"))
}

fn owner_line(f: &CardFacts) -> String {
    let engine = match f.owner.engine {
        crate::model::Engine::Argocd => "Argo CD",
        crate::model::Engine::Flux => "Flux",
    };
    let sync = if f.state.automatic { "auto-sync on" } else { "auto-sync off: someone must sync" };
    let window = f.state.window.as_ref().map_or_else(|| "no window".to_owned(), |w| format!("window: {}", words(w)));
    let suspended = f.state.suspended.as_ref().map_or_else(String::new, |s| format!(" · SUSPENDED: {}", words(s)));
    let prune = if f.state.prune && f.fields.iter().any(|l| l.pointer.is_empty() && l.after.is_none()) {
        " · prunes"
    } else {
        ""
    };
    format!("Owner: {engine} {} · {sync} · {window}{suspended}{prune}", name(&f.owner.name))
}

fn files(f: &CardFacts, t: &mut Text) {
    let feeds = if f.also_feeds.is_empty() {
        format!("feeds only {}", name(&f.owner.name))
    } else {
        format!("ALSO feeds {}", listed(&f.also_feeds, 3))
    };
    for (i, file) in f.files.iter().take(FILES_SHOWN).enumerate() {
        let line = file_line(file);
        let (path, counts) = line.split_once(" · ").unwrap_or((&line, ""));
        t.styled(EntityKind::Code, &shorten(path, PATH)).push(" · ").push(counts);
        t.line(&if i == 0 { format!(" · {feeds}") } else { String::new() });
    }
    if f.files.len() > FILES_SHOWN {
        t.line(&format!("and {} more files", f.files.len() - FILES_SHOWN));
    }
}

fn delivery_line(f: &CardFacts) -> String {
    let branch = name(&f.branch);
    let how = match f.delivery {
        Delivery::Direct => format!("Direct push to {branch}"),
        Delivery::MergeAfterApproval => format!("Pull request to {branch}, merged once approved"),
        Delivery::PullRequest => format!("Pull request to {branch}; merging it approves"),
    };
    let link = f.pull_request.as_ref().map_or_else(String::new, |u| format!(" · {}", name(u)));
    let (_, word) = risk_mark(f.risk.level);
    let because = if f.risk.reasons.is_empty() {
        String::new()
    } else {
        format!(" · {} because: {}", word.to_lowercase(), listed(&f.risk.reasons, 6))
    };
    format!("{how}{link}{because}")
}

fn asked_line(f: &CardFacts) -> String {
    let mut who: Vec<String> = Vec::new();
    let mut others = f.approvers.clone();
    let late = |o: &String| f.later.iter().any(|l| l.people.contains(o));
    let later: String = f.later.iter().filter_map(|l| later_words(l, &others)).collect();
    others.retain(|o| !late(o));
    if let Some(v) = &f.viewer
        && f.approvers.contains(v)
    {
        others.retain(|o| o != v);
        who.push("you".to_owned());
    }
    if !others.is_empty() {
        who.push(listed(&others, 4));
    }
    let of = |s: &Seats| format!(", each of another group: {}", listed(&s.groups, 4));
    let groups = f.seats.as_ref().map_or_else(String::new, of);
    let sponsor = if f.allow_sponsor { " · the sponsor may approve" } else { "" };
    format!(
        "Asked: {}{later} · {} needed{groups} · by {} for {}{sponsor}",
        if who.is_empty() { "nobody".to_owned() } else { who.join(", ") },
        f.needed,
        name(&f.requester),
        name(&f.sponsor)
    )
}

fn later_words(l: &Escalation, approvers: &[String]) -> Option<String> {
    let people: Vec<String> = approvers.iter().filter(|o| l.people.contains(o)).cloned().collect();
    let after = super::settle::span(u64::from(l.after_s));
    (!people.is_empty()).then(|| format!(" · after {after} also {}", listed(&people, 4)))
}

/// The first `max` names, and how many more.
pub(crate) fn listed(names: &[String], max: usize) -> String {
    let mut out = names.iter().take(max).map(|n| shorten(&escape_name(n), 40)).collect::<Vec<_>>().join(", ");
    if names.len() > max {
        out.push_str(&format!(" and {} more", names.len() - max));
    }
    out
}

/// Of which group somebody must still say yes.
fn either(groups: &[String]) -> String {
    match groups {
        [one] => format!("somebody of {}", listed(std::slice::from_ref(one), 1)),
        several => format!("somebody of one of {}", listed(several, 4)),
    }
}

/// For texts that quote a card: its object and fields, within `budget`.
pub(crate) fn core(f: &CardFacts, budget: usize) -> Text {
    let (mut t, shown) = fields(f, budget);
    if shown < f.fields.len() {
        t.line(&format!("{} fields in all", f.fields.len()));
    }
    debug_assert!(utf16(&t.text) <= budget + 64);
    t
}
