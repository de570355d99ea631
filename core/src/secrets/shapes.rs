//! Shapes of known tokens, and entropy for the rest.

use std::sync::LazyLock;

use regex::Regex;

/// Regex and what it finds. The first group, where there is one, is the secret part.
static KNOWN: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"\bgh[pousr]_[A-Za-z0-9]{30,255}\b", "GitHub token"),
        (r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b", "GitHub token"),
        (r"\bgl(?:pat|dt|rt|ptt|ft|soat|cbt|agent|imt)-[A-Za-z0-9_\-]{20,}", "GitLab token"),
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b", "AWS key id"),
        (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", "Slack token"),
        (r"\bxapp-[0-9]-[A-Za-z0-9-]{10,}", "Slack token"),
        (r"hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9_/]{20,})", "Slack webhook"),
        (r"discord(?:app)?\.com/api/webhooks/\d+/([A-Za-z0-9_\-]{30,})", "Discord webhook"),
        (r"\b[0-9]{6,12}:[A-Za-z0-9_\-]{35}\b", "Telegram bot token"),
        (r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*", "JWT"),
        (r"\bsk-[A-Za-z0-9_\-]{20,}", "API key"),
        (r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", "Stripe key"),
        (r"\bwhsec_[A-Za-z0-9+/=]{16,}", "webhook secret"),
        (r"\bAIza[0-9A-Za-z_\-]{35}", "Google key"),
        (r"\bya29\.[0-9A-Za-z_\-]{20,}", "Google token"),
        (r"\bGOCSPX-[0-9A-Za-z_\-]{20,}", "Google secret"),
        (r"\bSG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}", "SendGrid key"),
        (r"\bnpm_[A-Za-z0-9]{36}\b", "npm token"),
        (r"\bpypi-[A-Za-z0-9_\-]{40,}", "PyPI token"),
        (r"\bhv[sbr]\.[A-Za-z0-9_\-]{20,}", "Vault token"),
        (r"\bdo[opr]_v1_[a-f0-9]{64}\b", "DigitalOcean token"),
        (r"\bdckr_pat_[A-Za-z0-9_\-]{20,}", "Docker token"),
        (r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,}", "age key"),
        (r"\bsqp_[a-f0-9]{40}\b", "SonarQube token"),
        (r"\bglsa_[A-Za-z0-9]{32}_[a-f0-9]{8}\b", "Grafana token"),
        (r"(?s)-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\z)", "private key"),
        (r"[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s/:@\x22']*:([^\s/@\x22'$\{\[][^\s/@\x22']*)@", "password in a URL"),
        (r"(?i)\b(?:bearer|basic)[ ]+([A-Za-z0-9+/_\-.=]{16,})", "authorization header"),
        (r"(?i)AccountKey=([A-Za-z0-9+/=]{20,})", "storage key"),
        (r"(?i)[;?&](?:password|pwd|sig|token|access_token|api_key)=([^;&\s\x22'$\{\[][^;&\s\x22']*)", "password in a connection string"),
    ]
    .into_iter()
    .filter_map(|(r, why)| Some((Regex::new(r).ok()?, why)))
    .collect()
});

/// Byte ranges of known tokens in `s`.
pub(super) fn known(s: &str) -> Vec<(usize, usize, &'static str)> {
    let mut out = Vec::new();
    for (re, why) in KNOWN.iter() {
        for c in re.captures_iter(s) {
            if let Some(m) = c.get(1).or_else(|| c.get(0)) {
                out.push((m.start(), m.end(), *why));
            }
        }
    }
    out
}

/// How many of the expressions compiled; a test compares it with the table.
#[cfg(test)]
pub(super) fn expressions() -> usize {
    KNOWN.len()
}

/// Whether a string is so random that nothing but a secret explains it.
pub(super) fn random(s: &str) -> bool {
    let n = s.len();
    if !(20..=512).contains(&n) || hash_like(s) {
        return false;
    }
    let token = s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'_' | b'-'));
    let upper = s.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = s.bytes().filter(u8::is_ascii_lowercase).count();
    let digit = s.bytes().filter(u8::is_ascii_digit).count();
    if !token || upper < 2 || lower < 2 || digit < 2 || path_like(s) {
        return false;
    }
    if let Some(text) = super::decode::base64_text(s) {
        // Readable text is judged by what it says, not by how its encoding looks.
        return !known(&text).is_empty();
    }
    entropy(s) >= if n >= 32 { 4.0 } else { 3.6 }
}

/// Hex digests, UUIDs, `sha256:…`, subresource integrity.
pub(super) fn hash_like(s: &str) -> bool {
    let s = s.trim();
    let body = ["sha256:", "sha512:", "sha1:", "md5:", "sha256-", "sha384-", "sha512-", "h1:"]
        .iter()
        .find_map(|p| s.strip_prefix(p));
    if body.is_some() {
        return true;
    }
    s.len() >= 7 && s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// `/var/run/secrets/token`, `team/app/config`: words with slashes.
pub(super) fn path_like(s: &str) -> bool {
    let parts: Vec<&str> = s.split('/').filter(|p| !p.is_empty()).collect();
    s.contains('/')
        && parts.iter().all(|p| {
            let digits = p.bytes().filter(u8::is_ascii_digit).count();
            let upper = p.bytes().filter(u8::is_ascii_uppercase).count();
            p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'$' | b'{' | b'}' | b'~'))
                && (digits * 3 <= p.len() || p.len() <= 4)
                && (upper * 3 <= p.len() || p.len() <= 12)
                && !(p.len() > 24 && digits > 2 && upper > 2)
        })
}

/// Shannon entropy in bits per character.
fn entropy(s: &str) -> f64 {
    let mut counts = [0u32; 256];
    for b in s.bytes() {
        if let Some(c) = counts.get_mut(usize::from(b)) {
            *c += 1;
        }
    }
    let n = f64::from(u32::try_from(s.len()).unwrap_or(u32::MAX));
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n).map(|p| -p * p.log2()).sum()
}
