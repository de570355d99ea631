//! What a change does outside, and how it can end.

use serde::{Deserialize, Serialize};

/// An outside effect; each is bracketed by [`Body::Intent`](super::Body::Intent) and [`Body::Done`](super::Body::Done) or [`Body::Failed`](super::Body::Failed).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Send the card to one person.
    Ask {
        /// Person.
        person: String,
    },
    /// Push the commit to the followed branch.
    PushTarget,
    /// Push the commit to the change's own branch.
    PushBranch,
    /// Open the pull request.
    OpenPullRequest,
    /// Merge the pull request.
    Merge,
    /// Comment on and close the pull request (rejected, expired, cancelled).
    ClosePullRequest,
    /// Delete the change's own branch, once nothing needs it any more.
    DeleteBranch,
    /// Ask the engine to look now.
    Hint,
    /// Ask it once more, because it took the first hint and has not noticed the commit.
    HintAgain,
    /// Edit a card to its final words.
    SettleCard {
        /// Person.
        person: String,
        /// `closed` and the like: what of the change the card shows. Each is done once.
        phase: String,
    },
    /// Tell one person something new, with sound.
    Notify {
        /// Person.
        person: String,
        /// What about (`proposed`, `ended`, `held`, `late`, `why`, `no_revert`, `glass`, `remind1`…).
        about: String,
    },
}

impl Effect {
    /// Name without arguments, as fault points and logs use it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ask { .. } => "ask",
            Self::PushTarget => "push_target",
            Self::PushBranch => "push_branch",
            Self::OpenPullRequest => "open_pull_request",
            Self::Merge => "merge",
            Self::ClosePullRequest => "close_pull_request",
            Self::DeleteBranch => "delete_branch",
            Self::Hint | Self::HintAgain => "hint",
            Self::SettleCard { .. } => "settle_card",
            Self::Notify { .. } => "notify",
        }
    }

    /// Every name.
    pub const NAMES: [&'static str; 10] = [
        "ask",
        "push_target",
        "push_branch",
        "open_pull_request",
        "merge",
        "close_pull_request",
        "delete_branch",
        "hint",
        "settle_card",
        "notify",
    ];
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Synced and healthy.
    Healthy,
    /// Delivered, and failed for good.
    Failed,
    /// Delivered, and not decided within the time allowed.
    TimedOut,
    /// A later commit took its place.
    Superseded,
    /// A person said no.
    Rejected,
    /// Nobody said yes in time.
    Expired,
    /// Withdrawn by agent or person.
    Cancelled,
    /// What was approved is no longer what would be done.
    Stale,
    /// It could not be delivered.
    Undelivered,
    /// Manual, and nobody committed it in time.
    Abandoned,
}
