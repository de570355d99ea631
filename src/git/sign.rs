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
        let wrong = || Problem::new("signature.passphrase", "The private ssh key needs its passphrase.", "Give the right passphrase.");
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
    let sig = SshSig::from_pem(format!("{}\n", armored.trim()))
        .map_err(|_| Problem::new("signature.malformed", "The signature cannot be read.", next).never())?;
    if sig.namespace() != namespace {
        return Err(Problem::new("signature.namespace", "The signature was made for another purpose.", next)
            .never()
            .with(format!("expected: {namespace}")));
    }
    for (index, line) in public_keys.iter().enumerate() {
        let key = parse_public(line.as_ref(), index)?;
        if key.key_data() == sig.public_key() {
            return key
                .verify(namespace, bytes, &sig)
                .map(|()| index)
                .map_err(|_| Problem::new("signature.invalid", "The signature does not fit the content.", next).never());
        }
    }
    let made_by = PublicKey::new(sig.public_key().clone(), "").fingerprint(HashAlg::Sha256);
    Err(Problem::new("signature.unknown_key", "The signature was made by a key that is not listed.", next).never().with(format!("key: {made_by}")))
}

/// `SHA256:…` of a public key line.
///
/// Errors: `signature.malformed`.
pub fn fingerprint(public_key: &str) -> Result<String> {
    Ok(parse_public(public_key, 0)?.fingerprint(HashAlg::Sha256).to_string())
}

fn parse_public(line: &str, index: usize) -> Result<PublicKey> {
    PublicKey::from_openssh(line.trim()).map_err(|_| {
        Problem::new("signature.malformed", format!("Public key number {} cannot be read.", index + 1), "Write keys as `ssh-ed25519 AAAA…`.")
    })
}
