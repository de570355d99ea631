//! Many changes in the same moment. What became of them is read from Git's history and from the API server, and
//! not from what Countersign says of itself; the journal is asked for times alone.
//!
//! Each change comes from an agent of its own: the limits are those of one agent, and stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use countersign::cli::demo::agent::Agent;
use countersign::config::{Approvals, Config, Times};
use countersign::sandbox::bot::Press;
use countersign::sandbox::world::{ANNA, policy};
use countersign::server::Limits;
use futures::future::join_all;
use serde_json::{Value, json};

use super::apps::{App, Engine, NEW, NEWER, OLD, Shape};
use super::place::{Place, Wish, refusal, text};
use super::scenarios_of_both;
use super::truth::{Want, rolled_out};

scenarios_of_both!(
    many_on_one_branch_pushed,
    many_on_one_branch_by_pull_requests,
    many_branches_pushed,
    many_branches_by_pull_requests,
    many_for_the_same_field,
);

/// The limits are the same for all of them, and told once.
static LIMITS: OnceLock<()> = OnceLock::new();

const LEVEL: &str = "prompted";
const PULLS: &str = "merge_after_approval";

/// How many at once: 20 on the lab, or as many as `COUNTERSIGN_LAB_MANY` says.
fn many() -> usize {
    if !crate::lab::wanted() {
        return 5;
    }
    std::env::var("COUNTERSIGN_LAB_MANY").map_or(20, |n| n.parse().expect("COUNTERSIGN_LAB_MANY is a number"))
}

fn service(n: usize) -> String {
    format!("web-{n:02}")
}

fn wish(deliver: &str) -> Wish {
    let lab = crate::lab::wanted();
    Wish {
        policy: policy(LEVEL, deliver, 1),
        // Alone: the figures are to be those of these changes.
        alone: true,
        agents: many(),
        // Everything waits for everything else on a small machine.
        deliver_s: lab.then_some(300),
        observe_s: lab.then_some(600),
        // The default: forge and branch are asked by each change, and the other scenarios are in a hurry.
        poll_s: if lab { 15 } else { 1 },
        ..Wish::default()
    }
}

/// One of the many: its service, the branch, file and owner that it is delivered by.
struct One {
    service: String,
    branch: String,
    file: String,
    app: App,
}

/// All services in one folder of `main`, with one owner.
async fn one_branch(p: &mut Place, engine: Engine) -> Vec<One> {
    let mut shape = Shape::plain(p, engine);
    let files: Vec<String> = (1..=many()).map(|n| format!("apps/web/{}.yaml", service(n))).collect();
    for (n, file) in files.iter().enumerate() {
        shape.files.push((file.clone(), p.deployment(&service(n + 1), OLD, Some(1))));
    }
    let app = p.app(shape).await;
    let one =
        |(n, file): (usize, String)| One { service: service(n + 1), branch: "main".into(), file, app: app.clone() };
    files.into_iter().enumerate().map(one).collect()
}

