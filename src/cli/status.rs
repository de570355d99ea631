//! `status`: the daemon on one screen, from its own answer.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use countersign_core::Result;
use serde_json::Value;

use crate::config::Config;
use crate::pipeline::ControlRequest as Request;
use crate::server::Limits;
use crate::server::control::call;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `status`. Exit code 1 where the daemon is up and not ready.
pub async fn run(config: &Path, args: Status) -> Result<ExitCode> {
    let answer = call(&Config::load(config)?.bootstrap.state_dir, &Request::Status).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&answer).unwrap_or_default());
    } else {
        print!("{}", screen(&answer));
    }
    let ready = answer.get("ready").and_then(Value::as_bool).unwrap_or(false);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(v: &Value, pointer: &str) -> u64 {
    v.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'a>(v: &'a Value, pointer: &str) -> &'a [Value] {
    v.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A span of time in its two largest units.
fn span(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A problem under `pointer`, as `code: sentence`.
fn why(v: &Value, pointer: &str) -> Option<String> {
    let p = v.pointer(pointer)?;
    p.is_object().then(|| format!("{}: {}", text(p, "/code"), text(p, "/message")))
}

/// The screen. Everything on it was made by the daemon, which escapes what is not its own.
fn screen(v: &Value) -> String {
    let mut out = String::new();
    let mut line = |l: String| {
        out.push_str(l.trim_end());
        out.push('\n');
    };
    let ready = why(v, "/not_ready").map_or_else(|| "ready".to_owned(), |w| format!("NOT READY: {w}"));
    line(format!("countersign {} · up {} · {ready}", text(v, "/version"), span(number(v, "/uptime_s"))));
    if v.pointer("/stopped").is_some_and(Value::is_object) {
        line(format!("STOPPED by {}: {}", text(v, "/stopped/by"), text(v, "/stopped/why")));
        line("  nothing leaves; `countersign resume` ends it".into());
    }
    for (key, title) in [("pending", "Waiting for people"), ("moving", "On their way")] {
        let all = number(v, &format!("/changes/{key}"));
        line(format!("\n{title} ({all})"));
        let shown = list(v, &format!("/{key}"));
        for c in shown {
            let (name, state, age) = (text(c, "/name"), text(c, "/state"), span(number(c, "/age_s")));
            line(format!("  {name:<9} {state:<18} {age:<10} {}", text(c, "/what")));
        }
        let left = all.saturating_sub(shown.len() as u64);
        if left > 0 {
            line(format!("  … and {left} more"));
        }
    }
    for c in list(v, "/to_review") {
        let (name, by, reason) = (text(c, "/name"), text(c, "/by"), text(c, "/reason"));
        line(format!("\nTO REVIEW {name}: {by} alone let {} through: {reason}", text(c, "/what")));
        line(format!("  somebody else says what they found: countersign review {name} --note …"));
    }
    line("\nClusters".into());
    for c in list(v, "/clusters") {
        cluster(c, &mut line);
    }
    line("\nRepositories".into());
    for r in list(v, "/repositories") {
        let forge = match text(r, "/forge/kind") {
            "" => "no forge: direct delivery only".to_owned(),
            kind => format!("{kind} {}", text(r, "/forge/repository")),
        };
        line(format!("  {:<12} {} · {forge}", text(r, "/name"), text(r, "/address")));
    }
    let channel = match text(v, "/channel/state") {
        "" => "none: people decide on the command line or on the forge".to_owned(),
        state => why(v, "/channel/problem").map_or_else(|| state.to_owned(), |w| format!("{state}: {w}")),
    };
    line(format!("\nTelegram   {channel}"));
    let journal = why(v, "/journal/problem").unwrap_or_else(|| "in order".into());
    let (events, ended) = (number(v, "/journal/events"), number(v, "/changes/ended"));
    line(format!("Journal    {journal}, event {events}, {ended} changes ended"));
    let (people, agents, rules) = (number(v, "/people"), number(v, "/agents"), number(v, "/policy/rules"));
    let version: String = text(v, "/policy/version").chars().take(12).collect();
    line(format!("Policy     {rules} rules (version {version}), {people} people, {agents} agents"));
    let limit = |key: &str| span(number(v, &format!("/limits/{key}")));
    line(format!(
        "Limits     deliver within {}, observe for {}, healthy for {}, poll every {}",
        limit("deliver_s"),
        limit("observe_s"),
        limit("stable_s"),
        limit("poll_s")
    ));
    let per_agent = Limits::default();
    line(format!("           per agent {} calls a second, {} at once", per_agent.per_second, per_agent.burst));
    let found = v.pointer("/kustomize").and_then(Value::as_bool).unwrap_or(false);
    line(format!("kustomize  {}", if found { "found" } else { "not found: edits of kustomizations are refused" }));
    out
}

fn cluster(c: &Value, line: &mut impl FnMut(String)) {
    let reachable = why(c, "/problem").unwrap_or_else(|| "reachable".into());
    let engines: Vec<String> = c
        .pointer("/engines")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, e)| format!("{name}: {} owners, {} well", number(e, "/owners"), number(e, "/well")))
        .collect();
    let engines = if engines.is_empty() { "no owners".to_owned() } else { engines.join(" · ") };
    let hints = if c.pointer("/hints").and_then(Value::as_bool) == Some(true) { " · hints" } else { "" };
    line(format!("  {:<12} {reachable} · {engines}{hints}", text(c, "/name")));
    for w in list(c, "/watches").iter().filter(|w| !matches!(text(w, "/state"), "following" | "absent")) {
        let since = span(number(w, "/since_s"));
        let because = why(w, "/problem").map(|w| format!(": {w}")).unwrap_or_default();
        line(format!("    watch on {} {} for {since}{because}", text(w, "/kind"), text(w, "/state")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Value {
        json!({
            "version": "0.1.0", "uptime_s": 7_500, "ready": false,
            "not_ready": {"code": "cluster.unreachable", "message": "The cluster's API server does not answer.", "next": "Wait."},
            "stopped": {"by": "person:anna", "why": "disk is full"},
            "journal": {"events": 41, "problem": null},
            "changes": {"pending": 22, "moving": 0, "ended": 5},
            "pending": [{"name": "cs-7F3K", "state": "awaiting_approval", "age_s": 65, "what": "image 1 → 2 in prod: 0 of 1 approvals by anna"}],
            "moving": [],
            "clusters": [{"name": "prod", "reachable": false, "problem": {"code": "cluster.unreachable", "message": "Down.", "next": ""}, "hints": true,
                "watches": [{"kind": "Application", "state": "interrupted", "since_s": 40, "problem": {"code": "cluster.unreachable", "message": "Down.", "next": ""}},
                            {"kind": "HelmRelease", "state": "absent", "since_s": 9, "problem": null}],
                "engines": {"argocd": {"owners": 12, "well": 11}}}],
            "repositories": [{"name": "shop", "address": "git.example/acme/shop", "forge": {"kind": "gitea", "repository": "acme/shop"}},
                             {"name": "infra", "address": "git.example/acme/infra", "forge": null}],
            "channel": {"kind": "telegram", "state": "failing", "problem": {"code": "telegram.unauthorized", "message": "The token is not accepted.", "next": ""}},
            "kustomize": false, "people": 3, "agents": 1,
            "policy": {"rules": 2, "version": "0123456789abcdef"},
            "limits": {"observe_s": 900, "deliver_s": 600, "stable_s": 10, "poll_s": 15},
        })
    }

    #[test]
    fn the_screen_says_first_what_is_wrong_and_shows_every_part() {
        insta::assert_snapshot!(screen(&answer()));
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (s, shown) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_725, "1 h 2 min"), (90_000, "1 d 1 h")] {
            assert_eq!(span(s), shown);
        }
    }
}
