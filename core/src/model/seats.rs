//! Votes of people who must each answer for another group: a person in several groups answers for one of them only.

use std::collections::{BTreeMap, BTreeSet};

use super::Decided;

/// For how many different groups these people can answer at once, given the groups of each: the size of a maximum
/// bipartite matching, found by augmenting paths (groups are few).
pub fn seats(people: &[Vec<&str>]) -> usize {
    let mut taken = BTreeMap::new();
    (0..people.len()).filter(|person| seat(*person, people, &mut taken, &mut BTreeSet::new())).count()
}

/// Seats a person, moving those who sit already where that helps.
fn seat<'g>(
    person: usize,
    people: &[Vec<&'g str>],
    taken: &mut BTreeMap<&'g str, usize>,
    seen: &mut BTreeSet<&'g str>,
) -> bool {
    for group in people.get(person).into_iter().flatten().copied() {
        if !seen.insert(group) {
            continue;
        }
        let sitting = taken.get(group).copied();
        if sitting.is_none_or(|other| seat(other, people, taken, seen)) {
            taken.insert(group, person);
            return true;
        }
    }
    false
}

/// Groups of which one person more would be one vote more.
pub fn unanswered<'g>(people: &[Vec<&'g str>], groups: &'g [String]) -> Vec<&'g str> {
    let have = seats(people);
    let helps = |group: &&str| {
        let mut more = people.to_vec();
        more.push(vec![*group]);
        seats(&more) > have
    };
    groups.iter().map(String::as_str).filter(helps).collect()
}

impl Decided {
    /// How many of the needed votes these people's yes amounts to, by the groups that they had when they were asked.
    /// Whoever was not asked answers for no group.
    pub fn votes<'p>(&self, people: impl IntoIterator<Item = &'p str>) -> usize {
        let people: BTreeSet<&str> = people.into_iter().collect();
        if self.quorum.different_groups { seats(&self.answering(&people)) } else { people.len() }
    }

    /// Groups of which a yes is still good for something; none where groups do not matter, or nothing is needed.
    pub fn still_asked<'p>(&self, people: impl IntoIterator<Item = &'p str>) -> Vec<String> {
        let people: BTreeSet<&str> = people.into_iter().collect();
        let answering = self.answering(&people);
        if !self.quorum.different_groups || seats(&answering) >= self.quorum.count as usize {
            return Vec::new();
        }
        unanswered(&answering, &self.quorum.groups).into_iter().map(str::to_owned).collect()
    }

    fn answering(&self, people: &BTreeSet<&str>) -> Vec<Vec<&str>> {
        let of = |p: &&str| self.answers.get(*p).into_iter().flatten().map(String::as_str).collect();
        people.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUPS: [&str; 4] = ["a", "b", "c", "d"];

    /// By trying everything: the most people who can each be given a group of their own.
    fn tried(people: &[Vec<&str>], free: &[&str]) -> usize {
        let Some((first, rest)) = people.split_first() else { return 0 };
        let seated = first.iter().filter(|g| free.contains(g)).map(|g| {
            let left: Vec<&str> = free.iter().copied().filter(|f| f != g).collect();
            1 + tried(rest, &left)
        });
        seated.max().unwrap_or(0).max(tried(rest, free))
    }

    #[test]
    fn people_of_one_group_are_one_vote_however_many_they_are() {
        assert_eq!(seats(&[]), 0);
        assert_eq!(seats(&[vec![], vec![]]), 0);
        assert_eq!(seats(&[vec!["a"], vec!["a"], vec!["a"]]), 1);
        assert_eq!(seats(&[vec!["a"], vec!["b"]]), 2);
    }

    #[test]
    fn a_person_in_two_groups_answers_for_one_of_them_and_for_the_better_one() {
        assert_eq!(seats(&[vec!["a", "b"]]), 1);
        assert_eq!(seats(&[vec!["a", "a"]]), 1);
        // Whoever came first moves over for whoever can sit nowhere else.
        assert_eq!(seats(&[vec!["a", "b"], vec!["a"]]), 2);
        assert_eq!(seats(&[vec!["a", "b"], vec!["b", "c"], vec!["a"], vec!["b"]]), 3);
    }

    #[test]
    fn unanswered_is_whom_one_more_person_would_help() {
        let groups = ["a".to_owned(), "b".to_owned()];
        assert_eq!(unanswered(&[], &groups), ["a", "b"]);
        assert_eq!(unanswered(&[vec!["a"]], &groups), ["b"]);
        assert_eq!(unanswered(&[vec!["a", "b"]], &groups), ["a", "b"], "either will do");
        assert_eq!(unanswered(&[vec!["a"], vec!["b"]], &groups), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn as_many_sit_as_can_by_trying_everything(sets in prop::collection::vec(prop::sample::subsequence(GROUPS.to_vec(), 0..=4), 0..6)) {
            prop_assert_eq!(seats(&sets), tried(&sets, &GROUPS));
        }
    }
}
