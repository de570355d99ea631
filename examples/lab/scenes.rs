//! Scenes for recordings: a commit or two on an application of their own, and what the API server shows meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use crate::lab::{ARGOCD, FLUX, Lab, Recording, Wish};

const OWNER: &str = "acme";
/// The image that every scene starts from.
const OLD: &str = "reg.example/web:1.0";

/// A push, and how long the engine is watched after it.
struct Step {
    did: &'static str,
    file: Option<String>,
    /// A second file beside it.
    beside: Option<&'static str>,
    /// Image that the push is to bring about; none: it cannot work.
    want: Option<&'static str>,
    /// What is killed right after the push, and started again 2 s later.
    killed: Killed,
    watch_s: u64,
}

/// Parts that a scene kills.
#[derive(Clone, Copy)]
enum Killed {
    Nothing,
    ApiServer,
    Engine,
}

const SCENES: [(&str, &str); 12] = [
    ("image-ok", "a new image"),
    ("image-missing-then-revert", "an image that cannot be pulled, and the old one again"),
    ("image-crash", "an image that exits with code 1 over and over"),
    ("image-slow", "an image that takes 8 s to get ready"),
    ("image-flaps", "an image that is ready for 3 s and exits then"),
    ("yaml-broken-then-fixed", "a file that cannot be parsed, and its repair"),
    ("yaml-passed-over", "a new image, and beside it a file that cannot be parsed and does not look like an object"),
    ("yaml-wipe-guard", "the only file becomes one that Argo CD passes over: nothing is left; and its repair"),
    ("invalid-field-then-fixed", "a field that the API server refuses, and its repair"),
    ("superseded", "two pushes, one right after the other"),
    ("api-server-restarted", "a new image, and the API server is killed in the middle, for 2 s"),
    ("engine-restarted", "a new image, and all of the engine is killed in the middle, for 2 s"),
];

/// Names of scenes.
pub fn names() -> Vec<String> {
    ["argo", "flux"].iter().flat_map(|e| SCENES.iter().map(move |(s, _)| format!("{e}-{s}"))).collect()
}

fn off(what: impl Into<String>) -> Problem {
    Problem::new("lab.scene", what, "`just record` without a name lists the scenes.")
}

fn manifest(namespace: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: {namespace}\nspec:\n  replicas: 2\n  progressDeadlineSeconds: 15\n  selector:\n    matchLabels:\n      app: web\n  template:\n    metadata:\n      labels:\n        app: web\n    spec:\n      containers:\n        - name: web\n          image: {image}\n"
    )
}

fn steps(scene: &str, namespace: &str) -> Option<Vec<Step>> {
    let image = |did, image: &'static str, watch_s| Step {
        did,
        file: Some(manifest(namespace, image)),
        beside: None,
        want: Some(image),
        killed: Killed::Nothing,
        watch_s,
    };
    let bad = |did, file: String, watch_s| Step { file: Some(file), want: None, ..image(did, OLD, watch_s) };
    let good = |watch_s| image("image reg.example/web:1.1", "reg.example/web:1.1", watch_s);
    Some(match scene {
        "image-ok" => vec![good(20)],
        "image-missing-then-revert" => {
            vec![image("image reg.example/web:missing", "reg.example/web:missing", 45), image("revert", OLD, 45)]
        }
        "image-crash" => vec![image("image reg.example/web:crash", "reg.example/web:crash", 45)],
        "image-slow" => vec![image("image reg.example/web:slow", "reg.example/web:slow", 40)],
        "image-flaps" => vec![image("image reg.example/web:flap", "reg.example/web:flap", 60)],
        // Looks like a manifest, else Argo CD passes over it.
        "yaml-broken-then-fixed" => {
            vec![bad("a broken file", manifest(namespace, OLD) + "broken: [\n", 15), good(45)]
        }
        "yaml-passed-over" => vec![Step { beside: Some("kind: [\n"), ..good(20) }],
        "yaml-wipe-guard" => vec![bad("no manifest any more", "kind: [\n".into(), 15), good(45)],
        "invalid-field-then-fixed" => {
            let file = manifest(namespace, OLD).replace("replicas: 2", "replicas: two");
            vec![bad("replicas: two", file, 20), good(90)]
        }
        "api-server-restarted" => vec![Step { killed: Killed::ApiServer, ..good(60) }],
        "engine-restarted" => vec![Step { killed: Killed::Engine, ..good(60) }],
        "superseded" => vec![good(0), image("image reg.example/web:1.2", "reg.example/web:1.2", 40)],
        _ => return None,
    })
}

