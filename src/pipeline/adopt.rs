//! adopt: what nobody owns is brought under an owner. The live object becomes a manifest of its own, and the
//! owners that could take it are those whose whole plan was proved; between two, nothing is guessed.

use countersign_core::manifest::{Adopted, Standing, adopt, is_kustomization_name};
use countersign_core::message::escape_name;
use countersign_core::model::{
    Adopt, ChangeAnswer, Choice, Edit, Next, ObjectKey, OperateArgs, Operation, Outcome, OwnerRef, Ownership,
    Principal, Want,
};
use countersign_core::secrets::scan_object;
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use super::plan::{Plan, Wanted};
use super::source::{Place, root_of, sole_owner};
use super::{Pipeline, scope};
use crate::cluster::{Cluster, Located};

/// Owners that are tried out for one call.
const TRIES: usize = 6;

/// An owner that can take the objects, with the calls that say so in full.
pub(super) struct Fits {
    owner: OwnerRef,
    edits: Vec<Edit>,
    plan: Plan,
    /// Why the policy would refuse it.
    denied: Option<Problem>,
}

impl Fits {
    fn refusal(&self) -> Option<String> {
        self.denied.as_ref().map(|p| format!("{}: {} {}", self.owner, p.message, p.evidence.join(" ")))
    }
}

impl Pipeline {
    /// The manifest of a live object, where nothing but a person or an agent made it.
    pub(super) async fn adopted(&self, cluster: &Cluster, key: &ObjectKey) -> Result<(Value, Adopted)> {
        let Some((live, managed)) = cluster.read_managed(key).await? else {
            return Err(cluster.not_found(key).await);
        };
        let autoscaled = cluster.hpa_for(key).await?.is_some();
        let made = adopt(key, &live, Standing { managed: &managed, autoscaled })?;
        if let Some(first) = scan_object(&made.manifest).first() {
            return Err(Problem::new(
                "secret.in_change",
                format!("The live value of {} looks like a secret ({}).", first.pointer, first.why),
                "Let a person move it into a Secret first; secrets never go through an agent or into Git in the clear.",
            )
            .never());
        }
        Ok((live, made))
    }

    /// An adoption with its object: what will be written is made from what is live now. Where a new owner is to
    /// take it, that one's manifest comes first.
    pub(super) async fn wanted_adoption(
        &self,
        cluster: &Cluster,
        owner: &OwnerRef,
        key: ObjectKey,
        op: Operation,
    ) -> Result<Vec<Wanted>> {
        let (live, made) = self.adopted(cluster, &key).await?;
        let first = match &op {
            Operation::Adopt(Adopt { new_owner: Some(name), path: Some(path), .. }) => {
                Some(self.founding(cluster, owner, &key, (name, path)).await?)
            }
            _ => None,
        };
        let founded = first.as_ref().and_then(|(new, w)| Some((new.clone(), w.manifest()?)));
        let w = Wanted { key, live: Some(live), op, made: Some(made), founded };
        Ok(first.into_iter().map(|(_, w)| w).chain(std::iter::once(w)).collect())
    }

    /// The edits of a call with owner and file of every adoption written out; or the answer that asks which.
    pub(super) async fn placed(
        &self,
        who: &Principal,
        cluster: &Cluster,
        args: &OperateArgs,
    ) -> Result<Result<Vec<Edit>, ChangeAnswer>> {
        let mut open = Vec::new();
        for e in &args.edits {
            let Some(a) = &e.adopt else { continue };
            e.operation()?;
            let key = cluster.key_of(&e.target()?).await?;
            unowned(&key, &cluster.owner_of_fresh(&key).await?, cluster)?;
            if a.owner.is_none() || a.path.is_none() {
                open.push(key);
            }
        }
        if open.is_empty() {
            return Ok(Ok(args.edits.clone()));
        }
        if args.edits.iter().all(|e| e.adopt.as_ref().is_none_or(|a| a.owner.is_some())) {
            return self.with_paths(cluster, &args.edits, None).await.map(Ok);
        }
        // What can be adopted nowhere is said before owners are looked for.
        for key in &open {
            self.adopted(cluster, key).await?;
        }
        let (mut fits, mut why_not) = self.fitting(who, cluster, &open, &args.edits).await?;
        if fits.is_empty() {
            // That there shall be a new owner is for whoever asks to say.
            let (new, why) = self.new_owners(who, cluster, &open, &args.edits).await?;
            why_not.extend(why);
            if new.iter().any(|f| f.denied.is_none()) {
                let say = format!("No owner that exists can take {}; a new one could be declared.", listed(&open));
                let mut answer = ChangeAnswer::new(Outcome::NeedsChoice, say);
                answer.choices = new.iter().filter(|f| f.denied.is_none()).map(|f| choice(f, args)).collect();
                answer.notes = why_not;
                return Ok(Err(answer));
            }
            why_not.extend(new.iter().filter_map(Fits::refusal));
        }
        if fits.iter().any(|f| f.denied.is_none()) {
            fits.retain(|f| f.denied.is_none());
        }
        match fits.len() {
            0 => Ok(Err(ChangeAnswer::refused(nowhere(&open, why_not)))),
            1 => Ok(Ok(fits.pop().map(|f| f.edits).unwrap_or_default())),
            n => {
                let mut answer = ChangeAnswer::new(
                    Outcome::NeedsChoice,
                    format!("{n} owners could take {}; choose which one delivers it from now on.", listed(&open)),
                );
                answer.choices = fits.iter().map(|f| choice(f, args)).collect();
                answer.notes = why_not;
                Ok(Err(answer))
            }
        }
    }

