//! The cluster over real HTTP, against a small API server.

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_core::error::Retry;
use countersign_core::model::{ClusterSpec, Engine, ObjectKey, OwnerRef, Ownership, ResourceRef};
use countersign_core::ownership::Reach;
use futures::StreamExt;
use serde_json::{Value, json};

use super::*;
use fake::{Fake, World};

async fn connect(fake: &Fake, hints: bool) -> Cluster {
    let config = fake.kubeconfig();
    let kubeconfig = Some(config.path().to_str().unwrap().to_owned());
    let _ = rustls::crypto::ring::default_provider().install_default();
    Cluster::connect("prod", ClusterSpec { kubeconfig, hints, ..ClusterSpec::default() }).await.unwrap()
}

fn target(text: &str) -> ResourceRef {
    text.parse().unwrap()
}

fn application(name: &str, path: &str, objects: &[(&str, &str, &str)]) -> Value {
    let resources: Vec<Value> =
        objects.iter().map(|(g, k, n)| json!({"group": g, "kind": k, "namespace": "shop", "name": n})).collect();
    json!({"kind": "Application", "metadata": {"namespace": "argocd", "name": name},
        "spec": {"project": "default", "destination": {"namespace": "shop", "server": "https://kubernetes.default.svc"},
            "source": {"repoURL": "https://git.example/acme/shop.git", "path": path, "targetRevision": "main"}},
        "status": {"sourceType": "Directory", "controllerNamespace": "argocd", "resources": resources,
            "sync": {"status": "Synced"}, "health": {"status": "Healthy"}}})
}

fn deployment(tracking: &str) -> Value {
    json!({"kind": "Deployment", "metadata": {"namespace": "shop", "name": "checkout", "uid": "d",
        "annotations": {"argocd.argoproj.io/tracking-id": tracking}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "checkout"}},
            "template": {"spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]}}},
        "status": {"readyReplicas": 1, "updatedReplicas": 2}})
}

fn child(kind: &str, name: &str, parent: &str, parent_name: &str, parent_uid: &str) -> Value {
    json!({"kind": kind, "metadata": {"namespace": "shop", "name": name, "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": parent, "name": parent_name, "uid": parent_uid, "controller": true}]}})
}

fn shop(world: &mut World) {
    world.put(application("shop", "apps/shop", &[("apps", "Deployment", "checkout")]));
    world.put(deployment("shop:apps/Deployment:shop/checkout"));
    world.put(child("ReplicaSet", "checkout-1", "Deployment", "checkout", "d"));
    world.put(child("Pod", "checkout-1-x", "ReplicaSet", "checkout-1", "uid-checkout-1"));
}

fn owner(name: &str) -> OwnerRef {
    OwnerRef::new(Engine::Argocd, "Application", "argocd", name)
}

/// Waits for something that the watches bring about.
async fn eventually<T, F: Future<Output = Option<T>>>(mut check: impl FnMut() -> F) -> T {
    for _ in 0..200 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it did not happen within 5 s");
}

#[tokio::test]
async fn a_pod_leads_to_its_application_with_three_reads() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    cluster.ready().await.unwrap();
    cluster.owner_of(&target("prod/shop/Deployment/checkout")).await.unwrap();
    let before = fake.gets.load(Ordering::SeqCst);
    let got = cluster.owner_of(&target("prod/shop/Pod/checkout-1-x")).await.unwrap();
    let Ownership::Owned { owner: found, root, via } = got else { panic!("{got:?}") };
    assert_eq!((found, root), (owner("shop"), ObjectKey::new("apps", "Deployment", "shop", "checkout")));
    assert_eq!(via.len(), 3);
    assert_eq!(fake.gets.load(Ordering::SeqCst) - before, 3);
}

