//! The part of kubelet for the pods of a run on a cluster that is not ours. They name a scheduler that nobody is, so
//! that no scheduler and no node takes them; what becomes of them is told by their images' tags, as `stages.yaml`
//! tells KWOK. Only the words that scenarios of both back ends use are known here: others get ready at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use countersign_core::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};

use super::off;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(50);

/// What a pod has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    ErrImagePull,
    Running,
    CrashLoop,
    /// Nothing comes after it.
    Settled,
}

fn word<'i>(image: &'i str, words: &[&str]) -> Option<&'i str> {
    let tag = image.rsplit('/').next()?.split_once(':')?.1;
    tag.split(['-', '.']).find(|w| words.contains(w))
}

fn image(pod: &Value) -> &str {
    pod.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default()
}

fn stage(pod: &Value) -> Stage {
    let Some(container) = pod.pointer("/status/containerStatuses/0") else { return Stage::New };
    let waits = container.pointer("/state/waiting/reason").and_then(Value::as_str);
    match waits {
        Some("ErrImagePull") => Stage::ErrImagePull,
        Some("CrashLoopBackOff") => Stage::CrashLoop,
        None if word(image(pod), &["crash"]).is_some() => Stage::Running,
        _ => Stage::Settled,
    }
}

/// What comes next, and after which time in the stage of now.
fn next(pod: &Value) -> Option<(Duration, Value)> {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let restarts = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_i64).unwrap_or(0);
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let running = json!({"running": {"startedAt": now}});
    let after = |ms: u64, status: Value| Some((Duration::from_millis(ms), status));
    match stage(pod) {
        Stage::New if word(image(pod), &["missing"]).is_some() => {
            let waiting =
                json!({"waiting": {"reason": "ErrImagePull", "message": format!("{}: not found", image(pod))}});
            after(0, status(pod, "Pending", false, restarts, &waiting, &Value::Null))
        }
        Stage::ErrImagePull => {
            let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{}\"", image(pod))}});
            after(1_500, status(pod, "Pending", false, restarts, &waiting, &Value::Null))
        }
        Stage::New => {
            let ready = word(image(pod), &["crash"]).is_none();
            after(0, status(pod, "Running", ready, restarts, &running, &Value::Null))
        }
        Stage::Running => {
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
            let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}});
            after(1_000, status(pod, "Running", false, restarts + 1, &waiting, &last))
        }
        Stage::CrashLoop => {
            let last = pod.pointer("/status/containerStatuses/0/lastState").cloned().unwrap_or_default();
            after(10_000, status(pod, "Running", false, restarts, &running, &last))
        }
        Stage::Settled => None,
    }
}

fn status(pod: &Value, phase: &str, ready: bool, restarts: i64, state: &Value, last: &Value) -> Value {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
    let of = |c: &Value| {
        let mut one = json!({
            "name": c["name"], "image": c["image"], "imageID": "", "ready": ready, "started": ready,
            "restartCount": restarts, "state": state,
        });
        if !last.is_null() {
            one["lastState"] = last.clone();
        }
        one
    };
    let is = |kind: &str, so: bool| json!({"type": kind, "status": if so { "True" } else { "False" }, "lastTransitionTime": now});
    json!({"status": {
        "phase": phase,
        "startTime": pod.pointer("/status/startTime").cloned().unwrap_or_else(|| json!(now)),
        "containerStatuses": containers.iter().map(of).collect::<Vec<_>>(),
        "conditions": [is("Initialized", true), is("Ready", ready), is("ContainersReady", ready)],
    }})
}

/// Plays on a thread of its own, until the process ends.
pub(super) fn play(kubeconfig: &str, scheduler: &str) -> Result<()> {
    let config = Kubeconfig::from_yaml(kubeconfig).map_err(|e| off("the kubeconfig")(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| off("a thread for the pods")(&e))?;
    let scheduler = scheduler.to_owned();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            if let Err(e) = playing(config, &scheduler).await {
                eprintln!("lab: nobody plays the pods any more: {e}");
            }
        })
    });
    Ok(())
}

