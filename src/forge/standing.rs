//! Reading what a forge says about a token and a branch. Lenient: what is not said is not known.

use countersign_core::Result;
use http::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;

use super::answer::{self, Call};
use super::wire::Raw;
use super::{BranchStanding, Standing};

#[derive(Deserialize, Default)]
#[serde(default)]
struct RepositoryAnswer {
    permissions: Permissions,
    archived: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Permissions {
    push: Option<bool>,
    admin: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BranchAnswer {
    protected: bool,
    /// Gitea and Forgejo.
    user_can_push: Option<bool>,
    /// Gitea and Forgejo.
    user_can_merge: Option<bool>,
    /// Gitea and Forgejo.
    required_approvals: u64,
}

#[derive(Deserialize)]
struct RuleAnswer {
    #[serde(rename = "type")]
    kind: String,
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

pub(super) fn repository(raw: &Raw, token: &SecretString) -> Result<Standing> {
    let said: RepositoryAnswer = answer::parse(raw, Call::Read, token)?;
    let scopes = header(&raw.headers, "x-oauth-scopes").unwrap_or_default();
    let date = header(&raw.headers, "date").and_then(|d| chrono::DateTime::parse_from_rfc2822(&d).ok());
    Ok(Standing {
        may_push: said.permissions.push,
        is_admin: said.permissions.admin,
        archived: said.archived,
        scopes: scopes.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        expires: header(&raw.headers, "github-authentication-token-expiration"),
        now_ms: date.map(|d| d.timestamp_millis()),
    })
}

pub(super) fn branch(raw: &Raw, token: &SecretString) -> Result<BranchStanding> {
    let said: BranchAnswer = answer::parse(raw, Call::Read, token)?;
    let approvals = (said.required_approvals > 0).then(|| format!("{} approvals", said.required_approvals));
    Ok(BranchStanding {
        protected: said.protected,
        may_push: said.user_can_push,
        may_merge: said.user_can_merge,
        rules: approvals.into_iter().collect(),
    })
}

/// Names of the rules; none where the forge has no such question.
pub(super) fn rules(raw: &Raw, token: &SecretString) -> Vec<String> {
    let said: Vec<RuleAnswer> = answer::parse(raw, Call::Read, token).unwrap_or_default();
    let mut kinds: Vec<String> = said.into_iter().map(|r| r.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn raw(body: &str) -> Raw {
        let mut headers = HeaderMap::new();
        headers.insert("date", "Sat, 21 Nov 2026 16:00:00 GMT".parse().unwrap());
        headers.insert("x-oauth-scopes", "repo, workflow".parse().unwrap());
        Raw { status: StatusCode::OK, headers, body: body.as_bytes().to_vec() }
    }

    fn token() -> SecretString {
        SecretString::from("t".to_owned())
    }

    #[test]
    fn what_is_said_is_read_and_what_is_not_said_is_not_known() {
        let full =
            repository(&raw(r#"{"permissions": {"push": true, "admin": true}, "archived": true}"#), &token()).unwrap();
        assert_eq!((full.may_push, full.is_admin, full.archived), (Some(true), true, true));
        assert_eq!(full.scopes, ["repo", "workflow"]);
        assert_eq!(full.now_ms, Some(1_795_276_800_000));
        let bare = repository(&raw("{}"), &token()).unwrap();
        assert_eq!((bare.may_push, bare.is_admin), (None, false));
    }

    #[test]
    fn branches_of_both_forges_are_read() {
        let gitea = r#"{"protected": true, "user_can_push": false, "user_can_merge": true, "required_approvals": 2}"#;
        let found = branch(&raw(gitea), &token()).unwrap();
        assert_eq!((found.protected, found.may_push, found.may_merge), (true, Some(false), Some(true)));
        assert_eq!(found.rules, ["2 approvals"]);
        let github = branch(&raw(r#"{"name": "main", "protected": false}"#), &token()).unwrap();
        assert_eq!(github, BranchStanding::default());
        let listed = r#"[{"type": "pull_request"}, {"type": "deletion"}, {"type": "deletion"}]"#;
        assert_eq!(rules(&raw(listed), &token()), ["deletion", "pull_request"]);
        assert!(rules(&raw(r#"{"message": "Not Found"}"#), &token()).is_empty());
    }
}
