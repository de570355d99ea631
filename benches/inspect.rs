//! The tool `inspect` over MCP, against `kubectl get -A -o json` and jq on the same API server.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use countersign::cli::demo::agent::Agent;
use countersign::sandbox::cluster::Engine;
use countersign::sandbox::world::{CLUSTER, REPO, World, WorldOptions, deployment};
use serde_json::{Value, json};

use crate::Size;
use crate::report::{Goal, Line, Report, Unit, median, ms};
use crate::tools::{Served, has, import, shell};

/// Deployments (each with its Service) of one Application; with the ConfigMaps twenty objects.
const SERVICES: usize = 5;
const MAPS: usize = 10;
/// The rate limit lets an agent ask ten times a second; its wait is not ours.
const REST: Duration = Duration::from_millis(120);
/// After this the agent may ask twenty times at once.
const FULL_REST: Duration = Duration::from_millis(2500);
/// Calls at once.
const PARALLEL: usize = 20;
/// What one who has no index does: everything that may be or own the target, searched.
const SEARCH: &str = r#"[.items[]] as $all
| ($all[] | select(.kind == "Deployment" and .metadata.namespace == $ns and .metadata.name == $name)) as $it
| {image: $it.spec.template.spec.containers[0].image, ready: $it.status.readyReplicas,
   owners: [$all[] | select(.kind == "Application" and any(.status.resources[]?; .kind == "Deployment" and .namespace == $ns and .name == $name))
            | {name: .metadata.name, source: .spec.source, health: .status.health.status}]}"#;
/// What one does who knows that only the owner has to be searched.
const SEARCH_OWNERS: &str = r#"[.items[] | select(.kind == "Application" and any(.status.resources[]?; .kind == "Deployment" and .namespace == $ns and .name == $name))
| {name: .metadata.name, source: .spec.source, health: .status.health.status}] | {owners: .}"#;

fn folder(app: usize) -> String {
    format!("fleet/app-{app}")
}

fn namespace(app: usize) -> String {
    format!("team-{app}")
}

fn objects(app: usize) -> Vec<Value> {
    let ns = namespace(app);
    let mut all = Vec::with_capacity(2 * SERVICES + MAPS);
    let meta = |group_kind: &str, name: &str| {
        json!({"name": name, "namespace": ns, "labels": {"app": name, "env": "prod"},
               "annotations": {"argocd.argoproj.io/tracking-id": format!("app-{app}:{group_kind}:{ns}/{name}")}})
    };
    for s in 0..SERVICES {
        let name = format!("svc-{s}");
        let labels = json!({"app": name});
        all.push(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("apps/Deployment", &name),
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": format!("reg.example/{name}:1.0.{app}"), "ports": [{"containerPort": 8080}],
                    "env": [{"name": "LOG_LEVEL", "value": "info"}], "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]}}},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2},
        }));
        all.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("/Service", &name),
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        }));
    }
    for m in 0..MAPS {
        let name = format!("settings-{m}");
        let data: serde_json::Map<String, Value> =
            (0..8).map(|k| (format!("KEY_{k}"), json!(format!("value {k} of {name} in {ns}")))).collect();
        all.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("/ConfigMap", &name), "data": data}));
    }
    all
}

fn application(app: usize, url: &str, tip: &str, objects: &[Value]) -> Value {
    let text = |o: &Value, p: &str| o.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
    let resources: Vec<Value> = objects
        .iter()
        .map(|o| {
            let version = text(o, "/apiVersion");
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            json!({"group": group, "version": version, "kind": text(o, "/kind"), "namespace": text(o, "/metadata/namespace"),
                   "name": text(o, "/metadata/name"), "status": "Synced", "health": {"status": "Healthy"}})
        })
        .collect();
    let source = json!({"repoURL": url, "targetRevision": "main", "path": folder(app)});
    let destination = json!({"server": "https://kubernetes.default.svc", "namespace": namespace(app)});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": format!("app-{app}"), "namespace": "argocd"},
        "spec": {"project": "default", "source": source, "destination": destination, "syncPolicy": {"automated": {"prune": true}}},
        "status": {"resources": resources, "sourceType": "Directory", "controllerNamespace": "argocd",
                   "sync": {"status": "Synced", "revision": tip, "comparedTo": {"source": source, "destination": destination}},
                   "health": {"status": "Healthy"}, "reconciledAt": "2026-01-01T00:00:00Z",
                   "operationState": {"phase": "Succeeded", "message": "successfully synced (all tasks run)",
                       "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
                       "operation": {"sync": {"revision": tip}}, "syncResult": {"revision": tip, "source": source}}},
    })
}

