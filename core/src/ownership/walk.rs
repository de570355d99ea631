//! The decision: from an object to its owner, one loaded object at a time.

use super::facts::{ArgoPlane, ObjectFacts, ParentRef, Planes, Tracking};
use super::ids::{TrackingId, parse_instance, tracking_id};
use super::index::Index;
use crate::model::{Claim, Engine, Hop, ObjectKey, OwnerRef, Ownership};

/// Longest way from an object to its owner.
pub const MAX_DEPTH: usize = 12;

const TRACKING_ID: &str = "argocd.argoproj.io/tracking-id";
const INSTALLATION_ID: &str = "argocd.argoproj.io/installation-id";

/// Flux: label prefix and kind of the owner that it names.
const FLUX_MARKS: [(&str, &str); 4] = [
    ("kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
    ("resourceset.fluxcd.controlplane.io", "ResourceSet"),
    ("fluxcd.controlplane.io", "FluxInstance"),
];

/// What came of a request for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The object.
    Found(Box<ObjectFacts>),
    /// There is none.
    Missing,
    /// It may not be read (with the reason): the walk goes on with the next candidate and remembers.
    Unreadable(String),
}

/// What the walk wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Decided.
    Answer(Ownership),
    /// Load this object and call [`Walk::feed`]. The namespace is the child's: drop it where the
    /// kind is cluster-scoped.
    Need(ObjectKey),
}

#[derive(Debug)]
struct Candidate {
    key: ObjectKey,
    uid: String,
    evidence: String,
}

/// Everything that one object says about its owners.
#[derive(Debug, Default)]
struct Look {
    claims: Vec<Claim>,
    listed_only: Vec<OwnerRef>,
    orphan: Option<String>,
    hints: Vec<String>,
    parent: Option<ObjectKey>,
}

/// The way from one object to its owner.
#[derive(Debug, Default)]
pub struct Walk {
    at: Option<ObjectKey>,
    seen: Vec<String>,
    via: Vec<Hop>,
    hints: Vec<String>,
    /// Ways up from the present object, best last.
    up: Vec<Candidate>,
    asked: Option<Candidate>,
    declared: Option<(ObjectKey, Vec<OwnerRef>)>,
    orphan: Option<(ObjectKey, String)>,
    unreadable: Vec<String>,
}

impl Walk {
    /// Begins at an object and takes the first step.
    pub fn begin(object: &ObjectFacts, index: &Index, planes: &Planes) -> (Self, Step) {
        let mut walk = Self::default();
        let step = walk.visit(object, index, planes);
        (walk, step)
    }

    /// Goes on with what came of the object that the last step asked for.
    pub fn feed(&mut self, loaded: Loaded, index: &Index, planes: &Planes) -> Step {
        let Some(asked) = self.asked.take() else { return self.finish() };
        let from = self.at.as_ref().map(ToString::to_string).unwrap_or_default();
        match loaded {
            Loaded::Found(object) if !asked.uid.is_empty() && !object.uid.is_empty() && asked.uid != object.uid => {
                self.hints.push(format!("{from} names a {} that has since been replaced", object.key));
                self.next_candidate()
            }
            Loaded::Found(object) => {
                self.via.push(Hop { from, to: object.key.to_string(), evidence: asked.evidence });
                self.visit(&object, index, planes)
            }
            Loaded::Missing => {
                self.hints.push(format!("{from} names {} ({}), which does not exist", asked.key, asked.evidence));
                self.next_candidate()
            }
            Loaded::Unreadable(why) => {
                let line = format!("{} ({}) may not be read: {why}", asked.key, asked.evidence);
                self.unreadable.push(line.clone());
                self.hints.push(line);
                self.next_candidate()
            }
        }
    }

