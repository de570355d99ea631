//! What people ask on the machine itself: pending, show, vote, stop, resume, status, reload.

use std::sync::Arc;

use countersign_core::message;
use countersign_core::model::Body;
use countersign_core::{Problem, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::press::resume_entries;
use super::{Pipeline, unknown_change};
use crate::config::Config;
use crate::git::{NAMESPACE_APPROVAL, verify};
use crate::journal::Entry;

/// What the command line asks of the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// What waits for a person.
    Pending,
    /// The card and the sealed bytes of one change.
    Show {
        /// Id or short name.
        change: String,
    },
    /// A signed vote.
    Vote {
        /// Id or short name.
        change: String,
        /// Yes or no.
        approve: bool,
        /// Reason for no.
        reason: Option<String>,
        /// Armoured signature over [`vote_text`].
        signature: String,
    },
    /// One signed yes that suffices.
    BreakGlass {
        /// Id or short name.
        change: String,
        /// Why.
        reason: String,
        /// Armoured signature over [`glass_text`].
        signature: String,
    },
    /// What another person found about a change that left like that.
    Review {
        /// Id or short name.
        change: String,
        /// What they found.
        note: String,
        /// Armoured signature over [`review_text`].
        signature: String,
    },
    /// Emergency stop.
    Stop {
        /// Why.
        reason: String,
    },
    /// Text that a resume must sign.
    ResumeText,
    /// End of the stop.
    Resume {
        /// Why.
        reason: String,
        /// Armoured signature over the text that `ResumeText` gave.
        signature: String,
    },
    /// Is it up, and what does it do.
    Status,
    /// A fresh pairing code for a person.
    PairBegin {
        /// Person.
        person: String,
    },
    /// Whether somebody sent it.
    PairState {
        /// Person.
        person: String,
    },
    /// Load the configuration anew; a bad one is refused and the last good one stays.
    Reload,
    /// Stop the daemon itself.
    Shutdown,
}

/// What a signature on a vote covers.
pub fn vote_text(approve: bool, digest: &str) -> String {
    format!("{} {digest}\n", if approve { "approve" } else { "reject" })
}

/// What a signature covers that lets one yes suffice.
pub fn glass_text(digest: &str, reason: &str) -> String {
    format!("break-glass {digest}\n{reason}\n")
}

/// What a signature on a review covers.
pub fn review_text(digest: &str, note: &str) -> String {
    format!("review {digest}\n{note}\n")
}

impl Pipeline {
    /// Answers one request of the command line.
    pub async fn control(self: &Arc<Self>, request: Request) -> Result<Value> {
        match request {
            Request::Pending => Ok(self.pending().await),
            Request::Show { change } => {
                let id = self.resolve(&change).await?;
                let c = self.journal.change(id).await.ok_or_else(unknown_change)?;
                Ok(
                    json!({"change": id.to_string(), "sealed": c.canonical, "digest": c.digest.0, "diff": message::document(&self.card_facts(&c)).text}),
                )
            }
            Request::Vote { change, approve, reason, signature } => {
                let id = self.resolve(&change).await?;
                let c = self.journal.change(id).await.ok_or_else(unknown_change)?;
                let person = self.signer_of(&vote_text(approve, &c.digest.0), &signature)?;
                let reason = reason.map(|r| message::escape_visible(&self.redactor.redact_text(&r)));
                self.vote_signed(id, &person, approve, reason, signature).await?;
                Ok(
                    json!({"say": format!("{} {} by {person}.", c.name(), if approve { "approved" } else { "rejected" })}),
                )
            }
            Request::BreakGlass { change, reason, signature } => self.break_glass(&change, reason, signature).await,
            Request::Review { change, note, signature } => self.review(&change, note, signature).await,
            Request::Stop { reason } => {
                let reason = self.redactor.redact_text(&reason);
                self.stop("person:local", &reason).await?;
                Ok(json!({"say": "Stopped: nothing leaves until someone resumes."}))
            }
            Request::ResumeText => Ok(json!({"text": self.resume_text().await?})),
            Request::Resume { reason, signature } => {
                let person = self.signer_of(&self.resume_text().await?, &signature)?;
                let reason = self.redactor.redact_text(&reason);
                let needed = self.config.load().resume_needed();
                let (new, agreed) = self
                    .journal
                    .transact(self.clock.now_ms(), &[], |v| {
                        let mut agreed: Vec<String> = v.resuming.iter().cloned().collect();
                        if v.stopped.is_none() || agreed.contains(&person) {
                            return Ok(((false, agreed), Vec::new()));
                        }
                        agreed.push(person.clone());
                        let (over, proof) = (agreed.len() >= needed, Some(signature.clone()));
                        let entries = resume_entries(&person, "ssh", v.stop_seq(), proof, over, &reason);
                        Ok(((true, agreed), entries))
                    })
                    .await?;
                let over = agreed.len() >= needed;
                if new {
                    self.tell_resume(&person, over, &reason).await;
                }
                let say = if over {
                    format!("Resumed by {}.", agreed.join(" and "))
                } else {
                    format!(
                        "{person} wants to resume; {needed} people must. Another one says so with `countersign resume`, or /resume in the chat."
                    )
                };
                Ok(json!({"say": say, "resumed": over}))
            }
            Request::Status => Ok(self.status().await),
            Request::PairBegin { person } => self.pair_begin(&person).await,
            Request::PairState { person } => Ok(self.pair_state(&person)),
            Request::Reload => self.reload(),
            Request::Shutdown => Ok(json!({})),
        }
    }