/// Fills cluster and repository; engines and workloads rest, so that nobody else uses the processor.
fn fill(world: &World, size: Size) -> Result<usize> {
    for engine in [Engine::Argocd, Engine::Flux, Engine::Workloads] {
        world.cluster.pause_engine(engine, true);
    }
    import(
        world,
        (0..size.apps).flat_map(|a| {
            (0..SERVICES).map(move |s| {
                let name = format!("svc-{s}");
                let manifest = deployment(&name, &format!("reg.example/{name}:1.0.{a}"), 2)
                    .replace("namespace: shop", &format!("namespace: {}", namespace(a)));
                (format!("{}/{name}.yaml", folder(a)), manifest)
            })
        }),
    )?;
    let (url, tip) = (world.git.repo_url(REPO), world.tip());
    let mut count = 0;
    for a in 0..size.apps {
        let all = objects(a);
        count += all.len();
        for o in all.iter().chain(std::iter::once(&application(a, &url, &tip, &all))) {
            world.cluster.apply(o).map_err(|f| anyhow::anyhow!("{}", f.message))?;
        }
    }
    Ok(count)
}

/// Another target each time.
fn pick(i: usize, size: Size) -> (usize, String) {
    (i * 37 % size.apps, format!("svc-{}", i % SERVICES))
}

async fn inspect(agent: &mut Agent, i: usize, size: Size) -> Result<f64> {
    let (app, name) = pick(i, size);
    let target = format!("{CLUSTER}/{}/Deployment/{name}", namespace(app));
    let started = Instant::now();
    let answer = agent.call("inspect", json!({"target": target})).await?;
    let took = ms(started.elapsed());
    let owner = answer.pointer("/owner/name").and_then(Value::as_str).unwrap_or_default();
    let file = answer.get("file").and_then(Value::as_str).unwrap_or_default();
    ensure!(
        owner == format!("app-{app}") && file.starts_with(&format!("{}/{name}.yaml", folder(app))),
        "not the answer: {answer:#}"
    );
    Ok(took)
}

struct Kubectl<'a> {
    world: &'a World,
    cache: tempfile::TempDir,
}

impl Kubectl<'_> {
    /// `get` and a search, with discovery cached or not.
    fn run(&self, get: &str, filter: &str, i: usize, size: Size, cold: bool) -> Result<f64> {
        let fresh = tempfile::tempdir()?;
        let cache = if cold { fresh.path() } else { self.cache.path() };
        let (app, name) = pick(i, size);
        let config = self.world.dir.join("kubeconfig.yaml");
        let env = [
            ("KUBECONFIG", config.to_str().unwrap_or_default()),
            ("CACHE", cache.to_str().unwrap_or_default()),
            ("NS", &namespace(app)),
            ("NAME", &name),
            ("FILTER", filter),
        ];
        let (took, out) =
            shell(&format!("{get} | jq -c --arg ns \"$NS\" --arg name \"$NAME\" \"$FILTER\" | tail -n 1"), &env)?;
        let answer: Value = serde_json::from_str(&out).with_context(|| format!("not JSON: {out}"))?;
        let found = answer.pointer("/owners/0/name").and_then(Value::as_str);
        ensure!(found == Some(&format!("app-{app}")), "kubectl and jq found {found:?}");
        Ok(ms(took))
    }

    /// All objects in one request: in pages of 500 it takes longer here.
    fn everything(&self, i: usize, size: Size, cold: bool) -> Result<f64> {
        let get = "kubectl --cache-dir \"$CACHE\" get applications.argoproj.io,deployments,services,configmaps -A -o json --chunk-size=0";
        self.run(get, SEARCH, i, size, cold)
    }

    /// The object by name, then the Applications alone.
    fn lean(&self, i: usize, size: Size) -> Result<f64> {
        let get = "kubectl --cache-dir \"$CACHE\" get deployment -n \"$NS\" \"$NAME\" -o json >/dev/null; kubectl --cache-dir \"$CACHE\" get applications.argoproj.io -A -o json --chunk-size=0";
        self.run(get, SEARCH_OWNERS, i, size, false)
    }
}

