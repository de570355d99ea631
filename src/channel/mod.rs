//! Channels that ask and tell people.

pub mod telegram;
pub mod webhook;
