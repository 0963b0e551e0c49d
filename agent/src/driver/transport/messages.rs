//! Messages on streams: how one is written, and how what comes in is taken apart and handed on.
//!
//! Both kinds of connection carry them alike (`bulk`, `ride`): in frames (`frame`), from the peer's bounded queue. What has
//! waited too long is dropped.

use super::TransportEvent;
use super::drive::{RecvStream, SendStream, WriteError};
use super::event::{Channel, CloseCode, Path};
use super::frame::{Decoder, FRAME_BYTES_MAX, FrameError, head};
use super::outbox::Queued;
use super::remote::Remote;
use super::shared::Shared;
use super::stats::Counted;
use crate::driver::clock;

/// The messages of one connection.
#[derive(Clone, Copy)]
pub(super) struct Messages<'a> {
    pub(super) shared: &'a Shared,
    pub(super) remote: &'a Remote,
    pub(super) path: Path,
}

impl Messages<'_> {
    /// Sends a message, unless it is too old: then it is counted and dropped.
    ///
    /// # Errors
    /// The stream is broken, and the message may be lost.
    pub(super) async fn write(&self, stream: &mut SendStream, message: Queued) -> Result<(), WriteError> {
        let Queued { channel, bytes, since } = message;
        if clock::now().held_since(since) > self.shared.config.limits.message_age_max {
            self.remote.count(self.path, Counted::MessagesExpired);
            return Ok(());
        }
        stream.write_all_chunks(&mut [head(channel.0, bytes.len()), bytes]).await?;
        self.remote.count(self.path, Counted::MessagesSent);
        Ok(())
    }

    /// Hands on what comes in, until the stream ends: in order, with [`CloseCode::Unused`]; in the middle of a message or of
    /// what isn't one, with [`CloseCode::Malformed`]; or because it was broken off. `used` is called for each piece.
    pub(super) async fn receive(&self, mut stream: RecvStream, mut decoder: Decoder, used: impl Fn()) -> CloseCode {
        loop {
            let mut piece = match stream.read_chunk(FRAME_BYTES_MAX).await {
                Ok(Some(piece)) => piece,
                // Ended or broken: either way nothing more comes.
                Ok(None) => return decoder.finish().map_or_else(|e| self.malformed(e), |()| CloseCode::Unused),
                Err(_) => return CloseCode::Shutdown,
            };
            used();
            loop {
                match decoder.feed(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        let (from, channel) = (self.remote.peer.host.clone(), Channel(frame.channel));
                        let event = TransportEvent::Message { from, channel, bytes: frame.payload };
                        // Waiting here is what slows the sender down.
                        if self.shared.events.send(event).await.is_err() {
                            return CloseCode::Shutdown;
                        }
                        self.remote.count(self.path, Counted::MessagesReceived);
                    }
                    Err(error) => return self.malformed(error),
                }
            }
        }
    }

    fn malformed(&self, error: FrameError) -> CloseCode {
        let what = match error {
            FrameError::Oversized(_) => Counted::FramesOversized,
            FrameError::Version(_) | FrameError::Truncated => Counted::FramesMalformed,
        };
        self.remote.count(self.path, what);
        tracing::warn!(peer = %self.remote.peer.host, path = %self.path, because = %error, "message stream refused");
        CloseCode::Malformed
    }
}
