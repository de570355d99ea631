//! Which kinds the cluster serves, and under which paths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_core::error::{Problem, Result};
use countersign_core::model::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Discovery;
use kube::core::discovery::{ApiCapabilities, ApiResource, Scope, verbs};
use tokio::sync::Mutex;

use super::{errors, nearest};

/// A kind that is not in the cache is looked for again at most this often.
const AGAIN: Duration = Duration::from_secs(5);
/// The cache is read anew after this long, so that a removed kind does not stay for ever.
const STALE: Duration = Duration::from_secs(600);

/// One served kind, in its preferred version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// An object of this kind; a namespace is refused for cluster-scoped kinds and asked for otherwise.
    pub fn key(&self, namespace: &str, name: &str) -> Result<ObjectKey> {
        let kind = &self.resource.kind;
        match (self.namespaced, namespace.is_empty()) {
            (true, true) => Err(Problem::new(
                "input.namespace",
                format!("{kind} objects live in a namespace, and the target names none."),
                "Write cluster/namespace/Kind/name.",
            )),
            (false, false) => Err(Problem::new(
                "input.namespace",
                format!("{kind} objects live in no namespace, and the target names one."),
                "Write cluster/-/Kind/name.",
            )),
            _ => Ok(ObjectKey::new(&self.resource.group, kind, namespace, name)),
        }
    }

    /// Path of one object; `None` where no such object can exist.
    pub(super) fn url(&self, namespace: &str, name: &str) -> Option<String> {
        let collection = self.collection(if self.namespaced { namespace } else { "" })?;
        (plain(name) && (!self.namespaced || !namespace.is_empty())).then(|| format!("{collection}/{name}"))
    }

    /// Path of the collection; an empty namespace means all.
    pub(super) fn collection(&self, namespace: &str) -> Option<String> {
        let r = &self.resource;
        let root = if r.group.is_empty() { "/api" } else { "/apis" };
        if namespace.is_empty() || !self.namespaced {
            return Some(format!("{root}/{}/{}", r.api_version, r.plural));
        }
        plain(namespace).then(|| format!("{root}/{}/namespaces/{namespace}/{}", r.api_version, r.plural))
    }
}

/// Names reach this code from annotations too: nothing that could leave its place in the path.
fn plain(segment: &str) -> bool {
    !segment.is_empty()
        && segment.len() <= 253
        && !matches!(segment, "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'))
}

type Table = BTreeMap<String, Vec<Kind>>;
/// Groups that are there and could not be read: what they serve is not known, which is not nothing.
type Broken = BTreeMap<String, Problem>;

struct Cache {
    table: Arc<Table>,
    broken: Arc<Broken>,
    read: Option<Instant>,
}

/// The cache of discovery.
pub(super) struct Kinds {
    client: kube::Client,
    cache: Mutex<Cache>,
}

impl Kinds {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, cache: Mutex::new(Cache { table: Arc::default(), broken: Arc::default(), read: None }) }
    }

    /// A kind by group and name; `None` where it is not served. A group that could not be read is a problem.
    pub(super) async fn find(&self, group: &str, kind: &str) -> Result<Option<Kind>> {
        let pick = |t: &Table| t.get(kind).and_then(|l| l.iter().find(|k| k.resource.group == group)).cloned();
        match self.look(pick).await? {
            Some(found) => Ok(Some(found)),
            None => self.cache.lock().await.broken.get(group).map_or(Ok(None), |problem| Err(problem.clone())),
        }
    }

    /// A kind as an agent names it.
    pub(super) async fn resolve(&self, kind: &str, group: Option<&str>) -> Result<Kind> {
        let matching = |t: &Table| {
            let list = t.get(kind)?;
            let list: Vec<Kind> =
                list.iter().filter(|k| group.is_none_or(|g| k.resource.group == g)).cloned().collect();
            (!list.is_empty()).then_some(list)
        };
        let Some(found) = self.look(matching).await? else {
            let cache = self.cache.lock().await;
            if let Some(problem) = group.and_then(|g| cache.broken.get(g)) {
                return Err(problem.clone());
            }
            let broken = cache.broken.values().map(|p| p.message.clone());
            return Err(unknown(kind, group, &cache.table).with_all(broken));
        };
        match <[Kind; 1]>::try_from(found) {
            Ok([one]) => Ok(one),
            Err(many) => Err(Problem::new(
                "input.kind_ambiguous",
                format!("{} API groups serve a kind {kind}.", many.len()),
                "Write the kind with its group, as in the evidence.",
            )
            .with_all(many.iter().map(|k| format!("{kind}.{}", k.resource.group)))),
        }
    }

    async fn look<T>(&self, pick: impl Fn(&Table) -> Option<T>) -> Result<Option<T>> {
        let mut cache = self.cache.lock().await;
        let age = cache.read.map(|at| at.elapsed());
        if age.is_some_and(|a| a < STALE)
            && let Some(found) = pick(&cache.table)
        {
            return Ok(Some(found));
        }
        if age.is_some_and(|a| a < AGAIN) {
            return Ok(pick(&cache.table));
        }
        match discover(&self.client).await {
            Ok((table, broken)) => {
                let (table, broken) = (Arc::new(table), Arc::new(broken));
                *cache = Cache { table, broken, read: Some(Instant::now()) };
                Ok(pick(&cache.table))
            }
            // What was read once still helps while the API server is away; the read itself will fail if it must.
            Err(problem) => pick(&cache.table).map(Some).ok_or(problem),
        }
    }
}

