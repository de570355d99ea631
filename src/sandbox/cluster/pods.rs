//! What a kubelet does: pods get scheduled, start, fail, and go.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Shared;
use super::images::Behaviour;
use super::json::{get, list, set, text};
use super::store::{Change, Propagation, Write, suffix};

/// Runs until the sandbox stops: one task for each pod.
pub async fn run(shared: Shared) {
    let mut changed = shared.store.subscribe();
    let mut seen = 0;
    let tasks = &mut tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        for event in shared.store.tail(seen) {
            seen = event.version;
            if event.key.0 == "pods" && event.change == Change::Added {
                tasks.spawn(live(shared.clone(), event.object.clone()));
            }
        }
        if changed.wait_for(|version| *version > seen).await.is_err() {
            return;
        }
    }
}

/// Marks a pod as going and takes it away a moment later.
pub fn terminate(shared: &Shared, pod: &Arc<Value>) {
    let Some(kind) = shared.store.kinds.by_kind("", "Pod") else {
        return;
    };
    let (namespace, name) =
        (text(pod, &["metadata", "namespace"]).to_owned(), text(pod, &["metadata", "name"]).to_owned());
    shared
        .store
        .edit(&kind, &namespace, &name, false, |pod| set(pod, &["metadata", "finalizers"], json!(["sandbox/kubelet"])));
    drop(shared.store.delete(&kind, &namespace, &name, Propagation::Background, false));
    let shared = shared.clone();
    tokio::spawn(async move {
        shared.clock().millis(10).await;
        shared.store.edit(&kind, &namespace, &name, false, |pod| set(pod, &["metadata", "finalizers"], json!([])));
    });
}

async fn live(shared: Shared, pod: Arc<Value>) {
    let clock = shared.clock();
    let mut behaviours = shared.images.subscribe();
    clock.millis(8).await;
    let ip = format!("10.0.{}.{}", rand::random::<u8>(), rand::random::<u8>());
    let now = clock.stamp();
    update(&shared, &pod, |status| {
        set(
            status,
            &["conditions"],
            json!([{ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now }]),
        );
    });
    let mut told = None;
    let mut restarts = 0;
    loop {
        let behaviour = worst(&shared, &pod);
        if told != Some(behaviour) || matches!(behaviour, Behaviour::Crash(_)) {
            let wait = match behaviour {
                Behaviour::Slow(millis) => Duration::from_millis(millis),
                Behaviour::Missing => Duration::from_millis(15),
                _ => shared.options.pod_ready,
            };
            clock.sleep(wait).await;
            if shared.images_changed(&pod, behaviour) {
                continue;
            }
            become_as(&shared, &pod, behaviour, restarts, &ip);
            told = Some(behaviour);
        }
        let Some(current) =
            shared.store.find("", "Pod", text(&pod, &["metadata", "namespace"]), text(&pod, &["metadata", "name"]))
        else {
            return;
        };
        if text(&current, &["metadata", "uid"]) != text(&pod, &["metadata", "uid"]) {
            return;
        }
        if matches!(behaviour, Behaviour::Crash(_)) && restarts < 5 {
            restarts += 1;
            clock.millis(2000).await;
            continue;
        }
        tokio::select! {
            woken = behaviours.changed() => if woken.is_err() { return },
            () = clock.sleep(Duration::from_secs(60)) => {}
        }
    }
}

impl super::State {
    fn images_changed(&self, pod: &Value, was: Behaviour) -> bool {
        list(pod, &["spec", "containers"])
            .iter()
            .map(|container| self.images.of(text(container, &["image"])))
            .max_by_key(|b| rank(*b))
            .unwrap_or_default()
            != was
    }
}

fn rank(behaviour: Behaviour) -> u8 {
    match behaviour {
        Behaviour::Ready => 0,
        Behaviour::Slow(_) => 1,
        Behaviour::Unready => 2,
        Behaviour::Crash(_) => 3,
        Behaviour::Missing => 4,
    }
}

fn worst(shared: &Shared, pod: &Value) -> Behaviour {
    let images =
        list(pod, &["spec", "containers"]).iter().map(|container| shared.images.of(text(container, &["image"])));
    images.max_by_key(|behaviour| rank(*behaviour)).unwrap_or_default()
}

