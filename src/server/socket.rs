//! MCP over the daemon's Unix socket: one connection is one client of one agent.
//!
//! The client says who it is in one line, `countersign-bridge/1 {"agent":"NAME"}`, and is answered with
//! `countersign-bridge/1 ok` or with the same words and a problem as JSON. Then both sides speak MCP, one JSON
//! message a line. Who may open the socket may name any agent: the file's mode is the authentication, and an agent
//! can only ever ask.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::{Problem, Result};
use rmcp::ServiceExt;
use rmcp::transport::async_rw::AsyncRwTransport;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::SharedAgents;
use super::limits::Meter;
use super::mcp::Mcp;

/// Name of the socket in the state directory.
pub const SOCKET: &str = "countersign.sock";
/// First word of the preamble and of its answer.
pub const PREAMBLE: &str = "countersign-bridge/1";
/// Longest preamble in bytes.
const MAX_PREAMBLE: u64 = 1024;
/// Longest message in bytes, as over HTTP.
const MAX_LINE: usize = 256 * 1024;
/// How long a client may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest path of a Unix socket in bytes (`sun_path` with its terminating zero, unix(7)).
const MAX_PATH: usize = 107;

/// What the preamble carries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    /// Name of the Agent.
    pub agent: String,
}

/// Binds the socket for its owner alone, in place of one that a daemon before left behind. Call it only while
/// holding the lock of the state directory. `server.socket`, `server.socket_path`.
pub fn bind_socket(path: &Path) -> Result<UnixListener> {
    // Bound under another name first: there is no moment at which others could open it.
    let fresh = path.with_extension("new");
    if fresh.as_os_str().len() > MAX_PATH {
        return Err(Problem::new(
            "server.socket_path",
            format!("The path of the socket is longer than {MAX_PATH} bytes."),
            "Choose a state directory with a shorter path.",
        ));
    }
    let failed = |e: std::io::Error| {
        Problem::new(
            "server.socket",
            format!("The socket cannot be made: {e}."),
            "Make the state directory writable for this user.",
        )
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let next = "Remove it, or choose another state directory.";
            return Err(Problem::new(
                "server.socket",
                format!("{SOCKET} in the state directory is not a socket."),
                next,
            ));
        }
        _ => {}
    }
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    Ok(listener)
}

/// Serves connections until `stop`, then ends the open ones. All connections of an agent count together in `meter`. `path` is the listener's.
pub async fn serve_socket(
    listener: UnixListener,
    path: &Path,
    mcp: Mcp,
    agents: SharedAgents,
    meter: Arc<Meter>,
    stop: CancellationToken,
) {
    let owner = std::fs::metadata(path).map(|m| m.uid()).ok();
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (mcp, agents, meter, stop) = (mcp.clone(), agents.clone(), meter.clone(), stop.child_token());
                connections.spawn(async move {
                    if let Err(problem) = serve_connection(stream, owner, mcp, agents, meter, stop).await {
                        tracing::warn!(code = %problem.code, "a connection was refused: {}", problem.message);
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others will be closed.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn serve_connection(
    stream: UnixStream,
    owner: Option<u32>,
    mcp: Mcp,
    agents: SharedAgents,
    meter: Arc<Meter>,
    stop: CancellationToken,
) -> Result<()> {
    let peer = stream.peer_cred().ok().map(|c| c.uid());
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let greeted = match tokio::time::timeout(PATIENCE, greet(&mut read, owner, peer, &agents)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(bad_preamble()),
    };
    let reply = match &greeted {
        Ok(_) => format!("{PREAMBLE} ok\n"),
        Err(problem) => format!("{PREAMBLE} {}\n", serde_json::to_string(problem).unwrap_or_default()),
    };
    let written = write.write_all(reply.as_bytes()).await;
    let agent = greeted?;
    if written.is_err() {
        return Ok(());
    }
    let transport = AsyncRwTransport::new_server(read, write).with_max_line_length(MAX_LINE);
    match mcp.for_agent(agent, agents, meter).serve_with_ct(transport, stop).await {
        Ok(running) => {
            let ended = running.waiting().await;
            tracing::debug!(?ended, "a connection ended");
        }
        // A client that goes before it has asked anything is no error.
        Err(error) => tracing::debug!(%error, "a connection ended before it began"),
    }
    Ok(())
}

/// Reads the preamble and finds the agent. `server.preamble`, `auth.peer`, `auth.agent`.
async fn greet<R>(read: &mut R, owner: Option<u32>, peer: Option<u32>, agents: &SharedAgents) -> Result<String>
where
    R: AsyncBufReadExt + Unpin,
{
    let mut line = String::new();
    read.take(MAX_PREAMBLE).read_line(&mut line).await.map_err(|_| bad_preamble())?;
    // The mode of the file says the same; this also holds where a file system ignores modes.
    if peer.is_none() || (peer != owner && peer != Some(0)) {
        return Err(Problem::new(
            "auth.peer",
            "The caller is another user of this machine.",
            "Run the client as the user that runs the daemon.",
        )
        .never());
    }
    let hello = line.strip_prefix(PREAMBLE).and_then(|rest| serde_json::from_str::<Hello>(rest.trim()).ok());
    let Some(Hello { agent }) = hello.filter(|_| line.ends_with('\n')) else { return Err(bad_preamble()) };
    if agents.load().by_name(&agent).is_none() {
        let shown: String = agent.chars().filter(|c| !c.is_control()).take(80).collect();
        let next = "Name an Agent of the configuration (serve --agent NAME).";
        return Err(Problem::new("auth.agent", format!("There is no agent {shown}."), next));
    }
    Ok(agent)
}

fn bad_preamble() -> Problem {
    Problem::new(
        "server.preamble",
        "The connection did not begin as that of a Countersign bridge of this version.",
        "Use the same version of Countersign for `serve` and for the daemon.",
    )
}
