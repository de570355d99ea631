//! A small API server: discovery, get, list, watch, merge patch, OpenAPI, over real HTTP on loopback.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Group, version, kind, plural, namespaced.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "Pod", "pods", true),
    ("", "v1", "ConfigMap", "configmaps", true),
    ("", "v1", "Secret", "secrets", true),
    ("", "v1", "Event", "events", true),
    ("", "v1", "Namespace", "namespaces", false),
    ("events.k8s.io", "v1", "Event", "events", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("apps", "v1", "ReplicaSet", "replicasets", true),
    ("apps", "v1", "StatefulSet", "statefulsets", true),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("argoproj.io", "v1alpha1", "Application", "applications", true),
    ("argoproj.io", "v1alpha1", "AppProject", "appprojects", true),
    ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations", true),
    ("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories", true),
];

#[derive(Default)]
pub struct World {
    /// Collection path and name to object.
    objects: BTreeMap<(String, String), Value>,
    version: u64,
    /// Watches from before this version are told that it is too old.
    compacted: u64,
    /// Path prefixes that answer 403.
    pub forbidden: BTreeSet<String>,
    /// Path parts of collections that may be listed and not watched.
    pub unwatchable: BTreeSet<String>,
    /// Groups that are not installed.
    pub absent: BTreeSet<String>,
    pub openapi: HashMap<String, Value>,
    pub patches: Vec<(String, Value)>,
}

pub struct Fake {
    pub world: Mutex<World>,
    events: broadcast::Sender<(String, Value)>,
    pub gets: AtomicUsize,
    pub documents: AtomicUsize,
    pub address: std::net::SocketAddr,
}

impl Fake {
    pub async fn start(prepare: impl FnOnce(&mut World)) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::default();
        prepare(&mut world);
        let fake = Arc::new(Self {
            world: Mutex::new(world),
            events: broadcast::channel(256).0,
            gets: AtomicUsize::new(0),
            documents: AtomicUsize::new(0),
            address: listener.local_addr().unwrap(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    pub fn put(&self, object: Value) {
        let (collection, event) = self.world.lock().unwrap().put(object);
        let _ = self.events.send((collection, event));
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let (collection, object) = {
            let mut world = self.world.lock().unwrap();
            let at = KINDS.iter().find(|k| k.2 == kind).unwrap();
            let path = collection(at, namespace);
            let mut object = world.objects.remove(&(path.clone(), name.to_owned())).unwrap();
            world.version += 1;
            object["metadata"]["resourceVersion"] = json!(world.version.to_string());
            (path, object)
        };
        let _ = self.events.send((collection, json!({"type": "DELETED", "object": object})));
    }

    /// Ends every watch, as a restarting API server does, and forgets the past.
    pub fn drop_watches(&self) {
        {
            let mut world = self.world.lock().unwrap();
            world.version += 1;
            world.compacted = world.version;
        }
        let _ = self.events.send((String::from("*"), expired()));
    }

    pub fn kubeconfig(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
        std::fs::write(file.path(), config.to_string()).unwrap();
        file
    }
}

impl World {
    /// Takes an object away without any event.
    pub fn remove(&mut self, at: &(String, String)) {
        self.objects.remove(at).unwrap();
        self.version += 1;
    }

    pub fn put(&mut self, mut object: Value) -> (String, Value) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let at = KINDS.iter().find(|k| k.2 == kind).unwrap();
        object["apiVersion"] = json!(if at.0.is_empty() { at.1.to_owned() } else { format!("{}/{}", at.0, at.1) });
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", object["metadata"]["name"].as_str().unwrap()));
        }
        object["metadata"]["managedFields"] = json!([{"manager": "x"}]);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("").to_owned();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let path = collection(at, &namespace);
        let old = self.objects.insert((path.clone(), name), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        (path, json!({"type": kind, "object": object}))
    }
}

fn collection(kind: &(&str, &str, &str, &str, bool), namespace: &str) -> String {
    let root = if kind.0.is_empty() { format!("/api/{}", kind.1) } else { format!("/apis/{}/{}", kind.0, kind.1) };
    if namespace.is_empty() {
        format!("{root}/{}", kind.3)
    } else {
        format!("{root}/namespaces/{namespace}/{}", kind.3)
    }
}

fn expired() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}})
}

