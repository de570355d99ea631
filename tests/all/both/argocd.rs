//! Scenarios that only Argo CD has.

use countersign::sandbox::world::ANNA;
use serde_json::{Value, json};

use super::apps::{App, Engine, NEW, OLD, Shape, settings};
use super::place::{Place, Wish, notes, story, text};
use super::scenarios;
use super::through::{ENDS, approved};
use super::truth::Want;

scenarios!(manual_sync, sync_window, a_forbidden_kind, a_child_of_an_application_set, an_app_of_apps);

async fn manual_sync() {
    let mut p = Place::new("manual sync", Wish::default()).await;
    let app = p.app(Shape::plain(&p, Engine::Argocd)).await;
    p.patch_owner(&app, json!({"spec": {"syncPolicy": null}})).await;
    let asked = p.operate(vec![p.set_image("web", NEW)]).await;
    assert!(notes(&asked).contains("a person has to sync it"), "{asked:#}");
    p.press(ANNA, "Approve").await;
    let change = text(&asked, "change").to_owned();
    let waiting = p.until_told(&change, "manual_sync").await;
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    // As `argocd app sync` does.
    let operation = json!({"initiatedBy": {"username": "anna"}, "sync": {"revision": text(&waiting, "commit"), "syncStrategy": {"hook": {}}}});
    p.patch_owner(&app, json!({"operation": operation})).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn sync_window() {
    let mut p = Place::new("a sync window", Wish::default()).await;
    let app = p.app(Shape::plain(&p, Engine::Argocd)).await;
    let window = json!([{"kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["*"]}]);
    p.kube.patch("AppProject", &p.argocd, &p.name, json!({"spec": {"syncWindows": window}})).await;
    let change = approved(&mut p, NEW).await;
    p.until_told(&change, "sync_window").await;
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    p.kube.patch("AppProject", &p.argocd, &p.name, json!({"spec": {"syncWindows": null}})).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

/// The edit that makes a ConfigMap of the place under its owner.
pub fn create_settings(p: &Place, owner: &str) -> Value {
    json!({
        "target": p.target("ConfigMap", "extra"),
        "create": {"manifest": settings(&p.name, "extra"), "owner": owner, "path": "apps/web/extra.yaml"},
    })
}

async fn a_forbidden_kind() {
    let mut p = Place::new("a forbidden kind", Wish::default()).await;
    let shape = Shape::plain(&p, Engine::Argocd)
        .tweak(|a| a["spec"]["syncPolicy"]["retry"] = json!({"limit": 1, "backoff": {"duration": "2s"}}))
        .project(|j| j["spec"]["namespaceResourceBlacklist"] = json!([{"group": "", "kind": "ConfigMap"}]));
    let app = p.app(shape).await;
    let edit = create_settings(&p, &format!("Application {}/{}", p.argocd, p.name));
    let change = p.propose(edit).await;
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    assert!(story(&end).contains("failed (forbidden)"), "{}", story(&end));
    assert!(p.get("ConfigMap", "extra").await.is_none());
    p.compare(&app, &change, &[]).await;
    p.end().await;
}

fn child(p: &Place) -> App {
    App {
        engine: Engine::Argocd,
        owner: ("Application".into(), p.argocd.clone(), format!("{}-web", p.name)),
        file: "apps/web/deploy.yaml".into(),
    }
}

async fn a_child_of_an_application_set() {
    let mut p = Place::new("a child of an ApplicationSet", Wish::default()).await;
    let shape = Shape::plain(&p, Engine::Argocd);
    p.people.commit(&[(&shape.files[0].0, Some(&shape.files[0].1))]);
    p.make_project(&|_| {}).await;
    let mut template = p.application_of(&format!("{}-{{{{name}}}}", p.name), "apps/{{name}}");
    template["metadata"].as_object_mut().unwrap().remove("namespace");
    let set = json!({
        "kind": "ApplicationSet", "metadata": {"name": p.name, "namespace": p.argocd},
        "spec": {
            "generators": [{"list": {"elements": [{"name": "web"}]}}],
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    });
    p.make(&set).await;
    let app = child(&p);
    p.settled(&app).await;
    let seen = p.call("inspect", json!({"target": p.target("Deployment", "web")})).await;
    assert_eq!(text(&seen["owner"], "name"), app.owner.2, "{seen:#}");
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    // What is edited on the child itself is put back by its set: Git is the only way.
    p.patch_owner(&app, json!({"spec": {"source": {"path": "apps/elsewhere"}}})).await;
    p.eventually("the set's word", || async { p.owner(&app).await["spec"]["source"]["path"] == "apps/web" }).await;
    p.end().await;
}

async fn an_app_of_apps() {
    let mut p = Place::new("an app of apps", Wish::default()).await;
    let shape = Shape::plain(&p, Engine::Argocd);
    p.make_project(&|_| {}).await;
    let app = child(&p);
    let manifest = p.application_of(&app.owner.2, "apps/web").to_string();
    p.people.commit(&[(&shape.files[0].0, Some(&shape.files[0].1)), ("apps/root/web.yaml", Some(&manifest))]);
    let root = p.application_of(&p.name, "apps/root");
    p.make(&root).await;
    p.settled(&app).await;
    let seen = p.call("inspect", json!({"target": p.target("Deployment", "web")})).await;
    assert_eq!(text(&seen["owner"], "name"), app.owner.2, "the child, not the parent: {seen:#}");
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}
