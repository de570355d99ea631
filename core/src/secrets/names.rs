//! What a field's name says about its value.

/// How much a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hint {
    /// Nothing.
    None,
    /// It is some key: the value decides.
    Weak,
    /// It holds a secret.
    Strong,
}

/// Words that end a name which only points at a secret or describes one.
const POINTERS: [&str; 52] = [
    "ref",
    "refs",
    "name",
    "names",
    "namespace",
    "path",
    "paths",
    "file",
    "files",
    "dir",
    "directory",
    "url",
    "uri",
    "endpoint",
    "host",
    "hostname",
    "port",
    "ttl",
    "expiry",
    "expiration",
    "expires",
    "timeout",
    "seconds",
    "minutes",
    "hours",
    "days",
    "length",
    "size",
    "policy",
    "rotation",
    "interval",
    "version",
    "type",
    "kind",
    "enabled",
    "disabled",
    "count",
    "class",
    "provider",
    "issuer",
    "audience",
    "audiences",
    "algorithm",
    "alg",
    "format",
    "header",
    "prefix",
    "suffix",
    "mount",
    "volume",
    "store",
    "template",
];

const STRONG: [&str; 20] = [
    "password",
    "passwd",
    "passwort",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "token",
    "tokens",
    "credential",
    "credentials",
    "creds",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "dockerconfigjson",
    "authtoken",
    "htpasswd",
];

/// Two words that together name a secret.
const PAIRS: [(&str, &str); 24] = [
    ("api", "key"),
    ("access", "key"),
    ("secret", "key"),
    ("private", "key"),
    ("signing", "key"),
    ("encryption", "key"),
    ("master", "key"),
    ("auth", "key"),
    ("shared", "key"),
    ("account", "key"),
    ("client", "secret"),
    ("connection", "string"),
    ("license", "key"),
    ("licence", "key"),
    ("app", "key"),
    ("service", "key"),
    ("root", "pass"),
    ("db", "pass"),
    ("user", "pass"),
    ("smtp", "pass"),
    ("redis", "pass"),
    ("mysql", "pass"),
    ("bearer", "auth"),
    ("basic", "auth"),
];

/// Judges a field, variable or flag name.
pub(super) fn hint(name: &str) -> Hint {
    let words = words(name);
    let Some(last) = words.last().map(String::as_str) else { return Hint::None };
    let first = words.first().map_or("", String::as_str);
    if POINTERS.contains(&last)
        || matches!(first, "existing" | "automount")
        || (last == "id" && !words.iter().any(|w| w == "password"))
    {
        return Hint::None;
    }
    // `passwordKey`, `tokenSecret`, `passwordSecretKey` name the entry of a Secret, not its value.
    let starts_pointer =
        matches!(first, "password" | "token" | "user" | "username" | "admin" | "root" | "existing") && words.len() > 1;
    let names_entry = (last == "key" || last == "secret")
        && words.iter().any(|w| matches!(w.as_str(), "password" | "token" | "username"));
    if starts_pointer && names_entry {
        return Hint::Weak;
    }
    let strong = words.iter().any(|w| STRONG.iter().any(|s| w.ends_with(s)))
        || words.windows(2).any(|w| matches!(w, [a, b] if PAIRS.contains(&(a.as_str(), b.as_str()))))
        || matches!(last, "pass" | "jwt" | "pat" | "dsn" | "authorization" | "bearer" | "pin" | "salt" | "pw");
    if strong {
        Hint::Strong
    } else if matches!(last, "key" | "auth" | "cookie" | "session" | "signature" | "seed" | "cert") {
        Hint::Weak
    } else {
        Hint::None
    }
}

/// Whether a name says that hash-like values are expected there.
pub(super) fn names_hash(name: &str) -> bool {
    words(name).iter().any(|w| {
        matches!(
            w.as_str(),
            "checksum"
                | "hash"
                | "sha"
                | "sha1"
                | "sha256"
                | "sha512"
                | "md5"
                | "digest"
                | "revision"
                | "uid"
                | "uuid"
                | "etag"
                | "commit"
                | "integrity"
                | "fingerprint"
                | "bundle"
                | "icon"
                | "image"
                | "images"
                | "certificate"
                | "crt"
                | "thumbprint"
                | "nonce"
        )
    })
}

/// Words of a camelCase, snake_case, kebab-case or dotted name, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut before_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            if !word.is_empty() {
                out.push(std::mem::take(&mut word));
            }
            before_lower = false;
            continue;
        }
        if c.is_uppercase() && before_lower && !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
        before_lower = c.is_lowercase() || c.is_numeric();
        word.extend(c.to_lowercase());
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// Whether a value can be a secret at all: references, templates and switches cannot.
pub(super) fn plausible(value: &str) -> bool {
    let v = value.trim();
    let lower = v.to_ascii_lowercase();
    let word = matches!(
        lower.as_str(),
        "" | "true"
            | "false"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "null"
            | "none"
            | "nil"
            | "~"
            | "{}"
            | "[]"
            | "\"\""
            | "''"
            | "|"
            | ">"
            | "|-"
            | ">-"
            | "redacted"
    );
    let template = (v.starts_with("${") && v.ends_with('}'))
        || (v.starts_with("$(") && v.ends_with(')'))
        || (v.starts_with("{{") && v.ends_with("}}"))
        || (v.starts_with('<') && v.ends_with('>'))
        || (v.starts_with("ENC[") && v.ends_with(']'))
        || super::text::is_mark(v);
    let reference = [
        "vault:",
        "ref+",
        "secretref:",
        "arn:aws:secretsmanager:",
        "arn:aws:ssm:",
        "op://",
        "env:",
        "file:",
        "gcpsm://",
        "awssm://",
        "azurekv://",
    ]
    .iter()
    .any(|p| lower.starts_with(p));
    let path = (v.starts_with('/') || v.starts_with("./"))
        && v.len() > 1
        && !v.contains(char::is_whitespace)
        && super::shapes::path_like(v);
    let stars = v.chars().all(|c| matches!(c, '*' | 'x' | 'X' | '.' | '-' | '_'));
    !(word || template || reference || path || stars)
}
