//! From an empty folder to a lab that serves.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use countersign_core::Result;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::process::Command;

use super::parts::{ARGOCD, ARGOCD_SERVER, FLUX, KUBERNETES, Part};
use super::state::State;
use super::{Lab, Took, cluster, off, problem, process};

/// Name of the one node.
pub(super) const NODE: &str = "lab-1";

/// Writes a file that only its owner may read, with its folder.
pub(super) fn put(path: &Path, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| off(&format!("{} cannot be written", path.display()))(&e);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)
}

pub(super) async fn up(dir: &Path, cache: &Path) -> Result<(Lab, Vec<Took>)> {
    let dir = std::path::absolute(dir).map_err(|e| off("the folder of the lab")(&e))?;
    empty(&dir).await?;
    let state = State::new(cache, &callers().map(|c| c.0))?;
    let lab = Lab { dir, state };
    programs(&lab)?;
    files(&lab).await?;
    lab.state.write(&lab.dir)?;
    let from = Instant::now();
    let (forge, redis, cluster) = tokio::join!(forge(&lab), one(&lab, "redis"), whole_cluster(&lab));
    let mut took = vec![forge?, redis?];
    took.extend(cluster?);
    took.push(Took { name: "all".into(), time: from.elapsed() });
    Ok((lab, took))
}

/// Ends what runs there and empties the folder, if it is a lab's.
async fn empty(dir: &Path) -> Result<()> {
    let failed = |e: std::io::Error| off(&format!("{} cannot be emptied", dir.display()))(&e);
    let file = State::file(dir);
    if file.exists() {
        if let Ok(old) = Lab::attach(&file) {
            let parts = old.parts();
            let parts_of_it = parts.iter().rev().map(|p| p.name.clone());
            for name in process::beside(dir, &parts).into_iter().chain(parts_of_it) {
                process::kill(dir, &name, false).await?;
            }
        }
        std::fs::remove_dir_all(dir).map_err(failed)?;
    } else if dir.exists() && std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(problem(
            format!("{} is not empty and holds no lab.", dir.display()),
            "Name another folder, or empty it yourself.",
        ));
    }
    for below in ["logs", "run", "path", "home", "tmp", "redis", "flux", "pki"] {
        std::fs::create_dir_all(dir.join(below)).map_err(failed)?;
    }
    for below in ["tls", "ssh", "gpg/source", "gpg/keys", "plugins"] {
        std::fs::create_dir_all(dir.join("argocd").join(below)).map_err(failed)?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Everything that is to be started is there, in one sentence if not.
fn programs(lab: &Lab) -> Result<()> {
    let there = |p: &PathBuf| p.is_file();
    let parts = lab.parts();
    let missing: Vec<_> = parts.iter().map(|p| &p.program).filter(|p| !there(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut names: Vec<_> = missing.iter().map(|p| p.display().to_string()).collect();
    names.dedup();
    Err(problem(
        format!("The lab lacks programs: {}.", names.join(", ")),
        "Run `tests/lab/build.sh FOLDER`, which needs Go, and `apt-get install redis-server openssh-client git`.",
    ))
}

/// Callers of the API server: name, user, groups. The engines come as their own ServiceAccounts, by static tokens,
/// so that their own roles count.
fn callers() -> [(&'static str, String, String); 11] {
    let masters = |name: &'static str| (name, name.to_owned(), "system:masters".to_owned());
    let account = |namespace: &str, name: &'static str| {
        let groups = format!("system:serviceaccounts,system:serviceaccounts:{namespace}");
        (name, format!("system:serviceaccount:{namespace}:{name}"), groups)
    };
    let [_, manager, scheduler] = KUBERNETES;
    let [repo_server, controller, sets] = ARGOCD;
    let [source, kustomize, helm] = FLUX;
    [
        masters("admin"),
        masters("kwok"),
        (manager, format!("system:{manager}"), String::new()),
        (scheduler, format!("system:{scheduler}"), String::new()),
        account("argocd", repo_server),
        account("argocd", controller),
        account("argocd", sets),
        account("argocd", ARGOCD_SERVER),
        account("flux-system", source),
        account("flux-system", kustomize),
        account("flux-system", helm),
    ]
}

/// Keys, tokens, kubeconfigs and configuration.
async fn files(lab: &Lab) -> Result<()> {
    let dir = &lab.dir;
    let mut tokens = String::new();
    for (n, (name, user, groups)) in callers().into_iter().enumerate() {
        let token = lab.state.token(name);
        tokens.push_str(&format!("{token},{user},{n},\"{groups}\"\n"));
        let authority = json!({"certificate-authority": dir.join("pki/apiserver.crt")});
        let config = cluster::kubeconfig(lab.state.port("kube-apiserver"), authority, name, token);
        put(&dir.join(format!("{name}.kubeconfig")), &config)?;
    }
    put(&dir.join("pki/tokens.csv"), &tokens)?;
    put(&dir.join("kwok.yaml"), &stages(&lab.state.cache)?)?;
    // What the tracking of commits' signatures calls, whether it is on or off. Its authors put it on PATH too.
    let wrapper = "git-verify-wrapper.sh";
    let from = lab.state.cache.join("share/argocd-path").join(wrapper);
    let to = dir.join("path").join(wrapper);
    std::fs::copy(&from, &to).map_err(|e| off(&format!("{}", from.display()))(&e))?;
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).map_err(|e| off(wrapper)(&e))?;
    let keygen = |kind: &'static str, file: &'static str| {
        let file = dir.join(file).display().to_string();
        async move {
            let args = ["-q", "-t", kind, "-m", "PEM", "-N", "", "-C", "lab", "-f", &file].map(str::to_owned);
            tool("ssh-keygen", Path::new("ssh-keygen"), &args, &[]).await
        }
    };
    std::fs::create_dir_all(dir.join("gitea")).map_err(|e| off("the folder of the forge")(&e))?;
    let (accounts, host) = tokio::join!(keygen("rsa", "pki/service-accounts"), keygen("ed25519", "gitea/host-key"));
    accounts.and(host).map(drop)
}

/// KWOK's own fast stages, and ours, for which its `pod-ready` is told to leave some pods alone.
fn stages(cache: &Path) -> Result<String> {
    let mut all = Vec::new();
    for file in listed(&cache.join("share/kwok-stages"))? {
        all.extend(documents(&file)?);
    }
    let tag = |words: &str| format!(":([^/:@]*[-.])?({words})([-.][^/:@]*)?$");
    let image = |words: &str| format!("[.spec.containers[].image | test(\"{}\")] | any", tag(words));
    for stage in &mut all {
        if stage.pointer("/metadata/name").and_then(Value::as_str) == Some("pod-ready") {
            let ours = image("missing|crash|oom|notready|slow|flap");
            let selector = stage.pointer_mut("/spec/selector/matchExpressions").and_then(Value::as_array_mut);
            let selector = selector.ok_or_else(|| problem("KWOK's stage pod-ready has changed.", "Look at it."))?;
            selector.push(json!({"key": ours, "operator": "NotIn", "values": ["true"]}));
        }
    }
    let ours: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("stages.yaml")).map_err(|e| off("stages.yaml")(&e))?;
    let exits = ours.iter().find(|s| s["metadata"]["name"] == "lab-exits").map(|s| s["spec"]["next"].clone());
    for mut stage in ours {
        if stage["metadata"]["name"] == "lab-flaps" {
            stage["spec"]["next"] = exits.clone().unwrap_or_default();
        }
        all.push(expanded(stage, &|w| image(w), &|w| tag(w)));
    }
    // JSON is YAML.
    Ok(all.iter().map(|s| format!("---\n{s:#}\n")).collect())
}

/// Puts in what `IMAGE(words)` and `TAG(words)` stand for, wherever they are.
fn expanded(value: Value, image: &dyn Fn(&str) -> String, tag: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(mut text) => {
            for (mark, with) in [("IMAGE(", image), ("TAG(", tag)] {
                while let Some((before, rest)) = text.split_once(mark) {
                    let Some((words, after)) = rest.split_once(')') else { break };
                    text = format!("{before}{}{after}", with(words));
                }
            }
            Value::String(text)
        }
        Value::Array(all) => Value::Array(all.into_iter().map(|v| expanded(v, image, tag)).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, expanded(v, image, tag))).collect()),
        other => other,
    }
}

