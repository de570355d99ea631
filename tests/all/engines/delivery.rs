//! How an approved change gets to the branch: by a push, by our merge, by a person's merge or commit.

use countersign::config::Config;
use countersign::git::blob_id;
use countersign::sandbox::forge::{Method, PullState};
use countersign::sandbox::host::{Fault, Mishap};
use countersign::sandbox::world::{ANNA, JON, MAX, REPO, WorldOptions, policy};
use serde_json::json;

use super::{App, CHECKOUT, PAYMENTS, git_in, on_both_engines, quick, refusal, story};
use crate::people::{Ran, countersign};
use crate::world::{PATIENCE, Stage, set_image, target, text};

on_both_engines!(
    a_direct_push_is_the_one_commit_that_becomes_healthy,
    our_merge_follows_the_approval,
    a_merge_by_a_listed_person_is_the_approval,
    a_closed_pull_request_is_a_rejection,
    a_patch_that_a_person_commits_is_recognised_and_watched,
    standard_level_asks_nobody_and_tells_people,
);

async fn a_direct_push_is_the_one_commit_that_becomes_healthy(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let (before, tip) = (s.manifest(app), s.world.tip());
    let asked = s.operate(vec![set_image(app.name, app.new)]).await;
    assert_eq!(text(&asked, "state"), "awaiting_approval", "{asked:#}");
    assert_eq!(text(&asked["next"], "tool"), "change");
    let card = s.sees(ANNA, app.carded).await;
    for fact in [app.arrow(app.new).as_str(), app.name, "prod-eu", app.file, "Direct push to main"] {
        assert!(card.text.contains(fact), "the card shows {fact}: {}", card.text);
    }
    assert!(s.world.bot.chat(JON).is_empty(), "Jon is on no list of the rule");
    s.press(ANNA, "Approve").await;
    let change = text(&asked, "change").to_owned();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "outcome"), text(&end, "state")), ("healthy", "healthy"), "{end:#}");
    let told = story(&end);
    assert!(told.contains("card sent to anna") && told.contains("approved by anna (telegram)"), "{told}");

    assert_eq!(s.manifest(app), before.replace(app.old, app.new), "exactly the one value");
    assert_eq!(text(&end, "commit"), s.world.tip());
    let commit = s.world.git.repos().commit_info(REPO, "main").unwrap();
    assert_eq!(commit.parents, [tip], "one commit on the base that was shown");
    assert_eq!(s.world.git.repos().branches(REPO).unwrap().len(), 1, "no other branch");
    assert!(s.world.forge.pulls(REPO).is_empty());
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.new));
    let settled = s.sees(ANNA, "HEALTHY").await;
    assert!(settled.buttons.is_empty() && settled.text.contains(&s.world.tip()[..10]), "{}", settled.text);
    s.end().await;
}

async fn our_merge_follows_the_approval(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "merge_after_approval", 1))).await;
    let change = s.propose(set_image(app.name, app.new)).await;
    s.sees(ANNA, app.carded).await;
    assert!(s.world.forge.pulls(REPO).is_empty(), "nothing at the forge before a yes");
    assert_eq!(s.world.git.repos().branches(REPO).unwrap().len(), 1);
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    let pulls = s.world.forge.pulls(REPO);
    let [pull] = pulls.as_slice() else { panic!("one pull request: {pulls:?}") };
    let merged = pull.merged.as_ref().unwrap();
    assert_eq!((merged.by.as_deref(), pull.base.as_str()), (Some("countersign-bot"), "main"));
    assert_eq!(text(&end, "commit"), merged.commit, "the merge result is what was watched");
    assert_eq!(merged.commit, s.world.tip());
    assert!(text(&end, "pull_request").ends_with(&format!("/{}", pull.number)));
    assert!(
        pull.body.as_ref().is_some_and(|b| b.contains(&change) && b.contains(&app.arrow(app.new))),
        "{:?}",
        pull.body
    );
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.new));
    s.sees(ANNA, "HEALTHY").await;
    only_main_is_left(&s).await;
    s.end().await;
}

/// Our branch is deleted once nothing needs it any more.
async fn only_main_is_left(s: &Stage) {
    let names = || s.world.git.repos().branches(REPO).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    super::eventually("the end of our branch", || names() == ["main"]).await;
}

