//! Secrets in parsed manifests.

use serde_json::{Map, Value};

use super::names::{Hint, hint, names_hash, plausible};
use super::text::{by_name, is_mark, scan_text};
use super::{decode, shapes};
use crate::model::LeafChange;

/// One secret leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// JSON pointer from the object's root, list items by index.
    pub pointer: String,
    /// Why it is one.
    pub why: &'static str,
    /// The whole leaf is the secret; otherwise a part of its text is.
    pub whole: bool,
}

/// Every secret leaf of an object, or of the objects in a List.
pub fn scan_object(v: &Value) -> Vec<Finding> {
    let mut w = Walk { sops: v.pointer("/sops/mac").is_some(), out: Vec::new() };
    w.object(v, "");
    w.out.sort_by(|a, b| a.pointer.cmp(&b.pointer).then(b.whole.cmp(&a.whole)));
    w.out.dedup_by(|b, a| a.pointer == b.pointer);
    w.out
}

/// Changed leaves that hold a secret, before or after. Pointers are the leaves' own.
pub fn scan_leaves(leaves: &[LeafChange]) -> Vec<Finding> {
    let mut out = Vec::new();
    for l in leaves {
        let sides: Vec<&Value> = l.before.iter().chain(l.after.iter()).collect();
        let secret_kind = l.object.kind == "Secret" && l.object.group.is_empty();
        let data = l.pointer.starts_with("/data") || l.pointer.starts_with("/stringData") || l.pointer.is_empty();
        if secret_kind && data && sides.iter().any(|v| !encrypted(v) && !v.as_str().is_some_and(is_mark)) {
            out.push(Finding { pointer: l.pointer.clone(), why: "data of a Secret", whole: true });
            continue;
        }
        for v in sides {
            let mut w = Walk { sops: false, out: Vec::new() };
            let parts: Vec<String> = l.pointer.split('/').skip(1).map(unescape).collect();
            w.leaf_in_context(&parts, v);
            out.extend(w.out.into_iter().map(|f| Finding { pointer: format!("{}{}", l.pointer, f.pointer), ..f }));
        }
    }
    out.sort_by(|a, b| a.pointer.cmp(&b.pointer).then(b.whole.cmp(&a.whole)));
    out.dedup_by(|b, a| a.pointer == b.pointer);
    out
}

/// The secret values of an object, for replacing them in a text made from it. Longest first.
pub fn secret_values(v: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for f in scan_object(v) {
        let Some(leaf) = v.pointer(&f.pointer) else { continue };
        let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
        if f.whole {
            // A block scalar stands indented in its file: each of its lines is a secret by itself.
            out.extend(text.lines().map(|l| l.trim().to_owned()));
            out.extend(decode::base64_text(&text));
            if let Ok(inner @ Value::Object(_)) = serde_json::from_str(&text) {
                out.extend(secret_values(&inner));
            }
            if let Some((_, value)) = text.split_once('=').filter(|_| f.pointer.contains("/literals/")) {
                out.push(value.to_owned());
            }
            out.push(text);
        } else {
            out.extend(scan_text(&text).into_iter().filter_map(|s| text.get(s.start..s.end).map(str::to_owned)));
        }
    }
    out.retain(|s| s.chars().count() >= 3);
    out.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    out.dedup();
    out
}

/// `ENC[AES256_GCM,…]`: a leaf that SOPS encrypted.
fn encrypted(v: &Value) -> bool {
    v.as_str().is_some_and(|s| s.starts_with("ENC[") && s.ends_with(']'))
}

fn unescape(p: &str) -> String {
    p.replace("~1", "/").replace("~0", "~")
}

