use serde_json::{Value, json};

use super::*;
use crate::model::{LeafChange, ObjectKey};

/// Deterministic pseudo-random numbers (SplitMix64), so that a failing case can be found again.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
    fn chars(&mut self, alphabet: &str, n: usize) -> String {
        let a: Vec<char> = alphabet.chars().collect();
        (0..n).map(|_| a[self.below(a.len())]).collect()
    }
    fn alnum(&mut self, n: usize) -> String {
        self.chars("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", n)
    }
    fn hex(&mut self, n: usize) -> String {
        self.chars("0123456789abcdef", n)
    }
    /// What people use as passwords: words, words with digits, random strings.
    fn password(&mut self) -> String {
        let tail = self.below(10_000);
        match self.below(5) {
            0 => format!("{}{tail}", self.pick(&["hunter", "dragon", "Sommer", "letmein", "welcome"])),
            1 => format!(
                "{}-{}-{}",
                self.pick(&["correct", "blue"]),
                self.pick(&["horse", "whale"]),
                self.pick(&["battery", "staple"])
            ),
            2 => {
                let n = 8 + self.below(30);
                self.alnum(n)
            }
            3 => {
                let n = 12 + self.below(20);
                self.chars("abcdefghijkmnpqrstuvwxyz23456789!%&()*+,.;<=?^_~", n) + "k7"
            }
            _ => {
                let n = 32 + self.below(32);
                self.hex(n)
            }
        }
    }
    fn secret_name(&mut self) -> &'static str {
        self.pick(&[
            "DB_PASSWORD",
            "POSTGRES_PASSWORD",
            "API_KEY",
            "STRIPE_SECRET_KEY",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "JWT_SECRET",
            "redisPassword",
            "smtp.password",
            "clientSecret",
            "adminPassword",
            "rootPassword",
            "SESSION_SECRET",
            "authToken",
            "REDIS_PASS",
            "app.token",
            "encryption_key",
            "SLACK_BOT_TOKEN",
            "passphrase",
            "apiKey",
        ])
    }
    fn word(&mut self) -> &'static str {
        self.pick(&["shop", "checkout", "payments", "cart", "search", "gateway", "frontend", "ledger"])
    }
}

