//! The tool `inspect`: a resource, its owner with the evidence of each hop, its file and field,
//! its health and what the cluster said lately. It changes nothing.

use std::time::Duration;

use countersign_core::manifest::{SourceTree, documents};
use countersign_core::message;
use countersign_core::model::{
    DeliveryState, InspectAnswer, InspectArgs, Next, ObjectKey, Outcome, OwnerRef, Ownership, Principal, ResourceRef,
    Source, SourceKind,
};
use countersign_core::ownership::{SourceBasis, sources};
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use super::Pipeline;
use super::source::{Place, root_of, sole_owner};
use crate::cluster::Cluster;

/// Lines of a listing.
const PAGE: usize = 40;
/// How old the branch may be that a file and its line are told from: many questions ask the remote once.
const SEEN: Duration = Duration::from_secs(5);

/// How an object comes from Git.
#[derive(Debug, Default)]
struct Delivered {
    delivery: Option<DeliveryState>,
    source: Option<Source>,
    file: Option<String>,
    problem: Option<Problem>,
}

impl Pipeline {
    /// The tool `inspect`.
    pub async fn inspect(&self, who: &Principal, args: InspectArgs) -> Result<InspectAnswer> {
        match &args.target {
            Some(target) => {
                let target: ResourceRef = target.parse()?;
                self.may_see(who, &target)?;
                self.inspect_one(&target).await
            }
            None => self.overview(who, args.cursor.as_deref()).await,
        }
    }

    async fn inspect_one(&self, target: &ResourceRef) -> Result<InspectAnswer> {
        let cluster = self.cluster(&target.cluster)?;
        let located = cluster.locate(target).await?;
        let root = root_of(&located.ownership).clone();
        let live = if root == located.key { located.object.clone() } else { cluster.read(&root).await? };
        let mut answer = InspectAnswer::new(Outcome::Found, String::new());
        answer.ownership = Some(state_name(&located.ownership).into());
        let owner = sole_owner(&located.ownership);
        let now = chrono::DateTime::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default();
        let health = async {
            match &live {
                Some(object) => cluster.health(&root, object).await.unwrap_or_else(|p| Some(unknown(&p))),
                None => None,
            }
        };
        let delivered = async {
            match &owner {
                Ok(owner) => self.delivered(cluster, owner, &root).await,
                Err(_) => Delivered::default(),
            }
        };
        // None of these needs another's answer; each may be several questions to the cluster.
        let (health, events, items, delivered) =
            tokio::join!(health, cluster.events(&root, now), self.open_changes_of(target, &root), delivered);
        answer.health = health;
        answer.object = live.as_ref().map(|object| self.redactor.redact_value(&fields_of(object)));
        let events = events.unwrap_or_else(|p| vec![unknown(&p)]);
        answer.events = events.iter().map(|e| self.redactor.redact_text(&message::escape_visible(e))).collect();
        answer.items = items;
        match owner {
            Ok(owner) => {
                if let Ownership::Owned { via, .. } = &located.ownership {
                    answer.via.clone_from(via);
                }
                answer.owner = Some(owner.clone());
                answer.delivery = delivered.delivery;
                answer.source = delivered.source;
                answer.file = delivered.file;
                answer.problem = delivered.problem;
                answer.summary = summary(&root, &owner.to_string(), &answer);
                answer.next = Some(Next {
                    tool: "operate".into(),
                    args: json!({"edits": [{"target": named(target, &root), "restart": {}}], "reason": "say why", "plan_only": true}),
                    after_s: 0,
                    say: format!("{root} is delivered by {owner}. Shall I propose a change?"),
                });
            }
            Err(problem) => {
                if let Ownership::Conflict { claims, via, .. } = &located.ownership {
                    answer.claims.clone_from(claims);
                    answer.via.clone_from(via);
                }
                answer.summary.clone_from(&problem.message);
                if matches!(located.ownership, Ownership::Unmanaged { .. }) {
                    answer.next = Some(Next {
                        tool: "operate".into(),
                        args: json!({"edits": [{"target": named(target, &root), "adopt": {}}], "reason": "say why", "plan_only": true}),
                        after_s: 0,
                        say: format!("Nothing delivers {root} from Git. Shall I look at what would bring it there?"),
                    });
                }
                answer.problem = Some(problem);
            }
        }
        Ok(answer)
    }

    /// Source, file and what stands between a commit and the cluster, as far as they can be had.
    async fn delivered(&self, cluster: &Cluster, owner: &OwnerRef, root: &ObjectKey) -> Delivered {
        let mut found = Delivered::default();
        let object = match cluster.owner_object(owner).await {
            Ok(object) => object,
            Err(problem) => return Delivered { problem: Some(problem), ..found },
        };
        let place = async {
            let flux = cluster.source_of(owner, &object).await?;
            let all = sources(SourceBasis { owner, object: &object, source: flux.as_ref() })?;
            let sole = (all.len() == 1).then(|| all.first().cloned()).flatten();
            let place = self.place_of(owner, object.clone(), all, SEEN).await;
            let file = match &place {
                Ok(place) => self.file_of(place, root).await.unwrap_or(None),
                Err(_) => None,
            };
            Ok((sole, place, file))
        };
        let (delivery, place) = tokio::join!(self.delivery_state(cluster, owner, &object, None, &[]), place);
        match delivery {
            Ok(state) => found.delivery = Some(state),
            Err(problem) => found.problem = Some(problem),
        }
        match place {
            Ok((_, Ok(place), file)) => (found.source, found.file) = (Some(place.source), file),
            Ok((sole, Err(problem), _)) => (found.source, found.problem) = (sole, Some(problem)),
            Err(problem) => found.problem = Some(problem),
        }
        found
    }

