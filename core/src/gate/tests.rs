//! One test for every control: each fails when its control is taken out.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::change::tests::given::*;
use crate::error::Retry;
use crate::model::{Body, Effect, Ending};

/// What is true right before the effect; a test changes one thing.
struct World {
    now: i64,
    stopped: bool,
    decided: Decided,
    denied: Option<String>,
    people: Vec<Named<PersonSpec>>,
    /// Who may break the glass.
    glass: Vec<String>,
    sponsor: Option<String>,
    owner: OwnerRef,
    blobs: Vec<(String, Option<String>)>,
}

impl World {
    fn of(g: &Given) -> Self {
        Self {
            now: T0 + 1,
            stopped: false,
            decided: g.decided(),
            denied: None,
            people: ["ann", "bob", "sue", "zoe"]
                .map(|n| Named { name: n.to_owned(), spec: PersonSpec::default() })
                .into(),
            glass: Vec::new(),
            sponsor: Some("sue".into()),
            owner: owner(),
            blobs: vec![(PATH.into(), Some(BEFORE.into()))],
        }
    }

    fn ask(&self, c: &Change) -> Result<Authorization> {
        authorize(
            c,
            &Now {
                now: self.now,
                stopped: self.stopped,
                decided: &self.decided,
                denied: self.denied.as_deref(),
                people: &self.people,
                glass: &self.glass,
                sponsor: self.sponsor.as_deref(),
                owner: &self.owner,
                blobs: &self.blobs,
            },
        )
    }
}

/// Let through in the plain world, and refused as stale once `change` has been made to it.
fn voids(given: &Given, story: &Story, change: impl FnOnce(&mut World)) -> String {
    let mut world = World::of(given);
    world.ask(&story.c).expect("the plain world lets it through");
    change(&mut world);
    let problem = world.ask(&story.c).expect_err("the control is gone");
    assert_eq!(problem.code, "gate.stale");
    assert_eq!(problem.retry, Retry::Never);
    problem.message
}

fn refused(c: &Change) -> String {
    World::of(&Given::prompted()).ask(c).expect_err("the control is gone").message
}

fn approved() -> Story {
    Given::prompted().story().yes("ann")
}

#[test]
fn an_approved_change_goes_out_with_whoever_approved_it() {
    let auth = World::of(&Given::prompted()).ask(&approved().c).unwrap();
    assert_eq!(auth.by(), ["ann"]);
    assert_eq!(auth.digest(), &approved().c.digest);
    assert_eq!(auth.repository(), "shop");
}

#[test]
fn stored_bytes_that_were_changed_are_refused() {
    let mut s = approved();
    s.c.canonical = s.c.canonical.replace("2222", "3333");
    assert!(refused(&s.c).contains("not the one that was shown"));
    let mut s = approved();
    s.c.digest = Digest("00".repeat(32));
    assert!(World::of(&Given::prompted()).ask(&s.c).is_err());
}

#[test]
fn fields_that_differ_from_the_stored_bytes_are_refused() {
    for tamper in [
        (|s: &mut crate::model::Sealed| s.git_ref = "refs/heads/other".into()) as fn(&mut crate::model::Sealed),
        |s| s.repository = "other".into(),
        |s| s.quorum.allow_sponsor = true,
        |s| s.files.clear(),
        |s| s.delivery = Delivery::MergeAfterApproval,
        |s| s.expires_at += 1,
    ] {
        let mut s = approved();
        tamper(&mut s.c.sealed);
        let problem = World::of(&Given::prompted()).ask(&s.c).expect_err("the sealed fields are not the sealed bytes");
        assert_eq!(problem.code, "gate.stale");
    }
}

#[test]
fn the_stop_holds_it_back_and_says_later() {
    let world = World { stopped: true, ..World::of(&Given::prompted()) };
    let problem = world.ask(&approved().c).unwrap_err();
    assert_eq!((problem.code.as_ref(), problem.retry), ("gate.stopped", Retry::Later));
}

