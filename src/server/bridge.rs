//! The thin client of the daemon: standard input and output on one side, the socket on the other.
//!
//! Bytes pass unchanged. The bridge only looks at each message's id and method, so that a daemon which dies and
//! comes back is not noticed: it connects again, repeats the handshake, sends again what was asked and only reads,
//! and answers what was asked and writes with how to go on.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_core::{Problem, Result};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::session::{Resend, Session};
use super::socket::{Hello, PREAMBLE};

/// How long the daemon may take to come up; the one before it may still be ending.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time between attempts to connect.
const PAUSE: Duration = Duration::from_millis(25);
/// A connection that ends sooner than this is a failed attempt, …
const TOO_SHORT: Duration = Duration::from_secs(1);
/// … and after so many in a row the daemon is taken for broken.
const MAX_SHORT: u32 = 8;
/// How long answers may still come after the client has said all.
const LAST_ANSWERS: Duration = Duration::from_secs(60);
/// Longest line in bytes; the daemon answers lines over its own limit itself.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// Connects standard input and output to the daemon's socket as `agent`, until the client closes its side.
///
/// `start` is called when nobody listens: it starts a daemon and returns without waiting for it. Problems:
/// `server.daemon` (nobody listens after 5 s), `server.daemon_lost` (it went and did not come back), and what the
/// daemon says to the preamble (`auth.agent`, `auth.peer`, `server.preamble`).
///
/// Reading standard input may hold a thread: end the process after this returns.
pub async fn bridge<S>(socket: &Path, agent: &str, start: S) -> Result<()>
where
    S: FnMut() -> Result<()> + Send,
{
    let (input, output) = rmcp::transport::stdio_pipes();
    Bridge { socket, agent, start, patience: PATIENCE }.run(input, output).await
}

pub(super) struct Bridge<'a, S> {
    pub socket: &'a Path,
    pub agent: &'a str,
    pub start: S,
    /// How long to wait for a daemon.
    pub patience: Duration,
}

/// Why a connection is over.
#[derive(Debug, PartialEq)]
enum End {
    /// The client closed its input.
    Said,
    /// The client does not read any more.
    ClientGone,
    /// The daemon is gone.
    DaemonGone,
}

impl<S> Bridge<'_, S>
where
    S: FnMut() -> Result<()> + Send,
{
    pub async fn run<R, W>(mut self, input: R, output: W) -> Result<()>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let mut client = Lines::new(BufReader::new(input));
        let mut output = output;
        let session = Mutex::new(Session::default());
        let (mut again, mut short) = (false, 0);
        loop {
            let connected = match self.connect(again).await {
                Ok(_) if short > MAX_SHORT => Err(not_there(true, self.patience)),
                other => other,
            };
            let (mut daemon, mut write) = match connected {
                Ok(connection) => connection,
                Err(problem) => {
                    // What the client asked while nobody was there is unread, and is owed an answer too.
                    while let Ok(Ok(Some(line))) = timeout(PAUSE, client.next()).await {
                        lock(&session).sent(&line);
                    }
                    let answers = lock(&session).give_up(&problem);
                    // The client may have gone as well.
                    let _ = send(&mut output, &answers).await;
                    return Err(problem);
                }
            };
            let since = Instant::now();
            let resumed = !again || resume(&session, &mut daemon, &mut write, &mut output).await.is_ok();
            if resumed {
                match pump(&session, &mut client, &mut output, &mut daemon, &mut write).await? {
                    End::Said | End::ClientGone => return Ok(()),
                    End::DaemonGone => {}
                }
            }
            again = true;
            short = if since.elapsed() < TOO_SHORT { short + 1 } else { 0 };
            sleep(PAUSE).await;
        }
    }

    /// A greeted connection; starts a daemon where nobody listens.
    async fn connect(&mut self, again: bool) -> Result<(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf)> {
        let deadline = Instant::now() + self.patience;
        let mut started = false;
        loop {
            if let Ok(stream) = UnixStream::connect(self.socket).await
                && let Ok(greeted) = timeout_at(deadline, greet(self.agent, stream)).await
                && let Some(connection) = greeted?
            {
                return Ok(connection);
            }
            if !started {
                (self.start)()?;
                started = true;
            }
            if Instant::now() >= deadline {
                return Err(not_there(again, self.patience));
            }
            sleep(PAUSE).await;
        }
    }
}

