//! Access reviews: what the asking user may do, answered from the injected denials.

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use super::json::{set, text};

/// Answers a `SelfSubjectAccessReview`, `SelfSubjectRulesReview` or `SelfSubjectReview`; other paths are not for here.
pub fn answer(shared: &Shared, method: &Method, path: &str, body: &Bytes, user: &str) -> Option<Response> {
    let resource = path
        .strip_prefix("/apis/authorization.k8s.io/v1/")
        .or_else(|| path.strip_prefix("/apis/authentication.k8s.io/v1/"))?;
    if method != Method::POST {
        return None;
    }
    let mut review: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let status = match resource {
        "selfsubjectaccessreviews" => {
            let of = |field: &str| text(&review, &["spec", "resourceAttributes", field]).to_owned();
            let kind = shared
                .store
                .kinds
                .all()
                .into_iter()
                .find(|kind| kind.plural == of("resource") && kind.group == of("group"));
            let refused = kind.and_then(|kind| {
                shared.access.check(user, &of("verb"), &kind, &of("subresource"), &of("namespace"), &of("name")).err()
            });
            match refused {
                Some(failure) => json!({ "allowed": false, "reason": failure.message }),
                None => json!({ "allowed": true }),
            }
        }
        "selfsubjectrulesreviews" => json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": !shared.access.denials().is_empty(),
        }),
        "selfsubjectreviews" => {
            json!({ "userInfo": { "username": user, "groups": ["system:authenticated"] } })
        }
        _ => return None,
    };
    set(&mut review, &["status"], status);
    Some((StatusCode::CREATED, axum::Json(review)).into_response())
}
