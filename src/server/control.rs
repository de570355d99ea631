//! The people's door on the machine itself: one JSON line in, one JSON line out, over a Unix
//! socket in the state directory.
//!
//! Mere access to it approves nothing: a vote and a resume carry an SSH signature of a listed
//! person. Stopping needs none: it is the safe direction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::{Problem, Result};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::pipeline::Pipeline;
pub use crate::pipeline::{ControlRequest as Request, glass_text, review_text, vote_text};

/// Longest line that is read.
const MAX_LINE: u64 = 256 * 1024;

/// Namespace of vote and resume signatures.
pub const NAMESPACE: &str = "countersign-approval";

/// Path of the socket.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Answers until the daemon ends.
pub async fn serve_control(
    listener: UnixListener,
    pipeline: Arc<Pipeline>,
    shutdown: tokio_util::sync::CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        let (pipeline, shutdown) = (Arc::clone(&pipeline), shutdown.clone());
        tokio::spawn(async move {
            if let Err(e) = answer_one(stream, &pipeline, &shutdown).await {
                tracing::debug!("control client: {e}");
            }
        });
    }
}

async fn answer_one(
    stream: UnixStream,
    pipeline: &Arc<Pipeline>,
    shutdown: &tokio_util::sync::CancellationToken,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_LINE)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Shutdown) => {
            shutdown.cancel();
            Ok(serde_json::json!({"stopping": true}))
        }
        Ok(request) => pipeline.control(request).await,
        Err(e) => Err(Problem::new(
            "control.request",
            format!("The request does not parse: {e}."),
            "Use the countersign command of the same version.",
        )),
    };
    let value = match answer {
        Ok(v) => serde_json::json!({"ok": v}),
        Err(problem) => serde_json::json!({"problem": problem}),
    };
    write.write_all(format!("{value}\n").as_bytes()).await?;
    write.shutdown().await
}

/// Sends one request to the daemon of this state directory.
pub async fn call(state_dir: &Path, request: &Request) -> Result<serde_json::Value> {
    let down = |e: std::io::Error| {
        Problem::new(
            "daemon.unreachable",
            format!("No daemon answers in this state directory ({}).", e.kind()),
            "Start it with `countersign serve --daemon --config FILE`.",
        )
        .later()
    };
    let stream = UnixStream::connect(socket_path(state_dir)).await.map_err(down)?;
    let (read, mut write) = stream.into_split();
    let text = serde_json::to_string(request).map_err(|e| down(e.into()))?;
    write.write_all(format!("{text}\n").as_bytes()).await.map_err(down)?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await.map_err(down)?;
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Reply {
        Ok(serde_json::Value),
        Problem(Problem),
    }
    match serde_json::from_str(&line) {
        Ok(Reply::Ok(v)) => Ok(v),
        Ok(Reply::Problem(p)) => Err(p),
        Err(e) => Err(Problem::new(
            "daemon.answer",
            format!("The daemon's answer does not parse: {e}."),
            "Use the same version on both sides.",
        )),
    }
}
