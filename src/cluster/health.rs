//! How a workload is doing, in words, and what the cluster said about it lately.

use chrono::{DateTime, Utc};
use countersign_core::error::{Problem, Result};
use countersign_core::model::ObjectKey;
use serde_json::Value;

use super::{Cluster, errors, nearest};

/// Most events that are told.
const EVENTS: usize = 10;
/// Longest words of the cluster in one line.
const WORDS: usize = 240;

impl Cluster {
    /// Health of a workload in words (`0/3 ready, CrashLoopBackOff (exit 1)`); `None` for kinds without any.
    pub async fn health(&self, key: &ObjectKey, object: &Value) -> Result<Option<String>> {
        let pods = match selector(object) {
            Some(selector) if counts(key) => {
                let query = format!("labelSelector:{selector}");
                match self.list("", "Pod", &key.namespace, &query).await {
                    Err(problem) if errors::denied(&problem) => {
                        // The counts are the workload's own; what keeps its pods from running stays unknown.
                        let counted = workload_health(key, object, &[]);
                        return Ok(counted.map(|words| format!("{words}; why is not known: {}", problem.message)));
                    }
                    pods => pods?,
                }
            }
            _ if key.kind == "Pod" => vec![object.clone()],
            _ => Vec::new(),
        };
        Ok(workload_health(key, object, &pods))
    }

    /// Recent events of an object, newest first, at most ten: untrusted words, capped.
    pub async fn events(&self, key: &ObjectKey, now: DateTime<Utc>) -> Result<Vec<String>> {
        let query = format!("fieldSelector:involvedObject.kind={},involvedObject.name={}", key.kind, key.name);
        let events = self.list("", "Event", &key.namespace, &query).await?;
        // Servers that do not know the selector send everything.
        let about = |e: &&Value| {
            e.pointer("/involvedObject/name").is_some_and(|n| n == key.name.as_str())
                && e.pointer("/involvedObject/kind").is_some_and(|k| k == key.kind.as_str())
        };
        let mut dated: Vec<(Option<DateTime<Utc>>, &Value)> =
            events.iter().filter(about).map(|e| (happened(e), e)).collect();
        dated.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Ok(dated.into_iter().take(EVENTS).map(|(at, e)| event_line(at, e, now)).collect())
    }
}