fn become_as(shared: &Shared, pod: &Value, behaviour: Behaviour, restarts: i64, ip: &str) {
    let now = shared.clock().stamp();
    let containers: Vec<Value> = list(pod, &["spec", "containers"])
        .iter()
        .map(|container| container_status(shared, pod, container, restarts, &now))
        .collect();
    let ready = matches!(behaviour, Behaviour::Ready | Behaviour::Slow(_));
    let started = !matches!(behaviour, Behaviour::Missing);
    update(shared, pod, |status| {
        set(status, &["containerStatuses"], Value::Array(containers));
        if !started {
            return;
        }
        set(status, &["phase"], json!("Running"));
        let word = if ready { "True" } else { "False" };
        let condition = |kind: &str, word: &str| {
            let mut condition =
                json!({ "type": kind, "status": word, "lastProbeTime": null, "lastTransitionTime": now });
            if word == "False" {
                set(&mut condition, &["reason"], json!("ContainersNotReady"));
                set(&mut condition, &["message"], json!("containers with unready status: [app]"));
            }
            condition
        };
        let all = [
            condition("Initialized", "True"),
            condition("Ready", word),
            condition("ContainersReady", word),
            condition("PodScheduled", "True"),
        ];
        set(status, &["conditions"], json!(all));
        for (field, value) in [
            ("hostIP", json!("127.0.0.1")),
            ("hostIPs", json!([{ "ip": "127.0.0.1" }])),
            ("podIP", json!(ip)),
            ("podIPs", json!([{ "ip": ip }])),
            ("startTime", json!(now)),
        ] {
            set(status, &[field], value);
        }
    });
}

fn container_status(shared: &Shared, pod: &Value, container: &Value, restarts: i64, now: &str) -> Value {
    let (name, image) = (text(container, &["name"]), text(container, &["image"]));
    let running = json!({ "running": { "startedAt": now } });
    let (state, last, ready, count) = match shared.images.of(image) {
        Behaviour::Ready | Behaviour::Slow(_) => (running, json!({}), true, 0),
        Behaviour::Unready => {
            event(
                shared,
                pod,
                "Warning",
                "Unhealthy",
                "Readiness probe failed: HTTP probe failed with statuscode: 503",
            );
            (running, json!({}), false, 0)
        }
        Behaviour::Missing => {
            let cause = "rpc error: code = NotFound desc = failed to pull and unpack image";
            event(
                shared,
                pod,
                "Warning",
                "Failed",
                &format!("Failed to pull image {image:?}: {cause} {image:?}: not found"),
            );
            event(shared, pod, "Normal", "BackOff", &format!("Back-off pulling image {image:?}"));
            (
                json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } }),
                json!({}),
                false,
                0,
            )
        }
        Behaviour::Crash(code) => {
            let over =
                json!({ "terminated": { "exitCode": code, "reason": "Error", "startedAt": now, "finishedAt": now } });
            if restarts == 0 {
                (over, json!({}), false, 0)
            } else {
                event(
                    shared,
                    pod,
                    "Warning",
                    "BackOff",
                    &format!("Back-off restarting failed container {name} in pod {}", text(pod, &["metadata", "name"])),
                );
                let message = format!(
                    "back-off {}s restarting failed container={name} pod={}",
                    10 * restarts,
                    text(pod, &["metadata", "name"])
                );
                (json!({ "waiting": { "reason": "CrashLoopBackOff", "message": message } }), over, false, restarts)
            }
        }
    };
    json!({ "name": name, "state": state, "lastState": last, "ready": ready, "restartCount": count, "image": image, "imageID": "" })
}

fn update(shared: &Shared, pod: &Value, change: impl FnOnce(&mut Value)) {
    let Some(kind) = shared.store.kinds.by_kind("", "Pod") else {
        return;
    };
    let uid = text(pod, &["metadata", "uid"]);
    shared.store.edit(&kind, text(pod, &["metadata", "namespace"]), text(pod, &["metadata", "name"]), true, |object| {
        // A pod of a StatefulSet comes back under its name: that one is not ours.
        if text(object, &["metadata", "uid"]) == uid && get(object, &["metadata", "deletionTimestamp"]).is_none() {
            let mut status = object.get("status").cloned().unwrap_or_else(|| json!({}));
            change(&mut status);
            set(object, &["status"], status);
        }
    });
}

/// Writes an Event about an object.
pub fn event(shared: &Shared, about: &Value, kind: &str, reason: &str, message: &str) {
    let Some(events) = shared.store.kinds.by_kind("", "Event") else {
        return;
    };
    let (namespace, name) = (text(about, &["metadata", "namespace"]), text(about, &["metadata", "name"]));
    let now = shared.clock().stamp();
    let object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": format!("{name}.{}", suffix(12)), "namespace": namespace },
        "involvedObject": {
            "apiVersion": text(about, &["apiVersion"]), "kind": text(about, &["kind"]), "namespace": namespace,
            "name": name, "uid": text(about, &["metadata", "uid"]),
        },
        "type": kind, "reason": reason, "message": message, "count": 1, "firstTimestamp": now, "lastTimestamp": now,
        "source": { "component": "sandbox" },
    });
    // A namespace that is going away takes no more events.
    drop(shared.store.create(&events, namespace, object, Write::default()));
}
