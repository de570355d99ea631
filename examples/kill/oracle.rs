//! What really happened, from the logs of the sandbox's servers and from Git itself.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::scenario::Outcome;

/// Where the logs and the branch stood.
pub struct Marks {
    dir: PathBuf,
    repository: PathBuf,
    tip: String,
    bot: u64,
    forge: u64,
}

/// What must have happened to one change.
pub struct Expect {
    pub change: String,
    pub name: String,
    pub image: String,
    pub lands: bool,
    /// A person merged it on the forge: the merge itself does not carry our words.
    pub by_hand: bool,
    /// First words of the last state of each card; `None` where no cards are sent.
    pub last_words: Option<&'static str>,
    /// The change that undid it, where it was to fail.
    pub reverted: Option<String>,
    pub kills: u32,
}

async fn git(repository: &Path, args: &[&str]) -> Result<String> {
    let out = Command::new("git").arg("--git-dir").arg(repository).args(args).output().await?;
    if !out.status.success() {
        bail!("git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn length(dir: &Path, name: &str) -> Result<u64> {
    Ok(std::fs::metadata(dir.join(format!("{name}.jsonl"))).map(|m| m.len())?)
}

fn lines(dir: &Path, name: &str, from: u64) -> Result<Vec<Value>> {
    let mut file = std::fs::File::open(dir.join(format!("{name}.jsonl")))?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
}

fn text<'v>(v: &'v Value, pointer: &str) -> &'v str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Marks {
    /// As it is now.
    pub async fn now(dir: &Path, repository: &Path) -> Result<Self> {
        let tip = git(repository, &["rev-parse", "refs/heads/main"]).await?.trim().to_owned();
        Ok(Self {
            dir: dir.to_owned(),
            repository: repository.to_owned(),
            tip,
            bot: length(dir, "bot")?,
            forge: length(dir, "forge")?,
        })
    }

    /// Commits on main since then that name this change; those that a merge brought are not counted,
    /// unless they alone carry the name.
    async fn commits(&self, change: &str, brought: bool) -> Result<usize> {
        let range = format!("{}..refs/heads/main", self.tip);
        let wanted = format!("Countersign-Change: {change}");
        let which = if brought { "--no-merges" } else { "--first-parent" };
        let log = git(&self.repository, &["log", which, "--format=%B%x01", &range]).await?;
        Ok(log.split('\u{1}').filter(|m| m.lines().any(|l| l.trim() == wanted)).count())
    }

    /// Commits on main since then that bring or take away this image, whoever they say they are.
    async fn bringing(&self, image: &str) -> Result<usize> {
        let range = format!("{}..refs/heads/main", self.tip);
        let log = git(&self.repository, &["log", "--first-parent", "-m", "--format=%H", &format!("-S{image}"), &range])
            .await?;
        Ok(log.lines().count())
    }
}

/// Compares.
pub async fn judge(marks: &Marks, expect: &Expect, out: &mut Outcome) -> Result<()> {
    if expect.change.is_empty() {
        return Ok(());
    }
    let named = marks.commits(&expect.change, expect.by_hand).await?;
    let brought = marks.bringing(&expect.image).await?;
    let times = if expect.reverted.is_some() { 2 } else { 1 };
    match (expect.lands, named) {
        (true, 0) => out.lost.push(format!("{} was to land and is not on main", expect.change)),
        (false, n) if n > 0 || brought > 0 => {
            out.lost.push(format!("the no to {} was forgotten: it is on main", expect.change))
        }
        (true, n) if n > 1 || brought > times => {
            out.doubled.push(format!("{}: {n} commits on main, {brought} with its image", expect.change))
        }
        (true, _) if brought == 0 => {
            out.lost.push(format!("{}: a commit on main does not hold its image", expect.change))
        }
        _ => {}
    }
    if let Some(revert) = expect.reverted.as_deref().filter(|r| !r.is_empty()) {
        match marks.commits(revert, false).await? {
            0 => out.lost.push(format!("{revert}, the revert of {}, was approved and is not on main", expect.change)),
            1 => {}
            n => out.doubled.push(format!("{revert}: {n} commits on main")),
        }
    }
    forge(marks, expect, out)?;
    chat(marks, expect, out)
}

fn forge(marks: &Marks, expect: &Expect, out: &mut Outcome) -> Result<()> {
    let log = lines(&marks.dir, "forge", marks.forge)?;
    let of = |what: &'static str| log.iter().filter(move |l| text(l, "/what") == what);
    let opened: Vec<u64> = of("pull_opened")
        .filter(|l| text(l, "/head").contains(&expect.change))
        .filter_map(|l| l.get("number").and_then(Value::as_u64))
        .collect();
    if opened.len() > 1 {
        out.doubled.push(format!("{}: pull requests {opened:?}", expect.change));
    }
    for number in opened {
        let about = |what| of(what).filter(|l| l.get("number").and_then(Value::as_u64) == Some(number)).count();
        let (merged, said) = (about("pull_merged"), about("commented"));
        if expect.lands && merged == 0 {
            out.lost.push(format!("pull request {number} of {} was never merged", expect.change));
        }
        if merged > 1 {
            out.doubled.push(format!("pull request {number} was merged {merged} times"));
        }
        if said > 1 + expect.kills as usize {
            out.doubled.push(format!("pull request {number} has {said} comments"));
        }
    }
    Ok(())
}

