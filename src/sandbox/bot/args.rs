//! Arguments of a call in all the ways that the Bot API accepts: query, JSON, form, multipart.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Error of a call: status and description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) description: String,
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: u16, description: impl Into<String>) -> Self {
        Self { status, description: description.into(), retry_after: None }
    }

    pub(crate) fn bad(description: impl std::fmt::Display) -> Self {
        Self::new(400, format!("Bad Request: {description}"))
    }
}

/// A file that was uploaded with a call.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) name: String,
    pub(crate) mime: String,
    pub(crate) bytes: Bytes,
}

/// Arguments of one call. A structured value may come as JSON or as a string that holds JSON.
#[derive(Debug, Clone, Default)]
pub(crate) struct Args {
    values: BTreeMap<String, Value>,
    uploads: BTreeMap<String, Upload>,
}

impl Args {
    pub(crate) async fn read(req: Request) -> Result<Self, Refusal> {
        let mut args = Self::default();
        let query = req.uri().query().unwrap_or_default().to_owned();
        args.add_form(query.as_bytes());
        let kind = req.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (head, body) = req.into_parts();
        let whole = Request::from_parts(head.clone(), body);
        let body = Bytes::from_request(whole, &()).await.map_err(|_| Refusal::new(413, "Request Entity Too Large"))?;
        if kind.starts_with("multipart/form-data") {
            // From the whole body: one that is left at its last boundary would cost the client its connection.
            let form = Request::from_parts(head, Body::from(body));
            let form = Multipart::from_request(form, &()).await.map_err(|e| Refusal::bad(e.body_text()))?;
            args.add_multipart(form).await?;
            return Ok(args);
        }
        if kind.starts_with("application/json") && !body.is_empty() {
            let values: BTreeMap<String, Value> =
                serde_json::from_slice(&body).map_err(|_| Refusal::bad("can't parse JSON object"))?;
            args.values.extend(values);
        } else if kind.starts_with("application/x-www-form-urlencoded") {
            args.add_form(&body);
        }
        args.values.retain(|_, v| !v.is_null());
        Ok(args)
    }

    fn add_form(&mut self, encoded: &[u8]) {
        for (name, value) in url::form_urlencoded::parse(encoded) {
            self.values.insert(name.into_owned(), Value::String(value.into_owned()));
        }
    }

    async fn add_multipart(&mut self, mut form: Multipart) -> Result<(), Refusal> {
        while let Some(field) = form.next_field().await.map_err(|e| Refusal::bad(e.body_text()))? {
            let name = field.name().unwrap_or_default().to_owned();
            let file = field.file_name().map(ToOwned::to_owned);
            let mime = field.content_type().unwrap_or("application/octet-stream").to_owned();
            let bytes = field.bytes().await.map_err(|e| Refusal::bad(e.body_text()))?;
            match file {
                Some(file) => {
                    self.uploads.insert(name, Upload { name: file, mime, bytes });
                }
                None => {
                    let text = String::from_utf8(bytes.to_vec())
                        .map_err(|_| Refusal::bad("strings must be encoded in UTF-8"))?;
                    self.values.insert(name, Value::String(text));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            Value::Number(n) => n.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(Value::Bool(b)) => *b,
            Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes"),
            Some(Value::Number(n)) => n.as_i64() == Some(1),
            _ => false,
        }
    }

    /// A structured argument, or 400 when it is there and does not parse.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let parsed = match value {
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => serde_json::from_str(text),
            other => serde_json::from_value(other.clone()),
        };
        parsed.map(Some).map_err(|e| Refusal::bad(format_args!("can't parse {}: {e}", name.replace('_', " "))))
    }

    /// An upload, named directly or by `attach://`.
    pub(crate) fn upload(&self, name: &str) -> Option<&Upload> {
        if let Some(upload) = self.uploads.get(name) {
            return Some(upload);
        }
        let reference = self.values.get(name)?.as_str()?;
        self.uploads.get(reference.strip_prefix("attach://")?)
    }

    /// The arguments as the log keeps them: no file contents.
    pub(crate) fn for_log(&self) -> Value {
        let mut map = serde_json::Map::new();
        for (name, value) in &self.values {
            map.insert(name.clone(), value.clone());
        }
        for (name, file) in &self.uploads {
            map.insert(name.clone(), serde_json::json!({"file_name": file.name, "bytes": file.bytes.len()}));
        }
        Value::Object(map)
    }
}
