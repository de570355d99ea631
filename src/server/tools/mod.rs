//! The six tools: what they are called, what they take, and how a call becomes an answer.
//!
//! There is no tool that approves, denies or changes a policy, and no argument that does.

pub mod answer;
pub mod args;
mod schema;
mod trim;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use countersign_core::model::{
    CancelArgs, ChangeAnswer, ChangeArgs, ChangesAnswer, ChangesArgs, InspectAnswer, InspectArgs, OperateArgs,
    Principal, RollbackArgs,
};
use countersign_core::{Problem, Result};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use tokio::sync::mpsc;

pub use answer::Answer;
pub use args::Call;

use super::service::Service;

/// Names of all tools, in the order of `tools/list`.
pub const NAMES: [&str; 6] = ["inspect", "operate", "change", "changes", "cancel", "rollback"];

/// Longest time that a call which writes may keep its caller waiting; the work goes on after it.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// The tools, always the same bytes in the same order.
pub fn list() -> &'static [Tool] {
    static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        vec![
            tool(
                "inspect",
                "Look before you act. With `target`: who owns a live object (Argo CD or Flux), with evidence; the Git file \
                 and line it comes from; health, events, open changes. Without: clusters, owners and what is unhealthy. \
                 Changes nothing.",
                schema::input::<InspectArgs>(),
                schema::output::<InspectAnswer>(&[]),
                ToolAnnotations::new().read_only(true).open_world(true),
            ),
            tool(
                "operate",
                "Ask for a change to live objects by editing their source in Git. Finds the owner, edits the owning file, asks \
                 people where policy says so, commits, and watches that commit until healthy. Each edit has a target and \
                 exactly one operation. Use `plan_only` first to see diff, risk and who is asked. Usually answers `waiting` \
                 at once: follow `next`. Never kubectl-edit what this owns.",
                schema::input::<OperateArgs>(),
                schema::output::<ChangeAnswer>(&["Outcome", "Choice", "Problem", "Retry", "Next"]),
                ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(true),
            ),
            tool(
                "change",
                "One change: state, what it waits for, diff, decision, story. `wait_s` waits for news. Only people can \
                 approve; do not poll faster than `next.after_s`.",
                schema::input::<ChangeArgs>(),
                schema::output::<ChangeAnswer>(&[]),
                ToolAnnotations::new().read_only(true).open_world(false),
            ),
            tool(
                "changes",
                "List your changes, newest first: open ones, ended ones or all, also by target.",
                schema::input::<ChangesArgs>(),
                schema::output::<ChangesAnswer>(&[]),
                ToolAnnotations::new().read_only(true).open_world(false),
            ),
            tool(
                "cancel",
                "Withdraw an open change that is not needed any more. What has landed stays: use `rollback`.",
                schema::input::<CancelArgs>(),
                schema::output::<ChangeAnswer>(&[]),
                ToolAnnotations::new().read_only(false).destructive(false).idempotent(true).open_world(false),
            ),
            tool(
                "rollback",
                "Ask for a new change that undoes a landed one in Git. Same proof, policy and approval as `operate`.",
                schema::input::<RollbackArgs>(),
                schema::output::<ChangeAnswer>(&[]),
                ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(true),
            ),
        ]
    });
    &TOOLS
}

fn tool(
    name: &'static str,
    description: &'static str,
    input: JsonObject,
    output: JsonObject,
    annotations: ToolAnnotations,
) -> Tool {
    Tool::new(name, description, Arc::new(input)).with_raw_output_schema(Arc::new(output)).with_annotations(annotations)
}

/// Runs a call. A call that writes runs in a task of its own: dropping this future does not stop it.
pub async fn run(
    service: &Arc<dyn Service>,
    who: &Principal,
    call: Call,
    progress: mpsc::Sender<String>,
) -> Result<Answer> {
    match call {
        Call::Inspect(mut args) => {
            let page = answer::Page::take(&mut args.cursor)?;
            service.inspect(who, args).await.map(|a| Answer::Inspect(Box::new(a), page))
        }
        Call::Changes(mut args) => {
            let page = answer::Page::take(&mut args.cursor)?;
            service.changes(who, args).await.map(|a| Answer::Changes(Box::new(a), page))
        }
        Call::Change(args) => service.change(who, args, progress).await.map(Answer::change),
        Call::Operate(args) => detached(service, who, |s, w| async move { s.operate(&w, args).await }).await,
        Call::Cancel(args) => detached(service, who, |s, w| async move { s.cancel(&w, args).await }).await,
        Call::Rollback(args) => detached(service, who, |s, w| async move { s.rollback(&w, args).await }).await,
    }
}

async fn detached<F, Fut>(service: &Arc<dyn Service>, who: &Principal, work: F) -> Result<Answer>
where
    F: FnOnce(Arc<dyn Service>, Principal) -> Fut,
    Fut: Future<Output = Result<ChangeAnswer>> + Send + 'static,
{
    let task = tokio::spawn(work(service.clone(), who.clone()));
    match tokio::time::timeout(WRITE_PATIENCE, task).await {
        Ok(Ok(answer)) => answer.map(Answer::change),
        Ok(Err(stopped)) => {
            tracing::error!(error = %stopped, "a call ended abnormally");
            Err(Problem::new(
                "server.call_lost",
                "The call ended abnormally inside Countersign.",
                "Call `changes` to see whether a change came of it before you send it again.",
            )
            .later())
        }
        Err(_) => Err(Problem::new(
            "server.slow",
            format!("The call takes longer than {} s; it goes on without you.", WRITE_PATIENCE.as_secs()),
            "Call `changes` in a minute; the same call with the same key gives the same change.",
        )
        .later()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_exactly_these_and_nothing_approves() {
        let names: Vec<_> = list().iter().map(|t| t.name.as_ref()).collect();
        assert_eq!(names, NAMES);
        for name in names {
            for word in ["approve", "deny", "policy", "confirm", "merge", "stop", "resume"] {
                assert!(!name.contains(word), "{name}");
            }
        }
    }

    /// What agents are told never changes unseen.
    #[test]
    fn the_list_is_the_one_that_was_reviewed() {
        insta::assert_json_snapshot!(list());
    }

    #[test]
    fn the_whole_list_fits_12_kb() {
        let bytes = serde_json::to_vec(list()).unwrap().len();
        assert!(bytes <= 12 * 1024 - 200, "tools/list has {bytes} bytes; the envelope needs up to 200 more");
    }

    #[test]
    fn every_tool_has_schemas_hints_and_a_description() {
        for tool in list() {
            assert_eq!(tool.input_schema.get("type").unwrap(), "object", "{}", tool.name);
            assert_eq!(tool.input_schema.get("additionalProperties").unwrap(), false, "{}", tool.name);
            let output = tool.output_schema.as_ref().unwrap();
            assert_eq!(output.get("type").unwrap(), "object", "{}", tool.name);
            assert!(output.get("properties").unwrap().get("outcome").is_some(), "{}", tool.name);
            let hints = tool.annotations.as_ref().unwrap();
            assert!(hints.read_only_hint.is_some(), "{}", tool.name);
            assert!(tool.description.as_ref().unwrap().len() < 500, "{}", tool.name);
        }
    }

    #[test]
    fn schemas_compile_and_resolve_their_references() {
        for tool in list() {
            for schema in [&tool.input_schema, tool.output_schema.as_ref().unwrap()] {
                jsonschema::validator_for(&serde_json::Value::Object((**schema).clone())).unwrap();
            }
        }
    }
}