fn b64(s: &str) -> String {
    const A: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for c in s.as_bytes().chunks(3) {
        let n =
            (u32::from(c[0]) << 16) | (u32::from(*c.get(1).unwrap_or(&0)) << 8) | u32::from(*c.get(2).unwrap_or(&0));
        for i in 0..4 {
            out.push(if i <= c.len() { A[(n >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    out
}

fn token(r: &mut Rng) -> String {
    match r.below(9) {
        0 => format!("ghp_{}", r.alnum(36)),
        1 => format!("glpat-{}", r.alnum(20)),
        2 => format!("AKIA{}", r.chars("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        3 => format!("xoxb-{}-{}", r.chars("0123456789", 12), r.alnum(24)),
        4 => format!("{}:AA{}", r.chars("123456789", 9), r.alnum(33)),
        5 => format!("eyJhbGciOiJIUzI1NiJ9.eyJ{}.{}", r.alnum(30), r.alnum(43)),
        6 => format!("sk_live_{}", r.alnum(24)),
        7 => format!("hvs.{}", r.alnum(24)),
        _ => format!("npm_{}", r.alnum(36)),
    }
}

fn pem(r: &mut Rng, what: &str) -> String {
    format!("-----BEGIN {what}-----\n{}\n{}\n-----END {what}-----\n", r.alnum(64), r.alnum(64))
}

fn deployment(container: Value, r: &mut Rng) -> Value {
    let mut c = json!({"name": r.word(), "image": format!("reg.example/{}:1.{}", r.word(), r.below(90))});
    c.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": r.word(), "namespace": "shop"},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [c]}}}})
}

fn config_map(r: &mut Rng, key: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": r.word()}, "data": {key: value}})
}

fn secret(r: &mut Rng, labels: usize) -> (Value, String) {
    let p = r.password();
    let labels: serde_json::Map<String, Value> =
        (0..labels).map(|i| (format!("label-{i}"), json!(format!("value-{i}")))).collect();
    let key = r.secret_name();
    (
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": r.word(), "labels": labels}, "data": {key: b64(&p)}}),
        b64(&p),
    )
}

/// The 17 leaky shapes; the second part is what must not survive redaction.
fn leaky(shape: usize, r: &mut Rng) -> (Value, String) {
    let p = r.password();
    let n = r.secret_name();
    match shape {
        0 => secret(r, 0),
        1 => secret(r, 12),
        2 => {
            (json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {"whatever": p}}), p)
        }
        3 => (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {".env": format!("PORT=80\n{n}={p}\n")}}),
            p,
        ),
        4 => (deployment(json!({"env": [{"name": "PORT", "value": "80"}, {"name": n, "value": p}]}), r), p),
        5 => (
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "x"},
            "spec": {"source": {"helm": {"parameters": [{"name": format!("db.{n}"), "value": p}]}}}}),
            p,
        ),
        6 => (
            json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "secretGenerator": [{"name": "x", "literals": [format!("anything={p}")]}]}),
            p,
        ),
        7 => {
            let (s, v) = secret(r, 2);
            (
                json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "data": {}}, s]}),
                v,
            )
        }
        8 => {
            let t = token(r);
            (config_map(r, "settings", &t), t)
        }
        9 => {
            let v = format!("postgres://app:{}@db.shop.svc:5432/shop", r.alnum(12));
            let s = v[15..27].to_owned();
            (deployment(json!({"env": [{"name": "DATABASE", "value": v}]}), r), s)
        }
        10 => {
            let v = pem(r, r_pem(shape));
            let s = v.lines().nth(1).unwrap().to_owned();
            (config_map(r, "tls.txt", &v), s)
        }
        11 => (
            deployment(
                json!({"args": ["--port=80", format!("--{}={p}", n.to_lowercase().replace(['_', '.'], "-"))]}),
                r,
            ),
            p,
        ),
        12 => {
            let p = r.alnum(14);
            (
                deployment(
                    json!({"args": ["--port", "80", format!("--{}", n.to_lowercase().replace(['_', '.'], "-")), p]}),
                    r,
                ),
                p,
            )
        }
        13 => (
            json!({"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": {"name": "x"}, "spec": {"values": {"db": {"auth": {"user": "app", n: p}}}}}),
            p,
        ),
        14 => {
            let p = r.alnum(20);
            (config_map(r, "app.json", &json!({"port": 80, "db": {"user": "app", n: p}}).to_string()), p)
        }
        15 => {
            let (s, v) = secret(r, 1);
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": s.to_string()}}}),
                v,
            )
        }
        _ => {
            let p = r.alnum(16);
            (
                config_map(
                    r,
                    "application.properties",
                    &format!("server.port=80\nspring.datasource.password={p}\nlog.level=info\n"),
                ),
                p,
            )
        }
    }
}

fn r_pem(_: usize) -> &'static str {
    "RSA PRIVATE KEY"
}

