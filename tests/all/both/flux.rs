//! Scenarios that only Flux has.

use countersign::sandbox::world::ANNA;
use serde_json::json;

use super::apps::{App, Engine, NEW, OLD, Shape};
use super::argocd::create_settings;
use super::place::{Place, Wish, notes, refusal, story, text};
use super::scenarios;
use super::through::ENDS;
use super::truth::Want;

scenarios!(suspended, a_forbidden_kind, a_helm_release);

async fn suspended() {
    let mut p = Place::new("suspended", Wish::default()).await;
    let app = p.app(Shape::plain(&p, Engine::Flux)).await;
    p.hold(&app).await;
    let asked = p.operate(vec![p.set_image("web", NEW)]).await;
    assert!(notes(&asked).contains("is suspended: until a person changes that"), "{asked:#}");
    p.press(ANNA, "Approve").await;
    let change = text(&asked, "change").to_owned();
    p.until_told(&change, "suspended").await;
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    p.release(&app, json!({})).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

async fn a_forbidden_kind() {
    let mut p = Place::new("a forbidden kind", Wish::default()).await;
    let of = |name: &str| json!({"name": name, "namespace": p.name});
    let account = json!({"kind": "ServiceAccount", "metadata": of("deployer")});
    let role = json!({"kind": "Role", "metadata": of("deployer"),
        "rules": [{"apiGroups": ["apps"], "resources": ["deployments", "replicasets"], "verbs": ["*"]}]});
    let binding = json!({"kind": "RoleBinding", "metadata": of("deployer"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "deployer"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": p.name}]});
    for object in [account, role, binding] {
        p.make(&object).await;
    }
    let shape = Shape::plain(&p, Engine::Flux).tweak(|k| k["spec"]["serviceAccountName"] = json!("deployer"));
    let app = p.app(shape).await;
    let edit = create_settings(&p, &format!("Kustomization {}/web", p.name));
    let change = p.propose(edit).await;
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "failed", "{end:#}");
    assert!(story(&end).contains("failed (forbidden)"), "{}", story(&end));
    assert!(p.get("ConfigMap", "extra").await.is_none());
    p.compare(&app, &change, &[]).await;
    p.end().await;
}

/// A chart like the one that the sandbox knows.
const CHART: &str = "apiVersion: v2\nname: shop\nversion: 0.1.0\n";
const TEMPLATE: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\nspec:\n  replicas: {{ .Values.replicas }}\n  progressDeadlineSeconds: 15\n  selector:\n    matchLabels:\n      app: {{ .Release.Name }}\n  template:\n    metadata:\n      labels:\n        app: {{ .Release.Name }}\n    spec:\n      containers:\n        - name: web\n          image: {{ .Values.image }}\n";

async fn a_helm_release() {
    let mut p = Place::new("a HelmRelease", Wish::default()).await;
    let release = format!(
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: web\n  namespace: {}\nspec:\n  interval: 10m\n  timeout: 25s\n  chart:\n    spec:\n      chart: ./charts/shop\n      sourceRef: {{kind: GitRepository, name: shop}}\n  values:\n    image: {OLD}\n    replicas: 2\n",
        p.name
    );
    let scheduler = p.backend.scheduler().map(|s| format!("      schedulerName: {s}\n")).unwrap_or_default();
    let template = TEMPLATE.replace("      containers:", &format!("{scheduler}      containers:"));
    let mut shape = Shape::plain(&p, Engine::Flux);
    shape.file = "apps/web/release.yaml".into();
    shape.files = vec![
        (shape.file.clone(), release.clone()),
        ("charts/shop/Chart.yaml".into(), CHART.into()),
        ("charts/shop/values.yaml".into(), format!("image: {OLD}\nreplicas: 1\n")),
        ("charts/shop/templates/deploy.yaml".into(), template),
    ];
    let app: App = p.app(shape).await;
    // The Deployment's owner is the release, which has no manifest of the Deployment.
    let edit = json!({"target": p.target("Deployment", "web"), "set_image": {"container": "web", "image": NEW}});
    let refused = p.operate(vec![edit]).await;
    assert_eq!(text(&refused["problem"], "code"), "source.helm", "{refused:#}");
    assert!(refusal(&refused).contains(&format!("{}/HelmRelease/web", p.name)), "{refused:#}");
    // Its values have: the release is delivered by the Kustomization, and people alone write it.
    let field = json!({"pointer": "/spec/values/image", "value": NEW});
    let asked = p.operate(vec![json!({"target": p.target("HelmRelease", "web"), "set_field": field})]).await;
    assert_eq!((text(&asked, "outcome"), text(&asked, "state")), ("manual", "awaiting_commit"), "{asked:#}");
    p.people.commit(&[(&app.file, Some(&release.replace(OLD, NEW)))]);
    let change = text(&asked, "change").to_owned();
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert_eq!(p.people.file(&app.file).unwrap(), release.replace(OLD, NEW));
    // What decides is the release, which has the commit once its values are the commit's.
    let owner = ("HelmRelease".to_owned(), p.name.clone(), "web".to_owned());
    let released = Want::object("HelmRelease", "web", |h| h["spec"]["values"]["image"] == NEW);
    p.compare(&App { owner, ..app }, &change, &[Want::image("web", NEW), released]).await;
    p.end().await;
}
