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
    let (mut accepted, mut same_kind) = (false, false);
    for entry in lines(pinned).filter(|e| names(e.host_patterns(), host, port)) {
        let same = entry.public_key().key_data() == offered.key_data();
        match entry.marker() {
            Some(Marker::Revoked) if same => {
                return Err(Problem::new(
                    "git.host_key",
                    format!("The host key of {host} is marked as revoked."),
                    next,
                ));
            }
            Some(_) => {}
            None => {
                accepted |= same;
                same_kind |= entry.public_key().algorithm() == offered.algorithm();
                known.push(format!(
                    "{} {}",
                    entry.public_key().algorithm(),
                    entry.public_key().fingerprint(HashAlg::Sha256)
                ));
            }
        }
    }
    if accepted {
        return Ok(());
    }
    let message = if known.is_empty() {
        format!("No host key is pinned for {host} (port {port}).")
    } else if same_kind {
        format!("{host} offers a host key that is not the pinned one.")
    } else {
        // libssh2 asks for ed25519 first and cannot be told what is pinned.
        format!("{host} offers a host key of kind {}, and none of that kind is pinned.", offered.algorithm())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> PublicKey {
        PublicKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]).public)
    }

    fn line(hosts: &str, seed: u8) -> String {
        format!("{hosts} {}\n", key(seed).to_openssh().unwrap())
    }

    fn ok(pinned: &str, host: &str, port: u16, seed: u8) -> bool {
        check(pinned, host, port, &key(seed).to_bytes().unwrap()).is_ok()
    }

    #[test]
    fn the_pinned_key_passes_and_any_other_is_refused_with_both_fingerprints() {
        let pinned = format!("# comment\n\nbroken line\n{}", line("git.example.com,10.0.0.1", 1));
        assert!(ok(&pinned, "git.example.com", 22, 1));
        assert!(ok(&pinned, "GIT.example.com", 22, 1));
        assert!(ok(&pinned, "10.0.0.1", 22, 1));
        let e = check(&pinned, "git.example.com", 22, &key(2).to_bytes().unwrap()).unwrap_err();
        assert_eq!(e.code, "git.host_key");
        assert!(e.evidence.contains(&format!("pinned: ssh-ed25519 {}", key(1).fingerprint(HashAlg::Sha256))));
        assert!(e.evidence.iter().any(|l| l.contains(&key(2).fingerprint(HashAlg::Sha256).to_string())));
        assert!(!ok(&pinned, "other.example.com", 22, 1), "an unknown host is not learned");
        assert!(!ok("", "git.example.com", 22, 1));
        assert!(check(&pinned, "git.example.com", 22, b"junk").is_err());
    }

    #[test]
    fn ports_patterns_negations_and_markers_count() {
        let port = line("[git.example.com]:2222", 1);
        assert!(ok(&port, "git.example.com", 2222, 1) && !ok(&port, "git.example.com", 22, 1));
        assert!(!ok(&line("git.example.com", 1), "git.example.com", 2222, 1));
        let wild = line("*.example.com,!bad.example.com", 1);
        assert!(
            ok(&wild, "a.example.com", 22, 1)
                && !ok(&wild, "bad.example.com", 22, 1)
                && !ok(&wild, "example.com", 22, 1)
        );
        assert!(ok(&line("git?.example.com", 1), "git1.example.com", 22, 1));
        assert!(!ok(&format!("{}@revoked {}", line("h", 1), line("h", 1)), "h", 22, 1), "revoked beats known");
        assert!(!ok(&format!("@cert-authority {}", line("h", 1)), "h", 22, 1));
        assert!(ok(&format!("{}{}", line("h", 1), line("h", 2)), "h", 22, 2), "any of several pinned keys");
    }

    #[test]
    fn hashed_names_match_as_ssh_keygen_hashes_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kh");
        std::fs::write(&file, format!("{}{}", line("git.example.com", 1), line("[git.example.com]:2222", 2))).unwrap();
        let done = std::process::Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().unwrap();
        assert!(done.status.success());
        let hashed = std::fs::read_to_string(&file).unwrap();
        assert!(hashed.contains("|1|") && !hashed.contains("example"));
        assert!(ok(&hashed, "git.example.com", 22, 1) && ok(&hashed, "git.example.com", 2222, 2));
        assert!(!ok(&hashed, "git.example.com", 22, 2) && !ok(&hashed, "git.example.org", 22, 1));
    }
}
