//! The live objects as last seen, and what only their succession tells.

use std::collections::BTreeMap;

use serde_json::Value;

use super::flux::KsFailure;
use super::helm::HrFailure;
use super::line::Deliverer;
use super::words::quote;
use crate::model::Want;

/// Kind, namespace, name.
type Name = (String, String, String);

/// What the judge knows about the cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    /// By name, then by API group (empty where the recording leaves it out).
    objects: BTreeMap<Name, BTreeMap<String, Value>>,
    /// When the spec of an object was last seen to change, or a fresh object to appear.
    touched: BTreeMap<Name, i64>,
    /// Facts about owners and sources.
    tracks: BTreeMap<Name, Track>,
}

/// Facts about one owner or source that a single state of it does not show.
#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    /// Since when a request to look again is unanswered.
    pub asked: Option<i64>,
    /// The last request that was answered: asked at, answered at.
    pub answered: Option<(i64, i64)>,
    /// The standing error of comparison (Argo CD).
    pub error: Option<Standing>,
    /// Since when an automated Application is out of sync at this revision and nothing happens.
    pub idle: Option<(String, i64)>,
    /// Since when the artifact is the one it is (Flux sources).
    pub artifact: Option<(String, i64)>,
    /// Since when fetching fails (Flux sources), and the words.
    pub fetch: Option<Standing>,
    /// Revision whose objects were sent to the API server last (Kustomization).
    pub sent: Option<String>,
    /// Chart versions and the source revision that each was built from (HelmChart), newest last.
    pub charts: Vec<(String, String)>,
    /// Since when the last operation is known to have succeeded, by its start (Argo CD).
    pub done: Option<(String, i64)>,
    /// The failure of the revision that is being attempted (Kustomization).
    pub ks: Option<KsFailure>,
    /// The failure of the release that is being attempted (HelmRelease).
    pub hr: Option<HrFailure>,
}

/// A condition that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Type of the condition.
    pub kind: String,
    /// Its words, with what varies between repetitions taken out.
    pub words: String,
    /// Since when it is seen.
    pub since: i64,
    /// It was already there when the object was first seen.
    pub at_first_sight: bool,
}

impl Standing {
    /// The condition seen now, as a continuation of the one before where the words are the same.
    pub(super) fn next(before: Option<&Self>, seen: Option<(String, String)>, now: i64, first: bool) -> Option<Self> {
        let (kind, words) = seen?;
        match before {
            Some(b) if b.kind == kind && b.words == words => Some(b.clone()),
            _ => Some(Self { kind, words, since: now, at_first_sight: first }),
        }
    }
}

impl World {
    /// Takes in a watch event.
    pub(super) fn observe(&mut self, object: &Value, deleted: bool, now: i64) {
        let Some((name, group)) = identify(object) else { return };
        if deleted {
            if let Some(by_group) = self.objects.get_mut(&name) {
                by_group.remove(&group);
                if by_group.is_empty() {
                    self.objects.remove(&name);
                }
            }
            self.tracks.remove(&name);
            self.touched.remove(&name);
            return;
        }
        let before = self.objects.get(&name).and_then(|g| g.get(&group));
        let fresh = at(object, "/status/observedGeneration").is_none();
        let changed = match before {
            Some(b) => int(b, "/metadata/generation") != int(object, "/metadata/generation"),
            None => fresh,
        };
        let first = before.is_none();
        if changed {
            self.touched.insert(name.clone(), now);
        }
        if let Some(mut track) = self.track_for(&name) {
            match name.0.as_str() {
                "Application" => super::argo::follow(&mut track, object, now, first),
                "Kustomization" => super::flux::follow(&mut track, object, now),
                "HelmRelease" => super::helm::follow(&mut track, object),
                "HelmChart" => super::helm::follow_chart(&mut track, object),
                _ => super::flux::follow_source(&mut track, object, now, first),
            }
            self.tracks.insert(name.clone(), track);
        }
        self.objects.entry(name).or_default().insert(group, slim(object));
    }

