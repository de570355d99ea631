//! SSH signatures (PROTOCOL.sshsig): commits, approvals on the command line, journal checkpoints.

use countersign_core::{Problem, Result};
use secrecy::{ExposeSecret as _, SecretString};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// Namespace of commit signatures (git: Documentation/config/gpg.txt).
pub const NAMESPACE_GIT: &str = "git";
/// Namespace of approvals signed on the command line.
pub const NAMESPACE_APPROVAL: &str = "countersign-approval";
/// Namespace of the journal's checkpoints.
pub const NAMESPACE_CHECKPOINT: &str = "countersign-checkpoint";

/// A private ssh key that signs. Its signatures are deterministic (Ed25519, RSA PKCS#1 v1.5,
/// ECDSA by RFC 6979), so the same commit signed again after a crash has the same id.
#[derive(Clone)]
pub struct SshSigner {
    key: PrivateKey,
}

impl std::fmt::Debug for SshSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshSigner({})", self.fingerprint())
    }
}

impl SshSigner {
    /// Reads an OpenSSH private key; an encrypted one needs its passphrase.
    ///
    /// Errors: `signature.key`, `signature.passphrase`.
    pub fn from_openssh(pem: &SecretString, passphrase: Option<&SecretString>) -> Result<Self> {
        let unreadable = || {
            Problem::new(
                "signature.key",
                "The private ssh key cannot be read.",
                "Give an OpenSSH private key (ed25519, RSA or P-256), as made by `ssh-keygen -t ed25519`.",
            )
        };
        let text = format!("{}\n", pem.expose_secret().trim());
        let key = PrivateKey::from_openssh(text).map_err(|_| unreadable())?;
        if !key.is_encrypted() {
            return Ok(Self { key });
        }
        let wrong = || {
            Problem::new(
                "signature.passphrase",
                "The private ssh key needs its passphrase.",
                "Give the right passphrase.",
            )
        };
        let key = key.decrypt(passphrase.ok_or_else(wrong)?.expose_secret()).map_err(|_| wrong())?;
        Ok(Self { key })
    }

    /// Detached, armored signature (SHA-512) over `bytes`.
    ///
    /// Errors: `signature.key`, where the kind of key cannot sign.
    pub fn sign(&self, namespace: &str, bytes: &[u8]) -> Result<String> {
        let failed = |_| Problem::new("signature.key", "This kind of ssh key cannot sign here.", "Use an ed25519 key.");
        self.key.sign(namespace, HashAlg::Sha512, bytes).map_err(failed)?.to_pem(LineEnding::LF).map_err(failed)
    }

    /// Public key as one line (`ssh-ed25519 AAAA…`), without comment.
    pub fn public_key(&self) -> String {
        PublicKey::new(self.key.public_key().key_data().clone(), "").to_openssh().unwrap_or_default()
    }

    /// `SHA256:…` of the public key.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }
}

/// Checks an armored signature over `bytes`; gives the index of the key in `public_keys` that made it.
///
/// Errors: `signature.malformed` (also a key line that cannot be read), `signature.namespace`,
/// `signature.unknown_key`, `signature.invalid`. No keys: always an error.
pub fn verify<K: AsRef<str>>(namespace: &str, bytes: &[u8], armored: &str, public_keys: &[K]) -> Result<usize> {
    let next = "Sign again with a key that the configuration lists.";
    let malformed = || Problem::new("signature.malformed", "The signature cannot be read.", next).never();
    let sig = SshSig::from_pem(format!("{}\n", armored.trim())).map_err(|_| malformed())?;
    // The reader tolerates odd versions and lengths; one signature has one spelling here.
    if sig.version() != SshSig::VERSION || !sig.to_pem(LineEnding::LF).is_ok_and(|again| same_text(&again, armored)) {
        return Err(malformed());
    }
    if sig.namespace() != namespace {
        return Err(Problem::new("signature.namespace", "The signature was made for another purpose.", next)
            .never()
            .with(format!("expected: {namespace}")));
    }
    for (index, line) in public_keys.iter().enumerate() {
        let key = parse_public(line.as_ref(), index)?;
        if key.key_data() == sig.public_key() {
            return key.verify(namespace, bytes, &sig).map(|()| index).map_err(|_| {
                Problem::new("signature.invalid", "The signature does not fit the content.", next).never()
            });
        }
    }
    let made_by = PublicKey::new(sig.public_key().clone(), "").fingerprint(HashAlg::Sha256);
    Err(Problem::new("signature.unknown_key", "The signature was made by a key that is not listed.", next)
        .never()
        .with(format!("key: {made_by}")))
}

fn same_text(a: &str, b: &str) -> bool {
    let letters = |s: &str| s.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
    letters(a) == letters(b)
}

