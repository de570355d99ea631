//! The suite as a guest on somebody else's cluster: no part of the control plane and no engine is started, only a
//! forge, and a watch over it all that tidies up when the suite has ended, however it ended.
//!
//! What a run makes is its own by name (`cs-lab-RUN…`) and by label ([`LABEL`] with the run): namespaces; beside
//! them Applications, ApplicationSets, AppProjects and a Role in Argo CD's namespace, and roles, bindings and
//! admission policies of the accounts that Countersign runs as. Writes to anything else are refused here before
//! they are sent ([`Guest::check`]). Pods of a run name a scheduler that nobody is, so that no node takes them;
//! `player.rs` plays their part.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_core::Result;
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::look::{self, Seen};
use super::parts::{Part, Probe};
use super::state::State;
use super::{CACHE_VARIABLE, Lab, boot, cluster, gitea, off, player, problem, process};

/// Name of the variable that holds the path of the cluster's kubeconfig.
pub const KUBECONFIG_VARIABLE: &str = "COUNTERSIGN_LAB_KUBECONFIG";
/// Name of the variable that holds this machine's address as the cluster's pods reach it.
pub const HOST_VARIABLE: &str = "COUNTERSIGN_LAB_GIT_HOST";
/// Name of the variable that holds Argo CD's namespace, where there is more than one.
pub const ARGOCD_VARIABLE: &str = "COUNTERSIGN_LAB_ARGOCD_NAMESPACE";
/// Name of the variable by which the watch finds the lab that it watches over.
const WATCH_VARIABLE: &str = "COUNTERSIGN_LAB_WATCH";
/// Label of everything that a run makes; its value is the run.
pub const LABEL: &str = "countersign.dev/lab-run";
/// Annotation of a run's own namespace: seconds since the epoch at which it was last alive.
pub const BEAT: &str = "countersign.dev/lab-alive";
/// Pause between two beats.
const PAUSE: Duration = Duration::from_secs(5);
/// A run that has been silent for so long has crashed.
const SILENCE_S: i64 = 60;
/// How long an engine has for what its finalizers stand for.
const FINALIZED: Duration = Duration::from_secs(30);
/// Longest wait for what was deleted to be gone.
const PATIENCE: Duration = Duration::from_secs(180);

/// Kinds of what a run makes, in the order in which they go: owners before what they deliver, namespaces at the end.
const MADE: [(&str, &str, &str); 12] = [
    ("argoproj.io/v1alpha1", "ApplicationSet", "applicationsets"),
    ("argoproj.io/v1alpha1", "Application", "applications"),
    ("argoproj.io/v1alpha1", "AppProject", "appprojects"),
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease", "helmreleases"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "kustomizations"),
    ("v1", "Namespace", "namespaces"),
    (RBAC, "RoleBinding", "rolebindings"),
    (RBAC, "Role", "roles"),
    (RBAC, "ClusterRoleBinding", "clusterrolebindings"),
    (RBAC, "ClusterRole", "clusterroles"),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    (ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
];
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// One run on a cluster that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Eight hexadecimal digits.
    pub run: String,
    /// Where the cluster finds this machine.
    pub host: String,
    /// Namespace of Argo CD.
    pub argocd: String,
}

/// Whether the suite is to run on a cluster that is not ours.
pub fn wanted() -> bool {
    set(KUBECONFIG_VARIABLE).is_some()
}

fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|v| !v.is_empty())
}

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Guest {
    /// What names of this run begin with; its own namespace; the scheduler of its pods.
    pub fn name(&self) -> String {
        format!("cs-lab-{}", self.run)
    }

    /// Puts the label of this run on an object.
    pub fn mark(&self, object: &mut Value) {
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.entry("labels").or_insert_with(|| json!({}))[LABEL] = json!(self.run);
        }
    }

    /// Refuses to write to an object that is not of this run.
    ///
    /// # Errors
    /// `lab.foreign`: it is somebody else's.
    pub fn check(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let own = self.name();
        let ours = |n: &str| n == own || n.strip_prefix(&own).is_some_and(|rest| rest.starts_with('-'));
        if ours(namespace) || ours(name) {
            return Ok(());
        }
        Err(countersign_core::Problem::new(
            "lab.foreign",
            format!("{kind} {namespace}/{name} was not made by this run, so it is not written to."),
            format!("Give it a name that begins with {own}-, or its namespace."),
        ))
    }
}

