//! The kube client against the API server.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, Discovery};
use serde_json::json;

use super::world::{deployment, sandbox, until};
use crate::sandbox::cluster::ClusterSandbox;
use crate::sandbox::cluster::access::Denial;
use crate::sandbox::cluster::json::{number, text};
use crate::sandbox::cluster::render;

async fn client(sandbox: &ClusterSandbox) -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&sandbox.kubeconfig_yaml()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(
        json!({ "metadata": { "name": name, "labels": { "color": value } }, "data": { "k": value } }),
    )
    .unwrap()
}

#[tokio::test]
async fn the_kube_client_creates_reads_patches_and_deletes() {
    let sandbox = sandbox(10.0).await;
    let client = client(&sandbox).await;
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.36.3");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let made = maps.create(&PostParams::default(), &config_map("a", "red")).await.unwrap();
    assert!(made.metadata.uid.is_some());
    let again = maps.create(&PostParams::default(), &config_map("a", "red")).await.unwrap_err();
    assert!(
        matches!(&again, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists"),
        "{again:?}"
    );
    let patched =
        maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "data": { "k": "blue" } }))).await.unwrap();
    assert_eq!(patched.data.as_ref().unwrap()["k"], "blue");
    let stale = maps.replace("a", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.reason == "Conflict"), "{stale:?}");
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    assert_eq!(
        maps.patch("a", &dry, &Patch::Merge(json!({ "data": { "k": "green" } }))).await.unwrap().data.unwrap()["k"],
        "green"
    );
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["k"], "blue");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let gone = maps.get("a").await.unwrap_err();
    assert!(
        matches!(&gone, kube::Error::Api(status) if status.code == 404 && status.message == "configmaps \"a\" not found"),
        "{gone:?}"
    );
    let nowhere: Api<ConfigMap> = Api::namespaced(client, "nowhere");
    let refused = nowhere.create(&PostParams::default(), &config_map("a", "red")).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.message == "namespaces \"nowhere\" not found"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn lists_are_paged_and_selected() {
    let sandbox = sandbox(10.0).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&sandbox).await, "default");
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name, if name == "b" { "blue" } else { "red" })).await.unwrap();
    }
    let red = maps.list(&ListParams::default().labels("color=red")).await.unwrap();
    assert_eq!(red.items.iter().map(|map| map.metadata.name.clone().unwrap()).collect::<Vec<_>>(), ["a", "c"]);
    let one = maps.list(&ListParams::default().fields("metadata.name=b")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let mut names = Vec::new();
    let mut page = ListParams::default().labels("color in (red,blue)").limit(2);
    loop {
        let list = maps.list(&page).await.unwrap();
        names.extend(list.items.into_iter().map(|map| map.metadata.name.unwrap()));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_watch_sees_changes_and_selectors_and_an_old_version_is_gone() {
    let sandbox = sandbox(10.0).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&sandbox).await, "default");
    let made = maps.create(&PostParams::default(), &config_map("a", "red")).await.unwrap();
    let version = made.metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("color=red");
    let mut events = maps.watch(&params, &version).await.unwrap().boxed();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "data": { "k": "2" } }))).await.unwrap();
    assert!(
        matches!(events.try_next().await.unwrap().unwrap(), WatchEvent::Modified(map) if map.data.as_ref().unwrap()["k"] == "2")
    );
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "labels": { "color": "blue" } } })))
        .await
        .unwrap();
    assert!(
        matches!(events.try_next().await.unwrap().unwrap(), WatchEvent::Deleted(_)),
        "an object that leaves the selection is gone to the watch"
    );
    sandbox.store().compact();
    let mut old = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    assert!(matches!(old.try_next().await.unwrap().unwrap(), WatchEvent::Error(status) if status.code == 410));
}

