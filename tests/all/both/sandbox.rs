//! The back end made of the sandbox's servers: one set of them for each place.

use std::time::Duration;

use async_trait::async_trait;
use countersign::sandbox::cluster::access::Denial;
use countersign::sandbox::cluster::{ClusterOptions, ClusterSandbox, Engine};
use countersign::sandbox::forge::{self, Forge, ForgeOptions, ForgeUser, Protection, UserKind};
use countersign::sandbox::git::{self, Author, FileChange, GitOptions, GitServer, GitUser};
use tokio::sync::SemaphorePermit;

use super::place::{Backend, Login, Pace, Part, Repository};
use super::rights::Rights;

/// Divides the engines' waits.
const SPEED: f64 = 10.0;

/// Bearer tokens: of the tests, who may do everything, and of an account that is held to its rights.
const TOKENS: [&str; 2] = ["a-test", "d-account"];
const ACCOUNT: &str = "system:serviceaccount:countersign:countersign";

/// Cluster, Git server and forge of one place.
pub struct Sandbox {
    cluster: ClusterSandbox,
    git: GitServer,
    forge: Forge,
    logins: [Login; 3],
    _turn: SemaphorePermit<'static>,
}

impl Sandbox {
    pub async fn start() -> Self {
        let turn = crate::world::turn().await;
        let logins = ["countersign-bot", "jon", "anna"]
            .map(|name| Login { login: name.into(), token: format!("{name}-{:032x}", rand::random::<u128>()) });
        let users = logins.iter().map(|l| GitUser { login: l.login.clone(), token: l.token.clone(), can_write: true });
        let options = GitOptions { users: users.collect(), anonymous_read: true, ..GitOptions::default() };
        let git = git::start(options).await.unwrap();
        let users = logins.iter().map(|l| ForgeUser {
            kind: if l.login.ends_with("-bot") { UserKind::Bot } else { UserKind::User },
            ..ForgeUser::person(&l.login, &l.token)
        });
        let options = ForgeOptions {
            recheck: Duration::from_millis(300),
            ..ForgeOptions::new(git.repos().clone(), git.url(), users.collect())
        };
        let forge = forge::start(options).await.unwrap();
        let [admin, account] = TOKENS.map(str::to_owned);
        let tokens = [(admin, "sandbox-admin".to_owned()), (account, ACCOUNT.to_owned())].into();
        let options = ClusterOptions { speed: SPEED, tokens, ..ClusterOptions::default() };
        let cluster = ClusterSandbox::start(options).await.unwrap_or_else(|p| panic!("{p}"));
        Self { cluster, git, forge, logins, _turn: turn }
    }
}

#[async_trait]
impl Backend for Sandbox {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn pace(&self) -> Pace {
        Pace { observe_s: 60, stable_s: 1, grace_s: 1, deliver_s: 40, patience_s: 40 }
    }

    fn admin_kubeconfig(&self) -> String {
        self.cluster.kubeconfig_yaml()
    }

    fn daemon_kubeconfig(&self) -> String {
        self.cluster.kubeconfig_yaml()
    }

    async fn account(&self, place: &str) -> String {
        self.allow(place, &Rights::given()).await;
        let [admin, account] = TOKENS;
        self.cluster.kubeconfig_yaml().replace(admin, account)
    }

    async fn allow(&self, _place: &str, rights: &Rights) {
        let held = rights.held();
        let state = self.cluster.state();
        state.access.allow_all();
        for kind in state.store.kinds.all() {
            for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
                if !held.contains(&(kind.resource(), verb.to_owned())) {
                    let (verb, user) = (verb.to_owned(), Some(ACCOUNT.to_owned()));
                    state.access.deny(Denial { verb, resource: kind.resource(), namespace: None, user });
                }
            }
        }
    }

    async fn repository(&self, name: &str) -> Repository {
        let full = format!("acme/{name}");
        let first = [FileChange::write("README.md", b"# A place\n")];
        self.git.repos().create(&full, "main", &first, &Author::new("Anna", "anna@example.test")).unwrap();
        let [bot, jon, anna] = self.logins.clone();
        Repository {
            owner: "acme".into(),
            name: name.into(),
            url: self.git.repo_url(&full),
            api_url: self.forge.gitea_url(),
            bot,
            jon,
            anna,
        }
    }

    async fn protect(&self, repository: &Repository, branch: &str) {
        let full = format!("{}/{}", repository.owner, repository.name);
        self.forge.protect(&full, branch, Some(Protection::default())).unwrap();
    }

    async fn stop(&self, part: Part) {
        match part {
            Part::Argocd => self.cluster.pause_engine(Engine::Argocd, true),
            Part::Flux => self.cluster.pause_engine(Engine::Flux, true),
            Part::ApiServer => self.cluster.state().set_available(false),
        }
    }

    async fn start(&self, part: Part) {
        match part {
            Part::Argocd => self.cluster.restart_engine(Engine::Argocd),
            Part::Flux => self.cluster.restart_engine(Engine::Flux),
            Part::ApiServer => self.cluster.state().set_available(true),
        }
    }
}
