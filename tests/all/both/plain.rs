//! What a forge hides: the real `git http-backend` and its hooks (`countersign::sandbox::git` hands requests to them),
//! on both back ends. There is no forge, so deliveries are pushes, and what the server says of a push is its own.

use countersign::sandbox::git::{self, Author, FileChange, GitOptions, GitServer, GitUser};
use countersign::sandbox::world::ANNA;

use super::apps::{Engine, NEW, OLD, Shape};
use super::place::{Login, Place, Repository, Wish, refusal, story, text};
use super::scenarios_of_both;
use super::through::{ENDS, approved};
use super::truth::Want;

scenarios_of_both!(
    a_push_that_comes_too_late,
    a_hook_that_declines,
    a_branch_that_is_rewound_or_gone,
    what_is_taken_back_is_not_called_healthy,
);

/// A Git server with one repository, which engines read without a credential.
pub async fn serve(name: &str) -> (Repository, GitServer) {
    let [bot, jon, anna] = ["countersign-bot", "jon", "anna"]
        .map(|login| Login { login: login.into(), token: format!("{login}-{:032x}", rand::random::<u128>()) });
    let users =
        [&bot, &jon, &anna].map(|l| GitUser { login: l.login.clone(), token: l.token.clone(), can_write: true });
    let options = GitOptions { users: users.into(), anonymous_read: true, ..GitOptions::default() };
    let server = git::start(options).await.unwrap();
    let full = format!("acme/{name}");
    let first = [FileChange::write("README.md", b"# A place\n")];
    server.repos().create(&full, "main", &first, &Author::new("Anna", "anna@example.test")).unwrap();
    let url = server.repo_url(&full);
    let repository =
        Repository { owner: "acme".into(), name: name.into(), url, api_url: String::new(), bot, jon, anna };
    (repository, server)
}

fn wish() -> Wish {
    Wish { plain: true, gate: true, ..Wish::default() }
}

impl Place {
    fn server(&self) -> &GitServer {
        self.git.as_ref().expect("a plain Git server")
    }

    fn full(&self) -> String {
        format!("{}/{}", self.repository.owner, self.repository.name)
    }

    /// What the server answered to the last push through the gate: `ng REF REASON`, and what hooks wrote.
    fn answered(&self) -> String {
        self.gate.as_ref().unwrap().answered()
    }
}

/// Some megabytes that do not compress, for whoever fetches and clones.
fn ballast() -> String {
    (0..40_000).map(|_| format!("{:032x}{:032x}\n", rand::random::<u128>(), rand::random::<u128>())).collect()
}

/// Between the client's look at the branch and its push somebody else pushes: the server's own compare-and-swap
/// refuses, and the change is proved anew on their work.
async fn a_push_that_comes_too_late(engine: Engine) {
    let mut p = Place::new("plain git: a lost push race", wish()).await;
    let app = p.app(Shape::plain(&p, engine).with("data/ballast.txt", &ballast())).await;
    let change = p.propose(p.set_image("web", NEW)).await;
    p.overtaken(&[("docs/notes.md", "a note\n")]);
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "healthy", "{end:#}");
    assert!(story(&end).contains("proved anew on"), "{}", story(&end));
    let all = p.gate.as_ref().unwrap().all_answers();
    let [late, landed] = all.as_slice() else { panic!("two pushes: {all:#?}") };
    assert!(late.contains("ng refs/heads/main ") && !late.contains("hook declined"), "git's own no: {late}");
    assert!(landed.contains("ok refs/heads/main"), "{landed}");
    assert_eq!(p.people.file("docs/notes.md").as_deref(), Some("a note\n"), "nobody's work is lost");
    assert_eq!(p.people.ours().len(), 1);
    p.compare(&app, &change, &[Want::image("web", NEW)]).await;
    p.end().await;
}

/// A pre-receive hook says no: its words reach the agent and the approver, and nothing is tried again.
async fn a_hook_that_declines(engine: Engine) {
    let mut p = Place::new("plain git: a hook declines", wish()).await;
    p.app(Shape::plain(&p, engine)).await;
    let tip = p.people.tip();
    p.server().repos().protect(&p.full(), "main", true).unwrap();
    let change = approved(&mut p, NEW).await;
    let end = p.until(&change, &["undelivered"]).await;
    assert_eq!(text(&end["problem"], "code"), "change.undelivered", "{end:#}");
    assert!(refusal(&end).contains("refuses the push"), "{}", refusal(&end));
    assert!(story(&end).contains("hook declined"), "{}", story(&end));
    assert!(p.answered().contains("ng refs/heads/main pre-receive hook declined"), "{}", p.answered());
    assert_eq!(p.gate.as_ref().unwrap().all_answers().len(), 1, "a decision is not asked for twice");
    assert_eq!(p.people.tip(), tip);
    p.sees(ANNA, "NOT DELIVERED").await;
    p.tell(engine, "undelivered");
    p.end().await;
}

async fn a_branch_that_is_rewound_or_gone(engine: Engine) {
    let mut p = Place::new("plain git: a branch rewound, and gone", wish()).await;
    p.app(Shape::plain(&p, engine)).await;
    let first = p.people.tip();
    p.people.commit(&[("docs/bad.md", Some("a commit that somebody takes back\n"))]);
    let change = p.propose(p.set_image("web", NEW)).await;
    p.people.git(&["push", "-q", "--force", "origin", &format!("{first}:refs/heads/main")]).unwrap();
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &["stale"]).await;
    assert!(refusal(&end).contains("rewound"), "{}", refusal(&end));
    assert_eq!(p.people.tip(), first, "what was taken back stays so");
    let change = p.propose(p.set_image("web", NEW)).await;
    // Git forbids to delete the branch that HEAD names over the wire.
    p.server().repos().delete_branch(&p.full(), "main").unwrap();
    p.press(ANNA, "Approve").await;
    let end = p.until(&change, &["stale"]).await;
    assert!(refusal(&end).contains("main"), "{}", refusal(&end));
    let names = p.server().repos().branches(&p.full()).unwrap();
    assert!(!names.iter().any(|(n, _)| n.ends_with("main")), "{names:?}");
    assert_eq!(p.gate.as_ref().unwrap().all_answers(), Vec::<String>::new(), "nothing was pushed");
    assert_eq!(p.live_image("web").await.as_deref(), Some(OLD));
    p.tell(engine, "stale");
    p.end().await;
}

/// The commit lands, and somebody takes it off the branch before the engine has seen it.
async fn what_is_taken_back_is_not_called_healthy(engine: Engine) {
    let mut p = Place::new("plain git: taken back", Wish { observe_s: Some(20), ..wish() }).await;
    let app = p.app(Shape::plain(&p, engine)).await;
    let before = p.people.tip();
    p.hold(&app).await;
    let change = approved(&mut p, NEW).await;
    p.until_told(&change, "suspended").await;
    p.people.git(&["push", "-q", "--force", "origin", &format!("{before}:refs/heads/main")]).unwrap();
    p.release(&app, serde_json::json!({})).await;
    p.refresh(&app).await;
    let end = p.until(&change, &ENDS).await;
    assert_eq!(text(&end, "state"), "timed_out", "{end:#}");
    assert_eq!((p.people.tip(), p.live_image("web").await.as_deref()), (before, Some(OLD)), "nobody puts it back");
    p.tell(engine, "timed_out");
    p.end().await;
}
