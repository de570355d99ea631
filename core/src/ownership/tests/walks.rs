//! The way from a live object, over owner references and copied marks, to the one that is owned.

use super::*;

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
