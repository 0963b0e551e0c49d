//! Messages that many hosts are sent, one after the other, lie in memory once in the form in which they are sent.

use crate::engine::{self, Message};
use bytes::Bytes;
use quorum::codec::EncodeError;
use std::sync::{Arc, Weak};

/// The encoded form of what the engine keeps to send it again, for as long as it does.
#[derive(Debug, Default)]
pub(super) struct Encoded(Vec<(Weak<Message>, Bytes)>);

impl Encoded {
    /// The bytes to send.
    ///
    /// # Errors
    /// The message outgrew its limit.
    pub(super) fn of(&mut self, message: &Arc<Message>) -> Result<Bytes, EncodeError> {
        self.forget();
        if let Some((_, bytes)) = self.0.iter().find(|(kept, _)| std::ptr::eq(kept.as_ptr(), Arc::as_ptr(message))) {
            return Ok(bytes.clone());
        }
        // It may lie in queues for a while: without the room into which it didn't grow.
        let bytes = Bytes::from(engine::encode(message)?.into_boxed_slice());
        if Arc::strong_count(message) > 1 {
            self.0.push((Arc::downgrade(message), bytes.clone()));
        }
        Ok(bytes)
    }

    /// What the engine doesn't keep any more isn't kept here either.
    pub(super) fn forget(&mut self) {
        self.0.retain(|(kept, _)| kept.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::LogIndex;

    fn follow(after: u64) -> Arc<Message> {
        Arc::new(Message::Follow { after: LogIndex(after) })
    }

    #[test]
    fn what_the_engine_keeps_is_encoded_once_and_forgotten_with_it() {
        let mut encoded = Encoded::default();
        let kept = [follow(1), follow(2)];
        let first = kept.clone().map(|message| encoded.of(&message).expect("small"));
        let again = kept.clone().map(|message| encoded.of(&message).expect("small"));
        assert_eq!(first, again);
        assert!(first.iter().zip(&again).all(|(first, again)| first.as_ptr() == again.as_ptr()), "the very same bytes");
        assert_ne!(first[0], first[1]);
        drop(kept);
        encoded.forget();
        assert!(encoded.0.is_empty(), "{encoded:?}");
        let once = encoded.of(&follow(3)).expect("small");
        assert_eq!(engine::decode(&once).expect("as it was encoded"), *follow(3));
        assert!(encoded.0.is_empty(), "{encoded:?}");
    }
}
