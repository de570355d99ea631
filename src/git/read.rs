//! Reading trees; only the folders asked for are walked.

use std::collections::BTreeMap;

use countersign_core::{Problem, Result};
use git2::{ObjectType, Oid, Repository, Tree};

use super::failure;
use super::objects::{DirEntry, EntryKind, FileContent, ReadLimits, TreeFile};

/// Parses a full object id.
pub(crate) fn oid(text: &str) -> Result<Oid> {
    let full = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    full.then(|| Oid::from_str(text).ok()).flatten().ok_or_else(|| {
        Problem::new(
            "git.oid",
            format!("`{}` is not a full commit id.", text.escape_debug().take(80).collect::<String>()),
            "Give all 40 hex digits.",
        )
        .never()
    })
}

pub(crate) fn root<'r>(repo: &'r Repository, commit: &str) -> Result<Tree<'r>> {
    repo.find_commit(oid(commit)?)
        .and_then(|c| c.tree())
        .map_err(|e| failure::local(&format!("Reading commit {commit}"), &e))
}

/// Id and kind of what stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub kind: EntryKind,
    pub id: Oid,
}

/// Follows `path` part by part. `None` = nothing there; a symlink or submodule on the way is an error,
/// because what a reader of a checkout would see there is not in this tree.
pub(crate) fn find(repo: &Repository, root: &Tree<'_>, path: &str) -> Result<Option<Found>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|p| !p.is_empty()).collect();
    let mut here = Found { kind: EntryKind::Folder, id: root.id() };
    for (depth, part) in parts.iter().enumerate() {
        match here.kind {
            EntryKind::Folder => {}
            EntryKind::File | EntryKind::Executable => return Ok(None),
            EntryKind::Symlink | EntryKind::Submodule => {
                let at = parts.iter().take(depth).copied().collect::<Vec<_>>().join("/");
                return Err(through(&at, here.kind));
            }
        }
        let tree = repo.find_tree(here.id).map_err(|e| failure::local("Reading a folder", &e))?;
        match tree.get_name_bytes(part.as_bytes()) {
            None => return Ok(None),
            Some(e) => here = Found { kind: EntryKind::of(e.filemode_raw()), id: e.id() },
        }
    }
    Ok(Some(here))
}

fn through(at: &str, kind: EntryKind) -> Problem {
    let (code, what) =
        if kind == EntryKind::Symlink { ("git.symlink", "a symbolic link") } else { ("git.submodule", "a submodule") };
    Problem::new(code, format!("`{at}` is {what}; what lies behind it is not read or written."), "Name the real path.")
        .never()
}

fn content(repo: &Repository, found: Found, limits: &ReadLimits) -> Result<TreeFile> {
    let id = found.id.to_string();
    if found.kind == EntryKind::Submodule {
        return Ok(TreeFile { kind: found.kind, id, size: 0, content: FileContent::Submodule });
    }
    let fail = |e: git2::Error| failure::local(&format!("Reading blob {id}"), &e);
    let odb = repo.odb().map_err(fail)?;
    let (size, kind) = odb.read_header(found.id).map_err(fail)?;
    let size = size as u64;
    if kind != ObjectType::Blob {
        return Err(Problem::new(
            "git.failed",
            format!("Object {id} is not a blob."),
            "The repository is damaged; check it with `git fsck`.",
        ));
    }
    if size > limits.max_file_bytes {
        return Ok(TreeFile { kind: found.kind, id, size, content: FileContent::TooBig });
    }
    let bytes = odb.read(found.id).map_err(fail)?.data().to_vec();
    let content = if found.kind == EntryKind::Symlink { FileContent::Link(bytes) } else { FileContent::Bytes(bytes) };
    Ok(TreeFile { kind: found.kind, id, size, content })
}

/// One file; `None` = nothing there, or a folder.
pub(crate) fn blob(repo: &Repository, commit: &str, path: &str, limits: &ReadLimits) -> Result<Option<TreeFile>> {
    match find(repo, &root(repo, commit)?, path)? {
        None | Some(Found { kind: EntryKind::Folder, .. }) => Ok(None),
        Some(found) => content(repo, found, limits).map(Some),
    }
}

/// Kind of what stands at a path.
pub(crate) fn kind(repo: &Repository, commit: &str, path: &str) -> Result<Option<EntryKind>> {
    Ok(find(repo, &root(repo, commit)?, path)?.map(|f| f.kind))
}

