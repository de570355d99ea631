//! observe: the owner is watched, and the judge says what became of this very commit.

use std::collections::BTreeSet;
use std::pin::Pin;

use countersign_core::change::{Change, Landed};
use countersign_core::manifest::documents;
use countersign_core::model::{Body, ChangeId, Code, ObjectKey, SourceKind, Verdict, Want};
use countersign_core::verdict::{Act, Deliverer, JudgeConfig, Line, Panel, VerdictChange};
use countersign_core::{Problem, Result};
use futures::{Stream, StreamExt};
use serde_json::Value;
use tokio::sync::broadcast;

use super::commit::unlike_sealed;
use super::effect::key_of;
use super::{ACTOR, Pipeline, fault};

/// API group of HelmReleases.
const HELM: &str = "helm.toolkit.fluxcd.io";
/// Begins what is said while there is no watch.
const CANNOT_WATCH: &str = "The cluster cannot be watched now";
/// Begins what is said while the landed commit cannot be looked at.
const CANNOT_READ: &str = "The landed commit cannot be read now";
/// Commits by others that are looked at, at the most.
const OTHERS: usize = 200;

/// One change's judges with their feed. Lives in the worker, so that a pause loses nothing; after a
/// restart the feed begins anew with the objects as they are.
pub(super) struct Watching {
    judge: Panel,
    feed: Pin<Box<dyn Stream<Item = Result<Value>> + Send>>,
    /// Commits that the judge was told of, and revisions that are no commits of this branch.
    known: BTreeSet<String>,
    looked_at: i64,
}

/// Why there is no watch.
fn unwatched(problem: &Problem) -> Code {
    if problem.code == "cluster.forbidden" { Code::NotReadable } else { Code::EngineDown }
}

