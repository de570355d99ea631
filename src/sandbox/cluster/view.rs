//! The shapes an object is answered in: whole, metadata alone, or a table as kubectl asks for.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::json::{get, list, number, text};
use super::kinds::Kind;

/// What the `Accept` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The object itself.
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`.
    Table,
}

impl View {
    /// The first shape in the header that is served here.
    pub fn of(accept: &str) -> Self {
        for entry in accept.split(',') {
            let parts: Vec<&str> = entry.split(';').map(str::trim).collect();
            let v1 = !parts.iter().any(|part| part.starts_with("v=") && *part != "v=v1");
            if parts.contains(&"as=Table") && v1 {
                return Self::Table;
            }
            if (parts.contains(&"as=PartialObjectMetadata") || parts.contains(&"as=PartialObjectMetadataList")) && v1 {
                return Self::Metadata;
            }
            if parts.first().is_some_and(|media| matches!(*media, "application/json" | "*/*" | "application/*"))
                && parts.len() == 1
            {
                return Self::Whole;
            }
        }
        Self::Whole
    }

    /// One object in this shape.
    pub fn one(self, kind: &Kind, object: &Value, now: DateTime<Utc>) -> Value {
        match self {
            Self::Whole => typed(kind, object),
            Self::Metadata => metadata_of(object),
            Self::Table => table(
                kind,
                &[object],
                json!({ "resourceVersion": text(object, &["metadata", "resourceVersion"]) }),
                now,
            ),
        }
    }

    /// A list in this shape.
    pub fn many(self, kind: &Kind, objects: &[&Value], metadata: Value, now: DateTime<Utc>) -> Value {
        match self {
            Self::Whole => {
                let items: Vec<Value> = objects.iter().map(|object| item(kind, object)).collect();
                json!({ "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": items })
            }
            Self::Metadata => {
                let items: Vec<Value> = objects.iter().map(|object| metadata_of(object)).collect();
                json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items })
            }
            Self::Table => table(kind, objects, metadata, now),
        }
    }
}

/// Stored objects may have been written in another version of their group.
fn typed(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".to_owned(), json!(kind.api_version()));
        map.insert("kind".to_owned(), json!(kind.kind));
    }
    object
}

/// Items of a list of built-in kinds carry no `apiVersion` and `kind`; custom resources do.
fn item(kind: &Kind, object: &Value) -> Value {
    let mut object = typed(kind, object);
    let custom = kind.group.contains('.') && !kind.group.ends_with(".k8s.io");
    if let (false, Value::Object(map)) = (custom, &mut object) {
        map.shift_remove("apiVersion");
        map.shift_remove("kind");
    }
    object
}

fn metadata_of(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata") })
}

type Column = (&'static str, fn(&Value) -> String);

fn columns(kind: &Kind) -> Vec<Column> {
    let ready: Column = ("Ready", |object| condition(object, "Ready", "status"));
    let status: Column = ("Status", |object| condition(object, "Ready", "message"));
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("apps", "Deployment") => vec![
            ("Ready", |o| {
                format!("{}/{}", number(o, &["status", "readyReplicas"], 0), number(o, &["spec", "replicas"], 1))
            }),
            ("Up-to-date", |o| number(o, &["status", "updatedReplicas"], 0).to_string()),
            ("Available", |o| number(o, &["status", "availableReplicas"], 0).to_string()),
        ],
        ("apps", "ReplicaSet") => vec![
            ("Desired", |o| number(o, &["spec", "replicas"], 0).to_string()),
            ("Current", |o| number(o, &["status", "replicas"], 0).to_string()),
            ("Ready", |o| number(o, &["status", "readyReplicas"], 0).to_string()),
        ],
        ("", "Pod") => vec![
            ("Ready", |o| {
                let all = list(o, &["status", "containerStatuses"]);
                let ready = all.iter().filter(|status| super::json::flag(status, &["ready"])).count();
                format!("{ready}/{}", list(o, &["spec", "containers"]).len())
            }),
            ("Status", |o| {
                let waiting = text(o, &["status", "containerStatuses", "0", "state", "waiting", "reason"]);
                if waiting.is_empty() { text(o, &["status", "phase"]).to_owned() } else { waiting.to_owned() }
            }),
            ("Restarts", |o| number(o, &["status", "containerStatuses", "0", "restartCount"], 0).to_string()),
        ],
        ("", "Namespace") => vec![("Status", |o| text(o, &["status", "phase"]).to_owned())],
        ("argoproj.io", "Application") => vec![
            ("Sync Status", |o| text(o, &["status", "sync", "status"]).to_owned()),
            ("Health Status", |o| text(o, &["status", "health", "status"]).to_owned()),
        ],
        ("source.toolkit.fluxcd.io", "GitRepository") => {
            vec![("URL", |o| text(o, &["spec", "url"]).to_owned()), ready, status]
        }
        (group, _) if group.ends_with("toolkit.fluxcd.io") => vec![ready, status],
        _ => Vec::new(),
    }
}

fn condition(object: &Value, of: &str, field: &str) -> String {
    let found = list(object, &["status", "conditions"]).iter().find(|condition| text(condition, &["type"]) == of);
    found.map(|condition| text(condition, &[field]).to_owned()).unwrap_or_default()
}

fn table(kind: &Kind, objects: &[&Value], metadata: Value, now: DateTime<Utc>) -> Value {
    let columns = columns(kind);
    let define = |name: &str| json!({ "name": name, "type": "string", "format": if name == "Name" { "name" } else { "" }, "description": "", "priority": 0 });
    let names = ["Name"].into_iter().chain(columns.iter().map(|(name, _)| *name)).chain(["Age"]);
    let definitions: Vec<Value> = names.map(define).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells = vec![json!(text(object, &["metadata", "name"]))];
            cells.extend(columns.iter().map(|(_, cell)| json!(cell(object))));
            cells.push(json!(age(object, now)));
            json!({ "cells": cells, "object": metadata_of(object) })
        })
        .collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows })
}

fn age(object: &Value, now: DateTime<Utc>) -> String {
    let made = get(object, &["metadata", "creationTimestamp"])
        .and_then(Value::as_str)
        .and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    let Some(made) = made else {
        return "<unknown>".to_owned();
    };
    let seconds = (now - made.with_timezone(&Utc)).num_seconds().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
