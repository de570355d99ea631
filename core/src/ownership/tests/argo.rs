//! Marks and lists of Argo CD: what is ownership, and what only looks like it.

use super::*;

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
fn a_cluster_scoped_id_carries_the_destination_namespace() {
    let key = ObjectKey::new("rbac.authorization.k8s.io", "ClusterRole", "", "system:reader");
    let index = index(&[app("argocd", "shop", &[("rbac.authorization.k8s.io", "ClusterRole", "", "system:reader")])]);
    let id = "shop:rbac.authorization.k8s.io/ClusterRole:shop/system:reader";
    assert_eq!(owner_of(&answer(&tracked(key, id), &[], &index, &argo())), &application("argocd", "shop"));
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
