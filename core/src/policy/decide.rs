//! One decision: which rules match, and what they ask for together.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Approve, DEFAULT, Match, OnBaseMove, PolicySet, Rule};
use crate::error::Problem;
use crate::model::{Decided, Delivery, Level, Named, PersonSpec, Quorum, RiskLevel};

/// Seconds that an approval may take where no rule says otherwise.
const EXPIRES_S: u32 = 3600;

/// One object that a change touches, and by which operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Operation name (`set_image`).
    pub operation: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Kind.
    pub kind: String,
    /// Labels before the edit; `None` = the object does not exist yet.
    pub labels_before: Option<BTreeMap<String, String>>,
    /// Labels after the edit; `None` = the object goes.
    pub labels_after: Option<BTreeMap<String, String>>,
}

/// What is decided about. Nothing in here comes from an agent's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Every object touched, once for each operation on it.
    pub targets: Vec<Target>,
    /// Cluster.
    pub cluster: String,
    /// Labels of the Cluster in the configuration.
    pub cluster_labels: BTreeMap<String, String>,
    /// Repository.
    pub repository: String,
    /// Labels of the Repository in the configuration.
    pub repository_labels: BTreeMap<String, String>,
    /// Agent.
    pub agent: String,
    /// Name of the Person who answers for it.
    pub sponsor: String,
    /// Risk, from [`super::risk::assess`].
    pub risk: RiskLevel,
    /// Changed files.
    pub files: u32,
    /// Added plus removed lines.
    pub lines: u32,
    /// Changed objects.
    pub objects: u32,
    /// A privileged path or kind that the change touches, from [`super::privileged`].
    pub privileged: Option<String>,
}

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What was decided, as the journal keeps it.
    pub decided: Decided,
    /// Why, one sentence each, the deciding ones included.
    pub why: Vec<String>,
    /// Why it is refused; `None` unless the level is deny.
    pub problem: Option<Problem>,
    /// Seconds between reminders.
    pub remind_s: Option<u32>,
    /// Whether a moved base needs a new approval.
    pub on_base_move: OnBaseMove,
}

/// One object at one moment, with the values that each label has at any source.
pub(super) struct View<'a> {
    target: &'a Target,
    phase: &'static str,
    /// Values by any source: enough to tighten.
    any: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The object is new, so its own labels are the agent's choice: they tighten, never loosen.
    agent_labels: Option<&'a BTreeMap<String, String>>,
}

/// How a rule meets a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meets {
    /// It does not, because.
    No(String),
    /// It may: sources disagree about a label.
    Maybe(String),
    /// It does.
    Yes,
}

pub(super) fn views(facts: &Facts) -> Vec<View<'_>> {
    let mut out = Vec::new();
    for target in &facts.targets {
        let mut phases: Vec<(&'static str, Option<&BTreeMap<String, String>>)> = Vec::new();
        if target.labels_before.is_some() {
            phases.push(("before", target.labels_before.as_ref()));
        }
        if target.labels_after.is_some() {
            phases.push(("after", target.labels_after.as_ref()));
        }
        if phases.is_empty() {
            phases.push(("now", None));
        }
        for (phase, own) in phases {
            let mut any: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            let sources = [Some(&facts.cluster_labels), Some(&facts.repository_labels), own];
            for (k, v) in sources.into_iter().flatten().flatten() {
                any.entry(k).or_default().insert(v);
            }
            let agent_labels = if target.labels_before.is_none() { own } else { None };
            out.push(View { target, phase, any, agent_labels });
        }
    }
    out
}