#[tokio::test]
async fn the_index_follows_what_happens() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    let at = target("prod/shop/Deployment/checkout");
    assert!(matches!(cluster.owner_of(&at).await.unwrap(), Ownership::Owned { .. }));
    fake.put(application("other", "apps/other", &[("apps", "Deployment", "checkout")]));
    eventually(|| async { matches!(cluster.owner_of(&at).await.unwrap(), Ownership::Conflict { .. }).then_some(()) })
        .await;
    fake.delete("Application", "argocd", "other");
    eventually(|| async { matches!(cluster.owner_of(&at).await.unwrap(), Ownership::Owned { .. }).then_some(()) })
        .await;
    fake.delete("Application", "argocd", "shop");
    let got = eventually(|| async {
        let got = cluster.owner_of(&at).await.unwrap();
        (!matches!(got, Ownership::Owned { .. })).then_some(got)
    })
    .await;
    assert!(matches!(got, Ownership::Orphaned { .. }), "{got:?}");
}

#[tokio::test]
async fn a_lost_watch_is_taken_up_again() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    cluster.ready().await.unwrap();
    fake.drop_watches();
    fake.put(application("late", "apps/late", &[("", "ConfigMap", "late")]));
    let key = ObjectKey::new("", "ConfigMap", "shop", "late");
    let got = eventually(|| async { cluster.locate_key(&key).await.ok() }).await;
    assert_eq!(got.ownership, Ownership::DeclaredNotApplied { root: key.clone(), by: vec![owner("late")] });
    assert_eq!(got.object, None);
}

