//! Argo CD.

use chrono::{DateTime, Utc};
use countersign_core::model::{DeliveryState, ObjectKey, OwnerRef};
use countersign_core::ownership::full_hash;
use serde_json::Value;

use super::text::{at, flag, list, quote, short};
use super::{Hint, Standing, suspension, windows};

const REFRESH: &str = "argocd.argoproj.io/refresh";

/// What stands between a commit and the cluster for an Application.
pub fn delivery_state(standing: Standing<'_>, now: DateTime<Utc>) -> DeliveryState {
    let app = standing.object;
    let automated = app.pointer("/spec/syncPolicy/automated").filter(|a| !a.is_null());
    // `enabled: false` switches it off since 3.1.
    let automatic = automated.is_some_and(|a| a.get("enabled").and_then(Value::as_bool).unwrap_or(true));
    let mut state = DeliveryState {
        automatic,
        prune: automatic && flag(app, "/spec/syncPolicy/automated/prune"),
        suspended: suspension(app),
        window: standing.project.and_then(|p| windows::blocked(p, app, !automatic, now)),
        notes: Vec::new(),
    };
    if !automatic {
        let rolling = standing
            .parents
            .iter()
            .any(|p| at(p, "/kind") == "ApplicationSet" && at(p, "/spec/strategy/type") == "RollingSync");
        state.notes.push(if rolling {
            "its ApplicationSet syncs step by step (RollingSync)".to_owned()
        } else {
            "automatic sync is off: a person has to sync it after the commit".to_owned()
        });
    }
    if let Some(held) = held_back(app) {
        state.notes.push(held);
    }
    for pointer in standing.pointers {
        state.notes.extend(standing.live.and_then(|(key, _)| ignored(app, key, pointer)));
    }
    if let Some((key, live)) = standing.live {
        state.notes.extend(live_options(key, live));
    }
    state.notes.extend(conditions(app));
    state
}

/// Conditions that are there hold now: the comparison fails, or the object is shared.
fn conditions(app: &Value) -> Vec<String> {
    let told = list(app, "/status/conditions").iter().filter(|c| {
        matches!(
            at(c, "/type"),
            "ComparisonError" | "InvalidSpecError" | "SyncError" | "UnknownError" | "SharedResourceWarning"
        )
    });
    told.take(3).map(|c| format!("{}: {}", at(c, "/type"), quote(at(c, "/message")))).collect()
}

/// An operation that runs or retries keeps every newer commit waiting (recordings, `argo-invalid-field`).
fn held_back(app: &Value) -> Option<String> {
    let state = app.pointer("/status/operationState")?;
    if !matches!(at(state, "/phase"), "Running" | "Terminating") {
        return None;
    }
    let retries = state.get("retryCount").and_then(Value::as_i64).unwrap_or(0);
    // Running with `finishedAt` waits for its next attempt.
    let retrying = retries > 0 || !at(state, "/finishedAt").is_empty();
    let revision = full_hash(at(state, "/syncResult/revision"))
        .or_else(|| full_hash(at(state, "/operation/sync/revision")))
        .map_or_else(|| "an older revision".to_owned(), |r| short(&r));
    Some(if retrying {
        format!(
            "an operation on {revision} is failing and being retried; newer commits wait for it: {}",
            quote(at(state, "/message"))
        )
    } else {
        format!("an operation on {revision} is running; newer commits wait for it")
    })
}

