//! Rules in, decision out: what each rule, person, label and hour does to a decision.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::model::{Delivery, Level, Named, PersonSpec, RiskLevel};

mod approvers;
mod checks;
mod conditions;
mod decisions;
mod explanations;
mod freezes;
mod matches;
mod obligations;
mod properties;
mod reading;
mod risks;

fn set(text: &str) -> PolicySet {
    PolicySet::parse(&[("p.yaml", text)]).unwrap()
}

fn refused(text: &str) -> crate::Problem {
    PolicySet::parse(&[("p.yaml", text)]).unwrap_err()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn person(name: &str, telegram: i64, groups: &[&str]) -> Named<PersonSpec> {
    Named {
        name: name.into(),
        spec: PersonSpec {
            telegram: Some(telegram),
            groups: groups.iter().map(|g| (*g).into()).collect(),
            ..PersonSpec::default()
        },
    }
}

fn people() -> Vec<Named<PersonSpec>> {
    vec![person("ann", 1, &["sre"]), person("bob", 2, &["sre", "dev"]), person("jon", 3, &["sre"])]
}

fn facts(operation: &str, own: &[(&str, &str)]) -> Facts {
    Facts {
        targets: vec![Target {
            operation: operation.into(),
            namespace: "shop".into(),
            kind: "Deployment".into(),
            labels_before: Some(labels(own)),
            labels_after: Some(labels(own)),
            values: None,
        }],
        cluster: "prod-eu".into(),
        cluster_labels: BTreeMap::new(),
        repository: "deploy".into(),
        repository_labels: BTreeMap::new(),
        agent: "sre-bot".into(),
        sponsor: "jon".into(),
        risk: RiskLevel::Low,
        files: 1,
        lines: 2,
        objects: 1,
        privileged: None,
        now: 0,
        counts: Counts::new(),
    }
}

const PROD: &str = "
version: 1
default: {level: deny}
rules:
- id: prod
  match: {labels: {env: prod}, operation: [set_image, scale]}
  level: prompted
  approve: {from: [sre], count: 1, expires: 30m, remind: 5m}
  deliver: direct
  caps: {files: 1, lines: 10, objects: 1}
";

const STAGING: &str = "
version: 1
default: {level: deny}
rules:
- {id: staging, match: {labels: {env: staging}}, level: standard}
- {id: prod, match: {labels: {env: prod}}, level: manual}
";

fn with_values(operation: &str, own: &[(&str, &str)], before: Value, after: Value) -> Facts {
    let mut f = facts(operation, own);
    let side = |v: Value| v.as_object().cloned();
    f.targets[0].values = Some(Values { before: side(before), after: side(after) });
    f
}

fn at(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

const SMALL: &str = "
version: 1
default: {level: deny}
rules:
- id: small
  match: {labels: {env: staging}, operation: [scale, set_image]}
  when: change.after.replicas <= 10
  level: standard
";

const FROZEN: &str = "
version: 1
rules:
- {id: open, match: {labels: {env: staging}}, level: standard}
- {id: asked, match: {labels: {env: prod}}, level: prompted, approve: {from: [sre], count: 1}}
freeze:
- {id: weekend, match: {labels: {env: [prod, staging]}}, zone: UTC, weekly: {from: sat 00:00, to: mon 00:00}, approve: {from: [dev]}, reason: nobody is there}
- {id: year-end, zone: UTC, between: {from: 2026-12-20, to: 2027-01-04}}
";
