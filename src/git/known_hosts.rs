//! Pinned ssh host keys. Nothing is ever learned on first use.

use countersign_core::{Problem, Result};
use hmac::{KeyInit as _, Mac as _};
use ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use ssh_key::{HashAlg, PublicKey};

/// Compares the key that `host:port` offers (wire format) with the pinned lines.
///
/// A line counts if its pattern matches and its key is equal; `@revoked` beats all, certificate
/// authorities and unreadable lines do not count. Errors: `git.host_key`.
pub(crate) fn check(pinned: &str, host: &str, port: u16, offered: &[u8]) -> Result<()> {
    let next = "Compare the offered key with the host's operator, then put its line into `auth.known_hosts`.";
    let offered = PublicKey::from_bytes(offered)
        .map_err(|_| Problem::new("git.host_key", format!("{host} offers a host key of an unknown kind."), next))?;
    let mut known = Vec::new();
    let mut accepted = false;
    for entry in lines(pinned).filter(|e| names(e.host_patterns(), host, port)) {
        let same = entry.public_key().key_data() == offered.key_data();
        match entry.marker() {
            Some(Marker::Revoked) if same => {
                return Err(Problem::new("git.host_key", format!("The host key of {host} is marked as revoked."), next));
            }
            Some(_) => {}
            None => {
                accepted |= same;
                known.push(entry.public_key().fingerprint(HashAlg::Sha256).to_string());
            }
        }
    }
    if accepted {
        return Ok(());
    }
    let message = if known.is_empty() {
        format!("No host key is pinned for {host} (port {port}).")
    } else {
        format!("{host} offers a host key that is not the pinned one.")
    };
    Err(Problem::new("git.host_key", message, next)
        .with(format!("offered: {} {}", offered.algorithm(), offered.fingerprint(HashAlg::Sha256)))
        .with_all(known.into_iter().map(|k| format!("pinned: {k}"))))
}

fn lines(text: &str) -> impl Iterator<Item = Entry> + '_ {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).filter_map(|l| l.parse().ok())
}

/// sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: a port other than 22 is written `[host]:port`.
fn names(patterns: &HostPatterns, host: &str, port: u16) -> bool {
    let host = host.to_lowercase();
    let name = if port == 22 { host } else { format!("[{host}]:{port}") };
    match patterns {
        HostPatterns::HashedName { salt, hash } => hashed(salt, &name).is_some_and(|h| h == *hash),
        HostPatterns::Patterns(list) => {
            let mut matched = false;
            for pattern in list {
                match pattern.strip_prefix('!') {
                    Some(p) if glob(&p.to_lowercase(), &name) => return false,
                    Some(_) => {}
                    None => matched |= glob(&pattern.to_lowercase(), &name),
                }
            }
            matched
        }
    }
}

fn hashed(salt: &[u8], name: &str) -> Option<[u8; 20]> {
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

/// `*` and `?` of known_hosts patterns.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let mut row = vec![false; t.len() + 1];
    if let Some(first) = row.first_mut() {
        *first = true;
    }
    for c in p {
        let mut next = vec![false; t.len() + 1];
        for i in 0..=t.len() {
            let here = row.get(i).copied().unwrap_or(false);
            let before = i.checked_sub(1).and_then(|j| row.get(j)).copied().unwrap_or(false);
            let left = i.checked_sub(1).and_then(|j| next.get(j)).copied().unwrap_or(false);
            let ok = match c {
                '*' => here || left,
                '?' => before,
                c => before && i.checked_sub(1).and_then(|j| t.get(j)) == Some(&c),
            };
            if let Some(slot) = next.get_mut(i) {
                *slot = ok;
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or(false)
}
