//! The files of a first configuration, as text. Functions over what was found and chosen.

use std::path::{Path, PathBuf};

use countersign_core::model::{Engine, ForgeKind};

use super::find::{Found, Repository};
use crate::config::API_VERSION;
use crate::git::Transport;

/// What may happen at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FirstLevel {
    /// Nothing is written: the patch is handed out, and a person commits it.
    Manual,
    /// A person is asked, and on a yes Countersign commits.
    Prompted,
}

/// What was found and chosen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clusters.
    pub clusters: Vec<Found>,
    /// Repositories.
    pub repositories: Vec<Repository>,
    /// Addresses that are no Git repository for Countersign.
    pub left: Vec<String>,
    /// The person who begins.
    pub person: String,
    /// The person's public SSH key.
    pub ssh_key: Option<String>,
    /// The agent.
    pub agent: String,
    /// SHA-256 of the agent's token.
    pub token_sha256: String,
    /// What may happen at first.
    pub level: FirstLevel,
    /// File with the token of https repositories.
    pub git_token: Option<PathBuf>,
    /// User of https.
    pub git_username: Option<String>,
    /// Forge of hosts that are not known by name.
    pub forge: Option<(ForgeKind, String)>,
    /// File with the forge's token.
    pub forge_token: Option<PathBuf>,
    /// File with the bot's token.
    pub bot_token: Option<PathBuf>,
    /// Another Bot API than Telegram's own.
    pub telegram_api: Option<String>,
}

/// One file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Path below the folder.
    pub path: String,
    /// Its text.
    pub text: String,
    /// For its owner alone.
    pub secret: bool,
}

fn file(path: &str, text: String) -> NewFile {
    NewFile { path: path.to_owned(), text, secret: false }
}