fn child(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

struct Walk {
    sops: bool,
    out: Vec<Finding>,
}

impl Walk {
    fn found(&mut self, pointer: String, why: &'static str, whole: bool) {
        self.out.push(Finding { pointer, why, whole });
    }

    fn object(&mut self, v: &Value, at: &str) {
        let text = |k: &str| v.get(k).and_then(Value::as_str).unwrap_or_default();
        let (kind, version) = (text("kind"), text("apiVersion"));
        let sops = std::mem::replace(&mut self.sops, v.pointer("/sops/mac").is_some());
        if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), v.get("items")) {
            for (i, item) in items.iter().enumerate() {
                self.object(item, &format!("{at}/items/{i}"));
            }
        } else if kind == "Secret" && !version.contains('/') {
            self.secret(v, at);
        } else {
            self.walk(v, at, "");
        }
        self.sops = sops;
    }

    fn secret(&mut self, v: &Value, at: &str) {
        let Some(map) = v.as_object() else { return };
        for (k, v) in map {
            let at = child(at, k);
            match (k.as_str(), v) {
                ("data" | "stringData", v) => self.all_leaves(v, &at),
                ("sops", _) if self.sops => {}
                (k, v) => self.walk(v, &at, k),
            }
        }
    }

    fn all_leaves(&mut self, v: &Value, at: &str) {
        match v {
            Value::Object(m) => m.iter().for_each(|(k, v)| self.all_leaves(v, &child(at, k))),
            Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| self.all_leaves(v, &format!("{at}/{i}"))),
            Value::Null => {}
            Value::String(s) if s.is_empty() || is_mark(s) => {}
            v if self.sops && encrypted(v) => {}
            _ => self.found(at.to_owned(), "data of a Secret", true),
        }
    }

    fn walk(&mut self, v: &Value, at: &str, key: &str) {
        match v {
            Value::Object(m) => self.map(m, at),
            Value::Array(a) => self.list(a, at, key),
            leaf => self.leaf(leaf, at, key),
        }
    }

    fn map(&mut self, m: &Map<String, Value>, at: &str) {
        let named = ["name", "key"].iter().find_map(|k| m.get(*k).and_then(Value::as_str));
        for (k, v) in m {
            let at = child(at, k);
            match (k.as_str(), named) {
                ("value" | "literal", Some(name)) if !v.is_object() && !v.is_array() => self.leaf(v, &at, name),
                (
                    "encryptedData" | "secretKeyRef" | "remoteRef" | "secretStoreRef" | "secretRef" | "configMapKeyRef",
                    _,
                ) => {}
                ("sops", _) if self.sops => {}
                // In an ExternalSecret it names the entry of the Secret that is made.
                ("secretKey", _) if m.contains_key("remoteRef") || m.contains_key("sourceRef") => {}
                ("secretGenerator", _) => self.generator(v, &at),
                ("manifest" | "object" | "template", _) if v.get("kind").is_some() => self.object(v, &at),
                _ if v.get("kind").and_then(Value::as_str) == Some("Secret") && v.get("apiVersion").is_some() => {
                    self.object(v, &at)
                }
                (k, _) => self.walk(v, &at, k),
            }
        }
    }

    /// Literals of a `secretGenerator` are secrets whatever they are called.
    fn generator(&mut self, v: &Value, at: &str) {
        for (i, g) in v.as_array().into_iter().flatten().enumerate() {
            for (j, l) in g.get("literals").and_then(Value::as_array).into_iter().flatten().enumerate() {
                if l.as_str().is_some_and(|s| {
                    !is_mark(s) && s.split_once('=').is_some_and(|(_, v)| !v.is_empty() && !encrypted(&Value::from(v)))
                }) {
                    self.found(format!("{at}/{i}/literals/{j}"), "literal of a secret generator", true);
                }
            }
        }
    }

    fn list(&mut self, a: &[Value], at: &str, key: &str) {
        let mut flag: Option<&str> = None;
        for (i, v) in a.iter().enumerate() {
            let at = format!("{at}/{i}");
            let Some(s) = v.as_str() else {
                flag = None;
                if v.get("kind").is_some() && v.get("apiVersion").is_some() {
                    self.object(v, &at);
                } else {
                    self.walk(v, &at, key);
                }
                continue;
            };
            if let Some(f) = flag.take()
                && !s.starts_with('-')
                && by_name(f, s)
            {
                self.found(at, "value of a flag", true);
                continue;
            }
            flag = s.strip_prefix('-').map(|f| f.trim_start_matches('-')).filter(|f| !f.contains(['=', ' ']));
            self.leaf(v, &at, if names_list_of_secrets(key) { key } else { "" });
        }
    }

    fn leaf(&mut self, v: &Value, at: &str, key: &str) {
        let s = match v {
            Value::String(s) => s,
            // Passwords of digits only are read as numbers.
            Value::Number(n) if hint(key) == Hint::Strong && password_word(key) => {
                if n.to_string().len() >= 4 {
                    self.found(at.to_owned(), "a secret's name", true);
                }
                return;
            }
            _ => return,
        };
        if s.is_empty() || (self.sops && encrypted(v)) {
            return;
        }
        if s.trim_start().starts_with(['{', '['])
            && let Ok(inner) = serde_json::from_str::<Value>(s)
            && (inner.is_object() || inner.is_array())
        {
            // Embedded JSON (`last-applied-configuration`, configuration files). Where the text
            // scanner sees fewer secrets than the structure has, all of it goes.
            let found = scan_object(&inner).len();
            if found > 0 {
                let whole = inner.get("kind").is_some() || found > scan_text(s).len();
                self.found(at.to_owned(), "embedded JSON with a secret", whole);
                return;
            }
        }
        let one_line = !s.trim_end().contains('\n');
        let named =
            if one_line { by_name(key, s) } else { hint(key) == Hint::Strong && !key.contains('.') && plausible(s) };
        let hash = names_hash(key) && shapes::known(s).is_empty();
        if named {
            self.found(at.to_owned(), "a secret's name", true);
        } else if !hash && !scan_text(s).is_empty() {
            self.found(at.to_owned(), "a secret inside the text", false);
        }
    }

    /// A changed leaf, with what its pointer says about it.
    fn leaf_in_context(&mut self, parts: &[String], v: &Value) {
        let last = parts.last().map_or("", String::as_str);
        let skip = ["encryptedData", "secretKeyRef", "remoteRef", "secretStoreRef", "secretRef", "configMapKeyRef"];
        if parts.iter().any(|p| skip.contains(&p.as_str())) {
            return;
        }
        let item = parts.iter().rev().nth(1).and_then(|p| p.strip_prefix("name="));
        let key = match (last, item) {
            ("value" | "literal", Some(name)) => name,
            _ if last.bytes().all(|b| b.is_ascii_digit()) => "",
            _ => last,
        };
        let generator = parts.iter().any(|p| p == "secretGenerator") && parts.iter().any(|p| p == "literals");
        if generator && v.is_string() {
            self.found(String::new(), "literal of a secret generator", true);
        } else {
            self.walk(v, "", key.strip_prefix("name=").unwrap_or(key));
        }
    }
}

fn password_word(key: &str) -> bool {
    let k = key.to_ascii_lowercase();
    ["password", "passwd", "pwd", "passphrase", "passcode", "pin"].iter().any(|w| k.contains(w))
}

/// `tokens: [a, b]`, but not `imagePullSecrets`, `resources: [secrets]`.
fn names_list_of_secrets(key: &str) -> bool {
    let k = key.to_ascii_lowercase();
    matches!(k.as_str(), "tokens" | "passwords" | "apikeys" | "api_keys" | "credentials")
}