#[tokio::test]
async fn both_kinds_of_watcher_start_and_go_on_after_a_break() {
    let sandbox = sandbox(10.0).await;
    let client = client(&sandbox).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    maps.create(&PostParams::default(), &config_map("a", "red")).await.unwrap();
    for config in [watcher::Config::default().page_size(1), watcher::Config::default().streaming_lists()] {
        let mut stream = watcher(maps.clone(), config).default_backoff().applied_objects().boxed();
        let mut names = Vec::new();
        while names.len() < 2 {
            names.push(stream.try_next().await.unwrap().unwrap().metadata.name.unwrap());
        }
        names.sort();
        assert_eq!(names, ["a", "kube-root-ca.crt"]);
        sandbox.store().compact();
        sandbox.state().drop_watches();
        maps.patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({ "data": { "k": format!("{:?}", std::time::Instant::now()) } })),
        )
        .await
        .unwrap();
        assert!(stream.try_next().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn discovery_names_every_kind() {
    let sandbox = sandbox(10.0).await;
    let client = client(&sandbox).await;
    for discovery in [
        Discovery::new(client.clone()).run().await.unwrap(),
        Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let group = discovery.groups().find(|group| group.name() == "argoproj.io").unwrap();
        let (resource, capabilities) = group.recommended_kind("Application").unwrap();
        assert_eq!(resource.plural, "applications");
        assert!(capabilities.supports_operation(kube::discovery::verbs::WATCH));
        let apps: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        assert!(apps.list(&ListParams::default()).await.unwrap().items.is_empty());
        assert!(discovery.groups().any(|group| group.name() == "kustomize.toolkit.fluxcd.io"));
    }
    let metadata: Api<kube::core::PartialObjectMeta<Namespace>> = Api::all(client);
    let names: Vec<_> = metadata.list_metadata(&ListParams::default()).await.unwrap().items;
    assert!(names.iter().any(|namespace| namespace.metadata.name.as_deref() == Some("argocd")));
}

#[tokio::test]
async fn denied_and_invalid_writes_are_refused_in_the_real_words() {
    let sandbox = sandbox(10.0).await;
    let client = client(&sandbox).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let good: Deployment = serde_json::from_value(render::yaml(&deployment("web", "nginx:1.27", 1)).unwrap()).unwrap();
    deployments.create(&PostParams::default(), &good).await.unwrap();
    let refused = deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "replicas": -1 } })))
        .await
        .unwrap_err();
    let words =
        "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422 && status.message == words),
        "{refused:?}"
    );
    let strict =
        PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::default() };
    let unknown =
        deployments.patch("web", &strict, &Patch::Merge(json!({ "spec": { "replica": 2 } }))).await.unwrap_err();
    assert!(unknown.to_string().contains("unknown field \"spec.replica\""), "{unknown}");
    let typed = deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "replicas": "two" } })))
        .await
        .unwrap_err();
    assert!(
        typed
            .to_string()
            .contains("cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        "{typed}"
    );
    sandbox.state().access.deny(Denial {
        verb: "patch".to_owned(),
        resource: "deployments.apps".to_owned(),
        ..Denial::default()
    });
    let denied = deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "replicas": 2 } })))
        .await
        .unwrap_err();
    let words = "deployments.apps \"web\" is forbidden: User \"sandbox-admin\" cannot patch resource \"deployments\" in API group \"apps\" in the namespace \"default\"";
    assert!(matches!(&denied, kube::Error::Api(status) if status.code == 403 && status.message == words), "{denied:?}");
    let log = sandbox.log();
    assert_eq!(
        log.iter().map(|entry| (entry.verb.as_str(), entry.code)).collect::<Vec<_>>(),
        [("create", 201), ("patch", 422), ("patch", 400), ("patch", 400), ("patch", 403)]
    );
    assert_eq!(log[4].body["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_deployment_rolls_out_and_its_objects_go_with_it() {
    let sandbox = sandbox(4.0).await;
    let client = client(&sandbox).await;
    let mut object = render::yaml(&deployment("web", "nginx:1.27", 2)).unwrap();
    object["metadata"]["annotations"] = json!({ "note": "copied" });
    sandbox.apply(&object).unwrap();
    let place = ("apps", "Deployment", "default", "web");
    let live =
        until(&sandbox, place, "a finished rollout", |d| number(d, &["status", "availableReplicas"], 0) == 2).await;
    assert_eq!(live["status"]["conditions"][1]["reason"], "NewReplicaSetAvailable");
    assert_eq!(live["status"]["observedGeneration"], 1);
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let list = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    assert_eq!(list.items.len(), 2);
    let owner = &list.items[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(owner.kind, "ReplicaSet");
    let set = sandbox.get("apps", "ReplicaSet", "default", &owner.name).unwrap();
    assert_eq!(text(&set, &["metadata", "annotations", "note"]), "copied");
    assert_eq!(text(&set, &["metadata", "ownerReferences", "0", "name"]), "web");
    assert!(sandbox.delete("apps", "Deployment", "default", "web"));
    for _ in 0..200 {
        if pods.list(&ListParams::default()).await.unwrap().items.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("pods outlived their deployment");
}

#[tokio::test]
async fn a_missing_image_stalls_the_rollout_until_it_turns_up() {
    let sandbox = sandbox(40.0).await;
    sandbox.apply(&render::yaml(&deployment("web", "nginx:1.27", 2)).unwrap()).unwrap();
    let place = ("apps", "Deployment", "default", "web");
    until(&sandbox, place, "a finished rollout", |d| number(d, &["status", "availableReplicas"], 0) == 2).await;
    sandbox.apply(&render::yaml(&deployment("web", "nginx:missing", 2)).unwrap()).unwrap();
    let stalled = until(&sandbox, place, "the deadline", |d| {
        d["status"]["conditions"][1]["reason"] == "ProgressDeadlineExceeded"
    })
    .await;
    assert_eq!(stalled["status"]["availableReplicas"], 2, "old pods keep serving: {stalled}");
    assert_eq!(stalled["status"]["updatedReplicas"], 1);
    assert_eq!(stalled["status"]["conditions"][1]["status"], "False");
    let kind = sandbox.store().kinds.by_kind("", "Pod").unwrap();
    let waiting = sandbox
        .store()
        .list(&kind, "default")
        .0
        .into_iter()
        .filter(|pod| {
            text(pod, &["status", "containerStatuses", "0", "state", "waiting", "reason"]) == "ImagePullBackOff"
        })
        .count();
    assert_eq!(waiting, 1);
    sandbox.set_image_behaviour("nginx:missing", crate::sandbox::cluster::images::Behaviour::Ready);
    until(&sandbox, place, "the image that turned up", |d| {
        number(d, &["status", "updatedReplicas"], 0) == 2
            && number(d, &["status", "replicas"], 0) == 2
            && number(d, &["status", "availableReplicas"], 0) == 2
    })
    .await;
}
