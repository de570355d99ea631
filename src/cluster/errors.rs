//! The API server's errors as problems.

use std::error::Error as StdError;

use countersign_core::error::Problem;

/// An error and its causes in one line. Kubernetes errors name addresses and files, never credentials:
/// tokens and keys are not part of kube's error texts.
pub(super) fn words(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// HTTP status of an answer that the API server itself gave.
pub(super) fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// A question as RBAC knows it: the verb, and the path that it goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// `get`, `list`, `watch` or `patch`.
    pub verb: &'static str,
    /// Path, without the query.
    pub path: &'a str,
}

impl Asked<'_> {
    /// Resource and namespace as rules name them (`deployments.apps in the namespace shop`); a path
    /// that is no resource is itself what rules name.
    fn what(&self) -> String {
        let mut parts = self.path.trim_matches('/').split('/');
        let group = match (parts.next(), parts.next(), parts.next()) {
            (Some("api"), Some(_), None) | (Some("apis"), Some(_), None) => return self.path.to_owned(),
            (Some("api"), Some(_), Some(first)) => (String::new(), first),
            (Some("apis"), Some(group), Some(_)) => match parts.next() {
                Some(first) => (format!(".{group}"), first),
                None => return self.path.to_owned(),
            },
            _ => return self.path.to_owned(),
        };
        let (group, first) = group;
        match (first, parts.next(), parts.next()) {
            ("namespaces", Some(namespace), Some(plural)) => format!("{plural}{group} in the namespace {namespace}"),
            (plural, _, _) => format!("{plural}{group}"),
        }
    }
}

/// Whether this is a denial by the cluster's access rules, which no waiting mends.
pub(super) fn denied(problem: &Problem) -> bool {
    problem.code == "cluster.forbidden"
}

/// What a failed request means for whoever called.
pub(super) fn problem(error: &kube::Error, asked: Asked<'_>) -> Problem {
    let (verb, what) = (asked.verb, asked.what());
    match error {
        kube::Error::Api(status) if status.code == 401 => Problem::new(
            "cluster.unauthorized",
            "The cluster does not accept Countersign's credentials.",
            "Renew the credentials in the Cluster's kubeconfig.",
        ),
        kube::Error::Api(status) if status.code == 403 => Problem::new(
            "cluster.forbidden",
            format!("Countersign may not {verb} {what}."),
            "Give its account that verb there; docs/rbac.md says which rule of which role it is.",
        )
        .with(cap(&status.message)),
        kube::Error::Api(status) if status.code >= 500 || status.code == 429 => unreachable(cap(&status.message)),
        kube::Error::Api(status) => Problem::new(
            "cluster.refused",
            format!("The cluster refused to answer for {what}."),
            "See the evidence; where it does not help, ask the same with kubectl.",
        )
        .with(format!("{} {}", status.code, cap(&status.message))),
        other => unreachable(words(other)),
    }
}

/// The API server does not answer.
pub(super) fn unreachable(why: String) -> Problem {
    Problem::new(
        "cluster.unreachable",
        "The cluster's API server does not answer.",
        "Wait and try again; if it stays so, check network and the Cluster's kubeconfig.",
    )
    .with(why)
    .later()
}

fn cap(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_named_as_rules_name_it() {
        let what = |path| Asked { verb: "get", path }.what();
        assert_eq!(what("/apis/apps/v1/namespaces/shop/deployments/web"), "deployments.apps in the namespace shop");
        assert_eq!(what("/apis/apps/v1/namespaces/shop/deployments"), "deployments.apps in the namespace shop");
        assert_eq!(what("/api/v1/namespaces/shop/pods"), "pods in the namespace shop");
        assert_eq!(what("/apis/argoproj.io/v1alpha1/applications"), "applications.argoproj.io");
        assert_eq!(what("/api/v1/namespaces/shop"), "namespaces");
        assert_eq!(what("/api/v1/namespaces"), "namespaces");
        for path in ["/version", "/openapi/v3/apis/apps/v1", "/api", "/apis", "/apis/apps/v1", "/api/v1"] {
            assert_eq!(what(path), path);
        }
    }
}
