//! kustomize as a subprocess: fixed arguments, no network, no plugins, limits.
//!
//! There is no renderer of our own. What the real program would fetch, run or read outside of the snapshot is
//! refused before it starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use countersign_core::manifest::{
    Files, KustomizationFile, MAX_RENDERED_BYTES, PathClass, kustomizations, named_path, path_check, rendered,
};
use countersign_core::{Problem, Result};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

#[cfg(test)]
mod tests;

/// Longest time that one build may take.
pub const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_STDERR: usize = 64 * 1024;

/// The real kustomize: its own program, or the one inside kubectl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kustomize {
    program: PathBuf,
    /// `build` or `kustomize`.
    verb: &'static str,
    timeout: Duration,
}

impl Kustomize {
    /// The configured program, else `kustomize`, else `kubectl` on the search path.
    pub fn find(configured: Option<&Path>) -> Option<Self> {
        if let Some(p) = configured {
            return is_program(p).then(|| Self::at(p.to_owned()));
        }
        ["kustomize", "kubectl"].iter().find_map(|name| on_path(name, std::env::var_os("PATH")?)).map(Self::at)
    }

    /// The same, or what to install.
    ///
    /// # Errors
    /// `render.kustomize_missing`.
    pub fn require(configured: Option<&Path>) -> Result<Self> {
        Self::find(configured).ok_or_else(|| {
            Problem::new(
                "render.kustomize_missing",
                "The owner's source is a kustomization, and there is no kustomize to prove the edit with.",
                "Install kustomize 5 (or kubectl 1.27 or later, which holds it) on the search path, or set its path in the configuration.",
            )
        })
    }

    fn at(program: PathBuf) -> Self {
        let kubectl = program.file_stem().is_some_and(|n| n.to_string_lossy().starts_with("kubectl"));
        Self { program, verb: if kubectl { "kustomize" } else { "build" }, timeout: TIMEOUT }
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Arguments with which it tells its version.
    pub fn version_args(&self) -> &'static [&'static str] {
        if self.verb == "build" { &["version"] } else { &["version", "--client"] }
    }

    /// The same program with another limit of time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Builds `root` out of a snapshot of regular files and reads the objects.
    ///
    /// # Errors
    /// `render.plugin`, `render.unknown_field`, `kustomization.*` before the start; `render.failed` with the program's
    /// own words, `render.timeout`, `render.too_large`, `render.start`.
    pub async fn render(&self, files: &Files, root: &str) -> Result<Vec<Value>> {
        let layers = kustomizations(files, root)?;
        let restrictor = check(&layers)?;
        let dir = write(files).await?;
        let out = self.run(dir.path(), root, restrictor).await;
        // Removing thousands of files is not this call's to wait for.
        drop(tokio::task::spawn_blocking(move || drop(dir)));
        rendered(&out?)
    }

    async fn run(&self, dir: &Path, root: &str, restrictor: &str) -> Result<Vec<u8>> {
        let tree = dir.join("tree");
        let mut command = Command::new(&self.program);
        command
            .arg(self.verb)
            .arg("--load-restrictor")
            .arg(restrictor)
            .arg(tree.join(root))
            .current_dir(&tree)
            .env_clear()
            .envs(environment(dir))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| {
            Problem::new(
                "render.start",
                format!("kustomize could not be started: {}.", e.kind()),
                "Check the configured program.",
            )
            .later()
        })?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Problem::new("render.start", "kustomize has no output.", "Try again.").later());
        };
        let work = async {
            let (out, err) = tokio::join!(capped(stdout, MAX_RENDERED_BYTES), capped(stderr, MAX_STDERR));
            let out = out?;
            let status = child.wait().await.ok();
            Some((out, err.unwrap_or_default(), status.is_some_and(|s| s.success())))
        };
        match tokio::time::timeout(self.timeout, work).await {
            Err(_) => Err(Problem::new(
                "render.timeout",
                format!("kustomize took longer than {} seconds.", self.timeout.as_secs()),
                "Try again; if it happens again, make the kustomization smaller.",
            )
            .later()),
            Ok(None) => Err(Problem::new(
                "render.too_large",
                format!("kustomize printed more than {MAX_RENDERED_BYTES} bytes."),
                "Give the owner a smaller path.",
            )),
            Ok(Some((out, _, true))) => Ok(out),
            Ok(Some((_, err, false))) => Err(failed(&err, dir)),
        }
    }
}

