//! A HelmRelease that a Kustomization applies: its objects have no manifest of their own, its values do.

use countersign::sandbox::cluster::Behaviour;
use countersign::sandbox::git::FileChange;
use countersign::sandbox::world::{ANNA, CLUSTER, WorldOptions, policy};
use serde_json::{Value, json};

use super::{quick, refusal};
use crate::world::{PATIENCE, Stage, text};

const FILE: &str = "apps/payments/release.yaml";
const OLD: &str = "reg.example/web:1.0.0";
const NEW: &str = "reg.example/web:1.1.0";
const MISSING: &str = "reg.example/web:missing";

/// A release of the sandbox's chart, next to what the Kustomization payments applies.
fn release(timeout: &str) -> String {
    named("web", timeout)
}

fn named(name: &str, timeout: &str) -> String {
    format!(
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: {name}\n  namespace: flux-system\n  labels:\n    env: prod\nspec:\n  interval: 1m\n  timeout: {timeout}\n  releaseName: {name}\n  targetNamespace: shop\n  chart:\n    spec:\n      chart: ./chart\n      sourceRef:\n        kind: GitRepository\n        name: shop\n  values:\n    image: {OLD}  # the shop's front\n    replicas: 2\n    progressDeadlineSeconds: 300\n"
    )
}

fn options(timeout: &str) -> WorldOptions {
    WorldOptions { files: vec![(FILE.into(), release(timeout))], ..quick(policy("prompted", "direct", 1)) }
}

impl Stage {
    fn deployed(&self) -> Option<String> {
        let d = self.world.cluster.get("apps", "Deployment", "shop", "web")?;
        d.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).map(str::to_owned)
    }

    fn helm_release(&self) -> Value {
        self.world
            .cluster
            .get("helm.toolkit.fluxcd.io", "HelmRelease", "flux-system", "web")
            .map(|d| (*d).clone())
            .unwrap_or_default()
    }

    fn released(&self, image: &str) -> bool {
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        self.deployed().as_deref() == Some(image)
            && self.helm_release()["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(ready))
    }

    async fn with_a_release(timeout: &str) -> Self {
        let s = Self::new(options(timeout)).await;
        s.world.cluster.set_image_behaviour(MISSING, Behaviour::Missing);
        super::eventually("the first release", || s.released(OLD)).await;
        s
    }
}

fn values_image(image: &str) -> Value {
    values_image_of("web", image)
}