fn unknown(kind: &str, group: Option<&str>, table: &Table) -> Problem {
    let groups = table.get(kind).into_iter().flatten().map(|k| format!("{kind}.{}", k.resource.group));
    let near = nearest(kind, table.keys().map(String::as_str), 3);
    let shown: String = kind.chars().take(80).collect();
    let words = match group {
        Some(group) => format!("The cluster serves no kind {shown} in the group {group}."),
        None => format!("The cluster serves no kind {shown}."),
    };
    let evidence: BTreeSet<String> = groups.chain(near).collect();
    Problem::new(
        "input.kind_unknown",
        words,
        "Correct the kind; it is written as in a manifest (Deployment, not deployments).",
    )
    .with_all(evidence)
}

/// All kinds: two requests where the server can, else one per group. One broken group (an
/// aggregated API that is down, a path that may not be read) costs only itself, and is remembered.
async fn discover(client: &kube::Client) -> Result<(Table, Broken)> {
    let limit = Duration::from_secs(20);
    let slow = || errors::unreachable("discovery took longer than 20 s".to_owned());
    let mut table = Table::new();
    if let Ok(Ok(found)) = tokio::time::timeout(limit, Discovery::new(client.clone()).run_aggregated()).await {
        for group in found.groups() {
            add(&mut table, group.recommended_resources());
        }
        if !table.is_empty() {
            return Ok((table, Broken::new()));
        }
    }
    let groups = tokio::time::timeout(limit, client.list_api_groups()).await.map_err(|_| slow())?;
    let groups = groups.map_err(|e| errors::problem(&e, errors::Asked { verb: "get", path: "/apis" }))?.groups;
    // The preferred version first, so that the others only add what it lacks.
    let mut versions = vec![String::from("v1")];
    for group in groups {
        let preferred = group.preferred_version.map(|v| v.group_version);
        let others = group.versions.into_iter().map(|v| v.group_version).filter(|v| Some(v) != preferred.as_ref());
        versions.extend(preferred.iter().cloned().chain(others));
    }
    let reads = versions.iter().map(|version| async move {
        let read = async {
            match version.as_str() {
                "v1" => client.list_core_api_resources("v1").await,
                other => client.list_api_group_resources(other).await,
            }
        };
        tokio::time::timeout(limit, read).await
    });
    let mut broken = Broken::new();
    for (version, read) in versions.iter().zip(futures::future::join_all(reads).await) {
        let problem = match read {
            Ok(Ok(list)) => {
                add(&mut table, served(version, list.resources));
                continue;
            }
            Ok(Err(e)) => {
                let path = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
                errors::problem(&e, errors::Asked { verb: "get", path: &path })
            }
            Err(_) => errors::unreachable(format!("discovery of {version} took longer than 20 s")),
        };
        tracing::warn!(version, error = %problem.message, "an API group cannot be discovered");
        broken.insert(version.split_once('/').map_or("", |(group, _)| group).to_owned(), problem);
    }
    match (table.is_empty(), broken.values().find(|p| errors::denied(p))) {
        (false, _) => Ok((table, broken)),
        (true, Some(denied)) => Err(denied.clone()),
        (true, None) => Err(errors::unreachable("no API group could be discovered".to_owned())),
    }
}

fn served(version: &str, resources: Vec<APIResource>) -> Vec<(ApiResource, ApiCapabilities)> {
    let group = version.split_once('/').map_or("", |(g, _)| g);
    resources
        .into_iter()
        .filter(|r| !r.name.contains('/'))
        .map(|r| {
            let resource = ApiResource {
                group: group.to_owned(),
                version: version.rsplit('/').next().unwrap_or(version).to_owned(),
                api_version: version.to_owned(),
                kind: r.kind,
                plural: r.name,
            };
            let scope = if r.namespaced { Scope::Namespaced } else { Scope::Cluster };
            (resource, ApiCapabilities { scope, subresources: Vec::new(), operations: r.verbs })
        })
        .collect()
}

fn add(table: &mut Table, resources: Vec<(ApiResource, ApiCapabilities)>) {
    for (resource, capabilities) in resources {
        let namespaced = capabilities.scope == Scope::Namespaced;
        let list = table.entry(resource.kind.clone()).or_default();
        if capabilities.supports_operation(verbs::GET)
            && !list.iter().any(|k: &Kind| k.resource.group == resource.group)
        {
            list.push(Kind { resource, namespaced });
        }
    }
}