    /// Objects on the way that may not be read: with any of them, "unmanaged" is not proved.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    fn visit(&mut self, object: &ObjectFacts, index: &Index, planes: &Planes) -> Step {
        let id = if object.uid.is_empty() { object.key.to_string() } else { object.uid.clone() };
        if self.seen.contains(&id) || self.seen.len() >= MAX_DEPTH {
            self.hints.push(format!("the way up from {} does not end", object.key));
            return self.finish();
        }
        self.seen.push(id);
        self.at = Some(object.key.clone());
        let look = look(object, index, planes);
        if !look.claims.is_empty() {
            return Step::Answer(self.claimed(&object.key, look));
        }
        self.hints.extend(look.hints);
        if !look.listed_only.is_empty() && self.declared.is_none() {
            self.declared = Some((object.key.clone(), look.listed_only));
        }
        if let Some(mark) = look.orphan {
            self.orphan.get_or_insert_with(|| (object.key.clone(), mark));
        }
        self.up = candidates(&object.parents, look.parent);
        self.next_candidate()
    }

    fn next_candidate(&mut self) -> Step {
        match self.up.pop() {
            Some(candidate) => {
                let key = candidate.key.clone();
                self.asked = Some(candidate);
                Step::Need(key)
            }
            None => self.finish(),
        }
    }

    fn claimed(&mut self, root: &ObjectKey, look: Look) -> Ownership {
        let mut claims = look.claims;
        // A second Application that lists the object wants it too, whoever applied it last
        // (argo-cd: controller/state.go raises SharedResourceWarning on the other one).
        claims.extend(look.listed_only.into_iter().map(|owner| Claim {
            owner,
            evidence: vec!["status.resources lists it, without its tracking-id".to_owned()],
        }));
        let via = std::mem::take(&mut self.via);
        match <[Claim; 1]>::try_from(claims) {
            Ok([claim]) => {
                let mut via = via;
                via.push(Hop {
                    from: root.to_string(),
                    to: claim.owner.to_string(),
                    evidence: claim.evidence.join("; "),
                });
                Ownership::Owned { owner: claim.owner, root: root.clone(), via }
            }
            Err(mut claims) => {
                claims.sort_by(|a, b| a.owner.cmp(&b.owner));
                Ownership::Conflict { root: root.clone(), claims, via }
            }
        }
    }

    fn finish(&mut self) -> Step {
        if let Some((root, by)) = self.declared.take() {
            return Step::Answer(Ownership::DeclaredNotApplied { root, by });
        }
        if let Some((root, mark)) = self.orphan.take() {
            return Step::Answer(Ownership::Orphaned { root, mark });
        }
        let root = self.at.clone().unwrap_or_else(|| ObjectKey::new("", "", "", ""));
        Step::Answer(Ownership::Unmanaged { root, hints: std::mem::take(&mut self.hints) })
    }
}

/// Ways up, best last: the object that a copied tracking-id names, other owners, the controller.
fn candidates(parents: &[ParentRef], copied_from: Option<ObjectKey>) -> Vec<Candidate> {
    let copied = copied_from.map(|key| Candidate {
        key,
        uid: String::new(),
        evidence: format!("copied annotation {TRACKING_ID}"),
    });
    let (controllers, others): (Vec<_>, Vec<_>) = parents.iter().partition(|p| p.controller);
    let refs = controllers.into_iter().chain(others).map(|p| Candidate {
        key: p.key.clone(),
        uid: p.uid.clone(),
        evidence: "ownerReferences".to_owned(),
    });
    let mut up: Vec<Candidate> = refs.chain(copied).collect();
    up.reverse();
    up
}

fn look(object: &ObjectFacts, index: &Index, planes: &Planes) -> Look {
    let mut look = Look::default();
    let listing = index.listing(&object.key);
    look_argo(object, &listing, index, planes, &mut look);
    look_flux(object, &listing, index, &mut look);
    if look.claims.is_empty()
        && let Some(release) = object.annotations.get("meta.helm.sh/release-name")
    {
        look.hints.push(format!("annotation meta.helm.sh/release-name={release}: installed by Helm itself"));
    }
    look
}

fn look_argo(object: &ObjectFacts, listing: &[&OwnerRef], index: &Index, planes: &Planes, look: &mut Look) {
    let listed = |owner: &OwnerRef| listing.contains(&owner);
    let text = object.annotations.get(TRACKING_ID);
    let tracked = text.and_then(|t| tracking_id(t));
    if let (Some(text), None) = (text, &tracked) {
        look.hints.push(format!("annotation {TRACKING_ID}={} cannot be read", cap(text)));
    }
    let own = tracked.as_ref().filter(|t| t.names(&object.key));
    if let Some(t) = tracked.as_ref().filter(|t| !t.names(&object.key)) {
        look.hints.push(format!("annotation {TRACKING_ID} was written for {}", t.object));
        look.parent = Some(t.object.clone());
    }
    if let Some(t) = own {
        look_tracked(object, t, &listed, index, planes, look);
    }
    for plane in planes.argo.iter().filter(|p| p.tracking == Tracking::Label) {
        look_label(object, plane, &listed, index, look);
    }
    for owner in listing.iter().filter(|o| o.engine == Engine::Argocd) {
        if look.claims.iter().any(|c| c.owner == **owner) {
            continue;
        }
        if object.is_crd() {
            look.claims.push(Claim {
                owner: (*owner).clone(),
                evidence: vec!["status.resources (CRDs carry no tracking-id)".to_owned()],
            });
        } else {
            look.listed_only.push((*owner).clone());
        }
    }
}