fn failure(code: u16, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

/// Whether objects stored under one collection path belong to the asked one (all namespaces or one).
fn within(stored: &str, asked: &str) -> bool {
    if stored == asked {
        return true;
    }
    let Some((root, plural)) = asked.rsplit_once('/') else { return false };
    stored.starts_with(&format!("{root}/namespaces/")) && stored.ends_with(&format!("/{plural}"))
}

async fn answer(State(fake): State<Arc<Fake>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()).into_owned().collect();
    if fake.world.lock().unwrap().forbidden.iter().any(|f| path.contains(f.as_str())) {
        return failure(403, "Forbidden");
    }
    let watched = query.contains_key("watch");
    if watched && fake.world.lock().unwrap().unwatchable.iter().any(|f| path.contains(f.as_str())) {
        return failure(403, "Forbidden");
    }
    if let Some(found) = discovery(&fake, &path) {
        return found;
    }
    if method == Method::PATCH {
        let patch: Value = serde_json::from_slice(&body).unwrap();
        fake.world.lock().unwrap().patches.push((path, patch));
        return axum::Json(json!({})).into_response();
    }
    let is_collection = KINDS.iter().any(|k| within(&collection(k, ""), &path) || path.ends_with(&format!("/{}", k.3)));
    if is_collection {
        return if watched { watch(&fake, path, &query) } else { list(&fake, &path, &query) };
    }
    fake.gets.fetch_add(1, Ordering::SeqCst);
    let (parent, name) = path.rsplit_once('/').unwrap();
    match fake.world.lock().unwrap().objects.get(&(parent.to_owned(), name.to_owned())) {
        Some(object) => axum::Json(object.clone()).into_response(),
        None => failure(404, "NotFound"),
    }
}

fn discovery(fake: &Fake, path: &str) -> Option<Response> {
    let world = fake.world.lock().unwrap();
    let kinds = || KINDS.iter().filter(|k| !world.absent.contains(k.0));
    let value = match path {
        "/version" => json!({"major": "1", "minor": "36"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => {
            let groups: BTreeSet<(&str, &str)> = kinds().filter(|k| !k.0.is_empty()).map(|k| (k.0, k.1)).collect();
            let groups: Vec<Value> = groups
                .into_iter()
                .map(|(g, v)| {
                    let version = json!({"groupVersion": format!("{g}/{v}"), "version": v});
                    json!({"name": g, "versions": [version], "preferredVersion": version})
                })
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        "/openapi/v3" => {
            let paths = world.openapi.iter().map(|(k, v)| {
                let size = v.to_string().len();
                (k.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{k}?hash={size}")}))
            });
            json!({"paths": paths.collect::<serde_json::Map<_, _>>()})
        }
        _ => {
            if let Some(document) = path.strip_prefix("/openapi/v3/") {
                fake.documents.fetch_add(1, Ordering::SeqCst);
                return Some(axum::Json(world.openapi.get(document)?.clone()).into_response());
            }
            let here = |k: &&(&str, &str, &str, &str, bool)| {
                path == if k.0.is_empty() { format!("/api/{}", k.1) } else { format!("/apis/{}/{}", k.0, k.1) }
            };
            let found: Vec<Value> = kinds().filter(here).map(|k| {
                json!({"name": k.3, "singularName": "", "namespaced": k.4, "kind": k.2, "verbs": ["get", "list", "watch", "patch"]})
            }).collect();
            if found.is_empty() {
                return None;
            }
            let version = path.trim_start_matches("/apis/").trim_start_matches("/api/");
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found})
        }
    };
    Some(axum::Json(value).into_response())
}

fn selected(object: &Value, query: &HashMap<String, String>) -> bool {
    query
        .get("fieldSelector")
        .and_then(|f| f.strip_prefix("metadata.name="))
        .is_none_or(|n| object["metadata"]["name"] == n)
}

fn list(fake: &Fake, path: &str, query: &HashMap<String, String>) -> Response {
    let world = fake.world.lock().unwrap();
    let items: Vec<Value> = world
        .objects
        .iter()
        .filter(|((stored, _), object)| within(stored, path) && selected(object, query))
        .map(|(_, object)| {
            let mut item = object.clone();
            item.as_object_mut().unwrap().remove("kind");
            item.as_object_mut().unwrap().remove("apiVersion");
            item
        })
        .collect();
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": world.version.to_string()}, "items": items})).into_response()
}

fn watch(fake: &Fake, path: String, query: &HashMap<String, String>) -> Response {
    // Replays what happened between the list and now, as the real one does.
    let since: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    let receiver = fake.events.subscribe();
    let query = query.clone();
    let missed: Vec<Value> = {
        let world = fake.world.lock().unwrap();
        if since < world.compacted {
            let line = format!("{}\n", expired());
            return Response::builder().header("content-type", "application/json").body(Body::from(line)).unwrap();
        }
        let newer = |o: &Value| {
            o["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0) > since
        };
        world
            .objects
            .iter()
            .filter(|((stored, _), o)| within(stored, &path) && selected(o, &query) && newer(o))
            .map(|(_, o)| json!({"type": "MODIFIED", "object": o}))
            .collect()
    };
    let live = futures::stream::unfold((receiver, false), |(mut receiver, ended)| async move {
        if ended {
            return None;
        }
        let event = receiver.recv().await.ok()?;
        let ends = event.0 == "*";
        Some((event, (receiver, ends)))
    });
    let live = live.filter_map(move |(collection, event)| {
        let mine = collection == "*" || (within(&collection, &path) && selected(&event["object"], &query));
        futures::future::ready(mine.then_some(event))
    });
    let lines = futures::stream::iter(missed).chain(live).map(|e| Ok::<_, std::convert::Infallible>(format!("{e}\n")));
    Response::builder().header("content-type", "application/json").body(Body::from_stream(lines)).unwrap()
}
