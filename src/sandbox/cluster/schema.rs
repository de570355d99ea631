//! The types behind the served kinds: what OpenAPI publishes, what writes are checked against,
//! and which lists are merged by key.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::Value;

/// One field's or item's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Text; `format` as OpenAPI names it.
    Text(Option<&'static str>),
    /// A whole number, with its format.
    Whole(&'static str),
    /// Any number.
    Number,
    /// True or false.
    Bool,
    /// A quantity: text or number.
    Quantity,
    /// A port or percentage: text or whole number.
    IntOrText,
    /// Anything, unknown fields included.
    Any,
    /// A list; `keys` name the fields by which items are merged.
    List {
        /// The type of its items.
        item: Box<Node>,
        /// The fields that tell items apart; empty for an atomic list.
        keys: Vec<String>,
        /// Whether it is a set of scalars.
        set: bool,
    },
    /// A map with text keys.
    Map(Box<Node>),
    /// Another type, by its full name.
    Ref(String),
}

/// One field of a type.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its type.
    pub node: Node,
    /// Whether it must be there.
    pub required: bool,
}

/// One object type.
#[derive(Debug, Clone, Default)]
pub struct Type {
    /// The fields, in the order of the source.
    pub fields: Vec<(String, Field)>,
    /// `(group, version, kind)` when it is a kind of its own.
    pub kind: Option<(String, String, String)>,
}

impl Type {
    /// A field by name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, field)| field)
    }
}

/// All types by full name.
#[derive(Debug, Default)]
pub struct Schemas {
    types: BTreeMap<String, Type>,
    kinds: HashMap<(String, String, String), String>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| parse(include_str!("schemas.txt")));

/// The types of the built-in kinds.
pub fn schemas() -> &'static Schemas {
    &SCHEMAS
}

/// What a write got wrong against its schema.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Fields that the type does not have, like `spec.replica`.
    pub unknown: Vec<String>,
    /// Values of the wrong type: path, what was found, what belongs there.
    pub mistyped: Vec<(String, &'static str, &'static str)>,
    /// Required fields that are absent.
    pub missing: Vec<String>,
}

impl Schemas {
    /// The type of a kind.
    pub fn of(&self, group: &str, version: &str, kind: &str) -> Option<(&str, &Type)> {
        let name = self.kinds.get(&(group.to_owned(), version.to_owned(), kind.to_owned()))?;
        Some((name, self.types.get(name)?))
    }

    /// The type that an object's `apiVersion` and `kind` name.
    pub fn of_object(&self, object: &Value) -> Option<Node> {
        let api_version = object.get("apiVersion")?.as_str()?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.of(group, version, object.get("kind")?.as_str()?).map(|(name, _)| Node::Ref(name.to_owned()))
    }

    /// A type by full name.
    pub fn get(&self, name: &str) -> Option<&Type> {
        self.types.get(name)
    }

    /// Every type of one group and version, with those they refer to.
    pub fn reachable(&self, group: &str, version: &str) -> BTreeMap<&str, &Type> {
        let mut open: Vec<&str> = self
            .kinds
            .iter()
            .filter(|((known, served, _), _)| known == group && served == version)
            .map(|(_, name)| name.as_str())
            .collect();
        let mut found = BTreeMap::new();
        while let Some(name) = open.pop() {
            let Some((name, known)) = self.types.get_key_value(name) else {
                continue;
            };
            if found.insert(name.as_str(), known).is_none() {
                open.extend(known.fields.iter().filter_map(|(_, field)| referred(&field.node)));
            }
        }
        found
    }

    /// The type of a child, where one is known.
    pub fn child<'a>(&'a self, node: &'a Node, key: &str) -> &'a Node {
        match node {
            Node::Ref(name) => {
                self.get(name).and_then(|known| known.field(key)).map_or(&Node::Any, |field| &field.node)
            }
            Node::Map(item) => item,
            _ => &Node::Any,
        }
    }

    /// Compares a value with its type.
    pub fn check(&self, value: &Value, node: &Node) -> Findings {
        let mut findings = Findings::default();
        self.walk(value, node, "", &mut findings);
        findings
    }

