//! What goes wrong: with Git, the forge, the cluster, the input, the configuration. Each ends in
//! words that say what to do, and with nothing half-written.

use std::time::Duration;

use countersign::app::Daemon;
use countersign::cli::demo::agent::Agent;
use countersign::clock::Clock;
use countersign::config::Config;
use countersign::sandbox::bot::Press;
use countersign::sandbox::cluster::Engine;
use countersign::sandbox::forge::Protection;
use countersign::sandbox::git::{Author, Race};
use countersign::sandbox::host::{Fault, Mishap};
use countersign::sandbox::world::{ANNA, CLUSTER, MAX, REPO, World, WorldOptions, policy};
use countersign::server::control::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::people::{
    GOOD, ask, asked, cancel, card, code, countersign, never, quick, rewrite, story, struck, told, wait, with_policy,
};
use crate::world::{Stage, set_image, target, text};

const CHECKOUT: &str = "apps/checkout/deploy.yaml";

fn somebody() -> Author {
    Author::new("Somebody Else", "else@example.test")
}

fn accepted_pushes(s: &Stage) -> Vec<Value> {
    s.world.git.pushes().into_iter().filter(|p| p["outcome"] == "accepted").collect()
}

fn said(answer: &Value) -> &str {
    answer.pointer("/problem/message").and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_with_another_file_is_proved_anew_and_lands_on_top() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    let race =
        Race { repo: REPO.into(), branch: "main".into(), path: "docs/notes.md".into(), content: "a note\n".into() };
    s.world.git.race(race);
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy"]).await;
    assert!(end["story"].to_string().contains("proved anew on"), "the agent sees why it took longer: {end:#}");
    let ours = s.our_commits();
    let foreign = s.world.git.log().into_iter().find(|l| l["what"] == "foreign_commit").expect("the race was run");
    assert_eq!(ours.len(), 1);
    assert_eq!(json!(ours[0].parents), json!([foreign["commit"]]), "our commit stands on the foreign one");
    assert_eq!(s.world.file("docs/notes.md").as_deref(), Some("a note\n"), "nobody's work is lost");
    assert!(s.world.file(CHECKOUT).unwrap().contains("checkout:1.9.1"));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_with_the_same_file_voids_the_approval() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    let foreign = s.world.file(CHECKOUT).unwrap().replace("replicas: 2", "replicas: 3");
    s.world.git.race(Race {
        repo: REPO.into(),
        branch: "main".into(),
        path: CHECKOUT.into(),
        content: foreign.clone(),
    });
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["stale"]).await;
    assert_eq!((code(&end), said(&end)), ("change.stale", "A later commit touches the same files."), "{end:#}");
    assert_eq!(s.world.file(CHECKOUT).unwrap(), foreign, "the other's commit stands as it was made");
    assert_eq!(s.our_commits().len(), 0);
    for chat in [ANNA, MAX] {
        let now = card(&s, chat, "NO LONGER VALID").await;
        assert!(now.buttons.is_empty() && now.text.contains("A later commit touches the same files"), "{}", now.text);
    }
    // On what is true now it can be asked again.
    let again = s.propose(set_image("checkout", GOOD)).await;
    assert_ne!(again, change);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_branch_ends_as_undelivered_with_the_servers_words() {
    let mut s = Stage::new(WorldOptions { times: [40, 1, 1, 3, 1], ..quick() }).await;
    let tip = s.world.tip();
    s.world.forge.protect(REPO, "main", Some(Protection::default())).unwrap();
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, MAX).await;
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["undelivered"]).await;
    assert_eq!(code(&end), "change.undelivered", "{end:#}");
    assert!(said(&end).contains("refuses the push") && said(&end).contains("hook declined"), "{}", said(&end));
    assert!(end["story"].to_string().contains("hook declined"), "each try says why: {end:#}");
    assert_eq!(s.world.tip(), tip);
    for chat in [ANNA, MAX] {
        let now = card(&s, chat, "NOT DELIVERED").await;
        assert!(now.buttons.is_empty() && now.text.contains("refuses the push"), "{}", now.text);
    }
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_branch_is_refused_and_a_deleted_one_is_not_made_again() {
    let mut s = Stage::new(quick()).await;
    let git = s.world.git.clone();
    let first = s.world.tip();
    git.commit_file(REPO, "main", "docs/bad.md", b"a commit that somebody takes back\n", &somebody()).unwrap();
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    git.repos().rewind(REPO, "main", 1).unwrap();
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["stale"]).await;
    assert!(said(&end).contains("rewound"), "{end:#}");
    assert_eq!(s.world.tip(), first, "what was taken back stays so");
    assert!(card(&s, ANNA, "NO LONGER VALID").await.text.contains("rewound"));
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    git.repos().delete_branch(REPO, "main").unwrap();
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["stale"]).await;
    assert!(said(&end).contains("main"), "{end:#}");
    let names: Vec<String> = git.repos().branches(REPO).unwrap().into_iter().map(|(n, _)| n).collect();
    assert!(!names.iter().any(|n| n.ends_with("main")), "{names:?}");
    assert_eq!(git.pushes(), Vec::<Value>::new());
    s.end().await;
}

