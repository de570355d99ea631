//! What a Flux HelmRelease, and the Kustomization that brings it, say about a commit.

use serde_json::Value;

use super::flux::{Kustomization, inventory};
use super::view::{Ask, Failure, SETTLE_MS, View};
use super::words::{quote, short};
use super::world::{Track, at, condition, int, is_true, text};
use crate::model::Code;

/// What a release attempt is of: the spec's generation and the chart's version.
type Attempt = (i64, String);

/// The failure of an attempt; it stands while the same attempt is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HrFailure {
    attempt: Attempt,
    words: String,
}

fn attempt(hr: &Value) -> Attempt {
    (int(hr, "/status/lastAttemptedGeneration").unwrap_or(0), text(hr, "/status/lastAttemptedRevision").to_owned())
}

/// Keeps what only the succession of states shows.
pub(super) fn follow(track: &mut Track, hr: &Value) {
    let attempt = attempt(hr);
    if track.hr.as_ref().is_some_and(|f| f.attempt != attempt) {
        track.hr = None;
    }
    let Some(ready) = condition(hr, "Ready") else { return };
    match text(ready, "/status") {
        "True" => track.hr = None,
        "False" if failing(text(ready, "/reason")) => {
            let words = quote(text(ready, "/message"));
            // A rollback's success is the end of the same failure; the first words say what went wrong.
            let first = track.hr.take().map(|f| f.words).filter(|w| !words.contains(w.as_str()));
            let words = match first {
                Some(first)
                    if text(ready, "/reason").starts_with("Rollback")
                        || text(ready, "/reason").starts_with("Uninstall") =>
                {
                    if first.contains(&words) {
                        first
                    } else {
                        quote(&format!("{first}; {words}"))
                    }
                }
                _ => words,
            };
            track.hr = Some(HrFailure { attempt, words });
        }
        "False" => track.hr = None,
        _ => {}
    }
}

/// Keeps from which source revision each version of the chart was built. The version is written last, so a pair
/// counts only once the chart's own words name it (source-controller: internal/controller/helmchart_controller.go).
pub(super) fn follow_chart(track: &mut Track, chart: &Value) {
    let (version, rev) =
        (text(chart, "/status/artifact/revision"), text(chart, "/status/observedSourceArtifactRevision"));
    let named = condition(chart, "Ready")
        .is_some_and(|c| text(c, "/status") == "True" && text(c, "/message").contains(&format!("'{version}'")));
    let pair = (version.to_owned(), rev.to_owned());
    if named && !version.is_empty() && !track.charts.contains(&pair) {
        if track.charts.len() >= CHARTS {
            track.charts.remove(0);
        }
        track.charts.push(pair);
    }
}

/// How many chart versions are kept.
const CHARTS: usize = 100;

/// Reasons of Ready=False that are failures of a release (helm-controller: api/v2/condition_types.go).
fn failing(reason: &str) -> bool {
    matches!(
        reason,
        "InstallFailed"
            | "UpgradeFailed"
            | "TestFailed"
            | "RollbackFailed"
            | "RollbackSucceeded"
            | "UninstallFailed"
            | "UninstallSucceeded"
            | "ReconciliationFailed"
            | "RetriesExceeded"
            | "MissingRollbackTarget"
            | "ArtifactFailed"
            | "ValuesError"
            | "AccessDenied"
            | "StateError"
            | "GetLastReleaseFailed"
    )
}

/// The Kustomization that brings the HelmRelease: the one whose inventory lists it, else the one its labels name.
fn parent<'a>(ask: &Ask<'a>, hr: Option<&Value>) -> Option<&'a Value> {
    let listed = ask.world.all("Kustomization").find(|ks| {
        inventory(ks).any(|(ns, name, group, kind)| {
            kind == "HelmRelease"
                && group == "helm.toolkit.fluxcd.io"
                && ns == ask.owner.namespace
                && name == ask.owner.name
        })
    });
    listed.or_else(|| {
        let label =
            |l: &str| text(hr?, &format!("/metadata/labels/kustomize.toolkit.fluxcd.io~1{l}")).to_owned().into();
        let (name, namespace): (Option<String>, Option<String>) = (label("name"), label("namespace"));
        ask.world.get("kustomize.toolkit.fluxcd.io", "Kustomization", &namespace?, &name.filter(|n| !n.is_empty())?)
    })
}

