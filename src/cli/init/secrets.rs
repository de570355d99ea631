//! What of a new configuration is secret, or says whom to trust: keys, tokens, host keys.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use countersign_core::{Problem, Result};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::files::{self, NewFile, Plan};
use super::find::Repository;
use crate::git::Transport;

fn secret(path: &str, text: String) -> NewFile {
    NewFile { path: path.to_owned(), text, secret: true }
}

/// A fresh key, its private half for the owner alone.
pub(super) fn key(path: &str, comment: &str) -> Result<[NewFile; 2]> {
    let failed = |e: ssh_key::Error| {
        Problem::new(
            "init.key",
            format!("A key could not be made: {e}."),
            "Try again; make one with ssh-keygen otherwise.",
        )
    };
    let mut key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).map_err(failed)?;
    key.set_comment(comment);
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?.to_string();
    let public = key.public_key().to_openssh().map_err(failed)?;
    Ok([secret(path, private), NewFile { path: format!("{path}.pub"), text: format!("{public}\n"), secret: false }])
}

pub(super) fn with_secrets(plan: &Plan, token: &str, home: &Path) -> Result<Vec<NewFile>> {
    let mut all = files::render(plan);
    all.extend(key("secrets/signing_ed25519", "countersign")?);
    all.push(secret(&format!("secrets/{}_token", plan.agent), format!("{token}\n")));
    let ssh: Vec<&Repository> = plan.repositories.iter().filter(|r| r.transport == Transport::Ssh).collect();
    for r in &ssh {
        all.extend(key(&files::deploy_key(&r.name), &format!("countersign {}", r.name))?);
    }
    if !ssh.is_empty() {
        let mut text = String::from(
            "# Host keys of the Git servers. Nothing is learned on first use: compare each with what the host's\n# operator publishes. `ssh-keyscan HOST` prints candidates.\n",
        );
        let hosts: BTreeSet<String> = ssh.iter().map(|r| host(r)).collect();
        for host in hosts {
            match trusted(home, &host) {
                Some(lines) => text.push_str(&format!("# {host}: from your own known_hosts\n{lines}")),
                None => text.push_str(&format!("# {host}: put its lines here\n")),
            }
        }
        all.push(NewFile { path: "secrets/known_hosts".into(), text, secret: false });
    }
    Ok(all)
}

/// The host as known_hosts names it.
pub(super) fn host(r: &Repository) -> String {
    match r.port {
        Some(port) if port != 22 => format!("[{}]:{port}", r.host),
        _ => r.host.clone(),
    }
}

/// Lines about a host that the person's own ssh trusts already.
fn trusted(home: &Path, host: &str) -> Option<String> {
    let file = home.join(".ssh/known_hosts");
    if !file.is_file() || host.starts_with('-') {
        return None;
    }
    let out = std::process::Command::new("ssh-keygen")
        .args(["-F", host, "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let lines: String =
        text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(|l| format!("{l}\n")).collect();
    (!lines.is_empty()).then_some(lines)
}
