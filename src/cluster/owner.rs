//! From an object to its owner, to the owner's parents, and to whoever else reads the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use countersign_core::error::{Problem, Result};
use countersign_core::model::{ClusterSpec, Engine, ObjectKey, OwnerRef, Ownership, ResourceRef};
use countersign_core::ownership::{
    ArgoPlane, Feed, Listing, Loaded, MAX_DEPTH, ObjectFacts, Planes, Step, Walk, source_object,
};
use serde_json::Value;

use super::book::{Feeder, OwnerLine, Progress};
use super::{Cluster, errors};

/// Longest wait for the first read of the index.
const READY: Duration = Duration::from_secs(15);
/// How long it is waited for once something hinders it.
const HINDERED: Duration = Duration::from_secs(2);
/// How long the settings of the control planes are kept.
const PLANES: Duration = Duration::from_secs(60);

/// Settings of the control planes, of which namespaces, and when they were read.
pub(super) type PlaneCache = tokio::sync::Mutex<Option<(Instant, BTreeSet<String>, Planes)>>;

/// A live object with the answer to who owns it.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// Its key.
    pub key: ObjectKey,
    /// The object, without `managedFields`; `None` where only owners' lists know it.
    pub object: Option<Value>,
    /// Who owns it.
    pub ownership: Ownership,
}

