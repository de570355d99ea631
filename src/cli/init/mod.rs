//! `init`: finds contexts, engines and repositories, and writes a commented configuration that can be started.
//!
//! It reads clusters and writes files into one folder; what is there already is never touched. Where something is
//! unclear it asks on a terminal and refuses elsewhere.

mod files;
mod find;
mod secrets;
mod write;

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use countersign_core::model::{ForgeKind, hex};
use countersign_core::{Problem, Result};
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::git::Transport;
use files::{FirstLevel, Plan};
use find::{Context, Repository};
use secrets::{host, with_secrets};
use write::{untouched, write};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Folder that the configuration is written into.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// kubeconfig file; default: as kubectl finds it.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Context to take; again for more of them.
    #[arg(long = "context")]
    contexts: Vec<String>,
    /// Name of the first Person: the agent's sponsor, and the first approver.
    #[arg(long)]
    person: Option<String>,
    /// The person's public SSH key file, for approvals on the command line.
    #[arg(long)]
    ssh_key: Option<PathBuf>,
    /// Name of the Agent.
    #[arg(long, default_value = "assistant")]
    agent: String,
    /// What may happen at first.
    #[arg(long, value_enum)]
    level: Option<FirstLevel>,
    /// File with the token for repositories over https.
    #[arg(long)]
    git_token_file: Option<PathBuf>,
    /// User of https, where it is not `git`.
    #[arg(long, requires = "git_token_file")]
    git_username: Option<String>,
    /// Kind of the forge, where its host does not tell.
    #[arg(long, requires = "forge_api", value_parser = ["github", "gitea"])]
    forge: Option<String>,
    /// Base of the forge's API.
    #[arg(long, requires = "forge")]
    forge_api: Option<String>,
    /// File with the forge's token, for pull requests.
    #[arg(long)]
    forge_token_file: Option<PathBuf>,
    /// File with the token of the Telegram bot.
    #[arg(long)]
    bot_token_file: Option<PathBuf>,
    /// Another Bot API server than Telegram's own.
    #[arg(long, requires = "bot_token_file")]
    telegram_api: Option<String>,
    /// Ask nothing: what is not given takes its default, and what is unclear is refused.
    #[arg(long)]
    yes: bool,
}

/// Runs `init`.
pub async fn run(args: Init) -> Result<ExitCode> {
    let mut stdin = std::io::stdin().lock();
    let mut ask = Asker(if args.yes { None } else { Some(&mut stdin) });
    if !args.yes && !std::io::stdin().is_terminal() {
        return Err(Problem::new(
            "input.no_terminal",
            "Nobody can be asked: this is no terminal.",
            "Run it in a terminal, or give --yes with what it needs to know (countersign init --help).",
        ));
    }
    untouched(&args.dir)?;
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let env = std::env::var_os("KUBECONFIG");
    let all = find::contexts(&find::kubeconfig_files(args.kubeconfig.as_deref(), env.as_deref(), &home))?;
    let chosen = choose(&all, &args.contexts, &mut ask)?;
    let mut names = BTreeSet::new();
    let mut clusters = Vec::new();
    for context in chosen {
        let name = find::unique(find::plain(&context.name), &names);
        println!("Looking at context {} …", context.name);
        let found = find::look(&context, &name).await?;
        for (engine, n) in &found.owners {
            println!("  {}: {n} owners", crate::pipeline::engine_name(*engine));
        }
        names.insert(name);
        clusters.push(found);
    }
    let (plan, token) = plan(&args, clusters, &home, &mut ask)?;
    tell(&plan);
    let new = with_secrets(&plan, &token, &home)?;
    println!("\nInto {}:", args.dir.display());
    for f in &new {
        println!("  {}{}", f.path, if f.secret { "  (for you alone)" } else { "" });
    }
    if ask.can() && !ask.yes("Write these files?")? {
        println!("Nothing was written.");
        return Ok(ExitCode::from(1));
    }
    write(&args.dir, &new)?;
    let config = args.dir.join("countersign.yaml");
    // What was written is what `serve` reads: it must load.
    Config::load(&config)?;
    println!("\n{}", steps(&plan, &args.dir, &config));
    Ok(ExitCode::SUCCESS)
}

