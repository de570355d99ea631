//! Addresses of repositories: what may be contacted, and which spellings mean the same repository.

use countersign_core::{Problem, Result};

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// ssh, host key pinned.
    Ssh,
    /// https, system roots.
    Https,
    /// Plain http, loopback hosts only.
    Http,
    /// A path on this machine (tests, demo). Its pushes have no compare-and-swap on the far side.
    Local,
}

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    /// Transport.
    pub transport: Transport,
    /// User in the address (ssh); never a password.
    pub user: Option<String>,
    /// Host in lower case, without brackets; empty for local paths.
    pub host: String,
    /// Port, where written.
    pub port: Option<u16>,
    /// Path as written, without leading slash (local: the whole path).
    pub path: String,
    /// What libgit2 is given.
    address: String,
}

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(
        "git.url",
        message,
        "Use ssh://git@HOST/PATH, git@HOST:PATH or https://HOST/PATH in the Repository's `url`.",
    )
}

impl RemoteUrl {
    /// Parses `ssh://`, `https://`, `http://` (loopback only), scp-style, `file://` and absolute paths.
    ///
    /// Errors: `git.url`.
    pub fn parse(text: &str) -> Result<Self> {
        let url = Self::parse_any(text)?;
        let user = url.user.as_deref();
        if user.is_some_and(|u| u.contains(':')) || (url.transport != Transport::Ssh && user.is_some()) {
            return Err(bad("The address holds credentials; they belong in the Repository's `auth`."));
        }
        if url.transport == Transport::Http && !is_loopback(&url.host) {
            return Err(bad("Plain http is accepted for loopback hosts only."));
        }
        Ok(url)
    }

