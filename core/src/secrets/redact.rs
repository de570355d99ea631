//! Replaces secrets by keyed marks, so that equal ones stay recognisable as equal.

use std::fmt;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::object::scan_object;
use super::text::scan_text;
use crate::model::hex;

/// The only way of text from manifests, engines and agents to people, forges, journals and logs.
#[derive(Clone)]
pub struct Redactor {
    key: [u8; 32],
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// A redactor with the installation's key (32 random bytes, kept beside the journal). With
    /// another key equal secrets get other marks.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// `[secret:1f9e03ab]` for a secret.
    pub fn mark(&self, secret: &str) -> String {
        let mac = hmac_sha256(&self.key, secret.as_bytes());
        format!("[secret:{}]", hex(mac.get(..4).unwrap_or(&mac)))
    }

    /// Text without its secrets.
    pub fn redact_text(&self, s: &str) -> String {
        let mut out = String::with_capacity(s.len());
        let mut at = 0;
        for span in scan_text(s) {
            out.push_str(s.get(at..span.start).unwrap_or_default());
            out.push_str(&self.mark(s.get(span.start..span.end).unwrap_or_default()));
            at = span.end;
        }
        out.push_str(s.get(at..).unwrap_or_default());
        out
    }

    /// The same for a text made from objects whose secret values are known (a diff of their files):
    /// give it [`super::secret_values`] of every object before and after.
    pub fn redact_knowing(&self, s: &str, values: &[String]) -> String {
        let mut sorted: Vec<&String> = values.iter().filter(|v| v.chars().count() >= 3).collect();
        sorted.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        sorted.dedup();
        let known = sorted.into_iter().fold(s.to_owned(), |t, v| replace_outside_marks(&t, v, &self.mark(v)));
        self.redact_text(&known)
    }

    /// An object without its secrets; keys and structure stay.
    pub fn redact_value(&self, v: &Value) -> Value {
        let mut out = v.clone();
        for f in scan_object(v) {
            let Some(leaf) = out.pointer_mut(&f.pointer) else { continue };
            let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
            *leaf = Value::String(if f.whole { self.mark(&text) } else { self.redact_text(&text) });
        }
        out
    }

    /// Both sides of a leaf without secrets; `secret` says that the leaf was found to be one.
    pub fn redact_leaf(&self, l: &crate::model::LeafChange) -> crate::model::LeafChange {
        let findings = super::scan_leaves(std::slice::from_ref(l));
        let side = |v: &Value| {
            let mut out = v.clone();
            for f in &findings {
                let inner = f.pointer.strip_prefix(&l.pointer).unwrap_or_default();
                let Some(leaf) = out.pointer_mut(inner) else { continue };
                let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
                *leaf = Value::String(if f.whole { self.mark(&text) } else { self.redact_text(&text) });
            }
            out
        };
        crate::model::LeafChange { before: l.before.as_ref().map(side), after: l.after.as_ref().map(side), ..l.clone() }
    }
}

/// Replaces `value`, but never inside a mark that stands there already.
fn replace_outside_marks(text: &str, value: &str, mark: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[secret:") {
        out.push_str(&before.replace(value, mark));
        out.push_str("[secret:");
        match after.split_once(']') {
            Some((inside, tail)) => {
                out.push_str(inside);
                out.push(']');
                rest = tail;
            }
            None => rest = after,
        }
    }
    out.push_str(&rest.replace(value, mark));
    out
}

/// HMAC (RFC 2104) over SHA-256, with a key shorter than a block.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |x: u8| {
        let mut block = [x; 64];
        for (b, k) in block.iter_mut().zip(key) {
            *b ^= k;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}
