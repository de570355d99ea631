//! Pending changes as tasks (SEP-2663): the task id is the change id, its state is the change's own.
//!
//! Nothing is kept here, so a task answers after a restart exactly as long as its change does.

use chrono::{SecondsFormat, Utc};
use countersign_core::Problem;
use countersign_core::model::{ChangeAnswer, Outcome};
use rmcp::model::{CreateTaskResult, DetailedTask, ErrorData, GetTaskResult, Task, TaskPayload, TaskStatus};
use serde_json::Value;

use super::tools::Answer;

/// Seconds between polls where the answer names none.
const POLL_S: u32 = 5;

/// A task handle for an answer that waits; `None` where there is nothing to wait for.
pub fn handle(answer: &ChangeAnswer) -> Option<CreateTaskResult> {
    if answer.outcome != Outcome::Waiting {
        return None;
    }
    let id = answer.change.as_deref()?;
    Some(CreateTaskResult::new(task(id, answer, TaskStatus::Working)))
}

/// The task of a change, as it stands.
pub fn state(id: &str, answer: ChangeAnswer) -> Result<GetTaskResult, ErrorData> {
    let cancelled = answer.state.as_deref() == Some("cancelled");
    let status = match answer.outcome {
        Outcome::Waiting | Outcome::Manual | Outcome::Planned => TaskStatus::Working,
        Outcome::Ended if cancelled => TaskStatus::Cancelled,
        _ => TaskStatus::Completed,
    };
    let task = task(id, &answer, status);
    let payload = match status {
        TaskStatus::Working => TaskPayload::Working,
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        _ => {
            let mut result = Answer::change(answer).render();
            // Inside a task the result has the shape of the original call's, without a discriminator of its own.
            result.result_type = None;
            match serde_json::to_value(result) {
                Ok(Value::Object(result)) => TaskPayload::Completed { result },
                _ => return Err(ErrorData::internal_error("the result could not be written", None)),
            }
        }
    };
    Ok(GetTaskResult::new(DetailedTask::new(task, payload)))
}

/// A problem as the protocol error that `tasks/*` answer with.
pub fn error(problem: &Problem) -> ErrorData {
    ErrorData::invalid_params(
        format!("{}: {} {}", problem.code, problem.message, problem.next),
        serde_json::to_value(problem).ok(),
    )
}

fn task(id: &str, answer: &ChangeAnswer, status: TaskStatus) -> Task {
    let now = || Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let created = answer.story.first().map_or_else(now, |l| l.at.clone());
    let updated = answer.story.last().map_or_else(|| created.clone(), |l| l.at.clone());
    let message = match &answer.waits_for {
        Some(waits) => format!("{} Waits for {waits}.", answer.summary),
        None => answer.summary.clone(),
    };
    let poll = answer.next.as_ref().map_or(POLL_S, |n| n.after_s.max(1));
    Task::new(id, status, created, updated).with_status_message(message).with_poll_interval_ms(u64::from(poll) * 1000)
}