/// Each service on a branch of its own, with an owner of its own.
async fn own_branches(p: &mut Place, engine: Engine) -> Vec<One> {
    let folders: Vec<String> = (1..=many()).map(|n| format!("apps/{}", service(n))).collect();
    let files: Vec<(String, String)> = folders
        .iter()
        .enumerate()
        .map(|(n, f)| (format!("{f}/deploy.yaml"), p.deployment(&service(n + 1), OLD, Some(1))))
        .collect();
    let commit = p.people.commit(&files.iter().map(|(f, c)| (f.as_str(), Some(c.as_str()))).collect::<Vec<_>>());
    let branches: Vec<String> = (1..=many()).map(|n| format!("release/{n:02}")).collect();
    let refs: Vec<String> = branches.iter().map(|b| format!("{commit}:refs/heads/{b}")).collect();
    let mut push = vec!["push", "-q", "origin"];
    push.extend(refs.iter().map(String::as_str));
    p.people.git(&push).unwrap();
    if engine == Engine::Argocd {
        p.make_project(&|_| {}).await;
    }
    let mut all = Vec::new();
    for (n, (branch, folder)) in branches.into_iter().zip(&folders).enumerate() {
        let service = service(n + 1);
        let owner = match engine {
            Engine::Argocd => {
                let name = format!("{}-{service}", p.name);
                let mut object = p.application_of(&name, folder);
                object["spec"]["source"]["targetRevision"] = json!(branch);
                p.make(&object).await;
                ("Application".to_owned(), p.argocd.clone(), name)
            }
            Engine::Flux => {
                let source = json!({
                    "kind": "GitRepository", "metadata": {"name": service, "namespace": p.name},
                    "spec": {"url": p.url, "interval": "1m", "ref": {"branch": branch}},
                });
                p.make(&source).await;
                let object = json!({
                    "kind": "Kustomization", "metadata": {"name": service, "namespace": p.name},
                    "spec": {
                        "path": format!("./{folder}"), "interval": "10m", "timeout": "60s", "retryInterval": "10s",
                        "prune": true, "wait": true, "sourceRef": {"kind": "GitRepository", "name": service},
                    },
                });
                p.make(&object).await;
                ("Kustomization".to_owned(), p.name.clone(), service.clone())
            }
        };
        let file = format!("{folder}/deploy.yaml");
        all.push(One { service, branch, file: file.clone(), app: App { engine, owner, file } });
    }
    for one in &all {
        p.eventually("the first commit", || async { runs(p, &one.service, OLD).await }).await;
    }
    all
}

/// By the API server: the rollout is finished, with this image.
async fn runs(p: &Place, service: &str, image: &str) -> bool {
    let at = "/spec/template/spec/containers/0/image";
    p.get("Deployment", service)
        .await
        .is_some_and(|d| d.pointer(at).and_then(Value::as_str) == Some(image) && rolled_out(&d))
}

/// Every agent asks for its edit in the same moment.
async fn ask_all(agents: &mut [Agent], edits: Vec<Value>) -> Vec<Value> {
    let asked = agents.iter_mut().zip(edits).map(|(agent, edit)| async move {
        let args = json!({"edits": [edit], "reason": "one of many"});
        agent.call("operate", args).await.unwrap_or_else(|e| panic!("{e}"))
    });
    join_all(asked).await
}

