//! What arrives at the transport before anybody is known, as a fuzzer calls it.

use super::frame::{Decoder, Frame, STREAM_VERSION, decode_stream, head};
use super::ids::{IdKey, Nature, judge};
use super::quic::Kind;
use bytes::Bytes;

/// A stream of frames, whole and in pieces of any size: the first byte says of which.
pub(crate) fn stream(bytes: &[u8]) -> bool {
    let Some((&size, bytes)) = bytes.split_first() else { return false };
    let whole = decode_stream(bytes);
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    let mut broken = None;
    for piece in bytes.chunks(usize::from(size).max(1)) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match decoder.feed(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
    }
    let pieced = broken.map_or_else(|| decoder.finish().map(|()| frames), Err);
    assert_eq!(pieced, whole, "however it is cut, a stream says the same");
    whole.is_ok_and(|frames| {
        assert!(frames.is_empty() || joined(&frames) == bytes, "a stream has one spelling");
        !frames.is_empty()
    })
}

fn joined(frames: &[Frame]) -> Vec<u8> {
    let mut stream = vec![STREAM_VERSION];
    for frame in frames {
        stream.extend_from_slice(&head(frame.channel, frame.payload.len()));
        stream.extend_from_slice(&frame.payload);
    }
    stream
}

pub(crate) fn stream_seeds() -> Vec<Vec<u8>> {
    let frame = |channel, payload: &'static [u8]| Frame { channel, payload: Bytes::from_static(payload) };
    let frames = [frame(1, b"abc"), frame(2, b""), frame(1, &[7; 300])];
    [1, 5, 255].map(|size| [vec![size], joined(&frames)].concat()).into()
}

/// A packet before QUIC sees it.
pub(crate) fn packet(bytes: &[u8]) -> bool {
    judge(bytes, IdKey::new(&[3; 32])) == Nature::Ours
}

pub(crate) fn packet_seeds() -> Vec<Vec<u8>> {
    let id = IdKey::new(&[3; 32]).make([1, 2, 3, 4]);
    let short = [&[0x40][..], &id, &[9; 40]].concat();
    let first = Kind::Beat.first_id();
    let long = [&[0xc0, 0, 0, 0, 1, first.len() as u8][..], &first[..], &[0; 30]].concat();
    vec![short, long]
}
