//! The first hour: from a kubeconfig to the first healthy commit, by the built program, as a new user has it, and
//! without a line of YAML edited.

use std::path::Path;
use std::time::{Duration, Instant};

use countersign::sandbox::world::ANNA;
use serde_json::{Value, json};
use ssh_key::{Algorithm, PrivateKey};

use super::apps::{Engine, NEW, Shape};
use super::place::{Place, Wish, text};
use super::{scenarios_of_both, table};
use crate::first::{agent, command, pair, serve};

scenarios_of_both!(from_a_kubeconfig_to_the_first_healthy_commit);

/// Runs the program; panics with what it said unless it is content.
async fn run(home: &Path, args: &[&str]) -> String {
    let done = command(home, args).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "countersign {}\n{said}", args.join(" "));
    said
}

async fn from_a_kubeconfig_to_the_first_healthy_commit(engine: Engine) {
    const NAME: &str = "the first hour";
    if table::not_for_guests(
        NAME,
        engine.name(),
        "it would make a configuration of everything that others deliver there",
    ) {
        return;
    }
    // Alone: it reads every owner of the cluster.
    let mut p = Place::new(NAME, Wish::alone()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    p.stop_daemon().await;
    let home = p.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).unwrap();
    std::fs::write(home.join("anna.pub"), key.public_key().to_openssh().unwrap()).unwrap();

    let begun = Instant::now();
    let (r, chat) = (p.repository.clone(), p.bot.url());
    let mut args = vec!["init", "--dir", "cs", "--kubeconfig", "../kubeconfig.yaml", "--person", "anna"];
    args.extend(["--ssh-key", "anna.pub", "--level", "prompted", "--yes"]);
    args.extend(["--git-token-file", "../keys/git-token", "--git-username", &r.bot.login]);
    args.extend(["--forge", "gitea", "--forge-api", &r.api_url, "--forge-token-file", "../keys/git-token"]);
    args.extend(["--bot-token-file", "../keys/bot-token", "--telegram-api", &chat]);
    run(&home, &args).await;
    let doctor = run(&home, &["doctor", "--config", "cs/countersign.yaml"]).await;
    let (mut daemon, url) = serve(&home).await;
    let said =
        pair(command(&home, &["people", "pair", "anna", "--write", "--config", "cs/countersign.yaml"]), &p.bot, ANNA)
            .await;
    assert_eq!(said.code, 0, "{}", said.out);

    let status: Value =
        serde_json::from_str(&run(&home, &["status", "--json", "--config", "cs/countersign.yaml"]).await).unwrap();
    let cluster = text(&status["clusters"][0], "name").to_owned();
    let mut agent = agent(&home, &url).await;
    let target = format!("{cluster}/{}/Deployment/web", p.name);
    let edit = json!({"target": target, "set_image": {"container": "app", "image": NEW}});
    let asked = agent.call("operate", json!({"edits": [edit], "reason": "the first one"})).await.unwrap();
    assert_eq!(text(&asked, "outcome"), "waiting", "{asked:#}\n{doctor}");
    let card = p.bot.wait_for(ANNA, p.patience(), |m| m.button("Approve").is_some()).await.expect("the first card");
    assert!(card.text.contains("1.0") && card.text.contains("1.1"), "{}", card.text);
    let to_card = begun.elapsed();
    p.bot.approve(ANNA, Some(card.message_id)).await.unwrap();
    let change = text(&asked, "change").to_owned();
    // Without the right to hint the engine looks at Git in its own time: people do not wait for that and press Refresh.
    loop {
        let now = agent.call("change", json!({"change": change})).await.unwrap();
        if text(&now, "state") == "observing" {
            break;
        }
        assert!(begun.elapsed() < p.patience() * 2, "{now:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    p.refresh(&app).await;
    let end = loop {
        let now = agent.call("change", json!({"change": change, "wait_s": 30})).await.unwrap();
        if text(&now, "outcome") != "waiting" {
            break now;
        }
        assert!(begun.elapsed() < p.patience() * 4, "{now:#}");
    };
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    assert_eq!(p.live_image("web").await.as_deref(), Some(NEW));
    table::first_hour(p.backend.name(), engine.name(), to_card, begun.elapsed());
    daemon.kill().await.unwrap();
    p.end().await;
}
