//! The lab: the real components (etcd, the Kubernetes control plane, KWOK for the pods, Argo CD, Flux, Gitea) as
//! plain processes on loopback, built by `tests/lab/build.sh` from their published modules. No containers.
//!
//! Everything of a lab is below one folder: `lab.json` (addresses; the state file), `logs/NAME.log`, `run/NAME.pid`,
//! `pki/`, `admin.kubeconfig`. The processes outlive whoever started them; [`Lab::down`] ends them.
//!
//! `COUNTERSIGN_LAB_KUBECONFIG` names a cluster that is not ours, on which the suite is a guest (`guest.rs`).
//! `COUNTERSIGN_LAB` names the state file. Unset: no lab, and tests that need one are not to ask for it
//! ([`wanted`]). Set: [`Lab::attach_or_start`] attaches to the lab of that file, or starts one beside it with the
//! programs of `COUNTERSIGN_LAB_CACHE`.
//!
//! What the image's tag makes of a pod (see `stages.yaml`): `:missing` cannot be pulled, `:crash` exits with 1 over
//! and over (`:crash-N` with N), `:oom` is killed for its memory, `:notready` runs and never gets ready, `:slow`
//! gets ready after 8 s, `:flap` is ready for 3 s and exits then. Others are ready at once. Words may come before
//! and after: `reg.example/web:2.0-crash` and `reg.example/web:crash-3` both crash.

#![allow(
    dead_code,
    unused_imports,
    reason = "used by the tests and by the example `lab`, each of which needs a part of it"
)]
#![allow(clippy::indexing_slicing, reason = "JSON values: what is not there reads as null")]

mod boot;
mod cluster;
mod gitea;
mod guest;
mod look;
mod parts;
mod player;
mod process;
mod record;
mod state;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::{Problem, Result};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

pub use gitea::{Account, Gitea};
pub use guest::{BEAT, Guest, LABEL, wanted as wanted_as_guest};
pub use parts::{ARGOCD, ARGOCD_SERVER, FLUX, KUBERNETES};
pub use process::Seen;
pub use record::{Recording, Wish};
use state::State;

/// Name of the variable that holds the path of the state file.
pub const VARIABLE: &str = "COUNTERSIGN_LAB";
/// Name of the variable that holds the folder that `build.sh` filled.
pub const CACHE_VARIABLE: &str = "COUNTERSIGN_LAB_CACHE";

/// The lab of this process.
static LAB: OnceCell<Lab> = OnceCell::const_new();
/// The run of this process on a cluster that is not ours.
static RUN: OnceCell<Result<Lab>> = OnceCell::const_new();
/// One start or stop at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A lab that runs, or ran. Cheap to clone; holds no process and no connection, so that it may be shared between
/// tests with runtimes of their own.
#[derive(Debug, Clone)]
pub struct Lab {
    dir: PathBuf,
    state: State,
}

/// What a start took.
#[derive(Debug, Clone)]
pub struct Took {
    /// Component.
    pub name: String,
    /// From its start to its first good probe.
    pub time: Duration,
}

/// Whether tests are to use a lab, or somebody's cluster: a variable is set.
pub fn wanted() -> bool {
    wanted_as_guest() || std::env::var_os(VARIABLE).is_some_and(|v| !v.is_empty())
}

pub(crate) fn problem(message: impl Into<String>, next: impl Into<String>) -> Problem {
    Problem::new("lab.failed", message, next)
}

