//! The remote: one branch, leases, and its own record of what was written to it. Everything that the trace says was
//! executed comes from here, never from the journal.

use std::collections::BTreeMap;

use countersign::git::blob_id;
use countersign_core::gate::Authorization;
use countersign_core::{Problem, Result};

/// The branch that the engine follows.
pub const MAIN: &str = "refs/heads/main";

/// A commit that was built.
#[derive(Debug, Clone)]
pub struct Commit {
    message: String,
    files: Vec<(String, Option<String>)>,
}

/// One file of a commit that reached the branch.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The journal's last event at that moment.
    pub seq: u64,
    /// When, milliseconds.
    pub at: i64,
    /// Message of the commit, with its trailers.
    pub message: String,
    pub path: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// What the next push meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// Nothing reaches the remote.
    Away,
    /// The push arrives, its answer does not.
    Mute,
}

/// The remote.
#[derive(Debug)]
pub struct Remote {
    pub tip: String,
    pub weather: Weather,
    pub executions: Vec<Execution>,
    files: BTreeMap<String, String>,
    built: BTreeMap<String, Commit>,
    /// Commits on the branch, oldest first.
    log: Vec<String>,
    branches: BTreeMap<String, String>,
    count: u64,
}

fn away() -> Problem {
    Problem::new("git.unreachable", "The remote does not answer.", "It is tried again.").later()
}

/// A trailer's value.
pub fn trailer<'m>(message: &'m str, key: &str) -> Option<&'m str> {
    message.lines().rev().find_map(|l| l.strip_prefix("Countersign-")?.strip_prefix(key)?.strip_prefix(": "))
}

impl Remote {
    pub fn new(files: BTreeMap<String, String>) -> Self {
        let tip = format!("{:040x}", 0);
        let (built, log, branches) = (BTreeMap::new(), vec![tip.clone()], BTreeMap::new());
        Self { tip, weather: Weather::Fine, executions: Vec::new(), files, built, log, branches, count: 0 }
    }

    fn id(&mut self) -> String {
        self.count += 1;
        format!("{:040x}", self.count)
    }

    pub fn file(&self, path: &str) -> Option<&String> {
        self.files.get(path)
    }

    pub fn blob(&self, path: &str) -> Option<String> {
        self.files.get(path).map(|text| blob_id(text.as_bytes()))
    }

    pub fn build(&mut self, files: Vec<(String, Option<String>)>, message: String) -> String {
        let id = self.id();
        self.built.insert(id.clone(), Commit { message, files });
        id
    }

    /// Someone else commits.
    pub fn others(&mut self, path: &str, text: Option<String>) {
        self.tip = self.id();
        self.log.push(self.tip.clone());
        match text {
            Some(text) => drop(self.files.insert(path.to_owned(), text)),
            None => drop(self.files.remove(path)),
        }
    }

    /// A commit of this change on the branch that holds its content.
    pub fn landed(&self, change: &str, blobs: &[(String, Option<String>)]) -> Option<String> {
        let ours = |id: &&String| {
            self.built.get(*id).is_some_and(|c| {
                let holds = |(path, blob): &(String, Option<String>)| {
                    c.files.iter().any(|(p, t)| p == path && t.as_ref().map(|t| blob_id(t.as_bytes())) == *blob)
                };
                trailer(&c.message, "Change") == Some(change) && blobs.iter().all(holds)
            })
        };
        self.log.iter().rev().find(ours).cloned()
    }

    pub fn has(&self, git_ref: &str, commit: &str) -> bool {
        if git_ref == MAIN {
            self.log.iter().any(|c| c == commit)
        } else {
            self.branches.get(git_ref).is_some_and(|c| c == commit)
        }
    }

    /// A leased push, as the Git edge makes it: only what the authorization covers.
    pub fn push(
        &mut self,
        auth: &Authorization,
        commit: &str,
        git_ref: &str,
        lease: Option<&str>,
        (seq, at): (u64, i64),
    ) -> Result<()> {
        auth.permits_ref(git_ref)?;
        if self.weather == Weather::Away {
            return Err(away());
        }
        if git_ref != MAIN {
            self.branches.insert(git_ref.to_owned(), commit.to_owned());
        } else {
            if lease != Some(self.tip.as_str()) {
                return Err(Problem::new("git.lease_lost", "The branch moved.", "Fetch, and push again.").later());
            }
            self.land(commit, (seq, at))?;
        }
        if std::mem::replace(&mut self.weather, Weather::Fine) == Weather::Mute {
            return Err(Problem::new("walk.killed", "The process died before the answer.", "Start it again."));
        }
        Ok(())
    }

    /// The forge merges the branch of a pull request.
    pub fn merge(&mut self, auth: &Authorization, commit: &str, when: (u64, i64)) -> Result<()> {
        auth.permits_merge()?;
        if self.weather == Weather::Away {
            return Err(away());
        }
        self.land(commit, when)?;
        if std::mem::replace(&mut self.weather, Weather::Fine) == Weather::Mute {
            return Err(Problem::new("walk.killed", "The process died before the answer.", "Start it again."));
        }
        Ok(())
    }

    fn land(&mut self, id: &str, (seq, at): (u64, i64)) -> Result<()> {
        let Some(commit) = self.built.get(id).cloned() else {
            return Err(Problem::new("git.failed", "There is no such commit.", "Report this as a bug.").never());
        };
        for (path, after) in &commit.files {
            let before = match after {
                Some(text) => self.files.insert(path.clone(), text.clone()),
                None => self.files.remove(path),
            };
            let (path, after, message) = (path.clone(), after.clone(), commit.message.clone());
            self.executions.push(Execution { seq, at, message, path, before, after });
        }
        id.clone_into(&mut self.tip);
        self.log.push(id.to_owned());
        Ok(())
    }
}