impl View<'_> {
    pub(super) fn meets(&self, m: &Match, facts: &Facts) -> Meets {
        let one = |what: &str, wanted: &Option<Vec<String>>, is: &str| match wanted {
            Some(w) if !w.iter().any(|p| glob(p, is)) => Some(format!("{what} is {is}")),
            _ => None,
        };
        let no = one("operation", &m.operation, &self.target.operation)
            .or_else(|| one("cluster", &m.cluster, &facts.cluster))
            .or_else(|| one("namespace", &m.namespace, &self.target.namespace))
            .or_else(|| one("kind", &m.kind, &self.target.kind))
            .or_else(|| one("agent", &m.agent, &facts.agent))
            .or_else(|| one("repository", &m.repository, &facts.repository));
        if let Some(why) = no {
            return Meets::No(why);
        }
        if m.risk.as_ref().is_some_and(|r| !r.contains(&facts.risk)) {
            return Meets::No(format!("risk is {}", risk_word(facts.risk)));
        }
        self.meets_labels(m, facts)
    }

    fn meets_labels(&self, m: &Match, facts: &Facts) -> Meets {
        let mut doubt = None;
        for (key, wanted) in &m.labels {
            let Some(values) = self.any.get(key.as_str()) else {
                return Meets::No(format!("there is no label {key} {}", self.phase));
            };
            let listed = |v: &str| wanted.iter().any(|w| w == v);
            if !values.iter().any(|v| listed(v)) {
                return Meets::No(format!("label {key} is {} {}", join(values), self.phase));
            }
            let configured = [&facts.cluster_labels, &facts.repository_labels].iter().any(|l| l.contains_key(key));
            if values.iter().any(|v| !listed(v)) {
                doubt = Some(format!("sources disagree about label {key}: {}", join(values)));
            } else if self.agent_labels.is_some() && !configured {
                doubt = Some(format!("label {key} stands only on the new object itself"));
            }
        }
        doubt.map_or(Meets::Yes, Meets::Maybe)
    }
}

/// Decides. Pure: the same arguments give the same decision.
///
/// Rules that match only one of several objects, or only before or after the edit, count as well;
/// the default counts in addition wherever an object is not clearly covered by any rule.
pub fn decide(set: &PolicySet, people: &[Named<PersonSpec>], facts: &Facts) -> Decision {
    let (rules, mut why) = matching(set, facts);
    let mut level = rules.iter().map(|r| r.level).max().unwrap_or(Level::Deny);
    let mut problem = None;
    if level < Level::Manual {
        for reason in raises(&rules, facts) {
            why.push(format!("Raised to manual: {reason}."));
            level = Level::Manual;
        }
    }
    let delivery = rules.iter().filter_map(|r| r.deliver).max().unwrap_or(Delivery::Direct);
    let mut quorum = Quorum { count: 0, groups: Vec::new(), allow_sponsor: false };
    let mut approvers = Vec::new();
    let asks: Vec<(&str, &Approve)> = rules.iter().filter_map(|r| Some((r.id.as_str(), r.approve.as_ref()?))).collect();
    if level < Level::Deny && !asks.is_empty() {
        // Asked for at level manual too: a rule that cannot be satisfied must not be loosened by
        // another one that asks nobody.
        match staffed(&asks, delivery, people, facts) {
            Ok((q, a)) if level == Level::Prompted => (quorum, approvers) = (q, a),
            Ok(_) => {}
            Err(p) => {
                why.push(p.message.clone());
                level = Level::Deny;
                problem = Some(p);
            }
        }
    }
    if level == Level::Deny && problem.is_none() {
        problem = Some(denied(&rules, &why));
    }
    let groups: BTreeSet<&str> = rules.iter().flat_map(|r| r.tell.iter().map(String::as_str)).collect();
    let decided = Decided {
        level,
        delivery,
        quorum,
        approvers,
        tell: members(people, |g| groups.contains(g))
            .map(|p| p.name.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        rules: rules.iter().map(|r| r.id.clone()).collect(),
        policy_version: set.version().to_owned(),
        expires_s: asks.iter().filter_map(|(_, a)| a.expires_s).min().unwrap_or(EXPIRES_S),
        reapprove_on_move: rules.iter().any(|r| r.on_base_move == OnBaseMove::Reapprove),
        remind_s: asks.iter().filter_map(|(_, a)| a.remind_s).min(),
        escalate: None,
    };
    Decision {
        decided,
        why,
        problem,
        remind_s: asks.iter().filter_map(|(_, a)| a.remind_s).min(),
        on_base_move: rules.iter().map(|r| r.on_base_move).max().unwrap_or_default(),
    }
}

/// What stands in the way of treating an approval given under `old` as good under `new`: the
/// policy was tightened while the change was pending. `None` = still good (a removed approver is
/// a matter of the votes).
pub fn tightened(old: &Decided, new: &Decided) -> Option<String> {
    if new.level > old.level {
        return Some(format!("the level is now {}", level_word(new.level)));
    }
    if new.delivery > old.delivery {
        return Some("a stricter delivery is asked for now".to_owned());
    }
    if new.quorum.count > old.quorum.count {
        return Some(format!("{} people must say yes now", new.quorum.count));
    }
    if new.level == Level::Prompted && new.quorum.groups != old.quorum.groups {
        return Some(format!("other groups are asked now: {}", new.quorum.groups.join(", ")));
    }
    if old.quorum.allow_sponsor && !new.quorum.allow_sponsor {
        return Some("the sponsor's vote no longer counts".to_owned());
    }
    (new.expires_s < old.expires_s).then(|| "approvals expire sooner now".to_owned())
}

/// Rules that count, the default among them where it does, and why.
fn matching<'a>(set: &'a PolicySet, facts: &Facts) -> (Vec<&'a Rule>, Vec<String>) {
    let views = views(facts);
    let mut covered = vec![false; views.len()];
    let mut rules = Vec::new();
    let mut why = Vec::new();
    for rule in set.rules() {
        let mut best: Option<Option<String>> = None;
        for (view, covered) in views.iter().zip(&mut covered) {
            match view.meets(&rule.matches, facts) {
                Meets::No(_) => {}
                Meets::Maybe(doubt) => best = best.or(Some(Some(doubt))),
                Meets::Yes => {
                    *covered = true;
                    best = Some(None);
                }
            }
        }
        if let Some(doubt) = best {
            let doubt = doubt.map_or_else(String::new, |d| format!(" ({d})"));
            why.push(format!("Rule {} says {}{doubt}.", rule.id, level_word(rule.level)));
            rules.push(rule);
        }
    }
    let open: Vec<&View<'_>> = views.iter().zip(&covered).filter(|(_, c)| !**c).map(|(v, _)| v).collect();
    if views.is_empty() || !open.is_empty() {
        let about = open.first().map_or_else(String::new, |v| {
            format!(
                " for {} of {} in {}",
                v.target.operation,
                v.target.kind,
                if v.target.namespace.is_empty() { "the cluster" } else { &v.target.namespace }
            )
        });
        let level = set.default_rule().map_or(Level::Deny, |d| d.level);
        why.push(format!("No rule clearly matches{about}; the default says {}.", level_word(level)));
        match set.default_rule() {
            Some(d) => rules.push(d),
            None => rules.push(deny_all()),
        }
    }
    (rules, why)
}

