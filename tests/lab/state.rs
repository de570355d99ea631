//! The state file: what one has to know to find a lab again.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use countersign_core::Result;
use serde::{Deserialize, Serialize};

use super::guest::Guest;
use super::{off, problem};

/// Ports that are asked for by name.
const PORTS: [&str; 26] = [
    "etcd",
    "etcd-peer",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "redis",
    "argocd-repo-server",
    "argocd-repo-server-metrics",
    "argocd-application-controller-metrics",
    "argocd-applicationset-controller-metrics",
    "argocd-applicationset-controller-probe",
    "argocd-applicationset-controller-webhook",
    "source-controller-metrics",
    "source-controller-health",
    "source-controller-storage",
    "kustomize-controller-metrics",
    "kustomize-controller-health",
    "helm-controller-metrics",
    "helm-controller-health",
    "gitea",
    "gitea-ssh",
    "countersign",
    "bot",
    "argocd-server",
    "argocd-server-metrics",
];

/// Below the range that systems take ports of outgoing connections from, so that a component that restarts finds
/// its port free.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

const LOOPBACK: &str = "127.0.0.1";

/// Contents of `lab.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    /// Folder of programs and what belongs to them.
    pub cache: PathBuf,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Bearer tokens by name of the caller at the API server; made at each start, good for this lab only.
    pub tokens: BTreeMap<String, String>,
    /// Password of the forge's administrator.
    pub forge_password: String,
    /// On a cluster that is not ours: the run.
    #[serde(default)]
    pub guest: Option<Guest>,
}

impl State {
    /// With free ports and new secrets.
    pub fn new(cache: &Path, callers: &[&str]) -> Result<Self> {
        Ok(Self {
            cache: std::path::absolute(cache).map_err(|e| off("the folder of programs")(&e))?,
            ports: free_ports(LOOPBACK)?,
            tokens: callers.iter().map(|c| ((*c).to_owned(), secret())).collect(),
            forge_password: secret(),
            guest: None,
        })
    }

    /// For a run on a cluster that is not ours: with ports that are free at its address of this machine.
    pub fn guest(cache: &Path, guest: Guest) -> Result<Self> {
        let ports = free_ports(&guest.host)?;
        Ok(Self { ports, guest: Some(guest), ..Self::new(cache, &[])? })
    }

    pub fn file(dir: &Path) -> PathBuf {
        dir.join("lab.json")
    }

    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            problem(format!("There is no lab at {}: {e}.", file.display()), "Start one with `just lab-up`.")
        })?;
        serde_json::from_str(&text).map_err(|e| off("the state file cannot be read")(&e))
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| off("the state file")(&e))?;
        super::boot::put(&Self::file(dir), &text)
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or_default()
    }

    /// Loopback, but for the forge of a run on a cluster that is not ours.
    pub fn url(&self, name: &str) -> String {
        let host = if name == "gitea" { self.host() } else { LOOPBACK };
        format!("http://{host}:{}", self.port(name))
    }

    /// Where the forge listens.
    pub fn host(&self) -> &str {
        self.guest.as_ref().map_or(LOOPBACK, |g| &g.host)
    }

    pub fn token(&self, caller: &str) -> &str {
        self.tokens.get(caller).map(String::as_str).unwrap_or_default()
    }
}

/// 160 random bits.
pub(super) fn secret() -> String {
    (0..20).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

fn free_ports(host: &str) -> Result<BTreeMap<String, u16>> {
    TcpListener::bind((host, 0)).map_err(|e| {
        problem(format!("Nothing can listen at {host}: {e}."), "Name an address that this machine itself has.")
    })?;
    let mut held = Vec::new();
    let mut ports = BTreeMap::new();
    for name in PORTS {
        let mut found = None;
        for _ in 0..200 {
            let port = rand::random_range(RANGE);
            if let Ok(listener) = TcpListener::bind((host, port)) {
                found = Some(port);
                held.push(listener);
                break;
            }
        }
        let port =
            found.ok_or_else(|| problem(format!("No free port was found at {host}."), "End what listens there."))?;
        ports.insert(name.to_owned(), port);
    }
    Ok(ports)
}
