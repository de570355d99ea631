//! The project's own sources, as text, for the tests that read them.

use std::path::{Path, PathBuf};

/// One file without its tests and comments.
pub struct Source {
    /// Path from the repository's root (`src/git/mod.rs`).
    pub path: String,
    /// Code: unit tests, comments and the content of nothing else left out; line numbers kept.
    pub code: String,
}

impl Source {
    /// Line number of a byte.
    pub fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// `path:line: text` of every line that holds `word`.
    pub fn lines_with(&self, word: &str) -> Vec<String> {
        self.code
            .lines()
            .enumerate()
            .filter(|(_, l)| l.contains(word))
            .map(|(i, l)| format!("{}:{}: {}", self.path, i + 1, l.trim()))
            .collect()
    }
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every source below `dirs` that is part of the product.
pub fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for dir in dirs {
        files(&root().join(dir), &mut paths);
    }
    paths.sort();
    let product: Vec<Source> = paths
        .iter()
        .map(|p| (p.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), p))
        .filter(|(path, _)| !path.contains("/tests/") && !path.ends_with("tests.rs"))
        .map(|(path, p)| Source { path, code: strip(&std::fs::read_to_string(p).unwrap()) })
        .collect();
    assert!(product.len() > 20, "the sources are not where they are looked for");
    product
}

/// Takes out comments, and every item under `#[cfg(test)]`; keeps the lines.
pub fn strip(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut skip_to: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim();
        if let Some(depth) = skip_to {
            // An item ends with a line at its own depth that closes it, or that is all of it.
            if indent == depth
                && (word == "}" || word.ends_with(';') || (word.ends_with('}') && !word.starts_with("#[")))
            {
                skip_to = None;
            }
        } else if word == "#[cfg(test)]" {
            skip_to = Some(indent);
        } else if !word.starts_with("//") {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

#[test]
fn stripping_takes_tests_and_comments_and_nothing_else() {
    let text = "//! a\nuse x;\n#[cfg(test)]\nmod tests;\nfn f() {\n    // b\n    g()\n}\n#[cfg(test)]\nmod tests {\n    fn h() {\n    }\n}\nfn i() {}\n    #[cfg(test)]\n    fn j() {\n        k()\n    }\nlast\n";
    let left = strip(text);
    let words: Vec<&str> = left.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(words, ["use x;", "fn f() {", "g()", "}", "fn i() {}", "last"]);
    assert_eq!(strip(text).lines().count(), text.lines().count());
}