impl Cluster {
    /// Waits until every installed engine's objects have been read once, at most 15 s.
    pub async fn ready(&self) -> Result<()> {
        let mut progress = self.0.book.progress();
        let all = |p: &BTreeMap<&'static str, Progress>| p.values().all(|p| !matches!(p, Progress::Starting(_)));
        // One kind that may not be read will not become readable by waiting.
        let refused = |p: &BTreeMap<&'static str, Progress>| {
            p.values().find_map(|p| match p {
                Progress::Starting(Some(problem)) if problem.retry != countersign_core::Retry::Later => {
                    Some(problem.clone())
                }
                _ => None,
            })
        };
        let waited = tokio::time::timeout(READY, progress.wait_for(|p| all(p) || first_problem(p).is_some())).await;
        drop(waited);
        if refused(&progress.borrow()).is_none() && first_problem(&progress.borrow()).is_some() {
            // Hindered, but it may pass.
            let _ = tokio::time::timeout(HINDERED, progress.wait_for(all)).await;
        }
        let now = progress.borrow().clone();
        if all(&now) {
            return Ok(());
        }
        let problem = refused(&now).or_else(|| first_problem(&now));
        Err(problem.unwrap_or_else(|| errors::unreachable("the owners have not been read yet".to_owned())))
    }

    /// Who owns the target. The index answers, and at most a few objects on the way are read.
    pub async fn owner_of(&self, target: &ResourceRef) -> Result<Ownership> {
        Ok(self.locate(target).await?.ownership)
    }

    /// The target's object and who owns it. An object that does not exist is `cluster.not_found`,
    /// unless an owner lists it.
    pub async fn locate(&self, target: &ResourceRef) -> Result<Located> {
        let key = self.key_of(target).await?;
        self.locate_key(&key).await
    }

    /// The same by key.
    pub async fn locate_key(&self, key: &ObjectKey) -> Result<Located> {
        self.ready().await?;
        let object = self.read(key).await?;
        let facts = match &object {
            Some(object) => ObjectFacts::of(key.clone(), object),
            None => ObjectFacts::bare(key.clone()),
        };
        let ownership = self.walk(facts).await?;
        if object.is_none() && matches!(ownership, Ownership::Unmanaged { .. }) {
            return Err(self.not_found(key).await);
        }
        Ok(Located { key: key.clone(), object, ownership })
    }

    /// The same before a write: the watches must be connected, the owner that the index gives is read
    /// again, and the object as well. Anything that changed meanwhile is decided anew.
    pub async fn owner_of_fresh(&self, key: &ObjectKey) -> Result<Located> {
        for _ in 0..3 {
            let located = self.locate_key(key).await?;
            self.connected()?;
            let owners: Vec<OwnerRef> = match &located.ownership {
                Ownership::Owned { owner, .. } => vec![owner.clone()],
                Ownership::Conflict { claims, .. } => claims.iter().map(|c| c.owner.clone()).collect(),
                Ownership::DeclaredNotApplied { by, .. } => by.clone(),
                Ownership::Orphaned { .. } | Ownership::Unmanaged { .. } => return Ok(located),
            };
            let mut moved = false;
            for owner in owners {
                let object = self.read(&owner.key()).await?;
                moved |= self.refresh(&owner, object.as_ref());
            }
            if !moved {
                return Ok(located);
            }
        }
        Err(Problem::new(
            "owner.moving",
            format!("The owner of {key} changes while it is being read."),
            "Wait until the engine has settled, then try again.",
        )
        .later())
    }

    /// Takes an owner that was just read into the index; says whether its claims changed.
    fn refresh(&self, owner: &OwnerRef, object: Option<&Value>) -> bool {
        let mut book = self.0.book.write();
        match object.and_then(|o| Listing::of(o, &self.0.here)) {
            Some(listing) => book.index.apply(listing),
            None => {
                let was = book.index.known(owner).is_some();
                book.drop_key(&owner.key());
                was
            }
        }
    }

    /// Whether every watch is connected now: a second owner that appeared during an outage would go unseen.
    fn connected(&self) -> Result<()> {
        let progress = self.0.book.progress();
        let lost = progress.borrow().values().find_map(|p| match p {
            Progress::Ready(problem) => problem.clone(),
            _ => None,
        });
        lost.map_or(Ok(()), Err)
    }

    async fn walk(&self, facts: ObjectFacts) -> Result<Ownership> {
        let planes = self.planes().await?;
        let (mut walk, mut step) = {
            let book = self.0.book.read();
            Walk::begin(&facts, &book.index, &planes)
        };
        loop {
            match step {
                Step::Answer(Ownership::Unmanaged { root, .. }) if !walk.unreadable().is_empty() => {
                    return Err(Problem::new(
                        "owner.unreadable",
                        format!("Whether {root} has an owner cannot be told: an object on the way may not be read."),
                        "Give Countersign's account get on it, then try again.",
                    )
                    .with_all(walk.unreadable().iter().cloned()));
                }
                Step::Answer(answer) => return Ok(answer),
                Step::Need(key) => {
                    let loaded = self.load(key).await?;
                    let book = self.0.book.read();
                    step = walk.feed(loaded, &book.index, &planes);
                }
            }
        }
    }

    async fn load(&self, key: ObjectKey) -> Result<Loaded> {
        let Some(kind) = self.0.kinds.find(&key.group, &key.kind).await? else { return Ok(Loaded::Missing) };
        let key = if kind.namespaced { key } else { ObjectKey { namespace: String::new(), ..key } };
        match self.read(&key).await {
            Ok(Some(object)) => Ok(Loaded::Found(Box::new(ObjectFacts::of(key, &object)))),
            Ok(None) => Ok(Loaded::Missing),
            Err(problem) if errors::denied(&problem) => Ok(Loaded::Unreadable(problem.message)),
            Err(problem) => Err(problem),
        }
    }

    /// Argo CD's control planes: the configured namespaces, and those that Applications name.
    pub(super) async fn planes(&self) -> Result<Planes> {
        let Some(mut names) = self.0.book.read().control_planes() else { return Ok(Planes::default()) };
        names.extend(argocd_namespaces(&self.0.spec));
        let mut cache = self.0.planes.lock().await;
        if let Some((at, of, planes)) = cache.as_ref()
            && at.elapsed() < PLANES
            && *of == names
        {
            return Ok(planes.clone());
        }
        let mut planes = Planes::default();
        for namespace in &names {
            planes.argo.push(self.plane(namespace).await?);
        }
        *cache = Some((Instant::now(), names, planes.clone()));
        Ok(planes)
    }

    async fn plane(&self, namespace: &str) -> Result<ArgoPlane> {
        let config = self.read(&ObjectKey::new("", "ConfigMap", namespace, "argocd-cm")).await?;
        let says = config.as_ref().and_then(|c| c.pointer("/data/application.resourceTrackingMethod"));
        // Where the key is absent, the default depends on the server's version.
        let old = says.is_none() && self.before_3(namespace).await?;
        Ok(ArgoPlane::from_config(namespace, config.as_ref(), old))
    }

    /// Whether the application controller's image is of Argo CD 1 or 2. Where there is none of that name it
    /// counts as new; one that may not be read does not, because every owner might be told wrongly.
    async fn before_3(&self, namespace: &str) -> Result<bool> {
        let key = ObjectKey::new("apps", "StatefulSet", namespace, "argocd-application-controller");
        let Some(controller) = self.read(&key).await? else { return Ok(false) };
        let image = controller.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).unwrap_or("");
        let tag = image.split('@').next().and_then(|i| i.rsplit_once(':')).map_or("", |(_, tag)| tag);
        let major = tag.trim_start_matches('v').split('.').next().unwrap_or("");
        Ok(matches!(major, "1" | "2"))
    }

    /// The objects above an owner, nearest first: ApplicationSet, parent Application, Kustomizations up
    /// to the bootstrap one, and each Kustomization's source. An owner that owns itself ends it.
    pub async fn lineage(&self, owner: &OwnerRef) -> Result<Vec<Value>> {
        let mut found: Vec<Value> = Vec::new();
        let mut seen = vec![owner.key()];
        let mut at = owner.key();
        for _ in 0..MAX_DEPTH {
            let located = match self.locate_key(&at).await {
                Ok(located) => located,
                Err(problem) if problem.code == "cluster.not_found" => break,
                Err(problem) => return Err(problem),
            };
            for hop in applicationsets(located.object.as_ref(), &at) {
                if !seen.contains(&hop)
                    && let Some(object) = self.read(&hop).await?
                {
                    seen.push(hop);
                    found.push(object);
                }
            }
            let Ownership::Owned { owner: parent, .. } = located.ownership else { break };
            let key = parent.key();
            if seen.contains(&key) {
                break;
            }
            seen.push(key.clone());
            let Some(object) = self.read(&key).await? else { break };
            let source = source_object(&parent, &object);
            found.push(object);
            if let Some(source) = source.filter(|s| !seen.contains(s))
                && let Some(object) = self.read(&source).await?
            {
                seen.push(source);
                found.push(object);
            }
            at = key;
        }
        Ok(found)
    }

    /// An owner's own object, read now; `owner.gone` where there is none.
    pub async fn owner_object(&self, owner: &OwnerRef) -> Result<Value> {
        self.read(&owner.key()).await?.ok_or_else(|| {
            Problem::new(
                "owner.gone",
                format!("{owner} does not exist any more."),
                "Look at the target again with inspect.",
            )
        })
    }

    /// Flux: the owner's source object, read now. `None` for Argo CD, and where it does not exist.
    pub async fn source_of(&self, owner: &OwnerRef, object: &Value) -> Result<Option<Value>> {
        match source_object(owner, object) {
            Some(key) => self.read(&key).await,
            None => Ok(None),
        }
    }

    /// Argo CD: the AppProject of an Application. `None` for Flux, and where it does not exist.
    pub async fn project_of(&self, owner: &OwnerRef, object: &Value) -> Result<Option<Value>> {
        if owner.engine != Engine::Argocd {
            return Ok(None);
        }
        let get = |p: &str| object.pointer(p).and_then(Value::as_str).filter(|s| !s.is_empty());
        let control_plane = get("/status/controllerNamespace").unwrap_or(&owner.namespace);
        let project = get("/spec/project").unwrap_or("default");
        self.read(&ObjectKey::new("argoproj.io", "AppProject", control_plane, project)).await
    }

    /// Every owner that reads a file of a branch, from the index; the one that is edited among them.
    pub async fn feeders(&self, url: &str, branch: &str, file: &str) -> Result<Vec<Feeder>> {
        self.ready().await?;
        Ok(self.0.book.read().feeders(url, branch, file))
    }

    /// Every owner that reads anything of a repository, with its sources there.
    pub async fn readers(&self, url: &str) -> Result<Vec<(OwnerRef, Feed)>> {
        self.ready().await?;
        Ok(self.0.book.read().readers(url))
    }

    /// Every owner with its own word on its state.
    pub async fn owners(&self) -> Result<Vec<OwnerLine>> {
        self.ready().await?;
        Ok(self.0.book.read().lines())
    }
}

fn first_problem(progress: &BTreeMap<&'static str, Progress>) -> Option<Problem> {
    progress.values().find_map(|p| match p {
        Progress::Starting(problem) => problem.clone(),
        _ => None,
    })
}

fn argocd_namespaces(spec: &ClusterSpec) -> Vec<String> {
    if spec.argocd_namespaces.is_empty() { vec!["argocd".to_owned()] } else { spec.argocd_namespaces.clone() }
}

/// The ApplicationSet that made an Application: it reverts what is changed on the Application itself.
fn applicationsets(object: Option<&Value>, key: &ObjectKey) -> Vec<ObjectKey> {
    let facts = object.map(|o| ObjectFacts::of(key.clone(), o));
    let parents = facts.into_iter().flat_map(|f| f.parents);
    parents.filter(|p| p.key.kind == "ApplicationSet" && p.key.group == "argoproj.io").map(|p| p.key).collect()
}
