//! propose -> plan -> decide -> approve -> commit -> deliver -> observe -> record.
//!
//! The only place that orders effects. Each verb is one file; [`run`] drives one worker per
//! change, which asks `countersign_core::change::next` for the single next step.

mod adopt;
mod again;
mod approve;
mod card;
mod commit;
mod control;
mod decide;
mod deliver;
mod effect;
mod events;
pub mod fault;
mod found;
mod glass;
pub mod greet;
pub mod handle;
mod inspect;
pub mod meters;
mod observe;
mod pace;
pub mod pairing;
mod plan;
pub mod press;
mod propose;
mod prove;
mod record;
mod revert;
mod run;
mod scope;
mod seal;
mod source;
mod status;
mod story;
mod turns;

pub use control::{Request as ControlRequest, glass_text, review_text, vote_text};
pub use events::Feed;
pub use status::engine_name;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use arc_swap::ArcSwap;
use countersign_core::change::{Change, Limits};
use countersign_core::model::{MergeMethod, OwnerRef};
use countersign_core::secrets::Redactor;
use countersign_core::{Problem, Result};

use crate::channel::telegram::Telegram;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::forge::Forge;
use crate::git::{GitRepo, SshSigner};
use crate::journal::Journal;
use crate::render::Kustomize;
use handle::HandleKey;

/// Actor of what Countersign does by itself.
pub(crate) const ACTOR: &str = "countersign";

/// Takes a new configuration on; an error refuses it.
pub type OnReload = Box<dyn Fn(&Config) -> Result<()> + Send + Sync>;

/// A repository of the configuration, with its mirror and its forge.
pub struct RepoHandle {
    /// Mirror.
    pub git: GitRepo,
    /// Forge and how it merges.
    pub forge: Option<(Box<dyn Forge>, MergeMethod)>,
}

/// What an approved change waits for, and since when.
#[derive(Debug, Clone)]
pub struct Held {
    /// When it began, milliseconds.
    pub since: i64,
    /// What is in the way, as last seen.
    pub problem: Problem,
}

/// Everything that the verbs work with.
pub struct Pipeline {
    /// Configuration; replaced whole on reload.
    pub config: ArcSwap<Config>,
    /// Journal.
    pub journal: Journal,
    /// Clock.
    pub clock: Clock,
    /// Clusters by name.
    pub clusters: BTreeMap<String, Cluster>,
    /// Repositories by name.
    pub repos: BTreeMap<String, RepoHandle>,
    /// The channel, where one is configured.
    pub telegram: Option<Telegram>,
    /// Signs commits.
    pub signer: SshSigner,
    /// Makes and finds the handles of buttons.
    pub handles: HandleKey,
    /// The only way of untrusted text to any sink.
    pub redactor: Redactor,
    /// Renderer, where it is installed.
    pub kustomize: Option<Kustomize>,
    /// File that a reload reads.
    pub config_path: Option<std::path::PathBuf>,
    /// Takes a new configuration to whoever else holds a part of it; an error refuses the reload.
    pub on_reload: OnReload,
    /// Changes that have a worker.
    pub workers: Mutex<BTreeSet<countersign_core::model::ChangeId>>,
    /// Who was told lately who they are.
    pub greeted: greet::Greeted,
    /// Codes that wait for their person.
    pub pairings: pairing::Pairings,
    /// What keeps approved changes from the gate now. Only for telling: each try finds out anew.
    pub held: Mutex<BTreeMap<countersign_core::model::ChangeId, Held>>,
    /// What is measured.
    pub meters: meters::Meters,
    /// How fast each agent proposes.
    pub(crate) pace: pace::Pace,
    /// Who moves which branch now.
    pub(crate) turns: turns::Turns,
    /// Ends the workers.
    pub halt: tokio_util::sync::CancellationToken,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

/// The problem of a change that does not exist, or is not the caller's to see.
pub(crate) fn unknown_change() -> Problem {
    Problem::new("change.unknown", "There is no such change.", "List them with the tool changes.").never()
}

impl Pipeline {
    pub(crate) fn repo(&self, name: &str) -> Result<&RepoHandle> {
        self.repos.get(name).ok_or_else(|| {
            Problem::new(
                "repository.unknown",
                format!("Repository {name} is no longer configured."),
                "Add it to the configuration again, or cancel the change.",
            )
        })
    }

    pub(crate) fn cluster(&self, name: &str) -> Result<&Cluster> {
        self.clusters.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.clusters.keys().map(String::as_str).collect();
            Problem::new(
                "cluster.unknown",
                format!("There is no cluster called {}.", countersign_core::message::escape_name(name)),
                format!(
                    "Use one of: {}.",
                    if known.is_empty() { "none is configured".into() } else { known.join(", ") }
                ),
            )
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        let t = &self.config.load().bootstrap.times;
        let ms = |s: u32| i64::from(s) * 1000;
        Limits {
            observe_ms: ms(t.observe_s),
            failed_grace_ms: ms(t.failed_grace_s),
            deliver_ms: ms(t.deliver_s),
            poll_ms: ms(t.poll_s),
            ..Limits::default()
        }
    }

    /// Who delivers the change's target now, read fresh.
    pub(crate) async fn owner_now(&self, change: &Change) -> Result<OwnerRef> {
        let cluster = self.cluster(&change.proposal.cluster)?;
        if change.proposal.reverts.is_none() && change.proposal.edits.iter().any(|e| e.adopt.is_some()) {
            return self.still_free(change).await;
        }
        let created = change.proposal.edits.iter().any(|e| e.create.is_some());
        if created || change.proposal.reverts.is_some() {
            // A target that is not there yet (or not any more) has no live owner: the owner itself must still be there.
            cluster.owner_object(&change.proposal.owner).await?;
            return Ok(change.proposal.owner.clone());
        }
        let Some(edit) = change.proposal.edits.first() else { return Ok(change.proposal.owner.clone()) };
        let key = cluster.key_of(&edit.target()?).await?;
        source::sole_owner(&cluster.owner_of_fresh(&key).await?.ownership)
    }
}
