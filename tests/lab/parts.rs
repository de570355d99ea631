//! The components: their programs, arguments, environment and probes. Flags and their reasons: each component's own
//! `--help`; what is unusual is said beside it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use countersign_core::Result;

use super::state::State;
use super::{Lab, cluster, problem, process};

/// The API server, and what acts on its objects.
pub const KUBERNETES: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// Argo CD without its user interface.
pub const ARGOCD: [&str; 3] =
    ["argocd-repo-server", "argocd-application-controller", "argocd-applicationset-controller"];
/// Argo CD's API server: for its own command line alone, nothing of ours asks it.
pub const ARGOCD_SERVER: &str = "argocd-server";
/// The controllers of Flux.
pub const FLUX: [&str; 3] = ["source-controller", "kustomize-controller", "helm-controller"];

/// How one sees that a component serves.
#[derive(Debug, Clone)]
pub(super) enum Probe {
    /// A GET that answers 200; certificates of loopback servers are not checked.
    Http(String),
    /// `/readyz` of the API server, with its certificate and a token.
    ApiServer(PathBuf),
    /// `PING` of redis.
    Redis(u16),
}

/// One component.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub probe: Probe,
    /// Whether it is asked to end before it is killed. The API server is not: it would drain its watches for up to a
    /// minute, with its port still taken.
    pub gentle: bool,
}

struct Maker<'a> {
    dir: &'a Path,
    state: &'a State,
}

