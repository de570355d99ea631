//! The shapes in which applications are delivered: each makes its files, its owners, and waits until it is there.

use serde_json::{Value, json};

use super::place::Place;
use super::truth::rolled_out;

/// The engine of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Argocd,
    Flux,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Argocd => "Argo CD",
            Self::Flux => "Flux",
        }
    }
}

/// The image that everything starts with.
pub const OLD: &str = "reg.example/web:1.0";
/// One that gets ready.
pub const NEW: &str = "reg.example/web:1.1";
/// Another one that does.
pub const NEWER: &str = "reg.example/web:1.2";
/// One that cannot be pulled.
pub const MISSING: &str = "reg.example/web:missing";
/// One that exits with code 1.
pub const CRASH: &str = "reg.example/web:crash";

/// An application of a place, with the Deployment `web`.
#[derive(Debug, Clone)]
pub struct App {
    pub engine: Engine,
    /// Kind, namespace and name of the owner whose status is looked at.
    pub owner: (String, String, String),
    /// The file with the image.
    pub file: String,
}

/// What a shape starts from.
pub struct Shape {
    pub engine: Engine,
    pub files: Vec<(String, String)>,
    /// Folder that the owner reads.
    pub path: String,
    /// The file with the image.
    pub file: String,
    /// Last touches on the Application or Kustomization.
    pub tweak: Box<dyn Fn(&mut Value) + Send>,
    /// Last touches on the AppProject.
    pub project: Box<dyn Fn(&mut Value) + Send>,
}

impl Shape {
    /// A folder of plain manifests.
    pub fn plain(place: &Place, engine: Engine) -> Self {
        let file = "apps/web/deploy.yaml".to_owned();
        Self {
            engine,
            files: vec![(file.clone(), place.deployment("web", OLD, Some(2)))],
            path: "apps/web".into(),
            file,
            tweak: Box::new(|_| {}),
            project: Box::new(|_| {}),
        }
    }

    /// A base and an overlay that sets the image.
    pub fn kustomized(place: &Place, engine: Engine) -> Self {
        let overlay = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../base\nimages:\n  - name: reg.example/web\n    newTag: \"1.0\" # set by release\n";
        let base = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - deploy.yaml\n";
        let file = "overlays/prod/kustomization.yaml".to_owned();
        let files = vec![
            ("base/kustomization.yaml".into(), base.into()),
            ("base/deploy.yaml".into(), place.deployment("web", "reg.example/web:0.0", Some(2))),
            (file.clone(), overlay.into()),
        ];
        Self { files, path: "overlays/prod".into(), file, ..Self::plain(place, engine) }
    }

    pub fn with(mut self, path: &str, content: &str) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }

    pub fn tweak(mut self, tweak: impl Fn(&mut Value) + Send + 'static) -> Self {
        self.tweak = Box::new(tweak);
        self
    }

    pub fn project(mut self, tweak: impl Fn(&mut Value) + Send + 'static) -> Self {
        self.project = Box::new(tweak);
        self
    }
}

/// A Deployment.
fn deployment(namespace: &str, scheduler: Option<&str>, name: &str, image: &str, replicas: Option<u32>) -> String {
    let scheduler = scheduler.map(|s| format!("      schedulerName: {s}\n")).unwrap_or_default();
    let replicas = replicas.map(|n| format!("  replicas: {n} # see the capacity plan\n")).unwrap_or_default();
    format!(
        "# {name}: a service of the shop\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels:\n    app: {name}\nspec:\n{replicas}  progressDeadlineSeconds: 15\n  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    spec:\n{scheduler}      containers:\n        - name: app\n          image: {image}\n          env:\n            - name: LOG_LEVEL\n              value: info\n"
    )
}

/// A ConfigMap of a place.
pub fn settings(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\ndata:\n  colour: blue\n"
    )
}

impl Place {
    /// A Deployment of the place.
    pub fn deployment(&self, name: &str, image: &str, replicas: Option<u32>) -> String {
        deployment(&self.name, self.backend.scheduler().as_deref(), name, image, replicas)
    }

    /// Commits the shape's files, makes its owner, and waits until the first commit is live.
    pub async fn app(&mut self, shape: Shape) -> App {
        let files: Vec<(&str, Option<&str>)> =
            shape.files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
        self.people.commit(&files);
        let app = match shape.engine {
            Engine::Argocd => self.application(&shape).await,
            Engine::Flux => self.kustomization(&shape).await,
        };
        self.settled(&app).await;
        app
    }

    async fn application(&mut self, shape: &Shape) -> App {
        self.make_project(&*shape.project).await;
        let mut object = self.application_of(&self.name, &shape.path);
        (shape.tweak)(&mut object);
        self.make(&object).await;
        App {
            engine: Engine::Argocd,
            owner: ("Application".into(), self.argocd.clone(), self.name.clone()),
            file: shape.file.clone(),
        }
    }

