//! The form of a policy file as a JSON schema, for editors; and a change in the short form of tests.

use serde_json::Value;

use super::cases::facts_of;
use super::facts::Facts;
use super::file::known_given;
use super::raw::{Given, RawFile};
use super::rule::PolicySet;
use crate::error::{Problem, Result};

/// JSON schema of a policy file.
pub fn schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(RawFile)).unwrap_or_default();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), "Countersign policy".into());
    }
    schema
}

/// A change in the form of `given` as facts.
///
/// # Errors
/// `policy.call`.
pub fn call(set: &PolicySet, given: Value) -> Result<Facts> {
    let bad = |why: String| {
        Problem::new(
            "policy.call",
            format!("This is no change: {why}."),
            "Write the keys of `given` (docs/policy.md), for example {\"operation\": \"scale\", \"labels\": {\"env\": \"staging\"}, \"after\": {\"replicas\": 5}}.",
        )
    };
    if !given.is_object() {
        return Err(bad("it is no mapping".into()));
    }
    let given: Given = serde_json::from_value(given).map_err(|e| bad(e.to_string().chars().take(200).collect()))?;
    known_given(&given).map_err(bad)?;
    Ok(facts_of(set, &given))
}
