//! Who may do what: optional bearer tokens, and injected denials.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::reply::Failure;

/// One denial; an absent field matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Denial {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `*`.
    pub verb: String,
    /// `deployments.apps`, `deployments` (any group) or `*`; a subresource as `deployments/status`.
    pub resource: String,
    /// Only in this namespace.
    pub namespace: Option<String>,
    /// Only for this user.
    pub user: Option<String>,
}

impl Denial {
    fn hits(&self, user: &str, verb: &str, kind: &Kind, subresource: &str, namespace: &str) -> bool {
        let plain = |name: &str| {
            if subresource.is_empty() { name.to_owned() } else { format!("{name}/{subresource}") }
        };
        let resource = matches!(self.resource.as_str(), "*" | "")
            || self.resource == plain(&kind.resource())
            || self.resource == plain(&kind.plural);
        resource
            && (matches!(self.verb.as_str(), "*" | "") || self.verb == verb)
            && self.namespace.as_deref().is_none_or(|only| only == namespace)
            && self.user.as_deref().is_none_or(|only| only == user)
    }
}

/// The access rules; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Access {
    tokens: Arc<HashMap<String, String>>,
    denials: Arc<RwLock<Vec<Denial>>>,
}

impl Access {
    /// With tokens (token to user name), a request must carry one of them.
    pub fn new(tokens: HashMap<String, String>) -> Self {
        Self { tokens: Arc::new(tokens), denials: Arc::default() }
    }

    /// Who asks.
    pub fn user(&self, headers: &HeaderMap) -> Result<String, Failure> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let user = match token {
            _ if self.tokens.is_empty() => "sandbox-admin".to_owned(),
            Some(token) => self.tokens.get(token.trim()).cloned().ok_or_else(Failure::unauthorized)?,
            None => return Err(Failure::unauthorized()),
        };
        Ok(header("impersonate-user").map_or(user, str::to_owned))
    }

    /// Adds a denial.
    pub fn deny(&self, denial: Denial) {
        if let Ok(mut denials) = self.denials.write() {
            denials.push(denial);
        }
    }

    /// Takes all denials back.
    pub fn allow_all(&self) {
        if let Ok(mut denials) = self.denials.write() {
            denials.clear();
        }
    }

    /// The denials in force.
    pub fn denials(&self) -> Vec<Denial> {
        self.denials.read().map(|denials| denials.clone()).unwrap_or_default()
    }

    /// Whether the user may; the failure is worded as RBAC words it.
    pub fn check(
        &self,
        user: &str,
        verb: &str,
        kind: &Kind,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Failure> {
        if self.denials().iter().any(|denial| denial.hits(user, verb, kind, subresource, namespace)) {
            return Err(Failure::forbidden(user, verb, kind, subresource, namespace, name));
        }
        Ok(())
    }
}