#[test]
fn a_freeze_that_began_since_holds_it_back_and_says_later() {
    let g = Given::prompted();
    let freeze = |id: &str| crate::model::FreezeNote { id: id.into(), until: 1_800_000_000 };
    for (given, story) in [
        (&g, approved()),
        (&Given::new(Level::Standard, Delivery::Direct), Given::new(Level::Standard, Delivery::Direct).story()),
    ] {
        let mut world = World::of(given);
        world.decided.freezes.push(freeze("weekend"));
        // Held also where the freeze refuses everything that is new.
        for level in [given.level, Level::Deny] {
            world.decided.level = level;
            let problem = world.ask(&story.c).unwrap_err();
            assert_eq!((problem.code.as_ref(), problem.retry), ("gate.frozen", Retry::Later));
            assert!(problem.message.contains("weekend is on until 2027-01-15"), "{}", problem.message);
        }
    }
    // Asked during that very freeze: its approvers were among those asked.
    let mut during = approved();
    during.c.decided.freezes.push(freeze("weekend"));
    let mut world = World::of(&g);
    world.decided.freezes.push(freeze("weekend"));
    assert!(world.ask(&during.c).is_ok());
    world.decided.freezes.push(freeze("year-end"));
    assert_eq!(world.ask(&during.c).unwrap_err().code, "gate.frozen");
}

/// Two must say yes; Zoe, who was not asked, says it alone and may until `LASTS`.
fn alone(person: &str) -> (Given, Story) {
    let g = Given { count: 2, ..Given::prompted() };
    let broken = |s: Story| {
        let (person, reason, proof) = (person.to_owned(), "it burns".to_owned(), "signed".to_owned());
        s.then(Body::GlassBroken { person, reason, until: LASTS, proof })
    };
    let story = broken(g.story()).yes(person);
    (g, story)
}

const LASTS: i64 = T0 + 60_000;

#[test]
fn one_yes_suffices_while_the_glass_is_broken_and_for_nobody_else() {
    let (g, s) = alone("zoe");
    let world = || World { glass: names(&["zoe"]), ..World::of(&g) };
    assert_eq!(world().ask(&s.c).unwrap().by(), ["zoe"]);
    let late = World { now: LASTS, ..world() };
    assert!(late.ask(&s.c).unwrap_err().message.contains("0 of 2 needed approvals"), "she was never asked");
    assert!(World { now: LASTS - 1, ..world() }.ask(&s.c).is_ok());
    for (what, refused) in [
        ("she may no longer", World { glass: names(&["bob"]), ..world() }),
        ("nobody may", World { glass: Vec::new(), ..world() }),
        ("she is gone", World { people: Vec::new(), ..world() }),
        ("the stop is on", World { stopped: true, ..world() }),
        ("no rule allows it", World { decided: Decided { level: Level::Deny, ..g.decided() }, ..world() }),
        ("the file is another", World { blobs: Vec::new(), ..world() }),
        ("another owner", World { owner: OwnerRef { name: "other".into(), ..owner() }, ..world() }),
    ] {
        assert!(refused.ask(&s.c).is_err(), "{what}");
    }
    assert!(world().ask(&s.clone().no("bob").c).is_err(), "one no is still enough");
    let (g, s) = alone("sue");
    let sponsor = World { glass: names(&["sue"]), ..World::of(&g) };
    assert!(sponsor.ask(&s.c).is_err(), "she answers for the agent that asks");
    let without = Given { count: 2, ..Given::prompted() }.story().yes("zoe");
    assert!(world().ask(&without.c).is_err(), "a yes alone breaks nothing");
}

#[test]
fn a_broken_glass_passes_a_freeze_and_a_lapsed_one_does_not() {
    let (g, s) = alone("zoe");
    let mut world = World { glass: names(&["zoe"]), ..World::of(&g) };
    world.decided.freezes.push(crate::model::FreezeNote { id: "weekend".into(), until: 1_800_000_000 });
    assert!(world.ask(&s.c).is_ok());
    world.now = LASTS;
    assert_eq!(world.ask(&s.c).unwrap_err().code, "gate.frozen");
}

#[test]
fn a_yes_without_the_number_does_not_count_where_one_is_asked_for_now() {
    let confirm = Some(crate::model::Confirm::Number);
    assert!(voids(&Given::prompted(), &approved(), |w| w.decided.obligations.confirm = confirm).contains("number"));
}