/// The chart of the release, where it is built from a source that can hold the commit.
fn chart<'a>(ask: &Ask<'a>, hr: &Value) -> Option<&'a Value> {
    let (namespace, name) = text(hr, "/status/helmChart").split_once('/')?;
    let chart = ask.world.get("source.toolkit.fluxcd.io", "HelmChart", namespace, name)?;
    ask.ancestry.knows(text(chart, "/status/observedSourceArtifactRevision")).then_some(chart)
}

/// Whether what the release attempts is made from the commit: spec as it is now, chart as built from the commit.
fn current(ask: &Ask, hr: &Value) -> bool {
    let generation = int(hr, "/metadata/generation").unwrap_or(0);
    let attempted = text(hr, "/status/lastAttemptedRevision");
    let chart_ok = chart(ask, hr).is_none_or(|c| {
        let track = ask.world.track("HelmChart", text(c, "/metadata/namespace"), text(c, "/metadata/name"));
        let built: Vec<&str> = track.charts.iter().filter(|(v, _)| v == attempted).map(|(_, r)| r.as_str()).collect();
        if built.is_empty() {
            text(c, "/status/artifact/revision") == attempted
                && ask.within([text(c, "/status/observedSourceArtifactRevision")])
        } else {
            ask.within(built)
        }
    });
    int(hr, "/status/lastAttemptedGeneration") == Some(generation) && chart_ok
}

/// Whether the release in force is the one attempted.
fn released(hr: &Value) -> bool {
    let agrees = |a: &str, b: &str| {
        let (a, b) = (text(hr, a), text(hr, b));
        a.is_empty() || b.is_empty() || a == b
    };
    let status = text(hr, "/status/history/0/status");
    condition(hr, "Ready").is_some_and(|c| text(c, "/status") == "True")
        && int(hr, "/status/observedGeneration") == int(hr, "/metadata/generation")
        && !is_true(hr, "Remediated")
        && (status.is_empty() || status == "deployed")
        && agrees("/status/history/0/configDigest", "/status/lastAttemptedConfigDigest")
        && agrees("/status/history/0/chartVersion", "/status/lastAttemptedRevision")
}

/// What the HelmRelease says about the commit.
pub(super) fn view(ask: &Ask) -> View {
    let hr = ask.world.owner(ask.owner);
    let mut view = View::waiting(Code::NotNoticed, format!("{} has not been seen.", ask.owner));
    let Some(ks) = parent(ask, hr) else {
        return without_parent(ask, hr, view);
    };
    let ks = Kustomization::of(ask, ks);
    view.taken = ks.taken();
    let about = ask.about(view.taken.iter().map(String::as_str).collect::<Vec<_>>());
    // The Kustomization's own health check waits for the release, whose word is the better one.
    view.failure = ks.failure(ask).filter(|f| f.code != Code::HealthCheckFailed);
    ks.wait(ask, &mut view);
    if let Some(failure) = hr.and_then(|hr| unpackable(ask, hr)) {
        view.failure = Some(failure);
        return view;
    }
    if !ks.sent {
        return view;
    }
    view.failure = None;
    match hr {
        Some(hr) => release(ask, hr, about, &mut view),
        None => view.wait(Code::Syncing, format!("{} is applied and has not been seen.", ask.owner)),
    }
    view
}