    fn walk(&self, value: &Value, node: &Node, path: &str, findings: &mut Findings) {
        let wrong = |want: &'static str, findings: &mut Findings| {
            findings.mistyped.push((path.to_owned(), type_name(value), want));
        };
        match (node, value) {
            (_, Value::Null) | (Node::Any, _) => {}
            (Node::Ref(name), Value::Object(map)) => {
                let Some(known) = self.get(name) else { return };
                for (key, inner) in map {
                    match known.field(key) {
                        Some(field) => self.walk(inner, &field.node, &join(path, key), findings),
                        None => findings.unknown.push(join(path, key)),
                    }
                }
                let absent = known
                    .fields
                    .iter()
                    .filter(|(key, field)| field.required && map.get(key).is_none_or(Value::is_null));
                findings.missing.extend(absent.map(|(key, _)| join(path, key)));
            }
            (Node::Map(item), Value::Object(map)) => {
                for (key, inner) in map {
                    self.walk(inner, item, &join(path, key), findings);
                }
            }
            (Node::List { item, .. }, Value::Array(items)) => {
                for (index, inner) in items.iter().enumerate() {
                    self.walk(inner, item, &format!("{path}[{index}]"), findings);
                }
            }
            (Node::Ref(_), _) => wrong("object", findings),
            (Node::Map(_), _) => wrong("map[string]string", findings),
            (Node::List { .. }, _) => wrong("[]", findings),
            (Node::Text(_), Value::String(_)) | (Node::Bool, Value::Bool(_)) | (Node::Number, Value::Number(_)) => {}
            (Node::Quantity, Value::String(_) | Value::Number(_)) => {}
            (Node::Whole(_), Value::Number(number)) if number.is_i64() || number.is_u64() => {}
            (Node::IntOrText, Value::String(_)) => {}
            (Node::IntOrText, Value::Number(number)) if number.is_i64() => {}
            (Node::Text(_), _) => wrong("string", findings),
            (Node::Bool, _) => wrong("bool", findings),
            (Node::Whole(format), _) => wrong(format, findings),
            (Node::Number, _) => wrong("float64", findings),
            (Node::Quantity, _) => wrong("quantity", findings),
            (Node::IntOrText, _) => wrong("intstr", findings),
        }
    }
}

fn referred(node: &Node) -> Option<&str> {
    match node {
        Node::Ref(name) => Some(name),
        Node::List { item, .. } | Node::Map(item) => referred(item),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn parse(source: &str) -> Schemas {
    let mut raw: Vec<(String, Option<String>, String, String)> = Vec::new();
    let (mut package, mut serves) = (String::new(), None);
    for line in source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (name, group_version) =
                section.split_once(' ').map_or((section, None), |(name, gv)| (name, Some(gv.to_owned())));
            package = name.to_owned();
            serves = group_version;
        } else if let Some((name, fields)) = line.split_once(':') {
            raw.push((package.clone(), serves.clone(), name.to_owned(), fields.to_owned()));
        }
    }
    let names: Vec<(String, String)> =
        raw.iter().map(|(package, _, name, _)| (package.clone(), name.clone())).collect();
    let full = |package: &str, short: &str| -> Option<String> {
        let near = names.iter().find(|(known, name)| known == package && name == short);
        near.or_else(|| names.iter().find(|(_, name)| name == short)).map(|(package, name)| format!("{package}.{name}"))
    };
    let mut schemas = Schemas::default();
    for (package, serves, name, fields) in &raw {
        let mut known = Type::default();
        for part in fields.split(", ") {
            let Some((key, node)) = part.trim().split_once(' ') else {
                continue;
            };
            let node = parse_node(node.trim(), &|short| full(package, short));
            known.fields.push((key.trim_end_matches('!').to_owned(), Field { node, required: key.ends_with('!') }));
        }
        if let Some((group, version)) = serves.as_deref().map(|gv| gv.split_once('/').unwrap_or(("", gv)))
            && super::kinds::is_built_in(group, version, name)
        {
            let meta = full(package, "ObjectMeta").map_or(Node::Any, Node::Ref);
            for (key, node) in [("metadata", meta), ("kind", Node::Text(None)), ("apiVersion", Node::Text(None))] {
                known.fields.insert(0, (key.to_owned(), Field { node, required: false }));
            }
            let kind = (group.to_owned(), version.to_owned(), name.clone());
            known.kind = Some(kind.clone());
            schemas.kinds.insert(kind, format!("{package}.{name}"));
        }
        schemas.types.insert(format!("{package}.{name}"), known);
    }
    schemas
}

fn parse_node(text: &str, full: &impl Fn(&str) -> Option<String>) -> Node {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let (item, keys) = inner.split_once(':').unwrap_or((inner, ""));
        let set = keys == "=";
        let keys = keys.split('+').filter(|key| !key.is_empty() && *key != "=").map(str::to_owned).collect();
        return Node::List { item: Box::new(parse_node(item, full)), keys, set };
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return Node::Map(Box::new(parse_node(inner, full)));
    }
    match text {
        "s" => Node::Text(None),
        "y" => Node::Text(Some("byte")),
        "t" => Node::Text(Some("date-time")),
        "i" => Node::Whole("int32"),
        "l" => Node::Whole("int64"),
        "n" => Node::Number,
        "b" => Node::Bool,
        "q" => Node::Quantity,
        "x" => Node::IntOrText,
        "any" => Node::Any,
        short => full(short).map_or(Node::Any, Node::Ref),
    }
}
