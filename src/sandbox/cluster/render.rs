//! From the files of a commit to objects: plain directories, and kustomizations through the real program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::json::{list, text};

/// Files of a tree by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// One YAML document as JSON.
pub fn yaml(source: &str) -> Result<Value, String> {
    documents(source)?.into_iter().next().ok_or_else(|| "empty document".to_owned())
}

/// All documents that hold something; a `List` is taken apart.
pub fn documents(source: &str) -> Result<Vec<Value>, String> {
    let parsed: Vec<Value> = serde_saphyr::from_multiple(source).map_err(|error| first_line(&error.to_string()))?;
    let mut objects = Vec::new();
    for document in parsed {
        if document.is_null() {
            continue;
        }
        if text(&document, &["kind"]) == "List" {
            objects.extend(list(&document, &["items"]).iter().cloned());
        } else {
            objects.push(document);
        }
    }
    Ok(objects)
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// The files below a folder (`.` for all), with paths relative to it.
pub fn below(files: &Files, folder: &str) -> Files {
    let folder = clean(folder);
    files
        .iter()
        .filter_map(|(path, bytes)| {
            let inside =
                if folder.is_empty() { Some(path.as_str()) } else { path.strip_prefix(&folder)?.strip_prefix('/') };
            inside.map(|inside| (inside.to_owned(), bytes.clone()))
        })
        .collect()
}

/// `./a/b/` as `a/b`.
pub fn clean(folder: &str) -> String {
    folder.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// Names under which kustomize looks for a folder's kustomization.
pub const KUSTOMIZATION_FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Whether a folder is a kustomization.
pub fn is_kustomization(files: &Files) -> bool {
    KUSTOMIZATION_FILES.iter().any(|name| files.contains_key(*name))
}

fn is_manifest(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// Whether Argo CD passes over a YAML file that it cannot parse: where no document before the broken one could be read
/// and the text does not look like an object (argo-cd: reposerver/repository/repository.go). Flux never does.
pub fn passed_over(path: &str, bytes: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(bytes) else { return false };
    let first = source.split("\n---").next().unwrap_or_default();
    let looks_like_an_object = ["apiVersion:", "kind:", "metadata:"].iter().all(|word| source.contains(word));
    !path.ends_with(".json") && !looks_like_an_object && documents(first).is_err()
}

/// The manifests of a plain folder; the failure names the file and what is wrong with it.
pub fn plain(files: &Files, recurse: bool) -> Result<Vec<Value>, (String, String)> {
    let mut objects = Vec::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_manifest(path) && (recurse || !path.contains('/'))) {
        let source = std::str::from_utf8(bytes).map_err(|_| (path.clone(), "not UTF-8".to_owned()))?;
        let found = documents(source).map_err(|message| (path.clone(), message))?;
        // Files without a kind are values or configuration of other tools; Argo skips them too.
        objects.extend(
            found
                .into_iter()
                .filter(|object| !text(object, &["kind"]).is_empty() && !text(object, &["apiVersion"]).is_empty()),
        );
    }
    Ok(objects)
}

/// Runs the real kustomize on a folder of the whole tree.
pub async fn kustomize(files: &Files, folder: &str) -> Result<Vec<Value>, String> {
    let whole = files.clone();
    let folder = clean(folder);
    let scratch = tokio::task::spawn_blocking(move || write_out(&whole)).await.map_err(|error| error.to_string())??;
    let target = scratch.path().join(&folder);
    let mut last = "neither kustomize nor kubectl is installed".to_owned();
    for (program, arguments) in [("kustomize", vec!["build"]), ("kubectl", vec!["kustomize"])] {
        let run = tokio::process::Command::new(program)
            .args(arguments)
            .arg(&target)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match run {
            Ok(output) if output.status.success() => {
                return documents(&String::from_utf8_lossy(&output.stdout));
            }
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(words.replace(&*scratch.path().to_string_lossy(), "<path to cached source>"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn write_out(files: &Files) -> Result<tempfile::TempDir, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    for (path, bytes) in files {
        let path = safe_join(scratch.path(), path).ok_or_else(|| format!("{path} leaves the tree"))?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        std::fs::write(path, bytes).map_err(|error| error.to_string())?;
    }
    Ok(scratch)
}

fn safe_join(root: &Path, path: &str) -> Option<PathBuf> {
    path.split('/').all(|part| !part.is_empty() && part != "..").then(|| root.join(path))
}
