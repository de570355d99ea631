//! What really was, by the API server's own history: a watch of our own on the place's objects, with the time at
//! which each state was seen. Health is the Deployment's own word (generation, observed generation, replicas,
//! image), never the engine's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher;
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::task::AbortHandle;

use super::apps::{App, Engine};
use super::kube::Kube;
use super::others::TOOLS;
use super::place::{Place, text};
use super::table::{self, Other, Row};

/// The judge waits so long before it calls anything a failure (`core/src/verdict/view.rs`).
const SETTLE_MS: i64 = 1_000;

/// What others say is believed for so long before it was seen to be so.
const FAIR_MS: i64 = 250;

/// One state of one object.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub gone: bool,
    pub object: Value,
}

/// Everything that was seen, in order.
pub struct History {
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Vec<AbortHandle>,
}

type Key = (String, String, String);

fn key(object: &Value) -> Key {
    let of = |field: &str| text(&object["metadata"], field).to_owned();
    (text(object, "kind").to_owned(), of("namespace"), of("name"))
}

fn at<'v>(v: &'v Value, pointer: &str) -> &'v str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(v: &Value, pointer: &str) -> i64 {
    v.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

impl History {
    /// Watches the place's namespace, and what carries its name in Argo CD's.
    pub async fn watch(kube: &Kube, place: &str, argocd: &str) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut tasks = Vec::new();
        let watched = [
            ("Deployment", place),
            ("ConfigMap", place),
            ("HorizontalPodAutoscaler", place),
            ("GitRepository", place),
            ("Kustomization", place),
            ("HelmRelease", place),
            ("Application", argocd),
        ];
        for (kind, namespace) in watched {
            let events = watcher(kube.api(kind, namespace), watcher::Config::default());
            let (seen, place) = (seen.clone(), place.to_owned());
            let task = tokio::spawn(async move {
                let mut events = std::pin::pin!(events);
                while let Some(event) = events.next().await {
                    let (object, gone) = match event {
                        Ok(watcher::Event::Apply(o) | watcher::Event::InitApply(o)) => (o, false),
                        Ok(watcher::Event::Delete(o)) => (o, true),
                        Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
                        Err(_) => {
                            // At once again: what happens while the API server is away is to be seen right after.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    let mut object = serde_json::to_value(object).unwrap();
                    object["kind"] = json!(kind);
                    if kind == "Application" && !text(&object["metadata"], "name").starts_with(&place) {
                        continue;
                    }
                    let at = chrono::Utc::now().timestamp_millis();
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { at, gone, object });
                }
            });
            tasks.push(task.abort_handle());
        }
        Self { seen, tasks }
    }

    pub fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    fn all(&self) -> Vec<Seen> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|s| s.at);
        all
    }

    /// The last states, for the words of a failed test.
    pub fn tail(&self) -> String {
        let mut last: BTreeMap<Key, Value> = BTreeMap::new();
        for s in self.all() {
            last.insert(key(&s.object), s.object);
        }
        last.retain(|k, _| k.0 != "ConfigMap");
        let lines = last.iter().map(|(k, v)| format!("{k:?}: {}", v.get("status").unwrap_or(&Value::Null)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Since when `holds` was true of the world without a break, up to `until`; `None` if it was not true then.
    /// Also when it was first true at all.
    fn since(&self, from: i64, until: i64, holds: impl Fn(&World) -> bool) -> (Option<i64>, Option<i64>) {
        let mut world = World::default();
        let (mut since, mut first) = (None, None);
        let mut look = |world: &World, t: i64| {
            if holds(world) {
                since.get_or_insert(t);
                first.get_or_insert(t);
            } else {
                since = None;
            }
        };
        let mut begun = false;
        for s in self.all().into_iter().filter(|s| s.at <= until) {
            if !begun && s.at > from {
                // How it was at the commit; what was before that is no matter.
                look(&world, from);
                begun = true;
            }
            let k = key(&s.object);
            if s.gone {
                world.0.remove(&k)
            } else {
                world.0.insert(k, s.object)
            };
            if begun {
                look(&world, s.at);
            }
        }
        if !begun {
            look(&world, from);
        }
        (since, first)
    }
}

/// The objects as they were at one time.
#[derive(Default)]
pub struct World(BTreeMap<Key, Value>);

impl World {
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.0.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
    }
}

/// Whether an object (none: it is not there) is as it should be.
type Test = Box<dyn Fn(Option<&Value>) -> bool + Send + Sync>;

/// What a change is meant to bring about in the cluster.
pub struct Want {
    kind: &'static str,
    name: String,
    test: Test,
}

impl Want {
    /// A Deployment with its rollout finished of which this holds.
    pub fn deployment(name: &str, test: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        Self {
            kind: "Deployment",
            name: name.into(),
            test: Box::new(move |d| d.is_some_and(|d| test(d) && rolled_out(d))),
        }
    }

    pub fn image(name: &str, image: &str) -> Self {
        let image = image.to_owned();
        Self::deployment(name, move |d| at(d, "/spec/template/spec/containers/0/image") == image)
    }

    pub fn object(kind: &'static str, name: &str, test: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        Self { kind, name: name.into(), test: Box::new(move |o| o.is_some_and(&test)) }
    }

    pub fn gone(kind: &'static str, name: &str) -> Self {
        Self { kind, name: name.into(), test: Box::new(|o| o.is_none()) }
    }
}

/// The Deployment controller has seen the spec and finished (the order of `kubectl rollout status`).
pub fn rolled_out(d: &Value) -> bool {
    let desired = d.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let status = |f: &str| number(d, &format!("/status/{f}"));
    number(d, "/metadata/generation") <= status("observedGeneration")
        && status("updatedReplicas") == desired
        && status("replicas") == desired
        && status("availableReplicas") == desired
}

/// The Deployment controller has given up on the spec as it is.
fn gave_up(d: &Value) -> bool {
    let conditions = d.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    number(d, "/metadata/generation") <= number(d, "/status/observedGeneration")
        && conditions
            .into_iter()
            .any(|c| text(c, "type") == "Progressing" && text(c, "reason") == "ProgressDeadlineExceeded")
}

fn condition<'v>(o: &'v Value, kind: &str) -> Option<&'v Value> {
    o.pointer("/status/conditions")?.as_array()?.iter().find(|c| text(c, "type") == kind)
}

