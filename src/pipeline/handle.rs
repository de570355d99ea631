//! Handles on buttons: 128 bits that only this installation can make, one per change, revision,
//! person and action. Nothing in a press is believed but its handle and the sender's numeric id.
//!
//! A handle begins with the change's id, so that a press is looked up and not searched for: a flood of forged ones
//! costs the same whatever the journal holds. The id is no secret, and proves nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::change::Change;
use countersign_core::model::ChangeId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Why a person said no, by a button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The target is right, the edit is not.
    WrongFix,
    /// The edit is at the wrong place.
    WrongTarget,
    /// Perhaps later.
    NotNow,
    /// In the person's own words, which follow.
    Other,
}

impl Why {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::WrongFix, Self::WrongTarget, Self::NotNow, Self::Other];

    /// The words on the button.
    pub fn words(self) -> &'static str {
        match self {
            Self::WrongFix => "Wrong fix",
            Self::WrongTarget => "Wrong target",
            Self::NotNow => "Not now",
            Self::Other => "Other",
        }
    }
}

/// What a button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Yes; where a number must follow, the wish to say yes.
    Approve,
    /// Yes, by the number that stands on the card.
    Number(u32),
    /// No.
    Reject,
    /// Why not.
    Reason(Why),
    /// Send the whole diff as a document.
    Diff,
    /// Emergency stop.
    Stop,
    /// Ask again about what expired.
    AskAgain,
    /// Prepare the revert of what failed.
    Revert,
}

impl Action {
    /// Every action that does not depend on a number.
    pub const FIXED: [Self; 10] = [
        Self::Approve,
        Self::Reject,
        Self::Diff,
        Self::Stop,
        Self::AskAgain,
        Self::Revert,
        Self::Reason(Why::WrongFix),
        Self::Reason(Why::WrongTarget),
        Self::Reason(Why::NotNow),
        Self::Reason(Why::Other),
    ];

    /// Name in handle and journal.
    pub fn name(self) -> String {
        match self {
            Self::Approve => "approve".into(),
            Self::Number(n) => format!("number {n}"),
            Self::Reject => "reject".into(),
            Self::Reason(why) => format!("reason {}", why.words()),
            Self::Diff => "diff".into(),
            Self::Stop => "stop".into(),
            Self::AskAgain => "again".into(),
            Self::Revert => "revert".into(),
        }
    }
}

/// Three numbers on buttons, one of which stands on the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// On the buttons.
    pub all: [u32; 3],
    /// On the card.
    pub right: u32,
}

/// The installation's secret, 32 random bytes of the state directory.
#[derive(Clone)]
pub struct HandleKey([u8; 32]);

impl std::fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

/// Characters of 16 bytes in base64 without padding.
const WIDE: usize = 22;

impl HandleKey {
    /// From its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn tag(&self, parts: &[&str]) -> Option<[u8; 16]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().get(..16)?.try_into().ok()
    }

    /// Data of one button, 46 of Telegram's 64 bytes.
    pub fn make(&self, change: &Change, person: &str, action: Action) -> String {
        let tag = self.tag(&[
            "countersign-handle-v2",
            &change.id.to_string(),
            &change.sealed.revision.to_string(),
            &change.sealed.nonce,
            &change.digest.0,
            person,
            &action.name(),
        ]);
        let Some(tag) = tag else { return String::new() };
        format!("c:{}{}", URL_SAFE_NO_PAD.encode(change.id.to_bytes()), URL_SAFE_NO_PAD.encode(tag))
    }

    /// Which change a press claims to be about.
    pub fn change_of(data: &str) -> Option<ChangeId> {
        let rest = data.strip_prefix("c:").filter(|r| r.len() == 2 * WIDE)?;
        let id: [u8; 16] = URL_SAFE_NO_PAD.decode(rest.get(..WIDE)?).ok()?.try_into().ok()?;
        Some(ChangeId::from_bytes(id))
    }

    /// Which button of which person this is, if it is one of ours for this change as it is. Every
    /// candidate is compared in constant time, whether an earlier one fitted or not.
    pub fn find<'a>(&self, change: &'a Change, data: &str) -> Option<(&'a str, Action)> {
        let mut found = None;
        for person in change.decided.approvers.iter().chain(&change.decided.tell) {
            let numbers = change.armed.get(person).and_then(|wrong| self.numbers(change, person, *wrong));
            let numbers = numbers.iter().flat_map(|n| n.all).map(Action::Number);
            for action in Action::FIXED.into_iter().chain(numbers) {
                let own = self.make(change, person, action);
                if !own.is_empty() && bool::from(own.as_bytes().ct_eq(data.as_bytes())) {
                    found = Some((person.as_str(), action));
                }
            }
        }
        found
    }

    /// The numbers of a person after so many wrong ones: always the same, and nobody can foresee them.
    pub fn numbers(&self, change: &Change, person: &str, wrong: u32) -> Option<Numbers> {
        let tag = self.tag(&[
            "countersign-numbers-v1",
            &change.id.to_string(),
            &change.sealed.nonce,
            &change.digest.0,
            person,
            &wrong.to_string(),
        ])?;
        let mut all = Vec::with_capacity(3);
        // 90 numbers of two digits; neighbours of one already drawn are passed over.
        let (draws, last) = tag.split_at(15);
        for d in draws.iter().map(|b| 10 + u32::from(*b) % 90).chain(10..100) {
            if all.len() < 3 && all.iter().all(|a: &u32| a.abs_diff(d) > 1) {
                all.push(d);
            }
        }
        let all: [u32; 3] = all.try_into().ok()?;
        let right = *all.get(usize::from(*last.first()?) % 3)?;
        Some(Numbers { all, right })
    }

    /// Data of the button that is a person's vote to end this very stop.
    pub fn resume(&self, stop: u64, person: &str) -> String {
        self.tag(&["countersign-resume-v1", &stop.to_string(), person])
            .map_or_else(String::new, |t| format!("r:{}", URL_SAFE_NO_PAD.encode(t)))
    }

    /// Whether this is that button.
    pub fn is_resume(&self, stop: u64, person: &str, data: &str) -> bool {
        let own = self.resume(stop, person);
        !own.is_empty() && bool::from(own.as_bytes().ct_eq(data.as_bytes()))
    }
}
