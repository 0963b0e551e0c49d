//! Streams of one connection. Each end of one has one user at a time.

use super::connection::{Connection, State};
use super::waiters::What;
use bytes::Bytes;
use quinn_proto::{ConnectionError, FinishError, ReadableError, StreamId, VarInt};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why nothing more can be written.
#[derive(Clone, Debug, thiserror::Error)]
pub(in super::super) enum WriteError {
    /// The peer wants no more of it.
    #[error("write to a stream that the peer has stopped")]
    Stopped,
    /// It was finished or broken off.
    #[error("write to a stream that has ended")]
    Ended,
    /// The connection is over.
    #[error("write to a stream")]
    Lost(#[from] ConnectionError),
}

/// Why nothing more can be read.
#[derive(Clone, Debug, thiserror::Error)]
pub(in super::super) enum ReadError {
    /// The peer broke it off.
    #[error("read from a stream that the peer has broken off")]
    Reset,
    /// It ended before there was enough.
    #[error("read from a stream that has ended")]
    Ended,
    /// The connection is over.
    #[error("read from a stream")]
    Lost(#[from] ConnectionError),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Stopped => io::ErrorKind::ConnectionReset,
            WriteError::Ended | WriteError::Lost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Reset => io::ErrorKind::ConnectionReset,
            ReadError::Ended => io::ErrorKind::UnexpectedEof,
            ReadError::Lost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// The end that writes. Dropped, it says that nothing more comes.
#[derive(Debug)]
pub(in super::super) struct SendStream {
    connection: Connection,
    id: StreamId,
}

impl SendStream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id }
    }

    /// Has `write` write as much as there is room for; answers how many bytes.
    fn poll_write_with(
        &self,
        cx: &Context<'_>,
        write: impl FnOnce(&mut quinn_proto::SendStream<'_>) -> Result<usize, quinn_proto::WriteError>,
    ) -> Poll<Result<usize, WriteError>> {
        let id = self.id;
        // Also without room: the peer may be told that there is none.
        self.connection.inner().change(|state| {
            if let Some(error) = state.error() {
                return Poll::Ready(Err(error.into()));
            }
            match write(&mut state.quic.send_stream(id)) {
                Ok(bytes) => Poll::Ready(Ok(bytes)),
                Err(quinn_proto::WriteError::Blocked) => {
                    state.wait(What::Writable(id), cx);
                    Poll::Pending
                }
                Err(quinn_proto::WriteError::Stopped(_)) => Poll::Ready(Err(WriteError::Stopped)),
                Err(quinn_proto::WriteError::ClosedStream) => Poll::Ready(Err(WriteError::Ended)),
            }
        })
    }

    /// Writes all pieces. Dropped meanwhile, it has written any part of them.
    pub(in super::super) async fn write_all_chunks(&mut self, mut chunks: &mut [Bytes]) -> Result<(), WriteError> {
        loop {
            // What was written is taken out of the pieces.
            let left = chunks.iter().position(|chunk| !chunk.is_empty()).unwrap_or(chunks.len());
            chunks = &mut chunks[left..];
            if chunks.is_empty() {
                return Ok(());
            }
            let write = |cx: &mut Context<'_>| {
                self.poll_write_with(cx, |stream| stream.write_chunks(chunks).map(|written| written.bytes))
            };
            poll_fn(write).await?;
        }
    }

    pub(in super::super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_all_chunks(&mut [Bytes::copy_from_slice(bytes)]).await
    }

    /// Says that nothing more comes. Without effect if it has ended already.
    pub(in super::super) fn finish(&mut self) {
        let id = self.id;
        self.connection.inner().change(|state| {
            state.leave(What::Writable(id));
            if state.error().is_some() {
                return;
            }
            if let Err(FinishError::Stopped(code)) = state.quic.send_stream(id).finish() {
                // The peer is told that it was heard.
                let _ended_already = state.quic.send_stream(id).reset(code);
            }
        });
    }

    /// Breaks it off: the peer is told that what it has isn't all. Without effect if it has ended already.
    pub(in super::super) fn reset(&mut self) {
        let id = self.id;
        self.connection.inner().change(|state| {
            if state.error().is_none() {
                let _ended_already = state.quic.send_stream(id).reset(VarInt::from_u32(0));
            }
        });
    }

    /// Waits until the peer has all of what was finished, wants no more of it, or is gone.
    pub(in super::super) async fn arrived(&mut self) {
        let id = self.id;
        poll_fn(|cx| {
            self.connection.inner().with(|state| {
                let goes_on = state.error().is_none() && matches!(state.quic.send_stream(id).stopped(), Ok(None));
                if goes_on {
                    state.wait(What::Arrived(id), cx);
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
        })
        .await;
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.finish();
        self.connection.inner().with(|state| state.leave(What::Arrived(self.id)));
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.write(buf)).map_err(Into::into)
    }

    /// What is written leaves by itself.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// The end that reads. Dropped before its end, it tells the peer that nothing more is wanted.
#[derive(Debug)]
pub(in super::super) struct RecvStream {
    connection: Connection,
    id: StreamId,
    has_ended: bool,
}

impl RecvStream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id, has_ended: false }
    }

    /// The next piece of at most `max` bytes; `None` at the end.
    fn poll_chunk(&mut self, cx: &Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        if self.has_ended {
            return Poll::Ready(Ok(None));
        }
        let id = self.id;
        let (read, owes) = self.connection.inner().with(|state| next_chunk(state, id, max, cx));
        self.has_ended = matches!(read, Poll::Ready(Ok(None) | Err(ReadError::Reset | ReadError::Ended)));
        if owes {
            self.connection.inner().change(|_| ());
        }
        read
    }

    pub(in super::super) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_chunk(cx, max)).await
    }

    /// Fills `buffer`. Dropped meanwhile, or failed, it has read any part of it.
    pub(in super::super) async fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), ReadError> {
        while !buffer.is_empty() {
            let piece = self.read_chunk(buffer.len()).await?.ok_or(ReadError::Ended)?;
            let (now, later) = buffer.split_at_mut(piece.len());
            now.copy_from_slice(&piece);
            buffer = later;
        }
        Ok(())
    }
}

/// What there is to read, and whether the peer must be told that there is room again.
fn next_chunk(
    state: &mut State,
    id: StreamId,
    max: usize,
    cx: &Context<'_>,
) -> (Poll<Result<Option<Bytes>, ReadError>>, bool) {
    let mut stream = state.quic.recv_stream(id);
    let mut chunks = match stream.read(true) {
        Ok(chunks) => chunks,
        Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
            return (Poll::Ready(Err(ReadError::Ended)), false);
        }
    };
    let next = chunks.next(max);
    let owes = chunks.finalize().should_transmit();
    let read = match next {
        Ok(chunk) => Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes))),
        Err(quinn_proto::ReadError::Reset(_)) => Poll::Ready(Err(ReadError::Reset)),
        Err(quinn_proto::ReadError::Blocked) => match state.error() {
            Some(error) => Poll::Ready(Err(error.into())),
            None => {
                state.wait(What::Readable(id), cx);
                Poll::Pending
            }
        },
    };
    (read, owes)
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let (id, has_ended) = (self.id, self.has_ended);
        self.connection.inner().change(|state| {
            state.leave(What::Readable(id));
            if !has_ended && state.error().is_none() {
                // Fails only if it has ended already.
                let _ended_already = state.quic.recv_stream(id).stop(VarInt::from_u32(0));
            }
        });
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(piece) = ready!(self.poll_chunk(cx, buf.remaining()))?
        {
            buf.put_slice(&piece);
        }
        Poll::Ready(Ok(()))
    }
}