/// The 12 benign shapes.
fn benign(shape: usize, r: &mut Rng) -> Value {
    match shape {
        0 => json!({"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": r.word()},
            "spec": {"encryptedData": {"password": format!("Ag{}==", r.alnum(300))}, "template": {"metadata": {"name": "x"}, "type": "Opaque"}}}),
        1 => {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": {"metadata": {"annotations": {
            "checksum/config": r.hex(64), "checksum/secret": r.hex(64), "config-hash": r.alnum(32)}}}}})
        }
        2 => deployment(json!({"image": format!("reg.example/a/b@sha256:{}", "0123456789abcdef".repeat(4))}), r),
        3 => deployment(
            json!({"env": [{"name": r.secret_name(), "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}],
            "envFrom": [{"secretRef": {"name": "app-secrets"}}]}),
            r,
        ),
        4 => {
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "x"}, "spec": {"source": {
            "repoURL": "https://git.example/team/deploy.git", "targetRevision": r.hex(40), "path": format!("apps/{}/overlays/prod", r.word())}}})
        }
        5 => {
            json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "x"}, "spec": {"refreshInterval": "1h",
            "secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"}, "target": {"name": "db-password", "creationPolicy": "Owner"},
            "data": [{"secretKey": "password", "remoteRef": {"key": format!("kv/{}/db", r.word()), "property": "password"}}]}})
        }
        6 => {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"password": format!("ENC[AES256_GCM,data:{},iv:{}=,tag:{}==,type:str]", r.alnum(12), r.alnum(43), r.alnum(22))},
            "sops": {"age": [{"recipient": format!("age1{}", r.chars("qpzry9x8gf2tvdw0s3jn54khce6mua7l", 58)), "enc": "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"}],
            "mac": format!("ENC[AES256_GCM,data:{},iv:{}=,tag:{}==,type:str]", r.alnum(80), r.alnum(43), r.alnum(22)), "version": "3.9.0"}})
        }
        7 => {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": r.word(), "uid": format!("{}-{}-4{}-a{}-{}", r.hex(8), r.hex(4), r.hex(3), r.hex(3), r.hex(12)),
            "resourceVersion": r.chars("0123456789", 9), "labels": {"pod-template-hash": r.hex(10), "app.kubernetes.io/instance": r.word()}}})
        }
        8 => {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "read-secrets"}, "rules": [{"apiGroups": [""], "resources": ["secrets", "configmaps", "serviceaccounts/token"], "verbs": ["get", "list"]}]})
        }
        9 => deployment(
            json!({"args": ["--token-file=/var/run/secrets/tokens/api", "--tls-private-key-file=/etc/tls/tls.key", "--password-file", "/run/pw",
            format!("--endpoint=https://{}.internal.example.com:8443/v1/api", r.word()), "--token-ttl=3600", "--secret-name=app"],
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            "env": [{"name": "TOKEN_URL", "value": "https://login.example/oauth/token"}, {"name": "PASSWORD_MIN_LENGTH", "value": "12"}, {"name": "SECRET_NAME", "value": "shop-secrets"}]}),
            r,
        ),
        10 => {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "x"},
            "webhooks": [{"clientConfig": {"caBundle": b64(&pem(r, "CERTIFICATE"))}}]})
        }
        _ => {
            json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "x"}, "spec": {"groups": [{"name": "auth", "rules": [{
            "alert": "TokenExpiresSoon", "expr": "sum(rate(http_requests_total{job=\"auth\",code=~\"5..\"}[5m])) > 0.05", "for": "10m",
            "annotations": {"summary": format!("The token of {} expires soon: rotate the password in Vault.", r.word()), "runbook_url": "https://runbooks.example/TokenExpiresSoon"}}]}]}})
        }
    }
}

#[test]
fn the_corpus_meets_recall_and_false_positive_bars() {
    let mut r = Rng(0x5eed);
    let (mut leaks, mut missed, mut survived) = (0u32, Vec::new(), Vec::new());
    let red = Redactor::new([7; 32]);
    for shape in 0..17 {
        for case in 0..200 {
            let (v, s) = leaky(shape, &mut r);
            leaks += 1;
            if scan_object(&v).is_empty() {
                missed.push((shape, case, v.to_string()));
            } else if red.redact_value(&v).to_string().contains(&s) {
                survived.push((shape, case, s, red.redact_value(&v).to_string()));
            }
        }
    }
    let (mut clean, mut flagged) = (0u32, Vec::new());
    for shape in 0..12 {
        for case in 0..100 {
            let v = benign(shape, &mut r);
            clean += 1;
            let f = scan_object(&v);
            if !f.is_empty() {
                flagged.push((shape, case, format!("{f:?}"), v.to_string()));
            }
        }
    }
    assert!(leaks + clean >= 3000);
    let recall = 1.0 - f64::from(u32::try_from(missed.len() + survived.len()).unwrap()) / f64::from(leaks);
    let wrong = f64::from(u32::try_from(flagged.len()).unwrap()) / f64::from(clean);
    let show = |v: &[String]| v.iter().take(6).cloned().collect::<Vec<_>>().join("\n");
    let m: Vec<String> = missed.iter().map(|x| format!("{x:?}")).collect();
    let s: Vec<String> = survived.iter().map(|x| format!("{x:?}")).collect();
    let f: Vec<String> = flagged.iter().map(|x| format!("{x:?}")).collect();
    assert!(recall >= 0.995, "recall {recall}, missed {}:\n{}\nsurvived {}:\n{}", m.len(), show(&m), s.len(), show(&s));
    assert!(wrong <= 0.01, "false positives {wrong}:\n{}", show(&f));
}