fn hash(revision: &str) -> &str {
    revision.rsplit(['@', ':', '/']).next().unwrap_or_default()
}

/// The engine has one of these revisions in force.
fn in_force(owner: &Value, holding: &[String]) -> bool {
    let holds = |revision: &str| holding.iter().any(|h| h == hash(revision));
    match text(owner, "kind") {
        "Application" => {
            at(owner, "/status/sync/status") == "Synced"
                && holds(at(owner, "/status/sync/revision"))
                && owner.get("operation").is_none_or(Value::is_null)
                && at(owner, "/status/operationState/phase") != "Running"
        }
        // A release knows no revision: that its spec is the commit's is for the scenario to want.
        "HelmRelease" => {
            let generation = number(owner, "/metadata/generation");
            condition(owner, "Ready").is_some_and(|c| text(c, "status") == "True")
                && ["observedGeneration", "lastAttemptedGeneration"]
                    .iter()
                    .all(|f| number(owner, &format!("/status/{f}")) == generation)
                && at(owner, "/status/history/0/status") == "deployed"
        }
        _ => {
            condition(owner, "Ready").is_some_and(|c| text(c, "status") == "True")
                && number(owner, "/metadata/generation") == number(owner, "/status/observedGeneration")
                && holds(at(owner, "/status/lastAppliedRevision"))
        }
    }
}

/// The engine says that one of these revisions failed.
fn engine_failed(owner: &Value, holding: &[String]) -> bool {
    let holds = |revision: &str| holding.iter().any(|h| h == hash(revision));
    if text(owner, "kind") == "Application" {
        let state = owner.pointer("/status/operationState").unwrap_or(&Value::Null);
        return matches!(text(state, "phase"), "Failed" | "Error") && holds(at(state, "/syncResult/revision"))
            || condition(owner, "ComparisonError").is_some();
    }
    let ready = condition(owner, "Ready").filter(|c| text(c, "status") == "False");
    ready.is_some_and(|c| match text(c, "reason") {
        // A missing path leaves the revision where it was.
        "ArtifactFailed" => true,
        "BuildFailed" | "ReconciliationFailed" | "HealthCheckFailed" | "PruneFailed" => {
            holds(at(owner, "/status/lastAttemptedRevision"))
        }
        _ => false,
    })
}

/// One event of a change, out of the journal.
#[derive(Debug)]
pub struct Noted {
    pub at: i64,
    pub kind: String,
    pub data: Value,
}

/// A journal, to read in.
async fn opened(journal: &Path) -> Result<sqlx::SqlitePool, sqlx::Error> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(journal).read_only(true);
    sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await
}

/// The commits that landed so far.
pub async fn landed_in(journal: &Path) -> Vec<String> {
    let Ok(pool) = opened(journal).await else { return Vec::new() };
    let rows = sqlx::query("SELECT data FROM events WHERE type = 'landed' ORDER BY seq").fetch_all(&pool).await;
    pool.close().await;
    let of = |r: &sqlx::sqlite::SqliteRow| {
        let event: Value = serde_json::from_str(r.get("data")).unwrap_or_default();
        at(&event, "/data/commit").to_owned()
    };
    rows.unwrap_or_default().iter().map(of).collect()
}

