//! Frames of the message stream: a pure decoder, fed with whatever pieces the network delivers.
//!
//! ```text
//! stream  := version:u8 (= 1) frame*
//! frame   := length:u32 big-endian, channel:u8, payload[length]
//! ```
//!
//! Contract: memory grows only with bytes that really came, never with a length that was merely announced, and never
//! beyond [`FRAME_BYTES_MAX`]. After an error the decoder stays broken: the stream can't be trusted any more.
//!
//! Not here: what a payload means; codecs live with their owners (`quorum::codec`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest payload. What is larger (a snapshot, a resync) goes over a stream of its own.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// First byte of every message stream, and the whole of a beat connection's welcome.
pub const STREAM_VERSION: u8 = 1;

const HEADER_BYTES: usize = 5;

/// Room made at once for an announced payload; the rest is made as bytes come in.
const FIRST_ROOM_BYTES: usize = 16 << 10;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which of the peer's parts it is for.
    pub channel: u8,
    /// What it says.
    pub payload: Bytes,
}

/// Why a stream of frames is broken. Nothing that follows can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream is of a version that isn't spoken here.
    #[error("read a message stream of version {0}")]
    Version(u8),
    /// The announced payload is larger than [`FRAME_BYTES_MAX`].
    #[error("read a frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    Oversized(u32),
    /// The stream ended within a frame.
    #[error("read a frame to its end: the stream stops within it")]
    Truncated,
}

/// Head of a frame; the payload follows it on the stream.
///
/// # Panics
/// If `length` is larger than [`FRAME_BYTES_MAX`]: senders check before they queue.
pub fn head(channel: u8, length: usize) -> Bytes {
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes was about to be sent");
    let mut head = BytesMut::with_capacity(HEADER_BYTES);
    head.put_u32(length as u32);
    head.put_u8(channel);
    head.freeze()
}

#[derive(Debug)]
enum State {
    /// Before the version byte.
    Start,
    /// Collecting a head.
    Head { bytes: [u8; HEADER_BYTES], filled: usize },
    /// Collecting a payload of `length` bytes.
    Payload { channel: u8, length: usize, collected: BytesMut },
    /// Nothing more is read.
    Broken(FrameError),
}

/// Reads frames from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Start }
    }
}

impl Decoder {
    /// Takes bytes off the front of `piece` up to the end of the next frame, and answers that frame; `None` once
    /// `piece` is used up.
    ///
    /// # Errors
    /// [`FrameError`], again and again once the stream is broken.
    pub fn feed(&mut self, piece: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.state {
                State::Broken(error) => return Err(*error),
                State::Start | State::Head { .. } if piece.is_empty() => return Ok(None),
                State::Start => match piece.get_u8() {
                    STREAM_VERSION => self.state = State::fresh_head(),
                    other => return Err(self.broken(FrameError::Version(other))),
                },
                State::Head { bytes, filled } => {
                    let take = (HEADER_BYTES - *filled).min(piece.len());
                    piece.copy_to_slice(&mut bytes[*filled..*filled + take]);
                    *filled += take;
                    if *filled == HEADER_BYTES {
                        let head = *bytes;
                        self.begin_payload(head)?;
                    }
                }
                State::Payload { channel, length, collected } => {
                    let take = (*length - collected.len()).min(piece.len());
                    collected.extend_from_slice(&piece.split_to(take));
                    if collected.len() < *length {
                        return Ok(None);
                    }
                    let frame = Frame { channel: *channel, payload: std::mem::take(collected).freeze() };
                    self.state = State::fresh_head();
                    return Ok(Some(frame));
                }
            }
        }
    }

    /// Whether the stream may end here: before anything, or between two frames.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], or the error that broke the stream before.
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.state {
            State::Start | State::Head { filled: 0, .. } => Ok(()),
            State::Head { .. } | State::Payload { .. } => Err(FrameError::Truncated),
            State::Broken(error) => Err(*error),
        }
    }

    fn begin_payload(&mut self, head: [u8; HEADER_BYTES]) -> Result<(), FrameError> {
        let [a, b, c, d, channel] = head;
        let announced = u32::from_be_bytes([a, b, c, d]);
        let length = announced as usize;
        if length > FRAME_BYTES_MAX {
            return Err(self.broken(FrameError::Oversized(announced)));
        }
        self.state =
            State::Payload { channel, length, collected: BytesMut::with_capacity(length.min(FIRST_ROOM_BYTES)) };
        Ok(())
    }

    fn broken(&mut self, error: FrameError) -> FrameError {
        self.state = State::Broken(error);
        error
    }
}

impl State {
    fn fresh_head() -> Self {
        Self::Head { bytes: [0; HEADER_BYTES], filled: 0 }
    }
}

/// Everything that a whole stream says: what a fuzzer calls.
///
/// # Errors
/// As [`Decoder::feed`] and [`Decoder::finish`].
pub fn decode_stream(stream: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    let mut rest = Bytes::copy_from_slice(stream);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.feed(&mut rest)? {
        frames.push(frame);
    }
    decoder.finish()?;
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(frames: &[Frame]) -> Vec<u8> {
        let mut stream = vec![STREAM_VERSION];
        for frame in frames {
            stream.extend_from_slice(&head(frame.channel, frame.payload.len()));
            stream.extend_from_slice(&frame.payload);
        }
        stream
    }

    #[test]
    fn an_announced_length_beyond_the_limit_is_refused_before_a_payload_byte_is_read() {
        let mut stream = vec![STREAM_VERSION];
        stream.extend_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
        stream.push(0);
        assert_eq!(decode_stream(&stream), Err(FrameError::Oversized(FRAME_BYTES_MAX as u32 + 1)));
    }

    #[test]
    fn an_announced_length_alone_takes_little_memory() {
        let mut decoder = Decoder::default();
        let mut piece = Bytes::from([&[STREAM_VERSION][..], &head(3, FRAME_BYTES_MAX)].concat());
        assert_eq!(decoder.feed(&mut piece), Ok(None));
        let State::Payload { collected, .. } = &decoder.state else { panic!("{decoder:?}") };
        assert!(collected.capacity() <= FIRST_ROOM_BYTES);
    }

    #[test]
    fn a_broken_stream_stays_broken() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(&mut Bytes::from_static(&[9])), Err(FrameError::Version(9)));
        let mut good = Bytes::from(encode(&[Frame { channel: 1, payload: Bytes::from_static(b"x") }]));
        assert_eq!(decoder.feed(&mut good), Err(FrameError::Version(9)));
        assert_eq!(decoder.finish(), Err(FrameError::Version(9)));
    }

    #[test]
    fn a_stream_that_stops_within_a_frame_is_told_from_one_that_ends() {
        let whole = encode(&[Frame { channel: 1, payload: Bytes::from_static(b"abc") }]);
        assert_eq!(decode_stream(&whole).map(|f| f.len()), Ok(1));
        for cut in 2..whole.len() {
            assert_eq!(decode_stream(&whole[..cut]), Err(FrameError::Truncated), "cut at {cut}");
        }
        assert_eq!(decode_stream(&[]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            contents in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..600)), 0..8),
            cut in 1_usize..700,
        ) {
            let frames: Vec<Frame> =
                contents.into_iter().map(|(channel, p)| Frame { channel, payload: p.into() }).collect();
            let stream = encode(&frames);
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                let mut piece = Bytes::copy_from_slice(piece);
                while let Some(frame) = decoder.feed(&mut piece).expect("well-formed") {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn no_bytes_make_it_panic(stream in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = decode_stream(&stream);
        }
    }
}