impl Maker<'_> {
    fn path(&self, below: &str) -> String {
        self.dir.join(below).display().to_string()
    }

    fn at(&self, port: &str) -> String {
        format!("127.0.0.1:{}", self.state.port(port))
    }

    /// `args` are words, separated by blanks.
    fn part(&self, name: &str, program: &str, args: &str, probe: Probe) -> Part {
        let bin = self.state.cache.join("bin");
        let path = format!("{}:{}:/usr/local/bin:/usr/bin:/bin", self.path("path"), bin.display());
        let env = [("PATH", path), ("HOME", self.path("home")), ("TMPDIR", self.path("tmp")), ("TZ", "UTC".into())];
        // How often Go's collector works, of whoever starts the lab: a choice between memory and time.
        let collector = std::env::var("GOGC").ok().map(|v| ("GOGC", v));
        Part {
            name: name.into(),
            program: if program.starts_with('/') { program.into() } else { bin.join(program) },
            args: args.split_whitespace().map(str::to_owned).collect(),
            env: env.into_iter().chain(collector).map(|(k, v)| (k.to_owned(), v)).collect(),
            probe,
            gentle: false,
        }
    }

    fn etcd(&self) -> Part {
        let (client, peer) = (self.state.url("etcd"), self.state.url("etcd-peer"));
        let args = format!(
            "--data-dir {} --listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer} \
             --initial-advertise-peer-urls {peer} --initial-cluster default={peer} --unsafe-no-fsync --log-level warn",
            self.path("etcd")
        );
        self.part("etcd", "etcd", &args, Probe::Http(format!("{client}/health")))
    }

    fn api_server(&self) -> Part {
        let args = format!(
            "--etcd-servers {} --bind-address 127.0.0.1 --secure-port {} --cert-dir {} --token-auth-file {} \
             --authorization-mode RBAC --service-account-issuer https://kubernetes.default.svc \
             --service-account-key-file {sa} --service-account-signing-key-file {sa} \
             --service-cluster-ip-range 10.96.0.0/16 --endpoint-reconciler-type none --allow-privileged",
            self.state.url("etcd"),
            self.state.port("kube-apiserver"),
            self.path("pki"),
            self.path("pki/tokens.csv"),
            sa = self.path("pki/service-accounts"),
        );
        let probe = Probe::ApiServer(self.dir.join("admin.kubeconfig"));
        self.part("kube-apiserver", "kube-apiserver", &args, probe)
    }

    fn control_plane(&self, name: &str, more: &str) -> Part {
        let args = format!(
            "--kubeconfig {} --leader-elect=false --bind-address 127.0.0.1 --secure-port {} --cert-dir {} {more}",
            self.path(&format!("{name}.kubeconfig")),
            self.state.port(name),
            self.path(&format!("pki/{name}")),
        );
        self.part(name, name, &args, Probe::Http(format!("https://{}/healthz", self.at(name))))
    }

    fn kwok(&self) -> Part {
        // Without the lease the node counts as lost after 50 s, and all its pods as not ready.
        let args = format!(
            "--kubeconfig {} --manage-all-nodes=true --node-lease-duration-seconds 40 --config {} --server-address {}",
            self.path("kwok.kubeconfig"),
            self.path("kwok.yaml"),
            self.at("kwok"),
        );
        self.part("kwok", "kwok", &args, Probe::Http(format!("{}/healthz", self.state.url("kwok"))))
    }

    fn redis(&self) -> Part {
        let port = self.state.port("redis");
        let args = format!("--bind 127.0.0.1 --port {port} --appendonly no --dir {}", self.path("redis"));
        let mut part = self.part("redis", "/usr/bin/redis-server", &args, Probe::Redis(port));
        // No snapshots: an empty word, which cannot be written above.
        part.args.extend(["--save".into(), String::new()]);
        part
    }

    /// One program has all of Argo CD's servers; a variable says which.
    fn argocd(&self, name: &str, args: &str, probe: &str) -> Part {
        let mut part = self.part(name, "argocd", args, Probe::Http(probe.into()));
        let data = |d: &str| self.path(&format!("argocd/{d}"));
        let env = [
            ("ARGOCD_BINARY_NAME", name.to_owned()),
            ("KUBECONFIG", self.path(&format!("{name}.kubeconfig"))),
            ("ARGOCD_FAKE_IN_CLUSTER", "true".into()),
            ("ARGOCD_GPG_ENABLED", "false".into()),
            ("ARGOCD_TLS_DATA_PATH", data("tls")),
            ("ARGOCD_SSH_DATA_PATH", data("ssh")),
            ("ARGOCD_GPG_DATA_PATH", data("gpg/source")),
            ("ARGOCD_GNUPGHOME", data("gpg/keys")),
            ("GNUPGHOME", data("gpg/keys")),
            ("ARGOCD_PLUGINSOCKFILEPATH", data("plugins")),
        ];
        part.env.extend(env.map(|(k, v)| (k.to_owned(), v)));
        part
    }

    fn argocd_parts(&self) -> [Part; 4] {
        let [repo, controller, sets] = ARGOCD;
        let metrics = |name: &str| self.state.port(&format!("{name}-metrics"));
        let args = format!(
            "--address 127.0.0.1 --port {} --metrics-address 127.0.0.1 --metrics-port {} --redis {} --disable-tls \
             --loglevel warn",
            self.state.port(repo),
            metrics(repo),
            self.at("redis"),
        );
        let healthz = |name: &str| format!("http://127.0.0.1:{}/healthz", metrics(name));
        let mut repo_server = self.argocd(repo, &args, &healthz(repo));
        // Needed together with --disable-tls.
        repo_server.args.extend(["--client-ca-path".into(), String::new()]);
        let args = format!(
            "--repo-server {} --repo-server-plaintext --redis {} --metrics-port {} --app-resync 5 \
             --app-resync-jitter 0 --namespace argocd --loglevel info",
            self.at(repo),
            self.at("redis"),
            metrics(controller),
        );
        let controller = self.argocd(controller, &args, &healthz(controller));
        let at = |what: &str| self.at(&format!("{sets}-{what}"));
        let args = format!(
            "--argocd-repo-server {} --repo-server-plaintext --metrics-addr {} --probe-addr {} --webhook-addr {} \
             --enable-leader-election=false --namespace argocd --loglevel info",
            self.at(repo),
            at("metrics"),
            at("probe"),
            at("webhook"),
        );
        let probe = format!("http://{}/metrics", at("metrics"));
        let sets = self.argocd(sets, &args, &probe);
        // Without TLS, since it is on loopback; with its logins.
        let args = format!(
            "--insecure --address 127.0.0.1 --port {} --metrics-address 127.0.0.1 --metrics-port {} --redis {} \
             --repo-server {} --repo-server-plaintext --namespace argocd --loglevel warn",
            self.state.port(ARGOCD_SERVER),
            metrics(ARGOCD_SERVER),
            self.at("redis"),
            self.at(repo),
        );
        let healthz = format!("{}/healthz", self.state.url(ARGOCD_SERVER));
        [repo_server, controller, sets, self.argocd(ARGOCD_SERVER, &args, &healthz)]
    }

    fn flux(&self, name: &str, more: &str) -> Part {
        let at = |what: &str| self.at(&format!("{name}-{what}"));
        let args = format!("--metrics-addr {} --health-addr {} --log-level info {more}", at("metrics"), at("health"));
        let mut part = self.part(name, name, &args, Probe::Http(format!("http://{}/readyz", at("health"))));
        // Nobody listens to events here; an empty word.
        part.args.push("--events-addr=".into());
        let env =
            [("KUBECONFIG", self.path(&format!("{name}.kubeconfig"))), ("RUNTIME_NAMESPACE", "flux-system".into())];
        part.env.extend(env.map(|(k, v)| (k.to_owned(), v)));
        part
    }

    fn flux_parts(&self) -> [Part; 3] {
        let [source, kustomize, helm] = FLUX;
        let storage = self.at("source-controller-storage");
        let more =
            format!("--storage-path {} --storage-addr {storage} --storage-adv-addr {storage}", self.path("flux"));
        [
            self.flux(source, &more),
            self.flux(kustomize, "--requeue-dependency 2s"),
            self.flux(helm, "--requeue-dependency 2s"),
        ]
    }

    fn gitea(&self) -> Part {
        let args = format!("web --config {}", self.path("gitea/app.ini"));
        let probe = Probe::Http(format!("{}/api/healthz", self.state.url("gitea")));
        let mut part = self.part("gitea", "gitea", &args, probe);
        part.env.push(("GITEA_WORK_DIR".into(), self.path("gitea")));
        // It has a database.
        part.gentle = true;
        part
    }
}

