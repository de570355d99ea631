//! Failures as the `Status` objects that a real API server answers with.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::kinds::Kind;

/// One wrong field of a 422 answer.
#[derive(Debug, Clone)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`…
    pub reason: &'static str,
    /// What is wrong, as the real validation says it, without the field.
    pub message: String,
    /// `spec.replicas`.
    pub field: String,
}

/// A refused request.
#[derive(Debug, Clone)]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// The machine-readable reason (`NotFound`, `Conflict`…).
    pub reason: &'static str,
    /// The sentence that clients print.
    pub message: String,
    /// `Status.details`.
    pub details: Value,
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: String, kind: Option<&Kind>, name: &str) -> Self {
        let details = kind.map_or(Value::Null, |kind| {
            let mut details = json!({ "name": name, "kind": kind.plural });
            if let (false, Value::Object(map)) = (kind.group.is_empty(), &mut details) {
                map.insert("group".to_owned(), json!(kind.group));
            }
            details
        });
        Self { code, reason, message, details }
    }

    /// 404 of one object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.resource()), Some(kind), name)
    }

    /// 404 of a path that nothing serves.
    pub fn no_route() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource".to_owned(), None, "")
    }

    /// 409 of a create.
    pub fn exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource()), Some(kind), name)
    }

    /// 409 of a stale write.
    pub fn conflict(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Self::new(409, "Conflict", message, Some(kind), name)
    }

    /// 409 of a precondition on the uid.
    pub fn precondition(kind: &Kind, name: &str, message: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {message}", kind.resource());
        Self::new(409, "Conflict", message, Some(kind), name)
    }

    /// 410: the asked resource version is gone.
    pub fn gone(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"), None, "")
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), None, "")
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned(), None, "")
    }

    /// 403 as RBAC says it.
    pub fn forbidden(user: &str, verb: &str, kind: &Kind, subresource: &str, namespace: &str, name: &str) -> Self {
        let resource =
            if subresource.is_empty() { kind.plural.clone() } else { format!("{}/{subresource}", kind.plural) };
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let subject = if name.is_empty() { kind.resource() } else { format!("{} {name:?}", kind.resource()) };
        let message = format!(
            "{subject} is forbidden: User {user:?} cannot {verb} resource {resource:?} in API group {:?} {place}",
            kind.group
        );
        Self::new(403, "Forbidden", message, Some(kind), name)
    }

    /// 405.
    pub fn method() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource".to_owned(),
            None,
            "",
        )
    }

    /// 415.
    pub fn media_type(found: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/strategic-merge-patch+json (got {found:?})"
        );
        Self::new(415, "UnsupportedMediaType", message, None, "")
    }

    /// 422 of a JSON patch that does not fit.
    pub fn invalid_patch(kind: &Kind, name: &str, message: String) -> Self {
        Self::new(422, "Invalid", message, Some(kind), name)
    }

    /// 503 while the server is made unavailable.
    pub fn unavailable() -> Self {
        Self::new(
            503,
            "ServiceUnavailable",
            "the server is currently unable to handle the request".to_owned(),
            None,
            "",
        )
    }

    /// 422 with its causes, worded as the real validation words it.
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let lines: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let joined = if lines.len() == 1 { lines.join("") } else { format!("[{}]", lines.join(", ")) };
        let message = format!("{} {name:?} is invalid: {joined}", kind.qualified());
        let mut failure = Self::new(422, "Invalid", message, Some(kind), name);
        if let Value::Object(map) = &mut failure.details {
            map.insert("kind".to_owned(), json!(kind.kind));
            let causes: Vec<Value> = causes
                .iter()
                .map(|cause| json!({ "reason": cause.reason, "message": cause.message, "field": cause.field }))
                .collect();
            map.insert("causes".to_owned(), Value::Array(causes));
        }
        failure
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if let Value::Object(map) = &mut status {
            if !self.details.is_null() {
                map.insert("details".to_owned(), self.details.clone());
            }
            map.insert("code".to_owned(), json!(self.code));
        }
        status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, axum::Json(self.status())).into_response()
    }
}
