//! What an Argo CD Application says about a commit.

use serde_json::Value;

use super::rev::hash;
use super::view::{Ask, Failure, SETTLE_MS, SILENT_MS, TOLD_LATE_MS, View};
use super::words::{quote, short};
use super::world::{Standing, Track, at, int, text};
use crate::model::Code;

/// The branch-to-commit cache of the repo-server lasts 3 minutes: an error that outlives it is about the newest commit.
const REVISION_CACHE_MS: i64 = 200_000;
/// Automated sync starts within a second or so; this long without one is a sync window, or something like it.
const IDLE_MS: i64 = 8_000;
/// Where the project is known to have sync windows, less is enough.
const WINDOW_MS: i64 = 3_000;
/// A refresh may be asked for a moment before the push is told of.
const REFRESH_SLACK_MS: i64 = 1_000;
/// Conditions that say that the source cannot be compared at all.
const ERRORS: [&str; 3] = ["ComparisonError", "InvalidSpecError", "UnknownError"];

/// Keeps what only the succession of states shows.
pub(super) fn follow(track: &mut Track, app: &Value, now: i64, first: bool) {
    if at(app, "/metadata/annotations/argocd.argoproj.io~1refresh").is_some() {
        track.asked.get_or_insert(now);
    } else if let Some(asked) = track.asked.take() {
        track.answered = Some((asked, now));
    }
    let error = ERRORS.iter().find_map(|e| conditions(app).find(|c| text(c, "/type") == *e)).map(|c| {
        // Only this differs between the first telling and the repetition out of the cache.
        let words = text(c, "/message").replace("Manifest generation error (cached): ", "");
        (text(c, "/type").to_owned(), quote(&words))
    });
    track.error = Standing::next(track.error.as_ref(), error, now, first);
    let done = operation(app).filter(|o| !o.running && o.phase == "Succeeded");
    let start = done.map(|_| text(app, "/status/operationState/startedAt").to_owned());
    track.done = match (start, track.done.take()) {
        (Some(start), Some((same, since))) if same == start => Some((same, since)),
        (Some(start), _) => Some((start, now)),
        (None, _) => None,
    };
    let idle =
        text(app, "/status/sync/status") == "OutOfSync" && automated(app) && operation(app).is_none_or(|o| !o.running);
    let revision = sync_revisions(app).join(",");
    track.idle = match track.idle.take() {
        _ if !idle => None,
        Some((rev, since)) if rev == revision => Some((rev, since)),
        _ => Some((revision, now)),
    };
}

fn conditions(app: &Value) -> impl Iterator<Item = &Value> {
    at(app, "/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn automated(app: &Value) -> bool {
    at(app, "/spec/syncPolicy/automated").is_some_and(|a| a.get("enabled").and_then(Value::as_bool) != Some(false))
}

/// `revision` and `revisions` below a pointer.
fn revisions<'a>(v: &'a Value, pointer: &str) -> Vec<&'a str> {
    let Some(v) = at(v, pointer) else { return Vec::new() };
    let many = v.get("revisions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    v.get("revision").and_then(Value::as_str).into_iter().chain(many).filter(|r| !r.is_empty()).collect()
}

fn sync_revisions(app: &Value) -> Vec<&str> {
    revisions(app, "/status/sync")
}

/// The operation that runs or ran last.
struct Operation<'a> {
    running: bool,
    phase: &'a str,
    revs: Vec<&'a str>,
    message: &'a str,
    retries: i64,
    limit: Option<i64>,
    /// It has failed at least once.
    failing: bool,
}

