//! `when:` conditions in CEL: compiled and bounded when a file is read, evaluated on facts.
//!
//! A condition has three answers. What cannot be evaluated (a missing value, another type, a label
//! that two sources disagree on) is neither true nor false: the rule then counts as one that may
//! match, which can tighten a decision and never loosens one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelDouble, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, Program, Value};
use serde_json::Value as Json;

use super::bounds::{self, LabelUse, Uses};

/// Most bytes of a condition.
const MAX_SOURCE: usize = 2048;
/// Longest text that a condition sees; a longer one counts as missing.
const MAX_TEXT: usize = 4096;

/// A compiled condition.
#[derive(Clone)]
pub struct Condition {
    source: String,
    program: Arc<Program>,
    uses: Uses,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Condition").field(&self.source).finish()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Condition {}

/// What a condition says about one object at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holds {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// Nobody can say, because.
    Unclear(String),
}

/// The values of the variables, once for each object and moment.
pub(super) struct Scope(Context<'static, 'static>);

impl Condition {
    /// Parses and bounds a condition. The error is one clause, for the reader of the file.
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("it is longer than {MAX_SOURCE} bytes"));
        }
        bounds::nesting(source)?;
        catch_unwind(AssertUnwindSafe(|| Self::parse(source.trim().to_owned())))
            .unwrap_or_else(|_| Err("it does not parse".into()))
    }

    fn parse(source: String) -> Result<Self, String> {
        let program = ENV.compile(&source).map_err(|e| {
            let words = e.to_string();
            let line = words.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("it does not parse");
            // `ERROR: <input>:1:14: what`: the place is within the condition, not within the file.
            let what = line.strip_prefix("ERROR: <input>:").map_or(line, |l| l.splitn(3, ':').nth(2).unwrap_or(l));
            what.trim().trim_end_matches('.').chars().take(160).collect::<String>()
        })?;
        let uses = bounds::inspect(program.expression())?;
        Ok(Self { source, program: Arc::new(program), uses })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The first of these label keys that the condition looks at.
    pub(super) fn looks_at<'k>(&self, mut keys: impl Iterator<Item = &'k str>) -> Option<&'k str> {
        keys.find(|k| match &self.uses.labels {
            LabelUse::Keys(used) => used.contains(*k),
            LabelUse::All => true,
        })
    }

    /// Whether the condition looks at a label for which `known` does not stand.
    pub(super) fn looks_at_other_than(&self, known: impl Fn(&str) -> bool) -> bool {
        match &self.uses.labels {
            LabelUse::Keys(used) => used.iter().any(|k| !known(k)),
            LabelUse::All => true,
        }
    }

    pub(super) fn holds(&self, scope: &Scope) -> Holds {
        let run = catch_unwind(AssertUnwindSafe(|| self.program.execute(&scope.0)));
        match run {
            Ok(Ok(Value::Bool(true))) => Holds::Yes,
            Ok(Ok(Value::Bool(false))) => Holds::No,
            Ok(Ok(_)) => Holds::Unclear("the condition is neither true nor false".into()),
            Ok(Err(e)) => Holds::Unclear(words(&e)),
            Err(_) => Holds::Unclear("the condition cannot be evaluated".into()),
        }
    }
}

/// Why a condition failed, without the values that it saw.
fn words(e: &ExecutionError) -> String {
    match e {
        ExecutionError::NoSuchKey(key) => format!("the condition looks at {key}, which is not known"),
        ExecutionError::UndeclaredReference(name) => format!("the condition names {name}, which is not known"),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedKeyType(_)
        | ExecutionError::UnsupportedIndex(..) => "the condition compares values of different types".into(),
        ExecutionError::FunctionError { function, .. } => format!("{function} of the condition failed"),
        _ => "the condition cannot be evaluated".into(),
    }
}

impl Scope {
    pub(super) fn new(variables: BTreeMap<&'static str, Json>, now_ms: i64) -> Self {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for (name, value) in variables {
            // What is too large stays undeclared, so that a condition on it is unclear.
            if let Some(value) = value_of(&value) {
                context.add_variable_from_value(name, value);
            }
        }
        if let Some(now) = chrono::DateTime::from_timestamp_millis(now_ms) {
            context.add_variable_from_value("now", Value::Timestamp(now.fixed_offset()));
        }
        Self(context)
    }
}

/// JSON as CEL; `None` for texts and collections beyond the bounds, which are then missing where they stood.
fn value_of(v: &Json) -> Option<Value> {
    Some(match v {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(f)) => Value::Float(f),
            (None, None) => return None,
        },
        Json::String(s) if s.len() <= MAX_TEXT => Value::String(Arc::new(s.clone())),
        Json::Array(items) if items.len() <= bounds::MAX_ITEMS => {
            Value::List(Arc::new(items.iter().map(value_of).collect::<Option<_>>()?))
        }
        Json::Object(map) if map.len() <= bounds::MAX_ITEMS => {
            map.iter().filter_map(|(k, v)| Some((k.clone(), value_of(v)?))).collect::<HashMap<String, Value>>().into()
        }
        Json::String(_) | Json::Array(_) | Json::Object(_) => return None,
    })
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Fails only where the name is taken; conditions with it are then unclear, which is strict.
    let _ = env.add_overload("quantity", "quantity_string", vec![STRING_TYPE], |args| {
        let text = args.first().and_then(|a| a.downcast_ref::<CelString<'_>>()).map(|s| s.inner().to_owned());
        let number = text.as_deref().and_then(crate::model::quantity);
        number
            .map(|n| CowVal::owned(CelDouble::from(n)))
            .ok_or_else(|| ExecutionError::function_error("quantity", "no quantity"))
    });
    Arc::new(env)
});

/// The label keys whose values a condition must not trust, because sources disagree.
pub(super) fn disputed<'a>(any: &'a BTreeMap<&'a str, BTreeSet<&'a str>>) -> impl Iterator<Item = &'a str> {
    any.iter().filter(|(_, v)| v.len() > 1).map(|(k, _)| *k)
}
