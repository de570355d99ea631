//! Label and field selectors.

use serde_json::Value;

use super::json::{get, text};
use super::reply::Failure;

/// What a list or watch asks for.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(Vec<String>, bool, String)>,
}

#[derive(Debug, Clone)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Failure> {
        let labels = split_outside_parentheses(labels)
            .map(|part| {
                parse_requirement(part).ok_or_else(|| Failure::bad(format!("unable to parse requirement: {part:?}")))
            })
            .collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| {
                let (path, equal, value) = match (part.split_once("!="), part.split_once('=')) {
                    (Some((path, value)), _) => (path, false, value),
                    (None, Some((path, value))) => (path, true, value.trim_start_matches('=')),
                    _ => {
                        return Err(Failure::bad(format!("invalid selector: {part:?}; can't understand {part:?}")));
                    }
                };
                Ok((path.trim().split('.').map(str::to_owned).collect(), equal, value.trim().to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether an object is meant.
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| get(object, &["metadata", "labels", key]).and_then(Value::as_str);
        self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|found| values.iter().any(|value| value == found)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|found| values.iter().all(|value| value != found)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        }) && self.fields.iter().all(|(path, equal, value)| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            (text(object, &path) == value) == *equal
        })
    }
}

fn split_outside_parentheses(source: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    source
        .split(move |c: char| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    let values = |inside: &str| -> Option<Vec<String>> {
        let inside = inside.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inside.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((key, inside)) = part.split_once(" notin ") {
        return Some(Requirement::NotIn(key.trim().to_owned(), values(inside)?));
    }
    if let Some((key, inside)) = part.split_once(" in ") {
        return Some(Requirement::In(key.trim().to_owned(), values(inside)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once('=') {
        return Some(Requirement::In(key.trim().to_owned(), vec![value.trim_start_matches('=').trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => Some(Requirement::Absent(key.trim().to_owned())),
        None => (!part.contains(char::is_whitespace)).then(|| Requirement::Exists(part.to_owned())),
    }
}