fn counts(key: &ObjectKey) -> bool {
    matches!(key.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job")
}

/// `matchLabels` as a label selector; expressions are left out, so it may match too much, never too little.
fn selector(object: &Value) -> Option<String> {
    let labels = object.pointer("/spec/selector/matchLabels")?.as_object()?;
    let parts: Vec<String> = labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// Health of a workload from its own status and its pods' containers.
pub fn workload_health(key: &ObjectKey, object: &Value, pods: &[Value]) -> Option<String> {
    let status = object.get("status").unwrap_or(&Value::Null);
    let number = |v: &Value, p: &str| v.pointer(p).and_then(Value::as_i64);
    let mut parts = Vec::new();
    match key.kind.as_str() {
        "Deployment" | "StatefulSet" | "ReplicaSet" => {
            let wanted = number(object, "/spec/replicas").unwrap_or(1);
            parts.push(format!("{}/{wanted} ready", number(status, "/readyReplicas").unwrap_or(0)));
            let updated = number(status, "/updatedReplicas").unwrap_or(0);
            if key.kind != "ReplicaSet" && updated < wanted {
                parts.push(format!("{updated}/{wanted} of the new version"));
            }
            if number(object, "/metadata/generation") > number(status, "/observedGeneration") {
                parts.push("the newest spec has not been looked at yet".to_owned());
            }
        }
        "DaemonSet" => parts.push(format!(
            "{}/{} ready",
            number(status, "/numberReady").unwrap_or(0),
            number(status, "/desiredNumberScheduled").unwrap_or(0)
        )),
        "Job" => parts.push(format!(
            "{} succeeded, {} failed",
            number(status, "/succeeded").unwrap_or(0),
            number(status, "/failed").unwrap_or(0)
        )),
        "Pod" => parts.push(status.get("phase").and_then(Value::as_str).unwrap_or("Unknown").to_owned()),
        _ => return condition_words(status),
    }
    parts.extend(troubles(pods));
    if let Some(stuck) = progress_words(status) {
        parts.push(stuck);
    }
    Some(parts.join(", "))
}

fn progress_words(status: &Value) -> Option<String> {
    let conditions = status.get("conditions")?.as_array()?;
    let stuck = conditions.iter().any(|c| c.get("reason").is_some_and(|r| r == "ProgressDeadlineExceeded"));
    stuck.then(|| "the rollout exceeded its progress deadline".to_owned())
}

fn condition_words(status: &Value) -> Option<String> {
    let conditions = status.get("conditions")?.as_array()?;
    let ready = conditions
        .iter()
        .find(|c| c.get("type").and_then(Value::as_str).is_some_and(|t| matches!(t, "Ready" | "Available")))?;
    let text = |k: &str| ready.get(k).and_then(Value::as_str).unwrap_or("");
    Some(cap(&format!("{}={} {}", text("type"), text("status"), text("message"))))
}

/// What keeps containers from running, each thing once, most frequent first.
fn troubles(pods: &[Value]) -> Vec<String> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut note = |words: String| match found.iter_mut().find(|(_, w)| *w == words) {
        Some((n, _)) => *n += 1,
        None => found.push((1, words)),
    };
    for pod in pods {
        if pod.pointer("/metadata/deletionTimestamp").is_some_and(|d| !d.is_null()) {
            continue;
        }
        let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
        let statuses = lists.iter().filter_map(|p| pod.pointer(p)?.as_array()).flatten();
        let before = statuses.filter_map(container_trouble).map(&mut note).count();
        if before == 0
            && let Some(words) = unschedulable(pod)
        {
            note(words);
        }
    }
    found.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    found.into_iter().take(3).map(|(_, words)| words).collect()
}

fn container_trouble(status: &Value) -> Option<String> {
    let last = status.pointer("/lastState/terminated").or_else(|| status.pointer("/state/terminated"));
    let exit = last.and_then(|t| t.get("exitCode")).and_then(Value::as_i64);
    let oom = last.and_then(|t| t.get("reason")).is_some_and(|r| r == "OOMKilled");
    if let Some(reason) = status.pointer("/state/waiting/reason").and_then(Value::as_str) {
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return None;
        }
        return Some(match (oom, exit) {
            (true, _) => format!("{} (OOMKilled)", cap(reason)),
            (false, Some(code)) => format!("{} (exit {code})", cap(reason)),
            (false, None) => cap(reason),
        });
    }
    let ended = status.pointer("/state/terminated")?;
    match ended.get("exitCode").and_then(Value::as_i64) {
        Some(0) => None,
        Some(code) => {
            Some(format!("{} (exit {code})", cap(ended.get("reason").and_then(Value::as_str).unwrap_or("Terminated"))))
        }
        None => None,
    }
}

fn unschedulable(pod: &Value) -> Option<String> {
    let conditions = pod.pointer("/status/conditions")?.as_array()?;
    conditions.iter().any(|c| c.get("reason").is_some_and(|r| r == "Unschedulable")).then(|| "unschedulable".to_owned())
}

fn happened(event: &Value) -> Option<DateTime<Utc>> {
    let keys = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let times = keys.iter().filter_map(|k| event.pointer(k)?.as_str());
    times.filter_map(|t| DateTime::parse_from_rfc3339(t).ok()).map(|t| t.with_timezone(&Utc)).next()
}

fn event_line(at: Option<DateTime<Utc>>, event: &Value, now: DateTime<Utc>) -> String {
    let text = |k: &str| event.get(k).and_then(Value::as_str).unwrap_or("");
    let ago = at.map_or_else(|| "?".to_owned(), |at| age((now - at).num_seconds().max(0)));
    let count = event.get("count").and_then(Value::as_i64).filter(|n| *n > 1);
    let times = count.map_or_else(String::new, |n| format!(" (x{n})"));
    cap(&format!("{ago} ago {} {}{times}: {}", text("type"), text("reason"), text("message")))
}

