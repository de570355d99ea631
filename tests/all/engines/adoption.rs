//! What nobody owns: offered, taken over as it is by a pull request, and never otherwise.

use countersign::sandbox::forge::Method;
use countersign::sandbox::world::{ANNA, CLUSTER, REPO, WorldOptions, application, deployment, flux};
use serde_json::{Value, json};

use super::{App, CHECKOUT, eventually, git_in, notes, on_both_engines, quick, refusal};
use crate::world::{Stage, text};

on_both_engines!(
    one_owner_that_fits_takes_it_over_by_a_pull_request,
    a_choice_between_two_owners_is_never_guessed,
    an_overlay_gets_its_entry_and_the_object_stays_as_it_is,
    a_new_owner_is_declared_where_no_other_fits,
);

/// Everything in production goes out by itself, and there is a word about adoption.
fn rules(about_adoption: &str) -> String {
    format!(
        "version: 1\ndefault: {{level: deny}}\nrules:\n- id: prod\n  match: {{labels: {{env: prod}}}}\n  level: standard\n  deliver: direct\n  tell: [sre]\n{about_adoption}"
    )
}

const ASK: &str = "- id: take-over\n  match: {operation: adopt}\n  level: prompted\n  approve: {from: [sre], count: 1, expires: 30m}\n";

fn settings(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  namespace: {namespace}\ndata:\n  colour: blue\n"
    )
}

/// A world with an owner that alone delivers to the namespace `solo`, from these files.
async fn solo(app: App, path: &str, files: Vec<(String, String)>, about_adoption: &str) -> Stage {
    let s = Stage::new(WorldOptions { files, ..quick(rules(about_adoption)) }).await;
    let url = s.world.git.repo_url(REPO);
    s.world.cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "solo"}})).unwrap();
    if app.name == CHECKOUT.name {
        let mut owner = application("solo", &url, path);
        owner["spec"]["destination"]["namespace"] = json!("solo");
        s.world.cluster.apply(&owner).unwrap();
    } else {
        let [_, owner] = flux("solo", &url, path);
        s.world.cluster.apply(&owner).unwrap();
    }
    eventually("the first object of solo", || {
        s.world.cluster.get("", "ConfigMap", "solo", "settings").is_some()
            && match app.name == CHECKOUT.name {
                true => s
                    .world
                    .cluster
                    .get("argoproj.io", "Application", "argocd", "solo")
                    .is_some_and(|a| a["status"]["sync"]["status"] == "Synced"),
                false => s
                    .world
                    .cluster
                    .get("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", "solo")
                    .is_some_and(|k| k["status"]["inventory"]["entries"][0].is_object()),
            }
    })
    .await;
    s
}

fn plain_files() -> Vec<(String, String)> {
    vec![("apps/solo/settings.yaml".into(), settings("solo"))]
}

/// Somebody applied it with kubectl.
fn stray(s: &Stage, namespace: &str) -> Value {
    let text =
        deployment("stray", "reg.example/stray:1", 1).replace("namespace: shop", &format!("namespace: {namespace}"));
    let mut object: Value = serde_saphyr::from_str(&text).unwrap();
    object["metadata"]["annotations"] = json!({
        "kubectl.kubernetes.io/last-applied-configuration": object.to_string(),
        "example.test/owner": "team-a",
    });
    s.world.cluster.apply(&object).unwrap();
    object
}

fn named(namespace: &str) -> String {
    format!("{CLUSTER}/{namespace}/Deployment/stray")
}

fn adopt(target: &str) -> Value {
    json!({"target": target, "adopt": {}})
}

async fn live(s: &Stage, namespace: &str) -> Value {
    eventually("a ready stray", || {
        s.world.cluster.get("apps", "Deployment", namespace, "stray").is_some_and(|d| d["status"]["readyReplicas"] == 1)
    })
    .await;
    (*s.world.cluster.get("apps", "Deployment", namespace, "stray").unwrap()).clone()
}

fn owner_of(app: App) -> &'static str {
    if app.name == CHECKOUT.name { "Application argocd/solo" } else { "Kustomization flux-system/solo" }
}

/// Waits for the one pull request of a change, and gives its number and what it changes.
async fn pull(s: &mut Stage, change: &str) -> (u64, String, String) {
    s.until(change, &["awaiting_merge"]).await;
    let pulls = s.world.forge.pulls(REPO);
    let [one] = pulls.as_slice() else { panic!("one pull request: {pulls:?}") };
    let diff = s.git(&["diff", "--no-color", "main", &one.head]);
    (one.number, diff, one.body.clone().unwrap_or_default())
}

