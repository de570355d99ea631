//! What was observed in, verdict out: is this very commit live and working?
//!
//! The input is the format of the recordings ([`Line`]); the live product feeds its watches in the same form.
//! Nothing that an engine says about health is believed: healthy means that the engine has a revision with the
//! commit in force, that the live objects are what was wanted, and that their rollout is finished by their own
//! counts, for a stable window by the clock. What an engine says about failure counts where it is about the commit.

mod argo;
mod flux;
mod helm;
mod judge;
mod line;
mod panel;
mod rev;
mod view;
mod want;
mod words;
mod workload;
mod world;

pub use crate::model::{Code, Verdict};
pub use judge::{Judge, JudgeConfig};
pub use line::{Act, Deliverer, Line, Recorded};
pub use panel::Panel;
pub use words::{VerdictChange, quote};

#[cfg(test)]
mod tests;
