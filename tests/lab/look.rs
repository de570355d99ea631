//! What is in a cluster, without what a run of the suite made in it; and what became of that between two looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use countersign_core::Result;
use kube::api::{Api, DynamicObject, ListParams};
use kube::discovery::{Discovery, verbs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::guest::LABEL;
use super::off;

/// Kinds that components of a cluster write all the time, to say that they are alive or what they see.
const RESTLESS: [&str; 7] =
    ["Event", "Lease", "ComponentStatus", "NodeMetrics", "PodMetrics", "LeaseCandidate", "IPAddress"];

/// An object as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    uid: String,
    version: String,
    /// Digest of everything that somebody wants: all but status and the API server's own bookkeeping.
    wanted: String,
}

/// All objects of others, by kind, namespace and name.
pub type Seen = BTreeMap<String, Was>;

/// How long nothing may change before a cluster counts as at rest.
const REST: Duration = Duration::from_secs(4);
/// How often it is looked at for that: a cluster at work is never at rest.
const LOOKS: usize = 8;

/// Waits until nobody writes to what is there, as those do who make a cluster or have just left it, and looks.
pub async fn at_rest(client: &kube::Client, run: &str) -> Result<Seen> {
    let mut before = around(client, run).await?;
    for _ in 0..LOOKS {
        tokio::time::sleep(REST).await;
        let now = around(client, run).await?;
        if compare(&before, &now).ends_with(" changed=0 gone=0 new=0\n") {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

/// Looks at every kind that can be listed.
pub async fn around(client: &kube::Client, run: &str) -> Result<Seen> {
    let discovery = Discovery::new(client.clone()).run().await.map_err(|e| off("the cluster's kinds")(&e))?;
    let mut all = Vec::new();
    for group in discovery.groups() {
        for (resource, about) in group.recommended_resources() {
            if !about.supports_operation(verbs::LIST) || RESTLESS.contains(&resource.kind.as_str()) {
                continue;
            }
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            match objects.list(&ListParams::default()).await {
                Ok(found) => {
                    all.extend(found.items.into_iter().map(|o| (resource.kind.clone(), group.name().to_owned(), o)))
                }
                // Some kinds are listed in discovery, and cannot be (those of aggregated servers that are down).
                Err(kube::Error::Api(status)) if [404, 405, 503].contains(&status.code) => {}
                Err(e) => return Err(off(&format!("{} cannot be listed", resource.plural))(&e)),
            }
        }
    }
    let marked = |o: &DynamicObject| o.metadata.labels.as_ref().and_then(|l| l.get(LABEL)).is_some_and(|l| l == run);
    let own: Vec<String> = all
        .iter()
        .filter(|(kind, _, o)| kind == "Namespace" && marked(o))
        .filter_map(|(_, _, o)| o.metadata.name.clone())
        .collect();
    let others = all
        .into_iter()
        .filter(|(_, _, o)| !marked(o) && !o.metadata.namespace.as_ref().is_some_and(|n| own.contains(n)));
    others.map(|(kind, group, object)| was(&kind, &group, object)).collect()
}

fn was(kind: &str, group: &str, object: DynamicObject) -> Result<(String, Was)> {
    let meta = &object.metadata;
    let of = |v: &Option<String>| v.clone().unwrap_or_default();
    let key = format!("{kind}.{group} {}/{}", of(&meta.namespace), of(&meta.name));
    let (uid, version) = (of(&meta.uid), of(&meta.resource_version));
    let mut rest = serde_json::to_value(&object).map_err(|e| off(&key)(&e))?;
    if let Some(all) = rest.as_object_mut() {
        all.remove("status");
        if let Some(meta) = all.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
    }
    let wanted = countersign_core::model::hex(&Sha256::digest(rest.to_string()));
    Ok((key, Was { uid, version, wanted }))
}

/// What became of what was there. The last line is `others=N same=N status=N changed=N gone=N new=N`.
pub fn compare(before: &Seen, after: &Seen) -> String {
    let (mut same, mut status, mut out) = (0, 0, String::new());
    let (mut changed, mut gone) = (0, 0);
    for (key, was) in before {
        match after.get(key).filter(|now| now.uid == was.uid) {
            None => {
                gone += 1;
                let _ = writeln!(out, "gone: {key}");
            }
            Some(now) if now.version == was.version => same += 1,
            Some(now) if now.wanted == was.wanted => {
                status += 1;
                let _ = writeln!(out, "its status changed: {key}");
            }
            Some(_) => {
                changed += 1;
                let _ = writeln!(out, "changed: {key}");
            }
        }
    }
    let new: Vec<&String> = after.keys().filter(|k| !before.contains_key(*k)).collect();
    for key in &new {
        let _ = writeln!(out, "new: {key}");
    }
    let _ = writeln!(
        out,
        "others={} same={same} status={status} changed={changed} gone={gone} new={}",
        before.len(),
        new.len()
    );
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(objects: &[Value]) -> Seen {
        let of = |o: &Value| was(o["kind"].as_str().unwrap(), "", serde_json::from_value(o.clone()).unwrap()).unwrap();
        objects.iter().map(of).collect()
    }

    #[test]
    fn a_touch_is_told_from_a_status_and_from_nothing() {
        let object = |name: &str, version: &str, data: &str, phase: &str| {
            json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": name, "uid": name, "resourceVersion": version},
                "spec": {"data": data}, "status": {"phase": phase}})
        };
        let before = seen(&[
            object("a", "1", "x", "p"),
            object("b", "1", "x", "p"),
            object("c", "1", "x", "p"),
            object("d", "1", "x", "p"),
        ]);
        let mut reborn = object("d", "9", "x", "p");
        reborn["metadata"]["uid"] = json!("another");
        let after = seen(&[
            object("a", "1", "x", "p"),
            object("b", "2", "x", "q"),
            object("c", "2", "y", "p"),
            reborn,
            object("e", "3", "x", "p"),
        ]);
        let words = compare(&before, &after);
        assert!(words.ends_with("others=4 same=1 status=1 changed=1 gone=1 new=1\n"), "{words}");
        assert!(words.contains("changed: Thing. /c\n") && words.contains("gone: Thing. /d\n"), "{words}");
    }
}