/// The contexts that are named, the only one, or whichever the person picks.
fn choose(all: &[Context], named: &[String], ask: &mut Asker<'_>) -> Result<Vec<Context>> {
    let known = || all.iter().map(|c| c.name.clone());
    if !named.is_empty() {
        return named
            .iter()
            .map(|n| {
                all.iter().find(|c| c.name == *n).cloned().ok_or_else(|| {
                    Problem::new(
                        "init.unknown_context",
                        format!("The kubeconfig has no context {n}."),
                        "Name one of those in the evidence.",
                    )
                    .with_all(known())
                })
            })
            .collect();
    }
    if let [only] = all {
        return Ok(vec![only.clone()]);
    }
    if !ask.can() {
        return Err(Problem::new(
            "init.which_context",
            "The kubeconfig has several contexts.",
            "Name those that are meant with --context.",
        )
        .with_all(known()));
    }
    for (i, c) in all.iter().enumerate() {
        println!("  {}  {}{}", i + 1, c.name, if c.current { "  (current)" } else { "" });
    }
    loop {
        let line = ask.line("Which clusters may agents look at (numbers)?", "")?;
        let picked: Option<Vec<Context>> = line
            .split([',', ' '])
            .filter(|w| !w.is_empty())
            .map(|w| all.get(w.parse::<usize>().ok()?.checked_sub(1)?).cloned())
            .collect();
        match picked {
            Some(picked) if !picked.is_empty() => return Ok(picked),
            _ => println!("Write one or several of the numbers, for example: 1,3"),
        }
    }
}

/// Who can be asked: whoever sits at the terminal, or nobody.
struct Asker<'a>(Option<&'a mut dyn std::io::BufRead>);

impl Asker<'_> {
    fn can(&self) -> bool {
        self.0.is_some()
    }

    /// One line; empty takes the default, which is also the answer of nobody.
    fn line(&mut self, words: &str, default: &str) -> Result<String> {
        let unreadable = |why: String| {
            Problem::new("input.unreadable", format!("The answer could not be read: {why}."), "Try again.")
        };
        let Some(input) = &mut self.0 else { return Ok(default.to_owned()) };
        print!("{words}{} ", if default.is_empty() { String::new() } else { format!(" [{default}]") });
        std::io::stdout().flush().map_err(|e| unreadable(e.to_string()))?;
        let mut line = String::new();
        if input.read_line(&mut line).map_err(|e| unreadable(e.to_string()))? == 0 {
            return Err(unreadable("the input ended".into()));
        }
        let line = line.trim();
        Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
    }

    fn yes(&mut self, words: &str) -> Result<bool> {
        Ok(matches!(self.line(&format!("{words} [y/N]"), "")?.as_str(), "y" | "Y" | "yes" | "ja"))
    }
}

