//! From the press to the pushed commit on a large repository, against Git on the command line.
//!
//! All sides talk to the same Git server over HTTP, and the clock stops for all when its branch has moved.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use countersign::cli::demo::agent::Agent;
use countersign::sandbox::git::{Author, FileChange};
use countersign::sandbox::world::{ANNA, CLUSTER, REPO, World, WorldOptions};
use serde_json::{Value, json};

use crate::Size;
use crate::report::{Goal, Line, Report, Unit, median, ms};
use crate::tools::{Served, import};

/// The file that everybody edits.
const FILE: &str = "apps/checkout/deploy.yaml";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files as fleets have them: many folders, small manifests, no two alike.
fn files(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|i| {
        let (team, service, file) = (i / 1000, i / 10 % 100, i % 10);
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings-{file}\n  namespace: team-{team}\n  labels:\n    app: service-{service}\ndata:\n  SERVICE: service-{service}\n  SETTING: \"{:x}\"\n  TIMEOUT: {}s\n",
            i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            i % 60
        );
        (format!("fleet/team-{team}/service-{service}/settings-{file}.yaml"), text)
    })
}

struct Bench<'a> {
    world: &'a World,
    agent: Agent,
    tree: PathBuf,
    url: String,
    image: usize,
}

impl Bench<'_> {
    fn next_image(&mut self) -> String {
        self.image += 1;
        format!("reg.example/checkout:2.0.{}", self.image)
    }

    /// Somebody else's commit, of which neither side knows yet.
    fn foreign(&self) -> Result<()> {
        let text = format!("{}\n", self.image);
        let change = FileChange::write("notes/foreign.txt", text.as_bytes());
        self.world.git.repos().commit(
            REPO,
            "main",
            &[change],
            &Author::new("Somebody Else", "else@example.test"),
            "docs: a note\n",
        )?;
        Ok(())
    }

    /// The branch as the server has it; the file is read, because opening a repository takes longer.
    fn tip(&self) -> String {
        let path = self.world.git.repos().path(REPO).join("refs/heads/main");
        std::fs::read_to_string(path).map_or_else(|_| self.world.tip(), |t| t.trim().to_owned())
    }

    async fn moved(&self, from: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let now = self.tip();
            if now != from && !now.is_empty() {
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        bail!("the branch did not move within {PATIENCE:?}")
    }

    /// The engines have taken everything in: they read the whole repository at each commit.
    async fn settled(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let app = self.world.cluster.get("argoproj.io", "Application", "argocd", "shop-prod");
            let revision = app.as_ref().and_then(|a| a.pointer("/status/sync/revision")).and_then(Value::as_str);
            let health = app.as_ref().and_then(|a| a.pointer("/status/health/status")).and_then(Value::as_str);
            if revision == Some(&self.tip()) && health == Some("Healthy") {
                tokio::time::sleep(Duration::from_millis(500)).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the engines did not settle within {PATIENCE:?}")
    }

    /// Has the engine look at the branch now.
    fn refresh(&self) {
        self.world.cluster.restart_engine(countersign::sandbox::cluster::Engine::Argocd);
    }

    async fn ours(&mut self, foreign: bool) -> Result<f64> {
        let image = self.next_image();
        let edit = json!({"target": format!("{CLUSTER}/shop/Deployment/checkout"), "set_image": {"container": "app", "image": image}});
        let answer = self.agent.call("operate", json!({"edits": [edit], "reason": "a measurement"})).await?;
        let id =
            answer.get("change").and_then(Value::as_str).with_context(|| format!("no change: {answer:#}"))?.to_owned();
        let card = self.world.bot.wait_for(ANNA, PATIENCE, |m| m.button("Approve").is_some()).await;
        card.context("no card")?;
        if foreign {
            self.foreign()?;
        }
        let before = self.tip();
        let started = Instant::now();
        self.world.bot.approve(ANNA, None).await.map_err(anyhow::Error::msg)?;
        let commit = self.moved(&before).await?;
        let took = ms(started.elapsed());
        let message = self.world.git.repos().commit_info(REPO, &commit)?.message;
        ensure!(message.contains("Countersign-Change"), "somebody else's commit: {message}");
        self.ended(&id).await?;
        Ok(took)
    }

    async fn ended(&mut self, id: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let now = self.agent.call("change", json!({"change": id, "wait_s": 5})).await?;
            match now.get("state").and_then(Value::as_str) {
                Some("healthy") => return Ok(()),
                Some("failed" | "timed_out" | "superseded" | "stale" | "rejected") => bail!("not healthy: {now:#}"),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        bail!("{id} did not end within {PATIENCE:?}")
    }

    fn git(&self, dir: &Path, args: &[&str]) -> Result<()> {
        let out = self.command(dir, args).output()?;
        ensure!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Anna").env(format!("GIT_{role}_EMAIL"), "anna@example.test");
        }
        command
    }

    /// Edit, commit, push; until the branch has moved. Then waits for the engines, which is not counted.
    async fn edit_and_push(&mut self, dir: &Path, started: Instant) -> Result<f64> {
        let image = self.next_image();
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path)?;
        let line = text.lines().find(|l| l.contains("image:")).context("no image")?;
        std::fs::write(&path, text.replace(line, &format!("          image: {image}")))?;
        self.git(dir, &["commit", "--quiet", "--all", "--message", "chore: a measurement"])?;
        let before = self.tip();
        let mut push = self.command(dir, &["push", "--quiet"]).spawn()?;
        self.moved(&before).await?;
        let took = ms(started.elapsed());
        ensure!(push.wait()?.success(), "git push failed");
        self.refresh();
        self.settled().await?;
        Ok(took)
    }

    async fn warm(&mut self, foreign: bool) -> Result<f64> {
        let tree = self.tree.clone();
        self.git(&tree, &["pull", "--quiet", "--ff-only"])?;
        if foreign {
            self.foreign()?;
        }
        let started = Instant::now();
        self.git(&tree, &["pull", "--quiet", "--ff-only"])?;
        self.edit_and_push(&tree, started).await
    }

    async fn fresh(&mut self, shallow: bool) -> Result<f64> {
        let dir = tempfile::tempdir()?;
        let tree = dir.path().join("tree");
        let (url, path) = (self.url.clone(), tree.to_string_lossy().into_owned());
        let mut args = vec!["clone", "--quiet"];
        if shallow {
            args.extend(["--depth", "1"]);
        }
        args.extend([url.as_str(), path.as_str()]);
        let started = Instant::now();
        self.git(dir.path(), &args)?;
        self.edit_and_push(&tree, started).await
    }
}

