//! `connect`: what an MCP client needs to know, printed, or added to its file.
//!
//! Another entry of that file is never touched: the new text is proved to hold the old values and this one entry,
//! and what cannot be proved is refused with the text to paste. Places and shapes are those of the clients' own
//! documentation (code.claude.com/docs/en/mcp, cursor.com/docs/mcp, code.visualstudio.com mcp-configuration,
//! geminicli.com mcp-server, docs.windsurf.com cascade/mcp, zed.dev/docs/ai/mcp, Codex config.toml), November 2026.

mod clients;
mod jsonc;
mod toml;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use countersign_core::manifest::unified_diff;
use countersign_core::{Problem, Result};

use crate::config::Config;
use clients::{Client, Entry, Places, Reach};

/// Arguments of `connect`.
#[derive(Debug, Args)]
pub struct Connect {
    /// Which client.
    #[arg(value_enum)]
    client: Client,
    /// Agent that the client is; default: `stdio_agent` of the configuration.
    #[arg(long, conflicts_with = "http")]
    agent: Option<String>,
    /// Reach the daemon here over HTTP (`https://countersign.example/mcp`) instead of starting a bridge.
    #[arg(long)]
    http: Option<String>,
    /// Environment variable of the client that holds the agent's token (with --http).
    #[arg(long, default_value = "COUNTERSIGN_TOKEN")]
    token_env: String,
    /// Name of the entry.
    #[arg(long, default_value = "countersign")]
    name: String,
    /// The client's file, where it is not at its usual place.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Add the entry to the client's file, after showing what.
    #[arg(long)]
    write: bool,
    /// Do not ask before writing.
    #[arg(long, requires = "write")]
    yes: bool,
}

/// Runs `connect`.
pub fn run(config: &Path, args: Connect) -> Result<ExitCode> {
    let entry = Entry { name: plain("--name", &args.name)?, reach: reach(config, &args)? };
    let text = args.client.text(&entry)?;
    let file = args.file.clone().or_else(|| args.client.place(&Places::of_this_user()));
    if !args.write {
        match &file {
            Some(file) => println!("# {}: {}", args.client.title(), file.display()),
            None => println!("# {}", args.client.title()),
        }
        println!("{}", text.trim_end());
        for note in args.client.notes(&entry) {
            eprintln!("{note}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(file) = file else {
        return Err(Problem::new(
            "connect.no_file",
            "It is not known where this client keeps its configuration.",
            "Name the file with --file, or paste what `connect` prints without --write.",
        ));
    };
    write(&file, &args, &entry, &text)
}

fn reach(config: &Path, args: &Connect) -> Result<Reach> {
    if let Some(url) = &args.http {
        let parsed = url::Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let clean = parsed.filter(|u| u.username().is_empty() && u.password().is_none());
        let Some(url) = clean else {
            return Err(Problem::new(
                "connect.url",
                "The address is no http(s) address, or holds a credential.",
                "Write --http https://HOST/mcp; the token stays in an environment variable.",
            ));
        };
        return Ok(Reach::Http { url: url.to_string(), token_env: plain("--token-env", &args.token_env)? });
    }
    let loaded = Config::load(config)?;
    let agent = loaded.stdio_agent(args.agent.as_deref())?;
    let failed = |e: std::io::Error| unwritable(config, &e);
    let absolute = |p: &Path| std::path::absolute(p).map(|p| p.to_string_lossy().into_owned());
    let program = std::env::current_exe().map_err(failed)?;
    Ok(Reach::Stdio { program: absolute(&program).map_err(failed)?, config: absolute(config).map_err(failed)?, agent })
}

/// Names go into JSON, TOML and shells: nothing that could mean something there.
fn plain(what: &str, name: &str) -> Result<String> {
    let ok = !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if ok {
        return Ok(name.to_owned());
    }
    Err(Problem::new("connect.name", format!("{what} may hold letters, digits, _ and - only."), "Choose another one."))
}

fn unwritable(file: &Path, e: &std::io::Error) -> Problem {
    Problem::new(
        "connect.unwritable",
        format!("{} cannot be read or written: {e}.", file.display()),
        "Correct its permissions, or paste what `connect` prints without --write.",
    )
}

fn write(file: &Path, args: &Connect, entry: &Entry, text: &str) -> Result<ExitCode> {
    if let Some(problem) = args.client.unwritable(entry) {
        return Err(problem.with(text.trim_end().to_owned()));
    }
    // A link is followed, not replaced.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let before = match std::fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(unwritable(&file, &e)),
    };
    let merged = args.client.merge(before.as_deref().unwrap_or_default(), entry);
    let after = match merged {
        Ok(Some(after)) => after,
        Ok(None) => {
            println!("{} has this entry already.", file.display());
            return Ok(ExitCode::SUCCESS);
        }
        Err(problem) => return Err(problem.with(text.trim_end().to_owned())),
    };
    let shown = file.to_string_lossy();
    print!(
        "{}",
        unified_diff(shown.trim_start_matches('/'), before.as_deref().map(str::as_bytes), Some(after.as_bytes()))
    );
    if !args.yes && !super::people::confirmed(&format!("Write {shown}"))? {
        println!("Nothing was written.");
        return Ok(ExitCode::from(1));
    }
    let backup = put(&file, before.as_deref(), &after).map_err(|e| unwritable(&file, &e))?;
    match backup {
        Some(backup) => println!("Written. The file as it was: {}", backup.display()),
        None => println!("Written."),
    }
    for note in args.client.notes(entry) {
        println!("{note}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces a file in one step, with what it held kept beside it.
pub(super) fn put(file: &Path, before: Option<&str>, after: &str) -> std::io::Result<Option<PathBuf>> {
    let dir = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let backup = match before {
        None => None,
        Some(before) => Some(keep(file, before)?),
    };
    let mut new = tempfile::Builder::new().prefix(".countersign-").tempfile_in(dir)?;
    new.write_all(after.as_bytes())?;
    new.as_file().sync_all()?;
    if let Ok(meta) = std::fs::metadata(file) {
        new.as_file().set_permissions(meta.permissions())?;
    }
    new.persist(file).map_err(|e| e.error)?;
    Ok(backup)
}

/// A copy beside the file under a name that nothing has, with the file's mode.
fn keep(file: &Path, before: &str) -> std::io::Result<PathBuf> {
    let mut n = 0;
    loop {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(if n == 0 { ".before-countersign".to_owned() } else { format!(".before-countersign-{n}") });
        let place = file.with_file_name(name);
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&place) {
            Ok(mut copy) => {
                copy.set_permissions(std::fs::metadata(file)?.permissions())?;
                copy.write_all(before.as_bytes())?;
                copy.sync_all()?;
                return Ok(place);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && n < 1000 => n += 1,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_each_former_state_is_kept() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/er/mcp.json");
        assert_eq!(put(&file, None, "one").unwrap(), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let first = put(&file, Some("one"), "two").unwrap().unwrap();
        let second = put(&file, Some("two"), "three").unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(&second).unwrap(), "two");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "three");
        for f in [&file, &first, &second] {
            assert_eq!(std::fs::metadata(f).unwrap().permissions().mode() & 0o777, 0o640);
        }
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn names_that_mean_something_elsewhere_are_refused() {
        for bad in ["", "a b", "$(id)", "a\"b", "ü", "a.b"] {
            assert_eq!(plain("--name", bad).unwrap_err().code, "connect.name", "{bad}");
        }
        assert!(plain("--name", "countersign-prod_2").is_ok());
    }
}