/// `ignoreDifferences` that covers the field: the commit looks synced, and nothing happens
/// (an automatic sync never starts for it).
fn ignored(app: &Value, key: &ObjectKey, pointer: &str) -> Option<String> {
    let any = |rule: &Value, p: &str, wanted: &str| {
        let value = at(rule, p);
        value.is_empty() || value == wanted || value == "*"
    };
    let rules = list(app, "/spec/ignoreDifferences").iter().filter(|rule| {
        let group = at(rule, "/group");
        (group == key.group || group == "*")
            && (at(rule, "/kind") == key.kind || at(rule, "/kind") == "*")
            && any(rule, "/name", &key.name)
            && any(rule, "/namespace", &key.namespace)
    });
    for rule in rules {
        let pointers = list(rule, "/jsonPointers").iter().filter_map(Value::as_str);
        if pointers.into_iter().any(|p| covers(p, pointer) || covers(pointer, p)) {
            return Some(format!(
                "ignoreDifferences covers {pointer}: a commit there looks synced and changes nothing"
            ));
        }
        let expressions: Vec<&str> = list(rule, "/jqPathExpressions").iter().filter_map(Value::as_str).collect();
        if let Some(expression) = expressions.iter().find(|e| jq_may_cover(e, pointer)) {
            return Some(format!("ignoreDifferences may cover {pointer}: {}", quote(expression)));
        }
        if !list(rule, "/managedFieldsManagers").is_empty() {
            return Some(format!("ignoreDifferences may cover {pointer}: it leaves fields to other managers"));
        }
    }
    None
}

fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Plain paths are compared; anything cleverer counts when it names the field at all.
fn jq_may_cover(expression: &str, pointer: &str) -> bool {
    let plain = expression.trim().bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if plain {
        let path = expression.trim().replace('.', "/");
        return covers(&path, pointer) || covers(pointer, &path);
    }
    pointer.split('/').filter(|p| p.parse::<usize>().is_err() && p.len() > 2).any(|part| expression.contains(part))
}

/// Sync options that the live object itself carries.
fn live_options(key: &ObjectKey, live: &Value) -> Vec<String> {
    let annotations = live.pointer("/metadata/annotations").unwrap_or(&Value::Null);
    let options = annotations.get("argocd.argoproj.io/sync-options").and_then(Value::as_str).unwrap_or("");
    let has = |wanted: &str| options.split(',').any(|o| o.trim().eq_ignore_ascii_case(wanted));
    let mut notes = Vec::new();
    if has("Prune=false") {
        notes.push(format!("{key} carries Prune=false: removing it from Git leaves it in the cluster"));
    }
    if has("Prune=confirm") || has("Delete=confirm") {
        notes.push(format!("{key} is only removed after a person confirms it in Argo CD"));
    }
    if has("Replace=true") {
        notes.push(format!("{key} carries Replace=true: it is replaced as a whole"));
    }
    notes
}

/// `refresh: normal`; `hard` only when an error is cached, which a normal refresh would keep
/// (recordings, `argo-yaml-broken-then-fixed`).
pub fn hint(owner: &OwnerRef, app: &Value) -> Hint {
    let cached = list(app, "/status/conditions")
        .iter()
        .any(|c| at(c, "/type") == "ComparisonError" && at(c, "/message").contains("(cached)"));
    Hint { on: owner.key(), annotation: REFRESH, value: if cached { "hard" } else { "normal" }.to_owned() }
}

/// What a person can do about an operation that holds newer commits back.
pub fn repair_hint(owner: &OwnerRef, app: &Value) -> Option<String> {
    held_back(app)?;
    let next = next_attempt(at(app, "/status/operationState/message"));
    let next = next.map_or_else(String::new, |t| format!(" The next attempt is at {t}."));
    Some(format!(
        "{owner} is busy with an older operation.{next} A person can end it: argocd app terminate-op {}",
        countersign_core::ownership::instance_name(
            &owner.namespace,
            &owner.name,
            Some(at(app, "/status/controllerNamespace")).filter(|n| !n.is_empty()).unwrap_or(&owner.namespace)
        )
        .replace('_', "/")
    ))
}