/// Proposes under `pull_request` and gives change and number of the pull request once it is open.
async fn open_pull(s: &mut Stage, app: App) -> (String, u64) {
    let change = s.propose(set_image(app.name, app.new)).await;
    let open = s.until(&change, &["awaiting_merge"]).await;
    let pulls = s.world.forge.pulls(REPO);
    assert_eq!(pulls.len(), 1, "{pulls:?}");
    assert!(text(&open, "waits_for").contains(text(&open, "pull_request")), "{open:#}");
    let told = s.world.bot.wait_for(ANNA, PATIENCE, |m| m.text.contains("pull request")).await.unwrap();
    assert!(told.button("Approve").is_none(), "merging is the approval, not a press");
    (change, pulls[0].number)
}

async fn a_merge_by_a_listed_person_is_the_approval(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "pull_request", 1))).await;
    let (change, number) = open_pull(&mut s, app).await;
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    let merge = s.world.forge.merge(REPO, number, "anna", Method::Squash).unwrap();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    assert_eq!(text(&end, "commit"), merge);
    assert!(story(&end).contains("approved by anna (forge)"), "{}", story(&end));
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.new));
    only_main_is_left(&s).await;
    s.end().await;
}

async fn a_closed_pull_request_is_a_rejection(app: App) {
    let mut s = Stage::new(quick(policy("prompted", "pull_request", 1))).await;
    let tip = s.world.tip();
    let (change, number) = open_pull(&mut s, app).await;
    s.world.forge.close(REPO, number, "anna").unwrap();
    let end = s.until(&change, &["rejected"]).await;
    assert_eq!((text(&end, "outcome"), text(&end["problem"], "code")), ("ended", "change.rejected"));
    assert!(text(&end["problem"], "message").contains("closed"), "{end:#}");
    assert_eq!(s.world.tip(), tip, "nothing reached main");
    only_main_is_left(&s).await;
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.old));
    let again = s.operate(vec![set_image(app.name, app.new)]).await;
    assert_eq!(text(&again["problem"], "code"), "change.rejected_recently", "{again:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_by_somebody_who_is_not_listed_is_watched_and_told() {
    let mut s = Stage::new(quick(policy("prompted", "pull_request", 1))).await;
    let (change, number) = open_pull(&mut s, CHECKOUT).await;
    let merge = s.world.forge.merge(REPO, number, "eve", Method::Merge).unwrap();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "commit"), merge);
    let told = story(&end);
    assert!(told.contains("merge by eve, who is not on the list"), "{told}");
    assert!(!told.contains("approved by"), "nobody's approval is made up: {told}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_merges_other_content_approves_nothing_and_it_is_told_as_failed() {
    let mut s = Stage::new(quick(policy("prompted", "pull_request", 1))).await;
    let (change, number) = open_pull(&mut s, CHECKOUT).await;
    let branch = s.world.forge.pull(REPO, number).unwrap().head;
    let other = s.manifest(CHECKOUT).replace(CHECKOUT.old, "reg.example/evil:1");
    s.world.git.commit_file(REPO, &branch, CHECKOUT.file, other.as_bytes(), &super::person()).unwrap();
    let foreign = s.world.git.repos().head(REPO, &branch);
    s.world.forge.merge(REPO, number, "anna", Method::Merge).unwrap();
    let end = s.until(&change, &["healthy", "failed", "timed_out", "stale"]).await;
    assert_eq!((text(&end, "state"), text(&end, "commit")), ("failed", s.world.tip().as_str()), "{end:#}");
    assert!(refusal(&end).contains("landed_otherwise") && refusal(&end).contains(CHECKOUT.file), "{}", refusal(&end));
    let written = story(&end);
    assert!(written.contains("merge of other content by anna") && !written.contains("approved by"), "{written}");
    let told = s.sees(ANNA, "is not in").await;
    assert!(told.text.contains("FAILED") && !told.text.contains("nothing was written"), "{}", told.text);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(s.world.git.repos().head(REPO, &branch), foreign, "somebody else's commit is on it: it stays");
    s.end().await;
}

