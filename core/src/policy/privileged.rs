//! What an agent's change may never decide about by itself: side doors into CI, keys, identities
//! and the engines. Such a change is manual, whatever the rules say.

use crate::model::ObjectKey;

/// Files whose name alone makes them privileged, in lower case.
const NAMES: [&str; 27] = [
    ".sops.yaml",
    ".sops.yml",
    ".gitmodules",
    ".gitattributes",
    ".gitignore",
    ".lfsconfig",
    ".mailmap",
    "codeowners",
    "owners",
    "jenkinsfile",
    "makefile",
    "justfile",
    "taskfile.yml",
    "taskfile.yaml",
    ".gitlab-ci.yml",
    ".gitlab-ci.yaml",
    ".travis.yml",
    ".drone.yml",
    ".woodpecker.yml",
    ".woodpecker.yaml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "atlantis.yaml",
    "renovate.json",
    ".renovaterc",
    ".pre-commit-config.yaml",
    "countersign.yaml",
];

/// Folders (anywhere in the path) whose content is privileged, in lower case.
const FOLDERS: [&str; 15] = [
    ".git",
    ".github",
    ".gitlab",
    ".gitea",
    ".forgejo",
    ".circleci",
    ".buildkite",
    ".tekton",
    ".argo-ci",
    ".woodpecker",
    ".husky",
    ".teamcity",
    ".countersign",
    "countersign",
    ".ci",
];

/// API groups whose objects say who may do what, where manifests come from, or what is admitted.
const GROUPS: [&str; 10] = [
    "rbac.authorization.k8s.io",
    "argoproj.io",
    "kustomize.toolkit.fluxcd.io",
    "source.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
    "image.toolkit.fluxcd.io",
    "notification.toolkit.fluxcd.io",
    "fluxcd.controlplane.io",
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
];

/// Kinds outside those groups.
const KINDS: [&str; 6] = [
    "ServiceAccount",
    "CustomResourceDefinition",
    "CertificateSigningRequest",
    "ClusterPolicy",
    "PodSecurityPolicy",
    "Node",
];

/// Argo CD's group also holds Argo Rollouts and Workflows, which are workloads like others.
const ARGO_WORKLOADS: [&str; 7] = [
    "Rollout",
    "AnalysisTemplate",
    "ClusterAnalysisTemplate",
    "Experiment",
    "Workflow",
    "WorkflowTemplate",
    "CronWorkflow",
];

/// Why a change is privileged: the first such path or object. `extra` are further path prefixes
/// from the Repository's configuration. Paths are compared without regard to case, because some
/// file systems do the same.
pub fn privileged<'a>(
    paths: impl IntoIterator<Item = &'a str>,
    objects: impl IntoIterator<Item = &'a ObjectKey>,
    extra: &[String],
) -> Option<String> {
    for path in paths {
        if let Some(why) = path_reason(path, extra) {
            return Some(why);
        }
    }
    for o in objects {
        let group = GROUPS.contains(&o.group.as_str())
            && !(o.group == "argoproj.io" && ARGO_WORKLOADS.contains(&o.kind.as_str()));
        if group || KINDS.contains(&o.kind.as_str()) {
            return Some(format!("{} is a privileged kind ({})", crate::message::escape_name(&o.to_string()), o.kind));
        }
    }
    None
}

fn path_reason(path: &str, extra: &[String]) -> Option<String> {
    let shown = crate::message::escape_name(path);
    // Trailing dots and spaces vanish on some file systems, so they are no part of a name here.
    let parts: Vec<String> = path.split(['/', '\\']).map(|p| p.trim_end_matches(['.', ' ']).to_lowercase()).collect();
    let (name, folders) = parts.split_last()?;
    if !path.is_ascii() {
        return Some(format!("{shown} has characters outside ASCII in its path"));
    }
    if NAMES.contains(&name.as_str()) {
        return Some(format!("{shown} is a privileged file"));
    }
    if let Some(f) = folders.iter().find(|f| FOLDERS.contains(&f.as_str()) || f.starts_with("git~")) {
        return Some(format!("{shown} is below {f}, which is privileged"));
    }
    let folded = parts.join("/");
    extra
        .iter()
        .find(|e| {
            let e = e.trim_matches('/').to_lowercase();
            !e.is_empty() && folded.starts_with(&e)
        })
        .map(|e| {
            format!("{shown} is below {}, which the configuration calls privileged", crate::message::escape_name(e))
        })
}
