//! One cluster: reach, clock, every right that docs/rbac.md names, engines, and whether their repositories are listed.

use std::collections::BTreeSet;

use countersign_core::model::{ClusterSpec, Named};
use countersign_core::{Problem, Result};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{Check, Looks};
use crate::clock::Clock;
use crate::cluster::{Cluster, Followed, Right};
use crate::config::Config;
use crate::git::same_repo;

/// Owners and their Git sources: group, kind. Each is needed in all namespaces, where it is installed.
const OWNERS: [(&str, &str); 6] = [
    ("argoproj.io", "Application"),
    ("kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
    ("fluxcd.controlplane.io", "ResourceSet"),
    ("fluxcd.controlplane.io", "FluxInstance"),
    ("source.toolkit.fluxcd.io", "GitRepository"),
];

/// What stands behind owners.
const BEHIND: [(&str, &str); 6] = [
    ("argoproj.io", "ApplicationSet"),
    ("argoproj.io", "AppProject"),
    ("source.toolkit.fluxcd.io", "OCIRepository"),
    ("source.toolkit.fluxcd.io", "HelmRepository"),
    ("source.toolkit.fluxcd.io", "HelmChart"),
    ("source.toolkit.fluxcd.io", "Bucket"),
];

/// What agents ask about most; docs/rbac.md has the whole list.
const WORKLOADS: [(&str, &str); 13] = [
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("", "Pod"),
    ("", "Service"),
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("", "Namespace"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("networking.k8s.io", "Ingress"),
];

/// Owners that hints are set on.
const HINTED: [(&str, &str); 3] = [
    ("argoproj.io", "Application"),
    ("source.toolkit.fluxcd.io", "GitRepository"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
];

/// Kinds that are asked about at the same time.
const AT_ONCE: usize = 8;

const READ: [&str; 3] = ["get", "list", "watch"];

pub async fn examine(config: &Config, named: &Named<ClusterSpec>, clock: &Clock) -> Vec<Check> {
    let mut looks = Looks::at(format!("cluster {}", named.name));
    let connected = crate::app::connect_cluster(config, named).await;
    let Some(cluster) = looks.tried("its kubeconfig can be used", connected) else { return looks.checks };
    let asked = clock.now_ms();
    match cluster.about().await {
        Err(problem) => looks.bad(problem),
        Ok(about) => {
            looks.ok(format!("reachable, Kubernetes {}", about.version));
            looks.clock(asked, clock.now_ms(), about.now_ms);
            if let Err(problem) = rights(config, named, &cluster, &mut looks).await {
                looks.bad(problem);
            }
            looks.tried("the schemas that values are checked against can be read", cluster.try_schemas().await);
            let read = cluster.ready().await;
            if looks.tried("every owner was really listed and is watched", read).is_some() {
                engines(named, &cluster, &mut looks).await;
                listed(config, &cluster.followed(), &mut looks);
            }
        }
    }
    cluster.close().await;
    looks.checks
}

/// Which of the verbs are missing, as `verb resource`.
async fn missing(cluster: &Cluster, group: &str, kind: &str, verbs: &[&str], namespace: &str) -> Result<Vec<String>> {
    let Some(resource) = cluster.plural(group, kind).await? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for verb in verbs {
        let right = Right { verb, group, resource: &resource, namespace, name: "" };
        if cluster.may(&right).await? == Some(false) {
            let dot = if group.is_empty() { "" } else { "." };
            out.push(format!("{verb} {resource}{dot}{group}"));
        }
    }
    Ok(out)
}

async fn all_missing(cluster: &Cluster, kinds: &[(&str, &str)], verbs: &[&str], ns: &str) -> Result<Vec<String>> {
    let asked = kinds.iter().map(|(group, kind)| missing(cluster, group, kind, verbs, ns));
    let answers: Vec<Vec<String>> = futures::stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    Ok(answers.concat())
}

fn forbidden(what: &str, missing: Vec<String>, role: &str) -> Problem {
    Problem::new(
        "cluster.forbidden",
        format!("Countersign's account lacks rights on {what}."),
        format!("Bind the role {role} to it; docs/rbac.md says what each right is for."),
    )
    .with_all(missing)
}

async fn rights(config: &Config, named: &Named<ClusterSpec>, cluster: &Cluster, looks: &mut Looks) -> Result<()> {
    let probe = Right { verb: "list", group: "", resource: "pods", namespace: "", name: "" };
    if cluster.may(&probe).await?.is_none() {
        looks.soft(Problem::new(
            "rights.unknown",
            "The cluster does not answer access reviews, so rights were tried by reading alone.",
            "Let the account create selfsubjectaccessreviews (the group system:basic-user has it).",
        ));
    }
    let owners = all_missing(cluster, &OWNERS, &READ, "").await?;
    if owners.is_empty() {
        looks.ok("owners and Git sources can be read and watched in all namespaces");
    } else {
        looks.bad(forbidden("owners, in all namespaces", owners, "countersign-owners"));
    }
    let behind = all_missing(cluster, &BEHIND, &READ, "").await?;
    if behind.is_empty() {
        looks.ok("what stands behind owners can be read and watched");
    } else {
        looks.soft(forbidden("what stands behind owners", behind, "countersign-owners"));
    }
    workloads(config, named, cluster, looks).await?;
    if named.spec.hints {
        let hints = all_missing(cluster, &HINTED, &["patch"], "").await?;
        if hints.is_empty() {
            looks.ok("hints may be set");
        } else {
            looks.soft(forbidden(
                "owners, for hints (engines notice commits by their own polling)",
                hints,
                "countersign-hints",
            ));
        }
    }
    too_much(named, cluster, looks).await
}

/// Workloads: in all namespaces, else in those that agents see.
async fn workloads(config: &Config, named: &Named<ClusterSpec>, cluster: &Cluster, looks: &mut Looks) -> Result<()> {
    let lacking = all_missing(cluster, &WORKLOADS, &READ, "").await?;
    if lacking.is_empty() {
        let listed = cluster.try_list("apps", "Deployment", "").await;
        looks.tried("workloads can be read and watched in all namespaces", listed);
        return Ok(());
    }
    let seen = config.agents.iter().flat_map(|a| &a.spec.sees).filter_map(|s| s.split_once('/'));
    let here = seen.filter(|(c, n)| (*c == named.name || *c == "*") && !n.contains('*')).map(|(_, n)| n.to_owned());
    let namespaces: BTreeSet<String> = here.collect();
    if namespaces.is_empty() {
        looks.bad(forbidden("workloads, in all namespaces", lacking, "countersign-read"));
        return Ok(());
    }
    for namespace in namespaces {
        // Namespaces themselves are not in one.
        let inside: Vec<(&str, &str)> = WORKLOADS.iter().copied().filter(|(_, k)| *k != "Namespace").collect();
        let lacking = all_missing(cluster, &inside, &READ, &namespace).await?;
        if lacking.is_empty() {
            let listed = cluster.try_list("apps", "Deployment", &namespace).await;
            looks.tried(format!("workloads can be read and watched in {namespace}"), listed);
        } else {
            looks.bad(forbidden(&format!("workloads in {namespace}"), lacking, "countersign-read"));
        }
    }
    Ok(())
}

/// Rights that Countersign never uses.
async fn too_much(named: &Named<ClusterSpec>, cluster: &Cluster, looks: &mut Looks) -> Result<()> {
    let mut more = Vec::new();
    for (verb, group, resource) in [
        ("get", "", "secrets"),
        ("list", "", "secrets"),
        ("patch", "apps", "deployments"),
        ("create", "apps", "deployments"),
        ("delete", "apps", "deployments"),
    ] {
        if cluster.may(&Right { verb, group, resource, namespace: "", name: "" }).await? == Some(true) {
            more.push(format!("{verb} {resource}"));
        }
    }
    if more.is_empty() {
        looks.ok("the account can neither read Secrets nor write workloads");
    } else {
        looks.soft(Problem::new(
            "rights.more",
            format!("The account may do more than Countersign ever does in {}: {}.", named.name, more.join(", ")),
            "Give it an account of its own with the roles of deploy/ (docs/rbac.md).",
        ));
    }
    Ok(())
}

async fn engines(named: &Named<ClusterSpec>, cluster: &Cluster, looks: &mut Looks) {
    let served = |group: &'static str, kind: &'static str| cluster.plural(group, kind);
    let argo = served("argoproj.io", "Application").await.is_ok_and(|k| k.is_some());
    let flux = served("kustomize.toolkit.fluxcd.io", "Kustomization").await.is_ok_and(|k| k.is_some());
    let counts = cluster.owner_counts();
    let said = |count: Option<&crate::cluster::OwnerCount>| {
        count.map_or_else(|| "no owners".to_owned(), |c| format!("{} owners, {} of them well", c.all, c.well))
    };
    if argo {
        let planes = &named.spec.argocd_namespaces;
        let planes: Vec<&str> =
            if planes.is_empty() { vec!["argocd"] } else { planes.iter().map(String::as_str).collect() };
        let mut version = None;
        for plane in planes {
            version = version.or(cluster.argocd_version(plane).await);
        }
        let version = version.map_or_else(|| "version not known".to_owned(), |v| format!("version {v}"));
        looks.ok(format!("Argo CD: {version}, {}", said(counts.get(&countersign_core::model::Engine::Argocd))));
    }
    if flux {
        let version =
            cluster.flux_version().await.map_or_else(|| "version not known".to_owned(), |v| format!("version {v}"));
        looks.ok(format!("Flux: {version}, {}", said(counts.get(&countersign_core::model::Engine::Flux))));
    }
    if !argo && !flux {
        looks.soft(Problem::new(
            "engine.none",
            "Neither Argo CD nor Flux is installed here, so nothing can be changed.",
            "Install one, or remove the Cluster.",
        ));
    }
}

/// Every repository that an owner follows is listed, or nothing there can be changed.
fn listed(config: &Config, followed: &[Followed], looks: &mut Looks) {
    let known = |url: &str| {
        config
            .repositories
            .iter()
            .any(|r| same_repo(&r.spec.url, url) || r.spec.aliases.iter().any(|a| same_repo(a, url)))
    };
    let unlisted: BTreeSet<&str> =
        followed.iter().filter(|f| f.owner.is_some() && !known(&f.url)).map(|f| f.url.as_str()).collect();
    if unlisted.is_empty() {
        return looks.ok("every repository that owners follow is listed");
    }
    let shown: Vec<String> = unlisted.iter().map(|u| shown_url(u)).collect();
    looks.soft(Problem::new(
        "repository.not_configured",
        format!("Owners follow repositories that are not listed: {}.", shown.join(", ")),
        "Add a Repository for each in which agents may ask for changes; the others stay readable.",
    ));
}

/// An address without what may be a credential in it.
pub fn shown_url(url: &str) -> String {
    match crate::git::RemoteUrl::parse(url) {
        Ok(u) => u.shown(),
        Err(_) => url.rsplit('@').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(120).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::shown_url;

    #[test]
    fn an_address_is_shown_without_credentials() {
        assert_eq!(shown_url("https://git.example/acme/shop.git"), "git.example/acme/shop.git");
        assert_eq!(shown_url("https://user:secret@git.example/acme/shop"), "git.example/acme/shop");
        assert_eq!(shown_url("oci://x/y"), "oci://x/y");
    }
}
