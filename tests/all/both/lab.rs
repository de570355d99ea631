//! The back end made of the real components: one lab for all places, shared by them. Or, with
//! `COUNTERSIGN_LAB_KUBECONFIG`, somebody's cluster, on which nothing is stopped and nothing of others is written to.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit};

use super::place::{Backend, Login, Pace, Part, Repository};
use super::rights::Rights;
use super::ssh::Ssh;
use crate::lab::{ARGOCD, FLUX, Guest, Lab};

/// Who owns the repositories.
const OWNER: &str = "acme";
/// Places at the same time: more of them would only wait for each other on a small machine.
static PLACES: Semaphore = Semaphore::const_new(10);
/// Scenarios that stop parts have the lab for themselves: after the others, in whose way they would be otherwise. A
/// lock that gives turns in the order of asking would let the lab run empty before each of them.
static ALONE: RwLock<()> = RwLock::const_new(());
/// The daemon's rights, once for all.
static RIGHTS: OnceCell<()> = OnceCell::const_new();

enum Turn {
    Shared { _one: RwLockReadGuard<'static, ()>, _place: SemaphorePermit<'static> },
    Alone { _all: RwLockWriteGuard<'static, ()> },
}

/// The lab for a test that makes no place in it, while no scenario stops parts of it. One for a test: a scenario that
/// waits to be alone would stand between two.
pub struct Shared {
    lab: Lab,
    _one: RwLockReadGuard<'static, ()>,
}

impl std::ops::Deref for Shared {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Waits until the lab is whole.
pub async fn shared() -> Shared {
    let _one = ALONE.read().await;
    Shared { lab: sure(Lab::attach_or_start().await), _one }
}

/// The lab, and a turn in it.
pub struct Real {
    lab: Lab,
    daemon: String,
    logins: [Login; 3],
    _turn: Turn,
}

fn sure<T>(done: countersign_core::Result<T>) -> T {
    done.unwrap_or_else(|p| panic!("{p} {:?}", p.evidence))
}

/// The objects of the deployment that say what the daemon may do; `name` takes the place of the account, its
/// namespace, its roles, and the label by which its read role gathers rules.
async fn rights(lab: &Lab, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    sure(lab.apply(&namespace).await);
    for file in ["rbac.yaml", "argocd.yaml", "hints.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap().replace("countersign", name);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for mut object in objects.into_iter().filter(Value::is_object) {
            if object["metadata"]["namespace"] == "argocd" {
                object["metadata"]["namespace"] = json!(lab.argocd());
            }
            sure(lab.apply(&object).await);
        }
    }
}

/// The lab, once nobody else is in it, nor asks for it.
async fn alone_in_the_end() -> RwLockWriteGuard<'static, ()> {
    loop {
        // Not `write`: who waits in that queue holds up those who come later and would share.
        if let Ok(all) = ALONE.try_write() {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Real {
    pub async fn start(alone: bool) -> Self {
        let turn = if alone {
            Turn::Alone { _all: alone_in_the_end().await }
        } else {
            Turn::Shared { _place: PLACES.acquire().await.unwrap(), _one: ALONE.read().await }
        };
        let lab = sure(Lab::attach_or_start().await);
        let name = lab.guest().map_or_else(|| "countersign".to_owned(), Guest::name);
        RIGHTS.get_or_init(|| rights(&lab, &name)).await;
        let daemon = sure(lab.token_kubeconfig(&name, &name).await);
        let mut logins = Vec::new();
        for login in ["countersign-bot", "jon", "anna"] {
            let account = sure(lab.gitea().account(login).await);
            logins.push(Login { login: account.login, token: account.token });
        }
        let logins = <[Login; 3]>::try_from(logins).unwrap();
        Self { lab, daemon, logins, _turn: turn }
    }

    /// Waits until the API server lets the account do just this: roles reach its authorizer a moment later.
    async fn holds_to(&self, user: &str, rights: &Rights) {
        let held = rights.held();
        let reviews: Api<SubjectAccessReview> = Api::all(sure(self.lab.client().await));
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        for (resource, verb) in Rights::given().held() {
            let (plural, group) = resource.split_once('.').unwrap_or((resource.as_str(), ""));
            let attributes = json!({"namespace": "default", "verb": verb, "group": group, "resource": plural});
            let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
            let review: SubjectAccessReview = serde_json::from_value(review).unwrap();
            let wanted = held.contains(&(resource.clone(), verb.clone()));
            loop {
                let seen = reviews.create(&Default::default(), &review).await.unwrap();
                if seen.status.is_some_and(|s| s.allowed) == wanted {
                    break;
                }
                assert!(tokio::time::Instant::now() < end, "{verb} {resource} for {user} is not {wanted}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn components(part: Part) -> &'static [&'static str] {
        match part {
            Part::Argocd => &ARGOCD,
            Part::Flux => &FLUX,
            Part::ApiServer => &["kube-apiserver"],
        }
    }
}

#[async_trait]
impl Backend for Real {
    fn name(&self) -> &'static str {
        if self.lab.guest().is_some() { "foreign cluster" } else { "lab" }
    }

    fn prefix(&self) -> String {
        self.lab.guest().map_or_else(|| "p".into(), Guest::name)
    }

    fn argocd(&self) -> String {
        self.lab.argocd().to_owned()
    }

    fn host(&self) -> String {
        self.lab.host().to_owned()
    }

    fn scheduler(&self) -> Option<String> {
        self.lab.guest().map(Guest::name)
    }

    fn mark(&self, object: &mut Value) {
        if let Some(guest) = self.lab.guest() {
            guest.mark(object);
        }
    }

    fn check(&self, kind: &str, namespace: &str, name: &str) {
        if let Some(guest) = self.lab.guest() {
            sure(guest.check(kind, namespace, name));
        }
    }

    fn pace(&self) -> Pace {
        if self.lab.guest().is_some() {
            // Engines as they are installed: Argo CD looks again after three minutes, and up to one more.
            return Pace { observe_s: 420, stable_s: 3, grace_s: 5, deliver_s: 60, patience_s: 420 };
        }
        Pace { observe_s: 240, stable_s: 3, grace_s: 5, deliver_s: 60, patience_s: 240 }
    }

    fn admin_kubeconfig(&self) -> String {
        std::fs::read_to_string(self.lab.admin_kubeconfig()).unwrap()
    }

    fn daemon_kubeconfig(&self) -> String {
        self.daemon.clone()
    }

    async fn account(&self, place: &str) -> String {
        rights(&self.lab, place).await;
        self.holds_to(&format!("system:serviceaccount:{place}:{place}"), &Rights::given()).await;
        sure(self.lab.token_kubeconfig(place, place).await)
    }

    async fn allow(&self, place: &str, rights: &Rights) {
        let api = "rbac.authorization.k8s.io/v1";
        for (set, rules) in &rights.0 {
            let object = match *set {
                "controlplane" => json!({"apiVersion": api, "kind": "Role", "rules": rules,
                    "metadata": {"name": format!("{place}-argocd"), "namespace": self.lab.argocd()}}),
                set => json!({"apiVersion": api, "kind": "ClusterRole", "rules": rules,
                    "metadata": {"name": format!("{place}-{set}")}}),
            };
            sure(self.lab.merge(&object).await);
        }
        self.holds_to(&format!("system:serviceaccount:{place}:{place}"), rights).await;
    }

    async fn repository(&self, name: &str) -> Repository {
        let gitea = self.lab.gitea();
        sure(gitea.create_repo(OWNER, name, false).await);
        for login in &self.logins {
            let account = crate::lab::Account { login: login.login.clone(), token: login.token.clone() };
            sure(gitea.let_in(OWNER, name, &account, "write").await);
        }
        let [bot, jon, anna] = self.logins.clone();
        Repository {
            owner: OWNER.into(),
            name: name.into(),
            url: gitea.clone_url(OWNER, name),
            api_url: gitea.api_url(),
            bot,
            jon,
            anna,
        }
    }

    async fn ssh(&self, repository: &Repository) -> Option<Ssh> {
        let (key, public) = Ssh::key();
        let (gitea, bot) = (self.lab.gitea(), &repository.bot);
        let account = crate::lab::Account { login: bot.login.clone(), token: bot.token.clone() };
        sure(gitea.add_ssh_key(&account, &public).await);
        let url = gitea.ssh_url(&repository.owner, &repository.name);
        Some(Ssh { url, key, known_hosts: sure(gitea.known_hosts()) })
    }

    async fn protect(&self, repository: &Repository, branch: &str) {
        sure(self.lab.gitea().protect_branch(&repository.owner, &repository.name, branch, &json!({})).await);
    }

    async fn stop(&self, part: Part) {
        for component in Self::components(part) {
            sure(self.lab.stop(component).await);
        }
    }

    async fn start(&self, part: Part) {
        for component in Self::components(part) {
            sure(self.lab.start_again(component).await);
        }
    }
}