/// Nothing of ours reaches the program. It finds no git to fetch with, and web addresses lead to a closed port.
fn environment(dir: &Path) -> Vec<(&'static str, OsString)> {
    let home = dir.join("home");
    let nowhere = OsString::from("http://127.0.0.1:9");
    vec![
        ("PATH", home.join("bin").into_os_string()),
        ("HOME", home.clone().into_os_string()),
        ("XDG_CONFIG_HOME", home.clone().into_os_string()),
        ("TMPDIR", home.into_os_string()),
        ("HTTP_PROXY", nowhere.clone()),
        ("HTTPS_PROXY", nowhere.clone()),
        ("ALL_PROXY", nowhere),
        ("GOMEMLIMIT", "512MiB".into()),
        ("GOMAXPROCS", "2".into()),
        ("LC_ALL", "C".into()),
    ]
}

/// Reads everything up to a limit; `None` beyond it.
async fn capped(from: impl AsyncRead + Unpin, limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    from.take(most).read_to_end(&mut out).await.ok()?;
    (out.len() <= limit).then_some(out)
}

fn failed(stderr: &[u8], dir: &Path) -> Problem {
    let dir = dir.to_string_lossy();
    let text = String::from_utf8_lossy(stderr);
    let words = text
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with("# Warning"))
        .take(5)
        .map(|l| l.replace(&format!("{dir}/tree/"), "").replace(&format!("{dir}/tree"), "/").replace(dir.as_ref(), ""))
        .map(|l| l.chars().take(300).collect::<String>());
    Problem::new(
        "render.failed",
        "kustomize cannot build the owner's source.",
        "Correct what kustomize says, then try again.",
    )
    .with_all(words)
}

/// Refuses what would run, fetch or read more than the files named; says how strict kustomize may be.
fn check(layers: &[KustomizationFile]) -> Result<&'static str> {
    let mut outside = false;
    for l in layers {
        if let Some(field) = l.content.runs.first() {
            return Err(Problem::new(
                "render.plugin",
                format!("{} uses {field}, which runs charts or plugins.", l.path),
                "Let a person make this change, or remove the plugin.",
            ));
        }
        if let Some(field) = l.content.unknown.first() {
            return Err(Problem::new(
                "render.unknown_field",
                format!("{} has the field {field}, which kustomize does not spell like that.", l.path),
                "Correct the kustomization file.",
            ));
        }
        let beside = |p: &String| {
            named_path(&l.dir, p).is_some_and(|n| {
                let is_layer = layers.iter().any(|o| o.dir == n);
                !is_layer && !l.dir.is_empty() && !n.starts_with(&format!("{}/", l.dir))
            })
        };
        outside |= l.content.paths.iter().any(beside);
    }
    // Files beside the kustomization's own folder are what Flux allows and kustomize by itself does not; every path
    // was checked to stay inside the snapshot.
    Ok(if outside { "LoadRestrictionsNone" } else { "LoadRestrictionsRootOnly" })
}

/// Writes the snapshot into a folder of its own.
async fn write(files: &Files) -> Result<tempfile::TempDir> {
    let files = files.clone();
    let disk = |e: std::io::Error| {
        Problem::new(
            "render.disk",
            format!("The snapshot could not be written: {}.", e.kind()),
            "Check the space for temporary files.",
        )
        .later()
    };
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::Builder::new().prefix("countersign-render-").tempdir().map_err(disk)?;
        std::fs::create_dir_all(dir.path().join("home/bin")).map_err(disk)?;
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).map_err(disk)?;
        for (path, bytes) in &files {
            if matches!(path_check(path, 0o100_644, &[]), PathClass::Refused(_)) {
                continue;
            }
            let to = tree.join(path);
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(disk)?;
            }
            std::fs::write(&to, bytes).map_err(disk)?;
        }
        Ok(dir)
    })
    .await
    .map_err(|_| Problem::new("render.disk", "Writing the snapshot was cut short.", "Try again.").later())?
}

/// The first program of this name on a search path.
pub(crate) fn on_path(name: &str, path: OsString) -> Option<PathBuf> {
    std::env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join(name)).find(|p| is_program(p))
}

fn is_program(p: &Path) -> bool {
    let Ok(meta) = std::fs::metadata(p) else { return false };
    #[cfg(unix)]
    let runs = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runs = true;
    meta.is_file() && runs
}