/// The same shapes as YAML-like text (one field a line), as a diff would show them.
fn as_text(v: &Value, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                member(k, v, &pad, depth, out);
            }
        }
        v => out.push_str(&format!("{pad}{v}\n")),
    }
}

fn member(k: &str, v: &Value, pad: &str, depth: usize, out: &mut String) {
    match v {
        Value::Object(_) => {
            out.push_str(&format!("{pad}{k}:\n"));
            as_text(v, depth + 1, out);
        }
        Value::Array(a) => {
            out.push_str(&format!("{pad}{k}:\n"));
            for item in a {
                let mut inner = String::new();
                as_text(item, depth + 1, &mut inner);
                let first = inner.trim_start().to_owned();
                out.push_str(&format!("{pad}- {first}"));
            }
        }
        Value::String(s) if s.trim_end().contains('\n') => {
            out.push_str(&format!("{pad}{k}: |\n"));
            s.lines().for_each(|l| out.push_str(&format!("{pad}  {l}\n")));
        }
        Value::String(s) if s.starts_with(|c: char| !c.is_alphanumeric()) || s.contains(['#', ':', '{', '"']) => {
            out.push_str(&format!("{pad}{k}: {}\n", serde_json::to_string(s).unwrap()));
        }
        Value::String(s) => out.push_str(&format!("{pad}{k}: {s}\n")),
        v => out.push_str(&format!("{pad}{k}: {v}\n")),
    }
}

#[test]
fn a_diff_of_a_leaky_file_shows_no_secret() {
    let mut r = Rng(42);
    let red = Redactor::new([7; 32]);
    let mut survived = Vec::new();
    for shape in 0..17 {
        for _ in 0..100 {
            let (v, s) = leaky(shape, &mut r);
            let mut text = String::new();
            as_text(&v, 0, &mut text);
            let diff: String = text.lines().map(|l| format!("+{l}\n")).collect();
            let diff = format!("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -0,0 +1,9 @@\n{diff}");
            let out = red.redact_knowing(&diff, &secret_values(&v));
            if out.contains(&s) {
                survived.push(format!("{shape}: {s}\n{out}"));
            }
        }
    }
    assert!(survived.is_empty(), "{} of 1700:\n{}", survived.len(), survived[..survived.len().min(4)].join("\n"));
}

#[test]
fn text_alone_hides_what_names_and_shapes_say() {
    let red = Redactor::new([7; 32]);
    for (text, gone) in [
        ("password: hunter2", "hunter2"),
        ("export DB_PASSWORD='hunter2'", "hunter2"),
        ("run with --token hunter2xyz please", "hunter2xyz"),
        ("{\"apiKey\": \"abc123def\"}", "abc123def"),
        ("use postgres://app:hunter2@db/shop", "hunter2"),
        ("Authorization: Bearer abcdefghijklmnop1234", "abcdefghijklmnop1234"),
        ("- name: DB_PASSWORD\n  value: hunter2\n", "hunter2"),
        ("kind: Secret\ndata:\n  anything: aHVudGVyMg==\n", "aHVudGVyMg=="),
        ("kind: Secret\nstringData:\n  .env: |\n    A=hunter2\n    B=hunter3\ntype: Opaque\n", "hunter3"),
        ("could not connect with password=hun{ter2}, giving up", "ter2"),
        ("{user: app, password: hunter2, port: 80}", "hunter2"),
        ("error: failed to log in with password=hunter2", "hunter2"),
        ("ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa was used", "ghp_aaaa"),
    ] {
        let out = red.redact_text(text);
        assert!(!out.contains(gone), "{text} -> {out}");
        assert!(out.contains("[secret:"), "{text} -> {out}");
    }
}

