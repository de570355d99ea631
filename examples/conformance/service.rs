//! A product that manages nothing.

use async_trait::async_trait;
use countersign::server::Service;
use countersign_core::model::{
    CancelArgs, ChangeAnswer, ChangeArgs, ChangesAnswer, ChangesArgs, InspectAnswer, InspectArgs, OperateArgs, Outcome,
    Principal, RollbackArgs,
};
use countersign_core::{Problem, Result};
use tokio::sync::mpsc;

/// Answers every call truthfully: there is nothing.
pub struct Nothing;

fn nothing<T>() -> Result<T> {
    Err(Problem::new("change.unknown", "Nothing is managed here.", "Use the product.").never())
}

#[async_trait]
impl Service for Nothing {
    async fn inspect(&self, _: &Principal, _: InspectArgs) -> Result<InspectAnswer> {
        Ok(InspectAnswer::new(Outcome::Found, "Nothing is managed here."))
    }

    async fn operate(&self, _: &Principal, _: OperateArgs) -> Result<ChangeAnswer> {
        nothing()
    }

    async fn change(&self, _: &Principal, _: ChangeArgs, _: mpsc::Sender<String>) -> Result<ChangeAnswer> {
        nothing()
    }

    async fn changes(&self, _: &Principal, _: ChangesArgs) -> Result<ChangesAnswer> {
        let summary = "Nothing is managed here.".to_owned();
        Ok(ChangesAnswer {
            outcome: Outcome::Found,
            summary,
            changes: Vec::new(),
            cursor: None,
            problem: None,
            next: None,
        })
    }

    async fn cancel(&self, _: &Principal, _: CancelArgs) -> Result<ChangeAnswer> {
        nothing()
    }

    async fn rollback(&self, _: &Principal, _: RollbackArgs) -> Result<ChangeAnswer> {
        nothing()
    }
}
