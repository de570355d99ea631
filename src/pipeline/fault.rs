//! Fault points of the kill harness. In a release build they are nothing.

/// Where in the bracket of an effect the process dies.
pub const PLACES: [&str; 4] = ["before_intent", "after_intent", "after_effect", "after_result"];

/// Steps that are not effects, but where a crash must lose nothing either.
pub const STEPS: [&str; 6] =
    ["before_proposed", "after_proposed", "before_vote", "after_vote", "before_closed", "after_closed"];

/// Every fault point: each place of each effect, and each step.
pub fn points() -> Vec<String> {
    countersign_core::model::Effect::NAMES
        .iter()
        .flat_map(|e| PLACES.iter().map(move |p| format!("{e}.{p}")))
        .chain(STEPS.iter().map(|s| (*s).to_owned()))
        .collect()
}

/// Dies here, by SIGKILL, if `COUNTERSIGN_FAULT` names this point and it was not hit before
/// (`COUNTERSIGN_FAULT_MARK` names a file that keeps the hits).
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    let Ok(wanted) = std::env::var("COUNTERSIGN_FAULT") else { return };
    if wanted != name {
        return;
    }
    if let Ok(mark) = std::env::var("COUNTERSIGN_FAULT_MARK") {
        use std::io::Write as _;
        let hit = std::fs::OpenOptions::new().create_new(true).write(true).open(&mark);
        let Ok(mut file) = hit else { return };
        let _ = writeln!(file, "{name}");
    }
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
    std::thread::sleep(std::time::Duration::from_secs(5));
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}
