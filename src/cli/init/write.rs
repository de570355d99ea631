//! Files are written all or none, and nothing that is there is touched.

use std::io::Write as _;
use std::path::Path;

use countersign_core::{Problem, Result};

use super::files::NewFile;

fn exists(path: &Path) -> Problem {
    Problem::new(
        "init.exists",
        format!("{} is there already, and init overwrites nothing.", path.display()),
        "Name another folder with --dir, or remove it yourself.",
    )
}

/// A folder that has a configuration already is left alone before anything is asked.
pub(super) fn untouched(dir: &Path) -> Result<()> {
    for name in ["countersign.yaml", "resources", "policies", "secrets"] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(exists(&path));
        }
    }
    Ok(())
}

/// Writes all of them or none: half a configuration would stand in the way of the next try.
pub(super) fn write(dir: &Path, new: &[NewFile]) -> Result<()> {
    let mut written = Vec::new();
    for f in new {
        let path = dir.join(&f.path);
        if let Err(e) = put(dir, &path, f) {
            for done in &written {
                let _ = std::fs::remove_file(done);
            }
            return Err(match e.kind() {
                std::io::ErrorKind::AlreadyExists => exists(&path),
                _ => Problem::new(
                    "init.unwritable",
                    format!("{} cannot be written: {e}.", path.display()),
                    "Name a folder that you may write with --dir.",
                ),
            });
        }
        written.push(path);
    }
    Ok(())
}

fn put(dir: &Path, path: &Path, f: &NewFile) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let mode = if f.path.starts_with("secrets/") { 0o700 } else { 0o755 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path.parent().unwrap_or(dir))?;
    let mode = if f.secret { 0o600 } else { 0o644 };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(f.text.as_bytes())
}
