//! Rules in, decision out.
//!
//! A policy is a set of files. Every rule that matches counts: the strictest level and the
//! strictest of each obligation. `default` counts only where no rule matches, and without one
//! the answer is deny. Whatever is unclear (a label that two sources disagree on, a group without
//! people) moves the decision to the strict side and says so in [`Decision::why`].

mod bounds;
mod cases;
mod check;
mod condition;
mod decide;
mod explain;
mod facts;
mod file;
mod freeze;
mod matching;
mod people;
mod privileged;
mod quota;
mod raw;
mod replay;
pub mod risk;
mod rule;
mod samples;
mod schema;
#[cfg(test)]
mod tests;
mod values;
mod words;

pub use cases::{TestOutcome, run_tests, stand_ins};
pub use check::{Finding, Known, Severity, check, check_names};
pub use condition::Condition;
pub use decide::{Decision, decide, tightened};
pub use explain::explain;
pub use facts::{Facts, Target};
pub use freeze::Freeze;
pub use people::shared_identity;
pub use privileged::privileged;
pub use quota::{By, Counts, DAY_MS, Past, Quota, count};
pub use replay::{Replayed, Summary, replay};
pub use rule::{Approve, Caps, Match, OnBaseMove, PolicySet, Rule};
pub use schema::{call, schema};
pub use values::Values;
pub use words::{asks, delivery_word, level_word};