/// `SHA256:…` of a public key line.
///
/// Errors: `signature.malformed`.
pub fn fingerprint(public_key: &str) -> Result<String> {
    Ok(parse_public(public_key, 0)?.fingerprint(HashAlg::Sha256).to_string())
}

fn parse_public(line: &str, index: usize) -> Result<PublicKey> {
    PublicKey::from_openssh(line.trim()).map_err(|_| {
        Problem::new(
            "signature.malformed",
            format!("Public key number {} cannot be read.", index + 1),
            "Write keys as `ssh-ed25519 AAAA…`.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::tests::key_pem;

    fn signer(seed: u8) -> SshSigner {
        SshSigner::from_openssh(&key_pem(seed), None).unwrap()
    }

    #[test]
    fn a_signature_names_its_key_and_fits_one_content_and_one_purpose() {
        let (one, two) = (signer(1), signer(2));
        let keys = [one.public_key(), format!("{} ann@example.com", two.public_key())];
        let sig = two.sign(NAMESPACE_APPROVAL, b"digest").unwrap();
        assert_eq!(verify(NAMESPACE_APPROVAL, b"digest", &sig, &keys).unwrap(), 1);
        assert_eq!(sig, two.sign(NAMESPACE_APPROVAL, b"digest").unwrap(), "deterministic");
        let code = |n: &str, b: &[u8], s: &str, k: &[String]| verify(n, b, s, k).unwrap_err().code;
        assert_eq!(code(NAMESPACE_APPROVAL, b"Digest", &sig, &keys), "signature.invalid");
        assert_eq!(code(NAMESPACE_CHECKPOINT, b"digest", &sig, &keys), "signature.namespace");
        assert_eq!(code(NAMESPACE_APPROVAL, b"digest", &sig, &keys[..1]), "signature.unknown_key");
        assert_eq!(code(NAMESPACE_APPROVAL, b"digest", &sig, &[]), "signature.unknown_key");
        assert_eq!(code(NAMESPACE_APPROVAL, b"digest", "junk", &keys), "signature.malformed");
        assert_eq!(code(NAMESPACE_APPROVAL, b"digest", &sig, &["junk".into()]), "signature.malformed");
    }

    #[test]
    fn every_bit_of_a_signature_counts() {
        let key = signer(3);
        let keys = [key.public_key()];
        let sig = key.sign(NAMESPACE_APPROVAL, b"digest").unwrap();
        let body: Vec<usize> = sig.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(i, _)| i).collect();
        for at in body {
            let mut bytes = sig.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(
                verify(NAMESPACE_APPROVAL, b"digest", &String::from_utf8(bytes).unwrap(), &keys).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn ssh_keygen_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let key = signer(4);
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let allowed = file("allowed", &format!("ann@example.com {}\n", key.public_key()));
        let theirs = {
            let private = file("key", secrecy::ExposeSecret::expose_secret(&key_pem(4)));
            std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let data = file("theirs", "digest");
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-Y", "sign", "-n", NAMESPACE_APPROVAL, "-f"])
                .arg(private)
                .arg(data)
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            std::fs::read_to_string(dir.path().join("theirs.sig")).unwrap()
        };
        assert_eq!(verify(NAMESPACE_APPROVAL, b"digest", &theirs, &[key.public_key()]).unwrap(), 0);
        let sig = file("sig", &key.sign(NAMESPACE_APPROVAL, b"digest").unwrap());
        let input = std::fs::File::open(file("data", "digest")).unwrap();
        let status = std::process::Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "ann@example.com", "-n", NAMESPACE_APPROVAL, "-f"])
            .arg(allowed)
            .arg("-s")
            .arg(sig)
            .stdin(input)
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    }

    #[test]
    fn an_encrypted_key_needs_its_passphrase_and_debug_shows_no_key() {
        use secrecy::ExposeSecret as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "correct horse", "-f"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        let pem: SecretString = std::fs::read_to_string(&path).unwrap().into();
        let code = |p: Option<&str>| {
            SshSigner::from_openssh(&pem, p.map(|p| p.to_owned().into()).as_ref())
                .map(|_| ())
                .map_err(|e| e.code.into_owned())
        };
        assert_eq!(code(None).unwrap_err(), "signature.passphrase");
        assert_eq!(code(Some("wrong")).unwrap_err(), "signature.passphrase");
        assert!(code(Some("correct horse")).is_ok());
        assert_eq!(SshSigner::from_openssh(&"x".to_owned().into(), None).unwrap_err().code, "signature.key");
        let shown = format!("{:?}", signer(5));
        assert!(shown.starts_with("SshSigner(SHA256:") && !shown.contains(key_pem(5).expose_secret()));
    }
}
