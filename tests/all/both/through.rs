//! Scenarios that are the same for Argo CD and for Flux.

use countersign::sandbox::world::ANNA;
use serde_json::{Value, json};

use super::apps::{App, CRASH, Engine, MISSING, NEW, NEWER, OLD, Shape, settings};
use super::place::{Place, Wish, refusal, story, text};
use super::truth::{Want, rolled_out};
use super::{Part, scenarios_of_both, table};

scenarios_of_both!(
    a_new_image_becomes_healthy,
    an_overlay_gets_a_new_tag,
    a_missing_image_is_degraded_and_the_revert_is_healthy,
    a_crashing_image_is_degraded,
    a_field_that_the_api_server_refuses,
    a_broken_file_beside_it,
    a_folder_that_is_gone,
    a_deletion_is_pruned,
    an_autoscaler_decides_on_replicas,
    a_later_commit_supersedes,
    an_older_failing_revision_holds_it_back,
    a_pull_request_merged,
    a_pull_request_squashed,
    a_pull_request_rebased,
    a_pull_request_closed,
    two_owners,
    a_stray_deployment_is_adopted,
    a_lost_push_race,
    a_protected_branch,
    an_engine_that_is_restarted,
    an_api_server_that_is_restarted,
);

/// Every state in which a landed change may end.
pub const ENDS: [&str; 4] = ["healthy", "failed", "timed_out", "superseded"];

/// Proposes an image and lets Anna approve it.
pub async fn approved(p: &mut Place, image: &str) -> String {
    let change = p.propose(p.set_image("web", image)).await;
    p.press(ANNA, "Approve").await;
    change
}

