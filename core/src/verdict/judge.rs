//! The judge: lines in, changes of verdict out. No clock of its own, and nothing that depends on the future.

use std::collections::BTreeMap;

use serde_json::Value;

use super::line::{Act, Deliverer, Line};
use super::rev::Ancestry;
use super::view::{Ask, Failure, SETTLE_MS, TOLD_LATE_MS, View};
use super::want::{Live, conflict, live, named};
use super::words::{VerdictChange, short};
use super::workload::{Rollout, rollout};
use super::world::{World, at, text};
use super::{argo, flux, helm};
use crate::model::{Code, Verdict, Want};

/// What may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgeConfig {
    /// How long engine and live objects must agree before a commit is healthy, in milliseconds.
    pub stable_ms: i64,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self { stable_ms: 10_000 }
    }
}

/// After this long with "applied" said and the field not live, it is not a matter of order any more.
const NOT_LIVE_MS: i64 = 10_000;

/// Judges every commit that it is told of, from watch events alone.
///
/// Feed it the acts (commits on the followed branch, ours and others') and the watch events of their owners,
/// sources, wanted objects and workloads, in the order they arrive; call [`Judge::advance`] when
/// [`Judge::next_deadline`] has come. Objects that have nothing to do with a commit are ignored.
#[derive(Debug, Clone)]
pub struct Judge {
    config: JudgeConfig,
    now: i64,
    world: World,
    ancestry: Ancestry,
    cases: BTreeMap<String, Case>,
    /// Order of the pushes, for output that does not depend on ids.
    order: Vec<String>,
}

/// One commit.
#[derive(Debug, Clone)]
struct Case {
    owner: Option<Deliverer>,
    want: Option<Vec<Want>>,
    since: i64,
    /// The engine has (had) a revision with it in force, and no older one since.
    applied: bool,
    agreed_since: Option<i64>,
    ever_agreed: bool,
    /// When an agreement that had not lasted for the window ended.
    broken_at: Option<i64>,
    healthy: bool,
    closed: bool,
    failing: Option<(Code, i64)>,
    not_live_since: Option<i64>,
    deadline: Option<i64>,
    last: Option<(Verdict, Code)>,
}

/// The wanted fields of a commit, as they are.
#[derive(Debug, Default)]
struct Field {
    /// Nothing is known of other than wanted, and something is wanted.
    live: bool,
    complete: bool,
    /// The first trouble is an object that was never seen.
    unseen: bool,
    trouble: String,
    degraded: Option<String>,
    paused: Option<String>,
}

