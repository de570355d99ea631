//! Prompts: Markdown files with a front matter, built in or from a folder.
//!
//! ```text
//! ---
//! name: investigate
//! description: Find out why something is unhealthy.
//! arguments:
//!   - name: target
//!     description: cluster/namespace/Kind/name
//!     required: true
//! ---
//! Look at {{target}} with `inspect` …
//! ```

use std::path::Path;

use countersign_core::{Problem, Result};
use rmcp::model::{ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde::Deserialize;

const BUILT_IN: [(&str, &str); 3] = [
    ("investigate.md", include_str!("../../prompts/investigate.md")),
    ("operate.md", include_str!("../../prompts/operate.md")),
    ("rollback.md", include_str!("../../prompts/rollback.md")),
];

/// Longest value of an argument, in characters.
const MAX_ARGUMENT: usize = 1000;

/// All prompts, by name.
#[derive(Debug, Clone)]
pub struct Prompts(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    front: Front,
    body: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    name: String,
    #[serde(default)]
    title: Option<String>,
    description: String,
    #[serde(default)]
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    required: bool,
}

impl Prompts {
    /// The prompts that come with the program.
    pub fn built_in() -> Result<Self> {
        Self::of(BUILT_IN.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())))
    }

    /// The `*.md` files of a folder. `prompts.unreadable`, `prompts.front_matter`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let unreadable = |e: std::io::Error| {
            Problem::new(
                "prompts.unreadable",
                format!("The prompts folder cannot be read: {e}."),
                "Correct `prompts`, or leave it out for the built-in ones.",
            )
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|e| e == "md") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, std::fs::read_to_string(&path).map_err(unreadable)?));
            }
        }
        Self::of(files.into_iter())
    }

    fn of(files: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut entries = files.map(|(file, text)| parse(&file, &text)).collect::<Result<Vec<_>>>()?;
        entries.sort_by(|a, b| a.front.name.cmp(&b.front.name));
        if let Some([a, _]) = entries.windows(2).find(|w| matches!(w, [a, b] if a.front.name == b.front.name)) {
            return Err(front_matter(&a.front.name, "two files have this name"));
        }
        Ok(Self(entries))
    }

    /// For `prompts/list`.
    pub fn list(&self) -> Vec<Prompt> {
        self.0.iter().map(Entry::describe).collect()
    }

    /// For `prompts/get`: the body with the arguments in place.
    pub fn get(&self, name: &str, arguments: Option<&JsonObject>) -> Result<GetPromptResult, ErrorData> {
        let Some(entry) = self.0.iter().find(|e| e.front.name == name) else {
            let names: Vec<_> = self.0.iter().map(|e| e.front.name.as_str()).collect();
            let problem = Problem::new(
                "input.prompt",
                "There is no prompt of this name.",
                format!("Take one of {}.", names.join(", ")),
            );
            return Err(super::tasks::error(&problem));
        };
        entry.fill(arguments).map_err(|p| super::tasks::error(&p))
    }

    /// Names of prompts that start with `prefix`, for completion.
    pub fn complete(&self, prefix: &str) -> Vec<String> {
        self.0.iter().map(|e| &e.front.name).filter(|n| n.starts_with(prefix)).cloned().collect()
    }
}

impl Entry {
    fn describe(&self) -> Prompt {
        let arguments: Vec<_> = self
            .front
            .arguments
            .iter()
            .map(|a| {
                let argument = PromptArgument::new(a.name.clone()).with_required(a.required);
                match &a.description {
                    Some(d) => argument.with_description(d.clone()),
                    None => argument,
                }
            })
            .collect();
        let prompt =
            Prompt::new(&self.front.name, Some(&self.front.description), (!arguments.is_empty()).then_some(arguments));
        match &self.front.title {
            Some(title) => prompt.with_title(title),
            None => prompt,
        }
    }