/// Anna approves every card that she has, one press right after the other, once there are so many.
async fn approve_all(p: &Place, cards: usize) {
    let buttons = || -> Vec<i64> {
        let chat = p.bot.chat(ANNA);
        chat.iter().filter(|m| m.button("Approve").is_some()).map(|m| m.message_id).collect()
    };
    p.eventually("all cards", || async { buttons().len() == cards }).await;
    for id in buttons() {
        let press = Press { message_id: Some(id), ..Press::button(ANNA, "Approve") };
        p.bot.press(&press).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Every agent waits until its change is over; what each ended as.
async fn ends(p: &Place, agents: &mut [Agent], changes: &[String]) -> Vec<Value> {
    let end = tokio::time::Instant::now() + 2 * p.patience();
    let ended = agents.iter_mut().zip(changes).map(|(agent, change)| async move {
        loop {
            let args = json!({"change": change, "wait_s": 5});
            let now = agent.call("change", args).await.unwrap_or_else(|e| panic!("{e}"));
            if matches!(text(&now, "outcome"), "healthy" | "ended" | "refused") {
                return now;
            }
            assert!(tokio::time::Instant::now() < end, "{change} is not over: {now:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    join_all(ended).await
}

/// What carries our trailer on a branch, first parents only: change, and the files that it brought there.
fn landed(p: &Place, branch: &str) -> Vec<(String, Vec<String>)> {
    let branch = format!("origin/{branch}");
    let format = "--format=%x01%(trailers:key=Countersign-Change,valueonly,separator=%x20)";
    let log = p.people.git(&["log", "--first-parent", "-m", "--name-only", format, &branch]).unwrap();
    log.split('\u{1}')
        .filter_map(|entry| {
            let mut lines = entry.lines().map(str::trim).filter(|l| !l.is_empty());
            let change = lines.next()?;
            // A person's commit has no trailer: its first line is a file.
            let ours = change.len() == 26 && !change.contains('/');
            ours.then(|| (change.to_owned(), lines.map(str::to_owned).collect()))
        })
        .collect()
}

/// Every setting of the daemon that is not the default: `area.name default -> value`. What agents are held to
/// (requests per second, calls at work) no setting changes.
fn limits(p: &Place) -> String {
    let config = Config::load(&p.dir.path().join("countersign.yaml")).unwrap_or_else(|e| panic!("{e}"));
    let (times, approvals) = (config.bootstrap.times, config.bootstrap.approvals);
    let areas = [("times", json!([times, Times::default()])), ("approvals", json!([approvals, Approvals::default()]))];
    let mut all = Vec::new();
    for (area, both) in areas {
        for (name, value) in both[0].as_object().unwrap() {
            let default = &both[1][name];
            if value != default {
                all.push(format!("{area}.{name} {default} -> {value}"));
            }
        }
    }
    let agent = Limits::default();
    format!(
        "limits of {}: {}; each agent's own as they are: {} requests per second, {} at work",
        p.backend.name(),
        all.join(", "),
        agent.per_second,
        agent.in_flight
    )
}

/// Prints a line past the test harness's capture, and into the file that is asked for.
fn print(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
    if let Some(path) = std::env::var_os("COUNTERSIGN_LOAD") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// Seconds from the first approval, sorted, as `median / last`.
fn spread(mut ms: Vec<i64>) -> String {
    ms.sort_unstable();
    let at = |n: usize| ms.get(n).copied().unwrap_or(0) as f64 / 1000.0;
    format!("{:.1} / {:.1}", at(ms.len() / 2), at(ms.len().saturating_sub(1)))
}

async fn run(engine: Engine, deliver: &str, own: bool) {
    let what = match (own, deliver) {
        (false, "direct") => "one branch, pushed",
        (false, _) => "one branch, pull requests",
        (true, "direct") => "own branches, pushed",
        (true, _) => "own branches, pull requests",
    };
    let mut p = Place::new(&format!("load: {what}"), wish(deliver)).await;
    let all = if own { own_branches(&mut p, engine).await } else { one_branch(&mut p, engine).await };
    let before: Vec<String> = all.iter().map(|o| show(&p, o)).collect();
    LIMITS.get_or_init(|| print(&limits(&p)));
    let mut agents = p.crowd(many()).await;
    let asked_at = std::time::Instant::now();
    let edits = all.iter().map(|o| p.set_image(&o.service, NEW)).collect();
    let answers = ask_all(&mut agents, edits).await;
    for answer in &answers {
        assert_eq!(text(answer, "outcome"), "waiting", "{answer:#}");
    }
    let asked_s = asked_at.elapsed().as_secs_f64();
    let changes: Vec<String> = answers.iter().map(|a| text(a, "change").to_owned()).collect();
    assert_eq!(changes.iter().collect::<BTreeSet<_>>().len(), many(), "each is a change of its own: {changes:?}");
    approve_all(&p, many()).await;
    let ended = ends(&p, &mut agents, &changes).await;
    for end in &ended {
        assert_eq!(text(end, "state"), "healthy", "{end:#}");
    }
    // Git: each change is on its branch once, with its one file; and every file has its one new value.
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for branch in all.iter().map(|o| o.branch.as_str()).collect::<BTreeSet<_>>() {
        for (change, files) in landed(&p, branch) {
            assert!(found.insert(change.clone(), files).is_none(), "{change} landed twice");
        }
    }
    let files: Vec<&String> = found.values().flatten().collect();
    assert_eq!((found.len(), files.len()), (many(), many()), "{found:#?}");
    assert_eq!(files.into_iter().collect::<BTreeSet<_>>(), all.iter().map(|o| &o.file).collect::<BTreeSet<_>>());
    for (one, before) in all.iter().zip(&before) {
        assert_eq!(show(&p, one), before.replace(OLD, NEW), "{}", one.file);
        // The API server: it runs.
        assert!(runs(&p, &one.service, NEW).await, "{} is not there\n{}", one.service, p.history.tail());
    }
    let mut figures = Figures::default();
    for (one, change) in all.iter().zip(&changes) {
        let row = p.row_of(&one.app, change, &[Want::image(&one.service, NEW)]).await;
        figures.delays.extend(row.delay_ms);
        figures.of(&p, change).await;
    }
    let again = figures.again;
    figures.print(&p, engine, what, asked_s);
    assert!(again == 0 || deliver != "direct", "nobody else pushes: {again} pushes lost a race against our own");
    p.end().await;
}

fn show(p: &Place, one: &One) -> String {
    p.people.git(&["show", &format!("origin/{}:{}", one.branch, one.file)]).unwrap()
}

#[derive(Default)]
struct Figures {
    voted: Vec<i64>,
    landed: Vec<i64>,
    over: Vec<i64>,
    delays: Vec<i64>,
    again: usize,
}

impl Figures {
    async fn of(&mut self, p: &Place, change: &str) {
        let noted = p.noted(change).await;
        let at = |kind: &'static str| noted.iter().filter(move |n| n.kind == kind).map(|n| n.at);
        self.voted.extend(at("voted").min());
        self.landed.extend(at("landed").min());
        self.over.extend(at("closed").max());
        self.again += noted
            .iter()
            .filter(|n| {
                n.kind == "failed"
                    && ["push_target", "push_branch", "open_pull_request", "merge"]
                        .iter()
                        .any(|e| n.data.to_string().contains(e))
            })
            .count();
    }

    fn print(self, p: &Place, engine: Engine, what: &str, asked_s: f64) {
        let from = self.voted.iter().min().copied().unwrap_or(0);
        let since = |all: Vec<i64>| spread(all.into_iter().map(|t| t - from).collect());
        let delays = spread(self.delays);
        let line = format!(
            "| {} | {} | {what} | {} | {asked_s:.1} | {} | {} | {delays} | {} |",
            p.backend.name(),
            engine.name(),
            many(),
            since(self.landed),
            since(self.over),
            self.again,
        );
        print(&line);
    }
}

async fn many_on_one_branch_pushed(engine: Engine) {
    run(engine, "direct", false).await;
}

async fn many_on_one_branch_by_pull_requests(engine: Engine) {
    run(engine, PULLS, false).await;
}

async fn many_branches_pushed(engine: Engine) {
    run(engine, "direct", true).await;
}

async fn many_branches_by_pull_requests(engine: Engine) {
    run(engine, PULLS, true).await;
}

/// One of them gets the field; the others are told which one has it, and nothing of theirs is written.
async fn many_for_the_same_field(engine: Engine) {
    let mut p = Place::new("load: the same field", wish("direct")).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let before = p.people.file(&app.file).unwrap();
    let image = |n: usize| format!("reg.example/web:2.{n}");
    let edits: Vec<Value> = (0..many()).map(|n| p.set_image("web", &image(n))).collect();
    let mut agents = p.crowd(many()).await;
    let answers = ask_all(&mut agents, edits).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().enumerate().partition(|(_, a)| text(a, "outcome") == "waiting");
    assert_eq!((won.len(), lost.len()), (1, many() - 1), "{answers:#?}");
    let (n, winner) = won[0];
    let (change, name) = (text(winner, "change").to_owned(), text(winner, "name").to_owned());
    assert!(name.starts_with("cs-"), "{winner:#}");
    for (_, answer) in lost {
        assert_eq!(text(&answer["problem"], "code"), "change.overlap", "{answer:#}");
        assert!(refusal(answer).contains(&format!("{name} already asks for")), "{answer:#}");
    }
    approve_all(&p, 1).await;
    let ended = ends(&p, &mut agents[n..=n], std::slice::from_ref(&change)).await;
    assert_eq!(text(&ended[0], "state"), "healthy", "{ended:#?}");
    let on_main = landed(&p, "main");
    assert_eq!(on_main, vec![(on_main[0].0.clone(), vec![app.file.clone()])], "one commit, of one file");
    assert_eq!(p.people.file(&app.file).unwrap(), before.replace(OLD, &image(n)));
    assert!(runs(&p, "web", &image(n)).await);
    p.compare(&app, &change, &[Want::image("web", &image(n))]).await;
    // The field is free again.
    let next = p.propose(p.set_image("web", NEWER)).await;
    assert_ne!(next, change);
    p.end().await;
}
