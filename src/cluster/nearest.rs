//! Names that may have been meant.

/// The candidates nearest to a word, best first, at most `most`; far-fetched ones are left out.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>, most: usize) -> Vec<String> {
    let wanted = word.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(2);
    let mut found: Vec<(usize, &str)> = candidates
        .map(|c| {
            let lower = c.to_lowercase();
            let contained = lower.contains(&wanted) || (lower.len() > 3 && wanted.contains(&lower));
            (if contained { 1 } else { distance(&wanted, &lower) }, c)
        })
        .filter(|(d, _)| *d <= limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(most).map(|(_, c)| c.to_owned()).collect()
}

/// Edits between two words, by the textbook recurrence with one row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            let best = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            left = best;
            *cell = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn near_names_come_first_and_far_ones_not_at_all() {
        let names = ["replicas", "revisionHistoryLimit", "selector", "template"];
        assert_eq!(nearest("replcas", names.into_iter(), 3), ["replicas"]);
        assert_eq!(nearest("deployment", ["Deployment", "DaemonSet"].into_iter(), 3), ["Deployment"]);
        assert!(nearest("zzzzzz", names.into_iter(), 3).is_empty());
    }
}