/// An error that says what was being done.
pub(crate) fn off(what: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Problem + use<> {
    let what = what.to_owned();
    move |e| problem(format!("{what}: {e}."), "Look at the logs of the lab (`just lab-status` names them).")
}

impl Lab {
    /// The lab that `COUNTERSIGN_LAB` names: attached to if it runs, else started. One for each process, however
    /// many tests ask at the same time. A lab that was started here goes on after the process; `lab down` ends it.
    /// With `COUNTERSIGN_LAB_KUBECONFIG`: a run on that cluster, which ends with the process.
    ///
    /// # Errors
    /// `lab.failed`: the variable is unset, the programs are not built, or a component did not start (with the end
    /// of its log).
    pub async fn attach_or_start() -> Result<Self> {
        if wanted_as_guest() {
            let _ = rustls::crypto::ring::default_provider().install_default();
            // Once, also where it fails: each try sweeps, and may wait for minutes.
            return RUN.get_or_init(guest::join).await.clone();
        }
        let lab = LAB
            .get_or_try_init(|| async {
                let file = std::env::var_os(VARIABLE).map(PathBuf::from).ok_or_else(|| {
                    problem(format!("{VARIABLE} names no state file"), "Run `just lab-test`, or set the variable.")
                })?;
                let file = std::path::absolute(&file).map_err(|e| off("the path of the state file")(&e))?;
                if let Ok(lab) = Self::attach(&file)
                    && lab.parts().iter().all(|p| !process::gone(&lab.dir, &p.name))
                {
                    lab.until_ready().await?;
                    return Ok(lab);
                }
                let dir = file.parent().unwrap_or(Path::new(".")).to_owned();
                let cache = std::env::var_os(CACHE_VARIABLE).map(PathBuf::from).ok_or_else(|| {
                    problem(
                        format!("no lab runs at {} and {CACHE_VARIABLE} names no folder of programs", file.display()),
                        "Run `just lab-up` first, or `tests/lab/build.sh FOLDER` and set the variable.",
                    )
                })?;
                Ok(Self::start(&dir, &cache).await?.0)
            })
            .await?;
        Ok(lab.clone())
    }

    /// Attaches to the lab of a state file, whether it runs or not.
    pub fn attach(file: &Path) -> Result<Self> {
        let state = State::read(file)?;
        let dir = file.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self { dir, state })
    }

    /// Starts everything below `dir`, which is emptied first, with the programs of `cache`. Gives what each took.
    pub async fn start(dir: &Path, cache: &Path) -> Result<(Self, Vec<Took>)> {
        let _turn = TURN.lock().await;
        let _ = rustls::crypto::ring::default_provider().install_default();
        boot::up(dir, cache).await
    }

    /// Ends all components, the last started first, and the API server before etcd. The folder stays.
    pub async fn down(&self) -> Result<()> {
        let _turn = TURN.lock().await;
        for name in process::beside(&self.dir, &self.parts()) {
            process::kill(&self.dir, &name, true).await?;
        }
        for part in self.parts().iter().rev() {
            process::kill(&self.dir, &part.name, part.gentle).await?;
        }
        Ok(())
    }

    /// Each component, in the order of starts, and what was started beside them.
    pub fn status(&self) -> Vec<Seen> {
        let parts = self.parts();
        let names = parts.iter().map(|p| p.name.clone()).chain(process::beside(&self.dir, &parts));
        names.map(|n| process::see(&self.dir, &n)).collect()
    }

    /// Ends a component as a crash does (SIGKILL). Returns when it is gone. Names: [`KUBERNETES`], [`ARGOCD`],
    /// [`FLUX`], `kwok`, `redis`, `etcd`, `gitea`.
    pub async fn stop(&self, component: &str) -> Result<()> {
        let part = self.part(component)?;
        process::kill(&self.dir, &part.name, false).await
    }

    /// Starts a component that was stopped, on its old address and data; returns when it serves.
    pub async fn start_again(&self, component: &str) -> Result<Duration> {
        let part = self.part(component)?;
        let from = Instant::now();
        if component == "kwok" {
            // Held by the one that was killed, and waited for, for 40 s.
            self.delete("coordination.k8s.io/v1", "Lease", "kube-node-lease", boot::NODE).await?;
        }
        process::spawn(&self.dir, &part)?;
        self.probe(&part).await?;
        Ok(from.elapsed())
    }

    /// [`Self::stop`] and [`Self::start_again`].
    pub async fn restart(&self, component: &str) -> Result<Duration> {
        self.stop(component).await?;
        self.start_again(component).await
    }

    /// Starts a program of one's own beside the components: it is seen by [`Self::status`] and ended by
    /// [`Self::down`], before them. Returns when `url` answers with 200.
    pub async fn start_beside(&self, name: &str, program: &Path, args: &[String], url: &str) -> Result<()> {
        let part = parts::Part {
            name: name.into(),
            program: program.into(),
            args: args.to_vec(),
            env: std::env::vars().collect(),
            probe: parts::Probe::Http(url.into()),
            gentle: true,
        };
        process::kill(&self.dir, name, true).await?;
        process::spawn(&self.dir, &part)?;
        self.probe(&part).await
    }

    /// The run on a cluster that is not ours, if this is one.
    pub fn guest(&self) -> Option<&Guest> {
        self.state.guest.as_ref()
    }

    /// Deletes what crashed runs left on this cluster; how many objects.
    pub async fn sweep(&self) -> Result<usize> {
        guest::sweep(&self.client().await?, None).await
    }

    /// Namespace of Argo CD.
    pub fn argocd(&self) -> &str {
        self.guest().map_or("argocd", |g| &g.argocd)
    }

    /// Address of this machine at which the engines find what a test serves.
    pub fn host(&self) -> &str {
        self.guest().map_or("127.0.0.1", |g| &g.host)
    }

    /// Whether this may be written to, as [`Guest::check`] says.
    fn may_write(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        self.guest().map_or(Ok(()), |g| g.check(kind, namespace, name))
    }

    /// A port on loopback that is this lab's: `countersign`, `bot`.
    pub fn port(&self, name: &str) -> u16 {
        self.state.port(name)
    }

    /// Waits until every component serves.
    pub async fn until_ready(&self) -> Result<()> {
        for part in self.parts() {
            self.probe(&part).await?;
        }
        Ok(())
    }

    /// The folder of the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder with the programs (`kubectl`, `kustomize`, `helm`, `argocd`, …).
    pub fn programs(&self) -> PathBuf {
        self.state.cache.join("bin")
    }

    /// The log of a component.
    pub fn log(&self, component: &str) -> PathBuf {
        process::log_file(&self.dir, component)
    }

    /// kubeconfig with every right.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// kubeconfig of a new ServiceAccount with these cluster-wide rules (`{"apiGroups": …, "resources": …, "verbs":
    /// …}`) and no others, as text (JSON, which is YAML). Its namespace is made if it is missing.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str, rules: &[Value]) -> Result<String> {
        cluster::service_account(self, namespace, name, rules).await
    }

    /// kubeconfig of a ServiceAccount that exists, with the rights that it has.
    pub async fn token_kubeconfig(&self, namespace: &str, name: &str) -> Result<String> {
        cluster::token_kubeconfig(self, namespace, name).await
    }

    /// A client with every right, of the calling test's runtime.
    pub async fn client(&self) -> Result<kube::Client> {
        cluster::client(&self.admin_kubeconfig()).await
    }

    /// Applies an object server-side and gives what the API server made of it. Kinds of custom resources are looked
    /// up each time.
    pub async fn apply(&self, object: &Value) -> Result<Value> {
        let of = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        self.may_write(of("/kind"), of("/metadata/namespace"), of("/metadata/name"))?;
        let mut object = object.clone();
        if let Some(guest) = self.guest() {
            guest.mark(&mut object);
        }
        cluster::apply(&self.client().await?, &object).await
    }

    /// Lays these fields over an object that exists (JSON merge patch), as somebody with kubectl does.
    pub async fn merge(&self, object: &Value) -> Result<()> {
        let of = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        self.may_write(of("/kind"), of("/metadata/namespace"), of("/metadata/name"))?;
        cluster::merge(&self.client().await?, object).await
    }

    /// Gets an object by `apiVersion`, kind, namespace (empty: none) and name.
    pub async fn get(&self, api: &str, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        cluster::get(&self.client().await?, api, kind, namespace, name).await
    }

    /// Deletes an object; what is not there is fine.
    pub async fn delete(&self, api: &str, kind: &str, namespace: &str, name: &str) -> Result<()> {
        self.may_write(kind, namespace, name)?;
        cluster::delete(&self.client().await?, api, kind, namespace, name).await
    }

    /// What `argocd` on the command line needs to be logged in as administrator: server and first password, which
    /// Argo CD's API server made up.
    pub async fn argocd_login(&self) -> Result<(String, String)> {
        let name = "argocd-initial-admin-secret";
        let secret = self.get("v1", "Secret", "argocd", name).await?.unwrap_or_default();
        let password = STANDARD.decode(secret["data"]["password"].as_str().unwrap_or_default()).unwrap_or_default();
        let password = String::from_utf8(password).ok().filter(|p| !p.is_empty());
        let password =
            password.ok_or_else(|| problem(format!("There is no {name}."), "Look at argocd-server's log."))?;
        Ok((format!("127.0.0.1:{}", self.port(ARGOCD_SERVER)), password))
    }

    /// The forge and Git server.
    pub fn gitea(&self) -> Gitea {
        Gitea::new(self)
    }

    /// Starts a recording of what the API server shows, in the format that `countersign replay` reads.
    pub async fn record(&self, file: &Path, wish: Wish) -> Result<Recording> {
        Recording::start(self, file, wish).await
    }
}
