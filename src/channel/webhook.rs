//! A webhook, as an edge: posts one event, signed. What is sent and when is decided elsewhere.
//!
//! The receiver checks `Countersign-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of `SECONDS.BODY`
//! under the shared secret, refuses old times, and drops an event whose id (`Countersign-Event`) it has seen:
//! delivery is at least once.

use std::time::Duration;

use countersign_core::error::{Problem, Result};
use countersign_core::model::hex;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// Header with time and signature.
pub const SIGNATURE: &str = "countersign-signature";
/// Header with the event's id.
pub const EVENT: &str = "countersign-event";
/// How long one delivery may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One address.
#[derive(Clone)]
pub struct Webhook {
    client: reqwest::Client,
    url: reqwest::Url,
    secret: SecretString,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may hold a token of its own.
        f.debug_struct("Webhook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// What the header says about a body at a time (seconds since the epoch).
pub fn signature(secret: &SecretString, at: i64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else { return String::new() };
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    format!("t={at},v1={}", hex(&mac.finalize().into_bytes()))
}

impl Webhook {
    /// An address with its secret.
    ///
    /// # Errors
    /// `webhook.bad_url` unless it is https, or http on loopback; `webhook.weak_secret` below 16 characters;
    /// `webhook.client` (the TLS roots cannot be loaded).
    pub fn new(url: &str, secret: SecretString) -> Result<Self> {
        let parsed = reqwest::Url::parse(url).ok().filter(|u| match u.scheme() {
            "https" => u.has_host(),
            "http" => matches!(u.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")),
            _ => false,
        });
        let Some(url) = parsed else {
            return Err(Problem::new(
                "webhook.bad_url",
                "The webhook's `url` is not an https address (or http on loopback).",
                "Give the whole address; events name resources and people, so they never go in the clear.",
            ));
        };
        if secret.expose_secret().len() < 16 {
            return Err(Problem::new(
                "webhook.weak_secret",
                "The webhook's secret has fewer than 16 characters.",
                "Make one with `openssl rand -hex 32` and give it to the receiver too.",
            ));
        }
        // A redirect would carry events to another host.
        let client = crate::https::client()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(TIMEOUT)
            .build();
        let client = client.map_err(|e| {
            Problem::new(
                "webhook.client",
                "The HTTP client for the webhook cannot be made.",
                "Check the system's root certificates.",
            )
            .with(e.without_url().to_string())
        })?;
        Ok(Self { client, url, secret })
    }

    /// Posts one event. Whatever is not a success may be sent again.
    ///
    /// # Errors
    /// `webhook.refused` (any status but 2xx) and `webhook.unreachable`; both pass.
    pub async fn send(&self, event_id: &str, at: i64, body: String) -> Result<()> {
        let request = self
            .client
            .post(self.url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header(EVENT, event_id)
            .header(SIGNATURE, signature(&self.secret, at, body.as_bytes()))
            .body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Problem::new(
                "webhook.refused",
                format!("The webhook answered {}.", answer.status().as_u16()),
                "Look at the receiver; the event is sent again until it is taken.",
            )
            .later()),
            Err(e) => Err(Problem::new(
                "webhook.unreachable",
                "The webhook cannot be reached.",
                "Check the address and the receiver; the event is sent again until it is taken.",
            )
            .later()
            .with(e.without_url().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_documented_one() {
        // `printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef`
        let secret = SecretString::from("0123456789abcdef");
        let expected = "e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        assert_eq!(signature(&secret, 1_700_000_000, b"{}"), format!("t=1700000000,v1={expected}"));
        assert_ne!(signature(&secret, 1_700_000_001, b"{}"), signature(&secret, 1_700_000_000, b"{}"));
    }

    #[test]
    fn events_never_go_in_the_clear_and_the_secret_is_one() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let code =
            |url: &str, secret: &str| Webhook::new(url, SecretString::from(secret)).err().map(|p| p.code.to_string());
        let good = "0123456789abcdef";
        assert_eq!(code("https://siem.example/x", good), None);
        assert_eq!(code("http://127.0.0.1:9/x", good), None);
        for bad in ["http://siem.example/x", "ftp://siem.example", "siem.example", ""] {
            assert_eq!(code(bad, good).as_deref(), Some("webhook.bad_url"), "{bad}");
        }
        assert_eq!(code("https://siem.example/x", "short").as_deref(), Some("webhook.weak_secret"));
        let hook = Webhook::new("https://siem.example/token-in-path", SecretString::from(good)).unwrap();
        let shown = format!("{hook:?}");
        assert!(!shown.contains(good) && !shown.contains("token-in-path"), "{shown}");
    }
}
