//! Processes that outlive their starter, found again by pid file.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign_core::Result;

use super::parts::Part;
use super::{off, problem};

/// What there is to see of a component.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Component.
    pub name: String,
    /// Whether its process is there.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Its log.
    pub log: PathBuf,
}

pub(super) fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("logs").join(format!("{name}.log"))
}

fn pid_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("run").join(format!("{name}.pid"))
}

/// Fields of `/proc/PID/stat` after the command: state, and the start time (field 22), which tells a process from a
/// later one with the same number.
fn stat(pid: u32) -> Option<(char, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((rest.first()?.chars().next()?, (*rest.get(19)?).to_owned()))
}

/// The process of a pid file, if it is alive.
fn alive(dir: &Path, name: &str) -> Option<u32> {
    let text = fs::read_to_string(pid_file(dir, name)).ok()?;
    let (pid, born) = text.trim().split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let (state, since) = stat(pid)?;
    // A zombie only waits for its parent to look, once its last thread is gone: until then, its ports are taken.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count).unwrap_or(0);
    let over = matches!(state, 'Z' | 'X') && threads <= 1;
    (since == born && !over).then_some(pid)
}

pub(super) fn see(dir: &Path, name: &str) -> Seen {
    let pid = alive(dir, name);
    let status = pid.and_then(|p| fs::read_to_string(format!("/proc/{p}/status")).ok()).unwrap_or_default();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    Seen { name: name.into(), running: pid.is_some(), pid, rss_kib: rss.unwrap_or(0), log: log_file(dir, name) }
}

/// Takes a process that runs for a component, so that [`gone`] tells of it.
pub(super) fn adopt(dir: &Path, name: &str, pid: u32) -> Result<()> {
    let born = stat(pid).map(|s| s.1).unwrap_or_default();
    fs::write(pid_file(dir, name), format!("{pid} {born}\n")).map_err(|e| off(name)(&e))
}

/// Starts a component in a process group of its own, its output appended to its log.
pub(super) fn spawn(dir: &Path, part: &Part) -> Result<()> {
    if let Some(pid) = alive(dir, &part.name) {
        return Err(problem(format!("{} already runs as process {pid}.", part.name), "Stop it first."));
    }
    let failed = |e: std::io::Error| {
        problem(
            format!("{} could not be started: {e}.", part.name),
            format!("Is {} there? `tests/lab/build.sh` builds it, or Debian has it.", part.program.display()),
        )
    };
    let log = log_file(dir, &part.name);
    let out = File::options().create(true).append(true).open(&log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let child = Command::new(&part.program)
        .args(&part.args)
        .env_clear()
        .envs(part.env.iter().map(|(k, v)| (k, v)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let pid = child.id();
    let born = stat(pid).map(|s| s.1).unwrap_or_default();
    fs::write(pid_file(dir, &part.name), format!("{pid} {born}\n")).map_err(failed)?;
    // Reaped when it ends, so that its number does not stay taken while this process lives.
    std::thread::spawn(move || {
        let mut child = child;
        drop(child.wait());
    });
    Ok(())
}

/// Ends a component and waits until it is gone: SIGKILL, or SIGTERM first where that is `gentle`.
pub(super) async fn kill(dir: &Path, name: &str, gentle: bool) -> Result<()> {
    let Some(pid) = alive(dir, name) else { return Ok(()) };
    let signals: &[(&str, Duration)] = if gentle {
        &[("-TERM", Duration::from_secs(5)), ("-KILL", Duration::from_secs(10))]
    } else {
        &[("-KILL", Duration::from_secs(10))]
    };
    for (signal, patience) in signals {
        // The whole group: a repo server has gits of its own.
        let group = format!("-{pid}");
        let sent = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
        sent.map_err(|e| off("kill")(&e))?;
        let end = Instant::now() + *patience;
        while Instant::now() < end {
            if alive(dir, name).is_none() {
                drop(fs::remove_file(pid_file(dir, name)));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(problem(format!("{name} (process {pid}) does not end."), "Look at it with `ps`."))
}

/// Names of pid files that belong to no component.
pub(super) fn beside(dir: &Path, parts: &[Part]) -> Vec<String> {
    let files = fs::read_dir(dir.join("run")).into_iter().flatten().flatten();
    let names = files.filter_map(|f| Some(f.file_name().to_str()?.strip_suffix(".pid")?.to_owned()));
    let mut names: Vec<String> = names.filter(|n| !parts.iter().any(|p| p.name == *n)).collect();
    names.sort();
    names
}

/// The end of a log, for an error.
pub(super) fn tail(dir: &Path, name: &str) -> Vec<String> {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log_file(dir, name)) {
        let len = file.metadata().map(|m| m.len()).unwrap_or(0);
        drop(file.seek(SeekFrom::Start(len.saturating_sub(8_192))));
        drop(file.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(8)).map(|l| l.chars().take(300).collect()).collect()
}

/// Whether it has ended since it was started.
pub(super) fn gone(dir: &Path, name: &str) -> bool {
    alive(dir, name).is_none()
}
