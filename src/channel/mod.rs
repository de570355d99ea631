//! Channels that ask and tell people, and those that tell other systems.

pub mod telegram;
#[cfg(feature = "otel")]
pub mod traces;
pub mod webhook;