impl Place {
    /// The journal's events of a change, in order, with their milliseconds.
    pub async fn noted(&self, change: &str) -> Vec<Noted> {
        let pool = opened(&self.journal()).await.unwrap();
        let rows = sqlx::query("SELECT at, type, data FROM events WHERE change = ? ORDER BY seq").bind(change);
        let rows = rows.fetch_all(&pool).await.unwrap();
        pool.close().await;
        let of = |r: sqlx::sqlite::SqliteRow| Noted {
            at: r.get("at"),
            kind: r.get("type"),
            data: serde_json::from_str::<Value>(r.get("data")).unwrap_or_default()["data"].take(),
        };
        rows.into_iter().map(of).collect()
    }

    /// Compares what Countersign said of a landed change with what was; panics if it said healthy too early, or
    /// failed before anything had. Adds a row to the table.
    pub async fn compare(&self, app: &App, change: &str, want: &[Want]) {
        let row = self.row_of(app, change, want).await;
        table::add(self.backend.name(), row);
    }

    /// The same, for whoever makes more of it than a row.
    pub async fn row_of(&self, app: &App, change: &str, want: &[Want]) -> Row {
        let noted = self.noted(change).await;
        let landed = noted.iter().find(|n| n.kind == "landed").unwrap_or_else(|| panic!("it never landed: {noted:#?}"));
        let commit = at(&landed.data, "/commit").to_owned();
        let holding = self.people.holding(&commit);
        let verdicts: Vec<&Noted> =
            noted.iter().filter(|n| n.kind == "observed" && at(&n.data, "/verdict") != "waiting").collect();
        let said = verdicts.first().unwrap_or_else(|| panic!("nothing was said: {noted:#?}"));
        let live = |w: &World| want.iter().all(|x| (x.test)(w.get(x.kind, &self.name, &x.name)));
        let owner = |w: &World| {
            let (kind, namespace, name) = &app.owner;
            w.get(kind, namespace, name).cloned().unwrap_or_default()
        };
        let mut row = Row {
            scenario: self.scenario.clone(),
            engine: app.engine.name(),
            verdict: at(&said.data, "/verdict").to_owned(),
            code: at(&said.data, "/code").to_owned(),
            said_ms: said.at - landed.at,
            true_ms: None,
            delay_ms: None,
            note: "",
            others: self.heard_of(&commit, landed.at, &|w| !want.is_empty() && live(w)).await,
        };
        match at(&said.data, "/verdict") {
            "healthy" => {
                let (since, first) = self.history.since(landed.at, said.at, live);
                let early = since.is_none();
                assert!(
                    !early,
                    "{}: healthy was said {} ms after the commit, and it was not so (first so after {:?} ms)\n{}",
                    self.scenario,
                    row.said_ms,
                    first.map(|t| t - landed.at),
                    self.history.tail()
                );
                row.true_ms = since.map(|t| t - landed.at);
                let stable = i64::from(self.pace.stable_s) * 1000;
                let (decided, _) = self.history.since(landed.at, said.at, |w| live(w) && in_force(&owner(w), &holding));
                row.delay_ms = decided.map(|t| said.at - stable - t);
                if decided.is_none() {
                    row.note = "before the engine's own word";
                }
            }
            "failed" => {
                let failing = |w: &World| {
                    let sick = want
                        .iter()
                        .any(|x| x.kind == "Deployment" && w.get(x.kind, &self.name, &x.name).is_some_and(gave_up));
                    sick || engine_failed(&owner(w), &holding)
                };
                // An engine that tries again says for a moment that it is at work: the first word counts.
                let (_, first) = self.history.since(landed.at, said.at, failing);
                assert!(
                    first.is_some(),
                    "{}: failed was said {} ms after the commit, and nothing had failed\n{}",
                    self.scenario,
                    row.said_ms,
                    self.history.tail()
                );
                row.true_ms = first.map(|t| t - landed.at);
                row.delay_ms = first.map(|t| said.at - SETTLE_MS - t);
            }
            "superseded" => row.note = "another commit is live",
            other => panic!("{other}: {noted:#?}"),
        }
        row
    }

    /// What people's tools said of the commit, and whether it was so when they said it. None is waited for: who has
    /// not spoken when we have is still waiting, and may be right.
    async fn heard_of(
        &self,
        commit: &str,
        landed: i64,
        live: &(dyn Fn(&World) -> bool + Sync),
    ) -> [Option<Other>; TOOLS.len()] {
        // Our own watch may hear of it a little later than they did.
        tokio::time::sleep(Duration::from_millis(FAIR_MS.unsigned_abs())).await;
        let mut all = [None; TOOLS.len()];
        for said in self.others_on(commit) {
            if let (Some(slot), Some(t)) = (all.get_mut(said.tool), said.healthy) {
                let so = [t, t + FAIR_MS].iter().any(|t| self.history.since(landed, *t, live).0.is_some());
                *slot = Some(Other { after_ms: t - landed, so });
            }
        }
        all
    }