fn operation(app: &Value) -> Option<Operation<'_>> {
    let state = at(app, "/status/operationState").filter(|s| s.get("phase").is_some());
    let requested = at(app, "/operation").filter(|o| o.as_object().is_some_and(|o| !o.is_empty()));
    let phase = state.map_or("", |s| text(s, "/phase"));
    let at_work = matches!(phase, "Running" | "Terminating");
    let own = state.map(|s| {
        let own = revisions(s, "/syncResult");
        if own.is_empty() { revisions(s, "/operation/sync") } else { own }
    });
    let asked = requested.map(|r| revisions(r, "/sync"));
    if let (Some(asked), false) = (asked, at_work) {
        // Posted and not begun: what is still in the status is the operation before.
        let revs = if asked.is_empty() { sync_revisions(app) } else { asked };
        return Some(Operation {
            running: true,
            phase: "",
            revs,
            message: "",
            retries: 0,
            limit: None,
            failing: false,
        });
    }
    let state = state?;
    let mut revs = own.unwrap_or_default();
    if revs.is_empty() {
        revs = sync_revisions(app);
    }
    let retries = int(state, "/retryCount").unwrap_or(0);
    let refused = at(state, "/syncResult/resources")
        .and_then(Value::as_array)
        .is_some_and(|r| r.iter().any(|r| text(r, "/status") == "SyncFailed" || text(r, "/hookPhase") == "Failed"));
    Some(Operation {
        running: at_work,
        phase,
        revs,
        message: text(state, "/message"),
        retries,
        limit: int(state, "/operation/retry/limit"),
        failing: at_work && (retries > 0 || refused || at(state, "/finishedAt").is_some()),
    })
}

/// Whether the comparison in the status was made with the spec as it is now.
fn compared_with_spec(app: &Value) -> bool {
    let same = |pointer: &str| {
        let (Some(spec), Some(compared)) =
            (at(app, &format!("/spec/{pointer}")), at(app, &format!("/status/sync/comparedTo/{pointer}")))
        else {
            return true;
        };
        let sources = |v: &Value| match v {
            Value::Array(a) => a.clone(),
            other => vec![other.clone()],
        };
        let (spec, compared) = (sources(spec), sources(compared));
        spec.len() == compared.len()
            && spec.iter().zip(&compared).all(|(s, c)| {
                ["repoURL", "path", "targetRevision", "chart"]
                    .iter()
                    .all(|f| text(s, &format!("/{f}")) == text(c, &format!("/{f}")))
            })
    };
    // Where `sources` is set, `source` is ignored (argo-cd: Application.Spec.GetSources).
    if at(app, "/spec/sources").and_then(Value::as_array).is_some_and(|s| !s.is_empty()) {
        same("sources")
    } else {
        same("source")
    }
}

/// What the Application says about the commit.
pub(super) fn view(ask: &Ask) -> View {
    let Some(app) = ask.world.owner(ask.owner) else {
        return View::waiting(Code::NotNoticed, format!("{} has not been seen.", ask.owner));
    };
    let track = ask.world.track("Application", &ask.owner.namespace, &ask.owner.name);
    let revs = sync_revisions(app);
    let synced = text(app, "/status/sync/status") == "Synced";
    let noticed = ask.within(revs.iter().copied());
    let op = operation(app);
    let mut view = View::waiting(
        Code::NotNoticed,
        format!("Argo CD has not compared {} yet; without a refresh it may take minutes.", short(ask.commit)),
    );
    view.applied = synced && noticed && compared_with_spec(app);
    view.applied_without = synced && ask.without(revs.iter().copied());
    if synced {
        view.taken.extend(revs.iter().map(|r| hash(r).to_owned()));
        view.begun |= ask.about(revs.iter().copied());
    }
    if let Some(op) = &op {
        if op.running || op.phase == "Succeeded" {
            view.taken.extend(op.revs.iter().map(|r| hash(r).to_owned()));
        }
        view.begun |= ask.about(op.revs.iter().copied());
        view.busy = op.running && ask.about(op.revs.iter().copied());
    }
    view.failure =
        failed_operation(ask, app, op.as_ref()).or_else(|| comparison_error(ask, &track, &mut view.deadline));
    wait(ask, app, &track, op.as_ref(), noticed, &mut view);
    view
}

