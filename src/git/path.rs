//! Names that may be written into a tree. Defence in depth: libgit2 refuses some of these itself.

use countersign_core::{Problem, Result};

const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// Refuses paths that another Git, another file system or another reader would take for something
/// else: `..`, absolute, backslashes, control characters, `.git` and `.gitmodules` in every disguise
/// (git: `path.c` `is_ntfs_dotgit`, `utf8.c` `is_hfs_dotgit`, `fsck.c`).
///
/// Errors: `git.path`.
pub fn check_path(path: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Problem::new(
            "git.path",
            format!("The path `{}` may not be written: {why}.", path.escape_debug().take(200).collect::<String>()),
            "Choose a plain relative path with ordinary names.",
        )
        .never())
    };
    if path.is_empty() || path.len() > MAX_PATH {
        return refuse("it is empty or too long");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return refuse("it holds a backslash or a control character");
    }
    for name in path.split('/') {
        if let Some(why) = refused_name(name) {
            return refuse(why);
        }
    }
    Ok(())
}

fn refused_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is absolute or has an empty part");
    }
    if name.len() > MAX_NAME {
        return Some("a part is longer than 255 bytes");
    }
    if name == "." || name == ".." {
        return Some("it has a part `.` or `..`");
    }
    if name.chars().any(is_ignorable) {
        return Some("it holds invisible characters");
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Some("a part starts with a space or ends with a dot or a space");
    }
    if name.contains(':') {
        return Some("it holds a colon");
    }
    let lower = name.to_lowercase();
    if matches!(lower.as_str(), ".git" | ".gitmodules" | ".gitattributes") {
        return Some("Git itself reads that name");
    }
    is_short_name(&lower).then_some("it is a short name (8.3) of something that Git reads")
}

/// Characters that HFS+ ignores when it compares names, and further invisible ones.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// `git~1`, `gitmod~1` to `~4`, `gitatt~1`, and NTFS's hashed forms `gi7eba~1`, `gi7d29~1`.
fn is_short_name(lower: &str) -> bool {
    let Some((stem, number)) = lower.split_once('~') else { return false };
    let number = number.split('.').next().unwrap_or_default();
    let numbered = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    numbered && (stem.starts_with("git") || stem.starts_with("gi7eba") || stem.starts_with("gi7d29"))
}

/// A branch's full ref (`refs/heads/…`).
///
/// Errors: `git.ref`.
pub(crate) fn check_ref(git_ref: &str) -> Result<()> {
    let fine = git_ref.starts_with("refs/heads/")
        && git2::Reference::is_valid_name(git_ref)
        && !git_ref.contains('*')
        && !git_ref.trim_start_matches("refs/heads/").starts_with('-');
    if fine {
        return Ok(());
    }
    Err(Problem::new(
        "git.ref",
        format!("`{}` is not a branch's full ref.", git_ref.escape_debug()),
        "Name a branch, as refs/heads/NAME.",
    )
    .never())
}

/// `main` and `refs/heads/main` alike, as full ref.
pub(crate) fn branch_ref(branch: &str) -> Result<String> {
    let full = if branch.starts_with("refs/heads/") { branch.to_owned() } else { format!("refs/heads/{branch}") };
    check_ref(&full)?;
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_names_are_refused_and_ordinary_ones_pass() {
        let bad = [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../a",
            "a/./b",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            ".git",
            ".git/config",
            "a/.git/hooks/x",
            ".GIT",
            ".Git/x",
            "a/.giT",
            "git~1",
            "GIT~1",
            "x/git~2",
            "GIT~1.txt",
            ".git.",
            ".git ",
            ".git...",
            ".git. .",
            ".git::$INDEX_ALLOCATION",
            "a:b",
            ".git\u{200c}",
            ".g\u{200d}it",
            "\u{feff}.git",
            ".gi\u{202e}t",
            ".gitmodules",
            ".GITMODULES",
            ".gitmodules ",
            ".gitmodules.",
            ".gitmod\u{200c}ules",
            "gitmod~1",
            "GITMOD~4",
            "gi7eba~1",
            "GI7EBA~9",
            ".gitattributes",
            "gitatt~1",
            "gi7d29~1",
            "a ",
            " a",
            "a.",
            "a/b./c",
            "x\u{ad}y",
            "k\u{1b}[31m",
            "C:/x",
            "\u{e0041}a",
            "a\tb",
        ];
        for name in bad {
            assert!(check_path(name).is_err(), "{name:?} passed");
        }
        assert!(check_path(&"a".repeat(256)).is_err());
        assert!(check_path(&"a/".repeat(3000)).is_err());
        for name in [
            "a",
            "apps/shop/deploy.yaml",
            ".github/x.yml",
            "..a",
            "a..b",
            ".gitignore",
            "git",
            "digit~",
            "ünï/çode.yaml",
            "a b/c",
            "x~y",
        ] {
            assert!(check_path(name).is_ok(), "{name:?} refused");
        }
    }

    #[test]
    fn only_branches_are_refs_that_may_be_written() {
        for r in ["refs/heads/main", "refs/heads/countersign/01J-r1"] {
            assert!(check_ref(r).is_ok());
        }
        for r in [
            "main",
            "refs/tags/v1",
            "refs/heads/",
            "refs/heads/a..b",
            "refs/heads/*",
            "refs/heads/-x",
            "refs/heads/a b",
            "HEAD",
            "refs/heads/x.lock",
        ] {
            assert!(check_ref(r).is_err(), "{r}");
        }
        assert_eq!(branch_ref("main").unwrap(), "refs/heads/main");
    }
}