impl Pipeline {
    /// `Step::Observe`: until the verdict changes, the change moves, or the time has come.
    pub(super) async fn observe(
        &self,
        change: &Change,
        until: i64,
        watching: &mut Option<Watching>,
        news: &mut broadcast::Receiver<Option<ChangeId>>,
    ) -> Result<()> {
        let Some(landed) = &change.landed else { return Ok(()) };
        if watching.is_none() && !self.take_up(change, landed, until, watching, news).await? {
            return Ok(());
        }
        let Some(w) = watching.as_mut() else { return Ok(()) };
        let poll_ms = self.limits().poll_ms;
        loop {
            let now = self.clock.now_ms();
            if now >= until {
                return Ok(());
            }
            let wake = w.judge.next_deadline().unwrap_or(until).min(until).min(w.looked_at + poll_ms).max(now + 1);
            let lines: Vec<Line> = tokio::select! {
                item = w.feed.next() => match item {
                    Some(Ok(v)) => self.lines(change, w, v).await,
                    Some(Err(problem)) => {
                        // Begun anew until the right is there: a verdict without what is hidden would be a guess.
                        *watching = None;
                        return self.cannot(CANNOT_WATCH, unwatched(&problem), change, problem).await;
                    }
                    None => {
                        *watching = None;
                        return Ok(());
                    }
                },
                () = self.clock.sleep_until(wake) => {
                    if self.clock.now_ms() >= w.looked_at + poll_ms {
                        w.looked_at = self.clock.now_ms();
                        self.others(change, w).await
                    } else {
                        Vec::new()
                    }
                },
                heard = news.recv() => match heard {
                    Ok(Some(id)) if id == change.id => return Ok(()),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        if self.journal.change(change.id).await.is_none_or(|c| c.n != change.n) {
                            return Ok(());
                        }
                        Vec::new()
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            };
            let now = self.clock.now_ms();
            let mut moved: Vec<VerdictChange> = Vec::new();
            for line in lines {
                moved.extend(w.judge.feed(now, &line));
            }
            moved.extend(w.judge.advance(now));
            if let Some(last) = moved.into_iter().rfind(|m| m.commit == landed.commit)
                && self.observed(change, last.verdict, last.code, &last.say).await?
            {
                return Ok(());
            }
        }
    }

    /// Looks at what landed and begins the watch; `false` where there is nothing to judge now.
    async fn take_up(
        &self,
        change: &Change,
        landed: &Landed,
        until: i64,
        watching: &mut Option<Watching>,
        news: &mut broadcast::Receiver<Option<ChangeId>>,
    ) -> Result<bool> {
        match self.landed_otherwise(change, landed).await {
            Ok(None) => {}
            Ok(Some(say)) => {
                if !self.observed(change, Verdict::Failed, Code::LandedOtherwise, &say).await? {
                    tokio::select! {
                        () = self.clock.sleep_until(until) => {}
                        _ = news.recv() => {}
                    }
                }
                return Ok(false);
            }
            Err(problem) => {
                return self.cannot(CANNOT_READ, Code::CommitUnread, change, problem).await.map(|()| false);
            }
        }
        let (w, first) = match self.begin_watch(change, landed).await {
            Ok(begun) => begun,
            Err(problem) => {
                return self.cannot(CANNOT_WATCH, unwatched(&problem), change, problem).await.map(|()| false);
            }
        };
        *watching = Some(w);
        // What is written last may be that nothing can be watched, which is over.
        let over = |say: &str| [CANNOT_WATCH, CANNOT_READ].iter().any(|c| say.starts_with(c));
        if let Some(first) = first
            && change.seen.as_ref().is_some_and(|s| over(&s.say))
            && self.observed(change, first.verdict, first.code, &first.say).await?
        {
            return Ok(false);
        }
        Ok(true)
    }

    /// Writes a new verdict; `false` where it is the one already written.
    async fn observed(&self, change: &Change, verdict: Verdict, code: Code, say: &str) -> Result<bool> {
        let say = self.redactor.redact_text(say);
        if change.seen.as_ref().is_some_and(|s| s.verdict == verdict && s.code == code && s.say == say) {
            return Ok(false);
        }
        let body = Body::Observed { verdict, code, say };
        fault::point("before_observed");
        self.journal.append(self.clock.now_ms(), change.id, ACTOR, vec![body]).await?;
        fault::point("after_observed");
        Ok(true)
    }

    async fn cannot(&self, what: &str, code: Code, change: &Change, problem: Problem) -> Result<()> {
        let say = format!("{what}: {}", problem.message);
        if !self.observed(change, Verdict::Waiting, code, &say).await? {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
        Ok(())
    }

    /// What landed otherwise than it was sealed. A forge merges onto whatever the branch holds by then: where somebody
    /// wrote to the same file after our last look, more landed than anybody was shown, and that is not called healthy.
    async fn landed_otherwise(&self, change: &Change, landed: &Landed) -> Result<Option<String>> {
        let repo = self.repo(&change.sealed.repository)?;
        if !repo.git.has_commit(&landed.commit).await? {
            repo.git.fetch(&change.sealed.git_ref).await?;
        }
        Ok(unlike_sealed(change, repo, &landed.commit).await?.map(|path| {
            format!(
                "{path} is not in {} as it was approved: somebody wrote to it before the merge, and both landed. Look at that commit.",
                landed.commit
            )
        }))
    }

    /// The watch, and the judge's first word about the landed commit.
    async fn begin_watch(&self, change: &Change, landed: &Landed) -> Result<(Watching, Option<VerdictChange>)> {
        let p = &change.proposal;
        let cluster = self.cluster(&p.cluster)?;
        let objects: BTreeSet<ObjectKey> =
            p.want.iter().map(|w| ObjectKey::new(&w.group, &w.kind, &w.namespace, &w.name)).collect();
        let feed = cluster.watch_owner(&p.owner, objects.into_iter().collect()).await?;
        let stable_ms = i64::from(self.config.load().bootstrap.times.stable_s) * 1000;
        let deliverers = deliverers(change);
        let by = deliverers.first().cloned();
        let mut judge = Panel::new(JudgeConfig { stable_ms }, deliverers);
        let mut known = BTreeSet::new();
        let now = self.clock.now_ms();
        let mut act = |commit: &str, parent: Option<&str>, ours: bool| {
            known.insert(commit.to_owned());
            let act = Act {
                did: if ours { change.name() } else { "earlier commit".into() },
                commit: Some(commit.to_owned()),
                parent: parent.map(str::to_owned),
                parents: Vec::new(),
                owner: by.clone().filter(|_| ours),
                want: ours.then(|| p.want.clone()),
            };
            judge.feed(now, &Line::Act(act))
        };
        let deployed = p.source.deployed.as_deref().filter(|d| *d != change.base && *d != landed.commit);
        if let Some(d) = deployed {
            act(d, None, false);
        }
        act(&change.base, deployed, false);
        let first = act(&landed.commit, Some(&change.base), true).into_iter().rfind(|m| m.commit == landed.commit);
        Ok((Watching { judge, feed: Box::pin(feed), known, looked_at: 0 }, first))
    }

    /// A watch event as the judge's line, after whatever commits it names for the first time.
    async fn lines(&self, change: &Change, w: &mut Watching, event: Value) -> Vec<Line> {
        let mut out = Vec::new();
        let mut revisions = Vec::new();
        if let Some(status) = event.pointer("/object/status") {
            hashes(status, &mut revisions);
        }
        if revisions.iter().any(|r| !w.known.contains(r)) {
            out.extend(self.others(change, w).await);
            w.known.extend(revisions);
        }
        match serde_json::from_value(event) {
            Ok(line) => out.push(line),
            Err(e) => tracing::debug!("a watch event could not be read: {e}"),
        }
        out
    }

    /// Later commits on the branch, as acts. One that sets a wanted field otherwise says so.
    async fn others(&self, change: &Change, w: &mut Watching) -> Vec<Line> {
        match self.later_commits(change, w).await {
            Ok(lines) => lines,
            Err(problem) => {
                tracing::debug!(change = %change.id, code = %problem.code, "{}", problem.message);
                Vec::new()
            }
        }
    }

    async fn later_commits(&self, change: &Change, w: &mut Watching) -> Result<Vec<Line>> {
        let Some(landed) = &change.landed else { return Ok(Vec::new()) };
        let repo = self.repo(&change.sealed.repository)?;
        let tip = repo.git.fetch(&change.sealed.git_ref).await?;
        if w.known.contains(&tip) {
            return Ok(Vec::new());
        }
        let range = repo.git.commits_between(&landed.commit, &tip, OTHERS).await?;
        let mut out = Vec::new();
        for c in range.commits {
            if !w.known.insert(c.id.clone()) {
                continue;
            }
            let want = self.other_want(change, &c.id).await.unwrap_or(None);
            let mut parents = c.parents.into_iter();
            out.push(Line::Act(Act {
                did: "a later commit".into(),
                commit: Some(c.id),
                parent: parents.next(),
                parents: parents.collect(),
                owner: want.as_ref().and_then(|_| deliverers(change).into_iter().next()),
                want,
            }));
        }
        Ok(out)
    }

    /// What another commit wants of our fields, where it differs from ours.
    async fn other_want(&self, change: &Change, commit: &str) -> Result<Option<Vec<Want>>> {
        let repo = self.repo(&change.sealed.repository)?;
        if unlike_sealed(change, repo, commit).await?.is_none() {
            return Ok(None);
        }
        let p = &change.proposal;
        let files = self.snapshot(repo, commit, &p.source.path).await?;
        let kustomized =
            countersign_core::manifest::SourceTree::detect(&files, &p.source.path) == SourceKind::Kustomize;
        let objects: Vec<Value> = if kustomized {
            match &self.kustomize {
                Some(k) => k.render(&files, &p.source.path).await?,
                None => return Ok(None),
            }
        } else {
            files.values().filter_map(|b| documents(b).ok()).flatten().map(|d| d.value).collect()
        };
        let mut want = Vec::new();
        for w in &p.want {
            let key = ObjectKey::new(&w.group, &w.kind, &w.namespace, &w.name);
            let object = objects.iter().find(|o| {
                key_of(o).is_some_and(|k| {
                    k.group == key.group
                        && k.kind == key.kind
                        && k.name == key.name
                        && (k.namespace.is_empty() || k.namespace == key.namespace)
                })
            });
            let now = object.and_then(|o| if w.path.is_empty() { Some(o.clone()) } else { at(o, &w.path) });
            match (&w.value, now) {
                (Some(v), Some(n)) if *v == n => {}
                (Some(_), Some(n)) => want.push(Want { value: Some(n), ..w.clone() }),
                (Some(_), None) => want.push(Want { value: None, exists: Some(false), ..w.clone() }),
                (None, Some(n)) if w.exists == Some(false) => {
                    want.push(Want { exists: None, value: (!w.path.is_empty()).then_some(n), ..w.clone() });
                }
                (None, None) if w.exists != Some(false) => want.push(Want { exists: Some(false), ..w.clone() }),
                _ => {}
            }
        }
        Ok((!want.is_empty()).then_some(want))
    }
}

/// Whose word on a commit counts. A HelmRelease that a Kustomization applies is only the beginning: the
/// release itself has to succeed, and the judge looks at both then.
fn deliverers(change: &Change) -> Vec<Deliverer> {
    let p = &change.proposal;
    let released = |w: &&Want| {
        p.owner.kind == "Kustomization" && w.kind == "HelmRelease" && w.group == HELM && w.exists != Some(false)
    };
    let releases: BTreeSet<Deliverer> = p
        .want
        .iter()
        .filter(released)
        .map(|w| Deliverer { kind: w.kind.clone(), namespace: w.namespace.clone(), name: w.name.clone() })
        .collect();
    if releases.is_empty() { vec![Deliverer::from(&p.owner)] } else { releases.into_iter().collect() }
}

/// The value at a pointer whose list steps may be names (`name=app`).
fn at(object: &Value, pointer: &str) -> Option<Value> {
    let mut v = object;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        v = match v {
            Value::Array(items) => match step.split_once('=') {
                Some((k, name)) => items.iter().find(|i| i.get(k).and_then(Value::as_str) == Some(name))?,
                None => items.get(step.parse::<usize>().ok()?)?,
            },
            other => other.get(&step)?,
        };
    }
    Some(v.clone())
}

/// Full commit ids in a status.
fn hashes(v: &Value, out: &mut Vec<String>) {
    match v {
        Value::String(s) => out.extend(countersign_core::ownership::full_hash(s)),
        Value::Array(items) => items.iter().for_each(|i| hashes(i, out)),
        Value::Object(map) => map.values().for_each(|i| hashes(i, out)),
        _ => {}
    }
}