/// The default of a policy that has none.
fn deny_all() -> &'static Rule {
    static DENY: std::sync::LazyLock<Rule> = std::sync::LazyLock::new(|| Rule {
        id: DEFAULT.to_owned(),
        file: String::new(),
        matches: Match::default(),
        level: Level::Deny,
        approve: None,
        deliver: None,
        caps: super::rule::Caps::default(),
        tell: Vec::new(),
        on_base_move: OnBaseMove::Continue,
    });
    &DENY
}

/// Reasons that a person must commit this one.
fn raises(rules: &[&Rule], facts: &Facts) -> Vec<String> {
    let mut out: Vec<String> = facts.privileged.iter().cloned().collect();
    let mut cap = |what: &str, is: u32, of: fn(&Rule) -> Option<u32>| {
        let strictest = rules.iter().filter_map(|r| Some((of(r)?, r.id.as_str()))).min();
        if let Some((most, rule)) = strictest.filter(|(most, _)| is > *most) {
            out.push(format!("{is} {what} are more than the {most} that rule {rule} allows"));
        }
    };
    cap("files", facts.files, |r| r.caps.files);
    cap("lines", facts.lines, |r| r.caps.lines);
    cap("objects", facts.objects, |r| r.caps.objects);
    out
}

/// The one quorum that satisfies every rule, and the people who can give it.
fn staffed(
    asks: &[(&str, &Approve)],
    delivery: Delivery,
    people: &[Named<PersonSpec>],
    facts: &Facts,
) -> Result<(Quorum, Vec<String>), Problem> {
    let quorum = one_quorum(asks)?;
    if delivery == Delivery::PullRequest && quorum.count > 1 {
        return Err(Problem::new(
            "policy.pull_request_quorum",
            "With pull_request one merge is the approval, but more than one person must say yes.",
            "Use `deliver: merge_after_approval` in the rule that asks for several people.",
        ));
    }
    let sponsor = people.iter().find(|p| p.name == facts.sponsor);
    let mut found: Vec<&Named<PersonSpec>> = Vec::new();
    for p in members(people, |g| quorum.groups.iter().any(|x| x == g)) {
        let is_sponsor = p.name == facts.sponsor || sponsor.is_some_and(|s| same_person(&s.spec, &p.spec));
        let counted = found.iter().any(|f| f.name == p.name || same_person(&f.spec, &p.spec));
        if (!is_sponsor || quorum.allow_sponsor) && reachable(&p.spec, delivery) && !counted {
            found.push(p);
        }
    }
    if found.len() < quorum.count as usize {
        let how = if delivery == Delivery::PullRequest { "with a forge login" } else { "with Telegram or an ssh key" };
        return Err(Problem::new(
            "policy.no_approvers",
            format!(
                "{} of {} must say yes, but besides the sponsor there {} {how}.",
                quorum.count,
                quorum.groups.join(", "),
                match found.len() {
                    0 => "is nobody".to_owned(),
                    1 => "is only one person".to_owned(),
                    n => format!("are only {n} people"),
                },
            ),
            "Add people to these groups, or set `allow_sponsor: true` in an installation of one person.",
        ));
    }
    let mut names: Vec<String> = found.into_iter().map(|p| p.name.clone()).collect();
    names.sort();
    Ok((quorum, names))
}

