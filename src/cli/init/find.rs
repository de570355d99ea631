//! What a kubeconfig and its clusters tell: contexts, engines, repositories. Functions over what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use countersign_core::model::{ClusterSpec, Engine};
use countersign_core::{Problem, Result};
use kube::config::Kubeconfig;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::git::{RemoteUrl, Transport};

/// A context of a kubeconfig, and the file that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its name there.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// It is the current one.
    pub current: bool,
}

/// What one cluster tells.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Name that the Cluster gets.
    pub name: String,
    /// Context.
    pub context: String,
    /// kubeconfig file.
    pub kubeconfig: PathBuf,
    /// Version of Kubernetes.
    pub version: String,
    /// Owners by engine.
    pub owners: BTreeMap<Engine, usize>,
    /// ApplicationSets.
    pub sets: usize,
    /// Namespaces of Argo CD's control planes, where Applications name any.
    pub planes: BTreeSet<String>,
    /// Address as written, what follows it, and at which revision.
    pub followed: Vec<(String, String, String)>,
}

/// One repository, however it is spelt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Name that the Repository gets.
    pub name: String,
    /// The spelling that is used.
    pub url: String,
    /// How it is reached.
    pub transport: Transport,
    /// Host, without port.
    pub host: String,
    /// Port, where written.
    pub port: Option<u16>,
    /// Path at the host, without `.git`.
    pub path: String,
    /// Other spellings.
    pub spellings: Vec<String>,
    /// What owners follow.
    pub revisions: BTreeSet<String>,
    /// Who follows it.
    pub owners: Vec<String>,
}

/// The files that `kubectl` would read.
pub fn kubeconfig_files(given: Option<&Path>, env: Option<&std::ffi::OsStr>, home: &Path) -> Vec<PathBuf> {
    match (given, env) {
        (Some(file), _) => vec![file.to_owned()],
        (None, Some(list)) if !list.is_empty() => std::env::split_paths(list).filter(|p| p.is_file()).collect(),
        _ => vec![home.join(".kube/config")],
    }
}

/// Every context of the files; the current one is that of the first file that names one.
pub fn contexts(files: &[PathBuf]) -> Result<Vec<Context>> {
    let mut out: Vec<Context> = Vec::new();
    let mut current: Option<String> = None;
    for file in files {
        let read = Kubeconfig::read_from(file).map_err(|e| {
            Problem::new(
                "init.kubeconfig",
                format!("{} cannot be read as a kubeconfig: {e}.", file.display()),
                "Name another one with --kubeconfig.",
            )
        })?;
        current = current.or(read.current_context.filter(|c| !c.is_empty()));
        for context in read.contexts {
            if !out.iter().any(|c| c.name == context.name) {
                let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                out.push(Context { current: false, name: context.name, file });
            }
        }
    }
    for c in &mut out {
        c.current = Some(&c.name) == current.as_ref();
    }
    if out.is_empty() {
        return Err(Problem::new(
            "init.no_context",
            "The kubeconfig has no context.",
            "Name another one with --kubeconfig.",
        ));
    }
    Ok(out)
}

/// A name for a resource, out of a name from elsewhere (an ARN, a path): its last part, with what is not allowed
/// replaced.
pub fn plain(name: &str) -> String {
    let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let clean: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect();
    let clean = clean.trim_matches(['-', '.', '_']);
    if clean.is_empty() { "unnamed".to_owned() } else { clean.chars().take(60).collect() }
}

/// The same, and not one of those that are taken.
pub fn unique(wanted: String, taken: &BTreeSet<String>) -> String {
    let mut name = wanted.clone();
    let mut n = 2;
    while taken.contains(&name) {
        name = format!("{wanted}-{n}");
        n += 1;
    }
    name
}

/// Looks at the cluster of a context. Reads only.
pub async fn look(context: &Context, name: &str) -> Result<Found> {
    let file = context.file.to_string_lossy().into_owned();
    let spec = ClusterSpec { kubeconfig: Some(file), context: Some(context.name.clone()), ..ClusterSpec::default() };
    let at = |p: Problem| Problem { message: format!("Context {}: {}", context.name, p.message), ..p };
    let cluster = Cluster::connect(name, spec).await.map_err(at)?;
    let found = read(&cluster, context, name).await.map_err(at);
    cluster.close().await;
    found
}

