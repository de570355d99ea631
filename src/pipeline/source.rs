//! From an ownership answer to the one repository, branch and folder that may be edited.

use std::time::Duration;

use countersign_core::message::escape_name;
use countersign_core::model::{DeliveryState, ObjectKey, OwnerRef, Ownership, Source};
use countersign_core::ownership::{Follow, SourceBasis, destination_namespace, editable, sources};
use countersign_core::{Problem, Result};
use serde_json::Value;

use super::Pipeline;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::engine::{Standing, delivery_state};
use crate::git::same_repo;

/// Where an owner's manifests are edited.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Owner.
    pub owner: OwnerRef,
    /// Its object.
    pub object: Value,
    /// The one editable source.
    pub source: Source,
    /// Name of the Repository.
    pub repository: String,
    /// Full ref.
    pub git_ref: String,
    /// Tip of the ref now.
    pub base: String,
    /// Namespace of objects that name none.
    pub namespace: String,
}

/// The owner, where there is exactly one; otherwise what stands in the way, and what to do next.
pub(super) fn sole_owner(o: &Ownership) -> Result<OwnerRef> {
    match o {
        Ownership::Owned { owner, .. } => Ok(owner.clone()),
        Ownership::Conflict { root, claims, .. } => Err(Problem::new(
            "owner.conflict",
            format!("{root} is claimed by {} owners; nothing is written.", claims.len()),
            "Ask the platform team which one is right; take the object out of the other's source in Git, then try again.",
        )
        .with_all(claims.iter().map(|c| format!("{}: {}", c.owner, c.evidence.join("; "))))),
        Ownership::DeclaredNotApplied { root, by } => Err(Problem::new(
            "owner.declared_not_applied",
            format!("{root} is declared by an owner that never applied it."),
            "Sync that owner first (or find out why it does not), then try again.",
        )
        .with_all(by.iter().map(ToString::to_string))),
        Ownership::Orphaned { root, mark } => Err(Problem::new(
            "owner.orphaned",
            format!("{root} carries the mark of an owner that is not there: {mark}."),
            "It was left behind by a deleted owner, or another control plane holds it. Adopt it: operate with create, naming an owner and a path, or configure that control plane's cluster.",
        )),
        Ownership::Unmanaged { root, hints } => Err(Problem::new(
            "owner.unmanaged",
            format!("Nothing delivers {root} from Git, so there is no file to change."),
            "Bring it into Git first: operate with adopt {} keeps it as it is (the choices name the owners that could take it), create {manifest, owner, path} declares it anew. Nothing is applied directly.",
        )
        .with_all(hints.iter().cloned())),
    }
}

/// The object that the owner itself delivers (the Deployment, where a Pod was asked about).
pub(super) fn root_of(o: &Ownership) -> &ObjectKey {
    match o {
        Ownership::Owned { root, .. }
        | Ownership::Conflict { root, .. }
        | Ownership::DeclaredNotApplied { root, .. }
        | Ownership::Orphaned { root, .. }
        | Ownership::Unmanaged { root, .. } => root,
    }
}

/// The Repository of an address. Agents never name one: only the configuration's are written.
pub(super) fn repository_of<'c>(config: &'c Config, url: &str) -> Result<&'c str> {
    config
        .repositories
        .iter()
        .find(|r| same_repo(&r.spec.url, url) || r.spec.aliases.iter().any(|a| a == url || same_repo(a, url)))
        .map(|r| r.name.as_str())
        .ok_or_else(|| {
            Problem::new(
                "repository.not_configured",
                format!("The owner's repository {} is not in the configuration.", escape_name(url)),
                "Ask the platform team to add a Repository resource with that address (or an alias of it).",
            )
        })
}

/// An owner that renders its objects can be changed itself: the target to call with.
fn owner_as_target(problem: Problem, cluster: &Cluster, owner: &OwnerRef) -> Problem {
    if !matches!(problem.code.as_ref(), "source.helm" | "source.opaque") {
        return problem;
    }
    problem.with(format!("target: {}/{}/{}/{}", cluster.name(), owner.namespace, owner.kind, owner.name))
}

