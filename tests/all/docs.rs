//! What `docs/` and `deploy/` show is what the program reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use countersign::config::{Bootstrap, Config};
use countersign_core::model::{AgentSpec, ChannelSpec, ClusterSpec, PersonSpec, RepositorySpec};
use countersign_core::policy::run_tests;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use schemars::JsonSchema;
use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_documented_example_loads_and_its_policy_tests_pass() {
    let config = Config::load(&root().join("docs/examples/countersign.yaml")).unwrap();
    assert_eq!(config.repositories.len(), 2);
    assert_eq!(config.clusters.len(), 1);
    assert_eq!(config.agents.len(), 1);
    assert_eq!(config.people.len(), 3);
    assert_eq!(config.channels.len(), 1);
    let outcomes = run_tests(&config.policies);
    assert!(!outcomes.is_empty());
    for o in outcomes {
        assert_eq!(o.failures, Vec::<String>::new(), "{}", o.name);
    }
    countersign::server::Agents::new(&config.agents).unwrap();
}

/// Property names of a schema and of everything that it refers to.
fn keys<T: JsonSchema>() -> BTreeSet<String> {
    let schema = serde_json::to_value(schemars::schema_for!(T)).unwrap();
    let mut found = BTreeSet::new();
    properties(&schema, &mut found);
    assert!(!found.is_empty());
    found
}