fn failed_operation(ask: &Ask, app: &Value, op: Option<&Operation>) -> Option<Failure> {
    let fail = |code, say| Some(Failure { code, say, settle_ms: SETTLE_MS, hard: true });
    if let Some(op) = op
        && !op.running
        && matches!(op.phase, "Failed" | "Error")
        && ask.about(op.revs.iter().copied())
    {
        let code = if refused(op.message) { Code::Forbidden } else { Code::SyncFailed };
        return fail(
            code,
            format!(
                "The sync of {} failed, and Argo CD does not try this commit again by itself: \"{}\"",
                short(ask.commit),
                quote(op.message)
            ),
        );
    }
    // Prune of everything is refused without an operation (argo-cd: controller/appcontroller.go autoSync).
    let guard =
        conditions(app).find(|c| text(c, "/type") == "SyncError" && text(c, "/message").contains("wipe out"))?;
    (ask.about(sync_revisions(app)) && text(app, "/status/sync/status") == "OutOfSync")
        .then(|| fail(Code::SyncFailed, format!("Argo CD refuses to sync: \"{}\"", quote(text(guard, "/message")))))?
}

fn refused(message: &str) -> bool {
    message.contains("not permitted in project")
        || message.contains("is not permitted")
        || message.contains("is forbidden:")
        || message.contains("(Forbidden)")
}

/// A standing error of comparison, if there is reason to think that this commit was compared.
fn comparison_error(ask: &Ask, track: &Track, deadline: &mut Option<i64>) -> Option<Failure> {
    let error = track.error.as_ref()?;
    // Where an earlier commit may be the cause, the error must come after the push.
    let slack = if ask.follows { 0 } else { TOLD_LATE_MS };
    let appeared = error.since > ask.since.saturating_sub(slack) && !error.at_first_sight;
    let compared = track
        .answered
        .filter(|(asked, done)| *done > ask.since && *asked >= ask.since.saturating_sub(REFRESH_SLACK_MS));
    let outlived = error.since.max(ask.since).saturating_add(REVISION_CACHE_MS);
    let since = if appeared {
        error.since
    } else if let Some((_, done)) = compared {
        done
    } else if ask.now >= outlived {
        outlived
    } else {
        *deadline = Some(outlived);
        return None;
    };
    // A later commit of the same owner that was there before the error has the better claim to it.
    if ask.later.iter().any(|(_, known)| *known <= since) {
        return None;
    }
    let code = if refused(&error.words) || error.words.contains("do not match any of the allowed destinations") {
        Code::Forbidden
    } else {
        Code::ComparisonError
    };
    let say = format!("Argo CD cannot compare {} ({}): \"{}\"", short(ask.commit), error.kind, error.words);
    Some(Failure { code, say, settle_ms: SETTLE_MS, hard: false })
}

fn wait(ask: &Ask, app: &Value, track: &Track, op: Option<&Operation>, noticed: bool, view: &mut View) {
    let c = short(ask.commit);
    let frozen = text(app, "/metadata/annotations/argocd.argoproj.io~1skip-reconcile") == "true";
    if frozen && !view.applied {
        return view.wait(
            Code::Suspended,
            "The Application carries argocd.argoproj.io/skip-reconcile, so Argo CD does nothing about it.",
        );
    }
    let running = op.filter(|o| o.running);
    if let Some(op) = running.filter(|o| o.message.contains("blocked by sync window")) {
        return view
            .wait(Code::SyncWindow, format!("\"{}\"; it goes on by itself when the window ends.", quote(op.message)));
    }
    if let Some(op) = running.filter(|o| ask.about(o.revs.iter().copied())) {
        return if op.failing {
            let limit =
                op.limit.map_or_else(String::new, |l| if l < 0 { " of any number".into() } else { format!(" of {l}") });
            view.wait(
                Code::Retrying,
                format!(
                    "The sync of {c} failed and is tried again (retry {}{limit}): \"{}\"",
                    op.retries,
                    quote(op.message)
                ),
            )
        } else {
            let words = if op.message.is_empty() { String::new() } else { format!(": \"{}\"", quote(op.message)) };
            view.wait(Code::Syncing, format!("Argo CD is syncing {c}{words}."))
        };
    }
    if !noticed {
        if let Some(asked) = track.asked {
            let say = format!(
                "The refresh that was asked for {} s ago is unanswered: the application controller seems to be down.",
                ask.now.saturating_sub(asked) / 1000
            );
            view.wait_longer(Some(asked.max(ask.since)), SILENT_MS, ask.now, (Code::EngineDown, say));
        }
        return;
    }
    if let Some(op) = running {
        let other = op.revs.first().map(|r| short(r)).unwrap_or_default();
        let blocked = op.failing || op.message.starts_with("waiting for");
        return if blocked && !ask.within(op.revs.iter().copied()) {
            view.wait(
                Code::HeldBack,
                format!(
                    "Argo CD knows {c} but is busy with {other}, which fails (retry {}): \"{}\". It comes to {c} when that operation ends; a person may terminate it.",
                    op.retries,
                    quote(op.message)
                ),
            )
        } else {
            view.wait(Code::Syncing, format!("Argo CD is syncing {other}; {c} is next."))
        };
    }
    if view.applied {
        return view.wait(Code::Progressing, format!("Argo CD has applied {c}."));
    }
    out_of_sync(ask, app, track, op, view);
}

