//! People at work: commits from a clone of their own with the real git, presses in the chat.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use countersign::sandbox::bot::{Press, ShownMessage};
use url::Url;

use super::place::{Login, Place, Repository};

/// A person's clone of the place's repository.
pub struct Desk {
    dir: PathBuf,
    repository: Repository,
    at_work: Mutex<()>,
}

fn git(dir: &Path, args: &[&str]) -> Result<String, String> {
    let out = std::process::Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=Max", "-c", "user.email=max@example.test"])
        .args(args)
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_TERMINAL_PROMPT", "0")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        Ok(said)
    } else {
        Err(format!("git {}: {}", args.first().unwrap_or(&""), String::from_utf8_lossy(&out.stderr)))
    }
}

impl Desk {
    pub fn new(dir: PathBuf, repository: Repository) -> Self {
        Self { dir, repository, at_work: Mutex::new(()) }
    }

    fn remote(&self, who: &Login) -> String {
        let mut url = Url::parse(&self.repository.url).unwrap();
        url.set_username(&who.login).unwrap();
        url.set_password(Some(&who.token)).unwrap();
        url.to_string()
    }

    /// Fetches `main`; the clone is made on first use.
    fn fetch(&self) {
        if !self.dir.is_dir() {
            std::fs::create_dir_all(&self.dir).unwrap();
            git(&self.dir, &["init", "-q", "-b", "main"]).unwrap();
            git(&self.dir, &["remote", "add", "origin", &self.remote(&self.repository.anna)]).unwrap();
        }
        git(&self.dir, &["fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*"]).unwrap();
    }

    /// Commits files (no content: the file or folder goes) on main and pushes; again on top of what others pushed
    /// meanwhile. Gives the commit.
    pub fn commit(&self, files: &[(&str, Option<&str>)]) -> String {
        let _one = self.at_work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut last = String::new();
        for _ in 0..10 {
            self.fetch();
            git(&self.dir, &["checkout", "-q", "-B", "main", "origin/main"]).unwrap();
            for (path, content) in files {
                let full = self.dir.join(path);
                match content {
                    Some(text) => {
                        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
                        std::fs::write(full, text).unwrap();
                    }
                    None => drop(git(&self.dir, &["rm", "-rq", path]).unwrap()),
                }
            }
            git(&self.dir, &["add", "-A"]).unwrap();
            git(&self.dir, &["commit", "-qm", "chore: a person's work"]).unwrap();
            match git(&self.dir, &["push", "-q", "origin", "main"]) {
                Ok(_) => return git(&self.dir, &["rev-parse", "HEAD"]).unwrap().trim().to_owned(),
                Err(words) => last = words,
            }
        }
        panic!("no push got through: {last}");
    }

    /// A file at the tip of main.
    pub fn file(&self, path: &str) -> Option<String> {
        self.git(&["show", &format!("origin/main:{path}")]).ok()
    }

    /// git after a fetch of all branches, which are `origin/NAME` then.
    pub fn git(&self, args: &[&str]) -> Result<String, String> {
        let _one = self.at_work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.fetch();
        git(&self.dir, args)
    }

    /// Tip of main.
    pub fn tip(&self) -> String {
        self.log("%H").lines().next().unwrap_or_default().to_owned()
    }

    /// `git log --format=…` of main, newest first.
    pub fn log(&self, format: &str) -> String {
        let _one = self.at_work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.fetch();
        git(&self.dir, &["log", &format!("--format={format}"), "origin/main"]).unwrap()
    }

    /// This commit and those after it on main: revisions that hold it.
    pub fn holding(&self, commit: &str) -> Vec<String> {
        let _one = self.at_work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.fetch();
        let after = git(&self.dir, &["rev-list", "--ancestry-path", &format!("{commit}..origin/main")]).unwrap();
        std::iter::once(commit.to_owned()).chain(after.lines().map(str::to_owned)).collect()
    }

    /// Commits on main that carry our trailer.
    pub fn ours(&self) -> Vec<String> {
        let log = self.log("%H %(trailers:key=Countersign-Change,valueonly,separator=%x20)");
        log.lines()
            .filter_map(|l| l.split_once(' '))
            .filter(|(_, t)| !t.is_empty())
            .map(|(h, _)| h.to_owned())
            .collect()
    }
}

impl Place {
    /// A press by the person whose private chat this is, once a card with that button is there.
    pub async fn press(&self, chat: i64, button: &str) {
        let card = self.bot.wait_for(chat, self.patience(), |m| m.button(button).is_some()).await;
        assert!(card.is_some(), "no card with {button} in chat {chat}: {:?}", self.bot.chat(chat));
        let pressed = match (button, card) {
            ("Approve", Some(card)) => self.bot.approve(chat, Some(card.message_id)).await,
            _ => self.bot.press(&Press::button(chat, button)),
        };
        pressed.unwrap_or_else(|e| panic!("{e}"));
    }

    /// A message that a person has in their chat.
    pub async fn sees(&self, chat: i64, words: &str) -> ShownMessage {
        let found = self.bot.wait_for(chat, self.patience(), |m| m.text.contains(words)).await;
        found.unwrap_or_else(|| panic!("nothing says {words:?} in chat {chat}: {:#?}", self.bot.chat(chat)))
    }
}