/// The time in "Retrying attempt #3 at 8:21AM." (argo-cd: controller/appcontroller.go).
fn next_attempt(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Retrying attempt #")?;
    let (_, time) = rest.split_once(" at ")?;
    let time: String =
        time.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '+' | '.')).collect();
    Some(time.trim_end_matches('.').to_owned()).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use countersign_core::model::Engine;
    use serde_json::json;

    use super::*;

    fn owner() -> OwnerRef {
        OwnerRef::new(Engine::Argocd, "Application", "argocd", "a1")
    }

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-21T08:30:00Z").unwrap().with_timezone(&Utc)
    }

    fn state(app: &Value, pointers: &[String]) -> DeliveryState {
        let owner = owner();
        let key = ObjectKey::new("apps", "Deployment", "a1", "a1");
        let live = json!({});
        let standing = Standing {
            owner: &owner,
            object: app,
            source: None,
            project: None,
            parents: &[],
            live: Some((&key, &live)),
            pointers,
        };
        super::super::delivery_state(standing, now())
    }

    #[test]
    fn automatic_and_manual_and_switched_off_are_told_apart() {
        let auto = json!({"spec": {"syncPolicy": {"automated": {"prune": true}}}});
        assert_eq!(state(&auto, &[]), DeliveryState { automatic: true, prune: true, ..DeliveryState::default() });
        let manual = state(&json!({"spec": {}}), &[]);
        assert!(!manual.automatic && manual.notes[0].contains("a person has to sync"));
        let off = json!({"spec": {"syncPolicy": {"automated": {"enabled": false, "prune": true}}}});
        assert!(!state(&off, &[]).automatic && !state(&off, &[]).prune);
    }

    #[test]
    fn skip_reconcile_is_a_suspension() {
        let app = json!({"kind": "Application", "metadata": {"namespace": "argocd", "name": "a1",
            "annotations": {"argocd.argoproj.io/skip-reconcile": "true"}}});
        assert!(state(&app, &[]).suspended.unwrap().contains("skip-reconcile"));
    }

    #[test]
    fn a_field_under_ignore_differences_is_told() {
        let app = |rule: Value| json!({"spec": {"syncPolicy": {"automated": {}}, "ignoreDifferences": [rule]}});
        let pointer = ["/spec/replicas".to_owned()];
        let notes = |rule| state(&app(rule), &pointer).notes;
        assert!(
            notes(json!({"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]}))[0]
                .contains("changes nothing")
        );
        assert!(
            notes(json!({"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec"]}))[0]
                .contains("changes nothing")
        );
        assert!(
            notes(json!({"group": "apps", "kind": "Deployment", "jqPathExpressions": [".spec.replicas"]}))[0]
                .contains("may cover")
        );
        assert!(notes(json!({"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/rep"]})).is_empty());
        assert!(
            notes(json!({"group": "apps", "kind": "Deployment", "name": "other", "jsonPointers": ["/spec/replicas"]}))
                .is_empty()
        );
        assert!(notes(json!({"kind": "Deployment", "jsonPointers": ["/spec/replicas"]})).is_empty(), "another group");
    }

    #[test]
    fn a_retrying_operation_holds_newer_commits_back_and_can_be_ended_by_a_person() {
        // From the recording argo-invalid-field.
        let app = json!({"spec": {"syncPolicy": {"automated": {}}}, "status": {"controllerNamespace": "argocd", "operationState": {
            "phase": "Running", "finishedAt": "2026-11-21T08:41:05Z", "retryCount": 2,
            "message": "one or more objects failed to apply, reason: x. Retrying attempt #3 at 8:41AM.",
            "syncResult": {"revision": "1fef95232e981755052e4155ef30e22a1ef48954"}}}});
        assert!(state(&app, &[]).notes[0].contains("operation on 1fef952 is failing"));
        let hint = repair_hint(&owner(), &app).unwrap();
        assert!(hint.contains("at 8:41AM") && hint.ends_with("argocd app terminate-op a1"), "{hint}");
        assert_eq!(repair_hint(&owner(), &json!({"status": {"operationState": {"phase": "Succeeded"}}})), None);
    }

    #[test]
    fn a_cached_error_needs_a_hard_refresh() {
        assert_eq!(hint(&owner(), &json!({})).value, "normal");
        let cached = json!({"status": {"conditions": [{"type": "ComparisonError",
            "message": "Failed to load target state: Manifest generation error (cached): x"}]}});
        assert_eq!(hint(&owner(), &cached).value, "hard");
    }
}
