//! What a card becomes, and what is told afterwards.

use super::card::{CardFacts, card, clock, core, listed, quote, risk_mark};
use super::escape::{escape_name, escape_visible, shorten};
use super::rich::{EntityKind, Text};

/// Characters of the core in texts after the decision.
const CORE: usize = 1500;

/// How a card ended. Words of people and engines are shown escaped and capped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Enough people said yes; it is being delivered.
    Approved {
        /// Names.
        by: Vec<String>,
    },
    /// A person said no.
    Rejected {
        /// Name.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Nobody said yes in time.
    Expired {
        /// What became of asking again: short name of the new change, or why there is none.
        again: Option<Result<String, String>>,
    },
    /// Withdrawn.
    Cancelled {
        /// Agent or person.
        by: String,
    },
    /// What was approved is no longer what would be done.
    Stale {
        /// Why.
        why: String,
    },
    /// Delivered, synced and healthy.
    Healthy {
        /// Commit.
        commit: String,
        /// Names of those who approved.
        by: Vec<String>,
    },
    /// Delivered and failed.
    Failed {
        /// Commit, where there is one.
        commit: Option<String>,
        /// Who approved.
        by: Vec<String>,
        /// What was seen; the engine's own words are quoted in it.
        say: String,
    },
    /// Delivered, and neither healthy nor failed within the time allowed.
    TimedOut {
        /// Commit, where there is one.
        commit: Option<String>,
        /// Who approved.
        by: Vec<String>,
        /// What was seen last.
        say: String,
    },
    /// A later commit took its place.
    Superseded {
        /// Commit.
        commit: String,
    },
    /// It could not be delivered.
    Undelivered {
        /// Why.
        why: String,
    },
}

/// Something new that people are told, as a message of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Committed without asking, at level standard.
    Standard {
        /// Commit.
        commit: String,
    },
    /// Healthy.
    Healthy {
        /// Commit.
        commit: String,
        /// Seconds from the press to health.
        seconds: u64,
    },
    /// Failed.
    Failed {
        /// Commit.
        commit: String,
        /// What was seen; the engine's own words are quoted in it.
        say: String,
        /// Short name of the change that would undo it.
        revert: Option<String>,
    },
    /// Neither healthy nor failed within the time allowed.
    TimedOut {
        /// Commit.
        commit: String,
        /// What was seen last.
        say: String,
        /// Short name of the change that would undo it.
        revert: Option<String>,
    },
    /// A later commit took its place.
    Superseded {
        /// Commit.
        commit: String,
    },
    /// The engine has the commit and does not get on with it by itself.
    Held {
        /// Commit.
        commit: String,
        /// The engine's own words.
        say: String,
    },
    /// Healthy after it was called failed.
    Late {
        /// Commit.
        commit: String,
    },
    /// No revert could be prepared.
    NoRevert {
        /// Why.
        say: String,
    },
    /// One person's yes suffices, in spite of quorum and freeze.
    Glass {
        /// Whose.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// Asks for the reason of a rejection, in the person's own words.
    Why,
    /// Waits for this person still.
    Reminder,
    /// Anything else, in Countersign's words.
    Other {
        /// One sentence.
        say: String,
    },
}

const FAILED: (&str, &str) = ("❌", "FAILED");
const TIMED_OUT: (&str, &str) = ("⏱️", "NOT HEALTHY IN TIME");

