//! Countersign's own Git over ssh: a key, and a host key that is pinned. On the lab alone, whose forge has an ssh
//! server; engines and people go on over HTTP, by another spelling of the same address.

use serde_json::{Value, json};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::apps::{Engine, NEW, NEWER, Shape};
use super::place::{Place, Wish, refusal, text};
use super::through::{ENDS, approved};
use super::truth::Want;

/// How the repository is reached over ssh.
pub struct Ssh {
    pub url: String,
    /// In OpenSSH's format.
    pub key: String,
    pub known_hosts: String,
}

impl Ssh {
    /// A new private key, and the line of its public one.
    pub fn key() -> (String, String) {
        let key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).unwrap();
        (key.to_openssh(LineEnding::LF).unwrap().to_string(), key.public_key().to_openssh().unwrap())
    }

    /// Writes the files of a place, and what the Repository says of them.
    pub fn configure(&self, place: &Place, repository: &mut Value) {
        place.put("keys/ssh", &self.key);
        place.put("keys/known_hosts", &self.known_hosts);
        repository["url"] = json!(self.url);
        repository["auth"] = json!({"ssh_key": {"file": "keys/ssh"}, "known_hosts": {"file": "keys/known_hosts"}});
    }
}

async fn over_ssh(engine: Engine) {
    let wish = Wish { ssh: true, ..Wish::policy("prompted", "merge_after_approval") };
    let mut p = Place::new("over ssh", wish).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(p.people.ours().len(), 2, "its commit, and the forge's merge of it");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    let tip = p.people.tip();

    // Another host key than the pinned one: whoever answers there gets nothing.
    let pinned = p.ssh.as_ref().unwrap().known_hosts.clone();
    let (host, other) = (pinned.split_whitespace().next().unwrap().to_owned(), Ssh::key().1);
    p.put("keys/known_hosts", &format!("{host} {other}\n"));
    p.restart_daemon().await;
    let asked = p.operate(vec![p.set_image("web", NEWER)]).await;
    assert_eq!((text(&asked, "outcome"), text(&asked["problem"], "code")), ("refused", "git.host_key"), "{asked:#}");
    assert!(refusal(&asked).contains("127.0.0.1"), "{}", refusal(&asked));
    assert_eq!(p.people.tip(), tip);

    // The right host, and a key that it does not know.
    p.put("keys/known_hosts", &pinned);
    p.put("keys/ssh", &Ssh::key().0);
    p.restart_daemon().await;
    let asked = p.operate(vec![p.set_image("web", NEWER)]).await;
    assert_eq!(text(&asked["problem"], "code"), "git.auth", "{asked:#}");
    assert_eq!(p.people.tip(), tip);
    p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn argocd_delivers_what_is_pushed_over_ssh() {
    over_ssh(Engine::Argocd).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab: just lab-test"]
async fn flux_delivers_what_is_pushed_over_ssh() {
    over_ssh(Engine::Flux).await;
}
