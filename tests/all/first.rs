//! The first hour, as a new user has it: init, doctor, connect, pairing, the first card, on the sandbox, with the
//! built program. What it printed is kept, with what differs between runs replaced.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use countersign::cli::demo::agent::Agent;
use countersign::sandbox::bot::BotApi;
use countersign::sandbox::world::{ANNA, EVE, MAX, World, WorldOptions};
use regex::Regex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::people::GOOD;
use crate::world::{PATIENCE, text, turn};

/// A world in which nothing of Countersign's is configured yet.
struct Start {
    world: World,
    /// Where the new user works.
    home: PathBuf,
    transcript: String,
    _turn: tokio::sync::SemaphorePermit<'static>,
}

/// What a command printed, and its exit code.
pub struct Said {
    pub code: i32,
    pub out: String,
}

impl Start {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let turn = turn().await;
        let options = WorldOptions { speed: 10.0, ..WorldOptions::default() };
        let world = World::start(options).await.unwrap_or_else(|p| panic!("{p}"));
        let home = world.dir.join("home");
        std::fs::create_dir(&home).unwrap();
        Self { world, home, transcript: String::new(), _turn: turn }
    }

    fn key(&self, name: &str) -> String {
        self.world.dir.join("keys").join(name).to_string_lossy().into_owned()
    }

    fn config(&self) -> PathBuf {
        self.home.join("cs/countersign.yaml")
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.home, args)
    }

    fn note(&mut self, args: &[&str], out: &str) {
        let line = normal(&self.world, &format!("$ countersign {}\n{out}", args.join(" ")));
        self.transcript.push_str(&format!("{}\n\n", line.trim_end()));
    }

    /// Runs the program to its end and keeps what it printed.
    async fn run(&mut self, args: &[&str]) -> Said {
        let done = self.command(args).output().await.unwrap();
        let out = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        self.note(args, &out);
        Said { code: done.status.code().unwrap_or(-1), out }
    }

    async fn init(&mut self, more: &[&str]) -> Said {
        let kubeconfig = self.world.dir.join("kubeconfig.yaml").to_string_lossy().into_owned();
        let (git, forge, bot) = (self.key("git-token"), self.key("forge-token"), self.key("bot-token"));
        let (api, chat) = (self.world.forge.url(), self.world.bot.url());
        let mut args = vec!["init", "--dir", "cs", "--kubeconfig", &kubeconfig, "--git-token-file", &git];
        args.extend(["--git-username", "countersign", "--forge", "github", "--forge-api", &api]);
        args.extend(["--forge-token-file", &forge, "--bot-token-file", &bot, "--telegram-api", &chat]);
        args.extend(more);
        self.run(&args).await
    }

    /// Starts the daemon; gives it with its address.
    async fn serve(&self) -> (Child, String) {
        serve(&self.home).await
    }

    async fn pair(&mut self, args: &[&str], account: i64) -> Said {
        let said = pair(self.command(args), &self.world.bot, account).await;
        self.note(args, &said.out);
        said
    }

    async fn agent(&self, url: &str) -> Agent {
        agent(&self.home, url).await
    }
}

/// The program, as a new user in `home` calls it.
pub fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(args).current_dir(home).env("HOME", home).env("USER", "anna");
    for name in ["COUNTERSIGN_CONFIG", "COUNTERSIGN_SSH_KEY", "KUBECONFIG", "XDG_CONFIG_HOME", "CODEX_HOME"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Starts the daemon of the configuration in `cs`; gives it with its address.
pub async fn serve(home: &Path) -> (Child, String) {
    let mut command = command(home, &["serve", "--http", "127.0.0.1:0", "--config", "cs/countersign.yaml"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, url)) = line.split_once("MCP at ") {
                return url.trim().to_owned();
            }
        }
        panic!("the daemon ended");
    });
    let url = found.await.expect("the daemon says where it listens");
    // What it logs later must not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, url)
}

