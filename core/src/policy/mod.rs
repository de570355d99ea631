//! Rules in, decision out.
//!
//! A policy is a set of files. Every rule that matches counts: the strictest level and the
//! strictest of each obligation. `default` counts only where no rule matches, and without one
//! the answer is deny. Whatever is unclear (a label that two sources disagree on, a group without
//! people) moves the decision to the strict side and says so in [`Decision::why`].

mod check;
mod decide;
mod explain;
mod file;
mod privileged;
pub mod risk;
mod rule;
#[cfg(test)]
mod tests;
mod words;

pub use check::{Finding, Known, Severity, TestOutcome, check, check_names, run_tests};
pub use decide::{Decision, Facts, Target, decide, level_word, tightened};
pub use explain::explain;
pub use privileged::privileged;
pub use rule::{Approve, Caps, Match, OnBaseMove, PolicySet, Rule};
pub use words::asks;