async fn read(cluster: &Cluster, context: &Context, name: &str) -> Result<Found> {
    let about = cluster.about().await?;
    cluster.ready().await?;
    let mut found = Found {
        name: name.to_owned(),
        context: context.name.clone(),
        kubeconfig: context.file.clone(),
        version: about.version,
        ..Found::default()
    };
    found.owners = cluster.owner_counts().into_iter().map(|(engine, count)| (engine, count.all)).collect();
    for f in cluster.followed() {
        let owner = f.owner.map_or_else(|| "nobody yet".to_owned(), |o| o.to_string());
        found.followed.push((f.url, owner, f.revision));
    }
    let sets = cluster.list("argoproj.io", "ApplicationSet", "", "").await?;
    found.sets = sets.len();
    for set in &sets {
        found.followed.extend(of_set(set));
    }
    for app in cluster.list("argoproj.io", "Application", "", "").await? {
        let plane = app.pointer("/status/controllerNamespace").and_then(Value::as_str);
        found.planes.extend(plane.map(str::to_owned));
    }
    Ok(found)
}

/// Repositories that an ApplicationSet names in plain words: its Git generators and its template. What it makes up
/// from parameters is found at its Applications.
fn of_set(set: &Value) -> Vec<(String, String, String)> {
    let name = set.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let mut out = Vec::new();
    let mut stack = vec![set.pointer("/spec/generators"), set.pointer("/spec/template/spec")];
    while let Some(at) = stack.pop() {
        match at {
            Some(Value::Object(map)) => {
                let word = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
                let url = word("repoURL");
                if !url.is_empty() && !url.contains("{{") && word("chart").is_empty() {
                    let revision = [word("targetRevision"), word("revision")].into_iter().find(|r| !r.is_empty());
                    let revision = revision.filter(|r| !r.contains("{{")).unwrap_or_default();
                    out.push((url.to_owned(), format!("ApplicationSet {name}"), revision.to_owned()));
                }
                stack.extend(map.values().map(Some));
            }
            Some(Value::Array(items)) => stack.extend(items.iter().map(Some)),
            _ => {}
        }
    }
    out
}

/// The address without a credential in it.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http") => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        _ => url.to_owned(),
    }
}

/// An address, as it is written, who follows it, and at which revision.
type Use = (RemoteUrl, String, String, String);

