//! How many proposals of one agent are looked at: each costs a look at cluster and repository, and a proof. What is
//! asked of people has limits of its own; without this one, an agent that is refused by those could still slow others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use countersign_core::{Problem, Result};

/// The time that is looked at, milliseconds.
const MINUTE: i64 = 60_000;

/// When each agent proposed lately.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    lately: Mutex<BTreeMap<String, VecDeque<i64>>>,
}

impl Pace {
    /// Counts a proposal, or refuses it. `now`: milliseconds.
    ///
    /// # Errors
    /// `load.too_many_proposals`, with when to come back.
    pub fn step(&self, agent: &str, now: i64, most: usize) -> Result<()> {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let times = lately.entry(agent.to_owned()).or_default();
        while times.front().is_some_and(|at| now - at >= MINUTE || *at > now) {
            times.pop_front();
        }
        if times.len() < most {
            times.push_back(now);
            return Ok(());
        }
        let wait = times.front().map_or(MINUTE, |at| MINUTE - (now - at));
        let seconds = u64::try_from(wait).unwrap_or(0).div_ceil(1000).max(1);
        Err(Problem::new(
            "load.too_many_proposals",
            format!("This agent proposed {} changes within a minute.", times.len()),
            format!("Wait {seconds} s, and put edits that belong together into one change."),
        )
        .later()
        .retry_after(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_minute_pass_and_another_agent_is_not_affected() {
        let pace = Pace::default();
        for n in 0..3 {
            pace.step("a", n * 1000, 3).unwrap();
        }
        let refused = pace.step("a", 3000, 3).unwrap_err();
        assert_eq!((refused.code.as_ref(), refused.retry_after_s()), ("load.too_many_proposals", Some(57)));
        pace.step("b", 3000, 3).unwrap();
        assert!(pace.step("a", 59_999, 3).is_err(), "what was refused is not counted, what was let in is");
        pace.step("a", 60_000, 3).unwrap();
        assert!(pace.step("a", 60_500, 3).is_err());
        pace.step("a", 61_000, 3).unwrap();
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let pace = Pace::default();
        pace.step("a", 10_000_000, 1).unwrap();
        pace.step("a", 0, 1).unwrap();
    }
}
