//! What the faces need from the product.

use async_trait::async_trait;
use countersign_core::Result;
use countersign_core::model::{
    CancelArgs, ChangeAnswer, ChangeArgs, ChangesAnswer, ChangesArgs, InspectAnswer, InspectArgs, OperateArgs,
    Principal, RollbackArgs,
};
use tokio::sync::mpsc;

/// The product, as agents see it. Two implementors: the pipeline, and the fixture of the conformance suite.
///
/// `who` is authenticated before it gets here. Every method shows and touches only what `who` may see; a change
/// of another principal is answered with the same problem as one that does not exist. Calls that write are run
/// to their end by the face even when the client has gone. Cursors never contain `~`: the face adds its own to them.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Facts about one live object, or a listing. Pages of `items` are stable enough that the same cursor gives
    /// the same page again within seconds.
    async fn inspect(&self, who: &Principal, args: InspectArgs) -> Result<InspectAnswer>;

    /// Asks for a change.
    async fn operate(&self, who: &Principal, args: OperateArgs) -> Result<ChangeAnswer>;

    /// One change's story. Waits up to `wait_s` (0 to 45) for news and meanwhile sends one sentence per step to
    /// `progress`; a full or closed channel is no error.
    async fn change(&self, who: &Principal, args: ChangeArgs, progress: mpsc::Sender<String>) -> Result<ChangeAnswer>;

    /// Changes, newest first.
    async fn changes(&self, who: &Principal, args: ChangesArgs) -> Result<ChangesAnswer>;

    /// Withdraws an open change.
    async fn cancel(&self, who: &Principal, args: CancelArgs) -> Result<ChangeAnswer>;

    /// Asks for a change that undoes a landed one.
    async fn rollback(&self, who: &Principal, args: RollbackArgs) -> Result<ChangeAnswer>;

    /// Whether calls can be served: the reason if not. Behind `/readyz`.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Everything measured, in the OpenMetrics text format. Behind `/metrics`.
    async fn metrics(&self) -> String {
        String::new()
    }
}
