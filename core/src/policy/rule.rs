//! Rules after parsing: every name checked, every duration in seconds.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::condition::Condition;
use super::freeze::Freeze;
use super::quota::Quota;
use super::{file, raw};
use crate::error::{Problem, Result};
use crate::model::{Confirm, Delivery, Level, RiskLevel, hex};

/// What a rule matches. Every condition that is given must hold; an absent one always does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Labels of cluster, repository and object; every key must have one of the values.
    pub labels: BTreeMap<String, Vec<String>>,
    /// Operation names.
    pub operation: Option<Vec<String>>,
    /// Clusters; `*` stands for any run of characters, here and below.
    pub cluster: Option<Vec<String>>,
    /// Namespaces.
    pub namespace: Option<Vec<String>>,
    /// Kinds.
    pub kind: Option<Vec<String>>,
    /// Agents.
    pub agent: Option<Vec<String>>,
    /// Repositories.
    pub repository: Option<Vec<String>>,
    /// Risk levels, exactly these.
    pub risk: Option<Vec<RiskLevel>>,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approve {
    /// Groups.
    pub from: Vec<String>,
    /// How many different people.
    pub count: u32,
    /// Seconds after which no approval counts.
    pub expires_s: Option<u32>,
    /// Seconds between reminders.
    pub remind_s: Option<u32>,
    /// Seconds after which further groups are asked, and these.
    pub escalate: Option<(u32, Vec<String>)>,
    /// What a yes takes besides a press.
    pub confirm: Option<Confirm>,
    /// The requester's sponsor counts too.
    pub allow_sponsor: bool,
    /// Each of the people must answer for another of the groups.
    pub different_groups: bool,
}

impl Approve {
    /// Every group that is asked, at once or later.
    pub fn groups(&self) -> impl Iterator<Item = &String> {
        self.from.iter().chain(self.escalate.iter().flat_map(|(_, to)| to))
    }
}

/// Upper bounds of one change; beyond them a person commits it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// Changed files.
    pub files: Option<u32>,
    /// Added plus removed lines.
    pub lines: Option<u32>,
    /// Changed objects.
    pub objects: Option<u32>,
}

/// What happens to an approval when the branch moved on without touching what was approved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnBaseMove {
    /// It is proved anew and goes on.
    #[default]
    Continue,
    /// People are asked again.
    Reapprove,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Name, unique over all files.
    pub id: String,
    /// File that it is in.
    pub file: String,
    /// What it matches.
    pub matches: Match,
    /// Condition on the values before and after.
    pub when: Option<Condition>,
    /// Level.
    pub level: Level,
    /// Who is asked.
    pub approve: Option<Approve>,
    /// Delivery; absent says nothing about it.
    pub deliver: Option<Delivery>,
    /// Upper bounds.
    pub caps: Caps,
    /// Changes within 24 hours.
    pub quota: Option<Quota>,
    /// Groups to tell.
    pub tell: Vec<String>,
    /// What a moved base does.
    pub on_base_move: OnBaseMove,
}

impl Rule {
    /// Whether it is about this operation in so many words, not by leaving `operation` out.
    pub fn names(&self, operation: &str) -> bool {
        self.matches.operation.iter().flatten().any(|o| o == operation)
    }
}

/// All policy files, parsed and checked for form.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySet {
    pub(super) rules: Vec<Rule>,
    pub(super) default: Option<Rule>,
    pub(super) freezes: Vec<Freeze>,
    pub(super) tests: Vec<raw::TestCase>,
    pub(super) version: String,
}

/// Name under which the default appears among the rules of a decision.
pub(super) const DEFAULT: &str = "default";

impl PolicySet {
    /// Reads policy files. No file at all is a set that denies everything.
    ///
    /// # Errors
    /// `policy.too_large`, `policy.encoding`, `policy.syntax`, `policy.version`,
    /// `policy.condition`, `policy.invalid`, `policy.duplicate_freeze`, `policy.duplicate_rule`, `policy.two_defaults`;
    /// each names file and, where known, line.
    pub fn parse<N: AsRef<str>, B: AsRef<[u8]>>(files: &[(N, B)]) -> Result<Self> {
        let mut set = Self {
            rules: Vec::new(),
            default: None,
            freezes: Vec::new(),
            tests: Vec::new(),
            version: version_of(files),
        };
        for (name, bytes) in files {
            let parsed = file::parse(name.as_ref(), bytes.as_ref())?;
            for rule in parsed.rules {
                if let Some(other) = set.rules.iter().find(|r| r.id == rule.id) {
                    return Err(Problem::new(
                        "policy.duplicate_rule",
                        format!("Rule \"{}\" is in {} and again in {}.", rule.id, other.file, rule.file),
                        "Give each rule an id of its own.",
                    ));
                }
                set.rules.push(rule);
            }
            if let Some(default) = parsed.default {
                if let Some(other) = &set.default {
                    return Err(Problem::new(
                        "policy.two_defaults",
                        format!("{} and {} both have a default.", other.file, default.file),
                        "Keep `default` in one file.",
                    ));
                }
                set.default = Some(default);
            }
            for freeze in parsed.freezes {
                if let Some(other) = set.freezes.iter().find(|f| f.id == freeze.id) {
                    return Err(Problem::new(
                        "policy.duplicate_freeze",
                        format!("Freeze \"{}\" is in {} and again in {}.", freeze.id, other.file, freeze.file),
                        "Give each freeze an id of its own.",
                    ));
                }
                set.freezes.push(freeze);
            }
            set.tests.extend(parsed.tests);
        }
        Ok(set)
    }

    /// Hash of names and bytes of all files, hex; the order of the files does not matter.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Rules, in the order of the files.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What counts where no rule matches; absent means deny.
    pub fn default_rule(&self) -> Option<&Rule> {
        self.default.as_ref()
    }

    /// Freezes, in the order of the files.
    pub fn freezes(&self) -> &[Freeze] {
        &self.freezes
    }

    /// The same rules as if no freeze were on.
    #[must_use]
    pub fn without_freezes(&self) -> Self {
        Self { freezes: Vec::new(), ..self.clone() }
    }

    /// How many tests the files hold.
    pub fn test_count(&self) -> usize {
        self.tests.len()
    }
}

fn version_of<N: AsRef<str>, B: AsRef<[u8]>>(files: &[(N, B)]) -> String {
    let mut sorted: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_ref(), b.as_ref())).collect();
    sorted.sort_unstable();
    let mut h = Sha256::new();
    h.update(b"countersign-policy-v1\0");
    for (name, bytes) in sorted {
        // Lengths first, so that no byte can move from one file to its neighbour unnoticed.
        h.update((name.len() as u64).to_be_bytes());
        h.update(name.as_bytes());
        h.update((bytes.len() as u64).to_be_bytes());
        h.update(bytes);
    }
    hex(&h.finalize())
}
