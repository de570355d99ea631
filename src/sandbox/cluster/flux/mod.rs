//! stub
use super::Shared;
/// x
pub fn prepare(_: &Shared) {}
/// x
pub async fn run(_: Shared) {}