/// A file that holds a credential: it must be there, and its name goes into the configuration.
fn credential(given: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    let Some(path) = given else { return Ok(None) };
    let unreadable = |why: String| {
        Problem::new(
            "init.credential",
            format!("{} cannot be used as a credential: {why}.", path.display()),
            "Put the credential alone into the file, readable by the daemon's user.",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    if text.trim().is_empty() {
        return Err(unreadable("it is empty".into()));
    }
    std::path::absolute(path).map(Some).map_err(|e| unreadable(e.to_string()))
}

/// What was found with what was chosen, and the agent's fresh token.
fn plan(args: &Init, clusters: Vec<find::Found>, home: &Path, ask: &mut Asker<'_>) -> Result<(Plan, String)> {
    let git_token = credential(args.git_token_file.as_ref())?;
    let (repositories, left) = find::repositories(&clusters, git_token.is_some());
    let user = std::env::var("USER").unwrap_or_default();
    let person = match &args.person {
        Some(name) => name.clone(),
        None => ask.line("Your name, for the record:", &find::plain(&user))?,
    };
    let ssh_key = match &args.ssh_key {
        Some(file) => Some(public_key(file)?),
        None => offered_key(home, ask)?,
    };
    let bot_token = match &args.bot_token_file {
        Some(_) => credential(args.bot_token_file.as_ref())?,
        None => match ask.line("File with the token of your Telegram bot (empty: later):", "")?.as_str() {
            "" => None,
            file => credential(Some(&PathBuf::from(file)))?,
        },
    };
    let level = match args.level {
        Some(level) => level,
        None => first_level(ask)?,
    };
    if level == FirstLevel::Prompted && ssh_key.is_none() {
        // Until the pairing nobody could answer, and a rule that nobody can answer is a mistake.
        return Err(Problem::new(
            "init.no_approver",
            "With the level prompted somebody must be able to answer from the first moment.",
            "Give --ssh-key FILE.pub, or begin with --level manual and change the level after pairing.",
        ));
    }
    let forge = args
        .forge
        .as_deref()
        .zip(args.forge_api.clone())
        .map(|(kind, api)| (if kind == "github" { ForgeKind::Github } else { ForgeKind::Gitea }, api));
    one_host(&repositories, &forge, git_token.is_some(), args.forge_token_file.is_some())?;
    for (what, name) in [("--person", &person), ("--agent", &args.agent)] {
        if find::plain(name) != *name {
            return Err(Problem::new(
                "init.name",
                format!("{what} may hold letters, digits, - _ and . only, and begins with a letter or digit."),
                "Choose another name.",
            ));
        }
    }
    let token = hex(&rand::random::<[u8; 32]>());
    let plan = Plan {
        clusters,
        repositories,
        left,
        person,
        ssh_key,
        agent: args.agent.clone(),
        token_sha256: hex(&Sha256::digest(token.as_bytes())),
        level,
        git_token,
        git_username: args.git_username.clone(),
        forge,
        forge_token: credential(args.forge_token_file.as_ref())?,
        bot_token,
        telegram_api: args.telegram_api.clone(),
    };
    Ok((plan, token))
}

/// One token is one host's: it must not be shown to another. One forge is one host's too.
fn one_host(
    repositories: &[Repository],
    forge: &Option<(ForgeKind, String)>,
    git_token: bool,
    forge_token: bool,
) -> Result<()> {
    let hosts = |wanted: &dyn Fn(&Repository) -> bool| -> BTreeSet<String> {
        repositories.iter().filter(|r| wanted(r)).map(host).collect()
    };
    let https = hosts(&|r| r.transport != Transport::Ssh);
    let forges = hosts(&|r| files::known_forge(&r.host).is_some() || forge.is_some());
    let unknown = hosts(&|r| files::known_forge(&r.host).is_none());
    let (option, say, hosts) = if git_token && https.len() > 1 {
        let say = "The https repositories are on several hosts, and one token must not be shown to all of them.";
        ("--git-token-file", say, https)
    } else if forge_token && forges.len() > 1 {
        let say = "The repositories are at several forges, and one token must not be shown to all of them.";
        ("--forge-token-file", say, forges)
    } else if forge.is_some() && unknown.len() > 1 {
        return Err(Problem::new(
            "init.which_forge",
            "The repositories are on several hosts, and one forge cannot be that of all of them.",
            "Leave --forge out, and write `forge` for each Repository afterwards.",
        )
        .with_all(unknown));
    } else {
        return Ok(());
    };
    Err(Problem::new(
        "init.which_token",
        say,
        format!("Leave {option} out, and name a token for each Repository afterwards."),
    )
    .with_all(hosts))
}

fn public_key(file: &Path) -> Result<String> {
    let bad = |why: String| {
        Problem::new(
            "init.ssh_key",
            format!("{} is no public SSH key: {why}.", file.display()),
            "Name the .pub file of a key.",
        )
    };
    let text = std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
    let key = ssh_key::PublicKey::from_openssh(text.trim()).map_err(|e| bad(e.to_string()))?;
    key.to_openssh().map_err(|e| bad(e.to_string()))
}

fn first_level(ask: &mut Asker<'_>) -> Result<FirstLevel> {
    loop {
        let words = "At first: manual (nothing is written) or prompted (you are asked, and on a yes it is)?";
        match ask.line(words, "manual")?.as_str() {
            "manual" => return Ok(FirstLevel::Manual),
            "prompted" => return Ok(FirstLevel::Prompted),
            _ => println!("Write manual or prompted."),
        }
    }
}

/// The person's usual key, if it is wanted. Whose key may approve is never assumed.
fn offered_key(home: &Path, ask: &mut Asker<'_>) -> Result<Option<String>> {
    let file = home.join(".ssh/id_ed25519.pub");
    if !ask.can() || !file.is_file() {
        return Ok(None);
    }
    let wanted = ask.yes(&format!("May {} sign your approvals?", file.display()))?;
    if wanted { public_key(&file).map(Some) } else { Ok(None) }
}

fn tell(plan: &Plan) {
    println!("\nRepositories that owners follow:");
    for r in &plan.repositories {
        println!("  {:<16} {}  ({} owners)", r.name, r.url, r.owners.len());
    }
    if plan.repositories.is_empty() {
        println!("  none: no owner of Argo CD or Flux follows a Git repository yet");
    }
    for url in &plan.left {
        println!("  left out: {url}");
    }
}

/// What is left to the person, in order.
fn steps(plan: &Plan, dir: &Path, config: &Path) -> String {
    let mut steps = Vec::new();
    let shown = config.display();
    let ssh: Vec<&Repository> = plan.repositories.iter().filter(|r| r.transport == Transport::Ssh).collect();
    for r in &ssh {
        let key = dir.join(files::deploy_key(&r.name));
        steps.push(format!("Add {}.pub as a deploy key with write access to {}.", key.display(), r.path));
    }
    if !ssh.is_empty() {
        let file = dir.join("secrets/known_hosts");
        steps.push(format!("Look at the host keys in {}, and add those that are missing.", file.display()));
    }
    if plan.git_token.is_none() && plan.repositories.iter().any(|r| r.transport != Transport::Ssh) {
        steps.push("Give the https repositories a token (`auth` in resources/repositories.yaml).".into());
    }
    steps.push(format!("Try everything: countersign doctor --config {shown}"));
    steps.push(format!("Connect your client: countersign connect CLIENT --config {shown}"));
    if plan.bot_token.is_some() {
        steps.push(format!("Start it: countersign serve --http 127.0.0.1:8080 --config {shown}"));
        steps.push(format!("Pair your Telegram: countersign people pair {} --config {shown}", plan.person));
    } else {
        steps.push(
            "Without Telegram you decide with `countersign approve`; resources/channel.yaml says how to add it.".into(),
        );
    }
    let numbered: String = steps.iter().enumerate().map(|(i, s)| format!("  {}. {s}\n", i + 1)).collect();
    format!("Written. Next:\n{numbered}")
}

#[cfg(test)]
mod tests {
    use super::secrets::key;
    use super::*;

    fn context(name: &str) -> Context {
        Context { name: name.into(), file: "/k".into(), current: name == "b" }
    }

    #[test]
    fn what_is_unclear_is_refused_where_nobody_can_be_asked() {
        let all = [context("a"), context("b")];
        let code = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(|n| (*n).to_owned()).collect();
            choose(&all, &named, &mut Asker(None)).map(|c| c.len()).map_err(|p| p.code.to_string())
        };
        assert_eq!(code(&[]), Err("init.which_context".into()), "not even the current one is guessed");
        assert_eq!(code(&["c"]), Err("init.unknown_context".into()));
        assert_eq!(code(&["a", "b"]), Ok(2));
        assert_eq!(choose(&all[..1], &[], &mut Asker(None)).unwrap().len(), 1);
    }

    #[test]
    fn at_a_terminal_what_is_unclear_is_asked_until_it_is_clear() {
        let all = [context("a"), context("b")];
        let mut typed: &[u8] = b"\n3\n2, 1\nsometimes\nprompted\nn\n";
        let mut ask = Asker(Some(&mut typed));
        let picked = choose(&all, &[], &mut ask).unwrap();
        assert_eq!(picked.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(first_level(&mut ask).unwrap(), FirstLevel::Prompted);
        assert!(!ask.yes("Write?").unwrap());
        assert_eq!(ask.line("More?", "x").unwrap_err().code, "input.unreadable", "an input that ends answers nothing");
        assert_eq!(first_level(&mut Asker(None)).unwrap(), FirstLevel::Manual);
    }

    #[test]
    fn a_token_is_never_shown_to_a_second_host() {
        let url = |u: &str| (u.to_owned(), "x".to_owned(), String::new());
        let found =
            |urls: &[&str]| find::Found { followed: urls.iter().map(|u| url(u)).collect(), ..find::Found::default() };
        let of = |urls: &[&str]| find::repositories(&[found(urls)], true).0;
        let code = |r: Result<()>| r.err().map(|p| p.code.to_string());
        let gitea = Some((ForgeKind::Gitea, "https://g.example/api/v1".to_owned()));
        let two = of(&["https://a.example/x/y", "https://b.example/x/z"]);
        assert_eq!(code(one_host(&two, &None, true, false)).as_deref(), Some("init.which_token"));
        assert_eq!(code(one_host(&two, &None, false, true)), None, "no forge is known, so the token goes nowhere");
        assert_eq!(code(one_host(&two, &gitea, false, false)).as_deref(), Some("init.which_forge"));
        assert_eq!(code(one_host(&two, &gitea, false, true)).as_deref(), Some("init.which_token"));
        let mixed = of(&["https://github.com/x/y", "git@b.example:x/z"]);
        assert_eq!(code(one_host(&mixed, &None, true, true)), None);
        assert_eq!(code(one_host(&mixed, &gitea, true, true)).as_deref(), Some("init.which_token"));
        let same = of(&["https://a.example/x/y", "https://a.example/x/z"]);
        assert_eq!(code(one_host(&same, &gitea, true, true)), None);
    }

    #[test]
    fn nothing_is_overwritten_and_secrets_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        untouched(dir.path()).unwrap();
        let [private, public] = key("secrets/signing_ed25519", "x").unwrap();
        write(dir.path(), &[private.clone(), public]).unwrap();
        let mode = |p: &str| std::fs::metadata(dir.path().join(p)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("secrets"), mode("secrets/signing_ed25519")), (0o700, 0o600));
        assert_eq!(untouched(dir.path()).unwrap_err().code, "init.exists");
        assert_eq!(write(dir.path(), &[private]).unwrap_err().code, "init.exists");
    }

    #[test]
    fn an_empty_credential_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        std::fs::write(&file, " \n").unwrap();
        assert_eq!(credential(Some(&file)).unwrap_err().code, "init.credential");
        std::fs::write(&file, "x\n").unwrap();
        assert_eq!(credential(Some(&file)).unwrap(), Some(file));
        assert_eq!(credential(None).unwrap(), None);
    }
}