/// All components, in the order of starts.
pub(super) fn all(dir: &Path, state: &State) -> Vec<Part> {
    let m = Maker { dir, state };
    if state.guest.is_some() {
        return vec![m.gitea()];
    }
    let [api_server, manager, scheduler] = KUBERNETES;
    debug_assert_eq!(api_server, "kube-apiserver");
    let manager_args = format!(
        "--use-service-account-credentials --service-account-private-key-file {} --root-ca-file {}",
        m.path("pki/service-accounts"),
        m.path("pki/apiserver.crt"),
    );
    let mut parts = vec![
        m.gitea(),
        m.redis(),
        m.etcd(),
        m.api_server(),
        m.control_plane(manager, &manager_args),
        m.control_plane(scheduler, ""),
        m.kwok(),
    ];
    parts.extend(m.argocd_parts());
    parts.extend(m.flux_parts());
    parts
}

impl Lab {
    pub(super) fn parts(&self) -> Vec<Part> {
        all(&self.dir, &self.state)
    }

    pub(super) fn part(&self, name: &str) -> Result<Part> {
        let parts = self.parts();
        let names = parts.iter().map(|p| p.name.clone()).collect::<Vec<_>>().join(", ");
        let found = parts.into_iter().find(|p| p.name == name);
        found.ok_or_else(|| problem(format!("{name} is no component."), format!("One of {names}.")))
    }

    /// Waits until it serves; an error, with the end of its log, when it ends or takes longer than a minute.
    pub(super) async fn probe(&self, part: &Part) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        let name = &part.name;
        loop {
            let once = tokio::time::timeout(Duration::from_secs(5), part.probe.once());
            let words = match once.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(words)) => words,
                Err(_) => "no answer".to_owned(),
            };
            let what = if process::gone(&self.dir, name) {
                format!("{name} ended while it was being started.")
            } else if Instant::now() > end {
                format!("{name} does not serve after 60 s: {words}.")
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let log = process::log_file(&self.dir, name);
            let next = format!("Look at {}; its end is below.", log.display());
            return Err(problem(what, next).with_all(process::tail(&self.dir, name)));
        }
    }
}

impl Probe {
    async fn once(&self) -> std::result::Result<(), String> {
        match self {
            Self::Http(url) => {
                let client = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build();
                let answer = client.map_err(|e| e.to_string())?.get(url).send().await.map_err(|e| e.to_string())?;
                if answer.status().is_success() { Ok(()) } else { Err(format!("{url} answers {}", answer.status())) }
            }
            Self::ApiServer(kubeconfig) => {
                let client = cluster::client(kubeconfig).await.map_err(|p| p.message)?;
                let request = http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?;
                client.request_text(request).await.map(drop).map_err(|e| e.to_string())
            }
            Self::Redis(port) => ping(*port).await.map_err(|e| e.to_string()),
        }
    }
}

async fn ping(port: u16) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut line = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    line.write_all(b"PING\r\n").await?;
    let mut answer = [0; 5];
    line.read_exact(&mut answer).await?;
    if &answer == b"+PONG" { Ok(()) } else { Err(std::io::Error::other("redis does not answer PONG")) }
}
