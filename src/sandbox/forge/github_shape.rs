//! GitHub's JSON, complete enough for strict clients and for its OpenAPI description.

use base64::Engine;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::Shared;
use super::pulls::Look;
use super::state::{Comment, ForgeUser, Pull, PullState, Review, UserKind};
use crate::sandbox::git::CommitInfo;
use crate::sandbox::host::lock;

/// Links below an API object: `https://…/<name>` with GitHub's placeholders.
const REPO_LINKS: [(&str, &str); 36] = [
    ("archive_url", "/{archive_format}{/ref}"),
    ("assignees_url", "/assignees{/user}"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("branches_url", "/branches{/branch}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("comments_url", "/comments{/number}"),
    ("commits_url", "/commits{/sha}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("contents_url", "/contents/{+path}"),
    ("contributors_url", "/contributors"),
    ("deployments_url", "/deployments"),
    ("downloads_url", "/downloads"),
    ("events_url", "/events"),
    ("forks_url", "/forks"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("hooks_url", "/hooks"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("issue_events_url", "/issues/events{/number}"),
    ("issues_url", "/issues{/number}"),
    ("keys_url", "/keys{/key_id}"),
    ("labels_url", "/labels{/name}"),
    ("languages_url", "/languages"),
    ("merges_url", "/merges"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("pulls_url", "/pulls{/number}"),
    ("releases_url", "/releases{/id}"),
    ("stargazers_url", "/stargazers"),
    ("statuses_url", "/statuses/{sha}"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("tags_url", "/tags"),
    ("teams_url", "/teams"),
    ("trees_url", "/git/trees{/sha}"),
];

const USER_LINKS: [(&str, &str); 9] = [
    ("followers_url", "/followers"),
    ("following_url", "/following{/other_user}"),
    ("gists_url", "/gists{/gist_id}"),
    ("starred_url", "/starred{/owner}{/repo}"),
    ("subscriptions_url", "/subscriptions"),
    ("organizations_url", "/orgs"),
    ("repos_url", "/repos"),
    ("events_url", "/events{/privacy}"),
    ("received_events_url", "/received_events"),
];

pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn unix(seconds: i64) -> String {
    time(DateTime::from_timestamp(seconds, 0).unwrap_or_default())
}

fn node(kind: &str, id: u64) -> String {
    format!("{kind}_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id.to_be_bytes()))
}

/// Adds the fields of `more`.
pub(crate) fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

impl Shared {
    fn api(&self, repo: &str) -> String {
        format!("{}/repos/{repo}", self.host.url())
    }

    fn html(&self, repo: &str) -> String {
        format!("{}/{repo}", self.host.url())
    }

    /// A user by login; who is unknown is shown as an account without a history, like an owner.
    pub(crate) fn gh_user(&self, login: &str) -> Value {
        let known = lock(&self.state).by_login(login).cloned();
        let user = known.unwrap_or_else(|| ForgeUser { id: 1, can_write: false, ..ForgeUser::person(login, "") });
        let url = format!("{}/users/{login}", self.host.url());
        let shown = if user.kind == UserKind::Bot { "Bot" } else { "User" };
        let mut map: Map<String, Value> =
            USER_LINKS.iter().map(|(name, tail)| ((*name).to_owned(), json!(format!("{url}{tail}")))).collect();
        let rest = json!({
            "login": login, "id": user.id, "node_id": node("U", user.id), "gravatar_id": "",
            "avatar_url": format!("{}/avatars/{login}", self.host.url()),
            "url": url, "html_url": format!("{}/{login}", self.host.url()),
            "type": shown, "user_view_type": "public", "site_admin": false,
        });
        if let Value::Object(rest) = rest {
            map.extend(rest);
        }
        Value::Object(map)
    }

    /// `GET /user`: the account with its profile.
    pub(crate) fn gh_profile(&self, login: &str) -> Value {
        let mut user = self.gh_user(login);
        let epoch = "2020-01-01T00:00:00Z";
        merge(
            &mut user,
            json!({"name": login, "company": null, "blog": "", "location": null, "email": null, "hireable": null,
                "bio": null, "public_repos": 0, "public_gists": 0, "followers": 0, "following": 0,
                "created_at": epoch, "updated_at": epoch}),
        );
        user
    }

    pub(crate) fn gh_repo(&self, repo: &str) -> Value {
        let (owner, name) = repo.split_once('/').unwrap_or(("", repo));
        let (api, html) = (self.api(repo), self.html(repo));
        let mut map: Map<String, Value> =
            REPO_LINKS.iter().map(|(name, tail)| ((*name).to_owned(), json!(format!("{api}{tail}")))).collect();
        let clone = format!("{}/{repo}.git", self.git_url);
        let epoch = "2020-01-01T00:00:00Z";
        let mut rest = json!({
            "id": 1_296_269, "node_id": node("R", 1_296_269), "name": name, "full_name": repo, "owner": self.gh_user(owner),
            "private": true, "html_url": html, "description": null, "fork": false, "url": api,
            "git_url": clone, "ssh_url": clone, "clone_url": clone, "svn_url": html, "homepage": null, "mirror_url": null,
            "language": null, "forks": 0, "forks_count": 0, "stargazers_count": 0, "watchers": 0, "watchers_count": 0,
            "size": 1,
        });
        let more = json!({
            "default_branch": self.default_branch(repo), "open_issues": 0, "open_issues_count": 0,
            "has_issues": true, "has_projects": false, "has_wiki": false, "has_pages": false, "has_downloads": true,
            "has_discussions": false, "archived": false, "disabled": false, "visibility": "private",
            "is_template": false, "topics": [], "web_commit_signoff_required": false, "allow_forking": true,
            "pushed_at": epoch, "created_at": epoch, "updated_at": epoch, "license": null,
        });
        merge(&mut rest, more);
        if let Value::Object(rest) = rest {
            map.extend(rest);
        }
        Value::Object(map)
    }

    /// `GET /repos/…`: with what only a look at one repository shows.
    pub(crate) fn gh_full_repo(&self, repo: &str) -> Value {
        let mut value = self.gh_repo(repo);
        merge(
            &mut value,
            json!({"network_count": 0, "subscribers_count": 0, "allow_merge_commit": true, "allow_squash_merge": true,
                "allow_rebase_merge": true, "allow_auto_merge": false, "delete_branch_on_merge": false,
                "permissions": {"admin": false, "maintain": false, "push": true, "triage": true, "pull": true}}),
        );
        value
    }

    pub(crate) fn default_branch(&self, repo: &str) -> String {
        let head = self.repos.repository(repo).ok().and_then(|r| {
            let target = r.find_reference("HEAD").ok()?.symbolic_target().ok().flatten()?.to_owned();
            Some(target.trim_start_matches("refs/heads/").to_owned())
        });
        head.unwrap_or_else(|| "main".into())
    }

    fn gh_end(&self, repo: &str, branch: &str, sha: &str) -> Value {
        let owner = repo.split('/').next().unwrap_or_default();
        json!({"label": format!("{owner}:{branch}"), "ref": branch, "sha": sha, "user": self.gh_user(owner), "repo": self.gh_repo(repo)})
    }

    /// A pull request as lists show it.
    pub(crate) fn gh_simple_pull(&self, repo: &str, pull: &Pull) -> Value {
        let n = pull.number;
        let (api, html) = (self.api(repo), self.html(repo));
        let id = 1_000_000 + n;
        let links = [
            ("self", format!("{api}/pulls/{n}")),
            ("html", format!("{html}/pull/{n}")),
            ("issue", format!("{api}/issues/{n}")),
            ("comments", format!("{api}/issues/{n}/comments")),
            ("review_comments", format!("{api}/pulls/{n}/comments")),
            ("review_comment", format!("{api}/pulls/comments{{/number}}")),
            ("commits", format!("{api}/pulls/{n}/commits")),
            ("statuses", format!("{api}/statuses/{}", pull.head_sha)),
        ];
        let links: Map<String, Value> = links.into_iter().map(|(k, v)| (k.to_owned(), json!({"href": v}))).collect();
        json!({
            "url": format!("{api}/pulls/{n}"), "id": id, "node_id": node("PR", id),
            "html_url": format!("{html}/pull/{n}"), "diff_url": format!("{html}/pull/{n}.diff"),
            "patch_url": format!("{html}/pull/{n}.patch"), "issue_url": format!("{api}/issues/{n}"),
            "commits_url": format!("{api}/pulls/{n}/commits"),
            "review_comments_url": format!("{api}/pulls/{n}/comments"),
            "review_comment_url": format!("{api}/pulls/comments{{/number}}"),
            "comments_url": format!("{api}/issues/{n}/comments"),
            "statuses_url": format!("{api}/statuses/{}", pull.head_sha),
            "number": n, "state": pull.state, "locked": false, "active_lock_reason": null, "title": pull.title,
            "user": self.gh_user(&pull.author), "body": pull.body, "labels": [], "milestone": null,
            "assignee": null, "assignees": [], "requested_reviewers": [], "requested_teams": [],
            "created_at": time(pull.created_at), "updated_at": time(pull.updated_at),
            "closed_at": pull.closed_at.map(time), "merged_at": pull.merged.as_ref().map(|m| time(m.at)),
            "merge_commit_sha": pull.merged.as_ref().map(|m| &m.commit),
            "head": self.gh_end(repo, &pull.head, &pull.head_sha), "base": self.gh_end(repo, &pull.base, &pull.base_sha),
            "_links": links, "author_association": "CONTRIBUTOR", "auto_merge": null, "draft": pull.draft,
        })
    }

    /// A pull request as a look at it shows it.
    pub(crate) fn gh_pull(&self, repo: &str, pull: &Pull, look: &Look) -> Value {
        let mut value = self.gh_simple_pull(repo, pull);
        let mergeable_state = match look.mergeable {
            None => "unknown",
            Some(false) => "dirty",
            Some(true) if look.blocked => "blocked",
            Some(true) => "clean",
        };
        let by = pull.merged.as_ref().and_then(|m| m.by.as_deref()).map(|login| self.gh_user(login));
        merge(
            &mut value,
            json!({"merged": pull.merged.is_some(), "mergeable": look.mergeable, "rebaseable": look.mergeable,
                "mergeable_state": mergeable_state, "merged_by": by, "comments": look.comments, "review_comments": 0,
                "maintainer_can_modify": false, "commits": look.figures.commits, "additions": look.figures.additions,
                "deletions": look.figures.deletions, "changed_files": look.figures.files}),
        );
        value
    }

    /// The issue side of a pull request.
    pub(crate) fn gh_issue(&self, repo: &str, pull: &Pull, comments: usize) -> Value {
        let n = pull.number;
        let (api, html) = (self.api(repo), self.html(repo));
        json!({
            "id": 2_000_000 + n, "node_id": node("I", 2_000_000 + n), "url": format!("{api}/issues/{n}"),
            "repository_url": api, "labels_url": format!("{api}/issues/{n}/labels{{/name}}"),
            "comments_url": format!("{api}/issues/{n}/comments"), "events_url": format!("{api}/issues/{n}/events"),
            "html_url": format!("{html}/pull/{n}"), "number": n, "state": pull.state, "state_reason": null,
            "title": pull.title, "body": pull.body, "user": self.gh_user(&pull.author), "labels": [],
            "assignee": null, "assignees": [], "milestone": null, "locked": false, "active_lock_reason": null,
            "comments": comments, "closed_at": pull.closed_at.map(time), "created_at": time(pull.created_at),
            "updated_at": time(pull.updated_at), "author_association": "CONTRIBUTOR",
            "pull_request": {"url": format!("{api}/pulls/{n}"), "html_url": format!("{html}/pull/{n}"),
                "diff_url": format!("{html}/pull/{n}.diff"), "patch_url": format!("{html}/pull/{n}.patch"),
                "merged_at": pull.merged.as_ref().map(|m| time(m.at))},
        })
    }

    pub(crate) fn gh_comment(&self, repo: &str, comment: &Comment) -> Value {
        let (api, html) = (self.api(repo), self.html(repo));
        json!({
            "id": comment.id, "node_id": node("IC", comment.id), "url": format!("{api}/issues/comments/{}", comment.id),
            "html_url": format!("{html}/pull/{}#issuecomment-{}", comment.number, comment.id), "body": comment.body,
            "user": self.gh_user(&comment.author), "created_at": time(comment.created_at),
            "updated_at": time(comment.created_at), "issue_url": format!("{api}/issues/{}", comment.number),
            "author_association": "CONTRIBUTOR", "performed_via_github_app": null,
        })
    }

    pub(crate) fn gh_review(&self, repo: &str, review: &Review) -> Value {
        let (api, html) = (self.api(repo), self.html(repo));
        let page = format!("{html}/pull/{}#pullrequestreview-{}", review.number, review.id);
        let pull = format!("{api}/pulls/{}", review.number);
        json!({
            "id": review.id, "node_id": node("PRR", review.id), "user": self.gh_user(&review.author), "body": review.body,
            "state": review.verdict, "html_url": page, "pull_request_url": pull, "commit_id": review.commit,
            "submitted_at": time(review.submitted_at), "author_association": "COLLABORATOR",
            "_links": {"html": {"href": page}, "pull_request": {"href": pull}},
        })
    }

    pub(crate) fn gh_commit(&self, repo: &str, commit: &CommitInfo) -> Value {
        let (api, html) = (self.api(repo), self.html(repo));
        let id = &commit.id;
        let parents: Vec<_> = commit
            .parents
            .iter()
            .map(|p| json!({"sha": p, "url": format!("{api}/commits/{p}"), "html_url": format!("{html}/commit/{p}")}))
            .collect();
        let reason = if commit.signed { "unknown_key" } else { "unsigned" };
        json!({
            "sha": id, "node_id": format!("C_{id}"), "url": format!("{api}/commits/{id}"),
            "html_url": format!("{html}/commit/{id}"), "comments_url": format!("{api}/commits/{id}/comments"),
            "author": null, "committer": null, "parents": parents,
            "commit": {
                "url": format!("{api}/git/commits/{id}"), "message": commit.message, "comment_count": 0,
                "author": {"name": commit.author.name, "email": commit.author.email, "date": unix(commit.authored)},
                "committer": {"name": commit.committer.name, "email": commit.committer.email, "date": unix(commit.committed)},
                "tree": {"sha": commit.tree, "url": format!("{api}/git/trees/{}", commit.tree)},
                "verification": {"verified": false, "reason": reason, "signature": null, "payload": null, "verified_at": null},
            },
        })
    }

    pub(crate) fn gh_branch(&self, repo: &str, branch: &str, commit: &CommitInfo) -> Value {
        let api = self.api(repo);
        let protected = self.repos.is_protected(repo, branch);
        json!({
            "name": branch, "commit": self.gh_commit(repo, commit), "protected": protected,
            "protection": {"enabled": protected, "required_status_checks": {"enforcement_level": "off", "contexts": [], "checks": []}},
            "protection_url": format!("{api}/branches/{branch}/protection"),
            "_links": {"self": format!("{api}/branches/{branch}"), "html": format!("{}/tree/{branch}", self.html(repo))},
        })
    }

    pub(crate) fn gh_ref(&self, repo: &str, reference: &str, sha: &str) -> Value {
        let api = self.api(repo);
        json!({
            "ref": format!("refs/{reference}"), "node_id": format!("REF_{sha}"), "url": format!("{api}/git/refs/{reference}"),
            "object": {"type": "commit", "sha": sha, "url": format!("{api}/git/commits/{sha}")},
        })
    }
}

/// The state filter of lists.
pub(crate) fn wanted(state: Option<&str>, pull: &Pull) -> bool {
    match state.unwrap_or("open") {
        "all" => true,
        "closed" => pull.state == PullState::Closed,
        _ => pull.state == PullState::Open,
    }
}
