//! `people`: who they are, and which Telegram account is whose.
//!
//! Pairing finds out a number. It counts once the configuration holds it: whoever may write that file decides, as
//! for every other line of it, and the daemon never writes it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use countersign_core::manifest::{documents, edit_value, unified_diff};
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use crate::config::{API_VERSION, Config};
use crate::pipeline::ControlRequest as Request;
use crate::server::control::call;

/// How often the daemon is asked whether the code came.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// `people` commands.
#[derive(Debug, Subcommand)]
pub enum People {
    /// Everyone of the configuration, and how each can decide.
    List,
    /// Find out a person's Telegram account by a one-time code, and put it into the configuration after asking.
    Pair(Pair),
}

/// Arguments of `people pair`.
#[derive(Debug, Args)]
pub struct Pair {
    /// Name of the Person.
    name: String,
    /// The person has an account already: let the new one take its place.
    #[arg(long)]
    replace: bool,
    /// Write the configuration without asking. Compare the number with the person yourself.
    #[arg(long)]
    write: bool,
}

/// Runs a `people` command.
pub async fn run(config: &Path, args: People) -> Result<ExitCode> {
    let loaded = Config::load(config)?;
    match args {
        People::List => {
            print!("{}", list(&loaded));
            Ok(ExitCode::SUCCESS)
        }
        People::Pair(args) => pair(config, &loaded, args).await,
    }
}