async fn a_new_image_becomes_healthy(engine: Engine) {
    let mut p = Place::new("a new image becomes healthy", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let before = p.people.file(&app.file).unwrap();
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(p.people.file(&app.file).unwrap(), before.replace(OLD, NEW), "exactly the one value");
    assert_eq!(text(&end, "commit"), p.people.tip());
    assert_eq!(p.live_image("web").await.as_deref(), Some(NEW));
    p.sees(ANNA, "HEALTHY").await;
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn an_overlay_gets_a_new_tag(engine: Engine) {
    let mut p = Place::new("an overlay gets a new tag", Wish::default()).await;
    let app = p.app(Shape::kustomized(&p, engine)).await;
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    let before = p.people.file(&app.file).unwrap();
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(p.people.file(&app.file).unwrap(), before.replace("\"1.0\"", "\"1.1\""), "in the overlay, not the base");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

/// The revert of a failed change, as a person asks for it; the answer about the change leads to it.
async fn offered_revert(p: &mut Place, change: &str) -> String {
    p.press(ANNA, "Prepare revert").await;
    let end = tokio::time::Instant::now() + p.patience();
    loop {
        let now = p.call("change", json!({"change": change})).await;
        if text(&now["next"], "tool") == "change" {
            return text(&now["next"]["args"], "change").to_owned();
        }
        assert!(tokio::time::Instant::now() < end, "no revert is offered: {now:#}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn a_missing_image_is_degraded_and_the_revert_is_healthy(engine: Engine) {
    let mut p = Place::new("a missing image is degraded", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let before = p.people.file(&app.file).unwrap();
    let change = approved(&mut p, MISSING).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    assert!(story(&end).contains("failed (degraded)"), "{}", story(&end));
    p.compare(&app, &change, &[Want::image("web", MISSING)]).await;
    let revert = offered_revert(&mut p, &change).await;
    p.press(ANNA, "Approve").await;
    let end = p.until(&revert, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(p.people.file(&app.file).unwrap(), before, "byte for byte");
    p.scenario = "its revert is healthy".into();
    p.compare(&app, &revert, &[Want::image("web", OLD)]).await;
    p.end().await;
}

async fn a_crashing_image_is_degraded(engine: Engine) {
    let mut p = Place::new("a crashing image is degraded", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = approved(&mut p, CRASH).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    assert!(story(&end).contains("failed (degraded)"), "{}", story(&end));
    p.compare(&app, &change, &[Want::image("web", CRASH)]).await;
    p.end().await;
}

/// One try again instead of Argo CD's five, which take minutes.
fn one_retry(shape: Shape) -> Shape {
    let engine = shape.engine;
    shape.tweak(move |o| {
        if engine == Engine::Argocd {
            o["spec"]["syncPolicy"]["retry"] = json!({"limit": 1, "backoff": {"duration": "2s"}});
        }
    })
}

async fn a_field_that_the_api_server_refuses(engine: Engine) {
    let mut p = Place::new("a field that the API server refuses", Wish::default()).await;
    let app = p.app(one_retry(Shape::plain(&p, engine))).await;
    let field = json!({"pointer": "/spec/selector/matchLabels/app", "value": "other"});
    let change = p.propose(json!({"target": p.target("Deployment", "web"), "set_field": field})).await;
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    assert!(refusal(&end).contains("selector"), "the API server's own words: {}", refusal(&end));
    p.compare(&app, &change, &[]).await;
    let live = p.get("Deployment", "web").await.unwrap();
    assert_eq!(live["spec"]["selector"]["matchLabels"]["app"], "web", "the cluster is as it was");
    p.end().await;
}

async fn a_broken_file_beside_it(engine: Engine) {
    let mut p = Place::new("a broken file beside it", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = p.propose(p.set_image("web", NEW)).await;
    p.people.commit(&[("apps/web/broken.yaml", Some("apiVersion: v1\nkind: [ConfigMap\nmetadata:\n  name: broken\n"))]);
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    let code = if engine == Engine::Argocd { "comparison_error" } else { "build_failed" };
    assert!(story(&end).contains(&format!("failed ({code})")), "{}", story(&end));
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn a_folder_that_is_gone(engine: Engine) {
    let mut p = Place::new("a folder that is gone", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    p.hold(&app).await;
    let change = approved(&mut p, NEW).await;
    p.until_told(&change, "suspended").await;
    let gone = match engine {
        Engine::Argocd => json!({"spec": {"source": {"path": "apps/gone"}}}),
        Engine::Flux => json!({"spec": {"path": "./apps/gone"}}),
    };
    p.release(&app, gone).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    let code = if engine == Engine::Argocd { "comparison_error" } else { "path_missing" };
    assert!(story(&end).contains(&format!("failed ({code})")), "{}", story(&end));
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn a_deletion_is_pruned(engine: Engine) {
    let mut p = Place::new("a deletion is pruned", Wish::default()).await;
    let both = format!("{}---\n# stays\n{}", settings(&p.name, "goes"), settings(&p.name, "stays"));
    let app = p.app(Shape::plain(&p, engine).with("apps/web/settings.yaml", &both)).await;
    assert!(p.get("ConfigMap", "goes").await.is_some());
    let change = p.propose(json!({"target": p.target("ConfigMap", "goes"), "delete": {}})).await;
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert!(p.get("ConfigMap", "goes").await.is_none(), "pruned");
    assert!(p.get("ConfigMap", "stays").await.is_some());
    p.compare(&app, &change, &[Want::gone("ConfigMap", "goes")]).await;
    p.end().await;
}

async fn scaled_to(p: &Place, replicas: i64) -> bool {
    p.get("Deployment", "web").await.is_some_and(|d| d["spec"]["replicas"] == replicas && rolled_out(&d))
}

async fn an_autoscaler_decides_on_replicas(engine: Engine) {
    let mut p = Place::new("an autoscaler decides on replicas", Wish::default()).await;
    let mut shape = Shape::plain(&p, engine);
    shape.files = vec![(shape.file.clone(), p.deployment("web", OLD, None))];
    let hpa = format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: web\n  namespace: {}\nspec:\n  minReplicas: 2\n  maxReplicas: 5\n  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}\n",
        p.name
    );
    let app = p.app(shape.with("apps/web/hpa.yaml", &hpa)).await;
    p.eventually("two replicas by the autoscaler", || scaled_to(&p, 2)).await;
    let edit = json!({"target": p.target("Deployment", "web"), "scale": {"replicas": 3}});
    let asked = p.operate(vec![edit]).await;
    assert_eq!(text(&asked, "outcome"), "needs_choice", "{asked:#}");
    let choice = asked["choices"][0].clone();
    let next = p.call(text(&choice, "tool"), choice["args"].clone()).await;
    p.press(ANNA, "Approve").await;
    let change = text(&next, "change").to_owned();
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    let want = Want::object("HorizontalPodAutoscaler", "web", |h| h["spec"]["minReplicas"] == 3);
    p.compare(&app, &change, &[want]).await;
    p.eventually("three replicas by the autoscaler", || scaled_to(&p, 3)).await;
    // And an image goes through although the autoscaler writes to the same object.
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(p.get("Deployment", "web").await.unwrap()["spec"]["replicas"], 3, "the autoscaler's");
    p.scenario = "an autoscaled image becomes healthy".into();
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn a_later_commit_supersedes(engine: Engine) {
    let mut p = Place::new("a later commit supersedes", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    p.hold(&app).await;
    let change = approved(&mut p, NEW).await;
    p.until(&change, &["observing"]).await;
    let theirs = p.people.file(&app.file).unwrap().replace(NEW, NEWER);
    let theirs = p.people.commit(&[(&app.file, Some(&theirs))]);
    p.refresh(&app).await;
    // Flux's source is not held: with ours still in its store the released Kustomization would apply that first.
    p.has_fetched(&app, &theirs).await;
    p.release(&app, json!({})).await;
    p.refresh(&app).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "superseded", "{end:#}");
    p.eventually("their image", || async { p.live_image("web").await.as_deref() == Some(NEWER) }).await;
    assert_eq!(p.people.ours().len(), 1, "no revert of somebody else's work");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn an_older_failing_revision_holds_it_back(engine: Engine) {
    let mut p = Place::new("an older failing revision holds it back", Wish::default()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = p.propose(p.set_image("web", NEW)).await;
    let bad = match engine {
        // Refused by the API server, and tried again for minutes.
        Engine::Argocd => p
            .deployment("extra", OLD, Some(1))
            .replace("matchLabels:\n      app: extra", "matchLabels:\n      app: other"),
        // Accepted, and waited for until the Kustomization's timeout.
        Engine::Flux => p
            .deployment("extra", MISSING, Some(1))
            .replace("progressDeadlineSeconds: 15", "progressDeadlineSeconds: 120"),
    };
    let failing = p.people.commit(&[("apps/web/extra.yaml", Some(&bad))]);
    p.refresh(&app).await;
    p.eventually("the failing revision's turn", || async {
        let owner = p.owner(&app).await;
        let status = &owner["status"];
        match engine {
            Engine::Argocd => {
                status["operationState"]["phase"] == "Running"
                    && status["operationState"]["retryCount"].as_i64() > Some(0)
            }
            Engine::Flux => text(status, "lastAttemptedRevision").ends_with(&failing),
        }
    })
    .await;
    p.people.commit(&[("apps/web/extra.yaml", None)]);
    p.press(ANNA, "Approve").await;
    p.until_told(&change, "held_back").await;
    if engine == Engine::Argocd {
        // A person terminates it, as `argocd app terminate-op` does; and once more where the controller, which writes
        // the same field after each try, has just written over that.
        p.eventually("the end of the failing operation", || async {
            let state = p.owner(&app).await["status"]["operationState"].take();
            let goes_on = text(&state["operation"]["sync"], "revision") == failing
                && ["Running", "Terminating"].contains(&text(&state, "phase"));
            if goes_on && text(&state, "phase") == "Running" {
                p.patch_owner(&app, json!({"status": {"operationState": {"phase": "Terminating"}}})).await;
            }
            !goes_on
        })
        .await;
    }
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn merged(engine: Engine, style: &str) {
    let mut p = Place::new(&format!("a pull request by {style}"), Wish::policy("prompted", "pull_request")).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = p.propose(p.set_image("web", NEW)).await;
    p.until(&change, &["awaiting_merge"]).await;
    let pulls = p.pulls().await;
    assert_eq!(pulls.len(), 1, "{pulls:#?}");
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    // Somebody else's commit, so that the merge is none that Git would call a fast forward.
    p.people.commit(&[("docs/notes.md", Some("a note\n"))]);
    let anna = p.repository.anna.clone();
    let merge = p.merge(pulls[0]["number"].as_u64().unwrap(), &anna, style).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!((text(&end, "commit"), merge.as_str()), (p.people.tip().as_str(), p.people.tip().as_str()));
    assert!(story(&end).contains("approved by anna (forge)"), "{}", story(&end));
    let parents = p.people.log("%P").lines().next().unwrap().split(' ').count();
    assert_eq!(parents, if style == "merge" { 2 } else { 1 });
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn a_pull_request_merged(engine: Engine) {
    merged(engine, "merge").await;
}

async fn a_pull_request_squashed(engine: Engine) {
    merged(engine, "squash").await;
}

async fn a_pull_request_rebased(engine: Engine) {
    merged(engine, "rebase").await;
}

async fn a_pull_request_closed(engine: Engine) {
    let mut p = Place::new("a pull request closed", Wish::policy("prompted", "pull_request")).await;
    p.app(Shape::plain(&p, engine)).await;
    let tip = p.people.tip();
    let change = p.propose(p.set_image("web", NEW)).await;
    p.until(&change, &["awaiting_merge"]).await;
    let pulls = p.pulls().await;
    let anna = p.repository.anna.clone();
    p.close(pulls[0]["number"].as_u64().unwrap(), &anna).await;
    let end = p.until(&change, &["rejected"]).await;
    assert_eq!(text(&end["problem"], "code"), "change.rejected", "{end:#}");
    assert_eq!(p.people.tip(), tip, "nothing reached main");
    p.tell(engine, "rejected");
    p.end().await;
}

/// What somebody applied with kubectl comes into Git as it is, and is its owner's from then on.
async fn a_stray_deployment_is_adopted(engine: Engine) {
    let take = "- id: take-over\n  match: {operation: adopt}\n  level: prompted\n  approve: {from: [sre], count: 1, expires: 30m}\n";
    let wish = Wish::default();
    let mut p =
        Place::new("a stray Deployment is adopted", Wish { policy: format!("{}{take}", wish.policy), ..wish }).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let stray: Value = serde_saphyr::from_str(&p.deployment("stray", OLD, Some(1))).unwrap();
    p.make(&stray).await;
    p.eventually("a ready stray", || async {
        p.get("Deployment", "stray").await.is_some_and(|d| d["status"]["readyReplicas"] == 1)
    })
    .await;
    let before = p.get("Deployment", "stray").await.unwrap();
    let tip = p.people.tip();
    let change = p.propose(json!({"target": p.target("Deployment", "stray"), "adopt": {}})).await;
    p.until(&change, &["awaiting_merge"]).await;
    assert_eq!(p.people.tip(), tip, "the rule does not say that it may be pushed");
    let pulls = p.pulls().await;
    let anna = p.repository.anna.clone();
    p.merge(pulls[0]["number"].as_u64().unwrap(), &anna, "merge").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    let now = p.get("Deployment", "stray").await.unwrap();
    assert_eq!(now["spec"], before["spec"], "nothing in it changed");
    assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"], "it is the same object");
    let seen = p.call("inspect", json!({"target": p.target("Deployment", "stray")})).await;
    assert_eq!((text(&seen, "ownership"), text(&seen["owner"], "name")), ("owned", app.owner.2.as_str()), "{seen:#}");
    // It ran all the time: what the commit brings about is the owner's own mark on it.
    let owner = app.owner.2.clone();
    let taken = move |d: &Value| {
        let of = |path: &str| d.pointer(path).and_then(Value::as_str).unwrap_or_default();
        of("/metadata/annotations/argocd.argoproj.io~1tracking-id").split(':').next() == Some(&owner)
            || of("/metadata/labels/kustomize.toolkit.fluxcd.io~1name") == owner
    };
    p.compare(&app, &change, &[Want::deployment("stray", taken)]).await;
    p.end().await;
}

async fn two_owners(engine: Engine) {
    let mut p = Place::new("two owners", Wish::default()).await;
    let app: App = p.app(Shape::plain(&p, engine)).await;
    let tip = p.people.tip();
    match engine {
        Engine::Argocd => {
            let name = format!("{}-too", p.name);
            let second = p.application_of(&name, "apps/web");
            p.make(&second).await;
            p.eventually("the word of the one that synced first", || async {
                let first = p.owner(&app).await;
                let conditions = first["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let second = p.kube.get("Application", &p.argocd, &name).await.unwrap_or_default();
                conditions.iter().any(|c| c["type"] == "SharedResourceWarning")
                    || second["status"]["conditions"].to_string().contains("SharedResourceWarning")
            })
            .await;
        }
        Engine::Flux => {
            let mut second = p.owner(&app).await;
            second["metadata"] = json!({"name": "web-too", "namespace": p.name});
            second["status"] = json!({});
            p.make(&second).await;
            p.eventually("the second one's claim", || async {
                let second = p.get("Kustomization", "web-too").await.unwrap_or_default();
                second["status"]["inventory"]["entries"].as_array().is_some_and(|e| !e.is_empty())
            })
            .await;
        }
    }
    let end = tokio::time::Instant::now() + p.patience();
    let refused = loop {
        let edit = p.set_image("web", NEW);
        let answer = p.call("operate", json!({"edits": [edit], "reason": "to see", "plan_only": true})).await;
        if text(&answer, "outcome") == "refused" {
            break answer;
        }
        // The daemon hears of it by its watch.
        assert!(tokio::time::Instant::now() < end, "{answer:#}");
    };
    assert_eq!(text(&refused["problem"], "code"), "owner.conflict", "{refused:#}");
    assert!(
        refusal(&refused).contains("web-too") || refusal(&refused).contains(&format!("{}-too", p.name)),
        "{refused:#}"
    );
    let edit = p.set_image("web", NEW);
    let real = p.operate(vec![edit]).await;
    assert_eq!(text(&real["problem"], "code"), "owner.conflict", "{real:#}");
    assert_eq!(p.people.tip(), tip);
    p.tell(engine, "refused");
    p.end().await;
}

async fn a_lost_push_race(engine: Engine) {
    let mut p = Place::new("a lost push race", Wish { gate: true, ..Wish::default() }).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = p.propose(p.set_image("web", NEW)).await;
    p.overtaken(&[("docs/notes.md", "a note\n")]);
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert!(p.gate.as_ref().unwrap().done(), "somebody was faster");
    assert!(story(&end).contains("proved anew on"), "{}", story(&end));
    assert_eq!(p.people.file("docs/notes.md").as_deref(), Some("a note\n"), "nobody's work is lost");
    assert_eq!(p.people.ours().len(), 1);
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn a_protected_branch(engine: Engine) {
    let mut p = Place::new("a protected branch", Wish { deliver_s: Some(4), ..Wish::default() }).await;
    p.app(Shape::plain(&p, engine)).await;
    let tip = p.people.tip();
    p.backend.protect(&p.repository, "main").await;
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &["undelivered"]).await;
    assert_eq!(text(&end["problem"], "code"), "change.undelivered", "{end:#}");
    assert!(refusal(&end).contains("refuses the push"), "{}", refusal(&end));
    assert_eq!(p.people.tip(), tip);
    p.sees(ANNA, "NOT DELIVERED").await;
    p.tell(engine, "undelivered");
    p.end().await;
}

/// Whether the cluster is somebody else's, where such a scenario is not played.
fn stays_up(scenario: &str, engine: Engine) -> bool {
    table::not_for_guests(scenario, engine.name(), "it would stop a part of somebody else's cluster")
}

async fn an_engine_that_is_restarted(engine: Engine) {
    const NAME: &str = "an engine that is restarted";
    if stays_up(NAME, engine) {
        return;
    }
    let mut p = Place::new(NAME, Wish::alone()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let part = if engine == Engine::Argocd { Part::Argocd } else { Part::Flux };
    let change = p.propose(p.set_image("web", NEW)).await;
    p.backend.stop(part).await;
    p.press(ANNA, "Approve").await;
    p.until(&change, &["observing"]).await;
    p.backend.start(part).await;
    // And once more, in the middle of whatever it does.
    p.backend.stop(part).await;
    p.backend.start(part).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn an_api_server_that_is_restarted(engine: Engine) {
    const NAME: &str = "an API server that is restarted";
    if stays_up(NAME, engine) {
        return;
    }
    let mut p = Place::new(NAME, Wish::alone()).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = p.propose(p.set_image("web", NEW)).await;
    p.press(ANNA, "Approve").await;
    p.until(&change, &["observing"]).await;
    p.backend.stop(Part::ApiServer).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    p.backend.start(Part::ApiServer).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}
