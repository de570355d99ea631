//! What a Flux Kustomization and its source say about a commit.

use serde_json::Value;

use super::rev::{hash, in_message};
use super::view::{Ask, FETCH_SETTLE_MS, Failure, SETTLE_MS, SILENT_MS, View};
use super::words::{quote, short};
use super::world::{Standing, Track, at, condition, is_true, text};
use crate::model::Code;

/// The failure of a revision. It stands while Flux tries the same revision again, so that a verdict does not
/// swing with each attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KsFailure {
    /// Revision that failed.
    pub rev: String,
    /// What it is called.
    pub code: Code,
    /// The engine's words, quoted.
    pub words: String,
}

/// The revision that a Kustomization is at work on: the one its `Reconciling` names, because
/// `lastAttemptedRevision` is written only once the artifact is there and the path exists
/// (kustomize-controller: internal/controller/kustomization_controller.go).
fn attempting(ks: &Value) -> &str {
    condition(ks, "Reconciling")
        .and_then(|c| in_message(text(c, "/message")))
        .unwrap_or_else(|| text(ks, "/status/lastAttemptedRevision"))
}

/// Keeps what only the succession of states shows.
pub(super) fn follow(track: &mut Track, ks: &Value, now: i64) {
    asked(track, ks, now);
    let rev = hash(attempting(ks)).to_owned();
    if track.ks.as_ref().is_some_and(|f| f.rev != rev) {
        track.ks = None;
    }
    if let Some(sent) = sent(ks) {
        track.sent = Some(hash(sent).to_owned());
    }
    let Some(ready) = condition(ks, "Ready") else { return };
    match text(ready, "/status") {
        "True" => track.ks = None,
        "False" => {
            track.ks = failure_code(text(ready, "/reason"), text(ready, "/message")).map(|code| KsFailure {
                rev,
                code,
                words: quote(text(ready, "/message")),
            });
        }
        _ => {}
    }
}

/// The revision whose objects are at the API server: from then on Flux only waits for health.
fn sent(ks: &Value) -> Option<&str> {
    let says = |kind: &str, start: &str| {
        condition(ks, kind).map(|c| text(c, "/message")).filter(|m| m.starts_with(start)).and_then(in_message)
    };
    let checked = condition(ks, "Ready").is_some_and(|c| text(c, "/reason") == "HealthCheckFailed");
    says("Reconciling", "Running health checks")
        .or_else(|| says("Healthy", "Running health checks"))
        .or_else(|| checked.then(|| attempting(ks)))
        .or_else(|| says("Ready", "Applied revision"))
}

fn asked(track: &mut Track, o: &Value, now: i64) {
    let token = text(o, "/metadata/annotations/reconcile.fluxcd.io~1requestedAt");
    let open = !token.is_empty() && token != text(o, "/status/lastHandledReconcileAt");
    track.asked = open.then(|| track.asked.unwrap_or(now));
}

/// Keeps what only the succession of a source's states shows.
pub(super) fn follow_source(track: &mut Track, source: &Value, now: i64, first: bool) {
    asked(track, source, now);
    let rev = text(source, "/status/artifact/revision");
    if track.artifact.as_ref().is_none_or(|(r, _)| r != rev) {
        track.artifact = Some((rev.to_owned(), now));
    }
    let failed = ["FetchFailed", "StorageOperationFailed"]
        .iter()
        .filter(|k| is_true(source, k))
        .find_map(|k| condition(source, k))
        .or_else(|| condition(source, "SourceVerified").filter(|c| text(c, "/status") == "False"));
    let failed = failed.map(|c| (text(c, "/type").to_owned(), quote(text(c, "/message"))));
    track.fetch = Standing::next(track.fetch.as_ref(), failed, now, first);
}

/// The code of a Ready=False; `None` where it is no failure.
fn failure_code(reason: &str, message: &str) -> Option<Code> {
    let forbidden = message.contains("(Forbidden)") || message.contains("is forbidden:");
    match reason {
        "DependencyNotReady" | "Progressing" | "HealthCheckCanceled" | "Suspended" | "" => None,
        "BuildFailed" => Some(Code::BuildFailed),
        "HealthCheckFailed" => Some(Code::HealthCheckFailed),
        "ArtifactFailed" if message.contains("path not found") => Some(Code::PathMissing),
        // "Source artifact not found, retrying": the source is young, or being rebuilt.
        "ArtifactFailed" if message.contains("retrying") => None,
        "ArtifactFailed" | "SourceNotFound" => Some(Code::SourceFailed),
        "AccessDenied" => Some(Code::Forbidden),
        _ if forbidden => Some(Code::Forbidden),
        _ => Some(Code::ApplyFailed),
    }
}

