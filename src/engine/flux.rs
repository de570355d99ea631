//! Flux.

use countersign_core::model::{DeliveryState, ObjectKey, OwnerRef};
use countersign_core::ownership::{full_hash, source_object};
use serde_json::Value;

use super::text::{at, flag, list, quote, short};
use super::{Hint, Standing, suspension};

const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";

/// What stands between a commit and the cluster for a Kustomization or a HelmRelease.
pub fn delivery_state(standing: Standing<'_>) -> DeliveryState {
    let object = standing.object;
    let suspended = suspension(object)
        .or_else(|| standing.source.and_then(suspension))
        .or_else(|| standing.live.and_then(|(key, live)| opted_out(key, live)));
    let mut notes = Vec::new();
    if standing.owner.kind == "Kustomization" {
        if !flag(object, "/spec/wait") && list(object, "/spec/healthChecks").is_empty() {
            notes.push("it does not wait for health: its Ready only says applied".to_owned());
        }
        notes.extend(held_back(object));
    }
    let dependencies: Vec<&str> = list(object, "/spec/dependsOn").iter().map(|d| at(d, "/name")).collect();
    if !dependencies.is_empty() {
        notes.push(format!("it waits for {} first", dependencies.join(", ")));
    }
    if let Some(failing) = standing.source.and_then(failing) {
        notes.push(format!("its source fails: {failing}"));
    }
    if let Some((key, live)) = standing.live {
        notes.extend(prune_disabled(key, live));
    }
    let prune = match standing.owner.kind.as_str() {
        "Kustomization" => flag(object, "/spec/prune"),
        // Helm removes what a new version of the release no longer holds.
        _ => true,
    };
    // Flux never waits for a person to sync; what keeps it from reconciling is named on its own.
    DeliveryState { automatic: true, prune, suspended, window: None, notes }
}

/// Marks on the live object that make kustomize-controller leave it alone, also where Git does not
/// carry them (kustomize-controller: internal/controller/kustomization_controller.go).
fn opted_out(key: &ObjectKey, live: &Value) -> Option<String> {
    let says = |mark: &str| {
        ["/metadata/annotations", "/metadata/labels"]
            .iter()
            .filter_map(|p| live.pointer(p)?.get(mark)?.as_str())
            .next()
            .map(str::to_ascii_lowercase)
    };
    if says("kustomize.toolkit.fluxcd.io/reconcile").as_deref() == Some("disabled") {
        return Some(format!("{key} carries kustomize.toolkit.fluxcd.io/reconcile: disabled"));
    }
    match says("kustomize.toolkit.fluxcd.io/ssa").as_deref() {
        Some("ignore") => Some(format!("{key} carries kustomize.toolkit.fluxcd.io/ssa: Ignore")),
        Some("ifnotpresent") => Some(format!("{key} carries kustomize.toolkit.fluxcd.io/ssa: IfNotPresent")),
        _ => None,
    }
}

fn prune_disabled(key: &ObjectKey, live: &Value) -> Option<String> {
    let mark = "kustomize.toolkit.fluxcd.io/prune";
    let places = ["/metadata/annotations", "/metadata/labels"];
    let says = places.iter().filter_map(|p| live.pointer(p)?.get(mark)?.as_str()).next()?;
    says.eq_ignore_ascii_case("disabled")
        .then(|| format!("{key} carries {mark}: disabled: removing it from Git leaves it in the cluster"))
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|c| at(c, "/type") == kind)
}

fn failing(source: &Value) -> Option<String> {
    let ready = condition(source, "Ready")?;
    (at(ready, "/status") == "False").then(|| quote(at(ready, "/message")))
}

/// While it waits for the health of one revision it does not begin the next
/// (recordings, `flux-superseded`).
fn held_back(object: &Value) -> Option<String> {
    let attempted = full_hash(at(object, "/status/lastAttemptedRevision"))?;
    let applied = full_hash(at(object, "/status/lastAppliedRevision"));
    if applied.as_ref() == Some(&attempted) {
        return None;
    }
    let busy = condition(object, "Reconciling").is_some_and(|c| at(c, "/status") == "True");
    let ready = condition(object, "Ready")?;
    let revision = short(&attempted);
    match at(ready, "/status") {
        "False" => Some(format!("it fails on {revision}: {}", quote(at(ready, "/message")))),
        _ if busy => Some(format!("it is busy with {revision}; a newer commit waits for its health check")),
        _ => None,
    }
}

/// The token on the source alone; of a HelmRelease without a Git source, on the release itself.
pub fn hint(owner: &OwnerRef, object: &Value, token: &str) -> Option<Hint> {
    let on = match source_object(owner, object) {
        Some(source) if source.kind == "GitRepository" => source,
        _ if owner.kind == "HelmRelease" => owner.key(),
        _ => return None,
    };
    Some(Hint { on, annotation: REQUESTED, value: token.to_owned() })
}

