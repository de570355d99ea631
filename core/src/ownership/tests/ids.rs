//! The ids that the engines write, in every shape.

use super::*;

#[test]
fn a_namespaced_copy_in_another_namespace_is_not_self_referenced() {
    let id = tracking_id("shop:apps/Deployment:shop/checkout").unwrap();
    assert!(id.names(&deployment()));
    assert!(!id.names(&ObjectKey::new("apps", "Deployment", "other", "checkout")));
    assert!(!id.names(&ObjectKey::new("extensions", "Deployment", "shop", "checkout")));
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
