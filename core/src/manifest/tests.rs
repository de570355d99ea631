//! The editor's corpus: exact bytes after, or the exact code of the refusal.

use serde_json::{Value, json};

use super::*;
use crate::model::{Delete, ObjectKey, Operation, Scale, SetEnv, SetField, SetImage};

mod bytes;
mod differences;
mod documents;
mod folders;
mod operations;
mod paths;
mod refusals;

const CTX: EditContext<'static> = EditContext { restarted_at: "2026-11-21T10:00:00Z" };

fn field(pointer: &str, value: Value) -> Operation {
    Operation::SetField(SetField { pointer: pointer.into(), value: Some(value) })
}

fn unset(pointer: &str) -> Operation {
    Operation::SetField(SetField { pointer: pointer.into(), value: None })
}

fn image(container: &str, image: &str) -> Operation {
    Operation::SetImage(SetImage { container: container.into(), image: image.into() })
}

fn env(container: &str, name: &str, value: Option<&str>) -> Operation {
    Operation::SetEnv(SetEnv { container: container.into(), name: name.into(), value: value.map(str::to_owned) })
}

fn doc(body: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n{body}")
}

fn run(text: &str, op: &Operation) -> Result<String, String> {
    run_at(text, 0, op)
}

fn run_at(text: &str, index: usize, op: &Operation) -> Result<String, String> {
    edit("f.yaml", text.as_bytes(), DocId { index, item: None }, op, CTX)
        .map(|e| e.bytes.map_or_else(String::new, |b| String::from_utf8(b).unwrap()))
        .map_err(|p| p.code.into_owned())
}

/// Edits `text` and checks the one replacement by its words.
#[track_caller]
fn exact(text: &str, op: &Operation, from: &str, to: &str) {
    let want = text.replacen(from, to, 1);
    assert_ne!(want, text, "the test changes nothing");
    assert_eq!(run(text, op).as_deref(), Ok(want.as_str()));
}

#[track_caller]
fn refused(text: &str, op: &Operation, code: &str) {
    assert_eq!(run(text, op).unwrap_err(), code, "{text}");
}

const DEPLOYMENT: &str = "\
# checkout: takes the money
apiVersion: apps/v1
kind: Deployment
metadata:
  name: checkout   # the name
  namespace: shop
  labels: {app: checkout, tier: \"web\"}
spec:
  replicas: 2  # two is enough

  selector:
    matchLabels:
      app: checkout
  template:
    metadata:
      labels:
        app: checkout
    spec:
      initContainers:
      - name: migrate
        image: ghcr.io/shop/migrate:1.0.0
      containers:
      - name: app
        image: \"ghcr.io/shop/checkout:1.4.2\" # pinned
        env:
        # first
        - name: A
          value: 'x'
        - name: B
          valueFrom:
            secretKeyRef: {name: s, key: k}
        resources:
          requests:
            cpu: 100m
      # the proxy
      - image: envoy:1.2
        name: proxy
";