    fn track_for(&mut self, name: &Name) -> Option<Track> {
        let kinds = [
            "Application",
            "Kustomization",
            "HelmRelease",
            "HelmChart",
            "GitRepository",
            "OCIRepository",
            "Bucket",
            "ExternalArtifact",
        ];
        kinds.contains(&name.0.as_str()).then(|| self.tracks.remove(name).unwrap_or_default())
    }

    /// Facts about an owner or source.
    pub(super) fn track(&self, kind: &str, namespace: &str, name: &str) -> Track {
        self.tracks.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    /// An object; `group` empty matches any.
    pub(super) fn get(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        let by_group = self.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))?;
        if group.is_empty() {
            return by_group.values().next();
        }
        by_group.get(group).or_else(|| by_group.get(""))
    }

    /// The object that a wanted field is in.
    pub(super) fn find(&self, want: &Want) -> Option<&Value> {
        self.get(&want.group, &want.kind, &want.namespace, &want.name)
    }

    /// The owner's own object.
    pub(super) fn owner(&self, owner: &Deliverer) -> Option<&Value> {
        let group = match owner.kind.as_str() {
            "Application" => "argoproj.io",
            "Kustomization" => "kustomize.toolkit.fluxcd.io",
            "HelmRelease" => "helm.toolkit.fluxcd.io",
            _ => "",
        };
        self.get(group, &owner.kind, &owner.namespace, &owner.name)
    }

    /// All objects of a kind.
    pub(super) fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((k, _, _), _)| k == kind).flat_map(|(_, g)| g.values())
    }

    /// Whether the spec of an object was seen to change after `since`.
    pub(super) fn touched_after(&self, kind: &str, namespace: &str, name: &str, since: i64) -> bool {
        self.touched.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).is_some_and(|t| *t > since)
    }

    /// What waits in the pods of a workload (`web-7d9f: ImagePullBackOff`), for words only.
    pub(super) fn pod_trouble(&self, namespace: &str, workload: &str) -> Option<String> {
        let prefix = format!("{workload}-");
        self.all("Pod").find_map(|p| {
            let name = text(p, "/metadata/name");
            if text(p, "/metadata/namespace") != namespace || !name.starts_with(&prefix) {
                return None;
            }
            let statuses = at(p, "/status/containerStatuses")?.as_array()?;
            let mut waiting = statuses.iter().filter_map(|s| at(s, "/state/waiting/reason")?.as_str());
            let reason = waiting.find(|r| !matches!(*r, "ContainerCreating" | "PodInitializing"))?;
            Some(format!("pod {}: {}", quote(name), quote(reason)))
        })
    }
}

/// The object without what is large and never read.
fn slim(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Name and group of an object; `None` for what is not an object.
fn identify(o: &Value) -> Option<(Name, String)> {
    let kind = at(o, "/kind")?.as_str()?;
    let name = at(o, "/metadata/name")?.as_str()?;
    let group = text(o, "/apiVersion").split_once('/').map_or("", |(g, _)| g);
    Some(((kind.to_owned(), text(o, "/metadata/namespace").to_owned(), name.to_owned()), group.to_owned()))
}

/// A JSON pointer into a value; list items by index or by `name=x`. `null` counts as absent.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    let mut v = value;
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        v = match v {
            Value::Object(o) => o.get(&segment)?,
            Value::Array(a) => match segment.parse::<usize>() {
                Ok(i) => a.get(i)?,
                Err(_) => {
                    let (key, wanted) = segment.split_once('=')?;
                    a.iter().find(|i| i.get(key).and_then(Value::as_str) == Some(wanted))?
                }
            },
            _ => return None,
        };
    }
    (!v.is_null()).then_some(v)
}

/// A string, or the empty one.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A whole number.
pub(super) fn int(value: &Value, pointer: &str) -> Option<i64> {
    at(value, pointer)?.as_i64()
}

/// A condition by type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    at(object, "/status/conditions")?.as_array()?.iter().find(|c| text(c, "/type") == kind)
}

/// Whether a condition is `True`.
pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "/status") == "True")
}
