//! Plain pages behind `html_url`: what a person sees who opens a pull request or a commit of the sandbox.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use git2::{DiffFormat, Oid};

use super::Shared;
use super::pulls::Refused;
use super::state::PullState;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/{owner}/{name}/pull/{number}", get(pull))
        .route("/{owner}/{name}/pulls/{number}", get(pull))
        .route("/{owner}/{name}/commit/{id}", get(commit))
        .with_state(shared)
}

type Server = State<Arc<Shared>>;

async fn pull(State(shared): Server, Path((owner, name, number)): Path<(String, String, u64)>) -> String {
    let repo = format!("{owner}/{name}");
    shared.pull_page(&repo, number).unwrap_or_else(|e| format!("{e}\n"))
}

async fn commit(State(shared): Server, Path((owner, name, id)): Path<(String, String, String)>) -> String {
    let repo = format!("{owner}/{name}");
    shared.commit_page(&repo, &id).unwrap_or_else(|e| format!("{e}\n"))
}

impl Shared {
    fn pull_page(&self, repo: &str, number: u64) -> Result<String, Refused> {
        let pull = self.find(repo, number)?;
        let state = match (&pull.merged, pull.state) {
            (Some(merged), _) => format!("merged as {} by {}", merged.commit, merged.by.as_deref().unwrap_or("a push")),
            (None, PullState::Open) => "open".to_owned(),
            (None, PullState::Closed) => "closed".to_owned(),
        };
        let mut page = format!(
            "{}  #{number}  ({state})\n{} wants to merge {} into {}\n\n{}\n",
            pull.title,
            pull.author,
            pull.head,
            pull.base,
            pull.body.as_deref().unwrap_or_default(),
        );
        for comment in self.comments(repo, number) {
            let _ = write!(page, "\n{} said:\n{}\n", comment.author, comment.body);
        }
        let git = self.repository(repo)?;
        let (base, head) = (Oid::from_str(&pull.base_sha)?, Oid::from_str(&pull.head_sha)?);
        let from = git.merge_base(base, head).unwrap_or(base);
        let _ = write!(page, "\n{}", patch(&git, Some(from), head)?);
        Ok(page)
    }

    fn commit_page(&self, repo: &str, id: &str) -> Result<String, Refused> {
        let info = self.repos.commit_info(repo, id).map_err(|_| Refused::NotFound)?;
        let git = self.repository(repo)?;
        let parent = info.parents.first().map(|p| Oid::from_str(p)).transpose()?;
        let patch = patch(&git, parent, Oid::from_str(&info.id)?)?;
        Ok(format!(
            "commit {}\nAuthor: {} <{}>\n\n{}\n\n{patch}",
            info.id, info.author.name, info.author.email, info.message
        ))
    }
}

fn patch(git: &git2::Repository, from: Option<Oid>, to: Oid) -> Result<String, git2::Error> {
    let old = from.map(|id| git.find_commit(id)?.tree()).transpose()?;
    let new = git.find_commit(to)?.tree()?;
    let diff = git.diff_tree_to_tree(old.as_ref(), Some(&new), None)?;
    let mut text = String::new();
    diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            text.push(line.origin());
        }
        text.push_str(&String::from_utf8_lossy(line.content()));
        true
    })?;
    Ok(text)
}