fn age(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn cap(text: &str) -> String {
    text.chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Containers of a pod, or of anything with a pod template, by name, with the pointer of each.
pub fn containers(object: &Value) -> Vec<(String, String)> {
    let roots = ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/spec"];
    let Some(root) = roots.iter().find(|r| object.pointer(&format!("{r}/containers")).is_some()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for list in ["containers", "initContainers"] {
        let items = object.pointer(&format!("{root}/{list}")).and_then(Value::as_array);
        for (i, item) in items.into_iter().flatten().enumerate() {
            if let Some(name) = item.get("name").and_then(Value::as_str) {
                found.push((name.to_owned(), format!("{root}/{list}/{i}")));
            }
        }
    }
    found
}

/// Pointer of the container of that name, or `input.container` with the names nearest to it.
pub fn find_container(object: &Value, name: &str) -> Result<String> {
    let all = containers(object);
    if let Some((_, pointer)) = all.iter().find(|(n, _)| n == name) {
        return Ok(pointer.clone());
    }
    let names = || all.iter().map(|(n, _)| n.as_str());
    let mut near = nearest(name, names(), 3);
    if near.is_empty() {
        near = names().take(8).map(str::to_owned).collect();
    }
    let shown: String = name.chars().take(80).collect();
    Err(Problem::new(
        "input.container",
        format!("There is no container {shown}."),
        if all.is_empty() { "Name an object that has containers." } else { "Use one of the names in the evidence." },
    )
    .with_all(near))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(kind: &str) -> ObjectKey {
        ObjectKey::new("apps", kind, "shop", "checkout")
    }

    #[test]
    fn a_crash_loop_is_told_with_its_exit_code() {
        let deployment = json!({"metadata": {"generation": 2}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, "updatedReplicas": 3}});
        let pod = json!({"status": {"containerStatuses": [{"name": "web",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]}});
        let words = workload_health(&key("Deployment"), &deployment, &[pod.clone(), pod]);
        assert_eq!(words.as_deref(), Some("0/3 ready, CrashLoopBackOff (exit 1)"));
    }

    #[test]
    fn pods_that_go_and_pods_that_only_start_are_no_trouble() {
        let deployment = json!({"spec": {"replicas": 1}, "status": {"readyReplicas": 1, "updatedReplicas": 1}});
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let starting =
            json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}});
        assert_eq!(workload_health(&key("Deployment"), &deployment, &[going, starting]).as_deref(), Some("1/1 ready"));
    }

    #[test]
    fn memory_and_images_and_deadlines_have_words() {
        let deployment = json!({"spec": {"replicas": 2}, "status": {"readyReplicas": 1, "updatedReplicas": 1,
            "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}});
        let oom = json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
        let image = json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}});
        let words = workload_health(&key("Deployment"), &deployment, &[oom, image]).unwrap();
        assert_eq!(
            words,
            "1/2 ready, 1/2 of the new version, CrashLoopBackOff (OOMKilled), ImagePullBackOff, the rollout exceeded its progress deadline"
        );
    }

    #[test]
    fn a_container_is_found_by_name_or_refused_with_the_nearest() {
        let deployment = json!({"spec": {"template": {"spec": {
            "containers": [{"name": "web"}, {"name": "proxy"}], "initContainers": [{"name": "migrate"}]}}}});
        assert_eq!(find_container(&deployment, "migrate").unwrap(), "/spec/template/spec/initContainers/0");
        let problem = find_container(&deployment, "wbe").unwrap_err();
        assert_eq!((problem.code.as_ref(), problem.evidence), ("input.container", vec!["web".to_owned()]));
        let cron =
            json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "job"}]}}}}}});
        assert!(find_container(&cron, "job").is_ok());
    }

    #[test]
    fn an_event_is_one_capped_line() {
        let now = DateTime::parse_from_rfc3339("2026-11-21T08:30:00Z").unwrap().with_timezone(&Utc);
        let event = json!({"type": "Warning", "reason": "BackOff", "count": 12, "lastTimestamp": "2026-11-21T08:27:00Z",
            "message": format!("Back-off\nrestarting {}", "x".repeat(500))});
        let line = event_line(happened(&event), &event, now);
        assert!(line.starts_with("3m ago Warning BackOff (x12): Back-off restarting"), "{line}");
        assert_eq!(line.chars().count(), WORDS);
    }
}