/// What there is to know about a Kustomization and one commit.
pub(super) struct Kustomization<'a> {
    ks: &'a Value,
    name: String,
    track: Track,
    source: Option<&'a Value>,
    source_name: String,
    source_track: Track,
    /// The source's artifact contains the commit.
    pub fetched: bool,
    /// A revision with the commit is in force (applied and, where asked for, found healthy).
    pub applied: bool,
    /// The objects of a revision with the commit were sent to the API server.
    pub sent: bool,
    /// The revision at work contains the commit.
    pub attempted: bool,
}

impl<'a> Kustomization<'a> {
    pub(super) fn of(ask: &Ask<'a>, ks: &'a Value) -> Self {
        let (namespace, name) = (text(ks, "/metadata/namespace"), text(ks, "/metadata/name"));
        let kind = text(ks, "/spec/sourceRef/kind");
        let source_ns = Some(text(ks, "/spec/sourceRef/namespace")).filter(|n| !n.is_empty()).unwrap_or(namespace);
        let source_name = text(ks, "/spec/sourceRef/name");
        let source = ask.world.get("", kind, source_ns, source_name);
        let revs = source.map(artifact_revisions).unwrap_or_default();
        let applied = ask.within(in_force(ks));
        let track = ask.world.track("Kustomization", namespace, name);
        let sent = applied || ask.within(track.sent.as_deref());
        Self {
            ks,
            name: format!("Kustomization {namespace}/{name}"),
            track,
            source,
            source_name: format!("{kind} {source_ns}/{source_name}"),
            source_track: ask.world.track(kind, source_ns, source_name),
            fetched: ask.within(revs),
            applied,
            sent,
            attempted: applied || ask.within([attempting(ks)]),
        }
    }

    /// Revisions in force and at work.
    pub(super) fn taken(&self) -> Vec<String> {
        in_force(self.ks)
            .into_iter()
            .chain([attempting(self.ks)])
            .filter(|r| !r.is_empty())
            .map(|r| hash(r).to_owned())
            .collect()
    }

    /// The failure of the commit, if there is one.
    pub(super) fn failure(&self, ask: &Ask) -> Option<Failure> {
        if let Some(f) = self.track.ks.as_ref().filter(|f| ask.about([f.rev.as_str()])) {
            let again = match text(self.ks, "/spec/retryInterval") {
                "" => text(self.ks, "/spec/interval"),
                r => r,
            };
            let again =
                if again.is_empty() { String::new() } else { format!(" Flux tries again every {}.", quote(again)) };
            let settle_ms = if f.code == Code::SourceFailed { FETCH_SETTLE_MS } else { SETTLE_MS };
            let say = format!("{} failed on {} ({}): \"{}\".{again}", self.name, short(ask.commit), f.code, f.words);
            return Some(Failure { code: f.code, say, settle_ms, hard: false });
        }
        let fetch = self.source_track.fetch.as_ref().filter(|_| !self.fetched && !self.attempted)?;
        let say = format!(
            "{} cannot be fetched, so {} cannot arrive: \"{}\"",
            self.source_name,
            short(ask.commit),
            fetch.words
        );
        Some(Failure { code: Code::SourceFailed, say, settle_ms: FETCH_SETTLE_MS, hard: false })
    }

    /// What is waited for until the objects of the commit are applied.
    pub(super) fn wait(&self, ask: &Ask, view: &mut View) {
        let c = short(ask.commit);
        let on = |o: &Value| at(o, "/spec/suspend").and_then(Value::as_bool) == Some(true);
        if on(self.ks) {
            return view.wait(
                Code::Suspended,
                format!("{} is suspended (and may still say Ready): {c} waits until somebody resumes it.", self.name),
            );
        }
        if !self.fetched && !self.attempted {
            if self.source.is_some_and(on) {
                return view.wait(
                    Code::Suspended,
                    format!("{} is suspended: {c} waits until somebody resumes it.", self.source_name),
                );
            }
            view.wait(Code::NotNoticed, format!("{} has not fetched {c} yet.", self.source_name));
            let asked = self.source_track.asked.map(|t| t.max(ask.since));
            let silent = format!(
                "{} leaves the request to fetch unanswered: source-controller seems to be down.",
                self.source_name
            );
            return view.wait_longer(asked, SILENT_MS, ask.now, (Code::EngineDown, silent));
        }
        let ready = condition(self.ks, "Ready");
        if let Some(r) = ready.filter(|r| text(r, "/reason") == "DependencyNotReady") {
            return view.wait(
                Code::Dependency,
                format!("{} waits for another one: \"{}\"", self.name, quote(text(r, "/message"))),
            );
        }
        if self.sent {
            let health = if self.applied { "" } else { " and has yet to finish (health checks, where asked for)" };
            return view.wait(Code::Progressing, format!("{} has applied {c}{health}.", self.name));
        }
        if self.attempted {
            let words = condition(self.ks, "Reconciling").map(|r| quote(text(r, "/message"))).unwrap_or_default();
            return view.wait(Code::Syncing, format!("{} is at work on {c}: \"{words}\"", self.name));
        }
        self.behind(ask, view, ready);
    }

