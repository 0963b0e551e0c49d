//! Messages that wait for a connection to one peer.
//!
//! Bounded in number and in bytes. It takes up memory only while something waits: a voter has a thousand peers, and sends
//! most of them nothing for hours.

use super::SendError;
use super::event::Channel;
use bytes::Bytes;
use quorum::moment::Moment;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{MutexGuard, Notify};

/// A message that waits to be sent.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) channel: Channel,
    pub(super) bytes: Bytes,
    pub(super) since: Moment,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Queued>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    messages_max: usize,
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    more: Notify,
    emptied_by: tokio::sync::Mutex<()>,
}

/// Whoever holds this sends what waits; nobody else does.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    outbox: &'a Outbox,
    _alone: MutexGuard<'a, ()>,
}

impl Outbox {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Self {
        let (messages_max, waiting, more) = (messages_max.max(1), Mutex::default(), Notify::new());
        Self { messages_max, bytes_max, waiting, more, emptied_by: tokio::sync::Mutex::default() }
    }

    /// Appends a message. Never waits.
    ///
    /// # Errors
    /// [`SendError::Backpressure`] if there is no room for it; nothing changed.
    pub(super) fn push(&self, message: Queued) -> Result<(), SendError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = waiting.bytes.saturating_add(message.bytes.len());
        if waiting.messages.len() >= self.messages_max || bytes > self.bytes_max {
            return Err(SendError::Backpressure);
        }
        waiting.bytes = bytes;
        waiting.messages.push_back(message);
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    /// Waits until nobody else sends.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn { outbox: self, _alone: self.emptied_by.lock().await }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).messages.is_empty()
    }

    fn pop(&self) -> Option<Queued> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let message = waiting.messages.pop_front()?;
        waiting.bytes -= message.bytes.len();
        if waiting.messages.is_empty() {
            waiting.messages = VecDeque::new();
        }
        Some(message)
    }
}

impl Turn<'_> {
    /// The oldest message; waits for one. Dropped while it waits, it has taken nothing.
    pub(super) async fn next(&self) -> Queued {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.outbox.more.notified().await;
        }
    }

    /// The oldest message, if one is there.
    pub(super) fn take(&self) -> Option<Queued> {
        self.outbox.pop()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Waits until a message is there.
    pub(super) async fn filled(&self) {
        while self.outbox.is_empty() {
            self.outbox.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(number: u8) -> Queued {
        Queued { channel: Channel(number), bytes: Bytes::from_static(&[0; 100]), since: Moment::from_ns(1) }
    }

    #[test]
    fn it_is_bounded_in_messages_and_in_bytes_and_what_left_makes_room() {
        let few = Outbox::new(3, 1_000);
        assert_eq!((0..10).filter(|&number| few.push(message(number)).is_ok()).count(), 3);
        assert_eq!(few.pop().map(|first| first.channel), Some(Channel(0)));
        assert_eq!(few.push(message(3)), Ok(()));
        let small = Outbox::new(10, 250);
        assert_eq!((0..10).filter(|&number| small.push(message(number)).is_ok()).count(), 2);
        while small.pop().is_some() {}
        assert_eq!(
            (0..10).filter(|&number| small.push(message(number)).is_ok()).count(),
            2,
            "a refused one took no room"
        );
    }

    #[tokio::test]
    async fn who_waits_for_a_message_is_woken_and_who_stops_waiting_has_taken_none() {
        let outbox = std::sync::Arc::new(Outbox::new(10, 1_000));
        let first = outbox.turn().await;
        let gave_up = tokio::time::timeout(Duration::from_millis(10), first.next()).await;
        assert!(gave_up.is_err());
        let filling = std::sync::Arc::clone(&outbox);
        let filled = tokio::spawn(async move {
            tokio::task::yield_now().await;
            (0..3).map(|number| filling.push(message(number))).collect::<Vec<_>>()
        });
        assert_eq!(first.next().await.channel, Channel(0));
        assert_eq!(filled.await.expect("it ended"), [Ok(()), Ok(()), Ok(())]);
        drop(first);
        let second = outbox.turn().await;
        assert_eq!((second.next().await.channel, second.next().await.channel), (Channel(1), Channel(2)));
    }

    #[test]
    fn without_messages_it_takes_up_no_memory() {
        let outbox = Outbox::new(10, 1_000);
        for number in 0..5 {
            outbox.push(message(number)).expect("room");
        }
        while outbox.pop().is_some() {}
        assert_eq!(outbox.waiting.lock().expect("no panic").messages.capacity(), 0);
    }
}
