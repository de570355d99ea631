//! Both engines, every way of delivery, every outcome: each test says what the agent was answered,
//! what stood in the chats, in Git, on the forge and in the cluster.

mod adoption;
mod delivery;
mod helm;
mod holds;
mod kustomized;
mod operations;
mod outcomes;
mod refusals;
mod routes;
mod standing;

use countersign::sandbox::bot::ShownMessage;
use countersign::sandbox::git::Author;
use countersign::sandbox::world::{ANNA, REPO, WorldOptions};
use serde_json::{Value, json};

use crate::world::{PATIENCE, Stage, set_image, text};

/// One of the shop's two applications: the first is delivered by Argo CD, the second by Flux.
#[derive(Clone, Copy)]
pub struct App {
    pub name: &'static str,
    pub file: &'static str,
    pub owner: &'static str,
    /// The owner as cards name it.
    pub carded: &'static str,
    /// Image at first, in every world of [`quick`].
    pub old: &'static str,
    /// Another one that gets ready.
    pub new: &'static str,
    /// One that never does.
    pub missing: &'static str,
}

pub const CHECKOUT: App = App {
    name: "checkout",
    file: "apps/checkout/deploy.yaml",
    owner: "Argo CD Application argocd/shop-prod",
    carded: "Owner: Argo CD shop-prod",
    old: "reg.example/checkout:1.9.0",
    new: "reg.example/checkout:1.9.1",
    missing: "reg.example/checkout:missing",
};

pub const PAYMENTS: App = App {
    name: "payments",
    file: "apps/payments/deploy.yaml",
    owner: "Flux Kustomization flux-system/payments",
    carded: "Owner: Flux payments",
    old: "reg.example/payments:2.0.0",
    new: "reg.example/payments:2.1.0",
    missing: "reg.example/payments:missing",
};

impl App {
    /// The change from the old image to another one, as cards show it.
    pub fn arrow(self, image: &str) -> String {
        let tag = |i: &str| i.rsplit(':').next().unwrap().to_owned();
        format!("{} → {}", tag(self.old), tag(image))
    }
}

/// The same test for Argo CD and for Flux.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod argocd {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(crate::engines::CHECKOUT).await; })+
        }
        mod flux {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(crate::engines::PAYMENTS).await; })+
        }
    };
}
pub(crate) use on_both_engines;

/// A world whose engines are fast, in which everything is healthy at first.
pub fn quick(policy: String) -> WorldOptions {
    WorldOptions {
        speed: 10.0,
        policy,
        times: [60, 1, 1, 40, 1],
        first_image: CHECKOUT.old.into(),
        ..WorldOptions::default()
    }
}

/// A commit on main by a person who is not Countersign.
pub fn person() -> Author {
    Author::new("Max", "max@example.test")
}

/// Polls until it holds; panics with these words when patience is over.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{what} did not come");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Sentences of the change's story.
pub fn story(answer: &Value) -> String {
    let lines = answer["story"].as_array().cloned().unwrap_or_default();
    lines.iter().map(|l| text(l, "what").to_owned()).collect::<Vec<_>>().join("\n")
}

/// Everything that a refusal says.
pub fn refusal(answer: &Value) -> String {
    let p = &answer["problem"];
    let evidence = p["evidence"].as_array().cloned().unwrap_or_default();
    let evidence: Vec<&str> = evidence.iter().filter_map(Value::as_str).collect();
    format!("{}: {} {} [{}]", text(p, "code"), text(p, "message"), text(p, "next"), evidence.join("; "))
}

pub fn notes(answer: &Value) -> String {
    answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

impl Stage {
    /// Proposes an image, lets Anna approve it, and waits for one of these states.
    pub async fn approved_image(&mut self, app: App, image: &str, states: &[&str]) -> (String, Value) {
        let change = self.propose(set_image(app.name, image)).await;
        self.press(ANNA, "Approve").await;
        let end = self.until(&change, states).await;
        (change, end)
    }

    /// A message that a person has in their chat.
    pub async fn sees(&self, chat: i64, words: &str) -> ShownMessage {
        let found = self.world.bot.wait_for(chat, PATIENCE, |m| m.text.contains(words)).await;
        found.unwrap_or_else(|| panic!("nothing says {words:?} in chat {chat}: {:#?}", self.world.bot.chat(chat)))
    }

    /// The owner's file at the tip of main.
    pub fn manifest(&self, app: App) -> String {
        self.world.file(app.file).unwrap()
    }

    pub fn person_commits(&self, path: &str, content: &str) -> String {
        self.world.git.commit_file(REPO, "main", path, content.as_bytes(), &person()).unwrap()
    }

    pub fn live(&self, app: App) -> Value {
        self.world.cluster.get("apps", "Deployment", "shop", app.name).map(|d| (*d).clone()).unwrap_or_default()
    }

    /// Edits an object of the cluster in place, as somebody with kubectl does.
    pub fn kubectl(&self, group: &str, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let store = self.world.cluster.store();
        let kind = store.kinds.by_kind(group, kind).unwrap();
        store.edit(&kind, namespace, name, false, change).unwrap();
    }

    /// Runs the real git on the bare repository of the shop.
    pub fn git(&self, args: &[&str]) -> String {
        git_in(&self.world.git.repos().path(REPO), args)
    }

    pub async fn plan(&mut self, edits: Vec<Value>) -> Value {
        self.call("operate", json!({"edits": edits, "reason": "a test wants to know", "plan_only": true})).await
    }
}

/// Runs the real git; panics with its words when it fails.
pub fn git_in(dir: &std::path::Path, args: &[&str]) -> String {
    let out = std::process::Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_TERMINAL_PROMPT", "0")])
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