/// A value that means the same in every place of YAML: a JSON string.
fn q(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn path(p: &Path) -> String {
    q(&p.to_string_lossy())
}

/// One comment line: what is from elsewhere cannot end it.
fn remark(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn head(kind: &str, name: &str) -> String {
    format!("apiVersion: {API_VERSION}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
}

/// Name of the deploy key of a repository.
pub fn deploy_key(name: &str) -> String {
    format!("secrets/{name}_ed25519")
}

/// All files but the secrets.
pub fn render(plan: &Plan) -> Vec<NewFile> {
    vec![
        file("countersign.yaml", bootstrap(plan)),
        file("resources/clusters.yaml", clusters(plan)),
        file("resources/repositories.yaml", repositories(plan)),
        file("resources/people.yaml", people(plan)),
        file("resources/agents.yaml", agents(plan)),
        file("resources/channel.yaml", channel(plan)),
        file("policies/first-hour.yaml", policy(plan)),
        file("secrets/.gitignore", "# Nothing in here belongs into a repository.\n*\n".into()),
    ]
}

fn bootstrap(plan: &Plan) -> String {
    format!(
        "# Countersign's configuration, written by `countersign init`. docs/configuration.md has every key.\n\
         # `countersign doctor` tries all of it; `countersign reload` takes most changes over.\n\
         \n\
         # Journal, Git mirrors, sockets. On a local disk; back it up.\n\
         state_dir: state\n\
         # Clusters, repositories, people, agents, the channel.\n\
         resources: [resources]\n\
         # What agents may ask for, and who decides. Keep it where no agent can write.\n\
         policies: policies\n\
         # Signs commits and the journal.\n\
         signing_key: {{file: secrets/signing_ed25519}}\n\
         # Author and committer of commits.\n\
         committer: {{name: Countersign, email: countersign@localhost}}\n\
         # Which Agent an MCP client is that starts Countersign itself.\n\
         stdio_agent: {}\n\
         # Prometheus metrics and health without a token; for this machine only.\n\
         # metrics: 127.0.0.1:9090\n",
        plan.agent
    )
}

fn clusters(plan: &Plan) -> String {
    let mut out = String::from(
        "# The clusters that agents may look at. Countersign reads them; it changes them through Git alone.\n",
    );
    for c in &plan.clusters {
        let count = |engine| c.owners.get(&engine).copied().unwrap_or_default();
        let (argo, flux) = (count(Engine::Argocd), count(Engine::Flux));
        out.push_str("---\n");
        out.push_str(&format!(
            "# Kubernetes {}: {argo} Applications and {} ApplicationSets (Argo CD), {flux} owners of Flux.\n",
            remark(&c.version),
            c.sets
        ));
        out.push_str(&head("Cluster", &c.name));
        out.push_str(&format!("  kubeconfig: {}\n  context: {}\n", path(&c.kubeconfig), q(&c.context)));
        if c.planes.iter().any(|p| p != "argocd") {
            let planes: Vec<String> = c.planes.iter().map(|p| q(p)).collect();
            out.push_str(&format!("  argocd_namespaces: [{}]\n", planes.join(", ")));
        }
        out.push_str(
            "  # Ask the engine to look at once after a delivery; needs the role countersign-hints (docs/rbac.md).\n",
        );
        out.push_str("  hints: false\n");
        out.push_str("  # Labels that rules match, for example {env: prod}.\n  labels: {}\n");
    }
    out
}

fn repositories(plan: &Plan) -> String {
    let mut out = String::from(
        "# The only places that Countersign writes to. Agents never name one: it follows from who owns an object.\n",
    );
    for url in &plan.left {
        out.push_str(&format!(
            "# Left out, because it is no ssh or https address of a Git repository: {}\n",
            remark(url)
        ));
    }
    for r in &plan.repositories {
        out.push_str("---\n");
        let shown: Vec<&str> = r.owners.iter().map(String::as_str).take(4).collect();
        let more = r.owners.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        out.push_str(&format!("# Followed by {}{more}.\n", remark(&shown.join(", "))));
        for s in &r.spellings {
            out.push_str(&format!("# Also spelt {} (the same repository; needs no alias).\n", remark(s)));
        }
        out.push_str(&head("Repository", &r.name));
        out.push_str(&format!("  url: {}\n", q(&r.url)));
        let revisions: Vec<String> = r.revisions.iter().map(|b| q(b)).collect();
        out.push_str("  # Branches that may be written; none listed = whichever an owner follows.\n");
        out.push_str(&format!("  # branches: [{}]\n", remark(&revisions.join(", "))));
        out.push_str(&auth(plan, r));
        out.push_str(&forge(plan, r));
        out.push_str("  # Labels that rules match, for example {class: infrastructure}.\n  labels: {}\n");
    }
    out
}

fn auth(plan: &Plan, r: &Repository) -> String {
    if r.transport == Transport::Ssh {
        return format!(
            "  # A key of its own: add {key}.pub as a deploy key with write access.\n  auth:\n    ssh_key: {{file: {key}}}\n    known_hosts: {{file: secrets/known_hosts}}\n",
            key = deploy_key(&r.name)
        );
    }
    match &plan.git_token {
        Some(token) => {
            let user = plan.git_username.as_ref().map(|u| format!("    username: {}\n", q(u))).unwrap_or_default();
            format!("  auth:\n{user}    token: {{file: {}}}\n", path(token))
        }
        None => "  # Without a token only public repositories can be read, and none written (docs/git-auth.md).\n  # auth:\n  #   token: {file: secrets/git_token}\n".to_owned(),
    }
}

/// Kind and API of a forge that is known by its host.
pub fn known_forge(host: &str) -> Option<(ForgeKind, String)> {
    match host {
        "github.com" => Some((ForgeKind::Github, "https://api.github.com".into())),
        "codeberg.org" => Some((ForgeKind::Gitea, "https://codeberg.org/api/v1".into())),
        _ => None,
    }
}

/// The same, else as given.
fn forge_of(plan: &Plan, r: &Repository) -> Option<(ForgeKind, String)> {
    known_forge(&r.host).or_else(|| plan.forge.clone())
}

fn forge(plan: &Plan, r: &Repository) -> String {
    let named = r.path.split_once('/').filter(|(owner, repo)| !owner.is_empty() && !repo.contains('/'));
    let kind = |k| if k == ForgeKind::Github { "github" } else { "gitea" };
    let wanted = forge_of(plan, r);
    if let (Some((k, api)), Some((owner, repo)), Some(token)) = (&wanted, named, &plan.forge_token) {
        return format!(
            "  forge:\n    kind: {}\n    api_url: {}\n    owner: {}\n    repo: {}\n    token: {{file: {}}}\n",
            kind(*k),
            q(api),
            q(owner),
            q(repo),
            path(token)
        );
    }
    let (owner, repo) = named.unwrap_or(("OWNER", "REPOSITORY"));
    let (k, api) = wanted.map_or(("gitea", format!("https://{}/api/v1", r.host)), |(k, api)| (kind(k), api));
    format!(
        "  # Needed for pull requests; the rights of the token are in docs/git-auth.md.\n  # forge:\n  #   kind: {k}\n  #   api_url: {}\n  #   owner: {}\n  #   repo: {}\n  #   token: {{file: secrets/forge_token}}\n",
        q(&api),
        q(owner),
        q(repo)
    )
}

fn people(plan: &Plan) -> String {
    let key = match &plan.ssh_key {
        Some(key) => format!(
            "  # Signs approvals on the command line: countersign approve CHANGE --key FILE.\n  ssh_keys: [{}]\n",
            q(key)
        ),
        None => "  # Public SSH keys that sign approvals on the command line.\n  # ssh_keys: [\"ssh-ed25519 AAAA…\"]\n"
            .to_owned(),
    };
    format!(
        "# Who decides. Add a document for each person; rules name groups.\n---\n{}  groups: [approvers]\n{key}  # The Telegram account comes by `countersign people pair {}`.\n  # Login at the forge, whose merge counts as this person's yes.\n  # forge: LOGIN\n",
        head("Person", &plan.person),
        plan.person
    )
}

fn agents(plan: &Plan) -> String {
    format!(
        "# Who may ask. The sponsor answers for the agent.\n---\n{}  sponsor: {}\n  # SHA-256 of the token in secrets/{}_token, for MCP over HTTP.\n  token_sha256: {}\n  # What it may see and ask about; none listed = everything.\n  # sees: [\"CLUSTER/NAMESPACE\"]\n",
        head("Agent", &plan.agent),
        plan.person,
        plan.agent,
        q(&plan.token_sha256)
    )
}

fn channel(plan: &Plan) -> String {
    let about = "# Where people are asked. Make a bot with Telegram's BotFather; its token stays in a file.\n";
    let api = plan.telegram_api.as_ref().map(|a| format!("  api_url: {}\n", q(a))).unwrap_or_default();
    match &plan.bot_token {
        Some(token) => {
            format!(
                "{about}---\n{}  kind: telegram\n  token: {{file: {}}}\n{api}",
                head("Channel", "telegram"),
                path(token)
            )
        }
        None => format!(
            "{about}# Without it people decide on the command line.\n#---\n#apiVersion: {API_VERSION}\n#kind: Channel\n#metadata: {{name: telegram}}\n#spec: {{kind: telegram, token: {{file: secrets/bot_token}}}}\n"
        ),
    }
}

fn policy(plan: &Plan) -> String {
    let head = "# The first rules. policies/ of the repository has worked examples for what comes next;\n# docs/policy.md has every word. Check with `countersign policy check`.\nversion: 1\n";
    let rules = match plan.level {
        FirstLevel::Manual => {
            "# Only where no rule matches.\ndefault: {level: deny}\nrules:\n# Countersign writes nothing: it hands out the patch, tells the approvers, recognises the commit that a\n# person makes of it, and watches that. Change the level to `prompted` and add\n#   approve: {from: [approvers], count: 1, expires: 1h, allow_sponsor: true}\n# once you trust it.\n- id: first-hour\n  match: {}\n  level: manual\n  tell: [approvers]\ntests:\n- name: an image is left to a person\n  given: {operation: set_image, risk: high}\n  expect: {level: manual, rule: first-hour}\n"
        }
        FirstLevel::Prompted => {
            "# Only where no rule matches.\ndefault: {level: deny}\nrules:\n# One yes of an approver, then Countersign commits to the branch itself. `allow_sponsor` lets the person who\n# answers for the agent decide alone, and every card says so: remove it once there are two of you.\n- id: first-hour\n  match:\n    operation: [set_image, scale, set_resources, set_env, annotate, label, restart]\n    risk: [low, medium, high]\n  level: prompted\n  approve: {from: [approvers], count: 1, expires: 1h, remind: 15m, allow_sponsor: true}\n  deliver: direct\n  caps: {files: 2, lines: 40, objects: 2}\n  tell: [approvers]\n# Everything else: nothing is written, the patch is handed out.\n- id: by-hand\n  match: {operation: [set_field, create, delete]}\n  level: manual\n  tell: [approvers]\n- id: critical-by-hand\n  match: {risk: critical}\n  level: manual\n  tell: [approvers]\ntests:\n- name: an image is asked about\n  given: {operation: set_image, risk: high}\n  expect: {level: prompted, rule: first-hour, deliver: direct, count: 1, from: [approvers]}\n- name: a deletion is left to a person\n  given: {operation: delete, risk: high}\n  expect: {level: manual, rule: by-hand}\n- name: what is critical is left to a person\n  given: {operation: set_image, risk: critical}\n  expect: {level: manual, rule: critical-by-hand}\n"
        }
    };
    format!("{head}{rules}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::find::repositories as fold;
    use std::collections::{BTreeMap, BTreeSet};

    fn plan(level: FirstLevel, with: bool) -> Plan {
        let url = |u: &str, o: &str| (u.to_owned(), o.to_owned(), "main".to_owned());
        let found = Found {
            name: "prod".into(),
            context: "admin@prod \"eu\"".into(),
            kubeconfig: "/home/anna/.kube/config".into(),
            version: "v1.33.1".into(),
            owners: BTreeMap::from([(Engine::Argocd, 2), (Engine::Flux, 1)]),
            sets: 1,
            planes: BTreeSet::from(["argocd".to_owned(), "team-cd".to_owned()]),
            followed: vec![
                url("git@github.com:acme/shop.git", "Application argocd/shop"),
                url("https://github.com/acme/shop", "Kustomization flux-system/shop"),
                url("https://git.example/acme/infra.git", "Application argocd/infra"),
                url("oci://reg.example/charts", "HelmRelease a/b"),
            ],
        };
        let clusters = vec![found];
        let (repositories, left) = fold(&clusters, false);
        let given = |p: &str| with.then(|| PathBuf::from(p));
        Plan {
            clusters,
            repositories,
            left,
            person: "anna".into(),
            ssh_key: with.then(|| {
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVSPoKjyGw4zp9rYFbfpOohKgXYf/BJawAs8qFP6R2h anna@laptop"
                    .to_owned()
            }),
            agent: "assistant".into(),
            token_sha256: "0".repeat(64),
            level,
            git_token: given("/t/git"),
            git_username: with.then(|| "x-access-token".to_owned()),
            forge: with.then(|| (ForgeKind::Gitea, "https://git.example/api/v1".to_owned())),
            forge_token: given("/t/forge"),
            bot_token: given("/t/bot"),
            telegram_api: None,
        }
    }

    fn shown(plan: &Plan) -> String {
        render(plan).iter().map(|f| format!("=== {}\n{}", f.path, f.text)).collect()
    }

    #[test]
    fn the_bare_start() {
        insta::assert_snapshot!(shown(&plan(FirstLevel::Manual, false)));
    }

    #[test]
    fn the_start_with_everything_given() {
        insta::assert_snapshot!(shown(&plan(FirstLevel::Prompted, true)));
    }

    #[test]
    fn every_start_loads_and_passes_its_own_policy_tests_without_a_finding_that_is_a_mistake() {
        use countersign_core::policy::{Severity, check, run_tests};
        // Prompted without any way to answer is refused before anything is written.
        for (level, ways) in [(FirstLevel::Manual, &[false, true][..]), (FirstLevel::Prompted, &[true][..])] {
            for with in ways.iter().copied() {
                let dir = tempfile::tempdir().unwrap();
                for f in render(&plan(level, with)) {
                    let place = dir.path().join(&f.path);
                    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                    std::fs::write(place, f.text).unwrap();
                }
                let config = crate::config::Config::load(&dir.path().join("countersign.yaml")).unwrap();
                assert_eq!(config.repositories.len(), 2);
                assert_eq!(config.clusters[0].spec.context.as_deref(), Some("admin@prod \"eu\""));
                assert_eq!(config.channels.len(), usize::from(with));
                let outcomes = run_tests(&config.policies);
                assert!(!outcomes.is_empty());
                assert!(outcomes.iter().all(|t| t.failures.is_empty()), "{outcomes:?}");
                let findings = check(&config.policies, &config.people, 0);
                assert!(findings.iter().all(|f| f.severity != Severity::Error), "{findings:?}");
            }
        }
    }
}
