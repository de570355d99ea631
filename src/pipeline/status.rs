//! The daemon on one screen, and whether it can serve.

use countersign_core::change::Change;
use countersign_core::message;
use countersign_core::model::Engine;
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use super::Pipeline;
use super::meters::{ChannelState, waits_for_a_person};

/// Longest lists on the screen; what is beyond is counted.
const MOST: usize = 20;

/// Name of an engine as answers and labels have it.
pub fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Argocd => "argocd",
        Engine::Flux => "flux",
    }
}

fn problem(p: &Problem) -> Value {
    json!({"code": p.code, "message": p.message, "next": p.next})
}

/// A change that one yes let through and nobody else has looked at yet.
fn to_review(c: &Change) -> Option<Value> {
    let glass = c.glass.as_ref().filter(|g| g.reviewed.is_none())?;
    let what = format!("{} in {}", message::what_short(&c.proposal.fields), c.proposal.cluster);
    Some(json!({"change": c.id.to_string(), "name": c.name(), "state": c.state().name(), "what": what,
        "by": glass.person, "reason": glass.reason}))
}

impl Pipeline {
    /// Why agents cannot be answered now: the journal, then each cluster's watches.
    pub async fn ready(&self) -> Result<()> {
        self.journal.ready().await?;
        match self.clusters.values().find_map(crate::cluster::Cluster::down) {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    fn line(&self, c: &Change, now: i64) -> Value {
        json!({
            "change": c.id.to_string(), "name": c.name(), "state": c.state().name(),
            "what": format!("{} in {}: {}", message::what_short(&c.proposal.fields), c.proposal.cluster, self.waits_for(c)),
            "age_s": (now - c.proposed_at).max(0) / 1000,
        })
    }

    /// `Request::Pending`: what waits for a person, oldest first.
    pub(super) async fn pending(&self) -> Value {
        let now = self.clock.now_ms();
        let waits = |c: &&std::sync::Arc<Change>| waits_for_a_person(c);
        let list: Vec<Value> =
            self.journal.read(|v| v.changes.values().filter(waits).map(|c| self.line(c, now)).collect()).await;
        json!({"pending": list})
    }

    /// `Request::Status`.
    pub(super) async fn status(&self) -> Value {
        let now = self.clock.now_ms();
        let (pending, moving, ended, stopped, reviews) = self
            .journal
            .read(|v| {
                let (open, ended): (Vec<_>, Vec<_>) = v.changes.values().partition(|c| c.is_open());
                let (pending, moving): (Vec<_>, Vec<_>) = open.into_iter().partition(|c| waits_for_a_person(c));
                let lines = |list: Vec<&std::sync::Arc<Change>>| -> Vec<Value> {
                    list.into_iter().map(|c| self.line(c, now)).collect()
                };
                let reviews: Vec<Value> = v.changes.values().filter_map(|c| to_review(c)).collect();
                (lines(pending), lines(moving), ended.len(), v.stopped.clone(), reviews)
            })
            .await;
        let head = self.journal.head().await;
        let journal = self.journal.ready().await;
        let ready = self.ready().await;
        let config = self.config.load();
        let mut clusters = Vec::new();
        for (name, cluster) in &self.clusters {
            clusters.push(self.cluster_status(name, cluster).await);
        }
        let repositories: Vec<Value> = self
            .repos
            .iter()
            .map(|(name, r)| {
                let forge = config
                    .repositories
                    .iter()
                    .find(|c| c.name == *name)
                    .and_then(|c| c.spec.forge.as_ref())
                    .map(|f| json!({"kind": f.kind, "repository": format!("{}/{}", f.owner, f.repo)}));
                json!({"name": name, "address": r.git.url().shown(), "forge": forge})
            })
            .collect();
        json!({
            "say": format!("countersign {}", env!("CARGO_PKG_VERSION")),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.meters.uptime().as_secs(),
            "ready": ready.is_ok(),
            "not_ready": ready.err().as_ref().map(problem),
            "stopped": stopped.map(|(by, why)| json!({"by": by, "why": why})),
            "journal": {"events": head.seq, "problem": journal.err().as_ref().map(problem)},
            "changes": {"pending": pending.len(), "moving": moving.len(), "ended": ended},
            "pending": pending.into_iter().take(MOST).collect::<Vec<_>>(),
            "moving": moving.into_iter().take(MOST).collect::<Vec<_>>(),
            "reviews": reviews.len(),
            "to_review": reviews.into_iter().take(MOST).collect::<Vec<_>>(),
            "clusters": clusters,
            "repositories": repositories,
            "channel": self.channel_status(),
            "kustomize": self.kustomize.is_some(),
            "people": config.people.len(),
            "agents": config.agents.len(),
            "policy": {"rules": config.policies.rules().len(), "version": config.policies.version()},
            "limits": {
                "observe_s": config.bootstrap.times.observe_s, "deliver_s": config.bootstrap.times.deliver_s,
                "stable_s": config.bootstrap.times.stable_s, "poll_s": config.bootstrap.times.poll_s,
            },
        })
    }

    async fn cluster_status(&self, name: &str, cluster: &crate::cluster::Cluster) -> Value {
        let reachable = cluster.ping().await;
        let watches: Vec<Value> = cluster
            .standing()
            .into_iter()
            .map(|w| {
                json!({"kind": w.kind, "state": w.state.name(), "since_s": w.since.as_secs(),
                       "problem": w.problem.as_ref().map(problem)})
            })
            .collect();
        let engines: serde_json::Map<String, Value> = cluster
            .owner_counts()
            .into_iter()
            .map(|(engine, count)| (engine_name(engine).to_owned(), json!({"owners": count.all, "well": count.well})))
            .collect();
        json!({"name": name, "reachable": reachable.is_ok(), "problem": reachable.err().as_ref().map(problem),
               "hints": cluster.spec().hints, "watches": watches, "engines": engines})
    }

    fn channel_status(&self) -> Value {
        if self.telegram.is_none() {
            return Value::Null;
        }
        let (state, why) = match self.meters.channel() {
            ChannelState::Starting => ("starting", None),
            ChannelState::Polling => ("polling", None),
            ChannelState::Failing(p) => ("failing", Some(problem(&p))),
        };
        json!({"kind": "telegram", "state": state, "problem": why})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_named_as_in_answers() {
        for engine in [Engine::Argocd, Engine::Flux] {
            assert_eq!(serde_json::to_value(engine).unwrap(), engine_name(engine));
        }
    }
}
