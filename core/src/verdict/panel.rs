//! One commit that several objects deliver, such as the values of two HelmReleases: a judge for each, and one word.

use std::collections::BTreeMap;

use super::judge::{Judge, JudgeConfig};
use super::line::{Deliverer, Line};
use super::words::VerdictChange;
use crate::model::Verdict;

/// Judges that see the same lines, each for a deliverer of its own.
///
/// A commit is healthy when all of them say so and failed when one does; while they differ, the one that is furthest
/// behind is what it waits for. With one deliverer this is that one's [`Judge`].
#[derive(Debug, Clone)]
pub struct Panel {
    judges: Vec<(Deliverer, Judge)>,
    /// By commit: the last word of each judge, and what was told.
    said: BTreeMap<String, Said>,
}

#[derive(Debug, Clone, Default)]
struct Said {
    each: BTreeMap<usize, VerdictChange>,
    told: Option<VerdictChange>,
}

/// What counts first: a failure of one, then what one still waits for, then that somebody else took one's place.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Failed => 0,
        Verdict::Waiting => 1,
        Verdict::Superseded => 2,
        Verdict::Healthy => 3,
    }
}

impl Panel {
    /// A panel for commits that all these objects deliver.
    pub fn new(config: JudgeConfig, deliverers: impl IntoIterator<Item = Deliverer>) -> Self {
        let judges = deliverers.into_iter().map(|d| (d, Judge::new(config))).collect();
        Self { judges, said: BTreeMap::new() }
    }

    /// Takes in one line; the owner that an act names is each judge's own deliverer. See [`Judge::feed`].
    pub fn feed(&mut self, t_ms: i64, line: &Line) -> Vec<VerdictChange> {
        let heard = self.judges.iter_mut().enumerate().map(|(n, (deliverer, judge))| {
            let changes = match line {
                Line::Act(act) if act.owner.is_some() => {
                    let mut act = act.clone();
                    act.owner = Some(deliverer.clone());
                    judge.feed(t_ms, &Line::Act(act))
                }
                line => judge.feed(t_ms, line),
            };
            (n, changes)
        });
        let heard = heard.collect();
        self.agree(heard)
    }

    /// Lets the clock run to `t_ms` with nothing happening. See [`Judge::advance`].
    pub fn advance(&mut self, t_ms: i64) -> Vec<VerdictChange> {
        let heard = self.judges.iter_mut().enumerate().map(|(n, (_, judge))| (n, judge.advance(t_ms))).collect();
        self.agree(heard)
    }

    /// When a verdict may change with no event.
    pub fn next_deadline(&self) -> Option<i64> {
        self.judges.iter().filter_map(|(_, judge)| judge.next_deadline()).min()
    }

    fn agree(&mut self, heard: Vec<(usize, Vec<VerdictChange>)>) -> Vec<VerdictChange> {
        let mut all: Vec<(usize, VerdictChange)> =
            heard.into_iter().flat_map(|(n, changes)| changes.into_iter().map(move |c| (n, c))).collect();
        // In the order of time: what one judge said a while ago is not the answer to what another says now.
        all.sort_by_key(|(_, change)| change.t);
        let judges = self.judges.len();
        let mut out = Vec::new();
        for (n, mut change) in all {
            // Which of several is failed or waited for is the first thing to know.
            if let Some((deliverer, _)) = self.judges.get(n)
                && judges > 1
                && matches!(change.verdict, Verdict::Failed | Verdict::Waiting)
            {
                change.say = format!("{deliverer}: {}", change.say);
            }
            let said = self.said.entry(change.commit.clone()).or_default();
            let t = change.t;
            said.each.insert(n, change);
            if said.each.len() < judges {
                // Who has not spoken has not seen the commit yet. A failure needs nobody else.
                let failed = said.each.values().any(|c| c.verdict == Verdict::Failed);
                if !failed {
                    continue;
                }
            }
            let Some(word) = said.each.values().min_by_key(|c| rank(c.verdict)) else { continue };
            let same =
                |told: &VerdictChange| (told.verdict, told.code, &told.say) == (word.verdict, word.code, &word.say);
            if !said.told.as_ref().is_some_and(same) {
                let word = VerdictChange { t, ..word.clone() };
                said.told = Some(word.clone());
                out.push(word);
            }
        }
        out
    }
}