/// Joins the cluster that the variables name: sweeps what crashed runs left, looks at what is there, starts a forge
/// and the watch, and plays the pods' part from then on.
pub(super) async fn join() -> Result<Lab> {
    let config = set(KUBECONFIG_VARIABLE).unwrap_or_default();
    let host = set(HOST_VARIABLE).ok_or_else(|| {
        problem(
            format!("{HOST_VARIABLE} is not set, and the cluster's engines must reach the Git server of this suite."),
            "Set it to an address of this machine that the cluster's pods reach; for kind, the gateway of the docker network `kind`.",
        )
    })?;
    let cache = set(CACHE_VARIABLE).map(PathBuf::from).ok_or_else(|| {
        problem(
            format!("{CACHE_VARIABLE} names no folder with a forge."),
            "Run `tests/lab/build.sh FOLDER gitea` and set it.",
        )
    })?;
    let config = Kubeconfig::read_from(&config).map_err(|e| off(&format!("{KUBECONFIG_VARIABLE} ({config})"))(&e))?;
    let client = client(config.clone()).await?;
    let argocd = engines(&client).await?;
    sweep(&client, None).await?;
    let run: String = (0..4).map(|_| format!("{:02x}", rand::random::<u8>())).collect();
    let guest = Guest { run, host, argocd };
    let above = set("COUNTERSIGN_LAB_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let above = std::path::absolute(above).map_err(|e| off("the folder of the lab")(&e))?;
    let lab = Lab { dir: above.join(guest.name()), state: State::guest(&cache, guest.clone())? };
    for below in ["logs", "run", "path", "home", "tmp", "gitea"] {
        std::fs::create_dir_all(lab.dir.join(below)).map_err(|e| off("the folder of the lab")(&e))?;
    }
    lab.state.write(&lab.dir)?;
    let config = serde_json::to_string_pretty(&config).map_err(|e| off("the kubeconfig")(&e))?;
    boot::put(&lab.admin_kubeconfig(), &config)?;
    let before = look::at_rest(&client, &guest.run).await?;
    let before = serde_json::to_string(&before).map_err(|e| off("what was there")(&e))?;
    boot::put(&lab.dir.join("before.json"), &before)?;
    beat(&lab, &guest).await?;
    process::adopt(&lab.dir, "suite", std::process::id())?;
    watched(&lab)?;
    let args = ["-q", "-t", "ed25519", "-m", "PEM", "-N", "", "-C", "lab", "-f"].map(str::to_owned);
    let key = lab.dir.join("gitea/host-key").display().to_string();
    boot::tool("ssh-keygen", Path::new("ssh-keygen"), &[&args[..], &[key]].concat(), &[]).await?;
    gitea::prepare(&lab).await?;
    let forge = lab.part("gitea")?;
    process::spawn(&lab.dir, &forge)?;
    lab.probe(&forge).await?;
    let rules = [
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}),
        json!({"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}),
    ];
    let config = lab.service_account_kubeconfig(&guest.name(), &format!("{}-player", guest.name()), &rules).await?;
    player::play(&config, &guest.name())?;
    // Past the test harness's capture.
    let mut out = std::io::stderr();
    drop(writeln!(
        out,
        "lab: run {} on the cluster of {}; Argo CD in {}; Git at {}; when it is over: {}",
        guest.run,
        set(KUBECONFIG_VARIABLE).unwrap_or_default(),
        guest.argocd,
        lab.state.url("gitea"),
        lab.dir.join("report.txt").display()
    ));
    Ok(lab)
}

async fn client(config: Kubeconfig) -> Result<kube::Client> {
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.map_err(|e| off("the kubeconfig")(&e))?).map_err(|e| off("the client")(&e))
}

/// Argo CD's namespace; that Flux is there too.
async fn engines(client: &kube::Client) -> Result<String> {
    let both = "The suite needs both engines: install what is missing (docs/lab.md has the commands).";
    for (api, kind, _) in &MADE[..5] {
        if let Err(e) = cluster::api(client, api, kind, "").await {
            return Err(problem(format!("The cluster does not serve {kind} of {api}: {e}."), both));
        }
    }
    if let Some(namespace) = set(ARGOCD_VARIABLE) {
        return Ok(namespace);
    }
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::all(client.clone());
    let found = maps.list(&ListParams::default().fields("metadata.name=argocd-cm")).await;
    let found = found.map_err(|e| off("ConfigMaps cannot be listed")(&e))?;
    let names: Vec<String> = found.items.into_iter().filter_map(|m| m.metadata.namespace).collect();
    match names.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(problem("No namespace of the cluster has the ConfigMap argocd-cm, so there is no Argo CD.", both)),
        many => Err(problem(
            format!("The cluster has {} installations of Argo CD: {}.", many.len(), many.join(", ")),
            format!("Set {ARGOCD_VARIABLE} to one of them."),
        )),
    }
}