/// The group's lines.
pub async fn measure(program: &Path, size: Size, report: &mut Report) -> Result<()> {
    report.note(&format!("inspect: a world of {} Applications", size.apps));
    let world = World::start(WorldOptions::default()).await?;
    let count = fill(&world, size)?;
    let tools = has("kubectl") && has("jq");
    let kubectl = Kubectl { world: &world, cache: tempfile::tempdir()? };
    let named = |what: &str, values: &[f64]| {
        if values.is_empty() {
            Err("kubectl or jq not found".to_owned())
        } else {
            Ok((what.to_owned(), median(values)))
        }
    };

    report.note("inspect: cold");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for i in 0..size.few {
        let _ = std::fs::remove_dir_all(world.dir.join("state"));
        let started = Instant::now();
        let daemon = Served::start(program, &world.config)?;
        let mut agent = daemon.agent(&world).await?;
        inspect(&mut agent, i, size).await?;
        ours.push(ms(started.elapsed()));
        drop(daemon);
        if tools {
            // Blocking a worker is well here: the API server has the other ones.
            others.push(tokio::task::block_in_place(|| kubectl.everything(i, size, true))?);
        }
    }
    let world_size = format!("{} apps/{count} resources", size.apps);
    report.line(Line {
        name: format!("inspect, cold (daemon start, index, mirror), {world_size}"),
        unit: Unit::Ms,
        ours: median(&ours),
        other: named("kubectl get -A + jq, no discovery cache", &others),
        goal: Goal::Times(1.0),
    });

    report.note("inspect: warm");
    let daemon = Served::start(program, &world.config)?;
    let mut agent = daemon.agent(&world).await?;
    let (mut warm, mut all, mut lean) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..size.many + 3 {
        let took = inspect(&mut agent, i, size).await?;
        if i >= 3 {
            warm.push(took);
        }
        tokio::time::sleep(REST).await;
    }
    for i in 0..if tools { size.few + 1 } else { 0 } {
        let both =
            tokio::task::block_in_place(|| anyhow::Ok((kubectl.everything(i, size, false)?, kubectl.lean(i, size)?)))?;
        if i > 0 {
            all.push(both.0);
            lean.push(both.1);
        }
    }
    let ours = median(&warm);
    let name = format!("inspect, warm, {world_size}");
    report.line(Line {
        name: name.clone(),
        unit: Unit::Ms,
        ours,
        other: named("kubectl get -A + jq", &all),
        goal: Goal::Times(1.0),
    });
    report.line(Line {
        name,
        unit: Unit::Ms,
        ours,
        other: named("kubectl get of the object, of all Applications + jq", &lean),
        goal: Goal::None,
    });

    report.note("inspect: 20 at once");
    let mut agents = Vec::with_capacity(PARALLEL);
    for _ in 0..PARALLEL {
        agents.push(daemon.agent(&world).await?);
        tokio::time::sleep(2 * REST).await;
    }
    let mut rounds = Vec::new();
    for round in 0..size.few + 1 {
        tokio::time::sleep(FULL_REST).await;
        let took = at_once(&mut agents, round, size).await?;
        if round > 0 {
            rounds.push(took);
        }
    }
    let one_by_one = ours * 20.0;
    report.line(Line {
        name: format!("20 parallel inspect, {world_size}"),
        unit: Unit::Ms,
        ours: median(&rounds),
        other: Ok(("20 warm inspect one after the other".into(), one_by_one)),
        goal: Goal::AtMost(50.0),
    });
    let rss = daemon.rss()?;
    report.line(Line {
        name: format!("daemon, memory after all this, {world_size}"),
        unit: Unit::MiB,
        ours: rss,
        other: Err("no named alternative".into()),
        goal: Goal::None,
    });
    Ok(())
}

/// Twenty calls at the same time, each in a session of its own and for another object; until the last is answered.
async fn at_once(agents: &mut [Agent], round: usize, size: Size) -> Result<f64> {
    let started = Instant::now();
    let calls = agents.iter_mut().enumerate().map(|(i, agent)| inspect(agent, round * PARALLEL + i, size));
    futures::future::try_join_all(calls).await?;
    Ok(ms(started.elapsed()))
}
