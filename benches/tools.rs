//! The real program, the daemon as a process of its own, and other programs on the path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use countersign::cli::demo::agent::Agent;
use countersign::sandbox::world::{REPO, World};

/// Whether a program can be started.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A running daemon; dropping it kills it.
pub struct Served {
    child: Child,
    /// MCP over HTTP.
    pub url: String,
}

impl Served {
    /// Starts it and waits until it listens.
    pub fn start(program: &Path, config: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "--http", "127.0.0.1:0", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("no standard error")?;
        let mut me = Self { child, url: String::new() };
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        for line in lines.by_ref() {
            let line = line?;
            if let Some(url) = line.strip_prefix("countersign: MCP at ") {
                url.clone_into(&mut me.url);
                // A full pipe would stop it.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(me);
            }
            said.push_str(&line);
        }
        bail!("the daemon ended at once: {said}")
    }

    /// A connected agent.
    pub async fn agent(&self, world: &World) -> Result<Agent> {
        Ok(Agent::connect(&self.url, &world.keys.agent_token).await?)
    }

    /// Resident memory in MiB.
    pub fn rss(&self) -> Result<f64> {
        rss_of(self.child.id())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process in MiB.
pub fn rss_of(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("only Linux tells memory in /proc")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Puts files on the main branch in one commit by `git fast-import`, as one pack.
pub fn import(world: &World, files: impl Iterator<Item = (String, String)>) -> Result<usize> {
    let dir = world.git.repos().path(REPO);
    let mut child = Command::new("git")
        .arg("-C")
        .arg(&dir)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut count = 0;
    {
        let mut out = std::io::BufWriter::new(child.stdin.take().context("no standard input")?);
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        write!(
            out,
            "commit refs/heads/main\ncommitter Anna <anna@example.test> {at} +0000\ndata 12\nchore: many\n\nfrom refs/heads/main^0\n"
        )?;
        for (path, text) in files {
            write!(out, "M 100644 inline {path}\ndata {}\n{text}\n", text.len())?;
            count += 1;
        }
        out.flush()?;
    }
    ensure!(child.wait()?.success(), "git fast-import failed");
    Ok(count)
}

/// Runs a shell command and gives its time and output.
pub fn shell(script: &str, env: &[(&str, &str)]) -> Result<(Duration, String)> {
    let started = Instant::now();
    let out = Command::new("sh").args(["-c", script]).envs(env.iter().copied()).output()?;
    let took = started.elapsed();
    ensure!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    Ok((took, String::from_utf8(out.stdout)?))
}