/// Entries of one folder, in Git's order; `None` = no such folder.
pub(crate) fn list_dir(repo: &Repository, commit: &str, path: &str) -> Result<Option<Vec<DirEntry>>> {
    let Some(Found { kind: EntryKind::Folder, id }) = find(repo, &root(repo, commit)?, path)? else { return Ok(None) };
    let tree = repo.find_tree(id).map_err(|e| failure::local("Reading a folder", &e))?;
    let mut entries = Vec::with_capacity(tree.len());
    for e in &tree {
        let name = e.name().map_err(|_| encoding(path))?.to_owned();
        entries.push(DirEntry { name, kind: EntryKind::of(e.filemode_raw()), id: e.id().to_string() });
    }
    Ok(Some(entries))
}

fn encoding(folder: &str) -> Problem {
    Problem::new(
        "git.path_encoding",
        format!("A name in `{folder}/` is not UTF-8."),
        "Rename that file; names are read as UTF-8 only.",
    )
}

/// All files under a folder (or the file at that path), by full path. A missing folder is empty.
pub(crate) fn tree_files(
    repo: &Repository,
    commit: &str,
    prefix: &str,
    limits: &ReadLimits,
) -> Result<BTreeMap<String, TreeFile>> {
    let prefix = prefix.trim_matches('/');
    let mut out = BTreeMap::new();
    let Some(start) = find(repo, &root(repo, commit)?, prefix)? else { return Ok(out) };
    if start.kind != EntryKind::Folder {
        out.insert(prefix.to_owned(), content(repo, start, limits)?);
        return Ok(out);
    }
    let mut total = 0u64;
    let mut todo = vec![(prefix.to_owned(), start.id, 0usize)];
    while let Some((folder, id, depth)) = todo.pop() {
        if depth > limits.max_depth {
            return Err(too_many(prefix, "folders are nested too deeply"));
        }
        let tree = repo.find_tree(id).map_err(|e| failure::local("Reading a folder", &e))?;
        for e in &tree {
            let name = e.name().map_err(|_| encoding(&folder))?;
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let kind = EntryKind::of(e.filemode_raw());
            if kind == EntryKind::Folder {
                todo.push((path, e.id(), depth + 1));
                continue;
            }
            if out.len() >= limits.max_files {
                return Err(too_many(prefix, &format!("there are more than {} files", limits.max_files)));
            }
            let file = content(repo, Found { kind, id: e.id() }, limits)?;
            total += file.bytes().map_or(0, |b| b.len() as u64);
            if total > limits.max_total_bytes {
                return Err(too_many(prefix, &format!("the files hold more than {} bytes", limits.max_total_bytes)));
            }
            out.insert(path, file);
        }
    }
    Ok(out)
}

fn too_many(prefix: &str, why: &str) -> Problem {
    Problem::new(
        "git.too_many_files",
        format!("`{prefix}/` is too large to be read: {why}."),
        "Point the owner at a smaller folder, or raise the limit.",
    )
}

/// Paths whose entry (kind and id) differs between two trees; equal sub-trees are not entered.
pub(crate) fn changed_paths(repo: &Repository, a: Option<Oid>, b: Option<Oid>, limit: usize) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut todo = vec![(String::new(), a, b)];
    while let Some((folder, a, b)) = todo.pop() {
        if a == b {
            continue;
        }
        let mut pairs: BTreeMap<Vec<u8>, [Option<Found>; 2]> = BTreeMap::new();
        for (side, id) in [a, b].into_iter().enumerate() {
            let Some(id) = id else { continue };
            let tree = repo.find_tree(id).map_err(|e| failure::local("Comparing folders", &e))?;
            for e in &tree {
                if let Some(slot) = pairs.entry(e.name_bytes().to_vec()).or_default().get_mut(side) {
                    *slot = Some(Found { kind: EntryKind::of(e.filemode_raw()), id: e.id() });
                }
            }
        }
        for (name, [old, new]) in pairs {
            if old == new {
                continue;
            }
            let name = String::from_utf8_lossy(&name);
            let path = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
            let folder_of = |f: Option<Found>| f.filter(|f| f.kind == EntryKind::Folder).map(|f| f.id);
            let file_of = |f: Option<Found>| f.filter(|f| f.kind != EntryKind::Folder);
            if file_of(old) != file_of(new) {
                out.push(path.clone());
            }
            if folder_of(old) != folder_of(new) {
                todo.push((path, folder_of(old), folder_of(new)));
            }
            if out.len() > limit {
                return Err(Problem::new(
                    "git.too_many_files",
                    format!("More than {limit} paths differ."),
                    "Compare commits that lie closer together.",
                ));
            }
        }
    }
    out.sort();
    Ok(out)
}

/// Those of `paths` whose entry differs between two commits.
pub(crate) fn differing(repo: &Repository, a: &str, b: &str, paths: &[String]) -> Result<Vec<String>> {
    let (a, b) = (root(repo, a)?, root(repo, b)?);
    let mut out = Vec::new();
    for path in paths {
        if find(repo, &a, path)? != find(repo, &b, path)? {
            out.push(path.clone());
        }
    }
    Ok(out)
}