/// The chart cannot be built from the commit (source-controller: BuildFailed, FetchFailed of a HelmChart).
fn unpackable(ask: &Ask, hr: &Value) -> Option<Failure> {
    let c = chart(ask, hr)?;
    let (kind, code) = if is_true(c, "BuildFailed") {
        ("BuildFailed", Code::BuildFailed)
    } else {
        ("FetchFailed", Code::SourceFailed)
    };
    let words = condition(c, kind).filter(|c| text(c, "/status") == "True").map(|c| quote(text(c, "/message")))?;
    let say = format!("The chart cannot be built from {}: \"{words}\"", short(ask.commit));
    ask.about([text(c, "/status/observedSourceArtifactRevision")]).then_some(Failure {
        code,
        say,
        settle_ms: SETTLE_MS,
        hard: true,
    })
}

/// Nothing is known of a Kustomization: what the chart is made from is the only link to the commit.
fn without_parent(ask: &Ask, hr: Option<&Value>, mut view: View) -> View {
    let Some(hr) = hr else { return view };
    view.wait(Code::NotNoticed, format!("Nothing shows that {} was made from {}.", ask.owner, short(ask.commit)));
    let Some(c) = chart(ask, hr) else { return view };
    let rev = text(c, "/status/observedSourceArtifactRevision");
    view.taken.push(super::rev::hash(rev).to_owned());
    if ask.within([rev]) {
        let about = ask.about([rev]);
        release(ask, hr, about, &mut view);
    }
    view
}

/// The HelmRelease's spec is as the commit wants it: what became of the release?
fn release(ask: &Ask, hr: &Value, about: bool, view: &mut View) {
    let c = short(ask.commit);
    let track = ask.world.track("HelmRelease", &ask.owner.namespace, &ask.owner.name);
    let current = current(ask, hr);
    view.applied = current && released(hr);
    // Each kind has its own watch, so the Kustomization may be seen to have applied the commit a moment before the
    // HelmRelease is seen to have changed: until then the release of before looks like the commit's.
    view.reopened = !view.applied;
    // While a Helm action runs, it decides what a stuck rollout means: it may wait, retry or roll back.
    view.begun = view.applied && about;
    if view.applied {
        return view.wait(Code::Progressing, format!("{} has released {c}.", ask.owner));
    }
    if at(hr, "/spec/suspend").and_then(Value::as_bool) == Some(true) {
        return view.wait(Code::Suspended, format!("{} is suspended: {c} waits until somebody resumes it.", ask.owner));
    }
    let ready = condition(hr, "Ready");
    if let Some(r) = ready.filter(|r| text(r, "/reason") == "DependencyNotReady") {
        return view.wait(
            Code::Dependency,
            format!("{} waits for another one: \"{}\"", ask.owner, quote(text(r, "/message"))),
        );
    }
    let words = condition(hr, "Reconciling").or(ready).map(|r| quote(text(r, "/message"))).unwrap_or_default();
    let failure = track.hr.as_ref().filter(|f| f.attempt == attempt(hr));
    match failure {
        Some(f) if current && about => {
            let end = if is_true(hr, "Stalled") { " It does not try again by itself." } else { "" };
            let say = format!("The release of {c} failed: \"{}\".{end}", f.words);
            view.failure = Some(Failure { code: Code::ReleaseFailed, say, settle_ms: SETTLE_MS, hard: true });
            view.wait(Code::Retrying, format!("{} tries {c} again: \"{words}\"", ask.owner));
        }
        Some(f) if !current => view.wait(
            Code::HeldBack,
            format!(
                "{} is busy with an older release, which fails (\"{}\"), and comes to {c} after it.",
                ask.owner, f.words
            ),
        ),
        _ if int(hr, "/status/upgradeFailures").or(int(hr, "/status/installFailures")).unwrap_or(0) > 0 && current => {
            view.wait(Code::Retrying, format!("{} tries {c} again: \"{words}\"", ask.owner));
        }
        _ if current && words.starts_with("Running '") => {
            view.wait(Code::Progressing, format!("{} rolls {c} out: \"{words}\".", ask.owner));
        }
        _ => view.wait(Code::Syncing, format!("{} is at work on {c}: \"{words}\"", ask.owner)),
    }
}