fn properties(v: &Value, found: &mut BTreeSet<String>) {
    match v {
        Value::Object(map) => {
            for (key, inner) in map {
                if key == "properties" {
                    found.extend(inner.as_object().unwrap().keys().cloned());
                }
                properties(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|i| properties(i, found)),
        _ => {}
    }
}

/// First cells of the tables below a heading, up to the next heading of the same or a higher level.
fn documented(page: &str, heading: &str) -> BTreeSet<String> {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let mut lines = page.lines().skip_while(|l| *l != heading);
    assert!(lines.next().is_some(), "no heading {heading}");
    lines
        .take_while(|l| !l.starts_with('#') || l.chars().take_while(|c| *c == '#').count() > level)
        .filter_map(|l| l.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()))
        .flat_map(|key| key.split('.').map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_key_of_the_configuration_has_a_row_and_no_row_has_no_key() {
    let page = text("docs/configuration.md");
    // `SecretRef` is documented once, below its own heading.
    let secret: BTreeSet<String> = ["env", "file"].map(String::from).into();
    assert_eq!(documented(&page, "## Credentials"), secret);
    for (heading, keys) in [
        ("## Bootstrap file", keys::<Bootstrap>()),
        ("### Repository", keys::<RepositorySpec>()),
        ("### Cluster", keys::<ClusterSpec>()),
        ("### Agent", keys::<AgentSpec>()),
        ("### Person", keys::<PersonSpec>()),
        ("### Channel", keys::<ChannelSpec>()),
    ] {
        let keys: BTreeSet<String> = keys.difference(&secret).cloned().collect();
        assert_eq!(documented(&page, heading), keys, "{heading}");
    }
}

/// Whether every key and value of `written` is kept in `read`: a key that Kubernetes does not know is lost on the way.
fn kept(written: &Value, read: &Value, at: &str) {
    match (written, read) {
        (Value::Object(w), Value::Object(r)) => {
            for (key, value) in w {
                kept(value, r.get(key).unwrap_or_else(|| panic!("{at}/{key} is no field")), &format!("{at}/{key}"));
            }
        }
        (Value::Array(w), Value::Array(r)) => {
            assert_eq!(w.len(), r.len(), "{at}");
            w.iter().zip(r).enumerate().for_each(|(i, (w, r))| kept(w, r, &format!("{at}/{i}")));
        }
        _ => assert_eq!(written, read, "{at}"),
    }
}

fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(doc: &Value, file: &str) {
    let read: T = serde_json::from_value(doc.clone()).unwrap_or_else(|e| panic!("{file}: {e}"));
    kept(doc, &serde_json::to_value(&read).unwrap(), file);
}

pub(crate) fn manifests() -> Vec<(String, Value)> {
    let mut out = Vec::new();
    let mut files: Vec<_> =
        std::fs::read_dir(root().join("deploy/kubernetes")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let docs = serde_saphyr::from_multiple::<Value>(&std::fs::read_to_string(&file).unwrap()).unwrap();
        out.extend(docs.into_iter().map(|d| (name.clone(), d)));
    }
    out
}

#[test]
fn the_manifests_are_objects_of_kubernetes_without_unknown_fields() {
    let mut kinds = BTreeSet::new();
    for (file, doc) in manifests() {
        let kind = doc["kind"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "Namespace" => typed::<Namespace>(&doc, &file),
            "ServiceAccount" => typed::<ServiceAccount>(&doc, &file),
            "ConfigMap" => typed::<ConfigMap>(&doc, &file),
            "PersistentVolumeClaim" => typed::<PersistentVolumeClaim>(&doc, &file),
            "Service" => typed::<Service>(&doc, &file),
            "Deployment" => typed::<Deployment>(&doc, &file),
            "NetworkPolicy" => typed::<NetworkPolicy>(&doc, &file),
            "Role" => typed::<Role>(&doc, &file),
            "RoleBinding" => typed::<RoleBinding>(&doc, &file),
            "ClusterRole" => typed::<ClusterRole>(&doc, &file),
            "ClusterRoleBinding" => typed::<ClusterRoleBinding>(&doc, &file),
            "ValidatingAdmissionPolicy" => typed::<ValidatingAdmissionPolicy>(&doc, &file),
            "ValidatingAdmissionPolicyBinding" => typed::<ValidatingAdmissionPolicyBinding>(&doc, &file),
            "Kustomization" => {}
            other => panic!("{file}: kind {other} is not checked"),
        }
        kinds.insert(kind);
    }
    for needed in ["Deployment", "Service", "PersistentVolumeClaim", "ClusterRole", "ValidatingAdmissionPolicy"] {
        assert!(kinds.contains(needed), "{needed}");
    }
}

#[test]
fn the_manifests_give_no_write_but_the_hints_and_no_secrets() {
    for (file, doc) in manifests() {
        let name = doc["metadata"]["name"].as_str().unwrap_or_default();
        for rule in doc["rules"].as_array().into_iter().flatten() {
            let list = |key: &str| -> Vec<&str> {
                rule[key].as_array().into_iter().flatten().map(|v| v.as_str().unwrap()).collect()
            };
            assert!(!list("verbs").is_empty() && list("resources").is_empty() != list("nonResourceURLs").is_empty());
            for resource in list("resources") {
                assert!(resource != "secrets" && resource != "*", "{file} {name}: {resource}");
            }
            for verb in list("verbs") {
                let hint = name == "countersign-hints" && verb == "patch";
                assert!(hint || ["get", "list", "watch"].contains(&verb), "{file} {name}: {verb}");
            }
        }
    }
}

/// Kinds that the watches follow by themselves: without `list` and `watch` on each, no ownership is answered.
#[test]
fn the_read_role_covers_every_kind_that_is_always_watched() {
    let source = text("src/cluster/watch.rs");
    let table = source.split_once("const WATCHED").unwrap().1.split_once("];").unwrap().0;
    let granted: BTreeSet<(String, String)> = manifests()
        .iter()
        .filter(|(_, d)| d["kind"] == "ClusterRole" && d["metadata"]["name"] == "countersign-owners")
        .flat_map(|(_, d)| d["rules"].as_array().unwrap().clone())
        .filter(|r| ["get", "list", "watch"].iter().all(|v| r["verbs"].as_array().unwrap().contains(&Value::from(*v))))
        .flat_map(|r| {
            let groups = r["apiGroups"].as_array().cloned().unwrap_or_default();
            let resources = r["resources"].as_array().cloned().unwrap_or_default();
            let pairs = groups.iter().flat_map(|g| {
                resources.iter().map(|k| (g.as_str().unwrap().to_owned(), k.as_str().unwrap().to_owned()))
            });
            pairs.collect::<Vec<_>>()
        })
        .collect();
    let mut rows = 0;
    for row in table.lines().filter(|l| l.trim_start().starts_with("(\"")) {
        let cells: Vec<&str> = row.split('"').collect();
        let (group, kind) = (cells[3], cells[5]);
        let plural = if kind.ends_with('y') {
            format!("{}ies", kind.to_lowercase().trim_end_matches('y'))
        } else {
            format!("{}s", kind.to_lowercase())
        };
        assert!(granted.contains(&(group.to_owned(), plural.clone())), "{group} {plural}");
        rows += 1;
    }
    assert!(rows >= 6, "the table of watched kinds was not found");
}

/// Relative links of a page lead somewhere.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].iter().map(|p| root().join(p)).collect();
    pages.extend(
        std::fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|x| x == "md")),
    );
    let mut links = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|s| s.split_once(')').map(|(t, _)| t)) {
            let path = target.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let there = page.parent().unwrap_or(Path::new("")).join(path);
            assert!(there.exists(), "{} links to {target}", page.display());
        }
    }
    assert!(links > 10);
}