async fn playing(config: Kubeconfig, scheduler: &str) -> kube::Result<()> {
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    let client = kube::Client::try_from(config.map_err(|e| kube::Error::Service(Box::new(e)))?)?;
    let wish = watcher::Config::default().fields(&format!("spec.schedulerName={scheduler}"));
    let mut events = std::pin::pin!(watcher::watcher(Api::<Pod>::all(client.clone()), wish));
    // By uid: the pod, and since when it has been in its stage.
    let mut pods: BTreeMap<String, (Value, Instant)> = BTreeMap::new();
    loop {
        match tokio::time::timeout(TICK, events.next()).await {
            Ok(Some(Ok(Event::Apply(pod) | Event::InitApply(pod)))) => heard(&mut pods, &pod),
            Ok(Some(Ok(Event::Delete(pod)))) => drop(pods.remove(&pod.metadata.uid.unwrap_or_default())),
            Ok(None) => return Ok(()),
            Ok(Some(Ok(Event::Init | Event::InitDone)) | Some(Err(_))) | Err(_) => {}
        }
        let due: Vec<(String, Value)> = pods
            .iter()
            .filter_map(|(uid, (pod, since))| {
                next(pod).filter(|(wait, _)| since.elapsed() >= *wait).map(|(_, s)| (uid.clone(), s))
            })
            .collect();
        for (uid, status) in due {
            let Some((pod, _)) = pods.get(&uid) else { continue };
            let of =
                |field: &str| pod.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default();
            let at: Api<Pod> = Api::namespaced(client.clone(), of("namespace"));
            match at.patch_status(of("name"), &PatchParams::default(), &Patch::Merge(&status)).await {
                Ok(pod) => heard(&mut pods, &pod),
                Err(kube::Error::Api(s)) if s.code == 404 => drop(pods.remove(&uid)),
                // An API server that is away for a moment.
                Err(e) => {
                    eprintln!("lab: a pod's status: {e}");
                    tokio::time::sleep(TICK).await;
                }
            }
        }
    }
}

fn heard(pods: &mut BTreeMap<String, (Value, Instant)>, pod: &Pod) {
    let (Some(uid), Ok(pod)) = (pod.metadata.uid.clone(), serde_json::to_value(pod)) else { return };
    let since = pods.get(&uid).filter(|(before, _)| stage(before) == stage(&pod)).map_or_else(Instant::now, |p| p.1);
    pods.insert(uid, (pod, since));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pod after so many steps: phase, readiness, reason of waiting, and the pause before each.
    fn played(image: &str, steps: usize) -> (Value, Vec<u64>) {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": image}]}});
        let mut pauses = Vec::new();
        for _ in 0..steps {
            let Some((pause, status)) = next(&pod) else { break };
            pauses.push(u64::try_from(pause.as_millis()).unwrap());
            pod["status"] = status["status"].clone();
        }
        (pod, pauses)
    }

    #[test]
    fn a_tag_says_what_becomes_of_a_pod() {
        let (pod, pauses) = played("reg.example:5000/missing/web:1.1", 9);
        assert_eq!((&pod["status"]["conditions"][1]["status"], pauses), (&json!("True"), vec![0]));
        let (pod, pauses) = played("reg.example/web:2.0-missing", 9);
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
        assert_eq!((&pod["status"]["conditions"][1]["status"], pauses), (&json!("False"), vec![0, 1_500]));
        let (pod, pauses) = played("reg.example/web:crash", 5);
        assert_eq!(pauses, [0, 1_000, 10_000, 1_000, 10_000]);
        let container = &pod["status"]["containerStatuses"][0];
        assert_eq!(
            (&container["restartCount"], &container["lastState"]["terminated"]["exitCode"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(container["ready"], false);
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_left_alone() {
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-11-21T00:00:00Z"}, "spec": {"containers": [{"name": "app", "image": "a:1"}]}});
        assert!(next(&pod).is_none());
    }
}
