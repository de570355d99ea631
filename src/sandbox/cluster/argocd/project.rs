//! What an AppProject permits: repositories, destinations, kinds, and when.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::super::clock::go_duration;
use super::super::json::{flag, list, text};
use super::super::kinds::Kind;
use super::{App, NAMESPACE, target};

impl App {
    /// The Application's project.
    pub(super) fn project(&self, app: &Value) -> Option<std::sync::Arc<Value>> {
        let name = text(app, &["spec", "project"]);
        self.shared.store.find("argoproj.io", "AppProject", NAMESPACE, if name.is_empty() { "default" } else { name })
    }

    /// Why the spec is not acceptable: the text of an `InvalidSpecError`.
    pub(super) fn spec_error(&self, app: &Value) -> Option<String> {
        let name = text(app, &["spec", "project"]);
        let Some(project) = self.project(app) else {
            return Some(format!("Application referencing project {name} which does not exist"));
        };
        for source in target::sources(app) {
            let url = text(&source, &["repoURL"]);
            if !permitted(list(&project, &["spec", "sourceRepos"]), url) {
                return Some(format!("application repo {url} is not permitted in project '{name}'"));
            }
        }
        let (server, namespace) =
            (text(app, &["spec", "destination", "server"]), text(app, &["spec", "destination", "namespace"]));
        let fits = list(&project, &["spec", "destinations"]).iter().any(|allowed| {
            let place = text(allowed, &["server"]);
            (glob(place, server) || glob(text(allowed, &["name"]), text(app, &["spec", "destination", "name"])))
                && glob(text(allowed, &["namespace"]), namespace)
        });
        (!fits).then(|| format!("application destination server '{server}' and namespace '{namespace}' do not match any of the allowed destinations in project '{name}'"))
    }

    /// Why a kind may not be synced in this project.
    pub(super) fn kind_error(&self, app: &Value, group: &str, kind: &str, known: Option<&Kind>) -> Option<String> {
        let project = self.project(app)?;
        let hits = |field: &str| {
            list(&project, &["spec", field])
                .iter()
                .any(|entry| glob(text(entry, &["group"]), group) && glob(text(entry, &["kind"]), kind))
        };
        let has = |field: &str| !list(&project, &["spec", field]).is_empty();
        let allowed = if known.is_none_or(|known| known.namespaced) {
            (!has("namespaceResourceWhitelist") || hits("namespaceResourceWhitelist"))
                && !hits("namespaceResourceBlacklist")
        } else {
            hits("clusterResourceWhitelist") && !hits("clusterResourceBlacklist")
        };
        (!allowed)
            .then(|| format!("resource {group}:{kind} is not permitted in project {}", text(app, &["spec", "project"])))
    }

    /// Whether the project's sync windows let a sync through now (argo-cd: pkg/apis/application/v1alpha1, SyncWindows.CanSync).
    pub(super) fn window_open(&self, app: &Value, manual: bool) -> bool {
        let Some(project) = self.project(app) else {
            return true;
        };
        let now = self.shared.clock().now();
        let matching: Vec<&Value> =
            list(&project, &["spec", "syncWindows"]).iter().filter(|window| concerns(window, app)).collect();
        let active = |window: &&&Value| is_active(window, now);
        let of = |kind: &'static str| matching.iter().filter(move |window| text(window, &["kind"]) == kind);
        let denying: Vec<_> = of("deny").filter(active).collect();
        if !denying.is_empty() {
            return manual && denying.iter().all(|window| flag(window, &["manualSync"]));
        }
        if of("allow").any(|window| is_active(window, now)) {
            return true;
        }
        let closed: Vec<_> = of("allow").collect();
        closed.is_empty() || (manual && closed.iter().all(|window| flag(window, &["manualSync"])))
    }
}

fn concerns(window: &Value, app: &Value) -> bool {
    let any = |field: &str, value: &str| {
        list(window, &[field]).iter().filter_map(Value::as_str).any(|pattern| glob(pattern, value))
    };
    any("applications", text(app, &["metadata", "name"]))
        || any("namespaces", text(app, &["spec", "destination", "namespace"]))
        || any("clusters", text(app, &["spec", "destination", "server"]))
}

fn is_active(window: &Value, now: DateTime<Utc>) -> bool {
    let Ok(schedule) = text(window, &["schedule"]).parse::<croner::Cron>() else {
        return false;
    };
    let length = go_duration(text(window, &["duration"])).unwrap_or(Duration::ZERO);
    let zone: chrono_tz::Tz = text(window, &["timeZone"]).parse().unwrap_or(chrono_tz::UTC);
    let from = (now - TimeDelta::from_std(length).unwrap_or_default()).with_timezone(&zone);
    schedule.find_next_occurrence(&from, false).is_ok_and(|start| start <= now.with_timezone(&zone))
}

/// Globs with `*` as in project lists; a lone `*` is everything.
pub fn glob(pattern: &str, value: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else {
        return false;
    };
    let Some(mut rest) = value.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

fn permitted(patterns: &[Value], url: &str) -> bool {
    let plain = |url: &str| url.trim_end_matches('/').trim_end_matches(".git").to_lowercase();
    let hit = |pattern: &str| pattern == "*" || glob(&plain(pattern), &plain(url));
    let words = || patterns.iter().filter_map(Value::as_str);
    words().any(|pattern| !pattern.starts_with('!') && hit(pattern))
        && !words().filter_map(|pattern| pattern.strip_prefix('!')).any(hit)
}