impl Judge {
    /// A judge that knows nothing yet.
    pub fn new(config: JudgeConfig) -> Self {
        Self {
            config,
            now: i64::MIN,
            world: World::default(),
            ancestry: Ancestry::default(),
            cases: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    /// Takes in one line at `t_ms`. Time does not run backwards: an earlier time counts as now.
    pub fn feed(&mut self, t_ms: i64, line: &Line) -> Vec<VerdictChange> {
        let mut out = self.advance(t_ms);
        let t = self.now;
        match line {
            Line::Added { object } | Line::Modified { object } => self.world.observe(object, false, t),
            Line::Deleted { object } => self.world.observe(object, true, t),
            Line::Act(act) => {
                let Some(commit) = act.commit.as_deref().filter(|c| !c.is_empty()) else { return out };
                self.learn(commit, act);
            }
            Line::Head { .. } | Line::Other => return out,
        }
        self.judge_all(t, &mut out);
        out
    }

    /// Lets the clock run to `t_ms` with nothing happening.
    pub fn advance(&mut self, t_ms: i64) -> Vec<VerdictChange> {
        let mut out = Vec::new();
        while let Some(due) = self.next_deadline().filter(|d| *d <= t_ms) {
            self.now = due.max(self.now);
            self.judge_all(self.now, &mut out);
        }
        self.now = self.now.max(t_ms);
        out
    }

    /// When a verdict may change with no event: call [`Judge::advance`] then.
    pub fn next_deadline(&self) -> Option<i64> {
        self.cases.values().filter_map(|c| c.deadline).min()
    }

    /// The last verdict and code of a commit.
    pub fn verdict(&self, commit: &str) -> Option<(Verdict, Code)> {
        self.cases.get(commit)?.last
    }

    /// Judges a commit no more; it stays known as the ancestor or successor of others.
    pub fn close(&mut self, commit: &str) {
        if let Some(case) = self.cases.get_mut(commit) {
            case.closed = true;
            case.deadline = None;
        }
    }

    fn learn(&mut self, commit: &str, act: &Act) {
        self.ancestry.learn(commit, act.parent.iter().chain(&act.parents).cloned());
        let since = self.now;
        let case = self.cases.entry(commit.to_owned()).or_insert_with(|| {
            self.order.push(commit.to_owned());
            Case {
                owner: None,
                want: None,
                since,
                applied: false,
                agreed_since: None,
                ever_agreed: false,
                broken_at: None,
                healthy: false,
                closed: false,
                failing: None,
                not_live_since: None,
                deadline: None,
                last: None,
            }
        });
        // The same commit may be told of twice: first found in Git, then known as ours.
        if act.owner.is_some() {
            case.owner.clone_from(&act.owner);
        }
        if act.want.is_some() {
            case.want.clone_from(&act.want);
        }
    }

    fn judge_all(&mut self, now: i64, out: &mut Vec<VerdictChange>) {
        for commit in self.order.clone() {
            let Some(mut case) = self.cases.get(&commit).cloned() else { continue };
            let Some(owner) = case.owner.clone().filter(|_| !case.closed) else { continue };
            let owner = self.deliverer(owner, case.want.as_deref());
            let later = self.later(&commit, &case);
            let ask = Ask {
                world: &self.world,
                ancestry: &self.ancestry,
                commit: &commit,
                since: case.since,
                owner: &owner,
                later: &later,
                follows: self.follows(&commit, &case),
                now,
            };
            let view = match owner.kind.as_str() {
                "Application" => argo::view(&ask),
                "Kustomization" => flux::view(&ask),
                "HelmRelease" => helm::view(&ask),
                other => View::waiting(
                    Code::NotNoticed,
                    format!("A {} is not something that can be watched for a commit.", super::words::quote(other)),
                ),
            };
            self.decide(&ask, &mut case, &view, out);
            case.deadline = case.deadline.filter(|d| *d > now);
            self.cases.insert(commit, case);
        }
    }

    /// An ApplicationSet delivers through Applications: the one that has the wanted object.
    fn deliverer(&self, owner: Deliverer, want: Option<&[Want]>) -> Deliverer {
        if owner.kind != "ApplicationSet" {
            return owner;
        }
        let application = |o: &Value| Deliverer {
            kind: "Application".into(),
            namespace: text(o, "/metadata/namespace").into(),
            name: text(o, "/metadata/name").into(),
        };
        let mut applications =
            self.world.all("Application").map(application).filter(|a| a.namespace == owner.namespace);
        let wants = want.unwrap_or_default();
        applications.find(|a| wants.iter().any(|w| self.listed(a, w))).unwrap_or(owner)
    }

    /// Later commits of the same owner that are judged by themselves.
    fn later(&self, commit: &str, case: &Case) -> Vec<(String, i64)> {
        let is = |(id, c): &(&String, &Case)| {
            id.as_str() != commit && c.want.is_some() && c.owner == case.owner && self.ancestry.contains(commit, id)
        };
        self.cases.iter().filter(is).map(|(id, c)| (id.clone(), c.since)).collect()
    }

    /// Whether an earlier commit of the same owner is judged too.
    fn follows(&self, commit: &str, case: &Case) -> bool {
        self.cases.iter().any(|(id, c)| {
            id != commit && c.want.is_some() && c.owner == case.owner && self.ancestry.contains(id, commit)
        })
    }

    fn decide(&self, ask: &Ask, case: &mut Case, view: &View, out: &mut Vec<VerdictChange>) {
        let want = case.want.clone().unwrap_or_default();
        case.deadline = view.deadline;
        if view.applied {
            case.applied = true;
        } else if view.applied_without || (view.reopened && !case.healthy) {
            case.applied = false;
        }
        let field = self.field(ask, &want, case.applied);
        let hard = view.failure.as_ref().is_some_and(|f| f.hard);
        let settled = case.agreed_since.is_some() || !view.busy;
        if case.applied && field.live && field.complete && settled && !hard {
            case.failing = None;
            case.not_live_since = None;
            case.broken_at = None;
            case.ever_agreed = true;
            return self.agree(ask, case, out);
        }
        let taker = self.taker(ask, view);
        if let Some(since) = case.agreed_since.take().filter(|_| !case.healthy) {
            // A pod that falls over is no successor: somebody must have changed the field, or its object.
            let changed = |w: &Want| self.world.touched_after(&w.kind, &w.namespace, &w.name, since);
            case.broken_at = (!field.live || want.iter().any(changed)).then_some(ask.now);
        }
        // The live object may be seen to change a moment before the owner is seen to move on.
        let broken = case.broken_at.is_some_and(|t| ask.now.saturating_sub(t) <= TOLD_LATE_MS);
        if broken
            && !hard
            && let Some(taker) = &taker
        {
            case.broken_at = None;
            let say = format!(
                "{} was live with its rollout finished until {} took its place.",
                short(ask.commit),
                short(taker)
            );
            tell(ask, case, (Verdict::Healthy, Code::Healthy, say), out);
        }
        if let Some(taker) = self.superseder(ask, case, &want, &field, view) {
            case.failing = None;
            let say = format!("{} took the place of {}.", short(&taker), short(ask.commit));
            return tell(ask, case, (Verdict::Superseded, Code::Superseded, say), out);
        }
        if let Some(failure) = self.failure(ask, view, &want, &field) {
            return self.fail(ask, case, view, &field, failure, out);
        }
        case.failing = None;
        if case.healthy && case.applied && field.live && view.failure.is_none() {
            // Pods come and go; that alone takes no verdict back.
            return;
        }
        let (code, say) = self.waiting(ask, case, view, &field);
        tell(ask, case, (Verdict::Waiting, code, say), out);
    }

    fn agree(&self, ask: &Ask, case: &mut Case, out: &mut Vec<VerdictChange>) {
        let since = *case.agreed_since.get_or_insert(ask.now);
        let due = since.saturating_add(self.config.stable_ms.max(0));
        if case.healthy || ask.now >= due {
            let say = format!(
                "{} is applied, the live objects are as wanted, and the rollout is finished.",
                short(ask.commit)
            );
            return tell(ask, case, (Verdict::Healthy, Code::Healthy, say), out);
        }
        case.deadline = Some(case.deadline.map_or(due, |d| d.min(due)));
        let say = format!(
            "{} is applied and live; it is healthy if it stays so for {} s.",
            short(ask.commit),
            (self.config.stable_ms.max(0) + 999) / 1000
        );
        tell(ask, case, (Verdict::Waiting, Code::Progressing, say), out);
    }

    fn fail(
        &self,
        ask: &Ask,
        case: &mut Case,
        view: &View,
        field: &Field,
        failure: Failure,
        out: &mut Vec<VerdictChange>,
    ) {
        let since = match case.failing {
            Some((_, since)) => since,
            None => ask.now,
        };
        case.failing = Some((failure.code, since));
        let due = since.saturating_add(failure.settle_ms);
        if ask.now >= due {
            return tell(ask, case, (Verdict::Failed, failure.code, failure.say), out);
        }
        case.deadline = Some(case.deadline.map_or(due, |d| d.min(due)));
        // What was said last stands until the failure has.
        if case.last.is_none() {
            let (code, say) = self.waiting(ask, case, view, field);
            tell(ask, case, (Verdict::Waiting, code, say), out);
        }
    }

    fn waiting(&self, ask: &Ask, case: &mut Case, view: &View, field: &Field) -> (Code, String) {
        if !case.applied || !matches!(view.code, Code::Progressing) {
            case.not_live_since = None;
            let say = match (&view.code, field.trouble.is_empty()) {
                (Code::Progressing, false) => format!("{} {}.", view.say, field.trouble),
                _ => view.say.clone(),
            };
            return (view.code, say);
        }
        if field.live {
            case.not_live_since = None;
            if let Some(p) = &field.paused {
                return (Code::Suspended, format!("{} {p}.", view.say));
            }
            return (Code::Progressing, format!("{} {}.", view.say, field.trouble));
        }
        if case.want.as_ref().is_none_or(Vec::is_empty) {
            return (Code::Progressing, format!("{} Nothing tells what it should bring about.", view.say));
        }
        let since = *case.not_live_since.get_or_insert(ask.now);
        let due = since.saturating_add(NOT_LIVE_MS);
        if ask.now < due {
            case.deadline = Some(case.deadline.map_or(due, |d| d.min(due)));
            return (Code::Progressing, format!("{} {}.", view.say, field.trouble));
        }
        let why = if field.unseen {
            "It is not there, or nobody watches it"
        } else {
            "The engine ignores that field (ignoreDifferences, skip annotations), or something else sets it (autoscaler, webhook, another owner, shadowed values)"
        };
        (Code::NotLive, format!("{} Yet {}. {why}.", view.say, field.trouble))
    }

    /// The engine's failure, or the workload's own, whichever says more.
    fn failure(&self, ask: &Ask, view: &View, want: &[Want], field: &Field) -> Option<Failure> {
        let degraded = |words: &String| Failure {
            code: Code::Degraded,
            say: format!("{} is rolled out and fails: {words}.", short(ask.commit)),
            settle_ms: SETTLE_MS,
            hard: true,
        };
        if view.failure.as_ref().is_some_and(|f| f.hard || !matches!(f.code, Code::HealthCheckFailed)) {
            return view.failure.clone();
        }
        if view.begun
            && (field.live || want.is_empty())
            && let Some(words) = &field.degraded
        {
            return Some(degraded(words));
        }
        view.failure.clone()
    }

    fn field(&self, ask: &Ask, want: &[Want], applied: bool) -> Field {
        if want.is_empty() {
            return Field { degraded: self.changed_and_sick(ask), ..Field::default() };
        }
        let mut field = Field { live: true, complete: true, ..Field::default() };
        for w in want {
            let listed = applied && w.exists == Some(false) && w.path.is_empty() && self.listed(ask.owner, w);
            match live(&self.world, w, listed) {
                Live::Yes => {}
                other => {
                    if field.live {
                        field.unseen = matches!(other, Live::Unseen(_));
                        let (Live::No(words) | Live::Unseen(words)) = other else { continue };
                        field.trouble = words;
                    }
                    field.live = false;
                    field.complete = false;
                    continue;
                }
            }
            let Some(object) = self.world.find(w) else { continue };
            let words = match rollout(object) {
                Rollout::Complete => continue,
                Rollout::Progressing(words) => words,
                Rollout::Paused(words) => {
                    field.paused = Some(format!("{}: {words}", named(w)));
                    words
                }
                Rollout::Degraded(words) => {
                    field.degraded = Some(self.sickness(object, &words));
                    words
                }
            };
            field.complete = false;
            if field.trouble.is_empty() {
                let pods = self.world.pod_trouble(&w.namespace, &w.name).map(|p| format!("; {p}")).unwrap_or_default();
                field.trouble = format!("{}: {words}{pods}", named(w));
            }
        }
        field
    }

    fn sickness(&self, object: &Value, words: &str) -> String {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let pods = self.world.pod_trouble(namespace, name).map(|p| format!(" ({p})")).unwrap_or_default();
        format!("{} {namespace}/{name}: \"{words}\"{pods}", text(object, "/kind"))
    }

    /// A workload of the owner whose spec changed since the commit and that says that it failed.
    fn changed_and_sick(&self, ask: &Ask) -> Option<String> {
        let owned = self.owned(ask.owner);
        owned.iter().find_map(|(group, kind, namespace, name)| {
            if !self.world.touched_after(kind, namespace, name, ask.since) {
                return None;
            }
            let object = self.world.get(group, kind, namespace, name)?;
            match rollout(object) {
                Rollout::Degraded(words) => Some(self.sickness(object, &words)),
                _ => None,
            }
        })
    }

    /// Objects that the owner lists: group, kind, namespace, name.
    fn owned(&self, owner: &Deliverer) -> Vec<(String, String, String, String)> {
        let Some(o) = self.world.owner(owner) else { return Vec::new() };
        let listed = at(o, "/status/resources").and_then(Value::as_array).into_iter().flatten();
        let field = |r: &Value, f: &str| text(r, f).to_owned();
        let of_argo =
            listed.map(|r| (field(r, "/group"), field(r, "/kind"), field(r, "/namespace"), field(r, "/name")));
        let of_flux = flux::inventory(o)
            .map(|(ns, name, group, kind)| (group.to_owned(), kind.to_owned(), ns.to_owned(), name.to_owned()));
        of_argo.chain(of_flux).collect()
    }

    fn listed(&self, owner: &Deliverer, want: &Want) -> bool {
        self.owned(owner).iter().any(|(group, kind, namespace, name)| {
            *kind == want.kind
                && *name == want.name
                && *namespace == want.namespace
                && (want.group.is_empty() || *group == want.group)
        })
    }

    /// A later commit that the engine has begun on.
    fn taker(&self, ask: &Ask, view: &View) -> Option<String> {
        self.takers(ask, view).next().map(|(id, _)| id.clone())
    }

    fn takers<'a>(&'a self, ask: &'a Ask<'a>, view: &'a View) -> impl Iterator<Item = (&'a String, &'a Case)> {
        let moved = view.taken.iter().any(|r| r != ask.commit && self.ancestry.contains(ask.commit, r));
        self.order.iter().filter(move |_| moved).filter_map(|id| Some((id, self.cases.get(id)?))).filter(
            move |(id, _)| {
                id.as_str() != ask.commit
                    && self.ancestry.contains(ask.commit, id)
                    && view.taken.iter().any(|r| self.ancestry.contains(id, r))
            },
        )
    }

    /// The later commit that took this one's place.
    fn superseder(&self, ask: &Ask, case: &Case, want: &[Want], field: &Field, view: &View) -> Option<String> {
        let failed = matches!(case.last, Some((Verdict::Failed | Verdict::Superseded, _)));
        self.takers(ask, view)
            .find(|(_, later)| match &later.want {
                Some(w) if !want.is_empty() => conflict(want, w),
                Some(w) => (!w.is_empty() && later.owner == case.owner) || view.applied,
                // Somebody else's commit: nobody knows what it wanted, so what was seen decides.
                None => view.applied && !field.live && (want.is_empty() || case.ever_agreed || failed),
            })
            .map(|(id, _)| id.clone())
    }
}

fn tell(ask: &Ask, case: &mut Case, (verdict, code, say): (Verdict, Code, String), out: &mut Vec<VerdictChange>) {
    case.healthy = verdict == Verdict::Healthy;
    if case.last == Some((verdict, code)) {
        return;
    }
    case.last = Some((verdict, code));
    out.push(VerdictChange { commit: ask.commit.to_owned(), t: ask.now, verdict, code, say });
}
