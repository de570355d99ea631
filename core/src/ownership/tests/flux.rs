//! Inventories and labels of Flux and Helm: what is ownership, and what only looks like it.

use super::*;

#[test]
fn the_inventory_of_a_kustomization_is_ownership() {
    let index = index(&[flux("Kustomization", "apps", Some(&["shop_checkout_apps_Deployment"]))]);
    let got = answer(&object(deployment(), ks_labels("apps")), &[], &index, &Planes::default());
    assert_eq!(owner_of(&got), &kustomization("apps"));
}

#[test]
fn copied_flux_labels_without_owner_reference_are_only_a_hint() {
    let index = index(&[flux("Kustomization", "apps", Some(&[]))]);
    let got = answer(&object(deployment(), ks_labels("apps")), &[], &index, &Planes::default());
    assert!(matches!(got, Ownership::Unmanaged { hints, .. } if hints[0].contains("inventory")));
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
