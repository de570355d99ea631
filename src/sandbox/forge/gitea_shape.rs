//! Gitea's JSON (also Forgejo's): no node ids, users with a `login`, merge state in plain fields.

use serde_json::{Value, json};

use super::Shared;
use super::github_shape::{merge, time};
use super::pulls::Look;
use super::state::{Comment, ForgeUser, Pull, Review, Verdict};
use crate::sandbox::git::CommitInfo;
use crate::sandbox::host::lock;

impl Shared {
    fn tea_html(&self, repo: &str) -> String {
        format!("{}/{repo}", self.host.url())
    }

    pub(crate) fn tea_user(&self, login: &str) -> Value {
        let known = lock(&self.state).by_login(login).cloned();
        let user = known.unwrap_or_else(|| ForgeUser { id: 1, ..ForgeUser::person(login, "") });
        json!({
            "id": user.id, "login": login, "login_name": "", "source_id": 0, "full_name": "",
            "email": format!("{login}@noreply.forge.sandbox"), "avatar_url": format!("{}/avatars/{login}", self.host.url()),
            "html_url": format!("{}/{login}", self.host.url()), "language": "", "is_admin": false,
            "last_login": "2020-01-01T00:00:00Z", "created": "2020-01-01T00:00:00Z", "restricted": false, "active": true,
            "prohibit_login": false, "location": "", "website": "", "description": "", "visibility": "public",
            "followers_count": 0, "following_count": 0, "starred_repos_count": 0, "username": login,
        })
    }

    pub(crate) fn tea_repo(&self, repo: &str) -> Value {
        let (owner, name) = repo.split_once('/').unwrap_or(("", repo));
        let html = self.tea_html(repo);
        let clone = format!("{}/{repo}.git", self.git_url);
        let mut value = json!({
            "id": 1, "owner": self.tea_user(owner), "name": name, "full_name": repo, "description": "", "empty": false,
            "private": true, "fork": false, "template": false, "parent": null, "mirror": false, "size": 1, "language": "",
            "languages_url": format!("{}/api/v1/repos/{repo}/languages", self.host.url()), "html_url": html,
            "url": format!("{}/api/v1/repos/{repo}", self.host.url()), "link": "", "ssh_url": clone, "clone_url": clone,
            "original_url": "", "website": "", "stars_count": 0, "forks_count": 0, "watchers_count": 0,
        });
        let more = json!({
            "open_issues_count": 0, "open_pr_counter": 0, "release_counter": 0,
            "default_branch": self.default_branch(repo), "archived": false,
            "created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z",
            "permissions": {"admin": false, "push": true, "pull": true}, "has_issues": true, "has_wiki": false,
            "has_pull_requests": true, "has_projects": false, "ignore_whitespace_conflicts": false,
            "allow_merge_commits": true, "allow_rebase": true, "allow_rebase_explicit": true, "allow_squash_merge": true,
            "allow_fast_forward_only_merge": true, "default_merge_style": "merge", "default_delete_branch_after_merge": false,
            "object_format_name": "sha1",
        });
        merge(&mut value, more);
        value
    }

    fn tea_end(&self, repo: &str, branch: &str, sha: &str) -> Value {
        json!({"label": branch, "ref": branch, "sha": sha, "repo_id": 1, "repo": self.tea_repo(repo)})
    }

    pub(crate) fn tea_pull(&self, repo: &str, pull: &Pull, look: &Look) -> Value {
        let html = format!("{}/pulls/{}", self.tea_html(repo), pull.number);
        json!({
            "id": 1000 + pull.number, "url": html, "number": pull.number, "user": self.tea_user(&pull.author),
            "title": pull.title, "body": pull.body.clone().unwrap_or_default(), "labels": [], "milestone": null,
            "assignee": null, "assignees": null, "requested_reviewers": [], "requested_reviewers_teams": [],
            "state": pull.state, "draft": pull.draft, "is_locked": false, "comments": look.comments,
            "additions": look.figures.additions, "deletions": look.figures.deletions, "changed_files": look.figures.files,
            "html_url": html, "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
            "mergeable": look.mergeable.unwrap_or(false), "merged": pull.merged.is_some(),
            "merged_at": pull.merged.as_ref().map(|m| time(m.at)),
            "merge_commit_sha": pull.merged.as_ref().map(|m| &m.commit),
            "merged_by": pull.merged.as_ref().and_then(|m| m.by.as_deref()).map(|login| self.tea_user(login)),
            "allow_maintainer_edit": false, "base": self.tea_end(repo, &pull.base, &pull.base_sha),
            "head": self.tea_end(repo, &pull.head, &pull.head_sha), "merge_base": look.merge_base, "due_date": null,
            "created_at": time(pull.created_at), "updated_at": time(pull.updated_at),
            "closed_at": pull.closed_at.map(time), "pin_order": 0,
        })
    }

    pub(crate) fn tea_comment(&self, repo: &str, comment: &Comment) -> Value {
        let html = format!("{}/pulls/{}", self.tea_html(repo), comment.number);
        json!({
            "id": comment.id, "html_url": format!("{html}#issuecomment-{}", comment.id), "pull_request_url": html,
            "issue_url": "", "user": self.tea_user(&comment.author), "original_author": "", "original_author_id": 0,
            "body": comment.body, "assets": [], "created_at": time(comment.created_at),
            "updated_at": time(comment.created_at),
        })
    }

    pub(crate) fn tea_review(&self, repo: &str, review: &Review) -> Value {
        let html = format!("{}/pulls/{}", self.tea_html(repo), review.number);
        let state = match review.verdict {
            Verdict::Approved | Verdict::Dismissed => "APPROVED",
            Verdict::ChangesRequested => "REQUEST_CHANGES",
            Verdict::Commented => "COMMENT",
        };
        json!({
            "id": review.id, "user": self.tea_user(&review.author), "team": null, "state": state, "body": review.body,
            "commit_id": review.commit, "stale": review.verdict == Verdict::Dismissed, "official": true,
            "dismissed": review.verdict == Verdict::Dismissed, "comments_count": 0,
            "submitted_at": time(review.submitted_at), "updated_at": time(review.submitted_at),
            "html_url": format!("{html}#issuecomment-{}", review.id), "pull_request_url": html,
        })
    }

    pub(crate) fn tea_branch(&self, repo: &str, branch: &str, commit: &CommitInfo) -> Value {
        let stamp = |seconds: i64| time(chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default());
        let person = |who: &crate::sandbox::git::Author| json!({"name": who.name, "email": who.email, "username": ""});
        let protected = self.repos.is_protected(repo, branch);
        json!({
            "name": branch,
            "commit": {
                "id": commit.id, "message": commit.message, "url": format!("{}/commit/{}", self.tea_html(repo), commit.id),
                "author": person(&commit.author), "committer": person(&commit.committer),
                "verification": {"verified": false, "reason": "gpg.error.not_signed_commit", "signature": "", "signer": null, "payload": ""},
                "timestamp": stamp(commit.committed), "added": null, "removed": null, "modified": null,
            },
            "protected": protected, "required_approvals": self.protection(repo, branch).map_or(0, |p| p.required_approvals),
            "enable_status_check": false, "status_check_contexts": [], "user_can_push": !protected,
            "user_can_merge": true, "effective_branch_protection_name": if protected { branch } else { "" },
        })
    }
}
