//! The listener behind every sandbox server: it can refuse connections and cut the open ones.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::host::Host;

/// Listens while the host is up. Down means closed: a client sees "connection refused".
pub(crate) struct Gate {
    host: Arc<Host>,
    listener: Option<TcpListener>,
}

impl Gate {
    pub(crate) fn new(host: Arc<Host>, listener: TcpListener) -> Self {
        Self { host, listener: Some(listener) }
    }
}

impl Listener for Gate {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let mut listening = self.host.listening();
        loop {
            if !*listening.borrow_and_update() {
                self.listener = None;
                if listening.wait_for(|up| *up).await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let Some(listener) = &self.listener else {
                // The port was free a moment ago and is ours by address: try until the kernel gives it back.
                match TcpListener::bind(self.host.address()).await {
                    Ok(listener) => self.listener = Some(listener),
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
                continue;
            };
            tokio::select! {
                biased;
                _ = listening.changed() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let line = self.host.new_line();
                        // Taken down in this very moment: its token may be one that nobody cuts any more.
                        if *listening.borrow() {
                            return (Wire::new(stream, line), from);
                        }
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.host.address())
    }
}

/// A connection that ends with an error as soon as its token is cancelled.
pub(crate) struct Wire {
    stream: TcpStream,
    line: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    fn new(stream: TcpStream, line: CancellationToken) -> Self {
        let cut = Box::pin(line.clone().cancelled_owned());
        Self { stream, line, cut }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(std::io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if let Err(e) = self.check(cx) {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if let Err(e) = self.check(cx) {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if let Err(e) = self.check(cx) {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The connection that a call came in on.
#[derive(Clone)]
pub(crate) struct Line(CancellationToken);

impl Line {
    /// Closes the connection at once.
    pub(crate) fn cut(&self) {
        self.0.cancel();
    }
}

impl Connected<IncomingStream<'_, Gate>> for Line {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        Self(stream.io().line.clone())
    }
}
