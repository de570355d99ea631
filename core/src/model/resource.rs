//! Names of live objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Problem;

/// An object inside one cluster. The API version is left out on purpose: inventories and
/// `status.resources` keep whichever version was served.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Kind, as in `Deployment`.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// An object key from its parts.
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    /// `Deployment shop/checkout`, or `ClusterRole reader` for cluster-scoped objects.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A live object as an agent names it: `cluster/namespace/Kind/name`.
///
/// `-` stands for "no namespace"; a kind that several API groups serve is written `Kind.group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceRef {
    /// Name of the Cluster in the configuration.
    pub cluster: String,
    /// API group, where it was given.
    pub group: Option<String>,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl FromStr for ResourceRef {
    type Err = Problem;

    fn from_str(s: &str) -> Result<Self, Problem> {
        let bad = || {
            Problem::new(
                "input.target",
                format!("\"{}\" is not a target.", s.chars().take(120).collect::<String>()),
                "Write cluster/namespace/Kind/name, for example prod-eu/shop/Deployment/checkout; use - as the namespace of a cluster-scoped object.",
            )
        };
        let mut parts = s.split('/');
        let (Some(cluster), Some(namespace), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let plain = |p: &str| {
            !p.is_empty()
                && p.len() <= 253
                && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':'))
        };
        if ![cluster, namespace, kind, name].into_iter().all(plain) {
            return Err(bad());
        }
        let (kind, group) = match kind.split_once('.') {
            Some((k, g)) => (k.to_owned(), Some(g.to_owned())),
            None => (kind.to_owned(), None),
        };
        if kind.is_empty() {
            return Err(bad());
        }
        let namespace = if namespace == "-" { String::new() } else { namespace.to_owned() };
        Ok(Self { cluster: cluster.to_owned(), group, kind, namespace, name: name.to_owned() })
    }
}

impl TryFrom<String> for ResourceRef {
    type Error = Problem;
    fn try_from(s: String) -> Result<Self, Problem> {
        s.parse()
    }
}

impl From<ResourceRef> for String {
    fn from(r: ResourceRef) -> Self {
        r.to_string()
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = if self.namespace.is_empty() { "-" } else { &self.namespace };
        write!(f, "{}/{}/{}", self.cluster, ns, self.kind)?;
        if let Some(g) = &self.group {
            write!(f, ".{g}")?;
        }
        write!(f, "/{}", self.name)
    }
}
