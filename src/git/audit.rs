//! What landed commits say of the journal, read offline from a mirror.

use std::path::Path;

use countersign_core::{Problem, Result};
use git2::{Repository, Sort};

use super::history::trailers;

/// Commits that are read at the most, newest first.
const LIMIT: usize = 20_000;

/// Commit ids with their `Countersign-Audit` trailer (`seq/hash`), from every ref of the mirror in
/// `dir`. No mirror: nothing. Only commits signed with `public_key` count: a trailer is text that
/// anybody who can push can write.
///
/// Errors: `git.mirror`.
pub fn audit_trailers(dir: &Path, public_key: &str) -> Result<Vec<(String, String)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let broken = |e: git2::Error| {
        Problem::new(
            "git.mirror",
            format!("A mirror cannot be read: {}.", e.message()),
            "Delete the mirror; it is made anew.",
        )
    };
    let Some(repo) = open(dir) else { return Ok(Vec::new()) };
    let mut walk = repo.revwalk().map_err(broken)?;
    walk.set_sorting(Sort::TIME).map_err(broken)?;
    walk.push_glob("refs/*").map_err(broken)?;
    let mut out = Vec::new();
    for id in walk.take(LIMIT).flatten() {
        let Ok(commit) = repo.find_commit(id) else { continue };
        if !signed_by(&repo, id, public_key) {
            continue;
        }
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        out.extend(trailers(&message, "Countersign-Audit").into_iter().map(|text| (id.to_string(), text)));
    }
    Ok(out)
}

fn signed_by(repo: &Repository, id: git2::Oid, public_key: &str) -> bool {
    let Ok((signature, content)) = repo.extract_signature(&id, None) else { return false };
    let Ok(signature) = std::str::from_utf8(&signature) else { return false };
    super::verify(super::NAMESPACE_GIT, &content, signature, &[public_key]).is_ok()
}

/// The mirror in this folder, or in the one folder below it.
fn open(dir: &Path) -> Option<Repository> {
    Repository::open_bare(dir)
        .ok()
        .or_else(|| std::fs::read_dir(dir).ok()?.flatten().find_map(|e| Repository::open_bare(e.path()).ok()))
}