/// What is still to be done for people after the end of a change, if anything.
pub async fn unsettled(marks: &Marks, expect: &Expect) -> Result<Option<String>> {
    if expect.change.is_empty() {
        return Ok(None);
    }
    let log = lines(&marks.dir, "forge", marks.forge)?;
    let opened = log.iter().find(|l| text(l, "/what") == "pull_opened" && text(l, "/head").contains(&expect.change));
    if let Some(number) = opened.and_then(|l| l.get("number")) {
        let over = ["pull_closed", "pull_merged"];
        if !log.iter().any(|l| over.contains(&text(l, "/what")) && l.get("number") == Some(number)) {
            return Ok(Some(format!("pull request {number} of {} stays open", expect.change)));
        }
    }
    let own = format!("refs/heads/countersign/{}-*", expect.change);
    let left = git(&marks.repository, &["for-each-ref", "--format=%(refname)", &own]).await?;
    if let Some(branch) = left.lines().next() {
        return Ok(Some(format!("{branch} is still there")));
    }
    let Some(words) = expect.last_words else { return Ok(None) };
    let log = lines(&marks.dir, "bot", marks.bot)?;
    let ours = |l: &&Value, method: &str| {
        text(l, "/method") == method
            && l.get("status").and_then(Value::as_u64) == Some(200)
            && text(l, "/args/text").contains(&expect.name)
    };
    let chat = |l: &Value| l.pointer("/args/chat_id").and_then(Value::as_i64).unwrap_or_default();
    // Who got no card before it was decided has only its end, which has a button too where a revert can be prepared,
    // and the card of that revert, which names what it undoes below its own name.
    let titled = |l: &Value| text(l, "/args/text").lines().next().is_some_and(|t| t.contains(&expect.name));
    let card = |l: &&Value| {
        ours(l, "SendMessage")
            && l.pointer("/args/reply_markup").is_some()
            && titled(l)
            && !text(l, "/args/text").contains(words)
    };
    let cards: Vec<i64> = log.iter().filter(card).map(chat).collect();
    // Its end is told by the card itself, or by a message of its own where the card's number was lost.
    let told = |l: &&Value| {
        ours(l, "EditMessageText") && text(l, "/args/text").contains(words)
            || ours(l, "SendMessage") && l.pointer("/args/reply_markup").is_none()
    };
    let open = cards.into_iter().find(|c| !log.iter().filter(told).any(|l| chat(l) == *c));
    Ok(open.map(|c| format!("the card of {} in chat {c} never said {words}", expect.name)))
}

/// Cards and words to people: at most one further copy for each kill.
fn chat(marks: &Marks, expect: &Expect, out: &mut Outcome) -> Result<()> {
    let log = lines(&marks.dir, "bot", marks.bot)?;
    let mut copies: BTreeMap<(i64, String), u32> = BTreeMap::new();
    for l in log.iter().filter(|l| text(l, "/what") == "call" && l.get("status").and_then(Value::as_u64) == Some(200)) {
        let (method, words) = (text(l, "/method"), text(l, "/args/text"));
        if method == "SendMessage" && words.contains(&expect.name) {
            let kind = if l.pointer("/args/reply_markup").is_some_and(|m| m.to_string().contains("Reject")) {
                "cards".to_owned()
            } else {
                format!("notices \"{}\"", words.lines().next().unwrap_or_default())
            };
            let chat = l.pointer("/args/chat_id").and_then(Value::as_i64).unwrap_or_default();
            *copies.entry((chat, kind)).or_default() += 1;
        }
    }
    for ((chat, kind), n) in copies {
        if n > 1 + expect.kills {
            out.doubled.push(format!("{n} {kind} of {} in chat {chat} after {} kills", expect.name, expect.kills));
        }
    }
    Ok(())
}

/// The whole run: nothing that was pushed to main is gone from it, and no change is on it twice.
pub async fn history(dir: &Path, repository: &Path) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let all = git(repository, &["rev-list", "refs/heads/main"]).await?;
    for l in lines(dir, "git", 0)?.iter().filter(|l| text(l, "/what") == "push" && text(l, "/outcome") == "accepted") {
        if text(l, "/ref") == "refs/heads/main" && !all.lines().any(|c| c == text(l, "/new")) {
            out.push(format!("commit {} was pushed to main and is gone from it", text(l, "/new")));
        }
    }
    let log = git(repository, &["log", "--first-parent", "--format=%B", "refs/heads/main"]).await?;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for change in log.lines().filter_map(|l| l.trim().strip_prefix("Countersign-Change: ")) {
        *seen.entry(change).or_default() += 1;
    }
    out.extend(seen.iter().filter(|(_, n)| **n > 1).map(|(c, n)| format!("{c} is {n} times on main")));
    Ok(out)
}