/// The YAML files below a folder, sorted.
fn listed(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| off(&format!("{} (run tests/lab/build.sh)", dir.display()))(&e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            found.extend(listed(&path)?);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn documents(file: &Path) -> Result<Vec<Value>> {
    let failed = |e: &dyn std::fmt::Display| off(&format!("{} cannot be read", file.display()))(e);
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| failed(&e))?;
    Ok(all.into_iter().filter(Value::is_object).collect())
}

/// Runs a program to its end; an error has its last words.
pub(super) async fn tool(name: &str, program: &Path, args: &[String], env: &[(String, String)]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    if !env.is_empty() {
        command.env_clear().envs(env.iter().map(|(k, v)| (k, v)));
    }
    let out = command.output().await.map_err(|e| off(&format!("{name} cannot be run"))(&e))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    let last: Vec<&str> = words.lines().rev().take(5).collect();
    Err(problem(format!("{name} failed."), "Look at its words.").with_all(last.into_iter().rev()))
}

async fn started(lab: &Lab, part: &Part) -> Result<Took> {
    let from = Instant::now();
    process::spawn(&lab.dir, part)?;
    lab.probe(part).await?;
    Ok(Took { name: part.name.clone(), time: from.elapsed() })
}

async fn one(lab: &Lab, name: &str) -> Result<Took> {
    started(lab, &lab.part(name)?).await
}

async fn some(lab: &Lab, names: &[&str]) -> Result<Vec<Took>> {
    try_join_all(names.iter().map(|n| one(lab, n))).await
}

async fn forge(lab: &Lab) -> Result<Took> {
    let from = Instant::now();
    super::gitea::prepare(lab).await?;
    one(lab, "gitea").await?;
    Ok(Took { name: "gitea".into(), time: from.elapsed() })
}

async fn whole_cluster(lab: &Lab) -> Result<Vec<Took>> {
    let mut took = vec![one(lab, "etcd").await?, one(lab, "kube-apiserver").await?];
    let [_, manager, scheduler] = KUBERNETES;
    let plane = [manager, scheduler, "kwok"];
    let from = Instant::now();
    let (plane, objects) = tokio::join!(some(lab, &plane), objects(lab));
    took.extend(plane?);
    objects?;
    took.push(Took { name: "objects".into(), time: from.elapsed() });
    let engines: Vec<&str> = ARGOCD.iter().chain(&[ARGOCD_SERVER]).chain(&FLUX).copied().collect();
    took.extend(some(lab, &engines).await?);
    node_ready(lab).await?;
    settled(lab).await?;
    Ok(took)
}

/// The controllers have done what they do to every new cluster; a guest would take it for its own doing.
async fn settled(lab: &Lab) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    let mut left = Vec::new();
    while Instant::now() < end {
        left.clear();
        for namespace in ["argocd", "flux-system", "default", "kube-system", "kube-public", "kube-node-lease"] {
            if lab.get("v1", "ServiceAccount", namespace, "default").await?.is_none() {
                left.push(format!("no ServiceAccount {namespace}/default"));
            }
        }
        for role in ["admin", "edit", "view"] {
            let role_now = lab.get("rbac.authorization.k8s.io/v1", "ClusterRole", "", role).await?.unwrap_or_default();
            if role_now["rules"].as_array().is_none_or(Vec::is_empty) {
                left.push(format!("ClusterRole {role} has no rules"));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(problem("The controllers of the control plane are not at work.", "Look at their logs.").with_all(left))
}

async fn node_ready(lab: &Lab) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let node = lab.get("v1", "Node", "", NODE).await?.unwrap_or_default();
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(problem("KWOK does not make the node ready.", "Look at its log.").with_all(process::tail(&lab.dir, "kwok")))
}

/// What the engines need in the cluster: their custom resources, roles and settings, from their own modules.
async fn objects(lab: &Lab) -> Result<()> {
    let client = lab.client().await?;
    let share = lab.state.cache.join("share");
    let namespace = |n: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": NODE, "annotations": {"kwok.x-k8s.io/node": "fake"},
        "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", "type": "kwok"},
    }});
    for object in [namespace("argocd"), namespace("flux-system"), node] {
        cluster::apply(&client, &object).await?;
    }
    let mut first = Vec::new();
    for file in listed(&share.join("argocd-crds"))? {
        first.extend(documents(&file)?);
    }
    first.extend(argocd_objects(&share)?);
    for controller in FLUX {
        for file in listed(&share.join(format!("{controller}-crds")))? {
            first.extend(documents(&file)?);
        }
        first.extend(flux_roles(&share, controller)?);
    }
    try_join_all(first.iter().map(|o| cluster::apply_patiently(&client, o))).await?;
    let definitions = first.iter().filter(|o| o["kind"] == "CustomResourceDefinition");
    try_join_all(definitions.map(|d| cluster::served(&client, d))).await?;
    let project = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject",
        "metadata": {"name": "default", "namespace": "argocd"},
        "spec": {"sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}],
                 "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}});
    cluster::apply_patiently(&client, &project).await.map(drop)
}

