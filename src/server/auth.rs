//! Who calls: bearer tokens over HTTP, names over the socket.

use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::model::{AgentSpec, Named, Principal};
use countersign_core::{Problem, Result};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The agents of the configuration, exchangeable while serving.
pub type SharedAgents = Arc<ArcSwap<Agents>>;

/// The agents that may call.
#[derive(Debug, Clone, Default)]
pub struct Agents(Vec<Agent>);

#[derive(Clone)]
struct Agent {
    principal: Principal,
    token_sha256: Option<[u8; 32]>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let http = self.token_sha256.is_some();
        f.debug_struct("Agent").field("principal", &self.principal).field("http", &http).finish_non_exhaustive()
    }
}

impl Agents {
    /// Reads the specs. `config.agent_token` if a digest is not 64 hex digits or two agents share a token.
    pub fn new(specs: &[Named<AgentSpec>]) -> Result<Self> {
        let mut agents: Vec<Agent> = Vec::with_capacity(specs.len());
        for Named { name, spec } in specs {
            let token_sha256 = spec.token_sha256.as_deref().map(|hex| digest_of_hex(name, hex)).transpose()?;
            if let Some(other) = agents.iter().find(|a| token_sha256.is_some() && a.token_sha256 == token_sha256) {
                return Err(Problem::new(
                    "config.agent_token",
                    format!("Agents {} and {name} have the same token.", other.principal.agent),
                    "Give each agent a token of its own.",
                ));
            }
            let principal = Principal { agent: name.clone(), sponsor: spec.sponsor.clone() };
            agents.push(Agent { principal, token_sha256 });
        }
        Ok(Self(agents))
    }

    /// Ready to be shared and reloaded.
    pub fn shared(self) -> SharedAgents {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Whether anybody can authenticate over HTTP.
    pub fn any_token(&self) -> bool {
        self.0.iter().any(|a| a.token_sha256.is_some())
    }

    /// The agent of that name.
    pub fn by_name(&self, name: &str) -> Option<&Principal> {
        self.0.iter().find(|a| a.principal.agent == name).map(|a| &a.principal)
    }

    /// The agent that holds `token`. Compares digests in constant time and always all of them.
    pub fn by_token(&self, token: &str) -> Option<&Principal> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for agent in &self.0 {
            let same = agent.token_sha256.as_ref().is_some_and(|t| bool::from(t.ct_eq(&digest)));
            if same {
                found = Some(&agent.principal);
            }
        }
        found
    }
}

/// What an `Authorization` header says.
#[derive(Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// There is none.
    Absent,
    /// There is one that is not a bearer token, or more than one.
    Malformed,
    /// A token.
    Token(&'a str),
}

impl<'a> Bearer<'a> {
    /// Reads the headers. The scheme is case-insensitive (RFC 9110 §11.1).
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (values.next(), values.next());
        let Some(value) = first else { return Self::Absent };
        let token = value.to_str().ok().and_then(|v| v.split_once(' '));
        match (token, second) {
            (Some((scheme, token)), None) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
                Self::Token(token.trim())
            }
            _ => Self::Malformed,
        }
    }
}

fn digest_of_hex(agent: &str, hex: &str) -> Result<[u8; 32]> {
    let bad = || {
        Problem::new(
            "config.agent_token",
            format!("token_sha256 of agent {agent} is not 64 hex digits."),
            "Put the SHA-256 of the token there: printf %s \"$TOKEN\" | sha256sum.",
        )
    };
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(bad());
    }
    let mut out = [0u8; 32];
    for (n, byte) in out.iter_mut().enumerate() {
        let digits = hex.get(2 * n..2 * n + 2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok()).ok_or_else(bad)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, token: Option<&str>) -> Named<AgentSpec> {
        let token_sha256 = token.map(|t| Sha256::digest(t).iter().map(|b| format!("{b:02X}")).collect());
        Named { name: name.into(), spec: AgentSpec { sponsor: "alice".into(), token_sha256, sees: vec![] } }
    }

    #[test]
    fn a_token_names_its_agent_and_no_other() {
        let agents = Agents::new(&[spec("a", Some("ta")), spec("b", Some("tb")), spec("c", None)]).unwrap();
        assert_eq!(agents.by_token("tb").unwrap().agent, "b");
        assert_eq!(agents.by_token("tc"), None);
        assert_eq!(agents.by_token(""), None);
        assert!(agents.any_token());
    }

    #[test]
    fn two_agents_with_one_token_are_refused() {
        let problem = Agents::new(&[spec("a", Some("t")), spec("b", Some("t"))]).unwrap_err();
        assert_eq!(problem.code, "config.agent_token");
        assert!(Agents::new(&[spec("a", None), spec("b", None)]).is_ok());
    }

    #[test]
    fn a_digest_that_is_none_is_refused_without_being_shown() {
        for bad in ["plaintext-token", &"+1".repeat(32), &"zz".repeat(32), &"ä".repeat(32)] {
            let mut s = spec("a", None);
            s.spec.token_sha256 = Some(bad.into());
            let problem = Agents::new(&[s]).unwrap_err();
            assert!(!problem.to_string().contains(bad), "{problem}");
        }
    }

    #[test]
    fn digests_are_never_in_debug_output() {
        let agents = Agents::new(&[spec("a", Some("t"))]).unwrap();
        assert!(!format!("{agents:?}").contains("227"), "{agents:?}");
    }

    #[test]
    fn only_one_bearer_token_counts() {
        let headers = |values: &[&str]| {
            let mut h = HeaderMap::new();
            for v in values {
                h.append(AUTHORIZATION, v.parse().unwrap());
            }
            h
        };
        assert_eq!(Bearer::of(&headers(&[])), Bearer::Absent);
        assert_eq!(Bearer::of(&headers(&["bEARER  x "])), Bearer::Token("x"));
        assert_eq!(Bearer::of(&headers(&["Bearer x", "Bearer y"])), Bearer::Malformed);
        assert_eq!(Bearer::of(&headers(&["Basic x"])), Bearer::Malformed);
        assert_eq!(Bearer::of(&headers(&["Bearer"])), Bearer::Malformed);
    }
}
