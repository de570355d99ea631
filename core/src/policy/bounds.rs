//! What a condition may name and how much work it may be, found out when its file is read: CEL
//! itself knows neither types nor a budget.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators as op};
use cel::parser::Expression;

/// Most entries of any list or map that a condition sees.
pub(super) const MAX_ITEMS: usize = 64;
/// Most work of one evaluation, in steps of about a tenth of a microsecond.
const MAX_COST: u64 = 50_000;
/// Deepest nesting of `all` and `exists`.
const MAX_NESTING: u32 = 2;
/// Longest pattern of `matches`.
const MAX_PATTERN: usize = 256;
/// Steps that one `matches` counts for: its pattern is compiled anew each time.
const MATCHES_COST: u64 = 1000;

/// Deepest nesting of brackets, `? :` included: the parser needs some 170 KB of stack for each in a debug
/// build (measured with cel 0.15), and a thread has 2 MB.
const MAX_BRACKETS: usize = 6;
/// Longest chain of operators between two `&&`, `||` or commas (`a.b[c] + d < e`).
const MAX_CHAIN: usize = 16;
/// Deepest expression: evaluating recurses as deep.
const MAX_DEPTH: u32 = 64;

/// Refuses what would make the parser recurse deeply, before it does: it has no bound of its own that
/// fits every stack. Counts characters, so brackets and dots in texts count as well.
pub(super) fn nesting(source: &str) -> Result<(), String> {
    let (mut depth, mut choices, mut chain) = (0_usize, 0_usize, 0_usize);
    for token in tokens(source) {
        match token {
            "(" | "[" | "{" => {
                depth += 1;
                chain = if token == "[" { chain + 1 } else { 0 };
            }
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "?" => choices += 1,
            "&" | "|" | "," => chain = 0,
            "." | "+" | "-" | "*" | "/" | "%" | "<" | ">" | "=" | "!" | "in" => chain += 1,
            _ => {}
        }
        if depth + choices > MAX_BRACKETS {
            return Err(format!("it is nested deeper than {MAX_BRACKETS}"));
        }
        if chain > MAX_CHAIN {
            return Err(format!("it has more than {MAX_CHAIN} operators in a row"));
        }
    }
    Ok(())
}

/// Words, and every other character by itself; spaces left out.
fn tokens(source: &str) -> impl Iterator<Item = &str> {
    let mut rest = source;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(token)
    })
}

/// Variables of a condition.
pub(super) const VARIABLES: [&str; 10] =
    ["change", "labels", "cluster", "repository", "agent", "risk", "files", "lines", "objects", "now"];

const FUNCTIONS: [&str; 47] = [
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::SUBSTRACT,
    op::ADD,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::NEGATE,
    op::INDEX,
    op::OPT_INDEX,
    op::OPT_SELECT,
    op::NOT_STRICTLY_FALSE,
    op::IN,
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "double",
    "string",
    "bool",
    "timestamp",
    "duration",
    "quantity",
    "orValue",
    "hasValue",
    "value",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "uint",
];

/// Which labels a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LabelUse {
    /// These keys, perhaps none.
    Keys(BTreeSet<String>),
    /// Whichever there are.
    All,
}

/// What a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uses {
    pub labels: LabelUse,
    /// Variables other than `labels`.
    pub variables: BTreeSet<&'static str>,
    /// It looks at `change.before` or `change.after`.
    pub sides: bool,
    /// Fields of these.
    pub fields: BTreeSet<String>,
    /// Numbers and texts that are written in it, for samples.
    pub numbers: BTreeSet<i64>,
    pub texts: BTreeSet<String>,
}

impl Uses {
    /// Whether the answer is the same for every change.
    pub fn constant(&self) -> bool {
        self.variables.is_empty() && self.labels == LabelUse::Keys(BTreeSet::new())
    }
}

/// Refuses a condition that names what does not exist, or that could be much work.
pub(super) fn inspect(e: &Expression) -> Result<Uses, String> {
    let mut walk = Walk {
        uses: Uses {
            labels: LabelUse::Keys(BTreeSet::new()),
            variables: BTreeSet::new(),
            sides: false,
            fields: BTreeSet::new(),
            numbers: BTreeSet::new(),
            texts: BTreeSet::new(),
        },
        scope: Vec::new(),
        nesting: 0,
        depth: 0,
    };
    let cost = walk.cost(e)?;
    if cost > MAX_COST {
        return Err(format!("it could be too much work ({cost} steps of at most {MAX_COST})"));
    }
    Ok(walk.uses)
}

struct Walk {
    uses: Uses,
    /// Variables of the comprehensions around.
    scope: Vec<String>,
    nesting: u32,
    depth: u32,
}

/// `change.after.replicas` as its names; `None` for what is no path from a variable.
fn path(e: &Expression) -> Option<Vec<&str>> {
    match &e.expr {
        Expr::Ident(name) => Some(vec![name.trim_start_matches('.')]),
        Expr::Select(SelectExpr { operand, field, .. }) => {
            let mut names = path(operand)?;
            names.push(field);
            (names.len() < MAX_DEPTH as usize).then_some(names)
        }
        Expr::Call(CallExpr { func_name, target: None, args })
            if [op::INDEX, op::OPT_INDEX, op::OPT_SELECT].contains(&func_name.as_str()) =>
        {
            let [operand, key] = args.as_slice() else { return None };
            let Expr::Literal(LiteralValue::String(key)) = &key.expr else { return None };
            let mut names = path(operand)?;
            names.push(key.inner());
            Some(names)
        }
        _ => None,
    }
}

