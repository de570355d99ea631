//! Sentences for agents: what a state means, and what to tell the person they work for.

/// One sentence on a change in this state. `what` comes from [`super::what`].
pub fn state_summary(state: &str, name: &str, what: &str) -> String {
    let tail = match state {
        "planned" => "planned only: nobody was asked and nothing was written",
        "proposed" | "evaluated" => "has been recorded and is being decided by policy",
        "awaiting_approval" => "waits for a person to decide",
        "awaiting_merge" => "waits for a listed person to merge its pull request",
        "awaiting_commit" | "manual" => "must be committed by a person; the patch is in the answer",
        "held" | "stopped" => "is held by the emergency stop",
        "approved" | "authorized" => "is approved and about to be delivered",
        "delivering" | "pushing" => "is being committed",
        "landed" | "observing" => "is committed, and the engine has not finished with that commit",
        "healthy" => "is deployed, synced and healthy",
        "failed" => "is committed, and the engine reports a failure",
        "timed_out" => "is committed, and was not seen healthy within the time allowed",
        "superseded" => "was committed, and a later commit took its place",
        "rejected" => "was rejected by a person; nothing was written",
        "expired" => "expired because nobody decided in time; nothing was written",
        "cancelled" => "was withdrawn; nothing was written",
        "stale" => "is no longer valid, because what was approved is not what would be done now",
        "undelivered" => "could not be delivered",
        "abandoned" => "was left to a person, who did not commit it in time",
        _ => "is in a state that `change` explains",
    };
    format!("{name} ({what}) {tail}.")
}

/// What to tell the person, in this state (`next.say`).
pub fn next_say(state: &str, name: &str) -> String {
    match state {
        "planned" => "This is only a plan. Shall I propose it?".to_owned(),
        "awaiting_approval" => {
            format!("I have asked for approval of {name}. It is decided by the people on the card, not by me.")
        }
        "awaiting_merge" => format!("The pull request of {name} is open. Merging it is the approval."),
        "awaiting_commit" | "manual" => format!("Policy wants a person to commit {name}. Here is the patch."),
        "held" | "stopped" => "Someone has stopped all changes. Nothing goes on until people resume.".to_owned(),
        "approved" | "authorized" | "delivering" | "pushing" => format!("{name} is approved and is being committed."),
        "landed" | "observing" => {
            format!("{name} is committed. I am waiting until the engine reports that very commit healthy.")
        }
        "healthy" => format!("{name} is live and healthy."),
        "failed" | "timed_out" => {
            format!("{name} was deployed but did not become healthy. `rollback` prepares its revert for approval.")
        }
        "superseded" => {
            format!("Someone committed after {name}; look at the resource again before proposing anything.")
        }
        "rejected" => {
            format!("A person rejected {name}. I will not propose the same again; the reason is in the answer.")
        }
        "expired" => format!(
            "Nobody decided about {name} in time. Ask people whether it is still wanted before proposing it again."
        ),
        "cancelled" => format!("{name} is withdrawn."),
        "stale" => format!("Something changed under {name}. Look again and propose it anew if it is still right."),
        "undelivered" => format!("{name} could not be committed; the reason is in the answer."),
        "abandoned" => format!("Nobody committed the patch of {name}."),
        _ => format!("Call `change` to see how {name} stands."),
    }
}