#[test]
fn an_ended_change_is_refused() {
    assert!(refused(&approved().closed(Ending::Cancelled).c).contains("ended"));
}

#[test]
fn an_approval_expires_to_the_millisecond() {
    let (g, s) = (Given::prompted(), approved());
    assert!(World { now: EXPIRES - 1, ..World::of(&g) }.ask(&s.c).is_ok());
    assert!(voids(&g, &s, |w| w.now = EXPIRES).contains("time to decide"));
    let cleared = s.authorized();
    assert!(World { now: EXPIRES, ..World::of(&g) }.ask(&cleared.c).is_ok(), "decided in time, delivered after");
}

#[test]
fn one_no_is_enough_whatever_it_is_on() {
    assert!(refused(&approved().no("bob").c).contains("rejected"));
    let elsewhere = vote(&Digest("00".into()), "bob", false);
    assert!(refused(&approved().then(elsewhere).c).contains("rejected"));
    let g = Given::new(Level::Standard, Delivery::Direct);
    assert!(World::of(&g).ask(&g.story().no("bob").c).is_err(), "also where nobody is asked");
}

#[test]
fn a_policy_that_became_stricter_voids_every_approval() {
    let (g, s) = (Given::prompted(), approved());
    for level in [Level::Manual, Level::Deny] {
        assert!(voids(&g, &s, |w| w.decided.level = level).contains("stricter"));
    }
    let free = Given::new(Level::Standard, Delivery::Direct);
    assert!(voids(&free, &free.story(), |w| w.decided.level = Level::Prompted).contains("stricter"));
    for delivery in [Delivery::MergeAfterApproval, Delivery::PullRequest] {
        assert!(voids(&g, &s, |w| w.decided.delivery = delivery).contains("delivery"));
    }
    assert!(voids(&g, &s, |w| w.decided.quorum.count = 2).contains("1 of 2"));
    let both = Given { count: 2, ..Given::prompted() };
    assert!(voids(&g, &s, |w| w.decided.quorum.count = 2).contains("1 of 2"));
    assert!(World::of(&both).ask(&both.story().yes("ann").yes("bob").c).is_ok());
}

#[test]
fn a_policy_that_became_looser_loosens_nothing_that_was_shown() {
    let g = Given { count: 2, ..Given::prompted() };
    let mut world = World::of(&g);
    world.decided.quorum.count = 1;
    assert!(world.ask(&g.story().yes("ann").c).is_err());
    world.decided.level = Level::Standard;
    assert!(world.ask(&g.story().yes("ann").c).is_err());
}

#[test]
fn a_policy_that_asks_nobody_any_more_keeps_the_yes_of_those_who_were_asked() {
    let mut world = World::of(&Given::prompted());
    world.decided.level = Level::Standard;
    world.decided.approvers.clear();
    world.decided.quorum.count = 0;
    assert_eq!(world.ask(&approved().c).unwrap().by(), ["ann"]);
    world.people.retain(|p| p.name != "ann");
    assert!(world.ask(&approved().c).is_err(), "but not of one who is gone");
}

#[test]
fn manual_and_denied_changes_never_go_out() {
    for level in [Level::Manual, Level::Deny] {
        let g = Given::new(level, Delivery::Direct);
        let problem = World::of(&g).ask(&g.story().yes("ann").c).expect_err("only a person commits it");
        assert!(problem.message.contains("nobody but a person"), "{problem}");
    }
}

#[test]
fn a_gone_or_changed_sponsor_voids_it() {
    let (g, s) = (Given::prompted(), approved());
    assert!(voids(&g, &s, |w| w.sponsor = None).contains("no longer the same"));
    assert!(voids(&g, &s, |w| w.sponsor = Some("zoe".into())).contains("no longer the same"));
}