impl Walk {
    fn cost(&mut self, e: &Expression) -> Result<u64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("it has more than {MAX_DEPTH} levels"));
        }
        let cost = self.cost_of(e)?;
        self.depth -= 1;
        Ok(cost)
    }

    fn cost_of(&mut self, e: &Expression) -> Result<u64, String> {
        if let Some(names) = path(e)
            && let Some((root, fields)) = names.split_first()
            && !self.scope.iter().any(|s| s == root)
        {
            self.variable(root, fields)?;
            return Ok(1 + fields.len() as u64);
        }
        match &e.expr {
            Expr::Literal(literal) => {
                match literal {
                    LiteralValue::Int(i) => drop(self.uses.numbers.insert(*i.inner())),
                    LiteralValue::String(s) => drop(self.uses.texts.insert(s.inner().to_owned())),
                    _ => {}
                }
                Ok(1)
            }
            Expr::Ident(_) => Ok(1),
            Expr::Select(select) => Ok(1 + self.cost(&select.operand)?),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.all(list.elements.iter()),
            Expr::Map(map) => {
                let mut cost = 1;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(m) = &entry.expr {
                        cost += self.cost(&m.key)? + self.cost(&m.value)?;
                    }
                }
                Ok(cost)
            }
            Expr::Comprehension(c) => self.comprehension(c),
            Expr::Struct(_) | Expr::Unspecified => Err("it builds a value of a type that there is not".into()),
        }
    }

    fn all<'e>(&mut self, list: impl Iterator<Item = &'e Expression>) -> Result<u64, String> {
        let mut cost: u64 = 1;
        for e in list {
            cost = cost.saturating_add(self.cost(e)?);
        }
        Ok(cost)
    }

    fn variable(&mut self, root: &str, fields: &[&str]) -> Result<(), String> {
        let Some(known) = VARIABLES.iter().find(|v| **v == root) else {
            return Err(format!("there is no \"{}\"; there are {}", root.escape_debug(), VARIABLES.join(", ")));
        };
        if *known == "labels" {
            match (&mut self.uses.labels, fields.first()) {
                (LabelUse::Keys(keys), Some(key)) => drop(keys.insert((*key).to_owned())),
                (labels, None) => *labels = LabelUse::All,
                (LabelUse::All, _) => {}
            }
            return Ok(());
        }
        self.uses.variables.insert(known);
        if *known != "change" {
            return Ok(());
        }
        let (side, rest) = match fields.split_first() {
            Some((side, rest)) => (*side, rest),
            None => return Err("`change` alone says nothing; use change.before, change.after".into()),
        };
        if ["operation", "namespace", "kind"].contains(&side) {
            return Ok(());
        }
        if !["before", "after"].contains(&side) {
            let there = "before, after, operation, namespace, kind";
            return Err(format!("there is no change.{}; there are {there}", side.escape_debug()));
        }
        self.uses.sides = true;
        if let Some(field) = rest.first() {
            if !super::values::FIELDS.contains(field) {
                let there = super::values::FIELDS.join(", ");
                return Err(format!("there is no change.{side}.{}; there are {there}", field.escape_debug()));
            }
            self.uses.fields.insert((*field).to_owned());
        }
        Ok(())
    }

    fn call(&mut self, call: &CallExpr) -> Result<u64, String> {
        let name = call.func_name.as_str();
        if !FUNCTIONS.contains(&name) {
            return Err(match name {
                "map" | "filter" | "optMap" | "optFlatMap" => format!("there is no {name}; use all, exists"),
                _ => format!("there is no function {}", name.escape_debug()),
            });
        }
        if name == "matches" {
            let pattern = call.args.last().map(|a| &a.expr);
            let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern else {
                return Err("the pattern of matches must be written out".into());
            };
            let pattern = pattern.inner();
            if pattern.len() > MAX_PATTERN {
                return Err(format!("a pattern is longer than {MAX_PATTERN} bytes"));
            }
            if regex::RegexBuilder::new(pattern).size_limit(1 << 18).build().is_err() {
                return Err("a pattern of matches is no regular expression, or too large a one".into());
            }
        }
        let target = call.target.as_deref().map_or(Ok(0), |t| self.cost(t))?;
        let args = self.all(call.args.iter())?;
        let own = if name == "matches" { MATCHES_COST } else { 1 };
        Ok(target.saturating_add(args).saturating_add(own))
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Result<u64, String> {
        // `map` and `filter` gather a list, whose size nothing bounds any more.
        if !matches!(c.accu_init.expr, Expr::Literal(LiteralValue::Boolean(_) | LiteralValue::Int(_))) {
            return Err("there are no map and filter; use all, exists".into());
        }
        let times = match &c.iter_range.expr {
            Expr::List(list) => list.elements.len(),
            Expr::Map(map) => map.entries.len(),
            _ if path(&c.iter_range).is_some() => MAX_ITEMS,
            _ => return Err("all and exists go over a value or a list that is written out".into()),
        };
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(format!("all and exists are nested deeper than {MAX_NESTING}"));
        }
        let range = self.cost(&c.iter_range)?;
        let depth = self.scope.len();
        self.scope.push(c.iter_var.clone());
        self.scope.extend(c.iter_var2.clone());
        self.scope.push(c.accu_var.clone());
        let body = self.cost(&c.loop_cond)?.saturating_add(self.cost(&c.loop_step)?);
        let result = self.cost(&c.result)?;
        self.scope.truncate(depth);
        self.nesting -= 1;
        Ok(range.saturating_add(body.saturating_mul(times as u64)).saturating_add(result))
    }
}
