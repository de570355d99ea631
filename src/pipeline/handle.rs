//! Handles on buttons: 128 bits that only this installation can make, one per change, revision,
//! person and action. Nothing in a press is believed but its handle and the sender's numeric id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::change::Change;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What a button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Yes.
    Approve,
    /// No.
    Reject,
    /// Send the whole diff as a document.
    Diff,
    /// Emergency stop.
    Stop,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Approve, Self::Reject, Self::Diff, Self::Stop];

    /// Name in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Diff => "diff",
            Self::Stop => "stop",
        }
    }
}

/// The installation's secret, 32 random bytes of the state directory.
#[derive(Clone)]
pub struct HandleKey([u8; 32]);

impl std::fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

impl HandleKey {
    /// From its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Data of one button, 24 of Telegram's 64 bytes.
    pub fn make(&self, change: &Change, person: &str, action: Action) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        for part in [
            "countersign-handle-v1",
            &change.id.to_string(),
            &change.sealed.revision.to_string(),
            &change.sealed.nonce,
            &change.digest.0,
            person,
            action.name(),
        ] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let tag = mac.finalize().into_bytes();
        format!("c:{}", URL_SAFE_NO_PAD.encode(tag.get(..16).unwrap_or_default()))
    }

    /// Which button of which person this is, if it is one of ours for this change. Every
    /// candidate is compared in constant time, whether an earlier one fitted or not.
    pub fn find<'a>(&self, change: &'a Change, data: &str) -> Option<(&'a str, Action)> {
        let mut found = None;
        for person in &change.decided.approvers {
            for action in Action::ALL {
                let own = self.make(change, person, action);
                if !own.is_empty() && bool::from(own.as_bytes().ct_eq(data.as_bytes())) {
                    found = Some((person.as_str(), action));
                }
            }
        }
        found
    }
}