    /// The source has the commit, and the Kustomization is at an older revision.
    fn behind(&self, ask: &Ask, view: &mut View, ready: Option<&Value>) {
        let c = short(ask.commit);
        let other = short(hash(attempting(self.ks)));
        if is_true(self.ks, "Reconciling") {
            let words = condition(self.ks, "Reconciling").map(|r| quote(text(r, "/message"))).unwrap_or_default();
            return if self.track.ks.is_some() || sick(ask, self.ks) {
                view.wait(
                    Code::HeldBack,
                    format!(
                        "{} is busy with {other}, which fails, and comes to {c} when that attempt ends: \"{words}\"",
                        self.name
                    ),
                )
            } else {
                view.wait(Code::Syncing, format!("{} finishes {other} first; {c} is next: \"{words}\"", self.name))
            };
        }
        let words = ready.map(|r| quote(text(r, "/message"))).unwrap_or_default();
        view.wait(Code::Syncing, format!("{} has not begun on {c} yet (\"{words}\").", self.name));
        let since = self.source_track.artifact.as_ref().map(|(_, t)| (*t).max(ask.since));
        let silent = format!(
            "{} does not begin on {c}, which its source has: kustomize-controller seems to be down.",
            self.name
        );
        view.wait_longer(since, SILENT_MS, ask.now, (Code::EngineDown, silent));
    }
}

/// Whether a workload of the inventory says that it failed.
fn sick(ask: &Ask, ks: &Value) -> bool {
    inventory(ks).any(|(namespace, name, group, kind)| {
        ask.world
            .get(group, kind, namespace, name)
            .is_some_and(|o| matches!(super::workload::rollout(o), super::workload::Rollout::Degraded(_)))
    })
}

/// Entries of `status.inventory`: namespace, name, group, kind (fluxcd/cli-utils: pkg/object/objmetadata.go).
pub(super) fn inventory(o: &Value) -> impl Iterator<Item = (&str, &str, &str, &str)> {
    at(o, "/status/inventory/entries").and_then(Value::as_array).into_iter().flatten().filter_map(|e| {
        let (namespace, rest) = text(e, "/id").split_once('_')?;
        let (rest, kind) = rest.rsplit_once('_')?;
        let (name, group) = rest.rsplit_once('_')?;
        Some((namespace, name, group, kind))
    })
}

/// Revisions that a Kustomization has in force; of an OCI source the one that it was made from.
fn in_force(ks: &Value) -> Vec<&str> {
    ["/status/lastAppliedRevision", "/status/lastAppliedOriginRevision"]
        .iter()
        .map(|p| text(ks, p))
        .filter(|r| !r.is_empty())
        .collect()
}

fn artifact_revisions(source: &Value) -> Vec<&str> {
    ["/status/artifact/revision", "/status/artifact/metadata/org.opencontainers.image.revision"]
        .iter()
        .map(|p| text(source, p))
        .filter(|r| !r.is_empty())
        .collect()
}

/// What the Kustomization says about the commit.
pub(super) fn view(ask: &Ask) -> View {
    let Some(object) = ask.world.owner(ask.owner) else {
        return View::waiting(Code::NotNoticed, format!("{} has not been seen.", ask.owner));
    };
    let ks = Kustomization::of(ask, object);
    let mut view = View::waiting(Code::NotNoticed, String::new());
    view.applied = ks.applied;
    view.applied_without = ask.without(in_force(object));
    view.taken = ks.taken();
    view.begun = ask.about(in_force(object).into_iter().chain([attempting(object)]));
    view.failure = ks.failure(ask);
    ks.wait(ask, &mut view);
    view
}