    /// The refusal of an operation on what nobody owns, with the calls that would bring it into Git.
    pub(super) async fn offered(
        &self,
        who: &Principal,
        cluster: &Cluster,
        key: &ObjectKey,
        (target, problem, args): (&str, Problem, &OperateArgs),
    ) -> ChangeAnswer {
        let edit = Edit { target: target.to_owned(), adopt: Some(Adopt::default()), ..Edit::default() };
        let found = match self.adopted(cluster, key).await {
            Ok(_) => self.fitting_or_new(who, cluster, key, &edit).await,
            Err(problem) => Err(problem),
        };
        let mut answer = ChangeAnswer::refused(problem);
        let mut add = |lines: Vec<String>| {
            if let Some(p) = answer.problem.take() {
                answer.problem = Some(p.with_all(lines));
            }
        };
        match found {
            Ok((fits, why_not)) => {
                add(fits.iter().filter_map(Fits::refusal).chain(why_not).collect());
                answer.choices = fits.iter().filter(|f| f.denied.is_none()).map(|f| choice(f, args)).collect();
            }
            Err(problem) => add(vec![format!("It cannot be adopted ({}): {}", problem.code, problem.message)]),
        }
        if !answer.choices.is_empty() {
            let args = match answer.choices.as_slice() {
                [only] => only.args.clone(),
                _ => json!({"edits": [edit], "reason": args.reason}),
            };
            let say = format!("Nothing delivers {key} from Git. Shall I propose to bring it there as it is?");
            answer.next = Some(Next { tool: "operate".into(), args, after_s: 0, say });
        }
        answer
    }

    /// The same, and where none fits, new owners that could be declared.
    async fn fitting_or_new(
        &self,
        who: &Principal,
        cluster: &Cluster,
        key: &ObjectKey,
        edit: &Edit,
    ) -> Result<(Vec<Fits>, Vec<String>)> {
        let (keys, edits) = (std::slice::from_ref(key), std::slice::from_ref(edit));
        let (fits, mut why_not) = self.fitting(who, cluster, keys, edits).await?;
        if !fits.is_empty() {
            return Ok((fits, why_not));
        }
        let (new, why) = self.new_owners(who, cluster, keys, edits).await?;
        why_not.extend(why);
        Ok((new, why_not))
    }

    /// Owners that deliver to the objects' place and whose whole plan is proved, and why others are not.
    async fn fitting(
        &self,
        who: &Principal,
        cluster: &Cluster,
        keys: &[ObjectKey],
        edits: &[Edit],
    ) -> Result<(Vec<Fits>, Vec<String>)> {
        let mut owners: Option<Vec<OwnerRef>> = None;
        for key in keys {
            let here = cluster.deliverers(key).await?;
            owners = Some(match owners {
                None => here,
                Some(before) => before.into_iter().filter(|o| here.contains(o)).collect(),
            });
        }
        let owners = owners.unwrap_or_default();
        let (mut fits, mut why_not) = (Vec::new(), Vec::new());
        for owner in owners.iter().take(TRIES) {
            match self.try_out(who, cluster, owner, edits).await {
                Ok(f) => fits.push(f),
                Err(problem) => why_not.push(format!("{owner} ({}): {}", problem.code, problem.message)),
            }
        }
        if owners.len() > TRIES {
            why_not.push(format!("{} more owners deliver there; name one in `owner`.", owners.len() - TRIES));
        }
        Ok((fits, why_not))
    }