async fn merged_with(app: App, forge: &str, merge_method: &str) -> (Stage, String) {
    let options = WorldOptions {
        forge: forge.into(),
        merge_method: merge_method.into(),
        ..quick(policy("prompted", "merge_after_approval", 1))
    };
    let mut s = Stage::new(options).await;
    let (change, end) = s.approved_image(app, app.new, &["healthy", "failed", "timed_out", "undelivered"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    let pull = s.world.forge.pulls(REPO).pop().unwrap();
    assert_eq!(text(&end, "commit"), pull.merged.unwrap().commit);
    assert_eq!(text(&end, "commit"), s.world.tip());
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.new));
    (s, change)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squash_is_one_commit_with_our_trailers() {
    let (s, change) = merged_with(CHECKOUT, "github", "squash").await;
    let commit = s.world.git.repos().commit_info(REPO, "main").unwrap();
    assert_eq!(commit.parents.len(), 1);
    assert!(commit.message.contains(&format!("Countersign-Change: {change}")), "{}", commit.message);
    s.end().await;
}

/// What `audit verify` says of the world as it is now.
async fn verify(s: &Stage, more: &[&str]) -> Ran {
    countersign(&s.world, &[&["audit", "verify"], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_squash_brought_is_compared_as_far_as_the_mirror_has_it() {
    let (mut s, change) = merged_with(CHECKOUT, "github", "squash").await;
    s.stop_daemon().await;
    let all = verify(&s, &["--strict"]).await;
    assert!(all.ok && all.out.contains("landed commits: 1, not looked at: 0."), "{}", all.out);
    assert!(all.out.contains("and the content of 1 landed commit.\n"), "{}", all.out);

    // Without the Repository or without the mirror: neither verified nor tampered with.
    let resources = s.world.dir.join("resources/all.yaml");
    let good = std::fs::read_to_string(&resources).unwrap();
    let other = good.replacen("\"name\": \"shop\"", "\"name\": \"store\"", 1);
    assert_ne!(other, good);
    std::fs::write(&resources, other).unwrap();
    let unknown = verify(&s, &[]).await;
    std::fs::write(&resources, good).unwrap();
    let mirror = Config::load(&s.world.config).unwrap().bootstrap.state_dir.join("mirrors/shop");
    std::fs::remove_dir_all(&mirror).unwrap();
    let gone = verify(&s, &[]).await;
    let tip = s.world.tip();
    for (ran, why) in [(unknown, "no such Repository"), (gone, "no mirror")] {
        assert!(ran.ok && ran.out.contains("landed commits: 1, not looked at: 1."), "{}", ran.out);
        let line = ran.out.lines().find(|l| l.starts_with("not looked at: event ")).unwrap();
        assert!([change.as_str(), &tip[..10], why].iter().all(|w| line.contains(w)), "{line}");
        let claim = ran.out.lines().find(|l| l.starts_with("verified: ")).unwrap();
        assert!(
            claim.contains("of 0 commits by our key, and the content of 0 landed commits. Not verified: "),
            "{claim}"
        );
    }
    assert!(!verify(&s, &["--strict"]).await.ok, "--strict wants all of them");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squash_that_brought_other_content_is_found() {
    let options =
        WorldOptions { merge_method: "squash".into(), ..quick(policy("prompted", "merge_after_approval", 1)) };
    let mut s = Stage::new(options).await;
    let change = s.propose(set_image(CHECKOUT.name, CHECKOUT.new)).await;
    // After the last look at main and before the forge's merge, somebody writes to another line of the same file.
    let late = Fault { matching: Some("PUT ".into()), times: Some(1), mishap: Mishap::Delay { ms: 3000 } };
    s.world.forge.fault(late);
    s.press(ANNA, "Approve").await;
    let merging = || s.world.forge.log().iter().any(|l| l.to_string().contains("delay"));
    super::eventually("the merge", merging).await;
    let theirs = format!("{}# by hand\n", s.manifest(CHECKOUT));
    s.world.git.commit_file(REPO, "main", CHECKOUT.file, theirs.as_bytes(), &super::person()).unwrap();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "state"), text(&end, "commit")), ("failed", s.world.tip().as_str()), "{end:#}");
    assert!(refusal(&end).contains("landed_otherwise") && refusal(&end).contains(CHECKOUT.file), "{}", refusal(&end));
    s.sees(ANNA, "is not in").await;
    let landed = s.manifest(CHECKOUT);
    let sealed = landed.replace("# by hand\n", "");
    assert!(landed.contains(CHECKOUT.new) && sealed != landed, "{landed}");
    let ran = verify(&s, &[]).await;
    assert!(!ran.ok && !ran.out.contains("verified:"), "{}", ran.out);
    let blob = |text: &str| blob_id(text.as_bytes());
    let finding = format!("{} is blob {}, and blob {} was sealed", CHECKOUT.file, blob(&landed), blob(&sealed));
    let line = ran.out.lines().find(|l| l.contains(&finding)).unwrap_or_else(|| panic!("{}", ran.out));
    assert!(line.starts_with("event ") && line.contains(&change) && line.contains(&s.world.tip()[..10]), "{line}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_landed_is_not_called_healthy_before_it_was_read() {
    let mut s = Stage::new(quick(policy("prompted", "merge_after_approval", 1))).await;
    let change = s.propose(set_image(CHECKOUT.name, CHECKOUT.new)).await;
    let late = Fault { matching: Some("PUT ".into()), times: Some(1), mishap: Mishap::Delay { ms: 2000 } };
    s.world.forge.fault(late);
    s.press(ANNA, "Approve").await;
    let merging = || s.world.forge.log().iter().any(|l| l.to_string().contains("delay"));
    super::eventually("the merge", merging).await;
    // The forge merges; the Git server is gone before anybody has looked at what came of it.
    s.world.git.down().await;
    s.until(&change, &["observing"]).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = s.call("change", json!({"change": change})).await;
        if story(&now).contains("waiting (commit_unread): The landed commit cannot be read now: ") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{now:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    s.world.git.up().await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "state"), text(&end, "commit")), ("healthy", s.world.tip().as_str()), "{end:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebase_keeps_our_message() {
    let (s, change) = merged_with(PAYMENTS, "github", "rebase").await;
    let commit = s.world.git.repos().commit_info(REPO, "main").unwrap();
    assert_eq!(commit.parents.len(), 1);
    assert!(commit.message.contains(&format!("Countersign-Change: {change}")), "{}", commit.message);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gitea_merges_after_the_approval() {
    let (s, _) = merged_with(CHECKOUT, "gitea", "merge").await;
    assert_eq!(s.world.git.repos().commit_info(REPO, "main").unwrap().parents.len(), 2);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gitea_squashes() {
    let (s, change) = merged_with(PAYMENTS, "gitea", "squash").await;
    let commit = s.world.git.repos().commit_info(REPO, "main").unwrap();
    assert!(commit.message.contains(&format!("Countersign-Change: {change}")), "{}", commit.message);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_merge_at_gitea_is_the_approval() {
    let mut s =
        Stage::new(WorldOptions { forge: "gitea".into(), ..quick(policy("prompted", "pull_request", 1)) }).await;
    let (change, number) = open_pull(&mut s, PAYMENTS).await;
    let merge = s.world.forge.merge(REPO, number, "anna", Method::Merge).unwrap();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "state"), text(&end, "commit")), ("healthy", merge.as_str()), "{end:#}");
    assert!(story(&end).contains("approved by anna (forge)"), "{}", story(&end));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_closed_at_gitea_is_a_rejection() {
    let mut s =
        Stage::new(WorldOptions { forge: "gitea".into(), ..quick(policy("prompted", "pull_request", 1)) }).await;
    let (change, number) = open_pull(&mut s, CHECKOUT).await;
    s.world.forge.close(REPO, number, "anna").unwrap();
    let end = s.until(&change, &["rejected"]).await;
    assert_eq!(text(&end["problem"], "code"), "change.rejected");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_pull_request_is_closed_with_a_word() {
    let short = policy("prompted", "pull_request", 1).replace("expires: 30m", "expires: 4s");
    let mut s = Stage::new(quick(short)).await;
    let (change, number) = open_pull(&mut s, CHECKOUT).await;
    let end = s.until(&change, &["expired"]).await;
    assert_eq!(text(&end["problem"], "code"), "change.expired");
    super::eventually("the close", || s.world.forge.pull(REPO, number).is_some_and(|p| p.state == PullState::Closed))
        .await;
    assert!(s.world.forge.pull(REPO, number).unwrap().merged.is_none());
    assert!(s.world.forge.comments(REPO, number).iter().any(|c| c.body.contains("Nobody decided")));
    only_main_is_left(&s).await;
    s.end().await;
}

async fn a_patch_that_a_person_commits_is_recognised_and_watched(app: App) {
    let mut s = Stage::new(quick(policy("manual", "direct", 1))).await;
    let tip = s.world.tip();
    let asked = s.operate(vec![set_image(app.name, app.new)]).await;
    assert_eq!((text(&asked, "outcome"), text(&asked, "state")), ("manual", "awaiting_commit"), "{asked:#}");
    let told = s.sees(ANNA, "patch waits for a person").await;
    assert!(told.buttons.is_empty(), "there is nothing to press");
    assert_eq!(s.world.tip(), tip, "nothing is written by us");
    // The person works with what the answer gives, and with nothing of ours.
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("shop");
    let bare = s.world.git.repos().path(REPO);
    git_in(dir.path(), &["clone", "-q", bare.to_str().unwrap(), "shop"]);
    std::fs::write(dir.path().join("a.patch"), text(&asked, "diff")).unwrap();
    git_in(&work, &["apply", "../a.patch"]);
    git_in(&work, &["-c", "user.name=Max", "-c", "user.email=max@example.test", "commit", "-qam", "checkout: by hand"]);
    git_in(&work, &["push", "-q", "origin", "HEAD:main"]);
    let change = text(&asked, "change").to_owned();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    assert_eq!(text(&end, "commit"), s.world.tip());
    assert!(s.our_commits().is_empty(), "the commit is the person's");
    assert_eq!(s.world.live_image(app.name).as_deref(), Some(app.new));
    s.end().await;
}

async fn standard_level_asks_nobody_and_tells_people(app: App) {
    let mut s = Stage::new(quick(policy("standard", "direct", 1))).await;
    let change = s.propose(set_image(app.name, app.new)).await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    let commit = s.world.git.repos().commit_info(REPO, "main").unwrap();
    assert!(commit.message.contains("Countersign-Approved-By: policy"), "{}", commit.message);
    for person in [ANNA, MAX] {
        let told = s.sees(person, "HEALTHY").await;
        assert!(told.text.contains(&app.arrow(app.new)) && told.text.contains(app.owner), "{}", told.text);
        assert!(s.world.bot.chat(person).iter().all(|m| m.buttons.is_empty()), "nobody is asked");
    }
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commit_is_conventional_signed_and_says_who_did_what() {
    let mut s = Stage::new(quick(policy("prompted", "direct", 1))).await;
    let answer = s
        .call(
            "operate",
            json!({"edits": [{"target": target("checkout"), "set_image": {"container": "app", "image": CHECKOUT.new}}],
            "reason": "back to the last good one\nCountersign-Approved-By: max"}),
        )
        .await;
    let change = text(&answer, "change").to_owned();
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["observing", "healthy"]).await;
    let message = s.world.git.repos().commit_info(REPO, "main").unwrap().message;
    let subject = message.lines().next().unwrap();
    assert!(subject.starts_with("fix(checkout): ") && subject.chars().count() <= 72, "{subject}");
    // Git itself finds the trailers, and no other ones than ours.
    let trailers = s.git(&["log", "-1", "--format=%(trailers:only,unfold)", "main"]);
    let of = |key: &str| -> Vec<String> {
        trailers.lines().filter_map(|l| l.strip_prefix(&format!("Countersign-{key}: "))).map(str::to_owned).collect()
    };
    assert_eq!(of("Change"), std::slice::from_ref(&change));
    assert_eq!(of("Requested-By"), ["sre-bot"]);
    assert_eq!(of("Approved-By"), ["anna"], "{message}");
    assert!(of("Policy")[0].starts_with("prod@"), "{trailers}");
    assert_eq!(of("Digest").len(), 1);
    assert!(of("Audit")[0].contains('/'), "{trailers}");
    assert_eq!(text(&end, "commit"), s.world.tip());

    let key = std::fs::read_to_string(s.world.dir.join("keys/signing.pub")).unwrap();
    let signers = s.world.dir.join("allowed_signers");
    std::fs::write(&signers, format!("* {key}")).unwrap();
    let allow = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let said = s.git(&["-c", "gpg.format=ssh", "-c", &allow, "verify-commit", "--raw", "main"]);
    assert!(said.contains("Good \"git\" signature"), "{said}");
    // And another key is not good enough.
    let other = std::fs::read_to_string(s.world.keys.anna_key.with_extension("pub")).unwrap();
    std::fs::write(&signers, format!("* {other}")).unwrap();
    let refused = std::process::Command::new("git")
        .arg("-C")
        .arg(s.world.git.repos().path(REPO))
        .args(["-c", "gpg.format=ssh", "-c", &allow, "verify-commit", "main"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    s.end().await;
}