    /// The file and line that declare an object.
    async fn file_of(&self, place: &Place, root: &ObjectKey) -> Result<Option<String>> {
        let repo = self.repo(&place.repository)?;
        let files = self.snapshot(repo, &place.base, &place.source.path).await?;
        let kustomized = SourceTree::detect(&files, &place.source.path) == SourceKind::Kustomize;
        for (path, bytes) in &files {
            for d in documents(bytes).unwrap_or_default() {
                let namespace = d.key.namespace.is_empty() || d.key.namespace == root.namespace || kustomized;
                if d.key.group == root.group && d.key.kind == root.kind && d.key.name == root.name && namespace {
                    return Ok(Some(format!("{path}:{}", d.line)));
                }
            }
        }
        Ok(None)
    }

    async fn open_changes_of(&self, target: &ResourceRef, root: &ObjectKey) -> Vec<String> {
        self.journal
            .read(|v| {
                v.changes
                    .values()
                    .filter(|c| {
                        c.is_open()
                            && c.proposal.cluster == target.cluster
                            && c.proposal.fields.iter().any(|l| l.object == *root)
                    })
                    .map(|c| {
                        format!(
                            "open change {}: {}, {}",
                            c.name(),
                            message::what_short(&c.proposal.fields),
                            c.state().name()
                        )
                    })
                    .collect()
            })
            .await
    }

    /// Clusters and owners; what is not synced and healthy comes first.
    async fn overview(&self, who: &Principal, cursor: Option<&str>) -> Result<InspectAnswer> {
        let mut lines: Vec<(bool, String)> = Vec::new();
        for (name, cluster) in &self.clusters {
            match cluster.owners().await {
                Ok(owners) => {
                    for o in owners {
                        let target = ResourceRef {
                            cluster: name.clone(),
                            group: None,
                            kind: o.owner.kind.clone(),
                            namespace: o.owner.namespace.clone(),
                            name: o.owner.name.clone(),
                        };
                        if self.may_see(who, &target).is_err() {
                            continue;
                        }
                        let good = matches!(o.sync.as_str(), "Synced" | "True")
                            && matches!(o.health.as_str(), "" | "Healthy" | "True");
                        let words = if o.message.is_empty() {
                            String::new()
                        } else {
                            format!(": {}", self.redactor.redact_text(&message::escape_visible(&o.message)))
                        };
                        lines.push((good, format!("{target} {} {}{words}", o.sync, o.health)));
                    }
                }
                Err(problem) => lines.push((false, format!("cluster {name}: {}", problem.message))),
            }
        }
        lines.sort();
        let bad = lines.iter().filter(|(good, _)| !good).count();
        let from: usize = cursor.and_then(|c| c.parse().ok()).unwrap_or(0);
        let total = lines.len();
        let mut answer = InspectAnswer::new(
            Outcome::Found,
            format!("Owners: {total}, in {} cluster(s); not synced and healthy: {bad}.", self.clusters.len()),
        );
        answer.items = lines.into_iter().skip(from).take(PAGE).map(|(_, l)| l).collect();
        answer.cursor = (from + PAGE < total).then(|| (from + PAGE).to_string());
        Ok(answer)
    }
}

/// What is said in the place of something that could not be read: an empty answer would say that there is none.
fn unknown(problem: &Problem) -> String {
    format!("not known ({}): {}", problem.code, problem.message)
}

fn named(target: &ResourceRef, root: &ObjectKey) -> String {
    let ns = if root.namespace.is_empty() { "-" } else { &root.namespace };
    format!("{}/{ns}/{}/{}", target.cluster, root.kind, root.name)
}

fn state_name(o: &Ownership) -> &'static str {
    match o {
        Ownership::Owned { .. } => "owned",
        Ownership::Conflict { .. } => "conflict",
        Ownership::DeclaredNotApplied { .. } => "declared_not_applied",
        Ownership::Orphaned { .. } => "orphaned",
        Ownership::Unmanaged { .. } => "unmanaged",
    }
}

fn summary(root: &ObjectKey, owner: &str, answer: &InspectAnswer) -> String {
    let mut s = format!("{root} is delivered by {owner}");
    if let Some(f) = &answer.file {
        s.push_str(&format!(" from {f}"));
    }
    if let Some(h) = &answer.health {
        s.push_str(&format!("; {h}"));
    }
    s.push('.');
    s
}

/// The fields that operations act on; Secrets show none of theirs.
fn fields_of(object: &Value) -> Value {
    if object.get("kind").and_then(Value::as_str) == Some("Secret") {
        return json!({"kind": "Secret", "note": "values are never shown"});
    }
    let mut out = serde_json::Map::new();
    for p in [
        "/spec/replicas",
        "/metadata/labels",
        "/spec/template/metadata/annotations",
        "/data",
        "/spec/suspend",
        "/spec/minReplicas",
        "/spec/maxReplicas",
    ] {
        if let Some(v) = object.pointer(p) {
            out.insert(p.to_owned(), v.clone());
        }
    }
    for list in ["containers", "initContainers"] {
        let items =
            object.pointer(&format!("/spec/template/spec/{list}")).or_else(|| object.pointer(&format!("/spec/{list}")));
        for c in items.and_then(Value::as_array).into_iter().flatten() {
            let name = c.get("name").and_then(Value::as_str).unwrap_or_default();
            let mut shown = serde_json::Map::new();
            for k in ["image", "resources", "env"] {
                if let Some(v) = c.get(k) {
                    shown.insert(k.to_owned(), v.clone());
                }
            }
            out.insert(format!("{list}/name={name}"), Value::Object(shown));
        }
    }
    Value::Object(out)
}