#[test]
fn the_sponsors_own_yes_counts_only_where_both_then_and_now_allow_it() {
    let strict = Given { approvers: names(&["ann", "sue"]), ..Given::prompted() };
    let own = strict.story().yes("sue");
    assert!(World::of(&strict).ask(&own.c).unwrap_err().message.contains("0 of 1"));
    let lone = Given { allow_sponsor: true, ..strict };
    let own = lone.story().yes("sue");
    assert_eq!(World::of(&lone).ask(&own.c).unwrap().by(), ["sue"]);
    assert!(voids(&lone, &own, |w| w.decided.quorum.allow_sponsor = false).contains("0 of 1"), "taken back since");
    let mut loosened = World::of(&Given { approvers: names(&["ann", "sue"]), ..Given::prompted() });
    loosened.decided.quorum.allow_sponsor = true;
    let shown_strict = Given { approvers: names(&["ann", "sue"]), ..Given::prompted() }.story().yes("sue");
    assert!(loosened.ask(&shown_strict.c).is_err(), "the card said that the sponsor does not count");
}

#[test]
fn a_yes_to_something_else_does_not_count() {
    let s = Given::prompted().story().then(vote(&Digest("00".repeat(32)), "ann", true));
    assert!(refused(&s.c).contains("0 of 1"));
}

#[test]
fn a_person_who_is_gone_no_longer_counts() {
    let (g, s) = (Given::prompted(), approved());
    assert!(
        voids(&g, &s, |w| w.people.retain(|p| p.name != "ann")).contains("0 of 1"),
        "no longer in the configuration"
    );
    assert!(voids(&g, &s, |w| w.decided.approvers.retain(|p| p != "ann")).contains("0 of 1"), "no longer an approver");
    let stranger = Given::prompted().story().yes("zoe");
    assert!(refused(&stranger.c).contains("0 of 1"), "never an approver");
}

#[test]
fn one_person_is_one_vote_however_often_it_is_written() {
    let g = Given { count: 2, ..Given::prompted() };
    let mut s = g.story().yes("ann");
    let mut again = s.c.votes[0].clone();
    again.channel = "ssh".into();
    s.c.votes.push(again);
    assert!(World::of(&g).ask(&s.c).unwrap_err().message.contains("1 of 2"));
    assert_eq!(World::of(&g).ask(&s.yes("bob").c).unwrap().by(), ["ann", "bob"]);
}

/// Two of different groups: Ann and Bob are of one, Zoe of the other.
fn of_two_groups() -> Given {
    let answers = [("ann", "sre"), ("bob", "sre"), ("zoe", "rel")].map(|(p, g)| (p.to_owned(), names(&[g])));
    Given { count: 2, approvers: names(&["ann", "bob", "zoe"]), answers: answers.into(), ..Given::prompted() }
}

fn in_groups(world: &mut World, groups: &[(&str, &[&str])]) {
    for p in &mut world.people {
        let own = groups.iter().find(|(name, _)| *name == p.name);
        p.spec.groups = own.map_or_else(Vec::new, |(_, groups)| names(groups));
    }
}

const AS_ASKED: [(&str, &[&str]); 3] = [("ann", &["sre"]), ("bob", &["sre"]), ("zoe", &["rel"])];

#[test]
fn two_of_one_group_are_one_where_groups_must_differ() {
    let g = of_two_groups();
    let world = |groups: &[(&str, &[&str])]| {
        let mut world = World::of(&g);
        in_groups(&mut world, groups);
        world
    };
    let (alike, good) = (g.story().yes("ann").yes("bob"), g.story().yes("ann").yes("zoe"));
    let said = world(&AS_ASKED).ask(&alike.c).unwrap_err().message;
    assert!(said.contains("1 of 2 needed approvals") && said.contains("nobody said yes for rel"), "{said}");
    assert_eq!(world(&AS_ASKED).ask(&good.c).unwrap().by(), ["ann", "zoe"]);
    assert_eq!(world(&AS_ASKED).ask(&alike.clone().yes("zoe").c).unwrap().by(), ["ann", "bob", "zoe"]);
    // What the state of the change was is not what the gate goes by.
    let moved: [(&str, &[&str]); 2] = [("ann", &["sre"]), ("zoe", &["sre"])];
    assert!(world(&moved).ask(&good.c).unwrap_err().message.contains("1 of 2"), "she is of the same group now");
    assert!(world(&[("ann", &["sre"])]).ask(&good.c).is_err(), "she is of none now");
    let late: [(&str, &[&str]); 2] = [("ann", &["sre"]), ("bob", &["sre", "rel"])];
    assert!(world(&late).ask(&alike.c).is_err(), "when he was asked he could not answer for it");
    let mut looser = world(&AS_ASKED);
    looser.decided.quorum.different_groups = false;
    assert!(looser.ask(&alike.c).is_err(), "the card said that groups differ");
    looser.decided.level = Level::Standard;
    assert!(looser.ask(&alike.c).is_err());
    assert!(looser.ask(&good.c).is_ok());
}

