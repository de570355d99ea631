use serde_json::{Value, json};

use super::*;
use crate::model::{Engine, ObjectKey, OwnerRef, Ownership, Source, SourceKind};

fn app(namespace: &str, name: &str, resources: &[(&str, &str, &str, &str)]) -> Value {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(g, k, ns, n)| json!({"group": g, "kind": k, "namespace": ns, "name": n, "version": "v1", "status": "Synced"}))
        .collect();
    json!({"kind": "Application", "metadata": {"namespace": namespace, "name": name},
        "spec": {"destination": {"namespace": "shop", "server": "https://kubernetes.default.svc"}},
        "status": {"resources": resources}})
}

fn flux(kind: &str, name: &str, ids: Option<&[&str]>) -> Value {
    let mut cr =
        json!({"kind": kind, "metadata": {"namespace": "flux-system", "name": name}, "spec": {}, "status": {}});
    if let Some(ids) = ids {
        let entries: Vec<Value> = ids.iter().map(|id| json!({"id": id, "v": "v1"})).collect();
        cr["status"]["inventory"] = json!({"entries": entries});
    }
    cr
}

fn index(crs: &[Value]) -> Index {
    let mut index = Index::new();
    for cr in crs {
        index.apply(Listing::of(cr, &[]).unwrap());
    }
    index
}

fn argo() -> Planes {
    Planes { argo: vec![ArgoPlane::new("argocd")] }
}

fn application(namespace: &str, name: &str) -> OwnerRef {
    OwnerRef::new(Engine::Argocd, "Application", namespace, name)
}

fn kustomization(name: &str) -> OwnerRef {
    OwnerRef::new(Engine::Flux, "Kustomization", "flux-system", name)
}

fn deployment() -> ObjectKey {
    ObjectKey::new("apps", "Deployment", "shop", "checkout")
}

fn object(key: ObjectKey, metadata: Value) -> ObjectFacts {
    ObjectFacts::of(key, &json!({"metadata": metadata}))
}

fn tracked(key: ObjectKey, id: &str) -> ObjectFacts {
    object(key, json!({"annotations": {"argocd.argoproj.io/tracking-id": id}}))
}

/// Walks to the end over a small world of objects.
fn answer(start: &ObjectFacts, world: &[ObjectFacts], index: &Index, planes: &Planes) -> Ownership {
    let (mut walk, mut step) = Walk::begin(start, index, planes);
    loop {
        match step {
            Step::Answer(ownership) => return ownership,
            Step::Need(key) => {
                let found = world.iter().find(|o| {
                    o.key == key
                        || (o.key.namespace.is_empty()
                            && o.key == ObjectKey { namespace: String::new(), ..key.clone() })
                });
                let loaded = found.map_or(Loaded::Missing, |o| Loaded::Found(Box::new(o.clone())));
                step = walk.feed(loaded, index, planes);
            }
        }
    }
}

#[track_caller]
fn owner_of(ownership: &Ownership) -> &OwnerRef {
    match ownership {
        Ownership::Owned { owner, .. } => owner,
        other => panic!("not owned: {other:?}"),
    }
}

const DEPLOYMENT: (&str, &str, &str, &str) = ("apps", "Deployment", "shop", "checkout");

#[test]
fn a_tracking_id_that_names_its_object_is_ownership() {
    let index = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    let got = answer(&tracked(deployment(), "shop:apps/Deployment:shop/checkout"), &[], &index, &argo());
    let Ownership::Owned { owner, root, via } = got else { panic!("{got:?}") };
    assert_eq!(owner, application("argocd", "shop"));
    assert_eq!(root, deployment());
    assert_eq!(via.len(), 1);
    assert!(via[0].evidence.contains("status.resources"), "{via:?}");
}

#[test]
fn a_label_alone_is_no_ownership_under_annotation_tracking() {
    let index = index(&[app("argocd", "shop", &[])]);
    let labelled = object(deployment(), json!({"labels": {"app.kubernetes.io/instance": "shop"}}));
    assert!(matches!(answer(&labelled, &[], &index, &argo()), Ownership::Unmanaged { .. }));
}

#[test]
fn a_label_counts_under_label_tracking_only_where_the_application_lists_the_object() {
    let mut planes = argo();
    planes.argo[0].tracking = Tracking::Label;
    let labelled = object(deployment(), json!({"labels": {"app.kubernetes.io/instance": "shop"}}));
    let listed = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    assert_eq!(owner_of(&answer(&labelled, &[], &listed, &planes)), &application("argocd", "shop"));
    let unlisted = index(&[app("argocd", "shop", &[])]);
    let got = answer(&labelled, &[], &unlisted, &planes);
    let Ownership::Unmanaged { hints, .. } = got else { panic!("{got:?}") };
    assert!(hints[0].contains("does not list it"), "{hints:?}");
}