#[test]
fn ordinary_text_stays_as_it_is() {
    let red = Redactor::new([7; 32]);
    for text in [
        "1.9.2 misses DB_URL, roll back to 1.9.1",
        "image: reg.example/shop@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "the token expired, so the pod cannot pull",
        "secretKeyRef:\n  name: db\n  key: password\n",
        "secretName: shop-tls",
        "commit 4be1d2a7c0ffee4be1d2a7c0ffee4be1d2a7c0ff",
        "existingSecret: redis",
        "passwordKey: redis-password",
        "tokenUrl: https://login.example/token",
        "checksum/secret: 0123456789abcdef0123456789abcdef",
        "automountServiceAccountToken: false",
        "password: ${DB_PASSWORD}",
    ] {
        assert_eq!(red.redact_text(text), text);
    }
}

#[test]
fn equal_secrets_get_equal_marks_and_other_keys_other_marks() {
    let (a, b) = (Redactor::new([1; 32]), Redactor::new([2; 32]));
    assert_eq!(a.mark("x"), a.mark("x"));
    assert_ne!(a.mark("x"), a.mark("y"));
    assert_ne!(a.mark("x"), b.mark("x"));
    assert_eq!(a.mark("x").len(), "[secret:12345678]".len());
    assert_eq!(format!("{a:?}"), "Redactor");
}

#[test]
fn the_mark_is_hmac_sha256() {
    // Computed with Python's hmac module.
    let r = Redactor::new([0x0b; 32]);
    assert_eq!(r.mark("Hi There"), "[secret:198a607e]");
}

#[test]
fn redaction_is_stable_when_repeated() {
    let red = Redactor::new([7; 32]);
    let mut r = Rng(9);
    for shape in 0..17 {
        let (v, _) = leaky(shape, &mut r);
        let once = red.redact_value(&v);
        assert_eq!(red.redact_value(&once), once, "shape {shape}");
        let text = red.redact_text(&format!("password: {}", r.password()));
        assert_eq!(red.redact_text(&text), text);
    }
}

#[test]
fn changed_leaves_are_judged_by_pointer() {
    let leaf = |kind: &str, pointer: &str, after: Value| LeafChange {
        object: ObjectKey::new("", kind, "shop", "x"),
        pointer: pointer.into(),
        before: None,
        after: Some(after),
    };
    let leaks = [
        leaf("Secret", "/data/a", json!("eA==")),
        leaf("Deployment", "/spec/template/spec/containers/name=app/env/name=DB_PASSWORD/value", json!("hunter2")),
        leaf(
            "Deployment",
            "/spec/template/spec/containers/name=app/env/name=DB_PASSWORD",
            json!({"name": "DB_PASSWORD", "value": "hunter2"}),
        ),
        leaf("ConfigMap", "/data/app.password", json!("hunter2")),
        leaf("ConfigMap", "/data/url", json!("https://u:hunter2@host/")),
    ];
    for l in leaks {
        assert_eq!(scan_leaves(std::slice::from_ref(&l)).len(), 1, "{l:?}");
        let out = Redactor::new([7; 32]).redact_leaf(&l);
        assert!(!format!("{out:?}").contains("hunter2") && format!("{out:?}").contains("[secret:"), "{out:?}");
    }
    for l in [
        leaf("Deployment", "/spec/replicas", json!(3)),
        leaf("Deployment", "/spec/template/spec/containers/name=app/image", json!("reg.example/a:1")),
        leaf(
            "Deployment",
            "/spec/template/spec/containers/name=app/env/name=DB_PASSWORD/valueFrom/secretKeyRef/key",
            json!("password"),
        ),
        leaf("Secret", "/data/a", json!("ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]")),
        leaf("Secret", "/metadata/labels/app", json!("shop")),
    ] {
        assert_eq!(scan_leaves(&[l]), []);
    }
}

#[test]
fn every_known_shape_compiles() {
    assert_eq!(shapes::expressions(), 30);
    assert_eq!(text::expressions(), 7);
}

#[test]
fn no_input_makes_the_scanner_cut_characters() {
    let red = Redactor::new([7; 32]);
    for s in [
        "пароль: 秘密 password: пароль",
        "token=\u{202e}ключ",
        "kind: Secret\ndata:\n  ключ: значение\n",
        "-----BEGIN PRIVATE KEY-----\n…",
        "+\n-\n@@ \n+é: ü",
        "password: |\n\u{a0}\u{a0}x",
    ] {
        let _ = red.redact_text(s);
    }
}
