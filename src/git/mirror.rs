//! The bare mirror on disk: opened, made, made anew.

use std::path::Path;

use countersign_core::{Problem, Result};
use git2::{Config, Repository};

use super::access::Credentials;
use super::failure;

/// A mirror with more packs than this is made anew: every fetch adds one, and look-ups slow down.
const MAX_PACKS: usize = 400;

pub(super) fn mirror_problem(why: &str) -> Problem {
    Problem::new(
        "git.mirror",
        "The repository's mirror cannot be made.",
        "Check the state directory: space, owner, permissions.",
    )
    .with(failure::words(why, &Credentials::default(), Path::new("\0")))
}

/// Opens a mirror with its own configuration alone: what stands in the user's or the system's
/// (`insteadOf`, proxies, redirects) must not send a credential elsewhere.
pub(super) fn open_mirror(dir: &Path) -> Result<Repository> {
    let fail = |e: git2::Error| mirror_problem(e.message());
    let repo = Repository::open_bare(dir).map_err(fail)?;
    let config = Config::open(&dir.join("config")).map_err(fail)?;
    repo.set_config(&config).map_err(fail)?;
    Ok(repo)
}

/// Makes the mirror where there is none, or none that can be used as it is.
pub(super) fn prepare_mirror(dir: &Path, address: &str) -> Result<()> {
    if let Ok(repo) = open_mirror(dir) {
        let ours = repo.config().and_then(|c| c.get_string("countersign.url")).is_ok_and(|u| u == address);
        if ours && packs(dir) <= MAX_PACKS {
            return Ok(());
        }
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|e| mirror_problem(&e.to_string()))?;
    }
    let fail = |e: git2::Error| mirror_problem(e.message());
    let mut options = git2::RepositoryInitOptions::new();
    options.bare(true).mkpath(true).external_template(false).mode(git2::RepositoryInitMode::from_bits_truncate(0o700));
    Repository::init_opts(dir, &options).map_err(fail)?;
    let mut config = Config::open(&dir.join("config")).map_err(fail)?;
    config.set_str("http.followRedirects", "false").map_err(fail)?;
    config.set_str("countersign.url", address).map_err(fail)
}

fn packs(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir.join("objects/pack")) else { return 0 };
    entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "pack")).count()
}
