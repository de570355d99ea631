//! The layers, read from the sources: a layer imports only lower ones.

use crate::sources::{Source, sources};

/// Folders and files of `src/` by layer, lowest first. What is not listed fails the test.
const LAYERS: [(&str, u8); 18] = [
    ("clock", 1),
    ("https", 1),
    ("git", 2),
    ("render", 2),
    ("cluster", 2),
    ("engine", 2),
    ("forge", 2),
    ("channel", 2),
    ("journal", 2),
    ("config", 3),
    ("pipeline", 4),
    ("server", 5),
    ("app", 6),
    ("cli", 7),
    ("main", 8),
    ("lib", 8),
    ("sandbox", 9),
    ("mod", 9),
];

/// Imports that go up, each with its reason. An entry that nobody needs any more fails.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Who may start other programs.
const STARTERS: [&str; 4] = ["src/render/", "src/cli/", "src/sandbox/", "src/pipeline/fault.rs"];

fn unit(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap();
    rest.split(['/', '.']).next().unwrap()
}

fn layer(unit: &str) -> u8 {
    LAYERS.iter().find(|(u, _)| *u == unit).unwrap_or_else(|| panic!("src/{unit} has no layer: add it to the table")).1
}

/// Every `crate::…` path of a source, with its line; nested `use` lists are opened one level.
fn imports(s: &Source) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (at, _) in s.code.match_indices("crate::") {
        let before = s.code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &s.code[at + 7..];
        let line = s.line(at);
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let end = list
                .find(|c| {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => return true,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    false
                })
                .unwrap();
            let mut depth = 0;
            for part in list[..end].split(|c| {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                c == ',' && depth == 0
            }) {
                out.push((line, part.trim().to_owned()));
            }
        } else {
            let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
            out.push((line, path));
        }
    }
    out.retain(|(_, p)| !p.is_empty());
    out
}

fn none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn a_layer_imports_only_lower_ones() {
    let mut wrong = Vec::new();
    let mut used = [false; EXCEPTIONS.len()];
    for s in sources(&["src"]) {
        let from = unit(&s.path);
        for (line, path) in imports(&s) {
            let to = path.split("::").next().unwrap();
            if to == from || (to != "sandbox" && layer(to) < layer(from)) {
                continue;
            }
            if to == "sandbox" && from == "cli" && matches!(s.path.as_str(), "src/cli/demo.rs" | "src/cli/sandbox.rs") {
                continue;
            }
            match EXCEPTIONS.iter().position(|(f, t, _)| *f == from && path.starts_with(t)) {
                Some(i) => used[i] = true,
                None => wrong.push(format!(
                    "{}:{line}: {from} (layer {}) imports {path} (layer {})",
                    s.path,
                    layer(from),
                    layer(to)
                )),
            }
        }
    }
    none(wrong, "a layer imports only lower ones");
    for ((from, to, _), used) in EXCEPTIONS.iter().zip(used) {
        assert!(used, "the exception {from} -> {to} is not needed any more");
    }
}

#[test]
fn edges_never_import_each_other() {
    const EDGES: [&str; 7] = ["git", "render", "cluster", "engine", "forge", "channel", "journal"];
    /// What their SDKs are built on, once for the process.
    const COMMON: &str = "https";
    for edge in EDGES {
        assert_eq!(layer(edge), 2, "{edge}");
    }
    let mut wrong = Vec::new();
    for s in sources(&["src"]) {
        let from = unit(&s.path);
        if EDGES.contains(&from) {
            wrong.extend(
                imports(&s)
                    .into_iter()
                    .filter(|(_, p)| ![Some(from), Some(COMMON)].contains(&p.split("::").next()))
                    .map(|(l, p)| format!("{}:{l}: {p}", s.path)),
            );
        }
    }
    none(wrong, "an edge imports the core and its SDK only");
}

#[test]
fn the_core_reads_no_clock_no_file_no_environment_and_no_network() {
    const OUTSIDE: [&str; 20] = [
        "tokio",
        "std::fs",
        "std::env",
        "std::net",
        "std::process",
        "std::thread",
        "std::os",
        "env!(",
        "SystemTime",
        "Instant::now",
        "Utc::now",
        "Local::now",
        "reqwest",
        "kube::",
        "git2",
        "sqlx",
        "rand::",
        "getrandom",
        "println!",
        "async fn",
    ];
    let mut wrong = Vec::new();
    for s in sources(&["core/src"]) {
        for word in OUTSIDE {
            wrong.extend(s.lines_with(word));
        }
        wrong.extend(s.lines_with("Ulid::generate").into_iter().chain(s.lines_with("Ulid::new()")));
    }
    none(wrong, "the core is pure");
    let manifest = std::fs::read_to_string(crate::sources::root().join("core/Cargo.toml")).unwrap();
    for sdk in ["tokio", "kube", "git2", "sqlx", "reqwest", "octocrab", "teloxide", "axum", "rmcp", "rand", "\"clock\""]
    {
        assert!(!manifest.contains(sdk), "core/Cargo.toml names {sdk}");
    }
}