    /// Emergency stop. Stopping twice is one stop.
    pub async fn stop(self: &Arc<Self>, actor: &str, reason: &str) -> Result<()> {
        let first = self
            .journal
            .transact(self.clock.now_ms(), &[], |v| {
                if v.stopped.is_some() {
                    return Ok((false, Vec::new()));
                }
                Ok((true, vec![Entry::global(actor, Body::Stopped { reason: reason.to_owned() })]))
            })
            .await?;
        if first {
            let by =
                if actor == "person:local" { "somebody on the machine" } else { actor.trim_start_matches("person:") };
            self.tell_stop(true, by, reason);
        }
        Ok(())
    }

    /// What a resume signs: it names this very stop, so that an old signature ends no new one.
    async fn resume_text(&self) -> Result<String> {
        let head = self.journal.read(|v| v.stopped.clone().map(|s| (s, v.stop_seq()))).await;
        match head {
            Some((_, seq)) => Ok(format!("resume {seq}\n")),
            None => {
                Err(Problem::new("control.not_stopped", "The emergency stop is not on.", "There is nothing to resume."))
            }
        }
    }

    /// The person whose listed key made this signature.
    pub(super) fn signer_of(&self, text: &str, signature: &str) -> Result<String> {
        let config = self.config.load();
        for p in &config.people {
            if !p.spec.ssh_keys.is_empty()
                && verify(NAMESPACE_APPROVAL, text.as_bytes(), signature, &p.spec.ssh_keys).is_ok()
            {
                return Ok(p.name.clone());
            }
        }
        Err(Problem::new(
            "approve.unknown_key",
            "The signature is by no key of a listed person, or over something else.",
            "Sign with a key that is in `ssh_keys` of a Person; show the change again and sign what it is now.",
        ))
    }

    /// Loads the configuration anew. People, agents and policies take effect at once; clusters,
    /// repositories and channels need a restart. A bad one is refused and the last good one stays.
    pub fn reload(self: &Arc<Self>) -> Result<Value> {
        let Some(path) = &self.config_path else {
            return Err(Problem::new(
                "config.no_file",
                "The daemon was started without a configuration file.",
                "Restart it.",
            ));
        };
        let fresh = Config::load(path)?;
        (self.on_reload)(&fresh)?;
        let before = self.config.load().people.iter().map(|p| (p.name.clone(), p.spec.telegram)).collect();
        self.config.store(Arc::new(fresh));
        self.tell_accounts(before);
        Ok(
            json!({"say": "Reloaded: people, agents and policies are in effect; clusters, repositories and channels need a restart."}),
        )
    }
}