/// `None` if the daemon went away meanwhile; a problem if it does not want us.
async fn greet(agent: &str, stream: UnixStream) -> Result<Option<(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf)>> {
    let (read, mut write) = stream.into_split();
    let mut read = Lines::new(BufReader::new(read));
    let hello = Hello { agent: agent.to_owned() };
    let preamble = format!("{PREAMBLE} {}\n", serde_json::to_string(&hello).unwrap_or_default());
    if write.write_all(preamble.as_bytes()).await.is_err() {
        return Ok(None);
    }
    let Ok(Some(reply)) = read.next().await else { return Ok(None) };
    let reply = String::from_utf8(reply).unwrap_or_default();
    match reply.strip_prefix(PREAMBLE).map(str::trim) {
        Some("ok") => Ok(Some((read, write))),
        Some(problem) => Err(serde_json::from_str(problem).unwrap_or_else(|_| other_version())),
        None => Err(other_version()),
    }
}

/// Brings a new connection to where the old one was.
async fn resume<W: AsyncWrite + Unpin>(
    session: &Mutex<Session>,
    daemon: &mut Lines<BufReader<OwnedReadHalf>>,
    write: &mut OwnedWriteHalf,
    output: &mut W,
) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let handshake = lock(session).handshake();
    if let Some((initialize, initialized)) = handshake {
        write.write_all(&initialize).await?;
        // The answer is the client's already.
        timeout(PATIENCE, daemon.next()).await.map_err(|_| gone())??.ok_or_else(gone)?;
        write.write_all(&initialized).await?;
    }
    let resend = lock(session).resend();
    for one in resend {
        match one {
            Resend::ToDaemon(line) => write.write_all(&line).await?,
            Resend::ToClient(line) => send(output, &line).await?,
        }
    }
    Ok(())
}

/// Passes lines both ways until one side is over.
async fn pump<R, W>(
    session: &Mutex<Session>,
    client: &mut Lines<BufReader<R>>,
    output: &mut W,
    daemon: &mut Lines<BufReader<OwnedReadHalf>>,
    write: &mut OwnedWriteHalf,
) -> Result<End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut up = Box::pin(async {
        loop {
            match client.next().await {
                Ok(Some(line)) => {
                    lock(session).sent(&line);
                    if write.write_all(&line).await.is_err() {
                        return Ok(End::DaemonGone);
                    }
                }
                Ok(None) => return Ok(End::Said),
                Err(e) => return Err(too_long(&e)),
            }
        }
    });
    let mut down = Box::pin(async {
        while let Ok(Some(line)) = daemon.next().await {
            if send(output, &line).await.is_err() {
                return End::ClientGone;
            }
            lock(session).received(&line);
        }
        End::DaemonGone
    });
    tokio::select! {
        // Never cut in the middle of a line to the client.
        end = &mut down => return Ok(end),
        said = &mut up => if said? == End::Said {
            // The client may have asked and closed; its answers are still on the way.
            let unanswered = async {
                while lock(session).waits() {
                    sleep(PAUSE).await;
                }
            };
            tokio::select! {
                _ = &mut down => {}
                _ = timeout(LAST_ANSWERS, unanswered) => {}
            }
            return Ok(End::Said);
        },
    }
    // The daemon does not read any more: what it wrote before is still worth passing on.
    Ok(timeout(PATIENCE, down).await.unwrap_or(End::DaemonGone))
}

/// Lines with their newline, of bounded length; dropping `next` loses nothing.
struct Lines<R> {
    read: R,
    line: Vec<u8>,
}

impl<R: AsyncBufReadExt + Unpin> Lines<R> {
    fn new(read: R) -> Self {
        Self { read, line: Vec::new() }
    }

    /// `None` at the end; an unfinished last line gets its newline.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = MAX_LINE.saturating_sub(self.line.len()) as u64;
        (&mut self.read).take(room).read_until(b'\n', &mut self.line).await?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            if self.line.len() >= MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.line.push(b'\n');
        }
        Ok(Some(std::mem::take(&mut self.line)))
    }
}

async fn send<W: AsyncWrite + Unpin>(output: &mut W, bytes: &[u8]) -> io::Result<()> {
    output.write_all(bytes).await?;
    output.flush().await
}

fn lock(session: &Mutex<Session>) -> std::sync::MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_there(again: bool, patience: Duration) -> Problem {
    let seconds = patience.as_secs();
    if again {
        let what = format!("The daemon went away and did not come back within {seconds} s.");
        return Problem::new(
            "server.daemon_lost",
            what,
            "Read its log, then start the client again: open changes are kept.",
        )
        .later();
    }
    let what = format!("No daemon answered within {seconds} s.");
    Problem::new("server.daemon", what, "Run `countersign serve --daemon` in a terminal to see why it does not start.")
        .later()
}

fn other_version() -> Problem {
    Problem::new(
        "server.preamble",
        "What listens on the socket is not a daemon of this version.",
        "End the old daemon and start the client again.",
    )
}

fn too_long(_: &io::Error) -> Problem {
    Problem::new(
        "server.line",
        format!("The client's input cannot be read, or a message has more than {MAX_LINE} bytes."),
        "Send smaller messages.",
    )
}
