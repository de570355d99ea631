//! Fault points of the kill harness. In a release build they are nothing.

/// Where in the bracket of an effect the process dies.
pub const PLACES: [&str; 4] = ["before_intent", "after_intent", "after_effect", "after_result"];

/// Steps that are not effects, but where a crash must lose nothing either. The points of a recovery
/// are reached only by a process that follows one that was killed.
pub const STEPS: [&str; 13] = [
    "before_proposed",
    "after_proposed",
    "before_vote",
    "after_vote",
    "before_authorized",
    "after_authorized",
    "before_recovery",
    "after_recovery",
    "before_observed",
    "after_observed",
    "before_closed",
    "after_closed",
    "before_revert_noted",
];

/// Every fault point: each place of each effect, and each step.
pub fn points() -> Vec<String> {
    countersign_core::model::Effect::NAMES
        .iter()
        .flat_map(|e| PLACES.iter().map(move |p| format!("{e}.{p}")))
        .chain(STEPS.iter().map(|s| (*s).to_owned()))
        .collect()
}

/// Dies here, by SIGKILL, if this point is armed and was not hit before.
///
/// `COUNTERSIGN_FAULT` names the point, and `COUNTERSIGN_FAULT_MARK` a file that keeps the hit; or
/// `COUNTERSIGN_FAULT=@FILE`: the file holds the point, is read at every point, and is taken away
/// (to FILE.hit) by the one that dies, so that one process can be armed again and again.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    let Ok(wanted) = std::env::var("COUNTERSIGN_FAULT") else { return };
    let claimed = match wanted.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).is_ok_and(|armed| armed.trim() == name)
                && std::fs::rename(file, format!("{file}.hit")).is_ok()
        }
        None => wanted == name && mark(name),
    };
    if !claimed {
        return;
    }
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
    std::thread::sleep(std::time::Duration::from_secs(5));
}

/// Whether this is the first hit.
#[cfg(debug_assertions)]
fn mark(name: &str) -> bool {
    use std::io::Write as _;
    let Ok(path) = std::env::var("COUNTERSIGN_FAULT_MARK") else { return true };
    let Ok(mut file) = std::fs::OpenOptions::new().create_new(true).write(true).open(path) else { return false };
    let _ = writeln!(file, "{name}");
    true
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}