/// Pairs as both sides do it: the terminal prints the code, the phone of the account sends it.
pub async fn pair(mut command: Command, bot: &BotApi, account: i64) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut out = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        out.push_str(&format!("{line}\n"));
        if let Some(code) = line.trim().strip_prefix("/start ") {
            bot.say(account, account, &format!("/start {code}")).unwrap();
        }
    }
    let done = child.wait_with_output().await.unwrap();
    out.push_str(&String::from_utf8_lossy(&done.stderr));
    Said { code: done.status.code().unwrap_or(-1), out }
}

/// The agent that `init` made, by the token that it wrote.
pub async fn agent(home: &Path, url: &str) -> Agent {
    let token = std::fs::read_to_string(home.join("cs/secrets/assistant_token")).unwrap();
    Agent::connect(url, token.trim()).await.unwrap_or_else(|p| panic!("{p}"))
}

/// What differs between two runs, replaced.
fn normal(world: &World, out: &str) -> String {
    let mut s = out.replace(&world.dir.to_string_lossy().into_owned(), "/world");
    s = s.replace(env!("CARGO_BIN_EXE_countersign"), "/usr/bin/countersign");
    for (what, by) in [
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"\b[0-9a-f]{32}\b", "CODE"),
        (r"\b[0-9a-f]{64}\b", "SHA256"),
        (r"version [0-9a-f]{12}", "version HASH"),
        (r"cs-[0-9A-Z]{4}\b", "cs-NAME"),
        (r"up \d+ s", "up SOME s"),
        (r"event \d+", "event N"),
        (r"(awaiting_approval +)\d+ s +", "${1}AGE "),
        (r"until \d{4}-[0-9T:.+-]+Z?", "until THEN"),
        (r"(kustomize|helm)( *):? .*", "${1}$2 WHATEVER"),
        (r"(?m)^\d+ in order, .*$", "N in order, N warnings, N problems."),
        (r"ssh-ed25519 [A-Za-z0-9+/=]+", "ssh-ed25519 KEY"),
        (r"@@ .* @@", "@@"),
        // The engines may still be settling.
        (r"\d+ (of them )?well", "SOME ${1}well"),
    ] {
        s = Regex::new(what).unwrap().replace_all(&s, by).into_owned();
    }
    // Whether kustomize is there, and why it would be missed, is this machine's.
    let mut skip = false;
    s.split_inclusive('\n')
        .filter(|l| {
            let missing = l.contains("render.kustomize_missing");
            let hide = missing || (skip && l.trim_start().starts_with("->"));
            skip = missing;
            !hide && !l.contains("kustomize WHATEVER")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_gets_from_nothing_to_the_first_card_without_editing_yaml() {
    let mut s = Start::new().await;
    let key = s.key("anna.pub");
    let said = s.init(&["--person", "anna", "--ssh-key", &key, "--level", "prompted", "--yes"]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let nobody = s.command(&["init", "--dir", "other", "--level", "prompted", "--yes"]);
    refused(&s, nobody, "init.no_approver").await;
    let again = s.run(&["init", "--dir", "cs", "--yes"]).await;
    assert!(again.code == 2 && again.out.contains("init.exists"), "{}", again.out);
    let said = s.run(&["policy", "check", "--config", "cs/countersign.yaml"]).await;
    assert_eq!(said.code, 0, "{}", said.out);

    let said = s.run(&["doctor", "--config", "cs/countersign.yaml"]).await;
    assert_eq!(said.code, 0, "{}", said.out);

    let project = s.home.join(".mcp.json");
    let mine = "{\n  // mine\n  \"mcpServers\": {\n    \"other\": {\"command\": \"o\"}\n  }\n}\n";
    std::fs::write(&project, mine).unwrap();
    let said = s.run(&["connect", "claude-code", "--config", "cs/countersign.yaml", "--write", "--yes"]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert_eq!(std::fs::read_to_string(s.home.join(".mcp.json.before-countersign")).unwrap(), mine);
    speaks(&s, &std::fs::read_to_string(&project).unwrap()).await;
    stop_started(&s).await;

    let (mut daemon, url) = s.serve().await;
    let said = s.pair(&["people", "pair", "anna", "--write", "--config", "cs/countersign.yaml"], ANNA).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let told =
        s.world.bot.wait_for(ANNA, PATIENCE, |m| m.text.contains("decides by the Telegram account 1002 now")).await;
    assert!(told.is_some(), "{:#?}", s.world.bot.chat(ANNA));
    let chat: Vec<String> = s.world.bot.chat(ANNA).into_iter().filter(|m| m.from_bot).map(|m| m.text).collect();
    s.transcript.push_str(&format!("Anna's chat:\n{}\n\n", chat.join("\n--\n")));

    let mut agent = s.agent(&url).await;
    let edit = json!({"target": "sandbox/shop/Deployment/checkout", "set_image": {"container": "app", "image": GOOD}});
    let asked = agent.call("operate", json!({"edits": [edit], "reason": "1.9.2 crashes"})).await.unwrap();
    assert_eq!(text(&asked, "outcome"), "waiting", "{asked:#}");
    let card = s.world.bot.wait_for(ANNA, PATIENCE, |m| m.button("Approve").is_some()).await.expect("the first card");
    assert!(card.text.contains("1.9.2") && card.text.contains("1.9.1"), "{}", card.text);
    let said = s.run(&["status", "--config", "cs/countersign.yaml"]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    metrics(&url).await;

    let before = s.world.tip();
    // High risk: with the number on the card.
    s.world.bot.approve(ANNA, Some(card.message_id)).await.unwrap();
    crate::people::wait("the commit lands", || (s.world.tip() != before).then_some(())).await;
    assert!(s.world.file("apps/checkout/deploy.yaml").unwrap().contains(GOOD));
    daemon.kill().await.unwrap();
    insta::assert_snapshot!(s.transcript);
}

/// The command is refused with this code, and leaves nothing behind.
async fn refused(s: &Start, mut command: Command, code: &str) {
    let done = command.env("KUBECONFIG", s.world.dir.join("kubeconfig.yaml")).output().await.unwrap();
    let out = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && out.starts_with(code), "{out}");
    assert!(!s.home.join("other").exists());
}

/// The entry of the client's file, started as the client does: it speaks MCP.
async fn speaks(s: &Start, file: &str) {
    let plain: String = file.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    let entry = serde_json::from_str::<Value>(&plain).unwrap()["mcpServers"]["countersign"].clone();
    let args: Vec<&str> = entry["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(entry["command"], env!("CARGO_BIN_EXE_countersign"));
    let mut client = s.command(&args);
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{hello}\n").as_bytes()).await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.contains("\"serverInfo\":{\"name\":\"countersign\""), "{line}");
    let _ = child.kill().await;
}

/// Ends the daemon that the stdio client started, over its own socket.
async fn stop_started(s: &Start) {
    use countersign::server::control::{Request, call};
    let state = s.home.join("cs/state");
    call(&state, &Request::Shutdown).await.unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    while call(&state, &Request::Status).await.is_ok() || locked(&state) {
        assert!(tokio::time::Instant::now() < end, "the daemon does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn locked(state: &Path) -> bool {
    std::fs::File::options().write(true).open(state.join("lock")).is_ok_and(|f| f.try_lock().is_err())
}

async fn metrics(url: &str) {
    let base = url.trim_end_matches("/mcp");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = client.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "countersign_changes_open{state=\"awaiting_approval\"} 1\n",
        "countersign_watch_up{cluster=\"sandbox\",kind=\"Application\"} 1\n",
        "countersign_owners{cluster=\"sandbox\",engine=\"flux\"} 1\n",
        "countersign_channel_up{channel=\"telegram\"} 1\n",
        "countersign_journal_up 1\n",
        "countersign_ready 1\n",
        "countersign_effect_duration_seconds_count{effect=\"ask\",outcome=\"done\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    for secret in ["anna", "checkout", "assistant", "cs-"] {
        assert!(!text.contains(secret), "{secret} is no label:\n{text}");
    }
    for (header, value) in [("x-forwarded-for", "10.0.0.1"), ("host", "rebound.example")] {
        let status = client.get(format!("{base}/metrics")).header(header, value).send().await.unwrap().status();
        assert_eq!(status, 404, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_each_thing_that_was_broken_and_nothing_secret_is_printed() {
    let mut s = Start::new().await;
    let said = s.init(&["--person", "anna", "--yes"]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let people = s.home.join("cs/resources/people.yaml");
    let written = std::fs::read_to_string(&people).unwrap();
    std::fs::write(&people, written.replace("  groups:", &format!("  telegram: {MAX}\n  groups:"))).unwrap();
    let config = s.config().to_string_lossy().into_owned();
    let args = ["doctor", "--json", "--config", &config];
    let secrets: Vec<String> = ["git-token", "forge-token", "bot-token"]
        .iter()
        .map(|n| std::fs::read_to_string(s.key(n)).unwrap().trim().to_owned())
        .collect();

    let well = s.run(&args).await;
    assert_eq!(well.code, 0, "{}", well.out);

    // One thing after the other is broken, found, and put right again.
    s.world.cluster.deny("watch", "applications.argoproj.io");
    found(&mut s, &args, "cluster.forbidden", "watch applications.argoproj.io").await;
    s.world.cluster.state().access.allow_all();

    s.world.bot.set_blocked(MAX, true);
    found(&mut s, &args, "telegram.cannot_write", "anna").await;
    s.world.bot.set_blocked(MAX, false);

    s.world.bot.set_webhook("https://elsewhere.example/hook");
    found(&mut s, &args, "telegram.webhook_set", "webhook").await;
    s.world.bot.set_webhook("");

    let token = s.key("git-token");
    let right = std::fs::read_to_string(&token).unwrap();
    std::fs::write(&token, "wrong").unwrap();
    found(&mut s, &args, "git.auth", "repository shop").await;
    std::fs::write(&token, right).unwrap();

    let signing = s.home.join("cs/secrets/signing_ed25519");
    let right = std::fs::read_to_string(&signing).unwrap();
    std::fs::write(&signing, "no key").unwrap();
    found(&mut s, &args, "signature.key", "this machine").await;
    std::fs::write(&signing, right).unwrap();

    s.world.forge.down().await;
    found(&mut s, &args, "forge.unreachable", "repository shop").await;
    s.world.forge.up().await;
    s.world.cluster.stop();
    found(&mut s, &args, "cluster.unreachable", "cluster sandbox").await;
    for secret in secrets {
        assert!(!s.transcript.contains(&secret));
    }
}

/// `doctor` fails with this code, on a finding that holds these words.
async fn found(s: &mut Start, args: &[&str], code: &str, words: &str) {
    let said = s.run(args).await;
    assert_eq!(said.code, 1, "{code}: {}", said.out);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    let hit = answer["checks"].as_array().unwrap().iter().find(|c| c["code"] == code && c["outcome"] == "problem");
    let hit = hit.unwrap_or_else(|| panic!("no {code}: {}", said.out));
    assert!(hit.to_string().contains(words), "{hit:#}");
    assert!(!text(hit, "next").is_empty(), "{hit:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_manual_nothing_is_written_and_the_paired_person_is_told_of_the_patch() {
    let mut s = Start::new().await;
    let said = s.init(&["--person", "anna", "--yes"]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let (mut daemon, url) = s.serve().await;
    let said = s.pair(&["people", "pair", "anna", "--write", "--config", "cs/countersign.yaml"], ANNA).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let before = s.world.tip();
    let mut agent = s.agent(&url).await;
    let edit = json!({"target": "sandbox/shop/Deployment/checkout", "set_image": {"container": "app", "image": GOOD}});
    let asked = agent.call("operate", json!({"edits": [edit], "reason": "1.9.2 crashes"})).await.unwrap();
    assert_eq!(text(&asked, "state"), "awaiting_commit", "{asked:#}");
    let told = s.world.bot.wait_for(ANNA, PATIENCE, |m| m.from_bot && m.text.contains("checkout")).await;
    assert!(told.is_some_and(|m| m.button("Approve").is_none()));
    assert_eq!(s.world.tip(), before);
    daemon.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_without_a_terminal_writes_nothing_and_another_account_gains_nothing_by_it() {
    let mut s = Start::new().await;
    let key = s.key("anna.pub");
    let said = s.init(&["--person", "anna", "--ssh-key", &key, "--level", "prompted", "--yes"]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let people = s.home.join("cs/resources/people.yaml");
    let before = std::fs::read_to_string(&people).unwrap();
    let (mut daemon, url) = s.serve().await;
    // An agent with a shell begins the pairing, and an account of its own sends the code.
    let said = s.pair(&["people", "pair", "anna", "--config", "cs/countersign.yaml"], EVE).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert!(
        said.out.contains("Nothing was written") && said.out.contains(&format!("+  telegram: {EVE}")),
        "{}",
        said.out
    );
    assert_eq!(std::fs::read_to_string(&people).unwrap(), before);
    let mut agent = s.agent(&url).await;
    let edit = json!({"target": "sandbox/shop/Deployment/checkout", "set_image": {"container": "app", "image": GOOD}});
    let asked = agent.call("operate", json!({"edits": [edit], "reason": "1.9.2 crashes"})).await.unwrap();
    assert_eq!(text(&asked, "outcome"), "waiting", "{asked:#}");
    let reload = s.run(&["reload", "--config", "cs/countersign.yaml"]).await;
    assert_eq!(reload.code, 0, "{}", reload.out);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(s.world.bot.chat(EVE).iter().all(|m| m.buttons.is_empty()), "{:#?}", s.world.bot.chat(EVE));
    s.world.bot.say(EVE, EVE, "/stop").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = s.run(&["status", "--json", "--config", "cs/countersign.yaml"]).await;
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert!(status["stopped"].is_null(), "a stranger stops nothing: {status:#}");
    daemon.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_not_ready_while_a_needed_watch_is_down_and_says_which() {
    let s = crate::world::Stage::new(crate::people::quick()).await;
    let pipeline = s.daemon.as_ref().unwrap().pipeline.clone();
    let url = format!("http://{}/readyz", s.daemon.as_ref().unwrap().http_addr().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = || async {
        let answer = client.get(&url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let ready = || async { pipeline.ready().await.map_err(|p| format!("{p}\n{:#?}", standing(&pipeline))) };
    crate::world::eventually("ready", ready).await;
    assert_eq!(asked().await, (200, "ready\n".into()));
    s.world.cluster.deny("watch", "applications.argoproj.io");
    s.world.cluster.state().drop_watches();
    let down = || async { pipeline.ready().await.map_or(Ok(()), |()| Err("it is ready".to_owned())) };
    crate::world::eventually("not ready", down).await;
    assert_eq!(asked().await, (503, "cluster.forbidden\n".into()));
    assert!(pipeline.metrics().await.contains("countersign_ready 0\n"));
    s.world.cluster.state().access.allow_all();
    crate::world::eventually("ready again", ready).await;
    assert_eq!(asked().await, (200, "ready\n".into()));
}

fn standing(pipeline: &countersign::pipeline::Pipeline) -> Vec<countersign::cluster::WatchStanding> {
    pipeline.clusters.values().flat_map(|c| c.standing()).collect()
}