/// An object that carries its own tracking-id: the Application of each control plane that it may mean.
fn look_tracked(
    object: &ObjectFacts,
    id: &TrackingId,
    listed: &dyn Fn(&OwnerRef) -> bool,
    index: &Index,
    planes: &Planes,
    look: &mut Look,
) {
    let mark = format!("annotation {TRACKING_ID}={}", cap(object.annotations.get(TRACKING_ID).map_or("", |t| t)));
    let installation = object.annotations.get(INSTALLATION_ID);
    let mut found: Vec<(Claim, bool)> = Vec::new();
    let mut why = Vec::new();
    for plane in planes.argo.iter().filter(|p| p.tracking == Tracking::Annotation) {
        let (namespace, name) = parse_instance(&id.instance, &plane.namespace);
        let owner = OwnerRef::new(Engine::Argocd, "Application", &namespace, &name);
        if plane.installation_id.as_ref().is_some_and(|wanted| installation != Some(wanted)) {
            why.push(format!("its installation-id is not that of the Argo CD in {}", plane.namespace));
            continue;
        }
        let is_listed = listed(&owner);
        if plane.installation_id.is_none() && installation.is_some() && !is_listed {
            why.push(format!(
                "it carries the installation-id {} of another Argo CD",
                cap(installation.map_or("", |i| i))
            ));
            continue;
        }
        let Some(known) = index.known(&owner) else {
            why.push(format!("{owner} does not exist"));
            continue;
        };
        if known.plane.is_some_and(|p| p != plane.namespace) {
            continue;
        }
        if let Some(remote) = known.remote {
            why.push(format!("{owner} delivers to {remote}"));
            continue;
        }
        let mut evidence = vec![mark.clone()];
        evidence.push(if is_listed { "status.resources".to_owned() } else { "not in status.resources".to_owned() });
        if !found.iter().any(|(c, _)| c.owner == owner) {
            found.push((Claim { owner, evidence }, is_listed));
        }
    }
    // Two control planes with an Application of that name: the one that lists the object means it.
    let any_listed = found.iter().any(|(_, l)| *l);
    look.claims.extend(found.into_iter().filter(|(_, l)| *l || !any_listed).map(|(c, _)| c));
    if look.claims.is_empty() {
        let label_only = !planes.argo.is_empty() && planes.argo.iter().all(|p| p.tracking == Tracking::Label);
        if label_only {
            look.hints.push(format!("{mark}, but Argo CD tracks by label here"));
        } else {
            let why = if why.is_empty() { "no Argo CD runs here".to_owned() } else { why.join("; ") };
            look.orphan = Some(format!("{mark}: {why}"));
        }
    }
}

/// Label tracking: charts set the same label themselves, so the Application must list the object.
fn look_label(
    object: &ObjectFacts,
    plane: &ArgoPlane,
    listed: &dyn Fn(&OwnerRef) -> bool,
    index: &Index,
    look: &mut Look,
) {
    let Some(value) = object.labels.get(&plane.label_key) else { return };
    let (namespace, name) = parse_instance(value, &plane.namespace);
    let owner = OwnerRef::new(Engine::Argocd, "Application", &namespace, &name);
    let mark = format!("label {}={}", plane.label_key, cap(value));
    let other_plane = index.known(&owner).and_then(|k| k.plane).is_some_and(|p| p != plane.namespace);
    if listed(&owner) && !other_plane {
        if !look.claims.iter().any(|c| c.owner == owner) {
            look.claims.push(Claim { owner, evidence: vec![mark, "status.resources".to_owned()] });
        }
    } else {
        look.hints.push(format!("{mark}, but {owner} does not list it"));
    }
}

fn look_flux(object: &ObjectFacts, listing: &[&OwnerRef], index: &Index, look: &mut Look) {
    let labelled = FLUX_MARKS.iter().filter_map(|(prefix, kind)| {
        let name = object.labels.get(&format!("{prefix}/name"))?;
        let namespace = object.labels.get(&format!("{prefix}/namespace"))?;
        let mark = format!("labels {prefix}/name={}, /namespace={}", cap(name), cap(namespace));
        Some((OwnerRef::new(Engine::Flux, kind, namespace, name), mark))
    });
    let labelled: Vec<(OwnerRef, String)> = labelled.collect();
    // Every inventory counts, labelled or not: two Kustomizations flip the labels in turn.
    for owner in listing.iter().filter(|o| o.engine == Engine::Flux) {
        let mut evidence = vec!["status.inventory".to_owned()];
        evidence.extend(labelled.iter().filter(|(o, _)| o == *owner).map(|(_, m)| m.clone()));
        look.claims.push(Claim { owner: (*owner).clone(), evidence });
    }
    for (owner, mark) in labelled {
        if listing.contains(&&owner) {
            continue;
        }
        match index.known(&owner) {
            None => {
                look.orphan
                    .get_or_insert(format!("{mark}: {owner} does not exist here; another control plane may hold it"));
            }
            Some(known) => match known.remote {
                Some(remote) => look.hints.push(format!("{mark}, but {owner} delivers to {remote}")),
                // Whoever applied last set the labels: a second owner whose inventory is still to be written.
                None if listing.iter().any(|o| o.engine == Engine::Flux && o.kind == owner.kind) => {
                    look.claims
                        .push(Claim { owner, evidence: vec![mark, "not in its status.inventory yet".to_owned()] });
                }
                None if known.inventory => {
                    look.hints.push(format!("{mark}, but the inventory of {owner} does not list it"));
                }
                None if owner.kind == "HelmRelease" => {
                    look.claims.push(Claim { owner, evidence: vec![mark, "its owner keeps no inventory".to_owned()] });
                }
                None => look.hints.push(format!("{mark}, but {owner} has applied nothing yet")),
            },
        }
    }
}

/// Untrusted text in an answer: capped, one line.
fn cap(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
