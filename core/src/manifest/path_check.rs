//! Which paths may be written at all (security-reliability T14 to T17).

use crate::error::Problem;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathClass {
    /// An ordinary file.
    Plain,
    /// Written by people only; why.
    Privileged(String),
    /// Never written.
    Refused(Problem),
}

const LONGEST_PATH: usize = 1024;
const LONGEST_NAME: usize = 255;

fn refuse(path: &str, why: &str) -> PathClass {
    let shown: String = path.chars().take(200).flat_map(char::escape_default).collect();
    PathClass::Refused(
        Problem::new("manifest.path_refused", format!("\"{shown}\" is not written: {why}."), "Choose another path.")
            .never(),
    )
}

/// Characters that HFS+ ignores in names, so that `.g\u{200c}it` opens `.git` (git: utf8.c, next_hfs_char).
fn ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// `.git` under any disguise that a file system would see through (git: read-cache.c, path.c).
fn is_git_dir(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !ignored_by_hfs(*c)).flat_map(char::to_lowercase).collect();
    let plain = plain.split(':').next().unwrap_or("");
    let plain = plain.trim_end_matches(['.', ' ']);
    let short = plain.strip_prefix("git~").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    plain == ".git" || short
}

/// Files in which Git itself reads orders.
fn is_git_file(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !ignored_by_hfs(*c)).flat_map(char::to_lowercase).collect();
    let plain = plain.trim_end_matches(['.', ' ']);
    let short = ["gitmod~", "gitatt~", "gitign~", "gi7eba~", "gi7d29~"].iter().any(|p| plain.starts_with(p));
    short || [".gitmodules", ".gitattributes", ".gitignore", ".mailmap", ".lfsconfig"].contains(&plain)
}

/// Names that Windows opens as devices.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or("").trim_end().to_ascii_lowercase();
    let numbered =
        |p: &str| stem.strip_prefix(p).is_some_and(|n| n.len() == 1 && n.bytes().all(|b| (b'1'..=b'9').contains(&b)));
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul" | "conin$" | "conout$") || numbered("com") || numbered("lpt")
}

/// Judges a path and its file mode before it is written. `privileged` adds path prefixes that people alone write
/// (Countersign's own policies).
pub fn path_check(path: &str, mode: u32, privileged: &[String]) -> PathClass {
    match mode {
        0o100_644 | 0o100_755 => {}
        0o120_000 => return refuse(path, "it is a symbolic link"),
        0o160_000 => return refuse(path, "it is a submodule"),
        _ => return refuse(path, "it is not a regular file"),
    }
    if path.is_empty() || path.len() > LONGEST_PATH {
        return refuse(path, "it is empty or too long");
    }
    if path.starts_with('/') || path.get(1..2) == Some(":") {
        return refuse(path, "it is absolute");
    }
    for name in path.split('/') {
        if let Some(why) = bad_name(name) {
            return refuse(path, why);
        }
    }
    match privileged_why(path, privileged) {
        Some(why) => PathClass::Privileged(why),
        None => PathClass::Plain,
    }
}

fn bad_name(name: &str) -> Option<&'static str> {
    let invisible = |c: char| {
        c.is_control()
            || ignored_by_hfs(c)
            || matches!(c, '\u{ad}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
    };
    if name.is_empty() || name == "." {
        return Some("it has an empty part");
    }
    if name == ".." {
        return Some("it leads out of its folder");
    }
    if name.len() > LONGEST_NAME {
        return Some("one of its parts is too long");
    }
    if is_git_dir(name) {
        return Some("it leads into .git");
    }
    if is_git_file(name) {
        return Some("Git itself obeys that file");
    }
    if name.contains('\\') {
        return Some("it has a backslash");
    }
    if name.chars().any(invisible) {
        return Some("it has control or invisible characters");
    }
    if name.contains(['<', '>', ':', '"', '|', '?', '*']) {
        return Some("it has a character that some file systems give a meaning");
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Some("one of its parts begins or ends with a space or ends with a dot");
    }
    if is_device(name) {
        return Some("one of its parts is the name of a device");
    }
    None
}

fn privileged_why(path: &str, extra: &[String]) -> Option<String> {
    let lower = path.to_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    let name = parts.last().copied().unwrap_or("");
    let dir = |d: &str| parts.iter().rev().skip(1).any(|p| *p == d);
    let ci_dirs = [
        ".github",
        ".gitlab",
        ".gitea",
        ".forgejo",
        ".circleci",
        ".buildkite",
        ".woodpecker",
        ".azure-pipelines",
        ".tekton",
        ".drone",
    ];
    if let Some(d) = ci_dirs.iter().find(|d| dir(d)) {
        return Some(format!("CI and forge settings ({d})"));
    }
    if dir(".countersign") || dir(".husky") || dir(".vscode") || dir(".devcontainer") {
        return Some("tools run what it says".to_owned());
    }
    let stem_of = |p: &str| name == p || name.strip_prefix(p).is_some_and(|r| r.starts_with('.'));
    let ci_files = [
        ".gitlab-ci.yml",
        ".gitlab-ci.yaml",
        ".travis.yml",
        ".drone.yml",
        ".drone.yaml",
        ".woodpecker.yml",
        ".woodpecker.yaml",
        "azure-pipelines.yml",
        "bitbucket-pipelines.yml",
        "cloudbuild.yaml",
        "cloudbuild.yml",
        "buildspec.yml",
        ".pre-commit-config.yaml",
        "skaffold.yaml",
        "renovate.json",
        ".renovaterc",
        ".renovaterc.json",
        "dependabot.yml",
    ];
    if ci_files.contains(&name) || name.ends_with(".gitlab-ci.yml") {
        return Some("CI runs what it says".to_owned());
    }
    if stem_of("jenkinsfile")
        || stem_of("makefile")
        || name == "gnumakefile"
        || name.ends_with(".mk")
        || name == "justfile"
        || name == "tiltfile"
        || name.starts_with("taskfile.")
        || stem_of("dockerfile")
        || stem_of("containerfile")
        || name.ends_with(".sh")
    {
        return Some("build tools run what it says".to_owned());
    }
    if name == "codeowners" || name == "owners" || name == "owners_aliases" {
        return Some("it says who must review".to_owned());
    }
    if name == ".sops.yaml" || name == ".sops.yml" {
        return Some("it says for whom secrets are encrypted".to_owned());
    }
    if (dir("flux-system") && (name.starts_with("gotk-") || name.starts_with("kustomization.")))
        || name.starts_with("gotk-")
    {
        return Some("Flux itself is installed from it".to_owned());
    }
    if name.starts_with(".argocd-source") || name.starts_with(".argocd-allow") {
        return Some("it overrides the Application".to_owned());
    }
    if name == "countersign.yaml" || name == "countersign.yml" || name == "countersign.toml" {
        return Some("Countersign's own settings".to_owned());
    }
    extra
        .iter()
        .map(|p| p.trim_matches('/').to_lowercase())
        .find(|p| !p.is_empty() && (lower == *p || lower.strip_prefix(p.as_str()).is_some_and(|r| r.starts_with('/'))))
        .map(|p| format!("the configuration keeps {p} for people"))
}
