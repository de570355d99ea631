//! Breaking the glass: one person's signed yes suffices for one change, for a short time, with a reason that everybody
//! reads, and another person looks at it afterwards. Nothing that an agent can call leads here.

use countersign_core::change::Change;
use countersign_core::model::{Body, ChangeId, Level};
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use super::control::{glass_text, review_text};
use super::press::{may_vote, vote};
use super::{Pipeline, fault, unknown_change};
use crate::journal::Entry;

/// How long the one yes suffices, milliseconds.
const LASTS_MS: i64 = 30 * 60_000;
/// Longest reason or note, characters.
const WORDS: usize = 300;

impl Pipeline {
    async fn named(&self, change: &str) -> Result<std::sync::Arc<Change>> {
        let id = self.resolve(change).await?;
        self.journal.change(id).await.ok_or_else(unknown_change)
    }

    /// `countersign approve --break-glass`.
    pub(super) async fn break_glass(&self, change: &str, reason: String, proof: String) -> Result<Value> {
        let c = self.named(change).await?;
        self.plain_words(&reason)?;
        let person = self.signer_of(&glass_text(&c.digest.0, &reason), &proof)?;
        let config = self.config.load();
        if !config.may_break_glass().contains(&person) {
            return Err(Problem::new(
                "glass.not_allowed",
                format!("{person} is in no group of `approvals.break_glass`."),
                "Approve it as usual, or let somebody of these groups decide.",
            )
            .never());
        }
        let now = self.clock.now_ms();
        let until = now + LASTS_MS;
        let id = c.id;
        fault::point("before_vote");
        self.journal
            .transact(now, &[], |view| {
                let c = view.changes.get(&id).ok_or_else(unknown_change)?;
                let entries = broken(c, &person, reason.clone(), until, proof.clone(), now)?;
                Ok(((), entries.into_iter().map(|body| Entry::of(id, &format!("person:{person}"), body)).collect()))
            })
            .await?;
        fault::point("after_vote");
        let say = format!(
            "{}: your yes suffices for {} minutes. Everybody concerned is told, and somebody else reviews it: `countersign review {}`.",
            c.name(),
            LASTS_MS / 60_000,
            c.name()
        );
        Ok(json!({"say": say}))
    }

    /// `countersign review`.
    pub(super) async fn review(&self, change: &str, note: String, proof: String) -> Result<Value> {
        let c = self.named(change).await?;
        self.plain_words(&note)?;
        let person = self.signer_of(&review_text(&c.digest.0, &note), &proof)?;
        let id = c.id;
        self.journal
            .transact(self.clock.now_ms(), &[], |view| {
                let c = view.changes.get(&id).ok_or_else(unknown_change)?;
                let body = reviewed(c, id, &person, note.clone(), proof.clone())?;
                Ok(((), vec![Entry::of(id, &format!("person:{person}"), body)]))
            })
            .await?;
        Ok(json!({"say": format!("{} is reviewed by {person}.", c.name())}))
    }

    /// What is signed is what is kept: words that would have to be redacted are refused.
    fn plain_words(&self, text: &str) -> Result<()> {
        let plain = !text.trim().is_empty() && text.chars().count() <= WORDS && !text.chars().any(char::is_control);
        if plain && self.redactor.redact_text(text) == text {
            return Ok(());
        }
        Err(Problem::new(
            "glass.words",
            format!(
                "The words are empty, longer than {WORDS} characters, of several lines, or hold what looks like a secret."
            ),
            "Say in one plain sentence why; everybody reads it.",
        ))
    }
}

/// What breaking the glass writes: that it was broken, and the yes where it was not given before.
fn broken(c: &Change, person: &str, reason: String, until: i64, proof: String, now: i64) -> Result<Vec<Body>> {
    let no = |why: String| Problem::new("glass.too_late", why, "`countersign pending` lists what still waits.").never();
    if c.decided.level != Level::Prompted || c.broken_glass(now).is_some() {
        return Err(no(format!("Nobody's yes is waited for at {}, or one suffices already.", c.name())));
    }
    let said_yes = c.approvals().any(|v| v.person == person);
    if !said_yes {
        may_vote(c, person, true, now, None).map_err(no)?;
    } else if c.end.is_some() || c.is_leaving() {
        return Err(no(format!("{} is decided and on its way.", c.name())));
    }
    let mut out = vec![Body::GlassBroken { person: person.to_owned(), reason, until, proof: proof.clone() }];
    if !said_yes {
        out.push(vote(c, person, "ssh", true, None, Some(proof)));
    }
    Ok(out)
}

fn reviewed(c: &Change, id: ChangeId, person: &str, note: String, proof: String) -> Result<Body> {
    let name = countersign_core::model::short_name(&id);
    let why = match &c.glass {
        None => format!("Nobody broke the glass for {name}."),
        Some(g) if g.person == person => "Somebody else than the one who broke the glass reviews it.".to_owned(),
        Some(g) if g.reviewed.is_some() => format!("{name} is reviewed already."),
        Some(_) => return Ok(Body::Reviewed { person: person.to_owned(), note, proof }),
    };
    Err(Problem::new("glass.no_review", why, "`countersign status` lists what is to be reviewed.").never())
}
