//! What Roles and their bindings in the store allow a ServiceAccount. Asked only for accounts that an engine
//! impersonates: the sandbox's own controllers may do everything.

use serde_json::Value;

use super::Shared;
use super::json::{list, text};
use super::kinds::Kind;

/// Whether some binding gives `system:serviceaccount:<namespace>:<account>` this right.
pub fn allows(shared: &Shared, account: (&str, &str), verb: &str, kind: &Kind, namespace: &str, name: &str) -> bool {
    let of = |group_kind: &str, place: &str| {
        let found = shared.store.kinds.by_kind("rbac.authorization.k8s.io", group_kind);
        found.map(|k| shared.store.list(&k, place).0).unwrap_or_default()
    };
    let bindings = of("RoleBinding", namespace).into_iter().filter(|_| !namespace.is_empty());
    bindings.chain(of("ClusterRoleBinding", "")).filter(|b| names(b, account)).any(|binding| {
        let (role_kind, role) = (text(&binding, &["roleRef", "kind"]), text(&binding, &["roleRef", "name"]));
        let place = if role_kind == "Role" { namespace } else { "" };
        let role = shared.store.find("rbac.authorization.k8s.io", role_kind, place, role);
        role.is_some_and(|role| list(&role, &["rules"]).iter().any(|rule| permits(rule, verb, kind, name)))
    })
}

fn names(binding: &Value, (namespace, account): (&str, &str)) -> bool {
    list(binding, &["subjects"]).iter().any(|subject| match text(subject, &["kind"]) {
        "ServiceAccount" => text(subject, &["namespace"]) == namespace && text(subject, &["name"]) == account,
        "Group" => {
            let groups = ["system:serviceaccounts", "system:authenticated"];
            let group = text(subject, &["name"]);
            groups.contains(&group) || group == format!("system:serviceaccounts:{namespace}")
        }
        "User" => text(subject, &["name"]) == format!("system:serviceaccount:{namespace}:{account}"),
        _ => false,
    })
}

fn permits(rule: &Value, verb: &str, kind: &Kind, name: &str) -> bool {
    let has = |field: &str, wanted: &str| {
        list(rule, &[field]).iter().filter_map(Value::as_str).any(|known| known == "*" || known == wanted)
    };
    let named = list(rule, &["resourceNames"]);
    has("verbs", verb)
        && has("apiGroups", &kind.group)
        && has("resources", &kind.plural)
        && (named.is_empty() || named.iter().any(|known| known.as_str() == Some(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::Kinds;
    use super::*;

    #[test]
    fn a_rule_permits_what_it_names_and_nothing_else() {
        let kinds = Kinds::built_in(false, false);
        let of = |group: &str, kind: &str| kinds.by_kind(group, kind).unwrap();
        let rule = json!({ "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"], "resourceNames": ["web"] });
        assert!(permits(&rule, "patch", &of("apps", "Deployment"), "web"));
        assert!(!permits(&rule, "patch", &of("apps", "Deployment"), "other"));
        assert!(!permits(&rule, "delete", &of("apps", "Deployment"), "web"));
        assert!(!permits(&rule, "patch", &of("", "ConfigMap"), "web"));
    }

    #[test]
    fn a_binding_names_accounts_of_its_namespace() {
        let binding = |subject: Value| json!({ "subjects": [subject] });
        let account = json!({ "kind": "ServiceAccount", "namespace": "p", "name": "deployer" });
        assert!(names(&binding(account.clone()), ("p", "deployer")));
        assert!(!names(&binding(account), ("q", "deployer")));
        assert!(names(&binding(json!({ "kind": "Group", "name": "system:serviceaccounts:p" })), ("p", "any")));
    }
}