/// What a person can do about a revision that holds newer ones back.
pub fn repair_hint(owner: &OwnerRef, object: &Value) -> Option<String> {
    let stuck = condition(object, "Stalled").is_some_and(|c| at(c, "/status") == "True");
    if owner.kind == "HelmRelease" && stuck {
        return Some(format!(
            "{owner} has used up its retries. A person can reset it: flux reconcile helmrelease {} -n {} --reset",
            owner.name, owner.namespace
        ));
    }
    let held = held_back(object)?;
    let timeout = match at(object, "/spec/timeout") {
        "" => "its timeout".to_owned(),
        t => format!("at most {}", quote(t)),
    };
    Some(format!("{owner}: {held}. It goes on after {timeout}; spec.timeout in Git makes that shorter."))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use countersign_core::model::Engine;
    use serde_json::json;

    use super::super::{Standing, delivery_state};
    use super::*;

    fn owner(kind: &str) -> OwnerRef {
        OwnerRef::new(Engine::Flux, kind, "flux-system", "k1")
    }

    fn recorded() -> Value {
        // From the recording flux-image-ok.
        json!({"kind": "Kustomization", "metadata": {"namespace": "flux-system", "name": "k1"},
            "spec": {"path": "./k1", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "fl"}, "timeout": "25s", "wait": true},
            "status": {"lastAppliedRevision": "main@sha1:fd2802059a4d35e528f65d36775c38eb32c4a37b",
                "lastAttemptedRevision": "main@sha1:fd2802059a4d35e528f65d36775c38eb32c4a37b",
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn state(object: &Value, source: Option<&Value>, parents: &[Value], live: Value) -> DeliveryState {
        let owner = owner("Kustomization");
        let key = ObjectKey::new("apps", "Deployment", "k1", "k1");
        delivery_state(
            Standing {
                owner: &owner,
                object,
                source,
                project: None,
                parents,
                live: Some((&key, &live)),
                pointers: &[],
            },
            Utc::now(),
        )
    }

    #[test]
    fn a_recorded_kustomization_is_automatic_and_prunes() {
        let got = state(&recorded(), Some(&json!({})), &[], json!({}));
        assert_eq!(got, DeliveryState { automatic: true, prune: true, ..DeliveryState::default() });
    }

    #[test]
    fn suspended_owner_source_parent_and_object_are_each_named() {
        let mut own = recorded();
        own["spec"]["suspend"] = json!(true);
        assert_eq!(
            state(&own, None, &[], json!({})).suspended.as_deref(),
            Some("Kustomization flux-system/k1 is suspended")
        );
        let source = json!({"kind": "GitRepository", "metadata": {"namespace": "flux-system", "name": "fl"}, "spec": {"suspend": true}});
        assert!(
            state(&recorded(), Some(&source), &[], json!({}))
                .suspended
                .unwrap()
                .contains("GitRepository flux-system/fl")
        );
        let parent = json!({"kind": "Kustomization", "metadata": {"namespace": "flux-system", "name": "root"}, "spec": {"suspend": true}});
        assert!(state(&recorded(), None, &[parent], json!({})).suspended.unwrap().contains("flux-system/root"));
        let live = json!({"metadata": {"annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}}});
        assert!(state(&recorded(), None, &[], live).suspended.unwrap().contains("Deployment k1/k1"));
    }

    #[test]
    fn without_wait_ready_says_only_applied() {
        let mut object = recorded();
        object["spec"]["wait"] = json!(false);
        assert!(state(&object, None, &[], json!({})).notes[0].contains("only says applied"));
    }

    #[test]
    fn a_failing_older_revision_is_told_with_its_words() {
        let mut object = recorded();
        object["status"]["lastAttemptedRevision"] = json!("main@sha1:2f2309205b357e586ab5dc192209ce9fb08c254d");
        object["status"]["conditions"] =
            json!([{"type": "Ready", "status": "False", "message": "health check failed after 25s"}]);
        assert!(state(&object, None, &[], json!({})).notes[0].contains("fails on 2f23092: health check failed"));
        assert!(repair_hint(&owner("Kustomization"), &object).unwrap().contains("at most 25s"));
    }

    #[test]
    fn the_hint_goes_to_the_source_alone() {
        let got = hint(&owner("Kustomization"), &recorded(), "t1").unwrap();
        assert_eq!(got.on, ObjectKey::new("source.toolkit.fluxcd.io", "GitRepository", "flux-system", "fl"));
        assert_eq!((got.annotation, got.value.as_str()), ("reconcile.fluxcd.io/requestedAt", "t1"));
        let oci = json!({"spec": {"sourceRef": {"kind": "OCIRepository", "name": "o"}}});
        assert_eq!(hint(&owner("Kustomization"), &oci, "t1"), None);
    }
}