/// Plays a scene of this lab and records it.
pub async fn record(lab: &Lab, name: &str, out: &Path) -> Result<()> {
    let (engine, scene) = name.split_once('-').ok_or_else(|| off(format!("{name} is no scene.")))?;
    let place = format!("rec-{:08x}", rand::random::<u32>());
    let steps = steps(scene, &place).ok_or_else(|| off(format!("{name} is no scene.")))?;
    let about = SCENES.iter().find(|s| s.0 == scene).map(|s| s.1).unwrap_or_default();
    let gitea = lab.gitea();
    gitea.create_repo(OWNER, &place, false).await?;
    let path = "web/deploy.yaml".to_owned();
    let first = [(path.clone(), Some(manifest(&place, OLD)))];
    let mut tip = gitea.commit(OWNER, &place, "main", "first", &first).await?;
    let owner = deliver(lab, engine, &place).await?;
    settled(lab, engine, &place).await?;
    let wish = Wish {
        about: format!("{about}; automated, asked to look right after each push"),
        engine: engine.into(),
        namespaces: vec![place.clone()],
        names: vec![place.clone()],
    };
    let tape = lab.record(out, wish).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for step in steps {
        let mut files = vec![(path.clone(), step.file)];
        files.extend(step.beside.map(|b| ("web/beside.yaml".to_owned(), Some(b.to_owned()))));
        let commit = gitea.commit(OWNER, &place, "main", step.did, &files).await?;
        let want: Vec<Value> = step
            .want
            .iter()
            .map(|image| json!({"kind": "Deployment", "namespace": place, "name": "web", "path": "/spec/template/spec/containers/0/image", "value": image}))
            .collect();
        tape.act(json!({"did": step.did, "commit": commit, "parent": tip, "owner": owner, "want": want}));
        tip = commit;
        refresh(lab, engine, &place).await?;
        restart(lab, engine, step.killed, &tape).await?;
        tokio::time::sleep(Duration::from_secs(step.watch_s)).await;
    }
    drop(tape);
    for (api, kind, namespace) in [
        ("argoproj.io/v1alpha1", "Application", "argocd"),
        ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "flux-system"),
        ("source.toolkit.fluxcd.io/v1", "GitRepository", "flux-system"),
        ("v1", "Namespace", ""),
    ] {
        lab.delete(api, kind, namespace, &place).await?;
    }
    println!("{}; see `countersign replay {0}`", out.display());
    Ok(())
}

/// Kills what the step kills, and starts it again.
async fn restart(lab: &Lab, engine: &str, killed: Killed, tape: &Recording) -> Result<()> {
    let components: &[&str] = match (killed, engine) {
        (Killed::Nothing, _) => return Ok(()),
        (Killed::ApiServer, _) => &["kube-apiserver"],
        (Killed::Engine, "argo") => &ARGOCD,
        (Killed::Engine, _) => &FLUX,
    };
    for component in components {
        lab.stop(component).await?;
    }
    tape.act(json!({"did": format!("killed: {}", components.join(", "))}));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for component in components {
        lab.start_again(component).await?;
    }
    tape.act(json!({"did": format!("started again: {}", components.join(", "))}));
    Ok(())
}

/// Makes the owner; gives it as recordings name it.
async fn deliver(lab: &Lab, engine: &str, place: &str) -> Result<Value> {
    let url = lab.gitea().clone_url(OWNER, place);
    lab.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}})).await?;
    match engine {
        "argo" => {
            let application = json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
                "metadata": {"name": place, "namespace": "argocd"},
                "spec": {
                    "project": "default",
                    "source": {"repoURL": url, "targetRevision": "main", "path": "web"},
                    "destination": {"server": "https://kubernetes.default.svc", "namespace": place},
                    "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
                },
            });
            lab.apply(&application).await?;
            Ok(json!({"kind": "Application", "namespace": "argocd", "name": place}))
        }
        "flux" => {
            let source = json!({
                "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
                "metadata": {"name": place, "namespace": "flux-system"},
                "spec": {"url": url, "interval": "1m", "ref": {"branch": "main"}},
            });
            let kustomization = json!({
                "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
                "metadata": {"name": place, "namespace": "flux-system"},
                "spec": {
                    "path": "./web", "interval": "10m", "timeout": "25s", "retryInterval": "10s",
                    "prune": true, "wait": true, "sourceRef": {"kind": "GitRepository", "name": place},
                },
            });
            lab.apply(&source).await?;
            lab.apply(&kustomization).await?;
            Ok(json!({"kind": "Kustomization", "namespace": "flux-system", "name": place}))
        }
        other => Err(off(format!("{other} is no engine."))),
    }
}

/// Asks the engine to look at Git now.
async fn refresh(lab: &Lab, engine: &str, place: &str) -> Result<()> {
    let object = if engine == "argo" {
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {
            "name": place, "namespace": "argocd", "annotations": {"argocd.argoproj.io/refresh": "normal"}}})
    } else {
        let now = chrono::Utc::now().to_rfc3339();
        json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {
            "name": place, "namespace": "flux-system", "annotations": {"reconcile.fluxcd.io/requestedAt": now}}})
    };
    lab.merge(&object).await
}

/// Waits until the first commit is live and the engine has nothing more to do.
async fn settled(lab: &Lab, engine: &str, place: &str) -> Result<()> {
    let (api, kind, namespace) = match engine {
        "argo" => ("argoproj.io/v1alpha1", "Application", "argocd"),
        _ => ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "flux-system"),
    };
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let web = lab.get("apps/v1", "Deployment", place, "web").await?.unwrap_or_default();
        let owner = lab.get(api, kind, namespace, place).await?.unwrap_or_default();
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        let conditions = owner["status"]["conditions"].as_array();
        let done = owner["status"]["sync"]["status"] == "Synced" || conditions.is_some_and(|all| all.iter().any(ready));
        if web["status"]["availableReplicas"] == 2 && done {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(off(format!("The first commit of {place} did not become live within 60 s.")))
}
