//! Credentials of one repository, as its caller read them when it opened the repository.

use secrecy::{ExposeSecret as _, SecretString};

/// What a repository is reached with. `Debug` shows no value.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Private ssh key, OpenSSH format, without passphrase.
    pub ssh_key_pem: Option<SecretString>,
    /// known_hosts lines; ssh without them is refused.
    pub known_hosts: Option<String>,
    /// User of https; default `git`.
    pub username: Option<String>,
    /// Token or password of https.
    pub token: Option<SecretString>,
}

impl Credentials {
    /// Replaces every secret that stands in `text`.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in [&self.token, &self.ssh_key_pem].into_iter().flatten() {
            let value = secret.expose_secret();
            if value.len() >= 4 {
                out = out.replace(value, "[redacted]");
            }
        }
        out
    }
}