/// The group's lines.
pub async fn measure(program: &Path, size: Size, report: &mut Report) -> Result<()> {
    report.note(&format!("operate: a repository of {} files", size.files));
    let options = WorldOptions {
        speed: 20.0,
        times: [60, 1, 1, 60, 1],
        first_image: "reg.example/checkout:1.9.1".into(),
        ..WorldOptions::default()
    };
    let world = World::start(options).await?;
    import(&world, files(size.files))?;
    let scratch = tempfile::tempdir()?;
    let token = std::fs::read_to_string(world.dir.join("keys/git-token"))?;
    let url = world.git.repo_url(REPO).replace("http://", &format!("http://countersign:{}@", token.trim()));
    let daemon = Served::start(program, &world.config)?;
    let agent = daemon.agent(&world).await?;
    let mut bench = Bench { world: &world, agent, tree: scratch.path().join("tree"), url: url.clone(), image: 0 };
    let tree = bench.tree.to_string_lossy().into_owned();
    bench.git(scratch.path(), &["clone", "--quiet", &url, &tree])?;
    bench.refresh();
    bench.settled().await?;

    let mut times: [Vec<f64>; 5] = Default::default();
    for i in 0..=size.few {
        // In turns, so that other load on the machine hits all alike. The first round is for warming up.
        let row = [
            bench.ours(false).await?,
            bench.warm(false).await?,
            bench.fresh(false).await?,
            bench.ours(true).await?,
            bench.warm(true).await?,
        ];
        report.note(&format!("operate: round {i}: {row:.0?} ms"));
        if i > 0 || size.few == 1 {
            for (all, one) in times.iter_mut().zip(row) {
                all.push(one);
            }
        }
    }
    // Once: the server packs a shallow clone anew, which takes most of a minute.
    let shallow = bench.fresh(true).await?;
    let [ours, warm, fresh, ours_raced, warm_raced] = times.map(|t| median(&t));
    let name = format!("operate, press to pushed commit, {} files", size.files);
    let mut line = |name: &str, ours: f64, what: &str, other: f64, goal: Goal| {
        report.line(Line { name: name.to_owned(), unit: Unit::Ms, ours, other: Ok((what.to_owned(), other)), goal });
    };
    line(&name, ours, "git pull, edit, commit, push in a warm work tree", warm, Goal::Times(2.0));
    line(&name, ours, "the same with a fresh clone", fresh, Goal::Times(20.0));
    line(&name, ours, "the same with a fresh clone of depth 1", shallow, Goal::None);
    line(
        &format!("{name}, after somebody else's push"),
        ours_raced,
        "git pull, edit, commit, push in a warm work tree",
        warm_raced,
        Goal::Times(2.0),
    );
    Ok(())
}
