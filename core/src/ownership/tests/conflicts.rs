//! Two owners that claim one object, and what is no conflict.

use super::*;

#[test]
fn two_applications_that_list_one_object_are_in_conflict() {
    let index = index(&[app("argocd", "a", &[DEPLOYMENT]), app("argocd", "b", &[DEPLOYMENT])]);
    let got = answer(&tracked(deployment(), "a:apps/Deployment:shop/checkout"), &[], &index, &argo());
    let Ownership::Conflict { claims, .. } = got else { panic!("{got:?}") };
    let owners: Vec<_> = claims.iter().map(|c| &c.owner).collect();
    assert_eq!(owners, [&application("argocd", "a"), &application("argocd", "b")]);
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