/// Settings, roles and accounts of Argo CD as its authors publish them.
fn argocd_objects(share: &Path) -> Result<Vec<Value>> {
    let wanted = ["ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    let mut all = Vec::new();
    for below in ["argocd-config", "argocd-roles"] {
        for file in listed(&share.join(below))? {
            all.extend(documents(&file)?);
        }
    }
    all.retain(|o| o["kind"].as_str().is_some_and(|k| wanted.contains(&k)));
    for object in &mut all {
        if !object["kind"].as_str().unwrap_or_default().starts_with("Cluster") {
            object["metadata"]["namespace"] = json!("argocd");
        }
        if object["metadata"]["name"] == "argocd-secret" {
            object["stringData"] = json!({"server.secretkey": super::state::secret()});
        }
    }
    Ok(all)
}

/// The role of a controller of Flux, from its module, under its own name, and its account. Those two that apply
/// objects are administrators too, as in the installation that their authors publish (`cluster-reconciler`).
fn flux_roles(share: &Path, controller: &str) -> Result<Vec<Value>> {
    let rbac = "rbac.authorization.k8s.io";
    let bind = |name: &str, role: &str| {
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": controller, "namespace": "flux-system"}]})
    };
    let role = format!("flux-{controller}");
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": controller, "namespace": "flux-system"}}),
        bind(&role, &role),
    ];
    for file in listed(&share.join(format!("{controller}-roles")))? {
        for mut object in documents(&file)?.into_iter().filter(|o| o["kind"] == "ClusterRole") {
            object["metadata"]["name"] = json!(role);
            all.push(object);
        }
    }
    if controller != "source-controller" {
        all.push(bind(&format!("{role}-reconciler"), "cluster-admin"));
    }
    Ok(all)
}