/// The final text of a card: what happened first, then what it was about. It has no buttons.
pub fn settled(f: &CardFacts, how: &Settled) -> Text {
    let (mark, word, more) = match how {
        Settled::Approved { by } => ("☑️", "APPROVED", format!("by {}; being delivered", people(by))),
        Settled::Rejected { by, reason } => {
            let why = reason.as_ref().map_or_else(String::new, |r| format!(": {}", words(r)));
            ("✖️", "REJECTED", format!("by {}{why}", name(by)))
        }
        Settled::Expired { again } => {
            let again = match again {
                None => String::new(),
                Some(Ok(new)) => format!("\nAsked again as {}", name(new)),
                Some(Err(why)) => format!("\nNot asked again: {}", words(why)),
            };
            ("⌛", "EXPIRED", format!("nobody decided until {}; nothing was written{again}", clock(f.expires_at)))
        }
        Settled::Cancelled { by } => ("➖", "CANCELLED", format!("by {}; nothing was written", name(by))),
        Settled::Stale { why } => ("♻️", "NO LONGER VALID", format!("{}; nothing was written", words(why))),
        Settled::Healthy { commit, by } => ("✅", "HEALTHY", format!("commit {}{}", short(commit), approved(by))),
        Settled::Failed { commit, by, .. } | Settled::TimedOut { commit, by, .. } => {
            let at = commit.as_ref().map_or_else(|| "not committed".to_owned(), |c| format!("commit {}", short(c)));
            let (mark, word) = if matches!(how, Settled::Failed { .. }) { FAILED } else { TIMED_OUT };
            (mark, word, format!("{at}{}", approved(by)))
        }
        Settled::Superseded { commit } => {
            ("⏭️", "SUPERSEDED", format!("a later commit took the place of {}", short(commit)))
        }
        Settled::Undelivered { why } => ("❌", "NOT DELIVERED", words(why)),
    };
    let mut t = Text::default();
    t.push(mark).push(" ").styled(EntityKind::Bold, word).line(&format!(" · {} · {}", name(&f.cluster), name(&f.name)));
    t.line(&more);
    match how {
        Settled::Failed { say, .. } => seen("Seen", say, &mut t),
        Settled::TimedOut { say, .. } => seen("Last seen", say, &mut t),
        _ => {}
    }
    about(f, &mut t);
    t.trimmed()
}

/// A message of its own.
pub fn notice(f: &CardFacts, what: &Notice) -> Text {
    let mut t = Text::default();
    let mut head = |mark: &str, word: &str| {
        t.push(mark).push(" ").styled(EntityKind::Bold, word).line(&format!(
            " · {} · {}",
            name(&f.cluster),
            name(&f.name)
        ));
    };
    match what {
        Notice::Standard { commit } => {
            head("ℹ️", "COMMITTED");
            t.line(&format!("commit {}, without asking: policy rule {}", short(commit), listed(&f.rules, 4)));
        }
        Notice::Healthy { commit, seconds } => {
            head("✅", "HEALTHY");
            t.line(&format!("commit {}, after {}", short(commit), span(*seconds)));
        }
        Notice::Failed { commit, say, revert } | Notice::TimedOut { commit, say, revert } => {
            let failed = matches!(what, Notice::Failed { .. });
            let (mark, word) = if failed { FAILED } else { TIMED_OUT };
            head(mark, word);
            t.line(&format!("commit {}", short(commit)));
            seen(if failed { "Seen" } else { "Last seen" }, say, &mut t);
            if let Some(r) = revert {
                t.line(&format!("The revert is prepared: {}", name(r)));
            }
        }
        Notice::Superseded { commit } => {
            head("⏭️", "SUPERSEDED");
            t.line(&format!("a later commit took the place of {}", short(commit)));
        }
        Notice::Held { commit, say } => {
            head("⏸️", "HELD BACK");
            t.line(&format!("commit {} is on the branch; the engine does not get on with it", short(commit)));
            seen("Seen", say, &mut t);
        }
        Notice::Late { commit } => {
            head("✅", "HEALTHY AFTER ALL");
            t.line(&format!("commit {}; its revert is no longer offered", short(commit)));
        }
        Notice::NoRevert { say } => {
            head("❌", "NO REVERT");
            t.line(&words(say));
        }
        Notice::Glass { by, reason } => {
            head("🔨", "GLASS BROKEN");
            t.line(&format!("{} alone said yes, in spite of quorum and freeze: {}", name(by), words(reason)));
            t.line("Somebody else reviews it afterwards: countersign review");
        }
        Notice::Why => {
            head("✏️", "WHY NOT");
            t.line("Reply to this message with the reason; the agent and the others read it.");
        }
        Notice::Reminder => {
            head("🔔", "WAITING FOR YOU");
            t.line(&format!("expires {}", clock(f.expires_at)));
        }
        Notice::Other { say } => {
            head("ℹ️", risk_mark(f.risk.level).1);
            t.line(&words(say));
        }
    }
    about(f, &mut t);
    t.trimmed()
}