    fn fill(&self, arguments: Option<&JsonObject>) -> Result<GetPromptResult> {
        let known = |name: &str| self.front.arguments.iter().any(|a| a.name == name);
        if let Some(unknown) = arguments.into_iter().flat_map(JsonObject::keys).find(|k| !known(k)) {
            let unknown: String = unknown.chars().take(80).collect();
            return Err(Problem::new(
                "input.unknown_argument",
                format!("The prompt {} has no argument {unknown}.", self.front.name),
                "Send only the arguments that prompts/list names.",
            ));
        }
        let mut values = Vec::with_capacity(self.front.arguments.len());
        for argument in &self.front.arguments {
            let value = arguments.and_then(|a| a.get(&argument.name)).and_then(|v| v.as_str()).unwrap_or_default();
            if argument.required && value.is_empty() {
                return Err(Problem::new(
                    "input.arguments",
                    format!("The prompt {} needs the argument {}.", self.front.name, argument.name),
                    "Send it as a string.",
                ));
            }
            values.push((argument.name.as_str(), value.chars().take(MAX_ARGUMENT).collect::<String>()));
        }
        let message = PromptMessage::new_text(Role::User, substitute(&self.body, &values));
        Ok(GetPromptResult::new(vec![message]).with_description(&self.front.description))
    }
}

/// Replaces `{{name}}` in one pass: what a value contains is never replaced again.
fn substitute(body: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let found = after
            .split_once("}}")
            .and_then(|(name, tail)| values.iter().find(|(n, _)| *n == name.trim()).map(|(_, value)| (value, tail)));
        match found {
            Some((value, tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn parse(file: &str, text: &str) -> Result<Entry> {
    let text = text.replace("\r\n", "\n");
    let Some((front, body)) = text.strip_prefix("---\n").and_then(|t| t.split_once("\n---\n")) else {
        return Err(front_matter(file, "it does not start with a block between two `---` lines"));
    };
    let front: Front = serde_saphyr::from_str(front).map_err(|e| front_matter(file, &e.to_string()))?;
    Ok(Entry { front, body: body.trim().to_owned() })
}

fn front_matter(file: &str, what: &str) -> Problem {
    Problem::new(
        "prompts.front_matter",
        format!("The prompt {file} cannot be used: {what}."),
        "Give it a front matter with name, description and arguments (name, description, required).",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompts() -> Prompts {
        let text = "---\nname: look\ndescription: Looks.\narguments:\n  - name: target\n    required: true\n  - name: hint\n---\nLook at {{target}}, {{ hint }}{{other}}.\n";
        Prompts::of([("look.md".to_owned(), text.to_owned())].into_iter()).unwrap()
    }

    fn text_of(result: &GetPromptResult) -> String {
        serde_json::to_value(result).unwrap()["messages"][0]["content"]["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn arguments_are_put_in_once() {
        let arguments = json!({"target": "{{hint}}", "hint": "x"});
        let result = prompts().get("look", arguments.as_object()).unwrap();
        assert_eq!(text_of(&result), "Look at {{hint}}, x{{other}}.");
    }

    #[test]
    fn missing_and_unknown_arguments_are_refused() {
        for (arguments, code) in
            [(json!({}), "input.arguments"), (json!({"target": "a", "b": "c"}), "input.unknown_argument")]
        {
            let error = prompts().get("look", arguments.as_object()).unwrap_err();
            assert_eq!(error.data.unwrap()["code"], code);
        }
        assert_eq!(prompts().get("nope", None).unwrap_err().data.unwrap()["code"], "input.prompt");
    }

    #[test]
    fn a_bad_front_matter_names_the_file() {
        for text in ["no front matter", "---\nname: x\n---\nbody", "---\nname: x\ndescription: d\nextra: 1\n---\n"] {
            let problem = Prompts::of([("bad.md".to_owned(), text.to_owned())].into_iter()).unwrap_err();
            assert_eq!(problem.code, "prompts.front_matter");
            assert!(problem.message.contains("bad.md"));
        }
    }

    #[test]
    fn the_built_in_prompts_can_be_read() {
        let names = Prompts::built_in().unwrap().complete("");
        assert_eq!(names, ["investigate", "operate", "rollback"]);
    }
}
