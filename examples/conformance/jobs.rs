//! Fixtures of the tasks extension (SEP-2663). Their state is in memory: only the protocol is tested with them;
//! the product's own tasks live in its journal.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult,
    ErrorData,
};
use rmcp::service::RequestContext;
use rmcp::task_manager::{TaskExit, TaskManager, TaskOptions};
use serde_json::Value;

use super::questions::{ask, given, require, str_at, text};

/// Names of these tools.
pub const NAMES: [&str; 7] = [
    "greet",
    "slow_compute",
    "failing_job",
    "protocol_error_job",
    "confirm_delete",
    "multi_input",
    "test_tool_with_task",
];
/// Those that cannot be answered without a task.
const ONLY_AS_TASK: [&str; 4] = ["failing_job", "confirm_delete", "multi_input", "test_tool_with_task"];

pub async fn call(
    tasks: &TaskManager,
    request: &CallToolRequestParams,
    ctx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let takes_tasks = ctx.client_capabilities().is_some_and(|c| c.supports_tasks());
    let name = request.name.as_ref();
    if ONLY_AS_TASK.contains(&name) && !takes_tasks {
        return Err(ErrorData::missing_required_client_capability(
            ClientCapabilities::builder().enable_tasks().build(),
        ));
    }
    let argument = |key: &str| request.arguments.as_ref().and_then(|a| a.get(key));
    match name {
        "greet" => Ok(text(format!("Hello, {}!", argument("name").and_then(Value::as_str).unwrap_or("friend"))).into()),
        "slow_compute" => {
            let seconds = argument("seconds").and_then(Value::as_f64).unwrap_or(1.0);
            let takes = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            if !takes_tasks {
                tokio::time::sleep(takes).await;
                return Ok(text("computed").into());
            }
            let task = tasks.spawn(TaskOptions::default(), move |ctx| {
                Box::pin(async move {
                    tokio::select! {
                        () = ctx.cancelled() => Err(TaskExit::Cancelled),
                        () = tokio::time::sleep(takes) => Ok(text("computed")),
                    }
                })
            });
            Ok(CreateTaskResult::new(task).into())
        }
        "failing_job" => {
            after(tasks, 1000, || Ok(CallToolResult::error(vec![ContentBlock::text("it failed, as it should")])))
        }
        "protocol_error_job" if takes_tasks => {
            after(tasks, 200, || Err(ErrorData::internal_error("it broke, as it should", None)))
        }
        "protocol_error_job" => Err(ErrorData::internal_error("it broke, as it should", None)),
        "confirm_delete" => confirm(tasks),
        "multi_input" => two_questions(tasks),
        "test_tool_with_task" => match given(request.input_responses.as_ref(), "user_name") {
            None => Ok(require([("user_name", ask("What is your name?", "name", "string")?)], None).into()),
            Some(said) => {
                let greeting = format!("Hello, {}! (later)", str_at(said, "/content/name"));
                after(tasks, 200, move || Ok(text(greeting)))
            }
        },
        other => Err(ErrorData::invalid_params(format!("no fixture {other}"), None)),
    }
}

fn after<F>(tasks: &TaskManager, ms: u64, work: F) -> Result<CallToolResponse, ErrorData>
where
    F: FnOnce() -> Result<CallToolResult, ErrorData> + Send + 'static,
{
    let task = tasks.spawn(TaskOptions::default(), move |_| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            work().map_err(TaskExit::Error)
        })
    });
    Ok(CreateTaskResult::new(task).into())
}

fn confirm(tasks: &TaskManager) -> Result<CallToolResponse, ErrorData> {
    let question = ask("Delete it?", "confirm", "boolean")?;
    let task = tasks.spawn(TaskOptions::default(), move |ctx| {
        Box::pin(async move {
            let said = ctx.request_input("confirm", question).await?;
            let yes = said.pointer("/content/confirm").and_then(Value::as_bool).unwrap_or(false);
            Ok(text(format!("confirmed: {yes}")))
        })
    });
    Ok(CreateTaskResult::new(task).into())
}

fn two_questions(tasks: &TaskManager) -> Result<CallToolResponse, ErrorData> {
    let (first, second) = (ask("Value A", "value", "string")?, ask("Value B", "value", "string")?);
    let task = tasks.spawn(TaskOptions::default(), move |ctx| {
        Box::pin(async move {
            let (a, b) = tokio::join!(ctx.request_input("input-a", first), ctx.request_input("input-b", second));
            let (a, b) = (a?, b?);
            Ok(text(format!("a = {}, b = {}", str_at(&a, "/content/value"), str_at(&b, "/content/value"))))
        })
    });
    Ok(CreateTaskResult::new(task).into())
}
