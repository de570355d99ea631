//! From a tool name and a JSON object to a typed call, or a problem that says what is wrong with it.

use countersign_core::model::{CancelArgs, ChangeArgs, ChangesArgs, InspectArgs, OperateArgs, RollbackArgs};
use countersign_core::{Problem, Result};
use rmcp::model::JsonObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Deepest nesting of arguments.
pub const MAX_DEPTH: usize = 16;
/// Longest wait of `change`, in seconds.
pub const MAX_WAIT_S: u32 = 45;
/// Longest quotation of a deserialiser in a problem, in characters.
const MAX_QUOTE: usize = 300;

/// A call whose arguments have the right shape.
#[derive(Debug, Clone)]
pub enum Call {
    /// `inspect`.
    Inspect(InspectArgs),
    /// `operate`.
    Operate(OperateArgs),
    /// `change`.
    Change(ChangeArgs),
    /// `changes`.
    Changes(ChangesArgs),
    /// `cancel`.
    Cancel(CancelArgs),
    /// `rollback`.
    Rollback(RollbackArgs),
}

impl Call {
    /// Reads a call. `input.depth`, `input.unknown_argument`, `input.arguments`, `input.tool`.
    pub fn parse(tool: &str, arguments: JsonObject) -> Result<Self> {
        let arguments = Value::Object(arguments);
        if deeper_than(&arguments, MAX_DEPTH) {
            return Err(Problem::new(
                "input.depth",
                format!("The arguments of {tool} are nested deeper than {MAX_DEPTH} levels."),
                "Send flatter values; give deep objects as YAML in a manifest.",
            ));
        }
        match tool {
            "inspect" => read(tool, arguments).map(Self::Inspect),
            "operate" => read(tool, arguments).map(Self::Operate),
            "change" => read(tool, arguments).map(|mut a: ChangeArgs| {
                a.wait_s = Some(a.wait_s.unwrap_or(0).min(MAX_WAIT_S));
                Self::Change(a)
            }),
            "changes" => read(tool, arguments).map(Self::Changes),
            "cancel" => read(tool, arguments).map(Self::Cancel),
            "rollback" => read(tool, arguments).map(Self::Rollback),
            other => Err(unknown_tool(other)),
        }
    }
}

/// The problem of a call to a tool that does not exist.
pub fn unknown_tool(name: &str) -> Problem {
    Problem::new(
        "input.tool",
        format!("There is no tool {}.", quote(name)),
        format!("Call one of {}.", super::NAMES.join(", ")),
    )
}

fn read<T: DeserializeOwned>(tool: &str, arguments: Value) -> Result<T> {
    serde_json::from_value(arguments).map_err(|e| {
        let said = quote(&e.to_string());
        // The prefix is the deserialiser's own; a value can only follow a prefix of another kind.
        let code = if said.starts_with("unknown field") { "input.unknown_argument" } else { "input.arguments" };
        Problem::new(
            code,
            format!("The arguments of {tool} do not fit: {said}."),
            format!("Send only what the input schema of {tool} names, spelled as there."),
        )
    })
}

/// At most [`MAX_QUOTE`] characters, without control characters.
fn quote(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_QUOTE).collect()
}

/// Whether `value` has more than `levels` nested containers. Stops at the limit, so depth costs nothing.
pub fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(map) => levels == 0 || map.values().any(|v| deeper_than(v, levels - 1)),
        Value::Array(items) => levels == 0 || items.iter().any(|v| deeper_than(v, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonObject {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn an_unknown_argument_is_refused_and_named() {
        let problem = Call::parse("inspect", object(json!({"traget": "a/b/C/d"}))).unwrap_err();
        assert_eq!(problem.code, "input.unknown_argument");
        assert!(problem.message.contains("`traget`"), "{}", problem.message);
        assert!(problem.message.contains("`target`"), "{}", problem.message);
    }

    #[test]
    fn an_unknown_argument_inside_an_edit_is_refused() {
        let edit = json!({"target": "a/b/C/d", "scale": {"replicas": 2, "force": true}});
        let problem = Call::parse("operate", object(json!({"edits": [edit], "reason": "r"}))).unwrap_err();
        assert_eq!(problem.code, "input.unknown_argument");
        assert!(problem.message.contains("`force`"), "{}", problem.message);
    }

    #[test]
    fn a_value_cannot_pose_as_another_code() {
        let problem = Call::parse("changes", object(json!({"state": "unknown field"}))).unwrap_err();
        assert_eq!(problem.code, "input.arguments");
    }

    #[test]
    fn seventeen_levels_are_refused_and_sixteen_are_not() {
        let nest = |n: usize| (0..n).fold(json!(1), |v, _| json!([v]));
        let arguments = |n| {
            object(
                json!({"edits": [{"target": "a/b/C/d", "set_field": {"pointer": "/spec/x", "value": nest(n)}}], "reason": "r"}),
            )
        };
        // The object, the list, the edit and set_field are four.
        assert!(Call::parse("operate", arguments(12)).is_ok());
        assert_eq!(Call::parse("operate", arguments(13)).unwrap_err().code, "input.depth");
    }

    #[test]
    fn waiting_is_capped() {
        let Call::Change(args) = Call::parse("change", object(json!({"change": "cs-1", "wait_s": 4000}))).unwrap()
        else {
            panic!("not a change")
        };
        assert_eq!(args.wait_s, Some(45));
    }
}