/// Somebody wants the emergency stop to end, and others must agree.
pub fn resuming(by: &str, more: usize) -> Text {
    let mut t = Text::default();
    t.styled(EntityKind::Bold, "⛔ STILL STOPPED").line(&format!(": {} wants to resume", name(by)));
    t.line(&format!("{more} more must say so: /resume here, or `countersign resume` on the command line"));
    t.trimmed()
}

/// The answer to /resume: what is held, above the button that is the vote.
pub fn resume_card(by: &str, reason: &str, held: usize, agreed: &[String], needed: usize) -> Text {
    let mut t = Text::default();
    t.styled(EntityKind::Bold, "⛔ STOPPED").line(&format!(" by {}", name(by)));
    if !reason.trim().is_empty() {
        t.line(&format!("Reason: {}", words(reason)));
    }
    t.line(&format!("{held} changes are held"));
    t.line(&format!(
        "To resume {needed} must agree; so far: {}",
        if agreed.is_empty() { "nobody".to_owned() } else { listed(agreed, 4) }
    ));
    t.trimmed()
}

/// The answer to /pending: one line for each change that waits for this person.
pub fn pending_list(lines: &[(String, String, i64)]) -> Text {
    let mut t = Text::default();
    if lines.is_empty() {
        t.line("Nothing waits for you.");
    }
    for (change, what, expires) in lines.iter().take(20) {
        t.styled(EntityKind::Bold, &name(change)).line(&format!(" · {} · expires {}", words(what), clock(*expires)));
    }
    if lines.len() > 20 {
        t.line(&format!("and {} more", lines.len() - 20));
    }
    t.trimmed()
}

/// The emergency stop, or its end, told to everyone.
pub fn stopped(on: bool, by: &str, reason: &str, pending: usize) -> Text {
    let mut t = Text::default();
    if on {
        t.styled(EntityKind::Bold, "⛔ STOPPED")
            .line(&format!(" by {}: nothing is written until someone resumes", name(by)));
        t.line(&format!("{pending} changes are held"));
    } else {
        t.styled(EntityKind::Bold, "▶️ RESUMED").line(&format!(" by {}", name(by)));
    }
    if !reason.trim().is_empty() {
        t.line(&format!("Reason: {}", words(reason)));
    }
    t.trimmed()
}

fn about(f: &CardFacts, t: &mut Text) {
    t.append(&core(f, CORE));
    t.line(&format!("Owner: {} · by {} for {}", words(&f.owner.to_string()), name(&f.requester), name(&f.sponsor)));
    if let Some(d) = &f.digest {
        t.push("Digest ").styled(EntityKind::Code, &name(d)).push("\n");
    }
    if let Some(doc) = card(f).document {
        t.push("Whole change: sha256 ").styled(EntityKind::Code, &doc.sha256).push("\n");
    }
    let reason = quote(&f.reason);
    if !reason.is_empty() {
        t.styled(EntityKind::Blockquote, &format!("Agent says (unverified): \"{reason}\""));
    }
}

/// What was seen, set apart: the engine's own words are quoted in it.
fn seen(label: &str, say: &str, t: &mut Text) {
    let say = shorten(&escape_visible(say.trim()), 500);
    if !say.is_empty() {
        t.styled(EntityKind::Blockquote, &format!("{label}: {say}")).push("\n");
    }
}

fn approved(by: &[String]) -> String {
    if by.is_empty() { String::new() } else { format!(" · approved by {}", people(by)) }
}

fn people(by: &[String]) -> String {
    if by.is_empty() { "policy".to_owned() } else { listed(by, 4) }
}

fn name(s: &str) -> String {
    shorten(&escape_name(s), 80)
}

fn words(s: &str) -> String {
    shorten(&escape_visible(s), 300)
}

fn short(commit: &str) -> String {
    escape_name(commit).chars().take(10).collect()
}

pub(crate) fn span(s: u64) -> String {
    if s < 120 { format!("{s} s") } else { format!("{} min", s / 60) }
}