/// The ConfigMaps as the Deployment mounts them: the program reads the result.
#[test]
fn the_configuration_in_the_manifests_loads_as_it_is_mounted() {
    let all = manifests();
    let pod = &all.iter().find(|(_, d)| d["kind"] == "Deployment").unwrap().1["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mount = |volume: &Value| -> &str {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|m| m["name"] == volume["name"]).unwrap()["mountPath"].as_str().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut mounted = 0;
    for volume in pod["volumes"].as_array().unwrap() {
        let own = volume["configMap"]["name"].as_str();
        let projected = volume["projected"]["sources"].as_array().into_iter().flatten();
        for name in own.into_iter().chain(projected.map(|s| s["configMap"]["name"].as_str().unwrap())) {
            let map = all.iter().find(|(_, d)| d["kind"] == "ConfigMap" && d["metadata"]["name"] == name).unwrap();
            for (key, content) in map.1["data"].as_object().unwrap() {
                let file = dir.path().join(mount(volume).trim_start_matches('/')).join(key);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, content.as_str().unwrap()).unwrap();
            }
            mounted += 1;
        }
    }
    assert_eq!(mounted, all.iter().filter(|(_, d)| d["kind"] == "ConfigMap").count(), "every ConfigMap is mounted");
    let environment = container["env"].as_array().unwrap();
    let bootstrap = environment.iter().find(|e| e["name"] == "COUNTERSIGN_CONFIG").unwrap()["value"].as_str().unwrap();
    let config = Config::load(&dir.path().join(bootstrap.trim_start_matches('/'))).unwrap();
    assert_eq!((config.agents.len(), config.people.len(), config.clusters.len()), (1, 1, 1));
    let volumes = pod["volumes"].as_array().unwrap();
    let state = volumes.iter().find(|v| v["persistentVolumeClaim"].is_object()).unwrap();
    assert!(config.bootstrap.state_dir.starts_with(mount(state)), "the state is on the volume");
    assert_ne!(
        config.bootstrap.state_dir,
        Path::new(mount(state)),
        "the daemon sets the mode of its own folder, not of the volume"
    );
}

#[test]
fn the_approvers_guide_shows_the_cards_as_they_are() {
    let page = text("docs/approvers-guide.md");
    let mut shown = 0;
    for part in page.split("<!-- card: ").skip(1) {
        let (name, rest) = part.split_once(" -->\n```text\n").expect("a card's name, and its text");
        let (block, _) = rest.split_once("\n```\n").expect("the end of the card");
        // Buttons are drawn under the text.
        let block: Vec<&str> = block.lines().filter(|l| !l.starts_with('[')).collect();
        let golden = text(&format!("core/tests-data/cards/{name}.txt"));
        assert_eq!(block.join("\n"), golden.trim_end(), "{name}");
        shown += 1;
    }
    assert!(shown >= 8, "{shown} cards");
}
