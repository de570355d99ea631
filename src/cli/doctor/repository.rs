//! One repository: reading, pushing as far as it can be tried, the forge's token, the branches' rules.

use countersign_core::Problem;
use countersign_core::model::{Named, RepositorySpec};

use super::{Check, Looks};
use crate::clock::Clock;
use crate::config::Config;
use crate::forge::{self, Forge};
use crate::git::GitRepo;

/// Days before the end of a token at which it is worth a word.
const SOON_DAYS: i64 = 14;

pub async fn examine(config: &Config, named: &Named<RepositorySpec>, clock: &Clock) -> Vec<Check> {
    let mut looks = Looks::at(format!("repository {}", named.name));
    let default = git(config, named, &mut looks).await;
    if let Some(spec) = &named.spec.forge {
        let token = config.secret(&format!("the forge of {}", named.name), &spec.token);
        let client = token.and_then(|token| forge::connect(spec, token));
        if let Some(client) = looks.tried("the forge's token is there", client) {
            at_forge(&*client, named, default.as_deref(), clock, &mut looks).await;
        }
    } else {
        looks.ok("no forge is configured: delivery is direct only");
    }
    looks.checks
}

/// Reads and knocks; gives the default branch.
async fn git(config: &Config, named: &Named<RepositorySpec>, looks: &mut Looks) -> Option<String> {
    let credentials = match crate::app::credentials(&config.base, &named.name, &named.spec.auth) {
        Ok(credentials) => credentials,
        Err(problem) => {
            looks.bad(problem);
            return None;
        }
    };
    // A mirror of its own: the daemon may be using the other one.
    let Ok(dir) = tempfile::tempdir() else {
        looks.bad(Problem::new(
            "git.mirror",
            "The repository's mirror cannot be made.",
            "Make room for temporary files.",
        ));
        return None;
    };
    let opened = GitRepo::open(&named.name, &named.spec.url, credentials, &dir.path().join("mirror")).await;
    let repo = match opened {
        Ok(repo) => repo,
        Err(problem) => {
            looks.bad(problem);
            return None;
        }
    };
    let default = repo.resolve_head_branch().await;
    let branch = default.as_ref().map(|b| b.trim_start_matches("refs/heads/").to_owned()).unwrap_or_default();
    looks.tried(format!("{} can be read; its default branch is {branch}", repo.url().shown()), default)?;
    let knocked = repo.try_push_access().await;
    looks.tried(
        "the credential is let in to push (a dry run: hooks and branch rules answer only to a real commit)",
        knocked,
    );
    Some(branch)
}

async fn at_forge(
    client: &dyn Forge,
    named: &Named<RepositorySpec>,
    default: Option<&str>,
    clock: &Clock,
    looks: &mut Looks,
) {
    let asked = clock.now_ms();
    let Some(standing) = looks.tried("the forge's API knows the repository", client.standing().await) else { return };
    looks.clock(asked, clock.now_ms(), standing.now_ms);
    if standing.archived {
        looks.bad(Problem::new(
            "forge.archived",
            "The repository is archived: it takes no changes.",
            "Unarchive it, or remove the Repository.",
        ));
    }
    match standing.may_push {
        Some(true) => looks.ok("the token may write to the repository"),
        Some(false) => looks.bad(Problem::new(
            "forge.auth",
            "The token may read the repository, but not write to it.",
            "Give it the rights of docs/git-auth.md (contents and pull requests, read and write).",
        )),
        None => {}
    }
    if standing.is_admin {
        looks.soft(Problem::new(
            "rights.more",
            "The token's account administers the repository: it could switch branch rules off.",
            "Use an account of its own with write access only.",
        ));
    }
    if standing.scopes.iter().any(|s| s == "workflow" || s.starts_with("admin:") || s == "delete_repo") {
        let say = format!("The token has scopes that Countersign never needs: {}.", standing.scopes.join(", "));
        looks.soft(Problem::new("rights.more", say, "Use a fine-grained token (docs/git-auth.md)."));
    }
    if let Some(expires) = &standing.expires {
        expiry(expires, clock.now_ms(), looks);
    }
    let pulls = client.find_pull("countersign/doctor", default.unwrap_or("main")).await;
    looks.tried("the token may read pull requests (writing them cannot be tried without one)", pulls);
    let mut branches = named.spec.branches.clone();
    if branches.is_empty() {
        branches.extend(default.map(str::to_owned));
    }
    for branch in branches {
        self::branch(client, &branch, looks).await;
    }
}

/// `2026-12-01 10:00:00 UTC`, as GitHub writes it.
fn expiry(expires: &str, now: i64, looks: &mut Looks) {
    let day = expires.get(..10).and_then(|d| chrono::NaiveDate::parse_from_str(d, "%Y-%m-%d").ok());
    let at = day.and_then(|d| d.and_hms_opt(0, 0, 0)).map(|d| d.and_utc().timestamp_millis());
    let Some(days) = at.map(|at| (at - now) / 86_400_000) else { return };
    if days < SOON_DAYS {
        let say = format!("The forge's token expires on {}.", expires.get(..10).unwrap_or_default());
        looks.soft(Problem::new("forge.token_expires", say, "Renew it, and restart the daemon."));
    } else {
        looks.ok(format!("the forge's token is good for {days} days"));
    }
}

async fn branch(client: &dyn Forge, branch: &str, looks: &mut Looks) {
    let standing = match client.branch_standing(branch).await {
        Ok(standing) => standing,
        Err(problem) => return looks.soft(problem),
    };
    let rules = if standing.rules.is_empty() { String::new() } else { format!(" ({})", standing.rules.join(", ")) };
    match (standing.protected, standing.may_push) {
        (false, _) => looks.soft(Problem::new(
            "forge.branch_open",
            format!("The branch {branch} has no rules: everybody with write access can push past Countersign."),
            "Protect it, and let only Countersign's account push (docs/git-auth.md, Branch protection).",
        )),
        (true, Some(false)) => looks.soft(Problem::new(
            "forge.branch_closed",
            format!("The branch {branch} is protected{rules}, and this account may not push to it."),
            "Rules with `deliver: direct` will fail there: use a pull request, or allow the account.",
        )),
        (true, Some(true)) => looks.ok(format!("the branch {branch} is protected{rules}, and this account may push")),
        (true, None) => looks.ok(format!(
            "the branch {branch} is protected{rules}; whether this account may push shows at the first delivery"
        )),
    }
    if standing.may_merge == Some(false) {
        looks.soft(Problem::new(
            "forge.may_not_merge",
            format!("This account may not merge into {branch}."),
            "Rules with `deliver: merge_after_approval` will fail there: allow the account.",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Outcome;

    #[test]
    fn a_token_that_ends_soon_is_told() {
        let now = 1_795_276_800_000; // 2026-11-21
        for (expires, outcome) in [
            ("2026-11-25 10:00:00 UTC", Some(Outcome::Warning)),
            ("2026-11-01 10:00:00 UTC", Some(Outcome::Warning)),
            ("2027-11-01 10:00:00 UTC", Some(Outcome::Ok)),
            ("someday", None),
        ] {
            let mut looks = Looks::at("x");
            expiry(expires, now, &mut looks);
            assert_eq!(looks.checks.first().map(|c| c.outcome), outcome, "{expires}");
        }
    }
}