/// Compared, differing, and no operation runs.
fn out_of_sync(ask: &Ask, app: &Value, track: &Track, op: Option<&Operation>, view: &mut View) {
    let c = short(ask.commit);
    if text(app, "/status/sync/status") == "OutOfSync" {
        let done = op.is_some_and(|o| o.phase == "Succeeded" && ask.within(o.revs.iter().copied()));
        if !automated(app) {
            let say = format!(
                "Argo CD has compared {c} and does not sync this Application by itself: a person has to start the sync."
            );
            if !done {
                return view.wait(Code::ManualSync, say);
            }
            // The comparison in the status is from before the operation, for a moment.
            view.wait(Code::Syncing, format!("Argo CD has synced {c} and has yet to compare again."));
            return view.wait_longer(track.done.as_ref().map(|(_, t)| *t), IDLE_MS, ask.now, (Code::ManualSync, say));
        }
        let waiting: Vec<&Value> = at(app, "/status/resources")
            .and_then(Value::as_array)
            .map(|r| r.iter().filter(|r| text(r, "/status") == "OutOfSync").collect())
            .unwrap_or_default();
        let prune = |r: &&Value| r.get("requiresPruning").and_then(Value::as_bool) == Some(true);
        if done && !waiting.is_empty() && waiting.iter().all(prune) {
            return view.wait(
                Code::ManualSync,
                format!("{c} is applied but for what it deletes: pruning is off, a person has to prune."),
            );
        }
        view.wait(Code::Syncing, format!("Argo CD has compared {c} and is about to sync it."));
        if !done && let Some((say, after)) = window(ask, app) {
            let since = track.idle.as_ref().map(|(_, t)| (*t).max(ask.since));
            view.wait_longer(since, after, ask.now, (Code::SyncWindow, say));
        }
        return;
    }
    view.wait(Code::Syncing, format!("Argo CD is comparing {c}."));
}

/// Why an automated sync may not start: the project's windows, or `None` where it is known to have none.
/// Argo CD writes nothing in the Application when a window keeps an automated sync back.
fn window(ask: &Ask, app: &Value) -> Option<(String, i64)> {
    let name = text(app, "/spec/project");
    let project = ask.world.all("AppProject").find(|p| text(p, "/metadata/name") == name);
    let Some(project) = project else {
        let say = "Argo CD is out of sync and does not start the automated sync: most likely a sync window of its project is in force.";
        return Some((say.into(), IDLE_MS));
    };
    let windows = at(project, "/spec/syncWindows").and_then(Value::as_array).filter(|w| !w.is_empty())?;
    let words: Vec<String> = windows
        .iter()
        .take(5)
        .map(|w| quote(&format!("{} \"{}\" for {}", text(w, "/kind"), text(w, "/schedule"), text(w, "/duration"))))
        .collect();
    let say = format!(
        "The automated sync does not start; the project {} has sync windows: {}.",
        quote(name),
        words.join(", ")
    );
    Some((say, WINDOW_MS))
}
