//! Adds one table to a TOML file; everything else keeps its bytes.

use countersign_core::{Problem, Result};
use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table, value};

fn unreadable(why: impl std::fmt::Display) -> Problem {
    super::jsonc::unreadable(format!("TOML: {}", why.to_string().lines().next().unwrap_or_default()))
}

/// The text with `[section.name]`; `None` where it is there already. `connect.exists`, `connect.unreadable`.
pub fn add(text: &str, section: &str, name: &str, entry: &Value) -> Result<Option<String>> {
    let mut doc: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| unreadable(e.message()))?;
    let wanted = table(entry);
    let servers = doc.entry(section).or_insert_with(|| {
        let mut servers = Table::new();
        // No header of its own: only the tables below it are written.
        servers.set_implicit(true);
        Item::Table(servers)
    });
    let Some(servers) = servers.as_table_mut() else {
        return Err(unreadable(format!("{section} is no table")));
    };
    if let Some(there) = servers.get(name) {
        let same = there.as_table().is_some_and(|t| plain(t) == plain(&wanted));
        return if same { Ok(None) } else { Err(super::jsonc::exists(name)) };
    }
    servers.insert(name, Item::Table(wanted));
    let after = doc.to_string();
    prove(text, &after, section, name)?;
    Ok(Some(after))
}

fn table(entry: &Value) -> Table {
    let mut out = Table::new();
    for (key, v) in entry.as_object().into_iter().flatten() {
        match v {
            Value::String(s) => drop(out.insert(key, value(s))),
            Value::Array(items) => {
                drop(out.insert(key, value(items.iter().filter_map(Value::as_str).collect::<Array>())));
            }
            // No client's entry has anything else.
            _ => {}
        }
    }
    out
}

fn plain(table: &Table) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        table.iter().map(|(k, v)| (k.to_owned(), v.to_string().split_whitespace().collect::<String>())).collect();
    all.sort();
    all
}

/// The new text, without the entry, is the old one.
fn prove(before: &str, after: &str, section: &str, name: &str) -> Result<()> {
    let mut again: DocumentMut = after.parse().map_err(|e: toml_edit::TomlError| unreadable(e.message()))?;
    let removed = again.get_mut(section).and_then(Item::as_table_mut).and_then(|t| t.remove(name)).is_some();
    let rest: String = again.to_string().split_whitespace().collect();
    let old: String = before.split_whitespace().collect();
    if removed && (rest == old || rest == format!("{old}[{section}]")) {
        return Ok(());
    }
    Err(unreadable("the new entry cannot be told from the others"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> Value {
        json!({"command": "/bin/countersign", "args": ["serve", "--agent", "a"]})
    }

    #[test]
    fn comments_order_and_other_tables_keep_their_bytes() {
        let before = "# my settings\nmodel = \"x\"  # the fast one\n\n[mcp_servers.other]\ncommand = 'o'\n\n[tui]\ntheme = \"dark\"\n";
        let after = add(before, "mcp_servers", "countersign", &entry()).unwrap().unwrap();
        for line in before.lines() {
            assert!(after.contains(line), "{line}\n{after}");
        }
        assert!(
            after.contains(
                "[mcp_servers.countersign]\ncommand = \"/bin/countersign\"\nargs = [\"serve\", \"--agent\", \"a\"]\n"
            ),
            "{after}"
        );
        assert_eq!(add(&after, "mcp_servers", "countersign", &entry()).unwrap(), None);
    }

    #[test]
    fn another_entry_of_that_name_is_not_overwritten() {
        let before = "[mcp_servers.countersign]\ncommand = \"mine\"\n";
        assert_eq!(add(before, "mcp_servers", "countersign", &entry()).unwrap_err().code, "connect.exists");
    }

    #[test]
    fn what_is_no_toml_or_has_another_shape_is_refused() {
        for bad in ["a = ", "mcp_servers = 3\n", "[[mcp_servers]]\na = 1\n", "mcp_servers = { a = { b = 1 } }\n"] {
            assert_eq!(
                add(bad, "mcp_servers", "countersign", &entry()).unwrap_err().code,
                "connect.unreadable",
                "{bad}"
            );
        }
    }
}
