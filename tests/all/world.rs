//! A world of sandbox servers with the product's daemon in front, driven as agents and people drive it:
//! over MCP, by presses in the chat, on the forge, in Git.

use std::time::Duration;

use countersign::app::Daemon;
use countersign::cli::demo::agent::Agent;
use countersign::clock::Clock;
use countersign::config::Config;
use countersign::sandbox::bot::Press;
use countersign::sandbox::world::{CLUSTER, World, WorldOptions};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Worlds that run at the same time: they wait for clocks more than they compute; many more of them would wait for each
/// other on a small machine.
static WORLDS: Semaphore = Semaphore::const_new(8);

/// The world, the daemon in front of it, and an agent that is connected.
pub struct Stage {
    pub world: World,
    pub daemon: Option<Daemon>,
    pub agent: Agent,
    pub clock: Clock,
    _turn: SemaphorePermit<'static>,
}

/// A turn among the worlds, for tests that start one by hand.
pub async fn turn() -> SemaphorePermit<'static> {
    WORLDS.acquire().await.unwrap()
}

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until something holds; what does not is told.
pub async fn eventually<F: Future<Output = Result<(), String>>>(what: &str, holds: impl Fn() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while let Err(why) = holds().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn target(name: &str) -> String {
    format!("{CLUSTER}/shop/Deployment/{name}")
}

pub fn set_image(name: &str, image: &str) -> Value {
    json!({"target": target(name), "set_image": {"container": "app", "image": image}})
}

pub fn text<'v>(v: &'v Value, key: &str) -> &'v str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Stage {
    pub async fn new(options: WorldOptions) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let turn = turn().await;
        let world = World::start(options).await.unwrap_or_else(|p| panic!("{p}"));
        let clock = Clock::real();
        let daemon = Self::daemon(&world, &clock).await;
        let agent = Self::agent(&world, &daemon).await;
        Self { world, daemon: Some(daemon), agent, clock, _turn: turn }
    }

    async fn daemon(world: &World, clock: &Clock) -> Daemon {
        let config = Config::load(&world.config).unwrap_or_else(|p| panic!("{p}"));
        Daemon::start(config, Some(world.config.clone()), Some("127.0.0.1:0".into()), clock.clone())
            .await
            .unwrap_or_else(|p| panic!("{p}"))
    }

    async fn agent(world: &World, daemon: &Daemon) -> Agent {
        let url = format!("http://{}/mcp", daemon.http_addr().unwrap());
        Agent::connect(&url, &world.keys.agent_token).await.unwrap_or_else(|p| panic!("{p}"))
    }

    /// Ends the daemon (not the world) and starts it again on the same state.
    pub async fn restart(&mut self) {
        self.stop_daemon().await;
        self.start_daemon().await;
    }

    /// Ends the daemon; the world goes on.
    pub async fn stop_daemon(&mut self) {
        if let Some(d) = self.daemon.take() {
            d.stop().await;
        }
    }

    /// Starts the daemon on the state that is there, and connects the agent again.
    pub async fn start_daemon(&mut self) {
        let daemon = Self::daemon(&self.world, &self.clock).await;
        self.agent = Self::agent(&self.world, &daemon).await;
        self.daemon = Some(daemon);
    }

    pub async fn call(&mut self, tool: &str, args: Value) -> Value {
        self.agent.call(tool, args).await.unwrap_or_else(|p| panic!("{tool}: {p}"))
    }

    /// Asks for one edit and gives the change's id; panics unless it waits.
    pub async fn propose(&mut self, edit: Value) -> String {
        let answer = self.operate(vec![edit]).await;
        assert_eq!(text(&answer, "outcome"), "waiting", "{answer:#}");
        text(&answer, "change").to_owned()
    }

    pub async fn operate(&mut self, edits: Vec<Value>) -> Value {
        self.call("operate", json!({"edits": edits, "reason": "a test wants it"})).await
    }

    /// A press by the person whose private chat this is, once the card with that button is there.
    pub async fn press(&self, chat: i64, button: &str) {
        let card = self.world.bot.wait_for(chat, PATIENCE, |m| m.button(button).is_some()).await;
        assert!(card.is_some(), "no card with {button} in chat {chat}: {:?}", self.world.bot.chat(chat));
        let pressed = match (button, card) {
            // High risk asks for the number on the card.
            ("Approve", Some(card)) => self.world.bot.approve(chat, Some(card.message_id)).await,
            _ => self.world.bot.press(&Press::button(chat, button)),
        };
        pressed.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Polls `change` until the state is one of these.
    pub async fn until(&mut self, change: &str, states: &[&str]) -> Value {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = self.call("change", json!({"change": change, "wait_s": 1})).await;
            if states.contains(&text(&now, "state")) {
                return now;
            }
            assert!(!matches!(text(&now, "outcome"), "ended" | "healthy" | "refused"), "ended otherwise: {now:#}");
            assert!(tokio::time::Instant::now() < end, "still {}: {now:#}", text(&now, "state"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Commits on main that carry one of our trailers.
    pub fn our_commits(&self) -> Vec<countersign::sandbox::git::CommitInfo> {
        let all = self.world.git.repos().history(countersign::sandbox::world::REPO, "main").unwrap();
        all.into_iter().filter(|c| c.message.contains("Countersign-Change")).collect()
    }

    pub async fn end(mut self) {
        if let Some(d) = self.daemon.take() {
            d.stop().await;
        }
    }
}
