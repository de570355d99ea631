//! What the account may do, what is installed and what the clock says: for `doctor` and `init`.

use countersign_core::error::Result;
use countersign_core::model::OwnerRef;
use http::Request;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Cluster, requests};

/// Where an access review is asked.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Label with the version of a part of Flux (flux2: manifests/install/kustomization.yaml).
const VERSION_LABEL: &str = "/metadata/labels/app.kubernetes.io~1version";

/// A right, as RBAC names it. An empty namespace means all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name; empty for any.
    pub name: &'a str,
}

/// What the API server says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Its version (`v1.33.1`).
    pub version: String,
    /// Its clock, milliseconds, whole seconds only; `None` where it does not say.
    pub now_ms: Option<i64>,
}

/// A repository that an owner or a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Who names it; `None` for a source that nobody reads.
    pub owner: Option<OwnerRef>,
    /// Address as written there.
    pub url: String,
    /// Branch, tag or commit as written there; empty for the default branch.
    pub revision: String,
}

fn date(headers: &http::HeaderMap) -> Option<i64> {
    let text = headers.get(http::header::DATE)?.to_str().ok()?;
    chrono::DateTime::parse_from_rfc2822(text).ok().map(|d| d.timestamp_millis())
}

impl Cluster {
    /// Version and clock of the API server.
    pub async fn about(&self) -> Result<About> {
        let value = requests::get(&self.0.client, "/version").await?;
        let version = value.get("gitVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let asked = Request::get("/version").body(Body::empty()).ok();
        let now_ms = match asked {
            Some(request) => self.0.client.send(request).await.ok().and_then(|r| date(r.headers())),
            None => None,
        };
        Ok(About { version, now_ms })
    }

    /// Whether the account has a right, in the server's own words; `None` where it cannot be asked for that.
    pub async fn may(&self, right: &Right<'_>) -> Result<Option<bool>> {
        let attributes = json!({"verb": right.verb, "group": right.group, "resource": right.resource,
            "namespace": right.namespace, "name": right.name});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes}});
        match requests::post(&self.0.client, REVIEWS, &review).await {
            Ok(answer) => Ok(answer.pointer("/status/allowed").and_then(Value::as_bool)),
            Err(p) if matches!(p.code.as_ref(), "cluster.forbidden" | "cluster.refused") => Ok(None),
            Err(p) => Err(p),
        }
    }

    /// Plural of a kind; `None` where it is not served.
    pub async fn plural(&self, group: &str, kind: &str) -> Result<Option<String>> {
        Ok(self.0.kinds.find(group, kind).await?.map(|k| k.resource.plural))
    }

    /// Lists one object of a kind, really: a right on paper and an answer are two things.
    pub async fn try_list(&self, group: &str, kind: &str, namespace: &str) -> Result<()> {
        let Some(served) = self.0.kinds.find(group, kind).await? else { return Ok(()) };
        let Some(url) = served.collection(namespace) else { return Ok(()) };
        requests::get_as(&self.0.client, &format!("{url}?limit=1"), "list").await.map(|_| ())
    }

    /// Whether the schemas that values are checked against can be read.
    pub async fn try_schemas(&self) -> Result<()> {
        requests::get(&self.0.client, "/openapi/v3").await.map(|_| ())
    }

    /// Version of the Argo CD whose controller runs in a namespace; `None` where it does not tell.
    pub async fn argocd_version(&self, namespace: &str) -> Option<String> {
        for kind in ["StatefulSet", "Deployment"] {
            for object in self.list("apps", kind, namespace, "").await.unwrap_or_default() {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                if name.ends_with("application-controller") {
                    let label = object.pointer(VERSION_LABEL).and_then(Value::as_str).map(str::to_owned);
                    return label.or_else(|| tag(&object));
                }
            }
        }
        None
    }

    /// Version of Flux, by the label on its controllers; `None` where it does not tell.
    pub async fn flux_version(&self) -> Option<String> {
        let selector = "labelSelector:app.kubernetes.io/part-of=flux";
        let parts = self.list("apps", "Deployment", "", selector).await.unwrap_or_default();
        parts.iter().find_map(|d| d.pointer(VERSION_LABEL)?.as_str().map(str::to_owned))
    }

    /// Every repository that owners and sources name, as they spell it. The index must be [`Cluster::ready`].
    pub fn followed(&self) -> Vec<Followed> {
        self.0.book.read().followed()
    }
}

/// Tag of the first container's image.
fn tag(object: &Value) -> Option<String> {
    let image = object.pointer("/spec/template/spec/containers/0/image")?.as_str()?;
    let name = image.split('@').next()?.rsplit('/').next()?;
    name.split_once(':').map(|(_, tag)| tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_off_an_image_with_and_without_a_digest() {
        let of = |image: &str| tag(&json!({"spec": {"template": {"spec": {"containers": [{"image": image}]}}}}));
        assert_eq!(of("quay.io/argoproj/argocd:v3.2.1").as_deref(), Some("v3.2.1"));
        assert_eq!(of("localhost:5000/argocd:v3@sha256:00").as_deref(), Some("v3"));
        assert_eq!(of("localhost:5000/argocd@sha256:00"), None);
    }
}