/// The repositories of all clusters, each once, whatever the spelling. What is no Git address that Countersign
/// speaks (OCI, charts, plain http) is left out and told. `https` prefers that spelling where there are both.
pub fn repositories(found: &[Found], https: bool) -> (Vec<Repository>, Vec<String>) {
    let mut by_key: BTreeMap<(String, String), Vec<Use>> = BTreeMap::new();
    let mut left = BTreeSet::new();
    for (url, owner, revision) in found.iter().flat_map(|f| &f.followed) {
        let clean = without_credentials(url);
        match RemoteUrl::parse(&clean) {
            Ok(parsed) if parsed.transport != Transport::Local => {
                by_key.entry(parsed.key()).or_default().push((parsed, clean, owner.clone(), revision.clone()));
            }
            _ => {
                left.insert(clean.chars().filter(|c| !c.is_control()).take(120).collect());
            }
        }
    }
    let mut out: Vec<Repository> = Vec::new();
    let mut taken = BTreeSet::new();
    for uses in by_key.into_values() {
        let wanted = |u: &RemoteUrl| (u.transport == Transport::Ssh) != https;
        let Some((url, spelt, ..)) = uses.iter().find(|(u, ..)| wanted(u)).or(uses.first()) else { continue };
        let path = url.key().1;
        let last = plain(&path);
        let owner = path.rsplit('/').nth(1).map(plain);
        let name = match owner {
            Some(owner) if taken.contains(&last) => unique(format!("{owner}-{last}"), &taken),
            _ => unique(last, &taken),
        };
        taken.insert(name.clone());
        let mut spellings: Vec<String> = uses.iter().map(|(_, s, ..)| s.clone()).filter(|s| s != spelt).collect();
        spellings.sort();
        spellings.dedup();
        let mut owners: Vec<String> = uses.iter().map(|(_, _, o, _)| o.clone()).collect();
        owners.sort();
        owners.dedup();
        out.push(Repository {
            name,
            url: spelt.clone(),
            transport: url.transport,
            host: url.host.clone(),
            port: url.port,
            path: url.path.trim_matches('/').trim_end_matches(".git").to_owned(),
            spellings,
            revisions: uses.iter().map(|(.., r)| r.clone()).filter(|r| !r.is_empty()).collect(),
            owners,
        });
    }
    (out, left.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(urls: &[&str]) -> Found {
        let followed = urls.iter().map(|u| ((*u).to_owned(), format!("app {u}"), "main".to_owned())).collect();
        Found { followed, ..Found::default() }
    }

    #[test]
    fn spellings_of_one_repository_are_one_entry() {
        let urls =
            ["https://github.com/Acme/Shop.git", "git@github.com:acme/shop", "ssh://git@github.com:22/acme/shop.git"];
        for (https, url, others) in [(true, urls[0], 2), (false, urls[1], 2)] {
            let (repos, left) = repositories(&[found(&urls)], https);
            assert_eq!(repos.len(), 1);
            assert_eq!(left, Vec::<String>::new());
            let r = &repos[0];
            assert_eq!((r.name.as_str(), r.url.as_str(), r.spellings.len()), ("shop", url, others));
            assert_eq!(r.owners.len(), 3);
        }
    }

    #[test]
    fn a_credential_in_an_address_goes_nowhere() {
        let (repos, _) = repositories(&[found(&["https://bot:s3cret@git.example/acme/shop"])], true);
        assert_eq!(repos[0].url, "https://git.example/acme/shop");
        assert!(!format!("{repos:?}").replace("app https://bot:s3cret", "").contains("s3cret"));
    }

    #[test]
    fn what_is_no_git_address_is_told_and_names_never_collide() {
        let urls = [
            "oci://reg.example/charts",
            "http://plain.example/a/b",
            "https://a.example/x/app",
            "https://b.example/y/app",
            "https://b.example/y-x/app",
        ];
        let (repos, left) = repositories(&[found(&urls)], true);
        let names: Vec<&str> = repos.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["app", "y-x-app", "y-app"]);
        assert_eq!(left, ["http://plain.example/a/b", "oci://reg.example/charts"]);
    }

    #[test]
    fn an_application_set_tells_its_own_repositories_and_no_made_up_ones() {
        let set = json!({"metadata": {"name": "all"}, "spec": {
            "generators": [{"matrix": {"generators": [{"git": {"repoURL": "https://g.example/a/sets", "revision": "HEAD"}}, {"list": {}}]}}],
            "template": {"spec": {"source": {"repoURL": "{{url}}"}, "sources": [
                {"repoURL": "https://charts.example", "chart": "x"},
                {"repoURL": "https://g.example/a/values", "targetRevision": "main"}]}}}});
        let mut got = of_set(&set);
        got.sort();
        let owner = || "ApplicationSet all".to_owned();
        assert_eq!(
            got,
            [
                ("https://g.example/a/sets".to_owned(), owner(), "HEAD".to_owned()),
                ("https://g.example/a/values".to_owned(), owner(), "main".to_owned())
            ]
        );
    }

    #[test]
    fn names_from_elsewhere_become_plain() {
        for (from, to) in [
            ("arn:aws:eks:eu-1:1:cluster/prod", "prod"),
            ("kind-dev", "kind-dev"),
            ("admin@home lab", "admin-home-lab"),
            ("///", "unnamed"),
            ("ü", "unnamed"),
        ] {
            assert_eq!(plain(from), to);
        }
        let taken = BTreeSet::from(["a".to_owned(), "a-2".to_owned()]);
        assert_eq!(unique("a".into(), &taken), "a-3");
    }

    #[test]
    fn contexts_of_several_files_are_told_with_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, context: &str, current: &str| {
            let place = dir.path().join(name);
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: \"{current}\"\nclusters: []\nusers: []\ncontexts:\n- name: {context}\n  context: {{cluster: c, user: u}}\n"
            );
            std::fs::write(&place, text).unwrap();
            place
        };
        let files = [file("a", "dev", ""), file("b", "prod", "prod")];
        let all = contexts(&files).unwrap();
        let told: Vec<(&str, bool)> = all.iter().map(|c| (c.name.as_str(), c.current)).collect();
        assert_eq!(told, [("dev", false), ("prod", true)]);
        assert!(all[1].file.ends_with("b"));
        assert_eq!(contexts(&[dir.path().join("none")]).unwrap_err().code, "init.kubeconfig");
        let list = std::env::join_paths(&files).unwrap();
        assert_eq!(kubeconfig_files(None, Some(&list), dir.path()), files);
        assert_eq!(kubeconfig_files(Some(&files[0]), Some(&list), dir.path()), files[..1]);
    }
}
