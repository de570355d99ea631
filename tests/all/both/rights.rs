//! Countersign as a ServiceAccount with the rights of `deploy/` and no others: they are enough; each that is taken
//! away is missed where `docs/rbac.md` says, with its code and its name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::apps::{App, Engine, MISSING, NEW, OLD, Shape};
use super::place::{Place, Wish, text};
use super::scenarios_of_both;
use super::through::{ENDS, approved};
use super::truth::Want;

scenarios_of_both!(each_right_is_missed_by_name, without_hints_it_polls);

/// The rules of the roles, by the name of the chart's file.
#[derive(Debug, Clone)]
pub struct Rights(pub BTreeMap<&'static str, Vec<Value>>);

fn words(rule: &Value, key: &str) -> Vec<String> {
    rule[key].as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Resources of a rule as `plural.group`.
fn resources(rule: &Value) -> Vec<String> {
    let of = |group: &String| -> Vec<String> {
        let full = |r: String| if group.is_empty() { r } else { format!("{r}.{group}") };
        words(rule, "resources").into_iter().map(full).collect()
    };
    words(rule, "apiGroups").iter().flat_map(of).collect()
}

impl Rights {
    /// Everything that the deployment gives, hints included.
    pub fn given() -> Self {
        let file = |name: &str| -> Vec<Value> {
            let path = format!("{}/deploy/chart/countersign/files/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        Self(["owners", "workloads", "controlplane", "hints"].map(|name| (name, file(name))).into())
    }

    /// Without these verbs on one resource, in whichever rules they are.
    fn without(&self, resource: &str, verbs: &[&str]) -> Self {
        let mut all = self.clone();
        let mut taken = 0;
        for rules in all.0.values_mut() {
            let mut more = Vec::new();
            for rule in rules.iter_mut().filter(|r| resources(r).iter().any(|x| x == resource)) {
                let plural = resource.split('.').next().unwrap();
                let mut rest = rule.clone();
                rest["resources"] = json!([plural]);
                let before = words(rule, "verbs");
                let left: Vec<&String> = before.iter().filter(|v| !verbs.contains(&v.as_str())).collect();
                taken += before.len() - left.len();
                rest["verbs"] = json!(left);
                rule["resources"].as_array_mut().unwrap().retain(|r| r != plural);
                if !left.is_empty() {
                    more.push(rest);
                }
            }
            rules.retain(|r| r["nonResourceURLs"].is_array() || !words(r, "resources").is_empty());
            rules.extend(more);
        }
        assert!(taken > 0, "nobody gives {verbs:?} {resource}");
        all
    }

    /// Without a whole set.
    fn without_set(&self, set: &str) -> Self {
        let mut all = self.clone();
        all.0.get_mut(set).unwrap().clear();
        all
    }

    /// Resource and verb of every rule.
    pub fn held(&self) -> BTreeSet<(String, String)> {
        let each = self.0.values().flatten().flat_map(|rule| {
            let verbs = words(rule, "verbs");
            resources(rule).into_iter().flat_map(move |r| verbs.clone().into_iter().map(move |v| (r.clone(), v)))
        });
        // Rules for one named object are in force for that one alone.
        each.collect()
    }
}

/// Where a missing right is told of.
const PLACES: [&str; 7] = ["inspect", "pod", "health", "events", "plan", "scale", "observing"];
/// Only where the object itself is asked about.
const NOWHERE: &str = "";
/// Of a right without which no owner is told.
const ALL: &str = "inspect pod plan scale observing";

/// Other kinds that agents name as targets, which every cluster serves: the right to read each is taken away from all
/// at once, and each is missed by its own name.
const TARGETS: [(&str, &str); 12] = [
    ("statefulsets.apps", "StatefulSet"),
    ("daemonsets.apps", "DaemonSet"),
    ("jobs.batch", "Job"),
    ("cronjobs.batch", "CronJob"),
    ("services", "Service"),
    ("serviceaccounts", "ServiceAccount"),
    ("persistentvolumeclaims", "PersistentVolumeClaim"),
    ("limitranges", "LimitRange"),
    ("resourcequotas", "ResourceQuota"),
    ("ingresses.networking.k8s.io", "Ingress"),
    ("networkpolicies.networking.k8s.io", "NetworkPolicy"),
    ("poddisruptionbudgets.policy", "PodDisruptionBudget"),
];

/// Rights that these scenarios do not take away one by one, and why: what `docs/rbac.md` says of them is read in the
/// code, or tried elsewhere.
const NAMED: [(&str, &[&str], &str); 14] = [
    (
        "patch",
        &[
            "applications.argoproj.io",
            "gitrepositories.source.toolkit.fluxcd.io",
            "helmreleases.helm.toolkit.fluxcd.io",
        ],
        "as a set, without_hints_it_polls",
    ),
    (
        "get list watch",
        &[
            "ocirepositories.source.toolkit.fluxcd.io",
            "buckets.source.toolkit.fluxcd.io",
            "helmrepositories.source.toolkit.fluxcd.io",
            "helmcharts.source.toolkit.fluxcd.io",
            "externalartifacts.source.extensions.fluxcd.io",
        ],
        "no owner here has such a source",
    ),
    (
        "get list watch",
        &["resourcesets.fluxcd.controlplane.io", "fluxinstances.fluxcd.controlplane.io"],
        "not served here",
    ),
    (
        "get list watch",
        &["rollouts.argoproj.io", "scaledobjects.keda.sh", "verticalpodautoscalers.autoscaling.k8s.io"],
        "not served here",
    ),
    ("get", &["helmreleases.helm.toolkit.fluxcd.io"], "as Kustomizations, by the same call"),
    ("get watch", &["applicationsets.argoproj.io"], "only for Applications that come from a set"),
    ("get list watch", &["namespaces"], "as a target like the others, without a namespace"),
    ("get", &["statefulsets.apps"], "the version of Argo CD, where argocd-cm does not say"),
    (
        "list watch",
        &["statefulsets.apps", "daemonsets.apps", "jobs.batch", "cronjobs.batch", "services", "serviceaccounts"],
        "as Deployments, by the same watch",
    ),
    (
        "list watch",
        &["persistentvolumeclaims", "limitranges", "resourcequotas", "replicationcontrollers", "configmaps"],
        "as Deployments, by the same watch",
    ),
    (
        "list watch",
        &["ingresses.networking.k8s.io", "networkpolicies.networking.k8s.io", "poddisruptionbudgets.policy"],
        "as Deployments, by the same watch",
    ),
    ("list watch", &["replicasets.apps"], "a walk to the owner reads them one by one"),
    ("watch", &["pods", "horizontalpodautoscalers.autoscaling"], "where they are the changed object; as Deployments"),
    ("get", &["replicationcontrollers"], "between a pod and what Git declares, as ReplicaSets"),
];

#[test]
fn each_right_of_the_deployment_is_taken_away_or_named() {
    let pair = |resource: &str, verb: &str| (resource.to_owned(), verb.to_owned());
    let cases = OF_BOTH.iter().chain(&OF_ARGOCD).chain(&OF_FLUX).map(|(r, v, _)| pair(r, v));
    let targets = TARGETS.iter().map(|(r, _)| pair(r, "get"));
    let named = NAMED.iter().flat_map(|(verbs, resources, _)| {
        resources.iter().flat_map(move |r| verbs.split_whitespace().map(move |v| (r.to_string(), v.to_owned())))
    });
    let all: BTreeSet<_> = cases.chain(targets).chain(named).collect();
    let held = Rights::given().held();
    assert_eq!(held.difference(&all).collect::<Vec<_>>(), Vec::<&_>::new(), "given, and neither tried nor named");
    assert_eq!(all.difference(&held).collect::<Vec<_>>(), Vec::<&_>::new(), "tried or named, and not given");
}

/// Kinds that agents name as targets.
async fn targets_missed(p: &mut Place, given: &Rights) -> Vec<String> {
    let mut said = Vec::new();
    for without in [false, true] {
        let rights = TARGETS.iter().fold(given.clone(), |all, (resource, _)| match without {
            true => all.without(resource, &["get"]),
            false => all,
        });
        p.backend.allow(&p.name, &rights).await;
        p.restart_daemon().await;
        for (resource, kind) in TARGETS {
            let target = p.target(kind, "nothing");
            let answer = p.call("inspect", json!({"target": target})).await;
            let code = text(&answer["problem"], "code").to_owned();
            let words = format!("{code}: {}", text(&answer["problem"], "message"));
            let named = words.contains(&format!("Countersign may not get {resource}")) && code == "cluster.forbidden";
            if named != without {
                said.push(format!("get {resource}, {}: {words}", if without { "taken away" } else { "given" }));
            }
        }
    }
    said
}

/// Kinds that the index of owners is made of.
const ALL_KINDS: [&str; 4] = [
    "applications.argoproj.io",
    "kustomizations.kustomize.toolkit.fluxcd.io",
    "helmreleases.helm.toolkit.fluxcd.io",
    "gitrepositories.source.toolkit.fluxcd.io",
];

/// Resource, the verb that is taken away, and where it is told of then.
type Case = (&'static str, &'static str, &'static str);

const OF_BOTH: [Case; 17] = [
    ("applications.argoproj.io", "list", ALL),
    ("applications.argoproj.io", "watch", ALL),
    ("kustomizations.kustomize.toolkit.fluxcd.io", "list", ALL),
    ("kustomizations.kustomize.toolkit.fluxcd.io", "watch", ALL),
    ("helmreleases.helm.toolkit.fluxcd.io", "list", ALL),
    ("helmreleases.helm.toolkit.fluxcd.io", "watch", ALL),
    ("gitrepositories.source.toolkit.fluxcd.io", "list", ALL),
    ("gitrepositories.source.toolkit.fluxcd.io", "watch", ALL),
    ("deployments.apps", "get", "inspect pod plan scale"),
    ("deployments.apps", "list", "observing"),
    ("deployments.apps", "watch", "observing"),
    ("replicasets.apps", "get", "pod"),
    ("pods", "get", "pod"),
    // Not by the watch of the change: the workload's own status decides, its pods only explain.
    ("pods", "list", "health"),
    ("events", "list", "events"),
    ("horizontalpodautoscalers.autoscaling", "list", "scale"),
    ("horizontalpodautoscalers.autoscaling", "get", NOWHERE),
];
const OF_ARGOCD: [Case; 6] = [
    ("applications.argoproj.io", "get", ALL),
    ("appprojects.argoproj.io", "get", "inspect pod plan scale"),
    ("appprojects.argoproj.io", "list", "observing"),
    ("appprojects.argoproj.io", "watch", "observing"),
    // Of Applications that come from a set.
    ("applicationsets.argoproj.io", "list", NOWHERE),
    ("configmaps", "get", ALL),
];
const OF_FLUX: [Case; 2] = [
    ("kustomizations.kustomize.toolkit.fluxcd.io", "get", ALL),
    ("gitrepositories.source.toolkit.fluxcd.io", "get", "inspect pod plan scale"),
];

/// Whether the watch of a change may miss that the right is not there. A right to list without one to watch makes the
/// index whole for a moment; a change that is taken up just then has its owner, and goes on with what it follows
/// itself, to which these kinds do not belong.
fn unseen(engine: Engine, resource: &str, verb: &str) -> bool {
    let followed = match engine {
        Engine::Argocd => "applications.argoproj.io",
        Engine::Flux => "kustomizations.kustomize.toolkit.fluxcd.io gitrepositories.source.toolkit.fluxcd.io",
    };
    let index = ALL_KINDS.contains(&resource);
    verb == "watch" && index && !followed.contains(resource)
}

/// An application with `web`, which is in the middle of a rollout that takes long, and with `api`.
async fn in_the_middle(p: &mut Place, engine: Engine) -> (App, String) {
    let long = |name: &str| {
        p.deployment(name, OLD, Some(1)).replace("progressDeadlineSeconds: 15", "progressDeadlineSeconds: 3000")
    };
    let (web, api) = (long("web"), long("api"));
    let mut shape = Shape::plain(p, engine).with("apps/web/api.yaml", &api).tweak(move |o| {
        if engine == Engine::Flux {
            o["spec"]["timeout"] = json!("30m");
        }
    });
    shape.files[0].1 = web;
    let app = p.app(shape).await;
    let change = approved(p, MISSING).await;
    p.until_told(&change, "progressing").await;
    (app, change)
}

/// Everything that tells of a missing right now: place and words.
/// `since`: the daemon's start, before which it was another one that spoke of the change.
async fn told(p: &mut Place, change: &str, since: i64, long: bool) -> BTreeMap<&'static str, String> {
    let target = |name: &str| p.target("Deployment", name);
    let (web, api) = (target("web"), target("api"));
    let plan = |edit: Value| json!({"edits": [edit], "reason": "to see", "plan_only": true});
    let image = json!({"target": api, "set_image": {"container": "app", "image": NEW}});
    let looked = p.call("inspect", json!({"target": web})).await;
    let image = p.call("operate", plan(image)).await;
    let scale = p.call("operate", plan(json!({"target": api, "scale": {"replicas": 3}}))).await;
    let problem = |v: &Value| match &v["problem"] {
        Value::Object(problem) => {
            format!("{}: {}", problem["code"].as_str().unwrap(), problem["message"].as_str().unwrap())
        }
        _ => String::new(),
    };
    let pods = p.kube.api("Pod", &p.name).list(&Default::default()).await.unwrap();
    let pod = pods.items.iter().filter_map(|o| o.metadata.name.as_deref()).find(|n| n.starts_with("api-")).unwrap();
    let pod = p.target("Pod", pod);
    let pod = p.call("inspect", json!({"target": pod})).await;
    let mut all: BTreeMap<&'static str, String> = [
        ("inspect", problem(&looked)),
        // With the evidence: which hop to the owner it was.
        ("pod", pod["problem"].to_string()),
        ("health", text(&looked, "health").to_owned()),
        ("events", looked["events"].to_string()),
        ("plan", problem(&image)),
        ("scale", problem(&scale)),
    ]
    .into();
    let end = tokio::time::Instant::now() + if long { p.patience() } else { Duration::from_millis(300) };
    loop {
        let noted = p.noted(change).await;
        let last = noted.iter().rfind(|n| n.kind == "observed" && n.at >= since);
        let last = last.map(|n| n.data.clone()).unwrap_or_default();
        let (code, say) = (text(&last, "code"), text(&last, "say"));
        all.insert("observing", if code == "not_readable" { format!("{code}: {say}") } else { String::new() });
        if code == "not_readable" || tokio::time::Instant::now() > end {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(all.len(), PLACES.len());
    all.retain(|_, words| words.contains(" may not "));
    all
}

async fn each_right_is_missed_by_name(engine: Engine) {
    let wish = Wish { account: true, observe_s: Some(3000), ..Wish::default() };
    let mut p = Place::new("each right is missed by name", wish).await;
    let (app, change) = in_the_middle(&mut p, engine).await;
    let before = told(&mut p, &change, 0, false).await;
    assert!(before.is_empty(), "with every right: {before:#?}");
    let given = Rights::given();
    let own: &[Case] = if engine == Engine::Argocd { &OF_ARGOCD } else { &OF_FLUX };
    let mut wrong = Vec::new();
    for (resource, verb, places) in OF_BOTH.iter().chain(own) {
        // The daemon of before may be the one that says it, and then the next one has nothing to add.
        let since = chrono::Utc::now().timestamp_millis();
        p.backend.allow(&p.name, &given.without(resource, &[verb])).await;
        p.restart_daemon().await;
        let expected: BTreeSet<&str> = places.split_whitespace().collect();
        let unseen = unseen(engine, resource, verb);
        let told = told(&mut p, &change, since, expected.contains("observing") && !unseen).await;
        let named = format!("Countersign may not {verb} {resource}");
        let coded = |place: &str, words: &str| match place {
            "inspect" | "plan" | "scale" => words.starts_with(&format!("cluster.forbidden: {named}")),
            "observing" => words.starts_with("not_readable: ") && words.contains(&named),
            "pod" => {
                words.contains(&named) && (words.contains("cluster.forbidden") || words.contains("owner.unreadable"))
            }
            _ => words.contains(&named),
        };
        let mut seen: BTreeSet<&str> = told.keys().copied().collect();
        if unseen {
            seen.insert("observing");
        }
        if seen != expected || !told.iter().all(|(k, v)| coded(k, v)) {
            wrong.push(format!("{verb} {resource}: expected {places}, got {told:#?}"));
        }
    }
    wrong.extend(targets_missed(&mut p, &given).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // With every right back, nothing of that stays, and the change goes on.
    p.backend.allow(&p.name, &given).await;
    let since = chrono::Utc::now().timestamp_millis();
    p.restart_daemon().await;
    let end = tokio::time::Instant::now() + p.patience();
    // It says nothing new where the words are those of before.
    while !told(&mut p, &change, since, false).await.is_empty() {
        assert!(tokio::time::Instant::now() < end, "{:#?}", told(&mut p, &change, since, false).await);
    }
    let noted = p.noted(&change).await;
    let last = noted.iter().rfind(|n| n.kind == "observed").unwrap();
    assert_eq!(text(&last.data, "code"), "progressing", "{last:#?}");
    p.tell(engine, "each right missed");
    // Flux is in a health check of half an hour, and would let the owner go only after it.
    p.patch_owner(&app, json!({"metadata": {"finalizers": null}})).await;
    p.end().await;
}

/// The configuration asks for hints, and the role is not there: nothing fails, the engine polls.
async fn without_hints_it_polls(engine: Engine) {
    let mut p = Place::new("no right to hint", Wish { account: true, ..Wish::default() }).await;
    p.backend.allow(&p.name, &Rights::given().without_set("hints")).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    let noted = p.noted(&change).await;
    let refused = |effect: &str| {
        noted.iter().any(|n| n.data["effect"]["effect"] == effect && n.data["result"]["refused"].is_string())
    };
    assert!(refused("hint"), "{noted:#?}");
    // It might have been an API server that has just started.
    let by_itself = crate::lab::wanted() && engine == Engine::Argocd;
    assert!(!by_itself || refused("hint_again"), "it looks every three minutes: {noted:#?}");
    assert!(!noted.iter().any(|n| n.data["result"]["sent"] == true), "{noted:#?}");
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    // Nobody but us would have set it.
    let touched = match engine {
        Engine::Argocd => p.owner(&app).await["metadata"]["annotations"]["argocd.argoproj.io/refresh"].clone(),
        Engine::Flux => {
            p.get("GitRepository", "shop").await.unwrap()["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"]
                .clone()
        }
    };
    assert_eq!(touched, Value::Null);
    p.end().await;
}