    /// An AppProject of the place's own, that lets everything through unless it is touched.
    pub async fn make_project(&mut self, tweak: &(dyn Fn(&mut Value) + Send)) {
        let mut project = json!({
            "kind": "AppProject", "metadata": {"name": self.name, "namespace": self.argocd},
            "spec": {
                "sourceRepos": ["*"],
                "destinations": [{"server": "*", "namespace": "*"}],
                "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
            },
        });
        tweak(&mut project);
        self.make(&project).await;
    }

    /// An Application in the place's project that syncs by itself.
    pub fn application_of(&self, name: &str, path: &str) -> Value {
        let mut object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": self.argocd},
            "spec": {
                "project": self.name,
                "source": {"repoURL": self.url, "targetRevision": "main", "path": path},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": self.name},
                "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
            },
        });
        // Also where it is a template, or a manifest in Git.
        self.backend.mark(&mut object);
        object
    }

    /// The GitRepository `shop` of the place.
    pub async fn make_source(&mut self) {
        let source = json!({
            "kind": "GitRepository", "metadata": {"name": "shop", "namespace": self.name},
            "spec": {"url": self.url, "interval": "1m", "ref": {"branch": "main"}},
        });
        self.make(&source).await;
    }

    async fn kustomization(&mut self, shape: &Shape) -> App {
        self.make_source().await;
        let mut object = json!({
            "kind": "Kustomization", "metadata": {"name": "web", "namespace": self.name},
            "spec": {
                "path": format!("./{}", shape.path), "interval": "10m", "timeout": "25s", "retryInterval": "10s",
                "prune": true, "wait": true, "sourceRef": {"kind": "GitRepository", "name": "shop"},
            },
        });
        (shape.tweak)(&mut object);
        self.make(&object).await;
        App {
            engine: Engine::Flux,
            owner: ("Kustomization".into(), self.name.clone(), "web".into()),
            file: shape.file.clone(),
        }
    }

    /// The owner's own object.
    pub async fn owner(&self, app: &App) -> Value {
        let (kind, namespace, name) = &app.owner;
        self.kube.get(kind, namespace, name).await.unwrap_or_default()
    }

    /// Edits the owner in place.
    pub async fn patch_owner(&self, app: &App, patch: Value) {
        let (kind, namespace, name) = &app.owner;
        self.kube.patch(kind, namespace, name, patch).await;
    }

    /// Waits until the Deployment `web` is rolled out and the owner says that it is done; from then on people's tools
    /// look at it too.
    pub async fn settled(&self, app: &App) {
        self.eventually("the first commit", || async {
            let web = self.get("Deployment", "web").await;
            let owner = self.owner(app).await;
            let done = match app.engine {
                Engine::Argocd => owner["status"]["sync"]["status"] == "Synced",
                Engine::Flux => owner["status"]["lastAppliedRevision"].is_string(),
            };
            done && web.is_some_and(|w| rolled_out(&w))
        })
        .await;
        self.with_others(app);
    }

    /// Keeps the owner from doing anything until [`Place::release`]: `suspend`, `skip-reconcile`.
    pub async fn hold(&self, app: &App) {
        let patch = match app.engine {
            Engine::Argocd => json!({"metadata": {"annotations": {"argocd.argoproj.io/skip-reconcile": "true"}}}),
            Engine::Flux => json!({"spec": {"suspend": true}}),
        };
        self.patch_owner(app, patch).await;
    }

    /// Ends [`Place::hold`], with another edit of the owner in the same moment.
    pub async fn release(&self, app: &App, with: Value) {
        let mut patch = with;
        match app.engine {
            Engine::Argocd => patch["metadata"]["annotations"]["argocd.argoproj.io/skip-reconcile"] = Value::Null,
            Engine::Flux => patch["spec"]["suspend"] = json!(false),
        }
        self.patch_owner(app, patch).await;
    }

    /// Image of a live Deployment.
    pub async fn live_image(&self, name: &str) -> Option<String> {
        let d = self.get("Deployment", name).await?;
        Some(d.pointer("/spec/template/spec/containers/0/image")?.as_str()?.to_owned())
    }
}

impl Place {
    /// Waits until Flux's source has this commit in its store; Argo CD has no such thing.
    pub async fn has_fetched(&self, app: &App, commit: &str) {
        if app.engine == Engine::Argocd {
            return;
        }
        self.eventually("the commit in the source's store", || async {
            let source = self.get("GitRepository", "shop").await.unwrap_or_default();
            source["status"]["artifact"]["revision"].as_str().is_some_and(|r| r.ends_with(commit))
        })
        .await;
    }

    /// Asks the engine to look at Git now, as people do after a push.
    pub async fn refresh(&self, app: &App) {
        match app.engine {
            Engine::Argocd => {
                let patch = json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}});
                self.patch_owner(app, patch).await;
            }
            Engine::Flux => {
                let now = chrono::Utc::now().to_rfc3339();
                let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": now}}});
                self.kube.patch("GitRepository", &self.name, "shop", patch).await;
            }
        }
    }
}