    fn parse_any(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("The repository's address is empty or holds spaces or control characters."));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "ssh" | "git+ssh" | "ssh+git" => Self::hosted(Transport::Ssh, rest),
                "https" => Self::hosted(Transport::Https, rest),
                "http" => Self::hosted(Transport::Http, rest),
                "file" => Self::local(rest),
                other => Err(bad(format!("The scheme `{}` is not supported.", other.escape_debug()))),
            };
        }
        if text.starts_with('/') {
            return Self::local(text);
        }
        match text.split_once(':') {
            Some((authority, path)) if !authority.contains('/') && !path.is_empty() => {
                Self::build(Transport::Ssh, authority, None, path.trim_start_matches('/'))
            }
            _ => Err(bad("The repository's address is neither a URL nor user@host:path.")),
        }
    }

    fn hosted(transport: Transport, rest: &str) -> Result<Self> {
        let (authority, path) = rest.split_once('/').ok_or_else(|| bad("The address has no path."))?;
        if path.contains(['?', '#']) {
            return Err(bad("The address holds a query or a fragment."));
        }
        let (userinfo, hostport) = match authority.rsplit_once('@') {
            Some((u, h)) => (Some(u), h),
            None => (None, authority),
        };
        let (host, port) = split_port(hostport)?;
        let authority = userinfo.map_or_else(|| host.to_owned(), |u| format!("{u}@{host}"));
        Self::build(transport, &authority, port, path)
    }

    fn build(transport: Transport, authority: &str, port: Option<u16>, path: &str) -> Result<Self> {
        let (user, host) = match authority.rsplit_once('@') {
            Some((u, h)) => (Some(u), h),
            None => (None, authority),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if bare.is_empty() || bare.starts_with('-') || bare.contains(['/', '@', '%', '\\']) {
            return Err(bad("The address has no usable host."));
        }
        if user.is_some_and(|u| u.is_empty() || u.starts_with('-')) || path.trim_matches('/').is_empty() {
            return Err(bad("The address has no usable user or path."));
        }
        let scheme = match transport {
            Transport::Ssh => "ssh",
            Transport::Https => "https",
            Transport::Http | Transport::Local => "http",
        };
        let shown = if bare.contains(':') { format!("[{bare}]") } else { bare.clone() };
        let port_text = port.map(|p| format!(":{p}")).unwrap_or_default();
        let user_text = user.map(|u| format!("{u}@")).unwrap_or_default();
        Ok(Self {
            transport,
            user: user.map(str::to_owned),
            host: bare,
            port,
            path: path.to_owned(),
            address: format!("{scheme}://{user_text}{shown}{port_text}/{path}"),
        })
    }

    fn local(path: &str) -> Result<Self> {
        if !path.starts_with('/') {
            return Err(bad("A local repository is named by an absolute path."));
        }
        Ok(Self {
            transport: Transport::Local,
            user: None,
            host: String::new(),
            port: None,
            path: path.to_owned(),
            address: path.to_owned(),
        })
    }

    /// Address as libgit2 takes it; holds no password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Host and path for people; a local path is shown by its last part only.
    pub fn shown(&self) -> String {
        match self.transport {
            Transport::Local => {
                format!("local:{}", self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default())
            }
            _ => format!("{}/{}", self.host, self.path),
        }
    }

    /// What makes two spellings the same repository: host without port and user, path without
    /// `.git` and slashes, without regard to case (argo-cd: util/git/git.go `NormalizeGitURL`; there
    /// https and ssh stay different, here they are one). Local paths keep their case.
    pub fn key(&self) -> (String, String) {
        let path = self.path.trim_matches('/');
        if self.transport == Transport::Local {
            return (String::new(), path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/').to_owned());
        }
        let path = path.to_lowercase();
        let path = path.strip_suffix(".git").unwrap_or(&path).trim_end_matches('/').to_owned();
        (self.host.clone(), path)
    }
}

fn split_port(hostport: &str) -> Result<(&str, Option<u16>)> {
    let after_bracket = hostport.rfind(']').map_or(0, |i| i + 1);
    let Some(colon) = hostport.get(after_bracket..).and_then(|s| s.rfind(':')).map(|i| i + after_bracket) else {
        return Ok((hostport, None));
    };
    let (host, port) = hostport.split_at(colon);
    match port.trim_start_matches(':') {
        "" => Ok((host, None)),
        digits => digits.parse().map(|p| (host, Some(p))).map_err(|_| bad("The port of the address is not a number.")),
    }
}

/// `localhost`, 127.0.0.0/8 and ::1.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether two addresses mean the same repository; unreadable ones mean none.
pub fn same_repo(a: &str, b: &str) -> bool {
    match (RemoteUrl::parse_any(a), RemoteUrl::parse_any(b)) {
        (Ok(a), Ok(b)) => a.key() == b.key(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_repository_are_the_same() {
        let one = "git@github.com:Org/Repo.git";
        for other in [
            "https://github.com/org/repo",
            "https://GitHub.com/Org/Repo.git/",
            "ssh://git@github.com:22/org/repo.git",
            "ssh://github.com/org/repo",
            "github.com:org/repo",
            "https://user@github.com/org/repo",
            "git@github.com:/org/repo",
        ] {
            assert!(same_repo(one, other), "{other}");
        }
    }

    #[test]
    fn different_repositories_are_different() {
        for (a, b) in [
            ("https://a.example/x/y", "https://b.example/x/y"),
            ("https://a.example/x/y", "https://a.example/x/yy"),
            ("https://a.example/x/y", "https://a.example/x/y/z"),
            ("/srv/A", "/srv/a"),
            ("", ""),
            ("nonsense", "nonsense"),
        ] {
            assert!(!same_repo(a, b), "{a} {b}");
        }
        assert!(same_repo("file:///srv/a.git", "/srv/a"));
    }

    #[test]
    fn only_safe_addresses_parse() {
        for ok in [
            "https://h/p",
            "http://127.0.0.1:3000/p",
            "http://localhost/p",
            "http://[::1]:80/p",
            "git@h:p",
            "ssh://h:2222/p",
            "/srv/x.git",
        ] {
            assert!(RemoteUrl::parse(ok).is_ok(), "{ok}");
        }
        for no in [
            "http://example.com/p",
            "git://h/p",
            "ext::sh -c id",
            "https://u:p@h/p",
            "https://tok@h/p",
            "-oProxyCommand=x:p",
            "ssh://-oX/p",
            "ssh://-l@h/p",
            "https://h",
            "https://h/",
            "relative/path",
            "https://h/p?x=1",
            "https://h:99999/p",
            "https:///p",
            "https://h/a\nb",
        ] {
            let e = RemoteUrl::parse(no).expect_err(no);
            assert_eq!(e.code, "git.url", "{no}");
        }
        assert_eq!(RemoteUrl::parse("git@H:o/r").unwrap().address(), "ssh://git@h/o/r");
    }
}