fn api(client: &kube::Client, (version, kind, plural): (&str, &str, &str)) -> Api<DynamicObject> {
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let resource = ApiResource {
        group: group.into(),
        version: short.into(),
        api_version: version.into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    Api::all_with(client.clone(), &resource)
}

/// The run's own namespace, with the time; made when it is not there.
async fn beat(lab: &Lab, guest: &Guest) -> Result<()> {
    let now = chrono::Utc::now().timestamp().to_string();
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": guest.name(), "annotations": {BEAT: now}}});
    lab.apply(&object).await.map(drop)
}

/// Deletes what a run made, and waits until it is gone; without a run, what those left that have crashed.
pub(super) async fn sweep(client: &kube::Client, run: Option<&str>) -> Result<usize> {
    let selector = match run {
        Some(run) => format!("{LABEL}={run}"),
        None => {
            let alive = alive(client).await?;
            let but = if alive.is_empty() { String::new() } else { format!(",{LABEL} notin ({})", alive.join(", ")) };
            format!("{LABEL}{but}")
        }
    };
    let mut deleted = 0;
    for kind in MADE {
        let (end, released) = (tokio::time::Instant::now() + PATIENCE, tokio::time::Instant::now() + FINALIZED);
        loop {
            let left = left(client, kind, &selector).await?;
            if left.is_empty() {
                break;
            }
            if tokio::time::Instant::now() > end {
                return Err(problem(
                    format!(
                        "What a run made does not go: {}.",
                        left.iter().map(|o| format!("{} {}", kind.1, named(o))).collect::<Vec<_>>().join(", ")
                    ),
                    format!("Look at its finalizers; `kubectl get {} -A -l {LABEL}` lists it.", kind.2),
                ));
            }
            for object in left.iter().filter(|o| o.metadata.deletion_timestamp.is_none()) {
                let (namespace, name) = (object.metadata.namespace.clone().unwrap_or_default(), named(object));
                cluster::delete(client, kind.0, kind.1, &namespace, &name).await?;
                deleted += 1;
            }
            if tokio::time::Instant::now() > released && kind.1 != "Namespace" {
                release(client, kind, &left).await?;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(deleted)
}

/// Takes the finalizers from what is to go, all of which is in namespaces that go as well. Applications of a set have
/// one, and Argo CD keeps them for ever where a crash took their project first; a Kustomization is not let go before
/// the health that it waits for, up to its timeout.
async fn release(client: &kube::Client, kind: (&str, &str, &str), left: &[DynamicObject]) -> Result<()> {
    for object in left.iter().filter(|o| o.metadata.deletion_timestamp.is_some()) {
        let bare = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {
            "name": named(object), "namespace": object.metadata.namespace, "finalizers": null}});
        match cluster::merge(client, &bare).await {
            // Gone meanwhile.
            Err(p) if p.message.contains("not found") => {}
            done => done?,
        }
    }
    Ok(())
}

fn named(object: &DynamicObject) -> String {
    object.metadata.name.clone().unwrap_or_default()
}

async fn left(client: &kube::Client, kind: (&str, &str, &str), selector: &str) -> Result<Vec<DynamicObject>> {
    match api(client, kind).list(&ListParams::default().labels(selector)).await {
        Ok(found) => Ok(found.items),
        // A cluster may be without a kind, and then has none of it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(e) => Err(off(&format!("{} cannot be listed", kind.2))(&e)),
    }
}

/// Runs that have given a sign of life not long ago.
async fn alive(client: &kube::Client) -> Result<Vec<String>> {
    let now = chrono::Utc::now().timestamp();
    let found = left(client, ("v1", "Namespace", "namespaces"), LABEL).await?;
    let of = |n: DynamicObject| {
        let at: i64 = n.metadata.annotations?.get(BEAT)?.parse().ok()?;
        (now - at < SILENCE_S).then(|| n.metadata.labels?.get(LABEL).cloned())?
    };
    let mut runs: Vec<String> = found.into_iter().filter_map(of).collect();
    runs.sort();
    runs.dedup();
    Ok(runs)
}

/// Starts the watch: this very program, as a process of its own, which outlives a suite that is killed.
fn watched(lab: &Lab) -> Result<()> {
    let me = std::env::current_exe().map_err(|e| off("this program")(&e))?;
    let mut env: Vec<(String, String)> = std::env::vars().filter(|(k, _)| k != KUBECONFIG_VARIABLE).collect();
    env.push((WATCH_VARIABLE.into(), State::file(&lab.dir).display().to_string()));
    let args = ["lab::guest::it_tidies_up_when_the_suite_is_over", "--exact", "--ignored", "--nocapture"];
    let part = Part {
        name: "watch".into(),
        program: me,
        args: args.map(str::to_owned).into(),
        env,
        // Nobody waits for it.
        probe: Probe::Redis(0),
        gentle: true,
    };
    process::spawn(&lab.dir, &part)
}

/// Keeps the run alive while its suite runs, then deletes all that it made, and says what became of the rest.
async fn watch(lab: &Lab, guest: &Guest) -> Result<String> {
    while !process::gone(&lab.dir, "suite") {
        // What fails now is tried again; a sweep by others would need a minute of that.
        if let Err(p) = beat(lab, guest).await {
            eprintln!("{p}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    let client = lab.client().await?;
    let swept = sweep(&client, Some(&guest.run)).await;
    // Also where something does not go: the next run sweeps it, and nobody else ends the forge.
    process::kill(&lab.dir, "gitea", true).await?;
    let swept = swept?;
    let before = std::fs::read_to_string(lab.dir.join("before.json")).map_err(|e| off("what was there")(&e))?;
    let before: Seen = serde_json::from_str(&before).map_err(|e| off("what was there")(&e))?;
    let after = look::around(&client, &guest.run).await?;
    let words = look::compare(&before, &after);
    for repositories in ["gitea", "home", "tmp"] {
        drop(std::fs::remove_dir_all(lab.dir.join(repositories)));
    }
    Ok(format!("run {}: {swept} of its objects were left when it ended, and are deleted now\n{words}", guest.run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest { run: "0badcafe".into(), host: "127.0.0.1".into(), argocd: "argocd".into() }
    }

    #[test]
    fn what_others_made_is_not_written_to() {
        let guest = guest();
        for (namespace, name) in [
            ("cs-lab-0badcafe-12345678", "web"),
            ("argocd", "cs-lab-0badcafe-12345678"),
            ("", "cs-lab-0badcafe"),
            ("cs-lab-0badcafe", "default"),
        ] {
            guest.check("Application", namespace, name).unwrap_or_else(|p| panic!("{p}"));
        }
        for (namespace, name) in [
            ("argocd", "checkout"),
            ("", "default"),
            ("", "cs-lab-0badcafe1"),
            ("cs-lab-deadbeef-12345678", "web"),
            ("", ""),
        ] {
            let refused = guest.check("Application", namespace, name).unwrap_err();
            assert_eq!(refused.code, "lab.foreign", "{namespace}/{name}");
        }
    }

    #[test]
    fn a_mark_keeps_the_labels_that_are_there() {
        let mut object = json!({"metadata": {"name": "x", "labels": {"app": "web"}}});
        guest().mark(&mut object);
        assert_eq!(object["metadata"]["labels"], json!({"app": "web", LABEL: "0badcafe"}));
    }
}

/// No test of anything: the process that [`watched`] starts.
#[cfg(test)]
#[tokio::test]
#[ignore = "the suite starts it as a process of its own"]
async fn it_tidies_up_when_the_suite_is_over() {
    let Some(file) = set(WATCH_VARIABLE) else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let lab = Lab::attach(Path::new(&file)).unwrap_or_else(|p| panic!("{p}"));
    let guest = lab.guest().cloned().expect("a lab on a cluster that is not ours");
    let words = match watch(&lab, &guest).await {
        Ok(words) => words,
        Err(p) => format!("NOT TIDIED UP: {p} {:?}\n", p.evidence),
    };
    eprintln!("{words}");
    // Whole, or not there: whoever waits for it reads it at once.
    let part = lab.dir().join("report.part");
    std::fs::write(&part, words).unwrap();
    std::fs::rename(part, lab.dir().join("report.txt")).unwrap();
}
