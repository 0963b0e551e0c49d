//! A stream of bytes in both directions, beside the messages: for what is long (logs, snapshots, a resync).

use super::drive::{RecvStream, SendStream};
use quorum::id::HostName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of one stream. Ends with its bulk connection; whoever needs it longer opens it again and goes on
/// where it stopped. Shutting it down tells the peer that nothing more comes; dropping it does the same.
#[derive(Debug)]
pub struct BiStream {
    peer: HostName,
    send: SendStream,
    receive: RecvStream,
    /// Keeps the connection from being closed as unused, and what comes in from being let gather.
    _in_use: [Arc<()>; 2],
}

impl BiStream {
    pub(super) fn new(peer: HostName, (send, receive): (SendStream, RecvStream), in_use: [Arc<()>; 2]) -> Self {
        Self { peer, send, receive, _in_use: in_use }
    }

    /// The host at the other end, by its certificate.
    pub fn peer(&self) -> &HostName {
        &self.peer
    }

    pub(super) fn parts(&mut self) -> (&mut SendStream, &mut RecvStream) {
        (&mut self.send, &mut self.receive)
    }
}

impl AsyncRead for BiStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buf)
    }
}

impl AsyncWrite for BiStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