fn values_image_of(name: &str, image: &str) -> Value {
    json!({"target": format!("{CLUSTER}/flux-system/HelmRelease/{name}"), "set_field": {"pointer": "/spec/values/image", "value": image}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_release_is_refused_with_the_place_to_change() {
    let mut s = Stage::with_a_release("5m").await;
    let tip = s.world.tip();
    let edit =
        json!({"target": format!("{CLUSTER}/shop/Deployment/web"), "set_image": {"container": "web", "image": NEW}});
    let refused = s.operate(vec![edit]).await;
    assert_eq!(text(&refused, "outcome"), "refused", "{refused:#}");
    let said = refusal(&refused);
    assert!(said.starts_with("source.helm: ") && said.contains("HelmRelease flux-system/web"), "{said}");
    assert!(said.contains(&format!("{CLUSTER}/flux-system/HelmRelease/web")), "a target to call with: {said}");
    assert!(said.contains("/spec/values/"), "and the field: {said}");
    assert!(s.world.bot.chat(ANNA).is_empty());
    assert_eq!(s.world.tip(), tip);
    s.end().await;
}

/// The values of a release are a privileged kind: the patch is ready, and a person commits it.
async fn committed(s: &mut Stage, image: &str, timeout: &str) -> String {
    let tip = s.world.tip();
    let asked = s.operate(vec![values_image(image)]).await;
    assert_eq!((text(&asked, "outcome"), text(&asked, "state")), ("manual", "awaiting_commit"), "{asked:#}");
    assert_eq!(text(&asked["owner"], "kind"), "Kustomization", "{asked:#}");
    assert!(text(&asked, "diff").contains(&format!("+    image: {image}  # the shop's front")), "{asked:#}");
    let told = s.sees(ANNA, "A patch waits for a person").await;
    assert!(told.text.contains("HelmRelease flux-system/web") && told.buttons.is_empty(), "{}", told.text);
    assert_eq!(s.world.tip(), tip, "nothing is written by us");
    s.person_commits(FILE, &release(timeout).replace(OLD, image));
    text(&asked, "change").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_release_is_watched_until_the_release_itself_is_healthy() {
    let mut s = Stage::with_a_release("5m").await;
    // The release cannot get ready yet: the Kustomization alone is not believed.
    s.world.cluster.set_image_behaviour(NEW, Behaviour::Unready);
    let change = committed(&mut s, NEW, "5m").await;
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = s.call("change", json!({"change": change, "wait_s": 1})).await;
        assert!(matches!(text(&now, "outcome"), "waiting" | "manual"), "{now:#}");
        if text(&now, "waits_for").contains("HelmRelease flux-system/web rolls") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "it never waits for the release: {now:#}");
    }
    assert_eq!(s.deployed().as_deref(), Some(NEW));
    s.world.cluster.set_image_behaviour(NEW, Behaviour::Ready);
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "outcome"), text(&end, "commit")), ("healthy", s.world.tip().as_str()), "{end:#}");
    assert!(s.released(NEW), "{:#}", s.helm_release());
    let told = s.sees(ANNA, "HEALTHY").await;
    assert!(told.text.contains(&s.world.tip()[..10]), "{}", told.text);
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upgrade_fails_with_the_engines_words_and_its_revert_heals() {
    let mut s = Stage::with_a_release("80s").await;
    let change = committed(&mut s, MISSING, "80s").await;
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!((text(&end, "state"), text(&end["problem"], "code")), ("failed", "change.failed"), "{end:#}");
    let said = refusal(&end);
    assert!(said.contains("release_failed") && said.contains("Helm upgrade failed"), "the engine's own words: {said}");
    let told = s.sees(ANNA, "FAILED").await;
    assert!(told.text.contains("Helm upgrade failed"), "{}", told.text);
    let revert = s.offered_revert(&change).await;
    let offered = s.until(&revert, &["awaiting_commit"]).await;
    assert!(text(&offered, "diff").contains(&format!("+    image: {OLD}")), "{offered:#}");
    s.person_commits(FILE, &release("80s"));
    let end = s.until(&revert, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "outcome"), "healthy", "{end:#}");
    super::eventually("the old release", || s.released(OLD)).await;
    s.end().await;
}

/// The first succeeds; the change is not healthy for that.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_releases_in_one_change_the_one_that_fails_is_named() {
    const OTHER: &str = "apps/payments/back.yaml";
    let mut options = options("80s");
    options.files.push((OTHER.into(), named("back", "80s")));
    let mut s = Stage::new(options).await;
    s.world.cluster.set_image_behaviour(MISSING, Behaviour::Missing);
    let both = |s: &Stage| s.released(OLD) && s.world.cluster.get("apps", "Deployment", "shop", "back").is_some();
    super::eventually("the first releases", || both(&s)).await;
    let asked = s.operate(vec![values_image(NEW), values_image_of("back", MISSING)]).await;
    assert_eq!(text(&asked, "outcome"), "manual", "{asked:#}");
    let change = text(&asked, "change").to_owned();
    let (web, back) = (release("80s").replace(OLD, NEW), named("back", "80s").replace(OLD, MISSING));
    let files = [(FILE, &web), (OTHER, &back)].map(|(file, text)| FileChange::write(file, text.as_bytes()));
    s.world.git.repos().commit(super::REPO, "main", &files, &super::person(), "two values").unwrap();
    let end = s.until(&change, &["healthy", "failed", "timed_out"]).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    let said = refusal(&end);
    assert!(said.contains("HelmRelease flux-system/back") && said.contains("Helm upgrade failed"), "{said}");
    assert!(s.released(NEW), "the other one is fine: {:#}", s.helm_release());
    s.end().await;
}
