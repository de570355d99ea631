//! Which revisions contain which commits, as far as it was told.

use std::collections::{BTreeMap, BTreeSet};

/// Commits and their parents, as the acts named them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ancestry {
    parents: BTreeMap<String, Vec<String>>,
}

/// Bound on the walk through parents: far more than any branch that is watched.
const WALK: usize = 20_000;

impl Ancestry {
    pub(super) fn learn(&mut self, commit: &str, parents: impl IntoIterator<Item = String>) {
        let known = self.parents.entry(commit.to_owned()).or_default();
        for p in parents {
            if p != commit && !known.contains(&p) {
                known.push(p);
            }
        }
    }

    /// Whether anything is known about this revision.
    pub(super) fn knows(&self, rev: &str) -> bool {
        let rev = hash(rev);
        self.parents.contains_key(rev) || self.parents.values().any(|p| p.iter().any(|x| x == rev))
    }

    /// Whether `rev` is `commit` or descends from it. What is unknown does not compare: `false`.
    pub(super) fn contains(&self, commit: &str, rev: &str) -> bool {
        let rev = hash(rev);
        let mut todo = vec![rev];
        let mut seen = BTreeSet::new();
        while let Some(r) = todo.pop() {
            if r == commit {
                return !commit.is_empty();
            }
            if seen.len() > WALK || !seen.insert(r) {
                continue;
            }
            if let Some(p) = self.parents.get(r) {
                todo.extend(p.iter().map(String::as_str));
            }
        }
        false
    }
}

/// The commit id in a revision as Argo CD or Flux writes it: `H`, `branch@sha1:H`, `sha1:H`, or the old `branch/H`
/// (fluxcd/pkg: git/utils.go).
pub(super) fn hash(rev: &str) -> &str {
    let rev = rev.trim();
    let rev = rev.rsplit_once('@').map_or(rev, |(_, h)| h);
    let rev = rev.rsplit_once(':').map_or(rev, |(_, h)| h);
    match rev.rsplit_once('/') {
        Some((_, h)) if h.len() == 40 && h.bytes().all(|b| b.is_ascii_hexdigit()) => h,
        _ => rev,
    }
}

/// The revision that a Flux condition's message speaks of (`Building manifests for revision R with a timeout of 30s`).
pub(super) fn in_message(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("revision")?;
    let token = rest.trim_start_matches([':', ' ']).split_whitespace().next()?;
    let token = token.trim_matches(['\'', '"', ',', '.']);
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_of_both_engines_name_their_commit() {
        let h = "0123456789abcdef0123456789abcdef01234567";
        for r in [
            h.to_owned(),
            format!("main@sha1:{h}"),
            format!("sha1:{h}"),
            format!("feature/a/{h}"),
            format!("feature/x@sha1:{h}"),
        ] {
            assert_eq!(hash(&r), h, "{r}");
        }
        assert_eq!(hash("main"), "main");
    }

    #[test]
    fn a_descendant_contains_its_ancestors_and_not_the_other_way_round() {
        let mut a = Ancestry::default();
        a.learn("b", ["a".to_owned()]);
        a.learn("c", ["b".to_owned(), "x".to_owned()]);
        assert!(a.contains("a", "main@sha1:c") && a.contains("x", "c"));
        assert!(!a.contains("c", "a") && !a.contains("a", "zzz"));
        assert!(a.knows("a") && !a.knows("zzz"));
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let mut a = Ancestry::default();
        a.learn("a", ["b".to_owned()]);
        a.learn("b", ["a".to_owned()]);
        assert!(!a.contains("c", "a"));
    }

    #[test]
    fn a_message_names_its_revision() {
        assert_eq!(
            in_message("Building manifests for revision main@sha1:abc with a timeout of 30s"),
            Some("main@sha1:abc")
        );
        assert_eq!(in_message("Applied revision: main@sha1:abc"), Some("main@sha1:abc"));
        assert_eq!(in_message("Reconciliation in progress"), None);
    }
}