#[test]
fn groups_that_must_differ_only_now_void_two_of_one() {
    let g = Given { answers: BTreeMap::new(), ..of_two_groups() };
    let strict = of_two_groups().decided();
    let ask = |story: Story| {
        let mut world = World { decided: strict.clone(), ..World::of(&g) };
        in_groups(&mut world, &AS_ASKED);
        world.ask(&story.c)
    };
    assert!(ask(g.story().yes("ann").yes("bob")).unwrap_err().message.contains("1 of 2"));
    assert!(ask(g.story().yes("ann").yes("zoe")).is_ok());
}

#[test]
fn zero_approvals_never_suffice() {
    let g = Given { count: 0, ..Given::prompted() };
    for s in [g.story(), g.story().yes("ann")] {
        assert!(World::of(&g).ask(&s.c).unwrap_err().message.contains("No rule says who"));
    }
}

#[test]
fn another_owner_voids_it() {
    let (g, s) = (Given::prompted(), approved());
    assert!(voids(&g, &s, |w| w.owner.name = "other".into()).contains("now delivered by"));
    assert!(voids(&g, &s, |w| w.owner.namespace = "argocd2".into()).contains("now delivered by"));
    assert!(voids(&g, &s, |w| w.owner.engine = crate::model::Engine::Flux).contains("now delivered by"));
}

#[test]
fn a_file_that_is_not_as_it_was_shown_voids_it() {
    let (g, s) = (Given::prompted(), approved());
    assert!(voids(&g, &s, |w| w.blobs[0].1 = Some(AFTER.into())).contains("changed since"));
    assert!(voids(&g, &s, |w| w.blobs[0].1 = None).contains("changed since"), "deleted");
    assert!(voids(&g, &s, |w| w.blobs.clear()).contains("changed since"), "not looked at");
    assert!(voids(&g, &s, |w| w.blobs[0].0 = "other".into()).contains("changed since"));
}

#[test]
fn nobody_needs_to_vote_on_standard_changes_and_pull_requests() {
    for g in [Given::new(Level::Standard, Delivery::Direct), Given::new(Level::Prompted, Delivery::PullRequest)] {
        assert!(World::of(&g).ask(&g.story().c).unwrap().by().is_empty());
    }
    for g in [Given::prompted(), Given::new(Level::Prompted, Delivery::MergeAfterApproval)] {
        assert!(World::of(&g).ask(&g.story().c).unwrap_err().message.contains("0 of 1"));
    }
}

/// What an authorization permits: own branch, followed branch, another branch, pull request, merge.
fn reach(auth: &Authorization, own: &str) -> [bool; 5] {
    [
        auth.permits_ref(&format!("refs/heads/{own}")).is_ok(),
        auth.permits_ref("refs/heads/main").is_ok(),
        auth.permits_ref("refs/heads/release").is_ok(),
        auth.permits_proposal().is_ok(),
        auth.permits_merge().is_ok(),
    ]
}

#[test]
fn an_authorization_reaches_exactly_its_scope() {
    let s = approved();
    let own = s.c.branch();
    let land = World::of(&Given::prompted()).ask(&s.c).unwrap();
    assert_eq!(reach(&land, &own), [true, true, false, true, true]);
    let g = Given::new(Level::Prompted, Delivery::PullRequest);
    let propose = World::of(&g).ask(&g.story().c).unwrap();
    assert_eq!(reach(&propose, &own), [true, false, false, true, false], "the merge is a person's");
    let ended = s.closed(Ending::Cancelled);
    let close = withdraw(&ended.c).unwrap();
    assert_eq!(reach(&close, &own), [false, false, false, false, false]);
    assert_eq!((close.repository(), close.digest()), ("shop", &ended.c.digest));
    assert!(close.permits_withdrawal().is_ok());
    assert!([&land, &propose].iter().all(|a| a.permits_withdrawal().is_err()), "only what has ended is closed");
    for e in [close.permits_ref("refs/heads/main"), close.permits_proposal(), close.permits_merge()] {
        assert_eq!(e.unwrap_err().code, "gate.out_of_scope");
    }
}