#[tokio::test]
async fn engines_that_are_not_installed_are_no_error() {
    let fake = Fake::start(|w| {
        w.absent.insert("argoproj.io".into());
        w.absent.insert("kustomize.toolkit.fluxcd.io".into());
        w.absent.insert("source.toolkit.fluxcd.io".into());
        w.put(deployment("shop:apps/Deployment:shop/checkout"));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let got = cluster.owner_of(&target("prod/shop/Deployment/checkout")).await.unwrap();
    assert!(matches!(got, Ownership::Orphaned { mark, .. } if mark.contains("no Argo CD runs here")));
}

#[tokio::test]
async fn owners_that_may_not_be_listed_are_a_problem_and_not_an_answer() {
    let fake = Fake::start(|w| {
        shop(w);
        w.forbidden.insert("/applications".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let problem = cluster.owner_of(&target("prod/shop/Deployment/checkout")).await.unwrap_err();
    assert_eq!(problem.code, "cluster.forbidden");
    assert_eq!(problem.message, "Countersign may not list applications.argoproj.io.");
}

#[tokio::test]
async fn a_list_that_may_not_be_watched_is_no_answer_until_the_right_is_there() {
    let fake = Fake::start(|w| {
        shop(w);
        w.unwatchable.insert("/applications".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let at = target("prod/shop/Deployment/checkout");
    let problem = eventually(|| async { cluster.owner_of(&at).await.err() }).await;
    assert_eq!(problem.code, "cluster.forbidden");
    assert_eq!(problem.message, "Countersign may not watch applications.argoproj.io.");
    // The list is read again and again; that it succeeds is no answer either.
    for _ in 0..40 {
        assert_eq!(cluster.owner_of(&at).await.unwrap_err().code, "cluster.forbidden");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fake.world.lock().unwrap().unwatchable.clear();
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match cluster.owner_of(&at).await {
                Ok(found) => break found,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    assert!(matches!(found.await.unwrap(), Ownership::Owned { .. }));
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_the_answers() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    let at = target("prod/shop/Deployment/checkout");
    cluster.owner_of(&at).await.unwrap();
    fake.world.lock().unwrap().forbidden.insert("/applications".into());
    fake.drop_watches();
    let problem = eventually(|| async { cluster.owner_of(&at).await.err() }).await;
    assert_eq!(problem.message, "Countersign may not list applications.argoproj.io.");
}

#[tokio::test]
async fn a_control_plane_whose_version_may_not_be_read_is_a_problem() {
    let fake = Fake::start(|w| {
        shop(w);
        w.forbidden.insert("/statefulsets/argocd-application-controller".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let problem = cluster.owner_of(&target("prod/shop/Deployment/checkout")).await.unwrap_err();
    assert_eq!(problem.message, "Countersign may not get statefulsets.apps in the namespace argocd.");
}

#[tokio::test]
async fn an_api_group_that_may_not_be_read_is_not_one_that_serves_nothing() {
    let fake = Fake::start(|w| {
        shop(w);
        w.forbidden.insert("/apis/autoscaling/v2".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
    let problem = cluster.hpa_for(&key).await.unwrap_err();
    assert_eq!(
        (problem.code.as_ref(), problem.message.as_str()),
        ("cluster.forbidden", "Countersign may not get /apis/autoscaling/v2.")
    );
    let unknown = cluster.kind("HorizontalPodAutoscaler", None).await.unwrap_err();
    assert_eq!(unknown.evidence, vec!["Countersign may not get /apis/autoscaling/v2.".to_owned()]);
}

#[tokio::test]
async fn health_without_a_right_to_the_pods_says_so() {
    let fake = Fake::start(|w| {
        shop(w);
        w.forbidden.insert("/pods".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let (key, object) = cluster.require(&target("prod/shop/Deployment/checkout")).await.unwrap();
    let words = cluster.health(&key, &object).await.unwrap().unwrap();
    assert_eq!(words, "1/2 ready; why is not known: Countersign may not list pods in the namespace shop.");
}

#[tokio::test]
async fn what_may_not_be_watched_comes_as_a_problem_in_the_feed() {
    let fake = Fake::start(|w| {
        shop(w);
        w.unwatchable.insert("/deployments".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
    let mut feed = cluster.watch_owner(&owner("shop"), vec![key]).await.unwrap();
    let told = async {
        loop {
            if let Err(problem) = feed.next().await.unwrap() {
                break problem;
            }
        }
    };
    let problem = tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
    assert_eq!(problem.message, "Countersign may not watch deployments.apps in the namespace shop.");
}

#[tokio::test]
async fn an_owner_on_the_way_that_may_not_be_read_is_no_unmanaged() {
    let fake = Fake::start(|w| {
        shop(w);
        w.forbidden.insert("/deployments/".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let problem = cluster.owner_of(&target("prod/shop/ReplicaSet/checkout-1")).await.unwrap_err();
    assert_eq!(problem.code, "owner.unreadable");
}

#[tokio::test]
async fn before_a_write_the_owner_is_read_again() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
    assert!(matches!(cluster.owner_of_fresh(&key).await.unwrap().ownership, Ownership::Owned { .. }));
    // Changed behind the watch's back: no event is sent.
    fake.world.lock().unwrap().put(json!({"kind": "Application", "metadata": {"namespace": "argocd", "name": "shop"},
        "spec": {"destination": {"server": "https://elsewhere"}}, "status": {}}));
    assert!(
        matches!(cluster.locate_key(&key).await.unwrap().ownership, Ownership::Owned { .. }),
        "the index does not know yet"
    );
    let got = cluster.owner_of_fresh(&key).await.unwrap().ownership;
    assert!(matches!(&got, Ownership::Orphaned { mark, .. } if mark.contains("https://elsewhere")), "{got:?}");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_told_and_tried_again() {
    let fake = Fake::start(|_| {}).await;
    let config = fake.kubeconfig();
    let text = std::fs::read_to_string(config.path()).unwrap().replace(&fake.address.to_string(), "127.0.0.1:9");
    std::fs::write(config.path(), text).unwrap();
    let kubeconfig = Some(config.path().to_str().unwrap().to_owned());
    let cluster = Cluster::connect("prod", ClusterSpec { kubeconfig, ..ClusterSpec::default() }).await.unwrap();
    let problem = cluster.get(&target("prod/shop/Deployment/checkout")).await.unwrap_err();
    assert_eq!((problem.code.as_ref(), problem.retry), ("cluster.unreachable", countersign_core::Retry::Later));
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_a_problem_of_the_configuration() {
    let spec = ClusterSpec { kubeconfig: Some("/nonexistent/kubeconfig".into()), ..ClusterSpec::default() };
    assert_eq!(Cluster::connect("prod", spec).await.unwrap_err().code, "cluster.config");
}

#[tokio::test]
async fn kinds_are_resolved_or_refused_with_names() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    let unknown = cluster.get(&target("prod/shop/Deploymnt/checkout")).await.unwrap_err();
    assert_eq!((unknown.code.as_ref(), unknown.evidence), ("input.kind_unknown", vec!["Deployment".to_owned()]));
    let many = cluster.get(&target("prod/shop/Event/x")).await.unwrap_err();
    assert_eq!(many.code, "input.kind_ambiguous");
    assert_eq!(many.evidence.len(), 2);
    assert!(cluster.get(&target("prod/shop/Event.events.k8s.io/x")).await.unwrap().is_none());
    assert_eq!(cluster.get(&target("prod/-/Deployment/x")).await.unwrap_err().code, "input.namespace");
    assert_eq!(cluster.get(&target("prod/shop/Namespace/x")).await.unwrap_err().code, "input.namespace");
    let missing = cluster.locate(&target("prod/shop/Deployment/chekout")).await.unwrap_err();
    assert_eq!((missing.code.as_ref(), missing.evidence), ("cluster.not_found", vec!["checkout".to_owned()]));
}

#[tokio::test]
async fn everyone_who_reads_a_file_is_found() {
    let fake = Fake::start(|w| {
        shop(w);
        w.put(application("also", "apps", &[]));
        let mut recursive = application("deep", "apps", &[]);
        recursive["spec"]["source"]["directory"] = json!({"recurse": true});
        w.put(recursive);
        let mut elsewhere = application("branch", "apps/shop", &[]);
        elsewhere["spec"]["source"]["targetRevision"] = json!("next");
        w.put(elsewhere);
        w.put(json!({"kind": "GitRepository", "metadata": {"namespace": "flux-system", "name": "fl"},
            "spec": {"url": "ssh://git@git.example/acme/shop", "ref": {"branch": "main"}}}));
        w.put(json!({"kind": "Kustomization", "metadata": {"namespace": "flux-system", "name": "apps"},
            "spec": {"path": "./apps/shop", "sourceRef": {"kind": "GitRepository", "name": "fl"}}}));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let found = cluster.feeders("https://git.example/acme/shop.git", "main", "apps/shop/deploy.yaml").await.unwrap();
    let found: Vec<(String, Reach)> = found.into_iter().map(|f| (f.owner.name, f.reach)).collect();
    assert_eq!(found, [("deep".into(), Reach::Reads), ("shop".into(), Reach::Reads), ("apps".into(), Reach::Reads)]);
    assert_eq!(cluster.readers("https://git.example/acme/shop.git").await.unwrap().len(), 5);
    assert_eq!(cluster.owners().await.unwrap().len(), 5);
}

#[tokio::test]
async fn autoscalers_health_and_events_are_found() {
    let fake = Fake::start(|w| {
        shop(w);
        w.put(json!({"kind": "HorizontalPodAutoscaler", "metadata": {"namespace": "shop", "name": "checkout"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}, "minReplicas": 2, "maxReplicas": 5}}));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let (key, object) = cluster.require(&target("prod/shop/Deployment/checkout")).await.unwrap();
    let scaler = cluster.hpa_for(&key).await.unwrap().unwrap();
    assert_eq!((scaler.key.kind.as_str(), scaler.min, scaler.max), ("HorizontalPodAutoscaler", Some(2), Some(5)));
    assert_eq!(cluster.vpa_for(&key).await.unwrap(), None);
    assert_eq!(cluster.health(&key, &object).await.unwrap().as_deref(), Some("1/2 ready"));
    assert_eq!(cluster.events(&key, chrono::Utc::now()).await.unwrap(), Vec::<String>::new());
    assert!(object.pointer("/metadata/managedFields").is_none());
}

#[tokio::test]
async fn schemas_are_read_once_and_again_when_they_change() {
    let schema = |field: &str| {
        json!({"components": {"schemas": {"D": {"type": "object",
            "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
            "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, field: {"type": "object"}}}}}})
    };
    let fake = Fake::start(|w| {
        w.openapi.insert("apis/apps/v1".into(), schema("spec"));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}});
    for _ in 0..3 {
        assert_eq!(cluster.validate(&object).await.unwrap(), Vec::new());
    }
    assert_eq!(fake.documents.load(Ordering::SeqCst), 1);
    fake.world.lock().unwrap().openapi.insert("apis/apps/v1".into(), schema("specification"));
    let found = cluster.validate(&object).await.unwrap();
    assert_eq!(
        (found[0].code.as_ref(), found[0].evidence.clone()),
        ("schema.unknown_field", vec!["specification".to_owned()])
    );
    let unserved = json!({"apiVersion": "apps/v1beta1", "kind": "Deployment"});
    let found = cluster.validate(&unserved).await.unwrap();
    assert_eq!((found[0].code.as_ref(), found[0].evidence.clone()), ("schema.version", vec!["apps/v1".to_owned()]));
}

#[tokio::test]
async fn hints_are_sent_only_where_configured_and_a_refusal_is_no_error() {
    let fake = Fake::start(shop).await;
    let key = owner("shop").key();
    let silent = connect(&fake, false).await;
    assert_eq!(silent.annotate(&key, "argocd.argoproj.io/refresh", "normal").await.unwrap(), Hinted::Off);
    assert!(fake.world.lock().unwrap().patches.is_empty());
    let cluster = connect(&fake, true).await;
    assert_eq!(cluster.annotate(&key, "argocd.argoproj.io/refresh", "normal").await.unwrap(), Hinted::Sent);
    let patches = fake.world.lock().unwrap().patches.clone();
    assert_eq!(patches[0].1, json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}));
    fake.world.lock().unwrap().forbidden.insert("/applications/shop".into());
    assert_eq!(cluster.annotate(&key, "argocd.argoproj.io/refresh", "normal").await.unwrap(), Hinted::NotPermitted);
}

async fn next(feed: &mut (impl futures::Stream<Item = Result<Value>> + Unpin)) -> (String, String, String) {
    let line = tokio::time::timeout(Duration::from_secs(5), feed.next()).await.expect("a line within 5 s").unwrap();
    let line = line.unwrap();
    assert!(line["object"]["metadata"].get("managedFields").is_none());
    let text = |p: &str| line.pointer(p).and_then(Value::as_str).unwrap_or("").to_owned();
    (text("/type"), text("/object/kind"), text("/object/metadata/name"))
}

fn is(line: &(String, String, String), kind: &str, object: &str, name: &str) -> bool {
    (line.0.as_str(), line.1.as_str(), line.2.as_str()) == (kind, object, name)
}

#[tokio::test]
async fn the_feed_shows_owner_project_and_objects_as_the_recordings_do() {
    let fake = Fake::start(|w| {
        shop(w);
        w.put(json!({"kind": "AppProject", "metadata": {"namespace": "argocd", "name": "default"}, "spec": {}}));
        w.put(application("neighbour", "x", &[]));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
    let mut feed = cluster.watch_owner(&owner("shop"), vec![key]).await.unwrap();
    let mut first = vec![next(&mut feed).await, next(&mut feed).await, next(&mut feed).await];
    first.sort();
    assert!(is(&first[0], "ADDED", "AppProject", "default"), "{first:?}");
    assert!(is(&first[1], "ADDED", "Application", "shop"), "{first:?}");
    assert!(is(&first[2], "ADDED", "Deployment", "checkout"), "{first:?}");
    fake.put(deployment("shop:apps/Deployment:shop/checkout"));
    let line = next(&mut feed).await;
    assert!(is(&line, "MODIFIED", "Deployment", "checkout"), "{line:?}");
    fake.delete("Deployment", "shop", "checkout");
    let line = next(&mut feed).await;
    assert!(is(&line, "DELETED", "Deployment", "checkout"), "{line:?}");
}

#[tokio::test]
async fn an_owner_whose_kind_is_not_served_yet_is_never_left_out_of_the_feed() {
    let fake = Fake::start(|w| {
        shop(w);
        w.absent.insert("argoproj.io".into());
    })
    .await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
    let problem = cluster.watch_owner(&owner("shop"), vec![key]).await.map(drop).unwrap_err();
    assert_eq!((problem.code.as_ref(), problem.retry), ("cluster.unreachable", Retry::Later));
    // A wanted object may be of a kind that the change itself brings along.
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("example.com", "Widget", "shop", "w");
    let mut feed = cluster.watch_owner(&owner("shop"), vec![key]).await.unwrap();
    let line = next(&mut feed).await;
    assert!(is(&line, "ADDED", "Application", "shop"), "{line:?}");
}

#[tokio::test]
async fn what_vanished_while_nobody_watched_is_told_after_the_reconnect() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    let key = ObjectKey::new("apps", "Deployment", "shop", "checkout");
    let mut feed = cluster.watch_owner(&owner("shop"), vec![key]).await.unwrap();
    for _ in 0..2 {
        next(&mut feed).await;
    }
    // Removed without an event, then the watch is lost and lists again.
    let gone = ("/apis/apps/v1/namespaces/shop/deployments".to_owned(), "checkout".to_owned());
    fake.world.lock().unwrap().remove(&gone);
    fake.drop_watches();
    let mut lines = Vec::new();
    for _ in 0..2 {
        lines.push(next(&mut feed).await);
    }
    lines.sort();
    assert!(is(&lines[0], "ADDED", "Application", "shop"), "{lines:?}");
    assert!(is(&lines[1], "DELETED", "Deployment", "checkout"), "{lines:?}");
}

#[tokio::test]
async fn the_values_of_a_secret_never_reach_the_feed() {
    let fake = Fake::start(|w| {
        shop(w);
        w.put(json!({"kind": "Secret", "metadata": {"namespace": "shop", "name": "s"}, "data": {"password": "aHVudGVyMg=="}}));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let feed = cluster.watch_owner(&owner("shop"), vec![ObjectKey::new("", "Secret", "shop", "s")]).await.unwrap();
    let lines: Vec<Value> = feed.take(2).map(|l| l.unwrap()).collect().await;
    assert!(!format!("{lines:?}").contains("aHVudGVyMg"), "{lines:?}");
    assert!(format!("{lines:?}").contains("(not read)"));
}

#[tokio::test]
async fn the_lineage_of_a_kustomization_ends_at_the_bootstrap_one() {
    let kustomization = |name: &str, ids: Value, labels: &str| {
        json!({"kind": "Kustomization", "metadata": {"namespace": "flux-system", "name": name, "labels": {
            "kustomize.toolkit.fluxcd.io/name": labels, "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}},
            "spec": {"path": name, "sourceRef": {"kind": "GitRepository", "name": "fl"}}, "status": {"inventory": {"entries": ids}}})
    };
    let fake = Fake::start(|w| {
        w.put(json!({"kind": "GitRepository", "metadata": {"namespace": "flux-system", "name": "fl"}, "spec": {"url": "https://x/y"}}));
        w.put(kustomization("apps", json!([]), "flux-system"));
        w.put(kustomization(
            "flux-system",
            json!([{"id": "flux-system_apps_kustomize.toolkit.fluxcd.io_Kustomization"}, {"id": "flux-system_flux-system_kustomize.toolkit.fluxcd.io_Kustomization"}]),
            "flux-system",
        ));
    })
    .await;
    let cluster = connect(&fake, false).await;
    let owner = OwnerRef::new(Engine::Flux, "Kustomization", "flux-system", "apps");
    let above = cluster.lineage(&owner).await.unwrap();
    let names: Vec<&str> = above.iter().filter_map(|o| o.pointer("/metadata/name")?.as_str()).collect();
    assert_eq!(names, ["flux-system", "fl"]);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_watches() {
    let fake = Fake::start(shop).await;
    let cluster = connect(&fake, false).await;
    cluster.ready().await.unwrap();
    let book = Arc::downgrade(&cluster.0.book);
    drop(cluster);
    eventually(|| async { book.upgrade().is_none().then_some(()) }).await;
}
