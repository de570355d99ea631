//! Pull requests at GitHub and Gitea/Forgejo.
//!
//! Reads are free; every write takes an [`Authorization`]. What a forge answers is read leniently
//! and by our own small structures; after a write whose answer could not be read the problem is
//! `forge.unknown_outcome`, and the caller looks again before it does anything else.

mod answer;
mod gitea;
mod github;
mod standing;
#[cfg(test)]
mod tests;
mod wire;

use async_trait::async_trait;
use countersign_core::Result;
use countersign_core::gate::Authorization;
use countersign_core::model::{ForgeKind, ForgeSpec, MergeMethod};
use secrecy::SecretString;

/// State of a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    /// Open.
    Open,
    /// Merged.
    Merged,
    /// Closed without a merge.
    Closed,
}

/// A pull request as the forge has it now. Logins are names at the forge, not people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Number.
    pub number: u64,
    /// Page for people.
    pub url: String,
    /// State.
    pub state: PullState,
    /// Branch that is to be merged.
    pub head_branch: String,
    /// Commit at its tip.
    pub head_sha: String,
    /// Branch that it goes to.
    pub base: String,
    /// Commit that the merge made; only where merged.
    pub merge_commit: Option<String>,
    /// Login of who merged; only where merged and told.
    pub merged_by: Option<String>,
    /// Login of who closed; only where closed and told.
    pub closed_by: Option<String>,
    /// Whether it can be merged; `None` = the forge has not worked it out yet.
    pub mergeable: Option<bool>,
}

/// A pull request to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPull {
    /// Title.
    pub title: String,
    /// Body, markdown.
    pub body: String,
    /// Branch that is to be merged, without `refs/heads/`.
    pub head: String,
    /// Branch that it goes to, without `refs/heads/`.
    pub base: String,
}

/// A merge to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Pull request.
    pub number: u64,
    /// The head that was approved; another one is refused.
    pub expected_head: String,
    /// How.
    pub method: MergeMethod,
    /// First line of the commit.
    pub title: String,
    /// Rest of the message, with trailers.
    pub message: String,
}

/// What the token may do with the repository, as far as the forge says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// It may push.
    pub may_push: Option<bool>,
    /// It is an administrator: more than is needed.
    pub is_admin: bool,
    /// The repository takes no changes any more.
    pub archived: bool,
    /// Scopes of a token that has some (GitHub's classic ones).
    pub scopes: Vec<String>,
    /// When the token expires, as the forge writes it.
    pub expires: Option<String>,
    /// The forge's clock, milliseconds, whole seconds only.
    pub now_ms: Option<i64>,
}

/// What rules a branch has, as far as the token may see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BranchStanding {
    /// Some rule protects it.
    pub protected: bool,
    /// The token's account may push to it; `None` = the forge does not say.
    pub may_push: Option<bool>,
    /// The token's account may merge into it; `None` = the forge does not say.
    pub may_merge: Option<bool>,
    /// Names of the rules.
    pub rules: Vec<String>,
}

/// A forge, for one repository.
///
/// Errors of all methods: `forge.auth`, `forge.not_found`, `forge.rate_limited` (later),
/// `forge.unreachable` (later), `forge.redirected`, `forge.unexpected`; of the writes also
/// `forge.rejected` and `forge.unknown_outcome` (later; look again first).
#[async_trait]
pub trait Forge: Send + Sync {
    /// The pull request from `head_branch` to `base`: the open one, else the newest.
    async fn find_pull(&self, head_branch: &str, base: &str) -> Result<Option<Pull>>;
    /// What the token may do with the repository.
    async fn standing(&self) -> Result<Standing>;
    /// What rules a branch has.
    async fn branch_standing(&self, branch: &str) -> Result<BranchStanding>;
    /// One pull request.
    async fn pull(&self, number: u64) -> Result<Pull>;
    /// Opens a pull request, or adopts the open one from the same branch.
    async fn open_pull(&self, authorization: &Authorization, new: &NewPull) -> Result<Pull>;
    /// Writes a comment on what is about to be closed.
    async fn comment(&self, authorization: &Authorization, number: u64, text: &str) -> Result<()>;
    /// Merges, and gives the merge's commit. One that is merged already with that head is a success.
    ///
    /// Errors: `forge.head_moved`, `forge.not_mergeable` (later while the forge still works it out).
    async fn merge(&self, authorization: &Authorization, merge: &Merge) -> Result<String>;
    /// Closes without a merge.
    async fn close(&self, authorization: &Authorization, number: u64) -> Result<()>;
}

/// Makes the client of a configured forge. Contacts nobody; needs a running tokio runtime.
///
/// Errors: `forge.config`.
pub fn connect(spec: &ForgeSpec, token: SecretString) -> Result<Box<dyn Forge>> {
    let place = wire::Place::new(spec, token)?;
    Ok(match spec.kind {
        ForgeKind::Github => Box::new(github::GitHub::new(place)?),
        ForgeKind::Gitea => Box::new(gitea::Gitea::new(place)?),
    })
}

/// The operations without the proof. Private to this folder: outside, only [`Forge`] is seen.
#[async_trait]
trait Operations: Send + Sync {
    async fn find(&self, head_branch: &str, base: &str) -> Result<Option<Pull>>;
    async fn read(&self, number: u64) -> Result<Pull>;
    async fn look(&self) -> Result<Standing>;
    async fn look_at(&self, branch: &str) -> Result<BranchStanding>;
    async fn open(&self, new: &NewPull) -> Result<Pull>;
    async fn say(&self, number: u64, text: &str) -> Result<()>;
    async fn land(&self, merge: &Merge) -> Result<String>;
    async fn shut(&self, number: u64) -> Result<()>;
}

#[async_trait]
impl<T: Operations> Forge for T {
    async fn find_pull(&self, head_branch: &str, base: &str) -> Result<Option<Pull>> {
        self.find(head_branch, base).await
    }
    async fn standing(&self) -> Result<Standing> {
        self.look().await
    }
    async fn branch_standing(&self, branch: &str) -> Result<BranchStanding> {
        self.look_at(branch).await
    }
    async fn pull(&self, number: u64) -> Result<Pull> {
        self.read(number).await
    }
    async fn open_pull(&self, authorization: &Authorization, new: &NewPull) -> Result<Pull> {
        authorization.permits_proposal()?;
        self.open(new).await
    }
    async fn comment(&self, authorization: &Authorization, number: u64, text: &str) -> Result<()> {
        authorization.permits_withdrawal()?;
        self.say(number, text).await
    }
    async fn merge(&self, authorization: &Authorization, merge: &Merge) -> Result<String> {
        authorization.permits_merge()?;
        self.land(merge).await
    }
    async fn close(&self, authorization: &Authorization, number: u64) -> Result<()> {
        authorization.permits_withdrawal()?;
        self.shut(number).await
    }
}