    pub(super) async fn try_out(
        &self,
        who: &Principal,
        cluster: &Cluster,
        owner: &OwnerRef,
        edits: &[Edit],
    ) -> Result<Fits> {
        let edits = self.with_paths(cluster, edits, Some(owner)).await?;
        let place = self.place(cluster, owner).await?;
        let adoptions: Vec<Edit> = edits.iter().filter(|e| e.adopt.is_some()).cloned().collect();
        let wanted = self.wanted(cluster, &adoptions).await?;
        let plan = self.plan(cluster, place, &wanted, &crate::clock::rfc3339(self.clock.now_ms())).await?;
        let decision = self.decide(&self.config.load(), who, &plan).await.decision;
        let denied = decision.problem.filter(|_| decision.decided.level == countersign_core::model::Level::Deny);
        Ok(Fits { owner: owner.clone(), edits, plan, denied })
    }

    /// The same edits, each adoption with its owner (`to`, where it names none) and its file.
    async fn with_paths(&self, cluster: &Cluster, edits: &[Edit], to: Option<&OwnerRef>) -> Result<Vec<Edit>> {
        let mut out: Vec<Edit> = Vec::with_capacity(edits.len());
        for e in edits {
            let mut e = e.clone();
            if let Some(a) = &mut e.adopt {
                let owner = match (&a.owner, to) {
                    (Some(named), _) => self.named_owner(cluster, named).await?,
                    (None, Some(to)) => to.clone(),
                    (None, None) => return Err(scope::split("owners")),
                };
                a.owner.get_or_insert_with(|| format!("{} {}/{}", owner.kind, owner.namespace, owner.name));
                if a.path.is_none() {
                    let key = cluster.key_of(&e.target.parse()?).await?;
                    let place = self.place(cluster, &owner).await?;
                    if let Some(name) = &a.new_owner {
                        a.path =
                            Some(format!("{}/{}.yaml", self.new_folder(cluster, &place, name).await?, file_of(&key)));
                        out.push(e);
                        continue;
                    }
                    let taken: Vec<String> = out.iter().filter_map(|o| o.adopt.as_ref()?.path.clone()).collect();
                    a.path = Some(self.free_path(&place, &key, &taken).await?);
                }
            }
            out.push(e);
        }
        Ok(out)
    }

    /// `deployment-stray.yaml` in the owner's own folder, or with the namespace where that is taken.
    async fn free_path(&self, place: &Place, key: &ObjectKey, taken: &[String]) -> Result<String> {
        let name = file_of(key);
        let folder = if place.source.path.is_empty() { String::new() } else { format!("{}/", place.source.path) };
        let repo = self.repo(&place.repository)?;
        for name in [name.clone(), format!("{name}-{}", plain(&key.namespace))] {
            let path = format!("{folder}{name}.yaml");
            if !taken.contains(&path) && repo.git.kind(&place.base, &path).await?.is_none() {
                return Ok(path);
            }
        }
        Err(Problem::new(
            "manifest.file_exists",
            format!("{folder}{name}.yaml exists already."),
            "Name another file in `path`.",
        ))
    }

    /// The mark with which the owner will show that it has the object.
    pub(super) async fn marks(&self, cluster: &Cluster, place: &Place, wanted: &[Wanted]) -> Result<Vec<Want>> {
        let mut out = Vec::new();
        for w in wanted.iter().filter(|w| matches!(w.op, Operation::Adopt(_))) {
            let (owner, object) = match &w.founded {
                Some((owner, object)) => (owner, object),
                None => (&place.owner, &place.object),
            };
            for (path, value) in cluster.marks_of(owner, object, &w.key).await? {
                let ObjectKey { group, kind, namespace, name } = w.key.clone();
                out.push(Want { group, kind, namespace, name, path, value: Some(value.into()), exists: None });
            }
        }
        Ok(out)
    }