#[test]
fn only_an_ended_changes_own_branch_is_deleted_and_only_where_it_was_pushed() {
    let g = Given::new(Level::Prompted, Delivery::PullRequest);
    let open = g.story().authorized().done(Effect::PushBranch, json!({"commit": "c1"}));
    assert_eq!(sweep(&open.c).unwrap_err().code, "gate.out_of_scope");
    assert!(sweep(&g.story().closed(Ending::Expired).c).is_err(), "nothing was pushed");
    let ended = open.closed(Ending::Expired);
    let own = ended.c.branch();
    let auth = sweep(&ended.c).unwrap();
    assert_eq!(reach(&auth, &own), [false; 5]);
    assert!(auth.permits_withdrawal().is_err());
    let git_ref = format!("refs/heads/{own}");
    assert!(auth.permits_deletion(&git_ref, "c1").is_ok());
    for (name, commit) in [(git_ref.as_str(), "c2"), (own.as_str(), "c1"), ("refs/heads/main", "c1"), ("", "c1")] {
        assert_eq!(auth.permits_deletion(name, commit).unwrap_err().code, "gate.out_of_scope", "{name} {commit}");
    }
    assert!(withdraw(&ended.c).unwrap().permits_deletion(&git_ref, "c1").is_err());
    assert!(World::of(&g).ask(&g.story().c).unwrap().permits_deletion(&git_ref, "c1").is_err());
}

#[test]
fn refs_are_compared_whole() {
    let auth = World::of(&Given::prompted()).ask(&approved().c).unwrap();
    for odd in [
        "main",
        "refs/heads/main/",
        "refs/heads/main2",
        "refs/heads/Main",
        "refs/tags/main",
        "",
        "+refs/heads/main",
        " refs/heads/main",
    ] {
        assert_eq!(auth.permits_ref(odd).unwrap_err().code, "gate.out_of_scope", "{odd:?}");
    }
}

#[test]
fn only_an_ended_change_that_never_landed_is_withdrawn() {
    let open = approved();
    assert_eq!(withdraw(&open.c).unwrap_err().code, "gate.out_of_scope");
    let landed = open.clone().authorized().done(Effect::PushTarget, json!({})).landed();
    assert!(withdraw(&landed.c).is_err());
    assert!(withdraw(&landed.closed(Ending::Failed).c).is_err(), "what landed is undone by a new change");
    assert!(withdraw(&open.closed(Ending::Expired).c).is_ok());
}

#[test]
fn a_rebase_keeps_the_approval_as_long_as_the_files_are_the_same() {
    let s = approved().then(Body::Rebased { base: "b1".into() });
    assert!(World::of(&Given::prompted()).ask(&s.c).is_ok());
}

/// `Probe::<T>::CLONE` is true exactly where `T: Clone` (an inherent constant hides a trait's).
struct Probe<T>(std::marker::PhantomData<T>);
trait Absent {
    const CLONE: bool = false;
    const DESERIALIZE: bool = false;
    const DEFAULT: bool = false;
}
impl<T> Absent for Probe<T> {}
impl<T: Clone> Probe<T> {
    const CLONE: bool = true;
}
impl<T: serde::de::DeserializeOwned> Probe<T> {
    const DESERIALIZE: bool = true;
}
impl<T: Default> Probe<T> {
    const DEFAULT: bool = true;
}

#[test]
fn an_authorization_cannot_be_copied_or_read_from_anywhere() {
    let there = [Probe::<Digest>::CLONE, Probe::<Digest>::DESERIALIZE, Probe::<String>::DEFAULT];
    assert_eq!(there, [true; 3], "the probe sees what there is");
    let ours = [Probe::<Authorization>::CLONE, Probe::<Authorization>::DESERIALIZE, Probe::<Authorization>::DEFAULT];
    assert_eq!(ours, [false; 3]);
}