async fn through_a_forge_with_faults(forge: &str, faults: Vec<Fault>) -> Stage {
    let mut s =
        Stage::new(WorldOptions { forge: forge.into(), ..with_policy("prompted", "merge_after_approval", 1) }).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    let n = faults.len();
    faults.into_iter().for_each(|f| s.world.forge.fault(f));
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy"]).await;
    let struck = s.world.forge.log().iter().filter(|l| l["what"] == "fault").count();
    assert!(struck >= n, "{struck} of {n} faults struck");
    let pulls = s.world.forge.pulls(REPO);
    assert_eq!(pulls.len(), 1, "one pull request: {pulls:#?}");
    let merged = pulls[0].merged.as_ref().expect("merged");
    assert_eq!((merged.by.as_deref(), merged.commit.as_str()), (Some("countersign-bot"), text(&end, "commit")));
    let merges = s.our_commits().into_iter().filter(|c| c.id == merged.commit).count();
    assert_eq!(merges, 1);
    let told = end["story"].to_string();
    assert!(told.contains("is on the branch (merge)"), "whose merge it was is known: {end:#}");
    assert!(card(&s, ANNA, "HEALTHY").await.text.contains("approved by anna"));
    s
}

fn once(matching: &str, mishap: Mishap) -> Fault {
    Fault { matching: Some(matching.into()), times: Some(1), mishap }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_github_make_one_pull_request_and_one_merge() {
    let faults = vec![
        once("POST /repos/acme/shop/pulls", Mishap::LoseAnswer),
        once("PUT /repos/acme/shop/pulls/", Mishap::LoseAnswer),
    ];
    through_a_forge_with_faults("github", faults).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_gitea_make_one_pull_request_and_one_merge() {
    let faults =
        vec![once("POST /api/v1/repos/acme/shop/pulls", Mishap::LoseAnswer), once("/merge", Mishap::LoseAnswer)];
    through_a_forge_with_faults("gitea", faults).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_and_an_error_of_the_forge_are_waited_out() {
    let limit = Mishap::Error {
        status: 403,
        body: json!({"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}),
        headers: [("retry-after".to_owned(), "1".to_owned())].into(),
    };
    let broken = Mishap::Error { status: 502, body: json!("bad gateway"), headers: Default::default() };
    let faults = vec![
        once("POST /repos/acme/shop/pulls", limit.clone()),
        once("PUT /repos/acme/shop/pulls/", limit),
        once("PUT /repos/acme/shop/pulls/", broken),
    ];
    let mut s = through_a_forge_with_faults("github", faults).await;
    let all = s.call("changes", json!({"state": "ended"})).await;
    let change = all["changes"][0]["change"].as_str().unwrap().to_owned();
    let told = s.call("change", json!({"change": change})).await["story"].to_string();
    assert!(told.contains("The forge asks to wait"), "{told}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_down_for_a_while_delays_and_doubles_nothing() {
    let mut s = Stage::new(with_policy("prompted", "merge_after_approval", 1)).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.forge.down().await;
    s.press(ANNA, "Approve").await;
    let failing = |v: &Value| v["story"].to_string().contains("open_pull_request failed, is tried again");
    let mut now = Value::Null;
    while !failing(&now) {
        now = s.call("change", json!({"change": change, "wait_s": 1})).await;
        assert_eq!(text(&now, "outcome"), "waiting", "{now:#}");
    }
    assert!(
        now["story"].to_string().contains("cannot be reached") || now["story"].to_string().contains("not known"),
        "{now:#}"
    );
    s.world.forge.up().await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.world.forge.pulls(REPO).len(), 1);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_server_that_is_down_for_a_while_delays_and_loses_nothing() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.git.down().await;
    s.press(ANNA, "Approve").await;
    let refused = s.operate(vec![set_image("payments", "reg.example/payments:2.1.0")]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "git.unreachable"), "{refused:#}");
    assert_eq!(refused["problem"]["retry"], "later");
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "outcome"), "waiting", "the daemon answers");
    s.world.git.up().await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_is_lost_is_found_and_not_done_again() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    s.world.git.fault(once("POST /acme/shop.git/git-receive-pack", Mishap::LoseAnswer));
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy"]).await;
    assert!(s.world.git.log().iter().any(|l| l["what"] == "fault"), "the answer was lost");
    assert_eq!((s.our_commits().len(), accepted_pushes(&s).len()), (1, 1));
    assert_eq!(text(&end, "commit"), s.our_commits()[0].id);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_is_said_and_waited_for() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    s.world.cluster.state().set_available(false);
    let refused = s.operate(vec![set_image("checkout", GOOD)]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "cluster.unreachable"), "{refused:#}");
    assert_eq!(refused["problem"]["retry"], "later");
    let looked = s.call("inspect", json!({"target": target("checkout")})).await;
    assert_eq!(code(&looked), "cluster.unreachable", "{looked:#}");
    s.world.cluster.state().set_available(true);
    // The watches come back by themselves.
    let end = tokio::time::Instant::now() + crate::world::PATIENCE;
    let change = loop {
        let answer = s.operate(vec![set_image("checkout", GOOD)]).await;
        if text(&answer, "outcome") == "waiting" {
            break text(&answer, "change").to_owned();
        }
        assert!(tokio::time::Instant::now() < end, "{answer:#}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    asked(&s, ANNA).await;
    // Between the card and the push: who owns the target cannot be told, so nothing is pushed.
    s.world.cluster.state().set_available(false);
    s.press(ANNA, "Approve").await;
    never("a push without knowing the owner", Duration::from_millis(1200), || s.world.tip() != tip).await;
    s.world.cluster.pause_engine(Engine::Argocd, true);
    s.world.cluster.state().set_available(true);
    s.until(&change, &["observing"]).await;
    // And while it is watched.
    s.world.cluster.state().set_available(false);
    let now = s.call("change", json!({"change": change, "wait_s": 1})).await;
    assert_eq!(text(&now, "state"), "observing", "{now:#}");
    s.world.cluster.state().set_available(true);
    s.world.cluster.pause_engine(Engine::Argocd, false);
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.our_commits().len(), 1);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_input_is_refused_with_what_would_be_right() {
    let mut s = Stage::new(quick()).await;
    let tip = s.world.tip();
    let field = |pointer: &str, value: Value| json!({"target": target("checkout"), "set_field": {"pointer": pointer, "value": value}});
    let operate = |edit: Value| ("operate", json!({"edits": [edit], "reason": "a test wants it"}));
    let image = |target: String, container: &str| json!({"target": target, "set_image": {"container": container, "image": GOOD}});
    let cases = [
        (
            "an unknown argument",
            ("operate", json!({"edits": [set_image("checkout", GOOD)], "reason": "x", "force": true})),
            "input.unknown_argument",
            "force",
        ),
        (
            "an unknown operation",
            operate(json!({"target": target("checkout"), "exec": {"command": "id"}})),
            "input.unknown_argument",
            "exec",
        ),
        (
            "no reason",
            ("operate", json!({"edits": [set_image("checkout", GOOD)], "reason": " "})),
            "input.reason",
            "why",
        ),
        ("no edits", ("operate", json!({"edits": [], "reason": "x"})), "input.edits", "1 to"),
        (
            "an unknown cluster",
            operate(image("prod-us/shop/Deployment/checkout".to_owned(), "app")),
            "cluster.unknown",
            CLUSTER,
        ),
        (
            "an unknown kind",
            operate(image(format!("{CLUSTER}/shop/Deploymnt/checkout"), "app")),
            "input.kind_unknown",
            "Deployment",
        ),
        ("an unknown object", operate(image(target("chekout"), "app")), "cluster.not_found", "shop/chekout"),
        ("an unknown container", operate(image(target("checkout"), "ap")), "manifest.container_not_found", "app"),
        ("an unknown field", operate(field("/spec/replica", json!(3))), "schema.unknown_field", "replicas"),
        ("a value of the wrong type", operate(field("/spec/replicas", json!("three"))), "schema.type", "integer"),
        ("an unknown change", ("change", json!({"change": "cs-0000"})), "change.unknown", "changes"),
        ("no target", ("inspect", json!({"target": "checkout"})), "input.target", "cluster/namespace/Kind/name"),
    ];
    for (what, (tool, args), expected, words) in cases {
        let answer = s.call(tool, args).await;
        assert_eq!((text(&answer, "outcome"), code(&answer)), ("refused", expected), "{what}: {answer:#}");
        let problem = &answer["problem"];
        assert!(problem.to_string().contains(words), "{what}: {problem:#}");
        assert!(!problem["next"].as_str().unwrap().is_empty(), "{what} says what to do next");
    }
    let approve = s.agent.call("approve", json!({"change": "cs-0000"})).await;
    let words = approve.map_or_else(|p| p.to_string(), |v| v.to_string());
    assert!(words.contains("There is no tool approve"), "{words}");
    let all = s.call("changes", json!({"state": "all"})).await;
    assert_eq!(all["changes"], json!([]), "{all:#}");
    assert!(s.world.bot.chat(ANNA).is_empty(), "nobody is asked about any of it");
    assert_eq!((s.world.tip(), s.world.git.pushes().len()), (tip, 0));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_yaml_is_named_and_the_rest_goes_on() {
    let mut s = Stage::new(quick()).await;
    let broken = s.world.file(CHECKOUT).unwrap().replace("  replicas: 2", "  replicas: [2");
    s.world.git.commit_file(REPO, "main", CHECKOUT, broken.as_bytes(), &somebody()).unwrap();
    let refused = s.operate(vec![set_image("checkout", GOOD)]).await;
    assert_eq!((text(&refused, "outcome"), code(&refused)), ("refused", "manifest.syntax"), "{refused:#}");
    assert!(refused["problem"].to_string().contains(CHECKOUT), "{refused:#}");
    let change = s.propose(set_image("payments", "reg.example/payments:2.1.0")).await;
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.world.file(CHECKOUT).unwrap(), broken);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_in_words_and_the_last_good_one_stays() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    let resources = s.world.dir.join("resources/all.yaml");
    let good = std::fs::read_to_string(&resources).unwrap();
    // Max with Anna's key, written with another comment and room around it.
    let anna = std::fs::read_to_string(s.world.keys.anna_key.with_extension("pub")).unwrap();
    let [kind, data] = anna.split_whitespace().take(2).collect::<Vec<_>>()[..] else { panic!("no key: {anna}") };
    let (max, max_signs) = (
        format!("\"telegram\": {MAX}"),
        format!("\"ssh_keys\": [\" {kind} {data} max@elsewhere \"], \"telegram\": {MAX}"),
    );
    for (what, bad, words) in [
        ("no YAML", format!("{good}---\n{{ [\n"), "not valid YAML"),
        ("an unknown kind", good.replacen("\"kind\": \"Person\"", "\"kind\": \"Persona\"", 1), "Persona"),
        ("an unknown key", good.replacen("\"sponsor\"", "\"sponsors\"", 1), "sponsors"),
        ("a sponsor who is nobody", good.replacen("\"sponsor\": \"jon\"", "\"sponsor\": \"john\"", 1), "john"),
        (
            "one account, two entries",
            good.replacen(&MAX.to_string(), &ANNA.to_string(), 1),
            "max and anna have the same Telegram id",
        ),
        (
            "one login, two entries",
            good.replacen("\"forge\": \"jon\"", "\"forge\": \"ANNA\"", 1),
            "anna and jon have the same forge login",
        ),
        (
            "a login that is none",
            good.replacen("\"forge\": \"jon\"", "\"forge\": \"\"", 1),
            "Person jon: `forge: \"\"`",
        ),
        ("nobody's account", good.replacen(&max, "\"telegram\": 777000", 1), "Person max: `telegram: 777000`"),
        (
            "a key that is none",
            good.replacen(&max, &format!("\"ssh_keys\": [\"ssh-ed25519 AAAA max\"], {max}"), 1),
            "Person max: line 1 of `ssh_keys`",
        ),
        ("one key, two entries", good.replacen(&max, &max_signs, 1), "max and anna have the same ssh key"),
        ("a token that is none", good.replacen("\"token_sha256\": \"", "\"token_sha256\": \"x", 1), "64"),
    ] {
        assert_ne!(bad, good, "{what}");
        std::fs::write(&resources, bad).unwrap();
        let refused = ask(&s, Request::Reload).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{what}: {refused}");
        let ran = countersign(&s.world, &["reload"]).await;
        assert!(!ran.ok && ran.out.contains(words), "{what}: {}", ran.out);
    }
    std::fs::write(&resources, &good).unwrap();
    for (what, bad, code) in [
        ("no YAML", "version: 1\nrules: [\n".to_owned(), "policy."),
        ("an unknown key", policy("prompted", "direct", 1).replace("  tell:", "  tells:"), "policy."),
        ("an unknown level", policy("whatever", "direct", 1), "policy."),
    ] {
        s.world.set_policy(&bad).unwrap();
        let refused = ask(&s, Request::Reload).await.unwrap_err();
        assert!(refused.code.starts_with(code) && refused.message.contains("policy.yaml"), "{what}: {refused}");
        let serving = countersign(&s.world, &["serve", "--http", "127.0.0.1:0"]).await;
        assert!(!serving.ok && serving.out.contains("policy.yaml"), "a daemon does not start with it: {}", serving.out);
    }
    let bootstrap = std::fs::read_to_string(&s.world.config).unwrap();
    std::fs::write(&s.world.config, format!("{bootstrap}unheard_of: true\n")).unwrap();
    let refused = ask(&s, Request::Reload).await.unwrap_err();
    assert!(refused.code == "config.invalid" && refused.message.contains("unheard_of"), "{refused}");
    // All the while the last good one is in effect: what waits can be decided.
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    std::fs::write(&s.world.config, bootstrap).unwrap();
    s.world.set_policy(&policy("prompted", "direct", 1)).unwrap();
    ask(&s, Request::Reload).await.unwrap();
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_is_the_same_change_and_a_taken_field_is_refused() {
    let mut s = Stage::new(quick()).await;
    let call = |image: &str, key: Option<&str>| json!({"edits": [set_image("checkout", image)], "reason": "a test wants it", "key": key});
    let first = s.call("operate", call(GOOD, Some("deploy-1"))).await;
    let change = text(&first, "change").to_owned();
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    for key in [Some("deploy-1"), None] {
        let again = s.call("operate", call(GOOD, key)).await;
        assert_eq!(text(&again, "change"), change, "{again:#}");
    }
    let reused = s.call("operate", call("reg.example/checkout:1.8.0", Some("deploy-1"))).await;
    assert_eq!(code(&reused), "input.key_reused", "{reused:#}");
    assert!(said(&reused).contains(text(&first, "name")), "{reused:#}");
    let overlap = s.call("operate", call("reg.example/checkout:1.8.0", None)).await;
    assert_eq!(code(&overlap), "change.overlap", "{overlap:#}");
    assert!(said(&overlap).contains(text(&first, "name")) && said(&overlap).contains("image"), "{overlap:#}");
    s.restart().await;
    let again = s.call("operate", call(GOOD, Some("deploy-1"))).await;
    assert_eq!(text(&again, "change"), change, "also after a restart");
    assert_eq!(s.world.bot.chat(ANNA).len(), 1, "one card for all of it");
    let gone = cancel(&mut s, &change, "not needed").await;
    assert_eq!(code(&gone), "change.cancelled");
    for chat in [ANNA, MAX] {
        let now = card(&s, chat, "CANCELLED").await;
        assert!(now.buttons.is_empty() && now.text.contains("sre-bot"), "{}", now.text);
    }
    cancel(&mut s, &change, "twice is once").await;
    let keyed = s.call("operate", call(GOOD, Some("deploy-1"))).await;
    assert_eq!(text(&keyed, "change"), change, "a key is for ever");
    let fresh = s.call("operate", call(GOOD, None)).await;
    assert_ne!(text(&fresh, "change"), change, "a derived key is for open changes only");
    s.press(ANNA, "Approve").await;
    s.until(text(&fresh, "change"), &["healthy"]).await;
    let late = s.call("cancel", json!({"change": fresh["change"]})).await;
    assert_eq!((text(&late, "state"), code(&late)), ("healthy", ""), "an ended change is only told: {late:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_its_way_is_not_cancelled() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    s.world.cluster.pause_engine(Engine::Argocd, true);
    s.press(ANNA, "Approve").await;
    s.until(&change, &["observing"]).await;
    let late = s.call("cancel", json!({"change": change})).await;
    assert_eq!(code(&late), "cancel.too_late", "{late:#}");
    assert!(late["problem"]["next"].as_str().unwrap().contains("rollback"), "{late:#}");
    s.world.cluster.pause_engine(Engine::Argocd, false);
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_what_it_may_see_and_no_changes_of_others() {
    let mut s = Stage::new(quick()).await;
    let hash: String = Sha256::digest(b"the other agent's token").iter().map(|b| format!("{b:02x}")).collect();
    let other = json!({"apiVersion": "countersign.dev/v1", "kind": "Agent", "metadata": {"name": "dev-bot"},
        "spec": {"sponsor": "max", "token_sha256": hash, "sees": ["prod-eu/web", "staging-*"]}});
    rewrite(&s.world, |t| format!("{t}---\n{other}\n"));
    ask(&s, Request::Reload).await.unwrap();
    let change = s.propose(set_image("checkout", GOOD)).await;
    let url = format!("http://{}/mcp", s.daemon.as_ref().unwrap().http_addr().unwrap());
    let mut blind = Agent::connect(&url, "the other agent's token").await.unwrap_or_else(|p| panic!("{p}"));
    for (tool, args, expected) in [
        ("inspect", json!({"target": target("checkout")}), "agent.not_visible"),
        (
            "operate",
            json!({"edits": [set_image("checkout", "reg.example/checkout:1.8.0")], "reason": "x"}),
            "agent.not_visible",
        ),
        (
            "operate",
            json!({"edits": [set_image("checkout", "reg.example/checkout:1.8.0")], "reason": "x", "plan_only": true}),
            "agent.not_visible",
        ),
        ("change", json!({"change": change}), "change.unknown"),
        ("cancel", json!({"change": change}), "change.unknown"),
        ("rollback", json!({"change": change, "reason": "x"}), "change.unknown"),
    ] {
        let answer = blind.call(tool, args).await.unwrap();
        assert_eq!(code(&answer), expected, "{tool}: {answer:#}");
    }
    let list = blind.call("changes", json!({"state": "all"})).await.unwrap();
    assert_eq!(list["changes"], json!([]));
    let overview = blind.call("inspect", json!({})).await.unwrap();
    assert!(!overview.to_string().contains("shop-prod"), "{overview:#}");
    assert_eq!(text(&s.call("change", json!({"change": change})).await, "state"), "awaiting_approval");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_does_not_start() {
    let mut s = Stage::new(quick()).await;
    let config = Config::load(&s.world.config).unwrap();
    let second = Daemon::start(config, Some(s.world.config.clone()), None, Clock::real()).await.unwrap_err();
    assert_eq!(second.code, "daemon.running");
    let program = countersign(&s.world, &["serve", "--http", "127.0.0.1:0"]).await;
    assert!(!program.ok && program.out.contains("daemon.running"), "{}", program.out);
    let change = s.propose(set_image("checkout", GOOD)).await;
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_waits_for_the_one_that_is_ending() {
    let mut s = Stage::new(quick()).await;
    s.stop_daemon().await;
    let config = Config::load(&s.world.config).unwrap();
    // As one does that has closed its sockets and finishes what it has under way.
    let ending = std::fs::File::options().write(true).open(config.bootstrap.state_dir.join("lock")).unwrap();
    ending.lock().unwrap();
    let start = Daemon::start(config, Some(s.world.config.clone()), None, Clock::real());
    let next = tokio::spawn(start);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!next.is_finished(), "it waits");
    drop(ending);
    next.await.unwrap().expect("it starts once the lock is free").stop().await;
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_gets_401_and_a_routable_address_needs_tokens() {
    let s = Stage::new(quick()).await;
    let url = format!("http://{}/mcp", s.daemon.as_ref().unwrap().http_addr().unwrap());
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let http = reqwest::Client::new();
    for token in [None, Some("wrong"), Some("")] {
        let mut request = http.post(&url).header("accept", "application/json, text/event-stream").json(&hello);
        if let Some(t) = token {
            request = request.bearer_auth(t);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{token:?}");
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        assert!(answer.text().await.unwrap().contains("auth.token"));
    }
    let world: &World = &s.world;
    rewrite(world, |t| {
        t.lines()
            .map(|l| if l.contains("token_sha256") { "" } else { l })
            .collect::<Vec<_>>()
            .join("\n")
            .replace("\"sponsor\": \"jon\",", "\"sponsor\": \"jon\"")
    });
    let dir = world.dir.clone();
    let config = std::fs::read_to_string(&world.config).unwrap().replace("state_dir: state", "state_dir: elsewhere");
    std::fs::write(dir.join("other.yaml"), config).unwrap();
    let mut open = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    open.args(["serve", "--http", "0.0.0.0:0", "--config"]).arg(dir.join("other.yaml")).kill_on_drop(true);
    let out = tokio::time::timeout(Duration::from_secs(20), open.output()).await.expect("it ends by itself").unwrap();
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && words.contains("server.no_auth"), "{words}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_answered_even_where_telegram_loses_the_first_answer() {
    let mut s = Stage::new(quick()).await;
    let change = s.propose(set_image("checkout", GOOD)).await;
    asked(&s, ANNA).await;
    asked(&s, MAX).await;
    // The poll that brings the press is cut: the press comes again, and counts once.
    s.world.bot.fault(once("getUpdates", Mishap::LoseAnswer));
    let (words, _) = told(&s, &Press::button(ANNA, "Approve")).await;
    struck(|| s.world.bot.log()).await;
    assert_eq!(words, "Approved.");
    s.until(&change, &["healthy"]).await;
    let votes = story(&s, &change)
        .await
        .iter()
        .filter(|e| matches!(e.body, countersign_core::model::Body::Voted { .. }))
        .count();
    assert_eq!((votes, s.our_commits().len()), (1, 1));
    wait("the card is settled", || s.world.bot.chat(ANNA).iter().any(|m| m.text.contains("HEALTHY")).then_some(()))
        .await;
    s.end().await;
}
