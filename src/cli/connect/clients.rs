//! The clients: where their file is, and how an entry looks in it.

use std::path::PathBuf;

use clap::ValueEnum;
use countersign_core::{Problem, Result};
use serde_json::{Value, json};

use super::{jsonc, toml};

/// An MCP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Claude Desktop.
    ClaudeDesktop,
    /// Claude Code, in the project of the working directory.
    ClaudeCode,
    /// Cursor, in all projects.
    Cursor,
    /// VS Code, in the workspace of the working directory.
    Vscode,
    /// Codex CLI.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Windsurf.
    Windsurf,
    /// Zed.
    Zed,
    /// Any other: the common JSON shape.
    Json,
}

/// How the client reaches Countersign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The client starts the bridge.
    Stdio {
        /// The program, absolute: clients with a window have a short search path.
        program: String,
        /// Configuration file, absolute.
        config: String,
        /// Agent.
        agent: String,
    },
    /// Over HTTP.
    Http {
        /// Address.
        url: String,
        /// Environment variable of the client with the token.
        token_env: String,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How the client reaches Countersign.
    pub reach: Reach,
}

/// Folders that files of clients lie in.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Home of the user.
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`.
    pub xdg: Option<PathBuf>,
    /// `CODEX_HOME`.
    pub codex: Option<PathBuf>,
    /// Working directory.
    pub here: PathBuf,
    /// macOS keeps some of them elsewhere.
    pub mac: bool,
}

impl Places {
    /// Those of whoever runs this.
    pub fn of_this_user() -> Self {
        let dir = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            home: dir("HOME").unwrap_or_default(),
            xdg: dir("XDG_CONFIG_HOME"),
            codex: dir("CODEX_HOME"),
            here: std::env::current_dir().unwrap_or_default(),
            mac: cfg!(target_os = "macos"),
        }
    }

    fn config(&self) -> PathBuf {
        self.xdg.clone().unwrap_or_else(|| self.home.join(".config"))
    }
}

/// Id of the input that VS Code asks the token with.
const INPUT: &str = "countersign-token";

impl Client {
    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "Claude Desktop",
            Self::ClaudeCode => "Claude Code",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
            Self::Codex => "Codex CLI",
            Self::Gemini => "Gemini CLI",
            Self::Windsurf => "Windsurf",
            Self::Zed => "Zed",
            Self::Json => "MCP client",
        }
    }

    /// Where its file is; `None` for the generic shape.
    pub fn place(self, p: &Places) -> Option<PathBuf> {
        Some(match self {
            Self::ClaudeDesktop if p.mac => {
                p.home.join("Library/Application Support/Claude/claude_desktop_config.json")
            }
            Self::ClaudeDesktop => p.config().join("Claude/claude_desktop_config.json"),
            Self::ClaudeCode => p.here.join(".mcp.json"),
            Self::Cursor => p.home.join(".cursor/mcp.json"),
            Self::Vscode => p.here.join(".vscode/mcp.json"),
            Self::Codex => p.codex.clone().unwrap_or_else(|| p.home.join(".codex")).join("config.toml"),
            Self::Gemini => p.home.join(".gemini/settings.json"),
            Self::Windsurf => p.home.join(".codeium/windsurf/mcp_config.json"),
            Self::Zed if p.mac => p.home.join(".config/zed/settings.json"),
            Self::Zed => p.config().join("zed/settings.json"),
            Self::Json => return None,
        })
    }

    /// Key under which its file holds the servers.
    fn key(self) -> &'static str {
        match self {
            Self::Vscode => "servers",
            Self::Zed => "context_servers",
            Self::Codex => "mcp_servers",
            _ => "mcpServers",
        }
    }

    /// The entry's value. `connect.http_unsupported`.
    fn value(self, entry: &Entry) -> Result<Value> {
        Ok(match &entry.reach {
            Reach::Stdio { program, config, agent } => {
                let args = json!(["serve", "--config", config, "--agent", agent]);
                match self {
                    Self::ClaudeCode | Self::Vscode => json!({"type": "stdio", "command": program, "args": args}),
                    Self::Zed => json!({"command": program, "args": args, "env": {}}),
                    _ => json!({"command": program, "args": args}),
                }
            }
            Reach::Http { url, token_env } => {
                let bearer = |reference: String| json!({"Authorization": format!("Bearer {reference}")});
                match self {
                    Self::ClaudeDesktop => {
                        return Err(Problem::new(
                            "connect.http_unsupported",
                            "Claude Desktop's file starts programs only; servers over HTTP are added in its settings, under Connectors.",
                            "Connect it over stdio (without --http) on the daemon's machine, or add the address as a connector.",
                        ));
                    }
                    Self::ClaudeCode | Self::Json => {
                        json!({"type": "http", "url": url, "headers": bearer(format!("${{{token_env}}}"))})
                    }
                    Self::Vscode => {
                        json!({"type": "http", "url": url, "headers": bearer(format!("${{input:{INPUT}}}"))})
                    }
                    Self::Cursor => json!({"url": url, "headers": bearer(format!("${{env:{token_env}}}"))}),
                    Self::Windsurf => json!({"serverUrl": url, "headers": bearer(format!("${{env:{token_env}}}"))}),
                    Self::Gemini => json!({"httpUrl": url, "headers": bearer(format!("${{{token_env}}}"))}),
                    Self::Zed => json!({"url": url, "headers": bearer("TOKEN".into())}),
                    Self::Codex => json!({"url": url, "bearer_token_env_var": token_env}),
                }
            }
        })
    }

    /// What else the entry needs in the file: VS Code asks for the token itself.
    fn input(self, entry: &Entry) -> Option<Value> {
        let asks = self == Self::Vscode && matches!(entry.reach, Reach::Http { .. });
        asks.then(|| {
            json!({"type": "promptString", "id": INPUT, "description": "Countersign: the agent's token", "password": true})
        })
    }

    /// The whole of a file with nothing but this entry.
    pub fn text(self, entry: &Entry) -> Result<String> {
        let value = self.value(entry)?;
        if self == Self::Codex {
            return toml::add("", self.key(), &entry.name, &value).map(Option::unwrap_or_default);
        }
        let mut whole = json!({});
        if let (Some(map), Some(input)) = (whole.as_object_mut(), self.input(entry)) {
            map.insert("inputs".into(), json!([input]));
        }
        if let Some(map) = whole.as_object_mut() {
            map.insert(self.key().into(), json!({entry.name.as_str(): value}));
        }
        Ok(format!("{}\n", serde_json::to_string_pretty(&whole).unwrap_or_default()))
    }

    /// The file with this entry; `None` where it is there already. `connect.exists`, `connect.unreadable`.
    pub fn merge(self, before: &str, entry: &Entry) -> Result<Option<String>> {
        let value = self.value(entry)?;
        if self == Self::Codex {
            return toml::add(before, self.key(), &entry.name, &value);
        }
        let with_input = match self.input(entry) {
            Some(input) => jsonc::add_item(before, "inputs", "id", &input)?,
            None => None,
        };
        let added = jsonc::add_entry(with_input.as_deref().unwrap_or(before), self.key(), &entry.name, &value)?;
        Ok(added.or(with_input))
    }

    /// Why this entry is not written, though it can be printed.
    pub fn unwritable(self, entry: &Entry) -> Option<Problem> {
        let literal = self == Self::Zed && matches!(entry.reach, Reach::Http { .. });
        literal.then(|| {
            Problem::new(
                "connect.token_literal",
                "Zed's settings know no reference to a token: it would stand in the file in plain text.",
                "Paste the text below and put the token in place of TOKEN yourself, or connect over stdio.",
            )
        })
    }

    /// What the person does next.
    pub fn notes(self, entry: &Entry) -> Vec<String> {
        let mut notes = Vec::new();
        if let Reach::Http { url, token_env } = &entry.reach {
            let local = url::Url::parse(url).is_ok_and(|u| {
                u.scheme() == "https" || matches!(u.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
            });
            if !local {
                notes.push("Warning: over plain http everyone on the way can read the token; put TLS in front.".into());
            }
            match self {
                Self::Vscode => {
                    notes.push("VS Code asks for the agent's token at the first start and keeps it.".into())
                }
                Self::Zed => notes.push("Put the agent's token in place of TOKEN.".into()),
                _ => notes.push(format!("{token_env} must hold the agent's token where the client is started.")),
            }
        }
        notes.push(match self {
            Self::ClaudeDesktop => "Quit Claude Desktop and start it again.".into(),
            Self::ClaudeCode => {
                "Claude Code asks once whether this project's servers may be used; /mcp shows them.".into()
            }
            Self::Vscode => "Start the server from the file or with `MCP: List Servers`.".into(),
            Self::Windsurf => "Press Refresh in the list of MCP servers.".into(),
            Self::Zed => "Zed takes it over at once.".into(),
            _ => "Start the client again.".into(),
        });
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Client; 9] = [
        Client::ClaudeDesktop,
        Client::ClaudeCode,
        Client::Cursor,
        Client::Vscode,
        Client::Codex,
        Client::Gemini,
        Client::Windsurf,
        Client::Zed,
        Client::Json,
    ];

    fn stdio() -> Entry {
        let text = |s: &str| s.to_owned();
        let reach = Reach::Stdio {
            program: text("/usr/local/bin/countersign"),
            config: text("/etc/countersign/countersign.yaml"),
            agent: text("assistant"),
        };
        Entry { name: text("countersign"), reach }
    }

    fn http() -> Entry {
        let reach = Reach::Http { url: "https://cs.example/mcp".into(), token_env: "COUNTERSIGN_TOKEN".into() };
        Entry { name: "countersign".into(), reach }
    }

    #[test]
    fn every_client_gets_its_own_shape() {
        let mut out = String::new();
        for client in ALL {
            for (how, entry) in [("stdio", stdio()), ("http", http())] {
                let text = client.text(&entry).unwrap_or_else(|p| format!("{}\n", p.code));
                out.push_str(&format!("== {} over {how}\n{text}", client.title()));
                for note in client.notes(&entry) {
                    out.push_str(&format!("-- {note}\n"));
                }
            }
        }
        insta::assert_snapshot!(out);
    }

    #[test]
    fn what_is_printed_is_what_an_empty_file_would_hold() {
        for client in ALL {
            for entry in [stdio(), http()] {
                let Ok(printed) = client.text(&entry) else { continue };
                let written = client.merge("", &entry).unwrap().unwrap();
                if client == Client::Codex {
                    assert_eq!(written, printed);
                } else {
                    let value = |t: &str| serde_json::from_str::<Value>(t).unwrap();
                    assert_eq!(value(&written), value(&printed), "{client:?}");
                }
                assert_eq!(client.merge(&written, &entry).unwrap(), None, "{client:?}: a second time changes nothing");
            }
        }
    }

    #[test]
    fn a_token_is_never_part_of_an_entry() {
        for client in ALL {
            if let Ok(text) = client.text(&http()) {
                let reference = ["${COUNTERSIGN_TOKEN}", "${env:COUNTERSIGN_TOKEN}", "${input:", "TOKEN"];
                assert!(reference.iter().any(|r| text.contains(r)), "{client:?}: {text}");
            }
        }
        assert_eq!(Client::Zed.unwritable(&http()).unwrap().code, "connect.token_literal");
        assert!(Client::Zed.unwritable(&stdio()).is_none());
    }

    #[test]
    fn files_are_where_the_clients_look() {
        let p = Places { home: "/h".into(), here: "/w".into(), ..Places::default() };
        let mac = Places { mac: true, ..p.clone() };
        let set = Places { xdg: Some("/x".into()), codex: Some("/c".into()), ..p.clone() };
        for (client, places, place) in [
            (Client::ClaudeDesktop, &p, "/h/.config/Claude/claude_desktop_config.json"),
            (Client::ClaudeDesktop, &mac, "/h/Library/Application Support/Claude/claude_desktop_config.json"),
            (Client::ClaudeCode, &p, "/w/.mcp.json"),
            (Client::Cursor, &p, "/h/.cursor/mcp.json"),
            (Client::Vscode, &p, "/w/.vscode/mcp.json"),
            (Client::Codex, &p, "/h/.codex/config.toml"),
            (Client::Codex, &set, "/c/config.toml"),
            (Client::Gemini, &p, "/h/.gemini/settings.json"),
            (Client::Windsurf, &p, "/h/.codeium/windsurf/mcp_config.json"),
            (Client::Zed, &set, "/x/zed/settings.json"),
            (Client::Zed, &Places { mac: true, ..set.clone() }, "/h/.config/zed/settings.json"),
        ] {
            assert_eq!(client.place(places).unwrap(), PathBuf::from(place));
        }
        assert_eq!(Client::Json.place(&p), None);
    }
}