fn list(config: &Config) -> String {
    let mut out = String::new();
    for p in &config.people {
        let mut ways = Vec::new();
        ways.extend(p.spec.telegram.map(|id| format!("Telegram {id}")));
        if !p.spec.ssh_keys.is_empty() {
            ways.push(format!("{} SSH keys", p.spec.ssh_keys.len()));
        }
        ways.extend(p.spec.forge.as_ref().map(|f| format!("forge {f}")));
        let ways = if ways.is_empty() { "no way to decide".to_owned() } else { ways.join(", ") };
        out.push_str(&format!("{:<16} {:<24} {ways}\n", p.name, p.spec.groups.join(", ")));
    }
    out
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

async fn pair(file: &Path, config: &Config, args: Pair) -> Result<ExitCode> {
    let name = args.name.as_str();
    let person =
        config.people.iter().find(|p| p.name == name).ok_or_else(|| crate::pipeline::pairing::unknown(name))?;
    if let Some(id) = person.spec.telegram.filter(|_| !args.replace) {
        return Err(Problem::new(
            "pairing.paired",
            format!("{name} has the Telegram account {id} already."),
            "Give --replace if another account is to take its place.",
        ));
    }
    let state = &config.bootstrap.state_dir;
    let begun = call(state, &Request::PairBegin { person: name.to_owned() }).await?;
    let minutes = begun.get("valid_s").and_then(Value::as_u64).unwrap_or_default() / 60;
    println!("Let {name} open this on the phone, within {minutes} minutes, and press Start:");
    println!("  {}", text(&begun, "link"));
    println!("or send this to @{}:", text(&begun, "bot"));
    println!("  /start {}", text(&begun, "code"));
    let account = claimed(state, name).await?;
    if let Some(other) = config.people.iter().find(|p| p.spec.telegram == Some(account) && p.name != name) {
        return Err(Problem::new(
            "pairing.taken",
            format!("The Telegram account {account} is {}'s already.", other.name),
            "One account is one person: let each use their own.",
        ));
    }
    println!("The code came from the Telegram account {account}. {name} reads that number in the chat: compare it.");
    propose(file, config, &args, account).await
}

/// Waits for the code.
async fn claimed(state: &Path, name: &str) -> Result<i64> {
    loop {
        let now = call(state, &Request::PairState { person: name.to_owned() }).await?;
        match (text(&now, "state"), now.get("telegram").and_then(Value::as_i64)) {
            ("claimed", Some(account)) => return Ok(account),
            ("waiting", _) => tokio::time::sleep(ASK_EVERY).await,
            _ => {
                return Err(Problem::new(
                    "pairing.expired",
                    "Nobody sent the code in time, or the daemon was restarted.",
                    "Run it again: each code is good for ten minutes and one account.",
                ));
            }
        }
    }
}

/// The line for the configuration; written only after a yes, by whoever runs this.
async fn propose(file: &Path, config: &Config, args: &Pair, account: i64) -> Result<ExitCode> {
    let (place, before, after) = match edited(file, config, &args.name, account) {
        Ok(found) => found,
        Err(problem) => return Err(by_hand(&args.name, account, problem)),
    };
    let shown = place.to_string_lossy();
    print!("{}", unified_diff(shown.trim_start_matches('/'), Some(before.as_bytes()), Some(after.as_bytes())));
    if !args.write && !std::io::stdin().is_terminal() {
        println!("Nothing was written: put that line into the configuration and run `countersign reload`.");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.write && !super::people::confirmed(&format!("Is {account} the account of {}? Write {shown}", args.name))? {
        println!("Nothing was written.");
        return Ok(ExitCode::from(1));
    }
    let put = super::connect::put(&place, Some(&before), &after);
    let backup = put.map_err(|e| by_hand(&args.name, account, unwritable(&place, &e)))?;
    let answer = call(&config.bootstrap.state_dir, &Request::Reload).await?;
    println!("{}", text(&answer, "say"));
    if let Some(backup) = backup {
        println!("The file as it was: {}", backup.display());
    }
    println!("{} decides by Telegram now; everyone who decides was told.", args.name);
    Ok(ExitCode::SUCCESS)
}

fn unwritable(file: &Path, e: &std::io::Error) -> Problem {
    Problem::new("config.unwritable", format!("{} cannot be written: {e}.", file.display()), "Correct its permissions.")
}

fn by_hand(name: &str, account: i64, why: Problem) -> Problem {
    Problem::new(
        "pairing.not_written",
        format!("The configuration was not changed: {}", why.message),
        format!("Put `telegram: {account}` below `spec` of the Person {name} by hand, then `countersign reload`."),
    )
    .with_all(why.evidence)
}

/// The file that holds a person, as it is and with the account in it. Every other byte stays.
fn edited(file: &Path, config: &Config, name: &str, account: i64) -> Result<(PathBuf, String, String)> {
    for place in config.files(file)? {
        let bytes = std::fs::read(&place).map_err(|e| unwritable(&place, &e))?;
        let found = documents(&bytes)?
            .into_iter()
            .find(|d| d.api_version == API_VERSION && d.key.kind == "Person" && d.key.name == name);
        let Some(found) = found else { continue };
        let changed = edit_value(&bytes, found.id, &found.key, "/spec/telegram", Some(json!(account)))?;
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap_or_default();
        return Ok((place, text(bytes), text(changed.bytes.unwrap_or_default())));
    }
    Err(crate::pipeline::pairing::unknown(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(people: &str) -> (tempfile::TempDir, PathBuf, Config) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("countersign.yaml");
        std::fs::write(&file, "signing_key: {env: X}\nresources: [people.yaml]\n").unwrap();
        std::fs::create_dir(dir.path().join("policies")).unwrap();
        std::fs::write(dir.path().join("policies/p.yaml"), "version: 1\ndefault: {level: deny}\n").unwrap();
        std::fs::write(dir.path().join("people.yaml"), people).unwrap();
        let loaded = Config::load(&file).unwrap();
        (dir, file, loaded)
    }

    const HEAD: &str = "apiVersion: countersign.dev/v1\nkind: Person\n";

    #[test]
    fn the_account_is_put_into_the_persons_own_entry_and_comments_stay() {
        let max = format!("{HEAD}metadata: {{name: max}}\nspec: {{groups: [sre]}}  # nights\n");
        let anna = format!("{HEAD}metadata:\n  name: anna\nspec:\n  # on call\n  groups: [sre]\n");
        let (_dir, file, loaded) = config(&format!("{max}---\n{anna}"));
        for (name, expected) in [
            ("anna", format!("{max}---\n{}  telegram: 1002\n", anna)),
            ("max", format!("{}---\n{anna}", max.replace("[sre]}", "[sre], telegram: 1002}"))),
        ] {
            let (place, _, after) = edited(&file, &loaded, name, 1002).unwrap();
            assert!(place.ends_with("people.yaml"));
            assert_eq!(after, expected);
        }
        assert_eq!(edited(&file, &loaded, "eve", 1).unwrap_err().code, "people.unknown");
    }

    #[test]
    fn everyone_is_listed_with_the_ways_to_decide() {
        let (_dir, _, loaded) = config(&format!(
            "{HEAD}metadata: {{name: anna}}\nspec: {{telegram: 7, forge: anna, groups: [sre, dev]}}\n---\n{HEAD}metadata: {{name: max}}\nspec: {{}}\n"
        ));
        let shown = list(&loaded);
        assert!(shown.contains("anna             sre, dev                 Telegram 7, forge anna\n"), "{shown}");
        assert!(shown.contains("no way to decide"));
    }
}