/// Groups that all rules ask, and the largest count: whoever satisfies it satisfies each rule.
fn one_quorum(asks: &[(&str, &Approve)]) -> Result<Quorum, Problem> {
    let mut groups: Option<Vec<String>> = None;
    for (_, a) in asks {
        groups = Some(match groups {
            None => a.from.clone(),
            Some(g) => g.into_iter().filter(|x| a.from.contains(x)).collect(),
        });
    }
    let groups = groups.unwrap_or_default();
    if groups.is_empty() {
        let ids: Vec<String> = asks.iter().map(|(id, a)| format!("{id} asks {}", a.from.join(", "))).collect();
        return Err(Problem::new(
            "policy.conflicting_approvers",
            "The rules that match ask groups that have none in common.",
            "Name a common group in these rules, or narrow one of them.",
        )
        .with_all(ids));
    }
    Ok(Quorum {
        count: asks.iter().map(|(_, a)| a.count).max().unwrap_or(1).max(1),
        groups,
        allow_sponsor: asks.iter().all(|(_, a)| a.allow_sponsor),
    })
}

fn denied(rules: &[&Rule], why: &[String]) -> Problem {
    let ids: Vec<&str> = rules.iter().filter(|r| r.level == Level::Deny).map(|r| r.id.as_str()).collect();
    Problem::new(
        "policy.denied",
        format!("Policy refuses this change ({}).", if ids.is_empty() { DEFAULT.to_owned() } else { ids.join(", ") }),
        "Ask the people who keep the policy; the same call will be refused until a rule allows it.",
    )
    .never()
    .with_all(why.iter().cloned())
}

fn members<'a>(
    people: &'a [Named<PersonSpec>],
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a Named<PersonSpec>> {
    people.iter().filter(move |p| p.spec.groups.iter().any(|g| wanted(g)))
}

/// Two entries with one identity are one person, who has one vote.
pub(super) fn same_person(a: &PersonSpec, b: &PersonSpec) -> bool {
    let forge = |p: &PersonSpec| p.forge.as_ref().map(|f| f.to_ascii_lowercase());
    (a.telegram.is_some() && a.telegram == b.telegram)
        || (a.forge.is_some() && forge(a) == forge(b))
        || a.ssh_keys.iter().any(|k| b.ssh_keys.iter().any(|o| key_of(o) == key_of(k)))
}

fn key_of(line: &str) -> Vec<&str> {
    line.split_whitespace().take(2).collect()
}

fn reachable(p: &PersonSpec, delivery: Delivery) -> bool {
    match delivery {
        Delivery::PullRequest => p.forge.is_some(),
        Delivery::Direct | Delivery::MergeAfterApproval => p.telegram.is_some() || !p.ssh_keys.is_empty(),
    }
}

/// `*` stands for any run of characters; everything else for itself.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut tail: Vec<&str> = parts.collect();
    let Some(last) = tail.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in tail {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn join(values: &BTreeSet<&str>) -> String {
    values.iter().copied().collect::<Vec<_>>().join(" and ")
}

/// Word for a level.
pub fn level_word(l: Level) -> &'static str {
    match l {
        Level::Standard => "standard",
        Level::Prompted => "prompted",
        Level::Manual => "manual",
        Level::Deny => "deny",
    }
}

pub(super) fn risk_word(r: RiskLevel) -> &'static str {
    match r {
        RiskLevel::Low => "low",
        RiskLevel::Medium => "medium",
        RiskLevel::High => "high",
        RiskLevel::Critical => "critical",
    }
}
