//! Inventories: ids, what is left out, and pruning.

use serde_json::Value;

use super::super::json::{list, remove, text};
use super::super::store::Propagation;
use super::{Item, Watched};

pub(super) fn skipped(object: &Value) -> bool {
    ["annotations", "labels"].iter().any(|place| {
        text(object, &["metadata", place, "kustomize.toolkit.fluxcd.io/reconcile"]) == "disabled"
            || text(object, &["metadata", place, "kustomize.toolkit.fluxcd.io/ssa"]) == "Ignore"
    })
}

/// `<namespace>_<name>_<group>_<Kind>`; a colon in a name is written as `__`.
pub(super) fn id_of(object: &Value) -> String {
    let watched = Watched::of(object);
    format!("{}_{}_{}_{}", watched.namespace, watched.name.replace(':', "__"), watched.group, watched.kind)
}

/// Deletes what the inventory has and the build has not, if it still carries this Kustomization's labels.
pub(super) fn prune(item: &Item, object: &Value, built: &[Value]) {
    let kept: Vec<String> = built.iter().map(id_of).collect();
    for entry in list(object, &["status", "inventory", "entries"]) {
        let id = text(entry, &["id"]);
        if kept.iter().any(|known| known == id) {
            continue;
        }
        let parts: Vec<&str> = id.rsplitn(3, '_').collect();
        let [kind, group, rest] = parts.as_slice() else {
            continue;
        };
        let Some((namespace, name)) = rest.split_once('_') else {
            continue;
        };
        let name = name.replace("__", ":");
        let Some(known) = item.shared.store.kinds.by_kind(group, kind) else {
            continue;
        };
        let ours = item.shared.store.get(&known, namespace, &name).is_some_and(|live| {
            text(&live, &["metadata", "labels", "kustomize.toolkit.fluxcd.io/name"]) == item.name
                && text(&live, &["metadata", "labels", "kustomize.toolkit.fluxcd.io/namespace"]) == item.namespace
                && text(&live, &["metadata", "annotations", "kustomize.toolkit.fluxcd.io/prune"]) != "disabled"
        });
        if ours {
            drop(item.shared.store.delete(&known, namespace, &name, Propagation::Background, false));
        }
    }
    if built.is_empty() {
        item.status(|new| {
            remove(new, &["status", "inventory"]);
        });
    }
}