impl Pipeline {
    /// Everything between an owner and the tip of the branch that it follows, as it is now.
    pub(super) async fn place(&self, cluster: &Cluster, owner: &OwnerRef) -> Result<Place> {
        let object = cluster.owner_object(owner).await?;
        let flux_source = cluster.source_of(owner, &object).await?;
        let all = sources(SourceBasis { owner, object: &object, source: flux_source.as_ref() })
            .map_err(|p| owner_as_target(p, cluster, owner))?;
        self.place_of(owner, object, all, Duration::ZERO).await
    }

    /// The same for an owner that was read, with its sources. For a question the tip may be `age` old.
    pub(super) async fn place_of(
        &self,
        owner: &OwnerRef,
        object: Value,
        all: Vec<Source>,
        age: Duration,
    ) -> Result<Place> {
        let source = sole_source(owner, all)?;
        let follow = editable(owner, &source)?;
        let config = self.config.load();
        let repository = repository_of(&config, &source.url)?.to_owned();
        let repo = self.repo(&repository)?;
        let branch = match follow {
            Follow::Default => repo.git.head_branch_within(age).await?,
            Follow::Branch(b) | Follow::BranchOrTag(b) => format!("refs/heads/{}", b.trim_start_matches("refs/heads/")),
        };
        let short = branch.trim_start_matches("refs/heads/").to_owned();
        let spec = config.repositories.iter().find(|r| r.name == repository).map(|r| &r.spec);
        if spec.is_some_and(|s| !s.branches.is_empty() && !s.branches.contains(&short)) {
            return Err(Problem::new(
                "repository.branch_not_allowed",
                format!("Branch {short} of {repository} may not be written."),
                "Ask the platform team to list it under `branches` of the Repository.",
            ));
        }
        let base = repo.git.fetch_within(&branch, age).await?;
        let namespace = destination_namespace(owner, &object);
        Ok(Place { owner: owner.clone(), object, source, repository, git_ref: branch, base, namespace })
    }
}

impl Pipeline {
    /// What stands between a commit and the cluster, with everything that has a say read now.
    pub(super) async fn delivery_state(
        &self,
        cluster: &Cluster,
        owner: &OwnerRef,
        object: &Value,
        live: Option<(&ObjectKey, &Value)>,
        pointers: &[String],
    ) -> Result<DeliveryState> {
        let source = cluster.source_of(owner, object).await?;
        let project = cluster.project_of(owner, object).await?;
        let parents = cluster.lineage(owner).await?;
        let now = chrono::DateTime::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default();
        let standing = Standing {
            owner,
            object,
            source: source.as_ref(),
            project: project.as_ref(),
            parents: &parents,
            live,
            pointers,
        };
        Ok(delivery_state(standing, now))
    }
}

/// The one source that holds manifests; with several, nothing is guessed.
fn sole_source(owner: &OwnerRef, all: Vec<Source>) -> Result<Source> {
    let mut good: Vec<Source> = all.iter().filter(|s| editable(owner, s).is_ok()).cloned().collect();
    match (good.pop(), good.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(last), false) => Err(Problem::new(
            "source.several",
            format!(
                "{owner} has {} sources with manifests; which one holds the object is not certain.",
                good.len() + 1
            ),
            "Change the file by hand, or give each source an Application of its own.",
        )
        .with_all(
            good.iter().chain(std::iter::once(&last)).map(|s| format!("{} {} {}", s.url, s.target_revision, s.path)),
        )),
        (None, _) => match all.first() {
            Some(first) => Err(editable(owner, first).err().unwrap_or_else(|| no_source(owner))),
            None => Err(no_source(owner)),
        },
    }
}

fn no_source(owner: &OwnerRef) -> Problem {
    Problem::new("source.none", format!("{owner} has no Git source."), "Give it one, or change it by hand.")
}
