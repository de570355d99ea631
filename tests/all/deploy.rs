//! `deploy/`: the chart, what is rendered from it, and the page that says what each right is for.
//! The real helm renders in `deploy/render.sh --check`; here is what needs no helm.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::docs::{manifests, root, text};

const CHART: &str = "deploy/chart/countersign";

fn file(name: &str) -> Value {
    serde_saphyr::from_str(&text(&format!("{CHART}/files/{name}.yaml"))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn object(kind: &str, name: &str) -> Value {
    let found: Vec<Value> = manifests()
        .into_iter()
        .filter(|(_, d)| d["kind"] == kind && d["metadata"]["name"] == name)
        .map(|(_, d)| d)
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found.into_iter().next().unwrap()
}

fn templates() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join(CHART).join("templates")).unwrap();
    let mut all: Vec<(String, String)> = entries
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&p).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > 5);
    all
}

const ROLES: [(&str, &str, &str); 4] = [
    ("owners", "ClusterRole", "countersign-owners"),
    ("workloads", "ClusterRole", "countersign-workloads"),
    ("controlplane", "Role", "countersign-argocd"),
    ("hints", "ClusterRole", "countersign-hints"),
];

#[test]
fn the_chart_and_the_manifests_give_the_same_rights() {
    for (rules, kind, name) in ROLES {
        assert_eq!(file(rules), object(kind, name)["rules"], "{name}");
    }
    // No other role has rules, in the manifests or in the chart's own text.
    let with_rules: Vec<String> = manifests()
        .iter()
        .filter(|(_, d)| d["rules"].is_array())
        .map(|(_, d)| d["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(with_rules.len(), ROLES.len(), "{with_rules:?}");
    let all = templates();
    for (name, body) in &all {
        assert!(!body.contains("apiGroups:"), "{name} has rules outside of files/");
    }
    for (rules, ..) in ROLES {
        let reads = format!(".Files.Get \"files/{rules}.yaml\"");
        assert_eq!(all.iter().map(|(_, b)| b.matches(&reads).count()).sum::<usize>(), 1, "{rules}");
    }
}

#[test]
fn the_chart_and_the_manifests_hold_hints_to_the_same_policy() {
    for engine in ["argocd", "flux"] {
        let mut spec = object("ValidatingAdmissionPolicy", &format!("countersign-hints-{engine}"))["spec"].clone();
        let conditions = spec.as_object_mut().unwrap().remove("matchConditions").unwrap();
        assert_eq!(file(&format!("policy-{engine}")), spec, "{engine}");
        assert_eq!(
            conditions,
            json!([{"name": "countersign",
                "expression": "request.userInfo.username == \"system:serviceaccount:countersign:countersign\""}])
        );
        let binding = object("ValidatingAdmissionPolicyBinding", &format!("countersign-hints-{engine}"));
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny", "Audit"]));
    }
}

/// What the role lets be patched is what the policies watch, whole, and what the program annotates.
#[test]
fn every_right_to_patch_is_under_a_policy_that_fails_closed() {
    let mut watched = BTreeSet::new();
    for engine in ["argocd", "flux"] {
        let policy = file(&format!("policy-{engine}"));
        assert_eq!(policy["failurePolicy"], "Fail");
        for rule in policy["matchConstraints"]["resourceRules"].as_array().unwrap() {
            assert_eq!(rule["apiVersions"], json!(["*"]));
            assert_eq!(rule["operations"], json!(["CREATE", "UPDATE", "DELETE"]));
            watched.insert((rule["apiGroups"][0].clone().to_string(), rule["resources"][0].clone().to_string()));
        }
        let checks: String =
            policy["validations"].as_array().unwrap().iter().map(|v| v["expression"].as_str().unwrap()).collect();
        for part in ["spec", "status", "metadata.labels", "metadata.finalizers", "metadata.ownerReferences"] {
            assert!(checks.contains(&format!("object.{part} == oldObject.{part}")), "{engine}: {part}");
        }
    }
    let given: BTreeSet<(String, String)> = file("hints")
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["apiGroups"][0].to_string(), r["resources"][0].to_string()))
        .collect();
    assert_eq!(given, watched);
    let engines = text("src/engine/argocd.rs") + &text("src/engine/flux.rs");
    let policies = file("policy-argocd").to_string() + &file("policy-flux").to_string();
    for annotation in ["argocd.argoproj.io/refresh", "reconcile.fluxcd.io/requestedAt"] {
        assert!(engines.contains(annotation) && policies.contains(annotation), "{annotation}");
    }
}

#[test]
fn the_pod_is_restricted_and_alone_on_its_volume() {
    let deployment = object("Deployment", "countersign");
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]["type"]),
        (&json!(1), &json!("Recreate"))
    );
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[field].is_null(), "{field}");
    }
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!((containers.len(), &pod["initContainers"]), (1, &Value::Null));
    assert_eq!(
        containers[0]["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = containers[0][probe]["httpGet"]["path"].as_str().unwrap();
        assert!(text("src/server/http.rs").contains(&format!(".route(\"{path}\"")), "{path}");
    }
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|k| *k != "name").collect();
        assert!(
            ["configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"].contains(&kinds[0].as_str()),
            "{kinds:?}"
        );
    }
}

#[test]
fn the_values_fit_their_schema_and_others_do_not() {
    let schema: Value = serde_json::from_str(&text(&format!("{CHART}/values.schema.json"))).unwrap();
    let values: Value = serde_saphyr::from_str(&text(&format!("{CHART}/values.yaml"))).unwrap();
    let check = jsonschema::validator_for(&schema).unwrap();
    assert!(check.is_valid(&values), "{:?}", check.iter_errors(&values).map(|e| e.to_string()).collect::<Vec<_>>());
    let known: BTreeSet<&String> =
        schema["properties"].as_object().unwrap().keys().filter(|k| *k != "global").collect();
    assert_eq!(known, values.as_object().unwrap().keys().collect());
    let refused = |pointer: &str, value: Value| {
        let mut bad = values.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        assert!(!check.is_valid(&bad), "{pointer}");
    };
    refused("/replicas", json!(2));
    refused("/rbac/hint", json!(true));
    refused("/image/digest", json!("latest"));
    refused("/networkPolicy/from", json!([]));
    refused("/networkPolicy/from", json!([{}]));
    refused("/configuration/bootstrap/state_dir", json!("/tmp/state"));
    for rule in [
        json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}),
        json!({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}),
        json!({"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}),
        json!({"apiGroups": ["x.io"], "resources": ["foos"], "verbs": ["patch"]}),
    ] {
        refused("/rbac/extraReadRules", json!([rule]));
    }
}

/// Every right has its reason on the page, and the page has no right that is not given.
#[test]
fn every_right_is_explained() {
    let page = text("docs/rbac.md");
    let mut given = BTreeSet::new();
    for (rules, ..) in ROLES {
        for rule in file(rules).as_array().unwrap() {
            for resource in rule["resources"].as_array().into_iter().flatten() {
                let group = rule["apiGroups"][0].as_str().unwrap();
                let dot = if group.is_empty() { "" } else { "." };
                given.insert(format!("{}{dot}{group}", resource.as_str().unwrap()));
            }
            given.extend(
                rule["nonResourceURLs"].as_array().into_iter().flatten().map(|u| u.as_str().unwrap().to_owned()),
            );
        }
    }
    let rows = page.lines().filter_map(|l| l.strip_prefix("| `"));
    let named: BTreeSet<String> = rows
        .filter_map(|l| l.split_once(" |"))
        .flat_map(|(cell, _)| format!("`{cell}").split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(named, given);
}