#[test]
fn an_authorization_is_made_in_the_gate_and_nowhere_else() {
    let mut makers = Vec::new();
    for s in sources(&["core/src", "src"]) {
        for line in s.lines_with("Authorization {") {
            let made = !["struct Authorization {", "impl Authorization {", "-> Authorization {"]
                .iter()
                .any(|w| line.contains(w));
            if made {
                makers.push(line);
            }
        }
    }
    assert_eq!(makers.len(), 3, "authorize, withdraw and sweep: {makers:#?}");
    assert!(makers.iter().all(|m| m.starts_with("core/src/gate.rs:")), "{makers:#?}");
    let gate = sources(&["core/src"]).into_iter().find(|s| s.path == "core/src/gate.rs").unwrap().code;
    let (head, body) = gate.split_once("pub struct Authorization {").unwrap();
    let fields = body.split_once("\n}").unwrap().0;
    assert!(!fields.contains("pub"), "every field is private: {fields}");
    let derive = head.trim_end().lines().next_back().unwrap();
    assert_eq!(derive, "#[derive(Debug)]");
    for public in ["pub fn authorize(", "pub fn withdraw(", "pub fn sweep("] {
        assert_eq!(gate.matches(public).count(), 1);
    }
}

/// The arguments of every function of a source whose head begins like this.
fn arguments<'a>(s: &'a Source, head: &str) -> Vec<&'a str> {
    s.code.match_indices(head).map(|(at, _)| s.code[at..].split(')').next().unwrap()).collect()
}

#[test]
fn what_writes_to_the_world_takes_an_authorization() {
    let all = sources(&["src"]);
    let forge = all.iter().find(|s| s.path == "src/forge/mod.rs").unwrap();
    for name in ["open_pull", "comment", "merge", "close"] {
        let found = arguments(forge, &format!("    async fn {name}(&self"));
        let public = found.first().unwrap_or_else(|| panic!("Forge::{name} has another name now"));
        assert!(public.contains("&Authorization"), "Forge::{name}: {public}");
    }
    assert!(forge.code.contains("\ntrait Operations"), "what takes no authorization is private to the forge");
    let (mut pushes, mut unchecked) = (0, Vec::new());
    for s in all.iter().filter(|s| s.path.starts_with("src/git/")) {
        for head in ["pub async fn push", "pub async fn delete", "pub fn push", "pub fn delete"] {
            for args in arguments(s, head) {
                assert!(args.contains("&Authorization"), "{}: {args}", s.path);
                pushes += 1;
            }
        }
        unchecked.extend(s.lines_with("fn push_unchecked"));
    }
    assert_eq!(pushes, 3, "push, push_unless and delete_branch");
    assert!(unchecked.iter().all(|l| l.contains("pub(super)")), "{unchecked:?}");
    none(
        all.iter().filter(|s| !s.path.starts_with("src/git/")).flat_map(|s| s.lines_with("push_unchecked")).collect(),
        "only git pushes unchecked",
    );
}

#[test]
fn few_places_start_other_programs() {
    let mut wrong = Vec::new();
    for s in sources(&["src", "core/src"]) {
        if !STARTERS.iter().any(|p| s.path.starts_with(p)) {
            wrong.extend(s.lines_with("Command::new"));
        }
    }
    none(wrong, "only these start programs: render, cli, sandbox, pipeline/fault");
}

#[test]
fn nothing_but_tests_demo_and_sandbox_commands_uses_the_sandbox() {
    let mut wrong = Vec::new();
    for s in sources(&["src", "core/src"]) {
        if s.path.starts_with("src/sandbox/") || matches!(s.path.as_str(), "src/cli/demo.rs" | "src/cli/sandbox.rs") {
            continue;
        }
        wrong.extend(s.lines_with("crate::sandbox").into_iter().chain(s.lines_with("countersign::sandbox")));
    }
    none(wrong, "the product does not know the sandbox");
}

#[test]
fn the_import_reader_sees_every_form() {
    let s = Source { path: "src/x/mod.rs".into(), code: "use crate::git::{A, b::C};\nuse crate::{forge::D, journal::{E, F}};\nlet g = crate::cluster::h();\nnotcrate::i();".into() };
    let found: Vec<(usize, String)> = imports(&s);
    let names: Vec<&str> = found.iter().map(|(_, p)| p.trim_end_matches(':')).collect();
    assert_eq!(names, ["git", "forge::D", "journal::{E, F}", "cluster::h"]);
    assert_eq!(found[3].0, 3);
}