#[test]
fn a_pod_leads_to_its_deployment_and_a_copied_id_on_the_replica_set_is_no_claim() {
    let index = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    let id = "shop:apps/Deployment:shop/checkout";
    let rs_key = ObjectKey::new("apps", "ReplicaSet", "shop", "checkout-7d9f");
    let pod = object(
        ObjectKey::new("", "Pod", "shop", "checkout-7d9f-x"),
        json!({"uid": "p", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-7d9f", "uid": "r", "controller": true}]}),
    );
    let rs = object(
        rs_key,
        json!({"uid": "r", "annotations": {"argocd.argoproj.io/tracking-id": id},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout", "uid": "d", "controller": true}]}),
    );
    let got = answer(&pod, &[rs, tracked(deployment(), id)], &index, &argo());
    let Ownership::Owned { owner, root, via } = got else { panic!("{got:?}") };
    assert_eq!((owner, root), (application("argocd", "shop"), deployment()));
    assert_eq!(via.len(), 3);
    assert_eq!(via[0].evidence, "ownerReferences");
}

#[test]
fn a_copied_id_without_owner_reference_leads_to_the_object_that_it_names() {
    let index = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    let id = "shop:apps/Deployment:shop/checkout";
    let copy = tracked(ObjectKey::new("discovery.k8s.io", "EndpointSlice", "shop", "checkout-1"), id);
    let got = answer(&copy, &[tracked(deployment(), id)], &index, &argo());
    let Ownership::Owned { root, via, .. } = got else { panic!("{got:?}") };
    assert_eq!(root, deployment());
    assert!(via[0].evidence.contains("copied"));
}

#[test]
fn a_cluster_scoped_id_carries_the_destination_namespace() {
    let key = ObjectKey::new("rbac.authorization.k8s.io", "ClusterRole", "", "system:reader");
    let index = index(&[app("argocd", "shop", &[("rbac.authorization.k8s.io", "ClusterRole", "", "system:reader")])]);
    let id = "shop:rbac.authorization.k8s.io/ClusterRole:shop/system:reader";
    assert_eq!(owner_of(&answer(&tracked(key, id), &[], &index, &argo())), &application("argocd", "shop"));
}

#[test]
fn a_namespaced_copy_in_another_namespace_is_not_self_referenced() {
    let id = tracking_id("shop:apps/Deployment:shop/checkout").unwrap();
    assert!(id.names(&deployment()));
    assert!(!id.names(&ObjectKey::new("apps", "Deployment", "other", "checkout")));
    assert!(!id.names(&ObjectKey::new("extensions", "Deployment", "shop", "checkout")));
}

#[test]
fn a_crd_is_found_through_the_list_alone() {
    let key = ObjectKey::new("apiextensions.k8s.io", "CustomResourceDefinition", "", "widgets.acme.io");
    let entry = ("apiextensions.k8s.io", "CustomResourceDefinition", "", "widgets.acme.io");
    let one = index(&[app("argocd", "operator", &[entry])]);
    let bare = ObjectFacts::bare(key);
    assert_eq!(owner_of(&answer(&bare, &[], &one, &argo())), &application("argocd", "operator"));
    let two = index(&[app("argocd", "operator", &[entry]), app("argocd", "copy", &[entry])]);
    assert!(matches!(answer(&bare, &[], &two, &argo()), Ownership::Conflict { claims, .. } if claims.len() == 2));
}

#[test]
fn an_application_outside_the_control_plane_namespace_is_named_with_it() {
    let index = index(&[app("team-a", "shop", &[DEPLOYMENT]), app("argocd", "shop", &[])]);
    let got = answer(&tracked(deployment(), "team-a_shop:apps/Deployment:shop/checkout"), &[], &index, &argo());
    assert_eq!(owner_of(&got), &application("team-a", "shop"));
    assert_eq!(instance_name("team-a", "shop", "argocd"), "team-a_shop");
    assert_eq!(
        argocd_override_files(&application("team-a", "shop"), "argocd"),
        [".argocd-source-team-a_shop.yaml", ".argocd-source.yaml"]
    );
}

#[test]
fn two_control_planes_are_told_apart_by_installation_id() {
    let mut planes = Planes { argo: vec![ArgoPlane::new("argocd"), ArgoPlane::new("argocd-b")] };
    let both = index(&[app("argocd", "shop", &[]), app("argocd-b", "shop", &[])]);
    let id = "shop:apps/Deployment:shop/checkout";
    // Without ids and lists nothing tells them apart: two claims.
    assert!(matches!(answer(&tracked(deployment(), id), &[], &both, &planes), Ownership::Conflict { .. }));
    planes.argo[0].installation_id = Some("one".into());
    planes.argo[1].installation_id = Some("two".into());
    let marked = object(
        deployment(),
        json!({"annotations": {"argocd.argoproj.io/tracking-id": id, "argocd.argoproj.io/installation-id": "two"}}),
    );
    assert_eq!(owner_of(&answer(&marked, &[], &both, &planes)), &application("argocd-b", "shop"));
    // A missing id is another Argo CD's object.
    assert!(matches!(answer(&tracked(deployment(), id), &[], &both, &planes), Ownership::Orphaned { .. }));
}

#[test]
fn an_id_of_an_installation_that_is_not_here_is_not_ours() {
    let index = index(&[app("argocd", "shop", &[])]);
    let foreign = object(
        deployment(),
        json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/checkout",
            "argocd.argoproj.io/installation-id": "elsewhere"}}),
    );
    assert!(
        matches!(answer(&foreign, &[], &index, &argo()), Ownership::Orphaned { mark, .. } if mark.contains("elsewhere"))
    );
}

#[test]
fn listed_by_an_application_that_never_applied_it() {
    let index = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    let got = answer(&ObjectFacts::bare(deployment()), &[], &index, &argo());
    assert_eq!(got, Ownership::DeclaredNotApplied { root: deployment(), by: vec![application("argocd", "shop")] });
}

#[test]
fn two_applications_that_list_one_object_are_in_conflict() {
    let index = index(&[app("argocd", "a", &[DEPLOYMENT]), app("argocd", "b", &[DEPLOYMENT])]);
    let got = answer(&tracked(deployment(), "a:apps/Deployment:shop/checkout"), &[], &index, &argo());
    let Ownership::Conflict { claims, .. } = got else { panic!("{got:?}") };
    let owners: Vec<_> = claims.iter().map(|c| &c.owner).collect();
    assert_eq!(owners, [&application("argocd", "a"), &application("argocd", "b")]);
}

#[test]
fn an_id_of_a_deleted_application_is_an_orphan() {
    let index = index(&[app("argocd", "other", &[])]);
    let got = answer(&tracked(deployment(), "gone:apps/Deployment:shop/checkout"), &[], &index, &argo());
    assert!(matches!(got, Ownership::Orphaned { mark, .. } if mark.contains("argocd/gone does not exist")));
}

#[test]
fn an_application_that_delivers_to_another_cluster_claims_nothing_here() {
    let mut far = app("argocd", "shop", &[DEPLOYMENT]);
    far["spec"]["destination"] = json!({"server": "https://10.1.1.1", "namespace": "shop"});
    let index = index(&[far]);
    assert!(index.is_empty());
    let got = answer(&tracked(deployment(), "shop:apps/Deployment:shop/checkout"), &[], &index, &argo());
    assert!(matches!(got, Ownership::Orphaned { mark, .. } if mark.contains("https://10.1.1.1")));
}

#[test]
fn an_address_of_this_very_cluster_is_no_other_cluster() {
    let mut here = app("argocd", "shop", &[DEPLOYMENT]);
    here["spec"]["destination"] = json!({"server": "https://10.1.1.1:6443/", "namespace": "shop"});
    let known = ["https://10.1.1.1:6443".to_owned()];
    assert_eq!(Listing::of(&here, &known).unwrap().remote, None);
    assert!(Listing::of(&here, &[]).unwrap().remote.is_some());
}

fn ks_labels(name: &str) -> Value {
    json!({"labels": {"kustomize.toolkit.fluxcd.io/name": name, "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}})
}

#[test]
fn the_inventory_of_a_kustomization_is_ownership() {
    let index = index(&[flux("Kustomization", "apps", Some(&["shop_checkout_apps_Deployment"]))]);
    let got = answer(&object(deployment(), ks_labels("apps")), &[], &index, &Planes::default());
    assert_eq!(owner_of(&got), &kustomization("apps"));
}

#[test]
fn copied_flux_labels_follow_the_owner_reference() {
    let index = index(&[flux("Kustomization", "apps", Some(&["shop_db_acme.io_Postgres"]))]);
    let mut meta = ks_labels("apps");
    meta["ownerReferences"] =
        json!([{"apiVersion": "acme.io/v1", "kind": "Postgres", "name": "db", "uid": "1", "controller": true}]);
    let child = object(ObjectKey::new("apps", "StatefulSet", "shop", "db"), meta);
    let parent = object(ObjectKey::new("acme.io", "Postgres", "shop", "db"), ks_labels("apps"));
    let got = answer(&child, std::slice::from_ref(&parent), &index, &Planes::default());
    let Ownership::Owned { owner, root, .. } = got else { panic!("{got:?}") };
    assert_eq!((owner, root), (kustomization("apps"), parent.key));
}

#[test]
fn copied_flux_labels_without_owner_reference_are_only_a_hint() {
    let index = index(&[flux("Kustomization", "apps", Some(&[]))]);
    let got = answer(&object(deployment(), ks_labels("apps")), &[], &index, &Planes::default());
    assert!(matches!(got, Ownership::Unmanaged { hints, .. } if hints[0].contains("inventory")));
}

#[test]
fn one_object_in_two_inventories_is_a_conflict_whatever_the_labels_say() {
    let ids: &[&str] = &["shop_checkout_apps_Deployment"];
    let index = index(&[flux("Kustomization", "a", Some(ids)), flux("Kustomization", "b", Some(ids))]);
    let got = answer(&object(deployment(), ks_labels("b")), &[], &index, &Planes::default());
    assert!(matches!(got, Ownership::Conflict { claims, .. } if claims.len() == 2));
}

#[test]
fn a_second_kustomization_that_has_just_set_its_labels_is_a_conflict_already() {
    // From the recording flux-two-owners, before n1b writes its inventory.
    let index =
        index(&[flux("Kustomization", "n1", Some(&["n1_n1_apps_Deployment"])), flux("Kustomization", "n1b", None)]);
    let live = object(ObjectKey::new("apps", "Deployment", "n1", "n1"), ks_labels("n1b"));
    assert!(
        matches!(answer(&live, &[], &index, &Planes::default()), Ownership::Conflict { claims, .. } if claims.len() == 2)
    );
}

#[test]
fn whichever_of_two_applications_synced_last_both_claim() {
    // From the recording argo-two-owners: the tracking-id flips, both keep listing the object.
    let shared = ("", "ConfigMap", "f1", "shared");
    let index = index(&[app("argocd", "f1a", &[shared]), app("argocd", "f1b", &[shared])]);
    for last in ["f1a", "f1b"] {
        let live = tracked(ObjectKey::new("", "ConfigMap", "f1", "shared"), &format!("{last}:/ConfigMap:f1/shared"));
        assert!(matches!(answer(&live, &[], &index, &argo()), Ownership::Conflict { claims, .. } if claims.len() == 2));
    }
}

#[test]
fn argo_and_flux_at_once_are_a_conflict() {
    let index = index(&[
        app("argocd", "shop", &[DEPLOYMENT]),
        flux("Kustomization", "apps", Some(&["shop_checkout_apps_Deployment"])),
    ]);
    let got = answer(&tracked(deployment(), "shop:apps/Deployment:shop/checkout"), &[], &index, &argo());
    assert!(matches!(got, Ownership::Conflict { .. }));
}

#[test]
fn an_application_that_flux_delivers_is_no_conflict_and_has_flux_as_its_own_owner() {
    let index = index(&[
        app("argocd", "shop", &[DEPLOYMENT]),
        flux("Kustomization", "apps", Some(&["argocd_shop_argoproj.io_Application"])),
    ]);
    let below = answer(&tracked(deployment(), "shop:apps/Deployment:shop/checkout"), &[], &index, &argo());
    assert_eq!(owner_of(&below), &application("argocd", "shop"));
    let itself = object(application("argocd", "shop").key(), ks_labels("apps"));
    assert_eq!(owner_of(&answer(&itself, &[], &index, &argo())), &kustomization("apps"));
}

#[test]
fn the_inventory_decides_between_kustomization_and_helm_release() {
    let mut meta = ks_labels("apps");
    meta["labels"]["helm.toolkit.fluxcd.io/name"] = json!("web");
    meta["labels"]["helm.toolkit.fluxcd.io/namespace"] = json!("flux-system");
    let both = object(deployment(), meta);
    let release = OwnerRef::new(Engine::Flux, "HelmRelease", "flux-system", "web");
    let decided = index(&[
        flux("Kustomization", "apps", Some(&["flux-system_web_helm.toolkit.fluxcd.io_HelmRelease"])),
        flux("HelmRelease", "web", Some(&["shop_checkout_apps_Deployment"])),
    ]);
    assert_eq!(owner_of(&answer(&both, &[], &decided, &Planes::default())), &release);
    // helm-controller before 1.5 keeps no inventory: its label is all there is.
    let old = index(&[flux("Kustomization", "apps", Some(&[])), flux("HelmRelease", "web", None)]);
    assert_eq!(owner_of(&answer(&both, &[], &old, &Planes::default())), &release);
    let unclear = index(&[
        flux("Kustomization", "apps", Some(&["shop_checkout_apps_Deployment"])),
        flux("HelmRelease", "web", None),
    ]);
    assert!(matches!(answer(&both, &[], &unclear, &Planes::default()), Ownership::Conflict { .. }));
}

#[test]
fn a_kustomization_for_another_cluster_claims_nothing_here() {
    let mut far = flux("Kustomization", "apps", Some(&["shop_checkout_apps_Deployment"]));
    far["spec"]["kubeConfig"] = json!({"secretRef": {"name": "edge"}});
    let index = index(&[far]);
    let got = answer(&object(deployment(), ks_labels("apps")), &[], &index, &Planes::default());
    assert!(matches!(got, Ownership::Unmanaged { hints, .. } if hints[0].contains("edge")));
}

#[test]
fn flux_labels_of_an_owner_that_is_not_here_are_an_orphan_not_unmanaged() {
    let got = answer(&object(deployment(), ks_labels("apps")), &[], &Index::new(), &Planes::default());
    assert!(matches!(got, Ownership::Orphaned { mark, .. } if mark.contains("another control plane")));
}

#[test]
fn a_plain_helm_install_is_unmanaged_with_a_hint() {
    let helm = object(deployment(), json!({"annotations": {"meta.helm.sh/release-name": "web"}}));
    let got = answer(&helm, &[], &Index::new(), &argo());
    assert!(matches!(got, Ownership::Unmanaged { hints, .. } if hints[0].contains("Helm itself")));
}

#[test]
fn owner_references_in_a_circle_end() {
    let at = |name: &str, next: &str| {
        object(
            ObjectKey::new("acme.io", "Ring", "shop", name),
            json!({"uid": name, "ownerReferences": [{"apiVersion": "acme.io/v1", "kind": "Ring", "name": next, "uid": next}]}),
        )
    };
    let world = [at("a", "b"), at("b", "a")];
    assert!(matches!(answer(&world[0], &world, &Index::new(), &argo()), Ownership::Unmanaged { .. }));
}

#[test]
fn an_owner_that_was_replaced_under_the_same_name_is_not_followed() {
    let index = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    let child = object(
        ObjectKey::new("apps", "ReplicaSet", "shop", "checkout-1"),
        json!({"uid": "r", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout", "uid": "old"}]}),
    );
    let mut now = tracked(deployment(), "shop:apps/Deployment:shop/checkout");
    now.uid = "new".into();
    assert!(
        matches!(answer(&child, &[now], &index, &argo()), Ownership::Unmanaged { hints, .. } if hints[0].contains("replaced"))
    );
}

#[test]
fn an_unreadable_owner_gives_way_to_the_next_and_is_remembered() {
    let index = index(&[app("argocd", "shop", &[DEPLOYMENT])]);
    let child = object(
        ObjectKey::new("", "ConfigMap", "shop", "c"),
        json!({"ownerReferences": [
            {"apiVersion": "acme.io/v1", "kind": "Secretive", "name": "s", "controller": true},
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}]}),
    );
    let (mut walk, step) = Walk::begin(&child, &index, &argo());
    assert!(matches!(step, Step::Need(k) if k.kind == "Secretive"));
    let step = walk.feed(Loaded::Unreadable("forbidden".into()), &index, &argo());
    assert!(matches!(step, Step::Need(k) if k.kind == "Deployment"));
    let deployed = tracked(deployment(), "shop:apps/Deployment:shop/checkout");
    let step = walk.feed(Loaded::Found(Box::new(deployed)), &index, &argo());
    assert!(matches!(step, Step::Answer(Ownership::Owned { .. })));
    assert_eq!(walk.unreadable().len(), 1);
}

#[test]
fn inventory_ids_of_every_shape() {
    assert_eq!(inventory_id("shop_checkout_apps_Deployment"), Some(deployment()));
    assert_eq!(inventory_id("shop_cfg__ConfigMap"), Some(ObjectKey::new("", "ConfigMap", "shop", "cfg")));
    assert_eq!(inventory_id("_shop__Namespace"), Some(ObjectKey::new("", "Namespace", "", "shop")));
    assert_eq!(
        inventory_id("_system__reader_rbac.authorization.k8s.io_ClusterRole"),
        Some(ObjectKey::new("rbac.authorization.k8s.io", "ClusterRole", "", "system:reader"))
    );
    assert_eq!(inventory_id("nonsense"), None);
    assert_eq!(inventory_id("a__"), None);
}

#[test]
fn tracking_ids_of_every_shape() {
    let role = tracking_id("a:rbac.authorization.k8s.io/Role:shop/system:controller:x").unwrap();
    assert_eq!(role.object.name, "system:controller:x");
    assert_eq!(tracking_id("a:/ConfigMap:shop/c").unwrap().object.group, "");
    for bad in [
        "",
        "a",
        "a:b",
        "a:apps/Deployment:x",
        "a:apps/v1/Deployment:x/y",
        ":apps/Deployment:x/y",
        "a:apps/Deployment:x/y/z",
    ] {
        assert_eq!(tracking_id(bad), None, "{bad}");
    }
}

#[test]
fn the_index_touches_only_the_difference_and_forgets() {
    let service = ObjectKey::new("", "Service", "shop", "checkout");
    let mut index = index(&[app("argocd", "a", &[DEPLOYMENT, ("", "Service", "shop", "checkout")])]);
    index.apply(Listing::of(&app("argocd", "b", &[DEPLOYMENT]), &[]).unwrap());
    assert_eq!(index.len(), 2);
    assert_eq!(index.listing(&deployment()).len(), 2);
    index.apply(Listing::of(&app("argocd", "a", &[("", "Service", "shop", "checkout")]), &[]).unwrap());
    assert_eq!(index.listing(&deployment()), [&application("argocd", "b")]);
    assert_eq!(index.listing(&service), [&application("argocd", "a")]);
    index.remove(&application("argocd", "b"));
    assert!(index.listing(&deployment()).is_empty());
    assert!(index.known(&application("argocd", "b")).is_none());
    index.retain("Application", &std::collections::BTreeSet::new());
    assert!(index.is_empty());
}

#[test]
fn a_hundred_thousand_objects_stay_within_two_hundred_bytes_each() {
    let mut index = Index::new();
    for a in 0..1_000 {
        let objects = (0..100)
            .map(|r| ObjectKey::new("apps", "Deployment", &format!("team-{a}"), &format!("service-{r}")))
            .collect();
        index.apply(Listing {
            owner: application("argocd", &format!("app-{a}")),
            objects: Some(objects),
            remote: None,
            plane: None,
        });
    }
    assert_eq!(index.len(), 100_000);
    assert!(index.heap_bytes() / index.len() <= 200, "{}", index.heap_bytes() / index.len());
    for r in 0..100 {
        let key = ObjectKey::new("apps", "Deployment", "team-7", &format!("service-{r}"));
        assert_eq!(index.listing(&key), [&application("argocd", "app-7")]);
    }
}

/// The goal at full size; `cargo test --release -p countersign-core million -- --ignored --nocapture` prints it.
#[test]
#[ignore = "a measurement: a million objects"]
fn a_million_objects_of_ten_thousand_applications() {
    let mut index = Index::new();
    for a in 0..10_000 {
        let objects = (0..100)
            .map(|r| ObjectKey::new("apps", "Deployment", &format!("team-{a}"), &format!("service-{r}")))
            .collect();
        index.apply(Listing {
            owner: application("argocd", &format!("app-{a}")),
            objects: Some(objects),
            remote: None,
            plane: None,
        });
    }
    let started = std::time::Instant::now();
    for a in 0..10_000 {
        let key = ObjectKey::new("apps", "Deployment", &format!("team-{a}"), "service-7");
        assert_eq!(index.listing(&key), [&application("argocd", &format!("app-{a}"))]);
    }
    let bytes = index.heap_bytes() / index.len();
    println!("objects={} bytes_per_object={bytes} lookup_ns={}", index.len(), started.elapsed().as_nanos() / 10_000);
    assert!(bytes <= 200);
}

proptest::proptest! {
    #[test]
    fn any_order_of_updates_gives_the_same_index(steps in proptest::collection::vec((0_u8..4, proptest::collection::vec(0_u8..6, 0..5), proptest::bool::ANY), 0..40)) {
        let owner = |o: u8| application("argocd", &format!("a{o}"));
        let key = |k: u8| ObjectKey::new("", "ConfigMap", "shop", &format!("c{k}"));
        let mut index = Index::new();
        let mut model: std::collections::BTreeMap<u8, std::collections::BTreeSet<u8>> = Default::default();
        for (o, keys, remove) in steps {
            if remove {
                index.remove(&owner(o));
                model.remove(&o);
            } else {
                index.apply(Listing { owner: owner(o), objects: Some(keys.iter().map(|k| key(*k)).collect()), remote: None, plane: None });
                model.insert(o, keys.into_iter().collect());
            }
            for k in 0..6 {
                let want: Vec<OwnerRef> = model.iter().filter(|(_, ks)| ks.contains(&k)).map(|(o, _)| owner(*o)).collect();
                let got: Vec<OwnerRef> = index.listing(&key(k)).into_iter().cloned().collect();
                proptest::prop_assert_eq!(got, want);
            }
        }
    }
}

fn sources_of(object: &Value) -> Vec<Source> {
    sources(SourceBasis { owner: &application("argocd", "shop"), object, source: None }).unwrap()
}

#[test]
fn a_recorded_application_gives_its_source() {
    let recorded = json!({"spec": {"source": {"path": "./a1/", "repoURL": "http://127.0.0.1:18080/app.git", "targetRevision": "main"}},
        "status": {"sourceType": "Directory", "sourceHydrator": {}, "sync": {"revision": "1fef95232e981755052e4155ef30e22a1ef48954"}}});
    let got = sources_of(&recorded);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].path, "a1");
    assert_eq!(got[0].kind, Some(SourceKind::Plain));
    assert_eq!(got[0].deployed.as_deref(), Some("1fef95232e981755052e4155ef30e22a1ef48954"));
    assert_eq!(follow(&got[0]).unwrap(), Follow::BranchOrTag("main".into()));
}

#[test]
fn with_sources_the_single_source_is_ignored_and_revisions_keep_their_places() {
    let (a, b) = ("a".repeat(40), "b".repeat(40));
    let many = json!({"spec": {"source": {"repoURL": "https://x/old.git"}, "sources": [
            {"repoURL": "https://x/values.git", "ref": "values", "targetRevision": "main"},
            {"repoURL": "https://x/app.git", "path": "app", "kustomize": {"images": ["nginx:1.27"], "version": "v5"}}]},
        "status": {"sync": {"revisions": [a, b]}, "sourceTypes": ["", "Kustomize"]}});
    let got = sources_of(&many);
    assert_eq!(got.iter().map(|s| s.url.as_str()).collect::<Vec<_>>(), ["https://x/values.git", "https://x/app.git"]);
    assert_eq!(got[0].kind, Some(SourceKind::Other));
    assert_eq!(got[1].deployed.as_deref(), Some(b.as_str()));
    assert_eq!(got[1].overrides, ["spec.sources[1].kustomize.images=[\"nginx:1.27\"]"]);
    assert_eq!(follow(&got[1]).unwrap(), Follow::Default);
}

#[test]
fn an_unresolved_revision_is_no_deployed_commit() {
    let broken = json!({"spec": {"source": {"repoURL": "https://x/app.git", "path": "a"}}, "status": {"sync": {"revision": "main"}}});
    assert_eq!(sources_of(&broken)[0].deployed, None);
}

#[test]
fn tags_commits_and_ranges_are_pins() {
    let at = |revision: &str| {
        let app = json!({"spec": {"source": {"repoURL": "https://x/a.git", "path": "a", "targetRevision": revision}}});
        follow(&sources_of(&app)[0])
    };
    for pin in
        ["1.2.*", "^1.0.0", ">=1 <2", "v1.x", "1fef95232e981755052e4155ef30e22a1ef48954", "1fef952", "refs/tags/v1"]
    {
        assert_eq!(at(pin).unwrap_err().code, "source.pinned", "{pin}");
    }
    assert_eq!(at("HEAD").unwrap(), Follow::Default);
    assert_eq!(at("refs/heads/prod").unwrap(), Follow::Branch("prod".into()));
    // Letters alone may be a branch.
    for branch in ["main", "release/1.2", "deadbeef", "feature-x"] {
        assert_eq!(at(branch).unwrap(), Follow::BranchOrTag(branch.into()));
    }
}

fn flux_sources(spec: Value, source: Value) -> crate::error::Result<Vec<Source>> {
    let object =
        json!({"spec": spec, "status": {"lastAppliedRevision": "main@sha1:fd2802059a4d35e528f65d36775c38eb32c4a37b"}});
    sources(SourceBasis { owner: &kustomization("k1"), object: &object, source: Some(&source) })
}

#[test]
fn a_recorded_kustomization_gives_its_source() {
    let got = flux_sources(
        json!({"path": "./k1", "sourceRef": {"kind": "GitRepository", "name": "fl"}, "images": [{"name": "nginx", "newTag": "2"}]}),
        json!({"spec": {"ref": {"branch": "main"}, "url": "http://127.0.0.1:18080/flux.git"}}),
    )
    .unwrap();
    assert_eq!(got[0].path, "k1");
    assert_eq!(got[0].target_revision, "main");
    assert_eq!(got[0].deployed.as_deref(), Some("fd2802059a4d35e528f65d36775c38eb32c4a37b"));
    assert!(got[0].overrides[0].starts_with("spec.images="), "{:?}", got[0].overrides);
}

#[test]
fn the_ref_of_a_git_repository_has_an_order_of_precedence() {
    let at = |reference: Value| {
        flux_sources(
            json!({"sourceRef": {"kind": "GitRepository", "name": "fl"}}),
            json!({"spec": {"url": "u", "ref": reference}}),
        )
        .unwrap()
        .remove(0)
    };
    let sha = "fd2802059a4d35e528f65d36775c38eb32c4a37b";
    assert_eq!(
        at(json!({"branch": "main", "tag": "v1", "semver": "1.x", "name": "refs/heads/n", "commit": sha}))
            .target_revision,
        sha
    );
    assert_eq!(
        follow(&at(json!({"branch": "main", "tag": "v1", "semver": "1.x", "name": "refs/heads/n"}))).unwrap(),
        Follow::Branch("n".into())
    );
    assert_eq!(
        follow(&at(json!({"branch": "main", "tag": "v1", "semver": "1.2.3"}))).unwrap_err().code,
        "source.pinned"
    );
    assert_eq!(follow(&at(json!({"branch": "main", "tag": "v1"}))).unwrap_err().code, "source.pinned");
    assert_eq!(at(json!({})).target_revision, "master");
}

#[test]
fn helm_oci_and_missing_sources_are_answered_as_such() {
    let release = OwnerRef::new(Engine::Flux, "HelmRelease", "flux-system", "web");
    let got = sources(SourceBasis { owner: &release, object: &json!({}), source: None });
    assert_eq!(got.unwrap_err().code, "source.helm");
    let oci = flux_sources(
        json!({"sourceRef": {"kind": "OCIRepository", "name": "o"}}),
        json!({"spec": {"url": "oci://x/y"}}),
    )
    .unwrap();
    assert_eq!(editable(&kustomization("k1"), &oci[0]).unwrap_err().code, "source.opaque");
    let chart = sources_of(
        &json!({"spec": {"source": {"repoURL": "https://charts", "chart": "redis", "targetRevision": "1.2.3"}}}),
    );
    assert_eq!(editable(&application("argocd", "shop"), &chart[0]).unwrap_err().code, "source.helm");
    let none = sources(SourceBasis {
        owner: &kustomization("k1"),
        object: &json!({"spec": {"sourceRef": {"kind": "GitRepository", "name": "fl"}}}),
        source: None,
    });
    assert_eq!(none.unwrap_err().evidence, ["GitRepository flux-system/fl"]);
    let hydrated = json!({"spec": {"sourceHydrator": {"drySource": {"repoURL": "x"}}}});
    let got = sources(SourceBasis { owner: &application("argocd", "shop"), object: &hydrated, source: None });
    assert_eq!(got.unwrap_err().code, "source.hydrated");
}

#[test]
fn secrets_in_overrides_are_not_repeated() {
    let app = json!({"spec": {"source": {"repoURL": "https://x/a.git", "path": "c", "helm": {"parameters": [{"name": "password", "value": "hunter2"}]}}}});
    assert_eq!(sources_of(&app)[0].overrides, ["spec.source.helm.parameters"]);
}

#[test]
fn every_spelling_of_a_repository_is_one_key() {
    for url in [
        "https://GitHub.com/Acme/Shop.git",
        "ssh://git@github.com:22/acme/shop",
        "git@github.com:acme/shop.git",
        "https://user@github.com/acme/shop/",
    ] {
        assert_eq!(repo_key(url), "github.com/acme/shop", "{url}");
    }
    assert_ne!(repo_key("https://github.com/acme/shop"), repo_key("https://gitlab.com/acme/shop"));
}

#[test]
fn what_cannot_be_resolved_counts_as_shared() {
    let source = |kind, path: &str, recurse| Source {
        url: String::new(),
        target_revision: String::new(),
        path: path.into(),
        kind,
        index: 0,
        deployed: None,
        recurse,
        overrides: vec![],
    };
    let plain = source(Some(SourceKind::Plain), "apps/shop", false);
    assert_eq!(reach(&plain, "apps/shop/deploy.yaml"), Reach::Reads);
    assert_eq!(reach(&plain, "apps/shop/sub/deploy.yaml"), Reach::Never);
    assert_eq!(reach(&plain, "apps/shop-2/deploy.yaml"), Reach::Never);
    assert_eq!(reach(&source(Some(SourceKind::Kustomize), "overlays/prod", false), "base/deploy.yaml"), Reach::Maybe);
    assert_eq!(reach(&source(None, "", true), "anything.yaml"), Reach::Reads);
    assert_eq!(reach(&source(None, "x", true), "y/a.yaml"), Reach::Maybe);
}

#[test]
fn value_files_belong_to_the_source_that_they_come_from() {
    let many = json!({"spec": {"sources": [
        {"repoURL": "https://x/values.git", "ref": "values", "targetRevision": "main"},
        {"repoURL": "https://x/app.git", "path": "charts/app", "helm": {"valueFiles": ["values-prod.yaml", "/common.yaml", "$values/prod/app.yaml", "https://y/z.yaml"]}},
        {"repoURL": "https://x/more.git", "path": "c", "helm": {"valueFiles": ["env/*.yaml"]}}]}});
    let got = feeds(SourceBasis { owner: &application("argocd", "shop"), object: &many, source: None });
    assert_eq!(
        (got[0].files.as_slice(), got[0].lends, got[0].unclear),
        (["prod/app.yaml".to_owned()].as_slice(), true, false)
    );
    assert_eq!(got[1].files, ["charts/app/values-prod.yaml", "common.yaml"]);
    assert!(got[2].unclear && !got[1].unclear);
}

#[test]
fn a_helm_release_reads_its_chart_and_value_files_from_its_source() {
    let release = OwnerRef::new(Engine::Flux, "HelmRelease", "flux-system", "web");
    let object = json!({"spec": {"chart": {"spec": {"chart": "./charts/web", "valuesFiles": ["./values/prod.yaml"], "sourceRef": {"kind": "GitRepository", "name": "fl"}}}}});
    let source = json!({"spec": {"url": "https://x/y.git", "ref": {"branch": "main"}}});
    let got = feeds(SourceBasis { owner: &release, object: &object, source: Some(&source) });
    assert_eq!(
        (got[0].source.path.as_str(), got[0].files.as_slice()),
        ("charts/web", ["values/prod.yaml".to_owned()].as_slice())
    );
}
