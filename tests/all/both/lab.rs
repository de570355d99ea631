//! The back end made of the real components: one lab for all places, shared by them.

use std::path::Path;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit};

use super::place::{Backend, Login, Pace, Part, Repository};
use crate::lab::{ARGOCD, FLUX, Lab};

/// Who owns the repositories.
const OWNER: &str = "acme";
/// Places at the same time: more of them would only wait for each other on a small machine.
static PLACES: Semaphore = Semaphore::const_new(4);
/// Scenarios that stop parts have the lab for themselves.
static ALONE: RwLock<()> = RwLock::const_new(());
/// The daemon's rights, once for all.
static RIGHTS: OnceCell<()> = OnceCell::const_new();

enum Turn {
    Shared { _one: RwLockReadGuard<'static, ()>, _place: SemaphorePermit<'static> },
    Alone { _all: RwLockWriteGuard<'static, ()> },
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

/// The objects of the deployment that say what the daemon may do.
async fn rights(lab: &Lab) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "countersign"}});
    sure(lab.apply(&namespace).await);
    for file in ["rbac.yaml", "argocd.yaml", "hints.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for object in objects.into_iter().filter(Value::is_object) {
            sure(lab.apply(&object).await);
        }
    }
}

impl Real {
    pub async fn start(alone: bool) -> Self {
        let turn = if alone {
            Turn::Alone { _all: ALONE.write().await }
        } else {
            Turn::Shared { _place: PLACES.acquire().await.unwrap(), _one: ALONE.read().await }
        };
        let lab = sure(Lab::attach_or_start().await);
        RIGHTS.get_or_init(|| rights(&lab)).await;
        let daemon = sure(lab.token_kubeconfig("countersign", "countersign").await);
        let mut logins = Vec::new();
        for login in ["countersign-bot", "jon", "anna"] {
            let account = sure(lab.gitea().account(login).await);
            logins.push(Login { login: account.login, token: account.token });
        }
        let logins = <[Login; 3]>::try_from(logins).unwrap();
        Self { lab, daemon, logins, _turn: turn }
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
        "lab"
    }

    fn pace(&self) -> Pace {
        Pace { observe_s: 240, stable_s: 3, grace_s: 5, deliver_s: 60, patience_s: 240 }
    }

    fn admin_kubeconfig(&self) -> String {
        std::fs::read_to_string(self.lab.admin_kubeconfig()).unwrap()
    }

    fn daemon_kubeconfig(&self) -> String {
        self.daemon.clone()
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