    /// Who owns the targets of adoptions now: still nobody, so that the change's owner may take them, and the
    /// live objects are still what people were shown.
    pub(super) async fn still_free(&self, change: &countersign_core::change::Change) -> Result<OwnerRef> {
        let cluster = self.cluster(&change.proposal.cluster)?;
        let stale = |why: String| {
            Problem::new("gate.stale", why, "Propose the change again; it will be planned on what is true now.").never()
        };
        for e in &change.proposal.edits {
            let Some(a) = &e.adopt else { continue };
            let key = cluster.key_of(&e.target()?).await?;
            let located = match cluster.owner_of_fresh(&key).await {
                Ok(located) => located,
                Err(p) if p.code == "cluster.not_found" => return Err(stale(format!("{key} is gone."))),
                Err(p) => return Err(p),
            };
            if let Ownership::Owned { owner, .. } = &located.ownership {
                return Ok(owner.clone());
            }
            unowned(&key, &located, cluster)?;
            let (_, made) = self.adopted(cluster, &key).await?;
            let sealed = change.sealed.files.iter().find(|f| Some(&f.path) == a.path.as_ref());
            if sealed.and_then(|f| f.after.as_deref()) != Some(crate::git::blob_id(made.text.as_bytes()).as_str()) {
                return Err(stale(format!("{key} was changed in the cluster since it was shown.")));
            }
        }
        cluster.owner_object(&change.proposal.owner).await?;
        Ok(change.proposal.owner.clone())
    }
}

/// The edits of a call with what they leave open taken from those of a change, where they are about the same.
pub(super) fn filled(edits: &[Edit], from: &[Edit]) -> Vec<Edit> {
    let mut out = edits.to_vec();
    for (e, known) in out.iter_mut().zip(from).filter(|(e, known)| e.target == known.target) {
        if let (Some(a), Some(b)) = (&mut e.adopt, &known.adopt) {
            a.owner = a.owner.take().or_else(|| b.owner.clone());
            a.path = a.path.take().or_else(|| b.path.clone());
        }
    }
    out
}

/// Refuses what has an owner, or whose owner is not certain.
fn unowned(key: &ObjectKey, located: &Located, cluster: &Cluster) -> Result<()> {
    match &located.ownership {
        Ownership::Unmanaged { root, .. } if root == key => Ok(()),
        Ownership::Owned { owner, root, .. } if root == key => Err(Problem::new(
            "adopt.owned",
            format!("{key} is delivered by {owner} already."),
            "Change it with the other operations.",
        )),
        Ownership::Owned { .. } | Ownership::Unmanaged { .. } => {
            Err(scope::derived(key, root_of(&located.ownership), cluster))
        }
        other => sole_owner(other).map(|_| ()),
    }
}

/// What people read before they say yes; each fits a line of the card.
pub(super) fn notes(w: &Wanted, prune: bool) -> Vec<String> {
    let Some(made) = &w.made else { return Vec::new() };
    let mut out = vec![format!("{} is live and in no repository; it is taken over as it is.", w.key)];
    if prune {
        out.push("From then on its owner prunes: whoever removes the file deletes the object.".to_owned());
    }
    if !made.left_out.is_empty() {
        out.push(format!("Left to the cluster: {}.", made.left_out.join(", ")));
    }
    out
}

/// `deployment-stray`, of characters that every file system takes.
pub(super) fn file_of(key: &ObjectKey) -> String {
    format!("{}-{}", plain(&key.kind), plain(&key.name))
}

fn plain(s: &str) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    s.to_ascii_lowercase().chars().map(|c| if ok(c) { c } else { '-' }).collect()
}

fn listed(keys: &[ObjectKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn nowhere(keys: &[ObjectKey], why_not: Vec<String>) -> Problem {
    Problem::new(
        "adopt.no_owner",
        format!("No Application or Kustomization that delivers there can take {}.", listed(keys)),
        "Name an owner in `owner`, or let a person declare a new Application or Kustomization for it first.",
    )
    .with_all(why_not)
}

fn choice(f: &Fits, args: &OperateArgs) -> Choice {
    let files: Vec<String> = f
        .plan
        .files
        .iter()
        .map(|file| {
            let path = escape_name(&file.path);
            let name = file.path.rsplit('/').next().unwrap_or_default();
            match (&file.before, is_kustomization_name(name)) {
                (None, _) => format!("new {path}"),
                (Some(_), true) => format!("an entry in `resources` of {path}"),
                (Some(_), false) => path,
            }
        })
        .collect();
    let branch = f.plan.git_ref.trim_start_matches("refs/heads/");
    let new = f.edits.iter().find_map(|e| e.adopt.as_ref()?.new_owner.as_ref());
    let who = match new {
        Some(name) => format!("A new owner {}, declared by {},", escape_name(name), f.owner),
        None => f.owner.to_string(),
    };
    Choice {
        what: format!("{who} takes it: {} in {} ({branch})", files.join(" and "), f.plan.repository),
        tool: "operate".into(),
        args: json!({"edits": f.edits, "reason": args.reason, "plan_only": args.plan_only}),
    }
}