    /// The same for a scenario in which nothing is delivered, or nothing is to be measured.
    pub fn tell(&self, engine: Engine, what: &str) {
        let row = Row {
            scenario: self.scenario.clone(),
            engine: engine.name(),
            verdict: what.to_owned(),
            code: String::new(),
            said_ms: 0,
            true_ms: None,
            delay_ms: None,
            note: "nothing was delivered",
            others: Default::default(),
        };
        table::add(self.backend.name(), row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(at: i64, image: &str, generation: i64, observed: i64, updated: i64) -> Seen {
        let object = json!({
            "kind": "Deployment", "metadata": {"name": "web", "namespace": "p", "generation": generation},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": image}]}}},
            "status": {"observedGeneration": observed, "replicas": 2, "updatedReplicas": updated, "availableReplicas": 2},
        });
        Seen { at, gone: false, object }
    }

    fn history(seen: Vec<Seen>) -> History {
        History { seen: Arc::new(Mutex::new(seen)), tasks: Vec::new() }
    }

    fn live(w: &World) -> bool {
        (Want::image("web", "new").test)(w.get("Deployment", "p", "web"))
    }

    #[test]
    fn a_rollout_that_has_only_begun_is_not_the_truth() {
        // The status is still that of the generation before: everything looks finished.
        let seen = vec![
            web(100, "old", 1, 1, 2),
            web(200, "new", 2, 1, 2),
            web(300, "new", 2, 2, 1),
            web(400, "new", 2, 2, 2),
        ];
        let h = history(seen);
        assert_eq!(h.since(150, 350, live), (None, None), "healthy at 350 would be early");
        assert_eq!(h.since(150, 1000, live), (Some(400), Some(400)));
    }

    #[test]
    fn a_break_starts_it_anew() {
        let seen = vec![web(100, "new", 1, 1, 2), web(200, "new", 2, 1, 2), web(300, "new", 2, 2, 2)];
        let h = history(seen);
        assert_eq!(h.since(50, 250, live), (None, Some(100)));
        assert_eq!(h.since(150, 250, live), (None, Some(150)), "it was so when the commit came");
        assert_eq!(h.since(50, 400, live), (Some(300), Some(100)));
        assert_eq!(h.since(350, 400, live), (Some(350), Some(350)), "never before the commit");
    }

    #[test]
    fn what_is_gone_is_seen_as_gone() {
        let gone = Seen { gone: true, ..web(200, "new", 1, 1, 2) };
        let h = history(vec![web(100, "new", 1, 1, 2), gone]);
        let want = Want::gone("Deployment", "web");
        let (since, _) = h.since(0, 300, |w| (want.test)(w.get("Deployment", "p", "web")));
        assert_eq!(since, Some(200));
    }

    #[test]
    fn an_engine_is_believed_for_this_revision_alone() {
        let app = |revision: &str, sync: &str, phase: &str| json!({"kind": "Application", "status": {"sync": {"status": sync, "revision": revision}, "operationState": {"phase": phase}}});
        let holding = vec!["c".to_owned()];
        assert!(in_force(&app("c", "Synced", "Succeeded"), &holding));
        assert!(!in_force(&app("b", "Synced", "Succeeded"), &holding));
        assert!(!in_force(&app("c", "OutOfSync", "Succeeded"), &holding));
        assert!(!in_force(&app("c", "Synced", "Running"), &holding));
        let k = |applied: &str, ready: &str| {
            json!({"kind": "Kustomization", "metadata": {"generation": 1}, "status": {
                "observedGeneration": 1, "lastAppliedRevision": format!("main@sha1:{applied}"), "conditions": [{"type": "Ready", "status": ready}]}})
        };
        assert!(in_force(&k("c", "True"), &holding));
        assert!(!in_force(&k("b", "True"), &holding) && !in_force(&k("c", "Unknown"), &holding));
        let r = |attempted: i64, ready: &str, status: &str| {
            json!({"kind": "HelmRelease", "metadata": {"generation": 2}, "status": {
                "observedGeneration": 2, "lastAttemptedGeneration": attempted, "history": [{"status": status}],
                "conditions": [{"type": "Ready", "status": ready}]}})
        };
        assert!(in_force(&r(2, "True", "deployed"), &holding));
        for other in [r(1, "True", "deployed"), r(2, "Unknown", "deployed"), r(2, "True", "failed")] {
            assert!(!in_force(&other, &holding), "{other:#}");
        }
    }
}
