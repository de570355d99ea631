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

/// What a failed request means for whoever called.
pub(super) fn problem(error: &kube::Error, what: &str) -> Problem {
    match error {
        kube::Error::Api(status) if status.code == 401 => Problem::new(
            "cluster.unauthorized",
            "The cluster does not accept Countersign's credentials.",
            "Renew the credentials in the Cluster's kubeconfig.",
        ),
        kube::Error::Api(status) if status.code == 403 => Problem::new(
            "cluster.forbidden",
            format!("Countersign may not read {what}."),
            "Give its account get, list and watch there (deploy/ holds the roles).",
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