async fn merged(s: &mut Stage, change: &str, number: u64) -> Value {
    s.world.forge.merge(REPO, number, "anna", Method::Merge).unwrap();
    let end = s.until(change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    end
}

async fn one_owner_that_fits_takes_it_over_by_a_pull_request(app: App) {
    let mut s = solo(app, "apps/solo", plain_files(), ASK).await;
    let applied = stray(&s, "solo");
    let (before, tip) = (live(&s, "solo").await, s.world.tip());
    let target = named("solo");
    let seen = s.call("inspect", json!({"target": target})).await;
    assert_eq!(text(&seen, "ownership"), "unmanaged", "{seen:#}");
    assert_eq!(seen["next"]["args"]["edits"], json!([adopt(&target)]), "{seen:#}");

    // Any other operation is refused, with the very call that would bring it into Git.
    let image = json!({"target": target, "set_image": {"container": "app", "image": "reg.example/stray:2"}});
    let refused = s.operate(vec![image]).await;
    assert_eq!((text(&refused, "outcome"), text(&refused["problem"], "code")), ("refused", "owner.unmanaged"));
    let path = "apps/solo/deployment-stray.yaml";
    let choices = refused["choices"].as_array().unwrap();
    let [only] = choices.as_slice() else { panic!("one owner fits: {refused:#}") };
    assert!(text(only, "what").contains(path) && text(only, "what").contains("in shop (main)"), "{only:#}");
    assert_eq!(only["args"]["edits"], json!([{"target": target, "adopt": {"owner": owner_of(app), "path": path}}]));
    assert_eq!(refused["next"]["args"], only["args"], "{refused:#}");
    assert_eq!(s.world.tip(), tip);

    let args = only["args"].clone();
    let asked = s.call("operate", args.clone()).await;
    assert_eq!(text(&asked, "outcome"), "waiting", "{asked:#}");
    assert_eq!(text(&asked["decision"], "delivery"), "pull_request", "although prod says direct: {asked:#}");
    assert!(notes(&asked).contains("taken over as it is"), "{asked:#}");
    let change = text(&asked, "change").to_owned();
    let (number, diff, body) = pull(&mut s, &change).await;
    assert!(body.contains("taken over as it is") && body.contains("prunes"), "{body}");
    assert_eq!(diff.lines().filter(|l| l.starts_with("diff --git")).count(), 1, "{diff}");
    let written: String = diff
        .lines()
        .filter_map(|l| l.strip_prefix('+'))
        .filter(|l| !l.starts_with("++"))
        .map(|l| format!("{l}\n"))
        .collect();
    let written: Value = serde_saphyr::from_str(&written).unwrap();
    let mut expected = before.clone();
    expected["metadata"] = json!({
        "name": "stray", "namespace": "solo", "labels": applied["metadata"]["labels"],
        "annotations": {"example.test/owner": "team-a"},
    });
    expected.as_object_mut().unwrap().remove("status");
    assert_eq!(written, expected, "what is live, and nothing that the cluster gave it");
    // The same wish without owner and path is the same change.
    let again = s.operate(vec![adopt(&target)]).await;
    assert_eq!(text(&again, "change"), change, "{again:#}");
    assert_eq!(s.world.tip(), tip, "nothing but the pull request");
    assert_eq!(live(&s, "solo").await["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);

    let end = merged(&mut s, &change, number).await;
    assert_eq!(text(&end, "commit"), s.world.tip());
    let now = live(&s, "solo").await;
    assert_eq!(now["spec"], before["spec"], "nothing in it changed");
    assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"], "it is the same object");
    let seen = s.call("inspect", json!({"target": target})).await;
    assert_eq!((text(&seen, "ownership"), text(&seen["owner"], "name")), ("owned", "solo"), "{seen:#}");
    assert!(text(&seen, "file").starts_with(path), "{seen:#}");

    let taken = s.operate(vec![adopt(&target)]).await;
    assert_eq!(text(&taken["problem"], "code"), "adopt.owned", "{taken:#}");
    let back = s.call("rollback", json!({"change": change, "reason": "a test"})).await;
    assert_eq!(text(&back["problem"], "code"), "rollback.adoption", "{back:#}");
    let image = json!({"target": target, "set_image": {"container": "app", "image": "reg.example/stray:2"}});
    let asked = s.operate(vec![image]).await;
    let end = s.until(text(&asked, "change"), &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "it is changed like any other now: {end:#}");
    s.end().await;
}

async fn a_choice_between_two_owners_is_never_guessed(app: App) {
    let mut s = Stage::new(quick(rules(ASK))).await;
    stray(&s, "shop");
    let before = live(&s, "shop").await;
    let asked = s.operate(vec![adopt(&named("shop"))]).await;
    assert_eq!(text(&asked, "outcome"), "needs_choice", "{asked:#}");
    let choices = asked["choices"].as_array().unwrap().clone();
    assert_eq!(choices.len(), 2, "{asked:#}");
    assert!(s.world.forge.pulls(REPO).is_empty());
    let mine = choices.iter().find(|c| text(c, "what").contains(app.owner)).unwrap_or_else(|| panic!("{asked:#}"));
    let asked = s.call("operate", mine["args"].clone()).await;
    let change = text(&asked, "change").to_owned();
    let (number, diff, _) = pull(&mut s, &change).await;
    assert!(diff.contains(&format!("+++ b/apps/{}/deployment-stray.yaml", app.name)), "{diff}");
    merged(&mut s, &change, number).await;
    assert_eq!(live(&s, "shop").await["spec"], before["spec"]);
    let seen = s.call("inspect", json!({"target": named("shop")})).await;
    assert!(text(&seen, "summary").contains(app.owner), "{seen:#}");
    s.end().await;
}

const OVERLAY: &str = "apps/solo/prod/kustomization.yaml";

fn overlay(more: &str) -> Vec<(String, String)> {
    vec![
        ("apps/solo/base/kustomization.yaml".into(), "resources:\n- settings.yaml\n".into()),
        ("apps/solo/base/settings.yaml".into(), settings("solo").replace("  namespace: solo\n", "")),
        (OVERLAY.into(), format!("# solo\nresources:\n- ../base  # shared\nnamespace: solo\n{more}")),
    ]
}

async fn an_overlay_gets_its_entry_and_the_object_stays_as_it_is(app: App) {
    if countersign::render::Kustomize::find(None).is_none() {
        println!("skipped: neither kustomize nor kubectl is on the search path");
        return;
    }
    let mut s = solo(app, "apps/solo/prod", overlay(""), ASK).await;
    stray(&s, "solo");
    let before = live(&s, "solo").await;
    let plan = s.plan(vec![adopt(&named("solo"))]).await;
    assert_eq!(text(&plan, "outcome"), "planned", "{plan:#}");
    let asked = s.operate(vec![adopt(&named("solo"))]).await;
    let change = text(&asked, "change").to_owned();
    let (number, diff, _) = pull(&mut s, &change).await;
    assert_eq!(diff.lines().filter(|l| l.starts_with("diff --git")).count(), 2, "{diff}");
    assert!(diff.contains("+- deployment-stray.yaml"), "{diff}");
    merged(&mut s, &change, number).await;
    let file = s.world.file(OVERLAY).unwrap();
    assert!(file.contains("- ../base  # shared\n- deployment-stray.yaml\n"), "{file}");
    assert_eq!(live(&s, "solo").await["spec"], before["spec"]);
    s.end().await;
}

/// An owner of owners with one child, which delivers to a namespace of its own.
async fn family(app: App) -> Stage {
    let files = vec![("apps/child/settings.yaml".into(), settings("other"))];
    let s = Stage::new(WorldOptions { files, ..quick(rules(ASK)) }).await;
    let url = s.world.git.repo_url(REPO);
    for name in ["other", "solo"] {
        s.world.cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).unwrap();
    }
    let (child, root) = if app.name == CHECKOUT.name {
        let (mut child, mut root) = (application("child", &url, "apps/child"), application("root", &url, "apps/root"));
        child["spec"]["destination"]["namespace"] = json!("other");
        root["spec"]["destination"]["namespace"] = json!("argocd");
        (child, root)
    } else {
        let ([_, child], [_, root]) = (flux("child", &url, "apps/child"), flux("root", &url, "apps/root"));
        (child, root)
    };
    s.person_commits("apps/root/child.yaml", &child.to_string());
    s.world.cluster.apply(&root).unwrap();
    eventually("the child", || s.world.cluster.get("", "ConfigMap", "other", "settings").is_some()).await;
    s
}

async fn a_new_owner_is_declared_where_no_other_fits(app: App) {
    let mut s = family(app).await;
    stray(&s, "solo");
    let (before, tip) = (live(&s, "solo").await, s.world.tip());
    let asked = s.operate(vec![adopt(&named("solo"))]).await;
    assert_eq!(text(&asked, "outcome"), "needs_choice", "a new owner is never implied: {asked:#}");
    let [only] = asked["choices"].as_array().unwrap().as_slice() else { panic!("one parent: {asked:#}") };
    assert!(text(only, "what").starts_with("A new owner stray, declared by"), "{only:#}");
    let asked = s.call("operate", only["args"].clone()).await;
    // Engines' own objects are privileged: people commit them.
    assert_eq!((text(&asked, "outcome"), text(&asked, "state")), ("manual", "awaiting_commit"), "{asked:#}");
    let kind = if app.name == CHECKOUT.name { "application" } else { "kustomization" };
    let diff = text(&asked, "diff").to_owned();
    assert_eq!(diff.matches("--- /dev/null").count(), 2, "{diff}");
    assert!(diff.contains(&format!("+++ b/apps/root/{kind}-stray.yaml")), "{diff}");
    assert!(diff.contains("+++ b/apps/stray/deployment-stray.yaml") && diff.contains("prune: false"), "{diff}");
    assert_eq!(s.world.tip(), tip);

    let dir = tempfile::tempdir().unwrap();
    let bare = s.world.git.repos().path(REPO);
    git_in(dir.path(), &["clone", "-q", bare.to_str().unwrap(), "shop"]);
    let work = dir.path().join("shop");
    std::fs::write(dir.path().join("a.patch"), &diff).unwrap();
    git_in(&work, &["apply", "--index", "../a.patch"]);
    git_in(&work, &["-c", "user.name=Max", "-c", "user.email=max@example.test", "commit", "-qm", "stray: by hand"]);
    git_in(&work, &["push", "-q", "origin", "HEAD:main"]);
    let end = s.until(text(&asked, "change"), &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    let now = live(&s, "solo").await;
    assert_eq!((&now["spec"], &now["metadata"]["uid"]), (&before["spec"], &before["metadata"]["uid"]));
    let seen = s.call("inspect", json!({"target": named("solo")})).await;
    assert_eq!((text(&seen, "ownership"), text(&seen["owner"], "name")), ("owned", "stray"), "{seen:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_that_would_change_the_object_does_not_take_it() {
    if countersign::render::Kustomize::find(None).is_none() {
        println!("skipped: neither kustomize nor kubectl is on the search path");
        return;
    }
    let labelled = "labels:\n- pairs: {team: solo}\n  includeTemplates: true\n";
    let mut s = solo(CHECKOUT, "apps/solo/prod", overlay(labelled), ASK).await;
    stray(&s, "solo");
    let asked = s.operate(vec![adopt(&named("solo"))]).await;
    assert_eq!(text(&asked["problem"], "code"), "adopt.no_owner", "{asked:#}");
    assert!(refusal(&asked).contains("plan.effect_not_proved"), "{asked:#}");
    let path = "apps/solo/prod/stray.yaml";
    let named = json!({"target": named("solo"), "adopt": {"owner": "Application argocd/solo", "path": path}});
    let said = refusal(&s.operate(vec![named]).await);
    assert!(
        said.contains("would change what is live") && said.contains("/spec/template/metadata/labels/team"),
        "{said}"
    );
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_makes_or_must_not_see_is_refused() {
    let mut s = Stage::new(quick(rules(ASK))).await;
    let tip = s.world.tip();
    let config = |name: &str, meta: Value, data: Value| {
        let mut metadata = meta;
        metadata["name"] = json!(name);
        metadata["namespace"] = json!("shop");
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    };
    s.world.cluster.apply(&config("parent", json!({}), json!({"a": "b"}))).unwrap();
    let parent = s.world.cluster.get("", "ConfigMap", "shop", "parent").unwrap();
    let parent = json!({"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": parent["metadata"]["uid"]}]});
    let release =
        json!({"annotations": {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "shop"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "stringData": {"password": "hunter2-and-more"}});
    for object in [
        config("made", parent, json!({"a": "b"})),
        config("released", release, json!({"a": "b"})),
        config("leaky", json!({}), json!({"DB_PASSWORD": "hunter2-and-more"})),
        secret,
    ] {
        s.world.cluster.apply(&object).unwrap();
    }
    for (target, code) in [
        ("ConfigMap/made", "target.derived"),
        ("ConfigMap/released", "adopt.helm_release"),
        ("ConfigMap/leaky", "secret.in_change"),
        ("Secret/db", "adopt.secret"),
        ("Deployment/checkout", "adopt.owned"),
    ] {
        let target = format!("{CLUSTER}/shop/{target}");
        for edit in [adopt(&target), json!({"target": target, "adopt": {"owner": "Application argocd/shop-prod"}})] {
            let said = s.operate(vec![edit]).await;
            assert_eq!((text(&said, "outcome"), text(&said["problem"], "code")), ("refused", code), "{said:#}");
            assert!(!said.to_string().contains("hunter2"), "{said:#}");
        }
    }
    // Where it cannot be adopted, no such call is offered, and the refusal says why.
    let edit = json!({"target": format!("{CLUSTER}/shop/ConfigMap/released"), "set_field": {"pointer": "/data/a", "value": "c"}});
    let said = s.operate(vec![edit]).await;
    assert!(refusal(&said).contains("owner.unmanaged") && refusal(&said).contains("adopt.helm_release"), "{said:#}");
    assert!(said.get("choices").is_none() && said.get("next").is_none(), "{said:#}");
    assert_eq!(s.world.tip(), tip);
    assert!(s.world.forge.pulls(REPO).is_empty());
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_about_every_operation_is_no_word_about_adoption() {
    let mut s = solo(CHECKOUT, "apps/solo", plain_files(), "").await;
    stray(&s, "solo");
    live(&s, "solo").await;
    let said = s.operate(vec![adopt(&named("solo"))]).await;
    assert_eq!(text(&said["problem"], "code"), "policy.denied", "{said:#}");
    assert!(refusal(&said).contains("does not name the operation adopt"), "{said:#}");
    // Neither is it offered, and the refusal tells what stands in the way.
    let offer = s.operate(vec![json!({"target": named("solo"), "scale": {"replicas": 2}})]).await;
    assert!(offer.get("choices").is_none() && refusal(&offer).contains("Policy refuses"), "{offer:#}");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_rule_that_says_so_in_words_pushes_an_adoption() {
    let word = "- id: take-over\n  match: {operation: adopt}\n  level: prompted\n  approve: {from: [sre], count: 1, expires: 30m}\n  deliver: direct\n";
    let mut s = solo(CHECKOUT, "apps/solo", plain_files(), word).await;
    stray(&s, "solo");
    live(&s, "solo").await;
    let change = s.propose(adopt(&named("solo"))).await;
    let card = s.sees(ANNA, "is live and in no repository").await;
    assert!(card.text.contains("Direct push to main") && card.text.contains("whole object"), "{}", card.text);
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert!(s.world.forge.pulls(REPO).is_empty());
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_asked_it_is_a_pull_request_all_the_same() {
    let word = "- id: take-over\n  match: {operation: adopt}\n  level: standard\n  tell: [sre]\n";
    let mut s = solo(CHECKOUT, "apps/solo", plain_files(), word).await;
    stray(&s, "solo");
    live(&s, "solo").await;
    let change = s.propose(adopt(&named("solo"))).await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    let pulls = s.world.forge.pulls(REPO);
    let [one] = pulls.as_slice() else { panic!("one pull request: {pulls:?}") };
    assert_eq!(one.merged.as_ref().and_then(|m| m.by.as_deref()), Some("countersign-bot"));
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changed_meanwhile_is_not_taken_over() {
    let word = "- id: take-over\n  match: {operation: adopt}\n  level: prompted\n  approve: {from: [sre], count: 1, expires: 30m}\n  deliver: merge_after_approval\n";
    let mut s = solo(CHECKOUT, "apps/solo", plain_files(), word).await;
    stray(&s, "solo");
    live(&s, "solo").await;
    let tip = s.world.tip();
    let change = s.propose(adopt(&named("solo"))).await;
    s.sees(ANNA, "is live and in no repository").await;
    // Git would put back what somebody set in between.
    s.kubectl("apps", "Deployment", "solo", "stray", |d| d["spec"]["replicas"] = json!(2));
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["stale", "healthy", "failed"]).await;
    assert_eq!(text(&end, "state"), "stale", "{end:#}");
    assert!(text(&end["problem"], "message").contains("was changed in the cluster"), "{end:#}");
    assert_eq!(s.world.tip(), tip);
    s.end().await;
}
