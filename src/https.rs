//! The HTTP client that every edge begins with. The system's root certificates are read once for the whole process:
//! each store of them is some hundreds of KiB, and is parsed for milliseconds.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};

static TLS: OnceLock<Option<ClientConfig>> = OnceLock::new();

/// A client that trusts the root certificates of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR`, where they are set, in
/// their place) and no others. Where there are none, only what is sent in the clear gets through.
pub fn client() -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder();
    match TLS.get_or_init(tls) {
        Some(config) => builder.use_preconfigured_tls(config.clone()),
        None => builder,
    }
}

fn tls() -> Option<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores hold old certificates that nobody can read any more: the others count.
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        tracing::warn!(errors = ?found.errors, "the system has no root certificates: no https address can be reached");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(config)
}

#[cfg(test)]
mod tests {
    /// A configuration that reqwest does not take would be an error of every client that is built.
    #[test]
    fn clients_are_built_with_it() {
        assert!(super::TLS.get_or_init(super::tls).is_some());
        assert!(super::client().build().is_ok());
    }
}
